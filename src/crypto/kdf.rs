//! Derivation: HKDF-SHA-256 (RFC 5869) under a closed list of labels.
//!
//! Invariants
//! - Every derivation of the product has its own label here; a test asserts that they differ.
//! - The label and each piece of context are length-prefixed, so no two derivations collide.

use aws_lc_rs::hkdf;

use crate::crypto::secret::{Key, Secret};

macro_rules! labels {
    ($($(#[$text:meta])* $name:ident = $label:literal;)*) => {
        /// What a derived key is for.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Label { $($(#[$text])* $name,)* }

        impl Label {
            /// All labels, for documentation and tests.
            pub const ALL: &'static [Label] = &[$(Label::$name,)*];

            /// The label's bytes as they enter HKDF.
            pub const fn text(self) -> &'static str {
                match self { $(Label::$name => $label,)* }
            }
        }
    };
}

labels! {
    /// Seals the fields of a memory: input is the owner's DEK followed by the subject's DEK if there is one.
    MemoryField = "rosemary/v1/memory-field";
    /// Seals the fields of rows about one holder alone (a user's e-mail, a subject's name, a tenant's label): input is that holder's DEK.
    HolderField = "rosemary/v1/holder-field";
    /// A holder's DEK in a file that is made under new keys: input is a random secret of that one run, kept nowhere.
    HolderKey = "rosemary/v1/holder-key";
    /// The KEK from a key file's bytes.
    KeyFile = "rosemary/v1/kek-key-file";
    /// The KEK from a systemd credential's bytes.
    Credential = "rosemary/v1/kek-credential";
    /// The KEK from Argon2id's output.
    Passphrase = "rosemary/v1/kek-passphrase";
    /// The KEK from the secret that shares were made of.
    Shares = "rosemary/v1/kek-shares";
    /// Seals the superblock's body: input is the master key.
    SuperblockSeal = "rosemary/v1/superblock-seal";
}

struct Len32;

impl hkdf::KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

/// A 256-bit key for `label` from `input` (at least 256 bits of entropy in all) and `context`.
///
/// HKDF-SHA-256 with an empty salt; input keying material is the concatenation of `input`; info is the label and each piece of
/// context, each preceded by its length (u32 LE).
pub fn derive(input: &[&[u8]], label: Label, context: &[&[u8]]) -> Key {
    let material = zeroize::Zeroizing::new(input.concat());
    let lengths: Vec<[u8; 4]> = std::iter::once(label.text().as_bytes())
        .chain(context.iter().copied())
        .map(|part| u32::try_from(part.len()).expect("context is shorter than 4 GiB").to_le_bytes())
        .collect();
    let mut info: Vec<&[u8]> = Vec::with_capacity(2 * lengths.len());
    for (length, part) in lengths.iter().zip(std::iter::once(label.text().as_bytes()).chain(context.iter().copied())) {
        info.push(length);
        info.push(part);
    }
    let mut out = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(&material)
        .expand(&info, Len32)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes are within HKDF's bound");
    Secret::new(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        for (i, a) in Label::ALL.iter().enumerate() {
            assert!(Label::ALL[i + 1..].iter().all(|b| a.text() != b.text()), "{a:?}");
        }
    }

    #[test]
    fn every_input_changes_the_key() {
        let key = |input: &[&[u8]], label, context: &[&[u8]]| *derive(input, label, context).expose();
        let base = key(&[&[1; 32]], Label::HolderField, &[b"a"]);
        assert_ne!(base, key(&[&[2; 32]], Label::HolderField, &[b"a"]));
        assert_ne!(base, key(&[&[1; 32]], Label::MemoryField, &[b"a"]));
        assert_ne!(base, key(&[&[1; 32]], Label::HolderField, &[b"b"]));
        assert_ne!(key(&[&[1; 32]], Label::HolderField, &[b"ab"]), key(&[&[1; 32]], Label::HolderField, &[b"a", b"b"]));
    }
}
