//! Users: people with a sign-in. The e-mail address is sealed under the user's DEK and found by HMAC.

use serde::{Deserialize, Serialize};

use crate::base::codec::CodecError;
use crate::base::id::{TenantId, UserId};
use crate::base::time::Timestamp;
use crate::crypto::hash::hmac_sha256;
use crate::store::check::{Fault, ensure};
use crate::store::phi::Phi;
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::{Bytes, USER_LOOKUP, USERS, key};
use crate::store::tx::{StoreError, Tx, row, value};

#[derive(Serialize, Deserialize)]
pub(super) struct UserRow {
    email: Bytes,
    first_name: Option<Bytes>,
    last_name: Option<Bytes>,
    created_at: Timestamp,
}

/// A person's record, opened.
#[derive(Debug)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// Lower-case e-mail address.
    pub email: Phi,
    /// Given name.
    pub first_name: Option<Phi>,
    /// Family name.
    pub last_name: Option<Phi>,
    /// Since when they are known.
    pub created_at: Timestamp,
}

fn lookup_key(tx: &Tx<'_>, tenant: TenantId, email: &str) -> Vec<u8> {
    key(&[tenant.bytes(), &hmac_sha256(tx.keys.lookup(), &[b"email", tenant.bytes(), email.as_bytes()])])
}

/// The person with this lower-case e-mail address, if known.
pub fn find(tx: &Tx<'_>, tenant: TenantId, email: &str) -> Result<Option<UserId>, StoreError> {
    let Some(bytes) = tx.get(USER_LOOKUP, &lookup_key(tx, tenant, email))? else { return Ok(None) };
    row("user_lookup", &bytes).map(Some)
}

/// The person with this e-mail address; drawn, with a DEK, when new.
pub fn find_or_create(tx: &mut Tx<'_>, tenant: TenantId, email: &str) -> Result<UserId, StoreError> {
    if let Some(found) = find(tx, tenant, email)? {
        return Ok(found);
    }
    let id = UserId::draw(tx.now);
    holders::create(tx, tenant, Holder::User(id));
    let email_sealed = holders::seal(tx, tenant, Holder::User(id), "email", id.bytes(), email.as_bytes())?;
    let user = UserRow { email: email_sealed, first_name: None, last_name: None, created_at: tx.now };
    tx.put(USERS, key(&[tenant.bytes(), id.bytes()]), value(&user));
    let lookup = lookup_key(tx, tenant, email);
    tx.put(USER_LOOKUP, lookup, value(&id));
    Ok(id)
}

/// Everybody in the workspace, oldest first.
pub fn all(tx: &Tx<'_>, tenant: TenantId) -> Result<Vec<UserId>, StoreError> {
    let mut found = Vec::new();
    for item in tx.prefix(USERS, tenant.bytes())? {
        let id = item?.0.get(16..).and_then(|id| id.try_into().ok()).ok_or(StoreError::Row("users", CodecError::Malformed))?;
        found.push(UserId::from_bytes(id));
    }
    Ok(found)
}

/// A person's record.
pub fn get(tx: &Tx<'_>, tenant: TenantId, id: UserId) -> Result<Option<User>, StoreError> {
    let Some(bytes) = tx.get(USERS, &key(&[tenant.bytes(), id.bytes()]))? else { return Ok(None) };
    let found: UserRow = row("users", &bytes)?;
    let open = |field: &str, sealed: &Bytes| -> Result<Phi, StoreError> {
        let plain = holders::open(tx, tenant, Holder::User(id), field, id.bytes(), sealed)?;
        String::from_utf8(plain).map(Phi::new).map_err(|_| StoreError::Row("users", CodecError::Malformed))
    };
    Ok(Some(User {
        id,
        email: open("email", &found.email)?,
        first_name: found.first_name.as_ref().map(|s| open("first_name", s)).transpose()?,
        last_name: found.last_name.as_ref().map(|s| open("last_name", s)).transpose()?,
        created_at: found.created_at,
    }))
}

