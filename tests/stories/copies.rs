//! A copy of a person's data while something comes in the way of who makes it: a stop, a death, or the person who leaves.

use super::privacy::{ask, objects, someone};
use anyhow::{Result, ensure};
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use nix::sys::signal::Signal;
use reqwest::Method;
use sqlx::{PgPool, PgTransaction};
use std::path::PathBuf;

/// Whoever makes a copy is kept at it.
async fn hold(database: &PgPool) -> Result<PgTransaction<'static>> {
    let mut held = database.begin().await?;
    sqlx::query("lock table privacy_request in access exclusive mode").execute(&mut *held).await?;
    Ok(held)
}

/// Whether somebody is at it, and not for longer than a copy may take.
async fn is_being_made(database: &PgPool) -> Result<bool> {
    let leased = "select leased_until between now() and now() + interval '1 hour' from data_export";
    Ok(sqlx::query_scalar::<_, Option<bool>>(leased).fetch_one(database).await?.unwrap_or_default())
}

async fn becomes(database: &PgPool, wanted: bool) -> Result<()> {
    eventually("a copy is made, or is not any more", || async {
        Ok(when(is_being_made(database).await? == wanted))
    })
    .await
}

#[test]
fn a_copy_that_a_stop_interrupts_is_made_by_the_next_who_comes() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (id, siti) = someone(&cloud, "siti").await?;
        let held = hold(&database).await?;
        ask(&cloud, Method::POST, "/api/users/me/export", &siti, None).await?.expect(202)?;
        becomes(&database, true).await?;
        cloud.signal(Signal::SIGTERM);
        becomes(&database, false).await?;
        held.rollback().await?;
        cloud.stop().await?;
        let said = cloud.must(&["jobs", "run", "exports"]).await?;
        ensure!(said.contains("1 copies made"), "{said}");
        // Somebody else with their password may have asked: the log says from where.
        let whose = format!("person:{id}");
        let told = cloud.must(&["audit", "list", "--action", "sensitive_read", "--actor", &whose]).await?;
        assert_eq!(told.lines().count(), 1, "{told}");
        Ok(())
    })
}

#[test]
fn one_makes_a_copy_at_a_time_and_what_nobody_waits_for_any_more_is_not_kept() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (siti, _) = someone(&cloud, "siti").await?;
        cloud.stop().await?;
        sqlx::query(
            "insert into data_export (user_id, name, leased_until)
             values ($1, 'exports/siti.zip', now() + interval '1 minute')",
        )
        .bind(siti)
        .execute(&database)
        .await?;
        let said = cloud.must(&["jobs", "run", "exports"]).await?;
        ensure!(said.contains("0 copies made"), "another one is at it: {said}");
        // It died. Whoever goes on has it in hand when the account is left, its row with it.
        sqlx::query("update data_export set leased_until = now()").execute(&database).await?;
        let held = hold(&database).await?;
        let left = async {
            becomes(&database, true).await?;
            sqlx::query("delete from data_export").execute(&database).await?;
            Ok(held.rollback().await?)
        };
        let (said, ()) = futures_util::try_join!(cloud.must(&["jobs", "run", "exports"]), left)?;
        ensure!(said.contains("0 copies made"), "{said}");
        assert_eq!(objects(&cloud, "files/exports")?, Vec::<PathBuf>::new());
        Ok(())
    })
}
