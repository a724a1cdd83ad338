//! Time expressions of a query: the days, months and seasons that it names.
//!
//! Promise: [`Spans::of`] reads what [`Spans::nearness`] then tells of a moment; a query that names no time has no spans, and changes nothing.
//!
//! Understood, in English: `5 May 2024`, `5th of May`, `May 5, 2024`, `2024-05-05`, `05.05.2024` (a day); `May 2024`, `in May` (a month);
//! `summer of 2024` (three months, northern). Without a year every year is meant. Days are of UTC: what is up to a day off counts half.
//!
//! Invariants
//! - Work and spans are bounded by `limits::QUERY_BYTES_MAX` and [`EXPRESSIONS_MAX`].
//! - Nearness is of the query and the moment alone: no other memory, however odd its time, changes it.
//! - No part of the text is copied.

use std::ops::Range;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan as _};

use super::analyse;
use crate::base::limits;

/// Expressions read from one query.
const EXPRESSIONS_MAX: usize = 8;
/// What is this near to a span counts half.
const DAY_MS: u64 = 86_400_000;

const MONTHS: [&str; 12] =
    ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];
/// With the number of their first month.
const SEASONS: [(&str, i8); 5] = [("spring", 3), ("summer", 6), ("autumn", 9), ("fall", 9), ("winter", 12)];
/// Before a month's name that is a common word too, or short.
const BEFORE_MONTHS: [&str; 14] =
    ["in", "of", "on", "during", "since", "until", "till", "last", "next", "early", "late", "mid", "before", "after"];

/// Spans of time.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Spans {
    spans: Vec<Named>,
    /// Bytes of the text that name them and nothing else.
    places: Vec<Range<usize>>,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    /// In ms since 1970.
    Once(Range<u64>),
    /// Month, and day unless the whole month is meant.
    EachYear(i8, Option<i8>),
}

impl Named {
    /// Whether it holds a moment, which lies on `date`.
    fn contains(&self, at: u64, date: Option<Date>) -> bool {
        match self {
            Self::Once(span) => span.contains(&at),
            Self::EachYear(month, day) => date.is_some_and(|date| date.month() == *month && day.is_none_or(|day| date.day() == day)),
        }
    }
}

/// One word or number of the query, and whether nothing but marks of a date stand between it and the one before.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    gap: &'a str,
    /// Where it begins.
    at: usize,
}

/// A time as it is named.
struct Expression {
    /// Pieces that it takes.
    length: usize,
    /// Its first month and day.
    from: (i8, i8),
    lasts: Span,
    year: Option<i16>,
    /// A month's name by itself, which may be somebody's (April, June).
    bare: bool,
}

impl Spans {
    /// What `text` names.
    pub fn of(text: &str) -> Self {
        let pieces = pieces(analyse::prefix(text, limits::QUERY_BYTES_MAX));
        let (mut found, mut at) = (Self::default(), 0);
        while at < pieces.len() && found.spans.len() < EXPRESSIONS_MAX {
            let Some(expression) = expression(&pieces[at..], at.checked_sub(1).map(|before| pieces[before].text)) else {
                at += 1;
                continue;
            };
            let (from, last) = (at, at + expression.length - 1);
            at += expression.length;
            if let Some(named) = expression.named() {
                found.spans.push(named);
                if !expression.bare {
                    found.places.push(pieces[from].at..pieces[last].at + pieces[last].text.len());
                }
            }
        }
        found
    }

    /// Whether the query names no time.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether what stands there in the text is part of a time that it names.
    pub fn hold(&self, range: &Range<usize>) -> bool {
        self.places.iter().any(|place| place.start < range.end && range.start < place.end)
    }

    /// 1 within a span, half within a day of one, else 0.
    pub fn nearness(&self, at: u64) -> f32 {
        let yearly = self.spans.iter().any(|span| matches!(span, Named::EachYear(..)));
        let within = |at: u64| {
            let date = if yearly { date(at) } else { None };
            self.spans.iter().any(|span| span.contains(at, date))
        };
        if within(at) {
            1.0
        } else if within(at.saturating_add(DAY_MS)) || at.checked_sub(DAY_MS).is_some_and(within) {
            0.5
        } else {
            0.0
        }
    }
}

impl Expression {
    /// The time it names; `None` if there is no such day.
    fn named(&self) -> Option<Named> {
        let (month, day) = self.from;
        // A leap year has every day that any year has.
        let span = range(self.year.unwrap_or(2000), self.from, self.lasts)?;
        Some(match self.year {
            Some(_) => Named::Once(span),
            None => Named::EachYear(month, (self.lasts.get_months() == 0).then_some(day)),
        })
    }
}

