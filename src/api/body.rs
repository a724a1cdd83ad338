//! From bytes to JSON values: bodies by content type, query strings.
//!
//! Invariants
//! - One text has one reading: a repeated key in a JSON object is refused, as are a lone surrogate, bytes that are not UTF-8, numbers outside the
//!   range of a double, and whole numbers beyond 64 bits, which would come back as other numbers.
//! - Nesting is bounded before it is built, so the stack is too.
//! - A repeated key in a form or a query string becomes a list, as existing clients of the contract expect.
//! - Errors carry no byte of the body.
//!
//! Control characters and NUL are text like any other: clinical notes are pasted from everywhere.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::api::schema::wipe;
use crate::base::{hex, limits};

/// Why a body or a query string could not be read; each is the client's fault (400), and its text is for the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// A JSON content type without a body.
    #[error("Body cannot be empty when content-type is set to 'application/json'")]
    Empty,
    /// Not JSON (RFC 8259) in UTF-8.
    #[error("Body is not valid JSON but content-type is set to 'application/json'")]
    NotJson,
    /// An object names one key twice.
    #[error("Body must not repeat a key within one object")]
    RepeatedKey,
    /// An integer that 64 bits do not hold.
    #[error("Body must not have an integer beyond 64 bits; write it as a string")]
    WideInteger,
    /// Arrays and objects are nested too deeply.
    #[error("Body must not be nested deeper than {} levels", limits::JSON_DEPTH_MAX)]
    TooDeep,
    /// A form or query string with a broken `%` escape, bytes that are not UTF-8, or too many pairs.
    #[error("Form or query string is not valid percent-encoded UTF-8 of at most {} pairs", limits::FORM_PAIRS_MAX)]
    NotForm,
}

/// Reads a body by its `Content-Type`.
///
/// JSON and `application/x-www-form-urlencoded` are read; without a content type, or with another, the body counts as absent (`None`), which a
/// schema then refuses. Not for GET and HEAD, whose bodies mean nothing.
pub fn read(content_type: Option<&str>, bytes: &[u8]) -> Result<Option<Value>, BodyError> {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        json(bytes).map(Some)
    } else if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        form(std::str::from_utf8(bytes).map_err(|_| BodyError::NotForm)?).map(Some)
    } else {
        Ok(None)
    }
}

/// Reads one JSON text, strictly; see the module text.
pub fn json(bytes: &[u8]) -> Result<Value, BodyError> {
    let text = std::str::from_utf8(bytes).map_err(|_| BodyError::NotJson)?;
    if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
        return Err(BodyError::Empty);
    }
    let (fault, large) = (Cell::new(BodyError::NotJson), Cell::new(false));
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Node { depth: 0, fault: &fault, large: &large }.deserialize(&mut reader).map_err(|_| fault.get())?;
    reader.end().map_err(|_| BodyError::NotJson)?;
    if large.get() && has_wide_integer(text) {
        wipe(&mut { value });
        return Err(BodyError::WideInteger);
    }
    Ok(value)
}

/// Whether `text`, which is JSON, has an integer outside the ranges of `i64` and `u64` that would be another one when it is read back.
fn has_wide_integer(text: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    // What is left after strings are taken out: in it a number is what no mark of JSON stands in.
    let mut outside = text.split(|c: char| {
        let ends = quoted || !c.is_ascii_digit() && !"+-.eE".contains(c);
        (quoted, escaped) = (if c == '"' && !escaped { !quoted } else { quoted }, quoted && c == '\\' && !escaped);
        ends
    });
    outside.any(|word| {
        let digits = word.strip_prefix('-').unwrap_or(word);
        // What a client keeps as a double and writes in digits comes back as those digits.
        let is_double = || word.parse::<f64>().is_ok_and(|number| number.to_string() == word);
        digits.len() > 18
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && word.parse::<i64>().is_err()
            && word.parse::<u64>().is_err()
            && !is_double()
    })
}

