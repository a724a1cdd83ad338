//! The threads that serve connections, and the connections that wait for their peers.
//!
//! ```text
//! accept ─→ waits ─→ its peer says something ─→ a thread on duty serves it ─→ waits
//!             ↑                                    └─→ lent to an answer ─┐
//!             └──────────────────────────────────────────────────────────┘
//! ```
//! A few threads are on duty: they take whichever connection has something to say, and go from one to the next without sleeping while there is
//! one. Who is going to wait (for a peer that sends slowly, for a commit) hands its place over first ([`duty`]), to a thread that rests or to a new
//! one. So a busy server has few threads at work, whose stacks and memory stay near, and yet nobody waits for a slow peer of somebody else.
//!
//! Invariants
//! - A connection is owned by whoever serves or answers it, or lies here; it is heard only while it lies here, and taken once.
//! - As many threads as there are places are on duty, or on their way to it, unless the system gives no more. Each of the others serves a connection
//!   that waits, or rests, and ends when it has rested long enough.
//! - What waits longer than its phase allows is closed within a tick.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use crate::base::log::{self, Level, Operator};
use crate::base::{duty, fault, limits};
use crate::http::conn::Connection;
use crate::http::listen::Shared;

/// What the bell's events carry in place of a connection's number.
const BELL: u64 = u64::MAX;
/// A connection is told of once, then it is taken.
const HEARD_ONCE: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ONESHOT);

/// See the module text.
pub(super) struct Pool {
    ready: OwnedFd,
    /// Rung at the end, and never silenced.
    bell: OwnedFd,
    waiting: Mutex<HashMap<u64, Box<Connection>>>,
    crew: Mutex<Crew>,
    closed: AtomicBool,
    /// The system gives no more threads, as far as a test is concerned.
    #[cfg(test)]
    pub(super) barren: AtomicBool,
}

/// The threads.
#[derive(Default)]
struct Crew {
    threads: Vec<JoinHandle<()>>,
    /// Who rests, the last one last.
    resting: Vec<Arc<Resting>>,
    /// Places that nobody could be found for.
    vacant: usize,
    /// No thread could be made lately.
    short: bool,
}

/// A thread that rests.
struct Resting {
    thread: Thread,
    called: AtomicBool,
}

impl Pool {
    /// An empty one without threads.
    ///
    /// Errors: the system's.
    pub(super) fn new() -> io::Result<Self> {
        let ready = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&ready, &bell, EventData::new_u64(BELL), EventFlags::IN)?;
        let (waiting, crew, closed) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Ok(Self {
            ready,
            bell,
            waiting,
            crew,
            closed,
            #[cfg(test)]
            barren: AtomicBool::new(false),
        })
    }

    /// Takes up a new connection.
    pub(super) fn enter(&self, connection: Box<Connection>) {
        self.listen_to(connection, |socket, data| epoll::add(&self.ready, socket, data, HEARD_ONCE));
    }

    /// Takes back a connection that waits for its peer again.
    pub(super) fn rest(&self, connection: Box<Connection>) {
        self.listen_to(connection, |socket, data| epoll::modify(&self.ready, socket, data, HEARD_ONCE));
    }

    /// A connection lies here before it is listened to: whoever is told of it takes it at once.
    fn listen_to(&self, connection: Box<Connection>, listen: impl FnOnce(&TcpStream, EventData) -> rustix::io::Result<()>) {
        let (number, place) = (connection.number(), connection.place());
        self.waiting().insert(number, connection);
        if let Err(error) = listen(place.socket.stream(), EventData::new_u64(number)) {
            log::line(Level::Warn, "a connection could not be listened to; it was closed", &[("error", &Operator::text(&error))]);
            drop(self.take(number));
        }
        if self.closed.load(Ordering::SeqCst) {
            drop(self.take(number));
        }
    }

    fn take(&self, number: u64) -> Option<Box<Connection>> {
        self.waiting().remove(&number)
    }

    /// Closes what has waited too long.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let late: Vec<_> = self.waiting().extract_if(|_, connection| connection.is_late(now)).collect();
        for (_, connection) in late {
            let _ = fault::catch(|| connection.expire());
        }
    }

    /// Ends the threads that rest or wait, and waits a moment for them: what they served is nobody's then. Others end when they have done.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        let Crew { threads, resting, .. } = std::mem::take(&mut *self.crew());
        resting.iter().for_each(|resting| resting.call());
        let waiting = std::mem::take(&mut *self.waiting());
        drop(waiting);
        let until = Instant::now() + limits::CREW_END_TIME_MAX;
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.crew().threads.iter().filter(|thread| !thread.is_finished()).count()
    }

    #[cfg(test)]
    pub(super) fn vacant(&self) -> usize {
        self.crew().vacant
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Box<Connection>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place on duty for a thread that has none; waits for one. False if there will be none, or none was needed for long.
    fn resume(&self) -> bool {
        let resting = {
            let mut crew = self.crew();
            if self.closed.load(Ordering::SeqCst) {
                return false;
            }
            if let Some(left) = crew.vacant.checked_sub(1) {
                crew.vacant = left;
                return true;
            }
            let resting = Arc::new(Resting { thread: thread::current(), called: AtomicBool::new(false) });
            crew.resting.push(Arc::clone(&resting));
            resting
        };
        let until = Instant::now() + limits::REST_TIME_MAX;
        while !resting.called.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
                continue;
            }
            let mut crew = self.crew();
            let before = crew.resting.len();
            crew.resting.retain(|other| !Arc::ptr_eq(other, &resting));
            // Whoever is not among them any more was called at this very moment.
            if crew.resting.len() < before {
                return false;
            }
        }
        true
    }
}

