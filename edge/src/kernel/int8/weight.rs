//! Weights on their way to integers, fast enough to go there in every training step.
//!
//! A weight is `[.., columns]`, row-major. Scales and factors come as one number, or as one for
//! each column. The recipes are those of [`quant`](crate::quant).

use super::super::Kernels;
use super::level::tiered;
use super::portable::{bound, round_even};

/// Weights that a loop treats at once at least.
const SPAN: usize = 64;

/// The numbers of few columns, repeated until loops over them are long.
type Room = [f32; 2 * SPAN];

/// Numbers for a run of weights that begins in the first column: those of each column, over and
/// over.
fn repeated<'a>(numbers: &'a [f32], room: &'a mut Room) -> &'a [f32] {
    if numbers.len() >= SPAN || numbers.is_empty() {
        return numbers;
    }
    let len = numbers.len() * SPAN.div_ceil(numbers.len());
    for (to, number) in room[..len].iter_mut().zip(numbers.iter().cycle()) {
        *to = *number;
    }
    &room[..len]
}

tiered! {
    fn largest(t, weight: &[f32], most: &mut [f32]) {
        let _ = t;
        for row in weight.chunks(most.len().max(1)) {
            for (most, w) in most.iter_mut().zip(row) {
                let w = w.abs();
                // A NaN compares false and is passed over.
                *most = if w > *most { w } else { *most };
            }
        }
    }

    fn quantize(t, weight: &[f32], scales: &[f32], quantized: &mut [i8]) {
        let _ = t;
        let rows = weight.chunks(scales.len().max(1));
        for (to, row) in quantized.chunks_mut(scales.len().max(1)).zip(rows) {
            for ((q, &w), &scale) in to.iter_mut().zip(row).zip(scales) {
                *q = round_even(bound(w / scale, -127.0, 127.0)) as i8;
            }
        }
    }

    fn dequantize(t, quantized: &[i8], scales: &[f32], weight: &mut [f32]) {
        let _ = t;
        let rows = quantized.chunks(scales.len().max(1));
        for (to, row) in weight.chunks_mut(scales.len().max(1)).zip(rows) {
            for ((w, &q), &scale) in to.iter_mut().zip(row).zip(scales) {
                *w = scale * f32::from(q);
            }
        }
    }

    fn dequantize_over(
        t, quantized: &[i8], scales: &[f32], factors: &[f32], weight: &mut [f32],
    ) {
        let _ = t;
        let rows = quantized.chunks(scales.len().max(1));
        for (to, row) in weight.chunks_mut(scales.len().max(1)).zip(rows) {
            let numbers = row.iter().zip(scales).zip(factors);
            for (w, ((&q, &scale), &factor)) in to.iter_mut().zip(numbers) {
                *w = scale * f32::from(q) / factor;
            }
        }
    }

    fn divide(t, factors: &[f32], weight: &mut [f32]) {
        let _ = t;
        for row in weight.chunks_mut(factors.len().max(1)) {
            for (w, &factor) in row.iter_mut().zip(factors) {
                *w /= factor;
            }
        }
    }

    fn multiply(t, weight: &[f32], factors: &[f32], to: &mut [f32]) {
        let _ = t;
        let rows = weight.chunks(factors.len().max(1));
        for (to, row) in to.chunks_mut(factors.len().max(1)).zip(rows) {
            for ((to, &w), &factor) in to.iter_mut().zip(row).zip(factors) {
                *to = w * factor;
            }
        }
    }
}

fn rows(weight: usize, columns: usize) {
    assert!(
        columns != 0 && weight.is_multiple_of(columns),
        "{weight} weights are no rows of {columns} columns"
    );
}

impl Kernels {
    /// The largest magnitude of a weight, over all if `largest` holds one number and over each
    /// column if it holds as many as there are. What is not a number is passed over.
    pub fn int8_largest(&self, weight: &[f32], to: &mut [f32]) {
        rows(weight.len(), to.len());
        to.fill(0.0);
        if to.len() >= SPAN {
            largest(self.integers, weight, to);
            return;
        }
        let len = to.len() * SPAN.div_ceil(to.len());
        let mut most = [0.0; 2 * SPAN];
        largest(self.integers, weight, &mut most[..len]);
        let columns = to.len();
        for (at, most) in most[..len].iter().enumerate() {
            let to = &mut to[at % columns];
            *to = to.max(*most);
        }
    }

