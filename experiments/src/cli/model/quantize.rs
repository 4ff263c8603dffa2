//! `model quantize`: a trained model in integers.

pub(super) mod four;

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use fl_core::{Examples as _, Parameters};
use fl_datasets::ClientScratch;
use fl_edge::file::write_program;
use fl_edge::quant::{
    CALIBRATION_SAMPLES, Calibration, Code4, Float, Granularity, Quantization, Samples,
    fewest_floats, integer_units,
};
use fl_edge::{Numerics, Program};
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
    /// A file of trained parameters, a variant's folder of results, or an ONNX file
    model: String,
    /// The file to write: a program, or ONNX when it ends in .onnx, or with --to int4 and --group 32
    /// GGUF when it ends in .gguf
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// The numbers: int8 for weights and activations, or weights alone in four bits
    #[arg(long, value_enum, default_value_t = To::Int8)]
    to: To,
    /// Of four bits: weights that share a scale, a power of two from 16 to 1024 [default: 64]
    #[arg(long, value_name = "N", value_parser = group)]
    group: Option<u32>,
    /// Of four bits: how codes are found [default: nearest]
    #[arg(long, value_enum)]
    method: Option<four::Rounding>,
    /// Of gptq: round the terms with the largest inputs first
    #[arg(long)]
    act_order: bool,
    /// Of int8: how ranges of activations are found [default: min-max]
    #[arg(long, value_enum)]
    calibrator: Option<Method>,
    /// Of percentile: the share of the magnitudes inside of a range, in per cent [default: 99.999]
    #[arg(long, value_name = "P", value_parser = percentile)]
    percentile: Option<f64>,
    /// Of percentile and entropy: bins of a histogram [default: 2048]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=65_536))]
    bins: Option<u32>,
    /// Of entropy: levels that a cut is compared at, at most the bins [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=65_536))]
    levels: Option<u32>,
    /// Of moving-average: the share of a batch in the average [default: 0.01]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    constant: Option<f32>,
    /// Of int8: scales of a weight, one per output channel or one per tensor [default: channel]
    #[arg(long, value_enum)]
    granularity: Option<Scales>,
    /// The data set whose training examples are shown, and whose test examples judge the result
    #[arg(long, value_name = "NAME")]
    data: String,
    /// Training examples to show
    #[arg(long, value_name = "N", default_value_t = CALIBRATION_SAMPLES as u32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// A unit that stays in f16, by the name of its layer; may be repeated
    #[arg(long, value_name = "LAYER")]
    keep_f16: Vec<String>,
    /// Of int8: keep the fewest units in f16 that lose at most so many points of accuracy against f32; the
    /// search sees training examples alone, so that the test set judges what it found
    #[arg(long, value_name = "POINTS", value_parser = points)]
    budget: Option<f64>,
    /// Training examples on which the budget is measured
    #[arg(long, value_name = "N", default_value_t = JUDGED, requires = "budget", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    budget_samples: u32,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Training examples that judge a budget.
const JUDGED: u32 = 2000;

/// Weights that share a scale.
pub(super) fn group(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(group) if group.is_power_of_two() && (16..=1024).contains(&group) => Ok(group),
        _ => Err("expected a power of two from 16 to 1024, such as 64".to_owned()),
    }
}

/// What a model is brought into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    /// Integers of eight bits
    Int8,
    /// Weights of four bits, symmetric
    Int4,
    /// Weights of four bits with zero points
    Uint4,
    /// Weights of four bits that are quantiles of a normal distribution
    Nf4,
}

impl To {
    fn code(self) -> Option<Code4> {
        match self {
            Self::Int8 => None,
            Self::Int4 => Some(Code4::Int4),
            Self::Uint4 => Some(Code4::Uint4),
            Self::Nf4 => Some(Code4::Nf4),
        }
    }
}

/// A number of percentage points.
fn points(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(points) if (0.0..=100.0).contains(&points) => Ok(points),
        _ => Err("expected percentage points from 0 to 100, such as 0.5".to_owned()),
    }
}

/// A share in per cent that is not 0.
fn percentile(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("expected a number above 0 and at most 100, such as 99.99".to_owned()),
    }
}

/// A share that is not 0.
fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a number above 0 and at most 1, such as 0.01".to_owned()),
    }
}

impl Args {
    fn method_of_calibration(&self) -> Method {
        self.calibrator.unwrap_or(Method::MinMax)
    }

