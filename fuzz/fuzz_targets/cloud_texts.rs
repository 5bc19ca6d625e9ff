#![no_main]

use lumbung_cloud::config::Config;
use lumbung_cloud::fuzzing::{cursor, headers, path};
use std::sync::LazyLock;

static CONFIG: LazyLock<Config> = LazyLock::new(|| Config::load(None).unwrap());

libfuzzer_sys::fuzz_target!(|text: &str| {
    cursor(text);
    path(text);
    headers(text, &CONFIG);
});
