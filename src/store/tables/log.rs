//! The audit log's rows: lines, full tiles, checkpoints; and its growing end.
//!
//! AUDIT: index u64 BE → line. AUDIT_TILES: level u8 | tile u64 BE → 256 hashes. CHECKPOINTS: size u64 BE → note, hourly and at export.
//! META `checkpoint` → the note over the log as of the last commit.
//!
//! Invariants
//! - Line, tiles and checkpoint of a batch are in the batch's own commit.
//! - A tail is reloaded from what is stored and must have the root that the last checkpoint signed.

use crate::audit::checkpoint::Checkpoint;
use crate::audit::note::NoteError;
use crate::audit::{Appender, Entry, FullTile, Hash, Tiles, Tree, TreeError, leaf_hash};
use crate::base::id::{BootId, LogId};
use crate::base::time::{Clock, Timestamp};
use crate::crypto::ladder::Keys;
use crate::crypto::sign::SigningKey;
use crate::engine::{Batch, EngineError, Read};
use crate::store::tables::{AUDIT, AUDIT_TILES, CHECKPOINTS, META, key, signers};
use crate::store::tx::StoreError;

/// Name in META.
pub const CHECKPOINT: &[u8] = b"checkpoint";
/// Checkpoints at least this far apart are kept for good.
const KEPT_EVERY_MS: u64 = 3_600_000;

/// Why the log's end could not be taken up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log's tail is not what its checkpoint signed.
    #[error("the audit log does not agree with its checkpoint")]
    Damaged,
    /// The checkpoint is not ours.
    #[error("the audit log's checkpoint: {0}")]
    Note(#[from] NoteError),
}

impl From<EngineError> for LogError {
    fn from(error: EngineError) -> Self {
        LogError::Store(error.into())
    }
}

impl From<TreeError<EngineError>> for LogError {
    fn from(error: TreeError<EngineError>) -> Self {
        match error {
            TreeError::Store(error) => error.into(),
            TreeError::Damaged { .. } | TreeError::Outside => LogError::Damaged,
        }
    }
}

/// Stored full tiles.
pub struct StoredTiles<'r>(pub &'r dyn Read);

impl Tiles for StoredTiles<'_> {
    type Error = EngineError;

    fn tile(&self, level: u8, index: u64) -> Result<Vec<u8>, EngineError> {
        Ok(self.0.get(AUDIT_TILES, &key(&[&[level], &index.to_be_bytes()]))?.unwrap_or_default())
    }
}

/// The line at `index`.
pub fn line(reader: &dyn Read, index: u64) -> Result<Option<String>, StoreError> {
    let Some(bytes) = reader.get(AUDIT, &index.to_be_bytes())? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| StoreError::Row("audit", crate::base::codec::CodecError::Malformed))
}

/// When the newest of `size` entries was made.
pub fn written(reader: &dyn Read, size: u64) -> Result<Timestamp, StoreError> {
    let Some(index) = size.checked_sub(1) else { return Ok(Timestamp::default()) };
    let entry = line(reader, index)?.and_then(|line| Entry::parse(&line).ok());
    entry.map(|entry| entry.t).ok_or(StoreError::Missing("audit"))
}

/// The tree of the first `size` lines, for proofs.
pub fn tree<'t>(tiles: &'t StoredTiles<'t>, size: u64) -> Result<Tree<'t, StoredTiles<'t>>, LogError> {
    let mut tail: Vec<Hash> = Vec::new();
    for index in size & !0xff..size {
        tail.push(leaf_hash(line(tiles.0, index)?.ok_or(LogError::Damaged)?.as_bytes()));
    }
    Tree::new(tiles, size, tail).ok_or(LogError::Damaged)
}

/// The note over the log as of the last commit.
pub fn checkpoint_note(reader: &dyn Read) -> Result<Option<String>, StoreError> {
    let Some(bytes) = reader.get(META, CHECKPOINT)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| StoreError::Row("meta", crate::base::codec::CodecError::Malformed))
}

/// The number of entries that a stored note speaks of; its signature is not looked at.
pub fn size_of(note: &str) -> Option<u64> {
    note.lines().nth(1)?.parse().ok()
}

/// The end of the log: what a batch appends to. Cloned for each batch and put back when the batch committed.
#[derive(Clone)]
pub struct Tail {
    log: LogId,
    boot: BootId,
    appender: Appender,
    full: Vec<FullTile>,
    kept_at: Timestamp,
    /// The superblock's key that was handed over from, if the superblock may still hold it.
    handed_over: Option<[u8; 32]>,
}

impl Tail {
    /// The end of a log without entries.
    pub fn new(log: LogId, boot: BootId) -> Self {
        Self { log, boot, appender: Appender::new(), full: Vec::new(), kept_at: Timestamp::default(), handed_over: None }
    }

