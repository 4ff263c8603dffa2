//! Losses and gradients of whole models against burn's automatic differentiation.
//!
//! The layers are interpreted with burn's tensor operations, in burn's own layouts (NCHW, OIHW) and
//! in 64 bits, in which what is left of a difference is our rounding.

use std::cell::RefCell;
use std::collections::BTreeMap;

use burn::tensor::activation;
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::common::{Case, Synthetic, operators, stream};
use fl_core::{Examples as _, InputSpec, NO_TARGET, Optimizer, Stream, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::layer::{Activation, LayerDef, Padding};
use fl_edge::{Loss, Model, ModelDef, Session};

#[derive(Clone)]
enum Value {
    /// `[batch, channels, height, width]`
    Image(Tensor<4>),
    /// `[batch, length, features]`
    Sequence(Tensor<3>),
    Row(Tensor<2>),
    Tokens(Tensor<2, Int>),
}

impl Value {
    fn row(self) -> Tensor<2> {
        match self {
            Self::Row(x) => x,
            _ => panic!("a row"),
        }
    }

    fn image(self) -> Tensor<4> {
        match self {
            Self::Image(x) => x,
            _ => panic!("an image"),
        }
    }

    fn sequence(self) -> Tensor<3> {
        match self {
            Self::Sequence(x) => x,
            _ => panic!("a sequence"),
        }
    }

    /// As [`Rounding::of`], where the values are real.
    fn rounded(self, rounding: &Rounding) -> Self {
        match self {
            Self::Row(x) => Self::Row(rounding.of(x)),
            Self::Image(x) => Self::Image(rounding.of(x)),
            Self::Sequence(x) => Self::Sequence(rounding.of(x)),
            Self::Tokens(x) => Self::Tokens(x),
        }
    }

    fn map(self, f: Function, rounding: &Rounding) -> Self {
        match self {
            Self::Row(x) => Self::Row(rounding.of_slope(f, x)),
            Self::Image(x) => Self::Image(rounding.of_slope(f, x)),
            Self::Sequence(x) => Self::Sequence(rounding.of_slope(f, x)),
            Self::Tokens(_) => panic!("real numbers"),
        }
    }

    fn flatten(self) -> Self {
        match self {
            Self::Image(x) => {
                let [b, c, h, w] = x.dims();
                Self::Row(x.permute([0, 2, 3, 1]).reshape([b, h * w * c]))
            }
            Self::Sequence(x) => {
                let [b, l, f] = x.dims();
                Self::Row(x.reshape([b, l * f]))
            }
            other => other,
        }
    }
}

/// What 32 bits would do to 64: every value and, on the way back, every gradient is off by a random
/// share of at most the distance between neighbouring numbers of 32 bits.
struct Rounding(Option<RefCell<Stream>>);

impl Rounding {
    fn of<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Self(Some(stream)) = self else {
            return x;
        };
        // Two draws: the gradient is rounded by itself and is not that of the rounded values.
        let forth = x.clone() * roundings(&x, &mut stream.borrow_mut());
        let back = x.clone() * roundings(&x, &mut stream.borrow_mut());
        x + back.clone() + (forth - back).detach()
    }

    /// The function's values, with what its slope loses on the way back where it is a difference of
    /// numbers of the size of one.
    fn of_slope<const D: usize>(&self, f: Function, x: Tensor<D>) -> Tensor<D> {
        use Activation::{Gelu, Sigmoid, Tanh};
        match (self, f) {
            (Self(Some(stream)), Function::Named(Gelu | Sigmoid | Tanh)) => {
                let lost = x.clone() * roundings(&x, &mut stream.borrow_mut());
                apply(f, x) + lost.clone() - lost.detach()
            }
            _ => apply(f, x),
        }
    }

    /// Added to a mean loss over rows, what the gradient of its scores loses: it is a difference
    /// of a probability and a target, each rounded at the size of one.
    fn of_scores(&self, z: &Tensor<2>) -> Option<Tensor<1>> {
        let stream = self.0.as_ref()?;
        let [batch, _] = z.dims();
        let lost = z.clone() * roundings(z, &mut stream.borrow_mut());
        Some(lost.sum() / batch as f64)
    }
}

