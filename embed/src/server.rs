//! Serving a model.

#[cfg(feature = "describe")]
mod described;
#[cfg(not(feature = "describe"))]
mod ready;

use fl_edge::{Inputs, SharedBytes};

use crate::EmbedError;
#[cfg(feature = "describe")]
use described::Engine;
#[cfg(not(feature = "describe"))]
use ready::Engine;

/// A model being served: a program as its file holds it or, in the full library, trained parameters
/// in `f32`.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
}

impl Server {
    /// Opens a model file. Its checksums are compared when `verify` is set, which reads all of it.
    ///
    /// # Errors
    /// [`EmbedError::File`], `EmbedError::Program`.
    pub fn open(bytes: SharedBytes, verify: bool) -> Result<Self, EmbedError> {
        let engine = Engine::open(bytes, verify)?;
        Ok(Self { engine })
    }

    /// Values of one example.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.engine.input_len()
    }

    /// Outputs for one example.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.engine.output_len()
    }

    /// How many tokens there are, where the model takes tokens and not real numbers.
    #[must_use]
    pub fn vocabulary(&self) -> Option<usize> {
        self.engine.vocabulary()
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
        self.engine.run(inputs, outputs);
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
