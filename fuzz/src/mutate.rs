//! A seeded mutator: the same seed makes the same inputs, on any toolchain. It knows no coverage; seeds and words stand in for it.

/// xorshift64*: small, seeded, good enough to choose mutations.
pub struct Dice(u64);

impl Dice {
    /// Throws that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits") % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("below 256")
    }
}

/// One of `seeds`, changed in a few places and cut to `bytes_max`.
pub fn mutated(dice: &mut Dice, seeds: &[Vec<u8>], words: &[&str], bytes_max: usize) -> Vec<u8> {
    let mut bytes = seeds.get(dice.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..dice.below(6) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + dice.below(12)).min(bytes.len());
        match dice.below(8) {
            0 if at < bytes.len() => bytes[at] = dice.byte(),
            1 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => {
                let new: Vec<u8> = (0..dice.below(9)).map(|_| dice.byte()).collect();
                bytes.splice(at..end, new);
            }
            5 => {
                let other = &seeds[dice.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[dice.below(other.len() + 1)..]);
            }
            _ if !words.is_empty() => {
                let word = words[dice.below(words.len())].bytes();
                // Half of the time at the start of a line, where a field would be read as one.
                let line =
                    bytes[at..].iter().position(|byte| *byte == b'\n').filter(|_| dice.below(2) == 0).map_or(at, |next| at + next + 1);
                bytes.splice(line..line, word);
            }
            _ => {}
        }
    }
    bytes.truncate(bytes_max);
    bytes
}
