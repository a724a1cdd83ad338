//! One scope's index: what is kept of each live memory of one owner, and how it is kept current.
//!
//! Promise: answers are those of an index that was built anew from the live memories; no text is kept, and what is derived from it (postings,
//! lengths) is wiped when the index is dropped.
//!
//! Invariants
//! - Each live memory has one number; numbers ascend with insertion. A replaced or removed memory's number is dead: class [`DEAD`], in no
//!   conversation, skipped by every query. When most numbers are dead the index is rewritten without them.
//! - A viewer's answers, scores and totals depend on the memories that viewer may see and on no others (`rank`).
//! - No text is in it: what is looked up is the hash of a hash (`prepared`), under a key that is forgotten with the index.
//!
//! Shape: `words` hash → postings (note: content count in 5 bits, fields in 3); `trigrams` three bytes → postings (`literal`); `tags` hash →
//! postings; columns by number: class, length, row, vector; `order` numbers by (created_at, id); `conversations` numbers by (time, id).

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use super::literal;
use super::postings::{NUMBER_MAX, PLAIN, Postings};
use super::prepared::{self, Kind, Prepared};
use super::vectors::Vectors;
use crate::base::id::{MemoryId, SubjectId};
use crate::base::wipe::wipe;
use crate::embed::Embedding;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Viewer<'a> {
    /// The owner: everything live.
    All,
    /// An agent of this vendor: what it is allowed to see.
    Vendor(&'a str),
}

/// Class of dead numbers, and of memories that every vendor may see.
const DEAD: u32 = 0;
const EVERYONE: u32 = 1;
/// In no conversation.
const ALONE: u32 = u32::MAX;
/// Dead numbers that are not worth a rewrite.
const DEAD_MIN: usize = 1024;

/// Spreads keys that are hashes or small numbers already.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(self.0 ^ u64::from_le_bytes(word));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }
    fn write_u64(&mut self, value: u64) {
        let spread = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ spread >> 32;
    }
}

pub(super) type Lists<K> = HashMap<K, Postings, BuildHasherDefault<Spread>>;

/// Memories of one visibility.
struct Class {
    /// Hashes of the vendors, sorted; `None`: every vendor.
    only: Option<Vec<u64>>,
    docs: u32,
    words: u64,
}

/// What is known of one number beside the columns that scoring reads.
struct Row {
    id: MemoryId,
    created: u64,
    /// When it happened, else when it was written: ms.
    when: u64,
    origin: u64,
    subject: Option<SubjectId>,
    conversation: u32,
}

/// See the module text.
pub struct ScopeIndex {
    pub(super) hasher: RandomState,
    pub(super) words: Lists<u64>,
    pub(super) trigrams: Lists<u32>,
    pub(super) tags: Lists<u64>,
    numbers: HashMap<MemoryId, u32>,
    pub(super) class: Vec<u32>,
    pub(super) length: Vec<u16>,
    rows: Vec<Row>,
    order: Vec<u32>,
    pub(super) conversations: Vec<Vec<u32>>,
    conversation_of: HashMap<u64, u32>,
    pub(super) vectors: Vectors,
    classes: Vec<Class>,
    class_of: HashMap<u64, u32>,
    /// Bytes of all postings.
    postings_bytes: usize,
    /// Bytes of the vendors of all classes.
    vendors_bytes: usize,
}

impl Default for ScopeIndex {
    fn default() -> Self {
        Self::new()
    }
}

/// Which classes a viewer sees, and how much of the scope that is.
pub(super) struct View {
    /// By class.
    sees: Vec<bool>,
    /// Memories seen.
    pub(super) docs: u32,
    /// Their mean length in words.
    pub(super) mean_length: f32,
}

impl View {
    /// Whether this number is live and seen.
    #[inline]
    pub(super) fn sees(&self, index: &ScopeIndex, number: u32) -> bool {
        self.sees[at(index.class[at(number)])]
    }
}

/// A number as a place in a column.
#[inline]
pub(super) fn at(number: u32) -> usize {
    usize::try_from(number).expect("targets have at least 32-bit addresses")
}

