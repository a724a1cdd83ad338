//! Stored bytes: blocks and page-0 slots, superblocks, rows.
//!
//! Without the keys an attacker can move, replace and cut sealed bytes; with an authentic file in hand also bring back older ones. A read
//! then gives what was once written in that very place, or an error. What a holder of the keys could seal must still never panic a reader.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};

use rosemary::base::id::{FileId, InstanceId};
use rosemary::crypto::aead::{self, Aad};
use rosemary::crypto::hash::{hmac_sha256, sha256};
use rosemary::crypto::ladder::{BODY_BYTES, KeySlot, Keys, SLOT_BYTES};
use rosemary::crypto::secret::Key;
use rosemary::crypto::unlock::{KdfCost, Kek};
use rosemary::engine::stored::{
    BLOCK_BYTES, Blocks, Medium, PageZero, SEALED_BYTES, STRIDES, SUPERBLOCK_BYTES, SUPERBLOCK_STARTS, Superblock, place, place_aad,
};
use rosemary::store::tables::readable_as;

/// A file in memory.
struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(bytes)))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("no panic under this lock").clone()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

fn span(at: u64, len: usize, bytes: &[u8]) -> Option<Range<usize>> {
    let at = usize::try_from(at).ok()?;
    let end = at.checked_add(len)?;
    (end <= bytes.len()).then_some(at..end)
}

