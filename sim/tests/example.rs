//! Clients that protect their single examples: what they do, what it costs, who stops when.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fl_core::select::{SelectorConfig, UniformConfig};
use fl_core::strategy::{FedAvgConfig, StrategyConfig};
use fl_core::testing::reference::SoftmaxTrainer;
use fl_core::{
    BatchSize, ClientId, ExampleOrder, ExamplePrivacy, FitTask, GroupMean, LearningRate, LocalPlan,
    LocalResult, LocalWork, Optimizer, Parameters, Precision, Purpose, RoundId, Seed, Stream,
    Trainer as _, WorkLimit,
};
use fl_datasets::{DataRoot, DatasetConfig, FederatedDataset};
use fl_edge::zoo::Logreg;
use fl_edge::{Model, ModelDef};
use fl_privacy::{
    AccountantKind, Delta, DpEvent, Epsilon, NeighboringRelation, NoiseMultiplier, accountant,
};
use fl_sim::{
    AggregationConfig, CheckpointConfig, CheckpointError, EvaluationConfig, ExampleLevelPrivacy,
    FleetConfig, Observer, Outcome, Privacy, PrivacyRecord, RobustMean, RoundRecord, SecAggConfig,
    SecAggMode, SimError, Simulation, SimulationConfig,
};

/// Thirty clients of very different sizes.
fn data() -> FederatedDataset {
    let config = DatasetConfig {
        alpha: Some(1.0),
        beta: Some(1.0),
        clients: Some(30),
        ..DatasetConfig::new("synthetic")
    };
    fl_datasets::load(&config, &DataRoot::new("not-needed"), Seed(1)).unwrap()
}

fn model(data: &FederatedDataset) -> Arc<Model> {
    let def = ModelDef::Logreg(Logreg::default());
    Arc::new(Model::new(&def, data.input(), data.target()).unwrap())
}

fn privacy(noise: f64, epsilon: Option<f64>) -> ExampleLevelPrivacy {
    ExampleLevelPrivacy {
        noise_multiplier: Some(NoiseMultiplier::new(noise).unwrap()),
        epsilon: epsilon.map(|epsilon| Epsilon::new(epsilon).unwrap()),
        ..ExampleLevelPrivacy::new(0.5, Epsilon::ZERO, Delta::new(1e-6).unwrap())
    }
}

fn config(privacy: ExampleLevelPrivacy, cohort: u64, batch: BatchSize) -> SimulationConfig {
    SimulationConfig {
        seed: Seed(3),
        rounds: 4,
        selection: SelectorConfig::Uniform(UniformConfig {
            cohort,
            over_select: 1.0,
        }),
        local: LocalPlan {
            work: LocalWork::Epochs(NonZeroU32::new(2).unwrap()),
            batch,
            order: ExampleOrder::Shuffled,
            optimizer: Optimizer::SGD,
            learning_rate: LearningRate::constant(0.02),
            max_gradient_norm: None,
            proximal_mu: 0.0,
            precision: Precision::F32,
            privacy: None,
        },
        strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
        fleet: FleetConfig::default(),
        devices: None,
        schedule: fl_sim::ScheduleConfig::default(),
        telemetry: fl_sim::TelemetryConfig::default(),
        evaluation: EvaluationConfig {
            every: 100,
            ..EvaluationConfig::default()
        },
        privacy: Some(Privacy::Example(privacy)),
        threads: 1,
        checkpoint: None,
        aggregation: AggregationConfig::default(),
        secagg: None,
        pruning: None,
        faults: None,
        stop_at_accuracy: None,
    }
}

fn batch(examples: u32) -> BatchSize {
    BatchSize::Examples(NonZeroU32::new(examples).unwrap())
}

#[derive(Default)]
struct Rounds {
    rounds: Vec<RoundRecord>,
    /// Raised after so many rounds.
    stop: Option<(usize, Arc<AtomicBool>)>,
}

