//! `Tx`: what one piece of work sees and stages.
//!
//! Work reads a snapshot (a read) or the open transaction (a write) and *pushes* what it wants changed. The committer applies the
//! staged operations after the work succeeded and drops them if it failed, so nothing is applied before it is known good.
//!
//! Invariants
//! - A `get` sees the work's own staged puts; a range does not.
//! - Field keys enter the cache only once the DEK they come from is committed.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::audit::Details;
use crate::authn::Principal;
use crate::base::codec::{self, CodecError};
use crate::base::id::{InstanceId, MemoryId, SubjectId, TenantId, UserId};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::crypto::aead::OpenError;
use crate::crypto::ladder::Keys;
use crate::crypto::secret::Key;
use crate::engine::{EngineError, Range, Read, Table};
use crate::policy::action::Scope;
use crate::store::events::{Event, Happened};
use crate::store::index::indexes::{Change, Indexes};
use crate::store::index::prepared::Prepared;
use crate::store::recent::{Recent, Recents};
use crate::store::tables::memories::MemoryRow;
use crate::store::turns::Party;

/// The stored data could not be read or understood: nothing the client did.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row is not what its table holds.
    #[error("a row of table {0} is damaged: {1}")]
    Row(&'static str, CodecError),
    /// A sealed field did not open under the keys that should open it.
    #[error("a sealed field does not open")]
    Sealed(#[from] OpenError),
    /// A row that another row points to is missing.
    #[error("a row of table {0} is missing")]
    Missing(&'static str),
}

/// The key that seals a memory's fields, and the numbers of the DEKs it comes from (0 = none).
#[derive(Debug)]
pub struct FieldKey {
    /// The derived key.
    pub key: Key,
    /// Number of the owner's DEK.
    pub owner_dek: u32,
    /// Number of the subject's DEK, 0 without a subject.
    pub subject_dek: u32,
}

/// What a field key belongs to.
pub type FieldKeyName = (TenantId, UserId, Option<SubjectId>, u32, u32);

/// Derived field keys in memory, bounded; emptied when full.
#[derive(Default)]
pub struct FieldKeys(RwLock<Derived>);

#[derive(Default)]
struct Derived {
    keys: HashMap<FieldKeyName, Arc<FieldKey>>,
    /// What was read before credentials had this generation may come from a key that has died since.
    since: u64,
}

/// Field keys held at once (each about 150 bytes).
const FIELD_KEYS_MAX: usize = 16_384;

impl FieldKeys {
    /// The key, if it is held.
    pub fn get(&self, name: &FieldKeyName) -> Option<Arc<FieldKey>> {
        self.0.read().expect("no code panics while it holds this lock").keys.get(name).cloned()
    }

    /// Holds a key whose DEKs are committed, as seen by a reader of this generation.
    pub fn put(&self, name: FieldKeyName, key: Arc<FieldKey>, generation: u64) {
        let mut held = self.0.write().expect("no code panics while it holds this lock");
        if generation < held.since {
            return;
        }
        if held.keys.len() >= FIELD_KEYS_MAX {
            held.keys.clear();
        }
        held.keys.insert(name, key);
    }

    /// Drops what the keys named so derive from, and takes none of it back from readers older than `generation`.
    pub fn forget(&self, dead: impl Fn(&FieldKeyName) -> bool, generation: u64) {
        let mut held = self.0.write().expect("no code panics while it holds this lock");
        held.keys.retain(|name, _| !dead(name));
        held.since = held.since.max(generation);
    }
}

/// Large answers are few at once, and fewer those of one party, whatever their askers do: see [`limits::LARGE_ANSWERS_MAX`].
#[derive(Default)]
pub struct Large(Arc<Mutex<Vec<Option<Party>>>>);

/// One of the large answers, until it is dropped.
#[derive(Debug)]
pub struct Held(Arc<Mutex<Vec<Option<Party>>>>, Option<Party>);

impl Large {
    fn hold(&self, party: Option<Party>) -> Option<Held> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.iter().filter(|one| **one == party).count();
        if held.len() >= limits::LARGE_ANSWERS_MAX || own >= limits::LARGE_ANSWERS_PER_PARTY_MAX {
            return None;
        }
        held.push(party.clone());
        Some(Held(Arc::clone(&self.0), party))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().position(|one| *one == self.1) {
            held.swap_remove(at);
        }
    }
}

/// Why an answer could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Its text would exceed [`limits::LIST_BYTES_MAX`].
    #[error("the answer would be too long")]
    TooLong,
    /// As many large answers as may be are under way, of all or of this party; try again.
    #[error("too many large answers are under way")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What all work shares.
pub struct Common {
    /// Large answers under way.
    pub large: Large,
    /// The data's identity, in every AAD.
    pub instance: InstanceId,
    /// Derived field keys.
    pub field_keys: FieldKeys,
}

/// Changes that work wants.
#[derive(Default)]
pub struct Staged {
    /// Table and key, new value or none to delete: what was staged last.
    pub rows: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    /// Key in COUNTS, difference.
    pub counts: BTreeMap<Vec<u8>, i64>,
    /// What the search index must learn after the commit.
    pub index: Vec<(Scope, Change)>,
    /// What subscribers are told after the commit.
    pub events: Vec<(Scope, Event)>,
    /// What look-alikes are found by.
    pub recent: Vec<(Scope, Recent)>,
    /// Whether credentials changed, so that reads under way must be decided anew.
    pub credentials_changed: bool,
    /// Whether this entry hands the log over to the next signing key.
    pub hands_over: bool,
}

impl Common {
    /// With nothing held.
    pub fn new(instance: InstanceId) -> Self {
        Self { large: Large::default(), instance, field_keys: FieldKeys::default() }
    }
}

/// One piece of work's view; see the module text.
pub struct Tx<'t> {
    /// Snapshot or open transaction.
    pub reader: &'t dyn Read,
    /// The opened keys of the file.
    pub keys: Arc<Keys>,
    /// What all work shares.
    pub common: &'t Common,
    /// The time of this work.
    pub now: Timestamp,
    /// Whether what is read is committed (a snapshot).
    pub committed: bool,
    /// What is to change.
    pub staged: Staged,
    /// Ids for the audit entry, in the order noted.
    pub noted: Vec<[u8; 16]>,
    /// Subjects for the audit entry.
    pub subjects: Vec<SubjectId>,
    /// Number for the audit entry where it is not the number of ids noted.
    pub counted: Option<u64>,
    /// Details for the audit entry.
    pub details: Details,
    /// Whether a safeguard was overridden, for the audit entry.
    pub overridden: bool,
    /// Whether this tells of what a crash kept from being told, for the audit entry.
    pub recovered: bool,
    /// The memory that was read for the decision, until the work takes it.
    pub(in crate::store) decided_on: Option<(MemoryId, MemoryRow)>,
    /// Of which generation the credentials in this view are, if that is known.
    pub generation: Option<u64>,
    /// Who asks, and who the owner is; none outside the gate.
    pub asker: Option<(&'t Principal, UserId)>,
    /// Bytes of text that the answer holds so far, as JSON.
    pub answered: usize,
    /// The answer's place among the large ones.
    pub held: Option<Held>,
    /// The search indexes; the writer has them, to know which of them wants to be told.
    pub indexes: Option<&'t Indexes>,
    /// Digests of recent writes; the writer has them, a reader does not.
    pub recents: Option<&'t RefCell<Recents>>,
}

impl<'t> Tx<'t> {
    /// A view of `reader` with nothing staged.
    pub fn new(reader: &'t dyn Read, keys: Arc<Keys>, common: &'t Common, now: Timestamp, committed: bool) -> Self {
        Self {
            reader,
            keys,
            common,
            now,
            committed,
            staged: Staged::default(),
            noted: Vec::new(),
            subjects: Vec::new(),
            counted: None,
            details: Details::default(),
            overridden: false,
            recovered: false,
            decided_on: None,
            generation: None,
            asker: None,
            answered: 0,
            held: None,
            indexes: None,
            recents: None,
        }
    }

    /// The value of `key`, own staged changes included.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let staged = if self.staged.rows.is_empty() { None } else { self.staged.rows.get(&(table, key.to_vec())) };
        staged.map_or_else(|| Ok(self.reader.get(table, key)?), |value| Ok(value.clone()))
    }

    /// Rows of the half-open range of keys that begin with `prefix`, own staged changes not included.
    pub fn prefix(&self, table: Table, prefix: &[u8]) -> Result<Range<'t>, StoreError> {
        let end = super::tables::after(prefix);
        Ok(self.reader.range(table, Bound::Included(prefix), Bound::Excluded(&end))?)
    }

    /// The newest recent write with this look-alike digest, if there is one.
    pub fn recent(&self, scope: Scope, digest: &[u8; 16]) -> Result<Option<MemoryId>, StoreError> {
        match self.recents {
            Some(recents) => recents.borrow_mut().find(self.reader, scope, digest, self.now),
            None => Ok(None),
        }
    }

    /// Makes room in the answer for so many bytes of text more. Memories are opened one by one, so no answer takes more memory than this lets it.
    pub fn make_room(&mut self, bytes: usize) -> Result<(), Unanswered> {
        self.answered = self.answered.saturating_add(bytes);
        if self.answered > limits::LIST_BYTES_MAX {
            return Err(Unanswered::TooLong);
        }
        if self.answered > limits::LARGE_ANSWER_BYTES && self.held.is_none() {
            let party = self.asker.map(|(who, owner)| Party::of(who, owner));
            self.held = Some(self.common.large.hold(party).ok_or(Unanswered::Busy)?);
        }
        Ok(())
    }

    /// Whether a memory that is put into `scope` is told to a search index.
    pub fn wants_index(&self, scope: Scope) -> bool {
        self.indexes.is_some_and(|indexes| indexes.wants((scope.tenant, scope.owner)))
    }

    /// Stages a memory for the search index of `scope`, if there is one or it is being built. A build that begins after this was asked sees
    /// the memory in its snapshot: it waits for the batches under way (`indexer`).
    pub fn put_index(&mut self, scope: Scope, prepare: impl FnOnce() -> Box<Prepared>) {
        if self.wants_index(scope) {
            self.staged.index.push((scope, Change::Put(prepare())));
        }
    }

    /// Stages what subscribers are told of a memory.
    pub fn tell(&mut self, scope: Scope, happened: Happened, memory: MemoryId) {
        self.staged.events.push((scope, Event { happened, memory, at: self.now }));
    }

    /// Stages a row.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.staged.rows.insert((table, key), Some(value));
    }

    /// Stages a deletion.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.staged.rows.insert((table, key), None);
    }

    /// Stages a difference to a count.
    pub fn add(&mut self, key: Vec<u8>, by: i64) {
        *self.staged.counts.entry(key).or_default() += by;
    }

    /// Notes a resource in the audit entry.
    pub fn note(&mut self, id: &[u8; 16]) {
        self.noted.push(*id);
    }

    /// Notes a subject in the audit entry, once.
    pub fn note_subject(&mut self, subject: Option<SubjectId>) {
        if let Some(subject) = subject
            && !self.subjects.contains(&subject)
        {
            self.subjects.push(subject);
        }
    }
}

/// Reads a row's value.
pub fn row<T: serde::Serialize + serde::de::DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(1, bytes).map_err(|error| StoreError::Row(table, error))
}

/// Writes a row's value.
pub fn value<T: serde::Serialize>(row: &T) -> Vec<u8> {
    codec::encode(1, row)
}
