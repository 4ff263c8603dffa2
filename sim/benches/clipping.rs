//! What bounding a client's update costs beside training it, one thread.
//!
//! `cargo bench -p fl-sim --bench clipping`: clients of 600 examples, one local epoch in batches of
//! 10 (more epochs make the share smaller), samples interleaved, medians.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and prints it"
)]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use fl_core::{
    BatchSize, ClientId, Examples, FitTask, InputSpec, InputsMut, LearningRate, LocalPlan,
    LocalResult, LocalWork, Optimizer, Precision, Purpose, RoundId, Seed, Stream, TargetSpec,
    TargetsMut, Trainer as _, WorkLimit,
};
use fl_edge::{EdgeTrainer, Model, ModelDef};
use fl_privacy::clip::{AutomaticClip, Clipper, FlatClip, PerLayerClip};

const EXAMPLES: usize = 600;
const TARGET: TargetSpec = TargetSpec::Class { classes: 10 };

/// Random images in memory.
struct Data {
    input: InputSpec,
    rows: Vec<f32>,
    labels: Vec<u32>,
}

impl Examples for Data {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        TARGET
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let len = self.input.len();
        if let InputsMut::Real(inputs) = inputs {
            for (to, &row) in inputs.chunks_exact_mut(len).zip(rows) {
                to.copy_from_slice(&self.rows[row as usize * len..][..len]);
            }
        }
        if let TargetsMut::Classes(labels) = targets {
            for (to, &row) in labels.iter_mut().zip(rows) {
                *to = self.labels[row as usize];
            }
        }
    }
}

fn stream(client: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(client))
}

fn microseconds(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64() * 1e6
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn compare(name: &str, shape: &[usize], samples: usize) {
    let input = InputSpec::Real(shape.to_vec());
    let def = ModelDef::named(name).expect("of the zoo");
    let model = Arc::new(Model::new(&def, &input, TARGET).expect("builds"));
    let mut random = stream(0);
    let data = Data {
        rows: (0..EXAMPLES * input.len())
            .map(|_| random.uniform() as f32)
            .collect(),
        labels: (0..EXAMPLES).map(|_| random.below(10) as u32).collect(),
        input,
    };
    let global = model.init(&mut stream(2));
    let plan = LocalPlan {
        work: LocalWork::Epochs(NonZeroU32::MIN),
        batch: BatchSize::Examples(NonZeroU32::new(10).expect("not zero")),
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.05),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
    };
    let mut trainer = EdgeTrainer::new(Arc::clone(&model));
    let mut update = vec![0.0; model.parameters()];
    let mut clipped = update.clone();
    let norm = 1e-3;
    let clippers: [Box<dyn Clipper>; 3] = [
        Box::new(FlatClip::new(norm).expect("in range")),
        Box::new(PerLayerClip::uniform(model.layout(), norm).expect("in range")),
        Box::new(AutomaticClip::new(norm, 0.01).expect("in range")),
    ];
    let mut times: [Vec<f64>; 4] = Default::default();
    for sample in 0..=samples {
        let mut found = [0.0; 4];
        found[0] = microseconds(|| {
            let mut tasks = [FitTask {
                client: ClientId(0),
                round: RoundId(0),
                data: &data,
                plan: &plan,
                limit: WorkLimit::Full,
                stream: stream(3),
                update: &mut update,
            }];
            let mut results = [LocalResult::default()];
            let fitted = trainer.fit(&global, &mut tasks, &mut results);
            fitted.expect("examples of the model");
        });
        for (clipper, found) in clippers.iter().zip(&mut found[1..]) {
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
    let [fit, flat, layers, automatic] = times.each_mut().map(|times| median(times));
    let share = |time: f64| 100.0 * time / fit;
    println!(
        "{name:<14}{:>12}{fit:>14.0}{flat:>10.1}{:>10.2}{:>8.2} %{:>10.2} %{:>10.2} %",
        model.parameters(),
        flat * 1e3 / model.parameters() as f64,
        share(flat),
        share(layers),
        share(automatic),
    );
}

fn main() {
    println!(
        "{:<14}{:>12}{:>14}{:>10}{:>10}{:>10}{:>12}{:>12}",
        "us, median",
        "parameters",
        "one epoch",
        "flat",
        "ns each",
        "flat",
        "per layer",
        "automatic"
    );
    compare("logreg", &[28, 28, 1], 201);
    compare("mlp-2nn", &[28, 28, 1], 101);
    compare("cnn-fedavg", &[28, 28, 1], 7);
    compare("cnn-pfl", &[32, 32, 3], 11);
    compare("resnet8-gn", &[32, 32, 3], 7);
}
