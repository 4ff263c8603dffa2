//! A patch applied.

use std::io::{self, Read as _, Write};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::error::PatchError;
use super::format::{INSTRUCTIONS, LITERALS, PLANES, Patch, RUNS, STREAMS, Stored, WINDOW_LOG};
use crate::digest::{Hashing, Version};

/// Bytes that are unpacked, and written, at once.
const PIECE: usize = 1 << 14;

impl Patch<'_> {
    /// Writes the new version, given all of the old one. The caller throws away what was written when
    /// it is an error. Beside `old`, memory is at most about 3 MiB, whatever the patch says.
    ///
    /// # Errors
    /// [`PatchError::OtherOld`] before anything is written; [`PatchError::OtherNew`] and all others
    /// that speak of streams and instructions for a patch that was made wrongly;
    /// [`PatchError::Write`].
    pub fn apply(&self, old: &[u8], out: &mut dyn Write) -> Result<(), PatchError> {
        let found = Version::of(old);
        if found != self.old {
            return Err(PatchError::OtherOld {
                expected: self.old,
                found,
            });
        }
        let mut work = Work {
            old,
            cursor: 0,
            left: self.new.bytes,
            streams: Streams::open(&self.streams)?,
            out: Hashing::new(out),
            piece: Vec::with_capacity(PIECE + 8),
        };
        let mut index = 0;
        while work.streams.left(INSTRUCTIONS) > 0 {
            work.instruction(index)?;
            index += 1;
        }
        work.flush()?;
        work.streams.finish()?;
        let (_, found) = work.out.finish();
        if found == self.new {
            Ok(())
        } else {
            Err(PatchError::OtherNew {
                expected: self.new,
                found,
            })
        }
    }
}

struct Work<'p, 'o> {
    old: &'o [u8],
    /// The end of the last part of `old` that was used.
    cursor: u64,
    /// Bytes of the new version that are still to come.
    left: u64,
    streams: Streams<'p>,
    out: Hashing<&'o mut dyn Write>,
    /// Bytes to be written.
    piece: Vec<u8>,
}

impl Work<'_, '_> {
    fn instruction(&mut self, index: u64) -> Result<(), PatchError> {
        let refuse = |what| PatchError::Instruction { index, what };
        let [kind] = self.streams.take::<1>(INSTRUCTIONS)?;
        let length = self.streams.number(INSTRUCTIONS)?;
        self.left = self
            .left
            .checked_sub(length)
            .ok_or_else(|| refuse("gives more bytes than the new version has"))?;
        if kind == 0 {
            for _ in 0..length {
                let byte = self.streams.take::<1>(LITERALS)?;
                self.put(byte)?;
            }
            return Ok(());
        }
        let distance = signed(self.streams.number(INSTRUCTIONS)?);
        let outside = || refuse("reads outside of the old version");
        let start = self
            .cursor
            .checked_add_signed(distance)
            .ok_or_else(outside)?;
        self.cursor = start.checked_add(length).ok_or_else(outside)?;
        let part = usize::try_from(start)
            .ok()
            .zip(usize::try_from(self.cursor).ok())
            .and_then(|(start, end)| self.old.get(start..end))
            .ok_or_else(outside)?;
        let done = match kind {
            1 => return self.copy(part),
            2 => self.differences::<1>(part)?,
            3 => self.differences::<2>(part)?,
            4 => self.differences::<4>(part)?,
            _ => return Err(refuse("is of no known kind")),
        };
        done.then_some(())
            .ok_or_else(|| refuse("has a run that is longer than itself, or half a number"))
    }

    /// Whether the runs and the numbers fit.
    fn differences<const W: usize>(&mut self, part: &[u8]) -> Result<bool, PatchError> {
        let (mut numbers, rest) = part.as_chunks::<W>();
        if !rest.is_empty() {
            return Ok(false);
        }
        while !numbers.is_empty() {
            let run = usize::try_from(self.streams.number(RUNS)?).ok();
            let Some((same, others)) = run.and_then(|run| numbers.split_at_checked(run)) else {
                return Ok(false);
            };
            self.copy(same.as_flattened())?;
            let Some((number, others)) = others.split_first() else {
                break;
            };
            let mut difference = [0; W];
            for (plane, byte) in difference.iter_mut().enumerate() {
                [*byte] = self.streams.take(PLANES + plane)?;
            }
            self.put(add(*number, difference))?;
            numbers = others;
        }
        Ok(true)
    }

