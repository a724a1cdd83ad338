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
//! [`Indexes::apply`] is called after each commit (`answers`), in commit order, with the commit's number. So a change is in the snapshot (its commit
//! came before), or in the queue or later (its `apply` came after `begin`), or in both, and then it is skipped, also when it comes after the build:
//! commits may be some batches ahead of what has been applied. A change names the whole memory, so a `seq` that is too low costs work and not truth.
//!
//! Invariants
//! - A scope that is ready holds, with what waits at it, exactly the live memories as of the last commit applied. There are no partial answers.
//! - An index that went while a query waited for it answers nothing: what waited at it went with it.
//! - What waits at an index never makes it too large: that is judged when it is in.
//! - The indexes of all scopes together, those being built among them, exceed the capacity by one batch of changes at most, and what waits.
//! - What is queued is bounded, holds no text, and is wiped.
//! - An index leaves memory wiped when its last reader is done; a reader never waits for a build.
//! - As many queries run at once as there are processors. They gain nothing by being more, and the writer, which waits for those that hold its
//!   scope, would wait for all of them.
//!
//! Changes wait at the index before their writers are answered, and whoever asks takes in what waits first: whoever wrote finds what was written.
//! Without queries they are taken in when [`limits::INDEX_WAITING_MAX`] wait, for many at once cost less than one by one, and by a thread of its
//! own ([`Indexes::keep_up`]), for nobody who writes should wait for it; only what it cannot keep up with is taken in by who brings more.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use super::prepared::Prepared;
use super::scope::ScopeIndex;
use crate::base::id::{MemoryId, TenantId, UserId};
use crate::base::{fault, limits};
use crate::embed::Embedding;

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
pub enum Change {
    /// The memory is now this.
    Put(Box<Prepared>),
    /// The memory is gone, or in the trash.
    Remove(MemoryId),
    /// The memory's vector was made.
    Embed(MemoryId, Box<Embedding>),
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
    /// Scopes that are being built need the room; begin again later.
    #[error("there is no room for the scope's index until others are built")]
    NoRoom,
}

/// The changes of one scope since its build began.
#[derive(Default)]
struct Queue {
    changes: Vec<(u64, Change)>,
    bytes: usize,
}

/// A scope that is not absent.
enum Slot {
    Building {
        build: u64,
        queue: Queue,
        progress: Arc<Progress>,
    },
    /// `since` is the commit that its build saw.
    /// `waiting` is what was committed since and is not in the index yet.
    Ready {
        index: Arc<RwLock<ScopeIndex>>,
        used: AtomicU64,
        bytes: usize,
        since: u64,
        waiting: Queue,
    },
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
    permits: Permits,
    behind: Behind,
}

/// Scopes at which much waits, for the thread that takes it in.
#[derive(Default)]
struct Behind {
    scopes: Mutex<Scopes>,
    told: Condvar,
}

#[derive(Default)]
struct Scopes {
    waiting: VecDeque<ScopeKey>,
    /// The thread is there.
    kept: bool,
    /// It is to end.
    stop: bool,
}

