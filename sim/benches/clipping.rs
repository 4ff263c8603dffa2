//! What bounding a client's update costs beside training it, one thread.
//!
//! `cargo bench -p fl-sim --bench clipping`: clients of 600 examples, in batches of 10; one local
//! epoch, the least there is, and five, as in McMahan et al. 2017 and 2018. Samples interleaved,
//! medians and minima.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and prints it"
)]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use fl_core::testing::reference::Blobs;
use fl_core::{
    BatchSize, ClientId, ExampleOrder, FitTask, InputSpec, LearningRate, LocalPlan, LocalResult,
    LocalWork, Optimizer, Precision, Purpose, RoundId, Seed, Stream, TargetSpec, Trainer as _,
    WorkLimit,
};
use fl_edge::{EdgeTrainer, Model, ModelDef};
use fl_privacy::clip::{AutomaticClip, Clipper, FlatClip, PerLayerClip};

const EXAMPLES: usize = 600;
const EPOCHS: [u32; 2] = [1, 5];
const TARGET: TargetSpec = TargetSpec::Class { classes: 10 };

fn stream(client: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(client))
}

fn microseconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64() * 1e6
}

/// Median and minimum.
fn middle(times: &mut [f64]) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[0]]
}

fn compare(name: &str, shape: &[usize], samples: usize) {
    let input = InputSpec::Real(shape.to_vec());
    let def = ModelDef::named(name).expect("of the zoo");
    let model = Arc::new(Model::new(&def, &input, TARGET).expect("builds"));
    let data = Blobs::uniform(0, EXAMPLES, shape, 10);
    let global = model.init(&mut stream(2));
    let plans = EPOCHS.map(|epochs| LocalPlan {
        work: LocalWork::Epochs(NonZeroU32::new(epochs).expect("not zero")),
        batch: BatchSize::Examples(NonZeroU32::new(10).expect("not zero")),
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.05),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
    });
    let mut trainer = EdgeTrainer::new(Arc::clone(&model));
    let mut update = vec![0.0; model.parameters()];
    let mut clipped = update.clone();
    let norm = 1e-3;
    let clippers: [Box<dyn Clipper>; 3] = [
        Box::new(FlatClip::new(norm).expect("in range")),
        Box::new(PerLayerClip::uniform(model.layout(), norm).expect("in range")),
        Box::new(AutomaticClip::new(norm, 0.01).expect("in range")),
    ];
    let mut times: [Vec<f64>; 5] = Default::default();
    for sample in 0..=samples {
        let mut found = [0.0; 5];
        for (plan, found) in plans.iter().zip(&mut found) {
            *found = microseconds(|| {
                let mut tasks = [FitTask {
                    client: ClientId(0),
                    round: RoundId(0),
                    data: &data,
                    plan,
                    limit: WorkLimit::Full,
                    stream: stream(3),
                    update: &mut update,
                }];
                let mut results = [LocalResult::default()];
                let fitted = trainer.fit(&global, &mut tasks, &mut results);
                fitted.expect("examples of the model");
            });
        }
        for (clipper, found) in clippers.iter().zip(&mut found[EPOCHS.len()..]) {
            clipped.copy_from_slice(&update);
            *found = microseconds(|| {
                clipper.clip(&mut clipped);
            });
        }
        // The first sample warms the caches.
        if sample > 0 {
            for (times, found) in times.iter_mut().zip(found) {
                times.push(found);
            }
        }
    }
    let [one, five, flat, layers, automatic] = times.each_mut().map(|times| middle(times));
    println!(
        "{name:<12}{:>11}{:>10.1}{:>9.2}",
        model.parameters(),
        flat[0],
        flat[1] * 1e3 / model.parameters() as f64,
    );
    for (epochs, fit) in EPOCHS.into_iter().zip([one, five]) {
        let share = |time: [f64; 2]| {
            let [median, best] = [0, 1].map(|at| 100.0 * time[at] / fit[at]);
            format!("{median:.2} ({best:.2}) %")
        };
        println!(
            "  epochs {epochs:<3}{:>21.0} us{:>17}{:>17}{:>17}",
            fit[0],
            share(flat),
            share(layers),
            share(automatic),
        );
    }
}

fn main() {
    println!(
        "{:<12}{:>11}{:>10}{:>9}\n{:<12}{:>24}{:>17}{:>17}{:>17}",
        "",
        "parameters",
        "flat, us",
        "ns/value",
        "",
        "training",
        "flat (best)",
        "per layer",
        "automatic"
    );
    compare("logreg", &[28, 28, 1], 101);
    compare("mlp-2nn", &[28, 28, 1], 41);
    compare("cnn-fedavg", &[28, 28, 1], 3);
    compare("cnn-pfl", &[32, 32, 3], 5);
    compare("resnet8-gn", &[32, 32, 3], 3);
}
