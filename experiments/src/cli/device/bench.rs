//! `device bench`: this machine measured into a profile, and what the profile predicts of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::device::fit::{self, Sample};
use fl_edge::device::profile::{
    Cache, Class, Delegate, Figure, HalfFloats, Jitter, Memory, Rates, Source, SourceKind, Thermal,
};
use fl_edge::device::work::Kind;
use fl_edge::device::{
    DeviceProfile, OpWork, Operator, Phase, Precision, Threads, Work, catalogue,
};
use fl_edge::quant::{Granularity, Quantization, Range};
use fl_edge::{Inputs, LayersDef, Model, ModelDef, Numerics, Passes, Program, Runner};
use serde::Serialize;

use super::super::model::ModelError;
use super::super::output;
use super::{DeviceError, percent};
use crate::analysis::quantile;
use crate::error::Error;
use crate::results::write_file;

/// Networks that the rates are fitted to: one for each kind of product.
const FITTED: [&str; 4] = ["tiny-ic", "mobilenet-v2", "resnet-18", "leaf-femnist"];
/// Single layers that they are fitted to as well: image (or row), channels, layer. Whole networks
/// alone do not say what narrow layers, large windows and other operators cost.
const LAYERS: [([usize; 2], usize, Layer); 20] = [
    ([28, 28], 1, Layer::Conv(3, 16)),
    ([28, 28], 1, Layer::Conv(5, 24)),
    ([32, 32], 3, Layer::Conv(3, 32)),
    ([28, 28], 16, Layer::Conv(5, 40)),
    ([28, 28], 32, Layer::Conv(3, 32)),
    ([14, 14], 64, Layer::Conv(3, 96)),
    ([7, 7], 256, Layer::Conv(3, 128)),
    ([56, 56], 16, Layer::Conv(1, 32)),
    ([28, 28], 48, Layer::Conv(1, 96)),
    ([7, 7], 384, Layer::Conv(1, 256)),
    ([56, 56], 24, Layer::Depthwise(3)),
    ([14, 14], 192, Layer::Depthwise(3)),
    ([7, 7], 640, Layer::Depthwise(3)),
    ([28, 28], 32, Layer::Mean),
    ([14, 14], 256, Layer::Mean),
    ([28, 28], 48, Layer::MaxPool),
    ([14, 14], 192, Layer::MaxPool),
    ([1, 1], 600, Layer::Dense(150)),
    ([1, 1], 1200, Layer::Dense(400)),
    ([1, 1], 3000, Layer::Dense(600)),
];

/// A layer.
#[derive(Clone, Copy)]
enum Layer {
    /// Window and filters.
    Conv(usize, usize),
    /// Window; one filter for each channel.
    Depthwise(usize),
    /// Units.
    Dense(usize),
    /// No product: the mean of every channel.
    Mean,
    /// No product: the largest of each four.
    MaxPool,
}

