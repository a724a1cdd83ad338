//! Evidence of the lock: attempts to get out, and what the kernel answered each.
//!
//! Invariant: the addresses are of the documentation ranges (RFC 5737, RFC 3849) or of this machine, so that even without a lock nothing
//! of the site is reached; nothing is sent but what a connection attempt itself sends.

#![allow(clippy::disallowed_methods, reason = "what the lock must refuse is what is tried here, in a process made for it")]

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{Folders, LockError, engage};

/// One attempt and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What was tried, and from where.
    pub what: String,
    /// What the kernel answered; `None`: it let it happen.
    pub refused: Option<String>,
}

const WAIT: Duration = Duration::from_millis(300);

/// Locks this process, then tries every way out from a thread that is older than the lock, from this one and from a new one.
///
/// Errors: the lock could not be engaged.
pub fn attempts() -> Result<Vec<Attempt>, LockError> {
    let (go, wait) = mpsc::channel::<()>();
    let older = thread::spawn(move || {
        let _ = wait.recv();
        all("an older thread")
    });
    engage(&Folders::default())?;
    let _ = go.send(());
    let mut found = older.join().unwrap_or_default();
    found.extend(all("this thread"));
    found.extend(thread::spawn(|| all("a new thread")).join().unwrap_or_default());
    Ok(found)
}

fn all(from: &str) -> Vec<Attempt> {
    let tried: [(&str, io::Result<()>); 7] = [
        ("TCP over IPv4", tcp("192.0.2.1:443")),
        ("TCP over IPv6", tcp("[2001:db8::1]:443")),
        ("TCP to this machine", tcp("127.0.0.1:9")),
        ("UDP", udp("192.0.2.1:9")),
        ("DNS", udp("192.0.2.53:53")),
        ("a UNIX socket", UnixDatagram::unbound().map(drop).and_then(|()| reached(UnixStream::connect("/run/systemd/notify").map(drop)))),
        ("a child program", std::process::Command::new("/bin/true").spawn().and_then(|mut child| child.wait()).map(drop)),
    ];
    let name = |what: &str| format!("{what} from {from}");
    tried
        .into_iter()
        .map(|(what, ended)| Attempt { what: name(what), refused: ended.err().filter(is_refusal).map(|error| error.to_string()) })
        .collect()
}

/// Only "not permitted" is the lock's answer; that nobody was there is not.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// A socket that could be made counts as a way out, whoever answered.
fn reached(ended: io::Result<()>) -> io::Result<()> {
    match ended {
        Err(error) if is_refusal(&error) => Err(error),
        _ => Ok(()),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("a constant of this file")
}

fn tcp(to: &str) -> io::Result<()> {
    reached(TcpStream::connect_timeout(&address(to), WAIT).map(drop))
}

fn udp(to: &str) -> io::Result<()> {
    UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect(address(to)))
}
