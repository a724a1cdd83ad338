//! A view of the file as it was at one commit, while writing goes on.
//!
//! ```text
//! engine ─ writes ─▶ Live ─────────────────▶ the file
//!                     │ a block's first change: its old bytes first      ▲
//!                     ▼                                                  │ what has not changed
//!                   kept (a file without a name) ◀─ what has changed ─ View ◀─ another engine
//! ```
//!
//! A read transaction held for as long as a copy takes would keep every page that is given up meanwhile: the file would grow by as much as is
//! written, and each commit would have more to say about free pages. So the copy reads another engine, over the bytes as they were.
//!
//! Invariants
//! - What a view shows are the bytes at the moment of freezing, or an error that says why it cannot: never a later block.
//! - Writing waits for no reader of a view, and never fails because of one: what cannot be kept spoils the view alone. It is kept on the disk of
//!   the data file, so that no slower one holds writing up.
//! - Sealed bytes alone are kept, at most once a block, in a file without a name: it is gone with the view or the process.
//! - A sync that failed fails every later one, whichever thread asks, until all is read from the medium again.
//! - While there is a view, nothing of the file is cut off; what was to be is when it goes.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::base::durable;
use crate::engine::batch::{Open, Opening, create_beside};
use crate::engine::header::{BLOCKS_START, STRIDES};
use crate::engine::medium::{DiskFile, Medium, Overlay};
use crate::engine::{Engine, EngineError, Options};

const STRIDE_MAX: usize = if STRIDES[0] > STRIDES[1] { STRIDES[0] as usize } else { STRIDES[1] as usize };
const HEAD_BYTES: usize = BLOCKS_START as usize;

/// What a block was could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("what changed could not be kept ({0})")]
pub struct SpoiltError(pub io::ErrorKind);

impl From<SpoiltError> for io::Error {
    fn from(error: SpoiltError) -> Self {
        io::Error::other(error)
    }
}

/// What an engine reads and writes through.
#[derive(Debug)]
pub struct Live {
    below: Arc<dyn Medium>,
    /// Held by whatever writes, from asking for a view to the end of the write: there is no write that began before a freezing and ends after it.
    state: Mutex<State>,
    /// One sync at a time; whether one has failed. The system tells a failed sync once, to whichever thread asks first, and takes what it could not
    /// write for written: whoever syncs after that must not be told that all is well.
    syncing: Mutex<bool>,
}

#[derive(Debug, Default)]
struct State {
    past: Option<Arc<Past>>,
    /// The length that was asked for, if the file below is longer because of a view.
    cut: Option<u64>,
}

