//! The change of the log's signing key: while people write, with power cuts at every step, and attacked.

use super::erase::LONG;
use super::*;
use crate::audit::chain::{self, ChainError};
use crate::audit::checkpoint::vkey;
use crate::audit::note::{NoteError, Vkey};
use crate::audit::verify;
use crate::audit::verify::{Fault as Broken, Verified, Verifier};
use crate::engine::campaign::disk::{Op, apply, replay};
use crate::engine::campaign::{Chance, amount};
use crate::engine::{Place, Read as _, Table, Unlock};
use crate::store::check::Findings;
use crate::store::restore;
use crate::store::tables::{AUDIT, AUDIT_KEYS, CHECKPOINTS, META, key, signers};
use crate::store::tx::value;

fn console(vault: &Vault) -> Principal {
    Principal::system(vault.tenant(), vault.owner(), "console")
}

fn change(vault: &Vault) {
    vault.rotate_audit_key(&console(vault)).unwrap();
    assert!(vault.rotation_done(LONG, |_| true));
}

/// The whole log as a bundle, checked by `key`.
fn verified(vault: &Vault, key: &Vkey) -> Result<Verified, Broken> {
    let mut verifier = Verifier::new();
    let (lines, note, links) = vault
        .with_reader(|reader, head| {
            let lines: Vec<String> = (0..head.checkpoint.size).map(|i| log::line(reader, i).unwrap().unwrap()).collect();
            (lines, head.note.clone(), signers::links(reader, vault.log(), head.checkpoint.size).unwrap())
        })
        .unwrap();
    lines.iter().try_for_each(|line| verifier.line(line).map(|_| ()))?;
    verifier.line(&verify::trailer(&note, &links, &[]))?;
    verifier.finish(key)
}

#[test]
fn the_log_goes_on_under_a_new_key_while_people_write_and_every_key_before_leads_to_it() {
    let mut house = House::new();
    let (vault, owner) = (house.vault().clone(), house.owner());
    let mut keys = vec![vault.log_key()];
    std::thread::scope(|threads| {
        let (vault, owner) = (&vault, &owner);
        threads.spawn(move || (0..40).for_each(|number| _ = create(vault, owner, &Call::internal(), &format!("kept {number}")).unwrap()));
        // An anchor that is written meanwhile is signed by the key whose turn it is at its size.
        threads.spawn(move || {
            let path = std::env::temp_dir().join(format!("rosemary-anchor-{}", crate::base::hex::encode(&crate::base::rng::array::<8>())));
            for _ in 0..60 {
                vault.anchor_at(&path).unwrap();
                let text = crate::store::anchor::read(&path).unwrap();
                let published = vault.published().unwrap();
                assert!(signers::anchor(&published.snapshot, &published.snapshot.keys(), vault.log(), &text).is_ok());
            }
            std::fs::remove_file(&path).unwrap();
        });
        for _ in 0..3 {
            change(vault);
            keys.push(vault.log_key());
        }
    });
    let entry = house.entries().into_iter().rfind(|entry| entry.det.all().contains(&Detail::Setting(chain::HANDOVER))).unwrap();
    for detail in [Detail::KeyOld(keys[2].id()), Detail::KeyNew(keys[3].id()), Detail::KeyPublic(*keys[3].public())] {
        assert!(entry.det.all().contains(&detail), "{detail:?}");
    }
    for key in &keys {
        assert_eq!(verified(&vault, key).unwrap().key, keys[3]);
    }
    assert_eq!(verified(&vault, &vkey(vault.log(), [9; 32])), Err(Broken::Note(NoteError::Unsigned)));
    assert_eq!(vault.check(&mut |_, _| {}).unwrap().listed, []);
    drop(vault);
    house.reopen();
    assert_eq!(house.vault().log_key(), keys[3]);
    assert!(house.vault().keys().next_signing().is_none());
    assert!(verified(house.vault(), &keys[0]).is_ok());
    house.stop();
    held(&house.tape, "after three changes of key");
}

