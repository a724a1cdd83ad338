//! Schemas: what a request body or a query string may hold, said once and used twice (the check, and the OpenAPI document).
//!
//! Invariants
//! - A key that the schema does not name is refused; nothing is dropped silently.
//! - An error names a place in the schema and a bound, never a value or a key of the caller's.
//! - Coercions happen only when asked for, and are those of the contract alone: number or boolean to string, null to `""` or 0, scalar to
//!   one-element array, numeric string to integer, `"true"` and `"false"` to boolean.
//! - Lengths count code points.
//! - What was read is wiped when dropped, accepted or not.
//!
//! The wording and the order of the checks are those of ajv (first fault only), which existing clients show to people.
//! Not here: reading bytes (`body`), the schemas of the routes (`inputs`).

use std::fmt;
use std::mem;

use serde_json::{Map, Number, Value};
use zeroize::Zeroize;

use crate::base::time::Timestamp;

/// An object: the keys it may hold, and no others.
#[derive(Debug)]
pub struct Schema {
    /// In the order in which they are checked and documented.
    pub fields: &'static [Field],
}

/// One key of an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether the object is refused without it.
    pub required: bool,
    /// What an absent key means, where that is a value.
    pub default: Option<Literal>,
    /// One such value, for the document.
    pub example: Option<Literal>,
    /// One sentence for the document.
    pub about: &'static str,
}

/// What a key holds. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A string of `min..=max` code points that matches the pattern, if there is one.
    Text { min: usize, max: usize, pattern: Option<&'static Pattern> },
    /// A whole number.
    Integer { min: i64, max: i64 },
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `min..=max` items of one kind.
    List { items: &'static Kind, min: usize, max: usize },
    /// An object whose `tag` key chooses which other keys it holds.
    Tagged { tag: &'static str, variants: &'static [(&'static str, Schema)] },
    /// An object of the caller's own keys: bytes as compact JSON, depth with `{}` being 1. Nothing in it is coerced.
    Free { bytes_max: usize, depth_max: usize },
    /// An RFC 3339 date and time from 1970 on.
    Time,
    /// A number; whole or not.
    Number { min: f64, max: f64 },
    /// An object of these keys.
    Object(&'static Schema),
    /// A value of any of these kinds; nothing in it is coerced.
    Any(&'static [Kind]),
    /// `null`.
    Null,
}

/// A set of strings: the regular expression that documents it and the function that decides.
#[derive(Debug)]
pub struct Pattern {
    /// ECMA-262 source, anchored.
    pub source: &'static str,
    /// Whether a string is in the set.
    pub matches: fn(&str) -> bool,
}

/// A default or an example.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    /// A string.
    Text(&'static str),
    /// A whole number.
    Integer(i64),
    /// A list of strings.
    Texts(&'static [&'static str]),
    /// An object, as pairs of texts.
    Pairs(&'static [(&'static str, &'static str)]),
    /// Anything, as JSON text.
    Json(&'static str),
}

/// Which part of a request is checked; the first word of its errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The body.
    Body,
    /// The query string.
    Query,
    /// The arguments of a tool.
    Arguments,
}

/// Why a part was refused: `body/limit must be <= 500`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{pointer} {text}", match .part { Part::Body => "body", Part::Query => "querystring", Part::Arguments => "arguments" })]
pub struct SchemaError {
    /// Where the fault lies.
    pub part: Part,
    /// JSON pointer (RFC 6901) made of the schema's keys and of indexes; empty for the whole.
    pub pointer: String,
    /// What is wrong, without the value.
    pub text: String,
}

/// The fault while its pointer is still being built, from the inside out.
struct Fault {
    pointer: String,
    text: String,
}

type Checked = Result<(), Fault>;

fn fault<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { pointer: String::new(), text: text.into() })
}

/// Adds one step to the pointer of a fault found below it.
fn under(step: impl fmt::Display, checked: Checked) -> Checked {
    checked.map_err(|fault| Fault { pointer: format!("/{step}{}", fault.pointer), ..fault })
}

impl Field {
    /// A key that must be present.
    pub const fn required(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, required: true, default: None, example: None, about }
    }

    /// A key that may be absent.
    pub const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, required: false, default: None, example: None, about }
    }

    /// The same key, no longer required; absent, it holds `default`.
    pub const fn or(self, default: Literal) -> Self {
        Self { required: false, default: Some(default), ..self }
    }

    /// The same key, with an example for the document.
    pub const fn like(self, example: Literal) -> Self {
        Self { example: Some(example), ..self }
    }
}

/// An object of these members. `collect` would sort them first, by code that is made anew for each place that calls it.
pub fn with_members(members: impl IntoIterator<Item = (String, Value)>) -> Map<String, Value> {
    let mut object = Map::new();
    object.extend(members);
    object
}

impl Literal {
    /// The value as JSON.
    pub fn value(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(*text),
            Self::Integer(n) => Value::from(*n),
            Self::Texts(texts) => Value::from(*texts),
            Self::Pairs(pairs) => with_members(pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value)))).into(),
            Self::Json(text) => serde_json::from_str(text).expect("an example is JSON: the tests of `openapi` read every one"),
        }
    }
}

