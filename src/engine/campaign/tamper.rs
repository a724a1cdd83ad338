//! Changed bytes: every answer is right or an error, never silently wrong; what no seal can tell (an authentic older block) the check finds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::disk::Tape;
use super::*;
use crate::base::fault::catch;
use crate::base::fault::tests::{STOPPED, apart, part};
use crate::engine::block::place;
use crate::engine::header::{BLOCKS_START, SLOT_STARTS, SUPERBLOCK_STARTS};
use crate::engine::medium::Overlay;

/// What a reader of a changed file gets.
#[derive(Debug, PartialEq)]
enum Answer {
    /// All rows, as committed.
    Right,
    /// An error at opening or reading.
    Refused,
    /// Rows that were not committed last, without an error.
    Wrong,
}

/// An image with a few bytes changed, on top of which an engine works without changing it.
fn changed(image: &[u8]) -> Arc<dyn Medium> {
    Arc::new(Overlay::new(Arc::new(Tape::faulty(image.to_vec(), None, 0))).unwrap())
}

fn answer(medium: Arc<dyn Medium>, model: &Model) -> Answer {
    // Abandoned, not closed: whether what was read is right is asked here, not what a commit makes of it.
    let read = || {
        let engine = Engine::open_on(medium, &options(), &kek())?;
        let found = contents(&engine);
        engine.abandon();
        found
    };
    match catch_unwind(AssertUnwindSafe(read)).expect("no panic leaves the engine") {
        Ok(found) if found == *model => Answer::Right,
        Ok(_) => Answer::Wrong,
        Err(_) => Answer::Refused,
    }
}

/// Whether the offline check finds the file sound; a panic that escapes fails the campaign.
fn sound(image: &[u8]) -> bool {
    let medium: Arc<dyn Medium> = Arc::new(Tape::faulty(image.to_vec(), None, 0));
    let check = || Engine::check_on(&medium, &options(), &kek());
    catch_unwind(AssertUnwindSafe(check)).expect("no panic leaves the check").is_ok_and(|(report, _)| report.is_sound())
}

/// Two states of one file, cleanly stopped: (older image, newer image, newer rows). The newer differs in existing rows.
fn two_states(seed: u64) -> (Vec<u8>, Vec<u8>, Model) {
    let mut chance = Chance(seed);
    let (mut model, mut images) = (Model::new(), Vec::new());
    let tape = Arc::new(Tape::recording(Vec::new()));
    create(Arc::clone(&tape) as Arc<dyn Medium>, &kek(), &options()).close().unwrap();
    for state in 0..2u8 {
        let engine = Engine::open_on(Arc::clone(&tape) as Arc<dyn Medium>, &options(), &kek()).unwrap();
        for _ in 0..12 {
            let mut changes = changes(&mut chance, &model, false);
            changes.push((A, b"state".to_vec(), Some(vec![state; 3000])));
            commit(&engine, &changes).unwrap();
            apply(&mut model, &changes);
        }
        engine.close().unwrap();
        images.push(tape.image());
    }
    let newer = images.pop().unwrap();
    (images.pop().unwrap(), newer, model)
}

fn blocks(image: &[u8]) -> usize {
    (image.len() - usize::try_from(BLOCKS_START).unwrap()) / 4608
}

/// The bytes of block `number`, from 1.
fn block(number: usize) -> std::ops::Range<usize> {
    let at = usize::try_from(place(number as u64, 4608)).unwrap();
    at..at + 4608
}

