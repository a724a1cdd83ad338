//! Open, lock, read, commit, latch, recover.
//!
//! ```text
//!  create/open ──> open ──(commit ok | refused by the caller)──> open
//!                   │ a read, write or sync fails (a superblock's too), a block does not open, redb panics
//!                   v
//!                latched: every call answers `Latched` ──recover() Ok──> open
//! ```
//!
//! Invariants
//! - One batch at a time; each commit is two-phase and durable before `commit` returns Ok.
//! - No panic of redb leaves this layer: it latches.
//! - A latched store writes nothing, also while its redb is being closed.
//! - A snapshot opens a table at its first use and keeps it.

use std::cell::OnceCell;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::base::id::{FileId, InstanceId};
use crate::base::limits::{RESERVE_READ_BYTES, RESERVE_WRITE_BYTES};
use crate::base::{durable, fault};
use crate::crypto::ladder::Keys;
use crate::crypto::unlock::{KdfCost, Kek};
use crate::engine::block::{Backend, Blocks, medium_len};
use crate::engine::frozen::Live;
use crate::engine::header::{BLOCKS_START, PageZero, Superblock};
use crate::engine::medium::{DiskFile, Medium, Overlay, TakeError};
use crate::engine::{CommitError, EngineError};

type Bytes = &'static [u8];

/// A table: its place in the list of names given at open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Table(pub u8);

/// How a store is made and opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for opened blocks, bytes.
    pub cache_bytes: usize,
    /// Distance between blocks of a new file: 4608 or 8192. An existing file keeps its own.
    pub stride: u32,
    /// Names of the tables, in the order of [`Table`]. New names are added to an existing file; none is ever removed.
    pub tables: &'static [&'static str],
    /// Argon2id cost of new passphrase slots.
    pub kdf: KdfCost,
}

/// How much room is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Enough for anything.
    Ample,
    /// Below [`RESERVE_WRITE_BYTES`]: only reads, audit entries and erasure.
    NoWrites,
    /// Below [`RESERVE_READ_BYTES`]: only audit entries and erasure.
    NoReads,
}

/// Shut by the first failure; each opening of the store has its own.
#[derive(Debug, Default)]
pub(super) struct Latch(AtomicBool);

impl Latch {
    fn check(&self) -> Result<(), EngineError> {
        if self.0.load(Ordering::Acquire) { Err(EngineError::Latched) } else { Ok(()) }
    }

    fn shut(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Runs `work` on redb: a panic becomes an error, and what must latch latches.
    pub(super) fn guard<T>(&self, work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
        self.check()?;
        let outcome = catch(work);
        if outcome.as_ref().is_err_and(EngineError::latches) {
            self.shut();
        }
        outcome
    }
}

/// How a file that was made beside takes its place.
#[derive(Clone, Copy, Debug)]
pub enum Place<'p> {
    /// There must be none.
    New,
    /// One that is there is kept under this other name, and is never absent: at any moment the old file or the new one has the path.
    Over(&'p Path),
}

/// Runs `work`; a panic becomes `Panicked`. Nothing is looked at afterwards but the latch, so unwind safety does not matter.
pub(super) fn catch<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    fault::catch(work).unwrap_or(Err(EngineError::Panicked))
}

/// Drops what belongs to redb; its destructors walk trees and take locks, and may panic on a damaged file.
fn drop_caught<T>(value: T) {
    let _ = catch(|| {
        drop(value);
        Ok(())
    });
}

/// redb over its blocks.
pub(super) struct Open {
    pub(super) db: Database,
    pub(super) blocks: Arc<Blocks>,
    pub(super) latch: Arc<Latch>,
}

/// One sealed file, open. Shared by reference among threads.
pub struct Engine {
    pub(super) medium: Arc<Live>,
    pub(super) head: RwLock<Arc<Superblock>>,
    /// One rewriting of the superblock at a time; the newest generation that was tried.
    pub(super) rewriting: Mutex<u64>,
    /// Held by who freezes, and passed by each commit before it begins: else commits that follow one another would keep a freezing waiting.
    pub(super) freezing: Mutex<()>,
    /// Whether the copies of the superblock may differ.
    pub(super) torn: AtomicBool,
    pub(super) options: Options,
    /// Where the file is, if it is one on disk that may be written.
    pub(super) path: Option<PathBuf>,
    pub(super) open: RwLock<Option<Open>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({})", self.file())
    }
}

impl Engine {
    /// Makes a new store at `path`: a temporary file beside it, synced, renamed, its folder synced. A crash leaves no file at `path` or a
    /// whole one.
    ///
    /// Errors: `Exists`; `Uncreatable`; `Locked` if another process is creating it; `Keys` (the passphrase's cost); `Full`, `Io`. No file is
    /// left then; after `Unconfirmed` it is there.
    pub fn create(path: &Path, options: &Options, kek: &Kek) -> Result<Self, EngineError> {
        let head = Superblock::new(options.stride, kek, options.kdf)?;
        let made = Self::build(path, options, head, Place::New, &mut |_| Ok(()))?;
        made.medium.reserve();
        Ok(made)
    }

