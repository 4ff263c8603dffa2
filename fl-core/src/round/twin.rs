//! FedAvg and FedProx as their papers print them, in plain `f64`, against the round machine.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::examples::Examples;
use crate::plan::WorkLimit;
use crate::registry::Registered as _;
use crate::ring::{RingPlan, WeightBounds};
use crate::select::{Uniform, UniformConfig};
use crate::strategy::{
    AnyStrategy, FedAsyncConfig, FedAvgConfig, FedBuffConfig, FedProxConfig, StrategyConfig,
    Weighting,
};
use crate::stream::{Purpose, Stream};
use crate::sum::ExactSum;
use crate::testing::local_plan;
use crate::testing::reference::{Blobs, SoftmaxTrainer};
use crate::trainer::{FitTask, LocalResult, Trainer};
use crate::units::ExampleCount;

pub(crate) const CLIENTS: u64 = 30;
const ROUNDS: u64 = 15;
pub(crate) const SEED: Seed = Seed(4);

pub(crate) struct World {
    trainer: SoftmaxTrainer,
    clients: Vec<Blobs>,
    pub(crate) local: LocalPlan,
}

impl World {
    pub(crate) fn new() -> Self {
        let clients = 0..CLIENTS;
        let clients = clients.map(|client| Blobs::new(client, 5 + 3 * client as usize, 8, 5));
        Self {
            trainer: SoftmaxTrainer::new(8, 5),
            clients: clients.collect(),
            local: LocalPlan {
                work: crate::plan::LocalWork::Epochs(3.try_into().unwrap()),
                ..local_plan()
            },
        }
    }

    /// Every third client manages one epoch of the three.
    fn work(client: ClientId) -> (WorkDone, WorkLimit) {
        if client.0.is_multiple_of(3) {
            (WorkDone::Partial, WorkLimit::AtMost(1.try_into().unwrap()))
        } else {
            (WorkDone::Full, WorkLimit::Full)
        }
    }

    pub(crate) fn fit(
        &mut self,
        global: &Parameters,
        client: ClientId,
        round: RoundId,
        plan: &LocalPlan,
    ) -> Vec<f32> {
        let mut update = vec![0.0; global.values().len()];
        let mut task = [FitTask {
            client,
            round,
            data: &self.clients[client.0 as usize],
            plan,
            limit: Self::work(client).1,
            stream: Stream::at(Purpose::LocalTraining, SEED, round, client),
            update: &mut update,
        }];
        let mut result = [LocalResult::default()];
        self.trainer.fit(global, &mut task, &mut result).unwrap();
        update
    }

    pub(crate) fn start(&self) -> Parameters {
        Parameters::zeros(Arc::clone(self.trainer.layout()))
    }

    pub(crate) fn accuracy(&mut self, model: &Parameters) -> f64 {
        let parts = self.clients.iter().map(|data| {
            let rows = 0..data.len();
            self.trainer.evaluate(model.values(), data, rows).unwrap()
        });
        let (right, all) = parts.fold((0, 0), |sum, part| {
            (sum.0 + part.correct, sum.1 + part.examples)
        });
        right as f64 / all as f64
    }
}

fn selector() -> Uniform {
    let config = UniformConfig {
        cohort: 8,
        over_select: 1.0,
    };
    Uniform::from_config(config).unwrap()
}

/// `w <- w + sum_k n_k/m update_k` over the clients that count.
fn by_the_paper(mu: f32, drop: bool) -> Parameters {
    let mut world = World::new();
    let mut model = world.start();
    let plan = LocalPlan {
        proximal_mu: mu,
        ..world.local
    };
    for round in (0..ROUNDS).map(RoundId) {
        let mut stream = selection_stream(SEED, round);
        let everyone = Candidates::everyone(CLIENTS);
        let cohort = selector().select(&everyone, &mut stream).unwrap().clients;
        let mut mean = vec![0f64; model.values().len()];
        let mut total = 0.0;
        for client in cohort {
            if drop && World::work(client).0 == WorkDone::Partial {
                continue;
            }
            let weight = world.clients[client.0 as usize].len() as f64;
            let update = world.fit(&model, client, round, &plan);
            for (mean, update) in mean.iter_mut().zip(update) {
                *mean += weight * f64::from(update);
            }
            total += weight;
        }
        for (value, mean) in model.values_mut().iter_mut().zip(mean) {
            *value = (f64::from(*value) + mean / total) as f32;
        }
    }
    model
}

