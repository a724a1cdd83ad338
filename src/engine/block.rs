//! Sealed blocks: the storage that redb writes to, each 4096-byte page sealed and bound to this file and to its place in it.
//!
//! Invariants
//! - Block n lies at `40960 + (n-1) * stride`; nothing but its own sealed bytes opens there.
//! - Page 0 is held in memory and reaches the medium only inside [`Blocks::sync_data`], with redb's length, in one mirrored slot pair.
//! - The medium is extended durably before a page 0 with the greater length is written, and cut only after one with the smaller length is
//!   durable; so it always covers the length that a reader believes.
//! - A block that does not open is an error. One exception: while redb opens the store *and* its two-phase bit is clear, it reads as zeros,
//!   because redb then verifies checksums itself and falls back to its other commit.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::base::id::FileId;
use crate::base::limits::{SEALING_BYTES_KEPT, STORE_BYTES_MAX};
use crate::crypto::aead::{self, OVERHEAD_BYTES};
use crate::crypto::secret::Key;
use crate::engine::header::{BLOCK_BYTES, BLOCKS_START, PageZero, place_aad};
use crate::engine::medium::Medium;

/// Sealed bytes of one block; the rest of the stride is zero.
pub const SEALED_BYTES: usize = BLOCK_BYTES + OVERHEAD_BYTES;
const AAD_BYTES: usize = 65;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// redb's flags byte within page 0.
const FLAGS_AT: usize = 9;
/// The flag that says its last commit was made in two phases.
const TWO_PHASE: u8 = 4;

/// A block that does not open where it is.
#[derive(Debug, thiserror::Error)]
#[error("block {0} does not open")]
pub struct BlockError(pub u64);

impl From<BlockError> for io::Error {
    fn from(error: BlockError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// The blocks of one file, and page 0.
pub struct Blocks {
    medium: Arc<dyn Medium>,
    file: FileId,
    key: Key,
    aad: [u8; AAD_BYTES],
    stride: u64,
    length: AtomicU64,
    page: Mutex<Page>,
    /// Where blocks are sealed before they are written.
    sealing: Mutex<Vec<u8>>,
    opening: AtomicBool,
    severed: AtomicBool,
}

struct Page {
    zero: PageZero,
    changed: bool,
    /// The medium was extended since the last sync.
    grown: bool,
    /// The medium may be longer than needed.
    cut: bool,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blocks")
    }
}

/// Where the medium must reach for a store of `length` bytes.
pub fn medium_len(length: u64, stride: u64) -> u64 {
    BLOCKS_START + (length / BLOCK).saturating_sub(1) * stride
}

/// Where block `block`, counted from 1, lies.
pub fn place(block: u64, stride: u64) -> u64 {
    BLOCKS_START + (block - 1) * stride
}

/// The associated data of block `number`, on the stack: `template` with the number in its last eight bytes.
fn numbered(template: &[u8; AAD_BYTES], number: u64) -> [u8; AAD_BYTES] {
    let mut aad = *template;
    aad[AAD_BYTES - 8..].copy_from_slice(&number.to_le_bytes());
    aad
}

impl Blocks {
    /// Blocks over `medium` with page 0 as last made durable.
    pub fn new(medium: Arc<dyn Medium>, file: FileId, key: &Key, stride: u32, zero: PageZero) -> Arc<Self> {
        let aad = place_aad("block", file, 0).bytes().try_into().expect("the fields of a block's place take 65 bytes");
        Arc::new(Self {
            medium,
            file,
            key: key.duplicate(),
            aad,
            stride: u64::from(stride),
            length: AtomicU64::new(zero.length),
            page: Mutex::new(Page { zero, changed: false, grown: false, cut: false }),
            sealing: Mutex::default(),
            opening: AtomicBool::new(true),
            severed: AtomicBool::new(false),
        })
    }

    /// Ends the time in which the exception for damaged blocks can apply.
    pub fn opened(&self) {
        self.opening.store(false, Ordering::Release);
    }

