//! What the OpenAPI document says of each route; one row a route.

use crate::api::inputs;
use crate::api::openapi::{Auth, RouteDoc};
use crate::api::schema::Schema;

const fn row(
    method: &'static str,
    path: &'static str,
    operation_id: &'static str,
    summary: &'static str,
    auth: Auth,
    answer: (u16, Option<&'static str>),
) -> RouteDoc {
    RouteDoc { method, path, operation_id, summary, auth, body: None, query: None, answer }
}

impl RouteDoc {
    /// The same route with a body.
    const fn body(self, schema: &'static Schema) -> Self {
        Self { body: Some(schema), ..self }
    }

    /// The same route with a query string.
    const fn query(self, schema: &'static Schema) -> Self {
        Self { query: Some(schema), ..self }
    }
}

const fn ok(component: &'static str) -> (u16, Option<&'static str>) {
    (200, Some(component))
}

const fn created(component: &'static str) -> (u16, Option<&'static str>) {
    (201, Some(component))
}

/// Every documented route.
pub static ROUTES: &[RouteDoc] = &[
    row("GET", "/health", "health", "Whether the service is up, and what it may reach", Auth::Public, ok("Health")),
    row("GET", "/openapi.json", "openapi", "This document", Auth::Public, ok("Document")),
    row("GET", "/whoami", "whoAmI", "What the presented key is", Auth::Any, ok("WhoAmI")),
    row("GET", "/users/me", "getUser", "The person behind the key", Auth::User, ok("User")),
    row("POST", "/api/keys", "createKey", "Make a key; it is shown once", Auth::User, ok("NewKey")).body(&inputs::NEW_KEY),
    row("GET", "/api/keys", "listKeys", "Keys, revoked ones included", Auth::User, ok("Keys")),
    row("DELETE", "/api/keys/:id", "revokeKey", "Revoke a key at once", Auth::User, ok("Revoked")),

    row("POST", "/memories", "createMemory", "Write a memory", Auth::User, created("Memory")).body(&inputs::CREATE),
    row("GET", "/memories/:id", "getMemory", "Read a memory, also from the trash", Auth::User, ok("Memory")),
    row("PUT", "/memories/:id", "putMemory", "Replace a memory; its past becomes a version", Auth::User, ok("Memory")).body(&inputs::UPDATE),
    row("DELETE", "/memories/:id", "trashMemory", "Move a memory to the trash", Auth::User, ok("Memory")),
    row("POST", "/memories/:id/restore", "restoreMemory", "Take a memory out of the trash", Auth::User, ok("Memory")),
    row("DELETE", "/memories/:id/permanent", "purgeMemory", "Delete a memory and its versions for good", Auth::User, (204, None)),
    row("DELETE", "/memories/trash", "emptyTrash", "Delete all that is in the trash", Auth::User, ok("TrashEmptied")),
    row("POST", "/memories/list", "listMemories", "Memories that a filter chooses", Auth::User, ok("Memories")).body(&inputs::LIST),
    row("GET", "/memories/:id/versions", "listVersions", "What a memory said before, newest first", Auth::User, ok("Versions")),
    row("POST", "/memories/:id/children", "createChild", "Reply to a memory", Auth::User, created("Memory")).body(&inputs::CHILD),
    row("GET", "/memories/:id/thread", "getThread", "A memory and its replies, oldest first", Auth::User, ok("Thread")),

    row("POST", "/agent/memories", "writeMemory", "Write a memory", Auth::Any, created("Memory")).body(&inputs::AGENT_CREATE),
    row("GET", "/agent/memories/latest", "getLatestMemory", "The newest memory", Auth::Any, ok("Memory")).query(&inputs::LATEST),
    row("GET", "/agent/memories/:id", "getMemoryById", "Read a memory", Auth::Any, ok("Memory")),
    row("PUT", "/agent/memories/:id", "updateMemory", "Replace a memory; its past becomes a version", Auth::Any, ok("Memory"))
        .body(&inputs::UPDATE),
    row("DELETE", "/agent/memories/:id", "deleteMemory", "Move a memory to the trash", Auth::Any, ok("AgentDeleted")),
    row("GET", "/agent/memories/:id/versions", "getVersionHistory", "What a memory said before", Auth::Any, ok("AgentVersions")),
    row("POST", "/agent/memories/:id/children", "writeChildMemory", "Reply to a memory", Auth::Any, created("Memory"))
        .body(&inputs::AGENT_CHILD),
    row("GET", "/agent/memories/:id/thread", "readThread", "A memory and its replies, oldest first", Auth::Any, ok("Thread")),
    row("POST", "/agent/memories/browse", "browseMemories", "A page of summaries", Auth::Any, ok("SummaryPage")).body(&inputs::BROWSE),
    row("POST", "/agent/memories/by-tag", "getMemoriesByTag", "Memories with any of these tags", Auth::Any, ok("MemoryPage"))
        .body(&inputs::BY_TAG),
    row("POST", "/agent/memories/search", "searchMemories", "Memories that hold a text as it stands", Auth::Any, ok("CountedMemories"))
        .body(&inputs::TERM_SEARCH),
    row("POST", "/agent/memories/list", "readMemories", "The newest memories", Auth::Any, ok("CountedMemories")).body(&inputs::AGENT_LIST),

    row("POST", "/api/v1/memories/search", "rankMemories", "Memories that answer a query, best first", Auth::Any, ok("SearchResults"))
        .body(&inputs::SEARCH),
    row("GET", "/api/v1/operations/:id", "getOperation", "How an operation of yours ended", Auth::Any, ok("Operation")),
];
