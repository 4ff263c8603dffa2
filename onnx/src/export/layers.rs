//! Writes units: each operator of the native graph with what is fused into it.

use std::collections::{BTreeMap, BTreeSet};

use fl_core::InputSpec;
use fl_edge::Model;
use fl_edge::graph::{Graph, Op, Unit, ValueId, units};
use fl_edge::kernel::Fused;
use fl_edge::quant::{QParams, Quantization, Weights4};

use super::builder::Builder;
use super::values::{Held, Order};
use super::{ExportError, ExportOptions, Numbers};
use crate::proto::{AttributeProto, ModelProto, ValueInfoProto, data_type};

/// The names of the file's input and output.
pub(super) const INPUT: &str = "input";
const OUTPUT: &str = "output";

pub(super) struct Exporter<'a> {
    model: &'a Model,
    pub(super) graph: &'a Graph,
    parameters: &'a [f32],
    pub(super) fold: bool,
    pub(super) quantization: Option<&'a Quantization>,
    /// Weights in four bits.
    pub(super) four: Option<&'a Weights4>,
    pub(super) build: Builder,
    /// Of each value in the form that its shape has.
    pub(super) held: Vec<Held>,
    /// Rows that were images, by value and order.
    pub(super) rows: BTreeMap<(ValueId, Order), Held>,
    /// The `DequantizeLinear` nodes written so far.
    pub(super) dequantized: BTreeSet<String>,
    /// Scale and zero point of each value that carries integers.
    pub(super) points: Vec<Option<QParams>>,
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

    pub(super) fn name(&self, value: ValueId) -> &'a str {
        &self.graph.values[value].name
    }

    /// The name of a value in the file.
    pub(super) fn label(&self, value: ValueId) -> String {
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
    pub(super) fn onnx_shape(&self, value: ValueId) -> Vec<i64> {
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

    pub(super) fn clamp(&mut self, clamp: Fused, name: String, value: ValueId) -> String {
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
}
