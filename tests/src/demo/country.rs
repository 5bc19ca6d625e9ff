//! A dozen places across Indonesia's three time zones. Towns are real; kitchens, schools and the
//! warehouse are invented.

/// What is done at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kitchen,
    /// Eats what this kitchen cooks.
    School {
        kitchen: &'static str,
    },
    Warehouse,
}

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) code: &'static str,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) time_zone: &'static str,
    /// Indonesia keeps no summer time.
    pub(crate) hours_east: i64,
}

pub(crate) const PROGRAMME: (&str, &str) = ("MBG", "Makan Bergizi Gratis");
/// Where the real gateway of the demo stands, and what it is called.
pub(crate) const OWN_SITE: &str = "DAPUR-CEMPAKA";
pub(crate) const OWN_GATEWAY: &str = "GW-LAPTOP";
/// The place whose signal is too weak for more than a sign of life now and then.
pub(crate) const FAR_SITE: &str = "SMP-TEPIAN";

pub(crate) const SITES: &[Site] = &[
    kitchen("DAPUR-CEMPAKA", "Dapur Cempaka, Sleman", "Asia/Jakarta", 7),
    school("SD-MELATI", "SD Melati Harapan, Sleman", "DAPUR-CEMPAKA", "Asia/Jakarta", 7),
    school("SMP-KENANGA", "SMP Kenanga Jaya, Bantul", "DAPUR-CEMPAKA", "Asia/Jakarta", 7),
    kitchen("DAPUR-KENARI", "Dapur Kenari, Pontianak", "Asia/Pontianak", 7),
    school("SD-LINTANG", "SD Lintang Pagi, Pontianak", "DAPUR-KENARI", "Asia/Pontianak", 7),
    school("SMP-TEPIAN", "SMP Tepian Sungai, Kubu Raya", "DAPUR-KENARI", "Asia/Pontianak", 7),
    kitchen("DAPUR-JEPUN", "Dapur Jepun, Denpasar", "Asia/Makassar", 8),
    school("SD-GUMITIR", "SD Gumitir Indah, Gianyar", "DAPUR-JEPUN", "Asia/Makassar", 8),
    school("SMA-TUNJUNG", "SMA Tunjung Mekar, Denpasar", "DAPUR-JEPUN", "Asia/Makassar", 8),
    Site {
        code: "GUDANG-PADI",
        name: "Gudang Padi Makmur, Makassar",
        kind: Kind::Warehouse,
        time_zone: "Asia/Makassar",
        hours_east: 8,
    },
    kitchen("DAPUR-MATOA", "Dapur Matoa, Sentani", "Asia/Jayapura", 9),
    school("SD-KELAPA", "SD Kelapa Muda, Sentani", "DAPUR-MATOA", "Asia/Jayapura", 9),
    school("SMP-FAJAR", "SMP Fajar Timur, Abepura", "DAPUR-MATOA", "Asia/Jayapura", 9),
];

impl Site {
    /// The code of the simulated gateway that stands here.
    pub(crate) fn gateway(&self) -> String {
        format!("GW-{}", self.code)
    }

    /// As the cloud's command line calls it.
    pub(crate) fn kind_word(&self) -> &'static str {
        match self.kind {
            Kind::Kitchen => "kitchen",
            Kind::School { .. } => "school",
            Kind::Warehouse => "warehouse",
        }
    }

    /// The schools that this kitchen cooks for.
    pub(crate) fn schools(&self) -> impl Iterator<Item = &'static Site> + use<'_> {
        SITES.iter().filter(|site| matches!(site.kind, Kind::School { kitchen } if kitchen == self.code))
    }
}

const fn kitchen(code: &'static str, name: &'static str, time_zone: &'static str, hours_east: i64) -> Site {
    Site { code, name, kind: Kind::Kitchen, time_zone, hours_east }
}

const fn school(
    code: &'static str,
    name: &'static str,
    kitchen: &'static str,
    time_zone: &'static str,
    hours_east: i64,
) -> Site {
    Site { code, name, kind: Kind::School { kitchen }, time_zone, hours_east }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_school_has_a_kitchen_in_its_own_time_zone_and_every_code_is_unique() {
        for site in SITES {
            assert_eq!(SITES.iter().filter(|other| other.code == site.code).count(), 1);
            if let Kind::School { kitchen } = site.kind {
                let kitchen = SITES.iter().find(|other| other.code == kitchen).unwrap();
                assert_eq!(kitchen.kind, Kind::Kitchen);
                assert_eq!(kitchen.time_zone, site.time_zone);
            }
        }
        assert!(
            SITES.iter().any(|site| site.code == OWN_SITE) && SITES.iter().any(|site| site.code == FAR_SITE)
        );
    }
}
