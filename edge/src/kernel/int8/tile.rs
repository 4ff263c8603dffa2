//! One tile of an integer product, held in registers, for every tier of instructions.

use super::pack::PANEL;
use super::types::{Add, INSIDE, POSITIVE, Side};

/// A processor's integer instructions, sixteen columns at a time. A value proves that the
/// processor has them.
///
/// Integer arithmetic wraps; f32 arithmetic rounds once. So all tiers give the same bits.
pub(super) trait Tier: Copy {
    /// Four inputs, broadcast.
    type A: Copy;
    /// Four weights of each of sixteen columns.
    type B: Copy;
    /// Sums of sixteen columns in whatever form is fastest to add to.
    type Acc: Copy;
    /// Sixteen integers.
    type I: Copy;
    /// Sixteen numbers.
    type F: Copy;

    /// # Safety
    /// The processor must have the instructions.
    unsafe fn assume() -> Self;

    /// What the sums of a product start from.
    fn begin(self, bias: Self::I) -> Self::Acc;
    fn a(self, four: u32) -> Self::A;
    /// # Safety
    /// `p` must be valid for reading 64 bytes.
    unsafe fn b(self, p: *const i8) -> Self::B;
    /// `acc += a . b`
    fn dot(self, acc: &mut Self::Acc, a: Self::A, b: &Self::B);
    /// `acc + x[0] * w[..][0] + x[1] * w[..][1]`, of sixteen channels.
    /// # Safety
    /// Both pointers must be valid for reading 16 bytes.
    unsafe fn pair(self, acc: Self::I, x: [*const u8; 2], w: &[[i16; 2]; 16]) -> Self::I;
    /// The complete sums; `bias` as at the beginning.
    fn sums(self, acc: Self::Acc, bias: Self::I) -> Self::I;

    fn splat_i(self, x: i32) -> Self::I;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn min_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `bit` where `a == b`, else 0.
    fn equal_i(self, a: Self::I, b: Self::I, bit: i32) -> Self::I;
    /// `bit` where `a > b`, else 0.
    fn greater_i(self, a: Self::I, b: Self::I, bit: i32) -> Self::I;
    fn to_f(self, a: Self::I) -> Self::F;

