//! Listening, accepting and stopping.
//!
//! Invariants
//! - One accept thread serves all listeners, and closes what has waited too long for its peer; no error ends it, only a stop.
//! - A stop lets answers under way leave, for at most its deadline; after it no request reaches the handler and no answer leaves. Work that
//!   the handler has not finished by then is not waited for.

use std::io::{self, PipeReader, PipeWriter};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::base::limits;
use crate::base::log::{self, Level, Operator};
use crate::base::time::Clock;
use crate::http::Handler;
use crate::http::admission::{Admission, Place};
use crate::http::authority::Authority;
use crate::http::conn::Connection;
use crate::http::pool::{self, Pool};
use crate::http::tls::TlsIdentity;
use crate::http::wire::Turnstile;

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
    pub(super) admission: Arc<Admission>,
    pub(super) pool: Pool,
}

impl Shared {
    /// Whether the connection at `place` is to end after the answer under way.
    pub(super) fn told_to_end(&self, place: &Place) -> bool {
        self.stopping.load(Ordering::SeqCst) || place.yielded.load(Ordering::SeqCst)
    }
}

/// Counts a server's connections.
pub struct Connections(Arc<Admission>);

impl Connections {
    /// Connections at this moment.
    pub fn count(&self) -> usize {
        self.0.count()
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
        let clock = Clock::system();
        let admission = Admission::new(settings.max_connections, settings.max_per_address, settings.trusted_proxies, clock.clone());
        let shared = Arc::new(Shared {
            handler,
            tls,
            deadlines: settings.deadlines,
            public: settings.public,
            handshakes: Turnstile::new(cores.div_ceil(2)),
            stopping: AtomicBool::new(false),
            admission: Arc::new(admission),
            clock,
            pool: Pool::new()?,
        });
        let (woken, wake) = io::pipe()?;
        // What was started is stopped when this is dropped.
        let mut server = Self { shared: Arc::clone(&shared), addresses, wake: Some(wake), acceptor: None };
        pool::start(&shared, cores * limits::PLACES_PER_CORE)?;
        server.acceptor = Some(thread::Builder::new().name("accept".into()).spawn(move || accept(&shared, &listeners, &woken))?);
        Ok(server)
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.shared.admission.count()
    }

    /// The threads that serve connections.
    #[cfg(test)]
    pub(super) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// What counts them, for who outlives this value's owner.
    pub fn counter(&self) -> Connections {
        Connections(Arc::clone(&self.shared.admission))
    }

    /// Stops: closes the listeners and idle connections at once, the others after their answer, all of them after the drain deadline.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        if self.shared.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        drop(self.wake.take());
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let deadline = Instant::now() + self.shared.deadlines.drain;
        // A reader sees the end of its input; an answer can still leave. Then nothing can.
        self.shared.admission.shut(Shutdown::Read, deadline);
        self.shared.admission.shut(Shutdown::Both, deadline + Duration::from_secs(1));
        self.shared.pool.close();
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
    let shortest = shared.deadlines.handshake.min(shared.deadlines.idle);
    let interval = (shortest / 8).min(limits::SWEEP_INTERVAL);
    let tick = Timespec::try_from(interval).expect("a short time");
    let mut swept = Instant::now();
    while !shared.stopping.load(Ordering::SeqCst) {
        let mut ready: Vec<PollFd<'_>> = listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
        ready.push(PollFd::new(woken, PollFlags::IN));
        // While somebody waits, whoever does so for too long is closed.
        let tick = (shared.admission.count() > 0).then_some(tick);
        let polled = poll(&mut ready, tick.as_ref());
        if swept.elapsed() >= interval {
            shared.pool.sweep();
            pool::fill_vacancies(shared);
            swept = Instant::now();
        }
        if polled.is_err() {
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

/// Lets an accepted connection in; without a place for it, it is closed.
fn enter(shared: &Arc<Shared>, socket: TcpStream, peer: SocketAddr) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Some(admitted) = shared.admission.admit(socket, peer) else { return };
    if let Some(connection) = Connection::new(shared, admitted) {
        shared.pool.enter(connection);
    }
}