    /// The end of a log without entries that follows another one, of which `reader` shows the keys.
    pub fn after(reader: &dyn Read, keys: &Keys, log: LogId, boot: BootId) -> Result<Self, StoreError> {
        Ok(Self { handed_over: signers::handed_over(reader, keys)?, ..Self::new(log, boot) })
    }

    /// The end of the stored log. Reads at most 255 lines and 255 tiles a level.
    ///
    /// Errors: `Damaged` if the stored log has not the root that its checkpoint signed.
    pub fn load(reader: &dyn Read, log: LogId, boot: BootId, keys: &Keys) -> Result<(Self, String), LogError> {
        let note = checkpoint_note(reader)?.ok_or(LogError::Damaged)?;
        let checkpoint = signers::checkpoint(reader, keys, log, &note)?;
        let tiles = StoredTiles(reader);
        let appender = Appender::load(&tree(&tiles, checkpoint.size)?)?;
        let longer = reader.get(AUDIT, &checkpoint.size.to_be_bytes())?.is_some();
        if appender.root() != checkpoint.root || longer {
            return Err(LogError::Damaged);
        }
        let handed_over = signers::handed_over(reader, keys)?;
        Ok((Self { log, boot, appender, full: Vec::new(), kept_at: Timestamp::default(), handed_over }, note))
    }

    /// The log.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.appender.size()
    }

    /// The statement of this log.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { log: self.log, size: self.size(), root: self.appender.root() }
    }

    /// Puts an entry into the batch, in as many lines as it needs. Gives the index of its first line.
    pub fn append(&mut self, batch: &mut Batch<'_>, entry: &mut Entry, clock: &Clock, now: Timestamp) -> Result<u64, EngineError> {
        let first = self.size();
        if entry.is_one_line() {
            self.append_line(batch, entry, clock, now)?;
        } else {
            entry.clone().parts().iter_mut().try_for_each(|part| self.append_line(batch, part, clock, now))?;
        }
        Ok(first)
    }

    fn append_line(&mut self, batch: &mut Batch<'_>, entry: &mut Entry, clock: &Clock, now: Timestamp) -> Result<(), EngineError> {
        (entry.i, entry.t, entry.boot, entry.mono_ms) = (self.size(), now, self.boot, clock.mono_ms());
        let line = entry.line();
        batch.put(AUDIT, &entry.i.to_be_bytes(), line.as_bytes())?;
        self.appender.append(leaf_hash(line.as_bytes()), &mut self.full);
        Ok(())
    }

    /// Whether the log was handed over from the superblock's key.
    pub fn is_handed_over(&self, keys: &Keys) -> bool {
        self.handed_over == Some(keys.signing().public())
    }

    /// As [`Tail::seal`], handing the log over to the next key, which the entry `entry` of this batch introduces.
    ///
    /// Errors: `Damaged` if there is no next key, or it has been handed over already.
    pub fn hand_over(
        &mut self,
        batch: &mut Batch<'_>,
        keys: &Keys,
        now: Timestamp,
        entry: u64,
    ) -> Result<(Checkpoint, String), EngineError> {
        match keys.next_signing().filter(|_| !self.is_handed_over(keys)) {
            Some(new) => self.hand_over_to(batch, keys.signing(), new, now, entry),
            None => Err(EngineError::Damaged("the next audit signing key")),
        }
    }

    /// As [`Tail::hand_over`], from a key to a key.
    pub fn hand_over_to(
        &mut self,
        batch: &mut Batch<'_>,
        old: &SigningKey,
        new: &SigningKey,
        now: Timestamp,
        entry: u64,
    ) -> Result<(Checkpoint, String), EngineError> {
        self.put_tiles(batch)?;
        let checkpoint = self.checkpoint();
        let note = signers::hand_over(batch, &checkpoint, entry, old, new)?;
        batch.put(META, CHECKPOINT, note.as_bytes())?;
        (self.kept_at, self.handed_over) = (now, Some(old.public()));
        Ok((checkpoint, note))
    }

    fn put_tiles(&mut self, batch: &mut Batch<'_>) -> Result<(), EngineError> {
        self.full.drain(..).try_for_each(|tile| batch.put(AUDIT_TILES, &key(&[&[tile.level], &tile.index.to_be_bytes()]), &tile.bytes))
    }

    /// Puts filled tiles and the new checkpoint into the batch, signed by the key whose turn it is. Gives the checkpoint and its note.
    pub fn seal(&mut self, batch: &mut Batch<'_>, keys: &Keys, now: Timestamp) -> Result<(Checkpoint, String), EngineError> {
        self.put_tiles(batch)?;
        let checkpoint = self.checkpoint();
        let note = checkpoint.note(signers::of(keys, self.handed_over.as_ref())?);
        batch.put(META, CHECKPOINT, note.as_bytes())?;
        if now.ms().saturating_sub(self.kept_at.ms()) >= KEPT_EVERY_MS {
            batch.put(CHECKPOINTS, &checkpoint.size.to_be_bytes(), note.as_bytes())?;
            self.kept_at = now;
        }
        Ok((checkpoint, note))
    }
}
