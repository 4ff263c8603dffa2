//! Transformers: attention, rotary positions, gated units.

use half::f16;
use libm as m;

use super::norm::softmax_in;
use super::unary::sigmoid;
use super::{Ctx, OpFn, Outputs, cast, floats, index, one, spread_strides, transpose};
use crate::error::NodeError;
use crate::tensor::{DType, Tensor};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "Attention" if opset >= 23 => attention,
        "RotaryEmbedding" if opset >= 23 => rotary,
        "SwiGLU" => swiglu,
        _ => return None,
    })
}

/// Rounds a number to a type, as an operator of that type stores it.
pub(super) fn rounding(dtype: DType) -> fn(f64) -> f64 {
    match dtype {
        DType::F16 => |x| f16::from_f64(x).to_f64(),
        DType::F64 => |x| x,
        _ => |x| f64::from(x as f32),
    }
}

/// `[batch, heads, length, size]` in `f64`.
struct Heads {
    values: Vec<f64>,
    batch: usize,
    heads: usize,
    length: usize,
    size: usize,
}

impl Heads {
    /// From a tensor of rank 4, or of rank 3 with the heads side by side.
    fn new(ctx: &Ctx<'_>, input: usize, heads: &str) -> Result<(Self, Tensor), NodeError> {
        let x = ctx.input(input)?;
        if !x.dtype().is_float() {
            return Err(ctx.wrong_type(input, "f32, f64 or f16"));
        }
        let x = match *x.shape() {
            [_, _, _, _] => x.clone(),
            [batch, length, width] => {
                let given = ctx.int(heads, 0)?;
                let count = usize::try_from(given)
                    .ok()
                    .filter(|&count| count > 0 && width.is_multiple_of(count))
                    .ok_or_else(|| NodeError::Attribute {
                        name: heads.to_owned(),
                        expected: "divisor of the width",
                    })?;
                let parts = x
                    .clone()
                    .with_shape(vec![batch, length, count, width / count])?;
                transpose(ctx, &parts, &[0, 2, 1, 3])?
            }
            _ => return Err(ctx.wrong_shape(input, "rank 3 or 4")),
        };
        ctx.work(x.shape())?;
        Ok((Self::of(&x), x))
    }

    /// Of a tensor of rank 4.
    fn of(x: &Tensor) -> Self {
        let &[batch, heads, length, size] = x.shape() else {
            return Self {
                values: Vec::new(),
                batch: 0,
                heads: 0,
                length: 0,
                size: 0,
            };
        };
        Self {
            values: x.to_f64(),
            batch,
            heads,
            length,
            size,
        }
    }

    fn row(&self, batch: usize, head: usize, at: usize) -> &[f64] {
        let start = ((batch * self.heads + head) * self.length + at) * self.size;
        &self.values[start..start + self.size]
    }
}

/// What is added to the scores before the softmax: 0 or minus infinity where a position must not
/// be seen, or the numbers of a mask.
struct Bias {
    /// The mask's numbers, the strides of `[batch, heads, queries, keys]` in it, and its keys.
    mask: Option<(Vec<f64>, Vec<usize>, usize)>,
    causal: bool,
    /// Reach to either side; `None` without a bound.
    left: Option<i64>,
    right: Option<i64>,
    /// For each row of the batch, keys before the first query.
    offset: Vec<i64>,
    /// For each row of the batch, keys that are not padding.
    valid: Option<Vec<i64>>,
}

impl Bias {
    fn at(&self, [batch, head, query, key]: [usize; 4]) -> f64 {
        let mut bias = 0.0;
        if let Some((values, strides, keys)) = &self.mask {
            bias = if key < *keys {
                let place =
                    batch * strides[0] + head * strides[1] + query * strides[2] + key * strides[3];
                values[place]
            } else {
                f64::NEG_INFINITY
            };
        }
        let ahead = key as i64 - (query as i64 + self.offset[batch]);
        let unseen = (self.causal && ahead > 0)
            || self.left.is_some_and(|left| -ahead > left)
            || self.right.is_some_and(|right| ahead > right)
            || self
                .valid
                .as_ref()
                .is_some_and(|valid| key as i64 >= valid[batch]);
        if unseen { f64::NEG_INFINITY } else { bias }
    }
}

