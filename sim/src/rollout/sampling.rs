//! Counts drawn at once: binomial and multinomial numbers, as many devices would draw them one by
//! one.

use fl_core::Stream;

/// How many of `trials` succeed, each by itself with probability `p`.
///
/// Below a mean of 10 the successes are counted one by one by their gaps
/// ([`Stream::sample`]). Above it, transformed rejection with squeeze, algorithm BTRS of Hörmann
/// 1993 ("The generation of binomial random variates", Journal of Statistical Computation and
/// Simulation 46), whose time does not depend on `trials`. Its acceptance test takes differences of
/// logarithms of factorials, so that at 100 million trials a probability is off by some 1e-6 of
/// itself.
pub(crate) fn binomial(stream: &mut Stream, trials: u64, p: f64) -> u64 {
    if trials == 0 || p <= 0.0 {
        return 0;
    }
    if p >= 1.0 {
        return trials;
    }
    if p > 0.5 {
        return trials - binomial(stream, trials, 1.0 - p);
    }
    let n = trials as f64;
    if n * p < 10.0 {
        let mut successes = 0;
        stream.sample(trials, p, |_| successes += 1);
        return successes;
    }
    let spread = libm::sqrt(n * p * (1.0 - p));
    let b = 1.15 + 2.53 * spread;
    let a = -0.0873 + 0.0248 * b + 0.01 * p;
    let center = n * p + 0.5;
    let squeeze = 0.92 - 4.2 / b;
    let alpha = (2.83 + 5.1 / b) * spread;
    let odds = libm::log(p / (1.0 - p));
    let mode = libm::floor((n + 1.0) * p);
    let ln_ways = |k: f64| libm::lgamma(k + 1.0) + libm::lgamma(n - k + 1.0);
    let ln_mode = ln_ways(mode);
    loop {
        let u = stream.uniform() - 0.5;
        let v = stream.uniform();
        let room = 0.5 - libm::fabs(u);
        let k = libm::floor((2.0 * a / room + b) * u + center);
        if !(0.0..=n).contains(&k) {
            continue;
        }
        if room >= 0.07 && v <= squeeze {
            return k as u64;
        }
        let v = libm::log(v * alpha / (a / (room * room) + b));
        if v <= ln_mode - ln_ways(k) + (k - mode) * odds {
            return k as u64;
        }
    }
}

/// How many of `trials` fall on each of the outcomes, with probabilities `shares` that add up to 1;
/// calls `take` with each outcome that has some.
///
/// One binomial number for each outcome, given those before it (Devroye 1986, "Non-Uniform Random
/// Variate Generation", chapter XI.1.4).
pub(crate) fn multinomial(
    stream: &mut Stream,
    mut trials: u64,
    shares: &[f64],
    mut take: impl FnMut(usize, u64),
) {
    let mut rest: f64 = shares.iter().sum();
    for (outcome, &share) in shares.iter().enumerate() {
        if trials == 0 {
            return;
        }
        let drawn = match outcome + 1 == shares.len() {
            true => trials,
            false => binomial(stream, trials, (share / rest).clamp(0.0, 1.0)),
        };
        if drawn > 0 {
            take(outcome, drawn);
        }
        trials -= drawn;
        rest -= share;
    }
}

/// The same for `outcomes` that are equally likely: one by one while there are few trials.
pub(crate) fn spread(
    stream: &mut Stream,
    mut trials: u64,
    outcomes: u64,
    mut take: impl FnMut(u64, u64),
) {
    if trials < 4 * outcomes {
        for _ in 0..trials {
            take(stream.below(outcomes), 1);
        }
        return;
    }
    for outcome in 0..outcomes {
        let drawn = binomial(stream, trials, 1.0 / (outcomes - outcome) as f64);
        if drawn > 0 {
            take(outcome, drawn);
        }
        trials -= drawn;
    }
}

/// Failures before the first success of trials that succeed with probability `p`; `u64::MAX` where
/// none ever does (Devroye 1986, chapter X.2).
pub(crate) fn failures(stream: &mut Stream, p: f64) -> u64 {
    if p <= 0.0 {
        return u64::MAX;
    }
    let gap = libm::log(1.0 - stream.uniform()) / libm::log1p(-p.min(1.0));
    // Saturates; minus zero, where p is 1, is zero.
    libm::floor(gap) as u64
}

#[cfg(test)]
mod tests {
    use fl_core::testing::{assert_fits, stream};

    use super::*;

    /// `P[Binomial(n, p) = k]`, with factorials as sums of logarithms.
    fn mass(n: u64, p: f64, k: u64) -> f64 {
        let ln_factorial = |n: u64| (1..=n).map(|i| libm::log(i as f64)).sum::<f64>();
        let ways = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
        libm::exp(ways + k as f64 * libm::log(p) + (n - k) as f64 * libm::log1p(-p))
    }

