//! Measurements of the index: a seeded clinical-like text, time and memory at size, and recall on conversations.
//!
//! Not in any package. The words follow Zipf's law (rank + 2.7, exponent 1.07) over 30,000 words, with doses, codes and lab values among them:
//! what matters for time and memory is how lists grow, not what they mean. Nothing here is random twice: a seed gives the same text and queries.

use std::fmt;
use std::time::{Duration, Instant};

use super::prepared::{Doc, Prepared, Visibility};
use super::rank::Query;
use super::scope::{ScopeIndex, Viewer};
use crate::base::id::MemoryId;
use crate::base::time::Timestamp;
use crate::embed::{Embedding, Probe};

/// A small seeded generator (SplitMix64).
pub struct Seeded(pub u64);

impl Seeded {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Evenly from `0..below`.
    pub fn below(&mut self, below: usize) -> usize {
        usize::try_from(self.bits() % u64::try_from(below.max(1)).expect("usize fits u64")).expect("below a usize")
    }
}

/// Words by falling frequency, and where each one's share of all text ends.
pub struct Vocabulary {
    words: Vec<String>,
    shares: Vec<f64>,
}

const COMMON: [&str; 64] = [
    "the",
    "and",
    "of",
    "to",
    "patient",
    "with",
    "was",
    "for",
    "in",
    "a",
    "on",
    "no",
    "is",
    "history",
    "pain",
    "daily",
    "mg",
    "blood",
    "at",
    "not",
    "pressure",
    "normal",
    "reports",
    "given",
    "left",
    "right",
    "chest",
    "denies",
    "acute",
    "chronic",
    "dose",
    "diabetes",
    "hypertension",
    "review",
    "follow-up",
    "started",
    "continue",
    "increased",
    "stable",
    "discharge",
    "admission",
    "heart",
    "renal",
    "fever",
    "cough",
    "metformin",
    "insulin",
    "aspirin",
    "lisinopril",
    "oxygen",
    "allergy",
    "penicillin",
    "glucose",
    "creatinine",
    "surgery",
    "wound",
    "infection",
    "antibiotics",
    "nausea",
    "headache",
    "family",
    "smoker",
    "weight",
    "asthma",
];

impl Vocabulary {
    /// `size` words made of syllables, after some that everybody uses.
    pub fn new(size: usize) -> Self {
        let syllables = [
            "car", "di", "o", "neph", "ro", "hep", "at", "i", "tis", "gas", "tro", "en", "ter", "al", "my", "lo", "pa", "thy", "ne", "u",
            "ra", "lin", "sta", "phen", "ol", "ox", "cin", "mab", "pril", "zole",
        ];
        let mut seeded = Seeded(11);
        let mut words: Vec<String> = COMMON.iter().map(|&word| word.to_owned()).collect();
        while words.len() < size {
            words.push((0..2 + seeded.below(4)).map(|_| syllables[seeded.below(syllables.len())]).collect());
        }
        let mut sum = 0.0;
        let shares = (0u32..).take(words.len()).map(|rank| {
            sum += (f64::from(rank) + 2.7).powf(-1.07);
            sum
        });
        let shares = shares.collect();
        Self { words, shares }
    }

    /// A word as often as it occurs in text.
    pub fn word(&self, seeded: &mut Seeded) -> &str {
        let all = self.shares.last().copied().unwrap_or_default();
        let point = f64::from(u32::try_from(seeded.bits() >> 32).expect("32 bits")) / f64::from(u32::MAX) * all;
        &self.words[self.shares.partition_point(|&share| share < point).min(self.words.len() - 1)]
    }

    /// `words` words of text with numbers among them.
    pub fn text(&self, seeded: &mut Seeded, words: usize) -> String {
        let mut text = String::new();
        for i in 0..words {
            match seeded.below(40) {
                0 => text += &format!("{}mg", 5 * (1 + seeded.below(200))),
                1 => text += &format!("{}/{}", 90 + seeded.below(90), 50 + seeded.below(50)),
                2 => {
                    text += &format!(
                        "{}{}.{}",
                        char::from(b'A' + u8::try_from(seeded.below(26)).expect("a letter")),
                        seeded.below(100),
                        seeded.below(10)
                    )
                }
                _ => text += self.word(seeded),
            }
            text += if i % 12 == 11 { ". " } else { " " };
        }
        text
    }

    /// Queries of 1 to 8 words, taken as often as text has them, so that common ones are among them.
    pub fn queries(&self, count: usize) -> Vec<String> {
        let mut seeded = Seeded(77);
        (0..count).map(|i| self.text(&mut seeded, 1 + i % 8)).collect()
    }
}