/// One random rounding of a number of size one for each element.
fn roundings<const D: usize>(x: &Tensor<D>, stream: &mut Stream) -> Tensor<D> {
    let mut rounding = || f64::from(f32::EPSILON) * (2.0 * stream.uniform() - 1.0);
    let all: Vec<f64> = (0..x.shape().num_elements()).map(|_| rounding()).collect();
    Tensor::from_data(
        TensorData::new(all, x.shape()),
        (&x.device().inner(), DType::F64),
    )
}

#[derive(Clone, Copy)]
enum Function {
    Leaky(f64),
    Named(Activation),
}

fn apply<const D: usize>(f: Function, x: Tensor<D>) -> Tensor<D> {
    match f {
        Function::Leaky(slope) => activation::leaky_relu(x, slope),
        Function::Named(Activation::Relu) => activation::relu(x),
        Function::Named(Activation::Relu6) => x.clamp(0.0, 6.0),
        Function::Named(Activation::LeakyRelu) => activation::leaky_relu(x, 0.01),
        Function::Named(Activation::Gelu) => activation::gelu(x),
        Function::Named(Activation::Tanh) => activation::tanh(x),
        Function::Named(Activation::Sigmoid) => activation::sigmoid(x),
    }
}

/// `[(top, bottom), (left, right)]`
fn pads(
    padding: Padding,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
) -> [(usize, usize); 2] {
    core::array::from_fn(|axis| match padding {
        Padding::Valid => (0, 0),
        Padding::Explicit(pad) => (pad[axis], pad[axis]),
        Padding::Same => {
            let outputs = input[axis].div_ceil(stride[axis]);
            let total = ((outputs - 1) * stride[axis] + kernel[axis]).saturating_sub(input[axis]);
            (total / 2, total - total / 2)
        }
    })
}

/// `(x - mean) / sqrt(var + epsilon)` over the last dimension of `[batch, groups, rest]`.
fn normalise(x: Tensor<3>, epsilon: f32, rounding: &Rounding) -> Tensor<3> {
    let centred = rounding.of(x.clone() - rounding.of(x.mean_dim(2)));
    let squares = rounding.of(centred.clone() * centred.clone());
    let deviation = rounding.of((squares.mean_dim(2) + epsilon).sqrt());
    rounding.of(centred / deviation)
}

/// A tensor of the same values in 64 bits, so that burn's rounding is no part of a comparison.
fn reals<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F64))
}

/// The model's tensors as leaves, flat.
struct Leaves<'a> {
    model: &'a Model,
    leaves: BTreeMap<String, Tensor<1>>,
    rounding: Rounding,
}

impl Leaves<'_> {
    fn new<'a>(
        model: &'a Model,
        weights: &[f32],
        rounding: Rounding,
        device: &Device,
    ) -> Leaves<'a> {
        let leaves = model.layout().tensors().iter().map(|tensor| {
            let leaf = reals(&weights[tensor.range()], [tensor.len()], device).require_grad();
            (tensor.name.clone(), leaf)
        });
        Leaves {
            model,
            leaves: leaves.collect(),
            rounding,
        }
    }

    fn find<const D: usize>(&self, layer: &str, part: &str) -> Option<Tensor<D>> {
        let name = format!("{layer}.{part}");
        let tensor = self.model.layout().tensor(&name)?;
        let shape = <[usize; D]>::try_from(tensor.shape.as_slice()).expect("the rank");
        Some(self.leaves[&name].clone().reshape(shape))
    }
}

/// A product at every position.
fn along(x: Tensor<3>, leaves: &Leaves<'_>, name: &str, parts: [&str; 2]) -> Tensor<3> {
    let [b, l, f] = x.dims();
    let weight = leaves.find::<2>(name, parts[0]).expect("a weight");
    let [_, outputs] = weight.dims();
    let mut y = x.reshape([b * l, f]).matmul(weight);
    if let Some(bias) = leaves.find::<1>(name, parts[1]) {
        y = y + bias.unsqueeze::<2>();
    }
    y.reshape([b, l, outputs])
}

