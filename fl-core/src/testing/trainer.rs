//! The law of [`Trainer`] and what a round relies on beside it.

use core::num::NonZeroU32;

use super::{bits, local_plan, stream};
use crate::examples::{Examples, InputSpec, InputsMut, TargetSpec, TargetsMut};
use crate::params::Parameters;
use crate::plan::{
    BatchSize, ExampleOrder, ExamplePrivacy, LearningRate, LocalPlan, LocalWork, WorkLimit,
};
use crate::trainer::{FitTask, LocalResult, TrainError, Trainer};
use crate::units::{ClientId, RoundId};

/// Checks a trainer on the data of some clients (at least two, of different sizes): how clients
/// are grouped into calls changes no bit, nor does what was trained before; `update = local -
/// global`; partial work is the beginning of the whole; counts are right; examples come in the
/// plan's order; the proximal term vanishes at the global model; no examples are refused; an
/// evaluation is the sum of its parts.
/// A trainer that protects single examples does so in all of this, bounds what an example does,
/// adds the noise asked for, also to a batch without examples, and without noise and bound is SGD;
/// one that cannot says that it is [unsupported](TrainError::Unsupported).
///
/// `global` is a model at which the data can be learned by SGD at rate `learning_rate`.
///
/// # Panics
/// When a law is broken.
pub fn trainer<T: Trainer>(
    make: &dyn Fn() -> T,
    global: &Parameters,
    clients: &[&dyn Examples],
    learning_rate: f32,
) {
    assert!(clients.len() >= 2, "grouping needs several clients");
    let suite = Suite {
        make,
        global,
        clients,
    };
    let plan = LocalPlan {
        work: LocalWork::Epochs(number(2)),
        batch: BatchSize::Examples(number(5)),
        learning_rate: LearningRate::constant(learning_rate),
        ..local_plan()
    };
    let plans = [
        plan,
        LocalPlan {
            work: LocalWork::Steps(number(7)),
            proximal_mu: 0.5,
            ..plan
        },
        LocalPlan {
            batch: BatchSize::Full,
            ..plan
        },
        LocalPlan {
            batch: BatchSize::Share(0.4),
            ..plan
        },
        LocalPlan {
            order: ExampleOrder::Stored,
            ..plan
        },
    ];
    for plan in &plans {
        suite.grouping(plan);
        suite.counts(plan);
        suite.partial_work(plan);
    }
    suite.learns(&plan);
    suite.order(&plan);
    suite.proximal(&plan);
    suite.refusals(&plan);
    suite.evaluation();
    suite.protects(&plan);
}

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

type Outcome = (Vec<u32>, LocalResult);

struct Suite<'a, T> {
    make: &'a dyn Fn() -> T,
    global: &'a Parameters,
    clients: &'a [&'a dyn Examples],
}

