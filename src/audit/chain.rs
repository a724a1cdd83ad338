//! The chain of a log's signing keys: each is introduced by the one before it, in the log itself.
//!
//! A **handover** is an entry `keys.audit` that names both keys' ids and the new public key, under a checkpoint of its log that both keys
//! signed: the old one vouches for the new one, the new one shows that somebody holds it. Checkpoints up to that size are the old key's, all
//! later ones the new key's.
//!
//! ```text
//! key 0 ──signs sizes 0 ..= s──▶ handover at s (entry, signed by 0 and 1) ──▶ key 1 signs sizes after s ──▶ …
//! ```
//!
//! Promise: whoever trusts a key reads a checkpoint of its log only if it is signed by the key whose turn it is at that size, every handover in
//! between holds, and the checkpoint's log goes on from that of each handover.
//!
//! Not promised: a key that was stolen before its handover can sign a handover of its thief's making. Who suspects that compares the new key
//! with the one the operator tells by another way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::audit::checkpoint::Checkpoint;
use crate::audit::entry::{Detail, Entry, Word};
use crate::audit::merkle::{Hash, leaf_hash, verify_consistency, verify_inclusion};
use crate::audit::names::Outcome;
use crate::audit::note::{NoteError, Vkey};
use crate::audit::receipt::{Proved, WireProved};

/// The operation of the entry that introduces a key.
pub const OPERATION: &str = "keys.audit";
/// The word of that entry; those that tell of the steps around it have others.
pub const HANDOVER: Word = Word::of("handover");

/// Hashes in a consistency proof of the largest tree.
const PROOF_HASHES_MAX: usize = 128;

/// A handover, and the proof that a later checkpoint's log goes on from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The entry, with its proof and the checkpoint that both keys signed.
    pub handover: Proved,
    /// Consistency proof (RFC 6962) to the checkpoint that is to be read.
    pub consistency: Vec<Hash>,
}

/// A link as JSON; keys in the order of their names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireLink {
    consistency: Vec<String>,
    handover: WireProved,
}

impl Link {
    pub(super) fn wire(&self) -> WireLink {
        WireLink { consistency: self.consistency.iter().map(|hash| STANDARD.encode(hash)).collect(), handover: self.handover.wire() }
    }
}

impl WireLink {
    pub(super) fn read(self) -> Option<Link> {
        if self.consistency.len() > PROOF_HASHES_MAX {
            return None;
        }
        let consistency = self.consistency.iter().map(|hash| STANDARD.decode(hash).ok()?.try_into().ok()).collect::<Option<_>>()?;
        Some(Link { handover: self.handover.read()?, consistency })
    }
}

/// Why a checkpoint is not accepted. Handovers are counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainError {
    /// The checkpoint itself.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The checkpoint of a handover.
    #[error("change of key {0}: its checkpoint is not signed by both keys: {1}")]
    Handover(usize, NoteError),
    /// There is no entry that introduces the key.
    #[error("change of key {0}: no entry of the log introduces that key")]
    NotIntroduced(usize),
    /// It does not follow the one before.
    #[error("change of key {0}: it does not follow the one before it")]
    Broken(usize),
    /// The log does not go on from it.
    #[error("change of key {0}: the log of the checkpoint does not go on from there")]
    Forked(usize),
    /// A key signed after its turn.
    #[error("the checkpoint of {size} entries is signed by a key that was retired at {retired}")]
    Retired {
        /// Entries in the checkpoint.
        size: u64,
        /// Entries at the handover.
        retired: u64,
    },
    /// A key signed before its turn.
    #[error("the checkpoint of {size} entries is signed by a key that was introduced at {introduced}")]
    Early {
        /// Entries in the checkpoint.
        size: u64,
        /// Entries at the handover to the key.
        introduced: u64,
    },
}

/// What an entry of a handover says: ids of the old key and the new, and the new public key.
pub fn details(old: &Vkey, new: &Vkey) -> [Detail; 4] {
    [Detail::KeyNew(new.id()), Detail::KeyOld(old.id()), Detail::KeyPublic(*new.public()), Detail::Setting(HANDOVER)]
}

/// The public key that `line` introduces after `old`, if it is the entry `index` of a handover from that key.
pub fn introduced(line: &str, index: u64, old: &Vkey) -> Option<Vkey> {
    let entry = Entry::parse(line).ok()?;
    let public = entry.det.all().iter().find_map(|detail| if let Detail::KeyPublic(public) = detail { Some(*public) } else { None })?;
    let new = old.with_public(public);
    let tells = entry.op.text() == OPERATION && entry.outcome == Outcome::Ok && entry.i == index && public != *old.public();
    (tells && details(old, &new).iter().all(|detail| entry.det.all().contains(detail))).then_some(new)
}

