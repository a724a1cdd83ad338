//! The check of what the tables mean: every row against its indexes and every index against its rows, every sealed field, and the audit log
//! against its tree. It changes nothing and works on any snapshot, of a stopped file ([`check`]) or of a store that serves ([`Vault::check`]).
//!
//! Promise: no finding means that every row opens under its keys and is found by every way that leads to it, that nothing leads to what is
//! not there, that counts agree, and that the log is the one its last checkpoint, and every kept one, signed. Blocks and pages are below:
//! [`Engine::check`](crate::engine::Engine::check).
//!
//! Findings name a table and a row by its key (ids, times, keyed hashes), never what the row says. The first
//! [`limits::CHECK_LISTED_MAX`] are kept, all are counted.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::audit::checkpoint::Checkpoint;
use crate::audit::note::Vkey;
use crate::audit::{Appender, Entry, leaf_hash};
use crate::base::id::{InstanceId, TenantId};
use crate::base::time::Timestamp;
use crate::base::{hex, limits};
use crate::crypto::ladder::Keys;
use crate::engine::{Engine, EngineError, Read, Table};
use crate::store::incident;
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::meta::{self, InstanceRow};
use crate::store::tables::usage::Meter;
use crate::store::tables::{
    AUDIT, AUDIT_KEYS, AUDIT_TILES, BACKUPS, CHECKPOINTS, CHILDREN, COUNTS, CREDENTIAL_LOOKUP, CREDENTIALS, DEKS, EMBEDDINGS, ERASURES,
    MEMORIES, META, OAUTH_CLIENTS, OAUTH_GRANTS, OAUTH_SPENT, OAUTH_TOKENS, ORDER, PAST_LOGS, SUBJECT_LOOKUP, SUBJECTS, TABLES, TOMBSTONES,
    USAGE, USER_LOOKUP, USERS, VERSIONS, backups, credentials, erasures, grants, key, log, memories, past, signers, subjects, usage, users,
};
use crate::store::tx::{Common, StoreError, Tx};
use crate::store::vault::Vault;

/// What is wrong with one row.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub table: &'static str,
    /// The row's key in hex, or nothing where a row is missing altogether.
    pub key: String,
    /// What.
    pub what: String,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Rows looked at.
    pub rows: u64,
    /// Memories among them.
    pub memories: u64,
    /// The log that was checked: its checkpoint, as signed.
    pub checkpoint: Option<Checkpoint>,
    /// How many findings there are.
    pub count: u64,
    /// The first of them.
    pub listed: Vec<Finding>,
}

