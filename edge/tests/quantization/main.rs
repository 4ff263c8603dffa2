//! Post-training quantization, against onnxruntime's tools and end to end.

mod four;
mod onnxruntime;
mod search;
mod served;
mod teacher;
