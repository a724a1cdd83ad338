//! Rewriting the superblock of an open store: key slots and epoch keys change while reading and writing go on.
//!
//! Invariants
//! - The new superblock is in use only once both of its copies are durable: what is sealed under a new key can always be opened again.
//! - A rewriting that failed latches the store and leaves the old one in use; which of the two the medium holds is settled by the next rewriting or opening, and
//!   either opens the file.
//! - No generation is tried twice: two copies of one generation are the same superblock.
//! - An older copy that a crash left is written over by [`Engine::settle`] before anything relies on its being gone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::crypto::ladder;
use crate::crypto::unlock::{Kek, SlotKind};
use crate::engine::header::{Change, Superblock};
use crate::engine::{Engine, EngineError};

/// A key slot in use, as an operator sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its number.
    pub number: usize,
    /// What opens it.
    pub kind: SlotKind,
    /// Whether the KEK that was asked about opens it.
    pub opened: bool,
}

impl Engine {
    /// Changes the superblock durably. Gives its new generation.
    ///
    /// Errors: `Latched`; `Keys` where the change itself is refused; `Io` and `Full`, which latch, and after which the old keys stay in use.
    pub fn rewrite(&self, change: &Change) -> Result<u64, EngineError> {
        let mut attempted = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_latched() {
            return Err(EngineError::Latched);
        }
        let head = self.head().changed(change, *attempted)?;
        *attempted = head.generation;
        self.write(&head)?;
        let generation = head.generation;
        *self.head.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(head);
        Ok(generation)
    }

    /// Makes both copies of the superblock the newest one, if a crash left them different. To be called once it is known that this superblock
    /// is the one that belongs to the data; whether something was written.
    ///
    /// Errors: `Latched`; `Io` and `Full`, which latch.
    pub fn settle(&self) -> Result<bool, EngineError> {
        let _one = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
        let torn = self.torn.load(Ordering::Acquire);
        if torn {
            self.write(&self.head())?;
        }
        Ok(torn)
    }

    /// Writes both copies. What fails here may have been told of what a commit wrote, so it shuts the store as there.
    fn write(&self, head: &Superblock) -> Result<(), EngineError> {
        self.with(|open| {
            open.latch.guard(|| {
                self.torn.store(true, Ordering::Release);
                head.write(&*self.medium, &self.head())?;
                self.torn.store(false, Ordering::Release);
                Ok(())
            })
        })
    }

    /// What opens the key slots in use.
    pub fn slot_kinds(&self) -> Vec<SlotKind> {
        self.head().slots.iter().flatten().map(ladder::KeySlot::kind).collect()
    }

