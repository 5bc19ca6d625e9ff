//! What a person's request costs beside a bare actix-web and sqlx server on the same database, and what people
//! notice of two hundred who sign in at once.

use super::Line;
use super::clients::Client;
use super::line::{Goal, median, percentile};
use super::outbox::megabytes;
use crate::http;
use crate::programs::{Cloud, Program, clean_environment, free_port};
use crate::stand::Stand;
use crate::wait::eventually;
use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PASSWORD: &str = "sepeda merah tua";
const CLIENTS: usize = 16;
const ROUNDS: usize = 3;
const LASTING: Duration = Duration::from_secs(3);
const FLOOD: usize = 200;

struct Account {
    id: i64,
    email: String,
    token: String,
}

/// A cloud whose limits are out of the way, and people on it.
async fn peopled(stand: &Stand, people: usize) -> Result<(Cloud, Vec<Account>)> {
    let mut cloud = stand.cloud_not_started().await?;
    for kind in ["sign_in", "register", "read", "write", "refused"] {
        cloud.set(&format!("limits.{kind}"), "1000000/1m");
    }
    cloud.start().await?;
    let mut accounts = Vec::new();
    for n in 0..people {
        let email = format!("orang{n}@example.com");
        let body = json!({"email": email, "password": PASSWORD, "username": format!("orang{n}")});
        let told = post(&cloud, "/api/auth/register", &body).await?.expect(201)?;
        let id = told["user_id"].as_i64().context("user_id")?;
        accounts.push(Account { id, email, token: told["token"].as_str().context("token")?.to_owned() });
    }
    Ok((cloud, accounts))
}

async fn post(cloud: &Cloud, path: &str, body: &Value) -> Result<http::Reply> {
    let request = http::client()?.post(cloud.url(path)).header("content-type", "application/json");
    http::send(request.body(body.to_string())).await
}

/// Sign in; the status and the milliseconds.
async fn login(cloud: &Cloud, email: &str, password: &str) -> Result<(u16, f64)> {
    let began = Instant::now();
    let reply = post(cloud, "/api/auth/login", &json!({"email": email, "password": password})).await?;
    Ok((reply.status, milliseconds(began)))
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Somebody looks at their profile while two hundred sign in: a fifth with accounts, the others unknown.
pub(super) async fn login_flood(stand: &Stand) -> Result<Vec<Line>> {
    let (cloud, accounts) = peopled(stand, FLOOD / 5).await?;
    let (mut known, mut unknown, mut right) = (Vec::new(), Vec::new(), Vec::new());
    for (n, account) in accounts.iter().cycle().take(3 * accounts.len()).enumerate() {
        for (email, password, expected, times) in [
            (&account.email, "kata yang salah", 401, &mut known),
            (&format!("tak-ada{n}@example.com"), "kata yang salah", 401, &mut unknown),
            (&account.email, PASSWORD, 200, &mut right),
        ] {
            let (status, took) = login(&cloud, email, password).await?;
            ensure!(status == expected, "a sign-in was answered {status}");
            times.push(took);
        }
    }
    let me = request("GET", "/api/users/me", &accounts[0].token, "");
    let mut client = Client::connect(&cloud.address()).await?;
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        let began = Instant::now();
        client.ask(&me, 200).await?;
        idle.push(milliseconds(began));
    }
    let pid = cloud.pid().context("the cloud is not running")?;
    let before = megabytes(pid, "VmRSS:")?;
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let looking = tokio::spawn(async move {
        let mut during = Vec::new();
        while !seen.load(Ordering::Relaxed) {
            let began = Instant::now();
            client.ask(&me, 200).await?;
            during.push(milliseconds(began));
        }
        anyhow::Ok(during)
    });
    let emails: Vec<String> = (0..FLOOD)
        .map(|n| accounts.get(n).map_or_else(|| format!("siapa{n}@example.com"), |a| a.email.clone()))
        .collect();
    let answers = join_all(emails.iter().map(|email| login(&cloud, email, PASSWORD))).await;
    over.store(true, Ordering::Relaxed);
    let mut during = looking.await??;
    let grown = megabytes(pid, "VmHWM:")? - before;
    let mut refused = 0;
    for answer in answers {
        match answer?.0 {
            200 | 401 => {}
            503 => refused += 1,
            status => anyhow::bail!("a sign-in of the flood was answered {status}"),
        }
    }
    let (quiet, busy) = (percentile(&mut idle, 0.99), percentile(&mut during, 0.99));
    let (stranger, owner) = (median(&mut unknown), median(&mut known));
    // Either way a difference would tell who has an account.
    let (told, slower, faster) = if stranger > owner {
        ("login_unknown_beside_known", stranger, owner)
    } else {
        ("login_known_beside_unknown", owner, stranger)
    };
    Ok(vec![
        Line::new("me_p99_during_200_logins", "ms", busy, Some(quiet), Goal::None),
        Line::new("me_p99_added_by_200_logins", "ms", busy - quiet, None, Goal::ValueAtMost(100.0)),
        Line::new("logins_told_to_come_back", "", f64::from(refused), None, Goal::None),
        Line::new("cloud_rss_grown_by_200_logins", "MB", grown, None, Goal::None),
        Line::new(told, "ms", slower, Some(faster), Goal::RatioAtMost(1.1)),
        Line::new("login_p95", "ms", percentile(&mut right, 0.95), None, Goal::ValueAtMost(500.0)),
    ])
}

