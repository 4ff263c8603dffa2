//! Scaling up the channels that matter before weights are rounded: AWQ.
//!
//! A few channels of a layer's input are much larger than the others, and the error of their
//! weights counts for more. Each channel's weights are multiplied by `s = mean|x|^alpha`, and what
//! gives the channel is divided by it: the model in floats stays the same function, and rounding to
//! groups takes its error from where it hurts. `alpha` comes from a search over `[0, 1]` for each
//! layer, by the error of the layer's outputs.
//!
//! What gives the channel must bear a positive factor for each of its channels: a dense layer, a
//! convolution, a normalisation or an embedding, and between it and the layer nothing but relus, leaky
//! relus, pooling, dropout and other shapes. Where that is not so the layer stays as it is, and
//! [`AwqLayer::refused`] says why.
//!
//! # Source
//! Lin et al. 2024, "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and
//! Acceleration", arXiv:2306.00978, section 3.2, equations 4 and 5; the scales are divided by the root
//! of their largest times their smallest one, as the authors' program does.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;

use super::Samples;
use super::error::QuantError;
use super::four::{FourBits, Weight4, solved_units};
use super::gptq::{Layer, input_name};
use crate::graph::{Function, Graph, Op, TensorId, Unit, units};
use crate::kernel::{Fused, Kernels};
use crate::model::Model;
use crate::program::{Numerics, Passes, Program, ProgramError, served_weight};

/// Steps of the search from 0 to 1.
const STEPS: u8 = 20;

/// Inputs of a layer on which the search is judged, at most.
const MOST_INPUTS: usize = 512;

/// What AWQ did with one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AwqLayer {
    /// The unit, by the name of its output.
    pub unit: String,
    /// The power of the mean magnitude; 0 is no scaling.
    pub alpha: f64,
    /// `‖(W - W')ᵀ X‖² / ‖Wᵀ X‖²` without scaling.
    pub nearest: f64,
    /// The same with it.
    pub found: f64,
    /// Why the layer was left as it was, if it was.
    pub refused: Option<String>,
}

/// A model that bears rounding better.
#[derive(Clone, Debug, PartialEq)]
pub struct Awq {
    /// Parameters of the same function, to be brought into four bits.
    pub parameters: Vec<f32>,
    /// In the order of computation.
    pub layers: Vec<AwqLayer>,
}

/// The tensors whose last axis is the channels that a layer reads.
struct Giver {
    tensors: Vec<TensorId>,
    channels: usize,
}

/// Scales the channels of every layer that bears it.
///
/// # Errors
/// [`ProgramError`] when the parameters are not the model's, the samples not its inputs, or
/// activations are not finite.
pub fn awq(
    model: &Arc<Model>,
    parameters: &[f32],
    format: &FourBits,
    samples: &Samples<'_>,
) -> Result<Awq, ProgramError> {
    format.check()?;
    let graph = &model.graph;
    let names = solved_units(model);
    let mut parameters = parameters.to_vec();
    let mut layers = Vec::new();
    for unit in &units(graph) {
        let name = &graph.values[unit.output].name;
        if !names.contains(name) || format.float_units.contains_key(name) {
            continue;
        }
        let program = Program::compile(model, &parameters, &Numerics::F32, Passes::OBSERVED)?;
        let layer = Layer::of(graph, unit);
        let inputs = Inputs::of(&layer, graph, unit, samples, program)?;
        let (tensor, weight) = served_weight(model, &parameters, unit);
        let judge = |scales: &[f32]| inputs.loss(&layer, &tensor, format, &weight, scales);
        let nearest = judge(&vec![1.0; layer.terms * layer.groups])?;
        let mut made = AwqLayer {
            unit: name.clone(),
            alpha: 0.0,
            nearest,
            found: nearest,
            refused: None,
        };
        match giver(model, unit) {
            Err(reason) => made.refused = Some(reason),
            Ok(giver) => {
                let magnitudes = inputs.magnitudes(&layer, giver.channels);
                let mut best = vec![1.0; giver.channels];
                for step in 1..=STEPS {
                    let alpha = f64::from(step) / f64::from(STEPS);
                    let scales = scales(&magnitudes, alpha);
                    let found = judge(&layer.spread(&scales))?;
                    if found < made.found {
                        (made.alpha, made.found) = (alpha, found);
                        best = scales;
                    }
                }
                if made.alpha > 0.0 {
                    fold(model, &mut parameters, unit, &layer, &giver, &best);
                }
            }
        }
        layers.push(made);
    }
    Ok(Awq { parameters, layers })
}

