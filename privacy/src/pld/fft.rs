//! A complex fast Fourier transform of a power of two: the same bits on every machine.
//!
//! Decimation in frequency forwards (natural order in, bit-reversed out) and in time backwards
//! (bit-reversed in, natural out), so that nothing is ever reordered. Cooley and Tukey 1965;
//! Gentleman and Sande 1966.

use std::sync::{Arc, OnceLock};

/// Twiddle factors for one length.
pub(crate) struct Fft {
    /// `exp(-pi i k / half)` as cosines and sines, for each `half` from 1 to half the length: each
    /// level reads its own from the first to the last.
    levels: Vec<(Vec<f64>, Vec<f64>)>,
}

impl Fft {
    /// For `length`, as [`Self::new`]; those that are not very long are made once.
    pub(crate) fn of(length: usize) -> Arc<Self> {
        const KEPT: usize = 18;
        static TABLES: [OnceLock<Arc<Fft>>; KEPT] = [const { OnceLock::new() }; KEPT];
        match TABLES.get(length.trailing_zeros() as usize) {
            Some(table) => Arc::clone(table.get_or_init(|| Arc::new(Self::new(length)))),
            None => Arc::new(Self::new(length)),
        }
    }

    /// For `length`, a power of two that is at least 4.
    pub(crate) fn new(length: usize) -> Self {
        let half = length / 2;
        // Two short tables and one product per entry; each entry is good to two roundings.
        let fine_bits = half.trailing_zeros() / 2;
        let fine = 1_usize << fine_bits;
        let unit = |k: usize| {
            let (sine, cosine) =
                libm::sincos(-2.0 * core::f64::consts::PI * k as f64 / length as f64);
            (cosine, sine)
        };
        let steps: Vec<_> = (0..fine).map(unit).collect();
        let mut cosines = Vec::with_capacity(half);
        let mut sines = Vec::with_capacity(half);
        for coarse in 0..half >> fine_bits {
            let (c, s) = unit(coarse << fine_bits);
            for &(cf, sf) in &steps {
                cosines.push(c * cf - s * sf);
                sines.push(c * sf + s * cf);
            }
        }
        let mut levels = vec![(cosines, sines)];
        for level in 0..half.trailing_zeros() as usize {
            let every_second = |finer: &[f64]| finer.iter().step_by(2).copied().collect();
            let coarser = (
                every_second(&levels[level].0),
                every_second(&levels[level].1),
            );
            levels.push(coarser);
        }
        levels.reverse();
        Self { levels }
    }

    /// Natural order in, bit-reversed order out; no scaling.
    pub(crate) fn forward(&self, re: &mut [f64], im: &mut [f64]) {
        for (cosines, sines) in self.levels.iter().rev() {
            let span = cosines.len();
            for (re, im) in re
                .chunks_exact_mut(2 * span)
                .zip(im.chunks_exact_mut(2 * span))
            {
                let (re0, re1) = re.split_at_mut(span);
                let (im0, im1) = im.split_at_mut(span);
                let first = re0.iter_mut().zip(im0);
                let second = re1.iter_mut().zip(im1);
                for (((r0, i0), (r1, i1)), (c, s)) in
                    first.zip(second).zip(cosines.iter().zip(sines))
                {
                    let (dr, di) = (*r0 - *r1, *i0 - *i1);
                    *r0 += *r1;
                    *i0 += *i1;
                    *r1 = dr * c - di * s;
                    *i1 = dr * s + di * c;
                }
            }
        }
    }

    /// Bit-reversed order in, natural order out; no scaling.
    pub(crate) fn backward(&self, re: &mut [f64], im: &mut [f64]) {
        for (cosines, sines) in &self.levels {
            let span = cosines.len();
            for (re, im) in re
                .chunks_exact_mut(2 * span)
                .zip(im.chunks_exact_mut(2 * span))
            {
                let (re0, re1) = re.split_at_mut(span);
                let (im0, im1) = im.split_at_mut(span);
                let first = re0.iter_mut().zip(im0);
                let second = re1.iter_mut().zip(im1);
                for (((r0, i0), (r1, i1)), (c, s)) in
                    first.zip(second).zip(cosines.iter().zip(sines))
                {
                    let tr = *r1 * c + *i1 * s;
                    let ti = *i1 * c - *r1 * s;
                    *r1 = *r0 - tr;
                    *i1 = *i0 - ti;
                    *r0 += tr;
                    *i0 += ti;
                }
            }
        }
    }

    /// Where the conjugate partner of the frequency at bit-reversed place `place` is.
    pub(crate) fn partner(place: usize) -> usize {
        // In bit-reversed order `N - k` is at the place with all bits below the highest set one
        // flipped.
        if place < 2 {
            place
        } else {
            let top = usize::BITS - 1 - place.leading_zeros();
            place ^ ((1 << top) - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_defining_sum_and_returns() {
        for bits in 2..8 {
            let n = 1_usize << bits;
            let fft = Fft::new(n);
            let input: Vec<(f64, f64)> = (0..n)
                .map(|k| (libm::sin(k as f64 * 1.7), libm::cos(k as f64 * k as f64)))
                .collect();
            let (mut re, mut im): (Vec<f64>, Vec<f64>) = input.iter().copied().unzip();
            fft.forward(&mut re, &mut im);
            for place in 0..n {
                let k = place.reverse_bits() >> (usize::BITS - bits);
                let (mut sum_re, mut sum_im) = (0.0, 0.0);
                for (j, (x, y)) in input.iter().enumerate() {
                    let angle = -2.0 * core::f64::consts::PI * ((j * k) % n) as f64 / n as f64;
                    let (s, c) = libm::sincos(angle);
                    sum_re += x * c - y * s;
                    sum_im += x * s + y * c;
                }
                assert!((re[place] - sum_re).abs() < 1e-13 * n as f64);
                assert!((im[place] - sum_im).abs() < 1e-13 * n as f64);
                let partner = Fft::partner(place).reverse_bits() >> (usize::BITS - bits);
                assert_eq!((partner + k) % n, 0, "{n} {place}");
            }
            fft.backward(&mut re, &mut im);
            for (k, (x, y)) in input.into_iter().enumerate() {
                assert!((re[k] / n as f64 - x).abs() < 1e-14);
                assert!((im[k] / n as f64 - y).abs() < 1e-14);
            }
        }
    }
}
