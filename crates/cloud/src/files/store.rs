//! Where the bytes of uploads are: a folder of ours, or storage that speaks S3.

use crate::config::{Config, Files, Store};
use crate::error::Error;
use crate::finding::Finding;
use anyhow::Context;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long one request to S3 may take, and all tries of it: somebody is waiting for the answer.
const REQUEST: Duration = Duration::from_secs(20);
const ALL_TRIES: Duration = Duration::from_secs(30);

/// Opens what the configuration names; a folder is made when it is not there.
///
/// # Errors
/// The folder that cannot be had, or the setting that is missing.
pub(super) fn open(config: &Files, folder: &Path) -> anyhow::Result<Arc<dyn ObjectStore>> {
    match config.store {
        Store::Local => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            // A row is committed only after this returns, and must not outlive its object in a power cut.
            let store = LocalFileSystem::new_with_prefix(folder)
                .with_context(|| format!("cannot use {}", folder.display()))?
                .with_fsync(true);
            Ok(Arc::new(store))
        }
        Store::S3 => {
            config.check_keys()?;
            let retry = RetryConfig { max_retries: 3, retry_timeout: ALL_TRIES, ..RetryConfig::default() };
            let mut store = AmazonS3Builder::new()
                .with_bucket_name(&config.bucket)
                .with_region(&config.region)
                // We take away one object at a time, and not every storage knows the request for many.
                .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true")
                .with_access_key_id(&config.access_key_id)
                .with_secret_access_key(&config.secret_access_key)
                .with_client_options(
                    ClientOptions::new()
                        .with_timeout(REQUEST)
                        .with_allow_http(config.endpoint.starts_with("http://")),
                )
                .with_retry(retry);
            if !config.endpoint.is_empty() {
                store = store.with_endpoint(&config.endpoint);
            }
            Ok(Arc::new(store.build().context("files.store = \"s3\" cannot be used")?))
        }
    }
}

/// Writes something, reads it again and takes it away.
pub async fn check(config: &Config) -> Finding {
    let folder = config.data_dir.join("files");
    if config.files.store == Store::Local && !folder.exists() {
        return Finding::ok("files", format!("{} is made when the cloud starts", folder.display()));
    }
    let advice = "see [files] in the configuration, and that the cloud's user may write there";
    match probe(&config.files, &folder).await {
        Ok(()) => Finding::ok("files", "an object was written, read and deleted"),
        Err(error) => Finding::fail("files", format!("{error:#}"), advice),
    }
}

async fn probe(config: &Files, folder: &Path) -> anyhow::Result<()> {
    let store = open(config, folder)?;
    let name = object_store::path::Path::from(format!("doctor-{}", uuid::Uuid::new_v4().simple()));
    store.put(&name, "ok".into()).await.context("writing")?;
    let read = match store.get(&name).await {
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    store.delete(&name).await.context("deleting")?;
    anyhow::ensure!(read.context("reading")? == "ok", "what was read is not what was written");
    Ok(())
}

/// A store that does not answer is a reason to come back.
pub(super) fn unreachable(error: &object_store::Error) -> Error {
    Error::Busy { retry_after: 30, reason: format!("the file store: {error}") }
}
