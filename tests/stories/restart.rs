//! A rolling restart: two replicas behind the shipped nginx, one after the other, while people read, gateways push,
//! operators write and a page listens.
//!
//! What whoever is outside may see:
//! - A read is answered 200, always: nginx asks the other replica.
//! - A gateway's batch is answered with verdicts, always: it may be asked twice, records are kept once.
//! - A write of a person is done, or answered 503 with `Retry-After` and not done at all.
//! - A live stream ends, and the next one opens at once.

use anyhow::{Context, Result, ensure};
use lumbung_tests::http;
use lumbung_tests::programs::{Cloud, Nginx, settings};
use lumbung_tests::stand::{Stand, cloud_holds};
use lumbung_tests::story::story;
use lumbung_tests::tls::Authority;
use lumbung_tests::wait::eventually;
use lumbung_tests::wire::{HandMade, batch, scans};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::future::Future;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// How often each replica is restarted.
const ROUNDS: usize = 2;

async fn key(cloud: &Cloud, scope: &str) -> Result<String> {
    let added = cloud.must(&["key", "add", "uji", "--scope", scope, "--json"]).await?;
    let added: Value = serde_json::from_str(&added)?;
    Ok(added["key"].as_str().context("key")?.to_owned())
}

/// Four of them stay below what nginx lets one address do.
const EACH: Duration = Duration::from_millis(60);

/// Does something again and again until the stop; how often it was done.
async fn meanwhile<F: Future<Output = Result<()>>>(
    stop: &CancellationToken,
    mut act: impl FnMut(i64) -> F,
) -> Result<i64> {
    let mut done = 0;
    let mut pace = tokio::time::interval(EACH);
    while !stop.is_cancelled() {
        pace.tick().await;
        act(done + 1).await?;
        done += 1;
    }
    Ok(done)
}

struct Outside<'a> {
    nginx: &'a Nginx,
    read: String,
    write: String,
    gateway: &'a HandMade,
}

impl Outside<'_> {
    async fn reads(&self, path: &str) -> Result<()> {
        let request = self.nginx.client().get(self.nginx.url(path)).bearer_auth(&self.read);
        http::send(request).await?.expect(200).map(drop)
    }

    async fn pushes(&self, seq: i64) -> Result<()> {
        let body = serde_json::to_string(&batch(1, None, scans(seq, 1, "GULIR")?)?)?;
        let request = self.nginx.client().post(self.nginx.url("/api/sync_gateway_data"));
        let request = request.bearer_auth(&self.gateway.key).header("content-type", "application/json");
        http::send(request.body(body)).await?.expect(200).map(drop)
    }

    /// Makes a site, again where it was told to.
    async fn writes(&self, n: i64) -> Result<()> {
        let body = json!({ "code": format!("GULIR-{n}"), "programme": "MBG", "name": "Dapur", "kind": "kitchen",
            "time_zone": "Asia/Jakarta" });
        loop {
            let request = self.nginx.client().post(self.nginx.url("/api/sites")).bearer_auth(&self.write);
            let request = request.header("content-type", "application/json").body(body.to_string());
            let reply = http::send(request).await?;
            if reply.status == 503 && reply.header("retry-after").is_some() {
                continue;
            }
            // 409 would say that a 503 was done after all.
            return reply.expect(201).map(drop);
        }
    }

    /// Listens to one stream until it ends or the stop.
    async fn listens(&self, stop: &CancellationToken) -> Result<()> {
        let request = self.nginx.client().get(self.nginx.url("/api/live")).bearer_auth(&self.read);
        // The client's own limit is for answers that end.
        let mut stream = request.timeout(Duration::from_secs(200)).send().await?;
        ensure!(stream.status() == 200, "a new stream is answered {}", stream.status());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                chunk = stream.chunk() => match chunk {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Ok(()),
                }
            }
        }
    }
}

/// Two replicas that drain, and nginx before them.
async fn behind(stand: &Stand) -> Result<(Vec<Cloud>, Nginx)> {
    let first = stand.cloud_not_started().await?;
    let second = Cloud::new(settings("replica", stand.path(), first.settings.database_url.clone()))?;
    let mut replicas = vec![first, second];
    for replica in &mut replicas {
        replica.set("http.public_url", "https://localhost").set("http.drain", "1s");
        replica.start().await?;
    }
    replicas[0].furnish().await?;
    let addresses: Vec<String> = replicas.iter().map(Cloud::address).collect();
    let authority = Authority::new(stand.path())?;
    let nginx =
        Nginx::start(&stand.path().join("nginx"), &stand.log("nginx"), &authority, &addresses).await?;
    Ok((replicas, nginx))
}

/// Waits until nginx has had a new answer of a replica.
async fn found_again(nginx: &Nginx, replica: &Cloud, since: usize) -> Result<()> {
    eventually("nginx sends requests to the replica again", || async {
        let log = std::fs::read_to_string(&nginx.access_log)?;
        let news = log.get(since..).unwrap_or_default();
        Ok(news
            .lines()
            .any(|line| line.ends_with(&replica.address()) && line.contains("\" 200 "))
            .then_some(()))
    })
    .await
}

async fn roll(nginx: &Nginx, replicas: &mut [Cloud]) -> Result<()> {
    for _ in 0..ROUNDS {
        for replica in replicas.iter_mut() {
            replica.stop().await?;
            let log = std::fs::metadata(&nginx.access_log)?.len();
            replica.start().await?;
            found_again(nginx, replica, usize::try_from(log)?).await?;
        }
    }
    Ok(())
}