impl Observer for Rounds {
    fn round(&mut self, record: &RoundRecord) {
        self.rounds.push(RoundRecord {
            seconds: 0.0,
            training_seconds: 0.0,
            ..record.clone()
        });
        if let Some((after, stop)) = &self.stop
            && self.rounds.len() >= *after
        {
            stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Rounds {
    fn privacy(&self, round: usize) -> &PrivacyRecord {
        self.rounds[round].privacy.as_ref().unwrap()
    }
}

fn run(config: &SimulationConfig) -> (Simulation, Outcome, Rounds) {
    let data = data();
    let model = model(&data);
    let mut simulation = Simulation::new(config.clone(), data, model).unwrap();
    let mut rounds = Rounds::default();
    let outcome = simulation.run(&mut rounds, &AtomicBool::new(false));
    (simulation, outcome.unwrap(), rounds)
}

fn same(found: f64, expected: f64) {
    assert_eq!(
        found.to_bits(),
        expected.to_bits(),
        "{found} and {expected}"
    );
}

/// What the accountant says of so many sampled steps, by itself.
fn epsilon(rate: f64, noise: f64, steps: u64) -> f64 {
    let event = DpEvent::gaussian(NoiseMultiplier::new(noise).unwrap());
    let event = DpEvent::poisson_sampled(rate, event).unwrap();
    let mut sum = accountant(AccountantKind::Pld, NeighboringRelation::AddOrRemoveOne);
    sum.compose(&event, steps).unwrap();
    sum.epsilon(Delta::new(1e-6).unwrap()).unwrap().upper.get()
}

/// Without noise it is clipped SGD on Poisson batches, and without a bound that gradients reach
/// ordinary SGD on them: a readable trainer, and a federation written out, give the same model.
#[test]
fn without_noise_a_naive_twin_computes_the_same() {
    for (max_norm, clips) in [(0.5, true), (1e9, false)] {
        let private = ExampleLevelPrivacy {
            max_norm,
            ..privacy(0.0, None)
        };
        let config = config(private, 30, batch(10));
        let (simulation, outcome, rounds) = run(&config);
        assert_eq!(outcome, Outcome::Finished);
        let data = data();
        let mut trainer = SoftmaxTrainer::new(60, 10);
        let model = model(&data);
        let mut init = Stream::at(Purpose::ModelInit, config.seed, RoundId(0), ClientId(0));
        let mut global = model.init(&mut init).values().to_vec();
        let plan = LocalPlan {
            privacy: Some(ExamplePrivacy::flat(max_norm, 0.0)),
            ..config.local
        };
        for round in (0..config.rounds).map(RoundId) {
            let start = Parameters::new(Arc::clone(trainer.layout()), global.clone()).unwrap();
            let mut sum = vec![0.0f64; global.len()];
            let mut weight = 0.0;
            let mut clipped = 0;
            for client in (0..data.clients()).map(ClientId) {
                let mut scratch = Default::default();
                let view = data.train(client, &mut scratch);
                let mut update = vec![0.0; global.len()];
                let mut task = [FitTask {
                    client,
                    round,
                    data: &view,
                    plan: &plan,
                    limit: WorkLimit::Full,
                    stream: Stream::at(Purpose::LocalTraining, config.seed, round, client),
                    update: &mut update,
                }];
                let mut result = [LocalResult::default()];
                trainer.fit(&start, &mut task, &mut result).unwrap();
                clipped += result[0].examples_clipped;
                let examples = data.train_len(client) as f64;
                weight += examples;
                for (sum, update) in sum.iter_mut().zip(update) {
                    *sum += examples * f64::from(update);
                }
            }
            for (value, sum) in global.iter_mut().zip(sum) {
                *value = (f64::from(*value) + sum / weight) as f32;
            }
            let record = rounds.privacy(round.0 as usize);
            assert_eq!(record.clipped > 0, clips);
            let off = record.clipped.abs_diff(clipped);
            assert!(
                off <= 2 + clipped / 1000,
                "{} and {clipped}",
                record.clipped
            );
            assert!(record.epsilon.is_infinite());
        }
        let moved = global
            .iter()
            .fold(0.0f32, |most, value| most.max(value.abs()));
        for (found, expected) in simulation.parameters().values().iter().zip(&global) {
            assert!(
                (found - expected).abs() < 1e-3 * moved,
                "{found} and {expected} of at most {moved}"
            );
        }
    }
}

#[test]
fn what_is_reported_is_what_the_accountant_says() {
    // All clients sample a tenth, ten steps a pass, two passes a round, four rounds.
    let (_, _, rounds) = run(&config(privacy(1.3, None), 30, BatchSize::Share(0.1)));
    for round in 0..4 {
        let record = rounds.privacy(round);
        let steps = 20 * (round as u64 + 1);
        same(record.epsilon, epsilon(0.1, 1.3, steps));
        same(record.epsilon_unamplified, record.epsilon);
        assert!(record.epsilon_lower > 0.9 * record.epsilon);
        same(record.noise_std, 1.3 * 0.5);
        assert!(rounds.rounds[round].steps == 30 * 20);
    }
    // By the largest cohort of a few, the one that was asked most decides.
    let (simulation, _, rounds) = run(&config(privacy(1.3, None), 5, BatchSize::Share(0.1)));
    let plan = simulation.privacy().unwrap().example().unwrap();
    let most = (0..30).map(|client| plan.participations(client)).max();
    let total: u64 = (0..30).map(|client| plan.participations(client)).sum();
    assert_eq!(total, 4 * 5);
    same(
        rounds.privacy(3).epsilon,
        epsilon(0.1, 1.3, 20 * most.unwrap()),
    );
    // Batches of one size: the smallest client costs most, and calibration keeps it below.
    let calibrated =
        ExampleLevelPrivacy::new(0.5, Epsilon::new(3.0).unwrap(), Delta::new(1e-6).unwrap());
    let (simulation, outcome, rounds) = run(&config(calibrated, 30, batch(10)));
    assert_eq!(outcome, Outcome::Finished);
    let noise = simulation.privacy().unwrap().example().unwrap();
    let noise = noise.noise_multiplier().get();
    let data = data();
    let worst = (0..30).map(|client| {
        let examples = data.train_len(ClientId(client)) as f64;
        let rate = (10.0 / examples).min(1.0);
        epsilon(rate, noise, 4 * 2 * ((1.0 / rate).round() as u64).max(1))
    });
    let worst = worst.fold(0.0, f64::max);
    same(rounds.privacy(3).epsilon, worst);
    assert!(worst <= 3.0 && worst > 2.99, "{worst}");
}

#[test]
fn the_same_bytes_on_any_number_of_threads_and_after_an_interruption() {
    let base = SimulationConfig {
        fleet: FleetConfig {
            stragglers: 0.3,
            dropout: 0.2,
        },
        ..config(privacy(1.0, None), 8, batch(10))
    };
    let (straight, _, journal) = run(&base);
    let digest = straight.parameters().digest();
    for threads in [2, 3] {
        let (other, _, found) = run(&SimulationConfig {
            threads,
            ..base.clone()
        });
        assert_eq!(found.rounds, journal.rounds);
        assert_eq!(other.parameters().digest(), digest);
    }
    let dir = tempfile::tempdir().unwrap();
    let checkpointed = SimulationConfig {
        checkpoint: Some(CheckpointConfig {
            dir: dir.path().to_owned(),
            every: 1,
        }),
        ..base
    };
    let stop = Arc::new(AtomicBool::new(false));
    let mut rounds = Rounds {
        stop: Some((2, Arc::clone(&stop))),
        ..Rounds::default()
    };
    let model = model(&data());
    let mut simulation = Simulation::new(checkpointed.clone(), data(), Arc::clone(&model)).unwrap();
    let outcome = simulation.run(&mut rounds, &stop).unwrap();
    assert_eq!(outcome, Outcome::Stopped { round: 2 });
    let mut resumed = Simulation::resume(checkpointed.clone(), data(), Arc::clone(&model))
        .unwrap()
        .unwrap();
    let mut rest = Rounds::default();
    resumed.run(&mut rest, &AtomicBool::new(false)).unwrap();
    assert_eq!(rest.rounds, journal.rounds[2..]);
    assert_eq!(resumed.parameters().digest(), digest);
    let taken = |simulation: &Simulation| -> Vec<u64> {
        let plan = simulation.privacy().unwrap().example().unwrap();
        (0..30).map(|client| plan.participations(client)).collect()
    };
    assert_eq!(taken(&resumed), taken(&straight));
    // Another norm is another run.
    let other = SimulationConfig {
        privacy: Some(Privacy::Example(ExampleLevelPrivacy {
            max_norm: 0.6,
            ..privacy(1.0, None)
        })),
        ..checkpointed
    };
    let error = Simulation::resume(other, data(), model).unwrap_err();
    assert!(
        matches!(error, SimError::Checkpoint(CheckpointError::Foreign { .. })),
        "{error}"
    );
    assert!(Path::new(dir.path()).exists());
}

/// Clients stop by themselves, those that a round costs most first, and the run with the last.
#[test]
fn a_budget_ends_with_the_last_client() {
    let base = config(privacy(2.5, Some(2.0)), 30, BatchSize::Share(0.1));
    let base = SimulationConfig { rounds: 50, ..base };
    let affordable = (1..50)
        .take_while(|round| epsilon(0.1, 2.5, 20 * round) <= 2.0)
        .count() as u64;
    assert!(affordable > 1 && affordable < 50, "{affordable}");
    let (simulation, outcome, rounds) = run(&base);
    assert_eq!(outcome, Outcome::BudgetSpent { round: affordable });
    assert_eq!(rounds.rounds.len() as u64, affordable);
    assert!(rounds.privacy(affordable as usize - 1).epsilon <= 2.0);
    let refusal = simulation.privacy().unwrap().refusal().unwrap().to_string();
    assert!(
        refusal.contains("would overspend the privacy budget"),
        "{refusal}"
    );
    assert!(
        simulation
            .parameters()
            .values()
            .iter()
            .all(|value| value.is_finite())
    );
    // At most two rounds each, by declaration: the noise is made for two, and all stop after two.
    let twice = ExampleLevelPrivacy {
        noise_multiplier: None,
        participations: Some(2),
        ..privacy(1.0, Some(2.0))
    };
    let twice = SimulationConfig {
        rounds: 9,
        ..config(twice, 30, BatchSize::Share(0.1))
    };
    let (simulation, outcome, rounds) = run(&twice);
    assert_eq!(outcome, Outcome::BudgetSpent { round: 2 });
    let noise = simulation.privacy().unwrap().example().unwrap();
    let spent = epsilon(0.1, noise.noise_multiplier().get(), 40);
    assert!(spent <= 2.0 && spent > 1.99, "{spent}");
    same(rounds.privacy(1).epsilon, spent);
    // With batches of one size small clients decline while large ones go on.
    let mixed = config(privacy(2.5, Some(4.0)), 30, batch(10));
    let (simulation, _, rounds) = run(&SimulationConfig {
        rounds: 12,
        ..mixed
    });
    let plan = simulation.privacy().unwrap().example().unwrap();
    let counts: Vec<u64> = (0..30).map(|client| plan.participations(client)).collect();
    let (least, most) = (counts.iter().min(), counts.iter().max());
    assert!(least < most, "{counts:?}");
    let last = rounds.rounds.last().unwrap();
    assert!(last.dropped > 0 && last.reported > 0, "{last:?}");
    assert!(rounds.privacy(rounds.rounds.len() - 1).epsilon <= 4.0);
}

#[test]
fn noise_without_a_ledger_is_refused() {
    let mut plain = config(privacy(1.0, None), 30, batch(10));
    plain.local.privacy = Some(ExamplePrivacy::flat(1.0, 1.0));
    let data = data();
    let model = model(&data);
    let error = Simulation::new(plain, data, model).unwrap_err().to_string();
    assert!(error.starts_with("local.privacy is given"), "{error}");
}

/// What clients send is private by itself: a robust mean of groups, masked or not, spends the same.
#[test]
fn a_robust_mean_of_private_updates_spends_the_same() {
    let plain = config(privacy(1.0, None), 30, batch(10));
    let robust = SimulationConfig {
        aggregation: AggregationConfig {
            robust: Some(RobustMean {
                groups: 10,
                mean: GroupMean::Median,
            }),
            ..AggregationConfig::default()
        },
        ..plain.clone()
    };
    let secure = SimulationConfig {
        secagg: Some(SecAggConfig {
            groups: Some(10),
            ..SecAggConfig::new(SecAggMode::Real)
        }),
        ..robust.clone()
    };
    let (mean, _, alone) = run(&plain);
    let (off, _, open) = run(&robust);
    let (real, _, masked) = run(&secure);
    assert_eq!(off.parameters().digest(), real.parameters().digest());
    assert_ne!(off.parameters().digest(), mean.parameters().digest());
    for round in 0..4 {
        let spent = alone.privacy(round);
        assert!(spent.epsilon > 0.0);
        assert_eq!(open.rounds[round].groups.unwrap().combined, 3);
        assert_eq!(
            open.privacy(round).epsilon.to_bits(),
            spent.epsilon.to_bits()
        );
        assert_eq!(open.privacy(round), masked.privacy(round));
    }
}
