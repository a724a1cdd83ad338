//! expect: compiles
//! The control: work under a grant, each through its own door, and text read before a witness.
use crate::authn::Principal;
use crate::base::id::MemoryId;
use crate::policy::action::{ReadThread, TrashMemory};
use crate::store::gate::{Call, Fault, Receipt, Recorded, Refused};
use crate::store::phi::Phi;
use crate::store::{Vault, memories, tx::StoreError};

fn read<E: Fault + From<StoreError>>(vault: &Vault, who: &Principal, target: MemoryId, call: &Call) -> Result<Recorded<usize>, Refused<E>> {
    vault.read::<ReadThread, usize, E>(who, target, call, |access| Ok(memories::count_replies(access)?))
}

fn write<E: Fault + Send + 'static>(vault: &Vault, who: &Principal, target: MemoryId, call: &Call) -> Result<Recorded<bool>, Refused<E>> {
    vault.write::<TrashMemory, bool, E>(who, target, call, |access| Ok(memories::trash(access, None)?.is_some()))
}

fn opened<'t>(text: &'t Phi, receipt: &Receipt) -> &'t str {
    text.expose(receipt)
}
