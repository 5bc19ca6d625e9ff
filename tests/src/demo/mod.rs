//! `make run`: starts the cloud with its own PostgreSQL and a gateway with a simulated reader, plays a
//! believable country around them, and stops everything in order.
//!
//! Starting again with the same data folder goes on where it was: places and gateways are added once,
//! and every simulated scan keeps its number (see [`simulated`]).

mod children;
mod country;
mod fleet;
mod morning;
mod place;
pub(crate) mod say;
mod seed;
mod simulated;

use anyhow::{Context, Result, bail};
use children::{Supervised, command, remember, stop_leftovers};
use clap::Parser;
use country::{OWN_SITE, SITES};
use fleet::Fleet;
use place::{Place, check_port, reachable, write_whole};
use reqwest::Client;
use seed::{ADMIN, OPERATOR, Operator};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

const EXAMPLES: &str = "Examples:
  make run                                      the usual way; builds first
  make run DATA=/var/tmp/lumbung                keep the data elsewhere
  make run CLOUD_PORT=8080 GATEWAY_PORT=5050    other ports
  target/debug/demo --data data/demo            without make, once everything is built

Ctrl-C stops everything; the data stays, and the next start goes on from it.";

/// Runs all of Lumbung on this machine, with a simulated morning of food on the move.
#[derive(Debug, Parser)]
#[command(name = "demo", version, after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Folder that keeps everything between starts.
    #[arg(long, env = "DATA", default_value = "data/demo", value_name = "DIR")]
    data: PathBuf,
    /// The cloud's port on 127.0.0.1.
    #[arg(long, env = "CLOUD_PORT", default_value_t = 8000, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    cloud_port: u16,
    /// The gateway's port on 127.0.0.1.
    #[arg(long, env = "GATEWAY_PORT", default_value_t = 5000, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..))]
    gateway_port: u16,
}

/// A first start makes a database cluster, which a slow disk takes its time for.
const CLOUD_PATIENCE: Duration = Duration::from_secs(180);
const GATEWAY_PATIENCE: Duration = Duration::from_secs(60);
const SAY_EVERY: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(100);
/// Longer than the programs give themselves (PostgreSQL's last checkpoint included).
const STOP_PATIENCE: Duration = Duration::from_secs(100);

/// What has been started, in order.
#[derive(Default)]
struct Running {
    cloud: Option<Supervised>,
    gateway: Option<Supervised>,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    if options.cloud_port == options.gateway_port {
        bail!("CLOUD_PORT and GATEWAY_PORT must differ");
    }
    let place = Place::open(&reachable(&options.data)?)?;
    let mut stop = Stop::listen()?;
    let mut running = Running::default();
    let result = tokio::select! {
        result = start(options, &place, &mut running) => result,
        () = stop.asked() => {
            say::line("");
            say::step("Menghentikan semuanya …", "stopping everything …");
            Ok(())
        }
    };
    let stopped = running.stop(&place).await;
    if result.is_ok() && stopped.is_ok() {
        say::step("Selesai. Data tetap ada.", "Done. The data stays.");
    }
    result.and(stopped)
}

/// Starts everything and watches it; comes back only with what went wrong.
async fn start(options: &Options, place: &Place, running: &mut Running) -> Result<()> {
    say::line("\nLumbung");
    if stop_leftovers(place, STOP_PATIENCE).await? > 0 {
        say::step("Sisa demo sebelumnya dihentikan", "stopped what an earlier demo had left running");
    }
    check_port(options.cloud_port, "cloud", "CLOUD_PORT")?;
    check_port(options.gateway_port, "gateway", "GATEWAY_PORT")?;
    let operator = Operator {
        config: place.dir("cloud.toml"),
        cloud: format!("http://127.0.0.1:{}", options.cloud_port),
    };
    let gateway_config = place.dir("gateway.toml");
    let gateway_url = format!("http://127.0.0.1:{}", options.gateway_port);
    write_whole(&operator.config, cloud_toml(options, place).as_bytes(), 0o644)?;
    write_whole(&gateway_config, gateway_toml(options, place)?.as_bytes(), 0o644)?;
    if std::env::var_os("DATABASE_URL").is_some() {
        say::step("DATABASE_URL tidak dipakai demo ini", "DATABASE_URL is not used by this demo");
    }
    let http = lumbung_tests::http::client()?;

    say::step("Menyalakan cloud dan PostgreSQL-nya", "starting the cloud and its PostgreSQL");
    let mut serve = command("lumbung-cloud", &operator.config)?;
    serve.arg("serve");
    let cloud = running.cloud.insert(Supervised::start("cloud", serve, place)?);
    remember(place, &[cloud])?;
    wait_for(cloud, &http, &format!("{}/readyz", operator.cloud), CLOUD_PATIENCE).await?;

    // From here on a cloud that dies ends the start, whatever it is waiting for.
    let (mut fleet, gateway, people) = tokio::select! {
        died = cloud.died() => return Err(died),
        prepared = prepare(place, &operator, &gateway_config, &http) => prepared?,
    };
    let gateway = running.gateway.insert(gateway);
    remember(place, &[cloud, gateway])?;
    wait_for(gateway, &http, &format!("{gateway_url}/livez"), GATEWAY_PATIENCE).await?;
    tokio::select! {
        died = cloud.died() => return Err(died),
        died = gateway.died() => return Err(died),
        sent = fleet.catch_up() => {
            let sent = sent.context("bringing the morning to the cloud")?;
            say::step(&format!("{sent} scan dari armada sudah masuk"), &format!("{sent} scans of the fleet are in"));
        }
    }
    welcome(options, place, &operator, &gateway_url, &people);
    tokio::select! {
        died = cloud.died() => Err(died),
        died = gateway.died() => Err(died),
        ended = fleet.run() => ended.context("the simulated fleet"),
    }
}

