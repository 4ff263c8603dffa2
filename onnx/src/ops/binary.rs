//! Operators on pairs of elements, with broadcasting: arithmetic, comparisons, logic, choices.

use half::f16;

use super::{Ctx, OpFn, Outputs, broadcast, expand, one, spread};
use crate::error::NodeError;
use crate::tensor::{DType, Data, Element, Tensor, each};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "Add" => |c| fold(c, 2, add),
        "Sub" => |c| fold(c, 2, sub),
        "Mul" => |c| fold(c, 2, mul),
        "Div" => |c| fold(c, 2, div),
        "Sum" => |c| fold(c, 0, add),
        "Max" => |c| fold(c, 0, max),
        "Min" => |c| fold(c, 0, min),
        "Mean" => mean,
        "Mod" => modulo,
        "Pow" => pow,
        "PRelu" => prelu,
        "BitShift" => bit_shift,
        "BitwiseAnd" if opset >= 18 => |c| bitwise(c, |x, y| x & y),
        "BitwiseOr" if opset >= 18 => |c| bitwise(c, |x, y| x | y),
        "BitwiseXor" if opset >= 18 => |c| bitwise(c, |x, y| x ^ y),
        "And" => |c| logic(c, |x, y| x && y),
        "Or" => |c| logic(c, |x, y| x || y),
        "Xor" => |c| logic(c, |x, y| x != y),
        "Equal" => equal,
        "Greater" => |c| compare(c, |order| order == Some(std::cmp::Ordering::Greater)),
        "Less" => |c| compare(c, |order| order == Some(std::cmp::Ordering::Less)),
        "GreaterOrEqual" => |c| compare(c, |order| order.is_some_and(std::cmp::Ordering::is_ge)),
        "LessOrEqual" => |c| compare(c, |order| order.is_some_and(std::cmp::Ordering::is_le)),
        "Where" => choose,
        "Clip" => clip,
        _ => return None,
    })
}

/// Applies `f` to the pairs of two lists broadcast to one shape.
pub(super) fn zip<A: Element, B: Element, R: Element>(
    ctx: &Ctx<'_>,
    (a_shape, a): (&[usize], &[A]),
    (b_shape, b): (&[usize], &[B]),
    f: impl Fn(A, B) -> R,
) -> Result<Tensor, NodeError> {
    let shape = broadcast(a_shape, b_shape)?;
    ctx.room(&shape, R::DTYPE)?;
    let values: Vec<R> = if a_shape == b_shape {
        a.iter().zip(b).map(|(&x, &y)| f(x, y)).collect()
    } else if b.len() == 1 && shape == a_shape {
        a.iter().map(|&x| f(x, b[0])).collect()
    } else {
        let left = spread(ctx, a_shape, &shape)?;
        let right = spread(ctx, b_shape, &shape)?;
        left.iter()
            .zip(&right)
            .map(|(&i, &j)| f(a[i], b[j]))
            .collect()
    };
    Ok(Tensor::new(shape, values)?)
}

