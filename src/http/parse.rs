//! Bytes to a request head, or to the reason why they are none. Pure: no socket, no clock.
//!
//! Invariants
//! - Lines end in CRLF and in nothing else; no control character but tab stands in a head, and all of it is UTF-8.
//! - Wherever two readers of RFC 9112 could see two different requests, there is none: folding, blanks before a colon, repeated or odd
//!   lengths, `Transfer-Encoding` of any kind.
//! - The answer depends on the bytes alone, not on how they were cut into reads.

use crate::base::limits::{HEAD_BYTES_MAX, HEADERS_MAX, METHOD_BYTES_MAX, TARGET_BYTES_MAX};
use crate::http::authority::Authority;
use crate::http::problem::Reason;
use crate::http::request::{Headers, Method};

/// Fields that decide something and may therefore occur once only; `Host` and `Content-Length` have rules of their own.
pub const ONCE: [&str; 4] = ["authorization", "content-type", "expect", "origin"];

/// A request without its body.
pub struct Head {
    /// The method.
    pub method: Method,
    /// The target before `?`.
    pub path: String,
    /// The target after `?`.
    pub query: Option<String>,
    /// Whom the request addresses: the target's authority if it has one, else `Host`.
    pub authority: Authority,
    /// Header fields.
    pub headers: Headers,
    /// Bytes of the body that follows.
    pub body_bytes: u64,
    /// Whether the client would send another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// What the bytes so far are.
pub enum Progress {
    /// The beginning of a head.
    NeedMore,
    /// A head, and how many bytes it took.
    Head(Box<Head>, usize),
    /// No head, whatever may follow.
    Refused(Reason),
}

/// The whole parser as one pure function, for tests and fuzzing.
pub fn fuzz_entry(bytes: &[u8]) -> Progress {
    match find_end(bytes, &mut 0) {
        Ok(None) => Progress::NeedMore,
        Ok(Some(end)) => match parse(bytes[..end].to_vec()) {
            Ok(head) => Progress::Head(Box::new(head), end),
            Err(reason) => Progress::Refused(reason),
        },
        Err(reason) => Progress::Refused(reason),
    }
}

/// Where the head in `bytes` ends, one past its empty line; `None` while it has not ended. One empty line before it is skipped over
/// (RFC 9112 section 2.2).
///
/// `scanned` remembers how far earlier calls came; it starts at 0. Errors: `MalformedHead` at the first byte that no head can hold;
/// `TargetTooLong` or `HeadTooLarge` where the bound is passed without an end.
pub fn find_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, Reason> {
    for at in *scanned..bytes.len().min(HEAD_BYTES_MAX) {
        match (at.checked_sub(1).map(|before| bytes[before]), bytes[at]) {
            (Some(b'\r'), b'\n') if at > 3 && bytes[at - 3..at] == *b"\r\n\r" => return Ok(Some(at + 1)),
            (Some(b'\r'), b'\n') if at == 3 && bytes[..3] == *b"\r\n\r" => return Err(Reason::MalformedHead),
            (Some(b'\r'), b'\n') => {}
            (Some(b'\r'), _) | (_, b'\n' | 0..=8 | 11..=12 | 14..=31 | 127) => return Err(Reason::MalformedHead),
            _ => {}
        }
    }
    *scanned = bytes.len().min(HEAD_BYTES_MAX);
    match bytes.len() < HEAD_BYTES_MAX {
        true => Ok(None),
        false if bytes[2..HEAD_BYTES_MAX].contains(&b'\n') => Err(Reason::HeadTooLarge),
        false => Err(Reason::TargetTooLong),
    }
}

/// Reads a whole head, as [`find_end`] delimits it. Errors: every 4xx and 5xx of `Reason` that a head alone can earn.
pub fn parse(bytes: Vec<u8>) -> Result<Head, Reason> {
    let text = String::from_utf8(bytes).map_err(|_| Reason::MalformedHead)?;
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut raw = httparse::Request::new(&mut fields);
    match raw.parse(text.as_bytes()) {
        Ok(httparse::Status::Complete(length)) if length == text.len() => {}
        Ok(_) => return Err(Reason::MalformedHead),
        Err(httparse::Error::TooManyHeaders) => return Err(Reason::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(Reason::Version),
        Err(_) => return Err(Reason::MalformedHead),
    }
    let (method, target) = (raw.method.unwrap_or_default(), raw.path.unwrap_or_default());
    if method.len() > METHOD_BYTES_MAX {
        return Err(Reason::MalformedHead);
    }
    // A tunnel's bytes are framed by nobody here, whatever its target looks like.
    if method == "CONNECT" {
        return Err(Reason::MalformedTarget);
    }
    let method = Method::parse(method);
    let target = Target::parse(target, method)?;
    let newer = raw.version == Some(1);

    let mut spans = Vec::with_capacity(raw.headers.len());
    let (mut host, mut length, mut keep_alive, mut expects_continue) = (None, None, newer, false);
    let mut seen = [false; ONCE.len()];
    let is = |name: &str, known: &str| name.eq_ignore_ascii_case(known);
    for field in raw.headers.iter() {
        let name = field.name;
        let value = std::str::from_utf8(field.value).map_err(|_| Reason::MalformedHead)?;
        spans.push(span(&text, name, value));
        if is(name, "transfer-encoding") {
            return Err(Reason::TransferEncoding);
        } else if is(name, "host") {
            let named = Authority::parse(value).ok_or(Reason::MalformedHost)?;
            if host.replace(named).is_some() {
                return Err(Reason::MalformedHost);
            }
        } else if is(name, "content-length") {
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Reason::MalformedLength);
            }
            // All digits, so an error means more than u64 holds: too large for any route.
            if length.replace(value.parse().unwrap_or(u64::MAX)).is_some() {
                return Err(Reason::MalformedLength);
            }
        } else if is(name, "connection") {
            keep_alive &= !value.split(',').any(|token| is(token.trim(), "close"));
        } else if let Some(at) = ONCE.iter().position(|known| is(name, known)) {
            if std::mem::replace(&mut seen[at], true) {
                return Err(Reason::RepeatedHeader);
            }
            if is(name, "expect") {
                expects_continue = newer && is(value, "100-continue");
                if newer && !expects_continue {
                    return Err(Reason::Expectation);
                }
            }
        }
    }
    let host = host.ok_or(Reason::MalformedHost)?;
    Ok(Head {
        method,
        path: target.path,
        query: target.query,
        authority: target.authority.unwrap_or(host),
        headers: Headers::new(text, spans),
        body_bytes: length.unwrap_or(0),
        keep_alive,
        expects_continue,
    })
}

