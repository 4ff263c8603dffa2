//! Federated calibration: ranges of activations from histograms that clients add up exactly.
//!
//! No client shows its samples or its ranges. Each counts how many of its values fall into bins
//! whose edges everybody knows ([`Bins`]); the counts are integers and go through the same exact
//! sum as updates ([`fl_core::ring`]), so the server sees nothing but the sum, securely aggregated
//! where updates are. The pooled counts depend on no order and no split: they are, bit for bit,
//! those of all samples on one machine, and so are the ranges that the server reads from them.
//!
//! # Bins
//! Nobody knows the ranges in advance, so the bins are logarithmic: each octave of the magnitude
//! is divided into `2^k` equal bins, for each sign, and there is one bin around 0. The bin of a
//! value is a shift of its bits. A range is therefore known within one bin, `2^-k` of the value;
//! at the default `k = 5`, 3 %.
//!
//! # Privacy
//! Counts of one client reveal the distribution of its activations; the sum over many reveals
//! theirs. This is no differential privacy.
//!
//! ```
//! use fl_core::sum::{Aggregator, ExactSum};
//! use fl_edge::quant::Calibration;
//! use fl_edge::quant::federated::{Bins, Histograms};
//!
//! let empty = Histograms::new(["input", "hidden"], Bins::default());
//! let plan = empty.ring_plan(2)?;
//! let mut sum = ExactSum::new(plan, empty.counts().len());
//! for data in [[0.5, -1.0, 2.0], [0.25, 3.0, 0.0]] {
//!     let mut client = empty.clone();
//!     client.observe("input", &data)?;
//!     client.observe("hidden", &data.map(|x| x * 10.0))?;
//!     let message = client.encode(plan).expect("made for it");
//!     sum.absorb_encoded(&message, message.weight())?;
//! }
//! let pooled = empty.with_counts(sum.values())?;
//! let ranges = pooled.ranges(&Calibration::MinMax)?;
//! assert!((3.0..3.1).contains(&ranges["input"].max));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use fl_core::Weight;
use fl_core::ring::{RingError, RingPlan, WeightBounds};
use fl_core::update::RingVector;
use serde::{Deserialize, Serialize};

use super::Quantization;
use super::calibrate::Calibration;
use super::error::QuantError;
use super::histogram::Histogram;
use super::params::Range;
use super::weight::Granularity;

/// Most values that a client counts in one bin; more are not counted.
const MOST_COUNTED: u64 = 1 << 32;

/// Edges of histograms, the same for everybody. See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Bins {
    lowest: i32,
    highest: i32,
    divisions: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    lowest: i32,
    highest: i32,
    divisions: u32,
}

impl TryFrom<Stored> for Bins {
    type Error = QuantError;

    fn try_from(stored: Stored) -> Result<Self, QuantError> {
        Self::new(stored.lowest, stored.highest, stored.divisions)
    }
}

impl From<Bins> for Stored {
    fn from(bins: Bins) -> Self {
        Self {
            lowest: bins.lowest,
            highest: bins.highest,
            divisions: bins.divisions,
        }
    }
}

/// Magnitudes from `2^-16` to `2^16`, 32 bins to an octave: 2049 bins.
impl Default for Bins {
    fn default() -> Self {
        Self {
            lowest: -16,
            highest: 16,
            divisions: 5,
        }
    }
}

impl Bins {
    /// Bins for magnitudes from `2^lowest` to `2^highest`, `2^divisions` to an octave. Smaller
    /// magnitudes count as 0, larger ones in the last bin.
    ///
    /// # Errors
    /// [`QuantError::Bins`] unless `-126 <= lowest < highest <= 127` and there are at most 10
    /// divisions.
    pub fn new(lowest: i32, highest: i32, divisions: u32) -> Result<Self, QuantError> {
        let octaves = -126 <= lowest && lowest < highest && highest <= 127;
        if !octaves || divisions > 10 {
            return Err(QuantError::Bins {
                lowest,
                highest,
                divisions,
            });
        }
        Ok(Self {
            lowest,
            highest,
            divisions,
        })
    }

    /// Number of bins: the negative ones from the largest magnitude down, the one of 0, the
    /// positive ones up.
    #[must_use]
    pub fn count(&self) -> usize {
        2 * self.one_sign() + 1
    }

    /// Bins of one sign.
    fn one_sign(&self) -> usize {
        (self.highest.abs_diff(self.lowest) as usize) << self.divisions
    }

