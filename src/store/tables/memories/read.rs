//! Reading memories through the gate: one, its versions and thread, pages and walks of a scope.
//!
//! Invariants
//! - What an agent's vendor may not see is not returned to it, nor what is in the trash: by policy where the grant names one memory, and
//!   here where it names a scope.
//! - What is opened for an answer is noted in the audit entry: here, or by the caller through [`answer`].

use std::ops::Bound;

use super::memory::{Memory, Part, State, Version};
use super::row::{
    MemoryRow, OrderPlace, VersionRow, children_of, count, damaged, granted, memory_key, order_key, order_parts, order_prefix,
};
use super::seal::{Entity, EntityKind, entity, named_entities, opened};
use super::trash::Share;
use super::write::subject_form;
use crate::base::id::{MemoryId, SubjectId, TenantId};
use crate::base::time::Timestamp;
use crate::policy::action::{Action, Reads, Scope};
use crate::store::gate::Access;
use crate::store::phi::Phi;
use crate::store::tables::{self, CHILDREN, ORDER, VERSIONS, subjects};
use crate::store::tx::{StoreError, Unanswered, row};

/// The granted memory.
pub fn get<A: Action<Target = MemoryId>>(a: &mut Access<'_, A>, part: Part) -> Result<Memory, StoreError> {
    let (tenant, id, found) = granted(a)?;
    let tx = a.tx_mut();
    tx.note(id.bytes());
    tx.note_subject(found.subject);
    opened(tx, tenant, id, &found, part)
}

/// Whether the granted memory is in the trash. Not noted: nothing of it is told.
pub fn is_trashed<A: Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<bool, StoreError> {
    let (_, id, found) = granted(a)?;
    let trashed = found.deleted_at.is_some();
    a.tx_mut().decided_on = Some((id, found));
    Ok(trashed)
}

/// Earlier versions of the granted memory that the asker may see, newest first, and the number of the current one. A version that was not
/// open to an agent's vendor stays closed to it when a later one is opened.
pub fn versions<A: Reads + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<(Vec<Version>, u32), Unanswered> {
    let (tenant, id, found) = granted(a)?;
    Ok((earlier(a, tenant, id, &found)?, found.version))
}

/// As [`versions`], with the memory as it is.
pub fn history<A: Reads + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<(Vec<Version>, Memory), Unanswered> {
    let (tenant, id, found) = granted(a)?;
    let earlier = earlier(a, tenant, id, &found)?;
    Ok((earlier, opened(a.tx(), tenant, id, &found, Part::Full)?))
}

fn earlier<A: Action>(a: &mut Access<'_, A>, tenant: TenantId, id: MemoryId, found: &MemoryRow) -> Result<Vec<Version>, Unanswered> {
    let vendor = a.who().vendor().map(|v| v.name().to_owned());
    let tx = a.tx_mut();
    tx.note(id.bytes());
    tx.note_subject(found.subject);
    let mut all = Vec::new();
    for item in tx.prefix(VERSIONS, &memory_key(tenant, id))?.rev() {
        let (_, bytes) = item.map_err(StoreError::from)?;
        let version: VersionRow = row("memory_versions", &bytes)?;
        if version.memory.visible_to(vendor.as_deref()) {
            let memory = opened(tx, tenant, id, &version.memory, Part::Full)?;
            tx.make_room(memory.json_bytes())?;
            all.push(Version { memory, changed_at: version.changed_at });
        }
    }
    Ok(all)
}

/// How many replies the granted memory has, trashed ones included.
pub fn count_replies<A: Action<Target = MemoryId>>(a: &Access<'_, A>) -> Result<usize, StoreError> {
    Ok(a.tx().prefix(CHILDREN, &memory_key(a.who().tenant(), a.target()))?.count())
}

/// The replies of a memory, oldest first, by id; whether they are the scope's, live and in the asker's sight is for whoever opens them.
pub fn replies<A: Action<Target = Scope>>(a: &Access<'_, A>, parent: MemoryId) -> Result<Vec<MemoryId>, StoreError> {
    children_of(a.tx(), a.target().tenant, parent)
}

