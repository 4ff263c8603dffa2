//! Builds the graph of a definition: names, shapes, tensors.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use fl_core::{InputSpec, TargetSpec};

use super::target_width;
use super::{Function, Graph, LayerSummary, Node, Op, Start, Tensor, TensorId, Value, ValueId};
use crate::error::{EdgeError, LayerError, shape_text};
use crate::kernel::{
    Attention, Cell, Conv, ConvShape, Dense, Fused, GeometryError, Norm, Padding as Pads, Pool,
    Recurrent,
};
use crate::layer::{
    Activation, AttentionDef, BatchNormDef, Conv2dDef, DenseDef, Init, LayerDef, Padding, Pair,
};
use crate::zoo::{Loss, ModelDef};

/// Largest number of elements of one example's value or of one tensor.
const MAX_ELEMENTS: usize = 1 << 28;
/// Largest standard deviation that weights may start with; anything near it is a slip.
const MAX_DEVIATION: f64 = 100.0;

struct Builder {
    values: Vec<Value>,
    nodes: Vec<Node>,
    tensors: Vec<Tensor>,
    tokens: Option<usize>,
    width: usize,
    /// The name of the layer being built.
    name: String,
}

/// The graph, the tensors in order, and the table of layers.
pub(crate) fn build(
    def: &ModelDef,
    input: &InputSpec,
    target: TargetSpec,
) -> Result<(Graph, Vec<Tensor>, Vec<LayerSummary>), EdgeError> {
    let (shape, tokens) = match input {
        InputSpec::Real(shape) => (shape.clone(), None),
        InputSpec::Tokens { length, vocabulary } => (vec![*length], Some(*vocabulary)),
    };
    let sized = elements(&shape).is_some_and(|len| len > 0);
    if !sized || tokens == Some(0) {
        let shape = shape_text(&shape);
        return Err(EdgeError::EmptyInput { shape });
    }
    let width = target_width(target);
    if width == 0 {
        return Err(EdgeError::EmptyTarget);
    }
    let loss = loss(def.loss(), target)?;
    let layers = def.layers_for(input, target)?;
    if layers.is_empty() {
        return Err(EdgeError::NoLayers);
    }
    let mut builder = Builder {
        values: vec![Value {
            name: "input".to_owned(),
            shape,
            root: 0,
        }],
        nodes: Vec::new(),
        tensors: Vec::new(),
        tokens,
        width,
        name: String::new(),
    };
    let mut names = BTreeMap::from([("input".to_owned(), 0)]);
    let mut counts = BTreeMap::<&str, usize>::new();
    let mut summary = Vec::<LayerSummary>::with_capacity(layers.len());
    let mut starts_at = Vec::with_capacity(layers.len());
    let mut current = 0;
    for (index, layer) in layers.iter().enumerate() {
        let count = counts.entry(layer.kind()).or_default();
        *count += 1;
        let name = match layer.name() {
            Some(name) => name.to_owned(),
            None => format!("{}{count}", layer.kind()),
        };
        let wrong = |problem| EdgeError::Layer {
            index: index + 1,
            name: name.clone(),
            problem,
        };
        if names.contains_key(&name) {
            return Err(wrong(LayerError::DuplicateName));
        }
        let source = match layer.input() {
            Some(from) => find(&names, "input", from).map_err(wrong)?,
            None => current,
        };
        let tensors = builder.tensors.len();
        let nodes = builder.nodes.len();
        starts_at.push(nodes);
        let values = builder.values.len();
        builder.name.clone_from(&name);
        current = builder.layer(layer, &name, source, &names).map_err(wrong)?;
        for value in values..builder.values.len() {
            let value_name = builder.values[value].name.clone();
            if names.insert(value_name, value).is_some() {
                return Err(wrong(LayerError::DuplicateName));
            }
        }
        summary.push(LayerSummary {
            name,
            kind: layer.kind(),
            output_shape: builder.values[current].shape.clone(),
            parameters: builder.tensors[tensors..]
                .iter()
                .map(|tensor| tensor.shape.iter().product::<usize>())
                .sum(),
            macs: builder.nodes[nodes..].iter().map(Node::macs).sum(),
        });
    }
    let output = &builder.values[current];
    let untouched = output.root == 0 && tokens.is_some();
    if let TargetSpec::Sequence { length, classes } = target
        && (output.shape != [length, classes] || untouched)
    {
        return Err(EdgeError::OutputSequence {
            found: shape_text(&output.shape),
            length,
            classes,
        });
    }
    if !matches!(target, TargetSpec::Sequence { .. }) && (output.shape != [width] || untouched) {
        return Err(EdgeError::Output {
            found: shape_text(&output.shape),
            expected: width,
            loss: loss.name(),
        });
    }
    if builder.tensors.is_empty() {
        return Err(EdgeError::NoParameters);
    }
    let mut graph = Graph {
        values: builder.values,
        nodes: builder.nodes,
        output: current,
        loss,
        input: input.clone(),
        target,
    };
    if let Some(node) = graph.unused() {
        let layer = starts_at.partition_point(|&start| start <= node);
        return Err(EdgeError::Layer {
            index: layer,
            name: summary[layer - 1].name.clone(),
            problem: LayerError::Unused,
        });
    }
    graph.fuse_relu();
    Ok((graph, builder.tensors, summary))
}

