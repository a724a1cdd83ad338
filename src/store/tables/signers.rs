//! AUDIT_KEYS: the public keys that signed the log before the present one, each with the handover to the next ([`crate::audit::chain`]).
//!
//! Key: log id 16 | size u64 BE: the greatest size whose checkpoint that key signed. A log that ended with a restore has a last row of the
//! greatest size there is, written at the first handover after it, without a handover of its own: the next key was introduced in a later log.
//!
//! Invariants
//! - A checkpoint of a log is checked with the key whose turn it is at its size: a retired key counts up to its handover and no further, and
//!   at its very size both do: the anchor of that moment may be the new key's.
//! - The row of a handover is in the commit that it hands over in, with the checkpoint that both keys signed.
//! - What signs is the superblock's key, or, once that one is retired, the next one beside it.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use crate::audit::chain::{self, Link};
use crate::audit::checkpoint::{Anchor, Checkpoint, vkey};
use crate::audit::note::{NoteError, Vkey};
use crate::audit::receipt::Proved;
use crate::base::codec::CodecError;
use crate::base::id::LogId;
use crate::base::limits;
use crate::crypto::ladder::Keys;
use crate::crypto::sign::SigningKey;
use crate::engine::{Batch, EngineError, Read};
use crate::store::check::{Fault, ensure};
use crate::store::tables::log::{self, LogError, StoredTiles};
use crate::store::tables::{AUDIT_KEYS, CHECKPOINTS, PAST_LOGS, after, key, past};
use crate::store::tx::{StoreError, Tx, row, value};

/// A key that is retired.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignerRow {
    /// The public key.
    pub public: [u8; 32],
    /// How it handed over, if it did so in this log.
    pub handover: Option<Handover>,
}

/// A handover.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Handover {
    /// Index of its entry.
    pub entry: u64,
    /// The public key that follows.
    pub next: [u8; 32],
    /// The checkpoint that both signed.
    pub note: String,
}

fn malformed() -> StoreError {
    StoreError::Row("audit_keys", CodecError::Malformed)
}

fn row_key(log: LogId, size: u64) -> Vec<u8> {
    key(&[log.bytes(), &size.to_be_bytes()])
}

/// Rows between two keys: log, size, row.
fn rows(reader: &dyn Read, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Result<Vec<(LogId, u64, SignerRow)>, StoreError> {
    let mut found = Vec::new();
    for item in reader.range(AUDIT_KEYS, low, high)? {
        let (key, bytes) = item?;
        let (log, size) = key.split_first_chunk::<16>().ok_or_else(malformed)?;
        let size = u64::from_be_bytes(size.try_into().map_err(|_| malformed())?);
        found.push((LogId::from_bytes(*log), size, row("audit_keys", &bytes)?));
    }
    Ok(found)
}

/// The retired keys of a log, in their order.
pub fn retired(reader: &dyn Read, log: LogId) -> Result<Vec<(u64, SignerRow)>, StoreError> {
    let (low, high) = (log.bytes(), after(log.bytes()));
    Ok(rows(reader, Bound::Included(low), Bound::Excluded(&high))?.into_iter().map(|(_, size, row)| (size, row)).collect())
}

/// The public key that was handed over from, of `keys` the present one, if that has happened and the superblock does not say so yet.
pub fn handed_over(reader: &dyn Read, keys: &Keys) -> Result<Option<[u8; 32]>, StoreError> {
    let present = keys.signing().public();
    let known = rows(reader, Bound::Unbounded, Bound::Unbounded)?;
    Ok(known.iter().any(|(_, _, row)| row.handover.is_some() && row.public == present).then_some(present))
}

/// What signs now, `handed_over` being what [`handed_over`] gave.
///
/// Errors: `Damaged`: the superblock is one from before the last handover.
pub fn of<'k>(keys: &'k Keys, handed_over: Option<&[u8; 32]>) -> Result<&'k SigningKey, EngineError> {
    match handed_over {
        Some(retired) if *retired == keys.signing().public() => {
            keys.next_signing().ok_or(EngineError::Damaged("the audit signing key of the superblock"))
        }
        _ => Ok(keys.signing()),
    }
}

/// What signs now.
pub fn signing<'k>(reader: &dyn Read, keys: &'k Keys) -> Result<&'k SigningKey, StoreError> {
    Ok(of(keys, handed_over(reader, keys)?.as_ref())?)
}

/// The keys whose turn it is in `log` at `size`: one, or at a handover both.
fn in_turn(reader: &dyn Read, keys: &Keys, log: LogId, size: u64) -> Result<Vec<Vkey>, StoreError> {
    let publics = match retired(reader, log)?.into_iter().find(|(last, _)| size <= *last) {
        Some((last, row)) => {
            std::iter::once(row.public).chain(row.handover.filter(|_| size == last).map(|handover| handover.next)).collect()
        }
        None => vec![signing(reader, keys)?.public()],
    };
    Ok(publics.into_iter().map(|public| vkey(log, public)).collect())
}