impl Schema {
    /// Checks `presented` and gives its fields, defaults filled in.
    ///
    /// `presented` is `None` when the request had no readable body: the error is then that of a non-object. `coerce` is for the contract's
    /// routes, and for query strings, which carry text alone.
    ///
    /// Errors: the first fault, in the order required keys, unknown keys, then each key as listed.
    pub fn check(&self, part: Part, presented: Option<Value>, coerce: bool) -> Result<Fields, SchemaError> {
        let mut fields = Fields(Map::new());
        let checked = match presented {
            Some(Value::Object(map)) => {
                fields.0 = map;
                self.check_map(&mut fields.0, coerce)
            }
            mut other => {
                other.as_mut().map(wipe);
                fault("must be object")
            }
        };
        checked.map(|()| fields).map_err(|Fault { pointer, text }| SchemaError { part, pointer, text })
    }

    fn check_map(&self, map: &mut Map<String, Value>, coerce: bool) -> Checked {
        if let Some(missing) = self.fields.iter().find(|field| field.required && !map.contains_key(field.name)) {
            return fault(format!("must have required property '{}'", missing.name));
        }
        if map.keys().any(|key| self.fields.iter().all(|field| field.name != key)) {
            return fault("must NOT have additional properties");
        }
        for field in self.fields {
            match (map.get_mut(field.name), &field.default) {
                (Some(value), _) => under(field.name, field.kind.check(value, coerce))?,
                (None, Some(default)) => {
                    map.insert(field.name.to_owned(), default.value());
                }
                (None, None) => {}
            }
        }
        Ok(())
    }
}

