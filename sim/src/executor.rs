//! Trains and evaluates clients on every core.
//!
//! Each worker thread owns one trainer, the scratch memory of a few clients and one partial sum;
//! nothing is kept per client of the population, and per client of the cohort only its report.
//! Workers take groups of clients from a shared counter, longest first. Which worker trains a
//! client, and with which others, changes no bit: the trainer's law makes the update a function
//! of the client alone, the sum is exact ([`fl_core::sum`]), and reports are put in the cohort's
//! order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fl_core::ring::RingPlan;
use fl_core::round::RoundError;
use fl_core::strategy::Reference;
use fl_core::sum::{Absorbed, Aggregator as _, ExactSum, SumError};
use fl_core::{
    ClientId, Evaluation, Examples, FitTask, LocalPlan, LocalResult, Mask, ModularError,
    ModularSum, Parameters, Purpose, RoundId, Seed, ServedModel, Stream, TrainError, Trainer,
    Weight, WorkLimit,
};

use fl_edge::quant::federated::Histograms;
use fl_edge::quant::{Probe, QuantError, Samples};
use fl_privacy::clip::{AdaptiveClip, Clipped, Clipper};

use fl_secagg::Workers;
use rayon::iter::{IntoParallelRefMutIterator as _, ParallelIterator as _};

use crate::aggregation::Parts;
use crate::error::SimError;
use crate::grouping::plan_groups;
use crate::population::{Engine, Population};
use crate::privacy::Noising;
use crate::progress::{Activity, Progress};
use crate::record::ClientSplit;
use crate::secagg::Live;

/// Rows of the test set in one evaluation task. Fixed, because the losses of the chunks are added
/// in the order of the chunks.
const TEST_CHUNK: usize = 500;

/// One client that is to be trained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) client: ClientId,
    pub(crate) limit: WorkLimit,
    /// What its update counts in the sum.
    pub(crate) weight: Weight,
    /// Examples that it will process, for scheduling only.
    pub(crate) length: u64,
    /// Index of the [`Base`] that it trains from.
    pub(crate) base: u32,
    /// Whether a fault makes its update one that is not finite.
    pub(crate) spoiled: bool,
}

/// A version of the global model that clients train from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base<'a> {
    /// The round that made the version what it is: the address of its clients' randomness.
    pub(crate) round: RoundId,
    pub(crate) global: &'a Parameters,
    /// What updates are taken relative to: `global`, or the model that they will be applied to.
    pub(crate) relative_to: Reference,
    pub(crate) current: &'a Parameters,
}

/// What became of a [`Job`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Index of the job.
    pub(crate) job: u32,
    pub(crate) result: LocalResult,
    pub(crate) absorbed: Absorbed,
    /// What the clipper did, where there is one.
    pub(crate) clipped: Option<Clipped>,
}

impl Report {
    /// Whether its update is in the sum.
    pub(crate) fn is_summed(&self) -> bool {
        matches!(self.absorbed, Absorbed::Summed { .. })
    }
}

/// What became of every job of a round.
pub(crate) struct Trained {
    by_worker: Vec<Vec<Report>>,
}

impl Trained {
    /// Every report, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Report> {
        self.by_worker.iter().flatten()
    }

    /// The reports in the order of the jobs, whoever did them.
    pub(crate) fn into_reports(self) -> Vec<Report> {
        let mut reports: Vec<Report> = self.by_worker.into_iter().flatten().collect();
        reports.sort_unstable_by_key(|report| report.job);
        reports
    }
}

/// What every job of a round shares.
#[derive(Clone, Copy)]
pub(crate) struct RoundTask<'a> {
    pub(crate) seed: Seed,
    pub(crate) round: RoundId,
    pub(crate) plan: &'a LocalPlan,
    /// The versions that the jobs train from, at least one.
    pub(crate) bases: &'a [Base<'a>],
    /// Bounds every update before it is encoded.
    pub(crate) clipper: Option<&'a dyn Clipper>,
    /// What clients do that add noise themselves; they clip, too.
    pub(crate) noising: Option<Noising<'a>>,
    /// Sessions of secure aggregation that are really run.
    pub(crate) live: Option<&'a Live>,
    /// Parts of the cohort that are summed each by itself.
    pub(crate) parts: Option<&'a Parts>,
    /// Weights that clients hold at zero.
    pub(crate) pruned: Option<&'a Arc<Mask>>,
}

