//! Holders of data-encryption keys: users, subjects and the tenant. Whoever has a DEK can have their data destroyed with it.
//!
//! Row: all DEKs of one holder, oldest first; the last one seals, any may open (so that two can stand side by side while rotating).
//! AAD of a wrapped DEK: `dek1 | instance | tenant | holder kind | holder id | DEK no | epoch` (the epoch is added by the ladder).
//! AAD of a holder's own field: `holder1 | instance | tenant | holder kind | holder id | field | row | DEK no`.

use serde::{Deserialize, Serialize};

use crate::base::codec::CodecError;
use crate::base::id::{InstanceId, SubjectId, TenantId, UserId};
use crate::crypto::aead::{self, Aad};
use crate::crypto::kdf::{self, Label};
use crate::crypto::ladder::{Keys, WrappedDek};
use crate::crypto::secret::Key;
use crate::policy::action::Scope;
use crate::store::check::{Fault, ensure};
use crate::store::tables::{Bytes, DEKS, key, subjects, users};
use crate::store::tx::{FieldKey, StoreError, Tx, row, value};
use std::sync::Arc;

/// Who holds a DEK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// A person with a sign-in.
    User(UserId),
    /// The person a memory is about.
    Subject(SubjectId),
    /// The workspace itself: its label.
    Tenant,
}

impl Holder {
    /// The number of its kind.
    pub fn kind(self) -> u8 {
        match self {
            Holder::User(_) => 1,
            Holder::Subject(_) => 2,
            Holder::Tenant => 3,
        }
    }

