//! Programs in integers against an executor of plain loops with 64-bit sums.

use std::collections::BTreeMap;
use std::sync::Arc;

use fl_core::{InputSpec, TargetSpec};
use fl_edge::graph::{Function, Op, Unit, fold_batch_norm, units};
use fl_edge::kernel::{Activation, Cell, Fused, Kernels};
use fl_edge::quant::{Float, Granularity, QParams, Quantization, Range, lower_product};
use fl_edge::{LayersDef, Model, ModelDef, Numerics, Passes, Program, ProgramError, Runner};
use proptest::prelude::*;

use crate::common::{Case, Synthetic, operators};
use crate::program::{bits, inputs, outputs, trained, zoo};

/// Ranges of all points, as seen on the data.
fn ranges(
    case: &Case,
    parameters: &[f32],
    data: &Synthetic,
    rows: usize,
) -> BTreeMap<String, Range> {
    let program = Program::compile(&case.model, parameters, &Numerics::F32, Passes::OBSERVED);
    let program = Arc::new(program.expect("compiles"));
    let mut logits = vec![0.0; rows * program.output_len()];
    let mut ranges = BTreeMap::<String, Range>::new();
    Runner::new(program, 2).run_observed(inputs(data), &mut logits, &mut |name, values| {
        let seen = Range { min: 0.0, max: 0.0 };
        let range = ranges.entry(name.to_owned()).or_insert(seen);
        for &value in values {
            range.min = range.min.min(value);
            range.max = range.max.max(value);
        }
    });
    ranges
}

fn quantization(case: &Case, parameters: &[f32], data: &Synthetic, rows: usize) -> Quantization {
    let ranges = ranges(case, parameters, data, rows);
    let ranges = ranges.iter().map(|(name, range)| (name.as_str(), *range));
    Quantization::from_ranges(ranges, Granularity::Channel)
}

fn rne(x: f32) -> i64 {
    x.round_ties_even() as i64
}

/// The bounds of a clamp.
fn bounds(point: QParams, clamp: Fused) -> [i64; 2] {
    match clamp {
        Fused::None => [0, 255],
        Fused::Relu => [i64::from(point.zero_point()), 255],
        Fused::Relu6 => [
            i64::from(point.zero_point()),
            i64::from(point.quantize(6.0)),
        ],
    }
}

/// One example through the units.
struct Reference<'a> {
    model: &'a Model,
    parameters: &'a [f32],
    quantization: &'a Quantization,
    /// Integers and what they stand for, by the name of the root value.
    values: BTreeMap<usize, (Vec<u8>, QParams)>,
}

