//! expect: E0271
//! Counting a person's memories under a permission for one of them.
use crate::policy::action::ReadMemory;
use crate::store::gate::Access;
use crate::store::tables::memories::{self, State};

fn attempt(a: &mut Access<'_, ReadMemory>, state: State) -> bool {
    memories::total(a, state).is_ok()
}