    /// As [`Engine::create`], with a superblock already made, filled by `fill` before it appears at `path`, and no space held behind it.
    pub(super) fn build(
        path: &Path,
        options: &Options,
        head: Superblock,
        place: Place<'_>,
        fill: &mut dyn FnMut(&Self) -> Result<(), EngineError>,
    ) -> Result<Self, EngineError> {
        if matches!(place, Place::New) && path.symlink_metadata().is_ok() {
            return Err(EngineError::Exists(name(path)));
        }
        let (beside, file) = create_beside(path)?;
        let made = Self::create_on(Arc::new(file), options, head).and_then(|mut engine| {
            fill(&engine)?;
            engine.path = Some(path.to_owned());
            // What was written since the last commit's sync is nothing but the file's cut end; its length is part of what appears.
            engine.medium.sync().map_err(EngineError::io)?;
            match place {
                Place::New => rename_new(&beside, path)?,
                Place::Over(kept) => rename_over(&beside, path, kept)?,
            }
            // From here on it is there, whatever fails.
            durable::sync_folder_of(path).map_err(|error| EngineError::Unconfirmed(error.to_string()))?;
            Ok(engine)
        });
        if made.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        made
    }

    /// Makes a new store on an empty medium.
    pub(super) fn create_on(medium: Arc<dyn Medium>, options: &Options, head: Superblock) -> Result<Self, EngineError> {
        medium.set_len(BLOCKS_START).map_err(EngineError::io)?;
        PageZero::empty().write(&*medium, head.file, head.keys.block()).map_err(EngineError::io)?;
        head.write(&*medium, &head)?;
        let (medium, head) = (Live::new(medium), Arc::new(head));
        let open = Open::new(&medium, &head, options, Opening::New)?;
        Ok(Self::of(medium, head, options, open))
    }

    /// Opens the store at `path`, locked.
    ///
    /// Errors: `Missing`, `Unopenable`, `Locked`, `NotRosemary`, `Newer`, `Keys`, `Damaged`, `Block`, `Io`. The file is not changed if it does not open.
    pub fn open(path: &Path, options: &Options, kek: &Kek) -> Result<Self, EngineError> {
        let mut engine = Self::open_on(lock_file(path)?, options, kek)?;
        engine.path = Some(path.to_owned());
        engine.medium.reserve();
        Ok(engine)
    }

    /// Opens the store at `path`, locked, over an overlay: nothing is ever written to the file, whatever is done with the engine.
    ///
    /// Errors: as [`Engine::open`].
    pub fn inspect(path: &Path, options: &Options, kek: &Kek) -> Result<Self, EngineError> {
        Self::open_on(Arc::new(Overlay::new(lock_to_read(path)?).map_err(EngineError::io)?), options, kek)
    }

    pub(super) fn open_on(medium: Arc<dyn Medium>, options: &Options, kek: &Kek) -> Result<Self, EngineError> {
        let head = Superblock::read(&*medium, kek)?;
        let torn = head.copies(&*medium)? != [true; 2];
        let (medium, head) = (Live::new(medium), Arc::new(head));
        let open = Open::new(&medium, &head, options, Opening::Trusting)?;
        let engine = Self::of(medium, head, options, open);
        engine.torn.store(torn, Ordering::Release);
        Ok(engine)
    }

    pub(super) fn of(medium: Arc<Live>, head: Arc<Superblock>, options: &Options, open: Open) -> Self {
        let (rewriting, freezing, torn) = (Mutex::new(head.generation), Mutex::default(), AtomicBool::new(false));
        Self {
            medium,
            head: RwLock::new(head),
            rewriting,
            freezing,
            torn,
            options: options.clone(),
            path: None,
            open: RwLock::new(Some(open)),
        }
    }

    /// The superblock as last made durable.
    pub(super) fn head(&self) -> Arc<Superblock> {
        Arc::clone(&self.head.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The opened keys. They change when the superblock is rewritten: what belongs together is opened with one handle.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.head().keys)
    }

    /// The data's identity, the same in every copy.
    pub fn instance(&self) -> InstanceId {
        self.head().instance
    }

    /// This physical copy.
    pub fn file(&self) -> FileId {
        self.head().file
    }

    /// How many key slots hold a key.
    pub fn key_slots(&self) -> usize {
        self.head().slots.iter().flatten().count()
    }

    /// Bytes of the file.
    ///
    /// Errors: the system's.
    pub fn bytes(&self) -> Result<u64, EngineError> {
        self.medium.len().map_err(EngineError::io)
    }

