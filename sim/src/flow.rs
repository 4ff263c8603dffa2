//! An asynchronous run: clients come and go on the virtual clock, each trains from the model of the
//! moment when it was called, and the model moves whenever a number of updates has come.
//!
//! The rules are [`fl_core::BufferedServer`]'s. A *round* is here what leads from one version of the
//! model to the next. Who reports when follows from the devices, so a round is played on the clock
//! until the buffer is full; then those in it are trained, on all cores, each from its own version,
//! which is kept as long as somebody is at work on it.
//!
//! Between rounds nothing but the [`Flow`] is kept: who is at work, since when, from which version, and
//! when that will be over. It is what a checkpoint holds, so a run that was killed goes on with the
//! same clients under way. A round that is interrupted leaves no trace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fl_core::buffered::{
    Answer, BufferedRecord, BufferedServer, BufferedSettings, BufferedSetup, Command, Event,
    Notice, Refusal, Snapshot,
};
use fl_core::round::{Phase, RoundError};
use fl_core::select::{Candidates, Participation};
use fl_core::strategy::{AnyStrategy, Stragglers, Strategy as _};
use fl_core::sum::ExactSum;
use fl_core::transform::TransformChain;
use fl_core::{ClientId, ExampleCount, Parameters, Report, RoundId, VirtualTime, WorkDone};
use serde::{Deserialize, Serialize};

use crate::clock::Stopwatch;
use crate::config::SimulationConfig;
use crate::devices::{Call, End, FleetRecord, Journey, Refused, RoundEnd, Tallied};
use crate::error::SimError;
use crate::events::{EventQueue, Happening, Scheduled};
use crate::executor::{Base, Halt, Job, RoundTask};
use crate::faults::{ClientFaults, FaultsRecord};
use crate::fleet::draw_fates;
use crate::play::{count_reports, distance, expected_work, participation};
use crate::population::{Engine, Population};
use crate::record::RoundRecord;
use crate::schedule::{Mode, ScheduleConfig, seconds};
use crate::simulation::Simulation;

type Server = BufferedServer<AnyStrategy, ExactSum>;

/// Calls in vain, with nobody at work, after which a run is given up: a week of them at ten minutes
/// each.
const MOST_VAIN_CALLS: u32 = 1008;
/// The address of what happens to the server. No client has this id.
const SERVER: ClientId = ClientId(u64::MAX);

/// What is under way between two versions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    /// None before the first client is called.
    snapshot: Option<Snapshot>,
    queue: EventQueue,
    journeys: BTreeMap<ClientId, Journey>,
    versions: BTreeMap<RoundId, Arc<Parameters>>,
}

/// A [`Flow`] in a checkpoint.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedFlow {
    snapshot: Option<Snapshot>,
    events: Vec<Scheduled>,
    journeys: Vec<Journey>,
    versions: Vec<(RoundId, Parameters)>,
}

impl Flow {
    pub(crate) fn save(&self) -> SavedFlow {
        SavedFlow {
            snapshot: self.snapshot.clone(),
            events: self.queue.to_sorted(),
            journeys: self.journeys.values().cloned().collect(),
            versions: (self.versions.iter())
                .map(|(&version, model)| (version, Parameters::clone(model)))
                .collect(),
        }
    }

    /// What was saved, of a model with the parameters of `like`; the reason where it cannot be.
    pub(crate) fn restored(saved: SavedFlow, like: &Parameters) -> Result<Self, String> {
        let foreign = |model: &Parameters| model.layout() != like.layout();
        if saved.versions.iter().any(|(_, model)| foreign(model)) {
            return Err("a version under way is another model's".to_owned());
        }
        let versions: BTreeMap<_, _> = (saved.versions.into_iter())
            .map(|(version, model)| (version, Arc::new(model)))
            .collect();
        let needed = saved.snapshot.as_ref().map(Snapshot::versions);
        if let Some(missing) = (needed.iter().flatten()).find(|&it| !versions.contains_key(it)) {
            return Err(format!("version {missing} is under way and not there"));
        }
        let journeys = saved.journeys.into_iter();
        let journeys = journeys.map(|journey| (journey.client, journey));
        Ok(Self {
            snapshot: saved.snapshot,
            queue: saved.events.into_iter().collect(),
            journeys: journeys.collect(),
            versions,
        })
    }
}

