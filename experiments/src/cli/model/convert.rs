//! `model convert`: from one form of a model to another.

use std::path::PathBuf;

use clap::ValueEnum;
use fl_edge::Numerics;
use fl_edge::file::{write_parameters, write_program};
use fl_onnx::{ExportOptions, Numbers};
use serde::Serialize;

use super::super::output;
use super::{ModelError, Subject, is_onnx, write_model};
use crate::error::Error;
use crate::results;

/// Arguments of `model convert`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file of trained parameters, a variant's folder of results, or an ONNX file
    model: String,
    /// The file to write: a model file, or ONNX when it ends in .onnx
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// What to write; for integers of a model that was not trained for them see `model quantize`
    #[arg(long, value_enum, default_value_t = Form::F32)]
    to: Form,
    /// The operator set of an ONNX file
    #[arg(long, value_name = "N", default_value_t = 17, value_parser = clap::value_parser!(i64).range(fl_onnx::export::OLDEST_OPSET..=fl_onnx::export::NEWEST_OPSET))]
    opset: i64,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Trainable parameters
    Parameters,
    /// A program in 32-bit floats
    F32,
    /// A program with 16-bit weights
    F16,
    /// A program in integers, with the ranges that training for quantization learned or an ONNX
    /// file in the QDQ form holds
    Int8,
}

#[derive(Serialize)]
struct Report {
    output: String,
    format: &'static str,
    bytes: u64,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    let subject = Subject::read(&args.model)?;
    let parameters = subject.parameters()?;
    let learned = match args.to {
        Form::Int8 => Some(subject.quantization(&parameters)?),
        _ => None,
    };
    let program = |numerics: Numerics| -> Result<u64, Error> {
        let program = subject.compile(&parameters, &numerics)?;
        Ok(write_model(&args.out, |writer| {
            write_program(&program, writer)
        })?)
    };
    let (format, bytes) = if is_onnx(&args.out) {
        let options = ExportOptions {
            opset: args.opset,
            numbers: match (args.to, &learned) {
                (_, Some(quantization)) => Numbers::Int8(quantization),
                (Form::F16, _) => Numbers::F16,
                _ => Numbers::F32,
            },
            ..ExportOptions::default()
        };
        let onnx = fl_onnx::export(&subject.model, parameters.values(), &options)
            .map_err(ModelError::from)?;
        ("ONNX", results::write_file(&args.out, &onnx)?.bytes)
    } else {
        match args.to {
            Form::Parameters => {
                let write = |writer: &mut dyn std::io::Write| {
                    write_parameters(&subject.model, &parameters, writer)
                };
                ("parameters", write_model(&args.out, write)?)
            }
            Form::F32 => ("program in f32", program(Numerics::F32)?),
            Form::F16 => ("program in f16", program(Numerics::F16)?),
            Form::Int8 => {
                let learned = learned.unwrap_or_default();
                ("program in int8", program(Numerics::Int8(learned))?)
            }
        }
    };
    let report = Report {
        output: args.out.display().to_string(),
        format,
        bytes,
    };
    match args.json {
        true => output::json(&report),
        false => output::line(&format!(
            "wrote {}: {format}, {}",
            report.output,
            output::bytes(bytes)
        )),
    }
}
