//! Real data sets and the edge runtime under the simulator: the same bytes for any number of
//! threads and after an interruption, and models that learn.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fl_core::select::{SelectorConfig, UniformConfig};
use fl_core::strategy::{FedAvgConfig, FedProxConfig, StrategyConfig};
use fl_core::{
    BatchSize, ExampleOrder, LearningRate, LocalPlan, LocalWork, ModelDigest, Optimizer, Precision,
    Seed,
};
use fl_datasets::partition::{Iid, PartitionConfig};
use fl_datasets::{DataRoot, DatasetConfig, FederatedDataset};
use fl_edge::qat::QatOptions;
use fl_edge::quant::federated::Bins;
use fl_edge::quant::{Calibration, Granularity};
use fl_edge::zoo::{Logreg, Mlp2nn};
use fl_edge::{Model, ModelDef};
use fl_sim::{
    AggregationConfig, CalibrationConfig, CalibrationSource, CheckpointConfig, EvaluationConfig,
    EvaluationRecord, FleetConfig, Observer, Outcome, RoundRecord, Simulation, SimulationConfig,
};

fn synthetic() -> (FederatedDataset, ModelDef) {
    let config = DatasetConfig {
        alpha: Some(1.0),
        beta: Some(1.0),
        clients: Some(30),
        ..DatasetConfig::new("synthetic")
    };
    (load(&config), ModelDef::Logreg(Logreg::default()))
}

fn digits() -> (FederatedDataset, ModelDef) {
    let partition = PartitionConfig::Iid(Iid { clients: 20 });
    let config = DatasetConfig::new("digits").with_partition(partition);
    (load(&config), ModelDef::Mlp2nn(Mlp2nn::default()))
}

fn load(config: &DatasetConfig) -> FederatedDataset {
    fl_datasets::load(config, &DataRoot::new("not-needed"), Seed(1)).unwrap()
}

fn config(rounds: u64, epochs: u32, rate: f32) -> SimulationConfig {
    SimulationConfig {
        seed: Seed(1),
        rounds,
        selection: SelectorConfig::Uniform(UniformConfig {
            cohort: 10,
            over_select: 1.0,
        }),
        local: LocalPlan {
            work: LocalWork::Epochs(NonZeroU32::new(epochs).unwrap()),
            batch: BatchSize::Examples(NonZeroU32::new(10).unwrap()),
            order: ExampleOrder::Shuffled,
            optimizer: Optimizer::SGD,
            learning_rate: LearningRate::constant(rate),
            max_gradient_norm: None,
            proximal_mu: 0.0,
            precision: Precision::F32,
            privacy: None,
        },
        strategy: StrategyConfig::FedProx(FedProxConfig::new(0.1)),
        fleet: FleetConfig {
            stragglers: 0.5,
            dropout: 0.1,
        },
        devices: None,
        schedule: fl_sim::ScheduleConfig::default(),
        telemetry: fl_sim::TelemetryConfig::default(),
        evaluation: EvaluationConfig {
            every: 5,
            train: true,
            ..EvaluationConfig::default()
        },
        threads: 1,
        checkpoint: None,
        privacy: None,
        aggregation: AggregationConfig::default(),
        secagg: None,
        pruning: None,
        faults: None,
        stop_at_accuracy: None,
    }
}

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
        if let Some((round, flag)) = &self.stop
            && record.round + 1 == *round
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

fn model(data: &FederatedDataset, def: &ModelDef, precision: Precision) -> Arc<Model> {
    let model = Model::new(def, data.input(), data.target()).unwrap();
    Arc::new(match precision {
        Precision::QatInt8 => model.with_ranges(QatOptions::default()).unwrap(),
        _ => model,
    })
}

