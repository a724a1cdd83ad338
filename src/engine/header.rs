//! The head of the file: two superblock copies and redb's page 0 in two alternating, mirrored slots. Layout to the byte: `docs/format.md`.
//!
//! ```text
//! 0     | 4096            superblock, copies 0 and 1
//! 8192 A | 16384 A'       page-0 slots for even counters
//! 24576 B | 32768 B'      page-0 slots for odd counters
//! 40960                   blocks
//! ```
//!
//! Invariants
//! - A superblock counts only if its checksum, its sealed body and its MAC all hold; of two, the one of the higher generation.
//! - Both copies are alike once a store is open: what a crash left of an earlier generation is written over before anything relies on it.
//! - A page-0 slot counts only if it opens in its own place; of those, the one with the highest counter.
//! - Writing page 0 never touches the pair that holds the last synced one. A torn write therefore loses nothing acknowledged, and one
//!   damaged mirror loses nothing at all.

use std::sync::Arc;

use crate::base::id::{FileId, InstanceId};
use crate::base::limits::KEY_SLOTS;
use crate::crypto::aead::{self, Aad, OVERHEAD_BYTES};
use crate::crypto::hash::{hmac_sha256, sha256};
use crate::crypto::ladder::{self, FORMAT, KeySlot, KeySlots, Keys, LadderError, SEALED_BODY_BYTES, SLOT_BYTES};
use crate::crypto::secret::{Key, Secret};
use crate::crypto::unlock::{KdfCost, Kek};
use crate::engine::EngineError;
use crate::engine::medium::Medium;

/// Plain bytes of one block, and of redb's page 0.
pub const BLOCK_BYTES: usize = 4096;
/// Strides a file may have: distance from one block to the next.
pub const STRIDES: [u32; 2] = [4608, 8192];
/// Where the first block is.
pub const BLOCKS_START: u64 = 40960;
/// Where the superblock copies are.
pub const SUPERBLOCK_STARTS: [u64; 2] = [0, 4096];
/// Where the page-0 slots are: A, A', B, B'.
pub const SLOT_STARTS: [u64; 4] = [8192, 16384, 24576, 32768];
/// Bytes of a superblock copy.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Bytes written for a page-0 slot; whole sectors, the rest zero.
pub const PAGE_SLOT_BYTES: usize = 4608;

const MAGIC: [u8; 8] = *b"ROSEMARY";
const SUITE: u16 = 1;
const SLOTS_AT: usize = 64;
const BODY_AT: usize = SLOTS_AT + KEY_SLOTS * SLOT_BYTES;
const CHECKSUM_AT: usize = SUPERBLOCK_BYTES - 64;
const MAC_AT: usize = SUPERBLOCK_BYTES - 32;
const PAGE_PLAIN_BYTES: usize = 16 + BLOCK_BYTES;
const PAGE_SEALED_BYTES: usize = PAGE_PLAIN_BYTES + OVERHEAD_BYTES;

const _: () = assert!(BODY_AT + SEALED_BODY_BYTES[1] <= CHECKSUM_AT && PAGE_SEALED_BYTES <= PAGE_SLOT_BYTES);

/// `rosemary | version | kind | file id | place`.
pub fn place_aad(kind: &str, file: FileId, place: u64) -> Aad {
    Aad::of("rosemary", &[&FORMAT.to_le_bytes(), kind.as_bytes(), file.bytes()]).number(place)
}

/// The superblock, opened.
pub struct Superblock {
    /// This physical copy.
    pub file: FileId,
    /// The data, in every copy.
    pub instance: InstanceId,
    /// Raised by each rewriting.
    pub generation: u64,
    /// Distance from one block to the next.
    pub stride: u32,
    /// What unlocks the file.
    pub slots: KeySlots,
    /// The opened keys.
    pub keys: Arc<Keys>,
    master: Key,
}

