//! Mem0's answers: memories, pages, histories as its clients read them, and their components of the OpenAPI document.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{IN_METADATA, PROJECT, derived_title};
use crate::api::answers::id as id_text;
use crate::api::answers::{Members, Shape, answer, constant, flag, list_of, maybe_text, never, number, reference, text, texts, time, word};
use crate::api::reply;
use crate::base::id::OperationId;
use crate::base::limits;
use crate::memories::{Named, Page, Who};
use crate::store::gate::Receipt;
use crate::store::memories::{EntityKind, Memory, Version};
use crate::store::phi::Phi;

/// What an addition says of what was done with the messages.
const VERBATIM: &str = "Kept word for word: no model infers facts here";

/// What a request for an export is answered with.
const EXPORT_ASKED: &str = "The export can be fetched";
/// What an export says of itself.
const EXPORTED: &str = "Memories as they are: no model fills a schema here";

/// A memory as Mem0's clients read it: all of it, or its id, score and event and those keys that were asked for.
struct View<'a> {
    memory: &'a Memory,
    receipt: &'a Receipt,
    only: Option<&'a [String]>,
    score: Option<f32>,
    event: Option<&'static str>,
}

impl<'a> View<'a> {
    fn of(memory: &'a Memory, receipt: &'a Receipt) -> Self {
        Self { memory, receipt, only: None, score: None, event: None }
    }
}

/// Metadata apart from the names that it carries, and these.
struct Split {
    own: Value,
    names: [Option<String>; 2],
}

fn split(metadata: Option<&str>) -> Split {
    let mut own = metadata.and_then(|json| serde_json::from_str(json).ok()).unwrap_or(Value::Null);
    let names = IN_METADATA.map(|key| {
        let map = own.as_object_mut()?;
        let name =
            map.get(key).and_then(Value::as_str).filter(|name| (1..=limits::NAME_CHARS_MAX).contains(&name.chars().count()))?.to_owned();
        map.remove(key);
        Some(name)
    });
    if own == json!({}) && names.iter().any(Option::is_some) {
        own = Value::Null;
    }
    Split { own, names }
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (memory, text, only) = (self.memory, &self.memory.text, self.only);
        let shown = |key: &str| only.is_none_or(|only| only.iter().any(|wanted| wanted == key));
        let plain = |phi: &'_ Option<Phi>| phi.as_ref().map(|phi| phi.expose(self.receipt).to_owned());
        let Split { own, names: [agent, app] } = split(text.metadata.as_ref().map(|json| json.expose(self.receipt)));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &memory.id.to_string())?;
        let content = text.content.expose(self.receipt);
        if shown("memory") {
            map.serialize_entry("memory", content)?;
        }
        for (key, name) in [
            ("user_id", plain(&text.subject)),
            ("agent_id", agent),
            ("app_id", app),
            ("run_id", plain(&text.run_id)),
            ("actor_id", plain(&text.speaker)),
        ] {
            if shown(key) {
                map.serialize_entry(key, &name)?;
            }
        }
        if shown("metadata") {
            map.serialize_entry("metadata", &own)?;
        }
        if shown("categories") {
            map.serialize_entry("categories", &text.tags.iter().map(|tag| tag.expose(self.receipt)).collect::<Vec<_>>())?;
        }
        if shown("created_at") {
            map.serialize_entry("created_at", &memory.occurred_at.unwrap_or(memory.created_at).to_string())?;
        }
        if shown("updated_at") {
            map.serialize_entry("updated_at", &memory.updated_at.to_string())?;
        }
        if shown("expiration_date") {
            map.serialize_entry("expiration_date", &())?;
        }
        // Written elsewhere, a memory may have a title that says more.
        let title = text.title.expose(self.receipt);
        if shown("title") && title != derived_title(content) {
            map.serialize_entry("title", title)?;
        }
        if let Some(score) = self.score {
            map.serialize_entry("score", &score)?;
        }
        if let Some(event) = self.event {
            map.serialize_entry("event", event)?;
        }
        map.end()
    }
}