    fn splat_f(self, x: f32) -> Self::F;
    fn mul_f(self, a: Self::F, b: Self::F) -> Self::F;
    fn fma_f(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn div_f(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b`
    fn min_f(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a > b ? a : b`
    fn max_f(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even; for `|a| < 2^21`.
    fn round(self, a: Self::F) -> Self::I;

    /// The first `n <= 16` integers at `p`, and zeros.
    /// # Safety
    /// `p` must be valid for reading `n` integers.
    unsafe fn load_i(self, p: *const i32, n: usize) -> Self::I;
    /// # Safety
    /// `p` must be valid for reading `n` numbers.
    unsafe fn load_f(self, p: *const f32, n: usize) -> Self::F;
    /// # Safety
    /// `p` must be valid for reading `n` bytes.
    unsafe fn load_u8(self, p: *const u8, n: usize) -> Self::I;
    /// # Safety
    /// `p` must be valid for writing `n` integers.
    unsafe fn store_i(self, p: *mut i32, n: usize, x: Self::I);
    /// # Safety
    /// `p` must be valid for writing `n` numbers.
    unsafe fn store_f(self, p: *mut f32, n: usize, x: Self::F);
    /// Stores integers of `0 ..= 255`.
    /// # Safety
    /// `p` must be valid for writing `n` bytes.
    unsafe fn store_u8(self, p: *mut u8, n: usize, x: Self::I);

    /// Requantizes sums of `W` panels, of whose last `last` columns count; the multipliers are
    /// small.
    ///
    /// # Safety
    /// `y` must be valid for writing the columns.
    #[inline(always)]
    unsafe fn requantize<const W: usize>(
        self,
        sums: &[Self::I; W],
        multipliers: &[Self::F; W],
        r: &Rounding,
        y: *mut u8,
        last: usize,
    ) {
        for w in 0..W {
            let q = self.rounded(sums[w], multipliers[w], r);
            let n = if w + 1 == W { last } else { PANEL };
            // SAFETY: the caller's promise.
            unsafe { self.store_u8(y.add(w * PANEL), n, q) };
        }
    }

    /// `clamp(rne(sums * multiplier) + zero_point, low, high)`
    #[inline(always)]
    fn rounded(self, sums: Self::I, multiplier: Self::F, r: &Rounding) -> Self::I {
        let steps = self.mul_f(self.to_f(sums), multiplier);
        let steps = self.max_f(steps, self.splat_f(f32::from(r.low - r.zero_point)));
        let steps = self.min_f(steps, self.splat_f(f32::from(r.high - r.zero_point)));
        self.add_i(self.round(steps), self.splat_i(i32::from(r.zero_point)))
    }
}

/// [`Requantize`](super::Requantize) without its multipliers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounding {
    pub(super) zero_point: i16,
    pub(super) low: i16,
    pub(super) high: i16,
    /// All multipliers are below one, so that no product leaves the range of i32.
    pub(super) small: bool,
}

/// Numbers for each column, or one for all.
#[derive(Clone, Copy, Debug)]
pub(super) enum PerColumn {
    One(f32),
    Each(*const f32),
}

impl PerColumn {
    pub(super) fn of(numbers: &[f32]) -> Self {
        match numbers {
            [one] => Self::One(*one),
            many => Self::Each(many.as_ptr()),
        }
    }

    /// The numbers of `n <= 16` columns.
    ///
    /// # Safety
    /// There must be numbers for the columns.
    #[inline(always)]
    pub(super) unsafe fn load<T: Tier>(self, t: T, column: usize, n: usize) -> T::F {
        match self {
            Self::One(x) => t.splat_f(x),
            // SAFETY: the caller's promise.
            Self::Each(p) => unsafe { t.load_f(p.add(column), n) },
        }
    }
}

/// [`End`](super::End) as pointers to the product's first output.
#[derive(Clone, Copy, Debug)]
pub(super) enum Finish {
    Raw(*mut i32),
    Dequantize {
        scales: PerColumn,
        y: *mut f32,
    },
    Requantize {
        multipliers: PerColumn,
        rounding: Rounding,
        y: *mut u8,
    },
    Masked {
        multipliers: PerColumn,
        rounding: Rounding,
        y: *mut u8,
        mask: *mut u8,
    },
    Add {
        multipliers: PerColumn,
        rounding: Rounding,
        add: Add,
        side: Side,
        other: *const u8,
        y: *mut u8,
    },
}

/// Finishes stored sums: see [`ending`], which every tier compiles for itself.
pub(super) type EndFn = unsafe fn(&Sums, &Finish);

/// Sums that wait for their end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    /// `rows` of `columns`, `acc_stride` apart.
    pub(super) acc: *const i32,
    pub(super) acc_stride: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// The first one's column, and its index among the outputs, whose rows are `stride` apart.
    pub(super) column: usize,
    pub(super) at: usize,
    pub(super) stride: usize,
}

/// Finishes sums.
///
/// # Safety
/// Everything that `finish` points to must be valid for the outputs and columns.
#[inline(always)]
pub(super) unsafe fn ending<T: Tier>(t: T, sums: &Sums, finish: &Finish) {
    for row in 0..sums.rows {
        for panel in (0..sums.columns).step_by(PANEL) {
            let n = PANEL.min(sums.columns - panel);
            let (to, column) = (sums.at + row * sums.stride + panel, sums.column + panel);
            // SAFETY: the caller's promise, for every load and store below.
            unsafe {
                let acc = t.load_i(sums.acc.add(row * sums.acc_stride + panel), n);
                match *finish {
                    Finish::Raw(y) => t.store_i(y.add(to), n, acc),
                    Finish::Dequantize { scales, y } => {
                        let real = t.mul_f(t.to_f(acc), scales.load(t, column, n));
                        t.store_f(y.add(to), n, real);
                    }
                    Finish::Requantize {
                        multipliers,
                        rounding,
                        y,
                    } => {
                        let q = t.rounded(acc, multipliers.load(t, column, n), &rounding);
                        t.store_u8(y.add(to), n, q);
                    }
                    Finish::Masked {
                        multipliers,
                        rounding,
                        y,
                        mask,
                    } => {
                        let multiplier = multipliers.load(t, column, n);
                        let (q, bits) = masked(t, acc, multiplier, &rounding);
                        t.store_u8(y.add(to), n, q);
                        t.store_u8(mask.add(to), n, bits);
                    }
                    Finish::Add {
                        multipliers,
                        rounding,
                        add,
                        side,
                        other,
                        y,
                    } => {
                        let own = t.rounded(acc, multipliers.load(t, column, n), &rounding);
                        let other = t.load_u8(other.add(to), n);
                        let sum = match side {
                            Side::First => added(t, own, other, &add),
                            Side::Second => added(t, other, own, &add),
                        };
                        t.store_u8(y.add(to), n, sum);
                    }
                }
            }
        }
    }
}

/// Requantized sums and their masks.
#[inline(always)]
pub(super) fn masked<T: Tier>(t: T, sums: T::I, multiplier: T::F, r: &Rounding) -> (T::I, T::I) {
    // Bounds one step wider than the clamp's tell what the clamp would cut off.
    let wide = Rounding {
        low: r.low - 1,
        high: r.high + 1,
        ..*r
    };
    let free = t.rounded(sums, multiplier, &wide);
    let q = t.max_i(free, t.splat_i(i32::from(r.low)));
    let q = t.min_i(q, t.splat_i(i32::from(r.high)));
    let inside = t.equal_i(q, free, i32::from(INSIDE));
    let positive = t.greater_i(sums, t.splat_i(0), i32::from(POSITIVE));
    (q, t.add_i(inside, positive))
}

/// The recipe of [`Add`].
#[inline(always)]
pub(super) fn added<T: Tier>(t: T, first: T::I, second: T::I, add: &Add) -> T::I {
    let sum = t.fma_f(
        t.to_f(second),
        t.splat_f(add.second_ratio),
        t.splat_f(add.fixed),
    );
    let sum = t.fma_f(t.to_f(first), t.splat_f(add.first_ratio), sum);
    let sum = t.max_f(sum, t.splat_f(f32::from(add.low)));
    t.round(t.min_f(sum, t.splat_f(f32::from(add.high))))
}

/// One tile's operands. The terms are `outer * inner` runs of `run_len` inputs side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Row 0, first run.
    pub(super) a: *const u8,
    pub(super) row_stride: usize,
    pub(super) outer: usize,
    pub(super) outer_stride: usize,
    pub(super) inner: usize,
    pub(super) inner_stride: usize,
    pub(super) run_len: usize,
    /// The first panel.
    pub(super) b: *const i8,
    pub(super) panel_stride: usize,
    pub(super) bias: *const i32,
    pub(super) finish: Finish,
    /// This tier's [`ending`].
    pub(super) end: EndFn,
    /// Index of the first column and of the first output, distance of rows of outputs.
    pub(super) column: usize,
    pub(super) at: usize,
    pub(super) stride: usize,
    /// Columns in the last panel, `1 ..= 16`.
    pub(super) last: usize,
}

