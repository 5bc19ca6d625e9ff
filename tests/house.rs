//! Who may know whom. The tables are ARCHITECTURE.md's; changing one is the moment to think.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module and the modules of its own crate that it may name.
type Table = &'static [(&'static str, &'static [&'static str])];

const CLOUD: Table = &[
    ("config", &[]),
    ("error", &[]),
    ("door", &[]),
    ("finding", &[]),
    ("json", &[]),
    ("metrics", &[]),
    ("moment", &[]),
    ("random", &[]),
    ("sealed", &["random"]),
    ("watchdog", &[]),
    ("database", &["config", "finding"]),
    ("state", &["config", "metrics"]),
    ("page", &["error"]),
    ("guards", &["config", "error", "sealed", "state"]),
    ("tls", &["config", "error", "finding", "guards", "metrics", "state"]),
    ("audit", &["database", "error", "finding", "guards"]),
    ("outside", &["config", "finding"]),
    ("notify", &["audit", "database", "error", "finding", "metrics", "outside", "page", "random", "sealed"]),
    ("places", &["database", "error", "page"]),
    ("files", &["audit", "config", "database", "error", "finding", "guards", "page", "random", "state"]),
    (
        "identity",
        &[
            "audit", "database", "error", "files", "finding", "guards", "json", "notify", "outside", "page",
            "places", "random", "sealed", "state",
        ],
    ),
    ("inbox", &["audit", "error", "guards", "identity", "json", "notify", "outside", "page", "state"]),
    (
        "distribution",
        &["database", "error", "guards", "identity", "metrics", "moment", "page", "places", "state"],
    ),
    ("telemetry", &["database", "error", "identity", "moment", "page", "places", "state"]),
    (
        "ingest",
        &[
            "audit",
            "config",
            "database",
            "distribution",
            "error",
            "finding",
            "identity",
            "json",
            "metrics",
            "moment",
            "page",
            "places",
            "state",
            "telemetry",
        ],
    ),
    ("dashboard", &["database", "distribution", "error", "guards", "identity", "places", "state"]),
    ("backup", &["audit", "config", "database", "files", "finding"]),
    (
        "admin",
        &[
            "audit",
            "distribution",
            "error",
            "files",
            "guards",
            "identity",
            "ingest",
            "json",
            "notify",
            "page",
            "places",
            "state",
        ],
    ),
    (
        "privacy",
        &[
            "audit", "database", "error", "files", "guards", "identity", "json", "metrics", "notify", "page",
            "state",
        ],
    ),
    (
        "jobs",
        &[
            "audit", "config", "error", "files", "finding", "guards", "identity", "metrics", "notify",
            "privacy", "state",
        ],
    ),
    ("health", &["backup", "database", "error", "identity", "ingest", "jobs", "metrics", "privacy", "state"]),
    (
        "openapi",
        &[
            "admin",
            "dashboard",
            "distribution",
            "files",
            "guards",
            "health",
            "identity",
            "inbox",
            "ingest",
            "jobs",
            "privacy",
            "telemetry",
        ],
    ),
    (
        "app",
        &[
            "admin",
            "audit",
            "config",
            "dashboard",
            "database",
            "distribution",
            "door",
            "error",
            "files",
            "guards",
            "health",
            "identity",
            "inbox",
            "ingest",
            "jobs",
            "metrics",
            "notify",
            "openapi",
            "outside",
            "privacy",
            "state",
            "telemetry",
            "tls",
            "watchdog",
        ],
    ),
    (
        "doctor",
        &[
            "audit", "backup", "config", "database", "files", "finding", "identity", "ingest", "jobs",
            "notify", "outside", "tls",
        ],
    ),
    (
        "cli",
        &[
            "app", "audit", "backup", "config", "database", "doctor", "error", "files", "finding",
            "identity", "ingest", "jobs", "metrics", "notify", "page", "places", "privacy", "state",
        ],
    ),
];

const GATEWAY: Table = &[
    ("durable", &[]),
    ("clock", &["durable"]),
    ("board", &["durable"]),
    ("hardware", &[]),
    ("config", &["hardware"]),
    ("identity", &["durable"]),
    ("metrics", &[]),
    ("mutant", &[]),
    ("signing", &["durable"]),
    ("words", &[]),
    ("phones", &["durable"]),
    ("outbox", &["clock", "mutant"]),
    ("sync", &["board", "clock", "config", "hardware", "identity", "metrics", "mutant", "outbox", "signing"]),
    ("watchdog", &["hardware", "outbox", "words"]),
    ("capture", &["clock", "config", "durable", "hardware", "metrics", "outbox", "sync"]),
    ("housekeeping", &["board", "capture", "clock", "outbox", "phones"]),
    ("http", &["board", "capture", "clock", "hardware", "metrics", "outbox", "phones", "sync", "words"]),
    (
        "app",
        &[
            "board",
            "capture",
            "clock",
            "config",
            "hardware",
            "housekeeping",
            "http",
            "identity",
            "metrics",
            "outbox",
            "phones",
            "sync",
            "watchdog",
        ],
    ),
    (
        "cli",
        &["app", "capture", "config", "hardware", "identity", "outbox", "phones", "signing", "sync", "words"],
    ),
];

