//! Programs: a model with fixed parameters, compiled to be served.
//!
//! [`Program::compile`] walks the model's operators, joins what can be computed in one pass
//! ([`Passes`]), brings the weights into the form that the kernels read (the [`Constants`]), and
//! gives every activation a place in one arena. A [`Runner`] owns such an arena and runs batches
//! without allocating. The caller's inputs and outputs are read and written where they lie.
//!
//! ```
//! use std::sync::Arc;
//! use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
//! use fl_edge::{Inputs, Model, ModelDef, Numerics, Passes, Program, Runner};
//!
//! let def = ModelDef::named("cnn-fedavg").expect("a model of the zoo");
//! let input = InputSpec::Real(vec![28, 28, 1]);
//! let model = Arc::new(Model::new(&def, &input, TargetSpec::Class { classes: 10 })?);
//! let mut stream = Stream::at(Purpose::ModelInit, Seed(1), RoundId(0), ClientId(0));
//! let parameters = model.init(&mut stream);
//!
//! let program = Program::compile(&model, parameters.values(), &Numerics::F32, Passes::ALL)?;
//! let memory = program.memory(1);
//! assert!(memory.peak() < 2 * 4 * model.parameters());
//!
//! let mut runner = Runner::new(Arc::new(program), 1);
//! let mut logits = [0.0; 10];
//! runner.run(Inputs::Real(&[0.5; 28 * 28]), &mut logits);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Laws
//! - All kernels, all batch sizes and all ways to cut a batch into parts give the same bits.
//! - In `f32`, every pass but [`Passes::fold_batch_norm`] leaves every bit; without batch
//!   normalisation the outputs are those of [`Session::outputs`](crate::Session::outputs).
//! - In integers, no pass changes an integer. Batch normalisations after products are always
//!   folded there: the weights that are rounded are the folded ones.

#[cfg(feature = "std")]
mod batch;
mod compile;
mod constants;
mod error;
mod memory;
mod runner;
#[cfg(feature = "std")]
mod served;
mod stretch;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops;

use fl_core::InputSpec;
use serde::{Deserialize, Serialize};

use crate::graph::ValueId;
use crate::model::Model;
use crate::plan::Buffer;
use crate::quant::{FourBits, Granularity, Quantization, Range, Scope, Weights4};
use crate::runtime::{Block, INPUT, Schedule, Slot, Step};
pub(crate) use crate::runtime::{Inputs, SharedBytes};
use compile::Compiler;
use stretch::PART_BYTES;

#[cfg(feature = "std")]
pub(crate) use batch::{Batch, ForeignToken, Read};
#[cfg(feature = "std")]
pub(crate) use compile::served_weight;
pub use constants::{Constants, DType, Packing, SECTION_ALIGNMENT, Section};
pub use error::ProgramError;
pub use memory::{ProgramMemory, StepMemory};
pub use runner::Runner;
#[cfg(feature = "std")]
pub use served::Served;

/// What is joined and rearranged when a model is compiled: a switch each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Passes {
    /// Computes what depends on parameters alone when the program is made, and leaves out
    /// operators that change nothing when served (dropout).
    pub fold_constants: bool,
    /// Folds a batch normalisation into the product before it.
    pub fold_batch_norm: bool,
    /// Applies a relu where the product or sum before it writes its output.
    pub fuse_activation: bool,
    /// Adds a residual connection where the product before it writes its output (in floats only
    /// together with `layout`: the kernels over unpacked weights cannot).
    pub fuse_residual: bool,
    /// Stores weights as the kernels read them best (all but those in `f32` always are).
    pub layout: bool,
}

impl Passes {
    /// All of them.
    pub const ALL: Self = Self {
        fold_constants: true,
        fold_batch_norm: true,
        fuse_activation: true,
        fuse_residual: true,
        layout: true,
    };

    /// All that leave every point of a quantization to be seen by [`Runner::run_observed`].
    pub const OBSERVED: Self = Self {
        fuse_residual: false,
        ..Self::ALL
    };

    /// None of them: every operator on its own.
    pub const NONE: Self = Self {
        fold_constants: false,
        fold_batch_norm: false,
        fuse_activation: false,
        fuse_residual: false,
        layout: false,
    };

    /// Every combination.
    pub fn combinations() -> impl Iterator<Item = Self> {
        (0u8..32).map(|bits| Self {
            fold_constants: bits & 1 != 0,
            fold_batch_norm: bits & 2 != 0,
            fuse_activation: bits & 4 != 0,
            fuse_residual: bits & 8 != 0,
            layout: bits & 16 != 0,
        })
    }
}

