//! Resolving: from a listed host to its addresses, by `/etc/hosts`, then by the name servers of `/etc/resolv.conf`.
//!
//! A resolver of our own, since the system's loads what its settings name into the process: no plugins, no search lists, no cache, so that an
//! address is never older than the request that uses it. UDP alone (RFC 1035); an answer that does not fit is refused, not asked for again.
//!
//! Invariants
//! - A socket speaks to the one server that it is connected to; an answer counts if it repeats the number and the question that were sent.
//! - Reading an answer ends: names are at most 255 bytes, and a pointer in one leads backwards.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

use crate::base::{limits, rng};

/// Where names are looked up.
#[derive(Clone, Debug)]
pub struct Names {
    hosts: PathBuf,
    servers: PathBuf,
    port: u16,
}

impl Names {
    /// As the system is set up.
    pub fn system() -> Self {
        Self { hosts: "/etc/hosts".into(), servers: "/etc/resolv.conf".into(), port: 53 }
    }

    /// The addresses of `host`: a name, or an IP literal (IPv6 in brackets), in lower case. `None` if it leads nowhere.
    pub fn lookup(&self, host: &str) -> Option<Vec<IpAddr>> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(literal) = bare.parse() {
            return Some(vec![literal]);
        }
        let found = in_hosts(&contents(&self.hosts), host);
        if !found.is_empty() {
            return Some(found);
        }
        let servers = self.servers();
        for _ in 0..limits::NAME_ROUNDS_MAX {
            for server in &servers {
                match self.both(*server, host) {
                    Some(found) if found.is_empty() => return None,
                    Some(found) => return Some(found),
                    None => {}
                }
            }
        }
        None
    }

    /// The name servers.
    pub fn servers(&self) -> Vec<IpAddr> {
        let text = contents(&self.servers);
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok());
        lines.take(limits::NAME_SERVERS_MAX).collect()
    }

    /// What `server` knows of `host`, of both kinds; `None` if it gives no proper answer to one of the questions.
    fn both(&self, server: IpAddr, host: &str) -> Option<Vec<IpAddr>> {
        let mut all = ask(SocketAddr::new(server, self.port), host, Kind::V4)?;
        all.extend(ask(SocketAddr::new(server, self.port), host, Kind::V6)?);
        (all.len() <= limits::NAME_ADDRESSES_MAX).then_some(all)
    }
}

fn contents(path: &PathBuf) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limits::NAME_FILE_BYTES_MAX).read_to_end(&mut text));
    read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}

/// The addresses of `host` in a table of hosts (hosts(5)).
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let found = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    found.take(limits::NAME_ADDRESSES_MAX + 1).collect()
}

/// The kind of address that is asked for: its type in RFC 1035 and RFC 3596.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A
    V4 = 1,
    /// AAAA
    V6 = 28,
}

const CNAME: u16 = 5;
const INTERNET: u16 = 1;

/// Why a packet is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// To another question, or none at all: a later packet may be the answer.
    Other,
    /// An answer that says nothing: another server may know.
    Failed,
}

/// The question for addresses of `kind` of `host` (RFC 1035 section 4.1). `None` for what cannot be a name there.
pub fn question(id: u16, host: &str, kind: Kind) -> Option<Vec<u8>> {
    // Recursion is desired; one question.
    let mut packet = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in host.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        packet.push(length);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, kind as u8, 0, 1]);
    (packet.len() <= 12 + 255 + 4).then_some(packet)
}

