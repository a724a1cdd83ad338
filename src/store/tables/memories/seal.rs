//! Sealing a memory's fields and opening them; the keyed digests by which equal texts are found.
//!
//! Field envelope v1: `format u8 | owner DEK no u32 LE | subject DEK no u32 LE (0 = none) | nonce 24 | ciphertext | tag 16`;
//! AAD: `mem1 | instance | tenant | owner | subject or none | record | field | record version | owner DEK no | subject DEK no`.
//!
//! Invariants
//! - An envelope opens only as the field, record version, owner and subject it was sealed for.
//! - No digest can be computed, and so no text guessed, without the lookup key.

use std::collections::BTreeSet;

use serde::Deserialize;
use unicode_normalization::{UnicodeNormalization, is_nfc};
use zeroize::Zeroizing;

use super::memory::{Memory, NewMemory, Part, Text};
use super::row::{MemoryRow, damaged};
use crate::base::id::{MemoryId, SubjectId, TenantId};
use crate::base::limits;
use crate::crypto::aead::{self, Aad};
use crate::crypto::hash::hmac_sha256;
use crate::policy::action::Scope;
use crate::store::phi::Phi;
use crate::store::tables::{Bytes, holders, subjects};
use crate::store::tx::{FieldKey, StoreError, Tx, row, value};

pub(super) struct Sealer<'a, 't> {
    pub(super) tx: &'a Tx<'t>,
    pub(super) scope: Scope,
    pub(super) subject: Option<SubjectId>,
    pub(super) id: MemoryId,
    pub(super) version: u32,
}

impl Sealer<'_, '_> {
    fn aad(&self, field: &str, owner_dek: u32, subject_dek: u32) -> Aad {
        let (instance, scope) = (self.tx.common.instance.bytes(), self.scope);
        let subject = self.subject.as_ref().map_or(&[][..], |subject| subject.bytes());
        Aad::of("mem1", &[instance, scope.tenant.bytes(), scope.owner.bytes(), subject, self.id.bytes(), field.as_bytes()])
            .number(self.version.into())
            .number(owner_dek.into())
            .number(subject_dek.into())
    }

    pub(super) fn seal(&self, key: &FieldKey, field: &str, plain: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(9 + aead::OVERHEAD_BYTES + plain.len());
        out.push(1);
        out.extend_from_slice(&key.owner_dek.to_le_bytes());
        out.extend_from_slice(&key.subject_dek.to_le_bytes());
        out.extend(aead::seal(&key.key, &self.aad(field, key.owner_dek, key.subject_dek), plain));
        Bytes(out)
    }

    /// The numbers of the DEKs that an envelope was sealed under: owner's and subject's.
    pub(super) fn numbers(envelope: &Bytes) -> Option<(u32, u32)> {
        let number = |at: usize| Some(u32::from_le_bytes(envelope.0.get(at..at + 4)?.try_into().ok()?));
        Some((number(1)?, number(5)?))
    }

