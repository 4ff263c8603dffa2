//! The operators: from input tensors and attributes to output tensors.
//!
//! Every operator is a function of a [`Ctx`]; [`find`] is their table. What two operators share
//! is here: places of elements after a movement ([`walk`], [`pick`]), broadcasting, axes.

mod attention;
mod binary;
mod cast;
mod conv;
mod einsum;
mod index;
mod loss;
mod moves;
mod norm;
mod pool;
mod product;
mod quant;
mod recurrent;
mod reduce;
mod resize;
mod unary;

use std::sync::Arc;

use crate::error::NodeError;
use crate::interpreter::{Attribute, Node};
use crate::model::Limits;
use crate::tensor::{DType, Data, Element, Tensor, count, each, extent};

/// Outputs in order, or why there are none.
pub(crate) type Outputs = Result<Vec<Tensor>, NodeError>;

/// An operator.
pub(crate) type OpFn = fn(&Ctx<'_>) -> Outputs;

/// The place of an element that is not taken from the input but filled.
pub(crate) const FILL: usize = usize::MAX;

/// The operator `op` of the standard domain in version `opset`.
pub(crate) fn find(op: &str, opset: i64) -> Option<OpFn> {
    if opset < 7 && op != "Not" {
        return None;
    }
    [
        unary::find,
        binary::find,
        cast::find,
        moves::find,
        index::find,
        reduce::find,
        product::find,
        conv::find,
        pool::find,
        norm::find,
        quant::find,
        loss::find,
        attention::find,
        recurrent::find,
        resize::find,
        einsum::find,
    ]
    .iter()
    .find_map(|find| find(op, opset))
}

/// A node about to be computed: its inputs, attributes and limits.
pub(crate) struct Ctx<'a> {
    node: &'a Node,
    inputs: &'a [Option<Arc<Tensor>>],
    limits: &'a Limits,
}

impl<'a> Ctx<'a> {
    pub(crate) fn new(
        node: &'a Node,
        inputs: &'a [Option<Arc<Tensor>>],
        limits: &'a Limits,
    ) -> Self {
        Self {
            node,
            inputs,
            limits,
        }
    }

    /// The operator's version.
    pub(crate) fn opset(&self) -> i64 {
        self.node.opset
    }

    /// Number of inputs, the ones that are not given included.
    pub(crate) fn arity(&self) -> usize {
        self.inputs.len()
    }

    /// Number of outputs that the node names, up to the last one that is wanted.
    pub(crate) fn outputs(&self) -> usize {
        let last = self.node.outputs.iter().rposition(|name| !name.is_empty());
        last.map_or(0, |last| last + 1)
    }

