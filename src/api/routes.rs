//! The routes: one row each, from which the router, OpenAPI, audit names, refusal tests and the documentation follow.
//!
//! Invariants
//! - A path is matched segment by segment; a fixed segment wins over `:id`; nothing is decoded, so an id in an odd spelling is not found.
//! - Whoever may call a route is in its row; there is no other list.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::api::openapi::{Also, Auth, RouteDoc};
use crate::api::ops::{
    admin, agent, backups, briefing, erasures, events, grants, graph, identity, keys, memories, model, operations, search, status, usage,
};
use crate::api::reply::{self, Answered, Failure};
use crate::api::run::Cx;
use crate::api::schema::Schema;
use crate::api::{inputs, mcp, mem0, oauth};
use crate::http::Method;

/// One route.
pub struct Route {
    /// What the OpenAPI document says of it.
    pub doc: RouteDoc,
    /// The policy verb that its operation asks for: its name in the audit log. Empty on public routes.
    pub verb: &'static str,
    /// The operation.
    pub run: fn(&mut Cx<'_>) -> Answered,
}

const fn row(
    method: &'static str,
    path: &'static str,
    operation_id: &'static str,
    summary: &'static str,
    auth: Auth,
    answer: (u16, Option<&'static str>),
) -> Route {
    let doc = RouteDoc {
        method,
        path,
        operation_id,
        summary,
        auth,
        body: None,
        media_type: "application/json",
        takes: None,
        query: None,
        answer,
        also: &[],
        refusals: &[],
        errors: None,
    };
    Route { doc, verb: "", run: public }
}

impl Route {
    /// The same route with a body.
    const fn body(self, schema: &'static Schema) -> Self {
        Self { doc: RouteDoc { body: Some(schema), ..self.doc }, ..self }
    }

    /// The same route with a query string.
    const fn query(self, schema: &'static Schema) -> Self {
        Self { doc: RouteDoc { query: Some(schema), ..self.doc }, ..self }
    }

    /// The same route with a body that the operation reads by itself, described by a component, and refusals of their own shape.
    const fn takes(self, component: &'static str, errors: &'static str) -> Self {
        Self { doc: RouteDoc { takes: Some(component), errors: Some(errors), ..self.doc }, ..self }
    }

    /// The same route, whose refusals have a shape of their own.
    const fn errors(self, errors: &'static str) -> Self {
        Self { doc: RouteDoc { errors: Some(errors), ..self.doc }, ..self }
    }

    /// The same route with further answers that are no refusals.
    const fn also(self, also: &'static [Also]) -> Self {
        Self { doc: RouteDoc { also, ..self.doc }, ..self }
    }

    /// The same route, which refuses with these statuses too.
    const fn refuses(self, refusals: &'static [u16]) -> Self {
        Self { doc: RouteDoc { refusals, ..self.doc }, ..self }
    }

    /// The same route with a body that the operation reads by itself.
    const fn reads(self, media_type: &'static str, component: &'static str) -> Self {
        Self { doc: RouteDoc { takes: Some(component), media_type, ..self.doc }, ..self }
    }

    /// The same route, which refuses in the shape of OAuth, with these statuses too.
    const fn oauth(self, refusals: &'static [u16]) -> Self {
        Self { doc: RouteDoc { refusals, errors: Some("OAuthError"), ..self.doc }, ..self }
    }

    /// The same route with its operation.
    const fn run(self, verb: &'static str, run: fn(&mut Cx<'_>) -> Answered) -> Self {
        Self { verb, run, ..self }
    }

    /// Whether agents may call it.
    pub fn agents(&self) -> bool {
        matches!(self.doc.auth, Auth::Any | Auth::Public)
    }

    /// Whether it changes who may do what, and so has the administrative rate limit.
    pub fn administrative(&self) -> bool {
        self.doc.auth == Auth::Admin || matches!(self.verb, "key.create" | "key.revoke")
    }
}

const fn ok(component: &'static str) -> (u16, Option<&'static str>) {
    (200, Some(component))
}

const fn created(component: &'static str) -> (u16, Option<&'static str>) {
    (201, Some(component))
}

/// The health of a service that cannot answer.
const DOWN: Also = Also { status: 503, media_type: "application/json", component: Some("Health"), when: "The store cannot answer" };

/// The body of a form.
const FORM: &str = "application/x-www-form-urlencoded";

const fn page(status: u16, when: &'static str) -> Also {
    Also { status, media_type: "text/html", component: None, when }
}

const PAGE: Also = page(200, "The page");
const PAGE_400: Also = page(400, "A page that says what is wrong");
const PAGE_401: Also = page(401, "The page again: the key is not valid");
const PAGE_403: Also = page(403, "The page again: not a person's key; or not from the page that was shown");
const PAGE_404: Also = page(404, "Nothing is to be decided under this id");
const PAGE_409: Also = page(409, "As many grants or clients as may be");
const PAGE_410: Also = page(410, "The time for the decision is over");
const PAGE_429: Also = page(429, "The page again: too many requests with this key");
const PAGE_500: Also = page(500, "A page that says that it failed");
const PAGE_503: Also = page(503, "A page that says to try again");
const PAGE_507: Also = page(507, "A page that says that the disk is nearly full");
const OVER: Also =
    Also { status: 410, media_type: "application/json", component: Some("Error"), when: "The time for the decision is over" };

/// A stream of events.
const EVENTS: Also = Also {
    status: 200,
    media_type: "text/event-stream",
    component: None,
    when: "`hello`, then `memory.created`, `.updated`, `.deleted`, `.restored` and `.purged`, each with its memory as it is then",
};

/// What is only said is taken.
const TAKEN: Also = Also { status: 202, media_type: "", component: None, when: "Taken: what was sent needs no answer" };

/// A stream that says that it is there.
const SILENCE: Also =
    Also { status: 200, media_type: "text/event-stream", component: None, when: "A stream of the session; nothing is said unasked" };

/// A briefing for a reader.
const MARKDOWN: Also =
    Also { status: 200, media_type: "text/markdown", component: None, when: "The briefing as markdown, for `format=markdown`" };

/// Public routes are answered before routing; a row with this operation is one of them.
fn public(_: &mut Cx<'_>) -> Answered {
    Err(Failure::new(500, reply::INTERNAL))
}

/// Every route.
pub static ROUTES: &[Route] = &[
    row("GET", "/health", "health", "Whether the service is up, and what it may reach", Auth::Public, ok("Health")).also(&[DOWN]),
    row("GET", "/openapi.json", "openapi", "This document", Auth::Public, ok("Document")).refuses(&[503]),
    row("GET", "/whoami", "whoAmI", "What the presented key is", Auth::Any, ok("WhoAmI")).run("identity.read", identity::whoami),
    row("GET", "/users/me", "getUser", "The person behind the key", Auth::User, ok("User")).run("identity.read", identity::me),
    row("PATCH", "/users/me", "renameUser", "Change your names", Auth::User, ok("User"))
        .body(&inputs::NAMES)
        .run("identity.update", identity::rename),
    row("GET", "/admin/check", "adminCheck", "Whether the key is an administrator's", Auth::Admin, ok("AdminCheck"))
        .run("admin.read", admin::check),
    row("GET", "/admin/users", "adminUsers", "Everybody who is known, newest first", Auth::Admin, ok("AdminUsers"))
        .refuses(&[400])
        .run("person.list", admin::users),
    row("GET", "/admin/waitlist", "adminWaitlist", "A list of a hosted service: empty here", Auth::Admin, ok("Waitlist"))
        .run("admin.read", admin::waitlist),
    row("GET", "/admin/early-access", "adminEarlyAccess", "A list of a hosted service: empty here", Auth::Admin, ok("Requests"))
        .run("admin.read", admin::requests),
    row("GET", "/admin/integration-requests", "adminIntegrations", "A list of a hosted service: empty here", Auth::Admin, ok("Requests"))
        .run("admin.read", admin::requests),
    row(
        "GET",
        "/.well-known/oauth-authorization-server",
        "oauthServer",
        "How clients of OAuth 2.1 get tokens (RFC 8414)",
        Auth::Public,
        ok("OAuthServer"),
    ),
    row(
        "GET",
        "/.well-known/oauth-protected-resource/mcp",
        "oauthResource",
        "Who gives tokens for `/mcp` (RFC 9728)",
        Auth::Public,
        ok("OAuthResource"),
    ),
    row("POST", "/register", "oauthRegister", "A client of OAuth makes itself known (RFC 7591)", Auth::Public, created("OAuthClient"))
        .reads("application/json", "OAuthRegistration")
        .oauth(&[400]),
    row(
        "GET",
        "/authorize",
        "oauthAuthorize",
        "A client sends a person here to ask for a grant: code, PKCE with S256",
        Auth::Public,
        (302, None),
    )
    .also(&[PAGE_400, PAGE_503])
    .refuses(&[405]),
    row("GET", "/oauth/consent", "oauthConsentPage", "The page on which a person decides", Auth::Public, (200, None))
        .also(&[PAGE, PAGE_404, PAGE_410]),
    row("POST", "/oauth/consent", "oauthConsent", "The person's decision", Auth::Public, (303, None))
        .reads(FORM, "OAuthDecision")
        .also(&[PAGE_400, PAGE_401, PAGE_403, PAGE_404, PAGE_409, PAGE_410, PAGE_429, PAGE_500, PAGE_503, PAGE_507]),
    row("GET", "/oauth/approve", "oauthApprove", "The decision, by a token of the dashboard", Auth::Public, (302, None))
        .also(&[OVER])
        .refuses(&[403, 404, 405, 409, 503, 507]),
    row(
        "POST",
        "/oauth/approve-s2s",
        "oauthApproveByService",
        "The decision, by the dashboard's service key",
        Auth::Public,
        ok("OAuthApproved"),
    )
    .reads("application/json", "OAuthApproval")
    .also(&[OVER])
    .refuses(&[400, 403, 404, 409, 503, 507]),
    row("POST", "/token", "oauthToken", "Tokens for a code, or new ones for a refresh token", Auth::Public, ok("OAuthTokens"))
        .reads(FORM, "OAuthTokenRequest")
        .oauth(&[400, 401, 503]),
    row("POST", "/revoke", "oauthRevoke", "A client gives its grant back (RFC 7009)", Auth::Public, (200, None))
        .reads(FORM, "OAuthRevocation")
        .oauth(&[400, 401, 503]),
    row(
        "GET",
        "/oauth/status",
        "oauthStatus",
        "How many clients and grants there are, and what is waited for",
        Auth::Any,
        ok("OAuthStatus"),
    )
    .refuses(&[403])
    .run("oauth.status", oauth::status),
    row("GET", "/api/v1/oauth/grants", "listGrants", "What you have allowed to clients of OAuth", Auth::User, ok("OAuthGrants"))
        .run("oauth.list", grants::list),
    row("DELETE", "/api/v1/oauth/grants/:id", "revokeGrant", "End a grant at once", Auth::User, ok("Revoked"))
        .run("oauth.revoke", grants::revoke),
    row("POST", "/api/keys", "createKey", "Make a key; it is shown once", Auth::User, ok("NewKey"))
        .body(&inputs::NEW_KEY)
        .run("key.create", keys::create),
    row("GET", "/api/keys", "listKeys", "Keys, revoked ones included", Auth::User, ok("Keys")).run("key.list", keys::list),
    row("DELETE", "/api/keys/:id", "revokeKey", "Revoke a key at once", Auth::User, ok("Revoked")).run("key.revoke", keys::revoke),
    row("POST", "/memories", "createMemory", "Write a memory", Auth::User, created("Memory"))
        .body(&inputs::CREATE)
        .run("memory.create", memories::create),
    row("GET", "/memories/:id", "getMemory", "Read a memory, also from the trash", Auth::User, ok("Memory"))
        .run("memory.read", memories::read),
    row("PUT", "/memories/:id", "putMemory", "Replace a memory; its past becomes a version", Auth::User, ok("Memory"))
        .body(&inputs::UPDATE)
        .run("memory.update", memories::update),
    row("DELETE", "/memories/:id", "trashMemory", "Move a memory to the trash", Auth::User, ok("Memory"))
        .run("memory.trash", memories::trash),
    row("POST", "/memories/:id/restore", "restoreMemory", "Take a memory out of the trash", Auth::User, ok("Memory"))
        .run("memory.restore", memories::restore),
    row("DELETE", "/memories/:id/permanent", "purgeMemory", "Delete a memory and its versions for good", Auth::User, (204, None))
        .run("memory.purge", memories::purge),
    row("DELETE", "/memories/trash", "emptyTrash", "Delete all that is in the trash", Auth::User, ok("TrashEmptied"))
        .run("memory.empty_trash", memories::empty_trash),
    row("POST", "/memories/list", "listMemories", "Memories that a filter chooses", Auth::User, ok("Memories"))
        .body(&inputs::LIST)
        .run("memory.list", memories::list),
    row("GET", "/memories/:id/versions", "listVersions", "What a memory said before, newest first", Auth::User, ok("Versions"))
        .run("memory.versions", memories::versions),
    row("POST", "/memories/:id/children", "createChild", "Reply to a memory", Auth::User, created("Memory"))
        .body(&inputs::CHILD)
        .run("memory.reply", memories::reply),
    row("GET", "/memories/:id/thread", "getThread", "A memory and its replies, oldest first", Auth::User, ok("Thread"))
        .run("memory.thread", memories::thread),
    row("GET", "/usage", "getUsage", "How many memories you may keep, and keep", Auth::User, ok("Usage"))
        .query(&inputs::USAGE)
        .run("usage.read", usage::check),
    row("GET", "/usage/check", "checkUsage", "Whether you may write another memory", Auth::User, ok("Usage"))
        .query(&inputs::USAGE)
        .run("usage.read", usage::check),
    row("GET", "/billing/status", "getBilling", "Your plan; nothing is billed here", Auth::User, ok("Billing"))
        .run("usage.read", usage::billing),
    row("POST", "/billing/checkout", "openCheckout", "Refused: nothing is billed here", Auth::User, (503, None))
        .run("billing.pay", usage::no_billing),
    row("POST", "/billing/portal", "openPortal", "Refused: nothing is billed here", Auth::User, (503, None))
        .run("billing.pay", usage::no_billing),
    row("GET", "/briefing", "getBriefing", "What your memories are about, in short", Auth::User, ok("Briefing"))
        .query(&inputs::BRIEFING)
        .also(&[MARKDOWN])
        .run("memory.brief", briefing::read),
    row("GET", "/graph", "getGraph", "How your memories hang together: threads, tags in common, clusters", Auth::User, ok("Graph"))
        .query(&inputs::GRAPH)
        .run("memory.graph", graph::read),
    row("GET", "/events", "watchMemories", "What becomes of your memories, as it happens (server-sent events)", Auth::User, (200, None))
        .also(&[EVENTS])
        .refuses(&[503])
        .run("memory.watch", events::watch),
    row("POST", "/agent/memories", "writeMemory", "Write a memory", Auth::Any, created("Memory"))
        .body(&inputs::AGENT_CREATE)
        .refuses(&[403])
        .run("memory.create", agent::create),
    row("GET", "/agent/memories/latest", "getLatestMemory", "The newest memory", Auth::Any, ok("Memory"))
        .query(&inputs::LATEST)
        .refuses(&[404])
        .run("memory.list", agent::latest),
    row("GET", "/agent/memories/:id", "getMemoryById", "Read a memory", Auth::Any, ok("Memory")).run("memory.read", agent::read),
    row("PUT", "/agent/memories/:id", "updateMemory", "Replace a memory; its past becomes a version", Auth::Any, ok("Memory"))
        .body(&inputs::UPDATE)
        .run("memory.update", memories::update),
    row("DELETE", "/agent/memories/:id", "deleteMemory", "Move a memory to the trash", Auth::Any, ok("AgentDeleted"))
        .run("memory.trash", agent::delete),
    row("GET", "/agent/memories/:id/versions", "getVersionHistory", "What a memory said before", Auth::Any, ok("AgentVersions"))
        .run("memory.versions", agent::versions),
    row("POST", "/agent/memories/:id/children", "writeChildMemory", "Reply to a memory", Auth::Any, created("Memory"))
        .body(&inputs::AGENT_CHILD)
        .refuses(&[403])
        .run("memory.reply", agent::reply),
    row("GET", "/agent/memories/:id/thread", "readThread", "A memory and its replies, oldest first", Auth::Any, ok("Thread"))
        .run("memory.thread", agent::thread),
    row("POST", "/agent/memories/browse", "browseMemories", "A page of summaries", Auth::Any, ok("SummaryPage"))
        .body(&inputs::BROWSE)
        .run("memory.list", agent::browse),
    row("POST", "/agent/memories/by-tag", "getMemoriesByTag", "Memories with any of these tags", Auth::Any, ok("MemoryPage"))
        .body(&inputs::BY_TAG)
        .run("memory.list", agent::by_tag),
    row("POST", "/agent/memories/search", "searchMemories", "Memories that hold a text as it stands", Auth::Any, ok("CountedMemories"))
        .body(&inputs::TERM_SEARCH)
        .run("memory.search", agent::search),
    row("POST", "/agent/memories/list", "readMemories", "The newest memories", Auth::Any, ok("CountedMemories"))
        .body(&inputs::AGENT_LIST)
        .run("memory.list", agent::list),
    row("GET", "/agent/briefing", "getMemoryBriefing", "What there is to know at the beginning of a session", Auth::Any, ok("Briefing"))
        .query(&inputs::BRIEFING)
        .also(&[MARKDOWN])
        .run("memory.brief", briefing::read),
    row("POST", "/api/v1/memories/search", "rankMemories", "Memories that answer a query, best first", Auth::Any, ok("SearchResults"))
        .body(&inputs::SEARCH)
        .run("memory.search", search::rank),
    row("POST", "/query", "queryMemory", "Have the site's language model answer from memories", Auth::Any, ok("QueryReceipt"))
        .body(&inputs::QUERY)
        .refuses(&[502])
        .run("memory.query", model::query),
    row("POST", "/chat", "chat", "Talk to the site's language model", Auth::User, ok("ChatReply"))
        .body(&inputs::CHAT)
        .refuses(&[502])
        .run("model.chat", model::chat),
    row("GET", "/chat/models", "listModels", "The models that may be talked to", Auth::User, ok("Models")).run("model.list", model::models),
    row("GET", "/api/v1/usage", "getUsageByMonth", "How much you used, by month, newest first", Auth::User, ok("UsageMonths"))
        .run("usage.read", usage::months),
    row(
        "GET",
        "/api/v1/embeddings",
        "readEmbeddings",
        "The embedding model in use and how many memories wait for their vector",
        Auth::Admin,
        ok("Embeddings"),
    )
    .run("embedding.read", search::embeddings),
    row("GET", "/api/v1/backups", "listBackups", "Backups, oldest first, and the last restore drill", Auth::Admin, ok("Backups"))
        .run("backup.list", backups::list),
    row("POST", "/api/v1/backups", "askBackup", "Have a backup made now", Auth::Admin, (202, Some("BackupAsked")))
        .refuses(&[409])
        .run("backup.ask", backups::ask),
    row("GET", "/api/v1/status", "getStatus", "How the instance stands, and what asks for attention", Auth::Admin, ok("Status"))
        .run("status.read", status::read),
    row(
        "POST",
        "/api/v1/erasures",
        "askErasure",
        "Have a person, or somebody memories are about, erased by the death of their key",
        Auth::Admin,
        (202, Some("Erasure")),
    )
    .body(&inputs::ERASURE)
    .refuses(&[404, 409])
    .run("erasure.ask", erasures::ask),
    row("GET", "/api/v1/erasures", "listErasures", "Erasures, and how far each has come", Auth::Admin, ok("Erasures"))
        .run("erasure.read", erasures::list),
    row(
        "GET",
        "/api/v1/erasures/:id",
        "getErasure",
        "An erasure, and its signed receipt once it has come to its end",
        Auth::Admin,
        ok("ErasureWithReceipt"),
    )
    .run("erasure.read", erasures::read),
    row("GET", "/api/v1/operations/:id", "getOperation", "How an operation of yours ended", Auth::Any, ok("Operation"))
        .run("operation.read", operations::read),
    row("POST", "/mcp", "mcpMessage", "Speak MCP: a JSON-RPC message, of either era", Auth::Any, ok("McpAnswer"))
        .takes("McpMessage", "McpRefusal")
        .also(&[TAKEN])
        .refuses(&[404, 405, 406, 415])
        .run("mcp.call", mcp::post),
    row("GET", "/mcp", "mcpListen", "Hear a session of a legacy MCP client (server-sent events)", Auth::Any, (200, None))
        .errors("McpRefusal")
        .also(&[SILENCE])
        .refuses(&[400, 404, 405, 406])
        .run("mcp.listen", mcp::listen),
    row("DELETE", "/mcp", "mcpEnd", "End a session of a legacy MCP client", Auth::Any, (200, None))
        .errors("McpRefusal")
        .refuses(&[400, 404, 405])
        .run("mcp.end", mcp::end),
    row("GET", "/v1/ping/", "mem0Ping", "Whether the key is good", Auth::Any, ok("Mem0Ping")).run("identity.read", mem0::ping),
    row("POST", "/v3/memories/add/", "mem0Add", "Keep messages, word for word, one memory each", Auth::Any, ok("Mem0Added"))
        .body(&mem0::inputs::ADD)
        .refuses(&[403])
        .run("memory.create", mem0::add),
    row("POST", "/v1/memories/", "mem0AddV1", "Keep messages: as older clients ask", Auth::Any, ok("Mem0Added"))
        .body(&mem0::inputs::ADD)
        .refuses(&[403])
        .run("memory.create", mem0::add),
    row("POST", "/v3/memories/", "mem0List", "A page of memories that a filter chooses, newest first", Auth::Any, ok("Mem0Page"))
        .body(&mem0::inputs::LIST)
        .query(&mem0::inputs::PAGES)
        .run("memory.list", mem0::list_pages),
    row("POST", "/v2/memories/", "mem0ListV2", "Memories that a filter chooses: as older clients ask", Auth::Any, ok("Mem0List"))
        .body(&mem0::inputs::LIST)
        .query(&mem0::inputs::PAGES)
        .run("memory.list", mem0::list_arrays),
    row("GET", "/v1/memories/", "mem0ListV1", "Memories by the names they carry: as older clients ask", Auth::Any, ok("Mem0List"))
        .query(&mem0::inputs::QUERY_LIST)
        .run("memory.list", mem0::list_by_query),
    row("POST", "/v3/memories/search/", "mem0Search", "Memories that answer a query, best first", Auth::Any, ok("Mem0Hits"))
        .body(&mem0::inputs::SEARCH)
        .run("memory.search", mem0::search_wrapped),
    row("POST", "/v2/memories/search/", "mem0SearchV2", "Memories that answer a query: as older clients ask", Auth::Any, ok("Mem0HitList"))
        .body(&mem0::inputs::SEARCH)
        .run("memory.search", mem0::search_arrays),
    row(
        "POST",
        "/v1/memories/search/",
        "mem0SearchV1",
        "Memories that answer a query: as the oldest clients ask",
        Auth::Any,
        ok("Mem0HitList"),
    )
    .body(&mem0::inputs::SEARCH)
    .run("memory.search", mem0::search_arrays),
    row("GET", "/v1/memories/:id/", "mem0Get", "Read a memory", Auth::Any, ok("Mem0Memory")).run("memory.read", mem0::get),
    row("PUT", "/v1/memories/:id/", "mem0Update", "Change a memory; its past becomes a version", Auth::Any, ok("Mem0Memory"))
        .body(&mem0::inputs::UPDATE)
        .run("memory.update", mem0::update),
    row("DELETE", "/v1/memories/:id/", "mem0Delete", "Move a memory to the trash", Auth::Any, ok("Mem0Message"))
        .query(&mem0::inputs::DELETE_ONE)
        .run("memory.trash", mem0::delete),
    row("GET", "/v1/memories/:id/history/", "mem0History", "What happened to a memory, oldest first", Auth::Any, ok("Mem0History"))
        .run("memory.versions", mem0::history),
    row("DELETE", "/v1/memories/", "mem0DeleteAll", "Move the memories that carry these names to the trash", Auth::Any, ok("Mem0Trashed"))
        .query(&mem0::inputs::DELETE_ALL)
        .run("memory.trash_all", mem0::delete_all),
    row("PUT", "/v1/batch/", "mem0BatchUpdate", "Change memories one after the other", Auth::Any, ok("Mem0Message"))
        .body(&mem0::inputs::BATCH_UPDATE)
        .refuses(&[404])
        .run("memory.update", mem0::batch_update),
    row("DELETE", "/v1/batch/", "mem0BatchDelete", "Move memories to the trash one after the other", Auth::Any, ok("Mem0Message"))
        .body(&mem0::inputs::BATCH_DELETE)
        .refuses(&[404])
        .run("memory.trash", mem0::batch_delete),
    row("GET", "/v1/entities/", "mem0Entities", "Whom and what your memories name", Auth::Any, ok("Mem0Entities"))
        .query(&mem0::inputs::PAGES)
        .run("memory.list", mem0::entities),
    row(
        "DELETE",
        "/v2/entities/user/:id/",
        "mem0DeleteUser",
        "Move your memories about this person to the trash",
        Auth::Any,
        ok("Mem0Trashed"),
    )
    .run("memory.trash_all", mem0::delete_user),
    row(
        "DELETE",
        "/v2/entities/agent/:id/",
        "mem0DeleteAgent",
        "Move your memories that name this agent to the trash",
        Auth::Any,
        ok("Mem0Trashed"),
    )
    .run("memory.trash_all", mem0::delete_agent),
    row(
        "DELETE",
        "/v2/entities/app/:id/",
        "mem0DeleteApp",
        "Move your memories that name this application to the trash",
        Auth::Any,
        ok("Mem0Trashed"),
    )
    .run("memory.trash_all", mem0::delete_app),
    row("DELETE", "/v2/entities/run/:id/", "mem0DeleteRun", "Move your memories of this run to the trash", Auth::Any, ok("Mem0Trashed"))
        .run("memory.trash_all", mem0::delete_run),
    row("POST", "/v1/exports/", "mem0AskExport", "Have memories ready to be fetched", Auth::Any, created("Mem0ExportAsked"))
        .body(&mem0::inputs::EXPORT)
        .run("memory.list", mem0::export_ask),
    row("POST", "/v1/exports/get/", "mem0GetExport", "Fetch what was asked for, or what filters choose", Auth::Any, ok("Mem0Export"))
        .body(&mem0::inputs::EXPORT_GET)
        .refuses(&[404])
        .run("memory.list", mem0::export_fetch),
    row("POST", "/v1/feedback/", "mem0Feedback", "Say what you think of a memory", Auth::Any, ok("Mem0Feedback"))
        .body(&mem0::inputs::FEEDBACK)
        .refuses(&[403, 404])
        .run("memory.reply", mem0::feedback),
];

/// Whether a path lies where agents may look for one.
pub fn is_agents(path: &str) -> bool {
    path == "/oauth/status" || path.starts_with("/agent/") || path.starts_with("/api/v1/") || path == mcp::PATH || mem0::is_path(path)
}

/// What a method and path lead to.
pub enum Found<'p> {
    /// A route, and the path's `:id`, empty where it has none.
    Route(&'static Route, &'p str),
    /// The path exists under these methods.
    OtherMethod(Vec<&'static str>),
    /// Nothing.
    Nothing,
}

/// The table in the order in which it is looked up: *(measured)* going through all of it took 8 of the 76 us of reading a memory.
struct Shapes {
    /// Rows without an id, by path.
    fixed: HashMap<&'static str, Vec<&'static Route>>,
    /// The others, by what stands before the id.
    with_id: HashMap<&'static str, Vec<WithId>>,
    /// Bytes of the longest of these: a path of slashes alone is not looked at further.
    longest: usize,
}

/// A row with an id.
struct WithId {
    /// What stands before and after the id.
    around: (&'static str, &'static str),
    /// Where in the table it stands: of two that fit, the later one is meant.
    number: usize,
    route: &'static Route,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let mut shapes = Shapes { fixed: HashMap::new(), with_id: HashMap::new(), longest: 0 };
    for (number, route) in ROUTES.iter().enumerate() {
        match around_id(route.doc.path) {
            Some(around) => shapes.with_id.entry(around.0).or_default().push(WithId { around, number, route }),
            None => shapes.fixed.entry(route.doc.path).or_default().push(route),
        }
    }
    shapes.longest = shapes.with_id.keys().map(|before| before.len()).max().unwrap_or_default();
    shapes
});

