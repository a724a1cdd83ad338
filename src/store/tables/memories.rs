//! Memories: record v1 (DESIGN 10), its order, counts and versions.
//!
//! Sealed: title, content, tags, metadata, speaker, run id. Under the block key: ids, times, enums, vendors, look-alike digest.
//! Field envelope v1: `format u8 | owner DEK no u32 LE | subject DEK no u32 LE (0 = none) | nonce 24 | ciphertext | tag 16`;
//! AAD: `mem1 | instance | tenant | owner | subject or none | record | field | record version | owner DEK no | subject DEK no`.
//!
//! Invariants
//! - A live memory has one row in ORDER under its creation time, a trashed one under its deletion time; COUNTS agree with ORDER.
//! - A version is the row as it was, envelopes untouched: they are bound to the record version that wrote them.
//! - What an agent's vendor may not see is not returned by any function here.

pub(in crate::store) mod check;

use std::collections::BTreeSet;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, is_nfc};
use zeroize::Zeroizing;

use crate::base::codec::CodecError;
use crate::base::id::{MemoryId, SubjectId, TenantId};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::crypto::aead::{self, Aad};
use crate::crypto::hash::hmac_sha256;
use crate::policy::action::{Action, Reads, Scope, Writes};
use crate::policy::{Facts, MemoryFacts};
use crate::store::gate::Access;
use crate::store::index::indexes::Change;
use crate::store::index::prepared::{Doc, Prepared, Visibility};
use crate::store::phi::Phi;
use crate::store::recent::{Digest, Recent};
use crate::store::tables::{Bytes, CHILDREN, COUNTS, MEMORIES, ORDER, VERSIONS, holders, key, subjects};
use crate::store::tx::{FieldKey, StoreError, Tx, Unanswered, row, value};

/// The contract's `memory_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum MemoryType {
    /// What is known.
    #[default]
    Semantic,
    /// What happened.
    Episodic,
    /// How something is done.
    Procedural,
}

impl MemoryType {
    /// All values, in the order of their wire names.
    pub const ALL: [MemoryType; 3] = [MemoryType::Semantic, MemoryType::Episodic, MemoryType::Procedural];

    /// The wire name.
    pub fn name(self) -> &'static str {
        match self {
            MemoryType::Semantic => "semantic",
            MemoryType::Episodic => "episodic",
            MemoryType::Procedural => "procedural",
        }
    }

    /// Reads the wire name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text)
    }
}

/// Live or in the trash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not in the trash.
    Live = 0,
    /// In the trash.
    Trash = 1,
}

/// A memory's row: what stands under the block key, and the envelopes.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::store) struct MemoryRow {
    owner: crate::base::id::UserId,
    subject: Option<SubjectId>,
    parent: Option<MemoryId>,
    /// Keyed look-ups of entities (run and up to four more).
    entities: Vec<[u8; 16]>,
    occurred_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
    kind: MemoryType,
    origin: String,
    allowed_vendors: Vec<String>,
    version: u32,
    supersedes: Option<MemoryId>,
    author: Option<String>,
    shares: Vec<[u8; 16]>,
    // Reserved from the start (DESIGN 10).
    confidence: Option<u16>,
    review: u8,
    valid_from: Option<Timestamp>,
    valid_to: Option<Timestamp>,
    digest: [u8; 16],
    title: Bytes,
    content: Bytes,
    tags: Bytes,
    metadata: Option<Bytes>,
    speaker: Option<Bytes>,
    run_id: Option<Bytes>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct VersionRow {
    changed_at: Timestamp,
    memory: MemoryRow,
}

/// How much of a memory to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Title and tags.
    Summary,
    /// Everything.
    Full,
}

/// The protected text of a memory.
#[derive(Debug)]
pub struct Text {
    /// Title.
    pub title: Phi,
    /// Content; empty in a summary.
    pub content: Phi,
    /// Tags in order.
    pub tags: Vec<Phi>,
    /// A JSON object as text.
    pub metadata: Option<Phi>,
    /// Who said it.
    pub speaker: Option<Phi>,
    /// Which run it belongs to.
    pub run_id: Option<Phi>,
    /// The external name of whom it is about.
    pub subject: Option<Phi>,
}

/// A memory, opened.
#[derive(Debug)]
pub struct Memory {
    /// Its id.
    pub id: MemoryId,
    /// Its text.
    pub text: Text,
    /// Who wrote it.
    pub origin: String,
    /// Which vendors may see it.
    pub allowed_vendors: Vec<String>,
    /// Its type.
    pub kind: MemoryType,
    /// The memory it replies to.
    pub parent: Option<MemoryId>,
    /// Whom it is about.
    pub subject: Option<SubjectId>,
    /// When it happened, if said.
    pub occurred_at: Option<Timestamp>,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was moved to the trash.
    pub deleted_at: Option<Timestamp>,
    /// 1 for a memory never updated.
    pub version: u32,
}

