//! Digests of recent memories, in the writer's memory: how an exact repeat is recognised (DESIGN 10, merging).
//!
//! Look-alikes are looked for among a scope's newest [`limits::MERGE_SCAN_MAX`] live memories of the last 48 hours, replies apart. A scope is read from its
//! ORDER rows when it is first asked for, and kept in step by the writer after that.
//!
//! Invariants
//! - The writer alone touches this; what it holds of a scope is what the open transaction would show.
//! - After a batch that did not commit, everything is forgotten ([`Recents::forget`]) and read again.
//! - A hit is a candidate: the caller checks the row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::base::id::MemoryId;
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::engine::Read;
use crate::policy::action::Scope;
use crate::store::tables::memories;
use crate::store::tx::StoreError;

/// A look-alike digest, and the memory that has it: when it was written, and its id.
pub type Digest = ([u8; 16], (Timestamp, MemoryId));

/// What a change means for the live memories of a scope.
pub enum Recent {
    /// This one is live.
    Put(Digest),
    /// This one is not, or not with this digest.
    Remove(Digest),
}

#[derive(Default)]
struct One {
    alike: HashMap<[u8; 16], BTreeSet<(Timestamp, MemoryId)>>,
    order: BTreeMap<(Timestamp, MemoryId), [u8; 16]>,
}

/// All scopes written to of late.
#[derive(Default)]
pub struct Recents {
    scopes: HashMap<Scope, One>,
}

impl Recents {
    /// The newest memory of `scope` with `digest` in the window that ends `now`.
    pub fn find(&mut self, reader: &dyn Read, scope: Scope, digest: &[u8; 16], now: Timestamp) -> Result<Option<MemoryId>, StoreError> {
        let window = u64::try_from(limits::MERGE_WINDOW.as_millis()).expect("48 hours in milliseconds fit 64 bits");
        let since = Timestamp::from_ms(now.ms().saturating_sub(window));
        if !self.scopes.contains_key(&scope) {
            if self.scopes.len() >= limits::MERGE_SCOPES_MAX {
                self.scopes.clear();
            }
            let mut one = One::default();
            memories::recent(reader, scope, since, limits::MERGE_SCAN_MAX)?.into_iter().for_each(|digest| one.put(digest));
            self.scopes.insert(scope, one);
        }
        let one = self.scopes.get_mut(&scope).expect("it was put in above");
        while one.order.first_key_value().is_some_and(|((at, _), _)| *at < since) {
            one.drop_oldest();
        }
        Ok(one.alike.get(digest).and_then(|alike| alike.last()).map(|(_, id)| *id))
    }

    /// Learns of a change in the open batch.
    pub fn learn(&mut self, scope: Scope, change: &Recent) {
        let Some(one) = self.scopes.get_mut(&scope) else { return };
        match change {
            Recent::Put(digest) => one.put(*digest),
            Recent::Remove((digest, place)) => one.remove(digest, place),
        }
    }

    /// Forgets everything: the batch that some of it came from did not commit.
    pub fn forget(&mut self) {
        self.scopes.clear();
    }
}

impl One {
    fn put(&mut self, (digest, place): Digest) {
        self.order.insert(place, digest);
        self.alike.entry(digest).or_default().insert(place);
        if self.order.len() > limits::MERGE_SCAN_MAX {
            self.drop_oldest();
        }
    }

    fn remove(&mut self, digest: &[u8; 16], place: &(Timestamp, MemoryId)) {
        self.order.remove(place);
        if let Some(alike) = self.alike.get_mut(digest) {
            alike.remove(place);
            if alike.is_empty() {
                self.alike.remove(digest);
            }
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((place, digest)) = self.order.pop_first() {
            self.remove(&digest, &place);
        }
    }
}
