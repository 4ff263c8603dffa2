//! Products of many laws' Fourier transforms, with a bound of what rounding does to them.

use super::fft::Fft;
use super::lattice::Lattice;

/// The product of the transforms of all laws, for both bounds.
pub(super) struct Spectrum {
    above: (Vec<f64>, Vec<f64>),
    below: (Vec<f64>, Vec<f64>),
    /// Bound of the error of an entry of the sum's law from the errors of the transforms.
    pub(super) errors: f64,
    /// For one law's transform.
    scratch: (Vec<f64>, Vec<f64>),
}

impl Spectrum {
    pub(super) fn one(points: usize) -> Self {
        let one = || (vec![1.0; points], vec![0.0; points]);
        Self {
            above: one(),
            below: one(),
            errors: 0.0,
            scratch: (vec![0.0; points], vec![0.0; points]),
        }
    }

    /// Takes the law `count` times into the product; both its bounds go through one transform, as
    /// real and imaginary part.
    pub(super) fn multiply(
        &mut self,
        fft: &Fft,
        lattice: &Lattice,
        scale: [f64; 2],
        centre: i64,
        count: u64,
    ) {
        let points = self.above.0.len();
        let (re, im) = &mut self.scratch;
        re.fill(0.0);
        im.fill(0.0);
        let start = (lattice.first - centre).rem_euclid(points as i64) as usize;
        for (scale, (to, masses)) in scale
            .into_iter()
            .zip([(&mut *re, &lattice.above), (&mut *im, &lattice.below)])
        {
            let mut place = start;
            for mass in masses {
                to[place] += mass * scale;
                place += 1;
                if place == points {
                    place = 0;
                }
            }
        }
        let total: f64 = re.iter().chain(im.iter()).sum();
        fft.forward(re, im);
        let error = per_entry(points) * total + 8.0 * f64::EPSILON;
        let many = count as f64;
        let floor = libm::pow(1e-3, (many - 1.0).min(5.0));
        let mut sum = 0.0;
        for place in 0..points {
            let partner = Fft::partner(place);
            if partner < place {
                continue;
            }
            let (r0, i0, r1, i1) = (re[place], im[place], re[partner], im[partner]);
            let each = [
                (&mut self.above, 0.5 * (r0 + r1), 0.5 * (i0 - i1)),
                (&mut self.below, 0.5 * (i0 + i1), 0.5 * (r1 - r0)),
            ];
            for (to, r, i) in each {
                let (pr, pi) = power(r, i, count);
                let (br, bi) = (to.0[place], to.1[place]);
                let (nr, ni) = (br * pr - bi * pi, br * pi + bi * pr);
                (to.0[place], to.1[place]) = (nr, ni);
                (to.0[partner], to.1[partner]) = (nr, -ni);
                let size = libm::sqrt(r * r + i * i);
                let slope = if size > 1e-3 {
                    1.1 * libm::sqrt(pr * pr + pi * pi) / size
                } else {
                    floor
                };
                sum += if partner == place { slope } else { 2.0 * slope };
            }
        }
        // Both bounds take the larger error, so the sum over both is generous. Errors that are not
        // small against 1 do not just add up: then nothing is known.
        self.errors += if many * error < 0.1 {
            many * error * sum / points as f64
        } else {
            f64::INFINITY
        };
    }

    /// The law of the sum, and a bound of the backward transform's error of an entry.
    pub(super) fn finish(self, fft: &Fft) -> ([Vec<f64>; 2], f64) {
        let points = self.above.0.len();
        let (mut re, mut im) = self.above;
        let (below_re, below_im) = self.below;
        for (re, below_im) in re.iter_mut().zip(below_im) {
            *re -= below_im;
        }
        for (im, below_re) in im.iter_mut().zip(below_re) {
            *im += below_re;
        }
        let total: f64 = re.iter().chain(&im).map(|x| x.abs()).sum();
        fft.backward(&mut re, &mut im);
        let scale = 1.0 / points as f64;
        for value in re.iter_mut().chain(&mut im) {
            *value *= scale;
        }
        ([re, im], per_entry(points) * total * scale)
    }
}

/// Bound of the error of an entry of a transform, relative to the sum of the magnitudes of the real
/// and imaginary parts of its input. Each entry is a sum over a tree of butterflies; a level adds at
/// most 9 half units in the last place of that sum: two for the twiddle factor, five for the
/// product and two for the sum.
fn per_entry(points: usize) -> f64 {
    4.5 * f64::EPSILON * f64::from(points.trailing_zeros())
}

/// A complex number to a power of at least 1, by squaring.
pub(super) fn power(mut re: f64, mut im: f64, mut exponent: u64) -> (f64, f64) {
    let (mut r, mut i) = (1.0, 0.0);
    while exponent > 1 {
        if exponent & 1 == 1 {
            (r, i) = (r * re - i * im, r * im + i * re);
        }
        (re, im) = (re * re - im * im, 2.0 * re * im);
        exponent >>= 1;
    }
    (r * re - i * im, r * im + i * re)
}
