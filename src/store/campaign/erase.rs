//! Erasure and rotation of epochs: what is left of an erased holder in the whole file, free pages included, and power cuts at every step.

use std::time::Duration;

use super::*;
use crate::base::id::{SubjectId, TenantId};
use crate::crypto::aead::Aad;
use crate::crypto::ladder::WrappedDek;
use crate::engine::campaign::disk::replay;
use crate::engine::campaign::{Chance, amount, plain_blocks};
use crate::policy::action::{AskErasure, CreateKey, CreatePerson, Instance, ListMemories, Person, ReadErasures};
use crate::store::accounts;
use crate::store::anchor::AnchorError;
use crate::store::erasure::{self, Erasure, Holder, Refusal, Stage, Whom};
use crate::store::rotator::Stopped;
use crate::store::tables::subjects;

pub(super) const CANARY: &str = "the canary sings at midnight";
pub(super) const LONG: Duration = Duration::from_secs(120);

/// A person beside the owner, with a key.
pub(super) fn person(vault: &Vault, email: &str, key: &'static str) -> Principal {
    let console = Principal::system(vault.tenant(), vault.owner(), "console");
    let email = Phi::new(email.to_owned());
    let made =
        vault.write::<CreatePerson, _, Wrong>(&console, Instance, &Call::internal(), move |a| Ok(accounts::insert_person(a, &email)?));
    let person = made.unwrap().into_parts().0;
    let (verifier, acting) = (vault.verifier(key), Principal::system(vault.tenant(), person, "console"));
    let made = vault.write::<CreateKey, _, Wrong>(&acting, Person(person), &Call::internal(), move |a| {
        Ok(accounts::insert_key(a, &verifier, "prefix", &Phi::new("label".into()))?)
    });
    made.unwrap();
    admitted(vault, key)
}

/// A memory about this subject.
pub(super) fn about(vault: &Vault, who: &Principal, subject: &str, content: &str) -> MemoryId {
    let (scope, mut new) = (Scope { tenant: who.tenant(), owner: who.user() }, saying(content));
    new.text.subject = Some(Phi::new(subject.to_owned()));
    let made = vault.write::<CreateMemory, _, Wrong>(who, scope, &Call::internal(), move |a| Ok(memories::insert(a, new)?.id));
    made.unwrap().into_parts().0
}

fn ask(vault: &Vault, who: &Principal, whom: Whom) -> Result<Erasure, Refused<Refusal>> {
    let asked = vault.write::<AskErasure, _, Refusal>(who, Instance, &Call::internal(), move |a| erasure::ask(a, &whom));
    asked.map(|recorded| recorded.into_parts().0)
}

fn erasures_of(vault: &Vault, who: &Principal) -> Vec<Erasure> {
    vault.read::<ReadErasures, _, Refusal>(who, Instance, &Call::internal(), erasure::list).unwrap().into_parts().0
}

pub(super) fn subject_id(vault: &Vault, name: &str) -> Option<SubjectId> {
    let published = vault.published().unwrap();
    subjects::find(&vault.reading(&published), vault.tenant(), name).unwrap()
}

/// Its receipt verifies by the log's key alone and tells of it.
fn receipt_of(vault: &Vault, who: &Principal, erasure: &Erasure) {
    let id = erasure.id;
    let read = vault.read::<ReadErasures, _, Refusal>(who, Instance, &Call::internal(), move |a| erasure::read(a, id)).unwrap();
    let (receipt, note) = read.into_parts().0.1.expect("it has come to its end");
    assert_eq!(crate::audit::receipt::open(&note, &vault.log_key()), Ok(receipt.clone()));
    assert_eq!((receipt.user, receipt.holder, receipt.memories, receipt.epoch), (erasure.user, id, erasure.memories, erasure.epoch));
}

/// How many DEKs of this holder the keys of the file in `image` still open, in every block of it, used or free.
fn deks_that_open(image: &[u8], tenant: TenantId, kind: u8, id: [u8; 16]) -> usize {
    numbers_that_open(image, tenant, kind, id).len()
}

