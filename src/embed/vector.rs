//! Vectors as they are kept: int8 with one scale, a quarter of their size as numbers, at a loss that no ranking shows (docs/search.md).
//!
//! Invariants
//! - A vector is of length 1 before it is rounded, so that the product of two is the cosine of their angle.
//! - It is derived from record text and guarded as such: no `Debug`, no `Clone`, wiped when dropped.

use zeroize::{Zeroize, Zeroizing};

use super::product::product_of_bytes;
use crate::base::limits;

/// A text's vector as it is kept.
pub struct Embedding {
    scale: f32,
    values: Vec<i8>,
}

/// A query's vector: finer, as it is never kept.
pub struct Probe {
    scale: f32,
    values: Zeroizing<Vec<i16>>,
}

/// The largest value of a probe: `128 * 2047 * DIMENSIONS_MAX` fits an i32.
const FINE: f32 = 2047.0;
const _: () = assert!(128 * 2047 * limits::ENCODER_WIDTH_MAX < 1 << 31);

impl Embedding {
    /// The int8 form of a vector.
    pub fn of(vector: &[f32]) -> Self {
        let (scale, values) = rounded(vector, 127.0);
        Self { scale, values }
    }

    /// As stored: the scale (f32 LE), then one byte a dimension.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 + self.values.len()));
        bytes.extend_from_slice(&self.scale.to_le_bytes());
        bytes.extend(self.values.iter().map(|value| value.to_le_bytes()[0]));
        bytes
    }

    /// What [`Embedding::to_bytes`] wrote; `None` if it cannot have.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (scale, values) = bytes.split_first_chunk::<4>()?;
        let scale = f32::from_le_bytes(*scale);
        if !(scale.is_finite() && scale >= 0.0) || values.is_empty() || values.len() > limits::ENCODER_WIDTH_MAX {
            return None;
        }
        Some(Self { scale, values: values.iter().map(|value| i8::from_le_bytes([*value])).collect() })
    }

    /// What one step of a value is worth.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The steps of each dimension.
    pub fn values(&self) -> &[i8] {
        &self.values
    }
}

impl Drop for Embedding {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl Probe {
    /// The form of a query's vector that products are taken with.
    pub fn of(vector: &[f32]) -> Self {
        let (scale, values) = rounded(vector, FINE);
        Self { scale, values: Zeroizing::new(values) }
    }

    /// Dimensions.
    pub fn width(&self) -> usize {
        self.values.len()
    }

    /// The cosine of the angle to the vector of these steps. About 60 ns for 384 dimensions.
    #[inline]
    pub fn cosine(&self, scale: f32, values: &[i8]) -> f32 {
        real(product_of_bytes(&self.values, values)) * self.scale * scale
    }
}

/// `vector` as whole steps, the largest of which is `most`, and what a step is worth.
pub(super) fn rounded<T: Step>(vector: &[f32], most: f32) -> (f32, Vec<T>) {
    let (scale, mut values) = (largest(vector) / most, Vec::with_capacity(vector.len()));
    let steps = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    values.extend(vector.iter().map(|value| T::nearest(value * steps)));
    (scale, values)
}

pub(super) fn largest(vector: &[f32]) -> f32 {
    vector.iter().fold(0.0, |most, value| value.abs().max(most))
}

/// A whole number that a small real one is rounded to.
pub(super) trait Step {
    fn nearest(value: f32) -> Self;
}

impl Step for i8 {
    fn nearest(value: f32) -> Self {
        // A cast of a float saturates; NaN becomes 0.
        #[allow(clippy::cast_possible_truncation, clippy::as_conversions)]
        {
            value.round() as i8
        }
    }
}

impl Step for i16 {
    #[inline]
    fn nearest(value: f32) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::as_conversions)]
        {
            value.round() as i16
        }
    }
}

/// A sum of steps as a real number; scores need no more than its 24 leading bits.
#[inline]
pub(super) fn real(sum: i32) -> f32 {
    #[allow(clippy::cast_precision_loss, clippy::as_conversions)]
    {
        sum as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_nothing_else_is() {
        let embedding = Embedding::of(&[0.6, -0.8, 0.0]);
        let bytes = embedding.to_bytes();
        assert_eq!((bytes.len(), embedding.values()), (7, &[95, -127, 0][..]));
        let again = Embedding::from_bytes(&bytes).unwrap();
        assert_eq!((again.scale(), again.values()), (embedding.scale(), embedding.values()));
        assert!(Embedding::from_bytes(&bytes[..4]).is_none() && Embedding::from_bytes(b"").is_none());
        assert!(Embedding::from_bytes(&[0, 0, 0xc0, 0x7f, 1]).is_none(), "a scale that is no number");
        assert!(Embedding::from_bytes(&vec![0; 5 + limits::ENCODER_WIDTH_MAX]).is_none());
    }

    #[test]
    fn a_product_is_the_cosine_of_the_angle() {
        let (a, b) = ([0.6, 0.8, 0.0], [0.8, 0.6, 0.0]);
        let with = |probe: &[f32], kept: &[f32]| {
            let kept = Embedding::of(kept);
            Probe::of(probe).cosine(kept.scale(), kept.values())
        };
        assert!((with(&a, &b) - 0.96).abs() < 0.005 && (with(&a, &a) - 1.0).abs() < 0.005);
        assert!((with(&a, &[-0.6, -0.8, 0.0]) + 1.0).abs() < 0.005);
        assert_eq!(with(&[0.0; 3], &a), 0.0);
    }
}
