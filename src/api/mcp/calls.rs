//! What each tool does: the operations of REST, their answers written as MCP shows them.
//!
//! Invariants
//! - A tool has one verb, and does nothing that its verb does not name.
//! - What it tells is made from a receipt; the text is for the model, the structured content says the same to the program.

use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::api::briefing;
use crate::api::ops::{agent, memories as memory_ops};
use crate::api::reply::{self, Done, Failure, View, Words};
use crate::api::run::Cx;
use crate::audit::Reason;
use crate::base::id::{MemoryId, UserId};
use crate::memories::briefing::{Ask, brief};
use crate::memories::{self, Filter, Page, Question};
use crate::policy::action::{BriefMemories, ListMemories, ReadAround, SearchMemories};
use crate::store::Receipt;
use crate::store::gate::Recorded;
use crate::store::memories::{Memory, Part};
use crate::store::tx::Held;

/// What a tool tells when it went well.
pub struct Told {
    /// For the model.
    pub text: Zeroizing<String>,
    /// JSON of the same, an object.
    pub structured: Zeroizing<Vec<u8>>,
    /// Of the audit entry.
    pub index: u64,
    /// The answer's place among the large ones.
    pub held: Option<Held>,
}

/// What a call came to.
pub type Called = Result<Told, Failure>;

fn pretty(value: &impl Serialize) -> Zeroizing<String> {
    Zeroizing::new(serde_json::to_string_pretty(value).expect("a view has string keys and numbers that JSON can hold"))
}

fn compact(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(reply::json(value))
}

/// Tells a recorded value as `tell` writes it: text, and JSON.
fn told<T>(mut done: Recorded<T>, tell: impl FnOnce(&T, &Receipt) -> (Zeroizing<String>, Zeroizing<Vec<u8>>)) -> Told {
    let held = done.hold();
    let (value, receipt) = done.into_parts();
    let (text, structured) = tell(&value, &receipt);
    Told { text, structured, index: receipt.index(), held }
}

/// An object, told the same to both.
fn same(view: &impl Serialize) -> (Zeroizing<String>, Zeroizing<Vec<u8>>) {
    (pretty(view), compact(view))
}

fn record(done: Done<Memory>) -> Called {
    Ok(told(done?, |memory, receipt| same(&reply::record(memory, receipt))))
}

/// Records: an array for the model, as the contract has it; an object for the program, as MCP's older versions want it.
fn records(memories: &[Memory], receipt: &Receipt) -> (Zeroizing<String>, Zeroizing<Vec<u8>>) {
    #[derive(Serialize)]
    struct Records<'a> {
        memories: Vec<reply::Record<'a>>,
    }
    let records = Records { memories: reply::all(memories, receipt, reply::record) };
    (pretty(&records.memories), compact(&records))
}

/// Whether the arguments ask for what is shared with the asker alone: whoever has no org has none of that.
fn is_shared(cx: &mut Cx<'_>) -> (&'static str, bool) {
    match cx.fields.text("scope").as_deref() {
        Some("org") => ("org", true),
        Some("team") => ("team", true),
        Some("personal") => ("personal", false),
        _ => ("all", false),
    }
}

/// `read_memories`
pub fn read(cx: &mut Cx<'_>) -> Called {
    let page = agent::paged(cx, &Filter::All, Part::Full)?;
    Ok(told(page, |page, receipt| records(&page.memories, receipt)))
}

/// How much a briefing of MCP holds.
pub const ASK: Ask = Ask { top_tags: 30, recency_days: 7, active_threads: 5, topics: true };

/// `get_memory_briefing`
pub fn briefing(cx: &mut Cx<'_>) -> Called {
    let json = cx.fields.text("format").is_some_and(|format| format == "json");
    let done = cx.walk::<BriefMemories, _, _>(cx.own(), &Words::MEMORY, |access| brief(access, &ASK))?;
    Ok(told(done, |found, receipt| {
        let structured = Zeroizing::new(briefing::json(found, receipt));
        let text = if json {
            let value = Zeroizing::new(String::from_utf8_lossy(&structured).into_owned());
            let mut value = serde_json::from_str::<serde_json::Value>(&value).unwrap_or_default();
            let text = pretty(&value);
            crate::api::schema::wipe(&mut value);
            text
        } else {
            Zeroizing::new(briefing::markdown(found, receipt))
        };
        (text, structured)
    }))
}

