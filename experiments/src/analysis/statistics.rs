//! Mean, spread and an interval for the mean.
//!
//! The interval is the bootstrap's percentile interval (Efron 1979, "Bootstrap Methods: Another Look
//! at the Jackknife", Annals of Statistics 7(1); Efron and Tibshirani 1993, "An Introduction to the
//! Bootstrap", section 13.3): the quantiles of the means of samples drawn with replacement from the
//! values. Up to [`EXACT`] values all samples are enumerated, which is the ideal bootstrap (section
//! 6.4 there), and nothing is random; beyond, [`RESAMPLES`] are drawn from a stream.
//!
//! Of three seeds such an interval lies within their range, and covers the true mean less often than
//! it says; it describes the runs that there are.

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
use serde::Serialize;

/// The share of the bootstrap's means that the interval holds.
pub const LEVEL: f64 = 0.95;

/// Samples that are drawn where they are too many to enumerate: at 10,000 the Monte Carlo error of
/// the ends is small beside the interval (Efron and Tibshirani 1993, section 13.3, ask for 1,000).
pub const RESAMPLES: u64 = 10_000;

/// Most values of which all samples are enumerated: 7^7 = 823,543 ordered samples, which are 1,716
/// different ones.
const EXACT: usize = 7;

/// What values of several runs come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// How many values there are; at least 1.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation, with `count - 1` in the denominator; nothing of one value.
    pub deviation: Option<f64>,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The bootstrap's percentile interval of the mean; nothing of one value, or where one is not
    /// finite.
    pub interval: Option<Interval>,
}

/// An interval of the mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The share of the bootstrap's means within it, [`LEVEL`].
    pub level: f64,
    /// Samples of the values behind it.
    pub resamples: u64,
}

impl Statistics {
    /// The statistics of values, whose order does not matter; nothing of none, or where one is NaN.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.iter().any(|value| value.is_nan()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let count = sorted.len();
        let mean = mean(&sorted);
        let deviation = (count > 1 && mean.is_finite()).then(|| {
            let squares: f64 = sorted
                .iter()
                .map(|value| (value - mean) * (value - mean))
                .sum();
            (squares / (count - 1) as f64).sqrt()
        });
        let middle = count / 2;
        let median = match count % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Self {
            count,
            mean,
            deviation,
            min,
            max,
            median,
            interval: interval(&sorted),
        })
    }
}

/// The quantile of values, between the two nearest where it meets none (Hyndman and Fan 1996, "Sample
/// Quantiles in Statistical Packages", definition 7); not a number of none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * sorted.len().saturating_sub(1) as f64;
    let at = |place: f64| sorted.get(place as usize).copied();
    match (at(place.floor()), at(place.ceil())) {
        // Also of infinite ones.
        (Some(below), Some(above)) if below.total_cmp(&above).is_eq() => below,
        (Some(below), Some(above)) => below + (above - below) * place.fract(),
        _ => f64::NAN,
    }
}

/// The mean of values in ascending order, within them.
fn mean(sorted: &[f64]) -> f64 {
    let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
        return f64::NAN;
    };
    let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
    // Rounding may carry the mean of equal values past them.
    if mean.is_finite() {
        mean.clamp(min, max)
    } else {
        mean
    }
}

fn interval(sorted: &[f64]) -> Option<Interval> {
    if sorted.len() < 2 || sorted.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut means = if sorted.len() <= EXACT {
        every_sample(sorted)
    } else {
        drawn_samples(sorted)
    };
    means.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let resamples: u64 = means.iter().map(|(_, times)| times).sum();
    let tail = (1.0 - LEVEL) / 2.0;
    Some(Interval {
        low: inverse(&means, resamples, tail),
        high: inverse(&means, resamples, 1.0 - tail),
        level: LEVEL,
        resamples,
    })
}

/// The mean of every sample with replacement, and how many ordered samples have it: for each way to
/// say how often each value occurs, the multinomial coefficient.
fn every_sample(values: &[f64]) -> Vec<(f64, u64)> {
    let size = values.len();
    let mut means = Vec::new();
    let mut sample: Vec<usize> = vec![0; size];
    // Samples as ascending lists of places, in lexicographic order.
    loop {
        let chosen: Vec<f64> = sample.iter().map(|&place| values[place]).collect();
        means.push((mean(&chosen), orders(&sample)));
        let Some(at) = sample.iter().rposition(|&place| place + 1 < size) else {
            return means;
        };
        let next = sample[at] + 1;
        sample[at..].fill(next);
    }
}

/// In how many orders a list with repetitions, equal ones side by side, can be written.
fn orders(list: &[usize]) -> u64 {
    let factorial = |n: usize| (1..=n as u64).product::<u64>();
    let repeated: u64 = list
        .chunk_by(|a, b| a == b)
        .map(|run| factorial(run.len()))
        .product();
    factorial(list.len()) / repeated
}

/// Means of samples drawn from the stream that belongs to their number alone, so that the interval is
/// a function of the values.
fn drawn_samples(values: &[f64]) -> Vec<(f64, u64)> {
    let size = values.len() as u64;
    let mut stream = Stream::at(Purpose::Sweep, Seed(size), RoundId(0), ClientId(0));
    (0..RESAMPLES)
        .map(|_| {
            let mut sample: Vec<f64> = (0..size)
                .filter_map(|_| values.get(stream.below(size) as usize).copied())
                .collect();
            sample.sort_by(f64::total_cmp);
            (mean(&sample), 1)
        })
        .collect()
}

