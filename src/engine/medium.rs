//! What the sealed file lies on: a real file, or for checks an overlay that never writes it.
//!
//! Promise of [`DiskFile`]: one process at a time (whole-file lock, taken before the first byte is read), positioned reads and writes that
//! are whole or an error, and a reserve of disk space behind the end of the file. When the disk is full, a write takes its space from the
//! reserve, so that audit entries and erasure go on after ordinary writes were refused.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Advice, CWD, FallocateFlags, Mode, OFlags};

use crate::base::limits::{RESERVE_BYTES, RESERVE_RETRY_MS, RESERVE_STEP_BYTES, RESERVE_WRITE_BYTES};
use crate::base::time::Clock;

/// Bytes by position. Every call may come from any thread.
#[allow(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait Medium: Debug + Send + Sync + 'static {
    /// Bytes there are.
    fn len(&self) -> io::Result<u64>;
    /// Fills `out` from `at`; `UnexpectedEof` if there are fewer bytes.
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `at`.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// After Ok, all earlier writes survive a power cut.
    fn sync(&self) -> io::Result<()>;
    /// Forgets what is cached, so that the next read shows what the medium holds.
    fn forget(&self) -> io::Result<()> {
        Ok(())
    }
    /// Bytes that can surely still be written: what is reserved, topped up first if it is little (at most once a second).
    fn reserve(&self) -> u64 {
        u64::MAX
    }
}

/// The data file, locked.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    /// Bytes held behind the end; where the file system cannot hold any, what was free when last asked.
    held: AtomicU64,
    /// Taken by whatever changes the file's length or the reserve behind it: to give space back, the file is cut to its own length, which
    /// must not change meanwhile.
    reserve: Mutex<Reserve>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Reserve {
    end: u64,
    /// When topping up was last tried (ms): a full disk is not asked at every request.
    tried: Option<u64>,
}

/// Why the data file cannot be had.
#[derive(Debug)]
pub enum TakeError {
    /// Another process has it.
    Locked,
    /// The system's word.
    Io(io::Error),
}

impl From<io::Error> for TakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl DiskFile {
    /// Makes a new file (mode 0600) and locks it.
    pub fn create(path: &Path) -> Result<Self, TakeError> {
        Self::take(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?)
    }

    /// Opens and locks a file.
    pub fn open(path: &Path) -> Result<Self, TakeError> {
        Self::take(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Opens and locks a file that is only read.
    pub fn open_to_read(path: &Path) -> Result<Self, TakeError> {
        Self::take(File::open(path)?)
    }

    /// Makes a file (mode 0600) in `folder` that has no name: it is gone when it is closed, whatever ends the process.
    pub fn nameless(folder: &Path) -> Result<Self, TakeError> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let made = rustix::fs::openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?;
        Self::take(made.into())
    }

    fn take(file: File) -> Result<Self, TakeError> {
        match file.try_lock() {
            Ok(()) => Ok(Self { file, held: AtomicU64::new(0), reserve: Mutex::default(), clock: Clock::system() }),
            Err(TryLockError::WouldBlock) => Err(TakeError::Locked),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    fn reserve_lock(&self) -> MutexGuard<'_, Reserve> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves up to `wanted` bytes behind the end, in steps down to what the disk gives. The file's length does not change.
    fn hold(&self, reserve: &mut Reserve, mut wanted: u64) -> io::Result<()> {
        let len = self.len()?;
        while wanted > 0 {
            match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, len, wanted) {
                Ok(()) => break,
                Err(rustix::io::Errno::NOSPC) => {
                    // A refused reservation may have taken part of the space: give it back before asking for less.
                    self.file.set_len(len)?;
                    wanted = wanted.saturating_sub(RESERVE_STEP_BYTES);
                }
                Err(error) => return Err(error.into()),
            }
        }
        reserve.end = len + wanted;
        self.held.store(wanted, Ordering::Release);
        Ok(())
    }

    /// Gives one step of the reserve back to the disk; false if there is none left.
    fn spend(&self) -> io::Result<bool> {
        let mut reserve = self.reserve_lock();
        let len = self.len()?;
        let held = reserve.end.saturating_sub(len);
        if held == 0 {
            return Ok(false);
        }
        self.file.set_len(len)?;
        self.hold(&mut reserve, held.saturating_sub(RESERVE_STEP_BYTES))?;
        Ok(true)
    }
}

impl Medium for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, at)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.file.write_all_at(bytes, at) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull && self.spend()? => {}
                done => return done,
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut reserve = self.reserve_lock();
        let shorter = len < self.len()?;
        self.file.set_len(len)?;
        // Cutting gives back what was held behind the old end; growing moves into it.
        reserve.end = if shorter { len } else { reserve.end.max(len) };
        self.held.store(reserve.end - len, Ordering::Release);
        reserve.tried = None;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn forget(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }

