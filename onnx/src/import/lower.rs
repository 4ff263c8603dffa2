//! Nodes into layers.

mod decomposed;
mod norms;
mod products;
mod shapes;

use fl_core::InputSpec;
use fl_edge::layer::{
    Activation, AddDef, AvgPoolDef, BatchNormDef, Conv2dDef, DenseDef, DropoutDef, EmbeddingDef,
    FlattenDef, GeluDef, GlobalAvgPoolDef, GlobalMaxPoolDef, GroupNormDef, LayerDef, LayerNormDef,
    LeakyReluDef, MaxPoolDef, Padding, Pair, Relu6Def, ReluDef, SigmoidDef, TanhDef,
};
use fl_edge::quant::{Granularity, QParams};

use super::fold::evaluate;
use super::value::{Active, Form, Part, Value};
use super::{ImportError, Importer, Problem};
use crate::error::OnnxError;
use crate::model::Limits;
use crate::proto::{AttributeProto, NodeProto};
use crate::tensor::{DType, Tensor};

type Lowered<T> = Result<T, Problem>;

/// An attribute of a node.
fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute
        .iter()
        .find(|attribute| attribute.name == name)
}

fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).and_then(|a| a.i).unwrap_or(default)
}

fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).and_then(|a| a.f).unwrap_or(default)
}

fn ints<'n>(node: &'n NodeProto, name: &str) -> Option<&'n [i64]> {
    attribute(node, name).map(|a| &a.ints[..])
}

fn text<'n>(node: &'n NodeProto, name: &str) -> &'n str {
    let bytes = attribute(node, name).and_then(|a| a.s.as_deref());
    bytes
        .and_then(|bytes| str::from_utf8(bytes).ok())
        .unwrap_or("")
}

/// Demands the value of an attribute.
fn demand(
    node: &NodeProto,
    name: &'static str,
    default: i64,
    wanted: i64,
    expected: &'static str,
) -> Lowered<()> {
    match int(node, name, default) {
        found if found == wanted => Ok(()),
        found => Err(Problem::Attribute {
            name,
            found: found.to_string(),
            expected,
        }),
    }
}

fn pair(node: &NodeProto, name: &'static str, default: usize) -> Lowered<[usize; 2]> {
    let Some(values) = ints(node, name) else {
        return Ok([default; 2]);
    };
    let sizes = values
        .iter()
        .map(|&size| usize::try_from(size).ok())
        .collect::<Option<Vec<_>>>();
    match sizes.as_deref() {
        Some(&[height, width]) => Ok([height, width]),
        _ => Err(Problem::Attribute {
            name,
            found: format!("{values:?}"),
            expected: "two sizes",
        }),
    }
}

/// A window over an image: kernel, stride and padding.
struct Window {
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: Padding,
}

fn window(node: &NodeProto, size: [usize; 3], kernel: [usize; 2]) -> Lowered<Window> {
    let stride = pair(node, "strides", 1)?;
    if pair(node, "dilations", 1)? != [1, 1] {
        return Err(Problem::Attribute {
            name: "dilations",
            found: format!("{:?}", ints(node, "dilations").unwrap_or_default()),
            expected: "1 in both directions",
        });
    }
    let same = || fl_edge::kernel::Padding::same([size[0], size[1]], kernel, stride);
    let padding = match text(node, "auto_pad") {
        "" | "NOTSET" => {
            let pads = ints(node, "pads").unwrap_or(&[0; 4]);
            let sides = pads.iter().map(|&pad| usize::try_from(pad).ok());
            match sides.collect::<Option<Vec<_>>>().as_deref() {
                Some(&[0, 0, 0, 0]) => Padding::Valid,
                Some(&[top, left, bottom, right]) if top == bottom && left == right => {
                    Padding::Explicit([top, left])
                }
                Some(&[top, left, bottom, right])
                    if same()
                        == (fl_edge::kernel::Padding {
                            top,
                            bottom,
                            left,
                            right,
                        }) =>
                {
                    Padding::Same
                }
                _ => {
                    return Err(Problem::Attribute {
                        name: "pads",
                        found: format!("{pads:?}"),
                        expected: "the same on opposite sides, or SAME_UPPER's",
                    });
                }
            }
        }
        "VALID" => Padding::Valid,
        "SAME_UPPER" => Padding::Same,
        "SAME_LOWER" if same().top == same().bottom && same().left == same().right => Padding::Same,
        other => {
            return Err(Problem::Attribute {
                name: "auto_pad",
                found: other.to_owned(),
                expected: "NOTSET, VALID or SAME_UPPER",
            });
        }
    };
    Ok(Window {
        kernel,
        stride,
        padding,
    })
}