impl Medium for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().expect("no panic under this lock");
        let span = span(at, out.len(), &bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(&bytes[span]);
        Ok(())
    }

    fn write_at(&self, at: u64, new: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock().expect("no panic under this lock");
        let end = usize::try_from(at).expect("a small file") + new.len();
        let length = bytes.len().max(end);
        bytes.resize(length, 0);
        bytes[end - new.len()..end].copy_from_slice(new);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().expect("no panic under this lock").resize(usize::try_from(len).expect("a small file"), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Applies `script` to `bytes`: eight bytes an edit, at most 64 of them. `donors` are other authentic files that parts may be taken from.
fn edit(bytes: &mut Vec<u8>, donors: &[Vec<u8>], grain: usize, script: &[u8]) {
    for step in script.chunks_exact(8).take(64) {
        let number = |at: usize| usize::from(step[at]) | usize::from(step[at + 1]) << 8 | usize::from(step[at + 2]) << 16;
        let (at, other) = (number(1) % (bytes.len() + 1), number(4));
        let end = (at + 1 + usize::from(step[7])).min(bytes.len());
        let whole = |at: usize| at / grain * grain;
        match step[0] % 8 {
            0 if at < bytes.len() => bytes[at] = step[7],
            1 if at < bytes.len() => bytes[at] ^= 1 << (step[7] % 8),
            2 => bytes.truncate(at),
            3 => bytes.extend(std::iter::repeat_n(step[7], other % 8192)),
            4 => bytes[at..end].fill(step[4]),
            // A piece of an authentic file, into its own place or another.
            5 | 6 => {
                let donor = &donors[usize::from(step[7]) % donors.len()];
                let (from, to) = (whole(other % donor.len()), whole(at));
                let from = if step[0] % 8 == 5 { to.min(whole(donor.len() - 1)) } else { from };
                let length = grain.min(donor.len() - from).min(bytes.len().saturating_sub(to));
                bytes[to..to + length].copy_from_slice(&donor[from..from + length]);
            }
            // Two pieces of this file change places.
            _ => {
                let (a, b) = (whole(at), whole(other % (bytes.len() + 1)));
                for i in 0..grain {
                    if a + i < bytes.len() && b + i < bytes.len() {
                        bytes.swap(a + i, b + i);
                    }
                }
            }
        }
    }
}

const STRIDE: u32 = STRIDES[0];
const BLOCKS: u64 = 4;
/// redb's flags byte in page 0, and its two-phase bit.
const FLAGS_AT: usize = 9;
const TWO_PHASE: u8 = 4;

fn key() -> Key {
    Key::from_slice(&[7; 32]).expect("32 bytes")
}

fn file(number: u8) -> FileId {
    FileId::from_bytes([number; 16])
}

/// What block `number` of file `file` held at `version`; page 0 is block 0, its two-phase bit set in odd versions.
fn plain(file: u8, number: u64, version: u8) -> Box<[u8; BLOCK_BYTES]> {
    let mut page = Box::new([0x40 | file; BLOCK_BYTES]);
    page[0] = u8::try_from(number).expect("few blocks");
    page[1] = version;
    page[FLAGS_AT] = if version % 2 == 1 { TWO_PHASE } else { 0 };
    page
}

/// A file whose every block and page 0 are of `version`; page 0 of the version before is still in its slots.
fn sealed_file(number: u8, version: u8) -> Vec<u8> {
    let medium = Memory::new(Vec::new());
    for version in version.saturating_sub(1)..=version {
        let page = PageZero { counter: version.into(), length: (BLOCKS + 1) * BLOCK_BYTES as u64, bytes: plain(number, 0, version) };
        page.write(&*medium, file(number), &key()).expect("memory takes all");
    }
    for block in 1..=BLOCKS {
        let mut out = vec![0; usize::try_from(STRIDE).expect("small")];
        aead::seal_into(&key(), place_aad("block", file(number), block).bytes(), &*plain(number, block, version), &mut out[..SEALED_BYTES]);
        medium.write_at(place(block, u64::from(STRIDE)), &out).expect("memory takes all");
    }
    medium.bytes()
}

/// Versions of file 1, then another file under the same key.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| vec![sealed_file(1, 3), sealed_file(1, 2), sealed_file(2, 3)]);

/// The target for blocks and page 0. First byte: which version the file starts at; then edits.
pub fn block(bytes: &[u8]) {
    let Some((first, script)) = bytes.split_first() else { return };
    let mut edited = FILES[usize::from(first % 2)].clone();
    edit(&mut edited, &FILES, if first & 2 == 0 { 512 } else { usize::try_from(STRIDE).expect("small") }, script);
    let medium = Memory::new(edited);
    let Ok(page) = PageZero::read(&*medium, file(1), &key()) else { return };
    let written = |number: u64| [1, 2, 3].map(|version| plain(1, number, version));
    assert!(written(0).contains(&page.bytes) && page.length == (BLOCKS + 1) * BLOCK_BYTES as u64, "a page 0 that was never written");
    let heals = page.bytes[FLAGS_AT] & TWO_PHASE == 0;
    let blocks = Blocks::new(medium, file(1), &key(), STRIDE, page);
    for opening in [true, false] {
        if !opening {
            blocks.opened();
        }
        for number in 1..=BLOCKS + 1 {
            let mut out = [0xee; BLOCK_BYTES];
            if blocks.read_block(number, &mut out).is_ok() {
                let zeros = opening && heals && out == [0; BLOCK_BYTES];
                assert!(
                    zeros || written(number).iter().any(|plain| **plain == out),
                    "block {number} reads as what was never written there"
                );
            }
        }
    }
}

/// A key file's KEK; superblock generations 1 and 2 of one file, and a copy's; as (both copies' bytes).
struct Supers {
    kek: Kek,
    now: Superblock,
    files: Vec<Vec<u8>>,
}

static SUPERS: LazyLock<Supers> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("rosemary-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a writable temporary folder");
    let kek = Kek::write_key_file(&folder.join("kek"), InstanceId::from_bytes([9; 16])).expect("a writable temporary folder");
    let _ = std::fs::remove_dir_all(&folder);
    let mut now = Superblock::new(STRIDE, &kek, KdfCost::NONE).expect("a key file costs nothing");
    let image = |superblock: &Superblock| {
        let medium = Memory::new(vec![0; 8192]);
        superblock.write(&*medium, superblock).expect("memory takes all");
        medium.bytes()
    };
    let older = image(&now);
    now.generation = 2;
    let files = vec![image(&now), older, image(&now.for_copy())];
    Supers { kek, now, files }
});

