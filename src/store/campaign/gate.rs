//! What each way through the gate leaves: rows, entries, answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use super::*;
use crate::audit::{Credential, Decision, Detail, Outcome};
use crate::authn::CredentialRef;
use crate::authn::credential::{display_prefix, draw_user_key};
use crate::base::id::CredentialId;
use crate::base::time::processor_time;
use crate::base::{duty, limits};
use crate::policy::Relation;
use crate::policy::action::{
    CreateKey, CreatePerson, Instance, ListMemories, Person, PurgeMemory, ReadMemory, RevokeKey, TrashMemory, UpdateMemory,
};
use crate::store::accounts;
use crate::store::gate::{Access, Asked};
use crate::store::tables::MEMORIES;
use crate::store::tables::memories::{Memory, Part, State};
use crate::store::writer::Unavailable;

fn read(house: &House, who: &Principal, id: MemoryId) -> Result<Recorded<Memory>, Refused<Wrong>> {
    house.vault().read::<ReadMemory, _, Wrong>(who, id, &Call::internal(), get)
}

fn get(access: &mut Access<'_, ReadMemory>) -> Result<Memory, Wrong> {
    Ok(memories::get(access, Part::Full)?)
}

fn total(house: &House) -> u64 {
    let who = house.owner();
    let count = |access: &mut Access<'_, ListMemories>| Ok(memories::total(access, State::Live)?);
    house.vault().read::<ListMemories, _, Wrong>(&who, house.scope(), &Call::internal(), count).unwrap().into_parts().0
}

/// A call of whoever was admitted just now: while no credential changes, the key is not looked up again.
fn call_of(house: &House, key: &str) -> Call {
    let Admission::Principal(_, generation) = house.vault().admit(key).unwrap() else { panic!("a good key is not admitted") };
    Call { admitted: Some(generation), ..Call::internal() }
}

/// Makes a key of the owner, as the console does.
pub fn make_key(house: &House) -> (String, CredentialId) {
    make_key_of(house, house.vault().owner())
}

/// A new key of this person.
pub fn key_of(house: &House, person: UserId) -> String {
    make_key_of(house, person).0
}

fn make_key_of(house: &House, person: UserId) -> (String, CredentialId) {
    let vault = house.vault();
    let key = draw_user_key();
    let (verifier, prefix) = (vault.verifier(key.expose()), display_prefix(key.expose()).to_owned());
    let console = Principal::system(vault.tenant(), person, "console");
    let made = vault.write::<CreateKey, _, Wrong>(&console, Person(person), &Call::internal(), move |access| {
        Ok(accounts::insert_key(access, &verifier, &prefix, &Phi::new("a key".to_owned()))?)
    });
    (key.expose().to_owned(), made.unwrap().into_parts().0)
}

pub fn revoke(house: &House, id: CredentialId) -> Receipt {
    let vault = house.vault();
    let console = Principal::system(vault.tenant(), vault.owner(), "console");
    let done = vault.write::<RevokeKey, _, Wrong>(&console, id, &Call::internal(), |access| Ok(accounts::revoke_key(access)?));
    done.unwrap().into_parts().1
}

/// Holds the writer inside a piece of work until the sender is dropped: what is asked meanwhile falls into one batch.
fn busy(house: &House) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (let_go, wait) = channel::<()>();
    let (entered, inside) = channel();
    let (vault, who, scope, before) = (house.vault().clone(), house.owner(), house.scope(), house.vault().queued(true));
    let held = std::thread::spawn(move || {
        let done = vault.write::<CreateMemory, _, Wrong>(&who, scope, &Call::internal(), move |_| {
            entered.send(()).unwrap();
            let _ = wait.recv();
            Ok(())
        });
        done.unwrap();
    });
    inside.recv().unwrap();
    // The writer may be inside before the sender has counted; whoever watches the count next must not take it for their own.
    while house.vault().queued(true) == before {
        std::thread::yield_now();
    }
    (let_go, held)
}

