//! Why a GGUF file was refused.

use alloc::string::String;

use super::block::TensorKind;
use crate::file::FileError;

/// Why a GGUF file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file is of another format.
    #[error("it begins with {} and not with `GGUF`; it is no GGUF file", found.escape_ascii())]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The file is of another version of the format.
    #[error(
        "it has version {found} of GGUF, and versions 2 and 3 in little-endian are read; write it \
         again with a current converter"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// The file ends too early.
    #[error(
        "{part} at byte {at} needs {needed} bytes and {found} are left; the file was cut or is \
         damaged: copy it again"
    )]
    Cut {
        /// What was being read.
        part: &'static str,
        /// Where.
        at: usize,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are left.
        found: usize,
    },
    /// A number of things that the file cannot hold.
    #[error(
        "it claims {claimed} {things} where {left} bytes are left; the file was cut or is damaged: \
         copy it again"
    )]
    Count {
        /// What is counted.
        things: &'static str,
        /// How many there should be.
        claimed: u64,
        /// Bytes that are left.
        left: usize,
    },
    /// A text is not UTF-8.
    #[error("{part} at byte {at} is not UTF-8; the file is damaged, or not GGUF")]
    Text {
        /// What was being read.
        part: &'static str,
        /// Where.
        at: usize,
    },
    /// A boolean is neither 0 nor 1.
    #[error("a boolean at byte {at} is {found}; expected 0 or 1")]
    Bool {
        /// Where.
        at: usize,
        /// The byte.
        found: u8,
    },
    /// A value of an unknown kind.
    #[error("the value of `{key}` has kind {found}; expected 0 to 12")]
    ValueKind {
        /// The key.
        key: String,
        /// The kind found.
        found: u32,
    },
    /// Arrays in arrays in arrays.
    #[error("the value of `{key}` has arrays in arrays deeper than four; it is no model file")]
    Depth {
        /// The key.
        key: String,
    },
    /// A key or a name that cannot be.
    #[error("a key or name has {bytes} bytes; expected 1 to 65535")]
    Name {
        /// Its length.
        bytes: usize,
    },
    /// Two values or two tensors have one name.
    #[error("`{name}` stands twice; give each value and each tensor a name of its own")]
    Twice {
        /// The name.
        name: String,
    },
    /// A shape that cannot be.
    #[error("tensor `{name}` has shape {shape:?}: {reason}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its row-major dimensions, as far as they were read.
        shape: Vec<usize>,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A kind of tensor that is not read.
    #[error(
        "tensor `{name}` is stored as kind {found} ({}); F32, F16, Q8_0 and Q4_0 are read: convert \
         it to one of them",
        TensorKind::name_of(*found)
    )]
    TensorKind {
        /// The tensor.
        name: String,
        /// The kind found.
        found: u32,
    },
    /// A tensor lies elsewhere than behind the one before.
    #[error(
        "tensor `{name}` claims to lie at byte {found} of the data where {expected} is expected; the \
         file is damaged: copy it again"
    )]
    Place {
        /// The tensor.
        name: String,
        /// Where it claims to be.
        found: u64,
        /// Where it must be.
        expected: usize,
    },
    /// The data end within a tensor.
    #[error(
        "tensor `{name}` needs {needed} bytes and {found} are left; the file was cut: copy it again"
    )]
    Short {
        /// The tensor.
        name: String,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that are left.
        found: usize,
    },
    /// What lies between tensors is not zero.
    #[error(
        "padding{} is not zero; the file is damaged: copy it again",
        before.as_ref().map_or_else(String::new, |name| format!(" before tensor `{name}`"))
    )]
    Padding {
        /// The tensor behind it, if one is.
        before: Option<String>,
    },
    /// More lies behind the last tensor than padding.
    #[error("{bytes} bytes lie behind the last tensor; the file is damaged: copy it again")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// An alignment that cannot be.
    #[error(
        "general.alignment is {found}; expected an unsigned 32-bit multiple of 8, at most 1048576"
    )]
    Alignment {
        /// What was found.
        found: String,
    },
    /// Stored bytes that are not the tensor's.
    #[error("tensor `{name}` was given {found} bytes; expected {expected} by its shape and kind")]
    Bytes {
        /// The tensor.
        name: String,
        /// Bytes given.
        found: usize,
        /// Bytes that its shape needs.
        expected: usize,
    },
    /// A number that cannot be stored so.
    #[error(
        "tensor `{name}` has a number at or behind index {index} that {} cannot hold; write it in F32 \
         if it is finite, and train again if not",
        kind.name()
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// The number, or the first of its block.
        index: usize,
        /// What it was to be stored as.
        kind: TensorKind,
    },
    /// The file holds no model of this program.
    #[error(
        "it has no `{key}`; it is a GGUF file of another program's model (architecture {architecture})"
    )]
    Missing {
        /// The key.
        key: &'static str,
        /// What the file says that it is.
        architecture: String,
    },
    /// The file is not the one that was written.
    #[error("it does not have the SHA-256 that it names; the file is damaged: copy it again")]
    Digest,
    /// The tensors are not those of the model.
    #[error("tensor `{name}` is {found} where its model has {expected}; the file is damaged")]
    Model {
        /// The tensor.
        name: String,
        /// What the file holds.
        found: String,
        /// What the model has.
        expected: String,
    },
    /// The model that it describes, or the one that was to be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Weights of four bits that the blocks of the format do not hold.
    #[error(
        "the weights in four bits cannot be written as blocks of Q4_0: {found}; expected int4 in \
         groups of 32, of a model whose products have no batch normalisation behind them"
    )]
    FourBits {
        /// What was found.
        found: String,
    },
}
