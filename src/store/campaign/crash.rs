//! Power cuts under a store at work: at changes of the disk, while threads write, change and read.
//!
//! Asked at each point: the store opens; every memory that was acknowledged is there, with its entry; tables, indexes and log agree; nothing
//! is there that nobody asked for; and the store goes on.

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::engine::campaign::disk::replay;
use crate::engine::campaign::{Chance, amount};
use crate::policy::action::{PurgeMemory, TrashMemory};

/// What was acknowledged, and when: the number of changes that the disk had seen then.
struct Acknowledged {
    changes: usize,
    id: MemoryId,
    index: u64,
    /// What the memory says, or nothing if this was its end.
    says: Option<String>,
}

/// Writes, trashes and purges; notes each acknowledgement after it came.
fn work(house: &House, thread: usize, rounds: usize, acknowledged: &Mutex<Vec<Acknowledged>>) {
    let (vault, owner) = (house.vault(), house.owner());
    let note = |id, index, says| {
        let mut all = acknowledged.lock().unwrap();
        all.push(Acknowledged { changes: house.tape.count(), id, index, says });
    };
    let mut mine = Vec::new();
    for round in 0..rounds {
        let says = format!("memory {round} of thread {thread}");
        let (id, receipt) = create(vault, &owner, &Call::internal(), &says).unwrap();
        note(id, receipt.index(), Some(says));
        mine.push(id);
        if round % 3 == 2 {
            let id = mine.remove(0);
            vault.write::<TrashMemory, _, Wrong>(&owner, id, &Call::internal(), |a| Ok(memories::trash(a, None)?.is_some())).unwrap();
            // Between asking and the answer it may be there or not; a cut in that time allows both.
            let gone = vault.write::<PurgeMemory, _, Wrong>(&owner, id, &Call::internal(), |a| Ok(memories::purge(a, usize::MAX)?));
            note(id, gone.unwrap().into_parts().1.index(), None);
        }
    }
}

#[test]
fn no_power_cut_loses_what_was_acknowledged_or_parts_a_row_from_its_entry() {
    let wanted = amount(40, 300, 4000);
    let (mut points, mut runs, mut kept, mut ended, mut seed) = (0, 0, 0, 0, 0);
    while points < wanted {
        let mut house = House::made_on(Arc::new(Tape::recording(Vec::new())));
        let ready = house.tape.count();
        let acknowledged = Mutex::default();
        thread::scope(|threads| {
            for name in 0..3 {
                let (house, acknowledged) = (&house, &acknowledged);
                threads.spawn(move || work(house, name, 6, acknowledged));
            }
        });
        house.stop();
        let acknowledged: Vec<Acknowledged> = acknowledged.into_inner().unwrap();
        let asked: HashSet<&str> = acknowledged.iter().filter_map(|a| a.says.as_deref()).collect();
        let (ops, mut chance) = (house.tape.ops(), Chance(seed));
        let step = (ops.len() / wanted).max(1);
        replay(&ops, &mut chance, |at, cut| {
            if at >= ready && at % step == 0 {
                let what = format!("run {seed}, change {at}");
                let tape = Arc::new(Tape::faulty(cut(), None, seed));
                let held = held(&tape, &what);
                let until = || acknowledged.iter().filter(|a| a.changes <= at);
                for one in until() {
                    let entry = held.entries.get(usize::try_from(one.index).unwrap()).unwrap_or_else(|| panic!("{what}: an entry is lost"));
                    assert!(entry.res.as_ref().unwrap().ids.contains(&one.id.into()), "{what}: an entry is not the acknowledged one");
                    let last = acknowledged.iter().rfind(|a| a.id == one.id).unwrap();
                    match &one.says {
                        None => assert!(!held.contents.contains_key(&one.id), "{what}: a purged memory is back"),
                        Some(says) if last.says.is_some() => {
                            assert_eq!(held.contents.get(&one.id), Some(says), "{what}: a memory is lost");
                        }
                        Some(_) => {}
                    }
                }
                assert!(held.contents.values().all(|text| asked.contains(text.as_str())), "{what}: a memory that nobody wrote");
                (kept, ended) = (kept + until().filter(|a| a.says.is_some()).count(), ended + until().filter(|a| a.says.is_none()).count());
                if points % 8 == 0 {
                    let house = House::on(tape, &Clock::system()).unwrap_or_else(|error| panic!("{what}: {error}"));
                    create(house.vault(), &house.owner(), &Call::internal(), "after").unwrap();
                }
                points += 1;
            }
        });
        (runs, seed) = (runs + 1, seed + 1);
    }
    println!("store power cuts: {points} in {runs} runs; {kept} times a memory was kept, {ended} times gone for good");
    assert!(kept > points && ended > 0);
}