/// Has these writes done in one batch, in their order. Gives their answers.
pub fn in_one_batch<T: Send, W: FnOnce(&House) -> T + Send>(house: &House, works: Vec<W>) -> Vec<T> {
    let (let_go, held) = busy(house);
    let answers = std::thread::scope(|threads| {
        let mut asked = Vec::new();
        let queued = || house.vault().queued(true) + house.vault().queued(false);
        for work in works {
            let before = queued();
            asked.push(threads.spawn(move || work(house)));
            while queued() == before {
                std::thread::yield_now();
            }
        }
        drop(let_go);
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    held.join().unwrap();
    answers
}

#[test]
fn row_and_entry_land_together_and_survive() {
    let mut house = House::new();
    let call = Call::internal();
    let (id, receipt) = create(house.vault(), &house.owner(), &call, "seen twice").unwrap();
    let entry = &house.entries()[usize::try_from(receipt.index()).unwrap()];
    assert_eq!((entry.op.text(), entry.opid, entry.outcome, entry.n), ("memory.create", Some(call.operation), Outcome::Ok, 1));
    assert_eq!(entry.res.as_ref().unwrap().ids, [crate::audit::Id::from(id)]);
    house.reopen();
    let (memory, receipt) = read(&house, &house.owner(), id).unwrap().into_parts();
    assert_eq!(memory.text.content.expose(&receipt), "seen twice");
    assert_eq!(house.entries()[usize::try_from(receipt.index()).unwrap()].op.text(), "memory.read");
}

#[test]
fn work_that_refuses_leaves_its_entry_and_no_row() {
    let house = House::new();
    let done = house.vault().write::<CreateMemory, (), Wrong>(&house.owner(), house.scope(), &Call::internal(), |access| {
        memories::insert(access, saying("never kept"))?;
        Err(Wrong::OnPurpose)
    });
    assert!(matches!(done, Err(Refused::Work(Wrong::OnPurpose, _))));
    assert_eq!(total(&house), 0);
    let entry = house.entry("memory.create");
    assert_eq!(
        (entry.decision, entry.outcome, entry.reason, entry.status),
        (Decision::Allow, Outcome::Refused, Some(Reason::Conflict), 409)
    );
}

/// 256 pieces of work of any length were one batch, and whoever only read waited for all of them.
#[test]
fn an_answer_that_waits_for_its_entry_alone_does_not_wait_for_long_work_of_others() {
    let house = House::new();
    let (id, _) = create(house.vault(), &house.owner(), &Call::internal(), "read meanwhile").unwrap();
    let work = |house: &House| {
        let done = house.vault().write::<CreateMemory, _, Wrong>(&house.owner(), house.scope(), &Call::internal(), |_| {
            let begun = processor_time();
            while processor_time() < begun + limits::BATCH_WORK_TIME {}
            Ok(())
        });
        done.unwrap().into_parts().1.index()
    };
    let looked = |house: &House| read(house, &house.owner(), id).unwrap().into_parts().1.index();
    type One<'a> = Box<dyn FnOnce(&House) -> u64 + Send + 'a>;
    let works: Vec<One<'_>> = vec![Box::new(work), Box::new(work), Box::new(looked), Box::new(work)];
    let indexes = in_one_batch(&house, works);
    assert!(indexes[0] < indexes[2] && indexes[2] < indexes[1] && indexes[1] < indexes[3], "{indexes:?}");
}

#[test]
fn a_panic_in_work_leaves_an_entry_that_says_error_and_the_next_request_works() {
    let house = House::new();
    let (owner, scope) = (house.owner(), house.scope());
    let done = house.vault().write::<CreateMemory, (), Wrong>(&owner, scope, &Call::internal(), |access| {
        memories::insert(access, saying("never kept"))?;
        panic!("on purpose")
    });
    assert!(matches!(done, Err(Refused::Fault(_))));
    let entry = house.entry("memory.create");
    assert_eq!((entry.outcome, entry.reason, entry.status, entry.n), (Outcome::Error, Some(Reason::Panic), 500, 1));
    let done = house.vault().read::<ListMemories, (), Wrong>(&owner, scope, &Call::internal(), |_| panic!("on purpose"));
    assert!(matches!(done, Err(Refused::Fault(_))));
    assert_eq!(total(&house), 0);
    create(house.vault(), &owner, &Call::internal(), "kept").unwrap();
    assert_eq!(total(&house), 1);
}

#[test]
fn what_could_not_be_decided_is_not_called_allowed() {
    // The entry of a request whose record could not be read said that the policy had allowed it.
    let house = House::new();
    let (id, _) = create(house.vault(), &house.owner(), &Call::internal(), "damaged later").unwrap();
    let key = [house.vault().tenant().bytes().as_slice(), id.bytes()].concat();
    let damage = house.vault().write::<CreateMemory, (), Wrong>(&house.owner(), house.scope(), &Call::internal(), move |access| {
        assert!(access.tx().get(MEMORIES, &key)?.is_some());
        access.tx_mut().put(MEMORIES, key, b"no row".to_vec());
        Ok(())
    });
    damage.unwrap();
    assert!(matches!(read(&house, &house.owner(), id), Err(Refused::Work(Wrong::Store(_), _))));
    let changed = house.vault().write::<TrashMemory, (), Wrong>(&house.owner(), id, &Call::internal(), |_| Ok(()));
    assert!(matches!(changed, Err(Refused::Work(Wrong::Store(_), _))));
    for op in ["memory.read", "memory.trash"] {
        let entry = house.entry(op);
        assert_eq!(
            (entry.decision, entry.outcome, entry.reason, entry.status),
            (Decision::Deny, Outcome::Error, Some(Reason::Unreadable), 500)
        );
        assert!(entry.line().contains("\"reason\":\"unreadable\""));
    }
}

#[test]
fn a_denial_is_recorded_and_the_work_never_runs() {
    let house = House::new();
    let (id, _) = create(house.vault(), &house.owner(), &Call::internal(), "the owner's").unwrap();
    let ran = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&ran);
    let done = house.vault().write::<UpdateMemory, (), Wrong>(&house.agent("cursor"), id, &Call::internal(), move |_| {
        *seen.lock().unwrap() = true;
        Ok(())
    });
    let Err(Refused::Denied(denied, receipt)) = done else { panic!("an agent changes what it did not write") };
    assert_eq!((denied.relation, denied.visible, *ran.lock().unwrap()), (Relation::Visible, true, false));
    let entry = &house.entries()[usize::try_from(receipt.index()).unwrap()];
    assert_eq!((entry.decision, entry.status, entry.reason), (Decision::Deny, 403, Some(Reason::VendorMismatch)));
    assert_eq!(entry.res.as_ref().unwrap().ids, [crate::audit::Id::from(id)]);
    let absent = MemoryId::draw(Timestamp::from_ms(1));
    assert!(matches!(read(&house, &house.owner(), absent), Err(Refused::Denied(denied, _)) if !denied.visible));
    let entry = house.entry("memory.read");
    assert_eq!((entry.status, entry.res), (404, None));
}

#[test]
fn a_grant_for_one_verb_reaches_nobody_else() {
    let house = House::new();
    let mut new = saying("for claude alone");
    new.allowed_vendors = vec!["claude".to_owned()];
    let (owner, scope) = (house.owner(), house.scope());
    let made = house.vault().write::<CreateMemory, _, Wrong>(&owner, scope, &Call::internal(), |a| Ok(memories::insert(a, new)?.id));
    let id = made.unwrap().into_parts().0;
    assert!(read(&house, &house.agent("claude"), id).is_ok());
    assert!(matches!(read(&house, &house.agent("cursor"), id), Err(Refused::Denied(d, _)) if d.relation == Relation::Hidden && !d.visible));
    let trashed = house.vault().write::<TrashMemory, _, Wrong>(&owner, id, &Call::internal(), |a| Ok(memories::trash(a, None)?.is_some()));
    assert!(trashed.unwrap().into_parts().0);
    assert!(matches!(read(&house, &house.agent("claude"), id), Err(Refused::Denied(d, _)) if d.relation == Relation::Trashed));
    let purged = house
        .vault()
        .write::<PurgeMemory, _, Wrong>(&house.agent("claude"), id, &Call::internal(), |a| Ok(memories::purge(a, usize::MAX)?));
    assert!(matches!(purged, Err(Refused::Denied(..))));
    assert!(read(&house, &owner, id).is_ok());
}

#[test]
fn a_revoked_key_is_refused_in_the_very_batch_that_revokes_it() {
    let house = House::new();
    let (key, id) = make_key(&house);
    let who = admitted(house.vault(), &key);
    assert_eq!(*who.credential(), CredentialRef::Stored(id));
    create(house.vault(), &who, &Call::internal(), "before").unwrap();
    let (after, call) = (who.clone(), call_of(&house, &key));
    in_one_batch(
        &house,
        vec![
            Box::new(move |house: &House| assert!(revoke(house, id).index() > 0)) as Box<dyn FnOnce(&House) + Send>,
            Box::new(move |house| {
                let done = create(house.vault(), &after, &call, "after");
                assert!(matches!(done, Err(Refused::Revoked(_))), "{done:?}");
            }),
        ],
    );
    assert_eq!(total(&house), 1);
    let entry = house.entry("memory.create");
    assert_eq!((entry.status, entry.reason, entry.cred), (401, Some(Reason::RevokedCredential), Some(Credential::Stored(id))));
    assert!(matches!(house.vault().admit(&key).unwrap(), Admission::Revoked(revoked) if revoked == id));
    assert!(matches!(house.vault().admit("no key of ours").unwrap(), Admission::Unknown));
    assert!(matches!(read(&house, &who, MemoryId::draw(Timestamp::from_ms(1))), Err(Refused::Revoked(_))));
}

/// Found by schemathesis: a refused request was answered 503 when somebody's key changed at that moment.
#[test]
fn a_refusal_is_recorded_though_keys_change_meanwhile() {
    let house = House::new();
    let keys: Vec<CredentialId> = (0..60).map(|_| make_key(&house).1).collect();
    std::thread::scope(|threads| {
        threads.spawn(|| assert!(keys.iter().all(|id| revoke(&house, *id).index() > 0)));
        for _ in 0..200 {
            let recorded = house.vault().record(&house.owner(), &Call::internal(), "memory.create", Reason::Schema, 400);
            assert!(recorded.is_ok(), "{recorded:?}");
        }
    });
}

#[test]
fn a_read_decided_before_a_revocation_is_decided_anew() {
    let house = House::new();
    let (key, id) = make_key(&house);
    let (memory, _) = create(house.vault(), &house.owner(), &Call::internal(), "the owner's").unwrap();
    let who = admitted(house.vault(), &key);
    let (runs, call) = (Mutex::new(0), call_of(&house, &key));
    let done = house.vault().read::<ReadMemory, _, Wrong>(&who, memory, &call, |access| {
        *runs.lock().unwrap() += 1;
        // Revoked after the decision, before the entry.
        revoke(&house, id);
        Ok(memories::get(access, Part::Full)?)
    });
    assert!(matches!(done, Err(Refused::Revoked(_))));
    assert_eq!(*runs.lock().unwrap(), 1, "the second decision refuses before work");
    let entry = house.entry("memory.read");
    assert_eq!((entry.decision, entry.status, entry.n), (Decision::Deny, 401, 0));
}

#[test]
fn a_read_that_nobody_waits_for_is_told_when_its_entry_is_durable_and_decided_anew_after_a_revocation() {
    let house = House::new();
    let (key, id) = make_key(&house);
    let (memory, _) = create(house.vault(), &house.owner(), &Call::internal(), "told").unwrap();
    let (who, call) = (admitted(house.vault(), &key), call_of(&house, &key));
    let ask = || {
        let (told, done) = channel();
        let (asked, work) =
            (Asked { who: who.clone(), target: memory, call: call.clone() }, get as for<'t> fn(&mut Access<'t, ReadMemory>) -> _);
        house.vault().read_then(asked, work, move |done| told.send(done).unwrap());
        done
    };
    let index = usize::try_from(ask().recv().unwrap().unwrap().into_parts().1.index()).unwrap();
    assert_eq!(house.entries()[index].op.text(), "memory.read");
    let (let_go, held) = busy(&house);
    let before = house.vault().queued(true);
    std::thread::scope(|threads| {
        threads.spawn(|| revoke(&house, id));
        while house.vault().queued(true) == before {
            std::thread::yield_now();
        }
        let done = ask();
        assert!(done.try_recv().is_err(), "decided, in the queue behind the revocation, and not told");
        drop(let_go);
        assert!(matches!(done.recv().unwrap(), Err(Refused::Revoked(_))));
    });
    held.join().unwrap();
    let entry = house.entry("memory.read");
    assert_eq!((entry.decision, entry.status, entry.n), (Decision::Deny, 401, 0));
}

