//! Mem0: the paths and shapes of its clients, over the same operations as REST.
//!
//! | Mem0 | here |
//! |---|---|
//! | `user_id` | the subject: the person a memory is about, with a key of their own |
//! | `run_id` | the run |
//! | `agent_id`, `app_id` | names in the metadata, with a keyed look-up; never authority |
//! | a message | a memory, word for word: no model infers facts, and the answer says so |
//! | `categories` | tags |
//! | `timestamp` | when it happened |
//! | delete | to the trash |
//!
//! Invariants
//! - Who asks comes from the credential alone; a name in a body or a query string narrows what is theirs.
//! - A key that would be a promise which is not kept here (expiry, immutability) is refused; one that only steers a model is read without effect.
//! - Replies are threads' business: Mem0's lists, searches and counts do not show them; what is deleted takes them along.
//! - Each message of an addition and each memory of a batch counts as a request; nothing is done of what the credential has no room for.
//! - Nothing here destroys: `delete_all` and entity deletions move the asker's own memories to the trash.
//!
//! `inputs` says what is accepted, `filter` reads conditions, `answers` writes the shapes, `exports` keeps what is to be fetched.

mod answers;
mod exports;
mod filter;
pub mod inputs;

pub(in crate::api) use answers::COMPONENTS;
pub(in crate::api) use exports::{Exports, ask as export_ask, fetch as export_fetch};

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::api::body;
use crate::api::ops::agent::in_sight;
use crate::api::ops::memories as memory_ops;
use crate::api::reply::{self, Answered, Done, Failure, Words};
use crate::api::run::Cx;
use crate::api::schema::{Fields, wipe};
use crate::audit::Reason;
use crate::base::id::MemoryId;
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::memories::{self, Select, Who};
use crate::policy::action::{
    CreateMemory, ListMemories, ReadMemory, ReadSelf, ReadVersions, ReplyToMemory, SearchMemories, TrashMemories, TrashMemory, UpdateMemory,
};
use crate::store::gate::{Access, Recorded};
use crate::store::memories::{EntityKind, Memory, MemoryType, NewMemory, Part, Replacement, Text};
use crate::store::phi::Phi;

/// Whether a path is one of Mem0's.
pub fn is_path(path: &str) -> bool {
    ["/v1/", "/v2/", "/v3/"].iter().any(|prefix| path.starts_with(prefix))
}

/// `origin` of what a person's own key writes here; an agent's key writes as its vendor.
const ORIGIN: &str = "mem0";

/// Why a promise that a request asks for is not made.
const NO_EXPIRY: &str =
    "body/expiration_date must be null: memories do not expire by themselves here; retention and deletion are the operator's and yours";
const NO_IMMUTABLE: &str = "body/immutable must not be true: a memory can be changed here; every earlier version is kept";

fn refuse<T>(cx: &Cx<'_>, text: impl Into<String>) -> Result<T, Failure> {
    Err(cx.refuse(Reason::Schema, 400, text.into()))
}

/// The name of the organisation and of the project: there are none here, but newer clients do not begin without.
pub(in crate::api) const PROJECT: &str = "default";

/// `GET /v1/ping/`: no e-mail address, as clients hand it on to their maker's telemetry.
pub fn ping(cx: &mut Cx<'_>) -> Answered {
    cx.read::<ReadSelf, _, _>(
        cx.person(),
        &Words::MEMORY,
        |_| Ok::<_, crate::identity::Refusal>(()),
        |(), _| reply::json(&json!({ "status": "ok", "org_id": PROJECT, "project_id": PROJECT, "user_email": null })),
    )
}

type Name = Zeroizing<String>;

/// Takes a name out: a text, or a whole number as it prints.
fn name(fields: &mut Fields, key: &str) -> Option<Name> {
    match fields.value(key)? {
        Value::String(text) => Some(Zeroizing::new(text)),
        Value::Number(n) => Some(Zeroizing::new(n.to_string())),
        _ => None,
    }
}

