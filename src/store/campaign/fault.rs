//! Refused calls: EIO and ENOSPC at the calls of a store at work, once or from then on until mended, under writers and readers on threads.
//!
//! Asked at each point: what was acknowledged is there with its entry; what was refused is not; an unknown outcome is settled as the medium
//! says; an answer with data has its entry in the log; the store goes on once the system works again; recovery entries add up.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::audit::Outcome;
use crate::base::id::OperationId;
use crate::engine::campaign::amount;
use crate::engine::campaign::disk::Fault as Refusal;
use crate::policy::action::{ListMemories, ReadOperation};
use crate::store::accounts;
use crate::store::gate::Access;
use crate::store::tables::memories::{Part, State};
use crate::store::writer::{Settled, Unavailable};

/// What a writer was told of one memory.
enum Told {
    Kept(MemoryId, u64),
    Unknown,
    No,
}

#[derive(Default, Debug)]
struct Counts {
    points: u64,
    kept: u64,
    committed: u64,
    not_committed: u64,
    refused: u64,
    answers: u64,
    unanswered: u64,
    recoveries: u64,
    fatal: usize,
}

/// What happened at one point, by operation.
#[derive(Default)]
struct Seen {
    writes: HashMap<OperationId, (String, Told)>,
    reads: HashMap<OperationId, u64>,
    unanswered: u64,
}

