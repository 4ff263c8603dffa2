//! Scaled dot-product attention of a sequence with itself, in several heads.
//!
//! The input holds queries, keys and values side by side, `[positions, 3 * width]`, each of as many
//! heads as divide the width. For each example and head:
//!
//! ```text
//! s[i, j] = sum over k of q[i, k] key[j, k]
//! m[i]    = max over j of s[i, j]
//! e[i, j] = exp((s[i, j] - m[i]) / sqrt(head width))
//! p[i, j] = e[i, j] * (1 / sum over j of e[i, j])
//! y[i]    = sum over j of p[i, j] v[j]
//! ```
//!
//! Sums run ascending. A causal layer leaves out every `j` after `i`: there `p` is zero.
//!
//! # Source
//! Vaswani et al. 2017, arXiv:1706.03762, §3.2.

use super::geometry::GeometryError;
use super::math;
use super::product::{self, Strided};
use super::simd::{map, vectorized};
use super::{Kernels, need};
#[cfg(not(feature = "std"))]
use crate::kernel::Float as _;

/// The shape of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    positions: usize,
    heads: usize,
    head: usize,
    causal: bool,
}

impl Attention {
    /// Checks the shape: `positions` of `width` numbers in `heads`, which must divide the width.
    ///
    /// # Errors
    /// [`GeometryError`]
    pub fn new(
        positions: usize,
        width: usize,
        heads: usize,
        causal: bool,
    ) -> Result<Self, GeometryError> {
        for (what, size) in [
            ("the number of positions", positions),
            ("the number of features", width),
            ("the number of heads", heads),
        ] {
            if size == 0 {
                return Err(GeometryError::Zero { what });
            }
        }
        if !width.is_multiple_of(heads) {
            return Err(GeometryError::Groups {
                channels: width,
                groups: heads,
            });
        }
        Ok(Self {
            positions,
            heads,
            head: width / heads,
            causal,
        })
    }

    /// Positions.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Heads.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Numbers of a query, a key or a value, all heads together.
    #[must_use]
    pub fn width(&self) -> usize {
        self.heads * self.head
    }

    /// Whether a position sees only itself and those before.
    #[must_use]
    pub fn causal(&self) -> bool {
        self.causal
    }

    /// Numbers of one example's input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        3 * self.output_len()
    }

    /// Numbers of one example's output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.positions * self.width()
    }

    /// Numbers of one example's probabilities `[heads, positions, positions]`.
    #[must_use]
    pub fn probabilities_len(&self) -> usize {
        self.heads * self.positions * self.positions
    }

    /// Numbers of scratch, forward.
    #[must_use]
    pub fn forward_scratch_len(&self) -> usize {
        self.head * self.positions
    }

    /// Numbers of scratch, backward.
    #[must_use]
    pub fn backward_scratch_len(&self) -> usize {
        (self.head + self.positions) * self.positions
    }

    /// Multiply-accumulates of one example, all `positions * positions` pairs counted.
    #[must_use]
    pub fn macs(&self) -> u64 {
        2 * (self.probabilities_len() as u64) * self.head as u64
    }

    /// The factor of a score, `1 / sqrt(head width)`.
    fn scale(&self) -> f32 {
        1.0 / libm::sqrtf(self.head as f32)
    }
}

/// Positions that position `i` sees.
fn seen(a: &Attention, i: usize) -> usize {
    if a.causal { i + 1 } else { a.positions }
}

vectorized! {
    /// Scores of one head become probabilities.
    fn softmax(v, a: &Attention, scores: &mut [f32]) {
        for (i, row) in scores.chunks_exact_mut(a.positions).enumerate() {
            let (row, unseen) = row.split_at_mut(seen(a, i));
            unseen.fill(0.0);
            let mut max = row[0];
            for &s in &row[1..] {
                // A NaN compares false; it is seen in the sum.
                max = if s > max { s } else { max };
            }
            let (m, scale) = (v.splat(max), v.splat(a.scale()));
            map!(v, row.len(); s = row; {} row => math::exp(v, v.mul(v.sub(s, m), scale)));
            let mut sum = 0.0f32;
            for &e in &*row {
                sum += e;
            }
            let inverse = v.splat(1.0 / sum);
            map!(v, row.len(); e = row; {} row => v.mul(e, inverse));
        }
    }

    /// Gradients of probabilities become gradients of the products of queries and keys.
    fn softmax_back(v, a: &Attention, probabilities: &[f32], gradient: &mut [f32]) {
        let rows = gradient
            .chunks_exact_mut(a.positions)
            .zip(probabilities.chunks_exact(a.positions));
        for (i, (d, p)) in rows.enumerate() {
            let (d, unseen) = d.split_at_mut(seen(a, i));
            unseen.fill(0.0);
            let mut sum = 0.0f32;
            for (&d, &p) in d.iter().zip(p) {
                sum = d.mul_add(p, sum);
            }
            let (sum, scale) = (v.splat(sum), v.splat(a.scale()));
            map!(v, d.len(); g = d, q = p; {
                let along = v.mul(q, v.sub(g, sum));
            } d => v.mul(along, scale));
        }
    }
}

