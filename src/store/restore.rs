//! Restoring: from a backup to a data file that may serve.
//!
//! ```text
//! backup (over an overlay, unchanged) ─▶ rows copied beside ─▶ its log ends, a new one begins ─▶ every check ─▶ renamed into place
//! ```
//!
//! Invariants
//! - What takes the place has passed the walk of its tree and the check of every row, index and log; otherwise nothing changes.
//! - The old log is kept whole and read-only; line 0 of the new one carries its origin, size and root.
//! - The file that was there is never removed: it keeps a second name.
//! - No backup is forgotten by a restore: those that the file which makes way knew of are known in the restored one, and so is that file itself.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::audit::checkpoint::{Anchor, Checkpoint};
use crate::audit::{Actor, Detail, Entry, Reason, Word};
use crate::base::id::{BootId, FileId, InstanceId, LogId, TenantId};
use crate::base::limits;
use crate::base::time::{Clock, Timestamp};
use crate::engine::{CommitError, Engine, EngineError, Place, Plan, Read as _, Unlock};
use crate::store::check::{self, Findings};
use crate::store::kept;
use crate::store::migrate;
use crate::store::tables::backups::{self, BackupRow, State};
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::log::{self, LogError, Tail};
pub use crate::store::tables::meta::RestoredMark;
use crate::store::tables::meta::{self, InstanceRow};
use crate::store::tables::{BACKUPS, META, past, signers};
use crate::store::tx::{Common, StoreError, Tx, row, value};
use crate::store::upkeep::Interruptible;
use crate::store::vault::OpenError;

/// What a file of data says of itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This copy.
    pub file: FileId,
    /// The data.
    pub instance: InstanceId,
    /// The workspace.
    pub tenant: TenantId,
    /// The version of its tables.
    pub schema: u32,
    /// The tenant's label.
    pub label: String,
    /// Its log as signed.
    pub checkpoint: Checkpoint,
    /// Bytes of the file.
    pub bytes: u64,
    /// When it was taken, if it is a backup.
    pub taken_at: Option<Timestamp>,
    /// Where it came from, if it was restored itself.
    pub restored: Option<RestoredMark>,
}

/// Reads what the file in `engine` says of itself; its log's end is checked against its checkpoint.
///
/// Errors: [`OpenError`].
pub fn facts(engine: &Engine, clock: &Clock) -> Result<Facts, OpenError> {
    let (snapshot, common) = (engine.snapshot()?, Common::new(engine.instance()));
    let tx = Tx::new(&snapshot, engine.keys(), &common, clock.now(), true);
    let instance = meta::instance(&tx)?.ok_or(OpenError::NotInitialised)?;
    if instance.schema > migrate::SCHEMA {
        return Err(OpenError::NewerTables { found: instance.schema, known: migrate::SCHEMA });
    }
    let tenant = instance.tenant;
    let label = holders::open(&tx, tenant, Holder::Tenant, "label", tenant.bytes(), &instance.label)?;
    let (tail, _) = Tail::load(&snapshot, instance.log, BootId::draw(), &engine.keys())?;
    Ok(Facts {
        file: engine.file(),
        instance: engine.instance(),
        tenant,
        schema: instance.schema,
        label: String::from_utf8(label).map_err(|_| OpenError::NotInitialised)?,
        checkpoint: tail.checkpoint(),
        bytes: engine.bytes()?,
        taken_at: meta::fact::<meta::BackupMark>(&tx, meta::BACKUP)?.map(|mark| mark.taken_at),
        restored: meta::fact(&tx, meta::RESTORED)?,
    })
}

/// Whether `engine` holds the log of `checkpoint` up to there: what was written since is all that it has more.
///
/// Errors: the file's.
pub fn continues(engine: &Engine, checkpoint: &Checkpoint) -> Result<bool, OpenError> {
    let snapshot = engine.snapshot()?;
    let common = Common::new(engine.instance());
    let tx = Tx::new(&snapshot, engine.keys(), &common, Timestamp::default(), true);
    let Some(instance) = meta::instance(&tx)? else { return Ok(false) };
    if instance.log != checkpoint.log {
        return Ok(false);
    }
    let (tail, _) = Tail::load(&snapshot, instance.log, BootId::draw(), &engine.keys())?;
    if tail.size() < checkpoint.size {
        return Ok(false);
    }
    let tiles = log::StoredTiles(&snapshot);
    Ok(log::tree(&tiles, tail.size())?.root(checkpoint.size).map_err(LogError::from)? == checkpoint.root)
}

/// Safeguards that an operator overrides; the new log's first entry says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overridden {
    /// What was written after the backup is given up.
    pub newer: bool,
    /// Holders who were erased after the backup may come back: who they are is not known any more.
    pub erased: bool,
}

