//! A person's memories; what agents share of these routes is in `agent`.

use serde::Serialize;
use serde_json::{Value, json};

use super::required;
use crate::api::reply::{self, Answered, Done, Failure, Words};
use crate::api::run::Cx;
use crate::api::schema::{Fields, wipe};
use crate::audit::Reason;
use crate::base::id::MemoryId;
use crate::memories::{self, Filter};
use crate::policy::action::{
    CreateMemory, EmptyTrash, ListMemories, PurgeMemory, ReadMemory, ReadThread, ReadVersions, ReplyToMemory, RestoreMemory, TrashMemory,
    UpdateMemory, Writes,
};
use crate::store::gate::{Access, Receipt, Recorded, Refused};
use crate::store::memories::{Memory, MemoryType, Moved, NewMemory, OrderPlace, Part, Replacement, Text};
use crate::store::phi::Phi;
use crate::store::writer::Unavailable;

/// The contract's list.
#[derive(Serialize)]
struct Listed<'a> {
    memories: Vec<reply::Record<'a>>,
}

/// The new memory of a checked body, written by `origin`; `Err` names an unknown vendor's refusal.
fn new_memory(cx: &mut Cx<'_>, origin: String) -> Result<NewMemory, Failure> {
    // Left out it is nobody here; `memories::reply_to` says who then.
    let allowed_vendors = vendors(cx)?.unwrap_or_default();
    let mut new = NewMemory {
        text: Text {
            title: Phi::new(required(cx, "title")),
            content: Phi::new(required(cx, "content")),
            tags: tags(&mut cx.fields),
            metadata: metadata(&mut cx.fields),
            speaker: cx.fields.text("speaker").map(Phi::new),
            run_id: cx.fields.text("run_id").map(Phi::new),
            subject: cx.fields.text("subject").map(Phi::new),
        },
        origin,
        allowed_vendors,
        kind: cx.fields.text("memory_type").and_then(|name| MemoryType::parse(&name)).unwrap_or_default(),
        occurred_at: cx.fields.time("occurred_at"),
        created_at: None,
        prepared: None,
    };
    if !new.allowed_vendors.is_empty() && cx.api.vault.has_index(cx.own()) {
        new.prepare();
    }
    Ok(new)
}

fn tags(fields: &mut Fields) -> Vec<Phi> {
    fields.texts("tags").unwrap_or_default().into_iter().map(Phi::new).collect()
}

fn metadata(fields: &mut Fields) -> Option<Phi> {
    fields.map("metadata").map(|map| {
        let mut value = Value::Object(map);
        let text = Phi::new(value.to_string());
        wipe(&mut value);
        text
    })
}

/// Each entry, if there are any, is `*` or a vendor with a configured key. What was sent is not repeated in the error.
fn vendors(cx: &mut Cx<'_>) -> Result<Option<Vec<String>>, Failure> {
    let asked = cx.fields.texts("allowed_vendors");
    if asked.iter().flatten().all(|vendor| vendor == "*" || cx.api.vendors.contains(vendor)) {
        return Ok(asked);
    }
    let known: Vec<String> = std::iter::once("*").chain(cx.api.vendors.iter().map(String::as_str)).map(|v| format!("\"{v}\"")).collect();
    Err(cx.refuse(Reason::InvalidVendor, 400, format!("Invalid vendor in allowed_vendors. Valid: {}", known.join(", "))))
}

/// The filter of a checked body.
pub(super) fn filter(fields: &mut Fields) -> Filter {
    filter_named(fields, "filter")
}

/// The filter of a checked body under this key.
pub(super) fn filter_named(fields: &mut Fields, name: &str) -> Filter {
    let mut filter = fields.fields(name).expect("the route's schema requires it");
    let by = filter.text("by").expect("the schema requires it");
    let mut text = |name: &str| filter.text(name).expect("the variant requires it");
    match by.as_str() {
        "search" => Filter::Search(text("term")),
        "origin" => Filter::Origin(text("origin")),
        "tags" => Filter::Tags(filter.texts("tags").expect("the variant requires it")),
        "ids" => Filter::Ids(filter.texts("ids").expect("the variant requires it")),
        "trashed" => Filter::Trashed,
        _ => Filter::All,
    }
}

