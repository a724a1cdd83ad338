//! Answers: what was recorded, as bytes, and how the ends of requests that policy, gate or store refused look in HTTP. Which status a refusal of work
//! has is said where it is refused, since its entry records it (`store::gate::Fault`).
//!
//! Invariants
//! - An answer with data or a claimed effect is made from a `Receipt`; its audit index is in the header `x-audit-index`.
//! - An error's text is the program's own. Contract routes answer `{"error": …}`; our own answer RFC 9457 problem details that also carry it.

use std::borrow::Cow;
use std::fmt::Display;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::api::{mcp, mem0};
use crate::base::id::{MemoryId, OperationId, UserId};
use crate::base::time::Timestamp;
use crate::http::Reply;
use crate::store::gate::{Fault, Receipt, Recorded, Refused, denial};
use crate::store::memories::{Memory, Version};
use crate::store::phi::Phi;
use crate::store::quota::{Counted, Full};
use crate::store::writer::Unavailable;

/// The shape of a route's errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// `{"error": …}`.
    Contract,
    /// RFC 9457.
    Problem,
    /// `{"error": …, "detail": …}`: Mem0's clients show `detail`.
    Mem0,
    /// A JSON-RPC error.
    Mcp,
}

impl Shape {
    /// The shape of the route at `path`.
    pub fn of(path: &str) -> Self {
        match path {
            path if path.starts_with("/api/v1/") => Self::Problem,
            path if mem0::is_path(path) => Self::Mem0,
            mcp::PATH => Self::Mcp,
            _ => Self::Contract,
        }
    }

    /// An error's answer.
    pub fn error(self, status: u16, text: impl Into<Cow<'static, str>>) -> Reply {
        Failure::new(status, text).reply(self)
    }
}

fn slug(status: u16) -> &'static str {
    match status {
        400 => "invalid-request",
        401 => "unauthenticated",
        403 => "forbidden",
        404 => "not-found",
        405 => "method-not-allowed",
        409 => "conflict",
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
        409 => "Conflict",
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
pub fn recorded(status: u16, body: Option<Vec<u8>>, receipt: &Receipt) -> Reply {
    let reply = match body {
        Some(body) => Reply::bytes(status, "application/json; charset=utf-8", body),
        None => Reply::empty(status),
    };
    reply.header("x-audit-index", receipt.index().to_string())
}

/// An answer with the data that `answer` writes.
pub fn written<T>(status: u16, mut done: Recorded<T>, answer: impl FnOnce(&T, &Receipt) -> Vec<u8>) -> Reply {
    let held = done.hold();
    let (value, receipt) = done.into_parts();
    recorded(status, Some(answer(&value, &receipt)), &receipt).holding(held)
}

/// What an operation came to: its value with the receipt, or why there is none.
pub type Done<T> = Result<Recorded<T>, Failure>;

/// A [`Done`] whose value is written out.
pub type Answered = Result<Reply, Failure>;

/// Why there is no answer, whichever way the operation was asked for; each skin puts it into its own shape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// HTTP status, 400 or above.
    pub status: u16,
    /// For the client; the program's own words.
    pub text: Cow<'static, str>,
    /// The contract's `code`, where it has one.
    pub code: Option<&'static str>,
    /// The contract's `mode`, where a policy of the deployment refuses.
    pub mode: Option<&'static str>,
    /// The quota that is used up.
    pub full: Option<Box<Full>>,
    /// Whether the same request will always be refused.
    pub lasting: bool,
    /// The operation, if it is not known whether it took effect.
    pub unknown: Option<OperationId>,
    /// Index of the entry that records the refusal; none where refusals are counted.
    pub index: Option<u64>,
}

