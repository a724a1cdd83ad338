//! The console: a UNIX socket on which the operator of this machine speaks to the running service.
//!
//! ```text
//! frame    length u32 LE | JSON object, at most CONSOLE_FRAME_BYTES_MAX
//! question {"ask":NAME,"with":…}                                    one a connection
//! answers  {"say":TEXT} any number of times, then {"done":…} or {"failed":{"exit":CODE,"message":TEXT}}
//! ```
//!
//! States: `locked` (no key yet: nothing but `unlock` and `state` is answered) → `opening` → `open` (`desk` answers) → `closed`.
//!
//! Invariants
//! - Only the service's own user and root are heard; the kernel says who is at the other end.
//! - The socket is opened before the kernel's lock; what is unlocked with comes through it and lies on no disk.
//! - One key is tried at a time; each wrong one doubles the pause before the next.
//! - A connection has a time for its question and its answer, and there are few connections at once.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::api::schema::wipe;
use crate::base::id::InstanceId;
use crate::base::log::{self, Level, Operator};
use crate::base::{hex, limits};
use crate::cli::desk::{self, Desk};
use crate::cli::exit::{Exit, Failure};
use crate::config::{Config, settings};
use crate::crypto::secret::Secret;
use crate::crypto::unlock::{Kek, SlotKind};

/// What is asked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    ask: String,
    #[serde(default)]
    with: Value,
}

/// One frame of an answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Say(String),
    Done(Value),
    Failed { exit: u8, message: String },
}

fn write(to: &mut UnixStream, what: &impl Serialize) -> io::Result<()> {
    // Both hold what must not stay in memory, when it is a question.
    let text = Zeroizing::new(serde_json::to_vec(what)?);
    if text.len() > limits::CONSOLE_FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let length = u32::try_from(text.len()).expect("a frame is short");
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&text)
}

fn read<T: serde::de::DeserializeOwned>(from: &mut UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > limits::CONSOLE_FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

// --- the operator's end ---

/// A connection to a running service.
pub struct Line(UnixStream);

impl Line {
    /// Connects to the service that these settings describe; `None`: none is running.
    ///
    /// Errors: there is one, and this user may not speak to it.
    #[allow(clippy::disallowed_methods, reason = "the operator's end, on this machine alone; no process that serves comes here")]
    pub fn dial(config: &Config) -> Result<Option<Self>, Failure> {
        let path = &config.console_socket;
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Some(Self(stream))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(Failure::new(
                Exit::Permission,
                format_args!(
                    "{}: {}: {error}; run this as root or as the service's user",
                    settings::CONSOLE_SOCKET.row.name,
                    path.display()
                ),
            )),
        }
    }

    /// Asks, tells what is said meanwhile, and gives what came of it.
    ///
    /// Errors: what the service answered; or that it went away.
    pub fn ask(mut self, ask: &str, with: Value, tell: &mut dyn FnMut(&str)) -> Result<Value, Failure> {
        let gone = |error: io::Error| Failure::new(Exit::Temporary, format_args!("the service did not answer ({error}); is it stopping?"));
        let mut question = Question { ask: ask.to_owned(), with };
        let sent = write(&mut self.0, &question);
        wipe(&mut question.with);
        sent.map_err(gone)?;
        loop {
            match read(&mut self.0).map_err(gone)? {
                Answer::Say(text) => tell(&text),
                Answer::Done(value) => return Ok(value),
                Answer::Failed { exit, message } => {
                    let exit = Exit::ALL.iter().copied().find(|known| known.code() == exit).unwrap_or(Exit::Internal);
                    return Err(Failure::new(exit, message));
                }
            }
        }
    }

    /// Takes a key to the service.
    ///
    /// Errors: as [`Line::ask`].
    pub fn unlock(self, kek: &Kek) -> Result<Value, Failure> {
        let (kind, secret, instance) = kek.parts();
        let with = json!({
            "kind": kind.number(),
            "secret": hex::encode(secret.expose()),
            "instance": instance.map(|id| id.to_string()),
        });
        self.ask("unlock", with, &mut |_| {})
    }
}

// --- the service's end ---

/// A key that somebody brought, and where to say what came of it.
pub struct Attempt {
    /// The key.
    pub kek: Kek,
    /// Told once.
    pub answer: SyncSender<Result<(), Failure>>,
}

enum State {
    Locked(SyncSender<Attempt>),
    Opening,
    Open(Arc<Desk>),
    Closed,
}

