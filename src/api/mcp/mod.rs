//! MCP at `/mcp`: another skin over the operations of REST, for AI tools. JSON-RPC over streamable HTTP, both eras on one endpoint.
//!
//! ```text
//! POST ─▶ bytes ─▶ message ─▶ era ─┬─ modern ─▶ header fields = body? ─┐
//!                                  └─ legacy ─▶ session ───────────────┴─▶ method ─▶ tool ─▶ operation ─▶ entry ─▶ answer
//! GET  ─▶ a stream of a legacy session        DELETE ─▶ the end of one
//! ```
//!
//! Invariants
//! - Whoever comes this way is an agent: an agent's credential as it is, a person's own key as the tool that its label names
//!   (`Vault::agent_of`). Nothing here reaches further than the agent routes of REST.
//! - Every message of an admitted request has an audit entry of its own, under the verb of the operation that it asks for.
//! - What is told is told as JSON: no answer to a POST is a stream, and a legacy session's stream says nothing but that it is there.
//! - A tool that fails, or is called wrongly, answers with a result that says so (the contract); only what is no call at all is an error.
//!
//! `message` reads and writes JSON-RPC, `era` checks versions and header fields, `session` holds legacy sessions, `tools` is the table of tools,
//! `inputs` their arguments, `calls` what they do. Decision 0005 says why it is hand-written and what of the protocol is left out.
//!
//! Source: MCP 2025-11-25 and 2026-07-28; REFLECT_API section 6.

mod calls;
pub mod era;
mod inputs;
pub mod message;
mod session;
mod tools;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use self::era::{BATCHES, LEVELS};
use self::message::{Fault, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Message, PARSE_ERROR, Params, TRANSPORT};
use self::session::Sessions;
use crate::api::answers::{Members, Shape, answer, constant, object, reference, text};
use crate::api::reply::{Answered, Failure, Words};
use crate::api::run::Cx;
use crate::api::schema::{Fields, Part, wipe};
use crate::api::stream::{Feed, Said};
use crate::api::{body, briefing};
use crate::audit::Reason;
use crate::authn::Principal;
use crate::base::id::{McpSessionId, OperationId};
use crate::base::limits;
use crate::base::time::Clock;
use crate::http::{Headers, Method, Reply};
use crate::identity;
use crate::memories::Refusal;
use crate::memories::briefing::brief;
use crate::policy::action::{
    Action, DiscoverMcp, EndMcp, ListTools, ListenMcp, NotifyMcp, OpenMcp, Person, PingMcp, Reads, Scope, SetMcpLevel,
};
use crate::store::gate::Call;
use crate::store::tx::Held;

/// Where it is.
pub const PATH: &str = "/mcp";
/// How it names itself, which existing clients know.
const NAME: &str = "reflect-memory";
const VERSION: &str = "1.0.0";
/// The header field of a legacy session.
const SESSION_FIELD: &str = "mcp-session-id";
/// What is said in place of a briefing that cannot be had now.
const NO_BRIEFING: &str = "The briefing is not ready yet: call get_memory_briefing in a moment. search_memories finds what is known, write_memory keeps what is learned.";

/// What MCP needs of the API as long as it runs.
pub struct Mcp {
    sessions: Arc<Sessions>,
    tools: Vec<u8>,
    /// Where a client learns how to get a credential (RFC 9728).
    metadata: String,
}

impl Mcp {
    /// `public_url`: where clients reach the service.
    pub fn new(public_url: &str) -> Self {
        let metadata = format!("{}/.well-known/oauth-protected-resource{PATH}", public_url.trim_end_matches('/'));
        Self { sessions: Arc::default(), tools: tools::list().to_string().into_bytes(), metadata }
    }

