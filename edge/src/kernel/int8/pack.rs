//! Weights as the kernels read them. The bytes are the same on every machine, so a file can hold
//! them and a memory map serve them.
//!
//! # Panels (dense layers and convolutions)
//! A column is an output or a filter. The terms of a column's sum fall into *runs* of inputs that
//! lie side by side: all of them in a dense layer, `kernel columns * channels` for each kernel row
//! of a convolution, `channels / groups` for each kernel position of a grouped one. Runs are
//! padded to whole quadruples of terms, columns to whole panels of 16, both with zeros:
//!
//! `[group][panel][run][quadruple][column 0..16][term 0..4]`, one byte each.
//!
//! # Depthwise
//! Channels fall into blocks of 64, the rows of a kernel column into quadruples:
//!
//! `[block][kernel column][quadruple][j 0..4][lane 0..4][channel 0..4][row 0..4]`, where the byte
//! belongs to channel `64 * block + 16 * lane + 4 * j + channel` and kernel row
//! `4 * quadruple + row`: the order in which interleaving four rows of 64 inputs leaves them.
//!
//! # Bias
//! The input's zero point is taken into account once, in the bias:
//! `sum (x - z) * w + b = sum x * w + (b - z * sum w)`. Outside the image `x` is `z`.

use super::super::Kernels;
use super::super::geometry::{Conv, Dense};
use super::level::{Level, tiered};

/// Columns of a panel.
pub(super) const PANEL: usize = 16;
/// Channels of a depthwise block.
pub(super) const BLOCK: usize = 64;

/// Sums of so many terms are exact for all inputs and weights (`255 * 127 * 66,311 < 2^31`, the
/// bias aside). Longer sums wrap modulo 2^32, alike on every machine.
pub const MAX_EXACT_TERMS: usize = 66_311;

/// How one product's weights are packed; see the [module](self) for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    pub(super) kind: Kind,
    /// Columns of all groups: outputs, filters or channels.
    pub(super) columns: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Panels {
        groups: usize,
        runs: usize,
        run_len: usize,
    },
    Depthwise {
        kernel: [usize; 2],
    },
}

impl Packing {
    /// For a dense layer's weights `[inputs, outputs]`.
    #[must_use]
    pub fn dense(d: &Dense) -> Self {
        Self {
            kind: Kind::Panels {
                groups: 1,
                runs: 1,
                run_len: d.inputs,
            },
            columns: d.outputs,
        }
    }

    /// For a convolution's weights, HWIO.
    #[must_use]
    pub fn conv(c: &Conv) -> Self {
        let s = c.shape;
        let [kh, kw] = s.kernel;
        let kind = if c.is_depthwise() && s.channels > 1 {
            Kind::Depthwise { kernel: s.kernel }
        } else if s.groups == 1 {
            Kind::Panels {
                groups: 1,
                runs: kh,
                run_len: kw * s.channels,
            }
        } else {
            Kind::Panels {
                groups: s.groups,
                runs: kh * kw,
                run_len: s.channels / s.groups,
            }
        };
        Self {
            kind,
            columns: s.filters,
        }
    }

