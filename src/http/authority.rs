//! Which host a request may address, and from which site it may come.
//!
//! Invariants
//! - A name that merely resolves to us (DNS rebinding) is not ours: only the public URL's host, a listen literal and `localhost` are.
//! - A page of another origin cannot make a browser use a person's credentials here: any foreign `Origin` is refused, `null` too.

use std::net::{IpAddr, Ipv6Addr};

/// `host` or `host:port` (RFC 3986 section 3.2), without user information.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authority {
    /// Lower case; an IPv6 literal is canonical and bracketed.
    pub host: String,
    /// As given.
    pub port: Option<u16>,
}

impl Authority {
    /// Reads `text`; `None` for anything but a name, an IPv4 or a bracketed IPv6 literal, with or without a port.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None => None,
        };
        let host = match host.strip_prefix('[') {
            Some(literal) => literal_host(IpAddr::V6(literal.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?)),
            None if host.is_empty() || host.len() > 253 => return None,
            None if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) => return None,
            None => host.to_ascii_lowercase(),
        };
        Some(Self { host, port })
    }

    /// Same host and same port, where no port means 443.
    fn same_origin(&self, other: &Self) -> bool {
        self.host == other.host && self.port.unwrap_or(443) == other.port.unwrap_or(443)
    }
}

/// An address as a host: `127.0.0.1`, `[::1]`.
fn literal_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Whether a request addressed to `asked` and received on address `local` is for us.
pub(super) fn is_ours(asked: &Authority, local: IpAddr, public: Option<&Authority>) -> bool {
    asked.host == "localhost" || public.is_some_and(|public| public.host == asked.host) || asked.host == literal_host(local)
}

/// Whether `origin` (the header's value) is the site that `asked` names, or the public URL's.
pub(super) fn is_own_origin(origin: &str, asked: &Authority, public: Option<&Authority>) -> bool {
    origin
        .strip_prefix("https://")
        .and_then(Authority::parse)
        .is_some_and(|origin| origin.same_origin(asked) || public.is_some_and(|public| origin.same_origin(public)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Authority {
        Authority::parse(text).unwrap()
    }

    #[test]
    fn an_authority_is_a_name_or_a_literal_with_or_without_a_port() {
        assert_eq!(authority("Memory.Example:8443"), Authority { host: "memory.example".into(), port: Some(8443) });
        assert_eq!(authority("[0:0::1]:1"), Authority { host: "[::1]".into(), port: Some(1) });
        assert_eq!(authority("[::1]").port, None);
        for bad in [
            "",
            ":1",
            "a b",
            "user@host",
            "host:",
            "host:+1",
            "host:65536",
            "::1",
            "[::1",
            "[::1]x",
            "[x]",
            "a/b",
            "a:1:2",
            "a,b",
            "é",
            "a\0",
        ] {
            assert_eq!(Authority::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_the_public_name_the_listen_literal_and_localhost_are_ours() {
        let (local, public) = ("10.0.0.5".parse().unwrap(), authority("memory.hospital.example:8443"));
        for ours in ["localhost", "LOCALHOST:1", "10.0.0.5:8443", "memory.hospital.example"] {
            assert!(is_ours(&authority(ours), local, Some(&public)), "{ours}");
        }
        for foreign in ["10.0.0.6", "evil.example", "localhost.evil.example", "[::1]"] {
            assert!(!is_ours(&authority(foreign), local, Some(&public)), "{foreign}");
        }
        assert!(is_ours(&authority("[::1]:8443"), "::1".parse().unwrap(), None));
    }

    #[test]
    fn an_origin_is_own_only_with_scheme_host_and_port() {
        let (asked, public) = (authority("localhost:8443"), authority("m.example"));
        assert!(is_own_origin("https://localhost:8443", &asked, Some(&public)));
        assert!(is_own_origin("https://m.example:443", &asked, Some(&public)));
        for foreign in
            ["null", "", "http://localhost:8443", "https://localhost", "https://m.example:1", "https://evil.example", "https://m.example/"]
        {
            assert!(!is_own_origin(foreign, &asked, Some(&public)), "{foreign}");
        }
    }
}