/// Finds the route of a raw path.
pub fn find(method: Method, path: &str) -> Found<'_> {
    let asked = |route: &&&Route| route.doc.method == method.name();
    if let Some(route) = SHAPES.fixed.get(path).and_then(|routes| routes.iter().find(asked)) {
        return Found::Route(route, "");
    }
    let begun =
        path.match_indices('/').take_while(|(at, _)| *at < SHAPES.longest).filter_map(|(at, _)| SHAPES.with_id.get(&path[..=at])).flatten();
    let fit = begun.filter(|row| asked(&&row.route)).filter_map(|row| Some((row, id_between(row.around.0, row.around.1, path)?)));
    if let Some((row, id)) = fit.max_by_key(|(row, _)| row.number) {
        return Found::Route(row.route, id);
    }
    let others: Vec<_> = ROUTES.iter().filter(|route| matched(route.doc.path, path).is_some()).map(|route| route.doc.method).collect();
    if others.is_empty() { Found::Nothing } else { Found::OtherMethod(others) }
}

/// What stands before and after the id of `pattern`.
fn around_id(pattern: &str) -> Option<(&str, &str)> {
    let (before, id) = pattern.split_once(':')?;
    Some((before, id.find('/').map_or("", |at| &id[at..])))
}

/// What stands between in `path`: one segment that is not empty.
fn id_between<'p>(before: &str, after: &str, path: &'p str) -> Option<&'p str> {
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// The `:id` of `path` if it fits `pattern`: one non-empty segment, empty for a pattern without one.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    match around_id(pattern) {
        Some((before, after)) => id_between(before, after, path),
        None => (pattern == path).then_some(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::action::{VERBS, WAYS};

    #[test]
    fn every_row_names_a_verb_and_only_public_ones_have_none() {
        for route in ROUTES {
            assert_eq!(route.verb.is_empty(), route.doc.auth == Auth::Public, "{}", route.doc.path);
            assert!(route.verb.is_empty() || VERBS.contains(&route.verb), "{}", route.verb);
        }
    }

    #[test]
    fn what_is_only_fetched_changes_nothing() {
        for route in ROUTES.iter().filter(|route| route.doc.method == "GET") {
            assert!(!WAYS.contains(&(route.verb, true)), "{}", route.doc.path);
        }
    }

    #[test]
    fn whoever_may_only_read_is_told_so_where_agents_write() {
        // The document had no such refusal for what is written by POST.
        for route in ROUTES.iter().filter(|route| route.doc.auth == Auth::Any && WAYS.contains(&(route.verb, true))) {
            assert!(matches!(route.doc.method, "PUT" | "DELETE") || route.doc.refusals.contains(&403), "{}", route.doc.path);
        }
    }

    #[test]
    fn a_fixed_segment_wins_over_an_id() {
        let operation = |method, path| match find(method, path) {
            Found::Route(route, id) => (route.doc.operation_id, id.to_owned()),
            Found::OtherMethod(_) => ("other", String::new()),
            Found::Nothing => ("nothing", String::new()),
        };
        assert_eq!(operation(Method::Delete, "/memories/trash"), ("emptyTrash", String::new()));
        assert_eq!(operation(Method::Delete, "/memories/x"), ("trashMemory", "x".into()));
        assert_eq!(operation(Method::Get, "/agent/memories/latest").0, "getLatestMemory");
        assert_eq!(operation(Method::Get, "/memories/x/").0, "nothing");
        assert_eq!(operation(Method::Get, "/memories/").0, "nothing");
        assert_eq!(operation(Method::Post, "/whoami").0, "other");
    }

    #[test]
    fn agents_reach_what_design_lists_and_nothing_else() {
        for route in ROUTES {
            let path = route.doc.path;
            let listed = matches!(path, "/health" | "/openapi.json" | "/whoami" | "/oauth/status" | "/query" | "/api/v1/memories/search" | "/api/v1/operations/:id")
                || path.starts_with("/agent/")
                // Public, or with an authentication of their own.
                || route.doc.auth == Auth::Public
                || path == "/mcp"
                || mem0::is_path(path);
            assert_eq!(route.agents(), listed, "{path}");
        }
    }
}
