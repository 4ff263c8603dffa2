//! The numbers: matrix products, convolutions and everything that stands between them.
//!
//! # The numeric law
//! Every output element of every kernel is defined by a fixed scalar recipe ([`mod@reference`] holds
//! the products' as plain loops): one accumulator, terms in ascending order, products fused
//! (`fma`) with one rounding. The recipe depends on no tile size, vector width or machine, so
//! AVX-512, AVX2 and portable code give the same bits. Elementary functions are our own
//! (`math`), written once over an abstract vector.
//!
//! # Layout
//! Activations are NHWC, dense weights `[inputs, outputs]`, convolution weights HWIO, all
//! row-major. A slice may be longer than needed; the rest is not touched.
//!
//! # Serving
//! The `served_*` kernels compute the same elements to the same bits over weights that were packed
//! beforehand ([`Kernels::pack_dense`], [`Kernels::pack_conv`]: panels of sixteen columns, the same
//! bytes on every machine), over inputs of which only a band of lines is copied at a time
//! ([`Conv::served_scratch_len`]), in place where the shape allows it
//! ([`Kernels::served_conv_in_place`]), and add a residual on the way out ([`After`]). A tap of a window that lies outside the image multiplies a zero, as it
//! does where the zero is really there. Weights in binary16 ([`Weights::Half`]) are widened, which
//! is exact, and then follow the same law: the result is that of `f32` weights rounded to binary16.
//! Weights of four bits ([`Weights::Four`]) are written out a block at a time: integer codes exactly
//! (a difference below 16 times a binary16 scale has at most fifteen bits), entries of a table with
//! the one rounding of the multiplication by their scale. Then they too follow the law: the result
//! is that of those `f32` weights.
//!
//! A batch has at least one row. On x86-64 the instructions are chosen when the process starts to
//! use kernels; elsewhere the portable kernels are compiled to the target's own vectors (on
//! aarch64 its baseline NEON has the fused multiply-add that they ask for).
//!
//! # Panics
//! Every kernel checks the lengths of its slices against the geometry once and panics when one
//! is too short: the plan that owns the buffers makes them long enough.
//!
//! This is the only module with `unsafe` code: vector loads and stores, calls into code
//! compiled for instructions whose presence a token proves, and the memory map of a file.

#![expect(
    clippy::too_many_arguments,
    reason = "one slice for each operand of a formula"
)]

mod attention;
mod batch_norm;
mod elementwise;
#[cfg(not(feature = "std"))]
mod float;
mod geometry;
mod half;
pub mod int8;
mod lanes;
mod linear;
mod loss;
#[cfg(feature = "mmap")]
mod map;
mod math;
mod norm;
#[cfg(feature = "std")]
mod normal;
mod pool;
mod product;
mod recurrent;
pub mod reference;
mod simd;
mod types;

pub use attention::Attention;
#[cfg(not(feature = "std"))]
pub(crate) use float::Float;
pub use geometry::{BatchNorm, Conv, ConvShape, Dense, GeometryError, Norm, Padding, Pool};
pub use half::{f16_to_f32, f32_to_f16};
pub use lanes::{LANES, LaneRows, LaneStep};
#[cfg(feature = "mmap")]
pub use map::Mapped;
#[cfg(feature = "std")]
pub use normal::NORMAL_GROUP;
pub use recurrent::{Cell, Recurrent};
pub use types::{
    Activation, AdamStep, After, Fused, Gradient, Levels, Momentum, NF4, Nibbles, Octets, SgdStep,
    WeightKind, Weights, Write,
};

#[cfg(feature = "simd")]
use alloc::vec::Vec;

use simd::Isa;

/// The kernels for one instruction set.
///
/// [`Kernels::best`] chooses once per process. All choices give the same bits.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    isa: Isa,
    integers: int8::Level,
}

/// The name of the kernels that this process uses: `avx512`, `avx2` or `portable`. (On other
/// architectures than x86-64 the portable kernels are compiled to its own vectors. Without the
/// feature `simd` there is one name.)
#[must_use]
pub fn name() -> &'static str {
    Kernels::best().name()
}

fn need(what: &str, slice: &[f32], len: usize) {
    assert!(
        slice.len() >= len,
        "{what} holds {} numbers of {len}",
        slice.len()
    );
}

fn need_gradient(gradient: &Gradient<'_>, len: usize) {
    match gradient {
        Gradient::Store(to) | Gradient::Accumulate(to) => need("the gradient", to, len),
        Gradient::Step {
            weights,
            anchor,
            step,
        } => {
            need("the weights", weights, len);
            if step.proximal_mu > 0.0 {
                need("the anchor", anchor, len);
            }
        }
    }
}

