//! What the server asks of a client: the local plan.

use core::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::stream::Stream;
use crate::units::RoundId;

mod private;

pub use private::{ExampleClipping, ExamplePrivacy};

/// How long a client trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalWork {
    /// Passes over the client's examples, in the plan's [order](ExampleOrder).
    Epochs(NonZeroU32),
    /// Mini-batch steps, starting a new pass whenever one ends.
    Steps(NonZeroU32),
}

/// In which order a pass visits the client's examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExampleOrder {
    /// Shuffled anew for each pass.
    #[default]
    Shuffled,
    /// As the client stores them, so that every pass has the same batches: FedAvg as it is written
    /// (McMahan et al. 2017, arXiv:1602.05629, algorithm 1, where a client splits its examples into
    /// batches once). Examples that are drawn for [privacy](LocalPlan::privacy) have no order.
    Stored,
}

impl ExampleOrder {
    fn is_shuffled(&self) -> bool {
        *self == Self::Shuffled
    }

    /// Writes the rows of the next pass over `rows.len()` examples into `rows`.
    pub fn pass(self, rows: &mut [u32], stream: &mut Stream) {
        for (slot, row) in rows.iter_mut().zip(0..) {
            *slot = row;
        }
        match self {
            Self::Shuffled => stream.shuffle(rows),
            Self::Stored => {}
        }
    }
}

/// How much of the plan's [work](LocalWork) a client manages to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkLimit {
    /// All of it.
    Full,
    /// At most so many epochs (for [`LocalWork::Epochs`]) or steps (for [`LocalWork::Steps`]).
    AtMost(NonZeroU32),
}

/// Examples in a mini-batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum BatchSize {
    /// So many; the last batch of a pass may be smaller.
    Examples(NonZeroU32),
    /// This share of the client's examples, above 0 and at most 1: the same number of steps for
    /// every client, whatever it holds.
    Share(f64),
    /// All of the client's examples at once (McMahan et al. 2017: `B = ∞`).
    Full,
}

impl BatchSize {
    /// Examples in a batch of a client that holds `examples` of them: from 1 to all of them.
    #[must_use]
    pub fn examples(self, examples: u64) -> u64 {
        let most = examples.max(1);
        match self {
            Self::Examples(size) => u64::from(size.get()).min(most),
            Self::Share(share) => (libm::round(share * examples as f64) as u64).clamp(1, most),
            Self::Full => most,
        }
    }

    /// The probability with which each example is in a batch that is drawn by Poisson sampling and
    /// expected to be of this size; at most 1.
    #[must_use]
    pub fn sampling_rate(self, examples: u64) -> f64 {
        match self {
            Self::Examples(size) => (f64::from(size.get()) / examples.max(1) as f64).min(1.0),
            Self::Share(share) => share.min(1.0),
            Self::Full => 1.0,
        }
    }
}

/// The local optimizer. Its state starts afresh on every client in every round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Optimizer {
    /// Stochastic gradient descent, `v = momentum * v + g`, `w -= rate * v`
    /// (with `nesterov`: `w -= rate * (g + momentum * v)`), as in PyTorch.
    Sgd {
        /// In `[0, 1)`; zero keeps no state.
        momentum: f32,
        /// Nesterov's variant; needs `momentum > 0`.
        nesterov: bool,
        /// L2 coefficient added to the gradient, at least 0.
        weight_decay: f32,
    },
    /// Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1). `weight_decay` is L2 (added to the
    /// gradient) or, when `decoupled`, AdamW's (Loshchilov & Hutter 2019, arXiv:1711.05101).
    Adam {
        /// Decay of the first moment, in `[0, 1)`.
        beta1: f32,
        /// Decay of the second moment, in `[0, 1)`.
        beta2: f32,
        /// Added to the denominator, above 0.
        epsilon: f32,
        /// Weight decay, at least 0.
        weight_decay: f32,
        /// AdamW's decoupled decay.
        decoupled: bool,
    },
}

impl Optimizer {
    /// Plain SGD.
    pub const SGD: Self = Self::Sgd {
        momentum: 0.0,
        nesterov: false,
        weight_decay: 0.0,
    };
}

/// What a schedule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleUnit {
    /// Rounds: the rate is constant within a client's training.
    Round,
    /// Local steps, from zero on every client in every round.
    Step,
}

/// How the learning rate changes with time `t` (in [`ScheduleUnit`]s).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Schedule {
    /// `rate`
    Constant,
    /// `rate * decay^t`
    Exponential {
        /// In `(0, 1]`.
        decay: f32,
    },
    /// `rate * decay^floor(t / every)`
    Step {
        /// In `(0, 1]`.
        decay: f32,
        /// At least 1.
        every: NonZeroU32,
    },
    /// `minimum + (rate - minimum) * (1 + cos(pi * min(t, length) / length)) / 2`
    /// (Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5).
    Cosine {
        /// The last rate, at least 0.
        minimum: f32,
        /// Time to reach it.
        length: NonZeroU32,
    },
    /// `rate * min(1, (t + 1) / length)`
    Warmup {
        /// Time to reach the full rate.
        length: NonZeroU32,
    },
    /// `rate / sqrt(t + 1)`
    InverseSqrt,
}