/// Takes an object of the caller's own keys out, null being none.
fn map(fields: &mut Fields, key: &str) -> Option<Map<String, Value>> {
    match fields.value(key)? {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// The moment of a `timestamp`; `None` if it is absent or null.
fn timestamp(cx: &Cx<'_>, fields: &mut Fields) -> Result<Option<Timestamp>, Failure> {
    match fields.value("timestamp") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match filter::moment_of(&value) {
            Some(at) => Ok(Some(at)),
            None => refuse(cx, "body/timestamp must be seconds since 1970 or an RFC 3339 time, and not before 1970"),
        },
    }
}

/// Refuses an expiry that is not null.
fn no_expiry(cx: &Cx<'_>, fields: &mut Fields) -> Result<(), Failure> {
    match fields.value("expiration_date") {
        None | Some(Value::Null) => Ok(()),
        Some(mut date) => {
            wipe(&mut date);
            refuse(cx, NO_EXPIRY)
        }
    }
}

/// The names that metadata carries, beside those that have a place of their own.
const IN_METADATA: [&str; 2] = ["agent_id", "app_id"];

/// The title of a memory that came as a message: the beginning of its first line.
fn derived_title(content: &str) -> String {
    let line = content.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or(content);
    line.chars().take(limits::DERIVED_TITLE_CHARS_MAX).collect()
}

/// What one message says, and who says it.
struct Message {
    content: String,
    speaker: Option<Name>,
}

/// Takes the messages out of a checked body.
fn messages(fields: &mut Fields) -> Vec<Message> {
    match fields.value("messages") {
        Some(Value::String(content)) => vec![Message { content, speaker: Some(Zeroizing::new("user".to_owned())) }],
        Some(Value::Array(items)) => items.into_iter().map(message).collect(),
        Some(one) => vec![message(one)],
        None => Vec::new(),
    }
}

fn message(mut value: Value) -> Message {
    let mut text = |key: &str| match value.get_mut(key) {
        Some(Value::String(text)) => Some(std::mem::take(text)),
        _ => None,
    };
    let (content, name, role) = (text("content"), text("name"), text("role"));
    let speaker = name.or(role).map(Zeroizing::new);
    let content = content.unwrap_or_else(|| parts(&value["content"]).join("\n"));
    wipe(&mut value);
    Message { content, speaker }
}

/// The texts of a content that is made of parts.
fn parts(content: &Value) -> Vec<&str> {
    match content {
        Value::Array(items) => items.iter().filter_map(|part| part["text"].as_str()).collect(),
        one => one["text"].as_str().into_iter().collect(),
    }
}

/// `POST /v3/memories/add/` and `POST /v1/memories/`
pub fn add(cx: &mut Cx<'_>) -> Answered {
    let mut fields = std::mem::take(&mut cx.fields);
    no_expiry(cx, &mut fields)?;
    if fields.flag("immutable") == Some(true) {
        return refuse(cx, NO_IMMUTABLE);
    }
    let occurred_at = timestamp(cx, &mut fields)?;
    // Newer clients send the names as filters, older ones by themselves.
    let mut filters = fields.fields("filters").unwrap_or_default();
    let mut named = |key: &str| match (name(&mut fields, key), name(&mut filters, key)) {
        (Some(one), Some(other)) if one != other => refuse(cx, format!("body/filters/{key} must not differ from body/{key}")),
        (one, other) => Ok(one.or(other)),
    };
    let (user, run) = (named("user_id")?, named("run_id")?);
    let in_metadata = [named("agent_id")?, named("app_id")?];
    let mut given = map(&mut fields, "metadata").unwrap_or_default();
    for (key, name) in IN_METADATA.iter().zip(in_metadata) {
        let Some(name) = name else { continue };
        let name = Value::from(name.as_str());
        if given.get(*key).is_some_and(|old| *old != name) {
            wipe(&mut Value::Object(given));
            return refuse(cx, format!("body/metadata/{key} must not differ from body/{key}"));
        }
        given.insert((*key).to_owned(), name);
    }
    let mut given = Value::Object(given);
    let metadata = (given != json!({})).then(|| Zeroizing::new(given.to_string()));
    wipe(&mut given);
    if metadata.as_ref().is_some_and(|json| json.len() > limits::METADATA_BYTES_MAX) {
        return refuse(
            cx,
            format!("body/metadata must NOT have more than {} bytes, agent_id and app_id included", limits::METADATA_BYTES_MAX),
        );
    }
    let said = messages(&mut fields);
    if let Some(i) = said.iter().position(|message| message.content.chars().count() > limits::CONTENT_CHARS_MAX) {
        return refuse(cx, format!("body/messages/{i}/content must NOT have more than {} characters", limits::CONTENT_CHARS_MAX));
    }
    if let Some(refusal) = cx.api.further(cx.who, said.len().saturating_sub(1), cx.shape) {
        return Ok(refusal);
    }
    let phi = |text: &Option<Name>| text.as_ref().map(|text| Phi::new(text.as_str().to_owned()));
    let origin = cx.who.vendor().map_or(ORIGIN, |vendor| vendor.name());
    let indexed = cx.api.vault.has_index(cx.own());
    let memory = |Message { content, speaker }: Message| {
        let mut memory = NewMemory {
            text: Text {
                title: Phi::new(derived_title(&content)),
                content: Phi::new(content),
                tags: Vec::new(),
                metadata: phi(&metadata),
                speaker: phi(&speaker),
                run_id: phi(&run),
                subject: phi(&user),
            },
            origin: origin.to_owned(),
            allowed_vendors: vec!["*".to_owned()],
            kind: MemoryType::default(),
            occurred_at,
            created_at: None,
            prepared: None,
        };
        if indexed {
            memory.prepare();
        }
        memory
    };
    let new: Vec<_> = said.into_iter().map(memory).collect();
    let operation = cx.call.operation.to_string();
    cx.write::<CreateMemory, _, _>(
        cx.own(),
        &Words::MEMORY,
        move |access| memories::create_all(access, new),
        |memories, receipt| answers::added(memories, &operation, receipt),
    )
}

/// The memory that the path names, or the failure that there is none.
fn target(cx: &Cx<'_>, words: &Words) -> Result<MemoryId, Failure> {
    MemoryId::parse(cx.id).ok_or_else(|| cx.missing(words))
}

/// `GET /v1/memories/:id/`: what is in the trash is not there.
pub fn get(cx: &mut Cx<'_>) -> Answered {
    cx.read_later::<ReadMemory, _, _>(target(cx, &Words::MEMORY)?, &Words::MEMORY, in_sight, answers::memory)
}

/// What an update changes.
struct Change {
    content: Option<String>,
    /// As JSON text, without the names that the old metadata keeps.
    metadata: Option<Name>,
    occurred_at: Option<Timestamp>,
}

/// Takes a change out of checked fields; `place` is that of the fields.
fn change(cx: &Cx<'_>, fields: &mut Fields, place: &str) -> Result<Change, Failure> {
    let occurred_at = timestamp(cx, fields)?;
    let metadata = map(fields, "metadata").map(|map| {
        let mut value = Value::Object(map);
        let text = Zeroizing::new(value.to_string());
        wipe(&mut value);
        text
    });
    let change = Change { content: fields.text("text"), metadata, occurred_at };
    if change.content.is_none() && change.metadata.is_none() && change.occurred_at.is_none() {
        return refuse(cx, format!("{place} must have text, metadata or timestamp"));
    }
    Ok(change)
}

impl Change {
    /// The whole text that the change makes of `old`.
    fn of(self, access: &Access<'_, UpdateMemory>, old: &Memory) -> Replacement {
        let text = &old.text;
        let (title, content) = (text.title.expose(access), text.content.expose(access));
        // A title that was made of the message follows it.
        let title = match &self.content {
            Some(new) if title == derived_title(content) => derived_title(new),
            _ => title.to_owned(),
        };
        let metadata = self.metadata.map(|new| Phi::new(with_names(&new, text.metadata.as_ref().map(|old| old.expose(access)))));
        Replacement {
            title: Phi::new(title),
            content: Phi::new(self.content.unwrap_or_else(|| content.to_owned())),
            tags: text.tags.iter().map(|tag| Phi::new(tag.expose(access).to_owned())).collect(),
            allowed_vendors: old.allowed_vendors.clone(),
            metadata,
            speaker: None,
            run_id: None,
            occurred_at: self.occurred_at,
        }
    }
}

/// New metadata with the names that it leaves out and the old one has.
fn with_names(new: &str, old: Option<&str>) -> String {
    let read = |json: &str| match serde_json::from_str(json) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (mut new, mut old) = (read(new), old.map(read).unwrap_or_default());
    for key in IN_METADATA {
        if let Some(name) = old.remove(key)
            && !new.contains_key(key)
        {
            new.insert(key.to_owned(), name);
        }
    }
    let (mut new, mut old) = (Value::Object(new), Value::Object(old));
    let text = new.to_string();
    wipe(&mut new);
    wipe(&mut old);
    text
}

/// `PUT /v1/memories/:id/`
pub fn update(cx: &mut Cx<'_>) -> Answered {
    let mut fields = std::mem::take(&mut cx.fields);
    no_expiry(cx, &mut fields)?;
    let id = target(cx, &Words::UPDATE)?;
    let change = change(cx, &mut fields, "body")?;
    cx.write::<UpdateMemory, _, _>(
        id,
        &Words::UPDATE,
        move |access| memories::revise(access, |access, old| change.of(access, old)),
        answers::memory,
    )
}

/// `DELETE /v1/memories/:id/`
pub fn delete(cx: &mut Cx<'_>) -> Answered {
    let id = target(cx, &Words::DELETE)?;
    let done = memory_ops::moved::<TrashMemory>(cx, id, &Words::DELETE, memories::trash)?;
    Ok(cx.answer(done, |_, _| reply::json(&json!({ "message": "Memory deleted successfully!" }))))
}

/// `GET /v1/memories/:id/history/`
pub fn history(cx: &mut Cx<'_>) -> Answered {
    let id = target(cx, &Words::MEMORY)?;
    cx.read::<ReadVersions, _, _>(id, &Words::MEMORY, memories::history, |(earlier, current), receipt| {
        answers::history(earlier, current, receipt)
    })
}

/// The conditions of a list or a search: `filters`, and what older clients say beside them.
fn selection(cx: &Cx<'_>, fields: &mut Fields, place: &str) -> Result<Select, Failure> {
    let mut parts = vec![Select::Root];
    let mut read = |value: &mut Value, place: &str| {
        let select = filter::read(value, place);
        wipe(value);
        match select {
            Ok(select) => {
                parts.push(select);
                Ok(())
            }
            Err(text) => refuse(cx, text),
        }
    };
    if let Some(mut filters) = fields.value("filters").filter(|filters| !filters.is_null()) {
        read(&mut filters, &format!("{place}/filters"))?;
    }
    for key in ["user_id", "agent_id", "app_id", "run_id", "metadata", "categories"] {
        let given = fields.value(key).filter(|value| !value.is_null() && *value != json!([]) && *value != json!({}));
        if let Some(value) = given {
            read(&mut json!({ key: value }), place)?;
        }
    }
    for (key, operator) in [("start_date", "gte"), ("end_date", "lte")] {
        if let Some(value) = fields.value(key).filter(|value| !value.is_null()) {
            read(&mut json!({ "created_at": { operator: value } }), place)?;
        }
    }
    Ok(Select::All(parts))
}

/// The keys of each memory that the caller wants.
fn wanted(fields: &mut Fields) -> Option<Vec<String>> {
    fields.texts("fields").filter(|wanted| !wanted.is_empty())
}

/// How many memories a page has where nothing is said.
const PAGE_SIZE: usize = 100;

/// Which generation of the clients asks: they read lists differently.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Generation {
    /// Lists are arrays, unless paged or asked for as `v1.1`.
    Arrays,
    /// Lists are pages.
    Pages,
}

