//! Running a program.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::array;
use core::fmt;

use bytemuck::{cast_slice, cast_slice_mut};

use super::constants::Constants;
use super::step::{Factor, INPUT, IntEnd, Served, Slot, Step, StoredLevels, Weight};
use super::stretch::{PART_BYTES, Schedule};
use super::{Inputs, Program};
use crate::arena::AlignedBytes;
use crate::kernel::int8::{End, Requantize};
use crate::kernel::{After, Kernels, Levels, Nibbles, Weights};
use crate::plan::Place;
use crate::quant::NF4;

/// Who is shown values with their names.
type Observer<'a> = dyn FnMut(&str, &[f32]) + 'a;

/// Operands of a step at most.
const MOST_OPERANDS: usize = 8;

/// A program at work: one arena for batches of so many examples. A run allocates nothing.
pub struct Runner {
    program: Arc<Program>,
    kernels: &'static Kernels,
    rows: usize,
    schedule: Schedule,
    /// Of each stretch: the first example of its part at hand.
    starts: Vec<usize>,
    arena: AlignedBytes,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("rows", &self.rows)
            .field("arena", &self.arena.len())
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// A runner of batches of up to `rows` examples at once (at least one) with the fastest
    /// kernels of this machine; larger ones are worked through in parts, and so is a batch in
    /// layers whose values would not stay in the cache. The number changes no bit of an output.
    #[must_use]
    pub fn new(program: Arc<Program>, rows: usize) -> Self {
        Self::with_kernels(program, rows, Kernels::best())
    }

    /// A runner for batches of `batch` examples, which works on as many at once as
    /// [`Program::rows_for`] advises.
    #[must_use]
    pub fn for_batch(program: Arc<Program>, batch: usize) -> Self {
        let rows = program.rows_for(batch);
        Self::new(program, rows)
    }

    /// A runner with the given kernels. All kernels give the same bits.
    #[must_use]
    pub fn with_kernels(program: Arc<Program>, rows: usize, kernels: &'static Kernels) -> Self {
        Self::for_cache(program, rows, kernels, PART_BYTES)
    }

    /// The same for a processor whose second cache has about `cache` bytes: where the values of
    /// more examples would not fit, a batch passes a layer in parts. The number changes no bit.
    #[must_use]
    pub fn for_cache(
        program: Arc<Program>,
        rows: usize,
        kernels: &'static Kernels,
        cache: usize,
    ) -> Self {
        let rows = rows.max(1);
        let mut schedule = Schedule::new(&program, rows, cache);
        schedule.buffers = Vec::new();
        Self {
            program,
            kernels,
            rows,
            starts: vec![0; schedule.stretches.len()],
            arena: AlignedBytes::new(schedule.arena),
            schedule,
        }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Examples worked on at once.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Computes the outputs (logits) of examples, `[rows, width]`. The number of rows follows
    /// from the outputs' length.
    ///
    /// # Panics
    /// When inputs and outputs are not of one number of whole examples, when the inputs are of the
    /// other kind than the model's, or when a token is outside the vocabulary.
    pub fn run(&mut self, inputs: Inputs<'_>, outputs: &mut [f32]) {
        self.batches(inputs, outputs, None);
    }

    /// The same, and shows every complete value of `f32` with its name, part by part of the
    /// batch: the outputs of all layers that are not computed inside another step.
    ///
    /// # Panics
    /// As [`Runner::run`].
    pub fn run_observed(
        &mut self,
        inputs: Inputs<'_>,
        outputs: &mut [f32],
        observe: &mut dyn FnMut(&str, &[f32]),
    ) {
        self.batches(inputs, outputs, Some(observe));
    }

    fn batches(
        &mut self,
        inputs: Inputs<'_>,
        outputs: &mut [f32],
        mut observe: Option<&mut Observer<'_>>,
    ) {
        let program = &*self.program;
        let (input_len, width) = (program.input_len(), program.output_len());
        assert!(
            outputs.len().is_multiple_of(width),
            "{} outputs are no rows of {width}",
            outputs.len()
        );
        let count = outputs.len() / width;
        assert_eq!(inputs.len(), count * input_len, "the inputs' length");
        assert_eq!(
            matches!(inputs, Inputs::Tokens(_)),
            program.takes_tokens(),
            "the kind of inputs"
        );
        for (part, outputs) in outputs.chunks_mut(self.rows * width).enumerate() {
            let rows = outputs.len() / width;
            let start = part * self.rows * input_len;
            let mut context = Context {
                kernels: self.kernels,
                constants: &program.constants,
                schedule: &self.schedule,
                starts: &mut self.starts,
                all: rows,
                start: 0,
                rows,
                inputs: inputs.part(start, rows * input_len),
                output_slot: program.output,
                output: cast_slice_mut(outputs),
                arena: self.arena.as_mut(),
            };
            if let (Some(observe), Inputs::Real(values)) = (&mut observe, context.inputs) {
                observe(program.value_name(0), values);
            }
            let last = self.schedule.stretches.len() - 1;
            context.stretch(program, last, 0, rows, &mut observe);
            if program.output == INPUT
                && let Inputs::Real(values) = context.inputs
            {
                context.output.copy_from_slice(cast_slice(values));
            }
        }
    }
}

struct Context<'a> {
    kernels: &'static Kernels,
    constants: &'a Constants,
    schedule: &'a Schedule,
    starts: &'a mut [usize],
    /// Examples of the batch.
    all: usize,
    /// The first example of the part at hand, and its number of examples.
    start: usize,
    rows: usize,
    inputs: Inputs<'a>,
    /// The buffer that is the caller's output.
    output_slot: Slot,
    output: &'a mut [u8],
    arena: &'a mut [u8],
}