/// The addresses in `packet`, which must answer `asked`. An empty list: there is no such name, or no address of this kind.
pub fn answers(packet: &[u8], asked: &[u8]) -> Result<Vec<IpAddr>, Bad> {
    let (Some(head), Some(sent)) = (packet.first_chunk::<12>(), asked.first_chunk::<12>()) else { return Err(Bad::Other) };
    let echoes = head[..2] == sent[..2] && head[2] & 0xf8 == 0x80 && head[4..6] == [0, 1];
    let question = packet.get(12..asked.len()).filter(|question| question.eq_ignore_ascii_case(&asked[12..]));
    if !echoes || question.is_none() {
        return Err(Bad::Other);
    }
    // Truncated, or neither "no error" nor "no such name".
    if head[2] & 2 != 0 || !matches!(head[3] & 0x0f, 0 | 3) {
        return Err(Bad::Failed);
    }
    let kind = u16::from_be_bytes([asked[asked.len() - 4], asked[asked.len() - 3]]);
    let count = u16::from_be_bytes([head[6], head[7]]);
    let mut aliases = vec![name_at(packet, 12).ok_or(Bad::Failed)?.0];
    let (mut at, mut found) = (asked.len(), Vec::new());
    for _ in 0..count {
        let (owner, after) = name_at(packet, at).ok_or(Bad::Failed)?;
        let &[t0, t1, c0, c1, _, _, _, _, l0, l1] = packet.get(after..).and_then(|rest| rest.first_chunk::<10>()).ok_or(Bad::Failed)?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let data = packet.get(after + 10..after + 10 + length).ok_or(Bad::Failed)?;
        let (record, class) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
        if class == INTERNET && aliases.contains(&owner) {
            match (record, data) {
                (CNAME, _) => aliases.push(name_at(packet, after + 10).ok_or(Bad::Failed)?.0),
                (1, &[a, b, c, d]) if kind == record => found.push(Ipv4Addr::new(a, b, c, d).into()),
                (28, data) if kind == record => found.push(Ipv6Addr::from(<[u8; 16]>::try_from(data).map_err(|_| Bad::Failed)?).into()),
                _ => {}
            }
        }
        at = after + 10 + length;
    }
    if found.len() > limits::NAME_ADDRESSES_MAX { Err(Bad::Failed) } else { Ok(found) }
}

/// The name at `at` in lower case, each label after its length, and where what follows it begins.
fn name_at(packet: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut after, mut before) = (Vec::new(), None, at);
    loop {
        let length = *packet.get(at)?;
        match length {
            0 => return Some((name, after.unwrap_or(at + 1))),
            1..=63 => {
                let label = packet.get(at + 1..at + 1 + usize::from(length))?;
                name.push(length);
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                at += 1 + usize::from(length);
                if name.len() > 254 {
                    return None;
                }
            }
            0xc0..=0xff => {
                let to = usize::from(u16::from_be_bytes([length & 0x3f, *packet.get(at + 1)?]));
                after = after.or(Some(at + 2));
                // Backwards alone, so that it ends.
                if to >= before {
                    return None;
                }
                (at, before) = (to, to);
            }
            _ => return None,
        }
    }
}

