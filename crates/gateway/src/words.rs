//! What people read, in Indonesian and English, keyed by stable codes.

use lumbung_shared::FieldError;
use lumbung_shared::language::Language;

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    ActionFailed,
    BadField,
    BadJson,
    BadHost,
    ClientRefConflict,
    KeyReused,
    LoopbackOnly,
    MethodNotAllowed,
    NoReader,
    NoSensor,
    NotFound,
    ReadingsFailed,
    ReadingsFull,
    ReceiptForeign,
    ReceiptForged,
    ReceiptNoCloud,
    ReceiptNotKept,
    ReceiptUnreadable,
    RequestTimeout,
    SensorsStopped,
    StorageFailed,
    StorageFull,
    TimeTooEarly,
    TimeTooLate,
    TooLarge,
    UnsupportedType,
    ForeignPage,
    LanClosed,
    NoSuchPhone,
    NotThisPhone,
    OfficerDiffers,
    PairCodeWrong,
    PairTooManyTries,
    PairingNeeded,
    PhonesFailed,
    TlsNeeded,
    TokenRefused,
    TooManyPhones,
}

impl Code {
    #[cfg(test)]
    const ALL: [Self; 38] = [
        Self::ActionFailed,
        Self::NoReader,
        Self::NoSensor,
        Self::SensorsStopped,
        Self::TimeTooEarly,
        Self::TimeTooLate,
        Self::BadField,
        Self::BadJson,
        Self::BadHost,
        Self::ClientRefConflict,
        Self::KeyReused,
        Self::ReadingsFailed,
        Self::ReadingsFull,
        Self::LoopbackOnly,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::ReceiptForeign,
        Self::ReceiptForged,
        Self::ReceiptNoCloud,
        Self::ReceiptNotKept,
        Self::ReceiptUnreadable,
        Self::RequestTimeout,
        Self::StorageFailed,
        Self::StorageFull,
        Self::TooLarge,
        Self::UnsupportedType,
        Self::ForeignPage,
        Self::LanClosed,
        Self::NoSuchPhone,
        Self::NotThisPhone,
        Self::OfficerDiffers,
        Self::PairCodeWrong,
        Self::PairTooManyTries,
        Self::PairingNeeded,
        Self::PhonesFailed,
        Self::TlsNeeded,
        Self::TokenRefused,
        Self::TooManyPhones,
    ];