impl Overridden {
    fn word(self) -> Option<Word> {
        match (self.newer, self.erased) {
            (false, false) => None,
            (true, false) => Some(Word::of("newer")),
            (false, true) => Some(Word::of("erased")),
            (true, true) => Some(Word::of("newer.erased")),
        }
    }
}

/// How a file is to be restored.
pub struct Order<'o> {
    /// Where to.
    pub path: &'o Path,
    /// What opens it.
    pub unlock: Unlock<'o>,
    /// Whether a file that is there makes way, and under which name it is kept.
    pub place: Place<'o>,
    /// The safeguards that the operator overrode to have it.
    pub overridden: Overridden,
    /// What is known of backups beside what the backup knows: [`known_of`].
    pub known: &'o [(FileId, BackupRow)],
    /// Set to have it given up.
    pub stop: &'o AtomicBool,
    /// Told what is being done and how many rows are.
    pub progress: &'o mut dyn FnMut(&'static str, u64),
}

/// A file that was restored.
#[derive(Debug)]
pub struct Restored {
    /// Its id.
    pub file: FileId,
    /// Its log: one entry, which tells of the restore.
    pub checkpoint: Checkpoint,
    /// What the check of every row saw.
    pub found: Findings,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Why nothing was restored. Nothing has changed, unless it is [`EngineError::Unconfirmed`]: then the restored file is in place.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup, or the new file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What was restored did not pass the check of its rows.
    #[error("the backup's rows do not agree with one another ({0}); keep it as evidence and restore another backup")]
    Unsound(String),
}

impl From<EngineError> for RestoreError {
    fn from(error: EngineError) -> Self {
        Self::Open(error.into())
    }
}

/// Restores what `backup` holds.
///
/// Errors: [`RestoreError`]; whatever was in place is there as it was, or, if what was done is `Unconfirmed`, under its second name.
pub fn restore(backup: &Engine, facts: &Facts, clock: &Clock, order: Order<'_>) -> Result<Restored, RestoreError> {
    let Order { path, unlock, place, overridden, known, stop, progress } = order;
    let (file, log, now) = (FileId::draw(), LogId::draw(), clock.now());
    let (mut outcome, mut failed) = (None, None);
    let progress = std::cell::RefCell::new(progress);
    let plan = Plan {
        file,
        unlock,
        cache_bytes: limits::COPY_CACHE_BYTES,
        row: &mut |row| moved(row, facts, log, now),
        pace: &mut |rows| {
            progress.borrow_mut()("restoring rows", rows);
            if stop.load(Ordering::Relaxed) { Err(EngineError::Latched) } else { Ok(()) }
        },
        finish: &mut |copy| {
            migrate::run(copy, facts.schema)?;
            carry_over(copy, facts.file, known)?;
            let head = begin_log(copy, facts, log, now, clock, overridden)?;
            let snapshot = copy.snapshot()?;
            let mut seen = 0;
            let found = check::check(&Interruptible { reader: &snapshot, stop }, copy.keys(), copy.instance(), now, &mut |_, _| {
                seen += 1;
                progress.borrow_mut()("checking rows", seen);
            })?;
            if found.count > 0 {
                failed = found.listed.first().map(|first| format!("{} findings, the first: {} {}", found.count, first.table, first.what));
                return Err(EngineError::Damaged("what the backup's tables say"));
            }
            outcome = Some((head, found));
            Ok(())
        },
        place,
    };
    let snapshot = backup.snapshot()?;
    let copied = backup.copy_as(&snapshot, path, plan);
    match (copied, outcome, failed) {
        (_, _, Some(what)) => Err(RestoreError::Unsound(what)),
        (Err(error), _, None) => Err(error.into()),
        (Ok(bytes), Some((checkpoint, found)), None) => Ok(Restored { file, checkpoint, found, bytes }),
        (Ok(_), None, None) => Err(EngineError::Damaged("what the backup's tables say").into()),
    }
}

/// What the file at `path`, which is to make way, knows of backups, with a row of its own: what it holds is named by no other. `old` is none if
/// it does not open.
///
/// Gives too whether all of it was read: a damaged file must not keep anybody from restoring.
pub fn known_of(path: &Path, old: Option<&Engine>, facts: &Facts, now: Timestamp) -> (Vec<(FileId, BackupRow)>, bool) {
    let read = old.and_then(|old| {
        let (snapshot, common) = (old.snapshot().ok()?, Common::new(old.instance()));
        let tx = Tx::new(&snapshot, old.keys(), &common, now, true);
        Some((backups::all(&tx).ok()?, meta::instance(&tx).ok()??.log))
    });
    let whole = read.is_some();
    let (mut known, log) = read.unwrap_or_else(|| (Vec::new(), facts.checkpoint.log));
    if let Some(id) = old.map(Engine::file).or_else(|| Some(kept::in_clear(path)?.0)) {
        let epochs = old.map_or((0, 0), |old| old.keys().epochs());
        let bytes = std::fs::metadata(path).map_or(0, |about| about.len());
        known.push((id, BackupRow::apart(now, epochs, log, bytes)));
    }
    (known, whole)
}

