//! Sends what is due.
//!
//! What must stay true:
//! - A delivery is leased and counted in a transaction of its own before anything is sent, so that two replicas
//!   never send the same one, and settled by whoever holds that very lease.
//! - Nothing is sent twice but in one case that nobody can close: the other side took it, and this program, its
//!   machine or the line died before our commit of "sent". The lease then runs out and it is sent again, under the
//!   same message id, by which a mailbox, a push service or a webhook's receiver knows the second copy. A death
//!   before the other side took it costs nothing. A text message whose answer is lost is given up instead.
//! - A lease outlives everything that sending may wait for.
//! - What was sent is emptied in the same statement that calls it sent; a link or a code also when it was given up.
//! - Neither an address nor a text is logged.

use crate::error::Result;
use crate::metrics::Metrics;
use crate::notify::{Kind, phones, subscriptions, webhooks};
use crate::outside::{Mail, Outside, Text, Undelivered};
use futures_util::future::join_all;
use sqlx::PgPool;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Sent at once by one replica.
const AT_ONCE: i64 = 8;
/// How long one may take, whatever the other side does.
const PATIENCE: Duration = Duration::from_secs(90);
/// [`PATIENCE`] with room for our own commits.
const LEASE: Duration = Duration::from_secs(300);
/// Between looks when nothing is due.
const PAUSE: Duration = Duration::from_secs(1);
/// Between counts of what waits.
const MEASURED: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(12 * 3600);
/// About a day and a half of tries.
const TRIES: i32 = 12;
/// A link that opens an account is stale after a quarter of an hour of tries.
const TRIES_OF_SECRETS: i32 = 5;

/// What a round did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    pub sent: u32,
    /// To be tried again.
    pub later: u32,
    /// Given up.
    pub dead: u32,
}

