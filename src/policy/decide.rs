//! The decision: principal, target and facts → a grant for exactly that, or a denial with its true reason.

use std::marker::PhantomData;

use crate::authn::{Principal, Role};
use crate::base::id::{TenantId, UserId};
use crate::policy::action::{Action, Target};
use crate::policy::rules::{Asker, Relation, allows};

/// What policy must know of a memory.
#[derive(Clone, Debug)]
pub struct MemoryFacts {
    /// Its workspace.
    pub tenant: TenantId,
    /// Whose it is.
    pub owner: UserId,
    /// Who wrote it: a vendor's name or another origin.
    pub origin: String,
    /// Which vendors may see it; `*` means all.
    pub allowed_vendors: Vec<String>,
    /// Whether it is in the trash.
    pub trashed: bool,
}

/// What the store says of the target, from the snapshot or transaction in which the work will run.
#[derive(Clone, Debug)]
pub enum Facts {
    /// Nothing beyond the target itself is needed.
    None,
    /// The memory, if there is one.
    Memory(Option<MemoryFacts>),
    /// Workspace and person of a credential or an operation, if there is one.
    Holder(Option<(TenantId, UserId)>),
}

/// Permission for one verb on one target. The private field keeps it from being made elsewhere.
#[derive(Debug)]
pub struct Grant<A: Action> {
    target: A::Target,
    seal: PhantomData<A>,
}

impl<A: Action> Grant<A> {
    /// What the permission is for.
    pub fn target(&self) -> A::Target {
        self.target
    }
}

/// A refusal by policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied {
    /// Why, for the audit log.
    pub relation: Relation,
    /// Whether the asker may know that the thing exists (then 403, else 404).
    pub visible: bool,
}

/// Decides whether `who` may do `A` to `target`, given `facts`.
pub fn decide<A: Action>(who: &Principal, target: A::Target, facts: &Facts) -> Result<Grant<A>, Denied> {
    decision(who, A::NAME, A::WRITES && A::PHI, target.into(), facts).map(|()| Grant { target, seal: PhantomData })
}

/// The decision, which is the same code for every verb.
fn decision(who: &Principal, verb: &'static str, changes_records: bool, target: Target, facts: &Facts) -> Result<(), Denied> {
    let relation = relation(who, target, facts);
    // A grant that only reads changes no record, whatever the table allows to agents.
    if !(who.is_read_only() && changes_records) && allows(asker(who), verb, relation) {
        return Ok(());
    }
    Err(Denied { relation, visible: matches!(relation, Relation::Own | Relation::Visible) })
}

fn asker(who: &Principal) -> Asker {
    match who.role() {
        Role::User if who.is_admin() => Asker::Admin,
        Role::User => Asker::User,
        Role::Agent(_) => Asker::Agent,
        Role::System(_) => Asker::System,
    }
}

fn relation(who: &Principal, target: Target, facts: &Facts) -> Relation {
    let holder = |tenant: TenantId, user: UserId| match () {
        () if tenant != who.tenant() => Relation::ForeignTenant,
        () if user != who.user() => Relation::Foreign,
        () => Relation::Own,
    };
    match (target, facts) {
        (Target::Memory(_), Facts::Memory(Some(memory))) => match holder(memory.tenant, memory.owner) {
            Relation::Own => own_memory(who, memory),
            other => other,
        },
        (Target::Scope(scope), _) => holder(scope.tenant, scope.owner),
        (Target::Person(person), _) => holder(who.tenant(), person.0),
        (Target::Credential(_) | Target::Operation(_), Facts::Holder(Some((tenant, user)))) => holder(*tenant, *user),
        (Target::Instance, _) => Relation::Own,
        (Target::Memory(_) | Target::Credential(_) | Target::Operation(_), _) => Relation::Absent,
    }
}

/// How an asker stands to a memory of its own person: agents see only what is live and open to their vendor.
fn own_memory(who: &Principal, memory: &MemoryFacts) -> Relation {
    let Some(vendor) = who.vendor() else { return Relation::Own };
    if !memory.allowed_vendors.iter().any(|v| v == "*" || v == vendor.name()) {
        Relation::Hidden
    } else if memory.trashed {
        Relation::Trashed
    } else if memory.origin == vendor.name() {
        Relation::Own
    } else {
        Relation::Visible
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::credential::{SettingId, StaticKey};
    use crate::authn::{StoredCredential, Vendor};
    use crate::base::id::{CredentialId, MemoryId};
    use crate::base::time::Timestamp;
    use crate::policy::action::{ReadMemory, UpdateMemory};

    fn setting() -> (Principal, Principal, MemoryFacts, MemoryId) {
        let now = Timestamp::from_ms(1);
        let (tenant, owner) = (TenantId::draw(), UserId::draw(now));
        let row = StoredCredential { id: CredentialId::draw(), tenant, user: owner, revoked_at: None };
        let user = Principal::of_user_key(&row, false).unwrap();
        let agent = Principal::of_static_key(
            tenant,
            owner,
            &StaticKey { name: "RM_AGENT_KEY_CURSOR".into(), vendor: Vendor::parse("cursor"), id: SettingId([0; 16]) },
        );
        let memory = MemoryFacts { tenant, owner, origin: "api".into(), allowed_vendors: vec!["*".into()], trashed: false };
        (user, agent, memory, MemoryId::draw(now))
    }

    fn allowed<A: Action<Target = MemoryId>>(who: &Principal, id: MemoryId, memory: &MemoryFacts) -> Result<(), Relation> {
        decide::<A>(who, id, &Facts::Memory(Some(memory.clone()))).map(|_| ()).map_err(|d| d.relation)
    }

    #[test]
    fn an_agent_sees_what_is_open_to_its_vendor_and_changes_what_it_wrote() {
        let (user, agent, mut memory, id) = setting();
        assert_eq!(allowed::<ReadMemory>(&agent, id, &memory), Ok(()));
        assert_eq!(allowed::<UpdateMemory>(&agent, id, &memory), Err(Relation::Visible));
        assert_eq!(allowed::<UpdateMemory>(&user, id, &memory), Ok(()));
        memory.origin = "cursor".into();
        assert_eq!(allowed::<UpdateMemory>(&agent, id, &memory), Ok(()));
        memory.trashed = true;
        assert_eq!(allowed::<ReadMemory>(&agent, id, &memory), Err(Relation::Trashed));
        assert_eq!(allowed::<ReadMemory>(&user, id, &memory), Ok(()));
        memory.allowed_vendors = vec!["claude".into()];
        assert_eq!(allowed::<ReadMemory>(&agent, id, &memory), Err(Relation::Hidden));
    }

    #[test]
    fn another_owner_another_tenant_and_nothing_at_all_look_the_same_and_are_recorded_apart() {
        let (user, _, mut memory, id) = setting();
        memory.owner = UserId::draw(Timestamp::from_ms(9));
        let foreign = decide::<ReadMemory>(&user, id, &Facts::Memory(Some(memory.clone()))).unwrap_err();
        memory.tenant = TenantId::draw();
        let tenant = decide::<ReadMemory>(&user, id, &Facts::Memory(Some(memory))).unwrap_err();
        let absent = decide::<ReadMemory>(&user, id, &Facts::Memory(None)).unwrap_err();
        assert_eq!((foreign.relation, tenant.relation, absent.relation), (Relation::Foreign, Relation::ForeignTenant, Relation::Absent));
        assert!(!foreign.visible && !tenant.visible && !absent.visible);
    }
}
