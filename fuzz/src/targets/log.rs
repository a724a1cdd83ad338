//! Signed notes, checkpoints, anchors and keys; entries, bundles and proofs.
//!
//! What is accepted prints as the same bytes. Nothing counts as signed but what was signed; no bundle counts but what the golden log holds.

use std::sync::LazyLock;

use rosemary::audit::checkpoint::{Anchor, Checkpoint, origin, vkey};
use rosemary::audit::entry::{Entry, RequestId};
use rosemary::audit::merkle::{verify_consistency, verify_inclusion};
use rosemary::audit::note::{self, Vkey};
use rosemary::audit::verify::Verifier;
use rosemary::base::id::LogId;
use rosemary::crypto::secret::Key;
use rosemary::crypto::sign::SigningKey;
use serde_json::Value;

/// Words of notes and entries.
pub const WORDS: &[&str] = &[
    "rosemary/10101010-1010-1010-1010-101010101010",
    "\n\n",
    "\n",
    "\u{2014} ",
    "instance ",
    "file ",
    "generation ",
    "tombstones ",
    "0",
    "00",
    "18446744073709551615",
    "18446744073709551616",
    "9007199254740991",
    "9007199254740992",
    "+",
    "-",
    " ",
    "=",
    "{\"bundle\":1,\"checkpoint\":\"",
    "\",\"proof\":[\"",
    "\"]}",
    "\"actor\":",
    "\"kind\":",
    "\"det\":{",
    "\"part\":{\"no\":1,\"of\":2},",
    "\"subjects\":[",
    "\"ids\":[",
    "[]",
    "{}",
    "true",
    "false",
    "null",
    "1e3",
    "1.0",
    "\\u0041",
    "\"",
    ",",
    ":",
    "Z",
    "2026-11-21T08:00:00.000Z",
];

fn signing() -> SigningKey {
    SigningKey::from_seed(&Key::from_slice(&[0x5e; 32]).expect("32 bytes"))
}

fn log() -> LogId {
    LogId::from_bytes([0x10; 16])
}

static KEY: LazyLock<(SigningKey, Vkey)> = LazyLock::new(|| (signing(), vkey(log(), signing().public())));

/// Notes that were signed: what may be opened.
const SIGNED: [&str; 2] =
    [include_str!("../../../tests/vectors/audit/checkpoint.note"), include_str!("../../../tests/vectors/audit/anchor.note")];

/// The target for notes. First byte `s`: the rest is signed and then read; `k`: the rest is a key; else the rest is a note.
pub fn notes(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (key, vkey) = &*KEY;
    match first {
        b's' if text.ends_with('\n') && !text.chars().any(|c| c < ' ' && c != '\n') => {
            let note = note::sign(text, &origin(log()), key);
            match note::open(&note, vkey) {
                Ok(opened) => assert_eq!(opened, text),
                Err(_) => assert!(note.len() > rosemary::base::limits::NOTE_BYTES_MAX, "what is signed opens"),
            }
            if let Ok(found) = Checkpoint::parse(&note, vkey) {
                assert!(found.note(key).split("\n\n").next().is_some_and(|lines| text.starts_with(&format!("{lines}\n"))));
            }
            if let Ok(found) = Anchor::parse(&note, vkey) {
                assert_eq!(found.note(key), note);
            }
        }
        b'k' => {
            if let Ok(found) = Vkey::parse(text) {
                assert_eq!(found.to_string(), text);
                let _ = note::open(SIGNED[0], &found);
            }
        }
        _ => {
            let signed = SIGNED.iter().map(|note| &note[..note.find("\n\n").expect("a note") + 1]);
            if let Ok(opened) = note::open(text, vkey) {
                assert!(signed.clone().any(|signed| signed == opened), "a text that was never signed");
            }
            assert!(Anchor::parse(text, vkey).is_err() || Checkpoint::parse(text, vkey).is_ok());
        }
    }
}

const GOLDEN: &str = include_str!("../../../tests/vectors/audit/log.bundle.ndjson");
const GOLDEN_KEY: &str = include_str!("../../../tests/vectors/audit/log.vkey");

/// The target for entries: lines of a bundle. First byte `p`: the rest is a proof; `r`: a client's request id.
pub fn entries(bytes: &[u8]) {
    match bytes.split_first() {
        Some((b'p', rest)) => proof(rest),
        Some((b'r', rest)) => {
            let id = RequestId::of_client(rest, &Key::from_slice(&[1; 32]).expect("32 bytes"));
            let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-:".contains(&c);
            assert!((1..=64).contains(&id.text().len()) && id.text().bytes().all(plain));
        }
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            text.lines().for_each(entry);
            bundle(text);
        }
    }
}

fn entry(line: &str) {
    let Ok(entry) = Entry::parse(line) else { return };
    assert_eq!(entry.line(), line);
    // RFC 8785 over these types is what serde_json prints: keys in order, no blanks, whole numbers.
    let value: Value = serde_json::from_str(line).expect("an entry is JSON");
    assert_eq!(value.to_string(), line);
    for part in entry.parts() {
        assert_eq!(Entry::parse(&part.line()).as_ref(), Ok(&part));
    }
}

fn bundle(text: &str) {
    let vkey = Vkey::parse(GOLDEN_KEY.trim_end()).expect("the golden key");
    let (mut verifier, mut lines) = (Verifier::new(), Vec::new());
    for line in text.lines() {
        match verifier.line(line) {
            Ok(Some(_)) => lines.push(line),
            Ok(None) => {}
            Err(_) => return,
        }
    }
    if let Ok(found) = verifier.finish(&vkey) {
        let first = usize::try_from(found.first).expect("a short log");
        let golden: Vec<&str> = GOLDEN.lines().skip(first).take(lines.len()).collect();
        assert_eq!(lines, golden, "a bundle that the log never held");
    }
}

/// Two numbers, two hashes, then a proof: the checks never panic, and no proof holds for two leaves.
fn proof(bytes: &[u8]) {
    let Some((numbers, rest)) = bytes.split_first_chunk::<16>() else { return };
    let number = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().expect("8 bytes"));
    let hashes: Vec<[u8; 32]> = rest.chunks_exact(32).map(|hash| hash.try_into().expect("32 bytes")).collect();
    let [first, second, proof @ ..] = &hashes[..] else { return };
    if verify_inclusion(first, number(0), number(8), proof, second) {
        let mut other = *first;
        other[0] ^= 1;
        assert!(number(0) < number(8) && !verify_inclusion(&other, number(0), number(8), proof, second));
    }
    if verify_consistency(number(0), first, number(8), second, proof) {
        assert!(number(0) <= number(8) && (number(0) != number(8) || first == second));
    }
}
