//! Credentials: a person's keys. Only a keyed hash of a key is stored; label and display prefix are sealed under the person's DEK.

use serde::{Deserialize, Serialize};

use crate::authn::StoredCredential;
use crate::base::codec::CodecError;
use crate::base::id::{CredentialId, TenantId, UserId};
use crate::base::order;
use crate::base::time::Timestamp;
use crate::store::check::{Fault, ensure};
use crate::store::phi::Phi;
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::{Bytes, CREDENTIAL_LOOKUP, CREDENTIALS, key, users};
use crate::store::tx::{StoreError, Tx, row, value};

#[derive(Serialize, Deserialize)]
pub(super) struct CredentialRow {
    user: UserId,
    verifier: [u8; 32],
    prefix: Bytes,
    label: Bytes,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

/// A key as its person may see it.
#[derive(Debug)]
pub struct Credential {
    /// Its id.
    pub id: CredentialId,
    /// Whose.
    pub user: UserId,
    /// The first 16 characters of the key.
    pub prefix: Phi,
    /// What its person calls it.
    pub label: Phi,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

fn row_key(tenant: TenantId, id: CredentialId) -> Vec<u8> {
    key(&[tenant.bytes(), id.bytes()])
}

/// Workspace and id of the credential whose verifier is `verifier`.
pub fn find(tx: &Tx<'_>, verifier: &[u8; 32]) -> Result<Option<(TenantId, CredentialId)>, StoreError> {
    tx.get(CREDENTIAL_LOOKUP, verifier)?.map(|bytes| row("credential_lookup", &bytes)).transpose()
}

/// What decides about a credential.
pub fn stored(tx: &Tx<'_>, tenant: TenantId, id: CredentialId) -> Result<Option<StoredCredential>, StoreError> {
    let Some(found) = get_row(tx, tenant, id)? else { return Ok(None) };
    Ok(Some(StoredCredential { id, tenant, user: found.user, revoked_at: found.revoked_at }))
}

fn get_row(tx: &Tx<'_>, tenant: TenantId, id: CredentialId) -> Result<Option<CredentialRow>, StoreError> {
    tx.get(CREDENTIALS, &row_key(tenant, id))?.map(|bytes| row("credentials", &bytes)).transpose()
}

/// What its person calls a key; `None` if there is no such key.
pub fn label(tx: &Tx<'_>, tenant: TenantId, id: CredentialId) -> Result<Option<Phi>, StoreError> {
    let Some(found) = get_row(tx, tenant, id)? else { return Ok(None) };
    let plain = holders::open(tx, tenant, Holder::User(found.user), "key_label", id.bytes(), &found.label)?;
    String::from_utf8(plain).map(|label| Some(Phi::new(label))).map_err(|_| StoreError::Row("credentials", CodecError::Malformed))
}

/// Stages a new key of `user`.
pub fn insert(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    user: UserId,
    verifier: [u8; 32],
    prefix: &str,
    label: &str,
) -> Result<CredentialId, StoreError> {
    let id = CredentialId::draw();
    let seal = |tx: &Tx<'_>, field: &str, text: &str| holders::seal(tx, tenant, Holder::User(user), field, id.bytes(), text.as_bytes());
    let found = CredentialRow {
        user,
        verifier,
        prefix: seal(tx, "key_prefix", prefix)?,
        label: seal(tx, "key_label", label)?,
        created_at: tx.now,
        last_used_at: None,
        revoked_at: None,
    };
    tx.put(CREDENTIALS, row_key(tenant, id), value(&found));
    tx.put(CREDENTIAL_LOOKUP, verifier.to_vec(), value(&(tenant, id)));
    Ok(id)
}

/// Stages the revocation of a key. `false` if there is none or it is revoked already.
pub fn revoke(tx: &mut Tx<'_>, tenant: TenantId, id: CredentialId) -> Result<bool, StoreError> {
    let Some(mut found) = get_row(tx, tenant, id)? else { return Ok(false) };
    if found.revoked_at.is_some() {
        return Ok(false);
    }
    found.revoked_at = Some(tx.now);
    tx.put(CREDENTIALS, row_key(tenant, id), value(&found));
    tx.staged.credentials_changed = true;
    Ok(true)
}

/// A row of CREDENTIALS sealed again under the person's newest DEK, unless it is.
pub fn resealed(tx: &Tx<'_>, key: &[u8], bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let (tenant, id) = super::tenant_and_id(key).ok_or(StoreError::Row("credentials", CodecError::Malformed))?;
    let mut found: CredentialRow = row("credentials", bytes)?;
    let (tenant, holder) = (TenantId::from_bytes(tenant), Holder::User(found.user));
    let prefix = holders::reseal(tx, tenant, holder, "key_prefix", &id, &mut found.prefix)?;
    let label = holders::reseal(tx, tenant, holder, "key_label", &id, &mut found.label)?;
    Ok((prefix || label).then(|| value(&found)))
}

/// Stages the revocation of every key in the workspace. Gives how many were not revoked before.
pub fn revoke_all(tx: &mut Tx<'_>, tenant: TenantId) -> Result<u64, StoreError> {
    let mut revoked = 0;
    for item in tx.prefix(CREDENTIALS, tenant.bytes())? {
        let (key, bytes) = item?;
        let mut found: CredentialRow = row("credentials", &bytes)?;
        if found.revoked_at.is_none() {
            found.revoked_at = Some(tx.now);
            tx.put(CREDENTIALS, key, value(&found));
            revoked += 1;
        }
    }
    Ok(revoked)
}

/// How many keys of the workspace are taken.
pub fn live(tx: &Tx<'_>, tenant: TenantId) -> Result<u64, StoreError> {
    let mut live = 0;
    for item in tx.prefix(CREDENTIALS, tenant.bytes())? {
        live += u64::from(row::<CredentialRow>("credentials", &item?.1)?.revoked_at.is_none());
    }
    Ok(live)
}

/// Stages the time of use.
pub fn touch(tx: &mut Tx<'_>, tenant: TenantId, id: CredentialId) -> Result<(), StoreError> {
    if let Some(mut found) = get_row(tx, tenant, id)? {
        found.last_used_at = Some(tx.now);
        tx.put(CREDENTIALS, row_key(tenant, id), value(&found));
    }
    Ok(())
}

/// All keys of `user`, newest first, revoked ones included.
pub fn of_user(tx: &Tx<'_>, tenant: TenantId, user: UserId) -> Result<Vec<Credential>, StoreError> {
    let mut found = Vec::new();
    for item in tx.prefix(CREDENTIALS, tenant.bytes())? {
        let (row_key, bytes) = item?;
        let credential: CredentialRow = row("credentials", &bytes)?;
        if credential.user != user {
            continue;
        }
        let id: [u8; 16] = row_key[16..].try_into().map_err(|_| StoreError::Row("credentials", CodecError::Malformed))?;
        let open = |field: &str, sealed: &Bytes| -> Result<Phi, StoreError> {
            let plain = holders::open(tx, tenant, Holder::User(user), field, &id, sealed)?;
            String::from_utf8(plain).map(Phi::new).map_err(|_| StoreError::Row("credentials", CodecError::Malformed))
        };
        found.push(Credential {
            id: CredentialId::from_bytes(id),
            user,
            prefix: open("key_prefix", &credential.prefix)?,
            label: open("key_label", &credential.label)?,
            created_at: credential.created_at,
            last_used_at: credential.last_used_at,
            revoked_at: credential.revoked_at,
        });
    }
    order::sort_by_key(&mut found, |key| std::cmp::Reverse((key.created_at, key.id)));
    Ok(found)
}

/// How many keys of `user` are not revoked.
pub fn count_active(tx: &Tx<'_>, tenant: TenantId, user: UserId) -> Result<u64, StoreError> {
    let mut count = 0;
    for item in tx.prefix(CREDENTIALS, tenant.bytes())? {
        let found: CredentialRow = row("credentials", &item?.1)?;
        count += u64::from(found.user == user && found.revoked_at.is_none());
    }
    Ok(count)
}

/// Stages the end of every key of `user`.
pub fn remove_all(tx: &mut Tx<'_>, tenant: TenantId, user: UserId) -> Result<(), StoreError> {
    for item in tx.prefix(CREDENTIALS, tenant.bytes())? {
        let (row_key, bytes) = item?;
        let found: CredentialRow = row("credentials", &bytes)?;
        if found.user == user {
            tx.delete(CREDENTIAL_LOOKUP, found.verifier.to_vec());
            tx.delete(CREDENTIALS, row_key);
            tx.staged.credentials_changed = true;
        }
    }
    Ok(())
}

/// A row of CREDENTIALS: its person exists, it opens, and its verifier leads to it.
pub fn check(tx: &Tx<'_>, tenant: TenantId, key: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let id = key.strip_prefix(tenant.bytes()).and_then(|id| id.try_into().ok()).map(CredentialId::from_bytes);
    let id = id.ok_or(Fault::Wrong("not a key of this table"))?;
    let found: CredentialRow = row("credentials", bytes)?;
    ensure(users::exists(tx, tenant, found.user)?, "its person has no row")?;
    for (field, sealed) in [("key_prefix", &found.prefix), ("key_label", &found.label)] {
        holders::open(tx, tenant, Holder::User(found.user), field, id.bytes(), sealed)?;
    }
    ensure(find(tx, &found.verifier)? == Some((tenant, id)), "its verifier does not lead to it")
}

/// A row of CREDENTIAL_LOOKUP: the credential it leads to has that verifier.
pub fn check_lookup(tx: &Tx<'_>, verifier: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let (tenant, id) = row("credential_lookup", bytes)?;
    let found = get_row(tx, tenant, id)?.ok_or(StoreError::Missing("credentials"))?;
    ensure(found.verifier == verifier, "the credential it leads to has another verifier")
}