#[test]
fn a_read_gives_up_when_credentials_never_stop_changing() {
    let house = House::new();
    let (memory, _) = create(house.vault(), &house.owner(), &Call::internal(), "the owner's").unwrap();
    let before = house.entries().len();
    let done = house.vault().read::<ReadMemory, _, Wrong>(&house.owner(), memory, &Call::internal(), |access| {
        let (_, id) = make_key(&house);
        revoke(&house, id);
        Ok(memories::get(access, Part::Full)?)
    });
    assert!(matches!(done, Err(Refused::Unavailable(Unavailable::Busy))));
    create(house.vault(), &house.owner(), &Call::internal(), "behind whatever was counted").unwrap();
    assert_eq!(
        house.entries().len(),
        before + 2 * limits::READ_ATTEMPTS_MAX + 2,
        "no entry of a read that was never answered, but of its refusal"
    );
    let entry = house.entry("request.refused");
    assert_eq!((entry.reason, entry.status, entry.count), (Some(Reason::Conflict), 503, None));
}

/// Nothing told of requests for which the queue was full, unless a fault came later: then that so many came while the store was shut.
#[test]
fn requests_for_which_the_queue_was_full_are_counted_in_one_entry() {
    use crate::store::queue::Work;
    let mut house = House::new();
    let (owner, vault) = (house.owner(), house.vault().clone());
    let (let_go, held) = busy(&house);
    for _ in 0..limits::QUEUE_JOBS_MAX {
        let note = Work::Note(Box::new(Entry::new("system.start", crate::audit::Actor::SYSTEM)));
        vault.send_then(note, Vault::asker(&owner, &Call::internal()), drop);
    }
    let memory = MemoryId::draw(Timestamp::from_ms(1));
    for _ in 0..50 {
        assert!(matches!(read(&house, &owner, memory), Err(Refused::Unavailable(Unavailable::QueueFull))));
    }
    assert_eq!(vault.refused_while_shut(), 0, "the store was never shut");
    // The keeper looks while there is no room: what it could not record stays counted.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    drop(let_go);
    held.join().unwrap();
    // Whatever waits is recorded before this.
    while create(house.vault(), &owner, &Call::internal(), "after").is_err() {
        std::thread::yield_now();
    }
    drop(vault);
    house.stop();
    let held = held_entries(&house);
    let found: Vec<_> = held.iter().filter(|entry| entry.reason == Some(Reason::QueueFull)).collect();
    assert!(found.iter().all(|entry| (entry.op.text(), entry.status) == ("request.refused", 503)), "{found:?}");
    assert!(found.iter().map(|entry| entry.count.unwrap_or(1)).sum::<u64>() >= 50, "{found:?}");
}

