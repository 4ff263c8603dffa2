//! `[local]`: what a client of the cohort does in a round.

use std::fmt;
use std::num::NonZeroU32;

use fl_core::{
    BatchSize, ExampleOrder, LearningRate, LocalPlan, LocalWork, Optimizer, Precision, Schedule,
    ScheduleUnit,
};
use schemars::JsonSchema;
use serde::de::{IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::check::Check;
use super::de::{decode, join, split_kind};
use super::diagnostic::Diagnostics;
use super::distillation::DistillationTable;
use super::node::Node;
use super::qat::QatTable;

/// What a client does in a round.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalTable {
    /// Passes over the client's examples. Either this or `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub epochs: Option<NonZeroU32>,
    /// Mini-batch steps. Either this or `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub steps: Option<NonZeroU32>,
    /// Examples in a mini-batch: so many; a share of the client's, above 0 and below 1; or "full" for
    /// all of them. With privacy.kind = "example", the size that a batch drawn at random is expected
    /// to have.
    pub batch: Batch,
    /// In which order a pass visits the client's examples: "shuffled" anew for each pass, or "stored",
    /// as the data set has them. With privacy.kind = "example", which draws its batches, only
    /// "shuffled".
    #[serde(default, skip_serializing_if = "OrderName::is_shuffled")]
    pub order: OrderName,
    /// Step size, above 0.
    pub learning_rate: f64,
    /// Largest L2 norm of a step's gradient, above 0; larger ones are scaled down. None by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_gradient_norm: Option<f64>,
    /// Arithmetic of local training: "f32", or "qat-int8" for quantization-aware training, whose
    /// forward pass runs in 8-bit integers and whose activation ranges travel with the parameters.
    #[serde(default)]
    pub precision: PrecisionName,
    /// How quantization-aware training quantizes: a table; read where `precision` is "qat-int8".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qat: Option<QatTable>,
    /// What clients learn from a teacher beside their labels: a table; nothing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<DistillationTable>,
    /// How the learning rate changes: a table with `kind`, or only the kind as a string.
    #[serde(default)]
    pub schedule: ScheduleTable,
    /// The local optimizer: a table with `kind`, or only the kind as a string.
    #[serde(default)]
    pub optimizer: OptimizerTable,
}

/// The keys of `[local]` as they are read first; the tables with a `kind` are read by themselves.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    epochs: Option<NonZeroU32>,
    steps: Option<NonZeroU32>,
    batch: Batch,
    #[serde(default)]
    order: OrderName,
    learning_rate: f64,
    max_gradient_norm: Option<f64>,
    #[serde(default)]
    precision: PrecisionName,
    #[serde(rename = "qat")]
    _qat: Option<IgnoredAny>,
    #[serde(rename = "distillation")]
    _distillation: Option<IgnoredAny>,
    #[serde(rename = "schedule")]
    _schedule: Option<IgnoredAny>,
    #[serde(rename = "optimizer")]
    _optimizer: Option<IgnoredAny>,
}

/// In which order a pass visits a client's examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OrderName {
    /// Shuffled anew for each pass.
    #[default]
    Shuffled,
    /// As the data set has them.
    Stored,
}

impl OrderName {
    fn is_shuffled(&self) -> bool {
        *self == Self::Shuffled
    }
}

/// Arithmetic of local training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionName {
    /// 32-bit floating point.
    #[default]
    F32,
    /// Quantization-aware training: the forward pass in 8-bit integers, straight-through
    /// gradients, 32-bit master weights.
    QatInt8,
}

/// A mini-batch's size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Batch {
    /// So many examples.
    Examples(NonZeroU32),
    /// A share of the client's, above 0 and below 1.
    Share(f64),
    /// All of the client's.
    Full,
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Examples(count) => count.serialize(serializer),
            Self::Share(share) => share.serialize(serializer),
            Self::Full => "full".serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Batch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a whole number of at least 1, a share above 0 and below 1, or \"full\"",
                )
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Batch, E> {
                u32::try_from(value)
                    .ok()
                    .and_then(NonZeroU32::new)
                    .map(Batch::Examples)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Signed(value), &self))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Batch, E> {
                match value > 0.0 && value < 1.0 {
                    true => Ok(Batch::Share(value)),
                    false => Err(E::invalid_value(serde::de::Unexpected::Float(value), &self)),
                }
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Batch, E> {
                match text {
                    "full" => Ok(Batch::Full),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl JsonSchema for Batch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Batch".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "oneOf": [
                { "type": "integer", "minimum": 1 },
                { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 },
                { "const": "full" }
            ]
        })
    }
}

