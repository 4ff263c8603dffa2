//! Convolutions of one to three (or more) spatial axes, by patches and a matrix product.

use half::f16;

use super::product::{centred, dense, dense_whole};
use super::{Ctx, OpFn, Outputs, one, quant, strides};
use crate::error::NodeError;
use crate::tensor::{DType, Data, Tensor};

pub(super) fn find(op: &str, _opset: i64) -> Option<OpFn> {
    Some(match op {
        "Conv" => conv,
        "ConvInteger" => conv_integer,
        "QLinearConv" => qlinear_conv,
        "ConvTranspose" => conv_transpose,
        _ => return None,
    })
}

/// A window that moves over the spatial axes.
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    /// Before and after each axis.
    pub(super) before: Vec<usize>,
    pub(super) after: Vec<usize>,
    pub(super) input: Vec<usize>,
    pub(super) output: Vec<usize>,
}

/// A list attribute of one whole number for each axis, from `least` on.
pub(super) fn per_axis(
    ctx: &Ctx<'_>,
    name: &'static str,
    len: usize,
    default: usize,
    least: i64,
) -> Result<Vec<usize>, NodeError> {
    let Some(list) = ctx.ints(name)? else {
        return Ok(vec![default; len]);
    };
    if list.len() != len {
        return Err(NodeError::Attribute {
            name: name.to_owned(),
            expected: "list of one number for each spatial axis",
        });
    }
    list.iter()
        .map(|&found| {
            // Larger numbers than this overflow the sums below and mean nothing.
            usize::try_from(found)
                .ok()
                .filter(|_| found >= least && found < 1 << 31)
                .ok_or(NodeError::Value {
                    what: name,
                    found,
                    expected: "a size",
                })
        })
        .collect()
}

impl Window {
    /// The window of a node over an input `[batch, channels, sizes...]`.
    pub(super) fn new(
        ctx: &Ctx<'_>,
        shape: &[usize],
        kernel: Vec<usize>,
        round_up: bool,
    ) -> Result<Self, NodeError> {
        let rank = kernel.len();
        if shape.len() != rank + 2 || rank == 0 {
            return Err(ctx.wrong_shape(0, "a batch, channels and one size for each kernel size"));
        }
        let input = shape[2..].to_vec();
        let strides = per_axis(ctx, "strides", rank, 1, 1)?;
        let dilations = per_axis(ctx, "dilations", rank, 1, 1)?;
        let pads = per_axis(ctx, "pads", 2 * rank, 0, 0)?;
        let (mut before, mut after) = (pads[..rank].to_vec(), pads[rank..].to_vec());
        let mut output = Vec::with_capacity(rank);
        let auto = ctx.text("auto_pad", "NOTSET")?;
        for at in 0..rank {
            if kernel[at] == 0 || kernel[at] >= 1 << 31 {
                return Err(ctx.wrong_shape(0, "kernel sizes of at least 1"));
            }
            let reach = (kernel[at] - 1)
                .checked_mul(dilations[at])
                .and_then(|reach| reach.checked_add(1))
                .ok_or_else(|| ctx.wrong_shape(0, "a smaller window"))?;
            match auto {
                "SAME_UPPER" | "SAME_LOWER" => {
                    let out = input[at].div_ceil(strides[at]);
                    let total = (out.saturating_sub(1) * strides[at])
                        .saturating_add(reach)
                        .saturating_sub(input[at]);
                    let small = total / 2;
                    (before[at], after[at]) = if auto == "SAME_UPPER" {
                        (small, total - small)
                    } else {
                        (total - small, small)
                    };
                    output.push(out);
                    continue;
                }
                "VALID" => (before[at], after[at]) = (0, 0),
                "NOTSET" => {}
                other => {
                    return Err(NodeError::Choice {
                        name: "auto_pad".to_owned(),
                        found: other.to_owned(),
                    });
                }
            }
            let padded = input[at]
                .saturating_add(before[at])
                .saturating_add(after[at]);
            let Some(free) = padded.checked_sub(reach) else {
                return Err(ctx.wrong_shape(0, "sizes of at least the kernel's reach"));
            };
            let mut out = if round_up {
                free.div_ceil(strides[at]) + 1
            } else {
                free / strides[at] + 1
            };
            // The last window starts inside the input or the padding before it.
            if round_up && (out - 1) * strides[at] >= input[at] + before[at] {
                out -= 1;
            }
            output.push(out);
        }
        // Every tap of every position is looked at: bounds the time, too.
        ctx.work(&[kernel.clone(), output.clone()].concat())?;
        Ok(Self {
            kernel,
            strides,
            dilations,
            before,
            after,
            input,
            output,
        })
    }