/// Whether an asynchronous run goes together with the rest of the configuration.
///
/// # Errors
/// [`SimError::OutOfRange`] naming what does not.
pub(crate) fn check(config: &SimulationConfig) -> Result<(), SimError> {
    if config.schedule.mode == Mode::Synchronous {
        return Ok(());
    }
    let apart = [
        (
            "privacy",
            config.privacy.is_some(),
            "none with schedule.mode = \"asynchronous\": no accountant here covers who takes part then",
        ),
        (
            "secagg",
            config.secagg.is_some(),
            "none with schedule.mode = \"asynchronous\": a session has one cohort",
        ),
        (
            "aggregation.robust",
            config.aggregation.robust.is_some(),
            "none with schedule.mode = \"asynchronous\": groups are made of one cohort",
        ),
        (
            "pruning",
            config.pruning.is_some(),
            "none with schedule.mode = \"asynchronous\": clients under way hold other weights",
        ),
        (
            "fleet.stragglers",
            config.fleet.stragglers > 0.0,
            "0 with schedule.mode = \"asynchronous\": there the devices say who is slow",
        ),
    ];
    match apart.into_iter().find(|(_, given, _)| *given) {
        None => Ok(()),
        Some((key, _, range)) => Err(SimError::OutOfRange {
            key,
            value: "given".to_owned(),
            range,
        }),
    }
}

/// How many train at a time, and by how many updates the model moves; none of a synchronous run.
pub(crate) fn settings(
    schedule: &ScheduleConfig,
    concurrency: u64,
) -> Result<Option<BufferedSettings>, SimError> {
    let Mode::Asynchronous {
        buffer,
        max_staleness,
    } = schedule.mode
    else {
        return Ok(None);
    };
    let settings = BufferedSettings::new(concurrency, buffer, max_staleness, schedule.deadline());
    let refused = |source| crate::config::refused("schedule", source);
    settings.map(Some).map_err(refused)
}

/// A round as it was played.
struct Played {
    record: RoundRecord,
    flow: Flow,
    /// Journeys that are over, with their ends.
    over: Vec<(Journey, End, VirtualTime)>,
    took_part: Vec<(ClientId, Participation)>,
}

/// A round that is being played.
struct Step {
    server: Server,
    flow: Flow,
    refused: Refused,
    /// Journeys that are over, with their ends.
    over: Vec<(Journey, End, VirtualTime)>,
    suffered: FaultsRecord,
    vain: u32,
    /// Whether the server will look for clients again.
    calling: bool,
}

impl Step {
    /// A client's journey ends now, in its own way or not.
    fn end(&mut self, client: ClientId, end: End, now: VirtualTime) {
        if let Some(journey) = self.flow.journeys.remove(&client) {
            self.over.push((journey, end, now));
        }
    }

