//! Selections: which memories of a scope a filter of conditions chooses, and what is done with them: list, rank, count by entity, trash.
//!
//! ```text
//! Select ──bind──▶ Bound ──on an outline──▶ yes | no | only its text can tell ──open──▶ yes | no
//! ```
//!
//! Invariants
//! - A selection chooses among what the asker may see, and can only narrow it: a name in it is a filter, never authority. A name nobody has, or
//!   that only memories of others carry, chooses nothing and says nothing.
//! - A memory is opened only where its outline does not decide, at most [`limits::SELECT_OPENED_MAX`] times; then the selection is refused as
//!   too wide, never cut short.
//! - To trash is all that a selection can do to memories: no key is touched.

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;

use super::{Page, Refusal};
use crate::audit::Detail;
use crate::base::id::{MemoryId, SubjectId};
use crate::base::time::Timestamp;
use crate::base::{limits, order};
use crate::policy::action::{Action, Reads, Scope, Writes};
use crate::store::gate::Access;
use crate::store::memories::{self as table, Entity, EntityKind, Memory, OrderPlace, Outline, Part, Share, State};
use crate::store::phi::Phi;
use crate::store::search::{self, Query};
use crate::store::tx::{StoreError, Unanswered};

/// Who or what a memory names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// The person that it is about.
    Subject,
    /// An entity.
    Entity(EntityKind),
}

/// A time of a memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// When it happened, else when it was written.
    Happened,
    /// When it was last changed.
    Changed,
}

/// A value in metadata.
#[derive(Debug)]
pub enum Scalar {
    /// Text.
    Text(Phi),
    /// A number.
    Number(f64),
    /// A boolean.
    Flag(bool),
    /// `null`; an absent key counts as it.
    Null,
}

/// How two values compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Less.
    Less,
    /// Less or equal.
    AtMost,
    /// Greater.
    Greater,
    /// Greater or equal.
    AtLeast,
}

/// What is asked of a value in metadata.
#[derive(Debug)]
pub enum Test {
    /// It is one of these, or a list that holds one.
    OneOf(Vec<Scalar>),
    /// Its text contains this one, or it is a list that holds a text that does; without regard to case if `true`.
    Contains(Phi, bool),
    /// It stands in this order to a value of its own kind.
    Compare(Order, Scalar),
    /// It is there and not null.
    Present,
}

/// A condition on a memory.
#[derive(Debug)]
pub enum Select {
    /// All of these; of none: everything.
    All(Vec<Select>),
    /// Any of these; of none: nothing.
    Any(Vec<Select>),
    /// None of these.
    None(Vec<Select>),
    /// It is not a reply.
    Root,
    /// It names one of these.
    Named(Who, Vec<Phi>),
    /// It names any.
    NamesAny(Who),
    /// The time lies within these bounds, both included.
    When(Moment, Option<Timestamp>, Option<Timestamp>),
    /// It is one of these.
    Ids(BTreeSet<MemoryId>),
    /// It has any of these tags.
    Tags(Vec<Phi>),
    /// It has a tag that contains this.
    TagContains(Phi, bool),
    /// Its metadata, by key.
    Metadata(Phi, Test),
    /// Its content contains this; without regard to case if `true`.
    Says(Phi, bool),
}

impl Select {
    /// Whether it may have to open many memories to decide on them by their text.
    pub fn opens(&self) -> bool {
        match self {
            Select::All(inner) | Select::Any(inner) | Select::None(inner) => inner.iter().any(Select::opens),
            Select::NamesAny(Who::Entity(_)) | Select::Tags(_) | Select::TagContains(..) | Select::Metadata(..) | Select::Says(..) => true,
            Select::Root | Select::Named(..) | Select::NamesAny(Who::Subject) | Select::When(..) | Select::Ids(_) => false,
        }
    }
}