impl Kind {
    /// Checks `value` in place; a coercion replaces it.
    fn check(&self, value: &mut Value, coerce: bool) -> Checked {
        if coerce {
            self.coerce(value);
        }
        match self {
            Self::Text { min, max, pattern } => {
                let text = string(value)?;
                within(text.chars().count(), *min, *max, "characters")?;
                match pattern {
                    Some(pattern) if !(pattern.matches)(text) => fault(format!("must match pattern \"{}\"", pattern.source)),
                    _ => Ok(()),
                }
            }
            Self::OneOf(words) if words.contains(&string(value)?) => Ok(()),
            Self::OneOf(_) => fault("must be equal to one of the allowed values"),
            Self::Time if Timestamp::parse(string(value)?).is_some() => Ok(()),
            Self::Time if Timestamp::is_too_early(string(value)?) => fault("must not lie before 1970"),
            Self::Time => fault("must match format \"date-time\""),
            Self::Integer { min, max } => match value.as_number().and_then(whole) {
                None => fault("must be integer"),
                Some(n) if n < *min => fault(format!("must be >= {min}")),
                Some(n) if n > *max => fault(format!("must be <= {max}")),
                Some(n) => {
                    *value = Value::from(n);
                    Ok(())
                }
            },
            Self::Boolean if value.is_boolean() => Ok(()),
            Self::Boolean => fault("must be boolean"),
            Self::List { items, min, max } => {
                let Value::Array(values) = value else { return fault("must be array") };
                within(values.len(), *min, *max, "items")?;
                values.iter_mut().enumerate().try_for_each(|(i, item)| under(i, items.check(item, coerce)))
            }
            Self::Tagged { tag, variants } => {
                let map = object(value)?;
                let word = map.get(*tag).and_then(Value::as_str);
                match variants.iter().find(|(name, _)| Some(*name) == word) {
                    Some((_, schema)) => schema.check_map(map, coerce),
                    None => fault("must match exactly one schema in oneOf"),
                }
            }
            Self::Free { bytes_max, depth_max } => {
                object(value)?;
                if depth(value) > *depth_max {
                    return fault(format!("must NOT be nested deeper than {depth_max} levels"));
                }
                let fits = serde_json::to_writer(Counter { left: *bytes_max }, value);
                fits.or_else(|_| fault(format!("must NOT have more than {bytes_max} bytes")))
            }
            Self::Number { min, max } => match value.as_f64() {
                None => fault("must be number"),
                Some(n) if n < *min => fault(format!("must be >= {min}")),
                Some(n) if n > *max => fault(format!("must be <= {max}")),
                Some(_) => Ok(()),
            },
            Self::Object(schema) => schema.check_map(object(value)?, coerce),
            Self::Any(kinds) => Self::check_any(kinds, value),
            Self::Null if value.is_null() => Ok(()),
            Self::Null => fault("must be null"),
        }
    }

    /// The fault is that of the kind whose JSON type the value has, so that it names the place; else that there is none.
    fn check_any(kinds: &[Self], value: &mut Value) -> Checked {
        let mut nearest = None;
        for kind in kinds {
            match kind.check(value, false) {
                Ok(()) => return Ok(()),
                Err(fault) if kind.is_typed(value) => nearest = nearest.or(Some(fault)),
                Err(_) => {}
            }
        }
        match nearest {
            Some(fault) => Err(fault),
            None => fault("must match a schema in anyOf"),
        }
    }

    /// Whether `value` has the JSON type of this kind.
    fn is_typed(&self, value: &Value) -> bool {
        match self {
            Self::Text { .. } | Self::OneOf(_) | Self::Time => value.is_string(),
            Self::Integer { .. } | Self::Number { .. } => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::List { .. } => value.is_array(),
            Self::Tagged { .. } | Self::Free { .. } | Self::Object(_) => value.is_object(),
            Self::Null => value.is_null(),
            Self::Any(kinds) => kinds.iter().any(|kind| kind.is_typed(value)),
        }
    }

