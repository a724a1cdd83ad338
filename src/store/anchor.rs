//! The anchor: a signed note on another disk that says how far the log had come (DESIGN 3 (b)).
//!
//! Invariants
//! - A store whose log is shorter than its anchor, or differs from it, does not open; nor does one whose configured anchor is missing,
//!   unreadable or not signed by this log. Only `init`, `restore` and a recorded override create an anchor.
//! - It says how many holders were erased. A store that, with the ledger beside the anchor, knows of fewer does not open: somebody who was
//!   erased would be back.
//! - It is written after the commit it speaks of, at most [`limits::ANCHOR_LAG_MAX`](crate::base::limits::ANCHOR_LAG_MAX) behind. A rollback
//!   within that time is not seen.

use std::io;
use std::path::Path;

use crate::audit::checkpoint::{Anchor, Checkpoint, vkey};
use crate::base::durable;
use crate::base::id::LogId;
use crate::engine::{Engine, Read};
use crate::store::ledger::{self, LedgerError};
use crate::store::tables::erasures;
use crate::store::tables::log::{StoredTiles, tree};
use crate::store::tx::StoreError;

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
    let anchor = Anchor::parse(&text, &vkey(log, engine.keys().signing().public())).map_err(|_| AnchorError::Foreign(name.clone()))?;
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

/// The anchor in `text`, whichever log of this data it speaks of; `public` is the data's audit key.
pub fn of_any_log(text: &str, public: [u8; 32]) -> Option<Anchor> {
    let log = LogId::parse(text.lines().next()?.strip_prefix("rosemary/")?)?;
    Anchor::parse(text, &vkey(log, public)).ok()
}

/// The text of the anchor at `path`.
pub fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(ANCHOR_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes the anchor: `checkpoint` is durable in the file already. `erased` holders are known to be erased, some of them perhaps from the
/// ledger alone.
pub fn write(path: &Path, engine: &Engine, checkpoint: Checkpoint, erased: u64) -> io::Result<()> {
    let tombstones = engine.snapshot().map_err(StoreError::from).and_then(|snapshot| erasures::tombstones(&snapshot));
    let tombstones = tombstones.map_err(io::Error::other)?.max(erased);
    let (instance, file) = (engine.instance(), engine.file());
    let anchor = Anchor { checkpoint, instance, file, generation: engine.generation(), tombstones };
    durable::replace(path, anchor.note(engine.keys().signing()).as_bytes(), 0o600)
}
