//! The vectors of memories: sealed as a field of their memory, in a table of their own, as they come after the memory and can be made again.
//!
//! Invariants
//! - A row of EMBEDDINGS is of a live memory and of its version: new text, the trash and the end of a memory take it away in the same commit.
//! - COUNTS has how many rows each model has in a scope, so what is still to do is known without a look at the rows.
//! - A vector opens only as the embedding of the memory and version it was made of, under the keys that open their text.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::memory::{Memory, Part, State};
use super::row::{MemoryRow, OrderPlace, count_key, damaged, memory_key, order_key, order_parts, order_prefix};
use super::seal::{Sealer, opened};
use crate::base::hex;
use crate::base::id::{MemoryId, TenantId, UserId};
use crate::embed::{Embedding, ModelId};
use crate::policy::action::{Action, Reads, Scope, Writes};
use crate::store::gate::Access;
use crate::store::index::indexes::Change;
use crate::store::phi::Phi;
use crate::store::tables::{Bytes, COUNTS, EMBEDDINGS, ORDER, holders};
use crate::store::tx::{StoreError, Tx, row, value};

/// Which model made the vector, of which version of the memory; and the vector, sealed.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct EmbeddingRow {
    pub(super) model: ModelId,
    pub(super) version: u32,
    pub(super) vector: Bytes,
}

/// A text without a vector of the model in use.
pub struct Unembedded {
    /// Whose text.
    pub id: MemoryId,
    /// The version that it is of.
    pub version: u32,
    /// What is embedded.
    pub text: Zeroizing<String>,
}

/// How far a scope's vectors are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// Live memories.
    pub live: u64,
    /// Those that have a vector of the model.
    pub embedded: u64,
}

impl EmbeddingRow {
    fn read(tx: &Tx<'_>, tenant: TenantId, id: MemoryId) -> Result<Option<Self>, StoreError> {
        tx.get(EMBEDDINGS, &memory_key(tenant, id))?.map(|bytes| row("embeddings", &bytes)).transpose()
    }

    /// The vector, which is of `found`.
    pub(super) fn open(&self, tx: &Tx<'_>, tenant: TenantId, id: MemoryId, found: &MemoryRow) -> Result<Embedding, StoreError> {
        let sealer = Sealer { tx, scope: found.scope(tenant), subject: found.subject, id, version: self.version };
        let bytes = Zeroizing::new(sealer.open("embedding", &self.vector)?);
        Embedding::from_bytes(&bytes).ok_or(damaged("embeddings"))
    }
}

/// The name of the counter of a model's vectors.
pub(super) fn counter(model: &ModelId) -> String {
    format!("embedded:{}", hex::encode(model))
}

/// Stages the end of a memory's vector, if it has one.
pub(super) fn forget(tx: &mut Tx<'_>, scope: Scope, id: MemoryId) -> Result<(), StoreError> {
    if let Some(old) = EmbeddingRow::read(tx, scope.tenant, id)? {
        tx.delete(EMBEDDINGS, memory_key(scope.tenant, id));
        tx.add(count_key(scope, &counter(&old.model)), -1);
    }
    Ok(())
}

/// The vector that `model` made of this memory, if there is one.
pub(in crate::store) fn vector(tx: &Tx<'_>, tenant: TenantId, memory: &Memory, model: &ModelId) -> Result<Option<Embedding>, StoreError> {
    let Some(found) = EmbeddingRow::read(tx, tenant, memory.id)?.filter(|row| row.model == *model && row.version == memory.version) else {
        return Ok(None);
    };
    let Some(of) = MemoryRow::read(tx, tenant, memory.id)? else { return Ok(None) };
    found.open(tx, tenant, memory.id, &of).map(Some)
}

/// What of a memory is embedded: its title, unless the content begins with it, and its content, without the name of its speaker in front.
fn text_of(memory: &Memory) -> Zeroizing<String> {
    let (title, content) = (memory.text.title.inner(), memory.text.content.inner());
    let speaker = memory.text.speaker.as_ref().map_or("", Phi::inner);
    let said = content.strip_prefix(speaker).and_then(|rest| rest.strip_prefix(':')).filter(|_| !speaker.is_empty());
    let content = said.map_or(content, str::trim_start);
    let mut text = Zeroizing::new(String::with_capacity(title.len() + 1 + content.len()));
    if !content.starts_with(title.trim_end_matches('…')) {
        text.push_str(title);
        text.push('\n');
    }
    text.push_str(content);
    text
}

