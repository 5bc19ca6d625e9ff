#![no_main]

#[path = "../../crates/shared/tests/invariants/mod.rs"]
#[allow(dead_code, reason = "each target drives one of them")]
mod invariants;

libfuzzer_sys::fuzz_target!(|text: &str| invariants::texts(text));
