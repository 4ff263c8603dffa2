//! Private runs whose noise is the clients' own: what is sent and released, what a round with too few
//! reports does, what a resume needs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::private::{assert_same_however_played, poisson, run, updates};
use common::{FEATURES, Tiny, TinyEngine, population, simulation, uniform};
use fl_core::select::SelectorConfig;
use fl_core::{ClientId, Purpose, RoundId, Stream};
use fl_privacy::clip::{Clipper as _, FlatClip};
use fl_privacy::distributed::Rotation;
use fl_privacy::mechanism::gaussian;
use fl_privacy::plan::{ClientNoise, ClientPlan, RingNoise};
use fl_privacy::{Delta, Epsilon, NeighboringRelation, NoiseMultiplier};
use fl_sim::{
    CheckpointConfig, CheckpointError, ClientPrivacy, FleetConfig, LocalDisk, Outcome, Privacy,
    PrivacyPlan, SimError, SimulationConfig,
};

const NORM: f64 = 0.3;
const VALUES: usize = FEATURES + 1;

fn ring(bits: u32) -> ClientNoise {
    ClientNoise::Distributed(RingNoise {
        bits: Some(bits),
        ..RingNoise::default()
    })
}

fn noisy(noise: ClientNoise, multiplier: f64) -> ClientPrivacy {
    ClientPrivacy {
        noise_multiplier: Some(NoiseMultiplier::new(multiplier).unwrap()),
        epsilon: None,
        // The population has clients without examples.
        relation: Some(NeighboringRelation::ReplaceSpecial),
        least_survivors: 0.5,
        ..ClientPrivacy::new(noise, NORM, Epsilon::ZERO, Delta::new(1e-3).unwrap())
    }
}

fn private(selection: SelectorConfig, privacy: ClientPrivacy) -> SimulationConfig {
    common::private::private(selection, Privacy::Clients(privacy))
}

fn plan(simulation: &Tiny) -> &ClientPlan {
    simulation.privacy().and_then(PrivacyPlan::clients).unwrap()
}

/// The updates of the first round, clipped.
fn clipped_updates(config: &SimulationConfig, global: &[f32]) -> Vec<(ClientId, Vec<f32>)> {
    let mut updates = updates(config, global);
    for (_, update) in &mut updates {
        FlatClip::new(NORM).unwrap().clip(update);
    }
    updates
}

/// Train, clip, add each client's noise, divide by those who reported: all in the open.
#[test]
fn a_round_of_local_noise_is_what_a_naive_twin_computes() {
    let config = SimulationConfig {
        rounds: 1,
        fleet: FleetConfig::default(),
        ..private(uniform(20, 1.0), noisy(ClientNoise::Local, 0.7))
    };
    let mut simulation = simulation(config.clone());
    let global = simulation.parameters().values().to_vec();
    let updates = clipped_updates(&config, &global);
    let mut sum = [0.0f64; VALUES];
    for (client, update) in &updates {
        let mut noise = Stream::at(Purpose::LocalNoise, config.seed, RoundId(0), *client);
        let mut normals = [0.0f32; VALUES];
        gaussian::fill(&mut noise, 1.0, &mut normals);
        for ((sum, update), normal) in sum.iter_mut().zip(update).zip(normals) {
            *sum += f64::from(*update) + f64::from(normal) * 0.7 * NORM;
        }
    }
    let (_, journal) = run(&mut simulation);
    let reports = updates.len() as f64;
    for (index, &found) in simulation.parameters().values().iter().enumerate() {
        let expected = f64::from(global[index]) + sum[index] / reports;
        assert!(
            (f64::from(found) - expected).abs() < 1e-5,
            "{found} {expected}"
        );
    }
    let record = journal.rounds[0].privacy.as_ref().unwrap();
    assert!(record.released && record.wrapped == 0 && record.clipped > 3);
    assert!((record.noise_std - 0.7 * NORM * reports.sqrt()).abs() < 1e-9);
    assert!(record.epsilon > 0.0 && record.epsilon < record.epsilon_unamplified);
    assert_eq!(journal.rounds[0].reported, updates.len() as u64);
}