/// One memory.
pub fn memory(memory: &Memory, receipt: &Receipt) -> Vec<u8> {
    reply::json(&View::of(memory, receipt))
}

#[derive(Serialize)]
struct Results<'a> {
    results: Vec<View<'a>>,
}

fn views<'a>(memories: &'a [Memory], only: Option<&'a [String]>, receipt: &'a Receipt) -> Vec<View<'a>> {
    memories.iter().map(|memory| View { only, ..View::of(memory, receipt) }).collect()
}

/// What was added: an exact repeat of a recent memory is that memory, and no event.
pub fn added(memories: &[Memory], operation: &str, receipt: &Receipt) -> Vec<u8> {
    #[derive(Serialize)]
    struct Added<'a> {
        results: Vec<View<'a>>,
        status: &'static str,
        event_id: &'a str,
        inferred: bool,
        message: &'static str,
    }
    let event = |memory: &Memory| if memory.version == 1 { "ADD" } else { "NOOP" };
    let results = memories.iter().map(|memory| View { event: Some(event(memory)), ..View::of(memory, receipt) }).collect();
    reply::json(&Added { results, status: "SUCCEEDED", event_id: operation, inferred: false, message: VERBATIM })
}

/// A list as older clients read it.
pub fn array(memories: &[Memory], only: Option<&[String]>, receipt: &Receipt) -> Vec<u8> {
    reply::json(&views(memories, only, receipt))
}

/// A list under `results`.
pub fn results(memories: &[Memory], only: Option<&[String]>, receipt: &Receipt) -> Vec<u8> {
    reply::json(&Results { results: views(memories, only, receipt) })
}

/// That an export may be fetched.
pub fn export_asked(id: OperationId, total: u64) -> Vec<u8> {
    reply::json(&json!({ "message": EXPORT_ASKED, "id": id.to_string(), "total_memories": total }))
}

/// What an export holds.
pub fn export(memories: &[Memory], receipt: &Receipt) -> Vec<u8> {
    #[derive(Serialize)]
    struct Export<'a> {
        memories: Vec<View<'a>>,
        count: usize,
        schema_applied: bool,
        message: &'static str,
    }
    reply::json(&Export { memories: views(memories, None, receipt), count: memories.len(), schema_applied: false, message: EXPORTED })
}

/// What a search found, best first.
pub fn found(found: &[(Memory, f32)], wrapped: bool, only: Option<&[String]>, receipt: &Receipt) -> Vec<u8> {
    let results: Vec<_> = found.iter().map(|(memory, score)| View { only, score: Some(*score), ..View::of(memory, receipt) }).collect();
    if wrapped { reply::json(&Results { results }) } else { reply::json(&results) }
}

/// Which page of what.
pub struct Place<'p> {
    /// The path that gives pages.
    pub path: &'p str,
    /// From 1.
    pub page: usize,
    /// Memories on it.
    pub size: usize,
}

impl Place<'_> {
    fn link(&self, page: usize) -> String {
        format!("{}?page={page}&page_size={}", self.path, self.size)
    }

    /// Links to the next and the previous page of `total`.
    pub fn links(&self, total: u64) -> (Option<String>, Option<String>) {
        let through = u64::try_from(self.page.saturating_mul(self.size)).unwrap_or(u64::MAX);
        let next = (through < total).then(|| self.link(self.page + 1));
        (next, (self.page > 1).then(|| self.link(self.page - 1)))
    }
}

#[derive(Serialize)]
struct Paged<T> {
    count: u64,
    next: Option<String>,
    previous: Option<String>,
    results: Vec<T>,
}

/// A page.
pub fn page(found: &Page, place: &Place<'_>, only: Option<&[String]>, receipt: &Receipt) -> Vec<u8> {
    let (next, previous) = place.links(found.total);
    reply::json(&Paged { count: found.total, next, previous, results: views(&found.memories, only, receipt) })
}

