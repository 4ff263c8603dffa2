//! One round: what the simulated fleet tells the round machine, and what the record says of it.
//!
//! Clients answer their invitations, and report in the fleet's order, before any of them is
//! trained: acceptance and weight depend on the report alone, so clients whose update would not
//! count are never trained.

use std::sync::atomic::AtomicBool;

use fl_core::round::{Answer, Event, Message, Notice, RoundError, RoundRecord as Protocol};
use fl_core::select::{Candidates, Selector as _};
use fl_core::sum::Absorbed;
use fl_core::{
    Bytes, Cost, ExampleCount, LocalPlan, LocalWork, Report, VirtualDuration, WorkDone, WorkLimit,
};
use fl_privacy::clip::Clipper;
use fl_privacy::distributed::DistributedDp;

use crate::clock::{NOW, Stopwatch};
use crate::error::SimError;
use crate::executor::{Halt, Job, Report as Done, RoundTask};
use crate::fleet::{arrival_order, draw_fates};
use crate::population::{Engine, Population};
use crate::privacy::{self, ClipTally, Noising, PrivacyPlan};
use crate::record::RoundRecord;
use crate::simulation::{Buffers, Simulation};

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Plays one round; when it is given up, everything is as before it.
    pub(crate) fn play(&mut self, stop: &AtomicBool) -> Result<RoundRecord, Halt> {
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
        let fates = &self.buffers.fates;
        record.stragglers = fates.iter().filter(|fate| fate.straggler).count() as u64;
        self.take_reports(&plan, model_bytes).map_err(failed)?;
        self.authorise(round).map_err(SimError::from)?;

        let mut clips = ClipTally::default();
        let given_up = self.must_give_up(round);
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
                global: self.server.global(),
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
            };
            let jobs = &self.buffers.jobs;
            let trained = match self.executor.train(&self.population, &task, jobs, stop) {
                Ok(trained) => trained,
                Err(halt) => {
                    self.server = self.server_at(self.server.state().clone(), round);
                    return Err(halt);
                }
            };
            let server = &mut self.server;
            self.executor
                .hand_over(&trained, jobs, |sum, clients| {
                    server
                        .handle(NOW, Event::Summed { sum, clients })
                        .map(|_| ())
                })
                .map_err(failed)?;
            let reports = trained.into_reports();
            clips = ClipTally::of(&reports);
            count_reports(&reports, &mut record);
        }
        record.privacy = match given_up {
            true => self.give_up(round)?,
            false => self.release(round, clips)?,
        };

        if let Some(ended) = self.drain_notices() {
            record.cohort = ended.selected;
            record.reported = ended.tally.clients;
            record.rejected = ended.tally.rejected.total();
            record.dropped = ended.unready + ended.dropped + ended.stragglers;
            record.surplus = ended.stopped + ended.timed_out;
            record.saturated = ended.tally.saturated;
            record.bytes_down = ended.ready * model_bytes;
            record.bytes_up = ended.tally.seen() * self.sent_bytes(model_bytes);
        }
        record.update_norm = distance(&self.buffers.before, self.server.global().values());
        record.seconds = watch.seconds();
        Ok(record)
    }

    /// Starts the round and lets every client answer its invitation: those come that have examples
    /// and whose privacy allows it. Leaves the cohort in the buffers.
    fn invite(&mut self) -> Result<(), SimError> {
        let round = self.server.round();
        let failed = |source: RoundError| SimError::Round { round, source };
        let population = &self.population;
        let examples = |client| ExampleCount(population.train_len(client));
        let candidates = Candidates::everyone(population.clients()).with_examples(&examples);
        let parameters = self.server.global().values().len();
        let empty = self.executor.empty_sum(self.ring, parameters);
        self.server.start(NOW, &candidates, empty).map_err(failed)?;
        let mut cohort = core::mem::take(&mut self.buffers.cohort);
        cohort.clear();
        while let Some(transmit) = self.server.poll_transmit() {
            if transmit.message == Message::Invite {
                cohort.push(transmit.client);
            }
        }
        for &client in &cohort {
            let comes = self.population.train_len(client) > 0 && self.affords(client)?;
            let event = match comes {
                true => Event::Ready(client),
                false => Event::Dropped(client),
            };
            self.server.handle(NOW, event).map_err(failed)?;
        }
        self.buffers.cohort = cohort;
        Ok(())
    }

    /// Lets the clients that were told to train report, in the order of their arrival. Leaves a
    /// job for every accepted client in the buffers, in client order.
    fn take_reports(&mut self, plan: &LocalPlan, model_bytes: u64) -> Result<(), RoundError> {
        let Buffers {
            cohort,
            fates,
            jobs,
            training: told,
            ..
        } = &mut self.buffers;
        let round = self.server.round();
        jobs.clear();
        told.clear();
        let mut training = vec![false; cohort.len()];
        while let Some(transmit) = self.server.poll_transmit() {
            if transmit.message == Message::Train
                && let Ok(index) = cohort.binary_search(&transmit.client)
            {
                training[index] = true;
                told.push(transmit.client);
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
            let spent = |plan: &PrivacyPlan| !plan.may_report(client);
            if fate.dropped || self.privacy.as_ref().is_some_and(spent) {
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

/// Adds up what the clients did, in client order.
fn count_reports(reports: &[Done], record: &mut RoundRecord) {
    let mut loss = 0.0;
    let mut counted = 0;
    for report in reports {
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

/// A client's work as far as it can be known before it trains.
struct ExpectedWork {
    steps: u64,
    /// All epochs together.
    examples: u64,
}

fn expected_work(plan: &LocalPlan, limit: WorkLimit, examples: u64) -> ExpectedWork {
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
