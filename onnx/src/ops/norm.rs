//! Normalisations and the softmax family, computed in `f64` and rounded once.

use libm as m;

use super::attention::rounding;
use super::{Ctx, OpFn, Outputs, axes, axis, expand, floats, one, strides, transpose};
use crate::error::NodeError;
use crate::tensor::{DType, Tensor};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "Softmax" => |c| {
            // In the wider types every step is exact enough to be rounded once.
            rows(c, |line, dtype| match dtype {
                DType::F16 => softmax_in(line, rounding(dtype)),
                _ => softmax_in(line, |x| x),
            })
        },
        "LogSoftmax" => |c| rows(c, |line, _| log_softmax(line)),
        "Hardmax" => |c| rows(c, |line, _| hardmax(line)),
        "LpNormalization" => lp_normalization,
        "BatchNormalization" if opset >= 9 => batch_normalization,
        "InstanceNormalization" => instance_normalization,
        "GroupNormalization" if opset >= 18 => group_normalization,
        "LayerNormalization" if opset >= 17 => layer_normalization,
        "RMSNormalization" if opset >= 23 => rms_normalization,
        "MeanVarianceNormalization" => mean_variance,
        "LRN" => lrn,
        _ => return None,
    })
}

fn float_input<'a>(ctx: &Ctx<'a>, index: usize) -> Result<&'a Tensor, NodeError> {
    let x = ctx.input(index)?;
    if x.dtype().is_float() {
        Ok(x)
    } else {
        Err(ctx.wrong_type(index, "f32, f64 or f16"))
    }
}

/// The softmax of a line, each step rounded as the operator's defining function in that type
/// rounds it (maximum, difference, exponential, sum, quotient).
pub(super) fn softmax_in(line: &mut [f64], round: fn(f64) -> f64) {
    let top = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for x in &mut *line {
        *x = round(m::exp(round(*x - top)));
        sum += *x;
    }
    let sum = round(sum);
    line.iter_mut().for_each(|x| *x = round(*x / sum));
}

pub(super) fn log_softmax(line: &mut [f64]) {
    let top = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = line.iter().map(|x| m::exp(x - top)).sum();
    let sum = top + m::log(sum);
    line.iter_mut().for_each(|x| *x -= sum);
}

fn hardmax(line: &mut [f64]) {
    let mut best = 0;
    for (i, x) in line.iter().enumerate() {
        if *x > line[best] {
            best = i;
        }
    }
    line.fill(0.0);
    if let Some(x) = line.get_mut(best) {
        *x = 1.0;
    }
}

/// Applies `f` along one axis; below opset 13, to all elements from the axis on.
fn rows(ctx: &Ctx<'_>, f: fn(&mut [f64], DType)) -> Outputs {
    let x = float_input(ctx, 0)?;
    let f = |line: &mut [f64]| f(line, x.dtype());
    if ctx.opset() >= 13 {
        let at = axis(ctx.int("axis", -1)?, x.rank().max(1))?;
        return along(x, at.min(x.rank()), f);
    }
    let at = ctx.int("axis", 1)?;
    let at = if at == x.rank() as i64 {
        x.rank()
    } else {
        axis(at, x.rank())?
    };
    let width: usize = x.shape()[at..].iter().product();
    let mut values = x.to_f64();
    values.chunks_exact_mut(width.max(1)).for_each(f);
    one(floats(x.shape().to_vec(), &values, x.dtype())?)
}

fn along(x: &Tensor, at: usize, f: impl Fn(&mut [f64])) -> Outputs {
    let mut values = x.to_f64();
    if x.rank() == 0 {
        f(&mut values);
        return one(floats(Vec::new(), &values, x.dtype())?);
    }
    let (size, step) = (x.shape()[at], strides(x.shape())[at]);
    let mut line = vec![0.0; size];
    if size > 0 {
        for start in (0..values.len()).filter(|place| place / step % size == 0) {
            for (i, to) in line.iter_mut().enumerate() {
                *to = values[start + i * step];
            }
            f(&mut line);
            for (i, from) in line.iter().enumerate() {
                values[start + i * step] = *from;
            }
        }
    }
    one(floats(x.shape().to_vec(), &values, x.dtype())?)
}

