//! What is known of a class of devices, each number with its source.
//!
//! ```toml
//! name = "sbc-example"
//! title = "An example board"
//! class = "single-board"
//! year = 2020
//!
//! [sources.N]                       # what a number's `source` may name
//! kind = "measured"                 # measured, vendor, fitted, derived, assumed or unverified
//! text = "ncnn benchmark/README.md"
//!
//! [cpu]
//! threads = 4
//! bandwidth = { value = 3.0, source = "N" }             # one number, one source
//! [cpu.f32]
//! conv = { value = 20.0, source = "N: resnet50" }       # a remark may follow the name
//! ```
//!
//! A number is a table `{ value, source }`, and `source` begins with a key of `[sources]`; so no
//! number is without one, and each says how far it can be trusted. Unknown keys are refused.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::work::{Kind, Operator};

/// Where an operator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DelegateKind {
    /// The processor; every device has one, and it computes every operator.
    Cpu,
    /// The graphics processor.
    Gpu,
    /// A processor for neural networks, or a signal processor that serves as one.
    Npu,
}

impl DelegateKind {
    /// `cpu`, `gpu` or `npu`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Npu => "npu",
        }
    }
}

/// In what numbers a model is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers, weights and values.
    Int8,
    /// 4-bit weights and 8-bit values.
    Int4,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Int8, Self::Int4];

    /// `f32`, `f16`, `int8` or `int4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Bytes of one value between operators.
    #[must_use]
    pub fn value_bytes(self) -> f64 {
        match self {
            Self::F32 => 4.0,
            Self::F16 => 2.0,
            Self::Int8 | Self::Int4 => 1.0,
        }
    }

    /// Bytes of one weight.
    #[must_use]
    pub fn weight_bytes(self) -> f64 {
        match self {
            Self::Int4 => 0.5,
            other => other.value_bytes(),
        }
    }
}

/// A number and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The number, in the unit that its key has.
    pub value: f64,
    /// A key of the profile's `[sources]`, and a remark after a colon.
    pub source: String,
}

impl Figure {
    /// The key of its source.
    #[must_use]
    pub fn key(&self) -> &str {
        self.source.split(':').next().unwrap_or_default().trim()
    }
}

/// How far a source can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Somebody measured it and published it.
    Measured,
    /// The maker says so.
    Vendor,
    /// Fitted to published measurements by [`fit`](super::fit).
    Fitted,
    /// Computed from other figures by the rule that the text states.
    Derived,
    /// Nobody published it; the text says why this value was taken.
    Assumed,
    /// Stated from memory; to be checked before it is relied on.
    Unverified,
}

impl SourceKind {
    /// Its name in TOML.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Vendor => "vendor",
            Self::Fitted => "fitted",
            Self::Derived => "derived",
            Self::Assumed => "assumed",
            Self::Unverified => "unverified",
        }
    }
}

/// Where numbers come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// How far it can be trusted.
    pub kind: SourceKind,
    /// The publication, or the rule.
    pub text: String,
}

/// The kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A phone of the highest price of its year.
    Flagship,
    /// A phone between flagship and middle.
    UpperMid,
    /// A phone of the middle.
    Mid,
    /// A cheap or old phone.
    Low,
    /// A single-board computer.
    SingleBoard,
    /// A board with a graphics processor for computing.
    Jetson,
    /// A computer or controller in a car.
    Automotive,
    /// A microcontroller.
    Microcontroller,
    /// A portable computer.
    Laptop,
    /// Measured by `fledgling device bench`.
    Host,
}

impl Class {
    /// Its name in TOML.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flagship => "flagship",
            Self::UpperMid => "upper-mid",
            Self::Mid => "mid",
            Self::Low => "low",
            Self::SingleBoard => "single-board",
            Self::Jetson => "jetson",
            Self::Automotive => "automotive",
            Self::Microcontroller => "microcontroller",
            Self::Laptop => "laptop",
            Self::Host => "host",
        }
    }
}

