//! The rows of a memory as they lie in the file, their keys, and what is staged with each of them.
//!
//! Invariants
//! - [`MemoryRow::stage`] and [`MemoryRow::unstage_order`] alone touch ORDER and COUNTS, so that these agree with MEMORIES.
//! - The row that policy decided on is the row the granted work starts from (`facts`, `granted`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::memory::{Memory, MemoryType, State, Text};
use crate::base::codec::CodecError;
use crate::base::id::{MemoryId, SubjectId, TenantId, UserId};
use crate::base::time::Timestamp;
use crate::policy::action::{Action, Scope};
use crate::policy::{Facts, MemoryFacts};
use crate::store::gate::Access;
use crate::store::recent::Recent;
use crate::store::tables::{Bytes, CHILDREN, COUNTS, MEMORIES, ORDER, key};
use crate::store::tx::{StoreError, Tx, row, value};

/// A memory's row: what stands under the block key, and the envelopes.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::store) struct MemoryRow {
    pub(super) owner: UserId,
    pub(super) subject: Option<SubjectId>,
    pub(super) parent: Option<MemoryId>,
    /// Keyed look-ups of entities: run, agent and application, as far as the text names them.
    pub(super) entities: Vec<[u8; 16]>,
    pub(super) occurred_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) kind: MemoryType,
    pub(super) origin: String,
    pub(super) allowed_vendors: Vec<String>,
    pub(super) version: u32,
    pub(super) supersedes: Option<MemoryId>,
    pub(super) author: Option<String>,
    pub(super) shares: Vec<[u8; 16]>,
    // Reserved from the start (DESIGN 10).
    pub(super) confidence: Option<u16>,
    pub(super) review: u8,
    pub(super) valid_from: Option<Timestamp>,
    pub(super) valid_to: Option<Timestamp>,
    pub(super) digest: [u8; 16],
    pub(super) title: Bytes,
    pub(super) content: Bytes,
    pub(super) tags: Bytes,
    pub(super) metadata: Option<Bytes>,
    pub(super) speaker: Option<Bytes>,
    pub(super) run_id: Option<Bytes>,
}

#[derive(Serialize, Deserialize)]
pub(in crate::store) struct VersionRow {
    pub(super) changed_at: Timestamp,
    pub(super) memory: MemoryRow,
}

pub(super) fn memory_key(tenant: TenantId, id: MemoryId) -> Vec<u8> {
    key(&[tenant.bytes(), id.bytes()])
}

pub(super) fn order_prefix(scope: Scope, state: State) -> Vec<u8> {
    key(&[scope.tenant.bytes(), scope.owner.bytes(), &[state as u8]])
}

pub(super) fn order_key(scope: Scope, state: State, at: Timestamp, id: MemoryId) -> Vec<u8> {
    key(&[&order_prefix(scope, state), &at.ms().to_be_bytes(), id.bytes()])
}

pub(super) fn child_key(tenant: TenantId, parent: MemoryId, at: Timestamp, id: MemoryId) -> Vec<u8> {
    key(&[tenant.bytes(), parent.bytes(), &at.ms().to_be_bytes(), id.bytes()])
}

pub(super) fn key_of_version(tenant: TenantId, id: MemoryId, version: u32) -> Vec<u8> {
    key(&[tenant.bytes(), id.bytes(), &version.to_be_bytes()])
}

/// Where a memory stands in its scope's order.
pub type OrderPlace = (Timestamp, MemoryId);

/// Time and id at the end of a key of ORDER or CHILDREN.
pub(super) fn order_parts(bytes: &[u8]) -> Option<(Timestamp, MemoryId)> {
    let rest = bytes.get(bytes.len().checked_sub(24)?..)?;
    let (ms, id) = rest.split_first_chunk::<8>()?;
    Some((Timestamp::from_ms(u64::from_be_bytes(*ms)), MemoryId::from_bytes(id.try_into().ok()?)))
}

pub(super) fn damaged(table: &'static str) -> StoreError {
    StoreError::Row(table, CodecError::Malformed)
}

impl MemoryRow {
    pub(super) fn read(tx: &Tx<'_>, tenant: TenantId, id: MemoryId) -> Result<Option<Self>, StoreError> {
        tx.get(MEMORIES, [*tenant.bytes(), *id.bytes()].as_flattened())?.map(|bytes| row("memories", &bytes)).transpose()
    }

    pub(super) fn visible_to(&self, vendor: Option<&str>) -> bool {
        vendor.is_none_or(|vendor| self.allowed_vendors.iter().any(|v| v == "*" || v == vendor))
    }

    pub(super) fn state(&self) -> (State, Timestamp) {
        match self.deleted_at {
            None => (State::Live, self.created_at),
            Some(at) => (State::Trash, at),
        }
    }

    /// Bytes of its sealed texts: what it costs to read, move or open it.
    pub(super) fn text_bytes(&self) -> usize {
        let more = [&self.metadata, &self.speaker, &self.run_id];
        self.title.0.len() + self.content.0.len() + self.tags.0.len() + more.into_iter().flatten().map(|text| text.0.len()).sum::<usize>()
    }

    pub(super) fn scope(&self, tenant: TenantId) -> Scope {
        Scope { tenant, owner: self.owner }
    }

