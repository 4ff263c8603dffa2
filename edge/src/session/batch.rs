//! One batch: its examples, its buffers, its loss.

use alloc::vec::Vec;

use fl_core::{
    Evaluation, Examples, InputSpec, InputsMut, NO_TARGET, Stream, TargetSpec, TargetsMut,
};
use rand_core::Rng as _;

use super::BadExample;
use crate::arena::{Aligned, pick, reserve};
use crate::graph::target_width;
use crate::kernel::Kernels;
use crate::model::Model;
use crate::plan::Memory;
use crate::qat::Buffers;
use crate::zoo::Loss;

/// The buffers of a batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) arena: Aligned,
    pub(super) bytes: Vec<u8>,
    pub(super) tokens: Vec<u32>,
    pub(super) labels: Vec<u32>,
    pub(super) targets: Vec<f32>,
    pub(super) losses: Vec<f32>,
    pub(super) best: Vec<u32>,
}

/// `keep` is 0 where the value is dropped and 1 elsewhere.
fn draw_mask(stream: &mut Stream, threshold: u32, keep: &mut [u8]) {
    let mut words = [0u8; 1024];
    for part in keep.chunks_mut(words.len() / 4) {
        let bytes = &mut words[..4 * part.len()];
        stream.fill_bytes(bytes);
        for (keep, word) in part.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *keep = u8::from(u32::from_le_bytes(*word) >= threshold);
        }
    }
}

/// The first label that is none of the target's.
pub(crate) fn bad_label(target: TargetSpec, labels: &[u32]) -> Option<usize> {
    match target {
        TargetSpec::Class { classes } => labels.iter().position(|&it| it as usize >= classes),
        TargetSpec::Sequence { classes, .. } => labels
            .iter()
            .position(|&it| it as usize >= classes && it != NO_TARGET),
        TargetSpec::Real { .. } => None,
    }
}

/// The loss of classes, of an example or of each of its positions.
#[expect(
    clippy::too_many_arguments,
    reason = "one slice for each operand of a formula"
)]
pub(crate) fn cross_entropy(
    k: &Kernels,
    target: TargetSpec,
    rows: usize,
    outputs: &[f32],
    labels: &[u32],
    scale: f32,
    losses: &mut [f32],
    gradient: Option<&mut [f32]>,
) {
    let width = target_width(target);
    match target {
        TargetSpec::Sequence { length, .. } => k.sequence_cross_entropy(
            rows, length, width, outputs, labels, scale, losses, gradient,
        ),
        _ => k.softmax_cross_entropy(rows, width, outputs, labels, scale, losses, gradient),
    }
}

/// Adds examples to an evaluation. Where every position has a target, each of those counts as an
/// example does elsewhere. `best` has room for a label each.
pub(crate) fn judge(
    k: &Kernels,
    target: TargetSpec,
    outputs: &[f32],
    labels: &[u32],
    losses: &[f32],
    best: &mut [u32],
    evaluation: &mut Evaluation,
) {
    let each = target.labels();
    if each > 0 {
        let best = &mut best[..labels.len()];
        k.argmax(labels.len(), target_width(target), outputs, best);
        // No class is called as what stands for none.
        let hits = best.iter().zip(labels).filter(|(a, b)| a == b);
        evaluation.correct += hits.count() as u64;
    }
    let TargetSpec::Sequence { length, .. } = target else {
        evaluation.examples += losses.len() as u64;
        for loss in losses {
            evaluation.loss_sum += f64::from(*loss);
        }
        return;
    };
    for (labels, loss) in labels.chunks_exact(length).zip(losses) {
        let given = labels.iter().filter(|&&it| it != NO_TARGET).count();
        evaluation.examples += given as u64;
        evaluation.loss_sum += f64::from(*loss) * given as f64;
    }
}

