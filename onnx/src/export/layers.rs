//! Writes units: each operator of the native graph with what is fused into it.

use std::collections::{BTreeMap, BTreeSet};

use fl_core::InputSpec;
use fl_edge::Model;
use fl_edge::graph::{Function, Graph, Op, Unit, ValueId, fold_batch_norm, units};
use fl_edge::kernel::{Conv, Fused, Norm, Padding, Pool, f16_to_f32};
use fl_edge::quant::{
    Code4, Float, QParams, QuantError, Quantization, Scope, Weight4, Weight8, Weights4,
    lower_product,
};

use super::builder::Builder;
use super::{ExportError, ExportOptions, Numbers};
use crate::proto::{AttributeProto, ModelProto, ValueInfoProto, data_type};

/// The name of the file's input and output.
const INPUT: &str = "input";
const OUTPUT: &str = "output";

/// How a value is at hand: the names of its float and its `u8` tensor.
#[derive(Clone, Debug, Default)]
struct Held {
    float: Option<String>,
    quantized: Option<String>,
}

/// The order of a row that was an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    /// Height, width, channel: the native one.
    Native,
    /// Channel, height, width: as a flattened NCHW image lies.
    ChannelsFirst,
}

/// A product's constants, folded.
struct Product {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

pub(super) struct Exporter<'a> {
    model: &'a Model,
    pub(super) graph: &'a Graph,
    parameters: &'a [f32],
    fold: bool,
    quantization: Option<&'a Quantization>,
    /// Weights in four bits.
    four: Option<&'a Weights4>,
    pub(super) build: Builder,
    /// Of each value in the form that its shape has.
    held: Vec<Held>,
    /// Rows that were images, by value and order.
    rows: BTreeMap<(ValueId, Order), Held>,
    /// The `DequantizeLinear` nodes written so far.
    dequantized: BTreeSet<String>,
    /// Scale and zero point of each value that carries integers.
    points: Vec<Option<QParams>>,
}

impl<'a> Exporter<'a> {
    pub(super) fn new(
        model: &'a Model,
        graph: &'a Graph,
        parameters: &'a [f32],
        options: &ExportOptions<'a>,
    ) -> Self {
        let quantization = match options.numbers {
            Numbers::Int8(quantization) => Some(quantization),
            _ => None,
        };
        let four = match options.numbers {
            Numbers::Int4(weights) => Some(weights),
            _ => None,
        };
        let points = graph
            .values
            .iter()
            .map(|value| {
                quantization
                    .and_then(|q| q.points.get(&value.name))
                    .copied()
            })
            .collect();
        Self {
            model,
            graph,
            parameters,
            fold: options.fold_batch_norm || quantization.is_some() || four.is_some(),
            quantization,
            four,
            build: Builder::new(options.opset, matches!(options.numbers, Numbers::F16)),
            held: vec![Held::default(); graph.values.len()],
            rows: BTreeMap::new(),
            dequantized: BTreeSet::new(),
            points,
        }
    }

