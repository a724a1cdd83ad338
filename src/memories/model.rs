//! Memories against a model: plain lists and loops that say what the contract says, compared after random batches of changes by people and
//! agents: every answer, total, order and version; counts and indexes; and all of it again after the store was reopened.

use std::time::Duration;

use crate::authn::Principal;
use crate::base::id::MemoryId;
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::engine::campaign::{Chance, amount, engine_on};
use crate::memories::{self as rules, Filter, Refusal};
use crate::policy::action::*;
use crate::store::campaign::gate::{in_one_batch, key_of};
use crate::store::campaign::{House, add_person, admitted, held, saying};
use crate::store::gate::{Access, Call, Refused};
use crate::store::memories::{self, Imported, Memory, Moved, NewMemory, Part, Replacement, Text};
use crate::store::phi::Phi;
use crate::store::tables::TABLES;

/// A memory as the model keeps it.
#[derive(Clone, PartialEq, Debug)]
struct Kept {
    id: MemoryId,
    owner: usize,
    parent: Option<MemoryId>,
    title: String,
    content: String,
    tags: Vec<String>,
    vendors: Vec<String>,
    origin: String,
    subject: Option<String>,
    created: Timestamp,
    updated: Timestamp,
    deleted: Option<Timestamp>,
    version: u32,
    /// Earlier versions, oldest first: number, content, and who could see it.
    earlier: Vec<(u32, String, Vec<String>)>,
}

/// One change that somebody asks for.
#[derive(Clone, Debug)]
enum Ask {
    Create(Draft),
    Import(Draft, MemoryId, Timestamp, bool),
    Reply(MemoryId, Draft),
    Update(MemoryId, Draft),
    Trash(MemoryId),
    Restore(MemoryId),
    Purge(MemoryId),
    Empty(usize),
}

#[derive(Clone, Debug)]
struct Draft {
    title: String,
    content: String,
    tags: Vec<String>,
    vendors: Vec<String>,
    subject: Option<String>,
}

impl Draft {
    fn random(chance: &mut Chance) -> Self {
        let mut pick = |from: &[&str]| from[chance.below(from.len())].to_owned();
        let (title, content) =
            (pick(&["Plan", "Plan ", "Note"]), pick(&["aspirin", "Aspirin 100 mg", "no aspirin", "caf\u{e9}", "cafe\u{301}"]));
        let vendors = pick(&["*", "*", "cursor", "claude", "cursor claude"]).split(' ').map(str::to_owned).collect();
        let tags = pick(&["", "a", "b", "a b", "c a"]).split(' ').filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        let subject = Some(pick(&["", "", "patient 7"])).filter(|name| !name.is_empty());
        Self { title, content, tags, vendors, subject }
    }

    fn memory(&self, origin: &str) -> NewMemory {
        let phi = |text: &str| Phi::new(text.to_owned());
        let mut new = saying(&self.content);
        new.text.title = phi(&self.title);
        new.text.tags = self.tags.iter().map(|tag| phi(tag)).collect();
        new.text.subject = self.subject.as_deref().map(phi);
        (new.allowed_vendors, new.origin) = (self.vendors.clone(), origin.to_owned());
        new.prepare();
        new
    }

    fn replacement(&self) -> Replacement {
        let Text { title, content, tags, .. } = self.memory("").text;
        let allowed_vendors = self.vendors.clone();
        Replacement { title, content, tags, allowed_vendors, metadata: None, speaker: None, run_id: None, occurred_at: None }
    }
}

/// Who asks: people 0 and 1, and agents of person 0.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Asker {
    owner: usize,
    vendor: Option<&'static str>,
}

const ASKERS: [Asker; 4] = [
    Asker { owner: 0, vendor: None },
    Asker { owner: 0, vendor: Some("cursor") },
    Asker { owner: 0, vendor: Some("claude") },
    Asker { owner: 1, vendor: None },
];

#[derive(Default)]
struct Model {
    memories: Vec<Kept>,
}

fn normal(text: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    text.trim().nfc().collect()
}

impl Kept {
    fn seen_by(&self, asker: Asker) -> bool {
        let open = |vendor: &str| self.vendors.iter().any(|v| v == "*" || v == vendor);
        self.owner == asker.owner && asker.vendor.is_none_or(|vendor| open(vendor) && self.deleted.is_none())
    }

    fn changed_by(&self, asker: Asker) -> bool {
        self.seen_by(asker) && asker.vendor.is_none_or(|vendor| self.origin == vendor)
    }

