//! Upkeep: backups by the clock, their retention, and restore drills, beside the requests of a running service.
//!
//! ```text
//! each second ─ what is due? ─ nothing
//!                            ├ a backup: asked for, or the last one is too old ─ then files whose time is over are removed
//!                            └ a drill: the newest backup is restored aside, checked, timed, recorded, and removed again
//! ```
//!
//! Invariants
//! - What is due follows from rows alone ([`due`]), so a restart forgets nothing and repeats nothing.
//! - A drill proves the whole way: the key that the operator keeps opens the backup, every row passes, and how long it took is on record,
//!   held against [`limits::RESTORE_TIME_MAX`].
//! - What fails is an error in the log and a row, and is tried again after [`limits::UPKEEP_RETRY`].

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::base::id::FileId;
use crate::base::limits;
use crate::base::log::{self, Level, Operator};
use crate::base::time::Timestamp;
use crate::crypto::unlock::{Kek, KekSource, UnlockError};
use crate::engine::{Engine, EngineError, Options, Place, Range, Read, Table, Unlock};
use crate::store::backup::{BackupError, Backups, DrillRow, Order, State, Where};
use crate::store::restore::{self, RestoreError};
use crate::store::vault::Vault;

/// Where the data file's key is.
#[derive(Clone, Debug)]
pub enum DataKey {
    /// In a file: a drill reads it as a restore would.
    At(KekSource),
    /// With whoever unlocked the service.
    Held(Arc<Kek>),
}

impl DataKey {
    fn read(&self) -> Result<Arc<Kek>, UnlockError> {
        match self {
            Self::At(source) => Kek::read(source).map(Arc::new),
            Self::Held(kek) => Ok(Arc::clone(kek)),
        }
    }
}

/// What is to be done, how often, and with which keys.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Where backups lie (`RM_BACKUP_DIR`).
    pub folder: PathBuf,
    /// What opens backups, if not the data file's own key (`RM_BACKUP_KEY_FILE`).
    pub backup_key: Option<KekSource>,
    /// The data file's key.
    pub data_key: DataKey,
    /// Between two backups; none: only when asked for.
    pub every: Option<Duration>,
    /// How long a backup is kept.
    pub keep: Duration,
    /// Between two restore drills; none: only when asked for.
    pub drill: Option<Duration>,
    /// How files are opened.
    pub options: Options,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// A backup.
    Backup,
    /// A drill with this backup.
    Drill(FileId),
}

/// What is due at `now`. Rows that a clock which was wrong has put into the future count as if they were not there.
pub fn due(now: Timestamp, known: &Backups, asked: bool, every: Option<Duration>, drill: Option<Duration>) -> Due {
    let past = || known.all.iter().rev().filter(|(_, backup)| backup.begun_at <= now);
    let last_done = past().find(|(_, backup)| backup.state == State::Done);
    let is_over = |at: Timestamp, time: Duration| at.plus(time) <= now;
    let tried_lately = past().next().is_some_and(|(_, last)| !is_over(last.begun_at, limits::UPKEEP_RETRY));
    let wanted = every.is_some_and(|every| last_done.is_none_or(|(_, last)| is_over(last.begun_at, every)));
    if asked || wanted && !tried_lately {
        return Due::Backup;
    }
    // One that failed is tried again after a day, or with the next backup.
    let again = |drill: Duration, last: &DrillRow| if last.passed { drill } else { drill.min(limits::DRILL_RETRY) };
    let last_drill = known.drill.filter(|last| last.at <= now);
    match (last_done, drill) {
        (Some((id, _)), Some(drill)) if last_drill.is_none_or(|last| is_over(last.at, again(drill, &last))) => Due::Drill(*id),
        _ => Due::Nothing,
    }
}

