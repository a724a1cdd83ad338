//! A new file of the same data under new keys of every kind, after the old ones were known to somebody.
//!
//! ```text
//! data file (locked, unchanged) ─▶ every row sealed again beside ─▶ the log goes on there, handed over ─▶ every check ─▶ renamed into place
//! ```
//!
//! Each holder gets a new DEK; every field is sealed under it, every look-up and digest is computed under the new lookup key. What the old keys
//! sealed, and the old DEKs themselves, never come into the new file, not even into its free pages. The log is the same log: its lines and its
//! tree go on, and its new signing key is introduced by the old one ([`crate::audit::chain`]).
//!
//! Invariants
//! - The two files share no key but the pepper, which opens nothing: without it no stored credential would be recognised, and what an emergency
//!   revoked would not be known any more.
//! - What takes the place has passed the walk of its tree and the check of every row, index and log; until then nothing changes.
//! - The file that was there is never removed here: it keeps a second name.
//! - Who was erased stays so: the list beside the anchor is written under the new keys before the file takes its place.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::audit::checkpoint::{Checkpoint, vkey};
use crate::audit::note::Vkey;
use crate::audit::{Actor, Detail, Entry, Word, chain};
use crate::base::id::{BootId, FileId, InstanceId};
use crate::base::limits;
use crate::base::time::Clock;
use crate::crypto::ladder::Keys;
use crate::crypto::secret::Key;
use crate::crypto::unlock::Kek;
use crate::engine::{CommitError, Engine, EngineError, Place, Plan, Range, Read, Row, Snapshot, Table, Unlock};
use crate::store::check::{self, Findings};
use crate::store::ledger::{self, LedgerError};
use crate::store::restore::Facts;
use crate::store::tables::log::Tail;
pub use crate::store::tables::meta::RenewedMark;
use crate::store::tables::{
    CREDENTIALS, DEKS, EMBEDDINGS, MEMORIES, META, OAUTH_CLIENTS, ORDER, SUBJECT_LOOKUP, SUBJECTS, USER_LOOKUP, USERS, VERSIONS,
    credentials, grants, holders, memories, meta, subjects, users,
};
use crate::store::tx::{Common, StoreError, Tx, value};
use crate::store::upkeep::Interruptible;
use crate::store::vault::OpenError;

/// How the new file is to be made.
pub struct Order<'o> {
    /// The data file.
    pub path: &'o Path,
    /// Under which name the old one is kept.
    pub kept: &'o Path,
    /// What opens the new one, alone.
    pub kek: &'o Kek,
    /// The anchor, beside which the list of erased holders is.
    pub anchor: Option<&'o Path>,
    /// Set to have it given up.
    pub stop: &'o AtomicBool,
    /// Told what is being done and how many rows are.
    pub progress: &'o mut dyn FnMut(&'static str, u64),
}

