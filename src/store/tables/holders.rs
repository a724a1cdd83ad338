//! Holders of data-encryption keys: users, subjects and the tenant. Whoever has a DEK can have their data destroyed with it.
//!
//! Row: all DEKs of one holder, oldest first; the last one seals, any may open (so that two can stand side by side while rotating).
//! AAD of a wrapped DEK: `dek1 | instance | tenant | holder kind | holder id | DEK no | epoch` (the epoch is added by the ladder).
//! AAD of a holder's own field: `holder1 | instance | tenant | holder kind | holder id | field | row | DEK no`.

use serde::{Deserialize, Serialize};

use crate::base::id::{SubjectId, TenantId, UserId};
use crate::crypto::aead::{self, Aad};
use crate::crypto::kdf::{self, Label};
use crate::crypto::ladder::WrappedDek;
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
    fn kind(self) -> u8 {
        match self {
            Holder::User(_) => 1,
            Holder::Subject(_) => 2,
            Holder::Tenant => 3,
        }
    }

    fn id(&self, tenant: TenantId) -> [u8; 16] {
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
    Aad::new("dek1")
        .field(tx.common.instance.bytes())
        .field(tenant.bytes())
        .field(&[holder.kind()])
        .field(&holder.id(tenant))
        .number(number.into())
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
pub fn field_key(
    tx: &Tx<'_>,
    scope: Scope,
    subject: Option<SubjectId>,
    numbers: Option<(u32, u32)>,
) -> Result<Arc<FieldKey>, StoreError> {
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
        tx.common.field_keys.put(name, Arc::clone(&derived));
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
    Aad::new("holder1")
        .field(tx.common.instance.bytes())
        .field(tenant.bytes())
        .field(&[holder.kind()])
        .field(&holder.id(tenant))
        .field(field.as_bytes())
        .field(row)
        .number(number.into())
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