/// The formulas of ONNX's `LSTM`, gates i o f c.
fn lstm(x: Tensor<3>, units: usize, leaves: &Leaves<'_>, name: &str) -> Tensor<3> {
    let [b, l, _] = x.dims();
    let gates = along(x, leaves, name, ["weight", "bias"]);
    let recurrent = leaves
        .find::<2>(name, "recurrent.weight")
        .expect("a weight");
    let zero = gates
        .clone()
        .narrow(1, 0, 1)
        .reshape([b, 4 * units])
        .narrow(1, 0, units)
        * 0.0;
    let (mut h, mut c) = (zero.clone(), zero);
    let mut states = Vec::new();
    for step in 0..l {
        let gates = gates.clone().narrow(1, step, 1).reshape([b, 4 * units]);
        let sums = gates + h.clone().matmul(recurrent.clone());
        let gate = |part: usize| sums.clone().narrow(1, part * units, units);
        let [i, o, f] = [0, 1, 2].map(|part| activation::sigmoid(gate(part)));
        c = f * c + i * activation::tanh(gate(3));
        h = o * activation::tanh(c.clone());
        states.push(h.clone().reshape([b, 1, units]));
    }
    Tensor::cat(states, 1)
}

/// The formulas of ONNX's `GRU` with `linear_before_reset`, gates z r h.
fn gru(x: Tensor<3>, units: usize, leaves: &Leaves<'_>, name: &str) -> Tensor<3> {
    let [b, l, _] = x.dims();
    let gates = along(x, leaves, name, ["weight", "bias"]);
    let recurrent = leaves
        .find::<2>(name, "recurrent.weight")
        .expect("a weight");
    let bias = leaves.find::<1>(name, "recurrent.bias").expect("a bias");
    let mut h = gates
        .clone()
        .narrow(1, 0, 1)
        .reshape([b, 3 * units])
        .narrow(1, 0, units)
        * 0.0;
    let mut states = Vec::new();
    for step in 0..l {
        let gates = gates.clone().narrow(1, step, 1).reshape([b, 3 * units]);
        let sums = h.clone().matmul(recurrent.clone());
        let part = |of: &Tensor<2>, part: usize| of.clone().narrow(1, part * units, units);
        let z = activation::sigmoid(part(&gates, 0) + part(&sums, 0));
        let r = activation::sigmoid(part(&gates, 1) + part(&sums, 1));
        let inner = part(&sums, 2) + bias.clone().unsqueeze::<2>();
        let n = activation::tanh(part(&gates, 2) + r * inner);
        h = (z.clone().ones_like() - z.clone()) * n + z * h;
        states.push(h.clone().reshape([b, 1, units]));
    }
    Tensor::cat(states, 1)
}

fn attention(
    x: Tensor<3>,
    heads: usize,
    causal: bool,
    leaves: &Leaves<'_>,
    name: &str,
) -> Tensor<3> {
    let [b, l, f] = x.dims();
    let inner = along(x, leaves, name, ["in.weight", "in.bias"]);
    // `[batch, heads, length, width]`
    let part = |part: usize| {
        let of = inner.clone().narrow(2, part * f, f);
        of.reshape([b, l, heads, f / heads]).permute([0, 2, 1, 3])
    };
    let scale = ((f / heads) as f64).sqrt();
    let mut scores = part(0).matmul(part(1).permute([0, 1, 3, 2])) / scale;
    if causal {
        let unseen: Vec<f64> = (0..l * l)
            .map(|at| if at % l > at / l { -1e30 } else { 0.0 })
            .collect();
        let mask = Tensor::<4>::from_data(
            TensorData::new(unseen, [1, 1, l, l]),
            (&scores.device(), DType::F64),
        );
        scores = scores + mask;
    }
    let y = activation::softmax(scores, 3).matmul(part(2));
    let y = y.permute([0, 2, 1, 3]).reshape([b, l, f]);
    along(y, leaves, name, ["out.weight", "out.bias"])
}

