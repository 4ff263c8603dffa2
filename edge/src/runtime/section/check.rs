//! That no step can reach beyond its buffers and constants.
//!
//! Every step is asked for what its kernel touches, by the same functions of shapes that size the
//! buffers when a model is compiled ([`Conv::served_scratch_len`] and the like). A buffer holds
//! `rows * row + fixed` bytes at `rows` examples; a value must have its length in `row`, scratch may
//! have it in `fixed`, as there is always one example. Sizes were bounded when the step was read, so
//! nothing here overflows.

use alloc::vec::Vec;
use core::ops::Range;

use super::coded::fits;
use super::{Block, MOST_ARENA, UNIT};
use crate::arena::Place;
use crate::kernel::int8::{self, Rescale};
use crate::kernel::{Cell, Conv, Dense, Kernels, Recurrent};
use crate::runtime::step::{
    Constant, Factor, INPUT, IntEnd, Slot, Step, StoredFour, StoredLevels, Weight,
};

/// Bytes of an `f32`.
const REAL: usize = 4;
/// Positions of a global average at most, for exact sums.
const MOST_POSITIONS: usize = 1 << 23;

/// None where a step cannot be run.
pub(super) fn check(block: &Block) -> Option<()> {
    let tokens = block.vocabulary.is_some();
    let values = [block.input, block.output];
    let sized = values.iter().all(|&len| len > 0 && fits(&[len, 64]));
    let constants = &block.constants;
    let inside = constants.iter().all(|range| range.end <= block.data);
    let placed = block.places.iter().all(|place| {
        let end = place.row.checked_add(place.fixed);
        let end = end.and_then(|len| len.checked_add(place.offset));
        end.is_some_and(|end| end <= block.arena)
    });
    let known = INPUT < block.places.len() && block.slot < block.places.len();
    if !(sized && inside && placed && known && block.arena <= MOST_ARENA) {
        return None;
    }
    let mut places = block.places.clone();
    // The caller's.
    let lent = |len: usize| Place {
        offset: 0,
        row: REAL * len,
        fixed: 0,
    };
    places[INPUT] = lent(if tokens { 0 } else { block.input });
    if block.slot == INPUT {
        let echo = !tokens && block.input == block.output && block.steps.is_empty();
        return echo.then_some(());
    }
    places[block.slot] = lent(block.output);
    let mut checker = Checker {
        places: &places,
        slot: block.slot,
        constants,
        widened: &block.widened,
        tokens: block.vocabulary.map(|vocabulary| (block.input, vocabulary)),
        reads: Vec::new(),
        writes: Vec::new(),
    };
    for step in &block.steps {
        checker.reads.clear();
        checker.writes.clear();
        checker.step(step)?;
        checker.apart()?;
    }
    Some(())
}

struct Checker<'a> {
    places: &'a [Place],
    /// The output's buffer.
    slot: Slot,
    constants: &'a [Range<usize>],
    /// Those that are binary16 and are read as `f32`, ascending.
    widened: &'a [Constant],
    /// Where inputs are tokens: how many are in an input, and how many there are.
    tokens: Option<(usize, usize)>,
    /// Buffers of the step at hand.
    reads: Vec<Slot>,
    writes: Vec<Slot>,
}

