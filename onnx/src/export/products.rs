//! Dense layers and convolutions: their constants folded, moved into the file's order, and written in
//! the numbers that are asked for.

use fl_edge::graph::{Op, Unit, ValueId, fold_batch_norm};
use fl_edge::kernel::f16_to_f32;
use fl_edge::quant::{Code4, Float, QuantError, Scope, Weight4, Weight8, Weights4, lower_product};

use super::ExportError;
use super::layers::Exporter;
use super::operators::conv_attributes;
use super::values::Order;
use crate::proto::AttributeProto;

/// A product's constants, folded.
struct Product {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl<'a> Exporter<'a> {
    fn folded(&self, unit: &Unit, weight: usize, bias: Option<usize>) -> Product {
        let mut product = Product {
            weight: self.tensor(weight).2.to_vec(),
            bias: bias.map(|bias| self.tensor(bias).2.to_vec()),
        };
        let norm = unit.norm.filter(|_| self.fold);
        if let Some(Op::BatchNorm {
            scale,
            shift,
            mean,
            variance,
            epsilon,
            ..
        }) = norm.map(|norm| &self.graph.nodes[norm].op)
        {
            let (weight, bias) = fold_batch_norm(
                &product.weight,
                product.bias.as_deref(),
                self.tensor(*scale).2,
                self.tensor(*shift).2,
                self.tensor(*mean).2,
                self.tensor(*variance).2,
                *epsilon,
            );
            product = Product {
                weight,
                bias: Some(bias),
            };
        }
        product
    }

    /// The name of a product's bias: its tensor's, or made from the weight's.
    fn bias_name(&self, op: &Op) -> String {
        match op {
            Op::Dense {
                bias: Some(bias), ..
            }
            | Op::Conv {
                bias: Some(bias), ..
            } => self.tensor(*bias).0.to_owned(),
            Op::Dense { weight, .. } | Op::Conv { weight, .. } => {
                let weight = self.tensor(*weight).0;
                format!("{}.bias", weight.strip_suffix(".weight").unwrap_or(weight))
            }
            _ => String::new(),
        }
    }

    /// A weight's shape and numbers in the file's order.
    fn moved(&self, op: &Op, input: ValueId, weight: &[f32]) -> (Vec<usize>, Vec<f32>) {
        match op {
            Op::Conv { geometry, .. } => {
                let shape = geometry.shape();
                let [height, width] = shape.kernel;
                let (inner, outer) = (shape.channels / shape.groups, shape.filters);
                let mut moved = Vec::with_capacity(weight.len());
                for filter in 0..outer {
                    for channel in 0..inner {
                        for position in 0..height * width {
                            moved.push(weight[(position * inner + channel) * outer + filter]);
                        }
                    }
                }
                (vec![outer, inner, height, width], moved)
            }
            Op::Dense { geometry, .. } => {
                let shape = vec![geometry.inputs, geometry.outputs];
                let root = self.graph.values[input].root;
                let &[height, width, channels] = self.shape(root) else {
                    return (shape, weight.to_vec());
                };
                let rows = weight.chunks_exact(geometry.outputs).collect::<Vec<_>>();
                let mut moved = Vec::with_capacity(weight.len());
                for channel in 0..channels {
                    for position in 0..height * width {
                        moved.extend_from_slice(rows[position * channels + channel]);
                    }
                }
                (shape, moved)
            }
            _ => (Vec::new(), Vec::new()),
        }
    }

    /// Numbers of a unit that computes in floats, stored as the unit asks.
    pub(super) fn stored(
        &mut self,
        unit: &Unit,
        name: &str,
        shape: &[usize],
        values: &[f32],
    ) -> String {
        let output = self.name(unit.output);
        let half = match (self.quantization, self.four) {
            (Some(quantization), _) => quantization.float_units.get(output) == Some(&Float::F16),
            // Weights alone.
            (None, Some(weights)) => match &self.graph.nodes[unit.node].op {
                Op::Dense { .. } | Op::Conv { .. } | Op::Norm { .. } if shape.len() == 1 => {
                    self.few(unit).is_some()
                }
                Op::Dense { .. } | Op::Conv { .. } | Op::Embedding { .. } => {
                    weights.format.float_units.get(output) != Some(&Float::F32)
                }
                _ => false,
            },
            (None, None) => false,
        };
        match half {
            true => self.build.halves(name, shape, values),
            false => self.build.floats(name, shape, values),
        }
    }

    /// Weights in four bits whose scope is everything, where the unit is not kept in floats.
    pub(super) fn few(&self, unit: &Unit) -> Option<&'a Weights4> {
        let output = self.name(unit.output);
        self.four.filter(|weights| {
            let format = &weights.format;
            format.scope == Scope::All && !format.float_units.contains_key(output)
        })
    }

