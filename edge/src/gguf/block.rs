//! How numbers are stored: whole ones, and blocks of small integers with a scale.

use alloc::vec::Vec;

use crate::kernel::{f16_to_f32, f32_to_f16};

/// Numbers of a block.
pub const BLOCK: usize = 32;

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorKind {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16; narrowing rounds to nearest, ties to even.
    F16,
    /// 34 bytes for 32 numbers: `d` in binary16 and `q` in `i8`, each number `d q`, with
    /// `d = max|x| / 127` and `q = x / d`, rounded half away from zero (in `f32`, before `d` is
    /// narrowed).
    Q8_0,
    /// 18 bytes for 32 numbers: `d` in binary16 and `q` in 4 bits, each number `d (q - 8)`, with `d` the
    /// number of largest magnitude, divided by -8, and `q` cut off from `x / d + 8.5`, at most 15. The
    /// first sixteen lie in the lower halves of the bytes.
    Q4_0,
}

/// Kinds that other programs write, for a message that names them.
const OTHERS: [(u32, &str); 27] = [
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (30, "BF16"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
];

impl TensorKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Q4_0, Self::Q8_0];

    /// Its name in ggml.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
        }
    }

    /// Its number in a file.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
        }
    }

    pub(super) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The name of a kind, also of one that is not read.
    pub(super) fn name_of(code: u32) -> &'static str {
        let other = || OTHERS.iter().find(|(known, _)| *known == code);
        match Self::from_code(code) {
            Some(kind) => kind.name(),
            None => other().map_or("unknown", |(_, name)| name),
        }
    }

    /// Numbers that are stored together; a row is a multiple of it.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Q8_0 | Self::Q4_0 => BLOCK,
        }
    }

    /// Bytes of such a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q8_0 => 2 + BLOCK,
            Self::Q4_0 => 2 + BLOCK / 2,
        }
    }

    /// The numbers of whole blocks.
    pub(super) fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::with_capacity(bytes.len() / self.block_bytes() * self.block_len());
        match self {
            Self::F32 => {
                let words = bytes.as_chunks::<4>().0;
                values.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
            }
            Self::F16 => {
                let halves = bytes.as_chunks::<2>().0;
                values.extend(
                    halves
                        .iter()
                        .map(|half| f16_to_f32(u16::from_le_bytes(*half))),
                );
            }
            Self::Q8_0 => {
                for block in bytes.as_chunks::<{ 2 + BLOCK }>().0 {
                    let (d, quants) = scale_of(block);
                    values.extend(quants.iter().map(|q| d * f32::from(q.cast_signed())));
                }
            }
            Self::Q4_0 => {
                for block in bytes.as_chunks::<{ 2 + BLOCK / 2 }>().0 {
                    let (d, quants) = scale_of(block);
                    let number = |q: u8| d * (f32::from(q) - 8.0);
                    values.extend(quants.iter().map(|pair| number(pair & 15)));
                    values.extend(quants.iter().map(|pair| number(pair >> 4)));
                }
            }
        }
        values
    }

    /// Whole blocks of `values`, or the index of one that cannot be stored: one that is not finite, or
    /// too large for binary16.
    pub(super) fn narrow(self, values: &[f32]) -> Result<Vec<u8>, usize> {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(index);
        }
        let mut bytes = Vec::with_capacity(values.len() / self.block_len() * self.block_bytes());
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => {
                for (index, &value) in values.iter().enumerate() {
                    bytes.extend(finite_half(value).ok_or(index)?.to_le_bytes());
                }
            }
            Self::Q8_0 => {
                for (index, block) in values.chunks_exact(BLOCK).enumerate() {
                    let d = largest(block).abs() / 127.0;
                    let half = finite_half(d).ok_or(index * BLOCK)?;
                    let inverse = inverse(d);
                    bytes.extend(half.to_le_bytes());
                    // Within ±127: `x / d` is at most 127 but for its last bit, and the cast saturates.
                    bytes.extend(
                        block
                            .iter()
                            .map(|x| (libm::roundf(x * inverse) as i8).cast_unsigned()),
                    );
                }
            }
            Self::Q4_0 => {
                for (index, block) in values.chunks_exact(BLOCK).enumerate() {
                    let d = largest(block) / -8.0;
                    let half = finite_half(d).ok_or(index * BLOCK)?;
                    let inverse = inverse(d);
                    bytes.extend(half.to_le_bytes());
                    let quant = |x: f32| (x * inverse + 8.5) as u8;
                    let (low, high) = block.split_at(BLOCK / 2);
                    let pairs = low.iter().zip(high);
                    bytes.extend(pairs.map(|(&a, &b)| quant(a).min(15) | quant(b).min(15) << 4));
                }
            }
        }
        Ok(bytes)
    }
}

/// A block's scale, and what follows it.
fn scale_of<const N: usize>(block: &[u8; N]) -> (f32, &[u8]) {
    let (scale, quants) = block.split_at(2);
    (f16_to_f32(u16::from_le_bytes([scale[0], scale[1]])), quants)
}

/// The first number of largest magnitude.
fn largest(block: &[f32]) -> f32 {
    let larger = |most: f32, &x: &f32| if x.abs() > most.abs() { x } else { most };
    block.iter().fold(0.0, larger)
}

/// `1 / d`; 0 where there is none, as for a block of zeros.
fn inverse(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The nearest binary16, unless that is infinite.
fn finite_half(value: f32) -> Option<u16> {
    let half = f32_to_f16(value);
    (half & 0x7c00 != 0x7c00).then_some(half)
}