    /// The code as programs read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ActionFailed => "action_failed",
            Self::NoReader => "no_reader",
            Self::NoSensor => "no_sensor",
            Self::BadField => "bad_field",
            Self::BadJson => "bad_json",
            Self::BadHost => "bad_host",
            Self::ClientRefConflict => "client_ref_conflict",
            Self::KeyReused => "idempotency_key_reused",
            Self::LoopbackOnly => "loopback_only",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::ReceiptForeign => "receipt_foreign",
            Self::ReceiptForged => "receipt_forged",
            Self::ReceiptNoCloud => "receipt_no_cloud",
            Self::ReceiptNotKept => "receipt_not_kept",
            Self::ReceiptUnreadable => "receipt_unreadable",
            Self::RequestTimeout => "request_timeout",
            Self::ReadingsFailed | Self::StorageFailed => "storage_failed",
            Self::ReadingsFull | Self::StorageFull => "storage_full",
            Self::SensorsStopped => "sensors_stopped",
            Self::TimeTooEarly => "time_too_early",
            Self::TimeTooLate => "time_too_late",
            Self::TooLarge => "too_large",
            Self::UnsupportedType => "unsupported_type",
            Self::ForeignPage => "foreign_page",
            Self::LanClosed => "lan_closed",
            Self::NoSuchPhone => "no_such_phone",
            Self::NotThisPhone => "not_this_phone",
            Self::OfficerDiffers => "officer_differs",
            Self::PairCodeWrong => "pair_code_wrong",
            Self::PairTooManyTries => "pair_too_many_tries",
            Self::PairingNeeded => "pairing_needed",
            Self::PhonesFailed => "phones_failed",
            Self::TlsNeeded => "tls_needed",
            Self::TokenRefused => "token_refused",
            Self::TooManyPhones => "too_many_phones",
        }
    }

    /// HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadField | Self::BadJson | Self::ReceiptUnreadable => 400,
            Self::PairingNeeded | Self::TokenRefused => 401,
            Self::ForeignPage
            | Self::LoopbackOnly
            | Self::NotThisPhone
            | Self::OfficerDiffers
            | Self::PairCodeWrong
            | Self::TlsNeeded => 403,
            Self::NoSuchPhone | Self::NotFound | Self::NoReader | Self::NoSensor => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::ClientRefConflict
            | Self::KeyReused
            | Self::LanClosed
            | Self::ReceiptForeign
            | Self::ReceiptNoCloud
            | Self::TimeTooEarly
            | Self::TimeTooLate
            | Self::TooManyPhones => 409,
            Self::TooLarge => 413,
            Self::UnsupportedType => 415,
            Self::BadHost => 421,
            Self::ReceiptForged => 422,
            Self::PairTooManyTries => 429,
            Self::ActionFailed
            | Self::PhonesFailed
            | Self::ReadingsFailed
            | Self::ReadingsFull
            | Self::ReceiptNotKept
            | Self::SensorsStopped
            | Self::StorageFailed
            | Self::StorageFull => 503,
        }
    }

    /// In words.
    pub fn message(self, lang: Language) -> &'static str {
        match self {
            Self::ActionFailed => lang.pick(
                "Aksi TIDAK berubah: tidak dapat disimpan di gateway.",
                "The action was NOT changed: it could not be kept on the gateway.",
            ),
            Self::NoReader => {
                lang.pick("Gateway ini tidak punya pembaca tag.", "This gateway has no tag reader.")
            }
            Self::NoSensor => {
                lang.pick("Tidak ada sensor dengan nama itu.", "There is no sensor of that name.")
            }
            Self::TimeTooEarly => lang.pick(
                "Jam HP ini tertinggal: gateway tahu pasti bahwa sekarang lebih lambat. Perbaiki jam HP.",
                "This phone's clock is behind: the gateway knows that it is later. Correct the phone's clock.",
            ),
            Self::TimeTooLate => lang.pick(
                "Jam HP ini bertahun-tahun di depan. Perbaiki jam HP.",
                "This phone's clock is years ahead. Correct the phone's clock.",
            ),
            Self::SensorsStopped => lang.pick(
                "Gateway sedang berhenti; sensor tidak dibaca.",
                "The gateway is stopping; sensors are not read.",
            ),
            Self::BadField => lang.pick("Ada isian yang tidak dapat diterima.", "A field cannot be taken."),
            Self::BadJson => {
                lang.pick("Isi permintaan harus berupa objek JSON.", "The body must be a JSON object.")
            }
            Self::BadHost => lang.pick(
                "Permintaan ini ditujukan ke nama yang bukan milik gateway ini.",
                "This request is meant for a name that is not this gateway's.",
            ),
            Self::ClientRefConflict => lang.pick(
                "client_ref ini sudah dipakai untuk scan dengan isi yang lain.",
                "This client_ref belongs to a scan with another content.",
            ),
            Self::LoopbackOnly => lang.pick(
                "Alamat ini hanya dilayani di gateway itu sendiri.",
                "This address is served on the gateway itself only.",
            ),
            Self::MethodNotAllowed => lang.pick(
                "Metode ini tidak dilayani di alamat ini.",
                "This method is not served at this address.",
            ),
            Self::NotFound => lang.pick("Alamat ini tidak ada.", "There is nothing at this address."),
            Self::ReceiptForeign => lang.pick(
                "Tanda terima ini untuk gateway lain. Tidak ada yang berubah.",
                "This receipt is for another gateway. Nothing has changed.",
            ),
            Self::ReceiptForged => lang.pick(
                "Tanda terima ini tidak ditandatangani cloud milik gateway ini. Tidak ada yang berubah.",
                "This receipt is not signed by this gateway's cloud. Nothing has changed.",
            ),
            Self::ReceiptNoCloud => lang.pick(
                "Gateway ini belum mengenal kunci cloud. Hubungkan sekali ke cloud.",
                "This gateway does not know its cloud's key yet. Let it reach the cloud once.",
            ),
            Self::ReceiptNotKept => lang.pick(
                "Tanda terima tidak dapat diproses sekarang. Coba lagi; tidak ada yang hilang.",
                "The receipt could not be settled now. Try again; nothing is lost.",
            ),
            Self::ReceiptUnreadable => lang.pick(
                "Ini bukan tanda terima yang dapat dibaca. Salin lagi dari cloud.",
                "This is not a receipt that can be read. Copy it from the cloud again.",
            ),
            Self::RequestTimeout => {
                lang.pick("Isi permintaan terlalu lama dikirim.", "The body took too long to arrive.")
            }
            Self::StorageFailed => lang.pick(
                "Scan TIDAK tersimpan: penyimpanan gagal. Coba lagi atau catat di kertas.",
                "The scan was NOT stored: the store failed. Try again, or write it down.",
            ),
            Self::StorageFull => lang.pick(
                "Scan TIDAK tersimpan: penyimpanan penuh. Catat di kertas dan hubungi operator.",
                "The scan was NOT stored: the disk is full. Write it down and call the operator.",
            ),
            Self::KeyReused => lang.pick(
                "Idempotency-Key ini sudah dipakai untuk isi yang lain.",
                "This Idempotency-Key was used with another body before.",
            ),
            Self::ReadingsFailed => lang.pick(
                "Pembacaan TIDAK tersimpan: penyimpanan gagal. Kirim lagi nanti.",
                "The readings were NOT stored: the store failed. Send them again later.",
            ),
            Self::ReadingsFull => lang.pick(
                "Pembacaan TIDAK tersimpan: penyimpanan penuh. Kirim lagi nanti.",
                "The readings were NOT stored: the disk is full. Send them again later.",
            ),
            Self::TooLarge => lang.pick("Isi permintaan terlalu besar.", "The body is too large."),
            Self::ForeignPage => lang.pick(
                "Permintaan ini datang dari halaman lain, bukan dari halaman gateway ini.",
                "This request comes from another page, not from this gateway's own.",
            ),
            Self::LanClosed => lang.pick(
                "Jaringan lokal belum dibuka: isi lan.listen = \"0.0.0.0:5443\" di konfigurasi, lalu mulai ulang gateway.",
                "The local network is not open: set lan.listen = \"0.0.0.0:5443\" in the configuration and restart the gateway.",
            ),
            Self::NoSuchPhone => lang.pick(
                "Tidak ada ponsel dengan id ini.",
                "No phone has this id.",
            ),
            Self::NotThisPhone => lang.pick(
                "Ponsel ini tidak berhak melakukan itu.",
                "This phone may not do that.",
            ),
            Self::OfficerDiffers => lang.pick(
                "Scan TIDAK tersimpan: ponsel ini terdaftar atas petugas lain. Kosongkan officer, atau pasangkan ponsel ini untuk petugas itu.",
                "The scan was NOT stored: this phone is paired for another officer. Leave officer out, or pair the phone for that officer.",
            ),
            Self::PairCodeWrong => lang.pick(
                "Kode pemasangan salah, sudah dipakai, atau sudah lewat sepuluh menit. Minta kode baru.",
                "The pairing code is wrong, used, or older than ten minutes. Ask for a new one.",
            ),
            Self::PairTooManyTries => lang.pick(
                "Terlalu banyak kode salah. Pindai kode QR, atau coba lagi nanti.",
                "Too many wrong codes. Scan the QR code, or try again later.",
            ),
            Self::PairingNeeded => lang.pick(
                "Ponsel ini belum dipasangkan dengan gateway.",
                "This phone is not paired with the gateway.",
            ),
            Self::PhonesFailed => lang.pick(
                "Daftar ponsel TIDAK berubah: tidak dapat disimpan di gateway.",
                "The list of phones was NOT changed: it could not be kept on the gateway.",
            ),
            Self::TlsNeeded => lang.pick(
                "Token hanya diterima lewat HTTPS di port 5443.",
                "Tokens are taken over HTTPS only, on port 5443.",
            ),
            Self::TokenRefused => lang.pick(
                "Token ini tidak berlaku, atau ponsel ini sudah dicabut. Pasangkan lagi.",
                "This token does not hold, or the phone was revoked. Pair it again.",
            ),
            Self::TooManyPhones => lang.pick(
                "Sudah terlalu banyak ponsel terpasang. Cabut yang tidak dipakai lagi.",
                "Too many phones are paired. Revoke one that is not used any more.",
            ),
            Self::UnsupportedType => lang
                .pick("Content-Type harus application/json.", "The Content-Type must be application/json."),
        }
    }
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldProblem {
    Missing,
    NotText,
    NotNumber,
    NotTime,
    NotUuid,
    NotObject,
    NotKept,
    NotUnderstood,
    UnknownStream,
    Limit(FieldError),
}

