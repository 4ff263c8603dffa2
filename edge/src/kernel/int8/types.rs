//! What becomes of integer sums: requantization, residual additions, ends of products.

#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;

/// How an integer tensor stands for real numbers: `real = (q - zero_point) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Real size of one step, positive and finite.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: u8,
}

impl Affine {
    /// The real number that `q` stands for: one subtraction, one rounded product.
    #[must_use]
    pub fn dequantize(self, q: u8) -> f32 {
        (i32::from(q) - i32::from(self.zero_point)) as f32 * self.scale
    }

    /// The nearest integer: `clamp(rne(x / scale) + zero_point, 0, 255)`; NaN becomes 0.
    ///
    /// The quotient is one rounded division and ties go to the even integer, as onnxruntime's
    /// QuantizeLinear does it.
    #[must_use]
    pub fn quantize(self, x: f32) -> u8 {
        let zero = f32::from(self.zero_point);
        // `max` first: it turns NaN into the lower bound.
        let steps = (x / self.scale).max(-zero).min(255.0 - zero);
        (super::round_even(steps) + i32::from(self.zero_point)) as u8
    }

    /// The 256 bytes of `to.quantize(f(self.dequantize(q)))` for [`int8_lut`]: any function of one
    /// number; the identity makes the table that requantizes.
    ///
    /// [`int8_lut`]: crate::kernel::Kernels::int8_lut
    #[must_use]
    pub fn table(self, to: Self, f: impl Fn(f32) -> f32) -> [u8; 256] {
        core::array::from_fn(|q| to.quantize(f(self.dequantize(q as u8))))
    }
}

/// From an i32 sum to u8: `clamp(rne(acc as f32 * multiplier) + zero_point, low, high)`, the
/// conversion and the product rounded once each, ties to even. This is what onnxruntime's
/// QLinearConv and QGemm compute, with a fused relu as a higher `low`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requantize<'a> {
    /// `input scale * weight scale / output scale`: one, or one for each column; finite, not
    /// negative.
    pub multipliers: &'a [f32],
    /// The output's zero point.
    pub zero_point: u8,
    /// Smallest output; the zero point after a fused relu.
    pub low: u8,
    /// Largest output, at least `low`.
    pub high: u8,
}

impl<'a> Requantize<'a> {
    /// Without a fused activation: the bounds are 0 and 255.
    #[must_use]
    pub fn new(multipliers: &'a [f32], zero_point: u8) -> Self {
        Self {
            multipliers,
            zero_point,
            low: 0,
            high: 255,
        }
    }
}

/// Sum of two u8 tensors: `clamp(rne(first * first_ratio + (second * second_ratio + fixed)))`
/// with both products fused, the integers of onnxruntime's QLinearAdd where it has AVX2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Add {
    /// First scale over the output's scale.
    pub first_ratio: f32,
    /// Second scale over the output's scale.
    pub second_ratio: f32,
    /// What the three zero points amount to, in steps of the output.
    pub fixed: f32,
    /// Smallest output.
    pub low: u8,
    /// Largest output, at least `low`.
    pub high: u8,
}

impl Add {
    /// The sum of tensors at `first` and `second`, itself at `to`, without a clamp.
    #[must_use]
    pub fn new(first: Affine, second: Affine, to: Affine) -> Self {
        let first_ratio = first.scale / to.scale;
        let second_ratio = second.scale / to.scale;
        let zeros = libm::fmaf(
            first_ratio,
            f32::from(first.zero_point),
            second_ratio * f32::from(second.zero_point),
        );
        Self {
            first_ratio,
            second_ratio,
            fixed: f32::from(to.zero_point) - zeros,
            low: 0,
            high: 255,
        }
    }

    /// The recipe itself, for one pair.
    #[must_use]
    pub fn apply(&self, first: u8, second: u8) -> u8 {
        let sum = f32::from(second).mul_add(self.second_ratio, self.fixed);
        let sum = f32::from(first).mul_add(self.first_ratio, sum);
        let sum = sum.max(f32::from(self.low)).min(f32::from(self.high));
        super::round_even(sum) as u8
    }
}

/// Which operand of a residual addition a product's own output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The product is the first operand.
    First,
    /// The product is the second operand.
    Second,
}

/// What becomes of a product's sums, which include the bias. Every output lies like the product's
/// `y`, `[rows, columns]` or NHWC.
#[derive(Debug)]
pub enum End<'a> {
    /// The sums themselves.
    Raw(&'a mut [i32]),
    /// `y = acc as f32 * scale`
    Dequantize {
        /// `input scale * weight scale`: one, or one for each column.
        scales: &'a [f32],
        /// Where to.
        y: &'a mut [f32],
    },
    /// Back to u8.
    Requantize {
        /// How.
        requantize: Requantize<'a>,
        /// Where to.
        y: &'a mut [u8],
    },
    /// Back to u8, and what a straight-through gradient needs to know.
    RequantizeWithMask {
        /// How.
        requantize: Requantize<'a>,
        /// Where to.
        y: &'a mut [u8],
        /// Receives [`INSIDE`] and [`POSITIVE`] for every output.
        mask: &'a mut [u8],
    },
    /// Rounded to the product's own u8 first, then added to another tensor: the same integers as
    /// the two operators one after the other.
    RequantizeAdd {
        /// How the product alone is rounded.
        requantize: Requantize<'a>,
        /// How the sum is rounded.
        add: Add,
        /// Which operand the product is.
        side: Side,
        /// The other operand, which lies like `y`.
        other: &'a [u8],
        /// Where to.
        y: &'a mut [u8],
    },
}

/// Bit of a mask: the rounded value, before the clamp, lay in `low ..= high`. Straight-through
/// gradients are zero where it is not set.
pub const INSIDE: u8 = 1;

/// Bit of a mask: the sum is above zero, so a relu fused into the product passes it on.
pub const POSITIVE: u8 = 2;
