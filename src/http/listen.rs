//! Listening, admission and stopping.
//!
//! Invariants
//! - One accept thread serves all listeners; no error ends it, only a stop.
//! - At most `max_connections` at once, and `max_per_address` of one address, which may also bring no more than four times as many anew
//!   within a second (an IPv6 /64 counts as one address; trusted proxies are exempt). One more is closed before its handshake, without a
//!   thread of its own.
//! - A stop lets answers under way leave, for at most its deadline; after it no request reaches the handler and no answer leaves. Work that
//!   the handler has not finished by then is not waited for.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::base::limits;
use crate::base::log::{self, Level, Operator};
use crate::base::time::Clock;
use crate::http::authority::Authority;
use crate::http::conn;
use crate::http::tls::TlsIdentity;
use crate::http::wire::Turnstile;
use crate::http::Handler;

/// How long each phase of a connection may take, all in all.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Handshake.
    pub handshake: Duration,
    /// First byte of a head to its last.
    pub head: Duration,
    /// End of the head to the end of the body.
    pub body: Duration,
    /// First byte of an answer to its last.
    pub write: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Stop to the last answer.
    pub drain: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: limits::HANDSHAKE_TIME_MAX,
            head: limits::HEAD_TIME_MAX,
            body: limits::BODY_TIME_MAX,
            write: limits::WRITE_TIME_MAX,
            idle: limits::IDLE_TIME_MAX,
            drain: limits::DRAIN_TIME_MAX,
        }
    }
}

/// What a server is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections at once.
    pub max_connections: u32,
    /// Connections at once from one address.
    pub max_per_address: u32,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Host and port of the public URL.
    pub public: Option<Authority>,
    /// Time bounds.
    pub deadlines: Deadlines,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: limits::CONNECTIONS_MAX,
            max_per_address: limits::CONNECTIONS_PER_ADDRESS_MAX,
            trusted_proxies: Vec::new(),
            public: None,
            deadlines: Deadlines::default(),
        }
    }
}

/// Opens one listener for each of `addresses`, all on `port`; port 0 lets the system choose one for the first, which the others then use.
///
/// Errors: the system's, which names neither address nor port; the caller adds them.
pub fn bind(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    let mut port = port;
    let open = |&address: &IpAddr| {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            // So that `0.0.0.0` and `::` can both be listened on, and one never serves the other's clients unasked.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        rustix::net::bind(&socket, &SocketAddr::new(address, port))?;
        rustix::net::listen(&socket, limits::ACCEPT_BACKLOG)?;
        let listener = TcpListener::from(socket);
        port = listener.local_addr()?.port();
        Ok(listener)
    };
    addresses.iter().map(open).collect()
}

/// What the threads of one server share.
pub(super) struct Shared {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) tls: Arc<TlsIdentity>,
    pub(super) deadlines: Deadlines,
    pub(super) public: Option<Authority>,
    pub(super) clock: Clock,
    pub(super) handshakes: Turnstile,
    pub(super) stopping: AtomicBool,
    trusted_proxies: Vec<IpNet>,
    max_connections: usize,
    max_per_address: u32,
    book: Mutex<Book>,
    left: Condvar,
}

/// The connections that are in.
#[derive(Default)]
struct Book {
    next: u64,
    live: HashMap<u64, Arc<TcpStream>>,
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

impl Shared {
    pub(super) fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection, or says no.
    fn admit(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) -> Option<Admitted> {
        let counted = (!self.is_trusted_proxy(peer.ip())).then(|| address_group(peer.ip()));
        let mut book = self.book();
        if book.live.len() >= self.max_connections || self.stopping.load(Ordering::SeqCst) {
            return None;
        }
        if counted.is_some_and(|group| !book.arrive(group, self.max_per_address)) {
            return None;
        }
        let socket = Arc::new(socket);
        let number = book.next;
        book.next += 1;
        book.live.insert(number, Arc::clone(&socket));
        Some(Admitted { shared: Arc::clone(self), number, counted, socket, peer })
    }
}

/// IPv4: the address; IPv6: its /64, since one host commands all of it.
fn address_group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// A place among the connections, given back when dropped.
struct Admitted {
    shared: Arc<Shared>,
    number: u64,
    counted: Option<IpAddr>,
    socket: Arc<TcpStream>,
    peer: SocketAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut book = self.shared.book();
        book.live.remove(&self.number);
        if let Some(address) = self.counted.and_then(|group| book.addresses.get_mut(&group)) {
            address.open -= 1;
        }
        if book.live.is_empty() {
            self.shared.left.notify_all();
        }
    }
}