impl<'a> Context<'a> {
    /// All steps up to a stretch's end, for `rows` examples from `start`: the stretches before it
    /// in parts of their own sizes, then its own steps.
    fn stretch(
        &mut self,
        program: &Program,
        index: usize,
        start: usize,
        rows: usize,
        observe: &mut Option<&mut Observer<'_>>,
    ) {
        self.starts[index] = start;
        let schedule = self.schedule;
        if let Some(before) = index.checked_sub(1) {
            let part = schedule.stretches[before].rows;
            for at in (0..rows).step_by(part) {
                self.stretch(program, before, start + at, part.min(rows - at), observe);
            }
        }
        (self.start, self.rows) = (start, rows);
        for time in schedule.stretches[index].steps.clone() {
            self.step(&program.steps[time]);
            if let (Some(observe), Some((value, slot))) = (&mut *observe, program.complete[time]) {
                let ([values], []) = self.pick([slot], []);
                observe(program.value_name(value), cast_slice(values));
            }
        }
    }

    /// Several buffers at once, some to read and some to write. A plan gives disjoint ones, but
    /// for one that is read twice.
    fn pick<const R: usize, const W: usize>(
        &mut self,
        reads: [Slot; R],
        writes: [Slot; W],
    ) -> ([&[u8]; R], [&mut [u8]; W]) {
        let twice = R == 2 && reads[0] == reads[R - 1];
        let slot = |index: usize| match index {
            _ if index < R => (index == 0 || !twice).then(|| reads[index]),
            _ if index < R + W => Some(writes[index - R]),
            _ => None,
        };
        let ranges = array::from_fn::<_, MOST_OPERANDS, _>(|index| match slot(index) {
            Some(slot) if slot != INPUT && slot != self.output_slot => {
                let Place { offset, row, fixed } = self.schedule.places[slot];
                // A buffer that waits for a later stretch has room for more parts than this one.
                let at = self.start - self.starts[self.schedule.home[slot]];
                offset + at * row..offset + (at + self.rows) * row + fixed
            }
            _ => 0..0,
        });
        let Ok(parts) = self.arena.get_disjoint_mut(ranges) else {
            unreachable!("a plan's buffers overlap")
        };
        let mut parts = parts.into_iter();
        let width = self.output.len() / self.all;
        let output = &mut self.output[self.start * width..][..self.rows * width];
        let mut output = Some(output);
        let output_slot = self.output_slot;
        let mut next = |slot: Slot| {
            let part = parts.next().unwrap_or_default();
            match slot == output_slot {
                true => output.take().unwrap_or_default(),
                false => part,
            }
        };
        let (inputs, all) = (self.inputs, self.all);
        let mut reads = reads.map(|slot| {
            let part = next(slot);
            match inputs {
                Inputs::Real(values) if slot == INPUT => {
                    let len = values.len() / all;
                    cast_slice(&values[self.start * len..][..self.rows * len])
                }
                _ => &*part,
            }
        });
        if twice {
            reads[R - 1] = reads[0];
        }
        (reads, writes.map(next))
    }

