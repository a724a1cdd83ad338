//! expect: compiles
//! The control: work under a grant, each through its own door, and text read before a witness.
use crate::authn::Principal;
use crate::base::id::MemoryId;
use crate::policy::action::{ReadVersions, TrashMemory};
use crate::store::gate::{Call, Fault, Receipt, Recorded, Refused};
use crate::store::{Phi, Vault, memories};

fn read<E: Fault>(vault: &Vault, who: &Principal, target: MemoryId, call: &Call) -> Result<Recorded<usize>, Refused<E>> {
    vault.read::<ReadVersions, usize, E>(who, target, call, |access| Ok(memories::versions(access)?.len()))
}

fn write<E: Fault + Send + 'static>(vault: &Vault, who: &Principal, target: MemoryId, call: &Call) -> Result<Recorded<bool>, Refused<E>> {
    vault.write::<TrashMemory, bool, E>(who, target, call, |access| Ok(memories::trash(access)?.is_some()))
}

fn opened<'t>(text: &'t Phi, receipt: &Receipt) -> &'t str {
    text.expose(receipt)
}