impl Round {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Looks for what is due until `stop`; a round that has begun is finished.
pub async fn run(pool: &PgPool, outside: &Outside, metrics: &Metrics, stop: &CancellationToken) {
    let mut measured: Option<Instant> = None;
    while !stop.is_cancelled() {
        if measured.is_none_or(|at| at.elapsed() >= MEASURED) && measure(pool, metrics).await.is_ok() {
            measured = Some(Instant::now());
        }
        match deliver_round(pool, outside, metrics).await {
            Ok(round) if !round.is_empty() => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!("messages cannot be sent for now: {error}"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

struct Leased {
    delivery_id: i64,
    user_id: Option<i64>,
    attempts: i32,
    kind: String,
    channel: String,
    address: String,
    title: String,
    content: Option<String>,
    html: Option<String>,
    message_id: Uuid,
}

/// Sends some of what is due, the longest waiting first.
///
/// # Errors
/// The database's; what was sent and could not be settled is sent again, see above.
pub async fn deliver_round(pool: &PgPool, outside: &Outside, metrics: &Metrics) -> Result<Round> {
    let leased = sqlx::query_as!(
        Leased,
        r#"update delivery set state = 'sending', attempts = attempts + 1,
               leased_until = now() + make_interval(secs => $2)
           where delivery_id in (
               select delivery_id from delivery
               where state = 'queued' and next_try_at <= now() or state = 'sending' and leased_until <= now()
               order by next_try_at limit $1 for update skip locked)
           returning delivery_id, user_id, attempts, kind, channel, address, title, content, html, message_id"#,
        AT_ONCE,
        LEASE.as_secs_f64()
    )
    .fetch_all(pool)
    .await?;
    let ends = join_all(leased.iter().map(async |one| {
        let sent = tokio::time::timeout(PATIENCE, carry(pool, outside, one)).await;
        let sent = sent.unwrap_or_else(|_| Err(Undelivered::Later("no answer in time".into())));
        settle(pool, one, sent).await.map(|outcome| (one.channel.clone(), outcome))
    }))
    .await;
    let mut round = Round::default();
    for end in ends {
        let (channel, outcome) = end?;
        metrics.delivered(channel, outcome);
        match outcome {
            "sent" => round.sent += 1,
            "later" => round.later += 1,
            _ => round.dead += 1,
        }
    }
    Ok(round)
}

/// How much waits, for whoever watches.
async fn measure(pool: &PgPool, metrics: &Metrics) -> Result<()> {
    let waiting = sqlx::query!(
        r#"select count(*) as "count!", coalesce(extract(epoch from now() - min(created_at)), 0)::bigint as "oldest!"
           from delivery where state in ('queued', 'sending')"#
    )
    .fetch_one(pool)
    .await?;
    metrics.deliveries_waiting.set(waiting.count);
    metrics.deliveries_oldest.set(waiting.oldest);
    Ok(())
}

async fn carry(pool: &PgPool, outside: &Outside, one: &Leased) -> std::result::Result<(), Undelivered> {
    let Some(content) = &one.content else {
        return Err(Undelivered::Never("there is nothing to send".into()));
    };
    match one.channel.as_str() {
        "email" => {
            let mail = Mail {
                to: one.address.clone(),
                title: one.title.clone(),
                content: content.clone(),
                html: one.html.clone().unwrap_or_default(),
                message_id: one.message_id,
            };
            outside.mail(&mail).await
        }
        "push" => {
            let ours = |error: sqlx::Error| Undelivered::Later(error.to_string());
            let browser = subscriptions::find(pool, &one.address).await.map_err(ours)?;
            let sent = match browser {
                Some(browser) => outside.push(&browser, content, one.message_id).await,
                None => Err(Undelivered::Gone),
            };
            if sent == Err(Undelivered::Gone) {
                subscriptions::drop_gone(pool, &one.address).await.map_err(ours)?;
            }
            sent
        }
        "webhook" => {
            let ours = |error: sqlx::Error| Undelivered::Later(error.to_string());
            let sent = match webhooks::find(pool, &one.address).await.map_err(ours)? {
                Some(webhook) => outside.webhook(&webhook, content, one.message_id).await,
                None => Err(Undelivered::Gone),
            };
            if sent == Err(Undelivered::Gone) {
                webhooks::is_gone(pool, &one.address).await.map_err(ours)?;
            }
            sent
        }
        "sms" => {
            let text = Text { to: &one.address, text: content, message_id: one.message_id };
            phones::carry(pool, outside, one.user_id, &one.kind, &text).await
        }
        other => Err(Undelivered::Never(format!("nothing carries {other} here"))),
    }
}

/// Writes down how it ended, if the lease is still ours; a word for it.
async fn settle(
    pool: &PgPool,
    one: &Leased,
    sent: std::result::Result<(), Undelivered>,
) -> Result<&'static str> {
    let (state, error, outcome) = match sent {
        Ok(()) => ("sent", None, "sent"),
        Err(Undelivered::Later(why)) if one.attempts < tries(&one.kind) => ("queued", Some(why), "later"),
        Err(Undelivered::Later(why) | Undelivered::Never(why)) => ("dead", Some(why), "dead"),
        Err(Undelivered::Gone) => ("dead", Some("nobody is there any more".to_owned()), "dead"),
    };
    sqlx::query!(
        "update delivery set state = $3, last_error = $4, leased_until = null,
             next_try_at = now() + make_interval(secs => $5),
             ended_at = case when $3 in ('sent', 'dead') then now() end,
             content = case when not $6 then content end, html = case when not $6 then html end
         where delivery_id = $1 and state = 'sending' and attempts = $2",
        one.delivery_id,
        one.attempts,
        state,
        error,
        wait(one.attempts, fastrand::f64()).as_secs_f64(),
        state == "sent" || state == "dead" && is_secret(&one.kind)
    )
    .execute(pool)
    .await?;
    if outcome == "dead" {
        tracing::warn!(
            delivery_id = one.delivery_id,
            channel = one.channel,
            kind = one.kind,
            "a message was given up"
        );
    }
    Ok(outcome)
}

fn is_secret(kind: &str) -> bool {
    Kind::ALL.iter().any(|known| known.word() == kind && known.is_secret())
}

fn tries(kind: &str) -> i32 {
    if is_secret(kind) { TRIES_OF_SECRETS } else { TRIES }
}

/// How long to wait after so many tries: doubling, and by `jitter` (0 to 1) up to half as long again, so that what
/// failed together does not come back together.
fn wait(attempts: i32, jitter: f64) -> Duration {
    let doublings = attempts.clamp(1, 20).unsigned_abs() - 1;
    (FIRST_WAIT * 2_u32.pow(doublings)).mul_f64(1.0 + jitter / 2.0).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_a_minute_to_half_a_day() {
        let minutes: Vec<u64> = (1..=12).map(|tries| wait(tries, 0.0).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 720, 720]);
        assert_eq!(wait(1, 1.0), Duration::from_secs(90));
        assert_eq!(wait(i32::MAX, 1.0), LONGEST_WAIT);
    }

    #[test]
    fn a_lease_outlives_what_is_waited_for() {
        assert!(LEASE > 2 * PATIENCE);
    }

    #[test]
    fn a_stale_link_is_not_sent() {
        assert!(tries(Kind::ResetPassword.word()) < tries(Kind::NewSignIn.word()));
    }
}
