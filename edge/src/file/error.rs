//! Why a model file was refused.

use alloc::string::String;

use crate::error::EdgeError;
use crate::program::ProgramError;

/// Why a model file could not be read or trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file ends before its header does.
    #[error(
        "it has {found} bytes and its header alone needs {needed}; it was cut, or it is no \
         SafeTensors file: copy it again"
    )]
    Cut {
        /// Bytes of the file.
        found: usize,
        /// Bytes that its beginning asks for.
        needed: u64,
    },
    /// The header claims to be larger than any that a writer makes.
    #[error(
        "its header claims {found} bytes and at most {most} are read; it is no model file of this \
         program"
    )]
    HeaderSize {
        /// Bytes claimed.
        found: u64,
        /// Bytes read at most.
        most: usize,
    },
    /// The header to be written is larger than any that is read.
    #[error(
        "the header to be written has {found} bytes and at most {most} are read; give the model \
         fewer tensors or shorter names"
    )]
    HeaderTooLong {
        /// Bytes of the header.
        found: usize,
        /// Bytes read at most.
        most: usize,
    },
    /// The header is empty.
    #[error(
        "its first eight bytes say that its header has 0 bytes; expected at least the two of \
         `{{}}`: it was never written or was wiped, so copy it again"
    )]
    NoHeader,
    /// The header does not begin with `{{`.
    #[error(
        "its header begins with byte {found:#04x} and not with `{{`; it is no SafeTensors file"
    )]
    NoObject {
        /// The first byte.
        found: u8,
    },
    /// A part of the header is not what it must be.
    #[error(
        "its {part} cannot be read: {source}; the file is damaged, or another program wrote it"
    )]
    Json {
        /// Which part.
        part: &'static str,
        /// What is wrong, and where in the part.
        source: serde_json::Error,
    },
    /// More tensors than a model has.
    #[error(
        "its header names {found} tensors and at most {most} are read; it is no model file of \
         this program"
    )]
    TooMany {
        /// Tensors found.
        found: usize,
        /// Tensors read at most.
        most: usize,
    },
    /// The place of a tensor does not follow from its type and shape.
    #[error(
        "tensor `{name}` lies at bytes {start} to {end} of the data where {expected}; the file is \
         damaged: copy it again"
    )]
    Place {
        /// The tensor.
        name: String,
        /// Its first byte within the data.
        start: u64,
        /// The byte behind its last one.
        end: u64,
        /// What must be there.
        expected: String,
    },
    /// The data are not as long as the tensors together.
    #[error(
        "its tensors need {expected} bytes of data and it holds {found}; it was cut or grew: copy it again"
    )]
    Length {
        /// Bytes that the tensors need.
        expected: u64,
        /// Bytes behind the header.
        found: u64,
    },
    /// The data do not begin at a multiple of the alignment.
    #[error(
        "its data begin at byte {start}, not at a multiple of {alignment}; another program wrote \
         it: make it again with `fledgling model convert`"
    )]
    Unaligned {
        /// Where the data begin.
        start: usize,
        /// What the start must be a multiple of.
        alignment: usize,
    },
    /// An entry of the metadata is missing.
    #[error(
        "its metadata have no `{key}`; it is a SafeTensors file, but no model file of this program"
    )]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// The file is of another version of the format.
    #[error(
        "it has format {found} and this program reads format {expected}; use the program that wrote it"
    )]
    Format {
        /// The format found.
        found: String,
        /// The format that is known.
        expected: &'static str,
    },
    /// A kind of file that is not known.
    #[error(
        "it holds a `{found}` where this program knows `parameters` and `program`; use the \
         program that wrote it"
    )]
    UnknownKind {
        /// The kind found.
        found: String,
    },
    /// The other kind of file is needed.
    #[error("it holds a {found} where {needed} are needed; {advice}")]
    Kind {
        /// What it holds.
        found: &'static str,
        /// What is needed.
        needed: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The header is not the one that was written.
    #[error(
        "its header does not have the SHA-256 that it names; the file is damaged: copy it again"
    )]
    Header,
    /// A section is not the one that was written.
    #[error(
        "section `{name}` does not have the SHA-256 that the header names; the file is damaged: copy it again"
    )]
    Section {
        /// The section.
        name: String,
    },
    /// The data are not those that were written.
    #[error(
        "its data do not have the SHA-256 that the header names; the file is damaged: copy it again"
    )]
    Data,
    /// The header has no checksum of a section.
    #[error("its header has no SHA-256 of section `{name}`; the file is damaged: copy it again")]
    NoChecksum {
        /// The section.
        name: String,
    },
    /// Padding is not zero.
    #[error("padding `{name}` is not zero; the file is damaged: copy it again")]
    Padding {
        /// The padding's name.
        name: String,
    },
    /// The model that the metadata describe cannot be.
    #[error("the model that it describes: {0}")]
    Model(#[from] EdgeError),
    /// The program that the metadata describe cannot be, or its sections are others.
    #[error("the program that it describes: {0}")]
    Program(#[from] ProgramError),
    /// The model that the metadata describe is larger than any that is read.
    #[error(
        "the model that it describes has {found} layers and at most {most} are read; it is no \
         model file of this program"
    )]
    Layers {
        /// Layers described.
        found: usize,
        /// Layers read at most.
        most: usize,
    },
    /// The tensors are not those of the model.
    #[error(
        "tensor `{name}` is {found} where its model has {expected}; the file is damaged: copy it \
         again"
    )]
    Tensor {
        /// The tensor.
        name: String,
        /// What the file holds.
        found: String,
        /// What the model has.
        expected: String,
    },
    /// The parameters are not those of the model.
    #[error("the parameters are not laid out as the model's: {0}")]
    Parameters(#[from] fl_core::ParametersError),
    /// The parameters to be written belong to another model.
    #[error(
        "the parameters to be written have another layout than the model; pass the model that they were trained with"
    )]
    OtherModel,
    /// A decimal of the definition does not read back.
    #[error(
        "a decimal of the model's definition does not read back as it was; write it with fewer digits"
    )]
    Decimals,
    /// The system refused to write.
    #[cfg(feature = "std")]
    #[error("{0}; check the disk")]
    Write(#[from] std::io::Error),
}
