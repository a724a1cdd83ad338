//! The OpenAPI 3.1 document, written from the route table.
//!
//! Invariants
//! - Requests are described by the very schemas that check them (`schema`).
//! - Every `$ref` names a component that is present; every operation id is unique.
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
    /// The answer when all went well: its status, and its component's name (none: no body).
    pub answer: (u16, Option<&'static str>),
}

/// The document: `version` is the program's, `server_url` is where clients reach it (`RM_PUBLIC_URL`).
pub fn document(version: &str, server_url: &str, routes: &[RouteDoc]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path: Vec<_> = route.path.split('/').map(|part| part.strip_prefix(':').map_or(part.to_owned(), |name| format!("{{{name}}}"))).collect();
        let item = paths.entry(path.join("/")).or_insert_with(|| json!({}));
        item[route.method.to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rosemary",
            "version": version,
            "description": "The memory that AI agents may use inside a hospital.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "servers": [{ "url": server_url }],
        "paths": paths,
        "components": {
            "schemas": components(),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": "A user key (`rm_live_…`) or an agent key." } },
        },
    })
}

fn operation(route: &RouteDoc) -> Value {
    let mut parameters: Vec<Value> = (route.path.split('/').filter_map(|part| part.strip_prefix(':')))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    for field in route.query.map_or(&[][..], |query| query.fields) {
        parameters.push(json!({
            "name": field.name, "in": "query", "required": field.required, "description": field.about, "schema": field_schema(field),
        }));
    }
    let mut operation = json!({
        "operationId": route.operation_id,
        "summary": route.summary,
        "security": if route.auth == Auth::Public { json!([]) } else { json!([{ "key": [] }]) },
        "responses": responses(route),
    });
    if !parameters.is_empty() {
        operation["parameters"] = Value::from(parameters);
    }
    if let Some(schema) = route.body {
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": object_schema(schema) } } });
    }
    operation
}

fn responses(route: &RouteDoc) -> Value {
    let mut responses = Map::new();
    let (status, component) = route.answer;
    let mut done = json!({ "description": if status == 201 { "Created" } else { "Done" } });
    if let Some(name) = component {
        done["content"] = json!({ "application/json": { "schema": reference(name) } });
    }
    responses.insert(status.to_string(), done);

    let (media_type, error) =
        if route.path.starts_with("/api/v1/") { ("application/problem+json", "Problem") } else { ("application/json", "Error") };
    let known = route.auth != Auth::Public;
    let refusals = [
        (route.body.is_some() || route.query.is_some(), 400, "The request does not fit its schema; `error` names the place"),
        (known, 401, "No valid key"),
        (matches!(route.auth, Auth::User | Auth::Admin), 403, "This kind of key may not call this route"),
        (route.auth == Auth::Any && matches!(route.method, "PUT" | "DELETE"), 403, "Agents may only change what they wrote"),
        (route.path.contains(':'), 404, "No such thing, or not yours to see"),
        (route.body.is_some(), 413, "The body is too large"),
        (true, 429, "Too many requests; `retry-after` says when to come back"),
        (true, 500, "A fault of ours; nothing was done"),
        (known, 503, "Not now; `outcome: \"unknown\"` means that `operation_id` will tell how it ended"),
        (known && route.method != "GET", 507, "The disk is nearly full; nothing was done"),
    ];
    for (_, status, description) in refusals.iter().filter(|(applies, ..)| *applies) {
        let mut refusal = json!({ "description": description, "content": { media_type: { "schema": reference(error) } } });
        if *status == 429 {
            refusal["headers"] = json!({ "retry-after": { "description": "Seconds", "schema": { "type": "integer" } } });
        }
        responses.insert(status.to_string(), refusal);
    }
    Value::Object(responses)
}

fn object_schema(schema: &Schema) -> Value {
    let properties: Map<String, Value> = schema.fields.iter().map(|field| (field.name.to_owned(), field_schema(field))).collect();
    let required: Vec<_> = schema.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut value = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        value["required"] = Value::from(required);
    }
    value
}

fn field_schema(field: &Field) -> Value {
    let mut value = kind_schema(&field.kind);
    value["description"] = Value::from(field.about);
    if let Some(default) = &field.default {
        value["default"] = default.value();
    }
    value
}

fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Text { min, max, pattern } => {
            let mut value = json!({ "type": "string", "minLength": min, "maxLength": max });
            if let Some(pattern) = pattern {
                value["pattern"] = Value::from(pattern.source);
            }
            value
        }
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::OneOf([word]) => json!({ "const": word }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
        Kind::List { items, min, max } => json!({ "type": "array", "items": kind_schema(items), "minItems": min, "maxItems": max }),
        Kind::Tagged { variants, .. } => json!({ "oneOf": variants.iter().map(|(_, schema)| object_schema(schema)).collect::<Vec<_>>() }),
        Kind::Free { .. } => json!({ "type": "object", "additionalProperties": true }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object whose `always` keys are in every answer and whose `sometimes` keys are left out when they do not apply.
fn answer<const A: usize, const S: usize>(always: [(&str, Value); A], sometimes: [(&str, Value); S]) -> Value {
    let required: Vec<_> = always.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> = always.iter().chain(&sometimes).map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

/// What answers hold, by name.
fn components() -> Value {
    let text = || json!({ "type": "string" });
    let maybe_text = || json!({ "type": ["string", "null"] });
    let id = || json!({ "type": "string", "format": "uuid" });
    let maybe_id = || json!({ "type": ["string", "null"], "format": "uuid" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let maybe_time = || json!({ "type": ["string", "null"], "format": "date-time" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let flag = || json!({ "type": "boolean" });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let memory_type = || json!({ "type": "string", "enum": ["semantic", "episodic", "procedural"] });
    let list_of = |name: &str| json!({ "type": "array", "items": reference(name) });
    let extras = || {
        [
            ("subject", text()),
            ("metadata", json!({ "type": "object", "additionalProperties": true })),
            ("run_id", text()),
            ("speaker", text()),
            ("occurred_at", time()),
        ]
    };
    let page = |name: &str| {
        answer([("memories", list_of(name)), ("total", number()), ("limit", number()), ("offset", number()), ("has_more", flag())], [])
    };
    let [subject, metadata, run_id, speaker, occurred_at] = extras();
    json!({
        "Memory": answer(
            [
                ("id", id()),
                ("title", text()),
                ("content", text()),
                ("tags", texts()),
                ("origin", text()),
                ("allowed_vendors", texts()),
                ("memory_type", memory_type()),
                ("created_at", time()),
                ("updated_at", time()),
                ("shared_with_org_id", maybe_id()),
                ("shared_with_team_id", maybe_id()),
                ("shared_at", maybe_time()),
                ("parent_memory_id", maybe_id()),
            ],
            [("deleted_at", time()), subject, metadata, run_id, speaker, occurred_at],
        ),
        "Summary": answer(
            [
                ("id", id()),
                ("title", text()),
                ("tags", texts()),
                ("origin", text()),
                ("memory_type", memory_type()),
                ("created_at", time()),
                ("updated_at", time()),
            ],
            [],
        ),
        "Version": answer(
            [
                ("id", id()),
                ("memory_id", id()),
                ("title", text()),
                ("content", text()),
                ("tags", texts()),
                ("origin", text()),
                ("allowed_vendors", texts()),
                ("memory_type", memory_type()),
                ("version_number", json!({ "type": "integer", "minimum": 1 })),
                ("created_at", time()),
            ],
            extras(),
        ),
        "Memories": answer([("memories", list_of("Memory"))], []),
        "CountedMemories": answer([("memories", list_of("Memory")), ("count", number())], []),
        "MemoryPage": page("Memory"),
        "SummaryPage": page("Summary"),
        "Versions": answer([("versions", list_of("Version"))], []),
        "AgentVersions": answer([("versions", list_of("Version")), ("current_version", json!({ "type": "integer", "minimum": 1 }))], []),
        "Thread": answer([("parent", reference("Memory")), ("children", list_of("Memory"))], []),
        "AgentDeleted": answer([("deleted", json!({ "const": true })), ("id", id()), ("title", text())], []),
        "TrashEmptied": answer([("deleted", number())], []),
        "SearchResults": answer([("results", list_of("SearchResult")), ("count", number())], []),
        "SearchResult": json!({
            "description": "A memory with its score (comparable within one answer), the passage that answers, and the words in it that the \
                query names, as pairs of character positions.",
            "allOf": [
                reference("Memory"),
                answer(
                    [
                        ("score", json!({ "type": "number" })),
                        ("snippet", text()),
                        ("highlights", json!({ "type": "array", "items": { "type": "array", "items": { "type": "integer" } } })),
                    ],
                    [("explain", json!({ "type": "object", "additionalProperties": true }))],
                ),
            ],
        }),
        "Health": answer(
            [
                ("service", json!({ "const": "reflect-memory" })),
                ("status", text()),
                ("uptime_seconds", json!({ "type": "number", "minimum": 0 })),
                ("deployment_mode", text()),
                ("network_boundary", json!({ "type": "string", "enum": ["private", "public"] })),
                ("model_egress", json!({ "type": "string", "enum": ["enabled", "disabled"] })),
                ("public_webhooks", flag()),
            ],
            [],
        ),
        "WhoAmI": answer(
            [
                ("role", json!({ "type": "string", "enum": ["user", "agent"] })),
                ("vendor", maybe_text()),
                ("deployment_mode", text()),
                ("log_sharing_enabled", flag()),
                ("is_admin", flag()),
            ],
            [],
        ),
        "User": answer(
            [
                ("id", id()),
                ("email", text()),
                ("clerk_id", maybe_text()),
                ("role", text()),
                ("plan", text()),
                ("stripe_customer_id", maybe_text()),
                ("org_id", maybe_id()),
                ("org_role", maybe_text()),
                ("team_id", maybe_id()),
                ("first_name", maybe_text()),
                ("last_name", maybe_text()),
            ],
            [],
        ),
        "NewKey": answer([("key", text()), ("id", id()), ("key_prefix", text()), ("label", text()), ("created_at", time())], []),
        "Key": answer(
            [
                ("id", id()),
                ("user_id", id()),
                ("key_prefix", text()),
                ("label", text()),
                ("last_used_at", maybe_time()),
                ("created_at", time()),
                ("revoked_at", maybe_time()),
            ],
            [],
        ),
        "Keys": answer([("keys", list_of("Key"))], []),
        "Revoked": answer([("revoked", json!({ "const": true }))], []),
        "Operation": answer([("operation_id", id()), ("outcome", text())], [("audit_index", number())]),
        "Document": { "type": "object", "additionalProperties": true },
        "Error": answer([("error", text())], [("outcome", json!({ "const": "unknown" })), ("operation_id", id())]),
        "Problem": answer(
            [("type", text()), ("title", text()), ("status", number()), ("error", text())],
            [("detail", text()), ("outcome", json!({ "const": "unknown" })), ("operation_id", id())],
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::routes::ROUTES;

    fn routes() -> Vec<RouteDoc> {
        ROUTES.iter().map(|route| route.doc).collect()
    }

    fn refs(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| refs(item, found)),
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| refs(value, found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_reference_is_present_and_every_component_is_used() {
        let document = document("0.0.0", "https://memory.example", &routes());
        let mut found = BTreeSet::new();
        refs(&document, &mut found);
        let present = document["components"]["schemas"].as_object().unwrap().keys().map(|name| format!("#/components/schemas/{name}"));
        assert_eq!(found, present.collect());
    }

    #[test]
    fn operation_ids_are_unique_and_hold_those_of_the_contract() {
        let ids: BTreeSet<_> = ROUTES.iter().map(|route| route.doc.operation_id).collect();
        assert_eq!(ids.len(), ROUTES.len());
        for id in [
            "writeMemory",
            "getLatestMemory",
            "getMemoryById",
            "updateMemory",
            "deleteMemory",
            "getVersionHistory",
            "writeChildMemory",
            "readThread",
            "searchMemories",
            "readMemories",
            "getMemoriesByTag",
            "browseMemories",
            "whoAmI",
        ] {
            assert!(ids.contains(id), "{id}");
        }
    }

    #[test]
    fn a_route_is_described_by_the_schema_that_checks_it() {
        let document = document("0.0.0", "https://memory.example", &routes());
        assert_eq!(document["servers"][0]["url"], "https://memory.example");
        let browse = &document["paths"]["/agent/memories/browse"]["post"];
        let schema = &browse["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(schema["required"], json!(["filter"]));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(
            schema["properties"]["limit"],
            json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50, "description": "How many to give at most." })
        );
        assert_eq!(schema["properties"]["filter"]["oneOf"][0]["properties"]["by"]["const"], "all");
        let latest = &document["paths"]["/agent/memories/latest"]["get"];
        assert_eq!(latest["parameters"][0]["name"], "tag");
        assert_eq!(latest["parameters"][0]["in"], "query");
        let get = &document["paths"]["/agent/memories/{id}"]["get"];
        assert_eq!(get["parameters"][0]["in"], "path");
        assert!(get["responses"]["404"].is_object() && get["responses"]["403"].is_null());
        assert!(document["paths"]["/memories/{id}"]["get"]["responses"]["403"].is_object());
        assert_eq!(document["paths"]["/health"]["get"]["security"], json!([]));
        let search = &document["paths"]["/api/v1/memories/search"]["post"];
        assert!(search["responses"]["400"]["content"]["application/problem+json"].is_object());
    }
}