impl Failure {
    /// A failure without code and entry.
    pub fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, text: text.into(), code: None, mode: None, full: None, lasting: false, unknown: None, index: None }
    }

    /// The same, recorded by the entry of `receipt`.
    #[must_use]
    pub fn recorded(self, receipt: &Receipt) -> Self {
        Self { index: Some(receipt.index()), ..self }
    }

    /// What the gate refused. `words` gives the text of a denial: what the asker is told is missing or not allowed.
    pub fn refused<E: Fault + std::error::Error>(refused: &Refused<E>, words: &Words) -> Self {
        match refused {
            Refused::Denied(denied, receipt) => words.failure(denial(denied).1).recorded(receipt),
            Refused::Work(error, receipt) => {
                let (_, status) = error.audit();
                let text: Cow<'static, str> = if status == 500 { INTERNAL.into() } else { error.to_string().into() };
                let code = error.code().filter(|_| status != 500);
                Self { code, full: error.full().map(Box::new), index: Some(receipt.index()), ..Self::new(status, text) }
            }
            Refused::Fault(receipt) => Self::new(500, INTERNAL).recorded(receipt),
            Refused::Revoked(receipt) => Self::new(401, "Invalid API key").recorded(receipt),
            Refused::Unavailable(why) => Self::unavailable(*why),
        }
    }

    /// The store cannot answer: whether nothing happened, or it is not known what did.
    pub fn unavailable(why: Unavailable) -> Self {
        match why {
            Unavailable::NoSpace => Self::new(507, "The disk is nearly full; nothing was done"),
            Unavailable::Unknown(operation) => {
                let text = "It is not known yet whether the request took effect; ask for the operation";
                Self { unknown: Some(operation), ..Self::new(503, text) }
            }
            Unavailable::ReadOnly => {
                let text = "The instance is read-only until its operator allows changes again; nothing was done";
                Self { code: Some("read_only"), ..Self::new(503, text) }
            }
            Unavailable::QueueFull | Unavailable::Latched | Unavailable::Busy | Unavailable::Stopping => {
                Self::new(503, "The service cannot answer now; nothing was done")
            }
        }
    }

    /// The failure as an HTTP answer.
    pub fn reply(&self, shape: Shape) -> Reply {
        let mut body = json!({ "error": self.text });
        if let Some(code) = self.code {
            body["code"] = json!(code);
        }
        if let Some(full) = &self.full {
            body["plan"] = json!(full.plan);
            body[match full.counted {
                Counted::Memories => "memory_count",
                Counted::Keys => "active_keys",
            }] = json!(full.count);
            body["limit"] = json!(full.limit);
            // Nothing is sold here: the operator decides.
            body["upgrade_url"] = Value::Null;
        }
        if let Some(mode) = self.mode {
            body["mode"] = json!(mode);
        }
        if let Some(operation) = self.unknown {
            body["outcome"] = json!("unknown");
            body["operation_id"] = json!(operation.to_string());
        }
        let content_type = match shape {
            Shape::Mcp => {
                let mut error = body;
                error["code"] = json!(mcp::message::TRANSPORT);
                error["message"] = error["error"].take();
                error.as_object_mut().and_then(|error| error.remove("error"));
                body = json!({ "jsonrpc": "2.0", "error": error, "id": null });
                "application/json"
            }
            Shape::Contract => "application/json; charset=utf-8",
            Shape::Mem0 => {
                body["detail"] = json!(self.text);
                "application/json; charset=utf-8"
            }
            Shape::Problem => {
                let (slug, title) =
                    if self.unknown.is_some() { ("unknown-outcome", "Outcome unknown") } else { (slug(self.status), title(self.status)) };
                body["type"] = json!(format!("urn:rosemary:problem:{slug}"));
                body["title"] = json!(title);
                body["status"] = json!(self.status);
                body["detail"] = json!(self.text);
                "application/problem+json"
            }
        };
        let mut reply = Reply::bytes(self.status, content_type, body.to_string().into_bytes());
        // What a policy refuses, it refuses again.
        if self.status == 503 && self.mode.is_none() && !self.lasting {
            reply = reply.header("retry-after", "1");
        }
        match self.index {
            Some(index) => reply.header("x-audit-index", index.to_string()),
            None => reply,
        }
    }
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
    /// For names that memories carry.
    pub const ENTITY: Words = Words { missing: "Entity not found", ..Self::MEMORY };
    /// For exports.
    pub const EXPORT: Words = Words { missing: "Export not found", ..Self::MEMORY };
    /// For keys.
    pub const KEY: Words = Words { missing: "Key not found", ..Self::MEMORY };
    /// For backups.
    pub const BACKUP: Words = Words { missing: "Backup not found", ..Self::ADMIN };
    /// For what administrators alone may do.
    pub const ADMIN: Words = Words { missing: "Not found", forbidden: "Admin access required", ..Self::MEMORY };
    /// For grants of OAuth.
    pub const GRANT: Words = Words { missing: "Grant not found", ..Self::MEMORY };
    /// For erasures.
    pub const ERASURE: Words = Words { missing: "Nobody of that id or name is known", ..Self::ADMIN };
    /// For operations.
    pub const OPERATION: Words = Words { missing: "Operation not found", ..Self::MEMORY };

    /// The failure that a denial with this status is.
    pub fn failure(&self, status: u16) -> Failure {
        match status {
            403 => Failure::new(403, self.forbidden),
            _ => Failure { code: self.code, ..Failure::new(status, self.missing) },
        }
    }
}