/// What a run found.
pub struct Report {
    docs: usize,
    text_bytes: usize,
    built: Duration,
    index_bytes: usize,
    prepares: Times,
    inserts: Times,
    searches: Times,
    literals: Times,
    /// With a vector of 384 dimensions each, its making apart; and the bytes that these take.
    meanings: Times,
    vector_bytes: usize,
    /// By term, as some words of the text: candidates and time.
    terms: Vec<(&'static str, usize, Duration)>,
    /// A rewrite with every other memory removed, and the wiping of what is left.
    compacted: Duration,
    dropped: Duration,
}

/// Sorted times of one kind.
struct Times(Vec<Duration>);

impl Times {
    fn of<T>(runs: impl Iterator<Item = T>, mut run: impl FnMut(T)) -> Self {
        Self::sorted(runs.map(|input| {
            let start = Instant::now();
            run(input);
            start.elapsed()
        }))
    }

    fn sorted(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        Self(times)
    }

    /// The time that `percent` of the runs did not exceed.
    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:?}, p99 {:?}, max {:?} of {}", self.at(50), self.at(99), self.at(100), self.0.len())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = |bytes: usize| bytes / self.docs.max(1);
        writeln!(f, "{} memories of {} bytes of text each", self.docs, per(self.text_bytes))?;
        writeln!(f, "build    {:?}", self.built)?;
        writeln!(f, "memory   {} MiB, {} bytes a memory", self.index_bytes >> 20, per(self.index_bytes))?;
        writeln!(f, "prepare  {}", self.prepares)?;
        writeln!(f, "insert   {}", self.inserts)?;
        writeln!(f, "search   {}", self.searches)?;
        writeln!(f, "literal  {}", self.literals)?;
        writeln!(f, "meaning  {}, {} bytes a vector", self.meanings, per(self.vector_bytes))?;
        for (term, found, time) in &self.terms {
            writeln!(f, "literal  {term:?}: {found} candidates, ranked, {time:?}")?;
        }
        write!(f, "rewrite  {:?} for half of it, wiping {:?}", self.compacted, self.dropped)
    }
}

