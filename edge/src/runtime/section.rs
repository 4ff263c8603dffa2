//! Compiled steps in a model file: what a library without the compiler opens.
//!
//! # The format
//! The metadata of a [program's file](crate::file) have an entry `fledgling.steps`: a block of
//! bytes in base64 (RFC 4648, section 4, without padding). Whoever reads descriptions need not know
//! of it. The block, with numbers as LEB128 (seven bits in a byte, the lowest first) and reals as
//! little-endian `f32`:
//!
//! | part | holds |
//! |---|---|
//! | magic | `FLS`, and the version of this format: `1`, or `2` where constants are widened |
//! | ends | values of an input; tokens that there are, 0 where inputs are real; values of an output |
//! | data | bytes of the file's data |
//! | constants | how many; of each its first byte in the data, and its length |
//! | widened | in version 2: how many constants of binary16 steps read as `f32`; of each how many others lie between it and the one before |
//! | buffers | bytes of the arena; how many buffers; of each the bytes for an example, the bytes whatever the batch, and its place in units of 64 bytes, all for one example at a time |
//! | steps | the buffer of the output; how many steps; of each its code and its fields, in the order of [`coded`] |
//! | checksum | SHA-256 of everything before |
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

pub(super) mod base64;
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
/// The versions: of blocks without constants in 16 bits that are read as `f32`, and with them.
const VERSIONS: [u8; 2] = [1, 2];
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
    /// Those of them that are binary16 and that steps read as `f32`, ascending.
    pub(crate) widened: Vec<Constant>,
    /// Bytes of the arena for one example.
    pub(crate) arena: usize,
    /// The buffers' places for one example.
    pub(crate) places: Vec<Place>,
    /// The buffer that is the output.
    pub(crate) slot: Slot,
    pub(crate) steps: Vec<Step>,
}

/// A block's text in the metadata.
#[cfg(feature = "describe")]
pub(crate) fn encode(block: &Block) -> alloc::string::String {
    let mut to = MAGIC.to_vec();
    to.push(VERSIONS[usize::from(!block.widened.is_empty())]);
    for number in [
        block.input,
        block.vocabulary.unwrap_or(0),
        block.output,
        block.data,
    ] {
        number.write(&mut to);
    }
    block.constants.len().write(&mut to);
    for range in &block.constants {
        [range.start, range.len()].write(&mut to);
    }
    if !block.widened.is_empty() {
        block.widened.len().write(&mut to);
        let mut next = 0;
        for constant in &block.widened {
            (constant - next).write(&mut to);
            next = constant + 1;
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
    to.extend_from_slice(&digest);
    base64::encode(&to)
}

/// The block of a text in the metadata.
pub(super) fn decode(text: &[u8]) -> Result<Block, StepsError> {
    let bytes = base64::decode(text).ok_or(StepsError::Damaged)?;
    match bytes.split_first_chunk() {
        Some((&MAGIC, _)) => {}
        _ => return Err(StepsError::Damaged),
    }
    let (body, digest) = bytes.split_last_chunk().ok_or(StepsError::Damaged)?;
    if *digest != sha256(body) {
        return Err(StepsError::Damaged);
    }
    let (&version, body) = body[MAGIC.len()..]
        .split_first()
        .ok_or(StepsError::Damaged)?;
    let widens = match VERSIONS.iter().position(|&known| known == version) {
        Some(at) => at > 0,
        None => return Err(StepsError::Version),
    };
    let block = read(&mut Reader::new(body), widens).ok_or(StepsError::Forged)?;
    if !block.steps.iter().all(Step::is_built) {
        return Err(StepsError::LeftOut);
    }
    check::check(&block).ok_or(StepsError::Forged)?;
    Ok(block)
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; DIGEST] {
    Sha256::digest(bytes).into()
}

fn read(from: &mut Reader<'_>, widens: bool) -> Option<Block> {
    let input = usize::read(from)?;
    let vocabulary = Some(usize::read(from)?).filter(|&tokens| tokens > 0);
    let output = usize::read(from)?;
    let data = usize::read(from)?;
    let mut constants = Vec::new();
    for _ in 0..count(from)? {
        let [start, len] = Coded::read(from)?;
        constants.push(start..start.checked_add(len)?);
    }
    let mut widened = Vec::new();
    if widens {
        let mut next = 0usize;
        for _ in 0..count(from)? {
            let constant = next.checked_add(usize::read(from)?)?;
            widened.push(constant);
            next = constant.checked_add(1)?;
        }
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