/// The learning rate and its schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningRate {
    /// The rate at the start, above 0.
    pub base: f32,
    /// How it changes.
    pub schedule: Schedule,
    /// With what it changes.
    pub unit: ScheduleUnit,
}

impl LearningRate {
    /// A rate that never changes.
    #[must_use]
    pub const fn constant(base: f32) -> Self {
        Self {
            base,
            schedule: Schedule::Constant,
            unit: ScheduleUnit::Round,
        }
    }

    /// The rate in `round` at local step `step`.
    #[must_use]
    pub fn rate(&self, round: RoundId, step: u64) -> f32 {
        let time = match self.unit {
            ScheduleUnit::Round => round.0,
            ScheduleUnit::Step => step,
        };
        let base = f64::from(self.base);
        let t = time as f64;
        let rate = match self.schedule {
            Schedule::Constant => return self.base,
            Schedule::Exponential { decay } => base * libm::pow(f64::from(decay), t),
            Schedule::Step { decay, every } => {
                base * libm::pow(f64::from(decay), (time / u64::from(every.get())) as f64)
            }
            Schedule::Cosine { minimum, length } => {
                let share = (t / f64::from(length.get())).min(1.0);
                let minimum = f64::from(minimum);
                minimum + (base - minimum) * 0.5 * (1.0 + libm::cos(core::f64::consts::PI * share))
            }
            Schedule::Warmup { length } => base * ((t + 1.0) / f64::from(length.get())).min(1.0),
            Schedule::InverseSqrt => base / libm::sqrt(t + 1.0),
        };
        rate as f32
    }
}

/// Arithmetic of local training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// Quantization-aware training: the forward pass runs in 8-bit integers on weights quantized
    /// from 32-bit masters, the backward pass is straight-through (Jacob et al. 2018,
    /// arXiv:1712.05877, section 3).
    QatInt8,
}

/// What a client is asked to do in a round. The same for every client of a cohort.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalPlan {
    /// How long to train.
    pub work: LocalWork,
    /// Examples per step.
    pub batch: BatchSize,
    /// In which order a pass visits the client's examples.
    #[serde(default, skip_serializing_if = "ExampleOrder::is_shuffled")]
    pub order: ExampleOrder,
    /// How gradients move the parameters.
    pub optimizer: Optimizer,
    /// Step size.
    pub learning_rate: LearningRate,
    /// Largest L2 norm of a step's whole gradient; larger ones are scaled down to it.
    pub max_gradient_norm: Option<f32>,
    /// FedProx's `mu`: adds `mu * (w - w_global)` to the gradient (Li et al. 2020,
    /// arXiv:1812.06127, equation 2). Zero for none. Applied after gradient clipping.
    pub proximal_mu: f32,
    /// Arithmetic.
    pub precision: Precision,
    /// Differential privacy of the client's examples; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<ExamplePrivacy>,
}

impl LocalPlan {
    /// Steps that a client of so many examples takes within `limit`.
    ///
    /// A pass has as many steps as it has batches; with [privacy](Self::privacy), where batches are
    /// drawn and have no fixed number, one over the sampling rate, rounded. A function of the plan
    /// and the number of examples alone, so that it can be accounted beforehand.
    #[must_use]
    pub fn steps(&self, examples: u64, limit: WorkLimit) -> u64 {
        let limited = |amount: NonZeroU32| match limit {
            WorkLimit::Full => u64::from(amount.get()),
            WorkLimit::AtMost(most) => u64::from(amount.min(most).get()),
        };
        match self.work {
            LocalWork::Steps(steps) => limited(steps),
            LocalWork::Epochs(epochs) => {
                limited(epochs).saturating_mul(self.steps_of_a_pass(examples))
            }
        }
    }

