//! Renewal of DEKs: while people write, with power cuts at every step, and that no old key is left in the whole file.

use super::erase::{CANARY, LONG, about, numbers_that_open, person, subject_id};
use super::*;
use crate::engine::campaign::disk::replay;
use crate::engine::campaign::{Chance, amount};
use crate::policy::action::{AskErasure, Instance, TrashMemory, UpdateMemory};
use crate::store::erasure::{self, Refusal, Whom};
use crate::store::memories::Replacement;

fn console(vault: &Vault) -> Principal {
    Principal::system(vault.tenant(), vault.owner(), "console")
}

/// A memory with a version before it, one in the trash, people and subjects. Gives how many memories there are.
fn furnish(vault: &Vault, owner: &Principal) -> usize {
    let nurse = person(vault, "nurse@example.org", "a key of the nurse");
    create(vault, &nurse, &Call::internal(), CANARY).unwrap();
    let changed = about(vault, owner, "Jane", "kept: before");
    let text = saying("kept: after").text;
    let (title, content, allowed_vendors) = (text.title, text.content, vec!["*".into()]);
    let replacement =
        Replacement { title, content, tags: text.tags, allowed_vendors, metadata: None, speaker: None, run_id: None, occurred_at: None };
    vault
        .write::<UpdateMemory, _, Wrong>(owner, changed, &Call::internal(), move |a| Ok(memories::revise(a, |_, _| replacement).map(drop)?))
        .unwrap();
    let trashed = about(vault, owner, "John", "kept: in the trash");
    vault.write::<TrashMemory, _, Wrong>(owner, trashed, &Call::internal(), |a| Ok(memories::trash(a, None).map(|_| ())?)).unwrap();
    for number in 0..6 {
        about(vault, owner, &format!("subject {number}"), &format!("kept: about {number}"));
    }
    9
}

#[test]
fn every_key_of_every_holder_is_renewed_while_people_write_and_none_of_the_old_ones_opens_anything() {
    let mut house = House::new();
    let (vault, owner) = (house.vault().clone(), house.owner());
    let before = furnish(&vault, &owner);
    let (tenant, jane) = (vault.tenant(), subject_id(&vault, "Jane").unwrap());
    let holders = [(1, *owner.user().bytes()), (2, *jane.bytes()), (3, *tenant.bytes())];
    std::thread::scope(|threads| {
        let (vault, owner) = (&vault, &owner);
        threads.spawn(move || {
            for number in 0..30 {
                about(vault, owner, &format!("newcomer {number}"), "kept: written meanwhile");
            }
        });
        vault.rotate_deks(&console(vault)).unwrap();
        vault.rotate_deks(&console(vault)).unwrap();
        assert!(vault.rotation_done(LONG, |_| true));
    });
    assert_eq!((vault.keys().epoch(), vault.keys().old_epoch()), (2, None));
    let found = vault.check(&mut |_, _| {}).unwrap();
    assert_eq!((found.count, found.memories), (0, before as u64 + 30), "{:?}", found.listed);
    assert!(matches!(vault.admit("a key of the nurse").unwrap(), Admission::Principal(..)));
    assert_eq!(house.entry("keys.reseal").actor.kind, crate::audit::ActorKind::System);
    drop(vault);
    house.stop();
    for (kind, id) in holders {
        let numbers = numbers_that_open(&house.tape.image(), tenant, kind, id);
        assert!(!numbers.is_empty() && numbers.iter().all(|number| *number == 2), "kind {kind}: {numbers:?}");
    }
    assert_eq!(held(&house.tape, "after the renewal").contents.len(), before + 30);
}

#[test]
fn who_asks_to_be_erased_meanwhile_does_not_wait_for_the_end() {
    let house = House::new();
    let (vault, owner) = (house.vault(), house.owner());
    furnish(vault, &owner);
    vault.rotate_deks(&console(vault)).unwrap();
    let whom = Whom::Subject(Phi::new("Jane".into()));
    vault.write::<AskErasure, _, Refusal>(&owner, Instance, &Call::internal(), move |a| erasure::ask(a, &whom)).unwrap();
    assert!(vault.rotation_done(LONG, |_| true));
    assert_eq!(vault.keys().old_epoch(), None);
    let found = vault.check(&mut |_, _| {}).unwrap();
    assert_eq!((found.count, found.memories), (0, 8), "{:?}", found.listed);
}

#[test]
fn no_power_cut_during_a_renewal_loses_anything_and_it_comes_to_its_end() {
    let wanted = amount(25, 200, 2000);
    let mut house = House::made_on(Arc::new(Tape::recording(Vec::new())));
    let (vault, owner) = (house.vault().clone(), house.owner());
    let kept = furnish(&vault, &owner);
    let tenant = vault.tenant();
    let ready = house.tape.count();
    vault.rotate_deks(&console(&vault)).unwrap();
    let asked = house.tape.count();
    assert!(vault.rotation_done(LONG, |_| true));
    drop(vault);
    house.stop();
    let (ops, mut chance) = (house.tape.ops(), Chance(13));
    let (step, mut points) = (((ops.len() - ready) / wanted).max(1), 0);
    replay(&ops, &mut chance, |at, cut| {
        if at >= ready && at % step == 0 {
            let what = format!("change {at} of {}", ops.len());
            let tape = Arc::new(Tape::faulty(cut(), None, 5));
            let mut house = House::on(Arc::clone(&tape), &Clock::system()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(house.vault().rotation_done(LONG, |_| true), "{what}: it does not come to its end");
            let found = house.vault().check(&mut |_, _| {}).unwrap();
            assert_eq!((found.count, found.memories), (0, kept as u64), "{what}: {:?}", found.listed);
            house.stop();
            assert_eq!(held(&tape, &what).contents.len(), kept, "{what}");
            let numbers = numbers_that_open(&tape.image(), tenant, 3, *tenant.bytes());
            assert!(at < asked || numbers.iter().all(|number| *number == 2), "{what}: an old key is left, {numbers:?}");
            points += 1;
        }
    });
    println!("power cuts during a renewal: {points}");
    assert!(points >= wanted.min(ops.len() - ready));
}
