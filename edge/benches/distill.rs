//! The cost of a step with a teacher over a step without one.
//!
//! `cargo bench -p fl-edge --bench distill`: whole steps of a small network taught by a large one,
//! on the same batch, interleaved; the median and the smallest of the samples, and the ratio of the
//! smallest to that of a plain step.
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
use fl_edge::distill::{DistillOptions, Feature, Relation, Teacher};
use fl_edge::kernel::Kernels;
use fl_edge::layer::LayerDef;
use fl_edge::{LayersDef, Model, ModelDef, Numerics, Passes, Program, Session, Step};

/// Random examples in memory.
struct Data {
    input: InputSpec,
    rows: Vec<f32>,
}

const EXAMPLES: usize = 64;
const BATCH: usize = 20;
const STEPS: usize = 5;
const SAMPLES: usize = 15;

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

/// The networks of `experiments/distillation.toml`.
fn network(filters: [usize; 2], units: usize) -> Model {
    let layers = serde_json::json!([
        { "kind": "conv2d", "name": "conv1", "filters": filters[0], "kernel": 3, "activation": "relu" },
        { "kind": "max-pool", "size": 2 },
        { "kind": "conv2d", "name": "conv2", "filters": filters[1], "kernel": 3, "activation": "relu" },
        { "kind": "max-pool", "name": "maps", "size": 2 },
        { "kind": "flatten" },
        { "kind": "dense", "name": "fc1", "units": units, "activation": "relu" },
        { "kind": "dense", "name": "fc2" },
    ]);
    let layer: Vec<LayerDef> = serde_json::from_value(layers).expect("layers");
    let def = ModelDef::Layers(LayersDef { layer, loss: None });
    let input = InputSpec::Real(vec![28, 28, 1]);
    Model::new(&def, &input, TargetSpec::Class { classes: 10 }).expect("a model")
}

/// Milliseconds of a step on a warm session.
fn measure(session: &mut Session, data: &Data) -> f64 {
    let mut random = stream(Purpose::LocalTraining);
    let rows = (0..BATCH as u32).collect::<Vec<_>>();
    let start = Instant::now();
    for _ in 0..STEPS {
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
    1e3 * start.elapsed().as_secs_f64() / STEPS as f64
}

fn main() {
    let large = Arc::new(network([32, 64], 128));
    let parameters = large.init(&mut stream(Purpose::ModelInit));
    let real = Teacher::new(&large, parameters.values()).expect("a teacher");
    let numerics = Numerics::int8_plan(&large);
    let program = Program::compile(&large, parameters.values(), &numerics, Passes::ALL);
    let integers = Teacher::of_program(Arc::new(program.expect("compiles"))).expect("a teacher");
    let response = DistillOptions::default();
    let features = DistillOptions {
        features: vec![Feature {
            student: "maps".to_owned(),
            teacher: "maps".to_owned(),
            weight: 1.0,
        }],
        ..DistillOptions::default()
    };
    let relation = DistillOptions {
        relation: Some(Relation {
            student: None,
            teacher: None,
            distance: 25.0,
            angle: 50.0,
        }),
        ..DistillOptions::default()
    };
    let cases = [
        ("plain", None, false),
        ("response", Some((&real, &response)), false),
        ("response, answers kept", Some((&real, &response)), true),
        (
            "response, int8 teacher",
            Some((&integers, &response)),
            false,
        ),
        ("response and features", Some((&real, &features)), false),
        ("response and relation", Some((&real, &relation)), false),
    ];
    let mut uniform = stream(Purpose::Testing);
    let input = InputSpec::Real(vec![28, 28, 1]);
    let data = Data {
        rows: (0..EXAMPLES * input.len())
            .map(|_| uniform.uniform() as f32)
            .collect(),
        input,
    };
    let mut sessions: Vec<_> = cases
        .iter()
        .map(|(_, lesson, keep)| {
            let mut student = network([8, 16], 32);
            if let Some((teacher, options)) = lesson {
                let taught = student.with_teacher((*teacher).clone(), (*options).clone());
                student = taught.expect("fits");
            }
            let student = Arc::new(student);
            let global = student.init(&mut stream(Purpose::ModelInit));
            let mut session = Session::new(student, Kernels::best());
            session.start(global.values(), &Optimizer::SGD, BATCH);
            if *keep {
                session.keep_answers(EXAMPLES);
            }
            (session, Vec::new())
        })
        .collect();
    for _ in 0..=SAMPLES {
        for (session, times) in &mut sessions {
            times.push(measure(session, &data));
        }
    }
    println!("a step of {BATCH} examples, milliseconds: median (smallest) of interleaved samples");
    println!("{:<24}{:>20}{:>8}", "lesson", "step", "ratio");
    let mut plain = f64::NAN;
    for ((name, ..), (_, times)) in cases.iter().zip(&mut sessions) {
        // The first warms up.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        plain = if plain.is_nan() { times[0] } else { plain };
        let (median, smallest) = (times[times.len() / 2], times[0]);
        println!(
            "{name:<24}{median:>11.3} ({smallest:>6.3}){:>8.2}",
            smallest / plain
        );
    }
}
