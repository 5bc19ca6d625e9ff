//! With the real PostgreSQL, as whoever runs the tests (root included).

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::*;

const OWNER_DIR: &str = "LUMBUNG_TEST_EMBEDDED_OWNER";

fn settings(dir: &Path) -> Settings {
    Settings { data_dir: dir.to_path_buf(), bin_dir: None }
}

async fn started(dir: &TempDir) -> Embedded {
    Embedded::start(settings(dir.path())).await.unwrap()
}

async fn connect(embedded: &Embedded) -> PgConnection {
    PgConnection::connect_with(&embedded.connect_options()).await.unwrap()
}

async fn write_row(embedded: &Embedded) {
    let mut connection = connect(embedded).await;
    for statement in ["create table if not exists kept (n int)", "insert into kept values (1)"] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
}

async fn rows(embedded: &Embedded) -> i64 {
    sqlx::query_scalar("select count(*) from kept").fetch_one(&mut connect(embedded).await).await.unwrap()
}

async fn setting(connection: &mut PgConnection, name: &'static str) -> String {
    sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(connection).await.unwrap()
}

fn pid(embedded: &Embedded) -> Pid {
    Pid::from_raw(i32::try_from(embedded.pid().unwrap()).unwrap())
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < patience, "never happened: {what}");
        sleep(STEP).await;
    }
}