fn bias(
    ctx: &Ctx<'_>,
    [batch, heads, queries, keys]: [usize; 4],
    past: Option<usize>,
) -> Result<Bias, NodeError> {
    let mask = match ctx.optional(3) {
        None => None,
        Some(mask) => {
            let Some(&own) = mask.shape().last() else {
                return Err(ctx.wrong_shape(3, "rank 1 to 4"));
            };
            if own > keys {
                return Err(ctx.wrong_shape(3, "at most one number for each key"));
            }
            let strides = spread_strides(mask.shape(), &[batch, heads, queries, own])?;
            let values = match mask.values::<bool>() {
                Some(seen) => seen
                    .iter()
                    .map(|&seen| if seen { 0.0 } else { f64::NEG_INFINITY })
                    .collect(),
                None if mask.dtype().is_float() => mask.to_f64(),
                None => return Err(ctx.wrong_type(3, "bool or a floating-point type")),
            };
            Some((values, strides, own))
        }
    };
    let valid = match ctx.optional(6) {
        None => None,
        Some(_) => {
            let list = ctx.list(6)?;
            if list.len() != batch {
                return Err(ctx.wrong_shape(6, "one length for each row of the batch"));
            }
            Some(list)
        }
    };
    let offset = match (&valid, past) {
        (Some(list), None) => list
            .iter()
            .map(|&keys| keys.saturating_sub(queries as i64))
            .collect(),
        (_, past) => vec![past.unwrap_or(0) as i64; batch],
    };
    let side = |name: &str| -> Result<Option<i64>, NodeError> {
        let size = ctx.int(name, -1)?;
        Ok((size >= 0).then_some(size))
    };
    Ok(Bias {
        mask,
        causal: ctx.flag("is_causal", false)?,
        left: side("left_window_size")?,
        right: side("right_window_size")?,
        offset,
        valid,
    })
}

/// The past keys or values of input `input` before the new ones.
fn with_past(ctx: &Ctx<'_>, input: usize, new: Tensor) -> Result<Tensor, NodeError> {
    match ctx.optional(input) {
        None => Ok(new),
        Some(past) if past.rank() != 4 => Err(ctx.wrong_shape(input, "rank 4")),
        Some(past) => super::moves::concat(ctx, &[past, &new], 2),
    }
}

/// Scaled dot-product attention, each step rounded to the type of the inputs as the operator's
/// defining function has it.
///
/// # Source
/// Vaswani et al. 2017, arXiv:1706.03762, equation 1; shared key heads: Ainslie et al. 2023,
/// arXiv:2305.13245.
fn attention(ctx: &Ctx<'_>) -> Outputs {
    let (q, _) = Heads::new(ctx, 0, "q_num_heads")?;
    let (_, k) = Heads::new(ctx, 1, "kv_num_heads")?;
    let (_, v) = Heads::new(ctx, 2, "kv_num_heads")?;
    let dtype = ctx.input(0)?.dtype();
    if ctx.optional(4).is_some() != ctx.optional(5).is_some() {
        return Err(NodeError::MissingInput(4));
    }
    let past = ctx.optional(4).map(|past| past.shape().get(2).copied());
    let past = past.map(Option::unwrap_or_default);
    let (present_key, present_value) = (with_past(ctx, 4, k)?, with_past(ctx, 5, v)?);
    let (k, v) = (Heads::of(&present_key), Heads::of(&present_value));
    let fits = k.batch == q.batch
        && v.batch == q.batch
        && k.size == q.size
        && k.length == v.length
        && k.heads == v.heads
        && k.heads > 0
        && q.heads.is_multiple_of(k.heads);
    if !fits {
        return Err(ctx.wrong_shape(1, "keys and values that fit the queries"));
    }
    let group = q.heads / k.heads;
    let round = rounding(dtype);
    let default = 1.0 / m::sqrt(q.size as f64);
    let scale = if ctx.has("scale") {
        f64::from(ctx.float("scale", 0.0)?)
    } else {
        default
    };
    // Its root scales either side.
    let scale = round(m::sqrt(scale));
    let softcap = f64::from(ctx.float("softcap", 0.0)?);
    let mode = ctx.int("qk_matmul_output_mode", 0)?;
    let precision = match ctx.int("softmax_precision", 0)? {
        0 => round,
        _ => rounding(cast::dtype(ctx, "softmax_precision", dtype)?),
    };
    let shape = [q.batch, q.heads, q.length, k.length];
    ctx.work(&shape)?;
    ctx.work(&[q.batch, q.heads, q.length, v.size])?;
    let bias = bias(ctx, shape, past)?;
    let mut shown = Vec::new();
    let mut y = Vec::with_capacity(q.batch * q.heads * q.length * v.size);
    let mut scores = vec![0.0; k.length];
    let mut with_bias = vec![0.0; k.length];
    for batch in 0..q.batch {
        for head in 0..q.heads {
            for query in 0..q.length {
                let row: Vec<f64> = q
                    .row(batch, head, query)
                    .iter()
                    .map(|x| round(x * scale))
                    .collect();
                let mut seen = false;
                for (key, score) in scores.iter_mut().enumerate() {
                    let other = k.row(batch, head / group, key);
                    let dot = row.iter().zip(other).map(|(x, y)| x * round(y * scale));
                    let raw = round(dot.sum());
                    *score = raw;
                    let capped = if softcap > 0.0 {
                        round(round(m::tanh(round(raw / softcap))) * softcap)
                    } else {
                        raw
                    };
                    let added = bias.at([batch, head, query, key]);
                    seen |= added > f64::NEG_INFINITY;
                    with_bias[key] = round(capped + added);
                    match mode {
                        1 => *score = capped,
                        2 => *score = with_bias[key],
                        _ => {}
                    }
                }
                // A query that sees no key has no attention at all.
                if seen {
                    softmax_in(&mut with_bias, precision);
                } else {
                    with_bias.fill(0.0);
                }
                shown.extend_from_slice(if mode == 3 { &with_bias } else { &scores });
                for at in 0..v.size {
                    let sum: f64 = with_bias
                        .iter()
                        .enumerate()
                        .map(|(key, weight)| round(*weight) * v.row(batch, head / group, key)[at])
                        .sum();
                    y.push(sum);
                }
            }
        }
    }
    let mut y = floats(vec![q.batch, q.heads, q.length, v.size], &y, dtype)?;
    if ctx.input(0)?.rank() == 3 {
        y = transpose(ctx, &y, &[0, 2, 1, 3])?;
        y = y.with_shape(vec![q.batch, q.length, q.heads * v.size])?;
    }
    let shown = floats(shape.to_vec(), &shown, dtype)?;
    Ok(vec![y, present_key, present_value, shown])
}