fn unembedded(tx: &Tx<'_>, scope: Scope, id: MemoryId, model: &ModelId) -> Result<Option<Unembedded>, StoreError> {
    let Some(found) = MemoryRow::read(tx, scope.tenant, id)?.filter(|row| row.owner == scope.owner && row.deleted_at.is_none()) else {
        return Ok(None);
    };
    if EmbeddingRow::read(tx, scope.tenant, id)?.is_some_and(|row| row.model == *model && row.version == found.version) {
        return Ok(None);
    }
    let text = text_of(&opened(tx, scope.tenant, id, &found, Part::Full)?);
    Ok(Some(Unembedded { id, version: found.version, text }))
}

/// Those of `ids` that are live memories of the scope without a vector of `model`.
pub fn unembedded_of<A: Reads + Action<Target = Scope>>(
    a: &Access<'_, A>,
    ids: &[MemoryId],
    model: &ModelId,
) -> Result<Vec<Unembedded>, StoreError> {
    let found: Result<Vec<_>, _> = ids.iter().map(|id| unembedded(a.tx(), a.target(), *id, model)).collect();
    Ok(found?.into_iter().flatten().collect())
}

/// Live memories of the scope without a vector of `model`, newest first, older than `before`: at most `most` of them, `rows` looked at. Gives
/// where to go on, or none at the end.
pub fn unembedded_before<A: Reads + Action<Target = Scope>>(
    a: &Access<'_, A>,
    before: Option<OrderPlace>,
    model: &ModelId,
    most: usize,
    rows: usize,
) -> Result<(Vec<Unembedded>, Option<OrderPlace>), StoreError> {
    let (scope, tx) = (a.target(), a.tx());
    let low = order_prefix(scope, State::Live);
    let high = before.map_or_else(|| crate::store::tables::after(&low), |(at, id)| order_key(scope, State::Live, at, id));
    let (mut found, mut looked) = (Vec::new(), 0);
    for item in tx.reader.range(ORDER, std::ops::Bound::Included(&low), std::ops::Bound::Excluded(&high))?.rev() {
        let (at, id) = order_parts(&item?.0).ok_or(damaged("memory_order"))?;
        // Most have one, which is seen without a look at the memory: the row goes when its memory changes.
        if EmbeddingRow::read(tx, scope.tenant, id)?.is_none_or(|row| row.model != *model) {
            found.extend(unembedded(tx, scope, id, model)?);
        }
        looked += 1;
        if found.len() == most || looked == rows {
            return Ok((found, Some((at, id))));
        }
    }
    Ok((found, None))
}

/// Stages the vectors that `model` made; those whose memory has changed or gone meanwhile are dropped. Gives how many were kept.
pub fn embed<A: Writes + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    model: &ModelId,
    made: Vec<(MemoryId, u32, Embedding)>,
) -> Result<u64, StoreError> {
    let (scope, tx) = (a.target(), a.tx_mut());
    let mut kept = 0;
    for (id, version, embedding) in made {
        let found = MemoryRow::read(tx, scope.tenant, id)?;
        let Some(found) = found.filter(|row| row.owner == scope.owner && row.deleted_at.is_none() && row.version == version) else {
            continue;
        };
        forget(tx, scope, id)?;
        let key = holders::field_key(tx, scope, found.subject, None)?;
        let sealer = Sealer { tx, scope, subject: found.subject, id, version };
        let vector = sealer.seal(&key, "embedding", &embedding.to_bytes());
        tx.put(EMBEDDINGS, memory_key(scope.tenant, id), value(&EmbeddingRow { model: *model, version, vector }));
        tx.add(count_key(scope, &counter(model)), 1);
        tx.note(id.bytes());
        tx.note_subject(found.subject);
        if tx.indexes.is_some_and(|indexes| indexes.wants((scope.tenant, scope.owner))) {
            tx.staged.index.push((scope, Change::Embed(id, Box::new(embedding))));
        }
        kept += 1;
    }
    Ok(kept)
}

/// How far each owner's vectors of `model` are.
pub(in crate::store) fn progress(tx: &Tx<'_>, tenant: TenantId, model: &ModelId) -> Result<Vec<(UserId, Progress)>, StoreError> {
    let mut all: Vec<(UserId, Progress)> = Vec::new();
    let counter = counter(model);
    for item in tx.prefix(COUNTS, tenant.bytes())? {
        let (key, bytes) = item?;
        let (owner, name) = key[16..].split_first_chunk::<16>().ok_or(damaged("memory_counts"))?;
        let count = u64::from_le_bytes(bytes.try_into().map_err(|_| damaged("memory_counts"))?);
        let owner = UserId::from_bytes(*owner);
        if all.last().is_none_or(|(last, _)| *last != owner) {
            all.push((owner, Progress::default()));
        }
        let Some((_, progress)) = all.last_mut() else { continue };
        match name {
            b"live" => progress.live = count,
            name if name == counter.as_bytes() => progress.embedded = count,
            _ => {}
        }
    }
    Ok(all)
}
