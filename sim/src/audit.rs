//! Audits of private runs: attacks that are really run, and a recorder of what a run tells its
//! mechanisms.
//!
//! # The attack
//! [`audit`] plays the configured run with *canaries*: clients, drawn for the audit, that are each
//! in or out by a fair coin and whose update is a direction of their own, as long as the clipper
//! lets it be. Everything else is the run's own: selection, fleet, clipper, ring, the
//! [`DpPlan`] with its ledger and its noise, denominator, strategy. The attacker is *white-box*:
//! it sees every mean that is released, knows the clipping norm and every direction, but
//! not the coins and, where the guarantee counts on it, not who takes part. Its score is the
//! likelihood ratio of "in" to "out" over all rounds, and it takes a canary for "in" when that is
//! more likely.
//!
//! What "out" means is the relation's matter: the client contributes the opposite direction
//! ([`ReplaceOne`](NeighboringRelation::ReplaceOne)), or it has no examples and takes no part
//! ([`AddOrRemoveOne`](NeighboringRelation::AddOrRemoveOne), and
//! [`ReplaceSpecial`](NeighboringRelation::ReplaceSpecial), whose special member that is).
//!
//! Directions have a value in every tensor that is large enough for all canaries, at places that no
//! other canary uses. A tensor that is smaller has none, so with per-layer clipping the audit
//! of a model with small tensors is a little weaker.
//!
//! By default every other client is [absent](Others::Absent): a guarantee holds for all data sets,
//! this one too, and an attacker gains by it. Then runs cost little, and the audit plays several
//! hundred: [`Repeated`] runs tell nearly everything that there is to tell, a single one little
//! ([`fl_privacy::audit`] says why). With [`Others::Train`] the other clients train as always.
//!
//! # The recorder
//! [`recorder`] runs whole rounds on neighbouring populations with the same randomness and
//! compares what the mechanisms are given.

mod attack;
mod cast;
pub mod recorder;
mod tap;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fl_core::select::SelectorConfig;
use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
use fl_privacy::audit::{OneRun, Repeated, refuted_epsilon};
use fl_privacy::fdp::TradeOffCurve;
use fl_privacy::{
    Accountant, AccountantKind, Delta, DpPlan, Epsilon, NeighboringRelation, PrivacyError, Sampler,
};
use rand_core::Rng as _;
use rayon::prelude::*;

use crate::audit::attack::{Attack, Knowledge};
pub use crate::audit::cast::{Act, Update};
use crate::audit::cast::{Acting, Cast, Roles};
pub use crate::audit::tap::Fault;
use crate::audit::tap::Log;
pub(crate) use crate::audit::tap::Tap;
use crate::checkpoint::LocalDisk;
use crate::config::{EvaluationConfig, PerClient, SimulationConfig};
use crate::error::SimError;
use crate::population::{Engine, Population};
use crate::privacy::{Privacy, forecast};
use crate::record::{ClientEvaluation, EvaluationRecord, Observer, RoundRecord};
use crate::simulation::{Outcome, Simulation};

/// Epsilons of a curve that a single run is held against.
const CURVE: u32 = 60;

/// How a run is audited.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditConfig {
    /// Canaries of each run; at most the clients, and the values of the largest tensor. 500, or the
    /// most there can be, when not given.
    pub canaries: Option<u64>,
    /// Runs, each with canaries, coins and noise of its own; at least 1. Their first seed is the
    /// configuration's.
    pub runs: u64,
    /// How sure the bounds are, above 0 and below 1.
    pub confidence: f64,
    /// What clients do that are no canaries.
    pub others: Others,
    /// Something that is done wrong on purpose, to see whether the audit finds it.
    pub fault: Option<Fault>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            canaries: None,
            runs: 300,
            confidence: 0.95,
            others: Others::Absent,
            fault: None,
        }
    }
}

/// What clients do that are no canaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// They do not answer.
    #[default]
    Absent,
    /// They train, as in every run. What they contribute is told to the attacker, except with
    /// samples of fixed size, where it would say how many canaries took part.
    Train,
}

/// Why a run cannot be audited.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum AuditError {
    /// Without privacy there is nothing to be refuted.
    #[error(
        "an audit tries to refute a guarantee, and this run has none; give it privacy with noise"
    )]
    NoGuarantee,
    /// The guarantee is another deployment's.
    #[error(
        "an audit attacks what is run, and this run's guarantee is that of a larger deployment; \
         leave the extrapolation out"
    )]
    Hypothetical,
    /// More canaries than there can be.
    #[error(
        "{canaries} canaries were asked for, and there are {most} {what}; ask for at most {most}"
    )]
    TooMany {
        /// As given.
        canaries: u64,
        /// The most.
        most: u64,
        /// What is too few.
        what: &'static str,
    },
    /// A number of the audit out of its range.
    #[error("{what} of an audit is {value}; expected {expected}")]
    OutOfRange {
        /// Which.
        what: &'static str,
        /// As given.
        value: f64,
        /// Its range.
        expected: &'static str,
    },
    /// An attack on this kind of privacy is not known here.
    #[error(
        "there is no attack on this kind of privacy yet; audit one with a trusted server (kind \"central\")"
    )]
    Kind,
}