/// Why a row does not pass.
pub(in crate::store) enum Fault {
    /// It cannot be read or opened.
    Store(StoreError),
    /// It says something that is not so.
    Wrong(&'static str),
}

impl<E: Into<StoreError>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

/// `what` is wrong unless `holds`.
pub(in crate::store) fn ensure(holds: bool, what: &'static str) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::Wrong(what)) }
}

impl Vault {
    /// Checks what readers see now, while the service runs.
    ///
    /// Errors: the store cannot be read.
    pub fn check(&self, progress: &mut dyn FnMut(&'static str, u64)) -> Result<Findings, EngineError> {
        let published = self.published().map_err(|_| EngineError::Latched)?;
        check(&published.snapshot, self.keys(), self.common().instance, self.clock().now(), progress)
    }
}

/// Checks every row that `reader` shows. `progress` is told the table and how many rows are done.
///
/// Errors: the engine's; a row that is wrong is a finding, not an error.
pub fn check(
    reader: &dyn Read,
    keys: Arc<Keys>,
    instance: InstanceId,
    now: Timestamp,
    progress: &mut dyn FnMut(&'static str, u64),
) -> Result<Findings, EngineError> {
    let common = Common::new(instance);
    let tx = Tx::new(reader, keys, &common, now, true);
    let mut walk = Walk { tx: &tx, found: Findings::default(), progress };
    match meta::instance(&tx) {
        Ok(Some(instance)) => walk.all(&instance)?,
        Ok(None) => walk.finding(META, None, "the instance's row is missing"),
        Err(StoreError::Engine(error)) => return Err(error),
        Err(error) => walk.finding(META, None, error.to_string()),
    }
    Ok(walk.found)
}

/// The public key of the file's log: what an auditor needs beside an export.
pub fn log_key(engine: &Engine) -> Result<Vkey, StoreError> {
    let common = Common::new(engine.instance());
    let snapshot = engine.snapshot()?;
    let tx = Tx::new(&snapshot, engine.keys(), &common, Timestamp::default(), true);
    let instance = meta::instance(&tx)?.ok_or(StoreError::Missing("meta"))?;
    signers::newest(&snapshot, &engine.keys(), instance.log)
}

struct Walk<'w, 't> {
    tx: &'w Tx<'t>,
    found: Findings,
    progress: &'w mut dyn FnMut(&'static str, u64),
}

impl Walk<'_, '_> {
    fn all(&mut self, instance: &InstanceRow) -> Result<(), EngineError> {
        let tenant = instance.tenant;
        self.each(META, |tx, key, _| match key {
            b"instance" => {
                holders::open(tx, tenant, Holder::Tenant, "label", tenant.bytes(), &instance.label)?;
                ensure(users::get(tx, tenant, instance.owner)?.is_some(), "the owner has no row")
            }
            meta::SUPERBLOCK => meta::generation(tx).map(drop).map_err(Fault::from),
            meta::REWRAP => {
                ensure(meta::rewrapping(tx)?.is_some_and(|epoch| epoch <= tx.keys.epoch()), "re-wrapping from an epoch that never was")
            }
            incident::ROW => Ok(incident::known(tx).map(drop)?),
            meta::RENEWAL => Ok(meta::renewal(tx).map(drop)?),
            meta::BACKUP => Ok(meta::fact::<meta::BackupMark>(tx, key).map(drop)?),
            meta::RESTORED => Ok(meta::fact::<meta::RestoredMark>(tx, key).map(drop)?),
            meta::ASKED => Ok(meta::fact::<Timestamp>(tx, key).map(drop)?),
            meta::RENEWED => Ok(meta::fact::<meta::RenewedMark>(tx, key).map(drop)?),
            meta::DRILL => Ok(meta::fact::<meta::DrillRow>(tx, key).map(drop)?),
            _ => ensure(key == log::CHECKPOINT, "a name that this program does not know"),
        })?;
        self.each(DEKS, |tx, key, row| holders::check(tx, tenant, key, row))?;
        self.each(USERS, |tx, key, _| users::check(tx, tenant, key))?;
        self.each(USER_LOOKUP, |tx, key, row| users::check_lookup(tx, tenant, key, row))?;
        self.each(CREDENTIALS, |tx, key, row| credentials::check(tx, tenant, key, row))?;
        self.each(CREDENTIAL_LOOKUP, credentials::check_lookup)?;
        self.each(OAUTH_CLIENTS, |tx, key, _| grants::check_client(tx, tenant, key))?;
        self.each(OAUTH_GRANTS, |tx, key, row| grants::check_grant(tx, tenant, key, row))?;
        self.each(OAUTH_TOKENS, grants::check_token)?;
        self.each(OAUTH_SPENT, |tx, key, row| grants::check_spent(tx, tenant, key, row))?;
        self.each(SUBJECTS, |tx, key, _| subjects::check(tx, tenant, key))?;
        self.each(SUBJECT_LOOKUP, |tx, key, row| subjects::check_lookup(tx, tenant, key, row))?;
        self.each(ERASURES, |tx, key, row| erasures::check(tx, tenant, key, row))?;
        self.each(TOMBSTONES, erasures::check_tombstone)?;
        self.each(BACKUPS, |_, key, row| backups::check(key, row))?;
        self.memories(tenant)?;
        let mut told = Meter::default();
        self.log(instance, &mut told)?;
        self.past_logs(&mut told)?;
        let running = instance.log;
        self.each(AUDIT_KEYS, |tx, key, row| signers::check(tx, running, key, row))?;
        self.usage(tenant, told)
    }

