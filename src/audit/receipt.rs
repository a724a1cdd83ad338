//! Receipts of erasures: a signed statement that somebody was erased, with the entries of the log that tell of it and the proofs that they
//! are in it. Whoever holds one checks it with the log's public key alone, without the data file.
//!
//! A receipt is a signed note (C2SP) of the log's key whose text is two lines:
//!
//! ```text
//! rosemary-erasure-receipt-v1
//! {"asked_at":…,"backups":[…],"destroyed":{"checkpoint":…,"entry":…,"proof":[…]},"destroyed_at":…,"ended":{…},…}     canonical JSON
//! ```
//!
//! `destroyed` is the entry that tells of rows, key and tombstone (`erasure.destroy`), `ended` the one that tells that no key is left which
//! opens what old pages hold (`erasure.end`).
//!
//! Promise: [`open`] gives a receipt only if the key signed it, both entries are in the logs that the checkpoints speak of, and they tell of
//! this very holder, epoch and tombstone.
//!
//! Not here: that what it says was done (`store::rotator`), and which backups it names (`store::erasure`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::audit::checkpoint::{Checkpoint, origin};
use crate::audit::entry::{Detail, Entry};
use crate::audit::merkle::{Hash, leaf_hash, verify_inclusion};
use crate::audit::names::Outcome;
use crate::audit::note::{self, NoteError, Vkey};
use crate::base::id::{FileId, InstanceId, LogId, TenantId, format_uuid, parse_uuid};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::crypto::sign::SigningKey;

const HEAD: &str = "rosemary-erasure-receipt-v1";

/// Hashes in an inclusion proof of the largest tree.
const PROOF_HASHES_MAX: usize = 64;

/// A receipt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErasureReceipt {
    /// When it was written.
    pub issued_at: Timestamp,
    /// The data.
    pub instance: InstanceId,
    /// The workspace.
    pub tenant: TenantId,
    /// Whether a person with a sign-in was erased; else somebody whom memories were about.
    pub user: bool,
    /// The random id that the holder had.
    pub holder: [u8; 16],
    /// When the erasure was asked for.
    pub asked_at: Timestamp,
    /// When rows and key were destroyed.
    pub destroyed_at: Timestamp,
    /// When the last key that opened old pages was gone.
    pub shredded_at: Timestamp,
    /// Memories that were removed.
    pub memories: u64,
    /// The epoch whose key was destroyed.
    pub epoch: u32,
    /// Number of the tombstone.
    pub tombstone: u64,
    /// Backups of before, which hold the key of that epoch or an earlier one and so may hold what was erased, as of `issued_at`.
    pub backups: Vec<HeldBackup>,
    /// The entry of the destruction.
    pub destroyed: Proved,
    /// The entry of the end.
    pub ended: Proved,
}

/// A backup that still holds what was erased.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldBackup {
    /// Its id.
    pub id: FileId,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// When its file is removed; none: whoever keeps it must remove it.
    pub expires_at: Option<Timestamp>,
    /// Whether a key of its own opens it.
    pub own_key: bool,
}

/// An entry of a log, and the proof that it is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proved {
    /// The entry's line.
    pub entry: String,
    /// A signed checkpoint of its log.
    pub checkpoint: String,
    /// Its inclusion proof (RFC 6962).
    pub proof: Vec<Hash>,
}