/// How the model did on one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientScore {
    pub(crate) client: ClientId,
    /// On its held-out examples, where it has some.
    pub(crate) test: Option<Evaluation>,
    /// On its training examples, where asked for.
    pub(crate) train: Option<Evaluation>,
}

impl ClientScore {
    /// Held-out examples before training examples.
    pub(crate) fn best(&self) -> Option<(ClientSplit, Evaluation)> {
        self.test
            .map(|score| (ClientSplit::Test, score))
            .or(self.train.map(|score| (ClientSplit::Train, score)))
    }
}

/// Which examples of a client are evaluated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) test: bool,
    pub(crate) train: bool,
}

/// What is asked of the clients that calibrate a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) clients: &'a [ClientId],
    /// Examples of each at most.
    pub(crate) samples: usize,
    /// The bins of every point.
    pub(crate) empty: &'a Histograms,
    pub(crate) round: RoundId,
}

/// A worker's part in calibrating.
struct Counting {
    probe: Probe,
    /// One client's counts.
    own: Histograms,
    sum: ExactSum,
    /// Whether a client had examples.
    any: bool,
}

/// The model that is judged.
#[derive(Clone, Copy)]
pub(crate) enum Judged<'a> {
    /// The parameters, in the trainers' own arithmetic.
    Trained(&'a Parameters),
    /// A model as a device serves it.
    Served(&'a dyn ServedModel),
}

impl Judged<'_> {
    fn evaluate<T: Trainer>(
        self,
        trainer: &mut T,
        data: &dyn Examples,
        rows: core::ops::Range<usize>,
    ) -> Result<Evaluation, TrainError> {
        match self {
            Self::Trained(parameters) => trainer.evaluate(parameters.values(), data, rows),
            Self::Served(model) => model.evaluate(data, rows),
        }
    }
}

struct Worker<S, T> {
    trainer: T,
    /// Updates of the round's clients, added up; empty between rounds. Where they go into a ring, it
    /// has no values and counts the clients.
    sum: ExactSum,
    /// What the round's clients sent into a ring, where there is one; empty between rounds.
    modular: Option<ModularSum>,
    /// What one of them sends.
    vector: Vec<u64>,
    /// One per lane.
    scratch: Vec<S>,
    /// One update per lane.
    updates: Vec<f32>,
    results: Vec<LocalResult>,
}

/// The worker threads and what they own.
pub(crate) struct Executor<P: Population, E: Engine> {
    /// None for one thread: the caller's.
    pool: Option<rayon::ThreadPool>,
    workers: Vec<Mutex<Worker<P::Scratch, E::Trainer>>>,
    progress: Arc<Progress>,
    lanes: usize,
    order: Vec<u32>,
    groups: Vec<core::ops::Range<usize>>,
    lengths: Vec<u64>,
}

/// The worker threads, for work that needs nothing that they own.
#[derive(Clone, Copy)]
pub(crate) struct Pool<'a>(Option<&'a rayon::ThreadPool>);

impl Workers for Pool<'_> {
    fn each<T: Send, F: Fn(&mut T) + Sync + Send>(&self, jobs: &mut [T], work: F) {
        match self.0 {
            None => jobs.iter_mut().for_each(work),
            Some(pool) => pool.install(|| jobs.par_iter_mut().for_each(work)),
        }
    }
}

/// Why work was given up.
pub(crate) enum Halt {
    /// The stop flag was raised.
    Stopped,
    /// Something went wrong.
    Failed(SimError),
}

impl From<SimError> for Halt {
    fn from(error: SimError) -> Self {
        Self::Failed(error)
    }
}