    pub(super) fn run(mut self) -> Result<ModelProto, ExportError> {
        for value in &self.graph.values {
            if !(1..=3).contains(&value.shape.len()) {
                return Err(ExportError::Shape {
                    value: value.name.clone(),
                    shape: format!("{:?}", value.shape),
                });
            }
        }
        let float = if self.build.half {
            data_type::FLOAT16
        } else {
            data_type::FLOAT
        };
        let tokens = matches!(self.graph.input, InputSpec::Tokens { .. });
        let mut first = INPUT.to_owned();
        if self.build.half && !tokens {
            let to = AttributeProto::int("to", i64::from(float));
            first = self.build.node("Cast", &[INPUT], "input.half", vec![to]);
        }
        self.held[0].float = Some(first);
        for unit in units(self.graph) {
            self.unit(&unit)?;
        }
        let last = self.row(self.graph.output, Order::Native, true)?;
        let last = last.float.unwrap_or_default();
        match self.build.half {
            true => {
                let to = AttributeProto::int("to", i64::from(data_type::FLOAT));
                self.build.node("Cast", &[&last], OUTPUT, vec![to]);
            }
            false => {
                self.build.node("Identity", &[&last], OUTPUT, Vec::new());
            }
        }
        let mut sizes = vec![Err("batch")];
        sizes.extend(self.onnx_shape(0).into_iter().map(Ok));
        let kind = if tokens {
            data_type::INT64
        } else {
            data_type::FLOAT
        };
        let input = ValueInfoProto::tensor(INPUT, kind, &sizes);
        let width = self.graph.values[self.graph.output]
            .shape
            .iter()
            .product::<usize>();
        let output = [Err("batch"), Ok(width as i64)];
        let output = ValueInfoProto::tensor(OUTPUT, data_type::FLOAT, &output);
        let properties = [
            ("fledgling.loss", self.graph.loss.name().to_owned()),
            (
                "fledgling.input_layout",
                "NCHW; NHWC where the model was made".to_owned(),
            ),
        ];
        Ok(self.build.finish("fledgling", input, output, &properties))
    }

    pub(super) fn shape(&self, value: ValueId) -> &[usize] {
        &self.graph.values[value].shape
    }

