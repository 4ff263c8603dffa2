//! Losses of classifiers.

use super::norm::log_softmax;
use super::{Ctx, OpFn, Outputs, floats, index};
use crate::error::NodeError;
use crate::tensor::Tensor;

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "NegativeLogLikelihoodLoss" if opset >= 12 => |c| {
            let x = scores(c)?;
            Ok(vec![likelihood(c, &x)?])
        },
        "SoftmaxCrossEntropyLoss" if opset >= 12 => cross_entropy,
        _ => return None,
    })
}

/// `[batch, classes, positions...]`.
fn scores(ctx: &Ctx<'_>) -> Result<Vec<f64>, NodeError> {
    let x = ctx.input(0)?;
    if x.rank() < 2 || !x.dtype().is_float() {
        return Err(ctx.wrong_shape(0, "a batch and classes, of a floating-point type"));
    }
    Ok(x.to_f64())
}

fn cross_entropy(ctx: &Ctx<'_>) -> Outputs {
    let mut x = scores(ctx)?;
    let shape = ctx.input(0)?.shape();
    let classes = shape[1];
    let inner: usize = shape[2..].iter().product();
    let mut line = vec![0.0; classes];
    for start in (0..x.len()).filter(|place| (place / inner.max(1)).is_multiple_of(classes.max(1)))
    {
        for (i, to) in line.iter_mut().enumerate() {
            *to = x[start + i * inner];
        }
        log_softmax(&mut line);
        for (i, from) in line.iter().enumerate() {
            x[start + i * inner] = *from;
        }
    }
    let loss = likelihood(ctx, &x)?;
    let logs = floats(shape.to_vec(), &x, ctx.input(0)?.dtype())?;
    Ok(vec![loss, logs])
}

/// The weighted loss of each target, or their mean or sum.
fn likelihood(ctx: &Ctx<'_>, logs: &[f64]) -> Result<Tensor, NodeError> {
    let x = ctx.input(0)?;
    let target = ctx.input(1)?;
    let classes = x.shape()[1];
    let inner: usize = x.shape()[2..].iter().product();
    let mut expected = vec![x.shape()[0]];
    expected.extend(&x.shape()[2..]);
    if target.shape() != expected {
        return Err(ctx.wrong_shape(1, "the shape of the scores without the classes"));
    }
    let weights = match ctx.optional(2) {
        Some(weights) if weights.shape() != [classes] => {
            return Err(ctx.wrong_shape(2, "one number for each class"));
        }
        Some(weights) => weights.to_f64(),
        None => vec![1.0; classes],
    };
    let ignored = if ctx.has("ignore_index") {
        Some(ctx.int("ignore_index", 0)?)
    } else {
        None
    };
    let mut losses = Vec::with_capacity(target.len());
    let mut total = 0.0;
    for (place, label) in ctx.list(1)?.into_iter().enumerate() {
        if ignored == Some(label) {
            losses.push(0.0);
            continue;
        }
        let class = index(label, classes)?;
        let at = (place / inner * classes + class) * inner + place % inner;
        losses.push(-logs[at] * weights[class]);
        total += weights[class];
    }
    let dtype = x.dtype();
    match ctx.text("reduction", "mean")? {
        "none" => floats(expected, &losses, dtype),
        "sum" => floats(Vec::new(), &[losses.iter().sum()], dtype),
        "mean" => floats(Vec::new(), &[losses.iter().sum::<f64>() / total], dtype),
        other => Err(NodeError::Choice {
            name: "reduction".to_owned(),
            found: other.to_owned(),
        }),
    }
}