/// The thread of the granted memory: its parent (or itself) and the live replies the asker can see, oldest first. `None` if the asker
/// cannot see the parent.
pub fn thread<A: Reads + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<Option<(Memory, Vec<Memory>)>, Unanswered> {
    let (tenant, id, found) = granted(a)?;
    let vendor = a.who().vendor().map(|v| v.name().to_owned());
    let tx = a.tx_mut();
    let (parent_id, parent) = match found.parent {
        Some(parent) => (parent, MemoryRow::read(tx, tenant, parent)?.ok_or(StoreError::Missing("memories"))?),
        None => (id, found),
    };
    let seen = |row: &MemoryRow| row.owner == parent.owner && row.visible_to(vendor.as_deref());
    if !seen(&parent) || (vendor.is_some() && parent.deleted_at.is_some()) {
        return Ok(None);
    }
    let mut children = Vec::new();
    for child in children_of(tx, tenant, parent_id)? {
        let Some(row) = MemoryRow::read(tx, tenant, child)? else { continue };
        if seen(&row) && row.deleted_at.is_none() {
            let reply = opened(tx, tenant, child, &row, Part::Full)?;
            tx.make_room(reply.json_bytes())?;
            children.push(reply);
        }
    }
    let parent = opened(tx, tenant, parent_id, &parent, Part::Full)?;
    for memory in std::iter::once(&parent).chain(&children) {
        tx.note(memory.id.bytes());
        tx.note_subject(memory.subject);
    }
    Ok(Some((parent, children)))
}

