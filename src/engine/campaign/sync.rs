//! Two threads sync one file: the system tells a refused sync once, to whichever thread asks first, and takes what it could not write for written.
//!
//! Asked: a commit that was acknowledged is durable, and so is a rewriting, whoever was told of the refusal; the store is shut by it and goes on
//! after `recover`.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Weak};

use super::disk::{Fault, Tape};
use super::*;
use crate::engine::frozen::Live;
use crate::engine::header::{self, SUPERBLOCK_STARTS};

/// A disk that refuses syncs.
#[derive(Debug)]
struct Shaky {
    tape: Tape,
    chance: Mutex<Chance>,
    /// One in so many syncs; 0: none.
    one_in: AtomicU64,
    /// What else syncs, once, right after the next write.
    beside: Mutex<Option<Weak<Live>>>,
}

impl Shaky {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            tape: Tape::faulty(Vec::new(), None, seed),
            chance: Mutex::new(Chance(seed)),
            one_in: AtomicU64::new(0),
            beside: Mutex::default(),
        })
    }

    fn refuse(&self) {
        self.tape.refuse(Fault { at: 0, times: 1, kind: io::ErrorKind::Other });
    }
}

impl Medium for Shaky {
    fn len(&self) -> io::Result<u64> {
        self.tape.len()
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.tape.read_at(at, out)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.tape.write_at(at, bytes)?;
        if let Some(live) = self.beside.lock().unwrap().take().and_then(|live| live.upgrade()) {
            self.refuse();
            assert!(live.sync().is_err(), "told to the other thread");
            self.tape.mend();
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.tape.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut chance = self.chance.lock().unwrap();
        let one_in = usize::try_from(self.one_in.load(Ordering::SeqCst)).unwrap();
        if one_in > 0 && chance.one_in(one_in) {
            self.refuse();
        }
        let done = self.tape.sync();
        self.tape.mend();
        done
    }

    fn forget(&self) -> io::Result<()> {
        self.tape.forget()
    }
}

fn engine(disk: &Arc<Shaky>) -> Engine {
    create(Arc::clone(disk) as _, &kek(), &options())
}

/// The rotator's sync was told that the writer's blocks could not be written, nothing followed from it, and the writer's own sync found
/// nothing amiss: a commit was acknowledged that no power cut would have left.
#[test]
fn a_refusal_that_another_thread_is_told_of_fails_the_commit() {
    let (mut absent, mut there) = (0, 0);
    for seed in 0..8 {
        let disk = Shaky::new(seed);
        let engine = engine(&disk);
        commit(&engine, &[(A, b"k".to_vec(), Some(b"v".to_vec()))]).unwrap();
        let before = contents(&engine).unwrap();
        let changes: Vec<Change> = (0..50u32).map(|i| (A, i.to_be_bytes().to_vec(), Some(vec![7; 1000]))).collect();
        let mut after = before.clone();
        apply(&mut after, &changes);
        *disk.beside.lock().unwrap() = Some(Arc::downgrade(&engine.medium));
        assert!(matches!(commit(&engine, &changes), Err(CommitError::Unknown(_))) && engine.is_latched());
        engine.recover().unwrap();
        let found = contents(&engine).unwrap();
        assert!(found == before || found == after, "whole or absent");
        (absent, there) = (absent + u64::from(found == before), there + u64::from(found == after));
        commit(&engine, &changes).unwrap();
        engine.abandon();
        disk.tape.forget_unwritten();
        let engine = Engine::open_on(Arc::clone(&disk) as _, &options(), &kek()).unwrap();
        assert!(contents(&engine).unwrap() == after);
    }
    println!("sync: {absent} commits of unknown outcome were absent, {there} there");
}

/// The writer's sync was told that a copy of the superblock could not be written: the rewriting believed it durable.
#[test]
fn a_refusal_that_another_thread_is_told_of_fails_the_rewriting() {
    for seed in 0..20 {
        let disk = Shaky::new(seed);
        let engine = engine(&disk);
        engine.rewrite(&header::Change::NextEpoch).unwrap();
        *disk.beside.lock().unwrap() = Some(Arc::downgrade(&engine.medium));
        assert!(matches!(engine.rewrite(&header::Change::NewestEpochAlone), Err(EngineError::Io { .. })));
        assert!(engine.is_latched() && matches!(engine.settle(), Err(EngineError::Latched)), "it shuts the store");
        engine.recover().unwrap();
        assert_eq!(engine.keys().old_epoch(), Some(1), "the old keys are in use");
        let alike = engine.head().copies(&*engine.medium).unwrap() == [true; 2];
        assert_eq!(engine.settle().unwrap(), !alike, "what the medium holds is known");
        assert_eq!(engine.head().copies(&*engine.medium).unwrap(), [true; 2]);
        engine.rewrite(&header::Change::NewestEpochAlone).unwrap();
        engine.abandon();
        disk.tape.forget_unwritten();
        for (copy, at) in SUPERBLOCK_STARTS.into_iter().enumerate() {
            let (mut one, at) = (disk.tape.image(), usize::try_from(at).unwrap());
            one[at..at + 4096].fill(0);
            let engine = Engine::open_on(Arc::new(Tape::recording(one)), &options(), &kek()).unwrap();
            assert_eq!(engine.keys().old_epoch(), None, "without copy {copy}");
        }
    }
}

/// Ends the other thread however this one ends.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What the disk would hold after a power cut now.
fn after_a_power_cut(disk: &Shaky) -> Arc<dyn Medium> {
    Arc::new(Tape::recording(disk.tape.durable()))
}

#[test]
fn what_either_of_two_threads_was_told_is_durable_whichever_sync_is_refused() {
    let (mut kept, mut unknown, mut refused) = (0, 0, 0);
    let (rewritten, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    for seed in 0..amount(4, 20, 400) as u64 {
        let disk = Shaky::new(seed);
        let engine = engine(&disk);
        let (mut model, mut chance, over) = (Model::new(), Chance(seed), AtomicBool::new(false));
        disk.one_in.store(6, Ordering::SeqCst);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let alone = engine.keys().old_epoch().is_some();
                    match engine.rewrite(if alone { &header::Change::NewestEpochAlone } else { &header::Change::NextEpoch }) {
                        Ok(_) => {
                            let durable = after_a_power_cut(&disk);
                            assert_eq!(
                                engine.head().copies(&*durable).unwrap(),
                                [true; 2],
                                "seed {seed}: a rewriting that was told is not durable"
                            );
                            rewritten.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(EngineError::Latched) => std::thread::yield_now(),
                        Err(_) => drop(failed.fetch_add(1, Ordering::SeqCst)),
                    }
                }
            });
            let _ended = Over(&over);
            for _ in 0..12 {
                let changes = changes(&mut chance, &model, true);
                let mut after = model.clone();
                apply(&mut after, &changes);
                match commit(&engine, &changes) {
                    Ok(()) => {
                        model = after;
                        kept += 1;
                        let engine = Engine::open_on(after_a_power_cut(&disk), &options(), &kek());
                        let engine = engine.unwrap_or_else(|error| panic!("seed {seed}: after a power cut: {error}"));
                        assert!(contents(&engine).unwrap() == model, "seed {seed}: an acknowledged commit is not durable");
                    }
                    Err(outcome) => {
                        assert!(engine.is_latched(), "seed {seed}: {outcome}");
                        while engine.recover().is_err() {}
                        // The other thread may have shut it again by now.
                        let found = loop {
                            match contents(&engine) {
                                Ok(found) => break found,
                                Err(_) => drop(engine.recover()),
                            }
                        };
                        match outcome {
                            CommitError::Unknown(_) if found == after => model = after,
                            _ => assert!(found == model, "seed {seed}: half of a commit, or a lost one"),
                        }
                        *if matches!(outcome, CommitError::Unknown(_)) { &mut unknown } else { &mut refused } += 1;
                    }
                }
            }
        });
        disk.one_in.store(0, Ordering::SeqCst);
        engine.abandon();
        disk.tape.forget_unwritten();
        let medium = Arc::clone(&disk) as Arc<dyn Medium>;
        let engine = Engine::open_on(Arc::clone(&medium), &options(), &kek()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(contents(&engine).unwrap() == model, "seed {seed}");
        engine.settle().unwrap();
        engine.close().unwrap();
        let (report, _) = Engine::check_on(&medium, &options(), &kek()).unwrap();
        assert!(report.is_sound() && report.superblocks == [true; 2], "seed {seed}: {report:?}");
    }
    println!("sync: {kept} commits kept, {unknown} of unknown outcome, {refused} refused; {rewritten:?} rewritings, {failed:?} failed");
    assert!(kept > 0 && unknown > 0 && rewritten.into_inner() > 0 && failed.into_inner() > 0);
}
