//! Recurrent layers: `RNN`, `GRU` and `LSTM`, computed in `f64` and rounded once.
//!
//! # Source
//! The equations of the operators' specifications; Cho et al. 2014, arXiv:1406.1078 (GRU);
//! Hochreiter & Schmidhuber 1997 with the peepholes of Gers et al. 2002 (LSTM).

use libm as m;

use super::unary::sigmoid;
use super::{Ctx, OpFn, Outputs, floats, moves, transpose};
use crate::error::NodeError;
use crate::tensor::Tensor;

pub(super) fn find(op: &str, opset: i64) -> Option<OpFn> {
    Some(match op {
        "RNN" if opset >= 7 => |c| run(c, Cell::Rnn),
        "GRU" if opset >= 7 => |c| run(c, Cell::Gru),
        "LSTM" if opset >= 7 => |c| run(c, Cell::Lstm),
        _ => return None,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Rnn,
    Gru,
    Lstm,
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }

    /// Default activations of one direction.
    fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru => &["Sigmoid", "Tanh"],
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

type Function = Box<dyn Fn(f64) -> f64>;

/// The activations of all directions, one behind the other.
fn activations(ctx: &Ctx<'_>, cell: Cell, directions: usize) -> Result<Vec<Function>, NodeError> {
    let each = cell.activations();
    let names: Vec<String> = match ctx.texts("activations")? {
        Some(names) => names.to_vec(),
        None => (0..directions)
            .flat_map(|_| each.iter().map(|name| (*name).to_owned()))
            .collect(),
    };
    if names.len() != each.len() * directions {
        return Err(NodeError::Attribute {
            name: "activations".to_owned(),
            expected: "list of one name for each function and direction",
        });
    }
    // Parameters are given, in order, for the functions that have any.
    let mut alphas = ctx.floats("activation_alpha")?.unwrap_or(&[]).iter();
    let mut betas = ctx.floats("activation_beta")?.unwrap_or(&[]).iter();
    names
        .iter()
        .map(|name| {
            let mut alpha = |default: f32| f64::from(alphas.next().copied().unwrap_or(default));
            let mut beta = |default: f32| f64::from(betas.next().copied().unwrap_or(default));
            let function: Function = match &*name.to_ascii_lowercase() {
                "sigmoid" => Box::new(sigmoid),
                "tanh" => Box::new(m::tanh),
                "relu" => Box::new(|x: f64| x.max(0.0)),
                "affine" => {
                    let (a, b) = (alpha(1.0), beta(0.0));
                    Box::new(move |x| a * x + b)
                }
                "leakyrelu" => {
                    let a = alpha(0.01);
                    Box::new(move |x| if x < 0.0 { a * x } else { x })
                }
                "hardsigmoid" => {
                    let (a, b) = (alpha(0.2), beta(0.5));
                    Box::new(move |x: f64| (a * x + b).clamp(0.0, 1.0))
                }
                "elu" => {
                    let a = alpha(1.0);
                    Box::new(move |x| if x < 0.0 { a * m::expm1(x) } else { x })
                }
                "softsign" => Box::new(|x: f64| x / (1.0 + x.abs())),
                "softplus" => Box::new(|x: f64| x.max(0.0) + m::log1p(m::exp(-x.abs()))),
                _ => {
                    return Err(NodeError::Choice {
                        name: "activations".to_owned(),
                        found: name.clone(),
                    });
                }
            };
            Ok(function)
        })
        .collect()
}

/// The sizes and parameters of a layer.
struct Layer<'a> {
    cell: Cell,
    batch: usize,
    inputs: usize,
    hidden: usize,
    clip: f64,
    reset_after: bool,
    functions: &'a [Function],
    w: &'a [f64],
    r: &'a [f64],
    /// Input's biases, then the recurrence's.
    b: &'a [f64],
    /// Peepholes of input, output and forget gate.
    p: &'a [f64],
}

fn parameter(ctx: &Ctx<'_>, input: usize, shape: &[usize]) -> Result<Vec<f64>, NodeError> {
    match ctx.optional(input) {
        Some(tensor) if tensor.shape() != shape => {
            Err(ctx.wrong_shape(input, "the shape of the layer"))
        }
        Some(tensor) => Ok(tensor.to_f64()),
        None => Ok(vec![0.0; ctx.work(shape)?]),
    }
}

fn run(ctx: &Ctx<'_>, cell: Cell) -> Outputs {
    let x = ctx.input(0)?;
    let dtype = x.dtype();
    if x.rank() != 3 || !dtype.is_float() {
        return Err(ctx.wrong_shape(0, "rank 3, of a floating-point type"));
    }
    let batch_first = ctx.flag("layout", false)?;
    let swap = |tensor: &Tensor| transpose(ctx, tensor, &[1, 0, 2]);
    let x = if batch_first { swap(x)? } else { x.clone() };
    let &[steps, batch, inputs] = x.shape() else {
        return Err(ctx.wrong_shape(0, "rank 3"));
    };
    let (directions, reversed): (usize, [bool; 2]) = match ctx.text("direction", "forward")? {
        "forward" => (1, [false, false]),
        "reverse" => (1, [true, false]),
        "bidirectional" => (2, [false, true]),
        other => {
            return Err(NodeError::Choice {
                name: "direction".to_owned(),
                found: other.to_owned(),
            });
        }
    };
    let gates = cell.gates();
    ctx.input(1)?;
    let Some(&hidden) = ctx.input(2)?.shape().last() else {
        return Err(ctx.wrong_shape(2, "rank 3"));
    };
    if ctx.flag("input_forget", false)? {
        return Err(NodeError::Unsupported("coupled input and forget gates"));
    }
    let wide = gates.saturating_mul(hidden);
    let w = parameter(ctx, 1, &[directions, wide, inputs])?;
    let r = parameter(ctx, 2, &[directions, wide, hidden])?;
    let b = parameter(ctx, 3, &[directions, wide.saturating_mul(2)])?;
    let lstm = cell == Cell::Lstm;
    let p = if lstm {
        parameter(ctx, 7, &[directions, 3 * hidden])?
    } else {
        Vec::new()
    };
    let lengths = match ctx.optional(4) {
        Some(_) => moves::sizes(&ctx.list(4)?, "a sequence length")?,
        None => vec![steps; batch],
    };
    if lengths.len() != batch || lengths.iter().any(|&len| len > steps) {
        return Err(ctx.wrong_shape(4, "one length within the sequence for each row"));
    }
    let start = |input: usize| -> Result<Vec<f64>, NodeError> {
        let shape = if batch_first {
            [batch, directions, hidden]
        } else {
            [directions, batch, hidden]
        };
        let values = parameter(ctx, input, &shape)?;
        if batch_first {
            let tensor = Tensor::new(shape.to_vec(), values)?;
            return Ok(swap(&tensor)?.to_f64());
        }
        Ok(values)
    };
    let mut h = start(5)?;
    let mut c = if lstm { start(6)? } else { vec![0.0; h.len()] };
    let clip = if ctx.has("clip") {
        f64::from(ctx.float("clip", 0.0)?).abs()
    } else {
        f64::INFINITY
    };
    let functions = activations(ctx, cell, directions)?;
    let each = cell.activations().len();
    let mut y = vec![0.0; ctx.work(&[steps, directions, batch, hidden])?];
    let x = x.to_f64();
    let part = |all: &[f64], len: usize, direction: usize| -> std::ops::Range<usize> {
        debug_assert!(all.len() >= len * (direction + 1) || len == 0);
        direction * len..(direction + 1) * len
    };
    for direction in 0..directions {
        let layer = Layer {
            cell,
            batch,
            inputs,
            hidden,
            clip,
            reset_after: ctx.flag("linear_before_reset", false)?,
            functions: &functions[direction * each..(direction + 1) * each],
            w: &w[part(&w, wide * inputs, direction)],
            r: &r[part(&r, wide * hidden, direction)],
            b: &b[part(&b, 2 * wide, direction)],
            p: if lstm {
                &p[part(&p, 3 * hidden, direction)]
            } else {
                &[]
            },
        };
        let state = direction * batch * hidden..(direction + 1) * batch * hidden;
        let (h, c) = (&mut h[state.clone()], &mut c[state]);
        for row in 0..batch {
            let len = lengths[row];
            for now in 0..len {
                let at = if reversed[direction] {
                    len - 1 - now
                } else {
                    now
                };
                let x = &x[(at * layer.batch + row) * layer.inputs..][..layer.inputs];
                let own = row * hidden..(row + 1) * hidden;
                layer.step(x, &mut h[own.clone()], &mut c[own.clone()]);
                let to = ((at * directions + direction) * batch + row) * hidden;
                y[to..to + hidden].copy_from_slice(&h[own]);
            }
        }
    }
    let mut all = floats(vec![steps, directions, batch, hidden], &y, dtype)?;
    let mut last = vec![floats(vec![directions, batch, hidden], &h, dtype)?];
    if lstm {
        last.push(floats(vec![directions, batch, hidden], &c, dtype)?);
    }
    if batch_first {
        all = transpose(ctx, &all, &[2, 0, 1, 3])?;
        last = last.iter().map(swap).collect::<Result<_, _>>()?;
    }
    last.insert(0, all);
    Ok(last)
}

impl Layer<'_> {
    /// `W[gate] x + R[gate] h` of one unit, with the biases of either side apart.
    fn sums(&self, gate: usize, unit: usize, x: &[f64], h: &[f64]) -> [f64; 2] {
        let line = gate * self.hidden + unit;
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let wide = self.cell.gates() * self.hidden;
        [
            dot(&self.w[line * self.inputs..(line + 1) * self.inputs], x) + self.b[line],
            dot(&self.r[line * self.hidden..(line + 1) * self.hidden], h) + self.b[wide + line],
        ]
    }

    fn clipped(&self, x: f64) -> f64 {
        x.max(-self.clip).min(self.clip)
    }

    fn step(&self, x: &[f64], h: &mut [f64], c: &mut [f64]) {
        let f = self.functions;
        let units = 0..self.hidden;
        let gate = |number: usize, unit: usize, h: &[f64], extra: f64| -> f64 {
            let [a, b] = self.sums(number, unit, x, h);
            self.clipped(a + b + extra)
        };
        let next: Vec<f64> = match self.cell {
            Cell::Rnn => units.map(|unit| f[0](gate(0, unit, h, 0.0))).collect(),
            Cell::Gru => {
                let update: Vec<f64> = units
                    .clone()
                    .map(|unit| f[0](gate(0, unit, h, 0.0)))
                    .collect();
                let reset: Vec<f64> = units
                    .clone()
                    .map(|unit| f[0](gate(1, unit, h, 0.0)))
                    .collect();
                let faded: Vec<f64> = reset.iter().zip(&*h).map(|(r, h)| r * h).collect();
                units
                    .map(|unit| {
                        let new = if self.reset_after {
                            let [a, b] = self.sums(2, unit, x, h);
                            f[1](self.clipped(a + reset[unit] * b))
                        } else {
                            f[1](gate(2, unit, &faded, 0.0))
                        };
                        (1.0 - update[unit]) * new + update[unit] * h[unit]
                    })
                    .collect()
            }
            Cell::Lstm => {
                let hole = |number: usize, unit: usize| self.p[number * self.hidden + unit];
                units
                    .map(|unit| {
                        let i = f[0](gate(0, unit, h, hole(0, unit) * c[unit]));
                        let forget = f[0](gate(2, unit, h, hole(2, unit) * c[unit]));
                        let new = f[1](gate(3, unit, h, 0.0));
                        c[unit] = forget * c[unit] + i * new;
                        let o = f[0](gate(1, unit, h, hole(1, unit) * c[unit]));
                        o * f[2](c[unit])
                    })
                    .collect()
            }
        };
        h.copy_from_slice(&next);
    }
}
