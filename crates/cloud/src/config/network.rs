//! A range of addresses, as people write it: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::net::IpAddr;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// As IPv6, where each IPv4 address has its place too.
    base: u128,
    mask: u128,
}

impl Network {
    pub fn holds(&self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.base
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither an address nor a network such as 10.0.0.0/8");
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (whole, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let length = length.map_or(Ok(whole), |length| length.parse().map_err(|_| wrong()))?;
        if length > whole {
            return Err(wrong());
        }
        let mask = u128::MAX.checked_shl(128 - before - length).unwrap_or(0);
        let base = bits(address);
        // Bits beyond the mask are more likely a slip than meant.
        if base & !mask != 0 {
            return Err(format!("{text:?} has bits set beyond its length"));
        }
        Ok(Self { base, mask })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("127.0.0.0/8", "127.255.0.1", "128.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
        ] {
            let known: Network = network.parse().unwrap();
            assert!(known.holds(inside.parse().unwrap()), "{network} {inside}");
            assert!(!known.holds(outside.parse().unwrap()), "{network} {outside}");
        }
        let everything: Network = "::/0".parse().unwrap();
        assert!(everything.holds("203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_said() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/x", "10.0.0.1/8", "::/129", "localhost", "10.0.0.0/8/8"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
