//! A consistent copy into a new file, while reading and writing go on.
//!
//! The copy has its own file id and block key, so no block of one opens in the other; instance, master key and key slots are the same byte
//! for byte, so what unlocks the one unlocks the other. Rows are copied in order from one snapshot: the copy holds no free pages, and
//! nothing of what was deleted.

use std::ops::Bound;
use std::path::Path;

use crate::base::id::FileId;
use crate::base::limits::{COPY_BYTES_PER_COMMIT, COPY_ROWS_PER_COMMIT};
use crate::engine::batch::{Read, Snapshot, Table};
use crate::engine::{CommitError, Engine, EngineError};

impl Engine {
    /// Copies what is committed now to a new file at `path`, which appears there only when it is whole, synced and its tree has been walked.
    ///
    /// Errors: `Exists`; `Full`, `Io` for the new file; a failure below for this one.
    pub fn copy_to(&self, path: &Path) -> Result<FileId, EngineError> {
        let (head, snapshot) = self.consistent()?;
        let copy = Self::create_with(path, &self.options, head.for_copy(), |copy| {
            (0..self.options.tables.len()).try_for_each(|index| copy.fill(&snapshot, index))?;
            let mut open = copy.open.write().map_err(|_| EngineError::Latched)?;
            open.as_mut().ok_or(EngineError::Latched)?.check_tree()
        })?;
        let file = copy.file();
        copy.close()?;
        Ok(file)
    }

    /// Copies one table in commits of bounded size.
    pub(super) fn fill(&self, from: &Snapshot, index: usize) -> Result<(), EngineError> {
        let table = Table(u8::try_from(index).map_err(|_| EngineError::TooLarge(index))?);
        let mut rows = from.range(table, Bound::Unbounded, Bound::Unbounded)?.peekable();
        while rows.peek().is_some() {
            self.commit(|batch| {
                let (mut count, mut bytes) = (0, 0);
                while count < COPY_ROWS_PER_COMMIT && bytes < COPY_BYTES_PER_COMMIT {
                    let Some(row) = rows.next() else { break };
                    let (key, value) = row?;
                    batch.put(table, &key, &value)?;
                    (count, bytes) = (count + 1, bytes + key.len() + value.len());
                }
                Ok(())
            })
            .map_err(|(CommitError::Refused(error) | CommitError::Unknown(error))| error)?;
        }
        Ok(())
    }
}
