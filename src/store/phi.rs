//! `Phi`: text about a patient, readable only to a witness.
//!
//! Invariants
//! - Text is read by [`Phi::expose`], which asks for a witness: an `Access` (work under a grant) or a `Receipt` (the entry is durable).
//! - `Phi` has no `Clone`, `Display` or `Serialize`; `Debug` prints the type alone; the text is wiped when dropped.

use std::fmt;

use crate::base::wipe::wipe_text;

pub(in crate::store) mod sealed {
    pub trait Sealed {}
}

/// Who may read protected text. Sealed: `Access` and `Receipt` alone.
pub trait Witness: sealed::Sealed {}

/// Protected text; see the module text.
pub struct Phi(String);

impl Phi {
    /// Takes text from outside into protection.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Reads the text before a witness.
    pub fn expose<'s>(&'s self, _: &(impl Witness + ?Sized)) -> &'s str {
        &self.0
    }

    /// Length in bytes: not the text, so no witness is needed.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Length in bytes as JSON writes it (RFC 8259 section 7), without its quotes.
    pub fn json_bytes(&self) -> usize {
        let escaped = |byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..=0x1f => 6,
            _ => 1,
        };
        self.0.bytes().map(escaped).sum()
    }

    /// For code of this layer, which seals and opens.
    pub(in crate::store) fn inner(&self) -> &str {
        &self.0
    }
}

impl Drop for Phi {
    fn drop(&mut self) {
        wipe_text(&mut self.0);
    }
}

impl fmt::Debug for Phi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phi")
    }
}