/// Reads the query string of a request target (what follows `?`), or a form: pairs joined by `&`, `+` for a space, `%` escapes of UTF-8.
///
/// Gives an object of strings, or of lists of strings where a key repeats.
pub fn form(text: &str) -> Result<Value, BodyError> {
    let mut map = Map::new();
    for (i, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if i >= limits::FORM_PAIRS_MAX {
            return Err(BodyError::NotForm);
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::String(unescape(value)?);
        match map.entry(unescape(key)?) {
            serde_json::map::Entry::Vacant(entry) => {
                entry.insert(value);
            }
            serde_json::map::Entry::Occupied(mut entry) => match entry.get_mut() {
                Value::Array(values) => values.push(value),
                first => *first = Value::Array(vec![first.take(), value]),
            },
        }
    }
    Ok(Value::Object(map))
}

fn unescape(text: &str) -> Result<String, BodyError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |bytes: &mut std::str::Bytes<'_>| bytes.next().and_then(|byte| hex::value(byte.to_ascii_lowercase()));
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => digit(&mut bytes).zip(digit(&mut bytes)).map(|(high, low)| high << 4 | low).ok_or(BodyError::NotForm)?,
            other => other,
        });
    }
    String::from_utf8(out).map_err(|_| BodyError::NotForm)
}

/// Builds one value at `depth`, leaving in `fault` why it could not.
#[derive(Clone, Copy)]
struct Node<'a> {
    depth: usize,
    fault: &'a Cell<BodyError>,
    /// Set by a number so large that it may have been an integer beyond 64 bits: serde tells of those as of any with a fraction.
    large: &'a Cell<bool>,
}

impl<'a> Node<'a> {
    fn fail<E: Error>(self, fault: BodyError) -> E {
        self.fault.set(fault);
        E::custom("refused")
    }

