//! Everything that knows people has an end, and not before its time.

use super::privacy::someone;
use anyhow::{Context, Result};
use lumbung_tests::story::story;
use sqlx::AssertSqlSafe;

/// A job, a table, how long its rows stay, and how one of person $1 comes to be that was due $2 ago.
const RULES: &[(&str, &str, &str, &str)] = &[
    (
        "messages_purge",
        "notification",
        "180 days",
        "insert into notification (user_id, kind, title, content, created_at) values ($1, 'x', 'x', 'x', now() - $2)",
    ),
    (
        "messages_purge",
        "delivery",
        "30 days",
        "insert into delivery (user_id, kind, channel, address, title, state, ended_at)
         values ($1, 'x', 'email', 'siti@example.com', 'x', 'sent', now() - $2)",
    ),
    (
        "messages_purge",
        "delivery",
        "90 days",
        "insert into delivery (user_id, kind, channel, address, title, content, state, ended_at)
         values ($1, 'x', 'email', 'siti@example.com', 'x', 'x', 'dead', now() - $2)",
    ),
    (
        "bans_purge",
        "user_ban",
        "2 years",
        "insert into user_ban (user_id, banned_at, lifted_at) values ($1, now() - interval '9 years', now() - $2)",
    ),
    (
        "privacy_purge",
        "consent",
        "5 years",
        "insert into consent (user_id, purpose, version, language, given_at, withdrawn_at)
         values ($1, 'x', 1, 'id', now() - interval '9 years', now() - $2)",
    ),
    (
        "privacy_purge",
        "privacy_request",
        "5 years",
        "insert into privacy_request (user_id, kind, requested_at, answered_at, granted)
         values ($1, 'access', now() - interval '9 years', now() - $2, true)",
    ),
    (
        "sessions_purge",
        "user_session",
        "30 days",
        "insert into user_session (user_id, token_id_hash, expires_at)
         values ($1, sha256(gen_random_uuid()::text::bytea), now() - $2)",
    ),
    (
        "mail_tokens_purge",
        "mail_token",
        "1 day",
        "insert into mail_token (token_hash, user_id, purpose, email, expires_at)
         values (sha256(gen_random_uuid()::text::bytea), $1, 'verify_email', 'siti@example.com', now() - $2)",
    ),
    (
        "sign_in_failures_purge",
        "sign_in_failure",
        "1 day",
        "insert into sign_in_failure (address_hash, failures, last_at, free_at)
         select sha256(gen_random_uuid()::text::bytea), 1, now() - $2, now() where $1 > 0",
    ),
    (
        "sign_in_failures_purge",
        "sign_in_challenge",
        "0 days",
        "insert into sign_in_challenge (challenge_hash, user_id, refresh, expires_at)
         values (sha256(gen_random_uuid()::text::bytea), $1, false, now() - $2)",
    ),
    (
        "answers_purge",
        "idempotent_request",
        "1 day",
        "insert into idempotent_request (request_hash, body_hash, turn, turn_ends_at, begun_at, user_id)
         values (sha256(gen_random_uuid()::text::bytea), sha256('x'), gen_random_uuid(), now(), now() - $2, $1)",
    ),
    (
        "exports",
        "data_export",
        "0 days",
        "insert into data_export (user_id, name, ready_at, expires_at, bytes)
         values ($1, 'exports/' || gen_random_uuid() || '.zip', now() - interval '9 days', now() - $2, 1)",
    ),
];

/// What has no end of its own, however old it is.
const OPEN: &[(&str, &str)] = &[
    (
        "delivery",
        "insert into delivery (user_id, kind, channel, address, title, content, created_at, next_try_at)
         values ($1, 'x', 'email', 'siti@example.com', 'x', 'x', now() - interval '9 years', now() + interval '1 day')",
    ),
    ("user_ban", "insert into user_ban (user_id, banned_at) values ($1, now() - interval '9 years')"),
    (
        "consent",
        "insert into consent (user_id, purpose, version, language, given_at)
         values ($1, 'y', 1, 'id', now() - interval '9 years')",
    ),
    (
        "privacy_request",
        "insert into privacy_request (user_id, kind, requested_at, due_at)
         values ($1, 'access', now() - interval '9 years', now() - interval '8 years')",
    ),
];

#[test]
fn whatever_knows_people_goes_in_its_time_and_not_an_hour_earlier() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let (siti, _) = someone(&cloud, "siti").await?;
        let count = async |table: &str| -> Result<i64> {
            let sql = format!("select count(*) from {table}");
            Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&database).await?)
        };
        for (table, sql) in OPEN {
            sqlx::query(*sql).bind(siti).execute(&database).await.with_context(|| (*table).to_owned())?;
        }
        for (job, table, kept, sql) in RULES {
            let before = count(table).await?;
            // Rows that are an hour too young, and then rows that are an hour too old.
            for (hour, stays) in [("-1 hour", 3), ("1 hour", 0)] {
                for _ in 0..3 {
                    let aged = format!("interval '{kept} {hour}'");
                    let insert = sql.replace("$2", &aged);
                    sqlx::query(AssertSqlSafe(insert))
                        .bind(siti)
                        .execute(&database)
                        .await
                        .with_context(|| format!("{table} of {job}"))?;
                }
                let all = count(table).await?;
                cloud.must(&["jobs", "run", job]).await?;
                assert_eq!(count(table).await? - (all - 3), stays, "{table} after {kept} {hour}");
            }
            assert_eq!(count(table).await?, before + 3, "{table}: {job} took what it should not");
        }
        // A ban that ran out, of somebody who never came back.
        let (budi, _) = someone(&cloud, "budi").await?;
        for (hour, stays) in [("-1 hour", 1), ("1 hour", 0)] {
            let ban = format!(
                "with shut as (update app_user set is_active = false where user_id = $1 returning user_id)
                 insert into user_ban (user_id, banned_at, expires_at)
                 select user_id, now() - interval '9 years', now() - interval '2 years {hour}' from shut"
            );
            sqlx::query(AssertSqlSafe(ban)).bind(budi).execute(&database).await?;
            cloud.must(&["jobs", "run", "bans_purge"]).await?;
            let (is_active, bans): (bool, i64) = sqlx::query_as(
                "select is_active, (select count(*) from user_ban b where b.user_id = u.user_id)
                 from app_user u where user_id = $1",
            )
            .bind(budi)
            .fetch_one(&database)
            .await?;
            assert_eq!((is_active, bans), (true, stays), "2 years {hour} after it ran out");
            sqlx::query("delete from user_ban where user_id = $1").bind(budi).execute(&database).await?;
        }
        // A second factor that was begun, and one that somebody signs in with.
        for (confirmed, age, stays) in
            [("null", "1 day -1 hour", 1), ("null", "1 day 1 hour", 0), ("now()", "9 years", 1)]
        {
            let begun = format!(
                "insert into user_totp (user_id, sealed_secret, confirmed_at, created_at)
                 values ($1, '', {confirmed}, now() - interval '{age}')"
            );
            sqlx::query(AssertSqlSafe(begun)).bind(budi).execute(&database).await?;
            cloud.must(&["jobs", "run", "sign_in_failures_purge"]).await?;
            assert_eq!(count("user_totp").await?, stays, "confirmed {confirmed}, {age} old");
            sqlx::query("delete from user_totp").execute(&database).await?;
        }
        let holds = "select count(*) from user_ban where lifted_at is null";
        let holds: i64 = sqlx::query_scalar(holds).fetch_one(&database).await?;
        assert_eq!(holds, 1, "one without an end was lifted");
        Ok(())
    })
}
