//! The operators of a plan for quantization-aware training, with the places of their operands.

use crate::kernel::{Activation, BatchNorm, Conv, Dense, Fused, Norm, Pool, Write};
use crate::plan::{Bytes, Route, Slot, Tensor};

/// Which scale and zero point a value has: first those of the points, then
/// those that dropouts leave.
pub(super) type ScaleId = usize;

/// A value as it is carried: one byte for each number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codes {
    pub(super) bytes: Bytes,
    pub(super) scale: ScaleId,
}

/// A point: a value with a range of its own.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// Its `[min, max]` in the flat vector.
    pub(super) range: Tensor,
    pub(super) scale: ScaleId,
}

/// What a rounding leaves for the backward pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// Whether the gradient goes on.
    pub(super) mask: Bytes,
    /// Where scales are learned: the point, and the derivative of each rounded number by its
    /// scale.
    pub(super) scale: Option<(usize, Slot)>,
}

/// The shape of a product.
#[derive(Clone, Debug)]
pub(super) enum Geometry {
    Dense(Dense),
    Conv(Conv),
}

impl Geometry {
    /// Output channels.
    pub(super) fn columns(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.outputs,
            Self::Conv(conv) => conv.shape().filters,
        }
    }

    /// Numbers of an example's output.
    pub(super) fn output_len(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.outputs,
            Self::Conv(conv) => conv.output_len(),
        }
    }

    /// Numbers of the weight.
    pub(super) fn weight_len(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.inputs * dense.outputs,
            Self::Conv(conv) => conv.weight_len(),
        }
    }
}

/// The batch normalisation after a product.
#[derive(Clone, Debug)]
pub(super) struct Folded {
    pub(super) geometry: BatchNorm,
    pub(super) gamma: Tensor,
    pub(super) beta: Tensor,
    pub(super) mean: Tensor,
    pub(super) variance: Tensor,
    pub(super) epsilon: f32,
}

/// A product with what is folded into it.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) geometry: Geometry,
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    pub(super) norm: Option<Folded>,
    pub(super) clamp: Fused,
    pub(super) x: ScaleId,
    /// The point of its own value.
    pub(super) point: usize,
    /// Whether the normalisation uses the statistics of the batch.
    pub(super) batch: bool,
    /// Whether the real numbers that the weight's integers stand for are wanted: for the gradient
    /// of the input, and by the twin.
    pub(super) real: bool,
}

/// A group normalisation.
#[derive(Clone, Debug)]
pub(super) struct Normalise {
    pub(super) geometry: Norm,
    pub(super) clamp: Fused,
    pub(super) x: Codes,
    /// Of the twin: its input and its output as real numbers.
    pub(super) real: Option<[Slot; 2]>,
    pub(super) point: usize,
    pub(super) y: Bytes,
    pub(super) marks: Option<Marks>,
    /// Mean and reciprocal deviation of each group.
    pub(super) stats: Slot,
    pub(super) scratch: Slot,
    pub(super) gamma: Tensor,
    pub(super) beta: Tensor,
}

/// One operator of the forward pass. `marks`, where there are some, are for the backward pass; a `real` is what the number was before it was rounded.
#[derive(Debug)]
pub(super) enum Forward {
    /// Real numbers become bytes, after a clamp.
    Seal {
        real: Slot,
        clamp: Fused,
        point: usize,
        y: Bytes,
        marks: Option<Marks>,
    },
    /// Bytes become real numbers.
    Open {
        x: Codes,
        to: Slot,
    },
    /// A product, requantized to its point.
    Product {
        product: usize,
        x: Codes,
        y: Bytes,
        marks: Option<Marks>,
    },
    /// A product whose sums become real numbers, without its clamp.
    RealProduct {
        product: usize,
        x: Codes,
        real: Slot,
    },
    /// A product of fake-quantized numbers: the numbers that the integers stand for, multiplied as real
    /// numbers, without its clamp.
    Fake {
        product: usize,
        x: Codes,
        open: Slot,
        padded: Option<Slot>,
        real: Slot,
    },
    /// Normalises the real numbers of a product by the statistics of the batch.
    BatchNorm {
        product: usize,
        x: Slot,
        y: Slot,
        stats: Slot,
    },
    MaxPool {
        geometry: Pool,
        x: Codes,
        /// Where the positions of the maxima are wanted, room for the numbers.
        real: Option<([Slot; 2], Bytes)>,
        y: Bytes,
    },
    AvgPool {
        geometry: Pool,
        x: Codes,
        real: Option<[Slot; 2]>,
        point: usize,
        y: Bytes,
        marks: Option<Marks>,
    },
    GlobalAvgPool {
        positions: usize,
        channels: usize,
        x: Codes,
        real: Option<[Slot; 2]>,
        point: usize,
        y: Bytes,
        marks: Option<Marks>,
    },
    Function {
        f: Activation,
        x: Codes,
        real: Option<Slot>,
        point: usize,
        y: Bytes,
        marks: Option<Marks>,
    },
    /// A clamp that is no other operator's.
    Clamp {
        clamp: Fused,
        x: Codes,
        y: Bytes,
        marks: Option<Marks>,
    },
    Add {
        first: Codes,
        second: Codes,
        clamp: Fused,
        real: Option<[Slot; 2]>,
        point: usize,
        y: Bytes,
        marks: Option<Marks>,
    },
    Dropout {
        keep: Bytes,
        x: Codes,
        y: Codes,
        /// What kept values are multiplied by.
        factor: f32,
    },
    Norm(Normalise),
    Embedding {
        size: usize,
        table: Tensor,
        y: Slot,
    },
}

/// One operator of the backward pass, on gradients of the numbers that the bytes stand for.
#[derive(Debug)]
pub(super) enum Backward {
    Route(Route),
    /// `dy = 0` where the mask is; before that, the gradient of the scale.
    Mask {
        marks: Marks,
        dy: Slot,
    },
    Product {
        product: usize,
        x: Codes,
        open: Slot,
        padded: Option<Slot>,
        dy: Slot,
        dx: Option<(Slot, Write)>,
        dx_scratch: Slot,
        dw_scratch: Slot,
        /// Room for the gradients of the folded weight and bias, and a sum for each output.
        fold: Option<Slot>,
    },
    /// `dy` becomes the gradient of the normalisation's input.
    BatchNorm {
        product: usize,
        x: Slot,
        stats: Slot,
        dy: Slot,
    },
    /// `dy *= f'(x)`
    Function {
        f: Activation,
        x: Codes,
        kept: Slot,
        dy: Slot,
    },
    Norm {
        geometry: Norm,
        x: Codes,
        open: Slot,
        stats: Slot,
        dy: Slot,
        dx: Option<Slot>,
        scratch: Slot,
        gamma: Tensor,
        beta: Tensor,
    },
    Embedding {
        size: usize,
        table: Tensor,
        dy: Slot,
    },
}

impl From<Route> for Backward {
    fn from(route: Route) -> Self {
        Self::Route(route)
    }
}
