//! Who did what is kept: added to only, in a chain that tells when somebody touched it.

use anyhow::{Context, Result};
use lumbung_cloud::audit::{self, Action, Actor, Entry, Head, Wanted, record, retention};
use lumbung_tests::postgres;
use lumbung_tests::story::story;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;

/// A migrated database of its own.
async fn database() -> Result<PgPool> {
    let url = postgres::fresh_database("audit").await?;
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(5).connect(&url).await?;
    lumbung_cloud::database::migrate(&pool).await?;
    Ok(pool)
}

async fn write(pool: &PgPool, count: i64) -> Result<()> {
    let mut conn = pool.acquire().await?;
    for _ in 0..count {
        record(&mut conn, &Entry::of(Actor::Itself, Action::JobRun)).await?;
    }
    Ok(())
}

async fn broken(pool: &PgPool, expected: Option<&Head>) -> Result<String> {
    Ok(audit::verify(pool, expected).await?.broken.unwrap_or_default())
}

#[test]
fn what_gateways_and_operators_do_is_told_without_their_secrets() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        cloud.must(&["key", "add", "pembaca"]).await?;
        cloud.hand_made("GW-7").await?;
        cloud.must(&["gateway", "revoke", "GW-7", "--reason", "stolen"]).await?;
        let told = cloud.must(&["audit", "export"]).await?;
        let entries: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let about = |action: &str, object: Option<&str>| {
            entries.iter().filter(|e| e["action"] == action && e["object_id"].as_str() == object).count()
        };
        assert_eq!(about("gateway_enrolled", Some("GW-7")), 1, "{told}");
        assert_eq!(about("gateway_revoked", Some("GW-7")), 1, "{told}");
        let enrolled = entries.iter().find(|e| e["action"] == "gateway_enrolled").context("no enrolment")?;
        assert_eq!(
            (&enrolled["actor_kind"], &enrolled["address"]),
            (&json!("gateway"), &json!("127.0.0.0/24"))
        );
        assert!(enrolled["request_id"].is_string(), "{enrolled}");
        for secret in ["lbg_", "lbk_", "eyJ"] {
            assert!(!told.contains(secret), "{secret} is in the log: {told}");
        }
        // Reading is told too.
        let reads =
            cloud.must(&["audit", "list", "--action", "sensitive_read", "--actor", "command"]).await?;
        assert_eq!(reads.lines().count(), 1, "{reads}");
        Ok(())
    })
}

#[test]
fn guessing_all_day_makes_few_entries_and_one_sum_a_minute() -> Result<()> {
    story(async |_| {
        let pool = database().await?;
        let entry = Entry {
            object: Some(audit::Object::new("user", &7)),
            outcome: audit::Outcome::Refused,
            ..Entry::of(Actor::Nobody, Action::LoginFail)
        };
        for _ in 0..200 {
            audit::record_capped(&mut *pool.acquire().await?, &entry).await?;
        }
        // As if the minutes in which that was had passed.
        sqlx::query("update audit_tally set minute = minute - interval '1 hour'").execute(&pool).await?;
        audit::one_round(&pool).await?;
        let wanted = Wanted { object: Some("user:7".into()), ..Wanted::default() };
        let told = audit::search(&mut *pool.acquire().await?, &wanted, i64::MAX, 100).await?;
        let sums: i64 = told.iter().filter_map(|entry| entry.detail["more"].as_i64()).sum();
        let single = told.iter().filter(|entry| entry.detail["more"].is_null()).count();
        // The two hundred may have seen the turn of a minute.
        assert!(single <= 10, "{single} entries");
        assert_eq!(sums + i64::try_from(single)?, 200);
        Ok(())
    })
}

#[test]
fn the_database_itself_refuses_to_change_the_log() -> Result<()> {
    story(async |_| {
        let pool = database().await?;
        write(&pool, 3).await?;
        audit::one_round(&pool).await?;
        for statement in [
            "update audit_entry set action = 'x'",
            "delete from audit_entry",
            "truncate audit_entry",
            "update audit_seal set hash = previous_hash",
            "delete from audit_seal",
            "truncate audit_seal",
            "insert into audit_anchor (number, hash, logged_at)
             select number, hash, logged_at from audit_seal join audit_entry using (audit_id) where number = 2",
            "insert into audit_anchor (number, hash, logged_at) values (2, sha256('x'), now() - interval '9 years')",
        ] {
            let refused = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await;
            let code = refused.err().and_then(|error| Some(error.as_database_error()?.code()?.into_owned()));
            assert_eq!(code.as_deref(), Some("42501"), "{statement}");
        }
        assert_eq!(broken(&pool, None).await?, "");
        Ok(())
    })
}

