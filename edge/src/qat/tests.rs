//! Gradients against finite differences of the straight-through surrogate, in `f64` and by plain
//! loops over the graph.
//!
//! The surrogate of a rounding `Q` at a point `v0` is `v -> Q(v0) + mask (v - v0)`, with the mask
//! of the clipping there. With every rounding replaced so, and every maximum kept where it was, a
//! network is smooth around its parameters, and its derivative is the straight-through gradient.

use std::collections::BTreeMap;
use std::sync::Arc;

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Optimizer, Purpose, RoundId, Seed, Stream,
    TargetSpec, TargetsMut,
};

use super::{QatForward, QatOptions};
use crate::graph::{Function, Graph, Op, ValueId, units};
use crate::kernel::{Fused, Kernels};
use crate::quant::Granularity;
use crate::session::{Session, Step};
use crate::{Model, ModelDef};

const CLASSES: usize = 3;
const ROWS: usize = 5;

struct Data {
    input: InputSpec,
    x: Vec<f32>,
    labels: Vec<u32>,
}

impl Data {
    fn new(shape: &[usize], seed: u64) -> Self {
        let mut stream = stream(seed);
        let input = InputSpec::Real(shape.to_vec());
        Self {
            x: (0..ROWS * input.len())
                .map(|_| stream.normal() as f32)
                .collect(),
            labels: (0..ROWS as u32).map(|row| row % CLASSES as u32).collect(),
            input,
        }
    }
}

impl Examples for Data {
    fn len(&self) -> usize {
        ROWS
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        TargetSpec::Class { classes: CLASSES }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        if let InputsMut::Real(to) = inputs {
            for (to, &row) in to.chunks_exact_mut(width).zip(rows) {
                to.copy_from_slice(&self.x[row as usize * width..][..width]);
            }
        }
        if let TargetsMut::Classes(to) = targets {
            for (to, &row) in to.iter_mut().zip(rows) {
                *to = self.labels[row as usize];
            }
        }
    }
}

fn stream(seed: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(seed), RoundId(0), ClientId(0))
}

/// What a rounding did at the point of linearisation: the value before and after, the mask.
#[derive(Clone, Copy)]
struct Rounded {
    before: f64,
    after: f64,
    open: bool,
}

/// The network in `f64`. The first run notes every rounding and maximum; later ones repeat them.
/// A rounding of an activation: steps after it, the clamped value before it, the scale; whether
/// the value was not clamped, and whether it was in range.
#[derive(Clone, Copy)]
struct Sealed {
    steps: f64,
    value: f64,
    scale: f64,
    open: bool,
    inside: bool,
}

struct Surrogate<'a> {
    model: &'a Model,
    graph: &'a Graph,
    data: &'a Data,
    batch_statistics: bool,
    rounded: Vec<Rounded>,
    sealed: Vec<Sealed>,
    /// Zero points, by point.
    zeros: BTreeMap<usize, f64>,
    largest: Vec<usize>,
    /// The factors that were folded into weights, which count as constants.
    factors: Vec<Vec<f64>>,
    noted: bool,
    next: [usize; 4],
}

fn round_even(value: f64) -> f64 {
    value.round_ties_even()
}

impl<'a> Surrogate<'a> {
    fn tensor(&self, theta: &[f64], id: usize) -> Vec<f64> {
        theta[self.model.layout().tensors()[id].range()].to_vec()
    }

    /// Scale and zero point of the point of `value`; the zero point stays what it was first.
    fn scale(&mut self, theta: &[f64], value: ValueId) -> (f64, f64) {
        let points = super::points(self.graph);
        let index = points.iter().position(|&point| point == value);
        let index = index.expect("every rounded value is a point");
        let range = self.model.range_of(index);
        let (min, max) = (theta[range.start].min(0.0), theta[range.start + 1].max(0.0));
        let scale = (max - min) / 255.0;
        match self.noted {
            true => (scale, self.zeros[&index]),
            false => {
                self.zeros.insert(index, round_even(-min / scale));
                // The scale is an f32 wherever it is used.
                (f64::from(scale as f32), self.zeros[&index])
            }
        }
    }

    fn pass(&mut self, before: f64, round: impl FnOnce(f64) -> (f64, bool)) -> f64 {
        if !self.noted {
            let (after, open) = round(before);
            self.rounded.push(Rounded {
                before,
                after,
                open,
            });
            return after;
        }
        let noted = self.rounded[self.next[0]];
        self.next[0] += 1;
        match noted.open {
            true => noted.after + (before - noted.before),
            false => noted.after,
        }
    }