impl Memory {
    /// Bytes of its text as JSON.
    pub fn json_bytes(&self) -> usize {
        let text = &self.text;
        let texts = [&text.title, &text.content].into_iter().chain(&text.tags).chain(&text.metadata).chain(&text.speaker);
        texts.map(Phi::json_bytes).sum()
    }
}

/// A memory as it was before a change.
#[derive(Debug)]
pub struct Version {
    /// The memory as it was; its `version` is the number of this version.
    pub memory: Memory,
    /// When it was changed.
    pub changed_at: Timestamp,
}

/// What a client gives for a new memory.
pub struct NewMemory {
    /// Title, content, tags and the rest.
    pub text: Text,
    /// Who writes.
    pub origin: String,
    /// Who may see.
    pub allowed_vendors: Vec<String>,
    /// Its type.
    pub kind: MemoryType,
    /// When it happened.
    pub occurred_at: Option<Timestamp>,
    /// When it was written, if not now (import).
    pub created_at: Option<Timestamp>,
    /// See [`NewMemory::prepare`].
    pub prepared: Option<Box<Prepared>>,
}

/// What an update replaces.
pub struct Replacement {
    /// New title.
    pub title: Phi,
    /// New content.
    pub content: Phi,
    /// New tags.
    pub tags: Vec<Phi>,
    /// New vendors.
    pub allowed_vendors: Vec<String>,
    /// New metadata; `None` keeps the old.
    pub metadata: Option<Phi>,
    /// New speaker; `None` keeps the old.
    pub speaker: Option<Phi>,
    /// New run; `None` keeps the old.
    pub run_id: Option<Phi>,
    /// New time of the event; `None` keeps the old.
    pub occurred_at: Option<Timestamp>,
}

fn memory_key(tenant: TenantId, id: MemoryId) -> Vec<u8> {
    key(&[tenant.bytes(), id.bytes()])
}

fn order_prefix(scope: Scope, state: State) -> Vec<u8> {
    key(&[scope.tenant.bytes(), scope.owner.bytes(), &[state as u8]])
}

fn order_key(scope: Scope, state: State, at: Timestamp, id: MemoryId) -> Vec<u8> {
    key(&[&order_prefix(scope, state), &at.ms().to_be_bytes(), id.bytes()])
}

fn child_key(tenant: TenantId, parent: MemoryId, at: Timestamp, id: MemoryId) -> Vec<u8> {
    key(&[tenant.bytes(), parent.bytes(), &at.ms().to_be_bytes(), id.bytes()])
}

/// Time and id at the end of a key of ORDER or CHILDREN.
fn order_parts(bytes: &[u8]) -> Option<(Timestamp, MemoryId)> {
    let rest = bytes.get(bytes.len().checked_sub(24)?..)?;
    let (ms, id) = rest.split_first_chunk::<8>()?;
    Some((Timestamp::from_ms(u64::from_be_bytes(*ms)), MemoryId::from_bytes(id.try_into().ok()?)))
}

fn damaged(table: &'static str) -> StoreError {
    StoreError::Row(table, CodecError::Malformed)
}

impl MemoryRow {
    fn read(tx: &Tx<'_>, tenant: TenantId, id: MemoryId) -> Result<Option<Self>, StoreError> {
        tx.get(MEMORIES, &memory_key(tenant, id))?.map(|bytes| row("memories", &bytes)).transpose()
    }

    fn visible_to(&self, vendor: Option<&str>) -> bool {
        vendor.is_none_or(|vendor| self.allowed_vendors.iter().any(|v| v == "*" || v == vendor))
    }

    fn state(&self) -> (State, Timestamp) {
        match self.deleted_at {
            None => (State::Live, self.created_at),
            Some(at) => (State::Trash, at),
        }
    }

    fn scope(&self, tenant: TenantId) -> Scope {
        Scope { tenant, owner: self.owner }
    }

    /// By what an exact repeat of it is found: replies are not united with anything.
    fn alike(&self) -> Option<[u8; 16]> {
        self.parent.is_none().then_some(self.digest)
    }

    /// The same as the value of its row in ORDER.
    fn alike_value(&self) -> Vec<u8> {
        self.alike().map_or(Vec::new(), Vec::from)
    }