impl ScopeIndex {
    /// An index of no memories.
    pub fn new() -> Self {
        let class = |only| Class { only, docs: 0, words: 0 };
        Self {
            hasher: RandomState::new(),
            words: Lists::default(),
            trigrams: Lists::default(),
            tags: Lists::default(),
            numbers: HashMap::new(),
            class: Vec::new(),
            length: Vec::new(),
            rows: Vec::new(),
            order: Vec::new(),
            conversations: Vec::new(),
            conversation_of: HashMap::new(),
            vectors: Vectors::default(),
            classes: vec![class(Some(Vec::new())), class(None)],
            class_of: HashMap::new(),
            postings_bytes: 0,
            vendors_bytes: 0,
        }
    }

    /// Live memories.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether no memory is live.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Makes this the only version of its memory; one that is not live is removed. About 25 us for a page of text.
    pub fn insert(&mut self, memory: &Prepared) {
        self.insert_all(&[memory]);
    }

    /// Makes each of these the only version of its memory, in this order; those that are not live are removed. Many at once cost less than
    /// one by one: each list of postings is looked up once.
    pub fn insert_all(&mut self, memories: &[&Prepared]) {
        let mut placed: Vec<(u32, &Prepared)> = Vec::with_capacity(memories.len());
        for memory in memories {
            // A removal may rewrite the postings under new numbers: those of the memories placed so far must be among them.
            if !memory.live || self.numbers.contains_key(&memory.id) {
                self.post(&placed);
                placed.clear();
                self.remove(memory.id);
            }
            if memory.live {
                placed.push((self.place(memory), memory));
            }
        }
        self.post(&placed);
    }

    /// Puts memories, numbers ascending, into the postings.
    fn post(&mut self, placed: &[(u32, &Prepared)]) {
        let mut words: Vec<(u64, u32, u8)> = Vec::with_capacity(placed.iter().map(|(_, memory)| memory.words.len()).sum());
        let mut trigrams: Vec<u64> = Vec::with_capacity(placed.iter().map(|(_, memory)| memory.trigrams.len()).sum());
        for &(number, memory) in placed {
            words.extend(memory.words.iter().map(|&(word, note)| (word, number, note)));
            trigrams.extend(memory.trigrams.iter().map(|&trigram| u64::from(trigram) << 32 | u64::from(number)));
            for tag in &memory.tags {
                self.postings_bytes += self.tags.entry(self.hasher.hash_one(tag)).or_default().push(number, PLAIN);
            }
        }
        // Each memory's words come sorted: a sort that merges what is sorted already, and leaves the numbers of one word ascending.
        words.sort_by_key(|&(word, ..)| word);
        for same in words.chunk_by(|a, b| a.0 == b.0) {
            let list = self.words.entry(self.hasher.hash_one(same[0].0)).or_default();
            self.postings_bytes += same.iter().map(|&(_, number, note)| list.push(number, note)).sum::<usize>();
        }
        literal::sort(&mut trigrams);
        trigrams.dedup();
        for same in trigrams.chunk_by(|a, b| a >> 32 == b >> 32) {
            let list = self.trigrams.entry(literal::high(same[0])).or_default();
            self.postings_bytes += same.iter().map(|&pair| list.push(literal::low(pair), PLAIN)).sum::<usize>();
        }
        wipe(&mut trigrams);
    }

    /// Gives a live memory, which is not known, its number and its place in everything but the postings.
    fn place(&mut self, memory: &Prepared) -> u32 {
        let number = u32::try_from(self.rows.len()).ok().filter(|&n| n < NUMBER_MAX).expect("memory runs out long before 2^31 numbers");
        let class = self.class_for(memory.vendors.as_deref());
        let entry = &mut self.classes[at(class)];
        (entry.docs, entry.words) = (entry.docs + 1, entry.words + u64::from(memory.length));
        self.class.push(class);
        self.length.push(memory.length);
        self.rows.push(Row {
            id: memory.id,
            created: memory.created,
            when: memory.when,
            origin: memory.origin,
            subject: memory.subject,
            conversation: ALONE,
        });
        self.numbers.insert(memory.id, number);
        if let Some(vector) = &memory.vector {
            self.vectors.set(at(number), vector);
        }
        let place = self.place_in_order(number);
        self.order.insert(place, number);
        self.join_conversation(number, memory);
        number
    }

