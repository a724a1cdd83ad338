//! The only source of randomness: the operating system's generator.
//!
//! Promise: bytes are fit for keys and nonces. A machine without randomness cannot run Rosemary, so failure stops the process.

/// Fills `out` from the operating system's generator.
#[allow(clippy::disallowed_methods, reason = "the only source of randomness")]
pub fn fill(out: &mut [u8]) {
    getrandom::fill(out).expect("the operating system has randomness; without it no key may be made");
}

/// `N` random bytes.
pub fn array<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    fill(&mut out);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        assert_ne!(super::array::<32>(), super::array::<32>());
    }
}