    /// Stages the row, its order and its counts; `old` is what it replaces.
    fn stage(&self, tx: &mut Tx<'_>, tenant: TenantId, id: MemoryId, old: Option<&MemoryRow>) {
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
            tx.staged.counts.push((count_key(scope, &name), 1));
        }
    }

    fn unstage_order(&self, tx: &mut Tx<'_>, tenant: TenantId, id: MemoryId, keep_row: bool) {
        let scope = self.scope(tenant);
        let (state, at) = self.state();
        if !keep_row {
            tx.delete(ORDER, order_key(scope, state, at, id));
        }
        if let (State::Live, Some(digest)) = (state, self.alike()) {
            tx.staged.recent.push((scope, Recent::Remove((digest, (at, id)))));
        }
        for name in self.counted() {
            tx.staged.counts.push((count_key(scope, &name), -1));
        }
    }

    /// The counters a row counts in: its state, and while live who may see it (`*`, or each vendor), so that what a vendor sees is
    /// the sum of two counters.
    fn counted(&self) -> Vec<String> {
        if self.deleted_at.is_some() {
            return vec!["trash".to_owned()];
        }
        let mut names = vec!["live".to_owned()];
        if self.allowed_vendors.iter().any(|v| v == "*") {
            names.push("live:*".to_owned());
        } else {
            names.extend(self.allowed_vendors.iter().collect::<BTreeSet<_>>().into_iter().map(|v| format!("live:{v}")));
        }
        names
    }
}

fn count_key(scope: Scope, name: &str) -> Vec<u8> {
    key(&[scope.tenant.bytes(), scope.owner.bytes(), name.as_bytes()])
}

fn count(tx: &Tx<'_>, scope: Scope, name: &str) -> Result<u64, StoreError> {
    match tx.reader.get(COUNTS, &count_key(scope, name))? {
        None => Ok(0),
        Some(bytes) => Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| damaged("memory_counts"))?)),
    }
}

// --- sealing and opening ---

struct Sealer<'a, 't> {
    tx: &'a Tx<'t>,
    scope: Scope,
    subject: Option<SubjectId>,
    id: MemoryId,
    version: u32,
}

impl Sealer<'_, '_> {
    fn aad(&self, field: &str, owner_dek: u32, subject_dek: u32) -> Aad {
        Aad::new("mem1")
            .field(self.tx.common.instance.bytes())
            .field(self.scope.tenant.bytes())
            .field(self.scope.owner.bytes())
            .field(self.subject.as_ref().map_or(&[], |s| s.bytes()))
            .field(self.id.bytes())
            .field(field.as_bytes())
            .number(self.version.into())
            .number(owner_dek.into())
            .number(subject_dek.into())
    }

    fn seal(&self, key: &FieldKey, field: &str, plain: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(9 + aead::OVERHEAD_BYTES + plain.len());
        out.push(1);
        out.extend_from_slice(&key.owner_dek.to_le_bytes());
        out.extend_from_slice(&key.subject_dek.to_le_bytes());
        out.extend(aead::seal(&key.key, &self.aad(field, key.owner_dek, key.subject_dek), plain));
        Bytes(out)
    }

    fn open(&self, field: &str, envelope: &Bytes) -> Result<Vec<u8>, StoreError> {
        let (head, sealed) = envelope.0.split_first_chunk::<9>().ok_or(aead::OpenError)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (owner_dek, subject_dek) = (number(1), number(5));
        if head[0] != 1 || (subject_dek == 0) != self.subject.is_none() {
            return Err(damaged("memories"));
        }
        let key = holders::field_key(self.tx, self.scope, self.subject, Some((owner_dek, subject_dek)))?;
        Ok(aead::open(&key.key, &self.aad(field, owner_dek, subject_dek), sealed)?)
    }

    fn open_text(&self, field: &str, envelope: &Bytes) -> Result<Phi, StoreError> {
        String::from_utf8(self.open(field, envelope)?).map(Phi::new).map_err(|_| damaged("memories"))
    }
}

fn seal_tags(tags: &[Phi]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(value(&tags.iter().map(Phi::inner).collect::<Vec<&str>>()))
}

fn opened(tx: &Tx<'_>, tenant: TenantId, id: MemoryId, found: &MemoryRow, part: Part) -> Result<Memory, StoreError> {
    let sealer = Sealer { tx, scope: found.scope(tenant), subject: found.subject, id, version: found.version };
    let optional = |field: &str, envelope: &Option<Bytes>| match (part, envelope) {
        (Part::Full, Some(envelope)) => sealer.open_text(field, envelope).map(Some),
        _ => Ok(None),
    };
    let tags: Vec<String> = row("memories", &Zeroizing::new(sealer.open("tags", &found.tags)?))?;
    Ok(Memory {
        id,
        text: Text {
            title: sealer.open_text("title", &found.title)?,
            content: if part == Part::Full { sealer.open_text("content", &found.content)? } else { Phi::new(String::new()) },
            tags: tags.into_iter().map(Phi::new).collect(),
            metadata: optional("metadata", &found.metadata)?,
            speaker: optional("speaker", &found.speaker)?,
            run_id: optional("run_id", &found.run_id)?,
            subject: match (part, found.subject) {
                (Part::Full, Some(subject)) => Some(Phi::new(subjects::name(tx, tenant, subject)?)),
                _ => None,
            },
        },
        origin: found.origin.clone(),
        allowed_vendors: found.allowed_vendors.clone(),
        kind: found.kind,
        parent: found.parent,
        subject: found.subject,
        occurred_at: found.occurred_at,
        created_at: found.created_at,
        updated_at: found.updated_at,
        deleted_at: found.deleted_at,
        version: found.version,
    })
}

