//! Bytes over TLS on a blocking socket, each wait under an absolute deadline, or without any waiting.
//!
//! Invariants
//! - No call outlasts its deadline by more than a timer tick, however slowly the peer sends or reads.
//! - What was decrypted is handed out before the socket is read again; nothing is read ahead beyond one record.
//! - An answer that fits one record leaves in one record and one system call.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use rustls::ServerConnection;

use crate::base::duty;
use crate::base::limits::{LINGER_BYTES_MAX, LINGER_TIME_MAX, READS_AT_ONCE_MAX};
use crate::http::admission::Place;

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

/// A connection's socket. Its timeouts are set from an absolute deadline before each call, and only when they changed.
pub(super) struct Socket {
    stream: TcpStream,
    /// Milliseconds; 0 while none is set.
    read_timeout: AtomicU64,
    /// As `read_timeout`.
    write_timeout: AtomicU64,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, read_timeout: AtomicU64::new(0), write_timeout: AtomicU64::new(0) }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once.
    pub(super) fn hear(&self, out: &mut [u8], deadline: Instant) -> Result<usize, Gone> {
        match (Timed { socket: self, until: Some(deadline) }).read(out)? {
            0 => Err(Gone::Closed),
            count => Ok(count),
        }
    }
}

/// Sets a timeout for the time until `deadline`, rounded up to a tick so that phases of one length need no new system call.
fn arm(deadline: Instant, known: &AtomicU64, set: impl FnOnce(Option<Duration>) -> io::Result<()>) -> io::Result<()> {
    const TICK_MS: u64 = 50;
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX - TICK_MS);
    let ms = (ms + 1).next_multiple_of(TICK_MS);
    if ms != known.load(Ordering::Relaxed) {
        set(Some(Duration::from_millis(ms)))?;
        known.store(ms, Ordering::Relaxed);
    }
    Ok(())
}

/// A socket for one call of TLS: under a deadline, or without any waiting.
struct Timed<'s> {
    socket: &'s Socket,
    until: Option<Instant>,
}

