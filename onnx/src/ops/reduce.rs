//! Reductions along axes, positions of extremes, running sums.

use libm as m;

use super::{Ctx, OpFn, Outputs, axes, axis, floats, moves, one, strides, transpose};
use crate::error::NodeError;
use crate::tensor::{DType, Data, Element, Tensor, each};

pub(super) fn find(op: &str, _opset: i64) -> Option<OpFn> {
    Some(match op {
        "ReduceSum" => |c| numbers(c, |v| v.iter().sum(), |v| wrapped(v, i128::wrapping_add, 0)),
        "ReduceProd" => |c| numbers(c, |v| v.iter().product(), |v| wrapped(v, times, 1)),
        "ReduceMax" => |c| extreme(c, true),
        "ReduceMin" => |c| extreme(c, false),
        "ReduceMean" => |c| {
            numbers(
                c,
                |v| v.iter().sum::<f64>() / v.len() as f64,
                |v| v.iter().sum::<i128>() / (v.len() as i128).max(1),
            )
        },
        "ReduceL1" => |c| {
            numbers(
                c,
                |v| v.iter().map(|x| x.abs()).sum(),
                |v| v.iter().map(|x| x.abs()).sum(),
            )
        },
        "ReduceL2" => |c| {
            numbers(
                c,
                |v| m::sqrt(squares(v)),
                |v| m::sqrt(v.iter().map(|&x| x as f64 * x as f64).sum()) as i128,
            )
        },
        "ReduceSumSquare" => |c| {
            numbers(c, squares, |v| {
                v.iter()
                    .fold(0, |sum, &x| sum.wrapping_add(x.wrapping_mul(x)))
            })
        },
        "ReduceLogSum" => |c| {
            numbers(
                c,
                |v| m::log(v.iter().sum()),
                |v| m::log(v.iter().sum::<i128>() as f64) as i128,
            )
        },
        "ReduceLogSumExp" => |c| {
            numbers(c, log_sum_exp, |v| {
                log_sum_exp(&v.iter().map(|&x| x as f64).collect::<Vec<_>>()) as i128
            })
        },
        "ArgMax" => |c| arg(c, true),
        "ArgMin" => |c| arg(c, false),
        "CumSum" => |c| running(c, |x, y| x + y, i128::wrapping_add, 0),
        "CumProd" => |c| running(c, |x, y| x * y, times, 1),
        _ => return None,
    })
}

fn squares(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum()
}

/// The low 64 bits of a product are those of the factors' low 64 bits.
fn times(x: i128, y: i128) -> i128 {
    i128::from((x as i64).wrapping_mul(y as i64))
}

fn wrapped(v: &[i128], f: fn(i128, i128) -> i128, start: i128) -> i128 {
    v.iter().fold(start, |sum, &x| f(sum, x))
}

fn log_sum_exp(v: &[f64]) -> f64 {
    let top = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !top.is_finite() {
        return top;
    }
    top + m::log(v.iter().map(|x| m::exp(x - top)).sum())
}

/// Which axes go, and the shape that is left.
struct Plan {
    reduced: Vec<usize>,
    shape: Vec<usize>,
    /// Elements behind each output element.
    width: usize,
}

fn plan(ctx: &Ctx<'_>) -> Result<Option<Plan>, NodeError> {
    let x = ctx.input(0)?;
    let given = moves::given_axes(ctx, 1)?.unwrap_or_default();
    if given.is_empty() && ctx.flag("noop_with_empty_axes", false)? {
        return Ok(None);
    }
    let mut reduced = axes(&given, x.rank())?;
    if given.is_empty() {
        reduced = (0..x.rank()).collect();
    }
    let keep = ctx.flag("keepdims", true)?;
    let mut shape = Vec::new();
    for (at, &size) in x.shape().iter().enumerate() {
        if !reduced.contains(&at) {
            shape.push(size);
        } else if keep {
            shape.push(1);
        }
    }
    let width = reduced.iter().map(|&at| x.shape()[at]).product();
    Ok(Some(Plan {
        reduced,
        shape,
        width,
    }))
}

/// The tensor with the reduced axes last.
fn lines(ctx: &Ctx<'_>, reduced: &[usize]) -> Result<Tensor, NodeError> {
    let x = ctx.input(0)?;
    let mut order: Vec<usize> = (0..x.rank()).filter(|at| !reduced.contains(at)).collect();
    let mut last = reduced.to_vec();
    last.sort_unstable();
    order.extend(last);
    transpose(ctx, x, &order)
}

/// The rows of a list; as many empty ones as asked for where the width is 0.
fn rows<T>(v: &[T], width: usize, count: usize) -> impl Iterator<Item = &[T]> {
    (0..count).map(move |row| &v[row * width..(row + 1) * width])
}

