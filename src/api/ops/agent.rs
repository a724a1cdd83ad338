//! The agent routes. A person's key may call them too; then no vendor filter applies.

use serde::Serialize;
use serde_json::json;

use super::memories::{created, filter, record, reply_as, target, trashed, whole, whole_thread};
use super::required;
use crate::api::reply::{self, Answered, Done, View, Words};
use crate::api::run::Cx;
use crate::memories::{self, Filter, Page, Refusal};
use crate::policy::action::{ListMemories, ReadMemory, ReadThread, ReadVersions, SearchMemories};
use crate::store::Receipt;
use crate::store::gate::Access;
use crate::store::memories::{Memory, Part};

/// Who writes: an agent's vendor, whatever the body says; else the body's `origin`, else `user`.
fn origin(cx: &mut Cx<'_>) -> String {
    let stated = cx.fields.text("origin");
    match cx.who.vendor() {
        Some(vendor) => vendor.name().to_owned(),
        None if cx.who.by_dashboard() => cx.origin().to_owned(),
        None => stated.unwrap_or_else(|| "user".to_owned()),
    }
}

/// `POST /agent/memories`
pub fn create(cx: &mut Cx<'_>) -> Answered {
    let origin = origin(cx);
    created(cx, origin)
}

/// The newest memory, of a tag or an origin if the fields name one.
pub fn newest(cx: &mut Cx<'_>) -> Done<Memory> {
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (tag, origin) = (some(cx.fields.text("tag")), some(cx.fields.text("origin")));
    cx.look::<ListMemories, _, _>(cx.own(), &Words::MEMORY, |access| memories::latest(access, tag.as_deref(), origin.as_deref()))
}

/// `GET /agent/memories/latest`
pub fn latest(cx: &mut Cx<'_>) -> Answered {
    let done = newest(cx);
    record(cx, done)
}

/// The granted memory; what is in the trash is not there.
pub fn in_sight(access: &mut Access<'_, ReadMemory>) -> Result<Memory, Refusal> {
    let memory = memories::read(access)?;
    if memory.deleted_at.is_some() { Err(Refusal::NotFound) } else { Ok(memory) }
}

/// The named memory; what is in the trash is not there.
pub fn live(cx: &Cx<'_>) -> Done<Memory> {
    cx.look::<ReadMemory, _, _>(target(cx, &Words::MEMORY)?, &Words::MEMORY, in_sight)
}

/// `GET /agent/memories/:id`
pub fn read(cx: &mut Cx<'_>) -> Answered {
    cx.read_later::<ReadMemory, _, _>(target(cx, &Words::MEMORY)?, &Words::MEMORY, in_sight, whole)
}

/// `DELETE /agent/memories/:id`
pub fn delete(cx: &mut Cx<'_>) -> Answered {
    let done = trashed(cx)?;
    Ok(cx.answer(done, |memory, receipt| {
        reply::json(&json!({ "deleted": true, "id": memory.id.to_string(), "title": memory.text.title.expose(receipt) }))
    }))
}

/// `GET /agent/memories/:id/versions`
pub fn versions(cx: &mut Cx<'_>) -> Answered {
    let id = target(cx, &Words::MEMORY)?;
    let work = |access: &mut Access<'_, _>| memories::alive(access).and_then(|()| memories::versions(access));
    cx.read::<ReadVersions, _, _>(id, &Words::MEMORY, work, |(versions, current), receipt| {
        reply::json(&json!({ "versions": reply::all(versions, receipt, reply::version), "current_version": current }))
    })
}

/// `GET /agent/memories/:id/thread`
pub fn thread(cx: &mut Cx<'_>) -> Answered {
    let id = target(cx, &Words::MEMORY)?;
    let done = cx.look::<ReadThread, _, _>(id, &Words::MEMORY, |access| {
        memories::alive(access)?;
        let thread = memories::thread(access)?;
        if thread.0.deleted_at.is_some() { Err(Refusal::NotFound) } else { Ok(thread) }
    });
    whole_thread(cx, done)
}

