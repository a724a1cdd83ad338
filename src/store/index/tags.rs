//! The tags of a scope, counted. An index holds no text: what a group's tag is called, one of its memories says when it is opened.
//!
//! Invariant: counts depend on the memories that the viewer may see and on no others.

use std::hash::{BuildHasher, RandomState};

use super::postings::Postings;
use super::prepared::{self, Kind};
use super::scope::{ScopeIndex, Viewer};
use crate::base::id::MemoryId;

/// The memories that carry one tag.
pub struct Group {
    key: u64,
    /// How many there are.
    pub count: u32,
    /// How many of them were written at or after the moment asked for.
    pub recent: u32,
    /// The newest of them: when it was written (ms), and which it is.
    pub newest: (u64, MemoryId),
}

/// Every tag of a scope; see the module text.
pub struct Groups {
    hasher: RandomState,
    /// In an order of chance, which no answer may show.
    pub groups: Vec<Group>,
}

#[cfg(test)]
impl Group {
    /// A group of a tag that nobody asks for.
    pub fn unnamed(count: u32, newest: (u64, MemoryId)) -> Self {
        Self { key: 0, count, recent: 0, newest }
    }
}

impl Groups {
    /// Whether this is the tag of that group.
    pub fn is(&self, group: &Group, tag: &str) -> bool {
        self.hasher.hash_one(prepared::hash(Kind::Tag, tag)) == group.key
    }
}

impl ScopeIndex {
    /// The tags of what the viewer sees; `since` (ms) divides the recent from the rest.
    pub fn tags(&self, viewer: Viewer<'_>, since: u64) -> Groups {
        let view = self.view(viewer);
        let mut groups = Vec::new();
        for (&key, postings) in &self.tags {
            let seen = Postings::iter(postings).map(|(number, _)| number).filter(|&number| view.sees(self, number));
            let (mut count, mut recent, mut newest) = (0, 0, None);
            for age in seen.map(|number| self.age(number)) {
                count += 1;
                recent += u32::from(age.0 >= since);
                newest = newest.max(Some(age));
            }
            groups.extend(newest.map(|newest| Group { key, count, recent, newest }));
        }
        Groups { hasher: self.hasher.clone(), groups }
    }
}