/// How many queries may begin now.
struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One query's permit, given back when dropped.
struct Permit<'a>(&'a Permits);

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
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let permits = Permits { free: Mutex::new(processors), freed: Condvar::new() };
        Self { capacity, slots: Mutex::default(), ticks: AtomicU64::new(1), permits, behind: Behind::default() }
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

    /// Whether a memory that is put into `scope` must be told: an index of it is there or being built.
    pub fn wants(&self, scope: ScopeKey) -> bool {
        matches!(self.state(scope), State::Building { .. } | State::Ready)
    }

    /// Asks the index of `scope`; `None` unless it is ready. Changes to this scope wait until `ask` is done, so it computes and nothing else; it
    /// must not ask again.
    pub fn with_ready<T>(&self, scope: ScopeKey, ask: impl FnOnce(&ScopeIndex) -> T) -> Option<T> {
        let _permit = self.permits.take();
        let (index, stale) = match self.lock().get(&scope)? {
            Slot::Ready { index, used, waiting, .. } => {
                used.store(self.tick(), Ordering::Relaxed);
                (Arc::clone(index), !waiting.changes.is_empty())
            }
            _ => return None,
        };
        if stale && !self.take_in(scope, &index) {
            return None;
        }
        match index.read() {
            Ok(index) => Some(ask(&index)),
            Err(_) => {
                // A change panicked half way: what is left must not answer.
                self.drop_scope(scope);
                None
            }
        }
    }

    /// Starts a build of `scope`; `None` unless it is absent. Take the snapshot after this.
    pub fn begin(&self, scope: ScopeKey) -> Option<Build<'_>> {
        let mut slots = self.lock();
        let Entry::Vacant(slot) = slots.entry(scope) else { return None };
        let (build, progress) = (self.tick(), Arc::<Progress>::default());
        slot.insert(Slot::Building { build, queue: Queue::default(), progress: Arc::clone(&progress) });
        Some(Build { indexes: self, scope, build, index: ScopeIndex::new(), progress })
    }

    /// Takes in what commit `seq` changed in `scope`. Called by one thread, after each commit, in commit order.
    pub fn apply(&self, scope: ScopeKey, seq: u64, changes: Vec<Change>) {
        let mut evicted = Vec::new();
        let mut slots = self.lock();
        let (index, waits) = match slots.get_mut(&scope) {
            None => return,
            Some(Slot::TooLarge) => {
                if changes.iter().any(|change| matches!(change, Change::Remove(_))) {
                    slots.remove(&scope);
                }
                return;
            }
            Some(Slot::Building { queue, .. }) => {
                if !changes.into_iter().all(|change| queue.push(seq, change)) {
                    slots.remove(&scope);
                }
                return;
            }
            Some(Slot::Ready { since, .. }) if seq <= *since => return,
            Some(Slot::Ready { index, waiting, .. }) => {
                let mut fit = true;
                for change in changes {
                    fit &= waiting.push(seq, change);
                }
                let much = waiting.changes.len();
                let may_wait = much < limits::INDEX_WAITING_MAX || much < limits::INDEX_BEHIND_MAX && self.behind.tell(scope);
                (Arc::clone(index), fit && may_wait)
            }
        };
        // Where what waits is too much, it may be less once it is in: many changes may be one memory's.
        let waits = waits && self.make_room(&mut slots, scope, &mut evicted);
        drop(slots);
        if !waits {
            self.take_in(scope, &index);
        }
    }

    /// Takes in what waits where it is much, until [`Indexes::stop`].
    pub fn keep_up(&self) {
        while let Some(scope) = self.behind.next() {
            let index = match self.lock().get(&scope) {
                Some(Slot::Ready { index, .. }) => Arc::clone(index),
                _ => continue,
            };
            // A panic leaves the index's lock poisoned, and so the scope absent for whoever asks next.
            let _ = fault::catch(|| _ = self.take_in(scope, &index));
        }
    }

    /// Ends [`Indexes::keep_up`].
    pub fn stop(&self) {
        self.behind.lock().stop = true;
        self.behind.told.notify_all();
    }

    /// Takes what waits into `index`, in the order of the commits; `false` if that is the scope's index no more: what waited is not in it then.
    fn take_in(&self, scope: ScopeKey, index: &Arc<RwLock<ScopeIndex>>) -> bool {
        let Ok(mut writing) = index.write() else {
            self.drop_scope(scope);
            return false;
        };
        // INVARIANT: whoever takes changes out of the queue holds the index until they are in: nobody asks it in between, and no later ones come first.
        let taken = match self.lock().get_mut(&scope) {
            Some(Slot::Ready { index: current, waiting, .. }) if Arc::ptr_eq(current, index) => std::mem::take(waiting),
            _ => return false,
        };
        writing.change_all(taken.changes.iter().map(|(_, change)| change));
        let now = writing.bytes();
        drop(writing);
        let mut evicted = Vec::new();
        let mut slots = self.lock();
        if let Some(Slot::Ready { index: current, bytes, .. }) = slots.get_mut(&scope)
            && Arc::ptr_eq(current, index)
        {
            *bytes = now;
        }
        // Without room it is absent or too large now, and later queries see that.
        let _ = self.evict(&mut slots, scope, &mut evicted);
        true
    }

    /// Forgets `scope`, as when a key of it dies; a build under way will not finish. Wiped at once, or when its last reader is done.
    pub fn drop_scope(&self, scope: ScopeKey) {
        // The lock is given back before the wiping, which takes time.
        let dropped = self.lock().remove(&scope);
        drop(dropped);
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

    /// Takes least used scopes but `keep` out until the rest fits, which is whether it does. They go to `evicted`, which is to be dropped, and so
    /// wiped, after the lock.
    fn make_room(&self, slots: &mut HashMap<ScopeKey, Slot>, keep: ScopeKey, evicted: &mut Vec<Slot>) -> bool {
        let mut total: usize = slots.values().map(Slot::bytes).sum();
        while total > self.capacity {
            let ready = slots.iter().filter_map(|(scope, slot)| match slot {
                Slot::Ready { used, .. } if *scope != keep => Some((used.load(Ordering::Relaxed), *scope, slot.bytes())),
                _ => None,
            });
            let Some((_, scope, bytes)) = ready.min_by_key(|&(used, ..)| used) else { return false };
            evicted.extend(slots.remove(&scope));
            total -= bytes;
        }
        true
    }

    /// As [`Indexes::make_room`], and if that is not enough takes `keep` out too, with the reason.
    fn evict(&self, slots: &mut HashMap<ScopeKey, Slot>, keep: ScopeKey, evicted: &mut Vec<Slot>) -> Result<(), BuildError> {
        if self.make_room(slots, keep, evicted) {
            return Ok(());
        }
        let large = slots.get(&keep).is_some_and(|slot| slot.bytes() > self.capacity);
        evicted.extend(slots.remove(&keep));
        if large {
            slots.insert(keep, Slot::TooLarge);
        }
        Err(if large { BuildError::TooLarge } else { BuildError::NoRoom })
    }
}

