//! Operators that make, move and repeat elements without computing with them.

use super::{
    Ctx, FILL, OpFn, Outputs, axes, axis, broadcast, cast, expand, one, pick, strides, take,
    take_or_zero, taken, transpose, walk,
};
use crate::error::NodeError;
use crate::interpreter::Attribute;
use crate::tensor::{DType, Data, Element, Tensor, count, each};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "Reshape" => reshape,
        "Flatten" => flatten,
        "Squeeze" => squeeze,
        "Unsqueeze" => unsqueeze,
        "Transpose" => permute,
        "Concat" => join,
        "Split" => split,
        "Slice" if opset >= 10 => slice,
        "Expand" => |c| {
            let x = c.input(0)?;
            let wanted = sizes(&c.list(1)?, "a size of the shape")?;
            one(expand(c, x, &broadcast(x.shape(), &wanted)?)?)
        },
        "Tile" => tile,
        "Pad" if opset >= 11 => pad,
        "CenterCropPad" => center_crop_pad,
        "Constant" => constant,
        "ConstantOfShape" => constant_of_shape,
        "Shape" => shape,
        "Size" => |c| one(Tensor::scalar(c.input(0)?.len() as i64)),
        "Range" => range,
        "EyeLike" => eye_like,
        "Trilu" => trilu,
        "DepthToSpace" => depth_to_space,
        "SpaceToDepth" => space_to_depth,
        "ReverseSequence" => reverse_sequence,
        "Dropout" => dropout,
        _ => return None,
    })
}

/// Sizes of a shape, none negative.
pub(super) fn sizes(list: &[i64], what: &'static str) -> Result<Vec<usize>, NodeError> {
    list.iter()
        .map(|&found| {
            usize::try_from(found).map_err(|_| NodeError::Value {
                what,
                found,
                expected: "at least 0",
            })
        })
        .collect()
}

fn reshape(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let wanted = ctx.list(1)?;
    let keep_zeros = ctx.flag("allowzero", false)?;
    let mut shape = Vec::with_capacity(wanted.len());
    let mut free = None;
    for (at, &size) in wanted.iter().enumerate() {
        shape.push(match size {
            -1 if free.is_none() => {
                free = Some(at);
                1
            }
            0 if !keep_zeros => *x
                .shape()
                .get(at)
                .ok_or_else(|| ctx.wrong_shape(0, "a size to copy"))?,
            _ => sizes(&[size], "a size of the shape")?[0],
        });
    }
    if let Some(at) = free {
        let rest = count(&shape).unwrap_or(usize::MAX);
        if rest == 0 || x.len() % rest != 0 {
            return Err(ctx.wrong_shape(0, "a multiple of the given sizes"));
        }
        shape[at] = x.len() / rest;
    }
    one(x.clone().with_shape(shape)?)
}

fn flatten(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let at = ctx.int("axis", 1)?;
    let rank = x.rank() as i64;
    if at < -rank || at > rank {
        return Err(NodeError::Axis {
            axis: at,
            rank: x.rank(),
        });
    }
    let at = if at < 0 { at + rank } else { at } as usize;
    let outer = x.shape()[..at].iter().product();
    let inner = x.shape()[at..].iter().product();
    one(x.clone().with_shape(vec![outer, inner])?)
}

/// The axes in input `index` (from opset 13) or the attribute.
pub(super) fn given_axes(ctx: &Ctx<'_>, index: usize) -> Result<Option<Vec<i64>>, NodeError> {
    if ctx.optional(index).is_some() {
        return ctx.list(index).map(Some);
    }
    Ok(ctx.ints("axes")?.map(<[i64]>::to_vec))
}

fn squeeze(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let remove = match given_axes(ctx, 1)? {
        Some(list) => axes(&list, x.rank())?,
        None => (0..x.rank()).filter(|&at| x.shape()[at] == 1).collect(),
    };
    if remove.iter().any(|&at| x.shape()[at] != 1) {
        return Err(ctx.wrong_shape(0, "size 1 at every axis to remove"));
    }
    let kept = x.shape().iter().enumerate();
    let shape = kept
        .filter(|(at, _)| !remove.contains(at))
        .map(|(_, &size)| size)
        .collect();
    one(x.clone().with_shape(shape)?)
}

