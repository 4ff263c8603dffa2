//! Rounds over the tiny doubles: what must hold of every run, whatever is trained.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{
    FEATURES, Journal, Tiny, TinyEngine, TinyPopulation, config, fit_one, play, play_config,
    population, simulation, uniform,
};
use fl_core::select::{PoissonConfig, SelectorConfig};
use fl_core::strategy::{FedAvgConfig, FedProxConfig, Stragglers, StrategyConfig, Weighting};
use fl_core::{ClientId, FitTask, Purpose, RoundId, Seed, Stream, WorkLimit};
use fl_sim::{
    CheckpointConfig, EvaluationConfig, FleetConfig, LocalDisk, PerClient, Population as _,
    RoundRecord, SimError, Simulation, SimulationConfig,
};
use proptest::prelude::*;

#[test]
fn any_number_of_threads_and_any_grouping_give_the_same_bytes() {
    let expected = play_config(config());
    for threads in [1, 2, 3, 7] {
        for lanes in [1, 3, 16] {
            let config = SimulationConfig {
                threads,
                ..config()
            };
            let engine = TinyEngine {
                lanes,
                ..TinyEngine::new()
            };
            let largest = Arc::clone(&engine.largest_group);
            let mut simulation =
                Tiny::with_parts(config, population(), engine, Arc::new(LocalDisk)).unwrap();
            assert_eq!(simulation.threads(), threads);
            let journal = play(&mut simulation);
            assert_eq!((simulation.parameters().digest(), journal), expected);
            if lanes == 1 || threads == 1 {
                assert_eq!(largest.load(Ordering::SeqCst) > 1, lanes > 1);
            }
        }
    }
}

#[test]
fn a_simulation_can_be_moved_to_another_thread() {
    fn movable<T: Send>() {}
    movable::<Simulation>();
    movable::<Tiny>();
}

#[test]
fn another_seed_gives_another_run() {
    let other = SimulationConfig {
        seed: Seed(12),
        ..config()
    };
    assert_ne!(play_config(config()).0, play_config(other).0);
}

#[test]
fn the_model_learns() {
    let (_, journal) = play_config(SimulationConfig {
        rounds: 30,
        ..config()
    });
    let first = &journal.evaluations[0];
    let last = journal.evaluations.last().unwrap();
    assert!(last.test_accuracy > Some(0.9), "{last:?}");
    assert!(last.test_loss < first.test_loss);
    assert!(last.train_loss < first.train_loss);
}

#[test]
fn fedprox_without_its_term_is_fedavg_with_partial_work() {
    let fleet = FleetConfig {
        stragglers: 0.5,
        dropout: 0.0,
    };
    let fedavg = SimulationConfig {
        fleet,
        strategy: StrategyConfig::FedAvg(FedAvgConfig {
            stragglers: Stragglers::Partial,
            ..FedAvgConfig::default()
        }),
        ..config()
    };
    let fedprox = |mu| SimulationConfig {
        fleet,
        strategy: StrategyConfig::FedProx(FedProxConfig::new(mu)),
        ..config()
    };
    let expected = play_config(fedavg);
    assert_eq!(play_config(fedprox(0.0)), expected);
    assert_ne!(play_config(fedprox(1.0)).0, expected.0);
}

#[test]
fn dropped_stragglers_are_not_in_the_sum_and_partial_ones_are() {
    let run = |stragglers| {
        play_config(SimulationConfig {
            fleet: FleetConfig {
                stragglers: 0.5,
                dropout: 0.0,
            },
            strategy: StrategyConfig::FedAvg(FedAvgConfig {
                stragglers,
                ..FedAvgConfig::default()
            }),
            ..config()
        })
    };
    let (dropped_digest, dropped) = run(Stragglers::Drop);
    let (partial_digest, partial) = run(Stragglers::Partial);
    assert_ne!(dropped_digest, partial_digest);
    let full = play_config(SimulationConfig {
        fleet: FleetConfig::default(),
        ..config()
    })
    .1;
    for ((dropped, partial), full) in dropped.rounds.iter().zip(&partial.rounds).zip(&full.rounds) {
        assert_eq!((dropped.cohort, dropped.stragglers), (12, 6));
        assert_eq!((partial.cohort, partial.stragglers), (12, 6));
        // At most one client of the population's 60 has no examples... and is never in the sum.
        assert_eq!(partial.reported + partial.dropped, 12);
        assert_eq!(partial.reported, full.reported);
        assert!(dropped.reported <= 6 && dropped.reported >= 5);
        assert_eq!(dropped.reported + dropped.dropped, 12);
        assert!(partial.examples_processed < full.examples_processed);
        assert_eq!(partial.examples, full.examples);
    }
}