#[test]
fn no_power_cut_during_a_change_of_key_parts_the_log_from_its_keys() {
    let wanted = amount(30, 200, 2000);
    let mut house = House::made_on(Arc::new(Tape::recording(Vec::new())));
    let (vault, owner) = (house.vault().clone(), house.owner());
    create(&vault, &owner, &Call::internal(), "kept").unwrap();
    let (first, ready) = (vault.log_key(), house.tape.count());
    vault.rotate_audit_key(&console(&vault)).unwrap();
    let asked = house.tape.count();
    assert!(vault.rotation_done(LONG, |_| true));
    drop(vault);
    house.stop();
    let (ops, mut chance, mut before, mut after) = (house.tape.ops(), Chance(17), 0, 0);
    let rounds = wanted.div_ceil(ops.len() - ready);
    replay(&ops, &mut chance, |at, cut| {
        for _ in 0..if at >= ready { rounds } else { 0 } {
            let what = format!("change {at} of {}", ops.len());
            let tape = Arc::new(Tape::faulty(cut(), None, 5));
            let mut house = House::on(Arc::clone(&tape), &Clock::system()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(house.vault().rotation_done(LONG, |_| true), "{what}: it does not come to its end");
            assert_eq!(house.vault().check(&mut |_, _| {}).unwrap().listed, [], "{what}");
            let now = house.vault().log_key();
            assert!(at < asked || now != first, "{what}: it was forgotten");
            assert!(house.vault().keys().next_signing().is_none(), "{what}");
            assert_eq!(verified(house.vault(), &first).unwrap().key, now, "{what}");
            if now == first {
                before += 1
            } else {
                after += 1
            }
            house.stop();
            held(&tape, &what);
        }
    });
    println!("power cuts during a change of the log's key: {before} before it, {after} after it");
    assert!(before > 0 && after > 0);
}

/// What is in between two superblocks, as a backup of that moment has it: restored, its log and the one before are whole.
#[test]
fn a_backup_of_the_middle_of_a_change_of_key_is_restored_whole() {
    let house = House::made_on(Arc::new(Tape::recording(Vec::new())));
    let ready = house.tape.count();
    change(house.vault());
    let ops = house.tape.ops();
    drop(house);
    let folder = std::env::temp_dir().join(format!("rosemary-middle-{}", crate::base::hex::encode(&crate::base::rng::array::<8>())));
    std::fs::create_dir(&folder).unwrap();
    let (mut image, mut seen) = (Vec::new(), [0; 2]);
    for (at, op) in ops.iter().enumerate() {
        apply(&mut image, op);
        if at < ready || !matches!(op, Op::Sync) {
            continue;
        }
        let engine = engine_on(&Arc::new(Tape::recording(image.clone())), TABLES, false).unwrap();
        let handed = signers::handed_over(&engine.snapshot().unwrap(), &engine.keys()).unwrap().is_some();
        if engine.keys().next_signing().is_none() || seen[usize::from(handed)] > 2 {
            continue;
        }
        seen[usize::from(handed)] += 1;
        let (path, clock, never) = (folder.join(format!("{at}.db")), Clock::system(), std::sync::atomic::AtomicBool::new(false));
        let facts = restore::facts(&engine, &clock).unwrap();
        let order = restore::Order {
            path: &path,
            unlock: Unlock::AsHere,
            place: Place::New,
            overridden: Default::default(),
            known: &[],
            stop: &never,
            progress: &mut |_, _| {},
        };
        let restored = restore::restore(&engine, &facts, &clock, order).unwrap();
        assert_eq!(restored.found.count, 0);
        let whole = Arc::new(Tape::faulty(std::fs::read(&path).unwrap(), None, 1));
        let mut house = House::on(Arc::clone(&whole), &clock).unwrap();
        let first = house.vault().log_key();
        assert!(house.vault().rotation_done(LONG, |_| true));
        assert!(house.vault().keys().next_signing().is_none());
        assert!(verified(house.vault(), &first).is_ok());
        change(house.vault());
        assert!(verified(house.vault(), &first).is_ok());
        house.stop();
        held(&whole, "restored from the middle of a change of key");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(seen[0] > 0 && seen[1] > 0, "before the handover and after it: {seen:?}");
}

/// A row set, or removed.
type Put = (Table, Vec<u8>, Option<Vec<u8>>);

/// Sets rows of a closed store, and checks all of it.
fn forged(tape: &Arc<Tape>, rows: &[Put]) -> Findings {
    let image = Arc::new(Tape::faulty(tape.image(), None, 1));
    let engine = engine_on(&image, TABLES, false).unwrap();
    let put = engine.commit(|batch| {
        rows.iter().try_for_each(|(table, key, row)| match row {
            Some(row) => batch.put(*table, key, row),
            None => batch.delete(*table, key).map(drop),
        })
    });
    assert!(put.is_ok());
    let snapshot = engine.snapshot().unwrap();
    check::check(&snapshot, engine.keys(), engine.instance(), Clock::system().now(), &mut |_, _| {}).unwrap()
}

#[test]
fn what_a_retired_key_signs_later_and_a_key_without_its_entry_are_found() {
    let mut house = House::new();
    let (vault, owner) = (house.vault().clone(), house.owner());
    let old = vault.keys();
    change(&vault);
    let middle = vault.keys();
    let stranger = crate::crypto::ladder::Keys::random();
    create(&vault, &owner, &Call::internal(), "later").unwrap();
    change(&vault);
    let log = vault.log();
    // A bundle that a retired key signed now, with the chain that says when it was retired.
    let (head, links) =
        vault.with_reader(|reader, head| (head.checkpoint, signers::links(reader, log, head.checkpoint.size).unwrap())).unwrap();
    let read = |trusted: &crate::crypto::ladder::Keys, signer: &crate::crypto::ladder::Keys| {
        chain::Chain::follow(&vkey(log, trusted.signing().public()), &links).unwrap().read(&head.note(signer.signing()))
    };
    assert!(matches!(read(&old, &old), Err(ChainError::Retired { .. })));
    assert!(matches!(read(&old, &middle), Err(ChainError::Retired { .. })));
    assert!(read(&old, &vault.keys()).is_ok());
    drop(vault);
    house.stop();
    let engine = engine_on(&house.tape, TABLES, false).unwrap();
    let snapshot = engine.snapshot().unwrap();
    let end = check::check(&snapshot, engine.keys(), engine.instance(), Clock::system().now(), &mut |_, _| {}).unwrap().checkpoint.unwrap();
    let retired = signers::retired(&snapshot, log).unwrap();
    let kept = snapshot.get(CHECKPOINTS, &retired[0].0.to_be_bytes()).unwrap().unwrap();
    drop(snapshot);
    drop(engine);
    let found = |rows: &[Put]| forged(&house.tape, rows).count;
    assert_eq!(found(&[]), 0);
    // The end of the log, signed by keys whose turn is over.
    for keys in [&old, &middle, &stranger] {
        assert!(found(&[(META, log::CHECKPOINT.to_vec(), Some(end.note(keys.signing()).into_bytes()))]) > 0);
        assert!(found(&[(CHECKPOINTS, end.size.to_be_bytes().to_vec(), Some(end.note(keys.signing()).into_bytes()))]) > 0);
    }
    // The handover's row: gone, moved to a later size, with a stranger's key, without its checkpoint, under another entry.
    let place = |size: u64| key(&[log.bytes(), &size.to_be_bytes()]);
    let (size, row) = &retired[0];
    let altered = |change: &dyn Fn(&mut signers::SignerRow)| {
        let mut row = row.clone();
        change(&mut row);
        found(&[(AUDIT_KEYS, place(*size), Some(value(&row)))])
    };
    assert!(found(&[(AUDIT_KEYS, place(*size), None)]) > 0);
    assert!(found(&[(AUDIT_KEYS, place(*size), None), (AUDIT_KEYS, place(size + 1), Some(value(row)))]) > 0, "a longer turn");
    assert!(altered(&|row| row.public = stranger.signing().public()) > 0);
    assert!(altered(&|row| row.handover = None) > 0);
    assert!(altered(&|row| row.handover.as_mut().unwrap().entry -= 1) > 0);
    assert!(altered(&|row| row.handover.as_mut().unwrap().next = stranger.signing().public()) > 0);
    assert!(
        altered(&|row| row.handover.as_mut().unwrap().note = String::from_utf8(kept.clone()).unwrap().replace("\u{2014} ", "\u{2014}  "))
            > 0
    );
    assert!(found(&[(CHECKPOINTS, size.to_be_bytes().to_vec(), None)]) > 0, "the checkpoint of both is kept");
    // A chain of somebody's own making: a stranger's key that both notes sign and no entry introduces.
    let both = Checkpoint { log, size: end.size, root: end.root }.note_of_both(engine_keys(&house.tape).signing(), stranger.signing());
    let row = signers::SignerRow {
        public: engine_keys(&house.tape).signing().public(),
        handover: Some(signers::Handover { entry: end.size - 1, next: stranger.signing().public(), note: both.clone() }),
    };
    let rows = [
        (AUDIT_KEYS, place(end.size), Some(value(&row))),
        (CHECKPOINTS, end.size.to_be_bytes().to_vec(), Some(both.clone().into_bytes())),
        (META, log::CHECKPOINT.to_vec(), Some(both.into_bytes())),
    ];
    assert!(found(&rows) > 0);
    // The entry that introduces the key, replaced.
    let line = house_line(&house.tape, row_entry(&retired[0].1));
    assert!(
        found(&[(AUDIT, row_entry(&retired[0].1).to_be_bytes().to_vec(), Some(line.replace("handover", "harmless").into_bytes()))]) > 0
    );
}

fn row_entry(row: &signers::SignerRow) -> u64 {
    row.handover.as_ref().unwrap().entry
}

fn engine_keys(tape: &Arc<Tape>) -> Arc<crate::crypto::ladder::Keys> {
    engine_on(tape, TABLES, false).unwrap().keys()
}

fn house_line(tape: &Arc<Tape>, index: u64) -> String {
    let engine = engine_on(tape, TABLES, false).unwrap();
    log::line(&engine.snapshot().unwrap(), index).unwrap().unwrap()
}