/// Wrong keys so far.
#[derive(Default)]
struct Tries {
    failed: u32,
    not_before: Option<Instant>,
}

impl Tries {
    fn fail(&mut self, now: Instant) {
        let pause = limits::UNLOCK_PAUSE.saturating_mul(1 << self.failed.min(16)).min(limits::UNLOCK_PAUSE_MAX);
        (self.failed, self.not_before) = (self.failed.saturating_add(1), Some(now + pause));
    }
}

struct Shared {
    state: Mutex<State>,
    tries: Mutex<Tries>,
    failed: AtomicU32,
    stop: Arc<AtomicBool>,
    connections: Mutex<Vec<(UnixStream, JoinHandle<()>)>>,
}

/// The console's thread.
pub struct Console {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the socket at `path`. One that a process left behind is replaced; one that somebody listens on is not.
///
/// Errors: the system's.
#[allow(clippy::disallowed_methods, reason = "to learn whether a process listens on the socket of this machine; before the lock")]
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(about) if !about.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether the peer is this process's own user or root.
fn is_operator(peer: &UnixStream) -> bool {
    let uid = rustix::net::sockopt::socket_peercred(peer).map(|peer| peer.uid);
    uid.is_ok_and(|uid| uid.is_root() || uid == rustix::process::geteuid())
}

impl Console {
    /// Answers on `listener`, locked. Gives where keys that are brought arrive.
    ///
    /// Errors: the thread could not be started.
    pub fn start(listener: UnixListener) -> io::Result<(Self, Receiver<Attempt>)> {
        let (keys, attempts) = sync_channel(0);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Locked(keys)),
            tries: Mutex::default(),
            failed: AtomicU32::new(0),
            stop: Arc::default(),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("console".to_owned()).spawn(move || accept(&accepting, &listener))?;
        Ok((Self { shared, thread: Some(thread) }, attempts))
    }

    /// The data file is being opened.
    pub fn opening(&self) {
        *held(&self.shared.state) = State::Opening;
    }

    /// It did not open: another key may be brought.
    pub fn locked_again(&self) -> Receiver<Attempt> {
        let (keys, attempts) = sync_channel(0);
        *held(&self.shared.state) = State::Locked(keys);
        attempts
    }

    /// The service answers: from now on the desk is asked. Gives how many wrong keys were brought before.
    pub fn open(&self, desk: impl FnOnce(Arc<AtomicBool>) -> Desk) -> u32 {
        *held(&self.shared.state) = State::Open(Arc::new(desk(Arc::clone(&self.shared.stop))));
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Ends it: questions under way are given up. To be called before the store stops.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        *held(&self.shared.state) = State::Closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for (socket, thread) in std::mem::take(&mut *held(&self.shared.connections)) {
            // The question's thread ends by itself; what waits for the peer ends now.
            let _ = socket.shutdown(std::net::Shutdown::Both);
            let _ = thread.join();
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.end();
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    let turn = Timespec::try_from(limits::CONSOLE_TURN).expect("a short time");
    while !shared.stop.load(Ordering::Relaxed) {
        let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&turn));
        held(&shared.connections).retain(|(_, thread)| !thread.is_finished());
        let Ok((peer, _)) = listener.accept() else {
            continue;
        };
        if held(&shared.connections).len() >= limits::CONSOLE_CONNECTIONS_MAX || !is_operator(&peer) {
            log::line(Level::Warn, "a connection to the console was closed: not the operator's, or too many", &[]);
            continue;
        }
        let Ok(socket) = peer.try_clone() else { continue };
        let (answering, thread) = (Arc::clone(shared), std::thread::Builder::new().name("console line".to_owned()));
        match thread.spawn(move || converse(&answering, peer)) {
            Ok(thread) => held(&shared.connections).push((socket, thread)),
            Err(error) => log::line(Level::Warn, "no thread for a connection to the console", &[("error", &Operator::text(&error))]),
        }
    }
}

/// One question and its answer. A peer that goes away ends it; what was begun goes on.
fn converse(shared: &Shared, mut peer: UnixStream) {
    let times = peer.set_nonblocking(false).and_then(|()| peer.set_read_timeout(Some(limits::CONSOLE_TIME_MAX)));
    if times.and_then(|()| peer.set_write_timeout(Some(limits::CONSOLE_TIME_MAX))).is_err() {
        return;
    }
    let answer = match read::<Question>(&mut peer) {
        Err(_) => Err(Failure::new(Exit::Usage, "not a question that this version of the service understands")),
        Ok(mut question) => {
            let answer = answer(shared, &question.ask, &question.with, &mut |text| {
                let _ = write(&mut peer, &Answer::Say(text.to_owned()));
            });
            wipe(&mut question.with);
            answer
        }
    };
    let _ = match answer {
        Ok(value) => write(&mut peer, &Answer::Done(value)),
        Err(failure) => write(&mut peer, &Answer::Failed { exit: failure.exit.code(), message: failure.message }),
    };
}

