//! JSON-RPC 2.0 as MCP uses it: from JSON values to messages, from results and errors to bytes. Pure.
//!
//! Invariants
//! - A message is a request, a notification or a response, by the keys that it has; what is none of them is refused with its id, where it has one.
//! - An id is a text or a whole number, and comes back as it came.
//! - An error's text is the program's own; the one thing of the caller's that comes back beside an id is the protocol version that it named,
//!   which MCP asks for.
//! - Parameters are wiped when dropped.
//!
//! Source: JSON-RPC 2.0 specification; MCP 2025-11-25 and 2026-07-28, "Overview".

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::api::schema::wipe;

/// The text or bytes were not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// JSON, but no message.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The parameters do not fit the method.
pub const INVALID_PARAMS: i32 = -32602;
/// A fault of ours, or no answer now.
pub const INTERNAL_ERROR: i32 = -32603;
/// What existing clients of the contract know for everything about sessions and transport.
pub const TRANSPORT: i32 = -32000;
/// MCP 2026-07-28: header fields and body disagree.
pub const HEADER_MISMATCH: i32 = -32020;
/// MCP 2026-07-28: a version that is not spoken here.
pub const UNSUPPORTED_VERSION: i32 = -32022;

/// Why there is no result: the error, and the HTTP status that goes with it.
#[derive(Clone, PartialEq, Debug)]
pub struct Fault {
    /// HTTP status of the answer if the message came alone.
    pub status: u16,
    /// JSON-RPC code.
    pub code: i32,
    /// In our own words.
    pub text: Cow<'static, str>,
    /// What the protocol asks for beside it.
    pub data: Option<Value>,
}

impl Fault {
    /// A fault without data.
    pub fn new(status: u16, code: i32, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, text: text.into(), data: None }
    }

    /// The error as JSON; without an id that could be read `id` is null, or absent where `absent` says so (MCP 2026-07-28).
    pub fn json(&self, id: Option<&Value>, absent: bool) -> Vec<u8> {
        let mut error = json!({ "code": self.code, "message": self.text });
        if let Some(data) = &self.data {
            error["data"] = data.clone();
        }
        let mut answer = json!({ "jsonrpc": "2.0", "error": error });
        if id.is_some() || !absent {
            answer["id"] = id.cloned().unwrap_or(Value::Null);
        }
        answer.to_string().into_bytes()
    }
}

/// The parameters of a message; wiped when dropped.
#[derive(Default)]
pub struct Params(Map<String, Value>);

impl Params {
    /// A value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Takes a value out; whoever takes it wipes it.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// A value of `_meta`.
    pub fn meta(&self, name: &str) -> Option<&Value> {
        self.0.get("_meta")?.get(name)
    }
}

impl Drop for Params {
    fn drop(&mut self) {
        wipe(&mut Value::Object(std::mem::take(&mut self.0)));
    }
}

/// One message.
pub enum Message {
    /// To be answered.
    Request {
        /// To be given back with the answer.
        id: Value,
        /// What is asked.
        method: String,
        /// With what.
        params: Params,
    },
    /// Not to be answered.
    Notification {
        /// What is said.
        method: String,
        /// With what.
        params: Params,
    },
    /// An answer to a request of ours; there are none.
    Response,
}

impl Message {
    /// Reads a message; what is none is refused, with its id where it has a good one.
    pub fn read(mut value: Value) -> Result<Self, (Option<Value>, Fault)> {
        let read = match &mut value {
            Value::Object(map) => Self::of(map),
            _ => Err((None, Fault::new(400, INVALID_REQUEST, "Invalid Request: a message is an object"))),
        };
        wipe(&mut value);
        read
    }

    fn of(map: &mut Map<String, Value>) -> Result<Self, (Option<Value>, Fault)> {
        let id = map.get("id").filter(|id| is_id(id)).cloned();
        let refuse = |text| Err((id.clone(), Fault::new(400, INVALID_REQUEST, text)));
        if map.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return refuse("Invalid Request: jsonrpc must be \"2.0\"");
        }
        let Some(method) = map.get("method") else {
            return match (map.contains_key("result") || map.contains_key("error"), &id) {
                (true, _) => Ok(Self::Response),
                (false, _) => refuse("Invalid Request: method is missing"),
            };
        };
        let Some(method) = method.as_str().map(str::to_owned) else { return refuse("Invalid Request: method must be a string") };
        let params = match map.remove("params") {
            None => Params::default(),
            Some(Value::Object(params)) => Params(params),
            Some(mut other) => {
                wipe(&mut other);
                return Err((id, Fault::new(400, INVALID_PARAMS, "Invalid params: params must be an object")));
            }
        };
        match (map.contains_key("id"), id) {
            (true, Some(id)) => Ok(Self::Request { id, method, params }),
            (true, None) => Err((None, Fault::new(400, INVALID_REQUEST, "Invalid Request: id must be a string or a whole number"))),
            (false, _) => Ok(Self::Notification { method, params }),
        }
    }

    /// Its parameters.
    pub fn params(&self) -> Option<&Params> {
        match self {
            Self::Request { params, .. } | Self::Notification { params, .. } => Some(params),
            Self::Response => None,
        }
    }
}

