//! Grants of OAuth through the gate: consent, tokens and their rotation, replays, the end of a grant.
//!
//! Invariants
//! - Tokens are drawn before the writer and stored as verifiers; they are in one answer only.
//! - A grant belongs to the person who consented, and stands on nothing else: not on the owner, not on the client's name.
//! - Whatever was used up ends its grant when it is shown again.
//! - A grant ends with the credential that it was consented to by: a key's revocation takes it along, and a secret that the settings do not hold
//!   any more holds no grant. Whatever becomes of its tokens, it ends [`Vault::grant_life`] after it began.

use std::time::Duration;

use crate::audit::{Detail, Reason, Word};
use crate::authn::credential::Verifier;
use crate::authn::oauth::{self, ACCESS_PREFIX, ClientId, REFRESH_PREFIX, Scope};
use crate::authn::{CredentialRef, Principal};
use crate::base::id::{CredentialId, UserId};
use crate::base::time::Timestamp;
use crate::base::{limits, order};
use crate::crypto::secret::Secret;
use crate::policy::action::{Action, ConsentToClient, CountGrants, IssueTokens, ListGrants, RefreshTokens};
use crate::store::gate::{Access, Fault};
use crate::store::sign_in::may_sign_in;
use crate::store::tables::grants::{self, By, GrantRow, Kind, Token};
use crate::store::tx::StoreError;
use crate::store::vault::Vault;
use crate::store::writer::Unavailable;

pub use crate::store::tables::grants::Client;

/// Why something about grants was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such grant of the asker's.
    #[error("Grant not found")]
    NotFound,
    /// The person, the client or the grant is not there any more, or the token was used meanwhile.
    #[error("The grant does not hold any more")]
    Gone,
    /// As many clients are kept as may be, and each has a grant.
    #[error("As many clients as may be have grants; revoke some")]
    ClientsFull,
    /// As many grants as a person may give.
    #[error("As many grants as you may give; revoke some with DELETE /api/v1/oauth/grants/:id")]
    GrantsFull,
    /// The store failed.
    #[error("Internal server error")]
    Store(#[from] StoreError),
}

impl Fault for Refusal {
    fn audit(&self) -> (Reason, u16) {
        match self {
            Self::NotFound => (Reason::NotFound, 404),
            Self::Gone => (Reason::BadCredential, 400),
            Self::ClientsFull | Self::GrantsFull => (Reason::Quota, 409),
            Self::Store(_) => (Reason::WorkFailed, 500),
        }
    }
}

/// An access and a refresh token that were drawn.
pub struct Tokens {
    /// The access token.
    pub access: Secret<String>,
    /// The refresh token.
    pub refresh: Secret<String>,
}

/// What is stored of them.
#[derive(Clone, Copy)]
pub struct Verifiers {
    access: Verifier,
    refresh: Verifier,
}

/// A grant as its person sees it.
pub struct Grant {
    /// Its id.
    pub id: CredentialId,
    /// To whom.
    pub client: ClientId,
    /// What the client calls itself.
    pub client_name: String,
    /// The vendor that its person confirmed.
    pub vendor: String,
    /// What it allows.
    pub scope: Scope,
    /// When its first tokens were issued.
    pub created_at: Timestamp,
    /// When its latest were.
    pub refreshed_at: Timestamp,
    /// When it ends, at the latest, unless it is renewed.
    pub ends_at: Timestamp,
}

/// What a presented token belongs to.
pub struct Held {
    /// The agent that it speaks for.
    pub who: Principal,
    /// The grant.
    pub grant: CredentialId,
    /// The client that it was issued to.
    pub client: ClientId,
    /// What it is.
    pub what: What,
}

/// What a presented token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// An access token.
    Access,
    /// A refresh token that may be used.
    Refresh,
    /// A refresh token that was used.
    Spent,
}

/// Draws tokens.
pub fn draw(vault: &Vault) -> (Tokens, Verifiers) {
    let tokens = Tokens { access: oauth::draw(ACCESS_PREFIX), refresh: oauth::draw(REFRESH_PREFIX) };
    let verifiers = Verifiers { access: vault.verifier(tokens.access.expose()), refresh: vault.verifier(tokens.refresh.expose()) };
    (tokens, verifiers)
}

fn token(verifier: Verifier, ends_at: Timestamp) -> Token {
    Token { verifier: verifier.0, ends_at }
}

