//! The operators of a program, with the places of their operands.

#[cfg(feature = "describe")]
use crate::kernel::Cell;
use crate::kernel::int8::{Add, Affine, Rescale, Side};
use crate::kernel::{
    Activation, Attention, BatchNorm, Conv, Dense, Fused, Norm, Pool, Recurrent, WeightKind,
};

/// Index of a buffer.
pub(crate) type Slot = usize;

/// The buffer that is the caller's input.
pub(crate) const INPUT: Slot = 0;

/// Index of a section of the constants.
pub(crate) type Constant = usize;

/// The reciprocal deviations of a batch normalisation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Factor {
    /// Computed when the program was made.
    Constant(Constant),
    /// Computed by the step before.
    Buffer(Slot),
}

/// Weights that were packed when the program was made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weight {
    /// `f32`.
    Single(Constant),
    /// binary16.
    Half(Constant),
    /// Codes of four bits.
    Four(StoredFour),
    /// Codes of eight bits: filters of one channel each.
    Eight(StoredEight),
}

impl Weight {
    /// How they are stored.
    pub(crate) fn kind(self) -> WeightKind {
        match self {
            Self::Single(_) => WeightKind::Single,
            Self::Half(_) => WeightKind::Half,
            Self::Four(_) => WeightKind::Four,
            Self::Eight(_) => WeightKind::Eight,
        }
    }
}

/// See [`Nibbles`](crate::kernel::Nibbles).
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredFour {
    pub(crate) codes: Constant,
    pub(crate) scales: Constant,
    pub(crate) levels: StoredLevels,
    pub(crate) group: usize,
}

/// See [`Octets`](crate::kernel::Octets).
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredEight {
    pub(crate) codes: Constant,
    pub(crate) scales: Constant,
}

/// See [`Levels`](crate::kernel::Levels).
#[derive(Clone, Copy, Debug)]
pub(crate) enum StoredLevels {
    Middle,
    Zeros(Constant),
    /// That of NF4.
    Table,
}

/// What follows a product over packed weights: see [`After`](crate::kernel::After).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) first: Fused,
    pub(crate) residual: Option<Slot>,
    pub(crate) last: Fused,
}

/// What follows a product of integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntEnd {
    pub(crate) multipliers: Constant,
    pub(crate) zero_point: u8,
    pub(crate) to: Rescale,
    pub(crate) residual: Option<IntResidual>,
}

/// An addition fused into a product of integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntResidual {
    pub(crate) add: Add,
    pub(crate) side: Side,
    pub(crate) other: Slot,
}

