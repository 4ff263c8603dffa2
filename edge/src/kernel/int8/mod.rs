//! Integer kernels: u8 activations, i8 weights, i32 sums.
//!
//! # The law
//! Activations are asymmetric u8 ([`Affine`]), weights symmetric i8. A product's sum
//! `bias + sum (x - zero point) * weight` is exact in i32 (up to [`MAX_EXACT_TERMS`] terms; longer
//! ones wrap); how it becomes u8 or f32 again ([`End`]) is a fixed recipe of single IEEE
//! operations ([`Requantize`], [`Add`]). So every tier of instructions gives the same bytes, and
//! fusing an activation or a residual addition changes none. [`mod@reference`] holds all recipes
//! as plain loops.
//!
//! # Tiers
//! AVX-512 VNNI and AVX-VNNI (`vpdpbusd`, which does not saturate), AVX2 (widening to 16 bits and
//! `vpmaddwd`; `vpmaddubsw` saturates and is not used), NEON (widening `smlal`), and portable
//! code.
//!
//! # Use
//! Weights are packed once ([`Packing`], the same bytes everywhere), the input's zero point with
//! them into the bias:
//!
//! ```
//! use fl_edge::kernel::int8::{End, Packing, Requantize};
//! use fl_edge::kernel::{Dense, Kernels};
//!
//! let dense = Dense { inputs: 3, outputs: 2 };
//! let packing = Packing::dense(&dense);
//! let (mut weight, mut bias) = (vec![0; packing.len()], vec![0; packing.columns()]);
//! packing.pack(&[1, -2, 3, -4, 5, -6], Some(&[10, 20]), 128, &mut weight, &mut bias);
//!
//! let mut y = [0; 2];
//! let requantize = Requantize::new(&[0.5], 100);
//! let end = End::Requantize { requantize, y: &mut y };
//! Kernels::best().int8_dense(&dense, 1, &[128, 130, 127], &weight, &bias, end);
//! // (10 + 2 * 3 - 5) / 2 and (20 - 2 * 4 + 6) / 2, ties to even
//! assert_eq!(y, [106, 109]);
//! ```

mod depthwise;
mod elementwise;
mod level;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
pub mod pack;
mod pool;
mod portable;
mod product;
pub mod reference;
mod seal;
mod tile;
mod types;
mod weight;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

pub use norm::{Moments, Rescale, Through};
pub use pack::{MAX_EXACT_TERMS, Packing};
pub use types::{Add, Affine, End, INSIDE, POSITIVE, Requantize, Side};

use super::Kernels;
use super::geometry::{Conv, Dense, Pool};
pub(super) use level::Level;
use portable::round_even;
use tile::{Finish, PerColumn, Sums};

pub(super) fn need<T>(what: &str, slice: &[T], len: usize) {
    assert!(
        slice.len() >= len,
        "{what} holds {} elements of {len}",
        slice.len()
    );
}

fn need_columns(what: &str, numbers: &[f32], columns: usize) {
    assert!(
        numbers.len() == 1 || numbers.len() == columns,
        "{what} are {} for {columns} columns; give one or one for each",
        numbers.len()
    );
}

/// Checks an end for `len` outputs in `columns` columns.
fn checked(end: End<'_>, columns: usize, len: usize) -> Finish {
    let requantized = |r: &Requantize<'_>, y: &[u8]| {
        need_columns("the multipliers", r.multipliers, columns);
        assert!(r.low <= r.high, "the bounds of a clamp are reversed");
        need("y", y, len);
        (PerColumn::of(r.multipliers), elementwise::rounding(r))
    };
    match end {
        End::Raw(y) => {
            need("y", y, len);
            Finish::Raw(y.as_mut_ptr())
        }
        End::Dequantize { scales, y } => {
            need_columns("the scales", scales, columns);
            need("y", y, len);
            Finish::Dequantize {
                scales: PerColumn::of(scales),
                y: y.as_mut_ptr(),
            }
        }
        End::Requantize { requantize, y } => {
            let (multipliers, rounding) = requantized(&requantize, y);
            Finish::Requantize {
                multipliers,
                rounding,
                y: y.as_mut_ptr(),
            }
        }
        End::RequantizeWithMask {
            requantize,
            y,
            mask,
        } => {
            let (multipliers, rounding) = requantized(&requantize, y);
            need("the mask", mask, len);
            Finish::Masked {
                multipliers,
                rounding,
                y: y.as_mut_ptr(),
                mask: mask.as_mut_ptr(),
            }
        }
        End::RequantizeAdd {
            requantize,
            add,
            side,
            other,
            y,
        } => {
            let (multipliers, rounding) = requantized(&requantize, y);
            need("the other operand", other, len);
            Finish::Add {
                multipliers,
                rounding,
                add,
                side,
                other: other.as_ptr(),
                y: y.as_mut_ptr(),
            }
        }
    }
}

