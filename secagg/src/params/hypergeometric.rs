//! Tails of the hypergeometric law, down to about `2^-1000`.

/// How many of `drawn` items, drawn without replacement from `total` of which `marked` are marked,
/// are marked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hypergeometric {
    pub(super) total: u32,
    pub(super) marked: u32,
    pub(super) drawn: u32,
}

/// `ln(n!)`.
fn ln_factorial(n: f64) -> f64 {
    libm::lgamma(n + 1.0)
}

impl Hypergeometric {
    /// The same draw, counting what is not marked.
    pub(super) fn complement(self) -> Self {
        Self {
            marked: self.total - self.marked,
            ..self
        }
    }

    /// `P(X = x)`; 0 outside the support and where it underflows.
    fn pmf(self, x: i64) -> f64 {
        let (total, marked, drawn) = self.parts();
        if x < 0 || x > drawn || x > marked || total - marked - drawn + x < 0 {
            return 0.0;
        }
        let [total, marked, drawn, x] = [total, marked, drawn, x].map(|count| count as f64);
        libm::exp(
            ln_factorial(drawn)
                + ln_factorial(marked)
                + ln_factorial(total - marked)
                + ln_factorial(total - drawn)
                - ln_factorial(x)
                - ln_factorial(drawn - x)
                - ln_factorial(marked - x)
                - ln_factorial(total)
                - ln_factorial(total - drawn - marked + x),
        )
    }

    fn parts(self) -> (i64, i64, i64) {
        (
            i64::from(self.total),
            i64::from(self.marked),
            i64::from(self.drawn),
        )
    }

    /// `P(X <= x)`, summed from `x` down; exact in relative terms where `x` is below the mean.
    pub(super) fn cdf(self, mut x: i64) -> f64 {
        let (total, marked, drawn) = self.parts();
        x = x.min(marked).min(drawn);
        let mut term = self.pmf(x);
        let mut sum = 0.0;
        while term > sum * 1e-17 {
            sum += term;
            term *= x as f64 * (total - marked - drawn + x) as f64
                / ((marked - x + 1) as f64 * (drawn - x + 1) as f64);
            x -= 1;
        }
        sum
    }

    /// The largest `x` with `P(X <= x) < probability`; -1 when there is no smaller one in the support.
    /// `probability` is in `(0, 1/2]`.
    pub(super) fn below(self, probability: f64) -> i64 {
        let (total, marked, drawn) = self.parts();
        // Below the support, and below what Hoeffding's inequality (1963, theorem 4) leaves.
        let tail = libm::sqrt(-libm::log(probability) / (2.0 * drawn as f64));
        let inequality = drawn as f64 * (marked as f64 / total as f64 - tail);
        let mut x = (-1)
            .max(marked + drawn - total - 1)
            .max(libm::floor(inequality) as i64 - 1);
        let mut sum = self.cdf(x);
        let mut term = self.pmf(x + 1);
        while x < drawn && sum + term < probability {
            sum += term;
            x += 1;
            term = if term > 0.0 {
                term * (marked - x) as f64 * (drawn - x) as f64
                    / ((x + 1) as f64 * (total - marked - drawn + x + 1) as f64)
            } else {
                self.pmf(x + 1)
            };
        }
        x
    }

    /// The smallest `x` with `P(X > x) < probability`.
    pub(super) fn above(self, probability: f64) -> i64 {
        i64::from(self.drawn) - self.complement().below(probability) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binomial(n: u32, k: u32) -> f64 {
        if k > n {
            return 0.0;
        }
        (0..k).fold(1.0, |product, i| {
            product * f64::from(n - i) / f64::from(i + 1)
        })
    }

    /// Against sums of products of binomial coefficients, which are exact at this size.
    #[test]
    fn tails_are_those_of_plain_sums() {
        for (total, marked, drawn) in [
            (20, 7, 6),
            (30, 0, 8),
            (30, 30, 8),
            (40, 35, 20),
            (10, 9, 9),
        ] {
            let law = Hypergeometric {
                total,
                marked,
                drawn,
            };
            let pmf = |x: u32| {
                if x > drawn {
                    0.0
                } else {
                    binomial(marked, x) * binomial(total - marked, drawn - x)
                        / binomial(total, drawn)
                }
            };
            let cdf = |x: i64| -> f64 { (0..=x).map(|x| pmf(x as u32)).sum() };
            for x in 0..=i64::from(drawn) {
                assert!((law.cdf(x) - cdf(x)).abs() < 1e-12, "{law:?} at {x}");
            }
            for probability in [1e-9, 1e-4, 0.01, 0.3, 0.5] {
                let x = law.below(probability);
                assert!(
                    cdf(x) < probability,
                    "{law:?} at {probability}: {x} is too large"
                );
                assert!(
                    cdf(x + 1) >= probability || x == i64::from(drawn),
                    "{law:?} at {probability}: {x} is too small"
                );
                let x = law.above(probability);
                assert!(1.0 - cdf(x) < probability + 1e-12);
                assert!(x == -1 || 1.0 - cdf(x - 1) >= probability - 1e-12);
            }
        }
    }
}
