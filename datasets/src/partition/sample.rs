//! Gamma and Dirichlet numbers, and whole sizes in given proportions.
//!
//! Gamma by Marsaglia & Tsang (2000), "A simple method for generating gamma variables", ACM TOMS
//! 26(3), with their boost for shapes below one. Everything is kept as logarithms: with a small
//! concentration most Dirichlet weights are below the smallest `f64`, yet their ratios decide who
//! gets the examples once the larger ones are used up.

use fl_core::Stream;

/// Draws logarithms of gamma numbers of one shape and scale 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogGamma {
    d: f64,
    c: f64,
    log_d: f64,
    /// `1 / shape` where the shape is below one.
    boost: Option<f64>,
}

impl LogGamma {
    /// `shape` is positive and finite.
    pub(crate) fn new(shape: f64) -> Self {
        let boost = (shape < 1.0).then(|| 1.0 / shape);
        let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
        Self {
            d,
            c: 1.0 / libm::sqrt(9.0 * d),
            log_d: libm::log(d),
            boost,
        }
    }

    pub(crate) fn draw(&self, stream: &mut Stream) -> f64 {
        let log = loop {
            let x = stream.normal();
            let root = 1.0 + self.c * x;
            if root <= 0.0 {
                continue;
            }
            let u = positive_uniform(stream);
            let log_v = 3.0 * libm::log(root);
            let square = x * x;
            if u < 1.0 - 0.0331 * square * square
                || libm::log(u)
                    < 0.5 * square + self.d * (1.0 - root * root * root) + self.d * log_v
            {
                break self.log_d + log_v;
            }
        };
        match self.boost {
            Some(power) => log + libm::log(positive_uniform(stream)) * power,
            None => log,
        }
    }
}

/// A number in `(0, 1]`.
fn positive_uniform(stream: &mut Stream) -> f64 {
    1.0 - stream.uniform()
}

/// Turns logarithms of weights into weights, the largest being 1.
pub(crate) fn exponentiate(weights: &mut [f64]) {
    let largest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for weight in weights {
        *weight = libm::exp(*weight - largest);
    }
}

/// Ends of consecutive runs of `0 .. total` whose lengths are in proportion to `weights`: each
/// end is the cumulative share, rounded down; the last is `total`.
pub(crate) fn cut(total: usize, weights: &[f64], ends: &mut Vec<usize>) {
    let sum: f64 = weights.iter().sum();
    let mut cumulative = 0.0;
    ends.clear();
    ends.extend(weights.iter().map(|weight| {
        cumulative += weight;
        ((cumulative / sum * total as f64) as usize).min(total)
    }));
    if let Some(last) = ends.last_mut() {
        *last = total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fl_core::{ClientId, Purpose, RoundId, Seed};

    fn stream(seed: u64) -> Stream {
        Stream::at(Purpose::Testing, Seed(seed), RoundId(0), ClientId(0))
    }

    #[test]
    fn gamma_has_its_moments() {
        // Mean, variance and third central moment of Gamma(a, 1) are a, a and 2a; the bounds
        // are five standard errors.
        let draws = 200_000;
        for (seed, shape) in [0.05, 0.3, 0.9, 1.0, 2.5, 40.0].into_iter().enumerate() {
            let gamma = LogGamma::new(shape);
            let mut stream = stream(seed as u64);
            let values: Vec<f64> = (0..draws)
                .map(|_| libm::exp(gamma.draw(&mut stream)))
                .collect();
            let n = draws as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let third = values.iter().map(|x| (x - mean).powi(3)).sum::<f64>() / n;
            assert!(
                (mean - shape).abs() < 5.0 * (shape / n).sqrt(),
                "{shape}: {mean}"
            );
            let error = ((3.0 * shape * shape + 6.0 * shape - shape * shape) / n).sqrt();
            assert!(
                (variance - shape).abs() < 5.0 * error,
                "{shape}: {variance}"
            );
            // The sixth central moment of Gamma(a, 1) is 15a^3 + 130a^2 + 120a.
            let sixth = shape * (shape * (15.0 * shape + 130.0) + 120.0);
            assert!(
                (third - 2.0 * shape).abs() < 6.0 * (sixth / n).sqrt(),
                "{shape}: {third}"
            );
        }
    }

    #[test]
    fn log_gamma_has_its_mean() {
        // E ln Gamma(a) is the digamma function: ln-moments see the tail that underflows.
        // Values of digamma: DLMF 5.4.12, 5.4.13 and the recurrence 5.5.2.
        let euler = 0.577_215_664_901_532_9;
        for (shape, digamma, trigamma) in [
            (1.0, -euler, 1.644_934),
            (0.5, -euler - 2.0 * core::f64::consts::LN_2, 4.934_802),
            (2.0, 1.0 - euler, 0.644_934),
            // psi(x) = psi(x + 1) - 1/x with psi(1.001) = -euler + 0.001 * 1.644934 - ...
            (0.001, -euler + 0.001_643_7 - 1000.0, 1e6 + 1.6),
        ] {
            let gamma = LogGamma::new(shape);
            let mut stream = stream(7);
            let n = 100_000;
            let mean = (0..n).map(|_| gamma.draw(&mut stream)).sum::<f64>() / f64::from(n);
            let error = (trigamma / f64::from(n)).sqrt();
            assert!(
                (mean - digamma).abs() < 5.0 * error,
                "{shape}: {mean}, {digamma}"
            );
        }
    }

    #[test]
    fn dirichlet_has_its_moments() {
        // Mean a_i / A and variance a_i (A - a_i) / (A^2 (A + 1)).
        let shapes = [0.2, 0.5, 1.3];
        let total: f64 = shapes.iter().sum();
        let gammas = shapes.map(LogGamma::new);
        let mut stream = stream(3);
        let n = 100_000;
        let (mut sums, mut squares) = ([0.0; 3], [0.0; 3]);
        for _ in 0..n {
            let mut weights = gammas.map(|gamma| gamma.draw(&mut stream));
            exponentiate(&mut weights);
            let sum: f64 = weights.iter().sum();
            for i in 0..3 {
                sums[i] += weights[i] / sum;
                squares[i] += (weights[i] / sum).powi(2);
            }
        }
        for i in 0..3 {
            let mean = sums[i] / f64::from(n);
            let variance = squares[i] / f64::from(n) - mean * mean;
            let expected = shapes[i] * (total - shapes[i]) / (total * total * (total + 1.0));
            assert!((mean - shapes[i] / total).abs() < 5.0 * (expected / f64::from(n)).sqrt());
            assert!(
                (variance / expected - 1.0).abs() < 0.02,
                "{variance} {expected}"
            );
        }
    }

    #[test]
    fn cuts_are_monotone_and_whole() {
        let mut ends = Vec::new();
        #[rustfmt::skip]
        let cases: &[(usize, &[f64], &[usize])] = &[
            (10, &[1.0, 1.0], &[5, 10]),
            (10, &[1.0, 0.0, 3.0], &[2, 2, 10]),
            (0, &[1.0, 2.0], &[0, 0]),
            (7, &[1.0], &[7]),
            (3, &[0.1, 0.1, 0.1, 0.1], &[0, 1, 2, 3]),
        ];
        for (total, weights, expected) in cases {
            cut(*total, weights, &mut ends);
            assert_eq!(&ends, expected);
        }
    }
}