impl<T: Trainer> Suite<'_, T> {
    /// Trains the given clients in one call.
    fn fit(
        &self,
        trainer: &mut T,
        members: &[usize],
        plan: &LocalPlan,
        limit: &dyn Fn(usize) -> WorkLimit,
    ) -> Vec<Outcome> {
        // What was in the buffer before must not matter.
        let mut updates = vec![vec![f32::NAN; self.global.values().len()]; members.len()];
        let mut results = vec![LocalResult::default(); members.len()];
        let mut tasks: Vec<_> = members
            .iter()
            .zip(&mut updates)
            .map(|(&member, update)| FitTask {
                client: ClientId(member as u64),
                round: RoundId(3),
                data: self.clients[member],
                plan,
                limit: limit(member),
                stream: stream(9, member as u64),
                update,
            })
            .collect();
        let fitted = trainer.fit(self.global, &mut tasks, &mut results);
        fitted.expect("the clients can be trained");
        updates
            .iter()
            .map(|update| bits(update))
            .zip(results)
            .collect()
    }

    fn alone(&self, member: usize, plan: &LocalPlan, limit: WorkLimit) -> Outcome {
        let mut trainer = (self.make)();
        let outcome = self.fit(&mut trainer, &[member], plan, &|_| limit).pop();
        outcome.expect("one client was trained")
    }

    fn everyone(&self) -> Vec<usize> {
        (0..self.clients.len()).collect()
    }

    fn grouping(&self, plan: &LocalPlan) {
        let limit = |member: usize| {
            if member.is_multiple_of(3) {
                WorkLimit::AtMost(number(1 + member as u32 % 4))
            } else {
                WorkLimit::Full
            }
        };
        let mut order = self.everyone();
        let alone: Vec<_> = order
            .iter()
            .map(|&member| self.alone(member, plan, limit(member)))
            .collect();
        let mut trainer = (self.make)();
        let mut random = stream(10, 0);
        for size in [order.len(), 1, 2, 3, 5, 16] {
            for group in order.chunks(size) {
                let outcomes = self.fit(&mut trainer, group, plan, &limit);
                for (&member, outcome) in group.iter().zip(outcomes) {
                    assert!(
                        outcome == alone[member],
                        "client {member} in group {group:?} is not the client trained alone"
                    );
                }
            }
            random.shuffle(&mut order);
        }
    }

    fn counts(&self, plan: &LocalPlan) {
        for member in self.everyone() {
            let (_, result) = self.alone(member, plan, WorkLimit::Full);
            let examples = self.clients[member].len() as u64;
            assert_eq!(result.examples.0, examples, "examples of client {member}");
            assert_eq!(
                result.steps,
                plan.steps(examples, WorkLimit::Full),
                "steps of client {member}"
            );
            match plan.work {
                _ if plan.privacy.is_some() => {
                    assert!(result.examples_processed <= result.steps * examples);
                    assert!(result.examples_clipped <= result.examples_processed);
                }
                LocalWork::Epochs(epochs) => {
                    let epochs = u64::from(epochs.get());
                    assert_eq!(result.examples_processed, epochs * examples);
                }
                LocalWork::Steps(_) => {}
            }
            assert!(
                result.mean_loss.is_finite(),
                "the loss of client {member} is {}",
                result.mean_loss
            );
        }
    }

    fn partial_work(&self, plan: &LocalPlan) {
        let less = match plan.work {
            LocalWork::Epochs(_) => LocalWork::Epochs(number(1)),
            LocalWork::Steps(_) => LocalWork::Steps(number(1)),
        };
        let less = LocalPlan {
            work: less,
            ..*plan
        };
        for member in self.everyone() {
            assert!(
                self.alone(member, plan, WorkLimit::AtMost(number(1)))
                    == self.alone(member, &less, WorkLimit::Full),
                "partial work of client {member} is the beginning of its whole work"
            );
            assert!(
                self.alone(member, plan, WorkLimit::AtMost(number(1000)))
                    == self.alone(member, plan, WorkLimit::Full),
                "a limit above the plan changes nothing for client {member}"
            );
        }
    }

    fn learns(&self, plan: &LocalPlan) {
        for member in self.everyone() {
            let (update, _) = self.alone(member, plan, WorkLimit::Full);
            let local: Vec<f32> = self
                .global
                .values()
                .iter()
                .zip(update)
                .map(|(&w, update)| w + f32::from_bits(update))
                .collect();
            let data = self.clients[member];
            let mut trainer = (self.make)();
            let mut loss = |model: &[f32]| {
                let evaluation = trainer.evaluate(model, data, 0..data.len());
                evaluation.expect("the data fit the model").loss()
            };
            let (before, after) = (loss(self.global.values()), loss(&local));
            assert!(
                after < before,
                "global + update of client {member} has loss {after}, global {before}"
            );
        }
    }

    fn order(&self, plan: &LocalPlan) {
        let data = self.clients[self.clients.len() - 1];
        let first = First(data, plan.batch.examples(data.len() as u64) as usize);
        let step = |order, data: &dyn Examples, draw| {
            let plan = LocalPlan { order, ..*plan };
            self.one_step(&plan, data, draw).0
        };
        assert_eq!(
            step(ExampleOrder::Stored, data, 1),
            step(ExampleOrder::Stored, &first, 1),
            "in stored order, the first batch has the first examples"
        );
        assert_ne!(
            step(ExampleOrder::Shuffled, data, 1),
            step(ExampleOrder::Shuffled, data, 2),
            "shuffled, another batch comes first after another draw"
        );
    }

    fn proximal(&self, plan: &LocalPlan) {
        let values = |mu, steps| {
            let plan = LocalPlan {
                work: LocalWork::Steps(number(steps)),
                proximal_mu: mu,
                ..*plan
            };
            let (update, _) = self.alone(0, &plan, WorkLimit::Full);
            update.into_iter().map(f32::from_bits).collect::<Vec<_>>()
        };
        assert_eq!(
            values(0.0, 1),
            values(1.0, 1),
            "the proximal term vanishes at the global model"
        );
        assert_ne!(
            values(0.0, 5),
            values(1.0, 5),
            "the proximal term acts away from the global model"
        );
    }

    /// An update and its result of one step on a client's examples, with randomness number `draw`.
    fn one_step(
        &self,
        plan: &LocalPlan,
        data: &dyn Examples,
        draw: u64,
    ) -> (Vec<f64>, LocalResult) {
        let plan = LocalPlan {
            work: LocalWork::Steps(number(1)),
            ..*plan
        };
        let mut update = vec![f32::NAN; self.global.values().len()];
        let mut result = [LocalResult::default()];
        let mut task = [FitTask {
            client: ClientId(0),
            round: RoundId(3),
            data,
            plan: &plan,
            limit: WorkLimit::Full,
            stream: stream(11, draw),
            update: &mut update,
        }];
        let fitted = (self.make)().fit(self.global, &mut task, &mut result);
        fitted.expect("the client can be trained");
        let [result] = result;
        (update.into_iter().map(f64::from).collect(), result)
    }

    fn private_step(
        &self,
        plan: &LocalPlan,
        privacy: ExamplePrivacy,
        data: &dyn Examples,
        draw: u64,
    ) -> (Vec<f64>, LocalResult) {
        let plan = LocalPlan {
            privacy: Some(privacy),
            ..*plan
        };
        self.one_step(&plan, data, draw)
    }

    fn protects(&self, plan: &LocalPlan) {
        if !self.can_protect(plan) {
            return;
        }
        for plan in [
            *plan,
            LocalPlan {
                work: LocalWork::Steps(number(7)),
                batch: BatchSize::Share(0.3),
                proximal_mu: 0.5,
                ..*plan
            },
        ] {
            let plan = LocalPlan {
                privacy: Some(ExamplePrivacy::flat(0.5, 0.8)),
                ..plan
            };
            self.grouping(&plan);
            self.counts(&plan);
            self.partial_work(&plan);
        }
        let full = LocalPlan {
            batch: BatchSize::Full,
            ..*plan
        };
        let examples = self.clients[0].len() as f64;
        let rate = f64::from(plan.learning_rate.rate(RoundId(3), 0));
        let norm = |values: &[f64]| libm::sqrt(values.iter().map(|x| x * x).sum());
        let apart =
            |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };

        // One example alone, as a trainer may draw what it needs for several in any order.
        let one = First(self.clients[0], 1);
        let (free, result) = self.private_step(&full, ExamplePrivacy::flat(1e6, 0.0), &one, 0);
        assert_eq!(result.examples_clipped, 0, "a bound that nothing reaches");
        let (sgd, _) = self.one_step(&full, &one, 0);
        let off = norm(&apart(&free, &sgd));
        assert!(
            off <= 1e-4 * norm(&sgd),
            "without noise and bound, a step is {off} from that of SGD"
        );

        let (bounded, result) = self.private_step(&full, ExamplePrivacy::flat(1e-3, 0.0), &one, 0);
        assert_eq!(
            result.examples_clipped, 1,
            "a bound that the gradient exceeds"
        );
        let moved = norm(&bounded);
        assert!(
            (moved / (rate * 1e-3) - 1.0).abs() < 1e-3,
            "a gradient clipped to 1e-3 at rate {rate} moves the model by {moved}"
        );

        let noise = |plan: &LocalPlan, expected: f64, max_norm: f64, what: &str| {
            let std = rate * 5.0 * max_norm / expected;
            let (mut squares, mut values) = (0.0, 0.0);
            let mut last = LocalResult::default();
            for draw in 0..16 {
                let step = |noise| {
                    let privacy = ExamplePrivacy::flat(max_norm, noise);
                    self.private_step(plan, privacy, self.clients[0], draw)
                };
                let ((with, result), (without, _)) = (step(5.0), step(0.0));
                let normals = apart(&with, &without);
                squares += normals.iter().map(|x| x / std * (x / std)).sum::<f64>();
                values += normals.len() as f64;
                last = result;
            }
            assert!(
                (squares - values).abs() <= 6.0 * libm::sqrt(2.0 * values),
                "{what}: noise on {values} values has {squares} times its variance"
            );
            last
        };
        noise(&full, examples, 0.5, "a full batch");
        let nobody = LocalPlan {
            batch: BatchSize::Share(1e-6),
            ..*plan
        };
        let result = noise(&nobody, 1e-6 * examples, 1e-6, "an empty batch");
        assert_eq!((result.steps, result.examples_processed), (1, 0));
        assert_eq!(
            result.mean_loss.to_bits(),
            0,
            "the loss of no examples is 0"
        );
    }

    /// Whether the trainer protects examples; what it says otherwise must be clear.
    fn can_protect(&self, plan: &LocalPlan) -> bool {
        let plan = LocalPlan {
            privacy: Some(ExamplePrivacy::flat(1.0, 1.0)),
            ..*plan
        };
        let mut update = vec![0.0; self.global.values().len()];
        let mut task = [FitTask {
            client: ClientId(0),
            round: RoundId(3),
            data: self.clients[0],
            plan: &plan,
            limit: WorkLimit::Full,
            stream: stream(9, 0),
            update: &mut update,
        }];
        let fitted = (self.make)().fit(self.global, &mut task, &mut [LocalResult::default()]);
        match fitted {
            Ok(()) => true,
            Err(TrainError::Unsupported { .. }) => false,
            Err(error) => panic!("a trainer that cannot protect examples says so, not: {error}"),
        }
    }

    fn refusals(&self, plan: &LocalPlan) {
        let empty = Empty(self.clients[0]);
        let mut update = vec![0.0; self.global.values().len()];
        let mut task = [FitTask {
            client: ClientId(77),
            round: RoundId(0),
            data: &empty,
            plan,
            limit: WorkLimit::Full,
            stream: stream(9, 0),
            update: &mut update,
        }];
        let mut trainer = (self.make)();
        let fitted = trainer.fit(self.global, &mut task, &mut [LocalResult::default()]);
        assert_eq!(
            fitted,
            Err(TrainError::NoExamples(ClientId(77))),
            "a client without examples"
        );
        let short = &self.global.values()[1..];
        let evaluated = trainer.evaluate(short, self.clients[0], 0..1);
        assert!(
            matches!(evaluated, Err(TrainError::ParameterMismatch { .. })),
            "a model without its first parameter: {evaluated:?}"
        );
    }

    fn evaluation(&self) {
        let data = self.clients[0];
        let mut trainer = (self.make)();
        let mut evaluate = |rows: core::ops::Range<usize>| {
            let evaluation = trainer.evaluate(self.global.values(), data, rows);
            evaluation.expect("the data fit the model")
        };
        let whole = evaluate(0..data.len());
        assert_eq!(whole.examples, data.len() as u64, "every row is seen");
        assert_eq!(
            whole,
            evaluate(0..data.len()),
            "an evaluation is a function"
        );
        assert_eq!(evaluate(0..0).examples, 0, "no rows, no examples");
        let half = data.len() / 2;
        let parts = [evaluate(0..half), evaluate(half..data.len())];
        let correct: u64 = parts.iter().map(|part| part.correct).sum();
        let loss: f64 = parts.iter().map(|part| part.loss_sum).sum();
        assert_eq!(whole.correct, correct, "correct rows add up");
        assert!(
            (whole.loss_sum - loss).abs() <= 1e-9 * loss.abs().max(1.0),
            "losses add up: {} and {loss}",
            whole.loss_sum
        );
    }
}