/// The smallest mean that at least a share of the samples does not exceed: the inverse of the
/// empirical distribution function.
fn inverse(sorted: &[(f64, u64)], samples: u64, share: f64) -> f64 {
    let wanted = (share * samples as f64).ceil().max(1.0) as u64;
    let mut seen = 0;
    for &(mean, times) in sorted {
        seen += times;
        if seen >= wanted {
            return mean;
        }
    }
    sorted.last().map_or(f64::NAN, |&(mean, _)| mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_textbook() {
        let values = [4.0, 2.0, 3.0, 1.0];
        for (share, expected) in [(0.0, 1.0), (0.5, 2.5), (0.1, 1.3), (1.0, 4.0)] {
            assert!(near(quantile(&values, share), expected));
        }
        let endless = quantile(&[f64::INFINITY, 1.0, f64::INFINITY], 0.75);
        assert!(endless.is_infinite());
        assert!(near(quantile(&[7.0], 0.3), 7.0));
        assert!(quantile(&[], 0.5).is_nan());
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs().max(1.0)
    }

    #[test]
    fn hand_worked_values() {
        let found = Statistics::of(&[4.0, 2.0, 9.0]).unwrap();
        assert_eq!((found.count, found.min, found.max), (3, 2.0, 9.0));
        assert!(near(found.mean, 5.0));
        // ((-1)^2 + (-3)^2 + 4^2) / 2 = 13.
        assert!(near(found.deviation.unwrap(), 13f64.sqrt()));
        assert!(near(found.median, 4.0));
        // The 27 ordered samples: a mean of 2 and of 9 once each, (2,2,4) and (4,9,9) three times
        // each. 2.5 % of 27 is 0.675, so the ends are the extremes.
        let interval = found.interval.unwrap();
        assert!(near(interval.low, 2.0) && near(interval.high, 9.0));
        assert_eq!(interval.resamples, 27);

        let one = Statistics::of(&[0.5]).unwrap();
        assert_eq!((one.deviation, one.interval), (None, None));
        assert!(near(one.median, 0.5));
        assert_eq!(Statistics::of(&[]), None);
        assert_eq!(Statistics::of(&[1.0, f64::NAN]), None);
        // No privacy: epsilon is infinite for all of them.
        let endless = Statistics::of(&[f64::INFINITY; 3]).unwrap();
        assert!(endless.mean.is_infinite());
        assert_eq!((endless.deviation, endless.interval), (None, None));
    }

    /// Every ordered sample, one by one.
    fn brute_force(values: &[f64]) -> Vec<f64> {
        let size = values.len();
        let mut means: Vec<f64> = (0..size.pow(size as u32))
            .map(|mut code| {
                let mut sum = 0.0;
                for _ in 0..size {
                    sum += values[code % size];
                    code /= size;
                }
                sum / size as f64
            })
            .collect();
        means.sort_by(f64::total_cmp);
        means
    }

    #[test]
    fn enumeration_is_every_ordered_sample() {
        for values in [
            &[0.1, 0.9][..],
            &[0.3, 0.1, 0.7],
            &[1.0, 2.0, 4.0, 8.0],
            &[0.812, 0.806, 0.799, 0.815, 0.802],
            &[5.0, 5.0, 5.0, 1.0, 2.0, 3.0],
        ] {
            let means = brute_force(values);
            let interval = Statistics::of(values).unwrap().interval.unwrap();
            assert_eq!(interval.resamples, means.len() as u64);
            let at = |share: f64| means[(share * means.len() as f64).ceil() as usize - 1];
            assert!(near(interval.low, at(0.025)), "{values:?}");
            assert!(near(interval.high, at(0.975)), "{values:?}");
        }
    }

    #[test]
    fn drawn_samples_have_the_moments_of_the_ideal_bootstrap() {
        let values: Vec<f64> = (0..20).map(|i| f64::from(i * i % 17)).collect();
        let means = drawn_samples(&values);
        let count = means.len() as f64;
        let of_means = means.iter().map(|(mean, _)| mean).sum::<f64>() / count;
        let variance = means
            .iter()
            .map(|(mean, _)| (mean - of_means) * (mean - of_means))
            .sum::<f64>()
            / count;
        // The mean of a bootstrap mean is the mean, its variance the population variance over n
        // (Efron and Tibshirani 1993, section 6.4).
        let mean = values.iter().sum::<f64>() / 20.0;
        let population = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / 20.0;
        let error = (population / 20.0 / count).sqrt();
        assert!((of_means - mean).abs() < 4.0 * error);
        assert!((variance / (population / 20.0) - 1.0).abs() < 0.06);
    }

    #[test]
    fn order_does_not_matter() {
        let mut values: Vec<f64> = (0..12).map(|i| 1.0 / f64::from(i + 3)).collect();
        let first = Statistics::of(&values).unwrap();
        values.rotate_left(5);
        values.swap(0, 7);
        assert_eq!(Statistics::of(&values).unwrap(), first);
        assert_eq!(first.interval.unwrap().resamples, RESAMPLES);
    }
}
