//! Sealing and opening: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03 section 2) with associated data, always.
//!
//! Promise: what opens is byte for byte what was sealed under the same key and the same associated data.
//! Layout of sealed bytes: nonce 24 | ciphertext | tag 16. Nonces are drawn at random: 192 bits need no counter.
//!
//! HChaCha20 turns key and first 16 bytes of the nonce into a key of its own; aws-lc's ChaCha20-Poly1305 (RFC 8439) does the rest under four
//! zero bytes and the last 8. *(measured)* The all-Rust `chacha20poly1305` takes 5 times as long for a field and twice for a block: its
//! AVX2 steps are not inlined where the whole program is not built for AVX2. It is the tests' independent oracle.

use aws_lc_rs::aead::{self as provider, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20::R20;
use zeroize::Zeroizing;

use crate::base::rng;
use crate::crypto::secret::Key;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
/// What sealing adds to the plain text.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// The sealed bytes are not what was sealed under this key and associated data.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed bytes do not open: wrong key, wrong place or changed")]
pub struct OpenError;

/// Room for the associated data of any kind of ours: names, ids and numbers, none of which is as long as someone outside likes.
const AAD_BYTES_MAX: usize = 256;

/// Associated data: fields in order, each preceded by its length (u32 LE), so that no two lists collide.
#[derive(Clone, Debug)]
pub struct Aad {
    bytes: [u8; AAD_BYTES_MAX],
    len: usize,
}

impl Aad {
    /// The name of the kind of thing sealed, for example `mem1`, then `fields`.
    ///
    /// Panics: they are longer than any kind of ours is.
    pub fn of(kind: &str, fields: &[&[u8]]) -> Self {
        let mut aad = Self { bytes: [0; AAD_BYTES_MAX], len: 0 };
        aad.push(kind.as_bytes());
        fields.iter().for_each(|field| aad.push(field));
        aad
    }

    /// Adds one integer, as 8 bytes little-endian.
    #[must_use]
    pub fn number(mut self, value: u64) -> Self {
        self.push(&value.to_le_bytes());
        self
    }

    /// The bytes that are authenticated.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, field: &[u8]) {
        let (head, rest) = self.bytes[self.len..].split_first_chunk_mut().expect("the fields of every kind fit");
        *head = u32::try_from(field.len()).expect("a field is shorter than 4 GiB").to_le_bytes();
        rest[..field.len()].copy_from_slice(field);
        self.len += head.len() + field.len();
    }
}

/// Seals `plain`: nonce | ciphertext | tag.
pub fn seal(key: &Key, aad: &Aad, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; OVERHEAD_BYTES + plain.len()];
    seal_into(key, aad.bytes(), plain, &mut out);
    out
}

/// As [`seal`], into `out`, which is exactly [`OVERHEAD_BYTES`] longer than `plain`.
pub fn seal_into(key: &Key, aad: &[u8], plain: &[u8], out: &mut [u8]) {
    assert_eq!(out.len(), plain.len() + OVERHEAD_BYTES, "the output has room for nonce and tag");
    let (nonce, rest) = out.split_first_chunk_mut().expect("the output begins with a nonce");
    let (body, tag) = rest.split_at_mut(plain.len());
    rng::fill(nonce);
    body.copy_from_slice(plain);
    let (key, nonce) = derived(key, nonce);
    let made = key.seal_in_place_separate_tag(nonce, provider::Aad::from(aad), body).expect("the text is shorter than ChaCha20's 256 GiB");
    tag.copy_from_slice(made.as_ref());
}

/// The key and nonce of RFC 8439 that `key` and `nonce` stand for (draft-irtf-cfrg-xchacha-03 section 2.3).
fn derived(key: &Key, nonce: &[u8; NONCE_BYTES]) -> (LessSafeKey, Nonce) {
    let (first, last) = nonce.split_first_chunk::<16>().expect("24 bytes hold 16");
    let own: Zeroizing<[u8; 32]> = Zeroizing::new(chacha20::hchacha::<R20>(key.expose().into(), first.into()).into());
    let mut short = [0; provider::NONCE_LEN];
    short[4..].copy_from_slice(last);
    let own = UnboundKey::new(&CHACHA20_POLY1305, &*own).expect("ChaCha20-Poly1305 takes 32 bytes");
    (LessSafeKey::new(own), Nonce::assume_unique_for_key(short))
}