    /// Counts against the law, with rare outcomes taken together at both ends.
    fn fits(counts: &[u64], expected: &[f64]) {
        let (mut found, mut wanted) = (vec![0u64], vec![0.0f64]);
        for (&count, &expected) in counts.iter().zip(expected) {
            if wanted.last().is_some_and(|&last| last >= 10.0) {
                found.push(0);
                wanted.push(0.0);
            }
            if let (Some(found), Some(wanted)) = (found.last_mut(), wanted.last_mut()) {
                *found += count;
                *wanted += expected;
            }
        }
        if found.len() > 1 && wanted.last().is_some_and(|&last| last < 10.0) {
            let (count, rest) = (found.pop().unwrap_or(0), wanted.pop().unwrap_or(0.0));
            if let (Some(found), Some(wanted)) = (found.last_mut(), wanted.last_mut()) {
                *found += count;
                *wanted += rest;
            }
        }
        assert_fits(&found, &wanted);
    }

    #[test]
    fn binomial_numbers_have_their_law() {
        // On both sides of the change of methods, and of a half.
        for (seed, (n, p)) in [
            (5, 0.3),
            (40, 0.2),
            (40, 0.26),
            (100, 0.5),
            (200, 0.93),
            (1000, 0.02),
            (1000, 0.4),
        ]
        .into_iter()
        .enumerate()
        {
            let mut stream = stream(seed as u64, 1);
            let draws = 60_000;
            let mut counts = vec![0u64; n as usize + 1];
            for _ in 0..draws {
                counts[binomial(&mut stream, n, p) as usize] += 1;
            }
            let expected: Vec<f64> = (0..=n).map(|k| mass(n, p, k) * f64::from(draws)).collect();
            fits(&counts, &expected);
        }
    }

    #[test]
    fn binomial_numbers_of_many_trials_have_their_moments() {
        let (n, p) = (100_000_000u64, 0.1 / 24.0);
        let mut stream = stream(9, 1);
        let draws = 20_000;
        let (mean, variance) = (n as f64 * p, n as f64 * p * (1.0 - p));
        let (mut sum, mut square, mut cube) = (0.0, 0.0, 0.0);
        for _ in 0..draws {
            let z = (binomial(&mut stream, n, p) as f64 - mean) / libm::sqrt(variance);
            sum += z;
            square += z * z;
            cube += z * z * z;
        }
        let draws = f64::from(draws);
        // Of a standardised number, with variances 1, 2 and 15 over the draws.
        for (found, expected, variance) in [(sum, 0.0, 1.0), (square, 1.0, 2.0), (cube, 0.0, 15.0)]
        {
            let deviation = libm::sqrt(variance / draws);
            assert!(
                (found / draws - expected).abs() < 5.0 * deviation,
                "{found}"
            );
        }
        let ends = [
            (0, 0.5, 0),
            (7, 0.0, 0),
            (7, 1.0, 7),
            (7, -1.0, 0),
            (7, 2.0, 7),
        ];
        for (n, p, expected) in ends {
            assert_eq!(binomial(&mut stream, n, p), expected);
        }
    }

    #[test]
    fn multinomial_numbers_have_their_law() {
        // Every way to lay three on three outcomes, against 3! / (a! b! c!) * products.
        let shares = [0.2, 0.5, 0.3];
        let mut stream = stream(3, 1);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..40_000 {
            let mut drawn = [0u64; 3];
            multinomial(&mut stream, 3, &shares, |outcome, count| {
                drawn[outcome] += count
            });
            assert_eq!(drawn.iter().sum::<u64>(), 3);
            *counts.entry(drawn).or_insert(0u64) += 1;
        }
        let factorial = |n: u64| (1..=n).product::<u64>() as f64;
        let expected: Vec<f64> = counts
            .keys()
            .map(|drawn| {
                let ways = 6.0 / drawn.iter().map(|&n| factorial(n)).product::<f64>();
                let each = drawn.iter().zip(shares);
                40_000.0 * ways * each.map(|(&n, p)| libm::pow(p, n as f64)).product::<f64>()
            })
            .collect();
        assert_eq!(expected.len(), 10);
        assert_fits(&counts.into_values().collect::<Vec<_>>(), &expected);
    }

    #[test]
    fn both_ways_to_spread_are_even_and_lose_nothing() {
        for (seed, trials) in [(4, 19), (5, 20), (6, 4000)] {
            let mut stream = stream(seed, 1);
            let (mut first, rounds) = (0, 5000);
            for _ in 0..rounds {
                let mut all = 0;
                spread(&mut stream, trials, 5, |outcome, count| {
                    all += count;
                    if outcome == 0 {
                        first += count;
                    }
                });
                assert_eq!(all, trials);
            }
            let draws = (rounds * trials) as f64;
            let deviation = libm::sqrt(draws * 0.2 * 0.8);
            assert!((first as f64 - draws * 0.2).abs() < 5.0 * deviation);
        }
    }

    #[test]
    fn gaps_are_geometric() {
        let mut stream = stream(7, 1);
        let mut counts = [0u64; 12];
        for _ in 0..50_000 {
            counts[failures(&mut stream, 0.4).min(11) as usize] += 1;
        }
        let mut expected: Vec<f64> = (0..11)
            .map(|k| 50_000.0 * 0.4 * libm::pow(0.6, f64::from(k)))
            .collect();
        expected.push(50_000.0 * libm::pow(0.6, 11.0));
        assert_fits(&counts, &expected);
        assert_eq!(failures(&mut stream, 1.0), 0);
        assert_eq!(failures(&mut stream, 0.0), u64::MAX);
    }
}
