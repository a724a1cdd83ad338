//! Word pieces to a vector: the layers of a BERT encoder, the mean of what they say of each piece, brought to length 1.
//!
//! Products are of whole numbers: weights are int8, and what they meet is rounded to 12 bits a piece, so that a product of a row is exact in an
//! i32 and is one of `product`, several at a time. The rest is f32.
//!
//! Invariants
//! - The same text gives the same vector on one machine; a text of nothing the model knows gives one too.
//! - What derives from the text is wiped.
//!
//! Source: Vaswani et al., "Attention is all you need" (2017); Devlin et al., "BERT" (2018): norm after each step, GELU by the error function
//! (Hendrycks and Gimpel 2016; erf by Abramowitz and Stegun 7.1.26, off by at most 1.5e-7); Reimers and Gurevych, "Sentence-BERT" (2019): the mean.

use zeroize::Zeroizing;

use super::model::{Linear, Matrix, Model, Norm};
use super::product::{add_share, dot, product, widen};
use super::vector::{Step as _, largest, real};
use crate::base::limits;

/// The largest step of what weights meet: `128 * FINE * inner` fits an i32.
const FINE: f32 = 2047.0;
const _: () = assert!(128 * 2047 * limits::ENCODER_INNER_MAX < 1 << 31);

type Numbers = Zeroizing<Vec<f32>>;

/// One row of numbers a piece, as whole steps.
struct Steps {
    columns: usize,
    scales: Numbers,
    steps: Zeroizing<Vec<i16>>,
}

impl Model {
    /// The vector of `text`, of length 1.
    pub(super) fn encode(&self, text: &str) -> Numbers {
        let pieces = self.vocabulary.pieces(text, self.tokens);
        let (count, width) = (pieces.len(), self.width);
        let mut state: Numbers = zeros(count * width);
        for ((out, piece), place) in state.chunks_exact_mut(width).zip(pieces.iter()).zip(0..) {
            add_row(&self.pieces, usize::try_from(*piece).expect("a piece is a place in the table"), out);
            add_row(&self.places, place, out);
        }
        self.norm(&self.first, &mut state);

        let mut room = [(); 4].map(|()| zeros(count * width));
        let mut wide = zeros(count * self.inner);
        for layer in &self.layers {
            let [query, key, value, out] = &mut room;
            let steps = Steps::of(&state, width);
            multiply(&layer.query, &steps, query);
            multiply(&layer.key, &steps, key);
            multiply(&layer.value, &steps, value);
            // What each piece takes from all goes where its query was.
            attend(query, key, value, width, width / self.heads);
            multiply(&layer.output, &Steps::of(query, width), out);
            add(&mut state, out);
            self.norm(&layer.attended, &mut state);

            multiply(&layer.widen, &Steps::of(&state, width), &mut wide);
            wide.iter_mut().for_each(|number| *number = gelu(*number));
            multiply(&layer.narrow, &Steps::of(&wide, self.inner), out);
            add(&mut state, out);
            self.norm(&layer.norm, &mut state);
        }

        let mut mean = zeros(width);
        state.chunks_exact(width).for_each(|row| add(&mut mean, row));
        let length = dot(&mean, &mean).sqrt();
        if length > 0.0 {
            mean.iter_mut().for_each(|number| *number /= length);
        }
        mean
    }

    fn norm(&self, norm: &Norm, state: &mut [f32]) {
        for row in state.chunks_exact_mut(self.width) {
            let share = 1.0 / whole(row.len());
            let mean = row.iter().sum::<f32>() * share;
            row.iter_mut().for_each(|number| *number -= mean);
            let spread = 1.0 / (dot(row, row) * share + self.epsilon).sqrt();
            for ((number, weight), bias) in row.iter_mut().zip(&norm.weights).zip(&norm.biases) {
                *number = *number * spread * weight + bias;
            }
        }
    }
}

impl Steps {
    fn of(rows: &[f32], columns: usize) -> Self {
        let mut steps = Zeroizing::new(Vec::with_capacity(rows.len()));
        let mut scales = Zeroizing::new(Vec::with_capacity(rows.len() / columns));
        for row in rows.chunks_exact(columns) {
            let scale = largest(row) / FINE;
            let by = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            scales.push(scale);
            steps.extend(row.iter().map(|number| i16::nearest(number * by)));
        }
        Self { columns, scales, steps }
    }
}

fn zeros(count: usize) -> Numbers {
    Zeroizing::new(vec![0.0; count])
}

fn add(to: &mut [f32], from: &[f32]) {
    add_share(to, from, 1.0);
}

fn add_row(matrix: &Matrix, row: usize, out: &mut [f32]) {
    let steps = &matrix.steps[row * matrix.columns..][..matrix.columns];
    out.iter_mut().zip(steps).for_each(|(out, step)| *out += f32::from(*step) * matrix.scales[row]);
}

/// `out = from x weights + bias`, a row a piece.
fn multiply(linear: &Linear, from: &Steps, out: &mut [f32]) {
    let (columns, rows) = (from.columns, linear.bias.len());
    let mut wide = vec![0i16; columns];
    for (row, weights) in linear.matrix.steps.chunks_exact(columns).enumerate() {
        widen(&mut wide, weights);
        let (scale, bias) = (linear.matrix.scales[row], linear.bias[row]);
        for (place, steps) in from.steps.chunks_exact(columns).enumerate() {
            out[place * rows + row] = real(product(&wide, steps)) * from.scales[place] * scale + bias;
        }
    }
}

/// Each head: for each piece the mean of all values, weighed by how well its query fits their keys. The result replaces `query`.
fn attend(query: &mut [f32], key: &[f32], value: &[f32], width: usize, head: usize) {
    let by = 1.0 / whole(head).sqrt();
    let mut fits = zeros(key.len() / width);
    let mut mean = zeros(head);
    for from in (0..width).step_by(head) {
        for row in query.chunks_exact_mut(width) {
            let own = &mut row[from..from + head];
            let mut most = f32::MIN;
            for (fit, key) in fits.iter_mut().zip(key.chunks_exact(width)) {
                *fit = dot(own, &key[from..from + head]) * by;
                most = most.max(*fit);
            }
            fits.iter_mut().for_each(|fit| *fit = (*fit - most).exp());
            let share = 1.0 / fits.iter().sum::<f32>();
            mean.fill(0.0);
            for (fit, value) in fits.iter().zip(value.chunks_exact(width)) {
                add_share(&mut mean, &value[from..from + head], *fit);
            }
            own.iter_mut().zip(mean.iter()).for_each(|(own, mean)| *own = mean * share);
        }
    }
}

fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let series = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_8 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - series * (-x * x).exp()).copysign(x)
}

/// A count of numbers as a number; models are small.
fn whole(count: usize) -> f32 {
    f32::from(u16::try_from(count).unwrap_or(u16::MAX))
}