fn layer(
    layer: &LayerDef,
    name: &str,
    x: Value,
    leaves: &Leaves<'_>,
    values: &BTreeMap<String, Value>,
) -> Value {
    let act = |activation: Option<Activation>, value: Value| match activation {
        Some(activation) => value
            .rounded(&leaves.rounding)
            .map(Function::Named(activation), &leaves.rounding),
        None => value,
    };
    match layer {
        LayerDef::Dense(def) => {
            let y = match x {
                Value::Sequence(x) => Value::Sequence(along(x, leaves, name, ["weight", "bias"])),
                x => {
                    let weight = leaves.find::<2>(name, "weight").expect("a weight");
                    let mut y = x.row().matmul(weight);
                    if let Some(bias) = leaves.find::<1>(name, "bias") {
                        y = y + bias.unsqueeze::<2>();
                    }
                    Value::Row(y)
                }
            };
            act(def.activation, y)
        }
        LayerDef::Conv2d(def) => {
            let x = x.image();
            let [_, _, height, width] = x.dims();
            let weight = leaves.find::<4>(name, "weight").expect("a weight");
            let mut options = ConvOptions::new(def.stride.0, [0, 0], [1, 1], def.groups);
            options.padding = pads(def.padding, [height, width], def.kernel.0, def.stride.0);
            let bias = leaves.find::<1>(name, "bias");
            let y = conv2d(x, weight.permute([3, 2, 0, 1]), bias, options);
            act(def.activation, Value::Image(y))
        }
        LayerDef::MaxPool(def) => {
            let x = x.image();
            let [_, _, height, width] = x.dims();
            let stride = def.stride.unwrap_or(def.size).0;
            let mut options = MaxPoolOptions::new(def.size.0);
            options.stride = stride;
            options.padding = pads(def.padding, [height, width], def.size.0, stride);
            Value::Image(max_pool2d(x, options))
        }
        LayerDef::AvgPool(def) => {
            let x = x.image();
            let [_, _, height, width] = x.dims();
            let stride = def.stride.unwrap_or(def.size).0;
            let mut options = AvgPoolOptions::new(def.size.0);
            options.stride = stride;
            options.padding = pads(def.padding, [height, width], def.size.0, stride);
            options.count_include_pad = false;
            Value::Image(avg_pool2d(x, options))
        }
        LayerDef::GlobalAvgPool(_) => match x {
            Value::Image(x) => {
                let [b, c, h, w] = x.dims();
                Value::Row(x.reshape([b, c, h * w]).mean_dim(2).reshape([b, c]))
            }
            Value::Sequence(x) => {
                let [b, _, f] = x.dims();
                Value::Row(x.mean_dim(1).reshape([b, f]))
            }
            _ => panic!("positions"),
        },
        LayerDef::GlobalMaxPool(_) => {
            let x = x.image();
            let [b, c, h, w] = x.dims();
            Value::Row(x.reshape([b, c, h * w]).max_dim(2).reshape([b, c]))
        }
        LayerDef::Relu(_) => x.map(Function::Named(Activation::Relu), &leaves.rounding),
        LayerDef::Relu6(_) => x.map(Function::Named(Activation::Relu6), &leaves.rounding),
        LayerDef::LeakyRelu(def) => x.map(Function::Leaky(f64::from(def.slope)), &leaves.rounding),
        LayerDef::Gelu(_) => x.map(Function::Named(Activation::Gelu), &leaves.rounding),
        LayerDef::Tanh(_) => x.map(Function::Named(Activation::Tanh), &leaves.rounding),
        LayerDef::Sigmoid(_) => x.map(Function::Named(Activation::Sigmoid), &leaves.rounding),
        LayerDef::GroupNorm(def) => {
            let x = x.image();
            let [b, c, h, w] = x.dims();
            let parts = x.reshape([b, def.groups, c / def.groups * h * w]);
            let y = normalise(parts, def.epsilon, &leaves.rounding).reshape([b, c, h, w]);
            let scale = leaves.find::<1>(name, "weight").expect("a scale");
            let shift = leaves.find::<1>(name, "bias").expect("a shift");
            Value::Image(y * scale.reshape([1, c, 1, 1]) + shift.reshape([1, c, 1, 1]))
        }
        LayerDef::BatchNorm(def) => {
            // Statistics over everything but the channels.
            let (parts, dims) = match x {
                Value::Image(x) => {
                    let [b, c, h, w] = x.dims();
                    let parts = x.permute([1, 0, 2, 3]).reshape([1, c, b * h * w]);
                    (parts, [b, c, h, w])
                }
                Value::Row(x) => {
                    let [b, c] = x.dims();
                    (x.permute([1, 0]).reshape([1, c, b]), [b, c, 1, 0])
                }
                _ => panic!("an image or a row"),
            };
            let c = dims[1];
            let scale = leaves.find::<1>(name, "weight").expect("a scale");
            let shift = leaves.find::<1>(name, "bias").expect("a shift");
            let y = normalise(parts, def.epsilon, &leaves.rounding) * scale.reshape([1, c, 1])
                + shift.reshape([1, c, 1]);
            match dims {
                [b, c, 1, 0] => Value::Row(y.reshape([c, b]).permute([1, 0])),
                [b, c, h, w] => Value::Image(y.reshape([c, b, h, w]).permute([1, 0, 2, 3])),
            }
        }
        LayerDef::LayerNorm(def) => {
            let (x, row) = match x {
                Value::Sequence(x) => (x, false),
                x => {
                    let x = x.row();
                    let [b, f] = x.dims();
                    (x.reshape([b, 1, f]), true)
                }
            };
            let [b, _, f] = x.dims();
            let y = normalise(x, def.epsilon, &leaves.rounding);
            let scale = leaves.find::<1>(name, "weight").expect("a scale");
            let shift = leaves.find::<1>(name, "bias").expect("a shift");
            let y = y * scale.reshape([1, 1, f]) + shift.reshape([1, 1, f]);
            match row {
                true => Value::Row(y.reshape([b, f])),
                false => Value::Sequence(y),
            }
        }
        LayerDef::Lstm(def) => Value::Sequence(lstm(x.sequence(), def.units, leaves, name)),
        LayerDef::Gru(def) => Value::Sequence(gru(x.sequence(), def.units, leaves, name)),
        LayerDef::Attention(def) => {
            Value::Sequence(attention(x.sequence(), def.heads, def.causal, leaves, name))
        }
        LayerDef::Position(_) => {
            let table = leaves.find::<2>(name, "weight").expect("a table");
            Value::Sequence(x.sequence() + table.unsqueeze::<3>())
        }
        LayerDef::Last(_) => {
            let x = x.sequence();
            let [b, l, f] = x.dims();
            Value::Row(x.narrow(1, l - 1, 1).reshape([b, f]))
        }
        LayerDef::Embedding(_) => {
            let Value::Tokens(tokens) = x else {
                panic!("tokens");
            };
            let [b, l] = tokens.dims();
            let table = leaves.find::<2>(name, "weight").expect("a table");
            let [_, size] = table.dims();
            let rows = table.select(0, tokens.reshape([b * l]));
            Value::Sequence(rows.reshape([b, l, size]))
        }
        LayerDef::Add(def) => match (x, values[&def.from].clone()) {
            (Value::Image(x), Value::Image(y)) => Value::Image(x + y),
            (Value::Row(x), Value::Row(y)) => Value::Row(x + y),
            (Value::Sequence(x), Value::Sequence(y)) => Value::Sequence(x + y),
            _ => panic!("the same shape"),
        },
        LayerDef::Flatten(_) => x.flatten(),
        LayerDef::Dropout(def) => {
            assert!(def.rate <= 0.0, "only dropout that does nothing");
            x
        }
    }
}

