//! The one error of the cloud's API, named by what the caller can do about it.
//!
//! Every error body is `{"success":false,"error":{"code","message","details"},"request_id"}`. Codes are
//! stable; messages and details exist in Indonesian (default) and English. What was not expected is logged whole
//! and answered bare.

mod unread;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError};
use lumbung_shared::FieldError;
pub use lumbung_shared::language::Language;
use lumbung_shared::language::Words;
use serde::Serialize;
use std::borrow::Cow;
use utoipa::ToSchema;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields that must be mended.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Fields(Vec<FieldError>),
    /// The request cannot be read; which part of it, or which member of its body.
    #[error("{part}: {words}")]
    Unreadable { part: Cow<'static, str>, words: Words },
    #[error("no valid key")]
    Unauthenticated,
    /// The right password of an account that is shut; why, and until when.
    #[error("account is not active")]
    Inactive { reason: Option<String>, until: Option<String> },
    /// The first step of a sign-in was right; the account has a second.
    #[error("a code of the second factor is needed")]
    TotpRequired { challenge: String, expires_in: i32 },
    /// Of a second factor, while signing in.
    #[error("wrong code")]
    WrongCode,
    /// The same for an unknown account and a wrong password.
    #[error("wrong e-mail address or password")]
    WrongCredentials,
    /// Known, but not allowed; the code says why.
    #[error("forbidden: {0}")]
    Forbidden(&'static str),
    #[error("not found: {0}")]
    NotFound(&'static str),
    #[error("method not allowed, only {allow}")]
    MethodNotAllowed { allow: String },
    /// Meant for another name than this cloud's.
    #[error("asked by a name that is not this cloud's")]
    BadHost,
    #[error("request took too long")]
    Timeout,
    /// Something else already stands in that place.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// A request with the same Idempotency-Key is being done right now.
    #[error("the same idempotency key is in flight")]
    InFlight,
    /// An Idempotency-Key that came with another body before.
    #[error("idempotency key of another request")]
    KeyReused,
    #[error("too large: {0}")]
    TooLarge(Words),
    /// A person's uploads together; in bytes.
    #[error("{used} of {quota} bytes are used")]
    QuotaExceeded { used: i64, quota: i64 },
    #[error("unsupported: {0}")]
    Unsupported(Words),
    #[error("too many requests")]
    TooMany { retry_after: u64 },
    /// Nothing wrong with the request; later it will be served.
    #[error("busy: {reason}")]
    Busy { retry_after: u64, reason: String },
    #[error(transparent)]
    Unexpected(#[from] anyhow::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn field(
        field: &'static str,
        indonesian: impl Into<Cow<'static, str>>,
        english: impl Into<Cow<'static, str>>,
    ) -> Self {
        FieldError::new(field, indonesian, english).into()
    }

    /// A field of which something else has said what is wrong.
    pub fn wrong(field: &'static str, words: Words) -> Self {
        FieldError { field, words }.into()
    }

    /// A body that cannot be read as a whole.
    pub fn unreadable(
        indonesian: impl Into<Cow<'static, str>>,
        english: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Unreadable { part: "body".into(), words: Words::new(indonesian, english) }
    }

    pub fn too_large(most: usize) -> Self {
        Self::TooLarge(Words::new(format!("paling banyak {most} byte"), format!("at most {most} bytes")))
    }

    pub fn wanted_type(wanted: &str) -> Self {
        Self::Unsupported(Words::new(
            format!("kirim Content-Type: {wanted}"),
            format!("send Content-Type: {wanted}"),
        ))
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fields(_) => "VALIDATION_ERROR",
            Self::Unreadable { .. } => "UNREADABLE_REQUEST",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::WrongCredentials => "WRONG_CREDENTIALS",
            Self::Inactive { .. } => "ACCOUNT_INACTIVE",
            Self::TotpRequired { .. } => "TOTP_REQUIRED",
            Self::WrongCode => "WRONG_CODE",
            Self::Forbidden(code) | Self::NotFound(code) | Self::Conflict(code) => code,
            Self::MethodNotAllowed { .. } => "METHOD_NOT_ALLOWED",
            Self::BadHost => "BAD_HOST",
            Self::Timeout => "REQUEST_TIMEOUT",
            Self::InFlight => "IDEMPOTENCY_IN_FLIGHT",
            Self::KeyReused => "IDEMPOTENCY_KEY_REUSED",
            Self::TooLarge(_) => "TOO_LARGE",
            Self::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
            Self::Unsupported(_) => "UNSUPPORTED_MEDIA_TYPE",
            Self::TooMany { .. } => "TOO_MANY_REQUESTS",
            Self::Busy { .. } => "BUSY",
            Self::Unexpected(_) => "INTERNAL_ERROR",
        }
    }

    /// What can be said beyond the message of the code.
    fn details(&self, language: Language) -> Vec<Detail> {
        let detail = |field: &str, words: &Words| Detail {
            field: field.into(),
            message: words.within(language).into(),
        };
        match self {
            Self::Fields(fields) => fields.iter().map(|wrong| detail(wrong.field, &wrong.words)).collect(),
            Self::Unreadable { part, words } => vec![detail(part, words)],
            Self::TooLarge(words) | Self::Unsupported(words) => vec![detail("body", words)],
            Self::QuotaExceeded { used, quota } => {
                let indonesian = format!("{used} dari {quota} byte terpakai");
                vec![detail("body", &Words::new(indonesian, self.to_string()))]
            }
            Self::Inactive { reason, until } => {
                let told = [("reason", reason), ("expires_at", until)];
                told.into_iter()
                    .filter_map(|(field, text)| Some(Detail { field: field.into(), message: text.clone()? }))
                    .collect()
            }
            Self::TotpRequired { challenge, expires_in } => {
                let told = [("challenge", challenge.clone()), ("expires_in", expires_in.to_string())];
                told.into_iter().map(|(field, message)| Detail { field: field.into(), message }).collect()
            }
            _ => Vec::new(),
        }
    }

    /// For a person at a command line.
    pub fn explained(&self) -> String {
        let words = self.details(Language::English).into_iter().map(|detail| detail.message);
        std::iter::once(message(self.code(), Language::English).to_owned())
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The answer for one request: its language and its id.
    pub fn answer(&self, request_id: &str, language: Language) -> HttpResponse {
        let error = Described {
            code: self.code(),
            message: message(self.code(), language),
            details: self.details(language),
        };
        let body = ErrorBody { success: false, error, request_id: request_id.to_owned() };
        self.head().json(body)
    }

    fn head(&self) -> HttpResponseBuilder {
        let mut response = HttpResponse::build(self.status_code());
        match self {
            Self::TooMany { retry_after } | Self::Busy { retry_after, .. } => {
                response.insert_header((header::RETRY_AFTER, retry_after.to_string()));
            }
            Self::InFlight => {
                response.insert_header((header::RETRY_AFTER, "1"));
            }
            Self::MethodNotAllowed { allow } => {
                response.insert_header((header::ALLOW, allow.as_str()));
            }
            Self::Unauthenticated | Self::WrongCredentials | Self::WrongCode => {
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Fields(_) | Self::Unreadable { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::WrongCredentials | Self::WrongCode => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::Inactive { .. } | Self::TotpRequired { .. } => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadHost => StatusCode::MISDIRECTED_REQUEST,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) | Self::InFlight => StatusCode::CONFLICT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge(_) | Self::QuotaExceeded { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unexpected(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Never seen by clients: the request middleware answers with [`Error::answer`].
    fn error_response(&self) -> HttpResponse {
        self.answer("", Language::Indonesian)
    }
}

impl From<FieldError> for Error {
    fn from(wrong: FieldError) -> Self {
        Self::Fields(vec![wrong])
    }
}

/// A database that cannot be reached is a reason to come back; anything else was not expected.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_unreachable(&error) {
            Self::Busy { retry_after: 5, reason: error.to_string() }
        } else {
            Self::Unexpected(error.into())
        }
    }
}

/// Whether the database, not the statement, is at fault: gone, starting, full, or undoing this
/// transaction for another's sake.
pub fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::BeginFailed => true,
        // Class 08 connection, 25 invalid transaction state (a read-only standby), 40 rollback,
        // 53 resources (disk full), 57 operator intervention (shutdown, starting up), 58 system.
        sqlx::Error::Database(db) => db.code().is_some_and(|code| {
            ["08", "25", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// Turns the violation of a named constraint into the caller's error.
pub trait OnConstraint<T> {
    fn on_constraint(self, name: &str, error: Error) -> Result<T>;
}

impl<T> OnConstraint<T> for std::result::Result<T, sqlx::Error> {
    fn on_constraint(self, name: &str, error: Error) -> Result<T> {
        self.map_err(|e| match &e {
            sqlx::Error::Database(db) if db.constraint() == Some(name) => error,
            _ => e.into(),
        })
    }
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    #[schema(example = false)]
    success: bool,
    error: Described,
    #[schema(example = "6f1c9a70c2b94d1e8a4be0d7c9c2f0aa")]
    request_id: String,
}

#[derive(Serialize, ToSchema)]
struct Described {
    /// Stable; programs decide by it.
    #[schema(example = "VALIDATION_ERROR")]
    code: &'static str,
    /// For people, in the language of Accept-Language.
    #[schema(example = "Ada isian yang perlu diperbaiki.")]
    message: &'static str,
    details: Vec<Detail>,
}

#[derive(Serialize, ToSchema)]
struct Detail {
    #[schema(example = "limit")]
    field: String,
    /// In the language of Accept-Language too.
    #[schema(example = "harus antara 1 dan 500")]
    message: String,
}

/// The language that a request is to be answered in.
pub fn language_of(request: &HttpRequest) -> Language {
    let wanted = request.headers().get(header::ACCEPT_LANGUAGE).and_then(|wanted| wanted.to_str().ok());
    Language::of_header(wanted.unwrap_or_default())
}

/// What people read, by stable code: (code, Indonesian, English).
const MESSAGES: &[(&str, &str, &str)] = &[
    ("VALIDATION_ERROR", "Ada isian yang perlu diperbaiki.", "Some fields need mending."),
    ("UNREADABLE_REQUEST", "Permintaan tidak dapat dibaca.", "The request cannot be read."),
    (
        "UNAUTHENTICATED",
        "Perlu kunci akses atau sesi masuk yang sah.",
        "A valid access key or sign-in is needed.",
    ),
    (
        "WRONG_CREDENTIALS",
        "Alamat email atau kata sandi salah.",
        "The e-mail address or the password is wrong.",
    ),
    (
        "ACCOUNT_INACTIVE",
        "Akun ini dinonaktifkan. Hubungi admin.",
        "This account has been deactivated. Ask an admin.",
    ),
    (
        "TOTP_REQUIRED",
        "Masukkan kode dari aplikasi autentikator Anda untuk menyelesaikan masuk.",
        "Give the code of your authenticator app to finish signing in.",
    ),
    (
        "WRONG_CODE",
        "Kode itu salah atau sudah dipakai. Tunggu kode berikutnya.",
        "That code is wrong or was used already. Wait for the next one.",
    ),
    (
        "CHALLENGE_UNKNOWN",
        "Langkah pertama masuk sudah kedaluwarsa. Masuk lagi dari awal.",
        "The first step of that sign-in is out of date. Sign in from the beginning.",
    ),
    (
        "TOTP_ON",
        "Langkah kedua akun ini sudah aktif. Matikan dulu untuk menggantinya.",
        "The second factor of this account is on already. Switch it off to have another.",
    ),
    (
        "TOTP_OFF",
        "Akun itu tidak punya langkah kedua. Mulai dengan mendaftarkannya.",
        "That account has no second factor. Begin by enrolling one.",
    ),
    (
        "TOTP_NOT_CONFIGURED",
        "Langkah kedua belum tersedia di sini. Admin dapat mengaktifkannya dengan people.totp_key.",
        "A second factor is not available here. The operator can set people.totp_key.",
    ),
    (
        "TOTP_ENROLMENT_REQUIRED",
        "Akun Anda wajib memakai langkah kedua. Daftarkan aplikasi autentikator dulu.",
        "Your account must have a second factor. Enrol an authenticator app first.",
    ),
    (
        "DELIVERY_NOT_DEAD",
        "Pesan itu belum gagal, atau isinya sudah tidak disimpan. Minta pengirimannya dari awal.",
        "That message has not failed, or its text is no longer kept. Ask for a new one.",
    ),
    (
        "TOO_MANY_WEBHOOKS",
        "Paling banyak 20 webhook. Hapus yang tidak dipakai lagi.",
        "There can be 20 webhooks. End one that is no longer used.",
    ),
    (
        "HTTPS_ONLY",
        "Pakai alamat https. Kunci atau kata sandi yang baru saja dikirim bisa terbaca orang: ganti.",
        "Use the https address. A key or password that was just sent could be read on the way: change it.",
    ),
    (
        "JOB_RUNNING",
        "Pekerjaan itu sedang berjalan. Lihat daftarnya sebentar lagi.",
        "That job is running right now. See the list in a moment.",
    ),
    ("ADMIN_ONLY", "Hanya admin yang boleh melakukan ini.", "Only admins may do this."),
    (
        "NOT_GRANTED",
        "Akun atau kunci ini belum diberi hak untuk itu. Minta pada admin.",
        "This account or key has not been granted that. Ask an admin.",
    ),
    (
        "LAST_ADMIN",
        "Itu admin terakhir. Angkat admin lain dulu.",
        "That is the last admin. Make another one first.",
    ),
    (
        "OWN_ACCOUNT",
        "Itu akun Anda sendiri. Minta admin lain.",
        "That is your own account. Ask another admin.",
    ),
    (
        "NO_OPEN_CLAIM",
        "Gateway itu tidak punya kode yang masih terbuka.",
        "That gateway has no code that is still open.",
    ),
    ("NOT_BANNED", "Akun itu tidak dinonaktifkan.", "That account is not deactivated."),
    (
        "PROGRAMME_TAKEN",
        "Kode program itu sudah ada. Pilih yang lain, atau ubah program itu.",
        "There is a programme with that code. Choose another, or change that programme.",
    ),
    (
        "SITE_TAKEN",
        "Kode lokasi itu sudah ada. Pilih yang lain, atau ubah lokasi itu.",
        "There is a site with that code. Choose another, or change that site.",
    ),
    (
        "GATEWAY_TAKEN",
        "Gateway dengan kode itu sudah ada. Pilih yang lain, atau minta klaim untuknya.",
        "There is a gateway with that code. Choose another, or ask for a claim to it.",
    ),
    ("GRANT_EXISTS", "Hak itu sudah diberikan.", "That has been granted already."),
    (
        "PASSWORD_CHANGED",
        "Kata sandi baru saja diganti dari perangkat lain.",
        "The password was just changed from another device.",
    ),
    (
        "GOOGLE_NOT_CONFIGURED",
        "Masuk dengan Google tidak tersedia di sini. Pakai email dan kata sandi.",
        "Signing in with Google is not available here. Use your e-mail address and password.",
    ),
    (
        "PASSWORD_NEEDED_TO_LINK",
        "Alamat email itu sudah punya akun. Masukkan kata sandinya untuk menghubungkannya dengan Google.",
        "That e-mail address has an account already. Give its password to connect it with Google.",
    ),
    (
        "EMAIL_NOT_CONFIRMED",
        "Alamat email akun itu belum dipastikan. Buka tautan di email kami dulu, lalu coba lagi.",
        "That account's e-mail address is not confirmed. Follow the link in our mail first, then try again.",
    ),
    ("SMS_NOT_CONFIGURED", "SMS tidak tersedia di sini.", "Text messages are not available here."),
    (
        "LINK_UNKNOWN",
        "Tautan atau kode itu tidak dikenal, sudah dipakai atau kedaluwarsa. Minta yang baru.",
        "That link or code is unknown, used or out of date. Ask for a new one.",
    ),
    ("ALREADY_VERIFIED", "Alamat email Anda sudah dipastikan.", "Your e-mail address is confirmed already."),
    (
        "SIGN_IN_AGAIN",
        "Masukkan kata sandi, atau masuk lagi lalu ulangi dalam sepuluh menit.",
        "Give the password, or sign in again and repeat this within ten minutes.",
    ),
    (
        "EXPORT_NOT_READY",
        "Salinan data Anda masih disiapkan. Coba lagi sebentar lagi.",
        "The copy of your data is still being made. Try again in a moment.",
    ),
    (
        "TOO_MANY_OPEN_REQUESTS",
        "Sepuluh permintaan Anda belum dijawab. Tunggu jawabannya dulu.",
        "Ten of your requests are not answered yet. Wait for those first.",
    ),
    ("OTHER_USER", "Itu akun orang lain.", "That is somebody else's account."),
    (
        "EMAIL_TAKEN",
        "Alamat email itu sudah terdaftar. Silakan masuk.",
        "That e-mail address has an account already. Sign in instead.",
    ),
    (
        "USERNAME_TAKEN",
        "Nama pengguna itu sudah dipakai. Pilih yang lain.",
        "That user name is taken. Choose another.",
    ),
    (
        "GATEWAY_REVOKED",
        "Gateway ini sudah dicabut. Hubungi operator.",
        "This gateway has been revoked. Ask the operator.",
    ),
    (
        "SIGNING_KEY_UNKNOWN",
        "Tidak ada gateway cloud ini yang menandatangani berkas itu. Hubungkan gateway sekali ke cloud, lalu ekspor lagi.",
        "No gateway of this cloud signed that file. Let the gateway reach the cloud once, then export again.",
    ),
    (
        "SIGNING_KEY_REVOKED",
        "Kunci tanda tangan berkas itu sudah dicabut bersama gateway-nya. Hubungi operator.",
        "The key that signed that file was revoked with its gateway. Ask the operator.",
    ),
    (
        "SIGNING_KEY_RETIRED",
        "Berkas itu ditandatangani kunci lama untuk catatan milik kartu yang lebih baru. Hubungi operator.",
        "An older key signed that file for records of a newer card. Ask the operator.",
    ),
    ("FOREIGN_GATEWAY_ID", "Kunci ini milik gateway lain.", "This key belongs to another gateway."),
    ("NOT_FOUND", "Tidak ditemukan.", "Not found."),
    (
        "CLAIM_UNKNOWN",
        "Kode pendaftaran tidak dikenal atau kedaluwarsa. Minta kode baru.",
        "The claim is unknown or has expired. Ask for a new one.",
    ),
    (
        "CLAIM_USED",
        "Kode pendaftaran sudah dipakai. Minta kode baru.",
        "The claim has been used. Ask for a new one.",
    ),
    (
        "KEY_IN_USE",
        "Kunci itu sudah dipakai. Buat kunci baru.",
        "That key is already in use. Draw a new one.",
    ),
    ("METHOD_NOT_ALLOWED", "Metode tidak didukung di alamat ini.", "That method is not supported here."),
    (
        "BAD_HOST",
        "Server ini tidak dikenal dengan nama itu. Admin dapat menambahkannya di http.allowed_hosts.",
        "This server is not known by that name. Its operator can add it to http.allowed_hosts.",
    ),
    (
        "IDEMPOTENCY_IN_FLIGHT",
        "Permintaan yang sama sedang dikerjakan. Ulangi sebentar lagi.",
        "The same request is being done right now. Repeat it in a moment.",
    ),
    (
        "IDEMPOTENCY_KEY_REUSED",
        "Idempotency-Key itu sudah dipakai untuk permintaan lain. Buat kunci baru.",
        "That Idempotency-Key was used for another request. Draw a new one.",
    ),
    ("REQUEST_TIMEOUT", "Permintaan terlalu lama.", "The request took too long."),
    ("TOO_LARGE", "Kiriman terlalu besar.", "The request is too large."),
    (
        "QUOTA_EXCEEDED",
        "Tempat penyimpanan Anda penuh. Hapus unggahan yang lama dulu.",
        "Your storage is full. Delete older uploads first.",
    ),
    (
        "UNSUPPORTED_MEDIA_TYPE",
        "Jenis isi tidak didukung.",
        "That content type or encoding is not supported.",
    ),
    (
        "TOO_MANY_REQUESTS",
        "Terlalu banyak permintaan. Coba lagi nanti.",
        "Too many requests. Try again later.",
    ),
    ("BUSY", "Server sedang sibuk. Coba lagi sebentar lagi.", "The server is busy. Try again in a moment."),
    ("INTERNAL_ERROR", "Terjadi kesalahan di server.", "Something went wrong on the server."),
];

fn message(code: &str, language: Language) -> &'static str {
    MESSAGES.iter().find(|(known, _, _)| *known == code).map_or("", |(_, id, en)| language.pick(id, en))
}