/// Why a drill did not pass.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The key cannot be read.
    #[error("the key that opens backups: {0}")]
    Key(#[from] UnlockError),
    /// The backup does not open, or what is restored from it.
    #[error("{0}: {1}")]
    File(String, EngineError),
    /// It was not restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// There is no backup to restore.
    #[error("there is no backup in {0} yet")]
    None(String),
    /// It took too long.
    #[error("the restore took {0} ms, longer than the {max} hours that are promised", max = limits::RESTORE_TIME_MAX.as_secs() / 3600)]
    TooLong(u64),
    /// It could not be recorded.
    #[error(transparent)]
    Record(#[from] BackupError),
    /// The service is stopping.
    #[error("the drill was given up because the service stops")]
    Stopping,
}

/// Works until `stop` is set. To be run on a thread of its own, which it makes step back before those that answer.
pub fn run(vault: &Vault, schedule: &Schedule, stop: &AtomicBool) {
    // On Linux this concerns the calling thread alone. A system that refuses is no reason not to make backups.
    let _ = rustix::process::setpriority_process(None, limits::UPKEEP_NICE);
    let _ = vault.settle_backups(&schedule.folder).map_err(|error| complain("backups that were cut off were not settled", &error));
    let mut not_before = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        std::thread::park_timeout(Duration::from_secs(1));
        if Instant::now() < not_before || stop.load(Ordering::Relaxed) {
            continue;
        }
        let Ok((known, asked)) = vault.backups().and_then(|known| Ok((known, vault.backup_asked()?))) else { continue };
        let done = match due(vault.clock().now(), &known, asked, schedule.every, schedule.drill) {
            Due::Nothing => continue,
            Due::Backup => backup(vault, schedule, stop),
            Due::Drill(_) => drill(vault, schedule, stop),
        };
        if done.is_err() {
            not_before = Instant::now() + limits::UPKEEP_RETRY;
        }
    }
}

fn complain(what: &'static str, error: &impl std::fmt::Display) {
    log::line(Level::Error, what, &[("error", &Operator::text(error))]);
}

fn backup(vault: &Vault, schedule: &Schedule, stop: &AtomicBool) -> Result<(), ()> {
    let made = schedule
        .backup_key
        .as_ref()
        .map(Kek::read)
        .transpose()
        .map_err(|error| complain("no backup was made: RM_BACKUP_KEY_FILE", &error))
        .and_then(|key| {
            let order = Order {
                place: Where::Folder(&schedule.folder),
                key: key.as_ref(),
                keep: Some(schedule.keep),
                gentle: true,
                stop,
                progress: &mut |_| {},
            };
            vault.backup(order).map_err(|error| complain("no backup was made", &error))
        })?;
    let took = u64::try_from(made.took.as_millis()).unwrap_or(u64::MAX);
    log::line(Level::Info, "a backup was made", &[("id", &made.id), ("bytes", &made.backup.bytes), ("ms", &took)]);
    vault.remove_expired_backups(&schedule.folder).map_err(|error| complain("old backups were not removed", &error)).map(drop)
}

/// Restores the newest backup aside, checks it, times it, records it.
fn drill(vault: &Vault, schedule: &Schedule, stop: &AtomicBool) -> Result<(), ()> {
    match run_drill(vault, schedule, stop) {
        Ok(drill) => {
            log::line(
                Level::Info,
                "a restore drill passed",
                &[("backup", &drill.backup), ("memories", &drill.memories), ("ms", &drill.restore_ms)],
            );
            Ok(())
        }
        // What is known lies elsewhere: that is nothing to complain of, nor a reason to wait.
        Err(DrillError::None(_)) => Ok(()),
        Err(DrillError::Stopping) => Err(()),
        Err(error) => {
            complain("a restore drill FAILED: find out why before you need the backup", &error);
            Err(())
        }
    }
}

/// A restore drill with the newest backup in the folder; its outcome is on record before this returns.
///
/// Errors: [`DrillError`]; what was restored is removed in either case.
pub fn run_drill(vault: &Vault, schedule: &Schedule, stop: &AtomicBool) -> Result<DrillRow, DrillError> {
    let folder = &schedule.folder;
    let known = vault.backups().map_err(BackupError::from)?;
    // One made elsewhere by hand is not missed here; one that is kept by the clock must be here.
    let here = known.done().find(|(id, backup)| backup.expires_at.is_some() || Vault::backup_path(folder, *id, backup).exists());
    let (id, backup) = here.ok_or_else(|| DrillError::None(folder.display().to_string()))?;
    let mut row = DrillRow { at: vault.clock().now(), backup: *id, passed: false, restore_ms: 0, memories: 0, entries: backup.size };
    let aside = folder.join(DRILL_FILE);
    let _ = std::fs::remove_file(&aside);
    let began = Instant::now();
    let key = match schedule.backup_key.as_ref().filter(|_| backup.own_key) {
        Some(source) => Kek::read(source).map(Arc::new),
        None => schedule.data_key.read(),
    };
    let restored = restored(vault, schedule, key, &Vault::backup_path(folder, *id, backup), &aside, stop);
    row.restore_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let _ = std::fs::remove_file(&aside);
    if stop.load(Ordering::Relaxed) {
        return Err(DrillError::Stopping);
    }
    let restored = restored.and_then(|memories| match began.elapsed() > limits::RESTORE_TIME_MAX {
        true => Err(DrillError::TooLong(row.restore_ms)),
        false => Ok(memories),
    });
    (row.passed, row.memories) = (restored.is_ok(), *restored.as_ref().unwrap_or(&0));
    vault.record_drill(row)?;
    restored.map(|_| row)
}