#[test]
fn no_flipped_byte_gives_a_silently_wrong_answer() {
    let (_, mut image, model) = two_states(1);
    let mut chance = Chance(2);
    assert_eq!(answer(changed(&image), &model), Answer::Right);
    // Where something lies: the heads and the blocks ever written, each byte equally likely; of what is blank, a few.
    let written: Vec<usize> = (1..=blocks(&image)).filter(|number| image[block(*number)].iter().any(|byte| *byte != 0)).collect();
    let mut places: Vec<usize> = SUPERBLOCK_STARTS.iter().chain(&SLOT_STARTS).map(|at| usize::try_from(*at).unwrap()).collect();
    places.extend(written.iter().map(|number| block(*number).start));
    let per_place = amount(40, 1000, 8300).div_ceil(places.len()).max(1);
    let (mut flips, mut refused) = (0, 0);
    for start in places {
        for _ in 0..per_place {
            let at = start + chance.below(4608.min(image.len() - start));
            let bit = 1 << chance.below(8);
            image[at] ^= bit;
            match answer(changed(&image), &model) {
                Answer::Right => {}
                Answer::Refused => refused += 1,
                Answer::Wrong => panic!("a flip at byte {at} gives a wrong answer silently"),
            }
            image[at] ^= bit;
            flips += 1;
        }
    }
    println!("tamper: {flips} flips over {} written blocks and the heads: {refused} refused, the rest harmless, 0 wrong", written.len());
    assert!(refused > 0);
}

#[test]
fn swapped_zeroed_and_transplanted_blocks_are_refused_where_they_are_read() {
    let (_, image, model) = two_states(3);
    let (_, other, _) = two_states(4);
    let mut chance = Chance(5);
    let (mut points, mut refused) = (0, 0);
    for number in (1..=blocks(&image)).filter(|number| image[block(*number)].iter().any(|byte| *byte != 0)) {
        let elsewhere = 1 + chance.below(blocks(&image));
        let mut swapped = image.clone();
        swapped[block(number)].copy_from_slice(&image[block(elsewhere)]);
        swapped[block(elsewhere)].copy_from_slice(&image[block(number)]);
        let mut zeroed = image.clone();
        zeroed[block(number)].fill(0);
        let mut transplanted = image.clone();
        if number <= blocks(&other) {
            transplanted[block(number)].copy_from_slice(&other[block(number)]);
        }
        for changed_image in [swapped, zeroed, transplanted] {
            points += 1;
            match answer(changed(&changed_image), &model) {
                Answer::Right => {}
                Answer::Refused => refused += 1,
                Answer::Wrong => panic!("block {number}: a wrong answer silently"),
            }
        }
    }
    // Heads of another file.
    for from in 0..2 {
        let mut heads = image.clone();
        let range = if from == 0 { 0..8192 } else { 8192..40960 };
        heads[range.clone()].copy_from_slice(&other[range]);
        assert_eq!(answer(changed(&heads), &model), Answer::Refused);
        points += 1;
    }
    println!("tamper: {points} blocks swapped, zeroed or transplanted and heads exchanged: {refused} refused, 0 wrong");
    assert!(refused > 0);
}

#[test]
fn a_cut_file_is_refused_and_an_extended_one_answers_right() {
    let (_, image, model) = two_states(6);
    let mut chance = Chance(7);
    for _ in 0..amount(4, 60, 500) {
        let mut cut = image.clone();
        cut.truncate(chance.below(image.len()));
        assert_eq!(answer(changed(&cut), &model), Answer::Refused);
        let mut longer = image.clone();
        longer.extend((0..1 + chance.below(20_000)).map(|_| chance.next().to_le_bytes()[0]));
        assert_eq!(answer(changed(&longer), &model), Answer::Right);
    }
}

#[test]
fn a_replayed_reachable_block_is_found_by_the_check() {
    let (mut points, mut wrong, mut refused, mut free) = (0, 0, 0, 0);
    for (number, replayed, model) in replays() {
        let (answer, sound) = (answer(changed(&replayed), &model), sound(&replayed));
        points += 1;
        match answer {
            Answer::Wrong => {
                assert!(!sound, "block {number}: replayed, answers wrong, and the check finds nothing");
                wrong += 1;
            }
            Answer::Refused => {
                assert!(!sound, "block {number}: replayed, does not answer, and the check finds nothing");
                refused += 1;
            }
            Answer::Right if sound => free += 1,
            Answer::Right => {}
        }
    }
    println!(
        "tamper: {points} replayed blocks: {wrong} answer wrong online and are found by the check, {refused} refused, {free} lie in free space"
    );
    assert!(wrong + refused > 0);
}