fn held_entries(house: &House) -> Vec<Entry> {
    super::held(&house.tape, "stopped").entries
}

#[test]
fn a_read_waits_for_its_entry() {
    let house = House::new();
    let (id, _) = create(house.vault(), &house.owner(), &Call::internal(), "waits").unwrap();
    let (let_go, held) = busy(&house);
    let before = house.vault().queued(false);
    std::thread::scope(|threads| {
        let reading = threads.spawn(|| read(&house, &house.owner(), id).unwrap().into_parts().1.index());
        while house.vault().queued(false) == before {
            std::thread::yield_now();
        }
        assert!(!reading.is_finished(), "its entry is in the queue, and not durable");
        drop(let_go);
        let index = usize::try_from(reading.join().unwrap()).unwrap();
        assert_eq!(house.entries()[index].op.text(), "memory.read");
    });
    held.join().unwrap();
}

#[test]
fn members_of_a_batch_see_the_rows_of_earlier_ones_and_a_failed_one_takes_none_with_it() {
    let house = House::new();
    let count = |house: &House| {
        let done = house.vault().write::<CreateMemory, _, Wrong>(&house.owner(), house.scope(), &Call::internal(), |access| {
            Ok(memories::total(access, State::Live)?)
        });
        done.unwrap().into_parts().0
    };
    let before = house.entries().len();
    in_one_batch(
        &house,
        vec![
            Box::new(|house: &House| assert!(create(house.vault(), &house.owner(), &Call::internal(), "first").is_ok()))
                as Box<dyn FnOnce(&House) + Send>,
            Box::new(|house| {
                let done = house.vault().write::<CreateMemory, (), Wrong>(&house.owner(), house.scope(), &Call::internal(), |access| {
                    memories::insert(access, saying("second"))?;
                    panic!("on purpose")
                });
                assert!(matches!(done, Err(Refused::Fault(_))));
            }),
            Box::new(move |house| assert_eq!(count(house), 1)),
        ],
    );
    let entries = house.entries();
    let outcomes: Vec<Outcome> = entries[before..].iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Ok, Outcome::Error, Outcome::Ok]);
    assert!(entries[before + 1..].iter().all(|entry| entry.t == entries[before + 1].t), "one batch, one time");
}

