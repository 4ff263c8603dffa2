//! The walk over an event that accountants share: what is repeated, composed and drawn is taken apart
//! here, and each accountant says what the parts cost.

use crate::error::PrivacyError;
use crate::event::DpEvent;

/// How the members of a sample are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::accountant) enum Draw {
    /// Each by itself, with this probability.
    Poisson(f64),
    /// So many of the population, every subset alike.
    FixedSize {
        /// Members in all.
        population: u64,
        /// Members drawn.
        sample: u64,
    },
}

impl Draw {
    /// The probability to be drawn.
    pub(in crate::accountant) fn rate(self) -> f64 {
        match self {
            Self::Poisson(rate) => rate,
            Self::FixedSize { population, sample } => sample as f64 / population as f64,
        }
    }
}

/// What the parts of an event cost; [`Self::cost`] is the walk.
pub(in crate::accountant) trait Costs {
    /// A cost.
    type Cost;

    /// The cost of an event where it is known without taking it apart; asked of every event first.
    fn whole(&self, event: &DpEvent) -> Option<Self::Cost>;

    /// Of so many times the same, at least once.
    fn repeated(&self, one: Self::Cost, count: u64) -> Self::Cost;

    /// Of one after the other; of nothing where there are none.
    fn composed(&self, parts: Vec<Self::Cost>) -> Self::Cost;

    /// Of `event`, which is `inner` on a sample.
    ///
    /// # Errors
    /// [`PrivacyError::Unsupported`] without a proven bound.
    fn sampled(
        &self,
        event: &DpEvent,
        draw: Draw,
        inner: &DpEvent,
    ) -> Result<Self::Cost, PrivacyError>;

    /// Of any other event.
    ///
    /// # Errors
    /// [`PrivacyError::Unsupported`] without a proven bound.
    fn single(&self, event: &DpEvent) -> Result<Self::Cost, PrivacyError>;

    /// The cost of an event.
    ///
    /// # Errors
    /// Those of [`Self::sampled`] and [`Self::single`], for the first part that has one.
    fn cost(&self, event: &DpEvent) -> Result<Self::Cost, PrivacyError> {
        if let Some(cost) = self.whole(event) {
            return Ok(cost);
        }
        match event {
            DpEvent::SelfComposed { count: 0, .. } => Ok(self.composed(Vec::new())),
            DpEvent::SelfComposed { inner, count } => Ok(self.repeated(self.cost(inner)?, *count)),
            DpEvent::Composed { events } => {
                let parts = events.iter().map(|event| self.cost(event));
                Ok(self.composed(parts.collect::<Result<_, _>>()?))
            }
            DpEvent::PoissonSampled {
                sampling_rate,
                inner,
            } => self.sampled(event, Draw::Poisson(*sampling_rate), inner),
            DpEvent::SampledWithoutReplacement {
                population,
                sample,
                inner,
            } => {
                let draw = Draw::FixedSize {
                    population: *population,
                    sample: *sample,
                };
                self.sampled(event, draw, inner)
            }
            _ => self.single(event),
        }
    }
}