fn list(cx: &mut Cx<'_>, generation: Generation, place: &str) -> Answered {
    let mut fields = std::mem::take(&mut cx.fields);
    let select = selection(cx, &mut fields, place)?;
    let paged = generation == Generation::Pages || fields.has("page") || fields.has("page_size");
    let page = fields.count("page").unwrap_or(1);
    let size =
        if paged { fields.count("page_size").unwrap_or(PAGE_SIZE) } else { fields.count("top_k").unwrap_or(limits::LIST_RECORDS_MAX + 1) };
    let only = wanted(&mut fields);
    let wrapped = fields.text("output_format").as_deref() == Some("v1.1");
    let path = match (generation, place) {
        (Generation::Pages, _) => "/v3/memories/",
        (_, "body") => "/v2/memories/",
        _ => "/v1/memories/",
    };
    let from = (page - 1).saturating_mul(size);
    let done = cx.walk::<ListMemories, _, _>(cx.own(), &Words::MEMORY, |access| memories::list_selected(access, &select, from, size))?;
    Ok(cx.answer(done, |found, receipt| match (paged, wrapped) {
        (true, _) => answers::page(found, &answers::Place { path, page, size }, only.as_deref(), receipt),
        (false, true) => answers::results(&found.memories, only.as_deref(), receipt),
        (false, false) => answers::array(&found.memories, only.as_deref(), receipt),
    }))
}

