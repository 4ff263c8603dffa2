//! Weights of four bits that lose little on the inputs that a model really sees: GPTQ.
//!
//! Rounding to the nearest minimises the error of the weights. What counts is the error of a
//! layer's outputs, `‖(W - W')ᵀ X‖²` over its inputs `X`: GPTQ rounds one term after another and lets the
//! terms that are still to come make up for what has been lost, as far as the second moments
//! `H = 2 X Xᵀ` say that they can.
//!
//! Layers are taken in the order of computation. The inputs of each are those that the model gives
//! whose earlier layers are already in four bits, so that a layer also makes up for those.
//!
//! # Source
//! Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
//! Transformers", arXiv:2210.17323, algorithm 1. As in the authors' program, scales of a group are
//! fitted when its first term is reached (with `act_order` beforehand, to the weights as they
//! were). Unlike there, a weight whose input was always zero is rounded and not set to zero: the
//! next example may have another input. And an output whose nearest codes lose less keeps those,
//! as can be where inputs hardly know of one another.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;

use super::error::QuantError;
use super::four::{FourBits, Weight4, Weights4, solved_units};
use super::hessian::Hessian;
use super::{Float, Samples};
use crate::graph::{Graph, Op, Unit, units};
use crate::kernel::{Conv, Kernels};
use crate::model::Model;
use crate::program::{Passes, Program, ProgramError, served_weight};

/// Terms whose errors are gathered before they are passed on to the terms behind them.
const BLOCK: usize = 128;

/// Inputs of a layer that are looked at, at most: positions of a convolution are taken evenly from
/// every example.
const MOST_INPUTS: usize = 8192;

/// How GPTQ goes about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GptqOptions {
    /// What is added to the diagonal of the second moments, as a share of its mean: above 0.
    pub damping: f64,
    /// Whether terms with the largest inputs go first. Scales are then fitted beforehand.
    pub act_order: bool,
}

impl Default for GptqOptions {
    /// A damping of 0.01, terms in their order.
    fn default() -> Self {
        Self {
            damping: 0.01,
            act_order: false,
        }
    }
}

/// What one layer loses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerLoss {
    /// The unit, by the name of its output.
    pub unit: String,
    /// `‖(W - W')ᵀ X‖² / ‖Wᵀ X‖²` with codes rounded to the nearest.
    pub nearest: f64,
    /// The same with the codes that were found.
    pub found: f64,
}

/// A model in four bits, and what each of its layers loses there.
#[derive(Clone, Debug, PartialEq)]
pub struct Gptq {
    /// For [`Program::compile_four`], with [`Passes`] that fold batch normalisations.
    pub weights: Weights4,
    /// In the order of computation.
    pub layers: Vec<LayerLoss>,
}

/// Brings the weights of a model into four bits by GPTQ.
///
/// # Errors
/// [`ProgramError`] when the parameters are not the model's, the samples not its inputs, the
/// damping is not above 0, or activations are not finite.
pub fn gptq(
    model: &Arc<Model>,
    parameters: &[f32],
    format: &FourBits,
    samples: &Samples<'_>,
    options: GptqOptions,
) -> Result<Gptq, ProgramError> {
    if !(options.damping > 0.0 && options.damping.is_finite()) {
        return Err(QuantError::Damping {
            value: options.damping,
        }
        .into());
    }
    let graph = &model.graph;
    let names = solved_units(model);
    let mut weights = Weights4 {
        format: format.clone(),
        tensors: BTreeMap::new(),
    };
    let mut layers = Vec::new();
    for unit in &units(graph) {
        let name = &graph.values[unit.output].name;
        if !names.contains(name) || format.float_units.contains_key(name) {
            continue;
        }
        // What is still to come is in floats.
        let mut so_far = weights.clone();
        let done = |name: &String| layers.iter().any(|layer: &LayerLoss| layer.unit == *name);
        for later in names.iter().filter(|&name| !done(name)) {
            let float = so_far.format.float_units.entry(later.clone());
            float.or_insert(Float::F32);
        }
        let program = Program::compile_four(model, parameters, &so_far, Passes::OBSERVED)?;
        let (tensor, weight) = served_weight(model, parameters, unit);
        let layer = Layer::of(graph, unit);
        let moments = layer.moments(graph, unit, samples, program)?;
        let columns = layer.columns * layer.groups;
        let nearest = Weight4::nearest(&tensor, format, columns, &weight)?;
        let mut found = nearest.clone();
        for (group, hessian) in moments.iter().enumerate() {
            layer.round(&tensor, hessian, &weight, group, options, &mut found)?;
            layer.keep_better(hessian, &weight, group, &nearest, &mut found);
        }
        let loss = |made: &Weight4| layer.loss(&moments, &weight, &made.dequantized());
        layers.push(LayerLoss {
            unit: name.clone(),
            nearest: loss(&nearest),
            found: loss(&found),
        });
        weights.tensors.insert(tensor, found);
    }
    Ok(Gptq { weights, layers })
}

