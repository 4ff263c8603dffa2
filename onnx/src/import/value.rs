//! What a value of the file is in the native model.

use fl_edge::quant::QParams;

use crate::tensor::Tensor;

/// The native shape of a computed value, and how the file's tensor differs from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Natively `[height, width, channels]`; in the file too where `last`, else channels first.
    Image { size: [usize; 3], last: bool },
    /// Natively `[features]`; the file's tensor may have `ones` sizes of 1 behind that.
    Row {
        features: usize,
        /// An image of this size, flattened channels first in the file and last natively.
        order: Option<[usize; 3]>,
        ones: usize,
    },
    /// Natively `[length, features]`; the other way round in the file where `turned`.
    Sequence {
        length: usize,
        features: usize,
        turned: bool,
    },
    /// `[length]` whole numbers.
    Tokens { length: usize },
}

impl Form {
    pub(super) fn row(features: usize) -> Self {
        Self::Row {
            features,
            order: None,
            ones: 0,
        }
    }

    /// The sizes of the file's tensor, without the batch.
    pub(super) fn sizes(&self) -> Vec<usize> {
        match *self {
            Self::Image { size, last: true } => size.to_vec(),
            Self::Image {
                size: [height, width, channels],
                last: false,
            } => {
                vec![channels, height, width]
            }
            Self::Row { features, ones, .. } => {
                let mut sizes = vec![features];
                sizes.resize(1 + ones, 1);
                sizes
            }
            Self::Sequence {
                length,
                features,
                turned: false,
            } => vec![length, features],
            Self::Sequence {
                length,
                features,
                turned: true,
            } => vec![features, length],
            Self::Tokens { length } => vec![length],
        }
    }

    /// Channels, where each has a place of its own in the order of the file.
    pub(super) fn channels(&self) -> Option<usize> {
        match *self {
            Self::Image {
                size: [_, _, channels],
                ..
            } => Some(channels),
            Self::Row {
                features,
                order: None,
                ..
            } => Some(features),
            Self::Sequence { features, .. } => Some(features),
            Self::Row { order: Some(_), .. } | Self::Tokens { .. } => None,
        }
    }
}

/// A computed value: the layer that gives it, and its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub(super) layer: String,
    pub(super) form: Form,
}

/// How far a decomposed operator has come. All are made from one value `x`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// `factor * x`
    Scaled(f32),
    /// `erf(x / sqrt 2)`, and one more.
    Erf,
    OnePlusErf,
    /// Of a layer normalisation: the mean of each row, `x - mean`, its square, the variance,
    /// that with epsilon, its root.
    Mean,
    Centred,
    Squared,
    Variance,
    VarianceAnd(f32),
    Deviation(f32),
    /// `x` in so many groups of channels, `[batch, groups, rest]`.
    Grouped(usize),
    /// Normalised in groups (none for a layer normalisation) with this epsilon; scaled by gamma.
    Normal {
        groups: Option<usize>,
        epsilon: f32,
        gamma: Option<Vec<f32>>,
        grouped: bool,
    },
}

impl Part {
    /// What it is a part of, for messages.
    pub(super) fn whole(&self) -> &'static str {
        match self {
            Self::Scaled(_) | Self::Erf | Self::OnePlusErf => "a gelu",
            Self::Grouped(_)
            | Self::Normal {
                groups: Some(_), ..
            } => "a group normalisation",
            _ => "a layer normalisation",
        }
    }
}

/// A value of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Known.
    Constant(Tensor),
    /// Computed.
    Active(Active),
    /// Computed and rounded to eight bits.
    Quantized(Active, QParams),
    /// Inside a decomposed operator.
    Part(Active, Part),
}