impl FieldProblem {
    /// In words, with an example where one helps.
    pub fn message(&self, lang: Language) -> String {
        let text = match self {
            Self::Missing => lang.pick("wajib diisi", "must be given"),
            Self::NotText => lang.pick("harus berupa teks", "must be text"),
            Self::NotNumber => lang.pick("harus berupa angka", "must be a number"),
            Self::NotTime => lang.pick(
                "harus berupa waktu RFC 3339 dengan selisih UTC, misalnya 2026-11-21T09:30:00+07:00",
                "must be an RFC 3339 time with its UTC offset, such as 2026-11-21T09:30:00+07:00",
            ),
            Self::NotUuid => lang.pick(
                "harus berupa UUID, misalnya 3f2b8c1e-6d0a-4c58-9a54-0d6d3c5f7e21",
                "must be a UUID, such as 3f2b8c1e-6d0a-4c58-9a54-0d6d3c5f7e21",
            ),
            Self::NotObject => lang.pick("harus berupa objek JSON", "must be a JSON object"),
            Self::NotKept => lang.pick(
                "tidak disimpan di sini; kirim angka (v) atau true/false (vb)",
                "is not kept here; send a number (v) or true or false (vb)",
            ),
            Self::NotUnderstood => lang.pick(
                "wajib dipahami oleh penerima, dan gateway ini tidak memahaminya",
                "must be understood by whoever reads it, and this gateway does not",
            ),
            Self::UnknownStream => {
                lang.pick("harus scan, reading atau event", "must be scan, reading or event")
            }
            Self::Limit(error) => error.words.within(lang),
        };
        text.to_owned()
    }
}

