//! MCP: JSON-RPC messages, and the header fields that must say what they say.
//!
//! An input is header fields, an empty line, a body. What is read as a request gives its id back, as it came; what is refused has an error that is
//! JSON with a code of the protocol, and holds nothing of the body but its id. A request that passes as modern says its version and its method once
//! in its header fields, and nothing else.

use rosemary::api::body::json;
use rosemary::api::mcp::era::{self, MODERN};
use rosemary::api::mcp::message::{self, Fault, Message};
use rosemary::http::parse::{self, Progress};
use serde_json::{Value, json};

/// Keys, methods and header fields that MCP knows.
pub const WORDS: &[&str] = &[
    "\n\n",
    "MCP-Protocol-Version: 2026-07-28\n",
    "MCP-Protocol-Version: 2025-11-25\n",
    "Mcp-Method: tools/call\n",
    "Mcp-Name: read_thread\n",
    "Mcp-Name: =?base64?cmVhZF90aHJlYWQ=?=\n",
    "{\"jsonrpc\":\"2.0\",",
    "\"id\":1,",
    "\"id\":null,",
    "\"id\":\"x\",",
    "\"id\":1.5,",
    "\"method\":\"tools/call\"",
    "\"method\":\"initialize\"",
    "\"params\":{",
    "\"_meta\":{",
    "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"",
    "\"io.modelcontextprotocol/clientCapabilities\":{}",
    "\"io.modelcontextprotocol/clientInfo\":{}",
    "\"io.modelcontextprotocol/logLevel\":\"error\"",
    "\"name\":\"read_thread\"",
    "\"arguments\":{}",
    "\"result\":{}",
    "\"error\":{}",
    "[",
    "]",
    "{",
    "}",
    ",",
];

/// The target.
pub fn run(bytes: &[u8]) {
    let split = bytes.windows(2).position(|pair| pair == b"\n\n");
    let (fields, body) = split.map_or((&[][..], bytes), |at| (&bytes[..at], &bytes[at + 2..]));
    let fields = String::from_utf8_lossy(fields).replace('\n', "\r\n");
    let head = format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{fields}\r\n\r\n");
    let Progress::Head(head, _) = parse::fuzz_entry(head.as_bytes()) else { return };
    let ids: Vec<Value> = match json(body) {
        Ok(Value::Array(items)) => items,
        Ok(value) => vec![value],
        Err(_) => Vec::new(),
    }
    .into_iter()
    .map(|message| message["id"].clone())
    .collect();
    let messages = message::fuzz_entry(body);
    assert_eq!(messages.len(), ids.len());
    for (read, sent) in messages.into_iter().zip(ids) {
        match read {
            Err((id, fault)) => refused(&fault, id.as_ref(), &sent),
            Ok(Message::Request { id, method, params }) => {
                assert_eq!(id, sent);
                let answer: Value = serde_json::from_slice(&message::result(&id, &[("a", b"1")])).expect("an answer is JSON");
                assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": id, "result": { "a": 1 } }));
                match era::check_request(&head.headers, &method, &params) {
                    Err(fault) => refused(&fault, Some(&id), &sent),
                    Ok(()) => {
                        let all = |name| head.headers.all(name).collect::<Vec<_>>();
                        assert_eq!((all("mcp-protocol-version"), all("mcp-method")), (vec![MODERN], vec![method.as_str()]));
                        assert!(era::is_modern(&head.headers, Some(&params)));
                    }
                }
            }
            Ok(Message::Notification { method, params }) => drop(era::check_notification(&head.headers, &method, &params)),
            Ok(Message::Response) => {}
        }
    }
}

fn refused(fault: &Fault, id: Option<&Value>, sent: &Value) {
    assert!((400..=503).contains(&fault.status) && (-32768..=-32000).contains(&fault.code));
    assert!(id.is_none_or(|id| id == sent));
    let error: Value = serde_json::from_slice(&fault.json(id, false)).expect("an error is JSON");
    assert_eq!((&error["id"], error["error"]["code"].as_i64()), (id.unwrap_or(&Value::Null), Some(fault.code.into())));
    assert!(serde_json::from_slice::<Value>(&fault.json(None, true)).is_ok_and(|error| error.get("id").is_none()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_what_clients_send() {
        for seed in crate::files(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/mcp"))) {
            run(&seed);
            let body = seed.windows(2).position(|pair| pair == b"\n\n").map_or(&seed[..], |at| &seed[at + 2..]);
            assert!(message::fuzz_entry(body).iter().all(Result::is_ok), "{}", String::from_utf8_lossy(&seed));
        }
    }
}
