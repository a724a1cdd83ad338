//! Typed ids: 16 bytes, printed as lower-case UUIDs (RFC 9562).
//!
//! Invariants
//! - An id of one kind is never taken for another: each kind is its own type.
//! - Time-ordered ids (v7) from one process only ever increase, even when the clock steps back.
//! - Only the canonical lower-case text form is read; anything else is "no such id", never an error with the text in it.

use std::fmt;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::base::time::Timestamp;
use crate::base::{hex, rng};

/// Prints 16 bytes in the form 8-4-4-4-12.
pub fn format_uuid(bytes: &[u8; 16]) -> String {
    uuid_text(bytes, |text| text.to_owned())
}

/// Gives the form 8-4-4-4-12 of 16 bytes to `take`, without a piece of memory of its own.
fn uuid_text<T>(bytes: &[u8; 16], take: impl FnOnce(&str) -> T) -> T {
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in bytes.iter().enumerate() {
        at += usize::from(matches!(i, 4 | 6 | 8 | 10));
        text[at..at + 2].copy_from_slice(&hex::pair(*byte));
        at += 2;
    }
    take(std::str::from_utf8(&text).expect("hex digits and hyphens are ASCII"))
}

/// Reads the canonical lower-case form 8-4-4-4-12.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != 36 {
        return None;
    }
    let mut out = [0; 16];
    let mut at = 0;
    for (i, byte) in out.iter_mut().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            if text[at] != b'-' {
                return None;
            }
            at += 1;
        }
        *byte = hex::value(text[at])? << 4 | hex::value(text[at + 1])?;
        at += 2;
    }
    Some(out)
}

fn uuid_v4() -> [u8; 16] {
    let mut bytes = rng::array::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// Last (milliseconds, counter) handed out by [`IdSource`]: RFC 9562 section 6.2 method 1, a 12-bit counter in rand_a.
#[derive(Debug, Default)]
pub struct IdSource {
    last: Mutex<(u64, u16)>,
}

impl IdSource {
    /// A source that continues after nothing.
    pub const fn new() -> Self {
        Self { last: Mutex::new((0, 0)) }
    }

    /// The next UUIDv7 for `now`, above every one before it.
    pub fn uuid_v7(&self, now: Timestamp) -> [u8; 16] {
        let mut bytes = rng::array::<16>();
        let (ms, counter) = {
            let mut last = self.last.lock().expect("no code panics while it holds this lock");
            // A fresh millisecond starts its counter in the lower half so that a burst has room.
            let fresh = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x07ff;
            *last = match *last {
                (ms, _) if now.ms() > ms => (now.ms(), fresh),
                (ms, 0x0fff) => (ms + 1, fresh),
                (ms, counter) => (ms, counter + 1),
            };
            *last
        };
        bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&(0x7000 | counter).to_be_bytes());
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes
    }
}

/// The process's source of time-ordered ids.
static IDS: IdSource = IdSource::new();

macro_rules! ids {
    ($($(#[$text:meta])* $name:ident: $version:ident;)*) => {$(
        $(#[$text])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with these 16 bytes, as stored.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes, as stored.
            pub const fn bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Reads the canonical text form; `None` if it is not one.
            pub fn parse(text: &str) -> Option<Self> {
                parse_uuid(text).map(Self)
            }

            ids!(@draw $version);
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid_text(&self.0, |text| f.write_str(text))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), format_uuid(&self.0))
            }
        }
    )*};
    (@draw v7) => {
        /// Draws a time-ordered id (UUIDv7).
        pub fn draw(now: Timestamp) -> Self {
            Self(IDS.uuid_v7(now))
        }
    };
    (@draw v4) => {
        /// Draws a random id (UUIDv4).
        pub fn draw() -> Self {
            Self(uuid_v4())
        }
    };
}

ids! {
    /// A memory.
    MemoryId: v7;
    /// A person with a sign-in; the owner of memories.
    UserId: v7;
    /// A workspace: the isolation unit.
    TenantId: v4;
    /// The person a memory is about.
    SubjectId: v4;
    /// A stored or configured credential.
    CredentialId: v4;
    /// One request's operation, drawn by the server.
    OperationId: v4;
    /// One start of the process.
    BootId: v4;
    /// The data's identity for its whole life.
    InstanceId: v4;
    /// One physical copy of the data.
    FileId: v4;
    /// One audit log.
    LogId: v4;
    /// A session of an MCP client.
    McpSessionId: v4;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_form_is_read() {
        let text = "0194fdc2-fa2f-7cc0-81d3-ff12045b73c8";
        let id = MemoryId::parse(text).unwrap();
        assert_eq!(id.to_string(), text);
        for bad in [
            "",
            "0194FDC2-fa2f-7cc0-81d3-ff12045b73c8",
            "0194fdc2fa2f7cc081d3ff12045b73c8",
            "0194fdc2-fa2f-7cc0-81d3-ff12045b73c",
            "0194fdc2+fa2f-7cc0-81d3-ff12045b73c8",
            "é194fdc2-fa2f-7cc0-81d3-ff12045b73c",
        ] {
            assert_eq!(MemoryId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ordered_ids_increase_even_when_the_clock_steps_back() {
        let source = IdSource::new();
        let mut last = source.uuid_v7(Timestamp::from_ms(1_000_000));
        for i in 0..20_000u64 {
            let next = source.uuid_v7(Timestamp::from_ms(if i < 10_000 { 1_000_000 } else { 500 }));
            assert!(next > last);
            assert_eq!((next[6] >> 4, next[8] >> 6), (7, 2));
            last = next;
        }
    }

    #[test]
    fn random_ids_are_version_4() {
        let id = SubjectId::draw();
        assert_eq!((id.bytes()[6] >> 4, id.bytes()[8] >> 6), (4, 2));
    }
}