impl Kernels {
    /// The fastest kernels of this machine.
    #[must_use]
    pub fn best() -> &'static Self {
        &Self::all_available()[0]
    }

    /// Every set of kernels that this machine can run, fastest first.
    #[must_use]
    pub fn all_available() -> &'static [Self] {
        #[cfg(feature = "simd")]
        {
            static ALL: std::sync::OnceLock<Vec<Kernels>> = std::sync::OnceLock::new();
            ALL.get_or_init(|| {
                Isa::available()
                    .into_iter()
                    .map(|isa| Self {
                        isa,
                        integers: int8::Level::of(isa),
                    })
                    .collect()
            })
        }
        #[cfg(not(feature = "simd"))]
        {
            static ONLY: [Kernels; 1] = [Kernels {
                isa: Isa::ONLY,
                integers: int8::Level::ONLY,
            }];
            &ONLY
        }
    }

    /// `avx512`, `avx2` or `portable`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.isa.name()
    }

    /// `y[rows, outputs] = fused(bias + x[rows, inputs] * weight[inputs, outputs])`
    pub fn dense(
        &self,
        d: &Dense,
        rows: usize,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        fused: Fused,
        y: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(d.inputs));
        need("the weight", weight, d.inputs.saturating_mul(d.outputs));
        bias.inspect(|b| need("the bias", b, d.outputs));
        need("y", y, rows.saturating_mul(d.outputs));
        product::dense(self.isa, d, rows, x, weight, bias, fused, y);
    }

    /// Gradient of the inputs: `dx[rows, inputs] = dy[rows, outputs] * weight^T`.
    ///
    /// `scratch` holds at least [`Dense::dx_scratch_len`].
    pub fn dense_dx(
        &self,
        d: &Dense,
        rows: usize,
        dy: &[f32],
        weight: &[f32],
        dx: &mut [f32],
        write: Write,
        scratch: &mut [f32],
    ) {
        need("dy", dy, rows.saturating_mul(d.outputs));
        need("the weight", weight, d.inputs.saturating_mul(d.outputs));
        need("dx", dx, rows.saturating_mul(d.inputs));
        need("the scratch", scratch, d.dx_scratch_len());
        product::dense_dx(self.isa, d, rows, dy, weight, dx, write, scratch);
    }

    /// Gradient of the weights: `x^T * dy`, rows ascending.
    pub fn dense_dw(&self, d: &Dense, rows: usize, x: &[f32], dy: &[f32], gradient: Gradient<'_>) {
        need("x", x, rows.saturating_mul(d.inputs));
        need("dy", dy, rows.saturating_mul(d.outputs));
        need_gradient(&gradient, d.inputs.saturating_mul(d.outputs));
        product::dense_dw(self.isa, d, rows, x, dy, gradient);
    }

    /// Gradient of a bias: the sums of the columns of `dy[rows, columns]`, rows ascending. For a
    /// convolution the rows are all positions of all examples and the columns its filters.
    pub fn column_sums(&self, rows: usize, columns: usize, dy: &[f32], gradient: Gradient<'_>) {
        need("dy", dy, rows.saturating_mul(columns));
        need_gradient(&gradient, columns);
        elementwise::column_sums(self.isa, rows, columns, dy, gradient);
    }

    /// Copies `x` (`[rows, height, width, channels]`) into `padded`, with the convolution's
    /// zeros around every image.
    pub fn pad(&self, c: &Conv, rows: usize, x: &[f32], padded: &mut [f32]) {
        need("x", x, rows.saturating_mul(c.input_len()));
        need(
            "the padded input",
            padded,
            rows.saturating_mul(c.padded_len()),
        );
        let s = c.shape;
        let border = [s.padding.top, s.padding.left];
        let to = [c.padded_height(), c.padded_width()];
        product::pad_images(rows, [s.height, s.width, s.channels], x, border, to, padded);
    }

    /// Convolution: `y` is `[rows, out_height, out_width, filters]`.
    ///
    /// `x` is padded by [`Kernels::pad`] where [`Conv::is_padded`], else the input itself.
    pub fn conv(
        &self,
        c: &Conv,
        rows: usize,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        fused: Fused,
        y: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(c.padded_len()));
        need("the weight", weight, c.weight_len());
        bias.inspect(|b| need("the bias", b, c.shape.filters));
        need("y", y, rows.saturating_mul(c.output_len()));
        product::conv(self.isa, c, rows, x, weight, bias, fused, y);
    }

    /// Gradient of a convolution's inputs; `dx` is unpadded.
    ///
    /// `scratch` holds at least [`Conv::dx_scratch_len`].
    pub fn conv_dx(
        &self,
        c: &Conv,
        rows: usize,
        dy: &[f32],
        weight: &[f32],
        dx: &mut [f32],
        write: Write,
        scratch: &mut [f32],
    ) {
        need("dy", dy, rows.saturating_mul(c.output_len()));
        need("the weight", weight, c.weight_len());
        need("dx", dx, rows.saturating_mul(c.input_len()));
        need("the scratch", scratch, c.dx_scratch_len(rows));
        product::conv_dx(self.isa, c, rows, dy, weight, dx, write, scratch);
    }

    /// Gradient of a convolution's weights; `x` is padded as for [`Kernels::conv`].
    ///
    /// `scratch` holds at least [`Conv::dw_scratch_len`].
    pub fn conv_dw(
        &self,
        c: &Conv,
        rows: usize,
        x: &[f32],
        dy: &[f32],
        gradient: Gradient<'_>,
        scratch: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(c.padded_len()));
        need("dy", dy, rows.saturating_mul(c.output_len()));
        need_gradient(&gradient, c.weight_len());
        need("the scratch", scratch, c.dw_scratch_len());
        product::conv_dw(self.isa, c, rows, x, dy, gradient, scratch);
    }

    /// Packs the weights of a dense layer for [`Kernels::served_dense`]: panels of sixteen columns,
    /// `[panel][input][column]`, the last panel filled up with zeros. The same bytes on every
    /// machine; `packed` holds [`Dense::packed_len`].
    pub fn pack_dense(&self, d: &Dense, weight: &[f32], packed: &mut [f32]) {
        need("the weight", weight, d.inputs.saturating_mul(d.outputs));
        need("the packed weight", packed, d.packed_len());
        product::pack(d.inputs, d.outputs, weight, d.outputs, packed);
    }

    /// Packs the weights of a convolution for [`Kernels::served_conv`]: for each group, panels of
    /// sixteen filters, `[panel][kernel row][kernel column][channel][filter]`, the last panel
    /// filled up with zeros. With one filter per channel the weights stay as they are. `packed`
    /// holds [`Conv::packed_len`].
    pub fn pack_conv(&self, c: &Conv, weight: &[f32], packed: &mut [f32]) {
        need("the weight", weight, c.weight_len());
        need("the packed weight", packed, c.packed_len());
        let s = c.shape;
        if c.is_depthwise() {
            packed[..c.weight_len()].copy_from_slice(&weight[..c.weight_len()]);
            return;
        }
        let group_out = s.filters / s.groups;
        let terms = c.weight_len() / s.filters;
        let len = product::packed_len(terms, group_out);
        for group in 0..s.groups {
            let packed = &mut packed[group * len..];
            product::pack(
                terms,
                group_out,
                &weight[group * group_out..],
                s.filters,
                packed,
            );
        }
    }

    /// Packs codes of four bits, `[inputs, outputs]` with one in a byte, for
    /// [`Kernels::served_dense`]: panels of sixteen columns, `[panel][input][column]`, two columns in
    /// a byte. The lower halves of a row's bytes are the first half of the panel's columns; the last
    /// panel has `ceil(columns / 2)` bytes in a row. `packed` holds [`Dense::nibbles_len`].
    pub fn pack_dense_four(&self, d: &Dense, codes: &[u8], packed: &mut [u8]) {
        assert!(codes.len() >= d.inputs * d.outputs, "codes are missing");
        assert!(packed.len() >= d.nibbles_len(), "no room for the codes");
        product::pack_nibbles(d.inputs, d.outputs, codes, d.outputs, packed);
    }

    /// The same for a convolution that is not of one filter per channel, for
    /// [`Kernels::served_conv`]: the codes of an HWIO weight, group by group. `packed` holds
    /// [`Conv::nibbles_len`].
    pub fn pack_conv_four(&self, c: &Conv, codes: &[u8], packed: &mut [u8]) {
        assert!(codes.len() >= c.weight_len(), "codes are missing");
        assert!(packed.len() >= c.nibbles_len(), "no room for the codes");
        let s = c.shape;
        let group_out = s.filters / s.groups;
        let terms = c.weight_len() / s.filters;
        let len = product::nibbles_len(terms, group_out);
        for group in 0..s.groups {
            let (codes, packed) = (&codes[group * group_out..], &mut packed[group * len..]);
            product::pack_nibbles(terms, group_out, codes, s.filters, packed);
        }
    }

    /// [`Kernels::dense`] over packed weights, to the same bits:
    /// `y = last(first(bias + x * weight) + residual)`.
    ///
    /// `scratch` holds at least [`Dense::served_scratch_len`].
    pub fn served_dense(
        &self,
        d: &Dense,
        rows: usize,
        x: &[f32],
        weight: Weights<'_>,
        bias: Option<&[f32]>,
        after: After<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(d.inputs));
        weight.check(d.packed_len(), d.inputs, d.outputs, 1);
        need("the scratch", scratch, d.served_scratch_len(weight.kind()));
        bias.inspect(|b| need("the bias", b, d.outputs));
        after
            .residual
            .inspect(|r| need("the residual", r, rows.saturating_mul(d.outputs)));
        need("y", y, rows.saturating_mul(d.outputs));
        product::served_dense(self.isa, d, rows, x, weight, bias, after, y, scratch);
    }

    /// [`Kernels::conv`] over packed weights and an input without padding, to the same bits:
    /// `y = last(first(conv(x)) + residual)`.
    ///
    /// `scratch` holds at least [`Conv::served_scratch_len`]. There is no form of four bits where
    /// each channel has one filter, and one of eight bits there alone.
    pub fn served_conv(
        &self,
        c: &Conv,
        rows: usize,
        x: &[f32],
        weight: Weights<'_>,
        bias: Option<&[f32]>,
        after: After<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(c.input_len()));
        c.check_weights(weight);
        bias.inspect(|b| need("the bias", b, c.shape.filters));
        after
            .residual
            .inspect(|r| need("the residual", r, rows.saturating_mul(c.output_len())));
        need("y", y, rows.saturating_mul(c.output_len()));
        need("the scratch", scratch, c.served_scratch_len(weight.kind()));
        product::served_conv(self.isa, c, rows, Some(x), weight, bias, after, y, scratch);
    }

    /// Widens binary16 numbers: [`f16_to_f32`] of each.
    pub fn widen(&self, x: &[u16], y: &mut [f32]) {
        need("y", y, x.len());
        half::widen(self.isa, x, y);
    }

    /// Narrows to binary16 numbers: [`f32_to_f16`] of each.
    pub fn narrow(&self, x: &[f32], y: &mut [u16]) {
        assert!(y.len() >= x.len(), "y is shorter than x");
        half::narrow(self.isa, x, y);
    }

    /// `y = f(x)`
    pub fn activate(&self, f: Activation, x: &[f32], y: &mut [f32]) {
        need("y", y, x.len());
        elementwise::activate(self.isa, f, x, y);
    }

    /// `y = f(y)`
    pub fn activate_in_place(&self, f: Activation, y: &mut [f32]) {
        elementwise::activate_in_place(self.isa, f, y);
    }

    /// `dy = dy * f'`, from what [`Activation::keeps_input`] says: the activation's input or its
    /// output.
    pub fn activate_grad(&self, f: Activation, kept: &[f32], dy: &mut [f32]) {
        need("what the activation kept", kept, dy.len());
        elementwise::activate_grad(self.isa, f, kept, dy);
    }

    /// Dropout, forward and backward: `y = y * scale` where `keep` is not zero, else zero.
    /// `scale` is `1 / (1 - rate)`.
    pub fn dropout(&self, keep: &[u8], scale: f32, y: &mut [f32]) {
        assert!(keep.len() >= y.len(), "the mask is shorter than the values");
        elementwise::dropout(self.isa, keep, scale, y);
    }

    /// Maximum pooling. `argmax` receives, for each output, the position in its window (row by
    /// row) of the first largest input; NaN counts only when it comes first.
    pub fn max_pool(&self, p: &Pool, rows: usize, x: &[f32], y: &mut [f32], argmax: &mut [u8]) {
        need("x", x, rows.saturating_mul(p.input_len()));
        need("y", y, rows.saturating_mul(p.output_len()));
        assert!(argmax.len() >= rows * p.output_len(), "argmax is too short");
        pool::max_pool(self.isa, p, rows, x, y, argmax);
    }

    /// [`Kernels::max_pool`] without the positions.
    pub fn served_max_pool(&self, p: &Pool, rows: usize, x: &[f32], y: &mut [f32]) {
        need("x", x, rows.saturating_mul(p.input_len()));
        need("y", y, rows.saturating_mul(p.output_len()));
        pool::served_max_pool(self.isa, p, rows, x, y);
    }

    /// Gradient of maximum pooling; `dx` is overwritten. Where windows overlap, an input's terms
    /// are added in the order of the outputs.
    pub fn max_pool_dx(&self, p: &Pool, rows: usize, dy: &[f32], argmax: &[u8], dx: &mut [f32]) {
        need("dy", dy, rows.saturating_mul(p.output_len()));
        need("dx", dx, rows.saturating_mul(p.input_len()));
        assert!(argmax.len() >= rows * p.output_len(), "argmax is too short");
        pool::max_pool_dx(self.isa, p, rows, dy, argmax, dx);
    }

    /// Average pooling over the inputs in each window, row by row.
    pub fn avg_pool(&self, p: &Pool, rows: usize, x: &[f32], y: &mut [f32]) {
        need("x", x, rows.saturating_mul(p.input_len()));
        need("y", y, rows.saturating_mul(p.output_len()));
        pool::avg_pool(self.isa, p, rows, x, y);
    }

    /// Gradient of average pooling; `dx` is overwritten.
    pub fn avg_pool_dx(&self, p: &Pool, rows: usize, dy: &[f32], dx: &mut [f32]) {
        need("dy", dy, rows.saturating_mul(p.output_len()));
        need("dx", dx, rows.saturating_mul(p.input_len()));
        pool::avg_pool_dx(self.isa, p, rows, dy, dx);
    }

    /// Global average pooling: `x[rows, positions, channels]` to `y[rows, channels]`.
    pub fn global_avg_pool(
        &self,
        rows: usize,
        positions: usize,
        channels: usize,
        x: &[f32],
        y: &mut [f32],
    ) {
        need(
            "x",
            x,
            rows.saturating_mul(positions).saturating_mul(channels),
        );
        need("y", y, rows.saturating_mul(channels));
        pool::global_avg_pool(self.isa, rows, positions, channels, x, y);
    }

    /// Gradient of global average pooling; `dx` is overwritten.
    pub fn global_avg_pool_dx(
        &self,
        rows: usize,
        positions: usize,
        channels: usize,
        dy: &[f32],
        dx: &mut [f32],
    ) {
        need("dy", dy, rows.saturating_mul(channels));
        need(
            "dx",
            dx,
            rows.saturating_mul(positions).saturating_mul(channels),
        );
        pool::global_avg_pool_dx(self.isa, rows, positions, channels, dy, dx);
    }

    /// Normalisation: `y = (x - mean) * r * gamma + beta` with `r = 1 / sqrt(variance + epsilon)`
    /// of each example and group; `stats` receives mean and `r` (`[rows, groups, 2]`).
    ///
    /// `gamma` and `beta` hold one number per channel, `scratch` [`Norm::scratch_len`].
    pub fn norm(
        &self,
        n: &Norm,
        rows: usize,
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        y: &mut [f32],
        stats: &mut [f32],
        scratch: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(n.example_len()));
        need("gamma", gamma, n.channels);
        need("beta", beta, n.channels);
        need("y", y, rows.saturating_mul(n.example_len()));
        need("stats", stats, rows.saturating_mul(n.stats_len()));
        need("the scratch", scratch, 2 * n.channels);
        let (n, rows) = n.parts(rows);
        norm::norm(self.isa, &n, rows, x, gamma, beta, y, stats, scratch);
    }

    /// Gradient of normalisation's inputs; `dx` is overwritten.
    pub fn norm_dx(
        &self,
        n: &Norm,
        rows: usize,
        x: &[f32],
        gamma: &[f32],
        stats: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        scratch: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(n.example_len()));
        need("gamma", gamma, n.channels);
        need("stats", stats, rows.saturating_mul(n.stats_len()));
        need("dy", dy, rows.saturating_mul(n.example_len()));
        need("dx", dx, rows.saturating_mul(n.example_len()));
        need("the scratch", scratch, n.scratch_len());
        let (n, rows) = n.parts(rows);
        norm::norm_dx(self.isa, &n, rows, x, gamma, stats, dy, dx, scratch);
    }

    /// Gradients of `gamma` and `beta`, one number per channel, rows and positions ascending.
    /// [`Write::Add`] goes on from the old values.
    pub fn norm_dparameters(
        &self,
        n: &Norm,
        rows: usize,
        x: &[f32],
        stats: &[f32],
        dy: &[f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
        write: Write,
    ) {
        need("x", x, rows.saturating_mul(n.example_len()));
        need("stats", stats, rows.saturating_mul(n.stats_len()));
        need("dy", dy, rows.saturating_mul(n.example_len()));
        need("the gradient of gamma", dgamma, n.channels);
        need("the gradient of beta", dbeta, n.channels);
        let (n, rows) = n.parts(rows);
        norm::norm_dparameters(self.isa, &n, rows, x, stats, dy, dgamma, dbeta, write);
    }

    /// Statistics of a batch for batch normalisation, over all rows and positions:
    /// `stats = [mean, r, variance, ..]`, each one number per channel, with the variance of the batch
    /// itself (divided by the count) and `r = 1 / sqrt(variance + epsilon)`. The last quarter is left
    /// to [`Self::batch_norm_dparameters`].
    ///
    /// `stats` holds [`BatchNorm::stats_len`].
    pub fn batch_norm_statistics(&self, b: &BatchNorm, rows: usize, x: &[f32], stats: &mut [f32]) {
        need("x", x, rows.saturating_mul(b.example_len()));
        need("stats", stats, b.stats_len());
        batch_norm::statistics(self.isa, b, rows, x, stats);
    }

    /// `r = 1 / sqrt(max(variance, 0) + epsilon)`, for running statistics.
    pub fn batch_norm_factor(&self, epsilon: f32, variance: &[f32], r: &mut [f32]) {
        need("r", r, variance.len());
        batch_norm::factor(self.isa, epsilon, variance, r);
    }

    /// Batch normalisation: `y = fused(fma(x - mean, gamma * r, beta))`, one number of `mean`,
    /// `r`, `gamma` and `beta` per channel.
    pub fn batch_norm(
        &self,
        b: &BatchNorm,
        rows: usize,
        x: &[f32],
        mean: &[f32],
        r: &[f32],
        gamma: &[f32],
        beta: &[f32],
        fused: Fused,
        y: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(b.example_len()));
        for (what, slice) in [("mean", mean), ("r", r), ("gamma", gamma), ("beta", beta)] {
            need(what, slice, b.channels);
        }
        need("y", y, rows.saturating_mul(b.example_len()));
        batch_norm::normalise(self.isa, b, rows, x, mean, r, gamma, beta, fused, y);
    }

    /// Gradients of `gamma` and `beta`, whose old values are lost. `dy` is the gradient of the
    /// output after `fused`; `stats` is of [`Kernels::batch_norm_statistics`], and its last quarter
    /// receives the mean of the inputs as they are normalised, which only rounding keeps from zero.
    pub fn batch_norm_dparameters(
        &self,
        b: &BatchNorm,
        rows: usize,
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        stats: &mut [f32],
        fused: Fused,
        dy: &[f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(b.example_len()));
        need("dy", dy, rows.saturating_mul(b.example_len()));
        batch_norm::dparameters(
            self.isa, b, rows, x, gamma, beta, stats, fused, dy, dgamma, dbeta,
        );
    }

    /// Gradient of the inputs, the batch's own statistics included: `dy` becomes `dx`. `stats`,
    /// `dgamma` and `dbeta` are of [`Kernels::batch_norm_dparameters`].
    pub fn batch_norm_dx(
        &self,
        b: &BatchNorm,
        rows: usize,
        x: &[f32],
        gamma: &[f32],
        beta: &[f32],
        stats: &[f32],
        fused: Fused,
        dgamma: &[f32],
        dbeta: &[f32],
        dy: &mut [f32],
    ) {
        need("x", x, rows.saturating_mul(b.example_len()));
        need("dy", dy, rows.saturating_mul(b.example_len()));
        batch_norm::dx(
            self.isa, b, rows, x, gamma, beta, stats, fused, dgamma, dbeta, dy,
        );
    }

    /// Moves running statistics: `running = fma(momentum * scale, batch, (1 - momentum) *
    /// running)`. `scale` is 1 for the mean and `n / (n - 1)` for the variance of `n` values.
    pub fn batch_norm_running(
        &self,
        momentum: f32,
        scale: f32,
        batch: &[f32],
        running: &mut [f32],
    ) {
        need("the batch's statistics", batch, running.len());
        batch_norm::running(self.isa, momentum, scale, batch, running);
    }

    /// Softmax cross-entropy. `losses[row] = ln(sum exp(z - max)) - (z[label] - max)`; where
    /// `gradient` is given, `gradient = (softmax(z) - onehot(label)) * scale`.
    ///
    /// Labels must be below `classes`; a larger one panics.
    pub fn softmax_cross_entropy(
        &self,
        rows: usize,
        classes: usize,
        logits: &[f32],
        labels: &[u32],
        scale: f32,
        losses: &mut [f32],
        gradient: Option<&mut [f32]>,
    ) {
        need("the logits", logits, rows.saturating_mul(classes));
        need("the losses", losses, rows);
        if let Some(gradient) = &gradient {
            need("the gradient", gradient, rows.saturating_mul(classes));
        }
        assert!(
            labels[..rows]
                .iter()
                .all(|&label| (label as usize) < classes),
            "a label is not below {classes}"
        );
        loss::softmax_cross_entropy(
            self.isa, rows, classes, logits, labels, scale, losses, gradient,
        );
    }

    /// [`Kernels::softmax_cross_entropy`] at every position of sequences: `logits` are
    /// `[rows, length, classes]`, `labels` `[rows, length]`, where [`NO_TARGET`] leaves a position
    /// out. `losses[row]` is the mean over the positions that have a target, added in their order,
    /// and `gradient` that of this mean times `scale`; both are zero where none has one.
    ///
    /// [`NO_TARGET`]: fl_core::NO_TARGET
    #[cfg(feature = "describe")]
    pub fn sequence_cross_entropy(
        &self,
        rows: usize,
        length: usize,
        classes: usize,
        logits: &[f32],
        labels: &[u32],
        scale: f32,
        losses: &mut [f32],
        gradient: Option<&mut [f32]>,
    ) {
        let width = length.saturating_mul(classes);
        need("the logits", logits, rows.saturating_mul(width));
        need("the losses", losses, rows);
        assert!(labels.len() >= rows * length, "the labels are too short");
        let mut gradient = gradient;
        if let Some(gradient) = &gradient {
            need("the gradient", gradient, rows.saturating_mul(width));
        }
        let mut block = [0.0f32; 64];
        for row in 0..rows {
            let labels = &labels[row * length..][..length];
            let given = labels.iter().filter(|&&it| it != fl_core::NO_TARGET);
            let share = 1.0 / given.count().max(1) as f32;
            let mut sum = 0.0f32;
            let mut first = 0;
            while first < length {
                // Positions with a target, as many as are worked on at once, or one without.
                let run = labels[first..].iter().take(block.len());
                let run = run.take_while(|&&it| it != fl_core::NO_TARGET).count();
                let at = (row * length + first) * classes..;
                if run == 0 {
                    if let Some(gradient) = gradient.as_deref_mut() {
                        gradient[at][..classes].fill(0.0);
                    }
                    first += 1;
                    continue;
                }
                let losses = &mut block[..run];
                self.softmax_cross_entropy(
                    run,
                    classes,
                    &logits[at.clone()],
                    &labels[first..],
                    scale * share,
                    losses,
                    gradient.as_deref_mut().map(|gradient| &mut gradient[at]),
                );
                for loss in losses {
                    sum += *loss;
                }
                first += run;
            }
            losses[row] = sum * share;
        }
    }

    /// Adds how far softened outputs are from a teacher's, as distillation counts it: with
    /// `p = softmax(z / T)` of the logits, `q = softmax(t / T)` of the teacher's, and `T` the
    /// temperature,
    /// `losses[row] += share * T^2 * sum q (ln q - ln p)` and
    /// `gradient += (p - q) * (share * T * scale)`.
    ///
    /// # Source
    /// Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2.
    pub fn softened_divergence(
        &self,
        rows: usize,
        classes: usize,
        logits: &[f32],
        teacher: &[f32],
        temperature: f32,
        share: f32,
        scale: f32,
        losses: &mut [f32],
        gradient: &mut [f32],
    ) {
        need("the logits", logits, rows.saturating_mul(classes));
        need(
            "the teacher's logits",
            teacher,
            rows.saturating_mul(classes),
        );
        need("the losses", losses, rows);
        need("the gradient", gradient, rows.saturating_mul(classes));
        loss::softened_divergence(
            self.isa,
            rows,
            classes,
            logits,
            teacher,
            temperature,
            share,
            scale,
            losses,
            gradient,
        );
    }

    /// Mean squared error: `losses[row] = sum (z - t)^2 / width`,
    /// `gradient = (z - t) * (2 * scale / width)`.
    pub fn mean_squared_error(
        &self,
        rows: usize,
        width: usize,
        outputs: &[f32],
        targets: &[f32],
        scale: f32,
        losses: &mut [f32],
        gradient: Option<&mut [f32]>,
    ) {
        need("the outputs", outputs, rows.saturating_mul(width));
        need("the targets", targets, rows.saturating_mul(width));
        need("the losses", losses, rows);
        if let Some(gradient) = &gradient {
            need("the gradient", gradient, rows.saturating_mul(width));
        }
        loss::mean_squared_error(
            self.isa, rows, width, outputs, targets, scale, losses, gradient,
        );
    }

    /// Binary cross-entropy of logits against targets in `[0, 1]`:
    /// `losses[row] = sum (max(z, 0) - z * t + ln(1 + exp(-|z|))) / width`,
    /// `gradient = (sigmoid(z) - t) * (scale / width)`.
    pub fn binary_cross_entropy(
        &self,
        rows: usize,
        width: usize,
        logits: &[f32],
        targets: &[f32],
        scale: f32,
        losses: &mut [f32],
        gradient: Option<&mut [f32]>,
    ) {
        need("the logits", logits, rows.saturating_mul(width));
        need("the targets", targets, rows.saturating_mul(width));
        need("the losses", losses, rows);
        if let Some(gradient) = &gradient {
            need("the gradient", gradient, rows.saturating_mul(width));
        }
        loss::binary_cross_entropy(
            self.isa, rows, width, logits, targets, scale, losses, gradient,
        );
    }

    /// The first largest column of each row of `x[rows, columns]`.
    pub fn argmax(&self, rows: usize, columns: usize, x: &[f32], best: &mut [u32]) {
        need("x", x, rows.saturating_mul(columns));
        loss::argmax(rows, columns, x, best);
    }

    /// Rows of `table[vocabulary, width]`: `y[i] = table[tokens[i]]`. A token outside the table
    /// panics.
    pub fn embedding(&self, tokens: &[u32], width: usize, table: &[f32], y: &mut [f32]) {
        need("y", y, tokens.len().saturating_mul(width));
        for (to, &token) in y.chunks_exact_mut(width).zip(tokens) {
            to.copy_from_slice(&table[token as usize * width..][..width]);
        }
    }

    /// Packs the codes of a table of four bits, `[width, rows]` with one in a byte, for
    /// [`Kernels::embedding_four`]: row by row, two neighbours in a byte, the first in its lower half.
    /// `packed` holds [`Kernels::table_len`].
    pub fn pack_table_four(&self, width: usize, rows: usize, codes: &[u8], packed: &mut [u8]) {
        assert!(codes.len() >= width * rows, "codes are missing");
        let len = Self::table_len(width, rows);
        assert!(packed.len() >= len, "no room for the codes");
        product::pack_rows(width, rows, codes, packed);
    }

    /// Bytes of the codes of a table of four bits: rows are whole bytes.
    #[must_use]
    pub fn table_len(width: usize, rows: usize) -> usize {
        product::row_bytes(width) * rows
    }

    /// [`Kernels::embedding`] of a table in four bits, packed by [`Kernels::pack_table_four`], with
    /// groups along its rows and scales `[groups, vocabulary]`: to the bits of the table written out.
    /// A token outside the table panics.
    pub fn embedding_four(&self, tokens: &[u32], width: usize, table: Nibbles<'_>, y: &mut [f32]) {
        need("y", y, tokens.len().saturating_mul(width));
        for (y, &token) in y.chunks_exact_mut(width).zip(tokens) {
            product::unpack_row(table, width, token as usize, 0, y);
        }
    }

    /// [`Kernels::add_to_rows`] of such a table, of `positions` rows of `width`.
    pub fn add_to_rows_four(
        &self,
        rows: usize,
        [positions, width]: [usize; 2],
        table: Nibbles<'_>,
        y: &mut [f32],
    ) {
        let len = positions.saturating_mul(width);
        need("y", y, rows.saturating_mul(len));
        let mut part = [0f32; 64];
        for position in 0..positions {
            for first in (0..width).step_by(part.len()) {
                let part = &mut part[..(width - first).min(64)];
                product::unpack_row(table, width, position, first, part);
                for y in y.chunks_exact_mut(len).take(rows) {
                    let y = &mut y[position * width + first..][..part.len()];
                    elementwise::add(self.isa, part, y);
                }
            }
        }
    }

    /// The last position of every sequence: `y[rows, width]` of `x[rows, positions, width]`.
    pub fn last(&self, rows: usize, positions: usize, width: usize, x: &[f32], y: &mut [f32]) {
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

    /// Gradient of [`Kernels::last`]: zero but for the last position.
    pub fn last_dx(&self, rows: usize, positions: usize, width: usize, dy: &[f32], dx: &mut [f32]) {
        let len = positions.saturating_mul(width);
        need("dx", dx, rows.saturating_mul(len));
        need("dy", dy, rows.saturating_mul(width));
        for (dy, dx) in dy
            .chunks_exact(width)
            .zip(dx.chunks_exact_mut(len))
            .take(rows)
        {
            let (before, last) = dx.split_at_mut(len - width);
            before.fill(0.0);
            last.copy_from_slice(dy);
        }
    }

    /// Adds `x` to every row of `y[rows, x.len()]`.
    pub fn add_to_rows(&self, rows: usize, x: &[f32], y: &mut [f32]) {
        need("y", y, rows.saturating_mul(x.len()));
        if !x.is_empty() {
            for y in y.chunks_exact_mut(x.len()).take(rows) {
                elementwise::add(self.isa, x, y);
            }
        }
    }

    /// Adds `dy[i]` to `dtable[tokens[i]]`, tokens ascending in `i`.
    pub fn embedding_dw(&self, tokens: &[u32], width: usize, dy: &[f32], dtable: &mut [f32]) {
        need("dy", dy, tokens.len().saturating_mul(width));
        for (from, &token) in dy.chunks_exact(width).zip(tokens) {
            self.add(from, &mut dtable[token as usize * width..][..width]);
        }
    }

    /// `y = fma(a, x, y)`
    pub fn axpy(&self, a: f32, x: &[f32], y: &mut [f32]) {
        need("y", y, x.len());
        elementwise::axpy(self.isa, a, x, y);
    }

    /// `y = a * y`
    pub fn scale(&self, a: f32, y: &mut [f32]) {
        elementwise::scale(self.isa, a, y);
    }

    /// [`Kernels::scale`] of every row of `y[rows, width]` by its own factor.
    pub fn scale_rows(&self, width: usize, factors: &[f32], y: &mut [f32]) {
        if width > 0 {
            need("y", y, width.saturating_mul(factors.len()));
            elementwise::scale_rows(self.isa, width, factors, y);
        }
    }

    /// `y = y + x`
    pub fn add(&self, x: &[f32], y: &mut [f32]) {
        need("y", y, x.len());
        elementwise::add(self.isa, x, y);
    }

    /// `z = x - y`
    pub fn difference(&self, x: &[f32], y: &[f32], z: &mut [f32]) {
        need("y", y, x.len());
        need("z", z, x.len());
        elementwise::difference(self.isa, x, y, z);
    }

    /// Sum of squares, for norms: squares in f32 fused into 16 interleaved sums over every 1024
    /// numbers, these added in order in f64.
    #[must_use]
    pub fn sum_of_squares(&self, x: &[f32]) -> f64 {
        elementwise::sum_of_squares(self.isa, x)
    }

    /// [`Kernels::sum_of_squares`] of every row of `x[rows, width]`, to the same bits.
    pub fn row_squares(&self, width: usize, x: &[f32], sums: &mut [f64]) {
        if width == 0 {
            sums.fill(0.0);
            return;
        }
        need("x", x, width.saturating_mul(sums.len()));
        elementwise::row_squares(self.isa, width, &x[..width * sums.len()], sums);
    }

    /// Sum of products, in the order of [`Kernels::sum_of_squares`].
    #[must_use]
    pub fn inner_product(&self, x: &[f32], y: &[f32]) -> f64 {
        need("y", y, x.len());
        elementwise::inner_product(self.isa, x, &y[..x.len()])
    }

    /// The windows of one example of a convolution without groups, in rows: `windows` is
    /// `[out_height * out_width, kernel rows * kernel columns * channels]`. `x` is padded as for
    /// [`Kernels::conv`].
    ///
    /// # Panics
    /// When the convolution has groups.
    pub fn unroll(&self, c: &Conv, x: &[f32], windows: &mut [f32]) {
        let s = c.shape;
        assert_eq!(s.groups, 1, "windows of a convolution with groups");
        need("x", x, c.padded_len());
        let terms = c.weight_len() / s.filters;
        need("the windows", windows, c.out_height * c.out_width * terms);
        let (line, run) = (c.padded_width() * s.channels, s.kernel[1] * s.channels);
        let mut to = windows.chunks_exact_mut(run);
        for oh in 0..c.out_height {
            for ow in 0..c.out_width {
                let first = oh * s.stride[0] * line + ow * s.stride[1] * s.channels;
                for (kh, to) in (0..s.kernel[0]).zip(&mut to) {
                    to.copy_from_slice(&x[first + kh * line..][..run]);
                }
            }
        }
    }

    /// A plain SGD step from a stored gradient; the same bits as [`Gradient::Step`].
    pub fn sgd(&self, step: SgdStep, gradient: &[f32], anchor: &[f32], weights: &mut [f32]) {
        need("the weights", weights, gradient.len());
        if step.proximal_mu > 0.0 {
            need("the anchor", anchor, gradient.len());
        }
        elementwise::sgd(self.isa, step, gradient, anchor, weights);
    }

    /// An SGD step with momentum; `velocity` starts as zeros.
    pub fn sgd_momentum(
        &self,
        step: SgdStep,
        momentum: Momentum,
        gradient: &[f32],
        anchor: &[f32],
        velocity: &mut [f32],
        weights: &mut [f32],
    ) {
        need("the weights", weights, gradient.len());
        need("the velocity", velocity, gradient.len());
        if step.proximal_mu > 0.0 {
            need("the anchor", anchor, gradient.len());
        }
        elementwise::sgd_momentum(
            self.isa, step, momentum, gradient, anchor, velocity, weights,
        );
    }

    /// A step of Adam or AdamW; both moments start as zeros.
    pub fn adam(
        &self,
        step: &AdamStep,
        gradient: &[f32],
        anchor: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        weights: &mut [f32],
    ) {
        need("the weights", weights, gradient.len());
        need("the first moment", first, gradient.len());
        need("the second moment", second, gradient.len());
        if step.step.proximal_mu > 0.0 {
            need("the anchor", anchor, gradient.len());
        }
        elementwise::adam(self.isa, step, gradient, anchor, first, second, weights);
    }

    /// Asks for the rows of `x[.., width]` at `rows` ahead of their use. Changes nothing; rows
    /// outside `x` are left out.
    pub fn prefetch_rows(&self, x: &[f32], width: usize, rows: &[u32]) {
        elementwise::prefetch_rows(self.isa, x, width, rows);
    }

    /// Interleaves sixteen rows: `to[i][lane] = from[lane * stride + i]` for `i` below `len`.
    pub fn lanes_interleave(&self, from: &[f32], stride: usize, len: usize, to: &mut [f32]) {
        need(
            "from",
            from,
            stride.saturating_mul(LANES - 1).saturating_add(len),
        );
        need("to", to, len.saturating_mul(LANES));
        product::interleave(self.isa, LANES, from, stride, len, to);
    }

    /// [`Kernels::dense`] in every lane: `x` is `[rows][inputs][LANES]`, and so on.
    pub fn lanes_dense(
        &self,
        d: &Dense,
        rows: usize,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        fused: Fused,
        y: &mut [f32],
    ) {
        lanes::dense(self.isa, d, rows, x, weight, bias, fused, y);
    }

    /// [`Kernels::dense_dx`] in every lane.
    pub fn lanes_dense_dx(
        &self,
        d: &Dense,
        rows: usize,
        dy: &[f32],
        weight: &[f32],
        dx: &mut [f32],
    ) {
        lanes::dense_dx(self.isa, d, rows, dy, weight, dx);
    }

    /// [`Kernels::dense_dw`] with [`Gradient::Step`] in every lane.
    pub fn lanes_dense_step(
        &self,
        d: &Dense,
        rows: &LaneRows,
        x: &[f32],
        dy: &[f32],
        weight: &mut [f32],
        step: &LaneStep<'_>,
    ) {
        lanes::dense_step(self.isa, d, rows, x, dy, weight, step);
    }

    /// [`Kernels::column_sums`] with [`Gradient::Step`] in every lane.
    pub fn lanes_bias_step(
        &self,
        columns: usize,
        rows: &LaneRows,
        dy: &[f32],
        bias: &mut [f32],
        step: &LaneStep<'_>,
    ) {
        lanes::bias_step(self.isa, columns, rows, dy, bias, step);
    }

    /// [`Kernels::softmax_cross_entropy`] in every lane; `labels` are whole numbers below
    /// `classes`, `[rows][LANES]`, and each lane has its own scale.
    pub fn lanes_softmax_cross_entropy(
        &self,
        rows: usize,
        classes: usize,
        logits: &[f32],
        labels: &[f32],
        scales: &[f32; LANES],
        losses: &mut [f32],
        gradient: &mut [f32],
    ) {
        lanes::softmax_cross_entropy(
            self.isa, rows, classes, logits, labels, scales, losses, gradient,
        );
    }

    /// Adds to each value `std` times its own standard normal number, the number at a place of the
    /// stream that `key` names (its groups of [`NORMAL_GROUP`] numbers, from `first` on; the rest
    /// of the last group is skipped). For simulation; `normal` in the sources says how they are
    /// made.
    #[cfg(feature = "std")]
    pub fn add_normals(&self, key: &[u32; 8], first: u64, std: f32, values: &mut [f32]) {
        normal::add(self.isa, key, first, std, values);
    }

    /// `y[columns, rows] = x[rows, columns]^T`
    pub fn transpose(&self, rows: usize, columns: usize, x: &[f32], y: &mut [f32]) {
        need("x", x, rows.saturating_mul(columns));
        need("y", y, rows.saturating_mul(columns));
        product::transpose(self.isa, rows, columns, x, y);
    }
}
