//! The anchor: a signed note on another disk that says how far the log had come (DESIGN 3 (b)).
//!
//! Invariants
//! - A store whose log is shorter than its anchor, or differs from it, does not open; nor does one whose configured anchor is missing,
//!   unreadable or not signed by this log. Only `init`, `restore` and a recorded override create an anchor.
//! - It counts if the key whose turn it was at its size signed it; what any other key signed is not this log's.
//! - It says how many holders were erased. A store that, with the ledger beside the anchor, knows of fewer does not open: somebody who was
//!   erased would be back.
//! - It is written after the commit it speaks of, at most [`limits::ANCHOR_LAG_MAX`](crate::base::limits::ANCHOR_LAG_MAX) behind. A rollback
//!   within that time is not seen.

use std::io;
use std::path::Path;

use crate::audit::checkpoint::{Anchor, Checkpoint};
use crate::base::durable;
use crate::base::id::LogId;
use crate::crypto::ladder::Keys;
use crate::engine::{Engine, Read, Snapshot};
use crate::store::ledger::{self, LedgerError};
use crate::store::tables::erasures;
use crate::store::tables::log::{StoredTiles, tree};
use crate::store::tables::signers;

/// Longest anchor file that is read.
const ANCHOR_BYTES_MAX: u64 = 16 * 1024;

/// Why the anchor forbids to open the store. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// Not there.
    #[error("RM_ANCHOR_FILE: {0}: missing; put it back, or after finding out why run `rosemary anchor accept`")]
    Missing(String),
    /// Not readable.
    #[error("RM_ANCHOR_FILE: {0}: {1}; mend its permissions or its disk")]
    Unreadable(String, io::ErrorKind),
    /// Not an anchor of this log.
    #[error("RM_ANCHOR_FILE: {0}: not signed by this data file's log; point it to this instance's anchor")]
    Foreign(String),
    /// The file is older than the anchor, or another history.
    #[error(
        "the data file is not the one that RM_ANCHOR_FILE {path} speaks of: the anchor saw {anchored} audit entries, the file holds {found}; \
         it was rolled back or replaced. Put the right file back, or after finding out why run `rosemary anchor accept`"
    )]
    RolledBack {
        /// The anchor file.
        path: String,
        /// Entries the anchor saw.
        anchored: u64,
        /// Entries in the file.
        found: u64,
    },
    /// The list of erased holders is older than the anchor.
    #[error(
        "RM_ANCHOR_FILE {path}: {anchored} holders were erased, and the list {path}.erased and the data file know of {found}:          put the right list back, or after finding out why run `rosemary anchor accept`"
    )]
    LedgerOlder {
        /// The anchor file.
        path: String,
        /// Erased holders, as the anchor says.
        anchored: u64,
        /// Erased holders that are known.
        found: u64,
    },
    /// The list of erased holders.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Checks the store against the anchor at `path`.
pub fn check(path: &Path, engine: &Engine, reader: &dyn Read, log: LogId, size: u64) -> Result<(), AnchorError> {
    let name = path.display().to_string();
    let text = read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => AnchorError::Missing(name.clone()),
        kind => AnchorError::Unreadable(name.clone(), kind),
    })?;
    let Ok(anchor) = signers::anchor(reader, &engine.keys(), log, &text) else {
        // Perhaps a later key of this log signed it, which a file of before does not know: that is told as what it claims, and refused.
        return Err(
            match Anchor::claimed(&text).filter(|claimed| (claimed.instance, claimed.checkpoint.log) == (engine.instance(), log)) {
                Some(claimed) if claimed.checkpoint.size > size => {
                    AnchorError::RolledBack { path: name, anchored: claimed.checkpoint.size, found: size }
                }
                _ => AnchorError::Foreign(name),
            },
        );
    };
    if anchor.instance != engine.instance() {
        return Err(AnchorError::Foreign(name));
    }
    let seen = anchor.checkpoint;
    let tiles = StoredTiles(reader);
    let same = seen.size <= size
        && anchor.generation <= engine.generation()
        && tree(&tiles, size).ok().and_then(|tree| tree.root(seen.size).ok()) == Some(seen.root);
    if !same {
        return Err(AnchorError::RolledBack { path: name, anchored: seen.size, found: size });
    }
    let known = ledger::known(path, engine.instance(), &engine.keys(), reader)?.len();
    let found = u64::try_from(known).unwrap_or(u64::MAX);
    if found < anchor.tombstones { Err(AnchorError::LedgerOlder { path: name, anchored: anchor.tombstones, found }) } else { Ok(()) }
}

/// The anchor in `text`, whichever log of this data it speaks of.
pub fn of_any_log(text: &str, reader: &dyn Read, keys: &Keys) -> Option<Anchor> {
    let log = LogId::parse(text.lines().next()?.strip_prefix("rosemary/")?)?;
    signers::anchor(reader, keys, log, text).ok()
}

/// The text of the anchor at `path`.
pub fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    crate::base::file::open_regular(path)?.take(ANCHOR_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes the anchor: `checkpoint` is durable in the file already, and is that of `snapshot`, whose keys sign it: the log may be handed over meanwhile. `erased` holders are known to be erased, some of them perhaps from the
/// ledger alone.
pub fn write(path: &Path, engine: &Engine, snapshot: &Snapshot, checkpoint: Checkpoint, erased: u64) -> io::Result<()> {
    let tombstones = erasures::tombstones(snapshot).map_err(io::Error::other)?.max(erased);
    let keys = snapshot.keys();
    let signing = signers::signing(snapshot, &keys).map_err(io::Error::other)?;
    let (instance, file) = (engine.instance(), engine.file());
    let anchor = Anchor { checkpoint, instance, file, generation: engine.generation(), tombstones };
    durable::replace(path, anchor.note(signing).as_bytes(), 0o600)
}