#[test]
fn an_answer_with_many_ids_is_recorded_in_parts_that_follow_one_another() {
    let house = House::new();
    let (owner, scope) = (house.owner(), house.scope());
    let wanted = limits::AUDIT_IDS_PER_LINE_MAX * 2 + 1;
    for chunk in 0..wanted.div_ceil(50) {
        let made = house.vault().write::<CreateMemory, _, Wrong>(&owner, scope, &Call::internal(), move |access| {
            (0..50).try_for_each(|i| memories::insert(access, saying(&format!("{chunk} {i}"))).map(drop))?;
            Ok(())
        });
        made.unwrap();
    }
    let call = Call::internal();
    duty::begin();
    let done = house.vault().read::<ListMemories, _, Wrong>(&owner, scope, &call, |access| {
        // Such work may be long: whoever serves others has handed its place over.
        assert!(!duty::is_on());
        let mut found = Vec::new();
        for id in memories::page(access, State::Live, 0, wanted)? {
            found.extend(memories::one(access, id, Part::Summary, State::Live)?);
        }
        memories::answer(access, &found);
        Ok(found.len())
    });
    let (len, receipt) = done.unwrap().into_parts();
    assert_eq!(len, wanted);
    let entries = house.entries();
    let first = usize::try_from(receipt.index()).unwrap();
    let parts: Vec<(u32, u32, usize, u64)> = (entries[first..first + 3].iter())
        .map(|entry| (entry.part.as_ref().unwrap().no, entry.part.as_ref().unwrap().of, entry.res.as_ref().unwrap().ids.len(), entry.n))
        .collect();
    let n = u64::try_from(wanted).unwrap();
    assert_eq!(parts, [(1, 3, 200, n), (2, 3, 200, n), (3, 3, 1, n)]);
    assert!(entries[first..first + 3].iter().all(|entry| entry.opid == Some(call.operation)));
}