    /// What people used, against what the entries tell.
    fn usage(&mut self, tenant: TenantId, mut told: Meter) -> Result<(), EngineError> {
        self.each(USAGE, |tx, key, row| usage::check(tx, tenant, key, row, &mut told))?;
        match told.left(self.tx, tenant) {
            Ok(left) => left.iter().for_each(|key| self.finding(USAGE, Some(key), "the count of uses that the entries tell of is missing")),
            Err(StoreError::Engine(error)) => return Err(error),
            Err(error) => self.finding(USAGE, None, error.to_string()),
        }
        Ok(())
    }

    /// The logs before the last restore.
    fn past_logs(&mut self, told: &mut Meter) -> Result<(), EngineError> {
        let (tx, mut done, mut there) = (self.tx, 0, 0);
        match past::all(tx) {
            Err(StoreError::Engine(error)) => return Err(error),
            Err(error) => self.finding(PAST_LOGS, None, error.to_string()),
            Ok(logs) => {
                for (log, note) in logs {
                    match past::check(tx, log, &note, told) {
                        Ok(rows) => done += rows,
                        Err(Fault::Store(StoreError::Engine(error))) => return Err(error),
                        Err(Fault::Store(error)) => self.finding(PAST_LOGS, Some(log.bytes()), error.to_string()),
                        Err(Fault::Wrong(what)) => self.finding(PAST_LOGS, Some(log.bytes()), what),
                    }
                }
            }
        }
        self.each(PAST_LOGS, |_, _, _| {
            there += 1;
            Ok(())
        })?;
        if self.found.count == 0 && there != done {
            self.finding(PAST_LOGS, None, "rows that belong to no log");
        }
        Ok(())
    }

    fn memories(&mut self, tenant: TenantId) -> Result<(), EngineError> {
        let (mut counts, mut memories) = (HashMap::new(), 0);
        self.each(MEMORIES, |tx, key, row| {
            memories += 1;
            memories::check::memory(tx, tenant, key, row, &mut counts)
        })?;
        self.found.memories = memories;
        self.each(ORDER, memories::check::order)?;
        self.each(CHILDREN, |tx, key, _| memories::check::child(tx, key))?;
        self.each(VERSIONS, |tx, key, _| memories::check::version(tx, key))?;
        self.each(EMBEDDINGS, |tx, key, row| memories::check::embedding(tx, key, row, &mut counts))?;
        self.each(COUNTS, |_, key, row| {
            let counted = counts.remove(key).unwrap_or(0_u64);
            ensure(row == counted.to_le_bytes(), "the count is not that of the rows")
        })?;
        for missing in counts.keys() {
            self.finding(COUNTS, Some(missing), "the count of rows that are there is missing");
        }
        Ok(())
    }