/// The passwords of the demo's accounts, where they are known.
struct People {
    admin: Option<String>,
    operator: Option<String>,
}

/// Places, the fleet's files and the gateway's enrolment; then the gateway itself.
async fn prepare(
    place: &Place,
    operator: &Operator,
    gateway_config: &std::path::Path,
    http: &Client,
) -> Result<(Fleet, Supervised, People)> {
    let added = operator.furnish(http).await.context("adding programme and places")?;
    if added > 0 {
        say::step(&format!("{added} tempat didaftarkan"), &format!("{added} places added"));
    }
    let people = People {
        admin: operator.admin(&place.dir("admin-password")).await.context("making the demo's admin")?,
        operator: operator
            .programmes_operator(&place.dir("operator-password"))
            .await
            .context("making the demo's operator")?,
    };
    let fleet = Fleet::open(place, operator.clone(), http.clone())?;
    if operator.enrol_own(gateway_config, &place.dir("gateway")).await? {
        say::step("Gateway didaftarkan", "gateway enrolled");
    }
    say::step("Menyalakan gateway dan armada tiruan", "starting the gateway and a simulated fleet");
    let mut run = command("lumbung-gateway", gateway_config)?;
    run.arg("run");
    Ok((fleet, Supervised::start("gateway", run, place)?, people))
}

