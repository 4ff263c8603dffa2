//! Operators other than products.

use fl_edge::graph::{Function, Op, Unit, ValueId};
use fl_edge::kernel::{Conv, Fused, Norm, Padding, Pool};

use super::ExportError;
use super::layers::{Exporter, INPUT};
use crate::proto::AttributeProto;

impl Exporter<'_> {
    /// Any other operator; the name of its float output in the form of its value's shape.
    pub(super) fn operator(&mut self, unit: &Unit, integer: bool) -> Result<String, ExportError> {
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
    pub(super) fn max_pool(
        &mut self,
        pool: &Pool,
        x: &str,
        input: ValueId,
        output: ValueId,
    ) -> String {
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

    pub(super) fn function(&mut self, function: Function, x: &str, value: ValueId) -> String {
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

    pub(super) fn batch_norm(
        &mut self,
        node: usize,
        x: &str,
        name: String,
    ) -> Result<String, ExportError> {
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

pub(super) fn conv_attributes(conv: &Conv) -> Vec<AttributeProto> {
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
