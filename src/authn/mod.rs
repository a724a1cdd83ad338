//! Authentication: a presented credential and what is stored about it → who is asking. Pure: no tables, no clock.

pub mod credential;
pub mod jwt;
pub mod oauth;
pub mod principal;

pub use principal::{CredentialRef, GrantRef, Principal, Role, StoredCredential, Vendor};
