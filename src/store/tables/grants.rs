//! OAuth: clients that somebody consented to, what they were granted, and the tokens of it. Only keyed hashes of tokens and secrets are stored;
//! what a client says of itself is sealed under the tenant's DEK.
//!
//! ```text
//! OAUTH_GRANTS (tenant | user | grant) ─▶ its access and its refresh token ─▶ OAUTH_TOKENS (verifier) ─▶ back
//!                                     └─▶ OAUTH_SPENT (… | end | verifier), used refresh tokens ─▶ OAUTH_TOKENS
//! ```
//!
//! Invariants
//! - A grant has one access token and one refresh token at a time; a used refresh token stays known until its time would have been over.
//! - A grant that ends takes all of that with it.
//! - A grant knows by which credential it was consented to; a key that is revoked takes its grants with it in the same commit.
//! - A client knows how many grants name it; one that none names may go.

use serde::{Deserialize, Serialize};

use crate::authn::credential::SettingId;
use crate::authn::oauth::ClientId;
use crate::authn::{GrantRef, Vendor};
use crate::base::codec::CodecError;
use crate::base::id::{CredentialId, TenantId, UserId};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::store::check::{Fault, ensure};
use crate::store::tables::holders::{self, Holder};
use crate::store::tables::{Bytes, OAUTH_CLIENTS, OAUTH_GRANTS, OAUTH_SPENT, OAUTH_TOKENS, credentials, key, users};
use crate::store::tx::{StoreError, Tx, row, value};

/// A client.
#[derive(Serialize, Deserialize)]
pub struct ClientRow {
    secret: Option<[u8; 32]>,
    name: Bytes,
    redirect_uris: Bytes,
    created_at: Timestamp,
    grants: u32,
}

/// A token's verifier and end.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// HMAC(pepper, token).
    pub verifier: [u8; 32],
    /// When it stops to be good.
    pub ends_at: Timestamp,
}

/// By which credential a person consented.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// A key of their own.
    Key(CredentialId),
    /// The owner's key of the settings.
    Owner(SettingId),
    /// The dashboard at which they signed in: its key, and what it signs with.
    Dashboard([SettingId; 2]),
}

/// A grant.
#[derive(Clone, Serialize, Deserialize)]
pub struct GrantRow {
    /// By which credential its person consented.
    pub by: By,
    /// To whom.
    pub client: [u8; 8],
    /// What its person called it: a bounded word.
    pub vendor: String,
    /// Whether it writes.
    pub write: bool,
    /// When its first tokens were issued.
    pub created_at: Timestamp,
    /// When its latest were.
    pub refreshed_at: Timestamp,
    /// The access token.
    pub access: Token,
    /// The refresh token.
    pub refresh: Token,
    /// Used refresh tokens that are still known.
    pub spent: u32,
}

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// It opens routes.
    Access,
    /// It is exchanged for new tokens, once.
    Refresh,
    /// It was.
    Spent,
}

/// Whose a token is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// The workspace.
    pub tenant: TenantId,
    /// The person.
    pub user: UserId,
    /// The grant.
    pub grant: CredentialId,
    /// What it is.
    pub kind: Kind,
}

/// A client as it registered.
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// HMAC(pepper, secret), if it has one.
    pub secret: Option<[u8; 32]>,
    /// What it calls itself.
    pub name: String,
    /// Where people may be sent back to.
    pub redirect_uris: Vec<String>,
}

fn client_key(tenant: TenantId, id: ClientId) -> Vec<u8> {
    key(&[tenant.bytes(), &id.0])
}

fn grant_key(tenant: TenantId, user: UserId, id: CredentialId) -> Vec<u8> {
    key(&[tenant.bytes(), user.bytes(), id.bytes()])
}

fn client_row(tx: &Tx<'_>, tenant: TenantId, id: ClientId) -> Result<Option<ClientRow>, StoreError> {
    tx.get(OAUTH_CLIENTS, &client_key(tenant, id))?.map(|bytes| row("oauth_clients", &bytes)).transpose()
}

