//! What the search index and the look-alike table keep of memories, and the chunks they are filled from.
//!
//! Promise: a memory prepared before its write and one prepared from its row give the index the same words.

use std::ops::Bound;

use zeroize::Zeroizing;

use super::embedding::vector;
use super::memory::{Memory, NewMemory, Part, State, Text};
use super::row::{MemoryRow, OrderPlace, damaged, order_key, order_parts, order_prefix};
use super::seal::opened;
use crate::base::id::MemoryId;
use crate::base::time::Timestamp;
use crate::embed::Embedding;
use crate::policy::action::{Action, Reads, Scope};
use crate::store::gate::Access;
use crate::store::index::prepared::{Doc, Prepared, Visibility};
use crate::store::phi::Phi;
use crate::store::recent::Digest;
use crate::store::tables::{self, ORDER, key};
use crate::store::tx::StoreError;

/// A memory and its vector, if the model in use made one.
pub type WithVector = (Memory, Option<Embedding>);

/// What the search index keeps of a memory and its vector.
pub(in crate::store) fn prepared_with(memory: &Memory, vector: Option<Embedding>) -> Box<Prepared> {
    let mut prepared = prepared(memory);
    prepared.vector = vector;
    prepared
}

/// What the search index keeps of a memory whose vector is not made yet.
pub(in crate::store) fn prepared(memory: &Memory) -> Box<Prepared> {
    let words = words(&memory.text, &memory.origin, &memory.allowed_vendors);
    Box::new(words.placed(memory.id, memory.parent, memory.subject, memory.created_at, memory.occurred_at))
}

impl NewMemory {
    /// Does what costs time and needs no transaction: the words for the search index. To be called before the work is handed over.
    pub fn prepare(&mut self) {
        self.prepared = Some(Box::new(words(&self.text, &self.origin, &self.allowed_vendors)));
    }
}

/// What the index keeps of a text that has no id, place or time yet: see [`Prepared::placed`].
fn words(text: &Text, origin: &str, allowed_vendors: &[String]) -> Prepared {
    let tags: Zeroizing<Vec<String>> = Zeroizing::new(text.tags.iter().map(|tag| tag.inner().to_owned()).collect());
    Prepared::of(&Doc {
        id: MemoryId::from_bytes([0; 16]),
        created_at: Timestamp::default(),
        title: text.title.inner(),
        content: text.content.inner(),
        tags: &tags,
        speaker: text.speaker.as_ref().map(Phi::inner),
        run: text.run_id.as_ref().map(Phi::inner),
        origin,
        vendors: if allowed_vendors.iter().any(|v| v == "*") { Visibility::All } else { Visibility::Only(allowed_vendors) },
        parent: None,
        subject: None,
        occurred_at: None,
        live: true,
    })
}

/// A chunk of the scope's live memories for the search index, each with its vector if the model in use made one; oldest first, after `after`; at
/// most `most`.
pub fn chunk<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    after: Option<OrderPlace>,
    most: usize,
) -> Result<(Vec<WithVector>, Option<OrderPlace>), StoreError> {
    let (scope, model) = (a.target(), a.vault().model().map(|model| model.id()));
    let end = tables::after(&order_prefix(scope, State::Live));
    let start = match after {
        Some((at, id)) => order_key(scope, State::Live, at, id),
        None => order_prefix(scope, State::Live),
    };
    let mut found = Vec::new();
    let mut last = None;
    let range = a.tx().reader.range(ORDER, Bound::Excluded(&start), Bound::Excluded(&end))?;
    for item in range.take(most) {
        let (at, id) = order_parts(&item?.0).ok_or(damaged("memory_order"))?;
        let row = MemoryRow::read(a.tx(), scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?;
        let memory = opened(a.tx(), scope.tenant, id, &row, Part::Full)?;
        let vector = model.map(|model| vector(a.tx(), scope.tenant, &memory, &model)).transpose()?.flatten();
        found.push((memory, vector));
        last = Some((at, id));
    }
    Ok((found, last))
}

/// Digests of the scope's newest memories since `since`, oldest first, at most `most`: what look-alikes are compared with.
pub(in crate::store) fn recent(
    reader: &dyn crate::engine::Read,
    scope: Scope,
    since: Timestamp,
    most: usize,
) -> Result<Vec<Digest>, StoreError> {
    let prefix = order_prefix(scope, State::Live);
    let start = key(&[&prefix, &since.ms().to_be_bytes()]);
    let end = tables::after(&prefix);
    let mut found = Vec::new();
    for item in reader.range(ORDER, Bound::Included(&start), Bound::Excluded(&end))?.rev().take(most) {
        let (order, digest) = item?;
        let (at, id) = order_parts(&order).ok_or(damaged("memory_order"))?;
        if !digest.is_empty() {
            found.push((digest.try_into().map_err(|_| damaged("memory_order"))?, (at, id)));
        }
    }
    found.reverse();
    Ok(found)
}