/// What the search index keeps of a memory.
pub(in crate::store) fn prepared(memory: &Memory) -> Box<Prepared> {
    let text = &memory.text;
    let tags: Zeroizing<Vec<String>> = Zeroizing::new(text.tags.iter().map(|tag| tag.inner().to_owned()).collect());
    Box::new(Prepared::of(&Doc {
        id: memory.id,
        created_at: memory.created_at,
        title: text.title.inner(),
        content: text.content.inner(),
        tags: &tags,
        speaker: text.speaker.as_ref().map(Phi::inner),
        run: text.run_id.as_ref().map(Phi::inner),
        origin: &memory.origin,
        vendors: if memory.allowed_vendors.iter().any(|v| v == "*") {
            Visibility::All
        } else {
            Visibility::Only(&memory.allowed_vendors)
        },
        parent: memory.parent,
        subject: memory.subject,
        occurred_at: memory.occurred_at,
        live: true,
    }))
}

impl NewMemory {
    /// Does what costs time and needs no transaction: the words for the search index. To be called before the work is handed over.
    pub fn prepare(&mut self) {
        let nobody = MemoryId::from_bytes([0; 16]);
        let tags: Zeroizing<Vec<String>> = Zeroizing::new(self.text.tags.iter().map(|tag| tag.inner().to_owned()).collect());
        self.prepared = Some(Box::new(Prepared::of(&Doc {
            id: nobody,
            created_at: Timestamp::default(),
            title: self.text.title.inner(),
            content: self.text.content.inner(),
            tags: &tags,
            speaker: self.text.speaker.as_ref().map(Phi::inner),
            run: self.text.run_id.as_ref().map(Phi::inner),
            origin: &self.origin,
            vendors: if self.allowed_vendors.iter().any(|v| v == "*") {
                Visibility::All
            } else {
                Visibility::Only(&self.allowed_vendors)
            },
            parent: None,
            subject: None,
            occurred_at: self.occurred_at,
            live: true,
        })));
    }
}

/// Digest of all that must be equal for two writes to be one memory (DESIGN 10, merging), tags apart; keyed, 128 bits.
fn look_alike(tx: &Tx<'_>, scope: Scope, subject: Option<SubjectId>, new: &NewMemory) -> [u8; 16] {
    let normal = |text: &Phi| match text.inner().trim() {
        // This runs in the one writer; most text is normal already, which is seen at once.
        text if is_nfc(text) => Zeroizing::new(text.to_owned()),
        text => Zeroizing::new(text.nfc().collect()),
    };
    let optional = |text: &Option<Phi>| Zeroizing::new(text.as_ref().map_or(String::new(), |t| format!("={}", t.inner())));
    let vendors: BTreeSet<&String> = new.allowed_vendors.iter().collect();
    let vendors: Vec<&str> = vendors.into_iter().map(String::as_str).collect();
    let occurred = new.occurred_at.map_or(String::new(), |t| t.to_string());
    let mac = hmac_sha256(
        tx.keys.lookup(),
        &[
            b"alike",
            scope.tenant.bytes(),
            scope.owner.bytes(),
            subject.as_ref().map_or(&[], |s| s.bytes()),
            new.origin.as_bytes(),
            vendors.join(",").as_bytes(),
            new.kind.name().as_bytes(),
            optional(&new.text.run_id).as_bytes(),
            optional(&new.text.speaker).as_bytes(),
            optional(&new.text.metadata).as_bytes(),
            occurred.as_bytes(),
            normal(&new.text.title).as_bytes(),
            normal(&new.text.content).as_bytes(),
        ],
    );
    *mac.first_chunk().expect("32 bytes hold 16")
}

// --- below the gate: facts, and what the index and the checker read ---

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

// --- through the gate ---

fn granted<A: Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<(TenantId, MemoryId, MemoryRow), StoreError> {
    let (tenant, id) = (a.who().tenant(), a.target());
    if let Some((_, found)) = a.tx_mut().decided_on.take_if(|(known, _)| *known == id) {
        return Ok((tenant, id, found));
    }
    let found = MemoryRow::read(a.tx(), tenant, id)?.ok_or(StoreError::Missing("memories"))?;
    Ok((tenant, id, found))
}

/// The granted memory.
pub fn get<A: Action<Target = MemoryId>>(a: &mut Access<'_, A>, part: Part) -> Result<Memory, StoreError> {
    let (tenant, id, found) = granted(a)?;
    let tx = a.tx_mut();
    tx.note(id.bytes());
    tx.note_subject(found.subject);
    opened(tx, tenant, id, &found, part)
}

