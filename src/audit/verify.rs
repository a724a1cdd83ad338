//! An exported log, checked against its signed checkpoint, trusting nothing but the public key.
//!
//! A **bundle** is NDJSON: the entries of a range, in order, then one trailer line
//! `{"bundle":1,"checkpoint":"<signed note>","proof":["<base64 hash>",…]}`, whose proof ([`super::merkle::Tree::range`]) is empty when the
//! range is the whole log. Where the log's signing key was changed, the trailer also has `keys`, the [`Chain`] of the changes, so that whoever
//! holds an older key follows it to the one that signed.
//!
//! Promise: [`Verified`] exists only if the checkpoint is signed by the key, and every line is byte for byte the entry that the log held at
//! its index, with none left out between the first and the last. Lines are taken one at a time, so memory stays small for any log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::audit::chain::{Chain, ChainError, Link, WireLink};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::entry::{Entry, EntryError};
use crate::audit::merkle::{Hash, Span, leaf_hash};
use crate::audit::note::{NoteError, Vkey};
use crate::base::limits;

/// Hashes in a range proof of the largest tree.
const PROOF_HASHES_MAX: usize = 128;

/// What is wrong with an export. Lines are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The line is not an entry.
    #[error("line {line}: {error}")]
    Entry {
        /// Where.
        line: u64,
        /// What exactly.
        error: EntryError,
    },
    /// Entries are missing, doubled or out of order.
    #[error("line {line}: entry {found} where entry {expected} must follow")]
    Order {
        /// Where.
        line: u64,
        /// The index that must stand there.
        expected: u64,
        /// The index that does.
        found: u64,
    },
    /// The trailer cannot be read.
    #[error("line {line}: not a bundle's last line")]
    Trailer {
        /// Where.
        line: u64,
    },
    /// Something follows the trailer.
    #[error("line {line}: follows the bundle's last line")]
    AfterTrailer {
        /// Where.
        line: u64,
    },
    /// The export ends without its trailer, and no checkpoint was given beside it.
    #[error("the bundle ends after line {line} without its checkpoint; it was cut short")]
    NoTrailer {
        /// The last line read.
        line: u64,
    },
    /// The checkpoint is not this log's own.
    #[error("checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The log's signing key was changed, and not as it must be.
    #[error("checkpoint: {0}")]
    Chain(ChainError),
    /// Entries up to the checkpoint's size are missing, and there is no proof in their place.
    #[error("entries {first} to before {end} are not the {size} of the checkpoint")]
    Incomplete {
        /// Index of the first entry.
        first: u64,
        /// Index after the last entry.
        end: u64,
        /// Entries in the checkpoint.
        size: u64,
    },
    /// Every line is an entry, but they are not those that were signed.
    #[error("entries {first} to before {end} are not what the checkpoint of {size} entries signed: a line or the proof was changed")]
    Root {
        /// Index of the first entry.
        first: u64,
        /// Index after the last entry.
        end: u64,
        /// Entries in the checkpoint.
        size: u64,
    },
}

/// An export that is what its checkpoint signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The key that signed it: the one that was given, or the one to which the chain leads.
    pub key: Vkey,
    /// The signed checkpoint.
    pub checkpoint: Checkpoint,
    /// Index of the first entry.
    pub first: u64,
    /// Index after the last.
    pub end: u64,
}

/// The last line of a bundle.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    bundle: u8,
    checkpoint: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<WireLink>,
    proof: Vec<String>,
}

/// The last line, without a line end, of a bundle whose entries `proof` places in the tree of `checkpoint` (a signed note), and the
/// changes of key before it.
pub fn trailer(checkpoint: &str, keys: &[Link], proof: &[Hash]) -> String {
    let proof = proof.iter().map(|hash| STANDARD.encode(hash)).collect();
    serde_json::to_string(&Trailer { bundle: 1, checkpoint: checkpoint.to_owned(), keys: keys.iter().map(Link::wire).collect(), proof })
        .expect("strings and a number are JSON")
}

