//! A model of the index: plain lists and loops, compared with it after random changes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::literal;
use super::measure::Seeded;
use super::prepared::{Doc, Prepared, Visibility};
use super::rank::{Hit, Query};
use super::scope::{ScopeIndex, Viewer};
use crate::base::id::{MemoryId, SubjectId};
use crate::base::time::Timestamp;
use crate::embed::{Embedding, Probe};

/// A memory as the model keeps it.
#[derive(Clone)]
struct Kept {
    id: MemoryId,
    created: u64,
    when: Option<u64>,
    title: String,
    content: String,
    tags: Vec<String>,
    speaker: Option<String>,
    run: Option<String>,
    origin: String,
    vendors: Option<Vec<String>>,
    parent: Option<MemoryId>,
    subject: Option<SubjectId>,
    vector: Option<[f32; 3]>,
}

impl Default for Kept {
    fn default() -> Self {
        let (title, content, origin) = (String::new(), String::new(), "api".to_owned());
        Self {
            id: id(0),
            created: 0,
            when: None,
            title,
            content,
            tags: Vec::new(),
            speaker: None,
            run: None,
            origin,
            vendors: None,
            parent: None,
            subject: None,
            vector: None,
        }
    }
}

impl Kept {
    fn doc(&self) -> Doc<'_> {
        Doc {
            id: self.id,
            created_at: Timestamp::from_ms(self.created),
            title: &self.title,
            content: &self.content,
            tags: &self.tags,
            speaker: self.speaker.as_deref(),
            run: self.run.as_deref(),
            origin: &self.origin,
            vendors: self.vendors.as_deref().map_or(Visibility::All, Visibility::Only),
            parent: self.parent,
            subject: self.subject,
            occurred_at: self.when.map(Timestamp::from_ms),
            live: true,
        }
    }

    fn prepared(&self) -> Prepared {
        let mut prepared = Prepared::of(&self.doc());
        prepared.vector = self.vector.map(|vector| Embedding::of(&vector));
        prepared
    }

    fn seen_by(&self, viewer: Viewer<'_>) -> bool {
        match (viewer, &self.vendors) {
            (Viewer::All, _) | (_, None) => true,
            (Viewer::Vendor(name), Some(only)) => only.iter().any(|vendor| vendor == name),
        }
    }
}

static PROBE: LazyLock<Probe> = LazyLock::new(|| Probe::of(&[0.1, 0.9, 0.2]));

const WORDS: [&str; 12] = ["dose", "Metformin", "5mg", "Ångström", "the", "B-12", "50%", "a_b", "fall", "Anna", "x", "日本"];
const VENDORS: [&str; 3] = ["claude", "cursor", "Claude"];

fn pick(seeded: &mut Seeded, most: usize) -> String {
    (0..seeded.below(most + 1)).map(|_| WORDS[seeded.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
}

fn id(n: usize) -> MemoryId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&(n as u64).to_be_bytes());
    MemoryId::from_bytes(bytes)
}

fn draw(seeded: &mut Seeded, n: usize, subjects: &[SubjectId]) -> Kept {
    Kept {
        id: id(n),
        created: 1000 + seeded.below(50) as u64,
        when: (seeded.below(3) == 0).then(|| seeded.below(2000) as u64),
        title: pick(seeded, 3),
        content: pick(seeded, 12),
        tags: (0..seeded.below(3)).map(|_| ["red", "Red", "blue"][seeded.below(3)].to_owned()).collect(),
        speaker: (seeded.below(3) == 0).then(|| "Anna".to_owned()),
        run: (seeded.below(3) == 0).then(|| format!("run {}", seeded.below(4))),
        origin: ["api", "mcp"][seeded.below(2)].to_owned(),
        vendors: (seeded.below(2) == 0).then(|| (0..seeded.below(3)).map(|_| VENDORS[seeded.below(3)].to_owned()).collect()),
        parent: (seeded.below(3) == 0).then(|| id(seeded.below(60))),
        subject: (seeded.below(2) == 0).then(|| subjects[seeded.below(2)]),
        vector: (seeded.below(2) == 0).then(|| [(); 3].map(|()| 0.1 + seeded.below(9) as f32)),
    }
}

fn newest<'a>(kept: impl Iterator<Item = &'a Kept>) -> Vec<MemoryId> {
    let mut order: Vec<_> = kept.map(|kept| (kept.created, kept.id)).collect();
    order.sort_unstable();
    order.into_iter().rev().map(|(_, id)| id).collect()
}

fn fresh<'a>(kept: impl Iterator<Item = &'a Kept>) -> ScopeIndex {
    let mut index = ScopeIndex::new();
    kept.for_each(|kept| index.insert(&kept.prepared()));
    index
}