fn loss(asked: Option<Loss>, target: TargetSpec) -> Result<Loss, EdgeError> {
    match (asked, target) {
        (
            None | Some(Loss::SoftmaxCrossEntropy),
            TargetSpec::Class { .. } | TargetSpec::Sequence { .. },
        ) => Ok(Loss::SoftmaxCrossEntropy),
        (None, TargetSpec::Real { .. }) => Ok(Loss::Mse),
        (Some(loss @ (Loss::Mse | Loss::Bce)), TargetSpec::Real { .. }) => Ok(loss),
        (Some(loss), TargetSpec::Class { .. } | TargetSpec::Sequence { .. }) => {
            Err(EdgeError::Loss {
                loss: loss.name(),
                target: "classes",
                instead: Loss::SoftmaxCrossEntropy.name(),
            })
        }
        (Some(loss), TargetSpec::Real { .. }) => Err(EdgeError::Loss {
            loss: loss.name(),
            target: "real numbers",
            instead: Loss::Mse.name(),
        }),
    }
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        .filter(|&len| len <= MAX_ELEMENTS)
}

fn find(
    names: &BTreeMap<String, ValueId>,
    key: &'static str,
    name: &str,
) -> Result<ValueId, LayerError> {
    names
        .get(name)
        .copied()
        .ok_or_else(|| LayerError::UnknownLayer {
            key,
            name: name.to_owned(),
            known: names.keys().cloned().collect::<Vec<_>>().join(", "),
        })
}

fn positive(key: &'static str, value: usize) -> Result<(), LayerError> {
    match value {
        0 => Err(LayerError::Zero { key }),
        _ if value > MAX_ELEMENTS => Err(LayerError::TooLarge),
        _ => Ok(()),
    }
}

fn positive_pair(key: &'static str, value: Pair) -> Result<[usize; 2], LayerError> {
    positive(key, value.0[0])?;
    positive(key, value.0[1])?;
    Ok(value.0)
}

/// A checked epsilon.
fn above_zero(key: &'static str, value: f32) -> Result<f32, LayerError> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(LayerError::Range {
            key,
            value: value.to_string(),
            range: "above 0",
        })
    }
}

fn below_one(key: &'static str, value: f32) -> Result<f32, LayerError> {
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err(LayerError::Range {
            key,
            value: value.to_string(),
            range: "at least 0 and below 1",
        })
    }
}

impl From<Activation> for Function {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Relu => Self::Relu,
            Activation::Relu6 => Self::Relu6,
            Activation::LeakyRelu => Self::LeakyRelu { slope: 0.01 },
            Activation::Gelu => Self::Gelu,
            Activation::Tanh => Self::Tanh,
            Activation::Sigmoid => Self::Sigmoid,
        }
    }
}