/// What is to be different in a rewritten superblock.
pub enum Change {
    /// A further epoch, under which DEKs are wrapped from now on.
    NextEpoch,
    /// No epoch but the newest.
    NewestEpochAlone,
    /// A further audit signing key, to which the log is to be handed over.
    NextSigning,
    /// The next audit signing key in the place of the one before.
    NextSigningAlone,
    /// One more key slot, for this KEK at this cost of Argon2id.
    AddSlot(Kek, KdfCost),
    /// One key slot less.
    RemoveSlot(usize),
    /// Another master key, wrapped for this KEK alone, which must be one that opens the file now: every other slot is gone.
    NewMaster(Kek, KdfCost),
    /// A key slot for this KEK instead of every slot that the other one opens.
    ReplaceSlot(Kek, KdfCost, Kek),
}

/// Why one copy does not count.
#[derive(Debug)]
enum CopyError {
    NoMagic,
    Newer(u16),
    Damaged,
    Keys(LadderError),
}

impl Superblock {
    /// New keys for new data, unlocked by `kek`.
    ///
    /// Errors: [`EngineError::Keys`] if the passphrase's cost cannot be run.
    pub fn new(stride: u32, kek: &Kek, cost: KdfCost) -> Result<Self, EngineError> {
        let (instance, master) = (kek.instance().unwrap_or_else(InstanceId::draw), Key::random());
        let mut slots = KeySlots::default();
        ladder::enrol(&mut slots, kek, cost, &master, instance)?;
        Ok(Self { file: FileId::draw(), instance, generation: 1, stride, slots, keys: Arc::new(Keys::random()), master })
    }

    /// The superblock of another physical copy of the same data: new file id and block key, the same key slots byte for byte.
    pub fn for_copy(&self) -> Self {
        Self {
            file: FileId::draw(),
            instance: self.instance,
            generation: self.generation,
            stride: self.stride,
            slots: self.slots.clone(),
            keys: Arc::new(self.keys.for_copy()),
            master: self.master.duplicate(),
        }
    }

    /// The superblock after `change`, of the generation after `newest`, which is the newest that was ever tried.
    ///
    /// Errors: `Keys` with `SlotsFull`, `Cost`, `LastSlot`, `NoSuchSlot`, `EpochBusy`, `SigningBusy`, `NoNextSigning`, `Wrong`.
    pub fn changed(&self, change: &Change, newest: u64) -> Result<Self, EngineError> {
        let (mut slots, mut keys, mut master) = (self.slots.clone(), Arc::clone(&self.keys), self.master.duplicate());
        match change {
            Change::NextEpoch => keys = Arc::new(keys.with_next_epoch().ok_or(LadderError::EpochBusy)?),
            Change::NewestEpochAlone => keys = Arc::new(keys.with_newest_epoch_alone()),
            Change::NextSigning => keys = Arc::new(keys.with_next_signing().ok_or(LadderError::SigningBusy)?),
            Change::NextSigningAlone => keys = Arc::new(keys.with_next_signing_alone().ok_or(LadderError::NoNextSigning)?),
            Change::AddSlot(kek, cost) => {
                ladder::enrol(&mut slots, kek, *cost, &self.master, self.instance)?;
            }
            Change::RemoveSlot(number) => {
                slots.get_mut(*number).and_then(Option::take).ok_or(LadderError::NoSuchSlot(*number))?;
            }
            Change::NewMaster(kek, cost) => {
                let first = *ladder::slots_of(&slots, kek, self.instance).first().ok_or(LadderError::Wrong(kek.kind()))?;
                (master, slots) = (Key::random(), KeySlots::default());
                slots[first] = Some(KeySlot::wrap(kek, *cost, &master, self.instance, first)?);
                keys = Arc::new(keys.with_new_mac());
            }
            Change::ReplaceSlot(new, cost, old) => {
                let replaced = ladder::slots_of(&slots, old, self.instance);
                let first = *replaced.first().ok_or(LadderError::Wrong(old.kind()))?;
                replaced.into_iter().for_each(|number| slots[number] = None);
                slots[first] = Some(KeySlot::wrap(new, *cost, &self.master, self.instance, first)?);
            }
        }
        if slots.iter().all(Option::is_none) {
            return Err(LadderError::LastSlot.into());
        }
        let generation = newest.checked_add(1).ok_or(EngineError::Damaged("superblock"))?;
        Ok(Self { file: self.file, instance: self.instance, generation, stride: self.stride, slots, keys, master })
    }

