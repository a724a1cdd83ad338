//! Campaigns: attacks on a whole store over a disk in memory. Short by default; `ROSEMARY_LONG=1` runs the full numbers.
//!
//! `gate`: what each way through the gate leaves. `grants`: what ends a grant of OAuth. `fault`: the system refuses a call. `crash`: power cuts. `backup`: backups beside work. `opening`: what a store that is
//! opened is compared with. The model of what memories mean is `memories::model`.

mod audit_key;
mod backup;
mod backups_known;
mod crash;
mod erase;
mod fault;
pub mod gate;
mod grants;
mod opening;
mod renew;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::audit::checkpoint::Checkpoint;
use crate::audit::{Detail, Entry, Reason};
use crate::authn::{Principal, Vendor};
use crate::base::id::{MemoryId, UserId};
use crate::base::time::{Clock, Timestamp};
use crate::crypto::secret::Secret;
use crate::engine::campaign::disk::Tape;
use crate::engine::campaign::engine_on;
use crate::engine::{CommitError, Engine};
use crate::policy::action::{CreateMemory, Scope};
use crate::store::check;
use crate::store::gate::{Admission, Call, Fault, Receipt, Recorded, Refused};
use crate::store::phi::Phi;
use crate::store::tables::log;
use crate::store::tables::memories::{self, MemoryType, NewMemory, Text};
use crate::store::tables::{TABLES, meta, users};
use crate::store::tx::{Common, StoreError, Tx};
use crate::store::vault::{OpenError, Settings, Store, Vault, initialise};

pub const LABEL: &str = "ward";
pub const OWNER: &str = "owner@example.org";
pub const OWNER_KEY: &str = "the owner's key, long enough";

/// The configured key of an agent of `vendor`.
pub fn agent_key(vendor: &str) -> String {
    format!("the key of an agent of {vendor}")
}

/// Work of a test that does not come to its end.
#[derive(Debug)]
pub enum Wrong {
    #[allow(dead_code, reason = "shown when a test fails")]
    Store(StoreError),
    OnPurpose,
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault for Wrong {
    fn audit(&self) -> (Reason, u16) {
        match self {
            Self::Store(_) => (Reason::WorkFailed, 500),
            Self::OnPurpose => (Reason::Conflict, 409),
        }
    }
}

/// A store on a disk in memory.
pub struct House {
    pub tape: Arc<Tape>,
    pub clock: Clock,
    /// How often the store said that it cannot be recovered.
    pub fatal: Arc<AtomicUsize>,
    store: Option<Store>,
}

impl House {
    /// A new store whose disk can refuse.
    pub fn new() -> Self {
        Self::made_on(Arc::new(Tape::faulty(Vec::new(), None, 1)))
    }

    /// A new store on this empty disk.
    pub fn made_on(tape: Arc<Tape>) -> Self {
        let engine = engine_on(&tape, TABLES, true).unwrap();
        initialise(&engine, LABEL, OWNER, &Clock::system()).unwrap();
        engine.close().unwrap();
        Self::on(tape, &Clock::system()).unwrap()
    }

    /// The store that is on this disk.
    pub fn on(tape: Arc<Tape>, clock: &Clock) -> Result<Self, OpenError> {
        let fatal = Arc::<AtomicUsize>::default();
        let store = Store::open(engine_on(&tape, TABLES, false)?, settings(clock, &fatal))?;
        Ok(Self { tape, clock: clock.clone(), fatal, store: Some(store) })
    }

    pub fn vault(&self) -> &Vault {
        self.store.as_ref().expect("it is open").vault()
    }

    /// Stops and opens again; what the system had not written is gone.
    pub fn reopen(&mut self) {
        self.stop();
        *self = Self::on(Arc::clone(&self.tape), &self.clock).unwrap();
    }

    /// The same with other settings.
    pub fn reopen_with(&mut self, change: impl FnOnce(&mut Settings)) {
        self.stop();
        let mut settings = settings(&self.clock, &self.fatal);
        change(&mut settings);
        self.store = Some(Store::open(engine_on(&self.tape, TABLES, false).unwrap(), settings).unwrap());
    }

    pub fn stop(&mut self) {
        if let Some(store) = self.store.take() {
            store.stop();
        }
    }

    pub fn fatal(&self) -> usize {
        self.fatal.load(Ordering::SeqCst)
    }

    pub fn owner(&self) -> Principal {
        admitted(self.vault(), OWNER_KEY)
    }

    pub fn agent(&self, vendor: &str) -> Principal {
        admitted(self.vault(), &agent_key(vendor))
    }

    pub fn scope(&self) -> Scope {
        Scope { tenant: self.vault().tenant(), owner: self.vault().owner() }
    }

    /// The log as it is now.
    pub fn entries(&self) -> Vec<Entry> {
        self.vault()
            .with_reader(|reader, head| {
                (0..head.checkpoint.size).map(|i| Entry::parse(&log::line(reader, i).unwrap().unwrap()).unwrap()).collect()
            })
            .unwrap()
    }