    /// Whether `kek` opens one of the key slots.
    pub fn opens_with(&self, kek: &Kek) -> bool {
        let head = self.head();
        crate::crypto::ladder::open_slots(&head.slots, kek, head.instance).is_ok()
    }

    /// Generation of the superblock.
    pub fn generation(&self) -> u64 {
        self.head().generation
    }

    /// Runs `work` on the open store.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Open) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let open = self.open.read().map_err(|_| EngineError::Latched)?;
        work(open.as_ref().ok_or(EngineError::Latched)?)
    }

    /// What is committed now, unchanged by later commits, with keys that open all of it. Share it behind an `Arc`.
    ///
    /// Errors: `Latched`; `Block`, `Damaged`, `Io`, `Panicked`, which latch.
    pub fn snapshot(&self) -> Result<Snapshot, EngineError> {
        loop {
            let head = self.head();
            let snapshot = self.with(|open| {
                open.latch.guard(|| {
                    let (transaction, names) = (Some(open.db.begin_read()?), self.options.tables);
                    let tables = names.iter().map(|_| OnceLock::new()).collect();
                    Ok(Snapshot { transaction, names, tables, latch: Arc::clone(&open.latch), head: Arc::clone(&head) })
                })
            })?;
            // Were a superblock between the two, rows could be wrapped under a key that the older one has not, or the newer one has not any more.
            if self.head().generation == head.generation {
                return Ok(snapshot);
            }
        }
    }

    /// Runs `work` in a transaction and makes it durable. If `work` fails, nothing of it stays.
    ///
    /// Errors: `Refused` if surely nothing was written; `Unknown` if a write or sync failed after `work` was done: then the store is
    /// latched until [`Engine::recover`]. A failure below latches in either case. `work` reads through its batch, never through the engine.
    pub fn commit<T>(&self, work: impl FnOnce(&mut Batch<'_>) -> Result<T, EngineError>) -> Result<T, CommitError> {
        let (mut work, mut done) = (Some(work), None);
        self.commit_work(&mut |batch| {
            done = Some(work.take().expect("it is called once")(batch)?);
            Ok(())
        })?;
        Ok(done.expect("what was committed was worked out"))
    }

    /// What is the same whatever the work gives. Calls it once at most.
    fn commit_work(&self, work: &mut dyn FnMut(&mut Batch<'_>) -> Result<(), EngineError>) -> Result<(), CommitError> {
        let mut committing = false;
        // Whoever waits to freeze goes first.
        drop(self.freezing.lock());
        self.with(|open| {
            open.latch.guard(|| {
                let mut transaction = open.db.begin_write()?;
                transaction.set_quick_repair(true);
                let mut batch = Batch::new(&transaction, self.options.tables, &open.latch);
                let outcome = work(&mut batch);
                drop(batch);
                // A read that failed below has latched, even where the work made nothing of it.
                match outcome.and_then(|()| open.latch.check()) {
                    Ok(()) => {
                        committing = true;
                        Ok(transaction.commit()?)
                    }
                    Err(error) => {
                        // Nothing was flipped; should even the abort fail, the failure that led here is the one to tell.
                        if transaction.abort().is_err() {
                            open.latch.shut();
                        }
                        Err(error)
                    }
                }
            })
        })
        .map_err(if committing { CommitError::Unknown } else { CommitError::Refused })
    }

    /// Where the file lies, if it lies in a folder.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// After an unknown outcome: closes redb without writing, drops what the system has cached of the file, and reads all from the medium
    /// again. Earlier snapshots answer `Latched` from now on.
    ///
    /// Errors: what kept it from opening; the store stays latched, and the caller may try again.
    pub fn recover(&self) -> Result<(), EngineError> {
        // Between a rewriting's write and its sync nothing is forgotten: it would take what is lost for durable.
        let _unchanged = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = place.take() {
            open.discard();
        }
        self.medium.forget().map_err(EngineError::io)?;
        let head = self.head();
        self.torn.store(head.copies(&*self.medium)? != [true; 2], Ordering::Release);
        *place = Some(Open::new(&self.medium, &head, &self.options, Opening::Trusting)?);
        Ok(())
    }

    /// Drops all without the last commit of a clean stop.
    #[cfg(test)]
    pub(super) fn abandon(mut self) {
        if let Some(open) = self.take_open() {
            open.discard();
        }
    }

    /// Whether a failure has latched the store.
    pub fn is_latched(&self) -> bool {
        self.with(|open| open.latch.check()).is_err()
    }

    /// How much room is left, and tries to reserve more when it is little.
    pub fn space(&self) -> Space {
        match self.medium.reserve() {
            RESERVE_WRITE_BYTES.. => Space::Ample,
            RESERVE_READ_BYTES.. => Space::NoWrites,
            _ => Space::NoReads,
        }
    }

    /// Stops cleanly. A latched store is closed without writing.
    ///
    /// Errors: `Latched`; `Io` and `Full`. The data is safe all the same: the next opening recovers.
    pub fn close(mut self) -> Result<(), EngineError> {
        match self.take_open() {
            Some(open) if open.latch.check().is_ok() => catch(|| Ok(open.db.close()?)),
            Some(open) => {
                open.discard();
                Err(EngineError::Latched)
            }
            None => Err(EngineError::Latched),
        }
    }

    fn take_open(&mut self) -> Option<Open> {
        self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A latched store must not write on its way out; an open one stops as cleanly as it can.
        match self.take_open() {
            Some(open) if open.latch.check().is_err() => open.discard(),
            open => drop_caught(open),
        }
    }
}

/// How a store is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// The medium holds none yet.
    New,
    /// As the last commit left it.
    Trusting,
    /// Only after every reachable page was found to have the checksum its parent holds.
    Walking,
}