impl Conv {
    /// Bytes of scratch that [`Kernels::int8_conv`] needs: none without padding, else a band of
    /// lines of one padded image, or all of them for one filter per channel.
    #[must_use]
    pub fn int8_scratch_len(&self) -> usize {
        if !self.is_padded() {
            return 0;
        }
        match Packing::conv(self).kind {
            pack::Kind::Depthwise { .. } => self.padded_len(),
            pack::Kind::Panels { .. } => self.band_len::<u8>(),
        }
    }
}

/// The integer kernels; see [`int8`](self).
impl Kernels {
    /// The last position of every sequence: `y[rows, width]` of `x[rows, positions, width]`.
    pub fn int8_last(&self, rows: usize, positions: usize, width: usize, x: &[u8], y: &mut [u8]) {
        let len = positions.saturating_mul(width);
        need("x", x, rows.saturating_mul(len));
        need("y", y, rows.saturating_mul(width));
        for (x, y) in x
            .chunks_exact(len)
            .zip(y.chunks_exact_mut(width))
            .take(rows)
        {
            y.copy_from_slice(&x[len - width..]);
        }
    }

    /// The name of the tier of integer instructions: `avx512-vnni`, `avx-vnni`, `avx2`,
    /// `neon` or `portable`.
    #[must_use]
    pub fn int8_name(&self) -> &'static str {
        self.integers.name()
    }

    /// Dense layer: `[rows, outputs]` from `x[rows, inputs]`, with weights and bias from
    /// [`Packing::dense`].
    pub fn int8_dense(
        &self,
        d: &Dense,
        rows: usize,
        x: &[u8],
        packed: &[i8],
        bias: &[i32],
        end: End<'_>,
    ) {
        need("x", x, rows.saturating_mul(d.inputs));
        need("the packed weight", packed, Packing::dense(d).len());
        need("the bias", bias, d.outputs);
        let finish = checked(end, d.outputs, rows.saturating_mul(d.outputs));
        // SAFETY: every length is checked above.
        unsafe { product::dense(self.integers, d, rows, x, packed, bias, finish) };
    }

    /// Convolution, grouped and depthwise included: NHWC, with weights and bias from
    /// [`Packing::conv`]. Outside the image `x` is `zero_point`, the one given to
    /// [`Packing::pack`].
    ///
    /// `scratch` holds at least [`Conv::int8_scratch_len`].
    pub fn int8_conv(
        &self,
        c: &Conv,
        rows: usize,
        x: &[u8],
        zero_point: u8,
        packed: &[i8],
        bias: &[i32],
        end: End<'_>,
        scratch: &mut [u8],
    ) {
        let packing = Packing::conv(c);
        need("x", x, rows.saturating_mul(c.input_len()));
        need("the packed weight", packed, packing.len());
        need("the bias", bias, packing.columns());
        need("the scratch", scratch, c.int8_scratch_len());
        let finish = checked(end, packing.columns(), rows.saturating_mul(c.output_len()));
        let run = match packing.kind {
            pack::Kind::Depthwise { .. } => depthwise::depthwise,
            pack::Kind::Panels { .. } => product::conv,
        };
        // SAFETY: every length is checked above.
        unsafe {
            run(
                self.integers,
                c,
                rows,
                x,
                zero_point,
                packed,
                bias,
                finish,
                scratch,
            );
        }
    }

    /// The end of a product from sums that [`End::Raw`] stored, `[rows, columns]`.
    pub fn int8_end(&self, columns: usize, acc: &[i32], end: End<'_>) {
        assert!(
            columns > 0 && acc.len().is_multiple_of(columns),
            "{} sums are not rows of {columns} columns",
            acc.len()
        );
        let finish = checked(end, columns, acc.len());
        let sums = Sums {
            acc: acc.as_ptr(),
            acc_stride: columns,
            rows: acc.len() / columns,
            columns,
            column: 0,
            at: 0,
            stride: columns,
        };
        // SAFETY: every length is checked above.
        unsafe { (self.integers.end())(&sums, &finish) };
    }

    /// Maximum pooling; padding never takes part. Scale and zero point stay.
    pub fn int8_max_pool(&self, p: &Pool, rows: usize, x: &[u8], y: &mut [u8]) {
        need("x", x, rows.saturating_mul(p.input_len()));
        need("y", y, rows.saturating_mul(p.output_len()));
        pool::max_pool(self.integers, p, rows, x, y);
    }

    /// Average pooling over the inputs in each window, `count` of them, which are added as the
    /// `f32` numbers that they stand for, rows before columns:
    /// `clamp(rne(sum / count / output scale + output zero point))`. These are the integers of
    /// onnxruntime's QLinearAveragePool. (Where input and output share a scale, an exact sum would
    /// meet ties all the time, and they fall otherwise in about one output of twenty.)
    pub fn int8_avg_pool(
        &self,
        p: &Pool,
        rows: usize,
        x: &[u8],
        from: Affine,
        to: Affine,
        y: &mut [u8],
    ) {
        need("x", x, rows.saturating_mul(p.input_len()));
        need("y", y, rows.saturating_mul(p.output_len()));
        pool::avg_pool(self.integers, p, rows, x, from, to, y);
    }

    /// Global average pooling: `x[rows, positions, channels]` to `y[rows, channels]`,
    /// `clamp(rne((sum - count * zero point) * (scale / (output scale * count))) + output zero
    /// point)`; the integers of onnxruntime's QLinearGlobalAveragePool. At most 2^23 positions.
    pub fn int8_global_avg_pool(
        &self,
        rows: usize,
        positions: usize,
        channels: usize,
        x: &[u8],
        from: Affine,
        to: Affine,
        y: &mut [u8],
    ) {
        assert!(positions <= 1 << 23, "too many positions for exact sums");
        need(
            "x",
            x,
            rows.saturating_mul(positions).saturating_mul(channels),
        );
        need("y", y, rows.saturating_mul(channels));
        pool::global_avg_pool(self.integers, rows, positions, channels, x, from, to, y);
    }

    /// `y = first + second`, by the recipe of [`Add`].
    pub fn int8_add(&self, add: &Add, first: &[u8], second: &[u8], y: &mut [u8]) {
        need("the second operand", second, first.len());
        need("y", y, first.len());
        elementwise::add(self.integers, add, first, second, &mut y[..first.len()]);
    }

    /// `y = table[x]`: any function of one number ([`Affine::table`]).
    pub fn int8_lut(&self, table: &[u8; 256], x: &[u8], y: &mut [u8]) {
        need("y", y, x.len());
        elementwise::lut(table, x, y);
    }

    /// [`Affine::quantize`] of every number.
    pub fn int8_quantize(&self, to: Affine, x: &[f32], y: &mut [u8]) {
        need("y", y, x.len());
        elementwise::quantize(self.integers, to, x, y);
    }

    /// [`Affine::dequantize`] of every integer.
    pub fn int8_dequantize(&self, from: Affine, x: &[u8], y: &mut [f32]) {
        need("y", y, x.len());
        elementwise::dequantize(self.integers, from, x, y);
    }

    /// From one scale and zero point to another: the table of the identity.
    pub fn int8_requantize(&self, from: Affine, to: Affine, x: &[u8], y: &mut [u8]) {
        self.int8_lut(&from.table(to, |x| x), x, y);
    }
}