impl<P: Population, E: Engine> Executor<P, E> {
    /// `threads` workers, zero for one per core, that sum updates by `ring`; or, given an empty
    /// `modular` sum, vectors in it.
    pub(crate) fn new(
        threads: usize,
        engine: &E,
        ring: RingPlan,
        modular: Option<ModularSum>,
    ) -> Result<Self, SimError> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let pool = if threads == 1 {
            None
        } else {
            let built = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("fl-sim-{index}"))
                .build();
            Some(built.map_err(|source| SimError::Threads { threads, source })?)
        };
        let parameters = match modular {
            Some(_) => 0,
            None => engine.layout().len(),
        };
        let mut lanes = 1;
        let workers = (0..threads)
            .map(|_| {
                let trainer = engine.trainer();
                lanes = trainer.lanes().max(1);
                Mutex::new(Worker {
                    trainer,
                    sum: ExactSum::new(ring, parameters),
                    modular: modular.clone(),
                    vector: Vec::new(),
                    scratch: Vec::new(),
                    updates: Vec::new(),
                    results: Vec::new(),
                })
            })
            .collect();
        Ok(Self {
            pool,
            workers,
            progress: Arc::default(),
            lanes,
            order: Vec::new(),
            groups: Vec::new(),
            lengths: Vec::new(),
        })
    }

    /// The threads.
    pub(crate) fn pool(&self) -> Pool<'_> {
        Pool(self.pool.as_ref())
    }

    /// How far the work at hand is.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Number of worker threads.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Trains every job; each worker adds the updates of its clients up. Unless all is done,
    /// every sum is empty again.
    pub(crate) fn train(
        &mut self,
        population: &P,
        task: &RoundTask<'_>,
        jobs: &[Job],
        stop: &AtomicBool,
    ) -> Result<Trained, Halt> {
        self.lengths.clear();
        self.lengths.extend(jobs.iter().map(|job| job.length));
        let base = |index: u32| jobs[index as usize].base;
        plan_groups(
            &self.lengths,
            base,
            self.lanes,
            self.workers.len(),
            &mut self.order,
            &mut self.groups,
        );
        let (order, groups) = (&self.order, &self.groups);
        let share = jobs.len() / self.workers.len() + self.lanes;
        let start = || Vec::with_capacity(share);
        self.progress.begin(Activity::Training, jobs.len());
        let done = self.run(groups.len(), stop, start, |worker, index, reports| {
            let members = &order[groups[index].clone()];
            worker.train_group(population, task, jobs, members, reports)?;
            self.progress.add(members.len());
            Ok(())
        });
        self.progress.end();
        if done.is_err() {
            self.reset();
        }
        Ok(Trained { by_worker: done? })
    }

    /// Forgets the round's sums.
    pub(crate) fn reset(&mut self) {
        for worker in &mut self.workers {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            worker.sum.reset();
            worker.modular.iter_mut().for_each(ModularSum::reset);
        }
    }

    /// Bits and coordinates of what clients send into a ring; none without one.
    pub(crate) fn modular_shape(&mut self) -> Option<(u32, usize)> {
        let worker = self.workers.first_mut()?;
        let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
        let sum = worker.modular.as_ref()?;
        Some((sum.bits(), sum.len()))
    }

    /// Takes the sum of what clients sent into the ring from elsewhere, where no worker has one.
    pub(crate) fn put_modular(&mut self, mut sum: ModularSum) -> Result<(), ModularError> {
        let first = self.workers.first_mut();
        let own = first.and_then(|worker| {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            worker.modular.as_mut()
        });
        own.map_or(Ok(()), |own| own.merge(&mut sum))
    }

    /// Hands over, worker by worker, the sum of the updates that it absorbed and the clients that
    /// they are of. `take` leaves the sum empty.
    pub(crate) fn hand_over<X>(
        &mut self,
        trained: &Trained,
        jobs: &[Job],
        mut take: impl FnMut(&mut ExactSum, &[ClientId]) -> Result<(), X>,
    ) -> Result<(), X> {
        let mut clients = Vec::with_capacity(jobs.len());
        for (worker, reports) in self.workers.iter_mut().zip(&trained.by_worker) {
            if reports.is_empty() {
                continue;
            }
            clients.clear();
            clients.extend(
                reports
                    .iter()
                    .map(|report| jobs[report.job as usize].client),
            );
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            take(&mut worker.sum, &clients)?;
        }
        Ok(())
    }

    /// An empty sum for the clients of a round.
    pub(crate) fn empty_sum(&mut self, ring: RingPlan, parameters: usize) -> ExactSum {
        let in_ring = self.workers.first_mut().is_some_and(|worker| {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            worker.modular.is_some()
        });
        ExactSum::new(ring, if in_ring { 0 } else { parameters })
    }

    /// What the round's clients sent into the ring, added up, and leaves the workers' sums empty;
    /// none without a ring.
    pub(crate) fn take_modular(&mut self) -> Result<Option<ModularSum>, ModularError> {
        let mut all: Option<ModularSum> = None;
        for worker in &mut self.workers {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            let Some(own) = &mut worker.modular else {
                continue;
            };
            match &mut all {
                Some(all) => all.merge(own)?,
                None => {
                    all = Some(own.clone());
                    own.reset();
                }
            }
        }
        Ok(all)
    }

    /// Evaluates a model on a test set.
    pub(crate) fn evaluate_test(
        &self,
        model: Judged<'_>,
        data: &dyn Examples,
        round: RoundId,
        stop: &AtomicBool,
    ) -> Result<Evaluation, Halt> {
        let chunks = data.len().div_ceil(TEST_CHUNK);
        self.progress.begin(Activity::Evaluating, chunks);
        let parts = self.run(chunks, stop, Vec::new, |worker, index, output| {
            let start = index * TEST_CHUNK;
            let rows = start..(start + TEST_CHUNK).min(data.len());
            let score = model
                .evaluate(&mut worker.trainer, data, rows)
                .map_err(|source| SimError::EvaluateTest { round, source })?;
            output.push((index, score));
            self.progress.add(1);
            Ok(())
        });
        self.progress.end();
        let mut scores: Vec<(usize, Evaluation)> = parts?.into_iter().flatten().collect();
        scores.sort_unstable_by_key(|&(index, _)| index);
        let mut sum = Evaluation::default();
        for (_, score) in &scores {
            add(&mut sum, score);
        }
        Ok(sum)
    }

    /// Evaluates a model on each of `clients`; the scores are in the order of `clients`.
    pub(crate) fn evaluate_clients(
        &mut self,
        population: &P,
        model: Judged<'_>,
        clients: &[ClientId],
        wanted: Wanted,
        round: RoundId,
        stop: &AtomicBool,
    ) -> Result<Vec<ClientScore>, Halt> {
        self.lengths.clear();
        self.lengths
            .extend(clients.iter().map(|&client| population.train_len(client)));
        let (mut order, mut groups) = (Vec::new(), Vec::new());
        plan_groups(&self.lengths, |_| 0, 1, 1, &mut order, &mut groups);
        self.progress.begin(Activity::Evaluating, order.len());
        let parts = self.run(order.len(), stop, Vec::new, |worker, index, output| {
            let position = order[index];
            let client = clients[position as usize];
            let score = worker
                .evaluate_client(population, model, client, wanted)
                .map_err(|source| SimError::EvaluateClient {
                    round,
                    client,
                    source,
                })?;
            output.push((position, score));
            self.progress.add(1);
            Ok(())
        });
        self.progress.end();
        let mut scores: Vec<(u32, ClientScore)> = parts?.into_iter().flatten().collect();
        scores.sort_unstable_by_key(|&(position, _)| position);
        Ok(scores.into_iter().map(|(_, score)| score).collect())
    }

    /// The exact sum of what clients count when they show their examples to `probe`; none when
    /// none of them has examples.
    pub(crate) fn count(
        &self,
        population: &P,
        probe: &Probe,
        asked: Asked<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<Histograms>, Halt> {
        let Asked {
            clients,
            empty,
            round,
            ..
        } = asked;
        let plan = empty.ring_plan(clients.len() as u64);
        let plan = plan.map_err(SimError::from)?;
        let start = || Counting {
            probe: probe.another(),
            own: empty.clone(),
            sum: ExactSum::new(plan, empty.counts().len()),
            any: false,
        };
        self.progress.begin(Activity::Evaluating, clients.len());
        let parts = self.run(clients.len(), stop, start, |worker, index, part| {
            let client = clients[index];
            let counted = worker.count(population, client, asked.samples, part);
            let counted = counted.map_err(|source| SimError::Calibrate {
                round,
                client,
                source,
            })?;
            if counted && let Some(message) = part.own.encode(plan) {
                let absorbed = part.sum.absorb_encoded(&message, message.weight());
                absorbed.map_err(|source| summed(round, source))?;
            }
            self.progress.add(1);
            Ok(())
        });
        self.progress.end();
        let mut sum = ExactSum::new(plan, empty.counts().len());
        let mut any = false;
        for mut part in parts? {
            any |= part.any;
            let merged = sum.merge(&mut part.sum);
            merged.map_err(|source| summed(round, source))?;
        }
        let counts = empty.with_counts(sum.values()).map_err(SimError::from)?;
        Ok(any.then_some(counts))
    }

    /// Lets the workers take the tasks `0..tasks` in that order until none are left, the stop
    /// flag is raised or a task fails. Returns each worker's output.
    fn run<R: Send>(
        &self,
        tasks: usize,
        stop: &AtomicBool,
        start: impl Fn() -> R + Sync,
        work: impl Fn(&mut Worker<P::Scratch, E::Trainer>, usize, &mut R) -> Result<(), SimError> + Sync,
    ) -> Result<Vec<R>, Halt> {
        let next = AtomicUsize::new(0);
        let completed = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let one = |index: usize| {
            let mut worker = self.workers[index]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let mut output = start();
            while !stop.load(Ordering::Relaxed) && !failed.load(Ordering::Relaxed) {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return (None, output);
                }
                if let Err(error) = work(&mut worker, task, &mut output) {
                    failed.store(true, Ordering::Relaxed);
                    return (Some((task, error)), output);
                }
                completed.fetch_add(1, Ordering::Relaxed);
            }
            (None, output)
        };
        let ended = match &self.pool {
            None => vec![one(0)],
            Some(pool) => pool.broadcast(|context| one(context.index())),
        };
        let mut outputs = Vec::with_capacity(ended.len());
        let mut first: Option<(usize, SimError)> = None;
        for (error, output) in ended {
            outputs.push(output);
            if let Some((task, error)) = error
                && first.as_ref().is_none_or(|(other, _)| task < *other)
            {
                first = Some((task, error));
            }
        }
        if let Some((_, error)) = first {
            return Err(Halt::Failed(error));
        }
        if completed.load(Ordering::Relaxed) < tasks {
            return Err(Halt::Stopped);
        }
        Ok(outputs)
    }
}