/// Takes an export line by line.
#[derive(Default)]
pub struct Verifier {
    line: u64,
    span: Option<Span>,
    trailer: Option<Trailer>,
}

impl Verifier {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next line, without its line end. Gives the entry for reports: unproved until [`Verifier::finish`]. `None` for the trailer.
    ///
    /// Errors: `Entry`, `Order`, `Trailer`, `AfterTrailer`.
    pub fn line(&mut self, text: &str) -> Result<Option<Entry>, Fault> {
        self.line += 1;
        let line = self.line;
        if self.trailer.is_some() {
            return Err(Fault::AfterTrailer { line });
        }
        if text.starts_with("{\"bundle\":") {
            self.trailer = Some(read_trailer(text).ok_or(Fault::Trailer { line })?);
            return Ok(None);
        }
        let entry = Entry::parse(text).map_err(|error| Fault::Entry { line, error })?;
        let span = self.span.get_or_insert_with(|| Span::starting(entry.i));
        if entry.i != span.end() {
            return Err(Fault::Order { line, expected: span.end(), found: entry.i });
        }
        span.push(leaf_hash(text.as_bytes()), |_, _| {});
        Ok(Some(entry))
    }

    /// Checks a bundle, whose trailer has been read, against the key alone.
    ///
    /// Errors: `NoTrailer`, `Note`, `Chain`, `Incomplete`, `Root`.
    pub fn finish(self, vkey: &Vkey) -> Result<Verified, Fault> {
        let trailer = self.trailer.ok_or(Fault::NoTrailer { line: self.line })?;
        let proof = trailer.proof.iter().map(|hash| STANDARD.decode(hash).ok()?.try_into().ok()).collect::<Option<Vec<Hash>>>();
        let keys = trailer.keys.into_iter().map(WireLink::read).collect::<Option<Vec<Link>>>();
        let (Some(proof), Some(keys)) = (proof, keys) else { return Err(Fault::Trailer { line: self.line }) };
        let chain = Chain::follow(vkey, &keys).map_err(Fault::from)?;
        check(self.span, &trailer.checkpoint, &proof, &chain)
    }

    /// Checks a whole log, exported without trailer, against `checkpoint` (a signed note) and the key.
    ///
    /// Errors: `AfterTrailer` if there was a trailer after all; `Note`, `Incomplete`, `Root`.
    pub fn finish_with(self, checkpoint: &str, vkey: &Vkey) -> Result<Verified, Fault> {
        match self.trailer {
            Some(_) => Err(Fault::AfterTrailer { line: self.line }),
            None => check(self.span, checkpoint, &[], &Chain::follow(vkey, &[])?),
        }
    }
}

fn read_trailer(text: &str) -> Option<Trailer> {
    if text.len() > limits::AUDIT_TRAILER_BYTES_MAX {
        return None;
    }
    let trailer: Trailer = serde_json::from_str(text).ok()?;
    (trailer.bundle == 1 && trailer.proof.len() <= PROOF_HASHES_MAX && trailer.keys.len() <= limits::AUDIT_HANDOVERS_MAX).then_some(trailer)
}

impl From<ChainError> for Fault {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Note(error) => Self::Note(error),
            error => Self::Chain(error),
        }
    }
}

