//! Plays rounds: drives [`fl_core::RoundServer`] with a fleet that is simulated.
//!
//! The round machine decides; this module only tells it what happened. Clients answer their
//! invitations, and report in the fleet's order, before any of them is trained: acceptance and
//! weight depend on the report alone, so clients whose update would not count are never trained.
//! Time stands still within the machine, there being no device model yet.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fl_core::registry::ConfigError;
use fl_core::round::{
    Answer, Event, Message, Notice, RoundError, RoundRecord as Protocol, RoundServer,
    RoundSettings, RunSetup,
};
use fl_core::select::{AnySelector, Candidates, Selector as _};
use fl_core::strategy::{AnyState, AnyStrategy, ModelState as _, Strategy as _};
use fl_core::sum::{Absorbed, ExactSum};
use fl_core::transform::TransformChain;
use fl_core::{
    BatchSize, Bytes, ClientId, Cost, ExampleCount, LocalPlan, LocalWork, Parameters, Purpose,
    Report, RingPlan, RoundId, Stream, VirtualDuration, VirtualTime, Weight, WeightBounds,
    WorkDone, WorkLimit,
};
use fl_datasets::FederatedDataset;
use fl_edge::Model;
use sha2::{Digest as _, Sha256};

use crate::checkpoint::{
    Checkpoint, CheckpointError, CheckpointStore, CheckpointWarning, Disk, Found, Identity,
    LocalDisk,
};
use crate::clock::Stopwatch;
use crate::config::{SimulationConfig, refused};
use crate::error::SimError;
use crate::evaluate::{judge, sample};
use crate::executor::{Done, Executor, Job, RoundTask};
use crate::fleet::{ClientFate, arrival_order, draw_fates};
use crate::population::{Engine, Population};
use crate::record::{Observer, RecorderPosition, RoundRecord};

/// The machine's clock does not move: see the module.
const NOW: VirtualTime = VirtualTime(0);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All rounds are done.
    Finished,
    /// The accuracy asked for was reached.
    TargetReached {
        /// Rounds done.
        round: u64,
    },
    /// The stop flag was raised; with checkpoints, the run can be resumed from here.
    Stopped {
        /// Rounds done.
        round: u64,
    },
}

/// A run.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::sync::atomic::AtomicBool;
/// # fn example(
/// #     config: fl_sim::SimulationConfig,
/// #     data: fl_datasets::FederatedDataset,
/// #     model: fl_edge::Model,
/// # ) -> Result<(), fl_sim::SimError> {
/// let mut simulation = fl_sim::Simulation::new(config, data, Arc::new(model))?;
/// simulation.run(&mut fl_sim::Silent, &AtomicBool::new(false))?;
/// let digest = simulation.parameters().digest();
/// # Ok(())
/// # }
/// ```
pub struct Simulation<P: Population = FederatedDataset, E: Engine = Arc<Model>> {
    config: SimulationConfig,
    identity: Identity,
    population: P,
    strategy: AnyStrategy,
    selector: AnySelector,
    ring: RingPlan,
    server: RoundServer<AnyStrategy, ExactSum>,
    executor: Executor<P, E>,
    store: Option<CheckpointStore>,
    /// Round of the newest checkpoint on disk.
    saved: Option<u64>,
    /// Accuracy of the evaluation after the rounds done, if there was one.
    accuracy: Option<f64>,
    /// Whether the initial model is still to be evaluated, and old checkpoints to be removed.
    fresh: bool,
    position: RecorderPosition,
    warnings: Vec<CheckpointWarning>,
    /// Clients that stand for all in evaluations.
    sample: Vec<ClientId>,
    buffers: Buffers,
}

/// Reused in every round.
#[derive(Default)]
struct Buffers {
    cohort: Vec<ClientId>,
    fates: Vec<ClientFate>,
    jobs: Vec<Job>,
    before: Vec<f32>,
}

impl<P: Population + core::fmt::Debug, E: Engine> core::fmt::Debug for Simulation<P, E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Simulation")
            .field("config", &self.config)
            .field("population", &self.population)
            .field("round", &self.round())
            .finish_non_exhaustive()
    }
}

impl Simulation {
    /// A run from its beginning. Checkpoints of a former run in the checkpoint folder are
    /// removed when this one begins.
    ///
    /// # Errors
    /// [`SimError`] when the configuration, the data and the model do not go together, or the
    /// checkpoint folder cannot be created.
    pub fn new(
        config: SimulationConfig,
        data: FederatedDataset,
        model: Arc<Model>,
    ) -> Result<Self, SimError> {
        Self::with_parts(config, data, model, Arc::new(LocalDisk))
    }

