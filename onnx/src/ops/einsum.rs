//! Einstein sums: products over named axes.

use super::{Ctx, OpFn, Outputs, floats, one};
use crate::error::NodeError;
use crate::tensor::{DType, Tensor};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    (op == "Einsum" && opset >= 12).then_some(einsum as OpFn)
}

/// An axis: a letter, or a place in the ellipsis counted from its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

fn wrong(equation: &str) -> NodeError {
    NodeError::Choice {
        name: "equation".to_owned(),
        found: equation.to_owned(),
    }
}

/// The labels of one term; `free` axes stand behind its ellipsis.
fn labels(term: &str, free: usize, equation: &str) -> Result<Vec<Label>, NodeError> {
    let mut list = Vec::new();
    let mut rest = term;
    let mut dotted = false;
    while let Some(letter) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            if dotted {
                return Err(wrong(equation));
            }
            dotted = true;
            list.extend((0..free).rev().map(Label::Ellipsis));
            rest = after;
        } else if letter.is_ascii_alphabetic() {
            list.push(Label::Letter(letter));
            rest = &rest[1..];
        } else {
            return Err(wrong(equation));
        }
    }
    Ok(list)
}

fn letters(term: &str) -> usize {
    term.chars().filter(char::is_ascii_alphabetic).count()
}

fn einsum(ctx: &Ctx<'_>) -> Outputs {
    let given = ctx.text("equation", "")?;
    let equation: String = given.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (&*equation, None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ctx.arity() {
        return Err(wrong(given));
    }
    let dtype = ctx.input(0)?.dtype();
    let mut axes: Vec<(Label, usize)> = Vec::new();
    let mut inputs = Vec::with_capacity(terms.len());
    for (input, term) in terms.iter().enumerate() {
        let x = ctx.input(input)?;
        if x.dtype() != dtype {
            return Err(NodeError::MixedTypes(dtype, x.dtype()));
        }
        let free = x.rank().checked_sub(letters(term));
        let free = free.ok_or_else(|| ctx.wrong_shape(input, "one axis for each letter"))?;
        let own = labels(term, free, given)?;
        if own.len() != x.rank() {
            return Err(ctx.wrong_shape(input, "one axis for each letter"));
        }
        for (&label, &size) in own.iter().zip(x.shape()) {
            match axes.iter_mut().find(|(known, _)| *known == label) {
                None => axes.push((label, size)),
                Some((_, known)) if *known == 1 => *known = size,
                Some((_, known)) if size == 1 || *known == size => {}
                Some(_) => return Err(ctx.wrong_shape(input, "one size for each letter")),
            }
        }
        inputs.push(own);
    }
    let dots: usize = axes
        .iter()
        .filter(|(label, _)| matches!(label, Label::Ellipsis(_)))
        .count();
    let kept = match right {
        Some(right) => labels(right, dots, given)?,
        // The ellipsis, then every letter that stands once, in alphabetic order.
        None => {
            let mut kept: Vec<Label> = (0..dots).rev().map(Label::Ellipsis).collect();
            let mut single: Vec<Label> = axes
                .iter()
                .map(|(label, _)| *label)
                .filter(|label| {
                    matches!(label, Label::Letter(_))
                        && inputs.iter().flatten().filter(|l| *l == label).count() == 1
                })
                .collect();
            single.sort_unstable();
            kept.extend(single);
            kept
        }
    };
    let size = |label: &Label| axes.iter().find(|(known, _)| known == label);
    let mut shape = Vec::with_capacity(kept.len());
    for (at, label) in kept.iter().enumerate() {
        let (_, size) = size(label).ok_or_else(|| wrong(given))?;
        if kept[..at].contains(label) {
            return Err(wrong(given));
        }
        shape.push(*size);
    }
    sum(ctx, &axes, &inputs, &kept, shape, dtype)
}

/// Every combination of the axes, the kept ones outermost.
fn sum(
    ctx: &Ctx<'_>,
    axes: &[(Label, usize)],
    inputs: &[Vec<Label>],
    kept: &[Label],
    shape: Vec<usize>,
    dtype: DType,
) -> Outputs {
    let mut order: Vec<(Label, usize)> = kept.iter().copied().zip(shape.iter().copied()).collect();
    order.extend(axes.iter().filter(|(label, _)| !kept.contains(label)));
    let sizes: Vec<usize> = order.iter().map(|(_, size)| *size).collect();
    // One step for each combination: bounds the time, too.
    ctx.work(&sizes)?;
    let inner: usize = sizes[kept.len()..].iter().product();
    let len = ctx.work(&shape)?;
    let mut steps = Vec::with_capacity(inputs.len());
    for (input, own) in inputs.iter().enumerate() {
        let x = ctx.input(input)?;
        let strides = super::strides(x.shape());
        let step = |label: &Label| -> usize {
            own.iter()
                .zip(&strides)
                .zip(x.shape())
                .filter(|((known, _), size)| *known == label && **size != 1)
                .map(|((_, stride), _)| stride)
                .sum()
        };
        steps.push(
            order
                .iter()
                .map(|(label, _)| step(label))
                .collect::<Vec<_>>(),
        );
    }
    let places = |number: usize, steps: &[usize]| -> usize {
        let mut rest = number;
        let mut place = 0;
        for (size, step) in sizes.iter().zip(steps).rev() {
            place += rest % size * step;
            rest /= size;
        }
        place
    };
    if dtype.is_float() {
        let values: Vec<Vec<f64>> = (0..inputs.len())
            .map(|input| Ok(ctx.input(input)?.to_f64()))
            .collect::<Result<_, NodeError>>()?;
        let y: Vec<f64> = (0..len)
            .map(|out| {
                (out * inner..(out + 1) * inner)
                    .map(|number| {
                        values
                            .iter()
                            .zip(&steps)
                            .map(|(v, steps)| v[places(number, steps)])
                            .product::<f64>()
                    })
                    .sum()
            })
            .collect();
        return one(floats(shape, &y, dtype)?);
    }
    let values: Vec<Vec<i64>> = (0..inputs.len())
        .map(|input| Ok(ctx.input(input)?.to_i64().unwrap_or_default()))
        .collect::<Result<_, NodeError>>()?;
    let y: Vec<i64> = (0..len)
        .map(|out| {
            (out * inner..(out + 1) * inner).fold(0_i64, |sum, number| {
                let product = values.iter().zip(&steps).fold(1_i64, |p, (v, steps)| {
                    p.wrapping_mul(v[places(number, steps)])
                });
                sum.wrapping_add(product)
            })
        })
        .collect();
    one(super::cast::convert(&Tensor::new(shape, y)?, dtype)?)
}