/// The memory that the request names, or the failure that there is none.
pub(super) fn target(cx: &Cx<'_>, words: &Words) -> Result<MemoryId, Failure> {
    MemoryId::parse(cx.id).ok_or_else(|| cx.missing(words))
}

/// The contract's record.
pub(super) fn record(cx: &Cx<'_>, done: Done<Memory>) -> Answered {
    Ok(cx.answer(done?, whole))
}

/// The contract's record, as bytes.
pub(super) fn whole(memory: &Memory, receipt: &Receipt) -> Vec<u8> {
    reply::json(&reply::record(memory, receipt))
}

/// Writes the memory of a checked body as `origin`.
pub fn create_as(cx: &mut Cx<'_>, origin: String) -> Done<Memory> {
    let new = new_memory(cx, origin)?;
    cx.change::<CreateMemory, _, _>(cx.own(), &Words::MEMORY, move |access| memories::create(access, new))
}

/// As [`create_as`], answered with the contract's record.
pub(super) fn created(cx: &mut Cx<'_>, origin: String) -> Answered {
    let new = new_memory(cx, origin)?;
    cx.write_later::<CreateMemory, _, _>(cx.own(), &Words::MEMORY, move |access| memories::create(access, new), whole)
}

/// `POST /memories`
pub fn create(cx: &mut Cx<'_>) -> Answered {
    created(cx, cx.origin().to_owned())
}

/// `GET /memories/:id`
pub fn read(cx: &mut Cx<'_>) -> Answered {
    cx.read_later::<ReadMemory, _, _>(target(cx, &Words::MEMORY)?, &Words::MEMORY, memories::read, whole)
}

/// Replaces the text of the named memory.
pub fn updated(cx: &mut Cx<'_>) -> Done<Memory> {
    let id = target(cx, &Words::UPDATE)?;
    let asked = vendors(cx)?;
    let new = Replacement {
        allowed_vendors: Vec::new(),
        title: Phi::new(required(cx, "title")),
        content: Phi::new(required(cx, "content")),
        tags: tags(&mut cx.fields),
        metadata: metadata(&mut cx.fields),
        speaker: cx.fields.text("speaker").map(Phi::new),
        run_id: cx.fields.text("run_id").map(Phi::new),
        occurred_at: cx.fields.time("occurred_at"),
    };
    cx.change::<UpdateMemory, _, _>(id, &Words::UPDATE, move |access| {
        memories::revise(access, |_, old| Replacement { allowed_vendors: asked.unwrap_or_else(|| old.allowed_vendors.clone()), ..new })
    })
}

/// `PUT /memories/:id` and `PUT /agent/memories/:id`
pub fn update(cx: &mut Cx<'_>) -> Answered {
    let done = updated(cx);
    record(cx, done)
}

/// One commit of a move, from this reply on.
type Step<A> = for<'t> fn(&mut Access<'t, A>, Option<OrderPlace>) -> Result<Moved<Memory>, memories::Refusal>;

/// Moves a memory with its replies, in as many commits as that takes, each with an entry of its own.
pub(in crate::api) fn moved<A: Writes<Target = MemoryId>>(cx: &Cx<'_>, id: MemoryId, words: &Words, step: Step<A>) -> Done<Memory> {
    let mut after = None;
    loop {
        let done = cx.try_write::<A, _, _>(id, move |access| step(access, after)).map_err(|refused| match after {
            None => Failure::refused(&refused, words),
            Some(_) => unfinished(&refused),
        })?;
        let whole = done.try_map(|moved| match moved {
            Moved::All(memory) => Ok(memory),
            Moved::UpTo { reply, .. } => Err(reply),
        });
        match whole {
            Ok(done) => return Ok(done),
            Err(reply) => after = Some(reply),
        }
    }
}

/// Moves the named memory to the trash.
pub fn trashed(cx: &mut Cx<'_>) -> Done<Memory> {
    let id = target(cx, &Words::DELETE)?;
    moved::<TrashMemory>(cx, id, &Words::DELETE, memories::trash)
}

/// `DELETE /memories/:id`
pub fn trash(cx: &mut Cx<'_>) -> Answered {
    let done = trashed(cx);
    record(cx, done)
}

/// `POST /memories/:id/restore`
pub fn restore(cx: &mut Cx<'_>) -> Answered {
    let id = target(cx, &Words::RESTORE)?;
    record(cx, moved::<RestoreMemory>(cx, id, &Words::RESTORE, memories::restore))
}