/// Stages a person's names. `false` if there is no such person.
pub fn rename(tx: &mut Tx<'_>, tenant: TenantId, id: UserId, first_name: &str, last_name: &str) -> Result<bool, StoreError> {
    let row_key = key(&[tenant.bytes(), id.bytes()]);
    let Some(bytes) = tx.get(USERS, &row_key)? else { return Ok(false) };
    let mut found: UserRow = row("users", &bytes)?;
    let seal = |field: &str, text: &str| holders::seal(tx, tenant, Holder::User(id), field, id.bytes(), text.as_bytes());
    found.first_name = Some(seal("first_name", first_name)?);
    found.last_name = Some(seal("last_name", last_name)?);
    tx.put(USERS, row_key, value(&found));
    Ok(true)
}

/// Whether there are at least so many people.
pub fn are_at_least(tx: &Tx<'_>, tenant: TenantId, most: u32) -> Result<bool, StoreError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    for (seen, item) in (1..).zip(tx.prefix(USERS, tenant.bytes())?) {
        item?;
        if seen >= most {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there is such a person.
pub fn exists(tx: &Tx<'_>, tenant: TenantId, id: UserId) -> Result<bool, StoreError> {
    Ok(tx.get(USERS, &key(&[tenant.bytes(), id.bytes()]))?.is_some())
}

/// A row of USERS: it opens, and its address leads to it.
pub fn check(tx: &Tx<'_>, tenant: TenantId, row_key: &[u8]) -> Result<(), Fault> {
    let id = row_key.strip_prefix(tenant.bytes()).and_then(|id| id.try_into().ok()).map(UserId::from_bytes);
    let user = id.map(|id| get(tx, tenant, id)).transpose()?.flatten().ok_or(Fault::Wrong("not a key of this table"))?;
    ensure(find(tx, tenant, user.email.inner())? == Some(user.id), "its address does not lead to it")
}

/// A row of USER_LOOKUP: the person it leads to has that address.
pub fn check_lookup(tx: &Tx<'_>, tenant: TenantId, lookup: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let user = get(tx, tenant, row("user_lookup", bytes)?)?.ok_or(StoreError::Missing("users"))?;
    ensure(lookup == lookup_key(tx, tenant, user.email.inner()), "the person it leads to has another address")
}

/// The key under which this row of USER_LOOKUP is found by the lookup key of `tx`.
pub fn looked_up(tx: &Tx<'_>, old: &[u8], bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    let (tenant, _) = old.split_first_chunk::<16>().ok_or(StoreError::Row("user_lookup", CodecError::Malformed))?;
    let tenant = TenantId::from_bytes(*tenant);
    let user = get(tx, tenant, row("user_lookup", bytes)?)?.ok_or(StoreError::Missing("users"))?;
    Ok(lookup_key(tx, tenant, user.email.inner()))
}

/// A row of USERS sealed again under the person's newest DEK, unless it is.
pub fn resealed(tx: &Tx<'_>, row_key: &[u8], bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let (tenant, id) = super::tenant_and_id(row_key).ok_or(StoreError::Row("users", CodecError::Malformed))?;
    let (tenant, holder) = (TenantId::from_bytes(tenant), Holder::User(UserId::from_bytes(id)));
    let mut found: UserRow = row("users", bytes)?;
    let mut changed = holders::reseal(tx, tenant, holder, "email", &id, &mut found.email)?;
    for (field, sealed) in [("first_name", &mut found.first_name), ("last_name", &mut found.last_name)] {
        if let Some(sealed) = sealed {
            changed |= holders::reseal(tx, tenant, holder, field, &id, sealed)?;
        }
    }
    Ok(changed.then(|| value(&found)))
}

/// Stages the end of a person's row, and of what leads to it.
pub fn remove(tx: &mut Tx<'_>, tenant: TenantId, id: UserId) -> Result<(), StoreError> {
    if let Some(user) = get(tx, tenant, id)? {
        let lookup = lookup_key(tx, tenant, user.email.inner());
        tx.delete(USER_LOOKUP, lookup);
        tx.delete(USERS, key(&[tenant.bytes(), id.bytes()]));
    }
    Ok(())
}