/// Su et al. 2021, arXiv:2104.09864: pairs of features turned by an angle of their position.
fn rotary(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let (heads, _) = Heads::new(ctx, 0, "num_heads")?;
    let round = rounding(x.dtype());
    let whole = ctx.int("rotary_embedding_dim", 0)?;
    let turned = match usize::try_from(whole) {
        Ok(0) => heads.size,
        Ok(turned) if turned <= heads.size => turned,
        _ => {
            return Err(NodeError::Value {
                what: "rotary_embedding_dim",
                found: whole,
                expected: "0 to the size of a head",
            });
        }
    };
    if !turned.is_multiple_of(2) {
        return Err(ctx.wrong_shape(0, "heads of an even size"));
    }
    let half = turned / 2;
    let interleaved = ctx.flag("interleaved", false)?;
    // The angles of each row and position: from the caches directly, or by position numbers.
    let rows = heads.batch * heads.length;
    let angles = |input: usize| -> Result<Vec<f64>, NodeError> {
        let cache = ctx.input(input)?;
        if cache.shape().last() != Some(&half) {
            return Err(ctx.wrong_shape(input, "half as many numbers as are turned"));
        }
        let Some(places) = ctx.optional(3) else {
            if cache.len() != rows * half {
                return Err(ctx.wrong_shape(input, "one row for each position"));
            }
            return Ok(cache.to_f64());
        };
        if cache.rank() != 2 || places.shape() != [heads.batch, heads.length] {
            return Err(ctx.wrong_shape(3, "one position for each row, and caches of rank 2"));
        }
        let all = cache.to_f64();
        let mut list = Vec::with_capacity(rows * half);
        for place in ctx.list(3)? {
            let at = index(place, cache.shape()[0])?;
            list.extend_from_slice(&all[at * half..(at + 1) * half]);
        }
        Ok(list)
    };
    let (cosines, sines) = (angles(1)?, angles(2)?);
    let mut y = heads.values.clone();
    for (line, row) in y.chunks_exact_mut(heads.size.max(1)).enumerate() {
        let (batch, at) = (line / (heads.heads * heads.length), line % heads.length);
        let angle = (batch * heads.length + at) * half;
        for pair in 0..half {
            let (i, j) = if interleaved {
                (2 * pair, 2 * pair + 1)
            } else {
                (pair, pair + half)
            };
            let (cosine, sine) = (cosines[angle + pair], sines[angle + pair]);
            let (a, b) = (row[i], row[j]);
            row[i] = round(cosine * a) - round(sine * b);
            row[j] = round(sine * a) + round(cosine * b);
        }
    }
    let shape = vec![heads.batch, heads.heads, heads.length, heads.size];
    let mut y = floats(shape, &y, x.dtype())?;
    if x.rank() == 3 {
        y = transpose(ctx, &y, &[0, 2, 1, 3])?.with_shape(x.shape().to_vec())?;
    }
    one(y)
}

/// Shazeer 2020, arXiv:2002.05202: `swish(a) * b`.
fn swiglu(ctx: &Ctx<'_>) -> Outputs {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    if a.shape() != b.shape() {
        return Err(ctx.wrong_shape(1, "the shape of the first input"));
    }
    if a.dtype() != b.dtype() || !a.dtype().is_float() {
        return Err(ctx.wrong_type(1, "the floating-point type of the first input"));
    }
    let alpha = f64::from(ctx.float("alpha", 1.0)?);
    let y: Vec<f64> = a
        .to_f64()
        .into_iter()
        .zip(b.to_f64())
        .map(|(a, b)| a * sigmoid(alpha * a) * b)
        .collect();
    one(floats(a.shape().to_vec(), &y, a.dtype())?)
}
