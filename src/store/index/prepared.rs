//! A memory made ready for an index: everything that costs time, done once, outside the writer, and holding no text.
//!
//! Invariants
//! - Words, tags, runs, vendors and origins are 64-bit hashes under a key of this process, drawn at its start; an index hashes them once more under
//!   its own key (`scope`), which is forgotten with it. Two of a million words share a hash with probability 3e-8, and the caller opens every
//!   record it answers with.
//! - Trigrams, from which text could be pieced together, are wiped when it is dropped.
//! - The keys are chance, and no answer depends on them.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{analyse, literal};
use crate::base::id::{MemoryId, SubjectId};
use crate::base::time::Timestamp;
use crate::base::wipe::wipe;
use crate::embed::Embedding;

/// Who may see a memory beside its owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visibility<'a> {
    /// Every vendor.
    All,
    /// These vendors, exactly as spelled.
    Only(&'a [String]),
}

/// One memory as its opener holds it. Fields as in the record.
#[derive(Clone, Copy)]
pub struct Doc<'a> {
    /// Its id.
    pub id: MemoryId,
    /// When it was written.
    pub created_at: Timestamp,
    /// Title.
    pub title: &'a str,
    /// Content.
    pub content: &'a str,
    /// Tags, exact.
    pub tags: &'a [String],
    /// Who said it.
    pub speaker: Option<&'a str>,
    /// The run (session) it belongs to.
    pub run: Option<&'a str>,
    /// Where it came from.
    pub origin: &'a str,
    /// Who may see it.
    pub vendors: Visibility<'a>,
    /// The memory it answers.
    pub parent: Option<MemoryId>,
    /// The person it is about.
    pub subject: Option<SubjectId>,
    /// When what it tells happened.
    pub occurred_at: Option<Timestamp>,
    /// `false` in the trash: then it is not indexed.
    pub live: bool,
}

/// A word's note in the postings: times in the content in the low bits, saturating, and the other fields it is in.
pub(super) const COUNT: u8 = 0x1f;
pub(super) const IN_TITLE: u8 = 0x20;
pub(super) const IN_TAGS: u8 = 0x40;
pub(super) const IN_SPEAKER: u8 = 0x80;

/// See the module text. About 45 us for a page of text.
pub struct Prepared {
    pub(super) id: MemoryId,
    pub(super) created: u64,
    /// When it happened, else when it was written: ms.
    pub(super) when: u64,
    /// Words in all fields, saturating.
    pub(super) length: u16,
    /// Distinct words and families of words with their notes.
    pub(super) words: Vec<(u64, u8)>,
    /// As they come, repeats among them.
    pub(super) trigrams: Vec<u32>,
    /// Distinct.
    pub(super) tags: Vec<u64>,
    pub(super) origin: u64,
    /// Sorted; `None`: every vendor.
    pub(super) vendors: Option<Vec<u64>>,
    pub(super) run: Option<u64>,
    pub(super) parent: Option<MemoryId>,
    pub(super) subject: Option<SubjectId>,
    pub(super) live: bool,
    /// The vector of its text, if it was made.
    pub(in crate::store) vector: Option<Embedding>,
}

impl Prepared {
    /// What an index needs of `doc`.
    pub fn of(doc: &Doc<'_>) -> Self {
        let mut prepared = Self {
            id: doc.id,
            created: doc.created_at.ms(),
            when: doc.occurred_at.unwrap_or(doc.created_at).ms(),
            length: 0,
            words: Vec::new(),
            trigrams: Vec::new(),
            tags: doc.tags.iter().map(|tag| hash(Kind::Tag, tag.as_str())).collect(),
            origin: hash(Kind::Origin, doc.origin),
            vendors: match doc.vendors {
                Visibility::All => None,
                Visibility::Only(names) => Some(names.iter().map(|name| hash(Kind::Vendor, name.as_str())).collect()),
            },
            run: doc.run.map(|run| hash(Kind::Run, run)),
            parent: doc.parent.filter(|&parent| parent != doc.id),
            subject: doc.subject,
            live: doc.live,
            vector: None,
        };
        for hashes in prepared.vendors.iter_mut().chain([&mut prepared.tags]) {
            hashes.sort_unstable();
            hashes.dedup();
        }
        if doc.live {
            prepared.add_words(doc);
            prepared.trigrams.reserve_exact(doc.title.len() + doc.content.len());
            literal::trigrams(doc.title, &mut prepared.trigrams);
            literal::trigrams(doc.content, &mut prepared.trigrams);
        }
        prepared
    }