    /// Every line, leaf and tile, in order, up to the signed end.
    fn log(&mut self, instance: &InstanceRow, told: &mut Meter) -> Result<(), EngineError> {
        let tx = self.tx;
        let signed_by_its_key = |note: &str| signers::checkpoint(tx.reader, &tx.keys, instance.log, note).ok();
        let note = match log::checkpoint_note(tx.reader) {
            Err(StoreError::Engine(error)) => return Err(error),
            other => other.ok().flatten(),
        };
        let signed = note.and_then(|note| signed_by_its_key(&note));
        if signed.is_none() {
            self.finding(META, Some(log::CHECKPOINT), "not a checkpoint that this log's key signed");
        }
        self.found.checkpoint = signed;
        let mut kept = HashMap::new();
        self.each(CHECKPOINTS, |_, key, row| {
            let checkpoint = std::str::from_utf8(row).ok().and_then(signed_by_its_key);
            let checkpoint = checkpoint.ok_or(Fault::Wrong("not a checkpoint that this log's key signed"))?;
            ensure(key == checkpoint.size.to_be_bytes(), "a checkpoint of another size")?;
            kept.insert(checkpoint.size, checkpoint.root);
            Ok(())
        })?;
        let (mut appender, mut full, mut tiles, mut gap) = (Appender::new(), Vec::new(), 0_u64, false);
        let first = usage::first(tx, instance.log).unwrap_or(u64::MAX);
        self.each(AUDIT, |tx, row_key, line| {
            let index = appender.size();
            if gap {
                // Behind a gap no leaf has its place; that is one finding.
                return Ok(());
            }
            gap = row_key != index.to_be_bytes();
            ensure(!gap, "an entry before it is missing")?;
            appender.append(leaf_hash(line), &mut full);
            let mut verdict = match std::str::from_utf8(line).map(Entry::parse) {
                Ok(Ok(entry)) => {
                    if index >= first {
                        told.count(&entry, entry.t);
                    }
                    ensure(entry.i == index, "the entry names another index")
                }
                _ => Err(Fault::Wrong("not a canonical entry")),
            };
            for tile in full.drain(..) {
                tiles += 1;
                let stored = tx.get(AUDIT_TILES, &key(&[&[tile.level], &tile.index.to_be_bytes()]))?;
                verdict =
                    verdict.and(ensure(stored.as_ref() == Some(&tile.bytes), "the stored tile that ends here is not that of the entries"));
            }
            if let Some(root) = kept.remove(&appender.size()) {
                verdict = verdict.and(ensure(root == appender.root(), "a kept checkpoint signed another log up to here"));
            }
            verdict
        })?;
        let mut stored_tiles = 0_u64;
        self.each(AUDIT_TILES, |_, _, _| {
            stored_tiles += 1;
            Ok(())
        })?;
        let end = signed.map(|signed| (signed.size, signed.root));
        let problems = [
            (
                AUDIT,
                end.is_some_and(|(size, _)| size != appender.size()),
                "entries are missing or too many: not as many as the checkpoint signed",
            ),
            (AUDIT, end.is_some_and(|(_, root)| root != appender.root()), "the entries are not those that the checkpoint signed"),
            (AUDIT_TILES, stored_tiles != tiles, "there are tiles of entries that are not there"),
            (CHECKPOINTS, !kept.is_empty(), "a kept checkpoint is of a longer log: entries were cut off"),
        ];
        for (table, _, what) in problems.into_iter().filter(|(_, wrong, _)| *wrong) {
            self.finding(table, None, what);
        }
        Ok(())
    }

    /// Looks at every row of `table`; what is wrong with one is a finding, a failure of the file ends the check.
    fn each(&mut self, table: Table, mut look: impl FnMut(&Tx<'_>, &[u8], &[u8]) -> Result<(), Fault>) -> Result<(), EngineError> {
        let tx = self.tx;
        let mut done = 0;
        for item in tx.reader.range(table, Bound::Unbounded, Bound::Unbounded)? {
            let (key, row) = item?;
            match look(tx, &key, &row) {
                Ok(()) => {}
                Err(Fault::Store(StoreError::Engine(error))) => return Err(error),
                Err(Fault::Store(error)) => self.finding(table, Some(&key), error.to_string()),
                Err(Fault::Wrong(what)) => self.finding(table, Some(&key), what),
            }
            done += 1;
            (self.progress)(TABLES[usize::from(table.0)], done);
        }
        self.found.rows += done;
        Ok(())
    }

    fn finding(&mut self, table: Table, key: Option<&[u8]>, what: impl Into<String>) {
        self.found.count += 1;
        if self.found.listed.len() < limits::CHECK_LISTED_MAX {
            let key = key.map_or(String::new(), hex::encode);
            self.found.listed.push(Finding { table: TABLES[usize::from(table.0)], key, what: what.into() });
        }
    }
}

#[cfg(test)]
pub(in crate::store) mod tests {
    use super::*;
    use crate::audit::Reason;
    use crate::authn::oauth::{self, ClientId};
    use crate::authn::{Principal, Vendor};
    use crate::base::id::MemoryId;
    use crate::base::time::Clock;
    use crate::crypto::unlock::{KdfCost, Kek};
    use crate::embed::Model;
    use crate::engine::Options;
    use crate::policy::action::{
        ConsentToClient, CreateKey, ExportMemories, ImportMemories, Instance, IssueTokens, ListMemories, Person, ReadEmbeddings,
        RefreshTokens, Scope,
    };
    use crate::store::accounts;
    use crate::store::embedder;
    use crate::store::gate::{self, Admission, Call, Failed};
    use crate::store::grants;
    use crate::store::memories::{Imported, MemoryType, NewMemory, State, Text};
    use crate::store::phi::Phi;
    use crate::store::tables::usage::UsageRow;
    use crate::store::tx;
    use crate::store::vault::{self, Settings, Store};