    /// The inputs of the part at hand.
    fn part(&self) -> Inputs<'a> {
        let len = self.inputs.len() / self.all;
        self.inputs.part(self.start * len, self.rows * len)
    }

    /// `f32` buffers.
    fn reals<const R: usize, const W: usize>(
        &mut self,
        reads: [Slot; R],
        writes: [Slot; W],
    ) -> ([&[f32]; R], [&mut [f32]; W]) {
        let (reads, writes) = self.pick(reads, writes);
        (reads.map(cast_slice), writes.map(cast_slice_mut))
    }

    /// [`Context::pick`] for a step with a residual, where there is one.
    fn pick_with<const W: usize>(
        &mut self,
        x: Slot,
        other: Option<Slot>,
        writes: [Slot; W],
    ) -> (&[u8], Option<&[u8]>, [&mut [u8]; W]) {
        match other {
            None => {
                let ([x], writes) = self.pick([x], writes);
                (x, None, writes)
            }
            Some(other) => {
                let ([x, other], writes) = self.pick([x, other], writes);
                (x, Some(other), writes)
            }
        }
    }

    /// [`Context::reals`] for a step with a residual, where there is one.
    fn reals_with<const W: usize>(
        &mut self,
        x: Slot,
        other: Option<Slot>,
        writes: [Slot; W],
    ) -> (&[f32], Option<&[f32]>, [&mut [f32]; W]) {
        let (x, other, writes) = self.pick_with(x, other, writes);
        (
            cast_slice(x),
            other.map(cast_slice),
            writes.map(cast_slice_mut),
        )
    }

    fn step(&mut self, step: &Step) {
        let (k, rows, constants) = (self.kernels, self.rows, self.constants);
        match *step {
            Step::Dense {
                ref geometry,
                x,
                y,
                weight,
                bias,
                fused,
            } => {
                let ([x], [y]) = self.reals([x], [y]);
                let bias = bias.map(|bias| constants.values(bias));
                k.dense(geometry, rows, x, constants.values(weight), bias, fused, y);
            }
            Step::Pad { ref geometry, x, y } => {
                let ([x], [y]) = self.reals([x], [y]);
                k.pad(geometry, rows, x, y);
            }
            Step::Conv {
                ref geometry,
                x,
                y,
                weight,
                bias,
                fused,
            } => {
                let ([x], [y]) = self.reals([x], [y]);
                let bias = bias.map(|bias| constants.values(bias));
                k.conv(geometry, rows, x, constants.values(weight), bias, fused, y);
            }
            Step::ServedDense {
                ref geometry,
                x,
                y,
                weight,
                bias,
                after,
                scratch,
            } => {
                let weight = weights(constants, weight);
                let bias = bias.map(|bias| constants.values(bias));
                let (x, other, y, scratch) = match scratch {
                    None => {
                        let (x, other, [y]) = self.reals_with(x, after.residual, [y]);
                        (x, other, y, &mut [][..])
                    }
                    Some(scratch) => {
                        let (x, other, [y, s]) = self.reals_with(x, after.residual, [y, scratch]);
                        (x, other, y, s)
                    }
                };
                let after = after_with(after, other);
                k.served_dense(geometry, rows, x, weight, bias, after, y, scratch);
            }
            Step::ServedConv {
                ref geometry,
                x,
                y,
                weight,
                bias,
                after,
                scratch,
            } => {
                let weight = weights(constants, weight);
                let bias = bias.map(|bias| constants.values(bias));
                let (x, other, [y, scratch]) = self.reals_with(x, after.residual, [y, scratch]);
                let after = after_with(after, other);
                k.served_conv(geometry, rows, x, weight, bias, after, y, scratch);
            }
            Step::ServedConvInPlace {
                ref geometry,
                y,
                weight,
                bias,
                after,
                scratch,
            } => {
                let weight = weights(constants, weight);
                let bias = bias.map(|bias| constants.values(bias));
                let (other, [y, scratch]) = match after.residual {
                    None => (None, self.reals([], [y, scratch]).1),
                    Some(other) => {
                        let ([other], writes) = self.reals([other], [y, scratch]);
                        (Some(other), writes)
                    }
                };
                let after = after_with(after, other);
                k.served_conv_in_place(geometry, rows, weight, bias, after, y, scratch);
            }
            Step::MaxPool { ref geometry, x, y } => {
                let ([x], [y]) = self.reals([x], [y]);
                k.served_max_pool(geometry, rows, x, y);
            }
            Step::AvgPool { ref geometry, x, y } => {
                let ([x], [y]) = self.reals([x], [y]);
                k.avg_pool(geometry, rows, x, y);
            }
            Step::GlobalAvgPool {
                positions,
                channels,
                x,
                y,
            } => {
                let ([x], [y]) = self.reals([x], [y]);
                k.global_avg_pool(rows, positions, channels, x, y);
            }
            Step::Recurrent {
                ref geometry,
                gates,
                y,
                kept,
                scratch,
                weight,
                bias,
            } => {
                let ([], [gates, y, kept, scratch]) = self.reals([], [gates, y, kept, scratch]);
                let weight = constants.values(weight);
                let bias = bias.map_or(&[][..], |bias| constants.values(bias));
                k.recurrent(geometry, rows, gates, weight, bias, y, kept, scratch);
            }
            Step::ServedRecurrent {
                ref geometry,
                gates,
                y,
                kept,
                scratch,
                weight,
                bias,
                block,
            } => {
                let weight = weights(constants, weight);
                let bias = bias.map_or(&[][..], |bias| constants.values(bias));
                let (gates, y, kept, scratch, block) = match block {
                    None => {
                        let ([], [gates, y, kept, s]) = self.reals([], [gates, y, kept, scratch]);
                        (gates, y, kept, s, &mut [][..])
                    }
                    Some(block) => {
                        let ([], [gates, y, kept, s, block]) =
                            self.reals([], [gates, y, kept, scratch, block]);
                        (gates, y, kept, s, block)
                    }
                };
                k.served_recurrent(geometry, rows, gates, weight, bias, y, kept, scratch, block);
            }
            Step::IntRecurrent {
                ref geometry,
                gates,
                y,
                kept,
                scratch,
                point,
                weight: [packed, folded, scales],
                bias,
                codes,
            } => {
                let ([], [gates, y, kept, scratch, codes]) =
                    self.pick([], [gates, y, kept, scratch, codes]);
                let [gates, y, kept, scratch] = [gates, y, kept, scratch].map(cast_slice_mut);
                let weight = (
                    constants.values(packed),
                    constants.values(folded),
                    constants.values(scales),
                );
                let bias = bias.map_or(&[][..], |bias| constants.values(bias));
                k.int8_recurrent(
                    geometry, rows, gates, point, weight, bias, y, kept, scratch, codes,
                );
            }
            Step::Attention {
                ref geometry,
                x,
                y,
                probabilities,
                scratch,
            } => {
                let ([x], [y, probabilities, scratch]) =
                    self.reals([x], [y, probabilities, scratch]);
                k.attention(geometry, rows, x, y, probabilities, scratch);
            }
            Step::Last {
                positions,
                channels,
                x,
                y,
            } => {
                let ([x], [y]) = self.reals([x], [y]);
                k.last(rows, positions, channels, x, y);
            }
            Step::Position { table, y } => {
                let ([], [y]) = self.reals([], [y]);
                k.add_to_rows(rows, constants.values(table), y);
            }
            Step::Activate { f, x, y } => {
                let ([x], [y]) = self.reals([x], [y]);
                k.activate(f, x, y);
            }
            Step::ActivateInPlace { f, y } => {
                let ([], [y]) = self.reals([], [y]);
                k.activate_in_place(f, y);
            }
            Step::Norm {
                ref geometry,
                x,
                y,
                stats,
                scratch,
                gamma,
                beta,
            } => {
                let ([x], [y, stats, scratch]) = self.reals([x], [y, stats, scratch]);
                let (gamma, beta) = (constants.values(gamma), constants.values(beta));
                k.norm(geometry, rows, x, gamma, beta, y, stats, scratch);
            }
            Step::NormInPlace {
                ref geometry,
                y,
                stats,
                scratch,
                gamma,
                beta,
            } => {
                let ([], [y, stats, scratch]) = self.reals([], [y, stats, scratch]);
                let (gamma, beta) = (constants.values(gamma), constants.values(beta));
                k.norm_in_place(geometry, rows, gamma, beta, y, stats, scratch);
            }
            Step::BatchNormFactor {
                epsilon,
                variance,
                r,
            } => {
                let ([], [r]) = self.reals([], [r]);
                k.batch_norm_factor(epsilon, constants.values(variance), r);
            }
            Step::BatchNorm {
                ref geometry,
                x,
                y,
                mean,
                r,
                gamma,
                beta,
                fused,
            } => {
                let (mean, gamma) = (constants.values(mean), constants.values(gamma));
                let beta = constants.values(beta);
                match r {
                    Factor::Constant(r) => {
                        let ([x], [y]) = self.reals([x], [y]);
                        let r = constants.values(r);
                        k.batch_norm(geometry, rows, x, mean, r, gamma, beta, fused, y);
                    }
                    Factor::Buffer(r) => {
                        let ([x, r], [y]) = self.reals([x, r], [y]);
                        k.batch_norm(geometry, rows, x, mean, r, gamma, beta, fused, y);
                    }
                }
            }
            Step::Embedding { size, table, y } => {
                let Inputs::Tokens(tokens) = self.part() else {
                    unreachable!("an embedding reads tokens");
                };
                let ([], [y]) = self.reals([], [y]);
                match table {
                    Weight::Single(table) => k.embedding(tokens, size, constants.values(table), y),
                    Weight::Half(table) => {
                        let table = constants.values::<u16>(table);
                        for (y, &token) in y.chunks_exact_mut(size).zip(tokens) {
                            k.widen(&table[token as usize * size..][..size], y);
                        }
                    }
                    Weight::Four(_) => unreachable!("a table of four bits"),
                }
            }
            Step::Copy { x, y } => {
                let ([x], [y]) = self.pick([x], [y]);
                y.copy_from_slice(x);
            }
            Step::Add { x, y } => {
                let ([x], [y]) = self.reals([x], [y]);
                k.add(x, y);
            }
            Step::Double { y } => {
                let ([], [y]) = self.reals([], [y]);
                k.scale(2.0, y);
            }
            Step::Quantize { x, y, to } => {
                let ([x], [y]) = self.pick([x], [y]);
                k.int8_quantize(to, cast_slice(x), y);
            }
            Step::Dequantize { x, y, from } => {
                let ([x], [y]) = self.pick([x], [y]);
                k.int8_dequantize(from, x, cast_slice_mut(y));
            }
            _ => self.integer_step(step),
        }
    }

    /// A step between integers.
    fn integer_step(&mut self, step: &Step) {
        let (k, rows, constants) = (self.kernels, self.rows, self.constants);
        match *step {
            Step::IntDense {
                ref geometry,
                x,
                y,
                weight,
                bias,
                end,
            } => {
                let (weight, bias) = (constants.values(weight), constants.values(bias));
                let other = end.residual.map(|residual| residual.other);
                let (x, other, [y]) = self.pick_with(x, other, [y]);
                let end = int_end(constants, &end, other, y);
                k.int8_dense(geometry, rows, x, weight, bias, end);
            }
            Step::IntConv {
                ref geometry,
                x,
                y,
                zero_point,
                weight,
                bias,
                end,
                scratch,
            } => {
                let (weight, bias) = (constants.values(weight), constants.values(bias));
                let other = end.residual.map(|residual| residual.other);
                let (x, other, [y, scratch]) = self.pick_with(x, other, [y, scratch]);
                let end = int_end(constants, &end, other, y);
                k.int8_conv(geometry, rows, x, zero_point, weight, bias, end, scratch);
            }
            Step::IntMaxPool { ref geometry, x, y } => {
                let ([x], [y]) = self.pick([x], [y]);
                k.int8_max_pool(geometry, rows, x, y);
            }
            Step::IntLast {
                positions,
                channels,
                x,
                y,
            } => {
                let ([x], [y]) = self.pick([x], [y]);
                k.int8_last(rows, positions, channels, x, y);
            }
            Step::IntAvgPool {
                ref geometry,
                x,
                y,
                from,
                to,
            } => {
                let ([x], [y]) = self.pick([x], [y]);
                k.int8_avg_pool(geometry, rows, x, from, to, y);
            }
            Step::IntGlobalAvgPool {
                positions,
                channels,
                x,
                y,
                from,
                to,
            } => {
                let ([x], [y]) = self.pick([x], [y]);
                k.int8_global_avg_pool(rows, positions, channels, x, from, to, y);
            }
            Step::IntAdd {
                ref add,
                x,
                other,
                y,
            } => {
                let ([x, other], [y]) = self.pick([x, other], [y]);
                k.int8_add(add, x, other, y);
            }
            Step::Table { table, x, y } => {
                let ([x], [y]) = self.pick([x], [y]);
                if let Ok(table) = constants.bytes(table).try_into() {
                    k.int8_lut(table, x, y);
                }
            }
            Step::IntClamp { to, y } => {
                let ([], [y]) = self.pick([], [y]);
                for q in y {
                    *q = (*q).clamp(to.low, to.high);
                }
            }
            Step::IntNorm {
                ref geometry,
                x,
                y,
                from,
                affine,
                to,
                gamma,
                beta,
                scratch,
            } => {
                let (gamma, beta) = (constants.values(gamma), constants.values(beta));
                let ([x], [y, scratch]) = self.pick([x], [y, scratch]);
                let scratch = cast_slice_mut(scratch);
                k.int8_norm(geometry, rows, x, from, gamma, beta, affine, to, y, scratch);
            }
            Step::Rescale { x, y, a, b, to } => {
                let (a, b) = (constants.values(a), constants.values(b));
                let ([x], [y]) = self.pick([x], [y]);
                k.int8_rescale(x, a, b, to, y);
            }
            Step::IntEmbedding { size, table, y } => {
                let Inputs::Tokens(tokens) = self.part() else {
                    unreachable!("an embedding reads tokens");
                };
                let table = constants.bytes(table);
                let ([], [y]) = self.pick([], [y]);
                for (y, &token) in y.chunks_exact_mut(size).zip(tokens) {
                    y.copy_from_slice(&table[token as usize * size..][..size]);
                }
            }
            _ => unreachable!("a step between floats"),
        }
    }
}

