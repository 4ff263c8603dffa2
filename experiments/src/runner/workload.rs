//! What a run will take: examples, arithmetic, memory.

use fl_core::{ClientId, LocalWork};

use super::Prepared;

/// What a run will take. All but the memory is expected, not certain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Rounds.
    pub rounds: u64,
    /// Examples processed in a round, all epochs together.
    pub examples_per_round: u64,
    /// Examples on which the model is evaluated in the whole run, apart from those of clients.
    pub examples_evaluated: u64,
    /// Multiply-adds of one example, forward.
    pub macs_per_example: u64,
    /// Bytes that each worker thread holds for the model, its training and its partial sum.
    pub memory_per_thread: u64,
    /// Bytes of the data.
    pub memory_of_data: u64,
    /// Bytes of the global model.
    pub memory_of_model: u64,
}

impl Workload {
    /// Of a run whose data and model are at hand.
    #[must_use]
    pub fn of(prepared: &Prepared) -> Self {
        let (variant, data) = (&prepared.variant, &prepared.data);
        let clients = data.clients();
        let sizes = || (0..clients).map(|id| data.train_len(ClientId(id)));
        let examples: u64 = sizes().sum();
        let plan = variant.local.plan();
        let batch = plan.batch.examples(sizes().max().unwrap_or(0));
        let per_client = match plan.work {
            LocalWork::Epochs(epochs) => {
                u64::from(epochs.get()) as f64 * examples as f64 / clients.max(1) as f64
            }
            LocalWork::Steps(steps) => f64::from(steps.get()) * batch as f64,
        };
        let cohort = variant.selection.expected_cohort(clients);
        let model = &prepared.model;
        let parameters = model.parameters() as u64;
        let training = model.peak_bytes(usize::try_from(batch).unwrap_or(usize::MAX).max(1), true);
        let evaluations = variant
            .rounds
            .div_ceil(variant.evaluation.config().every.max(1));
        let tested = data.test().map_or(0, |test| test.len() as u64);
        Self {
            rounds: variant.rounds,
            examples_per_round: (cohort * per_client).round() as u64,
            examples_evaluated: evaluations.saturating_mul(tested),
            macs_per_example: model.macs_per_example(),
            memory_per_thread: training as u64 + 8 * parameters,
            memory_of_data: data.summary().memory_bytes,
            memory_of_model: 4 * parameters,
        }
    }

    /// Multiply-adds of the whole run, training counted three times forward (once more for the
    /// gradients of the activations, once for those of the parameters).
    #[must_use]
    pub fn cost(&self) -> u64 {
        let trained = self.rounds.saturating_mul(self.examples_per_round);
        trained
            .saturating_mul(3)
            .saturating_add(self.examples_evaluated)
            .saturating_mul(self.macs_per_example)
            .max(1)
    }

    /// Bytes of a run on so many threads: the data, twice while they are read; each thread's training;
    /// and the model itself with the copies that the server, a checkpoint and an evaluation make of it.
    #[must_use]
    pub fn memory(&self, threads: u64) -> u64 {
        let copies = 8;
        self.memory_of_data
            .saturating_mul(2)
            .saturating_add(self.memory_per_thread.saturating_mul(threads))
            .saturating_add(self.memory_of_model.saturating_mul(copies))
    }
}
