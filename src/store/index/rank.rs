//! Ranking: BM25 over words, and the company a memory keeps.
//!
//! A memory's relevance is `own + NEIGHBOUR * (turn before + turn after) + CONVERSATION * best own score of its conversation`, times `SPOKEN` if
//! the query names its speaker; `own` is BM25 with a count that weighs fields. A memory without a word of its own is a hit when the turn beside it
//! is: an answer often lacks the words of its question.
//!
//! Invariants
//! - Scores depend on what the viewer may see alone: the rarity of a word, the mean length, the turns beside and the conversation's best are those
//!   of the visible memories, so a score cannot tell an agent what hidden memories say.
//! - Equal scores: newer first, then the higher id; the same query on the same memories gives the same answer.
//!
//! Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009); the idf is Lucene's, never negative. The
//! customary constants are kept: what is measured (`measure`) is not what they were chosen by.

use std::cmp::Ordering;

use super::analyse;
use super::postings::{PLAIN, Postings};
use super::prepared::{COUNT, IN_SPEAKER, IN_TAGS, IN_TITLE};
use super::scope::{ScopeIndex, View, Viewer, at, real};
use crate::base::id::{MemoryId, SubjectId};
use crate::base::time::Timestamp;

/// Saturation of repeated words.
const K1: f32 = 1.2;
/// How much longer memories are held back.
const B: f32 = 0.75;
/// What a word in these fields counts, beside 1 for each time in the content.
const TITLE: f32 = 2.0;
const TAGS: f32 = 2.0;
const SPEAKER: f32 = 1.0;
/// Share of the score of the turn before and of the turn after.
const NEIGHBOUR: f32 = 0.4;
/// Share of the best score in the conversation.
const CONVERSATION: f32 = 0.4;
/// What a speaker's being named in the query multiplies.
const SPOKEN: f32 = 1.5;

/// A ranked query. Filters choose among the hits; they change no score.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// Words in any order.
    pub text: &'a str,
    /// Hits wanted.
    pub limit: usize,
    /// At least one of these, exact; empty: any.
    pub tags_any: &'a [&'a str],
    /// About this person.
    pub subject: Option<SubjectId>,
    /// Happened (else written) at or after.
    pub since: Option<Timestamp>,
    /// Happened (else written) at or before.
    pub until: Option<Timestamp>,
    /// Who asks.
    pub viewer: Viewer<'a>,
    /// Whether hits carry an [`Explain`].
    pub explain: bool,
}

/// A memory that answers.
#[derive(Clone, PartialEq, Debug)]
pub struct Hit {
    /// Which.
    pub id: MemoryId,
    /// Its relevance; comparable within one answer only.
    pub score: f32,
    /// What made it, if asked for.
    pub explain: Option<Explain>,
}

/// The parts of a score; they add up to it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Explain {
    /// The query's terms that are in the memory.
    pub terms: Vec<TermScore>,
    /// From the turns beside it.
    pub neighbours: f32,
    /// From its conversation.
    pub conversation: f32,
    /// For its speaker's name.
    pub speaker: f32,
}

/// What one term of the query gave.
#[derive(Clone, PartialEq, Debug)]
pub struct TermScore {
    /// The term as it was looked up.
    pub term: String,
    /// Its share of the score.
    pub score: f32,
    /// Times in the content, up to 31.
    pub content_count: u8,
    /// Whether it is in the title, a tag, the speaker's name.
    pub in_title: bool,
    /// See `in_title`.
    pub in_tags: bool,
    /// See `in_title`.
    pub in_speaker: bool,
}

/// Scores by number.
struct Scores {
    /// BM25 alone.
    own: Vec<f32>,
    /// With the company.
    full: Vec<f32>,
}

impl ScopeIndex {
    /// The best `query.limit` memories, best first.
    pub fn search(&self, query: &Query<'_>) -> Vec<Hit> {
        let terms = analyse::query(query.text);
        let view = self.view(query.viewer);
        let scores = self.scores(&terms, &view);
        let tagged = (!query.tags_any.is_empty()).then(|| self.tagged(query.tags_any));
        let (since, until) = (query.since.map_or(0, Timestamp::ms), query.until.map_or(u64::MAX, Timestamp::ms));
        let timed = query.since.is_some() || query.until.is_some();
        let wanted = |number: u32| {
            tagged.as_ref().is_none_or(|tagged| tagged[at(number)])
                && query.subject.is_none_or(|subject| self.subject(number) == Some(subject))
                && (!timed || (since..=until).contains(&self.when(number)))
        };
        let mut ranked: Vec<(f32, u32)> = scores
            .full
            .iter()
            .zip(0u32..)
            .filter(|&(&score, number)| score > 0.0 && wanted(number))
            .map(|(&score, number)| (score, number))
            .collect();
        if ranked.len() > query.limit {
            if query.limit > 0 {
                ranked.select_nth_unstable_by(query.limit - 1, |a, b| self.rank_order(*a, *b));
            }
            ranked.truncate(query.limit);
        }
        ranked.sort_unstable_by(|a, b| self.rank_order(*a, *b));

        let mut hits: Vec<Hit> = ranked.iter().map(|&(score, number)| Hit { id: self.id(number), score, explain: None }).collect();
        if query.explain {
            for (hit, explain) in hits.iter_mut().zip(self.explain(&terms, &view, &scores, &ranked)) {
                hit.explain = Some(explain);
            }
        }
        hits
    }

