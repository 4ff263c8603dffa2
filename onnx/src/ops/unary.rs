//! Operators on each element alone.

use half::f16;
use libm as m;

use super::{Ctx, OpFn, Outputs, one};
use crate::error::NodeError;
use crate::tensor::{Data, Element, Tensor};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "Abs" => abs,
        "Neg" => neg,
        "Sign" => sign,
        "Relu" => relu,
        "Acos" => |c| float(c, m::acos),
        "Acosh" => |c| float(c, m::acosh),
        "Asin" => |c| float(c, m::asin),
        "Asinh" => |c| float(c, m::asinh),
        "Atan" => |c| float(c, m::atan),
        "Atanh" => |c| float(c, m::atanh),
        "Cos" => |c| float(c, m::cos),
        "Cosh" => |c| float(c, m::cosh),
        "Sin" => |c| float(c, m::sin),
        "Sinh" => |c| float(c, m::sinh),
        "Tan" => |c| float(c, m::tan),
        "Tanh" => |c| float(c, m::tanh),
        "Exp" => |c| float(c, m::exp),
        "Log" => |c| float(c, m::log),
        "Sqrt" => |c| float(c, m::sqrt),
        "Reciprocal" => |c| float(c, |x| 1.0 / x),
        "Ceil" => |c| float(c, m::ceil),
        "Floor" => |c| float(c, m::floor),
        "Round" => |c| float(c, m::rint),
        "Erf" => |c| float(c, m::erf),
        "Sigmoid" => |c| float(c, sigmoid),
        "Softplus" => |c| float(c, softplus),
        "Softsign" => |c| float(c, |x| x / (1.0 + x.abs())),
        "HardSwish" => |c| float(c, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Mish" => |c| float(c, |x| x * m::tanh(softplus(x))),
        "Swish" => swish,
        "Gelu" => gelu,
        "Elu" => elu,
        "Celu" => celu,
        "Selu" => selu,
        "LeakyRelu" => leaky_relu,
        "ThresholdedRelu" => thresholded_relu,
        "HardSigmoid" => hard_sigmoid,
        "Shrink" => shrink,
        "IsNaN" => |c| test(c, f64::is_nan),
        "IsInf" => is_inf,
        "Not" => not,
        "BitwiseNot" if opset >= 18 => bitwise_not,
        "Identity" => |c| one(c.input(0)?.clone()),
        _ => return None,
    })
}

/// `1 / (1 + e^-x)`, without overflow.
pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + m::exp(-x))
    } else {
        let e = m::exp(x);
        e / (1.0 + e)
    }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + m::log1p(m::exp(-x.abs()))
}

/// A function of each element, computed in `f64` and rounded once.
fn float(ctx: &Ctx<'_>, f: impl Fn(f64) -> f64) -> Outputs {
    let x = ctx.input(0)?;
    let data = match x.data() {
        Data::F32(v) => Data::F32(v.iter().map(|&x| f(f64::from(x)) as f32).collect()),
        Data::F64(v) => Data::F64(v.iter().map(|&x| f(x)).collect()),
        Data::F16(v) => Data::F16(v.iter().map(|&x| f16::from_f64(f(x.to_f64()))).collect()),
        _ => return Err(ctx.wrong_type(0, "f32, f64 or f16")),
    };
    one(Tensor::from_data(x.shape().to_vec(), data)?)
}

fn test(ctx: &Ctx<'_>, f: impl Fn(f64) -> bool) -> Outputs {
    let x = ctx.input(0)?;
    if !x.dtype().is_float() {
        return Err(ctx.wrong_type(0, "f32, f64 or f16"));
    }
    let values = x.to_f64().into_iter().map(f).collect();
    one(Tensor::new::<bool>(x.shape().to_vec(), values)?)
}

/// A function of each signed whole number; floats go through `f64`, exactly.
macro_rules! signed {
    ($ctx:expr, $whole:expr, $float:expr) => {{
        let x = $ctx.input(0)?;
        let data = match x.data() {
            Data::I8(v) => Data::I8(v.iter().map(|&x| $whole(i128::from(x)) as i8).collect()),
            Data::I16(v) => Data::I16(v.iter().map(|&x| $whole(i128::from(x)) as i16).collect()),
            Data::I32(v) => Data::I32(v.iter().map(|&x| $whole(i128::from(x)) as i32).collect()),
            Data::I64(v) => Data::I64(v.iter().map(|&x| $whole(i128::from(x)) as i64).collect()),
            Data::U8(v) => Data::U8(v.iter().map(|&x| $whole(i128::from(x)) as u8).collect()),
            Data::U16(v) => Data::U16(v.iter().map(|&x| $whole(i128::from(x)) as u16).collect()),
            Data::U32(v) => Data::U32(v.iter().map(|&x| $whole(i128::from(x)) as u32).collect()),
            Data::U64(v) => Data::U64(v.iter().map(|&x| $whole(i128::from(x)) as u64).collect()),
            _ => return float($ctx, $float),
        };
        one(Tensor::from_data(x.shape().to_vec(), data)?)
    }};
}

