//! Answers: what was recorded, as bytes. The one file that maps outcomes to HTTP, and the one place where protected text is written out.
//!
//! Invariants
//! - An answer with data or a claimed effect is made from a `Receipt`; its audit index is in the header `x-audit-index`.
//! - An error's text is the program's own. Contract routes answer `{"error": …}`; our own answer RFC 9457 problem details that also carry it.

use serde_json::{Map, Value, json};

use crate::base::id::MemoryId;
use crate::http::{Reply, problem};
use crate::store::gate::{Fault, Receipt, Refused, denial};
use crate::store::memories::{Memory, Version};
use crate::store::phi::Phi;
use crate::store::writer::Unavailable;

/// The shape of a route's errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// `{"error": …}`.
    Contract,
    /// RFC 9457.
    Problem,
}

impl Shape {
    /// The shape of the route at `path`.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/api/v1/") { Self::Problem } else { Self::Contract }
    }

    /// An error's answer.
    pub fn error(self, status: u16, text: &str) -> Reply {
        match self {
            Self::Contract => crate::http::error(status, text),
            Self::Problem => problem(status, slug(status), title(status), text),
        }
    }
}

fn slug(status: u16) -> &'static str {
    match status {
        400 => "invalid-request",
        401 => "unauthenticated",
        403 => "forbidden",
        404 => "not-found",
        405 => "method-not-allowed",
        413 => "too-large",
        429 => "rate-limited",
        503 => "unavailable",
        507 => "insufficient-storage",
        _ => "internal",
    }
}

fn title(status: u16) -> &'static str {
    match status {
        400 => "Invalid request",
        401 => "Authentication required",
        403 => "Forbidden",
        404 => "Not found",
        405 => "Method not allowed",
        413 => "Body too large",
        429 => "Too many requests",
        503 => "Unavailable",
        507 => "Insufficient storage",
        _ => "Internal server error",
    }
}

/// Text of a 5xx: never what went wrong inside.
pub const INTERNAL: &str = "Internal server error";

/// An answer with data.
pub fn recorded(status: u16, body: Option<&Value>, receipt: &Receipt) -> Reply {
    let reply = match body {
        Some(body) => Reply::json(status, body),
        None => Reply::empty(status),
    };
    reply.header("x-audit-index", receipt.index().to_string())
}

/// The answer to a refusal. `words` gives the text of a denial: what the asker is told is missing or not allowed.
pub fn refused<E: Fault + std::error::Error>(shape: Shape, refused: &Refused<E>, words: &Words) -> Reply {
    match refused {
        Refused::Denied(denied, receipt) => {
            let (_, status) = denial(denied);
            let text = if status == 403 { words.forbidden } else { words.missing };
            with_index(words.coded(shape.error(status, text), status), receipt)
        }
        Refused::Work(error, receipt) => {
            let (_, status) = error.audit();
            let reply = if status == 500 { shape.error(500, INTERNAL) } else { shape.error(status, &error.to_string()) };
            let reply = if status == 503 { reply.header("retry-after", "1") } else { reply };
            with_index(reply, receipt)
        }
        Refused::Fault(receipt) => with_index(shape.error(500, INTERNAL), receipt),
        Refused::Revoked(receipt) => with_index(shape.error(401, "Invalid API key"), receipt),
        Refused::Unavailable(why) => unavailable(shape, *why),
    }
}

fn with_index(reply: Reply, receipt: &Receipt) -> Reply {
    reply.header("x-audit-index", receipt.index().to_string())
}

/// What a denial says on a route.
pub struct Words {
    /// For 404.
    pub missing: &'static str,
    /// For 403.
    pub forbidden: &'static str,
    /// The contract's `code` beside a 404, where it has one.
    pub code: Option<&'static str>,
}

impl Words {
    /// For routes about one memory.
    pub const MEMORY: Words = Words { missing: "Memory not found", forbidden: "Forbidden", code: None };
    /// For an agent's update.
    pub const UPDATE: Words = Words { forbidden: "Agents can only update memories they created", ..Self::MEMORY };
    /// For an agent's delete.
    pub const DELETE: Words = Words { forbidden: "Agents can only delete memories they created", ..Self::MEMORY };
    /// For a restore.
    pub const RESTORE: Words = Words { missing: "Memory not found or not in trash", ..Self::MEMORY };
    /// For a reply.
    pub const PARENT: Words = Words { missing: "Parent memory not found", code: Some("parent_not_found"), ..Self::MEMORY };
    /// For keys.
    pub const KEY: Words = Words { missing: "Key not found", ..Self::MEMORY };
    /// For operations.
    pub const OPERATION: Words = Words { missing: "Operation not found", ..Self::MEMORY };

    fn coded(&self, reply: Reply, status: u16) -> Reply {
        match self.code {
            Some(code) if status == 404 => Reply::json(status, &json!({ "error": self.missing, "code": code })),
            _ => reply,
        }
    }
}