    /// Bits to drop of an `f32`, and the remaining ones of `2^lowest`.
    fn start(&self) -> (u32, u32) {
        let exponent = (self.lowest + 127).unsigned_abs();
        (23 - self.divisions, exponent << self.divisions)
    }

    /// The bin of a finite value.
    #[must_use]
    pub fn bin(&self, value: f32) -> usize {
        let side = self.one_sign();
        let (shift, start) = self.start();
        let magnitude = value.abs().to_bits() >> shift;
        match magnitude.checked_sub(start) {
            None => side,
            Some(place) => {
                let place = (place as usize).min(side - 1);
                match value < 0.0 {
                    true => side - 1 - place,
                    false => side + 1 + place,
                }
            }
        }
    }

    /// The magnitude at which place `place` of a sign begins, and place `place - 1` ends.
    fn edge(&self, place: usize) -> f32 {
        let (shift, start) = self.start();
        f32::from_bits((start + place as u32) << shift)
    }

    /// The real numbers of a bin.
    #[must_use]
    pub fn edges(&self, bin: usize) -> Range {
        let side = self.one_sign();
        let (negative, place) = match bin.checked_sub(side) {
            Some(0) => {
                let max = self.edge(0);
                return Range { min: -max, max };
            }
            Some(beyond) => (false, beyond - 1),
            None => (true, side - 1 - bin),
        };
        let (min, max) = (self.edge(place), self.edge(place + 1));
        match negative {
            true => Range {
                min: -max,
                max: -min,
            },
            false => Range { min, max },
        }
    }
}

/// Counts of values in the bins of every point: a client's, or everybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histograms {
    bins: Bins,
    /// In the order of the counts.
    points: Vec<String>,
    counts: Vec<u64>,
}

impl Histograms {
    /// Empty bins for points, which everybody gives in the same order.
    pub fn new(points: impl IntoIterator<Item = impl Into<String>>, bins: Bins) -> Self {
        let points: Vec<String> = points.into_iter().map(Into::into).collect();
        Self {
            bins,
            counts: vec![0; points.len() * bins.count()],
            points,
        }
    }

    /// The bins.
    #[must_use]
    pub fn bins(&self) -> &Bins {
        &self.bins
    }

    /// The points.
    #[must_use]
    pub fn points(&self) -> &[String] {
        &self.points
    }

    /// All counts, `[points, bins]`.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }

    /// Forgets all counts.
    pub fn clear(&mut self) {
        self.counts.fill(0);
    }

    /// Counts the values of one point; a point that was not named at first is passed over.
    ///
    /// # Errors
    /// [`QuantError::NonFinite`] when a value is infinite or not a number; then nothing is counted.
    pub fn observe(&mut self, point: &str, values: &[f32]) -> Result<(), QuantError> {
        let Some(index) = self.points.iter().position(|name| name == point) else {
            return Ok(());
        };
        if !values.iter().all(|value| value.is_finite()) {
            return Err(QuantError::NonFinite {
                point: point.to_owned(),
            });
        }
        let size = self.bins.count();
        let counts = &mut self.counts[index * size..][..size];
        for value in values {
            let count = &mut counts[self.bins.bin(*value)];
            *count = MOST_COUNTED.min(*count + 1);
        }
        Ok(())
    }

    /// The ring in which the counts of so many clients are added: each has weight 1 and at most
    /// `2^32` values in a bin.
    ///
    /// # Errors
    /// [`RingError`] for no client or for more than the ring holds, `2^31`.
    pub fn ring_plan(&self, clients: u64) -> Result<RingPlan, RingError> {
        RingPlan::new(
            WeightBounds::new(Weight(1), clients),
            MOST_COUNTED as f64,
            1.0,
        )
    }

    /// The counts as a client's message of weight 1; `None` when the plan is for smaller numbers
    /// than that of [`ring_plan`](Self::ring_plan).
    #[must_use]
    pub fn encode(&self, plan: RingPlan) -> Option<RingVector> {
        let counts = self.counts.iter().map(|&count| count as i64).collect();
        RingVector::from_integers(plan, counts, Weight(1))
    }

