//! What the cloud does by itself is done by one replica, and by another when that is gone.

use anyhow::{Context, Result};
use lumbung_tests::programs::Cloud;
use lumbung_tests::stand::Stand;
use lumbung_tests::story::story;
use lumbung_tests::wait::eventually;
use nix::sys::signal::Signal;
use sqlx::PgPool;

/// Whether it leads, by what it says to Prometheus.
async fn leads(cloud: &Cloud) -> Result<bool> {
    Ok(cloud.get("/metrics").await?.text.lines().any(|line| line == "lumbung_cloud_jobs_leading 1"))
}

async fn rounds(database: &PgPool, replica: &Cloud) -> Result<i64> {
    let query = "select count(*) from job_run where cause = 'schedule' and outcome = 'success'
                 and replica like '%:' || $1 || ' %'";
    Ok(sqlx::query_scalar(query).bind(replica.port.to_string()).fetch_one(database).await?)
}

/// Two replicas, of which the first leads; one job goes every second.
async fn two(stand: &Stand) -> Result<(Cloud, Cloud)> {
    let mut first = stand.cloud_not_started().await?;
    first.set("jobs.claims_purge", "* * * * * *").start().await?;
    eventually("the first leads", || async { Ok(leads(&first).await?.then_some(())) }).await?;
    let mut second = stand.replica_of(&first).await?;
    second.stop().await?;
    second.set("jobs.claims_purge", "* * * * * *").start().await?;
    Ok((first, second))
}

#[test]
fn one_of_two_replicas_runs_the_jobs_and_the_other_takes_over_when_it_is_killed() -> Result<()> {
    story(async |stand| {
        let (mut first, second) = two(stand).await?;
        let database = first.database().await?;
        let before = rounds(&database, &first).await?;
        eventually("the first goes on", || async {
            Ok((rounds(&database, &first).await? > before + 2).then_some(()))
        })
        .await?;
        assert!(leads(&first).await? && !leads(&second).await?, "not exactly one leads");
        assert_eq!(rounds(&database, &second).await?, 0, "both run the job");
        first.kill();
        eventually("the second takes over", || async {
            Ok((rounds(&database, &second).await? > 0).then_some(()))
        })
        .await?;
        assert!(leads(&second).await?);
        Ok(())
    })
}

#[test]
fn a_leader_that_stands_still_is_replaced() -> Result<()> {
    story(async |stand| {
        let (first, second) = two(stand).await?;
        let database = first.database().await?;
        first.signal(Signal::SIGSTOP);
        eventually("the second takes over", || async {
            Ok((rounds(&database, &second).await? > 0).then_some(()))
        })
        .await?;
        first.signal(Signal::SIGCONT);
        eventually("the first knows", || async { Ok((!leads(&first).await?).then_some(())) }).await?;
        assert!(leads(&second).await?);
        Ok(())
    })
}

#[test]
fn a_job_that_fails_is_told_and_the_others_go_on() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let said = cloud.must(&["jobs", "run", "claims_purge"]).await?;
        assert!(said.contains("rows removed"), "{said}");
        sqlx::query("alter table gateway_claim rename to elsewhere").execute(&database).await?;
        let failed = cloud.cli(&["jobs", "run", "claims_purge"]).await?;
        assert_eq!(failed.code(), 1);
        let listed = cloud.must(&["jobs", "list"]).await?;
        let line = listed.lines().find(|line| line.starts_with("claims_purge")).context("not listed")?;
        assert!(line.contains("failed") && line.contains("gateway_claim"), "{line}");
        cloud.must(&["jobs", "run", "sessions_purge"]).await?;
        assert_eq!(cloud.cli(&["jobs", "run", "no_such_job"]).await?.code(), 3);
        Ok(())
    })
}

#[test]
fn a_round_that_is_running_elsewhere_is_not_run_beside_it() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        // As a replica that stands still in the middle of a round.
        let mut elsewhere = database.begin().await?;
        sqlx::query("select pg_advisory_xact_lock(1785684595, hashtext('claims_purge'))")
            .execute(&mut *elsewhere)
            .await?;
        let refused = cloud.cli(&["jobs", "run", "claims_purge"]).await?;
        assert_eq!(refused.code(), 1, "it ran beside another round");
        elsewhere.rollback().await?;
        cloud.must(&["jobs", "run", "claims_purge"]).await?;
        Ok(())
    })
}
