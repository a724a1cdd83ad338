//! Addresses: which of them a listed name may lead to. Pure.
//!
//! Invariants
//! - Every address of a name must pass, or none is used: a name that leads both inside and outside is a name that somebody plays with.
//! - Addresses that mean a link, a group or nothing at all are never connected to (among them the metadata services of clouds).
//! - An IPv4 address in the clothes of an IPv6 one is judged as what it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether it is of this site: loopback, private (RFC 1918), or unique local (RFC 4193).
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// Whether it may be connected to at all.
fn is_host(address: IpAddr) -> bool {
    match address.to_canonical() {
        // "This network", link-local, multicast, reserved and broadcast (RFC 6890).
        IpAddr::V4(v4) => !(v4.octets()[0] == 0 || v4.is_link_local() || v4.is_multicast() || v4 >= Ipv4Addr::new(240, 0, 0, 0)),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast() || hides_another(v6)),
    }
}

/// Forms that carry an IPv4 address to somebody else's translator: NAT64 (RFC 6052, RFC 8215), 6to4, Teredo, and IPv4-compatible.
fn hides_another(v6: Ipv6Addr) -> bool {
    let parts = v6.segments();
    let compatible = parts[..6] == [0; 6] && !v6.is_loopback();
    compatible || parts[..2] == [0x64, 0xff9b] || parts[0] == 0x2002 || parts[..2] == [0x2001, 0]
}

/// Whether all of `addresses`, at least one, may be connected to: private ones if `internal`.
pub fn are_allowed(addresses: &[IpAddr], internal: bool) -> bool {
    !addresses.is_empty() && addresses.iter().all(|address| is_host(*address) && (!internal || is_private(*address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(addresses: &[&str], internal: bool) -> bool {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        are_allowed(&addresses, internal)
    }

    #[test]
    fn inside_is_loopback_private_and_unique_local() {
        for inside in [
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "::1",
            "fc00::1",
            "fdff::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(allowed(&[inside], true) && allowed(&[inside], false), "{inside}");
        }
        for outside in [
            "8.8.8.8",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "11.0.0.0",
            "100.64.0.1",
            "192.0.2.1",
            "2606:4700::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!allowed(&[outside], true) && allowed(&[outside], false), "{outside}");
        }
    }

    #[test]
    fn what_is_no_host_is_never_connected_to() {
        for never in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2002:a00:1::1",
            "2001:0:1::1",
            "::10.0.0.1",
        ] {
            assert!(!allowed(&[never], true) && !allowed(&[never], false), "{never}");
        }
    }

    #[test]
    fn one_bad_address_spoils_a_name() {
        assert!(allowed(&["10.0.0.1", "fd00::1"], true));
        assert!(!allowed(&["10.0.0.1", "8.8.8.8"], true));
        assert!(!allowed(&["8.8.8.8", "169.254.169.254"], false));
        assert!(!allowed(&[], true) && !allowed(&[], false));
    }
}
