//! Campaigns: seeded, counted attacks on the engine. Short by default; `ROSEMARY_LONG=1` runs the full numbers.
//! In a build without optimisation a few points of each run, unless the full form is asked for.
//!
//! `crash`: power cuts at every write. `frozen`: views of one commit beside all of it. `tamper`: changed, moved, replayed and cut bytes. `fault`: the system refuses a call. `sync`: two threads sync one file, and a refusal is told to one of them.

mod crash;
pub mod disk;
mod fault;
mod frozen;
mod sync;
mod tamper;

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::crypto::aead::seal_into;
use crate::crypto::secret::Key;
use crate::crypto::unlock::Kek;
use crate::engine::batch::tests::{A, B, kek, options};
use crate::engine::header::Superblock;
use crate::engine::medium::Medium;
use crate::engine::{Batch, CommitError, Engine, EngineError, Options, Read, Table};
use std::sync::Arc;

/// Whether the full form was asked for.
pub fn long() -> bool {
    std::env::var_os("ROSEMARY_LONG").is_some_and(|value| value == "1")
}

/// How many points to run: few in a build without optimisation (where sealing is forty times slower), `short`, or `full`.
pub fn amount(few: usize, short: usize, full: usize) -> usize {
    static FEW: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
        let (key, mut out) = (Key::random(), [0; 4096 + 40]);
        let mut seal = || {
            let start = std::time::Instant::now();
            seal_into(&key, b"", &[0; 4096], &mut out);
            start.elapsed()
        };
        (0..16).map(|_| seal()).min().is_some_and(|best| best > std::time::Duration::from_micros(60))
    });
    match long() {
        true => full,
        false if *FEW => few,
        false => short,
    }
}

/// A small seeded generator (splitmix64), so that a failing point can be run again.
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What the tables should hold.
type Model = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// One change; `None` deletes.
type Change = (Table, Vec<u8>, Option<Vec<u8>>);

/// The changes of one commit: mostly small rows, sometimes large ones (the file grows), sometimes many deletions (it shrinks).
fn changes(chance: &mut Chance, model: &Model, large: bool) -> Vec<Change> {
    if large && chance.one_in(5) && model.len() > 20 {
        return model.keys().filter(|_| !chance.one_in(4)).map(|(table, key)| (Table(*table), key.clone(), None)).collect();
    }
    (0..1 + chance.below(12))
        .map(|_| {
            let table = if chance.one_in(2) { A } else { B };
            let key = format!("key-{:03}", chance.below(150)).into_bytes();
            let len = if large && chance.one_in(6) { 20_000 + chance.below(250_000) } else { chance.below(400) };
            let fill = u8::try_from(chance.below(256)).unwrap();
            (table, key, (!chance.one_in(5)).then(|| vec![fill; len]))
        })
        .collect()
}

fn apply(model: &mut Model, changes: &[Change]) {
    for (table, key, value) in changes {
        match value {
            Some(value) => model.insert((table.0, key.clone()), value.clone()),
            None => model.remove(&(table.0, key.clone())),
        };
    }
}

fn apply_to(batch: &mut Batch<'_>, changes: &[Change]) -> Result<(), EngineError> {
    for (table, key, value) in changes {
        match value {
            Some(value) => batch.put(*table, key, value)?,
            None => drop(batch.delete(*table, key)?),
        }
    }
    Ok(())
}

fn commit(engine: &Engine, changes: &[Change]) -> Result<(), CommitError> {
    engine.commit(|batch| apply_to(batch, changes))
}

/// Everything the engine answers.
fn contents(engine: &Engine) -> Result<Model, EngineError> {
    let snapshot = engine.snapshot()?;
    let mut model = Model::new();
    for table in [A, B] {
        for entry in snapshot.range(table, Bound::Unbounded, Bound::Unbounded)? {
            let (key, value) = entry?;
            model.insert((table.0, key), value);
        }
    }
    Ok(model)
}

/// An empty disk in memory.
pub fn memory() -> Arc<dyn Medium> {
    Arc::new(disk::Tape::recording(Vec::new()))
}

/// An engine with these tables on a disk in memory: made there, or opened.
pub fn engine_on(tape: &Arc<disk::Tape>, tables: &'static [&'static str], new: bool) -> Result<Engine, EngineError> {
    let (medium, options) = (Arc::clone(tape) as Arc<dyn Medium>, Options { tables, ..options() });
    match new {
        true => Ok(create(medium, &kek(), &options)),
        false => Engine::open_on(medium, &options, &kek()),
    }
}

fn create(medium: Arc<dyn Medium>, kek: &Kek, options: &Options) -> Engine {
    Engine::create_on(medium, options, Superblock::new(options.stride, kek, options.kdf).unwrap()).unwrap()
}

/// Every block of a file that opens, used or free, as plain bytes; with the keys that the file still holds.
pub fn plain_blocks(image: &[u8]) -> (Arc<crate::crypto::ladder::Keys>, crate::base::id::InstanceId, Vec<Vec<u8>>) {
    use crate::engine::block::{Blocks, place};
    use crate::engine::header::{BLOCK_BYTES, PageZero};
    let medium: Arc<dyn Medium> = Arc::new(disk::Tape::recording(image.to_vec()));
    let head = Superblock::read(&*medium, &kek()).unwrap();
    let zero = PageZero::read(&*medium, head.file, head.keys.block()).unwrap();
    let blocks = Blocks::new(Arc::clone(&medium), head.file, head.keys.block(), head.stride, zero);
    blocks.opened();
    let mut all = Vec::new();
    for number in (1..).take_while(|number| place(*number, head.stride.into()) < image.len() as u64) {
        let mut plain = vec![0; BLOCK_BYTES];
        if blocks.read_block(number, &mut plain).is_ok() {
            all.push(plain);
        }
    }
    (Arc::clone(&head.keys), head.instance, all)
}