impl Layer {
    /// The layer, behind an image of its kind, with classes behind it.
    fn network(self, image: [usize; 2], channels: usize) -> Result<(String, Model), Error> {
        let [height, width] = image;
        let (name, layer) = match self {
            Self::Conv(kernel, filters) => (
                format!("{height}x{width}x{channels}, {kernel}x{kernel} to {filters}"),
                format!(
                    r#"{{"kind": "conv2d", "filters": {filters}, "kernel": {kernel}, "padding": "same", "activation": "relu"}}, {{"kind": "global-avg-pool"}}"#
                ),
            ),
            Self::Depthwise(kernel) => (
                format!("{height}x{width}x{channels}, {kernel}x{kernel} depthwise"),
                format!(
                    r#"{{"kind": "conv2d", "filters": {channels}, "kernel": {kernel}, "padding": "same", "groups": {channels}, "activation": "relu"}}, {{"kind": "global-avg-pool"}}"#
                ),
            ),
            Self::Mean => (
                format!("{height}x{width}x{channels}, mean"),
                r#"{"kind": "global-avg-pool"}"#.to_owned(),
            ),
            Self::MaxPool => (
                format!("{height}x{width}x{channels}, largest of four"),
                r#"{"kind": "max-pool", "size": 2}, {"kind": "global-avg-pool"}"#.to_owned(),
            ),
            Self::Dense(units) => (
                format!("{channels} to {units}"),
                format!(
                    r#"{{"kind": "flatten"}}, {{"kind": "dense", "units": {units}, "activation": "relu"}}"#
                ),
            ),
        };
        let text = format!(r#"[{layer}, {{"kind": "dense"}}]"#);
        let Ok(layers) = serde_json::from_str(&text) else {
            unreachable!("layers of this crate");
        };
        let def = ModelDef::Layers(LayersDef {
            layer: layers,
            loss: None,
        });
        let input = InputSpec::Real(vec![height, width, channels]);
        let model = Model::new(&def, &input, TargetSpec::Class { classes: 2 });
        Ok((name, model.map_err(ModelError::from)?))
    }
}

/// Networks that are then predicted.
const PREDICTED: [&str; 4] = ["mobilenet-v1", "tiny-vww", "cnn-fedavg", "tiny-kws"];
/// Fewest runs of each network, and how long each is measured at least.
const RUNS: usize = 15;
const MEASURED: Duration = Duration::from_millis(200);

/// Arguments of `device bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write the profile to this file, which must end in .toml
    #[arg(long, short, value_name = "FILE", value_parser = profile_file)]
    out: Option<PathBuf>,
    /// The profile's name
    #[arg(long, default_value = "host")]
    name: String,
    /// Print one line of JSON per time
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    network: String,
    precision: Precision,
    fitted: bool,
    measured_seconds: f64,
    modelled_seconds: f64,
    error: f64,
}

struct Subject {
    network: String,
    fitted: bool,
    precision: Precision,
    work: Work,
    runner: Runner,
    inputs: Vec<f32>,
    outputs: Vec<f32>,
    times: Vec<f64>,
}

pub(super) fn run(args: &Args) -> Result<(), Error> {
    let mut models = Vec::new();
    for (image, channels, layer) in LAYERS {
        let (name, model) = layer.network(image, channels)?;
        models.push((name, true, Arc::new(model)));
    }
    for (names, fitted) in [(&FITTED, true), (&PREDICTED, false)] {
        for &network in names {
            models.push((network.to_owned(), fitted, super::network(network)?));
        }
    }
    let mut subjects = Vec::new();
    for (network, fitted, model) in &models {
        for precision in [Precision::F32, Precision::Int8] {
            subjects.push(subject(network, *fitted, precision, model)?);
        }
    }
    measure(&mut subjects);
    let samples: Vec<Sample<'_>> = subjects
        .iter()
        .filter(|subject| subject.fitted)
        .map(|subject| Sample {
            work: &subject.work,
            precision: subject.precision,
            batch: 1,
            threads: Threads::One,
            seconds: median(&subject.times),
        })
        .collect();
    let mut profile = start(args, &samples);
    profile.cpu = fit::fit(&profile.cpu, &samples, "fit");
    let spread: Vec<f64> = subjects
        .iter()
        .flat_map(|subject| {
            let middle = median(&subject.times);
            subject.times.iter().map(move |time| (time / middle).ln())
        })
        .collect();
    // The body without its tails: half the distance of the outer of the middle 68 %.
    let sigma = 0.5 * (quantile(&spread, 0.84) - quantile(&spread, 0.16));
    profile.jitter.sigma = figure((sigma * 1e4).round() / 1e4, "bench");
    if let Err((_, problem)) = profile.check() {
        let file = args.name.clone();
        return Err(DeviceError::from(fl_edge::device::ProfileError {
            file,
            line: None,
            problem,
        })
        .into());
    }
    let lines: Vec<Line> = subjects
        .iter()
        .map(|subject| {
            let measured = median(&subject.times);
            let sample = Sample {
                work: &subject.work,
                precision: subject.precision,
                batch: 1,
                threads: Threads::One,
                seconds: measured,
            };
            let modelled = fit::seconds(&profile.cpu, &sample).unwrap_or(f64::NAN);
            Line {
                network: subject.network.clone(),
                precision: subject.precision,
                fitted: subject.fitted,
                measured_seconds: measured,
                modelled_seconds: modelled,
                error: modelled / measured - 1.0,
            }
        })
        .collect();
    if let Some(path) = &args.out {
        write_file(path, catalogue::write(&profile).as_bytes())?;
    }
    if args.json {
        return lines.iter().try_for_each(output::json);
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            vec![
                format!("{} in {}", line.network, line.precision.name()),
                if line.fitted { "fitted" } else { "held out" }.to_owned(),
                output::seconds(line.measured_seconds),
                output::seconds(line.modelled_seconds),
                percent(line.error),
            ]
        })
        .collect();
    output::line(&format!(
        "this machine, one thread, {} kernels",
        fl_edge::kernel::name()
    ))?;
    output::line(&output::table(
        &["network", "role", "measured", "modelled", "error"],
        &rows,
    ))?;
    for (fitted, name) in [(true, "fitted to"), (false, "held out")] {
        let errors: Vec<f64> = lines
            .iter()
            .filter(|line| line.fitted == fitted)
            .map(|line| line.error.abs())
            .collect();
        output::line(&format!(
            "median error of times {name}: {:.1} %",
            100.0 * median(&errors)
        ))?;
    }
    match &args.out {
        Some(path) => output::line(&format!("profile: {}", path.display())),
        None => {
            output::line("write the profile with -o host.toml, and use it with --device host.toml")
        }
    }
}

