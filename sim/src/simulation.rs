//! A run: rounds, evaluations and checkpoints, one after the other.
//!
//! The rules of a round are [`fl_core::RoundServer`]'s; what the simulated fleet tells it is in
//! the module `play`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fl_core::buffered::BufferedSettings;
use fl_core::registry::ConfigError;
use fl_core::round::{RoundServer, RoundSettings, RunSetup};
use fl_core::select::{AnySelector, History, Selector as _};
use fl_core::strategy::{AnyState, AnyStrategy, ModelState as _, Strategy as _};
use fl_core::sum::ExactSum;
use fl_core::transform::TransformChain;
use fl_core::{
    ClientId, Mask, Parameters, Purpose, RingPlan, RoundId, ServedModel, Stream, VirtualTime,
};
use fl_datasets::FederatedDataset;
use fl_edge::{Model, Observed};
use fl_privacy::plan::ExamplePermit;
use sha2::{Digest as _, Sha256};

use crate::aggregation::plan_ring;
use crate::audit::Tap;
use crate::calibrate::{Drawn, Federation};
use crate::checkpoint::{
    Checkpoint, CheckpointError, CheckpointStore, CheckpointWarning, Disk, Found, Identity,
    LocalDisk, ServedFile,
};
use crate::config::{CalibrationSource, SimulationConfig, refused};
use crate::devices::{ClientPart, Devices, Journey, Refused};
use crate::distribution;
use crate::error::SimError;
use crate::evaluate::{Sample, judge};
use crate::executor::{Executor, Halt, Job};
use crate::faults::{self, ClientFaults, FaultsRecord};
use crate::fleet::ClientFate;
use crate::flow::{self, Flow};
use crate::population::{Engine, Population};
use crate::privacy::{self, Privacy, PrivacyPlan};
use crate::progress::Progress;
use crate::record::{Observer, PatchRecord, RecorderPosition};
use crate::regions;
use crate::secagg::{ClosePair, Differencing, SecAggPlan};

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
    /// The privacy budget does not allow another round; [`Simulation::privacy`] says why.
    BudgetSpent {
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
    pub(crate) config: SimulationConfig,
    pub(crate) identity: Identity,
    pub(crate) population: P,
    strategy: AnyStrategy,
    pub(crate) selector: AnySelector,
    pub(crate) ring: RingPlan,
    pub(crate) server: RoundServer<AnyStrategy, ExactSum>,
    pub(crate) executor: Executor<P, E>,
    pub(crate) privacy: Option<PrivacyPlan>,
    pub(crate) secagg: Option<SecAggPlan>,
    /// The clients' devices; no time passes without.
    pub(crate) devices: Option<Devices>,
    settings: RoundSettings,
    /// How an asynchronous run goes; none of a synchronous one.
    pub(crate) buffered: Option<BufferedSettings>,
    /// Its clients under way.
    pub(crate) flow: Flow,
    /// Now, by the virtual clock.
    pub(crate) clock: VirtualTime,
    /// Who took part so far, where the selector learns from it.
    pub(crate) history: Option<History>,
    /// What was released lately, with secure aggregation.
    pub(crate) differencing: Differencing,
    /// Weights that are pruned; none before the first pruning.
    pub(crate) pruned: Option<Arc<Mask>>,
    /// Listens to what is released; only while the run is audited.
    pub(crate) tap: Option<Box<Tap>>,
    store: Option<CheckpointStore>,
    /// Rounds done in the newest checkpoint on disk, and whether it is of after their evaluation.
    saved: Option<(u64, bool)>,
    /// Whether the global model was evaluated after the rounds done.
    evaluated: bool,
    /// Its accuracy then.
    accuracy: Option<f64>,
    /// The served model that was evaluated last, where patches are weighed.
    served: Option<ServedFile>,
    /// Whether checkpoints of a former run are still to be removed.
    fresh: bool,
    position: RecorderPosition,
    warnings: Vec<CheckpointWarning>,
    /// What stands for all in evaluations.
    sample: Sample,
    /// Examples on which a quantized model is calibrated, once they were drawn.
    calibration: Option<Drawn>,
    pub(crate) engine: E,
    pub(crate) buffers: Buffers,
}