const VIEWERS: [Viewer<'static>; 4] = [Viewer::All, Viewer::Vendor("claude"), Viewer::Vendor("Claude"), Viewer::Vendor("unknown")];

fn search(index: &ScopeIndex, text: &str, viewer: Viewer<'_>, narrow: impl Fn(&mut Query<'_>)) -> Vec<Hit> {
    let mut query = Query { text, probe: None, limit: 1000, tags_any: &[], subject: None, since: None, until: None, viewer, explain: true };
    narrow(&mut query);
    index.search(&query)
}

/// Every answer of `index` is what `kept` says.
fn compare(index: &ScopeIndex, kept: &BTreeMap<usize, Kept>, subjects: &[SubjectId]) {
    assert_eq!(index.len(), kept.len());
    for viewer in VIEWERS {
        let seen = || kept.values().filter(|kept| kept.seen_by(viewer));
        for origin in [None, Some("api"), Some("none")] {
            let expected = newest(seen().filter(|kept| origin.is_none_or(|origin| kept.origin == origin)));
            assert_eq!(index.page(viewer, origin, 0, usize::MAX), (expected.clone(), expected.len()));
            let part = expected.iter().skip(3).take(5).copied().collect();
            assert_eq!(index.page(viewer, origin, 3, 5), (part, expected.len()));
        }
        for tags in [&["red"][..], &["red", "Red"], &["blue", "blue"], &["green"], &[]] {
            let expected = newest(seen().filter(|kept| kept.tags.iter().any(|tag| tags.contains(&tag.as_str()))));
            assert_eq!(index.by_tags(tags, viewer, 0, usize::MAX), (expected.clone(), expected.len()));
        }
        for term in [
            "dose",
            "DOSE fall",
            "x",
            "B",
            "5M",
            "%",
            "a_b",
            "_",
            "ngstr",
            "Å",
            "å",
            "日",
            "\u{65e5}\u{672c} the",
            "e d",
            "absent",
            "",
            " ",
        ] {
            let expected = newest(seen().filter(|kept| literal::contains(&kept.title, term) || literal::contains(&kept.content, term)));
            let expected = if term.trim().is_empty() { Vec::new() } else { expected };
            let mut found = index.literal(term, viewer);
            let mut ranked: Vec<_> = index.literal_ranked(term, viewer).into_iter().map(|(id, _)| id).collect();
            ranked.sort_unstable();
            let mut same = found.clone();
            same.sort_unstable();
            assert_eq!(ranked, same);
            assert!(!literal::is_exact(term) || found == expected, "{term}");
            found.retain(|id| expected.contains(id) || !kept.values().any(|kept| kept.id == *id && kept.seen_by(viewer)));
            assert_eq!(found, expected, "{term}");
        }
        // An index of what the viewer sees and nothing else, built in another order, scores alike.
        let mut others: Vec<_> = seen().collect();
        others.reverse();
        let alone = fresh(others.into_iter());
        let timeless = ["dose", "metformin 5 mg for Anna", "the", "fall x B12 dose angstrom", "absent", ""];
        for text in timeless.into_iter().chain(["anything on 1 January 1970?", "dose in January"]) {
            let hits = search(index, text, viewer, |_| {});
            assert_eq!(hits, search(&alone, text, Viewer::All, |_| {}));
            let meant = |index, viewer| search(index, text, viewer, |query| query.probe = Some(&PROBE));
            assert_eq!(meant(index, viewer), meant(&alone, Viewer::All));
            assert_eq!(hits[..hits.len().min(4)], search(index, text, viewer, |query| query.limit = 4));
            for hit in &hits {
                let explain = hit.explain.as_ref().unwrap();
                let sum = explain.terms.iter().map(|term| term.score).sum::<f32>()
                    + explain.meaning
                    + explain.neighbours
                    + explain.conversation
                    + explain.speaker
                    + explain.time;
                assert!((sum - hit.score).abs() < 1e-4 * hit.score, "{explain:?} {}", hit.score);
            }
            // Filters choose and do not change scores.
            let of = |hits: &[Hit], wanted: &dyn Fn(&Kept) -> bool| -> Vec<Hit> {
                hits.iter().filter(|hit| kept.values().any(|kept| kept.id == hit.id && wanted(kept))).cloned().collect()
            };
            let when = |kept: &Kept| kept.when.unwrap_or(kept.created);
            let narrowed = search(index, text, viewer, |query| query.subject = Some(subjects[0]));
            assert_eq!(narrowed, of(&hits, &|kept| kept.subject == Some(subjects[0])));
            let narrowed = search(index, text, viewer, |query| query.tags_any = &["red", "blue"]);
            assert_eq!(narrowed, of(&hits, &|kept| kept.tags.iter().any(|tag| tag == "red" || tag == "blue")));
            let since = search(index, text, viewer, |query| query.since = Some(Timestamp::from_ms(1020)));
            let until = search(index, text, viewer, |query| query.until = Some(Timestamp::from_ms(1020)));
            if text == "the" || text.is_empty() {
                // Nothing but a time is asked for: all of it, those with a word first, then the newest.
                let all = |wanted: &dyn Fn(u64) -> bool| {
                    let score = |kept: &Kept| hits.iter().find(|hit| hit.id == kept.id).map_or(0.0, |hit| hit.score) + 0.01;
                    let mut all: Vec<_> =
                        seen().filter(|kept| wanted(when(kept))).map(|kept| (score(kept), kept.created, kept.id)).collect();
                    all.sort_by(|a, b| b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2))));
                    all.into_iter().map(|(score, _, id)| (id, score)).collect::<Vec<_>>()
                };
                let found = |hits: &[Hit]| hits.iter().map(|hit| (hit.id, hit.score)).collect::<Vec<_>>();
                assert_eq!((found(&since), found(&until)), (all(&|when| when >= 1020), all(&|when| when <= 1020)));
            } else {
                assert_eq!(since, of(&hits, &|kept| when(kept) >= 1020));
                assert_eq!(until, of(&hits, &|kept| when(kept) <= 1020));
            }
            // All that the model keeps is of that day.
            assert!(!text.contains("January") || hits.len() == seen().count(), "{text}");
        }
    }
}

