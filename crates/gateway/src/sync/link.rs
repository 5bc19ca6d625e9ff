//! Notices when the network comes back, so that a back-off need not be sat out.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};

/// A number for the default routes there are now; `None` while there is none.
pub(super) fn default_routes() -> Option<u64> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    fingerprint(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
}

fn fingerprint(v4: &str, v6: &str) -> Option<u64> {
    const NOWHERE: &str = "00000000000000000000000000000000";
    let mut hasher = DefaultHasher::new();
    let mut routes = 0;
    // Interface, destination, gateway, …
    for line in v4.lines().skip(1) {
        let mut fields = line.split_ascii_whitespace();
        if let (Some(interface), Some("00000000"), Some(gateway)) =
            (fields.next(), fields.next(), fields.next())
        {
            (interface, gateway).hash(&mut hasher);
            routes += 1;
        }
    }
    // Destination, its length, source, its length, next hop, …, interface.
    for line in v6.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [NOWHERE, "00", _, _, hop, .., interface] = fields.as_slice()
            && *interface != "lo"
        {
            (interface, hop).hash(&mut hasher);
            routes += 1;
        }
    }
    (routes > 0).then(|| hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";

    #[test]
    fn only_a_default_route_is_a_link_and_another_one_is_another_link() {
        assert_eq!(fingerprint(HEAD, ""), None);
        let local = format!("{HEAD}eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n");
        assert_eq!(fingerprint(&local, ""), None);
        let wifi = format!("{HEAD}wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\n");
        let modem = format!("{HEAD}wwan0\t00000000\t0102A8C0\t0003\t0\t0\t700\t00000000\n");
        assert!(fingerprint(&wifi, "").is_some());
        assert_ne!(fingerprint(&wifi, ""), fingerprint(&modem, ""));
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n";
        assert!(fingerprint(HEAD, v6).is_some());
        let loopback = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n";
        assert_eq!(fingerprint(HEAD, loopback), None);
    }
}