impl Behind {
    fn lock(&self) -> MutexGuard<'_, Scopes> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody will take in what waits at `scope`.
    fn tell(&self, scope: ScopeKey) -> bool {
        let mut scopes = self.lock();
        if !scopes.kept {
            return false;
        }
        if !scopes.waiting.contains(&scope) {
            scopes.waiting.push_back(scope);
            drop(scopes);
            self.told.notify_one();
        }
        true
    }

    /// Waits for a scope; `None` at the end, and then nobody is told any more.
    fn next(&self) -> Option<ScopeKey> {
        let mut scopes = self.lock();
        scopes.kept = true;
        let mut scopes =
            self.told.wait_while(scopes, |scopes| scopes.waiting.is_empty() && !scopes.stop).unwrap_or_else(PoisonError::into_inner);
        scopes.kept = !scopes.stop;
        scopes.waiting.pop_front().filter(|_| !scopes.stop)
    }
}

impl Permits {
    fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

impl Build<'_> {
    /// Puts memories of the snapshot in. After an error, drop the build.
    pub fn push(&mut self, memories: &[Box<Prepared>]) -> Result<(), BuildError> {
        // Room is asked for now and then: eviction takes the lock.
        for some in memories.chunks(limits::INDEX_WAITING_MAX) {
            self.index.insert_all(&some.iter().map(|memory| &**memory).collect::<Vec<_>>());
            self.progress.done.fetch_add(some.len(), Ordering::Relaxed);
            self.check()?;
        }
        Ok(())
    }

