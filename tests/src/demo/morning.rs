//! What happens at a place on one day: cooked, packed and sent out by the kitchen between six and nine,
//! received and handed out at the schools, containers back after noon. The same place and day always
//! give the same scans, so that a demo started again goes on where it was.

use super::country::{Kind, Site};
use fastrand::Rng;

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Containers that go to one school. They are washed and used again, so their tags stay.
const CONTAINERS: u64 = 14;

/// One tap that will be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tap {
    /// Milliseconds since 1970.
    pub(crate) at_ms: i64,
    pub(crate) tag: String,
    pub(crate) status: &'static str,
    pub(crate) quantity: Option<f64>,
    pub(crate) note: Option<&'static str>,
}

/// The site's own day at a moment, counted from 1970.
pub(crate) fn day_of(site: &Site, at_ms: i64) -> i64 {
    (at_ms + site.hours_east * HOUR).div_euclid(DAY)
}

/// When the site's day begins.
pub(crate) fn midnight(site: &Site, day: i64) -> i64 {
    day * DAY - site.hours_east * HOUR
}

/// Every tap at the site later than `after_ms` and not later than `until_ms`, in order.
pub(crate) fn taps(site: &Site, after_ms: i64, until_ms: i64) -> Vec<Tap> {
    let mut taps: Vec<Tap> = (day_of(site, after_ms)..=day_of(site, until_ms))
        .flat_map(|day| whole_day(site, day))
        .filter(|tap| tap.at_ms > after_ms && tap.at_ms <= until_ms)
        .collect();
    taps.sort_by_key(|tap| tap.at_ms);
    taps
}

/// A tap that could happen at this site at any time of the day.
pub(crate) fn chance_tap(site: &'static Site, at_ms: i64, rng: &mut Rng) -> Tap {
    let (status, home) = match site.kind {
        Kind::Kitchen => {
            let schools: Vec<&Site> = site.schools().collect();
            let school = rng.choice(schools).unwrap_or(site);
            let statuses = ["makanan_dikemas", "makanan_keluar", "makanan_keluar", "wadah_kembali"];
            (rng.choice(statuses).unwrap_or("makanan_keluar"), school)
        }
        Kind::School { .. } => {
            let statuses = ["makanan_diterima", "makanan_diterima", "makanan_dibagikan"];
            (rng.choice(statuses).unwrap_or("makanan_diterima"), site)
        }
        Kind::Warehouse => ("bahan_masuk", site),
    };
    Tap {
        at_ms,
        tag: tag(home, rng.u64(..CONTAINERS)),
        status,
        quantity: (status == "makanan_diterima").then(|| f64::from(rng.u32(20..=30))),
        note: None,
    }
}

/// The tags of the containers that the kitchen sends out.
pub(crate) fn container_tags(kitchen: &Site) -> Vec<String> {
    kitchen.schools().flat_map(|school| (0..CONTAINERS).map(|k| tag(school, k))).collect()
}

fn whole_day(site: &Site, day: i64) -> Vec<Tap> {
    let start = midnight(site, day);
    let mut rng = rng_of(site, day, "place");
    let mut taps = Vec::new();
    match site.kind {
        Kind::Kitchen => {
            for pot in 0..3 {
                let at = start + 4 * HOUR + 45 * MINUTE + pot * 25 * MINUTE + rng.i64(0..10 * MINUTE);
                let portions = f64::from(rng.u32(16..=20) * 10);
                let pot_tag = tag(site, 100 + pot.unsigned_abs());
                taps.push(tap(at, pot_tag, "masak_selesai", Some(portions)));
            }
            for school in site.schools() {
                let delivery = Delivery::of(school, day);
                for container in delivery.containers {
                    let portions = Some(container.portions);
                    taps.push(tap(container.packed, container.tag.clone(), "makanan_dikemas", portions));
                    taps.push(tap(container.out, container.tag.clone(), "makanan_keluar", None));
                    taps.push(tap(container.back, container.tag, "wadah_kembali", None));
                }
            }
        }
        Kind::School { .. } => {
            for container in Delivery::of(site, day).containers {
                let portions = Some(container.portions);
                if container.refused {
                    let refused = tap(container.received, container.tag, "makanan_ditolak", portions);
                    taps.push(Tap { note: Some("Segel wadah rusak"), ..refused });
                    continue;
                }
                taps.push(tap(container.received, container.tag.clone(), "makanan_diterima", portions));
                taps.push(tap(container.handed_out, container.tag, "makanan_dibagikan", portions));
            }
        }
        Kind::Warehouse => {
            for lorry in 0..9 {
                let at = start + 5 * HOUR + lorry * 17 * MINUTE + rng.i64(0..12 * MINUTE);
                let kilograms = f64::from(rng.u32(4..=30) * 25);
                taps.push(tap(at, tag(site, lorry.unsigned_abs()), "bahan_masuk", Some(kilograms)));
            }
        }
    }
    taps
}

