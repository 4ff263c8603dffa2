//! Compiled steps in a model file: what a library without the compiler opens.
//!
//! # The format
//! The metadata of a [program's file](crate::file) have an entry `fledgling.steps`: a block of
//! bytes in base64 (RFC 4648, section 4, without padding). In a file of format 3 the block is the last
//! of the data, followed by its length in four bytes. Whoever reads descriptions need not know of it.
//! The block, with numbers as LEB128 (seven bits in a byte, the lowest first) and reals as
//! little-endian `f32`:
//!
//! | part | holds |
//! |---|---|
//! | magic | `FLS`, and the version of this format: `1`, or `2` in a file of format 3 |
//! | ends | values of an input; tokens that there are, 0 where inputs are real; values of an output |
//! | data | bytes of the file's data, without the block in a file of format 3 |
//! | constants | how many; in version 1 of each its first byte in the data, and its length; in version 2 four times its numbers, plus 0, 1 or 2 where they have one, two or four bytes, and 3 where they are of binary16 and steps read them as `f32`: their places follow from [`arrange`] |
//! | buffers | bytes of the arena; how many buffers; of each the bytes for an example, the bytes whatever the batch, and its place in units of 64 bytes, all for one example at a time |
//! | steps | the buffer of the output; how many steps; of each its code and its fields, in the order of [`coded`] |
//! | checksum | SHA-256 of everything before; in version 2 its first sixteen bytes |
//!
//! The SHA-256 of the data stands in the metadata, as `fledgling.sha256`. Buffer 0 is the input. A runner of more examples at once multiplies every place by their number.
//!
//! # Trust
//! The checksum finds what went wrong by chance. Against bytes that somebody made on purpose
//! [`check`] holds every step to the shapes that it names: each buffer and each constant that a
//! kernel will touch must be as long as the kernel's own rule says, products of sizes must not
//! overflow, buffers of a step must be apart. A block that passes cannot make a kernel read or write
//! outside of them (and every kernel compares the lengths of its slices once more); one that does
//! not is an error. What constants and reals are is not judged: they change numbers, never places.

pub(crate) mod base64;
mod check;
mod coded;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::ops::Range;

use sha2::{Digest as _, Sha256};

use super::step::Constant;
use super::{Slot, Step};
use crate::arena::Place;
use coded::{Coded, Reader};

/// The entry of the metadata.
pub(crate) const KEY_STEPS: &str = "fledgling.steps";
/// What a block begins with: three letters, then the version of the format.
const MAGIC: [u8; 3] = *b"FLS";
/// The versions: of blocks that say where constants lie, and of blocks that say what they are.
const VERSIONS: [u8; 2] = [1, 2];
/// Bytes of their checksums: chance needs no more than sixteen.
const DIGESTS: [usize; 2] = [DIGEST, 16];
/// What constants can be: numbers of one, two and four bytes, and [`WIDENED`].
const KINDS: usize = 4;
/// Numbers of binary16 that steps read as `f32`.
const WIDENED: usize = 3;
/// Bytes of a constant that begins at a cache line, at least.
pub(crate) const LARGE: usize = 4096;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of a checksum.
const DIGEST: usize = 32;
/// Constants, buffers or steps of a block at most.
const MOST: usize = 1 << 16;
/// Bytes of the arena for one example at most: more than any model for a device needs.
const MOST_ARENA: usize = 1 << 28;
/// Bytes between possible starts of buffers.
const UNIT: usize = 64;

/// Why the compiled steps of a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepsError {
    /// There is no header of a SafeTensors file.
    #[error("it is cut short, or no SafeTensors file: copy it again")]
    NoFile,
    /// A file of parameters, or one that an older version wrote.
    #[error(
        "it holds no compiled steps, which this library needs; write it again with \
         `fledgling model convert`, or use the full library"
    )]
    NoSteps,
    /// Another version of the format.
    #[error("its compiled steps are of another version; write the file again with this one")]
    Version,
    /// The steps are not what was written.
    #[error("its compiled steps are damaged: copy it again")]
    Damaged,
    /// The steps are what was written, and cannot be run.
    #[error("its compiled steps contradict themselves; another program wrote them")]
    Forged,
    /// The steps need what the features of this build leave out.
    #[error("its precision or its layers are among what this library was built without")]
    LeftOut,
    /// The data are shorter or longer than the steps say.
    #[error("its data are cut short or go on behind their end: copy it again")]
    Length,
    /// The data are not what was written.
    #[error("its data are damaged: copy it again")]
    Data,
    /// There is no memory for the arena.
    #[error("there is not enough memory to run it")]
    Memory,
}

/// Puts constants, which begin anywhere and have numbers of these sizes, one behind the other: first
/// those of at least [`LARGE`] bytes, each at a cache line, then the others at multiples of their
/// numbers' size, larger numbers first. Gives the bytes of all; none when they are more than can be.
pub(crate) fn arrange(constants: &mut [Range<usize>], sizes: &[usize]) -> Option<usize> {
    let mut end = 0usize;
    for multiple in [LINE, 4, 2, 1] {
        for (constant, &size) in constants.iter_mut().zip(sizes) {
            let len = constant.len();
            let own = if len >= LARGE { LINE } else { size };
            if own == multiple {
                let start = end.checked_next_multiple_of(multiple)?;
                end = start.checked_add(len)?;
                *constant = start..end;
            }
        }
    }
    Some(end)
}

