//! The edge runtime's side of `cargo xtask peers` and `cargo xtask onnx-round-trip`: a JSON object
//! a line on standard input ([`Request`]), one a line on standard output. What cannot be done is
//! answered by `{"error": ...}`.
//!
//! Arrays are files of raw little-endian numbers; images lie as `[height, width, channels]`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and answers on standard output"
)]

mod images;
mod subject;

use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use fl_edge::{Inputs, Numerics, Passes, Program, Runner};
use fl_onnx::{Limits, import};
use serde::Deserialize;
use serde_json::{Value, json};

use images::{Images, read, write};
use subject::{Numbers, Subject};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    /// Makes a model, with the parameters that training starts with.
    Model {
        /// Its definition in TOML.
        definition: String,
        /// An example's shape, and the number of classes.
        shape: Vec<usize>,
        classes: usize,
    },
    /// Trains it by SGD with momentum, the rate falling to nothing; answers the mean loss.
    Train {
        inputs: PathBuf,
        labels: PathBuf,
        steps: u32,
        batch: u32,
        rate: f32,
    },
    /// Finds the ranges of everything that it computes on these inputs.
    Calibrate { inputs: PathBuf },
    /// Reads the inputs of the commands below.
    Inputs { inputs: PathBuf },
    /// Computes the outputs.
    Run { numbers: Numbers, outputs: PathBuf },
    /// Writes the model as ONNX.
    Export {
        numbers: Numbers,
        opset: i64,
        fold: bool,
        file: PathBuf,
    },
    /// Reads an exported file again and compares everything; answers what is not the same.
    RoundTrip {
        numbers: Numbers,
        opset: i64,
        file: PathBuf,
    },
    /// Reads somebody's ONNX file and computes the outputs of some inputs with it.
    Import {
        file: PathBuf,
        inputs: PathBuf,
        outputs: PathBuf,
    },
    /// Runs the first inputs so often; answers the seconds of each call.
    Time {
        numbers: Numbers,
        batch: usize,
        calls: usize,
    },
}

/// Outputs of all `inputs`, a part at a time.
fn outputs(program: Program, inputs: &[f32]) -> Vec<f32> {
    let rows = inputs.len() / program.input_len();
    let mut outputs = vec![0.0; rows * program.output_len()];
    Runner::for_batch(Arc::new(program), rows.min(8)).run(Inputs::Real(inputs), &mut outputs);
    outputs
}

#[derive(Default)]
struct State {
    subject: Option<Subject>,
    inputs: Vec<f32>,
    /// What [`Request::Time`] ran last.
    timed: Option<(Numbers, usize, Runner)>,
}

impl State {
    fn answer(&mut self, request: Request) -> Outcome<Value> {
        let subject = self.subject.as_mut().ok_or("no model is made yet");
        Ok(match request {
            Request::Model {
                definition,
                shape,
                classes,
            } => {
                let subject = Subject::new(&definition, shape, classes)?;
                let parameters = subject.parameters();
                *self = Self {
                    subject: Some(subject),
                    ..Self::default()
                };
                json!({ "parameters": parameters })
            }
            Request::Train {
                inputs,
                labels,
                steps,
                batch,
                rate,
            } => {
                let subject = subject?;
                let data = Images::read(subject.model(), &inputs, &labels)?;
                json!({ "loss": subject.train(&data, steps, batch, rate)? })
            }
            Request::Calibrate { inputs } => {
                let subject = subject?;
                let data = Images::unlabelled(subject.model(), &inputs)?;
                json!({ "points": subject.calibrate(&data)? })
            }
            Request::Inputs { inputs } => {
                self.inputs = read(&inputs)?;
                json!({ "inputs": self.inputs.len() / subject?.input_len() })
            }
            Request::Run {
                numbers,
                outputs: file,
            } => {
                write(&file, &outputs(subject?.program(numbers)?, &self.inputs))?;
                json!({})
            }
            Request::Export {
                numbers,
                opset,
                fold,
                file,
            } => {
                let bytes = subject?.export(numbers, opset, fold)?;
                std::fs::write(file, &bytes)?;
                json!({ "bytes": bytes.len() })
            }
            Request::RoundTrip {
                numbers,
                opset,
                file,
            } => {
                let bytes = std::fs::read(file)?;
                let faults = subject?.round_trip(numbers, opset, &bytes, &self.inputs)?;
                json!({ "faults": faults })
            }
            Request::Import {
                file,
                inputs,
                outputs: to,
            } => {
                let found = import(&std::fs::read(file)?, &Limits::default())?;
                let layers = found.def.layers(found.model.input())?.len();
                let numerics = found.quantization.map_or(Numerics::F32, Numerics::Int8);
                let name = numerics.name();
                let model = Arc::new(found.model);
                let program = Program::compile(&model, &found.parameters, &numerics, Passes::ALL)?;
                write(&to, &outputs(program, &read(&inputs)?))?;
                json!({ "numerics": name, "layers": layers, "notices": found.notices })
            }
            Request::Time {
                numbers,
                batch,
                calls,
            } => json!({ "seconds": self.time(numbers, batch, calls)? }),
        })
    }

    fn time(&mut self, numbers: Numbers, batch: usize, calls: usize) -> Outcome<Vec<f64>> {
        let subject = self.subject.as_ref().ok_or("no model is made yet")?;
        let current = |of: &&mut (Numbers, usize, Runner)| (of.0, of.1) == (numbers, batch);
        if self.timed.as_mut().filter(current).is_none() {
            let program = Arc::new(subject.program(numbers)?);
            let runner = Runner::for_batch(program, batch);
            self.timed = Some((numbers, batch, runner));
        }
        let (_, _, runner) = self.timed.as_mut().ok_or("no runner")?;
        let inputs = (self.inputs)
            .get(..batch * subject.input_len())
            .ok_or("fewer inputs than the batch")?;
        let mut outputs = vec![0.0; batch * subject.classes()];
        let mut seconds = Vec::with_capacity(calls);
        for _ in 0..calls {
            let start = Instant::now();
            runner.run(Inputs::Real(inputs), &mut outputs);
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }
}

fn main() -> Outcome<()> {
    let mut state = State::default();
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?)
            .map_err(Into::into)
            .and_then(|request| state.answer(request))
            .unwrap_or_else(|error| json!({ "error": error.to_string() }));
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