impl Open {
    /// Opens redb over the blocks of `medium`, and makes tables that are not there yet.
    pub(super) fn new(medium: &Arc<Live>, head: &Superblock, options: &Options, how: Opening) -> Result<Self, EngineError> {
        let zero = PageZero::read(&**medium, head.file, head.keys.block())?;
        let stride = u64::from(head.stride);
        if how != Opening::New && (zero.length == 0 || medium.len().map_err(EngineError::io)? < medium_len(zero.length, stride)) {
            return Err(EngineError::Damaged("the file's length"));
        }
        let blocks = Blocks::new(Arc::clone(medium) as _, head.file, head.keys.block(), head.stride, zero);
        let opened = catch(|| {
            let backend = Backend(Arc::clone(&blocks));
            let db = Database::builder()
                .set_cache_size(options.cache_bytes)
                .set_check_integrity_on_open(how == Opening::Walking)
                .create_with_backend(backend)?;
            blocks.opened();
            make_tables(&db, options.tables)?;
            Ok(db)
        });
        match opened {
            Ok(db) => Ok(Self { db, blocks, latch: Arc::default() }),
            Err(error) => {
                blocks.sever();
                Err(error)
            }
        }
    }

    /// Closes redb without letting it write.
    ///
    /// Dropped as it is, redb would make a last commit, and on a damaged file that can panic twice over, which ends the process. Once it has
    /// seen a failure of its storage it does not, so a check is asked of it that must fail. Where even that goes wrong its memory is leaked.
    #[allow(clippy::disallowed_methods)] // `forget`: the blocks were severed, so their key is wiped with the last reader.
    fn discard(mut self) {
        self.latch.shut();
        self.blocks.sever();
        match catch(|| Ok(self.db.check_integrity())) {
            Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(_) | redb::StorageError::PreviousIo))) => drop_caught(self),
            _ => std::mem::forget(self),
        }
    }
}

/// The file at `path`, locked.
pub(super) fn lock_file(path: &Path) -> Result<Arc<dyn Medium>, EngineError> {
    Ok(Arc::new(DiskFile::open(path).map_err(|error| taken(path, error))?))
}

/// The file at `path`, locked, for what never writes to it; it may lie on a disk that is read-only.
pub(super) fn lock_to_read(path: &Path) -> Result<Arc<dyn Medium>, EngineError> {
    Ok(Arc::new(DiskFile::open_to_read(path).map_err(|error| taken(path, error))?))
}

fn make_tables(db: &Database, names: &[&str]) -> Result<(), EngineError> {
    let there: Vec<String> = {
        let transaction = db.begin_read()?;
        transaction.list_tables()?.map(|table| redb::TableHandle::name(&table).to_owned()).collect()
    };
    if there.iter().any(|known| !names.contains(&known.as_str())) {
        return Err(EngineError::UnknownTable);
    }
    if names.iter().all(|name| there.iter().any(|known| known == name)) {
        return Ok(());
    }
    let mut transaction = db.begin_write()?;
    transaction.set_quick_repair(true);
    for name in names {
        transaction.open_table(definition(name))?;
    }
    Ok(transaction.commit()?)
}

fn definition(name: &str) -> TableDefinition<'_, Bytes, Bytes> {
    TableDefinition::new(name)
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// The name that a file for `path` has until it is whole.
pub fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    beside.into()
}

fn taken(path: &Path, error: TakeError) -> EngineError {
    match error {
        TakeError::Locked => EngineError::Locked(name(path)),
        TakeError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => EngineError::Missing(name(path)),
        TakeError::Io(error) => EngineError::Unopenable { path: name(path), kind: error.kind() },
    }
}

/// Makes an empty file, locked, under the name that a file for `path` has until it is whole.
pub(super) fn create_beside(path: &Path) -> Result<(PathBuf, DiskFile), EngineError> {
    let beside = beside(path);
    remove_stale(&beside)?;
    match DiskFile::create(&beside) {
        Ok(file) => Ok((beside, file)),
        Err(TakeError::Locked) => Err(EngineError::Locked(name(&beside))),
        Err(TakeError::Io(error)) => Err(EngineError::Uncreatable { path: name(path), kind: error.kind() }),
    }
}

