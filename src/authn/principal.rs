//! `Principal`: who is asking, as proved by a credential.
//!
//! Invariants
//! - The only constructors are the checks in this file; identity comes from the credential, never from an argument of a request.
//! - A principal that came from a stored credential is checked again inside every write and whenever credentials changed
//!   ([`Principal::still_valid`]), so a revocation holds for the very next answer.

use std::sync::Arc;

use crate::authn::credential::{SettingId, StaticKey};
use crate::base::hex;
use crate::base::id::{CredentialId, TenantId, UserId};
use crate::base::time::Timestamp;

/// The AI tool that an agent credential speaks for: 1..50 of `a-z0-9_`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Vendor(String);

impl Vendor {
    /// Checks the character set; `None` if `text` is not a vendor's name.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=crate::base::limits::VENDOR_CHARS_MAX).contains(&text.len());
        (fits && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))).then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// What kind of asker this is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// A person's own credential.
    User,
    /// A person's agent, confined to the agent routes and to what its vendor may see.
    Agent(Vendor),
    /// Background work of this program, by name.
    System(&'static str),
}

/// Which credential proved the principal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CredentialRef {
    /// A row in the credentials table.
    Stored(CredentialId),
    /// A key from the configuration.
    Static {
        /// The variable's name.
        name: Arc<str>,
        /// Tells a changed key from the old one.
        id: SettingId,
    },
    /// A grant of OAuth.
    Grant(CredentialId),
    /// The dashboard's key from the configuration, with a token that it signed for one person.
    Dashboard {
        /// The variable's name.
        name: Arc<str>,
        /// Tells a changed key from the old one.
        id: SettingId,
    },
    /// None: the program itself.
    None,
}

impl CredentialRef {
    /// Which key from the configuration it is.
    pub fn configured(&self) -> Option<SettingId> {
        match self {
            CredentialRef::Static { id, .. } | CredentialRef::Dashboard { id, .. } => Some(*id),
            CredentialRef::Stored(_) | CredentialRef::Grant(_) | CredentialRef::None => None,
        }
    }

    /// How the credential appears in records and rate limits: its id, or `env:NAME#` and 8 hex digits.
    pub fn text(&self) -> Option<String> {
        match self {
            CredentialRef::Stored(id) | CredentialRef::Grant(id) => Some(id.to_string()),
            CredentialRef::Static { name, id } | CredentialRef::Dashboard { name, id } => {
                Some(format!("env:{name}#{}", hex::encode(&id.mark())))
            }
            CredentialRef::None => None,
        }
    }
}

/// Who is asking.
#[derive(Clone, Debug)]
pub struct Principal {
    tenant: TenantId,
    user: UserId,
    role: Role,
    credential: CredentialRef,
    admin: bool,
    expires_at: Option<Timestamp>,
    read_only: bool,
}

/// What the store knows of a credential; the parts that decide.
#[derive(Clone, Copy, Debug)]
pub struct StoredCredential {
    /// Its id.
    pub id: CredentialId,
    /// Its workspace.
    pub tenant: TenantId,
    /// Whose it is.
    pub user: UserId,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// What decides about a grant of OAuth.
#[derive(Clone, Debug)]
pub struct GrantRef {
    /// Its id.
    pub id: CredentialId,
    /// The vendor that its person confirmed.
    pub vendor: Vendor,
    /// Whether it may write.
    pub write: bool,
}

/// The credential was good once and is not any more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the credential was revoked")]
pub struct Revoked(pub CredentialId);

impl Principal {
    /// The person behind a stored user key whose verifier matched. `admin`: they administrate the instance.
    pub fn of_user_key(row: &StoredCredential, admin: bool) -> Result<Self, Revoked> {
        match row.revoked_at {
            Some(_) => Err(Revoked(row.id)),
            None => {
                let credential = CredentialRef::Stored(row.id);
                Ok(Self { tenant: row.tenant, user: row.user, role: Role::User, credential, admin, expires_at: None, read_only: false })
            }
        }
    }

    /// The person for whom the dashboard, known by its key, signed a token that is good until `expires_at`.
    pub fn of_dashboard(tenant: TenantId, user: UserId, key: &StaticKey, admin: bool, expires_at: Timestamp) -> Self {
        let credential = CredentialRef::Dashboard { name: Arc::clone(&key.name), id: key.id };
        Self { tenant, user, role: Role::User, credential, admin, expires_at: Some(expires_at), read_only: false }
    }

    /// A person's agent, by a grant of OAuth whose access token is good until `expires_at`.
    pub fn of_grant(tenant: TenantId, user: UserId, grant: &GrantRef, expires_at: Timestamp) -> Self {
        let (role, credential) = (Role::Agent(grant.vendor.clone()), CredentialRef::Grant(grant.id));
        Self { tenant, user, role, credential, admin: false, expires_at: Some(expires_at), read_only: !grant.write }
    }

    /// The agent to which the person `by` has just consented: what proves it is the person's own credential, until it has a grant.
    pub fn of_consent(by: &Self, vendor: Vendor) -> Self {
        Self { role: Role::Agent(vendor), admin: false, expires_at: None, read_only: true, ..by.clone() }
    }