/// One round, computed again in the plainest way.
#[test]
fn a_round_is_the_weighted_mean_of_its_clients_updates() {
    for weighting in [Weighting::Examples, Weighting::Uniform] {
        let config = SimulationConfig {
            rounds: 1,
            selection: uniform(60, 1.0),
            fleet: FleetConfig::default(),
            strategy: StrategyConfig::FedAvg(FedAvgConfig {
                weighting,
                ..FedAvgConfig::default()
            }),
            threads: 2,
            ..config()
        };
        let mut simulation = simulation(config.clone());
        let global = simulation.parameters().clone();
        let journal = play(&mut simulation);

        let population = population();
        let (mut sum, mut total, mut clients) = ([0.0f64; FEATURES + 1], 0.0, 0);
        let (mut loss, mut processed) = (0.0, 0);
        for client in (0..60).map(ClientId) {
            let examples = population.train_len(client);
            if examples == 0 {
                continue;
            }
            let mut scratch = Default::default();
            let data = population.train(client, &mut scratch);
            let mut update = [0.0f32; FEATURES + 1];
            let mut task = FitTask {
                client,
                round: RoundId(0),
                data: &data,
                plan: &config.local,
                limit: WorkLimit::Full,
                stream: Stream::at(Purpose::LocalTraining, config.seed, RoundId(0), client),
                update: &mut update,
            };
            let result = fit_one(global.values(), &mut task).unwrap();
            let weight = match weighting {
                Weighting::Examples => examples as f64,
                Weighting::Uniform => 1.0,
            };
            for (sum, update) in sum.iter_mut().zip(update) {
                *sum += weight * f64::from(update);
            }
            total += weight;
            clients += 1;
            loss += result.mean_loss * result.examples_processed as f64;
            processed += result.examples_processed;
        }
        for (i, (&after, &before)) in simulation
            .parameters()
            .values()
            .iter()
            .zip(global.values())
            .enumerate()
        {
            let expected = f64::from(before) + sum[i] / total;
            assert!(
                (f64::from(after) - expected).abs() <= 1e-7,
                "{after} {expected}"
            );
        }
        let record = &journal.rounds[0];
        assert_eq!(record.reported, clients);
        assert_eq!(record.examples_processed, processed);
        let train_loss = record.train_loss.unwrap();
        assert!((train_loss - loss / processed as f64).abs() < 1e-12);
        let norm = simulation
            .parameters()
            .values()
            .iter()
            .zip(global.values())
            .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!((record.update_norm - norm).abs() < 1e-12);
        let bytes = 4 * (FEATURES as u64 + 1);
        assert_eq!(record.bytes_down, clients * bytes);
        assert_eq!(record.bytes_up, clients * bytes);
        assert!((record.learning_rate - 0.1).abs() < 1e-7);
    }
}

#[test]
fn a_round_without_clients_changes_nothing_and_is_recorded() {
    let config = SimulationConfig {
        rounds: 200,
        selection: SelectorConfig::Poisson(PoissonConfig { rate: 0.02 }),
        fleet: FleetConfig::default(),
        evaluation: EvaluationConfig {
            every: 1,
            initial: true,
            train: false,
            per_client: PerClient::Never,
            max_clients: 1,
            ..EvaluationConfig::default()
        },
        ..config()
    };
    let (_, journal) = play_config(config);
    assert_eq!(journal.rounds.len(), 200);
    let empty: Vec<&RoundRecord> = journal.rounds.iter().filter(|r| r.cohort == 0).collect();
    // exp(-1.2) of 200 rounds are empty in the mean: 60, standard deviation 6.5.
    assert!((30..95).contains(&empty.len()), "{}", empty.len());
    for record in empty {
        assert_eq!((record.reported, record.examples, record.steps), (0, 0, 0));
        assert_eq!((record.train_loss, record.update_norm), (None, 0.0));
        let at = record.round as usize;
        let (before, after) = (&journal.evaluations[at], &journal.evaluations[at + 1]);
        assert_eq!(before.test_loss, after.test_loss);
    }
}

#[test]
fn a_cohort_that_vanishes_changes_nothing() {
    let (_, journal) = play_config(SimulationConfig {
        fleet: FleetConfig {
            stragglers: 0.0,
            dropout: 1.0,
        },
        ..config()
    });
    assert_eq!(journal.rounds.len(), 6);
    for record in &journal.rounds {
        assert_eq!(
            (record.cohort, record.dropped, record.reported),
            (12, 12, 0)
        );
        assert_eq!(record.update_norm.to_bits(), 0);
    }
}

#[test]
fn of_an_over_selected_cohort_the_first_reports_count() {
    let config = SimulationConfig {
        selection: uniform(10, 2.0),
        strategy: StrategyConfig::FedProx(FedProxConfig::new(0.0)),
        fleet: FleetConfig {
            stragglers: 0.5,
            dropout: 0.0,
        },
        threads: 2,
        ..config()
    };
    let (digest, journal) = play_config(config.clone());
    for record in &journal.rounds {
        assert_eq!((record.cohort, record.reported), (20, 10));
        assert_eq!(record.surplus + record.dropped, 10);
        assert_eq!(record.stragglers, 10);
    }
    // The prompt half came first, so that all did their whole work (but for the clients
    // without examples, whose places stragglers take).
    let whole = journal
        .rounds
        .iter()
        .filter(|r| r.examples_processed == 3 * r.examples);
    assert!(whole.count() >= 1);
    let one = SimulationConfig {
        threads: 1,
        ..config
    };
    assert_eq!(play_config(one), (digest, journal));
}

