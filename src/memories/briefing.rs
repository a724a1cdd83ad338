//! The briefing: what somebody's memories are about, in short: for an agent that begins a session, and for its person.
//!
//! Invariants
//! - All of it is made of what the asker may see: an agent's briefing counts nothing that is hidden from its vendor.
//! - It is bounded, whatever there is: tags are counted by the index, and only as many memories are opened as it takes to name them; threads are
//!   those with replies among the newest [`limits::BRIEFING_SURVEY_MAX`] memories, topics those of the newest [`limits::BRIEFING_TOPIC_MEMORIES`].
//! - The same memories give the same briefing. Tags of one count are in the order of their names; where more tie at the end of a list than are in
//!   [`limits::BRIEFING_TAGS_OPENED_MAX`] memories, only those of the newest memories are looked at.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Refusal;
use super::clusters::{self, Topic};
use crate::audit::Detail;
use crate::base::id::MemoryId;
use crate::base::time::Timestamp;
use crate::base::{limits, order};
use crate::policy::action::{Action, Reads, Scope};
use crate::store::accounts::{self, User};
use crate::store::gate::Access;
use crate::store::memories::{self as table, Part, State};
use crate::store::phi::{Phi, Witness};
use crate::store::quota;
use crate::store::search::{self, Group, Groups};

/// What a briefing is asked to hold.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Tags in each list.
    pub top_tags: usize,
    /// What counts as recent.
    pub recency_days: u64,
    /// Threads.
    pub active_threads: usize,
    /// Whether to look for topics.
    pub topics: bool,
}

impl Default for Ask {
    /// The contract's.
    fn default() -> Self {
        Self { top_tags: 30, recency_days: 7, active_threads: 5, topics: false }
    }
}

/// A tag, and how many memories carry it.
#[derive(Debug)]
pub struct TagCount {
    /// The tag.
    pub tag: Phi,
    /// The memories.
    pub count: u64,
}

/// A memory with replies.
#[derive(Debug)]
pub struct Thread {
    /// Which.
    pub id: MemoryId,
    /// Its title.
    pub title: Phi,
    /// How many replies.
    pub replies: u64,
    /// When one of them was last written or changed.
    pub last_activity: Timestamp,
}

/// See the module text.
#[derive(Debug)]
pub struct Briefing {
    /// Whose memories they are.
    pub user: User,
    /// Their plan.
    pub plan: &'static str,
    /// Live memories in the asker's sight.
    pub memories: u64,
    /// The most frequent tags, then by name.
    pub tags: Vec<TagCount>,
    /// The same, of recent memories.
    pub recent: Vec<TagCount>,
    /// What `recent` is.
    pub recency_days: u64,
    /// Those with the most replies, then the latest.
    pub threads: Vec<Thread>,
    /// How tags are used here, in sentences.
    pub conventions: Vec<Phi>,
    /// Those of most memories first; none unless asked for.
    pub topics: Vec<Topic>,
    /// When.
    pub at: Timestamp,
}

/// The briefing of the granted memories for the asker.
pub fn brief<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, ask: &Ask) -> Result<Briefing, Refusal> {
    let now = a.now();
    let since = now.ms().saturating_sub(ask.recency_days.saturating_mul(86_400_000));
    let viewer = search::viewer(a);
    let groups = search::ask(a, |index| index.tags(viewer, since))?;
    let tags = most(a, &groups, ask.top_tags, |group| group.count)?;
    let recent = most(a, &groups, ask.top_tags, |group| group.recent)?;
    let threads = threads(a, ask.active_threads)?;
    let topics = if ask.topics { topics(a)? } else { Vec::new() };
    let conventions = conventions(a, &tags);
    let memories = table::total(a, State::Live)?;
    a.detail(Detail::Hits(memories));
    Ok(Briefing {
        user: accounts::owner(a)?,
        plan: quota::standing(a)?.plan.name,
        memories,
        tags,
        recent,
        recency_days: ask.recency_days,
        threads,
        conventions,
        topics,
        at: now,
    })
}

