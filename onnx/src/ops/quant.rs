//! Quantization: between numbers and small whole numbers with a scale and a zero point.

use super::product::integer;
use super::{Ctx, OpFn, Outputs, axis, cast, expand, one, walk};
use crate::error::NodeError;
use crate::tensor::{DType, Data, Element, I4, Tensor, U4, count};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "QuantizeLinear" if opset >= 10 => quantize,
        "DequantizeLinear" if opset >= 10 => dequantize,
        "DynamicQuantizeLinear" if opset >= 11 => dynamic,
        "QLinearMatMul" if opset >= 10 => qlinear_matmul,
        _ => return None,
    })
}

/// The place of the parameter for each element: one for all, one for each index of an axis, or
/// one for each block of an axis.
fn places(ctx: &Ctx<'_>, x: &Tensor, scale: &Tensor) -> Result<Vec<usize>, NodeError> {
    if scale.len() == 1 && scale.rank() <= 1 {
        ctx.work(x.shape())?;
        return Ok(vec![0; x.len()]);
    }
    let at = axis(ctx.int("axis", 1)?, x.rank())?;
    let block = ctx.int("block_size", 0)?;
    if block == 0 {
        if scale.shape() != [x.shape()[at]] {
            return Err(ctx.wrong_shape(1, "one number, or one for each index of the axis"));
        }
        let mut steps = vec![0; x.rank()];
        steps[at] = 1;
        return walk(ctx, x.shape(), &steps);
    }
    let block = usize::try_from(block).map_err(|_| NodeError::Value {
        what: "block_size",
        found: block,
        expected: "at least 0",
    })?;
    let fits = scale.rank() == x.rank()
        && (0..x.rank()).all(|a| {
            let size = x.shape()[a];
            scale.shape()[a] == if a == at { size.div_ceil(block) } else { size }
        });
    if !fits {
        return Err(ctx.wrong_shape(1, "one number for each block of the axis"));
    }
    let maps: Vec<Vec<usize>> = (0..x.rank())
        .map(|a| {
            (0..x.shape()[a])
                .map(|i| if a == at { i / block } else { i })
                .collect()
        })
        .collect();
    super::pick(ctx, scale.shape(), &maps)
}

/// Rounds half to even, adds the zero point of input `zero`, saturates to its type (`u8` where
/// it is not given).
pub(super) fn saturate(ctx: &Ctx<'_>, zero: usize, values: &[f32]) -> Result<Data, NodeError> {
    let dtype = ctx.optional(zero).map_or(DType::U8, Tensor::dtype);
    let zeros = match ctx.optional(zero) {
        Some(zeros) if zeros.len() == 1 => zeros.to_i64().unwrap_or_default(),
        Some(_) => return Err(ctx.wrong_shape(zero, "one zero point")),
        None => vec![0],
    };
    let list = values
        .iter()
        .map(|&x| (x, zeros.first().copied().unwrap_or(0)));
    narrow(ctx, zero, dtype, list)
}

fn narrow(
    ctx: &Ctx<'_>,
    input: usize,
    dtype: DType,
    values: impl Iterator<Item = (f32, i64)>,
) -> Result<Data, NodeError> {
    fn list<T: Element>(values: impl Iterator<Item = (f32, i64)>) -> Data {
        // A conversion from a float saturates; NaN becomes 0.
        let round = |(x, zero): (f32, i64)| T::from_f64(f64::from(libm::rintf(x)) + zero as f64);
        T::wrap(values.map(round).collect())
    }
    Ok(match dtype {
        DType::U4 => list::<U4>(values),
        DType::I4 => list::<I4>(values),
        DType::U8 => list::<u8>(values),
        DType::I8 => list::<i8>(values),
        DType::U16 => list::<u16>(values),
        DType::I16 => list::<i16>(values),
        _ => return Err(ctx.wrong_type(input, "u4, i4, u8, i8, u16 or i16")),
    })
}

