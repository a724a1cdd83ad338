//! Who may come in: a bound for all, a bound and a pace for each address, and who yields when all places are taken.
//!
//! Invariants
//! - At most `max_connections` at once, and `max_per_address` of one address, which may also bring no more than four times as many anew
//!   within a second (an IPv6 /64 counts as one address; trusted proxies are exempt). One more is closed before its handshake, without a
//!   thread of its own.
//! - When all places are taken, the connection that has waited longest for its peer (in its handshake or between two requests) yields to
//!   the new one, so that holding places open costs an attacker as much work as using them. One with a request under way never yields.
//! - A connection that streams takes no place from requests, neither of all nor of its address: whoever opens streams bounds them.
//! - What is remembered of addresses is bounded, however many of them come.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::base::limits;
use crate::base::time::Clock;
use crate::http::wire::Socket;

/// The door, and the book of those who are in.
pub(super) struct Admission {
    max_connections: usize,
    max_per_address: u32,
    trusted_proxies: Vec<IpNet>,
    clock: Clock,
    book: Mutex<Book>,
    left: Condvar,
}

impl Admission {
    pub(super) fn new(max_connections: u32, max_per_address: u32, trusted_proxies: Vec<IpNet>, clock: Clock) -> Self {
        let max_connections = usize::try_from(max_connections).unwrap_or(usize::MAX);
        Self { max_connections, max_per_address, trusted_proxies, clock, book: Mutex::default(), left: Condvar::new() }
    }

