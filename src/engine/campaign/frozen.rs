//! Views: what one shows while the engine below it writes, grows, shrinks, changes its keys and fails.
//!
//! Asked each time: a view shows the rows of the commit at which it was taken, or says that it cannot; the engine goes on as without it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::{Fault, Tape};
use super::*;
use crate::engine::batch::tests::Folder;
use crate::engine::block::medium_len;
use crate::engine::header::Change as HeadChange;
use crate::engine::header::PageZero;
use crate::engine::medium::DiskFile;

const CACHE: usize = 32 << 10;

fn recording() -> Arc<Tape> {
    Arc::new(Tape::recording(Vec::new()))
}

/// A view whose changed blocks are kept in memory.
pub fn frozen(engine: &Engine) -> Engine {
    engine.freeze_on(recording(), CACHE).unwrap()
}

/// Commits of every kind, kept in step with the model.
fn work(engine: &Engine, model: &mut Model, chance: &mut Chance, commits: usize) {
    for _ in 0..commits {
        let changes = changes(chance, model, true);
        commit(engine, &changes).unwrap();
        apply(model, &changes);
    }
}

#[test]
fn a_view_shows_its_commit_while_others_overwrite_grow_and_shrink_the_file() {
    let (mut longer, mut cut) = (0, 0);
    for seed in 0..amount(3, 30, 300) as u64 {
        let options = Options { stride: if seed % 3 == 2 { 8192 } else { 4608 }, cache_bytes: CACHE, ..options() };
        let (tape, kept, mut chance, mut model) = (recording(), recording(), Chance(seed), Model::new());
        let engine = create(Arc::clone(&tape) as _, &kek(), &options);
        work(&engine, &mut model, &mut chance, 4);
        // Opened as after a crash, or after a clean stop.
        let engine = if seed % 2 == 0 {
            engine
        } else {
            engine.close().unwrap();
            Engine::open_on(Arc::clone(&tape) as _, &options, &kek()).unwrap()
        };
        let (before, shown) = (tape.image().len(), model.clone());
        let view = engine.freeze_on(Arc::clone(&kept) as _, CACHE).unwrap();
        let early = view.snapshot().unwrap();
        for _ in 0..6 {
            work(&engine, &mut model, &mut chance, 5);
            assert!(contents(&view).unwrap() == shown, "run {seed}");
            assert!(contents(&engine).unwrap() == model, "run {seed}");
            assert!(tape.image().len() >= before);
        }
        // Nothing is kept twice, and nothing but whole blocks as they lay.
        let mut places = std::collections::BTreeSet::new();
        for op in kept.ops() {
            let disk::Op::Write(at, bytes) = op else { panic!("only written to") };
            assert!(places.insert(at) && (at - 40960) % u64::from(options.stride) == 0 && bytes.len() <= options.stride as usize);
        }
        assert!(!places.is_empty() && places.len() <= before / options.stride as usize);
        let held = tape.image().len();
        drop((early, view));
        // The cut that waited was made.
        let head = engine.head();
        let length = PageZero::read(&*tape, head.file, head.keys.block()).unwrap().length;
        assert_eq!(tape.image().len() as u64, medium_len(length, options.stride.into()));
        longer += usize::from(held > before);
        cut += usize::from(tape.image().len() < held);
        let kept_so_far = kept.count();
        work(&engine, &mut model, &mut chance, 3);
        assert_eq!(kept.count(), kept_so_far, "nothing is kept any more");
        assert!(contents(&engine).unwrap() == model);
        engine.close().unwrap();
        let (report, _) = Engine::check_on(&(tape as Arc<dyn Medium>), &options, &kek()).unwrap();
        assert!(report.is_spotless(), "{report:?}");
    }
    println!("views: the file grew in {longer} of them, and was cut after {cut}");
    assert!(longer > 0 && cut > 0);
}