/// What happened to a memory, oldest first. To an agent, what its vendor was not open to is missing.
pub fn history(earlier: &[Version], current: &Memory, receipt: &Receipt) -> Vec<u8> {
    let states: Vec<&Memory> = earlier.iter().map(|version| &version.memory).chain([current]).collect();
    let mut events = Vec::new();
    for (i, state) in states.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| states[i]).filter(|before| before.version + 1 == state.version);
        // A version knows when it was replaced: then the next began.
        let at = i.checked_sub(1).map_or(if state.version == 1 { state.created_at } else { state.updated_at }, |i| earlier[i].changed_at);
        let event = if state.version == 1 { "ADD" } else { "UPDATE" };
        let id = reply::version_id(state.id, state.version);
        events.push(told(
            state,
            &id,
            event,
            before.map(|before| before.text.content.expose(receipt)),
            Some(state.text.content.expose(receipt)),
            &at.to_string(),
            receipt,
        ));
    }
    if let Some(at) = current.deleted_at {
        // No version has the number 0.
        let id = reply::version_id(current.id, 0);
        events.push(told(current, &id, "DELETE", Some(current.text.content.expose(receipt)), None, &at.to_string(), receipt));
    }
    reply::json(&events)
}

fn told(state: &Memory, id: &str, event: &str, old: Option<&str>, new: Option<&str>, at: &str, receipt: &Receipt) -> Value {
    let text = &state.text;
    json!({
        "id": id,
        "memory_id": state.id.to_string(),
        "input": [],
        "old_memory": old,
        "new_memory": new,
        "user_id": text.subject.as_ref().map(|name| name.expose(receipt)),
        "metadata": split(text.metadata.as_ref().map(|json| json.expose(receipt))).own,
        "categories": text.tags.iter().map(|tag| tag.expose(receipt)).collect::<Vec<_>>(),
        "event": event,
        "created_at": at,
        "updated_at": at,
    })
}

/// Whom and what memories name.
pub fn entities(named: &[Named], total: usize, place: &Place<'_>, receipt: &Receipt) -> Vec<u8> {
    let total = u64::try_from(total).expect("a count fits 64 bits");
    let (next, previous) = place.links(total);
    let results = named.iter().map(|entity| {
        let kind = match entity.who {
            Who::Subject => "user",
            Who::Entity(EntityKind::Agent) => "agent",
            Who::Entity(EntityKind::App) => "app",
            Who::Entity(EntityKind::Run) => "run",
        };
        let name = entity.name.expose(receipt);
        json!({
            "id": name,
            "name": name,
            "type": kind,
            "owner": null,
            "metadata": null,
            "total_memories": entity.memories,
            "created_at": entity.first.to_string(),
            "updated_at": entity.last.to_string(),
        })
    });
    reply::json(&Paged { count: total, next, previous, results: results.collect::<Vec<_>>() })
}

/// The keys of a memory that are not there when `fields` leaves them out.
const MEMORY_KEYS: [(&str, Shape); 12] = [
    ("memory", text("Allergic to penicillin")),
    ("user_id", maybe_text("MRN 4711")),
    ("agent_id", maybe_text("triage")),
    ("app_id", maybe_text("ward-round")),
    ("run_id", maybe_text("round-2026-11-21")),
    ("actor_id", maybe_text("user")),
    ("metadata", METADATA),
    ("categories", texts("allergy")),
    ("created_at", time()),
    ("updated_at", time()),
    ("expiration_date", never()),
    ("title", text("Allergy")),
];

