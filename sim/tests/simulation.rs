//! Runs over the tiny doubles: what must hold of every run, whatever is trained.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{FEATURES, Journal, TinyEngine, TinyPopulation, fit_one, plan};
use fl_core::select::{PoissonConfig, SelectorConfig, UniformConfig};
use fl_core::strategy::{FedAvgConfig, FedProxConfig, Stragglers, StrategyConfig, Weighting};
use fl_core::{
    ClientId, FitTask, ModelDigest, Purpose, RoundId, Seed, Stream, Trainer as _, WorkLimit,
};
use fl_sim::{
    CheckpointConfig, ClientSplit, Engine as _, EvaluationConfig, FleetConfig, LocalDisk, Observer,
    Outcome, PerClient, Population as _, RecorderPosition, RoundRecord, SimError, Simulation,
    SimulationConfig,
};
use proptest::prelude::*;

type Tiny = Simulation<TinyPopulation, TinyEngine>;

fn config() -> SimulationConfig {
    SimulationConfig {
        seed: Seed(11),
        rounds: 6,
        selection: uniform(12, 1.0),
        local: plan(3, 8),
        strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
        fleet: FleetConfig {
            stragglers: 0.25,
            dropout: 0.1,
        },
        evaluation: EvaluationConfig {
            every: 2,
            train: true,
            per_client: PerClient::Last,
            ..EvaluationConfig::default()
        },
        threads: 1,
        checkpoint: None,
        stop_at_accuracy: None,
    }
}

fn uniform(cohort: u64, over_select: f64) -> SelectorConfig {
    SelectorConfig::Uniform(UniformConfig {
        cohort,
        over_select,
    })
}

fn population() -> TinyPopulation {
    TinyPopulation::new(60, 5)
}

fn simulation(config: SimulationConfig) -> Tiny {
    Tiny::with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk)).unwrap()
}

fn resume(config: SimulationConfig) -> Option<Tiny> {
    Tiny::resume_with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk)).unwrap()
}

fn play(simulation: &mut Tiny) -> Journal {
    let mut journal = Journal::default();
    let outcome = simulation
        .run(&mut journal, &AtomicBool::new(false))
        .unwrap();
    assert_eq!(outcome, Outcome::Finished);
    journal
}

fn play_config(config: SimulationConfig) -> (ModelDigest, Journal) {
    let mut simulation = simulation(config);
    let journal = play(&mut simulation);
    (simulation.parameters().digest(), journal)
}

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
fn every_round_and_evaluation_is_reported_once_and_in_order() {
    let (_, journal) = play_config(config());
    let rounds: Vec<u64> = journal.rounds.iter().map(|r| r.round).collect();
    assert_eq!(rounds, [0, 1, 2, 3, 4, 5]);
    let evaluated: Vec<u64> = journal.evaluations.iter().map(|e| e.round).collect();
    assert_eq!(evaluated, [0, 2, 4, 6]);
    assert!(journal.clients.iter().all(|c| c.round == 6));
    assert!(
        journal
            .clients
            .windows(2)
            .all(|c| c[0].client < c[1].client)
    );
    let odd = SimulationConfig {
        rounds: 5,
        evaluation: EvaluationConfig {
            every: 3,
            initial: false,
            per_client: PerClient::Each,
            ..config().evaluation
        },
        ..config()
    };
    let (_, journal) = play_config(odd);
    let evaluated: Vec<u64> = journal.evaluations.iter().map(|e| e.round).collect();
    assert_eq!(evaluated, [3, 5]);
    assert_eq!(journal.clients.len(), 2 * 60);
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

/// Raises the flag once so many rounds were seen.
struct StopAfter<'a> {
    rounds: u64,
    flag: &'a AtomicBool,
    journal: Journal,
}

impl Observer for StopAfter<'_> {
    fn round(&mut self, record: &RoundRecord) {
        self.journal.round(record);
        if record.round + 1 >= self.rounds {
            self.flag.store(true, Ordering::SeqCst);
        }
    }
    fn evaluated(&mut self, record: &fl_sim::EvaluationRecord) {
        self.journal.evaluated(record);
    }
    fn client_evaluated(&mut self, record: &fl_sim::ClientEvaluation) {
        self.journal.client_evaluated(record);
    }
    fn flush(&mut self, round: RoundId) -> Result<RecorderPosition, fl_sim::ObserverError> {
        self.journal.flush(round)
    }
    fn checkpointed(&mut self, round: RoundId) -> Result<(), fl_sim::ObserverError> {
        self.journal.checkpointed(round)
    }
}