    fn copy(&mut self, bytes: &[u8]) -> Result<(), PatchError> {
        if self.piece.len() + bytes.len() <= PIECE {
            self.piece.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        let write = |source| PatchError::Write { source };
        self.out.write_all(bytes).map_err(write)
    }

    fn put<const W: usize>(&mut self, bytes: [u8; W]) -> Result<(), PatchError> {
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        self.piece.extend_from_slice(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PatchError> {
        let write = |source| PatchError::Write { source };
        self.out.write_all(&self.piece).map_err(write)?;
        self.piece.clear();
        Ok(())
    }
}

/// A number plus a difference whose sign is in its lowest bit, modulo `2^(8 W)`.
fn add<const W: usize>(number: [u8; W], difference: [u8; W]) -> [u8; W] {
    let wide = |bytes: [u8; W]| {
        let mut all = [0; 4];
        for (to, from) in all.iter_mut().zip(bytes) {
            *to = from;
        }
        u32::from_le_bytes(all)
    };
    let zigzag = wide(difference);
    let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
    let sum = wide(number).wrapping_add(difference).to_le_bytes();
    let mut bytes = [0; W];
    bytes.iter_mut().zip(sum).for_each(|(to, from)| *to = from);
    bytes
}

fn signed(zigzag: u64) -> i64 {
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}

/// The streams being unpacked.
struct Streams<'a>([Unpacking<'a>; STREAMS.len()]);

struct Unpacking<'a> {
    /// None once all of it is in `ready`.
    decoder: Option<StreamingDecoder<&'a [u8], FrameDecoder>>,
    /// Bytes that are still to come out, those that are ready among them.
    left: u64,
    ready: Vec<u8>,
    /// How many of `ready` were taken.
    taken: usize,
}

impl<'a> Streams<'a> {
    fn open(stored: &[Stored<'a>; STREAMS.len()]) -> Result<Self, PatchError> {
        let mut streams = Vec::with_capacity(STREAMS.len());
        for (stored, stream) in stored.iter().zip(STREAMS) {
            let decoder = match (stored.length, stored.packed) {
                (0, []) => None,
                (0, _) => return Err(PatchError::Length { stream }),
                (_, packed) => {
                    let decoder =
                        StreamingDecoder::new_with_max_window_size(packed, 1 << WINDOW_LOG);
                    let decoder = decoder.map_err(|source| PatchError::Stream {
                        stream,
                        source: io::Error::other(source),
                    })?;
                    Some(decoder)
                }
            };
            streams.push(Unpacking {
                decoder,
                left: stored.length,
                ready: Vec::new(),
                taken: 0,
            });
        }
        let streams = <[Unpacking<'a>; STREAMS.len()]>::try_from(streams);
        streams
            .map(Self)
            .map_err(|_| PatchError::Length { stream: "streams" })
    }

    fn left(&self, stream: usize) -> u64 {
        self.0.get(stream).map_or(0, |stream| stream.left)
    }

    fn take<const N: usize>(&mut self, stream: usize) -> Result<[u8; N], PatchError> {
        let name = STREAMS.get(stream).copied().unwrap_or_default();
        let short = || PatchError::Length { stream: name };
        let unpacking = self.0.get_mut(stream).ok_or_else(short)?;
        let mut taken = [0; N];
        for byte in &mut taken {
            *byte = unpacking
                .next()
                .map_err(|source| PatchError::Stream {
                    stream: name,
                    source,
                })?
                .ok_or_else(short)?;
        }
        Ok(taken)
    }

    /// LEB128, at most ten bytes.
    fn number(&mut self, stream: usize) -> Result<u64, PatchError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take(stream)?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte < 0x80 && (shift < 63 || bits < 2) {
                return Ok(number);
            }
        }
        let stream = STREAMS.get(stream).copied().unwrap_or_default();
        Err(PatchError::Length { stream })
    }

    /// All streams must have been taken, to the last byte of their frames.
    fn finish(&mut self) -> Result<(), PatchError> {
        for (unpacking, stream) in self.0.iter_mut().zip(STREAMS) {
            let unpack = |source| PatchError::Stream { stream, source };
            if unpacking.left > 0 || !unpacking.ends().map_err(unpack)? {
                return Err(PatchError::Length { stream });
            }
        }
        Ok(())
    }
}

impl Unpacking<'_> {
    fn next(&mut self) -> io::Result<Option<u8>> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.taken == self.ready.len() {
            let Some(decoder) = &mut self.decoder else {
                return Ok(None);
            };
            self.ready.resize(PIECE, 0);
            self.taken = 0;
            let length = decoder.read(&mut self.ready)?;
            self.ready.truncate(length);
        }
        let byte = self.ready.get(self.taken).copied();
        self.taken += 1;
        self.left -= 1;
        Ok(byte)
    }

    /// Whether the frame ends here, and with it what is stored.
    fn ends(&mut self) -> io::Result<bool> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(true);
        };
        let more = self.taken < self.ready.len() || decoder.read(&mut [0])? > 0;
        Ok(!more && decoder.get_ref().is_empty())
    }
}