/// One operator.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Dense {
        geometry: Dense,
        x: Slot,
        y: Slot,
        weight: Constant,
        bias: Option<Constant>,
        fused: Fused,
    },
    Pad {
        geometry: Conv,
        x: Slot,
        y: Slot,
    },
    /// `x` is padded where the geometry asks for it.
    Conv {
        geometry: Conv,
        x: Slot,
        y: Slot,
        weight: Constant,
        bias: Option<Constant>,
        fused: Fused,
    },
    /// Over packed weights.
    ServedDense {
        geometry: Dense,
        x: Slot,
        y: Slot,
        weight: Weight,
        bias: Option<Constant>,
        after: Served,
        /// Where weights need one.
        scratch: Option<Slot>,
    },
    /// Over packed weights and an input without padding.
    ServedConv {
        geometry: Conv,
        x: Slot,
        y: Slot,
        weight: Weight,
        bias: Option<Constant>,
        after: Served,
        scratch: Slot,
    },
    /// `y` is the input too.
    ServedConvInPlace {
        geometry: Conv,
        y: Slot,
        weight: Weight,
        bias: Option<Constant>,
        after: Served,
        scratch: Slot,
    },
    MaxPool {
        geometry: Pool,
        x: Slot,
        y: Slot,
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
    Norm {
        geometry: Norm,
        x: Slot,
        y: Slot,
        stats: Slot,
        scratch: Slot,
        gamma: Constant,
        beta: Constant,
    },
    /// `y` is the input too.
    NormInPlace {
        geometry: Norm,
        y: Slot,
        stats: Slot,
        scratch: Slot,
        gamma: Constant,
        beta: Constant,
    },
    /// `r = 1 / sqrt(variance + epsilon)`
    BatchNormFactor {
        epsilon: f32,
        variance: Constant,
        r: Slot,
    },
    BatchNorm {
        geometry: BatchNorm,
        x: Slot,
        y: Slot,
        mean: Constant,
        r: Factor,
        gamma: Constant,
        beta: Constant,
        fused: Fused,
    },
    Embedding {
        size: usize,
        table: Weight,
        y: Slot,
    },
    /// `y = x`
    Copy {
        x: Slot,
        y: Slot,
    },
    /// `y = y + x`
    Add {
        x: Slot,
        y: Slot,
    },
    /// `y = 2 y`
    Double {
        y: Slot,
    },
    /// `gates` are read and overwritten.
    Recurrent {
        geometry: Recurrent,
        gates: Slot,
        y: Slot,
        kept: Slot,
        scratch: Slot,
        weight: Constant,
        bias: Option<Constant>,
    },
    /// The same over a packed weight.
    ServedRecurrent {
        geometry: Recurrent,
        gates: Slot,
        y: Slot,
        kept: Slot,
        scratch: Slot,
        weight: Weight,
        bias: Option<Constant>,
        /// A block of weights of four bits.
        block: Option<Slot>,
    },
    /// The same with the product of the state in integers.
    IntRecurrent {
        geometry: Recurrent,
        gates: Slot,
        y: Slot,
        kept: Slot,
        scratch: Slot,
        /// Of the state.
        point: Affine,
        /// Packed weight, folded zero point, what a sum's step is worth.
        weight: [Constant; 3],
        bias: Option<Constant>,
        codes: Slot,
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
        table: Constant,
        y: Slot,
    },
    /// The same over a table in four bits, whose rows have `size` numbers.
    PositionFour {
        size: usize,
        table: StoredFour,
        y: Slot,
    },
    Quantize {
        x: Slot,
        y: Slot,
        to: Affine,
    },
    Dequantize {
        x: Slot,
        y: Slot,
        from: Affine,
    },
    IntDense {
        geometry: Dense,
        x: Slot,
        y: Slot,
        weight: Constant,
        bias: Constant,
        end: IntEnd,
    },
    IntConv {
        geometry: Conv,
        x: Slot,
        y: Slot,
        zero_point: u8,
        weight: Constant,
        bias: Constant,
        end: IntEnd,
        scratch: Slot,
    },
    IntMaxPool {
        geometry: Pool,
        x: Slot,
        y: Slot,
    },
    IntAvgPool {
        geometry: Pool,
        x: Slot,
        y: Slot,
        from: Affine,
        to: Affine,
    },
    IntGlobalAvgPool {
        positions: usize,
        channels: usize,
        x: Slot,
        y: Slot,
        from: Affine,
        to: Affine,
    },
    IntLast {
        positions: usize,
        channels: usize,
        x: Slot,
        y: Slot,
    },
    IntAdd {
        add: Add,
        x: Slot,
        other: Slot,
        y: Slot,
    },
    Table {
        table: Constant,
        x: Slot,
        y: Slot,
    },
    /// `y = clamp(y)`
    IntClamp {
        to: Rescale,
        y: Slot,
    },
    IntNorm {
        geometry: Norm,
        x: Slot,
        y: Slot,
        from: Affine,
        affine: Affine,
        to: Rescale,
        gamma: Constant,
        beta: Constant,
        scratch: Slot,
    },
    /// A batch normalisation by running statistics.
    Rescale {
        x: Slot,
        y: Slot,
        a: Constant,
        b: Constant,
        to: Rescale,
    },
    IntEmbedding {
        size: usize,
        table: Constant,
        y: Slot,
    },
}