fn opened(tx: &Tx<'_>, tenant: TenantId, id: ClientId, found: &ClientRow) -> Result<Client, StoreError> {
    let open = |field: &str, sealed: &Bytes| -> Result<String, StoreError> {
        let plain = holders::open(tx, tenant, Holder::Tenant, field, &id.0, sealed)?;
        String::from_utf8(plain).map_err(|_| StoreError::Row("oauth_clients", CodecError::Malformed))
    };
    let redirect_uris = open("client_redirects", &found.redirect_uris)?.lines().map(str::to_owned).collect();
    Ok(Client { id, secret: found.secret, name: open("client_name", &found.name)?, redirect_uris })
}

/// The client.
pub fn client(tx: &Tx<'_>, tenant: TenantId, id: ClientId) -> Result<Option<Client>, StoreError> {
    client_row(tx, tenant, id)?.map(|found| opened(tx, tenant, id, &found)).transpose()
}

/// How many clients are kept.
pub fn clients(tx: &Tx<'_>, tenant: TenantId) -> Result<usize, StoreError> {
    tx.prefix(OAUTH_CLIENTS, tenant.bytes())?.try_fold(0, |count, item| Ok(item.map(|_| count + 1)?))
}

/// Stages a client, if it is not kept already. Where as many are kept as may be, those without a grant go; `false` if there is none.
pub fn keep_client(tx: &mut Tx<'_>, tenant: TenantId, client: &Client) -> Result<bool, StoreError> {
    if client_row(tx, tenant, client.id)?.is_some() {
        return Ok(true);
    }
    if clients(tx, tenant)? >= limits::OAUTH_CLIENTS_MAX {
        let mut idle = Vec::new();
        for item in tx.prefix(OAUTH_CLIENTS, tenant.bytes())? {
            let (row_key, bytes) = item?;
            if row::<ClientRow>("oauth_clients", &bytes)?.grants == 0 {
                idle.push(row_key);
            }
        }
        if idle.is_empty() {
            return Ok(false);
        }
        idle.into_iter().for_each(|row_key| tx.delete(OAUTH_CLIENTS, row_key));
    }
    let seal = |tx: &Tx<'_>, field: &str, text: &str| holders::seal(tx, tenant, Holder::Tenant, field, &client.id.0, text.as_bytes());
    let kept = ClientRow {
        secret: client.secret,
        name: seal(tx, "client_name", &client.name)?,
        redirect_uris: seal(tx, "client_redirects", &client.redirect_uris.join("\n"))?,
        created_at: tx.now,
        grants: 0,
    };
    tx.put(OAUTH_CLIENTS, client_key(tenant, client.id), value(&kept));
    Ok(true)
}

/// The row of a client sealed again under the tenant's newest DEK; `None` if it is.
pub fn resealed(tx: &Tx<'_>, row_key: &[u8], bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let parts = row_key.split_first_chunk::<16>().and_then(|(tenant, id)| Some((tenant, <&[u8; 8]>::try_from(id).ok()?)));
    let (tenant, id) = parts.ok_or(StoreError::Row("oauth_clients", CodecError::Malformed))?;
    let (tenant, mut found): (_, ClientRow) = (TenantId::from_bytes(*tenant), row("oauth_clients", bytes)?);
    let name = holders::reseal(tx, tenant, Holder::Tenant, "client_name", id, &mut found.name)?;
    let redirects = holders::reseal(tx, tenant, Holder::Tenant, "client_redirects", id, &mut found.redirect_uris)?;
    Ok((name || redirects).then(|| value(&found)))
}

fn count_grant(tx: &mut Tx<'_>, tenant: TenantId, id: ClientId, by: i32) -> Result<bool, StoreError> {
    let Some(mut found) = client_row(tx, tenant, id)? else { return Ok(false) };
    found.grants = found.grants.checked_add_signed(by).ok_or(StoreError::Row("oauth_clients", CodecError::Malformed))?;
    tx.put(OAUTH_CLIENTS, client_key(tenant, id), value(&found));
    Ok(true)
}

