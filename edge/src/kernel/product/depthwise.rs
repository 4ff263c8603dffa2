//! Convolutions with one filter per channel, vectorised over channels.

use super::super::elementwise::relu6;
use super::super::geometry::Conv;
use super::super::simd::{map, vectorized};
use super::super::types::{Fused, Gradient, Write};

vectorized! {
    fn forward(
        v,
        c: &Conv,
        rows: usize,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        fused: Fused,
        y: &mut [f32],
    ) {
        let s = c.shape;
        let n = s.channels;
        for row in 0..rows {
            let image = &x[row * c.padded_len()..][..c.padded_len()];
            for oh in 0..c.out_height {
                for ow in 0..c.out_width {
                    let y = &mut y[((row * c.out_height + oh) * c.out_width + ow) * n..][..n];
                    match bias {
                        Some(bias) => y.copy_from_slice(&bias[..n]),
                        None => y.fill(0.0),
                    }
                    for kh in 0..s.kernel[0] {
                        for kw in 0..s.kernel[1] {
                            let (h, w) = (oh * s.stride[0] + kh, ow * s.stride[1] + kw);
                            let x = &image[(h * c.padded_width() + w) * n..][..n];
                            let weight = &weight[(kh * s.kernel[1] + kw) * n..][..n];
                            map!(v, n; a = x, b = weight, t = y; {} y => v.fma(a, b, t));
                        }
                    }
                    match fused {
                        Fused::None => {}
                        Fused::Relu => map!(v, n; t = y; {} y => v.max(t, v.splat(0.0))),
                        Fused::Relu6 => map!(v, n; t = y; {} y => relu6(v, t)),
                    }
                }
            }
        }
    }

    fn dx(
        v,
        c: &Conv,
        rows: usize,
        dy: &[f32],
        weight: &[f32],
        dx: &mut [f32],
        write: Write,
    ) {
        let s = c.shape;
        let n = s.channels;
        let [high, wide] = s.kernel;
        for row in 0..rows {
            for h in 0..s.height {
                for w in 0..s.width {
                    let dx = &mut dx[((row * s.height + h) * s.width + w) * n..][..n];
                    let mut first = 0;
                    while first < n {
                        let len = (n - first).min(V::N);
                        let mut acc = v.splat(0.0);
                        for kh in (0..high).rev() {
                            for kw in (0..wide).rev() {
                                let ph = (h + s.padding.top).wrapping_sub(kh);
                                let pw = (w + s.padding.left).wrapping_sub(kw);
                                let (oh, ow) = (ph / s.stride[0], pw / s.stride[1]);
                                if ph.is_multiple_of(s.stride[0])
                                    && pw.is_multiple_of(s.stride[1])
                                    && oh < c.out_height
                                    && ow < c.out_width
                                {
                                    let at = (row * c.out_height + oh) * c.out_width + ow;
                                    let dy = &dy[at * n + first..][..len];
                                    let weight = &weight[(kh * wide + kw) * n + first..][..len];
                                    // SAFETY: both hold `len` numbers.
                                    acc = unsafe {
                                        v.fma(
                                            v.load_first(dy.as_ptr(), len),
                                            v.load_first(weight.as_ptr(), len),
                                            acc,
                                        )
                                    };
                                }
                            }
                        }
                        let to = &mut dx[first..first + len];
                        // SAFETY: `to` holds `len` numbers.
                        unsafe {
                            if write == Write::Add {
                                acc = v.add(v.load_first(to.as_ptr(), len), acc);
                            }
                            v.store_first(to.as_mut_ptr(), len, acc);
                        }
                        first += len;
                    }
                }
            }
        }
    }

    fn dw(
        v,
        c: &Conv,
        rows: usize,
        x: &[f32],
        dy: &[f32],
        gradient: Gradient<'_>,
        scratch: &mut [f32],
    ) {
        let s = c.shape;
        let n = s.channels;
        let mut gradient = gradient;
        let sums = &mut scratch[..c.weight_len()];
        match &gradient {
            Gradient::Accumulate(to) => sums.copy_from_slice(&to[..c.weight_len()]),
            Gradient::Store(_) | Gradient::Step { .. } => sums.fill(0.0),
        }
        for row in 0..rows {
            let image = &x[row * c.padded_len()..][..c.padded_len()];
            for oh in 0..c.out_height {
                for ow in 0..c.out_width {
                    let dy = &dy[((row * c.out_height + oh) * c.out_width + ow) * n..][..n];
                    for kh in 0..s.kernel[0] {
                        for kw in 0..s.kernel[1] {
                            let (h, w) = (oh * s.stride[0] + kh, ow * s.stride[1] + kw);
                            let x = &image[(h * c.padded_width() + w) * n..][..n];
                            let sums = &mut sums[(kh * s.kernel[1] + kw) * n..][..n];
                            map!(v, n; a = x, d = dy, t = sums; {} sums => v.fma(a, d, t));
                        }
                    }
                }
            }
        }
        super::super::elementwise::finish_gradient(v, sums, &mut gradient, 0);
    }
}