/// Mean loss and its gradient by burn.
fn burn_gradient(
    case: &Case,
    data: &Synthetic,
    weights: &[f32],
    rounding: Rounding,
) -> (f64, Vec<f64>) {
    let device = Device::flex().autodiff();
    let batch = data.len();
    let input = match case.model.input() {
        InputSpec::Real(shape) => match shape[..] {
            [h, w, c] => {
                let x = reals(&data.reals, [batch, h, w, c], &device);
                Value::Image(x.permute([0, 3, 1, 2]))
            }
            [l, f] => Value::Sequence(reals(&data.reals, [batch, l, f], &device)),
            [f] => Value::Row(reals(&data.reals, [batch, f], &device)),
            _ => panic!("an image or a row"),
        },
        InputSpec::Tokens { length, .. } => {
            let tokens = data
                .tokens
                .iter()
                .map(|&t| i64::from(t))
                .collect::<Vec<_>>();
            let data = TensorData::new(tokens, [batch, *length]);
            Value::Tokens(Tensor::from_data(data, &device))
        }
    };
    let leaves = Leaves::new(&case.model, weights, rounding, &device);
    let layers = case.def.layers_for(case.model.input(), case.model.target());
    let layers = layers.expect("layers");
    let mut values = BTreeMap::from([("input".to_owned(), input.clone())]);
    let mut current = input;
    for (def, summary) in layers.iter().zip(case.model.summary()) {
        let x = match def.input() {
            Some(input) => values[input].clone(),
            None => current,
        };
        current = layer(def, &summary.name, x, &leaves, &values).rounded(&leaves.rounding);
        values.insert(summary.name.clone(), current.clone());
    }
    if let (Value::Sequence(z), TargetSpec::Sequence { length, .. }) =
        (&current, case.model.target())
    {
        let loss = sequence_loss(z.clone(), &data.labels, length, &device);
        return value_and_gradient(loss, case, &leaves);
    }
    let z = current.row();
    let lost = leaves.rounding.of_scores(&z);
    let loss = match (case.model.loss(), case.model.target()) {
        (Loss::SoftmaxCrossEntropy, TargetSpec::Class { .. }) => {
            let labels = data
                .labels
                .iter()
                .map(|&l| i64::from(l))
                .collect::<Vec<_>>();
            let labels = TensorData::new(labels, [batch, 1]);
            let labels = Tensor::<2, Int>::from_data(labels, &device);
            activation::log_softmax(z, 1).gather(1, labels).mean().neg()
        }
        (loss, TargetSpec::Real { width }) => {
            let t = reals(&data.targets, [batch, width], &device);
            match loss {
                Loss::Mse => ((z.clone() - t.clone()) * (z - t)).mean(),
                _ => {
                    let p = activation::sigmoid(z);
                    let one = t.clone().ones_like();
                    let likelihood =
                        t.clone() * p.clone().log() + (one.clone() - t) * (one - p).log();
                    likelihood.mean().neg()
                }
            }
        }
        _ => panic!("a loss for these targets"),
    };
    let loss = match lost {
        Some(lost) => loss + lost,
        None => loss,
    };
    value_and_gradient(loss, case, &leaves)
}

