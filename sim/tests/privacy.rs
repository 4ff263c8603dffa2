//! Private runs: what a round releases, when the budget ends a run, what a resume needs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::private::{assert_same_however_played, poisson, run, updates};
use common::{
    FEATURES, Journal, Tiny, TinyEngine, config, play_config, population, simulation, uniform,
};
use fl_core::select::{CyclicConfig, SelectorConfig, SeparatedConfig, WeightedConfig};
use fl_core::strategy::{FedAvgConfig, StrategyConfig};
use fl_core::{ClientId, Purpose, RoundId, Stream};
use fl_privacy::matrix::TreeEstimator;
use fl_privacy::mechanism::gaussian;
use fl_privacy::plan::{Clipping, NoiseCorrelation};
use fl_privacy::{Delta, Epsilon, NoiseMultiplier};
use fl_sim::checkpoint::CheckpointStore;
use fl_sim::{
    CentralPrivacy, CheckpointConfig, CheckpointError, FleetConfig, LocalDisk, Outcome, Privacy,
    PrivacyPlan, SimError, SimulationConfig,
};

const NORM: f64 = 0.3;

fn cyclic(period: u64) -> SelectorConfig {
    SelectorConfig::Cyclic(CyclicConfig { period, rate: 1.0 })
}

fn separated(cohort: u64, separation: u64) -> SelectorConfig {
    SelectorConfig::Separated(SeparatedConfig { cohort, separation })
}

fn correlated(correlation: NoiseCorrelation) -> CentralPrivacy {
    CentralPrivacy {
        correlation,
        ..central(0.6, None)
    }
}

fn central(noise: f64, epsilon: Option<f64>) -> CentralPrivacy {
    CentralPrivacy {
        noise_multiplier: Some(NoiseMultiplier::new(noise).unwrap()),
        epsilon: epsilon.map(|epsilon| Epsilon::new(epsilon).unwrap()),
        ..CentralPrivacy::new(NORM, Epsilon::ZERO, Delta::new(1e-3).unwrap())
    }
}

fn private(selection: SelectorConfig, privacy: CentralPrivacy) -> SimulationConfig {
    common::private::private(selection, Privacy::Central(privacy))
}

/// Train, clip, add, noise, divide by the expected cohort: all in the open.
#[test]
fn a_round_is_what_a_naive_twin_computes() {
    for (selection, expected, sensitivity) in [
        (poisson(0.4), 24.0, NORM),
        (uniform(20, 1.0), 20.0, 2.0 * NORM),
    ] {
        let config = SimulationConfig {
            rounds: 1,
            fleet: FleetConfig::default(),
            ..private(selection, central(0.5, None))
        };
        let mut simulation = simulation(config.clone());
        let global = simulation.parameters().values().to_vec();
        let mut sum = [0.0f64; FEATURES + 1];
        let mut clipped = 0;
        for (_, update) in updates(&config, &global) {
            let norm = update
                .iter()
                .map(|&u| f64::from(u) * f64::from(u))
                .sum::<f64>()
                .sqrt();
            clipped += u64::from(norm > NORM);
            for (sum, update) in sum.iter_mut().zip(update) {
                *sum += f64::from(update) * (NORM / norm).min(1.0);
            }
        }
        assert!(clipped > 3, "{clipped}");
        let mut normals = [0.0f32; FEATURES + 1];
        let mut noise = Stream::at(Purpose::CentralNoise, config.seed, RoundId(0), ClientId(0));
        gaussian::fill(&mut noise, 1.0, &mut normals);
        let (_, journal) = run(&mut simulation);
        for (index, &found) in simulation.parameters().values().iter().enumerate() {
            let noise = f64::from(normals[index]) * 0.5 * sensitivity;
            let expected = f64::from(global[index]) + (sum[index] + noise) / expected;
            assert!((f64::from(found) - expected).abs() < 1e-6);
        }
        let record = journal.rounds[0].privacy.as_ref().unwrap();
        assert_eq!(record.clipped, clipped);
        assert!((record.noise_std / (0.5 * sensitivity) - 1.0).abs() < 1e-6);
        assert!(record.epsilon_lower <= record.epsilon);
        assert!(record.epsilon < record.epsilon_unamplified);
    }
}

