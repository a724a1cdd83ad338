//! The OpenAPI 3.1 document, written from the route table.
//!
//! Invariants
//! - Requests are described by the very schemas that check them (`schema`); answers by the components of `answers`.
//! - Every `$ref` names a component that is present, every component is used, every operation id is unique.
//! - Each route lists every status that it can answer with, each with its body and its headers: those of its row, those that its kind of
//!   route can give, and those that HTTP gives before a route is known. The contract tests hold every answer that they get against it.
//! - Every body, parameter and answer has an example that fits its own schema; a row that lacks one does not pass the tests.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::answers::{self, named, reference_to};
use crate::api::ops::{graph, usage};
use crate::api::reply::Shape;
use crate::api::schema::{Field, Kind, Schema, with_members};
use crate::api::{administration, briefing, mcp, mem0, oauth};
use crate::http;

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

/// A further answer of a route that is no refusal.
#[derive(Clone, Copy, Debug)]
pub struct Also {
    /// Its status.
    pub status: u16,
    /// Its `Content-Type`, without parameters; empty for an answer without a body.
    pub media_type: &'static str,
    /// Its component's name; none for a body that JSON Schema does not describe.
    pub component: Option<&'static str>,
    /// When it is given.
    pub when: &'static str,
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
    /// The body's `Content-Type`.
    pub media_type: &'static str,
    /// The component that describes a body which the operation reads by itself.
    pub takes: Option<&'static str>,
    /// The query string's schema.
    pub query: Option<&'static Schema>,
    /// The answer when all went well: its status, and its component's name (none: no body).
    pub answer: (u16, Option<&'static str>),
    /// Further answers.
    pub also: &'static [Also],
    /// Statuses of refusals that other routes of its kind do not give.
    pub refusals: &'static [u16],
    /// The component of its refusals where they have a shape of their own.
    pub errors: Option<&'static str>,
}

impl RouteDoc {
    /// Whether a body is read, so that a malformed one is refused: also where nothing in it is wanted. But Mem0's clients say `application/json`
    /// of a body that is not there, and it means nothing.
    pub fn reads_body(&self) -> bool {
        self.body.is_some() || self.method != "GET" && self.query.is_none() && !matches!(Shape::of(self.path), Shape::Mem0 | Shape::Mcp)
    }
}

/// The document: `version` is the program's, `server_url` is where clients reach it (`RM_PUBLIC_URL`).
pub fn document(version: &str, server_url: &str, routes: &[RouteDoc]) -> Value {
    let schemas = components();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rosemary",
            "version": version,
            "description": CONVENTIONS,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "servers": [{ "url": server_url }],
        "paths": {},
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": "A user key (`rm_live_…`) or an agent key." } },
            "parameters": { "RequestId": request_id() },
            "headers": headers(),
        },
    });
    let mut shared = Shared { schemas: &schemas, responses: BTreeMap::new(), examples: BTreeMap::new() };
    for route in routes {
        let path: Vec<_> =
            route.path.split('/').map(|part| part.strip_prefix(':').map_or(part.to_owned(), |name| format!("{{{name}}}"))).collect();
        document["paths"][path.join("/")][route.method.to_ascii_lowercase()] = operation(route, &mut shared);
    }
    document["components"]["responses"] = json!(shared.responses);
    document["components"]["examples"] = json!(shared.examples);
    document["components"]["schemas"] = schemas;
    document
}

/// Every component, of whichever skin.
pub(in crate::api) fn components() -> Value {
    let all = [
        answers::COMPONENTS,
        answers::ADMIN,
        mem0::COMPONENTS,
        briefing::COMPONENTS,
        mcp::COMPONENTS,
        oauth::COMPONENTS,
        usage::COMPONENTS,
        graph::COMPONENTS,
        administration::COMPONENTS,
    ];
    with_members(all.into_iter().flatten().map(named)).into()
}

/// What holds on every route.
const CONVENTIONS: &str = "The memory that AI agents may use inside a hospital.\n\n\
    Bodies are JSON in UTF-8. Routes outside `/api/v1` also read `application/x-www-form-urlencoded`, and there a number or a boolean counts as \
    the text it prints as, `null` as an empty text or 0, one value as a list of one, and a text that is a number as that number. A key that a \
    schema does not name is refused; lengths count code points. HEAD is answered as GET is, without a body.\n\n\
    Errors hold `error`; under `/api/v1` they are problem details (RFC 9457) that hold it too. What the caller may not see is 404, like what \
    does not exist. Answers that come from data carry `x-audit-index`. Times are RFC 3339 in UTC with milliseconds; ids are lower-case UUIDs.";