/// Who gives the channels that a unit reads, or why they cannot be scaled.
fn giver(model: &Model, unit: &Unit) -> Result<Giver, String> {
    let graph = &model.graph;
    let mut value = graph.nodes[unit.node].input;
    loop {
        value = graph.values[value].root;
        let name = &graph.values[value].name;
        if value == 0 {
            return Err("it reads the model's input".to_owned());
        }
        if graph.readers(value) != 1 {
            return Err(format!("`{name}` has other readers"));
        }
        let Some(node) = graph.nodes.iter().find(|node| node.output == value) else {
            return Err("it reads the model's input".to_owned());
        };
        let clamp = match &node.op {
            Op::Dense { fused, .. } | Op::Conv { fused, .. } | Op::BatchNorm { fused, .. } => {
                *fused
            }
            _ => Fused::None,
        };
        if clamp == Fused::Relu6 {
            return Err(format!("`{name}` is clamped to 6"));
        }
        let tensors = match &node.op {
            Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool { .. }
            | Op::Dropout { .. }
            | Op::Function(Function::Relu | Function::LeakyRelu { .. }) => {
                value = node.input;
                continue;
            }
            Op::Dense { weight, bias, .. } | Op::Conv { weight, bias, .. } => {
                let mut tensors = vec![*weight];
                tensors.extend(bias);
                tensors
            }
            Op::BatchNorm { scale, shift, .. } | Op::Norm { scale, shift, .. } => {
                vec![*scale, *shift]
            }
            Op::Embedding { table, .. } => vec![*table],
            Op::Add { .. } => return Err(format!("`{name}` is a sum")),
            _ => return Err(format!("`{name}` is not proportional to what it reads")),
        };
        let shape = &model.layout().tensors()[tensors[0]].shape;
        return Ok(Giver {
            channels: shape.last().copied().unwrap_or(1),
            tensors,
        });
    }
}

/// `mean|x|^alpha`, divided by the root of the largest times the smallest; 1 for a channel that is
/// always zero.
fn scales(magnitudes: &[f64], alpha: f64) -> Vec<f32> {
    let power = |magnitude: f64| libm::pow(magnitude, alpha).max(1e-4);
    let alive = magnitudes.iter().filter(|&&magnitude| magnitude > 0.0);
    let (mut low, mut high) = (f64::INFINITY, 0f64);
    for &magnitude in alive {
        (low, high) = (low.min(power(magnitude)), high.max(power(magnitude)));
    }
    let middle = libm::sqrt(low * high);
    let scale = |&magnitude: &f64| match magnitude > 0.0 {
        true => (power(magnitude) / middle) as f32,
        false => 1.0,
    };
    magnitudes.iter().map(scale).collect()
}

impl Layer {
    /// The channel of a term of a group, of so many channels.
    fn channel(&self, group: usize, term: usize, channels: usize) -> usize {
        let group_in = channels / self.groups;
        match self.is_conv() {
            true => group * group_in + term % group_in,
            false => term % channels,
        }
    }

    /// The scale of each term of each group.
    fn spread(&self, scales: &[f32]) -> Vec<f32> {
        let each = |group| {
            (0..self.terms).map(move |term| scales[self.channel(group, term, scales.len())])
        };
        (0..self.groups).flat_map(each).collect()
    }
}

/// Inputs of a layer, for each group of channels `[inputs, terms]`.
struct Inputs {
    rows: Vec<Vec<f32>>,
}