/// What a move or a removal in several commits answers when one of them did not come about: never that nothing was done.
pub(in crate::api) fn unfinished(refused: &Refused<memories::Refusal>) -> Failure {
    match refused {
        Refused::Unavailable(why) if !matches!(why, Unavailable::Unknown(_)) => {
            Failure::new(503, "Only a part was done; ask again for the rest")
        }
        refused => Failure::refused(refused, &Words::MEMORY),
    }
}

/// `DELETE /memories/:id/permanent`: a long history in chunks, each a commit with its own entry.
pub fn purge(cx: &mut Cx<'_>) -> Answered {
    let id = target(cx, &Words::MEMORY)?;
    let mut begun = false;
    loop {
        match cx.try_write::<PurgeMemory, _, _>(id, memories::purge).map(Recorded::into_parts) {
            Ok((true, receipt)) => return Ok(reply::recorded(204, None, &receipt)),
            Ok((false, _)) => begun = true,
            Err(refused) if begun => return Err(unfinished(&refused)),
            Err(refused) => return Err(Failure::refused(&refused, &Words::MEMORY)),
        }
    }
}

/// `DELETE /memories/trash`: in chunks, each a commit with its own entry.
pub fn empty_trash(cx: &mut Cx<'_>) -> Answered {
    let (mut deleted, mut begun) = (0, false);
    loop {
        match cx.try_write::<EmptyTrash, _, _>(cx.own(), memories::empty_trash).map(Recorded::into_parts) {
            Ok(((removed, whole), receipt)) => {
                (deleted, begun) = (deleted + removed, true);
                if whole {
                    return Ok(reply::recorded(200, Some(reply::json(&json!({ "deleted": deleted }))), &receipt));
                }
            }
            Err(refused) if begun => return Err(unfinished(&refused)),
            Err(refused) => return Err(Failure::refused(&refused, &Words::MEMORY)),
        }
    }
}

/// `POST /memories/list`
pub fn list(cx: &mut Cx<'_>) -> Answered {
    let filter = filter(&mut cx.fields);
    let (limit, offset) = (cx.fields.count("limit"), cx.fields.count("offset").unwrap_or(0));
    cx.read::<ListMemories, _, _>(
        cx.own(),
        &Words::MEMORY,
        |access| match limit {
            Some(limit) => memories::list(access, &filter, Part::Full, offset, limit),
            None => memories::list_all(access, &filter),
        },
        |page, receipt| reply::json(&Listed { memories: reply::all(&page.memories, receipt, reply::record) }),
    )
}

/// `GET /memories/:id/versions`
pub fn versions(cx: &mut Cx<'_>) -> Answered {
    let id = target(cx, &Words::MEMORY)?;
    cx.read::<ReadVersions, _, _>(id, &Words::MEMORY, memories::versions, |(versions, _), receipt| {
        reply::json(&json!({ "versions": reply::all(versions, receipt, reply::version) }))
    })
}

/// Replies to the named memory as `origin`.
pub fn reply_as(cx: &mut Cx<'_>, origin: String) -> Done<Memory> {
    let id = target(cx, &Words::PARENT)?;
    let new = new_memory(cx, origin)?;
    cx.change::<ReplyToMemory, _, _>(id, &Words::PARENT, move |access| memories::reply(access, new))
}

/// `POST /memories/:id/children`
pub fn reply(cx: &mut Cx<'_>) -> Answered {
    let done = reply_as(cx, cx.origin().to_owned());
    record(cx, done)
}

/// The thread of the named memory: its parent (or itself) and the replies.
pub fn threaded(cx: &Cx<'_>) -> Done<(Memory, Vec<Memory>)> {
    let id = target(cx, &Words::MEMORY)?;
    cx.look::<ReadThread, _, _>(id, &Words::MEMORY, memories::thread)
}

/// `GET /memories/:id/thread`
pub fn thread(cx: &mut Cx<'_>) -> Answered {
    let done = threaded(cx);
    whole_thread(cx, done)
}

/// The contract's thread.
pub(super) fn whole_thread(cx: &Cx<'_>, done: Done<(Memory, Vec<Memory>)>) -> Answered {
    Ok(cx.answer(done?, |(parent, children), receipt| {
        reply::json(&json!({ "parent": reply::record(parent, receipt), "children": reply::all(children, receipt, reply::record) }))
    }))
}
