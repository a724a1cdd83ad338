//! The trash: into it, out of it, and for good.
//!
//! Invariants
//! - Replies move before their parent, and back; those that an agent did not write stay where they are. Emptying the trash leaves a live reply
//!   behind as a memory of its own.
//! - What moves or is looked at in one commit is bounded (`Share`): everybody waits for the writer. A move that was cut short can go on.
//! - A purge removes at most as many memories and versions as it was told, versions first, so that one cut short can go on.

use super::embedding;
use super::erase::stand_alone;
use super::index::prepared;
use super::memory::{Memory, Part, State};
use super::row::{
    MemoryRow, OrderPlace, child_key, children_of, damaged, granted, memory_key, order_key, order_parts, order_prefix, replies_of,
};
use super::seal::opened;
use crate::base::id::{MemoryId, TenantId};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::policy::action::{Action, Scope, Writes};
use crate::store::events::Happened;
use crate::store::gate::Access;
use crate::store::index::indexes::Change;
use crate::store::tables::{CHILDREN, MEMORIES, ORDER, VERSIONS};
use crate::store::tx::{StoreError, Tx};

/// What one commit may still look at.
pub struct Share {
    rows: usize,
    bytes: usize,
}

impl Share {
    /// For moves.
    pub fn to_move() -> Self {
        Self { rows: limits::PURGE_CHUNK, bytes: limits::MOVED_BYTES_MAX }
    }

    /// For a choice of what moves.
    pub fn to_survey() -> Self {
        Self { rows: limits::TRASH_SURVEY_MAX, bytes: limits::SURVEYED_BYTES_MAX }
    }

    /// Takes a row out of it; the one that exceeds it is the last.
    pub(super) fn spend(&mut self, row: &MemoryRow) {
        (self.rows, self.bytes) = (self.rows.saturating_sub(1), self.bytes.saturating_sub(row.text_bytes()));
    }

    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }
}

/// What became of a move.
#[derive(Debug)]
pub enum Moved<T> {
    /// It is done.
    All(T),
    /// A part of the replies has moved.
    UpTo {
        /// The next commit goes on after this one.
        reply: OrderPlace,
        /// So many memories are still in the trash, if they were to come out of it.
        left: u64,
    },
}

/// Moves the granted memory to the trash, after its live replies beyond `after`; an agent's move takes those that it wrote itself. `None` if it is
/// there already.
pub fn trash<A: Writes + Action<Target = MemoryId>>(
    a: &mut Access<'_, A>,
    after: Option<OrderPlace>,
) -> Result<Option<Moved<Memory>>, StoreError> {
    let now = a.tx().now;
    shift(a, State::Live, Some(now), after)
}

/// Moves a live memory of the scope to the trash as [`trash`] does. Gives how many memories moved, and where it stopped if the share ran out.
pub fn trash_one<A: Writes + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    id: MemoryId,
    after: Option<OrderPlace>,
    share: &mut Share,
) -> Result<(usize, Option<OrderPlace>), StoreError> {
    let (scope, now, vendor) = (a.target(), a.tx().now, own_vendor(a));
    let tx = a.tx_mut();
    let mover = Mover { scope, from: State::Live, deleted_at: Some(now), vendor };
    // A reply may have been moved with its parent by this very work.
    let Some(found) = MemoryRow::read(tx, scope.tenant, id)?.filter(|row| row.owner == scope.owner && row.deleted_at.is_none()) else {
        return Ok((0, None));
    };
    let (moved, stopped) = mover.replies(tx, id, after, share)?;
    if stopped.is_some() {
        return Ok((moved, stopped));
    }
    share.spend(&found);
    mover.row(tx, id, &found)?;
    Ok((moved + 1, None))
}

/// Takes the granted memory out of the trash, after its replies beyond `after`. `None` if it is not there.
pub fn restore<A: Writes + Action<Target = MemoryId>>(
    a: &mut Access<'_, A>,
    after: Option<OrderPlace>,
) -> Result<Option<Moved<Memory>>, StoreError> {
    shift(a, State::Trash, None, after)
}

/// Removes the granted memory, its versions and its replies for good, live or trashed: at most `rows` rows, oldest versions first. `false` if
/// more are left; the memory itself goes last.
pub fn purge<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>, mut rows: usize) -> Result<bool, StoreError> {
    let (tenant, id, old) = granted(a)?;
    let tx = a.tx_mut();
    for child in children_of(tx, tenant, id)? {
        if let Some(found) = MemoryRow::read(tx, tenant, child)?
            && !purge_row(tx, tenant, child, &found, &mut rows)?
        {
            tx.note(id.bytes());
            return Ok(false);
        }
    }
    purge_row(tx, tenant, id, &old, &mut rows)
}

