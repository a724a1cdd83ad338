//! The tags of a scope, counted. An index holds no text: what a group's tag is called, one of its memories says when it is opened.
//!
//! Invariant: counts depend on the memories that the viewer may see and on no others.

use std::cmp::Reverse;
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
    /// The newest of them.
    pub newest: MemoryId,
}

/// Every tag of a scope; see the module text.
pub struct Groups {
    hasher: RandomState,
    /// Most frequent first, then those with the newer memory.
    pub groups: Vec<Group>,
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
            if let Some((_, newest)) = newest {
                groups.push(Group { key, count, recent, newest });
            }
        }
        groups.sort_unstable_by_key(|group| Reverse((group.count, group.newest)));
        Groups { hasher: self.hasher.clone(), groups }
    }
}