fn lp_normalization(ctx: &Ctx<'_>) -> Outputs {
    let x = float_input(ctx, 0)?;
    let at = axis(ctx.int("axis", -1)?, x.rank())?;
    let p = ctx.int("p", 2)?;
    if p != 1 && p != 2 {
        return Err(NodeError::Value {
            what: "p",
            found: p,
            expected: "1 or 2",
        });
    }
    along(x, at, |line| {
        let norm = if p == 1 {
            line.iter().map(|x| x.abs()).sum::<f64>()
        } else {
            m::sqrt(line.iter().map(|x| x * x).sum())
        };
        // A line of zeros stays.
        if norm != 0.0 {
            line.iter_mut().for_each(|x| *x /= norm);
        }
    })
}

/// One number for each channel.
fn channels(ctx: &Ctx<'_>, input: usize, count: usize) -> Result<Vec<f64>, NodeError> {
    let tensor = float_input(ctx, input)?;
    if tensor.shape() != [count] {
        return Err(ctx.wrong_shape(input, "one number for each channel"));
    }
    Ok(tensor.to_f64())
}

/// Ioffe & Szegedy 2015, arXiv:1502.03167.
fn batch_normalization(ctx: &Ctx<'_>) -> Outputs {
    let x = float_input(ctx, 0)?;
    if x.rank() < 2 {
        return Err(ctx.wrong_shape(0, "a batch and channels"));
    }
    let count = x.shape()[1];
    let inner: usize = x.shape()[2..].iter().product();
    let (scale, shift) = (channels(ctx, 1, count)?, channels(ctx, 2, count)?);
    let (mut mean, mut variance) = (channels(ctx, 3, count)?, channels(ctx, 4, count)?);
    let epsilon = f64::from(ctx.float("epsilon", 1e-5)?);
    let values = x.to_f64();
    let channel = |place: usize| place / inner.max(1) % count.max(1);
    let mut running = Vec::new();
    if ctx.flag("training_mode", false)? {
        let momentum = f64::from(ctx.float("momentum", 0.9)?);
        let each = (x.len() / count.max(1)) as f64;
        let (mut now_mean, mut now_variance) = (vec![0.0; count], vec![0.0; count]);
        for (place, x) in values.iter().enumerate() {
            now_mean[channel(place)] += x / each;
        }
        for (place, x) in values.iter().enumerate() {
            let distance = x - now_mean[channel(place)];
            now_variance[channel(place)] += distance * distance / each;
        }
        for (old, now) in [(&mut mean, now_mean), (&mut variance, now_variance)] {
            let mixed: Vec<f64> = old
                .iter()
                .zip(&now)
                .map(|(old, now)| old * momentum + now * (1.0 - momentum))
                .collect();
            running.push(mixed);
            *old = now;
        }
    }
    let y: Vec<f64> = values
        .iter()
        .enumerate()
        .map(|(place, x)| {
            let c = channel(place);
            (x - mean[c]) / m::sqrt(variance[c] + epsilon) * scale[c] + shift[c]
        })
        .collect();
    let mut outputs = vec![floats(x.shape().to_vec(), &y, x.dtype())?];
    for (index, running) in running.iter().enumerate() {
        let dtype = ctx.input(3 + index)?.dtype();
        outputs.push(floats(vec![count], running, dtype)?);
    }
    Ok(outputs)
}

/// Mean and reciprocal standard deviation.
fn moments(line: &[f64], epsilon: f64) -> (f64, f64) {
    let mean = line.iter().sum::<f64>() / line.len() as f64;
    let variance = line.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / line.len() as f64;
    (mean, 1.0 / m::sqrt(variance + epsilon))
}

