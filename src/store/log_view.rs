//! The audit log for reading: lines and proofs as of one moment, for an export.
//!
//! Invariant: nothing of it is read without a [`Receipt`], so the entry that tells of the reading is durable before the first byte.

use std::sync::Arc;

use crate::audit::note::Vkey;
use crate::audit::verify;
use crate::policy::action::ExportLog;
use crate::store::gate::{Access, Receipt};
pub use crate::store::tables::log::LogError;
use crate::store::tables::log::{self, StoredTiles};
use crate::store::tables::signers;
use crate::store::vault::{Published, Vault};
use crate::store::writer::Unavailable;

/// The log as it was when the export was granted; later entries, that of the export among them, are not in it.
pub struct LogView {
    vault: Vault,
    published: Arc<Published>,
}

/// The granted view.
pub fn view(a: &mut Access<'_, ExportLog>) -> Result<LogView, Unavailable> {
    let vault = a.vault().clone();
    let published = vault.published()?;
    Ok(LogView { vault, published })
}

impl LogView {
    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.published.head.checkpoint.size
    }

    /// The log's public key.
    pub fn vkey(&self) -> Vkey {
        let (snapshot, log) = (&self.published.snapshot, self.published.head.checkpoint.log);
        signers::newest(snapshot, &snapshot.keys(), log).unwrap_or_else(|_| self.vault.log_key())
    }

    /// The entry at `index`, without a line end.
    ///
    /// Errors: the file's; `Damaged` where an entry below [`LogView::size`] is missing.
    pub fn line(&self, _: &Receipt, index: u64) -> Result<String, LogError> {
        log::line(&self.published.snapshot, index)?.ok_or(LogError::Damaged)
    }

    /// The last line of a bundle of the entries from `first` to before `end`: the signed checkpoint, the
    /// changes of key before it, and the proof that places them in it.
    ///
    /// Errors: the file's; `Damaged` if the range is not one of this log or its tree cannot be read.
    pub fn trailer(&self, _: &Receipt, first: u64, end: u64) -> Result<String, LogError> {
        let tiles = StoredTiles(&self.published.snapshot);
        let proof = match (first, end) == (0, self.size()) {
            true => Vec::new(),
            false => log::tree(&tiles, self.size())?.range(first, end, self.size())?,
        };
        let keys = signers::links(&self.published.snapshot, self.published.head.checkpoint.log, self.size())?;
        Ok(verify::trailer(&self.published.head.note, &keys, &proof))
    }
}