/// A file by whose name `--device` takes it for a profile.
fn profile_file(text: &str) -> Result<PathBuf, String> {
    match super::is_file(Path::new(text)) {
        true => Ok(text.into()),
        false => Err(format!(
            "a profile's name must end in .toml, or `--device {text}` would take it for a name of \
             the catalogue; give, for example, host.toml"
        )),
    }
}

fn subject(
    network: &str,
    fitted: bool,
    precision: Precision,
    model: &Arc<Model>,
) -> Result<Subject, Error> {
    let mut stream = Stream::at(Purpose::ModelInit, Seed(1), RoundId(0), ClientId(0));
    let parameters = model.init(&mut stream);
    let numerics = match precision {
        Precision::Int8 => {
            let range = Range {
                min: -1.0,
                max: 1.0,
            };
            let values = model.graph().values.iter();
            let ranges = values.map(|value| (value.name.as_str(), range));
            Numerics::Int8(Quantization::from_ranges(ranges, Granularity::Channel))
        }
        _ => Numerics::F32,
    };
    let program = Program::compile(model, parameters.values(), &numerics, Passes::ALL);
    let program = Arc::new(program.map_err(ModelError::from)?);
    let inputs = (0..program.input_len())
        .map(|_| stream.normal() as f32)
        .collect();
    let mut work = Work::inference(model.graph());
    if precision == Precision::Int8 {
        // Floats come in and are rounded first, which a graph does not say.
        work.ops.push(OpWork {
            node: 0,
            operator: Operator::Add,
            kind: Kind::Elementwise,
            phase: Phase::Forward,
            macs: 0,
            columns: 0,
            outputs: 0,
            gathered: 0,
            values: 2 * program.input_len() as u64,
            parameters: 0,
            gradients: 0,
        });
    }
    Ok(Subject {
        network: network.to_owned(),
        fitted,
        precision,
        work,
        outputs: vec![0.0; program.output_len()],
        runner: Runner::new(program, 1),
        inputs,
        times: Vec::new(),
    })
}