/// The answer while the store cannot answer.
pub fn unavailable(shape: Shape, why: Unavailable) -> Reply {
    match why {
        Unavailable::NoSpace => shape.error(507, "The disk is nearly full; nothing was done"),
        Unavailable::Unknown(operation) => {
            let text = "It is not known yet whether the request took effect; ask for the operation";
            let mut body = json!({ "error": text, "outcome": "unknown", "operation_id": operation.to_string() });
            if shape == Shape::Problem {
                body["type"] = json!("urn:rosemary:problem:unknown-outcome");
                body["title"] = json!("Outcome unknown");
                body["status"] = json!(503);
                body["detail"] = json!(text);
            }
            Reply::json(503, &body).header("retry-after", "1")
        }
        Unavailable::QueueFull | Unavailable::Latched | Unavailable::Busy | Unavailable::Stopping => {
            shape.error(503, "The service cannot answer now; nothing was done").header("retry-after", "1")
        }
    }
}

// --- records ---

fn text(phi: &Phi, receipt: &Receipt) -> Value {
    Value::from(phi.expose(receipt))
}

fn texts(list: &[Phi], receipt: &Receipt) -> Value {
    list.iter().map(|phi| text(phi, receipt)).collect()
}

/// The extra keys of DESIGN 10, echoed only when set.
fn extras(map: &mut Map<String, Value>, memory: &Memory, receipt: &Receipt) {
    let words = &memory.text;
    for (name, phi) in [("subject", &words.subject), ("run_id", &words.run_id), ("speaker", &words.speaker)] {
        if let Some(phi) = phi {
            map.insert(name.into(), text(phi, receipt));
        }
    }
    if let Some(metadata) = &words.metadata {
        map.insert("metadata".into(), serde_json::from_str(metadata.expose(receipt)).unwrap_or(Value::Null));
    }
    if let Some(at) = memory.occurred_at {
        map.insert("occurred_at".into(), Value::from(at.to_string()));
    }
}

/// The contract's memory record.
pub fn record(memory: &Memory, receipt: &Receipt) -> Value {
    let mut map = Map::new();
    map.insert("id".into(), Value::from(memory.id.to_string()));
    map.insert("title".into(), text(&memory.text.title, receipt));
    map.insert("content".into(), text(&memory.text.content, receipt));
    map.insert("tags".into(), texts(&memory.text.tags, receipt));
    map.insert("origin".into(), Value::from(memory.origin.as_str()));
    map.insert("allowed_vendors".into(), memory.allowed_vendors.iter().map(String::as_str).collect());
    map.insert("memory_type".into(), Value::from(memory.kind.name()));
    map.insert("created_at".into(), Value::from(memory.created_at.to_string()));
    map.insert("updated_at".into(), Value::from(memory.updated_at.to_string()));
    for name in ["shared_with_org_id", "shared_with_team_id", "shared_at"] {
        map.insert(name.into(), Value::Null);
    }
    map.insert("parent_memory_id".into(), memory.parent.as_ref().map(MemoryId::to_string).into());
    if let Some(at) = memory.deleted_at {
        map.insert("deleted_at".into(), Value::from(at.to_string()));
    }
    extras(&mut map, memory, receipt);
    Value::Object(map)
}

/// The contract's summary: no content.
pub fn summary(memory: &Memory, receipt: &Receipt) -> Value {
    json!({
        "id": memory.id.to_string(),
        "title": text(&memory.text.title, receipt),
        "tags": texts(&memory.text.tags, receipt),
        "origin": memory.origin,
        "memory_type": memory.kind.name(),
        "created_at": memory.created_at.to_string(),
        "updated_at": memory.updated_at.to_string(),
    })
}

/// The contract's version. Its id is made of the memory's and the version's number, so it is stable.
pub fn version(version: &Version, receipt: &Receipt) -> Value {
    let memory = &version.memory;
    let mut map = Map::new();
    map.insert("id".into(), Value::from(version_id(memory.id, memory.version)));
    map.insert("memory_id".into(), Value::from(memory.id.to_string()));
    map.insert("title".into(), text(&memory.text.title, receipt));
    map.insert("content".into(), text(&memory.text.content, receipt));
    map.insert("tags".into(), texts(&memory.text.tags, receipt));
    map.insert("origin".into(), Value::from(memory.origin.as_str()));
    map.insert("allowed_vendors".into(), memory.allowed_vendors.iter().map(String::as_str).collect());
    map.insert("memory_type".into(), Value::from(memory.kind.name()));
    map.insert("version_number".into(), Value::from(memory.version));
    map.insert("created_at".into(), Value::from(version.changed_at.to_string()));
    extras(&mut map, memory, receipt);
    Value::Object(map)
}

/// A UUIDv8 (RFC 9562 section 5.8): the first 16 bytes of SHA-256 over the memory's id and the number.
fn version_id(memory: MemoryId, number: u32) -> String {
    let hash = crate::crypto::hash::sha256(&[b"rosemary/version", memory.bytes(), &number.to_be_bytes()]);
    let mut id = *hash.first_chunk::<16>().expect("32 bytes hold 16");
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    crate::base::id::format_uuid(&id)
}

/// Many of something.
pub fn all<T>(items: &[T], receipt: &Receipt, each: fn(&T, &Receipt) -> Value) -> Value {
    items.iter().map(|item| each(item, receipt)).collect()
}
