//! Text to terms: what the index and a query agree to call the same word.
//!
//! Promise: index and query pass through the one function [`tokens`], so a word finds itself however it is spelled in Unicode.
//!
//! Invariants
//! - A term is never empty and never longer than `limits::TERM_BYTES_MAX`.
//! - A token's range lies on character boundaries of the text it came from.
//! - Work is linear in the text.
//! - What is kept of the text while it is read is wiped; the stemmer's own copies of single words are not.
//!
//! Steps: words by UAX 29; compatibility forms, case and Latin, Greek and Cyrillic diacritics folded (`Ångström` = `angstrom`); plain
//! English words stemmed (Snowball English). Codes and quantities give the whole and its parts, so that each spelling finds the other:
//!
//! | text | terms |
//! |---|---|
//! | `HbA1c` | `hba1c` `hba` `1` `c` |
//! | `2.5mg` | `2.5mg` `2.5` `mg` |
//! | `E11.9` | `e11.9` `e` `11.9` `e11` |
//! | `B-12` | `b` `12` `b12` |
//! | `120/80` | `120` `80` `120/80` |
//! | `follow-ups` | `follow` `up` `followup` |
//! | `1,000` | `1000` |
//! | `2,5mg` | `2.5mg` `2.5` `mg` |
//! | `10⁹` | `10` `9` |

use std::ops::Range;
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;
use zeroize::Zeroizing;

use crate::base::limits;

/// Letters of a [`family`].
const FAMILY_CHARS: usize = 6;

static STEMMER: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::English));

/// One term and where it was read.
pub struct Token<'a> {
    /// Bytes of the text that gave the term.
    pub range: Range<usize>,
    /// The folded word, before stemming.
    pub word: &'a str,
    /// What is looked up.
    pub term: &'a str,
}

/// Calls `each` for every term of `text`, in reading order; a compound follows its parts.
pub fn tokens(text: &str, mut each: impl FnMut(Token<'_>)) {
    words(text, |range, word| stemmed(word, |term| each(Token { range, word, term })));
}

/// The term of a folded word: its stem if it is plain English letters, else itself.
pub fn stemmed<T>(word: &str, take: impl FnOnce(&str) -> T) -> T {
    if word.len() > 2 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'\'') {
        let stem = STEMMER.stem(word);
        if !stem.is_empty() {
            return take(&stem);
        }
    }
    take(word)
}

/// Calls `each` for every folded word of `text` with the bytes that gave it, as [`tokens`] does before stemming.
pub fn words(text: &str, mut each: impl FnMut(Range<usize>, &str)) {
    // The compound under way (`B-12`), how many words it has, and where it began.
    let mut compound = Zeroizing::new(String::with_capacity(2 * limits::TERM_BYTES_MAX));
    let (mut parts, mut begun, mut ended) = (0, 0, 0);
    let mut word = Zeroizing::new(String::with_capacity(4 * limits::TERM_BYTES_MAX));
    for (at, raw) in text.unicode_word_indices() {
        fold(raw, &mut word);
        if word.is_empty() {
            continue;
        }
        let joint = if parts == 0 { None } else { joint(&text[ended..at], &compound, &word) };
        if let Some(joint) = joint.filter(|_| compound.len() + word.len() < limits::TERM_BYTES_MAX) {
            compound.push_str(joint);
            parts += 1;
        } else {
            if parts > 1 {
                each(begun..ended, &compound);
            }
            compound.clear();
            (parts, begun) = (1, at);
        }
        compound.push_str(&word);
        ended = at + raw.len();
        single(at..ended, &word, &mut each);
    }
    if parts > 1 {
        each(begun..ended, &compound);
    }
}

/// What related words share where stemming leaves them apart (`allergy`, `allergic`; `surgeon`, `surgery`… `photographs`, `photography`): the first
/// letters of a plain word that has at least as many. `None` for short words, codes and numbers.
pub fn family(word: &str) -> Option<&str> {
    let (end, _) = word.char_indices().nth(FAMILY_CHARS).unwrap_or((word.len(), ' '));
    let head = &word[..end];
    (head.chars().count() == FAMILY_CHARS && head.chars().all(char::is_alphabetic)).then_some(head)
}