/// `get_memory_by_id`
pub fn by_id(cx: &mut Cx<'_>) -> Called {
    record(agent::live(cx))
}

/// `get_latest_memory`
pub fn latest(cx: &mut Cx<'_>) -> Called {
    record(agent::newest(cx))
}

/// The contract's page envelope, with its scope.
#[derive(Serialize)]
struct Scoped<'a> {
    memories: Vec<View<'a>>,
    total: u64,
    limit: usize,
    offset: usize,
    scope: &'static str,
    has_more: bool,
}

fn page(cx: &mut Cx<'_>, filter: &Filter, part: Part, each: for<'a> fn(&'a Memory, &Receipt) -> View<'a>) -> Called {
    let (scope, shared) = is_shared(cx);
    let (limit, offset) = agent::place(cx);
    let page = if shared { nothing_shared(cx) } else { agent::paged(cx, filter, part) };
    Ok(told(page?, |page, receipt| {
        same(&Scoped {
            memories: reply::all(&page.memories, receipt, each),
            total: page.total,
            limit,
            offset,
            scope,
            has_more: agent::has_more(page, offset),
        })
    }))
}

fn nothing_shared(cx: &Cx<'_>) -> Done<Page> {
    cx.look::<ListMemories, _, memories::Refusal>(cx.own(), &Words::MEMORY, |_| Ok(Page { memories: Vec::new(), total: 0 }))
}

/// `browse_memories`
pub fn browse(cx: &mut Cx<'_>) -> Called {
    page(cx, &Filter::All, Part::Summary, reply::summary)
}

/// `get_memories_by_tag`
pub fn by_tag(cx: &mut Cx<'_>) -> Called {
    let filter = Filter::Tags(cx.fields.texts("tags").expect("the schema requires it"));
    page(cx, &filter, Part::Full, reply::whole)
}

/// `search_memories`
pub fn search(cx: &mut Cx<'_>) -> Called {
    let (_, shared) = is_shared(cx);
    let done = if shared {
        cx.look::<SearchMemories, _, memories::Refusal>(cx.own(), &Words::MEMORY, |_| Ok(Vec::new()))?
    } else if cx.fields.flag("ranked") == Some(true) {
        let question = Question {
            query: cx.fields.text("term").expect("the schema requires it"),
            limit: cx.fields.count("limit").expect("the schema has a default"),
            tags: Vec::new(),
            subject: None,
            since: None,
            until: None,
            explain: false,
        };
        cx.look::<SearchMemories, _, memories::Refusal>(cx.own(), &Words::MEMORY, |access| {
            Ok(memories::rank(access, &question)?.into_iter().map(|(memory, _)| memory).collect())
        })?
    } else {
        agent::found(cx)?
    };
    Ok(told(done, |memories, receipt| records(memories, receipt)))
}

fn origin(cx: &Cx<'_>) -> String {
    cx.who.vendor().map_or_else(String::new, |vendor| vendor.name().to_owned())
}

/// `write_memory`
pub fn write(cx: &mut Cx<'_>) -> Called {
    let origin = origin(cx);
    record(memory_ops::create_as(cx, origin))
}

/// `update_memory`
pub fn update(cx: &mut Cx<'_>) -> Called {
    record(memory_ops::updated(cx))
}

/// `delete_memory`
pub fn delete(cx: &mut Cx<'_>) -> Called {
    Ok(told(memory_ops::trashed(cx)?, |memory, receipt| {
        let title = memory.text.title.expose(receipt);
        let text = Zeroizing::new(format!("Memory \"{title}\" moved to the trash"));
        (text, compact(&json!({ "deleted": true, "id": memory.id.to_string(), "title": title })))
    }))
}

/// `read_org_memories` and `read_team_memories`: whoever asks has no org here.
pub fn pool(cx: &mut Cx<'_>) -> Called {
    Err(cx.refuse(Reason::NotFound, 404, "Not a member of any team"))
}

/// `share_memory`: there is nobody to share it with.
pub fn share(cx: &mut Cx<'_>) -> Called {
    Err(cx.refuse(Reason::NotFound, 404, "Not a member of any team"))
}

/// `write_child_memory`
pub fn reply(cx: &mut Cx<'_>) -> Called {
    let origin = origin(cx);
    record(memory_ops::reply_as(cx, origin))
}

/// `read_thread`
pub fn thread(cx: &mut Cx<'_>) -> Called {
    #[derive(Serialize)]
    struct Thread<'a> {
        parent: reply::Record<'a>,
        children: Vec<reply::Record<'a>>,
    }
    Ok(told(memory_ops::threaded(cx)?, |(parent, children), receipt| {
        same(&Thread { parent: reply::record(parent, receipt), children: reply::all(children, receipt, reply::record) })
    }))
}

