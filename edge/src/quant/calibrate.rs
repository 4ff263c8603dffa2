//! Ranges of activations from samples: post-training calibration.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};

use serde::{Deserialize, Serialize};

use super::error::QuantError;
use super::histogram::Histogram;
use super::params::Range;

/// Samples that calibration takes when nothing else is asked for.
pub const CALIBRATION_SAMPLES: usize = 256;

/// How the range of a point is chosen from the values seen at it.
///
/// All of them but the moving average are functions of the multiset of values: order and batches
/// change no bit. They are those of onnxruntime 1.31.1 (`quantization.calibrate`), given all
/// samples in one collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Calibration {
    /// The smallest and the largest.
    #[default]
    MinMax,
    /// The smallest and the largest of each batch, averaged exponentially: from batch to batch
    /// `m += constant * (new - m)`, starting with the first.
    MovingAverage {
        /// In `(0, 1]`; 0.01 by default.
        #[serde(default = "default_constant")]
        constant: f32,
    },
    /// What holds a share of all magnitudes, by a histogram of the magnitudes; never beyond
    /// [`MinMax`](Self::MinMax).
    Percentile {
        /// In `(0, 100]`; 99.999 by default.
        #[serde(default = "default_percentile")]
        percentile: f64,
        /// Bins between the smallest and the largest magnitude; 2048 by default.
        #[serde(default = "default_bins")]
        bins: usize,
    },
    /// The cut that loses the least information at so many levels, by a histogram; never beyond
    /// [`MinMax`](Self::MinMax).
    Entropy {
        /// Bins between plus and minus the largest magnitude; 2048 by default. (onnxruntime's
        /// default of 128 leaves a single candidate, which is min-max.)
        #[serde(default = "default_bins")]
        bins: usize,
        /// Levels that the cut is compared at; 128 by default.
        #[serde(default = "default_levels")]
        levels: usize,
    },
}

fn default_constant() -> f32 {
    0.01
}

fn default_percentile() -> f64 {
    99.999
}

fn default_bins() -> usize {
    2048
}

fn default_levels() -> usize {
    128
}

/// Most bins of a histogram.
const MOST_BINS: usize = 1 << 16;

impl Calibration {
    /// The names for [`named`](Self::named).
    pub const NAMES: [&str; 4] = ["min-max", "moving-average", "percentile", "entropy"];

    /// The method of such a name with its default numbers.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "min-max" => Self::MinMax,
            "moving-average" => Self::MovingAverage {
                constant: default_constant(),
            },
            "percentile" => Self::Percentile {
                percentile: default_percentile(),
                bins: default_bins(),
            },
            "entropy" => Self::Entropy {
                bins: default_bins(),
                levels: default_levels(),
            },
            _ => return None,
        })
    }

    /// Whether its numbers are in range.
    ///
    /// # Errors
    /// [`QuantError::Method`] names the one that is not.
    pub fn check(&self) -> Result<(), QuantError> {
        let wrong = |key, value: String, range| Err(QuantError::Method { key, value, range });
        let bins_fit = |bins: usize| (2..=MOST_BINS).contains(&bins);
        match *self {
            Self::MovingAverage { constant } if !(constant > 0.0 && constant <= 1.0) => {
                wrong("constant", constant.to_string(), "in (0, 1]")
            }
            Self::Percentile { percentile, .. } if !(percentile > 0.0 && percentile <= 100.0) => {
                wrong("percentile", percentile.to_string(), "in (0, 100]")
            }
            Self::Percentile { bins, .. } | Self::Entropy { bins, .. } if !bins_fit(bins) => {
                wrong("bins", bins.to_string(), "in 2..=65536")
            }
            Self::Entropy { bins, levels } if levels < 2 || levels > bins => wrong(
                "levels",
                levels.to_string(),
                "at least 2 and at most `bins`",
            ),
            _ => Ok(()),
        }
    }

    fn needs_histogram(&self) -> bool {
        matches!(self, Self::Percentile { .. } | Self::Entropy { .. })
    }

    /// An empty histogram for the values within such a summary.
    fn histogram(&self, seen: &Seen) -> Option<Histogram> {
        match *self {
            Self::Percentile { bins, .. } => Some(Histogram::new(seen.least, seen.most, bins)),
            Self::Entropy { bins, .. } => Some(Histogram::new(-seen.most, seen.most, bins)),
            _ => None,
        }
    }
}

/// What the first pass keeps of a point.
#[derive(Clone, Copy, Debug)]
struct Seen {
    range: Range,
    /// The same, averaged over batches.
    average: Range,
    /// The smallest magnitude.
    least: f32,
    /// The largest magnitude.
    most: f32,
}

/// The state of one point.
#[derive(Clone, Debug)]
struct Point {
    seen: Seen,
    histogram: Option<Histogram>,
}

