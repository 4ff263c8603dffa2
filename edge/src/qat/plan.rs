//! Makes the plan of a model in quantization-aware training.
//!
//! Bytes live from the forward to the backward pass; real numbers only where they are needed:
//! in the gradients, and in the operands of one product at a time.

mod backward;

use super::step::{
    Backward, Codes, Folded, Forward, Geometry, Marks, Normalise, Point, Product, ScaleId,
};
use super::{QatForward, Statistics};
use crate::graph::{Function, Graph, Node, Op, Residual, Unit, ValueId, clamp_of, units};
use crate::kernel::Fused;
use crate::model::Model;
use crate::plan::{
    Buffer, Bytes, Kept, Mask, Memory, Mode, Running, Slot, Tensor, batch_norm, kernel_function,
};

/// What a plan depends on beside the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Purpose {
    pub(super) mode: Mode,
    pub(super) arithmetic: QatForward,
    pub(super) statistics: Statistics,
    /// Whether scales are learned.
    pub(super) learned: bool,
}

/// The plan for batches of up to so many examples.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) forward_by: QatForward,
    /// Scales of all values.
    pub(super) scales: usize,
    pub(super) points: Vec<Point>,
    pub(super) products: Vec<Product>,
    pub(super) forward: Vec<Forward>,
    pub(super) backward: Vec<Backward>,
    /// Integer sums of the largest product for one example.
    pub(super) sums: usize,
    /// Columns of the widest product.
    pub(super) columns: usize,
    /// Groups that a normalisation has at most.
    pub(super) groups: usize,
    /// Bytes that a convolution pads an image in.
    pub(super) scratch: usize,
}

impl Plan {
    /// The plan and its memory.
    pub(super) fn new(model: &Model, rows: usize, purpose: Purpose) -> (Memory, Self) {
        Planner::new(model, rows, purpose).run()
    }
}

/// The values that are points, in the order in which they are computed.
pub(crate) fn points(graph: &Graph) -> Vec<ValueId> {
    let mut points = Vec::new();
    if matches!(graph.input, fl_core::InputSpec::Real(_)) {
        points.push(0);
    }
    for unit in units(graph) {
        if !unit.passes_on(graph) {
            points.push(unit.own);
        }
        if unit.residual.is_some() {
            points.push(unit.output);
        }
    }
    points
}

struct Planner<'a> {
    model: &'a Model,
    graph: &'a Graph,
    rows: usize,
    purpose: Purpose,
    time: usize,
    buffers: Vec<Buffer>,
    bytes: usize,
    /// Of each root value: its bytes, its gradient, whether it needs one.
    codes: Vec<Option<Codes>>,
    gradient: Vec<Option<Slot>>,
    needs_gradient: Vec<bool>,
    /// Of each node: what its backward pass reads again.
    saved: Vec<Saved>,
    /// Of each value that is a point.
    point: Vec<Option<usize>>,
    scales: usize,
    points: Vec<Point>,
    products: Vec<Product>,
    forward: Vec<Forward>,
    backward: Vec<Backward>,
    masks: Vec<Mask>,
    running: Vec<Running>,
    stores_gradients: bool,
    sums: usize,
    columns: usize,
    groups: usize,
    scratch: usize,
}

/// What a node's backward pass reads again.
#[derive(Clone, Copy, Default)]
struct Saved {
    marks: Option<Marks>,
    bytes: Option<Bytes>,
    real: Option<Slot>,
    stats: Option<Slot>,
    product: Option<usize>,
}

impl<'a> Planner<'a> {
    fn new(model: &'a Model, rows: usize, purpose: Purpose) -> Self {
        let graph = &model.graph;
        let values = graph.values.len();
        let mut needs_gradient = vec![false; values];
        for node in &graph.nodes {
            let own = matches!(
                node.op,
                Op::Dense { .. }
                    | Op::Conv { .. }
                    | Op::Norm { .. }
                    | Op::BatchNorm { .. }
                    | Op::Embedding { .. }
            );
            needs_gradient[graph.values[node.output].root] = own
                || node
                    .inputs()
                    .any(|value| needs_gradient[graph.values[value].root]);
        }
        let mut planner = Self {
            model,
            graph,
            rows,
            purpose,
            time: 0,
            buffers: Vec::new(),
            bytes: 0,
            codes: vec![None; values],
            gradient: vec![None; values],
            needs_gradient,
            saved: vec![Saved::default(); graph.nodes.len()],
            point: vec![None; values],
            scales: 0,
            points: Vec::new(),
            products: Vec::new(),
            forward: Vec::new(),
            backward: Vec::new(),
            masks: Vec::new(),
            running: Vec::new(),
            stores_gradients: false,
            sums: 0,
            columns: 0,
            groups: 0,
            scratch: 0,
        };
        for (index, value) in points(graph).into_iter().enumerate() {
            planner.point[value] = Some(index);
            planner.scales += 1;
            planner.points.push(Point {
                range: model.range_of(index),
                scale: index,
            });
        }
        planner
    }