    /// The answer to whoever is not known here: the contract's 401.
    pub fn unauthenticated(&self, why: &str) -> Reply {
        let challenge = format!(r#"Bearer error="invalid_token", error_description="{why}", resource_metadata="{}""#, self.metadata);
        Reply::json(401, &json!({ "error": "invalid_token", "error_description": why })).header("www-authenticate", challenge)
    }
}

fn server() -> Value {
    json!({ "name": NAME, "title": "Rosemary", "version": VERSION })
}

// --- what is said, and how it is answered ---

/// How a message is to be answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

/// The answer to one message.
struct Answer {
    status: u16,
    /// None for what is not answered.
    body: Option<Zeroizing<Vec<u8>>>,
    index: Option<u64>,
    held: Option<Held>,
    session: Option<McpSessionId>,
    /// The credential does not stand any more: the whole request ends with this.
    revoked: bool,
    retry: bool,
}

impl Answer {
    fn of(status: u16, body: Option<Vec<u8>>, index: Option<u64>) -> Self {
        Self { status, body: body.map(Zeroizing::new), index, held: None, session: None, revoked: status == 401, retry: status == 503 }
    }

    fn fault(fault: &Fault, id: Option<&Value>, era: Era, index: Option<u64>) -> Self {
        Self::of(fault.status, Some(fault.json(id, era == Era::Modern)), index)
    }

    /// The message is taken, and that is all.
    fn taken(index: u64) -> Self {
        Self::of(202, None, Some(index))
    }

