//! PAST_LOGS: the audit logs that ended with a restore. Read-only for good: no verb writes here, only `store::restore` moves a log in.
//!
//! Key: log id 16 | what 1 | place: 0 an entry's index (u64), 1 a tile's level and number (u8, u64), 2 a checkpoint's size (u64); big-endian.
//! The checkpoint of the greatest size is the log's end, and the first entry of the log that follows carries its origin, size and root.

use crate::audit::checkpoint::{Checkpoint, origin, vkey};
use crate::audit::note::cosign;
use crate::audit::receipt::Proved;
use crate::audit::{Appender, Entry, Hash, Tiles, Tree, leaf_hash};
use crate::base::id::LogId;
use crate::engine::{EngineError, Read, Table};
use crate::store::check::{Fault, ensure};
use crate::store::tables::log::{self, LogError, StoredTiles};
use crate::store::tables::signers;
use crate::store::tables::usage::{self, Meter};
use crate::store::tables::{AUDIT, AUDIT_TILES, CHECKPOINTS, PAST_LOGS, key};
use crate::store::tx::{StoreError, Tx};

const LINE: u8 = 0;
const TILE: u8 = 1;
const CHECKPOINT: u8 = 2;

/// The key under which a row of the running log's table is kept once that log has ended; none for other tables.
pub fn moved(table: Table, log: LogId, row_key: &[u8]) -> Option<Vec<u8>> {
    let what = match table {
        AUDIT => LINE,
        AUDIT_TILES => TILE,
        CHECKPOINTS => CHECKPOINT,
        _ => return None,
    };
    Some(key(&[log.bytes(), &[what], row_key]))
}

/// The key of a log's checkpoint.
pub fn checkpoint_key(checkpoint: &Checkpoint) -> Vec<u8> {
    checkpoint_key_of(checkpoint.log, checkpoint.size)
}

/// The same by log and size.
pub fn checkpoint_key_of(log: LogId, size: u64) -> Vec<u8> {
    key(&[log.bytes(), &[CHECKPOINT], &size.to_be_bytes()])
}

/// The entry at `index` of a log that has ended.
pub fn line(tx: &Tx<'_>, log: LogId, index: u64) -> Result<Option<String>, StoreError> {
    let Some(bytes) = tx.get(PAST_LOGS, &key(&[log.bytes(), &[LINE], &index.to_be_bytes()]))? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| malformed())
}

fn malformed() -> StoreError {
    StoreError::Row("past_logs", crate::base::codec::CodecError::Malformed)
}

/// The logs that are here.
pub fn logs(reader: &dyn Read) -> Result<Vec<LogId>, StoreError> {
    let (mut found, mut from) = (Vec::new(), vec![0]);
    while let Some(first) = reader.range(PAST_LOGS, std::ops::Bound::Included(&from), std::ops::Bound::Unbounded)?.next() {
        let log = LogId::from_bytes(first?.0.get(..16).and_then(|id| id.try_into().ok()).ok_or_else(malformed)?);
        found.push(log);
        from = key(&[log.bytes(), &[CHECKPOINT + 1]]);
    }
    Ok(found)
}

/// The logs that are here, each with its end's note.
pub fn all(tx: &Tx<'_>) -> Result<Vec<(LogId, String)>, StoreError> {
    let mut found = Vec::new();
    for log in logs(tx.reader)? {
        let last = tx.prefix(PAST_LOGS, &key(&[log.bytes(), &[CHECKPOINT]]))?.next_back().ok_or_else(malformed)??;
        found.push((log, String::from_utf8(last.1).map_err(|_| malformed())?));
    }
    Ok(found)
}

/// Tiles of a log that has ended.
struct PastTiles<'r>(&'r dyn Read, LogId);

impl Tiles for PastTiles<'_> {
    type Error = EngineError;

    fn tile(&self, level: u8, index: u64) -> Result<Vec<u8>, EngineError> {
        Ok(self.0.get(PAST_LOGS, &key(&[self.1.bytes(), &[TILE, level], &index.to_be_bytes()]))?.unwrap_or_default())
    }
}

