//! Stored fields: a version tag, then postcard, read back strictly.
//!
//! Invariants
//! - A row that was read is byte for byte the row that writing it again would give (canonical).
//! - Nothing follows the value.
//! - A version this program does not know is an error of its own, never a guess.
//!
//! Format: `version u8 | postcard 1.x`. Source: the postcard wire format specification.

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why stored bytes are not the value they should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end too early, hold an impossible value, or are not in canonical form.
    #[error("stored field is malformed")]
    Malformed,
    /// Written by another version of the format.
    #[error("stored field has version {found}; this program reads version {known}")]
    Version {
        /// The tag that was found.
        found: u8,
        /// The tag that was expected.
        known: u8,
    },
}

/// `version`, then `value` in postcard.
pub fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(ROW_BYTES_USUAL);
    out.push(version);
    postcard::serialize_with_flavor(value, Written(out)).expect("a row's fields are all of types postcard can write")
}

/// What most rows fit in, so that writing one does not move it about.
const ROW_BYTES_USUAL: usize = 512;

/// Writes to memory.
struct Written(Vec<u8>);

impl Flavor for Written {
    type Output = Vec<u8>;

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Writes nowhere: fails at the first byte that differs from what is there.
struct Compared<'a>(&'a [u8]);

impl Flavor for Compared<'_> {
    type Output = bool;

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0 = self.0.strip_prefix(data).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        let (&first, rest) = self.0.split_first().ok_or(postcard::Error::SerializeBufferFull)?;
        self.0 = rest;
        if first == data { Ok(()) } else { Err(postcard::Error::SerializeBufferFull) }
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.0.is_empty())
    }
}

/// Reads what [`encode`] wrote.
///
/// Errors: `Version` for another tag; `Malformed` for anything that `encode` would not have written.
pub fn decode<T: Serialize + DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let (&found, body) = bytes.split_first().ok_or(CodecError::Malformed)?;
    if found != version {
        return Err(CodecError::Version { found, known: version });
    }
    let value = postcard::from_bytes::<T>(body).map_err(|_| CodecError::Malformed)?;
    match postcard::serialize_with_flavor(&value, Compared(body)) {
        Ok(true) => Ok(value),
        Ok(false) | Err(_) => Err(CodecError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_round_trips_and_anything_else_is_refused() {
        let bytes = encode(1, &(300u32, "ab".to_string()));
        assert_eq!(decode::<(u32, String)>(1, &bytes), Ok((300, "ab".to_string())));
        assert_eq!(decode::<(u32, String)>(2, &bytes), Err(CodecError::Version { found: 1, known: 2 }));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode::<(u32, String)>(1, &longer), Err(CodecError::Malformed));
        for cut in 0..bytes.len() {
            assert!(decode::<(u32, String)>(1, &bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_number_written_longer_than_needed_is_refused() {
        assert_eq!(decode::<u32>(1, &[1, 0x81, 0x00]), Err(CodecError::Malformed));
    }
}
