//! One round: what the simulated fleet tells the round machine, and what the record says of it.
//!
//! Clients answer their invitations, and report in the fleet's order, before any of them is
//! trained: acceptance and weight depend on the report alone, so clients whose update would not
//! count are never trained.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use fl_core::round::{Answer, Event, Message, Notice, RoundError, RoundRecord as Protocol};
use fl_core::select::{Candidates, Participation, Selector as _};
use fl_core::strategy::Reference;
use fl_core::sum::{Absorbed, Aggregator as _, ExactSum, Tally};
use fl_core::{
    Bytes, ClientId, Cost, ExampleCount, LocalPlan, LocalWork, Report, RoundId, VirtualDuration,
    VirtualTime, WorkDone, WorkLimit,
};
use fl_privacy::clip::Clipper;
use fl_privacy::distributed::DistributedDp;

use crate::aggregation::{Groups, GroupsRecord, Parts, divide};
use crate::clock::Stopwatch;
use crate::devices::{Journey, Refused};
use crate::error::SimError;
use crate::events::{EventQueue, Happening};
use crate::executor::{Base, Halt, Job, Report as Done, RoundTask, Trained};
use crate::faults::ClientFaults;
use crate::fleet::{Vanishes, arrival_order, draw_fates};
use crate::population::{Engine, Population};
use crate::privacy::{self, ClipTally, Noising, PrivacyPlan};
use crate::record::RoundRecord;
use crate::regions::Regions;
use crate::secagg::{Context, Leaves, SecAggError, Sessions};
use crate::simulation::{Buffers, Simulation};

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Plays one round; when it is given up, everything is as before it.
    pub(crate) fn play(&mut self, stop: &AtomicBool) -> Result<RoundRecord, Halt> {
        let watch = Stopwatch::start();
        if let Some(settings) = self.buffered {
            let mut played = self.play_flow(settings, stop);
            if let Ok(record) = &mut played {
                record.seconds = watch.seconds();
            }
            return played;
        }
        let (undo, began) = (self.prune()?, self.clock);
        let mut played = self.play_pruned(stop);
        match &mut played {
            Ok(record) => record.seconds = watch.seconds(),
            Err(_) => {
                undo.into_iter().for_each(|undo| self.unprune(undo));
                self.clock = began;
            }
        }
        played
    }

    /// The round itself.
    fn play_pruned(&mut self, stop: &AtomicBool) -> Result<RoundRecord, Halt> {
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
        if let Some(privacy) = &self.privacy {
            let checked = privacy.check_local(&self.config.local, &plan);
            checked.map_err(SimError::from)?;
        }
        record.learning_rate = f64::from(plan.learning_rate.rate(round, 0));
        let model_bytes = 4 * self.server.global().values().len() as u64;
        self.buffers.before.clear();
        self.buffers
            .before
            .extend_from_slice(self.server.global().values());

        self.invite()?;
        draw_fates(
            &self.config.fleet,
            self.config.seed,
            round,
            plan.work,
            &self.buffers.cohort,
            &mut self.buffers.fates,
        );
        self.hear_who_trains();
        self.draw_faults(round);
        self.start_journeys();
        let fates = &self.buffers.fates;
        record.stragglers = fates.iter().filter(|fate| fate.straggler).count() as u64;
        let mut regions = self.open_regions(round).map_err(failed)?;
        self.take_reports(&plan, model_bytes, regions.as_mut())
            .map_err(failed)?;
        let trained_until = self.clock;
        let sessions = self.open_sessions(round, regions.as_ref());
        let mut sessions = sessions.map_err(SimError::from)?;
        let mut groups = self.open_groups(sessions.as_ref()).map_err(failed)?;
        let mut regions = match regions {
            None => None,
            Some(mut regions) => {
                let parts = self.part_regions(&mut regions, sessions.as_ref());
                Some((regions, parts.map_err(failed)?))
            }
        };
        if let Some(sessions) = &mut sessions {
            sessions.seat(&self.buffers.jobs);
        }
        let restarts = self.buffers.suffered.restarts > 0;
        let mut lost = match &groups {
            _ if restarts => true,
            Some(groups) => !groups.are_enough(),
            None if regions.is_some() => false,
            None => sessions.as_ref().is_some_and(Sessions::failed_early),
        };
        record.groups = groups.as_ref().map(Groups::given_up);
        if lost {
            // Nobody is told to train.
            self.buffers.jobs.clear();
            self.buffers.training.clear();
        }
        self.authorise(round).map_err(SimError::from)?;

        let mut clips = ClipTally::default();
        let given_up = lost || self.must_give_up(round);
        if !self.buffers.jobs.is_empty() && !given_up {
            let noised = self.privacy.as_ref().and_then(PrivacyPlan::clients);
            let rotation = noised.and_then(|plan| privacy::rotation(plan, self.config.seed, round));
            let planned = self.privacy.as_ref().and_then(PrivacyPlan::clipper);
            let tap = self.tap.as_ref();
            let loose = tap.and_then(|tap| tap.loosened(planned));
            let task = RoundTask {
                seed: self.config.seed,
                round,
                plan: &plan,
                bases: &[Base {
                    round,
                    global: self.server.global(),
                    relative_to: Reference::Given,
                    current: self.server.global(),
                }],
                noising: noised.map(|plan| Noising {
                    plan,
                    rotation: rotation.as_ref(),
                    seed: self.config.seed,
                    round,
                }),
                clipper: loose
                    .as_ref()
                    .map(|loose| loose as &dyn Clipper)
                    .or(planned),
                live: sessions.as_ref().and_then(Sessions::live),
                parts: match &groups {
                    Some(groups) => Some(&groups.parts),
                    None => regions.as_ref().map(|(_, parts)| parts),
                },
                pruned: self.pruned.as_ref(),
            };
            let jobs = &self.buffers.jobs;
            let training = Stopwatch::start();
            let trained = match self.executor.train(&self.population, &task, jobs, stop) {
                Ok(trained) => trained,
                Err(halt) => {
                    self.server = self.server_at(self.server.state().clone(), round);
                    return Err(halt);
                }
            };
            record.training_seconds = training.seconds();
            clips = ClipTally::of(trained.iter());
            let mut left_out = Vec::new();
            match (&mut groups, &mut regions) {
                (None, Some((regions, parts))) => {
                    left_out =
                        self.hand_up(round, sessions.as_mut(), (regions, parts), &trained)?;
                }
                (None, None) => lost = self.hand_in(round, sessions.as_mut(), &trained, clips)?,
                (Some(groups), _) => {
                    match self.combine(round, sessions.as_mut(), groups, &trained)? {
                        None => lost = true,
                        Some((combined, others)) => {
                            (record.groups, left_out) = (Some(combined), others);
                        }
                    }
                }
            }
            let reports = trained.into_reports();
            count_reports(&reports, &left_out, &mut record);
            match lost {
                true => (record.examples, record.train_loss) = (0, None),
                false => self.remember(round, &reports, &left_out),
            }
        } else if let (Some(sessions), false) = (&mut sessions, given_up) {
            lost = !sessions
                .close(&[], &self.executor.pool())
                .map_err(SimError::from)?;
        }
        record.privacy = match (lost, given_up) {
            (true, _) => self.fail(round, clips)?,
            (false, true) => self.give_up(round)?,
            (false, false) => self.release(round, clips)?,
        };
        self.buffers.close_pairs.clear();
        if let Some(sessions) = &sessions {
            if !lost && !given_up {
                let (sums, least) = sessions.survivors();
                self.buffers.close_pairs = self.differencing.release(round.0, sums, least);
            }
            let close_pairs = self.buffers.close_pairs.len() as u64;
            record.secagg = Some(sessions.record(close_pairs));
        }
        if let Some((regions, _)) = &regions {
            record.regions = Some(regions.record());
            self.buffers.gone.extend_from_slice(regions.lost());
            self.buffers.gone.sort_unstable();
        }

        if let Some(ended) = self.drain_notices() {
            record.cohort = ended.selected;
            record.reported = ended.tally.clients;
            record.rejected = ended.tally.rejected.total();
            record.dropped = ended.unready + ended.dropped + ended.failed + ended.stragglers;
            if lost || groups.is_some() || regions.is_some() {
                record.dropped += ended.lost;
            }
            record.surplus = ended.stopped + ended.timed_out;
            record.saturated = ended.tally.saturated;
            record.bytes_down = ended.ready * model_bytes;
            record.bytes_up = ended.tally.seen() * self.sent_bytes(model_bytes);
            self.end_journeys(&ended, trained_until, lost, &mut record);
            if let Some(secagg) = &record.secagg {
                record.bytes_down += secagg.bytes.down();
                record.bytes_up = secagg.bytes.up();
            }
        }
        if restarts {
            self.restart_server()?;
        }
        record.faults = self.config.faults.as_ref().map(|_| self.buffers.suffered);
        self.keep_pruned();
        record.pruning = self.pruning_record();
        record.update_norm = distance(&self.buffers.before, self.server.global().values());
        Ok(record)
    }

    /// Starts the round and lets every client answer its invitation: those come that have examples
    /// and whose privacy allows it. Leaves the cohort in the buffers.
    fn invite(&mut self) -> Result<(), SimError> {
        let round = self.server.round();
        let failed = |source: RoundError| SimError::Round { round, source };
        let population = &self.population;
        let examples = |client| ExampleCount(population.train_len(client));
        let (devices, clock) = (self.devices.as_ref(), self.clock);
        let refused = Refused::default();
        let may_come = |client| {
            let examples = population.train_len(client);
            devices.is_none_or(|devices| devices.may_come(client, examples, clock, &refused))
        };
        // Where who takes part is a secret that privacy is counted on, the server draws among all, and
        // who cannot come says so.
        let open = devices.is_some() && self.privacy.is_none();
        let candidates = match open {
            true => Candidates::eligible(population.clients(), &may_come),
            false => Candidates::everyone(population.clients()),
        };
        let mut candidates = candidates.with_examples(&examples);
        if let Some(history) = &self.history {
            candidates = candidates.with_history(history);
        }
        let parameters = self.server.global().values().len();
        let empty = self.executor.empty_sum(self.ring, parameters);
        self.server
            .start(self.clock, &candidates, empty)
            .map_err(failed)?;
        let mut cohort = core::mem::take(&mut self.buffers.cohort);
        cohort.clear();
        while let Some(transmit) = self.server.poll_transmit() {
            if transmit.message == Message::Invite {
                cohort.push(transmit.client);
            }
        }
        let absent: Vec<ClientId> = match open {
            true => Vec::new(),
            false => (cohort.iter().copied())
                .filter(|&client| !may_come(client))
                .collect(),
        };
        self.buffers.refused = refused;
        for &client in &cohort {
            let comes = self.population.train_len(client) > 0
                && absent.binary_search(&client).is_err()
                && self.affords(client)?;
            let event = match comes {
                true => Event::Ready(client),
                false => Event::Dropped(client),
            };
            self.server.handle(self.clock, event).map_err(failed)?;
        }
        self.buffers.cohort = cohort;
        Ok(())
    }

    /// Lets the clients that were told to train report, in the order of their arrival, to their regions
    /// where there are some. Leaves a job for every accepted client in the buffers, in client order.
    fn take_reports(
        &mut self,
        plan: &LocalPlan,
        model_bytes: u64,
        mut regions: Option<&mut Regions>,
    ) -> Result<(), RoundError> {
        let round = self.server.round();
        let words = self.words();
        let timed = !self.buffers.journeys.is_empty();
        if let Some(regions) = &mut regions {
            let times: Vec<VirtualTime> = words.iter().map(|word| word.time).collect();
            self.foresee_outages(regions, &times);
        }
        self.buffers.jobs.clear();
        let restart = self.restarts_before(words.len());
        for (index, word) in words.into_iter().enumerate() {
            if let Some(regions) = &mut regions {
                self.fail_regions(regions, index)?;
            }
            if timed && !self.wait_until(word.time)? {
                break;
            }
            let (client, fate) = (
                self.buffers.cohort[word.index],
                self.buffers.fates[word.index],
            );
            if restart == Some(index) {
                self.buffers.suffered.restarts = 1;
                break;
            }
            let faults = self.buffers.faults.get(word.index).copied();
            let faults = faults.unwrap_or(ClientFaults::NONE);
            let suffered = &mut self.buffers.suffered;
            let (clock, server) = (self.clock, &mut self.server);
            let spent = |plan: &PrivacyPlan| !plan.may_report(client);
            let gone = word.gone || self.privacy.as_ref().is_some_and(spent);
            if gone || faults.lost {
                match gone {
                    true => suffered.count_gone(&faults),
                    false => {
                        suffered.lost += 1;
                        self.buffers.gone.push(client);
                    }
                }
                match &mut regions {
                    Some(regions) => regions.leave(server, clock, client)?,
                    None => server.handle(clock, Event::Dropped(client)).map(drop)?,
                }
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
                cost: word.cost.unwrap_or(Cost {
                    download: Bytes(model_bytes),
                    upload: Bytes(model_bytes),
                    time: VirtualDuration(0),
                }),
            };
            if faults.spoils(&report, &self.buffers.before) {
                suffered.corrupted += 1;
                match &mut regions {
                    Some(regions) => regions.leave(server, clock, client)?,
                    None => server.handle(clock, Event::Failed(client)).map(drop)?,
                }
                continue;
            }
            let mut deliver = || match &mut regions {
                Some(regions) => regions.report(server, clock, &report),
                None => server.handle(clock, Event::Reported(report)),
            };
            let answer = deliver()?;
            if faults.duplicated {
                let refused = matches!(deliver()?, Answer::Refused(_));
                suffered.duplicated += u64::from(refused);
            }
            if let Answer::Accepted { weight } = answer {
                suffered.not_finite += u64::from(faults.not_finite);
                self.buffers.jobs.push(Job {
                    client,
                    limit: fate.limit,
                    weight,
                    length: expected.examples,
                    base: 0,
                    spoiled: faults.not_finite,
                });
            }
        }
        self.buffers.jobs.sort_unstable_by_key(|job| job.client);
        self.buffers.gone.sort_unstable();
        Ok(())
    }

    /// What the clients that were told to train will say, in its order.
    fn words(&self) -> Vec<Word> {
        let Buffers {
            cohort,
            fates,
            training,
            journeys,
            ..
        } = &self.buffers;
        let place = |client: ClientId| cohort.binary_search(&client).ok();
        if !journeys.is_empty() {
            let mut queue: EventQueue = journeys.iter().map(Journey::end).collect();
            let costs: BTreeMap<ClientId, Cost> = (journeys.iter())
                .map(|journey| (journey.client, journey.cost()))
                .collect();
            let next = || {
                let next = queue.pop()?;
                Some((place(next.client), next))
            };
            let words = core::iter::from_fn(next).filter_map(|(index, next)| {
                Some(Word {
                    time: next.time,
                    index: index?,
                    gone: next.what == Happening::Leaves,
                    cost: costs.get(&next.client).copied(),
                })
            });
            return words.collect();
        }
        // Who comes first matters only where more were asked than are needed.
        let goal = self.selector.largest_goal(self.population.clients());
        let order = if cohort.len() as u64 > goal {
            arrival_order(self.config.seed, self.server.round(), cohort, fates)
        } else {
            (0..cohort.len() as u32).collect()
        };
        let mut trains = vec![false; cohort.len()];
        for index in training.iter().filter_map(|&client| place(client)) {
            trains[index] = true;
        }
        let order = order.into_iter().map(|index| index as usize);
        order
            .filter(|&index| trains[index])
            .map(|index| Word {
                time: self.clock,
                index,
                gone: fates[index].dropped,
                cost: None,
            })
            .collect()
    }

    /// Notes who took part, where the selector learns from it.
    fn remember(&mut self, round: RoundId, reports: &[Done], left_out: &[u32]) {
        let Some(history) = &mut self.history else {
            return;
        };
        let Buffers { jobs, journeys, .. } = &self.buffers;
        for report in reports {
            let job = report.job;
            if left_out.binary_search(&job).is_ok() || !report.is_summed() {
                continue;
            }
            let client = jobs[job as usize].client;
            let journey = journeys.binary_search_by_key(&client, |journey| journey.client);
            let journey = journey.ok().map(|place| &journeys[place]);
            history.took_part(client, round, participation(report, journey));
        }
    }

    /// Who is told to train, in the order of the ids.
    fn hear_who_trains(&mut self) {
        let training = &mut self.buffers.training;
        training.clear();
        while let Some(transmit) = self.server.poll_transmit() {
            if transmit.message == Message::Train {
                training.push(transmit.client);
            }
        }
        training.sort_unstable();
    }

    /// Puts those who came to the round into sessions of secure aggregation, and lets real ones share
    /// their keys; none without it. Every region is a session.
    fn open_sessions(
        &mut self,
        round: RoundId,
        regions: Option<&Regions>,
    ) -> Result<Option<Sessions>, SecAggError> {
        let Some(plan) = &mut self.secagg else {
            return Ok(None);
        };
        let buffers = &self.buffers;
        let leaves = |client: ClientId| {
            let fate = match buffers.cohort.binary_search(&client) {
                Ok(index) => buffers.fates[index],
                Err(_) => return Leaves::BeforeKeys,
            };
            let job = |job: &Job| job.client;
            let accepted = buffers.jobs.binary_search_by_key(&client, job).is_ok();
            let spent = self
                .privacy
                .as_ref()
                .is_some_and(|plan| !plan.may_report(client));
            match (fate.dropped, fate.vanishes) {
                (true, Vanishes::BeforeKeys) => Leaves::BeforeKeys,
                (true, Vanishes::AfterKeys) => Leaves::AfterKeys,
                (true, Vanishes::AfterShares) => Leaves::AfterShares,
                (false, _) if accepted && fate.leaves_late => Leaves::AfterInput,
                (false, _) if accepted => Leaves::Never,
                (false, _) if spent => Leaves::BeforeKeys,
                // Too late, or not needed.
                (false, _) => Leaves::AfterShares,
            }
        };
        let mut clients: Vec<(ClientId, Leaves)> = buffers
            .training
            .iter()
            .map(|&client| (client, leaves(client)))
            .collect();
        clients.sort_unstable();
        let context = Context {
            seed: self.config.seed,
            round,
            task: self.identity.config,
            model: self.server.global().digest().0,
        };
        let places = match regions {
            None => divide(clients.len(), plan.config().groups, context.seed, round),
            Some(regions) => {
                let place = |client| clients.binary_search_by_key(&client, |(id, _)| *id).ok();
                (regions.members().into_iter())
                    .map(|members| members.into_iter().filter_map(place).collect())
                    .collect()
            }
        };
        let apart = self.config.aggregation.robust.is_some() || regions.is_some();
        let workers = self.executor.pool();
        Sessions::open(plan, &clients, places, apart, &context, &workers).map(Some)
    }

    /// Puts those who came to the round into the groups whose means are combined: sessions, where
    /// there are some. Clients of a session that has failed already are dropped. None without a robust
    /// mean.
    fn open_groups(&mut self, sessions: Option<&Sessions>) -> Result<Option<Groups>, RoundError> {
        let Some(robust) = self.config.aggregation.robust else {
            return Ok(None);
        };
        let round = self.server.round();
        let empty = ExactSum::new(self.ring, self.server.global().values().len());
        let mut groups = match sessions {
            Some(sessions) => Groups::new(robust.mean, sessions.clients(), empty),
            None => {
                let mut clients = self.buffers.training.clone();
                clients.sort_unstable();
                let members: Vec<Vec<ClientId>> =
                    divide(clients.len(), Some(robust.groups), self.config.seed, round)
                        .into_iter()
                        .map(|group| group.into_iter().map(|index| clients[index]).collect())
                        .collect();
                Groups::new(robust.mean, members.iter().map(Vec::as_slice), empty)
            }
        };
        let stays = |client: ClientId| {
            let group = groups.parts.of(client);
            !sessions.is_some_and(|all| group.is_none_or(|group| all.has_failed_early(group)))
        };
        for job in &self.buffers.jobs {
            if !stays(job.client) {
                self.server.handle(self.clock, Event::Dropped(job.client))?;
            }
        }
        self.buffers.jobs.retain(|job| stays(job.client));
        self.buffers.training.retain(|&client| stays(client));
        groups.parts.seat(&self.buffers.jobs);
        Ok(Some(groups))
    }

    /// The sums of the parts of the cohort, each out of its session where there are some; none of a
    /// part whose session failed, or that has no updates.
    pub(crate) fn sums_of(
        &self,
        round: RoundId,
        sessions: Option<&mut Sessions>,
        parts: &mut Parts,
        trained: &Trained,
    ) -> Result<Vec<Option<ExactSum>>, SimError> {
        let jobs = &self.buffers.jobs;
        let mut sums = parts.take();
        let Some(sessions) = sessions else {
            return Ok(sums);
        };
        let refused = refused(trained, jobs);
        sessions.close(&refused, &self.executor.pool())?;
        let length = self.server.global().values().len();
        for (index, sum) in sums.iter_mut().enumerate() {
            let own = |report: &&Done| parts.of_job(report.job) == index;
            let tally = tally(trained.iter().filter(own), jobs);
            let real = sessions.sum_of(index, self.ring, length, tally);
            let real = real.map_err(|source| SimError::Round {
                round,
                source: RoundError::Sum(source),
            })?;
            *sum = real.or(sum.take());
            if !sessions.is_whole(index) {
                *sum = None;
            }
        }
        Ok(sums)
    }

    /// Combines the means of the groups that have one, and lets the strategy apply the result. How
    /// that went, with the jobs whose group was left out, ascending; none when too few groups have a
    /// mean.
    fn combine(
        &mut self,
        round: RoundId,
        sessions: Option<&mut Sessions>,
        groups: &mut Groups,
        trained: &Trained,
    ) -> Result<Option<(GroupsRecord, Vec<u32>)>, SimError> {
        let failed = |source: RoundError| SimError::Round { round, source };
        let summed = |source| failed(RoundError::Sum(source));
        let mut sums = self.sums_of(round, sessions, &mut groups.parts, trained)?;
        for sum in &mut sums {
            *sum = sum.take().filter(|sum| sum.tally().clients > 0);
        }
        let has_mean: Vec<bool> = sums.iter().map(Option::is_some).collect();
        let mut sums: Vec<ExactSum> = sums.into_iter().flatten().collect();
        let combined = groups.combine(&mut sums).map_err(summed)?;
        let (Some((mean, record)), Some(sum)) = (combined, sums.first_mut()) else {
            return Ok(None);
        };
        let (jobs, server) = (&self.buffers.jobs, &mut self.server);
        let (mut clients, mut left_out) = (Vec::with_capacity(jobs.len()), Vec::new());
        for (index, job) in (0u32..).zip(jobs) {
            if has_mean[groups.parts.of_job(index)] {
                clients.push(job.client);
            } else {
                left_out.push(index);
                let dropped = Event::Dropped(job.client);
                server.handle(self.clock, dropped).map_err(failed)?;
            }
        }
        let sum = Event::Summed {
            sum,
            clients: &clients,
        };
        server.handle(self.clock, sum).map_err(failed)?;
        server.release(self.clock, mean).map_err(failed)?;
        Ok(Some((record, left_out)))
    }

    /// Hands the sum of the updates to the round machine; with sessions of secure aggregation, if all
    /// of them have one. Whether that was not so.
    fn hand_in(
        &mut self,
        round: RoundId,
        sessions: Option<&mut Sessions>,
        trained: &Trained,
        clips: ClipTally,
    ) -> Result<bool, SimError> {
        let failed = |source: RoundError| SimError::Round { round, source };
        let jobs = &self.buffers.jobs;
        let mut whole = None;
        if let Some(sessions) = sessions {
            let refused = refused(trained, jobs);
            if !sessions.close(&refused, &self.executor.pool())? {
                self.executor.reset();
                return Ok(true);
            }
            let length = self.server.global().values().len();
            if let Some(counted) = sessions.counted_clips(length)
                && counted != clips.half_bits()
            {
                return Err(SecAggError::Disagrees {
                    round,
                    what: "count of updates within the clipping norm",
                    session: counted.to_string(),
                    sent: clips.half_bits().to_string(),
                }
                .into());
            }
            let modular = |source| SimError::Modular { round, source };
            match self.executor.modular_shape() {
                Some((bits, length)) => {
                    if let Some(sum) = sessions.modular(bits, length).map_err(modular)? {
                        self.executor.put_modular(sum).map_err(modular)?;
                    }
                }
                None => {
                    let tally = tally(trained.iter(), jobs);
                    let sum = sessions.sum(self.ring, length, tally);
                    whole = sum.map_err(|source| failed(RoundError::Sum(source)))?;
                }
            }
        }
        let server = &mut self.server;
        if let Some(mut sum) = whole {
            self.executor.reset();
            let clients: Vec<ClientId> = jobs.iter().map(|job| job.client).collect();
            let sum = Event::Summed {
                sum: &mut sum,
                clients: &clients,
            };
            server.handle(self.clock, sum).map_err(failed)?;
            return Ok(false);
        }
        self.executor
            .hand_over(trained, jobs, |sum, clients| {
                server
                    .handle(self.clock, Event::Summed { sum, clients })
                    .map(|_| ())
            })
            .map_err(failed)?;
        Ok(false)
    }

    /// Bytes that a client sends.
    fn sent_bytes(&self, model_bytes: u64) -> u64 {
        let plan = self.privacy.as_ref().and_then(PrivacyPlan::clients);
        plan.and_then(|plan| plan.ring())
            .map_or(model_bytes, DistributedDp::bytes)
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

/// What a client says to the round machine, and when.
struct Word {
    time: VirtualTime,
    /// Its place in the cohort.
    index: usize,
    /// That it is gone, in place of a report.
    gone: bool,
    /// What its part cost, where its device is known.
    cost: Option<Cost>,
}

/// The clients whose update was refused, ascending.
fn refused(trained: &Trained, jobs: &[Job]) -> Vec<ClientId> {
    let refused = |report: &&Done| matches!(report.absorbed, Absorbed::Rejected(_));
    let mut refused: Vec<ClientId> = trained
        .iter()
        .filter(refused)
        .map(|report| jobs[report.job as usize].client)
        .collect();
    refused.sort_unstable();
    refused
}

/// What is in the sum of what the clients of these reports did.
fn tally<'a>(reports: impl Iterator<Item = &'a Done>, jobs: &[Job]) -> Tally {
    let mut tally = Tally::default();
    for report in reports {
        match &report.absorbed {
            Absorbed::Summed { saturated } => {
                tally.clients += 1;
                tally.weight.0 += jobs[report.job as usize].weight.0;
                tally.saturated += saturated;
                tally.saturated_clients += u64::from(*saturated > 0);
            }
            Absorbed::Rejected(rejection) => tally.rejected.count(rejection),
        }
    }
    tally
}