/// How many memories of the scope the asker can see: live ones, or those in the trash. To an agent the trash is no more than this number.
pub fn total<A: Action<Target = Scope>>(a: &Access<'_, A>, state: State) -> Result<u64, StoreError> {
    let (tx, scope) = (a.tx(), a.target());
    match (state, a.who().vendor()) {
        (State::Trash, None) => count(tx, scope, "trash"),
        // Nothing counts these by vendor: one by one.
        (State::Trash, Some(vendor)) => {
            let mut seen = 0;
            for item in tx.prefix(ORDER, &order_prefix(scope, state))? {
                let (_, id) = order_parts(&item?.0).ok_or(damaged("memory_order"))?;
                let found = MemoryRow::read(tx, scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?;
                seen += u64::from(found.visible_to(Some(vendor.name())));
            }
            Ok(seen)
        }
        (State::Live, None) => count(tx, scope, "live"),
        (State::Live, Some(vendor)) => Ok(count(tx, scope, "live:*")? + count(tx, scope, &format!("live:{}", vendor.name()))?),
    }
}

/// How many live memories a walk passes, whoever asks.
pub fn length<A: Action<Target = Scope>>(a: &Access<'_, A>) -> Result<u64, StoreError> {
    count(a.tx(), a.target(), "live")
}

/// Walks the scope's memories in the asker's sight, newest first, opening each as far as `part`, until `take` says stop (false).
pub fn walk<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    state: State,
    part: Part,
    mut take: impl FnMut(&mut Access<'_, A>, Memory) -> bool,
) -> Result<(), StoreError> {
    let (scope, vendor) = (a.target(), a.who().vendor().map(|v| v.name().to_owned()));
    for item in a.tx().prefix(ORDER, &order_prefix(scope, state))?.rev() {
        let (order, _) = item?;
        let (_, id) = order_parts(&order).ok_or(damaged("memory_order"))?;
        let found = MemoryRow::read(a.tx(), scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?;
        if found.visible_to(vendor.as_deref()) {
            let memory = opened(a.tx(), scope.tenant, id, &found, part)?;
            if !take(a, memory) {
                break;
            }
        }
    }
    Ok(())
}

/// A page of the scope's memories in the asker's sight, newest first, by id. None is opened.
pub fn page<A: Reads + Action<Target = Scope>>(
    a: &Access<'_, A>,
    state: State,
    offset: usize,
    limit: usize,
) -> Result<Vec<MemoryId>, StoreError> {
    let (scope, vendor) = (a.target(), a.who().vendor().map(|v| v.name()));
    // Nobody makes us count through everything for an empty page.
    if limit == 0 || u64::try_from(offset).is_ok_and(|offset| offset >= total(a, state).unwrap_or(u64::MAX)) {
        return Ok(Vec::new());
    }
    let (mut found, mut passed) = (Vec::new(), 0);
    for item in a.tx().prefix(ORDER, &order_prefix(scope, state))?.rev() {
        let (_, id) = order_parts(&item?.0).ok_or(damaged("memory_order"))?;
        if vendor.is_some() && !MemoryRow::read(a.tx(), scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?.visible_to(vendor) {
            continue;
        }
        if passed >= offset {
            found.push(id);
        }
        if found.len() >= limit {
            break;
        }
        passed += 1;
    }
    Ok(found)
}

/// When a memory of the scope was written, if it is there, live and in the asker's sight.
pub fn seen<A: Action<Target = Scope>>(a: &Access<'_, A>, id: MemoryId) -> Result<Option<Timestamp>, StoreError> {
    Ok(row_seen(a, id, State::Live)?.map(|found| found.created_at))
}

/// One memory of the scope, if it is there, in this state and in the asker's sight. Not noted: see [`answer`].
pub fn one<A: Action<Target = Scope>>(a: &Access<'_, A>, id: MemoryId, part: Part, state: State) -> Result<Option<Memory>, StoreError> {
    row_seen(a, id, state)?.map(|found| opened(a.tx(), a.target().tenant, id, &found, part)).transpose()
}

/// One memory of the scope, live or in the trash, if it is in the asker's sight. Noted in the audit entry.
pub fn either<A: Action<Target = Scope>>(a: &mut Access<'_, A>, id: MemoryId) -> Result<Option<Memory>, StoreError> {
    let found = match one(a, id, Part::Full, State::Live)? {
        Some(found) => Some(found),
        None => one(a, id, Part::Full, State::Trash)?,
    };
    answer(a, &found);
    Ok(found)
}

/// Notes in the audit entry a memory of the scope that is not there any more.
pub fn mention<A: Action<Target = Scope>>(a: &mut Access<'_, A>, id: MemoryId) {
    a.tx_mut().note(id.bytes());
}

/// Those of `ids` that are there, in this state and in the asker's sight, in the order given. Not noted: see [`answer`].
pub fn several<A: Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    ids: impl IntoIterator<Item = MemoryId>,
    part: Part,
    state: State,
) -> Result<Vec<Memory>, Unanswered> {
    let mut found = Vec::new();
    for id in ids {
        if let Some(memory) = one(a, id, part, state)? {
            a.tx_mut().make_room(memory.json_bytes())?;
            found.push(memory);
        }
    }
    Ok(found)
}

/// What is known of a memory without opening it.
pub struct Outline<'r> {
    /// Which.
    pub id: MemoryId,
    row: &'r MemoryRow,
}

impl Outline<'_> {
    /// Whom it is about.
    pub fn subject(&self) -> Option<SubjectId> {
        self.row.subject
    }

    /// The entities that it names.
    pub fn entities(&self) -> impl Iterator<Item = Entity> {
        self.row.entities.iter().copied().map(Entity)
    }

    /// Whether it is a reply.
    pub fn is_reply(&self) -> bool {
        self.row.parent.is_some()
    }

    /// The memory that it replies to.
    pub fn parent(&self) -> Option<MemoryId> {
        self.row.parent
    }

    /// Whether it was written by `origin`.
    pub fn is_of(&self, origin: &str) -> bool {
        self.row.origin == origin
    }

    /// Takes the reading or the opening of its text out of a commit's share.
    pub fn spend(&self, share: &mut Share) {
        share.spend(self.row);
    }

    /// When it happened, if said.
    pub fn occurred_at(&self) -> Option<Timestamp> {
        self.row.occurred_at
    }

    /// When it was written.
    pub fn created_at(&self) -> Timestamp {
        self.row.created_at
    }

    /// When it was last changed.
    pub fn updated_at(&self) -> Timestamp {
        self.row.updated_at
    }
}

