//! Operators that look up and place elements by tensors of indices, sort and select.

use std::cmp::Ordering;

use super::{Ctx, OpFn, Outputs, axis, index, moves, one, strides, take, taken, transpose, walk};
use crate::error::NodeError;
use crate::tensor::{DType, Data, Element, Tensor, each};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "Gather" => gather,
        "GatherElements" => gather_elements,
        "GatherND" if opset >= 11 => gather_nd,
        "Scatter" | "ScatterElements" => scatter_elements,
        "ScatterND" if opset >= 11 => scatter_nd,
        "TensorScatter" => tensor_scatter,
        "OneHot" => one_hot,
        "NonZero" => non_zero,
        "Compress" => compress,
        "TopK" if opset >= 10 => top_k,
        "Unique" => unique,
        _ => return None,
    })
}

fn gather(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let at = axis(ctx.int("axis", 0)?, x.rank())?;
    let size = x.shape()[at];
    let which = ctx
        .list(1)?
        .into_iter()
        .map(|i| index(i, size))
        .collect::<Result<Vec<_>, _>>()?;
    let outer: usize = x.shape()[..at].iter().product();
    let inner: usize = x.shape()[at + 1..].iter().product();
    let mut shape = x.shape()[..at].to_vec();
    shape.extend(ctx.input(1)?.shape());
    shape.extend(&x.shape()[at + 1..]);
    let mut places = Vec::with_capacity(ctx.work(&shape)?);
    for row in 0..outer {
        for &i in &which {
            let start = (row * size + i) * inner;
            places.extend(start..start + inner);
        }
    }
    one(taken(ctx, x, shape, &places)?)
}

/// The places in a tensor of `shape` that an index tensor of the same rank names on one axis.
fn element_places(ctx: &Ctx<'_>, shape: &[usize], at: usize) -> Result<Vec<usize>, NodeError> {
    let indices = ctx.input(1)?;
    if indices.rank() != shape.len() {
        return Err(ctx.wrong_shape(1, "the rank of the data"));
    }
    for (place, (&size, &most)) in indices.shape().iter().zip(shape).enumerate() {
        if place != at && size > most {
            return Err(ctx.wrong_shape(1, "sizes within the data's"));
        }
    }
    let steps = strides(shape);
    let mut lines = steps.clone();
    lines[at] = 0;
    let base = walk(ctx, indices.shape(), &lines)?;
    ctx.list(1)?
        .into_iter()
        .zip(base)
        .map(|(i, base)| Ok(base + index(i, shape[at])? * steps[at]))
        .collect()
}

fn gather_elements(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let at = axis(ctx.int("axis", 0)?, x.rank())?;
    let places = element_places(ctx, x.shape(), at)?;
    one(taken(ctx, x, ctx.input(1)?.shape().to_vec(), &places)?)
}

/// For each tuple on the last axis of the indices, the place where its slice starts, and the
/// number of elements of a slice. The first `batch` axes go along.
fn tuple_places(
    ctx: &Ctx<'_>,
    shape: &[usize],
    batch: usize,
) -> Result<(Vec<usize>, usize), NodeError> {
    let indices = ctx.input(1)?;
    let Some((&width, outer)) = indices.shape().split_last() else {
        return Err(ctx.wrong_shape(1, "rank 1 or more"));
    };
    if batch + width > shape.len() || outer.len() < batch || outer[..batch] != shape[..batch] {
        return Err(ctx.wrong_shape(1, "tuples that fit the data"));
    }
    let steps = strides(shape);
    let inner = shape[batch + width..].iter().product();
    let list = ctx.list(1)?;
    let rows: usize = outer.iter().product();
    ctx.work(&[rows])?;
    let per_batch: usize = outer[batch..].iter().product();
    let batch_len: usize = shape[batch..].iter().product();
    let mut starts = Vec::with_capacity(rows);
    for row in 0..rows {
        let mut start = row / per_batch.max(1) * batch_len;
        for k in 0..width {
            start += index(list[row * width + k], shape[batch + k])? * steps[batch + k];
        }
        starts.push(start);
    }
    Ok((starts, inner))
}

