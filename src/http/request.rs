//! One whole request, as the handler gets it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use crate::base::wipe::wipe;
use crate::http::authority::Authority;

/// A request method. Names are case-sensitive (RFC 9110 section 9.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: as GET, the body is dropped on the way out.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// Any other token; no route has it.
    Other,
}

impl Method {
    /// The method that `token` names.
    pub fn parse(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    /// The token; a method we do not know is `OTHER`, so that nothing of the client's is repeated.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "OTHER",
        }
    }
}

/// Header fields: the head's own bytes, and where each name and value lies in them.
#[derive(Clone, Default)]
pub struct Headers {
    text: String,
    /// Name start, name end, value start, value end.
    spans: Vec<[u16; 4]>,
}

impl Headers {
    /// `spans` must lie within `text`, on character boundaries.
    pub(super) fn new(text: String, spans: Vec<[u16; 4]>) -> Self {
        Self { text, spans }
    }

    /// For tests that hand requests to a handler.
    #[cfg(test)]
    pub(crate) fn of(fields: &[(&str, &str)]) -> Self {
        let (mut text, mut spans) = (String::new(), Vec::new());
        for (name, value) in fields {
            let at = u16::try_from(text.len()).unwrap();
            let (name_end, end) = (at + u16::try_from(name.len()).unwrap(), at + u16::try_from(name.len() + value.len()).unwrap());
            text += name;
            text += value;
            spans.push([at, name_end, name_end, end]);
        }
        Self { text, spans }
    }

    /// Names (as sent) and values (without surrounding blanks), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.spans.iter().map(|span| {
            let [name, name_end, value, value_end] = span.map(usize::from);
            (&self.text[name..name_end], &self.text[value..value_end])
        })
    }

    /// Values of every field called `name`, in order, without regard to case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Value of the first field called `name`. Fields that decide something (`parse::ONCE`) occur at most once.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// One whole request; its body is wiped when dropped. `Debug` prints neither path, fields nor body.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The target before `?`, as sent: not percent-decoded, begins with `/` (or is `*` with OPTIONS).
    pub path: String,
    /// The target after `?`, as sent.
    pub query: Option<String>,
    /// Whom it addresses, found to be ours: the target's authority if it has one, else `Host`.
    pub authority: Authority,
    /// Header fields.
    pub headers: Headers,
    /// The body, exactly `Content-Length` bytes.
    pub body: Vec<u8>,
    /// Who asks: the socket's other end, or behind trusted proxies the last hop that is not one.
    pub client: IpAddr,
    /// Whether the peer proved a client certificate that our client CA signed.
    pub client_certificate: bool,
}

impl Request {
    /// Value of the first header field called `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        wipe(&mut self.body);
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({}, {} body bytes)", self.method.name(), self.body.len())
    }
}

/// Percent-decodes one path segment, or with `plus` one part of a form or query where `+` is a space.
///
/// `None` for an escape that is not two hex digits, bytes that are not UTF-8, and control characters.
pub fn percent_decode(text: &str, plus: bool) -> Option<Cow<'_, str>> {
    let plain = |byte: u8| byte != b'%' && !(plus && byte == b'+');
    let decoded = if text.bytes().all(plain) {
        Cow::Borrowed(text)
    } else {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            (rest, _) = match first {
                b'%' => {
                    let (digits, tail) = tail.split_at_checked(2)?;
                    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
                    (tail, out.push(value(digits[0])? << 4 | value(digits[1])?))
                }
                b'+' if plus => (tail, out.push(b' ')),
                other => (tail, out.push(*other)),
            };
        }
        Cow::Owned(String::from_utf8(out).ok()?)
    };
    decoded.chars().all(|c| !c.is_control() || plus && matches!(c, '\n' | '\r' | '\t')).then_some(decoded)
}

/// Names and values of a query or `application/x-www-form-urlencoded` body, in order; `None` if any part does not decode.
pub fn query_pairs(text: &str) -> Option<Vec<(Cow<'_, str>, Cow<'_, str>)>> {
    let parts = text.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((percent_decode(name, true)?, percent_decode(value, true)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_decodes_strictly() {
        assert_eq!(percent_decode("a+b", false).unwrap(), "a+b");
        assert_eq!(percent_decode("a+b%2B", true).unwrap(), "a b+");
        assert_eq!(percent_decode("%C3%a9", false).unwrap(), "é");
        for bad in ["%", "%4", "%zz", "%+1", "%00", "%0a", "%ff", "%c3"] {
            assert_eq!(percent_decode(bad, false), None, "{bad}");
        }
    }

    #[test]
    fn pairs_keep_their_order_and_empty_values() {
        let pairs = query_pairs("a=1&&b&a=%26").unwrap();
        assert_eq!(pairs, [("a".into(), "1".into()), ("b".into(), "".into()), ("a".into(), "&".into())]);
        assert_eq!(query_pairs("a=%"), None);
    }
}