#[test]
fn the_gateways_modules_know_only_whom_the_table_names() {
    check("gateway", GATEWAY);
}

#[test]
fn the_clouds_modules_know_only_whom_the_table_names() {
    check("cloud", CLOUD);
}

#[test]
fn gateway_and_cloud_never_know_each_other_and_shared_knows_neither() {
    for (program, others) in [
        ("gateway", &["lumbung_cloud"][..]),
        ("cloud", &["lumbung_gateway"]),
        ("shared", &["lumbung_cloud", "lumbung_gateway"]),
    ] {
        for (file, text) in sources(program) {
            for other in others {
                assert!(!text.contains(other), "{} names {other}", file.display());
            }
        }
    }
}

#[test]
fn only_the_outbox_knows_sqlite_and_only_sync_speaks_http_to_the_cloud() {
    for (file, text) in sources("gateway") {
        let name = file.to_string_lossy();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let (outbox, sync) = (name.starts_with("src/outbox/"), name.starts_with("src/sync/"));
        assert!(outbox || name.contains("tests") || !code.contains("rusqlite"), "{name} uses SQLite");
        assert!(
            sync || name.contains("tests") || !code.contains("Client::builder"),
            "{name} is an HTTP client"
        );
    }
}

#[test]
fn bodies_are_read_by_the_clouds_own_json_and_no_array_passes_for_an_object() {
    for (file, text) in sources("cloud") {
        let own = file.ends_with("json.rs");
        let text = text.replace("web::JsonConfig", "");
        assert!(own || !text.contains("web::Json"), "{}: take crate::json::Json", file.display());
    }
}

#[test]
fn statements_with_filters_that_may_be_left_out_are_planned_anew() {
    for (file, text) in sources("cloud") {
        for statement in text.split("sqlx::query").skip(1) {
            let Some((words, fetched)) = statement.split_once(".fetch_") else { continue };
            let is_filter = |before: &str| {
                let (value, of) = before.rsplit_once("::").unwrap_or_default();
                value.ends_with(|c: char| c.is_ascii_digit()) && !of.contains(|c: char| " .)".contains(c))
            };
            let has_filters = words.match_indices(" is null or ").any(|(at, _)| is_filter(&words[..at]));
            let anew = fetched.split_once('(').is_some_and(|(_, how)| how.starts_with("anew("));
            assert!(anew || !has_filters, "{}: .fetch_{}", file.display(), fetched.lines().next().unwrap());
        }
    }
}

#[test]
fn no_room_has_a_name_that_attracts_anything() {
    for program in ["shared", "gateway", "cloud"] {
        for (file, _) in sources(program) {
            for part in file.iter().filter_map(|part| part.to_str()) {
                let part = part.trim_end_matches(".rs");
                let bad = ["common", "utils", "util", "helpers", "core", "manager", "service"];
                assert!(!bad.contains(&part), "{}", file.display());
            }
        }
    }
}

/// Fails when a module is missing from the table, names one that its row does not, or the table has a circle.
fn check(program: &str, table: Table) {
    let known: BTreeMap<&str, &[&str]> = table.iter().copied().collect();
    for (at, (module, _)) in table.iter().enumerate() {
        for friend in known[module] {
            let before = table[..at].iter().any(|(earlier, _)| earlier == friend);
            assert!(before, "the table of {program} has {module} name {friend}, which stands below it");
        }
    }
    let mut wrong = BTreeSet::new();
    for (file, text) in sources(program) {
        let module = module_of(&file);
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = known.get(module.as_str()) else {
            wrong.insert(format!("{module} is not in the table"));
            continue;
        };
        for friend in named_modules(&text).filter(|friend| known.contains_key(friend.as_str())) {
            if friend != module && !allowed.contains(&friend.as_str()) {
                wrong.insert(format!("{module} names {friend} in {}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{program}:\n{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

/// The modules that a file names with `crate::module` or `crate::{module, …}`.
fn named_modules(text: &str) -> impl Iterator<Item = String> + '_ {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    text.match_indices("crate::").flat_map(move |(at, found)| {
        let rest = &text[at + found.len()..];
        match rest.strip_prefix('{') {
            // The first word of each entry of the outer braces.
            Some(list) => {
                let mut depth = 0;
                let mut entries = vec![String::new()];
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => entries.push(String::new()),
                        other => entries.last_mut().unwrap().push(other),
                    }
                }
                entries.iter().map(|entry| word(entry.trim())).collect::<Vec<_>>()
            }
            None => vec![word(rest)],
        }
    })
}

fn module_of(file: &Path) -> String {
    let first = file.iter().skip_while(|part| *part != "src").nth(1).unwrap();
    Path::new(first).file_stem().unwrap().to_str().unwrap().to_owned()
}

fn sources(program: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crates").join(program);
    let mut found = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources of {program}");
    found
}