    /// Whom the server has told to stop is at its end.
    fn hear(&mut self, now: VirtualTime) -> Vec<(ClientId, RoundId)> {
        let mut called = Vec::new();
        while let Some(transmit) = self.server.poll_transmit() {
            match transmit.command {
                Command::Train(version) => called.push((transmit.client, version)),
                Command::Stop => self.end(transmit.client, End::Late, now),
            }
        }
        called
    }
}

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Plays until the model has moved once.
    pub(crate) fn play_flow(
        &mut self,
        settings: BufferedSettings,
        stop: &AtomicBool,
    ) -> Result<RoundRecord, Halt> {
        let round = self.server.round();
        let began = self.clock;
        let played = self.play_step(settings, stop);
        if played.is_err() {
            self.clock = began;
        }
        let played = played?;
        self.flow = played.flow;
        if let Some(devices) = &mut self.devices {
            for (journey, end, ended) in &played.over {
                devices.end(round, journey, end.moment(journey, *ended));
            }
            devices.settle_in(round, self.clock);
        }
        if let Some(history) = &mut self.history {
            for (client, part) in played.took_part {
                history.took_part(client, round, part);
            }
        }
        Ok(played.record)
    }

    fn play_step(&mut self, settings: BufferedSettings, stop: &AtomicBool) -> Result<Played, Halt> {
        let round = self.server.round();
        let failed = |source: RoundError| SimError::Round { round, source };
        let started = self.clock;
        let mut step = self.open_step(settings, self.flow.clone())?;
        // Before so many things have happened.
        let mut restart = self.restarts_before(settings.buffer() as usize);
        for happened in 0.. {
            if step.server.phase() != Phase::Training {
                break;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Halt::Stopped);
            }
            self.fill(&mut step)?;
            if restart.take_if(|at| *at <= happened).is_some() {
                step = self.restart_step(settings, step)?;
            }
            self.advance(&mut step)?;
        }
        let plan = step.server.plan().map_err(|source| failed(source.into()))?;
        let mut record = RoundRecord {
            round: round.0,
            learning_rate: f64::from(plan.learning_rate.rate(round, 0)),
            ..RoundRecord::default()
        };
        self.buffers.before.clear();
        self.buffers
            .before
            .extend_from_slice(step.server.global().values());

        let versions: Vec<RoundId> = step.flow.versions.keys().copied().collect();
        let jobs: Vec<Job> = step
            .server
            .buffer()
            .filter_map(|accepted| {
                let client = accepted.report.client;
                let limit = step.flow.journeys.get(&client)?.limit;
                let examples = accepted.report.examples.0;
                Some(Job {
                    client,
                    limit,
                    weight: accepted.weight,
                    length: expected_work(&plan, limit, examples).examples,
                    base: versions.binary_search(&accepted.report.round).ok()? as u32,
                    spoiled: self.faults_of(accepted.report.round, client).not_finite,
                })
            })
            .collect();
        let current = Arc::new(step.server.global().clone());
        let relative_to = step.server.strategy().relative_to();
        let bases: Vec<Base<'_>> = (step.flow.versions.iter())
            .map(|(&version, model)| Base {
                round: version,
                global: model,
                relative_to,
                current: &current,
            })
            .collect();
        let task = RoundTask {
            seed: self.config.seed,
            round,
            plan: &plan,
            bases: &bases,
            clipper: None,
            noising: None,
            live: None,
            parts: None,
            pruned: None,
        };
        let training = Stopwatch::start();
        let trained = self.executor.train(&self.population, &task, &jobs, stop)?;
        record.training_seconds = training.seconds();
        let clock = self.clock;
        let server = &mut step.server;
        self.executor
            .hand_over(&trained, &jobs, |sum, clients| {
                let event = Event::Summed { sum, clients };
                server.handle(clock, event).map(|_| ())
            })
            .map_err(failed)?;
        let reports = trained.into_reports();
        count_reports(&reports, &[], &mut record);
        let mut took_part = Vec::with_capacity(reports.len());
        for report in &reports {
            let client = jobs[report.job as usize].client;
            let end = match report.is_summed() {
                true => {
                    let part = participation(report, step.flow.journeys.get(&client));
                    took_part.push((client, part));
                    End::Counted
                }
                false => End::Refused,
            };
            step.end(client, end, clock);
        }
        // Those that have become too stale.
        step.hear(clock);
        let mut ended = None;
        while let Some(notice) = step.server.poll() {
            if let Notice::Ended(record) = notice {
                ended = Some(record);
            }
        }
        let ended = ended.ok_or_else(|| failed(RoundError::NoRound))?;
        self.record_step(&ended, &mut step, started, &mut record);

        let (state, version) = (step.server.state().clone(), step.server.version());
        let snapshot = step.server.snapshot().map_err(failed)?;
        let Step { mut flow, over, .. } = step;
        self.server = self.server_at(state, version);
        let global = Arc::new(self.server.global().clone());
        flow.versions.insert(version, global);
        let needed = snapshot.versions();
        flow.versions.retain(|version, _| needed.contains(version));
        flow.snapshot = Some(snapshot);
        record.update_norm = distance(&self.buffers.before, self.server.global().values());
        Ok(Played {
            record,
            flow,
            over,
            took_part,
        })
    }

    /// The aggregator restarts: it goes on from what a checkpoint would hold of it now.
    fn restart_step(
        &mut self,
        settings: BufferedSettings,
        mut step: Step,
    ) -> Result<Step, SimError> {
        let round = self.server.round();
        let encode = |reason: String| SimError::Encode {
            what: "state of the clients under way",
            reason,
        };
        // News of single phases and reports, which nobody waits for.
        while step.server.poll().is_some() {}
        let snapshot = step.server.snapshot();
        let snapshot = snapshot.map_err(|source| SimError::Round { round, source })?;
        step.flow.snapshot = Some(snapshot);
        let bytes = postcard::to_stdvec(&step.flow.save());
        let saved = bytes.and_then(|bytes| postcard::from_bytes::<SavedFlow>(&bytes));
        let saved = saved.map_err(|error| encode(error.to_string()))?;
        let flow = Flow::restored(saved, self.server.global()).map_err(encode)?;
        let restored = self.open_step(settings, flow)?;
        step.suffered.restarts += 1;
        Ok(Step {
            refused: step.refused,
            over: step.over,
            suffered: step.suffered,
            vain: step.vain,
            ..restored
        })
    }

    /// The machine as it was left, or at its beginning.
    fn open_step(&mut self, settings: BufferedSettings, mut flow: Flow) -> Result<Step, SimError> {
        let round = self.server.round();
        let failed = |source: RoundError| SimError::Round { round, source };
        let parameters = self.server.global().values().len();
        let empty = self.executor.empty_sum(self.ring, parameters);
        let setup = BufferedSetup {
            selector: Box::new(self.selector.clone()),
            local: self.config.local,
            settings,
            chain: TransformChain::default(),
            seed: self.config.seed,
            population: self.population.clients(),
        };
        let strategy = self.server.strategy().clone();
        let state = self.server.state().clone();
        let server = match flow.snapshot.take() {
            Some(snapshot) => BufferedServer::restore(strategy, state, setup, empty, snapshot)
                .map_err(|source| SimError::Flow { round, source })?,
            None => {
                let global = Arc::new(self.server.global().clone());
                flow.versions.insert(round, global);
                let server = BufferedServer::new(strategy, state, round, setup, empty);
                let mut server = server.map_err(failed)?;
                server.start(self.clock).map_err(failed)?;
                server
            }
        };
        let calling = flow
            .queue
            .to_sorted()
            .iter()
            .any(|next| next.what == Happening::Calls);
        Ok(Step {
            server,
            flow,
            refused: Refused::default(),
            over: Vec::new(),
            suffered: FaultsRecord::default(),
            vain: 0,
            calling,
        })
    }

    /// Calls clients to the free places.
    fn fill(&mut self, step: &mut Step) -> Result<(), SimError> {
        let round = self.server.round();
        let failed = |source: RoundError| SimError::Round { round, source };
        let Some(devices) = &self.devices else {
            return Ok(());
        };
        if step.server.free_places() == 0 || step.calling {
            return Ok(());
        }
        let (clock, population) = (self.clock, &self.population);
        let refused = &step.refused;
        let may_come =
            |client| devices.may_come(client, population.train_len(client), clock, refused);
        let examples = |client| ExampleCount(population.train_len(client));
        let mut candidates =
            Candidates::eligible(population.clients(), &may_come).with_examples(&examples);
        if let Some(history) = &self.history {
            candidates = candidates.with_history(history);
        }
        step.server.offer(clock, &candidates).map_err(failed)?;
        let called = step.hear(clock);
        let plan = step.server.plan().map_err(|source| failed(source.into()))?;
        let clients: Vec<ClientId> = called.iter().map(|&(client, _)| client).collect();
        let fates = &mut self.buffers.fates;
        let (seed, version) = (self.config.seed, step.server.version());
        draw_fates(
            &self.config.fleet,
            seed,
            version,
            plan.work,
            &clients,
            fates,
        );
        for (&client, fate) in clients.iter().zip(fates.iter()) {
            let call = Call {
                seed,
                round: version,
                start: clock,
                deadline: self.config.schedule.deadline().map(|span| clock + span),
                partial: step.server.strategy().stragglers() == Stragglers::Partial,
            };
            let examples = population.train_len(client);
            let faults = self.config.faults.as_ref();
            let faults = faults.map(|faults| faults.of_client(seed, version, client));
            let faults = faults.unwrap_or(ClientFaults::NONE);
            step.suffered.count_called(&faults);
            let journey = devices.journey(&call, client, examples, fate, &faults);
            let end = journey.end();
            step.flow.queue.push(end.time, end.what, client);
            step.flow.journeys.insert(client, journey);
        }
        if step.server.free_places() > 0 {
            let again = clock + self.config.schedule.retry_after();
            step.flow.queue.push(again, Happening::Calls, SERVER);
            step.calling = true;
        }
        Ok(())
    }

    /// Lets time go on to what happens next.
    fn advance(&mut self, step: &mut Step) -> Result<(), SimError> {
        let round = self.server.round();
        let failed = |source: RoundError| SimError::Round { round, source };
        let timeout = step.server.poll_timeout();
        let next = step.flow.queue.next_time();
        if let Some(timeout) = timeout
            && next.is_none_or(|next| timeout <= next)
        {
            self.clock = timeout;
            step.server.handle_timeout(timeout).map_err(failed)?;
            step.hear(timeout);
            return Ok(());
        }
        let Some(next) = step.flow.queue.pop() else {
            let calls = step.vain;
            return Err(SimError::NobodyComes { round, calls });
        };
        let now = next.time;
        if next.what == Happening::Calls {
            self.clock = now;
            step.calling = false;
            step.vain = match step.flow.journeys.is_empty() {
                true => step.vain + 1,
                false => 0,
            };
            // Everybody who could be called was given this version: make one of what there is.
            if step.flow.journeys.len() == step.server.buffer().count() && step.vain == 0 {
                step.server.flush(now).map_err(failed)?;
            }
            return match step.vain > MOST_VAIN_CALLS {
                true => Err(SimError::NobodyComes {
                    round,
                    calls: MOST_VAIN_CALLS,
                }),
                false => Ok(()),
            };
        }
        let client = next.client;
        // What was to happen to somebody who was stopped does not.
        let Some(journey) = step
            .flow
            .journeys
            .get(&client)
            .filter(|it| it.end() == next)
        else {
            return Ok(());
        };
        self.clock = now;
        let faults = self.faults_of(journey.round, client);
        if next.what == Happening::Leaves || faults.lost {
            match next.what {
                Happening::Leaves => step.suffered.count_gone(&faults),
                _ => step.suffered.lost += 1,
            }
            let end = match next.what {
                Happening::Leaves => End::Left,
                _ => End::Lost,
            };
            let answer = step.server.handle(now, Event::Dropped(client));
            answer.map_err(failed)?;
            step.end(client, end, now);
            return Ok(());
        }
        let examples = self.population.train_len(client);
        let plan = step.server.plan().map_err(|source| failed(source.into()))?;
        let report = Report {
            client,
            round: journey.round,
            examples: ExampleCount(examples),
            steps: expected_work(&plan, journey.limit, examples).steps,
            work: match journey.cut {
                true => WorkDone::Partial,
                false => WorkDone::Full,
            },
            cost: journey.cost(),
        };
        if faults.spoils(&report, step.server.global().values()) {
            step.suffered.corrupted += 1;
            let answer = step.server.handle(now, Event::Failed(client));
            answer.map_err(failed)?;
            step.end(client, End::Refused, now);
            return Ok(());
        }
        let answer = step.server.handle(now, Event::Reported(report));
        if faults.duplicated {
            let again = step.server.handle(now, Event::Reported(report));
            let refused = matches!(again.map_err(failed)?, Answer::Refused(_));
            step.suffered.duplicated += u64::from(refused);
        }
        match answer.map_err(failed)? {
            Answer::Refused(Refusal::TooStale) => step.end(client, End::Late, now),
            Answer::Refused(_) => step.end(client, End::Refused, now),
            Answer::Accepted { .. } | Answer::Waiting | Answer::Noted => {}
        }
        step.hear(now);
        Ok(())
    }

    /// What the step was on the devices.
    fn record_step(
        &mut self,
        ended: &BufferedRecord,
        step: &mut Step,
        started: VirtualTime,
        record: &mut RoundRecord,
    ) {
        let since = |moment: VirtualTime| seconds(moment - VirtualTime(0));
        let (asked, ineligible) = (step.refused.asked(), step.refused.counts());
        let accepted = ended.tally.seen() + ended.lost;
        let mut fleet = FleetRecord {
            started: since(started),
            ended: since(self.clock),
            end: RoundEnd::from(ended.outcome),
            asked,
            eligible: asked - ineligible.total(),
            ineligible,
            staleness_mean: ended.staleness as f64 / accepted.max(1) as f64,
            staleness_max: ended.stalest,
            in_flight: ended.training,
            ..FleetRecord::default()
        };
        step.over
            .sort_by_key(|(journey, ..)| (journey.client, journey.started));
        let mut tallied = Tallied::default();
        self.buffers.parts.clear();
        for (journey, end, over) in &step.over {
            tallied.count(journey, *end, *over, &mut fleet);
            if self.config.telemetry.per_client
                && let Some(devices) = &self.devices
            {
                let over = end.moment(journey, *over);
                let part = devices.part(journey.round, journey, *end, over);
                self.buffers.parts.push(part);
            }
        }
        record.cohort = step.over.len() as u64;
        record.reported = ended.tally.clients;
        record.rejected = ended.tally.rejected.total();
        record.dropped = ended.dropped + ended.failed + ended.stragglers + ended.lost;
        // Those that are stopped at the step are in the machine's next record.
        let late = step.over.iter().filter(|(_, end, _)| *end == End::Late);
        record.surplus = late.count() as u64;
        record.saturated = ended.tally.saturated;
        record.bytes_down = tallied.bytes_down;
        record.bytes_up = tallied.bytes_up;
        tallied.finish(self.config.telemetry.minimum_group, &mut fleet);
        record.faults = self.config.faults.as_ref().map(|_| step.suffered);
        record.fleet = Some(fleet);
    }
}