#[test]
fn a_refusal_before_any_verb_is_an_entry_and_counted_ones_are_one_a_minute() {
    let house = House::new();
    let ip = "192.0.2.7".parse().unwrap();
    let receipt = house.vault().record(&house.owner(), &Call::internal(), "memory.create", Reason::Schema, 400).unwrap();
    assert_eq!(house.entries()[usize::try_from(receipt.index()).unwrap()].decision, Decision::Deny);
    (0..5).for_each(|_| house.vault().refuse_address(ip, Reason::Unauthenticated, 401));
    // One reason has several answers. The counted entries guessed them.
    (0..3).for_each(|_| house.vault().refuse_address(ip, Reason::Framing, 414));
    (0..2).for_each(|_| house.vault().refuse_address(ip, Reason::Framing, 431));
    (0..3).for_each(|_| house.vault().refuse_credential(house.owner().credential(), Reason::Method, 405));
    let mut house = house;
    house.reopen();
    let counted: Vec<(u16, Option<u64>)> =
        house.entries().iter().filter(|entry| entry.op.text() == "request.refused").map(|entry| (entry.status, entry.count)).collect();
    let firsts = [(401, None), (414, None), (431, None), (405, None)];
    assert_eq!(counted[..4], firsts);
    assert_eq!(counted[4..], [(401, Some(4)), (414, Some(2)), (431, None), (405, Some(2))], "the rest when the store stopped");
}