/// A file under new keys.
#[derive(Debug)]
pub struct Renewed {
    /// Its id.
    pub file: FileId,
    /// The log as handed over.
    pub checkpoint: Checkpoint,
    /// The log's key before, and from here on.
    pub log_keys: (Vkey, Vkey),
    /// What the check of every row saw.
    pub found: Findings,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Why there is no new file. Nothing has changed, unless it is [`EngineError::Unconfirmed`]: then the new file is in place.
#[derive(Debug, thiserror::Error)]
pub enum AnewError {
    /// The old file, or the new one.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A change of keys or an erasure is under way.
    #[error("a change of keys or an erasure is under way; let the service end it, then try again")]
    Unfinished,
    /// What was made did not pass the check of its rows.
    #[error("the rows do not agree with one another ({0}); run `rosemary verify`, keep the file as evidence, and restore a backup")]
    Unsound(String),
    /// The list of erased holders.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<EngineError> for AnewError {
    fn from(error: EngineError) -> Self {
        Self::Open(error.into())
    }
}

impl From<StoreError> for AnewError {
    fn from(error: StoreError) -> Self {
        Self::Open(error.into())
    }
}

/// The mark of a file that was made so and in which nothing has happened since.
///
/// Errors: the file's.
pub fn untouched(engine: &Engine, facts: &Facts) -> Result<Option<RenewedMark>, OpenError> {
    let (snapshot, common) = (engine.snapshot()?, Common::new(engine.instance()));
    let tx = Tx::new(&snapshot, engine.keys(), &common, Default::default(), true);
    Ok(meta::fact::<RenewedMark>(&tx, meta::RENEWED)?.filter(|mark| mark.size == facts.checkpoint.size))
}

/// Makes the new file from `old` and puts it in its place.
///
/// Errors: [`AnewError`]; whatever was in place is there as it was, or, if what was done is `Unconfirmed`, under its second name.
pub fn anew(old: &Engine, facts: &Facts, clock: &Clock, order: Order<'_>) -> Result<Renewed, AnewError> {
    let Order { path, kept, kek, anchor, stop, progress } = order;
    let (snapshot, now) = (old.snapshot()?, clock.now());
    let common = Common::new(old.instance());
    let keys = snapshot.keys();
    {
        let tx = Tx::new(&snapshot, Arc::clone(&keys), &common, now, true);
        let busy = meta::renewal(&tx)?.is_some() || meta::rewrapping(&tx)?.is_some();
        if busy || keys.old_epoch().is_some() || keys.next_signing().is_some() {
            return Err(AnewError::Unfinished);
        }
    }
    let erased = anchor.map(|path| ledger::known(path, old.instance(), &keys, &snapshot)).transpose()?.unwrap_or_default();
    let fresh = old.fresh(kek)?;
    let doubled = Doubled { under: &snapshot, keys: Arc::new(keys.beside(&fresh.keys())), secret: Key::random(), instance: old.instance() };
    let tx = Tx::new(&doubled, Arc::clone(&doubled.keys), &common, now, true);
    let file = FileId::draw();
    let (mut outcome, mut failed, mut unlisted) = (None, None, None);
    let progress = std::cell::RefCell::new(progress);
    let plan = Plan {
        file,
        unlock: Unlock::Anew(&fresh),
        cache_bytes: limits::COPY_CACHE_BYTES,
        row: &mut |row| {
            renewed(&tx, &doubled, row).map(Some).map_err(|error| match error {
                StoreError::Engine(error) => error,
                other => {
                    failed = Some(other.to_string());
                    EngineError::Damaged("a row of the data file")
                }
            })
        },
        pace: &mut |rows| {
            progress.borrow_mut()("sealing rows again", rows);
            if stop.load(Ordering::Relaxed) { Err(EngineError::Latched) } else { Ok(()) }
        },
        finish: &mut |copy| {
            let (checkpoint, log_keys) = hand_over(copy, &keys, facts, clock, fresh.generation())?;
            let copied = copy.snapshot()?;
            let mut seen = 0;
            let found = check::check(&Interruptible { reader: &copied, stop }, copy.keys(), copy.instance(), now, &mut |_, _| {
                seen += 1;
                progress.borrow_mut()("checking rows", seen);
            })?;
            if found.count > 0 {
                unlisted = found.listed.first().map(|first| format!("{} findings, the first: {} {}", found.count, first.table, first.what));
                return Err(EngineError::Damaged("what the tables say"));
            }
            if let Some(path) = anchor.map(ledger::path_beside).filter(|path| path.exists() || !erased.is_empty()) {
                ledger::prepare(&path, copy.instance(), &copy.keys(), &erased)
                    .map_err(|_| EngineError::Io { kind: std::io::ErrorKind::Other })?;
            }
            outcome = Some((checkpoint, log_keys, found));
            Ok(())
        },
        place: Place::Over(kept),
    };
    let copied = old.copy_as(&snapshot, path, plan);
    match (copied, outcome, failed.or(unlisted)) {
        (_, _, Some(what)) => Err(AnewError::Unsound(what)),
        (Err(error), _, None) => Err(error.into()),
        (Ok(bytes), Some((checkpoint, log_keys, found)), None) => Ok(Renewed { file, checkpoint, log_keys, found, bytes }),
        (Ok(_), None, None) => Err(EngineError::Damaged("what the tables say").into()),
    }
}

/// The old file as if every holder had its new DEK beside the old ones: what is sealed through it is sealed under the new ones.
struct Doubled<'r> {
    under: &'r Snapshot,
    keys: Arc<Keys>,
    /// What the new DEKs are derived from; it is gone with this run.
    secret: Key,
    instance: InstanceId,
}

impl Read for Doubled<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        match self.under.get(table, key)? {
            Some(row) if table == DEKS => self.holder(key, &row, false).map(Some).map_err(|_| EngineError::Damaged("a holder's keys")),
            found => Ok(found),
        }
    }

    fn range(&self, table: Table, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Result<Range<'_>, EngineError> {
        debug_assert!(table != DEKS, "holders are looked up one by one");
        self.under.range(table, low, high)
    }
}

