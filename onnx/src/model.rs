//! A model file: decoded, encoded, and bounded.

use prost::Message as _;

use crate::error::{ModelError, OnnxError};
use crate::proto::ModelProto;

/// What a model may ask of the machine that reads or runs it.
///
/// A hostile file is short and asks for much; a bound on each resource turns that into an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a file; by default 2 GiB, the largest message of the format.
    pub file_bytes: usize,
    /// Bytes of one tensor; by default 1 GiB.
    pub tensor_bytes: usize,
    /// Bytes of all tensors that a run holds at one time, constants included; by default 4 GiB.
    pub live_bytes: usize,
    /// Nodes in a model with its functions expanded, and nodes computed in a run; by default a
    /// million.
    pub nodes: usize,
    /// Depth of graphs inside nodes and of functions inside functions; by default 16.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 1 << 31,
            tensor_bytes: 1 << 30,
            live_bytes: 1 << 32,
            nodes: 1_000_000,
            depth: 16,
        }
    }
}

/// Reads a model.
///
/// # Errors
/// [`OnnxError::Decode`] if the bytes are no model, [`ModelError`] if they are too many or hold no
/// graph.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<ModelProto, OnnxError> {
    if bytes.len() > limits.file_bytes {
        return Err(ModelError::FileBytes {
            found: bytes.len(),
            most: limits.file_bytes,
        }
        .into());
    }
    let model = ModelProto::decode(bytes).map_err(|source| OnnxError::Decode {
        what: "ONNX model",
        source,
    })?;
    if model.graph.is_none() {
        return Err(ModelError::NoGraph.into());
    }
    Ok(model)
}

/// Writes a model.
#[must_use]
pub fn encode(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}
