//! The operator's log: one line an event on standard error, with a level that journald understands.
//!
//! Invariants
//! - A line is made of fixed words and [`LogSafe`] values only; nothing that can hold record text, a key or a client's words is one.
//! - A value cannot add a line: only numbers, ids and words of the program are printed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::base::id;
use crate::base::time::Timestamp;

/// How much is logged. Lower is more important.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// The service cannot do its work.
    Error = 3,
    /// Somebody should look.
    Warn = 4,
    /// Starts, stops and the like.
    Info = 6,
    /// For a person hunting a fault.
    Debug = 7,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sets the least important level that is still printed.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// A value that may be printed in the log: it cannot carry record text, secrets or a client's words.
pub trait LogSafe {
    /// Appends the value to `line`.
    fn log_to(&self, line: &mut String);
}

macro_rules! log_safe {
    ($($kind:ty),*) => {$(
        impl LogSafe for $kind {
            fn log_to(&self, line: &mut String) {
                let _ = write!(line, "{self}");
            }
        }
    )*};
}
// `&'static str` is a word of the program; a `String` is not LogSafe on purpose.
log_safe!(u8, u16, u32, u64, usize, i32, i64, bool, &'static str, Timestamp, std::net::SocketAddr);
log_safe!(
    id::MemoryId,
    id::UserId,
    id::TenantId,
    id::SubjectId,
    id::CredentialId,
    id::OperationId,
    id::BootId,
    id::InstanceId,
    id::FileId,
    id::LogId
);

/// Text about the operator's own machine (a path, a setting, an operating system's error), with control characters replaced.
#[derive(Debug)]
pub struct Operator(String);

impl Operator {
    /// `text` must come from the operator or the operating system, never from a request or a record.
    pub fn text(text: &dyn std::fmt::Display) -> Self {
        Self(text.to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    }
}

impl LogSafe for Operator {
    fn log_to(&self, line: &mut String) {
        let _ = write!(line, "{:?}", self.0);
    }
}

/// Prints `<level>what key=value …` on standard error. A log that cannot be written is not a reason to stop.
pub fn line(level: Level, what: &'static str, fields: &[(&'static str, &dyn LogSafe)]) {
    if level as u8 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let mut text = format!("<{}>{what}", level as u8);
    for (name, value) in fields {
        let _ = write!(text, " {name}=");
        value.log_to(&mut text);
    }
    text.push('\n');
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operator_text_cannot_add_a_line() {
        let mut line = String::new();
        Operator::text(&"a\nb\u{1b}[0m").log_to(&mut line);
        assert!(!line.contains('\n') && !line.contains('\u{1b}'));
    }
}
