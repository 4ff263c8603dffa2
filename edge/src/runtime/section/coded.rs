//! Steps as bytes: the order of their fields, said once for writing and reading.
//!
//! A step is its code and then its fields. Codes are never given to another step, and fields are
//! appended to no step: what changes gets a code of its own.

#[cfg(feature = "describe")]
use alloc::vec::Vec;

use crate::kernel::int8::{Add, Affine, Rescale, Side};
use crate::kernel::{
    Activation, Attention, BatchNorm, Cell, Conv, ConvShape, Dense, Fused, Norm, Padding, Pool,
    Recurrent,
};
use crate::runtime::step::{
    Factor, IntEnd, IntResidual, Served, Step, StoredEight, StoredFour, StoredLevels, Weight,
};

/// Bytes that are yet to be read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }
}

/// The largest number: what memory can have.
const MOST_SIZE: usize = isize::MAX.cast_unsigned();

/// What stands in a block.
pub(super) trait Coded: Sized {
    /// Appends it.
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>);

    /// Takes it; none where the bytes are no such thing.
    fn read(from: &mut Reader<'_>) -> Option<Self>;
}

/// LEB128, in as few bytes as it takes; sizes, so at most half of what an address can say.
impl Coded for usize {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            to.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        to.push(rest as u8);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = u8::read(from)?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let short = byte > 0 || shift == 0;
                let number = Self::try_from(number).ok().filter(|_| short)?;
                return (number <= MOST_SIZE).then_some(number);
            }
        }
        None
    }
}

impl Coded for u8 {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        to.push(*self);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        from.array().map(|[byte]| byte)
    }
}

/// Finite.
impl Coded for f32 {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.to_le_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let real = Self::from_le_bytes(from.array()?);
        real.is_finite().then_some(real)
    }
}

impl<T: Coded> Coded for Option<T> {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        to.push(u8::from(self.is_some()));
        if let Some(it) = self {
            it.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        match u8::read(from)? {
            0 => Some(None),
            1 => T::read(from).map(Some),
            _ => None,
        }
    }
}

impl<const N: usize> Coded for [usize; N] {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        for number in self {
            number.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let mut all = [0; N];
        for number in &mut all {
            *number = usize::read(from)?;
        }
        Some(all)
    }
}

/// Structs whose fields are all of what they are.
macro_rules! records {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Coded for $name {
            #[cfg(feature = "describe")]
            fn write(&self, to: &mut Vec<u8>) {
                $(self.$field.write(to);)*
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                Some(Self { $($field: Coded::read(from)?),* })
            }
        }
    )*};
}

records! {
    Padding { top, bottom, left, right }
    ConvShape { height, width, channels, filters, kernel, stride, padding, groups }
    Affine { scale, zero_point }
    Rescale { low, high }
    Add { first_ratio, second_ratio, fixed, low, high }
    Served { first, residual, last }
    IntEnd { multipliers, zero_point, to, residual }
    IntResidual { add, side, other }
    StoredFour { codes, scales, levels, group }
    StoredEight { codes, scales }
}

/// Enums: a number for each, then what it holds.
macro_rules! variants {
    ($($name:ident { $($code:literal $variant:ident
        $(( $held:ident ))? $({ $($field:ident),* })?),* $(,)? })*) => {$(
        impl Coded for $name {
            #[cfg(feature = "describe")]
            fn write(&self, to: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $(($held))? $({ $($field),* })? => {
                        to.push($code);
                        $($held.write(to);)?
                        $($($field.write(to);)*)?
                    })*
                }
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                Some(match u8::read(from)? {
                    $($code => Self::$variant
                        $(({ let $held = Coded::read(from)?; $held }))?
                        $({ $($field: Coded::read(from)?),* })?,)*
                    _ => return None,
                })
            }
        }
    )*};
}

variants! {
    Fused { 0 None, 1 Relu, 2 Relu6 }
    Cell { 0 Lstm, 1 Gru }
    Side { 0 First, 1 Second }
    Activation { 0 Relu, 1 Relu6, 2 Leaky { slope }, 3 Gelu, 4 Tanh, 5 Sigmoid }
    Factor { 0 Constant(at), 1 Buffer(at) }
    Weight { 0 Single(at), 1 Half(at), 2 Four(four), 3 Eight(eight) }
    StoredLevels { 0 Middle, 1 Zeros(at), 2 Table }
    Step {
        0 Dense { geometry, x, y, weight, bias, fused },
        1 Pad { geometry, x, y },
        2 Conv { geometry, x, y, weight, bias, fused },
        3 ServedDense { geometry, x, y, weight, bias, after, scratch },
        4 ServedConv { geometry, x, y, weight, bias, after, scratch },
        5 ServedConvInPlace { geometry, y, weight, bias, after, scratch },
        6 MaxPool { geometry, x, y },
        7 AvgPool { geometry, x, y },
        8 GlobalAvgPool { positions, channels, x, y },
        9 Activate { f, x, y },
        10 ActivateInPlace { f, y },
        11 Norm { geometry, x, y, stats, scratch, gamma, beta },
        12 NormInPlace { geometry, y, stats, scratch, gamma, beta },
        13 BatchNormFactor { epsilon, variance, r },
        14 BatchNorm { geometry, x, y, mean, r, gamma, beta, fused },
        15 Embedding { size, table, y },
        16 Copy { x, y },
        17 Add { x, y },
        18 Double { y },
        19 Recurrent { geometry, gates, y, kept, scratch, weight, bias },
        20 ServedRecurrent { geometry, gates, y, kept, scratch, weight, bias, block },
        21 IntRecurrent { geometry, gates, y, kept, scratch, point, weight, bias, codes },
        22 Attention { geometry, x, y, probabilities, scratch },
        23 Last { positions, channels, x, y },
        24 Position { table, y },
        25 Quantize { x, y, to },
        26 Dequantize { x, y, from },
        27 IntDense { geometry, x, y, weight, bias, end },
        28 IntConv { geometry, x, y, zero_point, weight, bias, end, scratch },
        29 IntMaxPool { geometry, x, y },
        30 IntAvgPool { geometry, x, y, from, to },
        31 IntGlobalAvgPool { positions, channels, x, y, from, to },
        32 IntLast { positions, channels, x, y },
        33 IntAdd { add, x, other, y },
        34 Table { table, x, y },
        35 IntClamp { to, y },
        36 IntNorm { geometry, x, y, from, affine, to, gamma, beta, scratch },
        37 Rescale { x, y, a, b, to },
        38 IntEmbedding { size, table, y },
        39 PositionFour { size, table, y },
    }
}

