//! Which era of MCP a message belongs to, and whether it keeps that era's rules about header fields. Pure.
//!
//! | era | versions | a message belongs to it if |
//! |---|---|---|
//! | modern | 2026-07-28 | its `_meta` names a protocol version, or the header field `MCP-Protocol-Version` names a modern one |
//! | legacy | 2024-10-07 to 2025-11-25 | it does not |
//!
//! Invariants
//! - A modern request says the same in its header fields as in its body, or is refused: whoever routes by header fields sees what is done.
//! - A header field that decides something stands there once.
//!
//! Source: MCP 2026-07-28, "Streamable HTTP" (Request Metadata, Server Validation), "Overview" (`_meta`), "Versioning".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::message::{Fault, HEADER_MISMATCH, INVALID_PARAMS, Params, TRANSPORT, UNSUPPORTED_VERSION};
use crate::http::Headers;

/// The modern version.
pub const MODERN: &str = "2026-07-28";
/// The legacy versions, newest first.
pub const LEGACY: [&str; 5] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05", "2024-10-07"];
/// Legacy versions that know batches (2025-06-18 took them away).
pub const BATCHES: [&str; 3] = ["2025-03-26", "2024-11-05", "2024-10-07"];

/// The header field that names a version.
pub const VERSION_FIELD: &str = "mcp-protocol-version";
const METHOD_FIELD: &str = "mcp-method";
const NAME_FIELD: &str = "mcp-name";

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const CLIENT: &str = "io.modelcontextprotocol/clientInfo";
const LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// How a server says who it is, in the `_meta` of a result.
pub const SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// Log levels of MCP (RFC 5424's).
pub const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// Whether the header fields alone say that the modern era is meant: all there is where there is no body.
pub fn is_modern_field(headers: &Headers) -> bool {
    headers.all(VERSION_FIELD).any(|version| version == MODERN)
}

/// Whether a message with these parameters is of the modern era.
pub fn is_modern(headers: &Headers, params: Option<&Params>) -> bool {
    is_modern_field(headers) || params.is_some_and(|params| params.meta(VERSION).is_some())
}

fn mismatch<T>(text: &'static str) -> Result<T, Fault> {
    Err(Fault::new(400, HEADER_MISMATCH, text))
}

/// The one value of a header field.
fn field<'h>(headers: &'h Headers, name: &'h str, missing: &'static str) -> Result<&'h str, Fault> {
    let mut values = headers.all(name);
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (Some(_), Some(_)) => mismatch("Header mismatch: a header field that MCP reads stands there twice"),
        (None, _) => mismatch(missing),
    }
}

/// Checks what every modern request carries: `_meta`, then the header fields against the body, then the version.
pub fn check_request(headers: &Headers, method: &str, params: &Params) -> Result<(), Fault> {
    let missing = || {
        Err(Fault::new(
            400,
            INVALID_PARAMS,
            format!("Invalid params: params._meta must hold {VERSION} (a string) and {CAPABILITIES} (an object)"),
        ))
    };
    let Some(version) = params.meta(VERSION).and_then(Value::as_str) else { return missing() };
    if !params.meta(CAPABILITIES).is_some_and(Value::is_object) {
        return missing();
    }
    if params.meta(CLIENT).is_some_and(|client| !client.is_object()) {
        return Err(Fault::new(400, INVALID_PARAMS, format!("Invalid params: params._meta: {CLIENT} must be an object")));
    }
    if field(headers, VERSION_FIELD, "Header mismatch: MCP-Protocol-Version is missing")? != version {
        return mismatch("Header mismatch: MCP-Protocol-Version is not the version of params._meta");
    }
    if field(headers, METHOD_FIELD, "Header mismatch: Mcp-Method is missing")? != method {
        return mismatch("Header mismatch: Mcp-Method is not the method of the body");
    }
    let named = match method {
        "tools/call" | "prompts/get" => params.get("name"),
        "resources/read" => params.get("uri"),
        _ => None,
    };
    if let Some(name) = named.and_then(Value::as_str) {
        let sent = decoded(field(headers, NAME_FIELD, "Header mismatch: Mcp-Name is missing")?);
        if sent.as_deref() != Some(name) {
            return mismatch("Header mismatch: Mcp-Name is not the name in the body");
        }
    }
    if version != MODERN {
        let data = json!({ "supported": [MODERN], "requested": version });
        return Err(Fault { data: Some(data), ..Fault::new(400, UNSUPPORTED_VERSION, "Unsupported protocol version") });
    }
    match params.meta(LEVEL) {
        Some(level) if !level.as_str().is_some_and(|level| LEVELS.contains(&level)) => {
            Err(Fault::new(400, INVALID_PARAMS, format!("Invalid params: params._meta: {LEVEL} is no log level")))
        }
        _ => Ok(()),
    }
}

