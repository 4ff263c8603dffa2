//! What can be wrong with a program.

use alloc::string::String;

use crate::quant::QuantError;

/// Why a model cannot be served so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The parameters are those of another model.
    #[error(
        "the model has {expected} parameters and {found} were given; give one value for each \
         number of its layout"
    )]
    Parameters {
        /// Numbers of the layout.
        expected: usize,
        /// Numbers given.
        found: usize,
    },
    /// A parameter is not finite.
    #[error(
        "a parameter of `{tensor}` is {value}; only finite parameters can be served, so train \
         with a lower learning rate or take an earlier round"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
    },
    /// A weight is too large for a 16-bit float.
    #[error(
        "a weight of `{tensor}` is {value} as it is served (normalisations folded in), and a \
         16-bit float holds at most 65504; serve its layer in f32 or int8, or train with weight \
         decay"
    )]
    BeyondHalf {
        /// The tensor.
        tensor: String,
        /// The weight.
        value: f32,
    },
    /// The quantization does not fit the model.
    #[error("the quantization: {0}")]
    Quantization(#[from] QuantError),
    /// The quantization keeps a unit in floats that the model does not have.
    #[error(
        "the quantization keeps `{name}` in floats, and no unit of the model is called so; \
         units: {known}"
    )]
    UnknownUnit {
        /// The name.
        name: String,
        /// The units there are, printed.
        known: String,
    },
    /// The constants are not as long as the program's.
    #[error(
        "the constants have {found} bytes and the program needs {expected}; they were made for \
         another model, other numerics or other passes"
    )]
    Data {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The constants have another number of sections.
    #[error(
        "the constants have {found} sections and the program needs {expected}; they were made for \
         another model, other numerics or other passes"
    )]
    Sections {
        /// Sections needed.
        expected: usize,
        /// Sections given.
        found: usize,
    },
    /// A section is not what the program needs in its place.
    #[error(
        "section {index} of the constants is {found} and the program needs {expected}; they were \
         made for another model, other numerics or other passes"
    )]
    Section {
        /// Place in the table, counted from 0.
        index: usize,
        /// Name, type and shape needed, printed.
        expected: String,
        /// The same as found.
        found: String,
    },
    /// A section does not lie in the bytes.
    #[error(
        "section `{name}` lies at bytes {start} to {end} of {len}; the constants are cut short or \
         their table is wrong"
    )]
    Outside {
        /// The section.
        name: String,
        /// Its first byte.
        start: usize,
        /// The byte after its last.
        end: usize,
        /// Bytes there are.
        len: usize,
    },
    /// A section's length is not that of its shape.
    #[error(
        "section `{name}` has {found} bytes and its shape needs {expected}; its table is wrong"
    )]
    Length {
        /// The section.
        name: String,
        /// Bytes of its shape.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// A section's numbers do not lie at multiples of their size.
    #[error(
        "section `{name}` starts {offset} bytes after a multiple of {multiple} in memory; map the \
         file from its start, or copy the bytes with `Constants::copied`"
    )]
    Alignment {
        /// The section.
        name: String,
        /// Bytes after the multiple.
        offset: usize,
        /// Bytes of a number.
        multiple: usize,
    },
}
