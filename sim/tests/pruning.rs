//! Pruning while a fleet trains: exact shares, weights that stay zero, and the same bytes on any
//! number of threads and after any interruption.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fl_core::select::{SelectorConfig, UniformConfig};
use fl_core::strategy::{FedAvgConfig, FedProxConfig, StrategyConfig};
use fl_core::{
    BatchSize, ClientId, Evaluation, ExampleOrder, Examples, FitTask, Layout, LearningRate,
    LocalPlan, LocalResult, LocalWork, Mask, Optimizer, Parameters, Precision, Purpose, RoundId,
    Seed, Stream, TrainError, Trainer,
};
use fl_datasets::partition::{Iid, PartitionConfig};
use fl_datasets::{DataRoot, DatasetConfig, FederatedDataset};
use fl_edge::distill::{DistillOptions, Feature, Teacher};
use fl_edge::prune::{GradualSchedule, Scope, prunable, prunable_values, sparsity};
use fl_edge::qat::QatOptions;
use fl_edge::{EdgeTrainer, Model, ModelDef};
use fl_privacy::plan::{ClientNoise, RingNoise};
use fl_privacy::{Delta, Epsilon, NoiseMultiplier};
use fl_sim::{
    AggregationConfig, CentralPrivacy, CheckpointConfig, ClientPrivacy, Engine, EvaluationConfig,
    EvaluationRecord, ExampleLevelPrivacy, FleetConfig, LocalDisk, Observer, Outcome, Privacy,
    Pruning, PruningConfig, RoundRecord, SecAggConfig, SecAggMode, SimError, Simulation,
    SimulationConfig,
};

const ROUNDS: u64 = 6;
/// Units of the layers.
const SMALL: [usize; 2] = [24, 16];

fn digits() -> FederatedDataset {
    let partition = PartitionConfig::Iid(Iid { clients: 20 });
    let config = DatasetConfig::new("digits").with_partition(partition);
    fl_datasets::load(&config, &DataRoot::new("not-needed"), Seed(1)).unwrap()
}