    /// The key slots in use, and which of them `kek` opens. A passphrase costs one Argon2id run a passphrase slot.
    pub fn slots(&self, kek: &Kek) -> Vec<Slot> {
        let head = self.head();
        let opened = ladder::slots_of(&head.slots, kek, head.instance);
        let used = head.slots.iter().enumerate().filter_map(|(number, slot)| Some((number, slot.as_ref()?)));
        used.map(|(number, slot)| Slot { number, kind: slot.kind(), opened: opened.contains(&number) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ladder::LadderError;
    use crate::crypto::unlock::KdfCost;
    use crate::engine::batch::tests::{A, options};
    use crate::engine::campaign::disk::{Tape, replay};
    use crate::engine::campaign::{Chance, amount};
    use crate::engine::medium::Medium;
    use crate::engine::{Options, Read};

    fn key(byte: u8) -> Kek {
        Kek::for_test(&[byte; 32])
    }

    fn made(tape: &Arc<Tape>, kek: &Kek) -> Engine {
        let head = Superblock::new(4608, kek, KdfCost::FLOOR).unwrap();
        let engine = Engine::create_on(Arc::clone(tape) as _, &options(), head).unwrap();
        engine.commit(|batch| batch.put(A, b"k", b"v")).unwrap();
        engine
    }

    fn open(image: Vec<u8>, options: &Options, kek: &Kek) -> Result<Engine, EngineError> {
        Engine::open_on(Arc::new(Tape::recording(image)), options, kek)
    }

    fn wrong(error: EngineError) -> LadderError {
        match error {
            EngineError::Keys(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn slots_are_added_replaced_and_removed_while_the_store_is_open() {
        let tape = Arc::new(Tape::recording(Vec::new()));
        let engine = made(&tape, &key(1));
        assert_eq!(wrong(engine.rewrite(&Change::RemoveSlot(0)).unwrap_err()), LadderError::LastSlot);
        assert_eq!(wrong(engine.rewrite(&Change::RemoveSlot(5)).unwrap_err()), LadderError::NoSuchSlot(5));
        assert_eq!(wrong(engine.rewrite(&Change::RemoveSlot(500)).unwrap_err()), LadderError::NoSuchSlot(500));
        assert_eq!(engine.rewrite(&Change::AddSlot(key(2), KdfCost::NONE)).unwrap(), 2);
        assert_eq!(engine.rewrite(&Change::ReplaceSlot(key(3), KdfCost::NONE, key(1))).unwrap(), 3);
        let slots: Vec<_> = engine.slots(&key(2)).iter().map(|slot| (slot.number, slot.opened)).collect();
        assert_eq!(slots, [(0, false), (1, true)]);
        let replace_unknown = Change::ReplaceSlot(key(4), KdfCost::NONE, key(1));
        assert_eq!(wrong(engine.rewrite(&replace_unknown).unwrap_err()), LadderError::Wrong(SlotKind::KeyFile));
        engine.commit(|batch| batch.put(A, b"k", b"w")).unwrap();
        engine.close().unwrap();
        assert_eq!(wrong(open(tape.image(), &options(), &key(1)).unwrap_err()), LadderError::Wrong(SlotKind::KeyFile));
        for kek in [key(2), key(3)] {
            let engine = open(tape.image(), &options(), &kek).unwrap();
            assert_eq!(engine.generation(), 3);
            assert_eq!(engine.snapshot().unwrap().get(A, b"k").unwrap(), Some(b"w".to_vec()));
        }
    }

    #[test]
    fn a_power_cut_in_a_rewriting_leaves_the_old_superblock_or_the_new_one() {
        let (old, new) = (key(1), key(2));
        let tape = Arc::new(Tape::recording(Vec::new()));
        let engine = made(&tape, &old);
        let before = tape.count();
        engine.rewrite(&Change::ReplaceSlot(key(2), KdfCost::NONE, key(1))).unwrap();
        let done = tape.count();
        engine.abandon();
        let mut chance = Chance(7);
        let (mut olds, mut news) = (0, 0);
        let durable = replay(&tape.ops()[..done], &mut chance, |at, cut| {
            if at >= before {
                for _ in 0..amount(20, 100, 1000) {
                    let image = cut();
                    let (with_old, with_new) = (open(image.clone(), &options(), &old), open(image, &options(), &new));
                    assert!(with_old.is_ok() || with_new.is_ok(), "change {at}: neither key opens the file");
                    (olds, news) = (olds + usize::from(with_old.is_ok()), news + usize::from(with_new.is_ok()));
                    for engine in [with_old, with_new].into_iter().flatten() {
                        assert_eq!(engine.snapshot().unwrap().get(A, b"k").unwrap(), Some(b"v".to_vec()), "change {at}");
                        engine.settle().unwrap();
                        assert!(!engine.settle().unwrap(), "both copies are alike");
                    }
                }
            }
        });
        assert!(olds > 0 && news > 0);
        assert!(open(durable.clone(), &options(), &old).is_err() && open(durable, &options(), &new).is_ok());
    }

    #[test]
    fn a_new_master_key_is_for_the_present_key_alone_and_the_old_one_opens_no_copy() {
        let tape = Arc::new(Tape::recording(Vec::new()));
        let engine = made(&tape, &key(1));
        engine.rewrite(&Change::AddSlot(key(2), KdfCost::NONE)).unwrap();
        let before = tape.image();
        assert_eq!(wrong(engine.rewrite(&Change::NewMaster(key(3), KdfCost::NONE)).unwrap_err()), LadderError::Wrong(SlotKind::KeyFile));
        let written = tape.count();
        engine.rewrite(&Change::NewMaster(key(2), KdfCost::NONE)).unwrap();
        assert_eq!(engine.slots(&key(2)).iter().map(|slot| (slot.number, slot.opened)).collect::<Vec<_>>(), [(1, true)]);
        engine.commit(|batch| batch.put(A, b"k", b"w")).unwrap();
        engine.close().unwrap();
        assert!(open(tape.image(), &options(), &key(1)).is_err());
        let opened = open(tape.image(), &options(), &key(2)).unwrap();
        assert_eq!(opened.snapshot().unwrap().get(A, b"k").unwrap(), Some(b"w".to_vec()));
        // The slots of before, which still give the old master key, put before what the new one sealed.
        let mut mixed = tape.image();
        for copy in [0, 4096] {
            mixed[copy + 64..copy + 64 + 1024].copy_from_slice(&before[copy + 64..copy + 64 + 1024]);
        }
        assert!(open(mixed, &options(), &key(1)).is_err());
        // A power cut after any change leaves a superblock that the present key opens.
        let mut chance = Chance(3);
        replay(&tape.ops(), &mut chance, |at, cut| {
            for _ in 0..if at >= written { amount(5, 20, 100) } else { 0 } {
                assert!(open(cut(), &options(), &key(2)).is_ok(), "change {at}");
            }
        });
    }

    /// What docs/keys.md says of a key that was replaced or removed.
    #[test]
    fn a_former_key_with_an_old_copy_opens_the_file_until_the_master_key_is_new() {
        use crate::engine::header::place_aad;
        let tape = Arc::new(Tape::recording(Vec::new()));
        let engine = made(&tape, &key(1));
        let old = ladder::open_slots(&engine.head().slots, &key(1), engine.instance()).unwrap();
        let opens = || engine.keys().are_in(&old, &place_aad("superblock", engine.file(), 0), &engine.head().encode(0)[1088..1360]);
        engine.rewrite(&Change::ReplaceSlot(key(2), KdfCost::NONE, key(1))).unwrap();
        engine.rewrite(&Change::NextEpoch).unwrap();
        assert!(opens());
        engine.rewrite(&Change::NewMaster(key(2), KdfCost::NONE)).unwrap();
        assert!(!opens());
    }

    #[test]
    fn an_epoch_key_that_was_dropped_is_in_neither_copy() {
        let tape = Arc::new(Tape::recording(Vec::new()));
        let engine = made(&tape, &key(1));
        engine.rewrite(&Change::NextEpoch).unwrap();
        assert_eq!((engine.keys().old_epoch(), engine.keys().epoch()), (Some(1), 2));
        assert_eq!(wrong(engine.rewrite(&Change::NextEpoch).unwrap_err()), LadderError::EpochBusy);
        // A crash after the first copy: the second still has the old epoch, until the opening settles it.
        let mut image = tape.image();
        engine.rewrite(&Change::NewestEpochAlone).unwrap();
        image[..4096].copy_from_slice(&tape.image()[..4096]);
        let torn = Arc::new(Tape::recording(image));
        let reopened = Engine::open_on(Arc::clone(&torn) as _, &options(), &key(1)).unwrap();
        assert_eq!(reopened.keys().old_epoch(), None);
        assert!(reopened.settle().unwrap());
        for copy in [0, 1] {
            let mut one = torn.image();
            one[4096 * (1 - copy)..4096 * (2 - copy)].fill(0);
            assert_eq!(open(one, &options(), &key(1)).unwrap().keys().old_epoch(), None, "copy {copy}");
        }
    }

    #[test]
    fn a_refused_write_leaves_the_old_keys_in_use() {
        use crate::engine::campaign::disk::Fault;
        for at in 0..5 {
            let tape = Arc::new(Tape::faulty(Vec::new(), None, 3));
            let engine = made(&tape, &key(1));
            tape.refuse(Fault { at, times: 1, kind: std::io::ErrorKind::Other });
            engine.rewrite(&Change::NextEpoch).unwrap_err();
            tape.mend();
            assert_eq!((engine.keys().old_epoch(), engine.generation()), (None, 1));
            assert!(matches!(engine.rewrite(&Change::NextEpoch), Err(EngineError::Latched)));
            engine.recover().unwrap();
            engine.rewrite(&Change::NextEpoch).unwrap();
            assert_eq!(engine.keys().old_epoch(), Some(1));
        }
    }

    /// A rewriting that failed behind its first copy left that one's keys on the medium; the next one used its generation again, with other keys, and
    /// a power cut between its two copies left two of one generation that nothing told apart: what was sealed under one copy's key did not
    /// open under the other's.
    #[test]
    fn a_generation_is_used_once_and_copies_that_differ_are_known() {
        use crate::crypto::aead::Aad;
        use crate::crypto::secret::Key;
        use crate::engine::campaign::disk::Fault;
        let tape = Arc::new(Tape::faulty(Vec::new(), None, 3));
        let engine = made(&tape, &key(1));
        tape.refuse(Fault { at: 3, times: 1, kind: std::io::ErrorKind::Other });
        engine.rewrite(&Change::NextEpoch).unwrap_err();
        tape.mend();
        engine.recover().unwrap();
        let first = tape.image();
        assert_eq!(engine.rewrite(&Change::NextEpoch).unwrap(), 3, "2 was tried");
        // Were they of one generation all the same, as of a program before this: told, and settled.
        let mut image = tape.image();
        image[4096..8192].copy_from_slice(&first[4096..8192]);
        let mixed = engine.head();
        let aad = Aad::of("dek1", &[b"x"]);
        let wrapped = engine.keys().wrap_dek(&Key::random(), &aad);
        engine.abandon();
        let other = mixed.changed(&Change::NewestEpochAlone, 1).and_then(|one| one.changed(&Change::NextEpoch, 2)).unwrap();
        assert_eq!(other.generation, mixed.generation);
        image[4096..8192].copy_from_slice(&other.encode(1));
        let torn = Arc::new(Tape::recording(image));
        let file: Arc<dyn Medium> = Arc::clone(&torn) as _;
        assert_eq!(Engine::check_on(&file, &options(), &key(1)).unwrap().0.superblocks, [true, false]);
        let engine = Engine::open_on(Arc::clone(&torn) as _, &options(), &key(1)).unwrap();
        assert!(engine.settle().unwrap());
        engine.close().unwrap();
        assert!(Engine::check_on(&file, &options(), &key(1)).unwrap().0.is_spotless());
        let mut image = torn.image();
        image[..4096].fill(0);
        assert!(open(image, &options(), &key(1)).unwrap().keys().unwrap_dek(&wrapped, &aad).is_ok());
    }
}