/// Waits until the address answers 200; a program that ends meanwhile is reported at once.
async fn wait_for(child: &mut Supervised, http: &Client, url: &str, patience: Duration) -> Result<()> {
    let name = child.name;
    let begun = Instant::now();
    let answering = async {
        let mut said = begun;
        loop {
            let answer = http.get(url).timeout(Duration::from_secs(5)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if begun.elapsed() > patience {
                bail!("{name} is not ready after {patience:?} ({url})");
            }
            if said.elapsed() > SAY_EVERY {
                said = Instant::now();
                let seconds = begun.elapsed().as_secs();
                say::step(
                    &format!("menunggu {name} ({seconds} dtk)"),
                    &format!("waiting for the {name} ({seconds} s)"),
                );
            }
            sleep(STEP).await;
        }
    };
    tokio::select! {
        biased;
        died = child.died() => Err(died),
        answered = answering => answered,
    }
}

impl Running {
    /// The gateway first, so that what it sends last still finds the cloud.
    async fn stop(self, place: &Place) -> Result<()> {
        let mut result = Ok(());
        for child in [self.gateway, self.cloud].into_iter().flatten() {
            // A child that died was reported already; stopping it is nothing.
            let stopped = child.stop(STOP_PATIENCE).await;
            result = result.and(stopped);
        }
        let _ = std::fs::remove_file(place.dir("running.json"));
        result
    }
}

/// Ctrl-C, `kill`, or a terminal that was closed.
struct Stop {
    signals: Vec<tokio::signal::unix::Signal>,
}

impl Stop {
    fn listen() -> Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals = kinds.into_iter().map(signal).collect::<std::io::Result<_>>()?;
        Ok(Self { signals })
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = self.signals.as_mut_slice() else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn cloud_toml(options: &Options, place: &Place) -> String {
    format!(
        "# Written by the demo at every start.\n\
         data_dir = {data:?}\n\
         [http]\n\
         listen = \"127.0.0.1:{port}\"\n\
         [limits]\n\
         # The whole simulated fleet enrols from one address.\n\
         enrol = \"200/1m\"\n\
         [development]\n\
         # Reading from this machine needs no key.\n\
         open_loopback = true\n",
        data = place.dir("cloud").to_string_lossy(),
        port = options.cloud_port
    )
}

fn gateway_toml(options: &Options, place: &Place) -> Result<String> {
    let kitchen = SITES.iter().find(|site| site.code == OWN_SITE).context("the demo's own kitchen")?;
    Ok(format!(
        "# Written by the demo at every start.\n\
         data_dir = {data:?}\n\
         [http]\n\
         listen = \"127.0.0.1:{port}\"\n\
         [cloud]\n\
         url = \"http://127.0.0.1:{cloud}\"\n\
         [reader]\n\
         kind = \"simulated\"\n\
         [reader.simulated]\n\
         interval = \"20s\"\n\
         status = \"makanan_keluar\"\n\
         tags = {tags:?}\n\
         # Not real: they make their values up.\n\
         [[sensor]]\n\
         name = \"kulkas-tiruan\"\n\
         kind = \"simulated\"\n\
         every = \"10s\"\n\
         seed = 1\n\
         offset = {{ temperature = -22.5 }}\n\
         range = {{ temperature = [0, 8] }}\n\
         [[sensor]]\n\
         name = \"dapur-tiruan\"\n\
         kind = \"simulated\"\n\
         every = \"10s\"\n\
         seed = 2\n\
         report_change = {{ temperature = 0.2, humidity = 1 }}\n",
        data = place.dir("gateway").to_string_lossy(),
        port = options.gateway_port,
        cloud = options.cloud_port,
        tags = morning::container_tags(kitchen),
    ))
}

fn welcome(options: &Options, place: &Place, operator: &Operator, gateway_url: &str, people: &People) {
    let root = place.root.display();
    let cloud = &operator.cloud;
    let page = format!("{cloud}/");
    let port = options.gateway_port;
    let [admin, operator] = [&people.admin, &people.operator].map(|word| word.as_deref().unwrap_or("?"));
    say::line(&format!(
        "
Lumbung berjalan · Lumbung is running

  Halaman langsung · live page     {page}
  API cloud · cloud API            {cloud}/docs/
  Email (tidak dikirim · not sent) {cloud}/dev/outbox
  Halaman gateway · gateway page   {gateway_url}/
  API gateway · gateway API        {gateway_url}/api/openapi.json, {gateway_url}/api/status
  Admin                            {ADMIN}, {admin}
  Operator program · programme's   {OPERATOR}, {operator}
  Data                             {root}
  Log                              {root}/log/cloud.log, gateway.log

Coba · try

  1. Kirim satu scan, seperti di panduan lapangan · send a scan, as in the field manual

     curl -X POST http://127.0.0.1:{port}/api/log_scan \\
       -H 'Content-Type: application/json' \\
       -d '{{\"nfc_tag_id\": \"NFC_TAG_ALPHA\", \"status_scan\": \"makanan_keluar\"}}'

  2. Lihat di SQLite gateway: 0 belum terkirim, 1 sudah · look in the gateway's SQLite: 0 unsent, 1 sent

     sqlite3 -readonly {root}/gateway/local_gateway.db \\
       'select nfc_tag_id, synced_to_main_server from scan_event order by id desc limit 5'

  3. Buka {page} dan kirim scan lagi · open it and send another scan

Ctrl-C menghentikan semuanya, data tetap ada · Ctrl-C stops everything, the data stays
"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_configurations_are_ones_that_the_programs_take() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(&dir.path().join("demo")).unwrap();
        let options = Options::parse_from(["demo", "--cloud-port", "8123", "--gateway-port", "5123"]);
        let path = dir.path().join("cloud.toml");
        std::fs::write(&path, cloud_toml(&options, &place)).unwrap();
        let cloud = lumbung_cloud::config::Config::load(Some(&path)).unwrap();
        assert!(cloud.development.open_loopback);
        assert_eq!(cloud.http.listen.port(), 8123);
        let path = dir.path().join("gateway.toml");
        std::fs::write(&path, gateway_toml(&options, &place).unwrap()).unwrap();
        let gateway = lumbung_gateway::config::Config::load(Some(&path), None).unwrap();
        assert_eq!(gateway.http.listen.port(), 5123);
    }
}