fn tap(at_ms: i64, tag: String, status: &'static str, quantity: Option<f64>) -> Tap {
    Tap { at_ms, tag, status, quantity, note: None }
}

/// One day's food for one school: the kitchen and the school tell of the same containers.
struct Delivery {
    containers: Vec<Container>,
}

struct Container {
    tag: String,
    portions: f64,
    packed: i64,
    out: i64,
    received: i64,
    handed_out: i64,
    back: i64,
    refused: bool,
}

impl Delivery {
    fn of(school: &Site, day: i64) -> Self {
        let mut rng = rng_of(school, day, "delivery");
        let start = midnight(school, day);
        let leaves = start + 6 * HOUR + 20 * MINUTE + rng.i64(0..100 * MINUTE);
        let arrives = leaves + rng.i64(20 * MINUTE..45 * MINUTE);
        let eaten = arrives + rng.i64(20 * MINUTE..60 * MINUTE);
        let back = start + 11 * HOUR + 40 * MINUTE + rng.i64(0..80 * MINUTE);
        let mut up_to = |seconds: i64| rng.i64(3_000..1_000 * seconds);
        let containers = (0i64..)
            .zip(0..CONTAINERS)
            .map(|(nth, k)| Container {
                tag: tag(school, k),
                portions: 20.0 + (up_to(14) / 1_000) as f64,
                packed: leaves - 55 * MINUTE + nth * 3 * MINUTE + up_to(90),
                out: leaves + nth * 20_000 + up_to(18),
                received: arrives + nth * 30_000 + up_to(26),
                handed_out: eaten + nth * 2 * MINUTE + up_to(60),
                back: back + nth * 25_000 + up_to(20),
                // About one in sixty.
                refused: up_to(60) < 4_000,
            })
            .collect();
        Self { containers }
    }
}

/// A tag as a 7-byte NFC UID, the same for ever.
fn tag(site: &Site, k: u64) -> String {
    let n = Rng::with_seed(fnv(site.code.bytes().chain(k.to_le_bytes()))).u64(..1 << 48);
    format!("04{n:012X}")
}

fn rng_of(site: &Site, day: i64, what: &str) -> Rng {
    Rng::with_seed(fnv(site.code.bytes().chain(what.bytes()).chain(day.to_le_bytes())))
}

/// FNV-1a: a seed from a name that no other version of anything can change.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::super::country::SITES;
    use super::*;
    use std::collections::HashSet;

    /// 21 November 2026.
    const TODAY: i64 = 20_778;

    #[test]
    fn a_day_told_in_pieces_is_the_same_day() {
        for site in SITES {
            let start = midnight(site, TODAY) - 1;
            let whole = taps(site, start, start + DAY);
            assert!(!whole.is_empty(), "{}", site.code);
            let mut pieces = Vec::new();
            for hour in 0..24 {
                pieces.extend(taps(site, start + hour * HOUR, start + (hour + 1) * HOUR));
            }
            assert_eq!(whole, pieces);
        }
    }

    #[test]
    fn food_leaves_between_six_and_nine_and_arrives_after_it_left() {
        let mut received = 0;
        for kitchen in SITES.iter().filter(|site| site.kind == Kind::Kitchen) {
            let start = midnight(kitchen, TODAY);
            let sent: Vec<Tap> = taps(kitchen, start, start + DAY)
                .into_iter()
                .filter(|tap| tap.status == "makanan_keluar")
                .collect();
            assert!(sent.iter().all(|tap| (start + 6 * HOUR..start + 9 * HOUR).contains(&tap.at_ms)));
            for school in kitchen.schools() {
                for arrived in taps(school, start, start + DAY) {
                    let left = sent.iter().find(|tap| tap.tag == arrived.tag).unwrap();
                    assert!(left.at_ms < arrived.at_ms);
                    received += 1;
                }
            }
        }
        assert!(received > 150, "{received}");
    }

    #[test]
    fn tags_are_seven_byte_uids_and_no_two_containers_share_one() {
        let tags: Vec<String> = SITES.iter().flat_map(container_tags).collect();
        assert!(tags.iter().all(|tag| tag.len() == 14
            && tag.starts_with("04")
            && tag.bytes().all(|b| b.is_ascii_hexdigit())));
        assert_eq!(tags.iter().collect::<HashSet<_>>().len(), tags.len());
    }
}