/// Checks the header fields that a modern notification carries; none is required of it.
pub fn check_notification(headers: &Headers, method: &str, params: &Params) -> Result<(), Fault> {
    let version = params.meta(VERSION).and_then(Value::as_str).unwrap_or(MODERN);
    for (name, wanted) in [(VERSION_FIELD, version), (METHOD_FIELD, method)] {
        if headers.all(name).any(|value| value != wanted) {
            return mismatch("Header mismatch: a header field is not what the body says");
        }
    }
    if version != MODERN {
        let data = json!({ "supported": [MODERN], "requested": version });
        return Err(Fault { data: Some(data), ..Fault::new(400, UNSUPPORTED_VERSION, "Unsupported protocol version") });
    }
    Ok(())
}

/// Checks the version that a legacy message names after `initialize`; one that names none means its session's.
pub fn check_legacy(headers: &Headers) -> Result<(), Fault> {
    let mut values = headers.all(VERSION_FIELD);
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(version), None) if LEGACY.contains(&version) => Ok(()),
        _ => Err(Fault::new(
            400,
            TRANSPORT,
            format!("Bad Request: Unsupported protocol version (supported versions: {})", LEGACY.join(", ")),
        )),
    }
}

/// The version that an `initialize` which asks for `asked` is answered with.
pub fn negotiated(asked: &str) -> &'static str {
    LEGACY.into_iter().find(|version| *version == asked).unwrap_or(LEGACY[0])
}

