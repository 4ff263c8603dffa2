//! Convolutions with one filter per channel, vectorised over channels.

use super::super::elementwise::apply_fused;
use super::super::geometry::Conv;
use super::super::simd::{Simd, map, vectorized};
use super::super::types::{After, Fused, Gradient, Write};

/// Output columns that share a load of a weight.
const STRIP: usize = 8;

/// Channels are taken in parts such that the lines of a strip's window have at most so many bytes.
const STRIP_BYTES: usize = 24 * 1024;

/// A convolution over images whose zeros around them are only imagined.
#[derive(Clone, Copy, Debug)]
struct Images<'a> {
    height: usize,
    width: usize,
    channels: usize,
    top: usize,
    left: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    out_height: usize,
    out_width: usize,
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    after: After<'a>,
    /// Of a gradient of inputs.
    write: Write,
}

/// Neighbouring output columns of one image: columns from `first` of the channels from `channel`
/// to `end`, whose windows have the kernel's columns `inside` in the image.
#[derive(Clone, Copy, Debug)]
struct Strip {
    row: usize,
    first: usize,
    channel: usize,
    end: usize,
    inside: [usize; 2],
}

/// Repeats a body for each column `$j` below `C` (at most 8).
macro_rules! columns {
    ($j:ident, $body:block) => {
        columns!(@ $j, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $j:ident, $body:block, $($column:literal)*) => {{
        $(if $column < C {
            let $j: usize = $column;
            $body
        })*
    }};
}

/// All rows of a strip of `C` columns.
///
/// A tap outside the image multiplies a zero. In a gradient of inputs (`TURNED`) such a tap is
/// passed over, and the taps come from the last to the first.
#[inline(always)]
fn strip<V: Simd, const C: usize, const TURNED: bool>(
    v: V,
    i: &Images<'_>,
    s: Strip,
    y: &mut [f32],
) {
    let n = i.channels;
    let [high, wide] = i.kernel;
    let step = i.stride[1] * n;
    let (line, image) = (i.width * n, i.height * i.width * n);
    let x = &i.x[s.row * image..][..image];
    let weight = &i.weight[..high * wide * n];
    let next_tap = if TURNED { n.wrapping_neg() } else { n };
    let first_tap = if TURNED { (high * wide - 1) * n } else { 0 };
    assert!(s.end <= n && s.first + C <= i.out_width);
    assert!(i.bias.is_none_or(|bias| bias.len() >= n));
    // The first window's first column inside the image lies here in a line, the last window's
    // last column not beyond it.
    let [from, to] = s.inside;
    let start = (s.first * i.stride[1] + from).wrapping_sub(i.left);
    assert!(from >= to || start + (C - 1) * i.stride[1] + to - from <= i.width);
    for oh in 0..i.out_height {
        let at = ((s.row * i.out_height + oh) * i.out_width + s.first) * n;
        let y = &mut y[at..at + C * n];
        let residual = i.after.residual.map(|residual| &residual[at..at + C * n]);
        let mut channel = s.channel;
        while channel < s.end {
            let len = (s.end - channel).min(V::N);
            // SAFETY: `channel + len` is at most `n`; `x` holds the image's lines, of which the
            // columns read were checked above; `weight`, `bias`, `y` and `residual` hold `n`
            // numbers for each tap, once, and for each of `C` columns.
            unsafe {
                let load = |p: *const f32| {
                    if len == V::N {
                        v.load(p)
                    } else {
                        v.load_first(p, len)
                    }
                };
                let bias = match i.bias {
                    Some(bias) => load(bias.as_ptr().add(channel)),
                    None => v.splat(0.0),
                };
                let mut acc = [bias; C];
                let mut tap = weight.as_ptr().add(first_tap + channel);
                for kh in 0..high {
                    let h = (oh * i.stride[0] + kh).wrapping_sub(i.top);
                    let x = x
                        .as_ptr()
                        .wrapping_add(h.wrapping_mul(line) + start * n + channel);
                    let (from, to) = if h < i.height {
                        (from, to)
                    } else {
                        (wide, wide)
                    };
                    for _ in 0..from {
                        if !TURNED {
                            let w = load(tap);
                            columns!(j, { acc[j] = v.fma(v.splat(0.0), w, acc[j]) });
                        }
                        tap = tap.wrapping_add(next_tap);
                    }
                    let mut x = x;
                    for _ in from..to {
                        let w = load(tap);
                        columns!(j, { acc[j] = v.fma(load(x.add(j * step)), w, acc[j]) });
                        tap = tap.wrapping_add(next_tap);
                        x = x.wrapping_add(n);
                    }
                    for _ in to.max(from)..wide {
                        if !TURNED {
                            let w = load(tap);
                            columns!(j, { acc[j] = v.fma(v.splat(0.0), w, acc[j]) });
                        }
                        tap = tap.wrapping_add(next_tap);
                    }
                }
                columns!(j, {
                    let y = y.as_mut_ptr().add(j * n + channel);
                    if TURNED {
                        if i.write == Write::Add {
                            acc[j] = v.add(load(y), acc[j]);
                        }
                    } else {
                        acc[j] = apply_fused(v, i.after.first, acc[j]);
                        if let Some(residual) = residual {
                            let other = load(residual.as_ptr().add(j * n + channel));
                            acc[j] = apply_fused(v, i.after.last, v.add(acc[j], other));
                        }
                    }
                    v.store_first(y, len, acc[j]);
                });
            }
            channel += len;
        }
    }
}

#[inline(always)]
fn images<V: Simd, const TURNED: bool>(v: V, i: &Images<'_>, rows: usize, y: &mut [f32]) {
    let [high, wide] = i.kernel;
    let stride = i.stride[1];
    // Columns whose whole window lies inside the image.
    let first = i.left.div_ceil(stride).min(i.out_width);
    let end = match (i.width + i.left).checked_sub(wide) {
        Some(last) => (last / stride + 1).clamp(first, i.out_width),
        None => first,
    };
    let line = high * ((STRIP - 1) * stride + wide) * size_of::<f32>();
    let part = (STRIP_BYTES / line / V::N).max(1) * V::N;
    for row in 0..rows {
        let mut ow = 0;
        while ow < i.out_width {
            let whole = first <= ow && ow < end;
            let width = match if whole { end - ow } else { 1 } {
                STRIP.. => STRIP,
                4.. => 4,
                2.. => 2,
                _ => 1,
            };
            let left = (i.left.saturating_sub(ow * stride)).min(wide);
            let right = (i.width + i.left).saturating_sub(ow * stride).min(wide);
            for channel in (0..i.channels).step_by(part) {
                let s = Strip {
                    row,
                    first: ow,
                    channel,
                    end: (channel + part).min(i.channels),
                    inside: if whole { [0, wide] } else { [left, right] },
                };
                match width {
                    STRIP => strip::<V, STRIP, TURNED>(v, i, s, y),
                    4 => strip::<V, 4, TURNED>(v, i, s, y),
                    2 => strip::<V, 2, TURNED>(v, i, s, y),
                    _ => strip::<V, 1, TURNED>(v, i, s, y),
                }
            }
            ow += width;
        }
    }
}

/// Adds each output's gradient to the inputs of its window, outputs ascending.
#[inline(always)]
fn scatter<V: Simd>(v: V, c: &Conv, rows: usize, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let s = c.shape;
    let n = s.channels;
    for row in 0..rows {
        let image = &mut dx[row * c.input_len()..][..c.input_len()];
        image.fill(0.0);
        for oh in 0..c.out_height {
            for ow in 0..c.out_width {
                let dy = &dy[((row * c.out_height + oh) * c.out_width + ow) * n..][..n];
                for kh in 0..s.kernel[0] {
                    let h = (oh * s.stride[0] + kh).wrapping_sub(s.padding.top);
                    if h >= s.height {
                        continue;
                    }
                    for kw in 0..s.kernel[1] {
                        let w = (ow * s.stride[1] + kw).wrapping_sub(s.padding.left);
                        if w >= s.width {
                            continue;
                        }
                        let weight = &weight[(kh * s.kernel[1] + kw) * n..][..n];
                        let to = &mut image[(h * s.width + w) * n..][..n];
                        map!(v, n; d = dy, k = weight, t = to; {} to => v.fma(d, k, t));
                    }
                }
            }
        }
    }
}

/// The gradient of a 3x3 window's weights, added to `sums`: nine sums of a vector of channels at a
/// time, rows and positions ascending.
#[inline(always)]
fn sums_of_nine<V: Simd>(v: V, c: &Conv, rows: usize, x: &[f32], dy: &[f32], sums: &mut [f32]) {
    let n = c.shape.channels;
    let stride = c.shape.stride;
    let line = c.padded_width() * n;
    let (x, dy) = (&x[..rows * c.padded_len()], &dy[..rows * c.output_len()]);
    let sums = &mut sums[..9 * n];
    for channel in (0..n).step_by(V::N) {
        let len = (n - channel).min(V::N);
        // SAFETY: `channel + len` is at most `n`; the windows lie inside the padded images, and
        // the slices were cut to all images above.
        unsafe {
            let load = |p: *const f32| {
                if len == V::N {
                    v.load(p)
                } else {
                    v.load_first(p, len)
                }
            };
            let to = sums.as_mut_ptr().add(channel);
            let mut acc: [V::F; 9] = core::array::from_fn(|tap| load(to.add(tap * n)));
            let mut d = dy.as_ptr().add(channel);
            for row in 0..rows {
                for oh in 0..c.out_height {
                    let at = row * c.padded_len() + oh * stride[0] * line + channel;
                    let mut x = x.as_ptr().add(at);
                    for _ in 0..c.out_width {
                        let g = load(d);
                        d = d.wrapping_add(n);
                        for kh in 0..3 {
                            for kw in 0..3 {
                                let tap = 3 * kh + kw;
                                acc[tap] = v.fma(load(x.add(kh * line + kw * n)), g, acc[tap]);
                            }
                        }
                        x = x.wrapping_add(stride[1] * n);
                    }
                }
            }
            for (tap, acc) in acc.into_iter().enumerate() {
                v.store_first(to.add(tap * n), len, acc);
            }
        }
    }
}

vectorized! {
    /// Over inputs that carry their padding.
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
        let padded = Images {
            height: c.padded_height(),
            width: c.padded_width(),
            channels: c.shape.channels,
            top: 0,
            left: 0,
            kernel: c.shape.kernel,
            stride: c.shape.stride,
            out_height: c.out_height,
            out_width: c.out_width,
            x,
            weight,
            bias,
            after: fused.into(),
            write: Write::Store,
        };
        images::<_, false>(v, &padded, rows, y);
    }

    /// Over inputs without their padding, to the same bits: a tap outside the image multiplies a
    /// zero.
    fn served(
        v,
        c: &Conv,
        rows: usize,
        x: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        after: After<'_>,
        y: &mut [f32],
    ) {
        let plain = Images {
            height: c.shape.height,
            width: c.shape.width,
            channels: c.shape.channels,
            top: c.shape.padding.top,
            left: c.shape.padding.left,
            kernel: c.shape.kernel,
            stride: c.shape.stride,
            out_height: c.out_height,
            out_width: c.out_width,
            x,
            weight,
            bias,
            after,
            write: Write::Store,
        };
        images::<_, false>(v, &plain, rows, y);
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
        if c.has_unit_stride() {
            let padding = c.shape.padding;
            let gradients = Images {
                height: c.out_height,
                width: c.out_width,
                channels: c.shape.channels,
                top: c.shape.kernel[0] - 1 - padding.top,
                left: c.shape.kernel[1] - 1 - padding.left,
                kernel: c.shape.kernel,
                stride: [1, 1],
                out_height: c.shape.height,
                out_width: c.shape.width,
                x: dy,
                weight,
                bias: None,
                after: Fused::None.into(),
                write,
            };
            return images::<_, true>(v, &gradients, rows, dx);
        }
        if write == Write::Store {
            return scatter(v, c, rows, dy, weight, dx);
        }
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
        if s.kernel == [3, 3] {
            sums_of_nine(v, c, rows, x, dy, sums);
            return super::super::elementwise::finish_gradient(v, sums, &mut gradient, 0);
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