impl Live {
    pub fn new(below: Arc<dyn Medium>) -> Arc<Self> {
        Arc::new(Self { below, state: Mutex::default(), syncing: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn syncing(&self) -> MutexGuard<'_, bool> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the file as it is now, until the view is dropped; what changes is kept in `kept`, which must be empty. `None` if there is a view.
    fn freeze(self: &Arc<Self>, kept: Arc<dyn Medium>, stride: u32) -> io::Result<Option<View>> {
        let mut state = self.state();
        if state.past.is_some() {
            return Ok(None);
        }
        let len = self.below.len()?;
        let mut head = vec![0; HEAD_BYTES];
        self.below.read_at(0, &mut head)?;
        let stride = u64::from(stride);
        let words = (len - BLOCKS_START).div_ceil(stride).div_ceil(64);
        let changed = (0..words).map(|_| AtomicU64::default()).collect();
        let past = Arc::new(Past { len, head, stride, changed, kept, spoilt: OnceLock::new() });
        state.past = Some(Arc::clone(&past));
        Ok(Some(View { live: Arc::clone(self), past }))
    }

    fn thaw(&self) {
        let mut state = self.state();
        state.past = None;
        // Should it fail, the next change of the length is another attempt; what lies behind the length is nobody's.
        if state.cut.is_some_and(|len| self.below.set_len(len).is_ok()) {
            state.cut = None;
        }
    }
}

impl Medium for Live {
    fn len(&self) -> io::Result<u64> {
        self.state().cut.map_or_else(|| self.below.len(), Ok)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.below.read_at(at, out)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let state = self.state();
        if let Some(past) = &state.past {
            past.keep(&*self.below, at, bytes.len() as u64);
        }
        self.below.write_at(at, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.past.is_some() && len < self.below.len()? {
            // Grown again, it may show old blocks where zeros are due, as after a crash before the cut: redb reads nothing that it has not written.
            state.cut = Some(len);
            return Ok(());
        }
        self.below.set_len(len)?;
        state.cut = None;
        Ok(())
    }

    /// INVARIANT: once it has failed, for whichever thread, it fails until [`Medium::forget`] is Ok.
    fn sync(&self) -> io::Result<()> {
        let mut failed = self.syncing();
        if *failed {
            return Err(io::Error::other("an earlier sync failed"));
        }
        self.below.sync().inspect_err(|_| *failed = true)
    }

    /// What the system still holds as unwritten reaches the medium first: else a later look would differ.
    fn forget(&self) -> io::Result<()> {
        let mut failed = self.syncing();
        *failed = true;
        self.below.sync().and_then(|()| self.below.forget())?;
        *failed = false;
        Ok(())
    }

    fn reserve(&self) -> u64 {
        self.below.reserve()
    }
}

/// What the file was.
#[derive(Debug)]
struct Past {
    len: u64,
    /// Superblock and page 0, which are written again and again.
    head: Vec<u8>,
    stride: u64,
    /// A bit for each block that is in `kept` because it is another one below, or would be.
    changed: Box<[AtomicU64]>,
    kept: Arc<dyn Medium>,
    /// Why a block that changed is not in `kept`.
    spoilt: OnceLock<io::ErrorKind>,
}

impl Past {
    fn bit(&self, block: u64) -> (&AtomicU64, u64) {
        (&self.changed[usize::try_from(block / 64).expect("the bits are in memory")], 1 << (block % 64))
    }

    /// The blocks, counted from 0, that `len` bytes at `at` touch.
    fn blocks(&self, at: u64, len: u64) -> std::ops::Range<u64> {
        let from = |at: u64| at.min(self.len).saturating_sub(BLOCKS_START);
        from(at) / self.stride..from(at + len).div_ceil(self.stride)
    }

    /// Keeps what is about to be written over. By one writer at a time.
    fn keep(&self, below: &dyn Medium, at: u64, len: u64) {
        for block in self.blocks(at, len) {
            let (word, bit) = self.bit(block);
            if word.load(Ordering::Acquire) & bit != 0 {
                continue;
            }
            if self.spoilt.get().is_none()
                && let Err(error) = self.copy(below, block)
            {
                let _ = self.spoilt.set(error.kind());
                // Whoever still writes may need the room.
                let _ = self.kept.set_len(0);
            }
            // Also where nothing was kept: then whoever sees the bit sees that.
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    fn copy(&self, below: &dyn Medium, block: u64) -> io::Result<()> {
        let at = BLOCKS_START + block * self.stride;
        let len = usize::try_from(self.stride.min(self.len - at)).expect("a stride is small");
        let mut bytes = [0; STRIDE_MAX];
        below.read_at(at, &mut bytes[..len])?;
        self.kept.write_at(at, &bytes[..len])
    }

    /// Whether the file's own block may be another one by now.
    ///
    /// INVARIANT: asked after the block was read. Reader and writer change the same word: if the reader does so first, its reading was over
    /// before the write began; if the writer does, the reader sees the bit, and what was kept, and whether it was.
    fn has_changed(&self, block: u64) -> bool {
        let (word, bit) = self.bit(block);
        word.fetch_or(0, Ordering::AcqRel) & bit != 0
    }

    fn sound(&self) -> io::Result<()> {
        self.spoilt.get().map_or(Ok(()), |kind| Err(SpoiltError(*kind).into()))
    }
}

/// The file as it was. Ends the keeping when dropped.
#[derive(Debug)]
struct View {
    live: Arc<Live>,
    past: Arc<Past>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.live.thaw();
    }
}

impl Medium for View {
    fn len(&self) -> io::Result<u64> {
        Ok(self.past.len)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let (past, end) = (&*self.past, at + out.len() as u64);
        if end > past.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        past.sound()?;
        let small = |value: u64| usize::try_from(value).expect("within the buffer or the head");
        let (head, rest) = out.split_at_mut(small(end.min(BLOCKS_START).saturating_sub(at)));
        head.copy_from_slice(&past.head[small(at.min(BLOCKS_START))..][..head.len()]);
        let at = at + head.len() as u64;
        self.live.below.read_at(at, rest)?;
        for block in past.blocks(at, rest.len() as u64).filter(|block| past.has_changed(*block)) {
            past.sound()?;
            let start = BLOCKS_START + block * past.stride;
            let (from, to) = (at.max(start), end.min(start + past.stride));
            let old = past.kept.read_at(from, &mut rest[small(from - at)..small(to - at)]);
            old.map_err(|error| SpoiltError(*past.spoilt.get().unwrap_or(&error.kind())))?;
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Engine {
    /// An engine of its own that shows what is committed now, unchanged by later commits, and without holding any page of this one. What
    /// changes meanwhile is kept sealed, in a file without a name beside the data file: writing waits for that disk as it is. Only for a store that
    /// is no file on disk is it beside `path`. Nothing that fails there latches this engine.
    ///
    /// Errors: `Uncreatable`; `InUse` if there is one already; `Latched` and what latches, of this engine; what keeps the other from opening.
    /// It answers `Spoilt` once something that changed could not be kept.
    pub fn freeze(&self, path: &Path, cache_bytes: usize) -> Result<Self, EngineError> {
        self.freeze_on(Arc::new(nameless(self.path.as_deref().unwrap_or(path))?), cache_bytes)
    }

    /// As [`Engine::freeze`], with what changes kept in `kept`.
    pub(super) fn freeze_on(&self, kept: Arc<dyn Medium>, cache_bytes: usize) -> Result<Self, EngineError> {
        let (head, view) = {
            let _unchanged = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
            let _first = self.freezing.lock().unwrap_or_else(PoisonError::into_inner);
            let head = self.head();
            let view = self.with(|open| {
                open.latch.guard(|| {
                    // No commit is under way while this one is: what the file holds is what it would after a crash between two commits.
                    let transaction = open.db.begin_write()?;
                    let view = self.medium.freeze(kept, head.stride).map_err(EngineError::io);
                    transaction.abort()?;
                    view?.ok_or(EngineError::InUse)
                })
            })?;
            (head, view)
        };
        let options = Options { cache_bytes, ..self.options.clone() };
        // Opening marks the file as open and closing makes a last commit, as after a crash: in memory.
        let above = Live::new(Arc::new(Overlay::new(Arc::new(view)).map_err(EngineError::io)?));
        let open = Open::new(&above, &head, &options, Opening::Trusting)?;
        Ok(Self::of(above, head, &options, open))
    }
}

/// A file without a name in the folder of `path`.
fn nameless(path: &Path) -> Result<DiskFile, EngineError> {
    if let Ok(file) = DiskFile::nameless(durable::folder_of(path)) {
        return Ok(file);
    }
    // A file system that makes none. For a moment it has the name of a file that is not whole: what a crash leaves of that is removed.
    let (beside, file) = create_beside(path)?;
    std::fs::remove_file(beside).map_err(EngineError::io)?;
    Ok(file)
}