/// Whose token has this verifier.
pub fn token(tx: &Tx<'_>, verifier: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
    tx.get(OAUTH_TOKENS, verifier)?.map(|bytes| row("oauth_tokens", &bytes)).transpose()
}

/// The grant.
pub fn get(tx: &Tx<'_>, tenant: TenantId, user: UserId, id: CredentialId) -> Result<Option<GrantRow>, StoreError> {
    tx.get(OAUTH_GRANTS, &grant_key(tenant, user, id))?.map(|bytes| row("oauth_grants", &bytes)).transpose()
}

/// What decides about a grant.
pub fn reference(id: CredentialId, found: &GrantRow) -> Result<GrantRef, StoreError> {
    let vendor = Vendor::parse(&found.vendor).ok_or(StoreError::Row("oauth_grants", CodecError::Malformed))?;
    Ok(GrantRef { id, vendor, write: found.write })
}

/// A person's grants, in the order of their ids: at most [`limits::OAUTH_GRANTS_MAX`].
pub fn of_user(tx: &Tx<'_>, tenant: TenantId, user: UserId) -> Result<Vec<(CredentialId, GrantRow)>, StoreError> {
    let mut found = Vec::new();
    for item in tx.prefix(OAUTH_GRANTS, &key(&[tenant.bytes(), user.bytes()]))? {
        let (row_key, bytes) = item?;
        let id = row_key[32..].try_into().map_err(|_| StoreError::Row("oauth_grants", CodecError::Malformed))?;
        found.push((CredentialId::from_bytes(id), row("oauth_grants", &bytes)?));
    }
    Ok(found)
}

/// How many grants there are, counted up to [`limits::LIST_RECORDS_MAX`].
pub fn grants(tx: &Tx<'_>, tenant: TenantId) -> Result<usize, StoreError> {
    let counted = tx.prefix(OAUTH_GRANTS, tenant.bytes())?.take(limits::LIST_RECORDS_MAX);
    let mut counted = counted;
    counted.try_fold(0, |count, item| Ok(item.map(|_| count + 1)?))
}

/// Stages a grant and its two tokens. `false` if its client is not kept.
pub fn insert(tx: &mut Tx<'_>, tenant: TenantId, user: UserId, id: CredentialId, grant: &GrantRow) -> Result<bool, StoreError> {
    if !count_grant(tx, tenant, ClientId(grant.client), 1)? {
        return Ok(false);
    }
    lead(tx, tenant, user, id, grant);
    tx.put(OAUTH_GRANTS, grant_key(tenant, user, id), value(grant));
    Ok(true)
}

fn lead(tx: &mut Tx<'_>, tenant: TenantId, user: UserId, id: CredentialId, grant: &GrantRow) {
    for (token, kind) in [(grant.access, Kind::Access), (grant.refresh, Kind::Refresh)] {
        tx.put(OAUTH_TOKENS, token.verifier.to_vec(), value(&TokenRow { tenant, user, grant: id, kind }));
    }
}

fn spent_prefix(tenant: TenantId, user: UserId, id: CredentialId) -> Vec<u8> {
    grant_key(tenant, user, id)
}

/// End and verifier of each used refresh token of a grant, the one that ends first first.
fn spent(tx: &Tx<'_>, tenant: TenantId, user: UserId, id: CredentialId) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mut found = Vec::new();
    for item in tx.prefix(OAUTH_SPENT, &spent_prefix(tenant, user, id))? {
        let (row_key, _) = item?;
        let (end, verifier) = row_key[48..].split_first_chunk::<8>().ok_or(StoreError::Row("oauth_spent", CodecError::Malformed))?;
        found.push((u64::from_be_bytes(*end), verifier.to_vec()));
    }
    Ok(found)
}

fn spent_key(tenant: TenantId, user: UserId, id: CredentialId, end: u64, verifier: &[u8]) -> Vec<u8> {
    key(&[&spent_prefix(tenant, user, id), &end.to_be_bytes(), verifier])
}