impl Default for Passes {
    fn default() -> Self {
        Self::ALL
    }
}

/// The numbers that a program computes with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Numerics {
    /// 32-bit floats.
    F32,
    /// Weights of products and embedding tables stored as 16-bit floats (binary16, rounded to
    /// nearest even), everything else in 32-bit floats: exactly the program in `f32` of the
    /// rounded weights. A weight that would round to an infinity (65520 and more) is refused.
    F16,
    /// Weights of dense layers and convolutions stored as codes of four bits with a scale for each
    /// group ([`quant::FourBits`](FourBits)), what is no product's weight as the format's
    /// [`Scope`] says, and everything computed in 32-bit floats: exactly the program in `f32` of the weights that the codes stand for. Codes are
    /// those nearest to the weights (normalisations folded in), or found before
    /// ([`Program::compile_four`]).
    Int4(FourBits),
    /// Integers: `u8` between units, `i8` weights, exact `i32` sums; units that the quantization
    /// names stay in floats.
    Int8(Quantization),
}

impl Numerics {
    /// Integers with a scale of 1 at every point of a model: for plans of memory, which do not
    /// depend on scales.
    #[must_use]
    pub fn int8_plan(model: &Model) -> Self {
        let unit = Range {
            min: 0.0,
            max: 255.0,
        };
        let values = model.graph.values.iter();
        Self::Int8(Quantization::from_ranges(
            values.map(|value| (value.name.as_str(), unit)),
            Granularity::Channel,
        ))
    }

    /// Whether a file has the sections of such a program in one tensor.
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self, Self::Int4(format) if format.scope == Scope::All)
    }

    /// `f32`, `f16`, `int8`, or the name of the code of four bits.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int4(format) => format.code.name(),
            Self::Int8(_) => "int8",
        }
    }
}

/// An arena of about so many bytes stays in the caches of a core.
const CACHED_BYTES: usize = 4 << 20;

/// A compiled model: steps, constants and a plan of memory.
#[derive(Debug)]
pub struct Program {
    model: Arc<Model>,
    numerics: Numerics,
    passes: Passes,
    constants: Constants,
    steps: Vec<Step>,
    /// Of each step: its layer.
    names: Vec<String>,
    /// Of each step: the value in `f32` that is complete after it, and where it lies.
    complete: Vec<Option<(ValueId, Slot)>>,
    buffers: Vec<Buffer>,
    output: Slot,
}

impl Program {
    /// The program of a model with the given parameters (in the order of its layout).
    ///
    /// # Errors
    /// [`ProgramError`] when the parameters are of another model or not finite.
    pub fn compile(
        model: &Arc<Model>,
        parameters: &[f32],
        numerics: &Numerics,
        passes: Passes,
    ) -> Result<Self, ProgramError> {
        Compiler::new(model, Some(parameters), numerics, passes)?.run(numerics, None)
    }

    /// The program of a model whose weights were brought into four bits before, as
    /// [`quant::gptq`](crate::quant::gptq) does: [`Numerics::Int4`] with those codes. Parameters
    /// give everything else, and the weights that are not among them.
    ///
    /// # Errors
    /// [`ProgramError`] when the parameters are of another model or not finite, or when a weight
    /// is of another format, shape or name than the model's.
    pub fn compile_four(
        model: &Arc<Model>,
        parameters: &[f32],
        weights: &Weights4,
        passes: Passes,
    ) -> Result<Self, ProgramError> {
        let numerics = Numerics::Int4(weights.format.clone());
        Compiler::new(model, Some(parameters), &numerics, passes)?
            .with_weights(weights)?
            .run(&numerics, None)
    }

    /// A program out of constants that [`Program::compile`] made for the same model, numerics and
    /// passes ([`Program::constants`]). Nothing of them is copied or changed.
    ///
    /// # Errors
    /// [`ProgramError`] when their table is not what this program needs.
    pub fn from_constants(
        model: &Arc<Model>,
        constants: Constants,
        numerics: &Numerics,
        passes: Passes,
    ) -> Result<Self, ProgramError> {
        Compiler::new(model, None, numerics, passes)?.run(numerics, Some(constants))
    }

    /// The same out of constants that lie one behind the other in a file.
    pub(crate) fn from_joined(
        model: &Arc<Model>,
        bytes: SharedBytes,
        data: ops::Range<usize>,
        numerics: &Numerics,
        passes: Passes,
    ) -> Result<Self, ProgramError> {
        Compiler::new(model, None, numerics, passes)?.over(numerics, bytes, data)
    }

