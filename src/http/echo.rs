//! The limit to measure against: the whole HTTP and TLS stack under a handler that does nothing.

use std::net::IpAddr;

use crate::base::limits::BODY_BYTES_MAX;
use crate::http::{Handler, Method, Refusal, Reply, Request};

/// Answers every request with one JSON body of a fixed size.
pub struct Echo {
    body: Vec<u8>,
}

impl Echo {
    /// Answers of `bytes` bytes (at least those of the empty body, 10).
    pub fn new(bytes: usize) -> Self {
        Self { body: format!(r#"{{"echo":"{}"}}"#, "x".repeat(bytes.saturating_sub(11))).into_bytes() }
    }
}

impl Handler for Echo {
    fn body_limit(&self, _: Method, _: &str) -> usize {
        BODY_BYTES_MAX
    }

    fn refuse(&self, refusal: &Refusal) -> Reply {
        refusal.reply()
    }

    fn handle(&self, _: Request) -> Reply {
        Reply::bytes(200, "application/json; charset=utf-8", self.body.clone())
    }

    fn tls_failed(&self, _: IpAddr) {}
}