/// `POST /v3/memories/`
pub fn list_pages(cx: &mut Cx<'_>) -> Answered {
    list(cx, Generation::Pages, "body")
}

/// `POST /v2/memories/`
pub fn list_arrays(cx: &mut Cx<'_>) -> Answered {
    list(cx, Generation::Arrays, "body")
}

/// `GET /v1/memories/`
pub fn list_by_query(cx: &mut Cx<'_>) -> Answered {
    list(cx, Generation::Arrays, "querystring")
}

fn search(cx: &mut Cx<'_>, generation: Generation) -> Answered {
    let mut fields = std::mem::take(&mut cx.fields);
    let select = selection(cx, &mut fields, "body")?;
    let query = Zeroizing::new(fields.text("query").expect("the route's schema requires it"));
    let limit = fields.count("top_k").or_else(|| fields.count("limit")).unwrap_or(10);
    let threshold = fields.number("threshold").unwrap_or(0.0);
    let only = wanted(&mut fields);
    let wrapped = generation == Generation::Pages || fields.text("output_format").as_deref() == Some("v1.1");
    let (own, words) = (cx.own(), &Words::MEMORY);
    let work = |access: &mut Access<'_, SearchMemories>| memories::rank_selected(access, &query, &select, threshold, limit);
    // What the index and the outlines decide is soon found.
    let done = if select.opens() {
        cx.walk::<SearchMemories, _, _>(own, words, work)?
    } else {
        cx.look::<SearchMemories, _, _>(own, words, work)?
    };
    Ok(cx.answer(done, |found, receipt| answers::found(found, wrapped, only.as_deref(), receipt)))
}