impl Builder {
    /// Adds the layer fed by `source`; its output.
    fn layer(
        &mut self,
        layer: &LayerDef,
        name: &str,
        source: ValueId,
        names: &BTreeMap<String, ValueId>,
    ) -> Result<ValueId, LayerError> {
        let is_tokens = self.tokens.is_some() && self.values[source].root == 0;
        match layer {
            LayerDef::Embedding(_) if !is_tokens => return Err(LayerError::NotTokens),
            LayerDef::Embedding(_) => {}
            _ if is_tokens => return Err(LayerError::Tokens),
            _ => {}
        }
        let shape = self.values[source].shape.clone();
        match layer {
            LayerDef::Dense(def) => self.dense(def, name, source, &shape),
            LayerDef::Conv2d(def) => self.conv(def, name, source, &shape),
            LayerDef::MaxPool(def) => {
                let (pool, out) = pool(&shape, def.size, def.stride, def.padding)?;
                self.node(Op::MaxPool(pool), source, out)
            }
            LayerDef::AvgPool(def) => {
                let (pool, out) = pool(&shape, def.size, def.stride, def.padding)?;
                self.node(Op::AvgPool(pool), source, out)
            }
            LayerDef::GlobalAvgPool(_) => {
                let (positions, channels) = positions(&shape)?;
                let op = Op::GlobalAvgPool {
                    positions,
                    channels,
                };
                self.node(op, source, vec![channels])
            }
            LayerDef::GlobalMaxPool(_) => {
                let (positions, channels) = positions(&shape)?;
                let image = match shape[..] {
                    [height, width, _] => [height, width],
                    _ => [positions, 1],
                };
                let pool = Pool::new([image[0], image[1], channels], image, [1, 1], Pads::NONE)
                    .map_err(|_| LayerError::Range {
                        key: "the number of positions",
                        value: positions.to_string(),
                        range: "at most 255; put a `max-pool` layer before it",
                    })?;
                self.node(Op::MaxPool(pool), source, vec![channels])
            }
            LayerDef::Relu(_) => self.node(Op::Function(Function::Relu), source, shape),
            LayerDef::Relu6(_) => self.node(Op::Function(Function::Relu6), source, shape),
            LayerDef::LeakyRelu(def) => {
                let slope = below_one("slope", def.slope)?;
                self.node(Op::Function(Function::LeakyRelu { slope }), source, shape)
            }
            LayerDef::Gelu(_) => self.node(Op::Function(Function::Gelu), source, shape),
            LayerDef::Tanh(_) => self.node(Op::Function(Function::Tanh), source, shape),
            LayerDef::Sigmoid(_) => self.node(Op::Function(Function::Sigmoid), source, shape),
            LayerDef::Dropout(def) => {
                let rate = below_one("rate", def.rate)?;
                self.node(Op::Dropout { rate }, source, shape)
            }
            LayerDef::GroupNorm(def) => {
                positive("groups", def.groups)?;
                let epsilon = above_zero("epsilon", def.epsilon)?;
                let (positions, channels) = match shape[..] {
                    [channels] => (1, channels),
                    _ => positions(&shape)?,
                };
                self.norm(
                    name,
                    source,
                    shape,
                    [positions, channels, def.groups, 1],
                    epsilon,
                )
            }
            LayerDef::BatchNorm(def) => self.batch_norm(def, name, source, shape),
            LayerDef::LayerNorm(def) => {
                let epsilon = above_zero("epsilon", def.epsilon)?;
                let (repeats, features) = match shape[..] {
                    [features] => (1, features),
                    [length, features] => (length, features),
                    _ => {
                        return Err(LayerError::InputShape {
                            expected: "a row of features or a sequence [length, features]",
                            found: shape_text(&shape),
                            advice: "put a `flatten` layer before it, or use `group-norm` with \
                                     groups = 1",
                        });
                    }
                };
                self.norm(name, source, shape, [1, features, 1, repeats], epsilon)
            }
            LayerDef::Embedding(def) => {
                positive("size", def.size)?;
                let vocabulary = self.tokens.unwrap_or(0);
                let table = self.tensor(
                    format!("{name}.weight"),
                    vec![vocabulary, def.size],
                    Start::Uniform(0.05),
                )?;
                let op = Op::Embedding {
                    table,
                    size: def.size,
                };
                let mut out = shape;
                out.push(def.size);
                self.node(op, source, out)
            }
            LayerDef::Lstm(def) => self.recurrent(Cell::Lstm, def.units, name, source, &shape),
            LayerDef::Gru(def) => self.recurrent(Cell::Gru, def.units, name, source, &shape),
            LayerDef::Attention(def) => self.attention(def, name, source, &shape),
            LayerDef::Position(_) => {
                sequence(&shape)?;
                let start = Start::Uniform(0.05);
                let table = self.tensor(format!("{name}.weight"), shape.clone(), start)?;
                self.node(Op::Position { table }, source, shape)
            }
            LayerDef::Last(_) => {
                let [positions, channels] = sequence(&shape)?;
                let op = Op::Last {
                    positions,
                    channels,
                };
                self.node(op, source, vec![channels])
            }
            LayerDef::Add(def) => {
                let other = find(names, "from", &def.from)?;
                if self.tokens.is_some() && self.values[other].root == 0 {
                    return Err(LayerError::Tokens);
                }
                if self.values[other].shape != shape {
                    return Err(LayerError::Add {
                        left: shape_text(&shape),
                        right: shape_text(&self.values[other].shape),
                    });
                }
                self.node(Op::Add { other }, source, shape)
            }
            LayerDef::Flatten(_) => {
                let len = self.values[source].len();
                let root = self.values[source].root;
                self.values.push(Value {
                    name: name.to_owned(),
                    shape: vec![len],
                    root,
                });
                Ok(self.values.len() - 1)
            }
        }
    }