    /// The superblock of another physical copy of the same data that `kek` alone opens: besides file id and block key, the master key is new.
    ///
    /// Errors: [`EngineError::Keys`]: the key names another instance, or the passphrase's cost cannot be run.
    pub fn for_copy_under(&self, kek: &Kek, cost: KdfCost) -> Result<Self, EngineError> {
        ladder::check_instance(kek, self.instance)?;
        let (master, mut slots) = (Key::random(), KeySlots::default());
        ladder::enrol(&mut slots, kek, cost, &master, self.instance)?;
        Ok(Self { slots, master, ..self.for_copy() })
    }

    /// The superblock of another physical copy of the same data under new keys of every kind, for `kek` alone. Its generation is the next.
    ///
    /// Errors: as [`Superblock::for_copy_under`]; `Keys` with `EpochBusy` if no number of an epoch is left.
    pub fn anew(&self, kek: &Kek, cost: KdfCost) -> Result<Self, EngineError> {
        let generation = self.generation.checked_add(1).ok_or(EngineError::Damaged("superblock"))?;
        let keys = Arc::new(self.keys.anew().ok_or(LadderError::EpochBusy)?);
        Ok(Self { keys, generation, ..self.for_copy_under(kek, cost)? })
    }

    /// Copy `copy` (0 or 1) as stored.
    pub fn encode(&self, copy: u64) -> Vec<u8> {
        let mut out = vec![0; SUPERBLOCK_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&u16::try_from(FORMAT).expect("the version is 1").to_le_bytes());
        out[10..12].copy_from_slice(&SUITE.to_le_bytes());
        out[12..16].copy_from_slice(&u32::try_from(BLOCK_BYTES).expect("4096").to_le_bytes());
        out[16..20].copy_from_slice(&self.stride.to_le_bytes());
        out[20..24].copy_from_slice(&u32::from(self.keys.next_signing().is_some()).to_le_bytes());
        out[24..40].copy_from_slice(self.file.bytes());
        out[40..56].copy_from_slice(self.instance.bytes());
        out[56..64].copy_from_slice(&self.generation.to_le_bytes());
        for (slot, place) in self.slots.iter().zip(out[SLOTS_AT..BODY_AT].chunks_exact_mut(SLOT_BYTES)) {
            if let Some(slot) = slot {
                place.copy_from_slice(&slot.to_bytes());
            }
        }
        let body = self.keys.seal(&self.master, &place_aad("superblock", self.file, copy));
        out[BODY_AT..BODY_AT + body.len()].copy_from_slice(&body);
        let checksum = sha256(&[&out[..CHECKSUM_AT]]);
        out[CHECKSUM_AT..MAC_AT].copy_from_slice(&checksum);
        let mac = hmac_sha256(self.keys.mac(), &[&out[..MAC_AT]]);
        out[MAC_AT..].copy_from_slice(&mac);
        out
    }

    /// Writes both copies, each synced before the next is touched, so that one of them is whole at any time. Copy 0 goes first, unless copy 1 is
    /// not one that `before`, the superblock in use, could have written: then that one may be all that a failure left of it.
    pub fn write(&self, medium: &dyn Medium, before: &Self) -> Result<(), EngineError> {
        let mut second = [0; SUPERBLOCK_BYTES];
        medium.read_at(SUPERBLOCK_STARTS[1], &mut second).map_err(EngineError::io)?;
        for copy in if authentic(&before.keys, &second) { [0, 1] } else { [1, 0] } {
            medium.write_at(SUPERBLOCK_STARTS[copy], &self.encode(u64::from(copy == 1))).map_err(EngineError::io)?;
            medium.sync().map_err(EngineError::io)?;
        }
        Ok(())
    }

