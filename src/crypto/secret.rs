//! `Secret`: a value that cannot be printed, copied or serialised by accident, and is wiped when dropped.
//!
//! Invariants
//! - `Secret` has no `Clone`, `Display`, `Serialize`; `Debug` prints the type alone.
//! - Each reading is spelled `expose`, so one grep lists them all.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::base::rng;

/// A secret value; see the module text.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes `value` in; the caller wipes any other copy.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Reads the value.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<const N: usize> Secret<[u8; N]> {
    /// `N` fresh random bytes.
    pub fn random() -> Self {
        Self(rng::array())
    }

    /// A second holder of the same bytes, deliberately.
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }

    /// The secret in the first `N` bytes of `bytes`; `None` if the length differs.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

impl<T: Zeroize + AsRef<[u8]>> Secret<T> {
    /// Compares in time that depends on the lengths alone.
    pub fn matches(&self, other: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_ref(), other).is_ok()
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> ZeroizeOnDrop for Secret<T> {}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A 256-bit key.
pub type Key = Secret<[u8; 32]>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_its_type_alone_and_compares() {
        let secret = Secret::new(*b"abc");
        assert_eq!(format!("{secret:?}"), "Secret");
        assert!(secret.matches(b"abc"));
        assert!(!secret.matches(b"abd"));
        assert!(!secret.matches(b"ab"));
    }
}