/// The target for superblocks. First byte: whether checksum (1) and MAC (2) are made right again after the edits, as one could who holds
/// the keys; 4 = the rest is a key slot, 8 = the rest is the sealed body.
pub fn superblock(bytes: &[u8]) {
    let Some((first, script)) = bytes.split_first() else { return };
    let Supers { kek, now, files } = &*SUPERS;
    if first & 4 != 0 {
        if let Some(bytes) = script.first_chunk::<SLOT_BYTES>()
            && let Ok(Some(slot)) = KeySlot::from_bytes(bytes)
        {
            assert_eq!(slot.to_bytes(), *bytes, "a key slot reads back as it stands");
        }
        return;
    }
    if first & 8 != 0 {
        if let Some(body) = script.first_chunk::<BODY_BYTES>() {
            let (master, aad) = (key(), Aad::of("rosemary", &[]));
            let derived = rosemary::crypto::kdf::derive(&[master.expose()], rosemary::crypto::kdf::Label::SuperblockSeal, &[]);
            if let Ok(keys) = Keys::open(&master, &aad, &aead::seal(&derived, &aad, body)) {
                assert_eq!(keys.epoch(), Keys::open(&master, &aad, &keys.seal(&master, &aad)).expect("what was sealed opens").epoch());
            }
        }
        return;
    }
    let mut edited = files[0].clone();
    edit(&mut edited, files, if first & 16 == 0 { 512 } else { SUPERBLOCK_BYTES }, script);
    for at in SUPERBLOCK_STARTS {
        let Some(span) = span(at, SUPERBLOCK_BYTES, &edited) else { continue };
        let copy = &mut edited[span];
        if first & 1 != 0 {
            let sum = sha256(&[&copy[..SUPERBLOCK_BYTES - 64]]);
            copy[SUPERBLOCK_BYTES - 64..SUPERBLOCK_BYTES - 32].copy_from_slice(&sum);
        }
        if first & 2 != 0 {
            let mac = hmac_sha256(now.keys.mac(), &[&copy[..SUPERBLOCK_BYTES - 32]]);
            copy[SUPERBLOCK_BYTES - 32..].copy_from_slice(&mac);
        }
    }
    let medium = Memory::new(edited);
    let Ok(found) = Superblock::read(&*medium, kek) else { return };
    assert!(STRIDES.contains(&found.stride));
    if first & 2 == 0 {
        assert!([1, 2].contains(&found.generation) && found.stride == STRIDE, "a superblock that was never written");
        let slots = |superblock: &Superblock| superblock.slots.iter().flatten().map(KeySlot::to_bytes).collect::<Vec<_>>();
        assert!(slots(&found) == slots(now) && found.instance == now.instance, "key slots that were never written");
    }
}

/// The target for rows: every table's reader over the same bytes. What a reader takes it would write the same (`base::codec`).
pub fn rows(bytes: &[u8]) {
    let names = readable_as(bytes);
    let ids = bytes.len() == 17 && bytes[0] == 1;
    assert!(names.contains(&"user_lookup") == ids && names.contains(&"subject_lookup") == ids, "a row of one id is 17 bytes: {names:?}");
    assert!(names.contains(&"credential_lookup") == (bytes.len() == 33 && bytes[0] == 1), "a row of two ids is 33 bytes: {names:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_row_has_a_seed() {
        let seeds = crate::files(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/rows")));
        let names: std::collections::BTreeSet<&str> = seeds.iter().flat_map(|seed| readable_as(seed)).collect();
        assert_eq!(names.len(), 12, "{names:?}");
        assert!(seeds.iter().any(|seed| seed.len() > 200 && readable_as(seed) == ["memories"]));
    }

    #[test]
    fn the_seed_of_a_sealed_body_opens() {
        assert!(Superblock::read(&*Memory::new(SUPERS.files[0].clone()), &SUPERS.kek).is_ok());
        assert!(PageZero::read(&*Memory::new(FILES[0].clone()), file(1), &key()).is_ok_and(|page| page.counter == 3));
    }
}