// --- records: views of protected text before a receipt, written out at once ---

/// What an answer with one memory fits in.
const ANSWER_BYTES_USUAL: usize = 2048;

/// A value as JSON bytes.
pub fn json(value: &impl Serialize) -> Vec<u8> {
    // Most answers fit: what grows would be copied at each step.
    let mut out = Vec::with_capacity(ANSWER_BYTES_USUAL);
    serde_json::to_writer(&mut out, value).expect("a view has string keys and numbers that JSON can hold");
    out
}

/// What prints itself, as a JSON string.
struct Printed<T>(T);

impl<T: Display> Serialize for Printed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The extra keys of DESIGN 10, echoed only when set.
#[derive(Serialize)]
struct Extras<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<Printed<Timestamp>>,
}

/// The contract's memory record.
#[derive(Serialize)]
pub struct Record<'a> {
    id: Printed<MemoryId>,
    title: &'a str,
    content: &'a str,
    tags: Vec<&'a str>,
    origin: &'a str,
    allowed_vendors: &'a [String],
    memory_type: &'static str,
    created_at: Printed<Timestamp>,
    updated_at: Printed<Timestamp>,
    shared_with_org_id: (),
    shared_with_team_id: (),
    shared_at: (),
    parent_memory_id: Option<Printed<MemoryId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<Printed<Timestamp>>,
    #[serde(flatten)]
    extras: Extras<'a>,
}

/// The contract's summary: no content.
#[derive(Serialize)]
pub struct Summary<'a> {
    id: Printed<MemoryId>,
    title: &'a str,
    tags: Vec<&'a str>,
    origin: &'a str,
    memory_type: &'static str,
    created_at: Printed<Timestamp>,
    updated_at: Printed<Timestamp>,
}

/// The contract's version. Its id is made of the memory's and the version's number, so it is stable.
#[derive(Serialize)]
pub struct VersionView<'a> {
    id: String,
    memory_id: Printed<MemoryId>,
    title: &'a str,
    content: &'a str,
    tags: Vec<&'a str>,
    origin: &'a str,
    allowed_vendors: &'a [String],
    memory_type: &'static str,
    version_number: u32,
    created_at: Printed<Timestamp>,
    #[serde(flatten)]
    extras: Extras<'a>,
}

/// A memory as a list shows it.
#[derive(Serialize)]
#[serde(untagged)]
pub enum View<'a> {
    /// Whole.
    Record(Record<'a>),
    /// Without content.
    Summary(Summary<'a>),
}

fn texts<'a>(list: &'a [Phi], receipt: &Receipt) -> Vec<&'a str> {
    list.iter().map(|phi| phi.expose(receipt)).collect()
}

fn extras<'a>(memory: &'a Memory, receipt: &Receipt) -> Extras<'a> {
    let text = |phi: &'a Option<Phi>| phi.as_ref().map(|phi| phi.expose(receipt));
    Extras {
        subject: text(&memory.text.subject),
        metadata: text(&memory.text.metadata).map(|json| serde_json::from_str(json).unwrap_or(Value::Null)),
        run_id: text(&memory.text.run_id),
        speaker: text(&memory.text.speaker),
        occurred_at: memory.occurred_at.map(Printed),
    }
}