    /// A short name of the layout, for files: `panels16x4` or `depthwise64x4`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Panels { .. } => "panels16x4",
            Kind::Depthwise { .. } => "depthwise64x4",
        }
    }

    /// Bytes of packed weights, a multiple of 64.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.kind {
            Kind::Panels { groups, .. } => {
                groups * (self.columns / groups).div_ceil(PANEL) * self.panel_len()
            }
            Kind::Depthwise { kernel: [kh, kw] } => {
                self.columns.div_ceil(BLOCK) * kw * kh.div_ceil(4) * BLOCK * 4
            }
        }
    }

    /// Whether there are no weights; there always are some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Weights of the unpacked tensor.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.terms() * self.columns
    }

    /// Terms of a column's sum.
    #[must_use]
    pub fn terms(&self) -> usize {
        match self.kind {
            Kind::Panels { runs, run_len, .. } => runs * run_len,
            Kind::Depthwise { kernel: [kh, kw] } => kh * kw,
        }
    }

    /// Columns: length of the bias and of multipliers that differ by column.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of a panel.
    pub(super) fn panel_len(&self) -> usize {
        match self.kind {
            Kind::Panels { runs, run_len, .. } => runs * run_len.div_ceil(4) * 4 * PANEL,
            Kind::Depthwise { .. } => 0,
        }
    }

    /// Packs `weight` (`[inputs, outputs]` or HWIO, within ±127 as a rule, any i8 is computed
    /// exactly) and folds the input's zero point into `bias` (none means zeros).
    ///
    /// `packed` holds [`Packing::len`] bytes, `folded` [`Packing::columns`] numbers.
    ///
    /// # Panics
    /// When a slice is too short.
    pub fn pack(
        &self,
        weight: &[i8],
        bias: Option<&[i32]>,
        zero_point: u8,
        packed: &mut [i8],
        folded: &mut [i32],
    ) {
        let level = Kernels::best().integers;
        self.pack_on(level, weight, bias, zero_point, packed, folded);
    }

    /// [`Packing::pack`] by the instructions of a tier.
    fn pack_on(
        &self,
        level: Level,
        weight: &[i8],
        bias: Option<&[i32]>,
        zero_point: u8,
        packed: &mut [i8],
        folded: &mut [i32],
    ) {
        assert!(weight.len() >= self.weights(), "the weight is too short");
        assert!(packed.len() >= self.len(), "the packed weight is too short");
        let (packed, folded) = (&mut packed[..self.len()], &mut folded[..self.columns]);
        let weight = &weight[..self.weights()];
        match self.kind {
            Kind::Panels {
                groups,
                runs,
                run_len,
            } => {
                panels(level, weight, self.columns, [groups, runs, run_len], packed);
                let panel_len = self.panel_len();
                column_sums(level, packed, panel_len, self.columns / groups, folded);
            }
            Kind::Depthwise { kernel: [kh, kw] } => {
                folded.fill(0);
                for row in weight.chunks_exact(self.columns) {
                    for (sum, w) in folded.iter_mut().zip(row) {
                        *sum = sum.wrapping_add(i32::from(*w));
                    }
                }
                packed.fill(0);
                for row in 0..kh {
                    for column in 0..kw {
                        for channel in 0..self.columns {
                            let at = depthwise_index([kh, kw], row, column, channel);
                            packed[at] = weight[(row * kw + column) * self.columns + channel];
                        }
                    }
                }
            }
        }
        for (column, sum) in folded.iter_mut().enumerate() {
            let bias = bias.map_or(0, |bias| bias[column]);
            *sum = bias.wrapping_sub(sum.wrapping_mul(i32::from(zero_point)));
        }
    }

    /// Takes [`Packing::pack`] back: the weights in their own order, and the bias.
    ///
    /// # Panics
    /// When a slice is too short.
    pub fn unpack(
        &self,
        packed: &[i8],
        folded: &[i32],
        zero_point: u8,
        weight: &mut [i8],
        bias: &mut [i32],
    ) {
        let weight = &mut weight[..self.weights()];
        for (at, w) in weight.iter_mut().enumerate() {
            *w = packed[self.index(at / self.columns, at % self.columns)];
        }
        let bias = &mut bias[..self.columns];
        bias.copy_from_slice(&folded[..self.columns]);
        for row in weight.chunks_exact(self.columns) {
            for (bias, w) in bias.iter_mut().zip(row) {
                let term = i32::from(*w).wrapping_mul(i32::from(zero_point));
                *bias = bias.wrapping_add(term);
            }
        }
    }

    /// Where the weight of a term and a column lies among the packed bytes.
    fn index(&self, term: usize, column: usize) -> usize {
        match self.kind {
            Kind::Panels {
                groups,
                runs,
                run_len,
            } => {
                let columns = self.columns / groups;
                let quads = run_len.div_ceil(4);
                let (group, column) = (column / columns, column % columns);
                let panel = group * columns.div_ceil(PANEL) + column / PANEL;
                let quad = (panel * runs + term / run_len) * quads + term % run_len / 4;
                (quad * PANEL + column % PANEL) * 4 + term % run_len % 4
            }
            Kind::Depthwise { kernel } => {
                depthwise_index(kernel, term / kernel[1], term % kernel[1], column)
            }
        }
    }
}

