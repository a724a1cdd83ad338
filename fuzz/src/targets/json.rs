//! Bodies, forms and their schemas.
//!
//! serde_json is the second opinion: what we take it must take as the same value; what it takes and we refuse must have a reason of ours
//! (a repeated key, nesting, emptiness, an integer that would be another one). A schema's error names places of the schema and bounds, nothing of the caller's.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use rosemary::api::body::{BodyError, form, json};
use rosemary::api::inputs::{
    AGENT_CHILD, AGENT_CREATE, AGENT_LIST, BROWSE, BY_TAG, CHILD, CREATE, LATEST, LIST, NEW_KEY, SEARCH, TERM_SEARCH, UPDATE,
};
use rosemary::api::schema::{Kind, Part, Schema};
use rosemary::http::query_pairs;
use serde_json::Value;

static SCHEMAS: [&Schema; 13] =
    [&CREATE, &AGENT_CREATE, &UPDATE, &CHILD, &AGENT_CHILD, &LIST, &BROWSE, &BY_TAG, &TERM_SEARCH, &AGENT_LIST, &LATEST, &NEW_KEY, &SEARCH];

/// Keys and values that schemas know, and JSON's edges.
pub const WORDS: &[&str] = &[
    "\"title\":",
    "\"content\":",
    "\"tags\":",
    "\"allowed_vendors\":",
    "\"memory_type\":",
    "\"metadata\":",
    "\"run_id\":",
    "\"speaker\":",
    "\"occurred_at\":",
    "\"subject\":",
    "\"filter\":",
    "\"by\":",
    "\"limit\":",
    "\"offset\":",
    "\"term\":",
    "\"query\":",
    "\"label\":",
    "\"since\":",
    "\"until\":",
    "\"explain\":",
    "\"semantic\"",
    "\"*\"",
    "true",
    "false",
    "null",
    "1e308",
    "1e309",
    "-0",
    "-0.0",
    "0.1",
    "9223372036854775808",
    "18446744073709551616",
    "1E400",
    "{}",
    "[]",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "\\ud83d\\ude00",
    "\\ud800",
    "\\\"",
    "\u{feff}",
    "\u{2028}",
    "%00",
    "%41",
    "+",
    "&",
    "=",
    "2026-11-21T08:00:00Z",
    "\"a\":1,\"a\":1",
];

/// Every key a schema knows.
fn names(fields: &[rosemary::api::schema::Field], into: &mut BTreeSet<&'static str>) {
    fn of(kind: &Kind, into: &mut BTreeSet<&'static str>) {
        match kind {
            Kind::List { items, .. } => of(items, into),
            Kind::Tagged { variants, .. } => variants.iter().for_each(|(_, schema)| names(schema.fields, into)),
            _ => {}
        }
    }
    for field in fields {
        into.insert(field.name);
        of(&field.kind, into);
    }
}

static NAMES: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let mut all = BTreeSet::new();
    SCHEMAS.iter().for_each(|schema| names(schema.fields, &mut all));
    all
});

/// Every string of `value` that is a value or a key, marked so that it would be known again.
const MARK: &str = "\u{2766}mark\u{2767}";

fn marked(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.to_owned() + MARK),
        Value::Array(items) => items.iter().map(marked).collect(),
        Value::Object(map) => {
            let key = |key: &String| if NAMES.contains(key.as_str()) { key.clone() } else { key.to_owned() + MARK };
            Value::Object(map.iter().map(|(name, value)| (key(name), marked(value))).collect())
        }
        other => other.clone(),
    }
}

fn against_schemas(value: &Value) {
    for schema in SCHEMAS {
        for coerce in [false, true] {
            for value in [value, &marked(value)] {
                if let Err(error) = schema.check(Part::Body, Some(value.clone()), coerce) {
                    let known = |step: &str| NAMES.contains(step) || step.parse::<usize>().is_ok();
                    assert!(
                        error.pointer.is_empty() || error.pointer.starts_with('/') && error.pointer[1..].split('/').all(known),
                        "{error}"
                    );
                    assert!(!error.to_string().contains(MARK), "{error}");
                }
            }
        }
    }
}

fn deepest(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(deepest).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(deepest).max().unwrap_or(0),
        _ => 0,
    }
}

/// Whether a number in it was read as a float that no integer of 64 bits is near to.
fn is_wide(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(is_wide),
        Value::Object(map) => map.values().any(is_wide),
        Value::Number(number) => number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= 9e18),
        _ => false,
    }
}

/// The target: JSON, or after a `?` a form.
pub fn run(bytes: &[u8]) {
    if let Some((b'?', bytes)) = bytes.split_first() {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let (form, pairs) = (form(text), query_pairs(text));
        if let (Ok(Value::Object(map)), Some(pairs)) = (&form, &pairs) {
            let count = |value: &Value| value.as_array().map_or(1, Vec::len);
            assert_eq!(map.values().map(count).sum::<usize>(), pairs.len());
            let holds = |value: &Value, text: &str| {
                value.as_str().map_or_else(|| value.as_array().is_some_and(|all| all.iter().any(|v| v == text)), |v| v == text)
            };
            assert!(pairs.iter().all(|(name, value)| map.get(&**name).is_some_and(|found| holds(found, value))));
        }
        if let Ok(value) = form {
            against_schemas(&value);
        }
        return;
    }
    let theirs = serde_json::from_slice::<Value>(bytes);
    match json(bytes) {
        Ok(ours) => {
            assert_eq!(theirs.ok().as_ref(), Some(&ours));
            assert!(deepest(&ours) <= rosemary::base::limits::JSON_DEPTH_MAX);
            against_schemas(&ours);
        }
        Err(BodyError::RepeatedKey | BodyError::TooDeep) => {}
        Err(BodyError::WideInteger) => assert!(theirs.is_ok_and(|theirs| is_wide(&theirs)), "no number there is beyond 64 bits"),
        Err(error) => assert!(theirs.is_err(), "{error}"),
    }
}
