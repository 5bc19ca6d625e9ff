//! The distribution's nginx with the shipped configuration, before a story's clouds.

use super::{Program, free_port, run, tool};
use crate::tls::Authority;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::wait::eventually;

/// A running nginx; people reach it as `localhost`.
#[derive(Debug)]
pub struct Nginx {
    pub port: u16,
    /// Where it listens without TLS.
    pub plain: u16,
    pub access_log: PathBuf,
    program: Program,
    client: reqwest::Client,
    http1: reqwest::Client,
}

impl Nginx {
    /// Checks the shipped configuration with `nginx -t` and runs it below `dir`, before the replicas at these
    /// addresses. Only names, ports and files differ from what is shipped.
    pub async fn start(dir: &Path, log: &Path, authority: &Authority, replicas: &[String]) -> Result<Self> {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nginx/lumbung.conf");
        std::fs::create_dir_all(dir)?;
        let (certificate, key) = authority.issue()?;
        std::fs::write(dir.join("certificate.pem"), certificate)?;
        std::fs::write(dir.join("key.pem"), key)?;
        let (port, plain) = (free_port()?, free_port()?);
        let access_log = dir.join("access.log");
        let mut before = replicas.iter();
        let mut site = String::new();
        for line in std::fs::read_to_string(shipped)?.lines() {
            let mut words = line.split_whitespace();
            let _ = match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
                ("listen", place) if place.starts_with("[::]") => Ok(()),
                ("listen", _) => writeln!(
                    site,
                    "{}",
                    line.replace("443", &format!("127.0.0.1:{port}"))
                        .replace("80;", &format!("127.0.0.1:{plain};"))
                ),
                ("server", address) if address != "{" => {
                    let here = before.next().context("fewer clouds than replicas in the configuration")?;
                    writeln!(site, "{}", line.replace(address, here))
                }
                ("server_name", _) => writeln!(site, "server_name localhost;"),
                ("access_log", place) => {
                    writeln!(site, "{}", line.replace(place, &access_log.display().to_string()))
                }
                ("ssl_certificate", _) => {
                    writeln!(site, "ssl_certificate {};", dir.join("certificate.pem").display())
                }
                ("ssl_certificate_key", _) => {
                    writeln!(site, "ssl_certificate_key {};", dir.join("key.pem").display())
                }
                _ => writeln!(site, "{line}"),
            };
        }
        std::fs::write(dir.join("lumbung.conf"), site)?;
        std::fs::write(dir.join("nginx.conf"), around(dir))?;
        let nginx = tool("nginx").or_else(|error| {
            Some(PathBuf::from("/usr/sbin/nginx")).filter(|path| path.is_file()).ok_or(error)
        })?;
        let command = || {
            let mut command = Command::new(&nginx);
            command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).args(["-e", "stderr"]);
            command
        };
        run(command().arg("-t"))?.ok().context("nginx -t")?;
        let program = Program::start("nginx", &mut command(), log)?;
        eventually("nginx listens", || async {
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))
        })
        .await?;
        let client = authority.client()?;
        let http1 = authority.client_with(reqwest::ClientBuilder::http1_only)?;
        Ok(Self { port, plain, access_log, program, client, http1 })
    }

    /// For requests that know its authority.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The same without HTTP/2.
    pub fn http1(&self) -> &reqwest::Client {
        &self.http1
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.program.ended()?.is_some())
    }
}

/// What Debian's own nginx.conf would be around it.
fn around(dir: &Path) -> String {
    // One process: a master that is killed leaves its workers behind.
    let mut text = String::from("daemon off;\nmaster_process off;\nerror_log stderr;\n");
    // Started by root, it would become somebody who may not enter the test's folder.
    if nix::unistd::Uid::effective().is_root() {
        text.push_str("user root;\n");
    }
    let here = |name: &str| dir.join(name).display().to_string();
    let _ = write!(text, "pid {};\nevents {{}}\nhttp {{\naccess_log off;\n", here("pid"));
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "{kind}_temp_path {};", here(kind));
    }
    let _ = writeln!(text, "include {};\n}}", here("lumbung.conf"));
    text
}
