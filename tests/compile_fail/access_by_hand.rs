//! expect: E0451
//! A grant in use, made without the gate.
use crate::policy::action::ReadMemory;
use crate::store::gate::Access;

fn attempt<'t>(other: Access<'t, ReadMemory>) -> Access<'t, ReadMemory> {
    Access { ..other }
}