impl Read for Timed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Socket { stream, read_timeout, .. } = self.socket;
        loop {
            let read = match self.until {
                Some(deadline) => {
                    arm(deadline, read_timeout, |time| stream.set_read_timeout(time))?;
                    (&*stream).read(out)
                }
                None => rustix::net::recv(stream, &mut *out, RecvFlags::DONTWAIT).map(|(read, _)| read).map_err(io::Error::from),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let Socket { stream, write_timeout, .. } = self.socket;
        match self.until {
            Some(deadline) => {
                arm(deadline, write_timeout, |time| stream.set_write_timeout(time))?;
                (&*stream).write_vectored(parts)
            }
            // One part: the call that takes several and does not wait is among those that no thread may make (`sandbox::seccomp`).
            None => {
                let part = parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
                Ok(rustix::net::send(stream, part, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is to be sent, and how much of it TLS has taken.
pub(super) struct Outgoing<'a> {
    parts: [&'a [u8]; 2],
}

impl<'a> Outgoing<'a> {
    /// `head`, then `body`.
    pub(super) fn new(head: &'a [u8], body: &'a [u8]) -> Self {
        Self { parts: [head, body] }
    }

    /// Bytes that TLS has not taken.
    pub(super) fn left(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Notes that so many bytes are taken.
    pub(super) fn take(&mut self, mut bytes: usize) {
        for part in &mut self.parts {
            let taken = bytes.min(part.len());
            *part = &part[taken..];
            bytes -= taken;
        }
    }
}

/// A TLS connection on its socket.
pub(super) struct Wire {
    place: Arc<Place>,
    tls: ServerConnection,
}

impl Wire {
    /// The connection before its handshake.
    pub(super) fn new(place: Arc<Place>, tls: ServerConnection) -> Self {
        Self { place, tls }
    }

    /// Shakes hands until `deadline`; the costly steps wait their turn at `gate`. Says whether the peer sent anything, with the outcome.
    pub(super) fn handshake(&mut self, deadline: Instant, gate: &Turnstile) -> (bool, Result<(), Gone>) {
        let mut spoke = false;
        let mut shake = || {
            while self.tls.is_handshaking() {
                self.flush(Some(deadline))?;
                self.receive(Some(deadline))?;
                spoke = true;
                // The turn ends before any alert is sent: nobody waits for this peer to read.
                let turn = gate.pass(deadline).ok_or(Gone::TimedOut)?;
                let digested = self.digest();
                drop(turn);
                self.alert(digested, Some(deadline))?;
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

    /// Appends to `into` what the peer sent, at least one and at most `max` bytes: within the deadline, or without one what is there at once
    /// (else `TimedOut`). What TLS sends for itself gives no text and can go on for ever (RFC 8446 sections 4.6.3 and 5.1): without a deadline only
    /// so much of it is read.
    pub(super) fn fill(&mut self, into: &mut Vec<u8>, max: usize, deadline: Option<Instant>) -> Result<(), Gone> {
        let mut reads = 0;
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
            if deadline.is_none() && reads == READS_AT_ONCE_MAX {
                return Err(Gone::TimedOut);
            }
            reads += 1;
            self.flush(deadline)?;
            self.receive(deadline)?;
            let digested = self.digest();
            self.alert(digested, deadline)?;
        }
    }

    /// As [`Wire::fill`], stepping aside only if there is something to wait for.
    pub(super) fn fill_within(&mut self, into: &mut Vec<u8>, max: usize, deadline: Instant) -> Result<(), Gone> {
        if deadline <= Instant::now() {
            return Err(Gone::TimedOut);
        }
        match self.fill(into, max, None) {
            Err(Gone::TimedOut) => {
                duty::step_aside();
                self.fill(into, max, Some(deadline))
            }
            filled => filled,
        }
    }

    /// Whether something is still to be sent that the peer did not take.
    pub(super) fn is_clogged(&self) -> bool {
        self.tls.wants_write()
    }

    /// Whether something that the peer sent waits to be taken by [`Wire::fill`].
    pub(super) fn has_more(&mut self) -> bool {
        !matches!(self.tls.reader().fill_buf(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends `head` and `body` whole, stepping aside only if there is something to wait for.
    pub(super) fn send(&mut self, head: &[u8], body: &[u8], deadline: Instant) -> Result<(), Gone> {
        let mut out = Outgoing::new(head, body);
        if !self.offer(&mut out, None)? {
            duty::step_aside();
            self.offer(&mut out, Some(deadline))?;
        }
        Ok(())
    }

    /// Sends what the peer takes, within the deadline or, without one, at once. Says whether that was all of it; with a deadline it was.
    pub(super) fn offer(&mut self, out: &mut Outgoing<'_>, deadline: Option<Instant>) -> Result<bool, Gone> {
        loop {
            if out.left() > 0 {
                let taken = self.tls.writer().write_vectored(&out.parts.map(IoSlice::new))?;
                out.take(taken);
            }
            match self.flush(deadline) {
                Err(Gone::TimedOut) if deadline.is_none() => return Ok(false),
                flushed => flushed?,
            }
            if out.left() == 0 {
                return Ok(true);
            }
        }
    }

    /// Whether the peer is still there and has sent nothing. Does not wait.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut ready = [PollFd::new(self.place.socket.stream(), PollFlags::IN)];
        match poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => {}
            // What came may be TLS's own (a new key): only text or the end counts.
            Ok(_) if self.receive(Some(Instant::now() + LINGER_TIME_MAX)).is_err() || self.digest().is_err() => return false,
            Ok(_) => {}
            Err(_) => return false,
        }
        !self.has_more()
    }

    /// Says that nothing more will be said; without a deadline, if that can be done at once.
    pub(super) fn fall_silent(&mut self, deadline: Option<Instant>) -> Result<(), Gone> {
        self.tls.send_close_notify();
        self.flush(deadline)?;
        Ok(self.place.socket.stream().shutdown(Shutdown::Write)?)
    }

    /// Says goodbye and lets the peer read what was sent: a socket closed over unread bytes would take the answer back (TCP reset).
    pub(super) fn finish(mut self) {
        let deadline = Instant::now() + LINGER_TIME_MAX;
        if self.fall_silent(Some(deadline)).is_err() {
            return;
        }
        let socket = &self.place.socket;
        let (mut scrap, mut read) = (vec![0; 16 * 1024], 0);
        while read < LINGER_BYTES_MAX {
            match socket.hear(&mut scrap, deadline) {
                Ok(bytes) => read += bytes,
                Err(_) => return,
            }
        }
    }

    /// Reads once; without a deadline only what is there (else `TimedOut`).
    fn receive(&mut self, deadline: Option<Instant>) -> Result<(), Gone> {
        let taken = self.tls.read_tls(&mut Timed { socket: &self.place.socket, until: deadline })?;
        if taken == 0 { Err(Gone::Closed) } else { Ok(()) }
    }

    /// Digests received records.
    fn digest(&mut self) -> Result<(), Gone> {
        self.tls.process_new_packets().map(drop).map_err(|_| Gone::Tls)
    }

    /// After a breach of TLS, tells the peer by the alert that `digest` left to send.
    fn alert(&mut self, digested: Result<(), Gone>, deadline: Option<Instant>) -> Result<(), Gone> {
        digested.inspect_err(|_| {
            let _ = self.flush(deadline);
        })
    }

    /// Sends what TLS has to send: within the deadline, or without one as far as that needs no waiting (else `TimedOut`).
    fn flush(&mut self, deadline: Option<Instant>) -> Result<(), Gone> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Timed { socket: &self.place.socket, until: deadline }) {
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
