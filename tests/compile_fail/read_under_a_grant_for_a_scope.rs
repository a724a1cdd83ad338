//! expect: E0271
//! Reading one memory's versions under a permission to list.
use crate::policy::action::ListMemories;
use crate::store::gate::Access;
use crate::store::tables::memories;

fn attempt(a: &mut Access<'_, ListMemories>) -> bool {
    memories::versions(a).is_ok()
}
