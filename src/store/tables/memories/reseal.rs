//! Sealing a stored memory again, under its holders' newest DEKs: the same text, the same record version, other keys; and its keyed digests
//! under another lookup key.

use super::embedding::EmbeddingRow;
use super::memory::{NewMemory, Part};
use super::row::{MemoryRow, VersionRow, damaged, order_parts};
use super::seal::{Sealer, entities, look_alike, opened};
use crate::base::id::{MemoryId, TenantId};
use crate::engine::Table;
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::{Bytes, EMBEDDINGS, MEMORIES, ORDER, VERSIONS};
use crate::store::tx::{StoreError, Tx, row, value};
use zeroize::Zeroizing;

/// A row of MEMORIES, VERSIONS or EMBEDDINGS as it is to be; `None` if its envelopes are under the newest DEKs already.
pub fn resealed(tx: &Tx<'_>, table: Table, key: &[u8], bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let id = |at: std::ops::Range<usize>| -> Result<[u8; 16], StoreError> {
        key.get(at).and_then(|id| id.try_into().ok()).ok_or(damaged("memories"))
    };
    let (tenant, memory) = (TenantId::from_bytes(id(0..16)?), MemoryId::from_bytes(id(16..32)?));
    if table == MEMORIES {
        let mut found: MemoryRow = row("memories", bytes)?;
        return Ok(reseal(tx, tenant, memory, &mut found)?.then(|| value(&found)));
    }
    if table == EMBEDDINGS {
        return vector_resealed(tx, tenant, memory, bytes);
    }
    debug_assert_eq!(table, VERSIONS, "no other table holds memories");
    let mut found: VersionRow = row("memory_versions", bytes)?;
    Ok(reseal(tx, tenant, memory, &mut found.memory)?.then(|| value(&found)))
}

/// A row of MEMORIES, VERSIONS, EMBEDDINGS or ORDER as it is under new keys of every kind: sealed again, its digests those of the lookup key of `tx`.
pub fn anew(tx: &Tx<'_>, table: Table, key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    if table == ORDER {
        let (tenant, (_, id)) = key.first_chunk::<16>().zip(order_parts(key)).ok_or(damaged("memory_order"))?;
        let tenant = TenantId::from_bytes(*tenant);
        let mut found = MemoryRow::read(tx, tenant, id)?.ok_or(StoreError::Missing("memories"))?;
        (found.entities, found.digest) = digests(tx, tenant, id, &found)?;
        return Ok(found.alike_value());
    }
    let sealed = resealed(tx, table, key, bytes)?.unwrap_or_else(|| bytes.to_vec());
    if table == EMBEDDINGS {
        return Ok(sealed);
    }
    let (tenant, rest) = key.split_first_chunk::<16>().ok_or(damaged("memories"))?;
    let (tenant, id) = (TenantId::from_bytes(*tenant), MemoryId::from_bytes(*rest.first_chunk::<16>().ok_or(damaged("memories"))?));
    let renewed = |found: &mut MemoryRow| -> Result<(), StoreError> {
        (found.entities, found.digest) = digests(tx, tenant, id, found)?;
        Ok(())
    };
    if table == MEMORIES {
        let mut found: MemoryRow = row("memories", &sealed)?;
        renewed(&mut found)?;
        return Ok(value(&found));
    }
    let mut found: VersionRow = row("memory_versions", &sealed)?;
    renewed(&mut found.memory)?;
    Ok(value(&found))
}

/// The look-ups of a stored memory's text, and its look-alike digest.
pub(super) fn digests(tx: &Tx<'_>, tenant: TenantId, id: MemoryId, found: &MemoryRow) -> Result<(Vec<[u8; 16]>, [u8; 16]), StoreError> {
    let text = opened(tx, tenant, id, found, Part::Full)?.text;
    let entities = entities(tx, tenant, &text);
    let same = NewMemory {
        text,
        origin: found.origin.clone(),
        allowed_vendors: found.allowed_vendors.clone(),
        kind: found.kind,
        occurred_at: found.occurred_at,
        created_at: None,
        prepared: None,
    };
    Ok((entities, look_alike(tx, found.scope(tenant), found.subject, &same)))
}

fn vector_resealed(tx: &Tx<'_>, tenant: TenantId, id: MemoryId, bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found: EmbeddingRow = row("embeddings", bytes)?;
    let of = MemoryRow::read(tx, tenant, id)?.ok_or(StoreError::Missing("memories"))?;
    let newest = newest(tx, tenant, &of)?;
    if Sealer::numbers(&found.vector) == Some(newest) {
        return Ok(None);
    }
    let sealer = Sealer { tx, scope: of.scope(tenant), subject: of.subject, id, version: found.version };
    let plain = Zeroizing::new(sealer.open("embedding", &found.vector)?);
    found.vector = sealer.seal(&*holders::field_key(tx, sealer.scope, of.subject, Some(newest))?, "embedding", &plain);
    Ok(Some(value(&found)))
}

/// The numbers of the newest DEKs of a memory's owner and subject.
fn newest(tx: &Tx<'_>, tenant: TenantId, found: &MemoryRow) -> Result<(u32, u32), StoreError> {
    let owner = holders::newest(tx, tenant, Holder::User(found.owner))?;
    let subject = found.subject.map(|subject| holders::newest(tx, tenant, Holder::Subject(subject))).transpose()?;
    Ok((owner, subject.unwrap_or(0)))
}

fn reseal(tx: &Tx<'_>, tenant: TenantId, id: MemoryId, found: &mut MemoryRow) -> Result<bool, StoreError> {
    let newest = newest(tx, tenant, found)?;
    let (scope, about, version) = (found.scope(tenant), found.subject, found.version);
    let sealer = Sealer { tx, scope, subject: about, id, version };
    let mut changed = false;
    let fields: [(&str, Option<&mut Bytes>); 6] = [
        ("title", Some(&mut found.title)),
        ("content", Some(&mut found.content)),
        ("tags", Some(&mut found.tags)),
        ("metadata", found.metadata.as_mut()),
        ("speaker", found.speaker.as_mut()),
        ("run_id", found.run_id.as_mut()),
    ];
    for (field, envelope) in fields {
        let Some(envelope) = envelope.filter(|envelope| Sealer::numbers(envelope) != Some(newest)) else { continue };
        let plain = Zeroizing::new(sealer.open(field, envelope)?);
        let key = holders::field_key(tx, scope, about, Some(newest))?;
        *envelope = sealer.seal(&key, field, &plain);
        changed = true;
    }
    Ok(changed)
}