#[test]
fn after_any_changes_answers_are_those_of_the_live_memories() {
    let subjects = [SubjectId::draw(), SubjectId::draw()];
    for seed in 0..6 {
        let mut seeded = Seeded(seed);
        let (mut index, mut kept) = (ScopeIndex::new(), BTreeMap::new());
        for step in 0..400 {
            let n = seeded.below(60);
            match seeded.below(10) {
                0..=5 => {
                    let memory = draw(&mut seeded, n, &subjects);
                    index.insert(&memory.prepared());
                    kept.insert(n, memory);
                }
                6..=8 => assert_eq!(index.remove(id(n)), kept.remove(&n).is_some()),
                _ => {
                    let trashed = draw(&mut seeded, n, &subjects);
                    index.insert(&Prepared::of(&Doc { live: false, ..trashed.doc() }));
                    kept.remove(&n);
                }
            }
            if step % 97 == 0 {
                index.compact();
            }
            if step % 50 == 0 {
                compare(&index, &kept, &subjects);
            }
        }
        compare(&index, &kept, &subjects);
        (0..60).for_each(|n| assert_eq!(index.remove(id(n)), kept.contains_key(&n)));
        index.compact();
        compare(&index, &BTreeMap::new(), &subjects);
        assert!(index.words.is_empty() && index.trigrams.is_empty());
    }
}

#[test]
fn many_at_once_are_what_they_are_one_by_one() {
    let subjects = [SubjectId::draw(), SubjectId::draw()];
    for seed in 0..6 {
        let mut seeded = Seeded(100 + seed);
        let (mut index, mut kept) = (ScopeIndex::new(), BTreeMap::new());
        for batch in 0..30 {
            let mut prepared = Vec::new();
            for _ in 0..seeded.below(80) {
                let (n, live) = (seeded.below(60), seeded.below(5) > 0);
                let memory = draw(&mut seeded, n, &subjects);
                prepared.push(if live { memory.prepared() } else { Prepared::of(&Doc { live, ..memory.doc() }) });
                match live {
                    true => drop(kept.insert(n, memory)),
                    false => drop(kept.remove(&n)),
                }
            }
            index.insert_all(&prepared.iter().collect::<Vec<_>>());
            if batch % 7 == 0 {
                compare(&index, &kept, &subjects);
            }
        }
        compare(&index, &kept, &subjects);
    }
}

#[test]
fn replaced_memories_do_not_pile_up() {
    let mut seeded = Seeded(9);
    let mut index = ScopeIndex::new();
    let mut bytes = 0;
    for step in 0..20_000 {
        let memory = draw(&mut seeded, step % 100, &[SubjectId::draw(), SubjectId::draw()]);
        index.insert(&memory.prepared());
        bytes = bytes.max(index.bytes());
    }
    assert_eq!(index.len(), 100);
    assert!(bytes < 1 << 20, "{bytes}");
}