#[test]
fn a_view_is_read_while_another_thread_commits() {
    let folder = Folder::new();
    let engine = Engine::create(&folder.file(), &options(), &kek()).unwrap();
    let (mut model, mut chance, done) = (Model::new(), Chance(3), AtomicBool::new(false));
    work(&engine, &mut model, &mut chance, 10);
    for round in 0..amount(2, 4, 40) {
        let shown = model.clone();
        let view = engine.freeze(std::path::Path::new("/nowhere/on another disk"), CACHE).unwrap();
        done.store(false, Ordering::Release);
        std::thread::scope(|threads| {
            let reader = threads.spawn(|| {
                let mut readings = 0;
                while !done.load(Ordering::Acquire) || readings == 0 {
                    assert!(contents(&view).unwrap() == shown, "round {round}, reading {readings}");
                    readings += 1;
                }
            });
            work(&engine, &mut model, &mut chance, 60);
            done.store(true, Ordering::Release);
            reader.join().unwrap();
        });
        assert!(contents(&view).unwrap() == shown);
    }
    assert_eq!(std::fs::read_dir(folder.file().parent().unwrap()).unwrap().count(), 1, "what is kept has no name");
}

/// Commits that follow one another without a pause, which kept everybody waiting who wanted the next turn.
#[test]
fn a_freezing_comes_to_its_turn_among_commits_and_only_one_view_is_held() {
    let engine = create(recording(), &kek(), &options());
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(Ordering::Acquire) {
                engine.commit(|batch| batch.put(A, b"k", &[1; 3000])).unwrap();
            }
        });
        for _ in 0..20 {
            let view = frozen(&engine);
            assert!(matches!(engine.freeze_on(recording(), CACHE), Err(EngineError::InUse)));
            drop(view);
        }
        done.store(true, Ordering::Release);
    });
    assert!(!engine.is_latched());
}

#[test]
fn a_freezing_that_waits_for_a_commit_which_fails_keeps_nobody_from_recovery() {
    let tape = Arc::new(Tape::faulty(Vec::new(), None, 4));
    let (mut model, mut chance) = (Model::new(), Chance(4));
    let engine = create(Arc::clone(&tape) as _, &kek(), &options());
    work(&engine, &mut model, &mut chance, 4);
    for panics in [true, false] {
        let under_way = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| {
                while !under_way.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                engine.freeze_on(recording(), CACHE)
            });
            let outcome = engine.commit(|batch| {
                batch.put(A, b"never", b"there")?;
                under_way.store(true, Ordering::Release);
                std::thread::sleep(std::time::Duration::from_millis(100));
                assert!(!panics, "on purpose");
                tape.refuse(Fault { at: 0, times: 1, kind: ErrorKind::Other });
                Ok(())
            });
            assert!(outcome.is_err());
            tape.mend();
            engine.recover().unwrap();
            // A commit of unknown outcome is in no view; what a panic left behind is as after a crash.
            if let Ok(view) = waits.join().unwrap() {
                assert!(panics && contents(&view).unwrap() == model);
            }
        });
        model = contents(&engine).unwrap();
        assert!(contents(&frozen(&engine)).unwrap() == model);
    }
}

#[test]
fn keys_that_change_meanwhile_are_not_those_of_the_view_and_copies_of_it_open() {
    let (folder, tape, mut model, mut chance) = (Folder::new(), recording(), Model::new(), Chance(11));
    let engine = create(Arc::clone(&tape) as _, &kek(), &options());
    work(&engine, &mut model, &mut chance, 8);
    let (shown, view) = (model.clone(), frozen(&engine));
    for change in [HeadChange::NextEpoch, HeadChange::NewestEpochAlone, HeadChange::NextSigning] {
        engine.rewrite(&change).unwrap();
        work(&engine, &mut model, &mut chance, 4);
    }
    let copy = folder.file();
    assert_eq!((view.generation(), view.keys().epochs(), view.keys().next_signing().is_some()), (1, (1, 1), false));
    view.copy_to(&copy).unwrap();
    assert!(contents(&view).unwrap() == shown);
    drop(view);
    let copied = Engine::open(&copy, &options(), &kek()).unwrap();
    assert_eq!((copied.keys().epochs(), copied.instance()), ((1, 1), engine.instance()));
    assert!(contents(&copied).unwrap() == shown);
    let view = frozen(&engine);
    assert_eq!((view.generation(), view.keys().epochs()), (4, (2, 2)));
    drop(view);
    drop(engine);
    assert!(contents(&Engine::open_on(tape, &options(), &kek()).unwrap()).unwrap() == model);
}