    /// From now on every call of redb fails and nothing reaches the medium: an outcome is unknown and must be read, not made.
    pub fn sever(&self) {
        self.severed.store(true, Ordering::Release);
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attached(&self) -> io::Result<()> {
        if self.severed.load(Ordering::Acquire) { Err(io::Error::other("cut off from the medium")) } else { Ok(()) }
    }

    fn trusts_checksums(&self) -> bool {
        self.opening.load(Ordering::Acquire) && self.page().zero.bytes[FLAGS_AT] & TWO_PHASE == 0
    }

    /// Opens block `number` into `out`, 4096 bytes.
    pub fn read_block(&self, number: u64, out: &mut [u8]) -> io::Result<()> {
        let mut sealed = [0; SEALED_BYTES];
        let opened = match self.medium.read_at(place(number, self.stride), &mut sealed) {
            Ok(()) => aead::open_into(&self.key, &numbered(&self.aad, number), &sealed, out).is_ok(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        match opened {
            true => Ok(()),
            false if self.trusts_checksums() => {
                out.fill(0);
                Ok(())
            }
            false => Err(BlockError(number).into()),
        }
    }

    /// Whole blocks only, and within the store.
    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.length.load(Ordering::Acquire));
        if end.is_none() || !offset.is_multiple_of(BLOCK) || !len.is_multiple_of(BLOCK_BYTES) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "outside the store"));
        }
        Ok(())
    }
}