/// A micro-kernel.
pub(super) type TileFn = unsafe fn(&Tile);

/// Repeats a body for each row `$r` below `R` (at most 12), written out so that the sums stay in
/// registers whatever the optimizer thinks of the loop.
macro_rules! rows {
    ($r:ident, $body:block) => {
        rows!(@ $r, $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $r:ident, $body:block, $($row:literal)*) => {{
        $(if $row < R {
            let $r: usize = $row;
            $body
        })*
    }};
}

/// Repeats a body for each panel `$w` below `W` (at most 8).
macro_rules! panels {
    ($w:ident, $body:block) => {
        panels!(@ $w, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $w:ident, $body:block, $($panel:literal)*) => {{
        $(if $panel < W {
            let $w: usize = $panel;
            $body
        })*
    }};
}

/// Computes a tile of `R` rows and `W` panels.
///
/// # Safety
/// Every element that the tile describes must be valid.
#[inline(always)]
pub(super) unsafe fn tile<T: Tier, const R: usize, const W: usize>(t: T, job: &Tile) {
    let mut bias = [t.splat_i(0); W];
    panels!(w, {
        let n = if w + 1 == W { job.last } else { PANEL };
        // SAFETY: the caller's promise.
        bias[w] = unsafe { t.load_i(job.bias.add(job.column + w * PANEL), n) };
    });
    let mut acc = [[t.begin(bias[0]); W]; R];
    rows!(r, { panels!(w, { acc[r][w] = t.begin(bias[w]) }) });
    let mut b = job.b;
    let (quads, rest) = (job.run_len / 4, job.run_len % 4);
    // SAFETY: the caller's promise; every pointer stays inside its operand, and the few terms of
    // the last quadruple are read one by one.
    unsafe {
        for outer in 0..job.outer {
            for inner in 0..job.inner {
                let mut a = job
                    .a
                    .add(outer * job.outer_stride + inner * job.inner_stride);
                for _ in 0..quads {
                    let mut columns = [t.b(b); W];
                    panels!(w, { columns[w] = t.b(b.add(w * job.panel_stride)) });
                    rows!(r, {
                        let x = t.a(a.add(r * job.row_stride).cast::<u32>().read_unaligned());
                        panels!(w, { t.dot(&mut acc[r][w], x, &columns[w]) });
                    });
                    a = a.add(4);
                    b = b.add(4 * PANEL);
                }
                if rest > 0 {
                    let mut columns = [t.b(b); W];
                    panels!(w, { columns[w] = t.b(b.add(w * job.panel_stride)) });
                    rows!(r, {
                        let x = t.a(few(a.add(r * job.row_stride), rest));
                        panels!(w, { t.dot(&mut acc[r][w], x, &columns[w]) });
                    });
                    b = b.add(4 * PANEL);
                }
            }
        }
        let mut sums = [[bias[0]; W]; R];
        rows!(r, {
            panels!(w, { sums[r][w] = t.sums(acc[r][w], bias[w]) })
        });
        match job.finish {
            Finish::Requantize {
                multipliers,
                rounding,
                y,
            } if rounding.small => {
                let mut each = [t.splat_f(0.0); W];
                panels!(w, {
                    let n = if w + 1 == W { job.last } else { PANEL };
                    each[w] = multipliers.load(t, job.column + w * PANEL, n);
                });
                rows!(r, {
                    let y = y.add(job.at + r * job.stride);
                    t.requantize(&sums[r], &each, &rounding, y, job.last);
                });
            }
            _ => {
                let mut acc = [[[0i32; PANEL]; W]; R];
                rows!(r, {
                    panels!(w, { t.store_i(acc[r][w].as_mut_ptr(), PANEL, sums[r][w]) })
                });
                let sums = Sums {
                    acc: acc.as_ptr().cast(),
                    acc_stride: W * PANEL,
                    rows: R,
                    columns: (W - 1) * PANEL + job.last,
                    column: job.column,
                    at: job.at,
                    stride: job.stride,
                };
                (job.end)(&sums, &job.finish);
            }
        }
    }
}

/// The first one to three of four bytes, and zeros.
///
/// # Safety
/// `p` must be valid for reading `n` bytes.
#[inline(always)]
unsafe fn few(p: *const u8, n: usize) -> u32 {
    // SAFETY: the caller's promise.
    let byte = |i: usize| if i < n { unsafe { p.add(i).read() } } else { 0 };
    u32::from_ne_bytes([byte(0), byte(1), byte(2), 0])
}
