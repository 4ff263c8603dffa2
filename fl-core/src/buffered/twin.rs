//! FedBuff and FedAsync as their papers print them, in plain `f64`, against the machine.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::registry::Registered as _;
use crate::ring::{RingPlan, WeightBounds};
use crate::round::twin::{CLIENTS, SEED, World};
use crate::select::{Uniform, UniformConfig};
use crate::strategy::staleness::SCALE;
use crate::strategy::{AnyStrategy, FedAsyncConfig, FedBuffConfig, Staleness, StrategyConfig};
use crate::sum::ExactSum;
use crate::testing::report_from;
use crate::transform::TransformChain;
use crate::units::VirtualDuration;

const VERSIONS: u64 = 40;
const CONCURRENCY: u64 = 8;

/// Who reported from which version, in the order of arrival.
type Log = Vec<(ClientId, RoundId)>;

/// Clients take 1 to 13 units of time. Nothing is trained before a step needs it.
fn by_the_machine(config: StrategyConfig, buffer: u64) -> (Parameters, Log) {
    let mut world = World::new();
    let strategy = AnyStrategy::from_config(config).unwrap();
    let selector = UniformConfig {
        cohort: 1,
        over_select: 1.0,
    };
    let setup = BufferedSetup {
        selector: Box::new(Uniform::from_config(selector).unwrap()),
        local: world.local,
        settings: BufferedSettings::new(CONCURRENCY, buffer, None, Some(VirtualDuration(1000)))
            .unwrap(),
        chain: TransformChain::default(),
        seed: SEED,
        population: CLIENTS,
    };
    let start = world.start();
    let ring = RingPlan::for_weights(WeightBounds::new(Weight(SCALE), buffer)).unwrap();
    let empty = ExactSum::new(ring, start.values().len());
    let state = strategy.init(start.clone());
    let mut server =
        BufferedServer::new(strategy, state, RoundId(0), setup, empty.clone()).unwrap();
    let mut models = BTreeMap::from([(RoundId(0), start)]);
    let (mut log, mut queue, mut now) = (Log::new(), BinaryHeap::new(), VirtualTime(0));
    server.start(now).unwrap();
    while server.version().0 < VERSIONS {
        server.offer(now, &Candidates::everyone(CLIENTS)).unwrap();
        while let Some(Transmit { client, command }) = server.poll_transmit() {
            let Command::Train(version) = command else {
                panic!("nobody is stopped");
            };
            let takes = VirtualDuration(1 + client.0 * 7 % 13);
            queue.push(Reverse((now + takes, client, version)));
        }
        let Some(Reverse((time, client, version))) = queue.pop() else {
            panic!("somebody trains");
        };
        now = time;
        let report = Event::Reported(report_from(client.0, version));
        assert!(matches!(
            server.handle(now, report).unwrap(),
            Answer::Accepted { .. }
        ));
        log.push((client, version));
        if server.phase() == Phase::Aggregating {
            let plan = server.plan().unwrap();
            let (mut sum, mut inside) = (empty.clone(), Vec::new());
            let accepted: Vec<_> = server.buffer().collect();
            for Accepted { report, weight } in accepted.into_iter().rev() {
                let given = &models[&report.round];
                let mut update = world.fit(given, report.client, report.round, &plan);
                let reference = server.strategy().relative_to();
                reference.rebase(&mut update, given.values(), server.global().values());
                sum.absorb(&update, weight).unwrap();
                inside.push(report.client);
            }
            let (sum, clients) = (&mut sum, inside.as_slice());
            server.handle(now, Event::Summed { sum, clients }).unwrap();
            models.insert(server.version(), server.global().clone());
            let oldest = server.oldest_in_flight().unwrap_or(server.version());
            models = models.split_off(&oldest.min(server.version()));
        }
    }
    (server.global().clone(), log)
}

/// `1 / sqrt(1 + staleness)`.
fn s(version: u64, given: RoundId) -> f64 {
    1.0 / ((1 + version - given.0) as f64).sqrt()
}

/// Nguyen et al. 2022, algorithm 1: add `s update` for each arrival, step by `eta/K` at K.
fn fedbuff_by_the_paper(log: &Log, buffer: u64, eta: f64) -> Parameters {
    let mut world = World::new();
    let mut models = vec![world.start()];
    let plan = world.local;
    for arrivals in log.chunks(buffer as usize) {
        let version = models.len() as u64 - 1;
        let mut model = models[version as usize].clone();
        let mut sum = vec![0f64; model.values().len()];
        for &(client, given) in arrivals {
            let update = world.fit(&models[given.0 as usize], client, given, &plan);
            for (sum, update) in sum.iter_mut().zip(update) {
                *sum += s(version, given) * f64::from(update);
            }
        }
        for (value, sum) in model.values_mut().iter_mut().zip(sum) {
            *value = (f64::from(*value) + eta / buffer as f64 * sum) as f32;
        }
        models.push(model);
    }
    models.pop().unwrap()
}

/// Xie et al. 2019, algorithm 1: mix each client's model in.
fn fedasync_by_the_paper(log: &Log, alpha: f64, mu: f32) -> Parameters {
    let mut world = World::new();
    let mut models = vec![world.start()];
    let plan = LocalPlan {
        proximal_mu: mu,
        ..world.local
    };
    for (version, &(client, given)) in log.iter().enumerate() {
        let old = models[given.0 as usize].clone();
        let update = world.fit(&old, client, given, &plan);
        let alpha = alpha * s(version as u64, given);
        let mut model = models[version].clone();
        for ((value, old), update) in model.values_mut().iter_mut().zip(old.values()).zip(update) {
            let trained = f64::from(*old) + f64::from(update);
            *value = ((1.0 - alpha) * f64::from(*value) + alpha * trained) as f32;
        }
        models.push(model);
    }
    models.pop().unwrap()
}

fn assert_close(machine: &Parameters, paper: &Parameters) {
    for (a, b) in machine.values().iter().zip(paper.values()) {
        // A weight is off by 2^-17 of the update at most, over all steps.
        assert!((a - b).abs() < 1e-4, "{a} and {b}");
    }
    let moved = machine
        .values()
        .iter()
        .fold(0.0f32, |most, v| most.max(v.abs()));
    assert!(moved > 0.5, "{moved} tells nothing from nothing");
}

#[test]
fn fedbuff_is_that_of_the_paper() {
    for (buffer, eta) in [(3, 1.0), (5, 0.7)] {
        let config = FedBuffConfig {
            server_learning_rate: eta,
            ..FedBuffConfig::default()
        };
        let (machine, log) = by_the_machine(StrategyConfig::FedBuff(config), buffer);
        let stale = log.iter().enumerate();
        let stale = stale.filter(|(place, (_, given))| given.0 < *place as u64 / buffer);
        assert!(stale.count() > log.len() / 4, "there is staleness");
        assert_close(&machine, &fedbuff_by_the_paper(&log, buffer, eta));
        let accuracy = World::new().accuracy(&machine);
        assert!(accuracy > 0.8, "accuracy {accuracy}");
    }
}

#[test]
fn fedasync_is_that_of_the_paper() {
    for mu in [0.0, 0.5] {
        let config = FedAsyncConfig {
            mixing: 0.6,
            staleness: Staleness::SQUARE_ROOT,
            mu,
            ..FedAsyncConfig::default()
        };
        let (machine, log) = by_the_machine(StrategyConfig::FedAsync(config), 1);
        assert_close(&machine, &fedasync_by_the_paper(&log, 0.6, mu));
    }
}