/// Stages new tokens in place of the old ones. The used refresh token stays known; those whose time is over go.
pub fn rotate(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    user: UserId,
    id: CredentialId,
    mut grant: GrantRow,
    access: Token,
    refresh: Token,
) -> Result<(), StoreError> {
    for (end, verifier) in spent(tx, tenant, user, id)? {
        if Timestamp::from_ms(end) > tx.now {
            break;
        }
        tx.delete(OAUTH_SPENT, spent_key(tenant, user, id, end, &verifier));
        tx.delete(OAUTH_TOKENS, verifier);
        grant.spent = grant.spent.checked_sub(1).ok_or(StoreError::Row("oauth_grants", CodecError::Malformed))?;
    }
    tx.delete(OAUTH_TOKENS, grant.access.verifier.to_vec());
    let old = grant.refresh;
    tx.put(OAUTH_TOKENS, old.verifier.to_vec(), value(&TokenRow { tenant, user, grant: id, kind: Kind::Spent }));
    tx.put(OAUTH_SPENT, spent_key(tenant, user, id, old.ends_at.ms(), &old.verifier), Vec::new());
    grant.spent += 1;
    (grant.access, grant.refresh, grant.refreshed_at) = (access, refresh, tx.now);
    lead(tx, tenant, user, id, &grant);
    tx.put(OAUTH_GRANTS, grant_key(tenant, user, id), value(&grant));
    Ok(())
}

/// Stages the end of a grant and of all its tokens, for the very next answer. `false` if there is none.
pub fn remove(tx: &mut Tx<'_>, tenant: TenantId, user: UserId, id: CredentialId) -> Result<bool, StoreError> {
    let Some(grant) = get(tx, tenant, user, id)? else { return Ok(false) };
    for (end, verifier) in spent(tx, tenant, user, id)? {
        tx.delete(OAUTH_SPENT, spent_key(tenant, user, id, end, &verifier));
        tx.delete(OAUTH_TOKENS, verifier);
    }
    tx.delete(OAUTH_TOKENS, grant.access.verifier.to_vec());
    tx.delete(OAUTH_TOKENS, grant.refresh.verifier.to_vec());
    tx.delete(OAUTH_GRANTS, grant_key(tenant, user, id));
    count_grant(tx, tenant, ClientId(grant.client), -1)?;
    tx.staged.credentials_changed = true;
    Ok(true)
}

/// Stages the end of every grant of everybody. Gives how many there were.
pub fn remove_everybodys(tx: &mut Tx<'_>, tenant: TenantId) -> Result<u64, StoreError> {
    let mut all = Vec::new();
    for item in tx.prefix(OAUTH_GRANTS, tenant.bytes())? {
        let (row_key, _) = item?;
        let (user, grant) = row_key[16..].split_first_chunk::<16>().ok_or(StoreError::Row("oauth_grants", CodecError::Malformed))?;
        let grant = grant.try_into().map_err(|_| StoreError::Row("oauth_grants", CodecError::Malformed))?;
        all.push((UserId::from_bytes(*user), CredentialId::from_bytes(grant)));
    }
    let mut removed = 0;
    for (user, grant) in all {
        removed += u64::from(remove(tx, tenant, user, grant)?);
    }
    Ok(removed)
}

/// Stages the end of every grant that its person consented to by this key, and notes each.
pub fn remove_of_key(tx: &mut Tx<'_>, tenant: TenantId, user: UserId, key: CredentialId) -> Result<(), StoreError> {
    for (id, grant) in of_user(tx, tenant, user)? {
        if grant.by == By::Key(key) {
            tx.note(id.bytes());
            remove(tx, tenant, user, id)?;
        }
    }
    Ok(())
}

/// Stages the end of every grant of `user`.
pub fn remove_all(tx: &mut Tx<'_>, tenant: TenantId, user: UserId) -> Result<(), StoreError> {
    for (id, _) in of_user(tx, tenant, user)? {
        remove(tx, tenant, user, id)?;
    }
    Ok(())
}

