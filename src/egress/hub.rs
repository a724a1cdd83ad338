//! The hub: the service's end of the relay's line.
//!
//! Invariants
//! - A peer is heard if the kernel says that it is the relay's user. Anybody else, root too, is hung up on before a byte is read.
//! - One relay at a time; a second is hung up on while the first is there.
//! - An order ends: by the relay's answer, by the relay's going away, or by the time that orders have.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use crate::base::log::{self, Level, Operator};
use crate::base::{duty, limits};
use crate::egress::frame::{self, End, FrameError, Hello, Order, Outcome, Said, What};

/// Where the relay comes in.
#[derive(Debug)]
pub struct Entrance {
    /// The socket.
    pub listener: UnixListener,
    /// The relay's user.
    pub user: u32,
}

/// The user `name` of this machine, by `/etc/passwd` (passwd(5)).
pub fn user_id(name: &str) -> Option<u32> {
    let table = std::fs::read_to_string("/etc/passwd").ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Opens the socket at `path`, for its user and group. One that a process left behind is replaced; anything else that is there is not.
///
/// Errors: the system's.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Why an order was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// There is no relay.
    Absent,
    /// There are as many orders under way as may be.
    Busy,
}

/// A relay that is connected.
struct Line {
    relay: Relay,
    stream: Mutex<UnixStream>,
}

/// Which relay is connected: another one that comes after it is another, whatever it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// What it says of itself.
    pub hello: Hello,
    number: u64,
}

impl Line {
    fn say(&self, order: &Order) -> Result<(), FrameError> {
        frame::write(&self.stream.lock().unwrap_or_else(PoisonError::into_inner), order)
    }

    fn hang_up(&self) {
        let _ = self.stream.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both);
    }
}

#[derive(Default)]
struct State {
    line: Option<Arc<Line>>,
    /// The thread that reads the line, until the next one takes its place.
    reader: Option<JoinHandle<()>>,
    pending: HashMap<u64, SyncSender<End>>,
}

/// See the module text.
#[derive(Default)]
pub struct Hub {
    state: Mutex<State>,
    next: AtomicU64,
    stopping: AtomicBool,
}

/// The hub's threads. Stop it before the store.
pub struct Listening {
    hub: Arc<Hub>,
    thread: JoinHandle<()>,
}