/// The distinct families of a query's words in reading order, at most `limits::QUERY_TERMS_MAX`.
pub fn families(text: &str) -> Zeroizing<Vec<String>> {
    let mut found = Zeroizing::new(Vec::new());
    words(prefix(text, limits::QUERY_BYTES_MAX), |_, word| {
        if let Some(family) = family(word).filter(|_| STOP_WORDS.binary_search(&word).is_err())
            && found.len() < limits::QUERY_TERMS_MAX
            && !found.iter().any(|known| known == family)
        {
            found.push(family.to_owned());
        }
    });
    found
}

/// The distinct terms of a query in reading order, at most `limits::QUERY_TERMS_MAX`. Stop words are left out unless there is nothing else.
pub fn query(text: &str) -> Zeroizing<Vec<String>> {
    let text = prefix(text, limits::QUERY_BYTES_MAX);
    let (mut terms, mut stops) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
    tokens(text, |token| {
        let list = if STOP_WORDS.binary_search(&token.word).is_ok() { &mut stops } else { &mut terms };
        if list.len() < limits::QUERY_TERMS_MAX && !list.iter().any(|known| known == token.term) {
            list.push(token.term.to_owned());
        }
    });
    if terms.is_empty() { stops } else { terms }
}

/// Whether a folded word names no thing: a stop word, or one that only asks (`what happened`, `anything new`).
pub fn asks(word: &str) -> bool {
    STOP_WORDS.binary_search(&word).is_ok() || ASKING.binary_search(&word).is_ok()
}

/// The whole characters within the first `bytes_max` bytes of `text`.
pub fn prefix(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// What joins two words into a compound: a hyphen (dropped), or a slash between numbers (kept).
fn joint(between: &str, left: &str, right: &str) -> Option<&'static str> {
    match between {
        "-" | "\u{2010}" | "\u{2011}" => Some(""),
        "/" if left.ends_with(|c: char| c.is_ascii_digit()) && right.starts_with(|c: char| c.is_ascii_digit()) => Some("/"),
        _ => None,
    }
}

/// One UAX 29 word: itself, and its parts if it is a code, a quantity or an `identifier_name`.
fn single(range: Range<usize>, word: &str, each: &mut impl FnMut(Range<usize>, &str)) {
    each(range.clone(), word);
    let (digits, letters) = (word.contains(|c: char| c.is_numeric()), word.contains(char::is_alphabetic));
    if !letters || !(digits || word.contains('_')) {
        return;
    }
    // Runs of one kind; a point between digits belongs to its number.
    let kind = |c: char| if c.is_numeric() { 1 } else { 2 * u8::from(c.is_alphabetic()) };
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let mut end = rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len());
        while kind(first) == 1 && rest[end..].starts_with('.') && rest[end + 1..].starts_with(char::is_numeric) {
            end = rest[end + 1..].find(|c| kind(c) != 1).map_or(rest.len(), |more| end + 1 + more);
        }
        if kind(first) != 0 {
            each(range.clone(), &rest[..end]);
        }
        rest = &rest[end..];
    }
    // The category of a code: `e11` of `e11.9`.
    if let Some((category, _)) = word.split_once('.').filter(|(head, _)| digits && kind(head.chars().next().unwrap_or('.')) == 2) {
        each(range, category);
    }
}

/// `raw` with compatibility forms, case and diacritics folded, cut to the length of a term.
fn fold(raw: &str, out: &mut String) {
    out.clear();
    if raw.is_ascii() {
        out.extend(raw.bytes().take(limits::TERM_BYTES_MAX).map(|b| char::from(b.to_ascii_lowercase())));
    } else {
        // One character can become 18 under NFKD; the input is cut first so that the work is bounded.
        let raw = prefix(raw, 4 * limits::TERM_BYTES_MAX);
        let bare = raw.nfkd().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).nfc().flat_map(char::to_lowercase);
        for c in bare {
            match c {
                'ß' => out.push_str("ss"),
                'æ' => out.push_str("ae"),
                'œ' => out.push_str("oe"),
                'ø' => out.push('o'),
                'ł' => out.push('l'),
                'đ' | 'ð' => out.push('d'),
                'þ' => out.push_str("th"),
                'ı' => out.push('i'),
                'ς' => out.push('σ'),
                '\u{2019}' => out.push('\''),
                // `İ` in lower case carries a mark of its own.
                '\u{300}'..='\u{36f}' => {}
                // Where a word may be broken, how its letters join and which way it runs: nobody sees them, and nobody types them into a query.
                '\u{ad}' | '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}' => {}
                c => out.push(c),
            }
        }
        out.truncate(prefix(out, limits::TERM_BYTES_MAX).len());
    }
    if out.contains(',') {
        commas(out);
    }
}

