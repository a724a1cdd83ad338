//! The OpenAPI 3.1 document, written from the route table.
//!
//! Invariants
//! - Requests are described by the very schemas that check them (`schema`).
//! - Every `$ref` names a component that is present.
//! - Each route lists the refusals that its kind of route can give, so a client sees no status that the document does not know.

use serde_json::{Map, Value, json};

use crate::api::schema::{Field, Kind, Schema};

/// Who may call a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Auth {
    /// Anyone, without a credential.
    Public,
    /// User keys and agent keys.
    Any,
    /// User keys only.
    User,
    /// User keys of administrators only.
    Admin,
}

/// What the document needs to know of one route.
#[derive(Clone, Copy, Debug)]
pub struct RouteDoc {
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// As the router has it: `/memories/:id`.
    pub path: &'static str,
    /// Unique; the contract's names where it has them.
    pub operation_id: &'static str,
    /// One sentence without a full stop.
    pub summary: &'static str,
    /// Who may call it.
    pub auth: Auth,
    /// The body's schema.
    pub body: Option<&'static Schema>,
    /// The query string's schema.
    pub query: Option<&'static Schema>,
    /// Answers that are its own; refusals common to its kind are added.
    pub answers: &'static [(u16, Answer)],
}

/// What an answer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// No body.
    Empty,
    /// The component of this name; see [`COMPONENTS`].
    Json(&'static str),
    /// An RFC 9457 problem that also has `error`.
    Problem,
}

/// Names of the response components, in the order of the document.
pub const COMPONENTS: &[&str] = &[
    "Memory", "MemorySummary", "MemoryVersion", "MemoryList", "MemoryCount", "MemoryPage", "SummaryPage", "Versions", "AgentVersions",
    "Thread", "AgentDeleted", "TrashEmptied", "SearchResults", "Health", "WhoAmI", "User", "NewKey", "Keys", "Revoked", "Operation", "Error",
    "NotFound", "Problem", "Any",
];
