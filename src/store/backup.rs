//! Backups: a copy of the whole as of one commit, made while requests go on.
//!
//! ```text
//! backup.begin (row durable) ─▶ frozen view, that row and its checkpoint in it ─▶ copy beside, tree walked ─▶ renamed ─▶ backup.end (row durable)
//! ```
//!
//! A backup is a file of the data file's own format (docs/format.md): other file id and block key, the same instance, marked as a backup,
//! opened by the data file's own keys or by a backup key alone. It is restored by `store::restore`, never served.
//!
//! Invariants
//! - What a backup holds is one commit, with the checkpoint that was signed in it.
//! - A backup that has its name is whole and was walked; one that was cut off has another name, and its row says so after the next start.
//! - A folder in which a file is missing proves nothing by that: it may be another one, with the disk of backups not mounted. It is the right
//!   one if a backup that was made into it lies in it; and before one is made into another, all that are missing there are set apart.
//! - Nothing is read for it that its `backup.begin` entry did not announce.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::audit::{Detail, Reason};
use crate::authn::Principal;
use crate::base::durable;
use crate::base::id::FileId;
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::crypto::unlock::Kek;
use crate::engine::{CommitError, EngineError, Place, Plan, Unlock};
use crate::policy::action::{AskBackup, BeginBackup, EndBackup, Instance, ListBackups, RecordDrill};
use crate::store::gate::{Access, Call, Fault, Refused};
use crate::store::kept;
use crate::store::tables::backups;
pub use crate::store::tables::backups::{BackupRow, State};
pub use crate::store::tables::meta::DrillRow;
use crate::store::tables::{META, log, meta};
use crate::store::tx::{StoreError, Tx, value};
use crate::store::upkeep::DRILL_FILE;
use crate::store::vault::Vault;
use crate::store::writer::Unavailable;