    fn coerce(&self, value: &mut Value) {
        let replacement = match (self, &mut *value) {
            (Self::Text { .. } | Self::OneOf(_) | Self::Time, Value::Number(n)) => Value::from(javascript_text(n)),
            (Self::Text { .. } | Self::OneOf(_) | Self::Time, Value::Bool(b)) => Value::from(b.to_string()),
            (Self::Text { .. } | Self::OneOf(_) | Self::Time, Value::Null) => Value::from(""),
            (Self::Integer { .. }, Value::Null) => Value::from(0),
            (Self::Integer { .. }, Value::String(text)) => match text.parse().ok().and_then(Number::from_f64) {
                Some(n) => text.parse::<i64>().map_or(Value::Number(n), Value::from),
                None => return,
            },
            (Self::Boolean, Value::String(text)) if text == "true" => Value::Bool(true),
            (Self::Boolean, Value::String(text)) if text == "false" => Value::Bool(false),
            (Self::List { .. }, scalar @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => Value::Array(vec![scalar.take()]),
            _ => return,
        };
        *value = replacement;
    }
}

fn string(value: &Value) -> Result<&str, Fault> {
    value.as_str().map_or_else(|| fault("must be string"), Ok)
}

fn object(value: &mut Value) -> Result<&mut Map<String, Value>, Fault> {
    value.as_object_mut().map_or_else(|| fault("must be object"), Ok)
}

fn within(count: usize, min: usize, max: usize, unit: &str) -> Checked {
    if count < min {
        return fault(format!("must NOT have fewer than {min} {unit}"));
    }
    if count > max {
        return fault(format!("must NOT have more than {max} {unit}"));
    }
    Ok(())
}

/// The whole number `n` is, cut to the range of `i64`; `None` if it has a fraction.
fn whole(n: &Number) -> Option<i64> {
    n.as_i64().or_else(|| {
        let float = n.as_f64().filter(|float| float.fract() == 0.0)?;
        Some(format!("{float:.0}").parse().unwrap_or(if float > 0.0 { i64::MAX } else { i64::MIN }))
    })
}

/// `n` as JavaScript's `String(n)` prints it (ECMA-262, Number::toString), except that large integers keep all their digits.
fn javascript_text(n: &Number) -> String {
    match n.as_f64() {
        Some(float) if n.is_f64() => match float.abs() {
            0.0 => "0".to_owned(),
            1e-6..1e21 => float.to_string(),
            1e21.. => format!("{float:e}").replace('e', "e+"),
            _ => format!("{float:e}"),
        },
        _ => n.to_string(),
    }
}

/// Nesting of `value`: 0 for a scalar, 1 for an empty object. The reader bounds it, so the recursion is bounded.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Fails once more than `left` bytes were written.
struct Counter {
    left: usize,
}

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Overwrites every string of `value`, keys included.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(map) => wipe_map(map),
        _ => {}
    }
}

fn wipe_map(map: &mut Map<String, Value>) {
    for (mut key, mut value) in mem::take(map) {
        key.zeroize();
        wipe(&mut value);
    }
}