    fn decode(copy: u64, bytes: &[u8; SUPERBLOCK_BYTES], kek: &Kek) -> Result<Self, CopyError> {
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let id = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).expect("16 bytes");
        if bytes[..8] != MAGIC {
            return Err(CopyError::NoMagic);
        }
        if u64::from(short(8)) > FORMAT {
            return Err(CopyError::Newer(short(8)));
        }
        let stride = word(16);
        let body_end = BODY_AT + SEALED_BODY_BYTES[usize::from(word(20) == 1)];
        // The checksum tells damage from a wrong key before any key is tried; against intent it is the MAC that counts.
        if sha256(&[&bytes[..CHECKSUM_AT]]) != bytes[CHECKSUM_AT..MAC_AT]
            || (u64::from(short(8)), short(10), word(12)) != (FORMAT, SUITE, 4096)
            || !STRIDES.contains(&stride)
            || word(20) > 1
            || bytes[body_end..CHECKSUM_AT].iter().any(|byte| *byte != 0)
        {
            return Err(CopyError::Damaged);
        }
        let (file, instance) = (FileId::from_bytes(id(24)), InstanceId::from_bytes(id(40)));
        let mut slots = KeySlots::default();
        for (slot, place) in slots.iter_mut().zip(bytes[SLOTS_AT..BODY_AT].chunks_exact(SLOT_BYTES)) {
            *slot = KeySlot::from_bytes(place.try_into().expect("a slot")).map_err(|_| CopyError::Damaged)?;
        }
        let master = ladder::open_slots(&slots, kek, instance).map_err(CopyError::Keys)?;
        let keys = Keys::open(&master, &place_aad("superblock", file, copy), &bytes[BODY_AT..body_end]).map_err(|_| CopyError::Damaged)?;
        if !authentic(&keys, bytes) {
            return Err(CopyError::Damaged);
        }
        let generation = u64::from_le_bytes(bytes[56..64].try_into().expect("8 bytes"));
        Ok(Self { file, instance, generation, stride, slots, keys: Arc::new(keys), master })
    }

    fn read_copy(medium: &dyn Medium, copy: u64, at: u64, kek: &Kek) -> Result<Self, EngineError> {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        match medium.read_at(at, &mut bytes) {
            Ok(()) => Self::decode(copy, &bytes, kek).map_err(EngineError::from),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(EngineError::NotRosemary),
            Err(error) => Err(EngineError::io(error)),
        }
    }

    /// Which of the two copies on the medium say what this one does, keys included.
    ///
    /// Errors: `Io`.
    pub fn copies(&self, medium: &dyn Medium) -> Result<[bool; 2], EngineError> {
        let (mut same, mut bytes) = ([false; 2], [0; SUPERBLOCK_BYTES]);
        for ((copy, at), same) in (0..).zip(SUPERBLOCK_STARTS).zip(&mut same) {
            match medium.read_at(at, &mut bytes) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => continue,
                read => read.map_err(EngineError::io)?,
            }
            let body = &bytes[BODY_AT..BODY_AT + SEALED_BODY_BYTES[usize::from(self.keys.next_signing().is_some())]];
            *same = bytes[..BODY_AT] == self.encode(copy)[..BODY_AT]
                && self.keys.are_in(&self.master, &place_aad("superblock", self.file, copy), body)
                && authentic(&self.keys, &bytes);
        }
        Ok(same)
    }

    /// Opens the superblock with `kek`: the newer of the two copies that hold.
    ///
    /// Errors: `Io`; else the more telling of the two copies' reasons: a key that does not open an intact copy, a newer format, damage,
    /// not a Rosemary file.
    pub fn read(medium: &dyn Medium, kek: &Kek) -> Result<Self, EngineError> {
        let [first, second] = [0, 1].map(|copy: u8| Self::read_copy(medium, u64::from(copy), SUPERBLOCK_STARTS[usize::from(copy)], kek));
        let tells = |error: &EngineError| match error {
            EngineError::Io { .. } => 4,
            EngineError::Keys(_) => 3,
            EngineError::Damaged(_) => 2,
            EngineError::Newer { .. } => 1,
            _ => 0,
        };
        match (first, second) {
            (Ok(a), Ok(b)) if a.file != b.file || a.instance != b.instance => Err(EngineError::Damaged("superblock")),
            (Ok(a), Ok(b)) => Ok(if b.generation > a.generation { b } else { a }),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(a), Err(b)) => Err(if tells(&b) > tells(&a) { b } else { a }),
        }
    }
}

