//! Credentials: how keys are drawn, recognised, looked up and named. Pure.
//!
//! A user key is `rm_live_`, 40 random hex digits (160 bits), then 8 hex digits: the CRC-32 of all that precedes, the prefix included.
//! The checksum lets scanners find a leaked key in a repository without asking anybody; it proves nothing, and the service does not look at it.
//!
//! Invariants
//! - A key is stored and looked up as its [`Verifier`], HMAC-SHA-256 under the sealed pepper; equality of verifiers is all that is compared,
//!   so timing tells nothing about a key.
//! - A name of a key (its prefix, `env:NAME#…`) does not help to guess it.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::authn::principal::Vendor;
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
    /// The dashboard's own key without a token that says for whom it asks.
    #[error("Missing X-Dashboard-Token header")]
    DashboardMissing,
    /// A token that the dashboard did not make for us, or for somebody who may not sign in.
    #[error("Invalid dashboard token")]
    DashboardInvalid,
    /// A token whose time is over.
    #[error("Dashboard token expired")]
    DashboardExpired,
}

/// Finds the credential in the value of an `Authorization` header (RFC 6750 section 2.1; the scheme's case does not matter).
///
/// `token_scheme` also admits `Token <key>`, which Mem0 clients send.
pub fn bearer(header: Option<&str>, token_scheme: bool) -> Result<&str, Unauthenticated> {
    let header = header.ok_or(Unauthenticated::Missing)?.trim_matches([' ', '\t']);
    let (scheme, key) = header.split_once([' ', '\t']).unwrap_or((header, ""));
    let known = scheme.eq_ignore_ascii_case("bearer") || token_scheme && scheme.eq_ignore_ascii_case("token");
    if !known {
        return Err(Unauthenticated::Missing);
    }
    match key.trim_start_matches([' ', '\t']) {
        "" => Err(Unauthenticated::Empty),
        key if key.len() > limits::CREDENTIAL_BYTES_MAX => Err(Unauthenticated::Invalid),
        key => Ok(key),
    }
}

/// AI tools that the label of a user key may name.
const TOOLS: [&str; 6] = ["cursor", "claude", "chatgpt", "gemini", "grok", "n8n"];

/// The AI tool that a user key speaks for where one is needed (MCP): the first of [`TOOLS`] that its label names, in any case; else `apikey`.
pub fn tool_of_label(label: &str) -> Vendor {
    let label = Zeroizing::new(label.to_ascii_lowercase());
    let named = TOOLS.iter().find(|tool| label.contains(**tool)).unwrap_or(&"apikey");
    Vendor::parse(named).expect("each is a vendor's name")
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

/// Whether `key` has the shape and the checksum of a user key.
#[cfg(test)]
fn is_user_key(key: &str) -> bool {
    let Some((body, checksum)) = key.split_at_checked(USER_KEY_CHARS - CHECKSUM_DIGITS) else { return false };
    let digits = body.strip_prefix(USER_KEY_PREFIX);
    digits.is_some_and(|digits| digits.bytes().all(|digit| hex::value(digit).is_some()))
        && checksum == format!("{:08x}", crc32(body.as_bytes()))
}

/// The first [`DISPLAY_CHARS`] characters of a key, shown in lists.
pub fn display_prefix(key: &str) -> &str {
    key.char_indices().nth(DISPLAY_CHARS).map_or(key, |(end, _)| &key[..end])
}

/// What is stored in place of a key, and looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verifier(pub [u8; 32]);

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

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
    /// A new key under the old name is another credential.
    pub id: SettingId,
}

/// How a secret of the settings is known without it: the first 16 bytes of HMAC(pepper, secret). Two secrets share it by chance never; its
/// first 4 bytes, which people and the log are shown, they may.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SettingId(pub [u8; 16]);

impl SettingId {
    /// That of `secret`.
    pub fn of(pepper: &Key, secret: &Secret<String>) -> Self {
        let mac = hmac_sha256(pepper, &[b"static key display", secret.expose().as_bytes()]);
        Self(*mac.first_chunk().expect("32 bytes hold 16"))
    }

    /// What is shown of it.
    pub fn mark(&self) -> [u8; 4] {
        *self.0.first_chunk().expect("16 bytes hold 4")
    }
}

/// The keys from the settings, by verifier.
#[derive(Default)]
pub struct StaticKeys(HashMap<Verifier, StaticKey>);