    fn reply(mut self, cx: &Cx<'_>) -> Reply {
        if self.revoked {
            return cx.api.mcp.unauthenticated("Invalid API key");
        }
        let body = self.body.take().map(|mut body| std::mem::take(&mut *body));
        let mut reply =
            body.map_or_else(|| Reply::empty(self.status), |body| Reply::bytes(self.status, "application/json", body)).holding(self.held);
        if let Some(index) = self.index {
            reply = reply.header("x-audit-index", index.to_string());
        }
        if self.retry {
            reply = reply.header("retry-after", "1");
        }
        match self.session {
            Some(id) => reply.header(SESSION_FIELD, id.to_string()),
            None => reply,
        }
    }
}

/// A message on its way: as the request that brought it, with an operation and an entry of its own.
fn within<'c>(cx: &'c Cx<'_>, verb: &'static str, fields: Fields, id: &'c str, ok_status: u16) -> Cx<'c> {
    let call = Call { operation: OperationId::draw(), ok_status, ..cx.call.clone() };
    Cx { api: cx.api, who: cx.who, call, id, fields, verb, request: cx.request, shape: cx.shape }
}

/// Records a refusal and answers with it.
fn refused(cx: &Cx<'_>, verb: &'static str, reason: Reason, fault: &Fault, id: Option<&Value>, era: Era) -> Answer {
    let failure = within(cx, verb, Fields::default(), "", fault.status).refuse(reason, audited(fault), fault.text.clone());
    if failure.index.is_none() {
        return failed(&failure, id, era);
    }
    Answer::fault(fault, id, era, failure.index)
}

/// The status that the log has for a fault: an error that goes out under 200 is one all the same.
fn audited(fault: &Fault) -> u16 {
    match fault.status {
        200 if fault.code == METHOD_NOT_FOUND => 404,
        200 => 400,
        status => status,
    }
}

/// An operation that came to nothing, where its answer is not a tool's.
fn failed(failure: &Failure, id: Option<&Value>, era: Era) -> Answer {
    let fault = Fault::new(failure.status, INTERNAL_ERROR, failure.text.clone());
    Answer::fault(&fault, id, era, failure.index)
}

/// A result; the keys that the modern era adds are added here.
fn result(era: Era, id: &Value, parts: &[(&str, &[u8])]) -> Vec<u8> {
    let meta = json!({ era::SERVER: server() }).to_string();
    let mut all = parts.to_vec();
    if era == Era::Modern {
        all.push(("resultType", br#""complete""#));
        all.push(("_meta", meta.as_bytes()));
    }
    message::result(id, &all)
}

/// What tells a modern client for how long a result is good, and for whom.
fn caching(fresh: Duration, scope: &'static [u8]) -> (String, &'static [u8]) {
    (fresh.as_millis().to_string(), scope)
}

// --- POST ---

/// Whether an `Accept` header names this media type itself.
fn accepts(headers: &Headers, wanted: &str) -> bool {
    headers.all("accept").flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';');
        let named = parts.next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted);
        named && !parts.any(|part| matches!(part.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// `POST /mcp`
pub fn post(cx: &mut Cx<'_>) -> Answered {
    let cx = &*cx;
    let headers = &cx.request.headers;
    let era = if era::is_modern_field(headers) { Era::Modern } else { Era::Legacy };
    let refuse =
        |status, code, text: &'static str| Ok(refused(cx, cx.verb, Reason::Schema, &Fault::new(status, code, text), None, era).reply(cx));
    if !(accepts(headers, "application/json") && accepts(headers, "text/event-stream")) {
        return refuse(406, TRANSPORT, "Not Acceptable: Client must accept both application/json and text/event-stream");
    }
    let kind = headers.get("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return refuse(415, TRANSPORT, "Unsupported Media Type: Content-Type must be application/json");
    }
    match body::json(&cx.request.body) {
        Err(_) => refuse(
            400,
            PARSE_ERROR,
            "Parse error: one JSON text, without repeated keys or integers beyond 64 bits and not nested too deeply, is expected",
        ),
        Ok(Value::Array(items)) => Ok(batch(cx, items)),
        Ok(value) => Ok(single(cx, value).reply(cx)),
    }
}

fn single(cx: &Cx<'_>, value: Value) -> Answer {
    let headers = &cx.request.headers;
    let message = match Message::read(value) {
        Ok(message) => message,
        Err((id, fault)) => {
            let era = if era::is_modern_field(headers) { Era::Modern } else { Era::Legacy };
            return refused(cx, cx.verb, Reason::Schema, &fault, id.as_ref(), era);
        }
    };
    if era::is_modern(headers, message.params()) {
        return modern(cx, message);
    }
    if let Message::Request { id, method, params } = &message
        && method == "initialize"
    {
        return initialize(cx, id, params);
    }
    match session(cx) {
        Ok((_, _)) => legacy(cx, message),
        Err((reason, fault)) => {
            let id = if let Message::Request { id, .. } = &message { Some(id) } else { None };
            refused(cx, cx.verb, reason, &fault, id, Era::Legacy)
        }
    }
}

fn modern(cx: &Cx<'_>, message: Message) -> Answer {
    let headers = &cx.request.headers;
    match message {
        Message::Request { id, method, params } => match era::check_request(headers, &method, &params) {
            Err(fault) => refused(cx, cx.verb, Reason::Schema, &fault, Some(&id), Era::Modern),
            Ok(()) => request(cx, &id, &method, params, Era::Modern),
        },
        Message::Notification { method, params } => match era::check_notification(headers, &method, &params) {
            Err(fault) => refused(cx, cx.verb, Reason::Schema, &fault, None, Era::Modern),
            Ok(()) => taken(cx),
        },
        Message::Response => {
            let fault = Fault::new(400, INVALID_REQUEST, "Invalid Request: a client sends requests and notifications");
            refused(cx, cx.verb, Reason::Schema, &fault, None, Era::Modern)
        }
    }
}

fn legacy(cx: &Cx<'_>, message: Message) -> Answer {
    match message {
        Message::Request { id, method, params } => request(cx, &id, &method, params, Era::Legacy),
        Message::Notification { .. } | Message::Response => taken(cx),
    }
}

/// What is only said is recorded, and has no effect: nothing here can be cancelled, and no roots are asked for.
fn taken(cx: &Cx<'_>) -> Answer {
    match person::<NotifyMcp>(cx, 202) {
        Ok(index) => Answer::taken(index),
        Err(failure) => failed(&failure, None, Era::Legacy),
    }
}

/// Records an operation that needs no data.
fn person<A: Reads + Action<Target = Person>>(cx: &Cx<'_>, ok_status: u16) -> Result<u64, Failure> {
    let cx = within(cx, A::NAME, Fields::default(), "", ok_status);
    let done = cx.look::<A, _, _>(cx.person(), &Words::MEMORY, |_| Ok::<_, identity::Refusal>(()))?;
    Ok(done.into_parts().1.index())
}

/// The legacy session that the request names, and its version.
fn session(cx: &Cx<'_>) -> Result<(McpSessionId, &'static str), (Reason, Fault)> {
    let mut named = cx.request.headers.all(SESSION_FIELD);
    let id = match (named.next(), named.next()) {
        (Some(id), None) => id,
        (Some(_), Some(_)) => return Err((Reason::Schema, Fault::new(400, TRANSPORT, "Bad Request: Mcp-Session-Id stands there twice"))),
        (None, _) => {
            return Err((
                Reason::Schema,
                Fault::new(400, TRANSPORT, "Bad Request: Mcp-Session-Id header is required; begin with initialize"),
            ));
        }
    };
    era::check_legacy(&cx.request.headers).map_err(|fault| (Reason::Schema, fault))?;
    let found = McpSessionId::parse(id).and_then(|id| Some((id, cx.api.mcp.sessions.version(cx.who, id, cx.api.now_ms())?)));
    found.ok_or_else(|| (Reason::NotFound, Fault::new(404, TRANSPORT, "Session not found; begin again with initialize")))
}

/// Several messages at once, which 2025-03-26 and earlier versions know. Each is a request to every limit.
fn batch(cx: &Cx<'_>, items: Vec<Value>) -> Reply {
    let refuse = |items: Vec<Value>, reason, fault: &Fault| {
        wipe(&mut Value::Array(items));
        refused(cx, cx.verb, reason, fault, None, Era::Legacy).reply(cx)
    };
    let invalid = |text: &'static str| Fault::new(400, INVALID_REQUEST, text);
    if era::is_modern_field(&cx.request.headers) {
        return refuse(items, Reason::Schema, &invalid("Invalid Request: this protocol version knows no batches"));
    }
    let version = match session(cx) {
        Ok((_, version)) => version,
        Err((reason, fault)) => return refuse(items, reason, &fault),
    };
    if !BATCHES.contains(&version) {
        return refuse(items, Reason::Schema, &invalid("Invalid Request: this protocol version knows no batches"));
    }
    if items.is_empty() || items.len() > limits::MCP_BATCH_MAX {
        let text = format!("Invalid Request: a batch holds 1 to {} messages", limits::MCP_BATCH_MAX);
        return refuse(items, Reason::TooLarge, &Fault::new(400, INVALID_REQUEST, text));
    }
    if let Some(reply) = cx.api.further(cx.who, items.len() - 1, cx.shape) {
        wipe(&mut Value::Array(items));
        return reply;
    }
    let mut whole = Answer::of(200, Some(b"[".to_vec()), None);
    let mut held = Vec::new();
    for item in items {
        let taken_bytes = whole.body.as_ref().map_or(0, |body| body.len());
        let answer = one_of_batch(cx, item, taken_bytes);
        if answer.revoked {
            return answer.reply(cx);
        }
        (whole.index, whole.retry) = (answer.index.or(whole.index), whole.retry || answer.retry);
        held.extend(answer.held);
        if let (Some(body), Some(whole)) = (answer.body, &mut whole.body) {
            if whole.len() > 1 {
                whole.push(b',');
            }
            whole.extend_from_slice(&body);
        }
    }
    if whole.body.as_ref().is_none_or(|body| body.len() == 1) {
        (whole.status, whole.body) = (202, None);
    } else if let Some(body) = &mut whole.body {
        body.push(b']');
    }
    whole.retry = false;
    whole.reply(cx).holding(Some(held))
}

/// One message of a batch whose answers so far take so many bytes.
fn one_of_batch(cx: &Cx<'_>, item: Value, so_far: usize) -> Answer {
    let refuse = |fault: &Fault, id: Option<&Value>| refused(cx, cx.verb, Reason::Schema, fault, id, Era::Legacy);
    match Message::read(item) {
        Err((id, fault)) => refuse(&fault, id.as_ref()),
        Ok(Message::Request { id, method, params }) => {
            if method == "initialize" || era::is_modern(&cx.request.headers, Some(&params)) {
                return refuse(&Fault::new(400, INVALID_REQUEST, "Invalid Request: it must come alone"), Some(&id));
            }
            if so_far > limits::LARGE_ANSWER_BYTES {
                let fault = Fault::new(400, INVALID_REQUEST, "The answers of this batch are too large; ask for this one by itself");
                return refused(cx, cx.verb, Reason::TooLarge, &fault, Some(&id), Era::Legacy);
            }
            request(cx, &id, &method, params, Era::Legacy)
        }
        Ok(Message::Notification { .. } | Message::Response) => taken(cx),
    }
}

// --- methods ---

/// The answer to a request whose session or header fields are in order.
fn request(cx: &Cx<'_>, id: &Value, method: &str, mut params: Params, era: Era) -> Answer {
    let done = |index: Result<u64, Failure>, parts: &[(&str, &[u8])]| match index {
        Ok(index) => Answer::of(200, Some(result(era, id, parts)), Some(index)),
        Err(failure) => failed(&failure, Some(id), era),
    };
    let invalid = |text: &'static str| refused(cx, cx.verb, Reason::Schema, &Fault::new(200, INVALID_PARAMS, text), Some(id), era);
    match (method, era) {
        ("tools/call", _) => call(cx, id, &mut params, era),
        ("tools/list", _) => {
            if params.get("cursor").is_some_and(|cursor| !cursor.is_null()) {
                return invalid("Invalid params: there is one page of tools, and no cursor to it");
            }
            let (fresh, scope) = caching(limits::MCP_TOOLS_FRESH, br#""public""#);
            let parts: [(&str, &[u8]); 3] = [("tools", &cx.api.mcp.tools), ("ttlMs", fresh.as_bytes()), ("cacheScope", scope)];
            done(person::<ListTools>(cx, 200), if era == Era::Modern { &parts } else { &parts[..1] })
        }
        ("server/discover", Era::Modern) => match briefed::<DiscoverMcp>(cx) {
            Ok((instructions, index)) => {
                let (fresh, scope) = caching(limits::MCP_BRIEFING_FRESH, br#""private""#);
                let versions = json!([era::MODERN]).to_string();
                let parts: [(&str, &[u8]); 5] = [
                    ("supportedVersions", versions.as_bytes()),
                    ("capabilities", br#"{"tools":{}}"#),
                    ("instructions", &instructions),
                    ("ttlMs", fresh.as_bytes()),
                    ("cacheScope", scope),
                ];
                done(Ok(index), &parts)
            }
            Err(failure) => failed(&failure, Some(id), era),
        },
        ("ping", Era::Legacy) => done(person::<PingMcp>(cx, 200), &[]),
        ("logging/setLevel", Era::Legacy) => match params.get("level").and_then(Value::as_str) {
            // There is nothing that would be logged to a client.
            Some(level) if LEVELS.contains(&level) => done(person::<SetMcpLevel>(cx, 200), &[]),
            _ => invalid("Invalid params: level must be a log level"),
        },
        ("initialize", Era::Legacy) => refused(cx, cx.verb, Reason::Conflict, &INITIALIZED, Some(id), era),
        _ => {
            let status = if era == Era::Modern { 404 } else { 200 };
            refused(cx, cx.verb, Reason::UnknownRoute, &Fault::new(status, METHOD_NOT_FOUND, "Method not found"), Some(id), era)
        }
    }
}

const INITIALIZED: Fault = Fault {
    status: 400,
    code: INVALID_REQUEST,
    text: std::borrow::Cow::Borrowed("Invalid Request: Server already initialized"),
    data: None,
};

/// The briefing as a JSON string, and its entry.
fn briefed<A: Reads + Action<Target = Scope>>(cx: &Cx<'_>) -> Result<(Zeroizing<Vec<u8>>, u64), Failure> {
    let cx = within(cx, A::NAME, Fields::default(), "", 200);
    let done = cx.walk::<A, _, _>(cx.own(), &Words::MEMORY, |access| match brief(access, &calls::ASK) {
        Ok(found) => Ok(Some(found)),
        // A client that cannot be briefed now is let in all the same.
        Err(Refusal::NotReady | Refusal::IndexTooLarge | Refusal::Busy) => Ok(None),
        Err(other) => Err(other),
    })?;
    let (found, receipt) = done.into_parts();
    let text = found.map(|found| Zeroizing::new(briefing::markdown(&found, &receipt)));
    let json = serde_json::to_vec(text.as_ref().map_or(NO_BRIEFING, |text| text.as_str())).expect("a text is JSON");
    Ok((Zeroizing::new(json), receipt.index()))
}

/// `initialize`: opens a legacy session.
fn initialize(cx: &Cx<'_>, id: &Value, params: &Params) -> Answer {
    let refuse = |reason, fault: &Fault| refused(cx, OpenMcp::NAME, reason, fault, Some(id), Era::Legacy);
    if cx.request.headers.get(SESSION_FIELD).is_some() {
        return match session(cx) {
            Ok(_) => refuse(Reason::Conflict, &INITIALIZED),
            Err((reason, fault)) => refuse(reason, &fault),
        };
    }
    let client = params.get("clientInfo").and_then(Value::as_object);
    let named = client.is_some_and(|client| ["name", "version"].iter().all(|key| client.get(*key).is_some_and(Value::is_string)));
    let asked =
        params.get("protocolVersion").and_then(Value::as_str).filter(|_| named && params.get("capabilities").is_some_and(Value::is_object));
    let Some(asked) = asked else {
        let text =
            "Invalid params: initialize takes protocolVersion (a string), capabilities (an object) and clientInfo with name and version";
        return refuse(Reason::Schema, &Fault::new(400, INVALID_PARAMS, text));
    };
    let version = era::negotiated(asked);
    match briefed::<OpenMcp>(cx) {
        Err(failure) => failed(&failure, Some(id), Era::Legacy),
        Ok((instructions, index)) => {
            let opened = cx.api.mcp.sessions.open(cx.who, version, cx.api.now_ms());
            let (version, server) = (json!(version).to_string(), server().to_string());
            let parts: [(&str, &[u8]); 4] = [
                ("protocolVersion", version.as_bytes()),
                ("capabilities", br#"{"tools":{},"logging":{}}"#),
                ("serverInfo", server.as_bytes()),
                ("instructions", &instructions),
            ];
            Answer { session: Some(opened), ..Answer::of(200, Some(result(Era::Legacy, id, &parts)), Some(index)) }
        }
    }
}

/// `tools/call`
fn call(cx: &Cx<'_>, id: &Value, params: &mut Params, era: Era) -> Answer {
    let invalid = |text: &'static str| refused(cx, cx.verb, Reason::Schema, &Fault::new(200, INVALID_PARAMS, text), Some(id), era);
    let arguments = match params.take("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(mut other) => {
            wipe(&mut other);
            return invalid("Invalid params: arguments must be an object");
        }
    };
    // Whatever becomes of the call, its arguments are wiped.
    let mut arguments = Value::Object(arguments);
    let Some(name) = params.get("name").and_then(Value::as_str) else {
        wipe(&mut arguments);
        return invalid("Invalid params: name must be a string");
    };
    let Some(tool) = tools::find(name) else {
        wipe(&mut arguments);
        // Existing clients know it as a result; the modern era wants an error.
        if era == Era::Modern {
            return invalid("Unknown tool; see tools/list");
        }
        let failure =
            within(cx, cx.verb, Fields::default(), "", 200).refuse(Reason::Schema, 400, "MCP error -32602: Tool not found; see tools/list");
        return failing(&failure, id, era);
    };
    let Value::Object(arguments) = arguments else { return invalid("Invalid params: arguments must be an object") };
    let arguments = Fields::named(arguments, tool.arguments);
    let mut fields = match tool.arguments.check(Part::Arguments, Some(Value::Object(arguments)), false) {
        Ok(fields) => fields,
        Err(error) => {
            let text = format!("MCP error -32602: Input validation error: Invalid arguments for tool {}: {error}", tool.name);
            return failing(&within(cx, tool.verb, Fields::default(), "", 200).refuse(Reason::Schema, 400, text), id, era);
        }
    };
    let memory = ["id", "memory_id", "parent_memory_id"].iter().find_map(|name| fields.text(name)).unwrap_or_default();
    let mut inner = within(cx, tool.verb, fields, &memory, 200);
    match (tool.run)(&mut inner) {
        Err(failure) => failing(&failure, id, era),
        Ok(told) => {
            let content = message::text_content(&told.text);
            let body = result(era, id, &[("content", &content), ("structuredContent", &told.structured)]);
            Answer { held: told.held, ..Answer::of(200, Some(body), Some(told.index)) }
        }
    }
}

/// A tool that failed: a result that says so.
fn failing(failure: &Failure, id: &Value, era: Era) -> Answer {
    if failure.status == 401 {
        return failed(failure, Some(id), era);
    }
    let text = match (failure.code, failure.unknown) {
        (Some(code), _) => format!("{} ({code})", failure.text),
        (None, Some(operation)) => format!("{} {operation}", failure.text),
        (None, None) => failure.text.to_string(),
    };
    let content = message::text_content(&text);
    Answer::of(200, Some(result(era, id, &[("content", &content), ("isError", b"true")])), failure.index)
}

// --- GET and DELETE: legacy sessions ---

/// The refusal of a GET or DELETE that is not of the legacy era.
fn modern_method(cx: &Cx<'_>) -> Option<Reply> {
    era::is_modern_field(&cx.request.headers).then(|| {
        let fault = Fault::new(405, TRANSPORT, "Method not allowed: this protocol version knows POST alone");
        refused(cx, cx.verb, Reason::Method, &fault, None, Era::Modern).reply(cx).header("allow", "POST")
    })
}

/// `GET /mcp`: a stream of a legacy session. There is nothing that would be said unasked, so it only says that it is there.
pub fn listen(cx: &mut Cx<'_>) -> Answered {
    let cx = &*cx;
    if let Some(reply) = modern_method(cx) {
        return Ok(reply);
    }
    let refuse = |reason, fault: &Fault| Ok(refused(cx, cx.verb, reason, fault, None, Era::Legacy).reply(cx));
    if cx.request.method == Method::Head {
        // A stream that nobody will read would end the one that is read.
        return Ok(refuse(Reason::Method, &Fault::new(405, TRANSPORT, "Method not allowed: a stream is opened by GET"))?
            .header("allow", "DELETE, GET, POST"));
    }
    if !accepts(&cx.request.headers, "text/event-stream") {
        return refuse(Reason::Schema, &Fault::new(406, TRANSPORT, "Not Acceptable: Client must accept text/event-stream"));
    }
    let id = match session(cx) {
        Ok((id, _)) => id,
        Err((reason, fault)) => return refuse(reason, &fault),
    };
    let opened = cx
        .place()
        .and_then(|place| Ok((place, cx.look::<ListenMcp, _, _>(cx.person(), &Words::MEMORY, |_| Ok::<_, identity::Refusal>(()))?)));
    let (place, done) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            let fault = Fault::new(failure.status, TRANSPORT, failure.text.clone());
            return Ok(Answer::fault(&fault, None, Era::Legacy, failure.index).reply(cx));
        }
    };
    let Some(stream) = cx.api.mcp.sessions.listen(cx.who, id, cx.api.now_ms()) else {
        return Ok(
            Answer::fault(&Fault::new(404, TRANSPORT, "Session not found; begin again with initialize"), None, Era::Legacy, None).reply(cx)
        );
    };
    let feed = Silence { sessions: Arc::clone(&cx.api.mcp.sessions), who: cx.who.clone(), id, stream, clock: cx.api.vault.clock().clone() };
    Ok(cx.stream(&done.into_parts().1, place, None, feed))
}

/// A stream that only says that it is there, for as long as its session is.
struct Silence {
    sessions: Arc<Sessions>,
    who: Principal,
    id: McpSessionId,
    stream: u64,
    clock: Clock,
}

impl Feed for Silence {
    fn next(&mut self, wait: Duration) -> Said {
        if !self.sessions.listens(&self.who, self.id, self.stream, self.clock.mono_ms()) {
            return Said::End;
        }
        std::thread::sleep(wait);
        Said::Nothing
    }
}

/// `DELETE /mcp`: ends a legacy session.
pub fn end(cx: &mut Cx<'_>) -> Answered {
    let cx = &*cx;
    if let Some(reply) = modern_method(cx) {
        return Ok(reply);
    }
    let id = match session(cx) {
        Ok((id, _)) => id,
        Err((reason, fault)) => return Ok(refused(cx, cx.verb, reason, &fault, None, Era::Legacy).reply(cx)),
    };
    match person::<EndMcp>(cx, 200) {
        Err(failure) => Ok(failed(&failure, None, Era::Legacy).reply(cx)),
        Ok(index) => {
            cx.api.mcp.sessions.end(cx.who, id, cx.api.now_ms());
            Ok(Answer::of(200, None, Some(index)).reply(cx))
        }
    }
}

const NUMBER_OR_TEXT: Shape = Shape::Schema(r#"{"type":["string","integer"],"examples":[1]}"#);
const VERSION_2: Shape = constant("2.0");

/// What MCP takes and answers, for the OpenAPI document.
pub(in crate::api) const COMPONENTS: Members = &[
    (
        "McpMessage",
        Shape::Any(
            "A JSON-RPC 2.0 message of MCP, or in versions before 2025-06-18 several.",
            &[
                answer(&[("jsonrpc", VERSION_2), ("method", text("ping"))], &[("id", NUMBER_OR_TEXT), ("params", object())]),
                answer(&[("jsonrpc", VERSION_2)], &[("id", NUMBER_OR_TEXT), ("result", object()), ("error", object())]),
                Shape::List(&object()),
            ],
        ),
    ),
    (
        "McpAnswer",
        Shape::Any(
            "",
            &[
                reference("McpResult"),
                reference("McpError"),
                Shape::List(&Shape::Any("", &[reference("McpResult"), reference("McpError")])),
            ],
        ),
    ),
    ("McpResult", answer(&[("jsonrpc", VERSION_2), ("id", NUMBER_OR_TEXT), ("result", object())], &[])),
    (
        "McpError",
        answer(
            &[
                ("jsonrpc", VERSION_2),
                (
                    "error",
                    answer(
                        &[
                            ("code", Shape::Schema(r#"{"type":"integer","examples":[-32000]}"#)),
                            ("message", text("Session not found; begin again with initialize")),
                        ],
                        &[("data", object())],
                    ),
                ),
            ],
            &[("id", Shape::Schema(r#"{"type": ["null", "string", "integer"]}"#))],
        ),
    ),
    ("McpRefusal", Shape::Any("", &[reference("McpError"), reference("McpUnauthorized")])),
    ("McpUnauthorized", answer(&[("error", constant("invalid_token")), ("error_description", text("Invalid API key"))], &[])),
];

#[cfg(test)]
mod tests {
    use super::era::LEGACY;
    use super::*;

    #[test]
    fn both_media_types_must_be_named() {
        let both = |value: &str| {
            let headers = Headers::of(&[("accept", value)]);
            accepts(&headers, "application/json") && accepts(&headers, "text/event-stream")
        };
        for good in
            ["application/json, text/event-stream", "text/event-stream,application/json", "APPLICATION/JSON;q=0.5, text/event-stream; q=1"]
        {
            assert!(both(good), "{good}");
        }
        for bad in [
            "",
            "*/*",
            "application/json",
            "text/event-stream",
            "application/json;q=0, text/event-stream",
            "application/jsonx, text/event-stream",
        ] {
            assert!(!both(bad), "{bad}");
        }
    }

    #[test]
    fn versions_are_listed_newest_first_and_know_batches_or_not() {
        assert!(LEGACY.is_sorted_by(|one, other| one > other));
        assert!(BATCHES.iter().all(|version| LEGACY.contains(version)));
    }
}
