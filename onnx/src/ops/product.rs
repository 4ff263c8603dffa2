//! Matrix products.

use fl_edge::kernel::{Dense, Fused, Kernels};
use half::f16;

use super::{Ctx, OpFn, Outputs, broadcast, expand, one, spread_strides, transpose, walk};
use crate::error::NodeError;
use crate::tensor::{DType, Data, Element, Tensor, each};

pub(super) fn find(op: &str, _opset: i64) -> Option<OpFn> {
    Some(match op {
        "MatMul" => |c| one(matmul(c, c.input(0)?, c.input(1)?)?),
        "MatMulInteger" => matmul_integer,
        "Gemm" => gemm,
        _ => return None,
    })
}

/// `y[m, n] = x[m, k] * w[k, n]` in `f32`, by the edge runtime's kernel.
pub(super) fn dense(x: &[f32], w: &[f32], [m, k, n]: [usize; 3], y: &mut [f32]) {
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        y[..m * n].fill(0.0);
        return;
    }
    let shape = Dense {
        inputs: k,
        outputs: n,
    };
    Kernels::best().dense(&shape, m, x, w, None, Fused::None, y);
}

/// The sums of products of whole numbers, wrapping.
pub(super) fn dense_whole(x: &[i32], w: &[i32], [m, k, n]: [usize; 3], y: &mut [i32]) {
    y[..m * n].fill(0);
    for row in 0..m {
        let to = &mut y[row * n..(row + 1) * n];
        for (i, &x) in x[row * k..(row + 1) * k].iter().enumerate() {
            for (y, &w) in to.iter_mut().zip(&w[i * n..(i + 1) * n]) {
                *y = y.wrapping_add(x.wrapping_mul(w));
            }
        }
    }
}

/// The shapes of a product of stacks of matrices, with vectors as rows or columns.
struct Stacks {
    m: usize,
    k: usize,
    n: usize,
    outer: Vec<usize>,
    /// Where the matrices of either side start, for each of the product's.
    left: Vec<usize>,
    right: Vec<usize>,
    shape: Vec<usize>,
}

fn stacks(ctx: &Ctx<'_>, a: &[usize], b: &[usize]) -> Result<Stacks, NodeError> {
    let wrong = || NodeError::Broadcast(a.to_vec(), b.to_vec());
    let (outer_a, m, k) = match *a {
        [] => return Err(wrong()),
        [k] => (&a[..0], 1, k),
        [.., m, k] => (&a[..a.len() - 2], m, k),
    };
    let (outer_b, rows, n) = match *b {
        [] => return Err(wrong()),
        [k] => (&b[..0], k, 1),
        [.., k, n] => (&b[..b.len() - 2], k, n),
    };
    if rows != k {
        return Err(wrong());
    }
    let outer = broadcast(outer_a, outer_b)?;
    let starts = |own: &[usize], len: usize| -> Result<Vec<usize>, NodeError> {
        let places = walk(ctx, &outer, &spread_strides(own, &outer)?)?;
        Ok(places.into_iter().map(|at| at * len).collect())
    };
    let mut shape = outer.clone();
    if a.len() > 1 {
        shape.push(m);
    }
    if b.len() > 1 {
        shape.push(n);
    }
    Ok(Stacks {
        m,
        k,
        n,
        left: starts(outer_a, m.saturating_mul(k))?,
        right: starts(outer_b, k.saturating_mul(n))?,
        outer,
        shape,
    })
}

