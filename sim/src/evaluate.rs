//! Judges the global model: on the central test set, over the clients' training examples, and on
//! single clients.
//!
//! Losses are added in a fixed order (rows within a chunk or client, then chunks or clients in
//! their order), so the numbers are the same for any number of threads. Of a population larger
//! than [`EvaluationConfig::max_clients`], one sample of that size, drawn uniformly for the whole
//! run from a [`Purpose::Evaluation`] stream, stands for all; and of a larger central test set one
//! of [`EvaluationConfig::max_examples`].

use std::sync::atomic::AtomicBool;

use fl_core::registry::Registered as _;
use fl_core::select::{Candidates, Selector as _, Uniform, UniformConfig};
use fl_core::{
    ClientId, Evaluation, Examples, InputSpec, InputsMut, Parameters, Purpose, RoundId, Seed,
    ServedModel, Stream, TargetSpec, TargetsMut,
};

use crate::clock::Stopwatch;
use crate::config::{EvaluationConfig, PerClient, refused};
use crate::error::SimError;
use crate::executor::{ClientScore, Executor, Halt, Judged, Wanted, add};
use crate::population::{Engine, Population};
use crate::record::{ClientEvaluation, EvaluationRecord};

/// What stands for everything in evaluations, drawn once for a run.
#[derive(Debug)]
pub(crate) struct Sample {
    /// The clients that stand for the population.
    clients: Vec<ClientId>,
    /// The examples that stand for the central test set, in order; none for all of them.
    examples: Option<Vec<u32>>,
}

impl Sample {
    pub(crate) fn draw<P: Population>(
        config: &EvaluationConfig,
        seed: Seed,
        population: &P,
    ) -> Result<Self, SimError> {
        // Clients and examples have a stream each.
        let stream = |whose| Stream::at(Purpose::Evaluation, seed, RoundId(0), ClientId(whose));
        let round = RoundId(0);
        let tests = population.test().map_or(0, Examples::len) as u64;
        let most = config.max_examples.filter(|&most| most < tests);
        let drawn = |most| some(most, stream(1), round, tests);
        let rows = |drawn: Vec<ClientId>| drawn.iter().map(|row| row.0 as u32).collect();
        Ok(Self {
            clients: some(config.max_clients, stream(0), round, population.clients())?,
            examples: most.map(drawn).transpose()?.map(rows),
        })
    }
}

/// Some examples of others.
struct Part<'a> {
    whole: &'a dyn Examples,
    rows: &'a [u32],
}

impl Examples for Part<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn input(&self) -> &InputSpec {
        self.whole.input()
    }

    fn target(&self) -> TargetSpec {
        self.whole.target()
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        let rows: Vec<u32> = rows.iter().map(|&row| self.rows[row as usize]).collect();
        self.whole.fill(&rows, inputs, targets);
    }
}

/// So many clients of a larger population, uniformly and in order; all of a smaller one.
pub(crate) fn some(
    clients: u64,
    mut stream: Stream,
    round: RoundId,
    population: u64,
) -> Result<Vec<ClientId>, SimError> {
    if population <= clients {
        return Ok((0..population).map(ClientId).collect());
    }
    let uniform = Uniform::from_config(UniformConfig {
        cohort: clients,
        over_select: 1.0,
    })
    .map_err(|source| refused("evaluation", source))?;
    let selection = uniform
        .select(&Candidates::everyone(population), &mut stream)
        .map_err(|source| SimError::Round {
            round,
            source: source.into(),
        })?;
    Ok(selection.clients)
}

/// What an evaluation found.
pub(crate) struct Judgement {
    pub(crate) record: EvaluationRecord,
    /// In client order; empty unless single clients were asked for.
    pub(crate) clients: Vec<ClientEvaluation>,
}

