//! A backup beside work: what it holds, and what it costs the data file.
//!
//! Asked: a backup is one commit, that of its checkpoint, whatever is written and deleted meanwhile; and the data file grows by as much as
//! without one.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::*;
use crate::engine::campaign::Chance;
use crate::policy::action::{PurgeMemory, TrashMemory};
use crate::store::backup::{Made, Order, Where};
use crate::store::restore::facts;

/// Blocks by which the file may grow more beside a backup, for each turn of three commits. Under a snapshot it is some hundred.
const BLOCKS_MORE: usize = 2;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rosemary-beside-{}", crate::base::hex::encode(&crate::base::rng::array::<8>())));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes and deletes, so that as many memories stay as there were.
struct Worker<'h> {
    house: &'h House,
    chance: Chance,
    there: Vec<MemoryId>,
    written: usize,
}

impl<'h> Worker<'h> {
    fn new(house: &'h House) -> Self {
        let mut worker = Self { house, chance: Chance(1), there: Vec::new(), written: 0 };
        (0..200).for_each(|_| worker.write());
        worker
    }

    fn write(&mut self) {
        let says = format!("memory {} {}", self.written, "x".repeat(self.chance.below(3000)));
        let (id, _) = create(self.house.vault(), &self.house.owner(), &Call::internal(), &says).unwrap();
        self.written += 1;
        self.there.push(id);
    }

    fn turn(&mut self) {
        self.write();
        let at = self.chance.below(self.there.len());
        let (id, vault, owner) = (self.there.swap_remove(at), self.house.vault(), self.house.owner());
        vault.write::<TrashMemory, _, Wrong>(&owner, id, &Call::internal(), |a| Ok(memories::trash(a, None)?.is_some())).unwrap();
        vault.write::<PurgeMemory, _, Wrong>(&owner, id, &Call::internal(), |a| Ok(memories::purge(a, usize::MAX)?)).unwrap();
    }

    /// What all memories say now.
    fn contents(&self) -> BTreeMap<MemoryId, String> {
        let published = self.house.vault().published().unwrap();
        memories::contents(&self.house.vault().reading(&published)).unwrap()
    }

    fn blocks(&self) -> usize {
        self.house.tape.image().len() / 4608
    }
}

fn made(house: &House, folder: &Path, progress: &mut dyn FnMut(u64)) -> Made {
    let never = AtomicBool::new(false);
    house.vault().backup(Order { place: Where::Folder(folder), key: None, keep: None, gentle: true, stop: &never, progress }).unwrap()
}

#[test]
fn a_backup_beside_writers_and_deleters_is_one_commit_and_lets_the_file_be() {
    let (house, folder) = (House::made_on(Arc::new(Tape::faulty(Vec::new(), None, 1))), Folder::new());
    let mut worker = Worker::new(&house);
    (0..100).for_each(|_| worker.turn());

    let (shown, before, mut turns) = (worker.contents(), worker.blocks(), 0);
    let backup = made(&house, &folder.0, &mut |_| {
        turns += 10;
        (0..10).for_each(|_| worker.turn());
    });
    let beside = worker.blocks() - before;
    let before = worker.blocks();
    (0..turns).for_each(|_| worker.turn());
    let without = worker.blocks() - before;
    let snapshot = house.vault().published().unwrap();
    let before = worker.blocks();
    (0..turns).for_each(|_| worker.turn());
    let under_a_snapshot = worker.blocks() - before;
    drop(snapshot);
    println!(
        "{turns} turns of three commits: {beside} blocks more beside a backup, {without} without, {under_a_snapshot} under a snapshot"
    );
    assert!(turns >= 100 && beside <= without + turns * BLOCKS_MORE && under_a_snapshot > without + 10 * turns * BLOCKS_MORE);

    // One commit: that of the checkpoint that its row tells of, and its own row says that it has begun.
    let copy = Arc::new(Tape::recording(std::fs::read(&backup.path).unwrap()));
    let engine = engine_on(&copy, TABLES, false).unwrap();
    assert_eq!(facts(&engine, &Clock::system()).unwrap().checkpoint.size, backup.backup.size);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
    drop(engine);
    let inside = held(&copy, "the backup");
    assert_eq!((inside.contents, inside.checkpoint.size), (shown, backup.backup.size));
    assert_eq!(inside.entries.last().unwrap().op.text(), "backup.begin");
}