impl Vault {
    /// A client that somebody consented to. Below the gate as the look-up of a key is: what a client said of itself when it registered, by
    /// which it is recognised.
    ///
    /// Errors: the store cannot be read.
    pub fn client(&self, id: ClientId) -> Result<Option<Client>, Unavailable> {
        let published = self.published()?;
        grants::client(&self.reading(&published), self.tenant(), id).map_err(|_| Unavailable::Latched)
    }

    /// When a grant of `user` ends, whatever becomes of its tokens: long ago, if what it was consented to by is not in the settings any more.
    /// A grant by a key is there for as long as the key is.
    pub(in crate::store) fn grant_ends_at(&self, user: UserId, row: &GrantRow) -> Timestamp {
        let holds = match &row.by {
            By::Key(_) => true,
            By::Owner(id) => user == self.owner() && self.static_keys().iter().any(|key| key.vendor.is_none() && key.id == *id),
            By::Dashboard(ids) => self.dashboard_ids().as_ref() == Some(ids),
        };
        if holds { row.created_at.plus(self.grant_life()) } else { Timestamp::default() }
    }

    /// Until when a grant of `user` can be renewed.
    fn renewable_until(&self, user: UserId, row: &GrantRow) -> Timestamp {
        row.refresh.ends_at.min(self.grant_ends_at(user, row))
    }

    /// How a grant remembers by which credential it was consented to; `None` for one that consents to nothing.
    fn consented_by(&self, credential: &CredentialRef) -> Option<By> {
        match credential {
            CredentialRef::Stored(id) => Some(By::Key(*id)),
            CredentialRef::Static { id, .. } => Some(By::Owner(*id)),
            CredentialRef::Dashboard { .. } => self.dashboard_ids().map(By::Dashboard),
            CredentialRef::Grant(_) | CredentialRef::None => None,
        }
    }

    /// What a token is that is presented to be exchanged or revoked; nothing if it is none, or its time is over.
    ///
    /// Errors: the store cannot be read.
    pub fn held(&self, presented: &str) -> Result<Option<Held>, Unavailable> {
        let published = self.published()?;
        let tx = self.reading(&published);
        let verifier = self.verifier(presented);
        let look = || -> Result<Option<Held>, StoreError> {
            let Some(found) = grants::token(&tx, &verifier.0)? else { return Ok(None) };
            let row = grants::get(&tx, found.tenant, found.user, found.grant)?.ok_or(StoreError::Missing("oauth_grants"))?;
            let (what, ends_at) = match found.kind {
                Kind::Access => (What::Access, row.access.ends_at),
                Kind::Refresh => (What::Refresh, row.refresh.ends_at),
                Kind::Spent => (What::Spent, row.refresh.ends_at),
            };
            let ends_at = ends_at.min(self.grant_ends_at(found.user, &row));
            if ends_at <= tx.now {
                return Ok(None);
            }
            let who = Principal::of_grant(found.tenant, found.user, &grants::reference(found.grant, &row)?, ends_at);
            Ok(Some(Held { who, grant: found.grant, client: ClientId(row.client), what }))
        };
        look().map_err(|_| Unavailable::Latched)
    }
}

/// The person who asks consents to `client` as `vendor`: the client is kept from now on.
pub fn consent(a: &mut Access<'_, ConsentToClient>, client: &Client, vendor: &str) -> Result<(), Refusal> {
    let (tenant, person, vault) = (a.who().tenant(), a.target().0, a.vault());
    a.detail(Detail::Vendor(Word::parse(vendor).ok_or(Refusal::Gone)?));
    let tx = a.tx_mut();
    tx.note(person.bytes());
    let now = tx.now;
    let others = grants::of_user(tx, tenant, person)?;
    let live = others.iter().filter(|(_, row)| row.client != client.id.0 && vault.renewable_until(person, row) > now).count();
    if live >= limits::OAUTH_GRANTS_MAX {
        return Err(Refusal::GrantsFull);
    }
    if grants::keep_client(tx, tenant, client)? { Ok(()) } else { Err(Refusal::ClientsFull) }
}