    /// A dense layer or convolution; the name of its float output.
    pub(super) fn product(&mut self, unit: &Unit, integer: bool) -> Result<String, ExportError> {
        let node = &self.graph.nodes[unit.node];
        let is_conv = matches!(node.op, Op::Conv { .. });
        let (weight, bias) = match &node.op {
            Op::Dense { weight, bias, .. } | Op::Conv { weight, bias, .. } => (*weight, *bias),
            _ => unreachable!("a product is a dense layer or a convolution"),
        };
        let product = self.folded(unit, weight, bias);
        let depthwise = matches!(&node.op, Op::Conv { geometry, .. } if geometry.is_depthwise());
        let four = self.four.filter(|weights| {
            let floats = &weights.format.float_units;
            !depthwise && !floats.contains_key(self.name(unit.output))
        });
        let order = match four {
            Some(_) => Order::Native,
            None => Order::ChannelsFirst,
        };
        let form = match is_conv {
            true => self.value(node.input, !integer)?,
            false => self.row(node.input, order, !integer)?,
        };
        let name = self.tensor(weight).0;
        let (shape, numbers) = self.moved(&node.op, node.input, &product.weight);
        let bias_name = self.bias_name(&node.op);
        let mut inputs = Vec::with_capacity(3);
        match self.quantization.filter(|_| integer) {
            Some(quantization) => {
                inputs.push(self.dequantized(&form.quantized.unwrap_or_default(), node.input)?);
                let points = [self.point(node.input)?, self.point(unit.own)?];
                let granularity = quantization.granularity;
                // Rows and columns changed places already, which moves the integers alike.
                let (outputs, weight) = match is_conv {
                    true => (shape[0], product.weight.clone()),
                    false => (shape[1], numbers),
                };
                let bias = product.bias.as_deref();
                let lowered =
                    lower_product(&weight, bias, outputs, points[0], points[1], granularity);
                let integers = match is_conv {
                    true => {
                        let numbers = lowered.weight.iter().map(|&q| f32::from(q));
                        let numbers = numbers.collect::<Vec<_>>();
                        let (_, moved) = self.moved(&node.op, node.input, &numbers);
                        moved.iter().map(|&q| q as i8).collect()
                    }
                    false => lowered.weight,
                };
                let scales = &lowered.weight_scales;
                let sizes: &[usize] = if scales.len() == 1 { &[] } else { &[outputs] };
                let axis = AttributeProto::int("axis", if is_conv { 0 } else { 1 });
                let parts = [
                    self.build
                        .bytes(&format!("{name}.quantized"), &shape, &integers),
                    self.build.scales(&format!("{name}.scale"), sizes, scales),
                    self.build
                        .bytes(&format!("{name}.zero_point"), sizes, &vec![0; scales.len()]),
                ];
                inputs.push(self.constant_of(&parts, name, axis));
                if bias.is_some() {
                    let scales = &lowered.accumulator_scales;
                    let zeros = vec![0; scales.len()];
                    let name = &bias_name;
                    let parts = [
                        self.build.integers(
                            &format!("{name}.quantized"),
                            &[outputs],
                            &lowered.bias,
                        ),
                        self.build.scales(&format!("{name}.scale"), sizes, scales),
                        self.build
                            .integers(&format!("{name}.zero_point"), sizes, &zeros),
                    ];
                    inputs.push(self.constant_of(&parts, name, AttributeProto::int("axis", 0)));
                }
            }
            None => {
                inputs.push(form.float.unwrap_or_default());
                inputs.push(match four {
                    Some(weights) => self.four_bits(weights, &node.op, name, &product.weight)?,
                    None if depthwise && self.few(unit).is_some() => {
                        self.eight_bits(&node.op, node.input, name, &product.weight)?
                    }
                    None => self.stored(unit, name, &shape, &numbers),
                });
                if let Some(values) = &product.bias {
                    inputs.push(self.stored(unit, &bias_name, &[values.len()], values));
                }
            }
        }
        let inputs = inputs.iter().map(String::as_str).collect::<Vec<_>>();
        let output = self.core_label(unit);
        Ok(match &node.op {
            Op::Conv { geometry, .. } => {
                let attributes = conv_attributes(geometry);
                self.build.node("Conv", &inputs, output, attributes)
            }
            _ => self.build.node("Gemm", &inputs, output, Vec::new()),
        })
    }