/// The entry at `index` of `of`, the running log or one that has ended, with its inclusion proof and a checkpoint that the present key signed:
/// the end of a log that a key before it signed is signed by the present one too.
///
/// Errors: the file's; `Damaged` if there is no such log or entry.
pub fn proved(tx: &Tx<'_>, running: LogId, of: LogId, index: u64) -> Result<Proved, LogError> {
    if of == running {
        let note = log::checkpoint_note(tx.reader)?.ok_or(LogError::Damaged)?;
        let checkpoint = signers::checkpoint(tx.reader, &tx.keys, of, &note)?;
        let tiles = StoredTiles(tx.reader);
        let proof = log::tree(&tiles, checkpoint.size)?.inclusion(index, checkpoint.size)?;
        let entry = log::line(tx.reader, index)?.ok_or(LogError::Damaged)?;
        return Ok(Proved { entry, checkpoint: note, proof });
    }
    let note = all(tx)?.into_iter().find_map(|(log, note)| (log == of).then_some(note)).ok_or(LogError::Damaged)?;
    let checkpoint = signers::checkpoint(tx.reader, &tx.keys, of, &note)?;
    let signing = signers::signing(tx.reader, &tx.keys)?;
    let note = match Checkpoint::parse(&note, &vkey(of, signing.public())) {
        Ok(_) => note,
        Err(_) => cosign(&note, &origin(of), signing),
    };
    let line = |index: u64| -> Result<String, LogError> { line(tx, of, index)?.ok_or(LogError::Damaged) };
    let tail = (checkpoint.size & !0xff..checkpoint.size).map(|index| line(index).map(|line| leaf_hash(line.as_bytes())));
    let tiles = PastTiles(tx.reader, of);
    let tree = Tree::new(&tiles, checkpoint.size, tail.collect::<Result<Vec<Hash>, _>>()?).ok_or(LogError::Damaged)?;
    Ok(Proved { entry: line(index)?, proof: tree.inclusion(index, checkpoint.size)?, checkpoint: note })
}

/// A past log: its lines are entries in their order, its tiles are theirs, and every checkpoint signed what is there. Gives its rows,
/// and counts in `told` what its entries tell of.
pub fn check(tx: &Tx<'_>, log: LogId, note: &str, told: &mut Meter) -> Result<u64, Fault> {
    let read = |note: &str| match signers::checkpoint(tx.reader, &tx.keys, log, note) {
        Ok(checkpoint) => Ok(checkpoint),
        Err(LogError::Store(error)) => Err(error.into()),
        Err(_) => Err(Fault::Wrong("not a checkpoint that this log's key signed")),
    };
    let end = read(note)?;
    let (mut appender, mut full, mut rows, mut tiles) = (Appender::new(), Vec::new(), 0, 0_u64);
    let (mut kept, first) = (std::collections::HashMap::new(), usage::first(tx, log)?);
    for item in tx.prefix(PAST_LOGS, &key(&[log.bytes(), &[CHECKPOINT]]))? {
        let (row_key, bytes) = item?;
        let checkpoint = read(std::str::from_utf8(&bytes).unwrap_or_default())?;
        ensure(row_key == checkpoint_key(&checkpoint), "a checkpoint of another size")?;
        kept.insert(checkpoint.size, checkpoint.root);
        rows += 1;
    }
    for item in tx.prefix(PAST_LOGS, &key(&[log.bytes(), &[LINE]]))? {
        let (row_key, line) = item?;
        let index = appender.size();
        ensure(row_key.get(17..) == Some(&index.to_be_bytes()[..]), "an entry before it is missing")?;
        let entry = std::str::from_utf8(&line).ok().and_then(|line| Entry::parse(line).ok());
        let entry = entry.filter(|entry| entry.i == index).ok_or(Fault::Wrong("not a canonical entry of this index"))?;
        if index >= first {
            told.count(&entry, entry.t);
        }
        appender.append(leaf_hash(&line), &mut full);
        for tile in full.drain(..) {
            let place = key(&[log.bytes(), &[TILE, tile.level], &tile.index.to_be_bytes()]);
            ensure(tx.get(PAST_LOGS, &place)?.as_ref() == Some(&tile.bytes), "the stored tile that ends here is not that of the entries")?;
            tiles += 1;
        }
        if let Some(root) = kept.remove(&appender.size()) {
            ensure(root == appender.root(), "a kept checkpoint signed another log up to here")?;
        }
        rows += 1;
    }
    let stored = tx.prefix(PAST_LOGS, &key(&[log.bytes(), &[TILE]]))?.try_fold(0_u64, |n, item| item.map(|_| n + 1))?;
    ensure(stored == tiles, "there are tiles of entries that are not there")?;
    ensure(kept.is_empty() && appender.size() == end.size, "entries are missing or too many: not as many as the checkpoint signed")?;
    ensure(appender.root() == end.root, "the entries are not those that the checkpoint signed")?;
    Ok(rows + stored)
}
