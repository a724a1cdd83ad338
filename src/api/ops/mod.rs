//! Operations: one function a row of `routes`, and of the other skins' tables. Each names a verb, a target and a piece of work, and writes
//! the answer out; why there is none is a `Failure`, which the skin that asked puts into its own shape. Where skins show the same thing
//! differently, the part before the writing is a function of its own (`-> Done<…>`).

pub mod admin;
pub mod agent;
pub mod backups;
pub mod briefing;
pub mod erasures;
pub mod events;
pub mod grants;
pub mod graph;
pub mod identity;
pub mod keys;
pub mod memories;
pub mod model;
pub mod operations;
pub mod search;
pub mod status;
pub mod usage;

use crate::api::run::Cx;
use crate::policy::action::{Person, Scope};

impl Cx<'_> {
    /// The asker's own memories.
    pub(in crate::api) fn own(&self) -> Scope {
        Scope { tenant: self.who.tenant(), owner: self.who.user() }
    }

    /// Where what a person's credential writes comes from.
    pub(in crate::api) fn origin(&self) -> &'static str {
        if self.who.by_dashboard() { "dashboard" } else { "api" }
    }

    /// The asker.
    pub(in crate::api) fn person(&self) -> Person {
        Person(self.who.user())
    }
}

/// Text that the schema requires.
fn required(cx: &mut Cx<'_>, name: &str) -> String {
    cx.fields.text(name).expect("the route's schema requires it")
}