/// Sustained rates in one precision, in 10^9 multiply-accumulates a second. They are effective: a
/// convolution by Winograd's algorithm counts with the multiplications that it saves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// 3x3 convolutions of stride 1 by Winograd's algorithm, where weights are at hand; not less
    /// than `conv`, since the faster way is taken. Left out where the software has no such way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winograd: Option<Figure>,
    /// All other convolutions that are not depthwise, as matrix products.
    pub conv: Figure,
    /// Depthwise convolutions.
    pub depthwise: Figure,
    /// Fully connected layers, where weights are at hand.
    pub dense: Figure,
    /// What each output of a product costs beside its terms (being read, rounded and stored), in
    /// multiply-accumulates; nothing where left out. Depthwise convolutions have it in their rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Figure>,
    /// Values that what is no product reads and writes, in 10^9 a second; where left out, it only
    /// waits for its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elementwise: Option<Figure>,
    /// What each number costs that a convolution gathers from windows larger than one position, in
    /// multiply-accumulates; nothing where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gather: Option<Figure>,
}

impl Rates {
    /// The rate of a kind of arithmetic; none for what only waits for its bytes.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Option<f64> {
        match kind {
            Kind::Winograd => Some(self.winograd.as_ref().unwrap_or(&self.conv).value),
            Kind::Conv => Some(self.conv.value),
            Kind::Depthwise => Some(self.depthwise.value),
            Kind::Dense => Some(self.dense.value),
            Kind::Elementwise => self.elementwise.as_ref().map(|rate| rate.value),
        }
    }
}

/// What a delegate does with 16-bit floats when it has no rates for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HalfFloats {
    /// It computes in them; `f16` holds the rates.
    Native,
    /// It stores them and computes in 32 bits: half the bytes at the rates of `f32`.
    #[default]
    Storage,
    /// Software converts every number: `emulation` is the share of the rates of `f32` that is left.
    Emulated,
}

/// One processor of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegate {
    /// Threads that the figures are for; 1 for what is no CPU.
    #[serde(default = "one")]
    pub threads: u32,
    /// Channels that a product computes at once: others are padded to a multiple of them. 1 where
    /// nothing is known.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub lanes: u32,
    /// Whether it can compute backward passes.
    #[serde(default)]
    pub trains: bool,
    /// Whether it profits from two zeros in every four weights; twice the rate then.
    #[serde(default)]
    pub sparse_2_4: bool,
    /// What it does with 16-bit floats.
    #[serde(default)]
    pub half_floats: HalfFloats,
    /// Operators that it computes; all of them where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operators: Option<Vec<Operator>>,
    /// Share of the rates that one thread has, in `(0, 1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_thread: Option<Figure>,
    /// Share of the rates of `f32` that emulated 16-bit floats have, in `(0, 1)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulation: Option<Figure>,
    /// Bytes that it streams, in 10^9 a second.
    pub bandwidth: Figure,
    /// What stays close to it, and streams faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What starting an operator costs, in microseconds.
    pub launch: Figure,
    /// What the first use costs (loading, compiling), in milliseconds.
    pub start_up: Figure,
    /// Power while it computes, in watts, beyond the idle device.
    pub power: Figure,
    /// Bytes to and from it, in 10^9 a second; not for the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Figure>,
    /// What one transfer costs beside its bytes, in microseconds; not for the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer_launch: Option<Figure>,
    /// Rates in 32-bit floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f32: Option<Rates>,
    /// Rates in 16-bit floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f16: Option<Rates>,
    /// Rates in 8-bit integers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<Rates>,
    /// Rates with 4-bit weights; those of `int8` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int4: Option<Rates>,
}

/// Memory close to a processor: an operator whose bytes all fit there streams at its bandwidth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Its size, in 10^6 bytes.
    pub size: Figure,
    /// Bytes that it streams, in 10^9 a second; not less than the delegate's bandwidth.
    pub bandwidth: Figure,
}

fn one() -> u32 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_one(lanes: &u32) -> bool {
    *lanes == 1
}

impl Delegate {
    /// The rates in a precision and the share of them that is left; none where it cannot compute
    /// in it.
    #[must_use]
    pub fn rates(&self, precision: Precision) -> Option<(&Rates, f64)> {
        match precision {
            Precision::F32 => Some((self.f32.as_ref()?, 1.0)),
            Precision::Int8 => Some((self.int8.as_ref()?, 1.0)),
            Precision::Int4 => Some((self.int4.as_ref().or(self.int8.as_ref())?, 1.0)),
            Precision::F16 => match self.half_floats {
                HalfFloats::Native => Some((self.f16.as_ref()?, 1.0)),
                HalfFloats::Storage => Some((self.f32.as_ref()?, 1.0)),
                HalfFloats::Emulated => Some((self.f32.as_ref()?, self.emulation.as_ref()?.value)),
            },
        }
    }

