//! What `store::check` asks of memories: rows against ORDER, CHILDREN, VERSIONS and COUNTS, and back; every sealed field opens.

use std::collections::HashMap;

use super::embedding::{self, EmbeddingRow};
use super::memory::Part;
use super::reseal::digests;
use super::row::{MemoryRow, VersionRow, child_key, count_key, key_of_version, memory_key, order_key, order_parts};
use super::seal::opened;
use crate::base::id::{MemoryId, TenantId};
use crate::store::check::{Fault, ensure};
use crate::store::tables::{CHILDREN, ORDER, VERSIONS, subjects, users};
use crate::store::tx::{StoreError, Tx, row};

/// Workspace and memory at the beginning of a key.
fn named(key: &[u8]) -> Result<(TenantId, MemoryId), Fault> {
    let ids = key.split_first_chunk::<16>().and_then(|(tenant, rest)| Some((*tenant, *rest.first_chunk::<16>()?)));
    let (tenant, id) = ids.ok_or(Fault::Wrong("not a key of this table"))?;
    Ok((TenantId::from_bytes(tenant), MemoryId::from_bytes(id)))
}

/// A row of MEMORIES and all that must lead to it. Its counters are added to `counts`.
pub fn memory(tx: &Tx<'_>, tenant: TenantId, key: &[u8], bytes: &[u8], counts: &mut HashMap<Vec<u8>, u64>) -> Result<(), Fault> {
    let (of, id) = named(key)?;
    ensure(key == memory_key(tenant, id) && of == tenant, "not a key of this table")?;
    let found: MemoryRow = row("memories", bytes)?;
    let scope = found.scope(tenant);
    for name in found.counted() {
        *counts.entry(count_key(scope, &name)).or_default() += 1;
    }
    let (state, at) = found.state();
    ensure(
        tx.get(ORDER, &order_key(scope, state, at, id))?.as_deref() == Some(&found.alike_value()[..]),
        "its order is missing or another's",
    )?;
    ensure(users::exists(tx, tenant, found.owner)?, "its owner has no row")?;
    if let Some(subject) = found.subject {
        ensure(subjects::exists(tx, tenant, subject)?, "its subject has no row")?;
    }
    if let Some(parent) = found.parent {
        let above = MemoryRow::read(tx, tenant, parent)?.ok_or(Fault::Wrong("its parent has no row"))?;
        ensure(above.owner == found.owner && above.parent.is_none(), "its parent is another's, or a reply itself")?;
        ensure(tx.get(CHILDREN, &child_key(tenant, parent, found.created_at, id))?.is_some(), "it is not among its parent's replies")?;
    }
    for number in 1..found.version {
        let bytes = tx.get(VERSIONS, &key_of_version(tenant, id, number))?.ok_or(Fault::Wrong("an earlier version is missing"))?;
        let earlier: VersionRow = row("memory_versions", &bytes)?;
        ensure(earlier.memory.version == number && earlier.memory.owner == found.owner, "an earlier version is another's")?;
        opened(tx, tenant, id, &earlier.memory, Part::Full)?;
    }
    let (entities, digest) = digests(tx, tenant, id, &found)?;
    ensure(found.entities == entities, "its look-ups are not those of its text")?;
    ensure(found.digest == digest, "its look-alike digest is not that of its text")
}

/// A row of EMBEDDINGS: it is the vector of a live memory's text as it is. Its counter is added to `counts`.
pub fn embedding(tx: &Tx<'_>, key: &[u8], bytes: &[u8], counts: &mut HashMap<Vec<u8>, u64>) -> Result<(), Fault> {
    let (tenant, id) = named(key)?;
    let vector: EmbeddingRow = row("embeddings", bytes)?;
    let found = MemoryRow::read(tx, tenant, id)?.ok_or(StoreError::Missing("memories"))?;
    ensure(key == memory_key(tenant, id), "not a key of this table")?;
    *counts.entry(count_key(found.scope(tenant), &embedding::counter(&vector.model))).or_default() += 1;
    ensure(found.deleted_at.is_none() && found.version == vector.version, "the vector of a text that is there no more")?;
    vector.open(tx, tenant, id, &found)?;
    Ok(())
}

/// A row of ORDER: its memory has it.
pub fn order(tx: &Tx<'_>, key: &[u8], _: &[u8]) -> Result<(), Fault> {
    let (tenant, _) = named(key)?;
    let (_, id) = order_parts(key).ok_or(Fault::Wrong("not a key of this table"))?;
    let found = MemoryRow::read(tx, tenant, id)?.ok_or(StoreError::Missing("memories"))?;
    let (state, at) = found.state();
    ensure(key == order_key(found.scope(tenant), state, at, id), "its memory stands elsewhere in the order")
}

/// A row of CHILDREN: its memory is that reply.
pub fn child(tx: &Tx<'_>, key: &[u8]) -> Result<(), Fault> {
    let (tenant, parent) = named(key)?;
    let (_, id) = order_parts(key).ok_or(Fault::Wrong("not a key of this table"))?;
    let found = MemoryRow::read(tx, tenant, id)?.ok_or(StoreError::Missing("memories"))?;
    ensure(found.parent == Some(parent) && key == child_key(tenant, parent, found.created_at, id), "its memory is not that reply")
}

/// A row of VERSIONS: it is of a memory that is there, and earlier. What it holds is opened with its memory.
pub fn version(tx: &Tx<'_>, key: &[u8]) -> Result<(), Fault> {
    let (tenant, id) = named(key)?;
    let number = key.get(32..).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
    let number = number.ok_or(Fault::Wrong("not a key of this table"))?;
    let found = MemoryRow::read(tx, tenant, id)?.ok_or(StoreError::Missing("memories"))?;
    ensure((1..found.version).contains(&number), "a version that its memory never had")
}