/// What redb is given. A type of its own, so that the engine keeps the blocks when redb is closed.
#[derive(Debug)]
pub struct Backend(pub Arc<Blocks>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.attached()?;
        Ok(self.0.length.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let blocks = &self.0;
        if let Ok(from) = usize::try_from(offset)
            && from + out.len() <= BLOCK_BYTES
        {
            out.copy_from_slice(&blocks.page().zero.bytes[from..from + out.len()]);
            return Ok(());
        }
        blocks.check_range(offset, out.len())?;
        (offset / BLOCK..).zip(out.chunks_exact_mut(BLOCK_BYTES)).try_for_each(|(number, out)| blocks.read_block(number, out))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let blocks = &self.0;
        blocks.attached()?;
        if let Ok(from) = usize::try_from(offset)
            && from + data.len() <= BLOCK_BYTES
        {
            let mut page = blocks.page();
            page.zero.bytes[from..from + data.len()].copy_from_slice(data);
            page.changed = true;
            return Ok(());
        }
        blocks.check_range(offset, data.len())?;
        let stride = usize::try_from(blocks.stride).expect("a stride is 4608 or 8192");
        let length = data.len() / BLOCK_BYTES * stride;
        // Only where sealed bytes belong is anything ever written in it, so that what is between them stays zero.
        let mut out = blocks.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        if out.len() < length {
            out.resize(length, 0);
        }
        for ((number, plain), place) in (offset / BLOCK..).zip(data.chunks_exact(BLOCK_BYTES)).zip(out[..length].chunks_exact_mut(stride)) {
            aead::seal_into(&blocks.key, &numbered(&blocks.aad, number), plain, &mut place[..SEALED_BYTES]);
        }
        let written = blocks.medium.write_at(place(offset / BLOCK, blocks.stride), &out[..length]);
        if out.len() > SEALING_BYTES_KEPT {
            *out = Vec::new();
        }
        written
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let blocks = &self.0;
        blocks.attached()?;
        if !length.is_multiple_of(BLOCK) || length > STORE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a length of the store"));
        }
        let needed = medium_len(length, blocks.stride);
        let mut page = blocks.page();
        if needed > blocks.medium.len()? {
            blocks.medium.set_len(needed)?;
            page.grown = true;
        }
        page.cut = length < blocks.length.swap(length, Ordering::AcqRel);
        page.zero.length = length;
        page.changed = true;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let blocks = &self.0;
        blocks.attached()?;
        let mut page = blocks.page();
        if std::mem::take(&mut page.grown) {
            // A file system may make a slot durable before the file's new size; a page 0 must never claim more than is there.
            blocks.medium.sync()?;
        }
        if page.changed {
            page.zero.counter += 1;
            page.zero.write(&*blocks.medium, blocks.file, &blocks.key)?;
        }
        blocks.medium.sync()?;
        page.changed = false;
        if std::mem::take(&mut page.cut) {
            blocks.medium.set_len(medium_len(page.zero.length, blocks.stride))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng;
    use crate::engine::campaign::memory;

    const LENGTH: u64 = 16 * BLOCK;

    fn blocks(medium: &Arc<dyn Medium>, file: FileId, key: &Key, flags: u8) -> Backend {
        let mut zero = PageZero { length: LENGTH, ..PageZero::empty() };
        zero.bytes[FLAGS_AT] = flags;
        medium.set_len(medium_len(LENGTH, 4608)).unwrap();
        Backend(Blocks::new(Arc::clone(medium), file, key, 4608, zero))
    }

    fn read(backend: &Backend, number: u64) -> io::Result<Vec<u8>> {
        let mut out = vec![1; BLOCK_BYTES];
        backend.read(number * BLOCK, &mut out).map(|()| out)
    }

    #[test]
    fn a_block_opens_in_its_own_place_and_file_alone() {
        let (medium, key, file) = (memory(), Key::random(), FileId::draw());
        let backend = blocks(&medium, file, &key, TWO_PHASE);
        let plain = rng::array::<{ 2 * BLOCK_BYTES }>();
        backend.write(3 * BLOCK, &plain).unwrap();
        assert_eq!(read(&backend, 3).unwrap(), plain[..BLOCK_BYTES]);
        assert_eq!(read(&backend, 4).unwrap(), plain[BLOCK_BYTES..]);
        let mut sealed = vec![0; SEALED_BYTES];
        medium.read_at(place(3, 4608), &mut sealed).unwrap();
        medium.write_at(place(5, 4608), &sealed).unwrap();
        assert!(read(&backend, 5).is_err(), "moved");
        assert!(read(&backend, 7).is_err(), "never written");
        assert!(read(&blocks(&medium, FileId::draw(), &key, TWO_PHASE), 3).is_err(), "another file's id");
        assert!(read(&blocks(&medium, file, &Key::random(), TWO_PHASE), 3).is_err(), "another file's key");
        assert!(backend.read(15 * BLOCK, &mut vec![0; 2 * BLOCK_BYTES]).is_err(), "past the end");
        assert!(backend.write(BLOCK + 1, &plain).is_err(), "not a whole block");
    }

    #[test]
    fn damage_reads_as_zeros_only_while_opening_and_only_without_the_two_phase_flag() {
        let (medium, key, file) = (memory(), Key::random(), FileId::draw());
        assert!(read(&blocks(&medium, file, &key, TWO_PHASE), 3).is_err());
        let backend = blocks(&medium, file, &key, 0);
        assert_eq!(read(&backend, 3).unwrap(), vec![0; BLOCK_BYTES]);
        backend.0.opened();
        assert!(read(&backend, 3).is_err());
    }

    #[test]
    fn page_zero_reaches_the_medium_at_a_sync_in_alternating_pairs() {
        let (medium, key, file) = (memory(), Key::random(), FileId::draw());
        let backend = blocks(&medium, file, &key, TWO_PHASE);
        for counter in 1..5u64 {
            backend.write(0, &[u8::try_from(counter).unwrap(); 320]).unwrap();
            let before = PageZero::read(&*medium, file, &key).map(|page| page.counter).unwrap_or(0);
            assert_eq!(before, counter - 1, "not before the sync");
            backend.sync_data().unwrap();
            backend.sync_data().unwrap();
            let page = PageZero::read(&*medium, file, &key).unwrap();
            assert_eq!((page.counter, page.length, page.bytes[319]), (counter, LENGTH, u8::try_from(counter).unwrap()));
        }
    }

    #[test]
    fn the_medium_is_cut_only_after_the_smaller_length_is_synced() {
        let (medium, key, file) = (memory(), Key::random(), FileId::draw());
        let backend = blocks(&medium, file, &key, TWO_PHASE);
        let full = medium.len().unwrap();
        backend.set_len(8 * BLOCK).unwrap();
        assert_eq!(medium.len().unwrap(), full);
        backend.sync_data().unwrap();
        assert_eq!(medium.len().unwrap(), medium_len(8 * BLOCK, 4608));
        assert!(backend.set_len(STORE_BYTES_MAX + BLOCK).is_err() && backend.set_len(5).is_err());
    }

    /// The power-cut campaign found this one (1 point in about 4,000): length and page 0 went out in one sync, a cut left the slot with the
    /// greater length and the file at its old size, and the next opening took it for a file that someone had cut.
    #[test]
    fn a_greater_length_is_durable_before_page_zero_claims_it() {
        use crate::engine::campaign::disk::{Op, Tape};
        let tape = Arc::new(Tape::recording(Vec::new()));
        let medium: Arc<dyn Medium> = Arc::clone(&tape) as Arc<dyn Medium>;
        let backend = blocks(&medium, FileId::draw(), &Key::random(), TWO_PHASE);
        let before = tape.count();
        backend.set_len(2 * LENGTH).unwrap();
        backend.sync_data().unwrap();
        let kinds: Vec<char> = tape.ops()[before..]
            .iter()
            .map(|op| match op {
                Op::Write(..) => 'w',
                Op::SetLen(_) => 'l',
                Op::Sync => 's',
            })
            .collect();
        assert_eq!(kinds, ['l', 's', 'w', 'w', 's']);
    }

    #[test]
    fn nothing_reaches_the_medium_once_it_is_cut_off() {
        let (medium, key, file) = (memory(), Key::random(), FileId::draw());
        let backend = blocks(&medium, file, &key, TWO_PHASE);
        backend.0.sever();
        assert!(backend.write(BLOCK, &[0; BLOCK_BYTES]).is_err() && backend.sync_data().is_err() && backend.set_len(BLOCK).is_err());
    }
}