/// What operations share, as far as one of them needed it.
struct Shared<'a> {
    schemas: &'a Value,
    responses: BTreeMap<String, Value>,
    examples: BTreeMap<String, Value>,
}

fn request_id() -> Value {
    json!({
        "name": "X-Request-Id", "in": "header", "required": false,
        "description": "Your name for this request: it stands in the audit log, as it is if it consists of up to 64 of `A-Za-z0-9._-`, else hashed.",
        "schema": { "type": "string" }, "example": "ward3-000117",
    })
}

fn headers() -> Value {
    let header = |description: &str, schema: Value| json!({ "description": description, "schema": schema });
    let count = || json!({ "type": "integer", "minimum": 0 });
    json!({
        "AuditIndex": header("The number of the audit entry that records this answer", count()),
        "RateLimit": header("Requests that this minute is worth; absent where the limit is off", count()),
        "RateRemaining": header("Requests left in this minute", count()),
        "RateReset": header("Seconds until the minute ends", count()),
        "RetryAfter": header("Seconds after which to ask again", count()),
        "Authenticate": header("How to authenticate", json!({ "type": "string" })),
        "Location": header("Where to go on", json!({ "type": "string" })),
        "ContentPolicy": header("What the page may load and where its form may lead", json!({ "type": "string" })),
        "Cookie": header("Ties the page to the browser it was shown in", json!({ "type": "string" })),
        "McpSession": header("The session that `initialize` opened", json!({ "type": "string", "format": "uuid" })),
        "Allow": header("The methods that this path takes", json!({ "type": "string" })),
    })
}

fn header_references(names: &[(&str, &str)]) -> Value {
    with_members(names.iter().map(|(name, component)| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{component}") }))))
        .into()
}

const RATE: [(&str, &str); 3] =
    [("x-ratelimit-limit", "RateLimit"), ("x-ratelimit-remaining", "RateRemaining"), ("x-ratelimit-reset", "RateReset")];
const AUDIT: (&str, &str) = ("x-audit-index", "AuditIndex");

fn operation(route: &RouteDoc, shared: &mut Shared<'_>) -> Value {
    let mut parameters: Vec<Value> = (route.path.split('/').filter_map(|part| part.strip_prefix(':')))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 }, "example": EXAMPLE_ID }))
        .collect();
    for field in route.query.map_or(&[][..], |query| query.fields) {
        parameters.push(json!({
            "name": field.name, "in": "query", "required": field.required, "description": field.about, "schema": field_schema(field),
        }));
    }
    if route.auth != Auth::Public {
        parameters.push(json!({ "$ref": "#/components/parameters/RequestId" }));
    }
    let mut operation = json!({
        "operationId": route.operation_id,
        "summary": route.summary,
        "security": if route.auth == Auth::Public { json!([]) } else { json!([{ "key": [] }]) },
        "responses": responses(route, shared),
    });
    if !parameters.is_empty() {
        operation["parameters"] = Value::from(parameters);
    }
    let body = route.body.map(object_schema).or_else(|| route.takes.map(reference_to));
    if let Some(schema) = body {
        let mut content = json!({ "schema": schema });
        if let Some(example) = example(&schema, shared.schemas) {
            content["example"] = example;
        }
        operation["requestBody"] = json!({ "required": true, "content": { route.media_type: content } });
    }
    operation
}

/// A body of `component`, with the example that all its uses share.
fn content(component: &str, shared: &mut Shared<'_>) -> Value {
    let mut content = json!({ "schema": reference_to(component) });
    if let Some(value) = example(&reference_to(component), shared.schemas) {
        shared.examples.insert(component.to_owned(), json!({ "value": value }));
        content["examples"] = json!({ component: { "$ref": format!("#/components/examples/{component}") } });
    }
    content
}