/// Removes what a crash during an earlier creation left, unless a creation is under way in another process.
fn remove_stale(beside: &Path) -> Result<(), EngineError> {
    let held = match DiskFile::open(beside) {
        Err(TakeError::Locked) => return Err(EngineError::Locked(name(beside))),
        held => held,
    };
    // Should this fail, creating says so.
    let _ = std::fs::remove_file(beside);
    drop(held);
    Ok(())
}

/// Renames without replacing a file that appeared meanwhile, where the file system can.
fn rename_new(from: &Path, to: &Path) -> Result<(), EngineError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(EngineError::Exists(name(to))),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(from, to).map_err(EngineError::io),
        Err(error) => Err(EngineError::io(error.into())),
    }
}

/// Renames over a file that is there, which first gets the second name `kept`. Where there is none, as [`rename_new`].
fn rename_over(from: &Path, to: &Path, kept: &Path) -> Result<(), EngineError> {
    match std::fs::hard_link(to, kept) {
        Ok(()) => durable::sync_folder_of(kept).and_then(|()| std::fs::rename(from, to)).map_err(EngineError::io),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => rename_new(from, to),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(EngineError::Exists(name(kept))),
        // A file system without second names: for a moment there is no file at the path, and both lie beside it.
        Err(_) => std::fs::rename(to, kept).map_err(EngineError::io).and_then(|()| {
            rename_new(from, to).inspect_err(|_| {
                let _ = rename_new(kept, to);
            })
        }),
    }
}

/// Reading, alike from a snapshot and from within a batch (which sees its own earlier changes).
pub trait Read {
    /// The value under `key`.
    ///
    /// Errors: `Latched`; else a failure below, which latches.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// The entries from `low` to `high` in the order of their keys, from either end. Bounds that cross give none.
    ///
    /// Errors: as [`Read::get`], here and in each step.
    fn range(&self, table: Table, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Result<Range<'_>, EngineError>;
}

/// Entries in order of their keys; ends after its first error.
pub struct Range<'a> {
    entries: Option<redb::Range<'a, Bytes, Bytes>>,
    latch: &'a Latch,
}

type Entry = Result<(Vec<u8>, Vec<u8>), EngineError>;
type RawEntry<'a> = Result<(redb::AccessGuard<'a, Bytes>, redb::AccessGuard<'a, Bytes>), redb::StorageError>;

impl<'a> Range<'a> {
    fn open(
        latch: &'a Latch,
        low: Bound<&[u8]>,
        high: Bound<&[u8]>,
        entries: impl FnOnce() -> Result<redb::Range<'a, Bytes, Bytes>, EngineError>,
    ) -> Result<Self, EngineError> {
        let entries = if crossed(low, high) { None } else { Some(latch.guard(entries)?) };
        Ok(Self { entries, latch })
    }

    fn step(&mut self, next: impl FnOnce(&mut redb::Range<'a, Bytes, Bytes>) -> Option<RawEntry<'a>>) -> Option<Entry> {
        let entries = self.entries.as_mut()?;
        let work = || match next(entries) {
            Some(entry) => entry.map(|(key, value)| Some((key.value().to_vec(), value.value().to_vec()))).map_err(EngineError::from),
            None => Ok(None),
        };
        let outcome = self.latch.guard(work);
        if !matches!(outcome, Ok(Some(_))) {
            drop_caught(self.entries.take());
        }
        outcome.transpose()
    }
}

impl Iterator for Range<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.step(Iterator::next)
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Entry> {
        self.step(DoubleEndedIterator::next_back)
    }
}

impl Drop for Range<'_> {
    fn drop(&mut self) {
        drop_caught(self.entries.take());
    }
}

/// Whether no key can lie between the bounds.
fn crossed(low: Bound<&[u8]>, high: Bound<&[u8]>) -> bool {
    match (low, high) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
    }
}

/// What was committed at one moment.
pub struct Snapshot {
    /// There until it is dropped.
    transaction: Option<ReadTransaction>,
    names: &'static [&'static str],
    /// As far as they were used: there is one snapshot a commit, and most of them read a few tables.
    tables: Vec<OnceLock<ReadOnlyTable<Bytes, Bytes>>>,
    latch: Arc<Latch>,
    head: Arc<Superblock>,
}

impl Snapshot {
    /// Keys that open all that it shows.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.head.keys)
    }

    pub(super) fn head(&self) -> &Superblock {
        &self.head
    }

    /// The table, opened at its first use. To be called under the latch's guard.
    fn table(&self, table: Table) -> Result<&ReadOnlyTable<Bytes, Bytes>, EngineError> {
        let (cell, name) = (&self.tables[usize::from(table.0)], self.names[usize::from(table.0)]);
        if let Some(table) = cell.get() {
            return Ok(table);
        }
        let opened = self.transaction.as_ref().ok_or(EngineError::Latched)?.open_table(definition(name))?;
        Ok(cell.get_or_init(|| opened))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        drop_caught((std::mem::take(&mut self.tables), self.transaction.take()));
    }
}

