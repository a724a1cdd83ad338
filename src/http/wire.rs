//! Bytes over TLS on a blocking socket, each wait under an absolute deadline.
//!
//! Invariants
//! - No call outlasts its deadline by more than a timer tick, however slowly the peer sends or reads.
//! - What was decrypted is handed out before the socket is read again; nothing is read ahead beyond one record.
//! - An answer that fits one record leaves in one record and one system call.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ServerConnection;

use crate::base::limits::{LINGER_BYTES_MAX, LINGER_TIME_MAX};

/// Why no more bytes come or go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gone {
    /// The peer closed, or the network did.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// The peer does not speak TLS as we do.
    Tls,
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Closed,
        }
    }
}

/// A blocking socket whose timeouts are set from an absolute deadline before each call, and only when they changed.
struct Timed<'s> {
    socket: &'s TcpStream,
    deadline: Instant,
    read_timeout: Duration,
    write_timeout: Duration,
}

impl Timed<'_> {
    /// Time left, rounded up to a tick so that phases of one length need no new system call.
    fn left(&self) -> io::Result<Duration> {
        const TICK_MS: u64 = 50;
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX - TICK_MS);
        Ok(Duration::from_millis((ms + 1).next_multiple_of(TICK_MS)))
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.left()?;
            if left != self.read_timeout {
                self.socket.set_read_timeout(Some(left))?;
                self.read_timeout = left;
            }
            match self.socket.read(out) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Timed<'_> {
    fn arm_write(&mut self) -> io::Result<()> {
        let left = self.left()?;
        if left != self.write_timeout {
            self.socket.set_write_timeout(Some(left))?;
            self.write_timeout = left;
        }
        Ok(())
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arm_write()?;
        self.socket.write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.arm_write()?;
        self.socket.write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A TLS connection on its socket.
pub(super) struct Wire<'s> {
    socket: Timed<'s>,
    tls: ServerConnection,
}

impl<'s> Wire<'s> {
    /// The connection before its handshake.
    pub(super) fn new(socket: &'s TcpStream, tls: ServerConnection) -> Self {
        let none = Duration::MAX;
        Self { socket: Timed { socket, deadline: Instant::now(), read_timeout: none, write_timeout: none }, tls }
    }

    /// Shakes hands within `time`; the costly steps wait their turn at `gate`. Says whether the peer sent anything, with the outcome.
    pub(super) fn handshake(&mut self, time: Duration, gate: &Turnstile) -> (bool, Result<(), Gone>) {
        self.socket.deadline = Instant::now() + time;
        let mut spoke = false;
        let mut shake = || {
            while self.tls.is_handshaking() {
                self.flush()?;
                self.receive()?;
                spoke = true;
                // The turn ends before any alert is sent: nobody waits for this peer to read.
                let turn = gate.pass(self.socket.deadline).ok_or(Gone::TimedOut)?;
                let digested = self.digest();
                drop(turn);
                self.alert(digested)?;
            }
            Ok(())
        };
        let outcome = shake();
        (spoke, outcome)
    }

    /// Whether the peer proved a client certificate.
    pub(super) fn has_client_certificate(&self) -> bool {
        self.tls.peer_certificates().is_some_and(|chain| !chain.is_empty())
    }

    /// Appends to `into` what the peer sent, at least one and at most `max` bytes.
    pub(super) fn fill(&mut self, into: &mut Vec<u8>, max: usize, deadline: Instant) -> Result<(), Gone> {
        self.socket.deadline = deadline;
        loop {
            let mut reader = self.tls.reader();
            match reader.fill_buf() {
                Ok([]) => return Err(Gone::Closed),
                Ok(bytes) => {
                    let taken = bytes.len().min(max);
                    into.extend_from_slice(&bytes[..taken]);
                    reader.consume(taken);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Gone::Closed),
            }
            self.flush()?;
            self.receive()?;
            let digested = self.digest();
            self.alert(digested)?;
        }
    }

    /// Sends `head` and `body` whole.
    pub(super) fn send(&mut self, head: &[u8], body: &[u8], deadline: Instant) -> Result<(), Gone> {
        self.socket.deadline = deadline;
        let mut parts = [IoSlice::new(head), IoSlice::new(body)];
        let mut parts = &mut parts[..];
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let taken = self.tls.writer().write_vectored(parts)?;
            IoSlice::advance_slices(&mut parts, taken);
            self.flush()?;
        }
        Ok(())
    }

    /// Whether the peer is still there and has sent nothing. Does not wait.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut ready = [PollFd::new(self.socket.socket, PollFlags::IN)];
        match poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => {}
            // What came may be TLS's own (a new key): only text or the end counts.
            Ok(_) => {
                self.socket.deadline = Instant::now() + LINGER_TIME_MAX;
                if self.receive().is_err() || self.digest().is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
        matches!(self.tls.reader().fill_buf(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says goodbye and lets the peer read what was sent: a socket closed over unread bytes would take the answer back (TCP reset).
    pub(super) fn finish(mut self) {
        self.socket.deadline = Instant::now() + LINGER_TIME_MAX;
        self.tls.send_close_notify();
        if self.flush().is_err() || self.socket.socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let (mut scrap, mut read) = (vec![0; 16 * 1024], 0);
        while read < LINGER_BYTES_MAX {
            match self.socket.read(&mut scrap) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => read += bytes,
            }
        }
    }

    /// Reads the socket once.
    fn receive(&mut self) -> Result<(), Gone> {
        match self.tls.read_tls(&mut self.socket)? {
            0 => Err(Gone::Closed),
            _ => Ok(()),
        }
    }

    /// Digests received records.
    fn digest(&mut self) -> Result<(), Gone> {
        self.tls.process_new_packets().map(drop).map_err(|_| Gone::Tls)
    }

    /// After a breach of TLS, tells the peer by the alert that `digest` left to send.
    fn alert(&mut self, digested: Result<(), Gone>) -> Result<(), Gone> {
        digested.inspect_err(|_| {
            let _ = self.flush();
        })
    }

    /// Sends what TLS has to send.
    fn flush(&mut self) -> Result<(), Gone> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(Gone::Closed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

/// A few may pass at once, so that a flood of handshakes cannot take every core from the clients that are already in.
pub(super) struct Turnstile {
    free: Mutex<usize>,
    turned: Condvar,
}

impl Turnstile {
    /// Lets `count` pass at once.
    pub(super) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), turned: Condvar::new() }
    }

    /// Waits for a turn, which ends when the answer is dropped; `None` if `deadline` came first.
    fn pass(&self, deadline: Instant) -> Option<Turn<'_>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut free, _) = self.turned.wait_timeout_while(free, left, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Turn(self))
    }
}

struct Turn<'t>(&'t Turnstile);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.turned.notify_one();
    }
}
