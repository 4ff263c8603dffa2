//! Pools: over windows and over whole images.

use libm as m;

use super::conv::{Window, per_axis};
use super::{Ctx, OpFn, Outputs, floats, one, strides};
use crate::error::NodeError;
use crate::tensor::{Data, Element, Tensor};

pub(super) fn find(op: &str, _opset: i64) -> Option<OpFn> {
    Some(match op {
        "MaxPool" => max_pool,
        "AveragePool" => average_pool,
        "LpPool" => lp_pool,
        "GlobalAveragePool" => |c| global(c, |line| line.iter().sum::<f64>() / line.len() as f64),
        "GlobalMaxPool" => |c| {
            global(c, |line| {
                line.iter().copied().fold(f64::NEG_INFINITY, f64::max)
            })
        },
        "GlobalLpPool" => |c| {
            let p = c.int("p", 2)? as f64;
            global(c, |line| lp_norm(line.iter().copied(), p))
        },
        _ => return None,
    })
}

fn lp_norm(values: impl Iterator<Item = f64>, p: f64) -> f64 {
    m::pow(values.map(|x| m::pow(x.abs(), p)).sum(), 1.0 / p)
}

fn global(ctx: &Ctx<'_>, f: impl Fn(&[f64]) -> f64) -> Outputs {
    let x = ctx.input(0)?;
    if x.rank() < 3 || !x.dtype().is_float() {
        return Err(ctx.wrong_shape(0, "a batch, channels and sizes, of a floating-point type"));
    }
    let width: usize = x.shape()[2..].iter().product();
    if width == 0 {
        return Err(ctx.wrong_shape(0, "sizes of at least 1"));
    }
    let mut shape = x.shape().to_vec();
    shape[2..].fill(1);
    let values: Vec<f64> = x.to_f64().chunks_exact(width).map(f).collect();
    one(floats(shape, &values, x.dtype())?)
}

fn window(ctx: &Ctx<'_>) -> Result<(Window, Vec<usize>), NodeError> {
    let x = ctx.input(0)?;
    let rank = x.rank().saturating_sub(2);
    if !ctx.has("kernel_shape") {
        return Err(NodeError::Attribute {
            name: "kernel_shape".to_owned(),
            expected: "list of whole numbers",
        });
    }
    let kernel = per_axis(ctx, "kernel_shape", rank, 1, 1)?;
    let window = Window::new(ctx, x.shape(), kernel, ctx.flag("ceil_mode", false)?)?;
    let mut shape = x.shape()[..2].to_vec();
    shape.extend(&window.output);
    ctx.work(&shape)?;
    Ok((window, shape))
}

fn max_pool(ctx: &Ctx<'_>) -> Outputs {
    fn list<T: Element>(x: &[T], window: &Window, places: &mut Vec<usize>) -> Vec<T> {
        let image: usize = window.input.iter().product();
        let mut y = Vec::new();
        for (number, x) in x.chunks_exact(image.max(1)).enumerate() {
            for position in 0..window.positions() {
                let mut best: Option<(T, usize)> = None;
                window.each_tap(position, |_, place| {
                    let Some(place) = place else { return };
                    let value = x[place];
                    let better = best.is_none_or(|(top, _)| value > top || value.to_f64().is_nan());
                    if better {
                        best = Some((value, place));
                    }
                });
                let (value, place) = best.unwrap_or((T::from_f64(f64::NEG_INFINITY), 0));
                y.push(value);
                places.push(number * image + place);
            }
        }
        y
    }
    let x = ctx.input(0)?;
    let (window, shape) = window(ctx)?;
    let mut places = Vec::new();
    let data = match x.data() {
        Data::F32(v) => Data::F32(list(v, &window, &mut places)),
        Data::F64(v) => Data::F64(list(v, &window, &mut places)),
        Data::F16(v) => Data::F16(list(v, &window, &mut places)),
        Data::U8(v) => Data::U8(list(v, &window, &mut places)),
        Data::I8(v) => Data::I8(list(v, &window, &mut places)),
        _ => return Err(ctx.wrong_type(0, "f32, f64, f16, u8 or i8")),
    };
    let y = Tensor::from_data(shape.clone(), data)?;
    if ctx.outputs() < 2 {
        return one(y);
    }
    if ctx.int("storage_order", 0)? != 0 {
        // Indices as if every image were stored column by column.
        let image: usize = window.input.iter().product();
        let rows = strides(&window.input);
        for place in &mut places {
            let (number, inside) = (*place / image, *place % image);
            let mut step = 1;
            let mut turned = 0;
            for (&size, &row) in window.input.iter().zip(&rows) {
                turned += inside / row % size * step;
                step *= size;
            }
            *place = number * image + turned;
        }
    }
    let places = places.into_iter().map(|place| place as i64).collect();
    Ok(vec![y, Tensor::new(shape, places)?])
}

/// A number of each window from the elements in it and the size that counts.
fn windows(ctx: &Ctx<'_>, f: impl Fn(&[f64], usize) -> f64) -> Outputs {
    let x = ctx.input(0)?;
    if !x.dtype().is_float() {
        return Err(ctx.wrong_type(0, "f32, f64 or f16"));
    }
    let (window, shape) = window(ctx)?;
    let image: usize = window.input.iter().product();
    let rank = window.kernel.len();
    let mut y = Vec::new();
    let mut inside = Vec::new();
    for x in x.to_f64().chunks_exact(image.max(1)) {
        for position in 0..window.positions() {
            inside.clear();
            window.each_tap(position, |_, place| {
                inside.extend(place.map(|place| x[place]))
            });
            // Taps beyond the padding, as a size that is rounded up has them, never count.
            let mut counted = 1;
            let mut rest = position;
            for at in (0..rank).rev() {
                let start = rest % window.output[at] * window.strides[at];
                rest /= window.output[at];
                let end = window.input[at] + window.before[at] + window.after[at];
                counted *= (0..window.kernel[at])
                    .filter(|k| start + k * window.dilations[at] < end)
                    .count();
            }
            y.push(f(&inside, counted));
        }
    }
    one(floats(shape, &y, x.dtype())?)
}

fn average_pool(ctx: &Ctx<'_>) -> Outputs {
    let padding = ctx.flag("count_include_pad", false)?;
    windows(ctx, |inside, counted| {
        let count = if padding { counted } else { inside.len() };
        inside.iter().sum::<f64>() / count as f64
    })
}

fn lp_pool(ctx: &Ctx<'_>) -> Outputs {
    let p = ctx.int("p", 2)? as f64;
    windows(ctx, |inside, _| lp_norm(inside.iter().copied(), p))
}
