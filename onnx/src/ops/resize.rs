//! Resizing by interpolation, one axis after the other.

use libm as m;

use super::{Ctx, OpFn, Outputs, axes, cast, floats, moves, one};
use crate::error::NodeError;
use crate::tensor::{DType, Tensor};

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    (op == "Resize" && opset >= 11).then_some(resize as OpFn)
}

/// How the numbers between elements are found.
#[derive(Clone, Copy)]
enum Mode<'a> {
    Nearest(&'a str),
    Linear,
    /// Keys 1981, with its parameter.
    Cubic(f64),
}

struct Plan<'a> {
    mode: Mode<'a>,
    coordinates: &'a str,
    antialias: bool,
    exclude_outside: bool,
    outside: f64,
}

/// One axis: from and to which size, by which factor, and the part that is cut out.
struct Line {
    from: usize,
    to: usize,
    scale: f64,
    part: [f64; 2],
}

fn choice<T>(name: &str, found: &str) -> Result<T, NodeError> {
    Err(NodeError::Choice {
        name: name.to_owned(),
        found: found.to_owned(),
    })
}

impl Plan<'_> {
    /// Where output element `i` lies among the input's.
    fn place(&self, line: &Line, i: usize) -> Result<f64, NodeError> {
        let (x, from, scale) = (i as f64, line.from as f64, line.scale);
        let exact = from * scale;
        let single = exact.total_cmp(&1.0).is_eq();
        let centred = (x + 0.5) / scale - 0.5;
        Ok(match self.coordinates {
            "half_pixel" => centred,
            "asymmetric" => x / scale,
            "align_corners" if single => 0.0,
            "align_corners" => x * (from - 1.0) / (exact - 1.0),
            "pytorch_half_pixel" if single => -0.5,
            "pytorch_half_pixel" => centred,
            "half_pixel_symmetric" => from / 2.0 * (1.0 - line.to as f64 / exact) + centred,
            "tf_crop_and_resize" => {
                let [start, end] = line.part;
                let width = (end - start) * (from - 1.0);
                let inside = if single {
                    width / 2.0
                } else {
                    x * width / (exact - 1.0)
                };
                inside + start * (from - 1.0)
            }
            other => return choice("coordinate_transformation_mode", other),
        })
    }

    /// The weights of a window and the place of its first element.
    fn weights(&self, at: f64, scale: f64) -> Result<(Vec<f64>, i64), NodeError> {
        let at = at.clamp(-1e12, 1e12);
        let floor = m::floor(at);
        // An element that is hit exactly is the right end of its window.
        let hit = at <= floor;
        let ratio = if hit { 1.0 } else { at - floor };
        let base = (floor as i64).saturating_sub(i64::from(hit));
        let shrink = if self.antialias { scale.min(1.0) } else { 1.0 };
        let wide = |reach: f64, f: &dyn Fn(f64) -> f64| {
            let start = m::floor(-reach / shrink) as i64 + 1;
            let mut list: Vec<f64> = (start..=1 - start)
                .map(|i| f((i as f64 - ratio) * shrink))
                .collect();
            let sum: f64 = list.iter().sum();
            if shrink < 1.0 {
                list.iter_mut().for_each(|x| *x /= sum);
            }
            (list, base + start)
        };
        Ok(match self.mode {
            Mode::Nearest(rule) => {
                let up = match rule {
                    "round_prefer_floor" => ratio > 0.5,
                    "round_prefer_ceil" => ratio >= 0.5,
                    "floor" => ratio >= 1.0,
                    "ceil" => true,
                    other => return choice("nearest_mode", other),
                };
                (vec![1.0], base + i64::from(up))
            }
            Mode::Linear => wide(1.0, &|x| (1.0 - x.abs()).max(0.0)),
            Mode::Cubic(a) => wide(2.0, &|x| {
                let x = x.abs();
                if x <= 1.0 {
                    ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
                } else {
                    0.0
                }
            }),
        })
    }

    /// Resizes the middle axis of `[outer, from, inner]`.
    fn run(&self, x: &[f64], inner: usize, line: &Line) -> Result<Vec<f64>, NodeError> {
        let outer = x.len() / (line.from * inner).max(1);
        let mut y = vec![0.0; outer * line.to * inner];
        for i in 0..line.to {
            let at = self.place(line, i)?;
            let cut = self.coordinates == "tf_crop_and_resize";
            let outside = cut && !(0.0..=(line.from - 1) as f64).contains(&at);
            let (mut weights, first) = self.weights(at, line.scale)?;
            if self.exclude_outside {
                for (k, weight) in weights.iter_mut().enumerate() {
                    if !(0..line.from as i64).contains(&(first + k as i64)) {
                        *weight = 0.0;
                    }
                }
                let sum: f64 = weights.iter().sum();
                if sum != 0.0 {
                    weights.iter_mut().for_each(|weight| *weight /= sum);
                }
            }
            for row in 0..outer {
                let to = &mut y[(row * line.to + i) * inner..][..inner];
                if outside {
                    to.fill(self.outside);
                    continue;
                }
                for (k, weight) in weights.iter().enumerate() {
                    let from = (first + k as i64).clamp(0, line.from as i64 - 1) as usize;
                    let from = &x[(row * line.from + from) * inner..][..inner];
                    for (to, from) in to.iter_mut().zip(from) {
                        *to += weight * from;
                    }
                }
            }
        }
        Ok(y)
    }
}