impl Read for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.latch.guard(|| Ok(self.table(table)?.get(key)?.map(|value| value.value().to_vec())))
    }

    fn range(&self, table: Table, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Result<Range<'_>, EngineError> {
        Range::open(&self.latch, low, high, || Ok(self.table(table)?.range::<&[u8]>((low, high))?))
    }
}

/// The open transaction. A failure or panic below latches the store, whether the work hands it on or not; [`Engine::commit`] sees it.
pub struct Batch<'t> {
    transaction: &'t WriteTransaction,
    names: &'static [&'static str],
    tables: Vec<OnceCell<redb::Table<'t, Bytes, Bytes>>>,
    latch: &'t Latch,
}

impl<'t> Batch<'t> {
    fn new(transaction: &'t WriteTransaction, names: &'static [&'static str], latch: &'t Latch) -> Self {
        Self { transaction, names, tables: names.iter().map(|_| OnceCell::new()).collect(), latch }
    }

    /// The table, opened at its first use.
    fn table(&self, table: Table) -> Result<&redb::Table<'t, Bytes, Bytes>, EngineError> {
        let index = usize::from(table.0);
        let cell = &self.tables[index];
        if let Some(table) = cell.get() {
            return Ok(table);
        }
        let opened = self.transaction.open_table(definition(self.names[index]))?;
        Ok(cell.get_or_init(|| opened))
    }

    fn table_mut(&mut self, table: Table) -> Result<&mut redb::Table<'t, Bytes, Bytes>, EngineError> {
        self.table(table)?;
        Ok(self.tables[usize::from(table.0)].get_mut().expect("it was opened a line above"))
    }

    /// Sets the value under `key`.
    ///
    /// Errors: `TooLarge`; else a failure below, to be handed on.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.table_mut(table)?.insert(key, value)?;
        Ok(())
    }

    /// Removes `key`; whether it was there.
    ///
    /// Errors: a failure below, to be handed on.
    pub fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, EngineError> {
        Ok(self.table_mut(table)?.remove(key)?.is_some())
    }
}

