//! The whole product behind its framing: requests to a live store, one after another.
//!
//! An input is requests joined by 0x1e: a letter for the credential (`o` owner, `a` and `b` agents of two vendors, else none), a letter for
//! the content type (`f` form, `n` none, `m` JSON with the header fields of a modern MCP request, `s` JSON with the newest MCP session, else JSON),
//! the request line without version, a line end, the body. `{id}` stands for the newest
//! memory, `{key}` for the newest key. The store lives as long as the process, so a finding may need its forerunners.
//!
//! No request panics or fails the service (500); nothing but the public routes answers without a credential; data comes with the index of
//! its audit entry; what is JSON parses; a memory for one vendor is never in an answer to another.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use rosemary::api::run::{Api, Settings};
use rosemary::authn::Vendor;
use rosemary::base::id::InstanceId;
use rosemary::base::time::Clock;
use rosemary::crypto::secret::{Key, Secret};
use rosemary::crypto::unlock::{KdfCost, Kek};
use rosemary::engine::{Engine, Options};
use rosemary::http::parse::{self, Progress};
use rosemary::http::{Handler, Reply, Request};
use rosemary::store::tables::TABLES;
use rosemary::store::{Store, vault};
use serde_json::{Value, json};

/// Request lines, and values that routes treat apart; bodies have the words of `json`.
pub const WORDS: &[&str] = &[
    "\u{1e}oj",
    "\u{1e}aj",
    "\u{1e}bj",
    "\u{1e}of",
    "\u{1e}an",
    "GET ",
    "PUT ",
    "POST ",
    "DELETE ",
    "/memories",
    "/memories/{id}",
    "/restore\n",
    "/permanent\n",
    "/versions\n",
    "/children\n",
    "/thread\n",
    "/memories/trash\n",
    "/memories/list\n",
    "/agent/memories",
    "/agent/memories/{id}",
    "/latest",
    "/browse\n",
    "/by-tag\n",
    "/search\n",
    "/list\n",
    "/api/v1/memories/search\n",
    "/api/v1/operations/",
    "/api/keys",
    "/api/keys/{key}\n",
    "/mcp\n",
    "\u{1e}bmPOST /mcp\n",
    "\u{1e}bsPOST /mcp\n",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"",
    "\"arguments\":{",
    "/whoami\n",
    "/users/me\n",
    "/health\n",
    "/openapi.json\n",
    "?limit=",
    "?offset=1",
    "{id}",
    "{key}",
    "%2e%2e",
    "%00",
    "//",
    "\"allowed_vendors\":[\"beta\"]",
    "\"title\":\"a\"",
    "\"content\":\"chest pain\"",
    "\"tags\":[\"x\"]",
    "\"term\":\"\"",
    "\"query\":\"pain\"",
    "\"explain\":true",
    "\"subject\":\"p\"",
    "\"limit\":1",
    "\"filter\":{\"by\":\"all\"}",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    ":",
    "\u{301}",
    "\u{1f9e0}",
    "\u{fb01}",
    "\u{130}",
    "\u{202e}",
    "\\u0000",
];

const KEYS: [(&str, Option<&str>, &str); 3] =
    [("o", None, "owner-key-0123456789"), ("a", Some("alpha"), "alpha-key-0123456789"), ("b", Some("beta"), "beta-key-01234567890")];

struct Live {
    api: Arc<Api>,
    _store: Store,
    /// What only vendor alpha may read.
    canary: String,
    newest: Mutex<[String; 2]>,
    session: Mutex<String>,
}

static LIVE: LazyLock<Live> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let folder =
        if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }.join(format!("rosemary-fuzz-api-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a writable temporary folder");
    let kek = Kek::write_key_file(&folder.join("kek"), InstanceId::draw()).expect("a writable folder");
    let options = Options { cache_bytes: 16 << 20, stride: 4608, tables: TABLES, kdf: KdfCost::DEFAULT };
    let engine = Engine::create(&folder.join("data"), &options, &kek).expect("a new file");
    vault::initialise(&engine, "fuzz", "owner@example.org", &Clock::system()).expect("an empty file");
    let key =
        |(name, vendor, key): (&str, Option<&str>, &str)| (name.to_owned(), vendor.and_then(Vendor::parse), Secret::new(key.to_owned()));
    let settings = vault::Settings {
        label: "fuzz".into(),
        owner_email: "owner@example.org".into(),
        static_keys: KEYS.into_iter().map(key).collect(),
        sign_in: Default::default(),
        index_bytes: 64 << 20,
        memories_max: None,
        anchor: None,
        model: None,
        clock: Clock::system(),
        fatal: Box::new(|| std::process::abort()),
    };
    let store = Store::open(engine, settings).expect("what was made opens");
    // Open files live on without a name; nothing is left behind.
    let _ = std::fs::remove_dir_all(&folder);
    let limits = Settings {
        address_per_minute: 0,
        credential_per_minute: 0,
        admin_per_minute: 0,
        public_url: "https://localhost".into(),
        surroundings: Arc::default(),
        model: None,
    };
    let api = Arc::new(Api::new(store.vault().clone(), &limits));
    let canary: String = Key::random().expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let live = Live { api, _store: store, canary, newest: Mutex::default(), session: Mutex::default() };
    let body = json!({ "title": live.canary, "content": live.canary, "tags": ["x"], "allowed_vendors": ["alpha"] });
    let (reply, _) = ask(&live, b'o', b'j', "POST /memories", body.to_string().as_bytes()).expect("a request");
    assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    live
});