    /// Number of positions of the window.
    pub(super) fn positions(&self) -> usize {
        self.output.iter().product()
    }

    /// Elements of the window.
    pub(super) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Calls `tap(number, place)` for every tap of the window at `position`, its place in the
    /// image or `None` in the padding.
    pub(super) fn each_tap(&self, position: usize, mut tap: impl FnMut(usize, Option<usize>)) {
        let rank = self.kernel.len();
        let steps = strides(&self.input);
        let mut start = vec![0_isize; rank];
        let mut rest = position;
        for at in (0..rank).rev() {
            let out = rest % self.output[at];
            rest /= self.output[at];
            start[at] = (out * self.strides[at]) as isize - self.before[at] as isize;
        }
        let mut k = vec![0; rank];
        for number in 0..self.taps() {
            let mut place = Some(0);
            for at in 0..rank {
                let to = start[at] + (k[at] * self.dilations[at]) as isize;
                place = match (place, usize::try_from(to)) {
                    (Some(place), Ok(to)) if to < self.input[at] => Some(place + to * steps[at]),
                    _ => None,
                };
            }
            tap(number, place);
            for at in (0..rank).rev() {
                k[at] += 1;
                if k[at] < self.kernel[at] {
                    break;
                }
                k[at] = 0;
            }
        }
    }
}

/// The sizes of a convolution.
struct Shape {
    window: Window,
    batch: usize,
    channels: usize,
    filters: usize,
    groups: usize,
    shape: Vec<usize>,
}

fn shape(ctx: &Ctx<'_>, x: &Tensor, w: &Tensor, w_input: usize) -> Result<Shape, NodeError> {
    if w.rank() < 3 || w.rank() != x.rank() {
        return Err(ctx.wrong_shape(w_input, "filters, channels and kernel sizes"));
    }
    let kernel = w.shape()[2..].to_vec();
    if let Some(given) = ctx.ints("kernel_shape")?
        && !given.iter().map(|&k| k as usize).eq(kernel.iter().copied())
    {
        return Err(ctx.wrong_shape(w_input, "the sizes in `kernel_shape`"));
    }
    let group = ctx.int("group", 1)?;
    let (channels, filters) = (x.shape()[1], w.shape()[0]);
    let groups = usize::try_from(group)
        .ok()
        .filter(|&groups| {
            groups > 0
                && filters.is_multiple_of(groups)
                && channels.is_multiple_of(groups)
                && channels / groups == w.shape()[1]
        })
        .ok_or(NodeError::Value {
            what: "group",
            found: group,
            expected: "a divisor of channels and filters that fits the weight",
        })?;
    let window = Window::new(ctx, x.shape(), kernel, false)?;
    let mut shape = vec![x.shape()[0], filters];
    shape.extend(&window.output);
    ctx.work(&shape)?;
    Ok(Shape {
        window,
        batch: x.shape()[0],
        channels,
        filters,
        groups,
        shape,
    })
}

/// Positions whose patches are multiplied at once: enough for the product, few enough for caches.
const CHUNK: usize = 256;