type Pair = fn(&Ctx<'_>, &Tensor, &Tensor) -> Result<Tensor, NodeError>;

/// Applies a pair's operator from left to right; `arity` 0 takes any number of inputs from 1.
fn fold(ctx: &Ctx<'_>, arity: usize, pair: Pair) -> Outputs {
    let mut result = ctx.input(0)?.clone();
    let last = if arity == 0 { ctx.arity() } else { arity };
    for index in 1..last {
        result = pair(ctx, &result, ctx.input(index)?)?;
    }
    one(result)
}

/// A pair of lists of one number type, through `$whole` or `$float` (`f16` in `f32`).
macro_rules! numbers {
    ($ctx:expr, $a:expr, $b:expr, $whole:ident, $float:expr) => {{
        let (ctx, a, b) = ($ctx, $a, $b);
        macro_rules! pair {
            ($x:expr, $y:expr, $f:expr) => {
                zip(ctx, (a.shape(), $x), (b.shape(), $y), $f)
            };
        }
        match (a.data(), b.data()) {
            (Data::F32(x), Data::F32(y)) => pair!(x, y, $float),
            (Data::F64(x), Data::F64(y)) => pair!(x, y, $float),
            (Data::F16(x), Data::F16(y)) => pair!(x, y, |x: f16, y: f16| {
                let f: fn(f32, f32) -> f32 = $float;
                f16::from_f32(f(x.to_f32(), y.to_f32()))
            }),
            (Data::I8(x), Data::I8(y)) => pair!(x, y, i8::$whole),
            (Data::U8(x), Data::U8(y)) => pair!(x, y, u8::$whole),
            (Data::I16(x), Data::I16(y)) => pair!(x, y, i16::$whole),
            (Data::U16(x), Data::U16(y)) => pair!(x, y, u16::$whole),
            (Data::I32(x), Data::I32(y)) => pair!(x, y, i32::$whole),
            (Data::U32(x), Data::U32(y)) => pair!(x, y, u32::$whole),
            (Data::I64(x), Data::I64(y)) => pair!(x, y, i64::$whole),
            (Data::U64(x), Data::U64(y)) => pair!(x, y, u64::$whole),
            _ => Err(mixed(a, b)),
        }
    }};
}

fn mixed(a: &Tensor, b: &Tensor) -> NodeError {
    if a.dtype() == b.dtype() {
        NodeError::Type {
            input: 0,
            found: a.dtype(),
            expected: "another type",
        }
    } else {
        NodeError::MixedTypes(a.dtype(), b.dtype())
    }
}

fn add(ctx: &Ctx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor, NodeError> {
    numbers!(ctx, a, b, wrapping_add, |x, y| x + y)
}

fn sub(ctx: &Ctx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor, NodeError> {
    numbers!(ctx, a, b, wrapping_sub, |x, y| x - y)
}

fn mul(ctx: &Ctx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor, NodeError> {
    numbers!(ctx, a, b, wrapping_mul, |x, y| x * y)
}

fn div(ctx: &Ctx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor, NodeError> {
    refuse_zeros(b)?;
    // Whole numbers are truncated towards zero.
    numbers!(ctx, a, b, wrapping_div, |x, y| x / y)
}

fn refuse_zeros(b: &Tensor) -> Result<(), NodeError> {
    match b.to_i64() {
        Some(values) if values.contains(&0) => Err(NodeError::DivisionByZero),
        _ => Ok(()),
    }
}

/// The larger one; NaN if either is.
fn max(ctx: &Ctx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor, NodeError> {
    numbers!(ctx, a, b, max, |x, y| if x > y || x.is_nan() {
        x
    } else {
        y
    })
}

/// The smaller one; NaN if either is.
fn min(ctx: &Ctx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor, NodeError> {
    numbers!(ctx, a, b, min, |x, y| if x < y || x.is_nan() {
        x
    } else {
        y
    })
}

fn mean(ctx: &Ctx<'_>) -> Outputs {
    let sum = fold(ctx, 0, add)?.remove(0);
    if !sum.dtype().is_float() {
        return Err(ctx.wrong_type(0, "f32, f64 or f16"));
    }
    let dtype = sum.dtype();
    let count = ctx.arity() as f64;
    let values: Vec<f64> = sum.to_f64().into_iter().map(|x| x / count).collect();
    one(super::floats(sum.shape().to_vec(), &values, dtype)?)
}

/// The remainder with the sign of the divisor, or, with `fmod`, of the dividend.
fn modulo(ctx: &Ctx<'_>) -> Outputs {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    refuse_zeros(b)?;
    if ctx.flag("fmod", false)? {
        return one(numbers!(ctx, a, b, wrapping_rem, |x, y| x % y)?);
    }
    trait Floor {
        fn floored(self, by: Self) -> Self;
    }
    macro_rules! floor {
        ($($type:ty)*) => {$(
            impl Floor for $type {
                fn floored(self, by: Self) -> Self {
                    let (x, y) = (self as i128, by as i128);
                    (((x % y) + y) % y) as $type
                }
            }
        )*};
    }
    floor!(i8 u8 i16 u16 i32 u32 i64 u64);
    one(numbers!(ctx, a, b, floored, |x, y| {
        let rest = x % y;
        if rest != 0.0 && (rest < 0.0) != (y < 0.0) {
            rest + y
        } else {
            rest
        }
    })?)
}

fn pow(ctx: &Ctx<'_>) -> Outputs {
    fn power<T: Element>(
        ctx: &Ctx<'_>,
        shape: &[usize],
        base: &[T],
        exponent: &Tensor,
    ) -> Result<Tensor, NodeError> {
        let whole = !T::DTYPE.is_float();
        match exponent.to_i64() {
            Some(list) if whole => zip(ctx, (shape, base), (exponent.shape(), &list), |x, n| {
                T::from_i128(whole_power(x.to_i128(), n))
            }),
            _ => {
                let list = exponent.to_f64();
                zip(ctx, (shape, base), (exponent.shape(), &list), |x, y| {
                    T::from_f64(libm::pow(x.to_f64(), y))
                })
            }
        }
    }
    let (base, exponent) = (ctx.input(0)?, ctx.input(1)?);
    if base.dtype() == DType::Bool || exponent.dtype() == DType::Bool {
        return Err(ctx.wrong_type(0, "a number type"));
    }
    one(each!(base.data(), v => power(ctx, base.shape(), v, exponent))?)
}

/// `x^n` in the low bits; towards zero for a negative exponent.
fn whole_power(x: i128, n: i64) -> i128 {
    if n < 0 {
        return match x {
            1 => 1,
            -1 if n % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut square, mut rest) = (1_i128, x, n);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        rest >>= 1;
    }
    result
}

fn prelu(ctx: &Ctx<'_>) -> Outputs {
    let (x, slope) = (ctx.input(0)?, ctx.input(1)?);
    let y = numbers!(ctx, x, slope, wrapping_mul, |x, s| if x < 0.0 {
        s * x
    } else {
        x
    })?;
    if !x.dtype().is_float() {
        return Err(NodeError::Unsupported("PRelu of whole numbers"));
    }
    one(y)
}

fn bit_shift(ctx: &Ctx<'_>) -> Outputs {
    fn shift<T: Element>(
        ctx: &Ctx<'_>,
        a: (&[usize], &[T]),
        b: (&[usize], &[T]),
        left: bool,
    ) -> Outputs {
        let bits = 8 * T::DTYPE.bytes() as i128;
        one(zip(ctx, a, b, |x, by| {
            let (x, by) = (x.to_i128(), by.to_i128());
            match (0..bits).contains(&by) {
                true if left => T::from_i128(x << by),
                true => T::from_i128(x >> by),
                // Everything is shifted out; the sign of a signed number stays on the right.
                false if !left && x < 0 => T::from_i128(-1),
                false => T::default(),
            }
        })?)
    }
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    let left = match ctx.text("direction", "")? {
        "LEFT" => true,
        "RIGHT" => false,
        other => {
            return Err(NodeError::Choice {
                name: "direction".to_owned(),
                found: other.to_owned(),
            });
        }
    };
    let (s, t) = (a.shape(), b.shape());
    match (a.data(), b.data()) {
        (Data::I8(x), Data::I8(y)) => shift(ctx, (s, x), (t, y), left),
        (Data::I16(x), Data::I16(y)) => shift(ctx, (s, x), (t, y), left),
        (Data::I32(x), Data::I32(y)) => shift(ctx, (s, x), (t, y), left),
        (Data::I64(x), Data::I64(y)) => shift(ctx, (s, x), (t, y), left),
        (Data::U8(x), Data::U8(y)) => shift(ctx, (s, x), (t, y), left),
        (Data::U16(x), Data::U16(y)) => shift(ctx, (s, x), (t, y), left),
        (Data::U32(x), Data::U32(y)) => shift(ctx, (s, x), (t, y), left),
        (Data::U64(x), Data::U64(y)) => shift(ctx, (s, x), (t, y), left),
        _ => Err(mixed(a, b)),
    }
}

fn bitwise(ctx: &Ctx<'_>, f: fn(i128, i128) -> i128) -> Outputs {
    fn run<T: Element>(
        ctx: &Ctx<'_>,
        x: (&[usize], &[T]),
        b: &Tensor,
        f: fn(i128, i128) -> i128,
    ) -> Result<Tensor, NodeError> {
        let y = b
            .values::<T>()
            .ok_or(NodeError::MixedTypes(T::DTYPE, b.dtype()))?;
        zip(ctx, x, (b.shape(), y), |x, y| {
            T::from_i128(f(x.to_i128(), y.to_i128()))
        })
    }
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    if a.dtype().is_float() || a.dtype() == DType::Bool {
        return Err(ctx.wrong_type(0, "a whole-number type"));
    }
    one(each!(a.data(), v => run(ctx, (a.shape(), v), b, f))?)
}

fn logic(ctx: &Ctx<'_>, f: fn(bool, bool) -> bool) -> Outputs {
    let (a, b) = (ctx.values(0, "bool")?, ctx.values(1, "bool")?);
    let shapes = (ctx.input(0)?.shape(), ctx.input(1)?.shape());
    one(zip(ctx, (shapes.0, a), (shapes.1, b), f)?)
}

fn relation(
    ctx: &Ctx<'_>,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(Option<std::cmp::Ordering>) -> bool,
) -> Outputs {
    fn run<T: Element>(
        ctx: &Ctx<'_>,
        x: (&[usize], &[T]),
        b: &Tensor,
        f: impl Fn(Option<std::cmp::Ordering>) -> bool,
    ) -> Result<Tensor, NodeError> {
        let y = b
            .values::<T>()
            .ok_or(NodeError::MixedTypes(T::DTYPE, b.dtype()))?;
        zip(ctx, x, (b.shape(), y), |x, y| f(x.partial_cmp(&y)))
    }
    one(each!(a.data(), v => run(ctx, (a.shape(), v), b, f))?)
}

fn equal(ctx: &Ctx<'_>) -> Outputs {
    relation(ctx, ctx.input(0)?, ctx.input(1)?, |order| {
        order == Some(std::cmp::Ordering::Equal)
    })
}

fn compare(ctx: &Ctx<'_>, f: fn(Option<std::cmp::Ordering>) -> bool) -> Outputs {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    if a.dtype() == DType::Bool {
        return Err(ctx.wrong_type(0, "a number type"));
    }
    relation(ctx, a, b, f)
}

fn choose(ctx: &Ctx<'_>) -> Outputs {
    fn run<T: Element>(condition: &[bool], x: &[T], y: &Tensor) -> Result<Data, NodeError> {
        let y = y
            .values::<T>()
            .ok_or(NodeError::MixedTypes(T::DTYPE, y.dtype()))?;
        let pairs = x.iter().zip(y);
        Ok(T::wrap(
            condition
                .iter()
                .zip(pairs)
                .map(|(&c, (&x, &y))| if c { x } else { y })
                .collect(),
        ))
    }
    ctx.values::<bool>(0, "bool")?;
    let (condition, x, y) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let shape = broadcast(&broadcast(condition.shape(), x.shape())?, y.shape())?;
    let condition = expand(ctx, condition, &shape)?;
    let (x, y) = (expand(ctx, x, &shape)?, expand(ctx, y, &shape)?);
    let condition = condition.values::<bool>().unwrap_or(&[]);
    let data = each!(x.data(), v => run(condition, v, &y))?;
    one(Tensor::from_data(shape, data)?)
}

/// Bounds by inputs (from opset 11) or attributes.
fn clip(ctx: &Ctx<'_>) -> Outputs {
    fn run<T: Element>(x: &[T], low: Option<T>, high: Option<T>) -> Data {
        T::wrap(
            x.iter()
                .map(|&x| {
                    let x = low.filter(|low| x < *low).unwrap_or(x);
                    high.filter(|high| x > *high).unwrap_or(x)
                })
                .collect(),
        )
    }
    fn bound<T: Element>(ctx: &Ctx<'_>, input: usize, name: &str) -> Result<Option<T>, NodeError> {
        if let Some(tensor) = ctx.optional(input) {
            return match tensor.values::<T>() {
                Some([value]) => Ok(Some(*value)),
                Some(_) => Err(ctx.wrong_shape(input, "one element")),
                None => Err(NodeError::MixedTypes(T::DTYPE, tensor.dtype())),
            };
        }
        if ctx.has(name) {
            return Ok(Some(T::from_f64(f64::from(ctx.float(name, 0.0)?))));
        }
        Ok(None)
    }
    fn list<T: Element>(ctx: &Ctx<'_>, x: &[T]) -> Result<Data, NodeError> {
        Ok(run(x, bound(ctx, 1, "min")?, bound(ctx, 2, "max")?))
    }
    let x = ctx.input(0)?;
    if x.dtype() == DType::Bool {
        return Err(ctx.wrong_type(0, "a number type"));
    }
    let data = each!(x.data(), v => list(ctx, v))?;
    one(Tensor::from_data(x.shape().to_vec(), data)?)
}
