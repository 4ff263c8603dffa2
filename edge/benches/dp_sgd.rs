//! A step of differentially private SGD beside one of SGD, one thread.
//!
//! `cargo bench -p fl-edge --bench dp_sgd [-- MODEL]`: batch 64, samples interleaved, medians and
//! minima. Noise is `GaussianNoise`; its own share is timed beside.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and prints it"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use fl_core::testing::reference::Blobs;
use fl_core::{ClientId, InputSpec, Optimizer, Purpose, RoundId, Seed, Stream, TargetSpec};
use fl_edge::kernel::Kernels;
use fl_edge::{Clipping, DpSgd, GaussianNoise, Model, ModelDef, Session, Step};

const BATCH: usize = 64;
const TARGET: TargetSpec = TargetSpec::Class { classes: 10 };

fn stream(client: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(client))
}

fn microseconds(f: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64() * 1e6
}

/// Median and minimum.
fn middle(times: &mut [f64]) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[0]]
}

/// Models whose step is short are timed more often.
fn compare(name: &str, text: &str, shape: &[usize], shortly: bool) {
    let def = toml::from_str::<ModelDef>(text).expect("a model");
    let input = InputSpec::Real(shape.to_vec());
    let model = Arc::new(Model::new(&def, &input, TARGET).expect("a model"));
    let data = Blobs::uniform(0, BATCH, shape, 10);
    let rows: Vec<u32> = (0..BATCH as u32).collect();
    let global = model.init(&mut stream(2));
    let step = Step {
        optimizer: Optimizer::SGD,
        rate: 1e-4,
        number: 0,
        max_norm: None,
        proximal_mu: 0.0,
        anchor: global.values(),
    };
    let session = || {
        let mut session = Session::new(Arc::clone(&model), Kernels::best());
        session.start(global.values(), &Optimizer::SGD, BATCH);
        session
    };
    let mut plain = session();
    let mut masks = stream(3);
    let mut sgd = || {
        plain
            .step(&data, &rows, &step, &mut masks)
            .expect("examples of the model");
    };
    let private = |clipping, noise_multiplier: f64| {
        let dp = DpSgd::new(clipping, 0.5, noise_multiplier, BATCH as f64).expect("in range");
        let (mut session, mut masks) = (session(), stream(3));
        let mut noise = GaussianNoise::new(&mut stream(4));
        let (data, rows, step) = (&data, &rows, &step);
        move || {
            session
                .private_step(data, rows, &dp, step, &mut masks, &mut |scale, values| {
                    noise.add(scale, values);
                })
                .expect("examples of the model");
        }
    };
    let mut without = private(Clipping::Flat, 0.0);
    let mut flat = private(Clipping::Flat, 1.0);
    let mut layers = private(Clipping::PerLayer, 1.0);
    let mut noise = GaussianNoise::new(&mut stream(4));
    let mut sum = vec![0.0f32; 16_384];
    let mut noise_alone = || {
        let mut rest = model.parameters();
        while rest > 0 {
            let block = rest.min(sum.len());
            noise.add(1e-3, &mut sum[..block]);
            rest -= block;
        }
        black_box(&sum);
    };
    let mut works: [&mut dyn FnMut(); 5] = [
        &mut sgd,
        &mut without,
        &mut flat,
        &mut layers,
        &mut noise_alone,
    ];
    let mut times = [const { Vec::new() }; 5];
    let samples = if shortly { 401 } else { 41 };
    for sample in 0..=samples {
        for (work, times) in works.iter_mut().zip(&mut times) {
            let time = microseconds(*work);
            if sample > 0 {
                times.push(time);
            }
        }
    }
    let [sgd, without, flat, layers, noise] = times.each_mut().map(|times| middle(times));
    println!(
        "{name:<30}{:>10.0}{:>10.0}{:>10.0}{:>8.2}{:>8.2}{:>12.2}{:>12.2}{:>10.0}{:>9.2}",
        sgd[1],
        flat[1],
        flat[0],
        flat[0] / sgd[0],
        flat[1] / sgd[1],
        without[1] / sgd[1],
        layers[1] / sgd[1],
        noise[1],
        noise[1] * 1e3 / model.parameters() as f64,
    );
}

fn main() {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    println!(
        "kernels: {}\n\n{:<30}{:>10}{:>10}{:>10}{:>8}{:>8}{:>12}{:>12}{:>10}{:>9}",
        fl_edge::kernel::name(),
        "us, batch 64",
        "SGD best",
        "DP best",
        "DP median",
        "median",
        "best",
        "no noise",
        "per layer",
        "noise",
        "ns each",
    );
    for (name, text, shape) in [
        ("logreg", "kind = \"logreg\"", [28, 28, 1]),
        ("mlp-2nn", "kind = \"mlp-2nn\"", [28, 28, 1]),
        ("cnn-fedavg", "kind = \"cnn-fedavg\"", [28, 28, 1]),
        ("cnn-pfl", "kind = \"cnn-pfl\"", [32, 32, 3]),
        ("resnet8-gn", "kind = \"resnet8-gn\"", [32, 32, 3]),
        (
            "mobilenet-v2, width 0.25, gn",
            "kind = \"mobilenet-v2\"\nwidth = 0.25\nstem-stride = 1\nnorm = \"group\"",
            [28, 28, 1],
        ),
    ] {
        if wanted
            .as_ref()
            .is_none_or(|wanted| name.starts_with(wanted.as_str()))
        {
            compare(
                name,
                text,
                &shape,
                !text.contains("net") && !text.contains("cnn"),
            );
        }
    }
}