/// `y[batch, filters, positions]` from patches of `x`, through `product(x, w, [m, k, n], y)`.
fn by_patches<T: Copy + Default>(
    s: &Shape,
    x: &[T],
    w: &[T],
    product: impl Fn(&[T], &[T], [usize; 3], &mut [T]),
) -> Vec<T> {
    let (positions, taps) = (s.window.positions(), s.window.taps());
    let image: usize = s.window.input.iter().product();
    let (own, wide) = (s.channels / s.groups, s.filters / s.groups);
    let depth = own * taps;
    let mut y = vec![T::default(); s.batch * s.filters * positions];
    let mut turned = vec![T::default(); depth * wide];
    let mut patches = vec![T::default(); CHUNK.min(positions) * depth];
    let mut result = vec![T::default(); CHUNK.min(positions) * wide];
    for group in 0..s.groups {
        for filter in 0..wide {
            let from = &w[(group * wide + filter) * depth..][..depth];
            for (i, &value) in from.iter().enumerate() {
                turned[i * wide + filter] = value;
            }
        }
        for batch in 0..s.batch {
            let x = &x[(batch * s.channels + group * own) * image..][..own * image];
            let y = &mut y[(batch * s.filters + group * wide) * positions..][..wide * positions];
            for start in (0..positions).step_by(CHUNK) {
                let rows = CHUNK.min(positions - start);
                for row in 0..rows {
                    let patch = &mut patches[row * depth..][..depth];
                    s.window.each_tap(start + row, |tap, place| {
                        for channel in 0..own {
                            patch[channel * taps + tap] =
                                place.map_or(T::default(), |place| x[channel * image + place]);
                        }
                    });
                }
                product(&patches, &turned, [rows, depth, wide], &mut result);
                for row in 0..rows {
                    for filter in 0..wide {
                        y[filter * positions + start + row] = result[row * wide + filter];
                    }
                }
            }
        }
    }
    y
}

fn conv(ctx: &Ctx<'_>) -> Outputs {
    let (x, w) = (ctx.input(0)?, ctx.input(1)?);
    if x.dtype() != w.dtype() {
        return Err(NodeError::MixedTypes(x.dtype(), w.dtype()));
    }
    let s = shape(ctx, x, w, 1)?;
    let bias = bias(ctx, 2, &s, x.dtype())?;
    let positions = s.window.positions().max(1);
    let y = match x.dtype() {
        DType::F32 | DType::F16 => {
            let mut y = by_patches(&s, &x.to_f32(), &w.to_f32(), dense);
            if let Some(bias) = bias {
                for (i, line) in y.chunks_exact_mut(positions).enumerate() {
                    let bias = bias[i % s.filters] as f32;
                    line.iter_mut().for_each(|y| *y += bias);
                }
            }
            if x.dtype() == DType::F16 {
                Data::F16(y.into_iter().map(f16::from_f32).collect())
            } else {
                Data::F32(y)
            }
        }
        DType::F64 => {
            let product = |x: &[f64], w: &[f64], [m, k, n]: [usize; 3], y: &mut [f64]| {
                y[..m * n].fill(0.0);
                for row in 0..m {
                    for i in 0..k {
                        for column in 0..n {
                            y[row * n + column] += x[row * k + i] * w[i * n + column];
                        }
                    }
                }
            };
            let mut y = by_patches(&s, &x.to_f64(), &w.to_f64(), product);
            if let Some(bias) = bias {
                for (i, line) in y.chunks_exact_mut(positions).enumerate() {
                    line.iter_mut().for_each(|y| *y += bias[i % s.filters]);
                }
            }
            Data::F64(y)
        }
        _ => return Err(ctx.wrong_type(0, "f32, f64 or f16")),
    };
    one(Tensor::from_data(s.shape, y)?)
}

