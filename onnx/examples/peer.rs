//! One side of `cargo xtask peers`: serves models of the zoo, a command a line on standard input,
//! an answer a line on standard output.
//!
//! - `open CASE PRECISION ROWS FOLDER` makes the model with random parameters, writes it to
//!   `FOLDER/model.onnx` and `ROWS` random inputs to `FOLDER/inputs.f32` (raw little-endian
//!   numbers, NHWC); answers `ok` and the shape of an example.
//! - `run FOLDER` computes the outputs of all inputs into `FOLDER/outputs.f32`; answers `ok`.
//! - `time BATCH CALLS` runs the first `BATCH` inputs so often; answers the seconds of each call.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and answers on standard output"
)]

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::quant::{Calibration, Calibrator, Granularity, Quantization};
use fl_edge::zoo::{Mlp, MobilenetV2};
use fl_edge::{Inputs, Model, ModelDef, Numerics, Passes, Program, Runner};
use fl_onnx::{ExportOptions, Numbers, export};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The model of a case, its input and its classes.
fn case(name: &str) -> Outcome<(ModelDef, Vec<usize>, usize)> {
    let mobile = |width| {
        ModelDef::MobilenetV2(MobilenetV2 {
            width,
            ..MobilenetV2::default()
        })
    };
    Ok(match name {
        "mlp" => (ModelDef::Mlp(Mlp::default()), vec![28, 28, 1], 10),
        "cnn-fedavg" => {
            let def = ModelDef::named("cnn-fedavg").ok_or("no cnn-fedavg in the zoo")?;
            (def, vec![28, 28, 1], 10)
        }
        "mobilenet-v2-0.5-96" => (mobile(0.5), vec![96, 96, 3], 1000),
        "mobilenet-v2-1.0-224" => (mobile(1.0), vec![224, 224, 3], 1000),
        _ => return Err(format!("no case `{name}`").into()),
    })
}

struct Open {
    program: Arc<Program>,
    inputs: Vec<f32>,
    input_len: usize,
    width: usize,
}

fn write(path: &Path, numbers: &[f32]) -> Outcome<()> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(fs::write(path, bytes)?)
}

/// Ranges of all values for some inputs, by minimum and maximum.
fn quantization(model: &Arc<Model>, parameters: &[f32], inputs: &[f32]) -> Outcome<Quantization> {
    // A product's own value is shown only where nothing is added to it on the way out.
    let passes = Passes {
        fuse_residual: false,
        ..Passes::ALL
    };
    let program = Program::compile(model, parameters, &Numerics::F32, passes)?;
    let input_len = program.input_len();
    let mut outputs = vec![0.0; inputs.len() / input_len * program.output_len()];
    let mut calibrator = Calibrator::new(Calibration::MinMax)?;
    let mut outcome = Ok(());
    Runner::new(Arc::new(program), 1).run_observed(
        Inputs::Real(inputs),
        &mut outputs,
        &mut |point, values| {
            if outcome.is_ok() {
                outcome = calibrator.observe(point, values);
            }
        },
    );
    outcome?;
    let ranges = calibrator.ranges()?;
    let ranges = ranges.iter().map(|(point, range)| (point.as_str(), *range));
    Ok(Quantization::from_ranges(ranges, Granularity::Channel))
}

