#![no_main]

use lumbung_cloud::fuzzing::{json, sent};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    sent(body, 1 << 20);
    if let Ok(text) = str::from_utf8(body) {
        json(text);
    }
});