    /// The memory of this row, whose text is `text`.
    pub(super) fn memory(&self, id: MemoryId, text: Text) -> Memory {
        Memory {
            id,
            text,
            origin: self.origin.clone(),
            allowed_vendors: self.allowed_vendors.clone(),
            kind: self.kind,
            parent: self.parent,
            subject: self.subject,
            occurred_at: self.occurred_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
            deleted_at: self.deleted_at,
            version: self.version,
        }
    }

    /// By what an exact repeat of it is found: replies are not united with anything.
    pub(super) fn alike(&self) -> Option<[u8; 16]> {
        self.parent.is_none().then_some(self.digest)
    }

    /// The same as the value of its row in ORDER.
    pub(super) fn alike_value(&self) -> Vec<u8> {
        self.alike().map_or(Vec::new(), Vec::from)
    }

    /// Stages the row, its order and its counts; `old` is what it replaces.
    pub(super) fn stage(&self, tx: &mut Tx<'_>, tenant: TenantId, id: MemoryId, old: Option<&MemoryRow>) {
        if let Some(old) = old {
            old.unstage_order(tx, tenant, id, self.state() == old.state());
        }
        let scope = self.scope(tenant);
        let (state, at) = self.state();
        tx.put(MEMORIES, memory_key(tenant, id), value(self));
        tx.put(ORDER, order_key(scope, state, at, id), self.alike_value());
        if let (State::Live, Some(digest)) = (state, self.alike()) {
            tx.staged.recent.push((scope, Recent::Put((digest, (at, id)))));
        }
        if let (Some(parent), None) = (self.parent, old) {
            tx.put(CHILDREN, child_key(tenant, parent, self.created_at, id), Vec::new());
        }
        for name in self.counted() {
            tx.add(count_key(scope, &name), 1);
        }
    }

    pub(super) fn unstage_order(&self, tx: &mut Tx<'_>, tenant: TenantId, id: MemoryId, keep_row: bool) {
        let scope = self.scope(tenant);
        let (state, at) = self.state();
        if !keep_row {
            tx.delete(ORDER, order_key(scope, state, at, id));
        }
        if let (State::Live, Some(digest)) = (state, self.alike()) {
            tx.staged.recent.push((scope, Recent::Remove((digest, (at, id)))));
        }
        for name in self.counted() {
            tx.add(count_key(scope, &name), -1);
        }
    }

    /// The counters a row counts in: its state, and while live who may see it (`*`, or each vendor), so that what a vendor sees is
    /// the sum of two counters.
    pub(super) fn counted(&self) -> Vec<String> {
        if self.deleted_at.is_some() {
            return vec!["trash".to_owned()];
        }
        let mut names = vec!["live".to_owned()];
        if self.allowed_vendors.iter().any(|v| v == "*") {
            names.push("live:*".to_owned());
        } else {
            names.extend(self.allowed_vendors.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().map(|v| format!("live:{v}")));
        }
        names
    }
}

pub(super) fn count_key(scope: Scope, name: &str) -> Vec<u8> {
    key(&[scope.tenant.bytes(), scope.owner.bytes(), name.as_bytes()])
}

pub(super) fn count(tx: &Tx<'_>, scope: Scope, name: &str) -> Result<u64, StoreError> {
    match tx.reader.get(COUNTS, &count_key(scope, name))? {
        None => Ok(0),
        Some(bytes) => Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| damaged("memory_counts"))?)),
    }
}

/// How many live memories the scope has, and by how many what is staged changes that.
pub(in crate::store) fn growth(tx: &Tx<'_>, scope: Scope) -> Result<(u64, i64), StoreError> {
    let name = count_key(scope, "live");
    let staged = tx.staged.counts.get(&name).copied().unwrap_or(0);
    Ok((count(tx, scope, "live")?, staged))
}

/// The replies of a memory with their times, oldest first. One that this very work purged is still among them: a range does not see staged deletions.
pub(super) fn replies_of(tx: &Tx<'_>, tenant: TenantId, parent: MemoryId) -> Result<Vec<OrderPlace>, StoreError> {
    let keys = tx.prefix(CHILDREN, &memory_key(tenant, parent))?;
    keys.map(|item| order_parts(&item?.0).ok_or(damaged("memory_children"))).collect()
}

/// The same without their times.
pub(super) fn children_of(tx: &Tx<'_>, tenant: TenantId, parent: MemoryId) -> Result<Vec<MemoryId>, StoreError> {
    Ok(replies_of(tx, tenant, parent)?.into_iter().map(|(_, id)| id).collect())
}

/// What policy must know of a memory. The row is kept in the view for the work that follows.
pub(in crate::store) fn facts(tx: &mut Tx<'_>, tenant: TenantId, id: MemoryId) -> Result<Facts, StoreError> {
    let Some(found) = MemoryRow::read(tx, tenant, id)? else { return Ok(Facts::Memory(None)) };
    let facts = MemoryFacts {
        tenant,
        owner: found.owner,
        origin: found.origin.clone(),
        allowed_vendors: found.allowed_vendors.clone(),
        trashed: found.deleted_at.is_some(),
    };
    tx.decided_on = Some((id, found));
    Ok(Facts::Memory(Some(facts)))
}

pub(super) fn granted<A: Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<(TenantId, MemoryId, MemoryRow), StoreError> {
    let (tenant, id) = (a.who().tenant(), a.target());
    if let Some((_, found)) = a.tx_mut().decided_on.take_if(|(known, _)| *known == id) {
        return Ok((tenant, id, found));
    }
    let found = MemoryRow::read(a.tx(), tenant, id)?.ok_or(StoreError::Missing("memories"))?;
    Ok((tenant, id, found))
}