/// A selection whose names are looked up.
enum Bound<'s> {
    All(Vec<Bound<'s>>),
    Any(Vec<Bound<'s>>),
    None(Vec<Bound<'s>>),
    Root,
    Subjects(Vec<SubjectId>),
    AnySubject,
    Entities(Vec<Entity>),
    /// Names any entity of the kind: told apart by the text alone, unless there is none at all.
    AnyEntity(EntityKind),
    When(Moment, Option<Timestamp>, Option<Timestamp>),
    Ids(&'s BTreeSet<MemoryId>),
    Text(&'s Select),
}

fn bind<'s, A: Action<Target = Scope>>(a: &Access<'_, A>, select: &'s Select) -> Result<Bound<'s>, StoreError> {
    let each = |inner: &'s [Select]| inner.iter().map(|part| bind(a, part)).collect::<Result<Vec<_>, _>>();
    Ok(match select {
        Select::All(inner) => Bound::All(each(inner)?),
        Select::Any(inner) => Bound::Any(each(inner)?),
        Select::None(inner) => Bound::None(each(inner)?),
        Select::Root => Bound::Root,
        Select::Named(Who::Subject, names) => {
            let found = names.iter().map(|name| table::subject_named(a, name)).collect::<Result<Vec<_>, _>>()?;
            Bound::Subjects(found.into_iter().flatten().collect())
        }
        Select::Named(Who::Entity(kind), names) => Bound::Entities(names.iter().map(|name| table::entity_named(a, *kind, name)).collect()),
        Select::NamesAny(Who::Subject) => Bound::AnySubject,
        Select::NamesAny(Who::Entity(kind)) => Bound::AnyEntity(*kind),
        Select::When(moment, from, to) => Bound::When(*moment, *from, *to),
        Select::Ids(ids) => Bound::Ids(ids),
        Select::Tags(_) | Select::TagContains(..) | Select::Metadata(..) | Select::Says(..) => Bound::Text(select),
    })
}

impl Bound<'_> {
    /// Whether a memory is chosen; `None` if only its text, which was not given, can tell.
    fn chooses<A: Action<Target = Scope>>(&self, a: &Access<'_, A>, outline: &Outline<'_>, memory: Option<&Memory>) -> Option<bool> {
        let any = |inner: &[Bound<'_>], wanted: bool| {
            let mut unknown = false;
            for part in inner {
                match part.chooses(a, outline, memory) {
                    Some(chosen) if chosen == wanted => return Some(true),
                    Some(_) => {}
                    None => unknown = true,
                }
            }
            if unknown { None } else { Some(false) }
        };
        match self {
            Bound::All(inner) => any(inner, false).map(|refused| !refused),
            Bound::Any(inner) => any(inner, true),
            Bound::None(inner) => any(inner, true).map(|chosen| !chosen),
            Bound::Root => Some(!outline.is_reply()),
            Bound::Subjects(subjects) => Some(outline.subject().is_some_and(|subject| subjects.contains(&subject))),
            Bound::AnySubject => Some(outline.subject().is_some()),
            Bound::Entities(entities) => Some(outline.entities().any(|entity| entities.contains(&entity))),
            Bound::AnyEntity(_) if outline.entities().next().is_none() => Some(false),
            Bound::AnyEntity(kind) => memory.map(|memory| table::entities_of(a, memory).iter().any(|(named, ..)| named == kind)),
            Bound::When(moment, from, to) => {
                let at = match moment {
                    Moment::Happened => outline.occurred_at().unwrap_or(outline.created_at()),
                    Moment::Changed => outline.updated_at(),
                };
                Some(from.is_none_or(|from| at >= from) && to.is_none_or(|to| at <= to))
            }
            Bound::Ids(ids) => Some(ids.contains(&outline.id)),
            Bound::Text(select) => memory.map(|memory| says(a, select, memory)),
        }
    }

    /// The one person that every chosen memory is about, if the selection says so at its top.
    fn subject(&self) -> Option<SubjectId> {
        match self {
            Bound::Subjects(subjects) if subjects.len() == 1 => subjects.first().copied(),
            Bound::All(inner) => inner.iter().find_map(Bound::subject),
            _ => None,
        }
    }
}

fn contains(text: &str, part: &str, fold: bool) -> bool {
    if fold { Zeroizing::new(text.to_lowercase()).contains(Zeroizing::new(part.to_lowercase()).as_str()) } else { text.contains(part) }
}

/// What the text of an opened memory says to a condition on it.
fn says<A: Action<Target = Scope>>(a: &Access<'_, A>, select: &Select, memory: &Memory) -> bool {
    let text = &memory.text;
    match select {
        Select::Tags(tags) => text.tags.iter().any(|tag| tags.iter().any(|asked| asked.expose(a) == tag.expose(a))),
        Select::TagContains(part, fold) => text.tags.iter().any(|tag| contains(tag.expose(a), part.expose(a), *fold)),
        Select::Says(part, fold) => contains(text.content.expose(a), part.expose(a), *fold),
        Select::Metadata(key, test) => {
            let metadata = text.metadata.as_ref().and_then(|json| serde_json::from_str::<serde_json::Value>(json.expose(a)).ok());
            passes(a, test, metadata.as_ref().and_then(|map| map.get(key.expose(a))))
        }
        _ => false,
    }
}

fn passes<A: Action<Target = Scope>>(a: &Access<'_, A>, test: &Test, value: Option<&serde_json::Value>) -> bool {
    use serde_json::Value;
    let value = value.unwrap_or(&Value::Null);
    let equal = |value: &Value, scalar: &Scalar| match (scalar, value) {
        (Scalar::Text(text), Value::String(value)) => text.expose(a) == value,
        (Scalar::Number(n), Value::Number(value)) => value.as_f64() == Some(*n),
        (Scalar::Flag(flag), Value::Bool(value)) => flag == value,
        (Scalar::Null, Value::Null) => true,
        _ => false,
    };
    let items = match value {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    match test {
        Test::OneOf(scalars) => items.iter().any(|item| scalars.iter().any(|scalar| equal(item, scalar))),
        Test::Contains(part, fold) => items.iter().any(|item| item.as_str().is_some_and(|text| contains(text, part.expose(a), *fold))),
        Test::Compare(order, scalar) => {
            let compared = match (value, scalar) {
                (Value::Number(value), Scalar::Number(n)) => value.as_f64().and_then(|value| value.partial_cmp(n)),
                (Value::String(value), Scalar::Text(text)) => Some(value.as_str().cmp(text.expose(a))),
                _ => None,
            };
            compared.is_some_and(|compared| match order {
                Order::Less => compared.is_lt(),
                Order::AtMost => compared.is_le(),
                Order::Greater => compared.is_gt(),
                Order::AtLeast => compared.is_ge(),
            })
        }
        Test::Present => !value.is_null(),
    }
}

/// Decides memory by memory, opening as few as it can and no more than it may.
struct Sieve<'s> {
    bound: Bound<'s>,
    opened: usize,
}

impl<'s> Sieve<'s> {
    fn new<A: Action<Target = Scope>>(a: &Access<'_, A>, select: &'s Select) -> Result<Self, Refusal> {
        Ok(Self { bound: bind(a, select)?, opened: 0 })
    }

    fn lets<A: Action<Target = Scope>>(&mut self, a: &Access<'_, A>, outline: &Outline<'_>) -> Result<bool, Refusal> {
        if let Some(chosen) = self.bound.chooses(a, outline, None) {
            return Ok(chosen);
        }
        self.opened += 1;
        if self.opened > limits::SELECT_OPENED_MAX {
            return Err(Refusal::TooWide);
        }
        let Some(memory) = table::one(a, outline.id, Part::Full, State::Live)? else { return Ok(false) };
        Ok(self.bound.chooses(a, outline, Some(&memory)).unwrap_or(false))
    }
}

/// Which memories are chosen, newest first.
fn chosen<A: Action<Target = Scope>>(a: &Access<'_, A>, select: &Select) -> Result<Vec<MemoryId>, Refusal> {
    let (mut sieve, mut found) = (Sieve::new(a, select)?, Vec::new());
    table::survey(a, None, |a, outline| -> Result<bool, Refusal> {
        if sieve.lets(a, outline)? {
            found.push(outline.id);
        }
        Ok(true)
    })?;
    Ok(found)
}

/// A page of the chosen memories, newest first, and how many are chosen in all.
pub fn list_selected<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    select: &Select,
    offset: usize,
    limit: usize,
) -> Result<Page, Refusal> {
    let ids = chosen(a, select)?;
    let total = u64::try_from(ids.len()).expect("a count fits 64 bits");
    let wanted: Vec<_> = ids.into_iter().skip(offset).take(limit).collect();
    if wanted.len() > limits::LIST_RECORDS_MAX {
        return Err(Refusal::TooWide);
    }
    let memories = table::several(a, wanted, Part::Full, State::Live).map_err(|error| match error {
        Unanswered::TooLong => Refusal::TooWide,
        other => other.into(),
    })?;
    table::answer(a, &memories);
    a.detail(Detail::Hits(total));
    Ok(Page { memories, total })
}

/// The chosen memories that answer `query`, best first, at most `limit`, each with its score as a share of the best one's (0 to 1); those below
/// `threshold` are left out.
pub fn rank_selected<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    query: &str,
    select: &Select,
    threshold: f64,
    limit: usize,
) -> Result<Vec<(Memory, f32)>, Refusal> {
    let viewer = search::viewer(a);
    let mut sieve = Sieve::new(a, select)?;
    let subject = sieve.bound.subject();
    let mut found: Vec<(MemoryId, f32)> = Vec::new();
    let probe = search::probe(a, query);
    // Filters that the index does not know choose among its hits: first among some, and if these are too few, among all.
    for wanted in [limit.saturating_mul(4), usize::MAX] {
        (sieve.opened, found) = (0, Vec::new());
        let asked = Query {
            text: query,
            probe: probe.as_ref(),
            limit: wanted,
            tags_any: &[],
            subject,
            since: None,
            until: None,
            viewer,
            explain: false,
        };
        let hits = search::ask(a, |index| index.search(&asked))?;
        for hit in &hits {
            let chosen = table::outlined(a, hit.id, |outline| sieve.lets(a, outline))?.transpose()?;
            if chosen == Some(true) {
                found.push((hit.id, hit.score));
            }
            if found.len() == limit {
                break;
            }
        }
        if found.len() == limit || hits.len() < wanted {
            break;
        }
    }
    let best = found.first().map_or(0.0, |(_, score)| *score);
    let share = |score: f32| if best > 0.0 { (score / best).clamp(0.0, 1.0) } else { 0.0 };
    found.iter_mut().for_each(|(_, score)| *score = share(*score));
    found.retain(|(_, score)| f64::from(*score) >= threshold);
    let memories = table::several(a, found.iter().map(|(id, _)| *id), Part::Full, State::Live)?;
    table::answer(a, &memories);
    let mut scores = found.into_iter();
    let paired = memories.into_iter().filter_map(|memory| scores.find(|(id, _)| *id == memory.id).map(|(_, score)| (memory, score)));
    Ok(paired.collect())
}

/// One of those whom memories name, and how many do.
#[derive(Debug)]
pub struct Named {
    /// What it is.
    pub who: Who,
    /// Its name.
    pub name: Phi,
    /// Memories that name it and are no replies.
    pub memories: u64,
    /// When the oldest of them was written.
    pub first: Timestamp,
    /// When the newest change to one of them was made.
    pub last: Timestamp,
}

/// A memory that names it, how many do, since when and until when.
struct Group {
    memory: MemoryId,
    memories: u64,
    first: Timestamp,
    last: Timestamp,
}

/// Everybody and everything that the asker's memories name, the latest changed first: those from `offset` on, at most `limit`, and how many there
/// are in all.
pub fn named<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    offset: usize,
    limit: usize,
) -> Result<(Vec<Named>, usize), Refusal> {
    let mut groups: BTreeMap<(Option<SubjectId>, Option<Entity>), Group> = BTreeMap::new();
    table::survey(a, None, |_, outline| -> Result<bool, Refusal> {
        if outline.is_reply() {
            return Ok(true);
        }
        let keys =
            outline.subject().map(|subject| (Some(subject), None)).into_iter().chain(outline.entities().map(|entity| (None, Some(entity))));
        for key in keys {
            let (created, updated) = (outline.created_at(), outline.updated_at());
            let group = groups.entry(key).or_insert(Group { memory: outline.id, memories: 0, first: created, last: updated });
            group.memories += 1;
            group.first = group.first.min(created);
            group.last = group.last.max(updated);
        }
        Ok(true)
    })?;
    let total = groups.len();
    let mut groups: Vec<_> = groups.into_iter().collect();
    order::sort_by(&mut groups, |(a_key, a), (b_key, b)| b.last.cmp(&a.last).then(a_key.cmp(b_key)));
    let mut named = Vec::new();
    for ((subject, entity), group) in groups.into_iter().skip(offset).take(limit) {
        let Some(memory) = table::one(a, group.memory, Part::Full, State::Live)? else { continue };
        let found = match subject {
            Some(_) => memory.text.subject.as_ref().map(|name| (Who::Subject, Phi::new(name.expose(a).to_owned()))),
            None => table::entities_of(a, &memory)
                .into_iter()
                .find(|(.., key)| Some(*key) == entity)
                .map(|(kind, name, _)| (Who::Entity(kind), name)),
        };
        table::answer(a, [&memory]);
        named.extend(found.map(|(who, name)| Named { who, name, memories: group.memories, first: group.first, last: group.last }));
    }
    a.detail(Detail::Hits(u64::try_from(total).expect("a count fits 64 bits")));
    Ok((named, total))
}

