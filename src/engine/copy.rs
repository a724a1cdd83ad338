//! A consistent copy into a new file, while reading and writing go on: of a frozen view ([`Engine::freeze`]) where they do.
//!
//! The copy has its own file id and block key, so no block of one opens in the other; the instance is the same. Rows are copied in order
//! from one snapshot: the copy holds no free pages, and nothing of what was deleted.
//!
//! Invariants
//! - A copy appears at its path only when it is whole, synced and its tree has been walked; before that it has another name, and a crash
//!   leaves it to be removed by the next copy to the same path.
//! - Memory: one commit's rows and the copy's small cache, whatever the size of the file.
//! - A copy that keeps its slots keeps the master key; one under a key of its own has a master key of its own, so that whoever holds that
//!   key opens this copy and no other file.
//! - A copy made anew ([`Unlock::Anew`]) has no key of this file but the pepper; its rows must be sealed again on their way.
//! - The copy's keys are those that the snapshot was taken under, so they open every row of it, whatever is rotated meanwhile.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use crate::base::id::FileId;
use crate::base::limits::{COPY_BYTES_PER_COMMIT, COPY_ROWS_PER_COMMIT};
use crate::crypto::ladder::Keys;
use crate::crypto::unlock::Kek;
use crate::engine::batch::{Place, Read, Snapshot, Table};
use crate::engine::header::Superblock;
use crate::engine::{CommitError, Engine, EngineError, Options};

/// Which keys open a copy.
#[derive(Clone, Copy, Debug)]
pub enum Unlock<'k> {
    /// Those that open this file: the key slots are kept byte for byte.
    AsHere,
    /// This one alone, under a master key of the copy's own.
    Only(&'k Kek),
    /// The one these new keys were made for, alone: the copy shares no key with this file.
    Anew(&'k Fresh),
}

/// New keys for the same data, before there is a file of them. Not `Clone`; printed as its name alone.
pub struct Fresh(Superblock);

impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fresh")
    }
}

impl Fresh {
    /// The keys; the block key of the file will be another one.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.0.keys)
    }

    /// The generation that the file begins with.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }
}

/// A row on its way into a copy.
pub type Row = (Table, Vec<u8>, Vec<u8>);

/// What a copy is to be.
pub struct Plan<'p> {
    /// Its id, drawn beforehand so that it can be recorded before the copy is made.
    pub file: FileId,
    /// What opens it.
    pub unlock: Unlock<'p>,
    /// Memory for its opened blocks while it is made, bytes.
    pub cache_bytes: usize,
    /// Each row as the copy shall have it: the same, another, or none.
    pub row: &'p mut dyn FnMut(Row) -> Result<Option<Row>, EngineError>,
    /// Told the rows copied after each commit; an error ends the copy and nothing of it stays.
    pub pace: &'p mut dyn FnMut(u64) -> Result<(), EngineError>,
    /// Ends the copy before it appears: what else it must hold, and what must be true of it.
    pub finish: &'p mut dyn FnMut(&Engine) -> Result<(), EngineError>,
    /// How it takes its place.
    pub place: Place<'p>,
}

impl Engine {
    /// Copies what is committed now to a new file at `path`, under the same keys.
    ///
    /// Errors: as [`Engine::copy_as`].
    pub fn copy_to(&self, path: &Path) -> Result<FileId, EngineError> {
        let file = FileId::draw();
        let plan = Plan {
            file,
            unlock: Unlock::AsHere,
            cache_bytes: self.options.cache_bytes,
            row: &mut |row| Ok(Some(row)),
            pace: &mut |_| Ok(()),
            finish: &mut |_| Ok(()),
            place: Place::New,
        };
        self.copy_as(&self.snapshot()?, path, plan)?;
        Ok(file)
    }

    /// New keys of every kind for the same data, for `kek` alone.
    ///
    /// Errors: `Keys`.
    pub fn fresh(&self, kek: &Kek) -> Result<Fresh, EngineError> {
        Ok(Fresh(self.head().anew(kek, self.options.kdf)?))
    }

    /// Copies what `snapshot` shows to a file at `path`. Gives its size in bytes.
    ///
    /// Errors: `Exists` (unless it is to replace); `Full`, `Io`, `Uncreatable`, `Locked` for the new file; what the plan's parts say; a
    /// failure below for this one. Nothing is at `path` then that was not there before. `Unconfirmed`: the copy is there.
    pub fn copy_as(&self, snapshot: &Snapshot, path: &Path, plan: Plan<'_>) -> Result<u64, EngineError> {
        let Plan { file, unlock, cache_bytes, row, pace, finish, place } = plan;
        let mut head = match unlock {
            Unlock::AsHere => snapshot.head().for_copy(),
            Unlock::Only(kek) => snapshot.head().for_copy_under(kek, self.options.kdf)?,
            Unlock::Anew(fresh) => fresh.0.for_copy(),
        };
        head.file = file;
        let options = Options { cache_bytes, stride: head.stride, ..self.options.clone() };
        let copy = Self::build(path, &options, head, place, &mut |copy| {
            let mut done = 0;
            for index in 0..options.tables.len() {
                copy.fill(snapshot, index, row, &mut |rows| {
                    done += rows;
                    pace(done)
                })?;
            }
            finish(copy)?;
            let mut open = copy.open.write().map_err(|_| EngineError::Latched)?;
            open.as_mut().ok_or(EngineError::Latched)?.check_tree()
        })?;
        let bytes = copy.bytes();
        copy.close().and(bytes).map_err(|error| EngineError::Unconfirmed(error.to_string()))
    }

    /// Copies one table in commits of bounded size.
    pub(super) fn fill(
        &self,
        from: &Snapshot,
        index: usize,
        change: &mut dyn FnMut(Row) -> Result<Option<Row>, EngineError>,
        pace: &mut dyn FnMut(u64) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let table = Table(u8::try_from(index).map_err(|_| EngineError::TooLarge(index))?);
        let mut rows = from.range(table, Bound::Unbounded, Bound::Unbounded)?.peekable();
        while rows.peek().is_some() {
            let mut count = 0;
            self.commit(|batch| {
                let mut bytes = 0;
                while count < COPY_ROWS_PER_COMMIT && bytes < COPY_BYTES_PER_COMMIT {
                    let Some(row) = rows.next() else { break };
                    let (key, value) = row?;
                    (count, bytes) = (count + 1, bytes + key.len() + value.len());
                    if let Some((table, key, value)) = change((table, key, value))? {
                        batch.put(table, &key, &value)?;
                    }
                }
                Ok(())
            })
            .map_err(|(CommitError::Refused(error) | CommitError::Unknown(error))| error)?;
            pace(u64::try_from(count).expect("a commit's rows are few"))?;
        }
        Ok(())
    }
}