/// Times all of them in turns, so that a slow moment meets each alike.
fn measure(subjects: &mut [Subject]) {
    for turn in 0.. {
        let mut done = true;
        for subject in subjects.iter_mut() {
            let spent: f64 = subject.times.iter().sum();
            if subject.times.len() >= RUNS && spent >= MEASURED.as_secs_f64() {
                continue;
            }
            done = false;
            // Short networks run many times in a turn; the first run warms the caches.
            let mut inner = 0.0;
            for run in 0..200 {
                let begin = now();
                subject
                    .runner
                    .run(Inputs::Real(&subject.inputs), &mut subject.outputs);
                let time = begin.elapsed().as_secs_f64();
                if run > 0 && turn > 0 {
                    subject.times.push(time);
                }
                inner += time;
                if run > 0 && inner > 0.03 {
                    break;
                }
            }
        }
        if done {
            break;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
fn now() -> Instant {
    Instant::now()
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

fn figure(value: f64, source: &str) -> Figure {
    Figure {
        value,
        source: source.to_owned(),
    }
}

/// The profile before its rates are fitted.
fn start(args: &Args, samples: &[Sample<'_>]) -> DeviceProfile {
    let rates = |precision| {
        let fastest = samples
            .iter()
            .filter(|sample| sample.precision == precision);
        let rate = fastest
            .map(|it| it.work.macs() as f64 / it.seconds * 1e-9)
            .fold(0.1, f64::max);
        Rates {
            // Our kernels have no such way.
            winograd: None,
            conv: figure(rate, "fit"),
            depthwise: figure(0.3 * rate, "fit"),
            dense: figure(rate, "fit"),
            setup: Some(figure(8.0, "fit")),
            gather: Some(figure(4.0, "fit")),
            elementwise: Some(figure(4.0, "fit")),
        }
    };
    let memory = total_memory().map_or_else(
        || figure(4000.0, "guess: the system does not tell"),
        |megabytes| figure(megabytes, "bench: /proc/meminfo"),
    );
    let source = |kind, text: &str| Source {
        kind,
        text: text.to_owned(),
    };
    DeviceProfile {
        name: args.name.clone(),
        title: format!("Measured by `fledgling device bench`, one thread, {} kernels", fl_edge::kernel::name()),
        class: Class::Host,
        year: 2026,
        sources: [
            ("bench", source(SourceKind::Measured, "measured on this machine")),
            ("fit", source(SourceKind::Fitted, "fitted to the times of twenty layers and of tiny-ic, mobilenet-v2, resnet-18 and leaf-femnist on this machine")),
            ("guess", source(SourceKind::Assumed, "not measured; correct it by hand where it matters")),
        ]
        .map(|(key, source)| (key.to_owned(), source))
        .into(),
        memory: Memory { total: memory, usable: figure(0.5, "guess") },
        thermal: Thermal {
            ambient: figure(25.0, "guess"),
            resistance: figure(1.0, "guess: it does not throttle"),
            capacity: figure(200.0, "guess"),
            idle: figure(5.0, "guess"),
            steps: Vec::new(),
        },
        jitter: Jitter {
            sigma: figure(0.0, "bench"),
            stall_probability: figure(0.0, "guess"),
            stall_factor: figure(1.0, "guess"),
        },
        cpu: Delegate {
            threads: 1,
            // The panels that weights are packed in.
            lanes: 16,
            trains: true,
            sparse_2_4: false,
            half_floats: HalfFloats::Storage,
            operators: None,
            one_thread: None,
            emulation: None,
            bandwidth: figure(20.0, "fit"),
            cache: cache(),
            launch: figure(2.0, "fit"),
            start_up: figure(1.0, "guess"),
            power: figure(10.0, "guess"),
            transfer: None,
            transfer_launch: None,
            f32: Some(rates(Precision::F32)),
            f16: None,
            int8: Some(rates(Precision::Int8)),
            int4: None,
        },
        gpu: None,
        npu: None,
    }
}

/// The cache of one core, where the system tells its size.
fn cache() -> Option<Cache> {
    let file = "/sys/devices/system/cpu/cpu0/cache/index2/size";
    let text = std::fs::read_to_string(file).ok()?;
    let kib: f64 = text.trim().strip_suffix('K')?.parse().ok()?;
    Some(Cache {
        size: figure(kib * 1.024e-3, "bench: /sys/devices/system/cpu"),
        bandwidth: figure(60.0, "fit"),
    })
}

/// 10^6 bytes.
fn total_memory() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some((kib * 1.024e-3).round())
}