/// What one commit of [`trash_selected`] did.
#[derive(Default, Debug)]
pub struct Trashed {
    /// Moved to the trash, replies to what was chosen among them.
    pub moved: usize,
    /// Chosen, but left: an agent trashes only what it wrote itself.
    pub left: usize,
    /// Where the next commit goes on; `None` when all is done.
    pub next: Option<Rest>,
}

/// What a commit left to the next one.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// What comes before this place was not looked at; all of it if there is none.
    before: Option<OrderPlace>,
    /// Of this memory the replies have moved up to this one.
    begun: Option<(MemoryId, OrderPlace)>,
}

/// Moves the chosen memories to the trash, replies among them, as many as one commit may: call again with the rest it gives.
pub fn trash_selected<A: Writes + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    select: &Select,
    from: Option<Rest>,
) -> Result<Trashed, Refusal> {
    let vendor = a.who().vendor().map(|vendor| vendor.name().to_owned());
    let (first, begun) = from.map_or((None, None), |from| (from.before, from.begun));
    let (mut sieve, mut share) = (Sieve::new(a, select)?, Share::to_survey());
    // Each with the place before it, and how many had been left by then.
    let (mut ids, mut left, mut last) = (Vec::new(), 0, first);
    let next = table::survey(a, first, |a, outline| -> Result<bool, Refusal> {
        outline.spend(&mut share);
        if sieve.lets(a, outline)? {
            match &vendor {
                Some(vendor) if !outline.is_of(vendor) => left += 1,
                _ => ids.push((outline.id, last, left)),
            }
        }
        last = Some((outline.created_at(), outline.id));
        Ok(!share.is_spent())
    })?;
    let (mut moved, mut share) = (0, Share::to_move());
    for &(id, before, left) in &ids {
        if share.is_spent() {
            return Ok(Trashed { moved, left, next: Some(Rest { before, begun: None }) });
        }
        let after = begun.filter(|(begun, _)| *begun == id).map(|(_, after)| after);
        let (some, stopped) = table::trash_one(a, id, after, &mut share)?;
        moved += some;
        if let Some(stopped) = stopped {
            return Ok(Trashed { moved, left, next: Some(Rest { before, begun: Some((id, stopped)) }) });
        }
    }
    Ok(Trashed { moved, left, next: next.map(|place| Rest { before: Some(place), begun: None }) })
}