    /// Whether everything is in few bits: where constants lie then follows from what they are.
    pub(crate) fn is_joined(&self) -> bool {
        self.numerics.is_joined()
    }

    /// What [`Program::compile`] would take of memory at so many examples at once, without
    /// parameters.
    ///
    /// # Errors
    /// [`ProgramError`] when the quantization does not fit the model.
    pub fn plan(
        model: &Arc<Model>,
        numerics: &Numerics,
        passes: Passes,
        rows: usize,
    ) -> Result<ProgramMemory, ProgramError> {
        Ok(Compiler::new(model, None, numerics, passes)?
            .planned(numerics)?
            .memory(rows))
    }

    /// The constants: with the model's definition, the numerics and the passes all that is
    /// needed to make the program again.
    #[must_use]
    pub fn constants(&self) -> &Constants {
        &self.constants
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The numbers that it computes with.
    #[must_use]
    pub fn numerics(&self) -> &Numerics {
        &self.numerics
    }

    /// What was joined.
    #[must_use]
    pub fn passes(&self) -> Passes {
        self.passes
    }

    /// Bytes of the model's parameters in these numbers: four each in `f32`, two in `f16`, one in
    /// integers, a half in codes of four bits. What [`ProgramMemory::peak`] is compared with.
    /// (Biases, normalisations, recurrent weights and tables of positions stay in `f32` all the
    /// same.)
    #[must_use]
    pub fn parameter_bytes(&self) -> usize {
        let halves = match self.numerics {
            Numerics::F32 => 8,
            Numerics::F16 => 4,
            Numerics::Int8(_) => 2,
            Numerics::Int4(_) => 1,
        };
        (halves * self.model.parameters()).div_ceil(2)
    }

    /// Operators that a run executes.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Numbers or tokens of one input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.model.input().len()
    }

    /// Numbers of one output, all positions together where each has a target.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.model.graph.values[self.model.graph.output].len()
    }

    /// How many examples of a batch to work on at once: as many as leave the arena small enough
    /// to stay in a cache, at least one, in parts of about one size.
    #[must_use]
    pub fn rows_for(&self, batch: usize) -> usize {
        let batch = batch.max(1);
        let arena = |rows| Schedule::new(self, rows, PART_BYTES).0.arena;
        // Wide layers take parts of a batch anyway; a little more than one example needs is what
        // waits between them for the layers that read large weights.
        let most = CACHED_BYTES.max(2 * arena(1));
        let mut parts = 1;
        while parts < batch && arena(batch.div_ceil(parts)) > most {
            parts *= 2;
        }
        batch.div_ceil(parts)
    }

    /// Whether [`Runner::run_observed`] shows the value of this name.
    pub(crate) fn shows(&self, name: &str) -> bool {
        let complete = self.complete.iter().flatten();
        complete
            .into_iter()
            .any(|&(value, _)| self.value_name(value) == name)
    }

    /// What a file says of it to those who do not compile: see [`Ready`](crate::Ready). The constants
    /// lie at these ranges of `data` bytes.
    pub(crate) fn block(&self, constants: Vec<ops::Range<usize>>, data: usize) -> Block {
        let (Schedule { places, arena, .. }, _) = Schedule::new(self, 1, PART_BYTES);
        Block {
            input: self.input_len(),
            vocabulary: match *self.model.input() {
                InputSpec::Real(_) => None,
                InputSpec::Tokens { vocabulary, .. } => Some(vocabulary),
            },
            output: self.output_len(),
            data,
            constants,
            sizes: match self.is_joined() {
                true => self.constants.sizes(),
                false => Vec::new(),
            },
            widened: self.constants.widened(),
            arena,
            places,
            slot: self.output,
            steps: self.steps.clone(),
        }
    }

    fn takes_tokens(&self) -> bool {
        matches!(self.model.input(), InputSpec::Tokens { .. })
    }

    fn value_name(&self, value: ValueId) -> &str {
        &self.model.graph.values[value].name
    }

    /// The buffers of the arena: the caller's take no room in it.
    fn planned_buffers(&self) -> Vec<Buffer> {
        let mut buffers = self.buffers.clone();
        for slot in [INPUT, self.output] {
            (buffers[slot].row, buffers[slot].fixed) = (0, 0);
        }
        buffers
    }
}
