//! Frames: what service and relay say to one another over the UNIX socket.
//!
//! ```text
//! frame   length u32 LE | version u8 = 1 | postcard        length counts what follows it, at most EGRESS_FRAME_BYTES_MAX
//! relay   Relay once, then Done for each Order
//! ```
//!
//! Invariants
//! - Nothing is allocated for a length that is not allowed, and no more than has arrived for one that is.
//! - A frame is read back strictly: what would not be written again byte for byte is none.
//! - A frame that has begun ends within `EGRESS_FRAME_TIME_MAX`; its bytes are wiped.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::base::{codec, limits};

/// Version of all frames.
const VERSION: u8 = 1;

/// What comes to the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// A relay introduces itself.
    Relay(Hello),
    /// How an order ended.
    Done(u64, End),
}

/// A relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Destinations on its list.
    pub destinations: u16,
    /// Which of them is the model's, counted from 0.
    pub model: Option<u16>,
    /// Whether the kernel locks it in.
    pub locked: bool,
}

/// What the service says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number on this line.
    pub number: u64,
    /// What is to be done.
    pub what: What,
}

/// What the relay is to do.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Post this JSON to the model's endpoint and give its answer.
    Model(String),
    /// Connect to the destination of this number, counted from 0, and finish a TLS handshake; send nothing else.
    Test(u16),
}

impl What {
    /// The word for the log.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Model(_) => "model",
            Self::Test(_) => "test",
        }
    }
}

impl Drop for What {
    fn drop(&mut self) {
        if let Self::Model(text) = self {
            text.zeroize();
        }
    }
}

/// How an order ended.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Whether the destination answered, or why it did not.
    pub outcome: Outcome,
    /// HTTP status of the answer, 0 where there is none.
    pub status: u16,
    /// The answer.
    pub body: String,
}

impl End {
    /// An end without an answer.
    pub const fn without(outcome: Outcome) -> Self {
        Self::with_status(outcome, 0)
    }

    /// An end without an answer that is of use, though with its status.
    pub const fn with_status(outcome: Outcome, status: u16) -> Self {
        Self { outcome, status, body: String::new() }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.body.zeroize();
    }
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "End({:?}, {})", self.outcome, self.status)
    }
}