impl Checker<'_> {
    /// A buffer of numbers of `size` bytes.
    fn buffer(&self, slot: Slot, size: usize) -> Option<Place> {
        let place = *self.places.get(slot)?;
        let whole = place.row.is_multiple_of(size) && place.fixed.is_multiple_of(size);
        (whole && place.offset.is_multiple_of(UNIT)).then_some(place)
    }

    /// A value that is read: so many numbers for each example.
    fn read(&mut self, slot: Slot, len: usize, size: usize) -> Option<()> {
        let place = self.buffer(slot, size)?;
        self.reads.push(slot);
        let lent = slot == INPUT && self.tokens.is_some();
        (place.row / size >= len && !lent).then_some(())
    }

    /// A value that is written.
    fn write(&mut self, slot: Slot, len: usize, size: usize) -> Option<()> {
        let place = self.buffer(slot, size)?;
        self.writes.push(slot);
        (place.row / size >= len && slot != INPUT).then_some(())
    }

    /// Room that does not grow with the batch; or that may.
    fn room(&mut self, slot: Slot, len: usize, size: usize) -> Option<()> {
        let place = self.buffer(slot, size)?;
        self.writes.push(slot);
        let inside = (place.row + place.fixed) / size >= len;
        (inside && slot != INPUT && slot != self.slot).then_some(())
    }

    /// From one value to another of as many numbers, whatever the number is.
    fn map(&mut self, x: Slot, from: usize, y: Slot, to: usize) -> Option<()> {
        let [x_place, y_place] = [self.buffer(x, from)?, self.buffer(y, to)?];
        self.read(x, 1, from)?;
        self.write(y, 1, to)?;
        let same = x_place.row / from == y_place.row / to;
        (same && x_place.fixed == 0 && y_place.fixed == 0).then_some(())
    }

    /// How many numbers of `size` bytes a constant has; at least one.
    fn numbers(&self, at: Constant, size: usize) -> Option<usize> {
        let range = self.constants.get(at)?;
        if cfg!(feature = "int4") && self.widened.binary_search(&at).is_ok() {
            // As steps find it: whole numbers, as they were counted when the block was read.
            return Some(range.len() / 2).filter(|&len| size == REAL && len > 0);
        }
        let whole = range.len().is_multiple_of(size) && range.start.is_multiple_of(size);
        Some(range.len() / size).filter(|&len| whole && len > 0)
    }

    /// A constant of so many numbers, not more: some kernels go by its length.
    fn constant(&self, at: Constant, len: usize, size: usize) -> Option<()> {
        (self.numbers(at, size)? == len).then_some(())
    }

    fn bias(&self, bias: Option<Constant>, len: usize) -> Option<()> {
        bias.map_or(Some(()), |bias| self.constant(bias, len, REAL))
    }

    /// One factor, or one for each column.
    fn factors(&self, at: Constant, columns: usize) -> Option<()> {
        let len = self.numbers(at, REAL)?;
        (len == 1 || len == columns).then_some(())
    }

    /// Weights of a product: packed numbers, or codes of so many bytes for its terms and columns.
    fn weight(
        &self,
        weight: Weight,
        packed: usize,
        codes: usize,
        [terms, columns]: [usize; 2],
    ) -> Option<()> {
        match weight {
            Weight::Single(at) => self.constant(at, packed, REAL),
            Weight::Half(at) => self.constant(at, packed, 2),
            Weight::Four(four) => self.four(four, codes, [terms, columns]),
            Weight::Eight(_) => None,
        }
    }

    /// Weights of four bits: codes of so many bytes for their terms and columns.
    fn four(&self, four: StoredFour, codes: usize, [terms, columns]: [usize; 2]) -> Option<()> {
        if four.group == 0 {
            return None;
        }
        let scales = terms.div_ceil(four.group) * columns;
        self.constant(four.codes, codes, 1)?;
        self.constant(four.scales, scales, 2)?;
        match four.levels {
            StoredLevels::Zeros(at) => self.constant(at, scales, 1),
            StoredLevels::Middle | StoredLevels::Table => Some(()),
        }
    }

    /// A table of four bits: so many rows of `size` numbers.
    fn table(&self, four: StoredFour, size: usize, rows: usize) -> Option<()> {
        self.four(four, Kernels::table_len(size, rows), [size, rows])
    }

    fn dense_weight(&self, weight: Weight, d: &Dense) -> Option<()> {
        let sides = [d.inputs, d.outputs];
        self.weight(weight, d.packed_len(), d.nibbles_len(), sides)
    }

    fn conv_weight(&self, weight: Weight, c: &Conv) -> Option<()> {
        let filters = c.shape().filters;
        if c.is_depthwise() {
            match weight {
                Weight::Eight(eight) if cfg!(feature = "int4") => {
                    self.constant(eight.scales, filters, 2)?;
                    return self.constant(eight.codes, c.weight_len(), 1);
                }
                Weight::Four(_) | Weight::Eight(_) => return None,
                Weight::Single(_) | Weight::Half(_) => {}
            }
        }
        let sides = [c.weight_len() / filters, filters];
        self.weight(weight, c.packed_len(), c.nibbles_len(), sides)
    }

    fn recurrent(
        &mut self,
        r: &Recurrent,
        [gates, y, kept, scratch]: [Slot; 4],
        bias: Option<Constant>,
    ) -> Option<()> {
        self.write(gates, r.gates_len(), REAL)?;
        self.write(y, r.states_len(), REAL)?;
        self.write(kept, r.states_len(), REAL)?;
        self.write(scratch, r.forward_scratch_len(), REAL)?;
        // A GRU's alone is read.
        match (r.cell(), bias) {
            (Cell::Gru, None) => None,
            (_, bias) => self.bias(bias, r.units()),
        }
    }

    /// What follows a product of integers with so many outputs in so many columns.
    fn end(&mut self, end: &IntEnd, len: usize, columns: usize) -> Option<()> {
        self.factors(end.multipliers, columns)?;
        bounds(end.to)?;
        match end.residual {
            None => Some(()),
            Some(residual) => {
                self.read(residual.other, len, 1)?;
                bounds(Rescale {
                    low: residual.add.low,
                    high: residual.add.high,
                })
            }
        }
    }

    fn norm(&mut self, channels: usize, [gamma, beta]: [Constant; 2]) -> Option<()> {
        self.constant(gamma, channels, REAL)?;
        self.constant(beta, channels, REAL)
    }

    fn step(&mut self, step: &Step) -> Option<()> {
        match *step {
            Step::Dense {
                geometry: d,
                x,
                y,
                weight,
                bias,
                fused: _,
            } => {
                self.read(x, d.inputs, REAL)?;
                self.write(y, d.outputs, REAL)?;
                self.constant(weight, d.inputs * d.outputs, REAL)?;
                self.bias(bias, d.outputs)
            }
            Step::Pad { ref geometry, x, y } => {
                self.read(x, geometry.input_len(), REAL)?;
                self.write(y, geometry.padded_len(), REAL)
            }
            Step::Conv {
                ref geometry,
                x,
                y,
                weight,
                bias,
                fused: _,
            } => {
                self.read(x, geometry.padded_len(), REAL)?;
                self.write(y, geometry.output_len(), REAL)?;
                self.constant(weight, geometry.weight_len(), REAL)?;
                self.bias(bias, geometry.shape().filters)
            }
            Step::ServedDense {
                geometry: d,
                x,
                y,
                weight,
                bias,
                after,
                scratch,
            } => {
                self.read(x, d.inputs, REAL)?;
                if let Some(other) = after.residual {
                    self.read(other, d.outputs, REAL)?;
                }
                self.write(y, d.outputs, REAL)?;
                self.dense_weight(weight, &d)?;
                self.bias(bias, d.outputs)?;
                match (scratch, d.served_scratch_len(weight.kind())) {
                    (None, len) => (len == 0).then_some(()),
                    (Some(scratch), len) => self.room(scratch, len, REAL),
                }
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
                self.read(x, geometry.input_len(), REAL)?;
                if let Some(other) = after.residual {
                    self.read(other, geometry.output_len(), REAL)?;
                }
                self.write(y, geometry.output_len(), REAL)?;
                self.conv_weight(weight, geometry)?;
                self.bias(bias, geometry.shape().filters)?;
                self.room(scratch, geometry.served_scratch_len(weight.kind()), REAL)
            }
            Step::ServedConvInPlace {
                ref geometry,
                y,
                weight,
                bias,
                after,
                scratch,
            } => {
                if !geometry.serves_in_place() {
                    return None;
                }
                if let Some(other) = after.residual {
                    self.read(other, geometry.output_len(), REAL)?;
                }
                self.write(y, geometry.output_len(), REAL)?;
                self.conv_weight(weight, geometry)?;
                self.bias(bias, geometry.shape().filters)?;
                self.room(scratch, geometry.served_scratch_len(weight.kind()), REAL)
            }
            Step::MaxPool { geometry, x, y } | Step::AvgPool { geometry, x, y } => {
                self.read(x, geometry.input_len(), REAL)?;
                self.write(y, geometry.output_len(), REAL)
            }
            Step::GlobalAvgPool {
                positions,
                channels,
                x,
                y,
            }
            | Step::Last {
                positions,
                channels,
                x,
                y,
            } => self.positions([positions, channels], x, y, REAL),
            Step::Activate { f: _, x, y } => self.map(x, REAL, y, REAL),
            Step::ActivateInPlace { f: _, y } | Step::Double { y } => self.write(y, 1, REAL),
            Step::Norm {
                geometry: n,
                x,
                y,
                stats,
                scratch,
                gamma,
                beta,
            } => {
                self.read(x, n.example_len(), REAL)?;
                self.write(y, n.example_len(), REAL)?;
                self.write(stats, n.stats_len(), REAL)?;
                self.room(scratch, n.scratch_len(), REAL)?;
                self.norm(n.channels(), [gamma, beta])
            }
            Step::NormInPlace {
                geometry: n,
                y,
                stats,
                scratch,
                gamma,
                beta,
            } => {
                self.write(y, n.example_len(), REAL)?;
                self.write(stats, n.stats_len(), REAL)?;
                self.room(scratch, n.scratch_len(), REAL)?;
                self.norm(n.channels(), [gamma, beta])
            }
            Step::BatchNormFactor {
                epsilon: _,
                variance,
                r,
            } => {
                let len = self.numbers(variance, REAL)?;
                self.room(r, len, REAL)
            }
            Step::BatchNorm {
                ref geometry,
                x,
                y,
                mean,
                r,
                gamma,
                beta,
                fused: _,
            } => {
                let channels = geometry.channels();
                self.read(x, geometry.example_len(), REAL)?;
                self.write(y, geometry.example_len(), REAL)?;
                self.constant(mean, channels, REAL)?;
                self.norm(channels, [gamma, beta])?;
                match r {
                    Factor::Constant(r) => self.constant(r, channels, REAL),
                    Factor::Buffer(r) => {
                        // Read, and as long as room is.
                        self.room(r, channels, REAL)?;
                        self.writes.pop();
                        self.reads.push(r);
                        Some(())
                    }
                }
            }
            Step::Embedding { size, table, y } => {
                let (tokens, vocabulary) = self.tokens?;
                let sized = size > 0 && fits(&[size, tokens, 64]) && fits(&[size, vocabulary, 64]);
                if !sized {
                    return None;
                }
                self.write(y, size * tokens, REAL)?;
                match table {
                    Weight::Single(at) => self.constant(at, size * vocabulary, REAL),
                    Weight::Half(at) => self.constant(at, size * vocabulary, 2),
                    Weight::Four(four) => self.table(four, size, vocabulary),
                    Weight::Eight(_) => None,
                }
            }
            Step::Copy { x, y } => self.map(x, 1, y, 1),
            Step::Add { x, y } => self.map(x, REAL, y, REAL),
            Step::Recurrent {
                ref geometry,
                gates,
                y,
                kept,
                scratch,
                weight,
                bias,
            } => {
                self.recurrent(geometry, [gates, y, kept, scratch], bias)?;
                self.constant(weight, geometry.transposed_len(), REAL)
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
                self.recurrent(geometry, [gates, y, kept, scratch], bias)?;
                let d = geometry.product();
                self.dense_weight(weight, &d)?;
                match (block, d.served_scratch_len(weight.kind())) {
                    (None, len) => (len == 0).then_some(()),
                    (Some(block), len) => self.room(block, len, REAL),
                }
            }
            Step::IntRecurrent {
                ref geometry,
                gates,
                y,
                kept,
                scratch,
                point: _,
                weight: [packed, folded, scales],
                bias,
                codes,
            } => {
                self.recurrent(geometry, [gates, y, kept, scratch], bias)?;
                let d = geometry.product();
                self.constant(packed, int8::Packing::dense(&d).len(), 1)?;
                self.constant(folded, d.outputs, 4)?;
                self.factors(scales, d.outputs)?;
                self.write(codes, geometry.units(), 1)
            }
            Step::Attention {
                geometry: a,
                x,
                y,
                probabilities,
                scratch,
            } => {
                self.read(x, a.input_len(), REAL)?;
                self.write(y, a.output_len(), REAL)?;
                self.write(probabilities, a.probabilities_len(), REAL)?;
                self.room(scratch, a.forward_scratch_len(), REAL)
            }
            Step::Position { table, y } => {
                let len = self.numbers(table, REAL)?;
                self.write(y, len, REAL)
            }
            Step::PositionFour { size, table, y } if cfg!(feature = "int4") => {
                let codes = self.numbers(table.codes, 1)?;
                if size == 0 || !fits(&[size, codes, 64]) {
                    return None;
                }
                let positions = codes / Kernels::table_len(size, 1);
                self.table(table, size, positions)?;
                self.write(y, size * positions, REAL)
            }
            Step::Quantize { x, y, to: _ } => self.map(x, REAL, y, 1),
            Step::Dequantize { x, y, from: _ } => self.map(x, 1, y, REAL),
            _ => self.integer_step(step),
        }
    }

    /// A step between integers.
    fn integer_step(&mut self, step: &Step) -> Option<()> {
        match *step {
            Step::IntDense {
                geometry: d,
                x,
                y,
                weight,
                bias,
                ref end,
            } => {
                self.read(x, d.inputs, 1)?;
                self.write(y, d.outputs, 1)?;
                self.constant(weight, int8::Packing::dense(&d).len(), 1)?;
                self.constant(bias, d.outputs, 4)?;
                self.end(end, d.outputs, d.outputs)
            }
            Step::IntConv {
                ref geometry,
                x,
                y,
                zero_point: _,
                weight,
                bias,
                ref end,
                scratch,
            } => {
                let packing = int8::Packing::conv(geometry);
                self.read(x, geometry.input_len(), 1)?;
                self.write(y, geometry.output_len(), 1)?;
                self.constant(weight, packing.len(), 1)?;
                self.constant(bias, packing.columns(), 4)?;
                self.end(end, geometry.output_len(), packing.columns())?;
                self.room(scratch, geometry.int8_scratch_len(), 1)
            }
            Step::IntMaxPool { geometry, x, y } | Step::IntAvgPool { geometry, x, y, .. } => {
                self.read(x, geometry.input_len(), 1)?;
                self.write(y, geometry.output_len(), 1)
            }
            Step::IntLast {
                positions,
                channels,
                x,
                y,
            }
            | Step::IntGlobalAvgPool {
                positions,
                channels,
                x,
                y,
                ..
            } => self.positions([positions, channels], x, y, 1),
            Step::IntAdd { add, x, other, y } => {
                bounds(Rescale {
                    low: add.low,
                    high: add.high,
                })?;
                self.map(x, 1, y, 1)?;
                let (len, place) = (self.buffer(x, 1)?.row, self.buffer(other, 1)?);
                self.read(other, len, 1)?;
                (place.fixed == 0).then_some(())
            }
            Step::Table { table, x, y } => {
                self.constant(table, 256, 1)?;
                self.map(x, 1, y, 1)
            }
            Step::IntClamp { to, y } => {
                bounds(to)?;
                self.write(y, 1, 1)
            }
            Step::IntNorm {
                geometry: n,
                x,
                y,
                to,
                gamma,
                beta,
                scratch,
                ..
            } => {
                bounds(to)?;
                self.read(x, n.example_len(), 1)?;
                self.write(y, n.example_len(), 1)?;
                self.room(scratch, 2 * n.channels(), REAL)?;
                self.norm(n.channels(), [gamma, beta])
            }
            Step::Rescale { x, y, a, b, to } => {
                bounds(to)?;
                let channels = self.numbers(a, REAL)?;
                self.constant(b, channels, REAL)?;
                self.map(x, 1, y, 1)?;
                let row = self.buffer(x, 1)?.row;
                row.is_multiple_of(channels).then_some(())
            }
            Step::IntEmbedding { size, table, y } => {
                let (tokens, vocabulary) = self.tokens?;
                let sized = size > 0 && fits(&[size, tokens, 64]) && fits(&[size, vocabulary, 64]);
                if !sized {
                    return None;
                }
                self.write(y, size * tokens, 1)?;
                self.constant(table, size * vocabulary, 1)
            }
            _ => None,
        }
    }

    /// A step from all positions to one.
    fn positions(
        &mut self,
        [positions, channels]: [usize; 2],
        x: Slot,
        y: Slot,
        size: usize,
    ) -> Option<()> {
        let sized = (1..=MOST_POSITIONS).contains(&positions)
            && channels > 0
            && fits(&[positions, channels, 64]);
        if !sized {
            return None;
        }
        self.read(x, positions * channels, size)?;
        self.write(y, channels, size)
    }

    /// That the buffers of the step at hand can be had at once, as
    /// [`Context::pick`](crate::runtime::Context::pick) asks for them.
    fn apart(&self) -> Option<()> {
        // The one thing that may be had twice.
        let reads = match self.reads[..] {
            [one, other] if one == other => &self.reads[..1],
            _ => &self.reads[..],
        };
        let slots = reads.iter().chain(&self.writes);
        for (index, &one) in slots.clone().enumerate() {
            for &other in slots.clone().skip(index + 1) {
                let lent = |slot| slot == INPUT || slot == self.slot;
                let [a, b] = [self.range(one)?, self.range(other)?];
                let overlap = a.start < b.end && b.start < a.end;
                if one == other || (overlap && !lent(one) && !lent(other)) {
                    return None;
                }
            }
        }
        Some(())
    }

    fn range(&self, slot: Slot) -> Option<Range<usize>> {
        let place = self.places.get(slot)?;
        Some(place.offset..place.offset + place.row + place.fixed)
    }
}

fn bounds(to: Rescale) -> Option<()> {
    (to.low <= to.high).then_some(())
}