impl StaticKeys {
    /// Adds the key of variable `name`; the settings have checked that keys differ.
    pub fn add(&mut self, pepper: &Key, name: &str, vendor: Option<Vendor>, key: &Secret<String>) {
        let entry = StaticKey { name: name.into(), vendor, id: SettingId::of(pepper, key) };
        self.0.insert(Verifier::of(pepper, key.expose()), entry);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_matches_published_values() {
        // The check value of the CRC catalogue (reveng, CRC-32/ISO-HDLC), and zlib's own examples.
        for (bytes, crc) in
            [(&b""[..], 0), (b"123456789", 0xCBF4_3926), (b"a", 0xE8B7_BE43), (b"The quick brown fox jumps over the lazy dog", 0x414F_A339)]
        {
            assert_eq!(crc32(bytes), crc);
        }
    }

    #[test]
    fn a_drawn_key_has_the_contract_shape() {
        let key = draw_user_key();
        let text = key.expose();
        assert_eq!(text.len(), 56);
        assert!(text.starts_with("rm_live_") && text[8..].bytes().all(|digit| hex::value(digit).is_some()));
        assert!(is_user_key(text));
        assert_eq!(display_prefix(text), &text[..16]);
        assert_ne!(draw_user_key().expose(), text);
    }

    #[test]
    fn a_golden_key_stays_valid() {
        let key = "rm_live_000102030405060708090a0b0c0d0e0f10111213";
        assert_eq!(format!("{:08x}", crc32(key.as_bytes())), "f8d983bf");
        assert!(is_user_key(&format!("{key}f8d983bf")));
    }

    #[test]
    fn any_changed_character_is_noticed() {
        let key = draw_user_key();
        for at in 0..key.expose().len() {
            for other in ['0', '1', 'F', 'é', ' '] {
                let mut changed: Vec<char> = key.expose().chars().collect();
                if std::mem::replace(&mut changed[at], other) != other {
                    assert!(!is_user_key(&changed.into_iter().collect::<String>()), "{at}");
                }
            }
        }
        for bad in ["", "rm_live_", &key.expose()[..55], &format!("{}0", key.expose()), &key.expose().to_uppercase()] {
            assert!(!is_user_key(bad));
        }
    }

    #[test]
    fn the_header_gives_the_credential_or_the_contract_refusal() {
        for (header, credential) in [
            (Some("Bearer abc"), Ok("abc")),
            (Some("bearer abc"), Ok("abc")),
            (Some("BEARER  \tabc def "), Ok("abc def")),
            (None, Err(Unauthenticated::Missing)),
            (Some(""), Err(Unauthenticated::Missing)),
            (Some("abc"), Err(Unauthenticated::Missing)),
            (Some("Basic abc"), Err(Unauthenticated::Missing)),
            (Some("Bearerabc"), Err(Unauthenticated::Missing)),
            (Some("Token abc"), Err(Unauthenticated::Missing)),
            (Some("Bearer"), Err(Unauthenticated::Empty)),
            (Some("Bearer \t "), Err(Unauthenticated::Empty)),
        ] {
            assert_eq!(bearer(header, false), credential, "{header:?}");
        }
        assert_eq!(bearer(Some("token abc"), true), Ok("abc"));
        let long = |n| format!("Bearer {}", "x".repeat(n));
        assert!(bearer(Some(&long(limits::CREDENTIAL_BYTES_MAX)), false).is_ok());
        assert_eq!(bearer(Some(&long(limits::CREDENTIAL_BYTES_MAX + 1)), false), Err(Unauthenticated::Invalid));
        assert!(Unauthenticated::Empty.to_string().starts_with("Missing or malformed Authorization header"));
        assert_eq!(Unauthenticated::Invalid.to_string(), "Invalid API key");
    }

    #[test]
    fn a_label_names_a_tool_or_none() {
        for (label, tool) in [
            ("Cursor on ward 3", "cursor"),
            ("my CLAUDE key", "claude"),
            ("ChatGPT", "chatgpt"),
            ("gemini-cli", "gemini"),
            ("grok", "grok"),
            ("n8n flows", "n8n"),
            ("Default", "apikey"),
            ("", "apikey"),
            ("cla ude", "apikey"),
            ("claude, then cursor", "cursor"),
        ] {
            assert_eq!(tool_of_label(label).name(), tool, "{label}");
        }
    }

    #[test]
    fn a_static_key_is_found_by_its_verifier_and_named_without_it() {
        let pepper = Secret::new([7; 32]);
        let mut keys = StaticKeys::default();
        keys.add(&pepper, "RM_API_KEY", None, &Secret::new("the owner's key".to_owned()));
        keys.add(&pepper, "RM_AGENT_KEY_CURSOR", Vendor::parse("cursor"), &Secret::new("the agent's key".to_owned()));
        let found = keys.find(&Verifier::of(&pepper, "the agent's key")).unwrap();
        assert_eq!((found.vendor.as_ref().map(Vendor::name), &*found.name), (Some("cursor"), "RM_AGENT_KEY_CURSOR"));
        assert!(!Verifier::of(&pepper, "the agent's key").0.windows(4).any(|part| part == found.id.mark()));
        assert_eq!(keys.find(&Verifier::of(&pepper, "the agent's ke")), None);
        assert_eq!(keys.find(&Verifier::of(&Secret::new([8; 32]), "the agent's key")), None);
        assert_eq!(keys.iter().count(), 2);
    }

    #[test]
    fn keys_that_are_shown_alike_are_known_apart() {
        // Of 4 bytes, some 80,000 secrets hold a pair: what an emergency revokes was known by these alone, and took the innocent key along.
        let (pepper, mut seen) = (Secret::new([7; 32]), HashMap::new());
        let (one, other) = (0_u32..)
            .find_map(|n| {
                let id = SettingId::of(&pepper, &Secret::new(n.to_string()));
                seen.insert(id.mark(), id).map(|earlier| (earlier, id))
            })
            .unwrap();
        assert!(one.mark() == other.mark() && one != other);
    }
}