    /// [`quantize_weights`](crate::quant::quantize_weights): `clamp(round(w / s), -127, 127)`, half
    /// to even.
    pub fn int8_quantize_weights(&self, weight: &[f32], scales: &[f32], quantized: &mut [i8]) {
        rows(weight.len(), scales.len());
        assert_eq!(weight.len(), quantized.len(), "one integer for each weight");
        let mut room = [0.0; 2 * SPAN];
        let scales = repeated(scales, &mut room);
        quantize(self.integers, weight, scales, quantized);
    }

    /// The weights that integers stand for: `s q`; with factors, one for each column, `s q / f`.
    pub fn int8_dequantize_weights(
        &self,
        quantized: &[i8],
        scales: &[f32],
        factors: Option<&[f32]>,
        weight: &mut [f32],
    ) {
        rows(quantized.len(), scales.len());
        assert_eq!(weight.len(), quantized.len(), "one weight for each integer");
        let mut room = [0.0; 2 * SPAN];
        let Some(factors) = factors else {
            let scales = repeated(scales, &mut room);
            return dequantize(self.integers, quantized, scales, weight);
        };
        rows(quantized.len(), factors.len());
        let mut other = [0.0; 2 * SPAN];
        if scales.len() == 1 {
            dequantize(
                self.integers,
                quantized,
                repeated(scales, &mut room),
                weight,
            );
            return divide(self.integers, repeated(factors, &mut other), weight);
        }
        assert_eq!(scales.len(), factors.len(), "one of each for each column");
        let (scales, factors) = (repeated(scales, &mut room), repeated(factors, &mut other));
        dequantize_over(self.integers, quantized, scales, factors, weight);
    }

    /// `to = weight * factor`, one factor for each column.
    pub fn int8_scale_columns(&self, weight: &[f32], factors: &[f32], to: &mut [f32]) {
        rows(weight.len(), factors.len());
        assert_eq!(weight.len(), to.len(), "one product for each weight");
        let mut room = [0.0; 2 * SPAN];
        multiply(self.integers, weight, repeated(factors, &mut room), to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tier against plain loops, bit for bit, at narrow, odd and wide rows, ties and numbers
    /// that are none among them.
    #[test]
    fn every_tier_quantizes_weights_by_the_definition() {
        for (rows, columns) in [(1, 1), (7, 3), (50, 10), (3, 63), (5, 64), (4, 200)] {
            let weight = (0..rows * columns)
                .map(|i| match i % 41 {
                    7 => 0.0,
                    19 => f32::NAN,
                    23 => -0.5,
                    _ => ((i * 73 + i / 11 * 31) % 509) as f32 * 0.003 - 0.75,
                })
                .collect::<Vec<_>>();
            let factors = (0..columns)
                .map(|c| (c % 9) as f32 * 0.3 - 1.0)
                .collect::<Vec<_>>();
            for kernels in Kernels::all_available() {
                for scales in [1, columns] {
                    let mut found = vec![9.0; scales];
                    kernels.int8_largest(&weight, &mut found);
                    for (column, found) in found.iter().enumerate() {
                        let of = weight.iter().skip(column).step_by(scales);
                        let expected = of.fold(0.0f32, |most, w| most.max(w.abs()));
                        assert_eq!(found.to_bits(), expected.to_bits());
                    }
                    let scale = |at: usize| (found[at % scales] / 127.0).max(1e-9);
                    let all = (0..scales).map(scale).collect::<Vec<_>>();
                    let mut quantized = vec![9; weight.len()];
                    kernels.int8_quantize_weights(&weight, &all, &mut quantized);
                    let mut real = vec![9.0; weight.len()];
                    kernels.int8_dequantize_weights(&quantized, &all, None, &mut real);
                    let mut over = real.clone();
                    kernels.int8_dequantize_weights(&quantized, &all, Some(&factors), &mut over);
                    for (at, w) in weight.iter().enumerate() {
                        let expected = match w.is_nan() {
                            true => -127.0,
                            false => (w / scale(at)).round_ties_even().clamp(-127.0, 127.0),
                        };
                        assert_eq!(
                            f32::from(quantized[at]).to_bits(),
                            (expected + 0.0).to_bits()
                        );
                        let expected = scale(at) * f32::from(quantized[at]);
                        assert_eq!(real[at].to_bits(), expected.to_bits());
                        let expected = expected / factors[at % columns];
                        assert_eq!(over[at].to_bits(), expected.to_bits());
                    }
                }
                let mut scaled = vec![9.0; weight.len()];
                kernels.int8_scale_columns(&weight, &factors, &mut scaled);
                for (at, (w, scaled)) in weight.iter().zip(&scaled).enumerate() {
                    let expected = w * factors[at % columns];
                    assert!(scaled.to_bits() == expected.to_bits() || expected.is_nan());
                }
            }
        }
    }
}