impl Doubled<'_> {
    fn holder(&self, key: &[u8], row: &[u8], alone: bool) -> Result<Vec<u8>, StoreError> {
        holders::followed(&self.keys, self.instance, &self.secret, (key, row), alone)
    }
}

/// A row of the old file as the new one has it.
fn renewed(tx: &Tx<'_>, doubled: &Doubled<'_>, (table, key, bytes): Row) -> Result<Row, StoreError> {
    let sealed = match table {
        DEKS => Some(doubled.holder(&key, &bytes, true)?),
        META => meta::resealed(tx, &key, &bytes)?,
        USERS => users::resealed(tx, &key, &bytes)?,
        CREDENTIALS => credentials::resealed(tx, &key, &bytes)?,
        SUBJECTS => subjects::resealed(tx, &key, &bytes)?,
        OAUTH_CLIENTS => grants::resealed(tx, &key, &bytes)?,
        MEMORIES | VERSIONS | EMBEDDINGS | ORDER => Some(memories::anew(tx, table, &key, &bytes)?),
        USER_LOOKUP => return Ok((table, users::looked_up(tx, &key, &bytes)?, bytes)),
        SUBJECT_LOOKUP => return Ok((table, subjects::looked_up(tx, &key, &bytes)?, bytes)),
        _ => None,
    };
    Ok((table, key, sealed.unwrap_or(bytes)))
}