    pub(crate) fn input(&self, index: usize) -> Result<&'a Tensor, NodeError> {
        self.optional(index).ok_or(NodeError::MissingInput(index))
    }

    pub(crate) fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index)?.as_deref()
    }

    /// The elements of input `index`, which must be of type `T`.
    pub(crate) fn values<T: Element>(
        &self,
        index: usize,
        expected: &'static str,
    ) -> Result<&'a [T], NodeError> {
        let tensor = self.input(index)?;
        tensor
            .values()
            .ok_or_else(|| self.wrong_type(index, expected))
    }

    pub(crate) fn wrong_type(&self, input: usize, expected: &'static str) -> NodeError {
        match self.optional(input) {
            Some(tensor) => NodeError::Type {
                input,
                found: tensor.dtype(),
                expected,
            },
            None => NodeError::MissingInput(input),
        }
    }

    pub(crate) fn wrong_shape(&self, input: usize, expected: &'static str) -> NodeError {
        match self.optional(input) {
            Some(tensor) => NodeError::Shape {
                input,
                found: tensor.shape().to_vec(),
                expected,
            },
            None => NodeError::MissingInput(input),
        }
    }

    /// The whole numbers of input `index`, of type `i32` or `i64`, with at most `most` of them.
    pub(crate) fn list(&self, index: usize) -> Result<Vec<i64>, NodeError> {
        let tensor = self.input(index)?;
        match tensor.data() {
            Data::I64(v) => Ok(v.clone()),
            Data::I32(v) => Ok(v.iter().map(|&x| i64::from(x)).collect()),
            _ => Err(self.wrong_type(index, "i64 or i32")),
        }
    }

    /// The single whole number in input `index`.
    pub(crate) fn single(&self, index: usize) -> Result<i64, NodeError> {
        match &self.list(index)?[..] {
            [value] => Ok(*value),
            _ => Err(self.wrong_shape(index, "one element")),
        }
    }

    fn attribute(&self, name: &str) -> Option<&'a Attribute> {
        self.node.attributes.get(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    fn odd<T>(name: &str, expected: &'static str) -> Result<T, NodeError> {
        Err(NodeError::Attribute {
            name: name.to_owned(),
            expected,
        })
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> Result<i64, NodeError> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Int(value)) => Ok(*value),
            Some(_) => Self::odd(name, "whole number"),
        }
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, NodeError> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, NodeError> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(_) => Self::odd(name, "list of whole numbers"),
        }
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> Result<f32, NodeError> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Float(value)) => Ok(*value),
            Some(_) => Self::odd(name, "number"),
        }
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Option<&'a [f32]>, NodeError> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Floats(values)) => Ok(Some(values)),
            Some(_) => Self::odd(name, "list of numbers"),
        }
    }

    pub(crate) fn text(&self, name: &str, default: &'static str) -> Result<&'a str, NodeError> {
        match self.attribute(name) {
            None => Ok(default),
            Some(Attribute::Text(value)) => Ok(value),
            Some(_) => Self::odd(name, "text"),
        }
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Option<&'a [String]>, NodeError> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Texts(values)) => Ok(Some(values)),
            Some(_) => Self::odd(name, "list of texts"),
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<&'a Tensor>, NodeError> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Tensor(value)) => Ok(Some(value)),
            Some(_) => Self::odd(name, "tensor"),
        }
    }

    /// Number of elements of a tensor about to be made, which must be within the limit.
    pub(crate) fn room(&self, shape: &[usize], dtype: DType) -> Result<usize, NodeError> {
        room(shape, dtype, self.limits)
    }

    /// Room for working numbers of 8 bytes.
    pub(crate) fn work(&self, shape: &[usize]) -> Result<usize, NodeError> {
        self.room(shape, DType::F64)
    }
}

/// Number of elements of a tensor that is within the limit. A size of 0 makes the tensor empty
/// but not free: the sizes beside it count.
pub(crate) fn room(shape: &[usize], dtype: DType, limits: &Limits) -> Result<usize, NodeError> {
    let bytes = extent(shape)
        .unwrap_or(usize::MAX)
        .saturating_mul(dtype.bytes());
    if bytes > limits.tensor_bytes {
        return Err(NodeError::TensorBytes {
            bytes,
            most: limits.tensor_bytes,
        });
    }
    Ok(count(shape).unwrap_or(0))
}

/// The only output.
pub(crate) fn one(tensor: Tensor) -> Outputs {
    Ok(vec![tensor])
}

/// An axis counted from the front; negative ones count from the back.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, NodeError> {
    let wrong = NodeError::Axis { axis, rank };
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(at) {
        Ok(at) if at < rank => Ok(at),
        _ => Err(wrong),
    }
}

/// Axes counted from the front, each once.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, NodeError> {
    let mut result = Vec::with_capacity(list.len().min(rank));
    for &one in list {
        let at = axis(one, rank)?;
        if result.contains(&at) {
            return Err(NodeError::Axis { axis: one, rank });
        }
        result.push(at);
    }
    Ok(result)
}

/// An index counted from the front; negative ones count from the back.
pub(crate) fn index(index: i64, size: usize) -> Result<usize, NodeError> {
    let wrong = NodeError::Index { index, size };
    let at = if index < 0 {
        index.saturating_add(size as i64)
    } else {
        index
    };
    match usize::try_from(at) {
        Ok(at) if at < size => Ok(at),
        _ => Err(wrong),
    }
}