/// Whether these keys made the MAC of this copy.
fn authentic(keys: &Keys, bytes: &[u8; SUPERBLOCK_BYTES]) -> bool {
    Secret::new(hmac_sha256(keys.mac(), &[&bytes[..MAC_AT]])).matches(&bytes[MAC_AT..])
}

impl From<CopyError> for EngineError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::NoMagic => Self::NotRosemary,
            CopyError::Newer(found) => Self::Newer { found },
            CopyError::Damaged => Self::Damaged("superblock"),
            CopyError::Keys(error) => Self::Keys(error),
        }
    }
}

/// redb's page 0 as last made durable.
#[derive(Clone, PartialEq, Eq)]
pub struct PageZero {
    /// Raised by one at each sync that changes page 0; its parity is the pair it lies in.
    pub counter: u64,
    /// redb's idea of the length of its file, bytes.
    pub length: u64,
    /// The page.
    pub bytes: Box<[u8; BLOCK_BYTES]>,
}

impl PageZero {
    /// Before redb has written anything.
    pub fn empty() -> Self {
        Self { counter: 0, length: 0, bytes: Box::new([0; BLOCK_BYTES]) }
    }

    fn pair(counter: u64) -> [usize; 2] {
        if counter.is_multiple_of(2) { [0, 1] } else { [2, 3] }
    }

    /// Writes both mirrors of the counter's pair; the caller syncs.
    pub fn write(&self, medium: &dyn Medium, file: FileId, key: &Key) -> std::io::Result<()> {
        let mut plain = [0; PAGE_PLAIN_BYTES];
        plain[..8].copy_from_slice(&self.counter.to_le_bytes());
        plain[8..16].copy_from_slice(&self.length.to_le_bytes());
        plain[16..].copy_from_slice(&*self.bytes);
        for slot in Self::pair(self.counter) {
            let mut out = [0; PAGE_SLOT_BYTES];
            let aad = place_aad("page-0", file, u64::try_from(slot).expect("below 4"));
            aead::seal_into(key, aad.bytes(), &plain, &mut out[..PAGE_SEALED_BYTES]);
            medium.write_at(SLOT_STARTS[slot], &out)?;
        }
        Ok(())
    }

