//! The cost of a step of quantization-aware training over a step in 32-bit floats.
//!
//! `cargo bench -p fl-edge --bench qat`: whole steps of models of the zoo on the same batches,
//! interleaved; the median and the smallest of the samples, and the ratio of each.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and prints it"
)]

use std::sync::Arc;
use std::time::Instant;

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Optimizer, Purpose, RoundId, Seed, Stream,
    TargetSpec, TargetsMut,
};
use fl_edge::kernel::Kernels;
use fl_edge::qat::{QatForward, QatOptions};
use fl_edge::{Model, ModelDef, Session, Step};

/// Random examples in memory.
struct Data {
    input: InputSpec,
    rows: Vec<f32>,
}

const EXAMPLES: usize = 64;

impl Examples for Data {
    fn len(&self) -> usize {
        EXAMPLES
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        TargetSpec::Class { classes: 10 }
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
                *to = row % 10;
            }
        }
    }
}

fn stream(purpose: Purpose) -> Stream {
    Stream::at(purpose, Seed(1), RoundId(0), ClientId(0))
}

/// Seconds of so many steps on a warm session.
fn measure(session: &mut Session, data: &Data, batch: usize, steps: usize) -> f64 {
    let mut random = stream(Purpose::LocalTraining);
    let rows = (0..batch as u32).collect::<Vec<_>>();
    let start = Instant::now();
    for _ in 0..steps {
        let step = Step {
            optimizer: Optimizer::SGD,
            rate: 1e-3,
            number: 0,
            max_norm: None,
            proximal_mu: 0.0,
            anchor: &[],
        };
        session
            .step(data, &rows, &step, &mut random)
            .expect("labels are below ten");
    }
    start.elapsed().as_secs_f64() / steps as f64
}

fn main() {
    let cases = [
        ("logreg", vec![28, 28, 1], 10, 200, 15),
        ("mlp-2nn", vec![28, 28, 1], 10, 40, 15),
        ("cnn-fedavg", vec![28, 28, 1], 20, 2, 9),
        ("cnn-pfl", vec![32, 32, 3], 10, 2, 9),
        ("resnet8-gn", vec![32, 32, 3], 10, 1, 7),
        ("mobilenet-v2", vec![32, 32, 3], 8, 1, 5),
    ];
    println!("a step, milliseconds: median (smallest) of interleaved samples");
    println!(
        "{:<14}{:>6}{:>20}{:>20}{:>8}",
        "model", "batch", "f32", "qat-int8", "ratio"
    );
    for (kind, shape, batch, steps, samples) in cases {
        let def = ModelDef::named(kind).expect("a model of the zoo");
        let input = InputSpec::Real(shape);
        let target = TargetSpec::Class { classes: 10 };
        let build = || Model::new(&def, &input, target).expect("a model");
        let ranged = build().with_ranges(QatOptions::default());
        let ranged = Arc::new(ranged.expect("can be trained for quantization"));
        let mut uniform = stream(Purpose::Testing);
        let data = Data {
            rows: (0..EXAMPLES * input.len())
                .map(|_| uniform.uniform() as f32)
                .collect(),
            input: input.clone(),
        };
        let global = ranged.init(&mut stream(Purpose::ModelInit));
        let mut real = Session::new(Arc::new(build()), Kernels::best());
        let mut quantized =
            Session::quantization_aware(Arc::clone(&ranged), Kernels::best(), QatForward::Integer)
                .expect("with ranges");
        let own = real.weights().len();
        real.start(&global.values()[..own], &Optimizer::SGD, batch);
        quantized.start(global.values(), &Optimizer::SGD, batch);
        let (mut f32s, mut int8s) = (Vec::new(), Vec::new());
        for _ in 0..=samples {
            f32s.push(1e3 * measure(&mut real, &data, batch, steps));
            int8s.push(1e3 * measure(&mut quantized, &data, batch, steps));
        }
        // The first warms up.
        let summed = |times: &mut Vec<f64>| {
            times.remove(0);
            times.sort_by(f64::total_cmp);
            (times[times.len() / 2], times[0])
        };
        let (f32s, int8s) = (summed(&mut f32s), summed(&mut int8s));
        println!(
            "{kind:<14}{batch:>6}{:>11.3} ({:>6.3}){:>11.3} ({:>6.3}){:>8.2}",
            f32s.0,
            f32s.1,
            int8s.0,
            int8s.1,
            int8s.0 / f32s.0
        );
    }
}
