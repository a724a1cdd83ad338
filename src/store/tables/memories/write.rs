//! Writing memories through the gate: new ones, replies, updates.
//!
//! Invariants
//! - Every change of text leaves the row before it in VERSIONS and raises the record version by one.
//! - An exact repeat is united only with what its writer can see, and only if the tags of both fit one memory: no tag is dropped.

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::embedding;
use super::index::prepared;
use super::memory::{Memory, NewMemory, Part, Replacement, State, Text};
use super::row::{MemoryRow, VersionRow, damaged, granted, key_of_version};
use super::seal::{Sealer, entities, look_alike, opened, seal_tags};
use crate::base::id::{MemoryId, SubjectId, TenantId};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::policy::action::{Action, Scope, Writes};
use crate::store::events::Happened;
use crate::store::gate::Access;
use crate::store::phi::Phi;
use crate::store::tables::{VERSIONS, holders, subjects};
use crate::store::tx::{StoreError, Tx, value};

/// Stages a new memory; an exact repeat of a recent one is united with it instead (DESIGN 10). Gives the memory as it then is.
pub fn insert<A: Writes + Action<Target = Scope>>(a: &mut Access<'_, A>, new: NewMemory) -> Result<Memory, StoreError> {
    let (scope, author, vendor) = (a.target(), a.who().credential().text(), a.who().vendor().map(|v| v.name().to_owned()));
    let tx = a.tx_mut();
    let subject = subject_of(tx, scope, &new)?;
    let digest = look_alike(tx, scope, subject, &new);
    if let Some(merged) = unite(tx, scope, digest, vendor.as_deref(), &new)? {
        return Ok(merged);
    }
    add_new(tx, scope, None, subject, digest, author, new)
}

/// Stages a reply to the granted memory, which is of the asker's own person.
pub fn reply<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>, new: NewMemory) -> Result<Memory, StoreError> {
    let (tenant, parent, found) = granted(a)?;
    let (scope, author, tx) = (found.scope(tenant), a.who().credential().text(), a.tx_mut());
    let subject = subject_of(tx, scope, &new)?;
    let digest = look_alike(tx, scope, subject, &new);
    add_new(tx, scope, Some(parent), subject, digest, author, new)
}

/// Stages new text for the granted memory, made of the one it replaces, which becomes a version. `None` if it is in the trash.
pub fn revise<A: Writes + Action<Target = MemoryId>>(
    a: &mut Access<'_, A>,
    change: impl FnOnce(&Access<'_, A>, &Memory) -> Replacement,
) -> Result<Option<Memory>, StoreError> {
    let (tenant, id, old) = granted(a)?;
    if old.deleted_at.is_some() {
        return Ok(None);
    }
    let before = opened(a.tx(), tenant, id, &old, Part::Full)?;
    let new = change(a, &before);
    let indexed = is_another(&new, &before, &old);
    let tx = a.tx_mut();
    let scope = old.scope(tenant);
    let digest_of = NewMemory {
        text: Text {
            title: new.title,
            content: new.content,
            tags: new.tags,
            metadata: new.metadata.or(before.text.metadata),
            speaker: new.speaker.or(before.text.speaker),
            run_id: new.run_id.or(before.text.run_id),
            subject: before.text.subject,
        },
        origin: old.origin.clone(),
        allowed_vendors: new.allowed_vendors,
        kind: old.kind,
        occurred_at: new.occurred_at.or(old.occurred_at),
        created_at: None,
        prepared: None,
    };
    let digest = look_alike(tx, scope, old.subject, &digest_of);
    let changed = MemoryRow { allowed_vendors: digest_of.allowed_vendors, occurred_at: digest_of.occurred_at, digest, ..old.clone() };
    replace_row(tx, tenant, id, &old, changed, digest_of.text, Happened::Updated, indexed).map(Some)
}

/// Whether an index would keep anything else of the memory once it is replaced: to prepare its words takes time that everybody waits for.
fn is_another(new: &Replacement, before: &Memory, old: &MemoryRow) -> bool {
    fn other(new: &Phi, old: &Phi) -> bool {
        new.inner() != old.inner()
    }
    let given = |new: &Option<Phi>, old: &Option<Phi>| new.as_ref().is_some_and(|new| old.as_ref().is_none_or(|old| other(new, old)));
    let (text, tags) = (
        &before.text,
        before.text.tags.len() != new.tags.len() || before.text.tags.iter().zip(&new.tags).any(|(old, new)| other(new, old)),
    );
    tags || other(&new.title, &text.title)
        || other(&new.content, &text.content)
        || given(&new.speaker, &text.speaker)
        || given(&new.run_id, &text.run_id)
        || new.allowed_vendors != old.allowed_vendors
        || new.occurred_at.is_some_and(|at| old.occurred_at != Some(at))
}

pub(super) fn subject_form(name: &Phi) -> Zeroizing<String> {
    Zeroizing::new(name.inner().nfc().collect())
}

pub(super) fn subject_of(tx: &mut Tx<'_>, scope: Scope, new: &NewMemory) -> Result<Option<SubjectId>, StoreError> {
    new.text.subject.as_ref().map(|name| subjects::find_or_create(tx, scope.tenant, &subject_form(name))).transpose()
}

fn add_new(
    tx: &mut Tx<'_>,
    scope: Scope,
    parent: Option<MemoryId>,
    subject: Option<SubjectId>,
    digest: [u8; 16],
    author: Option<String>,
    new: NewMemory,
) -> Result<Memory, StoreError> {
    let created_at = new.created_at.unwrap_or(tx.now);
    let place = Place { id: MemoryId::draw(created_at), parent, created_at, updated_at: created_at, deleted_at: None };
    add_row(tx, scope, subject, digest, author, place, new)
}

/// What a new row is told, not asked: its id, its place in a thread and its times.
pub(super) struct Place {
    pub(super) id: MemoryId,
    pub(super) parent: Option<MemoryId>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) deleted_at: Option<Timestamp>,
}