/// Reused in every round.
#[derive(Default)]
pub(crate) struct Buffers {
    pub(crate) cohort: Vec<ClientId>,
    pub(crate) fates: Vec<ClientFate>,
    /// What befalls the clients of the cohort, in its order; empty without faults.
    pub(crate) faults: Vec<ClientFaults>,
    /// The faults that came to pass.
    pub(crate) suffered: FaultsRecord,
    /// Clients whose update was lost with their region or its session, or on the way; ascending.
    pub(crate) gone: Vec<ClientId>,
    pub(crate) jobs: Vec<Job>,
    /// The global model before the round.
    pub(crate) before: Vec<f32>,
    /// Clients that were told to train.
    pub(crate) training: Vec<ClientId>,
    /// Sums of the round that are close to earlier ones.
    pub(crate) close_pairs: Vec<ClosePair>,
    /// Leave for them to do so, where it is needed.
    pub(crate) permit: Option<ExamplePermit>,
    /// Their ways through the round, in the order of `training`; empty without devices.
    pub(crate) journeys: Vec<Journey>,
    /// What they were, where that is told.
    pub(crate) parts: Vec<ClientPart>,
    /// Who was asked to come and could not.
    pub(crate) refused: Refused,
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
        regions::check(&config)?;
        faults::check(&config)?;
        if population.clients() == 0 {
            return Err(SimError::NoClients);
        }
        let table = |table| move |source: ConfigError| refused(table, source);
        let strategy =
            AnyStrategy::from_config(config.strategy.clone()).map_err(table("strategy"))?;
        let selector =
            AnySelector::from_config(config.selection.clone()).map_err(table("selection"))?;
        let layout = engine.layout();
        let clients = population.clients();
        let examples = |client| population.train_len(client);
        let largest = (0..clients).map(|client| examples(ClientId(client))).max();
        let ring = plan_ring(&config, &strategy, &selector, clients, largest.unwrap_or(0))?;
        let privacy = PrivacyPlan::new(&config, &strategy, clients, &examples, layout, &ring)?;
        let ring = privacy.as_ref().map_or(Ok(ring), |plan| plan.ring(ring))?;
        let (parameters, noise) = (layout.len(), privacy.as_ref());
        let secagg = SecAggPlan::new(&config, &strategy, noise, &ring, parameters, clients)?;
        let devices = Devices::of(
            &config,
            &engine,
            privacy.as_ref(),
            secagg.is_some().then_some(&ring),
            largest.unwrap_or(0),
        )?;
        let modular = match privacy.as_ref().and_then(PrivacyPlan::clients) {
            Some(plan) => privacy::modular(plan).map_err(|source| SimError::Modular {
                round: RoundId(0),
                source,
            })?,
            None => None,
        };
        let settings = config.schedule.rounds().map_err(table("schedule"))?;
        flow::check(&config)?;
        let buffered = flow::settings(&config.schedule, selector.largest_goal(clients))?;
        let mut init = Stream::at(Purpose::ModelInit, config.seed, RoundId(0), ClientId(0));
        let state = strategy.init(engine.init(&mut init));
        let store = config
            .checkpoint
            .as_ref()
            .map(|checkpoint| CheckpointStore::new(checkpoint.dir.clone(), disk));
        if let Some(store) = &store {
            store.create_dir()?;
        }
        let simulation = Self {
            identity: Identity {
                config: config.digest()?,
                data: population.digest(),
                layout: model_digest(engine.layout(), engine.teacher()),
                kernel: engine.kernel(),
            },
            server: RoundServer::new(
                strategy.clone(),
                state,
                RoundId(0),
                setup(&config, &selector, clients, privacy.as_ref(), settings),
            ),
            executor: Executor::new(config.threads, &engine, ring, modular)?,
            privacy,
            secagg,
            devices,
            settings,
            buffered,
            flow: Flow::default(),
            clock: VirtualTime(0),
            history: selector.needs_history().then(History::default),
            differencing: Differencing::default(),
            pruned: None,
            tap: None,
            sample: Sample::draw(&config.evaluation, config.seed, &population)?,
            calibration: None,
            engine,
            config,
            population,
            strategy,
            selector,
            ring,
            store,
            saved: None,
            evaluated: false,
            accuracy: None,
            served: None,
            fresh: true,
            position: RecorderPosition::default(),
            warnings: Vec::new(),
            buffers: Buffers::default(),
        };
        simulation.check_amplification()?;
        Ok(simulation)
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
        let taught = self.engine.teacher().is_some();
        check_identity(&path, &checkpoint.identity, &self.identity, taught)?;
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
        let damaged = |error: postcard::Error| bad(error.to_string());
        let (state, mut rest): (AnyState, _) = match self.secagg {
            None => postcard::take_from_bytes(&checkpoint.state).map_err(damaged)?,
            Some(_) => {
                let ((state, recent), rest) =
                    postcard::take_from_bytes(&checkpoint.state).map_err(damaged)?;
                self.differencing = recent;
                (state, rest)
            }
        };
        if let Some(devices) = &mut self.devices {
            let (lasting, left) = postcard::take_from_bytes(rest).map_err(damaged)?;
            (self.clock, rest) = (devices.restore(lasting), left);
            if self.buffered.is_some() {
                let (saved, left) = postcard::take_from_bytes(rest).map_err(damaged)?;
                self.flow = Flow::restored(saved, state.global()).map_err(bad)?;
                rest = left;
            }
        }
        if let Some(history) = &mut self.history {
            (*history, rest) = postcard::take_from_bytes(rest).map_err(damaged)?;
        }
        let mask = rest;
        self.decode_mask(mask).map_err(bad)?;
        if state.global().layout() != self.server.global().layout() {
            return Err(bad("its parameters are another model's".to_owned()).into());
        }
        let resumed = self.resume_privacy(checkpoint.round, &checkpoint.privacy);
        resumed.map_err(|source| CheckpointError::Privacy {
            path: path.clone(),
            source,
        })?;
        self.server = self.server_at(state, checkpoint.round);
        self.saved = Some((checkpoint.round.0, checkpoint.evaluated));
        self.evaluated = checkpoint.evaluated;
        self.accuracy = checkpoint.accuracy;
        self.served = checkpoint.served;
        self.position = checkpoint.position;
        self.fresh = false;
        self.warnings = warnings;
        Ok(self)
    }

    pub(crate) fn server_at(
        &self,
        state: AnyState,
        round: RoundId,
    ) -> RoundServer<AnyStrategy, ExactSum> {
        let clients = self.population.clients();
        let privacy = self.privacy.as_ref();
        let setup = setup(
            &self.config,
            &self.selector,
            clients,
            privacy,
            self.settings,
        );
        RoundServer::new(self.strategy.clone(), state, round, setup)
    }

    /// Plays rounds until all are done, the accuracy asked for is reached or `stop` is raised.
    /// On a finished run it does nothing. A round or an evaluation that is interrupted leaves no
    /// trace: called again, or resumed, the run goes on as if it had never been stopped.
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
            self.fresh = false;
        }
        loop {
            let ended = match self.step(observer, stop) {
                Ok(None) => continue,
                Ok(Some(outcome)) => outcome,
                Err(Halt::Stopped) => Outcome::Stopped {
                    round: self.round(),
                },
                Err(Halt::Failed(error)) => return Err(error),
            };
            self.save(observer)?;
            return Ok(ended);
        }
    }

    /// Does what is due after the rounds done, and unless that ends the run, plays a round.
    fn step(
        &mut self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<Outcome>, Halt> {
        let done = self.round();
        let evaluation = &self.config.evaluation;
        let evaluate = match done {
            0 => evaluation.initial,
            done => done.is_multiple_of(evaluation.every) || done == self.last_round(),
        };
        if evaluate && !self.evaluated {
            self.evaluate(observer, stop)?;
        }
        if let Some(checkpoint) = &self.config.checkpoint
            && done > 0
            && done.is_multiple_of(checkpoint.every)
        {
            self.save(observer)?;
        }
        if let Some(outcome) = self.ended() {
            return Ok(Some(outcome));
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Halt::Stopped);
        }
        let record = self.play(stop)?;
        self.evaluated = false;
        self.accuracy = None;
        observer.moved(record.round, self.server.global());
        observer.round(&record);
        for part in self.buffers.parts.drain(..) {
            observer.took_part(&part);
        }
        for pair in &self.buffers.close_pairs {
            observer.close_pair(pair);
        }
        Ok(None)
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

    /// Whether the model was evaluated after the rounds done.
    #[must_use]
    pub fn is_evaluated(&self) -> bool {
        self.evaluated
    }

    /// Where the recorder stood at the checkpoint that the run was resumed from; zero for a run
    /// from its beginning. What it recorded after that is to be forgotten.
    #[must_use]
    pub fn position(&self) -> RecorderPosition {
        self.position
    }

    /// Checkpoints that were passed over on resume; [`run`](Self::run) hands them to the observer
    /// and leaves none here.
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

    /// How far the work at hand is: to be read from another thread while the run goes on.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(self.executor.progress())
    }

    /// Worker threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.executor.threads()
    }

    /// The plan of secure aggregation; none without it.
    #[must_use]
    pub fn secagg(&self) -> Option<&SecAggPlan> {
        self.secagg.as_ref()
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
        if round >= self.config.rounds {
            return Some(Outcome::Finished);
        }
        (round >= self.last_round()).then_some(Outcome::BudgetSpent { round })
    }

    /// Rounds to be done in all: those asked for, or those that the privacy budget allows.
    fn last_round(&self) -> u64 {
        let allowed = self.privacy.as_ref().map(PrivacyPlan::last_round);
        allowed.map_or(self.config.rounds, |allowed| {
            allowed.min(self.config.rounds)
        })
    }

    /// The privacy plan with its ledger; none without privacy.
    #[must_use]
    pub fn privacy(&self) -> Option<&PrivacyPlan> {
        self.privacy.as_ref()
    }

    fn evaluate(&mut self, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<(), Halt> {
        let round = self.server.round();
        let int8 = self.serve_int8(round, stop)?;
        let end = self.last_round();
        let config = &self.config;
        let last = |accuracy: Option<f64>| {
            let reached = match (accuracy, config.stop_at_accuracy) {
                (Some(accuracy), Some(target)) => accuracy >= target,
                _ => false,
            };
            reached || round.0 >= end
        };
        let mut judgement = judge(
            &mut self.executor,
            &self.population,
            &config.evaluation,
            &self.sample,
            self.server.global(),
            int8.as_deref(),
            round,
            last,
            stop,
        )?;
        if let Some(model) = int8.filter(|_| self.config.evaluation.patches) {
            judgement.record.patch = self.weigh_patch(&*model, round)?;
            let served = self.served.iter().find(|served| served.round == round.0);
            served
                .into_iter()
                .for_each(|served| observer.served(served));
        }
        for client in &judgement.clients {
            observer.client_evaluated(client);
        }
        self.evaluated = true;
        self.accuracy = judgement.record.test_accuracy;
        observer.evaluated(&judgement.record);
        Ok(())
    }

    /// The patch that leads to `model` from the one that was evaluated before it, which it replaces.
    fn weigh_patch(
        &mut self,
        model: &dyn ServedModel,
        round: RoundId,
    ) -> Result<Option<PatchRecord>, SimError> {
        // A device that is offered no file keeps what it has.
        let Some(bytes) = model.file() else {
            return Ok(None);
        };
        let served = ServedFile {
            round: round.0,
            bytes: Arc::new(bytes),
        };
        let before = self.served.as_ref();
        let patch = before.map(|before| distribution::weigh(before, &served));
        self.served = Some(served);
        patch
            .transpose()
            .map_err(|source| SimError::Patch { round, source })
    }

    /// The global model as a device serves it, where it is to be judged.
    fn serve_int8(
        &mut self,
        round: RoundId,
        stop: &AtomicBool,
    ) -> Result<Option<Box<dyn ServedModel>>, Halt> {
        let SimulationConfig {
            seed, evaluation, ..
        } = &self.config;
        if !evaluation.int8 {
            return Ok(None);
        }
        let (engine, global) = (&self.engine, self.server.global());
        let summed;
        let observed = if !engine.needs_calibration(global) {
            Observed::Nothing
        } else {
            match evaluation.calibration.source {
                CalibrationSource::Central { samples } => {
                    if self.calibration.is_none() {
                        self.calibration = Drawn::draw(&self.population, *seed, samples);
                    }
                    let drawn = self.calibration.as_ref();
                    Observed::Examples(drawn.ok_or(SimError::NoCalibration)?)
                }
                CalibrationSource::Federated {
                    clients,
                    samples,
                    bins,
                } => {
                    let federation = Federation {
                        clients,
                        samples,
                        bins,
                        seed: *seed,
                        round,
                    };
                    let (executor, population) = (&self.executor, &self.population);
                    summed = federation.count(executor, population, engine, global, stop)?;
                    Observed::Histograms(&summed)
                }
            }
        };
        let served = engine.serve_int8(global, observed, &evaluation.calibration);
        let served = served.map_err(|source| SimError::Quantize { round, source })?;
        Ok(Some(served))
    }

    /// Writes a checkpoint unless the newest is of this moment.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), SimError> {
        let round = self.server.round();
        let mask = self.encode_mask();
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let moment = Some((round.0, self.evaluated));
        if self.saved == moment {
            return Ok(());
        }
        let recorded = |source| SimError::Observer { round, source };
        let position = observer.flush(round).map_err(recorded)?;
        let state = match self.secagg {
            None => postcard::to_stdvec(self.server.state()),
            Some(_) => postcard::to_stdvec(&(self.server.state(), &self.differencing)),
        };
        let clock = self.clock;
        let flow = self.buffered.map(|_| self.flow.save());
        let lasting = self.devices.as_ref().map(|devices| devices.lasting(clock));
        let state = state.and_then(|mut state| {
            if let Some(lasting) = lasting {
                state.extend(postcard::to_stdvec(&lasting)?);
            }
            if let Some(flow) = flow {
                state.extend(postcard::to_stdvec(&flow)?);
            }
            if let Some(history) = &self.history {
                state.extend(postcard::to_stdvec(history)?);
            }
            state.extend(mask?);
            Ok(state)
        });
        let state = state.map_err(|error| SimError::Encode {
            what: "strategy's state",
            reason: error.to_string(),
        })?;
        store.write(&Checkpoint {
            identity: self.identity.clone(),
            round,
            position,
            evaluated: self.evaluated,
            accuracy: self.accuracy,
            state,
            privacy: self
                .privacy
                .as_ref()
                .map_or_else(String::new, PrivacyPlan::save),
            served: self.served.clone(),
        })?;
        self.saved = moment;
        observer.checkpointed(round).map_err(recorded)
    }
}