const METADATA: Shape = Shape::Schema(r#"{"type":["object","null"],"additionalProperties":true}"#);
const SCORE: Shape = Shape::Schema(r#"{"type":"number","minimum":0,"maximum":1,"examples":[1.0]}"#);

macro_rules! results {
    ($name:literal) => {
        answer(&[("results", list_of($name))], &[])
    };
}

macro_rules! page {
    ($name:literal) => {
        answer(
            &[
                ("count", number()),
                ("next", maybe_text("/v3/memories/?page=2&page_size=100")),
                ("previous", maybe_text("/v3/memories/?page=1&page_size=100")),
                ("results", list_of($name)),
            ],
            &[],
        )
    };
}

/// Their components, by name.
pub(in crate::api) const COMPONENTS: Members = &[
    (
        "Mem0Ping",
        answer(
            &[("status", constant("ok")), ("org_id", constant(PROJECT)), ("project_id", constant(PROJECT)), ("user_email", never())],
            &[],
        ),
    ),
    ("Mem0Memory", answer(&[("id", id_text())], &MEMORY_KEYS)),
    ("Mem0AddedMemory", Shape::All("", &[reference("Mem0Memory"), answer(&[("event", word(&["ADD", "NOOP"]))], &[])])),
    (
        "Mem0Added",
        answer(
            &[
                ("results", list_of("Mem0AddedMemory")),
                ("status", constant("SUCCEEDED")),
                ("event_id", id_text()),
                ("inferred", flag()),
                ("message", text(VERBATIM)),
            ],
            &[],
        ),
    ),
    ("Mem0Page", page!("Mem0Memory")),
    ("Mem0List", Shape::Any("", &[list_of("Mem0Memory"), results!("Mem0Memory"), page!("Mem0Memory")])),
    ("Mem0Hit", Shape::All("", &[reference("Mem0Memory"), answer(&[("score", SCORE)], &[])])),
    ("Mem0Hits", results!("Mem0Hit")),
    ("Mem0HitList", Shape::Any("", &[list_of("Mem0Hit"), results!("Mem0Hit")])),
    ("Mem0Message", answer(&[("message", text("Memory deleted successfully!"))], &[])),
    ("Mem0Trashed", answer(&[("message", text("Memories deleted successfully!")), ("deleted", number()), ("kept", number())], &[])),
    ("Mem0ExportAsked", answer(&[("message", text(EXPORT_ASKED)), ("id", id_text()), ("total_memories", number())], &[])),
    (
        "Mem0Export",
        answer(&[("memories", list_of("Mem0Memory")), ("count", number()), ("schema_applied", flag()), ("message", text(EXPORTED))], &[]),
    ),
    ("Mem0Feedback", answer(&[("message", text("Feedback kept as a reply to the memory")), ("id", id_text())], &[])),
    (
        "Mem0Entity",
        answer(
            &[
                ("id", text("MRN 4711")),
                ("name", text("MRN 4711")),
                ("type", word(&["user", "agent", "app", "run"])),
                ("owner", never()),
                ("metadata", never()),
                ("total_memories", number()),
                ("created_at", time()),
                ("updated_at", time()),
            ],
            &[],
        ),
    ),
    ("Mem0Entities", page!("Mem0Entity")),
    ("Mem0History", list_of("Mem0Event")),
    (
        "Mem0Event",
        answer(
            &[
                ("id", Shape::Schema(r#"{"type": "string", "examples": ["0f6a2c1e-5d6e-8f80-8a9b-0c1d2e3f4a5b"]}"#)),
                ("memory_id", id_text()),
                (
                    "input",
                    Shape::Schema(r#"{"type":"array","items":{"type":"object","additionalProperties":true},"maxItems":0,"examples":[[]]}"#),
                ),
                ("old_memory", maybe_text("Allergic to penicillin")),
                ("new_memory", maybe_text("Allergic to penicillin and latex")),
                ("user_id", maybe_text("MRN 4711")),
                ("metadata", METADATA),
                ("categories", texts("allergy")),
                ("event", word(&["ADD", "UPDATE", "DELETE"])),
                ("created_at", time()),
                ("updated_at", time()),
            ],
            &[],
        ),
    ),
    (
        "Mem0Error",
        answer(
            &[("error", text("Memory not found")), ("detail", text("Memory not found"))],
            &[
                ("code", Shape::Schema(r#"{"enum": ["locked", "read_only"]}"#)),
                ("plan", text("free")),
                ("memory_count", number()),
                ("limit", number()),
                ("upgrade_url", never()),
                ("outcome", constant("unknown")),
                ("operation_id", id_text()),
            ],
        ),
    ),
];
