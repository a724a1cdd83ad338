//! Checkpoints: a signed statement of the log's size and root; and the anchor, a checkpoint that also names the file.
//!
//! ```text
//! rosemary/<log id> ⏎ size ⏎ base64(root) ⏎                                                   checkpoint (C2SP tlog-checkpoint)
//! … instance <id> ⏎ file <id> ⏎ generation <n> ⏎ tombstones <n> ⏎                             anchor: the same with four extension lines
//! ```
//!
//! Invariants
//! - Both are signed notes ([`super::note`]) whose key's name is their origin.
//! - Reading is strict: what is read prints as the same text. A checkpoint's extension lines are skipped, as C2SP asks; an anchor's are
//!   all there and no others.
//!
//! Not here: that the size never falls and that every leaf below it is durable before it is signed (`store::writer`).

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::audit::merkle::Hash;
use crate::audit::note::{self, NoteError, Vkey};
use crate::base::id::{FileId, InstanceId, LogId};
use crate::crypto::sign::SigningKey;

/// Name of a log in its checkpoints and keys.
pub fn origin(log: LogId) -> String {
    format!("rosemary/{log}")
}

/// The key that checks the notes of `log`.
pub fn vkey(log: LogId, public: [u8; 32]) -> Vkey {
    Vkey::new(&origin(log), public).expect("an origin is a key's name")
}

/// Size and root of a log at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The log.
    pub log: LogId,
    /// Number of its entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed note.
    pub fn note(&self, key: &SigningKey) -> String {
        note::sign(&self.text(), &origin(self.log), key)
    }

    /// The note signed by both keys of a handover ([`super::chain`]), the old one first.
    pub fn note_of_both(&self, old: &SigningKey, new: &SigningKey) -> String {
        note::cosign(&self.note(old), &origin(self.log), new)
    }

    /// Reads a note that `vkey` signed; also takes an [`Anchor`]'s.
    ///
    /// Errors: those of [`note::open`]; `Malformed` if the text is not a checkpoint of the log that `vkey` names.
    pub fn parse(note: &str, vkey: &Vkey) -> Result<Self, NoteError> {
        Ok(Self::split(note::open(note, vkey)?, vkey)?.0)
    }

    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", origin(self.log), self.size, STANDARD.encode(self.root))
    }

    /// The checkpoint and its extension lines.
    fn split<'a>(text: &'a str, vkey: &Vkey) -> Result<(Self, &'a str), NoteError> {
        let read = || {
            let mut lines = text.splitn(4, '\n');
            let origin = lines.next()?;
            let log = LogId::parse(origin.strip_prefix("rosemary/")?)?;
            let size = number(lines.next()?)?;
            let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
            let rest = lines.next()?;
            let empty_line = rest.starts_with('\n') || rest.contains("\n\n");
            (origin == vkey.name() && !empty_line).then_some((Self { log, size, root }, rest))
        };
        read().ok_or(NoteError::Malformed)
    }
}

/// What is kept on another disk so that a rolled-back file is found out (`RM_ANCHOR_FILE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Anchor {
    /// The log as it stood.
    pub checkpoint: Checkpoint,
    /// The data.
    pub instance: InstanceId,
    /// The physical copy.
    pub file: FileId,
    /// Generation of its superblock.
    pub generation: u64,
    /// Tombstones of erased holders.
    pub tombstones: u64,
}

impl Anchor {
    /// The signed note.
    pub fn note(&self, key: &SigningKey) -> String {
        note::sign(&(self.checkpoint.text() + &self.extension()), &origin(self.checkpoint.log), key)
    }

    /// Reads a note that `vkey` signed.
    ///
    /// Errors: those of [`note::open`]; `Malformed` if the text is not an anchor of the log that `vkey` names.
    pub fn parse(note: &str, vkey: &Vkey) -> Result<Self, NoteError> {
        Self::read(note::open(note, vkey)?, vkey)
    }

    /// What a note claims, whoever wrote it: good enough to refuse something, never to trust it.
    pub fn claimed(note: &str) -> Option<Self> {
        let name = note.lines().next()?;
        Self::read(&note[..=note.rfind("\n\n")?], &Vkey::new(name, [0; 32])?).ok()
    }

    fn read(text: &str, vkey: &Vkey) -> Result<Self, NoteError> {
        let (checkpoint, rest) = Checkpoint::split(text, vkey)?;
        let read = || {
            let mut lines = rest.split('\n');
            let anchor = Self {
                checkpoint,
                instance: InstanceId::parse(lines.next()?.strip_prefix("instance ")?)?,
                file: FileId::parse(lines.next()?.strip_prefix("file ")?)?,
                generation: number(lines.next()?.strip_prefix("generation ")?)?,
                tombstones: number(lines.next()?.strip_prefix("tombstones ")?)?,
            };
            (anchor.extension() == rest).then_some(anchor)
        };
        read().ok_or(NoteError::Malformed)
    }

