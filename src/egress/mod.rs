//! Egress: the only way out, and only to where the operator said.
//!
//! ```text
//! service (no network) ──order──▶ UNIX socket ◀──connects── relay (own unit and user) ──TLS──▶ a destination of RM_EGRESS_ALLOW
//!    entry before an order leaves, entry with its outcome               list, addresses, certificates, credentials, times, sizes
//! ```
//!
//! The service cannot make a socket (`sandbox`), so the relay comes to it. An order names a purpose, or a destination by its number: never a
//! host, a path or a credential, which the relay alone knows. Without a list the relay does not run, and nothing leaves.
//!
//! Invariants
//! - No order leaves before its entry (`egress.send`) is durable; how it ended is an entry too (`egress.end`).
//! - The relay connects to listed hosts and ports alone, to addresses that it has just resolved and checked, over TLS that it verifies; it follows
//!   no redirect, and knows no proxy. Whoever gives it orders cannot change that.
//! - One relay at a time, of the user that is configured: the kernel says who is at the other end.
//! - Frames, answers, waits and orders under way are bounded (`base::limits`); what is sent and answered is wiped, and stands in no log.
//!
//! Here: `frame` (what service and relay say), `hub` (the service's end), `order` (audited), `relay` (the other process), `address` and `resolve`
//! (where a name leads), `client` (HTTPS), `model` (what an OpenAI-compatible endpoint says). Later: key sets, syslog and webhooks, by new purposes.

pub mod address;
pub mod client;
pub mod frame;
pub mod hub;
pub mod model;
pub mod order;
pub mod relay;
pub mod resolve;
