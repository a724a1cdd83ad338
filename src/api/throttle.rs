//! Rate limits: how many requests a key may make in one minute, with memory that no flood can grow.
//!
//! Shape: a table of sets of eight windows; a keyed hash of the key chooses the set, a lock guards a group of sets. A window opens with a
//! key's first request and is worth `limit` requests for [`limits::THROTTLE_WINDOW`], as existing clients expect.
//!
//! Invariants
//! - A key is never granted more than `limit` requests within one window while its window is remembered.
//! - When a set is full, a window that has ended goes first, then the least used one: a key at its limit is forgotten last, so a flood of
//!   new addresses evicts itself.
//! - The hash is keyed by chance: nobody outside can choose addresses that meet in one set.
//! - Pure: the time comes in as milliseconds of one monotonic clock.

use std::net::IpAddr;
use std::sync::Mutex;

use crate::base::id::{CredentialId, UserId};
use crate::base::{limits, rng};
use crate::crypto::hash::sha256;

/// Windows that compete for one place.
const WAYS: usize = 8;
/// Locks.
const SHARDS: usize = 64;
const SETS_PER_SHARD: usize = limits::THROTTLE_SLOTS / WAYS / SHARDS;
// Both are powers of two, so that a remainder of the hash favours none.
const _: () = assert!(SHARDS.is_power_of_two() && SHARDS <= 1 << 8 && SETS_PER_SHARD.is_power_of_two() && SETS_PER_SHARD <= 1 << 16);

/// The header that says what a window is worth.
pub const LIMIT: &str = "x-ratelimit-limit";

/// Whose requests are counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key([u8; 16]);

impl From<IpAddr> for Key {
    /// An IPv4 address, also when written as IPv6; of an IPv6 address the /64, which is what one customer gets.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => {
                let mut octets = v6.octets();
                octets[8..].fill(0);
                Self(octets)
            }
        }
    }
}

impl Key {
    /// The bucket of a key from the settings.
    pub fn of_static(name: &str, id: &[u8]) -> Self {
        let hash = sha256(&[b"static", name.as_bytes(), id]);
        Self(*hash.first_chunk().expect("32 bytes hold 16"))
    }
}

impl From<UserId> for Key {
    fn from(id: UserId) -> Self {
        Self(*id.bytes())
    }
}

impl From<CredentialId> for Key {
    fn from(id: CredentialId) -> Self {
        Self(*id.bytes())
    }
}

/// One key's minute. `used` 0 marks a free place.
#[derive(Clone, Copy)]
struct Window {
    key: Key,
    opened_ms: u64,
    used: u32,
}

const FREE: Window = Window { key: Key([0; 16]), opened_ms: 0, used: 0 };

/// One limit over many keys.
pub struct Throttle {
    per_minute: u32,
    seed: [u64; 2],
    shards: Vec<Mutex<Vec<[Window; WAYS]>>>,
}

/// What became of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Requests a window is worth.
    pub limit: u32,
    /// Requests left in this window.
    pub remaining: u32,
    /// Whole seconds until the window ends, at least 1.
    pub reset_s: u64,
}

impl Throttle {
    /// `per_minute` requests for each key; 0 is no limit and costs nothing.
    pub fn new(per_minute: u32) -> Self {
        let shards = if per_minute == 0 { 0 } else { SHARDS };
        Self {
            per_minute,
            seed: [u64::from_le_bytes(rng::array()), u64::from_le_bytes(rng::array())],
            shards: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts one request of `key` at `now_ms`; `None` when there is no limit.
    pub fn take(&self, key: impl Into<Key>, now_ms: u64) -> Option<Taken> {
        self.take_all(key, 1, now_ms)
    }

    /// As [`Throttle::take`], for so many requests at once: all are counted, or none. More than a window holds take a whole one, in which there was
    /// nothing but the request that brought them. Of none it tells how its key stands.
    pub fn take_all(&self, key: impl Into<Key>, requests: u32, now_ms: u64) -> Option<Taken> {
        const WINDOW_MS: u64 = limits::THROTTLE_WINDOW.as_secs() * 1000;
        if self.per_minute == 0 {
            return None;
        }
        let key = key.into();
        let (shard, set) = self.place(key);
        let mut sets = self.shards[shard].lock().expect("no code panics while it holds this lock");
        let ended = |window: &Window| window.used == 0 || now_ms.saturating_sub(window.opened_ms) >= WINDOW_MS;
        sets.resize(SETS_PER_SHARD, [FREE; WAYS]); // the first time; nobody pays for a limit that is never reached for
        let windows = &mut sets[set];
        let at = windows.iter().position(|window| window.used > 0 && window.key == key).unwrap_or_else(|| {
            let rank = |window: &Window| if ended(window) { (0, 0) } else { (window.used, window.opened_ms) };
            (0..WAYS).min_by_key(|&i| rank(&windows[i])).expect("a set has places")
        });
        let window = &mut windows[at];
        if window.key != key || ended(window) {
            *window = Window { key, opened_ms: now_ms, used: 0 };
        }
        // INVARIANT: a window holds no more than its limit. A refused request is not counted, but it keeps the window from looking free.
        let left = self.per_minute - window.used;
        let alone = requests > 1 && requests >= self.per_minute && left > 0 && window.used <= 1;
        let allowed = requests <= left || alone;
        window.used += if allowed { requests.min(left) } else { 0 };
        let left_ms = (window.opened_ms + WINDOW_MS).saturating_sub(now_ms);
        Some(Taken { allowed, limit: self.per_minute, remaining: self.per_minute - window.used, reset_s: left_ms.div_ceil(1000).max(1) })
    }

    /// Shard and set of `key`: a folded 128-bit product (as in wyhash) of the key's halves, each masked by chance.
    fn place(&self, Key(key): Key) -> (usize, usize) {
        let half = |i: usize| u64::from_le_bytes(key[i..i + 8].try_into().expect("a key has two halves of 8 bytes"));
        let fold = |a: u64, b: u64| {
            let product = (u128::from(a) * u128::from(b)).to_le_bytes();
            let half = |i: usize| u64::from_le_bytes(product[i..i + 8].try_into().expect("16 bytes have two halves"));
            half(0) ^ half(8)
        };
        let mixed = fold(half(0) ^ self.seed[0], half(8) ^ self.seed[1]);
        let [shard, _, low, high, ..] = fold(mixed ^ self.seed[1], self.seed[0] | 1).to_le_bytes();
        (usize::from(shard) % SHARDS, usize::from(u16::from_le_bytes([low, high])) % SETS_PER_SHARD)
    }
}

impl Taken {
    /// The headers that every limited route carries; `retry-after` only with a refusal.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (LIMIT, self.limit.to_string()),
            ("x-ratelimit-remaining", self.remaining.to_string()),
            ("x-ratelimit-reset", self.reset_s.to_string()),
        ];
        if !self.allowed {
            headers.push(("retry-after", self.reset_s.to_string()));
        }
        headers
    }