/// Places of `name` and `value` within `text`, of which both are parts.
fn span(text: &str, name: &str, value: &str) -> [u16; 4] {
    let place = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
    // An empty value may be a slice of its own, outside the text.
    let value_at = if value.is_empty() { 0 } else { place(value) };
    [place(name), place(name) + name.len(), value_at, value_at + value.len()]
        .map(|at| u16::try_from(at).expect("a head is shorter than 64 KiB (limits.rs)"))
}

/// A request target (RFC 9112 section 3.2).
struct Target {
    path: String,
    query: Option<String>,
    authority: Option<Authority>,
}

impl Target {
    fn parse(text: &str, method: Method) -> Result<Self, Reason> {
        if text.len() > TARGET_BYTES_MAX {
            return Err(Reason::TargetTooLong);
        }
        // No fragment (RFC 9112 section 3.2), and what RFC 3986 has no place for is sent percent-encoded.
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte)) {
            return Err(Reason::MalformedTarget);
        }
        if text == "*" && method == Method::Options {
            return Ok(Self { path: text.to_owned(), query: None, authority: None });
        }
        let (authority, rest) = match text.split_at_checked(8) {
            _ if text.starts_with('/') => (None, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https://") => {
                let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (Some(Authority::parse(authority).ok_or(Reason::MalformedTarget)?), rest)
            }
            _ => return Err(Reason::MalformedTarget),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { path: path.to_owned(), query, authority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head in `text`, where `\n` stands for CRLF and a final empty line is added.
    fn parsed(text: &str) -> Result<Head, Reason> {
        match fuzz_entry((text.replace('\n', "\r\n") + "\r\n\r\n").as_bytes()) {
            Progress::Head(head, _) => Ok(*head),
            Progress::Refused(reason) => Err(reason),
            Progress::NeedMore => panic!("the head ended"),
        }
    }

    fn refused(text: &str) -> Option<Reason> {
        parsed(text).err()
    }

    #[test]
    fn a_head_is_read_whole() {
        let head =
            parsed("POST /a/b%20c?x=1&y HTTP/1.1\nhOst: localhost:8443\nContent-Length: 12\nX-Empty:\nX-Note:  padded\t \nAccept: */*")
                .unwrap();
        assert_eq!((head.method, head.path.as_str(), head.query.as_deref()), (Method::Post, "/a/b%20c", Some("x=1&y")));
        assert_eq!((head.body_bytes, head.keep_alive, head.expects_continue), (12, true, false));
        assert_eq!((head.headers.get("x-note"), head.headers.get("X-EMPTY"), head.headers.get("x")), (Some("padded"), Some(""), None));
        assert_eq!(head.headers.iter().count(), 5);
    }

    #[test]
    fn a_head_cut_anywhere_needs_more_and_then_reads_the_same() {
        let text = b"\r\nGET /x HTTP/1.1\r\nHost: localhost\r\n\r\nrest";
        let mut scanned = 0;
        for cut in 0..text.len() - 4 {
            assert_eq!(find_end(&text[..cut], &mut scanned), Ok(None), "{cut}");
            assert!(matches!(fuzz_entry(&text[..cut]), Progress::NeedMore));
        }
        assert_eq!(find_end(text, &mut scanned), Ok(Some(text.len() - 4)));
    }

    #[test]
    fn line_ends_other_than_crlf_are_refused_as_soon_as_they_come() {
        for bad in [
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\r\nHost: localhost\n",
            "GET / HTTP/1.1\rHost",
            "\r\r",
            "\n",
            "\r\n\r\n",
            "GET /\0",
            "GET / HTTP/1.1\r\nA: b\u{1}",
            "\u{16}\u{3}\u{1}",
            "GET / HTTP/1.1\r\nA: \u{7f}",
        ] {
            assert!(matches!(fuzz_entry(bad.as_bytes()), Progress::Refused(Reason::MalformedHead)), "{bad:?}");
        }
        assert!(matches!(fuzz_entry(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: \xff\r\n\r\n"), Progress::Refused(Reason::MalformedHead)));
    }

    #[test]
    fn shapes_that_smuggle_are_refused() {
        use Reason::*;
        for (fields, reason) in [
            ("Transfer-Encoding: chunked", TransferEncoding),
            ("Transfer-Encoding: identity", TransferEncoding),
            ("transfer-encoding:\tchunked", TransferEncoding),
            ("Content-Length: 5\nTransfer-Encoding: chunked", TransferEncoding),
            ("Transfer-Encoding : chunked", MalformedHead),
            ("Transfer-Encoding\t: chunked", MalformedHead),
            (" Transfer-Encoding: chunked", MalformedHead),
            ("A: b\n folded", MalformedHead),
            ("A: b\n\tfolded", MalformedHead),
            (": empty", MalformedHead),
            ("no colon", MalformedHead),
            ("A(b): c", MalformedHead),
            ("Content-Length: 5\nContent-Length: 5", MalformedLength),
            ("Content-Length: 5\ncontent-length: 6", MalformedLength),
            ("Content-Length: 5, 5", MalformedLength),
            ("Content-Length: +5", MalformedLength),
            ("Content-Length: -5", MalformedLength),
            ("Content-Length: 0x5", MalformedLength),
            ("Content-Length: 5 5", MalformedLength),
            ("Content-Length:", MalformedLength),
            ("Content-Length: ٥", MalformedLength),
            ("Host: other", MalformedHost),
            ("Expect: 200-maybe", Expectation),
            ("Authorization: a\nauthorization: b", RepeatedHeader),
            ("Origin: a\nOrigin: a", RepeatedHeader),
        ] {
            assert_eq!(refused(&format!("POST / HTTP/1.1\nHost: localhost\n{fields}")), Some(reason), "{fields}");
        }
    }

    #[test]
    fn a_length_beyond_64_bits_is_a_length_too_large_for_any_route() {
        let length = |digits: &str| parsed(&format!("POST / HTTP/1.1\nHost: a\nContent-Length: {digits}")).unwrap().body_bytes;
        assert_eq!(length("100000000000000"), 100_000_000_000_000);
        assert_eq!(length("99999999999999999999999999"), u64::MAX);
        assert_eq!(length("007"), 7);
    }

    #[test]
    fn the_request_line_is_strict() {
        use Reason::*;
        for (line, reason) in [
            ("GET  / HTTP/1.1", MalformedTarget),
            ("GET / HTTP/1.1 ", MalformedHead),
            ("GET /", MalformedHead),
            ("GET / HTTP/2.0", Version),
            ("GET / HTTP/1.2", Version),
            ("GET / http/1.1", Version),
            (" GET / HTTP/1.1", MalformedHead),
            ("G@T / HTTP/1.1", MalformedHead),
            ("GET /é HTTP/1.1", MalformedTarget),
            ("GET /#top HTTP/1.1", MalformedTarget),
            ("GET /a\\b HTTP/1.1", MalformedTarget),
            ("GET /?a={1} HTTP/1.1", MalformedTarget),
            ("GET * HTTP/1.1", MalformedTarget),
            ("GET a HTTP/1.1", MalformedTarget),
            ("CONNECT localhost:1 HTTP/1.1", MalformedTarget),
            ("CONNECT / HTTP/1.1", MalformedTarget),
            ("GET http://localhost/ HTTP/1.1", MalformedTarget),
            ("GET https:///x HTTP/1.1", MalformedTarget),
            ("GET https://u@localhost/ HTTP/1.1", MalformedTarget),
            (&format!("{} / HTTP/1.1", "M".repeat(METHOD_BYTES_MAX + 1)), MalformedHead),
            (&format!("GET /{} HTTP/1.1", "a".repeat(TARGET_BYTES_MAX)), TargetTooLong),
        ] {
            let found = refused(&format!("{line}\nHost: localhost"));
            assert!(found == Some(reason) || reason == MalformedTarget && found == Some(MalformedHead), "{line}: {found:?}");
        }
        assert_eq!(parsed("OPTIONS * HTTP/1.1\nHost: a").unwrap().path, "*");
        assert_eq!(parsed("BREW / HTTP/1.1\nHost: a").unwrap().method, Method::Other);
        assert!(!parsed("GET / HTTP/1.0\nHost: a\nConnection: keep-alive").unwrap().keep_alive);
        assert!(!parsed("GET / HTTP/1.1\nHost: a\nConnection: x, Close").unwrap().keep_alive);
        assert!(parsed("GET / HTTP/1.1\nHost: a\nExpect: 100-Continue").unwrap().expects_continue);
        assert!(!parsed("GET / HTTP/1.0\nHost: a\nExpect: 100-continue").unwrap().expects_continue);
    }

    #[test]
    fn the_authority_of_an_absolute_target_replaces_the_host() {
        let head = parsed("GET HTTPS://M.example:1?q HTTP/1.1\nHost: localhost").unwrap();
        assert_eq!((head.authority.host.as_str(), head.authority.port, head.path.as_str()), ("m.example", Some(1), "/"));
        assert_eq!(head.query.as_deref(), Some("q"));
        assert_eq!(refused("GET https://localhost/ HTTP/1.1"), Some(Reason::MalformedHost));
        assert_eq!(refused("GET / HTTP/1.1\nHost: "), Some(Reason::MalformedHost));
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let fields = |count: usize| format!("GET / HTTP/1.1\nHost: a{}", "\nA: b".repeat(count - 1));
        assert_eq!(parsed(&fields(HEADERS_MAX)).unwrap().headers.iter().count(), HEADERS_MAX);
        assert_eq!(refused(&fields(HEADERS_MAX + 1)), Some(Reason::HeadTooLarge));
        let sized = |size: usize| {
            let start = "GET / HTTP/1.1\r\nHost: a\r\nA: ";
            format!("{start}{}\r\n\r\n", "b".repeat(size - start.len() - 4))
        };
        assert!(matches!(fuzz_entry(sized(HEAD_BYTES_MAX).as_bytes()), Progress::Head(_, HEAD_BYTES_MAX)));
        assert!(matches!(fuzz_entry(sized(HEAD_BYTES_MAX + 1).as_bytes()), Progress::Refused(Reason::HeadTooLarge)));
        assert!(matches!(fuzz_entry(&vec![b'a'; HEAD_BYTES_MAX]), Progress::Refused(Reason::TargetTooLong)));
        assert!(matches!(fuzz_entry(&vec![b'a'; HEAD_BYTES_MAX - 1]), Progress::NeedMore));
    }
}