/// Adds up what the clients did, in client order; the updates of the jobs `left_out`, ascending, are
/// not in the sum.
pub(crate) fn count_reports(reports: &[Done], left_out: &[u32], record: &mut RoundRecord) {
    let mut loss = 0.0;
    let mut counted = 0;
    for report in reports {
        let result = report.result;
        record.examples_processed += result.examples_processed;
        record.steps += result.steps;
        if report.is_summed() && left_out.binary_search(&report.job).is_err() {
            record.examples += result.examples.0;
            counted += result.examples_processed;
            loss += result.mean_loss * result.examples_processed as f64;
        }
    }
    record.train_loss = (counted > 0).then(|| loss / counted as f64);
}

/// A client's part in a round, as the server is told of it.
pub(crate) fn participation(report: &Done, journey: Option<&Journey>) -> Participation {
    let result = &report.result;
    Participation {
        examples: result.examples,
        loss: (result.examples_processed > 0).then_some(result.mean_loss),
        loss_square: None,
        time: journey.map_or(VirtualDuration(0), |journey| {
            journey.reported - journey.started
        }),
    }
}

/// A client's work as far as it can be known before it trains.
pub(crate) struct ExpectedWork {
    pub(crate) steps: u64,
    /// All epochs together.
    pub(crate) examples: u64,
}

pub(crate) fn expected_work(plan: &LocalPlan, limit: WorkLimit, examples: u64) -> ExpectedWork {
    let steps = plan.steps(examples, limit);
    let batch = plan.batch.examples(examples);
    let examples = match plan.work {
        // The last batch of a pass may be smaller.
        LocalWork::Epochs(_) if plan.privacy.is_none() => {
            let passes = steps.checked_div(examples.div_ceil(batch)).unwrap_or(0);
            passes * examples
        }
        _ => steps.saturating_mul(batch),
    };
    ExpectedWork { steps, examples }
}

/// L2 norm of `after - before`. Sixteen interleaved sums, combined in order: a fixed tree.
pub(crate) fn distance(before: &[f32], after: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    for (before, after) in before.chunks(16).zip(after.chunks(16)) {
        for (sum, (before, after)) in sums.iter_mut().zip(before.iter().zip(after)) {
            let difference = f64::from(*after) - f64::from(*before);
            *sum += difference * difference;
        }
    }
    libm::sqrt(sums.iter().sum())
}