/// Where a drill's file lies, in the backup folder; it is gone when the drill is over, or, after a crash, when the program starts again.
pub(in crate::store) const DRILL_FILE: &str = "rosemary-drill.db";

/// Restores `backup` to `aside`, opens what came of it as a service would, and gives its number of memories.
fn restored(
    vault: &Vault,
    schedule: &Schedule,
    key: Result<Arc<Kek>, UnlockError>,
    backup: &Path,
    aside: &Path,
    stop: &AtomicBool,
) -> Result<u64, DrillError> {
    let name = |path: &Path| path.display().to_string();
    let kek = key?;
    let options = Options { cache_bytes: limits::COPY_CACHE_BYTES, ..schedule.options.clone() };
    vault.room(&schedule.folder)?;
    let source = Engine::inspect(backup, &options, &kek).map_err(|error| DrillError::File(name(backup), error))?;
    let facts = restore::facts(&source, vault.clock()).map_err(RestoreError::from)?;
    let order = restore::Order {
        path: aside,
        unlock: Unlock::AsHere,
        place: Place::New,
        overridden: restore::Overridden::default(),
        known: &[],
        stop,
        progress: &mut |_, _| {},
    };
    let restored = restore::restore(&source, &facts, vault.clock(), order)?;
    let opened = Engine::inspect(aside, &options, &kek).map_err(|error| DrillError::File(name(aside), error))?;
    let again = restore::facts(&opened, vault.clock()).map_err(RestoreError::from)?;
    match again.checkpoint == restored.checkpoint && again.instance == facts.instance {
        true => Ok(restored.found.memories),
        false => Err(DrillError::File(name(aside), EngineError::Damaged("what was restored"))),
    }
}

/// A reader that ends when a flag is set: a long check of what it shows can be given up.
pub(in crate::store) struct Interruptible<'r> {
    /// What is read.
    pub reader: &'r dyn Read,
    /// The flag.
    pub stop: &'r AtomicBool,
}

impl Interruptible<'_> {
    fn go_on(&self) -> Result<(), EngineError> {
        if self.stop.load(Ordering::Relaxed) { Err(EngineError::Latched) } else { Ok(()) }
    }
}

impl Read for Interruptible<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.go_on().and_then(|()| self.reader.get(table, key))
    }

    fn range(&self, table: Table, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Result<Range<'_>, EngineError> {
        self.go_on().and_then(|()| self.reader.range(table, low, high))
    }
}

/// The thread of a running service.
pub struct Upkeep {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upkeep {
    /// Starts it.
    ///
    /// Errors: the thread could not be started.
    pub fn start(vault: Vault, schedule: Schedule) -> std::io::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let told = Arc::clone(&stop);
        vault.set_upkeep(true);
        let thread = std::thread::Builder::new().name("upkeep".to_owned()).spawn(move || run(&vault, &schedule, &told))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it; a backup or drill under way is given up. To be called before the store stops.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::LogId;
    use crate::store::backup::BackupRow;

    const HOUR: u64 = 3_600_000;
    const DAY: Option<Duration> = Some(Duration::from_secs(24 * 3600));
    const WEEK: Option<Duration> = Some(Duration::from_secs(7 * 24 * 3600));

    fn at(hours: u64) -> Timestamp {
        Timestamp::from_ms(1_000_000 * HOUR + hours * HOUR)
    }