    fn seal(&mut self, values: &mut [f64], (scale, zero): (f64, f64), clamp: Fused) {
        let (low, high) = match clamp {
            Fused::None => (f64::NEG_INFINITY, f64::INFINITY),
            Fused::Relu => (0.0, f64::INFINITY),
            Fused::Relu6 => (0.0, 6.0),
        };
        for value in values {
            let clamped = value.clamp(low, high);
            if !self.noted {
                let q = round_even(*value / scale) + zero;
                let cut = round_even(clamped / scale) + zero;
                self.sealed.push(Sealed {
                    steps: cut.clamp(0.0, 255.0) - zero,
                    value: clamped,
                    scale,
                    // Integer sums of exactly zero are a little beside it in f64.
                    open: (0.0..=255.0).contains(&q) && *value > low + 1e-9 && *value < high - 1e-9,
                    inside: (0.0..=255.0).contains(&cut),
                });
                *value = scale * (cut.clamp(0.0, 255.0) - zero);
                continue;
            }
            let noted = self.sealed[self.next[3]];
            self.next[3] += 1;
            // `s (steps + v / s - v0 / s0)`
            *value = scale * noted.steps
                + match (noted.open, noted.inside) {
                    (true, _) => *value - noted.value * scale / noted.scale,
                    (false, true) => noted.value - noted.value * scale / noted.scale,
                    (false, false) => 0.0,
                };
        }
    }

    /// Quantizes a weight and its bias for an input of scale `x`.
    fn weights(&mut self, weight: &mut [f64], bias: &mut [f64], x: f64, granularity: Granularity) {
        let columns = bias.len();
        let largest = |keep: &dyn Fn(usize) -> bool| {
            let kept = weight
                .iter()
                .enumerate()
                .filter(|(at, _)| keep(at % columns));
            kept.fold(0.0f64, |most, (_, w)| most.max(w.abs())) / 127.0
        };
        let scales = (0..columns).map(|column| match granularity {
            Granularity::Channel => f64::from(largest(&|c| c == column) as f32),
            Granularity::Tensor => f64::from(largest(&|_| true) as f32),
        });
        let scales = scales.collect::<Vec<_>>();
        for (at, w) in weight.iter_mut().enumerate() {
            let scale = scales[at % columns];
            *w = self.pass(*w, |w| (round_even(w / scale) * scale, true));
        }
        for (b, scale) in bias.iter_mut().zip(&scales) {
            let scale = scale * x;
            *b = self.pass(*b, |b| (round_even(b / scale) * scale, true));
        }
    }

