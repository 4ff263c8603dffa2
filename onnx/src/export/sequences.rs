//! Layers of sequences, `[batch, length, features]`.

use fl_edge::graph::{Node, Op, TensorId, Unit, ValueId};
use fl_edge::kernel::{Attention, Cell, Norm, Recurrent};

use super::ExportError;
use super::layers::Exporter;
use crate::proto::AttributeProto;

/// A weight `[inputs, outputs]` as `[outputs, inputs]`.
fn turned(weight: &[f32], outputs: usize) -> Vec<f32> {
    let inputs = weight.len() / outputs.max(1);
    let mut out = Vec::with_capacity(weight.len());
    for output in 0..outputs {
        out.extend((0..inputs).map(|input| weight[input * outputs + output]));
    }
    out
}

impl Exporter<'_> {
    /// Whether a node is a product at every position of a sequence.
    pub(super) fn is_along(&self, node: &Node) -> bool {
        matches!(node.op, Op::Conv { .. }) && self.shape(node.input).len() == 2
    }

    /// The recurrent layer that takes the value as its gates.
    fn recurrent_of(&self, gates: ValueId) -> bool {
        let mut nodes = self.graph.nodes.iter();
        nodes.any(|node| node.input == gates && matches!(node.op, Op::Recurrent { .. }))
    }

    /// A product at every position. The gates of a recurrent layer are computed by its own
    /// operator: what stands for them is what they are made of.
    pub(super) fn along(&mut self, unit: &Unit) -> Result<String, ExportError> {
        let node = &self.graph.nodes[unit.node];
        let x = self.float(node.input, false)?;
        if self.recurrent_of(node.output) {
            return Ok(x);
        }
        let Op::Conv { weight, bias, .. } = node.op else {
            unreachable!("a product at every position is a convolution");
        };
        let name = self.core_label(unit);
        let product = match bias {
            Some(_) => format!("{name}.product"),
            None => name.clone(),
        };
        let (weight, shape, values) = self.tensor(weight);
        let weight = self.build.floats(weight, shape, values);
        let product = self
            .build
            .node("MatMul", &[&x, &weight], product, Vec::new());
        let Some(bias) = bias else {
            return Ok(product);
        };
        let bias = self.plain(bias);
        Ok(self.build.node("Add", &[&product, &bias], name, Vec::new()))
    }

    /// A tensor of the layout as it is.
    fn plain(&mut self, tensor: TensorId) -> String {
        let (name, shape, values) = self.tensor(tensor);
        self.build.floats(name, shape, values)
    }

    /// A recurrent layer over `x`, the input of the product that gives its gates.
    pub(super) fn recurrent(
        &mut self,
        name: &str,
        gates: ValueId,
        geometry: &Recurrent,
        (weight, bias): (TensorId, Option<TensorId>),
        x: &str,
    ) -> String {
        let mut products = self.graph.nodes.iter().filter(|node| node.output == gates);
        let (inner, outer) = match products.next().map(|node| &node.op) {
            Some(Op::Conv { weight, bias, .. }) => (*weight, *bias),
            _ => unreachable!("a product gives the gates"),
        };
        let (width, units) = (geometry.gate_width(), geometry.units());
        let (inner, _, values) = self.tensor(inner);
        let shape = [1, width, values.len() / width];
        let inner = self.build.floats(inner, &shape, &turned(values, width));
        let (weight, _, values) = self.tensor(weight);
        let values = turned(values, width);
        let recurrent = self.build.floats(weight, &[1, width, units], &values);
        let mut biases = vec![0.0; 2 * width];
        if let Some(outer) = outer {
            biases[..width].copy_from_slice(self.tensor(outer).2);
        }
        if let Some(bias) = bias {
            // Of a GRU's hidden gate alone, the last.
            biases[2 * width - units..].copy_from_slice(self.tensor(bias).2);
        }
        let biases = self
            .build
            .floats(&format!("{name}.biases"), &[1, 2 * width], &biases);
        let perm = || vec![AttributeProto::ints("perm", &[1, 0, 2])];
        let first = format!("{name}.steps_first");
        let x = self.build.node("Transpose", &[x], first, perm());
        let mut attributes = vec![AttributeProto::int("hidden_size", units as i64)];
        let op = match geometry.cell() {
            Cell::Lstm => "LSTM",
            Cell::Gru => {
                attributes.push(AttributeProto::int("linear_before_reset", 1));
                "GRU"
            }
        };
        let inputs = [x.as_str(), &inner, &recurrent, &biases];
        let states = self
            .build
            .node(op, &inputs, format!("{name}.states"), attributes);
        let axis = self.build.sizes("axis.direction", &[1]);
        let one = format!("{name}.one_direction");
        let states = self
            .build
            .node("Squeeze", &[&states, &axis], one, Vec::new());
        self.build.node("Transpose", &[&states], name, perm())
    }

    /// Attention over queries, keys and values side by side.
    pub(super) fn attention(&mut self, name: &str, geometry: &Attention, x: &str) -> String {
        let (positions, heads) = (geometry.positions(), geometry.heads());
        let head = geometry.width() / heads;
        let apart = self.build.sizes(
            &format!("{name}.apart"),
            &[0, positions as i64, 3, heads as i64, head as i64],
        );
        let x = self
            .build
            .node("Reshape", &[x, &apart], format!("{name}.parts"), Vec::new());
        let mut part = |index: i64, suffix: &str, perm: &[i64]| {
            let at = self.build.sizes(&format!("index.{index}"), &[index]);
            let axis = vec![AttributeProto::int("axis", 2)];
            let taken = format!("{name}.{suffix}.taken");
            let taken = self.build.node("Gather", &[&x, &at], taken, axis);
            let axes = self.build.sizes("axis.part", &[2]);
            let flat = format!("{name}.{suffix}.flat");
            let flat = self
                .build
                .node("Squeeze", &[&taken, &axes], flat, Vec::new());
            let perm = vec![AttributeProto::ints("perm", perm)];
            let to = format!("{name}.{suffix}");
            self.build.node("Transpose", &[&flat], to, perm)
        };
        let queries = part(0, "queries", &[0, 2, 1, 3]);
        let keys = part(1, "keys", &[0, 2, 3, 1]);
        let values = part(2, "values", &[0, 2, 1, 3]);
        let scale = 1.0 / libm::sqrtf(head as f32);
        let scale = self.build.floats(&format!("{name}.scale"), &[], &[scale]);
        let mut step = |op: &str, inputs: [&str; 2], suffix: &str| {
            self.build
                .node(op, &inputs, format!("{name}.{suffix}"), Vec::new())
        };
        let products = step("MatMul", [&queries, &keys], "products");
        let mut scores = step("Mul", [&products, &scale], "scores");
        if geometry.causal() {
            let unseen =
                (0..positions * positions).map(|at| match at % positions > at / positions {
                    true => f32::NEG_INFINITY,
                    false => 0.0,
                });
            let mask = self.build.floats(
                &format!("{name}.mask"),
                &[positions, positions],
                &unseen.collect::<Vec<_>>(),
            );
            let masked = format!("{name}.masked");
            scores = self
                .build
                .node("Add", &[&scores, &mask], masked, Vec::new());
        }
        let axis = vec![AttributeProto::int("axis", 3)];
        let shares = format!("{name}.shares");
        let shares = self.build.node("Softmax", &[&scores], shares, axis);
        let mixed = format!("{name}.mixed");
        let mixed = self
            .build
            .node("MatMul", &[&shares, &values], mixed, Vec::new());
        let perm = vec![AttributeProto::ints("perm", &[0, 2, 1, 3])];
        let back = format!("{name}.back");
        let back = self.build.node("Transpose", &[&mixed], back, perm);
        let together = self.build.sizes(
            &format!("{name}.together"),
            &[0, positions as i64, geometry.width() as i64],
        );
        self.build
            .node("Reshape", &[&back, &together], name, Vec::new())
    }

    /// The last position.
    pub(super) fn last(&mut self, name: &str, positions: usize, x: &str) -> String {
        let at = self
            .build
            .sizes(&format!("{name}.at"), &[positions as i64 - 1]);
        let axis = vec![AttributeProto::int("axis", 1)];
        let taken = format!("{name}.taken");
        let taken = self.build.node("Gather", &[x, &at], taken, axis);
        let axes = self.build.sizes("axis.length", &[1]);
        self.build
            .node("Squeeze", &[&taken, &axes], name, Vec::new())
    }

    /// A table added to every position.
    pub(super) fn position(&mut self, name: &str, table: TensorId, x: &str) -> String {
        let table = self.plain(table);
        self.build.node("Add", &[x, &table], name, Vec::new())
    }

    /// Layer normalisation of every position.
    pub(super) fn norm_along(
        &mut self,
        name: String,
        norm: &Norm,
        [scale, shift]: [TensorId; 2],
        x: &str,
    ) -> String {
        let (gamma, beta) = (self.plain(scale), self.plain(shift));
        if self.build.opset >= 17 {
            let inputs = [x, &gamma, &beta];
            let epsilon = vec![AttributeProto::float("epsilon", norm.epsilon())];
            return self
                .build
                .node("LayerNormalization", &inputs, name, epsilon);
        }
        // As exporters wrote it before.
        let epsilon = self
            .build
            .floats(&format!("{name}.epsilon"), &[], &[norm.epsilon()]);
        let mut mean = |x: &str, suffix: &str| {
            let attributes = vec![
                AttributeProto::ints("axes", &[-1]),
                AttributeProto::int("keepdims", 1),
            ];
            let to = format!("{name}.{suffix}");
            self.build.node("ReduceMean", &[x], to, attributes)
        };
        let center = mean(x, "mean");
        let mut step = |op: &str, inputs: &[&str], suffix: &str| {
            let to = format!("{name}{suffix}");
            self.build.node(op, inputs, to, Vec::new())
        };
        let away = step("Sub", &[x, &center], ".away");
        let squares = step("Mul", &[&away, &away], ".squares");
        let attributes = vec![
            AttributeProto::ints("axes", &[-1]),
            AttributeProto::int("keepdims", 1),
        ];
        let to = format!("{name}.variance");
        let variance = self.build.node("ReduceMean", &[&squares], to, attributes);
        let mut step = |op: &str, inputs: &[&str], suffix: &str| {
            let to = format!("{name}{suffix}");
            self.build.node(op, inputs, to, Vec::new())
        };
        let sum = step("Add", &[&variance, &epsilon], ".sum");
        let deviation = step("Sqrt", &[&sum], ".deviation");
        let normal = step("Div", &[&away, &deviation], ".normal");
        let scaled = step("Mul", &[&normal, &gamma], ".scaled");
        step("Add", &[&scaled, &beta], "")
    }
}
