//! SHA-256 and HMAC-SHA-256.

use aws_lc_rs::{digest, hmac};

use crate::crypto::secret::{Key, Secret};

/// SHA-256 (FIPS 180-4) of `parts`, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let hash = if let [whole] = parts {
        digest::digest(&digest::SHA256, whole)
    } else {
        let mut context = digest::Context::new(&digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        context.finish()
    };
    hash.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// HMAC-SHA-256 (RFC 2104) over `fields`, each preceded by its length (u32 LE), so that no two lists of fields collide.
pub fn hmac_sha256(key: &Key, fields: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    for field in fields {
        context.update(&u32::try_from(field.len()).expect("a field is shorter than 4 GiB").to_le_bytes());
        context.update(field);
    }
    context.sign().as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
}

/// Whether `mac` is HMAC-SHA-256 (RFC 2104) of `message` as it stands: for formats of others. The comparison's time tells nothing.
pub fn is_hmac_sha256(key: &Secret<String>, message: &[u8], mac: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()), message, mac).is_ok()
}

/// HMAC-SHA-256 (RFC 2104) of `message` as it stands: the product only compares.
#[cfg(any(test, fuzzing, feature = "bench-internals"))]
pub fn plain_hmac_sha256(key: &Secret<String>, message: &[u8]) -> [u8; 32] {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()), message)
        .as_ref()
        .try_into()
        .expect("HMAC-SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hex;

    #[test]
    fn sha256_matches_fips_180() {
        assert_eq!(hex::encode(&sha256(&[b"a", b"bc"])), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_mac_of_others_matches_rfc_4231() {
        // Test case 2.
        let mac = hex::decode("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843").unwrap();
        let key = Secret::new("Jefe".to_owned());
        assert!(is_hmac_sha256(&key, b"what do ya want for nothing?", &mac));
        assert_eq!(plain_hmac_sha256(&key, b"what do ya want for nothing?").as_slice(), mac);
        assert!(!is_hmac_sha256(&key, b"what do ya want for nothing!", &mac));
        assert!(!is_hmac_sha256(&key, b"what do ya want for nothing?", &mac[..16]));
    }

    #[test]
    fn fields_are_kept_apart() {
        let key = Secret::new([7; 32]);
        assert_ne!(hmac_sha256(&key, &[b"ab", b"c"]), hmac_sha256(&key, &[b"a", b"bc"]));
    }
}
