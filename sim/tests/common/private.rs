//! What the tests of private runs share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fl_core::select::{PoissonConfig, SelectorConfig, selection_stream};
use fl_core::strategy::{FedAvgConfig, StrategyConfig, Weighting};
use fl_core::{
    AnySelector, Candidates, ClientId, FitTask, Purpose, RoundId, Selector as _, Stream, WorkLimit,
};
use fl_sim::{
    CheckpointConfig, LocalDisk, Outcome, Population as _, Privacy, PrivacyPlan, SimulationConfig,
};

use super::{FEATURES, Journal, Tiny, TinyEngine, config, fit_one, population, simulation};

/// The usual experiment with uniform weights under `privacy`.
pub(crate) fn private(selection: SelectorConfig, privacy: Privacy) -> SimulationConfig {
    SimulationConfig {
        selection,
        strategy: StrategyConfig::FedAvg(FedAvgConfig {
            weighting: Weighting::Uniform,
            ..FedAvgConfig::default()
        }),
        privacy: Some(privacy),
        ..config()
    }
}

pub(crate) fn poisson(rate: f64) -> SelectorConfig {
    SelectorConfig::Poisson(PoissonConfig { rate })
}

pub(crate) fn run(simulation: &mut Tiny) -> (Outcome, Journal) {
    let mut journal = Journal::default();
    let outcome = simulation.run(&mut journal, &AtomicBool::new(false));
    (outcome.unwrap(), journal)
}

/// The ledger as it is kept.
fn saved(simulation: &Tiny) -> String {
    let plan = simulation.privacy().unwrap();
    let central = plan.central().map(fl_privacy::plan::DpPlan::save);
    let clients = || plan.clients().map(fl_privacy::plan::ClientPlan::save);
    central.or_else(clients).unwrap()
}

/// The cohort of the first round, each client that has examples with its update as trained.
pub(crate) fn updates(config: &SimulationConfig, global: &[f32]) -> Vec<(ClientId, Vec<f32>)> {
    let population = population();
    let everyone = Candidates::everyone(population.clients());
    let mut stream = selection_stream(config.seed, RoundId(0));
    let selector = AnySelector::from_config(config.selection.clone()).unwrap();
    let cohort = selector.select(&everyone, &mut stream).unwrap().clients;
    let mut updates = Vec::new();
    for client in cohort {
        if population.train_len(client) == 0 {
            continue;
        }
        let mut scratch = Default::default();
        let view = population.train(client, &mut scratch);
        let mut update = vec![0.0; FEATURES + 1];
        let mut task = FitTask {
            client,
            round: RoundId(0),
            data: &view,
            plan: &config.local,
            limit: WorkLimit::Full,
            stream: Stream::at(Purpose::LocalTraining, config.seed, RoundId(0), client),
            update: &mut update,
        };
        fit_one(global, &mut task).unwrap();
        updates.push((client, update));
    }
    updates
}

/// Plays a run of six rounds straight, on other numbers of threads, and interrupted in the middle
/// of rounds again and again: the records, the model and the ledger must be the same.
pub(crate) fn assert_same_however_played(base: &SimulationConfig) {
    let mut straight = simulation(base.clone());
    let (outcome, journal) = run(&mut straight);
    assert_eq!(outcome, Outcome::Finished);
    for threads in [2, 5] {
        let mut other = simulation(SimulationConfig {
            threads,
            ..base.clone()
        });
        let (_, found) = run(&mut other);
        assert_eq!(found, journal);
        assert_eq!(other.parameters().digest(), straight.parameters().digest());
    }
    let dir = tempfile::tempdir().unwrap();
    let checkpointed = SimulationConfig {
        checkpoint: Some(CheckpointConfig {
            dir: dir.path().to_owned(),
            every: 1,
        }),
        ..base.clone()
    };
    let mut first = true;
    let mut play_until = |after: usize| {
        let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
        let engine = TinyEngine {
            interrupt: Some((after, stop)),
            ..TinyEngine::new()
        };
        let (config, disk) = (checkpointed.clone(), Arc::new(LocalDisk));
        let mut part = if core::mem::take(&mut first) {
            Tiny::with_parts(config, population(), engine, disk).unwrap()
        } else {
            let resumed = Tiny::resume_with_parts(config, population(), engine, disk);
            resumed.unwrap().unwrap()
        };
        let rounds_done = |part: &Tiny| part.privacy().map(PrivacyPlan::rounds_done);
        assert_eq!(rounds_done(&part), Some(part.round()));
        part.run(&mut Journal::default(), stop).unwrap();
        assert_eq!(rounds_done(&part), Some(part.round()));
        part
    };
    for after in [3, 20, 31, 40] {
        play_until(after);
    }
    let last = play_until(1_000_000);
    assert_eq!(last.round(), 6);
    assert_eq!(last.parameters().digest(), straight.parameters().digest());
    assert_eq!(saved(&last), saved(&straight));
}