/// Ulyanov et al. 2016, arXiv:1607.08022: over the positions of each channel of each example.
fn instance_normalization(ctx: &Ctx<'_>) -> Outputs {
    let x = float_input(ctx, 0)?;
    if x.rank() < 3 {
        return Err(ctx.wrong_shape(0, "a batch, channels and sizes"));
    }
    let count = x.shape()[1];
    let (scale, shift) = (channels(ctx, 1, count)?, channels(ctx, 2, count)?);
    let epsilon = f64::from(ctx.float("epsilon", 1e-5)?);
    let inner: usize = x.shape()[2..].iter().product();
    let mut values = x.to_f64();
    for (number, line) in values.chunks_exact_mut(inner.max(1)).enumerate() {
        let c = number % count;
        let (mean, factor) = moments(line, epsilon);
        line.iter_mut()
            .for_each(|x| *x = (*x - mean) * factor * scale[c] + shift[c]);
    }
    one(floats(x.shape().to_vec(), &values, x.dtype())?)
}

/// Wu & He 2018, arXiv:1803.08494. Before opset 21 there is a scale for each group.
fn group_normalization(ctx: &Ctx<'_>) -> Outputs {
    let x = float_input(ctx, 0)?;
    if x.rank() < 2 {
        return Err(ctx.wrong_shape(0, "a batch and channels"));
    }
    let count = x.shape()[1];
    let groups = ctx.int("num_groups", 0)?;
    let groups = usize::try_from(groups)
        .ok()
        .filter(|&groups| groups > 0 && count.is_multiple_of(groups))
        .ok_or(NodeError::Value {
            what: "num_groups",
            found: groups,
            expected: "a divisor of the channels",
        })?;
    let each = count / groups;
    let by_group = ctx.opset() < 21;
    let given = if by_group { groups } else { count };
    let (scale, shift) = (channels(ctx, 1, given)?, channels(ctx, 2, given)?);
    let epsilon = f64::from(ctx.float("epsilon", 1e-5)?);
    let inner: usize = x.shape()[2..].iter().product();
    let mut values = x.to_f64();
    for (number, line) in values.chunks_exact_mut((each * inner).max(1)).enumerate() {
        let group = number % groups;
        let (mean, factor) = moments(line, epsilon);
        for (place, x) in line.iter_mut().enumerate() {
            let c = if by_group {
                group
            } else {
                group * each + place / inner
            };
            *x = (*x - mean) * factor * scale[c] + shift[c];
        }
    }
    one(floats(x.shape().to_vec(), &values, x.dtype())?)
}

/// The elements from an axis on, as lines; and the parameter of input `index` for each.
struct Lines {
    at: usize,
    width: usize,
}

fn lines(ctx: &Ctx<'_>, x: &Tensor) -> Result<Lines, NodeError> {
    let at = axis(ctx.int("axis", -1)?, x.rank())?;
    let stash = ctx.int("stash_type", 1)?;
    if stash != i64::from(DType::F32.to_onnx()) && stash != i64::from(DType::F64.to_onnx()) {
        return Err(NodeError::Unsupported("a stash type other than f32 or f64"));
    }
    let width = x.shape()[at..].iter().product();
    Ok(Lines { at, width })
}

/// Ba, Kiros & Hinton 2016, arXiv:1607.06450.
fn layer_normalization(ctx: &Ctx<'_>) -> Outputs {
    let x = float_input(ctx, 0)?;
    let Lines { at, width } = lines(ctx, x)?;
    let epsilon = f64::from(ctx.float("epsilon", 1e-5)?);
    let scale = expand(ctx, float_input(ctx, 1)?, x.shape())?.to_f64();
    let shift = match ctx.optional(2) {
        Some(shift) => Some(expand(ctx, shift, x.shape())?.to_f64()),
        None => None,
    };
    let mut values = x.to_f64();
    let (mut means, mut factors) = (Vec::new(), Vec::new());
    for (number, line) in values.chunks_exact_mut(width.max(1)).enumerate() {
        let (mean, factor) = moments(line, epsilon);
        for (place, x) in line.iter_mut().enumerate() {
            let place = number * width + place;
            *x = (*x - mean) * factor * scale[place];
            if let Some(shift) = &shift {
                *x += shift[place];
            }
        }
        means.push(mean);
        factors.push(factor);
    }
    let mut outputs = vec![floats(x.shape().to_vec(), &values, x.dtype())?];
    if ctx.outputs() > 1 {
        let mut shape = x.shape().to_vec();
        shape[at..].fill(1);
        let dtype = if x.dtype() == DType::F64 {
            DType::F64
        } else {
            DType::F32
        };
        outputs.push(floats(shape.clone(), &means, dtype)?);
        outputs.push(floats(shape, &factors, dtype)?);
    }
    Ok(outputs)
}