/// A server that accepts connections until it is stopped or dropped.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    wake: Option<PipeWriter>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to serve `listeners` (from [`bind`], or passed in by the system).
    ///
    /// Errors: the system's, when a thread or a pipe cannot be made or a listener is none.
    pub fn start(listeners: Vec<TcpListener>, settings: Settings, tls: Arc<TlsIdentity>, handler: Arc<dyn Handler>) -> io::Result<Self> {
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        listeners.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            handler,
            tls,
            deadlines: settings.deadlines,
            public: settings.public,
            clock: Clock::system(),
            handshakes: Turnstile::new(cores.div_ceil(2)),
            stopping: AtomicBool::new(false),
            trusted_proxies: settings.trusted_proxies,
            max_connections: usize::try_from(settings.max_connections).unwrap_or(usize::MAX),
            max_per_address: settings.max_per_address,
            book: Mutex::default(),
            left: Condvar::new(),
        });
        let (woken, wake) = io::pipe()?;
        let accepting = Arc::clone(&shared);
        let acceptor = thread::Builder::new().name("accept".into()).spawn(move || accept(&accepting, &listeners, &woken))?;
        Ok(Self { shared, addresses, wake: Some(wake), acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.shared.book().live.len()
    }

    /// Stops: closes the listeners and idle connections at once, the others after their answer, all of them after the drain deadline.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        drop(self.wake.take());
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let deadline = Instant::now() + self.shared.deadlines.drain;
        // A reader sees the end of its input; an answer can still leave. Then nothing can.
        for (how, until) in [(Shutdown::Read, deadline), (Shutdown::Both, deadline + Duration::from_secs(1))] {
            let book = self.shared.book();
            for socket in book.live.values() {
                let _ = socket.shutdown(how);
            }
            let left = until.saturating_duration_since(Instant::now());
            drop(self.shared.left.wait_timeout_while(book, left, |book| !book.live.is_empty()));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.halt();
    }
}

/// The accept thread: ends when the other end of `woken` is dropped.
fn accept(shared: &Arc<Shared>, listeners: &[TcpListener], woken: &PipeReader) {
    let mut failing = false;
    while !shared.stopping.load(Ordering::SeqCst) {
        let mut ready: Vec<PollFd<'_>> = listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
        ready.push(PollFd::new(woken, PollFlags::IN));
        if poll(&mut ready, None).is_err() {
            // Interrupted, or out of memory for a moment.
            pause(woken);
            continue;
        }
        for (listener, _) in listeners.iter().zip(&ready).filter(|(_, ready)| !ready.revents().is_empty()) {
            match listener.accept() {
                Ok((socket, peer)) => {
                    failing = false;
                    enter(shared, socket, peer);
                }
                // The peer left before we came, or another event woke us.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No descriptor or memory left: connections that end give some back. One line for the whole shortage.
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        log::line(Level::Warn, "accept failed, will try again", &[("error", &Operator::text(&error))]);
                    }
                    pause(woken);
                }
            }
        }
    }
}

/// Waits a moment, less if a stop comes.
fn pause(woken: &PipeReader) {
    let time = Timespec::try_from(limits::ACCEPT_PAUSE).expect("a short time");
    let _ = poll(&mut [PollFd::new(woken, PollFlags::IN)], Some(&time));
}

/// Gives an accepted connection its thread; without a place or a thread for it, it is closed.
fn enter(shared: &Arc<Shared>, socket: TcpStream, peer: SocketAddr) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Some(admitted) = shared.admit(socket, peer) else { return };
    let thread = thread::Builder::new().name("connection".into()).stack_size(limits::CONNECTION_STACK_BYTES);
    let spawned = thread.spawn(move || conn::serve(&admitted.shared, &admitted.socket, admitted.peer));
    if let Err(error) = spawned {
        log::line(Level::Warn, "no thread for a connection; it was closed", &[("error", &Operator::text(&error))]);
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