fn gather_nd(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let batch = ctx.int("batch_dims", 0)?;
    let batch = usize::try_from(batch).map_err(|_| NodeError::Value {
        what: "batch_dims",
        found: batch,
        expected: "at least 0",
    })?;
    if batch > x.rank() {
        return Err(ctx.wrong_shape(0, "at least `batch_dims` axes"));
    }
    let (starts, inner) = tuple_places(ctx, x.shape(), batch)?;
    let indices = ctx.input(1)?.shape();
    let width = indices[indices.len() - 1];
    let mut shape = indices[..indices.len() - 1].to_vec();
    shape.extend(&x.shape()[batch + width..]);
    let mut places = Vec::with_capacity(ctx.work(&shape)?);
    for start in starts {
        places.extend(start..start + inner);
    }
    one(taken(ctx, x, shape, &places)?)
}

/// How an update meets the element that is there.
fn reduction(ctx: &Ctx<'_>) -> Result<&'static str, NodeError> {
    match ctx.text("reduction", "none")? {
        "none" => Ok("none"),
        "add" => Ok("add"),
        "mul" => Ok("mul"),
        "max" => Ok("max"),
        "min" => Ok("min"),
        other => Err(NodeError::Choice {
            name: "reduction".to_owned(),
            found: other.to_owned(),
        }),
    }
}

fn place<T: Element>(
    ctx: &Ctx<'_>,
    x: &[T],
    places: &[usize],
    updates: usize,
) -> Result<Data, NodeError> {
    let new = ctx.values::<T>(updates, "the type of the data")?;
    if new.len() != places.len() {
        return Err(ctx.wrong_shape(updates, "one element for each place"));
    }
    let how = reduction(ctx)?;
    let mut all = x.to_vec();
    for (&at, &new) in places.iter().zip(new) {
        let old = all[at];
        all[at] = match how {
            "add" | "mul" if T::DTYPE.is_float() => {
                let (x, y) = (old.to_f64(), new.to_f64());
                T::from_f64(if how == "add" { x + y } else { x * y })
            }
            "add" => T::from_i128(old.to_i128() + new.to_i128()),
            "mul" => T::from_i128(old.to_i128().wrapping_mul(new.to_i128())),
            "max" if new > old || new.to_f64().is_nan() => new,
            "min" if new < old || new.to_f64().is_nan() => new,
            "max" | "min" => old,
            _ => new,
        };
    }
    Ok(T::wrap(all))
}

fn scatter_elements(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let at = axis(ctx.int("axis", 0)?, x.rank())?;
    if ctx.input(2)?.shape() != ctx.input(1)?.shape() {
        return Err(ctx.wrong_shape(2, "the shape of the indices"));
    }
    let places = element_places(ctx, x.shape(), at)?;
    let data = each!(x.data(), v => place(ctx, v, &places, 2))?;
    one(Tensor::from_data(x.shape().to_vec(), data)?)
}

fn scatter_nd(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let (starts, inner) = tuple_places(ctx, x.shape(), 0)?;
    ctx.work(&[starts.len(), inner])?;
    let places: Vec<usize> = starts
        .into_iter()
        .flat_map(|start| start..start + inner)
        .collect();
    let data = each!(x.data(), v => place(ctx, v, &places, 2))?;
    one(Tensor::from_data(x.shape().to_vec(), data)?)
}

/// Writes each row's update into its cache from a row's own start.
fn tensor_scatter(ctx: &Ctx<'_>) -> Outputs {
    fn write<T: Element>(ctx: &Ctx<'_>, x: &[T], places: &[usize]) -> Result<Data, NodeError> {
        let new = ctx.values::<T>(1, "the type of the cache")?;
        let mut all = x.to_vec();
        for (&at, &new) in places.iter().zip(new) {
            all[at] = new;
        }
        Ok(T::wrap(all))
    }
    let (x, update) = (ctx.input(0)?, ctx.input(1)?);
    let at = axis(ctx.int("axis", -2)?, x.rank())?;
    let fits = update.rank() == x.rank()
        && at > 0
        && (0..x.rank()).all(|a| {
            if a == at {
                update.shape()[a] <= x.shape()[a]
            } else {
                update.shape()[a] == x.shape()[a]
            }
        });
    if !fits {
        return Err(ctx.wrong_shape(1, "the cache's shape, shorter on the axis"));
    }
    let batches = x.shape()[0];
    let starts = match ctx.optional(2) {
        Some(_) => moves::sizes(&ctx.list(2)?, "a write index")?,
        None => vec![0; batches],
    };
    if starts.len() != batches {
        return Err(ctx.wrong_shape(2, "one write index for each row"));
    }
    let circular = match ctx.text("mode", "linear")? {
        "linear" => false,
        "circular" => true,
        other => {
            return Err(NodeError::Choice {
                name: "mode".to_owned(),
                found: other.to_owned(),
            });
        }
    };
    let (size, new) = (x.shape()[at], update.shape()[at]);
    let inner: usize = x.shape()[at + 1..].iter().product();
    let lines: usize = x.shape()[1..at].iter().product();
    let mut places = Vec::with_capacity(ctx.work(update.shape())?);
    for (row, &start) in starts.iter().enumerate() {
        for line in 0..lines {
            for i in 0..new {
                let mut to = start.saturating_add(i);
                if circular && size > 0 {
                    to %= size;
                }
                let to = index(i64::try_from(to).unwrap_or(i64::MAX), size)?;
                let first = ((row * lines + line) * size + to) * inner;
                places.extend(first..first + inner);
            }
        }
    }
    let data = each!(x.data(), v => write(ctx, v, &places))?;
    one(Tensor::from_data(x.shape().to_vec(), data)?)
}

fn one_hot(ctx: &Ctx<'_>) -> Outputs {
    fn list<T: Element>(v: &[T], hot: &[bool]) -> Data {
        T::wrap(hot.iter().map(|&hot| v[usize::from(hot)]).collect())
    }
    let indices = ctx.input(0)?;
    let depth_input = ctx.input(1)?;
    let depth = match depth_input.to_f64()[..] {
        [depth] if depth >= 0.0 => depth as usize,
        _ => return Err(ctx.wrong_shape(1, "one number of at least 0")),
    };
    let values = ctx.input(2)?;
    if values.shape() != [2] {
        return Err(ctx.wrong_shape(2, "two elements, off and on"));
    }
    let at = axis(ctx.int("axis", -1)?, indices.rank() + 1)?;
    let mut shape = indices.shape().to_vec();
    shape.insert(at, depth);
    let len = ctx.room(&shape, values.dtype())?;
    let inner: usize = indices.shape()[at..].iter().product();
    let mut hot = vec![false; len];
    for (i, which) in indices.to_f64().into_iter().enumerate() {
        let which = if which < 0.0 {
            which + depth as f64
        } else {
            which
        };
        if which >= 0.0 && which < depth as f64 {
            hot[(i / inner * depth + which as usize) * inner + i % inner] = true;
        }
    }
    let data = each!(values.data(), v => list(v, &hot));
    one(Tensor::from_data(shape, data)?)
}

fn non_zero(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let hits: Vec<usize> = x
        .to_f64()
        .iter()
        .enumerate()
        .filter(|(_, value)| **value != 0.0)
        .map(|(at, _)| at)
        .collect();
    let steps = strides(x.shape());
    ctx.room(&[x.rank(), hits.len()], DType::I64)?;
    let mut list = Vec::with_capacity(x.rank() * hits.len());
    for (&step, &size) in steps.iter().zip(x.shape()) {
        list.extend(hits.iter().map(|&at| (at / step % size) as i64));
    }
    one(Tensor::new(vec![x.rank(), hits.len()], list)?)
}

fn compress(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    let keep: Vec<usize> = ctx
        .values::<bool>(1, "bool")?
        .iter()
        .enumerate()
        .filter(|(_, keep)| **keep)
        .map(|(at, _)| at)
        .collect();
    let (x, at) = if ctx.has("axis") {
        (x.clone(), axis(ctx.int("axis", 0)?, x.rank())?)
    } else {
        (x.clone().with_shape(vec![x.len()])?, 0)
    };
    if keep.iter().any(|&i| i >= x.shape()[at]) {
        return Err(ctx.wrong_shape(1, "at most as many as the axis has"));
    }
    let mut maps: Vec<Vec<usize>> = x.shape().iter().map(|&size| (0..size).collect()).collect();
    maps[at] = keep;
    let places = super::pick(ctx, x.shape(), &maps)?;
    one(taken(
        ctx,
        &x,
        maps.iter().map(Vec::len).collect(),
        &places,
    )?)
}

/// NaN is larger than every number.
fn order<T: Element>(a: &T, b: &T) -> Ordering {
    a.partial_cmp(b).unwrap_or_else(|| {
        let nan = |x: &T| x.to_f64().is_nan();
        nan(a).cmp(&nan(b))
    })
}

/// The axis last, as rows, and the order of axes that undoes it.
fn rows(ctx: &Ctx<'_>, x: &Tensor, at: usize) -> Result<(Tensor, Vec<usize>), NodeError> {
    let mut there: Vec<usize> = (0..x.rank()).filter(|&a| a != at).collect();
    there.push(at);
    let mut back = vec![0; x.rank()];
    for (to, &from) in there.iter().enumerate() {
        back[from] = to;
    }
    Ok((transpose(ctx, x, &there)?, back))
}

fn top_k(ctx: &Ctx<'_>) -> Outputs {
    fn list<T: Element>(v: &[T], size: usize, k: usize, largest: bool) -> (Data, Vec<i64>) {
        let (mut values, mut places) = (Vec::new(), Vec::new());
        for row in v.chunks_exact(size.max(1)) {
            let mut ranked: Vec<usize> = (0..size).collect();
            // Of equal elements the first one comes first.
            ranked.sort_by(|&i, &j| {
                let by = order(&row[i], &row[j]);
                if largest { by.reverse() } else { by }
            });
            values.extend(ranked[..k].iter().map(|&i| row[i]));
            places.extend(ranked[..k].iter().map(|&i| i as i64));
        }
        (T::wrap(values), places)
    }
    let x = ctx.input(0)?;
    let at = axis(ctx.int("axis", -1)?, x.rank())?;
    let k = ctx.single(1)?;
    let size = x.shape()[at];
    let k = usize::try_from(k)
        .ok()
        .filter(|k| *k <= size)
        .ok_or(NodeError::Value {
            what: "k",
            found: k,
            expected: "0 to the size of the axis",
        })?;
    let (lines, back) = rows(ctx, x, at)?;
    let largest = ctx.flag("largest", true)?;
    let (values, places) = each!(lines.data(), v => list(v, size, k, largest));
    let mut shape = lines.shape().to_vec();
    shape[x.rank() - 1] = k;
    let values = Tensor::from_data(shape.clone(), values)?;
    let places = Tensor::new(shape, places)?;
    Ok(vec![
        transpose(ctx, &values, &back)?,
        transpose(ctx, &places, &back)?,
    ])
}

fn unique(ctx: &Ctx<'_>) -> Outputs {
    fn compare<T: Element>(v: &[T], width: usize, i: usize, j: usize) -> Ordering {
        let row = |i: usize| &v[i * width..(i + 1) * width];
        row(i)
            .iter()
            .zip(row(j))
            .map(|(a, b)| order(a, b))
            .find(|by| by.is_ne())
            .unwrap_or(Ordering::Equal)
    }
    fn ranks<T: Element>(v: &[T], width: usize, count: usize) -> (Vec<usize>, Vec<usize>) {
        let mut by: Vec<usize> = (0..count).collect();
        by.sort_by(|&i, &j| compare(v, width, i, j));
        // For each row the number of its group, in sorted order, and each group's first row.
        let mut group = vec![0; count];
        let mut first: Vec<usize> = Vec::new();
        let mut last = None;
        for i in by {
            if last.is_none_or(|last| compare(v, width, last, i).is_ne()) {
                first.push(i);
            }
            group[i] = first.len() - 1;
            last = Some(i);
        }
        (group, first)
    }
    let x = ctx.input(0)?;
    let flat = !ctx.has("axis");
    let (x, at) = if flat {
        (x.clone().with_shape(vec![x.len()])?, 0)
    } else {
        (x.clone(), axis(ctx.int("axis", 0)?, x.rank())?)
    };
    let mut there: Vec<usize> = vec![at];
    there.extend((0..x.rank()).filter(|&a| a != at));
    let lines = transpose(ctx, &x, &there)?;
    let count = x.shape()[at];
    let width = lines.shape()[1..].iter().product();
    let (mut group, mut first) = each!(lines.data(), v => ranks(v, width, count));
    if !ctx.flag("sorted", true)? {
        // Groups by their first rows.
        let mut by: Vec<usize> = (0..first.len()).collect();
        by.sort_by_key(|&g| first[g]);
        let mut new = vec![0; by.len()];
        for (to, &from) in by.iter().enumerate() {
            new[from] = to;
        }
        group.iter_mut().for_each(|g| *g = new[*g]);
        first = by.iter().map(|&g| first[g]).collect();
    }
    let mut counts = vec![0_i64; first.len()];
    for &g in &group {
        counts[g] += 1;
    }
    let mut maps: Vec<Vec<usize>> = x.shape().iter().map(|&size| (0..size).collect()).collect();
    maps[at] = first.clone();
    let places = super::pick(ctx, x.shape(), &maps)?;
    let kept = Tensor::from_data(maps.iter().map(Vec::len).collect(), take(x.data(), &places))?;
    let whole = |list: Vec<usize>| Tensor::vector(list.into_iter().map(|i| i as i64).collect());
    Ok(vec![
        kept,
        whole(first),
        whole(group),
        Tensor::vector(counts),
    ])
}