    fn run(mut self) -> (Memory, Plan) {
        let tokens = matches!(self.graph.input, fl_core::InputSpec::Tokens { .. });
        let input = self.buffer(if tokens { 0 } else { self.len(0) }, 0);
        if !tokens {
            self.seal(0, input, Fused::None, false);
        }
        let units = units(self.graph);
        for unit in &units {
            self.time += 1;
            self.forward(unit);
        }
        self.time += 1;
        let root = self.root(self.graph.output);
        let output = self.buffer(self.len(root), 0);
        let x = self.codes_of(root);
        self.forward.push(Forward::Open { x, to: output });
        let output_gradient = self.buffer(self.len(root), 0);
        if self.training() && self.needs_gradient[root] {
            self.gradient[root] = Some(output_gradient);
            for unit in units.iter().rev() {
                self.time += 1;
                self.backward(unit);
            }
        }
        // After the backward pass the statistics of the batch are read once more.
        self.time += 1;
        for index in 0..self.running.len() {
            self.touch(self.running[index].stats);
        }
        let memory = Memory::of_buffers(
            self.rows,
            &self.buffers,
            self.bytes,
            [input, output, output_gradient],
            self.masks,
            self.running,
            self.stores_gradients,
        );
        let plan = Plan {
            forward_by: self.purpose.arithmetic,
            scales: self.scales,
            points: self.points,
            products: self.products,
            forward: self.forward,
            backward: self.backward,
            sums: self.sums,
            columns: self.columns,
            groups: self.groups,
            scratch: self.scratch,
        };
        (memory, plan)
    }

    fn training(&self) -> bool {
        self.purpose.mode == Mode::Training
    }

    /// Whether numbers are computed as real numbers, too: to see their range.
    fn real(&self) -> bool {
        self.training() || self.purpose.arithmetic == QatForward::Fake
    }

    fn root(&self, value: ValueId) -> ValueId {
        self.graph.values[value].root
    }

    fn len(&self, value: ValueId) -> usize {
        self.graph.values[value].len()
    }

    fn tensor(&self, tensor: usize) -> Tensor {
        self.model.layout().tensors()[tensor].range()
    }

    fn buffer(&mut self, row: usize, fixed: usize) -> Slot {
        self.buffers.push(Buffer {
            row,
            fixed,
            first: self.time,
            last: self.time,
            kept: Kept::No,
        });
        self.buffers.len() - 1
    }

    fn touch(&mut self, slot: Slot) -> Slot {
        self.buffers[slot].last = self.time;
        slot
    }

    fn byte_buffer(&mut self, row: usize) -> Bytes {
        let offset = self.bytes;
        self.bytes += (self.rows * row).next_multiple_of(64);
        Bytes::new(offset, row)
    }

    /// Marks for a value whose gradient is needed.
    fn marks(&mut self, value: ValueId) -> Option<Marks> {
        let root = self.root(value);
        if !self.training() || !self.needs_gradient[root] {
            return None;
        }
        let len = self.len(value);
        let scale = match self.point[value] {
            Some(point) if self.purpose.learned => Some((point, self.buffer(len, 0))),
            _ => None,
        };
        let mask = self.byte_buffer(len);
        Some(Marks { mask, scale })
    }

    fn codes_of(&self, value: ValueId) -> Codes {
        match self.codes[self.root(value)] {
            Some(codes) => codes,
            None => unreachable!("a value is computed before it is read"),
        }
    }

    fn point_of(&self, value: ValueId) -> usize {
        match self.point[value] {
            Some(point) => point,
            None => unreachable!("every rounded value is a point"),
        }
    }

    /// New bytes for a value, at a scale.
    fn output(&mut self, value: ValueId, scale: ScaleId) -> Bytes {
        let bytes = self.byte_buffer(self.len(value));
        let root = self.root(value);
        self.codes[root] = Some(Codes { bytes, scale });
        bytes
    }

    /// Rounds real numbers to the point of `value`; its mask.
    fn seal(&mut self, value: ValueId, real: Slot, clamp: Fused, masked: bool) -> Option<Marks> {
        let point = self.point_of(value);
        let marks = if masked { self.marks(value) } else { None };
        let y = self.output(value, point);
        self.forward.push(Forward::Seal {
            real,
            clamp,
            point,
            y,
            marks,
        });
        marks
    }