/// The same through the ring, with the library's own encoding in the open and a plain sum of its
/// integers; and close to the mean without any noise, when that is as small as can be.
#[test]
fn a_round_in_the_ring_is_the_sum_of_what_clients_encode() {
    let config = SimulationConfig {
        rounds: 1,
        fleet: FleetConfig::default(),
        ..private(uniform(20, 1.0), noisy(ring(40), 1e-4))
    };
    let mut simulation = simulation(config.clone());
    let global = simulation.parameters().values().to_vec();
    let dp = plan(&simulation).ring().unwrap();
    let at = |purpose, client| Stream::at(purpose, config.seed, RoundId(0), client);
    let rotation = Rotation::new(&mut at(Purpose::Rotation, ClientId(0)), dp.padded());
    let mut sum = vec![0i128; dp.padded()];
    let mut plain = [0.0; VALUES];
    let updates = clipped_updates(&config, &global);
    let mut vector = Vec::new();
    for (client, update) in &updates {
        for (plain, value) in plain.iter_mut().zip(update) {
            *plain += f64::from(*value);
        }
        let (mut rounding, mut noise) = (
            at(Purpose::UpdateCodec, *client),
            at(Purpose::LocalNoise, *client),
        );
        let mut update = update.clone();
        dp.encode(
            &mut update,
            &rotation,
            &mut rounding,
            &mut noise,
            &mut vector,
        )
        .unwrap();
        for (sum, &element) in sum.iter_mut().zip(&vector) {
            *sum += i128::from(element);
        }
    }
    let elements: Vec<u64> = sum.iter().map(|&sum| (sum % (1 << 40)) as u64).collect();
    let decoded = dp.decode(&elements, &rotation).unwrap();
    let length = dp.padded() as u64;
    run(&mut simulation);
    let reports = updates.len() as f64;
    for (index, &found) in simulation.parameters().values().iter().enumerate() {
        let found = f64::from(found - global[index]);
        assert!((found - decoded[index] / reports).abs() < 1e-6);
        // Six of the noise's deviations, and what an f32 model rounds.
        let near = 6.0 * 1e-4 * NORM * 2f64.sqrt() / reports.sqrt() + 1e-6;
        assert!((found - plain[index] / reports).abs() < near, "{found}");
    }
    // What travels are numbers of 40 bits, one for each coordinate of the padded vector.
    let (_, journal) = run(&mut self::simulation(config));
    assert_eq!(
        journal.rounds[0].bytes_up,
        updates.len() as u64 * (length * 40).div_ceil(8)
    );
}

#[test]
fn the_same_bytes_on_any_number_of_threads_and_after_any_interruption() {
    for (selection, privacy) in [
        (uniform(20, 1.0), noisy(ring(24), 0.6)),
        (poisson(0.3), noisy(ring(16), 0.6)),
        (uniform(20, 1.0), noisy(ClientNoise::Local, 0.6)),
    ] {
        assert_same_however_played(&private(selection, privacy));
    }
}

/// Most clients drop out: what was promised needs more noise than is left, so the model stays.
#[test]
fn rounds_with_too_few_reports_are_given_up() {
    for noise in [ring(24), ClientNoise::Local] {
        let config = SimulationConfig {
            fleet: FleetConfig {
                dropout: 0.5,
                ..FleetConfig::default()
            },
            ..private(uniform(20, 1.0), noisy(noise, 0.6))
        };
        let mut simulation = simulation(config);
        let (outcome, journal) = run(&mut simulation);
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(plan(&simulation).rounds_done(), 6);
        let mut last = 0.0;
        let (mut given_up, mut released) = (0, 0);
        for record in &journal.rounds {
            let privacy = record.privacy.as_ref().unwrap();
            if privacy.released {
                released += 1;
                assert!(record.reported >= 10 && record.update_norm > 0.0);
                assert!(privacy.epsilon > 0.0 && privacy.epsilon >= last);
            } else {
                given_up += 1;
                assert_eq!((record.reported, record.bytes_up), (0, 0));
                assert!(record.update_norm <= 0.0);
                // The server of local noise has seen what was sent.
                assert!(noise == ClientNoise::Local || privacy.epsilon <= last);
            }
            last = privacy.epsilon;
        }
        assert!(given_up > 0 && released > 0, "{given_up} {released}");
        let ledger = plan(&simulation).ledger().entries();
        let entries: u64 = ledger.iter().map(|entry| entry.count).sum();
        assert_eq!(entries, released);
    }
}

