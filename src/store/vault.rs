//! The vault: one open store with its threads. Clones share it; `gate` is how it is used.
//!
//! Threads: the writer, and the one that answers after it; the keeper, which writes the anchor, ends the windows of counted refusals and
//! rouses the writer where another thread met a fault; the indexer, which builds search indexes when a scope is first asked for, and the one that takes what is committed into them; the rotator; with a
//! model, the embedder, which makes vectors.
//!
//! Invariants
//! - Nothing is published before its log agrees with its checkpoint, and with the anchor where one is configured.
//! - While the store is shut after a failure nothing is published, so nothing is read.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::audit::checkpoint::Checkpoint;
use crate::audit::note::Vkey;
use crate::audit::{Actor, Coalescer, Emit, Entry, Outcome, Reason, Resource, Who, Word};
use crate::authn::credential::{SettingId, StaticKeys, Verifier};
use crate::authn::{CredentialRef, Principal, Vendor};
use crate::base::id::{BootId, FileId, LogId, OperationId, TenantId, UserId};
use crate::base::time::{Clock, Timestamp};
use crate::base::{limits, log};
use crate::crypto::ladder::Keys;
use crate::crypto::secret::Secret;
use crate::embed::Model;
use crate::engine::{CommitError, Engine, EngineError, Read, Snapshot, Space};
use crate::policy::action::Scope;
use crate::store::anchor::{self, AnchorError};
use crate::store::answers;
use crate::store::embedder::{self, Unembedded};
use crate::store::events::{Hub, Subscription};
use crate::store::gate::{Call, audit_credential};
use crate::store::index::indexes::Indexes;
use crate::store::indexer;
use crate::store::ledger;
use crate::store::migrate;
use crate::store::queue::{Asker, Queue, Request, Ticket, Told, Work};
use crate::store::rotator::{self, Rotation};
use crate::store::standing::Standing;
use crate::store::stopwatch;
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::log::{LogError, Tail};
use crate::store::tables::meta::{self, InstanceRow};
use crate::store::tables::{log as log_table, signers, users};
use crate::store::turns::Turns;
use crate::store::tx::{Common, StoreError, Tx};
use crate::store::writer::{Ended, Job, Settled, Unavailable, Writer};

/// What the store needs from the configuration.
pub struct Settings {
    /// `RM_TENANT_ID`.
    pub label: String,
    /// `RM_OWNER_EMAIL`, lower case.
    pub owner_email: String,
    /// Static keys: the variable's name, the vendor of an agent key, the key.
    pub static_keys: Vec<(String, Option<Vendor>, Secret<String>)>,
    /// Who signs in otherwise than by a key, and who administrates.
    pub sign_in: SignIn,
    /// Bytes that all search indexes together may take.
    pub index_bytes: usize,
    /// `RM_SANDBOX_MEMORY_CAP`.
    pub memories_max: Option<u64>,
    /// `RM_ANCHOR_FILE`.
    pub anchor: Option<PathBuf>,
    /// What embeds memories and queries; without one, search is lexical.
    pub model: Option<Arc<Model>>,
    /// The clock.
    pub clock: Clock,
    /// Called when the store cannot be recovered: must end the process.
    pub fatal: Box<dyn Fn() + Send + Sync>,
}

/// Who signs in otherwise than by a key, and who administrates.
pub struct SignIn {
    /// `RM_DASHBOARD_SERVICE_KEY` and `RM_DASHBOARD_JWT_SECRET`.
    pub dashboard: Option<(Secret<String>, Secret<String>)>,
    /// `RM_OWNER_EMAILS`, lower case.
    pub admins: Vec<String>,
    /// `RM_MAX_SEATS`; 0 = no bound.
    pub seats_max: u32,
    /// `RM_OAUTH_GRANT_DAYS`.
    pub grant_days: u32,
}

impl Default for SignIn {
    fn default() -> Self {
        Self { dashboard: None, admins: Vec::new(), seats_max: 0, grant_days: limits::OAUTH_GRANT_DAYS }
    }
}

/// Why a store did not open. Each names what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log is damaged.
    #[error("{0}; keep the file as evidence and restore a backup")]
    Log(LogError),
    /// The file is not finished.
    #[error("the data file was never initialised; remove it and run `rosemary init`")]
    NotInitialised,
    /// Tables of a later version.
    #[error(
        "the data file's tables have version {found}, newer than this program's {known}; use the version that wrote it, or a later one"
    )]
    NewerTables {
        /// Found in the file.
        found: u32,
        /// Known here.
        known: u32,
    },
    /// Somebody put an older superblock into the file.
    #[error(
        "the superblock has generation {found}, and the data was last written under {recorded}: an older copy of it was put back. \
         Put the right file back, or restore a backup"
    )]
    OlderSuperblock {
        /// Of the file.
        found: u64,
        /// Known to the data.
        recorded: u64,
    },
    /// A backup, not a data file.
    #[error("this is a backup, not a data file to run: restore it with `rosemary restore`")]
    Backup,
    /// The configured label is not the file's.
    #[error("RM_TENANT_ID: this data file belongs to another tenant; set the label it was made with")]
    OtherTenant,
    /// The anchor.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// Somebody who was erased is in this copy of the data, and could not be erased from it.
    #[error("holders that were erased are in this older copy of the data, and erasing them again failed: {0}")]
    Erasing(String),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Store(error) => error.into(),
            other => Self::Log(other),
        }
    }
}