/// How the gateway is, for `systemctl status`.
pub fn service_status(lang: Language, unsent: u64, reader: &str) -> String {
    let (unsent_is, reader_is) =
        (lang.pick("Belum terkirim", "Unsent"), lang.pick("pembaca tag", "tag reader"));
    format!("{unsent_is}: {unsent}; {reader_is}: {reader}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumbung_shared::reading::{SeriesName, Unit};
    use lumbung_shared::scan::ScanContent;
    use lumbung_shared::tag::TagId;

    #[test]
    fn every_code_has_words_in_both_languages() {
        for code in Code::ALL {
            assert_ne!(code.message(Language::Indonesian), code.message(Language::English), "{code:?}");
            assert!((400..600).contains(&code.status()));
        }
    }

    #[test]
    fn every_limit_of_a_record_is_told_in_both_languages() {
        let content = ScanContent {
            tag: TagId::parse("A").unwrap(),
            status: "s".into(),
            at_ms: None,
            note: None,
            officer: None,
            quantity: None,
            client_ref: None,
        };
        let mut errors = vec![
            SeriesName::parse("").unwrap_err(),
            Unit::parse("").unwrap_err(),
            TagId::parse("").unwrap_err(),
            TagId::parse("a\0b").unwrap_err(),
            TagId::parse(&"x".repeat(200)).unwrap_err(),
        ];
        for change in [
            (|c| c.note = Some("x".repeat(501))) as fn(&mut ScanContent),
            |c| c.note = Some("a\0b".into()),
            |c| c.officer = Some("x".repeat(65)),
            |c| c.quantity = Some(-1.0),
            |c| c.status = String::new(),
        ] {
            let mut content = content.clone();
            change(&mut content);
            errors.push(content.check().unwrap_err());
        }
        for error in errors {
            let problem = FieldProblem::Limit(error);
            assert_ne!(problem.message(Language::Indonesian), problem.message(Language::English));
        }
    }
}
