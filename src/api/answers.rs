//! What answers hold: the components of the OpenAPI document, by name, as data.
//!
//! Invariants
//! - Every text carries an example; from these every answer's example is composed (`openapi`).
//! - `required` lists the keys that are always there; a key that may be absent is left out of the answer, never null.

use serde_json::{Value, json};

use crate::api::schema::with_members;

/// Named shapes: members of an object, or components.
pub(in crate::api) type Members = &'static [(&'static str, Shape)];

/// What a part of an answer looks like. Constant, so that the program holds the document as data, not as code that makes it.
#[derive(Clone, Copy)]
pub(in crate::api) enum Shape {
    /// A JSON Schema, written out.
    Schema(&'static str),
    /// Always this text.
    Const(&'static str),
    /// A text, and one such.
    Text(&'static str),
    /// A text or null, and one such.
    MaybeText(&'static str),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A component.
    Reference(&'static str),
    /// A list.
    List(&'static Shape),
    /// A list of so many at least and at most.
    Many(usize, usize, &'static Shape),
    /// A list of texts, and one such.
    Texts(&'static str),
    /// A list of a component.
    ListOf(&'static str),
    /// This or null.
    Maybe(&'static Shape),
    /// An object with members that are in every answer, and members that are left out when they do not apply.
    Object(Members, Members),
    /// An object in a request: its members, which of them must be there, and whether there may be others.
    Request(Members, &'static [&'static str], bool),
    /// All of these at once, with what it means unless that is empty.
    All(&'static str, &'static [Shape]),
    /// One of these, with what it means unless that is empty.
    Any(&'static str, &'static [Shape]),
}

impl Shape {
    /// As JSON Schema 2020-12.
    pub fn value(self) -> Value {
        match self {
            Self::Schema(text) => serde_json::from_str(text).expect("a schema is JSON: the tests of `openapi` read every one"),
            Self::Const(text) => json!({ "const": text }),
            Self::Text(example) => json!({ "type": "string", "examples": [example] }),
            Self::MaybeText(example) => json!({ "type": ["string", "null"], "examples": [example] }),
            Self::Word(words) => json!({ "type": "string", "enum": words }),
            Self::Reference(name) => reference_to(name),
            Self::List(items) => list(items.value()),
            Self::Many(least, most, items) => json!({ "type": "array", "minItems": least, "maxItems": most, "items": items.value() }),
            Self::Texts(example) => list(Self::Text(example).value()),
            Self::ListOf(name) => list(reference_to(name)),
            Self::Maybe(shape) => {
                let mut schema = shape.value();
                schema["type"] = json!([schema["type"], "null"]);
                schema
            }
            Self::Object(always, sometimes) => {
                let properties = with_members(always.iter().chain(sometimes).map(named));
                let required: Vec<_> = always.iter().map(|(name, _)| *name).collect();
                json!({ "type": "object", "required": required, "properties": properties })
            }
            Self::Request(members, required, more) => {
                json!({ "type": "object", "required": required, "properties": with_members(members.iter().map(named)), "additionalProperties": more })
            }
            Self::All(about, shapes) => joined("allOf", about, shapes),
            Self::Any(about, shapes) => joined("anyOf", about, shapes),
        }
    }
}

/// A name with its schema.
pub(in crate::api) fn named((name, shape): &(&'static str, Shape)) -> (String, Value) {
    ((*name).to_owned(), shape.value())
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn joined(how: &str, about: &str, shapes: &[Shape]) -> Value {
    let mut schema = json!({ how: shapes.iter().map(|shape| shape.value()).collect::<Vec<_>>() });
    if !about.is_empty() {
        schema["description"] = about.into();
    }
    schema
}

/// A reference to a component.
pub(in crate::api) fn reference_to(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

pub(in crate::api) const fn answer(always: Members, sometimes: Members) -> Shape {
    Shape::Object(always, sometimes)
}

pub(in crate::api) const fn reference(name: &'static str) -> Shape {
    Shape::Reference(name)
}

pub(in crate::api) const fn list_of(name: &'static str) -> Shape {
    Shape::ListOf(name)
}

pub(in crate::api) const fn text(example: &'static str) -> Shape {
    Shape::Text(example)
}

pub(in crate::api) const fn maybe_text(example: &'static str) -> Shape {
    Shape::MaybeText(example)
}

pub(in crate::api) const fn texts(example: &'static str) -> Shape {
    Shape::Texts(example)
}

pub(in crate::api) const fn word(words: &'static [&'static str]) -> Shape {
    Shape::Word(words)
}

pub(in crate::api) const fn constant(text: &'static str) -> Shape {
    Shape::Const(text)
}

pub(in crate::api) const TRUE: Shape = Shape::Schema(r#"{"const":true}"#);
pub(in crate::api) const FALSE: Shape = Shape::Schema(r#"{"const":false}"#);

/// Always null in this version.
pub(in crate::api) const fn never() -> Shape {
    Shape::Schema(r#"{"type":"null"}"#)
}

pub(in crate::api) const fn id() -> Shape {
    Shape::Schema(r#"{"type":"string","format":"uuid"}"#)
}

pub(in crate::api) const fn maybe_id() -> Shape {
    Shape::Schema(r#"{"type":["string","null"],"format":"uuid"}"#)
}

pub(in crate::api) const fn time() -> Shape {
    Shape::Schema(r#"{"type":"string","format":"date-time"}"#)
}

pub(in crate::api) const fn maybe_time() -> Shape {
    Shape::Schema(r#"{"type":["string","null"],"format":"date-time"}"#)
}

pub(in crate::api) const fn number() -> Shape {
    Shape::Schema(r#"{"type":"integer","minimum":0}"#)
}

pub(in crate::api) const fn first() -> Shape {
    Shape::Schema(r#"{"type":"integer","minimum":1}"#)
}

pub(in crate::api) const fn flag() -> Shape {
    Shape::Schema(r#"{"type":"boolean"}"#)
}

pub(in crate::api) const fn object() -> Shape {
    Shape::Schema(r#"{"type":"object","additionalProperties":true}"#)
}

pub(in crate::api) const fn title() -> Shape {
    text("Allergy")
}

const fn content() -> Shape {
    text("Penicillin: rash on both arms, 2019")
}

const fn memory_type() -> Shape {
    word(&["semantic", "episodic", "procedural"])
}

/// A list that is always empty in this version.
const fn nothing() -> Shape {
    Shape::Schema(r#"{"type":"array","items":{},"maxItems":0,"examples":[[]]}"#)
}

/// The contract's page envelope.
macro_rules! page {
    ($name:literal) => {
        answer(&[("memories", list_of($name)), ("total", number()), ("limit", number()), ("offset", number()), ("has_more", flag())], &[])
    };
}

/// What only writers that know of it have set.
const EXTRAS: [(&str, Shape); 5] = [
    ("subject", text("MRN 4711")),
    ("metadata", object()),
    ("run_id", text("round-2026-11-21")),
    ("speaker", text("Dr. Adler")),
    ("occurred_at", time()),
];

/// What an answer says where it is not known whether something was done.
const UNKNOWN: [(&str, Shape); 2] = [("outcome", constant("unknown")), ("operation_id", id())];

/// What administrators see.
pub(super) const ADMIN: Members = &[
    ("AdminCheck", answer(&[("owner", TRUE)], &[])),
    ("AdminUsers", answer(&[("users", list_of("AdminUser"))], &[])),
    ("AdminUser", answer(&[("id", id()), ("email", text("owner@hospital.example")), ("created_at", time())], &[])),
    ("Waitlist", answer(&[("waitlist", nothing()), ("total", Shape::Schema(r#"{"const": 0}"#))], &[])),
    ("Requests", answer(&[("requests", nothing()), ("total", Shape::Schema(r#"{"const": 0}"#))], &[])),
];

/// Every component, by name, but those of [`ADMIN`] and of other skins.
pub(in crate::api) const COMPONENTS: Members = &[
    (
        "Memory",
        answer(
            &[
                ("id", id()),
                ("title", title()),
                ("content", content()),
                ("tags", texts("allergy")),
                ("origin", text("api")),
                ("allowed_vendors", texts("*")),
                ("memory_type", memory_type()),
                ("created_at", time()),
                ("updated_at", time()),
                ("shared_with_org_id", maybe_id()),
                ("shared_with_team_id", maybe_id()),
                ("shared_at", maybe_time()),
                ("parent_memory_id", maybe_id()),
            ],
            &[("deleted_at", time()), EXTRAS[0], EXTRAS[1], EXTRAS[2], EXTRAS[3], EXTRAS[4]],
        ),
    ),
    (
        "Summary",
        answer(
            &[
                ("id", id()),
                ("title", title()),
                ("tags", texts("allergy")),
                ("origin", text("api")),
                ("memory_type", memory_type()),
                ("created_at", time()),
                ("updated_at", time()),
            ],
            &[],
        ),
    ),
    (
        "Version",
        answer(
            &[
                ("id", id()),
                ("memory_id", id()),
                ("title", title()),
                ("content", content()),
                ("tags", texts("allergy")),
                ("origin", text("api")),
                ("allowed_vendors", texts("*")),
                ("memory_type", memory_type()),
                ("version_number", first()),
                ("created_at", time()),
            ],
            &EXTRAS,
        ),
    ),
    ("Memories", answer(&[("memories", list_of("Memory"))], &[])),
    ("CountedMemories", answer(&[("memories", list_of("Memory")), ("count", number())], &[])),
    ("MemoryPage", page!("Memory")),
    ("SummaryPage", page!("Summary")),
    ("Versions", answer(&[("versions", list_of("Version"))], &[])),
    ("AgentVersions", answer(&[("versions", list_of("Version")), ("current_version", first())], &[])),
    ("Thread", answer(&[("parent", reference("Memory")), ("children", list_of("Memory"))], &[])),
    ("AgentDeleted", answer(&[("deleted", TRUE), ("id", id()), ("title", title())], &[])),
    ("TrashEmptied", answer(&[("deleted", number())], &[])),
    ("SearchResults", answer(&[("results", list_of("SearchResult")), ("count", number())], &[])),
    (
        "SearchResult",
        Shape::All(
            "A memory with its score (comparable within one answer), the passage that answers, and the words in it that the \
                query names, as pairs of character positions.",
            &[
                reference("Memory"),
                answer(
                    &[
                        ("score", Shape::Schema(r#"{"type": "number", "examples": [7.25]}"#)),
                        ("snippet", content()),
                        (
                            "highlights",
                            Shape::List(&Shape::Schema(
                                r#"{"type":"array","items":{"type":"integer","minimum":0},"minItems":2,"maxItems":2,"examples":[[0,10]]}"#,
                            )),
                        ),
                    ],
                    &[("explain", object())],
                ),
            ],
        ),
    ),
    ("Models", answer(&[("models", texts("ward-model"))], &[])),
    (
        "QueryReceipt",
        Shape::Any(
            "What was answered, and from what: to a person everything that the model was told, to an agent the counts.",
            &[reference("UserReceipt"), reference("AgentReceipt")],
        ),
    ),
    (
        "UserReceipt",
        answer(
            &[
                ("response", text("Penicillin.")),
                ("memories_used", list_of("Memory")),
                ("prompt_sent", text("Memories:\n[1] Allergy\nPenicillin: rash on both arms, 2019\n\nQuestion: What is she allergic to?")),
                ("model_config", reference("ModelConfig")),
                ("vendor_filter", maybe_text("cursor")),
                ("truncated", flag()),
                ("memories_included", number()),
                ("memories_total", number()),
            ],
            &[],
        ),
    ),
    (
        "ModelConfig",
        answer(
            &[
                ("model", text("ward-model")),
                ("temperature", Shape::Schema(r#"{"type": "number", "minimum": 0, "maximum": 2}"#)),
                ("max_tokens", first()),
            ],
            &[],
        ),
    ),
    (
        "AgentReceipt",
        answer(
            &[
                ("response", text("Penicillin.")),
                ("memories_used_count", number()),
                ("memories_included_in_prompt", number()),
                ("truncated", flag()),
                ("estimated_tokens", number()),
                ("vendor_filter", maybe_text("cursor")),
            ],
            &[],
        ),
    ),
    ("ChatReply", answer(&[("response", text("A class of antibiotics.")), ("model", text("ward-model"))], &[])),
    (
        "Health",
        answer(
            &[
                ("service", constant("reflect-memory")),
                ("status", word(&["ok", "unavailable", "locked"])),
                ("uptime_seconds", number()),
                ("deployment_mode", constant("self-host")),
                ("network_boundary", word(&["private", "public"])),
                ("model_egress", word(&["disabled", "enabled"])),
                ("public_webhooks", flag()),
            ],
            &[],
        ),
    ),
    (
        "WhoAmI",
        answer(
            &[
                ("role", word(&["user", "agent"])),
                ("vendor", maybe_text("cursor")),
                ("deployment_mode", constant("self-host")),
                ("log_sharing_enabled", flag()),
                ("is_admin", flag()),
            ],
            &[],
        ),
    ),
    (
        "User",
        answer(
            &[
                ("id", id()),
                ("email", text("adler@clinic.example")),
                ("clerk_id", never()),
                ("role", text("user")),
                ("plan", text("free")),
                ("stripe_customer_id", never()),
                ("org_id", maybe_id()),
                ("org_role", maybe_text("member")),
                ("team_id", maybe_id()),
                ("first_name", maybe_text("Ada")),
                ("last_name", maybe_text("Adler")),
            ],
            &[],
        ),
    ),
    (
        "NewKey",
        answer(
            &[
                ("key", text("rm_live_0123456789abcdef0123456789abcdef01234567f4d8a1b2")),
                ("id", id()),
                ("key_prefix", text("rm_live_01234567")),
                ("label", text("Ward 3 laptop")),
                ("created_at", time()),
            ],
            &[],
        ),
    ),
    (
        "Key",
        answer(
            &[
                ("id", id()),
                ("user_id", id()),
                ("key_prefix", text("rm_live_01234567")),
                ("label", text("Ward 3 laptop")),
                ("last_used_at", maybe_time()),
                ("created_at", time()),
                ("revoked_at", maybe_time()),
            ],
            &[],
        ),
    ),
    ("Keys", answer(&[("keys", list_of("Key"))], &[])),
    ("Revoked", answer(&[("revoked", TRUE)], &[])),
    (
        "Operation",
        answer(
            &[
                ("operation_id", id()),
                ("outcome", word(&["committed", "refused", "not_committed", "unknown"])),
                ("audit_index", Shape::Schema(r#"{"type": ["integer", "null"], "minimum": 0}"#)),
            ],
            &[],
        ),
    ),
    ("Document", object()),
    (
        "Error",
        answer(
            &[("error", text("Memory not found"))],
            &[
                ("code", word(&["parent_not_found", "parent_deleted", "parent_is_child", "locked", "read_only"])),
                ("mode", constant("self-host")),
                ("plan", text("free")),
                ("memory_count", number()),
                ("active_keys", number()),
                ("limit", number()),
                ("upgrade_url", never()),
                UNKNOWN[0],
                UNKNOWN[1],
            ],
        ),
    ),
    (
        "Problem",
        answer(
            &[
                ("type", text("urn:rosemary:problem:not-found")),
                ("title", text("Not found")),
                ("status", Shape::Schema(r#"{"type": "integer", "minimum": 400, "maximum": 599, "examples": [404]}"#)),
                ("detail", text("Operation not found")),
                ("error", text("Operation not found")),
            ],
            &[("code", word(&["locked", "read_only"])), UNKNOWN[0], UNKNOWN[1]],
        ),
    ),
    (
        "Embeddings",
        answer(
            &[("model", Shape::Schema(r#"{"type":["string","null"],"pattern":"^[0-9a-f]{32}$"}"#))],
            &[("dimensions", number()), ("memories", number()), ("embedded", number()), ("backlog", number())],
        ),
    ),
];