    fn steps_of_a_pass(&self, examples: u64) -> u64 {
        match self.privacy {
            None => examples.div_ceil(self.batch.examples(examples)),
            Some(_) => (libm::round(1.0 / self.batch.sampling_rate(examples)) as u64).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    /// `(schedule, time, expected rate)` at base 0.8, by hand.
    #[test]
    fn schedules_follow_their_formulas() {
        let cases = [
            (Schedule::Constant, 0, 0.8),
            (Schedule::Constant, 1_000_000, 0.8),
            (Schedule::Exponential { decay: 0.5 }, 0, 0.8),
            (Schedule::Exponential { decay: 0.5 }, 3, 0.1),
            (Schedule::Exponential { decay: 1.0 }, 9, 0.8),
            (
                Schedule::Step {
                    decay: 0.5,
                    every: n(10),
                },
                9,
                0.8,
            ),
            (
                Schedule::Step {
                    decay: 0.5,
                    every: n(10),
                },
                10,
                0.4,
            ),
            (
                Schedule::Step {
                    decay: 0.5,
                    every: n(10),
                },
                29,
                0.2,
            ),
            (
                Schedule::Cosine {
                    minimum: 0.2,
                    length: n(10),
                },
                0,
                0.8,
            ),
            (
                Schedule::Cosine {
                    minimum: 0.2,
                    length: n(10),
                },
                5,
                0.5,
            ),
            (
                Schedule::Cosine {
                    minimum: 0.2,
                    length: n(10),
                },
                10,
                0.2,
            ),
            (
                Schedule::Cosine {
                    minimum: 0.2,
                    length: n(10),
                },
                11,
                0.2,
            ),
            (Schedule::Warmup { length: n(4) }, 0, 0.2),
            (Schedule::Warmup { length: n(4) }, 3, 0.8),
            (Schedule::Warmup { length: n(4) }, 400, 0.8),
            (Schedule::InverseSqrt, 0, 0.8),
            (Schedule::InverseSqrt, 15, 0.2),
        ];
        for (schedule, time, expected) in cases {
            let rate = |unit, round, step| {
                let base = 0.8;
                LearningRate {
                    base,
                    schedule,
                    unit,
                }
                .rate(RoundId(round), step)
            };
            let by_round = rate(ScheduleUnit::Round, time, 77);
            assert!(
                (by_round - expected).abs() < 1e-7,
                "{schedule:?} at {time}: {by_round}"
            );
            let by_step = rate(ScheduleUnit::Step, 77, time);
            assert_eq!(
                by_step.to_bits(),
                by_round.to_bits(),
                "{schedule:?} at {time}"
            );
        }
    }

    #[test]
    fn rates_are_frozen() {
        let rate = |schedule| {
            LearningRate {
                base: 0.1,
                schedule,
                unit: ScheduleUnit::Round,
            }
            .rate(RoundId(17), 0)
        };
        // 0.1 * 0.99^17 and 0.05 * (1 + cos(0.17 pi)), rounded to f32, by Python.
        assert_eq!(
            rate(Schedule::Exponential { decay: 0.99 }).to_bits(),
            0x3daca282
        );
        let cosine = Schedule::Cosine {
            minimum: 0.0,
            length: n(100),
        };
        assert_eq!(rate(cosine).to_bits(), 0x3dbe8a3d);
    }

    /// `(batch, examples, in a batch, sampling rate, steps of a pass, and with privacy)`
    #[test]
    fn batches_follow_from_the_number_of_examples() {
        let cases = [
            (BatchSize::Examples(n(10)), 95, 10, 10.0 / 95.0, 10, 10),
            (BatchSize::Examples(n(10)), 104, 10, 10.0 / 104.0, 11, 10),
            (BatchSize::Examples(n(10)), 100, 10, 0.1, 10, 10),
            (BatchSize::Examples(n(10)), 7, 7, 1.0, 1, 1),
            (BatchSize::Examples(n(10)), 0, 1, 1.0, 0, 1),
            (BatchSize::Share(0.1), 100, 10, 0.1, 10, 10),
            (BatchSize::Share(0.3), 9, 3, 0.3, 3, 3),
            (BatchSize::Share(0.001), 9, 1, 0.001, 9, 1000),
            (BatchSize::Share(1.0), 9, 9, 1.0, 1, 1),
            (BatchSize::Full, 9, 9, 1.0, 1, 1),
        ];
        for (batch, examples, size, rate, plain, private) in cases {
            assert_eq!(batch.examples(examples), size, "{batch:?} of {examples}");
            let found = batch.sampling_rate(examples);
            assert!((found - rate).abs() < 1e-15, "{batch:?} of {examples}");
            for (privacy, pass) in [
                (None, plain),
                (Some(ExamplePrivacy::flat(1.0, 1.0)), private),
            ] {
                let plan = LocalPlan {
                    work: LocalWork::Epochs(n(3)),
                    batch,
                    privacy,
                    ..crate::testing::local_plan()
                };
                assert_eq!(plan.steps(examples, WorkLimit::Full), 3 * pass);
                assert_eq!(plan.steps(examples, WorkLimit::AtMost(n(2))), 2 * pass);
                assert_eq!(plan.steps(examples, WorkLimit::AtMost(n(9))), 3 * pass);
                let steps = LocalPlan {
                    work: LocalWork::Steps(n(5)),
                    ..plan
                };
                assert_eq!(steps.steps(examples, WorkLimit::Full), 5);
                assert_eq!(steps.steps(examples, WorkLimit::AtMost(n(2))), 2);
            }
        }
    }

    #[test]
    fn plans_survive_serialisation() {
        let plan = LocalPlan {
            work: LocalWork::Epochs(n(5)),
            batch: BatchSize::Examples(n(10)),
            order: ExampleOrder::Shuffled,
            optimizer: Optimizer::SGD,
            learning_rate: LearningRate::constant(0.1),
            max_gradient_norm: Some(1.0),
            proximal_mu: 0.01,
            precision: Precision::F32,
            privacy: None,
        };
        let private = LocalPlan {
            batch: BatchSize::Share(0.01),
            privacy: Some(ExamplePrivacy::flat(0.5, 1.1)),
            ..plan
        };
        for plan in [plan, private] {
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<LocalPlan>(&text).unwrap(), plan);
        }
    }
}