macro_rules! outcomes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $word:literal;)+) => {
        /// How an attempt to get out ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Outcome { $($(#[doc = $meaning])+ $name,)+ }

        impl Outcome {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in the log.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

outcomes! {
    /// The destination answered.
    Answered = "answered";
    /// The relay's list has no such destination, or no model.
    NotListed = "not_listed";
    /// The name led to an address that the rules forbid.
    AddressRefused = "address_refused";
    /// The name led nowhere.
    NameUnknown = "name_unknown";
    /// Nobody took the connection, or the kernel refused it.
    Unreachable = "unreachable";
    /// The certificate is not one that is trusted for this host, or the handshake failed.
    TlsFailed = "tls_failed";
    /// It took too long.
    TimedOut = "timed_out";
    /// The answer was too large.
    TooLarge = "too_large";
    /// The answer pointed elsewhere; it was not followed.
    Redirected = "redirected";
    /// The answer was no HTTP, or no text.
    BadAnswer = "bad_answer";
    /// The connection broke off.
    BrokenOff = "broken_off";
    /// The relay has as many orders as it takes.
    Busy = "busy";
    /// The relay went away.
    RelayLost = "relay_lost";
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side has closed.
    #[error("closed")]
    Closed,
    /// The bytes are no frame.
    #[error("not a frame of this version")]
    Malformed,
    /// It is longer than a frame may be.
    #[error("longer than {} bytes", limits::EGRESS_FRAME_BYTES_MAX)]
    TooLong,
    /// It did not come, or go, in time, or the socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A frame as bytes. `None` if it is too long for one.
pub fn encode(what: &impl Serialize) -> Option<Zeroizing<Vec<u8>>> {
    let body = Zeroizing::new(codec::encode(VERSION, what));
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= limits::EGRESS_FRAME_BYTES_MAX)?;
    let mut frame = Zeroizing::new(Vec::with_capacity(4 + body.len()));
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Some(frame)
}

/// Reads the frame's body, as [`encode`] writes it after the length.
///
/// Errors: `Malformed` for anything that it would not have written.
pub fn decode<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    codec::decode(VERSION, body).map_err(|_| FrameError::Malformed)
}

/// Writes a frame; the socket's own timeout bounds it.
pub fn write(mut to: &UnixStream, what: &impl Serialize) -> Result<(), FrameError> {
    let frame = encode(what).ok_or(FrameError::TooLong)?;
    Ok(to.write_all(&frame)?)
}

/// Reads a frame. Waits for its first byte for `wait` (for ever if `None`), then for the rest as long as a frame may take.
///
/// Errors: [`FrameError`]; after any but a timeout before the first byte the stream is of no more use.
pub fn read<T: Serialize + DeserializeOwned>(from: &UnixStream, wait: Option<Duration>) -> Result<T, FrameError> {
    let mut head = [0; 4];
    from.set_read_timeout(wait)?;
    fill(from, &mut head[..1], None)?;
    let end = Instant::now() + limits::EGRESS_FRAME_TIME_MAX;
    fill(from, &mut head[1..], Some(end))?;
    let length = usize::try_from(u32::from_le_bytes(head)).map_err(|_| FrameError::TooLong)?;
    if length > limits::EGRESS_FRAME_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    let mut body = Zeroizing::new(Vec::new());
    while body.len() < length {
        let at = body.len();
        let part = (length - at).min(64 * 1024);
        // Grown by hand: a vector that moves by itself leaves its old bytes behind.
        if body.capacity() < at + part {
            let mut larger = Zeroizing::new(Vec::with_capacity((2 * at).max(at + part).min(length)));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.resize(at + part, 0);
        fill(from, &mut body[at..], Some(end))?;
    }
    decode(&body)
}

fn fill(mut from: &UnixStream, mut into: &mut [u8], end: Option<Instant>) -> Result<(), FrameError> {
    while !into.is_empty() {
        if let Some(end) = end {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            from.set_read_timeout(Some(left))?;
        }
        match from.read(into) {
            Ok(0) => return Err(FrameError::Closed),
            Ok(n) => into = &mut into[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_crosses_whole_and_anything_else_is_none() {
        let (one, other) = UnixStream::pair().unwrap();
        let order = Order { number: 7, what: What::Model("x".repeat(300_000)) };
        let sent = order.clone();
        let writer = std::thread::spawn(move || write(&one, &sent).map(|()| one));
        assert!(read::<Order>(&other, None).unwrap() == order);
        drop(writer.join().unwrap());
        assert!(matches!(read::<Order>(&other, None), Err(FrameError::Closed)));

        for bytes in [&[0, 0, 0, 0][..], &[1, 0, 0, 0, 1], &[2, 0, 0, 0, 2, 1], &[3, 0, 0, 0, 1, 2, 0], &[3, 0, 0, 0, 1, 9, 9]] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(bytes).unwrap();
            drop(one);
            assert!(matches!(read::<Said>(&other, None), Err(FrameError::Malformed)), "{bytes:?}");
        }
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(&[0, 0, 0, 1]).unwrap();
        assert!(matches!(read::<Said>(&other, None), Err(FrameError::TooLong)));
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(&[200, 0, 0, 0, 1, 2]).unwrap();
        drop(one);
        assert!(matches!(read::<Said>(&other, None), Err(FrameError::Closed)));
    }

    #[test]
    fn what_is_too_long_is_not_written_and_words_differ() {
        assert!(encode(&Order { number: 1, what: What::Model("x".repeat(limits::EGRESS_FRAME_BYTES_MAX)) }).is_none());
        let words: std::collections::BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.word()).collect();
        assert_eq!(words.len(), Outcome::ALL.len());
    }

    #[test]
    fn nothing_of_what_is_sent_or_answered_is_printed() {
        let end = End { outcome: Outcome::Answered, status: 200, body: "canary".into() };
        assert_eq!(format!("{end:?}"), "End(Answered, 200)");
    }
}
