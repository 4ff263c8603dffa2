//! Binomial laws, and what counts tell about a probability.

use super::{bisect, confident};
use crate::error::PrivacyError;

/// Two-sided Clopper-Pearson interval of a probability (Clopper and Pearson 1934).
///
/// # Errors
/// [`PrivacyError`] for more successes than trials, no trial, or a confidence outside 0 to 1.
pub fn clopper_pearson(
    successes: u64,
    trials: u64,
    confidence: f64,
) -> Result<(f64, f64), PrivacyError> {
    confident(confidence)?;
    PrivacyError::unless_count(trials > 0, "trials", trials, "at least 1")?;
    PrivacyError::unless_count(
        successes <= trials,
        "successes",
        successes,
        "at most the trials",
    )?;
    let side = 0.5 * (1.0 - confidence);
    let low = if successes == 0 {
        0.0
    } else {
        // Below it so many successes are too unlikely.
        bisect(0.0, 1.0, |p| at_least(successes, trials, p) <= side).0
    };
    let high = if successes == trials {
        1.0
    } else {
        bisect(0.0, 1.0, |p| {
            at_least(successes + 1, trials, p) <= 1.0 - side
        })
        .1
    };
    Ok((low, high))
}

/// `P[Binomial(n, p) = k]`.
pub(super) fn mass(k: u64, n: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return f64::from(u8::from(k == 0));
    }
    if p >= 1.0 {
        return f64::from(u8::from(k == n));
    }
    let ln_factorial = |n: u64| libm::lgamma(n as f64 + 1.0);
    let ln_ways = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let ln = ln_ways + k as f64 * libm::log(p) + (n - k) as f64 * libm::log1p(-p);
    libm::exp(ln)
}

/// `P[Binomial(n, p) >= k]`.
pub(super) fn at_least(k: u64, n: u64, p: f64) -> f64 {
    // Towards the mode the terms grow, so each side is summed from its tail inwards.
    if k as f64 > n as f64 * p {
        (k..=n).rev().map(|k| mass(k, n, p)).sum()
    } else {
        1.0 - (0..k).map(|k| mass(k, n, p)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.beta.ppf` of scipy 1.17.1.
    #[test]
    fn intervals_agree_with_scipy() {
        for (successes, trials, confidence, low, high) in [
            (0, 10, 0.95, 0.0, 0.3084971078187607),
            (3, 10, 0.95, 0.0667395111777345, 0.6524528500599973),
            (10, 10, 0.95, 0.6915028921812392, 1.0),
            (480, 1000, 0.99, 0.4389815435235915, 0.5212114960007409),
            (9999, 10000, 0.999, 0.9990005820001047, 0.9999999499874971),
        ] {
            let found = clopper_pearson(successes, trials, confidence).unwrap();
            assert!(
                (found.0 - low).abs() < 1e-10,
                "{successes} of {trials}: {found:?}"
            );
            assert!(
                (found.1 - high).abs() < 1e-10,
                "{successes} of {trials}: {found:?}"
            );
        }
        for (successes, trials, confidence) in [(1, 0, 0.9), (2, 1, 0.9), (1, 2, 1.0), (1, 2, 0.0)]
        {
            assert!(clopper_pearson(successes, trials, confidence).is_err());
        }
    }
}