    /// The same points and bins with the sum of all clients' counts, as [`ExactSum::values`] has
    /// it.
    ///
    /// [`ExactSum::values`]: fl_core::sum::ExactSum::values
    ///
    /// # Errors
    /// [`QuantError::Counts`] when it is not one count for each bin, or a count is negative.
    pub fn with_counts(&self, sum: &[i64]) -> Result<Self, QuantError> {
        let wrong = || QuantError::Counts {
            expected: self.counts.len(),
            given: sum.len(),
        };
        if sum.len() != self.counts.len() {
            return Err(wrong());
        }
        let counts = sum.iter().map(|&count| u64::try_from(count).ok());
        Ok(Self {
            bins: self.bins,
            points: self.points.clone(),
            counts: counts.collect::<Option<_>>().ok_or_else(wrong)?,
        })
    }

    /// The range of every point that had values, by the same methods as
    /// [`Calibrator::ranges`](super::Calibrator::ranges) but from these bins: never inside of what
    /// the method says for the values themselves by more than the roundings of its own bins, and
    /// at most one bin outside.
    ///
    /// # Errors
    /// [`QuantError::Method`] for a number out of range, [`QuantError::NotPooled`] for the moving
    /// average, which depends on an order.
    pub fn ranges(&self, method: &Calibration) -> Result<BTreeMap<String, Range>, QuantError> {
        method.check()?;
        if matches!(method, Calibration::MovingAverage { .. }) {
            return Err(QuantError::NotPooled);
        }
        let counts = self.counts.chunks(self.bins.count());
        let points = self.points.iter().zip(counts);
        Ok(points
            .filter_map(|(name, counts)| Some((name.clone(), self.range(method, counts)?)))
            .collect())
    }

    /// The quantization with the [ranges](Self::ranges) of every point that had values.
    ///
    /// # Errors
    /// As [`ranges`](Self::ranges), and [`QuantError::NoSamples`] when nothing is counted.
    pub fn quantization(
        &self,
        method: &Calibration,
        granularity: Granularity,
    ) -> Result<Quantization, QuantError> {
        let ranges = self.ranges(method)?;
        if ranges.is_empty() {
            return Err(QuantError::NoSamples);
        }
        let ranges = ranges.iter().map(|(point, range)| (point.as_str(), *range));
        Ok(Quantization::from_ranges(ranges, granularity))
    }

    fn range(&self, method: &Calibration, counts: &[u64]) -> Option<Range> {
        let filled = |(bin, &count): (usize, &u64)| (count > 0).then_some(bin);
        let first = counts.iter().enumerate().find_map(filled)?;
        let last = counts.iter().enumerate().rev().find_map(filled)?;
        // The bin of 0 is taken for 0: the rest of it is below the resolution of any range.
        let zero = self.bins.one_sign();
        let end = |bin: usize, edge: f32| if bin == zero { 0.0 } else { edge };
        let seen = Range {
            min: end(first, self.bins.edges(first).min),
            max: end(last, self.bins.edges(last).max),
        };
        Some(match *method {
            Calibration::Percentile { percentile, .. } => {
                let most = self.quantile(counts, percentile / 100.0);
                let cut = Range {
                    min: -most,
                    max: most,
                };
                cut.within(seen)
            }
            Calibration::Entropy { bins, levels } => {
                let most = seen.min.abs().max(seen.max.abs());
                let mut even = Histogram::new(-most, most, bins);
                for (bin, &count) in counts.iter().enumerate() {
                    let Range { min, max } = self.bins.edges(bin);
                    even.spread(f64::from(min), f64::from(max), count);
                }
                even.least_divergence(levels).within(seen)
            }
            Calibration::MinMax | Calibration::MovingAverage { .. } => seen,
        })
    }

