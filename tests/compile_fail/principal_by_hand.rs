//! expect: E0451
//! An identity that no credential proved.
use crate::authn::{CredentialRef, Principal, Role};
use crate::base::id::{TenantId, UserId};

fn attempt(tenant: TenantId, user: UserId) -> Principal {
    Principal { tenant, user, role: Role::User, credential: CredentialRef::None, admin: true, expires_at: None, read_only: false }
}
