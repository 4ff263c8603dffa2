//! Control flow: `If`, `Loop` and `Scan`.

use std::sync::Arc;

use crate::error::{NodeError, OnnxError};
use crate::interpreter::compile::Attribute;
use crate::interpreter::{Block, Node, Run, Values};
use crate::ops::{self, Ctx};
use crate::tensor::Tensor;

/// The first input as a truth value.
pub(super) fn condition(node: &Node, inputs: &[Option<Arc<Tensor>>]) -> Result<bool, OnnxError> {
    truth(inputs.first().and_then(Option::as_ref), 0).map_err(|problem| node.error(problem))
}

fn truth(tensor: Option<&Arc<Tensor>>, input: usize) -> Result<bool, NodeError> {
    let tensor = tensor.ok_or(NodeError::MissingInput(input))?;
    match tensor.values::<bool>() {
        Some([value]) => Ok(*value),
        Some(_) => Err(NodeError::Shape {
            input,
            found: tensor.shape().to_vec(),
            expected: "one truth value",
        }),
        None => Err(NodeError::Type {
            input,
            found: tensor.dtype(),
            expected: "bool",
        }),
    }
}

/// The outputs of a body that does not have as many as its node.
fn uneven(block: &Block) -> NodeError {
    NodeError::Value {
        what: "the number of outputs of the body",
        found: block.outputs.len() as i64,
        expected: "one for each state and scan output",
    }
}