/// `POST /v3/memories/search/`
pub fn search_wrapped(cx: &mut Cx<'_>) -> Answered {
    search(cx, Generation::Pages)
}

/// `POST /v2/memories/search/` and `POST /v1/memories/search/`
pub fn search_arrays(cx: &mut Cx<'_>) -> Answered {
    search(cx, Generation::Arrays)
}

/// Moves what `select` chooses to the trash, in chunks, each a commit with its own entry. Gives what was moved and what was left: an agent trashes
/// only what it wrote itself.
fn trash(cx: &Cx<'_>, select: Select, message: &'static str) -> Answered {
    let select = Arc::new(select);
    let (mut moved, mut left, mut from, mut begun) = (0, 0, None, false);
    loop {
        let chosen = Arc::clone(&select);
        let step = cx.try_write::<TrashMemories, _, _>(cx.own(), move |access| memories::trash_selected(access, &chosen, from));
        match step.map(Recorded::into_parts) {
            Ok((step, receipt)) => {
                (moved, left, from, begun) = (moved + step.moved, left + step.left, step.next, true);
                if from.is_none() {
                    let body = json!({ "message": message, "deleted": moved, "kept": left });
                    return Ok(reply::recorded(200, Some(reply::json(&body)), &receipt));
                }
            }
            Err(refused) if begun => return Err(memory_ops::unfinished(&refused)),
            Err(refused) => return Err(Failure::refused(&refused, &Words::MEMORY)),
        }
    }
}