    /// Forgets a memory; `false` if it is not known. Its numbers stay in the postings, unreachable, until the next rewrite
    /// ([`ScopeIndex::compact`] does it at once).
    pub fn remove(&mut self, id: MemoryId) -> bool {
        let Some(number) = self.numbers.remove(&id) else { return false };
        self.leave_conversation(number);
        self.vectors.clear(at(number));
        let class = &mut self.classes[at(std::mem::replace(&mut self.class[at(number)], DEAD))];
        (class.docs, class.words) = (class.docs - 1, class.words - u64::from(self.length[at(number)]));
        let dead = self.rows.len() - self.numbers.len();
        if dead > DEAD_MIN && dead > self.numbers.len() {
            self.compact();
        }
        true
    }

    /// Makes this the vector of a memory, if it is known.
    pub fn embed(&mut self, id: MemoryId, vector: &Embedding) {
        if let Some(&number) = self.numbers.get(&id) {
            self.vectors.set(at(number), vector);
        }
    }

    /// Rewrites everything without the dead numbers, so that nothing derived from a removed memory is left.
    pub fn compact(&mut self) {
        if self.rows.len() == self.numbers.len() {
            return;
        }
        let mut next = 0;
        let renumbered: Vec<Option<u32>> = self
            .class
            .iter()
            .map(|&class| {
                let number = (class != DEAD).then_some(next);
                next += u32::from(class != DEAD);
                number
            })
            .collect();
        let live = |number: u32| renumbered[at(number)];
        let keep = |place: usize| renumbered[place].is_some();

        self.postings_bytes = rewrite(&mut self.words, &live) + rewrite(&mut self.trigrams, &live) + rewrite(&mut self.tags, &live);
        for column in [&mut self.order].into_iter().chain(&mut self.conversations) {
            *column = column.iter().filter_map(|&number| live(number)).collect();
        }
        self.numbers.values_mut().for_each(|number| *number = live(*number).expect("a live memory keeps a number"));
        self.class = retain(std::mem::take(&mut self.class), keep);
        self.length = retain(std::mem::take(&mut self.length), keep);
        self.rows = retain(std::mem::take(&mut self.rows), keep);
        self.vectors.renumber(|number| renumbered[number].map(at));

        // Conversations and classes that emptied are forgotten too.
        let (conversations, rows) = (&mut self.conversations, &mut self.rows);
        let kept = renumber(conversations, &mut self.conversation_of, |members| !members.is_empty());
        rows.iter_mut().filter(|row| row.conversation != ALONE).for_each(|row| row.conversation = kept[at(row.conversation)]);
        let mut named = 0;
        let kept = renumber(&mut self.classes, &mut self.class_of, |class| {
            named += 1;
            class.docs > 0 || named <= 2
        });
        self.vendors_bytes = self.classes.iter().filter_map(|class| class.only.as_ref()).map(|only| 8 + size_of_val(&only[..])).sum();
        self.class.iter_mut().for_each(|class| *class = kept[at(*class)]);
    }

    /// Memories newest first by (created_at, id), of one origin if it is given: `limit` ids from `offset`, and how many there are.
    pub fn page(&self, viewer: Viewer<'_>, origin: Option<&str>, offset: usize, limit: usize) -> (Vec<MemoryId>, usize) {
        let (view, origin) = (self.view(viewer), origin.map(|name| prepared::hash(Kind::Origin, name)));
        self.newest(offset, limit, |number| view.sees(self, number) && origin.is_none_or(|origin| self.rows[at(number)].origin == origin))
    }

    /// As [`ScopeIndex::page`], of the memories that have at least one of `tags` (exact).
    pub fn by_tags(&self, tags: &[&str], viewer: Viewer<'_>, offset: usize, limit: usize) -> (Vec<MemoryId>, usize) {
        let (view, tagged) = (self.view(viewer), self.tagged(tags));
        self.newest(offset, limit, |number| tagged[at(number)] && view.sees(self, number))
    }

    /// Bytes of memory held, the allocator's share estimated.
    pub fn bytes(&self) -> usize {
        fn table<K, V, S>(map: &HashMap<K, V, S>) -> usize {
            // hashbrown: a power of two of slots at most 7/8 full, one control byte each.
            if map.capacity() == 0 { 0 } else { (map.capacity() * 8 / 7).next_power_of_two() * (size_of::<(K, V)>() + 1) }
        }
        fn column<T>(column: &Vec<T>) -> usize {
            column.capacity() * size_of::<T>()
        }
        size_of::<Self>()
            + self.postings_bytes
            + self.vectors.bytes()
            + (table(&self.words) + table(&self.trigrams) + table(&self.tags) + table(&self.numbers))
            + (table(&self.conversation_of) + table(&self.class_of))
            + (column(&self.class) + column(&self.length) + column(&self.rows) + column(&self.order))
            // Conversations hold each number at most once, with room to grow.
            + (column(&self.conversations) + 24 * self.conversations.len() + 6 * self.rows.len())
            + (column(&self.classes) + self.vendors_bytes)
    }

