//! `model quantize`: a trained model in integers.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use fl_edge::Numerics;
use fl_edge::file::write_program;
use fl_edge::quant::{CALIBRATION_SAMPLES, Calibration, Float, Granularity};
use fl_onnx::{ExportOptions, Numbers};
use serde::Serialize;

use super::super::output;
use super::data::Data;
use super::{ModelError, Subject, is_onnx, write_model};
use crate::error::Error;
use crate::results;

/// Arguments of `model quantize`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file of trained parameters, or a variant's folder of results
    model: String,
    /// The file to write: a program, or ONNX in QDQ form when it ends in .onnx
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// How ranges of activations are found
    #[arg(long, value_enum, default_value_t = Method::MinMax)]
    calibrator: Method,
    /// Scales of a weight: one per output channel, or one per tensor
    #[arg(long, value_enum, default_value_t = Scales::Channel)]
    granularity: Scales,
    /// The data set whose training examples are shown, and whose test examples judge the result
    #[arg(long, value_name = "NAME")]
    data: String,
    /// Training examples to show
    #[arg(long, value_name = "N", default_value_t = CALIBRATION_SAMPLES as u32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// A unit that stays in f16, by the name of its layer; may be repeated
    #[arg(long, value_name = "LAYER")]
    keep_f16: Vec<String>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// A calibrator by its name.
#[derive(Clone, Copy, Debug)]
enum Method {
    MinMax,
    MovingAverage,
    Percentile,
    Entropy,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::MinMax => "min-max",
            Self::MovingAverage => "moving-average",
            Self::Percentile => "percentile",
            Self::Entropy => "entropy",
        }
    }

    /// With its default numbers.
    fn calibration(self) -> Calibration {
        Calibration::named(self.name()).unwrap_or_default()
    }
}

impl ValueEnum for Method {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::MinMax,
            Self::MovingAverage,
            Self::Percentile,
            Self::Entropy,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let value = PossibleValue::new(self.name());
        Some(match self {
            Self::MinMax => value.alias("minmax"),
            _ => value,
        })
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scales {
    Channel,
    Tensor,
}

#[derive(Serialize)]
struct Report {
    output: String,
    calibrator: &'static str,
    granularity: Granularity,
    samples: usize,
    points: usize,
    f16_units: Vec<String>,
    f32_bytes: usize,
    bytes: u64,
    accuracy_f32: Option<f64>,
    accuracy: Option<f64>,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    let subject = Subject::read(&args.model)?;
    let parameters = subject.parameters()?;
    let data = Data::load(&args.data, &subject.model)?;
    let granularity = match args.granularity {
        Scales::Channel => Granularity::Channel,
        Scales::Tensor => Granularity::Tensor,
    };
    let (mut quantization, samples) = data.calibrate(
        &subject.model,
        parameters.values(),
        args.calibrator.calibration(),
        granularity,
        args.samples as usize,
    )?;
    for unit in &args.keep_f16 {
        quantization.float_units.insert(unit.clone(), Float::F16);
    }
    let numerics = Numerics::Int8(quantization.clone());
    let program = subject.compile(&parameters, &numerics)?;
    let bytes = if is_onnx(&args.out) {
        let options = ExportOptions {
            numbers: Numbers::Int8(&quantization),
            ..ExportOptions::default()
        };
        let onnx = fl_onnx::export(&subject.model, parameters.values(), &options)
            .map_err(ModelError::from)?;
        results::write_file(&args.out, &onnx)?.bytes
    } else {
        write_model(&args.out, |writer| write_program(&program, writer))?
    };
    let exact = subject.compile(&parameters, &Numerics::F32)?;
    let report = Report {
        output: args.out.display().to_string(),
        calibrator: args.calibrator.name(),
        granularity,
        samples,
        points: quantization.points.len(),
        f16_units: args.keep_f16.clone(),
        f32_bytes: 4 * subject.model.parameters(),
        bytes,
        accuracy_f32: data.accuracy(exact),
        accuracy: data.accuracy(program),
    };
    if args.json {
        return output::json(&report);
    }
    let mut lines = vec![
        format!("wrote {}", report.output),
        format!(
            "  ranges    {} of {} points on {} examples of {}",
            report.calibrator, report.points, report.samples, args.data
        ),
        format!(
            "  size      {} of {} in f32 ({:.3})",
            output::bytes(report.bytes),
            output::bytes(report.f32_bytes as u64),
            report.bytes as f64 / report.f32_bytes as f64
        ),
    ];
    if let (Some(before), Some(after)) = (report.accuracy_f32, report.accuracy) {
        lines.push(format!(
            "  accuracy  {:.2} % in f32, {:.2} % in int8 on the test set ({:+.2} points)",
            100.0 * before,
            100.0 * after,
            100.0 * (after - before)
        ));
    }
    output::line(&lines.join("\n"))
}