    /// The least upper edge of magnitudes that has a share of the counts below it; 0 where the
    /// bin of 0 has it alone.
    fn quantile(&self, counts: &[u64], share: f64) -> f32 {
        let side = self.bins.one_sign();
        let total: u64 = counts.iter().sum();
        let enough = |below: u64| below as f64 >= share * total as f64;
        let mut below = counts[side];
        let mut place = 0;
        while !enough(below) && place < side {
            below += counts[side + 1 + place] + counts[side - 1 - place];
            place += 1;
        }
        match place {
            0 => 0.0,
            _ => self.bins.edge(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use fl_core::sum::{Aggregator, ExactSum};
    use proptest::prelude::*;

    use super::super::Calibrator;
    use super::*;

    fn named(name: &str) -> Calibration {
        Calibration::named(name).unwrap()
    }

    /// The edges of every bin, and their values, are of that bin and no other.
    #[test]
    fn bins_are_their_edges() {
        for (lowest, highest, divisions) in [(-16, 16, 5), (-2, 3, 0), (-126, 127, 2), (0, 1, 10)] {
            let bins = Bins::new(lowest, highest, divisions).unwrap();
            let mut before = None;
            for bin in 0..bins.count() {
                let Range { min, max } = bins.edges(bin);
                assert!(min < max);
                assert!(
                    before.is_none_or(|end: f32| end.to_bits() == min.to_bits()),
                    "{bin}"
                );
                before = Some(max);
                // Closed towards 0.
                let (inner, outer) = match bin.cmp(&bins.one_sign()) {
                    core::cmp::Ordering::Less => (max, min.next_up()),
                    core::cmp::Ordering::Equal => (0.0, max.next_down()),
                    core::cmp::Ordering::Greater => (min, max.next_down()),
                };
                for value in [inner, outer, (min + max) / 2.0] {
                    assert_eq!(bins.bin(value), bin, "{value} of {min}..{max}");
                }
                let relative = (max - min) / min.abs().min(max.abs());
                let width = (-f64::from(divisions)).exp2() as f32;
                assert!(bin == bins.one_sign() || relative <= width, "{min}..{max}");
            }
            let last = bins.count() - 1;
            assert_eq!(
                [f32::MIN, -0.0, f32::MAX].map(|x| bins.bin(x)),
                [0, last / 2, last]
            );
        }
        for (lowest, highest, divisions) in [(3, 3, 5), (-127, 0, 5), (0, 128, 5), (0, 1, 11)] {
            assert!(Bins::new(lowest, highest, divisions).is_err());
        }
    }

    #[test]
    fn ranges_by_hand() {
        let bins = Bins::new(-4, 4, 1).unwrap();
        let ranges = |values: &[f32], method: &str| {
            let mut histograms = Histograms::new(["x", "silent"], bins);
            histograms.observe("x", values).unwrap();
            histograms.observe("elsewhere", values).unwrap();
            let ranges = histograms.ranges(&named(method)).unwrap();
            assert_eq!(ranges.len(), 1);
            (ranges["x"].min, ranges["x"].max)
        };
        assert_eq!(ranges(&[1.0, 2.5, -0.3], "min-max"), (-0.375, 3.0));
        assert_eq!(ranges(&[0.01, -0.01, 0.0], "min-max"), (0.0, 0.0));
        assert_eq!(ranges(&[1e30, -0.001], "min-max"), (0.0, 16.0));
        assert_eq!(ranges(&[1.0, 2.5, -0.3], "percentile"), (-0.375, 3.0));
        assert_eq!(ranges(&[0.0], "percentile"), (0.0, 0.0));
        assert_eq!(ranges(&[0.0], "entropy"), (0.0, 0.0));
    }

    #[test]
    fn what_cannot_be_pooled_says_so() {
        let mut histograms = Histograms::new(["x"], Bins::default());
        let average = histograms.ranges(&named("moving-average"));
        assert_eq!(average, Err(QuantError::NotPooled));
        assert!(histograms.observe("x", &[1.0, f32::INFINITY]).is_err());
        assert_eq!(histograms.counts().iter().sum::<u64>(), 0);
        let mut sum = vec![1; histograms.counts().len()];
        assert!(histograms.with_counts(&sum).is_ok());
        assert!(histograms.with_counts(&sum[1..]).is_err());
        sum[7] = -1;
        assert!(histograms.with_counts(&sum).is_err());
        assert!(histograms.ring_plan(0).is_err());
        let small = RingPlan::new(WeightBounds::new(Weight(1), 5), 64.0, 1.0).unwrap();
        histograms.counts[3] = MOST_COUNTED;
        assert!(histograms.encode(small).is_none());
        assert!(
            histograms
                .encode(histograms.ring_plan(1_000_000).unwrap())
                .is_some()
        );
    }

    fn any_value() -> impl Strategy<Value = f32> {
        prop_oneof![
            -3.0f32..3.0,
            (-3.0f32..3.0).prop_map(|x| x * x * x),
            Just(0.0f32),
        ]
    }

    proptest! {
        /// Any split over clients, in any order and any grouping of sums, gives the ranges of all
        /// samples on one machine, bit for bit.
        #[test]
        fn a_federation_is_one_machine(
            values in proptest::collection::vec((any_value(), 0usize..5), 1..200),
            hub in 0usize..6,
        ) {
            let bins = Bins::new(-8, 8, 4).unwrap();
            let empty = Histograms::new(["a", "b"], bins);
            let mut pooled = empty.clone();
            for (value, _) in &values {
                pooled.observe("a", &[*value]).unwrap();
                pooled.observe("b", &[value * 0.1]).unwrap();
            }

            let plan = empty.ring_plan(5).unwrap();
            // Two aggregators, merged.
            let mut sums = [0, 1].map(|_| ExactSum::new(plan, empty.counts().len()));
            for client in 0..5 {
                let mut own = empty.clone();
                let data: Vec<f32> = values.iter().filter(|(_, c)| *c == client).map(|(v, _)| *v).collect();
                own.observe("a", &data).unwrap();
                own.observe("b", &data.iter().map(|x| x * 0.1).collect::<Vec<_>>()).unwrap();
                let message = own.encode(plan).unwrap();
                sums[usize::from(client < hub)].absorb_encoded(&message, Weight(1)).unwrap();
            }
            let [mut left, mut right] = sums;
            left.merge(&mut right).unwrap();
            let summed = empty.with_counts(left.values()).unwrap();
            prop_assert_eq!(&summed, &pooled);
            for name in ["min-max", "percentile"] {
                prop_assert_eq!(summed.ranges(&named(name)), pooled.ranges(&named(name)));
            }
        }

        /// Within one bin of what one machine finds, which has bins of its own.
        #[test]
        fn ranges_are_within_one_bin(
            values in proptest::collection::vec(any_value(), 1..300),
            percentile in 50.0f64..100.0,
        ) {
            let bins = Bins::default();
            let mut histograms = Histograms::new(["x"], bins);
            histograms.observe("x", &values).unwrap();
            let method = Calibration::Percentile { percentile, bins: 2048 };
            let federated = histograms.ranges(&method).unwrap()["x"];

            // The true quantile lies in the bin that ends with the federated one.
            let mut magnitudes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
            magnitudes.sort_by(f32::total_cmp);
            let rank = (percentile / 100.0 * values.len() as f64).ceil() as usize;
            let quantile = magnitudes[rank.max(1) - 1];
            let bin = bins.edges(bins.bin(quantile));
            let most = histograms.quantile(histograms.counts(), percentile / 100.0);
            prop_assert!(most.to_bits() == bin.max.to_bits() || quantile < bin.max && most == 0.0);

            let mut calibrator = Calibrator::new(method).unwrap();
            calibrator.observe("x", &values).unwrap();
            prop_assert!(calibrator.next_pass());
            calibrator.observe("x", &values).unwrap();
            let central = calibrator.ranges().unwrap()["x"];
            let (least, largest) = (magnitudes[0], magnitudes[magnitudes.len() - 1]);
            let step = (largest - least) / 2048.0 * 1.01 + 1e-6;
            for (federated, central) in [(federated.min, central.min), (federated.max, central.max)] {
                let bin = (federated.abs().max(central.abs()) / 32.0).max(2f32.powi(-16));
                let off = (federated - central).abs();
                prop_assert!(off <= bin + step, "{} and {}", federated, central);
            }
        }
    }

    /// Entropy from spread counts is near that of the values: the cut is the same within a few
    /// per cent, as neighbouring cuts differ by less than the spreading changes.
    #[test]
    fn entropy_from_logarithmic_bins() {
        let mut state = 7u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        // Sums of uniforms, cubed: a bell with long tails.
        let values: Vec<f32> = (0..50_000)
            .map(|_| ((0..6).map(|_| uniform()).sum::<f32>() - 3.0).powi(3))
            .collect();
        let mut calibrator = Calibrator::new(named("entropy")).unwrap();
        calibrator.observe("x", &values).unwrap();
        assert!(calibrator.next_pass());
        calibrator.observe("x", &values).unwrap();
        let central = calibrator.ranges().unwrap()["x"];
        let mut histograms = Histograms::new(["x"], Bins::new(-16, 16, 8).unwrap());
        histograms.observe("x", &values).unwrap();
        let federated = histograms.ranges(&named("entropy")).unwrap()["x"];
        let ratio = federated.max / central.max;
        assert!(
            (0.8..1.25).contains(&ratio),
            "{federated:?} and {central:?}"
        );
    }
}