    /// What no work of these tests may meet.
    #[derive(Debug)]
    struct Oops;

    impl From<StoreError> for Oops {
        fn from(_: StoreError) -> Self {
            Self
        }
    }

    impl gate::Fault for Oops {
        fn audit(&self) -> (Reason, u16) {
            (Reason::WorkFailed, 500)
        }
    }

    /// Removed when dropped.
    pub struct Folder(pub std::path::PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn record(id: MemoryId, parent: Option<MemoryId>, subject: &str, trashed: bool, now: Timestamp) -> Imported {
        let phi = |text: &str| Phi::new(text.to_owned());
        let text = Text {
            title: phi("a title"),
            content: phi("words"),
            tags: vec![phi("tag")],
            metadata: Some(phi("{\"a\":1}")),
            speaker: Some(phi("somebody")),
            run_id: Some(phi("run")),
            subject: Some(phi(subject)),
        };
        let new = NewMemory {
            text,
            origin: "test".into(),
            allowed_vendors: vec!["one".into(), "two".into()],
            kind: MemoryType::Semantic,
            occurred_at: Some(now),
            created_at: Some(now),
            prepared: None,
        };
        Imported { id, parent, new, updated_at: None, deleted_at: trashed.then_some(now) }
    }

    /// A store with some of everything, stopped, and its engine.
    pub fn filled() -> (Folder, Engine) {
        let folder = Folder(std::env::temp_dir().join(format!("rosemary-check-{}", hex::encode(&crate::base::rng::array::<8>()))));
        std::fs::create_dir(&folder.0).unwrap();
        let options = Options { cache_bytes: 4 << 20, stride: 4608, tables: TABLES, kdf: KdfCost::FLOOR };
        let (path, kek) = (folder.0.join("memory.db"), Kek::for_test(&[7; 32]));
        let engine = Engine::create(&path, &options, &kek).unwrap();
        vault::initialise(&engine, "label", "owner@example.org", &Clock::system()).unwrap();
        let settings = Settings {
            label: "label".into(),
            owner_email: "owner@example.org".into(),
            static_keys: Vec::new(),
            sign_in: Default::default(),
            index_bytes: 1 << 20,
            memories_max: None,
            anchor: None,
            model: Some(Arc::new(Model::read(include_bytes!("../../tests/vectors/embedding/tiny.model")).unwrap())),
            clock: Clock::system(),
            fatal: Box::new(|| {}),
        };
        let store = Store::open(engine, settings).unwrap();
        let vault = store.vault().clone();
        let who = Principal::system(vault.tenant(), vault.owner(), "console");
        let scope = Scope { tenant: vault.tenant(), owner: vault.owner() };
        let now = vault.clock().now();
        let ids = [(); 4].map(|()| MemoryId::draw(now));
        let records = vec![
            record(ids[0], None, "first", false, now),
            record(ids[1], Some(ids[0]), "first", false, now),
            record(ids[2], None, "second", true, now),
            record(ids[3], None, "second", false, now),
        ];
        let imported = vault.write::<ImportMemories, _, Oops>(&who, scope, &Call::internal(), |a| {
            Ok(records.into_iter().try_for_each(|record| memories::import(a, record))?)
        });
        imported.unwrap();
        let (verifier, owner) = (vault.verifier("key"), Person(vault.owner()));
        let key = vault.write::<CreateKey, _, Oops>(&who, owner, &Call::internal(), move |a| {
            Ok(accounts::insert_key(a, &verifier, "prefix", &Phi::new("label".into()))?)
        });
        key.unwrap();
        // A use that counts.
        let Admission::Principal(person, _) = vault.admit("key").unwrap() else { panic!("the key is good") };
        let listed = vault.read::<ListMemories, _, Oops>(&person, scope, &Call::internal(), |a| {
            a.count(2);
            Ok(())
        });
        listed.unwrap();
        // A grant whose tokens were renewed once.
        let client =
            grants::Client { id: ClientId::draw(), secret: None, name: "client".into(), redirect_uris: vec!["https://a.example/".into()] };
        let (id, call) = (client.id, Call::internal());
        vault.write::<ConsentToClient, _, _>(&person, owner, &call, move |a| grants::consent(a, &client, "oauth")).unwrap();
        let agent = Principal::of_consent(&person, Vendor::parse("oauth").unwrap());
        let (tokens, drawn) = grants::draw(&vault);
        vault.write::<IssueTokens, _, _>(&agent, owner, &call, move |a| grants::issue(a, id, oauth::Scope { write: true }, drawn)).unwrap();
        let held = vault.held(tokens.refresh.expose()).unwrap().unwrap();
        let (shown, (_, drawn)) = (vault.verifier(tokens.refresh.expose()), grants::draw(&vault));
        vault.write::<RefreshTokens, _, _>(&held.who, owner, &call, move |a| grants::refresh(a, shown, drawn)).unwrap();
        // Vectors of what is not in the trash.
        let standing = || {
            let standing = vault.read::<ReadEmbeddings, _, Failed>(&who, Instance, &Call::internal(), embedder::standing).unwrap();
            standing.into_parts().0.unwrap().progress
        };
        while standing().embedded < 3 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(standing().live, 3);
        // A log that was handed over.
        vault.rotate_audit_key(&who).unwrap();
        assert!(vault.rotation_done(std::time::Duration::from_secs(60), |_| true));
        // Enough entries for a full tile, and more behind it.
        for _ in 0..300 {
            vault.read::<ExportMemories, _, Oops>(&who, scope, &Call::internal(), |a| Ok(memories::total(a, State::Live)?)).unwrap();
        }
        let online = vault.check(&mut |_, _| {}).unwrap();
        assert_eq!((online.count, online.memories), (0, 4), "{:?}", online.listed);
        drop(vault);
        store.stop();
        (folder, Engine::open(&path, &options, &kek).unwrap())
    }

    pub fn found(engine: &Engine) -> Findings {
        let snapshot = engine.snapshot().unwrap();
        check(&snapshot, engine.keys(), engine.instance(), Clock::system().now(), &mut |_, _| {}).unwrap()
    }

    /// Key and value.
    pub type Row = (Vec<u8>, Vec<u8>);

    pub fn rows(engine: &Engine, table: Table) -> Vec<Row> {
        engine.snapshot().unwrap().range(table, Bound::Unbounded, Bound::Unbounded).unwrap().map(Result::unwrap).collect()
    }

    /// Sets a row (or removes it), checks, and puts things back.
    fn attack(engine: &Engine, table: Table, key: &[u8], to: Option<&[u8]>) -> Findings {
        let before = engine.snapshot().unwrap().get(table, key).unwrap();
        let set = |value: Option<&[u8]>| {
            let set = engine.commit(|batch| match value {
                Some(value) => batch.put(table, key, value),
                None => batch.delete(table, key).map(drop),
            });
            assert!(set.is_ok());
        };
        set(to);
        let found = found(engine);
        set(before.as_deref());
        found
    }

    #[test]
    fn a_row_missing_from_any_table_is_found() {
        let (_folder, engine) = filled();
        assert_eq!(found(&engine).count, 0, "{:?}", found(&engine).listed);
        for (index, name) in (0..).zip(TABLES) {
            let (table, all) = (Table(index), rows(&engine, Table(index)));
            // What backups, restores and erasures write has its test there.
            assert!(
                !all.is_empty() || [VERSIONS, BACKUPS, PAST_LOGS, ERASURES, TOMBSTONES].contains(&table),
                "{name} is empty: the test proves nothing of it"
            );
            // That a checkpoint was kept is known by itself alone, and so is of which superblock the data know.
            let alone = |key: &[u8]| table == CHECKPOINTS || table == META && key == meta::SUPERBLOCK;
            for (key, _) in all.iter().take(3).chain(all.last()).filter(|(key, _)| !alone(key)) {
                assert!(attack(&engine, table, key, None).count > 0, "{name} {}", hex::encode(key));
            }
        }
        assert_eq!(found(&engine).count, 0, "everything was put back");
    }

    #[test]
    fn a_forged_row_is_found_and_named() {
        let (_folder, engine) = filled();
        let named = |table: Table, key: &[u8], to: &[u8]| {
            let found = attack(&engine, table, key, Some(to));
            let name = TABLES[usize::from(table.0)];
            assert!(found.listed.iter().any(|finding| finding.table == name), "{name}: {:?}", found.listed);
        };
        let (count, _) = &rows(&engine, COUNTS)[0];
        named(COUNTS, count, &9_u64.to_le_bytes());
        let used = rows(&engine, USAGE).into_iter().find(|(key, _)| key.len() > 16).unwrap();
        named(USAGE, &used.0, &tx::value(&UsageRow { reads: 2, ..UsageRow::default() }));
        let mut stranger = used.0.clone();
        stranger[20] ^= 1;
        named(USAGE, &stranger, &used.1);
        let (order, _) = &rows(&engine, ORDER)[0];
        let mut elsewhere = order.clone();
        elsewhere[40] ^= 1;
        named(ORDER, &elsewhere, &[0; 16]);
        for table in [SUBJECT_LOOKUP, CREDENTIAL_LOOKUP, USER_LOOKUP] {
            let (key, value) = rows(&engine, table).remove(0);
            let mut forged = key.clone();
            *forged.last_mut().unwrap() ^= 1;
            named(table, &forged, &value);
        }
        let (memory, mut row) = rows(&engine, MEMORIES).remove(0);
        *row.last_mut().unwrap() ^= 1;
        named(MEMORIES, &memory, &row);
        let subjects = rows(&engine, SUBJECTS);
        named(SUBJECTS, &subjects[0].0, &subjects[1].1);
        let deks = rows(&engine, DEKS);
        named(DEKS, &deks[0].0, &deks[1].1);
        let vectors = rows(&engine, EMBEDDINGS);
        named(EMBEDDINGS, &vectors[0].0, &vectors[1].1);
        named(META, b"stranger", b"");
        named(VERSIONS, &key(&[&memory, &1_u32.to_be_bytes()]), b"");
        let (child, _) = rows(&engine, CHILDREN).remove(0);
        let mut stranger = child.clone();
        *stranger.last_mut().unwrap() ^= 1;
        named(CHILDREN, &stranger, b"");
    }

    #[test]
    fn a_log_that_was_changed_is_found() {
        let (_folder, engine) = filled();
        let lines = rows(&engine, AUDIT);
        assert!(lines.len() > 300);
        let last = lines.len() - 1;
        for at in [0, 17, 255, 256, last] {
            let (key, line) = &lines[at];
            // Another valid entry in its place, an invalid one, none.
            let other = String::from_utf8(line.clone()).unwrap().replacen("\"mono_ms\":", "\"mono_ms\":1", 1);
            assert!(attack(&engine, AUDIT, key, Some(other.as_bytes())).count > 0, "changed {at}");
            assert!(attack(&engine, AUDIT, key, Some(b"{}")).count > 0, "invalid {at}");
            assert!(attack(&engine, AUDIT, key, None).count > 0, "dropped {at}");
        }
        let next = u64::try_from(lines.len()).unwrap();
        let mut entry = Entry::parse(std::str::from_utf8(&lines[last].1).unwrap()).unwrap();
        entry.i = next;
        assert!(attack(&engine, AUDIT, &next.to_be_bytes(), Some(entry.line().as_bytes())).count > 0, "added");
        let (tile, mut hashes) = rows(&engine, AUDIT_TILES).remove(0);
        hashes[100] ^= 1;
        assert!(attack(&engine, AUDIT_TILES, &tile, Some(&hashes)).count > 0, "tile");
        assert!(attack(&engine, AUDIT_TILES, &[7; 9], Some(&hashes)).count > 0, "stranger's tile");
        let (_, kept) = rows(&engine, CHECKPOINTS).remove(0);
        assert!(attack(&engine, META, log::CHECKPOINT, Some(&kept)).count > 0, "an older checkpoint");
        let longer = Checkpoint { size: next + 5, ..found(&engine).checkpoint.unwrap() };
        let note = longer.note(engine.keys().signing());
        assert!(attack(&engine, CHECKPOINTS, &longer.size.to_be_bytes(), Some(note.as_bytes())).count > 0, "entries cut off");
    }
}
