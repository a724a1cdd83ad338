//! Backups as the data file knows them: which copies of an older state exist, and until when. An erasure's receipt names those that hold the
//! epoch that died with it.
//!
//! BACKUPS: file id of the copy → row.

use serde::{Deserialize, Serialize};

use crate::base::codec::CodecError;
use crate::base::id::FileId;
use crate::base::time::Timestamp;
use crate::store::tables::BACKUPS;
use crate::store::tx::{StoreError, Tx, row, value};

/// A copy that was made, and may still be somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupRow {
    /// When it was taken.
    pub made_at: Timestamp,
    /// The oldest epoch whose key it holds.
    pub epoch: u32,
    /// When it is to be removed; none if it is kept until somebody removes it.
    pub expires_at: Option<Timestamp>,
    /// When it was removed, if it was.
    pub removed_at: Option<Timestamp>,
}

/// Stages a backup.
#[allow(dead_code, reason = "for backups, which come next")]
pub fn put(tx: &mut Tx<'_>, id: FileId, backup: &BackupRow) {
    tx.put(BACKUPS, id.bytes().to_vec(), value(backup));
}

/// Every backup that was made, in the order of their ids.
pub fn all(tx: &Tx<'_>) -> Result<Vec<(FileId, BackupRow)>, StoreError> {
    let mut found = Vec::new();
    for item in tx.reader.range(BACKUPS, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded)? {
        let (key, bytes) = item?;
        let id = key.try_into().map(FileId::from_bytes).map_err(|_| StoreError::Row("backups", CodecError::Malformed))?;
        found.push((id, row("backups", &bytes)?));
    }
    Ok(found)
}

/// Backups taken before `at` that hold the key of `epoch` and have not gone.
pub fn holding(tx: &Tx<'_>, epoch: u32, now: Timestamp) -> Result<Vec<(FileId, BackupRow)>, StoreError> {
    let kept = |row: &BackupRow| row.epoch <= epoch && row.removed_at.is_none() && row.expires_at.is_none_or(|at| at > now);
    Ok(all(tx)?.into_iter().filter(|(_, row)| kept(row)).collect())
}
