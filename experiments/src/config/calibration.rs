//! `evaluation.calibration`: how the ranges of a model served in 8-bit integers are found.

use fl_edge::quant::federated::Bins;
use fl_edge::quant::{CALIBRATION_SAMPLES, Calibration};
use fl_sim::{CalibrationConfig, CalibrationSource};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::qat::GranularityName;

/// Examples of a client that calibrates, unless another number is asked for.
const CLIENT_SAMPLES: u64 = 32;
/// Clients that calibrate, unless another number is asked for.
const CLIENTS: u64 = 100;
/// Most clients, or examples.
const MOST: u64 = 1_000_000;

/// How activation ranges are found before the global model is measured in int8.
///
/// Keys that stand for a number of one `kind` or one `calibrator` are refused with another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalibrationTable {
    /// "central": in one place, on training examples drawn over the population once for the run;
    /// or "federated": by clients, drawn for each evaluation, that send histograms of their
    /// activations through the exact sum of integers that updates go through.
    pub kind: CalibrationKind,
    /// How a range follows from the values seen: "min-max", "moving-average" (over batches of 32;
    /// not federated, as clients have no order), "percentile" of the magnitudes, or "entropy".
    #[serde(default)]
    pub calibrator: CalibratorName,
    /// Scales of a weight: "channel", one for each output channel, or "tensor", one for all.
    #[serde(default)]
    pub granularity: GranularityName,
    /// Examples, from 1 to 1,000,000: of "central" in all, 256 by default; of "federated" at most
    /// of each client, evenly spread over its training examples, 32 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub samples: Option<u64>,
    /// Of "federated": clients that are asked, from 1 to 1,000,000; 100 by default, all of a
    /// smaller population.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub clients: Option<u64>,
    /// Of "federated": bins to a doubling of the magnitude, a power of two from 1 to 1024, 32 by
    /// default. A range is known within one bin: at 32, within 3 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub bins_per_octave: Option<u32>,
    /// Of "percentile": the share of the magnitudes inside of the range, above 0 and at most 100;
    /// 99.999 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile: Option<f64>,
    /// Of "moving-average": the share of a batch in the average, above 0 and at most 1; 0.01 by
    /// default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constant: Option<f64>,
    /// Of "entropy" and of "percentile" in one place: bins of the histogram, from 2 to 65,536;
    /// 2048 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 65536))]
    pub bins: Option<u64>,
    /// Of "entropy": levels that a cut is compared at, at least 2 and at most `bins`; 128 by
    /// default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub levels: Option<u64>,
}

/// Where a model is calibrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CalibrationKind {
    /// In one place.
    Central,
    /// By clients.
    Federated,
}

/// How a range follows from the values seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CalibratorName {
    /// The smallest and the largest.
    #[default]
    MinMax,
    /// Those of each batch, averaged exponentially.
    MovingAverage,
    /// What holds a share of all magnitudes.
    Percentile,
    /// The cut that loses the least information.
    Entropy,
}

impl CalibratorName {
    fn name(self) -> &'static str {
        match self {
            Self::MinMax => "min-max",
            Self::MovingAverage => "moving-average",
            Self::Percentile => "percentile",
            Self::Entropy => "entropy",
        }
    }
}

impl CalibrationTable {
    /// Checks the table, which is `calibration` in the table of `check`, and writes its defaults
    /// out.
    pub(super) fn finish(&mut self, check: &Check<'_>) {
        self.refuse_unused(check);
        if self.is_federated() && self.calibrator == CalibratorName::MovingAverage {
            check.fault(
                "calibration.calibrator",
                "found \"moving-average\", which depends on an order of batches, and clients have none; choose \"min-max\", \"percentile\" or \"entropy\"",
            );
        }
        self.fill();
        let counts = [("samples", self.samples), ("clients", self.clients)];
        for (key, count) in counts {
            let Some(count) = count else { continue };
            check.demand(
                &at(key),
                (1..=MOST).contains(&count),
                &count,
                "a whole number from 1 to 1000000",
            );
        }
        if let Some(bins) = self.bins_per_octave {
            check.demand(
                "calibration.bins_per_octave",
                bins.is_power_of_two() && bins <= 1024,
                &bins,
                "a power of two from 1 to 1024, such as 32",
            );
        }
        if let Some(percentile) = self.percentile {
            check.demand(
                "calibration.percentile",
                percentile > 0.0 && percentile <= 100.0,
                &percentile,
                "a number above 0 and at most 100",
            );
        }
        if let Some(constant) = self.constant {
            check.demand(
                "calibration.constant",
                constant as f32 > 0.0 && constant <= 1.0,
                &constant,
                "a number above 0 and at most 1",
            );
        }
        if let Some(bins) = self.bins {
            check.demand(
                "calibration.bins",
                (2..=65_536).contains(&bins),
                &bins,
                "a whole number from 2 to 65536",
            );
        }
        if let (Some(levels), Some(bins)) = (self.levels, self.bins) {
            check.demand(
                "calibration.levels",
                (2..=bins).contains(&levels),
                &levels,
                &format!("a whole number from 2 to the number of bins, {bins}"),
            );
        }
    }