    pub(super) fn open(&self, field: &str, envelope: &Bytes) -> Result<Vec<u8>, StoreError> {
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

pub(super) fn seal_tags(tags: &[Phi]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(value(&tags.iter().map(Phi::inner).collect::<Vec<&str>>()))
}

pub(super) fn opened(tx: &Tx<'_>, tenant: TenantId, id: MemoryId, found: &MemoryRow, part: Part) -> Result<Memory, StoreError> {
    let sealer = Sealer { tx, scope: found.scope(tenant), subject: found.subject, id, version: found.version };
    let optional = |field: &str, envelope: &Option<Bytes>| match (part, envelope) {
        (Part::Full, Some(envelope)) => sealer.open_text(field, envelope).map(Some),
        _ => Ok(None),
    };
    let tags: Vec<String> = row("memories", &Zeroizing::new(sealer.open("tags", &found.tags)?))?;
    let text = Text {
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
    };
    Ok(found.memory(id, text))
}

/// One of the ways in which Unicode writes the same characters. This runs in the one writer; most text is normal already, which is seen at once.
fn normal(text: &str) -> Zeroizing<String> {
    if is_nfc(text) { Zeroizing::new(text.to_owned()) } else { Zeroizing::new(text.nfc().collect()) }
}

/// Digest of all that must be equal for two writes to be one memory (DESIGN 10, merging), tags apart; keyed, 128 bits.
pub(super) fn look_alike(tx: &Tx<'_>, scope: Scope, subject: Option<SubjectId>, new: &NewMemory) -> [u8; 16] {
    let normal = |text: &Phi| normal(text.inner().trim());
    let optional = |text: &Option<Phi>| Zeroizing::new(text.as_ref().map_or(String::new(), |t| format!("={}", t.inner())));
    let vendors: BTreeSet<&str> = new.allowed_vendors.iter().map(String::as_str).collect();
    let vendors: Vec<&str> = vendors.into_iter().collect();
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

/// What kind of thing an entity look-up names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EntityKind {
    /// A run: the memory's `run_id`.
    Run,
    /// An agent: `agent_id` in its metadata.
    Agent,
    /// An application: `app_id` in its metadata.
    App,
}

impl EntityKind {
    fn label(self) -> &'static [u8] {
        match self {
            EntityKind::Run => b"run",
            EntityKind::Agent => b"agent",
            EntityKind::App => b"app",
        }
    }
}

/// Keyed look-up of an entity: says whether two memories name the same one (NFC), and not which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entity(pub(super) [u8; 16]);

pub(super) fn entity(tx: &Tx<'_>, tenant: TenantId, kind: EntityKind, text: &Phi) -> Entity {
    let mac = hmac_sha256(tx.keys.lookup(), &[b"entity", tenant.bytes(), kind.label(), normal(text.inner()).as_bytes()]);
    Entity(*mac.first_chunk().expect("32 bytes hold 16"))
}

/// The names in a metadata object that are look-ups too: texts of at most [`limits::NAME_CHARS_MAX`] characters.
#[derive(Deserialize)]
struct MetadataNames {
    agent_id: Option<serde_json::Value>,
    app_id: Option<serde_json::Value>,
}

/// Every entity that a text names, each with its name.
pub(super) fn named_entities(text: &Text) -> Vec<(EntityKind, Phi)> {
    let mut named: Vec<_> = text.run_id.iter().map(|run| (EntityKind::Run, Phi::new(run.inner().to_owned()))).collect();
    // This runs in the one writer: metadata that cannot name any is not read.
    let names = text.metadata.as_ref().map(Phi::inner).filter(|json| json.contains("\"agent_id\"") || json.contains("\"app_id\""));
    if let Some(MetadataNames { agent_id, app_id }) = names.and_then(|json| serde_json::from_str(json).ok()) {
        for (kind, value) in [(EntityKind::Agent, agent_id), (EntityKind::App, app_id)] {
            if let Some(serde_json::Value::String(name)) = value {
                let name = Phi::new(name);
                if (1..=limits::NAME_CHARS_MAX).contains(&name.inner().chars().count()) {
                    named.push((kind, name));
                }
            }
        }
    }
    named
}

/// The look-ups of a text, as its row keeps them.
pub(super) fn entities(tx: &Tx<'_>, tenant: TenantId, text: &Text) -> Vec<[u8; 16]> {
    named_entities(text).iter().map(|(kind, name)| entity(tx, tenant, *kind, name).0).collect()
}

/// What every memory says, whosever it is.
#[cfg(test)]
pub(in crate::store) fn contents(tx: &Tx<'_>) -> Result<std::collections::BTreeMap<MemoryId, String>, StoreError> {
    let mut all = std::collections::BTreeMap::new();
    for item in tx.reader.range(crate::store::tables::MEMORIES, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded)? {
        let (key, bytes) = item?;
        let (tenant, id) = key.split_first_chunk::<16>().ok_or(damaged("memories"))?;
        let (tenant, id) = (TenantId::from_bytes(*tenant), MemoryId::from_bytes(id.try_into().map_err(|_| damaged("memories"))?));
        let memory = opened(tx, tenant, id, &row("memories", &bytes)?, Part::Full)?;
        all.insert(id, memory.text.content.inner().to_owned());
    }
    Ok(all)
}