fn is_id(id: &Value) -> bool {
    match id {
        Value::String(_) => true,
        Value::Number(n) => n.is_i64() || n.is_u64(),
        _ => false,
    }
}

/// The answer to request `id`: `parts` are the result's keys and the JSON of their values, in order.
pub fn result(id: &Value, parts: &[(&str, &[u8])]) -> Vec<u8> {
    let size = parts.iter().map(|(key, value)| key.len() + value.len() + 4).sum::<usize>() + 64;
    // In one piece: no copy of record text is left behind by growth.
    let mut out = Vec::with_capacity(size + id.as_str().map_or(24, |text| 6 * text.len()));
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    put(&mut out, id);
    out.extend_from_slice(br#","result":{"#);
    for (at, (key, value)) in parts.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put(&mut out, key);
        out.push(b':');
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"}}");
    out
}

/// Appends `value` as JSON.
fn put(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("a Vec takes every write");
}

/// A tool's result: `[{"type":"text","text":…}]` of one text.
pub fn text_content(text: &str) -> Zeroizing<Vec<u8>> {
    const BEFORE: &[u8] = br#"[{"type":"text","text":"#;
    let escaped = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    let size = BEFORE.len() + text.bytes().map(escaped).sum::<usize>() + 4;
    // In one piece, as above.
    let mut out = Zeroizing::new(Vec::with_capacity(size));
    out.extend_from_slice(BEFORE);
    put(&mut out, text);
    out.extend_from_slice(b"}]");
    debug_assert_eq!(out.len(), size);
    out
}

/// The whole as one function, for tests and fuzzing: what a body holds, message by message.
#[cfg(any(test, fuzzing, feature = "bench-internals"))]
pub fn fuzz_entry(bytes: &[u8]) -> Vec<Result<Message, (Option<Value>, Fault)>> {
    match crate::api::body::json(bytes) {
        Err(_) => Vec::new(),
        Ok(Value::Array(items)) => items.into_iter().map(Message::read).collect(),
        Ok(value) => vec![Message::read(value)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Message, (Option<Value>, Fault)> {
        fuzz_entry(text.as_bytes()).remove(0)
    }

    fn code(text: &str) -> (Option<Value>, i32) {
        one(text).map(|_| (None, 0)).unwrap_or_else(|(id, fault)| (id, fault.code))
    }

    #[test]
    fn a_message_is_what_its_keys_say() {
        let request = one(r#"{"jsonrpc":"2.0","id":"a","method":"ping","params":{"x":1}}"#);
        assert!(
            matches!(request, Ok(Message::Request { id, method, params }) if id == "a" && method == "ping" && params.get("x") == Some(&json!(1)))
        );
        assert!(matches!(one(r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#), Ok(Message::Request { id, .. }) if id == 0));
        assert!(matches!(one(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), Ok(Message::Notification { .. })));
        assert!(matches!(one(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Ok(Message::Response)));
        assert!(matches!(one(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#), Ok(Message::Response)));
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_id() {
        for (text, expected) in [
            ("1", (None, INVALID_REQUEST)),
            ("null", (None, INVALID_REQUEST)),
            ("{}", (None, INVALID_REQUEST)),
            (r#"{"id":7,"method":"ping"}"#, (Some(json!(7)), INVALID_REQUEST)),
            (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, (Some(json!(7)), INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","id":7}"#, (Some(json!(7)), INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","id":7,"method":1}"#, (Some(json!(7)), INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, (None, INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, (None, INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, (None, INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":[1]}"#, (Some(json!(7)), INVALID_PARAMS)),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn an_answer_reads_back() {
        let bytes = result(&json!("\u{1}\"é"), &[("a", b"1"), ("b", br#"{"c":null}"#)]);
        assert_eq!(
            serde_json::from_slice::<Value>(&bytes).unwrap(),
            json!({ "jsonrpc": "2.0", "id": "\u{1}\"é", "result": { "a": 1, "b": { "c": null } } })
        );
        assert_eq!(serde_json::from_slice::<Value>(&result(&json!(1), &[])).unwrap(), json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
        let fault = Fault::new(400, PARSE_ERROR, "no");
        assert_eq!(serde_json::from_slice::<Value>(&fault.json(None, false)).unwrap()["id"], Value::Null);
        assert!(!String::from_utf8(fault.json(None, true)).unwrap().contains("\"id\""));
        assert_eq!(text_content("\u{1}\u{7f}\"\\\u{8}\u{1f9e0}").len(), text_content("\u{1}\u{7f}\"\\\u{8}\u{1f9e0}").capacity());
        assert_eq!(&*text_content("\"\n"), br#"[{"type":"text","text":"\"\n"}]"#);
    }
}