/// One thread's writes and reads; each is told the truth or nothing.
fn work(house: &House, owner: &Principal, thread: usize, rounds: usize, seen: &Mutex<Seen>) {
    let vault = house.vault();
    for round in 0..rounds {
        let (call, content) = (Call::internal(), format!("memory {round} of thread {thread}"));
        let told = match create(vault, owner, &call, &content) {
            Ok((id, receipt)) => Told::Kept(id, receipt.index()),
            Err(Refused::Unavailable(Unavailable::Unknown(operation))) => {
                assert_eq!(operation, call.operation);
                Told::Unknown
            }
            Err(Refused::Unavailable(_) | Refused::Work(Wrong::Store(_), _)) => Told::No,
            Err(other) => panic!("{other:?}"),
        };
        seen.lock().unwrap().writes.insert(call.operation, (content, told));
        let call = Call::internal();
        let list = |access: &mut Access<'_, ListMemories>| {
            let mut found = Vec::new();
            for id in memories::page(access, State::Live, 0, 3)? {
                found.extend(memories::one(access, id, Part::Full, State::Live)?);
            }
            memories::answer(access, &found);
            Ok(found.len())
        };
        match vault.read::<ListMemories, _, Wrong>(owner, Scope { tenant: owner.tenant(), owner: owner.user() }, &call, list) {
            Ok(recorded) => drop(seen.lock().unwrap().reads.insert(call.operation, recorded.into_parts().1.index())),
            Err(Refused::Unavailable(_) | Refused::Work(..)) => seen.lock().unwrap().unanswered += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// The owner; while the store is shut nobody is admitted.
fn admitted_later(vault: &Vault) -> Principal {
    for _ in 0..100_000 {
        match vault.admit(OWNER_KEY) {
            Ok(Admission::Principal(who, _)) => return who,
            Ok(_) => panic!("a good key is not admitted"),
            Err(_) => thread::sleep(std::time::Duration::from_micros(100)),
        }
    }
    panic!("the store does not come back");
}

/// How an operation ended, for its own caller.
fn settled(vault: &Vault, who: &Principal, id: OperationId) -> Settled {
    for _ in 0..100_000 {
        let asked = vault.read::<ReadOperation, _, Wrong>(who, id, &Call::internal(), |access| Ok(accounts::operation(access)?));
        match asked {
            Ok(recorded) => match recorded.into_parts().0.expect("its own operation") {
                Settled::Pending => {}
                settled => return settled,
            },
            Err(Refused::Unavailable(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
        thread::sleep(std::time::Duration::from_micros(100));
    }
    panic!("an outcome is never settled");
}

/// Runs one point; gives how many calls the disk received while at work.
fn run(base: &[u8], fault: Option<Refusal>, seed: u64, counts: &mut Counts) -> u64 {
    let what = format!("{fault:?}");
    let tape = Arc::new(Tape::faulty(base.to_vec(), None, seed));
    let mut house = House::on(Arc::clone(&tape), &Clock::system()).unwrap();
    let before = tape.calls();
    // Admitted before anything is refused: a store that ended meanwhile would not let its threads in any more.
    let owner = admitted_later(house.vault());
    if let Some(fault) = fault {
        tape.refuse(fault);
    }
    let seen = Mutex::new(Seen::default());
    thread::scope(|threads| {
        for name in 0..3 {
            let (house, owner, seen) = (&house, &owner, &seen);
            threads.spawn(move || work(house, owner, name, 3, seen));
            if fault.is_some_and(|fault| fault.times > 1) {
                // The system works again, but only after the first thread is through.
                if name == 0 {
                    let tape = &tape;
                    threads.spawn(move || {
                        thread::sleep(std::time::Duration::from_millis(3 + seed % 30));
                        tape.mend();
                    });
                }
            }
        }
    });
    let calls = tape.calls() - before;
    tape.mend();
    // Whatever happened: from now on it works, though the first request may be the one that makes the store look.
    let mut last = Err(Refused::Unavailable(Unavailable::Latched));
    for _ in 0..10 {
        let owner = admitted_later_or_woken(house.vault());
        last = create(house.vault(), &owner, &Call::internal(), "after");
        if last.is_ok() {
            break;
        }
    }
    let after = last.unwrap_or_else(|error| panic!("{what}: the store does not go on: {error:?}"));
    let owner = house.owner();
    let seen = seen.into_inner().unwrap();
    // A store that gave up would have ended its process: then nobody is told how it ended, and only the file is looked at.
    let gave_up = house.fatal() > 0;
    let outcomes: HashMap<OperationId, Settled> = (seen.writes.iter())
        .filter(|(_, (_, told))| !gave_up && matches!(told, Told::Unknown))
        .map(|(id, _)| (*id, settled(house.vault(), &owner, *id)))
        .collect();
    counts.fatal += house.fatal();
    house.stop();
    // What the system never wrote is gone.
    tape.forget_unwritten();
    let held = held(&tape, &what);
    let by_operation = |id: OperationId| held.entries.iter().find(|entry| entry.opid == Some(id) && entry.op.text() != "operation.read");
    assert_eq!(held.contents.get(&after.0).map(String::as_str), Some("after"), "{what}");
    for (operation, (content, told)) in &seen.writes {
        let there = held.contents.values().any(|text| text == content);
        let entry = by_operation(*operation);
        match told {
            Told::Kept(id, index) => {
                assert_eq!(held.contents.get(id), Some(content), "{what}: an acknowledged memory is lost");
                assert_eq!(held.entries[usize::try_from(*index).unwrap()].opid, Some(*operation), "{what}: an acknowledged entry is lost");
                counts.kept += 1;
            }
            Told::Unknown => {
                let committed = outcomes.get(operation).map_or(there, |settled| matches!(settled, Settled::Committed(_)));
                assert_eq!(
                    (there, entry.is_some_and(|entry| entry.outcome == Outcome::Ok)),
                    (committed, committed),
                    "{what}: a false outcome"
                );
                counts.committed += u64::from(committed);
                counts.not_committed += u64::from(!committed);
            }
            Told::No => {
                assert!(!there && entry.is_none_or(|entry| entry.outcome != Outcome::Ok), "{what}: a refused write is there");
                counts.refused += 1;
            }
        }
    }
    for (operation, index) in &seen.reads {
        let entry = &held.entries[usize::try_from(*index).unwrap()];
        assert_eq!((entry.opid, entry.op.text()), (Some(*operation), "memory.list"), "{what}: an answer without its entry");
        counts.answers += 1;
    }
    counts.unanswered += seen.unanswered;
    counts.recoveries += recoveries(&held.entries, &what);
    let lost: u64 = held.entries.iter().filter_map(|entry| detail(entry, "lost")).sum();
    let not_committed = outcomes.values().filter(|settled| **settled == Settled::NotCommitted).count() as u64;
    assert!(gave_up || lost == not_committed, "{what}: recovery entries say how many were lost");
    calls
}

/// Each recovery entry says what it found, in its place.
fn recoveries(entries: &[Entry], what: &str) -> u64 {
    let found = entries.iter().filter(|entry| entry.op.text() == "system.recover");
    found.fold(0, |count, entry| {
        let number = |key| detail(entry, key).unwrap_or_else(|| panic!("{what}: {key}"));
        assert!(number("end") == entry.i && number("first") <= entry.i && number("lost") <= entry.n, "{what}: {entry:?}");
        count + 1
    })
}

/// As [`admitted_later`]; a store that gave up looks again when it is asked to write.
fn admitted_later_or_woken(vault: &Vault) -> Principal {
    if vault.admit(OWNER_KEY).is_err() {
        let console = Principal::system(vault.tenant(), vault.owner(), "console");
        let _ = create(vault, &console, &Call::internal(), "never");
    }
    admitted_later(vault)
}

/// A change of keys that failed shut nothing, so that a commit could be acknowledged that was not durable (`engine::campaign::sync`). It shuts the
/// store; nobody is admitted then, so no write would come that makes the writer look.
#[test]
fn a_change_of_keys_that_failed_shuts_the_store_which_recovers_by_itself() {
    use crate::crypto::unlock::{KdfCost, Kek};
    use crate::engine::Change;
    let mut house = House::new();
    let console = Principal::system(house.vault().tenant(), house.vault().owner(), "console");
    let change = Change::AddSlot(Kek::for_test(&[9; 32]), KdfCost::NONE);
    house.tape.refuse(Refusal { at: 2, times: 1, kind: ErrorKind::Other });
    assert!(house.vault().change_slots(&console, &change, "add").is_err());
    house.tape.mend();
    assert!(house.vault().admit(OWNER_KEY).is_err(), "shut");
    let owner = admitted_later(house.vault());
    create(house.vault(), &owner, &Call::internal(), "after").unwrap();
    house.vault().change_slots(&console, &change, "add").unwrap();
    assert_eq!(house.entries().iter().filter(|entry| entry.op.text() == "system.recover").count(), 1);
    house.stop();
    house.tape.forget_unwritten();
    assert_eq!(held(&house.tape, "after a failed change of keys").contents.len(), 1);
}

#[test]
fn no_refused_call_loses_an_acknowledgement_or_tells_a_false_outcome() {
    let mut house = House::new();
    for i in 0..20 {
        create(house.vault(), &house.owner(), &Call::internal(), &format!("{i}")).unwrap();
    }
    house.stop();
    let base = house.tape.image();
    let mut counts = Counts::default();
    let calls = run(&base, None, 0, &mut counts);
    let step = usize::try_from(calls).unwrap().div_ceil(amount(8, 40, 400)).max(1);
    for at in (0..calls).step_by(step) {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            for times in [1, 2 + at % 9, u64::MAX / 2] {
                run(&base, Some(Refusal { at, times, kind }), at, &mut counts);
                counts.points += 1;
            }
        }
    }
    println!("store faults: over {calls} calls: {counts:?}");
    assert!(counts.kept > 0 && counts.committed + counts.not_committed > 0 && counts.recoveries > 0);
}