/// What a block holds, checked.
#[derive(Debug)]
pub(crate) struct Block {
    /// Values of an input.
    pub(crate) input: usize,
    /// Tokens that there are; none where inputs are real.
    pub(crate) vocabulary: Option<usize>,
    /// Values of an output.
    pub(crate) output: usize,
    /// Bytes of the file's data.
    pub(crate) data: usize,
    /// Where the constants lie in them.
    pub(crate) constants: Vec<Range<usize>>,
    /// Bytes of a number of each, where they are [arranged](arrange); else nothing.
    pub(crate) sizes: Vec<usize>,
    /// Those of them that are binary16 and that steps read as `f32`, ascending. Only where sizes are
    /// known: so each has whole numbers, and a part of the data for itself.
    pub(crate) widened: Vec<Constant>,
    /// Bytes of the arena for one example.
    pub(crate) arena: usize,
    /// The buffers' places for one example.
    pub(crate) places: Vec<Place>,
    /// The buffer that is the output.
    pub(crate) slot: Slot,
    pub(crate) steps: Vec<Step>,
}

/// A block's bytes.
#[cfg(feature = "describe")]
pub(crate) fn encode(block: &Block) -> Vec<u8> {
    let mut to = MAGIC.to_vec();
    let version = usize::from(!block.sizes.is_empty());
    to.push(VERSIONS[version]);
    for number in [
        block.input,
        block.vocabulary.unwrap_or(0),
        block.output,
        block.data,
    ] {
        number.write(&mut to);
    }
    block.constants.len().write(&mut to);
    for (at, range) in block.constants.iter().enumerate() {
        match block.sizes.get(at) {
            None => [range.start, range.len()].write(&mut to),
            Some(&size) => {
                let kind = match block.widened.contains(&at) {
                    true => WIDENED,
                    false => size.trailing_zeros() as usize,
                };
                (KINDS * (range.len() / size) + kind).write(&mut to);
            }
        }
    }
    block.arena.write(&mut to);
    block.places.len().write(&mut to);
    for place in &block.places {
        for number in [place.row, place.fixed, place.offset / UNIT] {
            number.write(&mut to);
        }
    }
    block.slot.write(&mut to);
    block.steps.len().write(&mut to);
    for step in &block.steps {
        step.write(&mut to);
    }
    let digest = Sha256::digest(&to);
    to.extend_from_slice(&digest[..DIGESTS[version]]);
    to
}

/// The block of a text in the metadata.
pub(super) fn decode_text(text: &[u8]) -> Result<Block, StepsError> {
    decode(&base64::decode(text).ok_or(StepsError::Damaged)?)
}

/// The block of its bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Block, StepsError> {
    let version = match bytes {
        [a, b, c, version, ..] if [*a, *b, *c] == MAGIC => *version,
        _ => return Err(StepsError::Damaged),
    };
    let known = VERSIONS.iter().position(|&known| known == version);
    let known = known.ok_or(StepsError::Version)?;
    if known > 0 && !cfg!(feature = "int4") {
        return Err(StepsError::LeftOut);
    }
    let whole = bytes.len().checked_sub(DIGESTS[known]);
    let (body, digest) = bytes.split_at(whole.ok_or(StepsError::Damaged)?);
    if *digest != sha256(body)[..DIGESTS[known]] {
        return Err(StepsError::Damaged);
    }
    let body = body.get(MAGIC.len() + 1..).ok_or(StepsError::Damaged)?;
    let block = read(
        &mut Reader::new(body),
        known == 0 || !cfg!(feature = "int4"),
    )
    .ok_or(StepsError::Forged)?;
    if !block.steps.iter().all(Step::is_built) {
        return Err(StepsError::LeftOut);
    }
    check::check(&block).ok_or(StepsError::Forged)?;
    Ok(block)
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; DIGEST] {
    Sha256::digest(bytes).into()
}

fn read(from: &mut Reader<'_>, placed: bool) -> Option<Block> {
    let input = usize::read(from)?;
    let vocabulary = Some(usize::read(from)?).filter(|&tokens| tokens > 0);
    let output = usize::read(from)?;
    let data = usize::read(from)?;
    let mut constants = Vec::new();
    let (mut sizes, mut widened) = (Vec::new(), Vec::new());
    for at in 0..count(from)? {
        if placed {
            let [start, len] = Coded::read(from)?;
            constants.push(start..start.checked_add(len)?);
            continue;
        }
        let number = usize::read(from)?;
        let size = match number % KINDS {
            WIDENED => {
                widened.push(at);
                size_of::<u16>()
            }
            kind => 1 << kind,
        };
        sizes.push(size);
        constants.push(0..size.checked_mul(number / KINDS)?);
    }
    if !placed && arrange(&mut constants, &sizes)? != data {
        return None;
    }
    let arena = usize::read(from)?;
    let mut places = Vec::new();
    for _ in 0..count(from)? {
        let row = usize::read(from)?;
        let fixed = usize::read(from)?;
        let offset = usize::read(from)?.checked_mul(UNIT)?;
        places.push(Place { offset, row, fixed });
    }
    let slot = usize::read(from)?;
    let mut steps = Vec::new();
    for _ in 0..count(from)? {
        steps.push(Step::read(from)?);
    }
    from.is_empty().then_some(Block {
        input,
        vocabulary,
        output,
        data,
        constants,
        sizes,
        widened,
        arena,
        places,
        slot,
        steps,
    })
}

fn count(from: &mut Reader<'_>) -> Option<usize> {
    usize::read(from).filter(|&count| count <= MOST)
}
