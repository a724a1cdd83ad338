//! Refused calls: EIO and ENOSPC at each read, write, resize and sync of a run, once or from then on until mended.
//!
//! Asked at each point: a commit that was acknowledged stays; one that was refused left nothing; one of unknown outcome is whole or absent;
//! after `recover` the store goes on; after a clean stop the file is sound.

use std::io::ErrorKind;
use std::sync::Arc;

use super::disk::{Fault, Tape};
use super::*;

#[derive(Default)]
struct Counts {
    points: u64,
    refused: u64,
    unknown_there: u64,
    unknown_absent: u64,
    reads: u64,
    recoveries: u64,
    views: u64,
}

/// Runs commits and readings over a disk that refuses as `fault` says; the number of calls that the disk received.
fn run(base: &(Vec<u8>, Model), fault: Option<Fault>, seed: u64, counts: &mut Counts) -> u64 {
    let what = format!("{fault:?}");
    let options = Options { cache_bytes: 32 << 10, ..options() };
    let tape = Arc::new(Tape::faulty(base.0.clone(), fault, seed));
    let medium = || Arc::clone(&tape) as Arc<dyn Medium>;
    let mut model = base.1.clone();
    let mut chance = Chance(77);
    let engine = match Engine::open_on(medium(), &options, &kek()) {
        Ok(engine) => engine,
        Err(error) => {
            assert!(matches!(error, EngineError::Io { .. } | EngineError::Full), "{what}: {error}");
            tape.mend();
            Engine::open_on(medium(), &options, &kek()).unwrap_or_else(|error| panic!("{what}: mended, but {error}"))
        }
    };
    // Beside every third one a view is held, if it can be had; what keeps it away latches as anything else does.
    let view = (counts.points % 3 == 1)
        .then(|| engine.freeze_on(Arc::new(Tape::recording(Vec::new())), 32 << 10).map(|view| (view, model.clone())));
    if engine.is_latched() {
        tape.mend();
        engine.recover().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    for _ in 0..5 {
        let changes = changes(&mut chance, &model, true);
        let mut after = model.clone();
        apply(&mut after, &changes);
        match commit(&engine, &changes) {
            Ok(()) => model = after,
            Err(outcome) => {
                assert!(engine.is_latched() && engine.snapshot().is_err(), "{what}: latched after a failure");
                // Before the system works again, recovery may fail; it never half succeeds.
                if engine.recover().is_err() {
                    assert!(engine.is_latched() && engine.snapshot().is_err(), "{what}: latched after a failed recovery");
                    counts.recoveries += 1;
                }
                tape.mend();
                engine.recover().unwrap_or_else(|error| panic!("{what}: {error}"));
                let found = contents(&engine).unwrap_or_else(|error| panic!("{what}: {error}"));
                match outcome {
                    CommitError::Refused(_) => {
                        assert!(found == model, "{what}: a refused commit left something");
                        counts.refused += 1;
                    }
                    CommitError::Unknown(_) if found == after => {
                        model = after;
                        counts.unknown_there += 1;
                    }
                    CommitError::Unknown(_) => {
                        assert!(found == model, "{what}: half of a commit, or a lost one");
                        counts.unknown_absent += 1;
                    }
                }
            }
        }
        match contents(&engine) {
            Ok(found) => assert!(found == model, "{what}: a wrong answer"),
            Err(_) => {
                counts.reads += 1;
                tape.mend();
                engine.recover().unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(contents(&engine).unwrap() == model, "{what}: a wrong answer after recovery");
            }
        }
    }
    let calls = tape.calls();
    if let Some(Ok((view, shown))) = view {
        match contents(&view) {
            Ok(found) => assert!(found == shown, "{what}: a view that changed"),
            Err(_) => counts.views += 1,
        }
    }
    let _ = engine.close();
    tape.mend();
    tape.forget().unwrap();
    let engine = Engine::open_on(medium(), &options, &kek()).unwrap_or_else(|error| panic!("{what}: reopened, {error}"));
    assert!(contents(&engine).unwrap() == model, "{what}: an acknowledged commit is lost");
    drop(engine);
    let (report, _) = Engine::check_on(&medium(), &options, &kek()).unwrap();
    assert!(report.is_sound(), "{what}: {report:?}");
    calls
}

#[test]
fn no_refused_call_loses_an_acknowledgement_or_claims_a_false_outcome() {
    let tape = Arc::new(Tape::recording(Vec::new()));
    let engine = create(Arc::clone(&tape) as Arc<dyn Medium>, &kek(), &options());
    let (mut model, mut chance) = (Model::new(), Chance(8));
    for _ in 0..4 {
        let changes = changes(&mut chance, &model, true);
        commit(&engine, &changes).unwrap();
        apply(&mut model, &changes);
    }
    engine.close().unwrap();
    let base = (tape.image(), model);
    let mut counts = Counts::default();
    let calls = run(&base, None, 0, &mut counts);
    let step = usize::try_from(calls).unwrap().div_ceil(amount(8, 24, 100_000)).max(1);
    for at in (0..calls).step_by(step) {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            for times in [1, u64::MAX / 2] {
                run(&base, Some(Fault { at, times, kind }), at, &mut counts);
                counts.points += 1;
            }
        }
    }
    println!(
        "fault: {} points over {calls} calls: {} commits refused and absent, {} of unknown outcome there, {} absent, {} readings refused, \
         {} recoveries failed until mended; {} views could not be shown",
        counts.points, counts.refused, counts.unknown_there, counts.unknown_absent, counts.reads, counts.recoveries, counts.views
    );
    assert!(counts.refused > 0 && counts.unknown_there + counts.unknown_absent > 0);
}
