//! `model bench`: how fast this machine serves a model, on one thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream};
use fl_edge::{Inputs, Model, Program, Runner};
use serde::Serialize;

use super::super::output;
use super::Subject;
use crate::error::Error;

/// How long a batch size is measured, at least.
const MEASURED: Duration = Duration::from_millis(500);
/// Fewest and most runs of a batch size.
const RUNS: (usize, usize) = (11, 10_000);

/// Arguments of `model bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A model file, a variant's folder of results, an ONNX file, or a model of the zoo
    model: String,
    /// Batches to measure
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1u32, 32], value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: Vec<u32>,
    /// Print one line of JSON per batch
    #[arg(long)]
    json: bool,
}

/// The times of a batch size, in seconds.
#[derive(Serialize)]
struct Line {
    model: String,
    numerics: &'static str,
    kernel: &'static str,
    batch: u32,
    runs: usize,
    median_seconds: f64,
    p90_seconds: f64,
    min_seconds: f64,
    /// At the median.
    examples_per_second: f64,
    /// Planned: constants, arena and tables.
    peak_bytes: usize,
    /// Of the parameters in these numbers.
    parameter_bytes: usize,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    let subject = Subject::read(&args.model)?;
    let program = Arc::new(subject.program()?);
    let mut lines = Vec::new();
    for &batch in &args.batch {
        let times = measure(&program, batch as usize);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        let line = Line {
            model: subject.name.clone(),
            numerics: program.numerics().name(),
            kernel: fl_edge::kernel::name(),
            batch,
            runs: times.len(),
            median_seconds: at(0.5),
            p90_seconds: at(0.9),
            min_seconds: at(0.0),
            examples_per_second: f64::from(batch) / at(0.5),
            peak_bytes: program.memory(batch as usize).peak(),
            parameter_bytes: program.parameter_bytes(),
        };
        match args.json {
            true => output::json(&line)?,
            false => lines.push(line),
        }
    }
    if args.json {
        return Ok(());
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            vec![
                line.batch.to_string(),
                output::seconds(line.median_seconds),
                output::seconds(line.p90_seconds),
                output::seconds(line.min_seconds),
                output::count(line.examples_per_second as u64),
                output::count(line.runs as u64),
                output::bytes(line.peak_bytes as u64),
            ]
        })
        .collect();
    output::line(&format!(
        "{} in {}, one thread, {} kernels",
        subject.name,
        program.numerics().name(),
        fl_edge::kernel::name()
    ))?;
    let header = [
        "batch",
        "median",
        "90 %",
        "fastest",
        "examples/s",
        "runs",
        "memory",
    ];
    output::line(&output::table(&header, &rows))
}

/// Seconds of each run, ascending.
fn measure(program: &Arc<Program>, batch: usize) -> Vec<f64> {
    let (reals, tokens) = inputs(program.model(), batch);
    let inputs = match tokens.is_empty() {
        true => Inputs::Real(&reals),
        false => Inputs::Tokens(&tokens),
    };
    let mut outputs = vec![0.0; batch * program.output_len()];
    let mut runner = Runner::new(Arc::clone(program), batch);
    let mut time = || {
        let begin = now();
        runner.run(inputs, &mut outputs);
        begin.elapsed().as_secs_f64()
    };
    for _ in 0..3 {
        time();
    }
    let begin = now();
    let mut times = Vec::new();
    while times.len() < RUNS.0 || (begin.elapsed() < MEASURED && times.len() < RUNS.1) {
        times.push(time());
    }
    times.sort_by(f64::total_cmp);
    times
}

#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
fn now() -> Instant {
    Instant::now()
}

/// Inputs of no meaning: normal numbers, or uniform tokens.
fn inputs(model: &Model, rows: usize) -> (Vec<f32>, Vec<u32>) {
    let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
    match model.input() {
        InputSpec::Real(_) => {
            let draw = |_| stream.normal() as f32;
            let reals = (0..rows * model.input().len()).map(draw).collect();
            (reals, Vec::new())
        }
        InputSpec::Tokens { length, vocabulary } => {
            let draw = |_| stream.below(*vocabulary as u64) as u32;
            (Vec::new(), (0..rows * length).map(draw).collect())
        }
    }
}
