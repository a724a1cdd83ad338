//! Operations: one function a row of `routes`. Each names a verb, a target and a piece of work, and words the answer.

pub mod agent;
pub mod identity;
pub mod keys;
pub mod memories;
pub mod operations;
pub mod search;

use crate::api::run::Cx;
use crate::policy::action::{Person, Scope};

impl Cx<'_> {
    /// The asker's own memories.
    fn own(&self) -> Scope {
        Scope { tenant: self.who.tenant(), owner: self.who.user() }
    }

    /// The asker.
    fn person(&self) -> Person {
        Person(self.who.user())
    }
}

/// Text that the schema requires.
fn required(cx: &mut Cx<'_>, name: &str) -> String {
    cx.fields.text(name).expect("the route's schema requires it")
}
