//! `model quantize --to int4`: weights of four bits.

use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use fl_core::{Examples as _, Parameters};
use fl_datasets::ClientScratch;
use fl_edge::file::write_program;
use fl_edge::quant::{
    AwqLayer, Code4, Float, FourBits, GptqOptions, LayerLoss, Samples, Weights4, awq,
    four_bit_units, gptq, layer_losses,
};
use fl_edge::{Model, Numerics, Passes, Program, gguf};
use fl_onnx::export::FOUR_BIT_OPSET;
use fl_onnx::{ExportOptions, Numbers};
use serde::Serialize;

use super::super::super::output;
use super::super::container::is_gguf;
use super::super::data::Data;
use super::super::{ModelError, Subject, is_onnx, write_model};
use super::Args;
use crate::error::Error;
use crate::results;

/// How codes of four bits are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Rounding {
    /// The nearest number of each weight
    Nearest,
    /// Errors are made up for by the terms behind (Frantar et al. 2023)
    Gptq,
    /// Channels of large inputs are scaled up first (Lin et al. 2023)
    Awq,
    /// The scaling of awq, then gptq
    AwqGptq,
}

impl Rounding {
    fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Gptq => "gptq",
            Self::Awq => "awq",
            Self::AwqGptq => "awq-gptq",
        }
    }
}

#[derive(Serialize)]
struct Report {
    output: String,
    code: &'static str,
    group: usize,
    rounding: &'static str,
    samples: usize,
    units: usize,
    f16_units: Vec<String>,
    f32_bytes: usize,
    bytes: u64,
    layers: Vec<LayerLoss>,
    /// What was scaled by AWQ.
    scaled: Vec<AwqLayer>,
    accuracy_f32: Option<f64>,
    accuracy: Option<f64>,
}

/// Writes the model with weights of four bits.
pub(super) fn run(args: &Args, code: Code4) -> Result<(), Error> {
    let mut format =
        FourBits::new(code, args.group.unwrap_or(64) as usize).map_err(ModelError::from)?;
    let subject = Subject::read(&args.model)?;
    let start = subject.parameters()?;
    let data = Data::load(&args.data, &subject.model)?;
    let mut scratch = ClientScratch::default();
    let train = data.train(&mut scratch);
    let samples = Samples::spread(&subject.model, &train, args.samples as usize);
    let samples = samples.map_err(ModelError::from)?;
    for unit in &args.keep_f16 {
        format.float_units.insert(unit.clone(), Float::F16);
    }
    let rounding = args.method.unwrap_or(Rounding::Nearest);
    let options = GptqOptions {
        act_order: args.act_order,
        ..GptqOptions::default()
    };
    let model = &subject.model;
    let (mut parameters, mut scaled) = (start.clone(), Vec::new());
    if matches!(rounding, Rounding::Awq | Rounding::AwqGptq) {
        let found = awq(model, start.values(), &format, &samples).map_err(ModelError::from)?;
        scaled = found.layers;
        parameters = Parameters::new(Arc::clone(model.layout()), found.parameters)
            .map_err(|error| ModelError::from(fl_edge::EdgeError::from(error)))?;
    }
    let values = parameters.values();
    let (weights, layers) = match rounding {
        Rounding::Gptq | Rounding::AwqGptq => {
            let found = gptq(model, values, &format, &samples, options);
            let found = found.map_err(ModelError::from)?;
            (found.weights, found.layers)
        }
        Rounding::Nearest | Rounding::Awq => {
            let weights = Weights4 {
                format: format.clone(),
                ..Weights4::default()
            };
            let layers = layer_losses(model, values, &weights, &samples);
            (weights, layers.map_err(ModelError::from)?)
        }
    };
    let program = Program::compile_four(model, values, &weights, Passes::ALL);
    let program = program.map_err(ModelError::from)?;
    let bytes = write(&args.out, model, &parameters, &weights, &program)?;
    let exact = subject.compile(&start, &Numerics::F32)?;
    let report = Report {
        output: args.out.display().to_string(),
        code: code.name(),
        group: format.group,
        rounding: rounding.name(),
        samples: samples.len(),
        units: four_bit_units(model).len(),
        f16_units: format.float_units.keys().cloned().collect(),
        f32_bytes: 4 * model.parameters(),
        bytes,
        layers,
        scaled,
        accuracy_f32: data.accuracy(exact)?,
        accuracy: data.accuracy(program)?,
    };
    match args.json {
        true => output::json(&report),
        false => output::line(&lines(&report).join("\n")),
    }
}

/// Writes a model in four bits, as ONNX or GGUF where the file is named so.
fn write(
    out: &Path,
    model: &Model,
    parameters: &Parameters,
    weights: &Weights4,
    program: &Program,
) -> Result<u64, Error> {
    if is_gguf(out) {
        let file = gguf::write_four(model, parameters, weights).map_err(|error| {
            let (path, source) = (out.to_owned(), Box::new(error));
            ModelError::Gguf { path, source }
        })?;
        return Ok(results::write_file(out, &file)?.bytes);
    }
    if !is_onnx(out) {
        return Ok(write_model(out, |writer| write_program(program, writer))?);
    }
    let options = ExportOptions {
        opset: FOUR_BIT_OPSET,
        numbers: Numbers::Int4(weights),
        ..ExportOptions::default()
    };
    let onnx = fl_onnx::export(model, parameters.values(), &options).map_err(ModelError::from)?;
    Ok(results::write_file(out, &onnx)?.bytes)
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![
        format!("wrote {}", report.output),
        format!(
            "  weights   {} in groups of {}, {} on {} examples, {} of {} units",
            report.code,
            report.group,
            report.rounding,
            output::count(report.samples as u64),
            report.layers.len(),
            report.units
        ),
        format!(
            "  size      {} of {} in f32 ({:.4})",
            output::bytes(report.bytes),
            output::bytes(report.f32_bytes as u64),
            report.bytes as f64 / report.f32_bytes as f64
        ),
    ];
    if let (Some(before), Some(after)) = (report.accuracy_f32, report.accuracy) {
        lines.push(format!(
            "  accuracy  {:.2} % in f32, {:.2} % as written on the test set ({:+.2} points)",
            100.0 * before,
            100.0 * after,
            100.0 * (after - before)
        ));
    }
    let rows: Vec<Vec<String>> = (report.layers.iter())
        .map(|layer| {
            vec![
                layer.unit.clone(),
                format!("{:.3e}", layer.nearest),
                format!("{:.3e}", layer.found),
            ]
        })
        .collect();
    let table = output::table(&["layer", "lost, nearest", "lost, as written"], &rows);
    lines.extend(table.lines().map(|line| format!("  {line}")));
    lines.extend(report.scaled.iter().map(|layer| match &layer.refused {
        Some(reason) => format!("  awq left `{}` as it was: {reason}", layer.unit),
        None => format!(
            "  awq scaled `{}` by the power {:.2} of its inputs: {:.3e} lost of {:.3e}",
            layer.unit, layer.alpha, layer.found, layer.nearest
        ),
    }));
    lines
}