fn unsqueeze(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let list = given_axes(ctx, 1)?.ok_or(NodeError::MissingInput(1))?;
    let rank = x.rank() + list.len();
    let added = axes(&list, rank)?;
    let mut rest = x.shape().iter();
    let shape = (0..rank)
        .map(|at| {
            if added.contains(&at) {
                1
            } else {
                rest.next().copied().unwrap_or(1)
            }
        })
        .collect();
    one(x.clone().with_shape(shape)?)
}

fn permute(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let order = match ctx.ints("perm")? {
        Some(list) => axes(list, x.rank())?,
        None => (0..x.rank()).rev().collect(),
    };
    if order.len() != x.rank() {
        return Err(ctx.wrong_shape(0, "as many axes as `perm`"));
    }
    one(transpose(ctx, x, &order)?)
}

fn join(ctx: &Ctx<'_>) -> Outputs {
    let parts = (0..ctx.arity())
        .map(|index| ctx.input(index))
        .collect::<Result<Vec<_>, _>>()?;
    if !ctx.has("axis") {
        return Err(NodeError::Attribute {
            name: "axis".to_owned(),
            expected: "whole number",
        });
    }
    let rank = ctx.input(0)?.rank();
    one(concat(ctx, &parts, axis(ctx.int("axis", 0)?, rank)?)?)
}

/// Tensors of one type, of one shape but for `at`, one behind the other; at least one.
pub(super) fn concat(ctx: &Ctx<'_>, parts: &[&Tensor], at: usize) -> Result<Tensor, NodeError> {
    fn list<T: Element>(
        first: &[T],
        parts: &[&Tensor],
        inner: &[usize],
        outer: usize,
        len: usize,
    ) -> Result<Data, NodeError> {
        let mut lists = vec![first];
        for part in &parts[1..] {
            let values = part
                .values::<T>()
                .ok_or(NodeError::MixedTypes(T::DTYPE, part.dtype()))?;
            lists.push(values);
        }
        let mut all = Vec::with_capacity(len);
        for row in 0..outer {
            for (list, &inner) in lists.iter().zip(inner) {
                all.extend_from_slice(&list[row * inner..(row + 1) * inner]);
            }
        }
        Ok(T::wrap(all))
    }
    let first = *parts.first().ok_or(NodeError::MissingInput(0))?;
    let mut shape = first.shape().to_vec();
    shape[at] = 0;
    for (input, part) in parts.iter().enumerate() {
        let fits = part.rank() == shape.len()
            && (0..shape.len()).all(|axis| axis == at || part.shape()[axis] == shape[axis]);
        if !fits {
            return Err(NodeError::Shape {
                input,
                found: part.shape().to_vec(),
                expected: "the first input's sizes on the other axes",
            });
        }
        shape[at] = shape[at].saturating_add(part.shape()[at]);
    }
    let len = ctx.room(&shape, first.dtype())?;
    let outer: usize = shape[..at].iter().product();
    let inner: Vec<usize> = parts
        .iter()
        .map(|part| part.shape()[at..].iter().product())
        .collect();
    let data = each!(first.data(), v => list(v, parts, &inner, outer, len))?;
    Ok(Tensor::from_data(shape, data)?)
}

fn split(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let at = axis(ctx.int("axis", 0)?, x.rank())?;
    let size = x.shape()[at];
    let given = match ctx.optional(1) {
        Some(_) => Some(ctx.list(1)?),
        None => ctx.ints("split")?.map(<[i64]>::to_vec),
    };
    let parts = match given {
        Some(list) => sizes(&list, "a size of the split")?,
        None => {
            let parts = usize::try_from(ctx.int("num_outputs", ctx.outputs() as i64)?)
                .ok()
                .filter(|parts| *parts > 0 && *parts <= size.max(ctx.outputs()))
                .ok_or(NodeError::Value {
                    what: "num_outputs",
                    found: ctx.int("num_outputs", 0)?,
                    expected: "1 to the size of the axis",
                })?;
            // The last one is smaller where the size is no multiple.
            let each = size.div_ceil(parts);
            (0..parts)
                .map(|part| each.min(size.saturating_sub(part * each)))
                .collect()
        }
    };
    if parts
        .iter()
        .try_fold(0_usize, |sum, &part| sum.checked_add(part))
        != Some(size)
    {
        return Err(ctx.wrong_shape(0, "the sum of the split on the axis"));
    }
    let mut start = 0;
    parts
        .into_iter()
        .map(|part| {
            let end = start + part;
            let result = part_of(ctx, x, at, start..end);
            start = end;
            result
        })
        .collect()
}

