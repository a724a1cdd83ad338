//! An answer, and its bytes.
//!
//! Invariants
//! - Every answer carries the security headers of the contract and forbids caching, unless the reply names its own `Cache-Control`.
//! - `Content-Length` is always the length of the body that GET would carry; no header value can add a line.
//! - A stream has no length: it ends with its connection (RFC 9112 section 6.3), which says so under TLS.
//! - A reply that comes later comes once, from whoever holds its [`Turn`]; a turn that is dropped answers 500.

use std::any::Any;
use std::cell::RefCell;
use std::io::Write as _;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::base::fault;
use crate::base::time::Timestamp;
use crate::base::wipe::wipe;
use crate::http::problem;

/// On every answer: REFLECT's response headers. No CORS permission is ever among them.
const FIXED: &[u8] = b"Strict-Transport-Security: max-age=63072000; includeSubDomains; preload\r\n\
    X-Content-Type-Options: nosniff\r\n\
    X-Frame-Options: DENY\r\n\
    Referrer-Policy: strict-origin-when-cross-origin\r\n\
    Vary: Origin\r\n";

/// What a reply keeps until it was sent: two replies are the same whatever they hold.
#[derive(Clone, Default)]
pub struct Hold(#[allow(dead_code, reason = "kept for its drop alone")] Option<Arc<dyn Any + Send + Sync>>);

impl PartialEq for Hold {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Hold {}

/// What goes on answering after the head of its [`Reply::stream`] has left.
pub trait Source: Send {
    /// What to send next. Waits for it, but not longer than `wait`: then it is asked again.
    fn next(&mut self, wait: Duration) -> Chunk;
}

/// What a [`Source`] gives.
pub enum Chunk {
    /// To be sent as it is, then wiped.
    Bytes(Zeroizing<Vec<u8>>),
    /// Nothing yet.
    Nothing,
    /// The stream is over.
    End,
}

/// The right to answer one request, once, from any thread: whoever gets it sends the answer itself, so that the thread which read the request
/// need not wait for it. Never waits for the peer.
pub struct Turn(Option<Box<dyn FnOnce(Reply) + Send>>);

impl Turn {
    /// A turn whose answer goes to `send`.
    pub fn new(send: impl FnOnce(Reply) + Send + 'static) -> Self {
        Self(Some(Box::new(send)))
    }

    /// Answers. The reply is there as a whole: one that would stream, or come later still, is a fault of ours and answers 500.
    pub fn answer(mut self, reply: Reply) {
        if let Some(send) = self.0.take() {
            send(if reply.rest.is_some() { broken() } else { reply });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            send(broken());
        }
    }
}

/// Waits for the answer that was promised.
pub(super) fn settled(ask: Box<dyn FnOnce(Turn) + Send>) -> Reply {
    let (send, answer) = channel();
    let turn = Turn::new(move |reply| drop(send.send(reply)));
    // A panic drops the turn, which answers.
    let _ = fault::catch(|| ask(turn));
    answer.recv().unwrap_or_else(|_| broken())
}

/// A fault of ours, which ends the connection.
fn broken() -> Reply {
    let mut reply = problem::error(500, "Internal server error");
    reply.close = true;
    reply
}

/// What a reply goes on with, taken once by the connection that sends it.
pub enum Rest {
    /// See [`Reply::stream`].
    Stream(Box<dyn Source>),
    /// See [`Reply::later`].
    Later(Box<dyn FnOnce(Turn) + Send>),
}

/// A [`Rest`], until it is taken. Two replies are the same whatever they go on with.
#[derive(Clone, Default)]
pub struct Untaken(Option<Arc<Mutex<Option<Rest>>>>);

impl Untaken {
    fn new(rest: Rest) -> Self {
        Self(Some(Arc::new(Mutex::new(Some(rest)))))
    }

    /// Gives it to whoever asks first.
    pub fn take(&self) -> Option<Rest> {
        self.0.as_ref()?.lock().ok()?.take()
    }

    fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

impl PartialEq for Untaken {
    fn eq(&self, other: &Self) -> bool {
        self.is_some() == other.is_some()
    }
}

impl Eq for Untaken {}

/// An answer to one request; its body is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Further header fields. Characters that could end a line become spaces.
    pub headers: Vec<(&'static str, String)>,
    /// The body; HEAD drops it and keeps its length, 204 and 304 have none.
    pub body: Vec<u8>,
    /// `Content-Type` of a body that is not empty.
    pub content_type: &'static str,
    /// Close the connection after this answer.
    pub close: bool,
    /// See [`Reply::holding`].
    pub hold: Hold,
    /// See [`Reply::stream`] and [`Reply::later`].
    pub rest: Untaken,
}

impl Reply {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self::bytes(status, "application/json; charset=utf-8", Vec::new())
    }

    /// An answer with `body` of `content_type`.
    pub fn bytes(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body, content_type, close: false, hold: Hold::default(), rest: Untaken::default() }
    }

    /// An answer of `content_type` whose body is what `source` gives until it ends; the connection ends with it.
    pub fn stream(content_type: &'static str, source: Box<dyn Source>) -> Self {
        let mut reply = Self::bytes(200, content_type, Vec::new());
        (reply.close, reply.rest) = (true, Untaken::new(Rest::Stream(source)));
        reply
    }

    /// The promise of an answer: `ask` is given the turn and passes it to whoever will have the answer. Of this reply only its header fields are
    /// sent, with those of the answer.
    pub fn later(ask: impl FnOnce(Turn) + Send + 'static) -> Self {
        let mut reply = Self::empty(200);
        reply.rest = Untaken::new(Rest::Later(Box::new(ask)));
        reply
    }

    /// Waits for the answer that was promised, where there is no connection to send it.
    #[cfg(any(test, feature = "bench-internals"))]
    pub fn settled(self) -> Self {
        match self.rest.take() {
            Some(Rest::Later(ask)) => settled(ask),
            _ => self,
        }
    }

    /// An answer with `value` as JSON.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::bytes(status, "application/json; charset=utf-8", value.to_string().into_bytes())
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Keeps `held` until the reply was sent or its connection ended.
    #[must_use]
    pub fn holding(mut self, held: Option<impl Send + Sync + 'static>) -> Self {
        self.hold = Hold(held.map(|held| Arc::new(held) as Arc<dyn Any + Send + Sync>));
        self
    }

    /// The bytes before the body: status line and fields, ending in an empty line. `close` says that the connection ends after it.
    pub(super) fn head(&self, close: bool, now: Timestamp) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        write!(out, "HTTP/1.1 {} {}\r\n", self.status, phrase(self.status)).expect("a Vec takes every write");
        out.extend_from_slice(FIXED);
        DATE.with_borrow_mut(|(second, text)| {
            let now_second = now.ms() / 1000;
            if *second != Some(now_second) {
                (*second, *text) = (Some(now_second), http_date(now));
            }
            field(&mut out, "Date", text);
        });
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("cache-control")) {
            field(&mut out, "Cache-Control", "no-store");
        }
        for (name, value) in &self.headers {
            field(&mut out, name, value);
        }
        if !self.body.is_empty() || self.rest.is_some() {
            field(&mut out, "Content-Type", self.content_type);
        }
        if !self.bodiless() && !self.rest.is_some() {
            write!(out, "Content-Length: {}\r\n", self.body.len()).expect("a Vec takes every write");
        }
        if close {
            field(&mut out, "Connection", "close");
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// The bytes after the head.
    pub(super) fn sent_body(&self, head_only: bool) -> &[u8] {
        if head_only || self.bodiless() { &[] } else { &self.body }
    }

    /// Whether this status never carries a body (RFC 9110 section 6.4.1).
    fn bodiless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        wipe(&mut self.body);
    }
}

