//! The file of a model, and the tokenizer of one that is read.
//!
//! First byte even: the rest is edits of the tiny model of the vectors (place u16 LE, byte), and is read as a file. What is refused is refused
//! within memory's bounds; what is read embeds a text in the width that it names. Odd: the rest is text, and its vector is of length 1.

use std::sync::LazyLock;

use rosemary::embed::{Embedding, Model};

const TINY: &[u8] = include_bytes!("../../../tests/vectors/embedding/tiny.model");
static MODEL: LazyLock<Model> = LazyLock::new(|| Model::read(TINY).expect("the model of the vectors"));

/// Texts that tokenizers trip over.
pub const WORDS: &[&str] =
    &["[CLS]", "##", "\u{301}", "\u{200b}", "\u{fffd}", "\u{60a3}", "\u{130}", "\u{a0}", "penicillin", "allergic", "\0", "'"];

/// The target.
pub fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    if first % 2 == 1 {
        let vector = MODEL.embed(&String::from_utf8_lossy(rest));
        let length: f32 = vector.values().iter().map(|value| (f32::from(*value) * vector.scale()).powi(2)).sum();
        assert!((length.sqrt() - 1.0).abs() < 0.1, "a vector of length {}", length.sqrt());
        let again = Embedding::from_bytes(&vector.to_bytes()).expect("a vector reads back");
        assert!(again.values() == vector.values() && again.scale() == vector.scale());
        return;
    }
    let mut file = TINY.to_vec();
    for edit in rest.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % file.len();
        file[place] = edit[2];
    }
    file.truncate(file.len() - usize::from(first / 2 % 2) * rest.len().min(file.len()));
    if let Ok(model) = Model::read(&file) {
        assert_eq!(model.embed("penicillin").values().len(), model.width());
    }
}
