//! META: the few facts of the instance, each under its name.

use serde::{Deserialize, Serialize};

use crate::base::id::{FileId, LogId, TenantId, UserId};
use crate::base::time::Timestamp;
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::{Bytes, META};
use crate::store::tx::{StoreError, Tx, row, value};

/// Name of the instance's row.
pub const INSTANCE: &[u8] = b"instance";
/// Name of the mark that a backup carries and nothing else does.
pub const BACKUP: &[u8] = b"backup";
/// Name of the mark of a file that came from a restore.
pub const RESTORED: &[u8] = b"restored";
/// Name of the mark that a backup was asked for: when.
pub const ASKED: &[u8] = b"backup_asked";
/// Name of the last restore drill's report.
pub const DRILL: &[u8] = b"drill";

/// What makes a file a backup: it is not opened as a data file, only restored.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BackupMark {
    /// When it was begun.
    pub taken_at: Timestamp,
}

/// Where a restored file came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoredMark {
    /// The backup's file id.
    pub backup: FileId,
    /// When it was restored.
    pub at: Timestamp,
    /// The log that ended with it.
    pub log: LogId,
    /// That log's entries.
    pub size: u64,
}

/// How a restore drill ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrillRow {
    /// When it began.
    pub at: Timestamp,
    /// The backup that was restored.
    pub backup: FileId,
    /// Whether what was restored passed every check.
    pub passed: bool,
    /// From opening the backup to a data file that could serve, milliseconds.
    pub restore_ms: u64,
    /// Memories that were restored.
    pub memories: u64,
    /// Entries of the log that were restored.
    pub entries: u64,
}

/// Name of the mark of a file that was made under new keys of every kind.
pub const RENEWED: &[u8] = b"renewed";

/// Where a file under new keys came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RenewedMark {
    /// The file whose keys were left.
    pub from: FileId,
    /// When.
    pub at: Timestamp,
    /// Entries in the log when the new file was done.
    pub size: u64,
}

/// The row under `name`, if there is one.
pub fn fact<T: Serialize + serde::de::DeserializeOwned>(tx: &Tx<'_>, name: &[u8]) -> Result<Option<T>, StoreError> {
    tx.get(META, name)?.map(|bytes| row("meta", &bytes)).transpose()
}

/// Stages the row under `name`.
pub fn put_fact<T: Serialize>(tx: &mut Tx<'_>, name: &[u8], fact: &T) {
    tx.put(META, name.to_vec(), value(fact));
}

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

/// Name of the row that says how far a renewal of DEKs has come.
pub const RENEWAL: &[u8] = b"renewal";

/// A stage of the renewal of DEKs, see `store::renewal`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Renewal {
    /// Holders get their second DEK.
    Doubling,
    /// Fields are sealed again.
    Sealing,
    /// Old DEKs go.
    Dropping,
    /// The epoch that wrapped them is to be left.
    Leaving,
}

impl Renewal {
    /// As the log says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Doubling => "doubling",
            Self::Sealing => "sealing",
            Self::Dropping => "dropping",
            Self::Leaving => "leaving",
        }
    }
}

/// The stage of the renewal that is under way.
pub fn renewal(tx: &Tx<'_>) -> Result<Option<Renewal>, StoreError> {
    fact(tx, RENEWAL)
}

/// Stages that it is in another stage, or done.
pub fn put_renewal(tx: &mut Tx<'_>, stage: Option<Renewal>) {
    match stage {
        Some(stage) => put_fact(tx, RENEWAL, &stage),
        None => tx.delete(META, RENEWAL.to_vec()),
    }
}

/// The instance's row with its label sealed again under the tenant's newest DEK, unless it is.
pub fn resealed(tx: &Tx<'_>, name: &[u8], bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    if name != INSTANCE {
        return Ok(None);
    }
    let mut found: InstanceRow = row("meta", bytes)?;
    let tenant = found.tenant;
    Ok(holders::reseal(tx, tenant, Holder::Tenant, "label", tenant.bytes(), &mut found.label)?.then(|| value(&found)))
}
