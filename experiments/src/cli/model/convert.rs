//! `model convert`: from one form of a model to another.

use std::path::PathBuf;

use clap::ValueEnum;
use fl_core::Parameters;
use fl_edge::Numerics;
use fl_edge::file::{write_parameters, write_program};
use fl_edge::gguf::{self, TensorKind};
use fl_edge::quant::{Code4, FourBits, Weights4};
use fl_onnx::export::FOUR_BIT_OPSET;
use fl_onnx::{ExportOptions, Numbers};
use serde::Serialize;

use super::super::output;
use super::container::is_gguf;
use super::{ModelError, Subject, is_onnx, write_model};
use crate::error::Error;
use crate::results;

/// Arguments of `model convert`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file of trained parameters, a variant's folder of results, or an ONNX or GGUF file
    model: String,
    /// The file to write: a model file, ONNX when it ends in .onnx, or GGUF when it ends in .gguf
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// What to write; for integers of a model that was not trained for them see `model quantize`
    #[arg(long, value_enum, default_value_t = Form::F32)]
    to: Form,
    /// Of four bits: weights that share a scale, a power of two from 16 to 1024 [default: 64]
    #[arg(long, value_name = "N", value_parser = super::quantize::group)]
    group: Option<u32>,
    /// The operator set of an ONNX file [default: 17, of four bits 21]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(fl_onnx::export::OLDEST_OPSET..=fl_onnx::export::NEWEST_OPSET))]
    opset: Option<i64>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The format of weights of four bits.
    fn format(&self) -> Result<FourBits, ModelError> {
        let code = self.to.code().unwrap_or_default();
        Ok(FourBits::new(code, self.group.unwrap_or(64) as usize)?)
    }
}

/// What other files than GGUF hold.
const OTHERS: &str =
    "parameters, f32, f16, int8, int4, uint4 or nf4, or an output that ends in .gguf,";

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
    /// A program with weights of four bits, rounded to the nearest; see also `model quantize`
    Int4,
    /// The same with zero points
    Uint4,
    /// The same with quantiles of a normal distribution
    Nf4,
    /// In a GGUF file: weights in blocks of 8-bit integers
    #[value(name = "q8_0")]
    Q8,
    /// In a GGUF file: weights in blocks of 4-bit integers
    #[value(name = "q4_0")]
    Q4,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Uint4 => "uint4",
            Self::Nf4 => "nf4",
            Self::Q8 => "q8_0",
            Self::Q4 => "q4_0",
        }
    }

    /// How a GGUF file stores it.
    fn tensor_kind(self) -> Option<TensorKind> {
        match self {
            Self::Parameters | Self::F32 => Some(TensorKind::F32),
            Self::F16 => Some(TensorKind::F16),
            Self::Int8 | Self::Int4 | Self::Uint4 | Self::Nf4 => None,
            Self::Q8 => Some(TensorKind::Q8_0),
            Self::Q4 => Some(TensorKind::Q4_0),
        }
    }

    /// What codes of four bits stand for.
    fn code(self) -> Option<Code4> {
        Code4::ALL
            .into_iter()
            .find(|code| code.name() == self.name())
    }

    fn refused(self, format: &'static str, expected: &'static str) -> ModelError {
        ModelError::Form {
            format,
            form: self.name(),
            expected,
        }
    }
}

#[derive(Serialize)]
struct Report {
    output: String,
    format: &'static str,
    bytes: u64,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    if args.group.is_some() && args.to.code().is_none() {
        return Err(ModelError::OtherNumbers {
            option: "--group",
            to: args.to.name(),
        }
        .into());
    }
    let subject = Subject::read(&args.model)?;
    let parameters = subject.parameters()?;
    let (format, bytes) = if is_gguf(&args.out) {
        to_gguf(args, &subject, &parameters)?
    } else if is_onnx(&args.out) {
        to_onnx(args, &subject, &parameters)?
    } else {
        to_model_file(args, &subject, &parameters)?
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

/// What was written, and its bytes.
type Written = (&'static str, u64);

fn to_gguf(args: &Args, subject: &Subject, parameters: &Parameters) -> Result<Written, Error> {
    let kind = args.to.tensor_kind();
    let kind = kind.ok_or_else(|| args.to.refused("GGUF", "f32, f16, q8_0 or q4_0"))?;
    let file = gguf::write_model(&subject.model, parameters, kind).map_err(|error| {
        let (path, source) = (args.out.clone(), Box::new(error));
        ModelError::Gguf { path, source }
    })?;
    Ok(("GGUF", results::write_file(&args.out, &file)?.bytes))
}

fn to_onnx(args: &Args, subject: &Subject, parameters: &Parameters) -> Result<Written, Error> {
    let (learned, four);
    let numbers = match args.to {
        Form::Parameters | Form::F32 => Numbers::F32,
        Form::F16 => Numbers::F16,
        Form::Int8 => {
            learned = subject.quantization(parameters)?;
            Numbers::Int8(&learned)
        }
        Form::Int4 | Form::Uint4 | Form::Nf4 => {
            four = Weights4 {
                format: args.format()?,
                ..Weights4::default()
            };
            Numbers::Int4(&four)
        }
        Form::Q8 | Form::Q4 => return Err(args.to.refused("ONNX", OTHERS).into()),
    };
    let usual = match args.to.code() {
        Some(_) => FOUR_BIT_OPSET,
        None => 17,
    };
    let options = ExportOptions {
        opset: args.opset.unwrap_or(usual),
        numbers,
        ..ExportOptions::default()
    };
    let onnx =
        fl_onnx::export(&subject.model, parameters.values(), &options).map_err(ModelError::from)?;
    Ok(("ONNX", results::write_file(&args.out, &onnx)?.bytes))
}

fn to_model_file(
    args: &Args,
    subject: &Subject,
    parameters: &Parameters,
) -> Result<Written, Error> {
    let (format, numerics) = match args.to {
        Form::Parameters => {
            let write = |writer: &mut dyn std::io::Write| {
                write_parameters(&subject.model, parameters, writer)
            };
            return Ok(("parameters", write_model(&args.out, write)?));
        }
        Form::F32 => ("program in f32", Numerics::F32),
        Form::F16 => ("program in f16", Numerics::F16),
        Form::Int8 => {
            let learned = subject.quantization(parameters)?;
            ("program in int8", Numerics::Int8(learned))
        }
        Form::Int4 => ("program in int4", Numerics::Int4(args.format()?)),
        Form::Uint4 => ("program in uint4", Numerics::Int4(args.format()?)),
        Form::Nf4 => ("program in nf4", Numerics::Int4(args.format()?)),
        Form::Q8 | Form::Q4 => return Err(args.to.refused("a model file", OTHERS).into()),
    };
    let program = subject.compile(parameters, &numerics)?;
    let write = |writer: &mut dyn std::io::Write| write_program(&program, writer);
    Ok((format, write_model(&args.out, write)?))
}
