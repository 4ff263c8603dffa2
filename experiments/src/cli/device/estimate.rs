//! `device estimate`: the modelled cost of a network on devices.

use std::sync::Arc;

use fl_edge::device::{
    Choice, DelegateKind, DeviceProfile, Estimate, Heat, OpEstimate, OpWork, Precision, Request,
    Sparsity, Threads, Work, estimate,
};
use fl_edge::{Model, Numerics, Passes, Program};
use serde::Serialize;

use super::super::model::ModelError;
use super::super::output;
use super::{DeviceError, device, devices, network};
use crate::error::Error;

/// How long work goes on for the figure of a warm device.
const SUSTAINED_SECONDS: f64 = 1800.0;

/// Arguments of `device estimate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A published network (resnet-50, mobilenet-v2, …), a model of the zoo, or a model file
    model: String,
    /// Devices, by name or a profile's file; all known ones when left out
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    device: Vec<String>,
    /// The numbers: f32, f16, int8 or int4
    #[arg(long, default_value = "f32", value_parser = super::precision)]
    precision: Precision,
    /// Examples at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// A training step: forward, backward, update
    #[arg(long)]
    train: bool,
    /// One thread of the CPU, as a program in the background has
    #[arg(long)]
    one_thread: bool,
    /// Delegates that are missing or fail
    #[arg(long, value_name = "npu,gpu", value_delimiter = ',', value_parser = delegate)]
    without: Vec<DelegateKind>,
    /// Leave a delegate out where the model says that it would be slower than the CPU
    #[arg(long)]
    avoid_slower: bool,
    /// Two zeros in every four weights
    #[arg(long)]
    sparse_2_4: bool,
    /// Show the operators that take the most time
    #[arg(long)]
    operators: bool,
    /// Print one line of JSON per device
    #[arg(long)]
    json: bool,
}

fn delegate(text: &str) -> Result<DelegateKind, String> {
    match text {
        "npu" => Ok(DelegateKind::Npu),
        "gpu" => Ok(DelegateKind::Gpu),
        "cpu" => {
            Err("every operator can fall back to the CPU, which cannot be left out".to_owned())
        }
        _ => Err("expected npu or gpu".to_owned()),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    /// Always true: nothing here was measured on the device.
    modelled: bool,
    device: &'a str,
    model: &'a str,
    precision: Precision,
    batch: u32,
    training: bool,
    one_thread: bool,
    delegates: String,
    npu_coverage: Option<f64>,
    gpu_coverage: Option<f64>,
    borders: usize,
    border_seconds: f64,
    seconds: f64,
    joules: f64,
    watts: f64,
    start_up_seconds: f64,
    /// The same after half an hour of it.
    sustained_seconds: f64,
    sustained_celsius: f64,
    macs: u64,
    memory_bytes: u64,
    usable_bytes: u64,
    fits: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operators: Vec<OperatorLine>,
}

#[derive(Clone, Serialize)]
struct OperatorLine {
    layer: String,
    #[serde(flatten)]
    work: OpWork,
    #[serde(flatten)]
    cost: OpEstimate,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    let model = network(&args.model)?;
    let profiles = match args.device.is_empty() {
        true => devices()?,
        false => args
            .device
            .iter()
            .map(|name| device(name))
            .collect::<Result<_, _>>()?,
    };
    let work = match args.train {
        true => Work::training(model.graph()),
        false => Work::inference(model.graph()),
    };
    let memory = memory(&model, args)?;
    let request = Request {
        precision: args.precision,
        batch: args.batch,
        threads: match args.one_thread {
            true => Threads::One,
            false => Threads::All,
        },
        sparsity: match args.sparse_2_4 {
            true => Sparsity::TwoOfFour,
            false => Sparsity::Dense,
        },
        lost: &args.without,
        avoid_slower: args.avoid_slower,
    };
    let mut lines = Vec::new();
    let mut skipped = Vec::new();
    for profile in &profiles {
        let found = match estimate(profile, &work, &request) {
            Ok(found) => found,
            // Of all devices, those that cannot are named below the table.
            Err(error) if args.device.is_empty() => {
                skipped.push(error.to_string());
                continue;
            }
            Err(error) => return Err(DeviceError::from(error).into()),
        };
        lines.push(line(args, profile, &model, &work, &found, memory));
    }
    if args.json {
        return lines.iter().try_for_each(output::json);
    }
    print(args, &work, &lines)?;
    for reason in skipped {
        output::line(&format!("left out: {reason}"))?;
    }
    Ok(())
}

/// Bytes that the runtime plans for it.
fn memory(model: &Arc<Model>, args: &Args) -> Result<u64, Error> {
    let batch = args.batch as usize;
    if args.train {
        return Ok(model.peak_bytes(batch, true) as u64);
    }
    let numerics = match args.precision {
        Precision::F32 => Numerics::F32,
        Precision::F16 => Numerics::F16,
        // With 4-bit weights the constants are about half of these; it is an upper bound.
        Precision::Int8 | Precision::Int4 => Numerics::int8_plan(model),
    };
    let plan = Program::plan(model, &numerics, Passes::ALL, batch).map_err(ModelError::from)?;
    Ok(plan.peak() as u64)
}

fn line<'a>(
    args: &'a Args,
    profile: &'a DeviceProfile,
    model: &Model,
    work: &Work,
    found: &Estimate,
    memory: u64,
) -> Line<'a> {
    // Half an hour of it from a rested device, and then once more.
    let repeats = (SUSTAINED_SECONDS / found.seconds.max(1e-9)).max(1.0);
    let warm = Heat::rested(profile)
        .work(profile, repeats * found.seconds, found.watts())
        .after;
    let sustained = warm.work(profile, found.seconds, found.watts());
    let mut operators: Vec<OperatorLine> = (work.ops.iter().zip(&found.ops))
        .map(|(work, cost)| {
            let node = &model.graph().nodes[work.node];
            let layer = model.graph().values[node.output].name.clone();
            OperatorLine {
                layer,
                work: *work,
                cost: *cost,
            }
        })
        .collect();
    operators.sort_by(|a, b| b.cost.seconds.total_cmp(&a.cost.seconds));
    if !args.operators {
        operators.clear();
    }
    let usable = profile.memory.usable_bytes();
    Line {
        modelled: true,
        device: &profile.name,
        model: &args.model,
        precision: args.precision,
        batch: args.batch,
        training: work.training,
        one_thread: args.one_thread,
        delegates: match found.choice {
            Choice::Whole(kind) => kind.name().to_owned(),
            Choice::Split => "npu + cpu".to_owned(),
        },
        npu_coverage: found.npu.map(|it| it.share()),
        gpu_coverage: found.gpu.map(|it| it.share()),
        borders: found.borders,
        border_seconds: found.border_seconds,
        seconds: found.seconds,
        joules: found.joules,
        watts: found.watts(),
        start_up_seconds: found.start_up_seconds,
        sustained_seconds: sustained.seconds,
        sustained_celsius: sustained.after.celsius,
        macs: work.macs(),
        memory_bytes: memory,
        usable_bytes: usable,
        fits: memory <= usable,
        operators,
    }
}

