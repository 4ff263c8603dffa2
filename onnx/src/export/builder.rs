//! Collects the nodes and constants of a file.

use std::collections::BTreeSet;

use crate::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetId, StringStringEntry,
    TensorProto, ValueInfoProto, data_type,
};
use crate::tensor::{Data, I4, Tensor, U4};

/// A file in the making.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) opset: i64,
    /// Whether numbers are stored in `f16`.
    pub(super) half: bool,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    named: BTreeSet<String>,
}

impl Builder {
    pub(super) fn new(opset: i64, half: bool) -> Self {
        Self {
            opset,
            half,
            nodes: Vec::new(),
            constants: Vec::new(),
            named: BTreeSet::new(),
        }
    }

    /// Adds a node with one output; the output's name, which is also the node's.
    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: impl Into<String>,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let output = output.into();
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.clone()],
            name: output.clone(),
            op_type: op.to_owned(),
            attribute,
            ..NodeProto::default()
        });
        output
    }

    /// Adds a constant, unless one of this name is there; its name.
    fn constant(&mut self, name: &str, shape: &[usize], data: impl FnOnce() -> Data) -> String {
        if self.named.insert(name.to_owned()) {
            let tensor = Tensor::from_data(shape.to_vec(), data());
            // The callers give as many numbers as the shape has.
            if let Ok(tensor) = tensor {
                self.constants.push(tensor.to_proto(name));
            }
        }
        name.to_owned()
    }

    /// Adds numbers in the file's format.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let half = self.half;
        self.constant(name, shape, || match half {
            true => Data::F16(values.iter().map(|&x| half::f16::from_f32(x)).collect()),
            false => Data::F32(values.to_vec()),
        })
    }

    /// Adds numbers that stay `f32`: scales.
    pub(super) fn scales(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.constant(name, shape, || Data::F32(values.to_vec()))
    }

    /// Adds codes of four bits: signed ones are eight less.
    pub(super) fn nibbles(
        &mut self,
        name: &str,
        shape: &[usize],
        codes: &[u8],
        signed: bool,
    ) -> String {
        self.constant(name, shape, || match signed {
            true => Data::I4(codes.iter().map(|&code| I4::from_bits(code ^ 8)).collect()),
            false => Data::U4(codes.iter().map(|&code| U4::from_bits(code)).collect()),
        })
    }

    /// Adds numbers stored in `f16` and made `f32` again by a node.
    pub(super) fn halves(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let stored = self.constant(&format!("{name}.half"), shape, || {
            Data::F16(values.iter().map(|&x| half::f16::from_f32(x)).collect())
        });
        if !self.named.insert(name.to_owned()) {
            return name.to_owned();
        }
        let to = AttributeProto::int("to", i64::from(data_type::FLOAT));
        self.node("Cast", &[&stored], name, vec![to])
    }

    pub(super) fn bytes(&mut self, name: &str, shape: &[usize], values: &[i8]) -> String {
        self.constant(name, shape, || Data::I8(values.to_vec()))
    }

    pub(super) fn unsigned(&mut self, name: &str, value: u8) -> String {
        self.constant(name, &[], || Data::U8(vec![value]))
    }

    pub(super) fn integers(&mut self, name: &str, shape: &[usize], values: &[i32]) -> String {
        self.constant(name, shape, || Data::I32(values.to_vec()))
    }

    /// Adds sizes, axes and the like.
    pub(super) fn sizes(&mut self, name: &str, values: &[i64]) -> String {
        self.constant(name, &[values.len()], || Data::I64(values.to_vec()))
    }

    /// The whole file.
    pub(super) fn finish(
        self,
        name: &str,
        input: ValueInfoProto,
        output: ValueInfoProto,
        properties: &[(&str, String)],
    ) -> ModelProto {
        ModelProto {
            ir_version: ir_version(self.opset),
            opset_import: vec![OperatorSetId {
                domain: String::new(),
                version: self.opset,
            }],
            producer_name: "fledgling".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(GraphProto {
                node: self.nodes,
                name: name.to_owned(),
                initializer: self.constants,
                input: vec![input],
                output: vec![output],
                ..GraphProto::default()
            }),
            metadata_props: properties
                .iter()
                .map(|(key, value)| StringStringEntry {
                    key: (*key).to_owned(),
                    value: value.clone(),
                })
                .collect(),
            ..ModelProto::default()
        }
    }
}

/// The file format's version that came with an operator set (ONNX, `docs/Versioning.md`).
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        _ => 10,
    }
}
