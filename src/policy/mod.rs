//! Policy: facts in, decision out. Pure, deny by default.
//!
//! Invariants
//! - One table ([`rules::RULES`]) of (role, verb, relation) allows; whatever it does not name is denied.
//! - A [`Grant`] is made by [`decide`] alone, names one verb and one target, and cannot be taken for another.
//! - What an asker may not know to exist is answered as if it did not exist; the audit entry carries the true reason.

pub mod action;
mod decide;
pub mod rules;

pub use decide::{Denied, Facts, Grant, MemoryFacts, decide};
pub use rules::Relation;