/// One memory of the graph.
#[derive(Serialize)]
struct Node<'a> {
    id: String,
    title: &'a str,
    tags: Vec<&'a str>,
    user_id: String,
    shared_with_org_id: (),
    parent_memory_id: Option<String>,
    created_at: String,
    relation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_tag_count: Option<usize>,
}

/// The contract's graph around a memory.
#[derive(Serialize)]
struct Around<'a> {
    center: Node<'a>,
    parent: Option<Node<'a>>,
    children: Vec<Node<'a>>,
    siblings: Vec<Node<'a>>,
    tag_similar: Vec<Node<'a>>,
    references: Vec<Node<'a>>,
    referenced_by: Vec<Node<'a>>,
}

/// `get_graph_around`
pub fn around(cx: &mut Cx<'_>) -> Called {
    let Some(id) = MemoryId::parse(cx.id) else { return Err(cx.missing(&Words::MEMORY)) };
    let shared = cx.fields.count("min_shared_tags").expect("the schema has a default");
    let most = cx.fields.count("top_tag_similar").expect("the schema has a default");
    let done = cx.walk::<ReadAround, _, _>(cx.own(), &Words::MEMORY, |access| memories::around(access, id, shared, most))?;
    let owner = cx.who.user();
    Ok(told(done, |near, receipt| {
        let one = |memory, relation| node(memory, owner, relation, receipt);
        fn all<'a>(memories: &'a [Memory], one: impl Fn(&'a Memory) -> Node<'a>) -> Vec<Node<'a>> {
            memories.iter().map(one).collect()
        }
        same(&Around {
            center: one(&near.center, "center"),
            parent: near.parent.as_ref().map(|memory| one(memory, "parent")),
            children: all(&near.children, |memory| one(memory, "child")),
            siblings: all(&near.siblings, |memory| one(memory, "sibling")),
            tag_similar: near.similar.iter().map(|(memory, n)| Node { shared_tag_count: Some(*n), ..one(memory, "tag_similar") }).collect(),
            references: all(&near.references, |memory| one(memory, "reference")),
            referenced_by: all(&near.referenced_by, |memory| one(memory, "referenced_by")),
        })
    }))
}

fn node<'a>(memory: &'a Memory, owner: UserId, relation: &'static str, receipt: &Receipt) -> Node<'a> {
    Node {
        id: memory.id.to_string(),
        title: memory.text.title.expose(receipt),
        tags: memory.text.tags.iter().map(|tag| tag.expose(receipt)).collect(),
        user_id: owner.to_string(),
        shared_with_org_id: (),
        parent_memory_id: memory.parent.map(|id| id.to_string()),
        created_at: memory.created_at.to_string(),
        relation,
        shared_tag_count: None,
    }
}

/// `get_topic_cluster`
pub fn cluster(cx: &mut Cx<'_>) -> Called {
    #[derive(Serialize)]
    struct Cluster<'a> {
        tag: &'a str,
        count: usize,
        memories: Vec<View<'a>>,
    }
    let tag = Zeroizing::new(cx.fields.text("tag").expect("the schema requires it"));
    let limit = cx.fields.count("limit").expect("the schema has a default");
    let done = cx.walk::<ReadAround, _, _>(cx.own(), &Words::MEMORY, |access| memories::gathered(access, &tag, limit))?;
    Ok(told(done, |found, receipt| same(&Cluster { tag: &tag, count: found.len(), memories: reply::all(found, receipt, reply::summary) })))
}