/// Drops the commas that part a number into thousands (`1,000,000`, `1,50,000`); any other is a decimal comma and becomes a point, so that `2,5` is `2.5` and
/// never `25`. A number that begins with 0 has no thousands: `0,125` is `0.125`.
fn commas(word: &mut String) {
    let end = word.find(|c: char| !c.is_numeric() && c != ',').unwrap_or(word.len());
    let groups = || word[..end].split(',').map(|group| group.chars().count());
    let (count, first) = (groups().count(), groups().next().filter(|_| !word.starts_with('0')));
    // Before the last three digits there may be two to a group, as in India.
    let lawful = |(i, digits): (usize, usize)| digits == 3 || digits == 2 && i + 1 < count;
    if count > 1 && first.is_some_and(|digits| (1..=3).contains(&digits)) && groups().enumerate().skip(1).all(lawful) {
        let mut at = 0;
        word.retain(|c| {
            at += c.len_utf8();
            c != ',' || at > end
        });
    }
    // In place: what is left of a copy would not be wiped.
    let mut bytes = std::mem::take(word).into_bytes();
    bytes.iter_mut().filter(|byte| **byte == b',').for_each(|byte| *byte = b'.');
    *word = String::from_utf8(bytes).expect("a point for a comma leaves UTF-8 as it was");
}

/// Words that tell records apart too little to be worth looking up, sorted. Negations (`no`, `not`, `without`) are not among them: they matter
/// in a record.
const STOP_WORDS: [&str; 97] = [
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because", "been", "being", "but", "by",
    "can", "could", "did", "do", "does", "doing", "for", "from", "had", "has", "have", "having", "he", "her", "hers", "him", "his", "how",
    "i", "if", "in", "into", "is", "it", "it's", "its", "just", "me", "my", "of", "on", "or", "our", "ours", "s", "shall", "she", "should",
    "so", "some", "such", "t", "than", "that", "the", "their", "theirs", "them", "then", "there", "these", "they", "this", "those", "to",
    "too", "up", "us", "very", "was", "we", "were", "what", "what's", "when", "where", "which", "while", "who", "who's", "whom", "whose",
    "why", "will", "with", "would", "you", "your", "yours",
];

