//! Pruning while a model is trained by a fleet.
//!
//! At the rounds that [`PruningConfig`] says, the server prunes the global model before it sends it:
//! from then on those weights are zero, clients train with them held at zero
//! ([`fl_core::Trainer::hold`]), and what noise or momentum would put there is taken away after each
//! round. A model that is evaluated after a pruning was thus trained under it for at least one
//! round. Masks only grow. They follow from the global model, which a server knows and a private one
//! has released, so they cost no privacy; and they are in the checkpoint, because a weight can be zero
//! by chance, too.
//!
//! Parameters travel as they do without pruning: the bytes of a round stay.

use std::sync::Arc;

use fl_core::Mask;
use fl_core::strategy::AnyState;
use fl_edge::prune::{GradualSchedule, PruneError, Scope};
use serde::{Deserialize, Serialize};

use crate::error::SimError;
use crate::population::{Engine, Population};
use crate::simulation::Simulation;

/// Which weights are pruned, and at which rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PruningConfig {
    /// The smallest ones.
    Magnitude {
        /// Among which the smallest are looked for.
        scope: Scope,
        /// How many, before which round (counted from zero).
        schedule: GradualSchedule,
    },
    /// Two of each four along the inputs.
    TwoOfFour {
        /// The round before which that is done.
        start: u64,
    },
}

impl PruningConfig {
    /// Checks the ranges of its keys.
    ///
    /// # Errors
    /// [`SimError::Pruning`]
    pub fn validate(&self) -> Result<(), SimError> {
        match self {
            Self::Magnitude { schedule, .. } => Ok(schedule.check()?),
            Self::TwoOfFour { .. } => Ok(()),
        }
    }

    /// What is done before `round`; none when nothing is.
    #[must_use]
    pub fn due(&self, round: u64) -> Option<Pruning> {
        match self {
            Self::Magnitude { scope, schedule } => {
                let sparsity = schedule.due(round)?;
                Some(Pruning::Magnitude {
                    sparsity,
                    scope: *scope,
                })
            }
            Self::TwoOfFour { start } => (round == *start).then_some(Pruning::TwoOfFour),
        }
    }
}

/// One pruning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pruning {
    /// [`fl_edge::prune::magnitude`]
    Magnitude {
        /// The share of the weights that are then pruned.
        sparsity: f64,
        /// Among which.
        scope: Scope,
    },
    /// [`fl_edge::prune::two_of_four`]
    TwoOfFour,
}

impl Pruning {
    /// The mask that follows from `before`.
    ///
    /// # Errors
    /// [`PruneError`]
    pub fn mask(
        &self,
        model: &fl_edge::Model,
        values: &[f32],
        before: &Mask,
    ) -> Result<Mask, PruneError> {
        match *self {
            Self::Magnitude { sparsity, scope } => {
                fl_edge::prune::magnitude(model, values, sparsity, scope, before)
            }
            Self::TwoOfFour => fl_edge::prune::two_of_four(model, values),
        }
    }
}

/// The pruned weights of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PruningRecord {
    /// Weights that may be pruned.
    pub weights: u64,
    /// Those that are zero, and were while the round's clients trained.
    pub pruned: u64,
}

impl PruningRecord {
    /// The share of the weights that is pruned.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        self.pruned as f64 / self.weights.max(1) as f64
    }
}

/// How things stood before a pruning.
pub(crate) struct Undo {
    state: AnyState,
    mask: Option<Arc<Mask>>,
}

impl<P: Population, E: Engine> Simulation<P, E> {
    /// Prunes the global model, if that is due before the next round.
    pub(crate) fn prune(&mut self) -> Result<Option<Undo>, SimError> {
        let round = self.server.round();
        let due = self.config.pruning.and_then(|config| config.due(round.0));
        let Some(pruning) = due else {
            return Ok(None);
        };
        let undo = Undo {
            state: self.server.state().clone(),
            mask: self.pruned.clone(),
        };
        let parameters = self.server.global();
        let before = match &self.pruned {
            Some(mask) => Arc::clone(mask),
            None => Arc::new(Mask::none(parameters.values().len())),
        };
        let mask = (self.engine.prune(parameters, &pruning, &before))
            .map_err(|source| SimError::Prune { round, source })?;
        self.pruned = Some(Arc::new(mask));
        self.keep_pruned();
        Ok(Some(undo))
    }

    /// Takes a pruning back, when its round is given up.
    pub(crate) fn unprune(&mut self, undo: Undo) {
        let round = self.server.round();
        self.server = self.server_at(undo.state, round);
        self.pruned = undo.mask;
    }

    /// Sets what is pruned to zero again.
    pub(crate) fn keep_pruned(&mut self) {
        if let Some(mask) = &self.pruned {
            self.server.prune(mask);
        }
    }

    /// What is pruned in this round; none without pruning.
    pub(crate) fn pruning_record(&self) -> Option<PruningRecord> {
        self.config.pruning?;
        let pruned = self.pruned.as_ref().map_or(0, |mask| mask.pruned());
        Some(PruningRecord {
            weights: self.engine.prunable() as u64,
            pruned: pruned as u64,
        })
    }

    /// The mask, for the checkpoint: empty without pruning.
    pub(crate) fn encode_mask(&self) -> Result<Vec<u8>, postcard::Error> {
        match self.config.pruning {
            None => Ok(Vec::new()),
            Some(_) => postcard::to_stdvec(&self.pruned.as_deref()),
        }
    }

    /// The mask of a checkpoint.
    pub(crate) fn decode_mask(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.config.pruning.is_none() {
            return Ok(());
        }
        let mask: Option<Mask> = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        let expected = self.engine.layout().len();
        if let Some(found) = mask.as_ref().map(Mask::parameters)
            && found != expected
        {
            return Err(format!(
                "it prunes {found} parameters of a model of {expected}"
            ));
        }
        self.pruned = mask.map(Arc::new);
        Ok(())
    }
}
