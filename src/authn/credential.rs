//! Credentials: how keys are drawn, recognised, looked up and named. Pure.
//!
//! A user key is `rm_live_`, 40 random hex digits (160 bits), then 8 hex digits: the CRC-32 of all that precedes, the prefix included.
//! The checksum finds a mistyped key, and a leaked one in a repository, without the store; it proves nothing.
//!
//! Invariants
//! - A key is stored and looked up as its [`Verifier`], HMAC-SHA-256 under the sealed pepper; equality of verifiers is all that is compared,
//!   so timing tells nothing about a key.
//! - A name of a key (its prefix, `env:NAME#…`) does not help to guess it.

use std::collections::HashMap;
use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::base::{hex, limits, rng};
use crate::crypto::hash::hmac_sha256;
use crate::crypto::secret::{Key, Secret};

/// What a user key begins with.
pub const USER_KEY_PREFIX: &str = "rm_live_";
/// Characters of a key that may be shown to tell it from others.
pub const DISPLAY_CHARS: usize = 16;
const CHECKSUM_DIGITS: usize = 8;
const RANDOM_BYTES: usize = 20;
const USER_KEY_CHARS: usize = USER_KEY_PREFIX.len() + 2 * RANDOM_BYTES + CHECKSUM_DIGITS;

/// Why a request has no principal; the text is the contract's `error` of the 401.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// No `Authorization` header, or of another scheme.
    #[error("Missing or malformed Authorization header. Expected: Bearer <api_key>")]
    Missing,
    /// The right scheme with nothing after it.
    #[error("Missing or malformed Authorization header. Expected: Bearer <api_key>")]
    Empty,
    /// A credential that nobody holds, or that was revoked.
    #[error("Invalid API key")]
    Invalid,
}

/// Finds the credential in the value of an `Authorization` header (RFC 6750 section 2.1; the scheme's case does not matter).
///
/// `token_scheme` also admits `Token <key>`, which Mem0 clients send.
pub fn bearer(header: Option<&str>, token_scheme: bool) -> Result<&str, Unauthenticated> {
    let header = header.ok_or(Unauthenticated::Missing)?.trim_matches([' ', '\t']);
    let (scheme, key) = header.split_once([' ', '\t']).unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("bearer") && !(token_scheme && scheme.eq_ignore_ascii_case("token")) {
        return Err(Unauthenticated::Missing);
    }
    match key.trim_start_matches([' ', '\t']) {
        "" => Err(Unauthenticated::Empty),
        key if key.len() > limits::CREDENTIAL_BYTES_MAX => Err(Unauthenticated::Invalid),
        key => Ok(key),
    }
}

/// Draws a new user key.
pub fn draw_user_key() -> Secret<String> {
    let mut key = String::with_capacity(USER_KEY_CHARS);
    key.push_str(USER_KEY_PREFIX);
    key.push_str(&Zeroizing::new(hex::encode(&*Zeroizing::new(rng::array::<RANDOM_BYTES>()))));
    let checksum = crc32(key.as_bytes());
    write!(key, "{checksum:08x}").expect("writing to a string cannot fail");
    Secret::new(key)
}

/// Whether `key` has the shape and the checksum of a user key; if not, no store can hold it.
pub fn is_user_key(key: &str) -> bool {
    let Some((body, checksum)) = key.split_at_checked(USER_KEY_CHARS - CHECKSUM_DIGITS) else { return false };
    let digits = body.strip_prefix(USER_KEY_PREFIX);
    digits.is_some_and(|digits| digits.bytes().all(|digit| hex::value(digit).is_some())) && checksum == format!("{:08x}", crc32(body.as_bytes()))
}

/// The first [`DISPLAY_CHARS`] characters of a key, shown in lists.
pub fn display_prefix(key: &str) -> &str {
    key.char_indices().nth(DISPLAY_CHARS).map_or(key, |(end, _)| &key[..end])
}

/// What is stored in place of a key, and looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Verifier(pub [u8; 32]);

impl Verifier {
    /// The verifier of `key`: HMAC-SHA-256(pepper, "credential", key).
    pub fn of(pepper: &Key, key: &str) -> Self {
        Self(hmac_sha256(pepper, &[b"credential", key.as_bytes()]))
    }
}

/// A key from the settings, without the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaticKey {
    /// The variable's name, `RM_API_KEY`.
    pub name: Arc<str>,
    /// The vendor of an agent key; `None` for the owner's.
    pub vendor: Option<Vendor>,
    /// First 4 bytes of HMAC(pepper, key): a new key under the old name is another credential.
    pub mark: [u8; 4],
}

/// The keys from the settings, by verifier.
#[derive(Default)]
pub struct StaticKeys(HashMap<Verifier, StaticKey>);

impl StaticKeys {
    /// Adds the key of variable `name`; the settings have checked that keys differ.
    pub fn add(&mut self, pepper: &Key, name: &str, vendor: Option<Vendor>, key: &Secret<String>) {
        let key = key.expose();
        let mac = hmac_sha256(pepper, &[b"static key display", key.as_bytes()]);
        let entry = StaticKey { name: name.into(), vendor, mark: *mac.first_chunk().expect("32 bytes hold 4") };
        self.0.insert(Verifier::of(pepper, key), entry);
    }

    /// The key that was presented, if it is one of these.
    pub fn find(&self, presented: &Verifier) -> Option<&StaticKey> {
        self.0.get(presented)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &StaticKey> {
        self.0.values()
    }
}

/// CRC-32 as in ISO 3309 and IEEE 802.3: reflected polynomial 0xEDB88320, start and final XOR of all ones.
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)])
}