/// Products of stacks of matrices, of one number type; whole numbers wrap.
pub(super) fn matmul(ctx: &Ctx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor, NodeError> {
    if a.dtype() != b.dtype() {
        return Err(NodeError::MixedTypes(a.dtype(), b.dtype()));
    }
    let s = stacks(ctx, a.shape(), b.shape())?;
    let len = ctx.room(&s.shape, a.dtype())?;
    let dims = [s.m, s.k, s.n];
    let part = s.m * s.n;
    let data = match (a.data(), b.data()) {
        (Data::F32(x), Data::F32(w)) => Data::F32(single(x, w, &s, len)),
        (Data::F16(_), Data::F16(_)) => {
            let y = single(&a.to_f32(), &b.to_f32(), &s, len);
            Data::F16(y.into_iter().map(f16::from_f32).collect())
        }
        (Data::F64(x), Data::F64(w)) => {
            let mut y = vec![0.0; len];
            for (i, to) in y.chunks_exact_mut(part.max(1)).enumerate() {
                double(&x[s.left[i]..], &w[s.right[i]..], dims, to);
            }
            Data::F64(y)
        }
        (Data::Bool(_), _) => return Err(ctx.wrong_type(0, "a number type")),
        (left, _) => {
            let (x, w) = (
                a.to_i64().unwrap_or_default(),
                b.to_i64().unwrap_or_default(),
            );
            let mut y = vec![0_i64; len];
            for (i, to) in y.chunks_exact_mut(part.max(1)).enumerate() {
                whole(&x[s.left[i]..], &w[s.right[i]..], dims, to);
            }
            fn narrow<T: Element>(_: &[T], y: &[i64]) -> Data {
                T::wrap(y.iter().map(|&x| T::from_i128(i128::from(x))).collect())
            }
            each!(left, v => narrow(v, &y))
        }
    };
    Ok(Tensor::from_data(s.shape, data)?)
}

fn single(x: &[f32], w: &[f32], s: &Stacks, len: usize) -> Vec<f32> {
    let mut y = vec![0.0; len];
    for (i, to) in y.chunks_exact_mut((s.m * s.n).max(1)).enumerate() {
        dense(&x[s.left[i]..], &w[s.right[i]..], [s.m, s.k, s.n], to);
    }
    y
}

fn double(x: &[f64], w: &[f64], [m, k, n]: [usize; 3], y: &mut [f64]) {
    for row in 0..m {
        for i in 0..k {
            for column in 0..n {
                y[row * n + column] += x[row * k + i] * w[i * n + column];
            }
        }
    }
}

fn whole(x: &[i64], w: &[i64], [m, k, n]: [usize; 3], y: &mut [i64]) {
    for row in 0..m {
        for i in 0..k {
            for column in 0..n {
                let product = x[row * k + i].wrapping_mul(w[i * n + column]);
                y[row * n + column] = y[row * n + column].wrapping_add(product);
            }
        }
    }
}

/// The elements of an 8-bit tensor less a zero point: one, or one for each index of `axis`.
pub(super) fn centred(
    ctx: &Ctx<'_>,
    input: usize,
    zero: usize,
    axis_from_end: usize,
) -> Result<Vec<i32>, NodeError> {
    let x = ctx.input(input)?;
    if !matches!(x.dtype(), DType::U8 | DType::I8) {
        return Err(ctx.wrong_type(input, "u8 or i8"));
    }
    let values = x.to_i64().unwrap_or_default();
    let Some(zeros) = ctx.optional(zero) else {
        return Ok(values.into_iter().map(|x| x as i32).collect());
    };
    if zeros.dtype() != x.dtype() {
        return Err(NodeError::MixedTypes(x.dtype(), zeros.dtype()));
    }
    let list = zeros.to_i64().unwrap_or_default();
    let all: Vec<i64> = if list.len() == 1 {
        vec![list[0]; values.len()]
    } else {
        // A vector lies along its axis; a tensor of the rank broadcasts by itself.
        let mut shape = vec![1; x.rank()];
        let fits = axis_from_end <= x.rank() && axis_from_end > 0;
        if zeros.rank() == 1 && fits {
            shape[x.rank() - axis_from_end] = list.len();
        } else {
            shape = zeros.shape().to_vec();
        }
        let zeros = Tensor::new(shape, list)?;
        let spread = expand(ctx, &zeros, x.shape())?;
        spread.to_i64().unwrap_or_default()
    };
    Ok(values
        .into_iter()
        .zip(all)
        .map(|(x, zero)| (x - zero) as i32)
        .collect())
}

/// Exact products of 8-bit matrices in `i32`.
pub(super) fn integer(
    ctx: &Ctx<'_>,
    [a, a_zero]: [usize; 2],
    [b, b_zero]: [usize; 2],
) -> Result<(Vec<i32>, Vec<usize>), NodeError> {
    let x = centred(ctx, a, a_zero, 2)?;
    let w = centred(ctx, b, b_zero, 1)?;
    let s = stacks(ctx, ctx.input(a)?.shape(), ctx.input(b)?.shape())?;
    let len = ctx.room(&s.shape, DType::I32)?;
    let mut y = vec![0; len];
    for (i, to) in y.chunks_exact_mut((s.m * s.n).max(1)).enumerate() {
        dense_whole(&x[s.left[i]..], &w[s.right[i]..], [s.m, s.k, s.n], to);
    }
    debug_assert_eq!(s.outer.iter().product::<usize>(), s.left.len());
    Ok((y, s.shape))
}

fn matmul_integer(ctx: &Ctx<'_>) -> Outputs {
    let (y, shape) = integer(ctx, [0, 2], [1, 3])?;
    one(Tensor::new(shape, y)?)
}

/// `alpha * A' * B' + beta * C`.
fn gemm(ctx: &Ctx<'_>) -> Outputs {
    let side = |index: usize, flag: &str| -> Result<Tensor, NodeError> {
        let x = ctx.input(index)?;
        if x.rank() != 2 {
            return Err(ctx.wrong_shape(index, "rank 2"));
        }
        if ctx.flag(flag, false)? {
            transpose(ctx, x, &[1, 0])
        } else {
            Ok(x.clone())
        }
    };
    let (a, b) = (side(0, "transA")?, side(1, "transB")?);
    let (alpha, beta) = (ctx.float("alpha", 1.0)?, ctx.float("beta", 1.0)?);
    let dtype = a.dtype();
    if !dtype.is_float() {
        return Err(ctx.wrong_type(0, "f32, f64 or f16"));
    }
    let product = matmul(ctx, &a, &b)?;
    let shape = product.shape().to_vec();
    let c = match ctx.optional(2) {
        Some(c) if c.dtype() != dtype => {
            return Err(NodeError::MixedTypes(dtype, c.dtype()));
        }
        Some(c) => Some(expand(ctx, c, &shape)?),
        None => None,
    };
    let scaled = |y: f64, c: f64| f64::from(alpha) * y + f64::from(beta) * c;
    let data = match product.into_data() {
        Data::F32(mut y) => {
            let c = c.as_ref().and_then(Tensor::values::<f32>);
            for (i, y) in y.iter_mut().enumerate() {
                *y *= alpha;
                if let Some(c) = c {
                    *y += beta * c[i];
                }
            }
            Data::F32(y)
        }
        other => {
            let c = c.map(|c| c.to_f64());
            let y = Tensor::from_data(shape.clone(), other)?.to_f64();
            let all: Vec<f64> = y
                .into_iter()
                .enumerate()
                .map(|(i, y)| scaled(y, c.as_ref().map_or(0.0, |c| c[i])))
                .collect();
            super::floats(shape.clone(), &all, dtype)?.into_data()
        }
    };
    one(Tensor::from_data(shape, data)?)
}
