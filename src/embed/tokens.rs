//! Text to word pieces, as BERT's uncased tokenizer makes them: clean, lower, split at spaces and signs, then the longest known pieces of each word.
//!
//! Invariants
//! - At most the asked number of pieces comes out, `[CLS]` first and `[SEP]` last; text behind them is not read.
//! - Work is bounded by that number and by `limits::ENCODER_WORD_CHARS_MAX`: a longer word is `[UNK]`.
//! - What is kept of the text while it is read is wiped.
//!
//! Source: Devlin et al., "BERT" (2018), and the behaviour of its released tokenizer: control and format characters dropped, ideographs alone,
//! NFD without marks (`Mn`), lower case, each sign alone, then greedy longest match with `##` before what continues a word.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::unicode::{is_dropped, is_ideograph, is_mark, is_punctuation};
use crate::base::limits;

/// The known pieces and their numbers.
pub struct Vocabulary {
    pieces: HashMap<Box<str>, u32>,
    unknown: u32,
    begin: u32,
    end: u32,
    /// Bytes of the longest piece.
    longest: usize,
    /// Whether case and accents are folded.
    fold: bool,
}

/// What continues a word.
const CONTINUES: &str = "##";

impl Vocabulary {
    /// Of pieces in the order of their numbers; a repeated one keeps its first. `None` without the three pieces every text needs.
    pub fn new(pieces: Vec<Box<str>>, fold: bool) -> Option<Self> {
        let longest = pieces.iter().map(|piece| piece.len()).max()?;
        let mut numbers = HashMap::with_capacity(pieces.len());
        for (piece, number) in pieces.into_iter().zip(0u32..) {
            numbers.entry(piece).or_insert(number);
        }
        let special = |name: &str| numbers.get(name).copied();
        let (unknown, begin, end) = (special("[UNK]")?, special("[CLS]")?, special("[SEP]")?);
        Some(Self { pieces: numbers, unknown, begin, end, longest, fold })
    }

    /// The pieces of `text`, at most `most` (at least 2).
    pub fn pieces(&self, text: &str, most: usize) -> Zeroizing<Vec<u32>> {
        let room = most.saturating_sub(1).max(1);
        let mut found = Zeroizing::new(Vec::with_capacity(most));
        found.push(self.begin);
        let mut word = Zeroizing::new(String::with_capacity(4 * limits::ENCODER_WORD_CHARS_MAX));
        let (mut chars, mut lower) = (0, Zeroizing::new(String::with_capacity(16)));
        for c in text.chars().filter(|c| !is_dropped(*c)) {
            if found.len() >= room {
                break;
            }
            if c.is_whitespace() || is_ideograph(c) {
                self.end_word(&mut word, &mut chars, &mut found);
                if is_ideograph(c) {
                    self.add(&mut word, &mut chars, c);
                    self.end_word(&mut word, &mut chars, &mut found);
                }
                continue;
            }
            lower.clear();
            match self.fold {
                true => lower.extend(std::iter::once(c).nfd().filter(|c| !is_mark(*c)).flat_map(char::to_lowercase)),
                false => lower.push(c),
            }
            for c in lower.chars() {
                if is_punctuation(c) {
                    self.end_word(&mut word, &mut chars, &mut found);
                    self.add(&mut word, &mut chars, c);
                    self.end_word(&mut word, &mut chars, &mut found);
                } else {
                    self.add(&mut word, &mut chars, c);
                }
            }
        }
        self.end_word(&mut word, &mut chars, &mut found);
        found.truncate(room);
        found.push(self.end);
        found
    }

    /// Adds to the word under way; what exceeds the longest word is counted, not kept.
    fn add(&self, word: &mut String, chars: &mut usize, c: char) {
        *chars = chars.saturating_add(1);
        if *chars <= limits::ENCODER_WORD_CHARS_MAX {
            word.push(c);
        }
    }

    fn end_word(&self, word: &mut String, chars: &mut usize, found: &mut Vec<u32>) {
        if *chars > limits::ENCODER_WORD_CHARS_MAX {
            found.push(self.unknown);
        } else if *chars > 0 {
            self.split(word, found);
        }
        word.clear();
        *chars = 0;
    }

    /// The longest known piece, again and again; a word that does not come out whole is unknown as a whole.
    fn split(&self, word: &str, found: &mut Vec<u32>) {
        let (before, mut rest) = (found.len(), word);
        let mut piece = Zeroizing::new(String::with_capacity(CONTINUES.len() + self.longest));
        while !rest.is_empty() {
            let continues = rest.len() < word.len();
            let mut end = rest.len().min(self.longest);
            let known = loop {
                while !rest.is_char_boundary(end) {
                    end -= 1;
                }
                if end == 0 {
                    found.truncate(before);
                    found.push(self.unknown);
                    return;
                }
                let known = match continues {
                    false => self.pieces.get(&rest[..end]),
                    true => {
                        piece.clear();
                        piece.push_str(CONTINUES);
                        piece.push_str(&rest[..end]);
                        self.pieces.get(piece.as_str())
                    }
                };
                match known {
                    Some(number) => break *number,
                    None => end -= 1,
                }
            };
            found.push(known);
            rest = &rest[end..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "un", "##able", "##a", "\u{60a3}", "naive", "-", "?", "##ble", "e11"];
        Vocabulary::new(pieces.map(Box::from).into(), true).unwrap()
    }

    #[test]
    fn words_are_split_as_bert_splits_them() {
        let all = vocabulary();
        for (text, expected) in [
            ("", &[][..]),
            ("The THE the", &[4, 4, 4]),
            ("unable", &[5, 6]),
            ("unaable", &[5, 7, 6]),
            ("unknown", &[1]),
            ("na\u{ef}ve?", &[9, 11]),
            ("nai\u{308}ve", &[9]),
            ("the\u{60a3}the", &[4, 8, 4]),
            ("un-able", &[5, 10, 1]),
            ("t\u{200b}he\0\u{fffd} \u{a0}\tthe\n", &[4, 4]),
            ("E11", &[13]),
        ] {
            let mut whole = vec![2];
            whole.extend_from_slice(expected);
            whole.push(3);
            assert_eq!(*all.pieces(text, 64), whole, "{text:?}");
        }
        assert!(Vocabulary::new(vec!["[UNK]".into()], true).is_none());
    }

    #[test]
    fn what_is_too_long_is_cut_and_bounded() {
        let all = vocabulary();
        assert_eq!(*all.pieces(&"the ".repeat(1000), 5), [2, 4, 4, 4, 3]);
        assert_eq!(*all.pieces("unaable", 3), [2, 5, 3]);
        assert_eq!(*all.pieces("the", 2), [2, 3]);
        let long = "a".repeat(limits::ENCODER_WORD_CHARS_MAX + 1);
        assert_eq!(*all.pieces(&format!("{long} the"), 9), [2, 1, 4, 3]);
    }
}
