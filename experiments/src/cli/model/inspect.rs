//! `model inspect`: what a model computes, how large it is, and what memory it takes.

use fl_core::{InputSpec, TargetSpec};
use fl_edge::file::Kind;
use fl_edge::qat::QatOptions;
use fl_edge::quant::{FourBits, Granularity, Quantization, Range};
use fl_edge::{LayerSummary, Model, Numerics, StepMemory};
use serde::Serialize;

use super::super::output;
use super::{ModelError, Subject, container, input_text, target_text};
use crate::error::Error;

/// Arguments of `model inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A model file, a variant's folder of results, an ONNX or GGUF file, or a model of the zoo
    model: String,
    /// Batches to plan the memory for
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1u32, 32], value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: Vec<u32>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    name: String,
    kind: &'static str,
    model: &'static str,
    input: InputSpec,
    target: TargetSpec,
    parameters: usize,
    macs_per_example: u64,
    layers: Vec<LayerSummary>,
    file: Option<FileFacts>,
    inference: Vec<Inference>,
    training: Vec<Training>,
    /// Of the file's program (of an ONNX file, in its numbers), or of the program in `f32`, at the
    /// first batch.
    steps: Vec<StepMemory>,
}

#[derive(Serialize)]
struct FileFacts {
    bytes: usize,
    data_bytes: usize,
    tensors: usize,
    /// Every section has the SHA-256 that the header names.
    verified: bool,
    numerics: Option<&'static str>,
}

/// Memory of a program at a batch.
#[derive(Serialize)]
struct Inference {
    numerics: &'static str,
    batch: u32,
    constant_bytes: usize,
    arena_bytes: usize,
    /// Steps and tables.
    table_bytes: usize,
    peak_bytes: usize,
    /// Of the parameters in these numbers.
    parameter_bytes: usize,
    /// The peak over the parameters.
    peak_of_parameters: f64,
}

/// Memory of a session at a batch, with plain SGD.
#[derive(Serialize)]
struct Training {
    batch: u32,
    peak_bytes: usize,
    /// The same for quantization-aware training, where the model can be trained so.
    #[serde(skip_serializing_if = "Option::is_none")]
    qat_peak_bytes: Option<usize>,
    /// Of each operator, forward and back.
    steps: Vec<StepMemory>,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    if let Some(report) = container::foreign(&args.model)? {
        return match args.json {
            true => output::json(&report),
            false => report.print(),
        };
    }
    let subject = Subject::read(&args.model)?;
    let report = report(args, &subject)?;
    match args.json {
        true => output::json(&report),
        false => print(&report),
    }
}

fn report(args: &Args, subject: &Subject) -> Result<Report, Error> {
    let model = &subject.model;
    let file = match &subject.file {
        Some((path, file)) => {
            file.verify().map_err(|source| ModelError::File {
                path: path.clone(),
                source,
            })?;
            Some(FileFacts {
                bytes: file.len(),
                data_bytes: file.data_len(),
                tensors: file.tensors().len(),
                verified: true,
                numerics: file.numerics().map(Numerics::name),
            })
        }
        None => None,
    };
    // Sizes depend on no parameter and on no scale.
    let start = subject.start();
    let values = model.graph().values.iter();
    let range = Range {
        min: -1.0,
        max: 1.0,
    };
    let ranges = values.map(|value| (value.name.as_str(), range));
    let int8 = Numerics::Int8(Quantization::from_ranges(ranges, Granularity::Channel));
    let mut inference = Vec::new();
    let int4 = Numerics::Int4(FourBits::default());
    for numerics in [Numerics::F32, Numerics::F16, int8, int4] {
        let program = subject.compile(&start, &numerics)?;
        for &batch in &args.batch {
            let memory = program.memory(batch as usize);
            inference.push(Inference {
                numerics: numerics.name(),
                batch,
                constant_bytes: memory.constants,
                arena_bytes: memory.arena,
                table_bytes: memory.tables,
                peak_bytes: memory.peak(),
                parameter_bytes: program.parameter_bytes(),
                peak_of_parameters: memory.peak() as f64 / program.parameter_bytes() as f64,
            });
        }
    }
    let ranged = Model::new(model.definition(), model.input(), model.target())
        .and_then(|model| model.with_ranges(QatOptions::default()))
        .ok();
    let training = args.batch.iter().map(|&batch| Training {
        batch,
        peak_bytes: model.peak_bytes(batch as usize, true),
        qat_peak_bytes: (ranged.as_ref()).and_then(|model| model.qat_peak_bytes(batch as usize)),
        steps: model.training_memory(batch as usize),
    });
    let first = args.batch.first().copied().unwrap_or(1);
    let served = match &subject.file {
        Some((_, file)) if file.kind() == Kind::Program => subject.program()?,
        None if subject.foreign.is_some() => subject.program()?,
        _ => subject.compile(&start, &Numerics::F32)?,
    };
    Ok(Report {
        name: subject.name.clone(),
        kind: match &subject.file {
            Some((_, file)) => file.kind().name(),
            None => (subject.foreign.as_ref()).map_or("zoo", |foreign| foreign.format),
        },
        model: model.definition().kind(),
        input: model.input().clone(),
        target: model.target(),
        parameters: model.parameters(),
        macs_per_example: model.macs_per_example(),
        layers: model.summary().to_vec(),
        file,
        inference,
        training: training.collect(),
        steps: served.memory(first as usize).steps,
    })
}

