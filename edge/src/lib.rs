//! The edge runtime: the engine that trains and evaluates a model on a device. A simulated
//! client and a phone run the same code and get the same bits.
//!
//! # A tour
//! A model is described in TOML, by name or layer by layer ([`ModelDef`]; the names are in
//! [`MODELS`], the layers in [`layer`]):
//!
//! ```toml
//! [model]
//! kind = "cnn-fedavg"
//! ```
//! ```toml
//! [[model.layer]]
//! kind = "conv2d"
//! name = "conv1"
//! filters = 32
//! kernel = 3                  # or [3, 5]
//! padding = "same"            # or "valid", 1, [1, 2]
//! activation = "relu"
//!
//! [[model.layer]]
//! kind = "add"                # a residual connection
//! from = "conv1"
//! # …
//! ```
//!
//! [`Model::new`] checks it against the data's shape, infers every other shape and lays the
//! parameters out as one flat vector. A definition that cannot work says which layer is wrong and
//! what to do ([`EdgeError`]). [`EdgeTrainer`] is the [`fl_core::Trainer`] over it; a simulator
//! makes one for each worker thread.
//!
//! ```
//! use std::sync::Arc;
//! use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec, Trainer};
//! use fl_edge::{EdgeTrainer, Model, ModelDef};
//!
//! let def = ModelDef::named("cnn-fedavg").expect("a model of the zoo");
//! let input = InputSpec::Real(vec![28, 28, 1]);
//! let model = Arc::new(Model::new(&def, &input, TargetSpec::Class { classes: 10 })?);
//! assert_eq!(model.parameters(), 1_663_370);
//!
//! let mut stream = Stream::at(Purpose::ModelInit, Seed(1), RoundId(0), ClientId(0));
//! let global = model.init(&mut stream);
//! let trainer = EdgeTrainer::new(Arc::clone(&model));
//! assert_eq!(trainer.layout(), global.layout());
//! # Ok::<(), fl_edge::EdgeError>(())
//! ```
//!
//! # From definition to step
//! | module | does | knows |
//! |---|---|---|
//! | [`zoo`], [`layer`] | describe | TOML |
//! | `graph` | operators over values with known shapes; moves a relu or relu6 into the operator before it | shapes |
//! | [`Model`] | parameters: names, places, how they start | |
//! | `plan` | gives every activation, gradient and scratch a fixed place in one arena, by when it lives | a batch size |
//! | [`Session`] | runs the plan: forward, backward, step | numbers |
//! | [`Program`], [`Runner`] | a model with fixed parameters compiled to be served, in f32, f16 or int8 | precision, memory |
//! | [`EdgeTrainer`] | a client: order of examples, epochs, the update | the local plan |
//! | [`prune`] | masks of weights that stay zero, and smaller models without some channels | sizes of weights |
//! | [`qat`] | quantization-aware training: a session whose forward pass is the device's, in integers | points, ranges |
//! | [`distill`] | a session that learns from a teacher: response, features, relations | programs, layers |
//! | `lanes` | sixteen clients of a small model in one step | numbers, clients |
//! | [`kernel`] | the numbers themselves, for each instruction set | slices |
//! | [`mod@file`] | model files, served from a memory map | bytes |
//! | [`device`] | what a graph costs on a device class: delegates, time, energy, heat; modelled | profiles |
//! | [`gguf`] | the files of llama.cpp, weights in blocks of 8 or 4 bits | bytes |
//!
//! Adding a model to the zoo is one file in `zoo/` and one line in its list. Adding an operator
//! is a layer's keys, its shape rule, its place in the plan and its kernels; the tests in
//! `tests/` then compare its gradient with finite differences and with burn.
//!
//! # Laws
//! - **Bits.** Every number is defined by a fixed recipe ([`kernel`]), so instruction set, vector
//!   width, batch parts, earlier clients and grouping change no bit of an update.
//! - **Memory.** A session's memory grows only between clients, for a larger batch. A step, and a
//!   client on a warm session, allocate nothing.
//! - **Plain SGD stores no gradient.** The product that computes a weight's gradient steps the
//!   weight while it still is in registers; momentum, Adam and clipping store gradients and give
//!   the same bits for the same formula.
//! - **Batch normalisation** ties the examples of a batch together: such a batch is never worked
//!   through in parts, and its examples have no gradients of their own. Its running statistics are
//!   tensors of the layout that a step overwrites and no optimizer moves; what that means in
//!   federated learning stands at [`layer::BatchNormDef`].
//! - **One gradient an example.** [`Session::per_example_norms`] and [`Session::clipped_gradient`]
//!   give the norms of every example's own gradient, and the sum of the clipped ones, out of one
//!   backward pass: what differentially private SGD adds its noise to. [`Session::private_step`] is
//!   that step; it takes the noise from its caller, and nothing here knows of privacy budgets.
//! - **Sequences** are `[length, features]`. A dense layer on one is a convolution of one window
//!   for each position, so that everything known of convolutions holds for it: packing, integers,
//!   ghost norms. A recurrent layer is that product for all positions at once, then one product with
//!   the state for each; its gates are computed, and become their gradients, in place. Where every
//!   position has a target ([`TargetSpec::Sequence`](fl_core::TargetSpec::Sequence)), an example's
//!   loss is the mean over those that have one. Sequences are served in f32, f16 weights and int8
//!   (products in integers, states and attention in floats between them); they are not trained for
//!   quantization.
//! - **Losses** are means over the batch; sums of losses are added in the order of examples in
//!   `f64`.
//! - No threads, clocks, files or randomness of its own; randomness comes with the task, and a
//!   file is opened only by [`file::Mapped::open`], at the path that it is given (feature `mmap`).
//!
//! # Features
//! All but `profiles` are on by default, and none changes a number. `std` brings what needs the
//! standard library: [`EdgeTrainer`], [`mod@device`], [`gguf`], files that are written, calibration
//! and noise for simulations; without it the crate needs `alloc`, opens model files, serves and
//! trains. `simd` brings kernels for AVX2, AVX-512 and VNNI, of which a process takes the best that
//! its processor has; without it there are only those that the target is known to have. `mmap`
//! serves from memory maps, and `profiles` reads device profiles.
#![deny(unsafe_code)]
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(
    not(feature = "simd"),
    expect(
        dead_code,
        unreachable_code,
        unused_variables,
        reason = "the tokens of kernels that this build leaves out cannot be"
    )
)]

