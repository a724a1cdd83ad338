//! Ranking: BM25 over words and their families, the company a memory keeps, and the time that is asked for.
//!
//! A memory's relevance is `own + sum of NEIGHBOURS[d] * own of the turns d before and d after + CONVERSATION * best own of its conversation`,
//! times `SPOKEN` if the query names its speaker, times `1 + NAMED_TIME * nearness` to the days, months or seasons the query names (`when`). `own`
//! is BM25 with a count that weighs fields, over the query's words and, for `FAMILY`, over what related words share (`analyse::family`). A memory
//! without a word of its own is a hit when turns beside it are: an answer often lacks the words of its question.
//!
//! A time that the query names is answered too: every memory of it gains `OF_TIME`, a hit without any word, below those with one. The words of
//! the time, and those that only ask (`analyse::asks`), then count `FAINT` in a memory that has nothing else of the query: `18 mg` is no answer to
//! `what happened on 18 November?`. One that says the whole time (`appointment on 18 November`) is. A query of nothing but such words takes
//! `since` and `until` for its time; with a word that names a thing they only choose among what answers: no hit means that there is none.
//!
//! Invariants
//! - Scores depend on what the viewer may see alone: the rarity of a word, the mean length, the turns beside and the conversation's best are those
//!   of the visible memories, so a score cannot tell an agent what hidden memories say.
//! - Equal scores: newer first, then the higher id; the same query on the same memories gives the same answer.
//!
//! Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009); the idf is Lucene's, never negative; K1 and B
//! are what is customary for passages. The other constants were chosen on conversations between people that are not among those the product is
//! measured by; what each is worth: docs/performance.md.

use std::cmp::Ordering;

use zeroize::Zeroizing;

use super::analyse;
use super::postings::{PLAIN, Postings};
use super::prepared::{COUNT, IN_SPEAKER, IN_TAGS, IN_TITLE};
use super::scope::{ScopeIndex, View, Viewer, at, real};
use super::when::Spans;
use crate::base::id::{MemoryId, SubjectId};
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::embed::Probe;

/// Saturation of repeated words.
const K1: f32 = 0.9;
/// How much longer memories are held back.
const B: f32 = 0.4;
/// What a word in these fields counts, beside 1 for each time in the content.
const TITLE: f32 = 2.0;
const TAGS: f32 = 2.0;
const SPEAKER: f32 = 1.0;
/// What a family of words counts beside a word.
const FAMILY: f32 = 0.4;
/// Shares of the scores of the turns one, two, … before and after.
const NEIGHBOURS: [f32; 4] = [0.25, 0.15, 0.1, 0.05];
/// Share of the best score in the conversation.
const CONVERSATION: f32 = 0.4;
/// What a speaker's being named in the query multiplies.
const SPOKEN: f32 = 1.75;
/// What meaning counts beside words, each by how far it stands out; by what was published of this fusion before this was written.
const MEANING: f32 = 1.5;
/// What a memory of the time that the query names gains, as a share.
const NAMED_TIME: f32 = 1.0;
/// What it gains whether or not it has a word of the query; less than nearly any word gives.
const OF_TIME: f32 = 0.01;
/// What words that name no thing count where nothing else of the query is: all of them together less than [`OF_TIME`].
const FAINT: f32 = 1e-6;

/// A ranked query. Filters choose among the hits; they change no score, but for what the module text says of `since` and `until`.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// Words in any order.
    pub text: &'a str,
    /// The vector of these words; without one, memories are found by words alone.
    pub probe: Option<&'a Probe>,
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
    /// For meaning much the same.
    pub meaning: f32,
    /// From the turns beside it.
    pub neighbours: f32,
    /// From its conversation.
    pub conversation: f32,
    /// For its speaker's name.
    pub speaker: f32,
    /// For being of the time that the query names.
    pub time: f32,
}

/// What one term of the query gave.
#[derive(Clone, PartialEq, Debug)]
pub struct TermScore {
    /// The term as it was looked up; a family of words ends in `*`.
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
    /// BM25 and meaning, without company.
    own: Vec<f32>,
    /// The share of words that name no thing; empty if the query names no time.
    share: Vec<f32>,
    /// The share of meaning in `own`; empty without a vector.
    meaning: Vec<f32>,
    /// With the company, the speaker and the time.
    full: Vec<f32>,
}

/// One thing of the query that the index knows.
struct Wanted<'a> {
    /// As it is explained.
    term: &'a str,
    family: bool,
    list: &'a Postings,
    /// Whether it names a thing.
    thing: bool,
    /// Whether it is one of `Words::date`.
    date: bool,
}

