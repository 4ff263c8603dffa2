//! What pruning does to the time of inference, beside what the cost model says.
//!
//! `cargo bench -p fl-edge --features profiles --bench pruned [-- PART_OF_A_NAME]`. Each network is
//! served in `f32` at batch 1 as it is (`dense`), with 30 % of its filters removed, with those
//! that stay rounded up to multiples of 16 (`/16`), and with 80 % of its weights at zero. The four run
//! in turns; the figures are medians over all turns. One thread. The single layers are followed only
//! by a mean over positions and ten outputs. The model's ratio is that of the profile `laptop-m1`, for one
//! thread.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and prints its table"
)]

use std::sync::Arc;
use std::time::Instant;

use fl_core::{ClientId, InputSpec, Mask, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::device::{Request, Sparsity, Threads, Work, catalogue, estimate};
use fl_edge::prune::{FilterShares, Filters, Scope, magnitude, prune_filters};
use fl_edge::{Inputs, Model, ModelDef, Numerics, Passes, Program, Runner};

const TURNS: usize = 41;
const PROFILE: &str = "laptop-m1";

struct Served {
    runner: Runner,
    input: Vec<f32>,
    output: Vec<f32>,
    calls: usize,
    times: Vec<f64>,
}

impl Served {
    fn new(model: Model, values: &[f32]) -> (Self, Arc<Model>) {
        let model = Arc::new(model);
        let program = Program::compile(&model, values, &Numerics::F32, Passes::ALL);
        let program = Arc::new(program.expect("the models of this bench are served"));
        let mut served = Self {
            input: (0..program.input_len())
                .map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5)
                .collect(),
            output: vec![0.0; program.output_len()],
            runner: Runner::new(program, 1),
            calls: 1,
            times: Vec::new(),
        };
        let once = served.time();
        served.calls = (1e-3 / once).clamp(1.0, 2000.0) as usize;
        (served, model)
    }

    fn time(&mut self) -> f64 {
        let start = Instant::now();
        for _ in 0..self.calls {
            self.runner.run(Inputs::Real(&self.input), &mut self.output);
        }
        start.elapsed().as_secs_f64() / self.calls as f64
    }

    fn median(&mut self) -> f64 {
        self.times.sort_by(f64::total_cmp);
        self.times[self.times.len() / 2]
    }
}

fn layer(
    side: usize,
    channels: usize,
    filters: usize,
    kernel: usize,
) -> (String, String, InputSpec, usize) {
    let name = format!("{side}x{side}x{channels} {kernel}x{kernel} -> {filters}");
    let text = format!(
        "[[layer]]\nkind = \"conv2d\"\nfilters = {filters}\nkernel = {kernel}\npadding = \"same\"\nactivation = \"relu\"\n\
         [[layer]]\nkind = \"global-avg-pool\"\n[[layer]]\nkind = \"dense\"\n"
    );
    (name, text, InputSpec::Real(vec![side, side, channels]), 10)
}

fn dense(inputs: usize, units: usize) -> (String, String, InputSpec, usize) {
    let text = format!(
        "[[layer]]\nkind = \"dense\"\nunits = {units}\nactivation = \"relu\"\n[[layer]]\nkind = \"dense\"\n"
    );
    (
        format!("dense {inputs} -> {units}"),
        text,
        InputSpec::Real(vec![inputs]),
        10,
    )
}

fn network(
    kind: &str,
    side: usize,
    channels: usize,
    classes: usize,
) -> (String, String, InputSpec, usize) {
    let shape = InputSpec::Real(vec![side, side, channels]);
    (
        format!("{kind} {side}"),
        format!("kind = \"{kind}\""),
        shape,
        classes,
    )
}

fn modelled(model: &Model, sparsity: Sparsity) -> f64 {
    let profile = catalogue::named(PROFILE).expect("in the catalogue");
    let profile = profile.expect("a good profile");
    let request = Request {
        threads: Threads::One,
        sparsity,
        ..Request::default()
    };
    let found = estimate(&profile, &Work::inference(model.graph()), &request);
    found.expect("a CPU has rates for f32").seconds
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    println!(
        "{:<28}{:>10} | {:>7}{:>8}{:>8} | {:>7}{:>8} | {:>8}{:>8}",
        "30 % of the filters",
        "dense us",
        "MACs",
        "time",
        "model",
        "MACs/16",
        "time",
        "zeros",
        "model"
    );
    let cases = [
        layer(28, 64, 64, 3),
        layer(28, 64, 128, 3),
        layer(14, 128, 128, 3),
        layer(14, 256, 256, 3),
        layer(14, 32, 64, 5),
        layer(14, 256, 256, 1),
        layer(28, 32, 32, 3),
        dense(3136, 512),
        dense(1024, 1024),
        network("cnn-fedavg", 28, 1, 10),
        network("resnet8-gn", 32, 3, 10),
        network("mobilenet-v2", 96, 3, 10),
    ];
    for (name, text, input, classes) in cases {
        if filter
            .as_ref()
            .is_some_and(|part| !name.contains(part.as_str()))
        {
            continue;
        }
        let def: ModelDef = toml::from_str(&text).expect("a definition");
        let build = || Model::new(&def, &input, TargetSpec::Class { classes }).expect("builds");
        let model = build();
        let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
        let values = model.init(&mut stream).values().to_vec();
        let smaller = |multiple| {
            let shares = FilterShares::Each(0.3);
            let filters = Filters { shares, multiple };
            let pruned = prune_filters(&model, &values, &filters).expect("has filters");
            Served::new(pruned.model, &pruned.values)
        };
        let none = Mask::none(values.len());
        let mask = magnitude(&model, &values, 0.8, Scope::Global, &none).expect("a good share");
        let mut zeros = values.clone();
        mask.apply(&mut zeros);
        let (mut all, models): (Vec<Served>, Vec<Arc<Model>>) = [
            Served::new(build(), &values),
            smaller(1),
            smaller(16),
            Served::new(build(), &zeros),
        ]
        .into_iter()
        .unzip();
        for _ in 0..TURNS {
            for served in &mut all {
                let time = served.time();
                served.times.push(time);
            }
        }
        let times: Vec<f64> = all.iter_mut().map(Served::median).collect();
        let dense = modelled(&models[0], Sparsity::Dense);
        let fell = |after: f64, before: f64| format!("{:+.1}%", 100.0 * (after / before - 1.0));
        let macs = |index: usize| models[index].macs_per_example() as f64;
        println!(
            "{name:<28}{:>10.1} | {:>7}{:>8}{:>8} | {:>7}{:>8} | {:>8}{:>8}",
            times[0] * 1e6,
            fell(macs(1), macs(0)),
            fell(times[1], times[0]),
            fell(modelled(&models[1], Sparsity::Dense), dense),
            fell(macs(2), macs(0)),
            fell(times[2], times[0]),
            fell(times[3], times[0]),
            fell(modelled(&models[3], Sparsity::Unstructured), dense),
        );
    }
}