/// A scalar constant.
fn scalar(tensor: &Tensor) -> Option<f32> {
    match tensor.to_f32()[..] {
        [value] => Some(value),
        _ => None,
    }
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-3 * b.abs()
}

impl Importer<'_> {
    /// Adds what the node computes.
    pub(super) fn node(&mut self, node: &NodeProto) -> Result<(), ImportError> {
        let wrong = |problem| ImportError::Node {
            node: match node.name.is_empty() {
                true => node.output.first().cloned().unwrap_or_default(),
                false => node.name.clone(),
            },
            op: match node.domain.as_str() {
                "" | "ai.onnx" => node.op_type.clone(),
                domain => format!("{domain}.{}", node.op_type),
            },
            problem,
        };
        if node.op_type == "Shape"
            && int(node, "start", 0) == 0
            && attribute(node, "end").is_none()
            && let Some(Value::Active(active)) = self.value(node, 0)
        {
            let mut sizes = vec![self.batch];
            sizes.extend(active.form.sizes().iter().map(|&size| size as i64));
            return self.give(node, Value::Constant(Tensor::vector(sizes)));
        }
        let constant = node.input.iter().all(|name| {
            name.is_empty() || matches!(self.values.get(name), Some(Value::Constant(_)))
        });
        if constant {
            if node.op_type == "DequantizeLinear" {
                self.note_granularity(node);
            }
            let inputs = node
                .input
                .iter()
                .filter_map(|name| match self.values.get(name) {
                    Some(Value::Constant(tensor)) => Some((name.as_str(), tensor)),
                    _ => None,
                });
            let limits = Limits {
                live_bytes: self.limits.live_bytes.saturating_sub(self.held),
                ..self.limits
            };
            let inputs = inputs.collect::<Vec<_>>();
            let mut outputs = evaluate(node, &inputs, self.opset, &limits)?;
            for name in &node.output {
                if let Some(tensor) = outputs.remove(name) {
                    self.held = self.held.saturating_add(tensor.bytes());
                    self.assign(name, Value::Constant(tensor))?;
                }
            }
            return Ok(());
        }
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(wrong(Problem::Operator));
        }
        let value = self.lower(node).map_err(wrong)?;
        self.give(node, value)
    }

    fn give(&mut self, node: &NodeProto, value: Value) -> Result<(), ImportError> {
        match node.output.first() {
            Some(name) => self.assign(&name.clone(), value),
            None => Ok(()),
        }
    }

    fn assign(&mut self, name: &str, value: Value) -> Result<(), ImportError> {
        match self.values.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => {
                let twice = crate::error::ModelError::AssignedTwice(name.to_owned());
                Err(OnnxError::from(twice).into())
            }
        }
    }

    // Inputs of nodes.

    fn value(&self, node: &NodeProto, index: usize) -> Option<&Value> {
        node.input.get(index).and_then(|name| self.values.get(name))
    }

    fn active(&self, node: &NodeProto, index: usize) -> Lowered<Active> {
        match self.value(node, index) {
            Some(Value::Active(active)) => Ok(active.clone()),
            Some(Value::Part(_, part)) => Err(Problem::Partial(part.whole())),
            _ => Err(Problem::NotActive(index)),
        }
    }

    fn constant(&self, node: &NodeProto, index: usize) -> Lowered<&Tensor> {
        match self.value(node, index) {
            Some(Value::Constant(tensor)) => Ok(tensor),
            _ => Err(Problem::NotConstant(index)),
        }
    }

    /// A constant that need not be there.
    fn optional(&self, node: &NodeProto, index: usize) -> Lowered<Option<&Tensor>> {
        match node.input.get(index).map(String::as_str) {
            None | Some("") => Ok(None),
            Some(_) => self.constant(node, index).map(Some),
        }
    }

    /// A constant of so many numbers, whatever sizes of 1 surround them.
    fn vector(&self, node: &NodeProto, index: usize, len: usize) -> Lowered<Vec<f32>> {
        let tensor = self.constant(node, index)?;
        vector(tensor, len)
    }

    /// The two sides of a commutative operator, the computed one first.
    fn sides<'v>(&'v self, node: &NodeProto) -> (Option<&'v Value>, Option<&'v Value>) {
        let sides = (self.value(node, 0), self.value(node, 1));
        match sides {
            (Some(Value::Constant(_)), other) => (other, sides.0),
            _ => sides,
        }
    }

    // Layers.

    /// A name that no layer has: the wish, or the wish with a number.
    fn fresh(&mut self, wish: &str) -> String {
        let mut name = wish.to_owned();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{wish}-{count}");
        }
        name
    }

    /// A layer's name from its weight's, or from the node's.
    fn layer_name(&mut self, node: &NodeProto, weight: Option<usize>) -> String {
        let weight = weight.and_then(|index| node.input.get(index));
        let wish = weight.and_then(|name| name.strip_suffix(".weight"));
        let own = if node.name.is_empty() {
            node.output.first()
        } else {
            Some(&node.name)
        };
        let wish = wish.or(own.map(String::as_str)).unwrap_or("layer");
        let wish = written_name(wish).to_owned();
        self.fresh(&wish)
    }

    /// Adds a layer that reads `from`.
    fn push(&mut self, name: String, from: &str, layer: LayerDef) -> String {
        let before = self
            .layers
            .last()
            .and_then(LayerDef::name)
            .unwrap_or("input");
        let input = (before != from).then(|| from.to_owned());
        self.layers.push(layer.with(Some(name.clone()), input));
        name
    }

    fn tensor(&mut self, layer: &str, part: &str, values: Vec<f32>) {
        self.tensors.insert(format!("{layer}.{part}"), values);
    }

    /// A function of its own layer, or of the product before it when both have one name.
    fn function(&mut self, node: &NodeProto, x: Active, function: Activation) -> Value {
        let name = node.name.strip_suffix(".double").unwrap_or(&node.name);
        let before = self
            .layers
            .last_mut()
            .filter(|layer| name == x.layer && layer.name() == Some(&x.layer));
        let activation = match before {
            Some(LayerDef::Dense(def)) => Some(&mut def.activation),
            Some(LayerDef::Conv2d(def)) => Some(&mut def.activation),
            _ => None,
        };
        if let Some(activation @ None) = activation {
            *activation = Some(function);
            // The layer's name now stands for the function's value; what came before has a point
            // of its own and can be read no more.
            if let Some(point) = self.points.remove(&x.layer) {
                self.points.insert(format!("{}.linear", x.layer), point);
            }
            self.values.retain(|_, value| match value {
                Value::Constant(_) => true,
                Value::Active(a) | Value::Quantized(a, _) | Value::Part(a, _) => a.layer != x.layer,
            });
            return Value::Active(x);
        }
        let layer = match function {
            Activation::Relu => LayerDef::Relu(ReluDef::default()),
            Activation::Relu6 => LayerDef::Relu6(Relu6Def::default()),
            Activation::LeakyRelu => LayerDef::LeakyRelu(LeakyReluDef {
                name: None,
                input: None,
                slope: 0.01,
            }),
            Activation::Gelu => LayerDef::Gelu(GeluDef::default()),
            Activation::Tanh => LayerDef::Tanh(TanhDef::default()),
            Activation::Sigmoid => LayerDef::Sigmoid(SigmoidDef::default()),
        };
        self.same_form(node, x, layer)
    }

    /// A layer that keeps the form.
    fn same_form(&mut self, node: &NodeProto, x: Active, layer: LayerDef) -> Value {
        let name = self.layer_name(node, None);
        let layer = self.push(name, &x.layer, layer);
        Value::Active(Active {
            layer,
            form: x.form,
        })
    }

    fn lower(&mut self, node: &NodeProto) -> Lowered<Value> {
        // Moves of integers are moves of the numbers that they stand for.
        if let Some(Value::Quantized(active, point)) = self.value(node, 0) {
            let (active, point) = (active.clone(), *point);
            return match node.op_type.as_str() {
                "DequantizeLinear" => Ok(Value::Active(active)),
                "MaxPool" | "Flatten" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze"
                | "Identity" | "ReduceMax" | "GlobalMaxPool" => {
                    match self.lower_on(node, &Value::Active(active))? {
                        Value::Active(active) => Ok(Value::Quantized(active, point)),
                        _ => Err(Problem::Operator),
                    }
                }
                _ => Err(Problem::Operator),
            };
        }
        let first = self
            .value(node, 0)
            .cloned()
            .unwrap_or_else(|| Value::Constant(Tensor::scalar(0.0f32)));
        self.lower_on(node, &first)
    }

    fn lower_on(&mut self, node: &NodeProto, first: &Value) -> Lowered<Value> {
        let x = |importer: &Self| match first {
            Value::Active(active) => Ok(active.clone()),
            Value::Part(_, part) => Err(Problem::Partial(part.whole())),
            _ => importer.active(node, 0),
        };
        match node.op_type.as_str() {
            "Conv" => self.conv(node),
            "Gemm" | "MatMul" => self.dense(node),
            "Add" => self.add(node),
            "Sub" | "Pow" | "Sqrt" | "Div" | "Mul" | "Erf" => self.arithmetic(node),
            "Relu" => Ok(self.function(node, x(self)?, Activation::Relu)),
            "Tanh" => Ok(self.function(node, x(self)?, Activation::Tanh)),
            "Sigmoid" => Ok(self.function(node, x(self)?, Activation::Sigmoid)),
            "Gelu" if matches!(text(node, "approximate"), "" | "none") => {
                Ok(self.function(node, x(self)?, Activation::Gelu))
            }
            "LeakyRelu" => {
                let slope = float(node, "alpha", 0.01);
                if slope.to_bits() == 0.01f32.to_bits() {
                    return Ok(self.function(node, x(self)?, Activation::LeakyRelu));
                }
                let def = LeakyReluDef {
                    name: None,
                    input: None,
                    slope,
                };
                Ok(self.same_form(node, x(self)?, LayerDef::LeakyRelu(def)))
            }
            "Clip" => self.clip(node, x(self)?),
            "MaxPool" | "AveragePool" => self.pool(node, x(self)?),
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let x = x(self)?;
                let Form::Image {
                    size: [_, _, channels],
                    last: false,
                } = x.form
                else {
                    return Err(shape(&x, "an image, channels first"));
                };
                let form = Form::Row {
                    features: channels,
                    order: None,
                    ones: 2,
                };
                Ok(self.global(node, &x, form, node.op_type == "GlobalMaxPool"))
            }
            "ReduceMean" | "ReduceMax" => self.reduce(node, first),
            "BatchNormalization" => self.batch_norm(node, x(self)?),
            "LayerNormalization" => self.layer_norm(node, x(self)?),
            "GroupNormalization" if self.opset >= 21 => {
                let x = x(self)?;
                let groups = usize::try_from(int(node, "num_groups", 0)).unwrap_or(0);
                let channels = x.form.channels().ok_or(Problem::Order)?;
                let gamma = self.vector(node, 1, channels)?;
                let beta = self.vector(node, 2, channels)?;
                let epsilon = float(node, "epsilon", 1e-5);
                Ok(self.group_norm(node, x, groups, epsilon, [gamma, beta], [Some(1), None]))
            }
            "InstanceNormalization" => self.instance_norm(node, first),
            "Gather" => self.embedding(node),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => self.reshape(node, first),
            "Transpose" => self.transpose(node, x(self)?),
            "Dropout" => {
                let rate = match self.optional(node, 1)? {
                    Some(rate) => scalar(rate).unwrap_or(0.5),
                    None => 0.5,
                };
                let def = LayerDef::Dropout(DropoutDef::new(rate.clamp(0.0, 0.999)));
                Ok(self.same_form(node, x(self)?, def))
            }
            "Identity" => Ok(first.clone()),
            "Cast" => {
                let x = x(self)?;
                let to = i32::try_from(int(node, "to", 0))
                    .ok()
                    .and_then(DType::from_onnx);
                match (to, x.form) {
                    (Some(DType::F32 | DType::F16), form)
                        if !matches!(form, Form::Tokens { .. }) => {}
                    (Some(DType::I64 | DType::I32), Form::Tokens { .. }) => {}
                    _ => return Err(Problem::Operator),
                }
                Ok(Value::Active(x))
            }
            "Softmax" | "LogSoftmax" => {
                let x = x(self)?;
                let last = self.graph.output.first().is_some_and(|output| {
                    node.output.first().is_some_and(|name| *name == output.name)
                });
                if !last || !matches!(x.form, Form::Row { .. }) {
                    return Err(Problem::Operator);
                }
                self.notices.push(format!(
                    "the final {} is left out: the loss applies it, and it changes no order of \
                     classes",
                    node.op_type
                ));
                Ok(Value::Active(x))
            }
            "QuantizeLinear" => self.quantize(node, x(self)?),
            _ => Err(Problem::Operator),
        }
    }

    // Integers.

    fn quantize(&mut self, node: &NodeProto, x: Active) -> Lowered<Value> {
        let scale = self.constant(node, 1)?;
        let scale = scalar(scale).ok_or_else(|| constant(scale, "one scale"))?;
        // `i8` in the file is `u8` natively, 128 higher.
        let zero = match self.optional(node, 2)? {
            None => 0,
            Some(zero) => match (zero.dtype(), zero.to_i64().as_deref()) {
                (DType::U8, Some(&[zero])) => zero,
                (DType::I8, Some(&[zero])) => zero + 128,
                _ => return Err(constant(zero, "one zero point of u8 or i8")),
            },
        };
        let zero = u8::try_from(zero).unwrap_or(u8::MAX);
        let point = QParams::new(scale, zero).map_err(|_| Problem::Attribute {
            name: "scale",
            found: scale.to_string(),
            expected: "a finite number above 0",
        })?;
        let holder = self.holder(&x.layer).to_owned();
        if holder == x.layer {
            self.points.insert(holder, point);
        } else {
            self.passed.insert(x.layer.clone(), point);
            if self.reads(&holder) == 1 {
                // Rounded behind a pool or flattened: the same numbers as rounded before it.
                self.points.entry(holder).or_insert(point);
            }
        }
        Ok(Value::Quantized(x, point))
    }

    /// The layer whose numbers a layer's output holds: its own, or those before pools of the
    /// largest and flattening, which have no scale of their own.
    fn holder<'l>(&'l self, layer: &'l str) -> &'l str {
        let mut holder = layer;
        while let Some(at) = (self.layers.iter()).position(|def| def.name() == Some(holder)) {
            let passes = matches!(
                self.layers[at],
                LayerDef::MaxPool(_)
                    | LayerDef::GlobalMaxPool(_)
                    | LayerDef::Flatten(_)
                    | LayerDef::Dropout(_)
            );
            if !passes {
                break;
            }
            holder = self.source(at);
        }
        holder
    }

    /// The name of the layer that a layer reads, `input` for the first.
    fn source(&self, at: usize) -> &str {
        let before = at
            .checked_sub(1)
            .and_then(|before| self.layers[before].name());
        self.layers[at].input().or(before).unwrap_or("input")
    }

    /// How many layers read a layer's output, so far.
    fn reads(&self, layer: &str) -> usize {
        let sources = (0..self.layers.len()).map(|at| self.source(at));
        sources.filter(|source| *source == layer).count()
    }

    /// Whether weights have a scale for each channel.
    fn note_granularity(&mut self, node: &NodeProto) {
        if let Ok(scale) = self.constant(node, 1)
            && scale.len() > 1
        {
            self.granularity = Granularity::Channel;
        }
    }
}