/// Zhang & Sennrich 2019, arXiv:1910.07467.
fn rms_normalization(ctx: &Ctx<'_>) -> Outputs {
    let x = float_input(ctx, 0)?;
    let Lines { width, .. } = lines(ctx, x)?;
    let epsilon = f64::from(ctx.float("epsilon", 1e-5)?);
    let scale = expand(ctx, float_input(ctx, 1)?, x.shape())?.to_f64();
    let mut values = x.to_f64();
    for (number, line) in values.chunks_exact_mut(width.max(1)).enumerate() {
        let square = line.iter().map(|x| x * x).sum::<f64>() / width as f64;
        let factor = 1.0 / m::sqrt(square + epsilon);
        for (place, x) in line.iter_mut().enumerate() {
            *x *= factor * scale[number * width + place];
        }
    }
    one(floats(x.shape().to_vec(), &values, x.dtype())?)
}

fn mean_variance(ctx: &Ctx<'_>) -> Outputs {
    let x = float_input(ctx, 0)?;
    let over = axes(ctx.ints("axes")?.unwrap_or(&[0, 2, 3]), x.rank())?;
    let mut order: Vec<usize> = (0..x.rank()).filter(|at| !over.contains(at)).collect();
    order.extend(&over);
    let mut back = vec![0; x.rank()];
    for (to, &from) in order.iter().enumerate() {
        back[from] = to;
    }
    let moved = transpose(ctx, x, &order)?;
    let width: usize = over.iter().map(|&at| x.shape()[at]).product();
    let mut values = moved.to_f64();
    for line in values.chunks_exact_mut(width.max(1)) {
        let mean = line.iter().sum::<f64>() / width as f64;
        let square = line.iter().map(|x| x * x).sum::<f64>() / width as f64;
        // The specification's epsilon and order of subtraction.
        let deviation = m::sqrt((square - mean * mean).max(0.0)) + 1e-9;
        line.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
    }
    let y = floats(moved.shape().to_vec(), &values, x.dtype())?;
    one(transpose(ctx, &y, &back)?)
}

/// Krizhevsky, Sutskever & Hinton 2012, section 3.3.
fn lrn(ctx: &Ctx<'_>) -> Outputs {
    let x = float_input(ctx, 0)?;
    if x.rank() < 2 {
        return Err(ctx.wrong_shape(0, "a batch and channels"));
    }
    let size = ctx.int("size", 0)?;
    if size < 1 {
        return Err(NodeError::Value {
            what: "size",
            found: size,
            expected: "at least 1",
        });
    }
    let alpha = f64::from(ctx.float("alpha", 0.0001)?);
    let beta = f64::from(ctx.float("beta", 0.75)?);
    let bias = f64::from(ctx.float("bias", 1.0)?);
    let count = x.shape()[1];
    let inner: usize = x.shape()[2..].iter().product();
    let half = usize::try_from((size - 1) / 2).unwrap_or(usize::MAX);
    let rest = usize::try_from(size - 1).unwrap_or(usize::MAX) - half;
    let values = x.to_f64();
    let y: Vec<f64> = values
        .iter()
        .enumerate()
        .map(|(place, x)| {
            let c = place / inner.max(1) % count;
            let base = place - c * inner;
            let low = c.saturating_sub(half);
            let high = c.saturating_add(rest).min(count - 1);
            let sum: f64 = (low..=high)
                .map(|c| values[base + c * inner] * values[base + c * inner])
                .sum();
            x / m::pow(bias + alpha / size as f64 * sum, beta)
        })
        .collect();
    one(floats(x.shape().to_vec(), &y, x.dtype())?)
}