    /// Whether it computes an operator.
    #[must_use]
    pub fn covers(&self, operator: Operator) -> bool {
        (self.operators.as_ref()).is_none_or(|operators| operators.contains(&operator))
    }
}

/// Memory for a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// All of it, in 10^6 bytes.
    pub total: Figure,
    /// The share that one program may take, in `(0, 1]`.
    pub usable: Figure,
}

impl Memory {
    /// Bytes that a model may take.
    #[must_use]
    pub fn usable_bytes(&self) -> u64 {
        (self.total.value * self.usable.value * 1e6) as u64
    }
}

/// A temperature from which on the device slows down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottleStep {
    /// Degrees Celsius.
    pub above: f64,
    /// Share of the speed that is left, in `(0, 1)`.
    pub speed: f64,
    /// Share of the power that is left, in `(0, 1)`.
    pub power: f64,
    /// As for a [`Figure`].
    pub source: String,
}

/// How a device warms up: one resistance and one capacity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thermal {
    /// Around it, in degrees Celsius.
    pub ambient: Figure,
    /// From the chip to the air, in kelvin per watt: a matter of the case, not of the chip.
    pub resistance: Figure,
    /// Joules per kelvin.
    pub capacity: Figure,
    /// Power of the idle device, in watts.
    pub idle: Figure,
    /// Where it slows down, ascending; none where it never does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<ThrottleStep>,
}

/// How the time of a step varies: a lognormal body of median 1, and rare stalls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// Standard deviation of the logarithm, at least 0.
    pub sigma: Figure,
    /// Probability that a step stalls, in `[0, 1)`.
    pub stall_probability: Figure,
    /// How many times longer a stalled step takes, at least 1.
    pub stall_factor: Figure,
}

/// A class of devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceProfile {
    /// What it is called.
    pub name: String,
    /// One line about it.
    pub title: String,
    /// The kind of device.
    pub class: Class,
    /// When such devices were sold first.
    pub year: u32,
    /// What the sources of figures may name.
    pub sources: BTreeMap<String, Source>,
    /// Memory.
    pub memory: Memory,
    /// Heat.
    pub thermal: Thermal,
    /// Spread of times.
    pub jitter: Jitter,
    /// The processor.
    pub cpu: Delegate,
    /// The graphics processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Delegate>,
    /// The processor for neural networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub npu: Option<Delegate>,
}

/// Why a profile was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{file}{}: {problem}", .line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct ProfileError {
    /// The file.
    pub file: String,
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: ProfileProblem,
}

/// What is wrong with a profile.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileProblem {
    /// It is no TOML, or not of this form.
    #[error("{message}; see docs/devices.md for the form of a profile")]
    Form {
        /// What the reader says.
        message: String,
    },
    /// It is too long.
    #[error("it has {bytes} bytes and at most {most} are read; it is no device profile")]
    Size {
        /// Bytes of the file.
        bytes: usize,
        /// Bytes read at most.
        most: usize,
    },
    /// A number is outside its range.
    #[error("`{key}` is {value}; it must be {range}")]
    Range {
        /// The key.
        key: String,
        /// The value, printed.
        value: String,
        /// The range in words.
        range: &'static str,
    },
    /// A source that is not listed.
    #[error(
        "the source of `{key}` names `{source_key}`, which is not in [sources]; known: {known}"
    )]
    Source {
        /// The key.
        key: String,
        /// What it names.
        source_key: String,
        /// The keys of `[sources]`, printed.
        known: String,
    },
    /// Something that another key asks for is missing.
    #[error("`{key}` is missing; {because}")]
    Missing {
        /// The key.
        key: String,
        /// Why it is needed.
        because: &'static str,
    },
    /// The name cannot be one.
    #[error("{name:?} cannot name a profile; use 1 to 60 lower-case letters, digits and `-`")]
    Name {
        /// The name given.
        name: String,
    },
}

/// A figure of a profile, by its key.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The number.
    pub value: f64,
    /// Its source.
    pub source: &'a str,
    /// What it must be, in words, with the test.
    range: (&'static str, fn(f64) -> bool),
}

const POSITIVE: (&str, fn(f64) -> bool) = ("above 0 and at most 1e9", |v| v > 0.0 && v <= 1e9);
const NOT_NEGATIVE: (&str, fn(f64) -> bool) =
    ("at least 0 and at most 1e9", |v| (0.0..=1e9).contains(&v));
