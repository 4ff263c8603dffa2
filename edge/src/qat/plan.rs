//! Makes the plan of a model in quantization-aware training.
//!
//! Bytes live from the forward to the backward pass; real numbers only where they are needed:
//! in the gradients, and in the operands of one product at a time.

mod backward;
mod forward;

use alloc::vec;
use alloc::vec::Vec;

use super::step::{Backward, Codes, Forward, Marks, Point, Product, ScaleId};
use super::{QatForward, Statistics};
use crate::distill::{self, Lesson};
use crate::graph::{Graph, ValueId, units};
use crate::kernel::Fused;
use crate::model::Model;
use crate::plan::{Bytes, Memory, Mode, Slot, Walk};

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
    walk: Walk<'a, Backward>,
    purpose: Purpose,
    /// Of each root value: its bytes.
    codes: Vec<Option<Codes>>,
    /// Of each node: what its backward pass reads again.
    saved: Vec<Saved>,
    /// Of each value that is a point.
    point: Vec<Option<usize>>,
    scales: usize,
    points: Vec<Point>,
    products: Vec<Product>,
    forward: Vec<Forward>,
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
        let mut planner = Self {
            walk: Walk::new(model, rows),
            purpose,
            codes: vec![None; values],
            saved: vec![Saved::default(); graph.nodes.len()],
            point: vec![None; values],
            scales: 0,
            points: Vec::new(),
            products: Vec::new(),
            forward: Vec::new(),
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
        let tokens = matches!(self.walk.graph.input, fl_core::InputSpec::Tokens { .. });
        let input = self
            .walk
            .buffer(if tokens { 0 } else { self.walk.len(0) }, 0);
        if !tokens {
            self.seal(0, input, Fused::None, false);
        }
        let units = units(self.walk.graph);
        for unit in &units {
            self.walk.time += 1;
            self.forward(unit);
        }
        self.walk.time += 1;
        let root = self.walk.root(self.walk.graph.output);
        let output = self.walk.buffer(self.walk.len(root), 0);
        let x = self.codes_of(root);
        self.forward.push(Forward::Open { x, to: output });
        let output_gradient = self.walk.buffer(self.walk.len(root), 0);
        let mut lesson = None;
        if self.training() && self.walk.needs_gradient[root] {
            self.walk.gradient[root] = Some(output_gradient);
            lesson = self.lesson();
            for unit in units.iter().rev() {
                self.walk.time += 1;
                self.backward(unit);
            }
        }
        self.walk.end();
        let plan = Plan {
            forward_by: self.purpose.arithmetic,
            scales: self.scales,
            points: self.points,
            products: self.products,
            forward: self.forward,
            backward: core::mem::take(&mut self.walk.backward),
            sums: self.sums,
            columns: self.columns,
            groups: self.groups,
            scratch: self.scratch,
        };
        let ends = [input, output, output_gradient];
        let mut memory = Memory::of_walk(self.walk, ends, |_| Vec::new());
        memory.lesson = lesson;
        (memory, plan)
    }

    /// What is learned from a teacher's layers, at the time of the loss: of numbers that the
    /// integers stand for.
    fn lesson(&mut self) -> Option<Lesson> {
        let model = self.walk.model;
        let distillation = model.distillation()?;
        let mut slots = Vec::new();
        for value in distillation.taps() {
            let x = self.codes_of(value);
            let to = self.walk.buffer(self.walk.len(value), 0);
            self.forward.push(Forward::Open { x, to });
            slots.push(to);
        }
        Some(distill::plan(&mut self.walk, distillation, &slots))
    }

    fn training(&self) -> bool {
        self.purpose.mode == Mode::Training
    }

    /// Whether numbers are computed as real numbers, too: to see their range.
    fn real(&self) -> bool {
        self.training() || self.purpose.arithmetic == QatForward::Fake
    }

    /// Marks for a value whose gradient is needed.
    fn marks(&mut self, value: ValueId) -> Option<Marks> {
        let root = self.walk.root(value);
        if !self.training() || !self.walk.needs_gradient[root] {
            return None;
        }
        let len = self.walk.len(value);
        let scale = match self.point[value] {
            Some(point) if self.purpose.learned => Some((point, self.walk.buffer(len, 0))),
            _ => None,
        };
        let mask = self.walk.byte_buffer(len);
        Some(Marks { mask, scale })
    }

    fn codes_of(&self, value: ValueId) -> Codes {
        match self.codes[self.walk.root(value)] {
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
        let bytes = self.walk.byte_buffer(self.walk.len(value));
        let root = self.walk.root(value);
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
}
