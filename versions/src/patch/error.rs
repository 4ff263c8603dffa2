//! Why a patch was refused.

use std::io;

use crate::digest::{Digest, Version};

/// Why a patch could not be made, read or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The bytes are no patch.
    #[error("it does not begin as a patch does; give a file that was made as a patch")]
    NoPatch,
    /// A later format.
    #[error("it is of format {found} and this program reads format {known}; update the program")]
    Format {
        /// Its format.
        found: u32,
        /// The only one that is read.
        known: u32,
    },
    /// The bytes end too early.
    #[error(
        "it has {found} bytes where its beginning asks for {needed}; it was cut on its way: fetch \
         it again"
    )]
    Cut {
        /// Bytes that there are.
        found: u64,
        /// Bytes that there should be.
        needed: u64,
    },
    /// There are bytes behind its end.
    #[error("{extra} bytes follow its end; fetch it again")]
    Trailing {
        /// How many.
        extra: u64,
    },
    /// It is not what was written.
    #[error("its checksum is {found} where it says {expected}; it was damaged: fetch it again")]
    Damaged {
        /// What it says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// It leads from another version.
    #[error(
        "it leads from version {expected}, and the one at hand is {found}; fetch a patch of this \
         one, or the whole new version"
    )]
    OtherOld {
        /// The version that it was made for.
        expected: Version,
        /// The version that was given.
        found: Version,
    },
    /// What came out is not what was announced.
    #[error(
        "it gave {found} where it announces {expected}; it was made wrongly: fetch the whole new \
         version"
    )]
    OtherNew {
        /// What it announces.
        expected: Version,
        /// What came out.
        found: Version,
    },
    /// A stream cannot be unpacked.
    #[error("its {stream} cannot be unpacked: {source}; fetch the whole new version")]
    Stream {
        /// Which.
        stream: &'static str,
        /// What the decoder says.
        source: io::Error,
    },
    /// A stream ends too early or too late.
    #[error("its {stream} do not end where they should; fetch the whole new version")]
    Length {
        /// Which.
        stream: &'static str,
    },
    /// An instruction makes no sense.
    #[error("its instruction {index} {what}; fetch the whole new version")]
    Instruction {
        /// Which, from 0.
        index: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// What came out could not be written.
    #[error("cannot write the new version: {source}; free space and try again")]
    Write {
        /// The writer's answer.
        source: io::Error,
    },
    /// A region that was given does not fit.
    #[error(
        "region {index} (old {old:?}, new {new:?}) {what}; regions lie within the versions, in the \
         order of the new one, without overlap, both parts of one length"
    )]
    Region {
        /// Which, from 0.
        index: usize,
        /// Its part of the old version.
        old: core::ops::Range<usize>,
        /// Its part of the new version.
        new: core::ops::Range<usize>,
        /// What is wrong.
        what: &'static str,
    },
    /// The compressor refused.
    #[error("cannot pack: {source}")]
    Pack {
        /// Its answer.
        source: io::Error,
    },
}
