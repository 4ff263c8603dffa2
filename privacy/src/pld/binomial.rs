//! Tails of the binomial law, with small relative error.

/// `P(X >= at_least)` for a binomial variable, with small relative error: a sum of positive terms.
pub(crate) fn binomial_at_least(trials: u64, at_least: u64, rate: f64) -> f64 {
    if at_least == 0 {
        return 1.0;
    }
    if at_least > trials {
        return 0.0;
    }
    if rate >= 1.0 {
        return 1.0;
    }
    let mean = trials as f64 * rate;
    if (at_least as f64) <= mean {
        // From the other side.
        return 1.0 - binomial_at_least(trials, trials - at_least + 1, 1.0 - rate);
    }
    let mut term = binomial(trials, at_least, rate);
    let odds = rate / (1.0 - rate);
    let mut sum = 0.0;
    let mut k = at_least;
    while term > sum * 1e-18 {
        sum += term;
        if k == trials {
            break;
        }
        term *= (trials - k) as f64 / (k + 1) as f64 * odds;
        k += 1;
    }
    sum.min(1.0)
}

/// `P(X = k)` for a binomial variable by the saddle-point expansion, exact to rounding: Loader
/// 2000, "Fast and accurate computation of binomial probabilities".
fn binomial(trials: u64, k: u64, rate: f64) -> f64 {
    let (n, x) = (trials as f64, k as f64);
    if k == 0 {
        return libm::exp(n * libm::log1p(-rate));
    }
    if k == trials {
        return libm::exp(n * libm::log(rate));
    }
    let rest = n - x;
    let exponent = stirling(n)
        - stirling(x)
        - stirling(rest)
        - deviance(x, n * rate)
        - deviance(rest, n * (1.0 - rate));
    libm::exp(exponent) * libm::sqrt(n / (2.0 * core::f64::consts::PI * x * rest))
}

/// `ln(n!)` less Stirling's formula.
fn stirling(n: f64) -> f64 {
    if n < 16.0 {
        let exact = libm::lgamma(n + 1.0);
        return exact - (n + 0.5) * libm::log(n) + n - 0.918_938_533_204_672_7;
    }
    let square = 1.0 / (n * n);
    (1.0 / 12.0
        - (1.0 / 360.0 - (1.0 / 1260.0 - (1.0 / 1680.0 - square / 1188.0) * square) * square)
            * square)
        / n
}

/// `x ln(x / mean) + mean - x` without cancellation.
fn deviance(x: f64, mean: f64) -> f64 {
    let difference = (x - mean) / (x + mean);
    if difference.abs() < 0.1 {
        // Loader's series in `difference`.
        let mut sum = (x - mean) * difference;
        let mut power = 2.0 * x * difference;
        let square = difference * difference;
        for k in 1..40 {
            power *= square;
            sum += power / f64::from(2 * k + 1);
        }
        sum
    } else {
        x * libm::log(x / mean) + mean - x
    }
}
