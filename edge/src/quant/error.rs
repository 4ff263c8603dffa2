//! What can be wrong with a quantization.

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
}