/// Words and numbers of ASCII with what stands before each; `th` and its like, where they follow a number, are left out.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let (mut rest, mut ended) = (0, 0);
    while let Some(start) = text[rest..].find(|c: char| c.is_ascii_alphanumeric()).map(|start| rest + start) {
        let digits = text.as_bytes()[start].is_ascii_digit();
        let same = |c: char| if digits { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
        let end = text[start..].find(|c| !same(c)).map_or(text.len(), |end| start + end);
        let (word, gap) = (&text[start..end], &text[ended..start]);
        let ordinal =
            gap.is_empty() && pieces.last().is_some_and(|last| number(last.text).is_some()) && named(word, &["st", "nd", "rd", "th"]);
        if !ordinal {
            pieces.push(Piece { text: word, gap, at: start });
        }
        (rest, ended) = (end, end);
    }
    pieces
}

/// The expression that `pieces` begin with; `before` is the word before them.
fn expression(pieces: &[Piece<'_>], before: Option<&str>) -> Option<Expression> {
    let found = |length, from, lasts, year| Some(Expression { length, from, lasts, year, bare: false });
    let follows = |at: usize| pieces.get(at).filter(|piece| piece.gap.len() <= 3 && piece.gap.chars().all(|c| " ,.-/".contains(c)));
    let word = |at: usize| follows(at).map(|piece| piece.text);
    let joined = |mark: &str| [1, 2].iter().all(|&at| follows(at).is_some_and(|piece| piece.gap == mark));
    let year_at = |at: usize| word(at).and_then(a_year);
    let first = pieces.first()?.text;
    let numbers = || Some([number(first)?, number(word(1)?)?, number(word(2)?)?]);
    if (joined("-") || joined("."))
        && let Some([a, b, c]) = numbers()
    {
        let (year, month, day) = if joined("-") { (a_year(first)?, b, c) } else { (a_year(word(2)?)?, b, a) };
        return found(3, (i8::try_from(month).ok()?, i8::try_from(day).ok()?), 1.day(), Some(year));
    }
    if let Some(day) = number(first).and_then(|day| i8::try_from(day).ok()).filter(|day| (1..=31).contains(day)) {
        let at = if named(word(1)?, &["of"]) { 2 } else { 1 };
        let month = month(word(at)?)?;
        let year = year_at(at + 1);
        return found(at + 1 + usize::from(year.is_some()), (month, day), 1.day(), year);
    }
    let skip = |at: usize| at + usize::from(word(at).is_some_and(|word| named(word, &["of"])));
    if let Some(month) = month(first) {
        if let Some(day) = word(1).filter(|text| text.len() < 3).and_then(number).and_then(|day| i8::try_from(day).ok()) {
            let year = year_at(2);
            return found(2 + usize::from(year.is_some()), (month, day), 1.day(), year);
        }
        let year = year_at(skip(1));
        let plain = first.len() > 3 && !named(first, &["march", "may"]);
        let told = year.is_some() || before.is_some_and(|before| named(before, &BEFORE_MONTHS));
        let found = found(year.map_or(1, |_| skip(1) + 1), (month, 1), 1.month(), year);
        return found.filter(|_| told || plain).map(|expression| Expression { bare: !told, ..expression });
    }
    let (_, month) = SEASONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(first))?;
    let year = year_at(skip(1))?;
    found(skip(1) + 1, (*month, 1), 3.months(), Some(year))
}

fn range(year: i16, (month, day): (i8, i8), lasts: Span) -> Option<Range<u64>> {
    let from = Date::new(year, month, day).ok()?;
    let ms = |date: Date| u64::try_from(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond()).ok();
    Some(ms(from)?..ms(from.checked_add(lasts).ok()?)?)
}

fn named(word: &str, names: &[&str]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(word))
}

/// The month of a name, or of its first three letters (`sept` too).
fn month(word: &str) -> Option<i8> {
    let is = |name: &&str| name.eq_ignore_ascii_case(word) || name[..3].eq_ignore_ascii_case(word);
    let place = if named(word, &["sept"]) { Some(8) } else { MONTHS.iter().position(is) };
    i8::try_from(place? + 1).ok()
}

/// A number of at most four digits.
fn number(word: &str) -> Option<i16> {
    if word.len() > 4 || !word.bytes().all(|b| b.is_ascii_digit()) { None } else { word.parse().ok() }
}

fn a_year(word: &str) -> Option<i16> {
    number(word).filter(|year| word.len() == 4 && (1900..2200).contains(year))
}