/// How far apart neighbours along each axis lie.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; shape.len()];
    for at in (1..shape.len()).rev() {
        // A size of 0 means that nothing is ever looked up.
        strides[at - 1] = strides[at].wrapping_mul(shape[at]);
    }
    strides
}

/// The places, in row-major order of `shape`, of elements whose neighbours lie `strides` apart.
pub(crate) fn walk(
    ctx: &Ctx<'_>,
    shape: &[usize],
    strides: &[usize],
) -> Result<Vec<usize>, NodeError> {
    let len = ctx.work(shape)?;
    let mut places = Vec::with_capacity(len);
    if len == 0 {
        return Ok(places);
    }
    let Some((&inner, outer)) = shape.split_last() else {
        places.push(0);
        return Ok(places);
    };
    let step = strides[shape.len() - 1];
    let mut at = vec![0; outer.len()];
    let mut start = 0;
    loop {
        places.extend((0..inner).map(|i| start + i * step));
        let mut axis = outer.len();
        loop {
            if axis == 0 {
                return Ok(places);
            }
            axis -= 1;
            at[axis] += 1;
            start += strides[axis];
            if at[axis] < outer[axis] {
                break;
            }
            start -= outer[axis] * strides[axis];
            at[axis] = 0;
        }
    }
}

/// The places, in a tensor of `shape`, of the elements at the product of the coordinates `maps`;
/// [`FILL`] where any of them is.
pub(crate) fn pick(
    ctx: &Ctx<'_>,
    shape: &[usize],
    maps: &[Vec<usize>],
) -> Result<Vec<usize>, NodeError> {
    let out: Vec<usize> = maps.iter().map(Vec::len).collect();
    let len = ctx.work(&out)?;
    let strides = strides(shape);
    let mut places = vec![0];
    if len == 0 {
        return Ok(Vec::new());
    }
    for (map, stride) in maps.iter().zip(&strides) {
        let mut next = Vec::with_capacity(places.len() * map.len());
        for &place in &places {
            next.extend(map.iter().map(|&at| {
                if place == FILL || at == FILL {
                    FILL
                } else {
                    place + at * stride
                }
            }));
        }
        places = next;
    }
    Ok(places)
}

/// The elements at `places`, each of which is inside.
pub(crate) fn take(data: &Data, places: &[usize]) -> Data {
    fn list<T: Element>(v: &[T], places: &[usize]) -> Data {
        T::wrap(places.iter().map(|&at| v[at]).collect())
    }
    each!(data, v => list(v, places))
}

/// The elements at `places`, zero (or false) where a place is [`FILL`].
pub(crate) fn take_or_zero(data: &Data, places: &[usize]) -> Data {
    fn list<T: Element>(v: &[T], places: &[usize]) -> Data {
        let at = |&at: &usize| if at == FILL { T::default() } else { v[at] };
        T::wrap(places.iter().map(at).collect())
    }
    each!(data, v => list(v, places))
}

/// The elements at `places` as a tensor of `shape`.
pub(crate) fn taken(
    ctx: &Ctx<'_>,
    tensor: &Tensor,
    shape: Vec<usize>,
    places: &[usize],
) -> Result<Tensor, NodeError> {
    ctx.room(&shape, tensor.dtype())?;
    Ok(Tensor::from_data(shape, take(tensor.data(), places))?)
}

/// The shape that two shapes broadcast to.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, NodeError> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], at: usize| {
        (at + shape.len())
            .checked_sub(rank)
            .map_or(1, |at| shape[at])
    };
    (0..rank)
        .map(|at| match (size(a, at), size(b, at)) {
            (1, other) | (other, 1) => Ok(other),
            (x, y) if x == y => Ok(x),
            _ => Err(NodeError::Broadcast(a.to_vec(), b.to_vec())),
        })
        .collect()
}