    fn inner<E: Error>(self) -> Result<Self, E> {
        if self.depth == limits::JSON_DEPTH_MAX {
            return Err(self.fail(BodyError::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.large.set(self.large.get() || value.abs() >= 9e18);
        Number::from_f64(value).map(Value::Number).ok_or_else(|| self.fail(BodyError::NotJson))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(self.fail(BodyError::RepeatedKey));
            }
            map.insert(key, entries.next_value_seed(inner)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_content_type_decides_how_a_body_is_read() {
        let read_as = |content_type, bytes: &str| read(content_type, bytes.as_bytes());
        for json_type in ["application/json", "application/json; charset=utf-8", " Application/JSON ;x=y"] {
            assert_eq!(read_as(Some(json_type), r#"{"a":1}"#), Ok(Some(json!({ "a": 1 }))));
            assert_eq!(read_as(Some(json_type), ""), Err(BodyError::Empty));
            assert_eq!(read_as(Some(json_type), "\r\n"), Err(BodyError::Empty));
        }
        assert_eq!(
            read_as(Some("application/x-www-form-urlencoded"), "title=a+b&tags=x&tags=y"),
            Ok(Some(json!({ "title": "a b", "tags": ["x", "y"] })))
        );
        for other in [None, Some(""), Some("text/plain"), Some("application/jsonp"), Some("multipart/form-data; boundary=x")] {
            assert_eq!(read_as(other, r#"{"a":1}"#), Ok(None));
        }
    }

    #[test]
    fn json_with_two_readings_or_none_is_refused() {
        for bad in [
            &b"{"[..],
            b"{}x",
            b"{} {}",
            b"{'a':1}",
            b"{\"a\":01}",
            b"{\"a\":NaN}",
            b"{\"a\":Infinity}",
            b"{\"a\":1e309}",
            b"{\"a\":1,}",
            b"\"\\ud800\"",
            b"\"\\udc00\\ud800\"",
            b"\"\\x41\"",
            b"\"\xff\"",
            b"\"\xed\xa0\x80\"",
            b"\"\xc0\x80\"",
            b"\xef\xbb\xbf{}",
            b"\"raw\ncontrol\"",
        ] {
            assert_eq!(json(bad), Err(BodyError::NotJson), "{}", String::from_utf8_lossy(bad));
        }
        for twice in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"b":{"a":1,"x":0,"a":2}}]"#] {
            assert_eq!(json(twice.as_bytes()), Err(BodyError::RepeatedKey), "{twice}");
        }
        assert_eq!(json(br#"[{"a":1},{"a":2}]"#), Ok(json!([{ "a": 1 }, { "a": 2 }])));
    }

    /// An integer of 30 digits became a float, and the answer held another number than the one that was sent.
    #[test]
    fn an_integer_that_would_become_another_number_is_refused() {
        for wide in ["123456789012345678901234567890", "-9223372036854775809", "18446744073709551616", "1000000000000000000001"] {
            for text in
                [wide.to_owned(), format!("[1, {wide}]"), format!(r#"{{"a\"\\":"x\\","b":{{"c":{wide}}}}}"#), format!("[0,{wide} ,2]")]
            {
                assert_eq!(json(text.as_bytes()), Err(BodyError::WideInteger), "{text}");
            }
            for text in [
                format!("\"{wide}\""),
                format!(r#"["a\\", "\" {wide},", "\\\" {wide} "]"#),
                format!("{wide}.5"),
                format!("{wide}.0"),
                format!("[{wide}e1]"),
            ] {
                assert!(json(text.as_bytes()).is_ok(), "{text}");
            }
        }
        for held in [
            "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551615",
            "0.1000000000000000000055",
            "1e30",
            "-0",
            "100000000000000000000",
            "18446744073709552000",
            "1000000000000000000000",
        ] {
            assert!(json(held.as_bytes()).is_ok(), "{held}");
        }
    }

    #[test]
    fn control_characters_written_as_escapes_are_text() {
        assert_eq!(json(br#""\u0000\u001b\ud83e\udde0""#), Ok(json!("\0\u{1b}\u{1f9e0}")));
    }

    #[test]
    fn nesting_is_bounded_before_it_is_built() {
        let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            assert!(json(nested(open, close, limits::JSON_DEPTH_MAX).as_bytes()).is_ok());
            assert_eq!(json(nested(open, close, limits::JSON_DEPTH_MAX + 1).as_bytes()), Err(BodyError::TooDeep));
            assert_eq!(json(open.repeat(100_000).as_bytes()), Err(BodyError::TooDeep));
        }
    }

    #[test]
    fn nesting_to_the_bound_fits_a_connection_thread() {
        let text = format!("{}{}", r#"[{"a":"#.repeat(16), "1".to_owned() + &"}]".repeat(16));
        let read = move || json(text.as_bytes()).is_ok();
        let half = std::thread::Builder::new().stack_size(limits::CONNECTION_STACK_BYTES / 2).spawn(read).unwrap();
        assert!(half.join().unwrap());
    }

    #[test]
    fn a_form_is_unescaped_strictly() {
        assert_eq!(form(""), Ok(json!({})));
        assert_eq!(form("&&a&b=&=c&"), Ok(json!({ "a": "", "b": "", "": "c" })));
        assert_eq!(form("tag=%C3%A9%2B%26&q=a=b"), Ok(json!({ "tag": "é+&", "q": "a=b" })));
        assert_eq!(form("a=1&a=2&a=3"), Ok(json!({ "a": ["1", "2", "3"] })));
        for bad in ["%", "a=%4", "a=%zz", "%ff=1", "a=%ed%a0%80"] {
            assert_eq!(form(bad), Err(BodyError::NotForm), "{bad}");
        }
        assert!(form(&"a=1&".repeat(limits::FORM_PAIRS_MAX)).is_ok());
        assert_eq!(form(&"a=1&".repeat(limits::FORM_PAIRS_MAX + 1)), Err(BodyError::NotForm));
    }
}