fn weights(constants: &Constants, weight: Weight) -> Weights<'_> {
    match weight {
        Weight::Single(weight) => Weights::Single(constants.values(weight)),
        Weight::Half(weight) => Weights::Half(constants.values(weight)),
        Weight::Four(four) => Weights::Four(Nibbles {
            codes: constants.bytes(four.codes),
            scales: constants.values(four.scales),
            levels: match four.levels {
                StoredLevels::Middle => Levels::Middle,
                StoredLevels::Zeros(zeros) => Levels::Zeros(constants.bytes(zeros)),
                StoredLevels::Table => Levels::Table(&NF4),
            },
            group: four.group,
        }),
    }
}

fn after_with(after: Served, residual: Option<&[f32]>) -> After<'_> {
    After {
        first: after.first,
        residual,
        last: after.last,
    }
}

fn int_end<'a>(
    constants: &'a Constants,
    end: &IntEnd,
    other: Option<&'a [u8]>,
    y: &'a mut [u8],
) -> End<'a> {
    let requantize = Requantize {
        multipliers: constants.values(end.multipliers),
        zero_point: end.zero_point,
        low: end.to.low,
        high: end.to.high,
    };
    match (end.residual, other) {
        (Some(residual), Some(other)) => End::RequantizeAdd {
            requantize,
            add: residual.add,
            side: residual.side,
            other,
            y,
        },
        _ => End::Requantize { requantize, y },
    }
}