/// What each layer of a model loses with codes that were found by whatever means: on the inputs
/// that the model gives with all its weights in floats.
///
/// # Errors
/// As [`gptq`].
pub fn layer_losses(
    model: &Arc<Model>,
    parameters: &[f32],
    weights: &Weights4,
    samples: &Samples<'_>,
) -> Result<Vec<LayerLoss>, ProgramError> {
    let graph = &model.graph;
    let names = solved_units(model);
    let mut layers = Vec::new();
    for unit in &units(graph) {
        let name = &graph.values[unit.output].name;
        if !names.contains(name) || weights.format.float_units.contains_key(name) {
            continue;
        }
        let numerics = crate::program::Numerics::F32;
        let program = Program::compile(model, parameters, &numerics, Passes::OBSERVED)?;
        let (tensor, weight) = served_weight(model, parameters, unit);
        let layer = Layer::of(graph, unit);
        let moments = layer.moments(graph, unit, samples, program)?;
        let columns = layer.columns * layer.groups;
        let nearest = Weight4::nearest(&tensor, &weights.format, columns, &weight)?;
        let found = weights.tensors.get(&tensor).unwrap_or(&nearest);
        let loss = |made: &Weight4| layer.loss(&moments, &weight, &made.dequantized());
        layers.push(LayerLoss {
            unit: name.clone(),
            nearest: loss(&nearest),
            found: loss(found),
        });
    }
    Ok(layers)
}

/// A product as a matrix.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    conv: Option<Conv>,
    /// Terms and columns of each group of channels.
    pub(super) terms: usize,
    pub(super) columns: usize,
    pub(super) groups: usize,
}

impl Layer {
    pub(super) fn of(graph: &Graph, unit: &Unit) -> Self {
        match &graph.nodes[unit.node].op {
            Op::Dense { geometry, .. } => Self {
                conv: None,
                terms: geometry.inputs,
                columns: geometry.outputs,
                groups: 1,
            },
            Op::Conv { geometry, .. } => {
                let s = geometry.shape();
                Self {
                    terms: geometry.weight_len() / s.filters,
                    columns: s.filters / s.groups,
                    groups: s.groups,
                    conv: Some(geometry.clone()),
                }
            }
            _ => unreachable!("no product"),
        }
    }

    /// The second moments of the inputs, for each group of channels.
    pub(super) fn moments(
        &self,
        graph: &Graph,
        unit: &Unit,
        samples: &Samples<'_>,
        program: Program,
    ) -> Result<Vec<Hessian>, ProgramError> {
        let name = input_name(graph, unit);
        let mut moments = vec![Hessian::new(self.terms); self.groups];
        let mut finite = true;
        let each = MOST_INPUTS.div_ceil(samples.rows().len());
        let mut example = 0;
        samples.observe(program, &mut |value, numbers| {
            if value == name {
                finite &= numbers.iter().all(|x| x.is_finite());
                self.take(numbers, each, &mut example, &mut |group, x| {
                    moments[group].add(x);
                });
            }
        })?;
        moments.iter_mut().for_each(Hessian::flush);
        match finite {
            true => Ok(moments),
            false => Err(QuantError::NonFinite {
                point: name.to_owned(),
            }
            .into()),
        }
    }

    /// Whether it is a convolution.
    pub(super) fn is_conv(&self) -> bool {
        self.conv.is_some()
    }

    /// Gives the inputs of each group of channels for some examples, of each example at most so
    /// many positions.
    pub(super) fn take(
        &self,
        numbers: &[f32],
        each: usize,
        example: &mut usize,
        give: &mut dyn FnMut(usize, &mut dyn Iterator<Item = f32>),
    ) {
        let Some(conv) = &self.conv else {
            for x in numbers.chunks_exact(self.terms) {
                give(0, &mut x.iter().copied());
            }
            return;
        };
        let s = conv.shape();
        let positions = conv.output_len() / s.filters;
        let wide = conv.out_width();
        let taken = positions.min(each);
        let group_in = s.channels / s.groups;
        for image in numbers.chunks_exact(conv.input_len()) {
            // Another offset in every example, so that all positions are seen.
            let offset = *example * 7;
            *example += 1;
            for index in 0..taken {
                let position = (index * positions / taken + offset) % positions;
                let (top, left) = (position / wide * s.stride[0], position % wide * s.stride[1]);
                let pixel = |kh: usize, kw: usize, channel: usize| {
                    let h = (top + kh).wrapping_sub(s.padding.top);
                    let w = (left + kw).wrapping_sub(s.padding.left);
                    match h < s.height && w < s.width {
                        true => image[(h * s.width + w) * s.channels + channel],
                        false => 0.0,
                    }
                };
                for group in 0..s.groups {
                    let mut terms = (0..self.terms).map(|term| {
                        let (window, channel) = (term / group_in, term % group_in);
                        let [_, wide] = s.kernel;
                        pixel(window / wide, window % wide, group * group_in + channel)
                    });
                    give(group, &mut terms);
                }
            }
        }
    }

