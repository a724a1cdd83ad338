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
    /// An object of known keys.
    Object(&'static Schema),
    /// An object whose `tag` key chooses which other keys it holds.
    Tagged { tag: &'static str, variants: &'static [(&'static str, Schema)] },
    /// An object of the caller's own keys: bytes as compact JSON, depth with `{}` being 1. Nothing in it is coerced.
    Free { bytes_max: usize, depth_max: usize },
    /// An RFC 3339 date and time from 1970 on.
    Time,
}

/// A set of strings: the regular expression that documents it and the function that decides.
#[derive(Debug)]
pub struct Pattern {
    /// ECMA-262 source, anchored.
    pub source: &'static str,
    /// Whether a string is in the set.
    pub matches: fn(&str) -> bool,
}

/// A default.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    /// A string.
    Text(&'static str),
    /// A whole number.
    Integer(i64),
    /// A list of strings.
    Texts(&'static [&'static str]),
}

/// Which part of a request is checked; the first word of its errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The body.
    Body,
    /// The query string.
    Query,
}

/// Why a part was refused: `body/limit must be <= 500`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{pointer} {text}", match .part { Part::Body => "body", Part::Query => "querystring" })]
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

fn fault(text: impl Into<String>) -> Checked {
    Err(Fault { pointer: String::new(), text: text.into() })
}

/// Adds one step to the pointer of a fault found below it.
fn under(step: impl fmt::Display, checked: Checked) -> Checked {
    checked.map_err(|fault| Fault { pointer: format!("/{step}{}", fault.pointer), ..fault })
}

impl Field {
    /// A key that must be present.
    pub const fn required(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, required: true, default: None, about }
    }

    /// A key that may be absent.
    pub const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, required: false, default: None, about }
    }

    /// The same key, no longer required; absent, it holds `default`.
    pub const fn or(self, default: Literal) -> Self {
        Self { required: false, default: Some(default), ..self }
    }
}

impl Literal {
    /// The default as JSON.
    pub fn value(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(*text),
            Self::Integer(n) => Value::from(*n),
            Self::Texts(texts) => Value::from(*texts),
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
        match (self, value) {
            (Self::Text { min, max, pattern }, Value::String(text)) => {
                let chars = text.chars().count();
                within(chars, *min, *max, "characters")?;
                match pattern {
                    Some(pattern) if !(pattern.matches)(text) => fault(format!("must match pattern \"{}\"", pattern.source)),
                    _ => Ok(()),
                }
            }
            (Self::Text { .. } | Self::OneOf(_) | Self::Time, value) if !value.is_string() => fault("must be string"),
            (Self::Integer { min, max }, value) => match value.as_number().and_then(whole) {
                None => fault("must be integer"),
                Some(n) if n < *min => fault(format!("must be >= {min}")),
                Some(n) if n > *max => fault(format!("must be <= {max}")),
                Some(n) => {
                    *value = Value::from(n);
                    Ok(())
                }
            },
            (Self::Boolean, Value::Bool(_)) => Ok(()),
            (Self::Boolean, _) => fault("must be boolean"),
            (Self::OneOf(words), value) if value.as_str().is_some_and(|text| words.contains(&text)) => Ok(()),
            (Self::OneOf(_), _) => fault("must be equal to one of the allowed values"),
            (Self::List { items, min, max }, Value::Array(values)) => {
                within(values.len(), *min, *max, "items")?;
                values.iter_mut().enumerate().try_for_each(|(i, item)| under(i, items.check(item, coerce)))
            }
            (Self::List { .. }, _) => fault("must be array"),
            (Self::Object(schema), Value::Object(map)) => schema.check_map(map, coerce),
            (Self::Tagged { tag, variants }, Value::Object(map)) => {
                let word = map.get(*tag).and_then(Value::as_str);
                match variants.iter().find(|(name, _)| Some(*name) == word) {
                    Some((_, schema)) => schema.check_map(map, coerce),
                    None => fault("must match exactly one schema in oneOf"),
                }
            }
            (Self::Free { bytes_max, depth_max }, value @ Value::Object(_)) => {
                if depth(value) > *depth_max {
                    return fault(format!("must NOT be nested deeper than {depth_max} levels"));
                }
                match serde_json::to_writer(Counter { left: *bytes_max }, value) {
                    Ok(()) => Ok(()),
                    Err(_) => fault(format!("must NOT have more than {bytes_max} bytes")),
                }
            }
            (Self::Object(_) | Self::Tagged { .. } | Self::Free { .. }, _) => fault("must be object"),
            (Self::Time, value) if value.as_str().and_then(Timestamp::parse).is_some() => Ok(()),
            (Self::Text { .. } | Self::Time, _) => fault("must match format \"date-time\""),
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