    /// A run from its newest whole checkpoint; none when there is no checkpoint, or no folder for
    /// them in the configuration.
    ///
    /// # Errors
    /// [`SimError`] as for [`new`](Self::new), and [`CheckpointError`] when the checkpoint is of
    /// another configuration, data set, model or kernel, or none is whole.
    pub fn resume(
        config: SimulationConfig,
        data: FederatedDataset,
        model: Arc<Model>,
    ) -> Result<Option<Self>, SimError> {
        Self::resume_with_parts(config, data, model, Arc::new(LocalDisk))
    }
}

impl<P: Population, E: Engine> Simulation<P, E> {
    /// [`new`](Simulation::new) over any population, engine and disk.
    ///
    /// # Errors
    /// As for [`new`](Simulation::new).
    pub fn with_parts(
        config: SimulationConfig,
        population: P,
        engine: E,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, SimError> {
        config.validate()?;
        if population.clients() == 0 {
            return Err(SimError::NoClients);
        }
        let table = |table| move |source: ConfigError| refused(table, source);
        let strategy =
            AnyStrategy::from_config(config.strategy.clone()).map_err(table("strategy"))?;
        let selector =
            AnySelector::from_config(config.selection.clone()).map_err(table("selection"))?;
        let ring = plan_ring(&strategy, &selector, &population)?;
        let mut init = Stream::at(Purpose::ModelInit, config.seed, RoundId(0), ClientId(0));
        let state = strategy.init(engine.init(&mut init));
        let store = config
            .checkpoint
            .as_ref()
            .map(|checkpoint| CheckpointStore::new(checkpoint.dir.clone(), disk));
        if let Some(store) = &store {
            store.create_dir()?;
        }
        Ok(Self {
            identity: Identity {
                config: config.digest()?,
                data: population.digest(),
                layout: layout_digest(engine.layout()),
                kernel: engine.kernel(),
            },
            server: RoundServer::new(
                strategy.clone(),
                state,
                RoundId(0),
                setup(&config, &selector, population.clients()),
            ),
            executor: Executor::new(config.threads, &engine, ring)?,
            sample: sample(&config.evaluation, config.seed, population.clients())?,
            config,
            population,
            strategy,
            selector,
            ring,
            store,
            saved: None,
            accuracy: None,
            fresh: true,
            position: RecorderPosition::default(),
            warnings: Vec::new(),
            buffers: Buffers::default(),
        })
    }

    /// [`resume`](Simulation::resume) over any population, engine and disk.
    ///
    /// # Errors
    /// As for [`resume`](Simulation::resume).
    pub fn resume_with_parts(
        config: SimulationConfig,
        population: P,
        engine: E,
        disk: Arc<dyn Disk>,
    ) -> Result<Option<Self>, SimError> {
        let mut simulation = Self::with_parts(config, population, engine, disk)?;
        let Some(store) = &mut simulation.store else {
            return Ok(None);
        };
        match store.newest()? {
            Some(found) => simulation.restore(found).map(Some),
            None => Ok(None),
        }
    }

    fn restore(mut self, found: Found) -> Result<Self, SimError> {
        let Found {
            path,
            checkpoint,
            warnings,
        } = found;
        check_identity(&path, &checkpoint.identity, &self.identity)?;
        if checkpoint.round.0 > self.config.rounds {
            return Err(CheckpointError::BeyondRounds {
                path,
                done: checkpoint.round.0,
                rounds: self.config.rounds,
            }
            .into());
        }
        let bad = |reason: String| CheckpointError::State {
            path: path.clone(),
            reason,
        };
        let state: AnyState =
            postcard::from_bytes(&checkpoint.state).map_err(|error| bad(error.to_string()))?;
        if state.global().layout() != self.server.global().layout() {
            return Err(bad("its parameters are another model's".to_owned()).into());
        }
        self.server = self.server_at(state, checkpoint.round);
        self.saved = Some(checkpoint.round.0);
        self.accuracy = checkpoint.accuracy;
        self.position = checkpoint.position;
        self.fresh = false;
        self.warnings = warnings;
        Ok(self)
    }

    fn server_at(&self, state: AnyState, round: RoundId) -> RoundServer<AnyStrategy, ExactSum> {
        let setup = setup(&self.config, &self.selector, self.population.clients());
        RoundServer::new(self.strategy.clone(), state, round, setup)
    }

    /// Plays rounds until all are done, the accuracy asked for is reached or `stop` is raised.
    /// On a finished run it does nothing. A round that is interrupted leaves no trace: called
    /// again, or resumed, the run goes on as if it had never been stopped.
    ///
    /// # Errors
    /// [`SimError`]; the newest checkpoint on disk stays usable.
    pub fn run(
        &mut self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Outcome, SimError> {
        for warning in self.warnings.drain(..) {
            observer.warning(&warning);
        }
        if self.fresh {
            if let Some(store) = &mut self.store {
                store.remove_all()?;
            }
            if self.config.evaluation.initial {
                self.evaluate(observer)?;
            }
            self.fresh = false;
        }
        loop {
            if let Some(outcome) = self.ended() {
                self.save(observer)?;
                return Ok(outcome);
            }
            let played = if stop.load(Ordering::Relaxed) {
                Done::Stopped
            } else {
                self.play(stop)?
            };
            let Done::All(record) = played else {
                self.save(observer)?;
                return Ok(Outcome::Stopped {
                    round: self.round(),
                });
            };
            observer.round(&record);
            self.accuracy = None;
            let done = self.round();
            if done.is_multiple_of(self.config.evaluation.every) || done == self.config.rounds {
                self.evaluate(observer)?;
            }
            if let Some(checkpoint) = &self.config.checkpoint
                && done.is_multiple_of(checkpoint.every)
            {
                self.save(observer)?;
            }
        }
    }

    /// The global model.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        self.server.global()
    }

    /// Rounds done.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.server.round().0
    }

