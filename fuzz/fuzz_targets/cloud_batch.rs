#![no_main]

use lumbung_cloud::fuzzing::batch;

libfuzzer_sys::fuzz_target!(|body: &[u8]| batch(body));