macro_rules! kinds {
    (
        $(#[$doc:meta])* $name:ident, $kinds:ident:
        $($kind:literal => $variant:ident($(#[$table_doc:meta])* $table:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty $(= $default:expr)?,)*
        }),)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
        #[serde(tag = "kind")]
        pub enum $name {
            $($(#[$table_doc])* #[serde(rename = $kind)] $variant($table),)*
        }

        /// Every kind.
        const $kinds: &[&str] = &[$($kind),*];

        $(
            $(#[$table_doc])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
            #[serde(deny_unknown_fields)]
            pub struct $table {
                $($(#[$field_doc])* $(#[serde(default = $default)])? pub $field: $type,)*
            }
        )*

        impl $name {
            fn read(node: &Node, path: &str, errors: &Diagnostics) -> Option<Self> {
                let (kind, rest) = split_kind(node, "kind", path, $kinds, errors)?;
                match kind {
                    $($kind => decode::<$table>(&rest, path, errors).map(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// How the learning rate changes.
    ScheduleTable, SCHEDULES:
    "constant" => Constant(
        /// Always the same rate.
        ConstantSchedule {}
    ),
    "exponential" => Exponential(
        /// `rate * decay^t`
        ExponentialSchedule {
            /// Factor per unit of time, in (0, 1].
            decay: f64,
            /// What time counts: "round" or "step".
            unit: Unit = "Unit::round",
        }
    ),
    "step" => Step(
        /// `rate * decay^floor(t / every)`
        StepSchedule {
            /// Factor, in (0, 1].
            decay: f64,
            /// Time between two factors.
            every: NonZeroU32,
            /// What time counts: "round" or "step".
            unit: Unit = "Unit::round",
        }
    ),
    "cosine" => Cosine(
        /// Half a cosine from the rate to `minimum` over `length`.
        CosineSchedule {
            /// The last rate, at least 0.
            minimum: f64 = "zero",
            /// Time to reach it.
            length: NonZeroU32,
            /// What time counts: "round" or "step".
            unit: Unit = "Unit::round",
        }
    ),
    "warmup" => Warmup(
        /// Linear rise to the rate over `length`.
        WarmupSchedule {
            /// Time to reach the full rate.
            length: NonZeroU32,
            /// What time counts: "round" or "step".
            unit: Unit = "Unit::round",
        }
    ),
    "inverse-sqrt" => InverseSqrt(
        /// `rate / sqrt(t + 1)`
        InverseSqrtSchedule {
            /// What time counts: "round" or "step".
            unit: Unit = "Unit::round",
        }
    ),
}

kinds! {
    /// The local optimizer.
    OptimizerTable, OPTIMIZERS:
    "sgd" => Sgd(
        /// Stochastic gradient descent, as in PyTorch.
        SgdTable {
            /// In [0, 1); 0 keeps no state.
            momentum: f64 = "zero",
            /// Nesterov's variant; needs momentum above 0.
            nesterov: bool = "no",
            /// L2 coefficient, at least 0.
            weight_decay: f64 = "zero",
        }
    ),
    "adam" => Adam(
        /// Adam (Kingma & Ba 2015); `weight_decay` is L2.
        AdamTable {
            /// Decay of the first moment, in [0, 1).
            beta1: f64 = "beta1",
            /// Decay of the second moment, in [0, 1).
            beta2: f64 = "beta2",
            /// Added to the denominator, above 0.
            epsilon: f64 = "epsilon",
            /// At least 0.
            weight_decay: f64 = "zero",
        }
    ),
    "adamw" => AdamW(
        /// AdamW (Loshchilov & Hutter 2019); `weight_decay` is decoupled.
        AdamWTable {
            /// Decay of the first moment, in [0, 1).
            beta1: f64 = "beta1",
            /// Decay of the second moment, in [0, 1).
            beta2: f64 = "beta2",
            /// Added to the denominator, above 0.
            epsilon: f64 = "epsilon",
            /// At least 0.
            weight_decay: f64 = "adamw_decay",
        }
    ),
}

fn zero() -> f64 {
    0.0
}

fn no() -> bool {
    false
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn epsilon() -> f64 {
    1e-8
}

fn adamw_decay() -> f64 {
    0.01
}

impl Default for ScheduleTable {
    fn default() -> Self {
        Self::Constant(ConstantSchedule {})
    }
}

impl Default for OptimizerTable {
    fn default() -> Self {
        Self::Sgd(SgdTable {
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        })
    }
}

/// What a schedule's time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Rounds.
    Round,
    /// Local steps, from zero on every client in every round.
    Step,
}

impl Unit {
    fn round() -> Self {
        Self::Round
    }

    fn plan(self) -> ScheduleUnit {
        match self {
            Self::Round => ScheduleUnit::Round,
            Self::Step => ScheduleUnit::Step,
        }
    }
}

impl LocalTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let path = "local";
        let keys = decode::<Keys>(node, path, errors);
        let table = node.table()?;
        let schedule = match table.get("schedule") {
            Some(node) => ScheduleTable::read(node, &join(path, "schedule"), errors),
            None => Some(ScheduleTable::default()),
        };
        let qat = match table.get("qat") {
            Some(node) => QatTable::read(node, &join(path, "qat"), errors).map(Some),
            None => Some(None),
        };
        let distillation = match table.get("distillation") {
            Some(node) => {
                DistillationTable::read(node, &join(path, "distillation"), errors).map(Some)
            }
            None => Some(None),
        };
        let optimizer = match table.get("optimizer") {
            Some(node) => OptimizerTable::read(node, &join(path, "optimizer"), errors),
            None => Some(OptimizerTable::default()),
        };
        let check = Check::new(node, path, errors);
        match (table.get("epochs"), table.get("steps")) {
            (None, None) => check.fault(
                "",
                "neither epochs nor steps is given; add for example epochs = 1",
            ),
            (Some(_), Some(_)) => check.fault(
                "steps",
                "epochs and steps are both given; remove one of them",
            ),
            _ => {}
        }
        if let Some(keys) = &keys {
            check.above_zero("learning_rate", keys.learning_rate);
            if let Some(norm) = keys.max_gradient_norm {
                check.above_zero("max_gradient_norm", norm);
            }
        }
        if let Some(schedule) = &schedule {
            schedule.check(&check, keys.as_ref().map(|keys| keys.learning_rate));
        }
        if let Some(optimizer) = &optimizer {
            optimizer.check(&check);
        }
        let keys = keys?;
        Some(Self {
            epochs: keys.epochs,
            steps: keys.steps,
            batch: keys.batch,
            order: keys.order,
            learning_rate: keys.learning_rate,
            max_gradient_norm: keys.max_gradient_norm,
            precision: keys.precision,
            qat: match keys.precision {
                PrecisionName::F32 => qat?,
                PrecisionName::QatInt8 => Some(qat?.unwrap_or_default()),
            },
            distillation: distillation?,
            schedule: schedule?,
            optimizer: optimizer?,
        })
    }

    /// What the clients are asked to do; the strategy adds its own part.
    #[must_use]
    pub fn plan(&self) -> LocalPlan {
        let work = match (self.epochs, self.steps) {
            (Some(epochs), _) => LocalWork::Epochs(epochs),
            (None, Some(steps)) => LocalWork::Steps(steps),
            (None, None) => LocalWork::Epochs(NonZeroU32::MIN),
        };
        let (schedule, unit) = self.schedule.plan();
        LocalPlan {
            work,
            batch: match self.batch {
                Batch::Examples(count) => BatchSize::Examples(count),
                Batch::Share(share) => BatchSize::Share(share),
                Batch::Full => BatchSize::Full,
            },
            order: match self.order {
                OrderName::Shuffled => ExampleOrder::Shuffled,
                OrderName::Stored => ExampleOrder::Stored,
            },
            optimizer: self.optimizer.plan(),
            learning_rate: LearningRate {
                base: self.learning_rate as f32,
                schedule,
                unit,
            },
            max_gradient_norm: self.max_gradient_norm.map(|norm| norm as f32),
            proximal_mu: 0.0,
            precision: match self.precision {
                PrecisionName::F32 => Precision::F32,
                PrecisionName::QatInt8 => Precision::QatInt8,
            },
            privacy: None,
        }
    }
}

impl ScheduleTable {
    fn check(&self, check: &Check<'_>, rate: Option<f64>) {
        match self {
            Self::Exponential(ExponentialSchedule { decay, .. })
            | Self::Step(StepSchedule { decay, .. }) => check.demand(
                "schedule.decay",
                *decay > 0.0 && *decay <= 1.0,
                decay,
                "a number above 0 and at most 1",
            ),
            Self::Cosine(CosineSchedule { minimum, .. }) => {
                check.at_least_zero("schedule.minimum", *minimum);
                if let Some(rate) = rate.filter(|rate| minimum > rate) {
                    check.fault(
                        "schedule.minimum",
                        format!("{minimum} is above learning_rate = {rate}; lower it"),
                    );
                }
            }
            Self::Constant(_) | Self::Warmup(_) | Self::InverseSqrt(_) => {}
        }
    }

    fn plan(&self) -> (Schedule, ScheduleUnit) {
        match self {
            Self::Constant(_) => (Schedule::Constant, ScheduleUnit::Round),
            Self::Exponential(table) => (
                Schedule::Exponential {
                    decay: table.decay as f32,
                },
                table.unit.plan(),
            ),
            Self::Step(table) => (
                Schedule::Step {
                    decay: table.decay as f32,
                    every: table.every,
                },
                table.unit.plan(),
            ),
            Self::Cosine(table) => (
                Schedule::Cosine {
                    minimum: table.minimum as f32,
                    length: table.length,
                },
                table.unit.plan(),
            ),
            Self::Warmup(table) => (
                Schedule::Warmup {
                    length: table.length,
                },
                table.unit.plan(),
            ),
            Self::InverseSqrt(table) => (Schedule::InverseSqrt, table.unit.plan()),
        }
    }
}

impl OptimizerTable {
    fn check(&self, check: &Check<'_>) {
        let below_one = |key, value: f64| {
            check.demand(
                key,
                (0.0..1.0).contains(&value),
                &value,
                "a number of at least 0 and below 1",
            );
        };
        match self {
            Self::Sgd(table) => {
                below_one("optimizer.momentum", table.momentum);
                check.at_least_zero("optimizer.weight_decay", table.weight_decay);
                if table.nesterov && table.momentum <= 0.0 {
                    check.fault(
                        "optimizer.nesterov",
                        "needs momentum above 0; add for example momentum = 0.9, or remove nesterov",
                    );
                }
            }
            Self::Adam(AdamTable {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            })
            | Self::AdamW(AdamWTable {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            }) => {
                below_one("optimizer.beta1", *beta1);
                below_one("optimizer.beta2", *beta2);
                check.above_zero("optimizer.epsilon", *epsilon);
                check.at_least_zero("optimizer.weight_decay", *weight_decay);
            }
        }
    }

    fn plan(&self) -> Optimizer {
        match self {
            Self::Sgd(table) => Optimizer::Sgd {
                momentum: table.momentum as f32,
                nesterov: table.nesterov,
                weight_decay: table.weight_decay as f32,
            },
            Self::Adam(table) => Optimizer::Adam {
                beta1: table.beta1 as f32,
                beta2: table.beta2 as f32,
                epsilon: table.epsilon as f32,
                weight_decay: table.weight_decay as f32,
                decoupled: false,
            },
            Self::AdamW(table) => Optimizer::Adam {
                beta1: table.beta1 as f32,
                beta2: table.beta2 as f32,
                epsilon: table.epsilon as f32,
                weight_decay: table.weight_decay as f32,
                decoupled: true,
            },
        }
    }
}
