//! The vectors of one scope, by number: int8, in blocks, so that growing copies nothing and a dead number costs until the next rewrite only.
//!
//! Invariants
//! - All vectors have one width, that of the first; one of another width is not taken.
//! - Blocks are wiped when they are given back.

use zeroize::Zeroize;

use crate::embed::{Embedding, Probe};

/// Numbers a block.
const BLOCK: usize = 256;

/// The vectors of [`BLOCK`] numbers one after the other; scale 0 where there is none.
struct Block {
    scales: [f32; BLOCK],
    values: Box<[i8]>,
}

/// See the module text.
#[derive(Default)]
pub struct Vectors {
    width: usize,
    blocks: Vec<Option<Block>>,
    count: usize,
}

impl Vectors {
    /// Makes `vector` that of `number`.
    pub fn set(&mut self, number: usize, vector: &Embedding) {
        if self.count == 0 {
            (self.width, self.blocks) = (vector.values().len(), Vec::new());
        }
        if vector.values().len() != self.width || vector.scale() <= 0.0 {
            return;
        }
        self.put(number, vector.scale(), vector.values());
    }

    /// Forgets the vector of `number`.
    pub fn clear(&mut self, number: usize) {
        let (width, place) = (self.width, number % BLOCK);
        let Some(Some(block)) = self.blocks.get_mut(number / BLOCK) else { return };
        if block.scales[place] > 0.0 {
            self.count -= 1;
            block.scales[place] = 0.0;
            block.values[place * width..][..width].zeroize();
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Calls `each` with every number that has a vector and the cosine of its angle to `probe`, ascending. Of another width: none.
    pub fn cosines(&self, probe: &Probe, mut each: impl FnMut(usize, f32)) {
        if self.is_empty() || probe.width() != self.width {
            return;
        }
        for (at, block) in self.blocks.iter().enumerate().filter_map(|(at, block)| Some((at, block.as_ref()?))) {
            for (place, (scale, values)) in block.scales.iter().zip(block.values.chunks_exact(self.width)).enumerate() {
                if *scale > 0.0 {
                    each(at * BLOCK + place, probe.cosine(*scale, values));
                }
            }
        }
    }

    /// The same under new numbers, which ascend as the old ones do; those without one are left out.
    pub fn renumber(&mut self, live: impl Fn(usize) -> Option<usize>) {
        let old = std::mem::take(self);
        self.width = old.width;
        for (at, block) in old.blocks.iter().enumerate().filter_map(|(at, block)| Some((at, block.as_ref()?))) {
            for (place, (scale, values)) in block.scales.iter().zip(block.values.chunks_exact(old.width)).enumerate() {
                if *scale > 0.0
                    && let Some(number) = live(at * BLOCK + place)
                {
                    self.put(number, *scale, values);
                }
            }
        }
    }

    fn put(&mut self, number: usize, scale: f32, values: &[i8]) {
        let (block, place, width) = (number / BLOCK, number % BLOCK, self.width);
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, || None);
        }
        let block = self.blocks[block].get_or_insert_with(|| Block { scales: [0.0; BLOCK], values: vec![0; BLOCK * width].into() });
        self.count += usize::from(block.scales[place] == 0.0);
        block.scales[place] = scale;
        block.values[place * width..][..width].copy_from_slice(values);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().flatten().count();
        self.blocks.capacity() * size_of::<Option<Block>>() + blocks * BLOCK * self.width
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.values.zeroize();
        self.scales.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(vectors: &Vectors) -> Vec<usize> {
        let mut found = Vec::new();
        vectors.cosines(&Probe::of(&[1.0, 0.0]), |number, cosine| {
            assert!((cosine - 0.6).abs() < 0.01);
            found.push(number);
        });
        found
    }

    #[test]
    fn vectors_are_found_by_their_numbers_until_they_are_cleared() {
        let (vector, mut vectors) = (Embedding::of(&[0.6, 0.8]), Vectors::default());
        assert!(vectors.is_empty() && all(&vectors).is_empty());
        for number in [0, 3, 255, 256, 5000] {
            vectors.set(number, &vector);
        }
        vectors.set(7, &Embedding::of(&[1.0, 0.0, 0.0]));
        vectors.set(8, &Embedding::of(&[0.0, 0.0]));
        assert_eq!(all(&vectors), [0, 3, 255, 256, 5000]);
        // Three blocks of 256 vectors, not 5001 vectors.
        assert!(vectors.bytes() < 3 * 256 * 2 + 32 * 2100, "{}", vectors.bytes());
        [3, 3, 100_000].into_iter().for_each(|number| vectors.clear(number));
        assert_eq!(all(&vectors), [0, 255, 256, 5000]);
        vectors.renumber(|number| (number != 255).then_some(number / 2));
        assert_eq!(all(&vectors), [0, 128, 2500]);
        vectors.cosines(&Probe::of(&[1.0]), |_, _| panic!("another width"));
        [0, 128, 2500].into_iter().for_each(|number| vectors.clear(number));
        assert!(vectors.is_empty());
        // Empty, it takes vectors of another model.
        vectors.set(1, &Embedding::of(&[0.0, 0.6, 0.8]));
        assert!(!vectors.is_empty());
    }
}