fn run(config: SimulationConfig, (data, def): (FederatedDataset, ModelDef)) -> (ModelDigest, Kept) {
    let model = model(&data, &def, config.local.precision);
    let mut simulation = Simulation::new(config, data, model).unwrap();
    let mut kept = Kept::default();
    let outcome = simulation.run(&mut kept, &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    (simulation.parameters().digest(), kept)
}

fn resumed(
    dir: &Path,
    config: &SimulationConfig,
    (data, def): (FederatedDataset, ModelDef),
) -> (ModelDigest, Kept) {
    let config = SimulationConfig {
        checkpoint: Some(CheckpointConfig {
            dir: dir.to_owned(),
            every: 3,
        }),
        ..config.clone()
    };
    let model = model(&data, &def, config.local.precision);
    let stop = Arc::new(AtomicBool::new(false));
    let mut kept = Kept {
        stop: Some((4, Arc::clone(&stop))),
        ..Kept::default()
    };
    let mut first = Simulation::new(config.clone(), data.clone(), Arc::clone(&model)).unwrap();
    let outcome = first.run(&mut kept, &stop).unwrap();
    assert_eq!(outcome, Outcome::Stopped { round: 4 });
    drop(first);
    let config = SimulationConfig {
        threads: 2,
        ..config
    };
    let mut second = Simulation::resume(config, data, model).unwrap().unwrap();
    assert_eq!(second.round(), 4);
    second.run(&mut kept, &AtomicBool::new(false)).unwrap();
    (second.parameters().digest(), kept)
}

#[test]
fn threads_and_interruptions_change_no_byte() {
    for (rounds, rate, parts) in [
        (12, 0.01, synthetic as fn() -> (FederatedDataset, ModelDef)),
        (6, 0.1, digits),
    ] {
        let config = config(rounds, 2, rate);
        let (digest, expected) = run(config.clone(), parts());
        for threads in [2, 3] {
            let config = SimulationConfig {
                threads,
                ..config.clone()
            };
            let (other, kept) = run(config, parts());
            assert_eq!(other, digest);
            assert_eq!(kept.rounds, expected.rounds);
            assert_eq!(kept.evaluations, expected.evaluations);
        }
        let dir = tempfile::tempdir().unwrap();
        let (other, kept) = resumed(dir.path(), &config, parts());
        assert_eq!(other, digest);
        assert_eq!(kept.rounds, expected.rounds);
        assert_eq!(kept.evaluations, expected.evaluations);
    }
}

#[test]
fn models_learn() {
    let fedavg = SimulationConfig {
        strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
        fleet: FleetConfig::default(),
        ..config(30, 5, 0.1)
    };
    let (_, kept) = run(fedavg, digits());
    let last = kept.evaluations.last().unwrap();
    assert!(last.test_accuracy > Some(0.9), "{last:?}");
    let (_, kept) = run(config(30, 5, 0.01), synthetic());
    let (first, last) = (&kept.evaluations[0], kept.evaluations.last().unwrap());
    assert!(last.train_loss < first.train_loss, "{first:?} {last:?}");
    assert!(last.test_accuracy > Some(0.5), "{last:?}");
}

/// Trained in 32-bit floating point or quantization-aware, the model that is served in integers is
/// about as good; and the integers are the same for any number of threads.
#[test]
fn models_learn_for_integers() {
    let asked = |precision, threads| {
        let config = config(20, 2, 0.1);
        SimulationConfig {
            strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
            fleet: FleetConfig::default(),
            local: LocalPlan {
                precision,
                ..config.local
            },
            evaluation: EvaluationConfig {
                int8: true,
                ..config.evaluation
            },
            threads,
            ..config
        }
    };
    let (_, real) = run(asked(Precision::F32, 1), digits());
    let (digest, quantized) = run(asked(Precision::QatInt8, 1), digits());
    let last = |kept: &Kept| {
        let last = kept.evaluations.last().unwrap();
        (
            last.test_accuracy.unwrap(),
            last.test_accuracy_int8.unwrap(),
        )
    };
    let ((best, calibrated), (_, trained)) = (last(&real), last(&quantized));
    assert!(best > 0.85, "{best}");
    for int8 in [calibrated, trained] {
        assert!((int8 - best).abs() < 0.03, "{best} {calibrated} {trained}");
    }
    let (other, kept) = run(asked(Precision::QatInt8, 2), digits());
    assert_eq!(other, digest);
    assert_eq!(kept.evaluations, quantized.evaluations);
}

/// Each int8 model but the first is offered as a patch of the one before, whatever interrupts the
/// run between the two.
#[test]
fn patches_between_evaluated_models_are_weighed() {
    for precision in [Precision::QatInt8, Precision::F32] {
        let config = config(12, 2, 0.1);
        let config = SimulationConfig {
            local: LocalPlan {
                precision,
                ..config.local
            },
            evaluation: EvaluationConfig {
                int8: true,
                patches: true,
                ..config.evaluation
            },
            ..config
        };
        let (digest, kept) = run(config.clone(), digits());
        let steps: Vec<_> = kept
            .evaluations
            .iter()
            .map(|row| (row.round, row.patch.map(|patch| patch.from_round)))
            .collect();
        assert_eq!(
            steps,
            [(0, None), (5, Some(0)), (10, Some(5)), (12, Some(10))]
        );
        let patches: Vec<_> = kept
            .evaluations
            .iter()
            .filter_map(|row| row.patch)
            .collect();
        // Two rounds move fewer weights by a step than five do; header and scales are sent anew.
        assert!(
            patches[2].patch_bytes < patches[0].patch_bytes,
            "{patches:?}"
        );
        assert!(patches.iter().all(|one| one.patch_bytes < one.file_bytes));
        // A weight of the network with its 55,210 parameters takes a byte.
        assert!(
            (55_210..70_000).contains(&patches[2].file_bytes),
            "{patches:?}"
        );

        let dir = tempfile::tempdir().unwrap();
        let (other, resumed) = resumed(dir.path(), &config, digits());
        assert_eq!(other, digest);
        assert_eq!(resumed.evaluations, kept.evaluations);
    }
    let (data, def) = digits();
    let model = Arc::new(Model::new(&def, data.input(), data.target()).unwrap());
    let mut alone = config(12, 2, 0.1);
    alone.evaluation.patches = true;
    let error = Simulation::new(alone, data, model).unwrap_err();
    assert!(
        error.to_string().contains("evaluation.patches is true"),
        "{error}"
    );
}

/// Clients that calibrate through the exact sum give a model that is about as good as one that was
/// calibrated in one place; threads change no number, nor does an interruption.
#[test]
fn clients_calibrate_for_integers() {
    let asked = |source, calibrator, threads| {
        let config = config(12, 2, 0.1);
        SimulationConfig {
            strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
            fleet: FleetConfig::default(),
            evaluation: EvaluationConfig {
                int8: true,
                calibration: CalibrationConfig {
                    source,
                    calibrator: Calibration::named(calibrator).unwrap(),
                    granularity: Granularity::Channel,
                },
                ..config.evaluation
            },
            threads,
            ..config
        }
    };
    let central = CalibrationSource::Central { samples: 256 };
    let federated = CalibrationSource::Federated {
        clients: 8,
        samples: 16,
        bins: Bins::default(),
    };
    let int8 = |kept: &Kept| kept.evaluations.last().unwrap().test_accuracy_int8.unwrap();
    for calibrator in ["min-max", "percentile"] {
        let (digest, one) = run(asked(central, calibrator, 1), digits());
        let config = asked(federated, calibrator, 1);
        let (same, many) = run(config.clone(), digits());
        assert_eq!(same, digest, "calibrating changes no model");
        assert!((int8(&one) - int8(&many)).abs() < 0.03, "{calibrator}");
        let losses = |kept: &Kept| {
            let losses = kept.evaluations.iter().map(|row| row.test_loss_int8);
            losses.collect::<Vec<_>>()
        };
        assert_ne!(losses(&one), losses(&many));
        let (_, threads) = run(asked(federated, calibrator, 3), digits());
        assert_eq!(threads.evaluations, many.evaluations);
        let dir = tempfile::tempdir().unwrap();
        let (_, kept) = resumed(dir.path(), &config, digits());
        assert_eq!(kept.evaluations, many.evaluations);
    }
    for (wrong, message) in [
        (
            asked(federated, "moving-average", 1),
            "evaluation.calibration: a moving average depends on an order",
        ),
        (
            asked(CalibrationSource::Central { samples: 0 }, "min-max", 1),
            "evaluation.calibration.samples is 0",
        ),
    ] {
        let (data, def) = digits();
        let model = Model::new(&def, data.input(), data.target()).unwrap();
        let error = Simulation::new(wrong, data, Arc::new(model)).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}