#[test]
fn the_same_bytes_on_any_number_of_threads_and_after_any_interruption() {
    let adaptive = CentralPrivacy {
        clipping: Clipping::Adaptive {
            initial_norm: 0.05,
            quantile: 0.5,
            learning_rate: 0.3,
            count_noise: None,
        },
        ..central(0.6, None)
    };
    for (selection, privacy) in [
        (poisson(0.3), central(0.6, None)),
        (uniform(12, 1.0), central(0.6, None)),
        (poisson(0.3), adaptive),
        (cyclic(4), correlated(NoiseCorrelation::Blt { buffers: 2 })),
        (
            cyclic(3),
            correlated(NoiseCorrelation::BandedToeplitz { bands: None }),
        ),
        (
            separated(12, 4),
            correlated(NoiseCorrelation::Tree {
                restart: None,
                estimator: TreeEstimator::Honaker,
            }),
        ),
    ] {
        assert_same_however_played(&private(selection, privacy));
    }
}

/// Nobody's updates are anything: the model moves by the correlated noise alone, which is less on
/// the final model than independent noise of the same privacy.
#[test]
fn correlated_noise_reaches_the_model() {
    let epsilon = |correlation| CentralPrivacy {
        noise_multiplier: None,
        epsilon: Some(Epsilon::new(2.0).unwrap()),
        clipping: Clipping::Flat { max_norm: 1e-12 },
        ..correlated(correlation)
    };
    let moved = |correlation| {
        let config = SimulationConfig {
            rounds: 24,
            ..private(cyclic(6), epsilon(correlation))
        };
        let mut simulation = simulation(config);
        let before = simulation.parameters().values().to_vec();
        let std = simulation
            .privacy()
            .unwrap()
            .noise_on_model(24)
            .unwrap()
            .unwrap();
        let (outcome, journal) = run(&mut simulation);
        assert_eq!(outcome, Outcome::Finished);
        let spent = journal.rounds[23].privacy.as_ref().unwrap();
        assert!(spent.epsilon <= 2.0 && spent.epsilon > 1.99);
        assert_eq!(journal.rounds.len(), 24);
        let after = simulation.parameters().values();
        let squares = after.iter().zip(&before).map(|(a, b)| {
            let moved = (f64::from(*a) - f64::from(*b)) / std;
            moved * moved
        });
        let mean = squares.sum::<f64>() / before.len() as f64;
        // So many squares of normal numbers; clipped updates add a hundredth of it at most.
        let spread = 5.0 * (2.0 / before.len() as f64).sqrt();
        assert!((mean - 1.0).abs() < spread, "{mean}");
        std
    };
    let independent = moved(NoiseCorrelation::Independent);
    let banded = moved(NoiseCorrelation::BandedToeplitz { bands: None });
    let blt = moved(NoiseCorrelation::Blt { buffers: 3 });
    assert!(banded < 0.85 * independent, "{banded} {independent}");
    assert!(blt < 0.85 * independent, "{blt} {independent}");
}

#[test]
fn an_empty_cohort_adds_its_noise_and_takes_its_step() {
    let mut simulation = simulation(private(poisson(1e-9), central(1.0, None)));
    let (outcome, journal) = run(&mut simulation);
    assert_eq!(outcome, Outcome::Finished);
    for record in &journal.rounds {
        assert_eq!((record.cohort, record.reported), (0, 0));
        assert!(record.update_norm > 0.0);
    }
    assert_eq!(simulation.privacy().unwrap().rounds_done(), 6);
}

#[test]
fn an_update_that_is_not_finite_counts_as_zero() {
    let diverging = (0..60).find(|&client| (client * 7) % 41 > 20).map(ClientId);
    let mut population = population();
    population.diverging = diverging;
    let config = SimulationConfig {
        rounds: 2,
        fleet: FleetConfig::default(),
        ..private(poisson(1.0), central(0.5, None))
    };
    let mut simulation =
        Tiny::with_parts(config, population, TinyEngine::new(), Arc::new(LocalDisk)).unwrap();
    let (_, journal) = run(&mut simulation);
    for record in &journal.rounds {
        assert_eq!(record.privacy.as_ref().unwrap().zeroed, 1);
        assert_eq!((record.rejected, record.dropped), (0, 2));
        assert_eq!(record.reported, 58);
    }
    assert!(
        simulation
            .parameters()
            .values()
            .iter()
            .all(|value| value.is_finite())
    );
}

