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
//! - What waits for a server that somebody named holds up no other lane, and so no mail and no code.
//! - What was sent is emptied in the same statement that calls it sent; a link or a code also when it was given up.
//! - Neither an address nor a text is logged.

use crate::error::Result;
use crate::metrics::Metrics;
use crate::notify::{Kind, phones, subscriptions, webhooks};
use crate::outside::{Mail, Outside, Text, Undelivered};
use futures_util::future::join_all;
use sqlx::PgPool;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What is sent side by side, and never behind what goes another way.
#[derive(Debug)]
struct Lane {
    channels: &'static [&'static str],
    /// Links and codes, for which somebody waits; or everything else.
    secret: bool,
    /// Sent at once by one replica.
    most: usize,
    /// Of those, to one person.
    to_one: usize,
    /// Of those, to one place: a host that people named, a webhook. A mail or a text message has an address each.
    at_one: usize,
}

/// Whoever names a server that never answers holds up the rest of their own lane at most, and never all of it.
static LANES: [Lane; 5] = [
    Lane { channels: &["email", "sms", "push", "webhook"], secret: true, most: 8, to_one: 8, at_one: 8 },
    Lane { channels: &["email"], secret: false, most: 8, to_one: 8, at_one: 8 },
    Lane { channels: &["sms"], secret: false, most: 4, to_one: 4, at_one: 4 },
    Lane { channels: &["push"], secret: false, most: 16, to_one: 2, at_one: 8 },
    Lane { channels: &["webhook"], secret: false, most: 8, to_one: 8, at_one: 2 },
];
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

/// What sending is done with.
#[derive(Clone)]
pub struct Sender {
    pub pool: PgPool,
    pub outside: Arc<Outside>,
    pub metrics: Arc<Metrics>,
    /// What the secrets of webhooks are sealed with.
    pub seal_key: Arc<str>,
}

impl Sender {
    /// Sends what is due until `stop`; what has begun is finished.
    pub async fn run(&self, stop: &CancellationToken) {
        let lanes = join_all(LANES.iter().map(|lane| lane.run(self, stop)));
        tokio::join!(lanes, self.watch(stop));
    }

    async fn watch(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = measure(&self.pool, &self.metrics).await {
                tracing::warn!("what waits to be sent cannot be counted: {error}");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(MEASURED) => {}
            }
        }
    }

    async fn deliver(self, one: Leased) {
        let sent = tokio::time::timeout(PATIENCE, carry(&self, &one)).await;
        let sent = sent.unwrap_or_else(|_| Err(Undelivered::Later("no answer in time".into())));
        match settle(&self.pool, &one, sent).await {
            Ok(outcome) => self.metrics.delivered(one.channel, outcome),
            // Sent again when the lease has run out, see above.
            Err(error) => tracing::warn!(one.delivery_id, "how a message ended is not kept: {error}"),
        }
    }
}

impl Lane {
    async fn run(&self, sender: &Sender, stop: &CancellationToken) {
        let mut under_way = JoinSet::new();
        let mut taken: HashMap<Id, (Option<i64>, String)> = HashMap::new();
        while !stop.is_cancelled() {
            while under_way.len() < self.most {
                let people = often(taken.values().filter_map(|(person, _)| *person), self.to_one);
                let places = often(taken.values().map(|(_, place)| place.clone()), self.at_one);
                match lease(&sender.pool, self, &people, &places).await {
                    Ok(Some(one)) => {
                        let whose = (one.user_id, one.place.clone());
                        let task = under_way.spawn(sender.clone().deliver(one));
                        taken.insert(task.id(), whose);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(channels = ?self.channels, "messages cannot be sent for now: {error}");
                        break;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = under_way.join_next_with_id() => {
                    taken.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        while under_way.join_next().await.is_some() {}
    }
}

/// What there is `most` times.
fn often<T: Clone + Eq + Hash>(all: impl Iterator<Item = T>, most: usize) -> Vec<T> {
    let mut counts = HashMap::new();
    for one in all {
        *counts.entry(one).or_insert(0) += 1;
    }
    counts.into_iter().filter(|(_, count)| *count >= most).map(|(one, _)| one).collect()
}

struct Leased {
    delivery_id: i64,
    user_id: Option<i64>,
    attempts: i32,
    kind: String,
    channel: String,
    address: String,
    /// The host of a browser's push service, else the address.
    place: String,
    title: String,
    content: Option<String>,
    html: Option<String>,
    message_id: Uuid,
}

/// Takes what has waited longest in a lane, unless enough is under way to its person or place.
async fn lease(pool: &PgPool, lane: &Lane, people: &[i64], places: &[String]) -> Result<Option<Leased>> {
    let channels: Vec<String> = lane.channels.iter().map(|&channel| channel.to_owned()).collect();
    let secrets: Vec<String> =
        Kind::ALL.iter().filter(|kind| kind.is_secret()).map(|kind| kind.word().to_owned()).collect();
    Ok(sqlx::query_as!(
        Leased,
        r#"with due as (
               select d.delivery_id, coalesce(substring(p.endpoint from '^https?://([^/]+)'), d.address) as place
               from delivery d
               left join push_subscription p on p.push_subscription_id
                   = case when d.channel = 'push' and d.address ~ '^[0-9]{1,18}$' then d.address::bigint end
               where d.channel = any($1) and d.state in ('queued', 'sending') and d.next_try_at <= now()
                   and (d.state = 'queued' or d.leased_until <= now())
                   and (d.kind = any($2)) = $3
                   and (d.user_id is null or d.user_id <> all($4))
                   and coalesce(substring(p.endpoint from '^https?://([^/]+)'), d.address) <> all($5)
               order by d.next_try_at limit 1 for update of d skip locked)
           update delivery set state = 'sending', attempts = attempts + 1,
               leased_until = now() + make_interval(secs => $6)
           from due where delivery.delivery_id = due.delivery_id
           returning delivery.delivery_id, user_id, attempts, kind, channel, address, due.place as "place!", title,
               content, html, message_id"#,
        &channels,
        &secrets,
        lane.secret,
        people,
        places,
        LEASE.as_secs_f64()
    )
    .fetch_optional(pool)
    .await?)
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

async fn carry(sender: &Sender, one: &Leased) -> std::result::Result<(), Undelivered> {
    let Sender { pool, outside, seal_key, .. } = sender;
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
            let unsigned = |error: anyhow::Error| {
                tracing::error!(one.delivery_id, webhook_id = one.address, "a webhook waits: {error:#}");
                Undelivered::Later(format!("{error:#}"))
            };
            let sent = match webhooks::find(pool, seal_key, &one.address).await.map_err(unsigned)? {
                Some(webhook) => outside.webhook(&webhook, content, one.message_id).await,
                None => Err(Undelivered::Gone),
            };
            if sent == Err(Undelivered::Gone) {
                let ours = |error: sqlx::Error| Undelivered::Later(error.to_string());
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
    fn every_channel_has_a_lane_for_secrets_and_one_for_the_rest() {
        for channel in ["email", "sms", "push", "webhook"] {
            for secret in [true, false] {
                let lanes =
                    LANES.iter().filter(|lane| lane.secret == secret && lane.channels.contains(&channel));
                assert_eq!(lanes.count(), 1, "{channel}, secret: {secret}");
            }
        }
    }

    #[test]
    fn only_those_who_have_enough_are_passed_over() {
        assert_eq!(often([1, 2, 1, 3].into_iter(), 2), [1]);
        assert!(often([1, 2].into_iter(), 2).is_empty());
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
