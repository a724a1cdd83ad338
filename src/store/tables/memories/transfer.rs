//! Records in bulk: in from elsewhere, out in chunks.
//!
//! Invariants
//! - An export gives every parent before its replies, and each memory once if nothing moves to or from the trash between its chunks.
//! - An imported record keeps its times and is united with nothing.

use std::ops::Bound;

use super::memory::{Memory, NewMemory, Part, State};
use super::read::answer;
use super::row::{MemoryRow, OrderPlace, damaged, order_key, order_parts, order_prefix};
use super::seal::{look_alike, opened};
use super::write::{Place, add_row, subject_of};
use crate::base::id::MemoryId;
use crate::base::time::Timestamp;
use crate::policy::action::{Action, Reads, Scope, Writes};
use crate::store::gate::Access;
use crate::store::tables::{ORDER, after};
use crate::store::tx::StoreError;

/// A record from elsewhere, with the id it is to have here.
pub struct Imported {
    /// Its id here.
    pub id: MemoryId,
    /// The memory of this scope that it replies to.
    pub parent: Option<MemoryId>,
    /// Its text; `created_at` as it was there, if said.
    pub new: NewMemory,
    /// When it was last changed there; not before it was written.
    pub updated_at: Option<Timestamp>,
    /// When it was moved to the trash there.
    pub deleted_at: Option<Timestamp>,
}

/// Stages a record from elsewhere as a memory of its own: nothing is united with it.
pub fn import<A: Writes + Action<Target = Scope>>(a: &mut Access<'_, A>, from: Imported) -> Result<(), StoreError> {
    let (scope, author) = (a.target(), a.who().credential().text());
    let tx = a.tx_mut();
    let subject = subject_of(tx, scope, &from.new)?;
    let digest = look_alike(tx, scope, subject, &from.new);
    let created_at = from.new.created_at.unwrap_or(tx.now);
    let updated_at = from.updated_at.unwrap_or(created_at);
    let place = Place { id: from.id, parent: from.parent, created_at, updated_at, deleted_at: from.deleted_at };
    add_row(tx, scope, subject, digest, author, place, from.new).map(drop)
}

/// Where an export goes on: memories that begin threads come first, replies after them, so that whoever reads it has seen every parent.
#[derive(Clone, Copy, Debug)]
pub struct ExportPlace {
    replies: bool,
    state: State,
    after: Option<OrderPlace>,
}

impl ExportPlace {
    /// The beginning.
    pub const START: Self = Self { replies: false, state: State::Live, after: None };

    /// The next part of the export: live, then trashed; beginnings, then replies.
    fn next(self) -> Option<Self> {
        match (self.replies, self.state) {
            (replies, State::Live) => Some(Self { replies, state: State::Trash, after: None }),
            (false, State::Trash) => Some(Self { replies: true, state: State::Live, after: None }),
            (true, State::Trash) => None,
        }
    }
}

/// A chunk of all memories of the scope, trash included, oldest first, from `place` on; stops at `rows` looked at or `bytes` of text opened.
/// Gives where to go on, or none at the end.
pub fn export<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    place: ExportPlace,
    rows: usize,
    bytes: usize,
) -> Result<(Vec<Memory>, Option<ExportPlace>), StoreError> {
    let scope = a.target();
    let prefix = order_prefix(scope, place.state);
    let start = place.after.map_or(prefix.clone(), |(at, id)| order_key(scope, place.state, at, id));
    let (mut found, mut opened_bytes, mut last) = (Vec::new(), 0, None);
    let range = a.tx().reader.range(ORDER, Bound::Excluded(&start), Bound::Excluded(&after(&prefix)))?;
    let mut looked = 0;
    for item in range.take(rows) {
        let (at, id) = order_parts(&item?.0).ok_or(damaged("memory_order"))?;
        let row = MemoryRow::read(a.tx(), scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?;
        (looked, last) = (looked + 1, Some((at, id)));
        if row.parent.is_some() == place.replies {
            let memory = opened(a.tx(), scope.tenant, id, &row, Part::Full)?;
            opened_bytes += memory.text.content.bytes();
            found.push(memory);
            if opened_bytes >= bytes {
                break;
            }
        }
    }
    answer(a, &found);
    let more = looked == rows || opened_bytes >= bytes;
    let next = if more { Some(ExportPlace { after: last, ..place }) } else { place.next() };
    Ok((found, next))
}
