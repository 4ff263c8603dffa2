//! Histograms with equal bins, and the ranges that are read from them.

use alloc::vec;
use alloc::vec::Vec;

use super::params::Range;
#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;

/// Counts of values in bins of equal width between two edges, as `numpy.histogram` counts `f32`
/// values: edges, quotients and comparisons in `f32`, the last bin with its right edge.
///
/// # Source
/// NumPy 2.4, `numpy.histogram` with a number of bins, `numpy.linspace`.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    /// One more than bins, ascending.
    edges: Vec<f32>,
    counts: Vec<u64>,
}

impl Histogram {
    /// Empty bins from `first` to `last`; from `first - 1/2` to `first + 1/2` where they are equal.
    /// The two are finite and in order, and there is at least one bin.
    pub(super) fn new(first: f32, last: f32, bins: usize) -> Self {
        let (first, last) = match first < last {
            true => (first, last),
            false => (first - 0.5, last + 0.5),
        };
        let width = last - first;
        let step = width / bins as f32;
        let mut edges: Vec<f32> = match step > 0.0 {
            true => (0..=bins).map(|i| i as f32 * step + first).collect(),
            false => (0..=bins)
                .map(|i| i as f32 / bins as f32 * width + first)
                .collect(),
        };
        edges[bins] = last;
        Self {
            edges,
            counts: vec![0; bins],
        }
    }

    /// Counts values; those outside of the edges are passed over.
    pub(super) fn add(&mut self, values: impl Iterator<Item = f32>) {
        let bins = self.counts.len();
        let (first, last) = (self.edges[0], self.edges[bins]);
        let width = last - first;
        for value in values {
            if !(value >= first && value <= last) {
                continue;
            }
            let place = (value - first) / width * bins as f32;
            let mut bin = (place as usize).min(bins - 1);
            // The quotient may be off by one rounding; the edges decide.
            if value < self.edges[bin] {
                bin = bin.saturating_sub(1);
            }
            if bin + 1 < bins && value >= self.edges[bin + 1] {
                bin += 1;
            }
            self.counts[bin] += 1;
        }
    }