    fn backup(hours: u64, state: State) -> (FileId, BackupRow) {
        let ended_at = (state != State::Begun).then(|| at(hours));
        let row = BackupRow {
            state,
            begun_at: at(hours),
            ended_at,
            expires_at: None,
            epochs: (1, 1),
            log: LogId::from_bytes([1; 16]),
            size: 1,
            bytes: 1,
            own_key: false,
        };
        (FileId::draw(), row)
    }

    fn known(all: Vec<(FileId, BackupRow)>, drill: Option<(u64, bool)>) -> Backups {
        let drill =
            drill.map(|(hours, passed)| DrillRow { at: at(hours), backup: FileId::draw(), passed, restore_ms: 1, memories: 1, entries: 1 });
        Backups { all, drill }
    }

    #[test]
    fn a_backup_is_due_when_the_last_good_one_is_too_old_or_one_was_asked_for() {
        let due = |now, all, asked| due(at(now), &known(all, Some((now, true))), asked, DAY, WEEK);
        assert_eq!(due(0, vec![], false), Due::Backup);
        assert_eq!(due(23, vec![backup(0, State::Done)], false), Due::Nothing);
        assert_eq!(due(23, vec![backup(0, State::Done)], true), Due::Backup);
        assert_eq!(due(24, vec![backup(0, State::Done)], false), Due::Backup);
        // What failed, or was removed, is no backup; but it is not tried again at once.
        assert_eq!(due(24, vec![backup(0, State::Done), backup(24, State::Failed)], false), Due::Nothing);
        assert_eq!(due(25, vec![backup(0, State::Done), backup(24, State::Failed)], false), Due::Backup);
        assert_eq!(due(25, vec![backup(20, State::Removed)], false), Due::Backup);
        // A clock that was ahead does not stop backups until it has caught up.
        assert_eq!(due(30, vec![backup(0, State::Done), backup(9000, State::Done)], false), Due::Backup);
        assert_eq!(super::due(at(99), &known(vec![], None), false, None, WEEK), Due::Nothing);
    }

    #[test]
    fn a_clock_that_jumps_ahead_costs_no_backup() {
        // The first backup of year 2100 removed all those of this year, and none but itself was left.
        let kept = |hours: u64| {
            let (id, row) = backup(hours, State::Done);
            (id, BackupRow { expires_at: Some(at(hours + 72)), ..row })
        };
        let gone = |now, all: &[(FileId, BackupRow)]| -> Vec<Timestamp> {
            known(all.to_vec(), None).expired(at(now)).into_iter().map(|(_, row)| row.begun_at).collect()
        };
        let mut all: Vec<_> = (0..4).map(|day| kept(day * 24)).collect();
        assert_eq!(gone(72, &all), [], "it was not over when the last but one was made");
        all.push(kept(96));
        assert_eq!(gone(96, &all), [at(0)]);
        all.remove(0);
        all.push(kept(900_000));
        assert_eq!(gone(900_000, &all), [at(24)], "what was over without it");
        // Set right, all goes on as before.
        all.extend([kept(120), kept(144)]);
        all.sort_by_key(|(_, row)| row.begun_at);
        assert_eq!(gone(145, &all), [at(72), at(48), at(24)]);
        assert_eq!(gone(9, &[kept(0)]), []);
    }

    #[test]
    fn a_drill_is_due_when_the_last_one_is_too_old_or_failed_a_day_ago() {
        let newest = backup(200, State::Done);
        let all = vec![backup(190, State::Done), newest.clone(), backup(200, State::Failed)];
        let due = |now, drill| due(at(now), &known(all.clone(), drill), false, None, WEEK);
        assert_eq!(due(201, None), Due::Drill(newest.0));
        assert_eq!(due(201, Some((200, true))), Due::Nothing);
        assert_eq!(due(201, Some((200, false))), Due::Nothing);
        assert_eq!(due(224, Some((200, false))), Due::Drill(newest.0));
        assert_eq!(due(224, Some((200, true))), Due::Nothing);
        assert_eq!(due(200 + 168, Some((200, true))), Due::Drill(newest.0));
        assert_eq!(super::due(at(1), &known(vec![], None), false, None, WEEK), Due::Nothing, "nothing to restore");
    }
}