    fn is_federated(&self) -> bool {
        self.kind == CalibrationKind::Federated
    }

    /// Notes the keys that mean nothing with this kind and this calibrator.
    fn refuse_unused(&self, check: &Check<'_>) {
        use CalibratorName::{Entropy, MovingAverage, Percentile};
        if !self.is_federated() {
            let given = [
                ("clients", self.clients.is_some()),
                ("bins_per_octave", self.bins_per_octave.is_some()),
            ];
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                check.fault(
                    &at(key),
                    "is used by kind = \"federated\" alone, and kind is \"central\"; remove it, or choose that kind",
                );
            }
        }
        let own = self.calibrator;
        let keys: [(&str, bool, &[CalibratorName]); 4] = [
            ("percentile", self.percentile.is_some(), &[Percentile]),
            ("constant", self.constant.is_some(), &[MovingAverage]),
            ("bins", self.bins.is_some(), &[Percentile, Entropy]),
            ("levels", self.levels.is_some(), &[Entropy]),
        ];
        for (key, given, users) in keys {
            if given && !users.contains(&own) {
                let users: Vec<String> = (users.iter())
                    .map(|user| format!("calibrator = {:?}", user.name()))
                    .collect();
                check.fault(
                    &at(key),
                    format!(
                        "is used with {} alone, and the calibrator is {:?}; remove it, or choose that calibrator",
                        users.join(" or "),
                        own.name(),
                    ),
                );
            }
        }
        if self.is_federated() && own == Percentile && self.bins.is_some() {
            check.fault(
                "calibration.bins",
                "is not used by a federated percentile, which is read from the clients' bins; set bins_per_octave in its place",
            );
        }
    }

    /// Writes out the defaults of the keys that are used.
    fn fill(&mut self) {
        let federated = self.is_federated();
        let samples = match federated {
            true => CLIENT_SAMPLES,
            false => CALIBRATION_SAMPLES as u64,
        };
        self.samples.get_or_insert(samples);
        if federated {
            self.clients.get_or_insert(CLIENTS);
            self.bins_per_octave.get_or_insert(32);
        }
        match Calibration::named(self.calibrator.name()).unwrap_or_default() {
            Calibration::MovingAverage { .. } => {
                self.constant.get_or_insert(0.01);
            }
            Calibration::Percentile { percentile, bins } => {
                self.percentile.get_or_insert(percentile);
                if !federated {
                    self.bins.get_or_insert(bins as u64);
                }
            }
            Calibration::Entropy { bins, levels } => {
                self.bins.get_or_insert(bins as u64);
                self.levels.get_or_insert(levels as u64);
            }
            Calibration::MinMax => {}
        }
    }

    /// For the simulator.
    #[must_use]
    pub fn config(&self) -> CalibrationConfig {
        let mut calibrator = Calibration::named(self.calibrator.name()).unwrap_or_default();
        let whole = |count: Option<u64>, to: &mut usize| {
            if let Some(count) = count.and_then(|count| usize::try_from(count).ok()) {
                *to = count;
            }
        };
        match &mut calibrator {
            Calibration::MinMax => {}
            Calibration::MovingAverage { constant } => {
                *constant = self.constant.map_or(*constant, |value| value as f32);
            }
            Calibration::Percentile { percentile, bins } => {
                *percentile = self.percentile.unwrap_or(*percentile);
                whole(self.bins, bins);
            }
            Calibration::Entropy { bins, levels } => {
                whole(self.bins, bins);
                whole(self.levels, levels);
            }
        }
        let source = match self.kind {
            CalibrationKind::Central => CalibrationSource::Central {
                samples: self.samples.unwrap_or(CALIBRATION_SAMPLES as u64),
            },
            CalibrationKind::Federated => CalibrationSource::Federated {
                clients: self.clients.unwrap_or(CLIENTS),
                samples: self.samples.unwrap_or(CLIENT_SAMPLES),
                bins: self.bins_per_octave.map_or_else(Bins::default, |bins| {
                    // A power of two, once the table is checked.
                    Bins::new(-16, 16, bins.ilog2().min(10)).unwrap_or_default()
                }),
            },
        };
        CalibrationConfig {
            source,
            calibrator,
            granularity: self.granularity.granularity(),
        }
    }
}

/// The table, or only its kind.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let table = generator.subschema_for::<CalibrationTable>();
    let kind = generator.subschema_for::<CalibrationKind>();
    json_schema!({ "anyOf": [table, kind] })
}

fn at(key: &str) -> String {
    format!("calibration.{key}")
}