/// Removes up to `most` memories in the scope's trash for good, and at most `rows` rows, versions included; gives how many memories, and
/// whether none is left. A live reply of one of them stays, without its parent.
pub fn purge_trash<A: Writes + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    most: usize,
    mut rows: usize,
) -> Result<(usize, bool), StoreError> {
    let scope = a.target();
    let tx = a.tx_mut();
    let trashed: Vec<Vec<u8>> = (tx.prefix(ORDER, &order_prefix(scope, State::Trash))?.take(most))
        .map(|item| item.map(|(key, _)| key))
        .collect::<Result<_, _>>()?;
    let whole = trashed.len() < most;
    for (removed, order) in trashed.iter().enumerate() {
        let (_, id) = order_parts(order).ok_or(damaged("memory_order"))?;
        let old = MemoryRow::read(tx, scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?;
        if !purge_row(tx, scope.tenant, id, &old, &mut rows)? {
            return Ok((removed, false));
        }
        for child in children_of(tx, scope.tenant, id)? {
            // A trashed reply may be purged by this very run, before or after its parent; then its row is gone already.
            let Some(found) = MemoryRow::read(tx, scope.tenant, child)? else { continue };
            stand_alone(tx, scope.tenant, id, child, &found)?;
        }
    }
    Ok((trashed.len(), whole))
}

fn shift<A: Writes + Action<Target = MemoryId>>(
    a: &mut Access<'_, A>,
    from: State,
    deleted_at: Option<Timestamp>,
    after: Option<OrderPlace>,
) -> Result<Option<Moved<Memory>>, StoreError> {
    let (tenant, id, old) = granted(a)?;
    if old.state().0 != from {
        return Ok(None);
    }
    let mover = Mover { scope: old.scope(tenant), from, deleted_at, vendor: own_vendor(a) };
    let tx = a.tx_mut();
    if let (_, Some(reply)) = mover.replies(tx, id, after, &mut Share::to_move())? {
        // Its entry is about this memory, even if nothing was moved yet.
        tx.note(id.bytes());
        let mut left = 1;
        for (at, child) in replies_of(tx, tenant, id)?.into_iter().filter(|place| from == State::Trash && *place > reply) {
            left += u64::from(tx.get(ORDER, &order_key(mover.scope, State::Live, at, child))?.is_none());
        }
        return Ok(Some(Moved::UpTo { reply, left }));
    }
    let found = mover.row(tx, id, &old)?;
    Ok(Some(Moved::All(opened(tx, tenant, id, &found, Part::Full)?)))
}

/// The agent who moves, if it is one.
fn own_vendor<A: Action>(a: &Access<'_, A>) -> Option<String> {
    a.who().vendor().map(|vendor| vendor.name().to_owned())
}

/// One move: from where, to where, by whom.
struct Mover {
    scope: Scope,
    from: State,
    deleted_at: Option<Timestamp>,
    vendor: Option<String>,
}

impl Mover {
    /// Moves the replies of `parent` beyond `after`, oldest first. Gives how many moved, and the last one that was looked at if the share ran out.
    fn replies(
        &self,
        tx: &mut Tx<'_>,
        parent: MemoryId,
        after: Option<OrderPlace>,
        share: &mut Share,
    ) -> Result<(usize, Option<OrderPlace>), StoreError> {
        let tenant = self.scope.tenant;
        let mut moved = 0;
        for place @ (_, child) in replies_of(tx, tenant, parent)? {
            if after.is_some_and(|after| place <= after) {
                continue;
            }
            let Some(found) = MemoryRow::read(tx, tenant, child)? else { continue };
            share.spend(&found);
            let vendor = self.vendor.as_deref();
            let theirs = vendor.is_none_or(|vendor| found.origin == vendor && found.visible_to(Some(vendor)));
            if found.owner == self.scope.owner && found.state().0 == self.from && theirs {
                self.row(tx, child, &found)?;
                moved += 1;
            }
            if share.is_spent() {
                return Ok((moved, Some(place)));
            }
        }
        Ok((moved, None))
    }

    /// Moves one memory, without opening it unless an index wants its words.
    fn row(&self, tx: &mut Tx<'_>, id: MemoryId, old: &MemoryRow) -> Result<MemoryRow, StoreError> {
        let (scope, tenant) = (self.scope, self.scope.tenant);
        let found = MemoryRow { deleted_at: self.deleted_at, ..old.clone() };
        found.stage(tx, tenant, id, Some(old));
        embedding::forget(tx, scope, id)?;
        tx.note(id.bytes());
        tx.note_subject(old.subject);
        tx.tell(scope, if self.deleted_at.is_some() { Happened::Trashed } else { Happened::Restored }, id);
        if self.deleted_at.is_some() {
            tx.staged.index.push((scope, Change::Remove(id)));
        } else if tx.wants_index(scope) {
            let memory = opened(tx, tenant, id, &found, Part::Full)?;
            tx.put_index(scope, || prepared(&memory));
        }
        Ok(found)
    }
}

/// `false` if `rows` ran out and the memory is still there.
pub(super) fn purge_row(tx: &mut Tx<'_>, tenant: TenantId, id: MemoryId, old: &MemoryRow, rows: &mut usize) -> Result<bool, StoreError> {
    tx.note(id.bytes());
    tx.note_subject(old.subject);
    for version in tx.prefix(VERSIONS, &memory_key(tenant, id))? {
        if *rows == 0 {
            return Ok(false);
        }
        *rows -= 1;
        let (version, _) = version?;
        tx.delete(VERSIONS, version);
    }
    if *rows == 0 {
        return Ok(false);
    }
    *rows -= 1;
    if let Some(parent) = old.parent {
        tx.delete(CHILDREN, child_key(tenant, parent, old.created_at, id));
    }
    old.unstage_order(tx, tenant, id, false);
    embedding::forget(tx, old.scope(tenant), id)?;
    tx.delete(MEMORIES, memory_key(tenant, id));
    tx.tell(old.scope(tenant), Happened::Purged, id);
    tx.staged.index.push((old.scope(tenant), Change::Remove(id)));
    Ok(true)
}
