//! `enrol` and `rotate`

use super::{Context, Failure, Outcome, print};
use crate::app;
use crate::identity::IdentityFile;
use crate::sync::{self, CloudClient, DateDoubt, EnrolError, EnrolLink, http_client};
use anyhow::anyhow;
use lumbung_shared::language::Language;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

pub(super) async fn enrol(
    context: &Context,
    uri: Option<String>,
    parts: Option<(String, String)>,
) -> Result<Outcome, Failure> {
    let link = match (uri, parts) {
        (Some(uri), _) => Some(EnrolLink::parse(&uri)),
        (None, Some((cloud, claim))) => Some(EnrolLink::new(&cloud, &claim)),
        (None, None) => None,
    };
    let link = link.transpose().map_err(|error| Failure::Usage(words(&error, context.lang)))?;
    let file = identity_file(context)?;
    let client = client(context)?;
    match sync::enrol(&client, &file, link).await {
        Ok(enrolment) => {
            print(&format!(
                "{}: {}\n{}: {} ({})\n{}: {}\n{}: {}",
                context.say("Gateway terdaftar", "Gateway enrolled"),
                enrolment.gateway_id,
                context.say("Lokasi", "Site"),
                enrolment.site.name,
                enrolment.site.code,
                context.say("Cloud", "Cloud"),
                enrolment.cloud_url,
                context.say("Kunci disimpan di", "Key kept in"),
                file.path().display(),
            ))?;
            Ok(Outcome::Done)
        }
        Err(error @ (EnrolError::AlreadyEnrolled(_) | EnrolError::NoClaim)) => {
            Ok(Outcome::NothingToDo(words(&error, context.lang)))
        }
        Err(error) => Err(anyhow!(words(&error, context.lang)).into()),
    }
}

pub(super) async fn rotate(context: &Context) -> Result<Outcome, Failure> {
    let file = identity_file(context)?;
    let client = client(context)?;
    match sync::rotate(&client, &file, &context.config.cloud.url).await {
        Ok(enrolment) => {
            print(&format!(
                "{} {}",
                context.say("Kunci baru dipakai untuk", "There is a new key for"),
                enrolment.gateway_id
            ))?;
            Ok(Outcome::Done)
        }
        Err(error @ EnrolError::NotEnrolled) => Ok(Outcome::NothingToDo(words(&error, context.lang))),
        Err(error) => Err(anyhow!(words(&error, context.lang)).into()),
    }
}

/// The error in the reader's language; what the cloud or the system said stays as it was said.
fn words(error: &EnrolError, lang: Language) -> String {
    if lang == Language::English {
        return error.to_string();
    }
    match error {
        EnrolError::Link(why) => format!("tautan pendaftaran tidak dapat dipakai: {why}"),
        EnrolError::AlreadyEnrolled(name) => {
            format!("gateway ini sudah terdaftar sebagai {name}; tidak ada yang berubah")
        }
        EnrolError::NoClaim => {
            "tidak ada yang dikerjakan: belum ada klaim; berikan tautan dari operator".to_owned()
        }
        EnrolError::NotEnrolled => "gateway ini belum terdaftar".to_owned(),
        EnrolError::Unreachable(why) => {
            format!("cloud tidak dapat dihubungi: {why}. Jalankan perintah yang sama lagi untuk melanjutkan")
        }
        EnrolError::Dates { error, doubt } => {
            let doubt = match doubt {
                DateDoubt::Disagree { now } => format!(
                    "gateway ini diberi tahu bahwa sekarang {now}; server waktunya atau sertifikat itu yang salah"
                ),
                DateDoubt::Ended { proven } => {
                    format!("sekarang pasti sudah lewat {proven}; cloud memerlukan sertifikat baru")
                }
                DateDoubt::TooFarAhead { latest } => format!(
                    "jam gateway ini belum dipastikan, dan tanggal setelah {latest} tidak dipercayanya"
                ),
            };
            format!("sertifikat cloud ditolak karena tanggalnya: {error} ({doubt})")
        }
        EnrolError::Refused(why) => format!("cloud menolak: {why}"),
        EnrolError::Answer(why) => format!("jawaban cloud tidak dapat dibaca: {why}"),
        EnrolError::Identity(why) => format!("berkas identitas: {why}"),
        EnrolError::Signing(why) => format!("kunci tanda tangan: {why}"),
    }
}

fn client(context: &Context) -> Result<CloudClient, Failure> {
    let config = &context.config;
    let clock = Arc::new(app::clock_of(&config.data_dir));
    http_client(&config.cloud.ca_file, config.sync.request_timeout, clock)
        .map_err(|error| Failure::Usage(error.to_string()))
}

fn identity_file(context: &Context) -> Result<IdentityFile, Failure> {
    let dir = &context.config.data_dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| anyhow!("{}: {error}", dir.display()))?;
    Ok(IdentityFile::in_dir(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_an_enrolment_failed_is_said_in_both_languages() {
        for error in [
            EnrolError::AlreadyEnrolled("GW-1".into()),
            EnrolError::NoClaim,
            EnrolError::NotEnrolled,
            EnrolError::Unreachable("x".into()),
            EnrolError::Dates { error: "x".into(), doubt: DateDoubt::Ended { proven: "x".into() } },
            EnrolError::Dates { error: "x".into(), doubt: DateDoubt::Disagree { now: "x".into() } },
            EnrolError::Dates { error: "x".into(), doubt: DateDoubt::TooFarAhead { latest: "x".into() } },
            EnrolError::Refused("x".into()),
            EnrolError::Answer("x".into()),
        ] {
            assert_ne!(words(&error, Language::Indonesian), words(&error, Language::English));
        }
    }
}