/// A range of one axis.
pub(super) fn part_of(
    ctx: &Ctx<'_>,
    x: &Tensor,
    at: usize,
    range: std::ops::Range<usize>,
) -> Result<Tensor, NodeError> {
    let mut maps = full(x.shape());
    maps[at] = range.collect();
    picked(ctx, x, &maps)
}

/// Every coordinate of every axis.
fn full(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().map(|&size| (0..size).collect()).collect()
}

fn picked(ctx: &Ctx<'_>, x: &Tensor, maps: &[Vec<usize>]) -> Result<Tensor, NodeError> {
    let places = pick(ctx, x.shape(), maps)?;
    taken(ctx, x, maps.iter().map(Vec::len).collect(), &places)
}

fn slice(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let (starts, ends) = (ctx.list(1)?, ctx.list(2)?);
    let which = match ctx.optional(3) {
        Some(_) => axes(&ctx.list(3)?, x.rank())?,
        None => (0..starts.len()).collect(),
    };
    let steps = match ctx.optional(4) {
        Some(_) => ctx.list(4)?,
        None => vec![1; starts.len()],
    };
    let len = starts.len();
    if ends.len() != len || which.len() != len || steps.len() != len || len > x.rank() {
        return Err(ctx.wrong_shape(1, "one start, end, axis and step for each axis"));
    }
    let mut maps = full(x.shape());
    for (i, &at) in which.iter().enumerate() {
        maps[at] = cut(x.shape()[at] as i64, starts[i], ends[i], steps[i])?;
    }
    one(picked(ctx, x, &maps)?)
}

/// The coordinates of one axis of a slice.
fn cut(size: i64, start: i64, end: i64, step: i64) -> Result<Vec<usize>, NodeError> {
    if step == 0 {
        return Err(NodeError::Value {
            what: "a step",
            found: 0,
            expected: "another number than 0",
        });
    }
    let place = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let mut list = Vec::new();
    if step > 0 {
        let (mut at, end) = (place(start).clamp(0, size), place(end).clamp(0, size));
        while at < end {
            list.push(at as usize);
            at = at.saturating_add(step);
        }
    } else {
        let (mut at, end) = (
            place(start).clamp(-1, size - 1),
            place(end).clamp(-1, size - 1),
        );
        while at > end {
            list.push(at as usize);
            at = at.saturating_add(step);
        }
    }
    Ok(list)
}

fn tile(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let repeats = sizes(&ctx.list(1)?, "a number of repeats")?;
    if repeats.len() != x.rank() {
        return Err(ctx.wrong_shape(1, "one number of repeats for each axis"));
    }
    // Each axis becomes (repeat, own) with steps (0, own).
    let own = strides(x.shape());
    let mut inner = Vec::with_capacity(2 * x.rank());
    let mut steps = Vec::with_capacity(2 * x.rank());
    let mut shape = Vec::with_capacity(x.rank());
    for at in 0..x.rank() {
        inner.extend([repeats[at], x.shape()[at]]);
        steps.extend([0, own[at]]);
        shape.push(repeats[at].saturating_mul(x.shape()[at]));
    }
    let places = walk(ctx, &inner, &steps)?;
    one(taken(ctx, x, shape, &places)?)
}

