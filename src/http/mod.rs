//! HTTP/1.1 over TLS, served by few threads: bytes in, one [`Request`] to the [`Handler`], one [`Reply`] out.
//!
//! Invariants
//! - Nothing of a request reaches the handler before its framing was accepted, its `Host` is ours and its `Origin` is absent or ours.
//! - Every wait has an absolute deadline; a peer that sends a byte now and then gains nothing.
//! - Memory grows only as bytes arrive, up to the head limit and the route's body limit; an idle connection holds no buffer of ours.
//! - A length that two readers could understand differently is refused: any `Transfer-Encoding` is 411, any doubt about `Content-Length` 400.
//! - A stream ends when its source does, when its peer leaves or does not read, and when the server stops; it takes no place among requests.
//! - A fault in one connection (a panic included) ends that connection alone; the accept thread ends only when told to.
//! - Plain HTTP does not exist.
//!
//! One connection, forward only: `listen` (one thread) → `admission` → `pool` (until its peer says something) → `wire` (TLS records under
//! deadlines) → `parse` (bytes to a head)
//! → `authority` (`Host`, `Origin`) → `conn` (body, handler, answer) → `reply` (answer to bytes), at once or later (`lent`).
//! Source: RFC 9110, RFC 9112. Why not `tiny_http`: docs/decisions/0001. Which TLS: docs/decisions/0002.

mod admission;
mod authority;
#[cfg(any(test, feature = "bench-internals"))]
pub mod client;
mod conn;
#[cfg(any(test, feature = "bench-internals"))]
pub mod echo;
mod lent;
mod listen;
pub mod parse;
mod pool;
mod problem;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

// The layer's whole surface, whether the layers above use each name or not.
#[allow(unused_imports)]
pub use authority::Authority;
#[allow(unused_imports)]
pub use listen::{Connections, Deadlines, Server, Settings, bind};
#[allow(unused_imports)]
pub use problem::{Reason, Refusal, error};
#[allow(unused_imports)]
pub use reply::{Chunk, Reply, Rest, Source, Turn, Untaken};
#[allow(unused_imports)]
pub use request::{Headers, Method, Request, percent_decode, query_pairs};
#[allow(unused_imports)]
pub use tls::{SelfSigned, TlsError, TlsFiles, TlsIdentity, self_signed};

/// What is served: the product's side of a connection. Called from several threads at once; a panic answers 500 and ends one connection. Whoever
/// waits in here, or works for long, steps aside first (`base::duty`).
pub trait Handler: Send + Sync + 'static {
    /// Greatest body in bytes for this method and raw path; a longer one is 413 before any of it is read.
    fn body_limit(&self, method: Method, path: &str) -> usize;

    /// Notes a request that was refused before it existed, and words its answer. The connection closes after it.
    fn refuse(&self, refusal: &Refusal) -> Reply;

    /// Answers one request, at once or with the promise of an answer ([`Reply::later`]).
    fn handle(&self, request: Request) -> Reply;

    /// Notes a peer whose TLS handshake failed or took too long.
    fn tls_failed(&self, client: std::net::IpAddr);
}