impl Batch {
    /// What quantization-aware training works in.
    pub(super) fn parts(&mut self, rows: usize) -> Buffers<'_> {
        Buffers {
            arena: &mut self.arena,
            bytes: &mut self.bytes,
            tokens: &self.tokens,
            rows,
        }
    }

    pub(super) fn reserve(
        &mut self,
        memory: &Memory,
        input_len: usize,
        width: usize,
        model: &Model,
    ) {
        self.arena.reserve(memory.len());
        reserve(&mut self.bytes, memory.bytes());
        let rows = memory.rows();
        if matches!(model.input(), InputSpec::Tokens { .. }) {
            reserve(&mut self.tokens, rows * input_len);
        }
        match model.target() {
            TargetSpec::Class { .. } | TargetSpec::Sequence { .. } => {
                reserve(&mut self.labels, rows * model.target().labels());
            }
            TargetSpec::Real { .. } => reserve(&mut self.targets, rows * width),
        }
        reserve(&mut self.losses, rows);
        reserve(&mut self.best, rows * model.target().labels());
    }

    /// Reads the examples at `rows`.
    #[inline]
    pub(super) fn fill(
        &mut self,
        memory: &Memory,
        model: &Model,
        data: &dyn Examples,
        rows: &[u32],
        input_len: usize,
        width: usize,
    ) -> Result<(), BadExample> {
        let count = rows.len();
        let target = model.target();
        let targets = match target {
            TargetSpec::Class { .. } | TargetSpec::Sequence { .. } => {
                TargetsMut::Classes(&mut self.labels[..count * target.labels()])
            }
            TargetSpec::Real { .. } => TargetsMut::Real(&mut self.targets[..count * width]),
        };
        match model.input() {
            InputSpec::Real(_) => {
                let inputs = &mut self.arena.values_mut()[memory.at(memory.input, count)];
                data.fill(rows, InputsMut::Real(inputs), targets);
            }
            InputSpec::Tokens { vocabulary, .. } => {
                let tokens = &mut self.tokens[..count * input_len];
                data.fill(rows, InputsMut::Tokens(tokens), targets);
                let bad = tokens
                    .iter()
                    .position(|&token| token as usize >= *vocabulary);
                if let Some(at) = bad {
                    return Err(BadExample::Token {
                        row: rows[at / input_len],
                        token: tokens[at],
                    });
                }
            }
        }
        let labels = &self.labels[..count * target.labels()];
        if let Some(at) = bad_label(target, labels) {
            return Err(BadExample::Label {
                row: rows[at / target.labels()],
                label: labels[at],
            });
        }
        Ok(())
    }

    /// Draws the dropout masks of `rows` examples.
    pub(super) fn draw_masks(&mut self, memory: &Memory, rows: usize, stream: &mut Stream) {
        for row in 0..rows {
            for mask in &memory.masks {
                let keep = &mut self.bytes[mask.keep.example(row)];
                draw_mask(stream, mask.threshold, keep);
            }
        }
    }

    /// Each example's loss and, when `scale` is given, the outputs' gradient times `scale`.
    #[inline]
    pub(super) fn loss(
        &mut self,
        kernels: &Kernels,
        memory: &Memory,
        model: &Model,
        rows: usize,
        width: usize,
        scale: Option<f32>,
    ) {
        let places = [
            memory.at(memory.output, rows),
            memory.at(memory.output_gradient, rows),
        ];
        let [outputs, gradient] = pick(self.arena.values_mut(), places);
        let gradient = scale.is_some().then_some(gradient);
        let scale = scale.unwrap_or(1.0);
        let losses = &mut self.losses[..rows];
        match model.loss() {
            Loss::SoftmaxCrossEntropy => {
                let labels = &self.labels[..rows * model.target().labels()];
                cross_entropy(
                    kernels,
                    model.target(),
                    rows,
                    outputs,
                    labels,
                    scale,
                    losses,
                    gradient,
                );
            }
            Loss::Mse => {
                let targets = &self.targets[..rows * width];
                kernels.mean_squared_error(rows, width, outputs, targets, scale, losses, gradient);
            }
            Loss::Bce => {
                let targets = &self.targets[..rows * width];
                kernels
                    .binary_cross_entropy(rows, width, outputs, targets, scale, losses, gradient);
            }
        }
    }
}