    fn dense(
        &mut self,
        def: &DenseDef,
        name: &str,
        source: ValueId,
        shape: &[usize],
    ) -> Result<ValueId, LayerError> {
        let outputs = def.units.unwrap_or(self.width);
        let inputs = match *shape {
            [inputs] => inputs,
            [_, inputs] => {
                positive("units", outputs)?;
                let starts = starts(def.init, inputs as f64, outputs as f64)?;
                let tensors = [format!("{name}.weight"), format!("{name}.bias")];
                let out = self.along(source, outputs, tensors, starts, def.bias)?;
                return self.activation(def.activation, out);
            }
            _ => {
                return Err(LayerError::InputShape {
                    expected: "a row of numbers or a sequence [length, features]",
                    found: shape_text(shape),
                    advice: "put a `flatten` or a pooling layer before it",
                });
            }
        };
        positive("units", outputs)?;
        let (weight_start, bias_start) = starts(def.init, inputs as f64, outputs as f64)?;
        let weight = self.tensor(
            format!("{name}.weight"),
            vec![inputs, outputs],
            weight_start,
        )?;
        let bias = match def.bias {
            true => Some(self.tensor(format!("{name}.bias"), vec![outputs], bias_start)?),
            false => None,
        };
        let op = Op::Dense {
            geometry: Dense { inputs, outputs },
            weight,
            bias,
            fused: Fused::None,
        };
        let out = self.node(op, source, vec![outputs])?;
        self.activation(def.activation, out)
    }

    /// A product at every position of a sequence: a convolution of one window per position.
    fn along(
        &mut self,
        source: ValueId,
        outputs: usize,
        [weight, bias]: [String; 2],
        (weight_start, bias_start): (Start, Start),
        has_bias: bool,
    ) -> Result<ValueId, LayerError> {
        let [length, inputs] = sequence(&self.values[source].shape)?;
        let geometry = Conv::new(ConvShape {
            height: 1,
            width: length,
            channels: inputs,
            filters: outputs,
            kernel: [1, 1],
            stride: [1, 1],
            padding: Pads::NONE,
            groups: 1,
        })
        .map_err(|_| LayerError::TooLarge)?;
        let weight = self.tensor(weight, vec![inputs, outputs], weight_start)?;
        let bias = match has_bias {
            true => Some(self.tensor(bias, vec![outputs], bias_start)?),
            false => None,
        };
        let op = Op::Conv {
            geometry,
            weight,
            bias,
            fused: Fused::None,
        };
        self.node(op, source, vec![length, outputs])
    }