    /// The owner, by the configured API key (`vendor` none) or by one of the configured agent keys.
    pub fn of_static_key(tenant: TenantId, owner: UserId, key: &StaticKey) -> Self {
        let role = key.vendor.clone().map_or(Role::User, Role::Agent);
        let credential = CredentialRef::Static { name: Arc::clone(&key.name), id: key.id };
        Self { tenant, user: owner, role, credential, admin: key.vendor.is_none(), expires_at: None, read_only: false }
    }

    /// The same credential where it speaks for an AI tool: a person becomes that tool's agent and can do less. Agents stay what they are.
    pub fn speaking_for(self, vendor: Vendor) -> Self {
        match self.role {
            Role::User => Self { role: Role::Agent(vendor), admin: false, ..self },
            Role::Agent(_) | Role::System(_) => self,
        }
    }

    /// The program itself, acting for `owner` where a memory is touched.
    pub fn system(tenant: TenantId, owner: UserId, name: &'static str) -> Self {
        Self {
            tenant,
            user: owner,
            role: Role::System(name),
            credential: CredentialRef::None,
            admin: false,
            expires_at: None,
            read_only: false,
        }
    }

    /// Whether the stored credential this principal came from still stands; `row` is what the store says now.
    pub fn still_valid(&self, row: Option<&StoredCredential>) -> bool {
        match &self.credential {
            CredentialRef::Stored(id) => {
                row.is_some_and(|row| row.id == *id && row.revoked_at.is_none() && row.user == self.user && row.tenant == self.tenant)
            }
            CredentialRef::Grant(_) | CredentialRef::Static { .. } | CredentialRef::Dashboard { .. } | CredentialRef::None => true,
        }
    }

    /// Whether it may change no records, whatever its role may.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether a grant of OAuth speaks for this person.
    pub fn by_oauth(&self) -> bool {
        matches!(self.credential, CredentialRef::Grant(_))
    }

    /// Whether what proved this principal holds no longer at `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    /// Whether the dashboard speaks for this person.
    pub fn by_dashboard(&self) -> bool {
        matches!(self.credential, CredentialRef::Dashboard { .. })
    }

    /// The workspace this principal is confined to.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The person asking, or on whose behalf an agent asks.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Person, agent or system.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The agent's vendor, if an agent asks.
    pub fn vendor(&self) -> Option<&Vendor> {
        match &self.role {
            Role::Agent(vendor) => Some(vendor),
            Role::User | Role::System(_) => None,
        }
    }

    /// The credential that proved it.
    pub fn credential(&self) -> &CredentialRef {
        &self.credential
    }

    /// Whether this person administrates the instance.
    pub fn is_admin(&self) -> bool {
        self.admin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_key_makes_no_principal() {
        let (tenant, user) = (TenantId::draw(), UserId::draw(Timestamp::from_ms(1)));
        let mut row = StoredCredential { id: CredentialId::draw(), tenant, user, revoked_at: None };
        let who = Principal::of_user_key(&row, true).unwrap();
        assert!(who.is_admin() && who.still_valid(Some(&row)));
        row.revoked_at = Some(Timestamp::from_ms(2));
        assert_eq!(Principal::of_user_key(&row, true).unwrap_err(), Revoked(row.id));
        assert!(!who.still_valid(Some(&row)) && !who.still_valid(None));
    }

    #[test]
    fn a_dashboards_principal_ends_with_its_token() {
        let key = StaticKey { name: "RM_DASHBOARD_SERVICE_KEY".into(), vendor: None, id: SettingId([1; 16]) };
        let who = Principal::of_dashboard(TenantId::draw(), UserId::draw(Timestamp::from_ms(1)), &key, false, Timestamp::from_ms(9));
        assert!(who.by_dashboard() && !who.has_expired(Timestamp::from_ms(8)) && who.has_expired(Timestamp::from_ms(9)));
        assert_eq!(who.credential().text().as_deref(), Some("env:RM_DASHBOARD_SERVICE_KEY#01010101"));
    }

    #[test]
    fn who_speaks_for_a_tool_is_its_agent_and_no_administrator() {
        let (tenant, user) = (TenantId::draw(), UserId::draw(Timestamp::from_ms(1)));
        let row = StoredCredential { id: CredentialId::draw(), tenant, user, revoked_at: None };
        let agent = Principal::of_user_key(&row, true).unwrap().speaking_for(Vendor::parse("claude").unwrap());
        assert_eq!((agent.vendor().map(Vendor::name), agent.is_admin(), agent.user()), (Some("claude"), false, user));
        assert!(agent.still_valid(Some(&row)) && !agent.still_valid(None));
        let other = agent.speaking_for(Vendor::parse("cursor").unwrap());
        assert_eq!(other.vendor().map(Vendor::name), Some("claude"), "an agent cannot become another's");
    }

    #[test]
    fn a_vendor_has_a_bounded_character_set() {
        assert!(Vendor::parse("cursor").is_some());
        for bad in ["", "Cursor", "a b", "*", &"a".repeat(51)] {
            assert!(Vendor::parse(bad).is_none(), "{bad}");
        }
    }
}
