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
        let (checkpoint, rest) = Checkpoint::split(note::open(note, vkey)?, vkey)?;
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
