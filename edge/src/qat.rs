//! Quantization-aware training: what is trained is what is served.
//!
//! # Forward
//! Every step quantizes the 32-bit master weights, and the forward pass is that of the device: the
//! integer kernels, on the same points, with the same rounding, group normalisation from exact
//! sums included. So a session's evaluation and the exported program agree in every bit.
//! [`QatForward::Fake`] is the readable twin: real numbers that are quantized and dequantized
//! again, as in the papers. It differs from the integers by the rounding of `f32` sums alone.
//!
//! # Backward
//! Straight-through (Bengio et al. 2013, arXiv:1308.3432; Krishnamoorthi 2018, arXiv:1806.08342,
//! section 2.4): rounding counts as the identity, and the gradient is zero where a value was cut
//! off, by its point's range or by a relu. All else is the exact gradient, in `f32`, of the
//! numbers that the integers stand for: with `x̂` and `ŵ` dequantized,
//! ```text
//! dx = mask(dy) ŵ^T        dw = x̂^T mask(dy)        db = sum of mask(dy)
//! ```
//! A weight is never cut off: its scale follows from its largest magnitude.
//!
//! # Ranges
//! The range of every point is a tensor `POINT.range`, `[min, max]`, of the model's layout
//! ([`Model::with_ranges`](crate::Model::with_ranges)), so it travels with the parameters and a
//! server averages it like them. It starts as `[0, 0]`; the first observation sets it. Later ones
//! widen it at once where they pass it, and shrink it by [`QatOptions::momentum`] (Jacob et al.
//! 2018, arXiv:1712.05877, section 3.1). A moving average in both directions, as in that paper,
//! lags behind activations that grow, and cuts off what max pooling picks: in a round of few steps,
//! from ranges that are the average of unlike clients, most gradients are then lost and the model
//! learns several times more slowly. No
//! optimizer touches a range, unless scales are [learned](QatOptions::learn_scales). A batch that
//! is worked through in parts is observed part by part. An update sent through the exact sum is
//! cut at ±64, so ranges beyond that take several rounds to be reached: scale inputs to the order
//! of 1. Quantization may [start later](QatOptions::delay) than training (same section).
//!
//! # Batch normalisation
//! Is folded into the product before it (Jacob et al. 2018, section 3.2) by its running
//! statistics, in what is quantized and what is served. While training it is the statistics of the
//! batch that normalise: the integer product's sums are divided by the factor that was folded in,
//! and then go through the same normalisation as in training without quantization (the batch
//! correction of Krishnamoorthi 2018, section 3.2.2). From [`QatOptions::freeze_statistics`] on,
//! the running statistics take their place and stay, and the forward pass is that of the device
//! in every bit.
//!
//! # Exported
//! [`Model::quantization`](crate::Model::quantization) makes the trained ranges a
//! [`Quantization`](crate::quant::Quantization), which serves the model in integers.

mod backward;
mod forward;
mod lowered;
mod observe;
mod plan;
mod step;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::arena::{Aligned, reserve};
use crate::graph::{Graph, Op, units};
use crate::kernel::Kernels;
use crate::kernel::int8::Moments;
use crate::model::Model;
use crate::plan::{Memory, Mode};
use crate::quant::{Granularity, QParams, Range};
use crate::session::{Update, most_rows};
use backward::Way;
use forward::{Tape, Watching, Weights};
use lowered::Lowered;
use plan::{Plan, Purpose};

pub(crate) use plan::points;

/// How a model is trained for quantization.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QatOptions {
    /// How many scales a weight has.
    pub granularity: Granularity,
    /// Share of a step's observation in a range that shrinks, in `(0, 1]`; one that grows is
    /// followed at once.
    pub momentum: f32,
    /// Rounds that train in 32-bit floating point before quantization starts.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay: u64,
    /// The round from which ranges stay as they are; never when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_ranges: Option<u64>,
    /// The round from which batch normalisation uses its running statistics and leaves them as
    /// they are; never when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze_statistics: Option<u64>,
    /// Whether scales are learned by gradient once their range was observed (LSQ: Esser et al.
    /// 2020, arXiv:1902.08153), in place of following the observations: the optimizer then moves
    /// ranges like any parameter.
    pub learn_scales: bool,
}

fn is_zero(rounds: &u64) -> bool {
    *rounds == 0
}