#[test]
fn a_step_of_the_wall_clock_is_an_entry_and_a_slow_commit_is_none() {
    let house = House::new();
    let now = house.vault().clock().now();
    house.clock.set(now.plus(std::time::Duration::from_secs(3600)));
    let receipt = create(house.vault(), &house.owner(), &Call::internal(), "later").unwrap().1;
    let entries = house.entries();
    let step = &entries[usize::try_from(receipt.index()).unwrap() - 1];
    assert_eq!((step.op.text(), step.reason), ("system.clock", Some(Reason::ClockStep)));
    assert!(matches!(step.det.all(), [Detail::Ahead(ms)] if (3_590_000..3_610_000).contains(ms)));
    house.clock.set(now);
    create(house.vault(), &house.owner(), &Call::internal(), "and back").unwrap();
    assert!(matches!(house.entry("system.clock").det.all(), [Detail::Back(_)]));
}

#[test]
fn a_clock_that_was_set_back_while_nothing_ran_is_an_entry_and_loses_nothing() {
    let mut house = House::new();
    let (vault, right) = (house.vault().clone(), house.vault().clock().now());
    let (kept, _) = create(&vault, &house.owner(), &Call::internal(), "before").unwrap();
    drop(vault);
    let mut ids = vec![kept];
    // 1970, as a machine without a battery starts; the last year that there is; and right again.
    for (at, steps) in [(Timestamp::from_ms(5), 1), (Timestamp::from_ms(u64::MAX), 1), (right, 2)] {
        house.stop();
        house.clock.set(at);
        house.reopen();
        let house = &house;
        assert_eq!(house.entries().iter().filter(|entry| entry.op.text() == "system.clock").count(), steps, "{at}");
        let (id, _) = create(house.vault(), &house.owner(), &Call::internal(), &format!("at {at}")).unwrap();
        ids.push(id);
        for id in &ids {
            assert!(read(house, &house.owner(), *id).is_ok(), "{at}");
        }
        assert_eq!(total(house), ids.len() as u64);
        assert_eq!(house.vault().check(&mut |_, _| {}).unwrap().count, 0, "{at}");
    }
    assert!(matches!(house.entry("system.clock").det.all(), [Detail::Back(_)]));
}

#[test]
fn with_little_room_writes_are_refused_then_reads_and_both_come_back() {
    let house = House::new();
    let (id, _) = create(house.vault(), &house.owner(), &Call::internal(), "kept").unwrap();
    let written = |house: &House| create(house.vault(), &house.owner(), &Call::internal(), "more");
    house.tape.leave(Some(limits::RESERVE_WRITE_BYTES - 1));
    assert!(matches!(written(&house), Err(Refused::Unavailable(Unavailable::NoSpace))));
    assert!(read(&house, &house.owner(), id).is_ok());
    house.tape.leave(Some(limits::RESERVE_READ_BYTES - 1));
    assert!(matches!(read(&house, &house.owner(), id), Err(Refused::Unavailable(Unavailable::NoSpace))));
    assert!(house.vault().record(&house.owner(), &Call::internal(), "memory.create", Reason::NoSpace, 507).is_ok());
    // What frees room is let through to the end.
    let purged = house.vault().write::<PurgeMemory, _, Wrong>(&house.owner(), id, &Call::internal(), |a| Ok(memories::purge(a, 10)?));
    assert!(purged.unwrap().into_parts().0);
    assert!(matches!(written(&house), Err(Refused::Unavailable(Unavailable::NoSpace))));
    house.tape.leave(None);
    let (id, _) = written(&house).unwrap();
    assert!(read(&house, &house.owner(), id).is_ok());
}

#[test]
fn what_waits_when_the_store_stops_is_told_so() {
    let mut house = House::new();
    let vault = house.vault().clone();
    let owner = house.owner();
    house.stop();
    assert!(matches!(create(&vault, &owner, &Call::internal(), "too late"), Err(Refused::Unavailable(Unavailable::Stopping))));
    let scope = Scope { tenant: vault.tenant(), owner: vault.owner() };
    let done = vault.read::<ListMemories, _, Wrong>(&owner, scope, &Call::internal(), |_| Ok(()));
    assert!(matches!(done, Err(Refused::Unavailable(_))));
}

