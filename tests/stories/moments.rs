//! What changes between two moments of one request, or of one sign-in, is obeyed.

use super::people::{PASSWORD, ask, login, refused, register};
use super::second_factor::{answer, challenge, cloud, enrol};
use anyhow::Result;
use lumbung_tests::story::story;
use lumbung_tests::wait::{eventually, when};
use reqwest::Method;
use serde_json::json;

#[test]
fn of_two_changes_of_a_password_at_the_same_moment_the_later_one_is_told() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("database.statement_timeout", "60s");
        cloud.start().await?;
        let database = cloud.database().await?;
        let (budi, token) = register(&cloud, "budi").await?;
        // Both have seen the password that is; neither may write before both wait.
        let mut held = database.begin().await?;
        sqlx::query("select 1 from app_user where user_id = $1 for update")
            .bind(budi)
            .execute(&mut *held)
            .await?;
        let change = async |new: &str| {
            let body = json!({ "current_password": PASSWORD, "new_password": new });
            ask(&cloud, Method::POST, "/api/auth/change-password", Some(&token), body).await
        };
        let waiting = async |many: i64| {
            eventually("they wait", || async {
                let waiting: i64 = sqlx::query_scalar(
                    "select count(*) from pg_stat_activity where datname = current_database()
                         and wait_event_type = 'Lock' and query like 'update app_user set password_hash%'",
                )
                .fetch_one(&database)
                .await?;
                Ok(when(waiting == many))
            })
            .await
        };
        let later = async {
            waiting(1).await?;
            let (second, let_go) = tokio::join!(change("kucing hitam besar"), async {
                waiting(2).await?;
                Ok::<_, anyhow::Error>(held.rollback().await?)
            });
            let_go?;
            second
        };
        let (one, other) = tokio::join!(change("perahu biru muda"), later);
        let replies = [one?, other?];
        let mut statuses = [replies[0].status, replies[1].status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
        let late = replies.iter().find(|reply| reply.status == 409).map(|reply| reply.error_code());
        assert_eq!(late.as_deref(), Some("PASSWORD_CHANGED"));
        let kept = if replies[0].status == 200 { "perahu biru muda" } else { "kucing hitam besar" };
        login(&cloud, "budi@example.com", kept).await?.expect(200)?;
        Ok(())
    })
}

#[test]
fn who_is_shut_out_between_the_two_steps_does_not_come_in() -> Result<()> {
    story(async |stand| {
        let cloud = cloud(stand).await?;
        let database = cloud.database().await?;
        let (_, token) = register(&cloud, "budi").await?;
        let (app, _) = enrol(&cloud, &token, json!(PASSWORD)).await?;
        let half = challenge(&login(&cloud, "budi@example.com", PASSWORD).await?)?;
        // A ban ends challenges as it ends sessions. This one has come so late that the challenge was looked up already.
        sqlx::query("update app_user set is_active = false").execute(&database).await?;
        let code = app.shows(1)?;
        let answered = answer(&cloud, &half, &code).await?;
        assert_eq!((answered.status, answered.error_code().as_str()), (403, "ACCOUNT_INACTIVE"));
        refused(&cloud, &token).await?;
        sqlx::query("update app_user set is_active = true").execute(&database).await?;
        answer(&cloud, &half, &code).await?.expect(200)?;
        Ok(())
    })
}