impl Resting {
    fn call(&self) {
        self.called.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Starts the threads on duty.
///
/// Errors: the system's.
pub(super) fn start(shared: &Arc<Shared>, places: usize) -> io::Result<()> {
    (0..places).try_for_each(|_| spawn(shared))
}

fn spawn(shared: &Arc<Shared>) -> io::Result<()> {
    #[cfg(test)]
    if shared.pool.barren.load(Ordering::SeqCst) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let own = Arc::clone(shared);
    let thread = thread::Builder::new().name("connection".into()).stack_size(limits::CONNECTION_STACK_BYTES);
    let thread = thread.spawn(move || work(&own))?;
    let mut crew = shared.pool.crew();
    crew.threads.retain(|thread| !thread.is_finished());
    crew.threads.push(thread);
    Ok(())
}

/// Has a thread that rests, or a new one, take a place.
fn fill_a_place(shared: &Arc<Shared>) -> io::Result<()> {
    let rested = shared.pool.crew().resting.pop();
    match rested {
        Some(rested) => {
            rested.call();
            Ok(())
        }
        None => spawn(shared),
    }
}

/// Fills the place of a thread that is going to wait. Where that cannot be done it is vacant until a thread has done, or one can be made.
fn relieve(shared: &Arc<Shared>) {
    let filled = fill_a_place(shared);
    let mut crew = shared.pool.crew();
    let first = !std::mem::replace(&mut crew.short, filled.is_err());
    let Err(error) = filled else { return };
    crew.vacant += 1;
    drop(crew);
    if first {
        log::line(Level::Warn, "no further thread for connections; they wait for each other", &[("error", &Operator::text(&error))]);
    }
}

/// Fills the places that are vacant.
pub(super) fn fill_vacancies(shared: &Arc<Shared>) {
    loop {
        let mut crew = shared.pool.crew();
        let Some(left) = crew.vacant.checked_sub(1) else { return };
        crew.vacant = left;
        drop(crew);
        if fill_a_place(shared).is_err() {
            shared.pool.crew().vacant += 1;
            return;
        }
    }
}

/// One thread: on duty until it waits, then again when there is a place.
fn work(shared: &Arc<Shared>) {
    let own = Arc::clone(shared);
    duty::enlist(move || relieve(&own));
    while serve_one(&shared.pool) {}
    duty::discharge();
}

/// Serves the next connection that has something to say; false if this thread is to end.
fn serve_one(pool: &Pool) -> bool {
    let mut room = [MaybeUninit::uninit()];
    // An interruption gives none.
    let Ok(([event], _)) = epoll::wait(&pool.ready, &mut room, None) else { return true };
    let number = event.data.u64();
    if number == BELL {
        return false;
    }
    let Some(connection) = pool.take(number) else { return true };
    duty::begin();
    // A panic ends the connection that was served.
    let _ = fault::catch(|| connection.serve());
    duty::end() || pool.resume()
}