/// Opens what [`seal`] made.
///
/// Errors: [`OpenError`] if anything differs; nothing of the text is returned then.
pub fn open(key: &Key, aad: &Aad, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let length = sealed.len().checked_sub(OVERHEAD_BYTES).ok_or(OpenError)?;
    let mut out = vec![0; length];
    open_into(key, aad.bytes(), sealed, &mut out)?;
    Ok(out)
}

/// As [`open`], into `out`, which is exactly [`OVERHEAD_BYTES`] shorter than `sealed`. On error `out` is zeroed.
pub fn open_into(key: &Key, aad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<(), OpenError> {
    if sealed.len() != out.len() + OVERHEAD_BYTES {
        return Err(OpenError);
    }
    let (nonce, rest) = sealed.split_first_chunk().ok_or(OpenError)?;
    let (body, tag) = rest.split_at(out.len());
    let (key, nonce) = derived(key, nonce);
    let opened = key.open_separate_gather(nonce, provider::Aad::from(aad), body, tag, out);
    if opened.is_err() {
        out.fill(0);
        return Err(OpenError);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hex;
    use crate::crypto::secret::Secret;

    #[test]
    fn the_published_vector_opens() {
        // draft-irtf-cfrg-xchacha-03, appendix A.3.1
        let key = Secret::from_slice(&hex::decode("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f").unwrap()).unwrap();
        let sealed = hex::decode(concat!(
            "404142434445464748494a4b4c4d4e4f5051525354555657",
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452",
            "2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b52e",
            "c0875924c1c7987947deafd8780acf49"
        ))
        .unwrap();
        let aad = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let mut plain = vec![0; sealed.len() - OVERHEAD_BYTES];
        open_into(&key, &aad, &sealed, &mut plain).unwrap();
        assert!(plain.starts_with(b"Ladies and Gentlemen of the class of '99"));
    }

    #[test]
    fn an_independent_implementation_agrees_at_every_length() {
        use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
        let (key, aad) = (Key::random(), Aad::of("oracle", &[]).number(7));
        for length in (0..300).chain([1024, 4095, 4096, 65_537]) {
            let plain: Vec<u8> = (0u8..=255).cycle().take(length).collect();
            let mut sealed = seal(&key, &aad, &plain);
            let tag = sealed.split_off(NONCE_BYTES + length);
            let mut body = sealed.split_off(NONCE_BYTES);
            let (nonce, tag) = (XNonce::try_from(&*sealed).unwrap(), Tag::try_from(&*tag).unwrap());
            let oracle = XChaCha20Poly1305::new(key.expose().into());
            oracle.decrypt_inout_detached(&nonce, aad.bytes(), (&mut *body).into(), &tag).unwrap();
            assert_eq!(body, plain);
            let tag = oracle.encrypt_inout_detached(&nonce, aad.bytes(), (&mut *body).into()).unwrap();
            assert_eq!(open(&key, &aad, &[&*sealed, &*body, &*tag].concat()).unwrap(), plain);
        }
    }

    #[test]
    fn any_change_of_key_place_or_byte_does_not_open() {
        let (key, other) = (Key::random(), Key::random());
        let aad = Aad::of("test", &[]).number(1);
        let sealed = seal(&key, &aad, b"text");
        assert_eq!(open(&key, &aad, &sealed).unwrap(), b"text");
        assert_eq!(open(&other, &aad, &sealed), Err(OpenError));
        assert_eq!(open(&key, &Aad::of("test", &[]).number(2), &sealed), Err(OpenError));
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert_eq!(open(&key, &aad, &changed), Err(OpenError));
        }
        assert_eq!(open(&key, &aad, &sealed[..39]), Err(OpenError));
    }

    #[test]
    fn a_failed_opening_leaves_no_text_behind() {
        let key = Key::random();
        let mut sealed = seal(&key, &Aad::of("a", &[]), b"text");
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        let mut out = [9; 4];
        assert!(open_into(&key, Aad::of("a", &[]).bytes(), &sealed, &mut out).is_err());
        assert_eq!(out, [0; 4]);
    }
}