fn network(data: &FederatedDataset, hidden: [usize; 2]) -> Model {
    let def = format!(r#"{{"kind": "mlp-2nn", "hidden": {hidden:?}}}"#);
    let def: ModelDef = serde_json::from_str(&def).unwrap();
    Model::new(&def, data.input(), data.target()).unwrap()
}

fn model(data: &FederatedDataset, precision: Precision) -> Arc<Model> {
    let model = network(data, SMALL);
    Arc::new(match precision {
        Precision::QatInt8 => model.with_ranges(QatOptions::default()).unwrap(),
        _ => model,
    })
}

/// From nothing to 80 % before rounds 1, 2, 3 and 4.
fn gradual(scope: Scope) -> PruningConfig {
    PruningConfig::Magnitude {
        scope,
        schedule: GradualSchedule {
            initial: 0.0,
            sparsity: 0.8,
            start: 1,
            every: 1,
            steps: 3,
        },
    }
}

fn config() -> SimulationConfig {
    SimulationConfig {
        seed: Seed(1),
        rounds: ROUNDS,
        selection: SelectorConfig::Uniform(UniformConfig {
            cohort: 8,
            over_select: 1.0,
        }),
        local: LocalPlan {
            work: LocalWork::Epochs(NonZeroU32::new(2).unwrap()),
            batch: BatchSize::Examples(NonZeroU32::new(10).unwrap()),
            order: ExampleOrder::Shuffled,
            optimizer: Optimizer::SGD,
            learning_rate: LearningRate::constant(0.1),
            max_gradient_norm: None,
            proximal_mu: 0.0,
            precision: Precision::F32,
            privacy: None,
        },
        strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
        fleet: FleetConfig {
            stragglers: 0.2,
            dropout: 0.1,
        },
        devices: None,
        schedule: fl_sim::ScheduleConfig::default(),
        telemetry: fl_sim::TelemetryConfig::default(),
        faults: None,
        evaluation: EvaluationConfig {
            every: 2,
            ..EvaluationConfig::default()
        },
        threads: 1,
        checkpoint: None,
        privacy: None,
        aggregation: AggregationConfig::default(),
        secagg: None,
        pruning: Some(gradual(Scope::Global)),
        stop_at_accuracy: None,
    }
}

/// What was reported, and a flag that is raised after so many rounds.
#[derive(Default)]
struct Kept {
    rounds: Vec<RoundRecord>,
    evaluations: Vec<EvaluationRecord>,
    stop: Option<(u64, Arc<AtomicBool>)>,
}

impl Observer for Kept {
    fn round(&mut self, record: &RoundRecord) {
        self.rounds.push(RoundRecord {
            seconds: 0.0,
            training_seconds: 0.0,
            ..record.clone()
        });
        if let Some((rounds, flag)) = &self.stop
            && record.round + 1 == *rounds
        {
            flag.store(true, Ordering::SeqCst);
        }
    }
    fn evaluated(&mut self, record: &EvaluationRecord) {
        self.evaluations.push(EvaluationRecord {
            seconds: 0.0,
            ..record.clone()
        });
    }
}

struct Played {
    model: Arc<Model>,
    values: Vec<f32>,
    kept: Kept,
}

fn play(config: SimulationConfig) -> Played {
    let data = digits();
    let model = model(&data, config.local.precision);
    play_model(config, data, model)
}

fn play_model(config: SimulationConfig, data: FederatedDataset, model: Arc<Model>) -> Played {
    let mut simulation = Simulation::new(config, data, Arc::clone(&model)).unwrap();
    let mut kept = Kept::default();
    let outcome = simulation.run(&mut kept, &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    Played {
        values: simulation.parameters().values().to_vec(),
        model,
        kept,
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The zeros of the final model are those that the last round reported, and those are many.
fn assert_pruned(played: &Played) {
    let last = played.kept.rounds.last().unwrap().pruning.unwrap();
    let found = sparsity(&played.model, &played.values).unwrap();
    assert!((found - last.sparsity()).abs() < 1e-12, "{found}");
    assert!((found - 0.8).abs() < 0.01, "{found}");
}

/// In every round exactly as many weights as the schedule says, whoever trains them.
#[test]
fn every_round_has_the_share_that_it_should_have() {
    let momentum = StrategyConfig::FedAvg(FedAvgConfig {
        server_momentum: 0.9,
        server_learning_rate: 0.3,
        ..FedAvgConfig::default()
    });
    let prox = StrategyConfig::FedProx(FedProxConfig::new(0.1));
    let noisy = Privacy::Central(CentralPrivacy {
        noise_multiplier: Some(NoiseMultiplier::new(0.5).unwrap()),
        epsilon: None,
        ..CentralPrivacy::new(1.0, Epsilon::ZERO, Delta::new(1e-2).unwrap())
    });
    let adam = Optimizer::Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
    };
    let mut adaptive = config();
    adaptive.local.optimizer = adam;
    adaptive.local.learning_rate = LearningRate::constant(0.003);
    let mut qat = config();
    qat.local.precision = Precision::QatInt8;
    qat.evaluation.int8 = true;
    let uniform = StrategyConfig::FedAvg(FedAvgConfig {
        weighting: fl_core::strategy::Weighting::Uniform,
        ..FedAvgConfig::default()
    });
    let private = SimulationConfig {
        privacy: Some(noisy),
        fleet: FleetConfig::default(),
        strategy: uniform,
        ..config()
    };
    for config in [
        config(),
        SimulationConfig {
            strategy: momentum,
            ..config()
        },
        SimulationConfig {
            strategy: prox,
            ..config()
        },
        SimulationConfig {
            pruning: Some(gradual(Scope::Layer)),
            ..config()
        },
        adaptive,
        qat,
        private,
    ] {
        let Some(PruningConfig::Magnitude { schedule, scope }) = config.pruning else {
            unreachable!("pruned by magnitude")
        };
        let played = play(config);
        let weights = prunable_values(&played.model);
        for record in &played.kept.rounds {
            let found = record.pruning.unwrap();
            assert_eq!(found.weights, weights as u64);
            let share = schedule.reached(record.round);
            if scope == Scope::Global {
                let expected = (share * weights as f64).round() as u64;
                assert_eq!(found.pruned, expected, "round {}", record.round);
            }
            assert!((found.sparsity() - share).abs() < 0.01);
        }
        assert_eq!(played.kept.rounds.len() as u64, ROUNDS);
        // Training makes no zeros of its own, so those of the model are those of the mask.
        assert_pruned(&played);
    }
}

/// Masks of clients do not know of masks of weights: every mode gives the model of none.
#[test]
fn secure_aggregation_gives_the_same_pruned_model() {
    let everyone = |secagg| SimulationConfig {
        selection: SelectorConfig::Uniform(UniformConfig {
            cohort: 20,
            over_select: 1.0,
        }),
        fleet: FleetConfig {
            stragglers: 0.2,
            dropout: 0.05,
        },
        secagg,
        ..config()
    };
    let mode = |mode| {
        Some(SecAggConfig {
            corrupt: 0.05,
            ..SecAggConfig::new(mode)
        })
    };
    let plain = play(everyone(None));
    assert_pruned(&plain);
    for secagg in [SecAggMode::Real, SecAggMode::Ideal] {
        let found = play(everyone(mode(secagg)));
        let kept = |record: &RoundRecord| record.secagg.as_ref().unwrap().failed_stage.is_none();
        assert!(found.kept.rounds.iter().all(kept));
        assert_eq!(bits(&found.values), bits(&plain.values));
    }
}

/// What clients add for privacy, of themselves or of their examples, is no weight that was pruned.
#[test]
fn noise_of_clients_leaves_pruned_weights_at_zero() {
    let noise = NoiseMultiplier::new(0.6).unwrap();
    let delta = Delta::new(1e-3).unwrap();
    let ring = RingNoise {
        bits: Some(24),
        ..RingNoise::default()
    };
    let clients = |kind| {
        Privacy::Clients(ClientPrivacy {
            noise_multiplier: Some(noise),
            epsilon: None,
            least_survivors: 0.5,
            ..ClientPrivacy::new(kind, 0.3, Epsilon::ZERO, delta)
        })
    };
    let examples = Privacy::Example(ExampleLevelPrivacy {
        noise_multiplier: Some(noise),
        epsilon: None,
        ..ExampleLevelPrivacy::new(0.5, Epsilon::ZERO, Delta::new(1e-6).unwrap())
    });
    for privacy in [
        clients(ClientNoise::Local),
        clients(ClientNoise::Distributed(ring)),
        examples,
    ] {
        let uniform = StrategyConfig::FedAvg(FedAvgConfig {
            weighting: fl_core::strategy::Weighting::Uniform,
            ..FedAvgConfig::default()
        });
        assert_pruned(&play(SimulationConfig {
            privacy: Some(privacy),
            fleet: FleetConfig::default(),
            strategy: uniform,
            ..config()
        }));
    }
}

/// A student whose projection is no product of its own: that stays, and the student is pruned.
#[test]
fn a_pruned_student_is_taught() {
    let data = digits();
    let large = Arc::new(network(&data, [48, 32]));
    let mut stream = Stream::at(Purpose::ModelInit, Seed(5), RoundId(0), ClientId(0));
    let teacher = Teacher::new(&large, large.init(&mut stream).values()).unwrap();
    let names = |model: &Model| model.summary()[1].name.clone();
    let small = network(&data, SMALL);
    let feature = Feature {
        student: names(&small),
        teacher: names(&large),
        weight: 0.5,
    };
    let taught = |features| {
        let options = DistillOptions {
            features,
            ..DistillOptions::default()
        };
        let student = network(&data, SMALL).with_teacher(teacher.clone(), options);
        play_model(config(), digits(), Arc::new(student.unwrap()))
    };
    let (response, features) = (taught(Vec::new()), taught(vec![feature]));
    assert_pruned(&response);
    assert_pruned(&features);
    let projection = &features.values[small.parameters()..];
    assert!(projection.iter().filter(|&&value| value == 0.0).count() < projection.len() / 10);
    assert_ne!(
        bits(&response.values),
        bits(&features.values[..small.parameters()])
    );
}

/// The model learns with a fifth of its weights, and a model without pruning has none.
#[test]
fn a_pruned_model_learns() {
    let rounds = SimulationConfig {
        rounds: 20,
        ..config()
    };
    let pruned = play(rounds.clone());
    let last = pruned.kept.evaluations.last().unwrap();
    assert!(last.test_accuracy > Some(0.7), "{last:?}");
    let dense = play(SimulationConfig {
        pruning: None,
        faults: None,
        ..rounds
    });
    assert!(
        dense
            .kept
            .rounds
            .iter()
            .all(|record| record.pruning.is_none())
    );
    assert_eq!(sparsity(&dense.model, &dense.values), Ok(0.0));
    // Until the first pruning that takes something they are the same run.
    let losses = |played: &Played| -> Vec<Option<f64>> {
        played
            .kept
            .rounds
            .iter()
            .map(|record| record.train_loss)
            .collect()
    };
    assert_eq!(losses(&pruned)[..2], losses(&dense)[..2]);
    assert_ne!(losses(&pruned)[2], losses(&dense)[2]);
}

#[test]
fn two_of_each_four_stay() {
    let played = play(SimulationConfig {
        pruning: Some(PruningConfig::TwoOfFour { start: 2 }),
        ..config()
    });
    let pruned: Vec<u64> = (played.kept.rounds.iter())
        .map(|record| record.pruning.unwrap().pruned)
        .collect();
    // 64, 24 and 16 inputs are all multiples of four.
    let half = (prunable_values(&played.model) / 2) as u64;
    assert_eq!(pruned, [0, 0, half, half, half, half]);
    for id in prunable(played.model.graph()) {
        let tensor = &played.model.layout().tensors()[id];
        let values = &played.values[tensor.range()];
        let outputs = tensor.shape[1];
        for four in values.chunks(4 * outputs) {
            for output in 0..outputs {
                let column = four.iter().skip(output).step_by(outputs);
                assert_eq!(column.filter(|&&value| value == 0.0).count(), 2);
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let one = play(config());
    for threads in [2, 5] {
        let many = play(SimulationConfig {
            threads,
            ..config()
        });
        assert_eq!(bits(&many.values), bits(&one.values));
        assert_eq!(many.kept.rounds, one.kept.rounds);
        assert_eq!(many.kept.evaluations, one.kept.evaluations);
    }
}

fn checkpointed(dir: &Path, config: SimulationConfig) -> SimulationConfig {
    SimulationConfig {
        checkpoint: Some(CheckpointConfig {
            dir: dir.join("checkpoint"),
            every: 100,
        }),
        ..config
    }
}

/// Stopped after any round and resumed, with another number of threads.
#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    let momentum = StrategyConfig::FedAvg(FedAvgConfig {
        server_momentum: 0.9,
        server_learning_rate: 0.3,
        ..FedAvgConfig::default()
    });
    let config = SimulationConfig {
        strategy: momentum,
        ..config()
    };
    let whole = play(config.clone());
    for rounds in 1..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let config = checkpointed(dir.path(), config.clone());
        let data = digits();
        let model = model(&data, Precision::F32);
        let flag = Arc::new(AtomicBool::new(false));
        let mut kept = Kept {
            stop: Some((rounds, Arc::clone(&flag))),
            ..Kept::default()
        };
        let mut first = Simulation::new(config.clone(), data.clone(), Arc::clone(&model)).unwrap();
        let outcome = first.run(&mut kept, &flag).unwrap();
        assert_eq!(outcome, Outcome::Stopped { round: rounds });
        drop(first);
        let resumed = SimulationConfig {
            threads: 2,
            ..config
        };
        let mut second = Simulation::resume(resumed, data, model).unwrap().unwrap();
        assert_eq!(second.round(), rounds);
        kept.stop = None;
        let outcome = second.run(&mut kept, &AtomicBool::new(false)).unwrap();
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(bits(second.parameters().values()), bits(&whole.values));
        assert_eq!(kept.rounds, whole.kept.rounds);
    }
}

/// A checkpoint of a run that prunes otherwise, or not at all, is refused.
#[test]
fn another_pruning_is_another_run() {
    let dir = tempfile::tempdir().unwrap();
    play(checkpointed(dir.path(), config()));
    let data = digits();
    let model = model(&data, Precision::F32);
    for pruning in [
        None,
        Some(gradual(Scope::Layer)),
        Some(PruningConfig::TwoOfFour { start: 1 }),
    ] {
        let other = checkpointed(
            dir.path(),
            SimulationConfig {
                pruning,
                ..config()
            },
        );
        let refused = Simulation::resume(other, data.clone(), Arc::clone(&model));
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("configuration"), "{message}");
    }
}

/// Raises a flag while the given client of the run trains.
struct Interrupted {
    model: Arc<Model>,
    left: Arc<AtomicUsize>,
    flag: Arc<AtomicBool>,
}

struct InterruptedTrainer {
    trainer: EdgeTrainer,
    left: Arc<AtomicUsize>,
    flag: Arc<AtomicBool>,
}

impl Trainer for InterruptedTrainer {
    fn layout(&self) -> &Arc<Layout> {
        self.trainer.layout()
    }
    fn fit(
        &mut self,
        global: &Parameters,
        tasks: &mut [FitTask<'_>],
        results: &mut [LocalResult],
    ) -> Result<(), TrainError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.flag.store(true, Ordering::SeqCst);
        }
        self.trainer.fit(global, tasks, results)
    }
    fn hold(&mut self, pruned: Option<&Arc<Mask>>) -> Result<(), TrainError> {
        self.trainer.hold(pruned)
    }
    fn evaluate(
        &mut self,
        parameters: &[f32],
        data: &dyn Examples,
        rows: core::ops::Range<usize>,
    ) -> Result<Evaluation, TrainError> {
        self.trainer.evaluate(parameters, data, rows)
    }
}