    /// Ends the build with the changes since the snapshot, whose commit number is `seq`. Then the scope is ready.
    pub fn finish(mut self, seq: u64) -> Result<(), BuildError> {
        self.check()?;
        let mut evicted = Vec::new();
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
                slots.insert(
                    self.scope,
                    Slot::Ready { index: Arc::new(RwLock::new(index)), used, bytes, since: seq, waiting: Queue::default() },
                );
                return self.indexes.evict(&mut slots, self.scope, &mut evicted);
            }
            // The writer goes on meanwhile; its next changes are the next round, and fewer: taking one in is far cheaper than a commit.
            drop(slots);
            self.index.change_all(waiting.iter().filter(|(at, _)| *at > seq).map(|(_, change)| change));
        }
    }

    /// Makes room for what was built so far.
    fn check(&self) -> Result<(), BuildError> {
        self.progress.bytes.store(self.index.bytes(), Ordering::Relaxed);
        let mut evicted = Vec::new();
        let mut slots = self.indexes.lock();
        if !slots.get(&self.scope).is_some_and(|slot| slot.is_build(self.build)) {
            return Err(BuildError::Restart);
        }
        self.indexes.evict(&mut slots, self.scope, &mut evicted)
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
    /// Takes in changes in order; what is put goes in together.
    fn change_all<'c>(&mut self, changes: impl Iterator<Item = &'c Change>) {
        let mut puts: Vec<&Prepared> = Vec::new();
        for change in changes {
            match change {
                Change::Put(memory) => puts.push(memory),
                Change::Remove(id) => {
                    self.insert_all(&puts);
                    puts.clear();
                    self.remove(*id);
                }
                Change::Embed(id, vector) => {
                    // A vector belongs to a memory that is in.
                    if puts.iter().any(|memory| memory.id == *id) {
                        self.insert_all(&puts);
                        puts.clear();
                    }
                    self.embed(*id, vector);
                }
            }
        }
        self.insert_all(&puts);
    }
}

impl Slot {
    fn is_build(&self, number: u64) -> bool {
        matches!(self, Self::Building { build, .. } if *build == number)
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Building { queue, progress, .. } => queue.bytes + progress.bytes.load(Ordering::Relaxed),
            Self::Ready { bytes, waiting, .. } => bytes + waiting.bytes,
            Self::TooLarge => 0,
        }
    }
}

