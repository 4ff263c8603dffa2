//! Serving a model.

use alloc::sync::Arc;

use fl_core::InputSpec;
use fl_edge::file::{Kind, ModelFile};
use fl_edge::{Inputs, Numerics, Passes, Program, Runner, SharedBytes};

use crate::EmbedError;

/// Examples that are worked on at once at most: memory counts more than speed here.
const ROWS: usize = 8;

/// A model being served: a program as its file holds it, or trained parameters in `f32`.
#[derive(Debug)]
pub struct Server {
    runner: Runner,
}

impl Server {
    /// Opens a model file. Its checksums are compared when `verify` is set, which reads all of it.
    ///
    /// # Errors
    /// [`EmbedError::File`], [`EmbedError::Program`].
    pub fn open(bytes: SharedBytes, verify: bool) -> Result<Self, EmbedError> {
        let file = ModelFile::open(bytes)?;
        if verify {
            file.verify()?;
        }
        let program = match file.kind() {
            Kind::Program => file.program()?,
            Kind::Parameters => {
                let parameters = file.parameters()?;
                let (numerics, passes) = (Numerics::F32, Passes::default());
                Program::compile(file.model(), parameters.values(), &numerics, passes)?
            }
        };
        let program = Arc::new(program);
        let rows = program.rows_for(ROWS);
        Ok(Self {
            runner: Runner::new(program, rows),
        })
    }

    /// Values of one example.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.runner.program().input_len()
    }

    /// Outputs for one example.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.runner.program().output_len()
    }

    /// How many tokens there are, where the model takes tokens and not real numbers.
    #[must_use]
    pub fn vocabulary(&self) -> Option<usize> {
        match *self.runner.program().model().input() {
            InputSpec::Real(_) => None,
            InputSpec::Tokens { vocabulary, .. } => Some(vocabulary),
        }
    }

    /// Computes the outputs (logits) of `outputs.len() / output_len` examples.
    ///
    /// # Errors
    /// [`EmbedError::Length`], [`EmbedError::Inputs`], [`EmbedError::Token`].
    pub fn run(&mut self, inputs: Inputs<'_>, outputs: &mut [f32]) -> Result<(), EmbedError> {
        let examples = outputs.len() / self.output_len();
        check_length("outputs", outputs.len(), examples * self.output_len())?;
        check_length("inputs", inputs.len(), examples * self.input_len())?;
        match (self.vocabulary(), inputs) {
            (None, Inputs::Real(_)) => {}
            (Some(vocabulary), Inputs::Tokens(tokens)) => {
                let foreign = tokens.iter().find(|&&token| token as usize >= vocabulary);
                if let Some(&token) = foreign {
                    return Err(EmbedError::Token { token, vocabulary });
                }
            }
            (None, Inputs::Tokens(_)) => {
                return Err(EmbedError::Inputs {
                    takes: "real numbers",
                });
            }
            (Some(_), Inputs::Real(_)) => return Err(EmbedError::Inputs { takes: "tokens" }),
        }
        self.runner.run(inputs, outputs);
        Ok(())
    }
}

pub(crate) fn check_length(
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), EmbedError> {
    if found == expected {
        return Ok(());
    }
    Err(EmbedError::Length {
        what,
        found,
        expected,
    })
}
