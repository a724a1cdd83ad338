//! Snippets: the passage of a memory that answers a query.
//!
//! Invariants
//! - The text is a passage of the content, with `…` where it was cut, and has at most the characters asked for.
//! - Highlights are ranges of characters (code points) of the snippet's text, ascending, apart from one another, each a word that the query names.
//! - Work is bounded by `limits::SNIPPET_SCAN_BYTES_MAX`; of a longer content the beginning is looked at.

use std::ops::Range;

use super::analyse;
use crate::base::limits;

/// A passage and the words in it that the query names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snippet {
    /// The passage.
    pub text: String,
    /// In characters (code points) of `text`.
    pub highlights: Vec<Range<usize>>,
}

/// A word of the content that the query names.
struct Found {
    /// Bytes of the content.
    range: Range<usize>,
    /// Characters of the content.
    chars: Range<usize>,
    /// Which terms of the query it gives, one bit each.
    terms: u64,
}

const _: () = assert!(limits::QUERY_TERMS_MAX <= 64);

/// The passage of `content` with the most distinct terms of `query`, then the most words named, then the first; at most `chars_max` characters.
/// Without a word of the query it is the beginning.
pub fn snippet(content: &str, query: &str, chars_max: usize) -> Snippet {
    let scanned = analyse::prefix(content, limits::SNIPPET_SCAN_BYTES_MAX);
    let found = find(scanned, &analyse::query(query));
    // Two characters are kept for the marks of a cut.
    let room = chars_max.saturating_sub(2);
    let best = best_window(&found, room);
    let hits = &found[best];
    let content_chars = scanned.chars().count();
    if content_chars <= chars_max && scanned.len() == content.len() {
        return cut(content, 0..content.len(), 0, &found);
    }
    // The window's words in the middle of the passage, as far as there is text on both sides.
    let (first, last) = hits.first().zip(hits.last()).map_or((0, 0), |(a, b)| (a.chars.start, b.chars.end));
    let slack = room.saturating_sub(last - first);
    let start = first.saturating_sub(slack / 2).min(content_chars.saturating_sub(room));
    let place = |chars: usize| scanned.char_indices().nth(chars).map_or(scanned.len(), |(at, _)| at);
    let (mut from, mut to) = (place(start), place(start + room));
    // Cut between words where a word ends near by.
    let (first, last) = hits.first().zip(hits.last()).map_or((to, from), |(a, b)| (a.range.start, b.range.end));
    if from > 0 && !scanned[..from].ends_with(char::is_whitespace) {
        from = scanned[from..first.max(from)].find(char::is_whitespace).map_or(from, |at| from + at);
    }
    if to < content.len() && !scanned[to..].starts_with(char::is_whitespace) {
        to = scanned[last.min(to)..to].rfind(char::is_whitespace).map_or(to, |at| last.min(to) + at);
    }
    let start = scanned[..from].chars().count();
    cut(content, from..to.max(from), start, hits)
}

/// The words of `text` that give one of `terms`, in reading order; overlapping ones are one.
fn find(text: &str, terms: &[String]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let (mut counted, mut chars) = (0, 0);
    analyse::tokens(text, |token| {
        let Some(term) = terms.iter().position(|term| term == token.term) else { return };
        let range = token.range;
        match found.last_mut().filter(|last| range.start < last.range.end) {
            Some(last) => {
                last.terms |= 1 << term;
                if range.end > last.range.end {
                    last.chars.end += text[last.range.end..range.end].chars().count();
                    last.range.end = range.end;
                }
            }
            None => {
                chars += text[counted..range.start].chars().count();
                counted = range.start;
                let end = chars + text[range.clone()].chars().count();
                found.push(Found { range, chars: chars..end, terms: 1 << term });
            }
        }
    });
    found
}

/// The run of `found` that fits `room` characters with the most distinct terms, then the most words.
fn best_window(found: &[Found], room: usize) -> Range<usize> {
    let mut best = (0, 0, 0..0);
    // How often each term is within the window, kept while it slides.
    let mut counts = [0u32; 64];
    let mut end = 0;
    for start in 0..found.len() {
        while end < found.len() && found[end].chars.end - found[start].chars.start <= room {
            bits(found[end].terms).for_each(|term| counts[term] += 1);
            end += 1;
        }
        let distinct = counts.iter().filter(|&&count| count > 0).count();
        if (distinct, end.saturating_sub(start)) > (best.0, best.1) {
            best = (distinct, end - start, start..end);
        }
        if end > start {
            bits(found[start].terms).for_each(|term| counts[term] -= 1);
        } else {
            end = start + 1;
        }
    }
    best.2
}

fn bits(mut terms: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (terms != 0).then(|| terms.trailing_zeros())?;
        terms &= terms - 1;
        usize::try_from(bit).ok()
    })
}

/// The passage `range` of `content`, which begins at character `start`, marked where it was cut.
fn cut(content: &str, range: Range<usize>, start: usize, found: &[Found]) -> Snippet {
    let passage = &content[range.clone()];
    let text = passage.trim();
    let led = passage.len() - passage.trim_start().len();
    let (from, to) = (range.start + led, range.start + led + text.len());
    let (before, after) = (!content[..from].trim().is_empty(), !content[to..].trim().is_empty());
    let shift = start + passage[..led].chars().count();
    let mark = |cut: bool| if cut { "…" } else { "" };
    let highlights = found
        .iter()
        .filter(|word| word.range.start >= from && word.range.end <= to)
        .map(|word| word.chars.start - shift + usize::from(before)..word.chars.end - shift + usize::from(before))
        .collect();
    Snippet { text: format!("{}{text}{}", mark(before), mark(after)), highlights }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(snippet: &Snippet) -> Vec<String> {
        snippet.highlights.iter().map(|range| snippet.text.chars().skip(range.start).take(range.len()).collect()).collect()
    }

    #[test]
    fn the_best_passage_is_cut_out_and_its_words_marked() {
        let content =
            format!("{}Ärztin: metformin was increased to 1000mg twice daily. {}", "Nothing here. ".repeat(40), "Later. ".repeat(40));
        let found = snippet(&content, "increase metformin 1000 mg", 60);
        assert!(found.text.starts_with('…') && found.text.ends_with('…'), "{}", found.text);
        assert!(found.text.chars().count() <= 60);
        assert_eq!(marked(&found), ["metformin", "increased", "1000mg"]);
    }

    #[test]
    fn without_a_match_it_is_the_beginning_and_a_short_content_is_whole() {
        let found = snippet(&"word ".repeat(100), "absent", 22);
        assert_eq!((found.text.as_str(), found.highlights.len()), ("word word word word…", 0));
        assert_eq!(
            snippet("  short note ", "note", 50),
            Snippet { text: "short note".into(), highlights: std::iter::once(6..10).collect() }
        );
        assert_eq!(snippet("", "note", 50), Snippet::default());
    }

    #[test]
    fn bounds_hold_for_any_text() {
        let texts = [
            "é".repeat(90_000),
            "aß ".repeat(30_000),
            "日本語 dose ".repeat(9000),
            "x ".repeat(3),
            "dose\u{301}s a-b-c 1a2b ".repeat(2000),
        ];
        for text in &texts {
            for chars_max in [0, 1, 2, 3, 7, 80, 300] {
                let found = snippet(text, "dose doses a-b 1a x 語 é", chars_max);
                assert!(found.text.chars().count() <= chars_max.max(2), "{chars_max}");
                assert!(found.highlights.is_sorted_by_key(|range| range.start));
                assert!(found.highlights.iter().all(|range| range.end <= found.text.chars().count()));
            }
        }
    }
}