    /// Whether a write of `draft` by `origin` is this memory once more.
    fn repeats(&self, owner: usize, origin: &str, draft: &Draft, now: Timestamp) -> bool {
        let set = |vendors: &[String]| vendors.iter().cloned().collect::<std::collections::BTreeSet<_>>();
        self.owner == owner
            && self.parent.is_none()
            && self.deleted.is_none()
            && self.created.plus(limits::MERGE_WINDOW) >= now
            && self.origin == origin
            && set(&self.vendors) == set(&draft.vendors)
            && self.subject == draft.subject
            && normal(&self.title) == normal(&draft.title)
            && normal(&self.content) == normal(&draft.content)
    }

    fn next_version(&mut self, now: Timestamp) {
        self.earlier.push((self.version, self.content.clone(), self.vendors.clone()));
        (self.version, self.updated) = (self.version + 1, now.max(self.updated));
    }
}

impl Model {
    fn get(&mut self, id: MemoryId) -> Option<&mut Kept> {
        self.memories.iter_mut().find(|kept| kept.id == id)
    }

    fn add(&mut self, asker: Asker, draft: &Draft, id: MemoryId, parent: Option<MemoryId>, created: Timestamp, deleted: Option<Timestamp>) {
        let Draft { title, content, tags, vendors, subject } = draft.clone();
        let (origin, updated) = (asker.vendor.unwrap_or("api").to_owned(), created);
        let (owner, version, earlier) = (asker.owner, 1, Vec::new());
        self.memories.push(Kept {
            id,
            owner,
            parent,
            title,
            content,
            tags,
            vendors,
            origin,
            subject,
            created,
            updated,
            deleted,
            version,
            earlier,
        });
    }

    /// Does what was asked; `told` is the id of the answer, none if it was refused. Both must agree.
    fn apply(&mut self, asker: Asker, ask: &Ask, told: Option<MemoryId>, now: Timestamp) {
        let expected = self.expected(asker, ask);
        assert_eq!(told.is_some(), expected, "{asker:?} {ask:?}");
        let Some(told) = told else { return };
        let origin = asker.vendor.unwrap_or("api");
        match ask {
            Ask::Create(draft) => {
                let like = self.memories.iter_mut().filter(|kept| kept.seen_by(asker) && kept.repeats(asker.owner, origin, draft, now));
                match like.max_by_key(|kept| (kept.created, kept.id)) {
                    Some(kept) => {
                        assert_eq!(told, kept.id, "an exact repeat is united with the newest");
                        kept.next_version(now);
                        draft.tags.iter().for_each(|tag| {
                            if !kept.tags.contains(tag) {
                                kept.tags.push(tag.clone())
                            }
                        });
                    }
                    None => {
                        assert!(self.get(told).is_none(), "{asker:?} {ask:?} was united with {:?}", self.get(told));
                        self.add(asker, draft, told, None, now, None);
                    }
                }
            }
            Ask::Import(draft, id, created, trashed) => self.add(asker, draft, *id, None, *created, trashed.then_some(now)),
            Ask::Reply(parent, draft) => self.add(asker, draft, told, Some(*parent), now, None),
            Ask::Update(id, draft) => {
                let kept = self.get(*id).unwrap();
                kept.next_version(now);
                let Draft { title, content, tags, vendors, .. } = draft.clone();
                (kept.title, kept.content, kept.tags, kept.vendors) = (title, content, tags, vendors);
            }
            Ask::Trash(id) => self
                .with_replies(*id)
                .filter(|kept| kept.deleted.is_none() && kept.changed_by(asker))
                .for_each(|kept| kept.deleted = Some(now)),
            Ask::Restore(id) => self.with_replies(*id).for_each(|kept| kept.deleted = None),
            Ask::Purge(id) => self.memories.retain(|kept| kept.id != *id && kept.parent != Some(*id)),
            Ask::Empty(most) => {
                let mut trash: Vec<_> = self.memories.iter().filter(|kept| kept.owner == asker.owner && kept.deleted.is_some()).collect();
                trash.sort_by_key(|kept| (kept.deleted, kept.id));
                let gone: Vec<MemoryId> = trash.iter().take(*most).map(|kept| kept.id).collect();
                self.memories.retain(|kept| !gone.contains(&kept.id));
                for kept in &mut self.memories {
                    kept.parent = kept.parent.filter(|parent| !gone.contains(parent));
                }
            }
        }
    }