/// The `top` tags of the highest count above none, ties by name. What they are called is read in one memory of each.
fn most<A: Reads + Action<Target = Scope>>(
    a: &Access<'_, A>,
    groups: &Groups,
    top: usize,
    count: fn(&Group) -> u32,
) -> Result<Vec<TagCount>, Refusal> {
    let mut found = Vec::new();
    for named in most_counted(&groups.groups, top, count, limits::BRIEFING_TAGS_OPENED_MAX)
        .chunk_by(|(one, _), (other, _)| one.newest == other.newest)
    {
        // Its tag is not there if the memory was changed between the index and this view.
        let memory = table::one(a, named[0].0.newest.1, Part::Summary, State::Live)?;
        let tags = memory.as_ref().map_or(&[][..], |memory| &memory.text.tags);
        for (group, count) in named {
            let tag = tags.iter().find(|tag| groups.is(group, tag.expose(a)));
            found.extend(tag.map(|tag| TagCount { tag: Phi::new(tag.expose(a).to_owned()), count: (*count).into() }));
        }
        // What has `top` before it already is not kept until the end.
        if found.len() > 2 * limits::BRIEFING_TAGS_OPENED_MAX {
            by_count_then_name(&mut found, a);
            found.truncate(top);
        }
    }
    by_count_then_name(&mut found, a);
    found.truncate(top);
    Ok(found)
}

/// The `top` groups of the highest count above none and all that have the count of the last of them, with their counts, those of one memory together;
/// of those that tie, only as many as take `opened` memories, the newest. Of one memory all are taken or none, so that nothing hangs on their order.
fn most_counted(groups: &[Group], top: usize, count: fn(&Group) -> u32, opened: usize) -> Vec<(&Group, u32)> {
    let mut wanted: Vec<_> = groups.iter().map(|group| (group, count(group))).filter(|(_, count)| *count > 0).collect();
    order::sort_by_key(&mut wanted, |(group, count)| Reverse((*count, group.newest)));
    let least = wanted.get(top.saturating_sub(1)).map_or(0, |(_, count)| *count);
    let (mut left, mut last) = (opened, None);
    let within = wanted.iter().take_while(|(group, count)| {
        let next = last != Some((*count, group.newest));
        last = Some((*count, group.newest));
        let fits = !next || left > 0;
        left = left.saturating_sub(usize::from(next));
        *count >= least && fits
    });
    wanted.truncate(within.count());
    order::sort_by_key(&mut wanted, |(group, _)| Reverse(group.newest));
    wanted
}

fn by_count_then_name(found: &mut Vec<TagCount>, a: &dyn Witness) {
    order::sort_by(found, |x, y| y.count.cmp(&x.count).then_with(|| x.tag.expose(a).cmp(y.tag.expose(a))));
}

/// The threads with the most replies in the asker's sight.
fn threads<A: Reads + Action<Target = Scope>>(a: &mut Access<'_, A>, most: usize) -> Result<Vec<Thread>, Refusal> {
    let mut replied: BTreeMap<MemoryId, (u64, Timestamp)> = BTreeMap::new();
    let mut seen = 0;
    table::survey(a, None, |_, outline| -> Result<bool, Refusal> {
        if let Some(parent) = outline.parent() {
            let (replies, last) = replied.entry(parent).or_insert((0, Timestamp::default()));
            (*replies, *last) = (*replies + 1, outline.updated_at().max(*last));
        }
        seen += 1;
        Ok(seen < limits::BRIEFING_SURVEY_MAX)
    })?;
    let mut found = Vec::new();
    for (id, (replies, last_activity)) in most_replied(replied) {
        if found.len() == most {
            break;
        }
        // The parent may be hidden from this asker, or in the trash.
        if let Some(memory) = table::one(a, id, Part::Summary, State::Live)? {
            table::answer(a, [&memory]);
            found.push(Thread { id, title: memory.text.title, replies, last_activity });
        }
    }
    Ok(found)
}

/// Those with the most replies first, then the latest.
fn most_replied(replied: BTreeMap<MemoryId, (u64, Timestamp)>) -> Vec<(MemoryId, (u64, Timestamp))> {
    let mut replied: Vec<_> = replied.into_iter().collect();
    order::sort_by_key(&mut replied, |(id, (replies, last))| Reverse((*replies, *last, *id)));
    replied
}

/// What the newest memories are about.
fn topics<A: Reads + Action<Target = Scope>>(a: &Access<'_, A>) -> Result<Vec<Topic>, Refusal> {
    let mut newest = Vec::new();
    for id in table::page(a, State::Live, 0, limits::BRIEFING_TOPIC_MEMORIES)? {
        newest.extend(table::one(a, id, Part::Summary, State::Live)?);
    }
    let tags: Vec<Vec<&str>> = newest.iter().map(|memory| memory.text.tags.iter().map(|tag| tag.expose(a)).collect()).collect();
    Ok(clusters::clusters(&tags).iter().take(limits::BRIEFING_TOPICS_MAX).map(Topic::from).collect())
}