impl Run<'_> {
    /// `Loop`: the body takes (iteration, condition, state…) and gives (condition, state…,
    /// scan outputs…).
    pub(super) fn repeat(
        &mut self,
        node: &Node,
        body: &Block,
        inputs: Vec<Option<Arc<Tensor>>>,
        values: &Values<'_>,
    ) -> Result<Vec<Arc<Tensor>>, OnnxError> {
        let fail = |problem| node.error(problem);
        let trips = match inputs.first().and_then(Option::as_ref) {
            None => i64::MAX,
            Some(tensor) => match tensor.values::<i64>() {
                Some([trips]) => *trips,
                _ => {
                    return Err(fail(NodeError::Type {
                        input: 0,
                        found: tensor.dtype(),
                        expected: "one i64",
                    }));
                }
            },
        };
        let mut go = match inputs.get(1) {
            Some(Some(condition)) => truth(Some(condition), 1).map_err(fail)?,
            _ => true,
        };
        let mut state: Vec<Option<Arc<Tensor>>> = inputs.into_iter().skip(2).collect();
        let states = state.len();
        if body.inputs.len() != states + 2 || body.outputs.len() < states + 1 {
            return Err(fail(uneven(body)));
        }
        let scans = body.outputs.len() - 1 - states;
        let mut slices: Vec<Vec<Arc<Tensor>>> = vec![Vec::new(); scans];
        let before = self.live;
        let mut trip = 0;
        while go && trip < trips {
            self.steps += 1;
            if self.steps > self.limits.nodes {
                return Err(fail(NodeError::Steps(self.limits.nodes)));
            }
            let mut given = vec![
                Some(Arc::new(Tensor::scalar(trip))),
                Some(Arc::new(Tensor::scalar(go))),
            ];
            given.append(&mut state);
            let mut outputs = self.block(body, given, Some(values))?.into_iter();
            go = truth(outputs.next().as_ref(), 0).map_err(fail)?;
            state = outputs.by_ref().take(states).map(Some).collect();
            for (list, slice) in slices.iter_mut().zip(outputs) {
                self.hold(node, &slice)?;
                list.push(slice);
            }
            trip += 1;
        }
        self.live = before;
        let mut results = Vec::with_capacity(states + scans);
        for (index, tensor) in state.into_iter().enumerate() {
            results.push(tensor.ok_or_else(|| fail(NodeError::MissingInput(index + 2)))?);
        }
        for (index, list) in slices.iter().enumerate() {
            // Without a trip the element type is not known from a value.
            if list.is_empty()
                && node
                    .outputs
                    .get(states + index)
                    .is_none_or(String::is_empty)
            {
                continue;
            }
            let stacked = ops::stack(node, self.limits, list, 0, false).map_err(fail)?;
            results.push(Arc::new(stacked));
        }
        Ok(results)
    }

    /// `Scan` (from opset 9): the body takes (state…, slices…) and gives (state…, slices…).
    pub(super) fn scan(
        &mut self,
        node: &Node,
        body: &Block,
        inputs: Vec<Option<Arc<Tensor>>>,
        values: &Values<'_>,
    ) -> Result<Vec<Arc<Tensor>>, OnnxError> {
        let fail = |problem| node.error(problem);
        let count = match node.attributes.get("num_scan_inputs") {
            Some(Attribute::Int(count)) => usize::try_from(*count).unwrap_or(0),
            _ => 0,
        };
        if count == 0
            || count > inputs.len()
            || body.inputs.len() != inputs.len()
            || body.outputs.len() < inputs.len() - count
        {
            return Err(fail(uneven(body)));
        }
        let states = inputs.len() - count;
        let scans = body.outputs.len() - states;
        let ctx = Ctx::new(node, &inputs, self.limits);
        let list = |name: &str, len: usize| -> Result<Vec<i64>, OnnxError> {
            let given = ctx.ints(name).map_err(fail)?;
            let mut list = given.map_or_else(Vec::new, <[i64]>::to_vec);
            list.resize(len, 0);
            Ok(list)
        };
        let directions = list("scan_input_directions", count)?;
        let out_directions = list("scan_output_directions", scans)?;
        let axes = list("scan_input_axes", count)?;
        let out_axes = list("scan_output_axes", scans)?;
        let mut places = Vec::with_capacity(count);
        let mut trips = None;
        for (index, axis) in axes.iter().enumerate() {
            let tensor = ctx.input(states + index).map_err(fail)?;
            let axis = ops::axis(*axis, tensor.rank()).map_err(fail)?;
            let len = tensor.shape()[axis];
            if *trips.get_or_insert(len) != len {
                return Err(fail(NodeError::Shape {
                    input: states + index,
                    found: tensor.shape().to_vec(),
                    expected: "the scan length of the first scan input",
                }));
            }
            places.push(axis);
        }
        let trips = trips.unwrap_or(0);
        let mut state: Vec<Option<Arc<Tensor>>> = inputs[..states].to_vec();
        let mut slices: Vec<Vec<Arc<Tensor>>> = vec![Vec::new(); scans];
        let before = self.live;
        for trip in 0..trips {
            let mut given = std::mem::take(&mut state);
            for (index, axis) in places.iter().enumerate() {
                let at = if directions[index] == 1 {
                    trips - 1 - trip
                } else {
                    trip
                };
                let ctx = Ctx::new(node, &inputs, self.limits);
                let tensor = ctx.input(states + index).map_err(fail)?;
                let slice = ops::slice_at(&ctx, tensor, *axis, at).map_err(fail)?;
                given.push(Some(Arc::new(slice)));
            }
            let mut outputs = self.block(body, given, Some(values))?.into_iter();
            state = outputs.by_ref().take(states).map(Some).collect();
            for (list, slice) in slices.iter_mut().zip(outputs) {
                self.hold(node, &slice)?;
                list.push(slice);
            }
        }
        self.live = before;
        let mut results: Vec<Arc<Tensor>> = Vec::with_capacity(states + scans);
        for (index, tensor) in state.into_iter().enumerate() {
            results.push(tensor.ok_or_else(|| fail(NodeError::MissingInput(index)))?);
        }
        for (index, list) in slices.iter().enumerate() {
            let reversed = out_directions[index] == 1;
            let stacked = ops::stack(node, self.limits, list, out_axes[index], reversed);
            results.push(Arc::new(stacked.map_err(fail)?));
        }
        Ok(results)
    }

    /// Counts a scan output that is kept until the end of its loop.
    fn hold(&mut self, node: &Node, tensor: &Tensor) -> Result<(), OnnxError> {
        self.live = self.live.saturating_add(tensor.bytes());
        if self.live > self.limits.live_bytes {
            return Err(node.error(NodeError::LiveBytes {
                bytes: self.live,
                most: self.limits.live_bytes,
            }));
        }
        Ok(())
    }
}