impl Read for Batch<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.latch.guard(|| Ok(self.table(table)?.get(key)?.map(|value| value.value().to_vec())))
    }

    fn range(&self, table: Table, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Result<Range<'_>, EngineError> {
        Range::open(self.latch, low, high, || Ok(self.table(table)?.range::<&[u8]>((low, high))?))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::{hex, rng};

    pub const TABLES: &[&str] = &["a", "b"];
    pub const A: Table = Table(0);
    pub const B: Table = Table(1);

    pub fn options() -> Options {
        Options { cache_bytes: 1 << 20, stride: 4608, tables: TABLES, kdf: KdfCost::FLOOR }
    }

    pub fn kek() -> Kek {
        Kek::for_test(&[7; 32])
    }

    /// A path of its own, removed with its neighbours when dropped.
    pub struct Folder(PathBuf);

    impl Folder {
        pub fn new() -> Self {
            let path = std::env::temp_dir().join(format!("rosemary-engine-{}", hex::encode(&rng::array::<8>())));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        pub fn file(&self) -> PathBuf {
            self.0.join("data")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn put(engine: &Engine, key: &[u8], value: &[u8]) {
        engine.commit(|batch| batch.put(A, key, value)).unwrap();
    }

    #[test]
    fn a_batch_is_seen_whole_by_later_snapshots_and_after_reopening() {
        let folder = Folder::new();
        let engine = Engine::create(&folder.file(), &options(), &kek()).unwrap();
        let before = engine.snapshot().unwrap();
        let found = engine
            .commit(|batch| {
                batch.put(A, b"k1", b"v1")?;
                batch.put(A, b"k2", &vec![9; 100_000])?;
                batch.put(B, b"k1", b"other")?;
                assert!(batch.delete(B, b"k1")? && !batch.delete(B, b"k1")?);
                batch.get(A, b"k1")
            })
            .unwrap();
        assert_eq!(found.as_deref(), Some(&b"v1"[..]));
        assert_eq!(before.get(A, b"k1").unwrap(), None);
        drop(before);
        engine.close().unwrap();
        let engine = Engine::open(&folder.file(), &options(), &kek()).unwrap();
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(snapshot.get(A, b"k2").unwrap().unwrap(), vec![9; 100_000]);
        assert_eq!(snapshot.get(B, b"k1").unwrap(), None);
    }

    #[test]
    fn a_range_runs_from_either_end_and_crossed_bounds_give_none() {
        let folder = Folder::new();
        let engine = Engine::create(&folder.file(), &options(), &kek()).unwrap();
        engine.commit(|batch| (0..100u8).try_for_each(|i| batch.put(A, &[i], &[i]))).unwrap();
        let snapshot = engine.snapshot().unwrap();
        let keys = |low, high| snapshot.range(A, low, high).unwrap().map(|entry| entry.unwrap().0[0]).collect::<Vec<_>>();
        assert_eq!(keys(Bound::Excluded(&[3]), Bound::Included(&[6])), [4, 5, 6]);
        assert_eq!(keys(Bound::Included(&[6]), Bound::Included(&[3])), [0u8; 0]);
        assert_eq!(keys(Bound::Excluded(&[3]), Bound::Excluded(&[3])), [0u8; 0]);
        assert_eq!(keys(Bound::Unbounded, Bound::Unbounded).len(), 100);
        let last: Vec<u8> = snapshot.range(A, Bound::Unbounded, Bound::Unbounded).unwrap().rev().take(2).map(|e| e.unwrap().0[0]).collect();
        assert_eq!(last, [99, 98]);
    }

    #[test]
    fn refused_work_leaves_nothing_and_the_store_stays_open() {
        let folder = Folder::new();
        let engine = Engine::create(&folder.file(), &options(), &kek()).unwrap();
        let outcome = engine.commit(|batch| {
            batch.put(A, b"k", b"v")?;
            Err::<(), _>(EngineError::TooLarge(7))
        });
        assert!(matches!(outcome, Err(CommitError::Refused(EngineError::TooLarge(7)))));
        assert_eq!(engine.snapshot().unwrap().get(A, b"k").unwrap(), None);
        put(&engine, b"k", b"w");
        assert_eq!(engine.snapshot().unwrap().get(A, b"k").unwrap().unwrap(), b"w");
    }

    #[test]
    fn a_panic_inside_a_commit_latches_until_recovery_and_loses_nothing() {
        let folder = Folder::new();
        let engine = Engine::create(&folder.file(), &options(), &kek()).unwrap();
        put(&engine, b"k", b"v");
        let old = engine.snapshot().unwrap();
        let outcome = engine.commit(|batch| {
            batch.put(A, b"k", b"w")?;
            if batch.get(A, b"k")?.is_some() {
                panic!("on purpose");
            }
            Ok(())
        });
        assert!(matches!(outcome, Err(CommitError::Refused(EngineError::Panicked))));
        assert!(engine.is_latched());
        assert!(matches!(engine.snapshot(), Err(EngineError::Latched)));
        assert!(matches!(old.get(A, b"k"), Err(EngineError::Latched)));
        engine.recover().unwrap();
        assert_eq!(engine.snapshot().unwrap().get(A, b"k").unwrap().unwrap(), b"v");
        assert!(matches!(old.get(A, b"k"), Err(EngineError::Latched)), "an old snapshot stays shut");
        assert!(!engine.is_latched(), "and shuts nothing else");
        put(&engine, b"k", b"x");
    }

    #[test]
    fn existing_missing_locked_and_foreign_files_are_told_apart() {
        let folder = Folder::new();
        let path = folder.file();
        assert!(matches!(Engine::open(&path, &options(), &kek()), Err(EngineError::Missing(_))));
        std::fs::write(&path, b"something else").unwrap();
        assert!(matches!(Engine::create(&path, &options(), &kek()), Err(EngineError::Exists(_))));
        assert!(matches!(Engine::open(&path, &options(), &kek()), Err(EngineError::NotRosemary)));
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
        std::fs::remove_file(&path).unwrap();
        let engine = Engine::create(&path, &options(), &kek()).unwrap();
        assert!(matches!(Engine::open(&path, &options(), &kek()), Err(EngineError::Locked(_))));
        drop(engine);
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(Engine::open(&path, &options(), &Kek::for_test(&[8; 32])), Err(EngineError::Keys(_))));
        assert_eq!(std::fs::read(&path).unwrap(), before, "a file that does not open is not changed");
        assert!(Engine::open(&path, &options(), &kek()).is_ok());
    }

    #[test]
    fn what_a_crash_left_beside_is_replaced_and_what_another_process_makes_is_not() {
        let folder = Folder::new();
        let stale = beside(&folder.file());
        std::fs::write(&stale, b"half a file").unwrap();
        let held = DiskFile::open(&stale).unwrap();
        assert!(matches!(Engine::create(&folder.file(), &options(), &kek()), Err(EngineError::Locked(_))));
        drop(held);
        drop(Engine::create(&folder.file(), &options(), &kek()).unwrap());
        assert!(!stale.exists());
        let nowhere = folder.file().with_file_name("no-folder").join("data");
        assert!(matches!(Engine::create(&nowhere, &options(), &kek()), Err(EngineError::Uncreatable { .. })));
        assert!(matches!(Engine::open(folder.file().parent().unwrap(), &options(), &kek()), Err(EngineError::Unopenable { .. })));
    }

    #[test]
    fn an_inspected_file_is_never_changed() {
        let folder = Folder::new();
        let engine = Engine::create(&folder.file(), &options(), &kek()).unwrap();
        put(&engine, b"k", b"v");
        drop(engine);
        let before = std::fs::read(folder.file()).unwrap();
        let engine = Engine::inspect(&folder.file(), &options(), &kek()).unwrap();
        put(&engine, b"k", &vec![1; 2_000_000]);
        assert_eq!(engine.snapshot().unwrap().get(A, b"k").unwrap().unwrap().len(), 2_000_000);
        engine.close().unwrap();
        assert_eq!(std::fs::read(folder.file()).unwrap(), before);
    }

    #[test]
    fn a_copy_holds_the_same_rows_under_its_own_file_id_and_both_files_are_spotless() {
        let folder = Folder::new();
        let engine = Engine::create(&folder.file(), &options(), &kek()).unwrap();
        engine.commit(|batch| (0..25_000u32).try_for_each(|i| batch.put(B, &i.to_be_bytes(), b"row"))).unwrap();
        let copy = folder.file().with_extension("copy");
        let file = engine.copy_to(&copy).unwrap();
        assert_ne!(file, engine.file());
        assert!(matches!(engine.copy_to(&copy), Err(EngineError::Exists(_))));
        let (instance, public) = (engine.instance(), engine.keys().signing().public());
        engine.close().unwrap();
        let bytes = [&copy, &folder.file()].map(|path| std::fs::read(path).unwrap());
        for path in [&copy, &folder.file()] {
            let (report, engine) = Engine::check(path, &options(), &kek()).unwrap();
            assert!(report.is_spotless(), "{report:?}");
            let engine = engine.unwrap();
            assert_eq!((engine.instance(), engine.keys().signing().public()), (instance, public));
            let snapshot = engine.snapshot().unwrap();
            let rows = snapshot.range(B, Bound::Unbounded, Bound::Unbounded).unwrap().map(Result::unwrap);
            assert!(rows.eq((0..25_000u32).map(|i| (i.to_be_bytes().to_vec(), b"row".to_vec()))));
        }
        assert_eq!(bytes, [&copy, &folder.file()].map(|path| std::fs::read(path).unwrap()), "a check changes nothing");
    }

    #[test]
    fn a_file_with_tables_of_a_later_version_is_not_opened() {
        let folder = Folder::new();
        Engine::create(&folder.file(), &options(), &kek()).unwrap().close().unwrap();
        let fewer = Options { tables: &TABLES[..1], ..options() };
        assert!(matches!(Engine::open(&folder.file(), &fewer, &kek()), Err(EngineError::UnknownTable)));
    }

    /// Needs a small disk of its own (a tmpfs of 100 MiB will do) named by `ROSEMARY_SMALL_DISK`.
    #[test]
    fn on_a_full_disk_the_reserve_carries_on_and_space_returns() {
        let Some(small) = std::env::var_os("ROSEMARY_SMALL_DISK") else {
            println!("skipped: ROSEMARY_SMALL_DISK is not set");
            return;
        };
        let small = PathBuf::from(small);
        let (path, ballast) = (small.join("data"), small.join("ballast"));
        let engine = Engine::create(&path, &options(), &kek()).unwrap();
        assert_eq!(engine.space(), Space::Ample);
        // Something else takes the rest of the disk; what is reserved still takes commits.
        let mut other = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut other, &[1; 1 << 20]).is_ok() {}
        let mut written = 0u64;
        let (mut no_writes, mut no_reads) = (None, None);
        let last = loop {
            let outcome = engine.commit(|batch| batch.put(A, &written.to_be_bytes(), &[7; 400_000]));
            match engine.space() {
                Space::NoWrites => no_writes = no_writes.or(Some(written)),
                Space::NoReads => no_reads = no_reads.or(Some(written)),
                Space::Ample => {}
            }
            match outcome {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        println!("full disk: {written} commits of 400 kB; no writes from {no_writes:?}, no reads from {no_reads:?}; then: {last}");
        assert!(written > 100 && no_writes < no_reads);
        drop(other);
        std::fs::remove_file(&ballast).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        engine.recover().unwrap();
        let snapshot = engine.snapshot().unwrap();
        let rows = snapshot.range(A, Bound::Unbounded, Bound::Unbounded).unwrap().map(Result::unwrap).count() as u64;
        assert!(rows == written || rows == written + 1, "no acknowledged commit is lost");
        drop(snapshot);
        put(&engine, b"more", b"room");
        engine.close().unwrap();
        assert!(Engine::check(&path, &options(), &kek()).unwrap().0.is_sound());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_snapshot_is_shared_among_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Snapshot>();
        shared::<Engine>();
    }
}