/// Words by which a time or a record is asked for, and no thing in it, sorted.
const ASKING: [&str; 44] = [
    "anything",
    "before",
    "between",
    "day",
    "days",
    "during",
    "early",
    "entries",
    "entry",
    "everything",
    "find",
    "give",
    "happen",
    "happened",
    "happening",
    "happens",
    "know",
    "last",
    "late",
    "latest",
    "list",
    "memories",
    "mid",
    "month",
    "months",
    "new",
    "news",
    "next",
    "note",
    "noted",
    "notes",
    "occurred",
    "please",
    "record",
    "recorded",
    "records",
    "show",
    "since",
    "something",
    "tell",
    "until",
    "week",
    "year",
    "yesterday",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::measure::Seeded;

    fn terms(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        tokens(text, |token| {
            assert!(text.is_char_boundary(token.range.start) && text.is_char_boundary(token.range.end));
            assert!(!token.term.is_empty() && token.term.len() <= limits::TERM_BYTES_MAX);
            out.push(token.term.to_owned());
        });
        out
    }

    #[test]
    fn the_table_of_the_module_text_holds() {
        for (text, expected) in [
            ("HbA1c", "hba1c hba 1 c"),
            ("2.5mg", "2.5mg 2.5 mg"),
            ("E11.9", "e11.9 e 11.9 e11"),
            ("B-12", "b 12 b12"),
            ("120/80", "120 80 120/80"),
            ("follow-ups", "follow up followup"),
            ("1,000", "1000"),
            ("1,50,000 12,34,56,789", "150000 123456789"),
            ("2,5mg", "2.5mg 2.5 mg"),
            ("10⁹", "10 9"),
            ("2,5", "2.5"),
            ("0,125", "0.125"),
            ("1,000,000 12,345 123,456mg", "1000000 12345 123456mg 123456 mg"),
            ("1234,567 1,0000 1,00 1,000,0", "1234.567 1.0000 1.00 1.000.0"),
            ("1,000.5 1.000,5 2，5 pH7,35", "1000.5 1.000.5 2.5 ph7.35 ph 7.35 ph7"),
            ("1,000mg2,5", "1000mg2.5 1000 mg 2.5"),
            ("x10⁹/L 10^9 CO₂ 3⁻²", "x10 x 10 9 l 10 9 co 2 3 2"),
            ("Ångström ﬁbre STRASSE straße", "angstrom fibr strass strass"),
            ("patient’s running", "patient run"),
            ("run_id", "run_id run id"),
            ("a - b / c", "a b c"),
            ("İzmir", "izmir"),
            ("", ""),
            ("-- ... !", ""),
        ] {
            assert_eq!(terms(text).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn each_spelling_of_a_code_finds_the_others() {
        for (a, b) in [
            ("5 mg", "5mg"),
            ("B12", "B-12"),
            ("COVID-19", "covid19"),
            ("E11", "E11.9"),
            ("e\u{301}tude", "étude"),
            ("5mg", "5ｍｇ"),
            ("Peni\u{ad}cillin", "penicillin"),
            ("\u{feff}rash", "rash"),
            ("ΣΑΣ", "σας"),
            ("2,5", "2.5"),
            ("2,5mg", "2.5 mg"),
            ("1,000", "1000"),
        ] {
            let (a, b) = (terms(a), terms(b));
            assert!(a.iter().any(|term| b.contains(term)), "{a:?} {b:?}");
        }
    }

    /// Every comma of a number was dropped: who searched for 2,5 mg found 25 mg, and the other way round.
    #[test]
    fn a_tenfold_dose_is_another_term() {
        for (a, b) in
            [("2,5", "25"), ("2,5mg", "25mg"), ("0,5", "05"), ("0,125", "125"), ("12,50", "1250"), ("1.000,5", "10005"), ("10⁹", "109")]
        {
            let (a, b) = (terms(a), terms(b));
            assert!(!a.iter().any(|term| b.contains(term) && term.contains(|c: char| c.is_ascii_digit())), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_query_leaves_stop_words_out_unless_there_is_nothing_else() {
        assert_eq!(*query("what is the dose of the Metformin?"), ["dose", "metformin"]);
        assert_eq!(*query("not with food"), ["not", "food"]);
        assert_eq!(*query("to be or"), ["to", "be", "or"]);
        assert!(STOP_WORDS.is_sorted() && ASKING.is_sorted());
    }

    #[test]
    fn a_family_is_what_related_words_share() {
        assert_eq!((family("photographs"), family("photography")), (Some("photog"), Some("photog")));
        assert_eq!((family("allergy"), family("allergic"), family("ångströms")), (Some("allerg"), Some("allerg"), Some("ångstr")));
        assert_eq!((family("dose"), family("e11.9abc"), family("")), (None, None, None));
        assert_eq!(*families("because Penicillin gave a penicillins rash"), ["penici"]);
    }

    #[test]
    fn whatever_stands_between_digits_folding_is_bounded_and_leaves_no_comma() {
        let mut seeded = Seeded(1);
        for _ in 0..30_000 {
            let pieces = [
                "1", "20", "000", ",", ",", ".", "-", "/", "⁹", "₂", "½", "，", "٣", "\u{66c}", "é", "mg", "ﷺ", "\u{ad}", "\u{301}", "🄂",
                " ",
            ];
            let text: String = (0..seeded.below(40)).map(|_| pieces[seeded.below(pieces.len())]).collect();
            for term in terms(&text) {
                assert!(!term.contains(','), "{text}: {term}");
            }
        }
    }

    #[test]
    fn long_and_odd_words_are_bounded() {
        let begun = std::time::Instant::now();
        for unit in [
            "x",
            "é",
            "ﷺ",
            "a-",
            "1.",
            "1a",
            "a.",
            "a'",
            "🇦",
            "a\u{301}",
            "\u{200d}",
            "👩\u{200d}",
            "a\u{ad}'\u{ad}",
            "_",
            "1,",
            "1,000",
            "1,5mg",
            "⁹",
            "１，",
            "日",
            "\u{301}",
        ] {
            let text = unit.repeat(100_000 / unit.chars().count());
            assert!(terms(&text).len() <= 2 * text.len());
        }
        // Quadratic work would take minutes.
        assert!(begun.elapsed().as_secs() < 60);
        let many: String = (0..10_000).map(|i| format!("w{i} ")).collect();
        assert_eq!(query(&many).len(), limits::QUERY_TERMS_MAX);
    }
}
