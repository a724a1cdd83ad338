//! Memories that die with a holder's key: all of a user's, or all about a subject, in steps of bounded size.
//!
//! Invariant: what remains after each step is whole: no reply without its parent's row, no index row without its memory.

use super::embedding;
use super::index::prepared;
use super::memory::{Part, State};
use super::row::{MemoryRow, child_key, children_of, damaged, memory_key, order_parts, order_prefix};
use super::seal::opened;
use super::trash::purge_row;
use crate::base::id::{MemoryId, SubjectId, TenantId, UserId};
use crate::policy::action::Scope;
use crate::store::events::Happened;
use crate::store::tables::{CHILDREN, COUNTS, MEMORIES, key};
use crate::store::tx::{StoreError, Tx, row};

/// Removes memories of the scope, live or trashed, with their versions and replies: at most `most` memories and `rows` rows. Gives how many
/// memories went, and whether none is left.
pub fn purge_owned(tx: &mut Tx<'_>, scope: Scope, most: usize, mut rows: usize) -> Result<(u64, bool), StoreError> {
    let mut removed = 0;
    for state in [State::Live, State::Trash] {
        let some: Vec<Vec<u8>> = (tx.prefix(super::ORDER, &order_prefix(scope, state))?.take(most))
            .map(|item| item.map(|(key, _)| key))
            .collect::<Result<_, _>>()?;
        for order in &some {
            let (_, id) = order_parts(order).ok_or(damaged("memory_order"))?;
            // A reply may have gone with its parent in this very step.
            let Some(old) = MemoryRow::read(tx, scope.tenant, id)? else { continue };
            for child in children_of(tx, scope.tenant, id)? {
                let Some(found) = MemoryRow::read(tx, scope.tenant, child)? else { continue };
                if found.owner == scope.owner {
                    if !purge_row(tx, scope.tenant, child, &found, &mut rows)? {
                        return Ok((removed, false));
                    }
                    removed += 1;
                } else {
                    stand_alone(tx, scope.tenant, id, child, &found)?;
                }
            }
            if !purge_row(tx, scope.tenant, id, &old, &mut rows)? {
                return Ok((removed, false));
            }
            removed += 1;
        }
        if !some.is_empty() {
            return Ok((removed, false));
        }
    }
    Ok((removed, true))
}

/// Whether the scope holds no memory.
pub fn owns_nothing(tx: &Tx<'_>, scope: Scope) -> Result<bool, StoreError> {
    let mut some =
        [State::Live, State::Trash].into_iter().map(|state| Ok(tx.prefix(super::ORDER, &order_prefix(scope, state))?.next().is_none()));
    some.try_fold(true, |nothing, state: Result<bool, StoreError>| Ok(nothing && state?))
}

/// Stages the end of the scope's counters.
pub fn forget_counts(tx: &mut Tx<'_>, scope: Scope) -> Result<(), StoreError> {
    let keys: Vec<Vec<u8>> = (tx.prefix(COUNTS, &key(&[scope.tenant.bytes(), scope.owner.bytes()]))?)
        .map(|item| item.map(|(key, _)| key))
        .collect::<Result<_, _>>()?;
    keys.into_iter().for_each(|key| tx.delete(COUNTS, key));
    Ok(())
}

/// The memories about `subject` among the next `seen` of the workspace after `after`, at most `most`; and where to go on, if there are more.
pub fn about(
    tx: &Tx<'_>,
    tenant: TenantId,
    subject: SubjectId,
    after: Option<MemoryId>,
    most: usize,
    seen: usize,
) -> Result<(Vec<MemoryId>, Option<MemoryId>), StoreError> {
    let low = after.map_or(tenant.bytes().to_vec(), |id| memory_key(tenant, id));
    let high = crate::store::tables::after(tenant.bytes());
    let (mut found, mut looked) = (Vec::new(), 0);
    for item in tx.reader.range(MEMORIES, std::ops::Bound::Excluded(&low), std::ops::Bound::Excluded(&high))? {
        let (key, bytes) = item?;
        let id = key[16..].try_into().map(MemoryId::from_bytes).map_err(|_| damaged("memories"))?;
        if row::<MemoryRow>("memories", &bytes)?.subject == Some(subject) {
            found.push(id);
        }
        looked += 1;
        if found.len() == most || looked == seen {
            return Ok((found, Some(id)));
        }
    }
    Ok((found, None))
}

/// Removes those of `ids` that are about `subject`, with their versions: at most `rows` rows. A reply about somebody else stays, without its
/// parent. Gives how many memories went, whose they were, and whether all are gone.
pub fn purge_about(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    subject: SubjectId,
    ids: &[MemoryId],
    mut rows: usize,
) -> Result<(u64, Vec<UserId>, bool), StoreError> {
    let (mut removed, mut owners) = (0, Vec::new());
    for id in ids {
        let Some(old) = MemoryRow::read(tx, tenant, *id)?.filter(|row| row.subject == Some(subject)) else { continue };
        if !purge_row(tx, tenant, *id, &old, &mut rows)? {
            return Ok((removed, owners, false));
        }
        for child in children_of(tx, tenant, *id)? {
            if let Some(found) = MemoryRow::read(tx, tenant, child)? {
                stand_alone(tx, tenant, *id, child, &found)?;
            }
        }
        removed += 1;
        if !owners.contains(&old.owner) {
            owners.push(old.owner);
        }
    }
    Ok((removed, owners, true))
}

/// Makes a reply a memory of its own.
pub(super) fn stand_alone(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    parent: MemoryId,
    child: MemoryId,
    found: &MemoryRow,
) -> Result<(), StoreError> {
    tx.delete(CHILDREN, child_key(tenant, parent, found.created_at, child));
    let alone = MemoryRow { parent: None, ..found.clone() };
    alone.stage(tx, tenant, child, Some(found));
    // The index takes the memory in anew; its vector is made again too.
    embedding::forget(tx, found.scope(tenant), child)?;
    tx.tell(found.scope(tenant), Happened::Updated, child);
    if alone.deleted_at.is_none() {
        let memory = opened(tx, tenant, child, &alone, Part::Full)?;
        tx.put_index(found.scope(tenant), || prepared(&memory));
    }
    Ok(())
}