impl Reference<'_> {
    fn point(&self, value: usize) -> QParams {
        let name = &self.model.graph().values[value].name;
        self.quantization.point(name).expect("a point")
    }

    fn tensor(&self, tensor: usize) -> &[f32] {
        &self.parameters[self.model.layout().tensors()[tensor].range()]
    }

    fn value(&self, value: usize) -> (Vec<u8>, QParams) {
        self.values[&self.model.graph().values[value].root].clone()
    }

    fn set(&mut self, value: usize, integers: Vec<u8>, point: QParams) {
        let root = self.model.graph().values[value].root;
        self.values.insert(root, (integers, point));
    }

    fn product(&self, unit: &Unit) -> Vec<u8> {
        let node = &self.model.graph().nodes[unit.node];
        let (x, from) = self.value(node.input);
        let to = self.point(unit.own);
        let (Op::Dense { weight, bias, .. } | Op::Conv { weight, bias, .. }) = node.op else {
            panic!("no product");
        };
        let (mut weight, mut bias) = (
            self.tensor(weight).to_vec(),
            bias.map(|bias| self.tensor(bias).to_vec()),
        );
        if let Some(norm) = unit.norm {
            let Op::BatchNorm {
                scale,
                shift,
                mean,
                variance,
                epsilon,
                ..
            } = self.model.graph().nodes[norm].op
            else {
                panic!("no normalisation");
            };
            let [scale, shift, mean, variance] =
                [scale, shift, mean, variance].map(|tensor| self.tensor(tensor));
            let (folded, shifted) = fold_batch_norm(
                &weight,
                bias.as_deref(),
                scale,
                shift,
                mean,
                variance,
                epsilon,
            );
            (weight, bias) = (folded, Some(shifted));
        }
        let columns = *self.model.graph().values[unit.own]
            .shape
            .last()
            .expect("a shape");
        let granularity = self.quantization.granularity;
        let l = lower_product(&weight, bias.as_deref(), columns, from, to, granularity);
        let [low, high] = bounds(to, unit.clamp);
        let end = |acc: i64, column: usize| {
            let m = l.multipliers[column % l.multipliers.len()];
            (rne(acc as f32 * m) + i64::from(to.zero_point())).clamp(low, high) as u8
        };
        let zero = i64::from(from.zero_point());
        let mut y = Vec::new();
        match &node.op {
            Op::Dense { geometry, .. } => {
                for column in 0..columns {
                    let mut acc = i64::from(l.bias[column]);
                    for (input, &x) in x.iter().enumerate().take(geometry.inputs) {
                        let w = l.weight[input * columns + column];
                        acc += (i64::from(x) - zero) * i64::from(w);
                    }
                    y.push(end(acc, column));
                }
            }
            Op::Conv { geometry, .. } => {
                let s = geometry.shape();
                let (group_in, group_out) = (s.channels / s.groups, s.filters / s.groups);
                for oh in 0..geometry.out_height() {
                    for ow in 0..geometry.out_width() {
                        for filter in 0..s.filters {
                            let mut acc = i64::from(l.bias[filter]);
                            for kh in 0..s.kernel[0] {
                                for kw in 0..s.kernel[1] {
                                    let h = (oh * s.stride[0] + kh).wrapping_sub(s.padding.top);
                                    let w = (ow * s.stride[1] + kw).wrapping_sub(s.padding.left);
                                    if h >= s.height || w >= s.width {
                                        continue;
                                    }
                                    for channel in 0..group_in {
                                        let from = filter / group_out * group_in + channel;
                                        let x = x[(h * s.width + w) * s.channels + from];
                                        let at = ((kh * s.kernel[1] + kw) * group_in + channel)
                                            * s.filters
                                            + filter;
                                        acc += (i64::from(x) - zero) * i64::from(l.weight[at]);
                                    }
                                }
                            }
                            y.push(end(acc, filter));
                        }
                    }
                }
            }
            _ => unreachable!("no product"),
        }
        y
    }

    fn add(&self, one: usize, other: usize, sum: usize, clamp: Fused) -> (Vec<u8>, QParams) {
        let ((x, p), (z, q)) = (self.value(one), self.value(other));
        let to = self.point(sum);
        let (a, b) = (p.scale() / to.scale(), q.scale() / to.scale());
        let [low, high] = bounds(to, clamp);
        let zeros = a.mul_add(f32::from(p.zero_point()), b * f32::from(q.zero_point()));
        let fixed = f32::from(to.zero_point()) - zeros;
        let add = |(x, z): (&u8, &u8)| {
            let sum = f32::from(*x).mul_add(a, f32::from(*z).mul_add(b, fixed));
            rne(sum).clamp(low, high) as u8
        };
        (x.iter().zip(&z).map(add).collect(), to)
    }

    /// A recurrent layer by its formulas: the state at its output's point, the product in integers.
    fn recurrent(
        &self,
        (cell, units): (Cell, usize),
        state: QParams,
        gates: &[f32],
        weight: &[f32],
        bias: &[f32],
    ) -> Vec<f32> {
        let width = cell.gates() * units;
        let zero = i64::from(state.zero_point());
        let granularity = self.quantization.granularity;
        let l = lower_product(weight, None, width, state, state, granularity);
        let of = |f, x: f32| {
            let mut y = [x];
            Kernels::best().activate_in_place(f, &mut y);
            y[0]
        };
        let (mut h, mut c, mut y) = (vec![0.0f32; units], vec![0.0f32; units], Vec::new());
        for x in gates.chunks_exact(width) {
            let codes = h.iter().map(|&h| i64::from(state.quantize(h)) - zero);
            let codes = codes.collect::<Vec<_>>();
            let sum = |gate: usize, unit: usize| {
                let column = gate * units + unit;
                let terms = codes.iter().enumerate();
                let acc = terms.map(|(at, q)| q * i64::from(l.weight[at * width + column]));
                let scale = l.accumulator_scales[column % l.accumulator_scales.len()];
                acc.sum::<i64>() as f32 * scale
            };
            let next = (0..units).map(|unit| {
                let x = |gate: usize| x[gate * units + unit];
                let gate = |gate| of(Activation::Sigmoid, x(gate) + sum(gate, unit));
                match cell {
                    Cell::Lstm => {
                        let fresh = of(Activation::Tanh, x(3) + sum(3, unit));
                        c[unit] = gate(2).mul_add(c[unit], gate(0) * fresh);
                        gate(1) * of(Activation::Tanh, c[unit])
                    }
                    Cell::Gru => {
                        let q = sum(2, unit) + bias[unit];
                        let fresh = of(Activation::Tanh, gate(1).mul_add(q, x(2)));
                        gate(0).mul_add(h[unit] - fresh, fresh)
                    }
                }
            });
            h = next.collect();
            y.extend_from_slice(&h);
        }
        y
    }

    fn unit(&mut self, unit: &Unit, tokens: &[u32]) {
        let graph = self.model.graph();
        let node = &graph.nodes[unit.node];
        let channels = *graph.values[unit.own].shape.last().expect("a shape");
        match &node.op {
            Op::Dense { .. } | Op::Conv { .. } => {
                let y = self.product(unit);
                self.set(unit.own, y, self.point(unit.own));
                if let Some(residual) = &unit.residual {
                    let add = &graph.nodes[residual.node];
                    let Op::Add { other } = add.op else {
                        panic!("no addition");
                    };
                    let (y, to) = self.add(add.input, other, unit.output, residual.clamp);
                    self.set(unit.output, y, to);
                }
                return;
            }
            Op::Add { other } => {
                let (y, to) = self.add(node.input, *other, unit.own, unit.clamp);
                return self.set(unit.own, y, to);
            }
            Op::Embedding { table, size } => {
                let to = self.point(unit.own);
                let rows = tokens.iter().flat_map(|&token| {
                    self.tensor(*table)[token as usize * size..][..*size].to_vec()
                });
                let y = rows.map(|x| to.quantize(x)).collect();
                return self.set(unit.own, y, to);
            }
            _ => {}
        }
        let (x, from) = self.value(node.input);
        let zero = i64::from(from.zero_point());
        // The mean of all of a channel's integers, and of a window's: as onnxruntime rounds them.
        let mean = |integers: &[u8], to: QParams| {
            let sum = integers.iter().map(|&x| i64::from(x)).sum::<i64>();
            let count = integers.len();
            let m = from.scale() / (to.scale() * count as f32);
            let steps = rne((sum - count as i64 * zero) as f32 * m);
            (steps + i64::from(to.zero_point())).clamp(0, 255) as u8
        };
        let mean_of_window = |integers: &[u8], to: QParams| {
            let numbers = integers.iter().map(|&x| from.dequantize(x));
            let sum = numbers.fold(0.0f32, |sum, x| sum + x);
            let steps = sum / integers.len() as f32 / to.scale() + f32::from(to.zero_point());
            rne(steps).clamp(0, 255) as u8
        };
        let (y, to) = match &node.op {
            Op::MaxPool(p) | Op::AvgPool(p) => {
                let [height, width] = image(&graph.values[node.input].shape);
                let maximum = matches!(node.op, Op::MaxPool(_));
                let to = match maximum {
                    true => from,
                    false => self.point(unit.own),
                };
                let mut y = Vec::new();
                for oh in 0..p.out_height() {
                    for ow in 0..p.out_width() {
                        for channel in 0..channels {
                            let mut window = Vec::new();
                            for kh in 0..p.kernel()[0] {
                                for kw in 0..p.kernel()[1] {
                                    let h = (oh * p.stride()[0] + kh).wrapping_sub(p.padding().top);
                                    let w =
                                        (ow * p.stride()[1] + kw).wrapping_sub(p.padding().left);
                                    if h < height && w < width {
                                        window.push(x[(h * width + w) * channels + channel]);
                                    }
                                }
                            }
                            y.push(match maximum {
                                true => *window.iter().max().expect("not empty"),
                                false => mean_of_window(&window, to),
                            });
                        }
                    }
                }
                (y, to)
            }
            Op::GlobalAvgPool { .. } => {
                let to = self.point(unit.own);
                let column = |channel: usize| {
                    let column = x.iter().skip(channel).step_by(channels);
                    mean(&column.copied().collect::<Vec<_>>(), to)
                };
                ((0..channels).map(column).collect(), to)
            }
            Op::Function(function @ (Function::Relu | Function::Relu6)) => {
                let clamp = match function {
                    Function::Relu => Fused::Relu,
                    _ => Fused::Relu6,
                };
                let [low, high] = bounds(from, clamp);
                let y = x.iter().map(|&x| i64::from(x).clamp(low, high) as u8);
                (y.collect(), from)
            }
            Op::Function(function) => {
                let to = self.point(unit.own);
                // The functions themselves are tested with the float kernels.
                let f = match *function {
                    Function::LeakyRelu { slope } => Activation::Leaky { slope },
                    Function::Gelu => Activation::Gelu,
                    Function::Tanh => Activation::Tanh,
                    Function::Sigmoid => Activation::Sigmoid,
                    Function::Relu | Function::Relu6 => unreachable!("above"),
                };
                let mut real = x.iter().map(|&x| from.dequantize(x)).collect::<Vec<_>>();
                Kernels::best().activate_in_place(f, &mut real);
                let y = real.iter().map(|&y| to.quantize(y));
                (y.collect(), to)
            }
            Op::Dropout { .. } => (x, from),
            Op::Last { .. } => (x[x.len() - channels..].to_vec(), from),
            Op::Recurrent {
                geometry,
                weight,
                bias,
            } => {
                let to = self.point(unit.own);
                let gates = x.iter().map(|&x| from.dequantize(x)).collect::<Vec<_>>();
                let bias = bias.map_or(&[][..], |bias| self.tensor(bias));
                let shape = (geometry.cell(), geometry.units());
                let y = self.recurrent(shape, to, &gates, self.tensor(*weight), bias);
                (y.iter().map(|&y| to.quantize(y)).collect(), to)
            }
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                let to = self.point(unit.own);
                let (gamma, beta) = (self.tensor(*scale), self.tensor(*shift));
                let channels = geometry.channels();
                let width = channels / geometry.groups();
                let [low, high] = bounds(to, unit.clamp);
                let mut y = vec![0; x.len()];
                for group in 0..geometry.groups() {
                    let members = (0..x.len()).filter(|at| at % channels / width == group);
                    let members = members.collect::<Vec<_>>();
                    let count = members.len() as f64;
                    let sum = members.iter().map(|&at| i128::from(x[at])).sum::<i128>();
                    let squares = members
                        .iter()
                        .map(|&at| i128::from(x[at]).pow(2))
                        .sum::<i128>();
                    let spread = squares * members.len() as i128 - sum * sum;
                    let mean = sum as f64 / count;
                    let (s, out) = (f64::from(from.scale()), f64::from(to.scale()));
                    let variance = s * s * (spread as f64 / (count * count));
                    let root = libm::sqrt(variance + f64::from(geometry.epsilon()));
                    for at in members {
                        let channel = at % channels;
                        let a = f64::from(gamma[channel]) * (s / root) / out;
                        let b =
                            f64::from(beta[channel]) / out - mean * a + f64::from(to.zero_point());
                        let steps = f32::from(x[at]) * a as f32 + b as f32;
                        y[at] = rne(steps).clamp(low, high) as u8;
                    }
                }
                (y, to)
            }
            Op::BatchNorm {
                scale,
                shift,
                mean,
                variance,
                epsilon,
                ..
            } => {
                let to = self.point(unit.own);
                let [low, high] = bounds(to, unit.clamp);
                let all = [scale, shift, mean, variance].map(|tensor| self.tensor(*tensor));
                let map = |(at, &x): (usize, &u8)| {
                    let [gamma, beta, mean, variance] =
                        all.map(|values| f64::from(values[at % channels]));
                    let factor = gamma / libm::sqrt(variance.max(0.0) + f64::from(*epsilon));
                    let (s, out) = (f64::from(from.scale()), f64::from(to.scale()));
                    let a = factor * s / out;
                    let b = (beta - (mean + s * zero as f64) * factor) / out
                        + f64::from(to.zero_point());
                    rne(f32::from(x) * a as f32 + b as f32).clamp(low, high) as u8
                };
                (x.iter().enumerate().map(map).collect(), to)
            }
            _ => unreachable!("above"),
        };
        self.set(unit.own, y, to);
    }
}