fn numbers(ctx: &Ctx<'_>, float: fn(&[f64]) -> f64, whole: fn(&[i128]) -> i128) -> Outputs {
    fn list<T: Element>(
        v: &[T],
        width: usize,
        count: usize,
        float: fn(&[f64]) -> f64,
        whole: fn(&[i128]) -> i128,
    ) -> Data {
        let values = rows(v, width, count).map(|row| {
            if T::DTYPE.is_float() {
                T::from_f64(float(&row.iter().map(|x| x.to_f64()).collect::<Vec<_>>()))
            } else {
                T::from_i128(whole(&row.iter().map(|x| x.to_i128()).collect::<Vec<_>>()))
            }
        });
        T::wrap(values.collect())
    }
    let x = ctx.input(0)?;
    if x.dtype() == DType::Bool {
        return Err(ctx.wrong_type(0, "a number type"));
    }
    let Some(plan) = plan(ctx)? else {
        // Each element is a reduction of its own.
        let data = each!(x.data(), v => list(v, 1, v.len(), float, whole));
        // A sum without axes is the identity, as is every other but those that change a number.
        return one(Tensor::from_data(x.shape().to_vec(), data)?);
    };
    let count = ctx.room(&plan.shape, x.dtype())?;
    let lines = lines(ctx, &plan.reduced)?;
    let data = each!(lines.data(), v => list(v, plan.width, count, float, whole));
    one(Tensor::from_data(plan.shape, data)?)
}

fn extreme(ctx: &Ctx<'_>, largest: bool) -> Outputs {
    fn list<T: Element>(v: &[T], width: usize, count: usize, largest: bool) -> Data {
        let infinity = if largest {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        };
        // The identity of the reduction: infinite, or the type's own extreme.
        let start = match T::DTYPE {
            DType::Bool => T::from_f64(if largest { 0.0 } else { 1.0 }),
            _ => T::from_f64(infinity),
        };
        let values = rows(v, width, count).map(|row| {
            row.iter().copied().fold(start, |best, x| {
                let better = if largest { x > best } else { x < best };
                if better || x.to_f64().is_nan() {
                    x
                } else {
                    best
                }
            })
        });
        T::wrap(values.collect())
    }
    let x = ctx.input(0)?;
    let Some(plan) = plan(ctx)? else {
        return one(x.clone());
    };
    let count = ctx.room(&plan.shape, x.dtype())?;
    let lines = lines(ctx, &plan.reduced)?;
    let data = each!(lines.data(), v => list(v, plan.width, count, largest));
    one(Tensor::from_data(plan.shape, data)?)
}

fn arg(ctx: &Ctx<'_>, largest: bool) -> Outputs {
    fn best<T: Element>(row: &[T], largest: bool, last: bool) -> i64 {
        let mut at = 0;
        for (i, x) in row.iter().enumerate() {
            let better = if largest { *x > row[at] } else { *x < row[at] };
            if better || (last && *x == row[at]) {
                at = i;
            }
        }
        at as i64
    }
    let x = ctx.input(0)?;
    let at = axis(ctx.int("axis", 0)?, x.rank())?;
    let size = x.shape()[at];
    if size == 0 {
        return Err(ctx.wrong_shape(0, "at least one element on the axis"));
    }
    let last = ctx.flag("select_last_index", false)?;
    let mut shape = x.shape().to_vec();
    if ctx.flag("keepdims", true)? {
        shape[at] = 1;
    } else {
        shape.remove(at);
    }
    let lines = lines(ctx, &[at])?;
    let values: Vec<i64> = each!(lines.data(), v => {
        v.chunks_exact(size).map(|row| best(row, largest, last)).collect()
    });
    one(Tensor::new(shape, values)?)
}

fn running(
    ctx: &Ctx<'_>,
    float: fn(f64, f64) -> f64,
    whole: fn(i128, i128) -> i128,
    start: i128,
) -> Outputs {
    let x = ctx.input(0)?;
    let at = axis(ctx.single(1)?, x.rank())?;
    let exclusive = ctx.flag("exclusive", false)?;
    let reverse = ctx.flag("reverse", false)?;
    let (size, step) = (x.shape()[at], strides(x.shape())[at]);
    let starts: Vec<usize> = (0..x.len())
        .filter(|place| place / step % size.max(1) == 0)
        .collect();
    let place = |line: usize, i: usize| {
        let i = if reverse { size - 1 - i } else { i };
        line + i * step
    };
    match x.to_i64() {
        Some(_) if x.dtype() == DType::Bool => Err(ctx.wrong_type(0, "a number type")),
        Some(values) => {
            let mut sums = vec![0_i128; values.len()];
            for &line in &starts {
                let mut sum = start;
                for i in 0..size {
                    let at = place(line, i);
                    let next = whole(sum, i128::from(values[at]));
                    sums[at] = if exclusive { sum } else { next };
                    sum = next;
                }
            }
            fn narrow<T: Element>(_: &[T], sums: &[i128]) -> Data {
                T::wrap(sums.iter().map(|&x| T::from_i128(x)).collect())
            }
            let data = each!(x.data(), v => narrow(v, &sums));
            one(Tensor::from_data(x.shape().to_vec(), data)?)
        }
        None => {
            let values = x.to_f64();
            let mut sums = vec![0.0; values.len()];
            for &line in &starts {
                let mut sum = start as f64;
                for i in 0..size {
                    let at = place(line, i);
                    let next = float(sum, values[at]);
                    sums[at] = if exclusive { sum } else { next };
                    sum = next;
                }
            }
            one(floats(x.shape().to_vec(), &sums, x.dtype())?)
        }
    }
}