    /// Its id.
    pub fn id(&self, tenant: TenantId) -> [u8; 16] {
        match self {
            Holder::User(id) => *id.bytes(),
            Holder::Subject(id) => *id.bytes(),
            Holder::Tenant => *tenant.bytes(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct DekRow {
    deks: Vec<Dek>,
}

#[derive(Serialize, Deserialize)]
struct Dek {
    number: u32,
    epoch: u32,
    sealed: Bytes,
}

fn dek_key(tenant: TenantId, holder: Holder) -> Vec<u8> {
    key(&[tenant.bytes(), &[holder.kind()], &holder.id(tenant)])
}

fn dek_aad(tx: &Tx<'_>, tenant: TenantId, holder: Holder, number: u32) -> Aad {
    row_aad(tx.common.instance, &dek_key(tenant, holder), number).expect("a key of this table is a tenant, a kind and an id")
}

/// The same for a row with this key.
fn row_aad(instance: InstanceId, key: &[u8], number: u32) -> Option<Aad> {
    let (tenant, rest) = key.split_first_chunk::<16>()?;
    let (kind, id) = rest.split_first().filter(|(_, id)| id.len() == 16)?;
    Some(Aad::of("dek1", &[instance.bytes(), tenant, &[*kind], id]).number(number.into()))
}

/// The epochs under which the holder's DEKs are wrapped; none if there is no such holder.
pub fn epochs(tx: &Tx<'_>, tenant: TenantId, holder: Holder) -> Result<Vec<u32>, StoreError> {
    let Some(bytes) = tx.get(DEKS, &dek_key(tenant, holder))? else { return Ok(Vec::new()) };
    Ok(row::<DekRow>("deks", &bytes)?.deks.iter().map(|dek| dek.epoch).collect())
}

/// Stages the end of the holder's DEKs.
pub fn remove(tx: &mut Tx<'_>, tenant: TenantId, holder: Holder) {
    tx.delete(DEKS, dek_key(tenant, holder));
}

/// A row to be changed: its key, what it was, what it is to be.
pub struct Changed {
    key: Vec<u8>,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// A row of DEKS: its key and its bytes.
pub type RowOf<'r> = (&'r [u8], &'r [u8]);

/// What a row is to be; `None` if it is so already.
pub type ChangeRow = fn(&Tx<'_>, RowOf<'_>) -> Result<Option<Vec<u8>>, StoreError>;

/// Looks for up to `most` rows after `after` that `change` wants otherwise. Gives them, and where to go on if the table goes on.
/// Costs what cryptography costs, so it is done on a snapshot, beside the writer.
pub fn to_change(tx: &Tx<'_>, after: Option<&[u8]>, most: usize, change: ChangeRow) -> Result<(Vec<Changed>, Option<Vec<u8>>), StoreError> {
    let (mut changed, mut seen) = (Vec::new(), 0);
    let low = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    for item in tx.reader.range(DEKS, low, std::ops::Bound::Unbounded)? {
        let (key, old) = item?;
        changed.extend(change(tx, (&key, &old))?.map(|new| Changed { key: key.clone(), old, new }));
        seen += 1;
        if changed.len() == most || seen == SEEN_MAX {
            return Ok((changed, Some(key)));
        }
    }
    Ok((changed, None))
}

/// Rows that one step looks at.
const SEEN_MAX: usize = 50_000;

/// Wraps all DEKs of the row under the newest epoch.
pub fn wrapped_anew(tx: &Tx<'_>, (key, bytes): RowOf<'_>) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found: DekRow = row("deks", bytes)?;
    if found.deks.iter().all(|dek| dek.epoch == tx.keys.epoch()) {
        return Ok(None);
    }
    for dek in &mut found.deks {
        let aad = row_aad(tx.common.instance, key, dek.number).ok_or(StoreError::Row("deks", CodecError::Malformed))?;
        let old = WrappedDek { epoch: dek.epoch, sealed: std::mem::take(&mut dek.sealed.0) };
        let opened = tx.keys.unwrap_dek(&old, &aad).map_err(|_| StoreError::Sealed(aead::OpenError))?;
        let new = tx.keys.wrap_dek(&opened, &aad);
        (dek.epoch, dek.sealed) = (new.epoch, Bytes(new.sealed));
    }
    Ok(Some(value(&found)))
}

/// Gives a holder with one DEK a second one, which seals from then on.
pub fn doubled(tx: &Tx<'_>, (key, bytes): RowOf<'_>) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found: DekRow = row("deks", bytes)?;
    let [only] = found.deks.as_slice() else { return Ok(None) };
    let malformed = || StoreError::Row("deks", CodecError::Malformed);
    let number = only.number.checked_add(1).ok_or_else(malformed)?;
    let wrapped = tx.keys.wrap_dek(&Key::random(), &row_aad(tx.common.instance, key, number).ok_or_else(malformed)?);
    found.deks.push(Dek { number, epoch: wrapped.epoch, sealed: Bytes(wrapped.sealed) });
    Ok(Some(value(&found)))
}

/// The row with one more DEK for its holder, wrapped under the newest epoch of `keys` and derived from `secret`, which is random and kept nowhere:
/// derived, so that it is the same each time it is asked for while a whole file is sealed again. `alone`: without the others.
pub fn followed(keys: &Keys, instance: InstanceId, secret: &Key, (key, bytes): RowOf<'_>, alone: bool) -> Result<Vec<u8>, StoreError> {
    let mut found: DekRow = row("deks", bytes)?;
    let malformed = || StoreError::Row("deks", CodecError::Malformed);
    let number = found.deks.last().and_then(|last| last.number.checked_add(1)).ok_or_else(malformed)?;
    let aad = row_aad(instance, key, number).ok_or_else(malformed)?;
    let wrapped = keys.wrap_dek(&kdf::derive(&[secret.expose()], Label::HolderKey, &[key]), &aad);
    if alone {
        found.deks.clear();
    }
    found.deks.push(Dek { number, epoch: wrapped.epoch, sealed: Bytes(wrapped.sealed) });
    Ok(value(&found))
}

/// Leaves a holder the newest DEK alone: to be asked for once nothing is sealed under the others.
pub fn newest_alone(_: &Tx<'_>, (_, bytes): RowOf<'_>) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found: DekRow = row("deks", bytes)?;
    if found.deks.len() < 2 {
        return Ok(None);
    }
    found.deks.drain(..found.deks.len() - 1);
    Ok(Some(value(&found)))
}

/// Stages changed rows; one that is another meanwhile is changed here. Gives how many changed.
pub fn put_changed(tx: &mut Tx<'_>, rows: Vec<Changed>, change: ChangeRow) -> Result<u64, StoreError> {
    let mut count = 0;
    for Changed { key, old, new } in rows {
        let Some(now) = tx.reader.get(DEKS, &key)? else { continue };
        let new = if now == old { Some(new) } else { change(tx, (&key, &now))? };
        if let Some(new) = new {
            tx.put(DEKS, key, new);
            count += 1;
        }
    }
    Ok(count)
}

/// The number of the holder's DEK that seals.
pub fn newest(tx: &Tx<'_>, tenant: TenantId, holder: Holder) -> Result<u32, StoreError> {
    let bytes = tx.get(DEKS, &dek_key(tenant, holder))?.ok_or(StoreError::Missing("deks"))?;
    Ok(row::<DekRow>("deks", &bytes)?.deks.last().ok_or(StoreError::Missing("deks"))?.number)
}

/// Seals a field of a row about `holder` again, under the newest DEK; whether that was needed.
pub fn reseal(tx: &Tx<'_>, tenant: TenantId, holder: Holder, field: &str, row: &[u8], sealed: &mut Bytes) -> Result<bool, StoreError> {
    let number = sealed.0.first_chunk::<4>().map(|number| u32::from_le_bytes(*number)).ok_or(aead::OpenError)?;
    if number == newest(tx, tenant, holder)? {
        return Ok(false);
    }
    let plain = zeroize::Zeroizing::new(open(tx, tenant, holder, field, row, sealed)?);
    *sealed = seal(tx, tenant, holder, field, row, &plain)?;
    Ok(true)
}

/// Makes the first DEK of a new holder.
pub fn create(tx: &mut Tx<'_>, tenant: TenantId, holder: Holder) {
    let wrapped = tx.keys.wrap_dek(&Key::random(), &dek_aad(tx, tenant, holder, 1));
    let dek = Dek { number: 1, epoch: wrapped.epoch, sealed: Bytes(wrapped.sealed) };
    tx.put(DEKS, dek_key(tenant, holder), value(&DekRow { deks: vec![dek] }));
}

/// The holder's DEK `number`, or the one that seals if `number` is none; with its number.
fn dek(tx: &Tx<'_>, tenant: TenantId, holder: Holder, number: Option<u32>) -> Result<(u32, Key), StoreError> {
    let bytes = tx.get(DEKS, &dek_key(tenant, holder))?.ok_or(StoreError::Missing("deks"))?;
    let found: DekRow = row("deks", &bytes)?;
    let dek = match number {
        None => found.deks.into_iter().next_back(),
        Some(number) => found.deks.into_iter().find(|dek| dek.number == number),
    };
    let dek = dek.ok_or(StoreError::Missing("deks"))?;
    let wrapped = WrappedDek { epoch: dek.epoch, sealed: dek.sealed.0 };
    let key = tx.keys.unwrap_dek(&wrapped, &dek_aad(tx, tenant, holder, dek.number)).map_err(|_| StoreError::Sealed(aead::OpenError))?;
    Ok((dek.number, key))
}

/// The key for the fields of a memory of `scope` about `subject`. `numbers` are those of an envelope, or none to seal.
pub fn field_key(tx: &Tx<'_>, scope: Scope, subject: Option<SubjectId>, numbers: Option<(u32, u32)>) -> Result<Arc<FieldKey>, StoreError> {
    // Sealing uses number 0 in the cache's name: "the current one".
    let (owner_dek, subject_dek) = numbers.unwrap_or((0, 0));
    let name = (scope.tenant, scope.owner, subject, owner_dek, subject_dek);
    if let Some(key) = tx.common.field_keys.get(&name) {
        return Ok(key);
    }
    let (owner_dek, owner_key) = dek(tx, scope.tenant, Holder::User(scope.owner), numbers.map(|n| n.0))?;
    let derived = match subject {
        None => {
            let key = kdf::derive(&[owner_key.expose()], Label::MemoryField, &[]);
            FieldKey { key, owner_dek, subject_dek: 0 }
        }
        Some(subject) => {
            let (subject_dek, subject_key) = dek(tx, scope.tenant, Holder::Subject(subject), numbers.map(|n| n.1))?;
            let key = kdf::derive(&[owner_key.expose(), subject_key.expose()], Label::MemoryField, &[]);
            FieldKey { key, owner_dek, subject_dek }
        }
    };
    let derived = Arc::new(derived);
    if tx.committed {
        tx.common.field_keys.put(name, Arc::clone(&derived), tx.generation.unwrap_or(0));
    }
    Ok(derived)
}

/// Seals one field of a row about `holder` alone: DEK no u32 LE, then nonce | ciphertext | tag.
pub fn seal(tx: &Tx<'_>, tenant: TenantId, holder: Holder, field: &str, row: &[u8], plain: &[u8]) -> Result<Bytes, StoreError> {
    let (number, dek) = dek(tx, tenant, holder, None)?;
    let key = kdf::derive(&[dek.expose()], Label::HolderField, &[]);
    let mut out = number.to_le_bytes().to_vec();
    out.extend(aead::seal(&key, &holder_aad(tx, tenant, holder, field, row, number), plain));
    Ok(Bytes(out))
}

/// Opens what [`seal`] made for the same tenant, holder, field and row.
pub fn open(tx: &Tx<'_>, tenant: TenantId, holder: Holder, field: &str, row: &[u8], sealed: &Bytes) -> Result<Vec<u8>, StoreError> {
    let (number, rest) = sealed.0.split_first_chunk::<4>().ok_or(aead::OpenError)?;
    let number = u32::from_le_bytes(*number);
    let (_, dek) = dek(tx, tenant, holder, Some(number))?;
    let key = kdf::derive(&[dek.expose()], Label::HolderField, &[]);
    Ok(aead::open(&key, &holder_aad(tx, tenant, holder, field, row, number), rest)?)
}

fn holder_aad(tx: &Tx<'_>, tenant: TenantId, holder: Holder, field: &str, row: &[u8], number: u32) -> Aad {
    let instance = tx.common.instance.bytes();
    Aad::of("holder1", &[instance, tenant.bytes(), &[holder.kind()], &holder.id(tenant), field.as_bytes(), row]).number(number.into())
}

/// A row of DEKS: its holder exists, and each of its keys opens.
pub fn check(tx: &Tx<'_>, tenant: TenantId, row_key: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let (kind, id) = row_key
        .strip_prefix(tenant.bytes())
        .and_then(|rest| Some((*rest.first()?, rest[1..].try_into().ok()?)))
        .ok_or(Fault::Wrong("not a key of this table"))?;
    let (holder, there) = match kind {
        1 => (Holder::User(UserId::from_bytes(id)), users::exists(tx, tenant, UserId::from_bytes(id))?),
        2 => (Holder::Subject(SubjectId::from_bytes(id)), subjects::exists(tx, tenant, SubjectId::from_bytes(id))?),
        _ => (Holder::Tenant, row_key == dek_key(tenant, Holder::Tenant)),
    };
    ensure(there, "the key of a holder that is not there")?;
    let found: DekRow = row("deks", bytes)?;
    ensure(!found.deks.is_empty(), "a holder without a key")?;
    found.deks.iter().try_for_each(|each| dek(tx, tenant, holder, Some(each.number)).map(drop).map_err(Fault::from))
}
