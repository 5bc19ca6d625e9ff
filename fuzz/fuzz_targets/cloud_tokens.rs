#![no_main]

use lumbung_cloud::fuzzing::{google, token};

libfuzzer_sys::fuzz_target!(|claims: &[u8]| {
    token(claims);
    google(claims);
});
