//! The vocabulary: OWASP's logging vocabulary where it has a word, ours in its manner elsewhere.

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    LoginSuccess,
    LoginFail,
    LoginLock,
    Logout,
    PasswordChange,
    PasswordReset,
    EmailVerified,
    EmailChanged,
    SecondFactorChanged,
    TokenCreated,
    TokenRevoked,
    TokenReuse,
    AccessRefused,
    RateExceeded,
    AdminAction,
    PermissionsChanged,
    UserCreated,
    UserUpdated,
    UserBanned,
    UserUnbanned,
    UploadComplete,
    UploadRefused,
    UploadDelete,
    SensitiveRead,
    SensitiveUpdate,
    SensitiveDelete,
    GatewayEnrolled,
    GatewayRevoked,
    GatewayKeyRotated,
    RecordsReplayed,
    RecordsImported,
    PlaceChanged,
    JobRun,
}

/// Every action with its word.
pub const ACTIONS: &[(Action, &str)] = &[
    (Action::LoginSuccess, "authn_login_success"),
    (Action::LoginFail, "authn_login_fail"),
    (Action::LoginLock, "authn_login_lock"),
    (Action::Logout, "authn_logout"),
    (Action::PasswordChange, "authn_password_change"),
    (Action::PasswordReset, "authn_password_reset"),
    (Action::EmailVerified, "authn_email_verified"),
    (Action::EmailChanged, "authn_email_changed"),
    (Action::SecondFactorChanged, "authn_second_factor_changed"),
    (Action::TokenCreated, "authn_token_created"),
    (Action::TokenRevoked, "authn_token_revoked"),
    (Action::TokenReuse, "authn_token_reuse"),
    (Action::AccessRefused, "authz_fail"),
    (Action::RateExceeded, "excess_rate_limit_exceeded"),
    (Action::AdminAction, "authz_admin"),
    (Action::PermissionsChanged, "privilege_permissions_changed"),
    (Action::UserCreated, "user_created"),
    (Action::UserUpdated, "user_updated"),
    (Action::UserBanned, "user_banned"),
    (Action::UserUnbanned, "user_unbanned"),
    (Action::UploadComplete, "upload_complete"),
    (Action::UploadRefused, "upload_validation"),
    (Action::UploadDelete, "upload_delete"),
    (Action::SensitiveRead, "sensitive_read"),
    (Action::SensitiveUpdate, "sensitive_update"),
    (Action::SensitiveDelete, "sensitive_delete"),
    (Action::GatewayEnrolled, "gateway_enrolled"),
    (Action::GatewayRevoked, "gateway_revoked"),
    (Action::GatewayKeyRotated, "gateway_key_rotated"),
    (Action::RecordsReplayed, "records_replayed"),
    (Action::RecordsImported, "records_imported"),
    (Action::PlaceChanged, "place_changed"),
    (Action::JobRun, "job_run"),
];

impl Action {
    pub fn word(self) -> &'static str {
        ACTIONS.iter().find(|(action, _)| *action == self).map_or("unknown", |(_, word)| word)
    }

    pub fn of_word(word: &str) -> Option<Self> {
        ACTIONS.iter().find(|(_, known)| *known == word).map(|(action, _)| *action)
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Not allowed, or not right.
    Refused,
    /// Allowed, and something broke.
    Failed,
}

/// Every outcome with its word.
pub const OUTCOMES: &[(Outcome, &str)] =
    &[(Outcome::Success, "success"), (Outcome::Refused, "refused"), (Outcome::Failed, "failed")];

impl Outcome {
    pub fn word(self) -> &'static str {
        OUTCOMES.iter().find(|(outcome, _)| *outcome == self).map_or("failed", |(_, word)| word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_one_word_of_its_own() {
        // The list must end with the enum's last member and hold each one before it once.
        assert_eq!(ACTIONS.len(), Action::JobRun as usize + 1);
        for (i, (action, word)) in ACTIONS.iter().enumerate() {
            assert_eq!(*action as usize, i, "{word} stands in another place than its action");
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
            assert!(ACTIONS[i + 1..].iter().all(|(_, other)| other != word), "{word} twice");
        }
    }
}
