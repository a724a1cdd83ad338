//! Erasures: who is to be erased and how far it has come; and tombstones, by which an older copy of the data knows whom to erase again.
//!
//! ```text
//! Asked ──rows, DEK and lookups gone, tombstone written──▶ Destroyed ──no key of the old epoch left──▶ Shredded ──entries' places known──▶ done
//! ```
//!
//! ERASURES: tenant | holder id → row. TOMBSTONES: number u64 BE, from 1 → tombstone.
//!
//! Invariants
//! - A holder has one erasure; asked again, it is the same one.
//! - Tombstones are numbered without a gap and never change.

use serde::{Deserialize, Serialize};

use crate::base::codec::CodecError;
use crate::base::id::{LogId, TenantId};
use crate::base::time::Timestamp;
use crate::store::check::{Fault, ensure};
use crate::store::tables::holders::Holder;
use crate::store::tables::{ERASURES, TOMBSTONES, key};
use crate::store::tx::{StoreError, Tx, row, value};

/// How far an erasure has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Stage {
    /// Asked for; the run that does it has not come to it.
    Asked,
    /// Rows and key are gone; what the old epoch's key wraps is being wrapped anew.
    Destroyed,
    /// No key is left that opens what old pages hold.
    Shredded,
}

/// Where the log tells of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The log: a restore ends one and begins another.
    pub log: LogId,
    /// The entry's index.
    pub index: u64,
}

/// An erasure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErasureRow {
    /// 1 user, 2 subject.
    pub kind: u8,
    /// How far it has come.
    pub stage: Stage,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// When rows and key were destroyed.
    pub destroyed_at: Option<Timestamp>,
    /// When the last key that opened old pages was gone.
    pub shredded_at: Option<Timestamp>,
    /// The epoch that died with it.
    pub epoch: u32,
    /// Memories that were removed.
    pub memories: u64,
    /// Number of its tombstone; 0 before there is one.
    pub tombstone: u64,
    /// The entries that tell of the destruction and of the end, once both are durable: then there is a receipt.
    pub entries: Option<(Place, Place)>,
}

/// That a holder was erased: nothing but random ids and numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tombstone {
    /// The workspace.
    pub tenant: TenantId,
    /// 1 user, 2 subject.
    pub kind: u8,
    /// The holder's id.
    pub holder: [u8; 16],
    /// When.
    pub at: Timestamp,
    /// The epoch whose key could still open what an older copy holds.
    pub epoch: u32,
}

/// Whom an id of a kind means.
pub fn holder(kind: u8, id: [u8; 16]) -> Option<Holder> {
    match kind {
        1 => Some(Holder::User(crate::base::id::UserId::from_bytes(id))),
        2 => Some(Holder::Subject(crate::base::id::SubjectId::from_bytes(id))),
        _ => None,
    }
}

fn row_key(tenant: TenantId, id: [u8; 16]) -> Vec<u8> {
    key(&[tenant.bytes(), &id])
}

/// The erasure of the holder with this id.
pub fn get(tx: &Tx<'_>, tenant: TenantId, id: [u8; 16]) -> Result<Option<ErasureRow>, StoreError> {
    tx.get(ERASURES, &row_key(tenant, id))?.map(|bytes| row("erasures", &bytes)).transpose()
}

/// Stages it.
pub fn put(tx: &mut Tx<'_>, tenant: TenantId, id: [u8; 16], erasure: &ErasureRow) {
    tx.put(ERASURES, row_key(tenant, id), value(erasure));
}

/// All erasures of the workspace, in the order of their holders' ids.
pub fn all(tx: &Tx<'_>, tenant: TenantId) -> Result<Vec<([u8; 16], ErasureRow)>, StoreError> {
    let mut found = Vec::new();
    for item in tx.prefix(ERASURES, tenant.bytes())? {
        let (key, bytes) = item?;
        let id = key[16..].try_into().map_err(|_| StoreError::Row("erasures", CodecError::Malformed))?;
        found.push((id, row("erasures", &bytes)?));
    }
    Ok(found)
}

/// How many tombstones there are.
pub fn tombstones(reader: &dyn crate::engine::Read) -> Result<u64, StoreError> {
    use std::ops::Bound::Unbounded;
    match reader.range(TOMBSTONES, Unbounded, Unbounded)?.next_back() {
        None => Ok(0),
        Some(item) => number(&item?.0),
    }
}

fn number(key: &[u8]) -> Result<u64, StoreError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| StoreError::Row("tombstones", CodecError::Malformed))
}

/// Every tombstone, in the order of their numbers.
pub fn all_tombstones(reader: &dyn crate::engine::Read) -> Result<Vec<Tombstone>, StoreError> {
    use std::ops::Bound::Unbounded;
    reader.range(TOMBSTONES, Unbounded, Unbounded)?.map(|item| row("tombstones", &item?.1)).collect()
}

/// Stages the next tombstone; its number.
pub fn bury(tx: &mut Tx<'_>, tombstone: &Tombstone) -> Result<u64, StoreError> {
    let number = tombstones(tx.reader)? + 1;
    tx.put(TOMBSTONES, number.to_be_bytes().to_vec(), value(tombstone));
    Ok(number)
}

/// A row of ERASURES: it is one of this workspace, and what it says of its tombstone is so.
pub fn check(tx: &Tx<'_>, tenant: TenantId, row_key: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let id = row_key.strip_prefix(tenant.bytes()).and_then(|id| id.try_into().ok()).ok_or(Fault::Wrong("not a key of this table"))?;
    let found: ErasureRow = row("erasures", bytes)?;
    ensure(holder(found.kind, id).is_some(), "not a holder that can be erased")?;
    ensure(found.entries.is_none() || found.stage == Stage::Shredded, "a receipt before the end")?;
    if found.stage == Stage::Asked {
        return ensure(found.tombstone == 0, "a tombstone before the end");
    }
    let buried = tx.get(TOMBSTONES, &found.tombstone.to_be_bytes())?.ok_or(StoreError::Missing("tombstones"))?;
    let buried: Tombstone = row("tombstones", &buried)?;
    ensure((buried.tenant, buried.holder) == (tenant, id), "its tombstone is another's")
}

/// A row of TOMBSTONES: its number follows the one before, and whom it names is not there.
pub fn check_tombstone(tx: &Tx<'_>, key: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let found: Tombstone = row("tombstones", bytes)?;
    let number = number(key)?;
    ensure(number == 1 || number > 1 && tx.get(TOMBSTONES, &(number - 1).to_be_bytes())?.is_some(), "a tombstone before it is missing")?;
    let holder = holder(found.kind, found.holder).ok_or(Fault::Wrong("not a holder that can be erased"))?;
    ensure(super::holders::epochs(tx, found.tenant, holder)?.is_empty(), "somebody who was erased still has a key")
}