impl<S: Default + Send, T: Trainer> Worker<S, T> {
    fn train_group<P: Population<Scratch = S>>(
        &mut self,
        population: &P,
        task: &RoundTask<'_>,
        jobs: &[Job],
        members: &[u32],
        reports: &mut Vec<Report>,
    ) -> Result<(), SimError> {
        let base = &task.bases[members
            .first()
            .map_or(0, |&first| jobs[first as usize].base) as usize];
        let parameters = base.global.values().len();
        if self.scratch.len() < members.len() {
            self.scratch.resize_with(members.len(), S::default);
        }
        if self.updates.len() < members.len() * parameters {
            self.updates.resize(members.len() * parameters, 0.0);
        }
        self.results.clear();
        self.results.resize(members.len(), LocalResult::default());
        let views: Vec<P::Client<'_>> = members
            .iter()
            .zip(&mut self.scratch)
            .map(|(&member, scratch)| population.train(jobs[member as usize].client, scratch))
            .collect();
        let mut tasks: Vec<FitTask<'_>> = members
            .iter()
            .zip(&views)
            .zip(self.updates.chunks_exact_mut(parameters.max(1)))
            .map(|((&member, data), update)| {
                let job = &jobs[member as usize];
                FitTask {
                    client: job.client,
                    round: base.round,
                    data,
                    plan: task.plan,
                    limit: job.limit,
                    stream: Stream::at(Purpose::LocalTraining, task.seed, base.round, job.client),
                    update,
                }
            })
            .collect();
        self.trainer
            .hold(task.pruned)
            .and_then(|()| self.trainer.fit(base.global, &mut tasks, &mut self.results))
            .map_err(|source| SimError::Train {
                round: task.round,
                client: match source {
                    TrainError::LabelOutOfRange { client, .. } => client,
                    _ => jobs[members[0] as usize].client,
                },
                source,
            })?;
        for ((&member, fitted), &result) in members.iter().zip(&mut tasks).zip(&self.results) {
            let job = &jobs[member as usize];
            let (given, current) = (base.global.values(), base.current.values());
            base.relative_to.rebase(fitted.update, given, current);
            if let (true, Some(value)) = (job.spoiled, fitted.update.first_mut()) {
                *value = f32::NAN;
            }
            let clipped = match &task.noising {
                None => task.clipper.map(|clipper| clipper.clip(fitted.update)),
                Some(noising) => {
                    let vector = &mut self.vector;
                    let clipped = noising.protect(job.client, fitted.update, vector)?;
                    if let Some(sum) = &mut self.modular {
                        if let Some(live) = task.live {
                            live.send_vector(member, vector)?;
                        }
                        if task.live.is_none_or(|live| !live.replaces()) {
                            noising.add(sum, vector)?;
                        }
                    }
                    Some(clipped)
                }
            };
            let sent = match self.modular {
                Some(_) => &[],
                None => &*fitted.update,
            };
            let live = task.live.filter(|_| self.modular.is_none());
            let masked = match live {
                Some(live) => {
                    let within = clipped.as_ref().map_or(0, AdaptiveClip::bit);
                    live.send_update(member, *self.sum.plan(), sent, job.weight, within)?
                }
                None => None,
            };
            let absorbed = match masked {
                Some(absorbed) if live.is_some_and(Live::replaces) => absorbed,
                _ => {
                    let absorbed = match task.parts {
                        Some(parts) => parts.absorb(member, sent, job.weight),
                        None => self.sum.absorb(sent, job.weight),
                    };
                    absorbed.map_err(|source| summed(task.round, source))?
                }
            };
            reports.push(Report {
                job: member,
                result,
                absorbed,
                clipped,
            });
        }
        Ok(())
    }