/// The answer to one request, and its path; `None` if the framing refuses it.
fn ask(live: &Live, who: u8, kind: u8, line: &str, body: &[u8]) -> Option<(Reply, String)> {
    let key = KEYS
        .iter()
        .find(|(name, ..)| name.as_bytes() == [who])
        .map_or(String::new(), |(.., key)| format!("Authorization: Bearer {key}\r\n"));
    let mcp = match kind {
        b'm' => modern(body),
        b's' => format!("Mcp-Session-Id: {}\r\n", live.session.lock().expect("no panic under this lock")),
        _ => String::new(),
    };
    let kind = match kind {
        b'f' => "Content-Type: application/x-www-form-urlencoded\r\n",
        b'n' => "",
        _ => "Content-Type: application/json\r\n",
    };
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json, text/event-stream\r\n{key}{kind}{mcp}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let Progress::Head(head, _) = parse::fuzz_entry(head.as_bytes()) else { return None };
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let path = head.path.clone();
    let request = Request {
        method: head.method,
        path: head.path,
        query: head.query,
        authority: head.authority,
        headers: head.headers,
        body: body.to_vec(),
        client,
        client_certificate: false,
    };
    Some((live.api.handle(request).settled(), path))
}

/// The header fields that say what a modern MCP request says.
fn modern(body: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let (method, name) = (message["method"].as_str().unwrap_or_default(), message["params"]["name"].as_str().unwrap_or_default());
    let plain = |text: &str| text.chars().filter(char::is_ascii_graphic).collect::<String>();
    format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {}\r\nMcp-Name: {}\r\n", plain(method), plain(name))
}

/// The target.
pub fn run(bytes: &[u8]) {
    answer(bytes);
}

/// Asks what `bytes` ask; the statuses of the answers.
fn answer(bytes: &[u8]) -> Vec<u16> {
    let (live, mut statuses) = (&*LIVE, Vec::new());
    for request in bytes.split(|byte| *byte == 0x1e).take(8) {
        let [who, kind, rest @ ..] = request else { continue };
        let [id, key] = live.newest.lock().expect("no panic under this lock").clone();
        let text = String::from_utf8_lossy(rest).replace("{id}", &id).replace("{key}", &key);
        let (line, body) = text.split_once('\n').unwrap_or((&text, ""));
        let Some((reply, path)) = ask(live, *who, *kind, line, body.as_bytes()) else { continue };
        let answer = String::from_utf8_lossy(&reply.body);
        assert!(reply.status != 500, "{line}: {answer}");
        let known = KEYS.iter().any(|(name, ..)| name.as_bytes() == [*who]);
        // OAuth's own routes do their own authentication.
        let oauth = ["/.well-known/oauth-", "/register", "/authorize", "/oauth/consent", "/token", "/revoke"]
            .iter()
            .any(|own| path.starts_with(own));
        let public = oauth || ["/health", "/openapi.json"].contains(&path.as_str());
        if reply.status < 300 && !public {
            assert!(known, "{line} without a credential: {}", reply.status);
            assert!(reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-audit-index")), "{line}: data without its entry");
        }
        assert!(*who == b'a' || *who == b'o' || !answer.contains(&live.canary), "{line}: alpha's memory in an answer to another");
        let value = match reply.content_type.contains("json") && !reply.body.is_empty() {
            true => serde_json::from_slice::<Value>(&reply.body).expect("what is called JSON is JSON"),
            false => Value::Null,
        };
        if let Some((_, id)) = reply.headers.iter().find(|(name, _)| *name == "mcp-session-id") {
            live.session.lock().expect("no panic under this lock").clone_from(id);
        }
        if let Some(id) = value["result"]["structuredContent"]["id"].as_str() {
            live.newest.lock().expect("no panic under this lock")[0] = id.to_owned();
        }
        if let Some(id) = value["id"].as_str().or_else(|| value["memory"]["id"].as_str()) {
            let at = usize::from(path == "/api/keys");
            live.newest.lock().expect("no panic under this lock")[at] = id.to_owned();
        }
        statuses.push(reply.status);
    }
    statuses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_what_clients_send() {
        for seed in crate::files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/api"))) {
            let statuses = answer(&seed);
            let expected = if seed.starts_with(b"-") { 401 } else { 204 };
            assert!(statuses.iter().all(|status| *status <= expected), "{statuses:?}: {}", String::from_utf8_lossy(&seed));
        }
    }
}