fn check(span: Option<Span>, checkpoint: &str, proof: &[Hash], chain: &Chain) -> Result<Verified, Fault> {
    let checkpoint = chain.read(checkpoint)?;
    let span = span.unwrap_or_else(|| Span::starting(0));
    let (first, end, size) = (span.first(), span.end(), checkpoint.size);
    if end > size || (proof.is_empty() && (first, end) != (0, size)) {
        return Err(Fault::Incomplete { first, end, size });
    }
    match span.root(size, proof) {
        Some(root) if root == checkpoint.root => Ok(Verified { key: chain.newest().clone(), checkpoint, first, end }),
        _ => Err(Fault::Root { first, end, size }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::checkpoint;
    use crate::audit::entry::tests::{golden, samples};
    use crate::audit::merkle::{Appender, Tiles, Tree};
    use crate::base::id::LogId;
    use crate::crypto::secret::Secret;
    use crate::crypto::sign::SigningKey;

    struct NoTiles;

    impl Tiles for NoTiles {
        type Error = ();

        fn tile(&self, _: u8, _: u64) -> Result<Vec<u8>, ()> {
            Err(())
        }
    }

    struct Log {
        lines: Vec<String>,
        note: String,
        vkey: Vkey,
    }

    /// A log of 20 entries with its checkpoint.
    fn log() -> Log {
        let entries = (0..20u64).map(|i| {
            let mut entry = samples().remove(i as usize % 6);
            (entry.i, entry.mono_ms) = (i, i);
            entry
        });
        let (mut lines, mut tree) = (Vec::new(), Appender::new());
        for entry in entries {
            lines.push(entry.line());
            tree.append(leaf_hash(entry.line().as_bytes()), &mut Vec::new());
        }
        let (log, key) = (LogId::from_bytes([0x10; 16]), SigningKey::from_seed(&Secret::new([0x5e; 32])));
        let note = Checkpoint { log, size: tree.size(), root: tree.root() }.note(&key);
        Log { lines, note, vkey: checkpoint::vkey(log, key.public()) }
    }

    impl Log {
        fn bundle(&self, first: usize, end: usize) -> Vec<String> {
            let tail = self.lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
            let tree = Tree::new(&NoTiles, self.lines.len() as u64, tail).unwrap();
            let proof = tree.range(first as u64, end as u64, tree.size()).unwrap();
            self.lines[first..end].iter().cloned().chain([trailer(&self.note, &[], &proof)]).collect()
        }
    }

    fn read(lines: &[String]) -> Result<Verifier, Fault> {
        let mut verifier = Verifier::new();
        lines.iter().try_for_each(|line| verifier.line(line).map(|_| ()))?;
        Ok(verifier)
    }

    fn verify(lines: &[String], vkey: &Vkey) -> Result<Verified, Fault> {
        read(lines)?.finish(vkey)
    }

    #[test]
    fn a_whole_log_and_every_range_of_it_verify() {
        let log = log();
        let whole = read(&log.lines).unwrap().finish_with(&log.note, &log.vkey).unwrap();
        assert_eq!((whole.first, whole.end, whole.checkpoint.size), (0, 20, 20));
        for first in 0..20 {
            for end in first + 1..=20 {
                let verified = verify(&log.bundle(first, end), &log.vkey).unwrap();
                assert_eq!((verified.first, verified.end), (first as u64, end as u64));
            }
        }
        golden("audit/log.bundle.ndjson", &log.bundle(0, 20).iter().map(|line| line.clone() + "\n").collect::<String>());
        golden("audit/range.bundle.ndjson", &log.bundle(5, 13).iter().map(|line| line.clone() + "\n").collect::<String>());
    }

    #[test]
    fn an_empty_log_verifies() {
        let (log, key) = (LogId::from_bytes([0x10; 16]), SigningKey::from_seed(&Secret::new([0x5e; 32])));
        let note = Checkpoint { log, size: 0, root: Appender::new().root() }.note(&key);
        assert!(Verifier::new().finish_with(&note, &checkpoint::vkey(log, key.public())).is_ok());
    }

    #[test]
    fn a_fault_names_its_line() {
        let log = log();
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines = log.bundle(5, 13);
            change(&mut lines);
            verify(&lines, &log.vkey).unwrap_err()
        };
        assert_eq!(with(&|lines| _ = lines.remove(3)), Fault::Order { line: 4, expected: 8, found: 9 });
        assert_eq!(with(&|lines| lines.swap(3, 4)), Fault::Order { line: 4, expected: 8, found: 9 });
        assert_eq!(with(&|lines| lines.insert(3, lines[2].clone())), Fault::Order { line: 4, expected: 8, found: 7 });
        assert!(matches!(with(&|lines| lines[2].push(' ')), Fault::Entry { line: 3, .. }));
        assert!(matches!(with(&|lines| lines.insert(2, String::new())), Fault::Entry { line: 3, .. }));
        assert_eq!(with(&|lines| lines.push(lines[0].clone())), Fault::AfterTrailer { line: 10 });
        assert_eq!(with(&|lines| _ = lines.pop()), Fault::NoTrailer { line: 8 });
        assert_eq!(with(&|lines| lines[8].push('x')), Fault::Trailer { line: 9 });
        assert_eq!(with(&|lines| lines[8] = lines[8].replace("\"bundle\":1", "\"bundle\":2")), Fault::Trailer { line: 9 });
        assert_eq!(with(&|lines| lines[8] = trailer(&log.note, &[], &[[0; 32]; 129])), Fault::Trailer { line: 9 });
        assert_eq!(with(&|lines| lines[8] = trailer(&log.note, &[], &[])), Fault::Incomplete { first: 5, end: 13, size: 20 });
        assert_eq!(with(&|lines| lines[8] = trailer(&log.note, &[], &[[0; 32]])), Fault::Root { first: 5, end: 13, size: 20 });
        assert_eq!(with(&|lines| lines[8] = trailer("", &[], &[])), Fault::Note(NoteError::Malformed));
        assert_eq!(with(&|lines| _ = lines.remove(0)), Fault::Root { first: 6, end: 13, size: 20 });
        assert_eq!(with(&|lines| _ = lines.remove(7)), Fault::Root { first: 5, end: 12, size: 20 });

        let cut = &log.lines[..19];
        assert_eq!(read(cut).unwrap().finish_with(&log.note, &log.vkey), Err(Fault::Incomplete { first: 0, end: 19, size: 20 }));
        let other = Vkey::new(log.vkey.name(), [9; 32]).unwrap();
        assert_eq!(read(&log.lines).unwrap().finish_with(&log.note, &other), Err(Fault::Note(NoteError::Unsigned)));
    }

    /// Cuts, doubles and joins pieces of real lines at random (xorshift64, seeded).
    #[test]
    fn spliced_lines_end_without_panic_and_only_canonical_ones_are_read() {
        let log = log();
        let texts: Vec<String> = log.bundle(0, 20).into_iter().chain([log.note.clone(), log.vkey.to_string()]).collect();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut below = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % n as u64) as usize
        };
        let mut read = 0;
        for _ in 0..40_000 {
            let mut text = Vec::new();
            for _ in 0..=below(3) {
                let from = texts[below(texts.len())].as_bytes();
                let start = if text.is_empty() { 0 } else { below(from.len()) };
                text.extend(&from[start..start + below(from.len() - start + 1)]);
            }
            if below(2) == 0 && !text.is_empty() {
                let at = below(text.len());
                text[at] = b"\"\\{}[],:0\n\xff"[below(11)];
            }
            let text = String::from_utf8_lossy(&text);
            if let Ok(entry) = Entry::parse(&text) {
                assert_eq!(entry.line(), text);
                read += 1;
            }
            let _ = Verifier::new().line(&text);
            assert!(text == log.note || Checkpoint::parse(&text, &log.vkey).is_err());
            let _ = Vkey::parse(&text);
        }
        assert!(read > 0, "the mutator also makes whole lines");
    }

    #[test]
    fn no_changed_byte_of_a_bundle_verifies() {
        let log = log();
        let bundle = log.bundle(6, 8);
        for line in 0..bundle.len() {
            for at in 0..bundle[line].len() {
                for flip in [1, 32] {
                    let mut bytes = bundle[line].clone().into_bytes();
                    bytes[at] ^= flip;
                    let Ok(text) = String::from_utf8(bytes) else { continue };
                    let mut lines = bundle.clone();
                    lines[line] = text;
                    assert!(verify(&lines, &log.vkey).is_err(), "line {line}, byte {at}");
                }
            }
        }
    }
}
