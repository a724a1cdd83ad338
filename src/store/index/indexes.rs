//! Every scope's index: at most `capacity` bytes together, built in the background, kept in step with commits.
//!
//! ```text
//!            begin                    finish
//!  Absent ──────────▶ Building ──────────────────▶ Ready
//!    ▲                   │ dropped, failed, queue     │ drop_scope, evicted,
//!    └───────────────────┴────────── full ◀───────────┘ a panic while it changed
//! ```
//! Building becomes TooLarge instead of Absent when the scope alone exceeds the capacity; `drop_scope` or a removal from it lifts that.
//!
//! How a build and the writer meet:
//! 1. The builder calls [`Indexes::begin`]. From now on [`Indexes::apply`] queues what is committed in that scope.
//! 2. *After* that it takes a snapshot of the store, learns its commit number `seq`, and pushes every live memory of it, in chunks.
//! 3. [`Build::finish`] with `seq` applies the queued changes whose number is above `seq`, in order, and the scope is ready.
//!
//! The writer calls [`Indexes::apply`] after each commit, in commit order, with the commit's number. So a change is in the snapshot (its commit
//! came before), or in the queue (its `apply` came after `begin`), or in both, and then it is skipped. A change names the whole memory, so a `seq`
//! that is too low costs work and not truth.
//!
//! Invariants
//! - A scope that is ready holds exactly the live memories as of the last commit applied. There are no partial answers.
//! - The indexes of all scopes together, those being built among them, exceed the capacity by one batch of changes at most.
//! - Queued text is bounded and wiped.
//! - An index leaves memory wiped when its last reader is done; a reader never waits for a build.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use zeroize::Zeroizing;

use super::scope::{Doc, ScopeIndex, Visibility};
use crate::base::id::{MemoryId, TenantId, UserId};
use crate::base::limits;

/// One owner's memories.
pub type ScopeKey = (TenantId, UserId);

/// Where a scope's index stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not in memory.
    Absent,
    /// So many memories are in.
    Building {
        /// Memories pushed so far.
        done: usize,
    },
    /// Queries are answered.
    Ready,
    /// The capacity cannot hold it; queries must scan.
    TooLarge,
}

/// One committed change.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// The memory is now this.
    Put(Doc<'a>),
    /// The memory is gone, or in the trash.
    Remove(MemoryId),
}

/// Why a build did not come to its end. The scope is absent again, or too large.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError {
    /// More was written meanwhile than is kept, or the scope was dropped; begin again.
    #[error("the scope changed too much while its index was built")]
    Restart,
    /// The scope alone exceeds the capacity.
    #[error("the scope's index does not fit the memory it may take; raise RM_INDEX_MIB")]
    TooLarge,
}

/// A memory that waits for its index, wiped when dropped.
struct Waiting {
    doc: Doc<'static>,
    title: Zeroizing<String>,
    content: Zeroizing<String>,
    tags: Zeroizing<Vec<String>>,
    speaker: Option<Zeroizing<String>>,
    run: Option<Zeroizing<String>>,
    origin: String,
    vendors: Option<Vec<String>>,
}

/// A change that waits.
enum Queued {
    Put(Box<Waiting>),
    Remove(MemoryId),
}

/// The changes of one scope since its build began.
#[derive(Default)]
struct Queue {
    changes: Vec<(u64, Queued)>,
    bytes: usize,
}

/// A scope that is not absent.
enum Slot {
    Building { build: u64, queue: Queue, progress: Arc<Progress> },
    Ready { index: Arc<RwLock<ScopeIndex>>, used: AtomicU64, bytes: usize },
    TooLarge,
}

#[derive(Default)]
struct Progress {
    done: AtomicUsize,
    bytes: AtomicUsize,
}

/// All indexes of the process; see the module text.
pub struct Indexes {
    capacity: usize,
    slots: Mutex<HashMap<ScopeKey, Slot>>,
    /// Counts uses, and tells builds apart.
    ticks: AtomicU64,
}

/// An index under construction. Dropped before [`Build::finish`], it leaves the scope absent.
pub struct Build<'a> {
    indexes: &'a Indexes,
    scope: ScopeKey,
    build: u64,
    index: ScopeIndex,
    progress: Arc<Progress>,
}