const SHARE: (&str, fn(f64) -> bool) = ("above 0 and at most 1", |v| v > 0.0 && v <= 1.0);
const PART: (&str, fn(f64) -> bool) = ("above 0 and below 1", |v| v > 0.0 && v < 1.0);
const PROBABILITY: (&str, fn(f64) -> bool) =
    ("at least 0 and below 1", |v| (0.0..1.0).contains(&v));
const FACTOR: (&str, fn(f64) -> bool) = ("at least 1 and at most 1000", |v| {
    (1.0..=1000.0).contains(&v)
});
const CELSIUS: (&str, fn(f64) -> bool) = ("a temperature from -50 to 150", |v| {
    (-50.0..=150.0).contains(&v)
});
const SIGMA: (&str, fn(f64) -> bool) = ("at least 0 and at most 3", |v| (0.0..=3.0).contains(&v));

impl DeviceProfile {
    /// The delegate of a kind.
    #[must_use]
    pub fn delegate(&self, kind: DelegateKind) -> Option<&Delegate> {
        match kind {
            DelegateKind::Cpu => Some(&self.cpu),
            DelegateKind::Gpu => self.gpu.as_ref(),
            DelegateKind::Npu => self.npu.as_ref(),
        }
    }

    /// Its delegates, the CPU first.
    pub fn delegates(&self) -> impl Iterator<Item = (DelegateKind, &Delegate)> {
        [DelegateKind::Cpu, DelegateKind::Gpu, DelegateKind::Npu]
            .into_iter()
            .filter_map(|kind| Some((kind, self.delegate(kind)?)))
    }

    /// Every figure with its key, in the order of the fields above.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, Entry<'_>)> {
        type Range = (&'static str, fn(f64) -> bool);
        fn push<'a>(
            into: &mut Vec<(String, Entry<'a>)>,
            key: String,
            figure: &'a Figure,
            range: Range,
        ) {
            let (value, source) = (figure.value, figure.source.as_str());
            into.push((
                key,
                Entry {
                    value,
                    source,
                    range,
                },
            ));
        }
        let mut found = Vec::new();
        for (key, figure, range) in [
            ("memory.total", &self.memory.total, POSITIVE),
            ("memory.usable", &self.memory.usable, SHARE),
            ("thermal.ambient", &self.thermal.ambient, CELSIUS),
            ("thermal.resistance", &self.thermal.resistance, POSITIVE),
            ("thermal.capacity", &self.thermal.capacity, POSITIVE),
            ("thermal.idle", &self.thermal.idle, NOT_NEGATIVE),
        ] {
            push(&mut found, key.to_owned(), figure, range);
        }
        for step in &self.thermal.steps {
            for (key, value, range) in [
                ("above", step.above, CELSIUS),
                ("speed", step.speed, PART),
                ("power", step.power, PART),
            ] {
                let source = step.source.as_str();
                let entry = Entry {
                    value,
                    source,
                    range,
                };
                found.push((format!("thermal.steps.{key}"), entry));
            }
        }
        for (key, figure, range) in [
            ("jitter.sigma", &self.jitter.sigma, SIGMA),
            (
                "jitter.stall_probability",
                &self.jitter.stall_probability,
                PROBABILITY,
            ),
            ("jitter.stall_factor", &self.jitter.stall_factor, FACTOR),
        ] {
            push(&mut found, key.to_owned(), figure, range);
        }
        for (kind, delegate) in self.delegates() {
            let kind = kind.name();
            for (key, figure, range) in [
                ("one_thread", delegate.one_thread.as_ref(), SHARE),
                ("emulation", delegate.emulation.as_ref(), PART),
                ("bandwidth", Some(&delegate.bandwidth), POSITIVE),
                (
                    "cache.size",
                    delegate.cache.as_ref().map(|it| &it.size),
                    POSITIVE,
                ),
                (
                    "cache.bandwidth",
                    delegate.cache.as_ref().map(|it| &it.bandwidth),
                    POSITIVE,
                ),
                ("launch", Some(&delegate.launch), NOT_NEGATIVE),
                ("start_up", Some(&delegate.start_up), NOT_NEGATIVE),
                ("power", Some(&delegate.power), POSITIVE),
                ("transfer", delegate.transfer.as_ref(), POSITIVE),
                (
                    "transfer_launch",
                    delegate.transfer_launch.as_ref(),
                    NOT_NEGATIVE,
                ),
            ] {
                if let Some(figure) = figure {
                    push(&mut found, format!("{kind}.{key}"), figure, range);
                }
            }
            for (precision, rates) in [
                ("f32", &delegate.f32),
                ("f16", &delegate.f16),
                ("int8", &delegate.int8),
                ("int4", &delegate.int4),
            ] {
                let Some(rates) = rates else { continue };
                for (key, figure, range) in [
                    ("winograd", rates.winograd.as_ref(), POSITIVE),
                    ("conv", Some(&rates.conv), POSITIVE),
                    ("depthwise", Some(&rates.depthwise), POSITIVE),
                    ("dense", Some(&rates.dense), POSITIVE),
                    ("setup", rates.setup.as_ref(), NOT_NEGATIVE),
                    ("gather", rates.gather.as_ref(), NOT_NEGATIVE),
                    ("elementwise", rates.elementwise.as_ref(), POSITIVE),
                ] {
                    let key = format!("{kind}.{precision}.{key}");
                    if let Some(figure) = figure {
                        push(&mut found, key, figure, range);
                    }
                }
            }
        }
        found
    }