/// Why there is no backup. Each names what to do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The new file, or the data file.
    #[error("{0}: {1}")]
    File(String, EngineError),
    /// The folder.
    #[error("{0}: {1}; the folder must exist and belong to the service's user")]
    Folder(String, io::Error),
    /// Not enough room where it is to lie.
    #[error("{path}: {needed} bytes are needed and {free} are free; free space, or name another disk")]
    NoRoom {
        /// Where.
        path: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The store could not record it.
    #[error("the backup could not be recorded: {0}")]
    Unavailable(#[from] Unavailable),
    /// A row could not be read, or policy said no.
    #[error("the backup could not be recorded; run `rosemary verify`")]
    Unrecorded,
    /// The service is stopping.
    #[error("the backup was given up because the service stops")]
    Stopping,
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its file id.
    pub id: FileId,
    /// Its file.
    pub path: PathBuf,
    /// What is known of it.
    pub backup: BackupRow,
    /// How long it took.
    pub took: Duration,
}

/// Where a backup is to lie.
#[derive(Clone, Copy, Debug)]
pub enum Where<'o> {
    /// This file, which must not exist.
    File(&'o Path),
    /// A file of its own name in this folder.
    Folder(&'o Path),
}

/// What is known of backups.
#[derive(Clone, Debug)]
pub struct Backups {
    /// Every one that was begun, oldest first.
    pub all: Vec<(FileId, BackupRow)>,
    /// How the last restore drill ended.
    pub drill: Option<DrillRow>,
}

impl Backups {
    fn read(tx: &Tx<'_>) -> Result<Self, StoreError> {
        Ok(Self { all: backups::all(tx)?, drill: meta::fact(tx, meta::DRILL)? })
    }

    /// The newest that is done.
    pub fn last(&self) -> Option<&(FileId, BackupRow)> {
        self.done().next()
    }

    /// Those that are done, the newest first.
    pub fn done(&self) -> impl Iterator<Item = &(FileId, BackupRow)> {
        self.all.iter().rev().filter(|(_, backup)| backup.state == State::Done)
    }

    /// Those whose time is over. The newest stays whatever its age, and time is over only once it was when the last but one was made: else a
    /// clock that jumps ahead would cost all of them but the one made a moment later.
    pub fn expired(&self, now: Timestamp) -> Vec<(FileId, BackupRow)> {
        let mut done = self.done();
        let (_newest, Some((_, before))) = (done.next(), done.next()) else { return Vec::new() };
        let by = now.min(before.begun_at);
        self.done().skip(1).filter(|(_, backup)| backup.expires_at.is_some_and(|at| at <= by)).cloned().collect()
    }
}

/// How a backup is to be made.
pub struct Order<'o> {
    /// Where it is to lie.
    pub place: Where<'o>,
    /// What opens it, if not the data file's own keys.
    pub key: Option<&'o Kek>,
    /// How long its file is to be kept; none: whoever keeps it decides.
    pub keep: Option<Duration>,
    /// Whether requests go on meanwhile, and come first.
    pub gentle: bool,
    /// Set to have it given up.
    pub stop: &'o AtomicBool,
    /// Told the rows copied.
    pub progress: &'o mut dyn FnMut(u64),
}

/// A refusal of work on backups' rows.
#[derive(Debug, thiserror::Error)]
pub enum RowFault {
    /// The store failed.
    #[error("Internal server error")]
    Store(#[from] StoreError),
    /// Nobody makes backups here.
    #[error("No folder for backups is set; set RM_BACKUP_DIR")]
    NoFolder,
}

impl Fault for RowFault {
    fn audit(&self) -> (Reason, u16) {
        match self {
            Self::Store(_) => (Reason::WorkFailed, 500),
            Self::NoFolder => (Reason::NotReady, 409),
        }
    }
}

impl From<Refused<RowFault>> for BackupError {
    fn from(refused: Refused<RowFault>) -> Self {
        match refused {
            Refused::Unavailable(why) => Self::Unavailable(why),
            _ => Self::Unrecorded,
        }
    }
}

/// The name of a backup's file in a backup folder: its time to the second, and the first digits of its id.
pub fn file_name(begun_at: Timestamp, id: FileId) -> String {
    let time: String = begun_at.to_string().chars().take_while(|c| *c != '.').filter(char::is_ascii_alphanumeric).collect();
    format!("rosemary-{time}Z-{}.backup", &id.to_string()[..8])
}

/// Whether a copy of so many bytes fits into `folder`, beside what the data file itself may still need there.
///
/// Errors: `NoRoom`; `Folder`.
pub fn room(folder: &Path, bytes: u64) -> Result<(), BackupError> {
    let name = || folder.display().to_string();
    let free = rustix::fs::statvfs(folder).map_err(|error| BackupError::Folder(name(), error.into()))?;
    let (needed, free) = (bytes.saturating_add(limits::RESERVE_BYTES), free.f_bavail.saturating_mul(free.f_frsize));
    if free < needed { Err(BackupError::NoRoom { path: name(), needed, free }) } else { Ok(()) }
}

impl Vault {
    fn keeper(&self) -> Principal {
        Principal::system(self.tenant(), self.owner(), "backup")
    }

    /// Makes a backup.
    ///
    /// Errors: [`BackupError`]; no file is left then, and its row says that it failed. If what was done is `Unconfirmed`, the file is there.
    pub fn backup(&self, order: Order<'_>) -> Result<Made, BackupError> {
        let Order { place, key, keep, gentle, stop, progress } = order;
        let folder = match place {
            Where::File(path) if path.symlink_metadata().is_ok() => {
                return Err(BackupError::File(path.display().to_string(), EngineError::Exists(path.display().to_string())));
            }
            Where::File(path) => path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            Where::Folder(folder) => {
                self.settle(folder, true)?;
                folder
            }
        };
        self.room(folder)?;
        let (id, began) = (FileId::draw(), Instant::now());
        let mut backup = self.begin_backup(id, key.is_some(), keep)?;
        let path = match place {
            Where::File(path) => path.to_owned(),
            Where::Folder(folder) => Self::backup_path(folder, id, &backup),
        };
        let copied = self.copy(id, &backup, &path, key, gentle, stop, progress);
        backup.ended_at = Some(self.clock().now());
        (backup.state, backup.bytes, backup.size) = match &copied {
            Ok((bytes, size, _)) => (State::Done, *bytes, *size),
            Err(BackupError::File(_, EngineError::Unconfirmed(_))) => (State::Apart, 0, backup.size),
            Err(_) => (State::Failed, 0, backup.size),
        };
        if let Ok((_, _, epochs)) = &copied {
            backup.epochs = *epochs;
        }
        let ended = self.end_backup(id, backup.clone());
        copied?;
        // Unrecorded, but whole and in its place: the next start finds it.
        ended?;
        Ok(Made { id, path, backup, took: began.elapsed() })
    }

    /// Whether a copy of the data fits into `folder`, beside what the data file itself may still need there.
    pub(in crate::store) fn room(&self, folder: &Path) -> Result<(), BackupError> {
        room(folder, self.engine().bytes().map_err(|error| BackupError::File(folder.display().to_string(), error))?)
    }

    fn begin_backup(&self, id: FileId, own_key: bool, keep: Option<Duration>) -> Result<BackupRow, BackupError> {
        let log = self.log();
        let begun = self.write::<BeginBackup, _, RowFault>(&self.keeper(), Instance, &Call::internal(), move |a| {
            let begun_at = a.now();
            let backup = BackupRow {
                state: State::Begun,
                begun_at,
                ended_at: None,
                expires_at: keep.map(|keep| begun_at.plus(keep)),
                epochs: a.vault().keys().epochs(),
                log,
                size: a.vault().published().map_or(0, |p| p.head.checkpoint.size),
                bytes: 0,
                own_key,
            };
            note(a, id);
            backups::put(a.tx_mut(), id, &backup);
            // Whoever asked for one asked for this one.
            if meta::fact::<Timestamp>(a.tx(), meta::ASKED)?.is_some() {
                a.tx_mut().delete(META, meta::ASKED.to_vec());
            }
            Ok(backup)
        });
        Ok(begun?.into_parts().0)
    }

    fn end_backup(&self, id: FileId, backup: BackupRow) -> Result<(), BackupError> {
        self.write::<EndBackup, _, RowFault>(&self.keeper(), Instance, &Call::internal(), move |a| {
            note(a, id);
            a.detail(Detail::Bytes(backup.bytes));
            a.detail(Detail::Ended(crate::audit::Word::of(backup.state.name())));
            backups::put(a.tx_mut(), id, &backup);
            Ok(())
        })?;
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one order, taken apart")]
    fn copy(
        &self,
        id: FileId,
        backup: &BackupRow,
        path: &Path,
        key: Option<&Kek>,
        gentle: bool,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(u64, u64, (u32, u32)), BackupError> {
        let failure = |error| BackupError::File(path.display().to_string(), error);
        // After the row's commit, so the row is in it; the checkpoint signed in a commit is a row of that commit.
        let frozen = self.engine().freeze(path, limits::COPY_CACHE_BYTES).map_err(failure)?;
        let snapshot = frozen.snapshot().map_err(failure)?;
        let note = log::checkpoint_note(&snapshot).map_err(|_| BackupError::Unrecorded)?;
        let size = note.as_deref().and_then(log::size_of).ok_or(BackupError::Unrecorded)?;
        let mark = value(&meta::BackupMark { taken_at: backup.begun_at });
        let mut pace = Pace { vault: self, gentle, since: Instant::now(), seq: self.published()?.seq };
        let plan = Plan {
            file: id,
            unlock: key.map_or(Unlock::AsHere, Unlock::Only),
            cache_bytes: limits::COPY_CACHE_BYTES,
            row: &mut |row| Ok(Some(row)),
            pace: &mut |rows| {
                progress(rows);
                pace.rest(stop)
            },
            finish: &mut |copy| {
                copy.commit(|batch| batch.put(META, meta::BACKUP, &mark))
                    .map_err(|(CommitError::Refused(error) | CommitError::Unknown(error))| error)
            },
            place: Place::New,
        };
        let copied = frozen.copy_as(&snapshot, path, plan);
        copied.map(|bytes| (bytes, size, snapshot.keys().epochs())).map_err(|error| match error {
            EngineError::Latched if stop.load(Ordering::Relaxed) => BackupError::Stopping,
            error => failure(error),
        })
    }

    /// What became of backups that were cut off, or set apart: done if the file has its name in `folder`, failed if it still has the other one
    /// there; else it may lie elsewhere. Of those that were made into this folder, whose file is gone, that it was removed. Of files there that
    /// no row tells of, that they are. Removes what was cut off there, also of a drill.
    ///
    /// Errors: as [`Vault::backup`].
    pub fn settle_backups(&self, folder: &Path) -> Result<(), BackupError> {
        self.settle(folder, false)
    }

    /// As [`Vault::settle_backups`]. Where a folder takes the place of another one, since one is about to be made there or one that was set
    /// apart is found there, what is missing there is set apart: from here on this folder is the known one.
    fn settle(&self, folder: &Path, making: bool) -> Result<(), BackupError> {
        let drill = folder.join(DRILL_FILE);
        for left in [crate::engine::beside(&drill), drill] {
            let _ = durable::remove(&left);
        }
        let seen = self.adopt(folder)?;
        let all = self.backups()?.all;
        let look = |id, row: &BackupRow| (row.expires_at.is_some(), lies(&Self::backup_path(folder, id, row), id));
        let here = |state| all.iter().any(|(id, row)| row.state == state && look(*id, row) == (true, Some(true)));
        let (known, other) = (here(State::Done), making || here(State::Apart));
        for (id, mut backup) in all.iter().cloned() {
            let path = Self::backup_path(folder, id, &backup);
            let cut_off = || durable::remove(&crate::engine::beside(&path)).is_ok();
            backup.state = match (backup.state, look(id, &backup)) {
                (State::Begun, (_, Some(true))) | (State::Apart, (true, Some(true))) => {
                    backup.bytes = std::fs::metadata(&path).map_or(0, |there| there.len());
                    State::Done
                }
                (State::Begun, (_, Some(false))) | (State::Apart, (true, Some(false))) if cut_off() => State::Failed,
                (State::Begun, _) => State::Apart,
                (State::Done, (true, Some(false))) if known && !seen.contains(&id) => State::Removed,
                // Under another name it is there still.
                (State::Done, (true, Some(false))) if known || other => State::Apart,
                _ => continue,
            };
            backup.ended_at = backup.ended_at.or(Some(self.clock().now()));
            self.end_backup(id, backup)?;
        }
        Ok(())
    }

    /// Makes known what lies in `folder` and is of this data, where no row tells of it: an older state of the data was put back, say, or the data file
    /// was copied there. Gives what lies there, under whatever name.
    fn adopt(&self, folder: &Path) -> Result<BTreeSet<FileId>, BackupError> {
        let (known, mut seen) = (self.backups()?.all, BTreeSet::new());
        let own = self.engine().path().and_then(|path| std::fs::metadata(path).ok());
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Some(about) = entry.metadata().ok().filter(std::fs::Metadata::is_file) else { continue };
            let Some((id, instance)) = kept::in_clear(&entry.path()) else { continue };
            let row = known.iter().find(|(known, _)| *known == id).map(|(_, row)| row);
            if instance != self.instance() || own.as_ref().is_some_and(|own| kept::is_same(own, &about)) {
                continue;
            }
            seen.insert(id);
            if row.is_none_or(|row| !row.may_exist()) {
                // Whose keys it holds is not known; to be on the safe side, those of every epoch.
                let unknown = || BackupRow::apart(Timestamp::modified(&about), (0, 0), self.log(), about.len());
                self.end_backup(id, row.map_or_else(unknown, |row| BackupRow { state: State::Apart, ..row.clone() }))?;
            }
        }
        Ok(seen)
    }

    /// Removes the files in `folder` whose time is over ([`Backups::expired`]). Gives how many were removed. One that is not there is left to
    /// [`Vault::settle_backups`].
    ///
    /// Errors: as [`Vault::backup`]; a file that cannot be removed ends it and is tried again next time.
    pub fn remove_expired_backups(&self, folder: &Path) -> Result<u64, BackupError> {
        let mut removed = 0;
        for (id, mut backup) in self.backups()?.expired(self.clock().now()) {
            let path = Self::backup_path(folder, id, &backup);
            match durable::remove(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(BackupError::File(path.display().to_string(), EngineError::io(error))),
            }
            (backup.state, removed) = (State::Removed, removed + 1);
            self.end_backup(id, backup)?;
        }
        Ok(removed)
    }

    /// What is known of backups, for the program's own use: ids, times and counts.
    ///
    /// Errors: the store cannot be read.
    pub fn backups(&self) -> Result<Backups, Unavailable> {
        let published = self.published()?;
        Backups::read(&self.reading(&published)).map_err(|_| Unavailable::Latched)
    }

    /// Whether a backup was asked for that has not begun.
    ///
    /// Errors: the store cannot be read.
    pub fn backup_asked(&self) -> Result<bool, Unavailable> {
        let published = self.published()?;
        let asked = meta::fact::<Timestamp>(&self.reading(&published), meta::ASKED);
        asked.map(|asked| asked.is_some()).map_err(|_| Unavailable::Latched)
    }

    /// Notes how a restore drill ended.
    ///
    /// Errors: as [`Vault::backup`].
    pub fn record_drill(&self, drill: DrillRow) -> Result<(), BackupError> {
        self.write::<RecordDrill, _, RowFault>(&self.keeper(), Instance, &Call::internal(), move |a| {
            note(a, drill.backup);
            a.detail(Detail::Ended(crate::audit::Word::of(if drill.passed { "passed" } else { "failed" })));
            a.detail(Detail::TookMs(drill.restore_ms));
            meta::put_fact(a.tx_mut(), meta::DRILL, &drill);
            Ok(())
        })?;
        Ok(())
    }

    /// Where the folder's file of a backup is.
    pub fn backup_path(folder: &Path, id: FileId, backup: &BackupRow) -> PathBuf {
        folder.join(file_name(backup.begun_at, id))
    }
}

/// Whether the file of this id has this name; none if that cannot be told.
fn lies(path: &Path, id: FileId) -> Option<bool> {
    match path.symlink_metadata() {
        Ok(about) if about.is_file() => kept::in_clear(path).filter(|(file, _)| *file == id).map(|_| true),
        Ok(_) => None,
        Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(false),
    }
}

/// What is known of backups, granted.
pub fn list(a: &mut Access<'_, ListBackups>) -> Result<Backups, RowFault> {
    let found = Backups::read(a.tx())?;
    a.count(u64::try_from(found.all.len()).unwrap_or(u64::MAX));
    Ok(found)
}

/// Asks for a backup, which the running service begins as soon as it can.
pub fn ask(a: &mut Access<'_, AskBackup>) -> Result<(), RowFault> {
    if !a.vault().has_upkeep() {
        return Err(RowFault::NoFolder);
    }
    let now = a.now();
    meta::put_fact(a.tx_mut(), meta::ASKED, &now);
    Ok(())
}

fn note<A: crate::policy::action::Action>(a: &mut Access<'_, A>, id: FileId) {
    a.detail(Detail::File(id));
}

/// How fast a copy goes on beside requests: while others commit, it rests as long as it worked.
struct Pace<'v> {
    vault: &'v Vault,
    gentle: bool,
    since: Instant,
    seq: u64,
}

impl Pace<'_> {
    fn rest(&mut self, stop: &AtomicBool) -> Result<(), EngineError> {
        let now = self.vault.published().map_or(self.seq, |published| published.seq);
        let busy = std::mem::replace(&mut self.seq, now) != now;
        if self.gentle && busy {
            let until = Instant::now() + self.since.elapsed().min(limits::COPY_REST_MAX) * limits::COPY_REST_PER_WORK;
            while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.since = Instant::now();
        if stop.load(Ordering::Relaxed) { Err(EngineError::Latched) } else { Ok(()) }
    }
}

/// Never set: for those who wait for the end.
pub fn never() -> AtomicBool {
    AtomicBool::new(false)
}
