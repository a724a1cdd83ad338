//! Embeddings: a text as a direction, so that what means the same points the same way. An encoder of the BERT family, run here and nowhere else.
//!
//! `unicode` what characters are | `tokens` text to word pieces | `model` the file of weights | `encoder` word pieces to a vector | `vector` int8 vectors
//!
//! ```text
//! text ─ clean, lower, split ─ word pieces ─ [CLS] … [SEP] ─ layers ─ mean over the pieces ─ length 1 ─ int8 with one scale
//! ```
//! Pure: bytes and text in, vectors out; no files, no clock, no chance. The weights come from the operator (`packaging/convert-model` makes the file)
//! and are believed only if their hash is the configured one.

mod encoder;
mod model;
mod product;
mod tokens;
mod unicode;
mod vector;

pub use model::{Model, ModelError, ModelId};
pub use vector::{Embedding, Probe};

#[cfg(test)]
mod tests;