/// The mean over examples of the mean over the positions that have a target.
fn sequence_loss(z: Tensor<3>, labels: &[u32], length: usize, device: &Device) -> Tensor<1> {
    let [batch, _, _] = z.dims();
    let mut weights = Vec::new();
    for labels in labels.chunks_exact(length) {
        let given = labels.iter().filter(|&&label| label != NO_TARGET).count();
        weights.extend(labels.iter().map(|&label| match label {
            NO_TARGET => 0.0,
            _ => 1.0 / given as f64,
        }));
    }
    let labels = labels.iter().map(|&label| match label {
        NO_TARGET => 0,
        label => i64::from(label),
    });
    let labels = TensorData::new(labels.collect::<Vec<_>>(), [batch, length, 1]);
    let labels = Tensor::<3, Int>::from_data(labels, device);
    let weights = TensorData::new(weights, [batch, length, 1]);
    let weights = Tensor::<3>::from_data(weights, (device, DType::F64));
    let likelihood = activation::log_softmax(z, 2).gather(2, labels) * weights;
    likelihood.sum().neg() / batch as f64
}

fn value_and_gradient(loss: Tensor<1>, case: &Case, leaves: &Leaves<'_>) -> (f64, Vec<f64>) {
    let value = loss
        .clone()
        .into_data()
        .try_to_vec::<f64>()
        .expect("a number")[0];
    let gradients = loss.backward();
    let mut flat = Vec::new();
    for tensor in case.model.layout().tensors() {
        match leaves.leaves[&tensor.name].grad(&gradients) {
            Some(gradient) => {
                flat.extend(gradient.into_data().try_to_vec::<f64>().expect("numbers"));
            }
            None => {
                // Nothing that is trained depends on running statistics.
                assert!(tensor.name.contains(".running_"), "{}", tensor.name);
                flat.extend(vec![0.0; tensor.len()]);
            }
        }
    }
    (value, flat)
}

/// How much worse than a few random roundings ours may be on stacks that nobody chose: those are of
/// terms alone, and the partial sums of some hundred terms that cancel are rounded too.
const ROUNDINGS: f64 = 64.0;

/// A stack that nobody chose, which may lose any number of digits.
pub(crate) fn check_random(case: &Case, batch: usize, tolerance: f64) {
    compare(case, batch, tolerance, ROUNDINGS);
}

/// A model that was chosen, and loses few digits.
fn check(case: &Case, batch: usize, tolerance: f64) {
    compare(case, batch, tolerance, 0.0);
}