/// Collects the values of points, batch by batch, and gives their ranges.
///
/// Histograms are counted in a second pass over the same samples, within the range that the first
/// has found; nothing but a few numbers and the counts is kept of a value.
///
/// ```
/// use fl_edge::quant::{Calibration, Calibrator, QParams};
///
/// let mut calibrator = Calibrator::new(Calibration::named("percentile").expect("known"))?;
/// loop {
///     for batch in [[0.0, 1.0, 2.0], [3.0, -1.0, 0.5]] {
///         calibrator.observe("hidden", &batch)?;
///     }
///     if !calibrator.next_pass() {
///         break;
///     }
/// }
/// let ranges = calibrator.ranges()?;
/// assert_eq!(ranges["hidden"].min, -1.0);
/// # Ok::<(), fl_edge::quant::QuantError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Calibrator {
    calibration: Calibration,
    points: BTreeMap<String, Point>,
    /// Whether the histograms are being filled.
    counting: bool,
}

impl Calibrator {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// [`QuantError::Method`] when a number of the method is out of range.
    pub fn new(calibration: Calibration) -> Result<Self, QuantError> {
        calibration.check()?;
        Ok(Self {
            calibration,
            points: BTreeMap::new(),
            counting: false,
        })
    }

    /// How often all samples must be shown: once, or twice for methods with a histogram.
    #[must_use]
    pub fn passes(&self) -> usize {
        1 + usize::from(self.calibration.needs_histogram())
    }

    /// Takes the values of one point for one batch; none are fine, too.
    ///
    /// # Errors
    /// [`QuantError::NonFinite`] when a value is infinite or not a number.
    pub fn observe(&mut self, point: &str, values: &[f32]) -> Result<(), QuantError> {
        if self.counting {
            let known = self.points.get_mut(point);
            if let Some(histogram) = known.and_then(|point| point.histogram.as_mut()) {
                match self.calibration {
                    Calibration::Percentile { .. } => {
                        histogram.add(values.iter().map(|value| value.abs()));
                    }
                    _ => histogram.add(values.iter().copied()),
                }
            }
            return Ok(());
        }
        let Some(new) = summary(point, values)? else {
            return Ok(());
        };
        let Some(Point { seen, .. }) = self.points.get_mut(point) else {
            let state = Point {
                seen: new,
                histogram: None,
            };
            self.points.insert(point.to_owned(), state);
            return Ok(());
        };
        seen.range.min = seen.range.min.min(new.range.min);
        seen.range.max = seen.range.max.max(new.range.max);
        seen.least = seen.least.min(new.least);
        seen.most = seen.most.max(new.most);
        if let Calibration::MovingAverage { constant } = self.calibration {
            let average = &mut seen.average;
            average.min += constant * (new.range.min - average.min);
            average.max += constant * (new.range.max - average.max);
        }
        Ok(())
    }

    /// Ends a pass over the samples; true when they must be shown once more.
    pub fn next_pass(&mut self) -> bool {
        if self.counting || !self.calibration.needs_histogram() {
            return false;
        }
        self.counting = true;
        for point in self.points.values_mut() {
            point.histogram = self.calibration.histogram(&point.seen);
        }
        true
    }

    /// The range of every point that had values.
    ///
    /// # Errors
    /// [`QuantError::Unfinished`] when a pass is missing.
    pub fn ranges(&self) -> Result<BTreeMap<String, Range>, QuantError> {
        if self.calibration.needs_histogram() && !self.counting {
            return Err(QuantError::Unfinished);
        }
        let range = |point: &Point| {
            let Seen { range, average, .. } = point.seen;
            match (self.calibration, &point.histogram) {
                (Calibration::MovingAverage { .. }, _) => average,
                (Calibration::Percentile { percentile, .. }, Some(histogram)) => {
                    let most = histogram.quantile(percentile / 100.0);
                    let cut = Range {
                        min: -most,
                        max: most,
                    };
                    cut.within(range)
                }
                (Calibration::Entropy { levels, .. }, Some(histogram)) => {
                    histogram.least_divergence(levels).within(range)
                }
                _ => range,
            }
        };
        let points = self.points.iter();
        Ok(points
            .map(|(name, point)| (name.clone(), range(point)))
            .collect())
    }
}

