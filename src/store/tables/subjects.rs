//! Subjects: the people memories are about. An external name (NFC) maps to a random id by HMAC; the name itself is sealed.

use serde::{Deserialize, Serialize};

use crate::base::id::{SubjectId, TenantId};
use crate::base::time::Timestamp;
use crate::crypto::hash::hmac_sha256;
use crate::store::check::{Fault, ensure};
use crate::store::tables::erasures;
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::{Bytes, SUBJECT_LOOKUP, SUBJECTS, key};
use crate::store::tx::{StoreError, Tx, row, value};

#[derive(Serialize, Deserialize)]
pub(super) struct SubjectRow {
    name: Bytes,
    created_at: Timestamp,
}

fn lookup_key(tx: &Tx<'_>, tenant: TenantId, name: &str) -> Vec<u8> {
    key(&[tenant.bytes(), &hmac_sha256(tx.keys.lookup(), &[b"subject", tenant.bytes(), name.as_bytes()])])
}

/// The subject with this external name, if known.
pub fn find(tx: &Tx<'_>, tenant: TenantId, name: &str) -> Result<Option<SubjectId>, StoreError> {
    let Some(bytes) = tx.get(SUBJECT_LOOKUP, &lookup_key(tx, tenant, name))? else { return Ok(None) };
    row("subject_lookup", &bytes).map(Some)
}

/// The subject with this external name; drawn, with its own DEK, when it is new.
pub fn find_or_create(tx: &mut Tx<'_>, tenant: TenantId, name: &str) -> Result<SubjectId, StoreError> {
    if let Some(found) = find(tx, tenant, name)? {
        return Ok(found);
    }
    let id = SubjectId::draw();
    holders::create(tx, tenant, Holder::Subject(id));
    let sealed = holders::seal(tx, tenant, Holder::Subject(id), "name", id.bytes(), name.as_bytes())?;
    tx.put(SUBJECTS, key(&[tenant.bytes(), id.bytes()]), value(&SubjectRow { name: sealed, created_at: tx.now }));
    let lookup = lookup_key(tx, tenant, name);
    tx.put(SUBJECT_LOOKUP, lookup, value(&id));
    Ok(id)
}

/// The external name of a subject.
pub fn name(tx: &Tx<'_>, tenant: TenantId, id: SubjectId) -> Result<String, StoreError> {
    let bytes = tx.get(SUBJECTS, &key(&[tenant.bytes(), id.bytes()]))?.ok_or(StoreError::Missing("subjects"))?;
    let found: SubjectRow = row("subjects", &bytes)?;
    let plain = holders::open(tx, tenant, Holder::Subject(id), "name", id.bytes(), &found.name)?;
    String::from_utf8(plain).map_err(|_| StoreError::Row("subjects", crate::base::codec::CodecError::Malformed))
}

/// Whether there is such a subject.
pub fn exists(tx: &Tx<'_>, tenant: TenantId, id: SubjectId) -> Result<bool, StoreError> {
    Ok(tx.get(SUBJECTS, &key(&[tenant.bytes(), id.bytes()]))?.is_some())
}

/// A row of SUBJECTS: its name opens and leads to it.
pub fn check(tx: &Tx<'_>, tenant: TenantId, row_key: &[u8]) -> Result<(), Fault> {
    let id = row_key.strip_prefix(tenant.bytes()).and_then(|id| id.try_into().ok()).map(SubjectId::from_bytes);
    let id = id.ok_or(Fault::Wrong("not a key of this table"))?;
    let name = zeroize::Zeroizing::new(name(tx, tenant, id)?);
    // One that is being erased is not found by its name any more.
    ensure(find(tx, tenant, &name)? == Some(id) || erasures::get(tx, tenant, *id.bytes())?.is_some(), "its name does not lead to it")
}

/// A row of SUBJECT_LOOKUP: the subject it leads to has that name.
pub fn check_lookup(tx: &Tx<'_>, tenant: TenantId, lookup: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let name = zeroize::Zeroizing::new(name(tx, tenant, row("subject_lookup", bytes)?)?);
    ensure(lookup == lookup_key(tx, tenant, &name), "the subject it leads to has another name")
}

/// The key under which this row of SUBJECT_LOOKUP is found by the lookup key of `tx`.
pub fn looked_up(tx: &Tx<'_>, old: &[u8], bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    let (tenant, _) = old.split_first_chunk::<16>().ok_or(StoreError::Row("subject_lookup", crate::base::codec::CodecError::Malformed))?;
    let tenant = TenantId::from_bytes(*tenant);
    let name = zeroize::Zeroizing::new(name(tx, tenant, row("subject_lookup", bytes)?)?);
    Ok(lookup_key(tx, tenant, &name))
}

/// Stages that the name leads to the subject no more: what is written about somebody of that name from now on is about a new subject.
pub fn forget_name(tx: &mut Tx<'_>, tenant: TenantId, id: SubjectId) -> Result<(), StoreError> {
    let name = zeroize::Zeroizing::new(name(tx, tenant, id)?);
    if find(tx, tenant, &name)? == Some(id) {
        let lookup = lookup_key(tx, tenant, &name);
        tx.delete(SUBJECT_LOOKUP, lookup);
    }
    Ok(())
}

/// A row of SUBJECTS sealed again under the subject's newest DEK, unless it is.
pub fn resealed(tx: &Tx<'_>, row_key: &[u8], bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let (tenant, id) = super::tenant_and_id(row_key).ok_or(StoreError::Row("subjects", crate::base::codec::CodecError::Malformed))?;
    let mut found: SubjectRow = row("subjects", bytes)?;
    let (tenant, holder) = (TenantId::from_bytes(tenant), Holder::Subject(SubjectId::from_bytes(id)));
    Ok(holders::reseal(tx, tenant, holder, "name", &id, &mut found.name)?.then(|| value(&found)))
}

/// Stages the end of the subject's row.
pub fn remove(tx: &mut Tx<'_>, tenant: TenantId, id: SubjectId) {
    tx.delete(SUBJECTS, key(&[tenant.bytes(), id.bytes()]));
}
