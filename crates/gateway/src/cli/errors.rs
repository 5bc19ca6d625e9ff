//! What went wrong, in the reader's language. What the system or another program says stays as it is.

use crate::app::BuildError;
use crate::outbox::OpenError;
use crate::signing::SigningError;
use crate::sync::LocalError;
use lumbung_shared::language::Language;

/// An error with its chain, in words.
pub(super) fn in_words(error: &anyhow::Error, lang: Language) -> String {
    let indonesian = match lang {
        Language::English => None,
        Language::Indonesian => None
            .or_else(|| error.downcast_ref().and_then(of_local))
            .or_else(|| error.downcast_ref().and_then(of_build))
            .or_else(|| error.downcast_ref().and_then(of_store))
            .or_else(|| error.downcast_ref().and_then(of_signing)),
    };
    indonesian.unwrap_or_else(|| format!("{error:#}"))
}

fn of_local(error: &LocalError) -> Option<String> {
    match error {
        LocalError::NotRunning(why) => Some(format!("tidak ada gateway yang menjawab di mesin ini: {why}")),
        LocalError::Refused(answer) => Some(format!("gateway menjawab: {answer}")),
        LocalError::Client(_) => None,
    }
}

fn of_build(error: &BuildError) -> Option<String> {
    let taken = |key: &str, address, error| format!("{key}: {address} tidak dapat dibuka: {error}");
    match error {
        BuildError::Store(error) => of_store(error),
        BuildError::Listen { address, error } => Some(taken("http.listen", address, error)),
        BuildError::ListenLan { address, error } => Some(taken("lan.listen", address, error)),
        BuildError::MqttSession(error) => {
            Some(format!("mqtt: sesi dengan broker tidak dapat diingat: {error}"))
        }
        BuildError::Thread(error) => Some(format!("sebuah thread tidak dapat dimulai: {error}")),
        // They name a key or a file, and what the system says of it.
        BuildError::Client(_)
        | BuildError::Certificate(_)
        | BuildError::Reader { .. }
        | BuildError::Sensor(_)
        | BuildError::Pin(_)
        | BuildError::Mqtt(_) => None,
    }
}

fn of_store(error: &OpenError) -> Option<String> {
    let text = match error {
        OpenError::OldSqlite { found } => {
            format!("SQLite {found} dapat kehilangan data dalam mode WAL; perlu 3.51.3 atau lebih baru")
        }
        OpenError::InUse(dir) => format!("lumbung-gateway lain sedang berjalan di {}", dir.display()),
        OpenError::UnknownVersion { path, found, known } => format!(
            "{} berversi {found}, sedangkan program ini mengenal versi sampai {known}: ditulis oleh program yang \
             lebih baru, atau bukan milik program ini. File tidak diubah; pasang program itu, atau pindahkan filenya",
            path.display()
        ),
        OpenError::NotOurs { path } => format!(
            "{} berisi tabel program lain. File tidak diubah; pindahkan untuk mulai dari awal",
            path.display()
        ),
        OpenError::OlderVersion { path } => format!(
            "{} ditulis oleh program yang lebih lama; salin foldernya, lalu jalankan program ini sekali pada salinan itu",
            path.display()
        ),
        OpenError::Random(error) => no_random(error),
        OpenError::Path { .. } | OpenError::Store(_) => return None,
    };
    Some(text)
}

fn of_signing(error: &SigningError) -> Option<String> {
    match error {
        SigningError::Content { path } => {
            Some(format!("{} bukan kunci tanda tangan milik program ini", path.display()))
        }
        SigningError::Random(error) => Some(no_random(error)),
        SigningError::File { .. } => None,
    }
}

fn no_random(error: &str) -> String {
    format!("sistem tidak memberi bilangan acak: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn an_error_is_told_in_the_readers_language_and_keeps_its_facts() {
        let (path, dir) = (PathBuf::from("/data/x.db"), PathBuf::from("/data"));
        let taken = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let address = ([127, 0, 0, 1], 5000).into();
        let errors: [(anyhow::Error, &str, &str); 7] = [
            (LocalError::NotRunning("refused".to_owned()).into(), "tidak ada gateway", "refused"),
            (LocalError::Refused("not_found".to_owned()).into(), "gateway menjawab", "not_found"),
            (BuildError::Store(OpenError::InUse(dir)).into(), "sedang berjalan", "/data"),
            (BuildError::Listen { address, error: taken }.into(), "tidak dapat dibuka", "127.0.0.1:5000"),
            (OpenError::NotOurs { path: path.clone() }.into(), "tabel program lain", "/data/x.db"),
            (OpenError::UnknownVersion { path: path.clone(), found: 9, known: 4 }.into(), "lebih baru", "9"),
            (SigningError::Content { path }.into(), "bukan kunci", "/data/x.db"),
        ];
        for (error, indonesian, fact) in errors {
            let told = in_words(&error, Language::Indonesian);
            assert!(told.contains(indonesian) && told.contains(fact), "{told}");
            let english = in_words(&error, Language::English);
            assert!(!english.contains(indonesian) && english.contains(fact), "{english}");
        }
        let unknown = anyhow::anyhow!("EIO").context("/dev/mmcblk0");
        assert_eq!(in_words(&unknown, Language::Indonesian), "/dev/mmcblk0: EIO");
    }
}
