//! A patch made.

use core::ops::Range;

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::error::PatchError;
use super::format::{
    FORMAT, HEADER, INSTRUCTIONS, LITERALS, MAGIC, PLANES, Patch, RUNS, STREAMS, WINDOW_LOG,
};
use super::{Region, Width};
use crate::digest::{Digest, Version};

/// Bytes for which one way is chosen.
const BLOCK: usize = 1 << 16;
/// Level of zstd for the streams, which are mostly noise: higher ones gain nothing there.
const LEVEL: i32 = 9;
/// And for choosing a way.
const TRIAL: i32 = 1;

/// How some bytes of the new version come about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Literal,
    Copy { old: usize },
    Differences { old: usize, width: Width },
}

#[derive(Clone, Debug)]
struct Instruction {
    way: Way,
    new: Range<usize>,
}

impl Patch<'_> {
    /// The patch that leads from `old` to `new`. `regions` say which numbers of the new version came
    /// from which of the old one; what is in none of them is stored as it is. Block by block the
    /// shortest way is taken. The same arguments give the same bytes.
    ///
    /// # Errors
    /// [`PatchError::Region`] for regions that overlap or lie outside; [`PatchError::Pack`].
    pub fn make(old: &[u8], new: &[u8], regions: &[Region]) -> Result<Vec<u8>, PatchError> {
        let mut maker = Maker {
            old,
            new,
            instructions: Vec::new(),
            trial: compressor(TRIAL)?,
        };
        let mut at = 0;
        for (index, region) in regions.iter().enumerate() {
            maker.check(at, region).map_err(|what| PatchError::Region {
                index,
                old: region.old.clone(),
                new: region.new.clone(),
                what,
            })?;
            maker.push(Way::Literal, at..region.new.start);
            maker.region(region)?;
            at = region.new.end;
        }
        maker.push(Way::Literal, at..new.len());

        let mut streams: [Vec<u8>; STREAMS.len()] = Default::default();
        let mut cursor = 0;
        for instruction in &maker.instructions {
            write(&mut streams, old, new, instruction, &mut cursor);
        }
        let mut compressor = compressor(LEVEL)?;
        let mut table = Vec::new();
        let mut bodies = Vec::new();
        for stream in &streams {
            let packed = if stream.is_empty() {
                Vec::new()
            } else {
                pack(&mut compressor, stream)?
            };
            table.extend((stream.len() as u64).to_le_bytes());
            table.extend((packed.len() as u64).to_le_bytes());
            bodies.extend(packed);
        }
        let mut patch = Vec::with_capacity(HEADER + bodies.len() + 32);
        patch.extend(MAGIC);
        patch.extend(FORMAT.to_le_bytes());
        for version in [Version::of(old), Version::of(new)] {
            patch.extend(version.bytes.to_le_bytes());
            patch.extend(version.digest.0);
        }
        patch.extend(table);
        patch.extend(bodies);
        let checksum = Digest::of(&patch);
        patch.extend(checksum.0);
        Ok(patch)
    }
}

fn compressor(level: i32) -> Result<Compressor<'static>, PatchError> {
    let make = || {
        let mut compressor = Compressor::new(level)?;
        compressor.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        Ok(compressor)
    };
    make().map_err(|source| PatchError::Pack { source })
}

fn pack(compressor: &mut Compressor<'_>, bytes: &[u8]) -> Result<Vec<u8>, PatchError> {
    compressor
        .compress(bytes)
        .map_err(|source| PatchError::Pack { source })
}

struct Maker<'a> {
    old: &'a [u8],
    new: &'a [u8],
    instructions: Vec<Instruction>,
    trial: Compressor<'static>,
}

