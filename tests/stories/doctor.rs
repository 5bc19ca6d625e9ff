//! `lumbung-cloud doctor` finds what is wrong and leaves everything as it was.

use anyhow::{Context, Result};
use lumbung_tests::programs::{Cloud, settings};
use lumbung_tests::story::story;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

/// Its exit code and what it found.
async fn look(cloud: &Cloud) -> Result<(i32, Vec<Value>)> {
    let finished = cloud.cli(&["doctor", "--json"]).await?;
    let said: Value = serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:?}"))?;
    Ok((finished.code(), said["checks"].as_array().cloned().context("checks")?))
}

fn state<'a>(findings: &'a [Value], check: &str) -> Result<&'a str> {
    let finding = findings.iter().find(|finding| finding["check"] == check);
    finding.and_then(|finding| finding["state"].as_str()).with_context(|| format!("no {check}: {findings:?}"))
}

async fn run(database: &PgPool, sql: &str) -> Result<()> {
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(database).await?;
    Ok(())
}

#[test]
fn a_healthy_cloud_is_told_so_and_every_fault_has_its_line() -> Result<()> {
    story(async |stand| {
        let (mut cloud, _proxy, mut gateway) = stand.trio().await?;
        gateway.stop().await?;
        cloud.set("http.public_url", "https://127.0.0.1:1").set("development.open_loopback", false);
        cloud.set("jobs.claims_purge", "0 30 18 * * *");
        let (code, findings) = look(&cloud).await?;
        assert_eq!(code, 0, "{findings:?}");
        for check in
            ["database", "migrations", "durability", "connections", "database_clock", "quarantine", "files"]
        {
            assert_eq!(state(&findings, check)?, "ok", "{findings:?}");
        }
        assert_eq!((state(&findings, "public_url")?, state(&findings, "open_loopback")?), ("ok", "ok"));
        let page = cloud.must(&["doctor"]).await?;
        assert!(page.contains("ok    migrations"), "{page}");

        // Each fault beside the line that names it, the state of that line and the exit code.
        let database = cloud.database().await?;
        let name: String = sqlx::query_scalar("select current_database()").fetch_one(&database).await?;
        let off = format!("alter database {name} set synchronous_commit = off");
        let on = format!("alter database {name} reset synchronous_commit");
        let stray = "insert into quarantine (gateway_id, epoch, stream, seq, through, reason, detail, raw, raw_hash,
                         received_at) select gateway_id, 1, 'scan', 1, 1, 'test', '', '{}', '', now() from gateway";
        let late =
            "insert into gateway_state (gateway_id, last_heard_at, epoch, clock_state, clock_skew_ms, unsent,
                parked, version, scans, held_scans)
            select gateway_id, now() - interval '2 days', 1, 2, 0, 0, 0, '0', 0, '{}' from gateway
            on conflict (gateway_id) do update set last_heard_at = excluded.last_heard_at";
        let failed = "insert into job_run (job, cause, replica, ended_at, outcome)
            values ('claims_purge', 'schedule', 'x', now(), 'failed')";
        let overdue = "insert into job_run (job, cause, replica, started_at, ended_at, outcome)
            values ('claims_purge', 'schedule', 'x', now() - interval '3 days', now(), 'success');
            update _sqlx_migrations set installed_on = now() - interval '9 days'";
        let dead = "insert into delivery (kind, channel, address, title, state, ended_at)
            values ('x', 'email', 'a@example.com', 'x', 'dead', now())";
        let touched = "alter table audit_entry disable trigger user;
            update audit_entry set outcome = 'failed' where audit_id = (select min(audit_id) from audit_seal)";
        let mended = "update audit_entry set outcome = 'success' where outcome = 'failed'";
        let newest = "(select max(version) from _sqlx_migrations)";
        for (fault, cure, check, bad, ends) in [
            (off.as_str(), on.as_str(), "durability", "fail", 1),
            (stray, "delete from quarantine", "quarantine", "warn", 0),
            (failed, "delete from job_run", "jobs", "warn", 0),
            (overdue, "update _sqlx_migrations set installed_on = now()", "jobs", "warn", 0),
            (dead, "delete from delivery", "messages", "warn", 0),
            (touched, mended, "audit", "fail", 1),
            (late, "update gateway_state set last_heard_at = now()", "gateways", "warn", 0),
            (
                &format!("update _sqlx_migrations set success = false where version = {newest}"),
                "update _sqlx_migrations set success = true",
                "migrations",
                "fail",
                1,
            ),
            (
                "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (99991231000000, 'of a newer program', true, '', 0)",
                "delete from _sqlx_migrations where version = 99991231000000",
                "migrations",
                "fail",
                1,
            ),
            (
                "create table aside as select * from _sqlx_migrations; delete from _sqlx_migrations",
                "insert into _sqlx_migrations select * from aside",
                "migrations",
                "fail",
                1,
            ),
        ] {
            sqlx::raw_sql(AssertSqlSafe(fault.to_owned())).execute(&database).await?;
            let (code, findings) = look(&cloud).await?;
            assert_eq!((state(&findings, check)?, code), (bad, ends), "{fault}: {findings:?}");
            run(&database, cure).await?;
            let (code, findings) = look(&cloud).await?;
            assert_eq!((state(&findings, check)?, code), ("ok", 0), "after {cure}: {findings:?}");
        }
        // A mail server that is not there, and a store that cannot be written.
        cloud.set("mail.transport", "smtp").set("mail.host", "127.0.0.1").set("mail.port", "1");
        cloud
            .set("mail.security", "none")
            .set("files.store", "s3")
            .set("files.endpoint", "http://127.0.0.1:1");
        for key in ["files.bucket", "files.access_key_id", "files.secret_access_key"] {
            cloud.set(key, "lumbung");
        }
        let (code, findings) = look(&cloud).await?;
        assert_eq!((state(&findings, "mail")?, state(&findings, "files")?, code), ("fail", "fail", 1));
        cloud.stop().await
    })
}

#[test]
fn a_database_that_is_away_fails_and_an_exposed_cloud_too() -> Result<()> {
    story(async |stand| {
        let nowhere = "postgresql://lumbung:hush-hush@127.0.0.1:1/lumbung".to_owned();
        let mut cloud = Cloud::new(settings("cloud", stand.path(), Some(nowhere)))?;
        cloud.set("database.acquire_timeout", "200ms").set("http.public_url", "http://mbg.example.id");
        let (code, findings) = look(&cloud).await?;
        assert_eq!(code, 1);
        for check in ["database", "public_url", "open_loopback"] {
            assert_eq!(state(&findings, check)?, "fail", "{findings:?}");
        }
        assert!(!format!("{findings:?}").contains("hush-hush"), "the password is told");
        assert!(findings.iter().all(|finding| finding["check"] != "migrations"), "nothing to look at there");
        Ok(())
    })
}

#[test]
fn the_embedded_database_and_its_disk_are_seen_while_the_cloud_runs() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_embedded().await?;
        let (code, findings) = look(&cloud).await?;
        assert_eq!(code, 0, "{findings:?}");
        assert_eq!(state(&findings, "durability")?, "ok");
        state(&findings, "disk")?;
        cloud.stop().await
    })
}