impl Kernels {
    /// Attention of queries, keys and values `x[rows, positions, 3 * width]`. `probabilities`
    /// receives `[rows, heads, positions, positions]`, which the backward pass needs.
    ///
    /// `scratch` holds [`Attention::forward_scratch_len`].
    pub fn attention(
        &self,
        a: &Attention,
        rows: usize,
        x: &[f32],
        y: &mut [f32],
        probabilities: &mut [f32],
        scratch: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(a.input_len()));
        need("y", y, rows.saturating_mul(a.output_len()));
        let squares = rows.saturating_mul(a.probabilities_len());
        need("the probabilities", probabilities, squares);
        need("the scratch", scratch, a.forward_scratch_len());
        let (t, w, h, stride) = (a.positions, a.width(), a.head, 3 * a.width());
        for row in 0..rows {
            let x = &x[row * a.input_len()..][..a.input_len()];
            let y = &mut y[row * a.output_len()..][..a.output_len()];
            for head in 0..a.heads {
                let at = |part: usize| Strided {
                    values: &x[part * w + head * h..],
                    stride,
                };
                let p = &mut probabilities[(row * a.heads + head) * t * t..][..t * t];
                product::transpose_strided(self.isa, t, h, at(1), scratch);
                let keys = Strided {
                    values: scratch,
                    stride: t,
                };
                product::strided(self.isa, [t, h, t], at(0), false, keys, p, t);
                softmax(self.isa, a, p);
                let left = Strided {
                    values: p,
                    stride: t,
                };
                let to = &mut y[head * h..];
                product::strided(self.isa, [t, t, h], left, false, at(2), to, w);
            }
        }
    }

    /// Gradient of an attention's queries, keys and values, by its probabilities; `dx` is
    /// overwritten.
    ///
    /// `scratch` holds [`Attention::backward_scratch_len`].
    pub fn attention_dx(
        &self,
        a: &Attention,
        rows: usize,
        x: &[f32],
        probabilities: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        scratch: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(a.input_len()));
        need("dx", dx, rows.saturating_mul(a.input_len()));
        need("dy", dy, rows.saturating_mul(a.output_len()));
        let squares = rows.saturating_mul(a.probabilities_len());
        need("the probabilities", probabilities, squares);
        need("the scratch", scratch, a.backward_scratch_len());
        let (t, w, h, stride) = (a.positions, a.width(), a.head, 3 * a.width());
        let (turned, ds) = scratch.split_at_mut(h * t);
        let ds = &mut ds[..t * t];
        for row in 0..rows {
            let x = &x[row * a.input_len()..][..a.input_len()];
            let dx = &mut dx[row * a.input_len()..][..a.input_len()];
            let dy = &dy[row * a.output_len()..][..a.output_len()];
            for head in 0..a.heads {
                let at = |part: usize| Strided {
                    values: &x[part * w + head * h..],
                    stride,
                };
                let dy = Strided {
                    values: &dy[head * h..],
                    stride: w,
                };
                let p = &probabilities[(row * a.heads + head) * t * t..][..t * t];
                product::transpose_strided(self.isa, t, h, at(2), turned);
                let values = Strided {
                    values: turned,
                    stride: t,
                };
                product::strided(self.isa, [t, h, t], dy, false, values, ds, t);
                softmax_back(self.isa, a, p, ds);
                let (ds, p) = (
                    Strided {
                        values: ds,
                        stride: t,
                    },
                    Strided {
                        values: p,
                        stride: t,
                    },
                );
                let to = |part: usize| part * w + head * h;
                let (isa, shape) = (self.isa, [t, t, h]);
                product::strided(isa, shape, ds, false, at(1), &mut dx[to(0)..], stride);
                product::strided(isa, shape, ds, true, at(0), &mut dx[to(1)..], stride);
                product::strided(isa, shape, p, true, dy, &mut dx[to(2)..], stride);
            }
        }
    }
}