/// The summary of one batch; `None` when it is empty.
fn summary(point: &str, values: &[f32]) -> Result<Option<Seen>, QuantError> {
    // In lanes, so that the loop is vector code; minima and maxima have no rounding, and the order
    // changes nothing but the sign of a zero.
    const LANES: usize = 16;
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    let mut least = [f32::INFINITY; LANES];
    let mut finite = true;
    for chunk in values.chunks(LANES) {
        for (lane, &value) in chunk.iter().enumerate() {
            finite &= value.is_finite();
            low[lane] = low[lane].min(value);
            high[lane] = high[lane].max(value);
            least[lane] = least[lane].min(value.abs());
        }
    }
    if !finite {
        return Err(QuantError::NonFinite {
            point: point.to_owned(),
        });
    }
    if values.is_empty() {
        return Ok(None);
    }
    // Adding 0 makes a negative zero positive.
    let min = low.into_iter().fold(f32::INFINITY, f32::min) + 0.0;
    let max = high.into_iter().fold(f32::NEG_INFINITY, f32::max) + 0.0;
    let range = Range { min, max };
    Ok(Some(Seen {
        range,
        average: range,
        least: least.into_iter().fold(f32::INFINITY, f32::min),
        most: min.abs().max(max.abs()),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn calibrated(calibration: Calibration, batches: &[&[f32]]) -> Range {
        let mut calibrator = Calibrator::new(calibration).unwrap();
        let mut passes = 0;
        loop {
            for batch in batches {
                calibrator.observe("x", batch).unwrap();
            }
            passes += 1;
            if !calibrator.next_pass() {
                break;
            }
        }
        assert_eq!(passes, calibrator.passes());
        calibrator.ranges().unwrap()["x"]
    }

    fn named(name: &str) -> Calibration {
        Calibration::named(name).unwrap()
    }

    #[test]
    fn simple_ranges_by_hand() {
        let batches: [&[f32]; 3] = [&[1.0, -2.0], &[], &[4.0, 0.5, -3.0]];
        let cases = [
            (Calibration::MinMax, -3.0, 4.0),
            (Calibration::MovingAverage { constant: 0.5 }, -2.5, 2.5),
            (Calibration::MovingAverage { constant: 1.0 }, -3.0, 4.0),
            (named("moving-average"), -2.01, 1.03),
            (named("entropy"), -3.0, 4.0),
        ];
        for (calibration, min, max) in cases {
            let found = calibrated(calibration, &batches);
            assert_eq!(found, Range { min, max }, "{calibration:?}");
        }
    }

    /// One value in a thousand is far out: a percentile of 99.5 cuts it and min-max does not.
    #[test]
    fn a_percentile_cuts_outliers() {
        let mut values: Vec<f32> = (0..9990)
            .map(|i| (i % 2000) as f32 / 1000.0 - 1.0)
            .collect();
        values.extend([500.0; 10]);
        let cut = Calibration::Percentile {
            percentile: 99.5,
            bins: 2048,
        };
        let found = calibrated(cut, &[&values]);
        assert!(found.max < 1.0 && found.min >= -1.0, "{found:?}");
        let all = Calibration::Percentile {
            percentile: 100.0,
            bins: 2048,
        };
        // The left edge of the last bin.
        let found = calibrated(all, &[&values]);
        assert!(found.max <= 500.0 && found.max > 499.5, "{found:?}");
        assert_eq!(found.min.to_bits(), (-1.0f32).to_bits());
    }

    #[test]
    fn zeros_alone_have_the_range_zero() {
        for name in Calibration::NAMES {
            let found = calibrated(named(name), &[&[0.0, -0.0, 0.0]]);
            assert_eq!(found, Range { min: 0.0, max: 0.0 }, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_calibrated_says_so() {
        let mut calibrator = Calibrator::new(named("entropy")).unwrap();
        let error = calibrator.observe("x", &[1.0, f32::NAN]).unwrap_err();
        assert!(error.to_string().contains("`x`"), "{error}");
        assert_eq!(calibrator.ranges(), Err(QuantError::Unfinished));
        let bad = [
            ("constant", Calibration::MovingAverage { constant: 0.0 }),
            (
                "percentile",
                Calibration::Percentile {
                    percentile: f64::NAN,
                    bins: 9,
                },
            ),
            (
                "bins",
                Calibration::Percentile {
                    percentile: 50.0,
                    bins: 1,
                },
            ),
            (
                "levels",
                Calibration::Entropy {
                    bins: 64,
                    levels: 65,
                },
            ),
        ];
        for (key, calibration) in bad {
            let error = Calibrator::new(calibration).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn methods_are_read_with_their_defaults() {
        for name in Calibration::NAMES {
            let read = toml::from_str::<Calibration>(&format!("method = \"{name}\""));
            assert_eq!(read.unwrap(), named(name));
        }
        let bad = "method = \"percentile\"\npercent = 3";
        assert!(toml::from_str::<Calibration>(bad).is_err());
    }

    proptest! {
        /// Batches and their order change nothing, but for the moving average.
        #[test]
        fn ranges_depend_on_the_values_alone(
            values in proptest::collection::vec(-3.0f32..3.0, 1..200),
            cut in 0.0f64..1.0,
            method in prop_oneof![
                Just(named("min-max")),
                Just(named("percentile")),
                Just(Calibration::Entropy { bins: 200, levels: 64 }),
            ],
        ) {
            let (left, right) = values.split_at((cut * values.len() as f64) as usize);
            let whole = calibrated(method, &[&values]);
            prop_assert_eq!(calibrated(method, &[right, left]), whole);
            // Never beyond what was seen.
            let seen = calibrated(Calibration::MinMax, &[&values]);
            prop_assert!(whole.min >= seen.min && whole.max <= seen.max);
        }
    }
}