fn image(shape: &[usize]) -> [usize; 2] {
    match *shape {
        [height, width, _] => [height, width],
        [length, _] => [length, 1],
        _ => panic!("no image"),
    }
}

/// The outputs of the executor for one example.
fn reference(
    case: &Case,
    parameters: &[f32],
    quantization: &Quantization,
    data: &Synthetic,
    row: usize,
) -> Vec<f32> {
    let graph = case.model.graph();
    let len = case.model.input().len();
    let mut reference = Reference {
        model: &case.model,
        parameters,
        quantization,
        values: BTreeMap::new(),
    };
    let mut tokens: &[u32] = &[];
    if data.tokens.is_empty() {
        let point = reference.point(0);
        let x = data.reals[row * len..][..len].iter();
        reference.set(0, x.map(|&x| point.quantize(x)).collect(), point);
    } else {
        tokens = &data.tokens[row * len..][..len];
    }
    for unit in units(graph) {
        reference.unit(&unit, tokens);
    }
    let (y, point) = reference.value(graph.output);
    y.iter().map(|&y| point.dequantize(y)).collect()
}

const ROWS: usize = 3;

/// Exact, whatever is fused, with all kernels and all ways to cut a batch.
fn check(case: &Case, granularity: Granularity) {
    let name = case.name;
    let (data, parameters) = (case.data(ROWS), trained(&case.model));
    let mut quantization = quantization(case, &parameters, &data, ROWS);
    quantization.granularity = granularity;
    let numerics = Numerics::Int8(quantization.clone());
    let compile = |passes| {
        let program = Program::compile(&case.model, &parameters, &numerics, passes);
        Arc::new(program.expect("compiles"))
    };
    let all = compile(Passes::ALL);
    let first = outputs(&all, &data, ROWS, ROWS, Kernels::best());
    for (row, found) in first.chunks(all.output_len()).enumerate() {
        let expected = reference(case, &parameters, &quantization, &data, row);
        assert_eq!(bits(found), bits(&expected), "{name}: example {row}");
    }
    for passes in Passes::combinations() {
        let program = compile(passes);
        let found = outputs(&program, &data, ROWS, 2, Kernels::best());
        assert_eq!(bits(&found), bits(&first), "{name}: {passes:?}");
    }
    for kernels in Kernels::all_available() {
        let found = outputs(&all, &data, ROWS, 1, kernels);
        assert_eq!(bits(&found), bits(&first), "{name}: {}", kernels.name());
    }
    let again =
        Program::from_constants(&case.model, all.constants().clone(), &numerics, Passes::ALL);
    let again = Arc::new(again.expect("fits"));
    let found = outputs(&again, &data, ROWS, ROWS, Kernels::best());
    assert_eq!(bits(&found), bits(&first), "{name}: from constants");
}