fn responses(route: &RouteDoc, shared: &mut Shared<'_>) -> Value {
    let mut responses = Map::new();
    let known = route.auth != Auth::Public;
    let own_headers = |status: u16| {
        let mut names = Vec::new();
        // Public routes that change something leave an entry too, once somebody is known.
        if known || route.method == "POST" {
            names.push(AUDIT);
        }
        if matches!(status, 302 | 303) {
            names.push(("location", "Location"));
        }
        if route.also.iter().any(|also| also.media_type == "text/html") {
            names.push(("content-security-policy", "ContentPolicy"));
            names.push(("set-cookie", "Cookie"));
        }
        names.extend(RATE);
        if status == 503 {
            names.push(("retry-after", "RetryAfter"));
        }
        if (route.method, route.path) == ("POST", mcp::PATH) {
            names.push(("mcp-session-id", "McpSession"));
        }
        header_references(&names)
    };
    let (status, component) = route.answer;
    let mut done = json!({ "description": if status == 201 { "Created" } else { "Done" }, "headers": own_headers(status) });
    if let Some(name) = component {
        done["content"] = json!({ "application/json": content(name, shared) });
    }
    // A route that refuses always has no other answer.
    if status < 400 {
        responses.insert(status.to_string(), done);
    }
    for also in route.also {
        let response = responses
            .entry(also.status.to_string())
            .or_insert_with(|| json!({ "description": also.when, "headers": own_headers(also.status) }));
        if !also.media_type.is_empty() {
            response["content"][also.media_type] =
                also.component.map_or_else(|| json!({ "schema": { "type": "string" } }), |name| content(name, shared));
        }
    }
    for (status, description) in STATUSES {
        let own = refuses(route, status);
        let framed = http::Reason::ALL.iter().any(|reason| reason.status() == status);
        if !own && !framed {
            continue;
        }
        let own = own.then(|| errors_of(route));
        let response = refusal(status, description, own, framed, shared);
        match responses.get_mut(&status.to_string()) {
            // A status that also carries a proper answer: each body under its own media type, or the one body for both.
            Some(answered) => {
                for (media_type, content) in response["content"].as_object().expect("a refusal has a body") {
                    if answered["content"][media_type].is_null() {
                        answered["content"][media_type] = content.clone();
                    }
                }
            }
            None => {
                let name = format!("{}{status}", own.unwrap_or("Error"));
                shared.responses.insert(name.clone(), response);
                responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
            }
        }
    }
    Value::Object(responses)
}

/// Every status of a refusal, and what it says on any route.
const STATUSES: [(u16, &str); 21] = [
    (400, "The request is malformed, or does not fit its schema: `error` names the place"),
    (401, "No valid credential"),
    (403, "This credential may not do this, or `Origin` names another site"),
    (404, "No such thing, or not yours to see"),
    (405, "This path does not take this method"),
    (406, "No answer in a media type that was asked for"),
    (408, "The request came too slowly"),
    (409, "It cannot be done in the present state"),
    (411, "`Content-Length` is missing; `Transfer-Encoding` is not accepted"),
    (413, "The body is too large"),
    (414, "The request target is too long"),
    (415, "The body is of a media type that is not read here"),
    (417, "Only `Expect: 100-continue` is known"),
    (421, "This server does not answer for that `Host`"),
    (429, "Too many requests, or more than the plan allows"),
    (431, "The head of the request is too large"),
    (500, "A fault of ours; nothing was done"),
    (502, "The language model gave no usable answer"),
    (503, "Not now; `outcome: \"unknown\"` means that `operation_id` will tell how it ended"),
    (505, "Only HTTP/1.1 and HTTP/1.0 are spoken"),
    (507, "The disk is nearly full; nothing was done"),
];

/// Whether `route` itself refuses with `status`.
fn refuses(route: &RouteDoc, status: u16) -> bool {
    let known = route.auth != Auth::Public;
    let generally = match status {
        400 => route.reads_body() || route.takes.is_some() || route.query.is_some(),
        401 | 503 => known,
        403 => matches!(route.auth, Auth::User | Auth::Admin) || route.auth == Auth::Any && matches!(route.method, "PUT" | "DELETE"),
        404 => route.path.contains(':'),
        429 | 500 => true,
        // A read is recorded too: on a disk that is full to the last reserve it is refused.
        507 => known,
        _ => false,
    };
    generally || route.refusals.contains(&status)
}