impl Maker<'_> {
    fn check(&self, at: usize, region: &Region) -> Result<(), &'static str> {
        let Region { old, new, width } = region;
        if new.start < at {
            return Err("begins before the one before it ends");
        }
        if old.start > old.end || old.end > self.old.len() {
            return Err("lies outside of the old version");
        }
        if new.start > new.end || new.end > self.new.len() {
            return Err("lies outside of the new version");
        }
        if old.len() != new.len() {
            return Err("has parts of two lengths");
        }
        if !new.len().is_multiple_of(width.bytes()) {
            return Err("ends within a number");
        }
        Ok(())
    }

    fn region(&mut self, region: &Region) -> Result<(), PatchError> {
        let end = region.new.len();
        for start in (0..end).step_by(BLOCK) {
            let block = start..end.min(start + BLOCK);
            let old = region.old.start + block.start;
            let new = region.new.start + block.start..region.new.start + block.end;
            let differences = Way::Differences {
                old,
                width: region.width,
            };
            let way = if self.old[old..old + block.len()] == self.new[new.clone()] {
                Way::Copy { old }
            } else if self.cost(&differences, &new)? < self.cost(&Way::Literal, &new)? {
                differences
            } else {
                Way::Literal
            };
            self.push(way, new);
        }
        Ok(())
    }

    /// About how many bytes a way takes.
    fn cost(&mut self, way: &Way, new: &Range<usize>) -> Result<usize, PatchError> {
        let mut streams: [Vec<u8>; STREAMS.len()] = Default::default();
        let instruction = Instruction {
            way: way.clone(),
            new: new.clone(),
        };
        write(&mut streams, self.old, self.new, &instruction, &mut 0);
        let filled = streams.iter().filter(|stream| !stream.is_empty());
        filled
            .map(|stream| Ok(pack(&mut self.trial, stream)?.len()))
            .sum()
    }

    /// Appends, as part of the last instruction where both are of one kind and next to each other.
    fn push(&mut self, way: Way, new: Range<usize>) {
        if new.is_empty() {
            return;
        }
        if let Some(last) = self.instructions.last_mut() {
            let next = match last.way {
                Way::Literal => Way::Literal,
                Way::Copy { old } => Way::Copy {
                    old: old + last.new.len(),
                },
                Way::Differences { old, width } => Way::Differences {
                    old: old + last.new.len(),
                    width,
                },
            };
            if way == next {
                last.new.end = new.end;
                return;
            }
        }
        self.instructions.push(Instruction { way, new });
    }
}

/// Adds an instruction and what belongs to it to the streams.
fn write(
    streams: &mut [Vec<u8>; STREAMS.len()],
    old: &[u8],
    new: &[u8],
    instruction: &Instruction,
    cursor: &mut usize,
) {
    let (kind, from) = match instruction.way {
        Way::Literal => (0, None),
        Way::Copy { old } => (1, Some(old)),
        Way::Differences { old, width } => match width {
            Width::Byte => (2, Some(old)),
            Width::Half => (3, Some(old)),
            Width::Word => (4, Some(old)),
        },
    };
    let new = &new[instruction.new.clone()];
    streams[INSTRUCTIONS].push(kind);
    number(&mut streams[INSTRUCTIONS], new.len() as u64);
    let Some(start) = from else {
        streams[LITERALS].extend_from_slice(new);
        return;
    };
    let distance = start as i64 - *cursor as i64;
    number(&mut streams[INSTRUCTIONS], zigzag(distance));
    *cursor = start + new.len();
    let old = &old[start..*cursor];
    match kind {
        2 => differences::<1>(streams, old, new),
        3 => differences::<2>(streams, old, new),
        4 => differences::<4>(streams, old, new),
        _ => {}
    }
}

fn differences<const W: usize>(streams: &mut [Vec<u8>; STREAMS.len()], old: &[u8], new: &[u8]) {
    let mut run = 0;
    let (old, new) = (old.as_chunks::<W>().0, new.as_chunks::<W>().0);
    for (old, new) in old.iter().zip(new) {
        if old == new {
            run += 1;
            continue;
        }
        number(&mut streams[RUNS], run);
        run = 0;
        for (plane, byte) in subtract(*new, *old).into_iter().enumerate() {
            streams[PLANES + plane].push(byte);
        }
    }
    if run > 0 {
        number(&mut streams[RUNS], run);
    }
}

/// `a - b` modulo `2^(8 W)`, the sign in the lowest bit.
fn subtract<const W: usize>(a: [u8; W], b: [u8; W]) -> [u8; W] {
    // The number in the highest bytes, so that its sign is the word's.
    let high = |bytes: [u8; W]| {
        let mut all = [0; 4];
        for (to, from) in all.iter_mut().rev().zip(bytes.into_iter().rev()) {
            *to = from;
        }
        i32::from_le_bytes(all)
    };
    let shift = 32 - 8 * W as u32;
    let difference = high(a).wrapping_sub(high(b)) >> shift;
    let zigzag = ((difference << 1) ^ (difference >> 31)).to_le_bytes();
    let mut bytes = [0; W];
    bytes
        .iter_mut()
        .zip(zigzag)
        .for_each(|(to, from)| *to = from);
    bytes
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// LEB128.
fn number(stream: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        stream.push(number as u8 | 0x80);
        number >>= 7;
    }
    stream.push(number as u8);
}