    /// By number: relevance to `text`; 0 where the viewer may not look.
    pub(super) fn relevance(&self, text: &str, viewer: Viewer<'_>) -> Vec<f32> {
        self.scores(&analyse::query(text), &self.view(viewer)).full
    }

    /// Better first; equals newer first, then the higher id.
    pub(super) fn rank_order(&self, a: (f32, u32), b: (f32, u32)) -> Ordering {
        b.0.total_cmp(&a.0).then_with(|| self.age(b.1).cmp(&self.age(a.1)))
    }

    fn scores(&self, terms: &[String], view: &View) -> Scores {
        let mut own = vec![0.0; self.class.len()];
        let (mut seen, mut spoken) = (Vec::new(), Vec::new());
        for term in terms {
            let Some(weigh) = self.weigher(term, view, &mut seen) else { continue };
            for &(number, note) in &seen {
                own[at(number)] += weigh(number, note);
                if note & IN_SPEAKER != 0 {
                    spoken.push(number);
                }
            }
        }
        // Once, however many of its speaker's names the query has.
        spoken.sort_unstable();
        spoken.dedup();
        // A memory without company is the best of its own conversation.
        let mut full: Vec<f32> = own.iter().map(|own| own * (1.0 + CONVERSATION)).collect();
        for members in &self.conversations {
            self.add_company(members, view, &own, &mut full);
        }
        for &number in &spoken {
            full[at(number)] *= SPOKEN;
        }
        Scores { own, full }
    }

    /// The visible postings of `term` into `seen`, and what each of them scores. `None` if there are none.
    fn weigher(&self, term: &str, view: &View, seen: &mut Vec<(u32, u8)>) -> Option<impl Fn(u32, u8) -> f32 + '_> {
        let list = self.word(term)?;
        seen.clear();
        seen.extend(Postings::iter(list).filter(|&(number, _)| view.sees(self, number)));
        if seen.is_empty() {
            return None;
        }
        let found = real(u64::try_from(seen.len()).unwrap_or(u64::MAX));
        let rarity = (1.0 + (real(view.docs.into()) - found + 0.5) / (found + 0.5)).ln();
        let (fixed, by_length) = (K1 * (1.0 - B), K1 * B / view.mean_length);
        Some(move |number: u32, note: u8| {
            let count = if note == PLAIN { 1.0 } else { weight(note) };
            rarity * count * (K1 + 1.0) / (count + fixed + by_length * f32::from(self.length[at(number)]))
        })
    }

    /// Adds to the visible members of one conversation what they owe to the others. `members` are in the order of time.
    fn add_company(&self, members: &[u32], view: &View, own: &[f32], full: &mut [f32]) {
        let mut best = 0f32;
        let mut before: Option<u32> = None;
        for &number in members.iter().filter(|&&number| view.sees(self, number)) {
            best = best.max(own[at(number)]);
            if let Some(before) = before {
                full[at(before)] += NEIGHBOUR * own[at(number)];
                full[at(number)] += NEIGHBOUR * own[at(before)];
            }
            before = Some(number);
        }
        for number in members.iter().map(|&number| at(number)).filter(|_| best > 0.0) {
            if full[number] > 0.0 {
                full[number] += CONVERSATION * (best - own[number]);
            }
        }
    }

    fn explain(&self, terms: &[String], view: &View, scores: &Scores, ranked: &[(f32, u32)]) -> Vec<Explain> {
        let mut places: Vec<(u32, usize)> = ranked.iter().enumerate().map(|(place, &(_, number))| (number, place)).collect();
        places.sort_unstable();
        let mut explained = vec![Explain::default(); ranked.len()];
        let mut seen = Vec::new();
        for term in terms {
            let Some(weigh) = self.weigher(term, view, &mut seen) else { continue };
            for &(number, place) in &places {
                if let Ok(i) = seen.binary_search_by_key(&number, |&(number, _)| number) {
                    let note = seen[i].1;
                    explained[place].terms.push(TermScore {
                        term: term.clone(),
                        score: weigh(number, note),
                        content_count: note & COUNT,
                        in_title: note & IN_TITLE != 0,
                        in_tags: note & IN_TAGS != 0,
                        in_speaker: note & IN_SPEAKER != 0,
                    });
                }
            }
        }
        for (explain, &(score, number)) in explained.iter_mut().zip(ranked) {
            let (neighbours, best) = self.company(number, view, &scores.own);
            (explain.neighbours, explain.conversation) = (NEIGHBOUR * neighbours, CONVERSATION * best);
            if explain.terms.iter().any(|term| term.in_speaker) {
                explain.speaker = score - score / SPOKEN;
            }
        }
        explained
    }

    /// The own scores of the turns beside `number`, summed, and the best of its conversation.
    fn company(&self, number: u32, view: &View, own: &[f32]) -> (f32, f32) {
        let turns: Vec<u32> = self.conversation(number).iter().copied().filter(|&n| view.sees(self, n)).collect();
        let Some(place) = turns.iter().position(|&n| n == number) else { return (0.0, own[at(number)]) };
        let beside = [place.checked_sub(1), Some(place + 1)].into_iter().flatten().filter_map(|p| turns.get(p));
        (beside.map(|&n| own[at(n)]).sum(), turns.iter().map(|&n| own[at(n)]).fold(0.0, f32::max))
    }
}

/// The count of a note, fields weighed.
fn weight(note: u8) -> f32 {
    let field = |bit: u8, weight: f32| if note & bit != 0 { weight } else { 0.0 };
    f32::from(note & COUNT) + field(IN_TITLE, TITLE) + field(IN_TAGS, TAGS) + field(IN_SPEAKER, SPEAKER)
}