/// The numbers of those DEKs.
pub(super) fn numbers_that_open(image: &[u8], tenant: TenantId, kind: u8, id: [u8; 16]) -> Vec<u8> {
    let (keys, instance, blocks) = plain_blocks(image);
    assert!(blocks.len() > 10, "the scan sees the file");
    let mut found = Vec::new();
    for block in &blocks {
        assert!(!block.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "text in clear");
        // In a row: number, epoch, length 72, and the wrapped key.
        for at in (2..block.len().saturating_sub(72)).filter(|at| block[*at] == 72) {
            let aad = |number: u8| Aad::of("dek1", &[instance.bytes(), tenant.bytes(), &[kind], &id]).number(number.into());
            let sealed = block[at + 1..at + 73].to_vec();
            let wrapped = WrappedDek { epoch: block[at - 1].into(), sealed };
            found.extend(keys.unwrap_dek(&wrapped, &aad(block[at - 2])).is_ok().then_some(block[at - 2]));
        }
    }
    found
}

#[test]
fn an_erased_user_and_subject_leave_no_key_in_any_block_that_opens_what_was_theirs() {
    let mut house = House::new();
    let (vault, owner) = (house.vault().clone(), house.owner());
    let nurse = person(&vault, "nurse@example.org", "a key of the nurse");
    for number in 0..5 {
        create(&vault, &nurse, &Call::internal(), &format!("{CANARY} {number}")).unwrap();
        about(&vault, &owner, "Jane", &format!("{CANARY} about Jane {number}"));
        about(&vault, &nurse, "Jane", &format!("{CANARY} of the nurse about Jane {number}"));
        about(&vault, &owner, "John", &format!("about John {number}"));
    }
    create(&vault, &owner, &Call::internal(), "of the owner").unwrap();
    let (tenant, jane) = (vault.tenant(), subject_id(&vault, "Jane").unwrap());
    let holders = [(1, *nurse.user().bytes()), (2, *jane.bytes())];
    for (kind, id) in holders {
        assert!(deks_that_open(&house.tape.image(), tenant, kind, id) > 0, "the scan finds a key that is there");
    }
    let asked = ask(&vault, &owner, Whom::Known(Holder::User(nurse.user()))).unwrap();
    assert_eq!((asked.user, asked.stage), (true, Stage::Asked));
    assert!(matches!(vault.admit("a key of the nurse").unwrap(), Admission::Unknown), "no request of hers is taken from here on");
    ask(&vault, &owner, Whom::Subject(Phi::new("Jane".into()))).unwrap();
    // Somebody of the same name who is written about from now on is somebody else.
    assert!(vault.rotation_done(LONG, |_| true));
    let again = about(&vault, &owner, "Jane", "another Jane");
    assert!(subject_id(&vault, "Jane").is_some_and(|other| other != jane));
    let done = erasures_of(&vault, &owner);
    assert!(done.iter().all(|erasure| erasure.stage == Stage::Shredded && erasure.epoch >= 1), "{done:?}");
    done.iter().for_each(|erasure| receipt_of(&vault, &owner, erasure));
    assert_eq!(done.iter().map(|erasure| erasure.memories).sum::<u64>(), 15);
    assert_eq!(vault.keys().old_epoch(), None);
    let entry = house.entry("erasure.end");
    assert_eq!(entry.actor.kind, crate::audit::ActorKind::System);
    drop(vault);
    house.stop();
    for (kind, id) in holders {
        assert_eq!(deks_that_open(&house.tape.image(), tenant, kind, id), 0);
    }
    let held = held(&house.tape, "after the erasure");
    assert_eq!(held.contents.len(), 5 + 1 + 1);
    assert!(held.contents.contains_key(&again) && !held.contents.values().any(|text| text.contains(CANARY)));
}

