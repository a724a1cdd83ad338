//! Sign-in by a dashboard: its key, and a token that it signed for one person.
//!
//! Invariants
//! - A token is looked at only after the dashboard's own key was shown; it names the person, nothing else does.
//! - Somebody whose erasure was asked for does not sign in any more.
//!
//! Not here: making somebody known who signs in for the first time, which is a write and passes the gate (`identity::seat_person`).

use std::time::Duration;

use crate::authn::Principal;
use crate::authn::jwt::{self, JwtError};
use crate::base::id::{TenantId, UserId};
use crate::base::time::Timestamp;
use crate::store::incident;
use crate::store::phi::Phi;
use crate::store::tables::{erasures, users};
use crate::store::tx::{StoreError, Tx};
use crate::store::vault::Vault;
use crate::store::writer::Unavailable;

/// What a dashboard's token turned out to be.
pub enum SignedIn {
    /// Somebody who is known, as of this generation of the credentials, and what the token approves, if it was made for that.
    Principal(Box<Principal>, u64, Option<String>),
    /// Somebody who is not known yet; and what the token approves.
    New(Phi, Option<String>),
    /// Not a good token, or of somebody who is being erased.
    Refused(JwtError),
}

/// Whether this person is known and not about to be erased.
pub fn may_sign_in(tx: &Tx<'_>, tenant: TenantId, user: UserId) -> Result<bool, StoreError> {
    Ok(users::exists(tx, tenant, user)? && erasures::get(tx, tenant, *user.bytes())?.is_none())
}

impl Vault {
    /// Who asks by a token of the dashboard, whose key was shown ([`super::gate::Admission::Dashboard`]) or is not needed.
    ///
    /// Errors: the store cannot be read.
    pub fn admit_dashboard(&self, token: &str) -> Result<SignedIn, Unavailable> {
        let Some((_, secret)) = self.dashboard() else { return Ok(SignedIn::Refused(JwtError::Invalid)) };
        let claims = match jwt::verify(secret, token, self.clock().now()) {
            Ok(claims) => claims,
            Err(error) => return Ok(SignedIn::Refused(error)),
        };
        let email = Phi::new(claims.email);
        Ok(match self.dashboard_person(&email, claims.expires_at)? {
            Found::Principal(who, generation) => SignedIn::Principal(Box::new(who), generation, claims.pending_id),
            Found::Nobody => SignedIn::New(email, claims.pending_id),
            Found::Dying => SignedIn::Refused(JwtError::Invalid),
        })
    }

    /// The person of this address, for whom the dashboard, whose key was shown, speaks for so long.
    ///
    /// Errors: the store cannot be read.
    pub fn dashboard_speaks_for(&self, email: &Phi, life: Duration) -> Result<SignedIn, Unavailable> {
        Ok(match self.dashboard_person(email, self.clock().now().plus(life))? {
            Found::Principal(who, generation) => SignedIn::Principal(Box::new(who), generation, None),
            Found::Nobody => SignedIn::New(Phi::new(email.inner().to_owned()), None),
            Found::Dying => SignedIn::Refused(JwtError::Invalid),
        })
    }

    fn dashboard_person(&self, email: &Phi, expires_at: Timestamp) -> Result<Found, Unavailable> {
        let Some((keys, _)) = self.dashboard() else { return Ok(Found::Dying) };
        let key = keys.iter().next().expect("a dashboard has one key");
        let published = self.published()?;
        let (tx, tenant) = (self.reading(&published), self.tenant());
        let look = || -> Result<Found, StoreError> {
            for id in self.dashboard_ids().into_iter().flatten() {
                if incident::is_revoked_key(&tx, id)? {
                    return Ok(Found::Dying);
                }
            }
            let Some(user) = users::find(&tx, tenant, email.inner())? else { return Ok(Found::Nobody) };
            if !may_sign_in(&tx, tenant, user)? {
                return Ok(Found::Dying);
            }
            let who = Principal::of_dashboard(tenant, user, key, self.is_admin(user), expires_at);
            Ok(Found::Principal(who, published.generation))
        };
        look().map_err(|_| Unavailable::Latched)
    }
}

enum Found {
    Principal(Principal, u64),
    Nobody,
    Dying,
}