impl Indexes {
    /// No indexes; they will take at most about `capacity` bytes together.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, slots: Mutex::default(), ticks: AtomicU64::new(1) }
    }

    /// Where `scope` stands.
    pub fn state(&self, scope: ScopeKey) -> State {
        match self.lock().get(&scope) {
            None => State::Absent,
            Some(Slot::Building { progress, .. }) => State::Building { done: progress.done.load(Ordering::Relaxed) },
            Some(Slot::Ready { .. }) => State::Ready,
            Some(Slot::TooLarge) => State::TooLarge,
        }
    }

    /// Asks the index of `scope`; `None` unless it is ready. Changes to this scope wait until `ask` is done.
    pub fn with_ready<T>(&self, scope: ScopeKey, ask: impl FnOnce(&ScopeIndex) -> T) -> Option<T> {
        let index = match self.lock().get(&scope)? {
            Slot::Ready { index, used, .. } => {
                used.store(self.tick(), Ordering::Relaxed);
                Arc::clone(index)
            }
            _ => return None,
        };
        // Poisoned: a change panicked half way, so it answers nothing, and the next change drops it.
        index.read().ok().map(|index| ask(&index))
    }

    /// Starts a build of `scope`; `None` unless it is absent. Take the snapshot after this.
    pub fn begin(&self, scope: ScopeKey) -> Option<Build<'_>> {
        let mut slots = self.lock();
        let Entry::Vacant(slot) = slots.entry(scope) else { return None };
        let (build, progress) = (self.tick(), Arc::<Progress>::default());
        slot.insert(Slot::Building { build, queue: Queue::default(), progress: Arc::clone(&progress) });
        Some(Build { indexes: self, scope, build, index: ScopeIndex::new(), progress })
    }

    /// Takes in what commit `seq` changed in `scope`. Called by the writer alone, after each commit, in commit order.
    pub fn apply(&self, scope: ScopeKey, seq: u64, changes: &[Change<'_>]) {
        let mut slots = self.lock();
        let index = match slots.get_mut(&scope) {
            None => return,
            Some(Slot::TooLarge) => {
                if changes.iter().any(|change| matches!(change, Change::Remove(_))) {
                    slots.remove(&scope);
                }
                return;
            }
            Some(Slot::Building { queue, .. }) => {
                if !changes.iter().all(|change| queue.push(seq, change)) {
                    slots.remove(&scope);
                }
                return;
            }
            Some(Slot::Ready { index, .. }) => Arc::clone(index),
        };
        drop(slots);
        let Ok(now) = index.write().map(|mut index| {
            changes.iter().for_each(|change| index.change(change));
            index.bytes()
        }) else {
            return self.drop_scope(scope);
        };
        let mut slots = self.lock();
        if let Some(Slot::Ready { bytes, .. }) = slots.get_mut(&scope) {
            *bytes = now;
        }
        self.evict(&mut slots, scope);
    }

    /// Forgets `scope`, as when a key of it dies; a build under way will not finish. Wiped at once, or when its last reader is done.
    pub fn drop_scope(&self, scope: ScopeKey) {
        self.lock().remove(&scope);
    }

    /// Rewrites `scope` without what is left of removed memories; for erasure.
    pub fn compact(&self, scope: ScopeKey) {
        let index = match self.lock().get(&scope) {
            Some(Slot::Ready { index, .. }) => Arc::clone(index),
            _ => return,
        };
        if index.write().map(|mut index| index.compact()).is_err() {
            self.drop_scope(scope);
        }
    }

    /// Bytes of all indexes, those being built among them.
    pub fn bytes(&self) -> usize {
        self.lock().values().map(Slot::bytes).sum()
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ScopeKey, Slot>> {
        // Every change under this lock is one insertion, removal or push: a panic elsewhere cannot leave it half done.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops least used scopes, `keep` last of all, until the rest fits. Gives whether it does.
    fn evict(&self, slots: &mut HashMap<ScopeKey, Slot>, keep: ScopeKey) -> bool {
        let mut total: usize = slots.values().map(Slot::bytes).sum();
        while total > self.capacity {
            let ready = slots.iter().filter_map(|(scope, slot)| match slot {
                Slot::Ready { used, bytes, .. } if *scope != keep => Some((used.load(Ordering::Relaxed), *scope, *bytes)),
                _ => None,
            });
            match ready.min_by_key(|&(used, ..)| used) {
                Some((_, scope, bytes)) => {
                    slots.remove(&scope);
                    total -= bytes;
                }
                None if slots.get(&keep).is_some_and(|slot| slot.bytes() > self.capacity) => {
                    slots.insert(keep, Slot::TooLarge);
                    return false;
                }
                None => {
                    // Others are being built and take the room; this one can come back later.
                    slots.remove(&keep);
                    return false;
                }
            }
        }
        true
    }
}

impl Build<'_> {
    /// Puts one memory of the snapshot in. After an error, drop the build.
    pub fn push(&mut self, doc: &Doc<'_>) -> Result<(), BuildError> {
        self.index.insert(doc);
        let done = self.progress.done.fetch_add(1, Ordering::Relaxed);
        // Room is asked for now and then: eviction takes the lock.
        if done.is_multiple_of(64) { self.check() } else { Ok(()) }
    }

    /// Ends the build with the changes since the snapshot, whose commit number is `seq`. Then the scope is ready.
    pub fn finish(mut self, seq: u64) -> Result<(), BuildError> {
        self.check()?;
        loop {
            let mut slots = self.indexes.lock();
            let Some(Slot::Building { queue, .. }) = slots.get_mut(&self.scope).filter(|slot| slot.is_build(self.build)) else {
                return Err(BuildError::Restart);
            };
            let waiting = std::mem::take(&mut queue.changes);
            queue.bytes = 0;
            if waiting.is_empty() {
                let index = std::mem::take(&mut self.index);
                let (bytes, used) = (index.bytes(), AtomicU64::new(self.indexes.tick()));
                slots.insert(self.scope, Slot::Ready { index: Arc::new(RwLock::new(index)), used, bytes });
                return if self.indexes.evict(&mut slots, self.scope) { Ok(()) } else { Err(BuildError::TooLarge) };
            }
            // The writer goes on meanwhile; its next changes are the next round, and fewer: taking one in is far cheaper than a commit.
            drop(slots);
            for (_, change) in waiting.iter().filter(|(at, _)| *at > seq) {
                change.with(|change| self.index.change(change));
            }
        }
    }

    /// Makes room for what was built so far.
    fn check(&self) -> Result<(), BuildError> {
        self.progress.bytes.store(self.index.bytes(), Ordering::Relaxed);
        let mut slots = self.indexes.lock();
        if !slots.get(&self.scope).is_some_and(|slot| slot.is_build(self.build)) {
            return Err(BuildError::Restart);
        }
        if self.indexes.evict(&mut slots, self.scope) { Ok(()) } else { Err(BuildError::TooLarge) }
    }
}

impl Drop for Build<'_> {
    fn drop(&mut self) {
        let mut slots = self.indexes.lock();
        if slots.get(&self.scope).is_some_and(|slot| slot.is_build(self.build)) {
            slots.remove(&self.scope);
        }
    }
}