    /// Counts a client's values; false when it has none, or one of them is not finite.
    fn count<P: Population<Scratch = S>>(
        &mut self,
        population: &P,
        client: ClientId,
        samples: usize,
        part: &mut Counting,
    ) -> Result<bool, QuantError> {
        if self.scratch.is_empty() {
            self.scratch.push(S::default());
        }
        part.own.clear();
        let data = population.train(client, &mut self.scratch[0]);
        if data.is_empty() {
            return Ok(false);
        }
        part.any = true;
        let samples = Samples::spread(part.probe.model(), &data, samples)?;
        match part.probe.count(&samples, &mut part.own) {
            Ok(()) => Ok(true),
            Err(QuantError::NonFinite { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn evaluate_client<P: Population<Scratch = S>>(
        &mut self,
        population: &P,
        model: Judged<'_>,
        client: ClientId,
        wanted: Wanted,
    ) -> Result<ClientScore, TrainError> {
        if self.scratch.is_empty() {
            self.scratch.push(S::default());
        }
        let scratch = &mut self.scratch[0];
        let mut score = ClientScore {
            client,
            test: None,
            train: None,
        };
        if wanted.test
            && let Some(data) = population.client_test(client, scratch)
            && !data.is_empty()
        {
            let rows = 0..data.len();
            score.test = Some(model.evaluate(&mut self.trainer, &data, rows)?);
        }
        if wanted.train {
            let data = population.train(client, scratch);
            if !data.is_empty() {
                let rows = 0..data.len();
                score.train = Some(model.evaluate(&mut self.trainer, &data, rows)?);
            }
        }
        Ok(score)
    }
}

/// A sum that could not be had.
fn summed(round: RoundId, source: SumError) -> SimError {
    SimError::Round {
        round,
        source: RoundError::Sum(source),
    }
}

/// Adds `score` to `sum`.
pub(crate) fn add(sum: &mut Evaluation, score: &Evaluation) {
    sum.examples += score.examples;
    sum.loss_sum += score.loss_sum;
    sum.correct += score.correct;
}
