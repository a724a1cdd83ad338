//! expect: E0277
//! A key printed into a message.
use crate::crypto::secret::Secret;

fn attempt(key: &Secret<String>) -> String {
    format!("{key}")
}