    fn with_replies(&mut self, id: MemoryId) -> impl Iterator<Item = &mut Kept> {
        self.memories.iter_mut().filter(move |kept| kept.id == id || kept.parent == Some(id))
    }

    fn expected(&mut self, asker: Asker, ask: &Ask) -> bool {
        let person = asker.vendor.is_none();
        let mut of = |id: &MemoryId, holds: &dyn Fn(&Kept) -> bool| self.get(*id).is_some_and(|kept| holds(kept));
        match ask {
            Ask::Create(_) => true,
            Ask::Import(..) | Ask::Empty(_) => person,
            Ask::Reply(id, _) => of(id, &|kept| kept.seen_by(asker) && kept.deleted.is_none() && kept.parent.is_none()),
            Ask::Update(id, _) | Ask::Trash(id) => of(id, &|kept| kept.changed_by(asker) && kept.deleted.is_none()),
            Ask::Restore(id) => person && of(id, &|kept| kept.owner == asker.owner && kept.deleted.is_some()),
            Ask::Purge(id) => person && of(id, &|kept| kept.owner == asker.owner),
        }
    }

    /// What a list answers, newest first.
    fn list(&self, asker: Asker, choose: impl Fn(&Kept) -> bool, trashed: bool) -> Vec<MemoryId> {
        let mut found: Vec<&Kept> =
            self.memories.iter().filter(|kept| kept.seen_by(asker) && kept.deleted.is_some() == trashed && choose(kept)).collect();
        found.sort_by_key(|kept| std::cmp::Reverse((if trashed { kept.deleted.unwrap() } else { kept.created }, kept.id)));
        found.into_iter().map(|kept| kept.id).collect()
    }
}

/// Asks the store; gives the id of its answer, or none if it refused.
fn ask(house: &House, who: &Principal, ask: Ask) -> Option<MemoryId> {
    let (vault, call, scope) = (house.vault(), Call::internal(), Scope { tenant: who.tenant(), owner: who.user() });
    let origin = who.vendor().map_or("api", |vendor| vendor.name()).to_owned();
    fn given(memory: Memory) -> MemoryId {
        memory.id
    }
    fn all(moved: Moved<Memory>) -> MemoryId {
        match moved {
            Moved::All(memory) => memory.id,
            Moved::UpTo { .. } => panic!("a few small memories move at once"),
        }
    }
    let answer = match ask {
        Ask::Create(draft) => {
            vault.write::<CreateMemory, _, Refusal>(who, scope, &call, move |a| rules::create(a, draft.memory(&origin)).map(given))
        }
        Ask::Import(draft, id, created, trashed) => {
            let console = Principal::system(who.tenant(), who.user(), "console");
            let asker = if who.vendor().is_none() { &console } else { who };
            vault.write::<ImportMemories, _, Refusal>(asker, scope, &call, move |a| {
                let new = NewMemory { created_at: Some(created), ..draft.memory(&origin) };
                let deleted_at = trashed.then_some(a.now());
                rules::import(a, vec![Imported { id, parent: None, new, updated_at: None, deleted_at }])?;
                Ok(id)
            })
        }
        Ask::Reply(id, draft) => {
            vault.write::<ReplyToMemory, _, Refusal>(who, id, &call, move |a| rules::reply(a, draft.memory(&origin)).map(given))
        }
        Ask::Update(id, draft) => {
            vault.write::<UpdateMemory, _, Refusal>(who, id, &call, move |a| rules::revise(a, |_, _| draft.replacement()).map(given))
        }
        Ask::Trash(id) => vault.write::<TrashMemory, _, Refusal>(who, id, &call, |a| rules::trash(a, None).map(all)),
        Ask::Restore(id) => vault.write::<RestoreMemory, _, Refusal>(who, id, &call, |a| rules::restore(a, None).map(all)),
        Ask::Purge(id) => vault.write::<PurgeMemory, _, Refusal>(who, id, &call, move |a| rules::purge(a).map(|_| id)),
        Ask::Empty(most) => vault.write::<EmptyTrash, _, Refusal>(who, scope, &call, move |a| {
            Ok(memories::purge_trash(a, most, usize::MAX).map(|_| MemoryId::from_bytes([0; 16]))?)
        }),
    };
    match answer {
        Ok(recorded) => Some(recorded.into_parts().0),
        Err(
            Refused::Denied(..)
            | Refused::Work(Refusal::NotFound | Refusal::NotInTrash | Refusal::ParentDeleted | Refusal::ParentIsChild, _),
        ) => None,
        Err(other) => panic!("{other:?}"),
    }
}

