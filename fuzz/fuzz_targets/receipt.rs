#![no_main]

#[path = "../../crates/shared/tests/invariants/mod.rs"]
#[allow(dead_code, reason = "each target drives one of them")]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::receipt(bytes));