#[test]
fn a_client_that_diverges_is_rejected_and_counted_and_the_run_goes_on() {
    let mut population = population();
    population.diverging = Some(ClientId(3));
    let config = SimulationConfig {
        selection: uniform(60, 1.0),
        fleet: FleetConfig::default(),
        ..config()
    };
    let mut simulation = Tiny::with_parts(
        config.clone(),
        population,
        TinyEngine::new(),
        Arc::new(LocalDisk),
    )
    .unwrap();
    let journal = play(&mut simulation);
    for record in &journal.rounds {
        assert_eq!(record.rejected, 1);
        assert_eq!(record.reported + record.dropped, 59);
        assert!(record.train_loss.unwrap().is_finite());
    }
    assert!(
        simulation
            .parameters()
            .values()
            .iter()
            .all(|v| v.is_finite())
    );
}

#[test]
fn data_that_do_not_fit_the_model_stop_the_run_with_the_client() {
    for threads in [1, 3] {
        let mut population = population();
        population.poisoned = Some(ClientId(9));
        let config = SimulationConfig {
            selection: uniform(60, 1.0),
            fleet: FleetConfig::default(),
            threads,
            evaluation: EvaluationConfig {
                train: false,
                per_client: PerClient::Never,
                ..EvaluationConfig::default()
            },
            ..config()
        };
        let engine = TinyEngine::new();
        let mut simulation =
            Tiny::with_parts(config, population, engine, Arc::new(LocalDisk)).unwrap();
        let error = simulation
            .run(&mut Journal::default(), &AtomicBool::new(false))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "round 0, client 9: example 0 of client 9 has label 9 where the model has 2 classes"
        );
    }
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    type Change = fn(&mut SimulationConfig);
    let table: [(Change, &str); 8] = [
        (
            |c| c.rounds = 0,
            "rounds is 0, which is out of range; give a whole number of at least 1",
        ),
        (
            |c| c.evaluation.every = 0,
            "evaluation.every is 0, which is out of range; give a whole number of at least 1",
        ),
        (
            |c| c.evaluation.max_clients = 0,
            "evaluation.max_clients is 0, which is out of range; give a whole number of at least 1",
        ),
        (
            |c| {
                c.checkpoint = Some(CheckpointConfig {
                    dir: "nowhere".into(),
                    every: 0,
                });
            },
            "checkpoint.every is 0, which is out of range; give a whole number of at least 1",
        ),
        (
            |c| c.stop_at_accuracy = Some(97.0),
            "stop_at_accuracy is 97, which is out of range; give a share between 0 and 1",
        ),
        (
            |c| c.threads = 5000,
            "threads is 5000, which is out of range; give at most 4096, or 0 for one per core",
        ),
        (
            |c| c.strategy = StrategyConfig::FedProx(FedProxConfig::new(-1.0)),
            "strategy.`mu` is -1; expected a finite number of at least 0",
        ),
        (
            |c| c.selection = uniform(0, 1.0),
            "selection.`cohort` is 0; expected a whole number of at least 1 and at most 2^40",
        ),
    ];
    for (change, message) in table {
        let mut config = config();
        change(&mut config);
        let error = Tiny::with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk))
            .err()
            .unwrap();
        assert_eq!(error.to_string(), message);
    }
    let nobody = TinyPopulation::new(0, 1);
    let error = Tiny::with_parts(config(), nobody, TinyEngine::new(), Arc::new(LocalDisk)).err();
    assert!(matches!(error, Some(SimError::NoClients)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_client_of_a_cohort_is_accounted_for(
        seed in any::<u64>(),
        stragglers in 0.0f64..=1.0,
        dropout in 0.0f64..=1.0,
        cohort in 1u64..80,
        over_select in 1.0f64..3.0,
        partial in any::<bool>(),
        threads in 1usize..4,
    ) {
        let config = SimulationConfig {
            seed: Seed(seed),
            rounds: 3,
            selection: uniform(cohort, over_select),
            fleet: FleetConfig { stragglers, dropout },
            strategy: StrategyConfig::FedAvg(FedAvgConfig {
                stragglers: if partial { Stragglers::Partial } else { Stragglers::Drop },
                ..FedAvgConfig::default()
            }),
            threads,
            ..config()
        };
        let (_, journal) = play_config(config);
        for r in &journal.rounds {
            prop_assert_eq!(r.cohort, r.reported + r.dropped + r.surplus + r.rejected);
            prop_assert!(r.reported <= cohort);
            prop_assert_eq!(r.reported == 0, r.train_loss.is_none());
            prop_assert!(r.examples_processed <= 3 * r.examples);
            prop_assert!(r.examples_processed >= r.examples);
        }
    }
}
