//! Searching through the gate: the index answers with ids, the records are opened and looked at again before they count.
//!
//! Invariants
//! - The answer set of a literal search is exact: every candidate is opened and must contain the term, unless the index alone is exact.
//! - While a scope's index is not ready the answer comes from an exact scan of at most `limits::SCAN_MEMORIES_MAX` memories, or is
//!   [`NotReady`]; never a part of it.

use crate::base::id::MemoryId;
use crate::base::limits;
use crate::embed::Probe;
use crate::policy::action::{Action, Reads, Scope};
use crate::store::gate::Access;
use crate::store::index::indexes;
use crate::store::index::literal::{contains, is_exact};
use crate::store::index::scope::ScopeIndex;
use crate::store::index::snippet::{Snippet, snippet};
use crate::store::tables::memories::{self, Memory, Part, State};
use crate::store::tx::{StoreError, Unanswered};

pub use crate::store::index::rank::{Hit, Query};
pub use crate::store::index::scope::Viewer;
pub use crate::store::index::tags::{Group, Groups};

/// Why a search has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The index is being built; try again soon.
    #[error("the search index is being built")]
    NotReady,
    /// The index does not fit the memory it may take.
    #[error("the search index does not fit RM_INDEX_MIB")]
    TooLarge,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Asks the index of the granted scope; or one made of a scan, while it is not ready and the scope is small.
pub fn ask<A: Reads + Action<Target = Scope>, T>(a: &mut Access<'_, A>, question: impl Fn(&ScopeIndex) -> T) -> Result<T, SearchError> {
    let (scope, indexes) = (a.target(), a.vault().indexes());
    let key = (scope.tenant, scope.owner);
    if let Some(answer) = indexes.with_ready(key, &question) {
        return Ok(answer);
    }
    let too_large = indexes.state(key) == indexes::State::TooLarge;
    if !too_large {
        a.vault().request_index(scope);
    }
    // What counts is what the scan passes, not how much of it the asker sees.
    if memories::length(a)? > limits::SCAN_MEMORIES_MAX {
        return Err(if too_large { SearchError::TooLarge } else { SearchError::NotReady });
    }
    let mut index = ScopeIndex::new();
    let (model, mut failed) = (a.vault().model().map(|model| model.id()), None);
    memories::walk(a, State::Live, Part::Full, |a, memory| {
        match model.map(|model| memories::vector(a.tx(), scope.tenant, &memory, &model)).transpose() {
            Ok(vector) => index.insert(&memories::prepared_with(&memory, vector.flatten())),
            Err(error) => failed = Some(error),
        }
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    Ok(question(&index))
}

/// The vector of a query, if this store embeds. Costs some 10 ms (docs/search.md); to be made once, before the index is asked.
pub fn probe<A: Action>(a: &Access<'_, A>, text: &str) -> Option<Probe> {
    a.vault().model().map(|model| model.probe(text))
}

/// Whether the asker's words stand in the memory as they are: the contract's literal search.
pub fn holds(memory: &Memory, term: &str) -> bool {
    contains(memory.text.title.inner(), term) || contains(memory.text.content.inner(), term)
}

/// Opens `candidates` in order and gives those that contain `term`, at most `most`.
pub fn confirm<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    candidates: impl IntoIterator<Item = MemoryId>,
    term: &str,
    most: usize,
) -> Result<Vec<Memory>, Unanswered> {
    let mut found = Vec::new();
    for id in candidates {
        if found.len() == most {
            break;
        }
        if let Some(memory) = memories::one(a, id, Part::Full, State::Live)?.filter(|memory| holds(memory, term)) {
            a.tx_mut().make_room(memory.json_bytes())?;
            found.push(memory);
        }
    }
    Ok(found)
}

/// Which of `candidates` contain `term`: those from `offset` on, at most `limit`, and how many there are. None stays open.
pub fn count<A: Reads + Action<Target = Scope>>(
    a: &Access<'_, A>,
    candidates: Vec<MemoryId>,
    term: &str,
    offset: usize,
    limit: usize,
) -> Result<(Vec<MemoryId>, usize), StoreError> {
    if is_exact(term) {
        let total = candidates.len();
        return Ok((candidates.into_iter().skip(offset).take(limit).collect(), total));
    }
    let (mut ids, mut total) = (Vec::new(), 0);
    for id in candidates {
        if memories::one(a, id, Part::Full, State::Live)?.is_some_and(|memory| holds(&memory, term)) {
            if total >= offset && ids.len() < limit {
                ids.push(id);
            }
            total += 1;
        }
    }
    Ok((ids, total))
}

/// The passage of a memory that answers `query`.
pub fn passage(memory: &Memory, query: &str) -> Snippet {
    snippet(memory.text.content.inner(), query, limits::SNIPPET_CHARS_MAX)
}

/// How the asker sees: as the owner, or as an agent of a vendor.
pub fn viewer<'a, A: Action>(a: &Access<'a, A>) -> Viewer<'a> {
    a.who().vendor().map_or(Viewer::All, |vendor| Viewer::Vendor(vendor.name()))
}