/// The component of a route's own refusals.
fn errors_of(route: &RouteDoc) -> &'static str {
    route.errors.unwrap_or(match route.path {
        path if path.starts_with("/api/v1/") => "Problem",
        path if mem0::is_path(path) => "Mem0Error",
        _ => "Error",
    })
}

/// A refusal with the body of the route's own kind, that of a request that never became one, or either.
fn refusal(status: u16, description: &str, own: Option<&'static str>, framed: bool, shared: &mut Shared<'_>) -> Value {
    // What HTTP alone refuses is refused before anybody is known.
    let mut names = if matches!(status, 408 | 411 | 413 | 414 | 417 | 421 | 431 | 505) {
        Vec::new()
    } else {
        RATE.into_iter().chain([AUDIT]).collect()
    };
    names.extend(match status {
        401 => Some(("www-authenticate", "Authenticate")),
        405 => Some(("allow", "Allow")),
        429 | 503 => Some(("retry-after", "RetryAfter")),
        _ => None,
    });
    let mut response = json!({ "description": description, "headers": header_references(&names), "content": {} });
    for component in own.into_iter().chain(framed.then_some("Error")) {
        let media_type = if component == "Problem" { "application/problem+json" } else { "application/json" };
        let there = &mut response["content"][media_type];
        if there.is_null() {
            *there = content(component, shared);
        } else if component != own.unwrap_or_default() {
            there["schema"] = json!({ "anyOf": [there["schema"], reference_to(component)] });
        }
    }
    response
}

/// What an id looks like.
const EXAMPLE_ID: &str = "019ab3c4-5d6e-7f80-8a9b-0c1d2e3f4a5b";

/// A value that fits `schema`: its own example, or one composed of those of its parts. Of an object the required keys, or all where none is.
/// `None` if a part has none.
fn example(schema: &Value, components: &Value) -> Option<Value> {
    let whole = |properties: &Map<String, Value>, required: Option<&Vec<Value>>| {
        let asked = |name: &String| required.is_none_or(|required| required.iter().any(|key| key == name));
        let parts = properties.iter().filter(|(name, _)| asked(name));
        parts.map(|(name, schema)| Some((name.clone(), example(schema, components)?))).collect::<Option<Map<_, _>>>().map(Value::Object)
    };
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/components/schemas/")) {
        return example(&components[name], components);
    }
    let given =
        schema["examples"].get(0).or_else(|| schema.get("const")).or_else(|| schema["enum"].get(0)).or_else(|| schema.get("default"));
    if let Some(given) = given {
        return Some(given.clone());
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let parts: Option<Vec<_>> = parts.iter().map(|part| example(part, components)).collect();
        return Some(with_members(parts?.into_iter().filter_map(|part| part.as_object().cloned()).flatten()).into());
    }
    if let Some(one) = schema["oneOf"].get(0).or_else(|| schema["anyOf"].get(0)) {
        return example(one, components);
    }
    let named = schema["type"].as_array().is_some_and(|types| types.iter().any(|kind| kind == "null")).then_some("null");
    match named.or_else(|| schema["type"].as_str())? {
        "null" => Some(Value::Null),
        "boolean" => Some(false.into()),
        "number" => Some(schema["minimum"].as_f64().unwrap_or(0.0).into()),
        "integer" => Some(schema["minimum"].as_i64().unwrap_or(0).into()),
        "array" => Some(json!([example(&schema["items"], components)?])),
        "object" => match schema["properties"].as_object() {
            Some(properties) => whole(properties, schema["required"].as_array()),
            None => Some(json!({})),
        },
        "string" if schema["format"] == "uuid" => Some(EXAMPLE_ID.into()),
        "string" if schema["format"] == "date-time" => Some("2026-11-21T08:00:00.000Z".into()),
        _ => None,
    }
}

