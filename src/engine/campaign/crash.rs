//! Power cuts: at every change of the disk, in work, growth, shrinking, creation and copying, and again while opening after the first cut.
//!
//! Asked at each point: the file opens, its tree walks, and it holds exactly what was acknowledged, or that and the one commit under way.

use std::sync::Arc;

use super::disk::{Op, Tape, apply, cut};
use super::frozen::frozen;
use super::*;

/// A recorded run: every change of the disk, and after how many of them each state was acknowledged.
struct Run {
    ops: Vec<Op>,
    acknowledged: Vec<(usize, Model)>,
}

fn record(seed: u64, commits: usize, options: &Options) -> Run {
    let mut chance = Chance(seed);
    let tape = Arc::new(Tape::recording(Vec::new()));
    let engine = create(Arc::clone(&tape) as Arc<dyn Medium>, &kek(), options);
    let mut model = Model::new();
    let mut acknowledged = vec![(tape.count(), model.clone())];
    let mut view = None;
    for at in 0..commits {
        // In every other run a view is held for half of it.
        if seed % 2 == 1 && at == commits / 4 {
            view = Some((frozen(&engine), model.clone()));
        }
        let changes = changes(&mut chance, &model, true);
        commit(&engine, &changes).unwrap();
        super::apply(&mut model, &changes);
        acknowledged.push((tape.count(), model.clone()));
        if let Some((view, shown)) = view.take_if(|_| at == commits * 3 / 4) {
            assert!(contents(&view).unwrap() == shown, "run {seed}");
        }
    }
    engine.close().unwrap();
    let ops = tape.ops();
    Run { ops, acknowledged }
}

/// Opens `image` after a cut; the state must be one of `allowed`. Gives the changes that opening and one more commit made to the disk, and
/// the state found.
fn survives(image: Vec<u8>, allowed: &[&Model], options: &Options, what: &str) -> (Vec<Op>, Model) {
    let tape = Arc::new(Tape::recording(image));
    let engine = Engine::open_on(Arc::clone(&tape) as Arc<dyn Medium>, options, &kek()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = contents(&engine).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(allowed.contains(&&found), "{what}: an acknowledged commit is lost, or half of one is there");
    commit(&engine, &[(A, b"after".to_vec(), Some(vec![1; 5000]))]).unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(engine);
    (tape.ops(), found)
}

#[test]
fn no_power_cut_loses_an_acknowledged_commit() {
    let wanted = amount(30, 1500, 10_000);
    let (mut points, mut doubles, mut grown, mut shrunk, mut seed) = (0, 0, 0, 0, 0);
    while points < wanted {
        let options = Options { stride: if seed % 3 == 2 { 8192 } else { 4608 }, cache_bytes: 64 << 10, ..options() };
        let run = record(seed, 16, &options);
        let (mut durable, mut pending) = (Vec::new(), Vec::new());
        let mut chance = Chance(1000 + seed);
        let mut len = 0;
        // Unless few are wanted, every change of the run is cut at.
        let step = (run.ops.len() / wanted).max(1);
        for (i, op) in run.ops.iter().enumerate() {
            if let Op::SetLen(to) = op {
                grown += usize::from(*to > len);
                shrunk += usize::from(*to < len);
                len = *to;
            }
            // The change under way counts as pending: the cut falls before its end.
            pending.push(op.clone());
            if let Some(last) = run.acknowledged.iter().rposition(|(count, _)| *count <= i)
                && i % step == 0
            {
                let allowed: Vec<&Model> = run.acknowledged[last..].iter().take(2).map(|(_, model)| model).collect();
                let what = format!("run {seed}, change {i}");
                let image = cut(&durable, &pending, &mut chance);
                let (ops, found) = survives(image.clone(), &allowed, &options, &what);
                points += 1;
                if points % 4 == 0 {
                    second_cut(&image, &ops, &found, &options, &mut chance, &what);
                    doubles += 1;
                }
            }
            if matches!(op, Op::Sync) {
                pending.drain(..).for_each(|op| apply(&mut durable, &op));
            }
        }
        let last = &run.acknowledged.last().expect("creation is acknowledged").1;
        survives(durable, &[last], &options, "after a clean stop");
        seed += 1;
    }
    println!("crash: {points} cuts in {seed} runs, {doubles} followed by a second one; the file grew {grown} and shrank {shrunk} times");
    assert!(grown > 1 && shrunk > 0);
}

/// Cuts the power again somewhere while the file opens or makes one more commit.
fn second_cut(image: &[u8], ops: &[Op], found: &Model, options: &Options, chance: &mut Chance, what: &str) {
    let until = chance.below(ops.len()) + 1;
    let last_sync = ops[..until - 1].iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
    let mut durable = image.to_vec();
    ops[..last_sync].iter().for_each(|op| apply(&mut durable, op));
    let image = cut(&durable, &ops[last_sync..until], chance);
    let mut after = found.clone();
    after.insert((A.0, b"after".to_vec()), vec![1; 5000]);
    survives(image, &[found, &after], options, &format!("{what}, second cut at {until} of {}", ops.len()));
}

#[test]
fn a_file_that_appears_by_creation_or_copy_is_whole_and_synced_before_it_appears() {
    let options = options();
    let source_tape = Arc::new(Tape::recording(Vec::new()));
    let source = create(Arc::clone(&source_tape) as Arc<dyn Medium>, &kek(), &options);
    let mut model = Model::new();
    let mut chance = Chance(5);
    for _ in 0..8 {
        let changes = changes(&mut chance, &model, true);
        commit(&source, &changes).unwrap();
        super::apply(&mut model, &changes);
    }
    let tape = Arc::new(Tape::recording(Vec::new()));
    let copy = Engine::create_on(Arc::clone(&tape) as Arc<dyn Medium>, &options, source.head().for_copy()).unwrap();
    let created = tape.count();
    let snapshot = source.snapshot().unwrap();
    (0..options.tables.len()).for_each(|index| copy.fill(&snapshot, index, &mut |row| Ok(Some(row)), &mut |_| Ok(())).unwrap());
    copy.open.write().unwrap().as_mut().unwrap().check_tree().unwrap();
    let copied = tape.count();
    let ops = tape.ops();
    let image = |until: usize, pending: bool| {
        let synced = ops[..until].iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
        let mut image = Vec::new();
        ops[..if pending { until } else { synced }].iter().for_each(|op| apply(&mut image, op));
        image
    };
    // At the moment of the rename: only what was synced, and everything.
    for pending in [false, true] {
        survives(image(created, pending), &[&Model::new()], &options, "created");
        survives(image(copied, pending), &[&model], &options, "copied");
    }
    // Before it, the file lies under a temporary name; whatever a cut leaves there is never taken for something else.
    let (mut points, mut refused) = (0, 0);
    for until in 1..copied {
        for _ in 0..amount(1, 1, 8) {
            let synced = ops[..until].iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
            let left = cut(&image(until, false), &ops[synced..until], &mut chance);
            points += 1;
            match Engine::open_on(Arc::new(Tape::recording(left)), &options, &kek()) {
                Ok(engine) => {
                    let found = contents(&engine).unwrap();
                    assert!(found.iter().all(|(key, value)| model.get(key) == Some(value)));
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("crash: {points} cuts inside creation and copying, {refused} leave a file that is refused");
}