fn compare(case: &Case, batch: usize, tolerance: f64, roundings: f64) {
    let data = case.data(batch);
    let mut random = stream(3);
    let mut weights = case.model.init(&mut random);
    for value in weights.values_mut() {
        *value += 0.05 * random.normal() as f32;
    }
    let (expected_loss, expected) = burn_gradient(case, &data, weights.values(), Rounding(None));
    // Sums that cancel, as those before a normalisation do, lose digits in any 32 bits. How many,
    // burn tells by itself.
    let mut lost = vec![0.0f64; expected.len()];
    let mut lost_loss = 0.0f64;
    let draws = if roundings > 0.0 { 4 } else { 0 };
    for number in 0..draws {
        let rounding = Rounding(Some(RefCell::new(stream(20 + number))));
        let (loss, rounded) = burn_gradient(case, &data, weights.values(), rounding);
        lost_loss = lost_loss.max((loss - expected_loss).abs());
        for ((lost, rounded), exact) in lost.iter_mut().zip(rounded).zip(&expected) {
            *lost = lost.max((rounded - exact).abs());
        }
    }
    let rows = (0..batch as u32).collect::<Vec<_>>();
    let mut session = Session::new(case.model.clone(), Kernels::best());
    session.start(weights.values(), &Optimizer::SGD, batch);
    let loss = session
        .gradient(&data, &rows, &mut stream(5))
        .expect("good examples")
        / batch as f64;
    assert!(
        (loss - expected_loss).abs() < 1e-5 * (1.0 + expected_loss.abs()) + roundings * lost_loss,
        "{}: loss {loss}, burn {expected_loss}",
        case.name
    );
    // A bias before batch normalisation has gradient zero, where only rounding is left.
    let least = match case.has_batch_norm() && draws == 0 {
        true => 0.02 * expected.iter().fold(0.0f64, |most, v| most.max(v.abs())),
        false => 1e-3,
    };
    for tensor in case.model.layout().tensors() {
        let (ours, theirs) = (
            &session.gradients()[tensor.range()],
            &expected[tensor.range()],
        );
        let lost = lost[tensor.range()]
            .iter()
            .fold(0.0f64, |most, v| most.max(*v));
        let scale = theirs.iter().fold(0.0f64, |most, v| most.max(v.abs()));
        for (index, (&a, &b)) in ours.iter().zip(theirs).enumerate() {
            let a = f64::from(a);
            assert!(
                (a - b).abs() <= tolerance * (scale + least) + roundings * lost,
                "{}: {}[{index}]: {a}, burn {b}, largest {scale}, lost in 32 bits {lost}",
                case.name,
                tensor.name
            );
        }
    }
}

#[test]
fn every_operator() {
    for case in operators() {
        if !case.has_dropout() {
            check(&case, 6, 2e-5);
        }
    }
}

#[test]
fn the_zoo() {
    let image = |size: usize, channels: usize| InputSpec::Real(vec![size, size, channels]);
    for (text, input, batch) in [
        ("kind = \"logreg\"", InputSpec::Real(vec![60]), 10),
        ("kind = \"mlp-2nn\"", image(28, 1), 10),
        ("kind = \"cnn-fedavg\"", image(28, 1), 3),
        ("kind = \"cnn-pfl\"\ndropout = [0.0, 0.0]", image(16, 3), 3),
        ("kind = \"resnet8-gn\"", image(16, 3), 3),
        ("kind = \"mlp\"", image(28, 1), 10),
        (
            "kind = \"mobilenet-v2\"\nwidth = 0.25\nstem-stride = 1\nstages = 4\nhead = 32",
            image(12, 3),
            6,
        ),
        (
            "kind = \"mobilenet-v2\"\nwidth = 0.25\nstem-stride = 1\nstages = 3\nnorm = \"group\"",
            image(12, 3),
            3,
        ),
    ] {
        let mut def = toml::from_str::<ModelDef>(text).expect(text);
        let target = TargetSpec::Class { classes: 10 };
        // A rate of zero is the identity, which burn's side leaves out.
        let mut layers = def.layers(&input).expect("layers");
        layers.retain(|layer| layer.kind() != "dropout");
        if text.contains("pfl") {
            def = ModelDef::Layers(fl_edge::LayersDef {
                layer: layers,
                loss: None,
            });
        }
        let model = Model::new(&def, &input, target).expect(text);
        let case = Case {
            name: "zoo",
            def,
            model: std::sync::Arc::new(model),
        };
        check(&case, batch, 1e-4);
    }
}