fn checkpointed(dir: &std::path::Path, every: u64) -> SimulationConfig {
    SimulationConfig {
        checkpoint: Some(CheckpointConfig {
            dir: dir.join("checkpoint"),
            every,
        }),
        ..config()
    }
}

#[test]
fn a_run_that_is_stopped_after_any_round_and_resumed_is_the_uninterrupted_run() {
    let momentum = StrategyConfig::FedAvg(FedAvgConfig {
        server_momentum: 0.9,
        server_learning_rate: 0.1,
        ..FedAvgConfig::default()
    });
    for strategy in [config().strategy, momentum] {
        let (digest, expected) = play_config(SimulationConfig {
            strategy: strategy.clone(),
            ..config()
        });
        for rounds in 1..=6 {
            for every in [1, 4, 100] {
                let dir = tempfile::tempdir().unwrap();
                let config = SimulationConfig {
                    strategy: strategy.clone(),
                    ..checkpointed(dir.path(), every)
                };
                let flag = AtomicBool::new(false);
                let mut observer = StopAfter {
                    rounds,
                    flag: &flag,
                    journal: Journal::default(),
                };
                let mut first = simulation(config.clone());
                let outcome = first.run(&mut observer, &flag).unwrap();
                let mut journal = observer.journal;
                if rounds < 6 {
                    assert_eq!(outcome, Outcome::Stopped { round: rounds });
                    assert_eq!(journal.checkpoints.last(), Some(&rounds));
                }
                drop(first);
                let mut second = resume(SimulationConfig {
                    threads: 2,
                    ..config
                })
                .unwrap();
                assert_eq!(second.round(), rounds);
                journal.truncate(second.position());
                let outcome = second.run(&mut journal, &AtomicBool::new(false)).unwrap();
                assert_eq!(outcome, Outcome::Finished);
                assert_eq!(second.parameters().digest(), digest);
                assert_eq!(journal.outcome(), expected.outcome());
            }
        }
    }
}

#[test]
fn a_round_that_is_interrupted_leaves_no_trace() {
    static FLAG: AtomicBool = AtomicBool::new(false);
    let (digest, expected) = play_config(config());
    for clients in [1, 5, 13, 30] {
        FLAG.store(false, Ordering::SeqCst);
        let dir = tempfile::tempdir().unwrap();
        let config = checkpointed(dir.path(), 100);
        let engine = TinyEngine {
            interrupt: Some((clients, &FLAG)),
            lanes: 1,
            ..TinyEngine::new()
        };
        let mut first =
            Tiny::with_parts(config.clone(), population(), engine, Arc::new(LocalDisk)).unwrap();
        let mut journal = Journal::default();
        let outcome = first.run(&mut journal, &FLAG).unwrap();
        let Outcome::Stopped { round } = outcome else {
            panic!("{outcome:?} after {clients} clients");
        };
        assert_eq!(journal.rounds.len() as u64, round);
        // On the spot, with the flag lowered from outside of the engine...
        let mut resumed = resume(config).unwrap();
        assert_eq!(resumed.round(), round);
        assert_eq!(resumed.parameters(), first.parameters());
        let mut second = journal.clone();
        second.truncate(resumed.position());
        resumed.run(&mut second, &AtomicBool::new(false)).unwrap();
        assert_eq!(resumed.parameters().digest(), digest);
        assert_eq!(second.outcome(), expected.outcome());
        // ... and by the same value, which goes on where it was.
        first.run(&mut journal, &AtomicBool::new(false)).unwrap();
        assert_eq!(first.parameters().digest(), digest);
        assert_eq!(journal.outcome(), expected.outcome());
    }
}

#[test]
fn resuming_a_finished_run_does_nothing_and_more_rounds_extend_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = checkpointed(dir.path(), 2);
    assert!(resume(config.clone()).is_none());
    let mut first = simulation(config.clone());
    let mut journal = play(&mut first);
    let mut again = resume(config.clone()).unwrap();
    assert_eq!(again.position(), RecorderPosition(6));
    let silence = play(&mut again);
    assert_eq!(silence, Journal::default());
    assert_eq!(again.parameters(), first.parameters());
    assert_eq!(play(&mut first), Journal::default());

    let more = SimulationConfig {
        rounds: 8,
        ..config.clone()
    };
    let mut extended = resume(more.clone()).unwrap();
    extended.run(&mut journal, &AtomicBool::new(false)).unwrap();
    let fresh = play_config(SimulationConfig {
        checkpoint: None,
        ..more
    });
    assert_eq!(extended.parameters().digest(), fresh.0);
    assert_eq!(journal.rounds, fresh.1.rounds);

    let fewer = SimulationConfig {
        rounds: 3,
        ..config
    };
    let error =
        Tiny::resume_with_parts(fewer, population(), TinyEngine::new(), Arc::new(LocalDisk))
            .err()
            .unwrap()
            .to_string();
    assert!(
        error.ends_with(
            "has done 8 rounds and the run asks for 3; set rounds to at least 8, or remove the \
             folder to start afresh"
        ),
        "{error}"
    );
}

