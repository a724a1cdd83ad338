//! The ledger of erased holders: a file beside the anchor, on another disk than the data, so that an older copy of the data put in its place
//! knows whom to erase again.
//!
//! Text, one line each:
//!
//! ```text
//! rosemary-erased-v1 <instance id>
//! <tenant id> user|subject <holder id> <time, RFC 3339> <epoch>           one a holder, in the order of erasure
//! mac <64 hex digits>           HMAC-SHA-256 under the lookup key over the fields `ledger` and all lines before, each with its line end
//! ```
//!
//! Invariants
//! - Random ids, times and numbers alone: it tells nothing of anybody.
//! - It never gets shorter: what an older copy of the data does not know is kept, and erased there too.
//! - One that is damaged or another instance's is an error, and is not written over.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::id::{InstanceId, TenantId, parse_uuid};
use crate::base::time::Timestamp;
use crate::base::{durable, hex, id, limits};
use crate::crypto::hash::hmac_sha256;
use crate::crypto::ladder::Keys;
use crate::crypto::secret::Secret;

use crate::engine::Read;
use crate::store::tables::erasures;
pub use crate::store::tables::erasures::Tombstone;

const HEAD: &str = "rosemary-erased-v1";

/// Where the ledger of the anchor at `anchor` is.
pub fn path_beside(anchor: &Path) -> PathBuf {
    let mut path = anchor.as_os_str().to_owned();
    path.push(".erased");
    path.into()
}

/// The ledger of a file that is about to take the data file's place, whose keys are others, until it has taken its place too.
fn next_of(path: &Path) -> PathBuf {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    next.into()
}

/// Why a ledger is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system's answer.
    #[error("{0}: the list of erased holders: {1}; mend its permissions or its disk")]
    Io(String, io::ErrorKind),
    /// Changed, cut, or another instance's.
    #[error("{0}: the list of erased holders is damaged or another instance's; put the right one back, its copy is in every backup")]
    Damaged(String),
    /// The data file's own.
    #[error("the data file's tombstones cannot be read; run `rosemary verify`")]
    Unread,
}

/// The ledger as text.
pub fn text(instance: InstanceId, keys: &Keys, tombstones: &[Tombstone]) -> String {
    let mut text = format!("{HEAD} {instance}\n");
    for stone in tombstones {
        let kind = if stone.kind == 1 { "user" } else { "subject" };
        text += &format!("{} {kind} {} {} {}\n", stone.tenant, id::format_uuid(&stone.holder), stone.at, stone.epoch);
    }
    let mac = hmac_sha256(keys.lookup(), &[b"ledger", text.as_bytes()]);
    text += &format!("mac {}\n", hex::encode(&mac));
    text
}

/// Reads what [`text`] wrote; `None` if it is not that.
pub fn parse(text: &str, instance: InstanceId, keys: &Keys) -> Option<Vec<Tombstone>> {
    let at = text.trim_end_matches('\n').rfind('\n')? + 1;
    let (body, last) = text.split_at(at);
    let mac = hex::decode(last.strip_prefix("mac ")?.strip_suffix('\n')?)?;
    if !Secret::new(hmac_sha256(keys.lookup(), &[b"ledger", body.as_bytes()])).matches(&mac) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != format!("{HEAD} {instance}") {
        return None;
    }
    let stone = |line: &str| {
        let mut words = line.split(' ');
        let tenant = TenantId::parse(words.next()?)?;
        let kind = match words.next()? {
            "user" => 1,
            "subject" => 2,
            _ => return None,
        };
        let holder = parse_uuid(words.next()?)?;
        let at = Timestamp::parse(words.next()?)?;
        let epoch = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Tombstone { tenant, kind, holder, at, epoch })
    };
    lines.map(stone).collect()
}