    fn recurrent(
        &mut self,
        cell: Cell,
        units: usize,
        name: &str,
        source: ValueId,
        shape: &[usize],
    ) -> Result<ValueId, LayerError> {
        let [length, inputs] = sequence(shape)?;
        positive("units", units)?;
        let width = cell.gates().checked_mul(units);
        let width = width.filter(|&width| width <= MAX_ELEMENTS);
        let width = width.ok_or(LayerError::TooLarge)?;
        let (start, zero) = starts(Init::GlorotUniform, inputs as f64, width as f64)?;
        let bias_start = match cell {
            Cell::Lstm => Start::ForgetGate,
            Cell::Gru => zero,
        };
        let tensors = [format!("{name}.weight"), format!("{name}.bias")];
        let gates = self.along(source, width, tensors, (start, bias_start), true)?;
        self.values[gates].name.push_str(".gates");
        let geometry = Recurrent::new(cell, length, units).map_err(|_| LayerError::TooLarge)?;
        let start = Start::Uniform(1.0 / libm::sqrt(units as f64));
        let weight = self.tensor(
            format!("{name}.recurrent.weight"),
            vec![units, width],
            start,
        )?;
        let bias = match cell {
            Cell::Lstm => None,
            Cell::Gru => Some(self.tensor(format!("{name}.recurrent.bias"), vec![units], zero)?),
        };
        let op = Op::Recurrent {
            geometry,
            weight,
            bias,
        };
        self.node(op, gates, vec![length, units])
    }

    fn attention(
        &mut self,
        def: &AttentionDef,
        name: &str,
        source: ValueId,
        shape: &[usize],
    ) -> Result<ValueId, LayerError> {
        let [length, width] = sequence(shape)?;
        positive("heads", def.heads)?;
        let geometry = Attention::new(length, width, def.heads, def.causal).map_err(|_| {
            LayerError::Heads {
                heads: def.heads,
                features: width,
            }
        })?;
        if elements(&[def.heads, length, length]).is_none() {
            return Err(LayerError::TooLarge);
        }
        // Each of the three products as if it were alone.
        let starts = starts(def.init, width as f64, width as f64)?;
        let tensors = [format!("{name}.in.weight"), format!("{name}.in.bias")];
        let outputs = width.checked_mul(3).ok_or(LayerError::TooLarge)?;
        let queries = self.along(source, outputs, tensors, starts, def.bias)?;
        self.values[queries].name.push_str(".in");
        let mixed = self.node(Op::Attention(geometry), queries, vec![length, width])?;
        self.values[mixed].name.push_str(".heads");
        let tensors = [format!("{name}.out.weight"), format!("{name}.out.bias")];
        self.along(mixed, width, tensors, starts, def.bias)
    }

    fn conv(
        &mut self,
        def: &Conv2dDef,
        name: &str,
        source: ValueId,
        shape: &[usize],
    ) -> Result<ValueId, LayerError> {
        let [height, width, channels] = image(shape)?;
        positive("filters", def.filters)?;
        positive("groups", def.groups)?;
        let kernel = positive_pair("kernel", def.kernel)?;
        let stride = positive_pair("stride", def.stride)?;
        for (count, of) in [(channels, "input channels"), (def.filters, "filters")] {
            if !count.is_multiple_of(def.groups) {
                return Err(LayerError::Groups {
                    groups: def.groups,
                    channels: count,
                    of,
                });
            }
        }
        let padding = pads(def.padding, [height, width], kernel, stride)?;
        let geometry = Conv::new(ConvShape {
            height,
            width,
            channels,
            filters: def.filters,
            kernel,
            stride,
            padding,
            groups: def.groups,
        })
        .map_err(|error| window(error, kernel, [height, width], padding))?;
        let out = vec![geometry.out_height(), geometry.out_width(), def.filters];
        let per_group = channels / def.groups;
        let area = (kernel[0] * kernel[1]) as f64;
        let (weight_start, bias_start) =
            starts(def.init, area * per_group as f64, area * def.filters as f64)?;
        let weight_shape = vec![kernel[0], kernel[1], per_group, def.filters];
        let weight = self.tensor(format!("{name}.weight"), weight_shape, weight_start)?;
        let bias = match def.bias {
            true => Some(self.tensor(format!("{name}.bias"), vec![def.filters], bias_start)?),
            false => None,
        };
        let op = Op::Conv {
            geometry,
            weight,
            bias,
            fused: Fused::None,
        };
        let out = self.node(op, source, out)?;
        self.activation(def.activation, out)
    }

