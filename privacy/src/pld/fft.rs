//! A complex fast Fourier transform of a power of two: the same bits on every machine.
//!
//! Decimation in frequency forwards (natural order in, bit-reversed out) and in time backwards
//! (bit-reversed in, natural out), so that nothing is ever reordered. Cooley and Tukey 1965;
//! Gentleman and Sande 1966.

/// Twiddle factors for one length.
pub(crate) struct Fft {
    length: usize,
    /// `exp(-2 pi i k / length)` for the first half, as cosines and sines.
    cosines: Vec<f64>,
    sines: Vec<f64>,
}

impl Fft {
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
        Self {
            length,
            cosines,
            sines,
        }
    }

    /// Natural order in, bit-reversed order out; no scaling.
    pub(crate) fn forward(&self, re: &mut [f64], im: &mut [f64]) {
        let mut span = self.length / 2;
        let mut stride = 1;
        while span > 0 {
            for (re, im) in re
                .chunks_exact_mut(2 * span)
                .zip(im.chunks_exact_mut(2 * span))
            {
                let (re0, re1) = re.split_at_mut(span);
                let (im0, im1) = im.split_at_mut(span);
                for k in 0..span {
                    let (c, s) = (self.cosines[k * stride], self.sines[k * stride]);
                    let (dr, di) = (re0[k] - re1[k], im0[k] - im1[k]);
                    re0[k] += re1[k];
                    im0[k] += im1[k];
                    re1[k] = dr * c - di * s;
                    im1[k] = dr * s + di * c;
                }
            }
            span /= 2;
            stride *= 2;
        }
    }

    /// Bit-reversed order in, natural order out; no scaling.
    pub(crate) fn backward(&self, re: &mut [f64], im: &mut [f64]) {
        let mut span = 1;
        let mut stride = self.length / 2;
        while span < self.length {
            for (re, im) in re
                .chunks_exact_mut(2 * span)
                .zip(im.chunks_exact_mut(2 * span))
            {
                let (re0, re1) = re.split_at_mut(span);
                let (im0, im1) = im.split_at_mut(span);
                for k in 0..span {
                    let (c, s) = (self.cosines[k * stride], -self.sines[k * stride]);
                    let tr = re1[k] * c - im1[k] * s;
                    let ti = re1[k] * s + im1[k] * c;
                    re1[k] = re0[k] - tr;
                    im1[k] = im0[k] - ti;
                    re0[k] += tr;
                    im0[k] += ti;
                }
            }
            span *= 2;
            stride /= 2;
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