    fn loss(&mut self, theta: &[f64]) -> f64 {
        self.next = [0; 4];
        let graph = self.graph;
        let mut values = vec![Vec::<f64>::new(); graph.values.len()];
        let mut scales = vec![(0.0, 0.0); graph.values.len()];
        let mut x = self
            .data
            .x
            .iter()
            .map(|&x| f64::from(x))
            .collect::<Vec<_>>();
        scales[0] = self.scale(theta, 0);
        self.seal(&mut x, scales[0], Fused::None);
        values[0] = x;
        let root = |value: ValueId| graph.values[value].root;
        for unit in units(graph) {
            let node = &graph.nodes[unit.node];
            let source = root(node.input);
            let input = values[source].clone();
            let shape = &graph.values[node.input].shape;
            let mut scale = scales[source];
            let output = match &node.op {
                Op::Dense { weight, bias, .. } | Op::Conv { weight, bias, .. } => {
                    scale = self.scale(theta, unit.own);
                    let sx = scales[source].0;
                    let y = self.product(
                        theta,
                        &unit.norm,
                        (node.op.clone(), *weight, *bias),
                        &input,
                        sx,
                    );
                    let mut y = y;
                    self.seal(&mut y, scale, unit.clamp);
                    y
                }
                Op::MaxPool(_) => {
                    // Windows of 2x2, side by side.
                    self.windows(&input, shape, |this, window, x| {
                        if !this.noted {
                            let first = |a: &usize, b: &usize| match x[*b] > x[*a] {
                                true => *b,
                                false => *a,
                            };
                            let at = window.iter().copied().reduce(|a, b| first(&a, &b));
                            this.largest.push(at.expect("a window holds numbers"));
                            return x[this.largest[this.largest.len() - 1]];
                        }
                        this.next[1] += 1;
                        x[this.largest[this.next[1] - 1]]
                    })
                }
                Op::AvgPool(_) => {
                    let mut y = self.windows(&input, shape, |_, window, x| {
                        window.iter().map(|&at| x[at]).sum::<f64>() / window.len() as f64
                    });
                    scale = self.scale(theta, unit.own);
                    self.seal(&mut y, scale, Fused::None);
                    y
                }
                Op::GlobalAvgPool {
                    positions,
                    channels,
                } => {
                    let mut y = vec![0.0; ROWS * channels];
                    for (row, image) in input.chunks_exact(positions * channels).enumerate() {
                        for (at, x) in image.iter().enumerate() {
                            y[row * channels + at % channels] += x / *positions as f64;
                        }
                    }
                    scale = self.scale(theta, unit.own);
                    self.seal(&mut y, scale, Fused::None);
                    y
                }
                Op::Function(Function::Relu) => {
                    let clamped = input
                        .iter()
                        .map(|&x| self.pass(x, |x| (x.max(0.0), x > 0.0)));
                    clamped.collect()
                }
                Op::Function(function) => {
                    let f = |x: f64| match function {
                        Function::Tanh => x.tanh(),
                        Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                        other => panic!("{other:?} is not of these tests"),
                    };
                    let mut y = input.iter().map(|&x| f(x)).collect::<Vec<_>>();
                    scale = self.scale(theta, unit.own);
                    self.seal(&mut y, scale, Fused::None);
                    y
                }
                Op::Norm {
                    scale: gamma,
                    shift,
                    ..
                } => {
                    let gamma = self.tensor(theta, *gamma);
                    let beta = self.tensor(theta, *shift);
                    let mut y = group_norm(&input, &gamma, &beta, 2);
                    scale = self.scale(theta, unit.own);
                    self.seal(&mut y, scale, unit.clamp);
                    y
                }
                Op::Add { other } => {
                    let other = &values[root(*other)];
                    let mut y = input
                        .iter()
                        .zip(other)
                        .map(|(a, b)| a + b)
                        .collect::<Vec<_>>();
                    scale = self.scale(theta, unit.own);
                    self.seal(&mut y, scale, unit.clamp);
                    y
                }
                other => panic!("{other:?} is not of these tests"),
            };
            values[root(unit.own)] = output;
            scales[root(unit.own)] = scale;
            if let Some(residual) = &unit.residual {
                let own = values[root(unit.own)].iter();
                let other = &values[root(residual.other)];
                let mut sum = own.zip(other).map(|(a, b)| a + b).collect::<Vec<_>>();
                let scale = self.scale(theta, unit.output);
                self.seal(&mut sum, scale, residual.clamp);
                values[root(unit.output)] = sum;
                scales[root(unit.output)] = scale;
            }
        }
        self.noted = true;
        let logits = &values[root(graph.output)];
        let mut loss = 0.0;
        for (z, &label) in logits.chunks_exact(CLASSES).zip(&self.data.labels) {
            let sum = z.iter().map(|z| z.exp()).sum::<f64>();
            loss += sum.ln() - z[label as usize];
        }
        loss / ROWS as f64
    }

    /// A product of the quantized weights, and the normalisation after it.
    fn product(
        &mut self,
        theta: &[f64],
        norm: &Option<usize>,
        (op, weight, bias): (Op, usize, Option<usize>),
        input: &[f64],
        sx: f64,
    ) -> Vec<f64> {
        let mut w = self.tensor(theta, weight);
        let columns = *self.model.layout().tensors()[weight]
            .shape
            .last()
            .expect("a weight has columns");
        let mut b = match bias {
            Some(bias) => self.tensor(theta, bias),
            None => vec![0.0; columns],
        };
        let granularity = self
            .model
            .qat_options()
            .expect("the model has ranges")
            .granularity;
        let folded = norm.map(|node| match self.graph.nodes[node].op {
            Op::BatchNorm {
                scale,
                shift,
                mean,
                variance,
                epsilon,
                ..
            } => {
                let parts = [scale, shift, mean, variance].map(|id| self.tensor(theta, id));
                (parts, f64::from(epsilon))
            }
            _ => panic!("a unit's norm is a batch normalisation"),
        });
        let batch = self.batch_statistics && folded.is_some();
        let mut factors = vec![1.0; columns];
        if let Some(([gamma, beta, mean, variance], epsilon)) = &folded {
            for c in 0..columns {
                factors[c] = gamma[c] / (variance[c] + epsilon).sqrt();
                b[c] = match batch {
                    true => b[c],
                    false => (b[c] - mean[c]) * factors[c] + beta[c],
                };
            }
            if batch {
                // Folded for the rounding alone.
                if !self.noted {
                    self.factors.push(factors.clone());
                }
                factors.clone_from(&self.factors[self.next[2].min(self.factors.len() - 1)]);
                if self.noted {
                    self.next[2] += 1;
                }
                b.iter_mut().zip(&factors).for_each(|(b, f)| *b *= f);
            }
            for (at, w) in w.iter_mut().enumerate() {
                *w *= factors[at % columns];
            }
        }
        self.weights(&mut w, &mut b, sx, granularity);
        let mut y = multiply(&op, input, &w, &b);
        if let (true, Some(([gamma, beta, ..], epsilon))) = (batch, &folded) {
            for (at, y) in y.iter_mut().enumerate() {
                *y /= factors[at % columns];
            }
            let count = (y.len() / columns) as f64;
            for c in 0..columns {
                let column = || y.iter().skip(c).step_by(columns);
                let mean = column().sum::<f64>() / count;
                let variance = column().map(|y| (y - mean) * (y - mean)).sum::<f64>() / count;
                let r = 1.0 / (variance + epsilon).sqrt();
                for at in (c..y.len()).step_by(columns) {
                    y[at] = (y[at] - mean) * r * gamma[c] + beta[c];
                }
            }
        }
        y
    }