    /// The newest entry of this operation.
    pub fn entry(&self, op: &str) -> Entry {
        self.entries().into_iter().rfind(|entry| entry.op.text() == op).unwrap_or_else(|| panic!("no entry of {op}"))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn settings(clock: &Clock, fatal: &Arc<AtomicUsize>) -> Settings {
    let fatal = Arc::clone(fatal);
    let agents = ["cursor", "claude"]
        .map(|vendor| (format!("RM_AGENT_KEY_{}", vendor.to_uppercase()), Vendor::parse(vendor), Secret::new(agent_key(vendor))));
    let mut static_keys = vec![("RM_API_KEY".to_owned(), None, Secret::new(OWNER_KEY.to_owned()))];
    static_keys.extend(agents);
    Settings {
        label: LABEL.to_owned(),
        owner_email: OWNER.to_owned(),
        static_keys,
        sign_in: Default::default(),
        index_bytes: 64 << 20,
        memories_max: None,
        anchor: None,
        model: None,
        clock: clock.clone(),
        fatal: Box::new(move || {
            fatal.fetch_add(1, Ordering::SeqCst);
        }),
    }
}

/// Who presents this key, which is good.
pub fn admitted(vault: &Vault, key: &str) -> Principal {
    match vault.admit(key).unwrap() {
        Admission::Principal(who, _) => who,
        Admission::Revoked(_) | Admission::Expired(_) | Admission::Dashboard | Admission::Unknown => panic!("a good key is not admitted"),
    }
}

/// A memory that says this.
pub fn saying(content: &str) -> NewMemory {
    NewMemory {
        text: Text {
            title: Phi::new("a title".to_owned()),
            content: Phi::new(content.to_owned()),
            tags: Vec::new(),
            metadata: None,
            speaker: None,
            run_id: None,
            subject: None,
        },
        origin: "api".to_owned(),
        allowed_vendors: vec!["*".to_owned()],
        kind: MemoryType::Semantic,
        occurred_at: None,
        created_at: None,
        prepared: None,
    }
}

/// Writes a memory that says this.
pub fn create(vault: &Vault, who: &Principal, call: &Call, content: &str) -> Result<(MemoryId, Receipt), Refused<Wrong>> {
    let (scope, new) = (Scope { tenant: who.tenant(), owner: who.user() }, saying(content));
    let recorded: Recorded<MemoryId> =
        vault.write::<CreateMemory, _, Wrong>(who, scope, call, move |access| Ok(memories::insert(access, new)?.id))?;
    Ok(recorded.into_parts())
}

/// Adds a person below the gate, before the store opens.
pub fn add_person(engine: &Engine, email: &str) -> Result<UserId, CommitError> {
    let common = Common::new(engine.instance());
    engine.commit(|batch| {
        let mut tx = Tx::new(&*batch, engine.keys(), &common, Timestamp::from_ms(1), false);
        let tenant = meta::instance(&tx).unwrap().unwrap().tenant;
        let person = users::find_or_create(&mut tx, tenant, email).unwrap();
        let rows = std::mem::take(&mut tx.staged.rows);
        drop(tx);
        rows.into_iter().try_for_each(|((table, key), value)| batch.put(table, &key, &value.unwrap()))?;
        Ok(person)
    })
}

/// What a closed store holds: its log, and what its memories say.
pub struct Held {
    pub entries: Vec<Entry>,
    pub checkpoint: Checkpoint,
    pub contents: BTreeMap<MemoryId, String>,
}

/// Opens a closed store below the gate and checks that everything in it agrees.
pub fn held(tape: &Arc<Tape>, what: &str) -> Held {
    let engine = engine_on(tape, TABLES, false).unwrap_or_else(|error| panic!("{what}: {error}"));
    let snapshot = engine.snapshot().unwrap();
    let found = check::check(&snapshot, engine.keys(), engine.instance(), Clock::system().now(), &mut |_, _| {}).unwrap();
    assert_eq!(found.count, 0, "{what}: {:?}", found.listed);
    let common = Common::new(engine.instance());
    let tx = Tx::new(&snapshot, engine.keys(), &common, Timestamp::default(), true);
    let checkpoint = found.checkpoint.unwrap();
    let entries = (0..checkpoint.size).map(|i| Entry::parse(&log::line(&snapshot, i).unwrap().unwrap()).unwrap()).collect();
    Held { entries, checkpoint, contents: memories::contents(&tx).unwrap() }
}

/// The number under a detail's key.
pub fn detail(entry: &Entry, key: &str) -> Option<u64> {
    entry.det.all().iter().find(|detail| detail.key() == key).map(|detail| match detail {
        Detail::First(n) | Detail::End(n) | Detail::Lost(n) | Detail::Refused(n) => *n,
        other => panic!("{other:?} is not a number"),
    })
}
