//! Digests of recent writes, in the writer's memory: how an exact repeat is recognised (DESIGN 10, merging).
//!
//! Look-alikes are looked for among a scope's newest [`limits::MERGE_SCAN_MAX`] memories of the last 48 hours. A scope is read from its
//! ORDER rows when it is first asked for, and kept in step by the writer after that.
//!
//! Invariants
//! - The writer alone touches this; what it holds of a scope is what the open transaction would show.
//! - After a batch that did not commit, everything is forgotten ([`Recents::forget`]) and read again.
//! - A hit is a candidate: the caller checks the row.

use std::collections::{HashMap, VecDeque};

use crate::base::id::MemoryId;
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::engine::Read;
use crate::policy::action::Scope;
use crate::store::tables::memories;
use crate::store::tx::StoreError;

#[derive(Default)]
struct One {
    newest: HashMap<[u8; 16], MemoryId>,
    order: VecDeque<([u8; 16], MemoryId, Timestamp)>,
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
            for (digest, id, at) in memories::recent(reader, scope, since, limits::MERGE_SCAN_MAX)? {
                one.push(digest, id, at);
            }
            self.scopes.insert(scope, one);
        }
        let one = self.scopes.get_mut(&scope).expect("it was put in above");
        while one.order.front().is_some_and(|(.., at)| *at < since) {
            one.pop();
        }
        Ok(one.newest.get(digest).copied())
    }

    /// Remembers a write of the open batch.
    pub fn push(&mut self, scope: Scope, digest: [u8; 16], id: MemoryId, at: Timestamp) {
        if let Some(one) = self.scopes.get_mut(&scope) {
            one.push(digest, id, at);
        }
    }

    /// Forgets everything: the batch that some of it came from did not commit.
    pub fn forget(&mut self) {
        self.scopes.clear();
    }
}

impl One {
    fn push(&mut self, digest: [u8; 16], id: MemoryId, at: Timestamp) {
        if self.order.len() >= limits::MERGE_SCAN_MAX {
            self.pop();
        }
        self.newest.insert(digest, id);
        self.order.push_back((digest, id, at));
    }

    fn pop(&mut self) {
        if let Some((digest, id, _)) = self.order.pop_front()
            && self.newest.get(&digest) == Some(&id)
        {
            self.newest.remove(&digest);
        }
    }
}
