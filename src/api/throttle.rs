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

use crate::base::{id::CredentialId, limits, rng};

/// Windows that compete for one place.
const WAYS: usize = 8;
/// Locks.
const SHARDS: usize = 64;
const SETS_PER_SHARD: usize = limits::THROTTLE_SLOTS / WAYS / SHARDS;
const _: () = assert!(SETS_PER_SHARD * SHARDS * WAYS == limits::THROTTLE_SLOTS && SHARDS.is_power_of_two());

/// Whose requests are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    shards: Box<[Mutex<Box<[[Window; WAYS]]>>]>,
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
            shards: (0..shards).map(|_| Mutex::new(vec![[FREE; WAYS]; SETS_PER_SHARD].into())).collect(),
        }
    }

    /// Counts one request of `key` at `now_ms`; `None` when there is no limit.
    pub fn take(&self, key: impl Into<Key>, now_ms: u64) -> Option<Taken> {
        const WINDOW_MS: u64 = limits::THROTTLE_WINDOW.as_secs() * 1000;
        if self.per_minute == 0 {
            return None;
        }
        let key = key.into();
        let (shard, set) = self.place(key);
        let mut sets = self.shards[shard].lock().expect("no code panics while it holds this lock");
        let ended = |window: &Window| window.used == 0 || now_ms.saturating_sub(window.opened_ms) >= WINDOW_MS;
        let windows = &mut sets[set];
        let at = windows.iter().position(|window| window.used > 0 && window.key == key).unwrap_or_else(|| {
            let rank = |window: &Window| if ended(window) { (0, 0) } else { (window.used, window.opened_ms) };
            (0..WAYS).min_by_key(|&i| rank(&windows[i])).expect("a set has places")
        });
        let window = &mut windows[at];
        if window.key != key || ended(window) {
            *window = Window { key, opened_ms: now_ms, used: 0 };
        }
        let allowed = window.used < self.per_minute;
        // A refused request is not counted, but it keeps the window from looking free.
        window.used = if allowed { window.used + 1 } else { window.used };
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
        let hash = fold(mixed ^ self.seed[1], self.seed[0] | 1);
        let bounded = |hash: u64, n: usize| usize::try_from(hash % n as u64).expect("a remainder of a usize fits one");
        (bounded(hash, SHARDS), bounded(hash >> 16, SETS_PER_SHARD))
    }
}

impl Taken {
    /// The headers that every limited route carries; `retry-after` only with a refusal.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("x-ratelimit-limit", self.limit.to_string()),
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