#[test]
fn an_update_that_is_not_finite_counts_as_zero_and_brings_its_noise() {
    let diverging = (0..60).find(|&client| (client * 7) % 41 > 20).map(ClientId);
    for noise in [ring(24), ClientNoise::Local] {
        let mut population = population();
        population.diverging = diverging;
        let config = SimulationConfig {
            rounds: 2,
            fleet: FleetConfig::default(),
            ..private(uniform(60, 1.0), noisy(noise, 0.5))
        };
        let engine = TinyEngine::new();
        let mut simulation =
            Tiny::with_parts(config, population, engine, Arc::new(LocalDisk)).unwrap();
        let (_, journal) = run(&mut simulation);
        for record in &journal.rounds {
            assert_eq!(record.privacy.as_ref().unwrap().zeroed, 1);
            assert_eq!((record.rejected, record.reported), (0, 58));
        }
        let finite = |value: &f32| value.is_finite();
        assert!(simulation.parameters().values().iter().all(finite));
    }
}

#[test]
fn clients_stay_out_when_they_have_reported_often_enough() {
    let privacy = ClientPrivacy {
        most_participations: Some(2),
        ..noisy(ClientNoise::Local, 0.6)
    };
    let config = SimulationConfig {
        fleet: FleetConfig::default(),
        ..private(uniform(60, 1.0), privacy)
    };
    let (_, journal) = run(&mut simulation(config));
    let released = |record: &fl_sim::RoundRecord| record.privacy.as_ref().unwrap().released;
    let rounds: Vec<bool> = journal.rounds.iter().map(released).collect();
    assert_eq!(rounds, [true, true, false, false, false, false]);
    let spent = |round: usize| {
        let privacy = journal.rounds[round].privacy.as_ref().unwrap();
        privacy.epsilon_unamplified.to_bits()
    };
    assert_eq!(spent(1), spent(5));
}

#[test]
fn what_cannot_be_promised_is_refused() {
    let sampled = ClientPrivacy {
        relation: None,
        ..noisy(ring(24), 0.6)
    };
    let refused = |config| {
        let engine = TinyEngine::new();
        match Tiny::with_parts(config, population(), engine, Arc::new(LocalDisk)) {
            Err(SimError::Privacy(error)) => error.to_string(),
            other => panic!("{:?}", other.map(|_| ())),
        }
    };
    let error = refused(private(uniform(20, 1.0), sampled));
    assert!(error.contains("clients have no examples"), "{error}");
    let error = refused(private(uniform(20, 1.0), noisy(ring(4), 0.6)));
    assert!(error.contains("at least"), "{error}");
    // A checkpoint without its ledger.
    let dir = tempfile::tempdir().unwrap();
    let config = SimulationConfig {
        checkpoint: Some(CheckpointConfig {
            dir: dir.path().to_owned(),
            every: 1,
        }),
        ..private(uniform(20, 1.0), noisy(ring(24), 0.6))
    };
    run(&mut simulation(config.clone()));
    let mut store =
        fl_sim::checkpoint::CheckpointStore::new(dir.path().to_owned(), Arc::new(LocalDisk));
    let mut robbed = store.newest().unwrap().unwrap().checkpoint;
    robbed.privacy = plan(&simulation(config.clone())).save();
    store.write(&robbed).unwrap();
    let engine = TinyEngine::new();
    let resumed = Tiny::resume_with_parts(config, population(), engine, Arc::new(LocalDisk));
    let error = resumed.err().unwrap();
    assert!(
        matches!(error, SimError::Checkpoint(CheckpointError::Privacy { .. })),
        "{error}"
    );
}
