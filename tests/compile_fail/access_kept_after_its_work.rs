//! expect: E0521
//! A grant in use, carried out of the transaction that it belongs to.
use crate::authn::Principal;
use crate::base::id::MemoryId;
use crate::policy::action::ReadMemory;
use crate::store::gate::{Access, Call};
use crate::store::{Vault, tx::StoreError};

fn attempt<E: crate::store::gate::Fault>(vault: &Vault, who: &Principal, target: MemoryId, call: &Call) {
    let kept = std::cell::RefCell::new(None);
    let _ = vault.read::<ReadMemory, (), E>(who, target, call, |access: &mut Access<'_, ReadMemory>| {
        kept.replace(Some(access));
        Ok(())
    });
}