/// Every file of the campaign's that differs from a sound one by a block put back: its number, the file, what it held.
fn replays() -> impl Iterator<Item = (usize, Vec<u8>, Model)> {
    (0..amount(2, 2, 12) as u64).flat_map(|seed| {
        let (older, newer, model) = two_states(10 + seed);
        assert!(sound(&newer));
        let differ: Vec<usize> =
            (1..=blocks(&older).min(blocks(&newer))).filter(|number| older[block(*number)] != newer[block(*number)]).collect();
        differ.into_iter().map(move |number| {
            let mut replayed = newer.clone();
            replayed[block(number)].copy_from_slice(&older[block(number)]);
            (number, replayed, model.clone())
        })
    })
}

/// redb looks at its list of free pages when it commits, also as it closes. One that was put back panics it, and what it drops on the way out of
/// that panic panics again: this aborted the process. Each part goes on where the one before was stopped.
#[test]
fn commits_to_a_file_with_a_replayed_block_never_abort_the_process() {
    const THIS: &str = "engine::campaign::tamper::commits_to_a_file_with_a_replayed_block_never_abort_the_process";
    if let Some(from) = part() {
        for (point, (number, image, model)) in replays().enumerate().skip(from.parse().unwrap()) {
            println!("\npoint {point} {number} {}", if sound(&image) { "sound" } else { "found" });
            let mut chance = Chance(point as u64);
            let work = || {
                let engine = Engine::open_on(changed(&image), &options(), &kek())?;
                let done = (0..3).try_for_each(|_| commit(&engine, &changes(&mut chance, &model, true)));
                let closed = engine.close();
                done.map_err(|(CommitError::Refused(error) | CommitError::Unknown(error))| error).and(closed)
            };
            let done = catch(work).expect("no panic leaves the engine");
            println!("\n{}", if done.is_ok() { "committed" } else { "refused" });
        }
        return println!("\nthrough");
    }
    let (mut from, mut points, mut committed, mut refused, mut stopped) = (0, 0, 0, 0, 0);
    loop {
        let ended = apart(THIS, &from.to_string());
        let said = String::from_utf8_lossy(&ended.stdout);
        let count = |what: &str| said.lines().filter(|line| line.starts_with(what)).count();
        (points, committed, refused) = (points + count("point"), committed + count("committed"), refused + count("refused"));
        if ended.status.success() && count("through") == 1 {
            break;
        }
        let last: Vec<&str> = said.lines().rfind(|line| line.starts_with("point")).expect("it went on").split(' ').collect();
        assert_eq!(
            ended.status.code(),
            Some(STOPPED),
            "block {}: ended by {:?}\n{}",
            last[2],
            ended.status,
            String::from_utf8_lossy(&ended.stderr)
        );
        assert_eq!(last[3], "found", "block {}: put back, stops the process, and the check finds nothing", last[2]);
        from = 1 + last[1].parse::<usize>().unwrap();
        stopped += 1;
    }
    assert_eq!(points, committed + refused + stopped);
    println!(
        "tamper: commits to {points} files with a replayed block: {committed} done, {refused} refused, {stopped} stop the process in order, none aborts it"
    );
    assert!(refused > 0 && stopped > 0);
}

#[test]
fn either_superblock_copy_alone_opens_the_file_and_both_damaged_are_told_from_a_wrong_key() {
    let (_, image, model) = two_states(20);
    let open = |image: &[u8], kek: &Kek| Engine::open_on(changed(image), &options(), kek).map(drop);
    for copy in [0, 4096] {
        let mut one = image.clone();
        one[copy..copy + 4096].fill(0xee);
        assert_eq!(answer(changed(&one), &model), Answer::Right);
        assert!(matches!(open(&one, &Kek::for_test(&[9; 32])), Err(EngineError::Keys(_))));
    }
    let mut both = image.clone();
    (both[100], both[4096 + 100]) = (both[100] ^ 1, both[4096 + 100] ^ 1);
    assert!(matches!(open(&both, &kek()), Err(EngineError::Damaged("superblock"))));
    let mut newer = image.clone();
    (newer[8], newer[4096 + 8]) = (2, 2);
    assert!(matches!(open(&newer, &kek()), Err(EngineError::Newer { found: 2 })));
    let mut foreign = image;
    foreign[..8].fill(0);
    foreign[4096..4104].fill(0);
    assert!(matches!(open(&foreign, &kek()), Err(EngineError::NotRosemary)));
}
