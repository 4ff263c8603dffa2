//! One batch: its examples, its buffers, its loss.

use fl_core::{Examples, InputSpec, InputsMut, Stream, TargetSpec, TargetsMut};
use rand_core::Rng as _;

use super::BadExample;
use crate::arena::{Aligned, pick, reserve};
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
            TargetSpec::Class { .. } => reserve(&mut self.labels, rows),
            TargetSpec::Real { .. } => reserve(&mut self.targets, rows * width),
        }
        reserve(&mut self.losses, rows);
        reserve(&mut self.best, rows);
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
            TargetSpec::Class { .. } => TargetsMut::Classes(&mut self.labels[..count]),
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
        if let TargetSpec::Class { classes } = target {
            let labels = &self.labels[..count];
            if let Some(at) = labels.iter().position(|&label| label as usize >= classes) {
                return Err(BadExample::Label {
                    row: rows[at],
                    label: labels[at],
                });
            }
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
                let labels = &self.labels[..rows];
                kernels
                    .softmax_cross_entropy(rows, width, outputs, labels, scale, losses, gradient);
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