impl Default for QatOptions {
    fn default() -> Self {
        Self {
            granularity: Granularity::Channel,
            momentum: 0.1,
            delay: 0,
            freeze_ranges: None,
            freeze_statistics: None,
            learn_scales: false,
        }
    }
}

/// How a forward pass computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QatForward {
    /// In integers, by the kernels that serve the model.
    #[default]
    Integer,
    /// In real numbers, quantized and dequantized again: the readable twin.
    Fake,
}

/// Which statistics normalise a batch in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistics {
    Batch,
    Running,
}

/// The layer that keeps a model from being trained for quantization, with the reason.
pub(crate) fn unsupported(graph: &Graph) -> Option<String> {
    units(graph)
        .iter()
        .find(|unit| matches!(graph.nodes[unit.node].op, Op::BatchNorm { .. }))
        .map(|unit| graph.values[unit.own].name.clone())
}

/// A layer of sequences, which has no quantized forward pass: its name and kind.
pub(crate) fn sequential(graph: &Graph) -> Option<(String, &'static str)> {
    graph.nodes.iter().find_map(|node| {
        let kind = graph.sequence_kind(node)?;
        Some((graph.values[node.output].name.clone(), kind))
    })
}

/// A session's part in quantization-aware training: plans, scales, integers.
#[derive(Debug)]
pub(crate) struct Qat {
    options: QatOptions,
    arithmetic: QatForward,
    frozen_ranges: bool,
    statistics: Statistics,
    training: Plan,
    evaluation: Plan,
    params: Vec<QParams>,
    lowered: Vec<Lowered>,
    sums: Vec<i32>,
    /// The smallest and the largest sum of each column.
    ends: [Vec<i32>; 2],
    /// Of the groups of a normalisation.
    moments: Vec<Moments>,
    scratch: Vec<u8>,
}

/// Bytes that a session holds to train at a batch with plain SGD, beside its plans.
pub(crate) fn planned_bytes(model: &Model, options: QatOptions, batch: usize) -> usize {
    let purpose = Purpose {
        mode: Mode::Training,
        arithmetic: QatForward::Integer,
        statistics: Statistics::Batch,
        learned: options.learn_scales,
    };
    let most = most_rows(&Plan::new(model, 1, purpose).0, Mode::Training);
    let (memory, plan) = Plan::new(model, batch.clamp(1, most), purpose);
    let stored = memory.stores_gradients || batch > most;
    let vectors = if stored { 2 } else { 1 };
    let rows = memory.rows();
    let lowered = plan.products.iter();
    let lowered = lowered.map(|product| Lowered::bytes(product, options.granularity));
    4 * (vectors * model.parameters() + memory.len() + rows * plan.sums + 2 * plan.columns)
        + memory.bytes()
        + size_of::<Moments>() * rows * plan.groups
        + plan.scratch
        + lowered.sum::<usize>()
}

/// The buffers of a batch that a pass works in.
pub(crate) struct Buffers<'a> {
    pub(crate) arena: &'a mut Aligned,
    pub(crate) bytes: &'a mut [u8],
    pub(crate) tokens: &'a [u32],
    pub(crate) rows: usize,
}

impl Qat {
    /// With the plans for one example, and their memory: of training and of evaluation.
    pub(crate) fn new(
        model: &Model,
        options: QatOptions,
        arithmetic: QatForward,
    ) -> (Self, [Memory; 2]) {
        let statistics = Statistics::Batch;
        let purpose = |mode| Purpose {
            mode,
            arithmetic,
            statistics,
            learned: options.learn_scales,
        };
        let (training_memory, training) = Plan::new(model, 1, purpose(Mode::Training));
        let (evaluation_memory, evaluation) = Plan::new(model, 1, purpose(Mode::Evaluation));
        let lowered = training.products.iter();
        let lowered = lowered.map(|product| Lowered::new(product, options.granularity));
        let none = QParams::from_range(Range { min: 0.0, max: 0.0 });
        let mut qat = Self {
            options,
            arithmetic,
            frozen_ranges: false,
            statistics,
            lowered: lowered.collect(),
            params: vec![none; training.scales],
            training,
            evaluation,
            sums: Vec::new(),
            ends: [Vec::new(), Vec::new()],
            moments: Vec::new(),
            scratch: Vec::new(),
        };
        qat.make_room(&training_memory);
        qat.make_room(&evaluation_memory);
        (qat, [training_memory, evaluation_memory])
    }