    /// Reads slot `slot`; `None` if it does not open there.
    pub fn read_slot(medium: &dyn Medium, file: FileId, key: &Key, slot: usize) -> Result<Option<Self>, EngineError> {
        let mut sealed = [0; PAGE_SEALED_BYTES];
        match medium.read_at(SLOT_STARTS[slot], &mut sealed) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done.map_err(EngineError::io)?,
        }
        let mut plain = [0; PAGE_PLAIN_BYTES];
        let aad = place_aad("page-0", file, u64::try_from(slot).expect("below 4"));
        if aead::open_into(key, aad.bytes(), &sealed, &mut plain).is_err() {
            return Ok(None);
        }
        let number = |at: usize| u64::from_le_bytes(plain[at..at + 8].try_into().expect("8 bytes"));
        let bytes: Box<[u8; BLOCK_BYTES]> = Box::new(plain[16..].try_into().expect("a page"));
        Ok(Some(Self { counter: number(0), length: number(8), bytes }).filter(|page| Self::pair(page.counter).contains(&slot)))
    }

    /// The newest page 0 that opens.
    ///
    /// Errors: `Damaged` if none of the four slots does; `Io`.
    pub fn read(medium: &dyn Medium, file: FileId, key: &Key) -> Result<Self, EngineError> {
        let mut newest: Option<Self> = None;
        for slot in 0..SLOT_STARTS.len() {
            if let Some(page) = Self::read_slot(medium, file, key, slot)?
                && newest.as_ref().is_none_or(|best| page.counter > best.counter)
            {
                newest = Some(page);
            }
        }
        newest.ok_or(EngineError::Damaged("page-0 slots"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::base::hex;
    use crate::crypto::ladder::WrappedDek;
    use crate::engine::block::{Blocks, SEALED_BYTES, place};
    use crate::engine::campaign::memory;

    const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/format/v1.txt");

    /// The published plain text of the vectors' block: byte i is i modulo 251.
    fn pattern() -> Vec<u8> {
        (0..BLOCK_BYTES).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    fn dek_aad(instance: InstanceId) -> Aad {
        Aad::of("dek1", &[instance.bytes(), &[1; 16], &[1], &[2; 16]]).number(1)
    }

    fn bytes_at(medium: &dyn Medium, at: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        medium.read_at(at, &mut out).unwrap();
        out
    }

    /// Writes new vectors; run by hand when the format gets a new version: `ROSEMARY_WRITE_VECTORS=1 cargo test --lib published_vectors`.
    fn write_vectors() {
        let kek = Kek::for_test(&[0x4b; 32]);
        let mut head = Superblock::new(4608, &kek, KdfCost::FLOOR).unwrap();
        let (phrase, instance) = (Kek::passphrase_for_test("correct horse battery staple"), head.instance);
        ladder::enrol(&mut head.slots, &phrase, KdfCost::FLOOR, &head.master, instance).unwrap();
        let medium = memory();
        medium.set_len(BLOCKS_START).unwrap();
        head.write(&*medium, &head).unwrap();
        let page = PageZero { counter: 7, length: 40960, bytes: Box::new(pattern().try_into().unwrap()) };
        page.write(&*medium, head.file, head.keys.block()).unwrap();
        let blocks = Blocks::new(Arc::clone(&medium), head.file, head.keys.block(), head.stride, page);
        redb::StorageBackend::write(&crate::engine::block::Backend(blocks), 3 * 4096, &pattern()).unwrap();
        let dek = Key::random();
        let wrapped = head.keys.wrap_dek(&dek, &dek_aad(instance));
        let superblock = |copy: usize| hex::encode(&bytes_at(&*medium, SUPERBLOCK_STARTS[copy], SUPERBLOCK_BYTES));
        let lines = [
            ("key-file", hex::encode(&[0x4b; 32])),
            ("passphrase", "correct horse battery staple".to_owned()),
            ("master-key", hex::encode(head.master.expose())),
            ("file-id", head.file.to_string()),
            ("instance-id", head.instance.to_string()),
            ("generation", head.generation.to_string()),
            ("superblock-0", superblock(0)),
            ("superblock-1", superblock(1)),
            ("block-key", hex::encode(head.keys.block().expose())),
            ("mac-key", hex::encode(head.keys.mac().expose())),
            ("audit-public-key", hex::encode(&head.keys.signing().public())),
            ("pepper", hex::encode(head.keys.pepper().expose())),
            ("lookup-key", hex::encode(head.keys.lookup().expose())),
            ("page-0-slot-2", hex::encode(&bytes_at(&*medium, SLOT_STARTS[2], PAGE_SEALED_BYTES))),
            ("page-0-slot-3", hex::encode(&bytes_at(&*medium, SLOT_STARTS[3], PAGE_SEALED_BYTES))),
            ("block-3", hex::encode(&bytes_at(&*medium, place(3, 4608), SEALED_BYTES))),
            ("dek", hex::encode(dek.expose())),
            ("wrapped-dek", hex::encode(&wrapped.sealed)),
        ];
        let mut text = String::from(
            "# Format v1, one file made with test keys; docs/format.md says what each line is. Plain text of page 0 (counter 7, length 40960)\n\
             # and of block 3: byte i is i modulo 251. wrapped-dek: epoch 1, tenant 16 times 01, holder kind 1, holder id 16 times 02, DEK 1.\n",
        );
        lines.iter().for_each(|(name, value)| text += &format!("{name} = {value}\n"));
        std::fs::create_dir_all(std::path::Path::new(VECTORS).parent().unwrap()).unwrap();
        std::fs::write(VECTORS, text).unwrap();
    }

    #[test]
    fn published_vectors_open_to_the_published_values() {
        if std::env::var_os("ROSEMARY_WRITE_VECTORS").is_some() {
            write_vectors();
        }
        let text = std::fs::read_to_string(VECTORS).unwrap();
        let values: BTreeMap<&str, &str> =
            text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once(" = ").unwrap()).collect();
        let bytes = |name: &str| hex::decode(values[name]).unwrap();
        for kek in [Kek::for_test(&bytes("key-file")), Kek::passphrase_for_test(values["passphrase"])] {
            let medium = memory();
            medium.write_at(SUPERBLOCK_STARTS[0], &bytes("superblock-0")).unwrap();
            medium.write_at(SUPERBLOCK_STARTS[1], &bytes("superblock-1")).unwrap();
            medium.write_at(SLOT_STARTS[2], &bytes("page-0-slot-2")).unwrap();
            medium.write_at(SLOT_STARTS[3], &bytes("page-0-slot-3")).unwrap();
            medium.write_at(place(3, 4608), &bytes("block-3")).unwrap();
            let head = Superblock::read(&*medium, &kek).unwrap();
            assert_eq!(head.copies(&*medium).unwrap(), [true; 2]);
            assert_eq!((head.file.to_string().as_str(), head.instance.to_string().as_str()), (values["file-id"], values["instance-id"]));
            assert_eq!((head.generation.to_string().as_str(), head.stride), (values["generation"], 4608));
            assert!(head.master.matches(&bytes("master-key")) && head.keys.block().matches(&bytes("block-key")));
            assert!(head.keys.mac().matches(&bytes("mac-key")) && head.keys.pepper().matches(&bytes("pepper")));
            assert!(head.keys.lookup().matches(&bytes("lookup-key")));
            assert_eq!(head.keys.signing().public().to_vec(), bytes("audit-public-key"));
            for slot in [2, 3] {
                let page = PageZero::read_slot(&*medium, head.file, head.keys.block(), slot).unwrap().unwrap();
                assert_eq!((page.counter, page.length, page.bytes.to_vec()), (7, 40960, pattern()));
            }
            let page = PageZero::read(&*medium, head.file, head.keys.block()).unwrap();
            let blocks = Blocks::new(Arc::clone(&medium), head.file, head.keys.block(), head.stride, page);
            let mut plain = vec![0; BLOCK_BYTES];
            blocks.read_block(3, &mut plain).unwrap();
            assert_eq!(plain, pattern());
            let wrapped = WrappedDek { epoch: 1, sealed: bytes("wrapped-dek") };
            assert!(head.keys.unwrap_dek(&wrapped, &dek_aad(head.instance)).unwrap().matches(&bytes("dek")));
        }
    }

    #[test]
    fn any_changed_byte_of_a_superblock_copy_makes_that_copy_not_count() {
        let kek = Kek::for_test(&[1; 32]);
        let head = Superblock::new(4608, &kek, KdfCost::FLOOR).unwrap();
        let mut bytes: [u8; SUPERBLOCK_BYTES] = head.encode(0).try_into().unwrap();
        assert!(Superblock::decode(0, &bytes, &kek).is_ok());
        assert!(Superblock::decode(1, &bytes, &kek).is_err(), "a copy is bound to its place");
        for at in 0..SUPERBLOCK_BYTES {
            bytes[at] ^= 1;
            assert!(Superblock::decode(0, &bytes, &kek).is_err(), "byte {at}");
            // Even with the checksum mended: what counts against intent is the MAC.
            if at < CHECKSUM_AT {
                let mut mended = bytes;
                let checksum = sha256(&[&mended[..CHECKSUM_AT]]);
                mended[CHECKSUM_AT..MAC_AT].copy_from_slice(&checksum);
                assert!(Superblock::decode(0, &mended, &kek).is_err(), "byte {at}, checksum mended");
            }
            bytes[at] ^= 1;
        }
    }
}
