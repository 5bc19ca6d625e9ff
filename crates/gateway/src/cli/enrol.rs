//! `enrol` and `rotate`

use super::{Context, Failure, Outcome, print};
use crate::identity::IdentityFile;
use crate::sync::{self, EnrolError, EnrolLink, http_client};
use anyhow::anyhow;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

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
    let link = link.transpose().map_err(|error| Failure::Usage(error.to_string()))?;
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
            Ok(Outcome::NothingToDo(error.to_string()))
        }
        Err(error) => Err(anyhow!(error).into()),
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
        Err(error @ EnrolError::NotEnrolled) => Ok(Outcome::NothingToDo(error.to_string())),
        Err(error) => Err(anyhow!(error).into()),
    }
}

fn client(context: &Context) -> Result<sync::Client, Failure> {
    let config = &context.config;
    http_client(&config.cloud.ca_file, config.sync.request_timeout)
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