#[test]
fn a_new_run_removes_the_checkpoints_of_the_former_one() {
    let dir = tempfile::tempdir().unwrap();
    play(&mut simulation(checkpointed(dir.path(), 1)));
    let flag = AtomicBool::new(true);
    let mut journal = Journal::default();
    let outcome = simulation(checkpointed(dir.path(), 1))
        .run(&mut journal, &flag)
        .unwrap();
    assert_eq!(outcome, Outcome::Stopped { round: 0 });
    assert_eq!(journal.checkpoints, [0]);
    assert_eq!(resume(checkpointed(dir.path(), 1)).unwrap().round(), 0);
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = checkpointed(dir.path(), 1);
    play(&mut simulation(config.clone()));
    let refusal = |config: SimulationConfig, population: TinyPopulation, engine: TinyEngine| {
        Tiny::resume_with_parts(config, population, engine, Arc::new(LocalDisk))
            .err()
            .unwrap()
            .to_string()
    };
    let path = dir.path().join("checkpoint/round-000000000006.checkpoint");
    let path = path.display();
    let seed = SimulationConfig {
        seed: Seed(12),
        ..config.clone()
    };
    assert_eq!(
        refusal(seed, population(), TinyEngine::new()),
        format!(
            "checkpoint `{path}` is of another configuration; resume with the configuration that \
             it was written with, or remove the folder to start afresh"
        )
    );
    assert_eq!(
        refusal(
            config.clone(),
            TinyPopulation::new(60, 6),
            TinyEngine::new()
        ),
        format!(
            "checkpoint `{path}` is of another data set; resume with the data set that it was \
             written with, or remove the folder to start afresh"
        )
    );
    let engine = TinyEngine {
        kernel: "other".to_owned(),
        ..TinyEngine::new()
    };
    assert_eq!(
        refusal(config, population(), engine),
        format!(
            "checkpoint `{path}` was computed with the `tiny` kernels and this process uses \
             `other`; resume on a machine with `tiny`, or remove the folder to start afresh"
        )
    );
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over_with_a_warning() {
    struct Warned(Vec<String>, Journal);
    impl Observer for Warned {
        fn warning(&mut self, warning: &fl_sim::CheckpointWarning) {
            self.0.push(warning.to_string());
        }
        fn round(&mut self, record: &RoundRecord) {
            self.1.round(record);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let config = checkpointed(dir.path(), 1);
    let mut whole = simulation(config.clone());
    play(&mut whole);
    let newest = dir.path().join("checkpoint/round-000000000006.checkpoint");
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() - 10]).unwrap();
    let mut resumed = resume(config.clone()).unwrap();
    assert_eq!(resumed.round(), 5);
    assert_eq!(resumed.warnings().len(), 1);
    let mut warned = Warned(Vec::new(), Journal::default());
    resumed.run(&mut warned, &AtomicBool::new(false)).unwrap();
    assert_eq!(
        warned.0,
        [format!(
            "checkpoint `{}` is damaged: its checksum does not match its contents; an older one \
             was used",
            newest.display()
        )]
    );
    assert_eq!(warned.1.rounds.len(), 1);
    assert_eq!(resumed.parameters(), whole.parameters());
    assert_eq!(std::fs::read(&newest).unwrap().len(), bytes.len());
    // And when both are damaged, the run says so in place of starting afresh.
    for entry in std::fs::read_dir(dir.path().join("checkpoint")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"").unwrap();
    }
    let error =
        Tiny::resume_with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk))
            .err()
            .unwrap()
            .to_string();
    assert!(error.contains("no checkpoint in"), "{error}");
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
fn an_evaluation_is_what_the_trainer_says_of_all_examples() {
    let mut simulation = simulation(config());
    let journal = play(&mut simulation);
    let population = population();
    let engine = TinyEngine::new();
    let mut trainer = engine.trainer();
    let parameters = simulation.parameters().values();
    let record = journal.evaluations.last().unwrap();

    let test = population.test().unwrap();
    let score = trainer.evaluate(parameters, test, 0..test.len()).unwrap();
    assert_eq!(record.test_accuracy, Some(score.accuracy()));
    assert!((record.test_loss.unwrap() - score.loss()).abs() < 1e-12);

    let (mut loss, mut correct, mut examples) = (0.0, 0, 0);
    let mut scratch = Default::default();
    for client in (0..60).map(ClientId) {
        let data = population.train(client, &mut scratch);
        let rows = 0..fl_core::Examples::len(&data);
        let score = trainer.evaluate(parameters, &data, rows).unwrap();
        loss += score.loss_sum;
        correct += score.correct;
        examples += score.examples;
        let data = population.client_test(client, &mut scratch).unwrap();
        let rows = 0..fl_core::Examples::len(&data);
        let score = trainer.evaluate(parameters, &data, rows).unwrap();
        let single = &journal.clients[client.0 as usize];
        assert_eq!(single.client, client.0);
        assert_eq!(single.split, ClientSplit::Test);
        assert_eq!(single.examples, score.examples);
        assert_eq!(
            (single.loss, single.accuracy),
            (score.loss(), score.accuracy())
        );
    }
    assert_eq!(record.train_loss, Some(loss / examples as f64));
    assert_eq!(
        record.train_accuracy,
        Some(correct as f64 / examples as f64)
    );
    assert_eq!(record.train_clients, 60);
}

