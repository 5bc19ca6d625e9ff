//! One embedded PostgreSQL per test process, a fresh database per story.
//!
//! The server is a child of a thread that lasts as long as the process, because it is made to die with
//! the thread that started it.

use anyhow::{Context, Result, anyhow};
use lumbung_cloud::database::embedded::{Embedded, Settings};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

/// Makes an empty database on this process's server; its URL.
pub async fn fresh_database(name: &str) -> Result<String> {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let server = tokio::task::spawn_blocking(server).await??;
    let database = format!("{name}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut connection = server.admin.connect().await?;
    // The name is made here of letters and a number; identifiers cannot be bound.
    let sql = format!("create database {database} owner lumbung template template0 encoding 'UTF8'");
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(server.url.replace("/lumbung?", &format!("/{database}?")))
}

/// The superuser, in the database of a URL that [`fresh_database`] gave.
pub async fn admin_of(url: &str) -> Result<PgConnectOptions> {
    let server = tokio::task::spawn_blocking(server).await??;
    let name = url.rsplit('/').find_map(|part| part.split_once('?')).context("no database in the URL")?.0;
    Ok(server.admin.database(name))
}

/// How to reach the server of this process.
#[derive(Clone)]
struct Server {
    admin: PgConnectOptions,
    url: String,
}

fn server() -> Result<Server> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    SERVER
        .get_or_init(|| start().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!("the tests' PostgreSQL did not start: {error}"))
}

fn start() -> Result<Server> {
    let (told, hear) = mpsc::channel();
    std::thread::Builder::new().name("postgres".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = told.send(Err(error.into()));
                return;
            }
        };
        runtime.block_on(async {
            match scratch() {
                Ok(data_dir) => match Embedded::start(Settings { data_dir, bin_dir: None }).await {
                    Ok(embedded) => {
                        let _ = told.send(Ok(Server {
                            admin: embedded.admin_options("postgres"),
                            url: embedded.connect_url(),
                        }));
                        std::future::pending::<()>().await;
                    }
                    Err(error) => {
                        let _ = told.send(Err(anyhow!("{error:#}")));
                    }
                },
                Err(error) => {
                    let _ = told.send(Err(error));
                }
            }
        });
    })?;
    hear.recv().context("the thread ended")?
}

/// This process's folder for the cluster. Those of processes that are gone are cleared away first:
/// a test process ends without running destructors.
fn scratch() -> Result<PathBuf> {
    let temp = std::env::temp_dir();
    for entry in std::fs::read_dir(&temp)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("lumbung-postgres-").and_then(|pid| pid.parse::<u32>().ok());
        if let Some(pid) = owner
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let dir = temp.join(format!("lumbung-postgres-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    open_to_others(&dir)?;
    Ok(dir)
}

/// Lets the user that PostgreSQL runs as walk through a folder.
pub fn open_to_others(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
