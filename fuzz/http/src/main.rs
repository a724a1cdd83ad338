//! Differential fuzzing of HTTP framing: whatever Rosemary takes for a request, hyper must take for the same request.
//!
//! A seeded mutator makes byte streams; both sides read them as one connection. For every request that we accept (method, target, header
//! fields, body bytes, and where the next one begins) hyper must have seen exactly that one at that place. The other direction is free:
//! we refuse much that hyper takes. What we accept and hyper refuses is counted, by the answer hyper gave.
//!
//! `cargo run --release -- [seconds] [seed]`; exits 1 at the first disagreement and prints the input. Also checked: the parser's answer
//! does not depend on how the bytes are cut, and a stream cut short is never read as a longer request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use rosemary::http::parse::{self, Progress};

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

/// xorshift64*: small, seeded, good enough to choose mutations.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits") % bound.max(1)
    }
}

const SEEDS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /a?b=c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "PUT /x%20y HTTP/1.1\r\nHost: [::1]:8443\r\nX-A:  b \r\nX-A: c\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\nDELETE /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "GET https://localhost/abs?q HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\nOrigin: https://a\r\n\r\n",
    "HEAD /h HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcBREW /p HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
];

const TOKENS: &[&str] = &[
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

fn mutate(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = SEEDS[dice.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..dice.below(5) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + dice.below(12)).min(bytes.len());
        match dice.below(6) {
            0 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).expect("below 256"),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            3 => {
                let other = SEEDS[dice.below(SEEDS.len())].as_bytes();
                bytes.truncate(at);
                bytes.extend_from_slice(&other[dice.below(other.len())..]);
            }
            _ => {
                let token = TOKENS[dice.below(TOKENS.len())].as_bytes();
                // Half of the time at the start of a line, where a field would be read as one.
                let line =
                    bytes[at..].windows(2).position(|pair| pair == b"\r\n").filter(|_| dice.below(2) == 0).map_or(at, |next| at + next + 2);
                bytes.splice(line..line, token.iter().copied());
            }
        }
    }
    bytes
}

fn progress(bytes: &[u8], cut: usize) -> Result<Option<usize>, rosemary::http::Reason> {
    let mut scanned = 0;
    match parse::find_end(&bytes[..cut], &mut scanned)? {
        None => parse::find_end(bytes, &mut scanned),
        ended => Ok(ended),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let time = Duration::from_secs(arguments.next().unwrap_or(60));
    let mut dice = Dice(arguments.next().unwrap_or(1).max(1));
    let (start, mut rounds, mut accepted) = (Instant::now(), 0u64, 0usize);
    let mut refused_by_hyper: BTreeMap<String, (u64, String)> = BTreeMap::new();
    while start.elapsed() < time {
        let bytes = mutate(&mut dice);
        rounds += 1;
        let cut = dice.below(bytes.len() + 1);
        let whole = progress(&bytes, 0);
        let (we, (they, answers)) = (ours(&bytes), hypers(&bytes));
        let disagreement = we.iter().zip(&they).find(|(we, they)| we != they);
        if progress(&bytes, cut) != whole || disagreement.is_some() {
            eprintln!(
                "disagreement after {rounds} rounds, cut {cut}\ninput: {:?}\nours: {we:#?}\nhyper: {they:#?}",
                String::from_utf8_lossy(&bytes)
            );
            std::process::exit(1);
        }
        accepted += we.len();
        if we.len() > they.len() {
            let text = String::from_utf8_lossy(&answers).into_owned();
            let last = text.lines().rfind(|line| line.starts_with("HTTP/")).unwrap_or("no answer").to_owned();
            refused_by_hyper.entry(last).or_insert((0, String::from_utf8_lossy(&bytes).into_owned())).0 += 1;
        }
    }
    println!("{rounds} streams, {accepted} accepted requests, no disagreement");
    for (answer, (count, example)) in refused_by_hyper {
        println!("accepted here and not by hyper ({answer}): {count}, for example {example:?}");
    }
}