    fn windows(
        &mut self,
        input: &[f64],
        shape: &[usize],
        mut f: impl FnMut(&mut Self, &[usize], &[f64]) -> f64,
    ) -> Vec<f64> {
        let &[height, width, channels] = shape else {
            panic!("an image")
        };
        let mut y = Vec::new();
        for row in 0..ROWS {
            for i in 0..height / 2 {
                for j in 0..width / 2 {
                    for c in 0..channels {
                        let at = |di: usize, dj: usize| {
                            ((row * height + 2 * i + di) * width + 2 * j + dj) * channels + c
                        };
                        let window = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)];
                        y.push(f(self, &window, input));
                    }
                }
            }
        }
        y
    }
}

fn group_norm(x: &[f64], gamma: &[f64], beta: &[f64], groups: usize) -> Vec<f64> {
    let channels = gamma.len();
    let mut y = x.to_vec();
    let size = channels / groups;
    for image in y.chunks_exact_mut(x.len() / ROWS) {
        for group in 0..groups {
            let inside = |at: usize| at % channels / size == group;
            let values = image.iter().enumerate().filter(|(at, _)| inside(*at));
            let values = values.map(|(_, x)| *x).collect::<Vec<_>>();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let squares = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
            let r = 1.0 / (squares / values.len() as f64 + 1e-5).sqrt();
            for (at, x) in image.iter_mut().enumerate() {
                if inside(at) {
                    *x = (*x - mean) * r * gamma[at % channels] + beta[at % channels];
                }
            }
        }
    }
    y
}

fn multiply(op: &Op, input: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
    let columns = b.len();
    let mut y = Vec::new();
    match op {
        Op::Dense { geometry, .. } => {
            for x in input.chunks_exact(geometry.inputs) {
                for (o, b) in b.iter().enumerate() {
                    let terms = x.iter().enumerate().map(|(i, x)| x * w[i * columns + o]);
                    y.push(terms.sum::<f64>() + b);
                }
            }
        }
        Op::Conv { geometry, .. } => {
            let s = geometry.shape();
            let (per_group, filters) = (s.channels / s.groups, s.filters / s.groups);
            for image in input.chunks_exact(s.height * s.width * s.channels) {
                for i in 0..geometry.out_height() {
                    for j in 0..geometry.out_width() {
                        for o in 0..s.filters {
                            let mut sum = b[o];
                            for di in 0..s.kernel[0] {
                                for dj in 0..s.kernel[1] {
                                    let row = (i * s.stride[0] + di).checked_sub(s.padding.top);
                                    let column = (j * s.stride[1] + dj).checked_sub(s.padding.left);
                                    let (Some(row), Some(column)) = (row, column) else {
                                        continue;
                                    };
                                    if row >= s.height || column >= s.width {
                                        continue;
                                    }
                                    for c in 0..per_group {
                                        let from = o / filters * per_group + c;
                                        let x = image[(row * s.width + column) * s.channels + from];
                                        let at = (di * s.kernel[1] + dj) * per_group + c;
                                        sum += x * w[at * columns + o];
                                    }
                                }
                            }
                            y.push(sum);
                        }
                    }
                }
            }
        }
        other => panic!("{other:?} is no product"),
    }
    y
}

