//! What happens to an update between training and the sum.
//!
//! A [`TransformChain`] is applied in order on the client; its last step is always the encoding
//! into the ring. The server undoes the chain in reverse order on the mean, so a stage must be
//! linear in the update wherever it has something to undo. The same chain, built from the same
//! settings, runs in the simulator and on a device.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::norm::{l2_norm, scale};
use crate::ring::RingPlan;
use crate::stream::Stream;
use crate::units::{ClientId, RoundId, Weight};
use crate::update::RingVector;

/// Who transforms, when, and with what randomness.
#[derive(Debug)]
pub struct TransformContext {
    /// The client.
    pub client: ClientId,
    /// The round.
    pub round: RoundId,
    /// The client's stream for [`Purpose::UpdateCodec`](crate::Purpose::UpdateCodec).
    pub stream: Stream,
}

/// One stage between training and the sum.
pub trait UpdateTransform: Debug + Send + Sync {
    /// The client's side. Non-finite values go through; the aggregator refuses them.
    fn apply(&self, update: &mut [f32], context: &mut TransformContext);

    /// The server's side: what [`apply`](Self::apply) did, undone on the mean of many updates.
    /// Nothing, for a stage that only bounds or perturbs.
    fn undo(&self, mean: &mut [f64], round: RoundId) {
        let _ = (mean, round);
    }
}

/// Scales an update whose L2 norm exceeds `max_norm` down to that norm. Bounds what one client
/// can do to the model (Sun et al. 2019, arXiv:1911.07963, section 4.2). By itself it gives no
/// privacy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipNorm {
    max_norm: f64,
}

/// Why there is no such clipping.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("`max_norm` is {0}; expected a finite number above 0")]
pub struct BadNorm(pub f64);

impl ClipNorm {
    /// Clipping to `max_norm`.
    ///
    /// # Errors
    /// [`BadNorm`] unless `max_norm` is finite and above 0.
    pub fn new(max_norm: f64) -> Result<Self, BadNorm> {
        if max_norm.is_finite() && max_norm > 0.0 {
            Ok(Self { max_norm })
        } else {
            Err(BadNorm(max_norm))
        }
    }
}

impl UpdateTransform for ClipNorm {
    fn apply(&self, update: &mut [f32], _: &mut TransformContext) {
        let norm = l2_norm(update);
        if norm.is_finite() && norm > self.max_norm {
            scale(update, self.max_norm / norm);
        }
    }
}

/// Stages in the order of the client.
#[derive(Debug, Default)]
pub struct TransformChain {
    stages: Vec<Box<dyn UpdateTransform>>,
}

impl TransformChain {
    /// A chain of the given stages; without any, updates are only encoded.
    #[must_use]
    pub fn new(stages: Vec<Box<dyn UpdateTransform>>) -> Self {
        Self { stages }
    }

    /// Runs the stages in order, in place.
    pub fn apply(&self, update: &mut [f32], context: &mut TransformContext) {
        for stage in &self.stages {
            stage.apply(update, context);
        }
    }

    /// Runs the stages and encodes: what a device sends. `None` as for [`RingVector::encode`].
    #[must_use]
    pub fn encode(
        &self,
        mut update: Vec<f32>,
        weight: Weight,
        plan: RingPlan,
        context: &mut TransformContext,
    ) -> Option<RingVector> {
        self.apply(&mut update, context);
        RingVector::encode(plan, &update, weight)
    }

    /// Undoes the stages in reverse order on the mean.
    pub fn undo(&self, mean: &mut [f64], round: RoundId) {
        for stage in self.stages.iter().rev() {
            stage.undo(mean, round);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::WeightBounds;
    use crate::stream::Purpose;
    use crate::sum::{Aggregator, ExactSum};
    use crate::units::Seed;

    fn context() -> TransformContext {
        let (round, client) = (RoundId(2), ClientId(3));
        TransformContext {
            client,
            round,
            stream: Stream::at(Purpose::UpdateCodec, Seed(1), round, client),
        }
    }

    /// Multiplies by a factor and then adds an offset; undone the other way round.
    #[derive(Debug)]
    struct Affine(f32, f32);

    impl UpdateTransform for Affine {
        fn apply(&self, update: &mut [f32], _: &mut TransformContext) {
            update
                .iter_mut()
                .for_each(|value| *value = *value * self.0 + self.1);
        }

        fn undo(&self, mean: &mut [f64], _: RoundId) {
            let (factor, offset) = (f64::from(self.0), f64::from(self.1));
            mean.iter_mut()
                .for_each(|value| *value = (*value - offset) / factor);
        }
    }

    #[test]
    fn stages_run_in_order_and_are_undone_in_reverse() {
        let chain = TransformChain::new(vec![
            Box::new(Affine(4.0, 1.0)),
            Box::new(Affine(0.5, -2.0)),
        ]);
        let mut update = vec![0.25, -1.5];
        chain.apply(&mut update, &mut context());
        // (x * 4 + 1) / 2 - 2
        assert_eq!(update, [-1.0, -4.5]);
        let mut mean: Vec<f64> = update.iter().map(|&value| f64::from(value)).collect();
        chain.undo(&mut mean, RoundId(2));
        assert_eq!(mean, [0.25, -1.5]);

        // Through the ring, with weights.
        let plan = RingPlan::for_weights(WeightBounds::new(Weight(3), 2)).unwrap();
        let mut sum = ExactSum::new(plan, 2);
        for (update, weight) in [([0.25, -1.5], Weight(3)), ([0.5, 2.5], Weight(1))] {
            let sent = chain.encode(update.to_vec(), weight, plan, &mut context());
            sum.absorb_encoded(&sent.unwrap(), weight).unwrap();
        }
        let mut aggregate = sum.finish().unwrap();
        chain.undo(aggregate.mean_mut(), RoundId(2));
        assert_eq!(aggregate.mean(), [0.3125, -0.5]);
    }

    #[test]
    fn a_long_update_is_clipped_and_a_short_one_is_not() {
        let clip = ClipNorm::new(2.5).unwrap();
        let cases = [
            ([3.0f32, 4.0], [1.5f32, 2.0]),
            ([-1.5, 2.0], [-1.5, 2.0]),
            ([0.0, -0.0], [0.0, -0.0]),
            ([3e30, 4e30], [1.5, 2.0]),
        ];
        for (mut update, expected) in cases {
            clip.apply(&mut update, &mut context());
            let off = update.iter().zip(expected).map(|(a, b)| (a - b).abs());
            assert!(off.fold(0.0, f32::max) <= 2e-7, "{update:?}");
        }
        let mut broken = [f32::NAN, 1e9];
        clip.apply(&mut broken, &mut context());
        assert!(broken[0].is_nan(), "the aggregator is to see it");
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = ClipNorm::new(bad).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("`max_norm` is {bad}; expected a finite number above 0")
            );
        }
    }
}