    /// Counts of `f64` intervals instead of values: each count is spread evenly over its interval,
    /// in whole numbers that add up to it.
    pub(super) fn spread(&mut self, from: f64, to: f64, count: u64) {
        let bins = self.counts.len();
        let (first, last) = (f64::from(self.edges[0]), f64::from(self.edges[bins]));
        let per_bin = bins as f64 / (last - first);
        let place = |x: f64| ((x - first) * per_bin).clamp(0.0, bins as f64);
        let (start, end) = (place(from), place(to));
        let first_bin = (start as usize).min(bins - 1);
        let mut given = 0;
        for bin in first_bin..bins {
            let covered = ((bin + 1) as f64).min(end) - start;
            // What all bins up to this one hold, rounded: no remainder is lost.
            let share = match (bin + 1) as f64 >= end {
                true => 1.0,
                false => covered / (end - start),
            };
            let held = (count as f64 * share).round_ties_even() as u64;
            let held = if share < 1.0 { held.min(count) } else { count };
            self.counts[bin] += held - given;
            given = held;
            if given == count {
                break;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The least edge below which at least a `share` of the values lies, less one bin: the left
    /// edge of the bin in which the share is reached.
    ///
    /// # Source
    /// onnxruntime 1.31.1, `quantization.calibrate`, `HistogramCollector.compute_percentile`.
    pub(super) fn quantile(&self, share: f64) -> f32 {
        let total: u64 = self.counts.iter().sum();
        let mut below = 0.0;
        for (edge, &count) in self.edges.iter().zip(&self.counts) {
            below += count as f64 / total as f64;
            if below >= share {
                return *edge;
            }
        }
        self.edges[self.counts.len()]
    }

    /// The symmetric cut whose `levels` equal steps tell the least of what the counts tell: the
    /// one of least Kullback-Leibler divergence between the clipped counts and the same at that
    /// many levels. The bins must be symmetric around 0 and at least as many as levels.
    ///
    /// # Source
    /// Migacz 2017, "8-bit inference with TensorRT", GTC; onnxruntime 1.31.1,
    /// `quantization.calibrate`, `HistogramCollector.get_entropy_threshold`.
    pub(super) fn least_divergence(&self, levels: usize) -> Range {
        let bins = self.counts.len();
        let middle = bins / 2;
        let mut prefix = vec![0u64; bins + 1];
        for (index, &count) in self.counts.iter().enumerate() {
            prefix[index + 1] = prefix[index] + count;
        }
        let mut best = (f32::INFINITY, levels / 2);
        let (mut clipped, mut coarse) = (Vec::new(), Vec::new());
        for half in levels / 2..=middle {
            let (start, end) = (middle - half, (middle + half + 1).min(bins));
            self.clip(&prefix, start, end, &mut clipped);
            self.coarsen(&prefix, start, end, levels, &clipped, &mut coarse);
            let divergence = divergence(&clipped, &coarse);
            if divergence < best.0 {
                best = (divergence, half);
            }
        }
        let half = best.1;
        Range {
            min: self.edges[middle - half],
            max: self.edges[(middle + half + 1).min(bins)],
        }
    }

    /// The bins `start..end`, the first and the last with all that is beyond.
    fn clip(&self, prefix: &[u64], start: usize, end: usize, clipped: &mut Vec<u64>) {
        clipped.clear();
        clipped.extend_from_slice(&self.counts[start..end]);
        let total = prefix[self.counts.len()];
        if let Some(first) = clipped.first_mut() {
            *first += prefix[start];
        }
        if let Some(last) = clipped.last_mut() {
            *last += total - prefix[end];
        }
    }

    /// The bins `start..end` at so many levels: each level's count spread over its bins, by whole
    /// numbers rounded down, in proportion to nothing but how many of them hold something.
    fn coarsen(
        &self,
        prefix: &[u64],
        start: usize,
        end: usize,
        levels: usize,
        clipped: &[u64],
        coarse: &mut Vec<u64>,
    ) {
        let size = end - start;
        let merged = size / levels;
        coarse.clear();
        coarse.resize(size, 0);
        for level in 0..levels {
            let (from, to) = (level * merged, (level + 1) * merged);
            // The last level counts, but does not cover, the bins that are left over.
            let counted = if level + 1 == levels { size } else { to };
            let count = prefix[start + counted] - prefix[start + from];
            let filled = clipped[from..to].iter().filter(|&&n| n != 0).count() as u64;
            if let Some(each) = count.checked_div(filled) {
                coarse[from..to].fill(each);
            }
        }
    }
}

/// A distribution without zeros: a ten-thousandth in each empty bin, taken from the others, then
/// divided by the sum. `None` where all are empty or almost all, so that there is too little to
/// take from.
fn smoothed(counts: &[u64]) -> Option<Vec<f32>> {
    const SMALL: f64 = 0.0001;
    let empty = counts.iter().filter(|&&n| n == 0).count();
    let filled = counts.len() - empty;
    let taken = SMALL * empty as f64 / filled as f64;
    if filled == 0 || taken >= 1.0 {
        return None;
    }
    let smooth = |&n: &u64| match n {
        0 => SMALL as f32,
        _ => n as f32 - taken as f32,
    };
    let mut shares: Vec<f32> = counts.iter().map(smooth).collect();
    let sum = pairwise_sum(&shares);
    for share in &mut shares {
        *share /= sum;
    }
    Some(shares)
}

/// `Σ p ln(p / q)` of two smoothed distributions; infinite where one cannot be smoothed.
///
/// All in `f32`, as onnxruntime computes it: where many cuts are equally good, the roundings
/// decide.
fn divergence(p: &[u64], q: &[u64]) -> f32 {
    let (Some(p), Some(q)) = (smoothed(p), smoothed(q)) else {
        return f32::INFINITY;
    };
    let terms = p.iter().zip(&q);
    let terms: Vec<f32> = terms
        .map(|(p, q)| p * libm::log(f64::from(p / q)) as f32)
        .collect();
    pairwise_sum(&terms)
}

/// The sum as NumPy adds contiguous numbers: halves of at most 128 in eight lanes.
fn pairwise_sum(values: &[f32]) -> f32 {
    match values.len() {
        0..8 => values.iter().sum(),
        8..=128 => {
            let (eights, rest) = values.as_chunks::<8>();
            let mut lanes = eights[0];
            for eight in &eights[1..] {
                for (lane, value) in lanes.iter_mut().zip(eight) {
                    *lane += value;
                }
            }
            let [a, b, c, d, e, f, g, h] = lanes;
            let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
            rest.iter().fold(sum, |sum, value| sum + value)
        }
        len => {
            let half = len / 2 / 8 * 8;
            let (left, right) = values.split_at(half);
            pairwise_sum(left) + pairwise_sum(right)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_on_edges_go_to_the_right_and_the_last_bin_is_closed() {
        let mut histogram = Histogram::new(-1.0, 1.0, 4);
        histogram.add([-1.0, -0.5, -0.25, 0.0, 0.5, 1.0, 1.5, -1.5, f32::NAN].into_iter());
        assert_eq!(histogram.counts(), [1, 2, 1, 2]);
        // A single value is in the middle of an interval of 1.
        let mut single = Histogram::new(3.0, 3.0, 4);
        single.add([3.0, 3.0].into_iter());
        assert_eq!(single.edges, [2.5, 2.75, 3.0, 3.25, 3.5]);
        assert_eq!(single.counts(), [0, 0, 2, 0]);
    }

    #[test]
    fn quantiles_are_left_edges() {
        let mut histogram = Histogram::new(0.0, 8.0, 8);
        histogram.add((0..8).map(|i| i as f32));
        for (share, edge) in [
            (0.0, 0.0),
            (0.125, 0.0),
            (0.5, 3.0),
            (0.51, 4.0),
            (1.0, 7.0),
        ] {
            assert_eq!(
                histogram.quantile(share).to_bits(),
                f32::to_bits(edge),
                "{share}"
            );
        }
    }

    /// With as many bins as levels there is one candidate: everything.
    #[test]
    fn as_many_bins_as_levels_cut_nothing() {
        let mut histogram = Histogram::new(-2.0, 2.0, 128);
        histogram.add([-2.0, 0.1, 0.2, 1.0].into_iter());
        let range = Range {
            min: -2.0,
            max: 2.0,
        };
        assert_eq!(histogram.least_divergence(128), range);
    }

    #[test]
    fn a_lone_outlier_is_cut() {
        let mut histogram = Histogram::new(-100.0, 100.0, 2048);
        histogram.add((0..100_000).map(|i| (i % 1000) as f32 / 500.0 - 1.0));
        histogram.add([100.0].into_iter());
        let range = histogram.least_divergence(128);
        assert!(range.max >= 1.0 && range.max < 20.0, "{range:?}");
    }

    proptest! {
        /// By the definition: the bin of a value is the last whose left edge is not above it.
        #[test]
        fn bins_are_those_of_the_edges(
            values in proptest::collection::vec(-3.0f32..5.0, 1..50),
            bins in 1usize..300,
        ) {
            let first = values.iter().copied().fold(f32::MAX, f32::min);
            let last = values.iter().copied().fold(f32::MIN, f32::max);
            let mut histogram = Histogram::new(first, last, bins);
            histogram.add(values.iter().copied());
            let mut counts = vec![0; bins];
            for value in &values {
                let right = histogram.edges.partition_point(|edge| edge <= value);
                counts[right.saturating_sub(1).min(bins - 1)] += 1;
            }
            prop_assert_eq!(histogram.counts(), counts);
            prop_assert_eq!(histogram.counts().iter().sum::<u64>(), values.len() as u64);
        }

        /// Spreading keeps the count and stays inside of the interval.
        #[test]
        fn spreading_loses_nothing(from in -1.5f64..1.5, width in 0.0f64..2.0, count in 0u64..10_000) {
            let mut histogram = Histogram::new(-1.0, 1.0, 37);
            let to = from + width;
            histogram.spread(from, to, count);
            prop_assert_eq!(histogram.counts().iter().sum::<u64>(), count);
            for (bin, &n) in histogram.counts().iter().enumerate() {
                let inside = f64::from(histogram.edges[bin + 1]) + 1e-6 >= from.clamp(-1.0, 1.0)
                    && f64::from(histogram.edges[bin]) - 1e-6 <= to.clamp(-1.0, 1.0);
                prop_assert!(n == 0 || inside, "{} in bin {}", n, bin);
            }
        }
    }
}