    /// The `error` of the 429.
    pub fn error(&self) -> String {
        format!("Rate limit exceeded, retry in {} second{}", self.reset_s, if self.reset_s == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_is_worth_its_limit_and_then_opens_anew() {
        let throttle = Throttle::new(3);
        let key = address("192.0.2.1");
        let taken = |now| throttle.take(key, now).unwrap();
        assert_eq!(taken(1_000), Taken { allowed: true, limit: 3, remaining: 2, reset_s: 60 });
        assert_eq!(taken(2_001).reset_s, 59);
        assert_eq!(taken(3_000), Taken { allowed: true, limit: 3, remaining: 0, reset_s: 58 });
        let refused = taken(31_000);
        assert_eq!(refused, Taken { allowed: false, limit: 3, remaining: 0, reset_s: 30 });
        assert_eq!(refused.error(), "Rate limit exceeded, retry in 30 seconds");
        assert_eq!(refused.headers().last(), Some(&("retry-after", "30".to_owned())));
        assert_eq!(taken(60_999).error(), "Rate limit exceeded, retry in 1 second");
        // Refusals did not lengthen the window.
        assert_eq!(taken(61_000), Taken { allowed: true, limit: 3, remaining: 2, reset_s: 60 });
        assert_eq!(
            taken(61_000).headers(),
            [("x-ratelimit-limit", "3".to_owned()), ("x-ratelimit-remaining", "1".to_owned()), ("x-ratelimit-reset", "60".to_owned()),]
        );
    }

    #[test]
    fn several_at_once_are_counted_all_or_none() {
        let throttle = Throttle::new(5);
        let key = address("192.0.2.1");
        let taken = |requests| throttle.take_all(key, requests, 0).map(|taken| (taken.allowed, taken.remaining)).unwrap();
        assert_eq!(
            [taken(0), taken(4), taken(2), taken(0), taken(1), taken(1)],
            [(true, 5), (true, 1), (false, 1), (true, 1), (true, 0), (false, 0)]
        );
        assert_eq!([taken(u32::MAX), taken(0)], [(false, 0), (true, 0)]);
        // More than there ever are take a window in which there was one request at most.
        let full = Throttle::new(5);
        let taken = |requests| full.take_all(key, requests, 0).map(|taken| (taken.allowed, taken.remaining)).unwrap();
        assert_eq!([taken(1), taken(60), taken(60), taken(1)], [(true, 4), (true, 0), (false, 0), (false, 0)]);
        let one = Throttle::new(1);
        assert_eq!([0, 0].map(|now| one.take(key, now).unwrap().allowed), [true, false]);
        let used = Throttle::new(5);
        let taken = |requests| used.take_all(key, requests, 0).unwrap().allowed;
        assert_eq!([taken(2), taken(60), taken(3)], [true, false, true]);
    }

    #[test]
    fn no_limit_means_none() {
        let throttle = Throttle::new(0);
        assert!((0..1000).all(|now| throttle.take(address("192.0.2.1"), now).is_none()));
    }

    #[test]
    fn an_address_is_one_ipv4_or_one_ipv6_network() {
        assert_eq!(Key::from(address("2001:db8::1")), Key::from(address("2001:db8::ffff:0:0:1")));
        assert_ne!(Key::from(address("2001:db8::1")), Key::from(address("2001:db8:0:1::1")));
        assert_eq!(Key::from(address("192.0.2.1")), Key::from(address("::ffff:192.0.2.1")));
        assert_ne!(Key::from(address("192.0.2.1")), Key::from(address("192.0.2.2")));
    }

    #[test]
    fn a_flood_of_addresses_frees_nobody_who_is_at_the_limit() {
        let throttle = Throttle::new(5);
        let abuser = address("192.0.2.1");
        for _ in 0..5 {
            assert!(throttle.take(abuser, 0).unwrap().allowed);
        }
        for i in 0..200_000u32 {
            assert!(throttle.take(IpAddr::from((0x0a00_0000 + i).to_be_bytes()), 1).unwrap().allowed);
        }
        assert!(!throttle.take(abuser, 2).unwrap().allowed);
    }

    #[test]
    fn threads_together_get_no_more_than_the_limit() {
        let throttle = Throttle::new(1000);
        let allowed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..500).filter(|_| throttle.take(address("192.0.2.1"), 0).unwrap().allowed).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 1000);
    }
}
