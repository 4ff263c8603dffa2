//! Nodes of constants: computed when the file is read.

use std::collections::BTreeMap;

use crate::error::OnnxError;
use crate::interpreter::Interpreter;
use crate::model::Limits;
use crate::proto::{GraphProto, ModelProto, NodeProto, OperatorSetId, ValueInfoProto};
use crate::tensor::Tensor;

/// The outputs of a node whose inputs are the given constants (missing ones where empty).
pub(super) fn evaluate(
    node: &NodeProto,
    inputs: &[(&str, &Tensor)],
    opset: i64,
    limits: &Limits,
) -> Result<BTreeMap<String, Tensor>, OnnxError> {
    let output = |name: &&String| !name.is_empty();
    let graph = GraphProto {
        node: vec![node.clone()],
        name: "constants".to_owned(),
        initializer: inputs
            .iter()
            .map(|(name, tensor)| tensor.to_proto(name))
            .collect(),
        output: node
            .output
            .iter()
            .filter(output)
            .map(|name| ValueInfoProto {
                name: name.clone(),
                ..ValueInfoProto::default()
            })
            .collect(),
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetId {
            domain: String::new(),
            version: opset,
        }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    let outputs = Interpreter::new(&model, limits)?.run(&BTreeMap::new())?;
    Ok(outputs)
}
