//! What a trainer sees of a client's data: a view that fills batches, never a copy of the data.

use alloc::vec::Vec;

/// The shape and kind of one example's input.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum InputSpec {
    /// Real numbers of the given shape; images are `[height, width, channels]`.
    Real(Vec<usize>),
    /// `length` token ids, each below `vocabulary`.
    Tokens {
        /// Tokens in one example.
        length: usize,
        /// Number of distinct tokens.
        vocabulary: usize,
    },
}

impl InputSpec {
    /// Numbers in one example.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Real(shape) => shape.iter().product(),
            Self::Tokens { length, .. } => *length,
        }
    }

    /// Whether an example holds no numbers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The kind of one example's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TargetSpec {
    /// One of `classes` classes.
    Class {
        /// Number of classes.
        classes: usize,
    },
    /// One of `classes` classes at each of `length` positions, or [`NO_TARGET`].
    Sequence {
        /// Positions.
        length: usize,
        /// Number of classes.
        classes: usize,
    },
    /// `width` real numbers.
    Real {
        /// Numbers in one target.
        width: usize,
    },
}

/// Stands in a [`TargetSpec::Sequence`] where a position has no target: padding. It counts neither
/// in losses nor in accuracies.
pub const NO_TARGET: u32 = u32::MAX;

impl TargetSpec {
    /// Class labels of one example: none for real numbers.
    #[must_use]
    pub fn labels(&self) -> usize {
        match *self {
            Self::Class { .. } => 1,
            Self::Sequence { length, .. } => length,
            Self::Real { .. } => 0,
        }
    }
}

/// Where [`Examples::fill`] writes inputs: row-major, `[rows, input.len()]`.
#[derive(Debug)]
pub enum InputsMut<'a> {
    /// For [`InputSpec::Real`].
    Real(&'a mut [f32]),
    /// For [`InputSpec::Tokens`].
    Tokens(&'a mut [u32]),
}

/// Where [`Examples::fill`] writes targets.
#[derive(Debug)]
pub enum TargetsMut<'a> {
    /// For [`TargetSpec::Class`], `[rows]`, and for [`TargetSpec::Sequence`], `[rows, length]`.
    Classes(&'a mut [u32]),
    /// For [`TargetSpec::Real`]: row-major, `[rows, width]`.
    Real(&'a mut [f32]),
}

/// A client's examples, or an evaluation set.
///
/// Reading is by index and has no side effect, so a batch is a pure function of its indices.
pub trait Examples: Sync {
    /// Number of examples.
    fn len(&self) -> usize;

    /// Whether there are no examples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape and kind of an input; the same for every example.
    fn input(&self) -> &InputSpec;

    /// Kind of a target; the same for every example.
    fn target(&self) -> TargetSpec;

    /// Writes the examples at `rows` (each below `len`), in that order.
    ///
    /// The caller gives buffers of the right kind and of exactly the right length; an
    /// implementation may assume so.
    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>);

    /// All inputs as they would be filled, `[len, input.len()]`, where they already lie so in
    /// memory. Lets small models read rows without a copy.
    fn real_rows(&self) -> Option<&[f32]> {
        None
    }
}