/// Builds an index of `docs` memories of 40 to 120 words, ten turns a run, and times 1,000 writes, searches and substring look-ups.
pub fn measure(docs: usize) -> Report {
    let (vocabulary, mut seeded) = (Vocabulary::new(30_000), Seeded(5));
    let mut index = ScopeIndex::new();
    let (mut built, mut text_bytes) = (Duration::ZERO, 0);
    let mut insert = |index: &mut ScopeIndex, i: usize| {
        let (title_words, words) = (3 + seeded.below(6), 40 + seeded.below(80));
        let (title, content) = (vocabulary.text(&mut seeded, title_words), vocabulary.text(&mut seeded, words));
        let (tags, run) = ([vocabulary.word(&mut seeded).to_owned()], format!("run-{}", i / 10));
        text_bytes += title.len() + content.len();
        let at = Timestamp::from_ms(1_700_000_000_000 + u64::try_from(i).expect("usize fits u64") * 60_000);
        let doc = Doc {
            id: MemoryId::draw(at),
            created_at: at,
            title: &title,
            content: &content,
            tags: &tags,
            speaker: None,
            run: Some(&run),
            origin: "api",
            vendors: Visibility::All,
            parent: None,
            subject: None,
            occurred_at: None,
            live: true,
        };
        let start = Instant::now();
        let prepared = Prepared::of(&doc);
        let ready = start.elapsed();
        index.insert(&prepared);
        [ready, start.elapsed() - ready]
    };
    for i in 0..docs {
        built += insert(&mut index, i).iter().sum::<Duration>();
    }
    let index_bytes = index.bytes();
    let writes: Vec<[Duration; 2]> = (docs..docs + 1000).map(|i| insert(&mut index, i)).collect();
    let [prepares, inserts] = [0, 1].map(|part| Times::sorted(writes.iter().map(|write| write[part])));
    let text_bytes = text_bytes / (docs + 1000) * docs;

    let queries = vocabulary.queries(1000);
    let search = |text: &String| {
        let query = Query {
            text,
            probe: None,
            limit: 10,
            tags_any: &[],
            subject: None,
            since: None,
            until: None,
            viewer: Viewer::All,
            explain: false,
        };
        std::hint::black_box(index.search(&query));
    };
    queries.iter().take(50).for_each(search);
    let searches = Times::of(queries.iter(), search);
    let literals = Times::of(queries.iter(), |text| {
        std::hint::black_box(index.literal(text.trim(), Viewer::All));
    });
    let mut terms = Vec::new();
    for term in ["e", "th", "the", "hypertension", "mg", "neph", "zz", "patient with"] {
        let start = Instant::now();
        let found = index.literal_ranked(term, Viewer::All).len();
        terms.push((term, found, start.elapsed()));
    }
    let (ids, _) = index.page(Viewer::All, None, 0, usize::MAX);
    let unembedded = index.bytes();
    let vector = |seeded: &mut Seeded| -> Vec<f32> {
        (0..384).map(|_| f32::from(u16::try_from(seeded.below(2001)).expect("small")) - 1000.0).collect()
    };
    ids.iter().for_each(|&id| index.embed(id, &Embedding::of(&vector(&mut seeded))));
    let vector_bytes = index.bytes() - unembedded;
    let meanings = Times::of(queries.iter().map(|text| (text, Probe::of(&vector(&mut seeded)))), |(text, probe)| {
        let probe = Some(&probe);
        let query =
            Query { text, probe, limit: 10, tags_any: &[], subject: None, since: None, until: None, viewer: Viewer::All, explain: false };
        std::hint::black_box(index.search(&query));
    });
    // One short of a rewrite, so that it can be timed alone.
    let half = ids.len() / 2;
    ids.iter().take(half).for_each(|&id| assert!(index.remove(id)));
    let start = Instant::now();
    index.compact();
    let compacted = start.elapsed();
    drop(index);
    let dropped = start.elapsed() - compacted;
    Report {
        docs,
        text_bytes,
        built,
        index_bytes,
        prepares,
        inserts,
        searches,
        literals,
        meanings,
        vector_bytes,
        terms,
        compacted,
        dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many memories, from `INDEX_DOCS`; small unless asked, as an unoptimised build is 20 times slower.
    #[test]
    fn memory_and_time_grow_no_faster_than_the_text() {
        let docs = std::env::var("INDEX_DOCS").ok().and_then(|text| text.parse().ok()).unwrap_or(2000);
        let report = measure(docs);
        println!("{report}");
        // 100k memories are to fit well within 256 MiB.
        assert!(report.index_bytes / docs < 3000);
    }

    /// Recall on the conversations in the folder `INDEX_LOCOMO` (see its README); without it there is nothing to measure.
    #[test]
    fn recall_on_conversations() {
        let Some(folder) = std::env::var_os("INDEX_LOCOMO") else { return };
        let mut totals = [0.0; 4];
        let mut asked = 0.0;
        for name in ["26", "30", "41", "42"] {
            let text = std::fs::read(std::path::Path::new(&folder).join(format!("{name}.json"))).unwrap();
            let (sums, count) = recall(&serde_json::from_slice(&text).unwrap());
            println!("{name}: {:.3?} over {count}", sums.map(|sum| sum / count));
            (0..4).for_each(|i| totals[i] += sums[i]);
            asked += count;
        }
        println!("Recall@1/5/10/20 {:.3?} over {asked}", totals.map(|total| total / asked));
        assert!(totals[2] / asked >= 0.7);
    }

    fn recall(conversation: &serde_json::Value) -> ([f64; 4], f64) {
        let mut index = ScopeIndex::new();
        let mut turns = std::collections::HashMap::new();
        for (i, turn) in (0u64..).zip(conversation["turns"].as_array().unwrap()) {
            let at = Timestamp::from_ms(1_700_000_000_000 + i * 1000);
            let id = MemoryId::draw(at);
            turns.insert(turn["id"].as_str().unwrap(), id);
            let speaker = turn["speaker"].as_str();
            let content =
                format!("{}: {} {}", speaker.unwrap(), turn["text"].as_str().unwrap(), turn["caption"].as_str().unwrap_or_default());
            index.insert(&Prepared::of(&Doc {
                id,
                created_at: at,
                title: "",
                content: &content,
                tags: &[],
                speaker,
                run: Some(&turn["session"].to_string()),
                origin: "api",
                vendors: Visibility::All,
                parent: None,
                subject: None,
                occurred_at: None,
                live: true,
            }));
        }
        let (mut sums, mut count) = ([0.0; 4], 0.0);
        for question in conversation["questions"].as_array().unwrap() {
            let evidence: Vec<_> = question["evidence"].as_array().unwrap().iter().filter_map(|id| turns.get(id.as_str()?)).collect();
            if evidence.is_empty() {
                continue;
            }
            let text = question["question"].as_str().unwrap();
            let query = Query {
                text,
                probe: None,
                limit: 20,
                tags_any: &[],
                subject: None,
                since: None,
                until: None,
                viewer: Viewer::All,
                explain: false,
            };
            let hits = index.search(&query);
            for (sum, k) in sums.iter_mut().zip([1, 5, 10, 20]) {
                let found = evidence.iter().filter(|&&&id| hits.iter().take(k).any(|hit| hit.id == id)).count();
                *sum += found as f64 / evidence.len() as f64;
            }
            count += 1.0;
        }
        (sums, count)
    }
}