/// A query's words and families of words.
struct Words {
    terms: Zeroizing<Vec<String>>,
    families: Zeroizing<Vec<String>>,
    /// Those of both that name a thing.
    things: Zeroizing<Vec<String>>,
    /// Terms of the times it names, without the `th` of `18th`.
    date: Zeroizing<Vec<String>>,
}

impl Words {
    fn of(text: &str, spans: &Spans) -> Self {
        let (mut things, mut date) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
        let text = analyse::prefix(text, limits::QUERY_BYTES_MAX);
        analyse::tokens(text, |token| {
            let add = |list: &mut Vec<String>, term: &str| {
                if list.len() < 2 * limits::QUERY_TERMS_MAX && !list.iter().any(|known| known == term) {
                    list.push(term.to_owned());
                }
            };
            if !spans.hold(&token.range) {
                if !analyse::asks(token.word) {
                    add(&mut things, token.term);
                    analyse::family(token.word).into_iter().for_each(|family| add(&mut things, family));
                }
            } else if token.term.len() > 2 && token.term.bytes().all(|byte| byte.is_ascii_lowercase())
                || token.term.bytes().all(|byte| !byte.is_ascii_alphabetic())
            {
                add(&mut date, token.term);
            }
        });
        Self { terms: analyse::query(text), families: analyse::families(text), things, date }
    }

    /// Those that `index` has.
    fn wanted<'a>(&'a self, index: &'a ScopeIndex) -> Vec<Wanted<'a>> {
        let has = |list: &[String], term: &String| list.contains(term);
        let wanted = |term: &'a String, family, list| Wanted {
            term,
            family,
            list,
            thing: has(&self.things, term),
            date: !family && has(&self.date, term),
        };
        let words = self.terms.iter().filter_map(|term| Some(wanted(term, false, index.word(term)?)));
        let families = self.families.iter().filter_map(|term| Some(wanted(term, true, index.family(term)?)));
        words.chain(families).collect()
    }

    /// How many of [`Words::date`] a memory must have to say the time itself; a month's name alone says it too often.
    fn says(&self) -> u32 {
        let month = self.date.len() == 1 && self.date[0].bytes().all(|byte| byte.is_ascii_lowercase());
        if self.date.is_empty() || month { u32::MAX } else { u32::try_from(self.date.len()).unwrap_or(u32::MAX) }
    }
}

/// The time that is asked for.
#[derive(Default)]
struct Time {
    spans: Spans,
    /// `since` and `until` of a query that names nothing else.
    range: Option<(u64, u64)>,
}

impl Time {
    /// What multiplies the score of a memory of that moment, and what is added then.
    fn gain(&self, when: u64) -> (f32, f32) {
        let near = self.spans.nearness(when);
        let within = near >= 1.0 || self.range.is_some_and(|(since, until)| (since..=until).contains(&when));
        (1.0 + NAMED_TIME * near, if within { OF_TIME } else { 0.0 })
    }
}

