#![no_main]

libfuzzer_sys::fuzz_target!(|wire: &[u8]| lumbung_gateway::hardware::pn532::must_hold(wire));
