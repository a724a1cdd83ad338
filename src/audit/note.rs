//! Signed notes (C2SP signed-note): a text and the Ed25519 signatures under it.
//!
//! ```text
//! text line ⏎ … ⏎ (empty line) ⏎ — name base64(key id 4 | signature 64) ⏎ …
//! ```
//!
//! Invariants
//! - A text is given out only after the signature of the one trusted key ([`Vkey`]) was checked; other signatures are ignored, as C2SP asks.
//! - A note has at most [`limits::NOTE_BYTES_MAX`] bytes (a longer sort says how many) and [`limits::NOTE_SIGNATURES_MAX`] signatures; reading one never panics.
//! - What [`sign`] makes, [`open`] takes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::{hex, limits};
use crate::crypto::hash::sha256;
use crate::crypto::sign::{self, SIGNATURE_BYTES, SigningKey};

/// Ed25519 among the signature types of C2SP signed-note.
const TYPE_ED25519: u8 = 1;

/// Why a note, or a key to check one, is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the text of a signed note or verifier key, or beyond a limit.
    #[error("not a well-formed signed note")]
    Malformed,
    /// The key's own signature is not under it.
    #[error("the note is not signed by the expected key")]
    Unsigned,
    /// The key's signature is under it and is wrong: the text or the signature was changed.
    #[error("the note's signature is wrong")]
    Forged,
}

/// A public key that checks notes, in the text form of C2SP: `name+key id in hex+base64(1 | public key)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vkey {
    name: String,
    public: [u8; 32],
}

impl Vkey {
    /// The key of `name` (C2SP: not empty, no space, no `+`) with this Ed25519 public key; `None` if the name cannot be one.
    pub fn new(name: &str, public: [u8; 32]) -> Option<Self> {
        is_name(name).then(|| Self { name: name.to_owned(), public })
    }

    /// Reads the text form.
    ///
    /// Errors: `Malformed`, also if the key id is not the one of this name and key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let (name, rest) = text.split_once('+').ok_or(NoteError::Malformed)?;
        let (id, key) = rest.split_once('+').ok_or(NoteError::Malformed)?;
        let bytes = if key.len() == 44 { STANDARD.decode(key).ok() } else { None }.ok_or(NoteError::Malformed)?;
        let public = bytes.strip_prefix(&[TYPE_ED25519]).and_then(|key| key.try_into().ok()).ok_or(NoteError::Malformed)?;
        let vkey = Self::new(name, public).ok_or(NoteError::Malformed)?;
        if id == hex::encode(&vkey.id()) { Ok(vkey) } else { Err(NoteError::Malformed) }
    }

    /// The same public key under another name; `None` if that cannot be one.
    pub fn renamed(&self, name: &str) -> Option<Self> {
        Self::new(name, self.public)
    }

    /// Another public key under the same name.
    pub fn with_public(&self, public: [u8; 32]) -> Self {
        Self { name: self.name.clone(), public }
    }

    /// The public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The key's name: for a log, its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key id: the first 4 bytes of SHA-256(name | 0x0A | 0x01 | public key).
    pub fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.name.as_bytes(), b"\n", &[TYPE_ED25519], &self.public]);
        [hash[0], hash[1], hash[2], hash[3]]
    }
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[TYPE_ED25519], &self.public[..]].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(&self.id()), STANDARD.encode(key))
    }
}

fn is_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// Signs `text` (lines, each with its line end; no control characters) as `name`: the whole note.
pub fn sign(text: &str, name: &str, key: &SigningKey) -> String {
    debug_assert!(is_name(name) && text.ends_with('\n') && !text.chars().any(|c| c < ' ' && c != '\n'), "a text that can be a note");
    format!("{text}\n{}", signature_line(text, name, key))
}

/// A note with a further signature, of `key` as `name`, over the same text. `note` is one that [`sign`] made.
pub fn cosign(note: &str, name: &str, key: &SigningKey) -> String {
    let text = note.rfind("\n\n").map_or(note, |end| &note[..=end]);
    format!("{note}{}", signature_line(text, name, key))
}

fn signature_line(text: &str, name: &str, key: &SigningKey) -> String {
    let vkey = Vkey { name: name.to_owned(), public: key.public() };
    let signature = [&vkey.id()[..], &key.sign(text.as_bytes())].concat();
    format!("\u{2014} {name} {}\n", STANDARD.encode(signature))
}

/// The text of `note`, once the signature of `vkey` was found right.
///
/// Errors: `Malformed` if it is not a note; `Unsigned` or `Forged` if the key's signature is missing or wrong.
pub fn open<'a>(note: &'a str, vkey: &Vkey) -> Result<&'a str, NoteError> {
    open_within(note, vkey, limits::NOTE_BYTES_MAX)
}

/// As [`open`], for notes of at most `bytes_max` bytes.
///
/// Errors: those of [`open`].
pub fn open_within<'a>(note: &'a str, vkey: &Vkey, bytes_max: usize) -> Result<&'a str, NoteError> {
    if note.len() > bytes_max || note.chars().any(|c| c < ' ' && c != '\n') {
        return Err(NoteError::Malformed);
    }
    let end = note.rfind("\n\n").ok_or(NoteError::Malformed)? + 1;
    let (text, lines) = (&note[..end], note[end + 1..].strip_suffix('\n').ok_or(NoteError::Malformed)?);
    let id = vkey.id();
    let mut signed = false;
    for (at, line) in lines.split('\n').enumerate() {
        let (name, bytes) = if at < limits::NOTE_SIGNATURES_MAX { signature(line) } else { None }.ok_or(NoteError::Malformed)?;
        if name != vkey.name || !bytes.starts_with(&id) {
            continue;
        }
        if bytes.len() != 4 + SIGNATURE_BYTES || !sign::verify(&vkey.public, text.as_bytes(), &bytes[4..]) {
            return Err(NoteError::Forged);
        }
        signed = true;
    }
    if signed { Ok(text) } else { Err(NoteError::Unsigned) }
}