fn pad(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let pads = ctx.list(1)?;
    let which = match ctx.optional(3) {
        Some(_) => axes(&ctx.list(3)?, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    if pads.len() != 2 * which.len() {
        return Err(ctx.wrong_shape(1, "two numbers for each axis"));
    }
    let mode = ctx.text("mode", "constant")?;
    // Before any list of coordinates is made, the result must be within the limits.
    let mut shape = x.shape().to_vec();
    for (i, &at) in which.iter().enumerate() {
        let size = (shape[at] as i64)
            .saturating_add(pads[i])
            .saturating_add(pads[i + which.len()]);
        shape[at] = sizes(&[size], "a padded size")?[0];
    }
    ctx.work(&shape)?;
    for &size in &shape {
        ctx.work(&[size])?;
    }
    let mut maps = full(x.shape());
    for (i, &at) in which.iter().enumerate() {
        let size = x.shape()[at] as i64;
        let before = pads[i];
        maps[at] = (0..shape[at] as i64)
            .map(|to| border(to.saturating_sub(before), size, mode))
            .collect::<Result<_, _>>()?;
    }
    let fill = ctx.optional(2);
    if let Some(fill) = fill
        && fill.dtype() != x.dtype()
    {
        return Err(NodeError::MixedTypes(x.dtype(), fill.dtype()));
    }
    let places = pick(ctx, x.shape(), &maps)?;
    let data = filled(ctx, x, &places, fill)?;
    one(Tensor::from_data(shape, data)?)
}

/// The coordinate that stands at `at`, which may lie outside `0..size`.
fn border(at: i64, size: i64, mode: &str) -> Result<usize, NodeError> {
    if (0..size).contains(&at) {
        return Ok(at as usize);
    }
    let empty = NodeError::Value {
        what: "the size of a padded axis",
        found: size,
        expected: "at least 1 for this mode",
    };
    Ok(match mode {
        "constant" => FILL,
        _ if size == 0 => return Err(empty),
        "edge" => at.clamp(0, size - 1) as usize,
        "wrap" => at.rem_euclid(size) as usize,
        "reflect" => {
            let period = (2 * (size - 1)).max(1);
            let at = at.rem_euclid(period);
            at.min(period - at).min(size - 1) as usize
        }
        other => {
            return Err(NodeError::Choice {
                name: "mode".to_owned(),
                found: other.to_owned(),
            });
        }
    })
}

/// The elements at `places`, the first of `fill` (or zero) where a place is [`FILL`].
fn filled(
    ctx: &Ctx<'_>,
    x: &Tensor,
    places: &[usize],
    fill: Option<&Tensor>,
) -> Result<Data, NodeError> {
    fn list<T: Element>(v: &[T], places: &[usize], fill: Option<&Tensor>) -> Data {
        let fill = fill
            .and_then(|fill| fill.values::<T>()?.first().copied())
            .unwrap_or_default();
        let at = |&at: &usize| if at == FILL { fill } else { v[at] };
        T::wrap(places.iter().map(at).collect())
    }
    ctx.room(&[places.len()], x.dtype())?;
    Ok(each!(x.data(), v => list(v, places, fill)))
}

fn center_crop_pad(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let wanted = sizes(&ctx.list(1)?, "a size of the shape")?;
    let which = match ctx.ints("axes")? {
        Some(list) => axes(list, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    if wanted.len() != which.len() {
        return Err(ctx.wrong_shape(1, "one size for each axis"));
    }
    let mut shape = x.shape().to_vec();
    for (&at, &size) in which.iter().zip(&wanted) {
        shape[at] = size;
    }
    ctx.work(&shape)?;
    let mut maps = full(x.shape());
    for (&at, &to) in which.iter().zip(&wanted) {
        ctx.work(&[to])?;
        let from = x.shape()[at];
        maps[at] = if to <= from {
            let start = (from - to) / 2;
            (start..start + to).collect()
        } else {
            let before = (to - from) / 2;
            (0..to)
                .map(|i| i.checked_sub(before).filter(|&i| i < from).unwrap_or(FILL))
                .collect()
        };
    }
    let places = pick(ctx, x.shape(), &maps)?;
    ctx.room(&shape, x.dtype())?;
    one(Tensor::from_data(shape, take_or_zero(x.data(), &places))?)
}

fn constant(ctx: &Ctx<'_>) -> Outputs {
    for name in [
        "value",
        "value_float",
        "value_floats",
        "value_int",
        "value_ints",
    ] {
        let tensor = match ctx.attribute(name) {
            None => continue,
            Some(Attribute::Tensor(tensor)) => (**tensor).clone(),
            Some(Attribute::Float(value)) => Tensor::scalar(*value),
            Some(Attribute::Floats(values)) => Tensor::vector(values.clone()),
            Some(Attribute::Int(value)) => Tensor::scalar(*value),
            Some(Attribute::Ints(values)) => Tensor::vector(values.clone()),
            Some(_) => {
                return Err(NodeError::Attribute {
                    name: name.to_owned(),
                    expected: "tensor, number or list of numbers",
                });
            }
        };
        return one(tensor);
    }
    Err(NodeError::Unsupported(
        "a constant that is a text or a sparse tensor",
    ))
}

fn constant_of_shape(ctx: &Ctx<'_>) -> Outputs {
    let shape = sizes(&ctx.list(0)?, "a size of the shape")?;
    let zero = Tensor::vector(vec![0.0_f32]);
    let value = ctx.tensor("value")?.unwrap_or(&zero);
    if value.len() != 1 {
        return Err(NodeError::Attribute {
            name: "value".to_owned(),
            expected: "tensor of one element",
        });
    }
    let len = ctx.room(&shape, value.dtype())?;
    fn list<T: Element>(v: &[T], len: usize) -> Data {
        T::wrap(vec![v[0]; len])
    }
    let data = each!(value.data(), v => list(v, len));
    one(Tensor::from_data(shape, data)?)
}

fn shape(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let rank = x.rank() as i64;
    let place =
        |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (place(ctx.int("start", 0)?), place(ctx.int("end", rank)?));
    let part = x.shape().get(start..end).unwrap_or(&[]);
    one(Tensor::vector(
        part.iter().map(|&size| size as i64).collect(),
    ))
}

fn range(ctx: &Ctx<'_>) -> Outputs {
    fn list<T: Element>(ctx: &Ctx<'_>, start: &[T]) -> Outputs {
        let (limit, step) = (
            ctx.values::<T>(1, "the type of the start")?,
            ctx.values::<T>(2, "the type of the start")?,
        );
        let (&[start], &[limit], &[step]) = (start, limit, step) else {
            return Err(ctx.wrong_shape(0, "one element in each input"));
        };
        let zero = NodeError::Value {
            what: "the step",
            found: 0,
            expected: "another number than 0",
        };
        if T::DTYPE.is_float() {
            let (a, b, d) = (start.to_f64(), limit.to_f64(), step.to_f64());
            if d == 0.0 || d.is_nan() {
                return Err(zero);
            }
            let len = ((b - a) / d).ceil().max(0.0) as usize;
            ctx.room(&[len], T::DTYPE)?;
            let values = (0..len).map(|i| T::from_f64(a + i as f64 * d)).collect();
            return one(Tensor::vector::<T>(values));
        }
        let (a, b, d) = (start.to_i128(), limit.to_i128(), step.to_i128());
        if d == 0 {
            return Err(zero);
        }
        let len = ((b - a) / d + i128::from((b - a) % d != 0)).max(0);
        // A remainder of the other direction does not count.
        let len = if (b - a).signum() == d.signum() {
            len
        } else {
            0
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        ctx.room(&[len], T::DTYPE)?;
        let values = (0..len).map(|i| T::from_i128(a + i as i128 * d)).collect();
        one(Tensor::vector::<T>(values))
    }
    let start = ctx.input(0)?;
    if start.dtype() == DType::Bool {
        return Err(ctx.wrong_type(0, "a number type"));
    }
    each!(start.data(), v => list(ctx, v))
}

fn eye_like(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let &[rows, columns] = x.shape() else {
        return Err(ctx.wrong_shape(0, "rank 2"));
    };
    let offset = ctx.int("k", 0)?;
    let to = cast::dtype(ctx, "dtype", x.dtype())?;
    ctx.room(x.shape(), to)?;
    let mut values = vec![false; rows * columns];
    for row in 0..rows {
        let column = (row as i64).saturating_add(offset);
        if (0..columns as i64).contains(&column) {
            values[row * columns + column as usize] = true;
        }
    }
    one(cast::convert(
        &Tensor::new(x.shape().to_vec(), values)?,
        to,
    )?)
}

fn trilu(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let &[.., rows, columns] = x.shape() else {
        return Err(ctx.wrong_shape(0, "rank 2 or more"));
    };
    let offset = match ctx.optional(1) {
        Some(_) => ctx.single(1)?,
        None => 0,
    };
    let upper = ctx.flag("upper", true)?;
    ctx.work(x.shape())?;
    let places: Vec<usize> = (0..x.len())
        .map(|at| {
            let (row, column) = ((at / columns) % rows, at % columns);
            let side = column as i64 - row as i64;
            let kept = if upper {
                side >= offset
            } else {
                side <= offset
            };
            if kept { at } else { FILL }
        })
        .collect();
    let data = take_or_zero(x.data(), &places);
    one(Tensor::from_data(x.shape().to_vec(), data)?)
}

/// Splits, permutes and joins the axes of a batch of images.
fn blocks(
    ctx: &Ctx<'_>,
    split: impl Fn(&[usize; 4], usize) -> Option<[usize; 6]>,
    order: [usize; 6],
    join: impl Fn(&[usize; 4], usize) -> [usize; 4],
) -> Outputs {
    let x = ctx.input(0)?;
    let block = ctx.int("blocksize", 0)?;
    let size = usize::try_from(block)
        .ok()
        .filter(|size| (1..1 << 20).contains(size))
        .ok_or(NodeError::Value {
            what: "blocksize",
            found: block,
            expected: "1 to 1048575",
        })?;
    let &[n, c, h, w] = x.shape() else {
        return Err(ctx.wrong_shape(0, "rank 4"));
    };
    let shape = [n, c, h, w];
    let wrong = || ctx.wrong_shape(0, "sizes that are multiples of the block size");
    let split = split(&shape, size).ok_or_else(wrong)?;
    let parts = x.clone().with_shape(split.to_vec())?;
    let moved = transpose(ctx, &parts, &order)?;
    one(moved.with_shape(join(&shape, size).to_vec())?)
}

fn depth_to_space(ctx: &Ctx<'_>) -> Outputs {
    let join = |&[n, c, h, w]: &[usize; 4], b: usize| [n, c / (b * b), h * b, w * b];
    let whole = |c: usize, b: usize| c.is_multiple_of(b * b).then_some(c / (b * b));
    match ctx.text("mode", "DCR")? {
        "DCR" => blocks(
            ctx,
            |&[n, c, h, w], b| Some([n, b, b, whole(c, b)?, h, w]),
            [0, 3, 4, 1, 5, 2],
            join,
        ),
        "CRD" => blocks(
            ctx,
            |&[n, c, h, w], b| Some([n, whole(c, b)?, b, b, h, w]),
            [0, 1, 4, 2, 5, 3],
            join,
        ),
        other => Err(NodeError::Choice {
            name: "mode".to_owned(),
            found: other.to_owned(),
        }),
    }
}

fn space_to_depth(ctx: &Ctx<'_>) -> Outputs {
    let order = match ctx.text("mode", "DCR")? {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        other => {
            return Err(NodeError::Choice {
                name: "mode".to_owned(),
                found: other.to_owned(),
            });
        }
    };
    blocks(
        ctx,
        |&[n, c, h, w], b| {
            let whole = h.is_multiple_of(b) && w.is_multiple_of(b);
            whole.then_some([n, c, h / b, b, w / b, b])
        },
        order,
        |&[n, c, h, w], b| [n, c * b * b, h / b, w / b],
    )
}

fn reverse_sequence(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    if x.rank() < 2 {
        return Err(ctx.wrong_shape(0, "rank 2 or more"));
    }
    let lengths = sizes(&ctx.list(1)?, "a length")?;
    let (batch, time) = (
        axis(ctx.int("batch_axis", 1)?, x.rank())?,
        axis(ctx.int("time_axis", 0)?, x.rank())?,
    );
    let most = x.shape()[time];
    if lengths.len() != x.shape()[batch] || lengths.iter().any(|&len| len > most) {
        return Err(ctx.wrong_shape(1, "a length within the time axis for each row"));
    }
    let steps = strides(x.shape());
    ctx.work(x.shape())?;
    let places: Vec<usize> = (0..x.len())
        .map(|at| {
            let row = at / steps[batch] % x.shape()[batch];
            let now = at / steps[time] % most;
            if now < lengths[row] {
                at - now * steps[time] + (lengths[row] - 1 - now) * steps[time]
            } else {
                at
            }
        })
        .collect();
    let data = take(x.data(), &places);
    one(Tensor::from_data(x.shape().to_vec(), data)?)
}

/// The identity, as when a model is served. Random training is refused.
fn dropout(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let ratio = match ctx.optional(1) {
        Some(ratio) => ratio.to_f64().first().copied().unwrap_or(0.5),
        None => f64::from(ctx.float("ratio", 0.5)?),
    };
    let training = match ctx.optional(2) {
        Some(_) => ctx.values::<bool>(2, "bool")?.first() == Some(&true),
        None => false,
    };
    if training && ratio != 0.0 {
        return Err(NodeError::Unsupported(
            "random dropout of the training mode",
        ));
    }
    let mask = Tensor::new(x.shape().to_vec(), vec![true; x.len()])?;
    Ok(vec![x.clone(), mask])
}