/// Whether the executor knows every layer: not those that stay in floats as they are.
fn is_known(case: &Case) -> bool {
    let graph = case.model.graph();
    let along = |value: usize| graph.values[value].shape.len() == 2;
    !graph.nodes.iter().any(|node| match node.op {
        Op::Attention(_) | Op::Position { .. } => true,
        Op::Norm { .. } => along(node.input),
        _ => false,
    })
}

#[test]
fn every_operator_is_exact() {
    let cases = operators();
    let known: Vec<&Case> = cases.iter().filter(|case| is_known(case)).collect();
    let recurrent = known.iter().filter(|case| case.has_sequences()).count();
    assert!(recurrent >= 4, "{recurrent} cases of recurrent layers");
    for case in known {
        check(case, Granularity::Channel);
        check(case, Granularity::Tensor);
    }
}

#[test]
fn every_model_is_exact() {
    for case in zoo().iter().filter(|case| is_known(case)) {
        check(case, Granularity::Channel);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    #[test]
    fn random_models_are_exact(
        layers in crate::stacks::layers(),
        size in [1usize..8, 1usize..8],
        channels in 1usize..4,
    ) {
        let input = InputSpec::Real(vec![size[0], size[1], 2 * channels]);
        let def = ModelDef::Layers(LayersDef { layer: layers, loss: None });
        if let Ok(model) = Model::new(&def, &input, TargetSpec::Class { classes: 3 }) {
            check(&Case { name: "random", def, model: Arc::new(model) }, Granularity::Channel);
        }
    }
}

/// Largest difference to the outputs in `f32`, over the largest output.
fn error(case: &Case, quantization: &Quantization, parameters: &[f32], data: &Synthetic) -> f32 {
    let run = |numerics: &Numerics| {
        let program = Program::compile(&case.model, parameters, numerics, Passes::ALL);
        outputs(
            &Arc::new(program.expect("compiles")),
            data,
            ROWS,
            ROWS,
            Kernels::best(),
        )
    };
    let expected = run(&Numerics::F32);
    let found = run(&Numerics::Int8(quantization.clone()));
    let scale = expected.iter().fold(1e-6f32, |most, y| most.max(y.abs()));
    let far = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs() / scale);
    far.fold(0.0, f32::max)
}

