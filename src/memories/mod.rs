//! Memories: what is true of a memory, whichever way a client reaches it.
//!
//! Invariants
//! - Every function works under an `Access`, so policy has decided and an audit entry is open.
//! - A refusal changes nothing, and says nothing of the text it refused.

mod around;
pub mod briefing;
mod clusters;
pub mod graph;
mod select;

use std::collections::BTreeSet;

pub use around::{around, gathered};
pub use clusters::Topic;
pub use select::{Moment, Named, Order, Scalar, Select, Test, Who, list_selected, named, rank_selected, trash_selected};

use crate::audit::{Detail, Reason};
use crate::base::id::MemoryId;
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::policy::action::{Action, Reads, Scope, Writes};
use crate::store::events::{Event, Happened};
use crate::store::gate::{Access, Fault};
use crate::store::memories::{self as table, Memory, Moved, NewMemory, OrderPlace, Part, Replacement, State, Version};
use crate::store::phi::Phi;
use crate::store::quota::{self, Full, Standing, UsageRow};
use crate::store::search::{self, Hit, Query, SearchError, Viewer};
use crate::store::tx::{StoreError, Unanswered};

/// Why an operation on memories was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such memory for this asker.
    #[error("Memory not found")]
    NotFound,
    /// Restore of what is not in the trash.
    #[error("Memory not found or not in trash")]
    NotInTrash,
    /// `latest` found none with the tag.
    #[error("No memories found with that tag")]
    NoneWithTag,
    /// `latest` found none.
    #[error("No memories found")]
    None,
    /// A reply to what is in the trash.
    #[error("Cannot reply to a trashed memory")]
    ParentDeleted,
    /// A reply to a reply.
    #[error("Threads are one level deep; reply to the parent instead")]
    ParentIsChild,
    /// A thread that is full.
    #[error("This thread has reached its limit of {} replies", limits::REPLIES_MAX)]
    ThreadFull,
    /// There may be no further memory.
    #[error("Memory limit reached")]
    Full(Full),
    /// A list without limit that would be too long.
    #[error("body/limit is required, and small enough: more than {} records or {} MiB match", limits::LIST_RECORDS_MAX, limits::LIST_BYTES_MAX / 1024 / 1024)]
    ListTooLong,
    /// An answer that cannot be asked for in parts and is too long.
    #[error("The answer would exceed {} MiB", limits::LIST_BYTES_MAX / 1024 / 1024)]
    TooLong,
    /// A selection that would open or give too many memories.
    #[error(
        "The filter is too wide: it reads the text of more than {} memories, or gives more than {} of them or {} MiB; narrow it by name, time or id, or page it",
        limits::SELECT_OPENED_MAX,
        limits::LIST_RECORDS_MAX,
        limits::LIST_BYTES_MAX / 1024 / 1024
    )]
    TooWide,
    /// As many large answers as may be are under way.
    #[error("Many large answers are under way; try again shortly")]
    Busy,
    /// The search index is being built.
    #[error("The search index is being built; try again shortly")]
    NotReady,
    /// The search index does not fit.
    #[error("The search index does not fit its memory; ask your administrator to raise RM_INDEX_MIB")]
    IndexTooLarge,
    /// The store failed.
    #[error("Internal server error")]
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unanswered> for Refusal {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::TooLong => Self::TooLong,
            Unanswered::Busy => Self::Busy,
            Unanswered::Store(error) => Self::Store(error),
        }
    }
}

impl From<SearchError> for Refusal {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::NotReady => Self::NotReady,
            SearchError::TooLarge => Self::IndexTooLarge,
            SearchError::Store(error) => Self::Store(error),
        }
    }
}

impl Fault for Refusal {
    fn audit(&self) -> (Reason, u16) {
        match self {
            Self::NotFound | Self::NoneWithTag | Self::None => (Reason::NotFound, 404),
            Self::NotInTrash => (Reason::NotTrashed, 404),
            Self::ParentDeleted => (Reason::Trashed, 400),
            Self::ParentIsChild => (Reason::Conflict, 400),
            Self::ThreadFull => (Reason::Quota, 400),
            Self::Full(_) => (Reason::Quota, 429),
            Self::ListTooLong | Self::TooLong | Self::TooWide => (Reason::TooLarge, 400),
            Self::NotReady | Self::IndexTooLarge | Self::Busy => (Reason::NotReady, 503),
            Self::Store(_) => (Reason::WorkFailed, 500),
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            Self::ParentDeleted => Some("parent_deleted"),
            Self::ParentIsChild => Some("parent_is_child"),
            _ => None,
        }
    }