/// The contract's memory record.
pub fn record<'a>(memory: &'a Memory, receipt: &Receipt) -> Record<'a> {
    Record {
        id: Printed(memory.id),
        title: memory.text.title.expose(receipt),
        content: memory.text.content.expose(receipt),
        tags: texts(&memory.text.tags, receipt),
        origin: &memory.origin,
        allowed_vendors: &memory.allowed_vendors,
        memory_type: memory.kind.name(),
        created_at: Printed(memory.created_at),
        updated_at: Printed(memory.updated_at),
        shared_with_org_id: (),
        shared_with_team_id: (),
        shared_at: (),
        parent_memory_id: memory.parent.map(Printed),
        deleted_at: memory.deleted_at.map(Printed),
        extras: extras(memory, receipt),
    }
}

/// A memory in an event of the contract: without its type, with its owner.
#[derive(Serialize)]
pub struct Row<'a> {
    id: Printed<MemoryId>,
    user_id: Printed<UserId>,
    title: &'a str,
    content: &'a str,
    tags: Vec<&'a str>,
    origin: &'a str,
    allowed_vendors: &'a [String],
    created_at: Printed<Timestamp>,
    updated_at: Printed<Timestamp>,
    deleted_at: Option<Printed<Timestamp>>,
    shared_with_org_id: (),
    shared_with_team_id: (),
    shared_at: (),
    parent_memory_id: Option<Printed<MemoryId>>,
    #[serde(flatten)]
    extras: Extras<'a>,
}

/// A memory in an event of the contract.
pub fn row<'a>(memory: &'a Memory, owner: UserId, receipt: &Receipt) -> Row<'a> {
    Row {
        id: Printed(memory.id),
        user_id: Printed(owner),
        title: memory.text.title.expose(receipt),
        content: memory.text.content.expose(receipt),
        tags: texts(&memory.text.tags, receipt),
        origin: &memory.origin,
        allowed_vendors: &memory.allowed_vendors,
        created_at: Printed(memory.created_at),
        updated_at: Printed(memory.updated_at),
        deleted_at: memory.deleted_at.map(Printed),
        shared_with_org_id: (),
        shared_with_team_id: (),
        shared_at: (),
        parent_memory_id: memory.parent.map(Printed),
        extras: extras(memory, receipt),
    }
}

/// A record as a list shows it.
pub fn whole<'a>(memory: &'a Memory, receipt: &Receipt) -> View<'a> {
    View::Record(record(memory, receipt))
}

/// A summary as a list shows it.
pub fn summary<'a>(memory: &'a Memory, receipt: &Receipt) -> View<'a> {
    View::Summary(Summary {
        id: Printed(memory.id),
        title: memory.text.title.expose(receipt),
        tags: texts(&memory.text.tags, receipt),
        origin: &memory.origin,
        memory_type: memory.kind.name(),
        created_at: Printed(memory.created_at),
        updated_at: Printed(memory.updated_at),
    })
}

/// The contract's version.
pub fn version<'a>(version: &'a Version, receipt: &Receipt) -> VersionView<'a> {
    let memory = &version.memory;
    VersionView {
        id: version_id(memory.id, memory.version),
        memory_id: Printed(memory.id),
        title: memory.text.title.expose(receipt),
        content: memory.text.content.expose(receipt),
        tags: texts(&memory.text.tags, receipt),
        origin: &memory.origin,
        allowed_vendors: &memory.allowed_vendors,
        memory_type: memory.kind.name(),
        version_number: memory.version,
        created_at: Printed(version.changed_at),
        extras: extras(memory, receipt),
    }
}

/// A UUIDv8 (RFC 9562 section 5.8): the first 16 bytes of SHA-256 over the memory's id and the number.
pub(in crate::api) fn version_id(memory: MemoryId, number: u32) -> String {
    let hash = crate::crypto::hash::sha256(&[b"rosemary/version", memory.bytes(), &number.to_be_bytes()]);
    let mut id = *hash.first_chunk::<16>().expect("32 bytes hold 16");
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    crate::base::id::format_uuid(&id)
}

/// Many of something.
pub fn all<'a, T, V>(items: &'a [T], receipt: &Receipt, each: fn(&'a T, &Receipt) -> V) -> Vec<V> {
    items.iter().map(|item| each(item, receipt)).collect()
}
