//! ONNX files: read, checked, run and written.
//!
//! | module | does |
//! |---|---|
//! | [`proto`] | the file's messages, as Protocol Buffers |
//! | [`Tensor`] | typed tensors, read from and written to the messages |
//! | [`mod@export`] | native models written as ONNX |
#![forbid(unsafe_code)]

mod error;
pub mod export;
pub mod proto;
mod tensor;

pub use error::{InputError, ModelError, NodeError, OnnxError, TensorError};
pub use export::{ExportError, ExportOptions, Numbers, export, export_model};
pub use tensor::{DType, Data, Element, Tensor};
