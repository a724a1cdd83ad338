//! Audit: what was done, and proof that the record is whole.
//!
//! Pure: no files, no clock, no chance; uses `base` and `crypto` alone, so that an auditor's verifier can be made of it.
//!
//! ```text
//! Entry ──line──▶ leaf hash ──append──▶ tree ──root──▶ checkpoint, signed     (one per batch)
//!                                        └─▶ proofs: inclusion, consistency, range
//! ```

pub mod checkpoint;
pub mod coalesce;
pub mod entry;
mod json;
pub mod merkle;
pub mod names;
pub mod note;
pub mod verify;