#[tokio::test]
async fn a_fresh_start_is_private_and_durable_and_a_restart_keeps_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = started(&dir).await;
    write_row(&embedded).await;
    let mut connection = connect(&embedded).await;
    for (name, value) in [
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("is_superuser", "off"),
        ("unix_socket_permissions", "0700"),
    ] {
        assert_eq!(setting(&mut connection, name).await, value, "{name}");
    }
    drop(connection);
    for private in ["postgres", "postgres-run/socket"] {
        let mode = fs::metadata(dir.path().join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{private}");
    }
    let url: PgConnectOptions = embedded.connect_url().parse().unwrap();
    PgConnection::connect_with(&url).await.unwrap().close().await.unwrap();
    embedded.stop().await.unwrap();
    assert!(!dir.path().join("postgres/postmaster.pid").exists());

    let embedded = started(&dir).await;
    assert_eq!(rows(&embedded).await, 1);
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_is_started_again_until_it_dies_too_often() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = started(&dir).await;
    write_row(&embedded).await;
    let stop = CancellationToken::new();
    let trouble = async {
        let mut last = pid(&embedded);
        for death in 1..=MOST_DEATHS {
            kill(last, Signal::SIGKILL).unwrap();
            if death == MOST_DEATHS {
                break;
            }
            last = eventually("another server", async || {
                let now = embedded.pid().map(|pid| Pid::from_raw(i32::try_from(pid).unwrap()));
                now.filter(|now| *now != last)
            })
            .await;
            assert_eq!(rows(&embedded).await, 1);
        }
    };
    let (ended, ()) = tokio::join!(embedded.supervise(stop), trouble);
    assert!(matches!(ended, Err(EmbeddedError::KeepsDying { deaths: MOST_DEATHS, .. })));
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn supervising_ends_when_told_and_leaves_the_server_to_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = started(&dir).await;
    let stop = CancellationToken::new();
    stop.cancel();
    embedded.supervise(stop).await.unwrap();
    assert!(embedded.pid().is_some());
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_owner_is_refused_by_name_and_may_join_instead() {
    let dir = tempfile::tempdir().unwrap();
    assert!(running(&settings(dir.path())).await.unwrap().is_none());
    let embedded = started(&dir).await;
    let refused = Embedded::start(settings(dir.path())).await.err().unwrap();
    assert!(matches!(refused, EmbeddedError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");

    let joined = running(&settings(dir.path())).await.unwrap().unwrap();
    PgConnection::connect_with(&joined).await.unwrap().close().await.unwrap();
    embedded.stop().await.unwrap();
    assert!(running(&settings(dir.path())).await.unwrap().is_none());
}

#[tokio::test]
async fn a_command_waits_for_a_server_that_is_still_starting_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let embedded = started(&dir).await;
    kill(pid(&embedded), Signal::SIGKILL).unwrap();
    eventually("the server is gone", async || embedded.pid().is_none().then_some(())).await;
    let refused = running_within(&settings, Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(refused, EmbeddedError::NotYet { .. }), "{refused}");
    let place = fs::canonicalize(dir.path()).unwrap();
    assert!(refused.to_string().contains(&*place.to_string_lossy()), "{refused}");

    let stop = CancellationToken::new();
    let command = async {
        let joined = running(&settings).await.unwrap().unwrap();
        let connected = PgConnection::connect_with(&joined).await;
        stop.cancel();
        connected
    };
    let (supervised, connected) = tokio::join!(embedded.supervise(stop.clone()), command);
    supervised.unwrap();
    connected.unwrap().close().await.unwrap();
    embedded.stop().await.unwrap();
}

/// Not a test of its own: the program that `the_owner_is_killed…` kills.
#[tokio::test]
#[ignore = "run by another test"]
async fn owner_process() {
    let Some(dir) = std::env::var_os(OWNER_DIR) else {
        return;
    };
    let embedded = Embedded::start(settings(Path::new(&dir))).await.unwrap();
    write_row(&embedded).await;
    println!("server {}", embedded.pid().unwrap());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_owner_is_killed_and_the_next_start_has_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let module = module_path!().split_once("::").unwrap().1;
    for round in 1..=2 {
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::owner_process"), "--ignored", "--nocapture"])
            .env(OWNER_DIR, dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let server =
            lines.by_ref().find_map(|line| line.unwrap().split_once("server ").map(|s| s.1.to_owned()));
        assert!(server.is_some());
        owner.kill().unwrap();
        owner.wait().unwrap();
        // At once, while the orphan is still going away.
        let embedded = started(&dir).await;
        assert_eq!(rows(&embedded).await, round);
        embedded.stop().await.unwrap();
    }
}

#[tokio::test]
async fn an_orphaned_server_is_stopped_and_what_lies_in_the_way_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = started(&dir).await;
    write_row(&embedded).await;
    let server = &embedded.server;
    let mut command = child::as_account(&server.binaries.program("postgres"), &server.account, "clear");
    command.args(server.configuration.arguments(&server.place.cluster));
    let (pid_file, socket_lock) =
        (server.place.cluster.join("postmaster.pid"), server.socket_dir.join(".s.PGSQL.5432.lock"));
    let options = embedded.connect_options();
    embedded.stop().await.unwrap();

    // A server that nobody told to end with its parent.
    let mut orphan = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the orphan answers", async || PgConnection::connect_with(&options).await.ok()).await;
    let embedded = started(&dir).await;
    assert_eq!(rows(&embedded).await, 1);
    assert!(orphan.wait().unwrap().success(), "it was asked to stop, not killed");
    embedded.stop().await.unwrap();

    // Nonsense, nothing, and the number of a process that is somebody else (this one).
    for text in ["garbage\n\u{0}\n".to_owned(), String::new(), format!("{}\n/nowhere\n", std::process::id())]
    {
        fs::write(&pid_file, &text).unwrap();
        fs::write(&socket_lock, &text).unwrap();
        let embedded = started(&dir).await;
        assert_eq!(rows(&embedded).await, 1);
        embedded.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_half_made_cluster_is_swept_and_a_strange_folder_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let half = dir.path().join("postgres.making-1");
    fs::create_dir_all(half.join("base")).unwrap();
    let strange = dir.path().join("postgres");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("notes.txt"), "mine").unwrap();
    let refused = Embedded::start(settings(dir.path())).await.err().unwrap();
    assert!(matches!(refused, EmbeddedError::NotACluster { .. }), "{refused}");
    assert_eq!(fs::read_to_string(strange.join("notes.txt")).unwrap(), "mine");

    fs::write(strange.join("PG_VERSION"), "99\n").unwrap();
    let refused = Embedded::start(settings(dir.path())).await.err().unwrap();
    assert!(matches!(refused, EmbeddedError::OtherMajor { wanted: 99, .. }), "{refused}");

    fs::remove_dir_all(&strange).unwrap();
    started(&dir).await.stop().await.unwrap();
    assert!(!half.exists());
}

#[tokio::test]
async fn a_long_or_odd_data_folder_gets_a_short_private_socket_folder() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("a, \"b\" ".repeat(4)).join("x".repeat(90));
    let mut path = dir.path().to_path_buf();
    for part in long.strip_prefix(dir.path()).unwrap() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.push(part);
        fs::create_dir(&path).unwrap();
    }
    let embedded = Embedded::start(settings(&long)).await.unwrap();
    let socket_dir = embedded.server.socket_dir.clone();
    assert!(socket_dir.join(".s.PGSQL.5432").as_os_str().len() <= 107);
    let mode = fs::symlink_metadata(&socket_dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let joined = running(&settings(&long)).await.unwrap().unwrap();
    PgConnection::connect_with(&joined).await.unwrap().close().await.unwrap();
    embedded.stop().await.unwrap();
    fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_folder_root_cannot_share_is_named() {
    let dir = tempfile::tempdir().unwrap();
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let refused = Embedded::start(settings(&closed.join("cloud"))).await.err().unwrap();
    assert!(
        matches!(&refused, EmbeddedError::NotSearchable { blocked, .. } if blocked.ends_with("closed")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_wrong_bin_dir_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { data_dir: dir.path().join("data"), bin_dir: Some(dir.path().to_path_buf()) };
    let refused = Embedded::start(settings).await.err().unwrap();
    assert!(matches!(refused, EmbeddedError::BadBinDir { .. }), "{refused}");
}
