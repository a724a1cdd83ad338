//! Refusals before a request exists, and the contract's shape of an error body.
//!
//! Invariant: the text of an error is the program's own; nothing that the client sent is echoed.

use std::net::IpAddr;

use crate::http::reply::Reply;

macro_rules! reasons {
    ($($(#[$text:meta])* $reason:ident = $status:literal, $name:literal, $message:literal;)*) => {
        /// Why bytes did not become a request.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason {
            $($(#[$text])* $reason,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$reason,)*];

            /// The HTTP status that says so.
            pub fn status(self) -> u16 {
                match self { $(Self::$reason => $status,)* }
            }

            /// The word for the audit entry.
            pub fn name(self) -> &'static str {
                match self { $(Self::$reason => $name,)* }
            }

            /// The text for the client.
            pub fn message(self) -> &'static str {
                match self { $(Self::$reason => $message,)* }
            }
        }
    };
}

reasons! {
    /// Not the grammar of RFC 9112: bare CR or LF, folding, control characters, bytes that are not UTF-8.
    MalformedHead = 400, "malformed_head", "Malformed request";
    /// The target is neither a path, nor `https://` with one, nor `*` of OPTIONS.
    MalformedTarget = 400, "malformed_target", "Malformed request target";
    /// `Host` is missing, repeated or not a host and port.
    MalformedHost = 400, "malformed_host", "Exactly one valid Host header is required";
    /// `Content-Length` is repeated or not a plain number.
    MalformedLength = 400, "malformed_length", "Malformed Content-Length";
    /// A header that decides something came twice.
    RepeatedHeader = 400, "repeated_header", "A header that may occur once was repeated";
    /// `Origin` names another site.
    ForeignOrigin = 403, "foreign_origin", "Requests from another origin are refused";
    /// The head did not end in time.
    HeadTimeout = 408, "head_timeout", "Request head took too long";
    /// The body did not end in time.
    BodyTimeout = 408, "body_timeout", "Request body took too long";
    /// Any `Transfer-Encoding`.
    TransferEncoding = 411, "transfer_encoding", "Content-Length is required; Transfer-Encoding is not accepted";
    /// The body is longer than its route allows.
    BodyTooLarge = 413, "body_too_large", "Request body is too large";
    /// The target is longer than `limits::TARGET_BYTES_MAX`.
    TargetTooLong = 414, "target_too_long", "Request target is too long";
    /// `Expect` of something other than `100-continue`.
    Expectation = 417, "expectation", "Only Expect: 100-continue is known";
    /// `Host` is not ours.
    ForeignHost = 421, "foreign_host", "This server does not answer for that host";
    /// The head is longer than `limits::HEAD_BYTES_MAX` or has more fields than `limits::HEADERS_MAX`.
    HeadTooLarge = 431, "head_too_large", "Request head is too large";
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version = 505, "http_version", "Only HTTP/1.1 and HTTP/1.0 are spoken";
}

/// A connection's bytes that did not become a request.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Who asked, as far as a trusted proxy's head could be read; else the socket's other end.
    pub client: IpAddr,
}

impl Refusal {
    /// The contract's answer: the reason's status and `{"error": …}`.
    pub fn reply(&self) -> Reply {
        error(self.reason.status(), self.reason.message())
    }
}

/// `{"error": text}`: errors before routing and on the contract's routes.
pub fn error(status: u16, text: &str) -> Reply {
    Reply::json(status, &serde_json::json!({ "error": text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own_and_a_refusing_status() {
        let names: std::collections::HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|reason| reason.status() >= 400 && !reason.message().is_empty()));
    }
}
