//! Clients that do as they are told, within an otherwise untouched population and engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use fl_core::{
    ClientId, ExampleCount, Examples, FitTask, Layout, LocalResult, Parameters, Stream, TrainError,
    Trainer,
};

use crate::population::{Engine, Population};

/// What a client does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// It trains, as always.
    Train,
    /// It has no examples, so it does not take part.
    Absent,
    /// It sends this in place of what it would have trained.
    Send(Update),
}

/// An update that nobody trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// The same value everywhere.
    Constant(f32),
    /// These values at these places, and zero elsewhere.
    Spikes(Vec<(usize, f32)>),
}

impl Update {
    /// Writes it.
    pub(super) fn write(&self, update: &mut [f32]) {
        match self {
            Self::Constant(value) => update.fill(*value),
            Self::Spikes(spikes) => {
                update.fill(0.0);
                for &(place, value) in spikes {
                    if let Some(slot) = update.get_mut(place) {
                        *slot = value;
                    }
                }
            }
        }
    }
}

/// Who does what.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    pub(super) acts: BTreeMap<ClientId, Act>,
    /// Of everybody else.
    pub(super) others: Act,
}

impl Roles {
    fn of(&self, client: ClientId) -> &Act {
        self.acts.get(&client).unwrap_or(&self.others)
    }

    fn sent(&self, client: ClientId) -> Option<&Update> {
        match self.of(client) {
            Act::Send(update) => Some(update),
            Act::Train | Act::Absent => None,
        }
    }
}

/// A population with roles.
#[derive(Debug)]
pub(super) struct Cast<'p, P> {
    population: &'p P,
    roles: Arc<Roles>,
}

impl<'p, P> Cast<'p, P> {
    pub(super) fn new(population: &'p P, roles: Arc<Roles>) -> Self {
        Self { population, roles }
    }
}

impl<P: Population> Population for Cast<'_, P> {
    type Scratch = P::Scratch;
    type Client<'a>
        = P::Client<'a>
    where
        Self: 'a;

    fn clients(&self) -> u64 {
        self.population.clients()
    }

    fn train_len(&self, client: ClientId) -> u64 {
        match self.roles.of(client) {
            Act::Train => self.population.train_len(client),
            Act::Absent => 0,
            Act::Send(_) => 1,
        }
    }

    fn train<'a>(&'a self, client: ClientId, scratch: &'a mut P::Scratch) -> P::Client<'a> {
        self.population.train(client, scratch)
    }

    fn client_test<'a>(&'a self, _: ClientId, _: &'a mut P::Scratch) -> Option<P::Client<'a>> {
        None
    }

    /// Nothing is evaluated.
    fn test(&self) -> Option<&dyn Examples> {
        None
    }

    /// Nothing is kept that would have to be told apart.
    fn digest(&self) -> [u8; 32] {
        [0; 32]
    }
}

/// An engine whose trainers do as the roles say.
#[derive(Debug)]
pub(super) struct Acting<'e, E> {
    engine: &'e E,
    roles: Arc<Roles>,
}

impl<'e, E> Acting<'e, E> {
    pub(super) fn new(engine: &'e E, roles: Arc<Roles>) -> Self {
        Self { engine, roles }
    }
}

impl<E: Engine> Engine for Acting<'_, E> {
    type Trainer = ActingTrainer<E::Trainer>;

    fn trainer(&self) -> Self::Trainer {
        ActingTrainer {
            trainer: self.engine.trainer(),
            roles: Arc::clone(&self.roles),
        }
    }

    fn layout(&self) -> &Arc<Layout> {
        self.engine.layout()
    }

    fn init(&self, stream: &mut Stream) -> Parameters {
        self.engine.init(stream)
    }

    fn kernel(&self) -> String {
        self.engine.kernel()
    }
}

/// Trains whom it is told to train.
#[derive(Debug)]
pub(super) struct ActingTrainer<T> {
    trainer: T,
    roles: Arc<Roles>,
}

impl<T: Trainer> Trainer for ActingTrainer<T> {
    fn layout(&self) -> &Arc<Layout> {
        self.trainer.layout()
    }

    fn lanes(&self) -> usize {
        self.trainer.lanes()
    }

    fn fit(
        &mut self,
        global: &Parameters,
        mut tasks: &mut [FitTask<'_>],
        mut results: &mut [LocalResult],
    ) -> Result<(), TrainError> {
        // A trainer's law: it does not matter who is trained together.
        while let Some(first) = tasks.first_mut() {
            if let Some(update) = self.roles.sent(first.client) {
                update.write(first.update);
                results[0] = LocalResult {
                    examples: ExampleCount(1),
                    ..LocalResult::default()
                };
                (tasks, results) = (&mut tasks[1..], &mut results[1..]);
                continue;
            }
            let roles = &self.roles;
            let next = tasks
                .iter()
                .position(|task| roles.sent(task.client).is_some());
            let (own, rest) = tasks.split_at_mut(next.unwrap_or(tasks.len()));
            let (done, left) = results.split_at_mut(own.len());
            self.trainer.fit(global, own, done)?;
            (tasks, results) = (rest, left);
        }
        Ok(())
    }

    fn evaluate(
        &mut self,
        parameters: &[f32],
        data: &dyn Examples,
        rows: core::ops::Range<usize>,
    ) -> Result<fl_core::Evaluation, TrainError> {
        self.trainer.evaluate(parameters, data, rows)
    }
}
