//! Units in integers.
//!
//! Every value is a point and carries `u8`, also between units that no integer kernel computes:
//! those read and give `u8` in one step (normalisations, embeddings). Only units that a
//! quantization keeps in floats leave `f32` behind.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::super::ProgramError;
use super::super::constants::{DType, Packing, bytes_of};
use super::Compiler;
use super::float::folded_product;
use crate::graph::{Op, Residual, Unit, ValueId, clamp_of};
use crate::kernel::int8::{self, Add, Affine, Rescale, Side};
use crate::kernel::{Activation, Fused, Kernels};
use crate::plan::kernel_function;
use crate::quant::{QParams, Quantization, lower_product};
use crate::runtime::{Constant, INPUT, IntEnd, IntResidual, Slot, Step};

/// Bytes of a number of scratch.
const REAL: usize = 4;

/// The bounds of a clamp at a point.
fn bounds(point: Affine, clamp: Fused) -> Rescale {
    let (low, high) = match clamp {
        Fused::None => (0, u8::MAX),
        Fused::Relu => (point.zero_point, u8::MAX),
        Fused::Relu6 => (point.zero_point, point.quantize(6.0)),
    };
    Rescale { low, high }
}

const WIDE: Rescale = Rescale {
    low: 0,
    high: u8::MAX,
};