/// The log as of the last commit.
#[derive(Clone, Debug)]
pub struct Head {
    /// Size and root.
    pub checkpoint: Checkpoint,
    /// As a signed note.
    pub note: String,
}

/// What readers see.
#[derive(Debug)]
pub struct Published {
    /// The data.
    pub snapshot: Snapshot,
    /// Number of the commit since start.
    pub seq: u64,
    /// Changes whenever credentials do.
    pub generation: u64,
    /// The log.
    pub head: Head,
}

struct Inner {
    engine: Engine,
    common: Common,
    tenant: TenantId,
    owner: UserId,
    log: LogId,
    boot: BootId,
    clock: Clock,
    static_keys: StaticKeys,
    standing: Standing,
    /// The dashboard's key, and the secret that it signs with.
    dashboard: Option<(StaticKeys, Secret<String>)>,
    admins: Vec<UserId>,
    seats_max: u32,
    grant_life: Duration,
    indexes: Indexes,
    turns: Turns,
    published: RwLock<Option<Arc<Published>>>,
    queue: Queue,
    index_requests: SyncSender<Option<Scope>>,
    refusals: Mutex<Coalescer>,
    unknown: Mutex<HashMap<OperationId, (Asker, Settled)>>,
    refused_while_shut: AtomicU64,
    /// Requests refused because the queue was full, of which no entry tells yet.
    refused_full: AtomicU64,
    stopping: AtomicBool,
    /// Whether somebody makes the backups that are asked for.
    upkeep: AtomicBool,
    memories_max: Option<u64>,
    anchor: Option<PathBuf>,
    /// Holders known to be erased, the ledger's among them.
    erased: AtomicU64,
    fatal: Box<dyn Fn() + Send + Sync>,
    rotation: Rotation,
    model: Option<Arc<Model>>,
    unembedded: Unembedded,
    hub: Arc<Hub>,
    /// Entries of reads, and writes, that entered the queue.
    #[cfg(test)]
    sent: [AtomicU64; 2],
}

/// An open store; see the module text.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

/// An open store and its threads. Stop it to close the file.
pub struct Store {
    vault: Vault,
    threads: Vec<JoinHandle<()>>,
}

/// Makes a new store's first rows and its first audit entry.
pub fn initialise(engine: &Engine, label: &str, owner_email: &str, clock: &Clock) -> Result<Checkpoint, OpenError> {
    let common = Common::new(engine.instance());
    let (tenant, log, now) = (TenantId::draw(), LogId::draw(), clock.now());
    let mut failure = None;
    let made = engine.commit(|batch| {
        let mut tx = Tx::new(&*batch, engine.keys(), &common, now, false);
        let staged = (|| -> Result<_, StoreError> {
            holders::create(&mut tx, tenant, Holder::Tenant);
            let label = holders::seal(&tx, tenant, Holder::Tenant, "label", tenant.bytes(), label.as_bytes())?;
            let owner = users::find_or_create(&mut tx, tenant, owner_email)?;
            meta::put_instance(&mut tx, &InstanceRow { schema: migrate::SCHEMA, tenant, label, owner, log });
            Ok(std::mem::take(&mut tx.staged.rows))
        })();
        drop(tx);
        let rows = match staged {
            Ok(rows) => rows,
            Err(StoreError::Engine(error)) => return Err(error),
            Err(other) => {
                failure = Some(other);
                return Err(EngineError::Damaged("a new file's first rows"));
            }
        };
        for ((table, key), value) in rows {
            batch.put(table, &key, &value.expect("a new store deletes nothing"))?;
        }
        let mut tail = Tail::new(log, BootId::draw());
        let mut entry = Entry::new("system.init", Actor::SYSTEM);
        entry.tenant = Some(tenant);
        tail.append(batch, &mut entry, clock, now)?;
        tail.seal(batch, &engine.keys(), now)
    });
    match (made, failure) {
        (_, Some(error)) => Err(error.into()),
        (Err(CommitError::Refused(error) | CommitError::Unknown(error)), None) => Err(error.into()),
        (Ok((checkpoint, _)), None) => Ok(checkpoint),
    }
}

/// What an opened file says of itself.
struct Examined {
    instance: InstanceRow,
    tail: Tail,
    note: String,
    owner: Option<UserId>,
    /// When the newest entry of the log was made.
    written: Timestamp,
}

