//! The examples on which a global model is calibrated before it is judged in int8.
//!
//! [`SAMPLES`] training examples, drawn once for the whole run from a [`Purpose::Calibration`]
//! stream: for each a client, uniformly over the population, and one of its examples. They stand
//! for the unlabelled examples that an operator would calibrate on; their targets are never read.

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Purpose, RoundId, Seed, Stream, TargetSpec,
    TargetsMut,
};

use crate::population::Population;

/// Examples that calibrate a model: what the calibrators of `onnxruntime` are usually given.
pub(crate) const SAMPLES: u64 = 256;

/// Inputs of a few clients' examples, kept in memory.
#[derive(Debug)]
pub(crate) struct Calibration {
    input: InputSpec,
    target: TargetSpec,
    len: usize,
    reals: Vec<f32>,
    tokens: Vec<u32>,
}

impl Calibration {
    /// Draws the examples; none when no client that was drawn has any.
    pub(crate) fn draw<P: Population>(population: &P, seed: Seed) -> Option<Self> {
        let mut stream = Stream::at(Purpose::Calibration, seed, RoundId(0), ClientId(0));
        let mut scratch = P::Scratch::default();
        let mut drawn: Option<Self> = None;
        for _ in 0..SAMPLES {
            let client = ClientId(stream.below(population.clients().max(1)));
            let data = population.train(client, &mut scratch);
            if data.is_empty() {
                continue;
            }
            let row = stream.below(data.len() as u64) as u32;
            let drawn = drawn.get_or_insert_with(|| Self {
                input: data.input().clone(),
                target: data.target(),
                len: 0,
                reals: Vec::new(),
                tokens: Vec::new(),
            });
            drawn.push(&data, row);
        }
        drawn
    }

    fn push(&mut self, data: &impl Examples, row: u32) {
        let width = self.input.len();
        let (mut class, mut real) = ([0u32], Vec::new());
        let targets = match self.target {
            TargetSpec::Class { .. } => TargetsMut::Classes(&mut class),
            TargetSpec::Real { width } => {
                real.resize(width, 0.0);
                TargetsMut::Real(&mut real)
            }
        };
        let inputs = match self.input {
            InputSpec::Real(_) => {
                self.reals.resize((self.len + 1) * width, 0.0);
                InputsMut::Real(&mut self.reals[self.len * width..])
            }
            InputSpec::Tokens { .. } => {
                self.tokens.resize((self.len + 1) * width, 0);
                InputsMut::Tokens(&mut self.tokens[self.len * width..])
            }
        };
        data.fill(&[row], inputs, targets);
        self.len += 1;
    }
}

impl Examples for Calibration {
    fn len(&self) -> usize {
        self.len
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        self.target
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let width = self.input.len();
        match inputs {
            InputsMut::Real(to) => copy(rows, width, &self.reals, to),
            InputsMut::Tokens(to) => copy(rows, width, &self.tokens, to),
        }
        match targets {
            TargetsMut::Classes(to) => to.fill(0),
            TargetsMut::Real(to) => to.fill(0.0),
        }
    }

    fn real_rows(&self) -> Option<&[f32]> {
        match self.input {
            InputSpec::Real(_) => Some(&self.reals),
            InputSpec::Tokens { .. } => None,
        }
    }
}

fn copy<T: Copy>(rows: &[u32], width: usize, from: &[T], to: &mut [T]) {
    for (&row, to) in rows.iter().zip(to.chunks_exact_mut(width.max(1))) {
        to.copy_from_slice(&from[row as usize * width..][..width]);
    }
}
