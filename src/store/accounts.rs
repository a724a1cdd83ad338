//! People, keys and operations through the gate.

use crate::authn::credential::Verifier;
use crate::base::id::{CredentialId, UserId};
use crate::base::limits;
use crate::policy::action::{
    Action, CreateKey, CreatePerson, ListKeys, ListPeople, Person, ReadOperation, Reads, RevokeKey, Scope, UpdateSelf,
};
use crate::store::gate::Access;
use crate::store::phi::Phi;
use crate::store::tables::{credentials, grants, users};
use crate::store::tx::{StoreError, Tx};
use crate::store::vault::Vault;
use crate::store::writer::{Settled, Unavailable};

pub use crate::store::tables::credentials::Credential;
pub use crate::store::tables::users::User;

/// The person with this lower-case e-mail address, staged with a DEK of their own if new.
pub fn insert_person(a: &mut Access<'_, CreatePerson>, email: &Phi) -> Result<UserId, StoreError> {
    let tenant = a.who().tenant();
    let tx = a.tx_mut();
    let id = users::find_or_create(tx, tenant, email.inner())?;
    tx.note(id.bytes());
    Ok(id)
}

/// The same for somebody whom the dashboard names; `None` if they would be one more than may be known.
pub fn insert_seat(a: &mut Access<'_, CreatePerson>, email: &Phi) -> Result<Option<UserId>, StoreError> {
    let (tenant, most) = (a.who().tenant(), a.vault().seats_max());
    let tx = a.tx();
    if let Some(most) = most
        && users::find(tx, tenant, email.inner())?.is_none()
        && users::are_at_least(tx, tenant, most)?
    {
        return Ok(None);
    }
    insert_person(a, email).map(Some)
}

/// How many people may be known; 0 = no bound.
pub fn seats(a: &Access<'_, CreatePerson>) -> u32 {
    a.vault().seats_max().unwrap_or_default()
}

/// Stages the granted person's names.
pub fn rename(a: &mut Access<'_, UpdateSelf>, first_name: &Phi, last_name: &Phi) -> Result<User, StoreError> {
    let (tenant, person) = (a.who().tenant(), a.target().0);
    let tx = a.tx_mut();
    tx.note(person.bytes());
    users::rename(tx, tenant, person, first_name.inner(), last_name.inner())?;
    users::get(tx, tenant, person)?.ok_or(StoreError::Missing("users"))
}

/// Everybody, newest first; `None` if there are more than [`limits::LIST_RECORDS_MAX`].
pub fn everybody(a: &mut Access<'_, ListPeople>) -> Result<Option<Vec<User>>, StoreError> {
    let tenant = a.who().tenant();
    let tx = a.tx_mut();
    let ids = users::all(tx, tenant)?;
    if ids.len() > limits::LIST_RECORDS_MAX {
        return Ok(None);
    }
    let mut found = Vec::with_capacity(ids.len());
    for id in ids.into_iter().rev() {
        tx.note(id.bytes());
        found.push(users::get(tx, tenant, id)?.ok_or(StoreError::Missing("users"))?);
    }
    Ok(Some(found))
}

/// Stages a key of the granted person.
pub fn insert_key(a: &mut Access<'_, CreateKey>, verifier: &Verifier, prefix: &str, label: &Phi) -> Result<CredentialId, StoreError> {
    let (tenant, person) = (a.who().tenant(), a.target().0);
    let tx = a.tx_mut();
    let id = credentials::insert(tx, tenant, person, verifier.0, prefix, label.inner())?;
    tx.note(id.bytes());
    Ok(id)
}

/// The granted person's keys.
pub fn keys(a: &mut Access<'_, ListKeys>) -> Result<Vec<Credential>, StoreError> {
    let (tenant, person) = (a.who().tenant(), a.target().0);
    let tx = a.tx_mut();
    let found = credentials::of_user(tx, tenant, person)?;
    found.iter().for_each(|key| tx.note(key.id.bytes()));
    Ok(found)
}

/// Stages the revocation of the granted key, and the end of what was granted by it; `false` if it is revoked already.
pub fn revoke_key(a: &mut Access<'_, RevokeKey>) -> Result<bool, StoreError> {
    let (tenant, id) = (a.who().tenant(), a.target());
    let tx = a.tx_mut();
    tx.note(id.bytes());
    if let Some(key) = credentials::stored(tx, tenant, id)? {
        grants::remove_of_key(tx, tenant, key.user, id)?;
    }
    credentials::revoke(tx, tenant, id)
}

/// The granted person's record.
pub fn user<A: Action<Target = Person>>(a: &mut Access<'_, A>) -> Result<User, StoreError> {
    let (tenant, person) = (a.who().tenant(), a.target().0);
    let tx = a.tx_mut();
    tx.note(person.bytes());
    users::get(tx, tenant, person)?.ok_or(StoreError::Missing("users"))
}

/// The granted person, not noted: the entry names their keys.
pub fn holder(a: &Access<'_, ListKeys>) -> Result<User, StoreError> {
    users::get(a.tx(), a.who().tenant(), a.target().0)?.ok_or(StoreError::Missing("users"))
}

/// The person whose memories are granted, not noted: the entry names the memories.
pub fn owner<A: Reads + Action<Target = Scope>>(a: &Access<'_, A>) -> Result<User, StoreError> {
    let scope = a.target();
    users::get(a.tx(), scope.tenant, scope.owner)?.ok_or(StoreError::Missing("users"))
}

/// Whom the operator at the console means: ids alone, so no grant is needed; what is done to them goes through the gate.
impl Vault {
    /// Everybody.
    pub fn people(&self) -> Result<Vec<UserId>, Unavailable> {
        self.look(|tx| users::all(tx, self.tenant()))
    }

    /// Whose key this is.
    pub fn holder_of(&self, id: CredentialId) -> Result<Option<UserId>, Unavailable> {
        self.look(|tx| Ok(credentials::stored(tx, self.tenant(), id)?.map(|row| row.user)))
    }

    fn look<T>(&self, look: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, Unavailable> {
        let published = self.published()?;
        look(&self.reading(&published)).map_err(|_| Unavailable::Latched)
    }
}

/// How the granted operation ended.
pub fn operation(a: &mut Access<'_, ReadOperation>) -> Result<Option<Settled>, StoreError> {
    let id = a.target();
    let settled = a.vault().settled(a.tx(), a.who(), id)?;
    if settled.is_some() {
        a.tx_mut().note(id.bytes());
    }
    Ok(settled)
}