    fn norm(
        &mut self,
        name: &str,
        source: ValueId,
        shape: Vec<usize>,
        [positions, channels, groups, repeats]: [usize; 4],
        epsilon: f32,
    ) -> Result<ValueId, LayerError> {
        let geometry = Norm::new(positions, channels, groups, epsilon)
            .map_err(|_| LayerError::Groups {
                groups,
                channels,
                of: "input channels",
            })?
            .repeated(repeats);
        let scale = self.tensor(
            format!("{name}.weight"),
            vec![channels],
            Start::Constant(1.0),
        )?;
        let shift = self.tensor(format!("{name}.bias"), vec![channels], Start::Constant(0.0))?;
        let op = Op::Norm {
            geometry,
            scale,
            shift,
        };
        self.node(op, source, shape)
    }

    fn batch_norm(
        &mut self,
        def: &BatchNormDef,
        name: &str,
        source: ValueId,
        shape: Vec<usize>,
    ) -> Result<ValueId, LayerError> {
        let epsilon = above_zero("epsilon", def.epsilon)?;
        if !(def.momentum > 0.0 && def.momentum <= 1.0) {
            return Err(LayerError::Range {
                key: "momentum",
                value: def.momentum.to_string(),
                range: "above 0 and at most 1",
            });
        }
        let (positions, channels) = match shape[..] {
            [channels] => (1, channels),
            _ => positions(&shape)?,
        };
        let mut tensor = |part: &str, start: f32| {
            self.tensor(
                format!("{name}.{part}"),
                vec![channels],
                Start::Constant(start),
            )
        };
        let op = Op::BatchNorm {
            channels,
            positions,
            scale: tensor("weight", 1.0)?,
            shift: tensor("bias", 0.0)?,
            mean: tensor("running_mean", 0.0)?,
            variance: tensor("running_var", 1.0)?,
            epsilon,
            momentum: def.momentum,
            fused: Fused::None,
        };
        self.node(op, source, shape)
    }

    fn activation(
        &mut self,
        activation: Option<Activation>,
        source: ValueId,
    ) -> Result<ValueId, LayerError> {
        match activation {
            Some(activation) => {
                let shape = self.values[source].shape.clone();
                self.values[source].name.push_str(".linear");
                self.node(Op::Function(activation.into()), source, shape)
            }
            None => Ok(source),
        }
    }

    fn tensor(
        &mut self,
        name: String,
        shape: Vec<usize>,
        start: Start,
    ) -> Result<TensorId, LayerError> {
        if elements(&shape).is_none() {
            return Err(LayerError::TooLarge);
        }
        self.tensors.push(Tensor { name, shape, start });
        Ok(self.tensors.len() - 1)
    }

    fn node(&mut self, op: Op, input: ValueId, shape: Vec<usize>) -> Result<ValueId, LayerError> {
        if elements(&shape).is_none() {
            return Err(LayerError::TooLarge);
        }
        let output = self.values.len();
        self.values.push(Value {
            name: self.name.clone(),
            shape,
            root: output,
        });
        self.nodes.push(Node { op, input, output });
        Ok(output)
    }
}