/// Why a receipt is not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The note or its signature.
    #[error("{0}")]
    Note(#[from] NoteError),
    /// Not the text of a receipt.
    #[error("it is signed, but it is not a receipt of an erasure that this version reads")]
    Malformed,
    /// A checkpoint in it.
    #[error("{0}: its checkpoint: {1}")]
    Checkpoint(&'static str, NoteError),
    /// An entry in it.
    #[error("{0}: its entry is not in the log that its checkpoint speaks of")]
    NotIncluded(&'static str),
    /// An entry that tells of something else.
    #[error("{0}: its entry does not tell of this erasure")]
    AnotherEntry(&'static str),
}

// Fields in the order of their names, so that what serde writes is canonical JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    asked_at: String,
    backups: Vec<WireBackup>,
    destroyed: WireProved,
    destroyed_at: String,
    ended: WireProved,
    epoch: u32,
    holder: String,
    id: String,
    instance: String,
    issued_at: String,
    memories: u64,
    shredded_at: String,
    tenant: String,
    tombstone: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireBackup {
    begun_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    id: String,
    own_key: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireProved {
    checkpoint: String,
    entry: String,
    proof: Vec<String>,
}

impl Proved {
    pub(super) fn wire(&self) -> WireProved {
        let proof = self.proof.iter().map(|hash| STANDARD.encode(hash)).collect();
        WireProved { checkpoint: self.checkpoint.clone(), entry: self.entry.clone(), proof }
    }
}

impl WireProved {
    pub(super) fn read(self) -> Option<Proved> {
        if self.proof.len() > PROOF_HASHES_MAX {
            return None;
        }
        let proof = self.proof.iter().map(|hash| STANDARD.decode(hash).ok()?.try_into().ok()).collect::<Option<_>>()?;
        Some(Proved { entry: self.entry, checkpoint: self.checkpoint, proof })
    }
}

impl Wire {
    fn read(self) -> Option<ErasureReceipt> {
        let time = |text: &str| Timestamp::parse(text);
        let user = match self.holder.as_str() {
            "user" => true,
            "subject" => false,
            _ => return None,
        };
        let backup = |backup: WireBackup| {
            let expires_at = match &backup.expires_at {
                Some(at) => Some(time(at)?),
                None => None,
            };
            Some(HeldBackup { id: FileId::parse(&backup.id)?, begun_at: time(&backup.begun_at)?, expires_at, own_key: backup.own_key })
        };
        Some(ErasureReceipt {
            issued_at: time(&self.issued_at)?,
            instance: InstanceId::parse(&self.instance)?,
            tenant: TenantId::parse(&self.tenant)?,
            user,
            holder: parse_uuid(&self.id)?,
            asked_at: time(&self.asked_at)?,
            destroyed_at: time(&self.destroyed_at)?,
            shredded_at: time(&self.shredded_at)?,
            memories: self.memories,
            epoch: self.epoch,
            tombstone: self.tombstone,
            backups: self.backups.into_iter().map(backup).collect::<Option<_>>()?,
            destroyed: self.destroyed.read()?,
            ended: self.ended.read()?,
        })
    }
}

impl ErasureReceipt {
    /// The signed note, by the key of `log`.
    pub fn note(&self, log: LogId, key: &SigningKey) -> String {
        note::sign(&self.text(), &origin(log), key)
    }

    fn text(&self) -> String {
        let backups = self.backups.iter().map(|backup| WireBackup {
            begun_at: backup.begun_at.to_string(),
            expires_at: backup.expires_at.map(|at| at.to_string()),
            id: backup.id.to_string(),
            own_key: backup.own_key,
        });
        let wire = Wire {
            asked_at: self.asked_at.to_string(),
            backups: backups.collect(),
            destroyed: self.destroyed.wire(),
            destroyed_at: self.destroyed_at.to_string(),
            ended: self.ended.wire(),
            epoch: self.epoch,
            holder: if self.user { "user" } else { "subject" }.to_owned(),
            id: format_uuid(&self.holder),
            instance: self.instance.to_string(),
            issued_at: self.issued_at.to_string(),
            memories: self.memories,
            shredded_at: self.shredded_at.to_string(),
            tenant: self.tenant.to_string(),
            tombstone: self.tombstone,
        };
        format!("{HEAD}\n{}\n", serde_json::to_string(&wire).expect("strings and numbers are JSON"))
    }

    /// Whether `proved` is an entry of `op` that tells of this erasure, in a log of the key `vkey`.
    fn tells(&self, what: &'static str, proved: &Proved, op: &str, vkey: &Vkey) -> Result<(), ReceiptError> {
        let signer = proved.checkpoint.lines().next().unwrap_or_default();
        // A log that a restore ended has another name and the same key.
        let signer = vkey.renamed(signer).ok_or(ReceiptError::Checkpoint(what, NoteError::Malformed))?;
        let checkpoint = Checkpoint::parse(&proved.checkpoint, &signer).map_err(|error| ReceiptError::Checkpoint(what, error))?;
        let entry = Entry::parse(&proved.entry).map_err(|_| ReceiptError::AnotherEntry(what))?;
        if !verify_inclusion(&leaf_hash(proved.entry.as_bytes()), entry.i, checkpoint.size, &proved.proof, &checkpoint.root) {
            return Err(ReceiptError::NotIncluded(what));
        }
        let has = |detail: Detail| entry.det.all().contains(&detail);
        let holder = entry.res.as_ref().is_some_and(|res| matches!(&res.ids[..], [id] if *id.bytes() == self.holder));
        let done = entry.op.text() == op && entry.outcome == Outcome::Ok && entry.tenant == Some(self.tenant);
        match holder && done && has(Detail::Epoch(self.epoch.into())) && has(Detail::Tombstone(self.tombstone)) {
            true => Ok(()),
            false => Err(ReceiptError::AnotherEntry(what)),
        }
    }
}

/// Reads a receipt that `vkey` signed, and checks everything that it can prove.
///
/// Errors: [`ReceiptError`].
pub fn open(note: &str, vkey: &Vkey) -> Result<ErasureReceipt, ReceiptError> {
    let text = note::open_within(note, vkey, limits::RECEIPT_BYTES_MAX)?;
    let json = text.strip_prefix(HEAD).and_then(|rest| rest.strip_prefix('\n')).and_then(|rest| rest.strip_suffix('\n'));
    let wire: Wire = json.and_then(|json| serde_json::from_str(json).ok()).ok_or(ReceiptError::Malformed)?;
    let receipt = wire.read().filter(|receipt| receipt.text() == text).ok_or(ReceiptError::Malformed)?;
    receipt.tells("destroyed", &receipt.destroyed, "erasure.destroy", vkey)?;
    receipt.tells("ended", &receipt.ended, "erasure.end", vkey)?;
    Ok(receipt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::checkpoint::vkey;
    use crate::audit::entry::tests::golden;
    use crate::audit::entry::{Actor, Resource, Word};
    use crate::audit::merkle::tests::NoTiles;
    use crate::audit::merkle::{Appender, Tree};
    use crate::base::id::UserId;
    use crate::crypto::secret::Secret;

    const HOLDER: [u8; 16] = [7; 16];

    fn key() -> SigningKey {
        SigningKey::from_seed(&Secret::new([0x5e; 32]))
    }

    fn log() -> LogId {
        LogId::from_bytes([0x10; 16])
    }

    fn entry(op: &'static str, i: u64, holder: [u8; 16]) -> String {
        let mut entry = Entry::new(op, Actor::SYSTEM);
        (entry.i, entry.tenant, entry.n) = (i, Some(TenantId::from_bytes([3; 16])), 1);
        entry.res = Some(Resource { ids: vec![UserId::from_bytes(holder).into()], kind: Word::of("erasure") });
        entry.det.set(Detail::Epoch(4));
        entry.det.set(Detail::Tombstone(2));
        entry.line()
    }

    /// A receipt over a log of these lines, whose second and fifth tell of the erasure.
    fn receipt(lines: &[String]) -> ErasureReceipt {
        let (mut end, mut full) = (Appender::new(), Vec::new());
        let leaves: Vec<Hash> = lines.iter().map(|line| leaf_hash(line.as_bytes())).collect();
        for leaf in &leaves {
            end.append(*leaf, &mut full);
        }
        let tree = Tree::new(&NoTiles, end.size(), leaves).unwrap();
        let checkpoint = Checkpoint { log: log(), size: end.size(), root: end.root() }.note(&key());
        let proved = |i: u64| Proved {
            entry: lines[usize::try_from(i).unwrap()].clone(),
            checkpoint: checkpoint.clone(),
            proof: tree.inclusion(i, end.size()).unwrap(),
        };
        let at = |n: u64| Timestamp::from_ms(1_795_301_176_000 + n);
        ErasureReceipt {
            issued_at: at(9),
            instance: InstanceId::from_bytes([1; 16]),
            tenant: TenantId::from_bytes([3; 16]),
            user: true,
            holder: HOLDER,
            asked_at: at(1),
            destroyed_at: at(2),
            shredded_at: at(3),
            memories: 12,
            epoch: 4,
            tombstone: 2,
            backups: vec![
                HeldBackup { id: FileId::from_bytes([8; 16]), begun_at: at(0), expires_at: Some(at(99)), own_key: true },
                HeldBackup { id: FileId::from_bytes([9; 16]), begun_at: at(0), expires_at: None, own_key: false },
            ],
            destroyed: proved(1),
            ended: proved(4),
        }
    }

    fn lines() -> Vec<String> {
        let op = |i| match i {
            1 => "erasure.destroy",
            4 => "erasure.end",
            _ => "system.start",
        };
        (0..7).map(|i| entry(op(i), i, HOLDER)).collect()
    }

    #[test]
    fn a_receipt_is_read_back_and_is_the_published_one() {
        let (receipt, vkey) = (receipt(&lines()), vkey(log(), key().public()));
        let note = receipt.note(log(), &key());
        assert_eq!(open(&note, &vkey), Ok(receipt));
        golden("audit/erasure.receipt", &note);
    }

    #[test]
    fn any_change_of_a_receipt_is_seen_and_another_key_does_not_open_it() {
        let vkey = vkey(log(), key().public());
        let note = receipt(&lines()).note(log(), &key());
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(String::from_utf8(bytes).map_or(true, |note| open(&note, &vkey).is_err()), "byte {at}");
        }
        let stranger = SigningKey::from_seed(&Secret::new([1; 32]));
        assert!(open(&note, &crate::audit::checkpoint::vkey(log(), stranger.public())).is_err());
        // A checkpoint of the same key is not a receipt.
        let checkpoint = Checkpoint { log: log(), size: 1, root: [0; 32] }.note(&key());
        assert_eq!(open(&checkpoint, &vkey), Err(ReceiptError::Malformed));
    }

    #[test]
    fn a_signed_receipt_whose_entries_prove_something_else_is_not_accepted() {
        let vkey = vkey(log(), key().public());
        let refused = |change: fn(&mut ErasureReceipt)| {
            let mut changed = receipt(&lines());
            change(&mut changed);
            open(&changed.note(log(), &key()), &vkey).unwrap_err()
        };
        assert_eq!(refused(|r| r.epoch = 5), ReceiptError::AnotherEntry("destroyed"));
        assert_eq!(refused(|r| r.tombstone = 3), ReceiptError::AnotherEntry("destroyed"));
        assert_eq!(refused(|r| r.holder = [8; 16]), ReceiptError::AnotherEntry("destroyed"));
        assert_eq!(refused(|r| r.ended = r.destroyed.clone()), ReceiptError::AnotherEntry("ended"));
        assert_eq!(refused(|r| r.ended.proof.swap(0, 1)), ReceiptError::NotIncluded("ended"));
        assert_eq!(
            refused(|r| r.ended.entry = entry("erasure.end", 4, HOLDER).replace("\"n\":1", "\"n\":2")),
            ReceiptError::NotIncluded("ended")
        );
        assert!(matches!(refused(|r| r.ended.checkpoint.insert(0, 'x')), ReceiptError::Checkpoint("ended", _)));
        let mut others = lines();
        others[4] = entry("erasure.end", 4, [8; 16]);
        assert_eq!(open(&receipt(&others).note(log(), &key()), &vkey), Err(ReceiptError::AnotherEntry("ended")));
    }
}