#[test]
fn an_answer_is_found_by_the_words_of_its_question_and_its_speaker() {
    let mut index = ScopeIndex::new();
    let say = |index: &mut ScopeIndex, n: usize, run: &str, speaker: &str, content: &str| {
        let doc = Kept {
            id: id(n),
            created: n as u64,
            run: Some(run.into()),
            speaker: Some(speaker.into()),
            content: content.into(),
            ..Kept::default()
        };
        index.insert(&Prepared::of(&doc.doc()));
    };
    say(&mut index, 1, "a", "Nurse", "Does penicillin give you a rash?");
    say(&mut index, 2, "a", "Anna", "Yes, since childhood.");
    say(&mut index, 3, "a", "Nurse", "Noted.");
    say(&mut index, 4, "b", "Anna", "The weather is fine.");
    let ids = |text| search(&index, text, Viewer::All, |_| {}).into_iter().map(|hit| hit.id).collect::<Vec<_>>();
    assert_eq!(ids("penicillin rash"), [id(1), id(2), id(3)]);
    assert_eq!(ids("what did Anna say of a penicillin rash")[..2], [id(2), id(1)]);
    assert!(search(&index, "penicillin", Viewer::Vendor("x"), |_| {}).len() == 3);
}

#[test]
fn a_time_that_the_query_names_goes_before_and_related_words_are_found() {
    let day = |text: &str| Timestamp::parse(&format!("{text}T10:00:00Z")).unwrap().ms();
    let note = |n, content: &str, when| Kept { id: id(n), created: n as u64, content: content.into(), when: Some(when), ..Kept::default() };
    let notes = [
        note(1, "The wound was dressed.", day("2026-03-02")),
        note(2, "The wound was dressed.", day("2026-03-09")),
        note(3, "She is allergic to latex.", day("2026-03-09")),
    ];
    let index = fresh(notes.iter());
    let ids = |text| search(&index, text, Viewer::All, |_| {}).into_iter().map(|hit| hit.id).collect::<Vec<_>>();
    assert_eq!(ids("wound dressing"), [id(2), id(1)]);
    assert_eq!(ids("wound dressing on 2 March 2026"), [id(1), id(2)]);
    assert_eq!(ids("any allergies?"), [id(3)]);
    let hits = search(&index, "wound on March 2", Viewer::All, |_| {});
    let explain = |hit: &Hit| hit.explain.clone().unwrap();
    assert!(explain(&hits[0]).time > 0.0 && explain(&hits[1]).time == 0.0);
}