impl Queue {
    /// `false` if it is full.
    fn push(&mut self, seq: u64, change: Change) -> bool {
        self.bytes += match &change {
            Change::Put(memory) => memory.heap_bytes() + size_of::<Prepared>(),
            Change::Embed(_, vector) => vector.values().len() + size_of::<Embedding>(),
            Change::Remove(_) => 0,
        };
        self.changes.push((seq, change));
        self.changes.len() <= limits::INDEX_QUEUE_CHANGES_MAX && self.bytes <= limits::INDEX_QUEUE_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicBool;

    use super::super::prepared::{Doc, Visibility};
    use super::super::scope::Viewer;
    use super::*;
    use crate::base::time::Timestamp;

    fn scope() -> ScopeKey {
        (TenantId::draw(), UserId::draw(Timestamp::from_ms(1)))
    }

    fn made(n: u64, text: &str) -> Box<Prepared> {
        Box::new(ready(n, text))
    }

    fn id(n: u64) -> MemoryId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&n.to_be_bytes());
        MemoryId::from_bytes(bytes)
    }

    fn doc(n: u64, content: &str) -> Doc<'_> {
        Doc {
            id: id(n),
            created_at: Timestamp::from_ms(n),
            title: "",
            content,
            tags: &[],
            speaker: None,
            run: None,
            origin: "api",
            vendors: Visibility::All,
            parent: None,
            subject: None,
            occurred_at: None,
            live: true,
        }
    }

    fn ready(n: u64, content: &str) -> Prepared {
        Prepared::of(&doc(n, content))
    }

    fn put(doc: &Doc<'_>) -> Change {
        Change::Put(Box::new(Prepared::of(doc)))
    }

    fn found(indexes: &Indexes, scope: ScopeKey, term: &str) -> Option<Vec<MemoryId>> {
        indexes.with_ready(scope, |index| index.literal(term, Viewer::All))
    }

    fn index_of(indexes: &Indexes, scope: ScopeKey) -> Arc<RwLock<ScopeIndex>> {
        match indexes.lock().get(&scope) {
            Some(Slot::Ready { index, .. }) => Arc::clone(index),
            _ => panic!("the scope is ready"),
        }
    }

    #[test]
    fn a_build_and_the_commits_beside_it_meet_exactly() {
        let (indexes, scope) = (Indexes::new(1 << 20), scope());
        indexes.apply(scope, 1, vec![put(&doc(1, "one"))]);
        assert_eq!((indexes.state(scope), found(&indexes, scope, "one")), (State::Absent, None));
        let mut build = indexes.begin(scope).unwrap();
        assert!(indexes.begin(scope).is_none());
        // Commit 2 is in the snapshot, commit 3 is not.
        indexes.apply(scope, 2, vec![put(&doc(2, "older text"))]);
        indexes.apply(scope, 3, vec![Change::Remove(id(1)), put(&doc(3, "three"))]);
        for (n, text) in [(1, "one"), (2, "two")] {
            build.push(&[made(n, text)]).unwrap();
        }
        assert_eq!((indexes.state(scope), found(&indexes, scope, "one")), (State::Building { done: 2 }, None));
        build.finish(2).unwrap();
        assert_eq!(indexes.state(scope), State::Ready);
        assert_eq!(found(&indexes, scope, "one"), Some(vec![]));
        assert_eq!(found(&indexes, scope, "older"), Some(vec![]));
        assert_eq!(found(&indexes, scope, "t"), Some(vec![id(3), id(2)]));
        indexes.apply(scope, 4, vec![put(&doc(2, "second")), put(&Doc { live: false, ..doc(3, "three") })]);
        assert_eq!(found(&indexes, scope, "e"), Some(vec![id(2)]));
        indexes.drop_scope(scope);
        assert_eq!((indexes.state(scope), indexes.bytes()), (State::Absent, 0));
    }

    #[test]
    fn a_build_that_cannot_be_exact_does_not_become_ready() {
        let (indexes, scope) = (Indexes::new(1 << 20), scope());
        drop(indexes.begin(scope).unwrap());
        assert_eq!(indexes.state(scope), State::Absent);

        let build = indexes.begin(scope).unwrap();
        indexes.drop_scope(scope);
        // Another build of the same scope is not touched by the first one's end.
        let other = indexes.begin(scope).unwrap();
        assert_eq!(build.finish(1), Err(BuildError::Restart));
        assert_eq!(indexes.state(scope), State::Building { done: 0 });

        let text = "x".repeat(limits::INDEX_QUEUE_BYTES_MAX / 2);
        indexes.apply(scope, 1, vec![put(&doc(1, &text)), put(&doc(2, &text)), put(&doc(3, "x"))]);
        assert_eq!(other.finish(0), Err(BuildError::Restart));

        let other = indexes.begin(scope).unwrap();
        for n in 0..=limits::INDEX_QUEUE_CHANGES_MAX {
            indexes.apply(scope, 1, vec![Change::Remove(id(n as u64))]);
        }
        assert_eq!(other.finish(0), Err(BuildError::Restart));
        assert_eq!(indexes.state(scope), State::Absent);
    }

    fn build(indexes: &Indexes, scope: ScopeKey, docs: u64) -> Result<(), BuildError> {
        let mut build = indexes.begin(scope).unwrap();
        for n in 0..docs {
            build.push(&[made(n, &format!("memory {n} of many"))])?;
        }
        build.finish(0)
    }

    #[test]
    fn the_least_used_scope_gives_way_and_one_that_cannot_fit_says_so() {
        let one = {
            let (indexes, scope) = (Indexes::new(usize::MAX), scope());
            build(&indexes, scope, 100).unwrap();
            indexes.bytes()
        };
        let indexes = Indexes::new(one * 5 / 2);
        let [a, b, c] = [scope(), scope(), scope()];
        build(&indexes, a, 100).unwrap();
        build(&indexes, b, 100).unwrap();
        assert!(found(&indexes, a, "memory").is_some());
        build(&indexes, c, 100).unwrap();
        assert_eq!([a, b, c].map(|scope| indexes.state(scope)), [State::Ready, State::Absent, State::Ready]);
        assert!(indexes.bytes() <= one * 5 / 2);

        assert_eq!(build(&indexes, b, 100_000), Err(BuildError::TooLarge));
        assert_eq!(indexes.state(b), State::TooLarge);
        assert!(indexes.begin(b).is_none());
        indexes.apply(b, 1, vec![put(&doc(1, "x"))]);
        assert_eq!(indexes.state(b), State::TooLarge);
        indexes.apply(b, 2, vec![Change::Remove(id(1))]);
        assert_eq!(indexes.state(b), State::Absent);
    }

    #[test]
    fn a_query_that_panics_takes_nothing_with_it() {
        let (indexes, scope) = (Indexes::new(1 << 20), scope());
        build(&indexes, scope, 3).unwrap();
        for _ in 0..200 {
            let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| indexes.with_ready(scope, |_| panic!("on purpose"))));
            assert!(asked.is_err());
        }
        assert_eq!(found(&indexes, scope, "memory").map(|ids| ids.len()), Some(3));
    }

    #[test]
    fn a_change_that_panics_leaves_no_half_answer() {
        let (indexes, scope) = (Indexes::new(1 << 20), scope());
        build(&indexes, scope, 3).unwrap();
        let index = index_of(&indexes, scope);
        let _ = std::thread::spawn(move || {
            let _held = index.write();
            panic!("on purpose");
        })
        .join();
        assert_eq!(found(&indexes, scope, "memory"), None);
        assert_eq!(indexes.state(scope), State::Absent);
    }

    #[test]
    fn what_was_committed_waits_until_somebody_asks_or_it_is_much() {
        let (indexes, scope) = (Indexes::new(1 << 24), scope());
        build(&indexes, scope, 3).unwrap();
        let inside = || match indexes.lock().get(&scope) {
            Some(Slot::Ready { index, .. }) => index.read().unwrap().len(),
            _ => unreachable!(),
        };
        let before = indexes.bytes();
        for n in 1..limits::INDEX_WAITING_MAX as u64 {
            indexes.apply(scope, n, vec![put(&doc(100 + n, "later"))]);
        }
        assert_eq!(inside(), 3);
        assert!(indexes.bytes() > before, "what waits is counted");
        assert_eq!(found(&indexes, scope, "later").unwrap().len(), limits::INDEX_WAITING_MAX - 1);
        assert_eq!(inside(), limits::INDEX_WAITING_MAX + 2);
        let changes = (0..limits::INDEX_WAITING_MAX as u64).map(|n| put(&doc(1000 + n, "much"))).collect();
        indexes.apply(scope, 1000, changes);
        assert_eq!(inside(), 2 * limits::INDEX_WAITING_MAX + 2);
    }

    /// Ends the thread that takes in, however a test ends.
    struct Stop<'a>(&'a Indexes);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }

    #[test]
    fn what_waits_is_taken_in_by_the_thread_for_it_or_by_who_brings_too_much() {
        let (indexes, scope) = (Indexes::new(1 << 24), scope());
        build(&indexes, scope, 3).unwrap();
        let index = index_of(&indexes, scope);
        let waits = || match indexes.lock().get(&scope) {
            Some(Slot::Ready { waiting, .. }) => waiting.changes.len(),
            _ => unreachable!(),
        };
        let until = |reached: &dyn Fn() -> bool| {
            while !reached() {
                std::thread::yield_now();
            }
        };
        let put_one = |n| indexes.apply(scope, n, vec![put(&doc(100 + n, "later"))]);
        let (few, many) = (limits::INDEX_WAITING_MAX as u64, limits::INDEX_BEHIND_MAX as u64);
        std::thread::scope(|threads| {
            threads.spawn(|| indexes.keep_up());
            let _stop = Stop(&indexes);
            until(&|| indexes.behind.lock().kept);
            (1..=few).for_each(put_one);
            until(&|| waits() == 0 && index.read().unwrap().len() == 3 + limits::INDEX_WAITING_MAX);
            // Somebody reads the index, so that the thread cannot: nobody else waits before too much does.
            let reading = index.read().unwrap();
            (few + 1..few + many).for_each(put_one);
            assert_eq!(waits(), limits::INDEX_BEHIND_MAX - 1);
            let last = threads.spawn(|| put_one(few + many));
            until(&|| waits() == limits::INDEX_BEHIND_MAX);
            assert!(!last.is_finished());
            drop(reading);
            last.join().unwrap();
            assert_eq!((waits(), index.read().unwrap().len()), (0, 3 + limits::INDEX_WAITING_MAX + limits::INDEX_BEHIND_MAX));
        });
        // Nobody takes in any more but who brings much.
        (many * 2..many * 2 + few).for_each(put_one);
        assert_eq!(waits(), 0);
    }

    #[test]
    fn much_that_waits_for_one_memory_does_not_make_its_index_too_large() {
        let scope = scope();
        let text = "a few words that are written again and again ".repeat(20);
        let full = Indexes::new(usize::MAX);
        build(&full, scope, 3).unwrap();
        full.apply(scope, 1, vec![put(&doc(50, &text))]);
        found(&full, scope, "words");
        // Room for what is in it and a few changes.
        let indexes = Indexes::new(full.bytes() + (1 << 16));
        build(&indexes, scope, 3).unwrap();
        for n in 1..limits::INDEX_WAITING_MAX as u64 {
            indexes.apply(scope, n, vec![put(&doc(50, &text))]);
            assert_eq!(indexes.state(scope), State::Ready, "after {n}");
        }
        assert_eq!(found(&indexes, scope, "again"), Some(vec![id(50)]));
    }

    #[test]
    fn a_scope_that_gives_way_gives_what_waits_at_it_too() {
        let fill = |indexes: &Indexes, [a, b]: [ScopeKey; 2]| {
            build(indexes, a, 3).unwrap();
            build(indexes, b, 3).unwrap();
            assert!(found(indexes, b, "memory").is_some());
            (1..200)
                .for_each(|n| indexes.apply(a, n, vec![put(&doc(100 + n, "a few words that wait at the index of a scope nobody asks"))]));
        };
        let scopes = [scope(), scope()];
        let full = Indexes::new(usize::MAX);
        fill(&full, scopes);
        let indexes = Indexes::new(full.bytes());
        fill(&indexes, scopes);
        let c = scope();
        let mut at_once = indexes.begin(c).unwrap();
        at_once.push(&(0..100).map(|n| made(n, &format!("memory {n} of many"))).collect::<Vec<_>>()).unwrap();
        at_once.finish(0).unwrap();
        assert_eq!([scopes[0], scopes[1], c].map(|scope| indexes.state(scope)), [State::Absent, State::Ready, State::Ready]);
    }

    #[test]
    fn an_index_that_went_while_a_query_waited_for_it_does_not_answer() {
        let (indexes, scope) = (Indexes::new(1 << 24), scope());
        build(&indexes, scope, 3).unwrap();
        let index = index_of(&indexes, scope);
        indexes.apply(scope, 1, vec![put(&doc(7, "acknowledged"))]);
        let reading = index.read().unwrap();
        std::thread::scope(|threads| {
            let query = threads.spawn(|| found(&indexes, scope, "acknowledged"));
            // The slots hold one, this test one: the third is the query's.
            while Arc::strong_count(&index) < 3 {
                std::thread::yield_now();
            }
            indexes.drop_scope(scope);
            drop(reading);
            assert_eq!(query.join().unwrap(), None);
        });
    }

    #[test]
    fn a_vector_that_waits_with_its_memory_is_not_lost() {
        let (indexes, scope) = (Indexes::new(1 << 24), scope());
        build(&indexes, scope, 3).unwrap();
        let vector = || Box::new(Embedding::of(&[0.1, 0.9, 0.2]));
        indexes.apply(
            scope,
            1,
            vec![put(&doc(7, "seven")), Change::Embed(id(7), vector()), put(&doc(8, "eight")), Change::Embed(id(9), vector())],
        );
        let mut vectors = 0;
        indexes.with_ready(scope, |index| index.vectors.cosines(&crate::embed::Probe::of(&[0.1, 0.9, 0.2]), |_, _| vectors += 1));
        assert_eq!(vectors, 1);
    }

    #[test]
    fn waiting_changes_of_many_scopes_stay_within_the_capacity() {
        let indexes = Indexes::new(1 << 20);
        let mut most = 0;
        for _ in 0..100 {
            let scope = scope();
            build(&indexes, scope, 1).unwrap();
            for n in 1..100 {
                indexes.apply(scope, n, vec![put(&doc(n, "a few words that wait at the index of a scope nobody asks"))]);
                most = most.max(indexes.bytes());
            }
        }
        assert!(most < (1 << 20) + (1 << 14), "{most}");
    }

    /// Whoever asks after a change was acknowledged finds it or a later one, and each memory once, while others ask and change.
    ///
    /// `literal` gives candidates, those that hold every trigram: numbers of different widths may share them all, as 22 does with 222.
    #[test]
    fn whoever_asks_finds_what_was_acknowledged_before() {
        let (indexes, scope, acknowledged) = (Indexes::new(1 << 24), scope(), AtomicU64::new(0));
        build(&indexes, scope, 3).unwrap();
        std::thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    loop {
                        let before = acknowledged.load(Ordering::SeqCst);
                        let versions = indexes.with_ready(scope, |index| {
                            let all: Vec<u64> = (before..=before + 300)
                                .filter(|n| !index.literal(&format!("version{n:03}end"), Viewer::All).is_empty())
                                .collect();
                            all
                        });
                        if before > 0 {
                            assert_eq!(versions.unwrap().len(), 1, "of {before}");
                        }
                        if before == 300 {
                            return;
                        }
                    }
                });
            }
            for n in 1..=300 {
                indexes.apply(scope, n, vec![put(&doc(50, &format!("version{n:03}end")))]);
                acknowledged.store(n, Ordering::SeqCst);
            }
        });
    }

    /// A store with one writer, and builders and evictions beside it: whenever the scope is ready after the last commit, it is the store.
    #[test]
    fn builds_under_a_busy_writer_end_with_what_was_committed() {
        let (indexes, scope) = (Indexes::new(1 << 24), scope());
        let store = Mutex::new((0u64, BTreeMap::<u64, String>::new()));
        let done = AtomicBool::new(false);
        let rebuild = || {
            let Some(mut build) = indexes.begin(scope) else { return };
            let (seq, snapshot) = store.lock().unwrap().clone();
            if snapshot.iter().all(|(n, text)| build.push(&[made(*n, text)]).is_ok()) {
                let _ = build.finish(seq);
            }
        };
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for step in 1..3000u64 {
                    let (n, text) = (step * 7919 % 97, format!("text{step} end"));
                    let mut now = store.lock().unwrap();
                    now.0 = step;
                    let change = if step % 3 == 0 {
                        now.1.remove(&n);
                        Change::Remove(id(n))
                    } else {
                        now.1.insert(n, text.clone());
                        put(&doc(n, &text))
                    };
                    drop(now);
                    indexes.apply(scope, step, vec![change]);
                }
                done.store(true, Ordering::SeqCst);
            });
            threads.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    rebuild();
                    std::thread::yield_now();
                    indexes.drop_scope(scope);
                    rebuild();
                    while indexes.state(scope) == State::Ready
                        && indexes.ticks.load(Ordering::Relaxed) % 3 != 0
                        && !done.load(Ordering::SeqCst)
                    {
                        found(&indexes, scope, "end");
                    }
                }
                rebuild();
            });
        });
        let (_, expected) = store.into_inner().unwrap();
        for (n, text) in &expected {
            assert_eq!(found(&indexes, scope, text).unwrap(), [id(*n)]);
        }
        assert_eq!(indexes.with_ready(scope, ScopeIndex::len), Some(expected.len()));
    }
}
