//! Refusals that carry no data, counted so that they cannot fill the disk.
//!
//! The first refusal of a (who, reason, status) is an entry at once and opens a window of [`limits::AUDIT_COALESCE_TIME`]; those that follow within
//! it are counted, and the window's end gives one entry with their count.
//!
//! Invariants
//! - No refusal is lost: the entries' counts add up to the calls of [`Coalescer::note`], once [`Coalescer::due`] was called at the end.
//! - At most [`limits::AUDIT_COALESCE_KEYS_MAX`] windows are open, and one more per reason and status that strangers then share
//!   ([`Who::Others`]).
//! - A (who, reason, status) gives at most two entries a window, however many refusals there are.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use crate::audit::entry::{Credential, Entry};
use crate::audit::names::Reason;
use crate::base::limits;

/// To whom a refusal is put down.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Who {
    /// An IPv4 address, or an IPv6 network of 64 bits; made by [`Who::address`].
    Address(IpAddr),
    /// A recognised credential.
    Credential(Credential),
    /// All for whom there was no window left.
    Others,
}

impl Who {
    /// The address's bucket: the IPv4 address itself (also where it is mapped into IPv6), or the first 64 bits of an IPv6 address.
    pub fn address(ip: IpAddr) -> Self {
        Self::Address(match ip.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 => v4,
        })
    }
}

/// An entry to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emit {
    /// Who was refused.
    pub who: Who,
    /// Why.
    pub reason: Reason,
    /// With what it was answered.
    pub status: u16,
    /// For how many refusals the entry stands.
    pub count: u64,
}

impl Emit {
    /// Makes `entry` the refusal that is to be recorded.
    pub fn describe(&self, entry: &mut Entry) {
        entry.refuse(self.reason, self.status);
        entry.count = (self.count > 1).then_some(self.count);
        match &self.who {
            Who::Address(ip) => entry.ip = Some(*ip),
            Who::Credential(credential) => entry.cred = Some(credential.clone()),
            Who::Others => {}
        }
    }
}

/// Of what one window counts the refusals.
type Key = (Who, Reason, u16);

/// The open windows. Times are milliseconds of a clock that never steps back.
#[derive(Debug, Default)]
pub struct Coalescer {
    /// Refusals since the window's first, which has its entry already.
    counts: HashMap<Key, u64>,
    /// When each window ends, soonest first.
    ends: VecDeque<(u64, Key)>,
}

impl Coalescer {
    /// No window open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one refusal, answered with `status`, at `now_ms`; gives the entry to make at once if it opens a window.
    pub fn note(&mut self, who: Who, reason: Reason, status: u16, now_ms: u64) -> Option<Emit> {
        let mut key = (who, reason, status);
        if self.counts.len() >= limits::AUDIT_COALESCE_KEYS_MAX && !self.counts.contains_key(&key) {
            key.0 = Who::Others;
        }
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
            return None;
        }
        let window_ms = u64::try_from(limits::AUDIT_COALESCE_TIME.as_millis()).expect("a short time");
        self.ends.push_back((now_ms.saturating_add(window_ms), key.clone()));
        self.counts.insert(key.clone(), 0);
        Some(Emit { who: key.0, reason, status, count: 1 })
    }

    /// Closes the windows that ended by `now_ms` and gives the entries with their counts; to be called at least every few seconds, and with
    /// `u64::MAX` at the end.
    pub fn due(&mut self, now_ms: u64) -> Vec<Emit> {
        let mut emits = Vec::new();
        while self.ends.front().is_some_and(|(end, _)| *end <= now_ms) {
            let (_, key) = self.ends.pop_front().expect("the loop's condition saw it");
            let count = self.counts.remove(&key).unwrap_or(0);
            if count > 0 {
                let (who, reason, status) = key;
                emits.push(Emit { who, reason, status, count });
            }
        }
        emits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::entry::Actor;

    const WINDOW_MS: u64 = 60_000;

    fn v4(n: u32) -> Who {
        Who::address(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn the_first_is_an_entry_and_the_rest_are_counted_at_the_minutes_end() {
        let mut coalescer = Coalescer::new();
        let emit = |count| Emit { who: v4(1), reason: Reason::BadCredential, status: 401, count };
        assert_eq!(coalescer.note(v4(1), Reason::BadCredential, 401, 5), Some(emit(1)));
        assert_eq!(coalescer.note(v4(1), Reason::BadCredential, 401, 6), None);
        assert_eq!(coalescer.note(v4(1), Reason::BadCredential, 401, WINDOW_MS), None);
        assert!(coalescer.note(v4(1), Reason::Framing, 400, 7).is_some(), "another reason");
        assert!(coalescer.note(v4(1), Reason::Framing, 431, 7).is_some(), "another answer");
        assert!(coalescer.note(v4(2), Reason::BadCredential, 401, 8).is_some(), "another address");
        assert_eq!(coalescer.due(WINDOW_MS + 4), []);
        assert_eq!(coalescer.due(WINDOW_MS + 5), [emit(2)]);
        assert!(coalescer.note(v4(1), Reason::BadCredential, 401, WINDOW_MS + 6).is_some(), "a new window");
        assert_eq!(coalescer.due(u64::MAX), [], "windows of one refusal end silently");
        assert!(coalescer.counts.is_empty() && coalescer.ends.is_empty());
    }

    #[test]
    fn addresses_are_put_together_by_network() {
        let who = |text: &str| Who::address(text.parse().unwrap());
        assert_eq!(who("2001:db8:1:2:3:4:5:6"), who("2001:db8:1:2::"));
        assert_ne!(who("2001:db8:1:3::"), who("2001:db8:1:2::"));
        assert_eq!(who("::ffff:192.0.2.1"), who("192.0.2.1"));
        assert_ne!(who("192.0.2.2"), who("192.0.2.1"));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_nothing_is_lost() {
        let (mut coalescer, mut entries, mut refusals, mut now_ms) = (Coalescer::new(), Vec::new(), 0, 0);
        for round in 0..3u32 {
            for n in 0..20_000 {
                now_ms += 1;
                for reason in [Reason::BadCredential, Reason::AddressRate] {
                    entries.extend(coalescer.note(v4(round * 7 + n), reason, 401, now_ms));
                    refusals += 1;
                }
                if n % 1000 == 0 {
                    entries.extend(coalescer.due(now_ms));
                }
                assert!(coalescer.counts.len() <= limits::AUDIT_COALESCE_KEYS_MAX + 2);
                assert_eq!(coalescer.counts.len(), coalescer.ends.len());
            }
        }
        entries.extend(coalescer.due(u64::MAX));
        assert_eq!(entries.iter().map(|emit| emit.count).sum::<u64>(), refusals);
        assert!(entries.len() <= 2 * (limits::AUDIT_COALESCE_KEYS_MAX + 2) * (now_ms / WINDOW_MS + 2) as usize);
    }

    #[test]
    fn an_emission_becomes_an_entry() {
        let mut entry = Entry::new("request.refused", Actor::NONE);
        Emit { who: v4(0x0a00_0001), reason: Reason::AddressRate, status: 429, count: 7 }.describe(&mut entry);
        assert_eq!((entry.count, entry.status, entry.ip), (Some(7), 429, Some("10.0.0.1".parse().unwrap())));
        assert!(Entry::parse(&entry.line()).is_ok());
    }
}
