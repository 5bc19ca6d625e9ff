#![no_main]

use lumbung_gateway::capture::mqtt::{MqttMaps, must_hold};
use std::sync::LazyLock;

/// As documents have them: a plain number, and several fields of one payload with the device's own time.
static MAPS: LazyLock<MqttMaps> = LazyLock::new(|| {
    let maps = r#"[
        { "topic": "kulkas/{device}/suhu", "fields": [{ "series": "{device}/t", "unit": "Cel", "plausible": [-40, 60] }] },
        { "topic": "zigbee2mqtt/{device}", "time": "/last_seen", "fields": [
            { "pointer": "/temperature", "series": "{device}/t", "unit": "Cel" },
            { "pointer": "/battery/0", "series": "{device}/b", "unit": "V", "scale": 0.001, "offset": 0.5 }] }
    ]"#;
    MqttMaps::parse(&serde_json::from_str::<Vec<_>>(maps).unwrap()).unwrap()
});

// The topic's line, and the payload.
libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    let end = message.iter().position(|byte| *byte == b'\n').unwrap_or(message.len());
    let (topic, payload) = message.split_at(end);
    if let Ok(topic) = str::from_utf8(topic) {
        must_hold(&MAPS, topic, payload.get(1..).unwrap_or_default());
    }
});
