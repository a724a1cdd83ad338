//! What a store that is opened is compared with: label, owner, log, anchor; and what a recovery says of itself.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::*;
use crate::base::{hex, rng};
use crate::engine::campaign::disk::Fault as Refusal;
use crate::policy::action::ReadOperation;
use crate::store::accounts;
use crate::store::anchor::AnchorError;
use crate::store::tables::{AUDIT, META};
use crate::store::writer::{Settled, Unavailable};

/// A file of its own, removed when dropped.
struct Scrap(PathBuf);

impl Scrap {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("rosemary-anchor-{}", hex::encode(&rng::array::<8>()))))
    }
}

impl Drop for Scrap {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A disk that holds this much, by itself.
fn disk(image: &[u8]) -> Arc<Tape> {
    Arc::new(Tape::faulty(image.to_vec(), None, 1))
}

/// A closed store that holds one memory.
fn closed() -> Vec<u8> {
    let mut house = House::new();
    create(house.vault(), &house.owner(), &Call::internal(), "kept").unwrap();
    house.stop();
    house.tape.image()
}

/// Opens the store in `image` with other settings.
fn open(image: &[u8], change: impl FnOnce(&mut Settings)) -> (Arc<Tape>, Result<Store, OpenError>) {
    let tape = disk(image);
    let mut settings = settings(&Clock::system(), &Arc::default());
    change(&mut settings);
    let opened = Store::open(engine_on(&tape, TABLES, false).unwrap(), settings);
    (tape, opened)
}

fn anchored(image: &[u8], anchor: &Path) -> (Arc<Tape>, Result<Store, OpenError>) {
    open(image, |settings| settings.anchor = Some(anchor.to_owned()))
}

/// Changes rows of a closed store below everything.
fn forged(image: &[u8], change: impl FnOnce(&mut crate::engine::Batch<'_>)) -> Vec<u8> {
    let tape = disk(image);
    let engine = engine_on(&tape, TABLES, false).unwrap();
    engine
        .commit(|batch| {
            change(batch);
            Ok(())
        })
        .unwrap();
    engine.close().unwrap();
    tape.image()
}

#[test]
fn another_label_or_an_unfinished_file_does_not_open_and_a_new_owner_is_recorded() {
    let image = closed();
    assert!(matches!(open(&image, |settings| settings.label = "elsewhere".to_owned()).1, Err(OpenError::OtherTenant)));
    let tape = Arc::new(Tape::faulty(Vec::new(), None, 1));
    let engine = engine_on(&tape, TABLES, true).unwrap();
    assert!(matches!(Store::open(engine, settings(&Clock::system(), &Arc::default())), Err(OpenError::NotInitialised)));

    let (tape, opened) = open(&image, |settings| settings.owner_email = "second@example.org".to_owned());
    let store = opened.unwrap();
    let second = store.vault().owner();
    store.stop();
    let found = held(&tape, "a new owner");
    assert_eq!(found.entries.iter().filter(|entry| entry.op.text() == "system.owner").count(), 1);
    // The first owner comes back as who they were; each change is an entry.
    let mut house = House::on(tape, &Clock::system()).unwrap();
    assert_ne!(house.vault().owner(), second);
    assert_eq!(house.entries().iter().filter(|entry| entry.op.text() == "system.owner").count(), 2);
    house.reopen();
    assert_eq!(house.entries().iter().filter(|entry| entry.op.text() == "system.owner").count(), 2, "no change, no entry");
}

#[test]
fn a_log_that_does_not_agree_with_its_checkpoint_does_not_open() {
    let image = closed();
    let last = u64::try_from(held(&disk(&image), "closed").entries.len()).unwrap() - 1;
    let line = |batch: &crate::engine::Batch<'_>, i: u64| crate::engine::Read::get(batch, AUDIT, &i.to_be_bytes()).unwrap().unwrap();
    let cut = forged(&image, |batch| assert!(batch.delete(AUDIT, &last.to_be_bytes()).unwrap()));
    let longer = forged(&image, |batch| {
        let text = line(batch, last);
        batch.put(AUDIT, &(last + 1).to_be_bytes(), &text).unwrap();
    });
    let changed = forged(&image, |batch| {
        let other = line(batch, 0);
        batch.put(AUDIT, &1_u64.to_be_bytes(), &other).unwrap();
    });
    let none = forged(&image, |batch| assert!(batch.delete(META, log::CHECKPOINT).unwrap()));
    for (image, what) in [(cut, "cut"), (longer, "longer"), (changed, "changed"), (none, "no checkpoint")] {
        let (_, opened) = open(&image, |_| {});
        assert!(matches!(opened, Err(OpenError::Log(_))), "{what}");
    }
}

/// An anchor that could not be written was not tried again before the log grew: a store that was quiet since had an old one.
#[test]
fn an_anchor_that_could_not_be_written_is_tried_again_though_the_log_does_not_grow() {
    let (folder, image) = (Scrap::new(), closed());
    let (away, path) = (folder.0.with_extension("away"), folder.0.join("anchor"));
    std::fs::create_dir(&folder.0).unwrap();
    let engine = engine_on(&disk(&image), TABLES, false).unwrap();
    let head = held(&disk(&image), "closed").checkpoint;
    crate::store::anchor::write(&path, &engine, &engine.snapshot().unwrap(), head, 0).unwrap();
    drop(engine);
    let store = anchored(&image, &path).1.unwrap();
    std::fs::rename(&folder.0, &away).unwrap();
    create(store.vault(), &admitted(store.vault(), OWNER_KEY), &Call::internal(), "later").unwrap();
    let size = store.vault().with_reader(|_, head| head.checkpoint.size).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    std::fs::rename(&away, &folder.0).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let seen = || std::fs::read_to_string(&path).ok().and_then(|text| text.lines().nth(1)?.parse::<u64>().ok());
    while seen() != Some(size) {
        assert!(std::time::Instant::now() < end, "{:?} of {size}", seen());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    store.stop();
    std::fs::remove_dir_all(&folder.0).unwrap();
}

#[test]
fn a_missing_foreign_or_unreadable_anchor_refuses_and_so_does_a_file_that_was_rolled_back() {
    let (anchor, image) = (Scrap::new(), closed());
    assert!(matches!(anchored(&image, &anchor.0).1, Err(OpenError::Anchor(AnchorError::Missing(_)))));
    std::fs::write(&anchor.0, "nothing that was signed").unwrap();
    assert!(matches!(anchored(&image, &anchor.0).1, Err(OpenError::Anchor(AnchorError::Foreign(_)))));
    assert!(matches!(anchored(&image, &std::env::temp_dir()).1, Err(OpenError::Anchor(AnchorError::Unreadable(..)))));

    // As `init` does: the anchor of the store as it is.
    let tape = disk(&image);
    let engine = engine_on(&tape, TABLES, false).unwrap();
    let head = held(&disk(&image), "closed").checkpoint;
    crate::store::anchor::write(&anchor.0, &engine, &engine.snapshot().unwrap(), head, 0).unwrap();
    drop(engine);
    let (tape, opened) = anchored(&image, &anchor.0);
    let store = opened.unwrap();
    let owner = admitted(store.vault(), OWNER_KEY);
    create(store.vault(), &owner, &Call::internal(), "later").unwrap();
    store.stop();
    // Stopping wrote it again: the file of before is not taken, the file itself is, and one that went on without the anchor is too.
    assert!(matches!(
        anchored(&image, &anchor.0).1,
        Err(OpenError::Anchor(AnchorError::RolledBack { anchored, found, .. })) if anchored > found
    ));
    let now = tape.image();
    anchored(&now, &anchor.0).1.unwrap().stop();
    let ahead = std::fs::read_to_string(&anchor.0).unwrap();
    assert!(matches!(anchored(&now, &anchor.0).1, Err(OpenError::Anchor(AnchorError::RolledBack { .. }))), "that run left entries");
    // Another history of the same length is another file.
    std::fs::write(&anchor.0, ahead).unwrap();
    let (other, store) = open(&image, |_| {});
    let store = store.unwrap();
    let owner = admitted(store.vault(), OWNER_KEY);
    (0..20).for_each(|i| assert!(create(store.vault(), &owner, &Call::internal(), &format!("{i}")).is_ok()));
    store.stop();
    assert!(matches!(
        anchored(&other.image(), &anchor.0).1,
        Err(OpenError::Anchor(AnchorError::RolledBack { anchored, found, .. })) if anchored < found
    ));
    // Another instance's anchor is not this one's.
    assert!(matches!(anchored(&closed(), &anchor.0).1, Err(OpenError::Anchor(AnchorError::Foreign(_)))));
}

fn outcome(house: &House, who: &Principal, id: crate::base::id::OperationId) -> Option<Settled> {
    let asked = house.vault().read::<ReadOperation, _, Wrong>(who, id, &Call::internal(), |access| Ok(accounts::operation(access)?));
    asked.ok().and_then(|recorded| recorded.into_parts().0)
}

/// The calls that one write makes, of a store that holds what `base` does.
fn calls_of_a_write(base: &[u8]) -> u64 {
    let house = House::on(disk(base), &Clock::system()).unwrap();
    let before = house.tape.calls();
    create(house.vault(), &house.owner(), &Call::internal(), "measured").unwrap();
    house.tape.calls() - before
}

/// Found in review: a recovery whose own entry was of unknown outcome took that entry for the lost batch at its next attempt, and told the
/// caller that a lost write was committed.
#[test]
fn a_recovery_that_fails_midway_still_tells_each_outcome_as_it_is() {
    let base = closed();
    let calls = calls_of_a_write(&base);
    let (mut unknown, mut twice) = (0, 0);
    for at in 0..calls {
        for times in 1..=calls + 8 {
            // Only some lengths, each at another call.
            if (at + times * 5) % 13 != 0 {
                continue;
            }
            let what = format!("refused from {at}, {times} times");
            let mut house = House::on(disk(&base), &Clock::system()).unwrap();
            let (owner, call) = (house.owner(), Call::internal());
            house.tape.refuse(Refusal { at, times, kind: ErrorKind::Other });
            let told = create(house.vault(), &owner, &call, "perhaps");
            let settled = match &told {
                Err(Refused::Unavailable(Unavailable::Unknown(id))) => {
                    unknown += 1;
                    (0..10_000).find_map(|_| match outcome(&house, &owner, *id) {
                        _ if house.fatal() > 0 => None,
                        Some(Settled::Pending) | None => {
                            std::thread::sleep(std::time::Duration::from_micros(100));
                            None
                        }
                        settled => settled,
                    })
                }
                _ => None,
            };
            let gave_up = house.fatal() > 0;
            house.tape.mend();
            house.stop();
            house.tape.forget_unwritten();
            let found = held(&house.tape, &what);
            let there = found.contents.values().any(|text| text == "perhaps");
            let recovered: Vec<&Entry> = found.entries.iter().filter(|entry| entry.op.text() == "system.recover").collect();
            twice += u64::from(recovered.len() > 1);
            match (told, settled) {
                (Ok(_), _) => assert!(there, "{what}"),
                (Err(Refused::Unavailable(Unavailable::Unknown(_))), Some(settled)) => {
                    assert_eq!(matches!(settled, Settled::Committed(_)), there, "{what}: {settled:?}");
                    let lost: u64 = recovered.iter().filter_map(|entry| detail(entry, "lost")).sum();
                    assert_eq!(lost, u64::from(!there), "{what}: {recovered:?}");
                }
                (Err(Refused::Unavailable(Unavailable::Unknown(_))), None) => assert!(gave_up, "{what}: never settled"),
                (Err(_), _) => assert!(!there, "{what}"),
            }
        }
    }
    println!("store recovery: {unknown} unknown outcomes over {calls} calls, {twice} recoveries told more than once");
    assert!(unknown > 0);
}

#[test]
fn requests_refused_while_the_store_is_shut_are_counted_in_the_recovery_entry() {
    let house = House::on(disk(&closed()), &Clock::system()).unwrap();
    let owner = house.owner();
    house.tape.refuse(Refusal { at: 0, times: u64::MAX / 2, kind: ErrorKind::Other });
    assert!(create(house.vault(), &owner, &Call::internal(), "one").is_err());
    while house.fatal() == 0 {
        std::thread::yield_now();
    }
    let before = house.vault().refused_while_shut();
    (0..7).for_each(|_| assert!(matches!(house.vault().admit("whoever"), Err(Unavailable::Latched))));
    assert_eq!(house.vault().refused_while_shut(), before + 7);
    house.tape.mend();
    // In the product the process has ended by now; here the next write makes it look again.
    let _ = create(house.vault(), &owner, &Call::internal(), "two");
    while !house.vault().is_up() {
        std::thread::yield_now();
    }
    let entry = house.entry("system.recover");
    assert!(detail(&entry, "refused").unwrap() >= 8, "{entry:?}");
    assert_eq!(house.vault().refused_while_shut(), 0);
    create(house.vault(), &owner, &Call::internal(), "three").unwrap();
}