/// How weight and bias start.
fn starts(init: Init, fan_in: f64, fan_out: f64) -> Result<(Start, Start), LayerError> {
    let zero = Start::Constant(0.0);
    Ok(match init {
        Init::GlorotUniform => (Start::Uniform(libm::sqrt(6.0 / (fan_in + fan_out))), zero),
        Init::HeNormal => (Start::Normal(libm::sqrt(2.0 / fan_in)), zero),
        Init::HeUniform => (Start::Uniform(libm::sqrt(6.0 / fan_in)), zero),
        Init::Torch => {
            let start = Start::Uniform(1.0 / libm::sqrt(fan_in));
            (start, start)
        }
        Init::Normal(deviation) if deviation > 0.0 && deviation <= MAX_DEVIATION => {
            (Start::Normal(deviation), zero)
        }
        Init::Normal(deviation) => {
            return Err(LayerError::Range {
                key: "init.normal",
                value: deviation.to_string(),
                range: "above 0 and at most 100",
            });
        }
        Init::Zeros => (zero, zero),
    })
}

fn image(shape: &[usize]) -> Result<[usize; 3], LayerError> {
    <[usize; 3]>::try_from(shape).map_err(|_| LayerError::InputShape {
        expected: "an image [height, width, channels]",
        found: shape_text(shape),
        advice: "put it before `flatten` and `dense`, and choose a data set of images",
    })
}

/// Length and features of a sequence.
fn sequence(shape: &[usize]) -> Result<[usize; 2], LayerError> {
    <[usize; 2]>::try_from(shape).map_err(|_| LayerError::InputShape {
        expected: "a sequence [length, features]",
        found: shape_text(shape),
        advice: "put it behind an `embedding` layer, or choose a data set of sequences",
    })
}

/// Positions and channels of an image or a sequence.
fn positions(shape: &[usize]) -> Result<(usize, usize), LayerError> {
    match *shape {
        [height, width, channels] => Ok((height * width, channels)),
        [length, features] => Ok((length, features)),
        _ => Err(LayerError::InputShape {
            expected: "an image [height, width, channels] or a sequence [length, features]",
            found: shape_text(shape),
            advice: "put it before `flatten` and `dense`",
        }),
    }
}

fn pads(
    padding: Padding,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
) -> Result<Pads, LayerError> {
    if kernel.iter().chain(&stride).any(|&size| size > 1 << 20) {
        return Err(LayerError::TooLarge);
    }
    match padding {
        Padding::Valid => Ok(Pads::NONE),
        Padding::Same => Ok(Pads::same(input, kernel, stride)),
        Padding::Explicit([rows, columns]) if rows.max(columns) <= 1 << 20 => Ok(Pads {
            top: rows,
            bottom: rows,
            left: columns,
            right: columns,
        }),
        Padding::Explicit(_) => Err(LayerError::TooLarge),
    }
}

/// The layer's error for a refused geometry.
fn window(error: GeometryError, kernel: [usize; 2], input: [usize; 2], pads: Pads) -> LayerError {
    match error {
        GeometryError::WindowTooLarge { .. } => LayerError::Kernel { kernel, input },
        GeometryError::PaddingTooLarge { .. } => LayerError::PoolPadding {
            padding: [pads.top.max(pads.bottom), pads.left.max(pads.right)],
            kernel,
        },
        GeometryError::PoolTooLarge { .. } => LayerError::Range {
            key: "size",
            value: format!("{}x{}", kernel[0], kernel[1]),
            range: "at most 255 positions; use `global-max-pool` or `global-avg-pool` for the \
                    whole image",
        },
        _ => LayerError::TooLarge,
    }
}

fn pool(
    shape: &[usize],
    size: Pair,
    stride: Option<Pair>,
    padding: Padding,
) -> Result<(Pool, Vec<usize>), LayerError> {
    let [height, width, channels] = image(shape)?;
    let kernel = positive_pair("size", size)?;
    let stride = positive_pair("stride", stride.unwrap_or(size))?;
    let padding = pads(padding, [height, width], kernel, stride)?;
    let pool = Pool::new([height, width, channels], kernel, stride, padding)
        .map_err(|error| window(error, kernel, [height, width], padding))?;
    let out = vec![pool.out_height(), pool.out_width(), channels];
    Ok((pool, out))
}
