//! Literal substrings: which memories may contain a term, letter for letter.
//!
//! Promise: [`ScopeIndex::literal`] leaves out no memory whose title or content contains the term, ASCII letters compared without case; `%` and
//! `_` are ordinary characters. It may give some that do not, unless [`is_exact`]: the caller confirms with [`contains`] when it opens the record.
//!
//! Trigrams are taken over the UTF-8 bytes, ASCII folded. Each field ends in two bytes 0xff, which UTF-8 never has, so that every byte of it
//! begins one trigram and terms of one or two bytes are found as the beginnings of trigrams.

use super::scope::{ScopeIndex, Viewer, at};
use crate::base::id::MemoryId;
use crate::base::wipe::wipe;

/// Lists that are intersected for one term; more would cost more than opening what they rule out.
const LISTS_MAX: usize = 8;
/// As few candidates are not worth another list.
const FEW: usize = 16;

/// Whether `text` contains `term`, ASCII letters compared without case. An empty term is contained in nothing.
pub fn contains(text: &str, term: &str) -> bool {
    let (text, term) = (text.as_bytes(), term.as_bytes());
    let Some(&first) = term.first() else { return false };
    let first = [first.to_ascii_lowercase(), first.to_ascii_uppercase()];
    (0..(text.len() + 1).saturating_sub(term.len()))
        .any(|start| first.contains(&text[start]) && text[start..start + term.len()].eq_ignore_ascii_case(term))
}

/// Whether the candidates for `term` are just the memories that contain it, so that they can be counted without opening them.
pub fn is_exact(term: &str) -> bool {
    term.len() <= 3
}

/// Appends the trigrams of one field.
pub(super) fn trigrams(text: &str, out: &mut Vec<u32>) {
    let mut window = 0;
    for (i, byte) in text.bytes().map(|b| b.to_ascii_lowercase()).chain([0xff, 0xff]).enumerate() {
        window = (window << 8 | u32::from(byte)) & 0xff_ffff;
        if i >= 2 {
            out.push(window);
        }
    }
}

/// The trigram of a pair.
pub(super) fn high(pair: u64) -> u32 {
    u32::try_from(pair >> 32).expect("half of 64 bits")
}

/// The number of a pair.
pub(super) fn low(pair: u64) -> u32 {
    u32::try_from(pair & 0xffff_ffff).expect("half of 64 bits")
}

/// As few pairs are sorted by comparing.
const COMPARED_MAX: usize = 4096;
/// Bits of a trigram that one pass looks at.
const PASS_BITS: u32 = 12;

/// Sorts pairs of a trigram (24 bits, high) and a number (low) that come with their numbers ascending: two passes over all of them, which keep the
/// order of what is alike.
pub(super) fn sort(pairs: &mut Vec<u64>) {
    if pairs.len() <= COMPARED_MAX {
        return pairs.sort_unstable();
    }
    let mut other = vec![0; pairs.len()];
    for pass in 0..2 {
        let digit = |pair: u64| usize::try_from(pair >> (32 + pass * PASS_BITS) & ((1 << PASS_BITS) - 1)).expect("12 bits");
        let mut starts = vec![0usize; (1 << PASS_BITS) + 1];
        pairs.iter().for_each(|&pair| starts[digit(pair) + 1] += 1);
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        for &pair in &*pairs {
            let start = &mut starts[digit(pair)];
            other[*start] = pair;
            *start += 1;
        }
        std::mem::swap(pairs, &mut other);
    }
    wipe(&mut other);
}

impl ScopeIndex {
    /// Memories that may contain `term`, newest first. A blank term has none.
    pub fn literal(&self, term: &str, viewer: Viewer<'_>) -> Vec<MemoryId> {
        self.newest_first(self.literal_numbers(term, viewer)).into_iter().map(|number| self.id(number)).collect()
    }

    /// The same memories, most relevant to the words of `term` first, with their scores; equals newest first.
    pub fn literal_ranked(&self, term: &str, viewer: Viewer<'_>) -> Vec<(MemoryId, f32)> {
        let scores = self.relevance(term, viewer);
        let mut numbers = self.newest_first(self.literal_numbers(term, viewer));
        numbers.sort_by(|&a, &b| scores[at(b)].total_cmp(&scores[at(a)]));
        numbers.into_iter().map(|number| (self.id(number), scores[at(number)])).collect()
    }

    /// The numbers, ascending.
    fn literal_numbers(&self, term: &str, viewer: Viewer<'_>) -> Vec<u32> {
        if term.trim().is_empty() {
            return Vec::new();
        }
        let view = self.view(viewer);
        let mut numbers = match *term.to_ascii_lowercase().as_bytes() {
            [a] => self.with_beginning(u32::from(a) << 16, 0xff_0000),
            [a, b] => self.with_beginning(u32::from(a) << 16 | u32::from(b) << 8, 0xff_ff00),
            _ => self.with_all(term),
        };
        numbers.retain(|&number| view.sees(self, number));
        numbers
    }

    /// Numbers with any trigram that agrees with `beginning` under `mask`.
    fn with_beginning(&self, beginning: u32, mask: u32) -> Vec<u32> {
        let mut found = vec![false; self.class.len()];
        for (_, list) in self.trigrams.iter().filter(|(trigram, _)| **trigram & mask == beginning) {
            list.iter().for_each(|(number, _)| found[at(number)] = true);
        }
        (0u32..).zip(found).filter_map(|(number, found)| found.then_some(number)).collect()
    }

    /// Numbers with all of the rarest trigrams of `term`.
    fn with_all(&self, term: &str) -> Vec<u32> {
        let mut wanted = Vec::with_capacity(term.len() + 2);
        trigrams(term, &mut wanted);
        wanted.truncate(term.len() - 2);
        wanted.sort_unstable();
        wanted.dedup();
        let lists: Option<Vec<_>> = wanted.iter().map(|trigram| self.trigrams.get(trigram)).collect();
        let Some(mut lists) = lists else { return Vec::new() };
        lists.sort_unstable_by_key(|list| list.count());
        let mut numbers: Vec<u32> = lists[0].iter().map(|(number, _)| number).collect();
        for list in &lists[1..lists.len().min(LISTS_MAX)] {
            if numbers.len() <= FEW {
                break;
            }
            let mut other = list.iter().map(|(number, _)| number).peekable();
            numbers.retain(|&number| {
                while other.next_if(|&o| o < number).is_some() {}
                other.peek() == Some(&number)
            });
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containment_is_literal_and_folds_ascii_alone() {
        assert!(contains("Dose 50% of A_B", "50% OF a_b"));
        assert!(!contains("Dose 50x of AxB", "50% of A_B"));
        assert!(contains("Äpfel", "pfel") && contains("Äpfel", "Ä") && !contains("Äpfel", "ä"));
        assert!(!contains("abc", "") && !contains("", "a") && !contains("ab", "abc") && contains("ab", "AB"));
    }

    #[test]
    fn pairs_sort_alike_by_comparing_and_by_passes() {
        use crate::store::index::measure::Seeded;
        let mut seeded = Seeded(7);
        for count in [0, 1, COMPARED_MAX, COMPARED_MAX + 1, 50_000] {
            let mut pairs: Vec<u64> = (0..count as u64).map(|n| ((seeded.below(1 << 24) as u64) << 32) | (n / 500)).collect();
            let mut expected = pairs.clone();
            expected.sort();
            sort(&mut pairs);
            assert!(pairs == expected, "{count}");
        }
    }
}