/// A memory of the time was no hit unless a word of the question stood in it, and `18` or `November` anywhere was one.
#[test]
fn a_question_that_is_only_a_time_finds_what_is_of_that_time() {
    let day = |text: &str| Timestamp::parse(&format!("{text}T10:00:00Z")).unwrap().ms();
    let note = |n, content: &str, when: &str| Kept {
        id: id(n),
        created: n as u64,
        content: content.into(),
        when: Some(day(when)),
        ..Kept::default()
    };
    let mut notes = vec![
        note(1, "Fell beside the bed.", "2026-11-18"),
        note(2, "Potassium 3.1.", "2026-11-18"),
        note(3, "Enoxaparin 18 mg, as happened before.", "2025-06-01"),
        note(4, "Cardiology appointment on 18 November 2026.", "2026-10-02"),
        note(5, "Slept well.", "2026-11-19"),
        note(6, "Potassium 4.0.", "2026-12-01"),
    ];
    notes.push(Kept { vendors: Some(vec![]), ..note(7, "hidden", "2026-11-18") });
    let index = fresh(notes.iter());
    let viewer = Viewer::Vendor("claude");
    let ids =
        |text, narrow: &dyn Fn(&mut Query<'_>)| search(&index, text, viewer, narrow).into_iter().map(|hit| hit.id).collect::<Vec<_>>();
    let all = |_: &mut Query<'_>| {};
    // What says the day itself, then what is of it, newest first, then what has a part of its words.
    for text in ["what happened on 18 November 2026?", "Anything new on the 18th of November 2026", "18 November 2026"] {
        assert_eq!(ids(text, &all), [id(4), id(2), id(1), id(3)], "{text}");
        assert_eq!(ids(text, &|query| query.probe = Some(&PROBE)), [id(4), id(2), id(1), id(3)], "{text}");
    }
    assert_eq!(ids("anything in November?", &all), [id(5), id(2), id(1), id(4)]);
    // What names the thing before what is of the time alone.
    assert_eq!(ids("potassium in November", &all), [id(2), id(6), id(5), id(1), id(4)]);
    assert_eq!(ids("what happened on 2026-11-19", &all), [id(5), id(3), id(4)]);
    assert_eq!(ids("what happened on 20 November 1999", &all), [id(4), id(3)]);
    // The same with since and until, which only choose among the hits where a thing is asked for.
    let since = |query: &mut Query<'_>| query.since = Some(Timestamp::from_ms(day("2026-11-18")));
    assert_eq!(ids("what is there?", &since), [id(6), id(5), id(2), id(1)]);
    assert_eq!(ids("what happened since then?", &since), [id(6), id(5), id(2), id(1)]);
    assert_eq!(ids("potassium", &since), [id(6), id(2)]);
    assert!(ids("enoxaparin", &since).is_empty() && ids("what is there?", &all).is_empty());
    for hit in search(&index, "what happened on 18 November 2026?", viewer, |_| {}) {
        let explain = hit.explain.unwrap();
        let sum = explain.terms.iter().map(|term| term.score).sum::<f32>() + explain.conversation + explain.time;
        assert!((sum - hit.score).abs() < 1e-4 * hit.score, "{explain:?} {}", hit.score);
    }
}

/// The fifty years that a date without a year could mean were counted back from the newest moment: one year mistyped as 2206 turned them all off.
#[test]
fn one_odd_year_takes_no_date_from_the_others() {
    let day = |text: &str| Timestamp::parse(&format!("{text}T10:00:00Z")).unwrap().ms();
    let note =
        |n, when| Kept { id: id(n), created: n as u64, content: "The wound was dressed.".into(), when: Some(when), ..Kept::default() };
    let notes = [note(1, day("2026-03-02")), note(2, day("2026-05-09")), note(3, day("2206-05-09")), note(4, day("1971-03-02"))];
    let index = fresh(notes.iter());
    let ids = |text| search(&index, text, Viewer::All, |_| {}).into_iter().map(|hit| hit.id).collect::<Vec<_>>();
    assert_eq!(ids("wound on 2 March"), [id(4), id(1), id(3), id(2)]);
    assert_eq!(ids("wound in May"), [id(3), id(2), id(4), id(1)]);
}

#[test]
fn a_score_does_not_tell_what_is_hidden() {
    // Two owners, alike but for what is hidden from the agent: it must not see a difference in any score.
    let shown: Vec<Kept> = (0..5)
        .map(|n| Kept {
            id: id(n),
            created: 1,
            title: "note".into(),
            content: "hiv test ordered".into(),
            run: Some("r".into()),
            ..Kept::default()
        })
        .collect();
    let hidden = Kept {
        id: id(9),
        created: 1,
        content: "hiv positive ".repeat(20),
        run: Some("r".into()),
        vendors: Some(vec![]),
        ..Kept::default()
    };
    let (without, with) = (fresh(shown.iter()), fresh(shown.iter().chain([&hidden])));
    let viewer = Viewer::Vendor("claude");
    assert_eq!(search(&with, "hiv positive", viewer, |_| {}), search(&without, "hiv positive", viewer, |_| {}));
}

#[test]
fn meaning_finds_what_no_word_does_and_only_where_it_stands_out() {
    let note = |n: usize, content: &str, vector| Kept { id: id(n), created: n as u64, content: content.into(), vector, ..Kept::default() };
    let mut notes: Vec<Kept> = (1..=20).map(|n| note(n, "weather", Some([0.0, 0.0, 1.0]))).collect();
    notes.push(note(30, "a drug against high blood pressure", Some([0.1, 0.9, 0.2])));
    notes.push(note(31, "no vector yet", None));
    let mut index = fresh(notes.iter());
    let ids = |index: &ScopeIndex, text| {
        search(index, text, Viewer::All, |query| query.probe = Some(&PROBE)).into_iter().map(|hit| hit.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&index, "hypertension")[0], id(30));
    // What has no vector yet is found by its words.
    assert!(ids(&index, "vector").contains(&id(31)));
    let explain = search(&index, "pressure", Viewer::All, |query| query.probe = Some(&PROBE))[0].explain.clone().unwrap();
    assert!(explain.meaning > 0.0 && explain.terms.len() == 2, "the word and its family");
    // A vector that comes later counts from then on; with its memory it goes.
    index.embed(id(31), &Embedding::of(&[0.1, 0.9, 0.2]));
    assert_eq!(ids(&index, "hypertension"), [id(31), id(30)], "the newer first");
    assert!(index.remove(id(30)) && !index.remove(id(30)));
    index.embed(id(30), &Embedding::of(&[0.1, 0.9, 0.2]));
    assert_eq!(ids(&index, "hypertension"), [id(31)]);
    let before = index.bytes();
    index.compact();
    assert!(index.bytes() <= before && ids(&index, "hypertension") == [id(31)]);
}