fn model(text: &str, shape: &[usize], options: QatOptions) -> Arc<Model> {
    let def = toml::from_str::<ModelDef>(text).expect("the case is valid TOML");
    let input = InputSpec::Real(shape.to_vec());
    let model = Model::new(&def, &input, TargetSpec::Class { classes: CLASSES })
        .expect("the layers take these images");
    Arc::new(
        model
            .with_ranges(options)
            .expect("every layer can be trained for quantization"),
    )
}

const STEM: &str = "[[layer]]\nkind = \"conv2d\"\nname = \"stem\"\nfilters = 4\nkernel = 3\npadding = \"same\"\nactivation = \"relu\"\n";
const END: &str =
    "[[layer]]\nkind = \"flatten\"\nname = \"flat\"\n[[layer]]\nkind = \"dense\"\nname = \"out\"\n";

/// Parameters after a few steps that observe ranges.
fn trained(text: &str, shape: &[usize], options: QatOptions, data: &Data) -> Vec<f32> {
    let model = model(text, shape, options);
    let mut stream = stream(7);
    let global = model.init(&mut stream);
    let kernels = Kernels::best();
    let mut session = Session::quantization_aware(model, kernels, QatForward::Integer)
        .expect("the model has ranges");
    session.start(global.values(), &Optimizer::SGD, ROWS);
    for number in 0..6 {
        let step = Step {
            optimizer: Optimizer::SGD,
            rate: 0.1,
            number,
            max_norm: None,
            proximal_mu: 0.0,
            anchor: &[],
        };
        let rows = [0, 1, 2, 3, 4];
        session
            .step(data, &rows, &step, &mut stream)
            .expect("every label is a class");
    }
    session.weights().to_vec()
}

/// Compares every gradient. False where a number lay so near the middle of two steps that it was
/// rounded to the other one in `f32`, and where (almost) all gradients are zero.
fn check(
    name: &str,
    text: &str,
    granularity: Granularity,
    [frozen, learned]: [bool; 2],
    seed: u64,
) -> bool {
    let shape = &[4, 4, 2];
    let data = Data::new(shape, seed);
    let options = QatOptions {
        granularity,
        momentum: 0.5,
        ..QatOptions::default()
    };
    let mut theta = trained(text, shape, options, &data);
    let options = QatOptions {
        freeze_ranges: (!learned).then_some(0),
        freeze_statistics: frozen.then_some(0),
        learn_scales: learned,
        ..options
    };
    let model = model(text, shape, options);
    // Some values shall be cut off.
    for point in super::points(&model.graph).into_iter().enumerate() {
        let range = model.range_of(point.0);
        for end in &mut theta[range] {
            *end *= 0.7;
        }
    }
    let mut session =
        Session::quantization_aware(model.clone(), Kernels::best(), QatForward::Integer)
            .expect("the model has ranges");
    session.begin_round(0);
    session.start(&theta, &Optimizer::SGD, ROWS);
    let rows = [0, 1, 2, 3, 4];
    let loss = session
        .gradient(&data, &rows, &mut stream(1))
        .expect("every label is a class")
        / ROWS as f64;
    let gradient = session.gradients();
    let mut surrogate = Surrogate {
        model: &model,
        graph: &model.graph,
        data: &data,
        batch_statistics: !frozen,
        rounded: Vec::new(),
        sealed: Vec::new(),
        zeros: BTreeMap::new(),
        largest: Vec::new(),
        factors: Vec::new(),
        noted: false,
        next: [0; 4],
    };
    let mut wide = theta.iter().map(|&w| f64::from(w)).collect::<Vec<_>>();
    let expected = surrogate.loss(&wide);
    assert!(
        (loss - expected).abs() < 3e-3,
        "{name}: {loss} for {expected}"
    );
    if (loss - expected).abs() > 1e-3 {
        return false;
    }
    let masked = surrogate.sealed.iter().filter(|one| !one.open).count();
    assert!(masked > 0, "{name}: nothing was cut off");
    let largest = gradient.iter().fold(0.0f32, |most, g| most.max(g.abs()));
    let mut compared = 0;
    // Statistics of the batch in f32 move some numbers to the next step.
    let tolerance = if frozen { 1e-3 } else { 2e-2 };
    let parameters = model.range_of(0).start;
    for part in model.trained() {
        for at in part.clone().filter(|&at| at < parameters) {
            let (step, here) = (1e-5, wide[at]);
            wide[at] = here + step;
            let above = surrogate.loss(&wide);
            wide[at] = here - step;
            let below = surrogate.loss(&wide);
            wide[at] = here;
            let expected = (above - below) / (2.0 * step);
            let error = (f64::from(gradient[at]) - expected).abs();
            // A number at the very end of its range may be cut off in f32 alone.
            assert!(
                error <= tolerance * f64::from(largest).max(1e-3) + 1e-7,
                "{name}, {at}: {} for {expected}",
                gradient[at]
            );
            compared += 1;
        }
    }
    assert!(compared > 20, "{name}: {compared}");
    for (index, value) in super::points(&model.graph).into_iter().enumerate() {
        let range = model.range_of(index);
        if !learned {
            assert!(gradient[range].iter().all(|g| *g == 0.0));
            continue;
        }
        if value == 0 {
            continue;
        }
        let zero = surrogate.zeros[&index];
        let step = 1e-6;
        let mut moved = |by: f64| {
            let mut theta = wide.clone();
            theta[range.start] -= zero * by;
            theta[range.start + 1] += (255.0 - zero) * by;
            surrogate.loss(&theta)
        };
        let expected = (moved(step) - moved(-step)) / (2.0 * step);
        let numbers = model.graph.values[value].len() as f64;
        let scaled = f64::from(gradient[range.start + 1]) / (255.0 - zero);
        let found = scaled * (255.0 * numbers).sqrt();
        assert!(
            (found - expected).abs() <= 2e-3 * expected.abs() + 1e-3,
            "{name}, the scale of point {index}: {found} for {expected}"
        );
        let low = f64::from(gradient[range.start]);
        assert!((low + zero * scaled).abs() <= 1e-6 + 1e-5 * low.abs());
    }
    // Where (almost) every path was cut off, the two agree and tell little.
    largest > 1e-2
}

