//! Sums of products, several at a time: what the encoder and a search by meaning spend their time in.
//!
//! They are written with vectors of a fixed width, not left to the compiler: `pmaddwd` of SSE2 on every x86-64, the like of it on aarch64, at every
//! level of optimization.
//!
//! Invariant: a sum of whole numbers is exact as long as it fits an i32; who calls asserts that it does.

use wide::{f32x4, i8x16, i16x8, i16x16, i32x4, i32x8};

/// The sum of products of steps. *(measured)* About 15 products a nanosecond; several rows at once were slower.
pub fn product(a: &[i16], b: &[i16]) -> i32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let mut sums = i32x4::ZERO;
    for (a, b) in a.iter().zip(b) {
        sums += i16x8::new(*a).dot(i16x8::new(*b));
    }
    total(&sums.to_array()) + a_rest.iter().zip(b_rest).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>()
}

/// As [`product`], where the second is kept in bytes.
pub fn product_of_bytes(a: &[i16], b: &[i8]) -> i32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let mut sums = i32x8::ZERO;
    for (a, b) in a.iter().zip(b) {
        sums += i16x16::new(*a).dot(i16x16::from(i8x16::new(*b)));
    }
    total(&sums.to_array()) + a_rest.iter().zip(b_rest).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum::<i32>()
}

/// Bytes as steps.
pub fn widen(to: &mut [i16], from: &[i8]) {
    let ((to, to_rest), (from, from_rest)) = (to.as_chunks_mut(), from.as_chunks());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = i16x16::from(i8x16::new(*from)).to_array());
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = i16::from(*from));
}

/// The sum of products of numbers.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let mut sums = f32x4::ZERO;
    for (a, b) in a.iter().zip(b) {
        sums += f32x4::new(*a) * f32x4::new(*b);
    }
    sums.reduce_add() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// Adds `share` of each number of `from`.
pub fn add_share(to: &mut [f32], from: &[f32], share: f32) {
    let ((to, to_rest), (from, from_rest)) = (to.as_chunks_mut(), from.as_chunks());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = (f32x4::new(*to) + f32x4::new(*from) * f32x4::splat(share)).to_array());
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to += from * share);
}

fn total(sums: &[i32]) -> i32 {
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of every sign, the extremes among them.
    fn steps(count: usize, most: i16) -> Vec<i16> {
        (0..count).map(|n| [most, -most, 0, 1, -1][n % 5].wrapping_sub(i16::try_from(n % 7).unwrap() * i16::from(most > 200))).collect()
    }

    #[test]
    fn sums_of_every_length_are_what_one_by_one_gives() {
        for count in (0..70).chain([384, 1536]) {
            let (a, b) = (steps(count, 2047), steps(count, 127));
            let bytes: Vec<i8> = b.iter().map(|step| i8::try_from(*step).unwrap()).collect();
            let plain: i32 = a.iter().zip(&b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
            assert_eq!((product(&a, &b), product_of_bytes(&a, &bytes)), (plain, plain), "{count}");
            let mut wider = vec![7; count];
            widen(&mut wider, &bytes);
            assert_eq!(wider, b);
        }
    }

    #[test]
    fn sums_of_numbers_are_near_what_one_by_one_gives() {
        for count in (0..40).chain([384]) {
            let number = |n: usize| f32::from(u16::try_from(n).unwrap()) * 0.25 - 3.0;
            let (a, b): (Vec<f32>, Vec<f32>) = (0..count).map(|n| (number(n), number(count - n))).unzip();
            let plain: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            assert!((dot(&a, &b) - plain).abs() <= plain.abs() * 1e-5 + 1e-3, "{count}: {} {plain}", dot(&a, &b));
            let mut to = b.clone();
            add_share(&mut to, &a, 2.0);
            assert!(to.iter().zip(&a).zip(&b).all(|((to, a), b)| *to == b + a * 2.0), "{count}");
        }
    }

    #[test]
    fn the_widest_rows_of_the_largest_steps_fit() {
        use crate::base::limits;
        let (a, b) = (vec![-2047i16; limits::ENCODER_INNER_MAX], vec![-128i16; limits::ENCODER_INNER_MAX]);
        assert_eq!(product(&a, &b), 2047 * 128 * i32::try_from(limits::ENCODER_INNER_MAX).unwrap());
        assert_eq!(product_of_bytes(&a, &vec![-128i8; limits::ENCODER_INNER_MAX]), product(&a, &b));
    }
}
