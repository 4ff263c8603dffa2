//! What every plan's walk over the graph does alike: it counts time, makes buffers and hands
//! gradients on.

use alloc::vec;
use alloc::vec::Vec;

use super::{Buffer, Bytes, Kept, Mask, Route, Running, Slot, Tensor};
use crate::graph::{Graph, ValueId};
use crate::kernel::Write;
use crate::model::Model;

/// A walk whose backward pass is made of `B`.
pub(crate) struct Walk<'a, B> {
    pub(crate) model: &'a Model,
    pub(crate) graph: &'a Graph,
    pub(crate) rows: usize,
    pub(crate) time: usize,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) bytes: usize,
    /// Of each root value: its gradient's buffer, whether it needs one.
    pub(crate) gradient: Vec<Option<Slot>>,
    pub(crate) needs_gradient: Vec<bool>,
    pub(crate) backward: Vec<B>,
    pub(crate) masks: Vec<Mask>,
    pub(crate) running: Vec<Running>,
    pub(crate) stores_gradients: bool,
}

impl<'a, B: From<Route>> Walk<'a, B> {
    pub(crate) fn new(model: &'a Model, rows: usize) -> Self {
        let graph = &model.graph;
        let values = graph.values.len();
        Self {
            model,
            graph,
            rows,
            time: 0,
            buffers: Vec::new(),
            bytes: 0,
            gradient: vec![None; values],
            needs_gradient: graph.learning(),
            backward: Vec::new(),
            masks: Vec::new(),
            running: Vec::new(),
            stores_gradients: false,
        }
    }

    pub(crate) fn root(&self, value: ValueId) -> ValueId {
        self.graph.values[value].root
    }

    pub(crate) fn len(&self, value: ValueId) -> usize {
        self.graph.values[value].len()
    }

    pub(crate) fn tensor(&self, tensor: usize) -> Tensor {
        self.model.layout().tensors()[tensor].range()
    }

    /// A buffer that lives from now on.
    pub(crate) fn buffer(&mut self, row: usize, fixed: usize) -> Slot {
        self.buffers.push(Buffer {
            row,
            fixed,
            first: self.time,
            last: self.time,
            kept: Kept::No,
        });
        self.buffers.len() - 1
    }

    pub(crate) fn byte_buffer(&mut self, row: usize) -> Bytes {
        let offset = self.bytes;
        self.bytes += (self.rows * row).next_multiple_of(64);
        Bytes::new(offset, row)
    }

    /// A buffer lives until now at least.
    pub(crate) fn touch(&mut self, slot: Slot) -> Slot {
        self.buffers[slot].last = self.time;
        slot
    }

    /// The walk is over: statistics of the batch are read once more.
    pub(crate) fn end(&mut self) {
        self.time += 1;
        for index in 0..self.running.len() {
            self.touch(self.running[index].stats);
        }
    }

    /// A mask of a dropout, to be drawn.
    pub(crate) fn mask(&mut self, row: usize, rate: f32) -> Bytes {
        let keep = self.byte_buffer(row);
        // Exact for any rate: a product of an f32 below 1 and 2^32 fits an f64.
        let threshold = (f64::from(rate) * 4_294_967_296.0) as u32;
        self.masks.push(Mask { keep, threshold });
        keep
    }

    pub(crate) fn route(&mut self, route: Route) {
        self.backward.push(route.into());
    }

    /// The gradient buffer of `root` and whether to add to it.
    pub(crate) fn gradient_of(&mut self, root: ValueId) -> Option<(Slot, Write)> {
        if !self.needs_gradient[root] {
            return None;
        }
        match self.gradient[root] {
            Some(slot) => Some((self.touch(slot), Write::Add)),
            None => {
                let slot = self.buffer(self.len(root), 0);
                self.gradient[root] = Some(slot);
                Some((slot, Write::Store))
            }
        }
    }

    /// Hands the gradient in `dy` to `root`: the buffer itself when it is the first.
    pub(crate) fn pass_on(&mut self, dy: Slot, root: ValueId) {
        if !self.needs_gradient[root] {
            return;
        }
        match self.gradient[root] {
            None => self.gradient[root] = Some(dy),
            Some(to) => {
                self.touch(to);
                self.route(Route::Add { from: dy, to });
            }
        }
    }

    /// A buffer for an operator that can only overwrite, then [`Self::pass_on`].
    pub(crate) fn overwrite(&mut self, root: ValueId, step: impl FnOnce(Slot) -> Route) {
        if self.needs_gradient[root] {
            let dx = self.buffer(self.len(root), 0);
            self.route(step(dx));
            self.pass_on(dx, root);
        }
    }

    /// Hands the gradient of a sum to both sides.
    pub(crate) fn pass_to_both(&mut self, dy: Slot, source: ValueId, other: ValueId) {
        if other == source {
            self.route(Route::Double { dy });
        } else if self.needs_gradient[other] {
            match self.gradient[other] {
                Some(to) => {
                    self.touch(to);
                    self.route(Route::Add { from: dy, to });
                }
                None if self.needs_gradient[source] => {
                    let to = self.buffer(self.len(other), 0);
                    self.gradient[other] = Some(to);
                    self.route(Route::Copy { from: dy, to });
                }
                None => self.gradient[other] = Some(dy),
            }
        }
        self.pass_on(dy, source);
    }
}