    // --- what the queries in `rank` and `literal` read ---

    /// The postings of a term.
    pub(super) fn word(&self, term: &str) -> Option<&Postings> {
        self.words.get(&self.hasher.hash_one(prepared::word_hash(term)))
    }

    /// The postings of a family of words.
    pub(super) fn family(&self, family: &str) -> Option<&Postings> {
        self.words.get(&self.hasher.hash_one(prepared::family_hash(family)))
    }

    pub(super) fn view(&self, viewer: Viewer<'_>) -> View {
        let vendor = match viewer {
            Viewer::All => None,
            Viewer::Vendor(name) => Some(prepared::hash(Kind::Vendor, name)),
        };
        let mut view = View { sees: Vec::with_capacity(self.classes.len()), docs: 0, mean_length: 1.0 };
        let mut words = 0;
        for (i, class) in self.classes.iter().enumerate() {
            let sees = i != at(DEAD)
                && match (&vendor, &class.only) {
                    (None, _) | (_, None) => true,
                    (Some(vendor), Some(only)) => only.binary_search(vendor).is_ok(),
                };
            view.sees.push(sees);
            if sees {
                view.docs += class.docs;
                words += class.words;
            }
        }
        if words > 0 {
            view.mean_length = real(words) / real(view.docs.into());
        }
        view
    }

    /// By number: whether it has one of `tags`.
    pub(super) fn tagged(&self, tags: &[&str]) -> Vec<bool> {
        let mut tagged = vec![false; self.rows.len()];
        for tag in tags {
            for (number, _) in self.tags.get(&self.hasher.hash_one(prepared::hash(Kind::Tag, tag))).into_iter().flat_map(Postings::iter) {
                tagged[at(number)] = true;
            }
        }
        tagged
    }

    pub(super) fn id(&self, number: u32) -> MemoryId {
        self.rows[at(number)].id
    }

    /// Sorts ascending from oldest to newest.
    pub(super) fn age(&self, number: u32) -> (u64, MemoryId) {
        let row = &self.rows[at(number)];
        (row.created, row.id)
    }

    /// The members of its conversation in the order of time.
    pub(super) fn conversation(&self, number: u32) -> &[u32] {
        match self.rows[at(number)].conversation {
            ALONE => &[],
            conversation => &self.conversations[at(conversation)],
        }
    }

    pub(super) fn subject(&self, number: u32) -> Option<SubjectId> {
        self.rows[at(number)].subject
    }

    /// When it happened, else when it was written: ms.
    pub(super) fn when(&self, number: u32) -> u64 {
        self.rows[at(number)].when
    }

    /// Live numbers newest first for which `wanted`, from `offset`, at most `limit`, and how many there are.
    fn newest(&self, offset: usize, limit: usize, wanted: impl Fn(u32) -> bool) -> (Vec<MemoryId>, usize) {
        let (mut ids, mut total) = (Vec::new(), 0);
        for &number in self.order.iter().rev().filter(|&&number| wanted(number)) {
            if total >= offset && ids.len() < limit {
                ids.push(self.id(number));
            }
            total += 1;
        }
        (ids, total)
    }

    /// `numbers`, which ascend, newest first. Many are sifted from the order that is kept, as sorting would read rows all over memory.
    pub(super) fn newest_first(&self, mut numbers: Vec<u32>) -> Vec<u32> {
        if numbers.len() < self.order.len() / 16 {
            numbers.sort_unstable_by_key(|&number| std::cmp::Reverse(self.age(number)));
            return numbers;
        }
        let mut among = vec![false; self.rows.len()];
        numbers.iter().for_each(|&number| among[at(number)] = true);
        self.order.iter().rev().copied().filter(|&number| among[at(number)]).collect()
    }

    // --- the parts of an insertion ---

    fn class_for(&mut self, vendors: Option<&[u64]>) -> u32 {
        let Some(only) = vendors else { return EVERYONE };
        *self.class_of.entry(self.hasher.hash_one(only)).or_insert_with(|| {
            self.classes.push(Class { only: Some(only.to_vec()), docs: 0, words: 0 });
            self.vendors_bytes += 8 + size_of_val(only);
            u32::try_from(self.classes.len() - 1).expect("fewer classes than numbers")
        })
    }