#[test]
fn without_a_central_test_set_the_clients_held_out_examples_are_it() {
    let run = |population: TinyPopulation, train| {
        let config = SimulationConfig {
            evaluation: EvaluationConfig {
                train,
                ..config().evaluation
            },
            threads: 2,
            ..config()
        };
        let disk = Arc::new(LocalDisk);
        let mut simulation = Tiny::with_parts(config, population, TinyEngine::new(), disk).unwrap();
        play(&mut simulation)
    };
    for train in [true, false] {
        let journal = run(population().without_test(), train);
        let last = journal.evaluations.last().unwrap();
        let (mut loss, mut correct, mut examples) = (0.0, 0.0, 0);
        for client in &journal.clients {
            loss += client.loss * client.examples as f64;
            correct += client.accuracy * client.examples as f64;
            examples += client.examples;
        }
        assert_eq!(examples, (0..60).map(|c| 100 + c % 3).sum::<u64>());
        assert!((last.test_loss.unwrap() - loss / examples as f64).abs() < 1e-9);
        assert!((last.test_accuracy.unwrap() - correct / examples as f64).abs() < 1e-9);
        assert_eq!(last.train_loss.is_some(), train);
    }
    // With neither, single clients are judged on their training examples.
    for train in [true, false] {
        let mut bare = population().without_test();
        bare.with_client_test = false;
        let journal = run(bare, train);
        let last = journal.evaluations.last().unwrap();
        assert_eq!((last.test_loss, last.test_accuracy), (None, None));
        assert_eq!(last.train_loss.is_some(), train);
        let with_examples = (0..60).filter(|c| c * 7 % 41 > 0).count();
        assert_eq!(journal.clients.len(), with_examples);
        assert!(
            journal
                .clients
                .iter()
                .all(|c| c.split == ClientSplit::Train)
        );
    }
}

#[test]
fn a_large_population_is_judged_on_a_sample() {
    let config = SimulationConfig {
        rounds: 2,
        evaluation: EvaluationConfig {
            train: true,
            max_clients: 7,
            ..EvaluationConfig::default()
        },
        ..config()
    };
    let (_, journal) = play_config(config);
    assert_eq!(journal.clients.len(), 7);
    assert!(journal.evaluations.iter().all(|e| e.train_clients == 7));
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
fn the_run_ends_when_the_accuracy_is_reached_also_after_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    let config = SimulationConfig {
        rounds: 500,
        stop_at_accuracy: Some(0.9),
        ..checkpointed(dir.path(), 1000)
    };
    let mut first = simulation(config.clone());
    let mut journal = Journal::default();
    let outcome = first.run(&mut journal, &AtomicBool::new(false)).unwrap();
    let Outcome::TargetReached { round } = outcome else {
        panic!("{outcome:?}");
    };
    assert!((2..200).contains(&round), "{round}");
    let last = journal.evaluations.last().unwrap();
    assert!(last.round == round && last.test_accuracy >= Some(0.9));
    assert_eq!(journal.clients.len(), 60);
    assert_eq!(journal.checkpoints, [round]);
    let mut second = resume(config).unwrap();
    let mut silence = Journal::default();
    assert_eq!(
        second.run(&mut silence, &AtomicBool::new(false)).unwrap(),
        outcome
    );
    assert_eq!(silence, Journal::default());
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