fn abs(ctx: &Ctx<'_>) -> Outputs {
    signed!(ctx, i128::abs, f64::abs)
}

fn neg(ctx: &Ctx<'_>) -> Outputs {
    signed!(ctx, |x: i128| -x, |x| -x)
}

fn sign(ctx: &Ctx<'_>) -> Outputs {
    signed!(ctx, i128::signum, |x: f64| {
        if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            x
        }
    })
}

fn relu(ctx: &Ctx<'_>) -> Outputs {
    signed!(ctx, |x: i128| x.max(0), |x: f64| if x < 0.0 {
        0.0
    } else {
        x
    })
}

fn swish(ctx: &Ctx<'_>) -> Outputs {
    let alpha = f64::from(ctx.float("alpha", 1.0)?);
    float(ctx, |x| x * sigmoid(alpha * x))
}

/// Hendrycks & Gimpel 2016, arXiv:1606.08415: exact, or by the hyperbolic tangent.
fn gelu(ctx: &Ctx<'_>) -> Outputs {
    match ctx.text("approximate", "none")? {
        "none" => float(ctx, |x| {
            0.5 * x * (1.0 + m::erf(x * std::f64::consts::FRAC_1_SQRT_2))
        }),
        "tanh" => float(ctx, |x| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + m::tanh(inner))
        }),
        other => Err(NodeError::Choice {
            name: "approximate".to_owned(),
            found: other.to_owned(),
        }),
    }
}

fn elu(ctx: &Ctx<'_>) -> Outputs {
    let alpha = f64::from(ctx.float("alpha", 1.0)?);
    float(ctx, |x| if x < 0.0 { alpha * m::expm1(x) } else { x })
}

fn celu(ctx: &Ctx<'_>) -> Outputs {
    let alpha = f64::from(ctx.float("alpha", 1.0)?);
    float(ctx, |x| {
        if x < 0.0 {
            alpha * m::expm1(x / alpha)
        } else {
            x
        }
    })
}

fn selu(ctx: &Ctx<'_>) -> Outputs {
    // The constants are the specification's defaults.
    let alpha = f64::from(ctx.float("alpha", 1.673_263_2)?);
    let gamma = f64::from(ctx.float("gamma", 1.050_701)?);
    float(ctx, |x| {
        gamma * if x > 0.0 { x } else { alpha * m::expm1(x) }
    })
}

fn leaky_relu(ctx: &Ctx<'_>) -> Outputs {
    let alpha = f64::from(ctx.float("alpha", 0.01)?);
    float(ctx, |x| if x < 0.0 { alpha * x } else { x })
}

fn thresholded_relu(ctx: &Ctx<'_>) -> Outputs {
    let alpha = f64::from(ctx.float("alpha", 1.0)?);
    float(ctx, |x| if x > alpha { x } else { 0.0 })
}

fn hard_sigmoid(ctx: &Ctx<'_>) -> Outputs {
    let alpha = f64::from(ctx.float("alpha", 0.2)?);
    let beta = f64::from(ctx.float("beta", 0.5)?);
    float(ctx, |x| (alpha * x + beta).clamp(0.0, 1.0))
}

fn shrink(ctx: &Ctx<'_>) -> Outputs {
    let lambda = f64::from(ctx.float("lambd", 0.5)?);
    let bias = f64::from(ctx.float("bias", 0.0)?);
    if !ctx.input(0)?.dtype().is_float() {
        return Err(NodeError::Unsupported("Shrink of whole numbers"));
    }
    float(ctx, |x| {
        if x < -lambda {
            x + bias
        } else if x > lambda {
            x - bias
        } else {
            0.0
        }
    })
}

fn is_inf(ctx: &Ctx<'_>) -> Outputs {
    let positive = ctx.flag("detect_positive", true)?;
    let negative = ctx.flag("detect_negative", true)?;
    test(ctx, |x| {
        x.is_infinite() && if x > 0.0 { positive } else { negative }
    })
}

fn not(ctx: &Ctx<'_>) -> Outputs {
    let values = ctx.values::<bool>(0, "bool")?;
    let shape = ctx.input(0)?.shape().to_vec();
    one(Tensor::new(shape, values.iter().map(|x| !x).collect())?)
}

fn bitwise_not(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    if x.dtype().is_float() || bool::unwrap(x.data()).is_some() {
        return Err(ctx.wrong_type(0, "a whole-number type"));
    }
    signed!(ctx, |x: i128| !x, |x| x)
}
