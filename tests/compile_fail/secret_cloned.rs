//! expect: E0277
//! A key copied away.
use crate::crypto::secret::Secret;

fn attempt(key: &Secret<String>) -> Secret<String> {
    Secret::clone(key)
}