    fn full(&self) -> Option<Full> {
        match self {
            Self::Full(full) => Some(*full),
            _ => None,
        }
    }
}

/// Which memories a list is of: the contract's filter object.
pub enum Filter {
    /// All live ones.
    All,
    /// With any of these tags.
    Tags(Vec<String>),
    /// These.
    Ids(Vec<String>),
    /// That contain this text.
    Search(String),
    /// From this origin.
    Origin(String),
    /// In the trash.
    Trashed,
}

/// A page of memories and how many there are in all.
pub struct Page {
    /// The memories, in order.
    pub memories: Vec<Memory>,
    /// How many match.
    pub total: u64,
}

/// Writes memories in one commit, all or none; an exact repeat of a recent one is united with it.
pub fn create_all<A: Writes + Action<Target = Scope>>(a: &mut Access<'_, A>, new: Vec<NewMemory>) -> Result<Vec<Memory>, Refusal> {
    new.into_iter().map(|new| create(a, new)).collect()
}

/// Writes a memory; an exact repeat of a recent one is united with it.
pub fn create<A: Writes + Action<Target = Scope>>(a: &mut Access<'_, A>, new: NewMemory) -> Result<Memory, Refusal> {
    let memory = table::insert(a, new)?;
    fits(a)?;
    Ok(memory)
}

/// Refuses work that made more memories than the asker's person may have.
fn fits<A: Writes>(a: &Access<'_, A>) -> Result<(), Refusal> {
    fits_with(a, 0)
}

/// The same with so many more to come.
fn fits_with<A: Writes>(a: &Access<'_, A>, coming: u64) -> Result<(), Refusal> {
    quota::memories_full(a, coming)?.map_or(Ok(()), |full| Err(Refusal::Full(full)))
}

/// How the granted person stands to the plan.
pub fn standing<A: Reads + Action<Target = Scope>>(a: &Access<'_, A>) -> Result<Standing, Refusal> {
    Ok(quota::standing(a)?)
}

/// The granted person's uses by month, the newest first.
pub fn months<A: Reads + Action<Target = Scope>>(a: &Access<'_, A>) -> Result<Vec<(String, UsageRow)>, Refusal> {
    Ok(quota::months(a)?)
}

/// Stores records from elsewhere, each as a memory of its own.
pub fn import<A: Writes + Action<Target = Scope>>(a: &mut Access<'_, A>, records: Vec<table::Imported>) -> Result<(), Refusal> {
    records.into_iter().try_for_each(|record| table::import(a, record)).map_err(Refusal::from)
}

/// A chunk of all memories, and where to go on.
pub fn export<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    place: table::ExportPlace,
) -> Result<(Vec<Memory>, Option<table::ExportPlace>), Refusal> {
    Ok(table::export(a, place, limits::EXPORT_CHUNK, limits::EXPORT_CHUNK_BYTES)?)
}

/// How many memories there are, trash included.
pub fn count<A: Action<Target = Scope>>(a: &Access<'_, A>) -> Result<u64, Refusal> {
    Ok(table::total(a, State::Live)?.saturating_add(table::total(a, State::Trash)?))
}

/// Replies to the granted memory.
pub fn reply<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>, new: NewMemory) -> Result<Memory, Refusal> {
    reply_to(a, Part::Summary, |_, _| new)
}