/// One canary of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CanaryScore {
    /// Whether it was in.
    pub included: bool,
    /// The attack's logarithm of the likelihood ratio; above 0 it is taken for in.
    pub score: f64,
}

/// What an audit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was guessed right is likely enough under the guarantee.
    Consistent,
    /// What was guessed right is less likely, under the guarantee, than the confidence leaves:
    /// less noise was added, or more was released, than the plan says.
    Refuted,
}

/// What an audit found.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditReport {
    /// The guarantee as it is reported: the upper bound after [`Self::rounds`] rounds.
    pub epsilon: Epsilon,
    /// Its `delta`.
    pub delta: Delta,
    /// Whose upper bound it is.
    pub accountant: AccountantKind,
    /// Which data sets are hard to tell apart.
    pub relation: NeighboringRelation,
    /// How the cohort is drawn.
    pub sampler: Sampler,
    /// Rounds of each run.
    pub rounds: u64,
    /// Runs.
    pub runs: u64,
    /// Canaries of each run.
    pub canaries: u64,
    /// Guesses in all; the attack of a single run abstains from the others.
    pub guesses: u64,
    /// Guesses that were right.
    pub correct: u64,
    /// The expected share of right guesses that the guarantee allows, in (0.5, 1].
    pub allowed: f64,
    /// How sure the bounds are.
    pub confidence: f64,
    /// How likely such guesses are under the run's own trade-off curve; an upper bound.
    pub p_value: f64,
    /// With this confidence the run's `epsilon` is at least this, when its schedule is as declared
    /// and only the level of its noise may differ.
    pub lower: Epsilon,
    /// The same without any assumption about how the run came by its outputs. Weak.
    pub lower_any: Epsilon,
    /// What clients did that were no canaries.
    pub others: Others,
    /// Whether the attack saw who takes part: where the guarantee does not count on its secrecy.
    pub sees_cohort: bool,
    /// Whether the attack was told what the others contributed.
    pub knows_others: bool,
    /// Every canary of every run.
    pub scores: Vec<CanaryScore>,
}

impl AuditReport {
    /// What the audit says.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.p_value < 1.0 - self.confidence {
            true => Verdict::Refuted,
            false => Verdict::Consistent,
        }
    }
}

/// Audits a run; see the [module](self). None when `stop` was raised before the end. After every
/// round `progress` is told how many rounds are done and how many there are in all, by any thread.
///
/// # Errors
/// [`SimError::Audit`] for a run that cannot be audited, and what running it can fail with.
pub fn audit<P: Population, E: Engine>(
    config: &SimulationConfig,
    population: &P,
    engine: &E,
    how: &AuditConfig,
    progress: &(dyn Fn(u64, u64) + Sync),
    stop: &AtomicBool,
) -> Result<Option<AuditReport>, SimError> {
    let clients = population.clients();
    let examples = |client| population.train_len(client);
    let planned = match forecast(config, clients, &examples, engine.layout())? {
        None => return Err(AuditError::NoGuarantee.into()),
        Some(plan) => plan,
    };
    let plan = planned.central().ok_or(AuditError::Kind)?;
    if plan.config().extrapolation.is_some() {
        return Err(AuditError::Hypothetical.into());
    }
    let rounds = planned.last_round();
    let spent = plan.spent_after(rounds)?.epsilon.upper;
    if !spent.get().is_finite() {
        return Err(AuditError::NoGuarantee.into());
    }
    let canaries = how.check(clients, largest_tensor(engine))?;
    let (knowledge, sees_cohort) = knowledge(config, plan);
    let knows_others =
        how.others == Others::Train && !matches!(config.selection, SelectorConfig::Uniform(_));
    let done = AtomicU64::new(0);
    let counted = || progress(done.fetch_add(1, Ordering::Relaxed) + 1, rounds * how.runs);
    let one = |run: u64, threads: usize| {
        let mut stream = Stream::at(Purpose::Audit, config.seed, RoundId(run), ClientId(0));
        let own = audited(config, plan, rounds, threads, &mut stream);
        let attack = Attack::new(
            draw(canaries, clients, &mut stream),
            engine.layout(),
            plan.config().relation,
            knowledge,
            knows_others,
        );
        let tap = Tap::new(how.fault, Log::Canaries(Box::new(attack.clone())));
        let roles = attack.roles(how.others);
        let played = play(own, population, engine, roles, tap, &counted, stop)?;
        Ok(played.and_then(Tap::attack).map(|attack| attack.scores()))
    };
    let runs: Option<Vec<Vec<CanaryScore>>> = match how.others {
        // A run is a task; it has the caller's one thread.
        Others::Absent => {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(config.threads)
                .build()
                .map_err(|source| SimError::Threads {
                    threads: config.threads,
                    source,
                })?;
            let all: Result<Vec<_>, SimError> = pool.install(|| {
                (0..how.runs)
                    .into_par_iter()
                    .map(|run| one(run, 1))
                    .collect()
            });
            all?.into_iter().collect()
        }
        Others::Train => {
            let all = (0..how.runs).map(|run| one(run, config.threads));
            all.collect::<Result<Vec<_>, SimError>>()?
                .into_iter()
                .collect()
        }
    };
    let Some(runs) = runs else {
        return Ok(None);
    };
    let found = Found::of(&runs, canaries)?;
    let family = |scale: f64| plan.rescaled(scale, rounds);
    let own = family(1.0)?;
    let delta = plan.config().delta;
    Ok(Some(AuditReport {
        epsilon: spent,
        delta,
        accountant: plan.config().accountant,
        relation: plan.config().relation,
        sampler: plan.config().sampler.clone(),
        rounds,
        runs: how.runs,
        canaries,
        guesses: found.guesses(),
        correct: found.correct(),
        allowed: 0.5 * (1.0 + advantage(own.as_ref())?.advantage()),
        confidence: how.confidence,
        p_value: found.p_value(own.as_ref())?,
        lower: refuted_epsilon(delta, how.confidence, family, |sum| found.p_value(sum))?,
        lower_any: found.lower_any(delta, how.confidence)?,
        others: how.others,
        sees_cohort,
        knows_others,
        scores: runs.concat(),
    }))
}

