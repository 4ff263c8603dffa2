//! Who teaches: a program with a fingerprint.

use alloc::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::error::DistillError;
use crate::file::{self, FileError, Kind, ModelFile};
use crate::model::Model;
use crate::program::{Numerics, Passes, Program};

/// A model that answers: fixed, shared by everybody whom it teaches.
#[derive(Clone, Debug)]
pub struct Teacher {
    pub(super) program: Arc<Program>,
    digest: [u8; 32],
}

/// Every layer's output can be seen.
const SHOWN: Passes = Passes {
    layout: true,
    ..Passes::NONE
};

impl Teacher {
    /// A model in `f32`. The outputs of all of its layers can be taught.
    ///
    /// # Errors
    /// [`DistillError::Program`] when the parameters are another model's or not finite.
    pub fn new(model: &Arc<Model>, parameters: &[f32]) -> Result<Self, DistillError> {
        let program = Program::compile(model, parameters, &Numerics::F32, SHOWN)?;
        Self::of_program(Arc::new(program))
    }

    /// A program, in whatever numbers it computes. Of layers that it computes in floats, and in
    /// a step of their own, the outputs can be taught; the response always can.
    ///
    /// # Errors
    /// [`DistillError::File`] when its description cannot be written down.
    pub fn of_program(program: Arc<Program>) -> Result<Self, DistillError> {
        let json = |part, source| FileError::Json { part, source };
        let numerics = serde_json::to_vec(&(program.numerics(), program.passes()));
        let numerics = numerics.map_err(|source| json("program", source))?;
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(file::description(program.model())?.as_bytes());
        part(&numerics);
        let constants = program.constants();
        for (index, section) in constants.sections().iter().enumerate() {
            part(section.name.as_bytes());
            part(constants.bytes(index));
        }
        let digest = hash.finalize().into();
        Ok(Self { program, digest })
    }

    /// The model of a model file: parameters are served in `f32`, a program as it is. The data are
    /// verified.
    ///
    /// # Errors
    /// [`DistillError::File`] or [`DistillError::Program`].
    pub fn of_file(file: &ModelFile) -> Result<Self, DistillError> {
        match file.kind() {
            Kind::Parameters => Self::new(file.model(), file.parameters()?.values()),
            Kind::Program => {
                file.verify()?;
                Self::of_program(Arc::new(file.program()?))
            }
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        self.program.model()
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// SHA-256 of the model, its numbers and its constants: two teachers with one digest give the
    /// same answers.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}