/// `DELETE /v1/memories/`: what carries all of the given names. `*` is any name; all four as `*` is everything.
pub fn delete_all(cx: &mut Cx<'_>) -> Answered {
    let mut fields = std::mem::take(&mut cx.fields);
    let given: Vec<_> = filter::NAMES.iter().filter_map(|(key, who)| Some((*who, Zeroizing::new(fields.text(key)?)))).collect();
    if given.is_empty() {
        return refuse(cx, "querystring must name what to delete: user_id, agent_id, app_id or run_id; all four as * is everything");
    }
    let everything = given.len() == filter::NAMES.len() && given.iter().all(|(_, name)| name.as_str() == "*");
    let named = given.into_iter().map(|(who, name)| match name.as_str() {
        "*" => Select::NamesAny(who),
        name => Select::Named(who, vec![Phi::new(name.to_owned())]),
    });
    let select = Select::All(if everything { Vec::new() } else { named.collect() });
    trash(cx, select, "Memories deleted successfully!")
}

/// The name in a path: percent-encoded UTF-8.
fn path_name(cx: &Cx<'_>) -> Option<Name> {
    // In a path a plus is a plus.
    let form = body::form(&format!("name={}", cx.id.replace('+', "%2B").replace('&', "%26"))).ok()?;
    match form {
        Value::Object(mut map) => match map.remove("name") {
            Some(Value::String(name)) if !name.is_empty() => Some(Zeroizing::new(name)),
            _ => None,
        },
        _ => None,
    }
}

/// `DELETE /v2/entities/…/:id/`: every memory of the asker's own that names it. Nobody's key is touched.
fn delete_entity(cx: &mut Cx<'_>, who: Who) -> Answered {
    let Some(name) = path_name(cx) else { return Err(cx.missing(&Words::ENTITY)) };
    trash(cx, Select::Named(who, vec![Phi::new(name.as_str().to_owned())]), "Entity deleted successfully!")
}

/// `DELETE /v2/entities/user/:id/`
pub fn delete_user(cx: &mut Cx<'_>) -> Answered {
    delete_entity(cx, Who::Subject)
}

/// `DELETE /v2/entities/agent/:id/`
pub fn delete_agent(cx: &mut Cx<'_>) -> Answered {
    delete_entity(cx, Who::Entity(EntityKind::Agent))
}

/// `DELETE /v2/entities/app/:id/`
pub fn delete_app(cx: &mut Cx<'_>) -> Answered {
    delete_entity(cx, Who::Entity(EntityKind::App))
}

/// `DELETE /v2/entities/run/:id/`
pub fn delete_run(cx: &mut Cx<'_>) -> Answered {
    delete_entity(cx, Who::Entity(EntityKind::Run))
}

/// `GET /v1/entities/`: whom and what the asker's memories name.
pub fn entities(cx: &mut Cx<'_>) -> Answered {
    let page = cx.fields.count("page").unwrap_or(1);
    let size = cx.fields.count("page_size").unwrap_or(limits::LIST_RECORDS_MAX);
    let from = (page - 1).saturating_mul(size);
    let done = cx.walk::<ListMemories, _, _>(cx.own(), &Words::MEMORY, |access| memories::named(access, from, size))?;
    Ok(cx.answer(done, |(named, total), receipt| {
        answers::entities(named, *total, &answers::Place { path: "/v1/entities/", page, size }, receipt)
    }))
}

/// Takes the memories that a batch names out of the body, each once.
fn batch(cx: &mut Cx<'_>) -> Result<Vec<(MemoryId, Fields)>, Failure> {
    let items = cx.fields.each("memories").expect("the route's schema requires it");
    let (mut named, mut seen) = (Vec::with_capacity(items.len()), BTreeSet::new());
    for (i, mut item) in items.into_iter().enumerate() {
        let id = item.text("memory_id").and_then(|id| MemoryId::parse(&id));
        let Some(id) = id else {
            return Err(cx.refuse(Reason::NotFound, 404, format!("body/memories/{i}: {}; nothing was done", Words::MEMORY.missing)));
        };
        if !seen.insert(id) {
            return refuse(cx, format!("body/memories/{i} must not name a memory that was named before"));
        }
        named.push((id, item));
    }
    Ok(named)
}

