//! A client trains the same bits alone and in any group.

use std::num::NonZeroU32;
use std::sync::Arc;

use fl_core::{
    BatchSize, ClientId, ExampleOrder, Examples, FitTask, InputSpec, InputsMut, LearningRate,
    LocalPlan, LocalResult, LocalWork, Optimizer, Precision, Purpose, RoundId, Schedule,
    ScheduleUnit, Seed, Stream, TargetSpec, TargetsMut, TrainError, Trainer as _, WorkLimit,
};
use fl_edge::kernel::Kernels;
use fl_edge::{EdgeTrainer, Model, ModelDef};

const FEATURES: usize = 13;
const CLASSES: usize = 5;

/// Random examples, some of whose numbers are zeros of either sign.
struct Data {
    input: InputSpec,
    rows: Vec<f32>,
    labels: Vec<u32>,
}

impl Data {
    fn new(client: u64, examples: usize) -> Self {
        let mut random = stream(Purpose::Testing, client);
        let rows = (0..examples * FEATURES)
            .map(|_| match random.below(6) {
                0 => 0.0,
                1 => -0.0,
                _ => random.normal() as f32,
            })
            .collect();
        Self {
            input: InputSpec::Real(vec![FEATURES]),
            rows,
            labels: (0..examples)
                .map(|_| random.below(CLASSES as u64) as u32)
                .collect(),
        }
    }
}

impl Examples for Data {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn target(&self) -> TargetSpec {
        TargetSpec::Class { classes: CLASSES }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        if let InputsMut::Real(inputs) = inputs {
            for (to, &row) in inputs.chunks_exact_mut(FEATURES).zip(rows) {
                to.copy_from_slice(&self.rows[row as usize * FEATURES..][..FEATURES]);
            }
        }
        if let TargetsMut::Classes(labels) = targets {
            for (to, &row) in labels.iter_mut().zip(rows) {
                *to = self.labels[row as usize];
            }
        }
    }
}

