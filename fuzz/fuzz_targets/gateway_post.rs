#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| lumbung_gateway::http::must_hold(body));