/// With every unit in floats only the stored weights are rounded; each one less in integers
/// brings the outputs nearer.
#[test]
fn units_in_floats_are_nearer() {
    for case in operators().into_iter().chain(zoo()) {
        let (data, parameters) = (case.data(ROWS), trained(&case.model));
        let mut quantization = quantization(&case, &parameters, &data, ROWS);
        let integers = error(&case, &quantization, &parameters, &data);
        for (float, bound) in [(Float::F16, 0.1), (Float::F32, 1e-5)] {
            let graph = case.model.graph();
            quantization.float_units = units(graph)
                .iter()
                .map(|unit| (graph.values[unit.output].name.clone(), float))
                .collect();
            let floats = error(&case, &quantization, &parameters, &data);
            assert!(floats <= bound, "{}: {float:?}: {floats}", case.name);
        }
        assert!(
            integers > 0.0 && integers < 1.0,
            "{}: {integers}",
            case.name
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = &operators()[0];
    let (data, parameters) = (case.data(ROWS), trained(&case.model));
    let good = quantization(case, &parameters, &data, ROWS);
    let refused = |quantization: Quantization| {
        let numerics = Numerics::Int8(quantization);
        Program::compile(&case.model, &parameters, &numerics, Passes::ALL).expect_err("refused")
    };
    let mut bad = good.clone();
    bad.points.remove("input");
    let error = refused(bad);
    assert!(matches!(error, ProgramError::Quantization(_)), "{error}");
    assert!(error.to_string().contains("`input`"), "{error}");
    let mut bad = good;
    bad.float_units.insert("dens1".to_owned(), Float::F32);
    let error = refused(bad).to_string();
    assert!(
        error.contains("`dens1`") && error.contains("dense1"),
        "{error}"
    );
}
