//! What answers hold: the components of the OpenAPI document, by name.
//!
//! Invariants
//! - Every text carries an example; from these every answer's example is composed (`openapi`).
//! - `required` lists the keys that are always there; a key that may be absent is left out of the answer, never null.

use serde_json::{Map, Value, json};

/// A reference to a component.
pub(in crate::api) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object whose `always` keys are in every answer and whose `sometimes` keys are left out when they do not apply.
pub(in crate::api) fn answer(always: &[(&str, Value)], sometimes: &[(&str, Value)]) -> Value {
    let mut properties = Map::new();
    for (name, value) in always.iter().chain(sometimes) {
        properties.insert((*name).to_owned(), value.clone());
    }
    let required: Vec<_> = always.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

/// A text, and one such.
pub(in crate::api) fn text(example: &str) -> Value {
    json!({ "type": "string", "examples": [example] })
}

/// A text or null.
pub(in crate::api) fn maybe_text(example: &str) -> Value {
    json!({ "type": ["string", "null"], "examples": [example] })
}

/// Always null in this version.
pub(in crate::api) fn never() -> Value {
    json!({ "type": "null" })
}

/// One of these words.
pub(in crate::api) fn word(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

pub(in crate::api) fn texts(example: &str) -> Value {
    json!({ "type": "array", "items": text(example) })
}

pub(in crate::api) fn id() -> Value {
    json!({ "type": "string", "format": "uuid" })
}

pub(in crate::api) fn maybe_id() -> Value {
    json!({ "type": ["string", "null"], "format": "uuid" })
}

pub(in crate::api) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

pub(in crate::api) fn maybe_time() -> Value {
    json!({ "type": ["string", "null"], "format": "date-time" })
}

pub(in crate::api) fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

pub(in crate::api) fn flag() -> Value {
    json!({ "type": "boolean" })
}

pub(in crate::api) fn object() -> Value {
    json!({ "type": "object", "additionalProperties": true })
}

pub(in crate::api) fn list_of(name: &str) -> Value {
    json!({ "type": "array", "items": reference(name) })
}

/// A list that is always empty in this version.
fn nothing() -> Value {
    json!({ "type": "array", "items": {}, "maxItems": 0, "examples": [[]] })
}

/// The contract's page envelope.
fn page(name: &str) -> Value {
    answer(&[("memories", list_of(name)), ("total", number()), ("limit", number()), ("offset", number()), ("has_more", flag())], &[])
}

/// What only writers that know of it have set.
fn extras() -> [(&'static str, Value); 5] {
    [
        ("subject", text("MRN 4711")),
        ("metadata", object()),
        ("run_id", text("round-2026-11-21")),
        ("speaker", text("Dr. Adler")),
        ("occurred_at", time()),
    ]
}

pub(in crate::api) fn title() -> Value {
    text("Allergy")
}

fn content() -> Value {
    text("Penicillin: rash on both arms, 2019")
}

fn memory_type() -> Value {
    word(&["semantic", "episodic", "procedural"])
}

pub(in crate::api) fn first() -> Value {
    json!({ "type": "integer", "minimum": 1 })
}

/// What administrators see.
pub(super) fn admin() -> [(&'static str, Value); 5] {
    [
        ("AdminCheck", answer(&[("owner", json!({ "const": true }))], &[])),
        ("AdminUsers", answer(&[("users", list_of("AdminUser"))], &[])),
        ("AdminUser", answer(&[("id", id()), ("email", text("owner@hospital.example")), ("created_at", time())], &[])),
        ("Waitlist", answer(&[("waitlist", nothing()), ("total", json!({ "const": 0 }))], &[])),
        ("Requests", answer(&[("requests", nothing()), ("total", json!({ "const": 0 }))], &[])),
    ]
}

/// Every component, by name, but those of [`admin`] and of other skins.
pub(in crate::api) fn components() -> Value {
    let [subject, metadata, run_id, speaker, occurred_at] = extras();
    let unknown = || [("outcome", json!({ "const": "unknown" })), ("operation_id", id())];
    let [outcome, operation_id] = unknown();
    let mut all = json!({
        "Memory": answer(
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
            &[("deleted_at", time()), subject, metadata, run_id, speaker, occurred_at],
        ),
        "Summary": answer(
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
        "Version": answer(
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
            &extras(),
        ),
        "Memories": answer(&[("memories", list_of("Memory"))], &[]),
        "CountedMemories": answer(&[("memories", list_of("Memory")), ("count", number())], &[]),
        "MemoryPage": page("Memory"),
        "SummaryPage": page("Summary"),
        "Versions": answer(&[("versions", list_of("Version"))], &[]),
        "AgentVersions": answer(&[("versions", list_of("Version")), ("current_version", first())], &[]),
        "Thread": answer(&[("parent", reference("Memory")), ("children", list_of("Memory"))], &[]),
        "AgentDeleted": answer(&[("deleted", json!({ "const": true })), ("id", id()), ("title", title())], &[]),
        "TrashEmptied": answer(&[("deleted", number())], &[]),
        "SearchResults": answer(&[("results", list_of("SearchResult")), ("count", number())], &[]),
        "SearchResult": json!({
            "description": "A memory with its score (comparable within one answer), the passage that answers, and the words in it that the \
                query names, as pairs of character positions.",
            "allOf": [
                reference("Memory"),
                answer(
                    &[
                        ("score", json!({ "type": "number", "examples": [7.25] })),
                        ("snippet", content()),
                        (
                            "highlights",
                            json!({
                                "type": "array",
                                "items": { "type": "array", "items": number(), "minItems": 2, "maxItems": 2, "examples": [[0, 10]] },
                            }),
                        ),
                    ],
                    &[("explain", object())],
                ),
            ],
        }),
        "Models": answer(&[("models", texts("ward-model"))], &[]),
        "QueryReceipt": json!({
            "description": "What was answered, and from what: to a person everything that the model was told, to an agent the counts.",
            "anyOf": [reference("UserReceipt"), reference("AgentReceipt")],
        }),
        "UserReceipt": answer(
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
        "ModelConfig": answer(
            &[("model", text("ward-model")), ("temperature", json!({ "type": "number", "minimum": 0, "maximum": 2 })), ("max_tokens", first())],
            &[],
        ),
        "AgentReceipt": answer(
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
        "ChatReply": answer(&[("response", text("A class of antibiotics.")), ("model", text("ward-model"))], &[]),
        "Health": answer(
            &[
                ("service", json!({ "const": "reflect-memory" })),
                ("status", word(&["ok", "unavailable", "locked"])),
                ("uptime_seconds", number()),
                ("deployment_mode", json!({ "const": "self-host" })),
                ("network_boundary", word(&["private", "public"])),
                ("model_egress", word(&["disabled", "enabled"])),
                ("public_webhooks", flag()),
            ],
            &[],
        ),
        "WhoAmI": answer(
            &[
                ("role", word(&["user", "agent"])),
                ("vendor", maybe_text("cursor")),
                ("deployment_mode", json!({ "const": "self-host" })),
                ("log_sharing_enabled", flag()),
                ("is_admin", flag()),
            ],
            &[],
        ),
        "User": answer(
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
        "NewKey": answer(
            &[
                ("key", text("rm_live_0123456789abcdef0123456789abcdef01234567f4d8a1b2")),
                ("id", id()),
                ("key_prefix", text("rm_live_01234567")),
                ("label", text("Ward 3 laptop")),
                ("created_at", time()),
            ],
            &[],
        ),
        "Key": answer(
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
        "Keys": answer(&[("keys", list_of("Key"))], &[]),
        "Revoked": answer(&[("revoked", json!({ "const": true }))], &[]),
        "Operation": answer(
            &[
                ("operation_id", id()),
                ("outcome", word(&["committed", "refused", "not_committed", "unknown"])),
                ("audit_index", json!({ "type": ["integer", "null"], "minimum": 0 })),
            ],
            &[],
        ),
        "Document": object(),
        "Error": answer(
            &[("error", text("Memory not found"))],
            &[
                ("code", word(&["parent_not_found", "parent_deleted", "parent_is_child", "locked", "read_only"])),
                ("mode", json!({ "const": "self-host" })),
                ("plan", text("free")),
                ("memory_count", number()),
                ("active_keys", number()),
                ("limit", number()),
                ("upgrade_url", never()),
                outcome,
                operation_id,
            ],
        ),
        "Problem": answer(
            &[
                ("type", text("urn:rosemary:problem:not-found")),
                ("title", text("Not found")),
                ("status", json!({ "type": "integer", "minimum": 400, "maximum": 599, "examples": [404] })),
                ("detail", text("Operation not found")),
                ("error", text("Operation not found")),
            ],
            &{
                let [outcome, operation_id] = unknown();
                [("code", word(&["locked", "read_only"])), outcome, operation_id]
            },
        ),
    });
    // Beside the others: the macro that makes them is full.
    all["Embeddings"] = answer(
        &[("model", json!({ "type": ["string", "null"], "pattern": "^[0-9a-f]{32}$" }))],
        &[("dimensions", number()), ("memories", number()), ("embedded", number()), ("backlog", number())],
    );
    all
}