/// The log goes on in the new file: what was done, and the handover to the new signing key, in one commit.
fn hand_over(copy: &Engine, old: &Keys, facts: &Facts, clock: &Clock, generation: u64) -> Result<(Checkpoint, (Vkey, Vkey)), EngineError> {
    let (now, new, log) = (clock.now(), copy.keys(), facts.checkpoint.log);
    let mut tail = Tail::load(&copy.snapshot()?, log, BootId::draw(), old).map_err(|_| EngineError::Damaged("the log"))?.0;
    let (before, after) = (vkey(log, old.signing().public()), vkey(log, new.signing().public()));
    let mut told = Entry::new("keys.all", Actor::SYSTEM);
    told.tenant = Some(facts.tenant);
    for detail in [
        Detail::Epoch(new.epoch().into()),
        Detail::File(facts.file),
        Detail::Generation(generation),
        Detail::Setting(Word::of("done")),
        Detail::Size(facts.checkpoint.size),
    ] {
        told.det.set(detail);
    }
    let mut handover = Entry::new(chain::OPERATION, Actor::SYSTEM);
    handover.tenant = Some(facts.tenant);
    chain::details(&before, &after).into_iter().for_each(|detail| handover.det.set(detail));
    let handed = copy.commit(|batch| {
        tail.append(batch, &mut told, clock, now)?;
        let entry = tail.append(batch, &mut handover, clock, now)?;
        batch.put(META, meta::SUPERBLOCK, &value(&generation))?;
        batch.put(META, meta::RENEWED, &value(&RenewedMark { from: facts.file, at: now, size: tail.size() }))?;
        tail.hand_over_to(batch, old.signing(), new.signing(), now, entry)
    });
    let (checkpoint, _) = handed.map_err(|(CommitError::Refused(error) | CommitError::Unknown(error))| error)?;
    Ok((checkpoint, (before, after)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::checkpoint::Anchor;
    use crate::crypto::aead::Aad;
    use crate::crypto::ladder::{FORMAT, WrappedDek};
    use crate::crypto::unlock::KdfCost;
    use crate::engine::Options;
    use crate::store::anchor;
    use crate::store::check::tests::{Folder, filled, found, rows};
    use crate::store::restore::facts;
    use crate::store::tables::erasures::Tombstone;
    use crate::store::tables::{AUDIT, CREDENTIAL_LOOKUP, OAUTH_TOKENS, TABLES, log, signers};
    use std::path::PathBuf;

    const OPTIONS: Options = Options { cache_bytes: 4 << 20, stride: 4608, tables: TABLES, kdf: KdfCost::FLOOR };

    struct Both {
        _folder: Folder,
        path: PathBuf,
        anchor: PathBuf,
        old: Engine,
        new: Engine,
        made: Renewed,
        before: Facts,
    }

    /// A store with some of everything, and what is made of it; under another KEK.
    fn both() -> Both {
        let (folder, engine) = filled();
        let (path, kept, anchor) = (folder.0.join("memory.db"), folder.0.join("memory.db.replaced"), folder.0.join("anchor"));
        let clock = Clock::system();
        let before = facts(&engine, &clock).unwrap();
        // Somebody who was erased, known to the list alone.
        let stone = Tombstone { tenant: before.tenant, kind: 2, holder: [9; 16], at: clock.now(), epoch: 1 };
        ledger::write(&ledger::path_beside(&anchor), engine.instance(), &engine.keys(), &[stone]).unwrap();
        anchor::write(&anchor, &engine, &engine.snapshot().unwrap(), before.checkpoint, 1).unwrap();
        drop(engine);
        let old = Engine::inspect(&path, &OPTIONS, &Kek::for_test(&[7; 32])).unwrap();
        let kek = Kek::for_test(&[8; 32]);
        let never = AtomicBool::new(false);
        let order = Order { path: &path, kept: &kept, kek: &kek, anchor: Some(&anchor), stop: &never, progress: &mut |_, _| {} };
        let made = anew(&old, &before, &clock, order).unwrap();
        let new = Engine::open(&path, &OPTIONS, &kek).unwrap();
        Both { _folder: folder, path, anchor, old, new, made, before }
    }

    fn texts(engine: &Engine) -> impl PartialEq + std::fmt::Debug + use<> {
        let (snapshot, common) = (engine.snapshot().unwrap(), Common::new(engine.instance()));
        let tx = Tx::new(&snapshot, engine.keys(), &common, Default::default(), true);
        memories::contents(&tx).unwrap()
    }

    #[test]
    fn everything_is_there_and_no_key_but_the_pepper_is_one_of_before() {
        let Both { old, new, made, path, .. } = &both();
        assert_eq!((found(new).listed, made.found.memories), (Vec::new(), 4));
        assert_eq!(texts(old), texts(new));
        let (old_keys, new_keys) = (old.keys(), new.keys());
        assert!(old_keys.pepper().matches(new_keys.pepper().expose()));
        assert!(!old_keys.block().matches(new_keys.block().expose()) && !old_keys.lookup().matches(new_keys.lookup().expose()));
        assert_ne!(old_keys.signing().public(), new_keys.signing().public());
        assert_eq!((new.instance(), new.generation()), (old.instance(), old.generation() + 1));
        assert_ne!(new.file(), old.file());
        // Every table has as many rows as before, but the log's; credentials and tokens are found by what they were found by.
        for (index, name) in (0..).zip(TABLES) {
            let count = |engine: &Engine| rows(engine, Table(index)).len();
            let grown = ["audit", "meta", "audit_keys", "checkpoints"].contains(name);
            assert!(if grown { count(new) >= count(old) } else { count(new) == count(old) }, "{name}");
        }
        for table in [CREDENTIAL_LOOKUP, OAUTH_TOKENS] {
            assert_eq!(rows(old, table), rows(new, table));
        }
        let lookups = |engine: &Engine| {
            rows(engine, USER_LOOKUP).into_iter().chain(rows(engine, SUBJECT_LOOKUP)).map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert!(lookups(new).iter().all(|key| !lookups(old).contains(key)));
        // The key of before, and the keys of before, open nothing of it: neither the file, nor a block, nor a holder's key.
        drop((old_keys, new_keys));
        let image = std::fs::read(path).unwrap();
        assert!(!image.windows(32).step_by(1).any(|bytes| bytes == old.keys().block().expose()));
        for (key, row) in rows(new, DEKS) {
            let aad = Aad::of("dek1", &[old.instance().bytes(), &key[..16], &key[16..17], &key[17..]]).number(2);
            let wrapped = WrappedDek { epoch: new.keys().epoch(), sealed: row[row.len() - 72..].to_vec() };
            assert!(new.keys().unwrap_dek(&wrapped, &aad).is_ok(), "this is where it lies");
            for epoch in [old.keys().epoch(), new.keys().epoch()] {
                assert!(old.keys().unwrap_dek(&WrappedDek { epoch, sealed: wrapped.sealed.clone() }, &aad).is_err());
            }
        }
        let mut opened = 0;
        for block in 1..=(image.len() as u64 - 40960) / 4608 {
            let at = usize::try_from(40960 + (block - 1) * 4608).unwrap();
            for file in [old.file(), new.file()] {
                let aad = Aad::of("rosemary", &[&FORMAT.to_le_bytes(), b"block", file.bytes()]).number(block);
                assert!(crate::crypto::aead::open(old.keys().block(), &aad, &image[at..at + 4136]).is_err());
                opened += usize::from(crate::crypto::aead::open(new.keys().block(), &aad, &image[at..at + 4136]).is_ok());
            }
        }
        assert!(opened > 10, "the scan sees the file");
        // Nor does the superblock of before, put into it, with the key that opened that.
        assert!(Engine::inspect(path, &OPTIONS, &Kek::for_test(&[7; 32])).is_err());
        let (mixed, kept) = (path.with_extension("mixed"), path.with_extension("db.replaced"));
        std::fs::write(&mixed, [&std::fs::read(kept).unwrap()[..8192], &image[8192..]].concat()).unwrap();
        assert!(Engine::inspect(&mixed, &OPTIONS, &Kek::for_test(&[7; 32])).is_err());
    }

    #[test]
    fn the_log_goes_on_and_its_old_key_leads_to_the_new_one() {
        let Both { old, new, made, before, .. } = &both();
        let snapshot = new.snapshot().unwrap();
        let log = before.checkpoint.log;
        assert_eq!((made.checkpoint.log, made.checkpoint.size), (log, before.checkpoint.size + 2));
        for (index, line) in rows(old, AUDIT) {
            assert_eq!(snapshot.get(AUDIT, &index).unwrap(), Some(line));
        }
        let links = signers::links(&snapshot, log, made.checkpoint.size).unwrap();
        let chain = chain::Chain::follow(&made.log_keys.0, &links).unwrap();
        assert_eq!(chain.newest(), &made.log_keys.1);
        let note = log::checkpoint_note(&snapshot).unwrap().unwrap();
        assert_eq!(chain.read(&note), Ok(made.checkpoint));
        let told = |index: u64| Entry::parse(&log::line(&snapshot, index).unwrap().unwrap()).unwrap();
        let entry = told(before.checkpoint.size);
        assert_eq!(entry.op.text(), "keys.all");
        assert!(entry.det.all().contains(&Detail::File(before.file)) && entry.det.all().contains(&Detail::Size(before.checkpoint.size)));
        let facts = facts(new, &Clock::system()).unwrap();
        assert_eq!(untouched(new, &facts).unwrap().unwrap().from, before.file);
    }

    #[test]
    fn the_anchor_and_the_list_of_erased_people_of_before_hold_until_they_are_written_anew() {
        let Both { old, new, anchor, before, .. } = &both();
        let (snapshot, log, list) = (new.snapshot().unwrap(), before.checkpoint.log, ledger::path_beside(anchor));
        let check = || anchor::check(anchor, new, &snapshot, log, before.checkpoint.size + 2);
        assert!(check().is_ok());
        let read = |engine: &Engine| ledger::read(&list, engine.instance(), &engine.keys());
        assert_eq!((read(old).unwrap().unwrap().len(), read(new).unwrap().unwrap().len()), (1, 1), "each reads its own");
        ledger::settle(&list, new.instance(), &new.keys()).unwrap();
        assert!(read(old).is_err() && check().is_ok());
        ledger::settle(&list, new.instance(), &new.keys()).unwrap();
        // Whoever holds the old signing key cannot anchor the new file.
        let text = anchor::read(anchor).unwrap();
        let seen = Anchor::claimed(&text).unwrap();
        let forged = Anchor { checkpoint: Checkpoint { size: before.checkpoint.size + 2, ..seen.checkpoint }, ..seen };
        std::fs::write(anchor, forged.note(old.keys().signing())).unwrap();
        assert!(check().is_err());
        std::fs::remove_file(&list).unwrap();
        std::fs::write(anchor, text).unwrap();
        assert!(check().is_err(), "without the list somebody who was erased is forgotten");
    }

    #[test]
    fn a_row_that_does_not_open_or_a_stop_leaves_the_file_as_it_was() {
        let (folder, engine) = filled();
        let path = folder.0.join("memory.db");
        let (key, mut row) = rows(&engine, MEMORIES).remove(0);
        *row.last_mut().unwrap() ^= 1;
        engine.commit(|batch| batch.put(MEMORIES, &key, &row)).unwrap();
        drop(engine);
        let before = std::fs::read(&path).unwrap();
        let kek = Kek::for_test(&[7; 32]);
        let old = Engine::inspect(&path, &OPTIONS, &kek).unwrap();
        let facts = facts(&old, &Clock::system()).unwrap();
        for stop in [false, true] {
            let (stop, kept) = (AtomicBool::new(stop), folder.0.join("kept"));
            let order = Order { path: &path, kept: &kept, kek: &kek, anchor: None, stop: &stop, progress: &mut |_, _| {} };
            assert!(anew(&old, &facts, &Clock::system(), order).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), before);
            assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
        }
    }
}
