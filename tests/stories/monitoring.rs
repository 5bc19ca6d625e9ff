//! What an operator watches with: alert rules that fire when they should, metrics that keep Prometheus' conventions,
//! dashboards whose every panel has something to ask.

use anyhow::{Context, Result, bail, ensure};
use lumbung_tests::http;
use lumbung_tests::postgres;
use lumbung_tests::programs::{Program, free_port, tool};
use lumbung_tests::story::story;
use lumbung_tests::wait::eventually;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// On PATH, or where scripts/setup.sh unpacks it.
fn of_prometheus(name: &str) -> Result<PathBuf> {
    let unpacked = root().join(".tools/prometheus/usr/bin").join(name);
    let found = tool(name).ok().or_else(|| unpacked.is_file().then_some(unpacked));
    found.with_context(|| format!("{name} is missing: scripts/setup.sh test"))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
    Ok(())
}

#[test]
fn every_alert_fires_for_what_it_is_for_and_is_silent_otherwise() -> Result<()> {
    let promtool = of_prometheus("promtool")?;
    let folder = root().join("deploy/prometheus");
    run(Command::new(&promtool)
        .args(["check", "config", "--syntax-only", "prometheus.yml"])
        .current_dir(&folder))?;
    run(Command::new(&promtool).args(["check", "rules", "lumbung.rules.yml"]).current_dir(&folder))?;
    run(Command::new(&promtool).args(["test", "rules", "lumbung.rules.test.yml"]).current_dir(&folder))?;
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let (rules, tests) = (read("lumbung.rules.yml")?, read("lumbung.rules.test.yml")?);
    let guide = std::fs::read_to_string(root().join("docs/operations.md"))?;
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        ensure!(tests.contains(&format!("name: {alert} fires")), "{alert} has no test");
        ensure!(
            guide.contains(&format!("`{alert}`")),
            "docs/operations.md does not say what to do about {alert}"
        );
    }
    Ok(())
}

/// OpenMetrics as promtool reads it: its older text form, in which a counter's family has its suffix too.
fn older_form(text: &str) -> String {
    let families = |kind: &str| -> BTreeSet<String> {
        let of = |line: &str| Some(line.strip_prefix("# TYPE ")?.strip_suffix(kind)?.trim().to_owned());
        text.lines().filter_map(of).collect()
    };
    let (counters, infos) = (families(" counter"), families(" info"));
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with("# UNIT") && *line != "# EOF") {
        let mut words: Vec<&str> = line.splitn(4, ' ').collect();
        let family = words.get(2).copied().unwrap_or_default().to_owned();
        let suffix = match line.starts_with("# ") {
            true if counters.contains(&family) => "_total",
            true if infos.contains(&family) => "_info",
            _ => "",
        };
        let named = format!("{family}{suffix}");
        if !suffix.is_empty() {
            words[2] = &named;
        }
        if suffix == "_info" && words[1] == "TYPE" {
            words[3] = "gauge";
        }
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out
}

/// The expressions of a dashboard's panels, with their titles.
fn panels(dashboard: &Value) -> Vec<(String, Value)> {
    let all = dashboard["panels"].as_array().cloned().unwrap_or_default();
    let targets = |panel: &Value| panel["targets"].as_array().cloned().unwrap_or_default();
    all.iter().flat_map(|p| targets(p).into_iter().map(|t| (p["title"].to_string(), t))).collect()
}

fn dashboards() -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("deploy/grafana/dashboards"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&path)?;
            found.push(serde_json::from_str(&text).with_context(|| path.display().to_string())?);
        }
    }
    ensure!(found.len() >= 3, "dashboards are missing");
    Ok(found)
}

/// The names of metrics in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let ours = |word: &&str| word.starts_with("lumbung_") || word.starts_with("process_");
    expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(ours)
}

/// Panels that show nothing while nothing has gone wrong.
const EMPTY: [&str; 1] = ["Slowest routes that fail"];