/// Replies to the granted memory with what `write` makes of it, opened as far as `part`. A reply that names no vendors is as open as it.
pub fn reply_to<A: Writes + Action<Target = MemoryId>>(
    a: &mut Access<'_, A>,
    part: Part,
    write: impl FnOnce(&Access<'_, A>, &Memory) -> NewMemory,
) -> Result<Memory, Refusal> {
    let parent = table::get(a, part)?;
    if parent.deleted_at.is_some() {
        return Err(Refusal::ParentDeleted);
    }
    if parent.parent.is_some() {
        return Err(Refusal::ParentIsChild);
    }
    if table::count_replies(a)? >= limits::REPLIES_MAX {
        return Err(Refusal::ThreadFull);
    }
    let mut new = write(a, &parent);
    if new.allowed_vendors.is_empty() {
        new.allowed_vendors.clone_from(&parent.allowed_vendors);
    }
    let memory = table::reply(a, new)?;
    fits(a)?;
    Ok(memory)
}

/// The granted memory.
pub fn read<A: Reads + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<Memory, Refusal> {
    Ok(table::get(a, Part::Full)?)
}

/// Refuses what is in the trash: where it is not there, whoever asks.
pub fn alive<A: Reads + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<(), Refusal> {
    if table::is_trashed(a)? { Err(Refusal::NotFound) } else { Ok(()) }
}

/// The granted memory's thread.
pub fn thread<A: Reads + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<(Memory, Vec<Memory>), Refusal> {
    table::thread(a)?.ok_or(Refusal::NotFound)
}

/// Earlier versions of the granted memory, newest first, and the number of the current one.
pub fn versions<A: Reads + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<(Vec<Version>, u32), Refusal> {
    Ok(table::versions(a)?)
}

/// Replaces the granted memory's text by what `change` makes of it.
pub fn revise<A: Writes + Action<Target = MemoryId>>(
    a: &mut Access<'_, A>,
    change: impl FnOnce(&Access<'_, A>, &Memory) -> Replacement,
) -> Result<Memory, Refusal> {
    table::revise(a, change)?.ok_or(Refusal::NotFound)
}

/// Earlier versions of the granted memory, oldest first, and the memory as it is.
pub fn history<A: Reads + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<(Vec<Version>, Memory), Refusal> {
    let (mut versions, current) = table::history(a)?;
    versions.reverse();
    Ok((versions, current))
}

/// Moves the granted memory to the trash, its replies beyond `after` before it, as many as one commit may.
pub fn trash<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>, after: Option<OrderPlace>) -> Result<Moved<Memory>, Refusal> {
    table::trash(a, after)?.ok_or(Refusal::NotFound)
}

/// Takes the granted memory out of the trash, its replies beyond `after` before it, as many as one commit may.
pub fn restore<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>, after: Option<OrderPlace>) -> Result<Moved<Memory>, Refusal> {
    let moved = table::restore(a, after)?.ok_or(Refusal::NotInTrash)?;
    // All of them must fit, or none is taken out.
    match &moved {
        Moved::UpTo { left, .. } => fits_with(a, *left)?,
        Moved::All(_) => fits(a)?,
    }
    Ok(moved)
}

/// Removes the granted memory for good; `false` if one commit cannot hold all of it and there is more to do.
pub fn purge<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<bool, Refusal> {
    Ok(table::purge(a, limits::PURGE_CHUNK)?)
}

/// Removes what is in the trash for good, as much as one commit may hold; gives how many, and whether that was all.
pub fn empty_trash<A: Writes + Action<Target = Scope>>(a: &mut Access<'_, A>) -> Result<(usize, bool), Refusal> {
    Ok(table::purge_trash(a, limits::PURGE_CHUNK, limits::PURGE_CHUNK)?)
}

/// The newest memory, of a tag or an origin if asked for.
pub fn latest<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    tag: Option<&str>,
    origin: Option<&str>,
) -> Result<Memory, Refusal> {
    let filter = match (tag, origin) {
        (Some(tag), _) => Filter::Tags(vec![tag.to_owned()]),
        (None, Some(origin)) => Filter::Origin(origin.to_owned()),
        (None, None) => Filter::All,
    };
    let page = list(a, &filter, Part::Full, 0, 1)?;
    page.memories.into_iter().next().ok_or(if tag.is_some() { Refusal::NoneWithTag } else { Refusal::None })
}

/// What a subscriber is told of an event: the memory as it is now, none if the event is that it is gone. A memory that is gone though the event
/// says otherwise is not found: the event that says so follows.
pub fn told<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, event: &Event) -> Result<Option<Memory>, Refusal> {
    if event.happened == Happened::Purged {
        table::mention(a, event.memory);
        return Ok(None);
    }
    table::either(a, event.memory)?.map(Some).ok_or(Refusal::NotFound)
}