    fn reserve(&self) -> u64 {
        let ample = |held| held > RESERVE_BYTES - RESERVE_STEP_BYTES;
        let held = self.held.load(Ordering::Acquire);
        if ample(held) {
            return held;
        }
        // While another thread tops up, or the file has just grown into its reserve, little left does not mean a full disk: wait and see.
        let mut reserve = match self.reserve.try_lock() {
            Ok(reserve) => reserve,
            Err(_) if held >= RESERVE_WRITE_BYTES => return held,
            Err(_) => self.reserve_lock(),
        };
        let held = self.held.load(Ordering::Acquire);
        if ample(held) {
            return held;
        }
        let now = self.clock.mono_ms();
        if reserve.tried.is_some_and(|tried| now < tried + RESERVE_RETRY_MS) {
            return held;
        }
        reserve.tried = Some(now);
        if self.hold(&mut reserve, RESERVE_BYTES).is_err() {
            // A file system that cannot reserve: what is free now is the best answer there is.
            let free = rustix::fs::fstatvfs(&self.file).map_or(0, |free| free.f_bavail.saturating_mul(free.f_frsize));
            self.held.store(free, Ordering::Release);
        }
        self.held.load(Ordering::Acquire)
    }
}

const SECTOR_BYTES: usize = 512;

/// Shows a medium with changes on top that never reach it: lets a check open, recover and walk a file without touching the evidence.
#[derive(Debug)]
pub struct Overlay {
    below: Arc<dyn Medium>,
    above: Mutex<Above>,
}

#[derive(Debug)]
struct Above {
    len: u64,
    /// The medium's own bytes count only below this length (they were cut off above it).
    kept: u64,
    sectors: BTreeMap<u64, [u8; SECTOR_BYTES]>,
}

impl Overlay {
    /// Nothing changed yet.
    pub fn new(below: Arc<dyn Medium>) -> io::Result<Self> {
        let len = below.len()?;
        Ok(Self { below, above: Mutex::new(Above { len, kept: len, sectors: BTreeMap::new() }) })
    }

    fn lock(&self) -> MutexGuard<'_, Above> {
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_sector(&self, above: &Above, sector: u64) -> io::Result<[u8; SECTOR_BYTES]> {
        if let Some(bytes) = above.sectors.get(&sector) {
            return Ok(*bytes);
        }
        let mut bytes = [0; SECTOR_BYTES];
        let at = sector * SECTOR_BYTES as u64;
        let there = usize::try_from(above.kept.saturating_sub(at).min(SECTOR_BYTES as u64)).expect("at most a sector");
        if there > 0 {
            self.below.read_at(at, &mut bytes[..there])?;
        }
        Ok(bytes)
    }
}

/// The sectors that `len` bytes at `at` touch: (sector, range within it, range within the bytes).
fn sectors(at: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let size = SECTOR_BYTES as u64;
    let end = at + len as u64;
    (at / size..end.div_ceil(size)).map(move |sector| {
        let (from, to) = (at.max(sector * size), end.min((sector + 1) * size));
        let small = |value: u64| usize::try_from(value).expect("within the buffer");
        (sector, small(from - sector * size)..small(to - sector * size), small(from - at)..small(to - at))
    })
}

impl Medium for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let above = self.lock();
        if at + out.len() as u64 > above.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let kept = usize::try_from(above.kept.saturating_sub(at)).unwrap_or(usize::MAX).min(out.len());
        let (there, cut) = out.split_at_mut(kept);
        if !there.is_empty() {
            self.below.read_at(at, there)?;
        }
        cut.fill(0);
        for (sector, inside, outside) in sectors(at, out.len()) {
            if let Some(bytes) = above.sectors.get(&sector) {
                out[outside].copy_from_slice(&bytes[inside]);
            }
        }
        Ok(())
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut above = self.lock();
        for (sector, inside, outside) in sectors(at, bytes.len()) {
            let mut whole = self.read_sector(&above, sector)?;
            whole[inside].copy_from_slice(&bytes[outside]);
            above.sectors.insert(sector, whole);
        }
        above.len = above.len.max(at + bytes.len() as u64);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut above = self.lock();
        if len < above.len {
            let cut = len.div_ceil(SECTOR_BYTES as u64);
            above.sectors.split_off(&cut);
            if let (Some(last), Ok(rest)) =
                (above.sectors.get_mut(&(len / SECTOR_BYTES as u64)), usize::try_from(len % SECTOR_BYTES as u64))
            {
                last[rest..].fill(0);
            }
            above.kept = above.kept.min(len);
        }
        above.len = len;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::batch::tests::Folder;

    /// Requests were refused as if the disk were full (507) whenever redb grew the file beyond what was held while others were asking.
    #[test]
    fn a_growing_file_is_not_a_full_disk() {
        let folder = Folder::new();
        let file = DiskFile::create(&folder.file()).unwrap();
        assert!(file.reserve() >= RESERVE_WRITE_BYTES);
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| (0..2000).for_each(|_| assert!(file.reserve() >= RESERVE_WRITE_BYTES)));
            }
            for length in 1..=20 {
                file.set_len(length * 2 * RESERVE_BYTES).unwrap();
                std::thread::yield_now();
            }
        });
    }
}
