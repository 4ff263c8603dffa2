//! Serving the compiled steps of a file.

use fl_edge::{Inputs, Ready, SharedBytes};

use crate::EmbedError;

#[derive(Debug)]
pub(super) struct Engine {
    ready: Ready,
}

impl Engine {
    pub(super) fn open(bytes: SharedBytes, verify: bool) -> Result<Self, EmbedError> {
        let ready = Ready::open(bytes)?;
        if verify {
            ready.verify()?;
        }
        Ok(Self { ready })
    }

    pub(super) fn input_len(&self) -> usize {
        self.ready.input_len()
    }

    pub(super) fn output_len(&self) -> usize {
        self.ready.output_len()
    }

    pub(super) fn vocabulary(&self) -> Option<usize> {
        self.ready.vocabulary()
    }

    pub(super) fn run(&mut self, inputs: Inputs<'_>, outputs: &mut [f32]) {
        self.ready.run(inputs, outputs);
    }
}