/// The day of UTC that `ms` lies in.
fn date(ms: u64) -> Option<Date> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(TimeZone::UTC.to_datetime(at).date())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;

    fn ms(day: &str) -> u64 {
        Timestamp::parse(&format!("{day}T00:00:00Z")).unwrap().ms()
    }

    fn spans(text: &str) -> Vec<(String, String)> {
        let day = |ms| Timestamp::from_ms(ms).to_string()[..10].to_owned();
        let once = |span| if let Named::Once(span) = span { (day(span.start), day(span.end)) } else { panic!("no year in {text}") };
        Spans::of(text).spans.into_iter().map(once).collect()
    }

    #[test]
    fn days_months_and_seasons_are_read() {
        for (text, from, to) in [
            ("Where was she on 29 Dec 2023?", "2023-12-29", "2023-12-30"),
            ("the 5th of May, 2023", "2023-05-05", "2023-05-06"),
            ("on May 3rd, 2023", "2023-05-03", "2023-05-04"),
            ("before 10.01.2024 with", "2024-01-10", "2024-01-11"),
            ("2024-02-29", "2024-02-29", "2024-03-01"),
            ("in December 2023", "2023-12-01", "2024-01-01"),
            ("Sept. 2023", "2023-09-01", "2023-10-01"),
            ("the summer of 2023", "2023-06-01", "2023-09-01"),
            ("winter 2023", "2023-12-01", "2024-03-01"),
        ] {
            assert_eq!(spans(text), [(from.to_owned(), to.to_owned())], "{text}");
        }
        assert_eq!(spans("June 2023 and July 2023").len(), 2);
    }

    #[test]
    fn without_a_year_every_year_is_meant() {
        for (text, day, near) in [
            ("in May", "1970-05-01", 1.0),
            ("in May", "2206-05-31", 1.0),
            ("in May", "2026-04-30", 0.5),
            ("in May", "2026-06-01", 0.5),
            ("in May", "2026-06-02", 0.0),
            ("on July 4", "2023-07-04", 1.0),
            ("on July 4", "2024-07-03", 0.5),
            ("on July 4", "2024-07-06", 0.0),
            ("on 29 February", "2024-02-29", 1.0),
            ("on 29 February", "2023-03-01", 0.0),
            ("on 31 December", "2024-01-01", 0.5),
            ("on 1 January", "1970-01-01", 1.0),
            ("on 31 December", "1970-01-01", 0.0),
            ("in June and July", "2024-06-15", 1.0),
        ] {
            assert!((Spans::of(text).nearness(ms(day)) - near).abs() < f32::EPSILON, "{text}, {day}");
        }
    }

    #[test]
    fn what_is_no_time_is_not_taken_for_one() {
        for text in [
            "",
            "may I march with her",
            "31 February 2023",
            "summer",
            "12 may be enough",
            "5mg of 2.5",
            "room 2024",
            "the fall",
            "version 1.2.3",
            "99.99.2024",
            "1.1.1",
            "Mar is my friend",
            "2024-13-01",
            "May 77",
            "é5é",
            "10.01.20245",
            "December 1850s' 4000000000",
            "31 February",
        ] {
            let found = Spans::of(text);
            assert!(found.is_empty() || text.starts_with("12 may") || text.starts_with("December"), "{text}: {found:?}");
        }
        // A hostile query is bounded work and few spans.
        let many = "in May ".repeat(10_000);
        assert_eq!(Spans::of(&many).spans.len(), EXPRESSIONS_MAX);
    }

    #[test]
    fn the_words_of_a_time_are_known_by_their_place() {
        for (text, held) in [
            ("falls on the 5th of May, 2024 é", "5th May 2024"),
            ("é May 5th and 18 mg", "May 5th"),
            ("Summer of 2024 and in June", "Summer 2024 June"),
            ("on 2024-05-05 or 05.05.2024", "2024 05 2024-05-05 05.05.2024"),
            ("31 February", ""),
            ("April is allergic, as June 2024 showed", "June 2024"),
        ] {
            let spans = Spans::of(text);
            let mut found = Vec::new();
            analyse::words(text, |range, word| {
                if spans.hold(&range) && !["of", "th", "5"].contains(&word) {
                    found.push(text[range].to_owned());
                }
            });
            found.dedup();
            assert_eq!(found.join(" "), held, "{text}");
        }
    }

    #[test]
    fn nearness_is_full_within_half_beside_and_none_elsewhere() {
        let spans = Spans::of("2024-01-10");
        for (day, near) in [("2024-01-08", 0.0), ("2024-01-09", 0.5), ("2024-01-10", 1.0), ("2024-01-11", 0.5), ("2024-01-12", 0.0)] {
            assert!((spans.nearness(ms(day)) - near).abs() < f32::EPSILON, "{day}");
        }
        assert!(Spans::of("no time").is_empty());
    }
}
