//! Refusals that carry no data, counted so that they cannot fill the disk.
//!
//! The first refusal of a (who, reason) is an entry at once and opens a window of [`limits::AUDIT_COALESCE_TIME`]; those that follow within
//! it are counted, and the window's end gives one entry with their count.
//!
//! Invariants
//! - No refusal is lost: the entries' counts add up to the calls of [`Coalescer::note`], once [`Coalescer::due`] was called at the end.
//! - At most [`limits::AUDIT_COALESCE_KEYS_MAX`] windows are open, and one more per reason that strangers then share ([`Who::Others`]).
//! - A (who, reason) gives at most two entries a window, however many refusals there are.

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
    /// For how many refusals the entry stands.
    pub count: u64,
}

impl Emit {
    /// Makes `entry` the refusal that is to be recorded, answered with `status`.
    pub fn describe(&self, entry: &mut Entry, status: u16) {
        entry.refuse(self.reason, status);
        entry.count = (self.count > 1).then_some(self.count);
        match &self.who {
            Who::Address(ip) => entry.ip = Some(*ip),
            Who::Credential(credential) => entry.cred = Some(credential.clone()),
            Who::Others => {}
        }
    }
}

/// The open windows. Times are milliseconds of a clock that never steps back.
#[derive(Debug, Default)]
pub struct Coalescer {
    /// Refusals since the window's first, which has its entry already.
    counts: HashMap<(Who, Reason), u64>,
    /// When each window ends, soonest first.
    ends: VecDeque<(u64, (Who, Reason))>,
}

impl Coalescer {
    /// No window open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one refusal at `now_ms`; gives the entry to make at once if it opens a window.
    pub fn note(&mut self, who: Who, reason: Reason, now_ms: u64) -> Option<Emit> {
        let mut key = (who, reason);
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
        Some(Emit { who: key.0, reason, count: 1 })
    }

    /// Closes the windows that ended by `now_ms` and gives the entries with their counts; to be called at least every few seconds, and with
    /// `u64::MAX` at the end.
    pub fn due(&mut self, now_ms: u64) -> Vec<Emit> {
        let mut emits = Vec::new();
        while self.ends.front().is_some_and(|(end, _)| *end <= now_ms) {
            let (_, key) = self.ends.pop_front().expect("the loop's condition saw it");
            let count = self.counts.remove(&key).unwrap_or(0);
            if count > 0 {
                emits.push(Emit { who: key.0, reason: key.1, count });
            }
        }
        emits
    }
}