/// A row of OAUTH_CLIENTS: it opens.
pub fn check_client(tx: &Tx<'_>, tenant: TenantId, row_key: &[u8]) -> Result<(), Fault> {
    let id = row_key.strip_prefix(tenant.bytes()).and_then(|id| id.try_into().ok()).map(ClientId);
    let id = id.ok_or(Fault::Wrong("not a key of this table"))?;
    let found = client_row(tx, tenant, id)?.ok_or(StoreError::Missing("oauth_clients"))?;
    opened(tx, tenant, id, &found)?;
    let mut named = 0;
    for item in tx.prefix(OAUTH_GRANTS, tenant.bytes())? {
        named += u32::from(row::<GrantRow>("oauth_grants", &item?.1)?.client == id.0);
    }
    ensure(found.grants == named, "the count of its grants is not that of the rows")
}

fn ids(row_key: &[u8], tenant: TenantId) -> Result<(UserId, CredentialId, &[u8]), Fault> {
    let wrong = Fault::Wrong("not a key of this table");
    let Some((user, rest)) = row_key.strip_prefix(tenant.bytes()).and_then(|rest| rest.split_first_chunk::<16>()) else {
        return Err(wrong);
    };
    let Some((grant, rest)) = rest.split_first_chunk::<16>() else { return Err(wrong) };
    Ok((UserId::from_bytes(*user), CredentialId::from_bytes(*grant), rest))
}

/// A row of OAUTH_GRANTS: its person and client exist, the key that they consented with is taken, both its tokens lead to it, and its used ones are as many as it says.
pub fn check_grant(tx: &Tx<'_>, tenant: TenantId, row_key: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let (user, grant, rest) = ids(row_key, tenant)?;
    ensure(rest.is_empty(), "not a key of this table")?;
    let found: GrantRow = row("oauth_grants", bytes)?;
    ensure(users::exists(tx, tenant, user)?, "its person has no row")?;
    ensure(client_row(tx, tenant, ClientId(found.client))?.is_some(), "its client has no row")?;
    ensure(Vendor::parse(&found.vendor).is_some(), "its vendor is none")?;
    if let By::Key(id) = found.by {
        let taken = credentials::stored(tx, tenant, id)?.is_some_and(|key| key.user == user && key.revoked_at.is_none());
        ensure(taken, "the key that it was consented to by is not its person's, or is revoked")?;
    }
    for (held, kind) in [(found.access, Kind::Access), (found.refresh, Kind::Refresh)] {
        ensure(token(tx, &held.verifier)? == Some(TokenRow { tenant, user, grant, kind }), "a token of it does not lead to it")?;
    }
    ensure(
        spent(tx, tenant, user, grant)?.len() == usize::try_from(found.spent).unwrap_or(usize::MAX),
        "the count of its used tokens is not that of the rows",
    )
}

/// A row of OAUTH_TOKENS: its grant holds it, or it was used there.
pub fn check_token(tx: &Tx<'_>, verifier: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let found: TokenRow = row("oauth_tokens", bytes)?;
    let grant = get(tx, found.tenant, found.user, found.grant)?.ok_or(StoreError::Missing("oauth_grants"))?;
    ensure(
        match found.kind {
            Kind::Access => grant.access.verifier == verifier,
            Kind::Refresh => grant.refresh.verifier == verifier,
            Kind::Spent => spent(tx, found.tenant, found.user, found.grant)?.iter().any(|(_, known)| known == verifier),
        },
        "its grant does not hold it",
    )
}

/// A row of OAUTH_SPENT: it is known as a used token of that grant.
pub fn check_spent(tx: &Tx<'_>, tenant: TenantId, row_key: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    let (user, grant, rest) = ids(row_key, tenant)?;
    let verifier: Option<&[u8; 32]> = rest.get(8..).and_then(|verifier| verifier.try_into().ok());
    let verifier = verifier.ok_or(Fault::Wrong("not a key of this table"))?;
    let led = token(tx, verifier)? == Some(TokenRow { tenant, user, grant, kind: Kind::Spent });
    ensure(led && bytes.is_empty(), "it is not known as a used token of its grant")
}