/// A node's name without what our own export adds to the name of a value.
fn written_name(name: &str) -> &str {
    let strip = |name, suffixes: &[&str]| {
        let mut found = suffixes
            .iter()
            .filter_map(|suffix| str::strip_suffix(name, suffix));
        found.next().unwrap_or(name)
    };
    let name = strip(name, &[".quantized"]);
    strip(name, &[".linear", ".row", ".native_row"])
}

fn scaled(x: &Active, factor: f32) -> Lowered<Value> {
    Ok(match near(factor, 1.0) {
        true => Value::Active(x.clone()),
        false => Value::Part(x.clone(), Part::Scaled(factor)),
    })
}

fn shape(x: &Active, expected: &'static str) -> Problem {
    Problem::Shape {
        found: format!("{:?}", x.form.sizes()),
        expected,
    }
}

fn constant(tensor: &Tensor, expected: &str) -> Problem {
    Problem::Constant {
        found: format!("{:?}", tensor.shape()),
        expected: expected.to_owned(),
    }
}

/// The numbers of a constant of so many, whatever sizes of 1 surround them.
fn vector(tensor: &Tensor, len: usize) -> Lowered<Vec<f32>> {
    let longest = tensor.shape().iter().max().copied().unwrap_or(1);
    match tensor.len() == len && longest == len {
        true => Ok(tensor.to_f32()),
        false => Err(constant(tensor, &format!("[{len}]"))),
    }
}