impl ScopeIndex {
    fn change(&mut self, change: &Change<'_>) {
        match change {
            Change::Put(doc) => self.insert(doc),
            Change::Remove(id) => {
                self.remove(*id);
            }
        }
    }
}

impl Slot {
    fn is_build(&self, number: u64) -> bool {
        matches!(self, Self::Building { build, .. } if *build == number)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Building { queue, progress, .. } => queue.bytes + progress.bytes.load(Ordering::Relaxed),
            Self::Ready { bytes, .. } => *bytes,
            Self::TooLarge => 0,
        }
    }
}

impl Queue {
    /// `false` if it is full.
    fn push(&mut self, seq: u64, change: &Change<'_>) -> bool {
        let (queued, bytes) = match change {
            Change::Remove(id) => (Queued::Remove(*id), 0),
            Change::Put(doc) => {
                let waiting = Waiting::of(doc);
                let bytes = waiting.title.len() + waiting.content.len() + waiting.tags.iter().map(String::len).sum::<usize>();
                (Queued::Put(Box::new(waiting)), bytes)
            }
        };
        self.changes.push((seq, queued));
        self.bytes += bytes;
        self.changes.len() <= limits::INDEX_QUEUE_CHANGES_MAX && self.bytes <= limits::INDEX_QUEUE_BYTES_MAX
    }
}

impl Queued {
    fn with(&self, take: impl FnOnce(&Change<'_>)) {
        match self {
            Self::Remove(id) => take(&Change::Remove(*id)),
            Self::Put(waiting) => take(&Change::Put(waiting.doc())),
        }
    }
}

impl Waiting {
    fn of(doc: &Doc<'_>) -> Self {
        let owned = |text: &str| Zeroizing::new(text.to_owned());
        Self {
            doc: Doc { title: "", content: "", tags: &[], speaker: None, run: None, origin: "", vendors: Visibility::All, ..*doc },
            title: owned(doc.title),
            content: owned(doc.content),
            tags: Zeroizing::new(doc.tags.to_vec()),
            speaker: doc.speaker.map(owned),
            run: doc.run.map(owned),
            origin: doc.origin.to_owned(),
            vendors: match doc.vendors {
                Visibility::All => None,
                Visibility::Only(names) => Some(names.to_vec()),
            },
        }
    }

    fn doc(&self) -> Doc<'_> {
        Doc {
            title: &self.title,
            content: &self.content,
            tags: &self.tags,
            speaker: self.speaker.as_ref().map(|text| text.as_str()),
            run: self.run.as_ref().map(|text| text.as_str()),
            origin: &self.origin,
            vendors: self.vendors.as_ref().map_or(Visibility::All, |names| Visibility::Only(names)),
            ..self.doc
        }
    }
}