/// The factor and size of each of the given axes.
fn targets(ctx: &Ctx<'_>, x: &Tensor, which: &[usize]) -> Result<Vec<(f64, usize)>, NodeError> {
    if let Some(scales) = ctx.optional(2).filter(|scales| !scales.is_empty()) {
        let scales = scales.to_f64();
        if scales.len() != which.len() || scales.iter().any(|s| s.is_nan() || *s <= 0.0) {
            return Err(ctx.wrong_shape(2, "one positive number for each axis"));
        }
        let size = |(&scale, &at): (&f64, &usize)| {
            (scale, m::floor(scale * x.shape()[at] as f64) as usize)
        };
        return Ok(scales.iter().zip(which).map(size).collect());
    }
    let sizes = moves::sizes(&ctx.list(3)?, "a size")?;
    if sizes.len() != which.len() {
        return Err(ctx.wrong_shape(3, "one size for each axis"));
    }
    let scales: Vec<f64> = sizes
        .iter()
        .zip(which)
        .map(|(&size, &at)| size as f64 / x.shape()[at] as f64)
        .collect();
    let policy = ctx.text("keep_aspect_ratio_policy", "stretch")?;
    let scale = match policy {
        "stretch" => return Ok(scales.into_iter().zip(sizes).collect()),
        "not_larger" => scales.iter().copied().fold(f64::INFINITY, f64::min),
        "not_smaller" => scales.iter().copied().fold(0.0, f64::max),
        other => return choice("keep_aspect_ratio_policy", other),
    };
    let size = |&at: &usize| (scale, (scale * x.shape()[at] as f64 + 0.5) as usize);
    Ok(which.iter().map(size).collect())
}

fn resize(ctx: &Ctx<'_>) -> Outputs {
    let x = ctx.input(0)?;
    if x.dtype() == DType::Bool {
        return Err(ctx.wrong_type(0, "a number type"));
    }
    let which = match ctx.ints("axes")? {
        Some(list) => axes(list, x.rank())?,
        None => (0..x.rank()).collect(),
    };
    let mode = match ctx.text("mode", "nearest")? {
        "nearest" => Mode::Nearest(ctx.text("nearest_mode", "round_prefer_floor")?),
        "linear" => Mode::Linear,
        "cubic" => Mode::Cubic(f64::from(ctx.float("cubic_coeff_a", -0.75)?)),
        other => return choice("mode", other),
    };
    let plan = Plan {
        mode,
        coordinates: ctx.text("coordinate_transformation_mode", "half_pixel")?,
        antialias: ctx.flag("antialias", false)?,
        exclude_outside: ctx.flag("exclude_outside", false)?,
        outside: f64::from(ctx.float("extrapolation_value", 0.0)?),
    };
    let cut = plan.coordinates == "tf_crop_and_resize";
    let parts = match ctx.optional(1) {
        Some(parts) if cut => parts.to_f64(),
        _ => Vec::new(),
    };
    if cut && parts.len() != 2 * which.len() {
        return Err(ctx.wrong_shape(1, "a start and an end for each axis"));
    }
    let targets = targets(ctx, x, &which)?;
    // Every shape on the way must be within the limits, and every window within reach.
    let mut shape = x.shape().to_vec();
    for (&at, &(scale, to)) in which.iter().zip(&targets) {
        if shape[at] == 0 || (plan.antialias && scale < 1e-6) {
            return Err(ctx.wrong_shape(0, "sizes of at least 1 and scales that are not tiny"));
        }
        shape[at] = to;
        ctx.work(&shape)?;
    }
    let mut values = x.to_f64();
    let mut shape = x.shape().to_vec();
    for (i, (&at, &(scale, to))) in which.iter().zip(&targets).enumerate() {
        let part = if cut {
            [parts[i], parts[i + which.len()]]
        } else {
            [0.0, 1.0]
        };
        let line = Line {
            from: shape[at],
            to,
            scale,
            part,
        };
        let inner: usize = shape[at + 1..].iter().product();
        values = plan.run(&values, inner, &line)?;
        shape[at] = to;
    }
    if x.dtype().is_float() {
        return one(floats(shape, &values, x.dtype())?);
    }
    let whole = floats(shape, &values, DType::F64)?;
    one(cast::convert(&whole, x.dtype())?)
}