    /// Where the recorder stood at the checkpoint that the run was resumed from; zero for a run
    /// from its beginning. What it recorded after that is to be forgotten.
    #[must_use]
    pub fn position(&self) -> RecorderPosition {
        self.position
    }

    /// Checkpoints that were passed over on resume. They are also given to the observer.
    #[must_use]
    pub fn warnings(&self) -> &[CheckpointWarning] {
        &self.warnings
    }

    /// What a checkpoint of this run belongs to.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The ring in which updates are summed.
    #[must_use]
    pub fn ring(&self) -> &RingPlan {
        &self.ring
    }

    /// Worker threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.executor.threads()
    }

    /// The population.
    #[must_use]
    pub fn population(&self) -> &P {
        &self.population
    }

    fn ended(&self) -> Option<Outcome> {
        let round = self.round();
        if let (Some(accuracy), Some(target)) = (self.accuracy, self.config.stop_at_accuracy)
            && accuracy >= target
        {
            return Some(Outcome::TargetReached { round });
        }
        (round >= self.config.rounds).then_some(Outcome::Finished)
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<(), SimError> {
        let round = self.server.round();
        let config = &self.config;
        let last = |accuracy: Option<f64>| {
            let reached = match (accuracy, config.stop_at_accuracy) {
                (Some(accuracy), Some(target)) => accuracy >= target,
                _ => false,
            };
            reached || round.0 >= config.rounds
        };
        let judgement = judge(
            &mut self.executor,
            &self.population,
            &config.evaluation,
            &self.sample,
            self.server.global(),
            round,
            last,
        )?;
        for client in &judgement.clients {
            observer.client_evaluated(client);
        }
        self.accuracy = judgement.record.test_accuracy;
        observer.evaluated(&judgement.record);
        Ok(())
    }

    /// Writes a checkpoint unless the newest is of this round.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), SimError> {
        let round = self.server.round();
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        if self.saved == Some(round.0) {
            return Ok(());
        }
        let recorded = |source| SimError::Observer { round, source };
        let position = observer.flush(round).map_err(recorded)?;
        let state = postcard::to_stdvec(self.server.state()).map_err(|error| SimError::Encode {
            what: "strategy's state",
            reason: error.to_string(),
        })?;
        store.write(&Checkpoint {
            identity: self.identity.clone(),
            round,
            position,
            accuracy: self.accuracy,
            state,
        })?;
        self.saved = Some(round.0);
        observer.checkpointed(round).map_err(recorded)
    }

    /// Plays one round; [`Done::Stopped`] leaves everything as before it.
    fn play(&mut self, stop: &AtomicBool) -> Result<Done<RoundRecord>, SimError> {
        let watch = Stopwatch::start();
        let round = self.server.round();
        let failed = |source: RoundError| SimError::Round { round, source };
        let mut record = RoundRecord {
            round: round.0,
            ..RoundRecord::default()
        };
        let plan = self
            .server
            .plan()
            .map_err(|source| failed(RoundError::Strategy(source)))?;
        record.learning_rate = f64::from(plan.learning_rate.rate(round, 0));
        let model_bytes = 4 * self.server.global().values().len() as u64;
        self.buffers.before.clear();
        self.buffers
            .before
            .extend_from_slice(self.server.global().values());

        self.invite().map_err(failed)?;
        draw_fates(
            &self.config.fleet,
            self.config.seed,
            round,
            plan.work,
            &self.buffers.cohort,
            &mut self.buffers.fates,
        );
        let fates = &self.buffers.fates;
        record.stragglers = fates.iter().filter(|fate| fate.straggler).count() as u64;
        self.take_reports(&plan, model_bytes).map_err(failed)?;

        if !self.buffers.jobs.is_empty() {
            let task = RoundTask {
                seed: self.config.seed,
                round,
                plan: &plan,
                global: self.server.global(),
            };
            let jobs = &self.buffers.jobs;
            let done = self.executor.train(&self.population, &task, jobs, stop)?;
            let Done::All(trained) = done else {
                self.server = self.server_at(self.server.state().clone(), round);
                return Ok(Done::Stopped);
            };
            let server = &mut self.server;
            self.executor
                .hand_over(&trained, jobs, |sum, clients| {
                    server
                        .handle(NOW, Event::Summed { sum, clients })
                        .map(|_| ())
                })
                .map_err(failed)?;
            let mut loss = 0.0;
            let mut counted = 0;
            for report in trained.into_reports() {
                let result = report.result;
                record.examples_processed += result.examples_processed;
                record.steps += result.steps;
                if let Absorbed::Summed { .. } = report.absorbed {
                    record.examples += result.examples.0;
                    counted += result.examples_processed;
                    loss += result.mean_loss * result.examples_processed as f64;
                }
            }
            record.train_loss = (counted > 0).then(|| loss / counted as f64);
        }

        let ended = self.drain_notices();
        if let Some(ended) = ended {
            record.cohort = ended.selected;
            record.reported = ended.tally.clients;
            record.rejected = ended.tally.rejected.total();
            record.dropped = ended.unready + ended.dropped + ended.stragglers;
            record.surplus = ended.stopped + ended.timed_out;
            record.saturated = ended.tally.saturated;
            record.bytes_down = ended.ready * model_bytes;
            record.bytes_up = ended.tally.seen() * model_bytes;
        }
        record.update_norm = distance(&self.buffers.before, self.server.global().values());
        record.seconds = watch.seconds();
        Ok(Done::All(record))
    }

    /// Starts the round and lets every client with examples answer its invitation. Leaves the
    /// cohort in the buffers.
    fn invite(&mut self) -> Result<(), RoundError> {
        let population = &self.population;
        let examples = |client| ExampleCount(population.train_len(client));
        let candidates = Candidates::everyone(population.clients()).with_examples(&examples);
        let empty = ExactSum::new(self.ring, self.server.global().values().len());
        self.server.start(NOW, &candidates, empty)?;
        let cohort = &mut self.buffers.cohort;
        cohort.clear();
        while let Some(transmit) = self.server.poll_transmit() {
            if transmit.message == Message::Invite {
                cohort.push(transmit.client);
            }
        }
        for &client in cohort.iter() {
            let event = if population.train_len(client) > 0 {
                Event::Ready(client)
            } else {
                Event::Dropped(client)
            };
            self.server.handle(NOW, event)?;
        }
        Ok(())
    }

    /// Lets the clients that were told to train report, in the order of their arrival. Leaves a
    /// job for every accepted client in the buffers, in client order.
    fn take_reports(&mut self, plan: &LocalPlan, model_bytes: u64) -> Result<(), RoundError> {
        let Buffers {
            cohort,
            fates,
            jobs,
            ..
        } = &mut self.buffers;
        let round = self.server.round();
        jobs.clear();
        let mut training = vec![false; cohort.len()];
        while let Some(transmit) = self.server.poll_transmit() {
            if transmit.message == Message::Train
                && let Ok(index) = cohort.binary_search(&transmit.client)
            {
                training[index] = true;
            }
        }
        // Who comes first matters only where more were asked than are needed.
        let goal = self.selector.largest_goal(self.population.clients());
        let order = if cohort.len() as u64 > goal {
            arrival_order(self.config.seed, round, cohort, fates)
        } else {
            (0..cohort.len() as u32).collect()
        };
        for index in order {
            let index = index as usize;
            let (client, fate) = (cohort[index], fates[index]);
            if !training[index] {
                continue;
            }
            if fate.dropped {
                self.server.handle(NOW, Event::Dropped(client))?;
                continue;
            }
            let examples = self.population.train_len(client);
            let expected = expected_work(plan, fate.limit, examples);
            let report = Report {
                client,
                round,
                examples: ExampleCount(examples),
                steps: expected.steps,
                // Late is late, even when all epochs were done at last.
                work: if fate.straggler {
                    WorkDone::Partial
                } else {
                    WorkDone::Full
                },
                cost: Cost {
                    download: Bytes(model_bytes),
                    upload: Bytes(model_bytes),
                    time: VirtualDuration(0),
                },
            };
            if let Answer::Accepted { weight } = self.server.handle(NOW, Event::Reported(report))? {
                jobs.push(Job {
                    client,
                    limit: fate.limit,
                    weight,
                    length: expected.examples,
                });
            }
        }
        jobs.sort_unstable_by_key(|job| job.client);
        Ok(())
    }

    fn drain_notices(&mut self) -> Option<Box<Protocol>> {
        while self.server.poll_transmit().is_some() {}
        let mut ended = None;
        while let Some(notice) = self.server.poll() {
            if let Notice::Ended(record) = notice {
                ended = Some(record);
            }
        }
        ended
    }
}