/// Name, and key id with signature, of one signature line.
fn signature(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(signature).ok()?;
    (is_name(name) && bytes.len() > 4).then_some((name, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::secret::{Key, Secret};

    const NOTE: &str = include_str!("../../tests/vectors/c2sp/note.txt");
    const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

    fn text() -> &'static str {
        &NOTE[..NOTE.find("\n\n").unwrap() + 1]
    }

    #[test]
    fn the_published_note_opens_and_is_made_again() {
        let vkey = Vkey::parse(VKEY).unwrap();
        assert_eq!((vkey.to_string().as_str(), vkey.name(), vkey.id()), (VKEY, "PeterNeumann", [0xc7, 0x4f, 0x20, 0xa3]));
        assert_eq!(open(NOTE, &vkey), Ok(text()));
        let key = SigningKey::from_seed(&Secret::from_slice(&STANDARD.decode(SEED).unwrap()[1..]).unwrap());
        assert_eq!(sign(text(), "PeterNeumann", &key), NOTE);
        // The Go checksum database's key: another name and key whose id is published.
        assert!(Vkey::parse("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8").is_ok());
    }

    #[test]
    fn a_changed_note_is_not_opened() {
        let vkey = Vkey::parse(VKEY).unwrap();
        for at in 0..NOTE.len() {
            let mut bytes = NOTE.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(String::from_utf8(bytes).is_ok_and(|note| open(&note, &vkey).is_ok()).eq(&false), "byte {at}");
            assert!(!NOTE.is_char_boundary(at) || open(&NOTE[..at], &vkey).is_err());
        }
        assert_eq!(open(&NOTE.replacen("If", "It", 1), &vkey), Err(NoteError::Forged));
        assert_eq!(open(NOTE, &Vkey::new("PeterNeumann", [0; 32]).unwrap()), Err(NoteError::Unsigned));
        for bad in
            [format!("{NOTE}\n"), format!("\n{NOTE}"), NOTE.replace('\n', "\r\n"), format!("{NOTE}x"), "\n\n".into(), "\n\n\n".into()]
        {
            assert!(open(&bad, &vkey).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn unknown_signatures_are_ignored_up_to_a_bound() {
        let vkey = Vkey::parse(VKEY).unwrap();
        let line = |name: &str, bytes: &[u8]| format!("\u{2014} {name} {}\n", STANDARD.encode(bytes));
        let others = |n: usize| (0..n).map(|i| line(&format!("witness{i}"), &[7; 76])).collect::<String>();
        assert_eq!(open(&(NOTE.to_owned() + &others(15)), &vkey), Ok(text()));
        assert_eq!(open(&(NOTE.to_owned() + &others(16)), &vkey), Err(NoteError::Malformed));
        assert_eq!(open(&(NOTE.to_owned() + &line("PeterNeumann", &[7; 68])), &vkey), Ok(text()), "same name, another key id");
        let same = [&vkey.id()[..], &[7; 64]].concat();
        assert_eq!(open(&(NOTE.to_owned() + &line("other", &same)), &vkey), Ok(text()), "same key id, another name");
        assert_eq!(open(&(NOTE.to_owned() + &line("PeterNeumann", &same)), &vkey), Err(NoteError::Forged));
        assert_eq!(open(&(NOTE.to_owned() + &line("PeterNeumann", &same[..60])), &vkey), Err(NoteError::Forged));
        for bad in
            ["\u{2014} a\n", "\u{2014}  AAAAAAAA\n", "- a AAAAAAAA\n", "\u{2014} a AAAA\n", "\u{2014} a AAAAAAAA AA\n", "\u{2014} a AA=A\n"]
        {
            assert_eq!(open(&(NOTE.to_owned() + bad), &vkey), Err(NoteError::Malformed), "{bad}");
        }
        let long = format!("{}{NOTE}", "x".repeat(limits::NOTE_BYTES_MAX));
        assert_eq!(open(&long, &vkey), Err(NoteError::Malformed));
    }

    #[test]
    fn a_key_reads_back_and_a_changed_one_does_not() {
        let key = SigningKey::from_seed(&Key::random());
        let vkey = Vkey::new("rosemary/x", key.public()).unwrap();
        assert_eq!(Vkey::parse(&vkey.to_string()), Ok(vkey));
        for at in 0..VKEY.len() {
            for flip in 0..8 {
                let mut bytes = VKEY.as_bytes().to_vec();
                bytes[at] ^= 1 << flip;
                let read = String::from_utf8(bytes).map(|text| Vkey::parse(&text));
                assert!(!matches!(read, Ok(Ok(_))), "byte {at}, bit {flip}");
            }
        }
        for bad in ["", "+", "++", "a+b+c", "a+00000000+AQ==", &VKEY[..VKEY.len() - 4], &format!("{VKEY}\n")] {
            assert_eq!(Vkey::parse(bad), Err(NoteError::Malformed), "{bad}");
        }
        assert!(["", "a b", "a+b", "a\u{a0}b", "a\n", &"a".repeat(257)].iter().all(|name| Vkey::new(name, [0; 32]).is_none()));
    }
}