/// The first examples of another data set alone, so many of them.
struct First<'a>(&'a dyn Examples, usize);

impl Examples for First<'_> {
    fn len(&self) -> usize {
        self.1
    }

    fn input(&self) -> &InputSpec {
        self.0.input()
    }

    fn target(&self) -> TargetSpec {
        self.0.target()
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        self.0.fill(rows, inputs, targets);
    }
}

/// The kind of another data set, without its examples.
struct Empty<'a>(&'a dyn Examples);

impl Examples for Empty<'_> {
    fn len(&self) -> usize {
        0
    }

    fn input(&self) -> &InputSpec {
        self.0.input()
    }

    fn target(&self) -> TargetSpec {
        self.0.target()
    }

    fn fill(&self, _: &[u32], _: InputsMut<'_>, _: TargetsMut<'_>) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::reference::{Blobs, SoftmaxTrainer};
    use super::*;

    #[test]
    fn the_reference_trainer_conforms() {
        let make = || SoftmaxTrainer::new(6, 4);
        let global = Parameters::zeros(Arc::clone(make().layout()));
        let clients: Vec<_> = (0..7)
            .map(|client| Blobs::new(client, 4 + 3 * client as usize, 6, 4))
            .collect();
        let clients: Vec<&dyn Examples> = clients.iter().map(|data| data as _).collect();
        trainer(&make, &global, &clients, 0.1);
    }

    /// A trainer with one fault.
    struct Faulty {
        trainer: SoftmaxTrainer,
        /// Changes the plan before it is followed.
        plan: fn(&mut LocalPlan),
        /// The update is multiplied by this.
        factor: f32,
    }

    impl Trainer for Faulty {
        fn layout(&self) -> &Arc<crate::params::Layout> {
            self.trainer.layout()
        }
        fn fit(
            &mut self,
            global: &Parameters,
            tasks: &mut [FitTask<'_>],
            results: &mut [LocalResult],
        ) -> Result<(), TrainError> {
            for (task, result) in tasks.iter_mut().zip(results) {
                let mut plan = *task.plan;
                (self.plan)(&mut plan);
                let mut other = [FitTask {
                    client: task.client,
                    round: task.round,
                    data: task.data,
                    plan: &plan,
                    limit: task.limit,
                    stream: task.stream.beside(crate::stream::Purpose::Testing),
                    update: &mut *task.update,
                }];
                self.trainer
                    .fit(global, &mut other, std::slice::from_mut(result))?;
                for value in task.update.iter_mut() {
                    *value *= self.factor;
                }
            }
            Ok(())
        }
        fn evaluate(
            &mut self,
            parameters: &[f32],
            data: &dyn Examples,
            rows: core::ops::Range<usize>,
        ) -> Result<crate::trainer::Evaluation, TrainError> {
            self.trainer.evaluate(parameters, data, rows)
        }
    }

    fn check(plan: fn(&mut LocalPlan), factor: f32) {
        let make = || Faulty {
            trainer: SoftmaxTrainer::new(6, 4),
            plan,
            factor,
        };
        let global = Parameters::zeros(Arc::clone(make().layout()));
        let clients = [Blobs::new(0, 9, 6, 4), Blobs::new(1, 12, 6, 4)];
        let clients: Vec<&dyn Examples> = clients.iter().map(|data| data as _).collect();
        trainer(&make, &global, &clients, 0.1);
    }

    #[test]
    #[should_panic(expected = "has loss")]
    fn a_wrong_sign_is_found() {
        check(|_| {}, -1.0);
    }

    #[test]
    fn a_trainer_without_faults_passes() {
        check(|_| {}, 1.0);
    }

    #[test]
    fn a_trainer_may_refuse_to_protect_examples() {
        check(
            |plan| {
                if let Some(privacy) = &mut plan.privacy {
                    privacy.clipping = crate::plan::ExampleClipping::PerLayer;
                }
            },
            1.0,
        );
    }

    fn change(plan: &mut LocalPlan, to: impl Fn(&mut ExamplePrivacy)) {
        plan.privacy.as_mut().into_iter().for_each(to);
    }

    #[test]
    #[should_panic(expected = "steps")]
    fn a_trainer_that_ignores_privacy_is_found() {
        // Batches of 5 of 12 are 3 steps, and 2 with privacy.
        check(|plan| plan.privacy = None, 1.0);
    }

    #[test]
    #[should_panic(expected = "noise on")]
    fn too_little_noise_is_found() {
        check(|plan| change(plan, |it| it.noise_multiplier *= 0.3), 1.0);
    }

    #[test]
    #[should_panic(expected = "moves the model by")]
    fn a_larger_bound_is_found() {
        check(
            |plan| {
                change(plan, |it| {
                    it.max_norm *= 2.0;
                    it.noise_multiplier /= 2.0;
                });
            },
            1.0,
        );
    }
}
