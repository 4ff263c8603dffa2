//! Conversions between types.

use super::{Ctx, OpFn, Outputs, one};
use crate::error::{NodeError, TensorError};
use crate::tensor::{DType, Data, Element, I4, Tensor, U4, each};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "Cast" => cast,
        "CastLike" if opset >= 15 => cast_like,
        _ => return None,
    })
}

/// Whole numbers keep their low bits, floats are rounded to nearest (even) or truncated, and
/// saturate where a whole-number type cannot hold them.
pub(super) fn convert(tensor: &Tensor, to: DType) -> Result<Tensor, NodeError> {
    fn list<S: Element, T: Element>(v: &[S]) -> Data {
        // Four bits keep the low ones of a float, too.
        let data = if S::DTYPE.is_float() && !T::DTYPE.is_nibble() {
            v.iter().map(|&x| T::from_f64(x.to_f64())).collect()
        } else {
            v.iter().map(|&x| T::from_i128(x.to_i128())).collect()
        };
        T::wrap(data)
    }
    fn from<S: Element>(v: &[S], to: DType) -> Data {
        match to {
            DType::F32 => list::<S, f32>(v),
            DType::F64 => list::<S, f64>(v),
            DType::F16 => list::<S, half::f16>(v),
            DType::I4 => list::<S, I4>(v),
            DType::U4 => list::<S, U4>(v),
            DType::I8 => list::<S, i8>(v),
            DType::U8 => list::<S, u8>(v),
            DType::I16 => list::<S, i16>(v),
            DType::U16 => list::<S, u16>(v),
            DType::I32 => list::<S, i32>(v),
            DType::U32 => list::<S, u32>(v),
            DType::I64 => list::<S, i64>(v),
            DType::U64 => list::<S, u64>(v),
            DType::Bool => list::<S, bool>(v),
        }
    }
    if tensor.dtype() == to {
        return Ok(tensor.clone());
    }
    let data = each!(tensor.data(), v => from(v, to));
    Ok(Tensor::from_data(tensor.shape().to_vec(), data)?)
}

/// The type in an attribute.
pub(super) fn dtype(ctx: &Ctx<'_>, name: &str, default: DType) -> Result<DType, NodeError> {
    let number = ctx.int(name, i64::from(default.to_onnx()))?;
    let number = i32::try_from(number).unwrap_or(0);
    DType::from_onnx(number).ok_or(NodeError::Tensor(TensorError::Type(number)))
}

fn cast(ctx: &Ctx<'_>) -> Outputs {
    if !ctx.has("to") {
        return Err(NodeError::Attribute {
            name: "to".to_owned(),
            expected: "whole number",
        });
    }
    let to = dtype(ctx, "to", DType::F32)?;
    let x = ctx.input(0)?;
    ctx.room(x.shape(), to)?;
    one(convert(x, to)?)
}

fn cast_like(ctx: &Ctx<'_>) -> Outputs {
    let (x, like) = (ctx.input(0)?, ctx.input(1)?);
    ctx.room(x.shape(), like.dtype())?;
    one(convert(x, like.dtype())?)
}