    pub(super) fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }

    /// Enters a connection, or says no.
    pub(super) fn admit(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) -> Option<Admitted> {
        let counted = (!self.is_trusted_proxy(peer.ip())).then(|| address_group(peer.ip()));
        let mut book = self.book();
        if counted.is_some_and(|group| !book.arrive(group, self.max_per_address)) {
            return None;
        }
        let now_ms = self.clock.mono_ms();
        let place =
            Arc::new(Place { socket: Socket::new(socket), waits_since_ms: AtomicU64::new(now_ms), yielded: AtomicBool::new(false) });
        let number = book.next;
        book.next += 1;
        let admitted =
            Admitted { admission: Arc::clone(self), number, counted, place: Arc::clone(&place), peer, streams: AtomicBool::new(false) };
        if book.live.len().saturating_sub(book.streams) >= self.max_connections && !book.take_a_place(now_ms) {
            // The book is closed before `admitted` is dropped, which gives back what its address was counted.
            drop(book);
            return None;
        }
        book.live.insert(number, place);
        Some(admitted)
    }

    /// Connections that are in.
    pub(super) fn count(&self) -> usize {
        self.book().live.len()
    }

    /// Shuts every connection's socket in this direction, then waits until all have left, at most until `deadline`.
    pub(super) fn shut(&self, how: Shutdown, deadline: Instant) {
        let book = self.book();
        for place in book.live.values() {
            let _ = place.socket.stream().shutdown(how);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        drop(self.left.wait_timeout_while(book, left, |book| !book.live.is_empty()));
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the connections, given back when dropped.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    number: u64,
    counted: Option<IpAddr>,
    pub(super) place: Arc<Place>,
    pub(super) peer: SocketAddr,
    streams: AtomicBool,
}

impl Admitted {
    /// Its number among all that were ever admitted.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// From now on this connection streams: its place is free for others.
    pub(super) fn streams(&self) {
        let mut book = self.admission.book();
        if !self.streams.swap(true, Ordering::SeqCst) {
            book.streams += 1;
            book.leaves(self.counted);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut book = self.admission.book();
        book.live.remove(&self.number);
        if self.streams.load(Ordering::SeqCst) {
            book.streams -= 1;
        } else {
            book.leaves(self.counted);
        }
        if book.live.is_empty() {
            self.admission.left.notify_all();
        }
    }
}

/// One connection's socket, and since when it waits for its peer.
pub(super) struct Place {
    pub(super) socket: Socket,
    /// Milliseconds on the server's clock; `BUSY` while a request is under way.
    waits_since_ms: AtomicU64,
    /// The place was given to another; at most one more answer leaves.
    pub(super) yielded: AtomicBool,
}

impl Place {
    const BUSY: u64 = u64::MAX;

    /// Notes that nothing of a request has come yet; from now on the place may be taken away.
    pub(super) fn waits(&self, clock: &Clock) {
        self.waits_since_ms.store(clock.mono_ms(), Ordering::Relaxed);
    }

    /// Notes that a request is under way.
    pub(super) fn works(&self) {
        self.waits_since_ms.store(Self::BUSY, Ordering::Relaxed);
    }
}

/// The connections that are in.
#[derive(Default)]
struct Book {
    next: u64,
    live: HashMap<u64, Arc<Place>>,
    /// How many of them stream.
    streams: usize,
    addresses: HashMap<IpAddr, Address>,
}

/// What one address holds, and how many connections it brought since `since`, within a second.
struct Address {
    open: u32,
    arrived: u32,
    since: Instant,
}

impl Address {
    fn is_recent(&self, now: Instant) -> bool {
        now.duration_since(self.since) < Duration::from_secs(1)
    }
}

impl Book {
    /// Takes the place of the connection that waits longest, if it has waited long enough; true if there was one.
    fn take_a_place(&mut self, now_ms: u64) -> bool {
        let waiting = self.live.iter().map(|(&number, place)| (place.waits_since_ms.load(Ordering::Relaxed), number));
        let Some((since, number)) = waiting.min() else { return false };
        let long_enough = u64::try_from(limits::YIELD_AFTER.as_millis()).expect("a short time");
        if now_ms.checked_sub(since).is_none_or(|waited| waited < long_enough) {
            return false;
        }
        // It sees the end of its input. A request that came at this very moment is still answered.
        self.live.remove(&number).is_some_and(|place| {
            place.yielded.store(true, Ordering::SeqCst);
            let _ = place.socket.stream().shutdown(Shutdown::Read);
            true
        })
    }

    /// One connection fewer of this address.
    fn leaves(&mut self, counted: Option<IpAddr>) {
        if let Some(address) = counted.and_then(|group| self.addresses.get_mut(&group)) {
            address.open -= 1;
        }
    }

    /// Counts one more connection of `group`; false if it may have none now.
    fn arrive(&mut self, group: IpAddr, max_open: u32) -> bool {
        let now = Instant::now();
        if self.addresses.len() >= limits::ADDRESSES_MAX {
            self.addresses.retain(|_, address| address.open > 0 || address.is_recent(now));
            if self.addresses.len() >= limits::ADDRESSES_MAX && !self.addresses.contains_key(&group) {
                return false;
            }
        }
        let address = self.addresses.entry(group).or_insert(Address { open: 0, arrived: 0, since: now });
        if !address.is_recent(now) {
            (address.arrived, address.since) = (0, now);
        }
        let welcome = address.open < max_open && address.arrived < max_open.saturating_mul(limits::ARRIVALS_PER_PLACE);
        if welcome {
            address.open += 1;
            address.arrived += 1;
        }
        welcome
    }
}

/// IPv4: the address; IPv6: its /64, since one host commands all of it.
fn address_group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_and_its_pace_and_is_forgotten() {
        let (mut book, one) = (Book::default(), IpAddr::from([10, 0, 0, 1]));
        assert!(book.arrive(one, 2) && book.arrive(one, 2) && !book.arrive(one, 2));
        // Leaving gives a place back, but not the pace.
        for _ in 2..2 * limits::ARRIVALS_PER_PLACE {
            book.addresses.get_mut(&one).unwrap().open = 0;
            assert!(book.arrive(one, 2));
        }
        book.addresses.get_mut(&one).unwrap().open = 0;
        assert!(!book.arrive(one, 2));
        book.addresses.get_mut(&one).unwrap().since -= Duration::from_secs(1);
        assert!(book.arrive(one, 2));
        // However many addresses come, what is remembered is bounded; those that hold a connection stay.
        let others = (0..u32::try_from(limits::ADDRESSES_MAX).unwrap()).map(|bits| IpAddr::from(std::net::Ipv4Addr::from_bits(bits)));
        let welcome = others.filter(|&other| book.arrive(other, 1)).count();
        assert_eq!((welcome, book.addresses.len()), (limits::ADDRESSES_MAX - 1, limits::ADDRESSES_MAX));
        for address in book.addresses.values_mut() {
            (address.open, address.since) = (0, address.since - Duration::from_secs(1));
        }
        book.addresses.get_mut(&one).unwrap().open = 1;
        assert!(book.arrive(IpAddr::from([200, 0, 0, 1]), 1));
        assert!(book.addresses.len() == 2 && book.addresses.contains_key(&one));
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let group = |text: &str| address_group(text.parse().unwrap());
        assert_eq!(group("2001:db8:0:1:2:3:4:5"), group("2001:db8:0:1::"));
        assert_ne!(group("2001:db8:0:1::"), group("2001:db8:0:2::"));
        assert_ne!(group("10.0.0.1"), group("10.0.0.2"));
    }
}