impl Compiler<'_> {
    fn quantization(&self) -> &Quantization {
        match &self.quantization {
            Some(quantization) => quantization,
            None => unreachable!("a program of floats has no integers"),
        }
    }

    /// Scale and zero point of a value.
    fn point(&self, value: ValueId) -> Result<Affine, ProgramError> {
        let name = &self.graph.values[value].name;
        let point = self.quantization().point(name)?;
        Ok(Affine {
            scale: point.scale(),
            zero_point: point.zero_point(),
        })
    }

    /// Where a value lies as integers, and what they stand for.
    fn codes(&mut self, value: ValueId) -> Result<(Slot, Affine), ProgramError> {
        let root = self.root[value];
        if let Some((slot, point)) = self.held[root].codes {
            return Ok((self.touch(slot), point));
        }
        let point = self.point(root)?;
        let x = self.real(value)?;
        let y = self.buffer(self.len(value), 0);
        self.push(Step::Quantize { x, y, to: point });
        self.held[root].codes = Some((y, point));
        Ok((self.touch(y), point))
    }

    fn hold_codes(&mut self, value: ValueId, slot: Slot, point: Affine) {
        let root = self.root[value];
        self.held[root].codes = Some((slot, point));
    }

    fn code_buffer(&mut self, value: ValueId) -> Slot {
        self.buffer(self.len(value), 0)
    }

    /// What a fused clamp bounds; nothing where a step of its own does it.
    fn fused_bounds(&self, point: Affine, clamp: Fused) -> Rescale {
        match self.passes.fuse_activation {
            true => bounds(point, clamp),
            false => WIDE,
        }
    }

    /// A step of its own for a clamp that is not fused.
    fn clamp_codes(&mut self, point: Affine, clamp: Fused, y: Slot) {
        if clamp != Fused::None && !self.passes.fuse_activation {
            self.touch(y);
            let to = bounds(point, clamp);
            self.push(Step::IntClamp { to, y });
        }
    }

    pub(super) fn integer_unit(&mut self, unit: &Unit) -> Result<(), ProgramError> {
        let node = &self.graph.nodes[unit.node];
        match node.op {
            Op::Dense { .. } | Op::Conv { .. } => return self.integer_product(unit),
            Op::Add { other } => {
                let (y, point) = self.integer_add(node.input, other, unit.own, unit.clamp)?;
                self.hold_codes(unit.own, y, point);
                return Ok(());
            }
            Op::Embedding { table, size } => {
                let point = self.point(unit.own)?;
                let table = self.integer_table(table, point);
                let y = self.code_buffer(unit.own);
                self.push(Step::IntEmbedding { size, table, y });
                self.hold_codes(unit.own, y, point);
                return Ok(());
            }
            // In floats between two values of integers.
            Op::Recurrent { .. } | Op::Attention(_) | Op::Position { .. } => {
                let x = self.real(node.input)?;
                let y = match node.op {
                    Op::Recurrent { .. } => self.integer_recurrent(unit, x)?,
                    _ => self.real_simple(unit, x),
                };
                self.hold_real(unit.own, y);
                self.codes(unit.own)?;
                // Others read what was rounded.
                let root = self.root[unit.own];
                self.held[root].real = None;
                return Ok(());
            }
            _ => {}
        }
        let (x, from) = self.codes(node.input)?;
        let (y, point) = match node.op {
            Op::MaxPool(geometry) => {
                let y = self.code_buffer(unit.own);
                self.push(Step::IntMaxPool { geometry, x, y });
                (y, from)
            }
            Op::Last {
                positions,
                channels,
            } => {
                let y = self.code_buffer(unit.own);
                self.push(Step::IntLast {
                    positions,
                    channels,
                    x,
                    y,
                });
                (y, from)
            }
            Op::AvgPool(geometry) => {
                let to = self.point(unit.own)?;
                let y = self.code_buffer(unit.own);
                self.push(Step::IntAvgPool {
                    geometry,
                    x,
                    y,
                    from,
                    to,
                });
                (y, to)
            }
            Op::GlobalAvgPool {
                positions,
                channels,
            } => {
                let to = self.point(unit.own)?;
                let y = self.code_buffer(unit.own);
                self.push(Step::IntGlobalAvgPool {
                    positions,
                    channels,
                    x,
                    y,
                    from,
                    to,
                });
                (y, to)
            }
            Op::Function(function) if clamp_of(function) != Fused::None => {
                let y = self.own_codes(node.input, x, 1);
                let to = bounds(from, clamp_of(function));
                self.push(Step::IntClamp { to, y });
                (y, from)
            }
            Op::Function(function) => {
                let to = self.point(unit.own)?;
                let table = self.function_table(unit.own, kernel_function(function), from, to);
                let y = self.code_buffer(unit.own);
                self.push(Step::Table { table, x, y });
                (y, to)
            }
            Op::Dropout { .. } => {
                let y = self.code_buffer(unit.own);
                self.push(Step::Copy { x, y });
                (y, from)
            }
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                let to = self.point(unit.own)?;
                let (gamma, beta) = (self.tensor(scale), self.tensor(shift));
                let y = self.code_buffer(unit.own);
                let scratch = self.buffer(0, REAL * geometry.scratch_len());
                self.push(Step::IntNorm {
                    geometry,
                    x,
                    y,
                    from,
                    affine: to,
                    to: self.fused_bounds(to, unit.clamp),
                    gamma,
                    beta,
                    scratch,
                });
                (y, to)
            }
            Op::BatchNorm { .. } => {
                let to = self.point(unit.own)?;
                let [a, b] = self.rescaling(unit.node, from, to);
                let y = self.code_buffer(unit.own);
                self.push(Step::Rescale {
                    x,
                    y,
                    a,
                    b,
                    to: self.fused_bounds(to, unit.clamp),
                });
                (y, to)
            }
            Op::Dense { .. }
            | Op::Conv { .. }
            | Op::Add { .. }
            | Op::Embedding { .. }
            | Op::Recurrent { .. }
            | Op::Attention(_)
            | Op::Position { .. } => {
                unreachable!("compiled above")
            }
        };
        self.clamp_codes(point, unit.clamp, y);
        self.hold_codes(unit.own, y, point);
        Ok(())
    }

    fn integer_product(&mut self, unit: &Unit) -> Result<(), ProgramError> {
        let node = &self.graph.nodes[unit.node];
        let (x, from) = self.codes(node.input)?;
        let own = self.point(unit.own)?;
        let residual = match &unit.residual {
            Some(residual) if self.passes.fuse_residual => {
                let (other, point) = self.codes(residual.other)?;
                let (add, side, sum) = self.sum(unit.own, own, residual, point)?;
                Some((IntResidual { add, side, other }, sum))
            }
            _ => None,
        };
        self.touch(x);
        let clamped = residual.is_some() || self.passes.fuse_activation;
        let to = match clamped {
            true => bounds(own, unit.clamp),
            false => WIDE,
        };
        let [weight, bias, multipliers] = self.integer_weights(unit, from, own)?;
        let end = IntEnd {
            multipliers,
            zero_point: own.zero_point,
            to,
            residual: residual.map(|(residual, _)| residual),
        };
        let y = self.code_buffer(unit.own);
        match &node.op {
            &Op::Dense { geometry, .. } => self.push(Step::IntDense {
                geometry,
                x,
                y,
                weight,
                bias,
                end,
            }),
            Op::Conv { geometry, .. } => {
                let geometry = geometry.clone();
                let scratch = self.buffer(0, geometry.int8_scratch_len());
                self.push(Step::IntConv {
                    geometry,
                    x,
                    y,
                    zero_point: from.zero_point,
                    weight,
                    bias,
                    end,
                    scratch,
                });
            }
            _ => unreachable!("no product"),
        }
        if !clamped {
            self.clamp_codes(own, unit.clamp, y);
        }
        match (&unit.residual, residual) {
            (_, Some((_, sum))) => {
                if let Some(Residual { clamp, .. }) = unit.residual {
                    self.clamp_codes(sum, clamp, y);
                }
                self.hold_codes(unit.output, y, sum);
            }
            (Some(residual), None) => {
                self.hold_codes(unit.own, y, own);
                let operands = match self.graph.nodes[residual.node].input == unit.own {
                    true => [unit.own, residual.other],
                    false => [residual.other, unit.own],
                };
                let [one, other] = operands;
                let (y, sum) = self.integer_add(one, other, unit.output, residual.clamp)?;
                self.hold_codes(unit.output, y, sum);
            }
            (None, None) => self.hold_codes(unit.own, y, own),
        }
        Ok(())
    }

    /// A recurrent layer over gates in floats, with the product of its state in integers.
    fn integer_recurrent(&mut self, unit: &Unit, x: Slot) -> Result<Slot, ProgramError> {
        let Op::Recurrent {
            geometry,
            weight,
            bias,
        } = self.graph.nodes[unit.node].op
        else {
            unreachable!("no recurrent layer");
        };
        let gates = self.own_copy(self.graph.nodes[unit.node].input, x, 1);
        let tensor = &self.model.layout().tensors()[weight];
        let packing = int8::Packing::dense(&geometry.product());
        let columns = packing.columns();
        let granularity = self.quantization().granularity;
        // A state is the layer's output of the position before.
        let point = self.point(unit.own)?;
        let state = QParams::new(point.scale, point.zero_point)?;
        let parts = self.parameters.map(|parameters| {
            let weight = &parameters[tensor.range()];
            // Its end is in floats: the output's point is not used.
            let lowered = lower_product(weight, None, columns, state, state, granularity);
            let (mut packed, mut folded) = (vec![0; packing.len()], vec![0; columns]);
            let zero_point = point.zero_point;
            packing.pack(&lowered.weight, None, zero_point, &mut packed, &mut folded);
            (packed, folded, lowered.accumulator_scales)
        });
        let (packed, folded, scales) = parts.unwrap_or_default();
        let weight = self.integer_constants(
            &tensor.name,
            (packing.len(), &packed),
            (columns, &folded),
            ("scale", granularity.scales(columns), &scales),
            Packing::Panels16x4,
        );
        let bias = bias.map(|bias| self.tensor(bias));
        let (kept, scratch, y) = self.recurrent_buffers(unit, geometry);
        let codes = self.buffer(geometry.units(), 0);
        self.touch(gates);
        self.push(Step::IntRecurrent {
            geometry,
            gates,
            y,
            kept,
            scratch,
            point,
            weight,
            bias,
            codes,
        });
        Ok(y)
    }

    /// How a residual addition rounds, and at which point.
    fn sum(
        &self,
        own_value: ValueId,
        own: Affine,
        residual: &Residual,
        other: Affine,
    ) -> Result<(Add, Side, Affine), ProgramError> {
        let to = self.point(self.graph_output(residual))?;
        let (side, [one, two]) = match self.graph.nodes[residual.node].input == own_value {
            true => (Side::First, [own, other]),
            false => (Side::Second, [other, own]),
        };
        let Rescale { low, high } = self.fused_bounds(to, residual.clamp);
        let add = Add {
            low,
            high,
            ..Add::new(one, two, to)
        };
        Ok((add, side, to))
    }

    /// The value after an addition and its clamp.
    fn graph_output(&self, residual: &Residual) -> ValueId {
        let sum = self.graph.nodes[residual.node].output;
        match residual.clamp {
            Fused::None => sum,
            _ => (self.graph.nodes.iter())
                .find(|node| node.input == sum)
                .map_or(sum, |node| node.output),
        }
    }

    fn integer_add(
        &mut self,
        one: ValueId,
        other: ValueId,
        sum: ValueId,
        clamp: Fused,
    ) -> Result<(Slot, Affine), ProgramError> {
        let (x, first) = self.codes(one)?;
        let (other, second) = self.codes(other)?;
        self.touch(x);
        let to = self.point(sum)?;
        let Rescale { low, high } = self.fused_bounds(to, clamp);
        let add = Add {
            low,
            high,
            ..Add::new(first, second, to)
        };
        let y = self.code_buffer(sum);
        self.push(Step::IntAdd { add, x, other, y });
        self.clamp_codes(to, clamp, y);
        Ok((y, to))
    }

    /// A value's buffer if this unit, with so many reads, is its last reader; else a copy.
    fn own_codes(&mut self, value: ValueId, x: Slot, reads: usize) -> Slot {
        if x != INPUT && self.is_last_reader(value, reads) {
            return x;
        }
        let y = self.code_buffer(value);
        self.push(Step::Copy { x, y });
        self.touch(y)
    }

    /// Packed weight, folded bias and multipliers of a product.
    fn integer_weights(
        &mut self,
        unit: &Unit,
        from: Affine,
        to: Affine,
    ) -> Result<[Constant; 3], ProgramError> {
        let node = &self.graph.nodes[unit.node];
        let (packing, weight, bias) = match &node.op {
            Op::Dense {
                geometry,
                weight,
                bias,
                ..
            } => (int8::Packing::dense(geometry), *weight, *bias),
            Op::Conv {
                geometry,
                weight,
                bias,
                ..
            } => (int8::Packing::conv(geometry), *weight, *bias),
            _ => unreachable!("no product"),
        };
        let columns = packing.columns();
        let granularity = self.quantization().granularity;
        let tensors = self.model.layout().tensors();
        let [x, y] = [from, to].map(|point| QParams::new(point.scale, point.zero_point));
        let (x, y) = (x?, y?);
        let parts = self.parameters.map(|parameters| {
            let (weight, bias) = match unit.norm {
                Some(norm) => {
                    let (weight, bias) = folded_product(self.model, parameters, weight, bias, norm);
                    (weight, Some(bias))
                }
                None => {
                    let values = |tensor: usize| parameters[tensors[tensor].range()].to_vec();
                    (values(weight), bias.map(values))
                }
            };
            let lowered = lower_product(&weight, bias.as_deref(), columns, x, y, granularity);
            let (mut packed, mut folded) = (vec![0; packing.len()], vec![0; columns]);
            packing.pack(
                &lowered.weight,
                Some(&lowered.bias),
                from.zero_point,
                &mut packed,
                &mut folded,
            );
            (packed, folded, lowered.multipliers)
        });
        let (packed, folded, multipliers) = parts.unwrap_or_default();
        let tag = match packing.name() {
            "depthwise64x4" => Packing::Depthwise64x4,
            _ => Packing::Panels16x4,
        };
        Ok(self.integer_constants(
            &tensors[weight].name,
            (packing.len(), &packed),
            (columns, &folded),
            ("multiplier", granularity.scales(columns), &multipliers),
            tag,
        ))
    }

    /// The constants of a product in integers, each with its length: packed weight, folded bias, and
    /// what its sums are multiplied by.
    fn integer_constants(
        &mut self,
        name: &str,
        (len, packed): (usize, &[i8]),
        (columns, folded): (usize, &[i32]),
        (what, factors, values): (&str, usize, &[f32]),
        packing: Packing,
    ) -> [Constant; 3] {
        let plain = Packing::Plain;
        [
            self.constant(name.to_owned(), DType::I8, vec![len], packing, |_| {
                bytes_of(packed)
            }),
            self.constant(
                format!("{name}.sum"),
                DType::I32,
                vec![columns],
                plain,
                |_| bytes_of(folded),
            ),
            self.constant(
                format!("{name}.{what}"),
                DType::F32,
                vec![factors],
                plain,
                |_| bytes_of(values),
            ),
        ]
    }

    /// An embedding's table at its point.
    fn integer_table(&mut self, tensor: usize, point: Affine) -> Constant {
        let tensor = &self.model.layout().tensors()[tensor];
        let (name, shape, range) = (tensor.name.clone(), tensor.shape.clone(), tensor.range());
        self.constant(name, DType::U8, shape, Packing::Plain, |parameters| {
            let rows = parameters[range].iter();
            rows.map(|&value| point.quantize(value)).collect()
        })
    }

    /// The 256 outputs of a function.
    fn function_table(
        &mut self,
        value: ValueId,
        f: Activation,
        from: Affine,
        to: Affine,
    ) -> Constant {
        let name = format!("{}.table", self.graph.values[value].name);
        self.constant(name, DType::U8, vec![256], Packing::Plain, |_| {
            let apply = |x: f32| {
                let mut y = [x];
                Kernels::best().activate_in_place(f, &mut y);
                y[0]
            };
            from.table(to, apply).to_vec()
        })
    }

    /// A batch normalisation as a map of integers, `q_y = a q_x + b`:
    /// ```text
    /// factor = gamma / sqrt(max(variance, 0) + epsilon)
    /// a = factor s_x / s_y,   b = (beta - (mean + s_x z_x) factor) / s_y + z_y
    /// ```
    /// in f64, then rounded.
    fn rescaling(&mut self, node: usize, from: Affine, to: Affine) -> [Constant; 2] {
        let Op::BatchNorm {
            channels,
            scale,
            shift,
            mean,
            variance,
            epsilon,
            ..
        } = self.graph.nodes[node].op
        else {
            unreachable!("no normalisation");
        };
        let tensors = self.model.layout().tensors();
        let maps = self.parameters.map(|parameters| {
            let values = |tensor: usize| &parameters[tensors[tensor].range()];
            let [gamma, beta, mean, variance] = [scale, shift, mean, variance].map(values);
            let (s, z) = (f64::from(from.scale), f64::from(from.zero_point));
            let (out, zero) = (f64::from(to.scale), f64::from(to.zero_point));
            let map = |i: usize| {
                let root = libm::sqrt(f64::from(variance[i].max(0.0)) + f64::from(epsilon));
                let factor = f64::from(gamma[i]) / root;
                let b = (f64::from(beta[i]) - (f64::from(mean[i]) + s * z) * factor) / out + zero;
                ((factor * s / out) as f32, b as f32)
            };
            (0..channels).map(map).unzip::<f32, f32, Vec<_>, Vec<_>>()
        });
        let (a, b) = maps.unwrap_or_default();
        let name = tensors[scale].name.clone();
        let shape = vec![channels];
        let plain = Packing::Plain;
        [
            self.constant(
                format!("{name}.factor"),
                DType::F32,
                shape.clone(),
                plain,
                |_| bytes_of(&a),
            ),
            self.constant(format!("{name}.shift"), DType::F32, shape, plain, |_| {
                bytes_of(&b)
            }),
        ]
    }
}
