//! Which addresses the control plane may connect to on behalf of clients.

use cidr::{AnyIpCidr, IpCidr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// The address is private, and not in an allowed network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Rejected IP")]
pub struct Rejected;

/// Allows public addresses, and those of the allowed networks.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Every address is allowed.
    is_open: bool,
    allowed: Vec<IpCidr>,
}

impl Policy {
    /// Allows networks besides public addresses; `any` among them allows every address.
    #[must_use]
    pub fn new(networks: &[AnyIpCidr]) -> Self {
        Self {
            is_open: networks.contains(&AnyIpCidr::Any),
            allowed: networks.iter().filter_map(|network| Option::<IpCidr>::from(*network)).collect(),
        }
    }

    /// Checks a URL whose host is an address. A host name is checked when it is resolved.
    ///
    /// # Errors
    /// The address is refused.
    pub fn check_url(&self, url: &Url) -> Result<(), Rejected> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(address.into()),
            Some(Host::Ipv6(address)) => self.check(address.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    /// Checks an address. An IPv4-mapped IPv6 address is checked as the IPv4 address that it stands for.
    ///
    /// # Errors
    /// The address is refused.
    pub fn check(&self, address: IpAddr) -> Result<(), Rejected> {
        let address = address.to_canonical();
        let is_global = match address {
            IpAddr::V4(address) => is_global_4(address),
            IpAddr::V6(address) => is_global_6(address),
        };
        let is_allowed = || self.allowed.iter().any(|network| network.contains(&address));
        if self.is_open || is_global || is_allowed() { Ok(()) } else { Err(Rejected) }
    }
}

/// The standard library's `Ipv4Addr::is_global`, which is not stable.
fn is_global_4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let is_this_network = a == 0;
    let is_shared = a == 100 && b & 0b1100_0000 == 0b0100_0000;
    // 192.0.0.9 and 192.0.0.10 are globally reachable.
    let is_protocol_assignment = [a, b, c] == [192, 0, 0] && d != 9 && d != 10;
    let is_benchmarking = a == 198 && b & 0xfe == 18;
    let is_reserved = a & 240 == 240;
    !(is_this_network
        || address.is_private()
        || is_shared
        || address.is_loopback()
        || address.is_link_local()
        || is_protocol_assignment
        || address.is_documentation()
        || is_benchmarking
        || is_reserved
        || address.is_broadcast())
}

/// The standard library's `Ipv6Addr::is_global`, which is not stable.
fn is_global_6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let is_mapped = matches!(segments, [0, 0, 0, 0, 0, 0xffff, ..]);
    let is_translated = matches!(segments, [0x64, 0xff9b, 1, ..]);
    let is_discarded = matches!(segments, [0x100, 0, 0, 0, ..]);
    // 2001::/23, except the assignments that are globally reachable: two anycast addresses, AMT, AS112, ORCHIDv2, DRIP.
    let is_reachable_assignment = matches!(
        segments,
        [0x2001, 1, 0, 0, 0, 0, 0, 1 | 2]
            | [0x2001, 3, ..]
            | [0x2001, 4, 0x112, ..]
            | [0x2001, 0x20..=0x3f, ..]
    );
    let is_protocol_assignment = matches!(segments, [0x2001, 0..0x200, ..]) && !is_reachable_assignment;
    let is_6to4 = matches!(segments, [0x2002, ..]);
    let is_documentation = matches!(segments, [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..]);
    let is_segment_routing = matches!(segments, [0x5f00, ..]);
    !(address.is_unspecified()
        || address.is_loopback()
        || is_mapped
        || is_translated
        || is_discarded
        || is_protocol_assignment
        || is_6to4
        || is_documentation
        || is_segment_routing
        || address.is_unique_local()
        || address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(networks: &[&str]) -> Policy {
        Policy::new(&networks.iter().map(|network| network.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn private_addresses_are_refused_and_public_ones_are_not() {
        let policy = policy(&[]);
        for private in [
            "127.0.0.1",
            "127.255.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002::1",
            "3fff::1",
            "5f00::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert_eq!(policy.check(private.parse().unwrap()), Err(Rejected), "{private}");
        }
        for public in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.0.9",
            "198.20.0.1",
            "2606:4700::1111",
            "2001:1::1",
            "2001:20::1",
            "2001:200::1",
            "::ffff:1.1.1.1",
        ] {
            assert_eq!(policy.check(public.parse().unwrap()), Ok(()), "{public}");
        }
    }

    #[test]
    fn networks_are_exceptions() {
        let policy = policy(&["127.0.0.0/8", "fd00::/8", "10.0.0.7"]);
        for allowed in ["127.0.0.1", "::ffff:127.0.0.1", "fd00::1", "10.0.0.7", "1.1.1.1"] {
            assert_eq!(policy.check(allowed.parse().unwrap()), Ok(()), "{allowed}");
        }
        for refused in ["10.0.0.8", "::1", "192.168.0.1"] {
            assert_eq!(policy.check(refused.parse().unwrap()), Err(Rejected), "{refused}");
        }
        let open = self::policy(&["10.0.0.0/8", "any"]);
        assert_eq!(open.check("::1".parse().unwrap()), Ok(()));
    }
}