#[test]
fn who_is_unknown_or_the_owner_is_not_erased_and_a_user_may_not_ask() {
    let house = House::new();
    let (vault, owner) = (house.vault(), house.owner());
    let nurse = person(vault, "nurse@example.org", "a key of the nurse");
    let of = |refused: Refused<Refusal>| match refused {
        Refused::Work(refusal, _) => refusal,
        other => panic!("{other:?}"),
    };
    assert!(matches!(of(ask(vault, &owner, Whom::Known(Holder::User(vault.owner()))).unwrap_err()), Refusal::Owner));
    assert!(matches!(of(ask(vault, &owner, Whom::Subject(Phi::new("nobody".into()))).unwrap_err()), Refusal::Unknown));
    assert!(matches!(of(ask(vault, &owner, Whom::User(Phi::new("no@example.org".into()))).unwrap_err()), Refusal::Unknown));
    assert!(matches!(of(ask(vault, &owner, Whom::Subject(Phi::new(SubjectId::draw().to_string()))).unwrap_err()), Refusal::Unknown));
    for who in [&nurse, &house.agent("cursor")] {
        assert!(matches!(ask(vault, who, Whom::Known(Holder::User(nurse.user()))).unwrap_err(), Refused::Denied(..)));
    }
    assert!(vault.rotation_done(LONG, |_| true));
    assert!(erasures_of(vault, &owner).is_empty() && matches!(vault.admit("a key of the nurse").unwrap(), Admission::Principal(..)));
}

#[test]
fn whoever_could_be_meant_for_another_is_not_erased() {
    let house = House::new();
    let (vault, owner) = (house.vault(), house.owner());
    person(vault, "kim@example.org", "a key of the nurse");
    // The Kelvin sign, of which Unicode's small letter is k.
    let refused = |whom: Whom| match ask(vault, &owner, whom).unwrap_err() {
        Refused::Work(refusal, _) => refusal,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(Whom::User(Phi::new("\u{212a}im@example.org".into()))), Refusal::Unknown));

    let subject = |name: String| Whom::Subject(Phi::new(name));
    about(vault, &owner, "Ann", "of Ann");
    let ann = subject_id(vault, "Ann").unwrap();
    about(vault, &owner, &ann.to_string(), "of one who is named as Ann's id");
    let other = subject_id(vault, &ann.to_string()).unwrap();
    assert!(matches!(refused(subject(ann.to_string())), Refusal::Ambiguous));
    assert!(erasures_of(vault, &owner).is_empty());
    for id in [other, ann] {
        assert_eq!(ask(vault, &owner, subject(id.to_string())).unwrap().id, *id.bytes());
    }
    assert!(vault.rotation_done(LONG, |_| true));
}