#[test]
fn two_replicas_that_are_restarted_in_turn_are_missed_by_nobody() -> Result<()> {
    story(async |stand| {
        let (mut replicas, nginx) = behind(stand).await?;
        let gateway = replicas[0].hand_made("GW-1").await?;
        let (read, write) = (key(&replicas[0], "read").await?, key(&replicas[0], "places:write").await?);
        let outside = Outside { nginx: &nginx, read, write, gateway: &gateway };
        let stop = CancellationToken::new();
        let rolled = async {
            let rolled = roll(&nginx, &mut replicas).await;
            stop.cancel();
            rolled
        };
        let (rolled, scans, summaries, pushed, written, streams) = tokio::join!(
            rolled,
            meanwhile(&stop, |_| outside.reads("/api/scans?limit=5")),
            meanwhile(&stop, |_| outside.reads("/api/dashboard/summary")),
            meanwhile(&stop, |seq| outside.pushes(seq)),
            meanwhile(&stop, |n| outside.writes(n)),
            meanwhile(&stop, |_| outside.listens(&stop)),
        );
        rolled?;
        let (scans, summaries) = (scans.context("reading scans")?, summaries.context("reading the summary")?);
        let (pushed, written) = (pushed.context("pushing")?, written.context("writing")?);
        ensure!(scans > 10 && summaries > 10 && pushed > 10 && written > 10, "hardly anything was going on");
        let streams = streams.context("listening")?;
        ensure!(streams > 1, "{streams} streams: none was moved to another replica");

        let database = replicas[0].database().await?;
        let tags: Vec<String> = (1..=pushed).map(|seq| format!("GULIR-{seq}")).collect();
        cloud_holds(&database, &tags).await?;
        let made: i64 = sqlx::query_scalar("select count(*) from site where code like 'GULIR-%'")
            .fetch_one(&database)
            .await?;
        assert_eq!(made, written, "a write that was answered is missing, or was done twice");
        Ok(())
    })
}

/// A client with one connection, which it keeps; they are given to the workers in turn.
struct Kept(reqwest::Client);

impl Kept {
    async fn makes(&self, cloud: &Cloud, write: &str, code: String) -> Result<()> {
        let body = json!({ "code": code, "programme": "MBG", "name": "Dapur", "kind": "kitchen",
            "time_zone": "Asia/Jakarta" });
        let request = self.0.post(cloud.url("/api/sites")).bearer_auth(write);
        let request = request.header("content-type", "application/json").body(body.to_string());
        http::send(request).await?.expect(201).map(drop)
    }
}

/// Everybody's sites at once: none is made before all wait for the same lock, each with a connection of its own.
/// `meanwhile` is run while they wait.
async fn make_together(
    cloud: &Cloud,
    database: &PgPool,
    write: &str,
    (turn, clients): (u8, &[&Kept]),
    meanwhile: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let mut held = database.begin().await?;
    sqlx::query("lock table site in exclusive mode").execute(&mut *held).await?;
    let released = async {
        eventually("all of them wait", || async {
            let waiting = "select count(*) from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock'";
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(database).await?;
            Ok((waiting == i64::try_from(clients.len())?).then_some(()))
        })
        .await?;
        meanwhile().await?;
        Ok(held.rollback().await?)
    };
    let code = |n: usize| format!("BERSAMA-{turn}-{n}");
    let made = clients.iter().enumerate().map(|(n, client)| client.makes(cloud, write, code(n)));
    futures_util::try_join!(released, futures_util::future::try_join_all(made)).map(drop)
}

/// The threads that serve HTTP.
fn workers(cloud: &Cloud) -> Result<usize> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", cloud.pid().context("no program")?))?;
    let mut workers = 0;
    for thread in threads {
        let name = std::fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
        workers += usize::from(name.starts_with("actix-server wo"));
    }
    Ok(workers)
}

#[test]
fn a_worker_that_has_nobody_left_stays_for_what_others_use_of_it() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("http.workers", 2).set("database.max_connections", 16).set("http.drain", "0s");
        cloud.start().await?;
        cloud.furnish().await?;
        let write = key(&cloud, "places:write").await?;
        let database = cloud.database().await?;
        let mut clients: Vec<Kept> =
            (0..32).map(|_| Ok(Kept(reqwest::Client::builder().build()?))).collect::<Result<_>>()?;
        for client in &clients {
            // In turn: every other one is of the same worker.
            client.0.get(cloud.url("/livez")).send().await?.bytes().await?;
        }
        // Both workers open connections, and then one of them uses them all.
        let both: Vec<&Kept> = clients.iter().take(16).collect();
        make_together(&cloud, &database, &write, (1, &both), async || Ok(())).await?;
        let mut others = false;
        clients.retain(|_| {
            others = !others;
            others
        });
        let one: Vec<&Kept> = clients.iter().collect();
        make_together(&cloud, &database, &write, (2, &one), async || {
            cloud.signal(Signal::SIGTERM);
            eventually("the port is closed", || async {
                let refused = TcpStream::connect(cloud.address()).await.is_err();
                Ok(refused.then_some(()))
            })
            .await?;
            // The other worker has nobody left, and would have ended by then.
            for _ in 0..20 {
                assert_eq!(workers(&cloud)?, 2, "a worker has ended");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        })
        .await
    })
}