/// The value that a header field carries, `=?base64?…?=` undone; `None` if that is malformed.
fn decoded(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        None => Some(value.to_owned()),
        // The engine accepts the canonical form alone.
        Some(base64) => String::from_utf8(STANDARD.decode(base64).ok()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;

    fn params(value: Value) -> Params {
        match Message::read(json!({ "jsonrpc": "2.0", "method": "x", "params": value })) {
            Ok(Message::Notification { params, .. }) => params,
            _ => panic!("a notification"),
        }
    }

    fn meta() -> Value {
        json!({ VERSION: MODERN, CAPABILITIES: {} })
    }

    fn checked(fields: &[(&str, &str)], method: &str, value: Value) -> i32 {
        check_request(&Headers::of(fields), method, &params(value)).map_or_else(|fault| fault.code, |()| 0)
    }

    #[test]
    fn a_modern_request_says_the_same_twice() {
        let list = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/list")];
        assert_eq!(checked(&list, "tools/list", json!({ "_meta": meta() })), 0);
        assert_eq!(checked(&[("mcp-protocol-version", MODERN), ("MCP-METHOD", "tools/list")], "tools/list", json!({ "_meta": meta() })), 0);
        for bad in [
            &[][..],
            &list[..1],
            &list[1..],
            &[list[0], ("Mcp-Method", "TOOLS/LIST")],
            &[list[0], ("Mcp-Method", "tools/call")],
            &[("MCP-Protocol-Version", "2025-11-25"), list[1]],
            &[list[0], list[0], list[1]],
            &[list[0], list[1], list[1]],
        ] {
            assert_eq!(checked(bad, "tools/list", json!({ "_meta": meta() })), HEADER_MISMATCH, "{bad:?}");
        }
        let call = |name: &'static str| [list[0], ("Mcp-Method", "tools/call"), ("Mcp-Name", name)];
        let named = |name: &str| json!({ "_meta": meta(), "name": name });
        assert_eq!(checked(&call("read_thread"), "tools/call", named("read_thread")), 0);
        assert_eq!(checked(&call("=?base64?cmVhZF90aHJlYWQ=?="), "tools/call", named("read_thread")), 0);
        assert_eq!(checked(&call("=?base64?SGVsbG8sIOS4lueVjA==?="), "tools/call", named("Hello, 世界")), 0);
        for (sent, name) in [
            ("read_thread", "delete_memory"),
            ("=?base64?cmVhZF90aHJlYWQ?=", "read_thread"),
            ("=?base64?!!?=", "=?base64?!!?="),
            ("=?BASE64?cmVhZF90aHJlYWQ=?=", "read_thread"),
        ] {
            assert_eq!(checked(&call(sent), "tools/call", named(name)), HEADER_MISMATCH, "{sent}");
        }
        assert_eq!(checked(&[list[0], ("Mcp-Method", "tools/call")], "tools/call", named("read_thread")), HEADER_MISMATCH);
    }

    #[test]
    fn a_modern_request_carries_its_version_and_capabilities() {
        let list = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", "tools/list")];
        for bad in [
            json!({}),
            json!({ "_meta": null }),
            json!({ "_meta": { VERSION: MODERN } }),
            json!({ "_meta": { CAPABILITIES: {} } }),
            json!({ "_meta": { VERSION: 1, CAPABILITIES: {} } }),
            json!({ "_meta": { VERSION: MODERN, CAPABILITIES: [] } }),
            json!({ "_meta": { VERSION: MODERN, CAPABILITIES: {}, CLIENT: "x" } }),
            json!({ "_meta": { VERSION: MODERN, CAPABILITIES: {}, LEVEL: "loud" } }),
        ] {
            assert_eq!(checked(&list, "tools/list", bad.clone()), INVALID_PARAMS, "{bad}");
        }
        assert_eq!(checked(&list, "tools/list", json!({ "_meta": { VERSION: MODERN, CAPABILITIES: {}, LEVEL: "error" } })), 0);
        let other = [("MCP-Protocol-Version", "1900-01-01"), list[1]];
        let refused =
            check_request(&Headers::of(&other), "tools/list", &params(json!({ "_meta": { VERSION: "1900-01-01", CAPABILITIES: {} } })));
        let fault = refused.unwrap_err();
        assert_eq!((fault.status, fault.code), (400, UNSUPPORTED_VERSION));
        assert_eq!(fault.data, Some(json!({ "supported": [MODERN], "requested": "1900-01-01" })));
    }

    #[test]
    fn the_era_is_that_of_the_body_or_of_the_header_field() {
        let modern = |fields: &[(&str, &str)], value| is_modern(&Headers::of(fields), Some(&params(value)));
        assert!(modern(&[], json!({ "_meta": { VERSION: "v999" } })));
        assert!(modern(&[("mcp-protocol-version", MODERN)], json!({})));
        assert!(!modern(&[("mcp-protocol-version", "2025-11-25")], json!({ "_meta": { "progressToken": 1 } })));
        assert!(!modern(&[], json!({})));
        assert!(check_legacy(&Headers::of(&[])).is_ok());
        assert!(check_legacy(&Headers::of(&[("mcp-protocol-version", "2024-10-07")])).is_ok());
        for bad in ["2026-01-01", "", "2025-11-25 "] {
            assert!(check_legacy(&Headers::of(&[("mcp-protocol-version", bad)])).is_err(), "{bad}");
        }
        assert_eq!((negotiated("2024-11-05"), negotiated(MODERN), negotiated("")), ("2024-11-05", "2025-11-25", "2025-11-25"));
    }

    #[test]
    fn a_notification_may_say_nothing_but_nothing_else() {
        let check =
            |fields: &[(&str, &str)], value| check_notification(&Headers::of(fields), "n", &params(value)).map_or_else(|f| f.code, |()| 0);
        assert_eq!(check(&[("mcp-protocol-version", MODERN)], json!({})), 0);
        assert_eq!(check(&[("mcp-protocol-version", MODERN), ("mcp-method", "n")], json!({ "_meta": meta() })), 0);
        assert_eq!(check(&[("mcp-protocol-version", MODERN), ("mcp-method", "m")], json!({})), HEADER_MISMATCH);
        assert_eq!(check(&[("mcp-protocol-version", MODERN)], json!({ "_meta": { VERSION: "v9" } })), HEADER_MISMATCH);
        assert_eq!(check(&[], json!({ "_meta": { VERSION: "v9" } })), UNSUPPORTED_VERSION);
    }
}