/// Does each step of a batch, each a commit with its own entry as each memory has its own policy, and each a request to the rate limit; stops at the
/// first that is refused, and says how many were done.
fn each_of_batch<T>(cx: &Cx<'_>, steps: Vec<T>, message: &'static str, mut step: impl FnMut(T) -> Done<Memory>) -> Answered {
    let (total, mut last) = (steps.len(), None);
    if let Some(refusal) = cx.api.further(cx.who, total.saturating_sub(1), cx.shape) {
        return Ok(refusal);
    }
    for (i, item) in steps.into_iter().enumerate() {
        match step(item) {
            Ok(done) => last = Some(done.into_parts().1),
            Err(failure) => {
                return Err(Failure {
                    text: format!("body/memories/{i}: {}; {i} of {total} were done before it", failure.text).into(),
                    ..failure
                });
            }
        }
    }
    let receipt = last.expect("the schema asks for one at least");
    Ok(reply::recorded(200, Some(reply::json(&json!({ "message": format!("{message} {total} memories") }))), &receipt))
}

/// `PUT /v1/batch/`
pub fn batch_update(cx: &mut Cx<'_>) -> Answered {
    let mut steps = Vec::new();
    for (i, (id, mut fields)) in batch(cx)?.into_iter().enumerate() {
        steps.push((id, change(cx, &mut fields, &format!("body/memories/{i}"))?));
    }
    each_of_batch(cx, steps, "Successfully updated", |(id, change)| {
        cx.change::<UpdateMemory, _, _>(id, &Words::UPDATE, move |access| memories::revise(access, |access, old| change.of(access, old)))
    })
}

/// `DELETE /v1/batch/`
pub fn batch_delete(cx: &mut Cx<'_>) -> Answered {
    let steps = batch(cx)?;
    each_of_batch(cx, steps, "Successfully deleted", |(id, _)| memory_ops::moved::<TrashMemory>(cx, id, &Words::DELETE, memories::trash))
}

/// `POST /v1/feedback/`: a reply to the memory, so that it is sealed, seen and deleted as the memory is.
pub fn feedback(cx: &mut Cx<'_>) -> Answered {
    let mut fields = std::mem::take(&mut cx.fields);
    let id = fields.text("memory_id").and_then(|id| MemoryId::parse(&id)).ok_or_else(|| cx.missing(&Words::MEMORY))?;
    let (verdict, reason) = (fields.text("feedback"), fields.text("feedback_reason").map(Zeroizing::new));
    let said = verdict.as_deref().unwrap_or("WITHDRAWN");
    let content = match &reason {
        Some(reason) => format!("{said}: {}", reason.as_str()),
        None => said.to_owned(),
    };
    let mut new = NewMemory {
        text: Text {
            title: Phi::new("Feedback".to_owned()),
            content: Phi::new(content),
            tags: vec![Phi::new("feedback".to_owned())],
            metadata: Some(Phi::new(json!({ "feedback": verdict }).to_string())),
            speaker: None,
            run_id: None,
            subject: None,
        },
        origin: cx.who.vendor().map_or(ORIGIN, |vendor| vendor.name()).to_owned(),
        allowed_vendors: Vec::new(),
        kind: MemoryType::default(),
        occurred_at: None,
        created_at: None,
        prepared: None,
    };
    cx.write::<ReplyToMemory, _, _>(
        id,
        &Words::MEMORY,
        move |access| {
            memories::reply_to(access, Part::Full, |access, parent| {
                // It is about whom the memory is about; seen it is by whom the memory is seen by, as it names nobody.
                new.text.subject = parent.text.subject.as_ref().map(|name| Phi::new(name.expose(access).to_owned()));
                new
            })
        },
        |reply, _| reply::json(&json!({ "message": "Feedback kept as a reply to the memory", "id": reply.id.to_string() })),
    )
}