/// What is told of a clock that is not plausible.
pub const WRONG_CLOCK: &str =
    "the clock is behind the log's newest entry, or before this program was made: set it if it is wrong, and keep it by NTP";

/// Whether it can be `now` where the log's newest entry is of `written`.
pub fn is_plausible(now: Timestamp, written: Timestamp) -> bool {
    now.plus(limits::CLOCK_SKEW) >= written && now.ms() >= limits::CLOCK_MS_MIN
}

/// Whether the store in `engine` may be opened with these settings. Changes nothing: to be asked of an inspected file before it is opened.
pub fn examine(engine: &Engine, settings: &Settings) -> Result<(), OpenError> {
    let common = Common::new(engine.instance());
    examined(engine, &common, settings, BootId::draw()).map(|_| ())
}

fn examined(engine: &Engine, common: &Common, settings: &Settings, boot: BootId) -> Result<Examined, OpenError> {
    let snapshot = engine.snapshot()?;
    let tx = Tx::new(&snapshot, engine.keys(), common, settings.clock.now(), true);
    let instance = meta::instance(&tx)?.ok_or(OpenError::NotInitialised)?;
    if instance.schema > migrate::SCHEMA {
        return Err(OpenError::NewerTables { found: instance.schema, known: migrate::SCHEMA });
    }
    if meta::fact::<meta::BackupMark>(&tx, meta::BACKUP)?.is_some() {
        return Err(OpenError::Backup);
    }
    let tenant = instance.tenant;
    not_older(engine, &tx)?;
    let label = holders::open(&tx, tenant, Holder::Tenant, "label", tenant.bytes(), &instance.label)?;
    if label != settings.label.as_bytes() {
        return Err(OpenError::OtherTenant);
    }
    let (tail, note) = Tail::load(&snapshot, instance.log, boot, &engine.keys())?;
    if let Some(path) = &settings.anchor {
        anchor::check(path, engine, &snapshot, instance.log, tail.size())?;
    }
    let owner = users::find(&tx, tenant, &settings.owner_email)?;
    let written = log_table::written(&snapshot, tail.size())?;
    Ok(Examined { instance, tail, note, owner, written })
}

/// Whether the superblock is one that the data was written under, and none of before.
fn not_older(engine: &Engine, tx: &Tx<'_>) -> Result<(), OpenError> {
    let (found, recorded) = (engine.generation(), meta::generation(tx)?);
    if found < recorded { Err(OpenError::OlderSuperblock { found, recorded }) } else { Ok(()) }
}

/// The same of a file that is only looked at.
///
/// Errors: `OlderSuperblock`; what kept it from being read.
pub fn check_superblock(engine: &Engine, reader: &dyn Read) -> Result<(), OpenError> {
    not_older(engine, &Tx::new(reader, engine.keys(), &Common::new(engine.instance()), Timestamp::default(), true))
}