/// Has what is known of backups in the new file. What a row of it says of a file's end stays; so does that of `restored`, which is there.
fn carry_over(copy: &Engine, restored: FileId, known: &[(FileId, BackupRow)]) -> Result<(), EngineError> {
    copy.commit(|batch| {
        for (id, theirs) in known.iter().filter(|(id, _)| *id != restored) {
            let ours = batch.get(BACKUPS, id.bytes())?;
            let ours =
                ours.map(|bytes| row_of::<BackupRow>(&bytes)).transpose().map_err(|_| EngineError::Damaged("a row of the backup"))?;
            if ours.is_none_or(|ours| ours.may_exist() && theirs.state != State::Begun) {
                // Its epochs are those of the line that ends here: by their numbers nothing is known of whose keys it holds.
                let theirs = BackupRow { epochs: (0, theirs.epochs.1), ..theirs.clone() };
                batch.put(BACKUPS, id.bytes(), &value(&theirs))?;
            }
        }
        Ok(())
    })
    .map_err(|(CommitError::Refused(error) | CommitError::Unknown(error))| error)
}

/// A row of the backup as the restored file has it: the log's rows move to the past logs.
fn moved(row: crate::engine::Row, facts: &Facts, log: LogId, now: Timestamp) -> Result<Option<crate::engine::Row>, EngineError> {
    let (table, key, bytes) = row;
    let damaged = |_| EngineError::Damaged("a row of the backup");
    if let Some(past) = past::moved(table, facts.checkpoint.log, &key) {
        return Ok(Some((crate::store::tables::PAST_LOGS, past, bytes)));
    }
    if table == META {
        return Ok(match &*key {
            meta::BACKUP | meta::RESTORED | meta::ASKED => None,
            log::CHECKPOINT => Some((crate::store::tables::PAST_LOGS, past::checkpoint_key(&facts.checkpoint), bytes)),
            meta::INSTANCE => {
                let instance = row_of::<InstanceRow>(&bytes).map_err(damaged)?;
                Some((table, key, value(&InstanceRow { log, ..instance })))
            }
            _ => Some((table, key, bytes)),
        });
    }
    if table == BACKUPS && key == facts.file.bytes() {
        // As the backup saw itself, it was being made.
        let backup = row_of::<BackupRow>(&bytes).map_err(damaged)?;
        let (bytes, size) = (facts.bytes, facts.checkpoint.size);
        return Ok(Some((table, key, value(&BackupRow { state: State::Done, ended_at: Some(now), bytes, size, ..backup }))));
    }
    Ok(Some((table, key, bytes)))
}

fn row_of<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    row("backup", bytes)
}

/// Begins the new log: its first entry tells what ended and why this one begins.
fn begin_log(
    copy: &Engine,
    facts: &Facts,
    log: LogId,
    now: Timestamp,
    clock: &Clock,
    overridden: Overridden,
) -> Result<Checkpoint, EngineError> {
    let old = facts.checkpoint;
    let mut entry = Entry::new("system.restore", Actor::SYSTEM);
    entry.tenant = Some(facts.tenant);
    entry.det.set(Detail::File(facts.file));
    entry.det.set(Detail::Log(old.log));
    entry.det.set(Detail::Size(old.size));
    entry.det.set(Detail::Root(old.root));
    if let Some(safeguards) = overridden.word() {
        entry.reason = Some(Reason::Override);
        entry.det.set(Detail::Setting(safeguards));
    }
    let mark = RestoredMark { backup: facts.file, at: now, log: old.log, size: old.size };
    // Where the backup was taken in the middle of a change of the log's key, the new log begins with the new one.
    let mut tail = Tail::after(&copy.snapshot()?, &copy.keys(), log, BootId::draw()).map_err(|_| EngineError::Damaged("the log's keys"))?;
    copy.commit(|batch| {
        batch.put(META, meta::RESTORED, &value(&mark))?;
        tail.append(batch, &mut entry, clock, now)?;
        Ok(tail.seal(batch, &copy.keys(), now)?.0)
    })
    .map_err(|(CommitError::Refused(error) | CommitError::Unknown(error))| error)
}

/// The anchor in `text`, if it is one of `log` that a key of this file signed.
pub fn anchor_of(engine: &Engine, log: LogId, text: &str) -> Option<Anchor> {
    signers::anchor(&engine.snapshot().ok()?, &engine.keys(), log, text).ok()
}