/// The index of an entry's line, unproved.
fn index_of(line: &str) -> u64 {
    Entry::parse(line).map_or(u64::MAX, |entry| entry.i)
}

struct Step {
    old: Vkey,
    end: Checkpoint,
    consistency: Vec<Hash>,
    number: usize,
}

/// The keys of one log, from one that is trusted to the newest.
pub struct Chain {
    steps: Vec<Step>,
    newest: Vkey,
}

impl Chain {
    /// The chain that begins with `trusted`. Links before that key's own are not looked at; of those from there on each must hold.
    ///
    /// Errors: `Handover`, `NotIntroduced`, `Broken`.
    pub fn follow(trusted: &Vkey, links: &[Link]) -> Result<Self, ChainError> {
        let mut chain = Self { steps: Vec::new(), newest: trusted.clone() };
        for (number, link) in (1..).zip(links) {
            let (line, old) = (&link.handover.entry, &chain.newest);
            let Some(new) = introduced(line, index_of(line), old) else {
                match chain.steps.is_empty() && !claims(line, trusted) {
                    true => continue,
                    false => return Err(ChainError::Broken(number)),
                }
            };
            let signed =
                |key: &Vkey| Checkpoint::parse(&link.handover.checkpoint, key).map_err(|error| ChainError::Handover(number, error));
            let end = signed(old)?;
            signed(&new)?;
            if !verify_inclusion(&leaf_hash(line.as_bytes()), index_of(line), end.size, &link.handover.proof, &end.root) {
                return Err(ChainError::NotIntroduced(number));
            }
            if chain.steps.last().is_some_and(|before| before.end.size >= end.size) {
                return Err(ChainError::Broken(number));
            }
            let old = std::mem::replace(&mut chain.newest, new);
            chain.steps.push(Step { old, end, consistency: link.consistency.clone(), number });
        }
        Ok(chain)
    }

    /// The key whose turn it is at the end.
    pub fn newest(&self) -> &Vkey {
        &self.newest
    }

    /// Reads a checkpoint of the log.
    ///
    /// Errors: `Note`, `Retired`, `Early`, `Forked`.
    pub fn read(&self, note: &str) -> Result<Checkpoint, ChainError> {
        // What a key signs of sizes before it was introduced is bound to no handover: whoever stole it could make up all that was before.
        let mut introduced = 0;
        let in_turn =
            |Checkpoint { size, .. }, introduced| if size < introduced { Err(ChainError::Early { size, introduced }) } else { Ok(()) };
        for step in &self.steps {
            let since = std::mem::replace(&mut introduced, step.end.size);
            let Ok(checkpoint) = Checkpoint::parse(note, &step.old) else { continue };
            // At its own size a handover is signed by both keys.
            if checkpoint.size <= step.end.size {
                in_turn(checkpoint, since)?;
                return if checkpoint.size < step.end.size || checkpoint.root == step.end.root {
                    self.going_on(checkpoint)
                } else {
                    Err(ChainError::Forked(step.number))
                };
            }
            if Checkpoint::parse(note, &self.newest).is_err() {
                return Err(ChainError::Retired { size: checkpoint.size, retired: step.end.size });
            }
        }
        let checkpoint = Checkpoint::parse(note, &self.newest)?;
        in_turn(checkpoint, introduced)?;
        self.going_on(checkpoint)
    }

    /// `checkpoint`, if its log goes on from every handover before it.
    fn going_on(&self, checkpoint: Checkpoint) -> Result<Checkpoint, ChainError> {
        for Step { end, consistency, number, .. } in self.steps.iter().filter(|step| step.end.size <= checkpoint.size) {
            if !verify_consistency(end.size, &end.root, checkpoint.size, &checkpoint.root, consistency) {
                return Err(ChainError::Forked(*number));
            }
        }
        Ok(checkpoint)
    }
}