fn by_the_machine(config: StrategyConfig) -> Parameters {
    let mut world = World::new();
    let strategy = AnyStrategy::from_config(config).unwrap();
    let largest = strategy.largest_weight(ExampleCount(5 + 3 * CLIENTS));
    let ring = RingPlan::for_weights(WeightBounds::new(largest, 8)).unwrap();
    let start = world.start();
    let sum = || ExactSum::new(ring, start.values().len());
    let state = strategy.init(start.clone());
    let setup = RunSetup {
        selector: Box::new(selector()),
        local: world.local,
        settings: RoundSettings::default(),
        chain: TransformChain::default(),
        seed: SEED,
        population: CLIENTS,
    };
    let mut server = RoundServer::new(strategy, state, RoundId(0), setup);
    for round in (0..ROUNDS).map(RoundId) {
        let now = VirtualTime(round.0);
        server
            .start(now, &Candidates::everyone(CLIENTS), sum())
            .unwrap();
        let plan = server.plan().unwrap();
        let mut worker = sum();
        let mut inside = Vec::new();
        while let Some(Transmit { client, message }) = server.poll_transmit() {
            match message {
                Message::Stop => {}
                Message::Invite => {
                    server.handle(now, Event::Ready(client)).unwrap();
                }
                Message::Train => {
                    let report = Report {
                        client,
                        round,
                        examples: ExampleCount(world.clients[client.0 as usize].len() as u64),
                        steps: 1,
                        work: World::work(client).0,
                        cost: Cost::default(),
                    };
                    let answer = server.handle(now, Event::Reported(report)).unwrap();
                    if let Answer::Accepted { weight } = answer {
                        let update = world.fit(server.global(), client, round, &plan);
                        worker.absorb(&update, weight).unwrap();
                        inside.push(client);
                    }
                }
            }
        }
        let clients = &inside;
        let event = Event::Summed {
            sum: &mut worker,
            clients,
        };
        server.handle(now, event).unwrap();
    }
    server.global().clone()
}

#[test]
fn the_machine_does_what_the_papers_say() {
    let cases = [
        (StrategyConfig::FedAvg(FedAvgConfig::default()), 0.0, true),
        (StrategyConfig::FedProx(FedProxConfig::new(0.0)), 0.0, false),
        (StrategyConfig::FedProx(FedProxConfig::new(1.0)), 1.0, false),
    ];
    let mut models = Vec::new();
    for (config, mu, drop) in cases {
        let paper = by_the_paper(mu, drop);
        let machine = by_the_machine(config.clone());
        for (a, b) in machine.values().iter().zip(paper.values()) {
            // The last bit of a parameter, over all rounds.
            assert!((a - b).abs() < 2e-6, "{config:?}: {a} and {b}");
        }
        let accuracy = World::new().accuracy(&machine);
        assert!(accuracy > 0.9, "{config:?}: accuracy {accuracy}");
        models.push(machine.digest());
    }
    assert!(
        models[0] != models[1] && models[1] != models[2],
        "three algorithms"
    );
}

#[test]
fn fedprox_without_mu_is_fedavg_with_partial_work_bit_for_bit() {
    let partial = FedAvgConfig {
        stragglers: Stragglers::Partial,
        ..FedAvgConfig::default()
    };
    assert_eq!(
        by_the_machine(StrategyConfig::FedAvg(partial)).digest(),
        by_the_machine(StrategyConfig::FedProx(FedProxConfig::new(0.0))).digest()
    );
}

/// In a synchronous round nothing is stale: the asynchronous strategies take the plain mean.
#[test]
fn without_staleness_the_asynchronous_strategies_take_the_plain_mean() {
    let uniform = FedAvgConfig {
        weighting: Weighting::Uniform,
        ..FedAvgConfig::default()
    };
    let plain = by_the_machine(StrategyConfig::FedAvg(uniform));
    let mixing = FedAsyncConfig {
        mixing: 1.0,
        ..FedAsyncConfig::default()
    };
    for config in [
        StrategyConfig::FedBuff(FedBuffConfig::default()),
        StrategyConfig::FedAsync(mixing),
    ] {
        let machine = by_the_machine(config.clone());
        for (a, b) in machine.values().iter().zip(plain.values()) {
            // The last bit of a parameter, over all rounds.
            assert!((a - b).abs() < 2e-6, "{config:?}: {a} and {b}");
        }
    }
}