impl Inputs {
    fn of(
        layer: &Layer,
        graph: &Graph,
        unit: &Unit,
        samples: &Samples<'_>,
        program: Program,
    ) -> Result<Self, ProgramError> {
        let name = input_name(graph, unit);
        let mut rows = vec![Vec::new(); layer.groups];
        let each = MOST_INPUTS.div_ceil(samples.rows().len());
        let mut example = 0;
        samples.observe(program, &mut |value, numbers| {
            if value == name {
                layer.take(numbers, each, &mut example, &mut |group, x| {
                    let rows: &mut Vec<f32> = &mut rows[group];
                    if rows.len() < MOST_INPUTS * layer.terms {
                        rows.extend(x);
                    }
                });
            }
        })?;
        match rows.iter().flatten().all(|x| x.is_finite()) {
            true => Ok(Self { rows }),
            false => Err(QuantError::NonFinite {
                point: name.to_owned(),
            }
            .into()),
        }
    }

    /// The mean magnitude of each channel.
    fn magnitudes(&self, layer: &Layer, channels: usize) -> Vec<f64> {
        let (mut sums, mut counts) = (vec![0.0; channels], vec![0u32; channels]);
        for (group, rows) in self.rows.iter().enumerate() {
            for (at, x) in rows.iter().enumerate() {
                let channel = layer.channel(group, at % layer.terms, channels);
                sums[channel] += f64::from(x.abs());
                counts[channel] += 1;
            }
        }
        let means = sums.iter().zip(counts);
        means
            .map(|(sum, count)| sum / f64::from(count.max(1)))
            .collect()
    }

    /// `‖(W - Q(W s) / s)ᵀ X‖² / ‖Wᵀ X‖²`, with a scale for each term of each group.
    fn loss(
        &self,
        layer: &Layer,
        tensor: &str,
        format: &FourBits,
        weight: &[f32],
        scales: &[f32],
    ) -> Result<f64, QuantError> {
        let (terms, columns) = (layer.terms, layer.columns);
        let all = columns * layer.groups;
        let scale = |at: usize| scales[at % all / columns * terms + at / all];
        let scaled: Vec<f32> = (weight.iter().enumerate())
            .map(|(at, w)| w * scale(at))
            .collect();
        let made = Weight4::nearest(tensor, format, all, &scaled)?;
        let mut found = made.dequantized();
        for (at, w) in found.iter_mut().enumerate() {
            *w /= scale(at);
        }
        let (mut lost, mut whole) = (0.0, 0.0);
        let mut out = vec![0.0; columns];
        let mut energy = |matrix: &[f64], x: &[f64]| {
            out.fill(0.0);
            Kernels::best().subtract_rows(x, matrix, columns, &mut out);
            out.iter().map(|y| y * y).sum::<f64>()
        };
        for (group, rows) in self.rows.iter().enumerate() {
            let weight = layer.part(weight, group);
            let mut error = layer.part(&found, group);
            for (e, w) in error.iter_mut().zip(&weight) {
                *e -= w;
            }
            let mut x = vec![0.0; terms];
            for row in rows.chunks_exact(terms) {
                for (x, &value) in x.iter_mut().zip(row) {
                    *x = f64::from(value);
                }
                lost += energy(&error, &x);
                whole += energy(&weight, &x);
            }
        }
        Ok(if lost == 0.0 { 0.0 } else { lost / whole })
    }
}

/// Multiplies the unit's weights by the scales, and divides what gives its channels by them.
fn fold(
    model: &Model,
    parameters: &mut [f32],
    unit: &Unit,
    layer: &Layer,
    giver: &Giver,
    scales: &[f32],
) {
    let tensors = model.layout().tensors();
    let (Op::Dense { weight, .. } | Op::Conv { weight, .. }) = model.graph.nodes[unit.node].op
    else {
        unreachable!("no product");
    };
    let spread = layer.spread(scales);
    let all = layer.columns * layer.groups;
    for (at, w) in parameters[tensors[weight].range()].iter_mut().enumerate() {
        *w *= spread[at % all / layer.columns * layer.terms + at / all];
    }
    for &tensor in &giver.tensors {
        let values = parameters[tensors[tensor].range()].iter_mut();
        for (at, value) in values.enumerate() {
            *value /= scales[at % giver.channels];
        }
    }
}
