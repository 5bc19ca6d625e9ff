//! Everything that can be looked at while nothing is changed: each module's own check, one after the other.

mod certificate;
mod machine;
mod settings;

use crate::config::Config;
use crate::database::Server;
use crate::finding::Finding;
use crate::identity::receipts;
use crate::notify::{undelivered, webhooks};
use crate::{audit, backup, database, files, ingest, jobs, outside, tls};

/// Looks at the whole installation. What cannot be looked at because of another finding is left out.
pub async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = settings::check(config);
    // This version runs none.
    findings.push(Finding::ok("models", "none configured"));
    findings.extend(tls::check(&config.http.tls));
    findings.push(files::check(config).await);
    findings.push(machine::disk("disk", &config.data_dir));
    findings.push(machine::clock());
    findings.push(outside::check_texts(config));
    findings.extend(database::check::verified(&config.database));
    findings.extend(database::check::unused(config));
    match Server::join(config).await {
        Ok(server) => {
            let pool = server.gateway_pool(&config.database);
            let looked = database::check::check(&pool, &config.database).await;
            findings.extend(looked.findings);
            if let Some(folder) = looked.data_directory {
                findings.push(machine::disk("database_disk", &folder));
            }
            if looked.migrated {
                findings.extend(ingest::check::check(&pool).await);
                findings.push(backup::check(&pool).await);
                findings.push(jobs::check(config, &pool).await);
                findings.push(audit::check(&pool).await);
                findings.push(outside::check(config, &pool).await);
                findings.push(undelivered::check(&pool).await);
                findings.push(receipts::check(&pool, &config.receipts.seal_key).await);
                findings.push(webhooks::check(&pool, &config.receipts.seal_key).await);
            }
            pool.close().await;
            if let Err(error) = server.stop().await {
                findings.push(Finding::warn("database", format!("{error:#}"), "see postgres.log"));
            }
        }
        Err(error) => findings.push(Finding::fail(
            "database",
            format!("cannot be started or joined: {error:#}"),
            "the words before say what is missing",
        )),
    }
    findings.extend(certificate::check(&config.public_url()).await);
    findings
}