    /// The columns of a group of channels of `[terms, groups * columns]`, in `f64`.
    pub(super) fn part(&self, weight: &[f32], group: usize) -> Vec<f64> {
        let all = self.columns * self.groups;
        let rows = weight.chunks_exact(all);
        let part = rows.flat_map(|row| &row[group * self.columns..][..self.columns]);
        part.map(|&w| f64::from(w)).collect()
    }

    /// `‖(W - W')ᵀ X‖² / ‖Wᵀ X‖²`; 0 where nothing is lost.
    pub(super) fn loss(&self, moments: &[Hessian], weight: &[f32], found: &[f32]) -> f64 {
        let (mut lost, mut all) = (0.0, 0.0);
        for (group, hessian) in moments.iter().enumerate() {
            let weight = self.part(weight, group);
            let mut error = self.part(found, group);
            for (e, w) in error.iter_mut().zip(&weight) {
                *e -= w;
            }
            lost += hessian.energies(&error, self.columns).iter().sum::<f64>();
            all += hessian.energies(&weight, self.columns).iter().sum::<f64>();
        }
        if lost == 0.0 { 0.0 } else { lost / all }
    }

    /// Takes the nearest codes of every column of a group of channels that loses less with them.
    fn keep_better(
        &self,
        hessian: &Hessian,
        weight: &[f32],
        channels: usize,
        nearest: &Weight4,
        found: &mut Weight4,
    ) {
        let weight = self.part(weight, channels);
        let lost = |made: &Weight4| {
            let mut error = self.part(&made.dequantized(), channels);
            for (e, w) in error.iter_mut().zip(&weight) {
                *e -= w;
            }
            hessian.energies(&error, self.columns)
        };
        let losses = lost(nearest).into_iter().zip(lost(found));
        for (column, (rounded, solved)) in losses.enumerate() {
            if rounded < solved {
                found.copy_column(nearest, channels * self.columns + column);
            }
        }
    }

    /// Rounds one group of channels.
    fn round(
        &self,
        tensor: &str,
        hessian: &Hessian,
        weight: &[f32],
        channels: usize,
        options: GptqOptions,
        made: &mut Weight4,
    ) -> Result<(), QuantError> {
        let (n, columns, all) = (self.terms, self.columns, self.columns * self.groups);
        let first = channels * columns;
        let mut order: Vec<usize> = (0..n).collect();
        if options.act_order {
            let diagonal: Vec<f64> = hessian.diagonal().collect();
            order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        }
        let factor = hessian.inverse_factor(&order, options.damping);
        let u = factor.ok_or_else(|| QuantError::Moments {
            tensor: tensor.to_owned(),
        })?;
        // Rows in the order in which they are rounded.
        let start = self.part(weight, channels);
        let mut w = vec![0.0; n * columns];
        for (row, &term) in w.chunks_exact_mut(columns).zip(&order) {
            row.copy_from_slice(&start[term * columns..][..columns]);
        }
        let kernels = Kernels::best();
        // The weights of the groups as they are when their scales are fitted.
        let mut current = weight.to_vec();
        for block in (0..n).step_by(BLOCK) {
            let end = n.min(block + BLOCK);
            let mut errors = vec![0.0; (end - block) * columns];
            for j in block..end {
                let term = order[j];
                if !options.act_order && j.is_multiple_of(made.group()) {
                    let last = n.min(j + made.group());
                    for k in j..last {
                        for column in 0..columns {
                            current[k * all + first + column] = w[k * columns + column] as f32;
                        }
                    }
                    for column in first..first + columns {
                        made.fit(tensor, &current, j / made.group(), column)?;
                    }
                }
                let pivot = u[j * n + j];
                let row = &mut w[j * columns..][..columns];
                let error = &mut errors[(j - block) * columns..][..columns];
                for (column, (w, error)) in row.iter().zip(error).enumerate() {
                    let grid = made.grid(term, first + column);
                    let code = grid.code(*w as f32);
                    made.set(term, first + column, code);
                    *error = (w - f64::from(grid.value(code))) / pivot;
                }
                let error = &errors[(j - block) * columns..][..columns];
                for k in j + 1..end {
                    let row = &mut w[k * columns..][..columns];
                    kernels.subtract_rows(&[u[j * n + k]], error, columns, row);
                }
            }
            let mut coefficients = vec![0.0; end - block];
            for k in end..n {
                for (j, c) in (block..end).zip(&mut coefficients) {
                    *c = u[j * n + k];
                }
                let row = &mut w[k * columns..][..columns];
                kernels.subtract_rows(&coefficients, &errors, columns, row);
            }
        }
        Ok(())
    }
}

/// The value that a unit reads, by the name under which a program shows it: dropouts give what they
/// read, and other shapes of a value are that value.
pub(super) fn input_name<'a>(graph: &'a Graph, unit: &Unit) -> &'a str {
    let mut value = graph.nodes[unit.node].input;
    loop {
        value = graph.values[value].root;
        let dropout = graph
            .nodes
            .iter()
            .find(|node| node.output == value && matches!(node.op, Op::Dropout { .. }));
        match dropout {
            Some(node) => value = node.input,
            None => return &graph.values[value].name,
        }
    }
}
