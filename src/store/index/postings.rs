//! Postings: ascending document numbers, each with one byte of note, compressed.
//!
//! Invariants
//! - Numbers strictly ascend.
//! - Bytes that were in use are wiped when they are given back, also when a list outgrows them.
//!
//! Format: `varint(delta << 1 | noted)`, then the note if it is not [`PLAIN`]; `delta` is the distance from the number before (from 0 for the
//! first). A common word costs one byte a document.

use crate::base::wipe::wipe;

/// The note that takes no space.
pub const PLAIN: u8 = 1;
/// Numbers lie below this, so that a delta and its flag fit 32 bits.
pub const NUMBER_MAX: u32 = 1 << 31;

/// One list.
#[derive(Default)]
pub struct Postings {
    bytes: Vec<u8>,
    last: u32,
    count: u32,
}

impl Postings {
    /// Appends `number`, which must be above every one before it. Gives the growth of [`Postings::heap_bytes`].
    pub fn push(&mut self, number: u32, note: u8) -> usize {
        debug_assert!(number < NUMBER_MAX && (self.count == 0 || number > self.last));
        let before = self.heap_bytes();
        if self.bytes.capacity() - self.bytes.len() < 6 {
            let len = self.bytes.len();
            // 24 bytes is the least that glibc hands out.
            let mut grown = Vec::with_capacity((len + len / 4 + 8).max(24));
            grown.extend_from_slice(&self.bytes);
            wipe(&mut self.bytes);
            self.bytes = grown;
        }
        let mut value = (number - self.last) << 1 | u32::from(note != PLAIN);
        while value >= 0x80 {
            self.bytes.push((value & 0x7f | 0x80).to_le_bytes()[0]);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
        if note != PLAIN {
            self.bytes.push(note);
        }
        self.last = number;
        self.count += 1;
        self.heap_bytes() - before
    }

    /// How many numbers.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes taken on the heap, the allocator's own word among them.
    pub fn heap_bytes(&self) -> usize {
        if self.bytes.capacity() == 0 { 0 } else { self.bytes.capacity() + 8 }
    }

    /// Numbers and notes, ascending.
    pub fn iter(&self) -> Iter<'_> {
        Iter { bytes: self.bytes.iter(), last: 0 }
    }
}

impl Drop for Postings {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// See [`Postings::iter`].
pub struct Iter<'a> {
    bytes: std::slice::Iter<'a, u8>,
    last: u32,
}

impl Iterator for Iter<'_> {
    type Item = (u32, u8);

    #[inline]
    fn next(&mut self) -> Option<(u32, u8)> {
        let first = *self.bytes.next()?;
        let mut value = u32::from(first & 0x7f);
        if first >= 0x80 {
            let mut shift = 7;
            loop {
                let byte = *self.bytes.next()?;
                value |= u32::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 || shift > 28 {
                    break;
                }
            }
        }
        self.last += value >> 1;
        let note = if value & 1 == 0 { PLAIN } else { *self.bytes.next()? };
        Some((self.last, note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_read_back() {
        let mut list = Postings::default();
        let mut expected = Vec::new();
        let (mut number, mut grown) = (0u32, 0);
        for i in 0..2000u32 {
            let note = if i % 3 == 0 { 0xe0 | (i % 31).to_le_bytes()[0] } else { PLAIN };
            grown += list.push(number, note);
            expected.push((number, note));
            number += 1 + (i * i * 977) % (1 << (i % 21));
        }
        grown += list.push(NUMBER_MAX - 1, 7);
        expected.push((NUMBER_MAX - 1, 7));
        assert_eq!(list.iter().collect::<Vec<_>>(), expected);
        assert_eq!((list.count(), list.heap_bytes()), (2001, grown));
        assert_eq!(Postings::default().iter().next(), None);
    }
}