    /// Checks ranges, sources and what belongs together.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn check(&self) -> Result<(), (String, ProfileProblem)> {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &self.name;
        if name.is_empty() || name.len() > 60 || !name.chars().all(letter) {
            return Err((
                "name".to_owned(),
                ProfileProblem::Name { name: name.clone() },
            ));
        }
        for (key, entry) in self.figures() {
            if !(entry.range.1)(entry.value) {
                let value = entry.value.to_string();
                let range = entry.range.0;
                return Err((key.clone(), ProfileProblem::Range { key, value, range }));
            }
            let named = entry.source.split(':').next().unwrap_or_default().trim();
            if !self.sources.contains_key(named) {
                let known = self.sources.keys().map(String::as_str);
                let known = known.collect::<Vec<_>>().join(", ");
                let source_key = named.to_owned();
                let problem = ProfileProblem::Source {
                    key: key.clone(),
                    source_key,
                    known,
                };
                return Err((key, problem));
            }
        }
        let mut last = self.thermal.ambient.value;
        for step in &self.thermal.steps {
            if step.above <= last {
                let problem = ProfileProblem::Range {
                    key: "thermal.steps.above".to_owned(),
                    value: step.above.to_string(),
                    range: "above the ambient temperature and above the step before",
                };
                return Err(("thermal.steps.above".to_owned(), problem));
            }
            last = step.above;
        }
        let missing = |key: String, because| {
            let problem = ProfileProblem::Missing {
                key: key.clone(),
                because,
            };
            Err((key, problem))
        };
        for (kind, delegate) in self.delegates() {
            let name = kind.name();
            if !(1..=1024).contains(&delegate.threads) {
                let key = format!("{name}.threads");
                let value = delegate.threads.to_string();
                let range = "from 1 to 1024";
                return Err((key.clone(), ProfileProblem::Range { key, value, range }));
            }
            let any = Precision::ALL
                .iter()
                .any(|it| delegate.rates(*it).is_some());
            if !any {
                return missing(
                    format!("{name}.f32"),
                    "a delegate needs rates in a precision",
                );
            }
            if delegate.half_floats == HalfFloats::Native && delegate.f16.is_none() {
                return missing(
                    format!("{name}.f16"),
                    "half_floats = \"native\" has rates of its own",
                );
            }
            if delegate.half_floats == HalfFloats::Emulated && delegate.emulation.is_none() {
                return missing(
                    format!("{name}.emulation"),
                    "half_floats = \"emulated\" says how much of the rate is left",
                );
            }
            if kind != DelegateKind::Cpu {
                if delegate.transfer.is_none() {
                    return missing(
                        format!("{name}.transfer"),
                        "values go to and from a delegate",
                    );
                }
                if delegate.transfer_launch.is_none() {
                    return missing(
                        format!("{name}.transfer_launch"),
                        "values go to and from a delegate",
                    );
                }
            } else if delegate.operators.is_some() {
                let problem = ProfileProblem::Range {
                    key: "cpu.operators".to_owned(),
                    value: "given".to_owned(),
                    range: "left out: the CPU computes every operator",
                };
                return Err(("cpu.operators".to_owned(), problem));
            }
        }
        Ok(())
    }
}