/// Earlier versions of the granted memory that the asker may see, newest first, and the number of the current one. A version that was not
/// open to an agent's vendor stays closed to it when a later one is opened.
pub fn versions<A: Reads + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<(Vec<Version>, u32), Unanswered> {
    let (tenant, id, found) = granted(a)?;
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
    Ok((all, found.version))
}

/// How many memories of the scope the asker can see: live ones, or those in the trash.
pub fn total<A: Action<Target = Scope>>(a: &Access<'_, A>, state: State) -> Result<u64, StoreError> {
    let (tx, scope) = (a.tx(), a.target());
    match (state, a.who().vendor()) {
        (State::Trash, None) => count(tx, scope, "trash"),
        // To an agent what is in the trash does not exist.
        (State::Trash, Some(_)) => Ok(0),
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

fn row_seen<A: Action<Target = Scope>>(a: &Access<'_, A>, id: MemoryId, state: State) -> Result<Option<MemoryRow>, StoreError> {
    let (scope, vendor) = (a.target(), a.who().vendor().map(|v| v.name()));
    let found = MemoryRow::read(a.tx(), scope.tenant, id)?;
    Ok(found.filter(|found| {
        found.owner == scope.owner && found.state().0 == state && found.visible_to(vendor) && (vendor.is_none() || state == State::Live)
    }))
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

/// Notes in the audit entry that these memories are part of the answer.
pub fn answer<'m, A: Action<Target = Scope>>(a: &mut Access<'_, A>, memories: impl IntoIterator<Item = &'m Memory>) {
    let tx = a.tx_mut();
    for memory in memories {
        tx.note(memory.id.bytes());
        tx.note_subject(memory.subject);
    }
}

/// The subject with this external name, if any memory was ever about it.
pub fn subject_named<A: Action<Target = Scope>>(a: &Access<'_, A>, name: &Phi) -> Result<Option<SubjectId>, StoreError> {
    subjects::find(a.tx(), a.target().tenant, &subject_form(name))
}

fn subject_form(name: &Phi) -> Zeroizing<String> {
    Zeroizing::new(name.inner().nfc().collect())
}

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

fn subject_of(tx: &mut Tx<'_>, scope: Scope, new: &NewMemory) -> Result<Option<SubjectId>, StoreError> {
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
struct Place {
    id: MemoryId,
    parent: Option<MemoryId>,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
}

fn add_row(
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
        entities: new.text.run_id.iter().map(|run| entity(tx, scope.tenant, "run", run)).collect(),
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
    let memory = Memory {
        id,
        text: new.text,
        origin: found.origin,
        allowed_vendors: found.allowed_vendors,
        kind: found.kind,
        parent,
        subject,
        occurred_at: found.occurred_at,
        created_at,
        updated_at,
        deleted_at,
        version: 1,
    };
    tx.note(id.bytes());
    tx.note_subject(subject);
    if deleted_at.is_none() {
        tx.put_index(scope, || match new.prepared {
            Some(words) => Box::new(words.placed(id, parent, subject, created_at, found.occurred_at)),
            None => prepared(&memory),
        });
    }
    Ok(memory)
}

/// A record from elsewhere, with the id it is to have here.
pub struct Imported {
    /// Its id here.
    pub id: MemoryId,
    /// The memory of this scope that it replies to.
    pub parent: Option<MemoryId>,
    /// Its text; `created_at` as it was there, if said.
    pub new: NewMemory,
    /// When it was last changed there; not before it was written.
    pub updated_at: Option<Timestamp>,
    /// When it was moved to the trash there.
    pub deleted_at: Option<Timestamp>,
}

/// Stages a record from elsewhere as a memory of its own: nothing is united with it.
pub fn import<A: Writes + Action<Target = Scope>>(a: &mut Access<'_, A>, from: Imported) -> Result<(), StoreError> {
    let (scope, author) = (a.target(), a.who().credential().text());
    let tx = a.tx_mut();
    let subject = subject_of(tx, scope, &from.new)?;
    let digest = look_alike(tx, scope, subject, &from.new);
    let created_at = from.new.created_at.unwrap_or(tx.now);
    let updated_at = from.updated_at.unwrap_or(created_at);
    let place = Place { id: from.id, parent: from.parent, created_at, updated_at, deleted_at: from.deleted_at };
    add_row(tx, scope, subject, digest, author, place, from.new).map(drop)
}

/// Where an export goes on: memories that begin threads come first, replies after them, so that whoever reads it has seen every parent.
#[derive(Clone, Copy, Debug)]
pub struct ExportPlace {
    replies: bool,
    state: State,
    after: Option<OrderPlace>,
}

impl ExportPlace {
    /// The beginning.
    pub const START: Self = Self { replies: false, state: State::Live, after: None };

    /// The next part of the export: live, then trashed; beginnings, then replies.
    fn next(self) -> Option<Self> {
        match (self.replies, self.state) {
            (replies, State::Live) => Some(Self { replies, state: State::Trash, after: None }),
            (false, State::Trash) => Some(Self { replies: true, state: State::Live, after: None }),
            (true, State::Trash) => None,
        }
    }
}

/// A chunk of all memories of the scope, trash included, oldest first, from `place` on; stops at `rows` looked at or `bytes` of text opened.
/// Gives where to go on, or none at the end.
pub fn export<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    place: ExportPlace,
    rows: usize,
    bytes: usize,
) -> Result<(Vec<Memory>, Option<ExportPlace>), StoreError> {
    let scope = a.target();
    let prefix = order_prefix(scope, place.state);
    let start = place.after.map_or(prefix.clone(), |(at, id)| order_key(scope, place.state, at, id));
    let (mut found, mut opened_bytes, mut last) = (Vec::new(), 0, None);
    let range = a.tx().reader.range(ORDER, Bound::Excluded(&start), Bound::Excluded(&super::after(&prefix)))?;
    let mut looked = 0;
    for item in range.take(rows) {
        let (at, id) = order_parts(&item?.0).ok_or(damaged("memory_order"))?;
        let row = MemoryRow::read(a.tx(), scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?;
        (looked, last) = (looked + 1, Some((at, id)));
        if row.parent.is_some() == place.replies {
            let memory = opened(a.tx(), scope.tenant, id, &row, Part::Full)?;
            opened_bytes += memory.text.content.bytes();
            found.push(memory);
            if opened_bytes >= bytes {
                break;
            }
        }
    }
    answer(a, &found);
    let more = looked == rows || opened_bytes >= bytes;
    let next = if more { Some(ExportPlace { after: last, ..place }) } else { place.next() };
    Ok((found, next))
}

fn entity(tx: &Tx<'_>, tenant: TenantId, kind: &str, text: &Phi) -> [u8; 16] {
    let mac = hmac_sha256(tx.keys.lookup(), &[b"entity", tenant.bytes(), kind.as_bytes(), text.inner().as_bytes()]);
    *mac.first_chunk().expect("32 bytes hold 16")
}

/// If a recent live memory has this digest: unites the tags, writes a version, and gives it back. One that an agent's `vendor` may not see is
/// left alone: repeating a text must not show what became of it.
fn unite(
    tx: &mut Tx<'_>,
    scope: Scope,
    digest: [u8; 16],
    vendor: Option<&str>,
    new: &NewMemory,
) -> Result<Option<Memory>, StoreError> {
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
        if tags.len() < limits::TAGS_MAX && !tags.iter().any(|t| t.inner() == tag.inner()) {
            tags.push(Phi::new(tag.inner().to_owned()));
        }
    }
    let text = Text { tags, ..before.text };
    replace_row(tx, scope.tenant, id, &old, old.clone(), text).map(Some)
}

/// Stages `changed` with this text as the next version after `old`.
fn replace_row(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    id: MemoryId,
    old: &MemoryRow,
    changed: MemoryRow,
    text: Text,
) -> Result<Memory, StoreError> {
    let scope = old.scope(tenant);
    let version = old.version.checked_add(1).ok_or(damaged("memories"))?;
    let key = holders::field_key(tx, scope, old.subject, None)?;
    let sealer = Sealer { tx, scope, subject: old.subject, id, version };
    let seal = |field: &str, text: &Phi| sealer.seal(&key, field, text.inner().as_bytes());
    let found = MemoryRow {
        updated_at: tx.now.max(old.updated_at),
        version,
        entities: text.run_id.iter().map(|run| entity(tx, tenant, "run", run)).collect(),
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
    let memory = Memory {
        id,
        text,
        origin: found.origin,
        allowed_vendors: found.allowed_vendors,
        kind: found.kind,
        parent: found.parent,
        subject: found.subject,
        occurred_at: found.occurred_at,
        created_at: found.created_at,
        updated_at: found.updated_at,
        deleted_at: None,
        version,
    };
    tx.note(id.bytes());
    tx.note_subject(found.subject);
    tx.put_index(scope, || prepared(&memory));
    Ok(memory)
}

fn key_of_version(tenant: TenantId, id: MemoryId, version: u32) -> Vec<u8> {
    key(&[tenant.bytes(), id.bytes(), &version.to_be_bytes()])
}

/// Stages new text for the granted memory; the old text becomes a version. `None` if it is in the trash.
pub fn update<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>, new: Replacement) -> Result<Option<Memory>, StoreError> {
    let (tenant, id, old) = granted(a)?;
    if old.deleted_at.is_some() {
        return Ok(None);
    }
    let tx = a.tx_mut();
    let before = opened(tx, tenant, id, &old, Part::Full)?;
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
    replace_row(tx, tenant, id, &old, changed, digest_of.text).map(Some)
}

/// Moves the granted memory to the trash, and its live replies with it. `None` if it is there already.
pub fn trash<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<Option<Memory>, StoreError> {
    let now = a.tx().now;
    shift(a, State::Live, Some(now))
}

/// Takes the granted memory out of the trash, and its replies with it. `None` if it is not there.
pub fn restore<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>) -> Result<Option<Memory>, StoreError> {
    shift(a, State::Trash, None)
}

fn shift<A: Writes + Action<Target = MemoryId>>(
    a: &mut Access<'_, A>,
    from: State,
    deleted_at: Option<Timestamp>,
) -> Result<Option<Memory>, StoreError> {
    let (tenant, id, old) = granted(a)?;
    if old.state().0 != from {
        return Ok(None);
    }
    let tx = a.tx_mut();
    let memory = shift_row(tx, tenant, id, &old, deleted_at)?;
    for child in children_of(tx, tenant, id)? {
        let Some(found) = MemoryRow::read(tx, tenant, child)? else { continue };
        if found.owner == old.owner && found.state().0 == from {
            shift_row(tx, tenant, child, &found, deleted_at)?;
        }
    }
    Ok(Some(memory))
}

fn shift_row(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    id: MemoryId,
    old: &MemoryRow,
    deleted_at: Option<Timestamp>,
) -> Result<Memory, StoreError> {
    let found = MemoryRow { deleted_at, ..old.clone() };
    found.stage(tx, tenant, id, Some(old));
    tx.note(id.bytes());
    tx.note_subject(old.subject);
    let memory = opened(tx, tenant, id, &found, Part::Full)?;
    match deleted_at {
        Some(_) => tx.staged.index.push((old.scope(tenant), Change::Remove(id))),
        None => tx.put_index(old.scope(tenant), || prepared(&memory)),
    }
    Ok(memory)
}

/// The replies of a memory, oldest first. One that this very work purged is still among them: a range does not see staged deletions.
fn children_of(tx: &Tx<'_>, tenant: TenantId, parent: MemoryId) -> Result<Vec<MemoryId>, StoreError> {
    let keys = tx.prefix(CHILDREN, &memory_key(tenant, parent))?;
    keys.map(|item| Ok(order_parts(&item?.0).ok_or(damaged("memory_children"))?.1)).collect()
}

/// How many replies the granted memory has, trashed ones included.
pub fn count_replies<A: Action<Target = MemoryId>>(a: &Access<'_, A>) -> Result<usize, StoreError> {
    Ok(a.tx().prefix(CHILDREN, &memory_key(a.who().tenant(), a.target()))?.count())
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

/// Removes the granted memory, its versions and its replies for good, live or trashed: at most `rows` rows, oldest versions first. `false` if
/// more are left; the memory itself goes last.
pub fn purge<A: Writes + Action<Target = MemoryId>>(a: &mut Access<'_, A>, mut rows: usize) -> Result<bool, StoreError> {
    let (tenant, id, old) = granted(a)?;
    let tx = a.tx_mut();
    for child in children_of(tx, tenant, id)? {
        if let Some(found) = MemoryRow::read(tx, tenant, child)?
            && !purge_row(tx, tenant, child, &found, &mut rows)?
        {
            tx.note(id.bytes());
            return Ok(false);
        }
    }
    purge_row(tx, tenant, id, &old, &mut rows)
}

/// `false` if `rows` ran out and the memory is still there.
fn purge_row(tx: &mut Tx<'_>, tenant: TenantId, id: MemoryId, old: &MemoryRow, rows: &mut usize) -> Result<bool, StoreError> {
    tx.note(id.bytes());
    tx.note_subject(old.subject);
    for version in tx.prefix(VERSIONS, &memory_key(tenant, id))? {
        if *rows == 0 {
            return Ok(false);
        }
        *rows -= 1;
        let (version, _) = version?;
        tx.delete(VERSIONS, version);
    }
    if *rows == 0 {
        return Ok(false);
    }
    *rows -= 1;
    if let Some(parent) = old.parent {
        tx.delete(CHILDREN, child_key(tenant, parent, old.created_at, id));
    }
    old.unstage_order(tx, tenant, id, false);
    tx.delete(MEMORIES, memory_key(tenant, id));
    tx.staged.index.push((old.scope(tenant), Change::Remove(id)));
    Ok(true)
}

/// Removes up to `most` memories in the scope's trash for good, and at most `rows` rows, versions included; gives how many memories, and
/// whether none is left. A live reply of one of them stays, without its parent.
pub fn purge_trash<A: Writes + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    most: usize,
    mut rows: usize,
) -> Result<(usize, bool), StoreError> {
    let scope = a.target();
    let tx = a.tx_mut();
    let trashed: Vec<Vec<u8>> = (tx.prefix(ORDER, &order_prefix(scope, State::Trash))?.take(most))
        .map(|item| item.map(|(key, _)| key))
        .collect::<Result<_, _>>()?;
    let whole = trashed.len() < most;
    for (removed, order) in trashed.iter().enumerate() {
        let (_, id) = order_parts(order).ok_or(damaged("memory_order"))?;
        let old = MemoryRow::read(tx, scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?;
        if !purge_row(tx, scope.tenant, id, &old, &mut rows)? {
            return Ok((removed, false));
        }
        for child in children_of(tx, scope.tenant, id)? {
            // A trashed reply may be purged by this very run, before or after its parent; then its row is gone already.
            let Some(found) = MemoryRow::read(tx, scope.tenant, child)? else { continue };
            tx.delete(CHILDREN, child_key(scope.tenant, id, found.created_at, child));
            let alone = MemoryRow { parent: None, ..found.clone() };
            alone.stage(tx, scope.tenant, child, Some(&found));
            if alone.deleted_at.is_none() {
                let memory = opened(tx, scope.tenant, child, &alone, Part::Full)?;
                tx.put_index(scope, || prepared(&memory));
            }
        }
    }
    Ok((trashed.len(), whole))
}

/// Where a memory stands in its scope's order.
pub type OrderPlace = (Timestamp, MemoryId);

/// A chunk of the scope's live memories for the search index, oldest first, after `after`; at most `most`.
pub fn chunk<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    after: Option<OrderPlace>,
    most: usize,
) -> Result<(Vec<Memory>, Option<OrderPlace>), StoreError> {
    let scope = a.target();
    let end = super::after(&order_prefix(scope, State::Live));
    let start = match after {
        Some((at, id)) => order_key(scope, State::Live, at, id),
        None => order_prefix(scope, State::Live),
    };
    let mut found = Vec::new();
    let mut last = None;
    let range = a.tx().reader.range(ORDER, Bound::Excluded(&start), Bound::Excluded(&end))?;
    for item in range.take(most) {
        let (at, id) = order_parts(&item?.0).ok_or(damaged("memory_order"))?;
        let row = MemoryRow::read(a.tx(), scope.tenant, id)?.ok_or(StoreError::Missing("memories"))?;
        found.push(opened(a.tx(), scope.tenant, id, &row, Part::Full)?);
        last = Some((at, id));
    }
    Ok((found, last))
}

/// Digests of the scope's newest memories since `since`, oldest first, at most `most`: what look-alikes are compared with.
pub(in crate::store) fn recent(
    reader: &dyn crate::engine::Read,
    scope: Scope,
    since: Timestamp,
    most: usize,
) -> Result<Vec<Digest>, StoreError> {
    let prefix = order_prefix(scope, State::Live);
    let start = key(&[&prefix, &since.ms().to_be_bytes()]);
    let end = super::after(&prefix);
    let mut found = Vec::new();
    for item in reader.range(ORDER, Bound::Included(&start), Bound::Excluded(&end))?.rev().take(most) {
        let (order, digest) = item?;
        let (at, id) = order_parts(&order).ok_or(damaged("memory_order"))?;
        if !digest.is_empty() {
            found.push((digest.try_into().map_err(|_| damaged("memory_order"))?, (at, id)));
        }
    }
    found.reverse();
    Ok(found)
}

/// What every memory says, whosever it is.
#[cfg(test)]
pub(in crate::store) fn contents(tx: &Tx<'_>) -> Result<std::collections::BTreeMap<MemoryId, String>, StoreError> {
    let mut all = std::collections::BTreeMap::new();
    for item in tx.reader.range(MEMORIES, Bound::Unbounded, Bound::Unbounded)? {
        let (key, bytes) = item?;
        let (tenant, id) = key.split_first_chunk::<16>().ok_or(damaged("memories"))?;
        let (tenant, id) = (TenantId::from_bytes(*tenant), MemoryId::from_bytes(id.try_into().map_err(|_| damaged("memories"))?));
        let memory = opened(tx, tenant, id, &row("memories", &bytes)?, Part::Full)?;
        all.insert(id, memory.text.content.inner().to_owned());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_answer_is_counted_as_json() {
        let now = Timestamp::from_ms(1);
        let memory = |content: String| Memory {
            id: MemoryId::draw(now),
            text: Text {
                title: Phi::new("\"\\\n\u{1}é".into()),
                content: Phi::new(content),
                tags: vec![Phi::new("tag".into())],
                metadata: None,
                speaker: None,
                run_id: None,
                subject: None,
            },
            origin: "test".into(),
            allowed_vendors: Vec::new(),
            kind: MemoryType::Semantic,
            parent: None,
            subject: None,
            occurred_at: None,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            version: 1,
        };
        let fixed = 2 + 2 + 2 + 6 + 2 + 3;
        assert_eq!(serde_json::to_string(memory(String::new()).text.title.inner()).unwrap().len(), fixed - 3 + 2);
        assert_eq!(memory("x\u{1f}".into()).json_bytes(), fixed + 7);
    }
}