#[test]
fn an_epoch_is_left_while_people_write() {
    let house = House::new();
    let (vault, owner) = (house.vault(), house.owner());
    std::thread::scope(|threads| {
        for thread in 0..3 {
            let owner = &owner;
            threads.spawn(move || {
                for number in 0..20 {
                    about(vault, owner, &format!("subject {thread} {number}"), "words");
                }
            });
        }
        for _ in 0..3 {
            let console = Principal::system(vault.tenant(), vault.owner(), "console");
            match vault.rotate_epoch(&console) {
                Ok(_) | Err(Stopped::Engine(crate::engine::EngineError::Keys(_))) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(vault.rotation_done(LONG, |_| true));
        }
    });
    assert_eq!((vault.keys().epoch(), vault.keys().old_epoch()), (4, None));
    let found = vault.check(&mut |_, _| {}).unwrap();
    assert_eq!((found.count, found.memories), (0, 60), "{:?}", found.listed);
}

#[test]
fn an_older_superblock_put_back_is_refused_and_changes_nothing() {
    let mut house = House::new();
    let before = house.tape.image();
    let console = Principal::system(house.vault().tenant(), house.vault().owner(), "console");
    house.vault().rotate_epoch(&console).unwrap();
    assert!(house.vault().rotation_done(LONG, |_| true));
    house.stop();
    let mut image = house.tape.image();
    image[..8192].copy_from_slice(&before[..8192]);
    let replayed = Arc::new(Tape::faulty(image.clone(), None, 1));
    match House::on(Arc::clone(&replayed), &Clock::system()) {
        Err(OpenError::OlderSuperblock { found: 1, recorded: 3 }) => {}
        other => panic!("{:?}", other.map(|_| ()).map_err(|error| error.to_string())),
    }
    assert!(replayed.image()[..8192] == image[..8192], "neither copy is written over");
    // One copy alone: the other one counts, and is written over it.
    let mut image = house.tape.image();
    image[4096..8192].copy_from_slice(&before[4096..8192]);
    let mended = Arc::new(Tape::faulty(image, None, 1));
    House::on(Arc::clone(&mended), &Clock::system()).unwrap().stop();
    assert!(mended.image()[4096..8192] != before[4096..8192]);
}

#[test]
fn no_power_cut_during_an_erasure_loses_anybody_or_keeps_the_erased() {
    let wanted = amount(25, 200, 2000);
    let mut house = House::made_on(Arc::new(Tape::recording(Vec::new())));
    let (vault, owner) = (house.vault().clone(), house.owner());
    let nurse = person(&vault, "nurse@example.org", "a key of the nurse");
    create(&vault, &owner, &Call::internal(), "kept: of the owner").unwrap();
    create(&vault, &nurse, &Call::internal(), CANARY).unwrap();
    about(&vault, &nurse, "John", CANARY);
    about(&vault, &owner, "Jane", CANARY);
    for number in 0..8 {
        about(&vault, &owner, &format!("subject {number}"), &format!("kept: about {number}"));
    }
    let (tenant, jane) = (vault.tenant(), subject_id(&vault, "Jane").unwrap());
    let ready = house.tape.count();
    ask(&vault, &owner, Whom::Known(Holder::User(nurse.user()))).unwrap();
    ask(&vault, &owner, Whom::Subject(Phi::new(jane.to_string()))).unwrap();
    let asked = house.tape.count();
    vault.rotation_done(LONG, |_| true);
    drop(vault);
    house.stop();
    let (ops, mut chance) = (house.tape.ops(), Chance(11));
    let (step, mut points) = (((ops.len() - ready) / wanted).max(1), 0);
    replay(&ops, &mut chance, |at, cut| {
        if at >= ready && at % step == 0 {
            let what = format!("change {at} of {}", ops.len());
            let tape = Arc::new(Tape::faulty(cut(), None, 5));
            let mut house = House::on(Arc::clone(&tape), &Clock::system()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(house.vault().rotation_done(LONG, |_| true), "{what}: it does not come to its end");
            let all = erasures_of(house.vault(), &house.owner());
            assert!(at < asked || all.len() == 2, "{what}: an acknowledged erasure is forgotten");
            assert!(all.iter().all(|erasure| erasure.stage == Stage::Shredded), "{what}: {all:?}");
            all.iter().for_each(|erasure| receipt_of(house.vault(), &house.owner(), erasure));
            house.stop();
            let held = held(&tape, &what);
            assert_eq!(
                held.contents.values().filter(|text| text.starts_with("kept: ")).count(),
                9,
                "{what}: somebody else's memory is lost"
            );
            for erasure in all {
                assert_eq!(deks_that_open(&tape.image(), tenant, 2 - u8::from(erasure.user), erasure.id), 0, "{what}: a key is left");
            }
            assert!(at < asked || !held.contents.values().any(|text| text == CANARY), "{what}: what was erased is there");
            points += 1;
        }
    });
    println!("power cuts during an erasure: {points}");
    assert!(points >= wanted.min(ops.len() - ready));
}

#[test]
fn what_the_ledger_names_is_erased_again_in_an_older_copy_of_the_data() {
    let folder = std::env::temp_dir().join(format!("rosemary-erase-{}", crate::base::hex::encode(&crate::base::rng::array::<8>())));
    std::fs::create_dir(&folder).unwrap();
    let anchor = folder.join("anchor");
    let mut house = House::new();
    about(house.vault(), &house.owner(), "Jane", CANARY);
    let jane = subject_id(house.vault(), "Jane").unwrap();
    house.stop();
    let older = house.tape.image();
    let open = |image: Vec<u8>, anchored: bool| {
        let tape = Arc::new(Tape::faulty(image, None, 1));
        let mut settings = settings(&Clock::system(), &Arc::default());
        settings.anchor = Some(anchor.clone());
        let engine = engine_on(&tape, TABLES, false).unwrap();
        if !anchored {
            // As a restore does it: the anchor is made anew, the ledger stays.
            let mut alone = crate::store::campaign::settings(&Clock::system(), &Arc::default());
            alone.anchor = None;
            let store = Store::open(engine, alone).unwrap();
            store.vault().anchor_at(&anchor).unwrap();
            store.stop();
            return (Arc::clone(&tape), Store::open(engine_on(&tape, TABLES, false).unwrap(), settings).unwrap());
        }
        (Arc::clone(&tape), Store::open(engine, settings).unwrap())
    };
    let (_, store) = open(older.clone(), false);
    let owner = admitted(store.vault(), OWNER_KEY);
    ask(store.vault(), &owner, Whom::Subject(Phi::new(jane.to_string()))).unwrap();
    assert!(store.vault().rotation_done(LONG, |_| true));
    store.stop();
    let ledger = crate::store::ledger::path_beside(&anchor);
    let written = std::fs::read_to_string(&ledger).unwrap();
    assert!(written.contains(&jane.to_string()));
    let (tape, store) = open(older.clone(), false);
    assert!(store.vault().rotation_done(LONG, |_| true));
    let owner = admitted(store.vault(), OWNER_KEY);
    assert!(erasures_of(store.vault(), &owner).iter().any(|erasure| erasure.id == *jane.bytes() && erasure.stage == Stage::Shredded));
    let listed = store.vault().read::<ListMemories, _, Wrong>(
        &owner,
        Scope { tenant: owner.tenant(), owner: owner.user() },
        &Call::internal(),
        |a| Ok(memories::total(a, memories::State::Live)?),
    );
    assert_eq!(listed.unwrap().into_parts().0, 0);
    let tenant = store.vault().tenant();
    store.stop();
    assert_eq!(deks_that_open(&tape.image(), tenant, 2, *jane.bytes()), 0);
    assert_eq!(std::fs::read_to_string(&ledger).unwrap(), written, "the ledger is not changed by an older copy");
    // The anchor knows that somebody was erased: without the list, an older copy is not taken.
    let at = |image: &[u8]| {
        let mut settings = settings(&Clock::system(), &Arc::default());
        settings.anchor = Some(anchor.clone());
        Store::open(engine_on(&Arc::new(Tape::faulty(image.to_vec(), None, 1)), TABLES, false).unwrap(), settings).map(Store::stop)
    };
    let tape = Arc::new(Tape::faulty(older.clone(), None, 1));
    let head = held(&tape, "older").checkpoint;
    let engine = engine_on(&tape, TABLES, false).unwrap();
    crate::store::anchor::write(&anchor, &engine, &engine.snapshot().unwrap(), head, 1).unwrap();
    drop(engine);
    std::fs::remove_file(&ledger).unwrap();
    assert!(matches!(at(&older), Err(OpenError::Anchor(AnchorError::LedgerOlder { anchored: 1, found: 0, .. }))));
    std::fs::write(&ledger, written.replace("subject", "user")).unwrap();
    assert!(matches!(at(&older), Err(OpenError::Anchor(AnchorError::Ledger(_)))));
    std::fs::write(&ledger, written).unwrap();
    at(&older).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}