fn print(args: &Args, work: &Work, lines: &[Line<'_>]) -> Result<(), Error> {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            vec![
                line.device.to_owned(),
                line.delegates.clone(),
                output::seconds(line.seconds),
                output::seconds(line.sustained_seconds),
                joules(line.joules),
                format!("{:.0} °C", line.sustained_celsius),
                output::seconds(line.start_up_seconds),
                output::bytes(line.usable_bytes),
                if line.fits { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    output::line(&format!(
        "{}: {} of {} in {}, {} multiply-accumulates for an example, {} of memory; modelled, not \
         measured",
        args.model,
        if args.train {
            "a training step"
        } else {
            "inference"
        },
        match args.batch {
            1 => "1 example".to_owned(),
            n => format!("{n} examples"),
        },
        args.precision.name(),
        output::count(work.macs()),
        output::bytes(lines.first().map_or(0, |line| line.memory_bytes)),
    ))?;
    let header = [
        "device",
        "runs on",
        "time",
        "after 30 min",
        "energy",
        "at",
        "start-up",
        "usable",
        "fits",
    ];
    output::line(&output::table(&header, &rows))?;
    for line in lines.iter().filter(|line| !line.operators.is_empty()) {
        output::line(&format!("\n{}, the slowest operators", line.device))?;
        let rows: Vec<Vec<String>> = line
            .operators
            .iter()
            .take(12)
            .map(|op| {
                vec![
                    op.layer.clone(),
                    word(&op.work.kind),
                    word(&op.work.phase),
                    op.cost.delegate.name().to_owned(),
                    output::count(op.work.macs),
                    output::bytes(op.cost.bytes as u64),
                    output::seconds(op.cost.seconds),
                    word(&op.cost.bound),
                ]
            })
            .collect();
        let header = [
            "layer", "kind", "phase", "on", "macs", "bytes", "time", "bound by",
        ];
        output::line(&output::table(&header, &rows))?;
    }
    Ok(())
}

/// The name that a value has in JSON.
fn word<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).ok();
    value
        .and_then(|it| it.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// `4.2 mJ`
fn joules(value: f64) -> String {
    match value {
        v if v < 1e-3 => format!("{:.0} µJ", v * 1e6),
        v if v < 1.0 => format!("{:.1} mJ", v * 1e3),
        v => format!("{v:.2} J"),
    }
}