fn print(report: &Report) -> Result<(), Error> {
    let (count, bytes) = (
        |value: usize| output::count(value as u64),
        |value: usize| output::bytes(value as u64),
    );
    let mut lines = vec![
        format!("{}: {}", report.name, report.kind),
        format!(
            "  model     {}: {} to {}, {} parameters, {} multiply-adds per example",
            report.model,
            input_text(&report.input),
            target_text(report.target),
            count(report.parameters),
            output::count(report.macs_per_example)
        ),
    ];
    if let Some(file) = &report.file {
        let numerics = file.numerics.map(|name| format!("in {name}, "));
        lines.push(format!(
            "  file      {}, {}{} tensors, every checksum right",
            bytes(file.bytes),
            numerics.unwrap_or_default(),
            count(file.tensors)
        ));
    }
    let mut section = |table: String| {
        lines.push(String::new());
        lines.extend(table.lines().map(|line| format!("  {line}")));
    };
    let rows: Vec<Vec<String>> = report
        .layers
        .iter()
        .map(|layer| {
            vec![
                format!("{} ({})", layer.name, layer.kind),
                format!("{:?}", layer.output_shape),
                count(layer.parameters),
                output::count(layer.macs),
                bytes(4 * layer.parameters),
                bytes(2 * layer.parameters),
                bytes(layer.parameters),
                bytes(layer.parameters.div_ceil(2)),
            ]
        })
        .collect();
    let header = [
        "layer",
        "output",
        "parameters",
        "multiply-adds",
        "f32",
        "f16",
        "8 bits",
        "4 bits",
    ];
    section(output::table(&header, &rows));
    let mut rows: Vec<Vec<String>> = report
        .inference
        .iter()
        .map(|it| {
            vec![
                format!("inference in {}", it.numerics),
                it.batch.to_string(),
                bytes(it.constant_bytes),
                bytes(it.arena_bytes + it.table_bytes),
                bytes(it.peak_bytes),
                format!("{:.2}", it.peak_of_parameters),
            ]
        })
        .collect();
    rows.extend(report.training.iter().map(|it| {
        vec![
            "training in f32".to_owned(),
            it.batch.to_string(),
            bytes(4 * report.parameters),
            bytes(it.peak_bytes.saturating_sub(4 * report.parameters)),
            bytes(it.peak_bytes),
            format!(
                "{:.2}",
                it.peak_bytes as f64 / (4 * report.parameters) as f64
            ),
        ]
    }));
    rows.extend(report.training.iter().filter_map(|it| {
        let peak = it.qat_peak_bytes?;
        Some(vec![
            "training in qat-int8".to_owned(),
            it.batch.to_string(),
            bytes(4 * report.parameters),
            bytes(peak.saturating_sub(4 * report.parameters)),
            bytes(peak),
            format!("{:.2}", peak as f64 / (4 * report.parameters) as f64),
        ])
    }));
    section(output::table(
        &[
            "memory",
            "batch",
            "weights",
            "work",
            "peak",
            "of parameters",
        ],
        &rows,
    ));
    let rows: Vec<Vec<String>> = report
        .steps
        .iter()
        .map(|step| {
            vec![
                format!("{} ({})", step.layer, step.operator),
                bytes(step.live),
            ]
        })
        .collect();
    section(output::table(&["step, as served", "arena in use"], &rows));
    output::line(&lines.join("\n"))
}
