//! HTTP framing against hyper: whatever Rosemary takes for a request, hyper must take for the same request.
//!
//! Both sides read the bytes as one connection. For every request that we accept (method, target, header fields, body bytes, and where the
//! next one begins) hyper must have seen exactly that one at that place. The other direction is free: we refuse much that hyper takes.
//! Allowed differences: method tokens that no route has are one method to us (`OTHER`); nothing else.
//! A request whose body the input does not carry whole is not compared: no handler would see it.
//!
//! Also checked: the answer does not depend on how the bytes are cut; a head cut short is never read as a head; decoders of targets and
//! forms never panic on what a head let through.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use rosemary::http::parse::{self, Progress};
use rosemary::http::{Reason, percent_decode, query_pairs};

/// Words of the grammar and its edges.
pub const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\0",
    "\u{b}",
    "\u{7f}",
    "é",
    "0",
    "5",
    "+5",
    "-1",
    "0x5",
    "5, 5",
    "99999999999999999999",
    "Content-Length: 5\r\n",
    "Content-Length: 6\r\n",
    "content-length:5\r\n",
    "Content-Length : 5\r\n",
    "Content-Length:\t5 \r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "transfer-encoding:\tchunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Host: b\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, Upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    " folded\r\n",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/2.0",
    "HTTP/1.1 ",
    "GET ",
    "POST ",
    "CONNECT a:1 ",
    "*",
    "https://h",
    "//",
    "/../",
    "#f",
    "?",
    "%00",
    "\\",
];

/// One request as a reader saw it.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// What Rosemary sees in `bytes`: whole requests until a refusal, the end of the bytes, or a close.
fn ours(mut bytes: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    while let Progress::Head(head, end) = parse::fuzz_entry(bytes) {
        let rest = &bytes[end..];
        let Some(body) = usize::try_from(head.body_bytes).ok().and_then(|length| rest.get(..length)) else { break };
        bytes = &rest[body.len()..];
        // Names in lower case; equal names together, as hyper's map gives them.
        let mut fields: Vec<_> = head.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_bytes().to_vec())).collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let query = head.query.map_or(String::new(), |query| format!("?{query}"));
        seen.push(Seen { method: format!("{:?}", head.method).to_uppercase(), target: head.path + &query, fields, body: body.to_vec() });
        if !head.keep_alive {
            break;
        }
    }
    seen
}

/// The connection's two ends in memory: input from a slice, output kept.
struct Wire<'a>(&'a [u8], Rc<RefCell<Vec<u8>>>);

impl hyper::rt::Read for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: hyper::rt::ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        let (now, later) = self.0.split_at(into.remaining().min(self.0.len()));
        into.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.1.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What hyper sees in `bytes`, and what it answers.
fn hypers(bytes: &[u8]) -> (Vec<Seen>, Vec<u8>) {
    let (seen, out) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
    let noted = Rc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let noted = Rc::clone(&noted);
        async move {
            let (parts, mut incoming) = request.into_parts();
            let mut body = Vec::new();
            while let Some(frame) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
                match frame.map(|frame| frame.into_data()) {
                    Ok(Ok(data)) => body.extend_from_slice(&data),
                    Ok(Err(_)) => {}
                    // Cut short: no whole request.
                    Err(_) => return Ok::<_, Infallible>(Response::new(String::new())),
                }
            }
            let mut fields: Vec<_> =
                parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            let method = match parts.method.as_str() {
                known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known.to_owned(),
                _ => "OTHER".to_owned(),
            };
            let target = parts.uri.path_and_query().map_or(String::new(), ToString::to_string);
            noted.borrow_mut().push(Seen { method, target, fields, body });
            Ok(Response::new(String::new()))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(Wire(bytes, Rc::clone(&out)), service);
    let mut connection = pin!(connection);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    (seen.take(), out.take())
}

/// Where the head ends, read in two pieces.
fn end(bytes: &[u8], cut: usize) -> Result<Option<usize>, Reason> {
    let mut scanned = 0;
    match parse::find_end(&bytes[..cut], &mut scanned)? {
        None => parse::find_end(bytes, &mut scanned),
        ended => Ok(ended),
    }
}

/// The target.
pub fn run(bytes: &[u8]) {
    let whole = end(bytes, 0);
    let cut = bytes.iter().fold(bytes.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte))) % (bytes.len() + 1);
    assert_eq!(end(bytes, cut), whole, "cut at {cut}");
    if let Ok(Some(end)) = whole {
        assert!(matches!(parse::fuzz_entry(&bytes[..end - 1]), Progress::NeedMore), "a head without its end");
    }
    let (we, (they, answers)) = (ours(bytes), hypers(bytes));
    for (we, they) in we.iter().zip(&they) {
        assert_eq!(we, they);
        let (path, query) = we.target.split_once('?').unwrap_or((&we.target, ""));
        path.split('/').for_each(|part| drop(percent_decode(part, false)));
        let _ = query_pairs(query);
    }
    if let Some(request) = we.get(they.len()) {
        let text = String::from_utf8_lossy(&answers);
        let answer = text.lines().rfind(|line| line.starts_with("HTTP/")).unwrap_or("no answer");
        panic!("hyper answers {answer:?} to {request:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloBREW /n HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn both_readers_see_both_requests() {
        let (we, (they, _)) = (ours(TWO), hypers(TWO));
        assert_eq!((we.len(), &we), (2, &they));
        assert_eq!((we[0].body.as_slice(), we[1].method.as_str()), (&b"hello"[..], "OTHER"));
    }

    #[test]
    fn a_byte_read_differently_is_seen() {
        let other = TWO.iter().map(|byte| if *byte == b'5' { b'4' } else { *byte }).collect::<Vec<u8>>();
        assert_ne!(ours(TWO), hypers(&other).0);
    }
}