impl Hub {
    /// A hub that nobody has come to yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits for a relay from here on.
    ///
    /// Errors: the thread could not be started.
    pub fn start(self: &Arc<Self>, entrance: &Entrance) -> io::Result<Listening> {
        let (listener, user) = (entrance.listener.try_clone()?, entrance.user);
        listener.set_nonblocking(true)?;
        let hub = Arc::clone(self);
        let thread = thread::Builder::new().name("relay".into()).spawn(move || hub.accept(&listener, user))?;
        Ok(Listening { hub: Arc::clone(self), thread })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay that is connected.
    pub fn relay(&self) -> Option<Relay> {
        self.state().line.as_ref().map(|line| line.relay)
    }

    /// Has `relay` do `what`, and waits for the end of it. Another that took its place meanwhile is not asked: what is on record of the order,
    /// where it goes to, was said of the first one's list.
    ///
    /// Errors: nothing was sent. What was sent always has an end, if only that the relay was lost.
    pub fn ask(&self, relay: Relay, what: What) -> Result<End, Unsent> {
        duty::step_aside();
        let (sender, receiver) = sync_channel(1);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let line = {
            let mut state = self.state();
            let line = Arc::clone(state.line.as_ref().filter(|line| line.relay == relay).ok_or(Unsent::Absent)?);
            if state.pending.len() >= limits::EGRESS_ORDERS_MAX {
                return Err(Unsent::Busy);
            }
            state.pending.insert(number, sender);
            line
        };
        // Bound first: the lock must not last as long as the answer takes.
        let written = line.say(&Order { number, what });
        let end = match written {
            Ok(()) => match receiver.recv_timeout(limits::EGRESS_WAIT) {
                Ok(end) => end,
                Err(RecvTimeoutError::Timeout) => End::without(Outcome::TimedOut),
                Err(RecvTimeoutError::Disconnected) => End::without(Outcome::RelayLost),
            },
            Err(FrameError::TooLong) => End::without(Outcome::TooLarge),
            Err(_) => {
                // Part of a frame may have gone: what follows would mean something else.
                line.hang_up();
                End::without(Outcome::RelayLost)
            }
        };
        self.state().pending.remove(&number);
        Ok(end)
    }

    fn accept(self: &Arc<Self>, listener: &UnixListener, user: u32) {
        let turn = Timespec::try_from(limits::RELAY_TURN).expect("a short time");
        while !self.stopping.load(Ordering::Relaxed) {
            let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&turn));
            let Ok((stream, _)) = listener.accept() else { continue };
            if let Err(error) = self.admit(stream, user) {
                log::line(Level::Warn, "a process that came to the relay's socket was not heard", &[("why", &Operator::text(&error))]);
            }
        }
    }

    /// Hears who has come, if the kernel says that it is the relay's user.
    fn admit(self: &Arc<Self>, stream: UnixStream, user: u32) -> Result<(), FrameError> {
        let peer = sockopt::socket_peercred(stream.as_fd()).map_err(io::Error::from)?.uid.as_raw();
        if peer != user {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} is not the relay's, which is {user}")).into());
        }
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(limits::EGRESS_FRAME_TIME_MAX))?;
        match frame::read::<Said>(&stream, Some(limits::EGRESS_FRAME_TIME_MAX))? {
            Said::Relay(hello) => self.welcome(stream, hello),
            Said::Done(..) => Err(FrameError::Malformed),
        }
    }

    fn welcome(self: &Arc<Self>, stream: UnixStream, hello: Hello) -> Result<(), FrameError> {
        if hello.model.is_some_and(|model| model >= hello.destinations) {
            return Err(FrameError::Malformed);
        }
        let relay = Relay { hello, number: self.next.fetch_add(1, Ordering::Relaxed) };
        let line = Arc::new(Line { relay, stream: Mutex::new(stream.try_clone()?) });
        {
            let mut state = self.state();
            if state.line.is_some() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a relay is connected already").into());
            }
            state.line = Some(Arc::clone(&line));
        }
        log::line(Level::Info, "the relay is connected", &[("destinations", &hello.destinations), ("locked", &hello.locked)]);
        let hub = Arc::clone(self);
        let started = thread::Builder::new().name("relay-line".into()).spawn(move || {
            let ended = hub.listen_to(&stream);
            let _ = stream.shutdown(Shutdown::Both);
            hub.forget(&line);
            log::line(Level::Warn, "the relay is gone", &[("why", &Operator::text(&ended))]);
        });
        let mut state = self.state();
        match started {
            Ok(reader) => {
                state.reader = Some(reader);
                Ok(())
            }
            Err(error) => {
                state.line = None;
                Err(error.into())
            }
        }
    }

    /// Gives the relay's answers to those who wait for them, until the line ends.
    fn listen_to(&self, stream: &UnixStream) -> FrameError {
        loop {
            match frame::read::<Said>(stream, None) {
                Ok(Said::Done(number, end)) => {
                    // Nobody waits: it came too late.
                    if let Some(waiting) = self.state().pending.remove(&number) {
                        let _ = waiting.try_send(end);
                    }
                }
                Ok(Said::Relay(_)) => return FrameError::Malformed,
                Err(error) => return error,
            }
        }
    }

    /// The line has ended: whoever waits for it learns so.
    fn forget(&self, line: &Arc<Line>) {
        let mut state = self.state();
        if state.line.as_ref().is_some_and(|current| Arc::ptr_eq(current, line)) {
            state.line = None;
            state.pending.clear();
        }
    }
}