/// Reads a note of `log` by the key whose turn it was at the size that it speaks of.
fn read<T>(reader: &dyn Read, keys: &Keys, log: LogId, note: &str, parse: fn(&str, &Vkey) -> Result<T, NoteError>) -> Result<T, LogError> {
    let mut failed = NoteError::Malformed;
    for key in in_turn(reader, keys, log, log::size_of(note).ok_or(failed)?)? {
        match parse(note, &key) {
            Ok(found) => return Ok(found),
            Err(error) => failed = error,
        }
    }
    Err(failed.into())
}

/// The key that checks what is signed in `log` from now on.
pub fn newest(reader: &dyn Read, keys: &Keys, log: LogId) -> Result<Vkey, StoreError> {
    Ok(vkey(log, signing(reader, keys)?.public()))
}

/// Reads a checkpoint of `log` by the key whose turn it was.
///
/// Errors: the file's; `Note` if it is not signed by that key.
pub fn checkpoint(reader: &dyn Read, keys: &Keys, log: LogId, note: &str) -> Result<Checkpoint, LogError> {
    read(reader, keys, log, note, Checkpoint::parse)
}

/// Reads an anchor of `log` by the key whose turn it was.
///
/// Errors: as [`checkpoint`].
pub fn anchor(reader: &dyn Read, keys: &Keys, log: LogId, note: &str) -> Result<Anchor, LogError> {
    read(reader, keys, log, note, Anchor::parse)
}

/// Puts a handover into the batch: `checkpoint` is that of the batch, whose entry `entry` introduces the new key. Gives the note of both.
pub fn hand_over(
    batch: &mut Batch<'_>,
    checkpoint: &Checkpoint,
    entry: u64,
    old: &SigningKey,
    new: &SigningKey,
) -> Result<String, EngineError> {
    let note = checkpoint.note_of_both(old, new);
    let ended = past::logs(batch).map_err(|_| EngineError::Damaged("the past logs"))?;
    for log in ended {
        let last = row_key(log, u64::MAX);
        if batch.get(AUDIT_KEYS, &last)?.is_none() {
            batch.put(AUDIT_KEYS, &last, &value(&SignerRow { public: old.public(), handover: None }))?;
        }
    }
    let handover = Some(Handover { entry, next: new.public(), note: note.clone() });
    batch.put(AUDIT_KEYS, &row_key(checkpoint.log, checkpoint.size), &value(&SignerRow { public: old.public(), handover }))?;
    batch.put(CHECKPOINTS, &checkpoint.size.to_be_bytes(), note.as_bytes())?;
    Ok(note)
}

/// The changes of key in the running log, the newest [`limits::AUDIT_HANDOVERS_MAX`] of them, with proofs to its size `to`.
///
/// Errors: the file's.
pub fn links(reader: &dyn Read, log: LogId, to: u64) -> Result<Vec<Link>, LogError> {
    let (tiles, mut links) = (StoredTiles(reader), Vec::new());
    let all: Vec<_> =
        retired(reader, log)?.into_iter().filter_map(|(size, row)| Some((size, row.handover?))).filter(|(size, _)| *size <= to).collect();
    for (size, handover) in &all[all.len().saturating_sub(limits::AUDIT_HANDOVERS_MAX)..] {
        let tree = log::tree(&tiles, to)?;
        let entry = log::line(reader, handover.entry)?.ok_or(LogError::Damaged)?;
        let proof = tree.inclusion(handover.entry, *size)?;
        links
            .push(Link { handover: Proved { entry, checkpoint: handover.note.clone(), proof }, consistency: tree.consistency(*size, to)? });
    }
    Ok(links)
}

/// A row of AUDIT_KEYS: its handover is in its log, signed by both, and leads to the key after it.
pub fn check(tx: &Tx<'_>, running: LogId, row_key: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let wrong = Fault::Wrong("not a key of this table");
    let Some((log, size)) = row_key.split_first_chunk::<16>() else { return Err(wrong) };
    let (log, size) = (LogId::from_bytes(*log), u64::from_be_bytes(size.try_into().map_err(|_| wrong)?));
    let found: SignerRow = row("audit_keys", bytes)?;
    let Some(Handover { entry, next, note }) = found.handover else {
        return ensure(size == u64::MAX && log != running && past::logs(tx.reader)?.contains(&log), "the end of a log that has not ended");
    };
    let old = vkey(log, found.public);
    let read = |key: &Vkey| Checkpoint::parse(&note, key).ok().filter(|checkpoint| checkpoint.size == size);
    ensure(read(&old).is_some() && read(&vkey(log, next)).is_some(), "its checkpoint is not signed by both keys")?;
    let (line, kept) = match log == running {
        true => (log::line(tx.reader, entry)?, tx.get(CHECKPOINTS, &size.to_be_bytes())?),
        false => (past::line(tx, log, entry)?, tx.get(PAST_LOGS, &past::checkpoint_key_of(log, size))?),
    };
    ensure(kept.as_deref() == Some(note.as_bytes()), "its checkpoint is not kept")?;
    let new = line.filter(|_| entry < size).and_then(|line| chain::introduced(&line, entry, &old));
    ensure(new.is_some_and(|new| *new.public() == next), "no entry of the log introduces the key")?;
    let last = size.checked_add(1).ok_or(Fault::Wrong("not a key of this table"))?;
    let follows = in_turn(tx.reader, &tx.keys, log, last)?;
    ensure(follows.first().is_some_and(|key| *key.public() == next), "the key that it leads to does not follow")
}