fn quantize(ctx: &Ctx<'_>) -> Outputs {
    let (x, scale) = (ctx.input(0)?, ctx.input(1)?);
    if !(x.dtype().is_float() || x.dtype() == DType::I32) || !scale.dtype().is_float() {
        return Err(ctx.wrong_type(0, "f32, f16 or i32, with scales of a floating-point type"));
    }
    let places = places(ctx, x, scale)?;
    let zero = ctx.optional(2);
    if zero.is_some_and(|zero| zero.len() != scale.len()) {
        return Err(ctx.wrong_shape(2, "the shape of the scale"));
    }
    let given = zero.map_or(DType::U8, Tensor::dtype);
    let dtype = match ctx.int("output_dtype", 0)? {
        0 => given,
        _ => cast::dtype(ctx, "output_dtype", DType::U8)?,
    };
    let zeros = match zero {
        Some(zero) => zero
            .to_i64()
            .ok_or_else(|| ctx.wrong_type(2, "u4, i4, u8, i8, u16 or i16"))?,
        None => vec![0; scale.len()],
    };
    // The quotient has the precision asked for: that of the operands, or of the attribute.
    let half = match ctx.int("precision", 0)? {
        0 => x.dtype() == DType::F16 && scale.dtype() == DType::F16,
        _ => cast::dtype(ctx, "precision", DType::F32)? == DType::F16,
    };
    let (xs, scales) = (x.to_f32(), scale.to_f32());
    let values = xs.iter().zip(&places).map(|(&x, &at)| {
        let quotient = x / scales[at];
        let quotient = if half {
            half::f16::from_f32(quotient).to_f32()
        } else {
            quotient
        };
        (quotient, zeros[at])
    });
    let data = narrow(ctx, 2, dtype, values)?;
    one(Tensor::from_data(x.shape().to_vec(), data)?)
}

fn dequantize(ctx: &Ctx<'_>) -> Outputs {
    let (x, scale) = (ctx.input(0)?, ctx.input(1)?);
    if !scale.dtype().is_float() {
        return Err(ctx.wrong_type(1, "a floating-point type"));
    }
    let values = match x.dtype() {
        DType::Bool => None,
        _ => x.to_i64(),
    };
    let values = values.ok_or_else(|| ctx.wrong_type(0, "a whole-number type"))?;
    let places = places(ctx, x, scale)?;
    let zeros = match ctx.optional(2) {
        Some(zero) if zero.len() != scale.len() => {
            return Err(ctx.wrong_shape(2, "the shape of the scale"));
        }
        Some(zero) if zero.dtype() != x.dtype() => {
            return Err(NodeError::MixedTypes(x.dtype(), zero.dtype()));
        }
        Some(zero) => zero.to_i64().unwrap_or_default(),
        None => vec![0; scale.len()],
    };
    let dtype = match ctx.int("output_dtype", 0)? {
        0 => scale.dtype(),
        _ => cast::dtype(ctx, "output_dtype", DType::F32)?,
    };
    let scales = scale.to_f32();
    let all: Vec<f64> = values
        .iter()
        .zip(&places)
        .map(|(&x, &at)| f64::from(x.wrapping_sub(zeros[at]) as f32 * scales[at]))
        .collect();
    one(super::floats(x.shape().to_vec(), &all, dtype)?)
}

/// `u8` with the range of the tensor, which always holds 0.
fn dynamic(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.values::<f32>(0, "f32")?;
    let low = x.iter().copied().fold(0.0_f32, f32::min);
    let high = x.iter().copied().fold(0.0_f32, f32::max);
    let scale = (high - low) / 255.0;
    // A tensor of zeros has no range; any scale keeps it.
    let safe = if scale == 0.0 { 1.0 } else { scale };
    let zero = libm::rintf((0.0 - low) / safe).clamp(0.0, 255.0) as u8;
    let values = x.iter().map(|&x| (x / safe, i64::from(zero)));
    let data = narrow(ctx, 0, DType::U8, values)?;
    Ok(vec![
        Tensor::from_data(ctx.input(0)?.shape().to_vec(), data)?,
        Tensor::scalar(scale),
        Tensor::scalar(zero),
    ])
}

fn qlinear_matmul(ctx: &Ctx<'_>) -> Outputs {
    let (sums, shape) = integer(ctx, [0, 2], [3, 5])?;
    let (a_scale, b_scale, y_scale) = (ctx.input(1)?, ctx.input(4)?, ctx.input(6)?);
    for input in [1, 4, 6] {
        if !ctx.input(input)?.dtype().is_float() {
            return Err(ctx.wrong_type(input, "a floating-point type"));
        }
    }
    let rank = shape.len();
    let wide = |scale: &Tensor, from_end: usize| -> Result<Vec<f32>, NodeError> {
        let mut own = scale.shape().to_vec();
        if scale.len() == 1 {
            own = Vec::new();
        } else if scale.rank() == 1 && rank >= from_end {
            own = vec![1; rank];
            own[rank - from_end] = scale.len();
        }
        let scale = scale.clone().with_shape(own)?;
        Ok(expand(ctx, &scale, &shape)?.to_f32())
    };
    let (a, b, y) = (wide(a_scale, 2)?, wide(b_scale, 1)?, wide(y_scale, 2)?);
    let scaled: Vec<f32> = (0..count(&shape).unwrap_or(0))
        .map(|i| sums[i] as f32 * (a[i] * b[i] / y[i]))
        .collect();
    let data = saturate(ctx, 7, &scaled)?;
    one(Tensor::from_data(shape, data)?)
}