    /// Where `number` belongs in `order`; nearly always at the end.
    fn place_in_order(&self, number: u32) -> usize {
        let age = self.age(number);
        match self.order.last() {
            Some(&last) if self.age(last) > age => self.order.partition_point(|&other| self.age(other) < age),
            _ => self.order.len(),
        }
    }

    /// A memory's conversation is its run; without one, the thread of its parent or its own answers.
    fn join_conversation(&mut self, number: u32, memory: &Prepared) {
        let thread = |index: &Self, root: MemoryId| index.hasher.hash_one(("thread", root));
        let key = match (memory.run, memory.parent) {
            (Some(run), _) => self.hasher.hash_one(("run", run)),
            (None, Some(parent)) => {
                // The first answer makes the thread, and its root joins if it is here.
                let key = thread(self, parent);
                if let Some(&root) = self.numbers.get(&parent).filter(|&&root| self.rows[at(root)].conversation == ALONE) {
                    self.add_to_conversation(root, key);
                }
                key
            }
            (None, None) => {
                let key = thread(self, memory.id);
                if !self.conversation_of.contains_key(&key) {
                    return;
                }
                key
            }
        };
        self.add_to_conversation(number, key);
    }

    fn add_to_conversation(&mut self, number: u32, key: u64) {
        let conversation = *self.conversation_of.entry(key).or_insert_with(|| {
            self.conversations.push(Vec::new());
            u32::try_from(self.conversations.len() - 1).expect("fewer conversations than numbers")
        });
        self.rows[at(number)].conversation = conversation;
        let (rows, members) = (&self.rows, &mut self.conversations[at(conversation)]);
        let turn = |number: u32| (rows[at(number)].when, rows[at(number)].id);
        let place = members.partition_point(|&other| turn(other) < turn(number));
        members.insert(place, number);
    }

    fn leave_conversation(&mut self, number: u32) {
        let row = &self.rows[at(number)];
        if row.conversation == ALONE {
            return;
        }
        let (rows, members) = (&self.rows, &mut self.conversations[at(row.conversation)]);
        let turn = |number: u32| (rows[at(number)].when, rows[at(number)].id);
        let place = members.partition_point(|&other| turn(other) < turn(number));
        debug_assert_eq!(members.get(place), Some(&number));
        members.remove(place);
    }
}

impl Drop for ScopeIndex {
    fn drop(&mut self) {
        // The postings wipe themselves; without the key of the hashes nothing can be looked up in what remains.
        self.hasher = RandomState::new();
        wipe(&mut self.length);
    }
}

/// Rewrites lists under new numbers; empty ones are dropped. Gives the bytes they take.
fn rewrite<K: Eq + Hash>(lists: &mut Lists<K>, live: &impl Fn(u32) -> Option<u32>) -> usize {
    let mut bytes = 0;
    lists.retain(|_, list| {
        let mut kept = Postings::default();
        for (number, note) in list.iter() {
            if let Some(number) = live(number) {
                kept.push(number, note);
            }
        }
        bytes += kept.heap_bytes();
        *list = kept;
        list.count() > 0
    });
    lists.shrink_to_fit();
    bytes
}

fn retain<T>(column: Vec<T>, keep: impl Fn(usize) -> bool) -> Vec<T> {
    column.into_iter().enumerate().filter_map(|(place, value)| keep(place).then_some(value)).collect()
}

/// Drops entries for which not `keep`, and their names; gives the new number of each old one.
fn renumber<T>(entries: &mut Vec<T>, names: &mut HashMap<u64, u32>, mut keep: impl FnMut(&T) -> bool) -> Vec<u32> {
    let mut next = 0;
    let mut kept = Vec::with_capacity(entries.len());
    entries.retain(|entry| {
        let keeps = keep(entry);
        kept.push(if keeps { next } else { ALONE });
        next += u32::from(keeps);
        keeps
    });
    names.retain(|_, number| {
        *number = kept[at(*number)];
        *number != ALONE
    });
    kept
}

/// A count as a real number; scoring needs no more than its 24 leading bits.
pub(super) fn real(count: u64) -> f32 {
    #[allow(clippy::cast_precision_loss, clippy::as_conversions)]
    {
        count as f32
    }
}