/// `POST /agent/memories/:id/children`
pub fn reply(cx: &mut Cx<'_>) -> Answered {
    let origin = origin(cx);
    let done = reply_as(cx, origin);
    record(cx, done)
}

/// How a list shows a memory.
type Each = for<'a> fn(&'a Memory, &Receipt) -> View<'a>;

/// The contract's page envelope.
#[derive(Serialize)]
struct PageView<'a> {
    memories: Vec<View<'a>>,
    total: u64,
    limit: usize,
    offset: usize,
    has_more: bool,
}

fn page_of(page: &Page, receipt: &Receipt, limit: usize, offset: usize, each: Each) -> Vec<u8> {
    reply::json(&PageView {
        memories: reply::all(&page.memories, receipt, each),
        total: page.total,
        limit,
        offset,
        has_more: has_more(page, offset),
    })
}

/// Whether there is more behind a page from `offset` on.
pub fn has_more(page: &Page, offset: usize) -> bool {
    let end = u64::try_from(offset.saturating_add(page.memories.len())).unwrap_or(u64::MAX);
    !page.memories.is_empty() && end < page.total
}

/// Which page the fields ask for: its limit and its offset.
pub fn place(cx: &Cx<'_>) -> (usize, usize) {
    (cx.fields.count("limit").expect("the schema has a default"), cx.fields.count("offset").unwrap_or(0))
}

/// A page of what `filter` chooses. The trash shows an agent route its size, never its memories.
pub fn paged(cx: &Cx<'_>, filter: &Filter, part: Part) -> Done<Page> {
    let (limit, offset) = place(cx);
    let trashed = matches!(filter, Filter::Trashed);
    cx.look::<ListMemories, _, _>(cx.own(), &Words::MEMORY, |access| {
        memories::list(access, filter, part, offset, if trashed { 0 } else { limit })
    })
}

fn page(cx: &mut Cx<'_>, filter: &Filter, part: Part, each: Each) -> Answered {
    let (limit, offset) = place(cx);
    Ok(cx.answer(paged(cx, filter, part)?, |page, receipt| page_of(page, receipt, limit, offset, each)))
}

/// `POST /agent/memories/browse`
pub fn browse(cx: &mut Cx<'_>) -> Answered {
    let filter = filter(&mut cx.fields);
    page(cx, &filter, Part::Summary, reply::summary)
}

/// `POST /agent/memories/by-tag`
pub fn by_tag(cx: &mut Cx<'_>) -> Answered {
    let filter = Filter::Tags(cx.fields.texts("tags").expect("the schema requires it"));
    page(cx, &filter, Part::Full, reply::whole)
}

/// The contract's list with its length.
#[derive(Serialize)]
struct Counted<'a> {
    memories: Vec<reply::Record<'a>>,
    count: usize,
}

fn counted(memories: &[Memory], receipt: &Receipt) -> Vec<u8> {
    reply::json(&Counted { memories: reply::all(memories, receipt, reply::record), count: memories.len() })
}

/// The contract's literal search, most relevant first.
pub fn found(cx: &mut Cx<'_>) -> Done<Vec<Memory>> {
    let term = required(cx, "term");
    let limit = cx.fields.count("limit").expect("the schema has a default");
    cx.look::<SearchMemories, _, _>(cx.own(), &Words::MEMORY, |access| {
        if term.trim().is_empty() { Ok(Vec::new()) } else { memories::find(access, &term, limit) }
    })
}

/// `POST /agent/memories/search`
pub fn search(cx: &mut Cx<'_>) -> Answered {
    let done = found(cx)?;
    Ok(cx.answer(done, |memories, receipt| counted(memories, receipt)))
}

/// `POST /agent/memories/list`
pub fn list(cx: &mut Cx<'_>) -> Answered {
    let limit = cx.fields.count("limit").expect("the schema has a default");
    cx.read::<ListMemories, _, Refusal>(
        cx.own(),
        &Words::MEMORY,
        |access| Ok(memories::list(access, &Filter::All, Part::Full, 0, limit)?.memories),
        |memories, receipt| counted(memories, receipt),
    )
}
