//! Identity: people and their keys.
//!
//! Invariant: a key is shown once, when it is made; afterwards only its prefix and a keyed hash exist.

use crate::audit::{Detail, Reason};
use crate::authn::credential::{Verifier, display_prefix, draw_user_key};
use crate::base::id::{CredentialId, UserId};
use crate::base::time::Timestamp;
use crate::crypto::secret::Secret;
use crate::policy::action::{CreateKey, CreatePerson, ListKeys, ListPeople, ReadOperation, ReadSelf, RevokeKey, UpdateSelf};
use crate::store::accounts::{self, Credential, User};
use crate::store::gate::{Access, Fault};
use crate::store::phi::Phi;
use crate::store::quota::{self, Full};
use crate::store::tx::StoreError;
use crate::store::vault::Vault;
use crate::store::writer::Settled;

/// Why an operation on identities was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such key, or revoked already.
    #[error("Key not found")]
    KeyNotFound,
    /// There may be no further key.
    #[error("API key limit reached")]
    Full(Full),
    /// No such operation of the asker.
    #[error("Operation not found")]
    OperationNotFound,
    /// As many people are known as may be.
    #[error("Seat limit reached ({0}). Ask an administrator for a seat")]
    SeatLimit(u32),
    /// More people than one answer holds.
    #[error("More than {} people are known; list them with `rosemary key list`", crate::base::limits::LIST_RECORDS_MAX)]
    TooManyPeople,
    /// The store failed.
    #[error("Internal server error")]
    Store(#[from] StoreError),
}

impl Fault for Refusal {
    fn audit(&self) -> (Reason, u16) {
        match self {
            Self::KeyNotFound | Self::OperationNotFound => (Reason::NotFound, 404),
            Self::SeatLimit(_) => (Reason::Quota, 403),
            Self::TooManyPeople => (Reason::TooLarge, 400),
            Self::Full(_) => (Reason::Quota, 429),
            Self::Store(_) => (Reason::WorkFailed, 500),
        }
    }

    fn full(&self) -> Option<Full> {
        match self {
            Self::Full(full) => Some(*full),
            _ => None,
        }
    }
}

/// A key that was drawn and is not stored yet.
pub struct DrawnKey {
    key: Secret<String>,
    verifier: Verifier,
}

/// A key that was made: the only time that it is shown.
pub struct NewKey {
    /// The key.
    pub key: Secret<String>,
    /// Its id.
    pub id: CredentialId,
    /// What its person calls it.
    pub label: Phi,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The person with this lower-case e-mail address; made known if nobody has it yet.
pub fn create_person(a: &mut Access<'_, CreatePerson>, email: &Phi) -> Result<UserId, Refusal> {
    Ok(accounts::insert_person(a, email)?)
}

/// The same for somebody who signed in at the dashboard, within the seats.
pub fn seat_person(a: &mut Access<'_, CreatePerson>, email: &Phi) -> Result<UserId, Refusal> {
    accounts::insert_seat(a, email)?.ok_or_else(|| Refusal::SeatLimit(accounts::seats(a)))
}

/// Everybody, newest first.
pub fn list_people(a: &mut Access<'_, ListPeople>) -> Result<Vec<User>, Refusal> {
    accounts::everybody(a)?.ok_or(Refusal::TooManyPeople)
}

/// The granted person's names become these.
pub fn rename(a: &mut Access<'_, UpdateSelf>, first_name: &Phi, last_name: &Phi) -> Result<User, Refusal> {
    Ok(accounts::rename(a, first_name, last_name)?)
}

/// Draws a key.
pub fn draw_key(vault: &Vault) -> DrawnKey {
    let key = draw_user_key();
    let verifier = vault.verifier(key.expose());
    DrawnKey { key, verifier }
}

/// Makes a key of the granted person.
pub fn create_key(a: &mut Access<'_, CreateKey>, drawn: DrawnKey, label: Phi) -> Result<NewKey, Refusal> {
    if let Some(full) = quota::keys_full(a)? {
        return Err(Refusal::Full(full));
    }
    let id = accounts::insert_key(a, &drawn.verifier, display_prefix(drawn.key.expose()), &label)?;
    a.detail(Detail::Credential(id));
    Ok(NewKey { key: drawn.key, id, label, created_at: a.now() })
}

/// The granted person's keys, newest first, revoked ones included.
pub fn list_keys(a: &mut Access<'_, ListKeys>) -> Result<Vec<Credential>, Refusal> {
    Ok(accounts::keys(a)?)
}

/// The granted person and their keys, for the operator's list.
pub fn holder_and_keys(a: &mut Access<'_, ListKeys>) -> Result<(User, Vec<Credential>), Refusal> {
    Ok((accounts::holder(a)?, accounts::keys(a)?))
}

/// Revokes the granted key. It does not work any more for the very next request.
pub fn revoke_key(a: &mut Access<'_, RevokeKey>) -> Result<(), Refusal> {
    if accounts::revoke_key(a)? { Ok(()) } else { Err(Refusal::KeyNotFound) }
}

/// The granted person's record.
pub fn read_self(a: &mut Access<'_, ReadSelf>) -> Result<User, Refusal> {
    Ok(accounts::user(a)?)
}

/// How the granted operation ended.
pub fn read_operation(a: &mut Access<'_, ReadOperation>) -> Result<Settled, Refusal> {
    accounts::operation(a)?.ok_or(Refusal::OperationNotFound)
}
