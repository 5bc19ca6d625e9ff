//! Everything that people are told, each with its texts in both languages.

use crate::error::Language;

/// What a message is. Its texts name their values; `texts/` holds them, a title and then what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `link`, `code`: an address is somebody's.
    VerifyEmail,
    /// `link`, `code`: a new password may be chosen.
    ResetPassword,
    /// `link`, `code`: an address is to be an account's. It goes there, not to the account's own.
    ChangeEmail,
    /// `code`: a telephone is somebody's. It goes there alone (`phones`).
    VerifyPhone,
    /// `device`, `network` (each may be null), `at`: somebody signed in where nobody had before.
    NewSignIn,
    /// `at`
    PasswordChanged,
    /// `at`; to the address that was.
    EmailChanged,
    /// `change` (on, off, reset, recovery), `at`, for recovery `left`
    SecondFactorChanged,
    /// `reason`, `until` (null: for good)
    AccountBanned,
    /// The copy of a person's data can be fetched, or somebody else asked for it.
    ExportReady,
    /// For admins, grouped: somebody asks something about their own data, `due`.
    PrivacyAsked,
    PrivacyAnswered,
    /// `name`, `post`; grouped by the post.
    PostLiked,
    /// `name`, `post`, `comment`; grouped by the post.
    PostCommented,
}

macro_rules! texts {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("texts/", $name, ".id.txt")),
            include_str!(concat!("texts/", $name, ".en.txt")),
        )
    };
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::VerifyEmail,
        Self::ResetPassword,
        Self::ChangeEmail,
        Self::VerifyPhone,
        Self::NewSignIn,
        Self::PasswordChanged,
        Self::EmailChanged,
        Self::SecondFactorChanged,
        Self::AccountBanned,
        Self::ExportReady,
        Self::PrivacyAsked,
        Self::PrivacyAnswered,
        Self::PostLiked,
        Self::PostCommented,
    ];

    /// Its word and its texts: Indonesian, English.
    fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::VerifyEmail => texts!("verify_email"),
            Self::ResetPassword => texts!("reset_password"),
            Self::ChangeEmail => texts!("change_email"),
            Self::VerifyPhone => texts!("verify_phone"),
            Self::NewSignIn => texts!("new_sign_in"),
            Self::PasswordChanged => texts!("password_changed"),
            Self::EmailChanged => texts!("email_changed"),
            Self::SecondFactorChanged => texts!("second_factor_changed"),
            Self::AccountBanned => texts!("account_banned"),
            Self::ExportReady => texts!("export_ready"),
            Self::PrivacyAsked => texts!("privacy_asked"),
            Self::PrivacyAnswered => texts!("privacy_answered"),
            Self::PostLiked => texts!("post_liked"),
            Self::PostCommented => texts!("post_commented"),
        }
    }

    /// Its stable word.
    pub fn word(self) -> &'static str {
        self.row().0
    }

    /// The template of its title, and of what follows.
    pub(super) fn text(self, language: Language) -> (&'static str, &'static str) {
        let (_, indonesian, english) = self.row();
        let text = match language {
            Language::Indonesian => indonesian,
            Language::English => english,
        };
        text.split_once('\n').map_or((text, ""), |(title, rest)| (title, rest.trim()))
    }

    /// About the account itself.
    pub(super) fn is_transactional(self) -> bool {
        !matches!(self, Self::PostLiked | Self::PostCommented)
    }

    /// A link or a code: for the mailbox or the telephone that it was asked for alone, and soon stale.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::VerifyEmail | Self::ResetPassword | Self::ChangeEmail | Self::VerifyPhone)
    }
}