    fn name(&self, value: ValueId) -> &'a str {
        &self.graph.values[value].name
    }

    /// The name of a value in the file.
    fn label(&self, value: ValueId) -> String {
        match self.name(value) {
            OUTPUT => format!("{OUTPUT}.value"),
            name => name.to_owned(),
        }
    }

    /// The name of what a unit's operator gives: its own value's, or one made from that where
    /// the value is complete only later.
    pub(super) fn core_label(&self, unit: &Unit) -> String {
        let value = self.graph.nodes[unit.node].output;
        match () {
            () if self.folds(unit) && unit.clamp == Fused::None => self.label(unit.own),
            () if self.folds(unit) => format!("{}.linear", self.label(unit.own)),
            () if value != unit.own || unit.clamp == Fused::None => self.label(value),
            () => format!("{}.linear", self.label(value)),
        }
    }

    /// The sizes of a value in the file, without the batch.
    fn onnx_shape(&self, value: ValueId) -> Vec<i64> {
        match *self.shape(value) {
            [height, width, channels] => [channels, height, width].map(|n| n as i64).to_vec(),
            ref other => other.iter().map(|&n| n as i64).collect(),
        }
    }

    pub(super) fn tensor(&self, tensor: usize) -> (&'a str, &'a [usize], &'a [f32]) {
        let parameters = self.parameters;
        let tensor = &self.model.layout().tensors()[tensor];
        (&tensor.name, &tensor.shape, &parameters[tensor.range()])
    }

    // Values and their two forms.

    /// The integers of the value's point.
    fn point(&self, value: ValueId) -> Result<QParams, ExportError> {
        let root = self.graph.values[value].root;
        self.points[value]
            .or(self.points[root])
            .ok_or_else(|| ExportError::NoPoint(self.name(value).to_owned()))
    }

    fn scale_of(&mut self, value: ValueId) -> Result<[String; 2], ExportError> {
        let point = self.point(value)?;
        let name = self.name(self.graph.values[value].root);
        Ok([
            self.build
                .scales(&format!("{name}.scale"), &[], &[point.scale()]),
            self.build
                .unsigned(&format!("{name}.zero_point"), point.zero_point()),
        ])
    }

    /// The float tensor of a `u8` one.
    fn dequantized(&mut self, quantized: &str, value: ValueId) -> Result<String, ExportError> {
        let name = format!("{quantized}.dequantized");
        if self.dequantized.insert(name.clone()) {
            let [scale, zero] = self.scale_of(value)?;
            let inputs = [quantized, &scale, &zero];
            self.build
                .node("DequantizeLinear", &inputs, name.clone(), Vec::new());
        }
        Ok(name)
    }

    /// Makes the float or the `u8` form of `held` from the other one.
    fn complete(
        &mut self,
        held: &mut Held,
        value: ValueId,
        float: bool,
    ) -> Result<(), ExportError> {
        match (&held.float, &held.quantized) {
            (None, Some(quantized)) if float => {
                held.float = Some(self.dequantized(quantized, value)?);
            }
            (Some(numbers), None) if !float => {
                let [scale, zero] = self.scale_of(value)?;
                let inputs = [numbers.as_str(), &scale, &zero];
                let name = format!("{numbers}.quantized");
                held.quantized = Some(self.build.node("QuantizeLinear", &inputs, name, Vec::new()));
            }
            _ => {}
        }
        Ok(())
    }

    /// A value in the form of its shape, float (or `u8`) at hand.
    fn value(&mut self, value: ValueId, float: bool) -> Result<Held, ExportError> {
        if self.graph.values[value].root != value {
            return self.row(value, Order::Native, float);
        }
        let mut held = self.held[value].clone();
        self.complete(&mut held, value, float)?;
        self.held[value] = held.clone();
        Ok(held)
    }

    /// The float tensor of a value; rounded to its point for a unit of integers.
    pub(super) fn float(&mut self, value: ValueId, integer: bool) -> Result<String, ExportError> {
        let held = self.value(value, !integer)?;
        match held.quantized {
            Some(quantized) if integer => self.dequantized(&quantized, value),
            _ => Ok(held.float.unwrap_or_default()),
        }
    }

    fn quantized(&mut self, value: ValueId) -> Result<String, ExportError> {
        Ok(self.value(value, false)?.quantized.unwrap_or_default())
    }

    /// A value as a row of all its numbers.
    fn row(&mut self, value: ValueId, order: Order, float: bool) -> Result<Held, ExportError> {
        let root = self.graph.values[value].root;
        if root == value && self.shape(value).len() == 1 {
            return self.value(value, float);
        }
        let order = match *self.shape(root) {
            [height, width, channels] if height * width > 1 && channels > 1 => order,
            _ => Order::ChannelsFirst,
        };
        if !float {
            self.value(root, false)?;
        }
        let mut held = match self.rows.get(&(value, order)) {
            Some(held) => held.clone(),
            None => self.flatten(value, order)?,
        };
        self.complete(&mut held, value, float)?;
        self.rows.insert((value, order), held.clone());
        Ok(held)
    }

    fn flatten(&mut self, value: ValueId, order: Order) -> Result<Held, ExportError> {
        let root = self.graph.values[value].root;
        let from = self.held[root].clone();
        let suffix = match order {
            Order::Native => ".native_row",
            Order::ChannelsFirst => ".row",
        };
        let mut flat = |from: Option<String>, suffix: &str| {
            let mut from = from?;
            if order == Order::Native {
                let perm = AttributeProto::ints("perm", &[0, 2, 3, 1]);
                let name = format!("{}{suffix}.nhwc", self.graph.values[value].name);
                from = self.build.node("Transpose", &[&from], name, vec![perm]);
            }
            let axis = AttributeProto::int("axis", 1);
            let name = format!("{}{suffix}", self.graph.values[value].name);
            Some(self.build.node("Flatten", &[&from], name, vec![axis]))
        };
        // Where the value is at hand in integers, the integers are moved.
        Ok(match from.quantized {
            Some(_) => Held {
                float: None,
                quantized: flat(from.quantized, &format!("{suffix}.quantized")),
            },
            None => Held {
                float: flat(from.float, suffix),
                quantized: None,
            },
        })
    }

    /// Whether the runtime gives the unit's output in integers.
    fn is_integer(&self, unit: &Unit) -> bool {
        let Some(quantization) = self.quantization else {
            return false;
        };
        let input = self.graph.nodes[unit.node].input;
        let held = &self.held[self.graph.values[input].root];
        // What has no scale of its own stays what it is.
        let stays = unit.passes_on(self.graph) && held.quantized.is_none() && input != 0;
        !stays
            && !quantization
                .float_units
                .contains_key(self.name(unit.output))
    }

    // Units.

    fn unit(&mut self, unit: &Unit) -> Result<(), ExportError> {
        let integer = self.is_integer(unit);
        if unit.passes_on(self.graph) && integer {
            return self.pass_on(unit);
        }
        let mut name = match unit.is_product(self.graph) {
            true if self.is_along(&self.graph.nodes[unit.node]) => self.along(unit)?,
            true => self.product(unit, integer)?,
            false => self.operator(unit, integer)?,
        };
        if let Some(norm) = unit.norm.filter(|_| !self.folds(unit)) {
            let value = self.graph.nodes[norm].output;
            let output = match value != unit.own || unit.clamp == Fused::None {
                true => self.label(value),
                false => format!("{}.linear", self.label(value)),
            };
            name = self.batch_norm(norm, &name, output)?;
        }
        name = self.clamp(unit.clamp, name, unit.own);
        self.give(unit.own, name, integer)?;
        if let Some(residual) = &unit.residual {
            let sides = [
                self.float(unit.own, integer)?,
                self.float(residual.other, integer)?,
            ];
            let name = self.label(self.graph.nodes[residual.node].output);
            let name = self
                .build
                .node("Add", &[&sides[0], &sides[1]], name, Vec::new());
            let name = self.clamp(residual.clamp, name, unit.output);
            self.give(unit.output, name, integer)?;
        }
        Ok(())
    }

    /// Notes a value's tensor; in integers its float form is the rounded one.
    fn give(&mut self, value: ValueId, name: String, integer: bool) -> Result<(), ExportError> {
        let mut held = Held {
            float: Some(name),
            quantized: None,
        };
        if integer {
            self.complete(&mut held, value, false)?;
            held.float = None;
        }
        self.held[value] = held;
        Ok(())
    }

    fn clamp(&mut self, clamp: Fused, name: String, value: ValueId) -> String {
        let output = self.label(value);
        match clamp {
            Fused::None => name,
            Fused::Relu => self.build.node("Relu", &[&name], output, Vec::new()),
            Fused::Relu6 => {
                let low = self.build.floats("relu6.low", &[], &[0.0]);
                let high = self.build.floats("relu6.high", &[], &[6.0]);
                self.build
                    .node("Clip", &[&name, &low, &high], output, Vec::new())
            }
        }
    }

    /// An operator whose output holds numbers of its input, on the integers themselves.
    fn pass_on(&mut self, unit: &Unit) -> Result<(), ExportError> {
        let node = &self.graph.nodes[unit.node];
        let point = self.point(node.input)?;
        self.points[unit.own] = Some(point);
        match &node.op {
            Op::MaxPool(pool) => {
                let x = self.quantized(node.input)?;
                let name = self.max_pool(pool, &x, node.input, unit.own);
                self.held[unit.own].quantized = Some(name);
            }
            Op::Function(function) => {
                let x = self.float(node.input, true)?;
                let name = self.function(*function, &x, unit.own);
                self.give(unit.own, name, true)?;
            }
            // The identity.
            _ => self.held[unit.own] = self.value(node.input, false)?,
        }
        Ok(())
    }

    /// Whether the unit's batch normalisation is folded into its product.
    fn folds(&self, unit: &Unit) -> bool {
        self.fold && unit.norm.is_some()
    }

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
    fn stored(&mut self, unit: &Unit, name: &str, shape: &[usize], values: &[f32]) -> String {
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
    fn few(&self, unit: &Unit) -> Option<&'a Weights4> {
        let output = self.name(unit.output);
        self.four.filter(|weights| {
            let format = &weights.format;
            format.scope == Scope::All && !format.float_units.contains_key(output)
        })
    }

    /// A dense layer or convolution; the name of its float output.
    fn product(&mut self, unit: &Unit, integer: bool) -> Result<String, ExportError> {
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
                        let filters = shape[0];
                        let made = Weight8::nearest(name, filters, &product.weight)?;
                        let codes: Vec<f32> = made.codes().iter().map(|&q| q.into()).collect();
                        let (_, codes) = self.moved(&node.op, node.input, &codes);
                        let codes: Vec<i8> = codes.iter().map(|&q| q as i8).collect();
                        let scales = made.scales().iter().map(|&bits| f16_to_f32(bits));
                        let scales: Vec<f32> = scales.collect();
                        let (scale, zero) = (format!("{name}.scale"), format!("{name}.zero_point"));
                        let parts = [
                            self.build
                                .bytes(&format!("{name}.quantized"), &shape, &codes),
                            self.build.halves(&scale, &[filters], &scales),
                            self.build.bytes(&zero, &[filters], &vec![0; filters]),
                        ];
                        self.constant_of(&parts, name, AttributeProto::int("axis", 0))
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

    /// A table in codes of four bits with blocks along its rows, made `f32`.
    fn table_of_four_bits(
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

    /// Any other operator; the name of its float output in the form of its value's shape.
    fn operator(&mut self, unit: &Unit, integer: bool) -> Result<String, ExportError> {
        let node = &self.graph.nodes[unit.node];
        let own = unit.own;
        let name = self.core_label(unit);
        if let Op::Embedding { table, .. } = node.op {
            let (table, shape, values) = self.tensor(table);
            let table = match self.few(unit) {
                Some(weights) => self.table_of_four_bits(weights, table, shape, values)?,
                None => self.stored(unit, table, shape, values),
            };
            return Ok(self
                .build
                .node("Gather", &[&table, INPUT], name, Vec::new()));
        }
        let x = self.float(node.input, integer)?;
        Ok(match &node.op {
            Op::MaxPool(pool) => self.max_pool(pool, &x, node.input, own),
            Op::AvgPool(pool) => {
                let attributes = pool_attributes(pool);
                self.build.node("AveragePool", &[&x], name, attributes)
            }
            Op::GlobalAvgPool { .. } => match self.shape(node.input).len() {
                3 => {
                    let pooled = format!("{name}.pooled");
                    let pooled = self
                        .build
                        .node("GlobalAveragePool", &[&x], pooled, Vec::new());
                    self.flat(&pooled, &name)
                }
                _ => self.reduce("ReduceMean", &x, &name),
            },
            Op::Function(function) => self.function(*function, &x, own),
            Op::Dropout { .. } => x,
            Op::Norm {
                geometry,
                scale,
                shift,
            } => {
                let (scale, shift) = (*scale, *shift);
                if geometry.repeats() > 1 {
                    return Ok(self.norm_along(name, geometry, [scale, shift], &x));
                }
                self.norm(unit, geometry, [scale, shift], &x, node.input)
            }
            Op::BatchNorm { .. } => self.batch_norm(unit.node, &x, name)?,
            Op::Add { other } => {
                let other = self.float(*other, integer)?;
                self.build.node("Add", &[&x, &other], name, Vec::new())
            }
            Op::Dense { .. } | Op::Conv { .. } | Op::Embedding { .. } => {
                unreachable!("written elsewhere")
            }
            Op::Recurrent {
                geometry,
                weight,
                bias,
            } => self.recurrent(&name, node.input, geometry, (*weight, *bias), &x),
            Op::Attention(geometry) => self.attention(&name, geometry, &x),
            Op::Last { positions, .. } => self.last(&name, *positions, &x),
            Op::Position { table } => self.position(&name, *table, &x),
        })
    }

    fn flat(&mut self, x: &str, name: &str) -> String {
        let axis = AttributeProto::int("axis", 1);
        self.build.node("Flatten", &[x], name, vec![axis])
    }

    /// Over the positions of a sequence.
    fn reduce(&mut self, op: &str, x: &str, name: &str) -> String {
        let keep = AttributeProto::int("keepdims", 0);
        if self.build.opset < 18 {
            let axes = AttributeProto::ints("axes", &[1]);
            self.build.node(op, &[x], name, vec![axes, keep])
        } else {
            let axes = self.build.sizes("axis.length", &[1]);
            self.build.node(op, &[x, &axes], name, vec![keep])
        }
    }

    /// On floats or on integers, whose least is never the greatest of a window either.
    fn max_pool(&mut self, pool: &Pool, x: &str, input: ValueId, output: ValueId) -> String {
        let name = self.label(output);
        let ranks = (self.shape(input).len(), self.shape(output).len());
        if ranks == (2, 1) {
            return self.reduce("ReduceMax", x, &name);
        }
        let pooled = match ranks.1 {
            1 => format!("{name}.pooled"),
            _ => name.clone(),
        };
        let pooled = self
            .build
            .node("MaxPool", &[x], pooled, pool_attributes(pool));
        match ranks.1 {
            1 => self.flat(&pooled, &name),
            _ => pooled,
        }
    }

    fn function(&mut self, function: Function, x: &str, value: ValueId) -> String {
        let name = self.label(value);
        match function {
            Function::Relu => self.build.node("Relu", &[x], name, Vec::new()),
            Function::Relu6 => self.clamp(Fused::Relu6, x.to_owned(), value),
            Function::LeakyRelu { slope } => {
                let alpha = AttributeProto::float("alpha", slope);
                self.build.node("LeakyRelu", &[x], name, vec![alpha])
            }
            Function::Tanh => self.build.node("Tanh", &[x], name, Vec::new()),
            Function::Sigmoid => self.build.node("Sigmoid", &[x], name, Vec::new()),
            Function::Gelu if self.build.opset >= 20 => {
                self.build.node("Gelu", &[x], name, Vec::new())
            }
            Function::Gelu => {
                // x / 2 * (1 + erf(x / sqrt 2)), as exporters write it.
                let root = self
                    .build
                    .floats("gelu.root", &[], &[core::f32::consts::SQRT_2]);
                let one = self.build.floats("gelu.one", &[], &[1.0]);
                let half = self.build.floats("gelu.half", &[], &[0.5]);
                let mut step = |op: &str, a: &str, b: Option<&str>, suffix: &str| {
                    let inputs = core::iter::once(a).chain(b).collect::<Vec<_>>();
                    self.build
                        .node(op, &inputs, format!("{name}{suffix}"), Vec::new())
                };
                let scaled = step("Div", x, Some(&root), ".scaled");
                let erf = step("Erf", &scaled, None, ".erf");
                let sum = step("Add", &erf, Some(&one), ".sum");
                let product = step("Mul", x, Some(&sum), ".double");
                step("Mul", &product, Some(&half), "")
            }
        }
    }

    /// `x` with its channels behind the batch: sequences are turned; what turns them back.
    fn turned(&mut self, x: &str, name: &str, rank: usize) -> String {
        match rank {
            2 => {
                let perm = AttributeProto::ints("perm", &[0, 2, 1]);
                self.build.node("Transpose", &[x], name, vec![perm])
            }
            _ => x.to_owned(),
        }
    }

    fn batch_norm(&mut self, node: usize, x: &str, name: String) -> Result<String, ExportError> {
        let node = &self.graph.nodes[node];
        let Op::BatchNorm {
            scale,
            shift,
            mean,
            variance,
            epsilon,
            ..
        } = node.op
        else {
            return Ok(x.to_owned());
        };
        let rank = self.shape(node.output).len();
        let mut inputs = vec![self.turned(x, &format!("{name}.turned"), rank)];
        for tensor in [scale, shift, mean, variance] {
            let (name, shape, values) = self.tensor(tensor);
            inputs.push(self.build.floats(name, shape, values));
        }
        let inputs = inputs.iter().map(String::as_str).collect::<Vec<_>>();
        let epsilon = AttributeProto::float("epsilon", epsilon);
        let output = match rank {
            2 => format!("{name}.back"),
            _ => name.clone(),
        };
        let output = self
            .build
            .node("BatchNormalization", &inputs, output, vec![epsilon]);
        Ok(self.turned(&output, &name, rank))
    }

    /// Group and layer normalisation.
    fn norm(
        &mut self,
        unit: &Unit,
        norm: &Norm,
        [scale, shift]: [usize; 2],
        x: &str,
        input: ValueId,
    ) -> String {
        let name = self.core_label(unit);
        let rank = self.shape(input).len();
        let shape = self.onnx_shape(input);
        let (gamma, _, gammas) = self.tensor(scale);
        let (beta, _, betas) = self.tensor(shift);
        let epsilon = AttributeProto::float("epsilon", norm.epsilon());
        let channels = norm.channels();
        if rank == 1 && norm.groups() == 1 && self.build.opset >= 17 {
            let gamma = self.stored(unit, gamma, &[channels], gammas);
            let beta = self.stored(unit, beta, &[channels], betas);
            let inputs = [x, &gamma, &beta];
            return self
                .build
                .node("LayerNormalization", &inputs, name, vec![epsilon]);
        }
        let x = self.turned(x, &format!("{name}.turned"), rank);
        let output = match rank {
            2 => format!("{name}.back"),
            _ => name.clone(),
        };
        let groups = norm.groups();
        let output = if self.build.opset >= 21 {
            let gamma = self.stored(unit, gamma, &[channels], gammas);
            let beta = self.stored(unit, beta, &[channels], betas);
            let groups = AttributeProto::int("num_groups", groups as i64);
            let inputs = [x.as_str(), &gamma, &beta];
            self.build
                .node("GroupNormalization", &inputs, output, vec![epsilon, groups])
        } else {
            // Every group a channel of its own, normalised by example; then the real channels.
            let apart = self
                .build
                .sizes(&format!("{name}.groups"), &[0, groups as i64, -1]);
            let to = format!("{name}.apart");
            let x = self.build.node("Reshape", &[&x, &apart], to, Vec::new());
            let ones = self
                .build
                .floats(&format!("{name}.ones"), &[groups], &vec![1.0; groups]);
            let zeros = self
                .build
                .floats(&format!("{name}.zeros"), &[groups], &vec![0.0; groups]);
            let inputs = [x.as_str(), &ones, &zeros];
            let to = format!("{name}.normalized");
            let x = self
                .build
                .node("InstanceNormalization", &inputs, to, vec![epsilon]);
            let mut back = vec![0];
            match rank {
                2 => back.extend([shape[1], shape[0]]),
                _ => back.extend(&shape),
            }
            let mut sizes = vec![channels];
            sizes.resize(back.len() - 1, 1);
            let back = self.build.sizes(&format!("{name}.shape"), &back);
            let to = format!("{name}.together");
            let x = self.build.node("Reshape", &[&x, &back], to, Vec::new());
            let gamma = self.stored(unit, gamma, &sizes, gammas);
            let beta = self.stored(unit, beta, &sizes, betas);
            let x = self
                .build
                .node("Mul", &[&x, &gamma], format!("{name}.scaled"), Vec::new());
            self.build.node("Add", &[&x, &beta], output, Vec::new())
        };
        match rank {
            2 => self.turned(&output, &name, rank),
            _ => output,
        }
    }
}

fn pads(padding: &Padding) -> AttributeProto {
    let sides = [padding.top, padding.left, padding.bottom, padding.right];
    AttributeProto::ints("pads", &sides.map(|side| side as i64))
}

fn pair(name: &str, [height, width]: [usize; 2]) -> AttributeProto {
    AttributeProto::ints(name, &[height as i64, width as i64])
}

fn conv_attributes(conv: &Conv) -> Vec<AttributeProto> {
    let shape = conv.shape();
    vec![
        AttributeProto::int("group", shape.groups as i64),
        pair("kernel_shape", shape.kernel),
        pads(&shape.padding),
        pair("strides", shape.stride),
    ]
}

fn pool_attributes(pool: &Pool) -> Vec<AttributeProto> {
    vec![
        pair("kernel_shape", pool.kernel()),
        pads(&pool.padding()),
        pair("strides", pool.stride()),
    ]
}

/// `[numbers, rows]` row by row.
fn by_rows<T: Copy>(numbers: &[T], rows: usize) -> Vec<T> {
    let row = |row| numbers.iter().skip(row).step_by(rows).copied();
    (0..rows).flat_map(row).collect()
}