#[test]
fn metrics_keep_the_conventions_and_every_panel_finds_what_it_asks_for() -> Result<()> {
    let (prometheus, promtool) = (of_prometheus("prometheus")?, of_prometheus("promtool")?);
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("development.open_loopback", false);
        cloud.start().await?;
        cloud.furnish().await?;
        let mut gateway = stand.gateway("GW-1", &cloud, &cloud.base()).await?;
        gateway.scan_many("A", 3).await?;
        cloud.must(&["backup", stand.path().join("backups").to_str().context("path")?]).await?;
        let key = cloud.must(&["key", "add", "prometheus", "--scope", "metrics", "--json"]).await?;
        let key: Value = serde_json::from_str(&key)?;
        let key = key["key"].as_str().context("key")?.to_owned();
        assert_eq!(cloud.get("/metrics").await?.status, 401, "anyone may read the metrics");

        let metrics = |url: String, key: Option<&str>| {
            let request = http::client().map(|client| client.get(url));
            let key = key.map(str::to_owned);
            async move {
                let request = request?;
                http::send(match key {
                    Some(key) => request.bearer_auth(key),
                    None => request,
                })
                .await
            }
        };
        let mut known = BTreeSet::new();
        for (url, key) in [(cloud.url("/metrics"), Some(key.as_str())), (gateway.url("/metrics"), None)] {
            let reply = metrics(url.clone(), key).await?;
            assert_eq!(reply.status, 200, "{url}");
            let text = older_form(&reply.text);
            let mut check = Command::new(&promtool)
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            check.stdin.take().context("stdin")?.write_all(text.as_bytes())?;
            let output = check.wait_with_output()?;
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            ensure!(output.status.success() && said.trim().is_empty(), "{url}: {said}\n{text}");
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            known.extend(lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned));
        }

        // Our own configuration, told where this cloud, this gateway and this key are.
        let folder = stand.path().join("prometheus");
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("key"), &key)?;
        std::fs::copy(root().join("deploy/prometheus/lumbung.rules.yml"), folder.join("rules.yml"))?;
        let address = gateway.url("");
        let address = address.trim_start_matches("http://").trim_end_matches('/');
        std::fs::write(folder.join("gateways.yml"), format!("- targets: [\"{address}\"]\n"))?;
        let here = folder.display();
        let config = std::fs::read_to_string(root().join("deploy/prometheus/prometheus.yml"))?
            .replace("/etc/prometheus/lumbung.key", &format!("{here}/key"))
            .replace("/etc/prometheus/lumbung.rules.yml", &format!("{here}/rules.yml"))
            .replace("/etc/prometheus/lumbung-gateways/*.yml", &format!("{here}/gateways.yml"))
            .replace("127.0.0.1:8000", &cloud.address())
            .replace("_interval: 30s", "_interval: 1s");
        std::fs::write(folder.join("prometheus.yml"), config)?;
        let port = free_port()?;
        let mut command = Command::new(&prometheus);
        command
            .arg(format!("--config.file={here}/prometheus.yml"))
            .arg(format!("--storage.tsdb.path={here}/data"))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut server = Program::start("prometheus", &mut command, &stand.log("prometheus"))?;
        let client = http::client()?;
        let query = |expression: String| {
            let url = format!("http://127.0.0.1:{port}/api/v1/query");
            let url = reqwest::Url::parse_with_params(&url, [("query", expression)]);
            let client = client.clone();
            async move { http::send(client.get(url?)).await }
        };
        for job in ["lumbung-cloud", "lumbung-gateway"] {
            eventually("it is scraped", || async {
                let Ok(reply) = query(format!("up{{job=\"{job}\"}} == 1")).await else { return Ok(None) };
                let Ok(answer) = serde_json::from_str::<Value>(&reply.text) else { return Ok(None) };
                Ok(answer["data"]["result"].as_array().is_some_and(|found| !found.is_empty()).then_some(()))
            })
            .await
            .with_context(|| job.to_owned())?;
        }
        let mut asked = 0;
        for dashboard in dashboards()? {
            for (title, target) in panels(&dashboard) {
                let Some(expression) = target["expr"].as_str() else { continue };
                asked += 1;
                for name in names(expression) {
                    ensure!(known.contains(name), "{title} asks for {name}, which nobody tells");
                }
                // Some rates are told only once a second figure is in.
                eventually("a panel shows something", || async {
                    let reply = query(expression.replace("$__rate_interval", "1m")).await?;
                    ensure!(reply.status == 200, "{}", reply.text);
                    let answer: Value = serde_json::from_str(&reply.text)?;
                    let found = answer["data"]["result"].as_array().is_some_and(|found| !found.is_empty());
                    Ok((found || EMPTY.contains(&title.trim_matches('"'))).then_some(()))
                })
                .await
                .with_context(|| format!("{title}: {expression}"))?;
            }
        }
        ensure!(asked >= 10, "only {asked} panels were asked");
        let rules = std::fs::read_to_string(root().join("deploy/prometheus/lumbung.rules.yml"))?;
        // Told only once there was something to tell of: a message, a reader, a certificate of its own.
        let later = [
            "lumbung_cloud_deliveries_total",
            "lumbung_gateway_reader_up",
            "lumbung_cloud_certificate_not_after_timestamp_seconds",
        ];
        for name in names(&rules).filter(|name| !later.contains(name)) {
            ensure!(known.contains(name), "a rule asks for {name}, which nobody tells");
        }
        tokio::task::spawn_blocking(move || server.stop()).await??;
        gateway.stop().await?;
        cloud.stop().await
    })
}

#[test]
fn grafana_reads_counts_and_no_persons_address() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let url = cloud.settings.database_url.clone().context("url")?;
        let mut admin = PgConnection::connect_with(&postgres::admin_of(&url).await?).await?;
        let sql = std::fs::read_to_string(root().join("deploy/postgres/grafana.sql"))?;
        for _ in 0..2 {
            sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut admin).await.context("grafana.sql")?;
        }
        admin.execute("set role lumbung_grafana").await?;
        for secret in [
            "email from app_user",
            "password_hash from app_user",
            "address from delivery",
            "* from access_key",
        ] {
            let refused = sqlx::query(AssertSqlSafe(format!("select {secret}"))).execute(&mut admin).await;
            ensure!(refused.is_err(), "Grafana may read {secret}");
        }
        let mut asked = 0;
        for dashboard in dashboards()? {
            for (title, target) in panels(&dashboard) {
                let Some(sql) = target["rawSql"].as_str() else { continue };
                asked += 1;
                let sql = with_macros(sql)?;
                let ran = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&mut admin).await;
                ran.with_context(|| format!("{title}: {sql}"))?;
            }
        }
        ensure!(asked >= 4, "only {asked} panels were asked");
        Ok(())
    })
}

/// As Grafana writes `$__timeFilter(column)`.
fn with_macros(sql: &str) -> Result<String> {
    let mut out = sql.to_owned();
    while let Some(start) = out.find("$__timeFilter(") {
        let inside = start + "$__timeFilter(".len();
        let Some(end) = out[inside..].find(')').map(|end| inside + end) else { bail!("unclosed: {sql}") };
        let column = out[inside..end].to_owned();
        out.replace_range(start..=end, &format!("{column} between now() - interval '30 days' and now()"));
    }
    Ok(out)
}