fn bias(
    ctx: &Ctx<'_>,
    input: usize,
    s: &Shape,
    dtype: DType,
) -> Result<Option<Vec<f64>>, NodeError> {
    match ctx.optional(input) {
        None => Ok(None),
        Some(bias) if bias.shape() != [s.filters] => {
            Err(ctx.wrong_shape(input, "one number for each filter"))
        }
        Some(bias) if bias.dtype() != dtype => Err(NodeError::MixedTypes(dtype, bias.dtype())),
        Some(bias) => Ok(Some(bias.to_f64())),
    }
}

/// The exact sums of a convolution of 8-bit tensors.
fn integer_sums(
    ctx: &Ctx<'_>,
    [x, x_zero]: [usize; 2],
    [w, w_zero]: [usize; 2],
) -> Result<(Vec<i32>, Shape), NodeError> {
    let s = shape(ctx, ctx.input(x)?, ctx.input(w)?, w)?;
    if ctx.optional(x_zero).is_some_and(|zero| zero.len() != 1) {
        return Err(ctx.wrong_shape(x_zero, "one zero point"));
    }
    // The zero points of the weight lie along its first axis. Padding is the zero point itself,
    // which is 0 here.
    let rank = ctx.input(w)?.rank();
    let (values, weights) = (centred(ctx, x, x_zero, 1)?, centred(ctx, w, w_zero, rank)?);
    let sums = by_patches(&s, &values, &weights, dense_whole);
    Ok((sums, s))
}

fn conv_integer(ctx: &Ctx<'_>) -> Outputs {
    let (sums, s) = integer_sums(ctx, [0, 2], [1, 3])?;
    one(Tensor::new(s.shape, sums)?)
}

fn qlinear_conv(ctx: &Ctx<'_>) -> Outputs {
    let (mut sums, s) = integer_sums(ctx, [0, 2], [3, 5])?;
    let positions = s.window.positions().max(1);
    let one_scale = |input: usize| match ctx.values::<f32>(input, "f32")? {
        [scale] => Ok(*scale),
        _ => Err(ctx.wrong_shape(input, "one scale")),
    };
    let (x_scale, y_scale) = (one_scale(1)?, one_scale(6)?);
    let w_scales = ctx.values::<f32>(4, "f32")?;
    if w_scales.len() != 1 && w_scales.len() != s.filters {
        return Err(ctx.wrong_shape(4, "one scale, or one for each filter"));
    }
    if ctx.optional(8).is_some() {
        let bias = ctx.values::<i32>(8, "i32")?;
        if bias.len() != s.filters {
            return Err(ctx.wrong_shape(8, "one number for each filter"));
        }
        for (i, line) in sums.chunks_exact_mut(positions).enumerate() {
            let bias = bias[i % s.filters];
            line.iter_mut()
                .for_each(|sum| *sum = sum.wrapping_add(bias));
        }
    }
    let multiplier = |i: usize| {
        let filter = i / positions % s.filters;
        let scale = w_scales[if w_scales.len() == 1 { 0 } else { filter }];
        x_scale * scale / y_scale
    };
    let scaled: Vec<f32> = sums
        .iter()
        .enumerate()
        .map(|(i, &sum)| sum as f32 * multiplier(i))
        .collect();
    let data = quant::saturate(ctx, 7, &scaled)?;
    one(Tensor::from_data(s.shape, data)?)
}