/// Issues the first tokens of a new grant, and gives for how long the access token is good. An earlier grant of the same person to the same client ends, and so do those whose time is over.
pub fn issue(
    a: &mut Access<'_, IssueTokens>,
    client: ClientId,
    scope: Scope,
    drawn: Verifiers,
) -> Result<(CredentialId, Duration), Refusal> {
    let (tenant, user, vault) = (a.who().tenant(), a.target().0, a.vault());
    let by = vault.consented_by(a.who().credential()).ok_or(Refusal::Gone)?;
    let vendor = a.who().vendor().ok_or(Refusal::Gone)?.name().to_owned();
    let tx = a.tx_mut();
    if !may_sign_in(tx, tenant, user)? {
        return Err(Refusal::Gone);
    }
    let (now, mut live) = (tx.now, 0);
    for (id, row) in grants::of_user(tx, tenant, user)? {
        if row.client == client.0 || vault.renewable_until(user, &row) <= now {
            grants::remove(tx, tenant, user, id)?;
        } else {
            live += 1;
        }
    }
    if live >= limits::OAUTH_GRANTS_MAX {
        return Err(Refusal::GrantsFull);
    }
    let id = CredentialId::draw();
    let row = GrantRow {
        by,
        client: client.0,
        vendor,
        write: scope.write,
        created_at: now,
        refreshed_at: now,
        access: token(drawn.access, now.plus(limits::OAUTH_ACCESS_LIFE)),
        refresh: token(drawn.refresh, now.plus(limits::OAUTH_REFRESH_LIFE)),
        spent: 0,
    };
    if !grants::insert(tx, tenant, user, id, &row)? {
        return Err(Refusal::Gone);
    }
    tx.note(id.bytes());
    a.detail(Detail::Credential(id));
    Ok((id, limits::OAUTH_ACCESS_LIFE.min(vault.grant_life())))
}

/// Puts new tokens in the place of the old ones, and gives for how long the access token is good. A grant that has used up too many ends instead: `None`.
pub fn refresh(a: &mut Access<'_, RefreshTokens>, presented: Verifier, drawn: Verifiers) -> Result<Option<(Scope, Duration)>, Refusal> {
    let (tenant, user, vault) = (a.who().tenant(), a.target().0, a.vault());
    let CredentialRef::Grant(id) = *a.who().credential() else { return Err(Refusal::Gone) };
    let tx = a.tx_mut();
    tx.note(id.bytes());
    let row = grants::get(tx, tenant, user, id)?.ok_or(Refusal::Gone)?;
    if row.refresh.verifier != presented.0 || vault.renewable_until(user, &row) <= tx.now || !may_sign_in(tx, tenant, user)? {
        return Err(Refusal::Gone);
    }
    if row.spent >= limits::OAUTH_SPENT_MAX {
        grants::remove(tx, tenant, user, id)?;
        return Ok(None);
    }
    let (now, scope) = (tx.now, Scope { write: row.write });
    let access = token(drawn.access, now.plus(limits::OAUTH_ACCESS_LIFE));
    let lasts = access.ends_at.min(vault.grant_ends_at(user, &row)).since(now);
    grants::rotate(tx, tenant, user, id, row, access, token(drawn.refresh, now.plus(limits::OAUTH_REFRESH_LIFE)))?;
    a.detail(Detail::Credential(id));
    Ok(Some((scope, lasts)))
}

/// Ends the granted grant; its tokens do not work any more for the very next request.
pub fn end<A: Action<Target = CredentialId>>(a: &mut Access<'_, A>) -> Result<(), Refusal> {
    let (tenant, user, id) = (a.who().tenant(), a.who().user(), a.target());
    let tx = a.tx_mut();
    tx.note(id.bytes());
    let ended = grants::remove(tx, tenant, user, id)?;
    a.detail(Detail::Credential(id));
    if ended { Ok(()) } else { Err(Refusal::NotFound) }
}

/// The granted person's grants, oldest first.
pub fn list(a: &mut Access<'_, ListGrants>) -> Result<Vec<Grant>, Refusal> {
    let (tenant, user, vault) = (a.who().tenant(), a.target().0, a.vault());
    let tx = a.tx_mut();
    let (now, mut found) = (tx.now, Vec::new());
    for (id, row) in grants::of_user(tx, tenant, user)? {
        let ends_at = vault.renewable_until(user, &row);
        if ends_at <= now {
            continue;
        }
        tx.note(id.bytes());
        let client = ClientId(row.client);
        let client_name = grants::client(tx, tenant, client)?.ok_or(StoreError::Missing("oauth_clients"))?.name;
        let scope = Scope { write: row.write };
        found.push(Grant {
            id,
            client,
            client_name,
            vendor: row.vendor,
            scope,
            created_at: row.created_at,
            refreshed_at: row.refreshed_at,
            ends_at,
        });
    }
    order::sort_by_key(&mut found, |grant| (grant.created_at, grant.id));
    Ok(found)
}

/// How many clients are kept, and how many grants there are.
pub fn counts(a: &mut Access<'_, CountGrants>) -> Result<(usize, usize), Refusal> {
    let tenant = a.who().tenant();
    Ok((grants::clients(a.tx(), tenant)?, grants::grants(a.tx(), tenant)?))
}