    /// The plan for batches of `rows`; its memory.
    pub(crate) fn plan(&mut self, model: &Model, rows: usize, mode: Mode) -> Memory {
        let purpose = Purpose {
            mode,
            arithmetic: self.arithmetic,
            statistics: self.statistics,
            learned: self.options.learn_scales && !self.frozen_ranges,
        };
        let (memory, plan) = Plan::new(model, rows, purpose);
        match mode {
            Mode::Training | Mode::PerExample => self.training = plan,
            Mode::Evaluation => self.evaluation = plan,
        }
        self.make_room(&memory);
        memory
    }

    fn make_room(&mut self, memory: &Memory) {
        for plan in [&self.training, &self.evaluation] {
            reserve(&mut self.sums, memory.rows() * plan.sums);
            for ends in &mut self.ends {
                reserve(ends, plan.columns);
            }
            reserve(&mut self.moments, memory.rows() * plan.groups);
            reserve(&mut self.scratch, plan.scratch);
        }
    }

    /// Goes on as a round asks; whether the plan of training must be made anew.
    pub(crate) fn begin(&mut self, round: u64) -> bool {
        let reached = |from: Option<u64>| from.is_some_and(|from| round >= from);
        let statistics = match reached(self.options.freeze_statistics) {
            true => Statistics::Running,
            false => Statistics::Batch,
        };
        let before = (self.frozen_ranges, self.statistics);
        self.frozen_ranges = reached(self.options.freeze_ranges);
        self.statistics = statistics;
        (self.frozen_ranges, self.statistics) != before
    }

    /// The forward pass of a training step; moves ranges.
    pub(crate) fn forward_training(
        &mut self,
        k: &'static Kernels,
        memory: &Memory,
        buffers: Buffers<'_>,
        weights: &mut [f32],
    ) {
        let watching = Watching {
            momentum: match self.frozen_ranges || self.options.learn_scales {
                true => None,
                false => Some(self.options.momentum),
            },
            training: true,
        };
        let mut tape = self.tape(k, memory, buffers, Mode::Training);
        tape.read_scales(weights);
        tape.forward(&mut Weights::Write(weights), watching);
    }

    /// Makes the integers of the parameters, before any pass of an evaluation.
    pub(crate) fn lower(
        &mut self,
        k: &'static Kernels,
        memory: &Memory,
        buffers: Buffers<'_>,
        weights: &[f32],
    ) {
        self.tape(k, memory, buffers, Mode::Evaluation)
            .lower_all(weights);
    }

    /// The forward pass of an evaluation; after [`Self::lower`].
    pub(crate) fn forward_evaluation(
        &mut self,
        k: &'static Kernels,
        memory: &Memory,
        buffers: Buffers<'_>,
        weights: &[f32],
    ) {
        let watching = Watching {
            momentum: None,
            training: false,
        };
        let mut tape = self.tape(k, memory, buffers, Mode::Evaluation);
        tape.forward(&mut Weights::Read(weights), watching);
    }

    fn tape<'a>(
        &'a mut self,
        k: &'static Kernels,
        memory: &'a Memory,
        buffers: Buffers<'a>,
        mode: Mode,
    ) -> Tape<'a> {
        Tape {
            k,
            memory,
            plan: match mode {
                Mode::Training | Mode::PerExample => &self.training,
                Mode::Evaluation => &self.evaluation,
            },
            rows: buffers.rows,
            arena: buffers.arena.values_mut(),
            bytes: buffers.bytes,
            tokens: buffers.tokens,
            params: &mut self.params,
            lowered: &mut self.lowered,
            sums: &mut self.sums,
            ends: self.ends.each_mut().map(Vec::as_mut_slice),
            moments: &mut self.moments,
            scratch: &mut self.scratch,
        }
    }

    /// The backward pass of a training step, from the outputs' gradient.
    pub(crate) fn backward(
        &mut self,
        k: &'static Kernels,
        memory: &Memory,
        buffers: Buffers<'_>,
        weights: &mut [f32],
        gradient: &mut [f32],
        update: Update<'_>,
    ) {
        Way {
            k,
            memory,
            plan: &self.training,
            rows: buffers.rows,
            arena: buffers.arena.values_mut(),
            bytes: buffers.bytes,
            tokens: buffers.tokens,
            params: &self.params,
            lowered: &self.lowered,
            weights,
            gradient,
        }
        .backward(update);
    }
}