#[test]
fn an_answer_is_bounded_and_few_are_large_at_once() {
    let house = House::new();
    let scope = Scope { tenant: house.owner().tenant(), owner: house.owner().user() };
    let ask = |who: &Principal, bytes| {
        let asked =
            house.vault().read::<ListMemories, _, Wrong>(who, scope, &Call::internal(), |a| Ok(a.tx_mut().make_room(bytes).is_ok()));
        let mut recorded = asked.unwrap();
        (recorded.hold(), recorded.into_parts().0)
    };
    let key = || match house.vault().admit(&make_key(&house).0) {
        Ok(Admission::Principal(who, _)) => who,
        _ => panic!("a new key is known"),
    };
    // Each of the owner's credentials is an agent's, perhaps: one that reads slowly leaves the others their places.
    let owner = house.owner();
    let mut large: Vec<_> = (0..limits::LARGE_ANSWERS_PER_PARTY_MAX).map(|_| ask(&owner, limits::LARGE_ANSWER_BYTES + 1)).collect();
    assert!(large.iter().all(|(held, fits)| held.is_some() && *fits));
    assert!(matches!(ask(&owner, limits::LARGE_ANSWER_BYTES + 1), (None, false)));
    assert!(matches!(ask(&owner, limits::LARGE_ANSWER_BYTES), (None, true)));
    while large.len() < limits::LARGE_ANSWERS_MAX {
        let agent = key();
        large.extend((0..limits::LARGE_ANSWERS_PER_PARTY_MAX).map(|_| ask(&agent, limits::LARGE_ANSWER_BYTES + 1)));
    }
    assert!(large.iter().all(|(held, fits)| held.is_some() && *fits));
    let last = key();
    assert!(matches!(ask(&last, limits::LARGE_ANSWER_BYTES + 1), (None, false)));
    large.pop();
    assert!(matches!(ask(&last, limits::LIST_BYTES_MAX), (Some(_), true)));
    assert!(matches!(ask(&last, limits::LIST_BYTES_MAX + 1), (_, false)));
}

/// One person's slow readers, with however many keys, kept large answers from everybody.
#[test]
fn one_persons_large_answers_leave_others_theirs() {
    let house = House::new();
    let person = |email: &str| {
        let (vault, email) = (house.vault(), Phi::new(email.to_owned()));
        let console = Principal::system(vault.tenant(), vault.owner(), "console");
        let made =
            vault.write::<CreatePerson, _, Wrong>(&console, Instance, &Call::internal(), move |a| Ok(accounts::insert_person(a, &email)?));
        made.unwrap().into_parts().0
    };
    let (one, other) = (person("one@example.org"), person("other@example.org"));
    let large = |key: &str| {
        let Ok(Admission::Principal(who, _)) = house.vault().admit(key) else { panic!("a good key is not admitted") };
        let own = Scope { tenant: who.tenant(), owner: who.user() };
        let room = |a: &mut Access<'_, ListMemories>| Ok(a.tx_mut().make_room(limits::LARGE_ANSWER_BYTES + 1).is_ok());
        house.vault().read::<ListMemories, _, Wrong>(&who, own, &Call::internal(), room).unwrap().hold()
    };
    let keys: Vec<_> = (0..3).map(|_| key_of(&house, one)).collect();
    let held: Vec<_> = keys.iter().cycle().take(9).filter_map(|key| large(key)).collect();
    assert_eq!(held.len(), limits::LARGE_ANSWERS_PER_PARTY_MAX);
    assert!(large(&key_of(&house, other)).is_some());
    drop(held);
    assert!(large(&keys[2]).is_some());
}

/// Selections had no bound of their own: as many as a person asked for kept every processor from everybody.
#[test]
fn walks_are_few_at_once_and_none_of_them_waits_for_the_writer() {
    let house = House::new();
    let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).saturating_sub(1).max(1);
    let (let_go, held) = busy(&house);
    let ([inside, peak, done], before) = ([(); 3].map(|()| AtomicUsize::new(0)), house.vault().queued(false));
    std::thread::scope(|threads| {
        for _ in 0..most + 3 {
            threads.spawn(|| {
                let walked = house.vault().walk::<ListMemories, _, Wrong>(&house.owner(), house.scope(), &Call::internal(), |_| {
                    peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    done.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                });
                walked.unwrap();
            });
        }
        // The writer answers nobody, and all of them come to their end.
        while house.vault().queued(false) < before + u64::try_from(most + 3).unwrap() {
            std::thread::yield_now();
        }
        assert_eq!((done.load(Ordering::SeqCst), peak.load(Ordering::SeqCst)), (most + 3, most));
        drop(let_go);
    });
    held.join().unwrap();
}