fn conv_transpose(ctx: &Ctx<'_>) -> Outputs {
    let (x, w) = (ctx.input(0)?, ctx.input(1)?);
    if x.dtype() != w.dtype() || !x.dtype().is_float() {
        return Err(ctx.wrong_type(1, "the floating-point type of the input"));
    }
    let rank = x.rank().saturating_sub(2);
    if rank == 0 || w.rank() != x.rank() || w.shape()[0] != x.shape()[1] {
        return Err(ctx.wrong_shape(1, "channels, filters and kernel sizes"));
    }
    let kernel = &w.shape()[2..];
    let steps = per_axis(ctx, "strides", rank, 1, 1)?;
    let dilations = per_axis(ctx, "dilations", rank, 1, 1)?;
    let extra = per_axis(ctx, "output_padding", rank, 0, 0)?;
    let pads = per_axis(ctx, "pads", 2 * rank, 0, 0)?;
    let (mut before, after) = (pads[..rank].to_vec(), pads[rank..].to_vec());
    let auto = ctx.text("auto_pad", "NOTSET")?;
    let wanted = match ctx.ints("output_shape")? {
        Some(_) => {
            let len = ctx.ints("output_shape")?.map_or(0, <[i64]>::len);
            let all = per_axis(ctx, "output_shape", len, 0, 0)?;
            // Some writers give the batch and channels, too.
            Some(all[len.saturating_sub(rank)..].to_vec())
        }
        None => None,
    };
    if wanted.as_ref().is_some_and(|wanted| wanted.len() != rank) {
        return Err(ctx.wrong_shape(0, "one output size for each spatial axis"));
    }
    let mut output = Vec::with_capacity(rank);
    for at in 0..rank {
        let size = x.shape()[at + 2];
        if size == 0 || kernel[at] == 0 {
            return Err(ctx.wrong_shape(0, "sizes of at least 1"));
        }
        let total = (size - 1)
            .saturating_mul(steps[at])
            .saturating_add(extra[at])
            .saturating_add((kernel[at] - 1).saturating_mul(dilations[at]))
            .saturating_add(1);
        let same = matches!(auto, "SAME_UPPER" | "SAME_LOWER");
        let target = match &wanted {
            Some(wanted) => Some(wanted[at]),
            None if same => Some(size.saturating_mul(steps[at])),
            None => None,
        };
        output.push(match target {
            Some(target) => {
                let cut = total.saturating_sub(target);
                before[at] = if auto == "SAME_UPPER" {
                    cut / 2
                } else {
                    cut - cut / 2
                };
                target
            }
            None => total
                .checked_sub(before[at].saturating_add(after[at]))
                .ok_or_else(|| ctx.wrong_shape(0, "less padding"))?,
        });
    }
    let group = ctx.int("group", 1)?;
    let channels = x.shape()[1];
    let groups = usize::try_from(group)
        .ok()
        .filter(|&groups| groups > 0 && channels.is_multiple_of(groups))
        .ok_or(NodeError::Value {
            what: "group",
            found: group,
            expected: "a divisor of the channels",
        })?;
    let wide = w.shape()[1];
    let filters = wide.saturating_mul(groups);
    let mut shape = vec![x.shape()[0], filters];
    shape.extend(&output);
    let len = ctx.work(&shape)?;
    let (xs, ws) = (x.to_f64(), w.to_f64());
    let mut y = vec![0.0; len];
    let positions: usize = output.iter().product();
    if let Some(bias) = ctx.optional(2) {
        if bias.shape() != [filters] {
            return Err(ctx.wrong_shape(2, "one number for each filter"));
        }
        let bias = bias.to_f64();
        for (i, line) in y.chunks_exact_mut(positions.max(1)).enumerate() {
            line.fill(bias[i % filters]);
        }
    }
    // The window of the convolution that this one is the transpose of.
    let window = Window {
        kernel: kernel.to_vec(),
        strides: steps,
        dilations,
        before,
        after,
        input: output,
        output: x.shape()[2..].to_vec(),
    };
    let (image, taps) = (window.positions(), window.taps());
    let own = channels / groups;
    for batch in 0..x.shape()[0] {
        for position in 0..image {
            window.each_tap(position, |tap, place| {
                let Some(place) = place else { return };
                for channel in 0..channels {
                    let value = xs[(batch * channels + channel) * image + position];
                    for filter in 0..wide {
                        let to = channel / own * wide + filter;
                        y[(batch * filters + to) * positions + place] +=
                            value * ws[(channel * wide + filter) * taps + tap];
                    }
                }
            });
        }
    }
    one(super::floats(shape, &y, x.dtype())?)
}