impl Listening {
    /// Hangs up, and waits for the threads.
    pub fn stop(self) {
        self.hub.stopping.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let (line, reader) = {
            let mut state = self.hub.state();
            (state.line.clone(), state.reader.take())
        };
        if let Some(line) = line {
            line.hang_up();
        }
        if let Some(reader) = reader {
            let _ = reader.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello { destinations: 2, model: Some(1), locked: true }
    }

    /// A hub with a relay that this test plays.
    fn connected() -> (Arc<Hub>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let hub = Hub::new();
        hub.welcome(ours, hello()).unwrap();
        (hub, theirs)
    }

    #[test]
    fn an_order_gets_its_own_answer_whatever_the_sequence() {
        let (hub, relay) = connected();
        let askers: Vec<_> = (0..3)
            .map(|n| {
                let hub = Arc::clone(&hub);
                thread::spawn(move || hub.ask(hub.relay().unwrap(), What::Model(format!("question {n}"))).map(|end| end.body.clone()))
            })
            .collect();
        let mut orders: Vec<(u64, String)> = (0..3)
            .map(|_| {
                let order: Order = frame::read(&relay, None).unwrap();
                match &order.what {
                    What::Model(text) => (order.number, text.clone()),
                    What::Test(_) => panic!("a question was asked"),
                }
            })
            .collect();
        orders.reverse();
        frame::write(&relay, &Said::Done(99, End::without(Outcome::Busy))).unwrap();
        for (number, text) in orders {
            frame::write(&relay, &Said::Done(number, End { outcome: Outcome::Answered, status: 200, body: format!("answer to {text}") }))
                .unwrap();
        }
        for (n, asker) in askers.into_iter().enumerate() {
            assert_eq!(asker.join().unwrap().unwrap(), format!("answer to question {n}"));
        }
        assert!(hub.state().pending.is_empty());
    }

    #[test]
    fn a_relay_that_goes_away_ends_its_orders_and_another_may_come() {
        let (hub, relay) = connected();
        assert!(hub.welcome(UnixStream::pair().unwrap().0, hello()).is_err(), "one at a time");
        let (asking, first) = (Arc::clone(&hub), hub.relay().unwrap());
        let asker = thread::spawn(move || asking.ask(first, What::Test(0)).map(|end| end.outcome));
        let _: Order = frame::read(&relay, None).unwrap();
        drop(relay);
        assert_eq!(asker.join().unwrap(), Ok(Outcome::RelayLost));
        while hub.relay().is_some() {
            thread::yield_now();
        }
        assert_eq!(hub.ask(first, What::Test(0)).map(|end| end.outcome), Err(Unsent::Absent));
        let (ours, theirs) = UnixStream::pair().unwrap();
        hub.welcome(ours, hello()).unwrap();
        assert_eq!(hub.relay().map(|relay| relay.hello), Some(hello()));
        // An order was recorded as one to the first relay's destination, and went to whatever the second has under that number.
        assert_eq!(hub.ask(first, What::Model("for the first alone".into())).map(|end| end.outcome), Err(Unsent::Absent));
        theirs.set_nonblocking(true).unwrap();
        assert_eq!(std::io::Read::read(&mut &theirs, &mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn orders_under_way_are_bounded_and_nonsense_ends_the_line() {
        let (hub, relay) = connected();
        let askers: Vec<_> = (0..limits::EGRESS_ORDERS_MAX)
            .map(|_| {
                let hub = Arc::clone(&hub);
                thread::spawn(move || hub.ask(hub.relay().unwrap(), What::Test(1)).map(|end| end.outcome))
            })
            .collect();
        for _ in 0..limits::EGRESS_ORDERS_MAX {
            let _: Order = frame::read(&relay, None).unwrap();
        }
        assert_eq!(hub.ask(hub.relay().unwrap(), What::Test(1)).map(|end| end.outcome), Err(Unsent::Busy));
        frame::write(&relay, &Said::Relay(hello())).unwrap();
        for asker in askers {
            assert_eq!(asker.join().unwrap(), Ok(Outcome::RelayLost));
        }
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(Hub::new().welcome(ours, Hello { destinations: 1, model: Some(1), locked: true }).is_err());
    }

    #[test]
    fn users_are_known_by_the_table_of_the_system() {
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(user_id("nobody-of-this-name"), None);
    }
}
