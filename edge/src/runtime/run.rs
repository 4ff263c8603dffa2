//! Running steps.

use core::array;

use bytemuck::{cast_slice, cast_slice_mut};

use super::Inputs;
use super::numbers::Numbers;
use super::schedule::Schedule;
use super::step::{Factor, INPUT, IntEnd, Served, Slot, Step, StoredFour, StoredLevels, Weight};
use crate::arena::Place;
use crate::kernel::int8::{End, Requantize};
use crate::kernel::{After, Kernels, Levels, NF4, Nibbles, Octets, Weights};

/// Operands of a step at most.
const MOST_OPERANDS: usize = 8;

/// A batch on its way through the steps.
pub(crate) struct Context<'a> {
    pub(crate) kernels: &'static Kernels,
    pub(crate) constants: &'a Numbers,
    pub(crate) schedule: &'a Schedule,
    pub(crate) starts: &'a mut [usize],
    /// Examples of the batch.
    pub(crate) all: usize,
    /// The first example of the part at hand, and its number of examples.
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) inputs: Inputs<'a>,
    /// The buffer that is the caller's output.
    pub(crate) output_slot: Slot,
    pub(crate) output: &'a mut [u8],
    pub(crate) arena: &'a mut [u8],
}

impl<'a> Context<'a> {
    /// Several buffers at once, some to read and some to write. A plan gives disjoint ones, but
    /// for one that is read twice.
    pub(crate) fn pick<const R: usize, const W: usize>(
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

    /// One step, for the part at hand.
    pub(crate) fn step(&mut self, step: &Step) {
        let (k, rows, constants) = (self.kernels, self.rows, self.constants);
        match *step {
            Step::Dense {
                ref geometry,
                x,
                y,
                weight,
                bias,
                fused,
            } if cfg!(feature = "unpacked") => {
                let ([x], [y]) = self.reals([x], [y]);
                let bias = bias.map(|bias| constants.values(bias));
                k.dense(geometry, rows, x, constants.values(weight), bias, fused, y);
            }
            Step::Pad { ref geometry, x, y } if cfg!(feature = "unpacked") => {
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
            } if cfg!(feature = "unpacked") => {
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
            } if cfg!(feature = "unpacked") => {
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
            } if cfg!(feature = "sequences") => {
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
            } if cfg!(feature = "sequences") => {
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
            } if cfg!(feature = "sequences") => {
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
            Step::PositionFour { size, table, y } if cfg!(feature = "int4") => {
                let ([], [y]) = self.reals([], [y]);
                let table = nibbles(constants, table);
                let positions = table.scales.len() / size.div_ceil(table.group);
                k.add_to_rows_four(rows, [positions, size], table, y);
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
                    Weight::Four(table) if cfg!(feature = "int4") => {
                        k.embedding_four(tokens, size, nibbles(constants, table), y);
                    }
                    Weight::Four(_) | Weight::Eight(_) => unreachable!("no table"),
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
            _ if cfg!(feature = "int8") => self.integer_step(step),
            _ => unreachable!("a step that this build leaves out"),
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

fn weights(constants: &Numbers, weight: Weight) -> Weights<'_> {
    match weight {
        Weight::Single(weight) => Weights::Single(constants.values(weight)),
        Weight::Half(weight) => Weights::Half(constants.values(weight)),
        Weight::Four(four) => Weights::Four(nibbles(constants, four)),
        Weight::Eight(eight) => Weights::Eight(Octets {
            codes: constants.values(eight.codes),
            scales: constants.values(eight.scales),
        }),
    }
}

fn nibbles(constants: &Numbers, four: StoredFour) -> Nibbles<'_> {
    Nibbles {
        codes: constants.bytes(four.codes),
        scales: constants.values(four.scales),
        levels: match four.levels {
            StoredLevels::Middle => Levels::Middle,
            StoredLevels::Zeros(zeros) => Levels::Zeros(constants.bytes(zeros)),
            StoredLevels::Table => Levels::Table(&NF4),
        },
        group: four.group,
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
    constants: &'a Numbers,
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