fn stream(purpose: Purpose, client: u64) -> Stream {
    Stream::at(purpose, Seed(3), RoundId(5), ClientId(client))
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

/// Clients of very different sizes: single examples, ragged and whole batches.
const SIZES: [usize; 21] = [
    1, 40, 7, 10, 23, 3, 64, 9, 20, 11, 1, 2, 30, 5, 17, 100, 8, 12, 31, 4, 19,
];

fn limit(client: usize) -> WorkLimit {
    match client % 4 {
        0 => WorkLimit::AtMost(count(1 + client as u32 % 3)),
        _ => WorkLimit::Full,
    }
}

/// Trains the clients in groups of `group` and gives updates and results.
fn train(
    model: &Arc<Model>,
    kernels: &'static Kernels,
    clients: &[Data],
    plan: &LocalPlan,
    group: usize,
) -> Vec<(Vec<u32>, LocalResult)> {
    let mut trainer = EdgeTrainer::with_kernels(Arc::clone(model), kernels);
    let global = model.init(&mut stream(Purpose::ModelInit, 0));
    let mut updates = vec![vec![f32::NAN; model.parameters()]; clients.len()];
    let mut results = vec![LocalResult::default(); clients.len()];
    let mut tasks: Vec<_> = clients
        .iter()
        .zip(&mut updates)
        .enumerate()
        .map(|(client, (data, update))| FitTask {
            client: ClientId(client as u64),
            round: RoundId(5),
            data,
            plan,
            limit: limit(client),
            stream: stream(Purpose::LocalTraining, client as u64),
            update,
        })
        .collect();
    for (tasks, results) in tasks.chunks_mut(group).zip(results.chunks_mut(group)) {
        trainer.fit(&global, tasks, results).expect("trains");
    }
    drop(tasks);
    updates
        .into_iter()
        .map(|update| update.iter().map(|u| u.to_bits()).collect())
        .zip(results)
        .collect()
}

fn model(definition: &str) -> Arc<Model> {
    let def: ModelDef = toml::from_str(definition).expect("a definition");
    let input = InputSpec::Real(vec![FEATURES]);
    let target = TargetSpec::Class { classes: CLASSES };
    Arc::new(Model::new(&def, &input, target).expect("a model"))
}

fn plans() -> Vec<LocalPlan> {
    let plain = LocalPlan {
        work: LocalWork::Epochs(count(2)),
        batch: BatchSize::Examples(count(10)),
        order: ExampleOrder::Shuffled,
        optimizer: Optimizer::SGD,
        learning_rate: LearningRate::constant(0.1),
        max_gradient_norm: None,
        proximal_mu: 0.0,
        precision: Precision::F32,
        privacy: None,
    };
    let step_schedule = LearningRate {
        base: 0.2,
        schedule: Schedule::InverseSqrt,
        unit: ScheduleUnit::Step,
    };
    vec![
        plain,
        LocalPlan {
            work: LocalWork::Steps(count(7)),
            learning_rate: step_schedule,
            proximal_mu: 0.3,
            ..plain
        },
        LocalPlan {
            batch: BatchSize::Full,
            optimizer: Optimizer::Sgd {
                momentum: 0.0,
                nesterov: false,
                weight_decay: 0.01,
            },
            ..plain
        },
        LocalPlan {
            order: ExampleOrder::Stored,
            ..plain
        },
        // Not for lanes: the group must still train as its members do alone.
        LocalPlan {
            max_gradient_norm: Some(0.5),
            ..plain
        },
    ]
}

const MODELS: [&str; 3] = [
    "kind = \"logreg\"",
    r#"
    [[layer]]
    kind = "dense"
    units = 9
    activation = "relu"
    [[layer]]
    kind = "dense"
    units = 6
    activation = "tanh"
    [[layer]]
    kind = "dense"
    "#,
    r#"
    [[layer]]
    kind = "dense"
    units = 17
    activation = "gelu"
    [[layer]]
    kind = "dense"
    "#,
];

#[test]
fn grouping_changes_no_bit() {
    let clients: Vec<_> = (0..).zip(SIZES).map(|(i, n)| Data::new(i, n)).collect();
    for definition in MODELS {
        let model = model(definition);
        for (number, plan) in plans().iter().enumerate() {
            let all = Kernels::all_available();
            let alone = train(&model, &all[0], &clients, plan, 1);
            assert!(alone.iter().all(|(_, result)| result.steps > 0));
            for kernels in all {
                for group in [2, 8, 9, 12, 15, 16, 21] {
                    let grouped = train(&model, kernels, &clients, plan, group);
                    for (client, (alone, grouped)) in alone.iter().zip(&grouped).enumerate() {
                        let what = format!(
                            "{definition}, plan {number}, {}, groups of {group}, client {client}",
                            kernels.name()
                        );
                        assert_eq!(alone.1, grouped.1, "{what}");
                        assert_eq!(alone.0, grouped.0, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_bad_label_names_its_client() {
    let mut clients: Vec<_> = (0..9).map(|client| Data::new(client, 20)).collect();
    clients[4].labels[13] = 5;
    let model = model(MODELS[0]);
    let mut trainer = EdgeTrainer::new(Arc::clone(&model));
    assert_eq!(trainer.lanes(), 16);
    let global = model.init(&mut stream(Purpose::ModelInit, 0));
    let mut updates = vec![vec![0.0; model.parameters()]; clients.len()];
    let mut results = vec![LocalResult::default(); clients.len()];
    let plan = plans()[0];
    let mut tasks: Vec<_> = clients
        .iter()
        .zip(&mut updates)
        .enumerate()
        .map(|(client, (data, update))| FitTask {
            client: ClientId(client as u64),
            round: RoundId(5),
            data,
            plan: &plan,
            limit: WorkLimit::Full,
            stream: stream(Purpose::LocalTraining, client as u64),
            update,
        })
        .collect();
    let error = trainer.fit(&global, &mut tasks, &mut results);
    assert_eq!(
        error,
        Err(TrainError::LabelOutOfRange {
            client: ClientId(4),
            row: 13,
            label: 5,
            classes: CLASSES,
        })
    );
}
