//! Secrets lie in one folder, where the cloud, every command beside it and the nightly backup find them alike; a
//! command that does not find them says so and makes no second database.

use anyhow::{Context, Result};
use lumbung_tests::postgres::fresh_database;
use lumbung_tests::programs::{Cloud, connect, run, settings};
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

const TOTP_KEY: &str = "people.totp_key";

/// An installation as it is described: the configuration says what is asked, the folder beside it holds the secrets.
struct Installed {
    cloud: Cloud,
    url: String,
    credentials: PathBuf,
    backups: String,
}

impl Installed {
    async fn at(stand: &Stand) -> Result<Self> {
        let etc = stand.path().join("etc");
        let (file, credentials) = (etc.join("cloud.toml"), etc.join("credentials"));
        fs::create_dir(&etc)?;
        fs::write(&file, "[people]\ntotp_required_for = [\"operator\"]\n")?;
        fs::DirBuilder::new().mode(0o750).create(&credentials)?;
        let url = fresh_database("story").await?;
        fs::write(credentials.join("database.url"), format!("{url}\n"))?;
        fs::write(credentials.join(TOTP_KEY), "k".repeat(32))?;
        let mut cloud = Cloud::new(settings("cloud", stand.path(), None))?;
        cloud.with_file(file);
        let backups = stand.path().join("backups").to_str().context("a path that is no text")?.to_owned();
        Ok(Self { cloud, url, credentials, backups })
    }

    fn made_a_database(&self) -> bool {
        self.cloud.settings.dir.join("postgres").exists()
    }
}

#[test]
fn every_command_finds_the_clouds_database_and_its_secrets() -> Result<()> {
    story(async |stand| {
        let mut installed = Installed::at(stand).await?;
        installed.cloud.start().await?;
        let cloud = &installed.cloud;
        cloud.furnish().await?;
        cloud.must(&["user", "add", "--email", "siti@example.com", "--role", "admin"]).await?;
        let database = connect(&installed.url).await?;
        let admins: i64 = sqlx::query_scalar("select count(*) from app_user where role = 'admin'")
            .fetch_one(&database)
            .await?;
        assert_eq!(admins, 1, "the admin is in another database than the cloud's");
        cloud.must(&["doctor"]).await?;
        let said = cloud.must(&["backup", &installed.backups, "--verify"]).await?;
        assert!(said.contains("verified"), "{said}");
        installed.cloud.stop().await?;
        // Nor does a cloud that rests make them look elsewhere.
        let people = installed.cloud.must(&["user", "list"]).await?;
        assert!(people.contains("siti@example.com"), "{people}");
        assert!(!installed.made_a_database());
        Ok(())
    })
}

#[test]
fn what_systemd_hands_over_is_read_as_well() -> Result<()> {
    story(async |stand| {
        let mut installed = Installed::at(stand).await?;
        installed.cloud.start().await?;
        let handed_over = stand.path().join("handed-over");
        fs::rename(&installed.credentials, &handed_over)?;
        let mut command = installed.cloud.command(&["user", "list"])?;
        command.env("CREDENTIALS_DIRECTORY", &handed_over);
        let ended = tokio::task::spawn_blocking(move || run(&mut command)).await??;
        assert_eq!(ended.code(), 0, "{ended:?}");
        assert!(!installed.made_a_database());
        Ok(())
    })
}

#[test]
fn a_command_without_the_databases_address_says_so_and_makes_no_database() -> Result<()> {
    story(async |stand| {
        let mut installed = Installed::at(stand).await?;
        installed.cloud.start().await?;
        fs::rename(&installed.credentials, stand.path().join("elsewhere"))?;
        let cloud = &installed.cloud;
        for command in [
            vec!["user", "add", "--email", "siti@example.com", "--role", "admin"],
            vec!["user", "list"],
            vec!["key", "add", "dashboard"],
            vec!["jobs", "list"],
            vec!["audit", "verify"],
            vec!["backup", &installed.backups, "--verify", "--keep", "14"],
        ] {
            let ended = cloud.cli(&command).await?;
            assert_eq!(ended.code(), 1, "{command:?}: {ended:?}");
            for word in ["database.url", "--config", "credentials"] {
                assert!(ended.stderr.contains(word), "{command:?} does not say {word}: {ended:?}");
            }
        }
        let looked = cloud.cli(&["doctor"]).await?;
        assert!(looked.code() == 1 && looked.stdout.contains("FAIL  database"), "{looked:?}");
        assert!(!installed.made_a_database(), "a second database was made");
        installed.cloud.stop().await
    })
}

#[test]
fn a_command_needs_no_secret_that_it_does_not_use_and_the_cloud_needs_them_all() -> Result<()> {
    story(async |stand| {
        let mut installed = Installed::at(stand).await?;
        fs::remove_file(installed.credentials.join(TOTP_KEY))?;
        let cloud = &mut installed.cloud;
        cloud.must(&["migrate"]).await?;
        cloud.must(&["user", "add", "--email", "siti@example.com"]).await?;
        let reset = cloud.cli(&["user", "totp-reset", "siti@example.com"]).await?;
        assert!(!reset.stderr.contains(TOTP_KEY), "{reset:?}");
        let served = cloud.start().await.err().map(|error| error.to_string()).unwrap_or_default();
        let log = fs::read_to_string(&cloud.settings.log)?;
        assert!(served.contains("exit status: 2") && log.contains(TOTP_KEY), "{served}: {log}");
        let looked = cloud.cli(&["doctor", "--json"]).await?;
        let said: Value = serde_json::from_str(&looked.stdout)?;
        let factor =
            said["checks"].as_array().into_iter().flatten().find(|one| one["check"] == "second_factor");
        assert_eq!(factor.context("not looked at")?["state"], "fail");

        cloud.set("files.store", "s3").set("files.bucket", "lumbung");
        cloud.must(&["backup", &installed.backups]).await?;
        cloud.must(&["user", "list"]).await?;
        let swept = cloud.cli(&["files", "sweep"]).await?;
        assert!(swept.code() == 1 && swept.stderr.contains("files.access_key_id"), "{swept:?}");
        Ok(())
    })
}
