//! expect: E0277
//! A write through the door for reads, where nothing would be committed.
use crate::authn::Principal;
use crate::base::id::MemoryId;
use crate::policy::action::TrashMemory;
use crate::store::gate::{Call, Fault};
use crate::store::{Vault, memories, tx::StoreError};

fn attempt<E: Fault>(vault: &Vault, who: &Principal, target: MemoryId, call: &Call) -> bool {
    vault.read::<TrashMemory, bool, E>(who, target, call, |access| Ok(memories::trash(access, None)?.is_some())).is_ok()
}
