//! ONNX files: read, checked, run and written.
//!
//! | module | does |
//! |---|---|
//! | [`proto`] | the file's messages, as Protocol Buffers |
//! | [`Tensor`] | typed tensors, read from and written to the messages |
//! | [`decode`], [`encode`], [`Limits`] | files, and what they may ask of the machine |
//! | [`Interpreter`] | runs any model of the supported operators, node by node |
//! | [`mod@export`] | native models written as ONNX |
//! | [`mod@import`] | ONNX graphs made into native models |
//!
//! # What the interpreter runs
//! Dense tensors of `f32`, `f64`, `f16`, `bool` and the whole-number types of 8 to 64 bits; opsets
//! 7 to 28, each operator with the meaning that it has from the opset that the model asks for;
//! functions of the model, expanded; `If`, `Loop` and `Scan`. Operators: element by element
//! (arithmetic, comparisons, logic, bits, activations, casts), products and convolutions (also of
//! 8-bit integers), quantization, pools, normalisations, the softmax family, reductions, movements
//! and look-ups, attention with rotary positions, recurrent layers, resizing, Einstein sums, the
//! losses of classifiers. Anything else is refused before a run by
//! [`OnnxError::UnsupportedOperator`], or by an error for which [`OnnxError::is_unsupported`] holds.
//! Random operators, and `Dropout` in training mode, are refused on purpose: their numbers are not
//! defined. Strings, sequences, optionals, sparse tensors and data in other files are refused.
//!
//! `cargo xtask onnx-nodes` runs the node tests of the `onnx` Python package. Of the 830 cases that
//! a classifier or a small transformer needs (one operator of a list, the types that
//! `tests/python/export_node_tests.py` names) 826 pass, 4 are refused (random dropout) and none is
//! wrong; of the 740 other cases of these types 594 pass, 146 are refused and none is wrong.
//!
//! # Hostile files
//! Every read checks what it reads, and every tensor is counted against [`Limits`] before it is
//! made; a file can be refused, but not panic, loop without end or take more memory than allowed.
#![forbid(unsafe_code)]

mod error;
pub mod export;
pub mod import;
mod interpreter;
mod model;
mod ops;
pub mod proto;
mod tensor;

pub use error::{InputError, ModelError, NodeError, OnnxError, TensorError};
pub use export::{ExportError, ExportOptions, Numbers, export, export_model};
pub use import::{BorderProblem, ImportError, Imported, Problem, import, import_model};
pub use interpreter::Interpreter;
pub use model::{Limits, decode, encode};
pub use tensor::{DType, Data, Element, I4, Tensor, U4};