/// Judges `parameters`, which have seen `round` rounds. `last` is asked whether the run ends
/// here, once the test accuracy is known; `int8` is the same model as a device serves it, where
/// that is to be judged, too.
#[expect(
    clippy::too_many_arguments,
    reason = "an evaluation needs a part of everything that a simulation owns"
)]
pub(crate) fn judge<P: Population, E: Engine>(
    executor: &mut Executor<P, E>,
    population: &P,
    config: &EvaluationConfig,
    sample: &Sample,
    parameters: &Parameters,
    int8: Option<&dyn ServedModel>,
    round: RoundId,
    last: impl Fn(Option<f64>) -> bool,
    stop: &AtomicBool,
) -> Result<Judgement, Halt> {
    let watch = Stopwatch::start();
    let trained = Judged::Trained(parameters);
    let central = score_central(executor, population, trained, sample, round, stop)?;
    let single = |test: Option<&Evaluation>| match config.per_client {
        PerClient::Never => false,
        PerClient::Last => last(test.map(Evaluation::accuracy)),
        PerClient::Each => true,
    };
    // Without a central test set, the clients' held-out examples are it.
    let wanted = Wanted {
        test: central.as_ref().is_none_or(|score| single(Some(score))),
        train: config.train,
    };
    let mut scores = Vec::new();
    if wanted.test || wanted.train {
        scores =
            executor.evaluate_clients(population, trained, &sample.clients, wanted, round, stop)?;
    }
    let test = central.or_else(|| total(scores.iter().filter_map(|score| score.test)));
    let single = single(test.as_ref());
    if single && !wanted.train {
        score_untested(executor, population, trained, &mut scores, round, stop)?;
    }
    let train = config
        .train
        .then(|| total(scores.iter().filter_map(|score| score.train)))
        .flatten();
    let int8 = int8
        .map(|model| score_int8(executor, population, model, sample, round, stop))
        .transpose()?
        .flatten();
    let clients = if single {
        scores
            .iter()
            .filter_map(|score| client(round, score))
            .collect()
    } else {
        Vec::new()
    };
    Ok(Judgement {
        record: EvaluationRecord {
            round: round.0,
            test_loss: test.as_ref().map(Evaluation::loss),
            test_accuracy: test.as_ref().map(Evaluation::accuracy),
            test_loss_int8: int8.as_ref().map(Evaluation::loss),
            test_accuracy_int8: int8.as_ref().map(Evaluation::accuracy),
            train_loss: train.as_ref().map(Evaluation::loss),
            train_accuracy: train.as_ref().map(Evaluation::accuracy),
            train_clients: if train.is_some() {
                sample.clients.len() as u64
            } else {
                0
            },
            patch: None,
            seconds: watch.seconds(),
        },
        clients,
    })
}

/// The score on the central test set, or on the sample that stands for it; none without a set.
fn score_central<P: Population, E: Engine>(
    executor: &Executor<P, E>,
    population: &P,
    model: Judged<'_>,
    sample: &Sample,
    round: RoundId,
    stop: &AtomicBool,
) -> Result<Option<Evaluation>, Halt> {
    let Some(whole) = population.test().filter(|data| !data.is_empty()) else {
        return Ok(None);
    };
    let score = match &sample.examples {
        Some(rows) => executor.evaluate_test(model, &Part { whole, rows }, round, stop),
        None => executor.evaluate_test(model, whole, round, stop),
    };
    score.map(Some)
}

/// The test score of the model as a device serves it: on the same examples as the trained one's.
fn score_int8<P: Population, E: Engine>(
    executor: &mut Executor<P, E>,
    population: &P,
    model: &dyn ServedModel,
    sample: &Sample,
    round: RoundId,
    stop: &AtomicBool,
) -> Result<Option<Evaluation>, Halt> {
    let served = Judged::Served(model);
    let central = score_central(executor, population, served, sample, round, stop)?;
    if central.is_some() {
        return Ok(central);
    }
    let wanted = Wanted {
        test: true,
        train: false,
    };
    let scores =
        executor.evaluate_clients(population, served, &sample.clients, wanted, round, stop)?;
    Ok(total(scores.iter().filter_map(|score| score.test)))
}

/// Evaluates clients without held-out examples on their training examples.
fn score_untested<P: Population, E: Engine>(
    executor: &mut Executor<P, E>,
    population: &P,
    model: Judged<'_>,
    scores: &mut [ClientScore],
    round: RoundId,
    stop: &AtomicBool,
) -> Result<(), Halt> {
    let wanted = Wanted {
        test: false,
        train: true,
    };
    let untested = || |score: &&mut ClientScore| score.test.is_none();
    let clients: Vec<ClientId> = scores
        .iter_mut()
        .filter(untested())
        .map(|score| score.client)
        .collect();
    let more = executor.evaluate_clients(population, model, &clients, wanted, round, stop)?;
    for (score, more) in scores.iter_mut().filter(untested()).zip(more) {
        score.train = more.train;
    }
    Ok(())
}

fn client(round: RoundId, score: &ClientScore) -> Option<ClientEvaluation> {
    let (split, evaluation) = score.best()?;
    Some(ClientEvaluation {
        round: round.0,
        client: score.client.0,
        split,
        examples: evaluation.examples,
        loss: evaluation.loss(),
        accuracy: evaluation.accuracy(),
    })
}

/// The sum, in order; none of nothing.
fn total(scores: impl Iterator<Item = Evaluation>) -> Option<Evaluation> {
    let mut sum = Evaluation::default();
    for score in scores {
        add(&mut sum, &score);
    }
    (sum.examples > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_population_is_evaluated_whole_and_a_large_one_by_one_sample() {
        let some = |seed, population| {
            let stream = Stream::at(Purpose::Evaluation, Seed(seed), RoundId(0), ClientId(0));
            some(50, stream, RoundId(0), population).unwrap()
        };
        assert_eq!(some(1, 50), (0..50).map(ClientId).collect::<Vec<_>>());
        let drawn = some(1, 1_000_000_000);
        assert_eq!(drawn.len(), 50);
        assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(drawn, some(1, 1_000_000_000));
        assert_ne!(drawn, some(2, 1_000_000_000));
    }
}