#[test]
fn the_budget_ends_the_run_at_its_last_round_with_a_judged_model() {
    let free = private(poisson(0.3), central(0.8, None));
    let four = simulation(free.clone())
        .privacy()
        .and_then(PrivacyPlan::central)
        .unwrap()
        .spent_after(4)
        .unwrap();
    let spent = four.epsilon.upper.get();
    let dir = tempfile::tempdir().unwrap();
    let config = SimulationConfig {
        checkpoint: Some(CheckpointConfig {
            dir: dir.path().to_owned(),
            every: 3,
        }),
        ..private(poisson(0.3), central(0.8, Some(spent)))
    };
    let mut limited = simulation(config.clone());
    let (outcome, journal) = run(&mut limited);
    assert_eq!(outcome, Outcome::BudgetSpent { round: 4 });
    assert_eq!(journal.rounds.len(), 4);
    assert_eq!(journal.evaluations.last().unwrap().round, 4);
    assert!(journal.clients.iter().all(|client| client.round == 4));
    let last = journal.rounds[3].privacy.as_ref().unwrap();
    assert_eq!(last.epsilon.to_bits(), spent.to_bits());
    let refusal = limited.privacy().unwrap().refusal().unwrap().to_string();
    assert!(refusal.contains("event 5"), "{refusal}");
    // The model is that of four rounds without a limit.
    let (digest, _) = {
        let mut four = simulation(SimulationConfig { rounds: 4, ..free });
        let journal = run(&mut four).1;
        (four.parameters().digest(), journal)
    };
    assert_eq!(limited.parameters().digest(), digest);
    // A resumed run has nothing left to do.
    let mut resumed = common::resume(config).unwrap();
    let (outcome, journal) = run(&mut resumed);
    assert_eq!(outcome, Outcome::BudgetSpent { round: 4 });
    assert_eq!(journal, Journal::default());
}

#[test]
fn a_checkpoint_without_its_ledger_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = SimulationConfig {
        checkpoint: Some(CheckpointConfig {
            dir: dir.path().to_owned(),
            every: 1,
        }),
        ..private(poisson(0.3), central(0.8, None))
    };
    let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let engine = TinyEngine {
        interrupt: Some((60, stop)),
        ..TinyEngine::new()
    };
    let mut part =
        Tiny::with_parts(config.clone(), population(), engine, Arc::new(LocalDisk)).unwrap();
    part.run(&mut Journal::default(), stop).unwrap();
    let round = part.round();
    assert!((1..6).contains(&round));
    let mut store = CheckpointStore::new(dir.path().to_owned(), Arc::new(LocalDisk));
    let whole = store.newest().unwrap().unwrap().checkpoint;
    for privacy in [
        String::new(),
        // The ledger of the start: the rounds played would be forgotten.
        simulation(config.clone())
            .privacy()
            .and_then(PrivacyPlan::central)
            .unwrap()
            .save(),
    ] {
        let mut robbed = whole.clone();
        robbed.privacy = privacy;
        store.write(&robbed).unwrap();
        let resumed = Tiny::resume_with_parts(
            config.clone(),
            population(),
            TinyEngine::new(),
            Arc::new(LocalDisk),
        );
        let error = resumed.err().unwrap();
        assert!(
            matches!(error, SimError::Checkpoint(CheckpointError::Privacy { .. })),
            "{error}"
        );
    }
    // More rounds than were declared are another plan.
    store.write(&whole).unwrap();
    let longer = SimulationConfig {
        rounds: 7,
        ..config
    };
    let resumed =
        Tiny::resume_with_parts(longer, population(), TinyEngine::new(), Arc::new(LocalDisk));
    assert!(matches!(
        resumed.err().unwrap(),
        SimError::Checkpoint(CheckpointError::Foreign { .. })
    ));
}

#[test]
fn what_has_no_guarantee_is_refused() {
    let good = private(poisson(0.3), central(0.8, None));
    let examples = SimulationConfig {
        strategy: StrategyConfig::FedAvg(FedAvgConfig::default()),
        ..good.clone()
    };
    let over = SimulationConfig {
        selection: uniform(10, 1.5),
        ..good.clone()
    };
    let weighted = SimulationConfig {
        selection: SelectorConfig::Weighted(WeightedConfig {
            cohort: 10,
            over_select: 1.0,
        }),
        ..good.clone()
    };
    let lax = SimulationConfig {
        privacy: Some(Privacy::Central(CentralPrivacy {
            delta: Delta::new(0.1).unwrap(),
            ..central(0.8, None)
        })),
        ..good.clone()
    };
    let poor = SimulationConfig {
        privacy: Some(Privacy::Central(central(0.8, Some(0.1)))),
        ..good
    };
    let cases = [
        (examples, "weighting clients by their number of examples"),
        (over, "asking more clients than are counted"),
        (weighted, "selecting clients by their number of examples"),
        (lax, "delta is 0.1"),
        (poor, "event 1"),
    ];
    for (config, expected) in cases {
        let made = Tiny::with_parts(config, population(), TinyEngine::new(), Arc::new(LocalDisk));
        let error = made.err().unwrap().to_string();
        assert!(
            error.starts_with("privacy: ") && error.contains(expected),
            "{error}"
        );
    }
    // Without privacy nothing of this matters.
    let (_, journal) = play_config(config());
    assert!(journal.rounds.iter().all(|record| record.privacy.is_none()));
}
