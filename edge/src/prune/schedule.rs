//! How sparse a model is to be at which time.

use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};

use serde::{Deserialize, Serialize};

use super::{PruneError, check_share};

/// The cubic schedule of Zhu & Gupta 2017 (arXiv:1710.01878, equation 1):
/// `s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n Δt))³` at the times `t_0, t_0 + Δt, …, t_0 + n Δt`.
/// Between two of them, and after the last, the model stays as it is. Time counts whatever the
/// caller counts: steps, epochs or rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradualSchedule {
    /// `s_i`: the share at the first pruning, in `[0, 1)`.
    pub initial: f64,
    /// `s_f`: the share at the last pruning, in `[initial, 1)`.
    pub sparsity: f64,
    /// `t_0`: the time of the first pruning.
    pub start: u64,
    /// `Δt`: the time between two prunings, at least 1.
    pub every: u64,
    /// `n`: prunings after the first; with 0 there is one, to `sparsity`.
    pub steps: u64,
}

impl GradualSchedule {
    /// All at once, at time `start`.
    #[must_use]
    pub fn one_shot(sparsity: f64, start: u64) -> Self {
        Self {
            initial: sparsity,
            sparsity,
            start,
            every: 1,
            steps: 0,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`PruneError::Share`] or [`PruneError::Schedule`].
    pub fn check(&self) -> Result<(), PruneError> {
        check_share("the first sparsity", self.initial)?;
        check_share("the sparsity", self.sparsity)?;
        let wrong = |key, value: String, expected| PruneError::Schedule {
            key,
            value,
            expected,
        };
        if self.initial > self.sparsity {
            let expected = "at most the last sparsity: pruned weights do not come back";
            return Err(wrong("initial", self.initial.to_string(), expected));
        }
        if self.every == 0 {
            let expected = "a whole number of at least 1";
            return Err(wrong("every", "0".to_owned(), expected));
        }
        let end =
            (self.steps.checked_mul(self.every)).and_then(|long| long.checked_add(self.start));
        match end {
            Some(_) => Ok(()),
            None => {
                let expected = "so few that the last time fits into 64 bits";
                Err(wrong("steps", self.steps.to_string(), expected))
            }
        }
    }

    /// The time of the last pruning.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start
            .saturating_add(self.steps.saturating_mul(self.every))
    }

    /// The sparsity to prune to at time `t`; none when nothing is pruned then.
    #[must_use]
    pub fn due(&self, t: u64) -> Option<f64> {
        let since = t.checked_sub(self.start)?;
        if t > self.end() || !since.is_multiple_of(self.every.max(1)) {
            return None;
        }
        Some(self.formula(since))
    }

    /// The sparsity that the model has after time `t`: of the last pruning until then; 0 before
    /// the first.
    #[must_use]
    pub fn reached(&self, t: u64) -> f64 {
        match t.min(self.end()).checked_sub(self.start) {
            Some(since) => self.formula(since - since % self.every.max(1)),
            None => 0.0,
        }
    }

    fn formula(&self, since: u64) -> f64 {
        let whole = self.steps.saturating_mul(self.every);
        if since >= whole {
            return self.sparsity;
        }
        let left = 1.0 - since as f64 / whole as f64;
        self.sparsity + (self.initial - self.sparsity) * (left * left * left)
    }
}