fn setup(
    config: &SimulationConfig,
    selector: &AnySelector,
    population: u64,
    privacy: Option<&PrivacyPlan>,
    settings: RoundSettings,
) -> RunSetup {
    RunSetup {
        selector: Box::new(selector.clone()),
        local: privacy.map_or(config.local, |plan| plan.local(config.local)),
        settings: match &config.privacy {
            Some(Privacy::Central(_) | Privacy::Clients(_)) => settings.released(),
            // What clients send is private already: the strategy may see it.
            Some(Privacy::Example(_)) | None => match config.aggregation.robust {
                Some(_) => settings.combined(),
                None => settings,
            },
        },
        chain: TransformChain::default(),
        seed: config.seed,
        population,
    }
}

fn check_identity(
    path: &Path,
    found: &Identity,
    own: &Identity,
    taught: bool,
) -> Result<(), CheckpointError> {
    let model = match taught {
        true => "model or teacher",
        false => "model",
    };
    let parts = [
        ("configuration", found.config == own.config),
        ("data set", found.data == own.data),
        (model, found.layout == own.layout),
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

/// SHA-256 of the names and shapes of a model's tensors, and of what teaches it.
fn model_digest(layout: &fl_core::Layout, teacher: Option<[u8; 32]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for tensor in layout.tensors() {
        hash.update((tensor.name.len() as u64).to_le_bytes());
        hash.update(tensor.name.as_bytes());
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        for &size in &tensor.shape {
            hash.update((size as u64).to_le_bytes());
        }
    }
    if let Some(teacher) = teacher {
        hash.update(teacher);
    }
    hash.finalize().into()
}