/// Fields that passed their schema; what is not taken out is wiped. Each method gives `None` for an absent field.
#[derive(Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Takes a string out.
    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.0.remove(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Takes a list of strings out.
    pub fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        match self.0.remove(name)? {
            Value::Array(items) => Some(
                items
                    .into_iter()
                    .filter_map(|item| match item {
                        Value::String(text) => Some(text),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => None,
        }
    }

    /// Takes a value of any kind out; whoever takes it wipes it ([`wipe`]).
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Takes a list of objects of known keys out.
    pub fn each(&mut self, name: &str) -> Option<Vec<Fields>> {
        match self.0.remove(name)? {
            Value::Array(items) => Some(
                items
                    .into_iter()
                    .filter_map(|item| match item {
                        Value::Object(map) => Some(Fields(map)),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => None,
        }
    }

    /// Adds the fields of another part of the same request; where both name one, the other's is kept.
    pub fn join(&mut self, mut other: Fields) {
        self.0.append(&mut other.0);
    }

    /// Of the fields of `map` those that `schema` names, unchecked; the others are wiped.
    pub fn named(map: Map<String, Value>, schema: &Schema) -> Map<String, Value> {
        let mut kept = Map::new();
        for (mut key, mut value) in map {
            if schema.fields.iter().any(|field| field.name == key) {
                kept.insert(key, value);
            } else {
                key.zeroize();
                wipe(&mut value);
            }
        }
        kept
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }

    /// A whole number that the schema bounds from below by 0 or more.
    pub fn count(&self, name: &str) -> Option<usize> {
        usize::try_from(self.0.get(name)?.as_u64()?).ok()
    }

    /// A boolean.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name)?.as_bool()
    }

    /// A moment.
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        Timestamp::parse(self.0.get(name)?.as_str()?)
    }

    /// Takes an object of known keys out.
    pub fn fields(&mut self, name: &str) -> Option<Fields> {
        self.map(name).map(Fields)
    }

    /// Takes a list of objects of known keys out.
    pub fn objects(&mut self, name: &str) -> Option<Vec<Fields>> {
        let Value::Array(items) = self.0.remove(name)? else { return None };
        let object = |item| match item {
            Value::Object(map) => Some(Fields(map)),
            _ => None,
        };
        Some(items.into_iter().filter_map(object).collect())
    }

    /// Takes an object of the caller's own keys out.
    pub fn map(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.0.remove(name)? {
            Value::Object(map) => Some(map),
            _ => None,
        }
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fields")
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        wipe_map(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{body, inputs};

    fn refusal(schema: &Schema, value: Value, coerce: bool) -> String {
        schema.check(Part::Body, Some(value), coerce).map_or_else(|e| e.to_string(), |_| "accepted".to_owned())
    }

    fn memory(key: &str, value: Value) -> Value {
        let mut memory = json!({ "title": "t", "content": "c", "tags": [] });
        memory[key] = value;
        memory
    }

    #[test]
    fn refusals_read_as_those_of_the_contract() {
        for (value, text) in [
            (json!({ "title": "t", "content": "c" }), "body must have required property 'tags'"),
            (json!({}), "body must have required property 'title'"),
            (json!([]), "body must be object"),
            (json!("x"), "body must be object"),
            (memory("title", json!("")), "body/title must NOT have fewer than 1 characters"),
            (memory("title", json!("é".repeat(501))), "body/title must NOT have more than 500 characters"),
            (memory("title", json!({})), "body/title must be string"),
            (memory("content", json!("x".repeat(100_001))), "body/content must NOT have more than 100000 characters"),
            (memory("tags", json!(vec!["x"; 51])), "body/tags must NOT have more than 50 items"),
            (memory("tags", json!({})), "body/tags must be array"),
            (memory("tags", json!(["a", ""])), "body/tags/1 must NOT have fewer than 1 characters"),
            (memory("allowed_vendors", json!([])), "body/allowed_vendors must NOT have fewer than 1 items"),
            (memory("memory_type", json!("other")), "body/memory_type must be equal to one of the allowed values"),
            (memory("share_with_team", json!("perhaps")), "body/share_with_team must be boolean"),
            (memory("patient", json!("x")), "body must NOT have additional properties"),
            (memory("occurred_at", json!("yesterday")), "body/occurred_at must match format \"date-time\""),
            (memory("occurred_at", json!("1952-03-04T00:00:00Z")), "body/occurred_at must not lie before 1970"),
            (memory("occurred_at", json!("1970-01-01T00:30:00+01:00")), "body/occurred_at must not lie before 1970"),
            (memory("occurred_at", json!("2026-06-30T12:00:60Z")), "body/occurred_at must match format \"date-time\""),
            (memory("metadata", json!([])), "body/metadata must be object"),
        ] {
            assert_eq!(refusal(&inputs::CREATE, value, true), text);
        }
        assert_eq!(inputs::CREATE.check(Part::Body, None, true).unwrap_err().to_string(), "body must be object");
        let all = json!({ "by": "all" });
        for (limit, text) in [
            (json!(501), "body/limit must be <= 500"),
            (json!(0), "body/limit must be >= 1"),
            (json!(1.5), "body/limit must be integer"),
            (json!("x"), "body/limit must be integer"),
            (json!(1e300), "body/limit must be <= 500"),
            (json!(-1e300), "body/limit must be >= 1"),
            (json!(u64::MAX), "body/limit must be <= 500"),
        ] {
            assert_eq!(refusal(&inputs::LIST, json!({ "filter": all, "limit": limit }), true), text);
        }
        let query = body::form("tag=a&tag=b").unwrap();
        assert_eq!(inputs::LATEST.check(Part::Query, Some(query), true).unwrap_err().to_string(), "querystring/tag must be string");
    }

    #[test]
    fn bounds_hold_on_both_sides_and_count_code_points() {
        for (key, value) in [
            ("title", json!("é".repeat(500))),
            ("content", json!("\u{1f9e0}".repeat(100_000))),
            ("tags", json!(vec!["x".repeat(100); 50])),
            ("allowed_vendors", json!(vec!["x".repeat(50); 50])),
            ("subject", json!("\0".repeat(200))),
            ("memory_type", json!("procedural")),
            ("occurred_at", json!("2026-11-21T08:00:00+01:00")),
        ] {
            assert_eq!(refusal(&inputs::CREATE, memory(key, value), false), "accepted", "{key}");
        }
    }

    #[test]
    fn a_filter_is_checked_by_its_own_kind() {
        let check = |filter| refusal(&inputs::BROWSE, json!({ "filter": filter }), true);
        for good in [
            json!({ "by": "all" }),
            json!({ "by": "tags", "tags": ["a"] }),
            json!({ "by": "tags", "tags": "a" }),
            json!({ "by": "ids", "ids": ["not an id"] }),
            json!({ "by": "search", "term": "100%" }),
            json!({ "by": "origin", "origin": "cursor" }),
            json!({ "by": "trashed" }),
        ] {
            assert_eq!(check(good), "accepted");
        }
        assert_eq!(check(json!({ "by": "everything" })), "body/filter must match exactly one schema in oneOf");
        assert_eq!(check(json!({})), "body/filter must match exactly one schema in oneOf");
        assert_eq!(check(json!("all")), "body/filter must be object");
        assert_eq!(check(json!({ "by": "all", "tags": [] })), "body/filter must NOT have additional properties");
        assert_eq!(check(json!({ "by": "tags" })), "body/filter must have required property 'tags'");
        assert_eq!(check(json!({ "by": "tags", "tags": [] })), "body/filter/tags must NOT have fewer than 1 items");
        assert_eq!(check(json!({ "by": "search", "term": "" })), "body/filter/term must NOT have fewer than 1 characters");
    }

    #[test]
    fn coercions_are_those_of_the_contract_and_only_when_asked_for() {
        let coerced = json!({ "title": 123, "content": true, "tags": "x", "allowed_vendors": 7, "share_with_team": "true" });
        let mut fields = inputs::CREATE.check(Part::Body, Some(coerced.clone()), true).unwrap();
        assert_eq!(fields.text("title").as_deref(), Some("123"));
        assert_eq!(fields.text("content").as_deref(), Some("true"));
        assert_eq!(fields.texts("tags"), Some(vec!["x".to_owned()]));
        assert_eq!(fields.texts("allowed_vendors"), Some(vec!["7".to_owned()]));
        assert_eq!(fields.flag("share_with_team"), Some(true));
        assert_eq!(refusal(&inputs::CREATE, coerced, false), "body/title must be string");

        let fields = inputs::AGENT_LIST.check(Part::Body, Some(json!({ "limit": "2" })), true).unwrap();
        assert_eq!(fields.count("limit"), Some(2));
        let fields = inputs::AGENT_LIST.check(Part::Body, Some(json!({ "limit": 2.0 })), false).unwrap();
        assert_eq!(fields.count("limit"), Some(2));
        let browse = json!({ "filter": { "by": "all" }, "offset": null });
        assert_eq!(inputs::BROWSE.check(Part::Body, Some(browse.clone()), true).unwrap().count("offset"), Some(0));
        assert_eq!(refusal(&inputs::BROWSE, browse, false), "body/offset must be integer");
        assert_eq!(refusal(&inputs::AGENT_LIST, json!({ "limit": "2" }), false), "body/limit must be integer");
        // Not in the contract's list, so not done.
        assert_eq!(refusal(&inputs::AGENT_LIST, json!({ "limit": true }), true), "body/limit must be integer");
        assert_eq!(refusal(&inputs::CREATE, memory("title", json!(["one"])), true), "body/title must be string");
        assert_eq!(refusal(&inputs::CREATE, memory("title", Value::Null), true), "body/title must NOT have fewer than 1 characters");
        for odd in ["", "inf", "NaN", "0x10", "1.5", "2 "] {
            assert_eq!(refusal(&inputs::AGENT_LIST, json!({ "limit": odd }), true), "body/limit must be integer", "{odd}");
        }
    }

    #[test]
    fn numbers_become_the_strings_that_javascript_makes() {
        for (json, text) in [
            ("1.50", "1.5"),
            ("2.0", "2"),
            ("-0.0", "0"),
            ("1e21", "1e+21"),
            ("1.5e300", "1.5e+300"),
            ("1e-7", "1e-7"),
            ("0.000001", "0.000001"),
            ("1e20", "100000000000000000000"),
            ("9007199254740993", "9007199254740993"),
            ("-1.25e-9", "-1.25e-9"),
        ] {
            let Value::Number(number) = body::json(json.as_bytes()).unwrap() else { panic!("{json}") };
            assert_eq!(javascript_text(&number), text);
        }
    }

    #[test]
    fn defaults_fill_absent_keys_alone() {
        let mut fields = inputs::CREATE.check(Part::Body, Some(memory("title", json!("t"))), false).unwrap();
        assert_eq!(fields.texts("allowed_vendors"), Some(vec!["*".to_owned()]));
        assert_eq!(fields.text("memory_type").as_deref(), Some("semantic"));
        assert_eq!((fields.text("subject"), fields.time("occurred_at"), fields.flag("share_with_team")), (None, None, None));
        let mut fields = inputs::LIST.check(Part::Body, Some(json!({ "filter": { "by": "trashed" } })), false).unwrap();
        assert_eq!((fields.count("limit"), fields.count("offset")), (None, Some(0)));
        assert_eq!(fields.fields("filter").and_then(|mut filter| filter.text("by")).as_deref(), Some("trashed"));
    }

    #[test]
    fn every_route_names_each_key_once_and_its_defaults_pass() {
        for schema in crate::api::routes::ROUTES.iter().flat_map(|route| [route.doc.body, route.doc.query]).flatten() {
            let names: std::collections::BTreeSet<_> = schema.fields.iter().map(|field| field.name).collect();
            assert_eq!(names.len(), schema.fields.len());
            for (field, default) in schema.fields.iter().filter_map(|field| Some((field, field.default?))) {
                assert!(!field.required && field.kind.check(&mut default.value(), false).is_ok(), "{}", field.name);
            }
        }
    }

    #[test]
    fn an_origin_is_a_word() {
        let check = |origin: &str| {
            let memory = json!({ "title": "t", "content": "c", "tags": [], "allowed_vendors": ["*"], "origin": origin });
            refusal(&inputs::AGENT_CREATE, memory, true)
        };
        assert_eq!(check("my-tool_2.0"), "accepted");
        assert_eq!(check("Jane Doe"), "body/origin must match pattern \"^[A-Za-z0-9._-]+$\"");
        assert_eq!(check(""), "body/origin must NOT have fewer than 1 characters");
    }

    #[test]
    fn metadata_is_bounded_in_bytes_and_depth_and_never_coerced() {
        let mut fields = inputs::CREATE.check(Part::Body, Some(memory("metadata", json!({ "n": 1, "x": null }))), true).unwrap();
        assert_eq!(fields.map("metadata").map(Value::Object), Some(json!({ "n": 1, "x": null })));
        let padded = |bytes: usize| memory("metadata", json!({ "k": "x".repeat(bytes - r#"{"k":""}"#.len()) }));
        assert_eq!(refusal(&inputs::CREATE, padded(16_384), true), "accepted");
        assert_eq!(refusal(&inputs::CREATE, padded(16_385), true), "body/metadata must NOT have more than 16384 bytes");
        assert_eq!(refusal(&inputs::CREATE, memory("metadata", json!({ "a": { "b": [{}] } })), true), "accepted");
        assert_eq!(
            refusal(&inputs::CREATE, memory("metadata", json!({ "a": { "b": [[[]]] } })), true),
            "body/metadata must NOT be nested deeper than 4 levels"
        );
    }

    #[test]
    fn an_error_tells_nothing_of_what_was_sent() {
        for value in [
            memory("SECRET", json!("SECRET")),
            memory("title", json!({ "SECRET": "SECRET" })),
            memory("metadata", json!({ "SECRET": { "SECRET": { "SECRET": { "SECRET": {} } } } })),
            memory("memory_type", json!("SECRET")),
            memory("occurred_at", json!("SECRET")),
            memory("tags", json!(["SECRET", ["SECRET"]])),
        ] {
            let refusal = refusal(&inputs::CREATE, value, true);
            assert!(refusal != "accepted" && !refusal.contains("SECRET"), "{refusal}");
        }
    }

    /// What a mutated text may be made of: all that the reader treats apart.
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u0000",
        "\\ud800",
        "\\udc00",
        "null",
        "true",
        "-1",
        "1e309",
        "0.5",
        "\"title\"",
        "\"tags\"",
        "\"x\"",
        "\"metadata\":{}",
        "\"by\":\"all\"",
        "\u{feff}",
        "\u{1f9e0}",
        " ",
        "\n",
        "[[[[[[[[",
        "]]]]]]]]",
        "{\"a\":",
        "}",
    ];

    #[test]
    fn no_mutation_panics_or_passes_an_unknown_key() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(n).unwrap()).unwrap()
        };
        let seeds = [
            (
                &inputs::CREATE,
                r#"{"title":"t","content":"c","tags":["a","b"],"metadata":{"k":[1,2.5,null]},"occurred_at":"2026-11-21T08:00:00Z"}"#,
            ),
            (&inputs::BROWSE, r#"{"filter":{"by":"tags","tags":["a"]},"limit":50,"offset":0}"#),
            (&inputs::SEARCH, r#"{"query":"q","limit":10,"tags":["a"],"since":"2026-11-21T08:00:00Z","explain":true}"#),
        ];
        let (mut accepted, mut refused) = (0, 0);
        for round in 0..60_000 {
            let (schema, seed) = seeds[round % seeds.len()];
            let mut text = seed.as_bytes().to_vec();
            for _ in 0..below(4) {
                let at = below(text.len() + 1);
                match below(4) {
                    0 => drop(text.splice(at..at, PIECES[below(PIECES.len())].bytes())),
                    1 if at < text.len() => text[at] = u8::try_from(below(256)).unwrap(),
                    2 => drop(text.drain(at..(at + below(8)).min(text.len()))),
                    _ => drop(text.splice(at..at, seed.bytes().skip(below(seed.len())).take(12))),
                }
            }
            let Ok(value) = body::json(&text) else { continue };
            // An independent reader agrees that it is JSON, and about what it says.
            assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), value);
            let keys: Vec<String> = value.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
            match schema.check(Part::Body, Some(value), round % 2 == 0) {
                Ok(_) => {
                    accepted += 1;
                    assert!(keys.iter().all(|key| schema.fields.iter().any(|field| field.name == key)));
                    assert!(schema.fields.iter().all(|field| !field.required || keys.iter().any(|key| key == field.name)));
                }
                Err(_) => refused += 1,
            }
        }
        assert!(accepted > 10_000 && refused > 100, "{accepted} accepted, {refused} refused");
    }
}