/// A client's work as far as it can be known before it trains.
struct ExpectedWork {
    steps: u64,
    /// All epochs together.
    examples: u64,
}

fn expected_work(plan: &LocalPlan, limit: WorkLimit, examples: u64) -> ExpectedWork {
    let batch = match plan.batch {
        BatchSize::Examples(size) => u64::from(size.get()).min(examples),
        BatchSize::Full => examples,
    };
    let limited = |full: core::num::NonZeroU32| match limit {
        WorkLimit::Full => u64::from(full.get()),
        WorkLimit::AtMost(limit) => u64::from(full.min(limit).get()),
    };
    let per_epoch = examples.div_ceil(batch.max(1));
    match plan.work {
        LocalWork::Epochs(epochs) => ExpectedWork {
            steps: limited(epochs) * per_epoch,
            examples: limited(epochs) * examples,
        },
        LocalWork::Steps(steps) => ExpectedWork {
            steps: limited(steps),
            examples: limited(steps) * batch,
        },
    }
}

/// The ring for any cohort of the population: planned once, before any update is seen.
fn plan_ring<P: Population>(
    strategy: &AnyStrategy,
    selector: &AnySelector,
    population: &P,
) -> Result<RingPlan, SimError> {
    let clients = population.clients();
    let largest = (0..clients)
        .map(|client| population.train_len(ClientId(client)))
        .max()
        .unwrap_or(0);
    let weight = strategy
        .largest_weight(ExampleCount(largest))
        .max(Weight(1));
    let goal = selector.largest_goal(clients).max(1);
    Ok(RingPlan::for_weights(WeightBounds::new(weight, goal))?)
}

