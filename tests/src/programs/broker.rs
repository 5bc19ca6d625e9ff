//! A real Mosquitto with the configuration that is shipped, and devices that publish to it.

use super::{Program, free_port, run, tool};
use crate::wait::eventually;
use anyhow::{Context, Result, anyhow, bail};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use std::fmt::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Everybody's password; the test is the only one who listens.
const PASSWORD: &str = "rahasia-sekali";
/// How long a device waits for its broker.
const PATIENCE: Duration = Duration::from_secs(5);

/// A broker with a folder of its own.
#[derive(Debug)]
pub struct Broker {
    dir: PathBuf,
    pub port: u16,
    log: PathBuf,
    program: Option<Program>,
}

impl Broker {
    /// Lays out the shipped configuration below `dir`; nothing is started. `devices` may publish.
    pub fn new(dir: &Path, log: &Path, devices: &[&str]) -> Result<Self> {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/mosquitto");
        std::fs::create_dir_all(dir)?;
        let port = free_port()?;
        let mut text = String::new();
        for line in std::fs::read_to_string(shipped.join("mosquitto.conf"))?.lines() {
            let key = line.split(' ').next().unwrap_or_default();
            let here = |name: &str| dir.join(name).display().to_string();
            let _ = match key {
                "listener" => writeln!(text, "listener {port} 127.0.0.1"),
                "password_file" => writeln!(text, "{key} {}", here("passwd")),
                "acl_file" => writeln!(text, "{key} {}", here("acl")),
                "persistence_location" => writeln!(text, "{key} {}/", dir.display()),
                _ => writeln!(text, "{line}"),
            };
        }
        // Started by root, it would become somebody who may not enter the test's folder.
        if nix::unistd::Uid::effective().is_root() {
            text.push_str("user root\n");
        }
        std::fs::write(dir.join("mosquitto.conf"), text)?;
        std::fs::copy(shipped.join("lumbung.acl"), dir.join("acl"))?;
        std::fs::write(dir.join("password"), format!("{PASSWORD}\n"))?;
        let people: String =
            ["gateway"].iter().chain(devices).map(|user| format!("{user}:{PASSWORD}\n")).collect();
        std::fs::write(dir.join("passwd"), people)?;
        run(Command::new(tool("mosquitto_passwd")?).arg("-U").arg(dir.join("passwd")))?.ok()?;
        for name in ["acl", "passwd"] {
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(Self { dir: dir.to_owned(), port, log: log.to_owned(), program: None })
    }

    /// Starts it and waits until it listens.
    pub async fn start(&mut self) -> Result<()> {
        let mosquitto = tool("mosquitto").or_else(|error| {
            Some(PathBuf::from("/usr/sbin/mosquitto")).filter(|path| path.is_file()).ok_or(error)
        })?;
        let mut command = Command::new(mosquitto);
        command.arg("-c").arg(self.dir.join("mosquitto.conf"));
        self.program = Some(Program::start("mosquitto", &mut command, &self.log)?);
        eventually("the broker listens", || async {
            Ok(TcpStream::connect(("127.0.0.1", self.port)).is_ok().then_some(()))
        })
        .await
    }

    /// A clean end: it writes down what waits.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut program) = self.program.take() {
            tokio::task::spawn_blocking(move || program.stop()).await??;
        }
        Ok(())
    }

    pub fn runs(&mut self) -> Result<bool> {
        match &mut self.program {
            Some(program) => Ok(program.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill();
        }
    }

    /// The `[mqtt]` section of a gateway that listens here, without its maps.
    pub fn section(&self) -> String {
        format!(
            "[mqtt]\nbroker = \"127.0.0.1:{}\"\nusername = \"gateway\"\npassword_file = \"{}\"\ndown_after = \"1s\"\n",
            self.port,
            self.dir.join("password").display()
        )
    }

    /// A device of that name.
    pub fn device(&self, name: &str) -> Publisher {
        Publisher { name: name.to_owned(), port: self.port, connection: None }
    }
}

/// What a device knows of a message it has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The broker has acknowledged it.
    Yes,
    /// It may have arrived.
    Unknown,
}

/// A device that sends each message once, with QoS 1, and waits for the broker's word.
#[derive(Debug)]
pub struct Publisher {
    name: String,
    port: u16,
    connection: Option<Connection>,
}

struct Connection {
    client: AsyncClient,
    events: EventLoop,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Publisher {
    /// An error when nobody was there to send it to.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<Published> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.name, self.port).await?,
        };
        let sent = tokio::time::timeout(PATIENCE, connection.send(topic, payload, QoS::AtLeastOnce)).await;
        if matches!(sent, Ok(Ok(()))) {
            self.connection = Some(connection);
            return Ok(Published::Yes);
        }
        // A new connection next time: it knows nothing of the message and does not send it again.
        Ok(Published::Unknown)
    }

    /// With QoS 0: sent, and nobody says whether it arrived.
    pub async fn throw(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let mut connection = connect(&self.name, self.port).await?;
        connection.send(topic, payload, QoS::AtMostOnce).await?;
        // Something that is answered behind it.
        connection.client.try_disconnect()?;
        while connection.events.poll().await.is_ok() {}
        Ok(())
    }
}

impl Connection {
    async fn send(&mut self, topic: &str, payload: &[u8], qos: QoS) -> Result<()> {
        self.client.try_publish(topic, qos, false, payload.to_vec())?;
        loop {
            match self.events.poll().await? {
                Event::Incoming(Packet::PubAck(_)) => return Ok(()),
                Event::Outgoing(rumqttc::Outgoing::Publish(_)) if qos == QoS::AtMostOnce => return Ok(()),
                _ => {}
            }
        }
    }
}

async fn connect(name: &str, port: u16) -> Result<Connection> {
    connect_as(name, Some(PASSWORD), port).await
}

async fn connect_as(name: &str, password: Option<&str>, port: u16) -> Result<Connection> {
    let mut options = MqttOptions::new(format!("{name}-{:x}", fastrand::u32(..)), "127.0.0.1", port);
    options.set_clean_start(true).set_keep_alive(Duration::from_secs(30));
    if let Some(password) = password {
        options.set_credentials(name, password);
    }
    let (client, mut events) = AsyncClient::new(options, 16);
    match tokio::time::timeout(PATIENCE, events.poll()).await? {
        Ok(Event::Incoming(Packet::ConnAck(_))) => Ok(Connection { client, events }),
        Ok(other) => bail!("instead of CONNACK: {other:?}"),
        Err(error) => Err(anyhow!(error)).context("connecting to the broker"),
    }
}

/// Whether the broker lets somebody in with this name and password, if any.
pub async fn lets_in(broker: &Broker, name: &str, password: Option<&str>) -> bool {
    connect_as(name, password, broker.port).await.is_ok()
}
