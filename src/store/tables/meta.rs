//! META: the few facts of the instance, each under its name.

use serde::{Deserialize, Serialize};

use crate::base::id::{LogId, TenantId, UserId};
use crate::store::tables::{Bytes, META};
use crate::store::tx::{StoreError, Tx, row, value};

const INSTANCE: &[u8] = b"instance";
/// Generation of the superblock as of the last commit that spoke of it.
pub const SUPERBLOCK: &[u8] = b"superblock";
/// The epoch that DEKs are being re-wrapped from: present from before the first of them.
pub const REWRAP: &[u8] = b"rewrap";

/// Who this instance is, since `init`.
#[derive(Serialize, Deserialize)]
pub struct InstanceRow {
    /// The version of the tables; see `store/migrate.rs`.
    pub schema: u32,
    /// The workspace.
    pub tenant: TenantId,
    /// Its label, sealed under the tenant's DEK.
    pub label: Bytes,
    /// The owner: the person of `RM_OWNER_EMAIL`.
    pub owner: UserId,
    /// The audit log.
    pub log: LogId,
}

/// The instance's row.
pub fn instance(tx: &Tx<'_>) -> Result<Option<InstanceRow>, StoreError> {
    tx.get(META, INSTANCE)?.map(|bytes| row("meta", &bytes)).transpose()
}

/// Writes the instance's row.
pub fn put_instance(tx: &mut Tx<'_>, instance: &InstanceRow) {
    tx.put(META, INSTANCE.to_vec(), value(instance));
}

/// The generation that the superblock has at least.
pub fn generation(tx: &Tx<'_>) -> Result<u64, StoreError> {
    Ok(tx.get(META, SUPERBLOCK)?.map(|bytes| row("meta", &bytes)).transpose()?.unwrap_or(1))
}

/// Stages it.
pub fn put_generation(tx: &mut Tx<'_>, generation: u64) {
    tx.put(META, SUPERBLOCK.to_vec(), value(&generation));
}

/// The epoch that DEKs are being re-wrapped from, if that has begun.
pub fn rewrapping(tx: &Tx<'_>) -> Result<Option<u32>, StoreError> {
    tx.get(META, REWRAP)?.map(|bytes| row("meta", &bytes)).transpose()
}

/// Stages that it has begun, or is done.
pub fn put_rewrapping(tx: &mut Tx<'_>, epoch: Option<u32>) {
    match epoch {
        Some(epoch) => tx.put(META, REWRAP.to_vec(), value(&epoch)),
        None => tx.delete(META, REWRAP.to_vec()),
    }
}