/// How tags are used, as far as the most frequent ones show.
fn conventions<A: Reads + Action<Target = Scope>>(a: &Access<'_, A>, tags: &[TagCount]) -> Vec<Phi> {
    let counted: Vec<(&str, u64)> = tags.iter().map(|tag| (tag.tag.expose(a), tag.count)).collect();
    told(&counted).into_iter().map(Phi::new).collect()
}

fn told(tags: &[(&str, u64)]) -> Vec<String> {
    let has = |name: &str| tags.iter().any(|(tag, _)| *tag == name);
    let mut told = Vec::new();
    let priorities: Vec<&str> = ["p0", "p1", "p2", "p3"].into_iter().filter(|tag| has(tag)).collect();
    if priorities.len() >= 2 {
        told.push(format!("Work items carry a priority tag ({}): give one to each new item.", priorities.join(", ")));
    }
    if has("eng") && (priorities.len() >= 2 || has("resolved")) {
        told.push("Engineering work carries `eng` beside its other tags.".to_owned());
    }
    if has("resolved") && has("shipped") {
        told.push("What is done carries `resolved` and `shipped`.".to_owned());
    }
    if has("session_summary") {
        told.push("A session's summary carries `session_summary`; what follows on it is a reply to it.".to_owned());
    }
    if tags
        .iter()
        .any(|(tag, _)| tag.strip_prefix("ref_").is_some_and(|id| id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit())))
    {
        told.push("Some tags (`ref_…`) point to another memory by the beginning of its id; a reply does that better.".to_owned());
    }
    // `ward:3`, `ward:4`: a kind and a value. Two values make it a habit.
    let kinds = tags.iter().filter_map(|(tag, _)| tag.split_once(':')).filter(|(kind, value)| !kind.is_empty() && !value.is_empty());
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    kinds.for_each(|(kind, value)| {
        values.entry(kind).or_default().insert(value);
    });
    for (kind, values) in values.into_iter().filter(|(_, values)| values.len() >= 2) {
        told.push(format!("Tags of the form `{kind}:…` name a {kind}, so far {} of them.", values.len()));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::Principal;
    use crate::policy::action::{BriefMemories, CreateMemory, ReplyToMemory, TrashMemory};
    use crate::store::campaign::{House, saying};
    use crate::store::gate::Call;
    use crate::store::memories::NewMemory;

    fn tagged(text: &str, tags: &[&str], vendors: &[&str]) -> NewMemory {
        let mut new = saying(text);
        new.text.title = Phi::new(format!("about {text}"));
        new.text.tags = tags.iter().map(|tag| Phi::new((*tag).to_owned())).collect();
        new.allowed_vendors = vendors.iter().map(|vendor| (*vendor).to_owned()).collect();
        new
    }

    fn write(house: &House, new: NewMemory) -> MemoryId {
        let done = house
            .vault()
            .write::<CreateMemory, _, Refusal>(&house.owner(), house.scope(), &Call::internal(), move |a| crate::memories::create(a, new));
        done.unwrap().into_parts().0.id
    }

    fn reply(house: &House, to: MemoryId, new: NewMemory) -> MemoryId {
        let done = house
            .vault()
            .write::<ReplyToMemory, _, Refusal>(&house.owner(), to, &Call::internal(), move |a| crate::memories::reply(a, new));
        done.unwrap().into_parts().0.id
    }

    /// Tags with their counts, and threads with theirs.
    type Told = (Vec<(String, u64)>, Vec<(MemoryId, u64)>, u64);

    fn briefed(house: &House, who: &Principal, ask: Ask) -> (Told, usize) {
        let done = house.vault().read::<BriefMemories, _, Refusal>(who, house.scope(), &Call::internal(), |a| brief(a, &ask));
        let (found, receipt) = done.unwrap().into_parts();
        let tags = found.tags.iter().map(|tag| (tag.tag.expose(&receipt).to_owned(), tag.count)).collect();
        ((tags, found.threads.iter().map(|thread| (thread.id, thread.replies)).collect(), found.memories), found.topics.len())
    }

    #[test]
    fn it_counts_what_the_asker_sees_and_names_ties_in_order() {
        let house = House::new();
        let all: &[&str] = &["*"];
        let parent = write(&house, tagged("one", &["b", "a"], all));
        write(&house, tagged("two", &["b", "c"], all));
        write(&house, tagged("hidden", &["b", "secret"], &["claude"]));
        reply(&house, parent, tagged("reply", &["b"], all));
        let hidden_reply = reply(&house, parent, tagged("hidden reply", &["z"], &["claude"]));
        let gone = write(&house, tagged("gone", &["gone"], all));
        house
            .vault()
            .write::<TrashMemory, _, Refusal>(&house.owner(), gone, &Call::internal(), |a| crate::memories::trash(a, None))
            .unwrap();

        let ask = Ask::default();
        let counts = |list: &[(&str, u64)]| list.iter().map(|(tag, n)| ((*tag).to_owned(), *n)).collect::<Vec<_>>();
        let (owner, _) = briefed(&house, &house.owner(), ask);
        assert_eq!(owner, (counts(&[("b", 4), ("a", 1), ("c", 1), ("secret", 1), ("z", 1)]), vec![(parent, 2)], 5));
        let (cursor, _) = briefed(&house, &house.agent("cursor"), ask);
        assert_eq!(cursor, (counts(&[("b", 3), ("a", 1), ("c", 1)]), vec![(parent, 1)], 3));
        let (few, _) = briefed(&house, &house.owner(), Ask { top_tags: 2, active_threads: 0, ..ask });
        assert_eq!(few, (counts(&[("b", 4), ("a", 1)]), vec![], 5));
        let _ = hidden_reply;
    }

    /// Beyond 1,000 tags of one count it was chance which of them were named: an index keeps hashes, and these were in the order of its map.
    #[test]
    fn tags_of_one_count_are_those_first_by_name_however_many_tie() {
        let house = House::new();
        let mut all: Vec<String> = (0..1500).map(|n| format!("t{:04}", n * 7 % 1500)).collect();
        for (n, tags) in all.chunks(50).enumerate() {
            write(&house, tagged(&format!("{n}"), &tags.iter().map(String::as_str).collect::<Vec<_>>(), &["*"]));
        }
        write(&house, tagged("z", &["z"], &["*"]));
        write(&house, tagged("z again", &["z"], &["*"]));
        all.sort();
        let expected: Vec<_> = [("z".to_owned(), 2)].into_iter().chain(all.into_iter().take(29).map(|tag| (tag, 1))).collect();
        // The first is of a scan, later ones of the index.
        for _ in 0..3 {
            assert_eq!(briefed(&house, &house.owner(), Ask::default()).0.0, expected);
        }
    }

    #[test]
    fn where_more_tie_than_may_be_opened_those_of_the_newest_memories_are_taken_whole() {
        let id = |at: u64| (at, MemoryId::draw(Timestamp::from_ms(at)));
        let (old, middle, new) = (id(1), id(2), id(3));
        let mut groups: Vec<Group> = [old, new, middle, new, old, middle].map(|newest| Group::unnamed(1, newest)).into();
        groups.push(Group::unnamed(2, old));
        for turn in 0..groups.len() {
            groups.rotate_left(turn);
            for (opened, expected) in
                [(4, vec![new, new, middle, middle, old, old, old]), (3, vec![new, new, middle, middle, old]), (2, vec![new, new, old])]
            {
                let taken: Vec<_> =
                    most_counted(&groups, 2, |group| group.count, opened).into_iter().map(|(group, _)| group.newest).collect();
                assert_eq!(taken, expected, "{opened}");
            }
        }
        assert!(most_counted(&groups, 2, |group| group.recent, 9).is_empty());
    }

    #[test]
    fn topics_are_found_only_when_asked_for_and_hide_what_is_hidden() {
        let house = House::new();
        for n in 0..3 {
            write(&house, tagged(&format!("diet {n}"), &["insulin", "glucose", "diet"], &["*"]));
            write(&house, tagged(&format!("gait {n}"), &["gait", "fall", "stick"], &["claude"]));
        }
        let topics = |who: &Principal, topics| briefed(&house, who, Ask { topics, ..Ask::default() }).1;
        assert_eq!((topics(&house.owner(), false), topics(&house.owner(), true), topics(&house.agent("cursor"), true)), (0, 2, 1));
    }

    #[test]
    fn conventions_are_told_of_tags_that_show_them() {
        let told = |tags: &[&str]| told(&tags.iter().map(|tag| (*tag, 1)).collect::<Vec<_>>());
        assert!(told(&["a", "p1", "ward:3", "x:"]).is_empty());
        assert_eq!(told(&["p0", "p2", "eng"]).len(), 2);
        assert_eq!(told(&["ward:3", "ward:4"]), ["Tags of the form `ward:…` name a ward, so far 2 of them."]);
        assert_eq!(told(&["ref_0123abcd"]).len(), 1);
        assert_eq!(told(&["session_summary", "resolved", "shipped"]).len(), 2);
    }
}
