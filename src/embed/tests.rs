//! The encoder against an implementation that shares nothing with it (`tests/vectors/embedding/make.py`), and against damaged files.

use serde::Deserialize;

use super::model::{Model, ModelError};
use super::vector::{Embedding, Probe};
use crate::crypto::hash::sha256;

/// The tiny model of the vectors.
const TINY: &[u8] = include_bytes!("../../tests/vectors/embedding/tiny.model");
const EXPECTED: &str = include_str!("../../tests/vectors/embedding/expected.json");

#[derive(Deserialize)]
struct Expected {
    text: String,
    pieces: Vec<u32>,
    vector: Vec<f32>,
}

#[test]
fn pieces_and_vectors_are_those_of_an_independent_encoder() {
    let model = Model::read(TINY).unwrap();
    let all: Vec<Expected> = serde_json::from_str(EXPECTED).unwrap();
    assert!(all.len() > 10);
    for Expected { text, pieces, vector } in &all {
        assert_eq!(&*model.vocabulary.pieces(text, model.tokens), pieces, "{text:?}");
        let found = model.encode(text);
        let off = found.iter().zip(vector).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.len() == vector.len() && off < 0.004, "{text:?}: off by {off}");
        let kept = Embedding::of(&found);
        let cosine = Probe::of(vector).cosine(kept.scale(), kept.values());
        assert!((cosine - 1.0).abs() < 0.005, "{text:?}: {cosine}");
    }
}

#[test]
fn a_model_is_believed_only_under_its_hash() {
    let hash = sha256(&[TINY]);
    let model = Model::pinned(TINY, &hash).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((&model.id()[..], model.width()), (&hash[..16], 16));
    assert_eq!(Model::pinned(TINY, &[7; 32]).err(), Some(ModelError::OtherHash));
}

#[test]
fn a_file_that_is_cut_or_longer_or_out_of_bounds_is_refused() {
    for cut in 0..TINY.len() {
        assert!(Model::read(&TINY[..cut]).is_err(), "{cut} bytes");
    }
    assert_eq!(Model::read(&[TINY, &[0]].concat()).err(), Some(ModelError::Damaged(TINY.len())));
    assert_eq!(Model::read(b"PK").err(), Some(ModelError::NotAModel));
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = TINY.to_vec();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        Model::read(&changed).err()
    };
    for (place, size) in ["longest text", "width", "layers", "heads", "inner width", "pieces", "flags"].into_iter().enumerate() {
        assert_eq!(with(8 + 4 * place, &u32::MAX.to_le_bytes()), Some(ModelError::Size(size)));
    }
    assert_eq!(with(20, &5u32.to_le_bytes()), Some(ModelError::Size("heads")), "heads that do not divide the width");
    assert_eq!(with(36, &f32::NAN.to_le_bytes()), Some(ModelError::Damaged(40)));
    assert!(matches!(with(42, &[0xff]), Some(ModelError::Damaged(_))), "a piece that is no text");
}