#[test]
fn an_entry_that_commits_late_is_sealed_late_and_keeps_nobody_waiting() -> Result<()> {
    story(async |_| {
        let pool = database().await?;
        let mut slow = pool.begin().await?;
        record(&mut slow, &Entry::of(Actor::Person(1), Action::LoginSuccess)).await?;
        write(&pool, 2).await?;
        assert_eq!(audit::one_round(&pool).await?, 2, "the slow one kept them waiting");
        slow.commit().await?;
        let found = audit::verify(&pool, None).await?;
        assert_eq!((found.sealed, found.waiting), (2, 1));
        assert_eq!(audit::one_round(&pool).await?, 1, "the slow one was skipped");
        let found = audit::verify(&pool, None).await?;
        assert_eq!((found.sealed, found.waiting, found.broken), (3, 0, None));
        let order: Vec<i64> =
            sqlx::query_scalar("select audit_id from audit_seal order by number").fetch_all(&pool).await?;
        assert_eq!(order, [2, 3, 1]);
        // Many sealers at once make one chain.
        write(&pool, 50).await?;
        let rounds = (0..4).map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { audit::one_round(&pool).await })
        });
        for round in rounds.collect::<Vec<_>>() {
            round.await??;
        }
        audit::one_round(&pool).await?;
        let found = audit::verify(&pool, None).await?;
        assert_eq!((found.sealed, found.waiting, found.broken), (53, 0, None));
        Ok(())
    })
}

/// Somebody with the owner's rights, who first puts the guards to sleep.
async fn as_owner(pool: &PgPool, statement: &'static str) -> Result<()> {
    for table in ["audit_entry", "audit_seal"] {
        let rest = format!("alter table {table} disable trigger user");
        sqlx::query(sqlx::AssertSqlSafe(rest)).execute(pool).await?;
    }
    sqlx::query(statement).execute(pool).await?;
    Ok(())
}

#[test]
fn verifying_names_the_first_entry_that_somebody_touched() -> Result<()> {
    story(async |_| {
        for (statement, found) in [
            (
                "update audit_entry set outcome = 'refused' where audit_id = 3",
                "entry 3 (id 3): it was changed",
            ),
            ("delete from audit_entry where audit_id = 3", "entry 3 (id 3): it was taken out"),
            ("delete from audit_entry where audit_id = 5", "entry 5 (id 5): it was taken out"),
            (
                "with gone as (delete from audit_seal where number = 3) delete from audit_entry where audit_id = 3",
                "entry 3: it and its seal were taken out",
            ),
            (
                "update audit_seal set previous_hash = hash where number = 4",
                "entry 4: it does not follow the entry before it",
            ),
            (
                "insert into audit_entry (happened_at, actor_kind, action, outcome, version)
                 values (now(), 'nobody', 'x', 'success', '0')",
                "id 6: it is not in the chain, and was kept from getting there",
            ),
        ] {
            let pool = database().await?;
            write(&pool, 5).await?;
            audit::one_round(&pool).await?;
            assert_eq!(broken(&pool, None).await?, "");
            as_owner(&pool, statement).await?;
            assert_eq!(broken(&pool, None).await?, found, "{statement}");
        }
        Ok(())
    })
}

#[test]
fn a_log_that_was_written_anew_is_told_by_a_head_that_was_kept() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let pool = cloud.database().await?;
        write(&pool, 5).await?;
        audit::one_round(&pool).await?;
        let said = cloud.must(&["audit", "verify"]).await?;
        let kept = said.lines().find_map(|line| line.strip_prefix("head ")).context("no head")?.to_owned();
        write(&pool, 2).await?;
        cloud.must(&["audit", "verify", "--expect", &kept]).await?;
        // The whole chain again, with one entry less: right in itself.
        as_owner(&pool, "with gone as (delete from audit_entry where audit_id = 2) delete from audit_seal")
            .await?;
        sqlx::query("insert into audit_waiting select audit_id from audit_entry on conflict do nothing")
            .execute(&pool)
            .await?;
        audit::one_round(&pool).await?;
        assert_eq!(broken(&pool, None).await?, "");
        let head: Head = kept.parse().map_err(anyhow::Error::msg)?;
        assert!(broken(&pool, Some(&head)).await?.contains("the log was written anew"));
        let refused = cloud.cli(&["audit", "verify", "--expect", &kept]).await?;
        assert_eq!(refused.code(), 1, "{refused:?}");
        let later = Head { number: 1_000_000, ..head };
        assert!(broken(&pool, Some(&later)).await?.contains("the log ends at entry"));
        Ok(())
    })
}

#[test]
fn what_is_given_up_by_rule_leaves_a_chain_that_can_be_verified() -> Result<()> {
    story(async |_| {
        let pool = database().await?;
        let year = Duration::from_secs(365 * 86_400);
        write(&pool, 4).await?;
        sqlx::query("insert into audit_entry (happened_at, logged_at, actor_kind, action, outcome, version)
             select now(), now() - interval '700 days', 'itself', 'job_run', 'success', '0' from generate_series(1, 3)")
            .execute(&pool)
            .await?;
        // Old by their time, but behind young ones in the chain: they stay.
        audit::one_round(&pool).await?;
        assert_eq!(retention::one_round(&pool, year).await?, 0);

        let pool = database().await?;
        sqlx::query("insert into audit_entry (happened_at, logged_at, actor_kind, action, outcome, version)
             select now(), now() - interval '700 days', 'itself', 'job_run', 'success', '0' from generate_series(1, 3)")
            .execute(&pool)
            .await?;
        audit::one_round(&pool).await?;
        let early: Head = audit::head(&mut *pool.acquire().await?).await?;
        write(&pool, 4).await?;
        audit::one_round(&pool).await?;
        assert_eq!(retention::one_round(&pool, year).await?, 3);
        audit::one_round(&pool).await?;
        let found = audit::verify(&pool, Some(&early)).await?;
        assert_eq!((found.given_up, found.sealed, found.broken), (3, 5, None));
        assert_eq!(retention::one_round(&pool, year).await?, 0);
        Ok(())
    })
}