impl Store {
    /// Opens the store in `engine` and starts its threads.
    ///
    /// Errors: see [`OpenError`]; nothing was changed then.
    pub fn open(engine: Engine, settings: Settings) -> Result<Self, OpenError> {
        let common = Common::new(engine.instance());
        let boot = BootId::draw();
        let Examined { instance, tail, note, owner, written } = examined(&engine, &common, &settings, boot)?;
        // The superblock belongs to the data, so an older copy of it that a crash left can go.
        engine.settle()?;
        let (clock, tenant) = (settings.clock, instance.tenant);
        if !is_plausible(clock.now(), written) {
            log::line(log::Level::Warn, WRONG_CLOCK, &[("now", &clock.now()), ("newest_entry", &written)]);
        }
        migrate::run(&engine, instance.schema)?;
        let (tail, note, owner) = match owner {
            Some(owner) if owner == instance.owner => (tail, note, owner),
            _ => change_owner(&engine, &common, instance, &settings.owner_email, tail, &clock)?,
        };
        let SignIn { dashboard, admins, seats_max, grant_days } = settings.sign_in;
        let (tail, note, admins) = match admins.is_empty() {
            true => (tail, note, Vec::new()),
            false => name_admins(&engine, &common, tenant, &admins, tail, &clock)?,
        };
        let checkpoint = tail.checkpoint();
        let mut static_keys = StaticKeys::default();
        for (name, vendor, key) in settings.static_keys {
            static_keys.add(engine.keys().pepper(), &name, vendor, &key);
        }
        let dashboard = dashboard.map(|(key, secret)| {
            let mut keys = StaticKeys::default();
            keys.add(engine.keys().pepper(), "RM_DASHBOARD_SERVICE_KEY", None, &key);
            (keys, secret)
        });
        let first = engine.snapshot()?;
        if let Some(path) = &settings.anchor {
            ledger::settle(&ledger::path_beside(path), engine.instance(), &engine.keys()).map_err(AnchorError::from)?;
        }
        let erased = match &settings.anchor {
            Some(path) => ledger::known(path, engine.instance(), &engine.keys(), &first).map_err(AnchorError::from)?.len(),
            None => 0,
        };
        let erased = u64::try_from(erased).unwrap_or(u64::MAX);
        let (answers, answerer) = answers::channel();
        let (index_requests, scopes) = sync_channel(limits::INDEX_REQUESTS_MAX);
        let (rotate, rotations) = sync_channel(1);
        let first = Published { snapshot: first, seq: 0, generation: 0, head: Head { checkpoint, note } };
        let vault = Vault(Arc::new(Inner {
            engine,
            common,
            tenant,
            owner,
            log: tail.log(),
            boot,
            clock,
            static_keys,
            standing: Standing::default(),
            dashboard,
            admins,
            seats_max,
            grant_life: Duration::from_secs(u64::from(grant_days) * 24 * 3600),
            indexes: Indexes::new(settings.index_bytes),
            turns: Turns::default(),
            published: RwLock::new(Some(Arc::new(first))),
            queue: Queue::default(),
            index_requests,
            refusals: Mutex::default(),
            unknown: Mutex::default(),
            refused_while_shut: AtomicU64::new(0),
            refused_full: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            upkeep: AtomicBool::new(false),
            memories_max: settings.memories_max,
            anchor: settings.anchor,
            erased: AtomicU64::new(erased),
            fatal: settings.fatal,
            rotation: Rotation::new(rotate),
            model: settings.model,
            unembedded: Unembedded::default(),
            hub: Arc::default(),
            #[cfg(test)]
            sent: Default::default(),
        }));
        let mut store = Self { vault: vault.clone(), threads: Vec::new() };
        let writer = Writer::new(vault.clone(), answers, tail, written);
        store.spawn("writer", move || writer.run())?;
        let told = vault.clone();
        store.spawn("answers", move || answerer.run(&told))?;
        let keeper = vault.clone();
        let indexed = vault.clone();
        store.spawn("indexes", move || indexed.indexes().keep_up())?;
        store.spawn("keeper", move || keeper.keep())?;
        let (rotator, embedding) = (vault.clone(), vault.clone());
        store.spawn("indexer", move || indexer::run(&vault, &scopes))?;
        store.note("system.start");
        // Whom the ledger names and this older copy of the data still has: erased before anything is answered.
        let asked = rotator::ask_again(&rotator);
        store.spawn("rotator", move || rotator::run(&rotator, &rotations))?;
        let again = match asked {
            Ok(0) => Ok(()),
            Ok(holders) => {
                log::line(
                    log::Level::Warn,
                    "an older copy of the data: holders that were erased are erased again",
                    &[("holders", &holders)],
                );
                if store.vault().rotation_done(limits::ERASE_AGAIN_TIME_MAX, |_| true) {
                    Ok(())
                } else {
                    Err("not done yet; start again to go on".to_owned())
                }
            }
            Err(error) => Err(error.to_string()),
        };
        match again {
            Ok(()) => {
                if let Some(model) = embedding.model().cloned() {
                    store.spawn("embedder", move || embedder::run(&embedding, &model))?;
                }
                Ok(store)
            }
            Err(why) => {
                drop(embedding);
                store.stop();
                Err(OpenError::Erasing(why))
            }
        }
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(OpenError::Thread)?);
        Ok(())
    }

    /// The store's gate.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    fn note(&self, op: &'static str) {
        let mut entry = Entry::new(op, Actor::SYSTEM);
        entry.tenant = Some(self.vault.tenant());
        let system = Principal::system(self.vault.tenant(), self.vault.owner(), "store");
        let generation = self.vault.shown().map_or(0, |p| p.generation);
        let _ = self.vault.append(&system, &Call::internal(), Box::new(entry), generation);
    }

    /// Stops the threads, writes the last entry and the anchor, and closes the file.
    pub fn stop(mut self) {
        for _ in 0..limits::LAST_COUNTS_ATTEMPTS {
            self.vault.flush_refusals(u64::MAX);
            // Where the queue was full there is room again in a moment.
            if self.vault.0.refused_full.load(Ordering::Relaxed) == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.note("system.stop");
        self.vault.0.stopping.store(true, Ordering::SeqCst);
        self.vault.0.queue.close();
        self.vault.rotation().wake();
        self.vault.unembedded().wake();
        self.vault.indexes().stop();
        // If there is no room for it, the indexer is awake.
        let _ = self.vault.0.index_requests.try_send(None);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
        self.vault.write_anchor();
        self.vault.unpublish();
        let closed = Arc::try_unwrap(self.vault.0).map(|inner| inner.engine.close());
        let error: &dyn std::fmt::Display = match &closed {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => &"something still uses it",
        };
        log::line(log::Level::Error, "the data file was not closed cleanly", &[("error", &log::Operator::text(&error))]);
    }
}

