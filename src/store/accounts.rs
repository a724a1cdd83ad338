//! People, keys and operations through the gate.

use crate::authn::credential::Verifier;
use crate::base::id::{CredentialId, UserId};
use crate::policy::action::{Action, CreateKey, CreatePerson, ListKeys, Person, ReadOperation, Reads, RevokeKey, Scope};
use crate::store::gate::Access;
use crate::store::phi::Phi;
use crate::store::tables::{credentials, users};
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

/// Stages the revocation of the granted key; `false` if it is revoked already.
pub fn revoke_key(a: &mut Access<'_, RevokeKey>) -> Result<bool, StoreError> {
    let (tenant, id) = (a.who().tenant(), a.target());
    let tx = a.tx_mut();
    tx.note(id.bytes());
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