    /// The same words under the id, place and times that a memory got after they were prepared.
    pub fn placed(
        mut self,
        id: MemoryId,
        parent: Option<MemoryId>,
        subject: Option<SubjectId>,
        created_at: Timestamp,
        occurred_at: Option<Timestamp>,
    ) -> Self {
        (self.id, self.parent, self.subject) = (id, parent.filter(|&parent| parent != id), subject);
        (self.created, self.when) = (created_at.ms(), occurred_at.unwrap_or(created_at).ms());
        self
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let hashes = self.tags.capacity() + self.vendors.as_ref().map_or(0, Vec::capacity);
        self.words.capacity() * size_of::<(u64, u8)>()
            + self.trigrams.capacity() * size_of::<u32>()
            + hashes * size_of::<u64>()
            + self.vector.as_ref().map_or(0, |vector| vector.values().len())
    }

    fn add_words(&mut self, doc: &Doc<'_>) {
        let mut notes: Vec<(u64, u8)> = Vec::with_capacity(doc.content.len() / 4);
        let mut length = 0usize;
        let mut field = |text: &str, note: u8| {
            analyse::words(text, |_, word| {
                length += 1;
                notes.push((term_hash(word), note));
                notes.extend(analyse::family(word).map(|family| (family_hash(family), note)));
            });
        };
        field(doc.title, IN_TITLE);
        field(doc.content, 1);
        doc.tags.iter().for_each(|tag| field(tag, IN_TAGS));
        field(doc.speaker.unwrap_or_default(), IN_SPEAKER);

        self.length = u16::try_from(length).unwrap_or(u16::MAX);
        notes.sort_unstable();
        notes.dedup_by(|(hash, note), (kept, all)| {
            let same = hash == kept;
            if same {
                let count = (*all & COUNT).saturating_add(*note & COUNT).min(COUNT);
                *all = (*all | *note) & !COUNT | count;
            }
            same
        });
        notes.shrink_to_fit();
        self.words = notes;
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        wipe(&mut self.trigrams);
    }
}

/// What a hash stands for: each kind has a key of its own.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A tag.
    Tag,
    /// An origin.
    Origin,
    /// A vendor.
    Vendor,
    /// A run.
    Run,
    /// A folded word.
    Word,
    /// A term.
    Term,
    /// A family of words.
    Family,
}

static KEYS: LazyLock<[RandomState; 7]> = LazyLock::new(|| std::array::from_fn(|_| RandomState::new()));

/// The hash of `text` among things of one kind.
pub(super) fn hash(kind: Kind, text: impl Hash) -> u64 {
    KEYS[kind as usize].hash_one(text)
}

/// Places in the table of [`term_hash`].
const KNOWN: usize = 32_768;

/// Word hash → term hash, so that a common word is stemmed once and not in every memory. Each place holds `word ^ term` and `term`: a pair
/// that two threads wrote halves of does not match. Hashes alone: no text stays.
static TERMS: [[AtomicU64; 2]; KNOWN] = [const { [const { AtomicU64::new(0) }; 2] }; KNOWN];

/// The hash of the term of a folded word. *(measured)* Stemming took two thirds of the time of preparing a memory.
fn term_hash(word: &str) -> u64 {
    let own = hash(Kind::Word, word);
    let place = &TERMS[usize::try_from(own % KNOWN as u64).expect("a remainder below 32,768")];
    let term = place[1].load(Ordering::Relaxed);
    if term != 0 && place[0].load(Ordering::Relaxed) ^ term == own {
        return term;
    }
    let term = analyse::stemmed(word, word_hash);
    place[0].store(own ^ term, Ordering::Relaxed);
    place[1].store(term, Ordering::Relaxed);
    term
}

/// The hash of a family of words.
pub(super) fn family_hash(family: &str) -> u64 {
    hash(Kind::Family, family)
}

/// The hash of a term.
pub(super) fn word_hash(term: &str) -> u64 {
    hash(Kind::Term, term)
}