/// Appends one header field; a character that could end its line becomes a space.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    match value.bytes().any(|byte| byte.is_ascii_control()) {
        true => out.extend(value.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte })),
        false => out.extend_from_slice(value.as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    /// The second of this thread's last answer, and its date as text.
    static DATE: RefCell<(Option<u64>, String)> = const { RefCell::new((None, String::new())) };
}

/// `Sat, 21 Nov 2026 22:46:16 GMT` (IMF-fixdate, RFC 9110 section 5.6.7).
fn http_date(now: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = now.to_string();
    let day = usize::try_from(now.ms() / 86_400_000 % 7).expect("below 7");
    let month = text[5..7].parse::<usize>().expect("a timestamp prints its month in two digits");
    format!("{}, {} {} {} {} GMT", DAYS[day], &text[8..10], MONTHS[month - 1], &text[..4], &text[11..19])
}

/// The reason phrase; clients ignore it, people reading a trace do not.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_prints_as_rfc_9110_wants_it() {
        assert_eq!(http_date(Timestamp::from_ms(784_111_777_000)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(Timestamp::from_ms(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn a_header_value_cannot_add_a_line_and_caching_is_forbidden_unless_named() {
        let head = String::from_utf8(Reply::empty(204).header("X-A", "b\r\nX-C: d").head(true, Timestamp::from_ms(0))).unwrap();
        assert!(head.contains("\r\nX-A: b  X-C: d\r\n") && head.contains("\r\nCache-Control: no-store\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: close\r\n") && !head.contains("Content-Length") && !head.contains("\r\nContent-Type"));
        let head = String::from_utf8(Reply::empty(200).header("cache-control", "max-age=60").head(false, Timestamp::from_ms(0))).unwrap();
        assert!(!head.contains("no-store") && !head.contains("Connection") && head.contains("\r\nContent-Length: 0\r\n"));
        assert!(!head.contains("Access-Control"));
    }
}
