//! expect: compiles
//! The control: a grant from a decision, a secret read by its one door.
use crate::authn::Principal;
use crate::base::id::MemoryId;
use crate::crypto::secret::Secret;
use crate::policy::action::ReadMemory;
use crate::policy::{Denied, Facts, Grant, decide};

fn decided(who: &Principal, target: MemoryId, facts: &Facts) -> Result<Grant<ReadMemory>, Denied> {
    decide::<ReadMemory>(who, target, facts)
}

fn read(key: &Secret<String>) -> usize {
    key.expose().len()
}
