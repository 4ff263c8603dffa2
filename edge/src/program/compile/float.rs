//! Units in 32-bit floats.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::super::ProgramError;
use super::super::constants::{DType, Packing, bytes_of};
use super::{Compiler, halves};
use crate::graph::{Op, TensorId, Unit, ValueId, fold_batch_norm};
use crate::kernel::{Activation, Fused, Kernels, Recurrent};
use crate::model::Model;
use crate::plan::{batch_norm, kernel_function};
use crate::quant::Float;
use crate::runtime::{Constant, Factor, INPUT, Served, Slot, Step, Weight};

/// Bytes of a number.
const REAL: usize = 4;

impl Compiler<'_> {
    /// Where a value lies as `f32`.
    pub(super) fn real(&mut self, value: ValueId) -> Result<Slot, ProgramError> {
        let root = self.root[value];
        if let Some(slot) = self.held[root].real {
            return Ok(self.touch(slot));
        }
        let Some((x, from)) = self.held[root].codes else {
            unreachable!("a unit reads what no unit gave");
        };
        self.touch(x);
        let y = self.real_output(value);
        self.push(Step::Dequantize { x, y, from });
        self.held[root].real = Some(y);
        Ok(self.touch(y))
    }

    /// A buffer of `f32` for a value.
    fn real_output(&mut self, value: ValueId) -> Slot {
        self.buffer(REAL * self.len(value), 0)
    }

    pub(super) fn hold_real(&mut self, value: ValueId, slot: Slot) {
        let root = self.root[value];
        self.held[root].real = Some(slot);
        self.completes(value, slot);
    }

    pub(super) fn real_unit(&mut self, unit: &Unit) -> Result<(), ProgramError> {
        let node = &self.graph.nodes[unit.node];
        let (op, input) = (&node.op, node.input);
        let y = match *op {
            Op::Embedding { table, size } => {
                let tensor = &self.model.layout().tensors()[table];
                let (name, shape, range) =
                    (tensor.name.clone(), tensor.shape.clone(), tensor.range());
                let table = match self.four.filter(|_| self.few()) {
                    Some(format) => {
                        let values = self.parameters.map(|all| &all[range]);
                        let values = values.unwrap_or_default();
                        Weight::Four(self.table_of_four_bits(name, &shape, format, values)?)
                    }
                    None => self.weight(name, shape, Packing::Plain, |parameters| {
                        parameters[range].to_vec()
                    }),
                };
                let y = self.real_output(unit.own);
                self.push(Step::Embedding { size, table, y });
                y
            }
            Op::Add { other } => self.real_add(input, other, unit.own)?,
            Op::Dense { .. } | Op::Conv { .. } => self.real_product(unit)?,
            Op::Recurrent { .. } => self.real_recurrent(unit)?,
            Op::Position { table } if self.few() => self.position_of_four_bits(unit, table)?,
            _ => {
                let x = self.real(input)?;
                self.real_simple(unit, x)
            }
        };
        let fused = matches!(
            op,
            Op::Dense { .. } | Op::Conv { .. } | Op::BatchNorm { .. }
        );
        if !(fused && self.passes.fuse_activation) {
            self.clamp(unit.clamp, y);
        }
        if self.fuses_residual(unit) {
            self.hold_real(unit.output, y);
            return Ok(());
        }
        self.hold_real(unit.own, y);
        if let Some(residual) = &unit.residual {
            self.unread[self.root[unit.own]] = 1;
            let y = self.real_add(unit.own, residual.other, unit.output)?;
            self.clamp(residual.clamp, y);
            self.hold_real(unit.output, y);
        }
        Ok(())
    }

    fn clamp(&mut self, clamp: Fused, y: Slot) {
        let f = match clamp {
            Fused::None => return,
            Fused::Relu => Activation::Relu,
            Fused::Relu6 => Activation::Relu6,
        };
        self.touch(y);
        self.push(Step::ActivateInPlace { f, y });
    }

    fn fused(&self, clamp: Fused) -> Fused {
        match self.passes.fuse_activation {
            true => clamp,
            false => Fused::None,
        }
    }

    /// A product, with its normalisation; its clamp too where that is fused.
    fn real_product(&mut self, unit: &Unit) -> Result<Slot, ProgramError> {
        let node = &self.graph.nodes[unit.node];
        let x = self.real(node.input)?;
        let (Op::Dense { weight, bias, .. } | Op::Conv { weight, bias, .. }) = node.op else {
            unreachable!("no product");
        };
        let norm = unit.norm.filter(|_| !self.passes.fold_batch_norm);
        let fused = match norm {
            Some(_) => Fused::None,
            None => self.fused(unit.clamp),
        };
        let packs = self.passes.layout || self.float == Float::F16;
        let y = match packs {
            true => self.served_product(unit, x, norm.is_none())?,
            false => {
                let (weight, bias) = match unit.norm {
                    Some(norm) if self.passes.fold_batch_norm => {
                        let (weight, bias) = self.folded(weight, bias, norm);
                        (weight, Some(bias))
                    }
                    _ => (self.tensor(weight), bias.map(|bias| self.tensor(bias))),
                };
                self.plain_product(unit, x, weight, bias, fused)
            }
        };
        Ok(match norm {
            Some(norm) => {
                self.touch(y);
                self.real_batch_norm(norm, unit, y)
            }
            None => y,
        })
    }

    /// A product over weights as they are.
    fn plain_product(
        &mut self,
        unit: &Unit,
        mut x: Slot,
        weight: Constant,
        bias: Option<Constant>,
        fused: Fused,
    ) -> Slot {
        match &self.graph.nodes[unit.node].op {
            Op::Conv { geometry, .. } => {
                let geometry = geometry.clone();
                if geometry.is_padded() {
                    let padded = self.buffer(REAL * geometry.padded_len(), 0);
                    let geometry = geometry.clone();
                    self.push(Step::Pad {
                        geometry,
                        x,
                        y: padded,
                    });
                    x = self.touch(padded);
                }
                let y = self.real_output(unit.own);
                self.push(Step::Conv {
                    geometry,
                    x,
                    y,
                    weight,
                    bias,
                    fused,
                });
                y
            }
            &Op::Dense { geometry, .. } => {
                let y = self.real_output(unit.own);
                self.push(Step::Dense {
                    geometry,
                    x,
                    y,
                    weight,
                    bias,
                    fused,
                });
                y
            }
            _ => unreachable!("no product"),
        }
    }

    /// Whether the unit's addition is computed by its product.
    fn fuses_residual(&self, unit: &Unit) -> bool {
        let packs = self.passes.layout || self.float == Float::F16;
        let folds = unit.norm.is_none() || self.passes.fold_batch_norm;
        let clamps = self.passes.fuse_activation || unit.clamp == Fused::None;
        unit.residual.is_some()
            && unit.is_product(self.graph)
            && self.passes.fuse_residual
            && packs
            && folds
            && clamps
    }

    /// A product over packed weights. `ends` unless a normalisation follows.
    fn served_product(&mut self, unit: &Unit, x: Slot, ends: bool) -> Result<Slot, ProgramError> {
        let node = &self.graph.nodes[unit.node];
        let (Op::Dense { weight, bias, .. } | Op::Conv { weight, bias, .. }) = node.op else {
            unreachable!("no product");
        };
        let mut after = Served {
            first: match ends {
                true => self.fused(unit.clamp),
                false => Fused::None,
            },
            residual: None,
            last: Fused::None,
        };
        if self.fuses_residual(unit)
            && let Some(residual) = &unit.residual
        {
            after.residual = Some(self.real(residual.other)?);
            after.last = self.fused(residual.clamp);
            self.touch(x);
        }
        let folded = unit.norm.filter(|_| ends);
        let parts = self.parameters.map(|parameters| {
            let tensors = self.model.layout().tensors();
            match folded {
                Some(norm) => {
                    let (weight, bias) = folded_product(self.model, parameters, weight, bias, norm);
                    (weight, Some(bias))
                }
                None => {
                    let values = |tensor: TensorId| parameters[tensors[tensor].range()].to_vec();
                    (values(weight), bias.map(values))
                }
            }
        });
        let (weights, biases) = parts.unwrap_or_default();
        let tensors = self.model.layout().tensors();
        let name = tensors[weight].name.clone();
        let bias = match (folded.map(|norm| &self.graph.nodes[norm].op), bias) {
            (Some(Op::BatchNorm { shift, .. }), None) => Some(&tensors[*shift]),
            (_, bias) => bias.map(|bias| &tensors[bias]),
        };
        let bias = bias.map(|bias| (bias.name.clone(), bias.shape.clone()));
        let kernels = Kernels::best();
        let depthwise = matches!(&node.op, Op::Conv { geometry, .. } if geometry.is_depthwise());
        let weight = if let Some(format) = self.four.filter(|_| !depthwise) {
            self.four_bits(name, &node.op, format, &weights)?
        } else if self.few() {
            self.eight_bits(name, &tensors[weight].shape, &weights)?
        } else {
            let (shape, packing) = match &node.op {
                Op::Conv { geometry, .. }
                    if geometry.packed_len() == geometry.weight_len()
                        && geometry.is_depthwise() =>
                {
                    (tensors[weight].shape.clone(), Packing::Plain)
                }
                Op::Conv { geometry, .. } => {
                    (vec![geometry.packed_len() / 16, 16], Packing::Panels16)
                }
                Op::Dense { geometry, .. } => {
                    (vec![geometry.packed_len() / 16, 16], Packing::Panels16)
                }
                _ => unreachable!("no product"),
            };
            self.weight(name, shape, packing, |_| match &node.op {
                Op::Conv { geometry, .. } => {
                    let mut packed = vec![0.0; geometry.packed_len()];
                    kernels.pack_conv(geometry, &weights, &mut packed);
                    packed
                }
                Op::Dense { geometry, .. } => {
                    let mut packed = vec![0.0; geometry.packed_len()];
                    kernels.pack_dense(geometry, &weights, &mut packed);
                    packed
                }
                _ => unreachable!("no product"),
            })
        };
        let bias =
            bias.map(|(name, shape)| self.small(name, shape, |_| biases.unwrap_or_default()));
        let y = match &node.op {
            &Op::Dense { geometry, .. } => {
                let y = self.real_output(unit.own);
                let scratch = match geometry.served_scratch_len(weight.kind()) {
                    0 => None,
                    len => Some(self.buffer(0, REAL * len)),
                };
                self.push(Step::ServedDense {
                    geometry,
                    x,
                    y,
                    weight,
                    bias,
                    after,
                    scratch,
                });
                y
            }
            Op::Conv { geometry, .. } => {
                let geometry = geometry.clone();
                let in_place = geometry.serves_in_place() && self.may_overwrite(node.input, x);
                let y = match in_place {
                    true => x,
                    false => self.real_output(unit.own),
                };
                let scratch = self.buffer(0, REAL * geometry.served_scratch_len(weight.kind()));
                self.push(match in_place {
                    true => Step::ServedConvInPlace {
                        geometry,
                        y,
                        weight,
                        bias,
                        after,
                        scratch,
                    },
                    false => Step::ServedConv {
                        geometry,
                        x,
                        y,
                        weight,
                        bias,
                        after,
                        scratch,
                    },
                });
                y
            }
            _ => unreachable!("no product"),
        };
        if after.residual.is_some()
            && let Some(residual) = &unit.residual
            && !self.passes.fuse_activation
        {
            self.clamp(residual.clamp, y);
        }
        Ok(y)
    }

    /// A recurrent layer whose product is in floats.
    fn real_recurrent(&mut self, unit: &Unit) -> Result<Slot, ProgramError> {
        let Op::Recurrent {
            geometry,
            weight: tensor,
            bias,
        } = self.graph.nodes[unit.node].op
        else {
            unreachable!("no recurrent layer");
        };
        let input = self.graph.nodes[unit.node].input;
        let x = self.real(input)?;
        let gates = self.own_copy(input, x, 1);
        let bias = bias.map(|bias| self.tensor(bias));
        let (kept, scratch, y) = self.recurrent_buffers(unit, geometry);
        self.touch(gates);
        if !(self.passes.layout || self.float == Float::F16) {
            let weight = self.tensor(tensor);
            self.push(Step::Recurrent {
                geometry,
                gates,
                y,
                kept,
                scratch,
                weight,
                bias,
            });
            return Ok(y);
        }
        let d = geometry.product();
        let tensor = &self.model.layout().tensors()[tensor];
        let (name, range) = (tensor.name.clone(), tensor.range());
        let weight = match self.four {
            Some(format) => {
                let values = self.parameters.map(|all| &all[range]);
                let product = Op::Dense {
                    geometry: d,
                    weight: 0,
                    bias: None,
                    fused: Fused::None,
                };
                self.four_bits(name, &product, format, values.unwrap_or_default())?
            }
            None => {
                let shape = vec![d.packed_len() / 16, 16];
                self.weight(name, shape, Packing::Panels16, |parameters| {
                    let mut packed = vec![0.0; d.packed_len()];
                    Kernels::best().pack_dense(&d, &parameters[range], &mut packed);
                    packed
                })
            }
        };
        let block = match d.served_scratch_len(weight.kind()) {
            0 => None,
            len => Some(self.buffer(0, REAL * len)),
        };
        self.push(Step::ServedRecurrent {
            geometry,
            gates,
            y,
            kept,
            scratch,
            weight,
            bias,
            block,
        });
        Ok(y)
    }

    /// What is kept, scratch and states of a recurrent layer.
    pub(super) fn recurrent_buffers(
        &mut self,
        unit: &Unit,
        geometry: Recurrent,
    ) -> (Slot, Slot, Slot) {
        let kept = self.buffer(REAL * geometry.states_len(), 0);
        let scratch = self.buffer(REAL * geometry.forward_scratch_len(), 0);
        (kept, scratch, self.real_output(unit.own))
    }

    /// Weights in the type that the unit at hand stores them in.
    fn weight(
        &mut self,
        name: String,
        shape: Vec<usize>,
        packing: Packing,
        values: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Weight {
        match self.float {
            Float::F32 => {
                Weight::Single(
                    self.constant(name, DType::F32, shape, packing, |parameters| {
                        bytes_of(&values(parameters))
                    }),
                )
            }
            Float::F16 => {
                let tensor = name.clone();
                let mut beyond = None;
                let half = self.constant(name, DType::F16, shape, packing, |parameters| {
                    halves(&values(parameters), &mut beyond)
                });
                self.refuse_beyond(tensor, beyond);
                Weight::Half(half)
            }
        }
    }

    /// Weight and bias of a product with a normalisation folded in.
    fn folded(
        &mut self,
        weight: TensorId,
        bias: Option<TensorId>,
        norm: usize,
    ) -> (Constant, Constant) {
        let Op::BatchNorm { shift, .. } = self.graph.nodes[norm].op else {
            unreachable!("no normalisation");
        };
        let both = self
            .parameters
            .map(|parameters| folded_product(self.model, parameters, weight, bias, norm));
        let (w, b) = both.unwrap_or_default();
        let tensors = self.model.layout().tensors();
        let (weight, bias) = (&tensors[weight], &tensors[bias.unwrap_or(shift)]);
        let (name, shape) = (weight.name.clone(), weight.shape.clone());
        let (bias_name, bias_shape) = (bias.name.clone(), bias.shape.clone());
        let weight = self.constant(name, DType::F32, shape, Packing::Plain, |_| bytes_of(&w));
        let bias = self.constant(bias_name, DType::F32, bias_shape, Packing::Plain, |_| {
            bytes_of(&b)
        });
        (weight, bias)
    }

    /// The normalisation of `x` by running statistics.
    fn real_batch_norm(&mut self, norm: usize, unit: &Unit, x: Slot) -> Slot {
        let Op::BatchNorm {
            channels,
            positions,
            scale,
            shift,
            mean,
            variance,
            epsilon,
            ..
        } = self.graph.nodes[norm].op
        else {
            unreachable!("no normalisation");
        };
        let (gamma, beta) = (self.tensor(scale), self.tensor(shift));
        let mean = self.tensor(mean);
        let variance = &self.model.layout().tensors()[variance];
        let (name, shape, range) = (
            variance.name.clone(),
            variance.shape.clone(),
            variance.range(),
        );
        let r = if self.passes.fold_constants {
            let name = format!("{name}.factor");
            Factor::Constant(
                self.constant(name, DType::F32, shape, Packing::Plain, |all| {
                    let mut r = vec![0.0; channels];
                    Kernels::best().batch_norm_factor(epsilon, &all[range], &mut r);
                    bytes_of(&r)
                }),
            )
        } else {
            let variance = self.constant(name, DType::F32, shape, Packing::Plain, |all| {
                bytes_of(&all[range])
            });
            let r = self.buffer(0, REAL * channels);
            self.push(Step::BatchNormFactor {
                epsilon,
                variance,
                r,
            });
            self.touch(x);
            Factor::Buffer(self.touch(r))
        };
        let y = self.real_output(unit.own);
        self.push(Step::BatchNorm {
            geometry: batch_norm(positions, channels, epsilon),
            x,
            y,
            mean,
            r,
            gamma,
            beta,
            fused: self.fused(unit.clamp),
        });
        y
    }

    /// The sum of two values.
    fn real_add(
        &mut self,
        one: ValueId,
        other: ValueId,
        _sum: ValueId,
    ) -> Result<Slot, ProgramError> {
        let (mut to, mut from) = (self.real(one)?, self.real(other)?);
        if to == from {
            let y = self.own_copy(one, to, 2);
            self.push(Step::Double { y });
            return Ok(y);
        }
        let mut into = one;
        if !(self.is_last_reader(one, 1) && to != INPUT) {
            (to, from, into) = (from, to, other);
        }
        let y = self.own_copy(into, to, 1);
        self.touch(from);
        self.push(Step::Add { x: from, y });
        Ok(y)
    }

    /// Whether the unit at hand, which reads a value once, may write where it lies.
    fn may_overwrite(&self, value: ValueId, x: Slot) -> bool {
        x != INPUT && self.is_last_reader(value, 1)
    }

    /// A value's buffer if this unit, with so many reads, is its last reader; else a copy.
    pub(super) fn own_copy(&mut self, value: ValueId, x: Slot, reads: usize) -> Slot {
        if x != INPUT && self.is_last_reader(value, reads) {
            return x;
        }
        let y = self.real_output(value);
        self.push(Step::Copy { x, y });
        self.touch(y)
    }

    /// A unit of one input, which lies in `x`.
    pub(super) fn real_simple(&mut self, unit: &Unit, x: Slot) -> Slot {
        let node = &self.graph.nodes[unit.node];
        match node.op {
            Op::MaxPool(geometry) => {
                let y = self.real_output(unit.own);
                self.push(Step::MaxPool { geometry, x, y });
                y
            }
            Op::AvgPool(geometry) => {
                let y = self.real_output(unit.own);
                self.push(Step::AvgPool { geometry, x, y });
                y
            }
            Op::GlobalAvgPool {
                positions,
                channels,
            } => {
                let y = self.real_output(unit.own);
                self.push(Step::GlobalAvgPool {
                    positions,
                    channels,
                    x,
                    y,
                });
                y
            }
            Op::Function(function) => {
                let f = kernel_function(function);
                if self.may_overwrite(node.input, x) {
                    self.push(Step::ActivateInPlace { f, y: x });
                    return x;
                }
                let y = self.real_output(unit.own);
                self.push(Step::Activate { f, x, y });
                y
            }
            Op::Dropout { .. } => {
                let y = self.real_output(unit.own);
                self.push(Step::Copy { x, y });
                y
            }
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                let gamma = self.small_tensor(scale);
                let beta = self.small_tensor(shift);
                let stats = self.buffer(REAL * geometry.stats_len(), 0);
                let scratch = self.buffer(0, REAL * geometry.scratch_len());
                if self.may_overwrite(node.input, x) {
                    self.push(Step::NormInPlace {
                        geometry,
                        y: x,
                        stats,
                        scratch,
                        gamma,
                        beta,
                    });
                    return x;
                }
                let y = self.real_output(unit.own);
                self.push(Step::Norm {
                    geometry,
                    x,
                    y,
                    stats,
                    scratch,
                    gamma,
                    beta,
                });
                y
            }
            Op::BatchNorm { .. } => self.real_batch_norm(unit.node, unit, x),
            Op::Attention(geometry) => {
                let probabilities = self.buffer(REAL * geometry.probabilities_len(), 0);
                let scratch = self.buffer(0, REAL * geometry.forward_scratch_len());
                let y = self.real_output(unit.own);
                self.push(Step::Attention {
                    geometry,
                    x,
                    y,
                    probabilities,
                    scratch,
                });
                y
            }
            Op::Last {
                positions,
                channels,
            } => {
                let y = self.real_output(unit.own);
                self.push(Step::Last {
                    positions,
                    channels,
                    x,
                    y,
                });
                y
            }
            Op::Position { table } => {
                let table = self.tensor(table);
                let y = self.own_copy(node.input, x, 1);
                self.push(Step::Position { table, y });
                y
            }
            Op::Dense { .. }
            | Op::Conv { .. }
            | Op::Add { .. }
            | Op::Embedding { .. }
            | Op::Recurrent { .. } => {
                unreachable!("compiled elsewhere")
            }
        }
    }
}