    /// That no option of other numbers is given.
    fn check(&self) -> Result<(), ModelError> {
        let four = [
            ("--group", self.group.is_some()),
            ("--method", self.method.is_some()),
            ("--act-order", self.act_order),
        ];
        let eight = [
            ("--calibrator", self.calibrator.is_some()),
            ("--percentile", self.percentile.is_some()),
            ("--bins", self.bins.is_some()),
            ("--levels", self.levels.is_some()),
            ("--constant", self.constant.is_some()),
            ("--granularity", self.granularity.is_some()),
            ("--budget", self.budget.is_some()),
        ];
        let (foreign, to) = match self.to.code() {
            None => (&four[..], "int8"),
            Some(code) => (&eight[..], code.name()),
        };
        if let Some(&(option, _)) = foreign.iter().find(|(_, given)| *given) {
            return Err(ModelError::OtherNumbers { option, to });
        }
        let solves = matches!(
            self.method,
            Some(four::Rounding::Gptq | four::Rounding::AwqGptq)
        );
        match self.act_order && !solves {
            true => Err(ModelError::OtherNumbers {
                option: "--act-order",
                to: "this --method",
            }),
            false => Ok(()),
        }
    }

    /// The calibrator with its numbers.
    fn calibration(&self) -> Result<Calibration, ModelError> {
        let mut calibration =
            Calibration::named(self.method_of_calibration().name()).unwrap_or_default();
        let whole = |count: Option<u32>, default: usize| count.map_or(default, |n| n as usize);
        let [percentile, bins, levels, constant] = match &mut calibration {
            Calibration::MinMax => [false; 4],
            Calibration::MovingAverage { constant } => {
                *constant = self.constant.unwrap_or(*constant);
                [false, false, false, true]
            }
            Calibration::Percentile { percentile, bins } => {
                *percentile = self.percentile.unwrap_or(*percentile);
                *bins = whole(self.bins, *bins);
                [true, true, false, false]
            }
            Calibration::Entropy { bins, levels } => {
                *bins = whole(self.bins, *bins);
                *levels = whole(self.levels, (*levels).min(*bins));
                if *levels > *bins {
                    return Err(ModelError::Levels {
                        levels: *levels,
                        bins: *bins,
                    });
                }
                [false, true, true, false]
            }
        };
        let given = [
            ("--percentile", self.percentile.is_some(), percentile),
            ("--bins", self.bins.is_some(), bins),
            ("--levels", self.levels.is_some(), levels),
            ("--constant", self.constant.is_some(), constant),
        ];
        match given.into_iter().find(|&(_, given, used)| given && !used) {
            Some((option, ..)) => Err(ModelError::UnusedOption {
                option,
                calibrator: self.method_of_calibration().name(),
            }),
            None => Ok(calibration),
        }
    }
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
    units: usize,
    f16_units: Vec<String>,
    budget: Option<BudgetReport>,
    f32_bytes: usize,
    bytes: u64,
    accuracy_f32: Option<f64>,
    accuracy: Option<f64>,
}

/// What the search for the fewest units in f16 found, by the training examples that it used.
#[derive(Serialize)]
struct BudgetReport {
    points: f64,
    samples: usize,
    accuracy_f32: f64,
    /// With no unit in f16 but those that were to stay there.
    accuracy_int8: f64,
    accuracy: f64,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    args.check()?;
    if let Some(code) = args.to.code() {
        return four::run(args, code);
    }
    let method = args.calibration()?;
    let subject = Subject::read(&args.model)?;
    let parameters = subject.parameters()?;
    let data = Data::load(&args.data, &subject.model)?;
    let granularity = match args.granularity {
        Some(Scales::Tensor) => Granularity::Tensor,
        Some(Scales::Channel) | None => Granularity::Channel,
    };
    let mut scratch = ClientScratch::default();
    let train = data.train(&mut scratch);
    let samples = Samples::spread(&subject.model, &train, args.samples as usize);
    let samples = samples.map_err(ModelError::from)?;
    let calibrated = samples.calibrate(&subject.model, parameters.values(), method, granularity);
    let mut quantization = calibrated.map_err(ModelError::from)?;
    for unit in &args.keep_f16 {
        quantization.float_units.insert(unit.clone(), Float::F16);
    }
    let mut budget = None;
    if let Some(points) = args.budget {
        if train.target().labels() == 0 {
            let data = args.data.clone();
            return Err(ModelError::NoClasses { data }.into());
        }
        let judged = Samples::spread(&subject.model, &train, args.budget_samples as usize);
        let judged = judged.map_err(ModelError::from)?;
        let (found, report) = search(
            &subject,
            &parameters,
            &quantization,
            points,
            &samples,
            &judged,
        )?;
        (quantization, budget) = (found, Some(report));
    }
    let numerics = Numerics::Int8(quantization.clone());
    let program = subject.compile(&parameters, &numerics)?;
    let exact = subject.compile(&parameters, &Numerics::F32)?;
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
    let report = Report {
        output: args.out.display().to_string(),
        calibrator: args.method_of_calibration().name(),
        granularity,
        samples: samples.len(),
        points: quantization.points.len(),
        units: integer_units(&subject.model).len(),
        f16_units: quantization.float_units.keys().cloned().collect(),
        budget,
        f32_bytes: 4 * subject.model.parameters(),
        bytes,
        accuracy_f32: data.accuracy(exact)?,
        accuracy: data.accuracy(program)?,
    };
    if args.json {
        return output::json(&report);
    }
    output::line(&lines(&report, &args.data).join("\n"))
}

