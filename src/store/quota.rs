//! Quotas: how many memories and keys a person may have.
//!
//! Invariants
//! - A quota is looked at inside the transaction that would exceed it, after the work, so that neither two writes at once nor several memories in
//!   one write come past it; work that exceeds it is dropped whole.
//! - What does not make more of it (an update, an exact repeat, what goes to the trash) is never refused for it.
//! - The owner of the instance has no quota.
//!
//! What is in the trash and what a memory said before do not count: `docs/decisions/0012-quotas-count-what-is-live.md`.

use crate::authn::Role;
use crate::base::id::UserId;
use crate::base::limits;
use crate::policy::action::{Action, CreateKey, Scope, Writes};
use crate::store::gate::Access;
use crate::store::tables::{credentials, memories, usage};
use crate::store::tx::StoreError;
use crate::store::vault::Vault;

pub use crate::store::tables::usage::UsageRow;

/// What a person may have; `None` is no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The contract's name for it.
    pub name: &'static str,
    /// Live memories.
    pub memories_max: Option<u64>,
    /// Keys that are not revoked.
    pub keys_max: Option<u64>,
}

/// What a quota counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// Live memories.
    Memories,
    /// Keys that are not revoked.
    Keys,
}

/// A quota that is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    /// Whose plan it is.
    pub plan: &'static str,
    /// Of what.
    pub counted: Counted,
    /// How many there are.
    pub count: u64,
    /// How many there may be.
    pub limit: u64,
}

/// How a person stands to the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The plan.
    pub plan: Plan,
    /// Live memories.
    pub memories: u64,
}

impl Vault {
    /// What `user` may have.
    pub fn plan_of(&self, user: UserId) -> Plan {
        if user == self.owner() {
            return Plan { name: "admin", memories_max: None, keys_max: None };
        }
        Plan { name: "free", memories_max: self.memories_max(), keys_max: Some(limits::KEYS_ACTIVE_MAX) }
    }
}

/// How the granted person stands.
pub fn standing<A: Action<Target = Scope>>(a: &Access<'_, A>) -> Result<Standing, StoreError> {
    Ok(Standing { plan: a.vault().plan_of(a.target().owner), memories: memories::length(a)? })
}

/// The granted person's uses by month, the newest first.
pub fn months<A: Action<Target = Scope>>(a: &Access<'_, A>) -> Result<Vec<(String, UsageRow)>, StoreError> {
    usage::months(a.tx(), a.target())
}

/// Whether what this work has staged, and so many that are to follow it, make more memories of its asker's person than there may be.
pub fn memories_full<A: Writes>(a: &Access<'_, A>, coming: u64) -> Result<Option<Full>, StoreError> {
    let plan = a.vault().plan_of(a.who().user());
    let (Some(limit), Role::User | Role::Agent(_)) = (plan.memories_max, a.who().role()) else { return Ok(None) };
    let scope = Scope { tenant: a.who().tenant(), owner: a.who().user() };
    let (before, more) = memories::growth(a.tx(), scope)?;
    let exceeds = (more > 0 || coming > 0) && before.saturating_add_signed(more).saturating_add(coming) > limit;
    Ok(exceeds.then_some(Full { plan: plan.name, counted: Counted::Memories, count: before, limit }))
}

/// Whether the granted person may have no further key.
pub fn keys_full(a: &Access<'_, CreateKey>) -> Result<Option<Full>, StoreError> {
    let (tenant, person) = (a.who().tenant(), a.target().0);
    let plan = a.vault().plan_of(person);
    let (Some(limit), Role::User) = (plan.keys_max, a.who().role()) else { return Ok(None) };
    let count = credentials::count_active(a.tx(), tenant, person)?;
    Ok((count >= limit).then_some(Full { plan: plan.name, counted: Counted::Keys, count, limit }))
}
