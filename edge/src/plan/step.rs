//! The operators of a plan, with the places of their operands.

use super::{Bytes, Route, Slot, Tensor};
use crate::kernel::{
    Activation, Attention, BatchNorm, Conv, Dense, Fused, Norm, Pool, Recurrent, Write,
};

/// One operator of the forward pass.
#[derive(Debug)]
pub(crate) enum Forward {
    Dense {
        geometry: Dense,
        x: Slot,
        y: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
        fused: Fused,
    },
    Conv {
        geometry: Conv,
        x: Slot,
        /// Where the padded input goes, if it must be padded.
        padded: Option<Slot>,
        y: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
        fused: Fused,
    },
    MaxPool {
        geometry: Pool,
        x: Slot,
        y: Slot,
        argmax: Bytes,
    },
    AvgPool {
        geometry: Pool,
        x: Slot,
        y: Slot,
    },
    GlobalAvgPool {
        positions: usize,
        channels: usize,
        x: Slot,
        y: Slot,
    },
    Activate {
        f: Activation,
        x: Slot,
        y: Slot,
    },
    ActivateInPlace {
        f: Activation,
        y: Slot,
    },
    Copy {
        x: Slot,
        y: Slot,
    },
    Dropout {
        keep: Bytes,
        scale: f32,
        y: Slot,
    },
    Norm {
        geometry: Norm,
        x: Slot,
        y: Slot,
        stats: Slot,
        scratch: Slot,
        gamma: Tensor,
        beta: Tensor,
    },
    /// By the statistics of the batch, which go to `stats`.
    BatchNorm {
        geometry: BatchNorm,
        x: Slot,
        y: Slot,
        stats: Slot,
        gamma: Tensor,
        beta: Tensor,
        fused: Fused,
    },
    /// By the running statistics; `r` is scratch.
    RunningNorm {
        geometry: BatchNorm,
        epsilon: f32,
        x: Slot,
        y: Slot,
        r: Slot,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        variance: Tensor,
        fused: Fused,
    },
    Embedding {
        size: usize,
        table: Tensor,
        y: Slot,
    },
    Add {
        x: Slot,
        y: Slot,
    },
    /// `gates` are the layer's input and become the gates' values.
    Recurrent {
        geometry: Recurrent,
        gates: Slot,
        y: Slot,
        kept: Slot,
        scratch: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
    },
    Attention {
        geometry: Attention,
        x: Slot,
        y: Slot,
        probabilities: Slot,
        scratch: Slot,
    },
    Last {
        positions: usize,
        channels: usize,
        x: Slot,
        y: Slot,
    },
    /// `y = y + table`
    Position {
        table: Tensor,
        y: Slot,
    },
}

/// One operator of the backward pass.
#[derive(Clone, Debug)]
pub(crate) enum Backward {
    Route(Route),
    Dense {
        geometry: Dense,
        x: Slot,
        dy: Slot,
        dx: Option<(Slot, Write)>,
        scratch: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
    },
    Conv {
        geometry: Conv,
        x: Slot,
        dy: Slot,
        dx: Option<(Slot, Write)>,
        dx_scratch: Slot,
        dw_scratch: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
    },
    /// `dy *= f'` in place.
    Activate {
        f: Activation,
        kept: Slot,
        dy: Slot,
    },
    Norm {
        geometry: Norm,
        x: Slot,
        stats: Slot,
        dy: Slot,
        dx: Option<Slot>,
        scratch: Slot,
        gamma: Tensor,
        beta: Tensor,
    },
    /// `dy` becomes `dx` in place, where that is asked for.
    BatchNorm {
        geometry: BatchNorm,
        x: Slot,
        stats: Slot,
        dy: Slot,
        dx: bool,
        gamma: Tensor,
        beta: Tensor,
        fused: Fused,
    },
    Embedding {
        size: usize,
        table: Tensor,
        dy: Slot,
    },
    /// The gates' values become their gradients.
    Recurrent {
        geometry: Recurrent,
        gates: Slot,
        y: Slot,
        kept: Slot,
        previous: Slot,
        dy: Slot,
        scratch: Slot,
        weight: Tensor,
        bias: Option<Tensor>,
    },
    Attention {
        geometry: Attention,
        x: Slot,
        probabilities: Slot,
        dy: Slot,
        dx: Slot,
        scratch: Slot,
    },
    Position {
        table: Tensor,
        dy: Slot,
    },
}

impl From<Route> for Backward {
    fn from(route: Route) -> Self {
        Self::Route(route)
    }
}