/// What `server` answers; `None` if it does not, in time or at all.
#[allow(clippy::disallowed_methods, reason = "the relay's own process: a datagram socket that speaks to one name server")]
fn ask(server: SocketAddr, host: &str, kind: Kind) -> Option<Vec<IpAddr>> {
    let asked = question(u16::from_be_bytes(rng::array()), host, kind)?;
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(ipproto::UDP)).ok()?;
    rustix::net::connect(&socket, &server).ok()?;
    rustix::net::send(&socket, &asked, SendFlags::empty()).ok()?;
    let end = Instant::now() + limits::NAME_TIME_MAX;
    let mut packet = [0; limits::NAME_ANSWER_BYTES_MAX];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(left)).ok()?;
        let (length, _) = rustix::net::recv(&socket, &mut packet, RecvFlags::empty()).ok()?;
        match answers(&packet[..length], &asked) {
            Ok(found) => return Some(found),
            Err(Bad::Failed) => return None,
            Err(Bad::Other) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// A resource record with the name at byte 12.
    fn record(kind: u16, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap();
        [&[0xc0, 12][..], &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &length.to_be_bytes(), data].concat()
    }

    /// The answer to `asked` with these records.
    fn reply(asked: &[u8], code: u8, records: &[Vec<u8>]) -> Vec<u8> {
        let mut packet = asked.to_vec();
        (packet[2], packet[3], packet[7]) = (0x81, 0x80 | code, u8::try_from(records.len()).unwrap());
        packet.extend(records.concat());
        packet
    }

    #[test]
    fn an_answer_gives_its_addresses_through_aliases_and_no_others() {
        let asked = question(7, "llm.example", Kind::V4).unwrap();
        let plain = reply(&asked, 0, &[record(1, &[10, 0, 0, 5]), record(1, &[10, 0, 0, 6]), record(28, &[1; 16])]);
        assert_eq!(answers(&plain, &asked), Ok(vec!["10.0.0.5".parse().unwrap(), "10.0.0.6".parse().unwrap()]));
        // llm.example is gpu.example (its end by a pointer to "example"), which has an address; other.example's is not ours.
        let alias = record(CNAME, &[3, b'g', b'p', b'u', 0xc0, 16]);
        let gpu = [&[3, b'G', b'p', b'u', 0xc0, 16][..], &[0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 9, 9, 9]].concat();
        let other = [&[1, b'x', 0xc0, 16][..], &[0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 8, 8, 8, 8]].concat();
        assert_eq!(answers(&reply(&asked, 0, &[alias, other, gpu]), &asked), Ok(vec!["10.9.9.9".parse().unwrap()]));
        assert_eq!(answers(&reply(&asked, 3, &[]), &asked), Ok(vec![]));
        let asked = question(7, "llm.example", Kind::V6).unwrap();
        assert_eq!(answers(&reply(&asked, 0, &[record(28, &[0xfd; 16]), record(1, &[1; 4])]), &asked).unwrap().len(), 1);
    }

    #[test]
    fn what_answers_another_question_is_passed_over_and_a_failure_is_one() {
        let asked = question(7, "llm.example", Kind::V4).unwrap();
        let good = reply(&asked, 0, &[record(1, &[10, 0, 0, 5])]);
        let bent = |at: usize, to: u8| {
            let mut packet = good.clone();
            packet[at] = to;
            packet
        };
        for (at, to) in [(1, 8), (2, 0x01), (2, 0x89), (5, 2), (13, b'x'), (asked.len() - 3, 28)] {
            assert_eq!(answers(&bent(at, to), &asked), Err(Bad::Other), "{at}");
        }
        assert_eq!(answers(&bent(14, b'L'), &asked).unwrap().len(), 1, "names have no case");
        for packet in [bent(2, 0x83), bent(3, 0x82), bent(3, 0x85), bent(7, 2), bent(asked.len() + 1, 0xff)] {
            assert_eq!(answers(&packet, &asked), Err(Bad::Failed));
        }
        for cut in 0..good.len() {
            assert!(answers(&good[..cut], &asked).is_err(), "{cut}");
        }
        let many: Vec<_> = (0..17).map(|n| record(1, &[10, 0, 0, n])).collect();
        assert_eq!(answers(&reply(&asked, 0, &many), &asked), Err(Bad::Failed));
        // A name that points at itself.
        let ring = [&[0xc0, u8::try_from(asked.len()).unwrap()][..], &[0; 10]].concat();
        assert_eq!(answers(&reply(&asked, 0, &[ring]), &asked), Err(Bad::Failed));
        for bad in ["", ".", "a..b", &"a".repeat(64), &["a"; 200].join(".")] {
            assert_eq!(question(1, bad, Kind::V4), None, "{bad}");
        }
    }

    fn files(test: &str, hosts: &str, servers: &str, port: u16) -> (PathBuf, Names) {
        let folder = std::env::temp_dir().join(format!("rosemary-names-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let names = Names { hosts: folder.join("hosts"), servers: folder.join("resolv.conf"), port };
        std::fs::write(&names.hosts, hosts).unwrap();
        std::fs::write(&names.servers, servers).unwrap();
        (folder, names)
    }

    #[test]
    fn a_server_is_asked_anew_each_time_so_a_name_that_moves_is_seen_to_move() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let playing = std::thread::spawn(move || {
            let mut packet = [0; 512];
            // The first look-up leads inside, the second outside: a rebinding. A stray packet goes before each answer.
            for (round, address) in [[10, 0, 0, 5], [8, 8, 8, 8]].into_iter().enumerate() {
                for kind in [1, 28] {
                    let (length, peer) = server.recv_from(&mut packet).unwrap();
                    let asked = packet[..length].to_vec();
                    assert_eq!(asked[length - 3], kind);
                    let mut stray = asked.clone();
                    stray[0] ^= 1;
                    server.send_to(&reply(&stray, 0, &[record(1, &[6, 6, 6, 6])]), peer).unwrap();
                    let records = if kind == 1 { vec![record(1, &address)] } else { Vec::new() };
                    server.send_to(&reply(&asked, 0, &records), peer).unwrap();
                }
                let _ = round;
            }
        });
        let (folder, names) = files("server", "10.1.1.1 Other.example other # llm.example\n", "# x\nnameserver 127.0.0.1\n", port);
        assert_eq!(names.lookup("llm.example"), Some(vec!["10.0.0.5".parse().unwrap()]));
        assert_eq!(names.lookup("llm.example"), Some(vec!["8.8.8.8".parse().unwrap()]));
        playing.join().unwrap();
        assert_eq!(names.lookup("other.example"), Some(vec!["10.1.1.1".parse().unwrap()]));
        assert_eq!(names.lookup("[fd00::1]"), Some(vec!["fd00::1".parse().unwrap()]));
        assert_eq!(names.lookup("192.0.2.7"), Some(vec!["192.0.2.7".parse().unwrap()]));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn without_servers_a_name_leads_nowhere() {
        let (folder, names) = files("none", "", "nameserver nonsense\n", 53);
        assert_eq!(names.lookup("llm.example"), None);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