pub(in crate::api) fn object_schema(schema: &Schema) -> Value {
    let properties = with_members(schema.fields.iter().map(|field| (field.name.to_owned(), field_schema(field))));
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
    if let Some(example) = &field.example {
        value["examples"] = json!([example.value()]);
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
        Kind::Number { min, max } => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Object(schema) => object_schema(schema),
        Kind::Any(kinds) => json!({ "anyOf": kinds.iter().map(kind_schema).collect::<Vec<_>>() }),
        Kind::Null => json!({ "type": "null" }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::routes::ROUTES;
    use crate::api::schema::Part;
    use crate::base::time::Timestamp;

    fn whole() -> Value {
        let routes: Vec<_> = ROUTES.iter().map(|route| route.doc).collect();
        document("0.0.0", "https://memory.example", &routes)
    }

    /// Every operation: its name, and what the document says of it.
    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let items = document["paths"].as_object().unwrap().iter();
        items
            .flat_map(|(path, item)| {
                item.as_object().unwrap().iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
            })
            .collect()
    }

    fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(path) => document.pointer(path.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{path} is absent")),
            None => value,
        }
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

    /// What in `value` does not fit `schema` (JSON Schema 2020-12, as far as this document uses it).
    fn misfit(document: &Value, schema: &Value, value: &Value) -> Option<String> {
        let schema = resolved(document, schema);
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let is = |name: &Value| name == kind || name == "number" && kind == "integer";
        let typed = match &schema["type"] {
            Value::Null => true,
            Value::Array(kinds) => kinds.iter().any(is),
            name => is(name),
        };
        let at_least = |key: &str, n: usize| schema[key].as_u64().is_none_or(|min| min <= n as u64);
        let at_most = |key: &str, n: usize| schema[key].as_u64().is_none_or(|max| max >= n as u64);
        let fits = typed
            && schema.get("const").is_none_or(|only| only == value)
            && schema["enum"].as_array().is_none_or(|words| words.contains(value))
            && value.as_str().is_none_or(|text| {
                let formatted = match schema["format"].as_str() {
                    Some("uuid") => crate::base::id::MemoryId::parse(text).is_some(),
                    Some("date-time") => Timestamp::parse(text).is_some(),
                    _ => true,
                };
                formatted && at_least("minLength", text.chars().count()) && at_most("maxLength", text.chars().count())
            })
            && value
                .as_i64()
                .is_none_or(|n| schema["minimum"].as_i64().is_none_or(|m| m <= n) && schema["maximum"].as_i64().is_none_or(|m| m >= n))
            && value.as_array().is_none_or(|items| at_least("minItems", items.len()) && at_most("maxItems", items.len()));
        if !fits {
            return Some(format!("{value} is not {schema}"));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            if let Some(misfit) = misfit(document, part, value) {
                return Some(misfit);
            }
        }
        for key in ["anyOf", "oneOf"] {
            if schema[key].as_array().is_some_and(|parts| parts.iter().all(|part| misfit(document, part, value).is_some())) {
                return Some(format!("{value} is none of {}", schema[key]));
            }
        }
        if let Some(items) = value.as_array().filter(|_| schema["items"].is_object()) {
            return items.iter().find_map(|item| misfit(document, &schema["items"], item));
        }
        let map = value.as_object()?;
        let lacking = schema["required"].as_array().into_iter().flatten().find(|key| !map.contains_key(key.as_str().unwrap()));
        if let Some(key) = lacking {
            return Some(format!("{key} is absent"));
        }
        map.iter().find_map(|(key, value)| match schema["properties"].get(key) {
            Some(schema) => misfit(document, schema, value),
            None if schema["additionalProperties"] == false => Some(format!("{key} is unknown")),
            None => None,
        })
    }

    #[test]
    fn every_reference_is_present_and_every_component_is_used() {
        let document = whole();
        let mut found = BTreeSet::new();
        refs(&document, &mut found);
        for reference in &found {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
        for kind in ["schemas", "responses", "examples", "parameters"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                assert!(found.contains(&format!("#/components/{kind}/{name}")), "the {kind} hold {name}, which nothing uses");
            }
        }
    }

    #[test]
    fn every_operation_is_described_completely() {
        let document = whole();
        assert_eq!(operations(&document).len(), ROUTES.len(), "a method and path has one row");
        for (name, operation) in operations(&document) {
            let summary = operation["summary"].as_str().unwrap();
            assert!(summary.len() > 8 && !summary.ends_with('.'), "{name}: a summary is one sentence without a full stop");
            for parameter in operation["parameters"].as_array().into_iter().flatten().map(|parameter| resolved(&document, parameter)) {
                let schema = &parameter["schema"];
                let shown = parameter.get("example").cloned().or_else(|| example(schema, &document["components"]["schemas"]));
                let shown = shown.unwrap_or_else(|| panic!("{name}: {} needs an example: `.like(…)` in inputs.rs", parameter["name"]));
                assert_eq!(misfit(&document, schema, &shown), None, "{name}: the example of {}", parameter["name"]);
            }
            for (media_type, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                let shown = content
                    .get("example")
                    .unwrap_or_else(|| panic!("{name}: its {media_type} body has no example: `.like(…)` in inputs.rs"));
                assert_eq!(misfit(&document, &content["schema"], shown), None, "{name}: the example of its body");
            }
            let responses = operation["responses"].as_object().unwrap();
            let refused = name.starts_with("post /billing/");
            assert!(refused || responses.keys().any(|status| status.starts_with(['2', '3'])), "{name}: an answer when all went well");
            for (status, response) in responses {
                let response = resolved(&document, response);
                assert!(!response["description"].as_str().unwrap().is_empty());
                for (media_type, content) in response["content"].as_object().into_iter().flatten() {
                    if content["schema"] == json!({ "type": "string" }) {
                        continue; // a page or a stream: the description says what it holds
                    }
                    let examples = content["examples"].as_object();
                    let examples =
                        examples.unwrap_or_else(|| panic!("{name} {status}: no example of {media_type}: a text in answers.rs lacks one"));
                    for shown in examples.values().map(|shown| &resolved(&document, shown)["value"]) {
                        assert_eq!(misfit(&document, &content["schema"], shown), None, "{name} {status}: its example");
                    }
                }
            }
        }
    }

    #[test]
    fn the_example_of_every_body_passes_the_check_of_its_route() {
        for route in ROUTES {
            if let Some(schema) = route.doc.body {
                let example =
                    example(&object_schema(schema), &Value::Null).unwrap_or_else(|| panic!("{}: a text lacks `.like(…)`", route.doc.path));
                assert!(schema.check(Part::Body, Some(example), false).is_ok(), "{}", route.doc.path);
            }
        }
    }

    #[test]
    fn every_refusal_before_routing_is_on_every_route() {
        let document = whole();
        for reason in http::Reason::ALL {
            assert!(STATUSES.iter().any(|(status, _)| *status == reason.status()), "{reason:?}: its status is not in STATUSES");
            for (name, operation) in operations(&document) {
                let response = resolved(&document, &operation["responses"][reason.status().to_string()]);
                let body = serde_json::from_slice(&http::error(reason.status(), reason.message()).body).unwrap();
                assert_eq!(misfit(&document, &response["content"]["application/json"]["schema"], &body), None, "{name}: {reason:?}");
            }
        }
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
            "getMemoryBriefing",
        ] {
            assert!(ids.contains(id), "{id}");
        }
    }

    #[test]
    fn a_route_is_described_by_the_schema_that_checks_it() {
        let document = whole();
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
        assert_eq!(latest["responses"]["404"]["$ref"], "#/components/responses/Error404");
        let get = &document["paths"]["/agent/memories/{id}"]["get"];
        assert_eq!(get["parameters"][0]["in"], "path");
        assert!(get["responses"]["404"].is_object());
        assert_eq!(document["paths"]["/health"]["get"]["security"], json!([]));
        let search = &document["paths"]["/api/v1/memories/search"]["post"]["responses"];
        let too_many = resolved(&document, &search["429"]);
        assert_eq!(too_many["headers"]["retry-after"]["$ref"], "#/components/headers/RetryAfter");
        let malformed = resolved(&document, &search["400"])["content"].as_object().unwrap();
        assert_eq!(malformed.keys().collect::<Vec<_>>(), ["application/json", "application/problem+json"]);
        // A body is read where nothing in it is wanted, and refused if it is malformed; what Mem0's clients send then means nothing.
        for (path, method, told) in [
            ("/api/v1/backups", "post", true),
            ("/api/v1/oauth/grants/{id}", "delete", true),
            ("/api/v1/backups", "get", false),
            ("/api/v1/operations/{id}", "get", false),
        ] {
            let malformed = resolved(&document, &document["paths"][path][method]["responses"]["400"])["content"].as_object().unwrap();
            assert_eq!(malformed.contains_key("application/problem+json"), told, "{method} {path}");
        }
        assert_eq!(
            resolved(&document, &search["401"])["content"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["application/problem+json"]
        );
    }
}