fn open(name: &str, precision: &str, rows: usize, folder: &Path) -> Outcome<(Open, Vec<usize>)> {
    let (def, shape, classes) = case(name)?;
    let input = InputSpec::Real(shape.clone());
    let model = Arc::new(Model::new(&def, &input, TargetSpec::Class { classes })?);
    let stream = |round| Stream::at(Purpose::ModelInit, Seed(1), RoundId(round), ClientId(0));
    let parameters = model.init(&mut stream(0));
    let input_len: usize = shape.iter().product();
    // Images of soft blobs: neighbouring pixels are alike, examples are not.
    let mut random = stream(1);
    let mut inputs = vec![0.0; rows * input_len];
    for (index, example) in inputs.chunks_exact_mut(input_len).enumerate() {
        let (a, b, c) = (random.uniform(), random.uniform(), random.uniform());
        for (at, x) in example.iter_mut().enumerate() {
            let (channel, pixel) = (at % shape[2], at / shape[2]);
            let (h, w) = (pixel / shape[1], pixel % shape[1]);
            let wave = libm::sin(0.1 + a * h as f64 * 0.7 + channel as f64)
                * libm::cos(b * w as f64 * 0.7 + index as f64);
            *x = (wave + 0.5 * (random.uniform() - 0.5) + c) as f32;
        }
    }
    let numerics = match precision {
        "f32" => Numerics::F32,
        "f16" => Numerics::F16,
        "int8" => {
            let samples = rows.min(256) * input_len;
            Numerics::Int8(quantization(
                &model,
                parameters.values(),
                &inputs[..samples],
            )?)
        }
        _ => return Err(format!("no precision `{precision}`").into()),
    };
    let numbers = match &numerics {
        Numerics::Int8(quantization) => Numbers::Int8(quantization),
        // The other side's f16 is converted on the way; both start from the same numbers.
        _ => Numbers::F32,
    };
    let program = Program::compile(&model, parameters.values(), &numerics, Passes::ALL)?;
    let options = ExportOptions {
        numbers,
        fold_batch_norm: true,
        ..ExportOptions::default()
    };
    fs::write(
        folder.join("model.onnx"),
        export(&model, parameters.values(), &options)?,
    )?;
    write(&folder.join("inputs.f32"), &inputs)?;
    let open = Open {
        width: program.output_len(),
        program: Arc::new(program),
        inputs,
        input_len,
    };
    Ok((open, shape))
}

impl Open {
    fn runner(&self, batch: usize) -> Runner {
        Runner::for_batch(Arc::clone(&self.program), batch)
    }

    fn outputs(&self) -> Vec<f32> {
        let rows = self.inputs.len() / self.input_len;
        let mut outputs = vec![0.0; rows * self.width];
        self.runner(1).run(Inputs::Real(&self.inputs), &mut outputs);
        outputs
    }
}

fn answer(
    line: &str,
    opened: &mut Option<Open>,
    runner: &mut Option<(usize, Runner)>,
) -> Outcome<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match (&words[..], &opened) {
        (["open", name, precision, rows, folder], _) => {
            let (open, shape) = open(name, precision, rows.parse()?, Path::new(folder))?;
            *opened = Some(open);
            *runner = None;
            Ok(format!("ok {shape:?}"))
        }
        (["run", folder], Some(open)) => {
            write(&Path::new(folder).join("outputs.f32"), &open.outputs())?;
            Ok("ok".to_owned())
        }
        (["time", batch, calls], Some(open)) => {
            let (batch, calls): (usize, usize) = (batch.parse()?, calls.parse()?);
            if runner.as_ref().is_none_or(|(rows, _)| *rows != batch) {
                *runner = Some((batch, open.runner(batch)));
            }
            let Some((_, runner)) = runner else {
                return Err("no runner".into());
            };
            let inputs = open
                .inputs
                .get(..batch * open.input_len)
                .ok_or("fewer inputs than the batch")?;
            let mut outputs = vec![0.0; batch * open.width];
            let mut times = String::new();
            for _ in 0..calls {
                let start = Instant::now();
                runner.run(Inputs::Real(inputs), &mut outputs);
                times.push_str(&format!("{:e} ", start.elapsed().as_secs_f64()));
            }
            Ok(times)
        }
        _ => Err(format!("unknown command `{line}`, or nothing is open").into()),
    }
}

fn main() -> Outcome<()> {
    let (mut opened, mut runner) = (None, None);
    for line in std::io::stdin().lock().lines() {
        println!("{}", answer(&line?, &mut opened, &mut runner)?);
        std::io::stdout().flush()?;
    }
    Ok(())
}
