//! Patches: what leads from one version's bytes to another's.
//!
//! # What a patch is
//! A list of instructions: copy bytes of the old version, take bytes from the patch, or add
//! differences to numbers of the old version. Differences are what makes a patch of a model small:
//! between two rounds few weights of eight bits change, and those by little. They are kept as the
//! lengths of the runs of zeros between them and, apart from these, their values, which zstd packs
//! close to their entropy; a difference byte by byte would cost it at least one bit for each weight.
//! Of wider numbers the bytes of one place lie together.
//!
//! # The format, version 1
//! Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `FLPATCH` and a zero |
//! | 4 | the format's version |
//! | 40 | the old version: its length (8) and its SHA-256 |
//! | 40 | the new version, the same way |
//! | 7 times 16 | of each stream: its length, and how many bytes of it are stored |
//! | | the streams, one zstd frame each (none where it is empty), with a window of at most 256 KiB |
//! | 32 | SHA-256 of everything before |
//!
//! The streams are instructions; literal bytes; lengths of runs; and the first, second, third and
//! fourth byte of differences. An *instruction* is a byte, a length in bytes, and, but for kind 0,
//! the place in the old version as its distance from the end of the last one that was used. Kinds
//! are 0 (literal bytes), 1 (copy), and 2, 3 and 4 (differences of numbers of one, two and four
//! bytes). Lengths are LEB128; distances too, with their sign in the lowest bit (`0, -1, 1, -2 …` is
//! `0, 1, 2, 3 …`), and so are differences before they are cut into bytes. Within differences a run
//! of numbers that stay and a difference that is not zero follow one another until the instruction
//! is full, beginning with a run, of length zero if need be.
//!
//! # Trust
//! [`Patch::open`] finds any accidental damage by the last checksum. Against a patch that was made
//! to harm, lengths are checked before they are used, nothing is allocated by them, at most 256 KiB
//! are kept of each stream, and no more bytes come out than the patch has announced, which the caller
//! compares with what it can store. That a patch comes from whom it should is for signatures around
//! it to say.

mod apply;
mod error;
mod format;
#[cfg(feature = "make")]
mod make;

use core::ops::Range;

pub use error::PatchError;
pub use format::Patch;

/// How many bytes a number has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One: weights of eight bits, or anything else.
    Byte,
    /// Two: halves.
    Half,
    /// Four: floats, sums of 32 bits.
    Word,
}

impl Width {
    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }
}

/// A part of the old version that a part of the new one has come from, number by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it is in the old version.
    pub old: Range<usize>,
    /// Where it is in the new one, as many bytes.
    pub new: Range<usize>,
    /// What numbers they are.
    pub width: Width,
}

impl Region {
    /// Of single bytes.
    #[must_use]
    pub fn bytes(old: Range<usize>, new: Range<usize>) -> Self {
        Self {
            old,
            new,
            width: Width::Byte,
        }
    }

    /// For versions of which nothing is known: both ends together, since what is in front of a
    /// model's weights changes its length more often than they do.
    #[must_use]
    pub fn ends(old: usize, new: usize) -> Self {
        let common = old.min(new);
        Self::bytes(old - common..old, new - common..new)
    }
}