tiered! {
    /// Packs panels; the shape is `[groups, runs, run_len]` as in [`Kind::Panels`].
    fn panels(
        t, weight: &[i8], stride: usize, shape: [usize; 3], packed: &mut [i8],
    ) {
        let _ = t;
        let [groups, runs, run_len] = shape;
        let (columns, quads) = (stride / groups, run_len.div_ceil(4));
        let (blocks, _) = packed.as_chunks_mut::<{ 4 * PANEL }>();
        let mut blocks = blocks.iter_mut();
        for group in 0..groups {
            for panel in (0..columns).step_by(PANEL) {
                let width = PANEL.min(columns - panel);
                for run in 0..runs {
                    for (quad, to) in (0..quads).zip(&mut blocks) {
                        let terms = 4.min(run_len - 4 * quad);
                        let row = run * run_len + 4 * quad;
                        let from = &weight[row * stride + group * columns + panel..];
                        interleave(from, stride, terms, width, to);
                    }
                }
            }
        }
    }

    /// The sum of the packed weights of each column, modulo 2^32; `columns` to a group.
    fn column_sums(t, packed: &[i8], panel_len: usize, columns: usize, sums: &mut [i32]) {
        let mut panels = packed.chunks_exact(panel_len.max(1));
        for group in sums.chunks_mut(columns.max(1)) {
            for (sums, panel) in group.chunks_mut(PANEL).zip(&mut panels) {
                let (zero, ones) = (t.splat_i(0), t.a(0x0101_0101));
                let mut acc = t.begin(zero);
                for block in panel.chunks_exact(4 * PANEL) {
                    // SAFETY: the block has 64 bytes.
                    t.dot(&mut acc, ones, &unsafe { t.b(block.as_ptr()) });
                }
                let n = sums.len();
                // SAFETY: there are `n <= 16` sums.
                unsafe { t.store_i(sums.as_mut_ptr(), n, t.sums(acc, zero)) };
            }
        }
    }
}

/// Four rows of a panel, `stride` apart, side by side; zeros for terms and columns that are none.
#[inline(always)]
fn interleave(from: &[i8], stride: usize, terms: usize, width: usize, to: &mut [i8; 4 * PANEL]) {
    let whole = |term: usize| {
        from.get(term * stride..)
            .and_then(<[i8]>::first_chunk::<PANEL>)
    };
    let rows = match (terms, width, [whole(0), whole(1), whole(2), whole(3)]) {
        (4, PANEL, [Some(a), Some(b), Some(c), Some(d)]) => [*a, *b, *c, *d],
        _ => {
            let mut rows = [[0i8; PANEL]; 4];
            for (term, row) in rows.iter_mut().enumerate().take(terms) {
                row[..width].copy_from_slice(&from[term * stride..][..width]);
            }
            rows
        }
    };
    // A column's four bytes as one integer: loops that become vector code.
    let mut columns = [0u32; PANEL];
    for (term, row) in rows.iter().enumerate() {
        for (column, w) in columns.iter_mut().zip(row) {
            *column |= u32::from(w.cast_unsigned()) << (8 * term);
        }
    }
    for (to, column) in to.as_chunks_mut::<4>().0.iter_mut().zip(columns) {
        *to = column.to_le_bytes().map(u8::cast_signed);
    }
}

impl Kernels {
    /// [`Packing::pack`] by these kernels.
    pub fn int8_pack(
        &self,
        packing: &Packing,
        weight: &[i8],
        bias: Option<&[i32]>,
        zero_point: u8,
        packed: &mut [i8],
        folded: &mut [i32],
    ) {
        packing.pack_on(self.integers, weight, bias, zero_point, packed, folded);
    }
}

/// Where a depthwise weight lies.
pub(super) fn depthwise_index(
    [kh, kw]: [usize; 2],
    row: usize,
    column: usize,
    channel: usize,
) -> usize {
    let (block, inside) = (channel / BLOCK, channel % BLOCK);
    let (lane, j, c) = (inside / 16, inside % 16 / 4, inside % 4);
    let quad = (block * kw + column) * kh.div_ceil(4) + row / 4;
    (quad * BLOCK + j * 16 + lane * 4 + c) * 4 + row % 4
}
