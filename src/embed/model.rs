//! The file of a model: its pieces and its weights, read once and checked whole.
//!
//! ```text
//! "RMEMBED1"                                       8 bytes
//! tokens, width, layers, heads, inner, pieces, flags   7 x u32 LE: longest text in pieces; numbers a vector has; layers; heads a layer; width of
//!                                                  the inner step; pieces known; bit 0: case and accents are folded
//! epsilon                                          f32 LE, of the norms
//! pieces x { length u16 LE, UTF-8 }                in the order of their numbers, `[UNK]`, `[CLS]` and `[SEP]` among them
//! matrix pieces x width, matrix tokens x width     what each piece and each place adds (the type of sentence added to the places)
//! norm                                             of that sum
//! layers x { query, key, value, output             each: matrix width x width, bias
//!            norm
//!            matrix inner x width, bias, matrix width x inner, bias
//!            norm }
//! matrix r x c:  r x f32 LE scales, then r x c x i8: the weight of a row and column is its step times the scale of its row
//! bias, norm:    f32 LE, one a row; a norm is its weights, then its biases
//! ```
//! Invariants
//! - Nothing follows; every number is finite; every bound is in `limits`, and is looked at before memory is taken.
//! - Its id is the head of the SHA-256 of the file, so vectors of two models are never compared.

use crate::base::limits;
use crate::crypto::hash::sha256;
use crate::embed::tokens::Vocabulary;
use crate::embed::vector::{Embedding, Probe};

/// Which model made a vector: the first 16 bytes of the SHA-256 of its file.
pub type ModelId = [u8; 16];

/// Why bytes are not a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ModelError {
    /// Its first bytes are others.
    #[error("not a model file of this version; make one with convert-model")]
    NotAModel,
    /// Other bytes than were meant.
    #[error("its SHA-256 is not the configured one")]
    OtherHash,
    /// A number in its head is out of bounds.
    #[error("its head names a size that this version does not take: {0}")]
    Size(&'static str),
    /// It ends early, goes on too long, or holds what no model holds.
    #[error("it is damaged at byte {0}")]
    Damaged(usize),
}

const MAGIC: &[u8; 8] = b"RMEMBED1";

/// Rows of weights: steps of int8, one scale a row.
pub(super) struct Matrix {
    pub(super) columns: usize,
    pub(super) scales: Vec<f32>,
    pub(super) steps: Vec<i8>,
}

/// A matrix and what is added to its products.
pub(super) struct Linear {
    pub(super) matrix: Matrix,
    pub(super) bias: Vec<f32>,
}

pub(super) struct Norm {
    pub(super) weights: Vec<f32>,
    pub(super) biases: Vec<f32>,
}

pub(super) struct Layer {
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) output: Linear,
    pub(super) attended: Norm,
    pub(super) widen: Linear,
    pub(super) narrow: Linear,
    pub(super) norm: Norm,
}

/// A model in memory; see the module text.
pub struct Model {
    id: ModelId,
    pub(super) tokens: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) inner: usize,
    pub(super) epsilon: f32,
    pub(super) vocabulary: Vocabulary,
    pub(super) pieces: Matrix,
    pub(super) places: Matrix,
    pub(super) first: Norm,
    pub(super) layers: Vec<Layer>,
}

impl Model {
    /// The model in `bytes`, whose SHA-256 must be `hash`.
    pub fn pinned(bytes: &[u8], hash: &[u8; 32]) -> Result<Self, ModelError> {
        if sha256(&[bytes]) != *hash {
            return Err(ModelError::OtherHash);
        }
        Self::read(bytes)
    }

    /// The model in `bytes`.
    pub fn read(bytes: &[u8]) -> Result<Self, ModelError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(ModelError::NotAModel)?;
        let mut from = Reader { rest, whole: bytes.len() };
        let tokens = from.size("longest text", 2, limits::ENCODER_TOKENS_MAX)?;
        let width = from.size("width", 1, limits::ENCODER_WIDTH_MAX)?;
        let layers = from.size("layers", 1, limits::ENCODER_LAYERS_MAX)?;
        let heads = from.size("heads", 1, width)?;
        let inner = from.size("inner width", 1, limits::ENCODER_INNER_MAX)?;
        let pieces = from.size("pieces", 3, limits::ENCODER_PIECES_MAX)?;
        let flags = from.size("flags", 0, 1)?;
        if !width.is_multiple_of(heads) {
            return Err(ModelError::Size("heads"));
        }
        let epsilon = from.numbers(1)?[0];
        if epsilon < 0.0 {
            return Err(from.damaged());
        }
        let mut known: Vec<Box<str>> = Vec::new();
        for _ in 0..pieces {
            let length = usize::from(u16::from_le_bytes(*from.chunk()?));
            let text = std::str::from_utf8(from.take(length)?).map_err(|_| from.damaged())?;
            known.push(text.into());
        }
        let vocabulary = Vocabulary::new(known, flags & 1 == 1).ok_or_else(|| from.damaged())?;
        let model = Self {
            id: *sha256(&[bytes]).first_chunk().expect("32 bytes hold 16"),
            tokens,
            width,
            heads,
            inner,
            epsilon,
            vocabulary,
            pieces: from.matrix(pieces, width)?,
            places: from.matrix(tokens, width)?,
            first: from.norm(width)?,
            layers: (0..layers).map(|_| from.layer(width, inner)).collect::<Result<_, _>>()?,
        };
        if from.rest.is_empty() { Ok(model) } else { Err(from.damaged()) }
    }

    /// Which model this is.
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// Numbers a vector has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vector of a text, as it is kept. What it costs: docs/search.md.
    pub fn embed(&self, text: &str) -> Embedding {
        Embedding::of(&self.encode(text))
    }

    /// The vector of a query.
    pub fn probe(&self, text: &str) -> Probe {
        Probe::of(&self.encode(text))
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl<'a> Reader<'a> {
    fn damaged(&self) -> ModelError {
        ModelError::Damaged(self.whole - self.rest.len())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ModelError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], ModelError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(taken)
    }

    fn size(&mut self, name: &'static str, least: usize, most: usize) -> Result<usize, ModelError> {
        let size = usize::try_from(u32::from_le_bytes(*self.chunk()?)).ok();
        size.filter(|size| (least..=most).contains(size)).ok_or(ModelError::Size(name))
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<f32>, ModelError> {
        let bytes = self.take(count.saturating_mul(4))?;
        let numbers: Vec<f32> = bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
        if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(self.damaged()) }
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Result<Matrix, ModelError> {
        let scales = self.numbers(rows)?;
        let steps = self.take(rows.saturating_mul(columns))?.iter().map(|step| i8::from_le_bytes([*step])).collect();
        Ok(Matrix { columns, scales, steps })
    }

    fn linear(&mut self, rows: usize, columns: usize) -> Result<Linear, ModelError> {
        Ok(Linear { matrix: self.matrix(rows, columns)?, bias: self.numbers(rows)? })
    }

    fn norm(&mut self, width: usize) -> Result<Norm, ModelError> {
        Ok(Norm { weights: self.numbers(width)?, biases: self.numbers(width)? })
    }

    fn layer(&mut self, width: usize, inner: usize) -> Result<Layer, ModelError> {
        Ok(Layer {
            query: self.linear(width, width)?,
            key: self.linear(width, width)?,
            value: self.linear(width, width)?,
            output: self.linear(width, width)?,
            attended: self.norm(width)?,
            widen: self.linear(inner, width)?,
            narrow: self.linear(width, inner)?,
            norm: self.norm(width)?,
        })
    }
}
