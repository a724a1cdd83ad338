//! expect: E0277
//! A change under a permission to read.
use crate::policy::action::ReadMemory;
use crate::store::gate::Access;
use crate::store::tables::memories;

fn attempt(a: &mut Access<'_, ReadMemory>) -> bool {
    memories::trash(a, None).is_ok()
}