impl AuditConfig {
    /// The number of canaries.
    fn check(&self, clients: u64, places: u64) -> Result<u64, AuditError> {
        let range = |what, value, fits: bool, expected| match fits {
            true => Ok(()),
            false => Err(AuditError::OutOfRange {
                what,
                value,
                expected,
            }),
        };
        let confidence = self.confidence;
        range(
            "the confidence",
            confidence,
            confidence > 0.0 && confidence < 1.0,
            "a number above 0 and below 1",
        )?;
        let runs = self.runs;
        range(
            "the number of runs",
            runs as f64,
            (1..=1_000_000).contains(&runs),
            "a whole number from 1 to 1000000",
        )?;
        let Some(canaries) = self.canaries else {
            return Ok(500.min(clients).min(places));
        };
        range(
            "the number of canaries",
            canaries as f64,
            canaries > 0,
            "a whole number of at least 1",
        )?;
        for (most, what) in [
            (clients, "clients"),
            (places, "values in the model's largest tensor"),
        ] {
            if canaries > most {
                return Err(AuditError::TooMany {
                    canaries,
                    most,
                    what,
                });
            }
        }
        Ok(canaries)
    }
}

fn largest_tensor<E: Engine>(engine: &E) -> u64 {
    let tensors = engine.layout().tensors().iter();
    tensors
        .map(|tensor| tensor.range().len() as u64)
        .max()
        .unwrap_or(0)
}

/// What an attacker may know of who takes part, and whether it sees all of it.
fn knowledge(config: &SimulationConfig, plan: &DpPlan) -> (Knowledge, bool) {
    let present = 1.0 - config.fleet.dropout;
    let sampler = &plan.config().sampler;
    let rate = sampler.expected_size() / sampler.population() as f64;
    match &config.selection {
        SelectorConfig::Poisson(_) | SelectorConfig::Uniform(_) if rate < 1.0 => {
            (Knowledge::Secret(rate * present), false)
        }
        SelectorConfig::Cyclic(keys) if keys.rate < 1.0 => {
            (Knowledge::Secret(rate * present), false)
        }
        _ => (Knowledge::Cohort(present), true),
    }
}

/// The configuration of one audited run: the same noise without a budget, nothing evaluated, and a
/// seed of its own.
fn audited(
    config: &SimulationConfig,
    plan: &DpPlan,
    rounds: u64,
    threads: usize,
    stream: &mut Stream,
) -> SimulationConfig {
    let mut own = quiet(config);
    own.seed = Seed(stream.next_u64());
    own.rounds = rounds;
    own.threads = threads;
    if let Some(Privacy::Central(privacy)) = &mut own.privacy {
        privacy.noise_multiplier = Some(plan.noise_multiplier());
        privacy.epsilon = None;
    }
    own
}