/// `RM_OWNER_EMAIL` names somebody else than before: that person becomes the owner, and the log says so.
fn change_owner(
    engine: &Engine,
    common: &Common,
    mut instance: InstanceRow,
    email: &str,
    mut tail: Tail,
    clock: &Clock,
) -> Result<(Tail, String, UserId), OpenError> {
    let now = clock.now();
    let changed = engine.commit(|batch| {
        let mut tx = Tx::new(&*batch, engine.keys(), common, now, false);
        let owner = users::find_or_create(&mut tx, instance.tenant, email).map_err(|_| EngineError::Damaged("the owner's record"))?;
        instance.owner = owner;
        meta::put_instance(&mut tx, &instance);
        let rows = std::mem::take(&mut tx.staged.rows);
        drop(tx);
        for ((table, key), value) in rows {
            batch.put(table, &key, &value.expect("a new owner deletes nothing"))?;
        }
        let mut entry = Entry::new("system.owner", Actor::SYSTEM);
        entry.tenant = Some(instance.tenant);
        entry.n = 1;
        tail.append(batch, &mut entry, clock, now)?;
        Ok((tail.seal(batch, &engine.keys(), now)?.1, owner))
    });
    match changed {
        Ok((note, owner)) => Ok((tail, note, owner)),
        Err(CommitError::Refused(error) | CommitError::Unknown(error)) => Err(error.into()),
    }
}

/// `RM_OWNER_EMAILS`: who is not known yet is made known, and the log says who administrates from this start on.
fn name_admins(
    engine: &Engine,
    common: &Common,
    tenant: TenantId,
    emails: &[String],
    mut tail: Tail,
    clock: &Clock,
) -> Result<(Tail, String, Vec<UserId>), OpenError> {
    let now = clock.now();
    let named = engine.commit(|batch| {
        let mut tx = Tx::new(&*batch, engine.keys(), common, now, false);
        let admins: Result<Vec<UserId>, StoreError> = emails.iter().map(|email| users::find_or_create(&mut tx, tenant, email)).collect();
        let admins = admins.map_err(|_| EngineError::Damaged("an administrator's record"))?;
        let rows = std::mem::take(&mut tx.staged.rows);
        drop(tx);
        for ((table, key), value) in rows {
            batch.put(table, &key, &value.expect("a new person deletes nothing"))?;
        }
        let mut entry = Entry::new("system.admins", Actor::SYSTEM);
        entry.tenant = Some(tenant);
        entry.n = u64::try_from(admins.len()).expect("a list's length fits 64 bits");
        entry.res = Some(Resource { ids: admins.iter().map(|id| (*id).into()).collect(), kind: Word::of("user") });
        tail.append(batch, &mut entry, clock, now)?;
        Ok((tail.seal(batch, &engine.keys(), now)?.1, admins))
    });
    match named {
        Ok((note, admins)) => Ok((tail, note, admins)),
        Err(CommitError::Refused(error) | CommitError::Unknown(error)) => Err(error.into()),
    }
}

impl Vault {
    pub(in crate::store) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(in crate::store) fn keys(&self) -> Arc<Keys> {
        self.0.engine.keys()
    }

    pub(in crate::store) fn common(&self) -> &Common {
        &self.0.common
    }

    pub(in crate::store) fn static_keys(&self) -> &StaticKeys {
        &self.0.static_keys
    }

    pub(in crate::store) fn standing(&self) -> &Standing {
        &self.0.standing
    }

    /// The dashboard's key and its secret.
    pub(in crate::store) fn dashboard(&self) -> Option<&(StaticKeys, Secret<String>)> {
        self.0.dashboard.as_ref()
    }

    /// How the dashboard's key and its secret are known when they are revoked.
    pub(in crate::store) fn dashboard_ids(&self) -> Option<[SettingId; 2]> {
        let (keys, secret) = self.dashboard()?;
        let key = keys.iter().next().expect("a dashboard has one key");
        Some([key.id, SettingId::of(self.keys().pepper(), secret)])
    }

    /// Whether this person administrates the instance.
    pub(in crate::store) fn is_admin(&self, user: UserId) -> bool {
        user == self.0.owner || self.0.admins.contains(&user)
    }

    /// For how long a grant of OAuth lives, however often its tokens are renewed.
    pub(in crate::store) fn grant_life(&self) -> Duration {
        self.0.grant_life
    }

    /// How many people the dashboard may make known; `None` = no bound.
    pub(in crate::store) fn seats_max(&self) -> Option<u32> {
        Some(self.0.seats_max).filter(|most| *most > 0)
    }

    pub(in crate::store) fn rotation(&self) -> &Rotation {
        &self.0.rotation
    }

    pub(in crate::store) fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    /// From now on what becomes of this owner's memories is told. An event says only that something changed, so no grant is needed; what it
    /// is about is read through the gate.
    pub fn subscribe(&self, scope: Scope) -> Subscription {
        self.0.hub.subscribe(scope)
    }

