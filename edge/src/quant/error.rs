//! What can be wrong with a quantization.

use alloc::string::String;

/// Why numbers cannot be quantized so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// A scale that is no scale.
    #[error(
        "the scale is {0}; expected a positive normal f32, such as (max - min) / 255 of the values"
    )]
    Scale(f32),
    /// A point of the model has no scale.
    #[error(
        "the quantization has no scale for `{name}`; calibrate this model, or list the unit in \
         `float_units`"
    )]
    Point {
        /// The point.
        name: String,
    },
    /// A number of a calibration method outside of its range.
    #[error("`{key}` of the calibration is {value}; it must be {range}")]
    Method {
        /// The key.
        key: &'static str,
        /// The value, printed.
        value: String,
        /// The range in words.
        range: &'static str,
    },
    /// The model computes numbers that have no range.
    #[error(
        "a value of `{point}` is infinite or not a number; the model has diverged, or the samples \
         are not its inputs"
    )]
    NonFinite {
        /// Where it was seen.
        point: String,
    },
    /// The method counts histograms, and they have not been counted.
    #[error("the samples were shown once and the method needs two passes; show them again")]
    Unfinished,
    /// Bins of histograms that cannot be.
    #[error(
        "bins from 2^{lowest} to 2^{highest} with 2^{divisions} to an octave; expected -126 <= \
         lowest < highest <= 127 and at most 10 divisions"
    )]
    Bins {
        /// Exponent of the smallest magnitude.
        lowest: i32,
        /// Exponent of the largest magnitude.
        highest: i32,
        /// Binary logarithm of the bins of an octave.
        divisions: u32,
    },
    /// A sum of clients' counts that is none.
    #[error(
        "the summed histograms are no counts: {given} numbers for {expected} bins, or a negative \
         one; sum what all clients made with the same points and bins"
    )]
    Counts {
        /// Bins of all points.
        expected: usize,
        /// Numbers given.
        given: usize,
    },
    /// The method depends on the order of samples.
    #[error(
        "a moving average depends on an order of batches, and clients have none; calibrate with \
         min-max, percentile or entropy"
    )]
    NotPooled,
    /// No samples to calibrate on.
    #[error("there are no samples; give some, 256 are usual")]
    NoSamples,
    /// A sample that the data do not have.
    #[error("sample {row} is wanted of {rows} examples; they are counted from 0")]
    Row {
        /// The example.
        row: u32,
        /// Examples there are.
        rows: usize,
    },
    /// The samples are not inputs of the model.
    #[error("the samples are {given} and the model takes {expected}; give samples of its data")]
    Input {
        /// What the model takes, printed.
        expected: String,
        /// What was given, printed.
        given: String,
    },
    /// A token outside of the vocabulary.
    #[error(
        "a sample holds token {token} and the model knows {vocabulary}; give samples of its data"
    )]
    Token {
        /// The token.
        token: u32,
        /// Tokens of the model.
        vocabulary: usize,
    },
    /// A group of weights of four bits that is none.
    #[error("a group of {group} weights; expected a power of two from 16 to {most}, such as 64")]
    Group {
        /// The group.
        group: usize,
        /// The largest.
        most: usize,
    },
    /// A scale that no 16-bit float holds.
    #[error(
        "a group of weights of `{tensor}` needs a scale of {value} as it is served (normalisations \
         folded in), and a 16-bit float holds at most 65504; keep its layer in f32, or train with \
         weight decay"
    )]
    GroupScale {
        /// The tensor.
        tensor: String,
        /// The scale.
        value: f32,
    },
    /// A weight in four bits that is not the model's.
    #[error(
        "the weight `{name}` in four bits is {found:?} and the model has {expected:?} terms and \
         columns, or its code or group is not that of the format; make it for this model"
    )]
    Foreign {
        /// The tensor.
        name: String,
        /// Its terms and columns.
        found: [usize; 2],
        /// Those of the model.
        expected: [usize; 2],
    },
    /// A weight in four bits that the model does not have.
    #[error("there is a weight `{name}` in four bits and the model has none of that name")]
    UnknownTensor {
        /// The tensor.
        name: String,
    },
    /// A damping that is none.
    #[error("the damping is {value}; expected a finite number above 0, such as 0.01")]
    Damping {
        /// The damping.
        value: f64,
    },
    /// Second moments that are not positive definite.
    #[error(
        "the second moments of the inputs of `{tensor}` are not positive definite; raise the \
         damping, or give more samples"
    )]
    Moments {
        /// The weight.
        tensor: String,
    },
}