/// Weight and bias of a product with the normalisation of node `norm` folded in.
pub(super) fn folded_product(
    model: &Model,
    parameters: &[f32],
    weight: TensorId,
    bias: Option<TensorId>,
    norm: usize,
) -> (Vec<f32>, Vec<f32>) {
    let Op::BatchNorm {
        scale,
        shift,
        mean,
        variance,
        epsilon,
        ..
    } = model.graph.nodes[norm].op
    else {
        unreachable!("no normalisation");
    };
    let tensors = model.layout().tensors();
    let values = |tensor: TensorId| &parameters[tensors[tensor].range()];
    fold_batch_norm(
        values(weight),
        bias.map(values),
        values(scale),
        values(shift),
        values(mean),
        values(variance),
        epsilon,
    )
}

/// The name of a product's weight, and the weight as it is served: with the unit's normalisation
/// folded in.
pub(crate) fn served_weight(model: &Model, parameters: &[f32], unit: &Unit) -> (String, Vec<f32>) {
    let node = &model.graph.nodes[unit.node];
    let (Op::Dense { weight, bias, .. } | Op::Conv { weight, bias, .. }) = node.op else {
        unreachable!("no product");
    };
    let tensor = &model.layout().tensors()[weight];
    let values = match unit.norm {
        Some(norm) => folded_product(model, parameters, weight, bias, norm).0,
        None => parameters[tensor.range()].to_vec(),
    };
    (tensor.name.clone(), values)
}
