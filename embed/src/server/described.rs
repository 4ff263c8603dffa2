//! Serving by a model's description: the program is compiled when its file is opened.

use alloc::sync::Arc;

use fl_core::InputSpec;
use fl_edge::file::{Kind, ModelFile};
use fl_edge::{Inputs, Numerics, Passes, Program, Runner, SharedBytes};

use crate::EmbedError;

/// Examples that are worked on at once at most: memory counts more than speed here.
const ROWS: usize = 8;

#[derive(Debug)]
pub(super) struct Engine {
    runner: Runner,
}

impl Engine {
    pub(super) fn open(bytes: SharedBytes, verify: bool) -> Result<Self, EmbedError> {
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

    pub(super) fn input_len(&self) -> usize {
        self.runner.program().input_len()
    }

    pub(super) fn output_len(&self) -> usize {
        self.runner.program().output_len()
    }

    pub(super) fn vocabulary(&self) -> Option<usize> {
        match *self.runner.program().model().input() {
            InputSpec::Real(_) => None,
            InputSpec::Tokens { vocabulary, .. } => Some(vocabulary),
        }
    }

    pub(super) fn run(&mut self, inputs: Inputs<'_>, outputs: &mut [f32]) {
        self.runner.run(inputs, outputs);
    }
}