fn answer(shared: &Shared, ask: &str, with: &Value, say: &mut dyn FnMut(&str)) -> Result<Value, Failure> {
    let (name, found) = match &*held(&shared.state) {
        State::Locked(keys) => ("locked", Ok(keys.clone())),
        State::Opening => ("opening", Err(None)),
        State::Open(desk) => ("open", Err(Some(Arc::clone(desk)))),
        State::Closed => ("closed", Err(None)),
    };
    match (ask, found) {
        ("state", _) => Ok(json!({ "state": name })),
        ("unlock", Ok(keys)) => unlock(shared, &keys, with),
        ("unlock", Err(Some(_))) => Err(Failure::new(Exit::Usage, "the service is unlocked already")),
        (_, Err(Some(desk))) => desk::answer(&desk, ask, with, say),
        (_, Ok(_)) => Err(Failure::new(Exit::Temporary, "the service is locked; unlock it first: rosemary unlock")),
        (_, Err(None)) => Err(Failure::new(Exit::Temporary, format_args!("the service is {name}; try again"))),
    }
}

fn unlock(shared: &Shared, keys: &SyncSender<Attempt>, with: &Value) -> Result<Value, Failure> {
    let malformed = || Failure::new(Exit::Usage, "not a key that this version of the service understands");
    let kek = (|| {
        let kind = SlotKind::from_number(u8::try_from(with["kind"].as_u64()?).ok()?)?;
        let secret = hex::decode(with["secret"].as_str()?).filter(|bytes| !bytes.is_empty() && bytes.len() <= limits::KEK_BYTES_MAX)?;
        Some(Kek::presented(kind, Secret::new(secret), with["instance"].as_str().and_then(InstanceId::parse)))
    })();
    let kek = kek.ok_or_else(malformed)?;
    let busy = || Failure::new(Exit::Temporary, "another key is being tried; try again");
    // Held until it is known what came of it: one at a time.
    let mut tries = shared.tries.try_lock().map_err(|_| busy())?;
    if let Some(left) = tries.not_before.and_then(|at| at.checked_duration_since(Instant::now())) {
        let text = format!("{} wrong keys were brought; wait {} s before the next", tries.failed, left.as_secs() + 1);
        return Err(Failure::new(Exit::Temporary, text));
    }
    let (answer, told) = sync_channel(1);
    keys.send(Attempt { kek, answer }).map_err(|_| busy())?;
    let gone = || Failure::new(Exit::Temporary, "the service is stopping");
    let came = told.recv().unwrap_or_else(|_| Err(gone()));
    if came.as_ref().is_err_and(|failure| failure.exit == Exit::KekWrong) {
        tries.fail(Instant::now());
        shared.failed.store(tries.failed, Ordering::Relaxed);
    }
    came.map(|()| json!({ "state": "open" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_pause_doubles_up_to_its_bound() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..40 {
            tries.fail(now);
            pauses.push(tries.not_before.unwrap() - now);
        }
        assert_eq!(pauses[..3], [1, 2, 4].map(Duration::from_secs));
        assert_eq!(pauses[39], limits::UNLOCK_PAUSE_MAX);
    }

    #[test]
    fn frames_are_read_back_and_one_that_is_too_long_or_cut_is_refused() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        write(&mut a, &Question { ask: "state".to_owned(), with: json!({ "n": 1 }) }).unwrap();
        let question: Question = read(&mut b).unwrap();
        assert_eq!((question.ask.as_str(), question.with), ("state", json!({ "n": 1 })));
        a.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(read::<Question>(&mut b).err().unwrap().kind(), io::ErrorKind::InvalidData);
        a.write_all(&[9, 0, 0, 0, b'{']).unwrap();
        drop(a);
        assert!(read::<Question>(&mut b).is_err());
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_nothing_else_is() {
        let folder = std::env::temp_dir().join(format!("rosemary-console-{}", hex::encode(&crate::base::rng::array::<8>())));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("console.sock");
        let first = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(listen(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "not a socket").unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"not a socket");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
