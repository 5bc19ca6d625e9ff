//! Which replica follows the timetable: the one whose connection holds a lock in the database.
//!
//! What must stay true:
//! - The lock is the session's: it is free as soon as the leader or its connection is gone.
//! - A leader that stands still (its machine paused) does not keep the lock: the server ends its session when it
//!   was silent for longer than a leader that hears nothing believes in itself.

use crate::metrics::Metrics;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// "lbg:jobs" in ASCII.
const LOCK: i64 = 0x6c62_673a_6a6f_6273;
const BEAT: Duration = Duration::from_secs(1);
/// How long a leader believes in itself without an answer of the database.
const BELIEVES: Duration = Duration::from_secs(4);
/// How long the server bears with a silent one, milliseconds.
const BORNE: &str = "6000";

/// Whether this replica leads.
#[derive(Default)]
pub(super) struct Leader {
    confirmed: Mutex<Option<Instant>>,
}

impl Leader {
    /// Time goes on while a program is paused: one that wakes up does not lead by what it knew.
    pub(super) fn leads(&self, now: Instant) -> bool {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.is_some_and(|at| now.saturating_duration_since(at) < BELIEVES)
    }

    fn set(&self, confirmed: Option<Instant>) {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = confirmed;
    }

    /// Stands for election until `stop`.
    pub(super) async fn stand(&self, options: &PgConnectOptions, metrics: &Metrics, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let term = self.term(options, metrics, &stop).await;
            self.set(None);
            metrics.jobs_leading.set(0);
            if let Err(error) = term {
                tracing::debug!("no leader of jobs here for the moment: {error}");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(BEAT) => {}
            }
        }
    }

    /// Waits for the lock and holds it; ends with the connection, or in order.
    async fn term(
        &self,
        options: &PgConnectOptions,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect_with(options).await?;
        sqlx::query!("select set_config('idle_session_timeout', $1, false) as set", BORNE)
            .fetch_one(&mut connection)
            .await?;
        let mut leads = false;
        loop {
            let asked = Instant::now();
            // Also for whoever leads: it is the sign of life, and an answer that the lock is still held.
            let answer = if leads {
                tokio::time::timeout(BELIEVES, connection.ping()).await.map(|pong| pong.map(|()| true))
            } else {
                let lock = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "ours!""#, LOCK);
                tokio::time::timeout(BELIEVES, lock.fetch_one(&mut connection)).await
            };
            let ours = answer.map_err(|_| sqlx::Error::PoolTimedOut)??;
            if ours && !leads {
                tracing::info!("this replica follows the timetable of jobs now");
                metrics.jobs_leading.set(1);
            }
            leads = ours;
            self.set(leads.then_some(asked));
            tokio::select! {
                () = stop.cancelled() => return connection.close().await,
                () = tokio::time::sleep(BEAT) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_heard_nothing_for_a_while_leads_no_more_and_sooner_than_the_server_lets_go() {
        let (leader, now) = (Leader::default(), Instant::now());
        assert!(!leader.leads(now));
        leader.set(Some(now));
        assert!(leader.leads(now + BEAT));
        assert!(!leader.leads(now + BELIEVES));
        assert!(BELIEVES < Duration::from_millis(BORNE.parse().unwrap()));
    }
}