/// Everybody whom the ledger beside the anchor or this copy of the data (`reader`) knows to be erased: the ledger's lines first, in their order.
///
/// Errors: see [`LedgerError`].
pub fn known(anchor: &Path, instance: InstanceId, keys: &Keys, reader: &dyn Read) -> Result<Vec<Tombstone>, LedgerError> {
    let mut lines = read(&path_beside(anchor), instance, keys)?.unwrap_or_default();
    let named: HashSet<_> = lines.iter().map(|line| (line.tenant, line.holder)).collect();
    let stones = erasures::all_tombstones(reader).map_err(|_| LedgerError::Unread)?;
    lines.extend(stones.into_iter().filter(|stone| !named.contains(&(stone.tenant, stone.holder))));
    Ok(lines)
}

/// Reads the ledger at `path`; none if there is no such file. Where it is under other keys, and one under these waits to take its place, that one.
///
/// Errors: see [`LedgerError`].
pub fn read(path: &Path, instance: InstanceId, keys: &Keys) -> Result<Option<Vec<Tombstone>>, LedgerError> {
    match read_one(path, instance, keys) {
        found @ (Ok(None) | Err(LedgerError::Damaged(_))) => match read_one(&next_of(path), instance, keys) {
            Ok(Some(lines)) => Ok(Some(lines)),
            _ => found,
        },
        found => found,
    }
}

/// Writes what the ledger at `path` is to say once a file with these keys takes the data file's place.
///
/// Errors: `Io`.
pub fn prepare(path: &Path, instance: InstanceId, keys: &Keys, tombstones: &[Tombstone]) -> Result<(), LedgerError> {
    write(&next_of(path), instance, keys, tombstones)
}

/// Puts in place what [`prepare`] wrote, if it is under these keys.
///
/// Errors: `Io`.
pub fn settle(path: &Path, instance: InstanceId, keys: &Keys) -> Result<(), LedgerError> {
    let next = next_of(path);
    if !matches!(read_one(&next, instance, keys), Ok(Some(_))) {
        return Ok(());
    }
    let moved = std::fs::rename(&next, path).and_then(|()| durable::sync_folder_of(path));
    moved.map_err(|error| LedgerError::Io(path.display().to_string(), error.kind()))
}

fn read_one(path: &Path, instance: InstanceId, keys: &Keys) -> Result<Option<Vec<Tombstone>>, LedgerError> {
    use std::io::Read as _;
    let name = || path.display().to_string();
    let mut text = String::new();
    let file = match crate::base::file::open_regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| LedgerError::Io(name(), error.kind()))?,
    };
    match file.take(limits::LEDGER_BYTES_MAX).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(LedgerError::Damaged(name())),
        done => done.map_err(|error| LedgerError::Io(name(), error.kind()))?,
    };
    parse(&text, instance, keys).map(Some).ok_or_else(|| LedgerError::Damaged(name()))
}

/// Writes the ledger at `path`, durably.
///
/// Errors: `Io`.
pub fn write(path: &Path, instance: InstanceId, keys: &Keys, tombstones: &[Tombstone]) -> Result<(), LedgerError> {
    durable::replace(path, text(instance, keys, tombstones).as_bytes(), 0o600)
        .map_err(|error| LedgerError::Io(path.display().to_string(), error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_read_back_and_any_change_of_it_is_seen() {
        let (instance, keys) = (InstanceId::draw(), Keys::random());
        let stone = |kind: u8| Tombstone {
            tenant: TenantId::draw(),
            kind,
            holder: [kind; 16],
            at: Timestamp::from_ms(1_764_000_000_123),
            epoch: 3,
        };
        for stones in [vec![], vec![stone(1)], vec![stone(1), stone(2)]] {
            let text = text(instance, &keys, &stones);
            assert_eq!(parse(&text, instance, &keys), Some(stones));
            assert_eq!(parse(&text, InstanceId::draw(), &keys), None);
            assert_eq!(parse(&text, instance, &Keys::random()), None);
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] ^= 1;
                assert_eq!(String::from_utf8(changed).ok().and_then(|changed| parse(&changed, instance, &keys)), None, "byte {at}");
                assert_eq!(parse(&text[..at], instance, &keys), None, "cut at {at}");
            }
        }
        assert_eq!(parse("", instance, &keys), None);
    }
}