/// Whether a product of sizes is one that memory can have.
pub(super) fn fits(sizes: &[usize]) -> bool {
    let product = sizes
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    product.is_some_and(|product| product <= MOST_SIZE)
}

/// Eight examples at once of eight bytes for each number, and something to spare.
const VALUES: usize = 256;
/// The same for weights, which packing makes up to 64 times as long.
const WEIGHTS: usize = 1024;
/// The largest size that a shape may have along a side: sums of a few do not overflow.
const MOST_SIDE: usize = 1 << 24;

impl Coded for Dense {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        [self.inputs, self.outputs].write(to);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let [inputs, outputs] = Coded::read(from)?;
        let fits = inputs > 0 && outputs > 0 && fits(&[inputs, outputs, WEIGHTS]);
        fits.then_some(Self { inputs, outputs })
    }
}

impl Coded for Conv {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        self.shape().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let shape = ConvShape::read(from)?;
        let Padding {
            top,
            bottom,
            left,
            right,
        } = shape.padding;
        let sides = [shape.height, shape.width, shape.channels, shape.filters];
        let steps = [
            shape.kernel[0],
            shape.kernel[1],
            shape.stride[0],
            shape.stride[1],
        ];
        let border = [top, bottom, left, right, shape.groups];
        let sized = |sides: &[usize]| sides.iter().all(|&side| side <= MOST_SIDE);
        if !(sized(&sides) && sized(&steps) && sized(&border)) {
            return None;
        }
        let [high, wide] = [
            shape.height + top + bottom + shape.kernel[0],
            shape.width + left + right + shape.kernel[1],
        ];
        let widest = shape.channels.max(shape.filters);
        let [kernel_high, kernel_wide] = shape.kernel;
        let fits = fits(&[high, wide, widest, VALUES])
            && fits(&[kernel_high, kernel_wide, widest])
            && fits(&[
                kernel_high,
                kernel_wide,
                shape.channels,
                shape.filters,
                WEIGHTS,
            ]);
        Self::new(shape).ok().filter(|_| fits)
    }
}

impl Coded for Pool {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        self.input().write(to);
        self.kernel().write(to);
        self.stride().write(to);
        self.padding().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let input = <[usize; 3]>::read(from)?;
        let kernel = <[usize; 2]>::read(from)?;
        let stride = <[usize; 2]>::read(from)?;
        let padding = Padding::read(from)?;
        let Padding {
            top,
            bottom,
            left,
            right,
        } = padding;
        let borders = [top, bottom, left, right];
        let mut sizes = input.iter().chain(&kernel).chain(&stride).chain(&borders);
        // Padding is below the kernel, and the kernel at most 255.
        if !sizes.all(|&size| size <= MOST_SIDE)
            || !fits(&[input[0] + 512, input[1] + 512, input[2], VALUES])
        {
            return None;
        }
        Self::new(input, kernel, stride, padding).ok()
    }
}

impl Coded for Norm {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        [
            self.repeats(),
            self.positions(),
            self.channels(),
            self.groups(),
        ]
        .write(to);
        self.epsilon().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let [repeats, positions, channels, groups] = Coded::read(from)?;
        let epsilon = f32::read(from)?;
        let norm = Self::new(positions, channels, groups, epsilon).ok()?;
        let fits = repeats > 0 && fits(&[repeats, positions, channels, VALUES]);
        fits.then(|| norm.repeated(repeats))
    }
}

impl Coded for BatchNorm {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        [self.positions(), self.channels()].write(to);
        self.epsilon().write(to);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let [positions, channels] = Coded::read(from)?;
        let norm = Self::new(positions, channels, f32::read(from)?).ok()?;
        fits(&[positions, channels, VALUES]).then_some(norm)
    }
}

impl Coded for Recurrent {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        self.cell().write(to);
        [self.steps(), self.units()].write(to);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let cell = Cell::read(from)?;
        let [steps, units] = Coded::read(from)?;
        let layer = Self::new(cell, steps, units).ok()?;
        (fits(&[steps, units, 4, VALUES]) && fits(&[units, units, 4, WEIGHTS])).then_some(layer)
    }
}

impl Coded for Attention {
    #[cfg(feature = "describe")]
    fn write(&self, to: &mut Vec<u8>) {
        [self.positions(), self.width(), self.heads()].write(to);
        to.push(u8::from(self.causal()));
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let [positions, width, heads] = Coded::read(from)?;
        let causal = match u8::read(from)? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let fits =
            fits(&[positions, width, 3, VALUES]) && fits(&[heads, positions, positions, VALUES]);
        Self::new(positions, width, heads, causal)
            .ok()
            .filter(|_| fits)
    }
}