/// Every kind of answer, compared.
fn compare(house: &House, model: &Model, people: &[Principal; 4], chance: &mut Chance) {
    for (asker, who) in ASKERS.into_iter().zip(people) {
        let scope = Scope { tenant: who.tenant(), owner: who.user() };
        let (offset, limit) = (chance.below(6), 1 + chance.below(8));
        let part = if chance.one_in(2) { Part::Summary } else { Part::Full };
        let mut lists = vec![("all", Filter::All, model.list(asker, |_| true, false))];
        if asker.vendor.is_none() {
            lists.push(("trashed", Filter::Trashed, model.list(asker, |_| true, true)));
        }
        let tagged = |kept: &Kept| kept.tags.iter().any(|tag| tag == "b" || tag == "c");
        lists.push(("tags", Filter::Tags(["b", "c", "b"].map(str::to_owned).to_vec()), model.list(asker, tagged, false)));
        let holds = |kept: &Kept| kept.content.to_ascii_lowercase().contains("aspirin");
        lists.push(("search", Filter::Search("ASPIRIN".to_owned()), model.list(asker, holds, false)));
        lists.push(("origin", Filter::Origin("cursor".to_owned()), model.list(asker, |kept| kept.origin == "cursor", false)));
        let some: Vec<MemoryId> = model.memories.iter().map(|kept| kept.id).filter(|_| chance.one_in(3)).collect();
        let ids = some.iter().chain(&some).map(ToString::to_string).chain(["no id".to_owned()]).collect();
        lists.push(("ids", Filter::Ids(ids), model.list(asker, |kept| some.contains(&kept.id), false)));
        // One request for all lists: each request is a commit.
        let listed = house.vault().read::<ListMemories, _, Refusal>(who, scope, &Call::internal(), |access: &mut Access<'_, _>| {
            lists.iter().map(|(_, filter, _)| rules::list(access, filter, part, offset, limit)).collect::<Result<Vec<_>, _>>()
        });
        for (page, (what, _, expected)) in listed.unwrap().into_parts().0.iter().zip(&lists) {
            let ids: Vec<MemoryId> = page.memories.iter().map(|memory| memory.id).collect();
            let wanted: Vec<MemoryId> = expected.iter().copied().skip(offset).take(limit).collect();
            assert_eq!((ids, page.total), (wanted, expected.len() as u64), "{asker:?} {what}");
        }
        if !model.memories.is_empty() {
            let kept = model.memories[chance.below(model.memories.len())].clone();
            compare_one(house, model, who, asker, &kept);
        }
    }
}

fn compare_one(house: &House, model: &Model, who: &Principal, asker: Asker, kept: &Kept) {
    let (vault, call) = (house.vault(), Call::internal());
    let read = vault.read::<ReadMemory, _, Refusal>(who, kept.id, &call, rules::read);
    assert_eq!(read.is_ok(), kept.seen_by(asker), "{asker:?} {kept:?}");
    let Ok(read) = read else { return };
    let (memory, receipt) = read.into_parts();
    let text = |phi: &Phi| phi.expose(&receipt).to_owned();
    let found = Kept {
        id: memory.id,
        parent: memory.parent,
        title: text(&memory.text.title),
        content: text(&memory.text.content),
        tags: memory.text.tags.iter().map(text).collect(),
        vendors: memory.allowed_vendors,
        origin: memory.origin,
        subject: memory.text.subject.as_ref().map(text),
        created: memory.created_at,
        updated: memory.updated_at,
        deleted: memory.deleted_at,
        version: memory.version,
        ..kept.clone()
    };
    assert_eq!(&found, kept);
    let (versions, receipt) = vault.read::<ReadVersions, _, Refusal>(who, kept.id, &call, rules::versions).unwrap().into_parts();
    let mut earlier: Vec<(u32, String)> =
        versions.0.iter().map(|v| (v.memory.version, v.memory.text.content.expose(&receipt).to_owned())).collect();
    earlier.reverse();
    // A version that was not open to an agent's vendor stays hidden from it.
    let open = |vendors: &[String]| asker.vendor.is_none_or(|vendor| vendors.iter().any(|v| v == "*" || v == vendor));
    let expected =
        kept.earlier.iter().filter(|(.., vendors)| open(vendors)).map(|(number, content, _)| (*number, content.clone())).collect();
    assert_eq!((earlier, versions.1), (expected, kept.version), "{asker:?}");
    let thread = vault.read::<ReadThread, _, Refusal>(who, kept.id, &call, rules::thread);
    let head = kept.parent.map_or(kept, |parent| model.memories.iter().find(|kept| kept.id == parent).unwrap());
    assert_eq!(thread.is_ok(), head.seen_by(asker), "{asker:?} {kept:?} under {head:?}");
    if let Ok(thread) = thread {
        let (parent, replies) = thread.into_parts().0;
        let mut expected: Vec<&Kept> =
            model.memories.iter().filter(|kept| kept.parent == Some(head.id) && kept.seen_by(asker) && kept.deleted.is_none()).collect();
        expected.sort_by_key(|kept| (kept.created, kept.id));
        let expected: Vec<MemoryId> = expected.into_iter().map(|kept| kept.id).collect();
        assert_eq!((parent.id, replies.iter().map(|reply| reply.id).collect::<Vec<_>>()), (head.id, expected));
    }
}