#[test]
fn what_cannot_be_kept_spoils_the_view_alone() {
    for (at, kind) in [(0, ErrorKind::StorageFull), (3, ErrorKind::Other), (20, ErrorKind::StorageFull)] {
        let (tape, kept) = (recording(), Arc::new(Tape::faulty(Vec::new(), None, 1)));
        let (mut model, mut chance) = (Model::new(), Chance(at));
        let engine = create(tape, &kek(), &options());
        work(&engine, &mut model, &mut chance, 10);
        let view = engine.freeze_on(Arc::clone(&kept) as _, CACHE).unwrap();
        let snapshot = view.snapshot().unwrap();
        kept.refuse(Fault { at, times: 1, kind });
        work(&engine, &mut model, &mut chance, 20);
        assert!(kept.image().is_empty(), "the room is given back");
        assert!(
            matches!(snapshot.get(A, b"key-001").map(drop).and(contents(&view).map(drop)), Err(EngineError::Spoilt { kind: told }) if told == kind)
        );
        let message = EngineError::Spoilt { kind }.to_string();
        assert!(message.contains("free space there and try again"), "{message}");
        assert!(!engine.is_latched() && contents(&engine).unwrap() == model);
        drop((snapshot, view));
        let again = frozen(&engine);
        assert!(contents(&again).unwrap() == model);
    }
}

/// What was kept and cannot be read is no damage of the data file.
#[test]
fn what_was_kept_and_cannot_be_read_is_said_of_the_view() {
    let (kept, mut model, mut chance) = (Arc::new(Tape::faulty(Vec::new(), None, 1)), Model::new(), Chance(5));
    let engine = create(recording(), &kek(), &options());
    work(&engine, &mut model, &mut chance, 10);
    let view = engine.freeze_on(Arc::clone(&kept) as _, CACHE).unwrap();
    work(&engine, &mut model, &mut chance, 20);
    kept.refuse(Fault { at: 0, times: 1, kind: ErrorKind::Other });
    assert!(matches!(contents(&view), Err(EngineError::Spoilt { .. })));
    assert!(!engine.is_latched() && contents(&engine).unwrap() == model);
}

#[test]
fn a_view_stays_true_through_failure_and_recovery_below_it() {
    let (mut shown_after, mut refused) = (0, 0);
    for at in 0..amount(10, 60, 400) as u64 {
        let tape = Arc::new(Tape::faulty(Vec::new(), None, at));
        let (mut model, mut chance) = (Model::new(), Chance(6));
        let engine = create(Arc::clone(&tape) as _, &kek(), &Options { cache_bytes: CACHE, ..options() });
        work(&engine, &mut model, &mut chance, 6);
        let (shown, view) = (model.clone(), frozen(&engine));
        let snapshot = view.snapshot().unwrap();
        tape.refuse(Fault { at, times: 1 + at % 3, kind: ErrorKind::Other });
        for _ in 0..6 {
            let changes = changes(&mut chance, &model, true);
            let mut after = model.clone();
            apply(&mut after, &changes);
            model = match commit(&engine, &changes) {
                Ok(()) => after,
                Err(_) => {
                    tape.mend();
                    engine.recover().unwrap();
                    let found = contents(&engine).unwrap();
                    assert!(found == model || found == after);
                    found
                }
            };
            match contents(&view) {
                Ok(found) => {
                    assert!(found == shown, "refused at {at}");
                    shown_after += 1;
                }
                Err(error) => {
                    assert!(
                        matches!(error, EngineError::Spoilt { .. } | EngineError::Io { .. } | EngineError::Latched),
                        "refused at {at}: {error}"
                    );
                    refused += 1;
                }
            }
        }
        drop((snapshot, view));
        assert!(contents(&frozen(&engine)).unwrap() == model);
    }
    println!("views beside failures: {shown_after} readings true, {refused} refused");
    assert!(shown_after > refused && refused > 0);
}

#[test]
fn a_file_without_a_name_is_in_no_folder() {
    let folder = Folder::new();
    let parent = folder.file().parent().unwrap().to_owned();
    let file = DiskFile::nameless(&parent).unwrap();
    file.write_at(1 << 20, &[7; 100]).unwrap();
    let mut out = [0; 100];
    file.read_at(1 << 20, &mut out).unwrap();
    assert_eq!((out, std::fs::read_dir(&parent).unwrap().count()), ([7; 100], 0));
}