/// Without evaluations, checkpoints and targets.
fn quiet(config: &SimulationConfig) -> SimulationConfig {
    SimulationConfig {
        evaluation: EvaluationConfig {
            every: config.rounds,
            initial: false,
            per_client: PerClient::Never,
            max_clients: 1,
            ..EvaluationConfig::default()
        },
        checkpoint: None,
        secagg: None,
        stop_at_accuracy: None,
        ..config.clone()
    }
}

/// So many clients, uniformly (Floyd's method, Bentley and Floyd 1987), in order; each with a coin.
fn draw(canaries: u64, clients: u64, stream: &mut Stream) -> Vec<(ClientId, bool)> {
    let mut drawn = std::collections::BTreeSet::new();
    for last in clients - canaries..clients {
        let candidate = stream.below(last + 1);
        if !drawn.insert(candidate) {
            drawn.insert(last);
        }
    }
    drawn
        .into_iter()
        .map(|client| (ClientId(client), stream.next_u64() >> 63 == 1))
        .collect()
}

/// Plays a run with `roles` and hands the tap back; none when it was stopped.
fn play<P: Population, E: Engine>(
    config: SimulationConfig,
    population: &P,
    engine: &E,
    roles: Roles,
    tap: Tap,
    counted: &dyn Fn(),
    stop: &AtomicBool,
) -> Result<Option<Tap>, SimError> {
    let roles = Arc::new(roles);
    let cast = Cast::new(population, Arc::clone(&roles));
    let acting = Acting::new(engine, roles);
    let mut simulation = Simulation::with_parts(config, cast, acting, Arc::new(LocalDisk))?;
    simulation.tap = Some(Box::new(tap));
    Ok(match simulation.run(&mut Counter(counted), stop)? {
        Outcome::Stopped { .. } => None,
        _ => simulation.tap.take().map(|tap| *tap),
    })
}

/// Counts rounds.
struct Counter<'a>(&'a dyn Fn());

impl Observer for Counter<'_> {
    fn round(&mut self, _: &RoundRecord) {
        (self.0)();
    }

    fn evaluated(&mut self, _: &EvaluationRecord) {}

    fn client_evaluated(&mut self, _: &ClientEvaluation) {}
}

/// The guesses, as they are judged.
enum Found {
    One(OneRun),
    Several { runs: Repeated, canaries: u64 },
}

impl Found {
    fn of(runs: &[Vec<CanaryScore>], canaries: u64) -> Result<Self, PrivacyError> {
        let right = |canary: &&CanaryScore| (canary.score > 0.0) == canary.included;
        if let [only] = runs {
            // The surest tenth: a curve is easiest to refute where it is steep.
            let guesses = (canaries / 10).max(canaries.min(100));
            let mut surest: Vec<&CanaryScore> = only.iter().collect();
            surest.sort_by(|a, b| b.score.abs().total_cmp(&a.score.abs()));
            surest.truncate(guesses as usize);
            return Ok(Self::One(OneRun {
                canaries,
                guesses,
                correct: surest.into_iter().filter(right).count() as u64,
            }));
        }
        let share =
            |run: &Vec<CanaryScore>| run.iter().filter(right).count() as f64 / canaries as f64;
        Ok(Self::Several {
            runs: Repeated::new(runs.iter().map(share).collect())?,
            canaries,
        })
    }

    fn guesses(&self) -> u64 {
        match self {
            Self::One(run) => run.guesses,
            Self::Several { runs, canaries } => canaries * runs.shares().len() as u64,
        }
    }

    fn correct(&self) -> u64 {
        match self {
            Self::One(run) => run.correct,
            Self::Several { runs, .. } => libm::round(runs.mean() * self.guesses() as f64) as u64,
        }
    }

    fn p_value(&self, sum: &dyn Accountant) -> Result<f64, PrivacyError> {
        match self {
            Self::One(run) => run.curve_p_value(&TradeOffCurve::of(sum, CURVE)?),
            Self::Several { runs, .. } => Ok(runs.curve_p_value(&advantage(sum)?)),
        }
    }

    fn lower_any(&self, delta: Delta, confidence: f64) -> Result<Epsilon, PrivacyError> {
        match self {
            Self::One(run) => run.epsilon(delta, confidence),
            Self::Several { runs, .. } => runs.epsilon(delta, confidence),
        }
    }
}

/// The part of the curve at `epsilon = 0`, which alone bounds the share of right guesses.
fn advantage(sum: &dyn Accountant) -> Result<TradeOffCurve, PrivacyError> {
    let delta = sum.delta(Epsilon::ZERO)?.upper;
    Ok(TradeOffCurve::of_pairs([(Epsilon::ZERO, delta)]))
}
