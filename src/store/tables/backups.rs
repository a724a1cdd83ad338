//! BACKUPS: the backups that were made of this data, and what became of each.
//!
//! Invariants
//! - A backup has its row before its file has its name: whatever lies in a backup folder is known here, and an erasure can tell which files
//!   still hold the epoch it ends.
//! - A row says that there is no file only if it was surely never there or was removed; a file that was not found is not one that is gone.
//! - Ids, times, counts and enums alone; no path.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::base::codec::CodecError;
use crate::base::id::{FileId, LogId};
use crate::base::order;
use crate::base::time::Timestamp;
use crate::store::check::{Fault, ensure};
use crate::store::tables::BACKUPS;
use crate::store::tx::{StoreError, Tx, row, value};

/// How far a backup has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum State {
    /// Being made, or cut off while it was.
    Begun,
    /// Whole, synced and checked.
    Done,
    /// Given up; there is no file.
    Failed,
    /// Its file was removed.
    Removed,
    /// A file of it may lie where nobody looks for it: it was cut off and not found, it lay in a folder that is not there now, or it is no
    /// backup made here but a data file that made way for another one.
    Apart,
}

impl State {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Removed => "removed",
            Self::Apart => "apart",
        }
    }
}

/// What is known of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupRow {
    /// How far it has come.
    pub state: State,
    /// When it was begun: what it holds is at least as new.
    pub begun_at: Timestamp,
    /// When it was whole, or given up.
    pub ended_at: Option<Timestamp>,
    /// When its file may be removed; none: whoever keeps it decides.
    pub expires_at: Option<Timestamp>,
    /// Oldest and newest epoch whose keys it holds.
    pub epochs: (u32, u32),
    /// The log whose end it holds.
    pub log: LogId,
    /// Entries of that log when it was begun.
    pub size: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Whether a backup key of its own opens it, and not the key of the data file.
    pub own_key: bool,
}

impl BackupRow {
    /// One that was not made here: whoever keeps it decides how long.
    pub fn apart(begun_at: Timestamp, epochs: (u32, u32), log: LogId, bytes: u64) -> Self {
        let (state, ended_at, expires_at) = (State::Apart, Some(begun_at), None);
        Self { state, begun_at, ended_at, expires_at, epochs, log, size: 0, bytes, own_key: false }
    }

    /// Whether a file of it may lie somewhere.
    pub fn may_exist(&self) -> bool {
        !matches!(self.state, State::Failed | State::Removed)
    }
}

/// Stages a row.
pub(in crate::store) fn put(tx: &mut Tx<'_>, id: FileId, backup: &BackupRow) {
    tx.put(BACKUPS, id.bytes().to_vec(), value(backup));
}

/// Every backup, oldest first.
pub(in crate::store) fn all(tx: &Tx<'_>) -> Result<Vec<(FileId, BackupRow)>, StoreError> {
    let mut found = Vec::new();
    for item in tx.reader.range(BACKUPS, Bound::Unbounded, Bound::Unbounded)? {
        let (key, bytes) = item?;
        let id = key.try_into().map_err(|_| StoreError::Row("backups", CodecError::Malformed))?;
        found.push((FileId::from_bytes(id), row::<BackupRow>("backups", &bytes)?));
    }
    order::sort_by_key(&mut found, |(id, backup)| (backup.begun_at, *id));
    Ok(found)
}

/// A row of BACKUPS: it reads, and says nothing impossible.
pub(in crate::store) fn check(key: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let backup: BackupRow = row("backups", bytes)?;
    ensure(key.len() == 16, "not a key of this table")?;
    ensure(backup.epochs.0 <= backup.epochs.1, "its epochs are the wrong way round")?;
    ensure(backup.ended_at.is_some() != (backup.state == State::Begun), "ended and not ended at once")
}