    /// A weight in codes of four bits, made `f32` and brought into the file's order.
    fn four_bits(
        &mut self,
        weights: &Weights4,
        op: &Op,
        name: &str,
        weight: &[f32],
    ) -> Result<String, ExportError> {
        let columns = match op {
            Op::Conv { geometry, .. } => geometry.shape().filters,
            Op::Dense { geometry, .. } => geometry.outputs,
            _ => unreachable!("a product is a dense layer or a convolution"),
        };
        let made = match weights.tensors.get(name) {
            Some(made) if made.shape() == [weight.len() / columns, columns] => made.clone(),
            Some(made) => {
                return Err(QuantError::Foreign {
                    name: name.to_owned(),
                    found: made.shape(),
                    expected: [weight.len() / columns, columns],
                }
                .into());
            }
            None => Weight4::nearest(name, &weights.format, columns, weight)?,
        };
        let [terms, _] = made.shape();
        let (shape, sizes) = ([terms, columns], [made.groups(), columns]);
        let signed = made.code() == Code4::Int4;
        let codes = format!("{name}.codes");
        let codes = self.build.nibbles(&codes, &shape, made.codes(), signed);
        let scales: Vec<f32> = made.scales().iter().map(|&bits| f16_to_f32(bits)).collect();
        let mut parts = vec![
            codes,
            self.build.halves(&format!("{name}.scale"), &sizes, &scales),
        ];
        if !signed {
            let zeros = format!("{name}.zero_point");
            parts.push(self.build.nibbles(&zeros, &sizes, made.zeros(), false));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        // A block of more than the whole axis is not allowed.
        let block = made.group().min(terms) as i64;
        let attributes = vec![
            AttributeProto::int("axis", 0),
            AttributeProto::int("block_size", block),
        ];
        let Op::Conv { geometry, .. } = op else {
            return Ok(self
                .build
                .node("DequantizeLinear", &parts, name, attributes));
        };
        let matrix = format!("{name}.matrix");
        let matrix = self
            .build
            .node("DequantizeLinear", &parts, matrix, attributes);
        let s = geometry.shape();
        let sizes = [s.kernel[0], s.kernel[1], s.channels / s.groups, s.filters];
        let sizes = self
            .build
            .sizes(&format!("{name}.shape"), &sizes.map(|n| n as i64));
        let native = format!("{name}.native");
        let native = self
            .build
            .node("Reshape", &[&matrix, &sizes], native, Vec::new());
        let perm = AttributeProto::ints("perm", &[3, 2, 0, 1]);
        Ok(self.build.node("Transpose", &[&native], name, vec![perm]))
    }

    /// Filters of one channel in eight bits, in ONNX's order, made `f32`.
    fn eight_bits(
        &mut self,
        op: &Op,
        input: ValueId,
        name: &str,
        weight: &[f32],
    ) -> Result<String, ExportError> {
        let filters = self.moved(op, input, weight).0[0];
        let made = Weight8::nearest(name, filters, weight)?;
        let codes: Vec<f32> = made.codes().iter().map(|&q| q.into()).collect();
        let (shape, codes) = self.moved(op, input, &codes);
        let codes: Vec<i8> = codes.iter().map(|&q| q as i8).collect();
        let scales: Vec<f32> = (made.scales().iter())
            .map(|&bits| f16_to_f32(bits))
            .collect();
        let names = ["quantized", "scale", "zero_point"].map(|part| format!("{name}.{part}"));
        let parts = [
            self.build.bytes(&names[0], &shape, &codes),
            self.build.halves(&names[1], &[filters], &scales),
            self.build.bytes(&names[2], &[filters], &vec![0; filters]),
        ];
        Ok(self.constant_of(&parts, name, AttributeProto::int("axis", 0)))
    }

    /// A table in codes of four bits with blocks along its rows, made `f32`.
    pub(super) fn table_of_four_bits(
        &mut self,
        weights: &Weights4,
        name: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<String, ExportError> {
        let width = shape.last().copied().unwrap_or(1);
        let made = Weight4::table(name, &weights.format, width, values)?;
        let [_, rows] = made.shape();
        let (codes, zeros) = (by_rows(made.codes(), rows), by_rows(made.zeros(), rows));
        let sizes = [rows, made.groups()];
        let signed = made.code() == Code4::Int4;
        let names = ["codes", "scale", "zero_point"].map(|part| format!("{name}.{part}"));
        let scales = by_rows(made.scales(), rows);
        let scales: Vec<f32> = scales.into_iter().map(f16_to_f32).collect();
        let mut parts = vec![
            self.build.nibbles(&names[0], shape, &codes, signed),
            self.build.halves(&names[1], &sizes, &scales),
        ];
        if !signed {
            parts.push(self.build.nibbles(&names[2], &sizes, &zeros, false));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let attributes = vec![
            AttributeProto::int("axis", 1),
            AttributeProto::int("block_size", made.group().min(width) as i64),
        ];
        Ok(self
            .build
            .node("DequantizeLinear", &parts, name, attributes))
    }

    fn constant_of(&mut self, parts: &[String; 3], name: &str, axis: AttributeProto) -> String {
        let parts = [parts[0].as_str(), &parts[1], &parts[2]];
        self.build
            .node("DequantizeLinear", &parts, name, vec![axis])
    }
}

/// `[numbers, rows]` row by row.
fn by_rows<T: Copy>(numbers: &[T], rows: usize) -> Vec<T> {
    let row = |row| numbers.iter().skip(row).step_by(rows).copied();
    (0..rows).flat_map(row).collect()
}
