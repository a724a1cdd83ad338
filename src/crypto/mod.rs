//! Crypto: secrets, sealing, derivation, signing and the key ladder. No data files, no product words.
//!
//! Every use of a cryptographic library in the product is in this folder (TLS excepted, which is in `http/tls.rs`).

pub mod aead;
pub mod hash;
pub mod kdf;
pub mod ladder;
pub mod secret;
pub mod shamir;
pub mod sign;
pub mod unlock;