    pub(in crate::store) fn indexes(&self) -> &Indexes {
        &self.0.indexes
    }

    /// For whoever goes through many records.
    pub(in crate::store) fn turns(&self) -> &Turns {
        &self.0.turns
    }

    /// What embeds memories and queries, if this store has it.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.0.model.as_ref()
    }

    pub(in crate::store) fn unembedded(&self) -> &Unembedded {
        &self.0.unembedded
    }

    pub(in crate::store) fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// From now on somebody makes the backups that are asked for, or from now on nobody does.
    pub(in crate::store) fn set_upkeep(&self, there: bool) {
        self.0.upkeep.store(there, Ordering::Relaxed);
    }

    pub(in crate::store) fn has_upkeep(&self) -> bool {
        self.0.upkeep.load(Ordering::Relaxed)
    }

    /// The clock of this store.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The workspace.
    pub fn tenant(&self) -> TenantId {
        self.0.tenant
    }

    /// The instance's owner.
    pub fn owner(&self) -> UserId {
        self.0.owner
    }

    /// Live memories that a person other than the owner may have.
    pub(in crate::store) fn memories_max(&self) -> Option<u64> {
        self.0.memories_max
    }

    /// This physical copy of the data.
    pub fn file(&self) -> FileId {
        self.0.engine.file()
    }

    /// The audit log.
    pub fn log(&self) -> LogId {
        self.0.log
    }

    /// This start of the process.
    pub fn boot(&self) -> BootId {
        self.0.boot
    }

    /// The audit log's public key, for what is signed from now on.
    pub fn log_key(&self) -> Vkey {
        let keys = self.keys();
        let shown = self.shown().and_then(|published| signers::newest(&published.snapshot, &keys, self.log()).ok());
        shown.unwrap_or_else(|| crate::audit::checkpoint::vkey(self.log(), keys.signing().public()))
    }

    /// The vendors that have a configured agent key.
    pub fn vendors(&self) -> Vec<String> {
        let mut names: Vec<String> = self.static_keys().iter().filter_map(|key| Some(key.vendor.as_ref()?.name().to_owned())).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether `scope` has a search index, or one is being built: then it is worth to prepare a new memory for it before the writer.
    pub fn has_index(&self, scope: Scope) -> bool {
        self.indexes().wants((scope.tenant, scope.owner))
    }

    /// The verifier under which a key is stored.
    pub fn verifier(&self, key: &str) -> Verifier {
        Verifier::of(self.keys().pepper(), key)
    }

    /// The client's request id as the log takes it.
    pub fn request_id(&self, presented: &[u8]) -> crate::audit::RequestId {
        crate::audit::RequestId::of_client(presented, self.keys().lookup())
    }

    /// How much room is left on the disk.
    pub fn space(&self) -> Space {
        self.0.engine.space()
    }

    /// What readers see now.
    ///
    /// Errors: `Latched` while the store is shut; the refusal is counted for the recovery entry.
    pub(in crate::store) fn published(&self) -> Result<Arc<Published>, Unavailable> {
        self.shown().ok_or_else(|| {
            self.count_refused(1);
            Unavailable::Latched
        })
    }

    /// What readers see now, if anything; for the program's own use.
    pub(in crate::store) fn shown(&self) -> Option<Arc<Published>> {
        self.0.published.read().expect("no code panics while it holds this lock").clone()
    }

    pub(in crate::store) fn publish(&self, published: Published) {
        let old = self.0.published.write().expect("no code panics while it holds this lock").replace(Arc::new(published));
        drop(old);
    }

    pub(in crate::store) fn unpublish(&self) {
        self.0.published.write().expect("no code panics while it holds this lock").take();
    }

    /// Counts requests that were refused without data and without an entry.
    pub(in crate::store) fn count_refused(&self, requests: u64) {
        self.0.refused_while_shut.fetch_add(requests, Ordering::Relaxed);
    }

    /// Requests refused without data that no recovery entry tells of yet.
    pub(in crate::store) fn refused_while_shut(&self) -> u64 {
        self.0.refused_while_shut.load(Ordering::Relaxed)
    }

    /// A durable recovery entry tells of this many.
    pub(in crate::store) fn entered_refused(&self, requests: u64) {
        self.0.refused_while_shut.fetch_sub(requests, Ordering::Relaxed);
    }

    pub(in crate::store) fn fatal(&self) {
        log::line(log::Level::Error, "the store cannot be recovered; stopping", &[]);
        (self.0.fatal)();
    }

    /// A view of a published snapshot.
    pub(in crate::store) fn reading<'p>(&'p self, published: &'p Published) -> Tx<'p> {
        let mut tx = Tx::new(&published.snapshot, published.snapshot.keys(), self.common(), self.0.clock.now(), true);
        tx.generation = Some(published.generation);
        tx
    }

    /// Asks for `scope`'s search index to be built.
    pub(in crate::store) fn request_index(&self, scope: Scope) {
        let _ = self.0.index_requests.try_send(Some(scope));
    }

    pub(in crate::store) fn asker(who: &Principal, call: &Call) -> Asker {
        Asker { operation: call.operation, tenant: who.tenant(), user: who.user(), credential: who.credential().clone() }
    }

    fn send(&self, request: Request) -> Result<(), Unavailable> {
        if self.0.stopping.load(Ordering::Relaxed) {
            return Err(Unavailable::Stopping);
        }
        #[cfg(test)]
        let changes = request.changes;
        let stands_for = request.stands_for;
        self.0.queue.put(request).inspect_err(|why| {
            if *why == Unavailable::QueueFull {
                self.0.refused_full.fetch_add(stands_for, Ordering::Relaxed);
            }
        })?;
        #[cfg(test)]
        self.0.sent[usize::from(changes)].fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Entries of reads, or writes, that entered the queue since the start.
    #[cfg(test)]
    pub(in crate::store) fn queued(&self, writes: bool) -> u64 {
        self.0.sent[usize::from(writes)].load(Ordering::SeqCst)
    }

    fn send_and_wait(&self, work: Work, changes: bool, asker: Asker) -> Result<Ended, Unavailable> {
        let ticket = Ticket::of_this_thread();
        self.send(Request { work, changes, asker: Some(asker), told: Told::Waiter(Arc::clone(&ticket)), stands_for: 1 })?;
        stopwatch::waiting(|| ticket.wait())
    }

    /// Hands something to the writer and says what is to be done at its end; see [`Told::Then`].
    pub(in crate::store) fn send_then(&self, work: Work, asker: Asker, then: impl FnOnce(Result<Ended, Unavailable>) + Send + 'static) {
        let (changes, told) = (matches!(work, Work::Job(_)), Told::Then(Box::new(then)));
        // Whether it is taken or not: `then` is told.
        let _ = self.send(Request { work, changes, asker: Some(asker), told, stands_for: 1 });
    }

    /// Hands a write to the writer and waits for its end.
    pub(in crate::store) fn submit(&self, job: Job, who: &Principal, call: &Call) -> Result<Ended, Unavailable> {
        self.send_and_wait(Work::Job(job), true, Self::asker(who, call))
    }

    /// Has a read's entry put into the log, if credentials are still those of `generation`, and waits until it is durable.
    pub(in crate::store) fn append(&self, who: &Principal, call: &Call, entry: Box<Entry>, generation: u64) -> Result<Ended, Unavailable> {
        self.send_and_wait(Work::Entry(entry, generation), false, Self::asker(who, call))
    }

    /// As [`Vault::append`], of what holds whichever credentials there are by then.
    pub(in crate::store) fn append_whatever(&self, who: &Principal, call: &Call, entry: Entry) -> Result<Ended, Unavailable> {
        self.send_and_wait(Work::Note(Box::new(entry)), false, Self::asker(who, call))
    }

    /// Counts a refusal before a principal exists, by address. The first in a minute is an entry; nobody waits for it.
    pub fn refuse_address(&self, ip: IpAddr, reason: Reason, status: u16) {
        self.refuse(Who::address(ip), reason, status);
    }

    /// Counts a refusal of a recognised credential that is not worth an entry each time (rate, unknown route).
    pub fn refuse_credential(&self, credential: &CredentialRef, reason: Reason, status: u16) {
        match audit_credential(credential) {
            Some(credential) => self.refuse(Who::Credential(credential), reason, status),
            None => self.refuse(Who::Others, reason, status),
        }
    }

    fn refuse(&self, who: Who, reason: Reason, status: u16) {
        let emit = self.refusals().note(who, reason, status, self.0.clock.mono_ms());
        if let Some(emit) = emit {
            self.note_refusal(&emit);
        }
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, Coalescer> {
        self.0.refusals.lock().expect("no code panics while it holds this lock")
    }

    fn note_refusal(&self, emit: &Emit) {
        let mut entry = Entry::new("request.refused", Actor::NONE);
        emit.describe(&mut entry);
        entry.outcome = Outcome::Refused;
        // If it is not taken, it is counted among those for whom the queue was full; if its batch fails, in the recovery entry.
        let _ = self.send(Request {
            work: Work::Note(Box::new(entry)),
            changes: false,
            asker: None,
            told: Told::Nobody,
            stands_for: emit.count,
        });
    }

    fn flush_refusals(&self, now_ms: u64) {
        let count = self.0.refused_full.swap(0, Ordering::Relaxed);
        if count > 0 {
            self.note_refusal(&Emit { who: Who::Others, reason: Reason::QueueFull, status: 503, count });
        }
        let emits = self.refusals().due(now_ms);
        for emit in emits {
            self.note_refusal(&emit);
        }
    }

    pub(in crate::store) fn remember_unknown(&self, askers: &[Asker]) {
        let mut unknown = self.0.unknown.lock().expect("no code panics while it holds this lock");
        if unknown.len() + askers.len() > limits::UNKNOWN_OPERATIONS_MAX {
            unknown.retain(|_, (_, settled)| *settled == Settled::Pending);
        }
        for asker in askers {
            unknown.insert(asker.operation, (asker.clone(), Settled::Pending));
        }
    }

    pub(in crate::store) fn settle_unknown(&self, asker: &Asker, to: Settled) {
        let mut unknown = self.0.unknown.lock().expect("no code panics while it holds this lock");
        if let Some((_, settled)) = unknown.get_mut(&asker.operation) {
            *settled = to;
        }
    }

    /// How the operation ended, for whoever asked for it with the same credential.
    pub(in crate::store) fn settled(&self, tx: &Tx<'_>, who: &Principal, id: OperationId) -> Result<Option<Settled>, StoreError> {
        let known = self.0.unknown.lock().expect("no code panics while it holds this lock").get(&id).cloned();
        if let Some((asker, settled)) = known {
            let own = asker.tenant == who.tenant() && asker.user == who.user() && asker.credential == *who.credential();
            return Ok(own.then_some(settled));
        }
        let needle = format!("\"opid\":\"{id}\"");
        let size = self.shown().map_or(0, |p| p.head.checkpoint.size);
        for index in (size.saturating_sub(limits::OPERATION_SCAN_ENTRIES_MAX)..size).rev() {
            let Some(line) = log_table::line(tx.reader, index)? else { continue };
            let line = Zeroizing::new(line);
            if !line.contains(&needle) {
                continue;
            }
            let own = Entry::parse(&line).ok().filter(|entry| {
                let person = crate::audit::Id::from(who.user());
                let own = entry.actor.id == Some(person) || entry.actor.behalf.contains(&person);
                own && entry.opid == Some(id) && entry.tenant == Some(who.tenant()) && entry.cred == audit_credential(who.credential())
            });
            return Ok(own.map(|entry| Settled::of(&entry)));
        }
        Ok(None)
    }

    fn keep(&self) {
        let mut anchored = 0;
        let mut since = Duration::ZERO;
        const STEP: Duration = Duration::from_secs(1);
        while !self.0.stopping.load(Ordering::Relaxed) {
            std::thread::park_timeout(STEP);
            self.flush_refusals(self.0.clock.mono_ms());
            self.rouse();
            since += STEP;
            let size = self.shown().map_or(anchored, |p| p.head.checkpoint.size);
            if since >= limits::ANCHOR_INTERVAL && size != anchored {
                since = Duration::ZERO;
                // One that failed is tried again, though nothing more comes.
                if self.write_anchor() {
                    anchored = size;
                }
            }
        }
    }

    /// Has the writer look at a store that another thread found faulty: while it is shut nobody is admitted whose write would come to it.
    fn rouse(&self) {
        if self.shown().is_some() && self.0.engine.is_latched() {
            let _ = self.send(Request { work: Work::Done, changes: false, asker: None, told: Told::Nobody, stands_for: 0 });
        }
    }

    /// Writes an anchor of what is committed now to `path`: after an override, and nowhere else.
    pub fn anchor_at(&self, path: &Path) -> io::Result<()> {
        let published = self.published().map_err(io::Error::other)?;
        anchor::write(path, &self.0.engine, &published.snapshot, published.head.checkpoint, self.0.erased.load(Ordering::SeqCst))
    }

    /// From here on the ledger names this many holders.
    pub(in crate::store) fn set_erased(&self, holders: u64) {
        self.0.erased.fetch_max(holders, Ordering::SeqCst);
    }

    /// Whether it is written, or there is none to write.
    fn write_anchor(&self) -> bool {
        let Some(path) = &self.0.anchor else { return true };
        let written = self.shown().map(|_| self.anchor_at(path));
        if let Some(Err(error)) = &written {
            log::line(log::Level::Error, "the anchor was not written", &[("error", &log::Operator::text(error))]);
        }
        matches!(written, Some(Ok(())))
    }
}

/// The channel on which the indexer is asked; `None` wakes it to stop.
pub type IndexRequests = Receiver<Option<Scope>>;

impl Vault {
    /// Where the anchor is.
    pub(in crate::store) fn anchor(&self) -> Option<&Path> {
        self.0.anchor.as_deref()
    }

    pub(in crate::store) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    /// Whether requests can be answered.
    pub fn is_up(&self) -> bool {
        self.shown().is_some()
    }

    /// The raw reader of what is published.
    #[cfg(test)]
    pub(in crate::store) fn with_reader<T>(&self, look: impl FnOnce(&dyn crate::engine::Read, &Head) -> T) -> Result<T, Unavailable> {
        let published = self.published()?;
        Ok(look(&published.snapshot, &published.head))
    }
}