/// A page of what `filter` chooses, newest first.
pub fn list<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    filter: &Filter,
    part: Part,
    offset: usize,
    limit: usize,
) -> Result<Page, Refusal> {
    let view = search::viewer(a);
    let state = if matches!(filter, Filter::Trashed) { State::Trash } else { State::Live };
    let (ids, total) = match filter {
        Filter::All | Filter::Trashed => (table::page(a, state, offset, limit)?, table::total(a, state)?),
        Filter::Tags(tags) => {
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            counted(search::ask(a, |index| index.by_tags(&tags, view, offset, limit))?)
        }
        Filter::Origin(origin) => counted(search::ask(a, |index| index.page(view, Some(origin), offset, limit))?),
        Filter::Ids(ids) => {
            let wanted: BTreeSet<MemoryId> = ids.iter().filter_map(|id| MemoryId::parse(id)).collect();
            let mut found = Vec::new();
            for id in wanted {
                found.extend(table::seen(a, id)?.map(|at| (at, id)));
            }
            found.sort_unstable_by(|a, b| b.cmp(a));
            let total = found.len();
            counted((found.into_iter().map(|(_, id)| id).skip(offset).take(limit).collect(), total))
        }
        Filter::Search(term) => {
            let candidates = search::ask(a, |index| index.literal(term, view))?;
            counted(search::count(a, candidates, term, offset, limit)?)
        }
    };
    if ids.len() > limits::LIST_RECORDS_MAX {
        return Err(Refusal::ListTooLong);
    }
    let memories = table::several(a, ids, part, state).map_err(|error| match error {
        Unanswered::TooLong => Refusal::ListTooLong,
        other => other.into(),
    })?;
    table::answer(a, &memories);
    a.detail(Detail::Hits(total));
    Ok(Page { memories, total })
}

fn counted((ids, total): (Vec<MemoryId>, usize)) -> (Vec<MemoryId>, u64) {
    (ids, u64::try_from(total).expect("a count fits 64 bits"))
}

/// Everything that `filter` chooses, up to the bounds of one answer.
pub fn list_all<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, filter: &Filter) -> Result<Page, Refusal> {
    list(a, filter, Part::Full, 0, limits::LIST_RECORDS_MAX + 1)
}

/// Memories that contain `term` as it stands, most relevant first.
pub fn find<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, term: &str, limit: usize) -> Result<Vec<Memory>, Refusal> {
    let view = search::viewer(a);
    let candidates = search::ask(a, |index| index.literal_ranked(term, view))?;
    let found = search::confirm(a, candidates.into_iter().map(|(id, _)| id), term, limit)?;
    table::answer(a, &found);
    Ok(found)
}

/// A ranked search.
pub struct Question {
    /// In the asker's words.
    pub query: String,
    /// Hits wanted.
    pub limit: usize,
    /// With any of these.
    pub tags: Vec<String>,
    /// About this person, by external name.
    pub subject: Option<Phi>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// Whether to say how a score came about.
    pub explain: bool,
}

/// Memories that answer a question, best first, each with its hit.
pub fn rank<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, question: &Question) -> Result<Vec<(Memory, Hit)>, Refusal> {
    let subject = match &question.subject {
        None => None,
        Some(name) => match table::subject_named(a, name)? {
            Some(subject) => Some(subject),
            None => return Ok(Vec::new()),
        },
    };
    let viewer: Viewer<'_> = search::viewer(a);
    let tags: Vec<&str> = question.tags.iter().map(String::as_str).collect();
    let probe = search::probe(a, &question.query);
    let query = Query {
        text: &question.query,
        probe: probe.as_ref(),
        limit: question.limit,
        tags_any: &tags,
        subject,
        since: question.since,
        until: question.until,
        viewer,
        explain: question.explain,
    };
    let hits = search::ask(a, |index| index.search(&query))?;
    let memories = table::several(a, hits.iter().map(|hit| hit.id), Part::Full, State::Live)?;
    table::answer(a, &memories);
    let mut hits = hits.into_iter();
    let paired = memories.into_iter().filter_map(|memory| hits.find(|hit| hit.id == memory.id).map(|hit| (memory, hit)));
    Ok(paired.collect())
}

#[cfg(test)]
mod model;