/// Whether a line says of itself, truly or not, that it is a handover from `key`.
fn claims(line: &str, key: &Vkey) -> bool {
    Entry::parse(line).is_ok_and(|entry| entry.det.all().contains(&Detail::KeyOld(key.id())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::checkpoint::vkey;
    use crate::audit::entry::Actor;
    use crate::audit::entry::tests::golden;
    use crate::audit::merkle::tests::NoTiles;
    use crate::audit::merkle::{Appender, Tree};
    use crate::audit::verify::{Verifier, trailer};
    use crate::base::id::LogId;
    use crate::crypto::secret::Secret;
    use crate::crypto::sign::SigningKey;

    fn log() -> LogId {
        LogId::from_bytes([0x10; 16])
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn known(seed: u8) -> Vkey {
        vkey(log(), key(seed).public())
    }

    fn handover(i: u64, old: u8, new: u8) -> String {
        let mut entry = Entry::new(OPERATION, Actor::SYSTEM);
        entry.i = i;
        details(&known(old), &known(new)).into_iter().for_each(|detail| entry.det.set(detail));
        entry.line()
    }

    fn other(i: u64) -> String {
        let mut entry = Entry::new("system.start", Actor::SYSTEM);
        entry.i = i;
        entry.line()
    }

    /// A log of 20 entries, handed over from key 1 to 2 in entry 5, and to 3 in entry 11.
    fn lines() -> Vec<String> {
        (0..20)
            .map(|i| {
                if i == 5 {
                    handover(5, 1, 2)
                } else if i == 11 {
                    handover(11, 2, 3)
                } else {
                    other(i)
                }
            })
            .collect()
    }

    fn checkpoint(lines: &[String], size: u64) -> Checkpoint {
        let mut end = Appender::new();
        lines[..usize::try_from(size).unwrap()].iter().for_each(|line| _ = end.append(leaf_hash(line.as_bytes()), &mut Vec::new()));
        Checkpoint { log: log(), size, root: end.root() }
    }

    fn link(lines: &[String], entry: u64, size: u64, keys: [u8; 2], to: u64) -> Link {
        let leaves = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
        let tree = Tree::new(&NoTiles, lines.len() as u64, leaves).unwrap();
        let checkpoint = checkpoint(lines, size).note_of_both(&key(keys[0]), &key(keys[1]));
        let handover =
            Proved { entry: lines[usize::try_from(entry).unwrap()].clone(), checkpoint, proof: tree.inclusion(entry, size).unwrap() };
        Link { handover, consistency: if to < size { Vec::new() } else { tree.consistency(size, to).unwrap() } }
    }

    fn links(lines: &[String], to: u64) -> Vec<Link> {
        vec![link(lines, 5, 7, [1, 2], to), link(lines, 11, 12, [2, 3], to)]
    }

    #[test]
    fn whoever_holds_any_of_the_keys_reads_what_is_signed_in_its_turn() {
        let lines = lines();
        for trusted in [1, 2, 3] {
            for (size, signer) in [(3, 1), (7, 1), (8, 2), (12, 2), (13, 3), (20, 3)] {
                let chain = Chain::follow(&known(trusted), &links(&lines, size)).unwrap();
                assert_eq!(chain.newest(), &known(3));
                let end = checkpoint(&lines, size);
                // What a key before the trusted one signed is not vouched for.
                let expected = if signer >= trusted { Ok(end) } else { Err(ChainError::Note(NoteError::Unsigned)) };
                assert_eq!(chain.read(&end.note(&key(signer))), expected, "trusted {trusted}, size {size}, signer {signer}");
            }
        }
        assert_eq!(Chain::follow(&known(9), &links(&lines, 20)).unwrap().newest(), &known(9), "a stranger's key leads nowhere");
        let both = checkpoint(&lines, 7).note_of_both(&key(1), &key(2));
        assert!(Chain::follow(&known(1), &links(&lines, 7)).unwrap().read(&both).is_ok());
    }

    #[test]
    fn a_bundle_leads_from_an_older_key_to_the_one_that_signed_it_and_is_the_published_one() {
        let (first, second, third) = (0x5e, 0x5f, 0x60);
        let mut lines: Vec<String> = (0..9).map(other).collect();
        (lines[3], lines[6]) = (handover(3, first, second), handover(6, second, third));
        let links = [link(&lines, 3, 4, [first, second], 9), link(&lines, 6, 8, [second, third], 9)];
        let bundle: Vec<String> = lines.iter().cloned().chain([trailer(&checkpoint(&lines, 9).note(&key(third)), &links, &[])]).collect();
        let verified = |trusted: u8, bundle: &[String]| {
            let mut verifier = Verifier::new();
            bundle.iter().try_for_each(|line| verifier.line(line).map(|_| ()))?;
            verifier.finish(&known(trusted)).map(|verified| verified.key)
        };
        for trusted in [first, second, third] {
            assert_eq!(verified(trusted, &bundle), Ok(known(third)));
        }
        assert!(verified(0x61, &bundle).is_err());
        golden("audit/handover.bundle.ndjson", &bundle.iter().map(|line| line.clone() + "\n").collect::<String>());
        let last = bundle.len() - 1;
        for at in 0..bundle[last].len() {
            let mut bytes = bundle[last].clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let mut changed = bundle.clone();
            changed[last] = text;
            assert!(verified(first, &changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_retired_key_signs_nothing_later() {
        let lines = lines();
        let chain = Chain::follow(&known(1), &links(&lines, 20)).unwrap();
        let late = |seed| chain.read(&checkpoint(&lines, 20).note(&key(seed))).unwrap_err();
        assert_eq!(late(1), ChainError::Retired { size: 20, retired: 7 });
        assert_eq!(late(2), ChainError::Retired { size: 20, retired: 12 });
        assert_eq!(late(9), ChainError::Note(NoteError::Unsigned));
    }

    #[test]
    fn a_key_signs_nothing_of_before_it_was_introduced_however_true_or_forged() {
        let lines = lines();
        let mut forged = lines.clone();
        forged[2] = other(2).replace("\"mono_ms\":0", "\"mono_ms\":1");
        for (trusted, signer, size, introduced) in [(1, 2, 3, 7), (1, 2, 6, 7), (1, 3, 3, 12), (1, 3, 9, 12), (2, 3, 9, 12), (2, 3, 3, 12)]
        {
            let chain = Chain::follow(&known(trusted), &links(&lines, 20)).unwrap();
            for lines in [&lines, &forged] {
                let found = chain.read(&checkpoint(lines, size).note(&key(signer)));
                assert_eq!(found, Err(ChainError::Early { size, introduced }), "trusted {trusted}, size {size}, signer {signer}");
            }
        }
    }

    #[test]
    fn a_key_that_no_entry_or_no_predecessor_introduced_is_refused() {
        let lines = lines();
        let followed = |change: &dyn Fn(&mut Vec<Link>)| {
            let mut links = links(&lines, 20);
            change(&mut links);
            Chain::follow(&known(1), &links).map(|chain| chain.newest().clone())
        };
        // Signed by a stranger in the place of the old key or of the new one.
        let note = |size, seed: u8| checkpoint(&lines, size).note(&key(seed));
        assert!(matches!(followed(&|l| l[0].handover.checkpoint = note(7, 9)), Err(ChainError::Handover(1, _))));
        assert!(
            matches!(followed(&|l| l[0].handover.checkpoint = note(7, 1)), Err(ChainError::Handover(1, _))),
            "nobody showed the new key"
        );
        // An entry that is not in the log that was signed.
        assert_eq!(followed(&|l| l[0].handover.entry = handover(5, 1, 9)), Err(ChainError::Handover(1, NoteError::Unsigned)));
        assert_eq!(followed(&|l| l[0].handover.entry = handover(6, 1, 2)), Err(ChainError::NotIntroduced(1)));
        assert_eq!(followed(&|l| l[0].handover.proof.clear()), Err(ChainError::NotIntroduced(1)));
        // Another kind of entry, a refused one, one that names other ids.
        let forged = |change: &dyn Fn(&mut Entry)| {
            let mut entry = Entry::parse(&handover(5, 1, 2)).unwrap();
            change(&mut entry);
            let line = entry.line();
            followed(&|l| l[0].handover.entry.clone_from(&line))
        };
        assert!(forged(&|entry| entry.op = Word::of("keys.slots")).is_err());
        assert!(forged(&|entry| entry.outcome = Outcome::Refused).is_err());
        assert!(forged(&|entry| entry.det.set(Detail::KeyNew([0; 4]))).is_err());
        // One that does not lead on from the one before, a missing one, the same twice, the wrong order.
        let stays = |found: Result<Vkey, ChainError>, at: u8| assert!(found.as_ref() == Ok(&known(at)) || found.is_err(), "{found:?}");
        stays(followed(&|l| l.truncate(1)), 2);
        assert!(followed(&|l| l.insert(1, l[0].clone())).is_err(), "replayed");
        stays(followed(&|l| l.swap(0, 1)), 2);
        stays(followed(&|l| _ = l.remove(0)), 1);
    }

    #[test]
    fn a_handover_of_another_log_or_another_history_is_refused() {
        let lines = lines();
        // Another log's, replayed here: the same keys, the same entry.
        let elsewhere = LogId::from_bytes([0x11; 16]);
        let mut links_of_other = links(&lines, 20);
        let foreign = Checkpoint { log: elsewhere, ..checkpoint(&lines, 7) };
        links_of_other[0].handover.checkpoint = foreign.note_of_both(&key(1), &key(2));
        assert!(matches!(Chain::follow(&known(1), &links_of_other), Err(ChainError::Handover(1, _))));
        // A log that was written anew behind the handover's back: everything is signed, and it does not go on from there.
        let mut rewritten = lines.clone();
        rewritten[2] = other(2).replace("\"mono_ms\":0", "\"mono_ms\":1");
        let chain = Chain::follow(&known(1), &links(&lines, 20)).unwrap();
        assert_eq!(chain.read(&checkpoint(&rewritten, 20).note(&key(3))), Err(ChainError::Forked(1)));
        assert_eq!(chain.read(&checkpoint(&rewritten, 7).note(&key(1))), Err(ChainError::Forked(1)));
        let mut bent = links(&lines, 20);
        bent[1].consistency.swap(0, 1);
        assert_eq!(Chain::follow(&known(1), &bent).unwrap().read(&checkpoint(&lines, 20).note(&key(3))), Err(ChainError::Forked(2)));
    }
}