/// A random wish of `asker`.
fn wish(asker: Asker, model: &Model, chance: &mut Chance, now: Timestamp) -> Ask {
    let draft = Draft::random(chance);
    let known = model.memories.len();
    let some = match known {
        0 => MemoryId::draw(now),
        _ => model.memories[chance.below(known)].id,
    };
    match chance.below(20) {
        0..7 => Ask::Create(draft),
        7 if asker.vendor.is_none() => {
            let ago = chance.next() % (72 * 3_600_000);
            let created = Timestamp::from_ms(now.ms() - ago);
            Ask::Import(draft, MemoryId::draw(created), created, chance.one_in(4))
        }
        7..11 => Ask::Reply(some, draft),
        11..14 => Ask::Update(some, draft),
        14..16 => Ask::Trash(some),
        16..18 => Ask::Restore(some),
        18 => Ask::Purge(some),
        _ if known > 25 => Ask::Empty(1 + chance.below(9)),
        _ => Ask::Trash(some),
    }
}

fn play(seed: u64, batches: usize) -> (u64, u64) {
    let mut house = House::new();
    house.stop();
    let engine = engine_on(&house.tape, TABLES, false).unwrap();
    let second = add_person(&engine, "second@example.org").unwrap();
    engine.close().unwrap();
    house.reopen();
    house.clock.set(Timestamp::from_ms(1_800_000_000_000));
    let key = key_of(&house, second);
    let (mut chance, mut model, mut asked, mut refused) = (Chance(seed), Model::default(), 0, 0);
    for batch in 0..batches {
        let people = [house.owner(), house.agent("cursor"), house.agent("claude"), admitted(house.vault(), &key)];
        let pause = if chance.one_in(40) { 49 * 3_600_000 } else { chance.next() % 4 };
        house.clock.set(house.vault().clock().now().plus(Duration::from_millis(pause)));
        let now = house.vault().clock().now();
        let wishes: Vec<(usize, Ask)> = (0..1 + chance.below(6))
            .map(|_| {
                let by = chance.below(ASKERS.len());
                (by, wish(ASKERS[by], &model, &mut chance, now))
            })
            .collect();
        let answers = in_one_batch(
            &house,
            wishes
                .iter()
                .map(|(by, wish)| (people[*by].clone(), wish.clone()))
                .map(|(who, wish)| move |house: &House| ask(house, &who, wish))
                .collect(),
        );
        for ((by, wish), answer) in wishes.iter().zip(answers) {
            (asked, refused) = (asked + 1, refused + u64::from(answer.is_none()));
            model.apply(ASKERS[*by], wish, answer, now);
        }
        if batch % 3 == 0 {
            compare(&house, &model, &people, &mut chance);
        }
        if batch % 8 == 7 {
            let found = house.vault().check(&mut |_, _| {}).unwrap();
            assert_eq!((found.count, found.memories), (0, model.memories.len() as u64), "seed {seed}: {:?}", found.listed);
        }
        if chance.one_in(20) {
            house.reopen();
        }
    }
    house.stop();
    assert_eq!(held(&house.tape, "played").contents.len(), model.memories.len());
    (asked, refused)
}

#[test]
fn memories_are_what_the_model_says_whoever_asks_and_whatever_happened() {
    let (runs, batches) = (amount(2, 6, 60), amount(30, 60, 200));
    let (mut asked, mut refused) = (0, 0);
    for seed in 0..runs {
        let (a, r) = play(seed as u64, batches);
        (asked, refused) = (asked + a, refused + r);
    }
    println!("store model: {asked} changes asked for in {runs} runs, {refused} of them refused as the model says");
    assert!(refused > 0 && refused < asked / 2 + asked / 4);
}