/// Goes through the scope's live memories in the asker's sight, newest first, those before `before`; none is opened. `visit` says whether to go
/// on. Gives the place of the last one seen, or `None` if there are no more.
pub fn survey<A: Action<Target = Scope>, E: From<StoreError>>(
    a: &Access<'_, A>,
    before: Option<OrderPlace>,
    mut visit: impl FnMut(&Access<'_, A>, &Outline<'_>) -> Result<bool, E>,
) -> Result<Option<OrderPlace>, E> {
    let (scope, vendor) = (a.target(), a.who().vendor().map(|v| v.name()));
    let start = order_prefix(scope, State::Live);
    let end = before.map_or_else(|| tables::after(&start), |(at, id)| order_key(scope, State::Live, at, id));
    let range = a.tx().reader.range(ORDER, Bound::Included(&start), Bound::Excluded(&end)).map_err(StoreError::from)?;
    for item in range.rev() {
        let (key, _) = item.map_err(StoreError::from)?;
        let (at, id) = order_parts(&key).ok_or(damaged("memory_order"))?;
        let row = MemoryRow::read(a.tx(), scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?;
        if row.visible_to(vendor) && !visit(a, &Outline { id, row: &row })? {
            return Ok(Some((at, id)));
        }
    }
    Ok(None)
}

/// The outline of one live memory of the scope in the asker's sight, before `look`; `None` if there is no such memory.
pub fn outlined<A: Action<Target = Scope>, T>(
    a: &Access<'_, A>,
    id: MemoryId,
    look: impl FnOnce(&Outline<'_>) -> T,
) -> Result<Option<T>, StoreError> {
    Ok(row_seen(a, id, State::Live)?.map(|row| look(&Outline { id, row: &row })))
}

/// The look-up of an entity by its name.
pub fn entity_named<A: Action<Target = Scope>>(a: &Access<'_, A>, kind: EntityKind, name: &Phi) -> Entity {
    entity(a.tx(), a.target().tenant, kind, name)
}

/// The entities that an opened memory names.
pub fn entities_of<A: Action<Target = Scope>>(a: &Access<'_, A>, memory: &Memory) -> Vec<(EntityKind, Phi, Entity)> {
    let named = named_entities(&memory.text).into_iter();
    named
        .map(|(kind, name)| {
            let key = entity_named(a, kind, &name);
            (kind, name, key)
        })
        .collect()
}

/// Notes in the audit entry that these memories are part of the answer.
pub fn answer<'m, A: Action<Target = Scope>>(a: &mut Access<'_, A>, memories: impl IntoIterator<Item = &'m Memory>) {
    let tx = a.tx_mut();
    for memory in memories {
        tx.note(memory.id.bytes());
        tx.note_subject(memory.subject);
    }
}

fn row_seen<A: Action<Target = Scope>>(a: &Access<'_, A>, id: MemoryId, state: State) -> Result<Option<MemoryRow>, StoreError> {
    let (scope, vendor) = (a.target(), a.who().vendor().map(|v| v.name()));
    let found = MemoryRow::read(a.tx(), scope.tenant, id)?;
    Ok(found.filter(|found| {
        found.owner == scope.owner && found.state().0 == state && found.visible_to(vendor) && (vendor.is_none() || state == State::Live)
    }))
}

/// The subject with this external name, if any memory was ever about it.
pub fn subject_named<A: Action<Target = Scope>>(a: &Access<'_, A>, name: &Phi) -> Result<Option<SubjectId>, StoreError> {
    subjects::find(a.tx(), a.target().tenant, &subject_form(name))
}
