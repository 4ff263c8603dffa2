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
mod interpreter;
mod model;
mod ops;
pub mod proto;
mod tensor;

pub use error::{InputError, ModelError, NodeError, OnnxError, TensorError};
pub use export::{ExportError, ExportOptions, Numbers, export, export_model};
pub use interpreter::Interpreter;
pub use model::{Limits, decode, encode};
pub use tensor::{DType, Data, Element, Tensor};