extern crate alloc;

mod arena;
#[cfg(feature = "std")]
pub mod device;
#[cfg(feature = "describe")]
pub mod distill;
#[cfg(feature = "describe")]
mod error;
#[cfg(feature = "describe")]
pub mod file;
#[cfg(feature = "std")]
pub mod gguf;
#[cfg(feature = "describe")]
pub mod graph;
#[expect(
    unsafe_code,
    reason = "vector loads and stores, calls into code compiled for detected instructions, memory maps"
)]
pub mod kernel;
#[cfg(feature = "std")]
mod lanes;
#[cfg(feature = "describe")]
pub mod layer;
#[cfg(feature = "describe")]
mod model;
#[cfg(feature = "describe")]
mod plan;
#[cfg(feature = "describe")]
mod program;
#[cfg(feature = "describe")]
pub mod prune;
#[cfg(feature = "describe")]
pub mod qat;
#[cfg(feature = "describe")]
pub mod quant;
#[cfg(feature = "describe")]
pub mod reference;
mod runtime;
#[cfg(feature = "std")]
mod serve;
#[cfg(feature = "describe")]
mod session;
#[cfg(feature = "describe")]
mod tagged;
#[cfg(feature = "std")]
mod train;
#[cfg(feature = "describe")]
pub mod zoo;

#[cfg(feature = "describe")]
pub use error::{EdgeError, LayerError};
#[cfg(feature = "describe")]
pub use graph::LayerSummary;
#[cfg(feature = "describe")]
pub use layer::LayerDef;
#[cfg(feature = "describe")]
pub use model::Model;
#[cfg(feature = "std")]
pub use program::Served;
#[cfg(feature = "describe")]
pub use program::{
    Constants, DType, Numerics, Packing, Passes, Program, ProgramError, ProgramMemory, Runner,
    SECTION_ALIGNMENT, Section, StepMemory,
};
pub use runtime::{Inputs, Ready, SharedBytes, StepsError};
#[cfg(feature = "std")]
pub use serve::{Observed, needs_calibration, serve_int8};
#[cfg(feature = "std")]
pub use session::GaussianNoise;
#[cfg(feature = "describe")]
pub use session::{
    BadExample, Clipped, Clipping, DpSgd, DpSgdError, PerExampleError, Session, Step,
};
#[cfg(feature = "std")]
pub use train::EdgeTrainer;
#[cfg(feature = "describe")]
pub use zoo::{LayersDef, Loss, MODEL_DOCS, MODELS, ModelDef};