    fn extension(&self) -> String {
        let Self { instance, file, generation, tombstones, .. } = self;
        format!("instance {instance}\nfile {file}\ngeneration {generation}\ntombstones {tombstones}\n")
    }
}

/// A decimal number as it prints: no sign, no leading zero.
fn number(text: &str) -> Option<u64> {
    u64::from_str(text).ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::entry::tests::golden;
    use crate::base::limits;
    use crate::crypto::secret::Secret;

    fn key() -> SigningKey {
        SigningKey::from_seed(&Secret::new([0x5e; 32]))
    }

    fn anchor() -> Anchor {
        let checkpoint = Checkpoint { log: LogId::from_bytes([0x10; 16]), size: 20_852_163, root: [0xab; 32] };
        let (instance, file) = (InstanceId::from_bytes([1; 16]), FileId::from_bytes([2; 16]));
        Anchor { checkpoint, instance, file, generation: 7, tombstones: 0 }
    }

    #[test]
    fn notes_are_the_golden_ones_and_read_back() {
        let (anchor, vkey) = (anchor(), vkey(anchor().checkpoint.log, key().public()));
        let (checkpoint, note) = (anchor.checkpoint.note(&key()), anchor.note(&key()));
        golden("audit/checkpoint.note", &checkpoint);
        golden("audit/anchor.note", &note);
        golden("audit/log.vkey", &format!("{vkey}\n"));
        assert_eq!(Checkpoint::parse(&checkpoint, &vkey), Ok(anchor.checkpoint));
        assert_eq!(Anchor::parse(&note, &vkey), Ok(anchor));
        assert_eq!(Checkpoint::parse(&note, &vkey), Ok(anchor.checkpoint), "an anchor is a checkpoint with extension lines");
        assert_eq!(Anchor::parse(&checkpoint, &vkey), Err(NoteError::Malformed), "a checkpoint is no anchor");
        let largest = Anchor { generation: u64::MAX, tombstones: u64::MAX, ..anchor };
        assert_eq!(Anchor::parse(&largest.note(&key()), &vkey), Ok(largest));
        assert!(note.len() < limits::NOTE_BYTES_MAX);
    }

    #[test]
    fn a_signed_text_that_is_not_exactly_one_is_refused() {
        let name = origin(LogId::from_bytes([0x10; 16]));
        let vkey = Vkey::new(&name, key().public()).unwrap();
        let root = STANDARD.encode([0xab; 32]);
        let signed = |text: &str| note::sign(text, &name, &key());
        let good = format!("{name}\n5\n{root}\n");
        assert!(Checkpoint::parse(&signed(&good), &vkey).is_ok());
        assert!(Checkpoint::parse(&signed(&format!("{good}anything else\n")), &vkey).is_ok());
        for bad in [
            format!("{name}\n"),
            format!("{name}\n5\n"),
            format!("{name}\n05\n{root}\n"),
            format!("{name}\n+5\n{root}\n"),
            format!("{name}\n-5\n{root}\n"),
            format!("{name}\n18446744073709551616\n{root}\n"),
            format!("{name}\n5 \n{root}\n"),
            format!("{name}\n5\n{}\n", &root[1..]),
            format!("{name}\n5\n{}\n", root.trim_end_matches('=')),
            format!("{name}\n5\nAAAA\n"),
            format!("{good}\nafter an empty line\n"),
            format!("{good}a\n\nb\n"),
            format!("\n{good}"),
            format!("x{good}"),
            good.replacen("1010", "2020", 1),
            good.replacen("rosemary/", "rosemary.", 1),
        ] {
            assert_eq!(Checkpoint::parse(&signed(&bad), &vkey), Err(NoteError::Malformed), "{bad}");
        }
        let good = anchor().checkpoint.text() + &anchor().extension();
        assert!(Anchor::parse(&signed(&good), &vkey).is_ok());
        for (from, to) in [
            ("instance 0", "instance  0"),
            ("generation 7", "generation 07"),
            ("generation", "Generation"),
            ("tombstones 0\n", ""),
            ("tombstones 0\n", "tombstones 0\nmore\n"),
            ("file ", ""),
        ] {
            assert!(good.contains(from));
            assert_eq!(Anchor::parse(&signed(&good.replacen(from, to, 1)), &vkey), Err(NoteError::Malformed), "{from}");
        }
    }

    #[test]
    fn no_changed_byte_of_an_anchor_is_accepted() {
        let (note, vkey) = (anchor().note(&key()), vkey(anchor().checkpoint.log, key().public()));
        for at in 0..note.len() {
            for flip in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= 1 << flip;
                let read = String::from_utf8(bytes).map(|text| Anchor::parse(&text, &vkey));
                assert!(!matches!(read, Ok(Ok(_))), "byte {at}, bit {flip}");
            }
        }
    }
}