#[test]
fn gradients_are_those_of_the_straight_through_surrogate() {
    let layer = |kind: &str, rest: &str| format!("[[layer]]\nkind = \"{kind}\"\n{rest}\n");
    let conv = |name: &str, more: &str| {
        layer(
            "conv2d",
            &format!("name = \"{name}\"\nfilters = 4\nkernel = 3\npadding = \"same\"\n{more}"),
        )
    };
    let norm = |name: &str| layer("batch-norm", &format!("name = \"{name}\""));
    let cases = [
        ("dense", format!("{}{END}", layer("flatten", "")), false),
        (
            "conv, max-pool, dense with relu",
            format!(
                "{STEM}{}{}{}{}",
                layer("max-pool", "size = 2"),
                layer("flatten", ""),
                layer("dense", "units = 6\nactivation = \"relu\""),
                layer("dense", "name = \"out\"")
            ),
            false,
        ),
        (
            "residual with relu6, global pool",
            format!(
                "{STEM}{}{}{}{}{}",
                conv("main", ""),
                layer("add", "from = \"stem\""),
                layer("relu6", ""),
                layer("global-avg-pool", ""),
                layer("dense", "name = \"out\"")
            ),
            false,
        ),
        (
            "depthwise, strided, tanh, average pool",
            format!(
                "{STEM}{}{}{}{END}",
                layer(
                    "conv2d",
                    "filters = 4\nkernel = 3\npadding = 1\nstride = 1\ngroups = 4\nactivation = \"tanh\""
                ),
                layer("avg-pool", "size = 2"),
                layer("sigmoid", ""),
            ),
            false,
        ),
        (
            "group norm between, relu alone",
            format!(
                "{STEM}{}{}{}{END}",
                conv("main", "bias = false"),
                layer("group-norm", "groups = 2"),
                layer("relu", "")
            ),
            false,
        ),
        (
            "batch norm",
            format!(
                "{}{}{}{}{}{}{}",
                conv("one", "bias = false"),
                norm("n1"),
                layer("relu", ""),
                conv("two", "stride = 2"),
                norm("n2"),
                layer("global-avg-pool", ""),
                layer("dense", "name = \"out\"")
            ),
            true,
        ),
    ];
    for (name, text, normalised) in &cases {
        for granularity in [Granularity::Channel, Granularity::Tensor] {
            let mut ways = vec![[true, false], [true, true]];
            ways.extend(normalised.then_some([false, false]));
            for way in ways {
                let told = (4..24).filter(|&seed| check(name, text, granularity, way, seed));
                let told = told.take(3).count();
                assert_eq!(
                    told, 3,
                    "{name} {granularity:?} {way:?}: too few networks tell"
                );
            }
        }
    }
}