impl Engine for Interrupted {
    type Trainer = InterruptedTrainer;
    fn trainer(&self) -> InterruptedTrainer {
        InterruptedTrainer {
            trainer: self.model.trainer(),
            left: Arc::clone(&self.left),
            flag: Arc::clone(&self.flag),
        }
    }
    fn layout(&self) -> &Arc<Layout> {
        Engine::layout(&self.model)
    }
    fn init(&self, stream: &mut Stream) -> Parameters {
        Engine::init(&self.model, stream)
    }
    fn kernel(&self) -> String {
        self.model.kernel()
    }
    fn prunable(&self) -> usize {
        self.model.prunable()
    }
    fn prune(
        &self,
        parameters: &Parameters,
        pruning: &Pruning,
        before: &Mask,
    ) -> Result<Mask, TrainError> {
        Engine::prune(&self.model, parameters, pruning, before)
    }
}

/// A round that is given up takes its pruning back.
#[test]
fn a_round_that_is_interrupted_leaves_no_trace() {
    let whole = play(config());
    let data = digits();
    // The third round prunes from about half to 77 %; it ends at its second client.
    let trained: u64 = whole.kept.rounds[..2]
        .iter()
        .map(|it| it.cohort - it.dropped)
        .sum();
    let flag = Arc::new(AtomicBool::new(false));
    let engine = Interrupted {
        model: model(&data, Precision::F32),
        left: Arc::new(AtomicUsize::new(trained as usize + 2)),
        flag: Arc::clone(&flag),
    };
    let disk = Arc::new(LocalDisk);
    let mut simulation = Simulation::with_parts(config(), data, engine, disk).unwrap();
    let mut kept = Kept::default();
    let outcome = simulation.run(&mut kept, &flag).unwrap();
    assert_eq!(outcome, Outcome::Stopped { round: 2 });
    let two = play(SimulationConfig {
        rounds: 2,
        ..config()
    });
    assert_eq!(bits(simulation.parameters().values()), bits(&two.values));
    let outcome = simulation.run(&mut kept, &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    assert_eq!(bits(simulation.parameters().values()), bits(&whole.values));
    assert_eq!(kept.rounds, whole.kept.rounds);
}

#[test]
fn what_cannot_be_is_refused() {
    let data = digits();
    let model = model(&data, Precision::F32);
    let schedule = GradualSchedule {
        initial: 0.9,
        ..GradualSchedule::one_shot(0.5, 0)
    };
    let scope = Scope::Global;
    let pruning = Some(PruningConfig::Magnitude { scope, schedule });
    let config = SimulationConfig {
        pruning,
        ..config()
    };
    let refused = Simulation::new(config, data, model);
    let error = refused.unwrap_err();
    assert!(matches!(error, SimError::Pruning(_)));
    assert!(
        error
            .to_string()
            .starts_with("pruning: the schedule's initial is 0.9")
    );
}
