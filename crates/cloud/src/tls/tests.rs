use super::*;
use crate::finding::State;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use std::path::Path;

/// Writes a certificate that ends with a year, and its key.
fn write(dir: &Path, last_year: i32) -> config::Tls {
    let files = config::Tls {
        certificate: dir.join("fullchain.pem"),
        key: dir.join("privkey.pem"),
        redirect_from: None,
    };
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["mbg.example.id".to_owned()]).unwrap();
    params.not_after = date_time_ymd(last_year, 12, 31);
    std::fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn now(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn the_end_of_a_certificate_is_found_whoever_signed_it() {
    let dir = tempfile::tempdir().unwrap();
    for year in [2024, 2030, 2120] {
        let pair = pair::read(&write(dir.path(), year)).pair.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(pair.not_after.unwrap().format("%Y-%m-%d").to_string(), format!("{year}-12-31"));
    }
}

#[test]
fn doctor_says_what_is_wrong_with_the_files_and_when_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), 2030);
    let judged = |at: &str| finding(pair::read(&files).pair, now(at)).state;
    assert_eq!(judged("2030-11-01T00:00:00Z"), State::Ok);
    assert_eq!(judged("2030-12-20T00:00:00Z"), State::Warn);
    assert_eq!(judged("2031-01-01T00:00:00Z"), State::Fail);

    let wrong = |files: &config::Tls| {
        let found = check(files).unwrap();
        assert_eq!(found.state, State::Fail);
        found.found
    };
    let key = std::fs::read(&files.key).unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(write(other.path(), 2030).key, &files.key).unwrap();
    assert!(wrong(&files).contains("is not the key of"));
    std::fs::write(&files.key, "").unwrap();
    assert!(wrong(&files).contains("no private key"));
    std::fs::remove_file(&files.key).unwrap();
    assert!(wrong(&files).contains("No such file"));
    std::fs::write(&files.key, key).unwrap();
    std::fs::write(&files.certificate, "-----BEGIN CERTIFICATE-----\nQUJD").unwrap();
    assert!(wrong(&files).contains("no certificate"));
}

#[tokio::test]
async fn a_new_pair_is_shown_and_a_bad_one_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), 2030);
    let mut tls = Tls::open(&files, &Arc::new(Metrics::new())).unwrap().unwrap();
    let shown = |tls: &Tls| tls.shown.0.read().unwrap().cert[0].clone();
    let first = shown(&tls);
    tls.look(true).await;
    assert_eq!(shown(&tls), first);
    // Half a renewal: the certificate is there, its key is not yet.
    let other = tempfile::tempdir().unwrap();
    let renewed = write(other.path(), 2031);
    std::fs::copy(&renewed.certificate, &files.certificate).unwrap();
    tls.look(false).await;
    assert_eq!(shown(&tls), first);
    std::fs::copy(&renewed.key, &files.key).unwrap();
    tls.look(false).await;
    assert_ne!(shown(&tls), first);
    let told = tls.metrics.encode().unwrap();
    assert!(told.contains("certificate_not_after_timestamp_seconds{} 1956"), "{told}");
}