impl ScopeIndex {
    /// The best `query.limit` memories, best first.
    pub fn search(&self, query: &Query<'_>) -> Vec<Hit> {
        let spans = Spans::of(query.text);
        let words = Words::of(query.text, &spans);
        let wanted_words = words.wanted(self);
        let view = self.view(query.viewer);
        let tagged = (!query.tags_any.is_empty()).then(|| self.tagged(query.tags_any));
        let (since, until) = (query.since.map_or(0, Timestamp::ms), query.until.map_or(u64::MAX, Timestamp::ms));
        let timed = query.since.is_some() || query.until.is_some();
        let only = words.things.is_empty() && (timed || !spans.is_empty());
        let time = Time { range: (only && spans.is_empty()).then_some((since, until)), spans };
        // What a time means is no thing to be like.
        let scores = self.scores(&wanted_words, words.says(), query.probe.filter(|_| !only), &time, &view);
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
            for (hit, explain) in hits.iter_mut().zip(self.explain(&wanted_words, &time, &view, &scores, &ranked)) {
                hit.explain = Some(explain);
            }
        }
        hits
    }

    /// By number: relevance to `text`; 0 where the viewer may not look.
    pub(super) fn relevance(&self, text: &str, viewer: Viewer<'_>) -> Vec<f32> {
        let (words, view) = (Words::of(text, &Spans::default()), self.view(viewer));
        self.scores(&words.wanted(self), u32::MAX, None, &Time::default(), &view).full
    }

    /// Better first; equals newer first, then the higher id.
    pub(super) fn rank_order(&self, a: (f32, u32), b: (f32, u32)) -> Ordering {
        b.0.total_cmp(&a.0).then_with(|| self.age(b.1).cmp(&self.age(a.1)))
    }

    fn scores(&self, words: &[Wanted<'_>], says: u32, probe: Option<&Probe>, time: &Time, view: &View) -> Scores {
        let mut own = vec![0.0; self.class.len()];
        // What words that name no thing give, and how many of a date are there.
        let mut aside = if time.spans.is_empty() { Vec::new() } else { vec![(0.0, 0); own.len()] };
        let (mut seen, mut spoken) = (Vec::new(), Vec::new());
        for word in words {
            let Some(weigh) = self.weigher(word, view, &mut seen) else { continue };
            for &(number, note) in &seen {
                let score = weigh(number, note);
                match aside.get_mut(at(number)) {
                    Some((sum, said)) => {
                        *said += u32::from(word.date);
                        *if word.thing { &mut own[at(number)] } else { sum } += score;
                    }
                    None => own[at(number)] += score,
                }
                if note & IN_SPEAKER != 0 && !word.family {
                    spoken.push(number);
                }
            }
        }
        // Once, however many of its speaker's names the query has.
        spoken.sort_unstable();
        spoken.dedup();
        let share = |own: f32, said| if own > 0.0 || said >= says { 1.0 } else { FAINT };
        let share: Vec<f32> = own.iter().zip(&aside).map(|(&own, &(_, said))| share(own, said)).collect();
        own.iter_mut().zip(&aside).zip(&share).for_each(|((own, (sum, _)), share)| *own += sum * share);
        let meaning = probe.map_or(Vec::new(), |probe| self.meaning(probe, &own, view));
        own.iter_mut().zip(&meaning).for_each(|(own, meaning)| *own += meaning);
        // A memory without company is the best of its own conversation.
        let mut full: Vec<f32> = own.iter().map(|own| own * (1.0 + CONVERSATION)).collect();
        let mut turns = Vec::new();
        for members in &self.conversations {
            self.add_company(members, view, &own, &mut full, &mut turns);
        }
        for &number in &spoken {
            full[at(number)] *= SPOKEN;
        }
        if !time.spans.is_empty() || time.range.is_some() {
            for (number, score) in (0u32..).zip(&mut full).filter(|&(number, _)| view.sees(self, number)) {
                let (factor, more) = time.gain(self.when(number));
                *score = *score * factor + more;
            }
        }
        Scores { own, share, meaning, full }
    }

    /// By number: what meaning adds to the scores of the words. In units of the spread of those scores, so that neither drowns the other; only
    /// what stands out from the other memories in sight counts.
    fn meaning(&self, probe: &Probe, own: &[f32], view: &View) -> Vec<f32> {
        let mut cosines: Vec<(u32, f32)> = Vec::new();
        self.vectors.cosines(probe, |number, cosine| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            if view.sees(self, number) {
                cosines.push((number, cosine));
            }
        });
        let (mean, spread) = spread(cosines.iter().map(|&(_, cosine)| cosine));
        let seen = (0u32..).zip(own).filter(|&(number, _)| view.sees(self, number)).map(|(_, own)| *own);
        let unit = match self::spread(seen).1 {
            0.0 => 1.0,
            words => words,
        };
        let mut meaning = vec![0.0; own.len()];
        if spread > 0.0 {
            for (number, cosine) in cosines {
                let above = (cosine - mean) / spread;
                if above > 0.0 {
                    meaning[at(number)] = MEANING * unit * above;
                }
            }
        }
        meaning
    }

    /// The visible postings of `word` into `seen`, and what each of them scores. `None` if there are none.
    fn weigher(&self, word: &Wanted<'_>, view: &View, seen: &mut Vec<(u32, u8)>) -> Option<impl Fn(u32, u8) -> f32 + '_> {
        seen.clear();
        seen.extend(word.list.iter().filter(|&(number, _)| view.sees(self, number)));
        if seen.is_empty() {
            return None;
        }
        let found = real(u64::try_from(seen.len()).unwrap_or(u64::MAX));
        let rarity = (1.0 + (real(view.docs.into()) - found + 0.5) / (found + 0.5)).ln() * if word.family { FAMILY } else { 1.0 };
        let (fixed, by_length) = (K1 * (1.0 - B), K1 * B / view.mean_length);
        Some(move |number: u32, note: u8| {
            let count = if note == PLAIN { 1.0 } else { weight(note) };
            rarity * count * (K1 + 1.0) / (count + fixed + by_length * f32::from(self.length[at(number)]))
        })
    }

    /// Adds to the visible members of one conversation what they owe to the others. `members` are in the order of time; `turns` is scratch.
    fn add_company(&self, members: &[u32], view: &View, own: &[f32], full: &mut [f32], turns: &mut Vec<(u32, f32)>) {
        turns.clear();
        turns.extend(members.iter().filter(|&&number| view.sees(self, number)).map(|&number| (number, own[at(number)])));
        let best = turns.iter().map(|&(_, own)| own).fold(0.0, f32::max);
        if best <= 0.0 {
            return;
        }
        for (place, &(number, own)) in turns.iter().enumerate() {
            let company = beside(turns, place);
            if own > 0.0 || company > 0.0 {
                full[at(number)] += company + CONVERSATION * (best - own);
            }
        }
    }

    fn explain(&self, words: &[Wanted<'_>], time: &Time, view: &View, scores: &Scores, ranked: &[(f32, u32)]) -> Vec<Explain> {
        let mut places: Vec<(u32, usize)> = ranked.iter().enumerate().map(|(place, &(_, number))| (number, place)).collect();
        places.sort_unstable();
        let mut explained = vec![Explain::default(); ranked.len()];
        let mut seen = Vec::new();
        for word in words {
            let Some(weigh) = self.weigher(word, view, &mut seen) else { continue };
            for &(number, place) in &places {
                if let Ok(i) = seen.binary_search_by_key(&number, |&(number, _)| number) {
                    let note = seen[i].1;
                    let share = scores.share.get(at(number)).filter(|_| !word.thing).copied().unwrap_or(1.0);
                    explained[place].terms.push(TermScore {
                        term: if word.family { format!("{}*", word.term) } else { word.term.to_owned() },
                        score: weigh(number, note) * share,
                        content_count: note & COUNT,
                        in_title: note & IN_TITLE != 0,
                        in_tags: note & IN_TAGS != 0,
                        in_speaker: note & IN_SPEAKER != 0,
                    });
                }
            }
        }
        for (explain, &(score, number)) in explained.iter_mut().zip(ranked) {
            let (factor, more) = time.gain(self.when(number));
            let timeless = (score - more) / factor;
            explain.time = score - timeless;
            // A hit for its time alone owes nothing to its company.
            if timeless <= 0.0 {
                continue;
            }
            let (neighbours, best) = self.company(number, view, &scores.own);
            explain.meaning = scores.meaning.get(at(number)).copied().unwrap_or(0.0);
            (explain.neighbours, explain.conversation) = (neighbours, CONVERSATION * best);
            if explain.terms.iter().any(|term| term.in_speaker && !term.term.ends_with('*')) {
                explain.speaker = timeless - timeless / SPOKEN;
            }
        }
        explained
    }

    /// What `number` owes to the turns beside it, and the best of its conversation.
    fn company(&self, number: u32, view: &View, own: &[f32]) -> (f32, f32) {
        let seen = self.conversation(number).iter().filter(|&&n| view.sees(self, n));
        let turns: Vec<(u32, f32)> = seen.map(|&n| (n, own[at(n)])).collect();
        let Some(place) = turns.iter().position(|&(n, _)| n == number) else { return (0.0, own[at(number)]) };
        (beside(&turns, place), turns.iter().map(|&(_, own)| own).fold(0.0, f32::max))
    }
}

/// Mean and standard deviation; zeros for none. In whole steps, so that the order of the values makes no difference.
fn spread(values: impl Iterator<Item = f32>) -> (f32, f32) {
    const STEPS: f64 = 65_536.0;
    let (mut count, mut sum, mut squares) = (0u64, 0i64, 0i128);
    for value in values {
        #[allow(clippy::cast_possible_truncation, clippy::as_conversions)]
        let steps = (f64::from(value) * STEPS).round() as i64;
        (count, sum, squares) = (count + 1, sum.saturating_add(steps), squares.saturating_add(i128::from(steps) * i128::from(steps)));
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::as_conversions)]
    {
        let count = count.max(1) as f64;
        let mean = sum as f64 / count / STEPS;
        let variance = squares as f64 / count / STEPS / STEPS - mean * mean;
        (mean as f32, variance.max(0.0).sqrt() as f32)
    }
}

/// What the turn at `place` owes to those beside it.
fn beside(turns: &[(u32, f32)], place: usize) -> f32 {
    let own = |place: Option<usize>| place.and_then(|place| turns.get(place)).map_or(0.0, |&(_, own)| own);
    NEIGHBOURS.iter().zip(1..).map(|(share, far)| share * (own(place.checked_sub(far)) + own(Some(place + far)))).sum()
}

/// The count of a note, fields weighed.
fn weight(note: u8) -> f32 {
    let field = |bit: u8, weight: f32| if note & bit != 0 { weight } else { 0.0 };
    f32::from(note & COUNT) + field(IN_TITLE, TITLE) + field(IN_TAGS, TAGS) + field(IN_SPEAKER, SPEAKER)
}