pub(super) fn add_row(
    tx: &mut Tx<'_>,
    scope: Scope,
    subject: Option<SubjectId>,
    digest: [u8; 16],
    author: Option<String>,
    place: Place,
    new: NewMemory,
) -> Result<Memory, StoreError> {
    let Place { id, parent, created_at, updated_at, deleted_at } = place;
    let key = holders::field_key(tx, scope, subject, None)?;
    let sealer = Sealer { tx, scope, subject, id, version: 1 };
    let seal = |field: &str, text: &Phi| sealer.seal(&key, field, text.inner().as_bytes());
    let found = MemoryRow {
        owner: scope.owner,
        subject,
        parent,
        entities: entities(tx, scope.tenant, &new.text),
        occurred_at: new.occurred_at,
        created_at,
        updated_at,
        deleted_at,
        kind: new.kind,
        origin: new.origin,
        allowed_vendors: new.allowed_vendors,
        version: 1,
        supersedes: None,
        author,
        shares: Vec::new(),
        confidence: None,
        review: 0,
        valid_from: None,
        valid_to: None,
        digest,
        title: seal("title", &new.text.title),
        content: seal("content", &new.text.content),
        tags: sealer.seal(&key, "tags", &seal_tags(&new.text.tags)),
        metadata: new.text.metadata.as_ref().map(|m| seal("metadata", m)),
        speaker: new.text.speaker.as_ref().map(|s| seal("speaker", s)),
        run_id: new.text.run_id.as_ref().map(|r| seal("run_id", r)),
    };
    found.stage(tx, scope.tenant, id, None);
    let memory = found.memory(id, new.text);
    tx.note(id.bytes());
    tx.note_subject(subject);
    if deleted_at.is_none() {
        tx.tell(scope, Happened::Created, id);
        tx.put_index(scope, || match new.prepared {
            Some(words) => Box::new(words.placed(id, parent, subject, created_at, found.occurred_at)),
            None => prepared(&memory),
        });
    }
    Ok(memory)
}

/// If a recent live memory has this digest: unites the tags, writes a version, and gives it back. One that an agent's `vendor` may not see is
/// left alone: repeating a text must not show what became of it. So is one that would have more tags than a memory holds.
fn unite(tx: &mut Tx<'_>, scope: Scope, digest: [u8; 16], vendor: Option<&str>, new: &NewMemory) -> Result<Option<Memory>, StoreError> {
    let Some(id) = tx.recent(scope, &digest)? else { return Ok(None) };
    let Some(old) = MemoryRow::read(tx, scope.tenant, id)? else { return Ok(None) };
    let late = tx.now > old.created_at.plus(limits::MERGE_WINDOW);
    if old.digest != digest || old.state().0 != State::Live || old.owner != scope.owner || old.parent.is_some() || late {
        return Ok(None);
    }
    if !old.visible_to(vendor) {
        return Ok(None);
    }
    let before = opened(tx, scope.tenant, id, &old, Part::Full)?;
    let mut tags: Vec<Phi> = before.text.tags.iter().map(|t| Phi::new(t.inner().to_owned())).collect();
    for tag in &new.text.tags {
        if !tags.iter().any(|t| t.inner() == tag.inner()) {
            tags.push(Phi::new(tag.inner().to_owned()));
        }
    }
    // The same write again is then united with the newer of the two.
    if tags.len() > limits::TAGS_MAX {
        return Ok(None);
    }
    let text = Text { tags, ..before.text };
    replace_row(tx, scope.tenant, id, &old, old.clone(), text, Happened::Created, true).map(Some)
}

/// Stages `changed` with this text as the next version after `old`; `indexed`: for the search index too.
#[allow(clippy::too_many_arguments, reason = "each of them is another part of one change")]
fn replace_row(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    id: MemoryId,
    old: &MemoryRow,
    changed: MemoryRow,
    text: Text,
    happened: Happened,
    indexed: bool,
) -> Result<Memory, StoreError> {
    let scope = old.scope(tenant);
    let version = old.version.checked_add(1).ok_or(damaged("memories"))?;
    let key = holders::field_key(tx, scope, old.subject, None)?;
    let sealer = Sealer { tx, scope, subject: old.subject, id, version };
    let seal = |field: &str, text: &Phi| sealer.seal(&key, field, text.inner().as_bytes());
    let found = MemoryRow {
        updated_at: tx.now.max(old.updated_at),
        version,
        entities: entities(tx, tenant, &text),
        title: seal("title", &text.title),
        content: seal("content", &text.content),
        tags: sealer.seal(&key, "tags", &seal_tags(&text.tags)),
        metadata: text.metadata.as_ref().map(|m| seal("metadata", m)),
        speaker: text.speaker.as_ref().map(|s| seal("speaker", s)),
        run_id: text.run_id.as_ref().map(|r| seal("run_id", r)),
        ..changed
    };
    let earlier = VersionRow { changed_at: tx.now, memory: old.clone() };
    tx.put(VERSIONS, key_of_version(tenant, id, old.version), value(&earlier));
    found.stage(tx, tenant, id, Some(old));
    embedding::forget(tx, scope, id)?;
    let memory = found.memory(id, text);
    tx.note(id.bytes());
    tx.note_subject(found.subject);
    tx.tell(scope, happened, id);
    if indexed {
        tx.put_index(scope, || prepared(&memory));
    }
    Ok(memory)
}