fn setup(config: &SimulationConfig, selector: &AnySelector, population: u64) -> RunSetup {
    RunSetup {
        selector: Box::new(selector.clone()),
        local: config.local,
        settings: RoundSettings::default(),
        chain: TransformChain::default(),
        seed: config.seed,
        population,
    }
}

fn check_identity(path: &Path, found: &Identity, own: &Identity) -> Result<(), CheckpointError> {
    let parts = [
        ("configuration", found.config == own.config),
        ("data set", found.data == own.data),
        ("model", found.layout == own.layout),
    ];
    for (what, same) in parts {
        if !same {
            return Err(CheckpointError::Foreign {
                path: path.to_owned(),
                what,
            });
        }
    }
    if found.kernel != own.kernel {
        return Err(CheckpointError::ForeignKernel {
            path: path.to_owned(),
            found: found.kernel.clone(),
            expected: own.kernel.clone(),
        });
    }
    Ok(())
}

/// SHA-256 of the names and shapes of a model's tensors.
fn layout_digest(layout: &fl_core::Layout) -> [u8; 32] {
    let mut hash = Sha256::new();
    for tensor in layout.tensors() {
        hash.update((tensor.name.len() as u64).to_le_bytes());
        hash.update(tensor.name.as_bytes());
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        for &size in &tensor.shape {
            hash.update((size as u64).to_le_bytes());
        }
    }
    hash.finalize().into()
}

/// L2 norm of `after - before`. Sixteen interleaved sums, combined in order: a fixed tree.
fn distance(before: &[f32], after: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    for (before, after) in before.chunks(16).zip(after.chunks(16)) {
        for (sum, (before, after)) in sums.iter_mut().zip(before.iter().zip(after)) {
            let difference = f64::from(*after) - f64::from(*before);
            *sum += difference * difference;
        }
    }
    libm::sqrt(sums.iter().sum())
}
