//! What is near a memory (its thread, what shares its tags, what names it and what it names), and what a tag gathers.
//!
//! Invariants
//! - Nothing is near that its asker may not see; what is hidden leaves no trace in a count.
//! - Every list is bounded; the memory itself is opened whole, what names it is opened to be sure, all else without its content.

use std::collections::{BTreeSet, HashMap};

use super::Refusal;
use crate::base::id::MemoryId;
use crate::base::limits;
use crate::policy::action::{Action, Reads, Scope};
use crate::store::gate::Access;
use crate::store::memories::{self as table, Memory, Part, State};
use crate::store::search;

/// A memory and what is near it.
pub struct Around {
    /// The memory.
    pub center: Memory,
    /// What it replies to.
    pub parent: Option<Memory>,
    /// Its replies, oldest first.
    pub children: Vec<Memory>,
    /// Other replies to what it replies to, oldest first.
    pub siblings: Vec<Memory>,
    /// Memories with tags of its own, and with how many of them; most first, then newest.
    pub similar: Vec<(Memory, usize)>,
    /// Memories whose id stands in its content.
    pub references: Vec<Memory>,
    /// Memories whose text holds its id.
    pub referenced_by: Vec<Memory>,
}

/// What is near the live memory `id`: with at least `shared` tags in common, the `most` nearest of these.
pub fn around<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    id: MemoryId,
    shared: usize,
    most: usize,
) -> Result<Around, Refusal> {
    let center = table::one(a, id, Part::Full, State::Live)?.ok_or(Refusal::NotFound)?;
    let mut above = match center.parent {
        Some(parent) => summaries(a, [parent])?,
        None => Vec::new(),
    };
    let parent = above.pop();
    let siblings = match &parent {
        Some(parent) => replies(a, parent.id, id)?,
        None => Vec::new(),
    };
    let children = replies(a, id, id)?;
    let similar = similar(a, &center, shared, most)?;
    let named = named(center.text.content.expose(a), id);
    let references = summaries(a, named)?;
    let referenced_by = naming(a, id)?;
    let near = Around { center, parent, children, siblings, similar, references, referenced_by };
    let lists = [&near.children, &near.siblings, &near.references, &near.referenced_by];
    let all = std::iter::once(&near.center).chain(&near.parent).chain(near.similar.iter().map(|(memory, _)| memory));
    table::answer(a, all.chain(lists.into_iter().flatten()));
    Ok(near)
}

fn summaries<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    ids: impl IntoIterator<Item = MemoryId>,
) -> Result<Vec<Memory>, Refusal> {
    Ok(table::several(a, ids, Part::Summary, State::Live)?)
}

/// The replies to `parent` but `except`.
fn replies<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, parent: MemoryId, except: MemoryId) -> Result<Vec<Memory>, Refusal> {
    let ids = table::replies(a, parent)?;
    let mut found = Vec::new();
    for id in ids.into_iter().filter(|id| *id != except) {
        if found.len() == limits::NEAR_MAX {
            break;
        }
        found.extend(summaries(a, [id])?);
    }
    Ok(found)
}

fn similar<A: Reads + Action<Target = Scope>>(
    a: &mut Access<'_, A>,
    center: &Memory,
    shared: usize,
    most: usize,
) -> Result<Vec<(Memory, usize)>, Refusal> {
    let tags: BTreeSet<&str> = center.text.tags.iter().map(|tag| tag.expose(a)).collect();
    let view = search::viewer(a);
    let counts = search::ask(a, |index| {
        let mut counts = HashMap::new();
        for tag in &tags {
            for id in index.by_tags(&[tag], view, 0, limits::NEAR_SCAN_MAX).0 {
                *counts.entry(id).or_insert(0) += 1;
            }
        }
        counts
    })?;
    let mut near: Vec<(usize, MemoryId)> =
        counts.into_iter().filter(|(id, n)| *n >= shared && *id != center.id).map(|(id, n)| (n, id)).collect();
    near.sort_unstable_by(|one, other| other.cmp(one));
    near.truncate(most);
    let memories = summaries(a, near.iter().map(|(_, id)| *id))?;
    let mut near = near.into_iter();
    let paired = memories.into_iter().filter_map(|memory| near.find(|(_, id)| *id == memory.id).map(|(n, _)| (memory, n)));
    Ok(paired.collect())
}

/// The ids of other memories that stand in `text`, in their order, each once.
fn named(text: &str, own: MemoryId) -> Vec<MemoryId> {
    const CHARS: usize = 36;
    let mut found = Vec::new();
    let mut at = 0;
    while at + CHARS <= text.len() && found.len() < limits::NEAR_MAX {
        // The first hyphen of an id stands after eight digits: what lies before it is looked at once.
        let Some(hyphen) = text.as_bytes()[at..].iter().position(|byte| *byte == b'-').map(|offset| at + offset) else { break };
        let id = hyphen.checked_sub(8).filter(|start| *start >= at).and_then(|start| MemoryId::parse(text.get(start..start + CHARS)?));
        match id {
            Some(id) => {
                at = hyphen + CHARS - 8;
                if id != own && !found.contains(&id) {
                    found.push(id);
                }
            }
            None => at = hyphen + 1,
        }
    }
    found
}

/// Memories whose title or content holds `id`.
fn naming<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, id: MemoryId) -> Result<Vec<Memory>, Refusal> {
    let (text, view) = (id.to_string(), search::viewer(a));
    let candidates = search::ask(a, |index| index.literal(&text, view))?;
    Ok(search::confirm(a, candidates.into_iter().filter(|other| *other != id), &text, limits::NEAR_MAX)?)
}

/// Memories with the tag `tag`, the last changed first, at most `limit`.
pub fn gathered<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, tag: &str, limit: usize) -> Result<Vec<Memory>, Refusal> {
    let view = search::viewer(a);
    let (ids, _) = search::ask(a, |index| index.by_tags(&[tag], view, 0, limits::NEAR_SCAN_MAX))?;
    let mut dated = Vec::with_capacity(ids.len());
    for id in ids {
        dated.extend(table::outlined(a, id, |outline| (outline.updated_at(), id))?);
    }
    dated.sort_unstable_by(|one, other| other.cmp(one));
    let found = summaries(a, dated.into_iter().map(|(_, id)| id).take(limit))?;
    table::answer(a, &found);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;

    #[test]
    fn ids_in_a_text_are_found_once_wherever_they_stand() {
        let ids: Vec<MemoryId> = (0..3).map(|n| MemoryId::draw(Timestamp::from_ms(n + 1))).collect();
        let [one, two, own] = [ids[0], ids[1], ids[2]];
        for (text, expected) in [
            (String::new(), vec![]),
            (one.to_string(), vec![one]),
            (format!("see {one}, {two} and {one}."), vec![one, two]),
            (format!("{one}{two}"), vec![one, two]),
            (format!("é{one}é—{two}é"), vec![one, two]),
            (format!("{own} is this one"), vec![]),
            (format!("a-b-{one}-c"), vec![one]),
            (one.to_string().to_uppercase(), vec![]),
            (format!("x{}", &one.to_string()[..35]), vec![]),
            ("-".repeat(100), vec![]),
            ("\u{1f9e0}".repeat(30), vec![]),
        ] {
            assert_eq!(named(&text, own), expected, "{text}");
        }
        let many: String = (0..limits::NEAR_MAX + 5).map(|n| MemoryId::draw(Timestamp::from_ms(n as u64 + 9)).to_string()).collect();
        assert_eq!(named(&many, own).len(), limits::NEAR_MAX);
    }
}
