//! The trash: into it, out of it, and for good.
//!
//! Invariants
//! - Replies move with their parent, and back; emptying the trash leaves a live reply behind as a memory of its own.
//! - A purge removes at most as many memories and versions as it was told, versions first, so that one cut short can go on.

use std::collections::BTreeSet;

use super::embedding;
use super::erase::stand_alone;
use super::index::prepared;
use super::memory::{Memory, Part, State};
use super::row::{MemoryRow, child_key, children_of, damaged, granted, memory_key, order_parts, order_prefix};
use super::seal::opened;
use crate::base::id::{MemoryId, TenantId};
use crate::base::time::Timestamp;
use crate::policy::action::{Action, Scope, Writes};
use crate::store::events::Happened;
use crate::store::gate::Access;
use crate::store::index::indexes::Change;
use crate::store::tables::{CHILDREN, MEMORIES, ORDER, VERSIONS};
use crate::store::tx::{StoreError, Tx};

/// Moves the granted memory to the trash, and its live replies with it. `None` if it is there already.
pub fn trash<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<Option<Memory>, StoreError> {
    let now = a.tx().now;
    shift(a, State::Live, Some(now))
}

/// Moves these memories of the scope to the trash, and their live replies with them; gives how many of `ids` were live and the owner's.
pub fn trash_several<A: Writes + Action<Target = Scope>>(a: &mut Access<'_, A>, ids: &[MemoryId]) -> Result<usize, StoreError> {
    let (scope, now) = (a.target(), a.tx().now);
    let (mut moved, mut count) = (BTreeSet::new(), 0);
    let tx = a.tx_mut();
    for id in ids {
        // A reply may have been moved with its parent by this very work.
        if moved.contains(id) {
            count += 1;
            continue;
        }
        let Some(found) = MemoryRow::read(tx, scope.tenant, *id)?.filter(|row| row.owner == scope.owner && row.deleted_at.is_none()) else { continue };
        (count, _) = (count + 1, moved.insert(*id));
        shift_row(tx, scope.tenant, *id, &found, Some(now))?;
        for child in children_of(tx, scope.tenant, *id)? {
            let Some(found) = MemoryRow::read(tx, scope.tenant, child)? else { continue };
            if found.owner == scope.owner && found.deleted_at.is_none() && moved.insert(child) {
                shift_row(tx, scope.tenant, child, &found, Some(now))?;
            }
        }
    }
    Ok(count)
}

/// Takes the granted memory out of the trash, and its replies with it. `None` if it is not there.
pub fn restore<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<Option<Memory>, StoreError> {
    shift(a, State::Trash, None)
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
) -> Result<Option<Memory>, StoreError> {
    let (tenant, id, old) = granted(a)?;
    if old.state().0 != from {
        return Ok(None);
    }
    let tx = a.tx_mut();
    let memory = shift_row(tx, tenant, id, &old, deleted_at)?;
    for child in children_of(tx, tenant, id)? {
        let Some(found) = MemoryRow::read(tx, tenant, child)? else { continue };
        if found.owner == old.owner && found.state().0 == from {
            shift_row(tx, tenant, child, &found, deleted_at)?;
        }
    }
    Ok(Some(memory))
}

fn shift_row(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    id: MemoryId,
    old: &MemoryRow,
    deleted_at: Option<Timestamp>,
) -> Result<Memory, StoreError> {
    let found = MemoryRow { deleted_at, ..old.clone() };
    found.stage(tx, tenant, id, Some(old));
    embedding::forget(tx, old.scope(tenant), id)?;
    tx.note(id.bytes());
    tx.note_subject(old.subject);
    let memory = opened(tx, tenant, id, &found, Part::Full)?;
    tx.tell(old.scope(tenant), if deleted_at.is_some() { Happened::Trashed } else { Happened::Restored }, id);
    match deleted_at {
        Some(_) => tx.staged.index.push((old.scope(tenant), Change::Remove(id))),
        None => tx.put_index(old.scope(tenant), || prepared(&memory)),
    }
    Ok(memory)
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