/// Where each element of a tensor of shape `to` comes from in one of shape `from` that broadcasts
/// to it.
pub(crate) fn spread(ctx: &Ctx<'_>, from: &[usize], to: &[usize]) -> Result<Vec<usize>, NodeError> {
    walk(ctx, to, &spread_strides(from, to)?)
}

/// The strides of [`spread`].
pub(crate) fn spread_strides(from: &[usize], to: &[usize]) -> Result<Vec<usize>, NodeError> {
    if broadcast(from, to)? != to {
        return Err(NodeError::Broadcast(from.to_vec(), to.to_vec()));
    }
    let mut all = vec![0; to.len() - from.len()];
    let own = strides(from);
    all.extend(
        from.iter()
            .zip(own)
            .map(|(&size, stride)| if size == 1 { 0 } else { stride }),
    );
    Ok(all)
}

/// The elements of `tensor`, broadcast to `shape`.
pub(crate) fn expand(ctx: &Ctx<'_>, tensor: &Tensor, shape: &[usize]) -> Result<Tensor, NodeError> {
    if tensor.shape() == shape {
        return Ok(tensor.clone());
    }
    let places = spread(ctx, tensor.shape(), shape)?;
    taken(ctx, tensor, shape.to_vec(), &places)
}

/// `tensor` with its axes in another order.
pub(crate) fn transpose(
    ctx: &Ctx<'_>,
    tensor: &Tensor,
    order: &[usize],
) -> Result<Tensor, NodeError> {
    let own = strides(tensor.shape());
    let shape: Vec<usize> = order.iter().map(|&at| tensor.shape()[at]).collect();
    let steps: Vec<usize> = order.iter().map(|&at| own[at]).collect();
    let places = walk(ctx, &shape, &steps)?;
    taken(ctx, tensor, shape, &places)
}

/// The slice of `tensor` at one index of an axis, without the axis.
pub(crate) fn slice_at(
    ctx: &Ctx<'_>,
    tensor: &Tensor,
    axis: usize,
    at: usize,
) -> Result<Tensor, NodeError> {
    let maps: Vec<Vec<usize>> = tensor
        .shape()
        .iter()
        .enumerate()
        .map(|(place, &size)| {
            if place == axis {
                vec![at]
            } else {
                (0..size).collect()
            }
        })
        .collect();
    let mut shape = tensor.shape().to_vec();
    shape.remove(axis);
    let places = pick(ctx, tensor.shape(), &maps)?;
    taken(ctx, tensor, shape, &places)
}

/// Tensors of one shape along a new axis.
pub(crate) fn stack(
    node: &Node,
    limits: &Limits,
    list: &[Arc<Tensor>],
    at: i64,
    reversed: bool,
) -> Result<Tensor, NodeError> {
    let ctx = Ctx::new(node, &[], limits);
    let Some(first) = list.first() else {
        return Err(NodeError::Unsupported(
            "scan output of a loop without trips",
        ));
    };
    let at = axis(at, first.rank() + 1)?;
    let mut order: Vec<&Tensor> = list.iter().map(|tensor| &**tensor).collect();
    if reversed {
        order.reverse();
    }
    let mut shape = first.shape().to_vec();
    shape.insert(at, 1);
    let parts = order
        .into_iter()
        .map(|tensor| Ok(tensor.clone().with_shape(shape.clone())?))
        .collect::<Result<Vec<_>, NodeError>>()?;
    moves::concat(&ctx, &parts.iter().collect::<Vec<_>>(), at)
}

/// Numbers in `f64` as a tensor of a floating-point type.
pub(crate) fn floats(shape: Vec<usize>, values: &[f64], dtype: DType) -> Result<Tensor, NodeError> {
    fn list<T: Element>(values: &[f64]) -> Data {
        T::wrap(values.iter().map(|&x| T::from_f64(x)).collect())
    }
    let data = match dtype {
        DType::F64 => list::<f64>(values),
        DType::F16 => list::<half::f16>(values),
        _ => list::<f32>(values),
    };
    Ok(Tensor::from_data(shape, data)?)
}