/// Reading one's profile, a list, a durable change and something made, beside a bare server that runs the same statements.
pub(super) async fn people(stand: &Stand) -> Result<Vec<Line>> {
    let (cloud, accounts) = peopled(stand, CLIENTS).await?;
    let url = cloud.settings.database_url.clone().context("a database of its own")?;
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let mut command = Command::new(std::env::current_exe()?);
    clean_environment(&mut command);
    command.args(["bare-server", "--port", &port.to_string()]).env("DATABASE_URL", url);
    let _bare = Program::start("bare-server", &mut command, &stand.log("bare-server"))?;
    eventually("the bare server answers", || async {
        Ok(Client::connect(&address).await.is_ok().then_some(()))
    })
    .await?;
    for account in &accounts {
        cloud.must(&["user", "role", &account.email, "admin"]).await?;
    }
    let (mut lines, made) = (Vec::new(), Arc::default());
    for (name, method, path, status, body) in [
        ("me", "GET", "/api/users/me", 200, nothing as fn(usize) -> String),
        ("list", "GET", "/api/auth/sessions", 200, nothing),
        ("change", "PUT", "/api/users/me", 200, another_city),
        ("create", "POST", "/api/programmes", 201, programme),
    ] {
        let ours =
            |a: &Account| Asking { method, path: path.to_owned(), token: a.token.clone(), status, body };
        let bare =
            |a: &Account| Asking { path: format!("/{name}/{}", a.id), token: String::new(), ..ours(a) };
        let (ours, bare): (Vec<_>, Vec<_>) = accounts.iter().map(|a| (ours(a), bare(a))).unzip();
        let (mut rates, mut bare_rates) = (Vec::new(), Vec::new());
        let (mut times, mut bare_times) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            rates.push(crowd(&cloud.address(), &ours, &made, &mut times).await?);
            bare_rates.push(crowd(&address, &bare, &made, &mut bare_times).await?);
        }
        let (rate, bare_rate) = (median(&mut rates), median(&mut bare_rates));
        let (slow, bare_slow) = (percentile(&mut times, 0.99), percentile(&mut bare_times, 0.99));
        let line = format!("people_{name}_per_second_{CLIENTS}");
        lines.push(Line::new(&line, "/s", rate, Some(bare_rate), Goal::RatioAtLeast(0.8)));
        lines.push(Line::new(&format!("people_{name}_p99"), "ms", slow, Some(bare_slow), Goal::None));
        if name == "me" {
            // One after the other, nothing waits: what is left is knowing who asks and what stands around.
            let (mut times, mut bare_times) = (Vec::new(), Vec::new());
            crowd(&cloud.address(), &ours[..1], &made, &mut times).await?;
            crowd(&address, &bare[..1], &made, &mut bare_times).await?;
            let cost = (median(&mut times) - median(&mut bare_times)) * 1e3;
            lines.push(Line::new("people_authentication_and_guards", "us", cost, None, Goal::None));
        }
    }
    let memory = megabytes(cloud.pid().context("the cloud is not running")?, "VmRSS:")?;
    lines.push(Line::new("cloud_rss_after_people", "MB", memory, None, Goal::None));
    Ok(lines)
}

/// What one client sends again and again.
#[derive(Clone)]
struct Asking {
    method: &'static str,
    path: String,
    token: String,
    status: u16,
    /// Of the request of that number among all.
    body: fn(usize) -> String,
}

fn nothing(_: usize) -> String {
    String::new()
}

fn another_city(n: usize) -> String {
    format!(r#"{{"city":"Bandung {n}"}}"#)
}

fn programme(n: usize) -> String {
    format!(r#"{{"code":"P-{n}","name":"Makan Bergizi Gratis {n}"}}"#)
}

/// Answers a second when each client sends its request again and again over a connection of its own.
async fn crowd(
    address: &str,
    clients: &[Asking],
    made: &Arc<AtomicUsize>,
    times: &mut Vec<f64>,
) -> Result<f64> {
    let began = Instant::now();
    let asking = clients.iter().map(|asking| {
        let (address, asking, made) = (address.to_owned(), asking.clone(), Arc::clone(made));
        tokio::spawn(async move {
            let mut client = Client::connect(&address).await?;
            let mut took = Vec::new();
            while began.elapsed() < LASTING {
                let body = (asking.body)(made.fetch_add(1, Ordering::Relaxed));
                let request = request(asking.method, &asking.path, &asking.token, &body);
                let asked = Instant::now();
                client.ask(&request, asking.status).await?;
                took.push(milliseconds(asked));
            }
            anyhow::Ok(took)
        })
    });
    let mut count = 0;
    for took in join_all(asking).await {
        let took = took??;
        count += took.len();
        times.extend(took);
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
