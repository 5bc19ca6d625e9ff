#![no_main]

use lumbung_cloud::fuzzing::picture;

libfuzzer_sys::fuzz_target!(|sent: &[u8]| picture(sent));