impl Step {
    /// Whether this build has its kernels: features say which.
    pub(crate) fn is_built(&self) -> bool {
        let stored = |weight: Weight| match weight {
            Weight::Single(_) => cfg!(feature = "float32"),
            Weight::Half(_) => cfg!(feature = "float16"),
            Weight::Four(_) | Weight::Eight(_) => cfg!(feature = "int4"),
        };
        match *self {
            Self::Dense { .. } | Self::Pad { .. } | Self::Conv { .. } | Self::Recurrent { .. } => {
                cfg!(feature = "unpacked")
            }
            Self::ServedDense { weight, .. }
            | Self::ServedConv { weight, .. }
            | Self::ServedConvInPlace { weight, .. } => stored(weight),
            Self::Embedding {
                table: Weight::Four(_),
                ..
            }
            | Self::PositionFour { .. } => cfg!(feature = "int4"),
            Self::ServedRecurrent { weight, .. } => cfg!(feature = "sequences") && stored(weight),
            Self::Attention { .. } => cfg!(feature = "sequences"),
            Self::IntRecurrent { .. } => cfg!(feature = "sequences") && cfg!(feature = "int8"),
            Self::Quantize { .. }
            | Self::Dequantize { .. }
            | Self::IntDense { .. }
            | Self::IntConv { .. }
            | Self::IntMaxPool { .. }
            | Self::IntAvgPool { .. }
            | Self::IntGlobalAvgPool { .. }
            | Self::IntLast { .. }
            | Self::IntAdd { .. }
            | Self::Table { .. }
            | Self::IntClamp { .. }
            | Self::IntNorm { .. }
            | Self::Rescale { .. }
            | Self::IntEmbedding { .. } => cfg!(feature = "int8"),
            _ => true,
        }
    }

    /// The operator's name, for tables.
    #[cfg(feature = "describe")]
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Dense { .. } | Self::ServedDense { .. } => "dense",
            Self::IntDense { .. } => "int8 dense",
            Self::Pad { .. } => "pad",
            Self::Conv { .. } | Self::ServedConv { .. } | Self::ServedConvInPlace { .. } => {
                "conv2d"
            }
            Self::IntConv { .. } => "int8 conv2d",
            Self::IntMaxPool { .. } => "int8 max-pool",
            Self::IntAvgPool { .. } => "int8 avg-pool",
            Self::IntGlobalAvgPool { .. } => "int8 global-avg-pool",
            Self::IntLast { .. } => "int8 last",
            Self::IntAdd { .. } => "int8 add",
            Self::Table { .. } => "int8 table",
            Self::IntClamp { .. } => "int8 clamp",
            Self::IntNorm { .. } => "int8 norm",
            Self::Rescale { .. } => "int8 batch-norm",
            Self::IntEmbedding { .. } => "int8 embedding",
            Self::Quantize { .. } => "quantize",
            Self::Dequantize { .. } => "dequantize",
            Self::MaxPool { .. } => "max-pool",
            Self::AvgPool { .. } => "avg-pool",
            Self::GlobalAvgPool { .. } => "global-avg-pool",
            Self::Activate { .. } | Self::ActivateInPlace { .. } => "activation",
            Self::Norm { .. } | Self::NormInPlace { .. } => "norm",
            Self::BatchNormFactor { .. } | Self::BatchNorm { .. } => "batch-norm",
            Self::Embedding { .. } => "embedding",
            Self::Recurrent { geometry, .. } | Self::ServedRecurrent { geometry, .. } => {
                match geometry.cell() {
                    Cell::Lstm => "lstm",
                    Cell::Gru => "gru",
                }
            }
            Self::IntRecurrent { geometry, .. } => match geometry.cell() {
                Cell::Lstm => "int8 lstm",
                Cell::Gru => "int8 gru",
            },
            Self::Attention { .. } => "attention",
            Self::Last { .. } => "last",
            Self::Position { .. } | Self::PositionFour { .. } => "position",
            Self::Copy { .. } => "copy",
            Self::Add { .. } | Self::Double { .. } => "add",
        }
    }
}