/// The quantization with the fewest units in f16 that loses at most so many points on `judged`.
fn search(
    subject: &Subject,
    parameters: &Parameters,
    quantization: &Quantization,
    points: f64,
    samples: &Samples<'_>,
    judged: &Samples<'_>,
) -> Result<(Quantization, BudgetReport), Error> {
    let accuracy = |program: Program| -> Result<f64, ModelError> {
        // The targets are classes.
        Ok(judged.accuracy(program)?.unwrap_or_default())
    };
    let accuracy_f32 = accuracy(subject.compile(parameters, &Numerics::F32)?)?;
    // Counted in examples, so that a budget of 0.5 of 2000 is 10 whatever the roundings are.
    let count = judged.len() as f64;
    let least = (accuracy_f32 * count).round() - (points / 100.0 * count + 1e-6).floor();
    let (mut first, mut refused) = (None, None);
    let found = fewest_floats(
        &subject.model,
        parameters.values(),
        quantization,
        samples,
        Float::F16,
        least,
        &mut |program| match accuracy(program) {
            Ok(accuracy) => {
                first.get_or_insert(accuracy);
                (accuracy * count).round()
            }
            Err(error) => {
                refused.get_or_insert(error);
                f64::INFINITY
            }
        },
    );
    let found = found.map_err(ModelError::from)?;
    if let Some(error) = refused {
        return Err(error.into());
    }
    let report = BudgetReport {
        points,
        samples: judged.len(),
        accuracy_f32,
        accuracy_int8: first.unwrap_or_default(),
        accuracy: found.score / count,
    };
    if !found.reached {
        return Err(ModelError::Budget {
            points,
            lost: 100.0 * (report.accuracy_f32 - report.accuracy),
        }
        .into());
    }
    Ok((found.quantization, report))
}

fn lines(report: &Report, data: &str) -> Vec<String> {
    let mut lines = vec![
        format!("wrote {}", report.output),
        format!(
            "  ranges    {} of {} points on {} examples of {data}",
            report.calibrator, report.points, report.samples
        ),
    ];
    if report.budget.is_some() || !report.f16_units.is_empty() {
        let kept = match report.f16_units.as_slice() {
            [] => "none".to_owned(),
            units => units.join(", "),
        };
        lines.push(format!("  in f16    {kept} of {} units", report.units));
    }
    if let Some(budget) = &report.budget {
        lines.push(format!(
            "  budget    {} points: {:.2} % in f32, {:.2} % before the search, {:.2} % now on {} training examples",
            budget.points,
            100.0 * budget.accuracy_f32,
            100.0 * budget.accuracy_int8,
            100.0 * budget.accuracy,
            output::count(budget.samples as u64),
        ));
    }
    lines.push(format!(
        "  size      {} of {} in f32 ({:.3})",
        output::bytes(report.bytes),
        output::bytes(report.f32_bytes as u64),
        report.bytes as f64 / report.f32_bytes as f64
    ));
    if let (Some(before), Some(after)) = (report.accuracy_f32, report.accuracy) {
        lines.push(format!(
            "  accuracy  {:.2} % in f32, {:.2} % {} on the test set ({:+.2} points)",
            100.0 * before,
            100.0 * after,
            match report.f16_units.is_empty() {
                true => "in int8",
                false => "as written",
            },
            100.0 * (after - before)
        ));
    }
    lines
}
