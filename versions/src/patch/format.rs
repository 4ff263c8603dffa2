//! The container of a patch: what stands around its streams.

use super::error::PatchError;
use crate::digest::{Digest, Version};

pub(super) const MAGIC: [u8; 8] = *b"FLPATCH\0";
pub(super) const FORMAT: u32 = 1;
/// `log2` of the longest window of a stream.
pub(super) const WINDOW_LOG: u32 = 18;

/// What the streams hold, in their order.
pub(super) const STREAMS: [&str; 7] = [
    "instructions",
    "literal bytes",
    "runs",
    "first bytes of differences",
    "second bytes of differences",
    "third bytes of differences",
    "fourth bytes of differences",
];
pub(super) const INSTRUCTIONS: usize = 0;
pub(super) const LITERALS: usize = 1;
pub(super) const RUNS: usize = 2;
/// The first of four.
pub(super) const PLANES: usize = 3;

/// Bytes before the streams.
pub(super) const HEADER: usize = 8 + 4 + 2 * VERSION + 16 * STREAMS.len();
/// Bytes behind them.
pub(super) const CHECKSUM: usize = 32;
const VERSION: usize = 8 + 32;

/// One stream as it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a> {
    /// Bytes that come out of it.
    pub(super) length: u64,
    /// A zstd frame, or nothing.
    pub(super) packed: &'a [u8],
}

/// A patch that has passed its checksum; see [`Patch::apply`].
#[derive(Clone, Debug)]
pub struct Patch<'a> {
    pub(super) old: Version,
    pub(super) new: Version,
    pub(super) streams: [Stored<'a>; STREAMS.len()],
}

impl<'a> Patch<'a> {
    /// Whether `bytes` begin as a patch does.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Reads a patch and compares it with its checksum.
    ///
    /// # Errors
    /// [`PatchError::NoPatch`], [`PatchError::Format`], [`PatchError::Cut`],
    /// [`PatchError::Trailing`] or [`PatchError::Damaged`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, PatchError> {
        if !Self::is_one(bytes) {
            return Err(PatchError::NoPatch);
        }
        let found = bytes.len() as u64;
        let cut = |needed: u64| PatchError::Cut { found, needed };
        let least = (HEADER + CHECKSUM) as u64;
        let mut rest = Reader(bytes);
        let header = (|| {
            rest.array::<8>()?;
            let format = u32::from_le_bytes(rest.array()?);
            let old = rest.version()?;
            let new = rest.version()?;
            let mut table = [(0, 0); STREAMS.len()];
            for row in &mut table {
                *row = (rest.number()?, rest.number()?);
            }
            Some((format, old, new, table))
        })();
        // The format comes first: a later one may be shorter.
        let (format, old, new, table) = header.ok_or(cut(least))?;
        if format != FORMAT {
            return Err(PatchError::Format {
                found: format,
                known: FORMAT,
            });
        }
        let needed = table
            .iter()
            .try_fold(least, |sum, &(_, packed)| sum.checked_add(packed))
            .ok_or(cut(u64::MAX))?;
        if found < needed {
            return Err(cut(needed));
        }
        if found > needed {
            return Err(PatchError::Trailing {
                extra: found - needed,
            });
        }
        let mut streams = [Stored {
            length: 0,
            packed: &[],
        }; STREAMS.len()];
        for (stream, (length, packed)) in streams.iter_mut().zip(table) {
            let packed = rest.bytes(packed).ok_or(cut(needed))?;
            *stream = Stored { length, packed };
        }
        let expected = Digest(rest.array().ok_or(cut(needed))?);
        let checked = bytes.len() - CHECKSUM;
        let found = Digest::of(bytes.get(..checked).unwrap_or_default());
        if found != expected {
            return Err(PatchError::Damaged { expected, found });
        }
        Ok(Self { old, new, streams })
    }

    /// The version that it leads from.
    #[must_use]
    pub fn old_version(&self) -> Version {
        self.old
    }

    /// The version that it leads to, as it announces.
    #[must_use]
    pub fn new_version(&self) -> Version {
        self.new
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn version(&mut self) -> Option<Version> {
        let bytes = self.number()?;
        let digest = Digest(self.array()?);
        Some(Version { digest, bytes })
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}