    fn forward(&mut self, unit: &Unit) {
        let index = unit.node;
        let Node { op, input, .. } = self.graph.nodes[index].clone();
        let own = unit.own;
        match op {
            Op::Dense {
                geometry,
                weight,
                bias,
                ..
            } => self.product(unit, Geometry::Dense(geometry), weight, bias),
            Op::Conv {
                geometry,
                weight,
                bias,
                ..
            } => self.product(unit, Geometry::Conv(geometry), weight, bias),
            Op::MaxPool(geometry) => {
                let x = self.codes_of(input);
                let needed = self.training() && self.needs_gradient[self.root(own)];
                let real = needed.then(|| {
                    let argmax = self.byte_buffer(self.len(own));
                    let reals = [self.len(input), self.len(own)];
                    (reals.map(|len| self.buffer(len, 0)), argmax)
                });
                self.saved[index].bytes = real.map(|(_, argmax)| argmax);
                let y = self.output(own, x.scale);
                self.forward.push(Forward::MaxPool {
                    geometry,
                    x,
                    real,
                    y,
                });
            }
            Op::AvgPool(geometry) => {
                let x = self.codes_of(input);
                let real = self.two_reals(self.len(input), self.len(own));
                let point = self.point_of(own);
                let marks = self.marks(own);
                self.saved[index].marks = marks;
                let y = self.output(own, point);
                self.forward.push(Forward::AvgPool {
                    geometry,
                    x,
                    real,
                    point,
                    y,
                    marks,
                });
            }
            Op::GlobalAvgPool {
                positions,
                channels,
            } => {
                let x = self.codes_of(input);
                let real = self.two_reals(self.len(input), self.len(own));
                let point = self.point_of(own);
                let marks = self.marks(own);
                self.saved[index].marks = marks;
                let y = self.output(own, point);
                self.forward.push(Forward::GlobalAvgPool {
                    positions,
                    channels,
                    x,
                    real,
                    point,
                    y,
                    marks,
                });
            }
            Op::Function(function) => self.function(unit, function),
            Op::Dropout { rate } => self.dropout(unit, rate),
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                let x = self.codes_of(input);
                let stats = self.buffer(geometry.stats_len(), 0);
                let scratch = self.buffer(0, geometry.scratch_len());
                let real = match self.purpose.arithmetic {
                    QatForward::Integer => None,
                    QatForward::Fake => self.two_reals(self.len(input), self.len(own)),
                };
                self.groups = self.groups.max(geometry.groups());
                let point = self.point_of(own);
                let marks = self.marks(own);
                self.saved[index].stats = Some(stats);
                self.saved[index].marks = marks;
                let y = self.output(own, point);
                self.forward.push(Forward::Norm(Normalise {
                    geometry,
                    clamp: unit.clamp,
                    x,
                    real,
                    point,
                    y,
                    marks,
                    stats,
                    scratch,
                    gamma: self.tensor(scale),
                    beta: self.tensor(shift),
                }));
            }
            Op::Embedding { table, size } => {
                let y = self.buffer(self.len(own), 0);
                self.forward.push(Forward::Embedding {
                    size,
                    table: self.tensor(table),
                    y,
                });
                self.saved[index].marks = self.seal(own, y, unit.clamp, true);
            }
            Op::Add { other } => {
                let (first, second) = (input, other);
                self.saved[index].marks = self.add(own, first, second, unit.clamp);
            }
            Op::BatchNorm { .. } => unreachable!("refused by `Model::with_ranges`"),
        }
        if let Some(Residual { node, other, clamp }) = unit.residual {
            self.time += 1;
            // The sides in the order of the addition, as it is computed alone.
            let (first, second) = match self.graph.nodes[node].input == own {
                true => (own, other),
                false => (other, own),
            };
            self.saved[node].marks = self.add(unit.output, first, second, clamp);
        }
    }

    fn two_reals(&mut self, first: usize, second: usize) -> Option<[Slot; 2]> {
        self.real()
            .then(|| [self.buffer(first, 0), self.buffer(second, 0)])
    }

    fn add(
        &mut self,
        value: ValueId,
        first: ValueId,
        second: ValueId,
        clamp: Fused,
    ) -> Option<Marks> {
        let (first, second) = (self.codes_of(first), self.codes_of(second));
        let real = self.two_reals(self.len(value), self.len(value));
        let point = self.point_of(value);
        let marks = self.marks(value);
        let y = self.output(value, point);
        self.forward.push(Forward::Add {
            first,
            second,
            clamp,
            real,
            point,
            y,
            marks,
        });
        marks
    }

    fn function(&mut self, unit: &Unit, function: Function) {
        let node = &self.graph.nodes[unit.node];
        let (own, x) = (unit.own, self.codes_of(node.input));
        let clamp = clamp_of(function);
        let marks = self.marks(own);
        self.saved[unit.node].marks = marks;
        if clamp != Fused::None {
            let y = self.output(own, x.scale);
            self.forward.push(Forward::Clamp { clamp, x, y, marks });
            return;
        }
        let real = self.real().then(|| self.buffer(self.len(own), 0));
        let point = self.point_of(own);
        let y = self.output(own, point);
        self.forward.push(Forward::Function {
            f: kernel_function(function),
            x,
            real,
            point,
            y,
            marks,
        });
    }

    fn dropout(&mut self, unit: &Unit, rate: f32) {
        let (own, input) = (unit.own, self.graph.nodes[unit.node].input);
        let x = self.codes_of(input);
        if !self.training() || rate == 0.0 {
            let root = self.root(own);
            self.codes[root] = Some(x);
            return;
        }
        let keep = self.byte_buffer(self.len(own));
        self.saved[unit.node].bytes = Some(keep);
        // Exact for any rate: a product of an f32 below 1 and 2^32 fits an f64.
        let threshold = (f64::from(rate) * 4_294_967_296.0) as u32;
        self.masks.push(Mask { keep, threshold });
        let scale = self.scales;
        self.scales += 1;
        let bytes = self.output(own, scale);
        self.forward.push(Forward::Dropout {
            keep,
            x,
            y: Codes { bytes, scale },
            factor: 1.0 / (1.0 - rate),
        });
    }

    fn product(&mut self, unit: &Unit, geometry: Geometry, weight: usize, bias: Option<usize>) {
        let index = unit.node;
        let (own, input) = (unit.own, self.graph.nodes[index].input);
        let x = self.codes_of(input);
        let product = self.products.len();
        let mut momentum = 0.0;
        let norm = unit.norm.and_then(|node| match self.graph.nodes[node].op {
            Op::BatchNorm {
                channels,
                positions,
                scale,
                shift,
                mean,
                variance,
                epsilon,
                momentum: share,
                ..
            } => {
                momentum = share;
                Some((
                    Folded {
                        geometry: batch_norm(positions, channels, epsilon),
                        gamma: self.tensor(scale),
                        beta: self.tensor(shift),
                        mean: self.tensor(mean),
                        variance: self.tensor(variance),
                        epsilon,
                    },
                    positions,
                ))
            }
            _ => None,
        });
        let point = self.point_of(own);
        let fake = self.purpose.arithmetic == QatForward::Fake;
        let batch =
            norm.is_some() && self.training() && self.purpose.statistics == Statistics::Batch;
        self.products.push(Product {
            geometry: geometry.clone(),
            weight: self.tensor(weight),
            bias: bias.map(|bias| self.tensor(bias)),
            norm: norm.as_ref().map(|(norm, _)| norm.clone()),
            clamp: unit.clamp,
            x: x.scale,
            point,
            batch,
            real: fake || (self.training() && self.needs_gradient[self.root(input)]),
        });
        self.saved[index].product = Some(product);
        self.sums = self.sums.max(geometry.output_len());
        self.columns = self.columns.max(geometry.columns());
        if let Geometry::Conv(conv) = &geometry {
            self.scratch = self.scratch.max(conv.int8_scratch_len());
        }
        if !fake && !batch {
            let marks = self.marks(own);
            let y = self.output(own, point);
            self.saved[index].marks = marks;
            self.forward.push(Forward::Product {
                product,
                x,
                y,
                marks,
            });
            return;
        }
        let real = self.buffer(self.len(own), 0);
        if fake {
            let (open, padded) = self.opened(input, &geometry);
            self.forward.push(Forward::Fake {
                product,
                x,
                open,
                padded,
                real,
            });
        } else {
            self.forward.push(Forward::RealProduct { product, x, real });
        }
        let Some((norm, positions)) = norm.filter(|_| batch) else {
            self.saved[index].marks = self.seal(own, real, unit.clamp, true);
            return;
        };
        let stats = self.buffer(0, norm.geometry.stats_len());
        self.saved[index].real = Some(real);
        self.saved[index].stats = Some(stats);
        self.running.push(Running {
            stats,
            mean: norm.mean,
            variance: norm.variance,
            momentum,
            positions,
        });
        let y = self.buffer(self.len(own), 0);
        self.forward.push(Forward::BatchNorm {
            product,
            x: real,
            y,
            stats,
        });
        self.saved[index].marks = self.seal(own, y, unit.clamp, true);
    }

    /// Room for a product's input as real numbers, and padded where it must be.
    fn opened(&mut self, input: ValueId, geometry: &Geometry) -> (Slot, Option<Slot>) {
        let open = self.buffer(self.len(input), 0);
        let padded = match geometry {
            Geometry::Conv(conv) if conv.is_padded() => Some(self.buffer(conv.padded_len(), 0)),
            _ => None,
        };
        (open, padded)
    }
}
