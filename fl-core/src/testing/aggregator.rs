//! The law of [`Aggregator`]: the same bits for any order and any grouping.

use super::{bits64, normals, stream};
use crate::ring::WeightBounds;
use crate::sum::{Absorbed, Aggregator, SumError, Tally};
use crate::units::Weight;

const LEN: usize = 37;
const BOUNDS: WeightBounds = WeightBounds {
    client: Weight(1000),
    total: Weight(20_000),
};

/// Checks an aggregator; `make(len, bounds)` gives an empty one for updates of `len` values whose
/// weights keep to `bounds`.
///
/// # Panics
/// When a law is broken.
pub fn aggregator<A: Aggregator>(make: &dyn Fn(usize, WeightBounds) -> A) {
    let mut stream = stream(1, 0);
    let mut updates: Vec<(Vec<f32>, Weight)> = (0..20)
        .map(|_| {
            let scale = libm::exp(stream.normal() * 3.0);
            let update = normals(&mut stream, LEN, scale);
            (update, Weight(1 + stream.below(900)))
        })
        .collect();
    // Faulty clients among them.
    updates[3].0[5] = f32::NAN;
    updates[7].0[LEN - 1] = f32::INFINITY;
    updates[9].0.pop();
    updates[11].1 = Weight(0);
    updates[13].1 = Weight(BOUNDS.client.0 + 1);
    updates[15].0[0] = 1e30;

    let in_order = in_groups(make, &updates, 1);
    assert_eq!(in_order.1.seen(), 20, "every update is summed or rejected");
    assert_eq!(in_order.1.rejected.total(), 5, "five updates are faulty");
    assert_eq!(in_order.1.clients, 15, "fifteen are not");
    let weights = updates.iter().enumerate();
    let good = weights.filter(|(index, _)| ![3, 7, 9, 11, 13].contains(index));
    let total: u64 = good.map(|(_, (_, weight))| weight.0).sum();
    assert_eq!(in_order.1.weight, Weight(total), "weights add up");

    for groups in 1..=6 {
        for _ in 0..4 {
            stream.shuffle(&mut updates);
            let other = in_groups(make, &updates, groups);
            assert_eq!(other, in_order, "{groups} groups in another order");
        }
    }
    accuracy(make);
    empty_and_too_heavy(make);
}

fn in_groups<A: Aggregator>(
    make: &dyn Fn(usize, WeightBounds) -> A,
    updates: &[(Vec<f32>, Weight)],
    groups: usize,
) -> (Vec<u64>, Tally) {
    let mut partial: Vec<A> = (0..groups).map(|_| make(LEN, BOUNDS)).collect();
    for (index, (update, weight)) in updates.iter().enumerate() {
        let absorbed = partial[index % groups].absorb(update, *weight);
        absorbed.expect("the weights keep to the plan");
    }
    // The last ones first, each merged into its predecessor.
    while partial.len() > 1 {
        let mut last = partial.pop().expect("there are several");
        let into = partial.len() - 1;
        let merged = partial[into].merge(&mut last);
        merged.expect("the weights keep to the plan");
        assert_eq!(
            *last.tally(),
            Tally::default(),
            "a merged sum is left empty"
        );
    }
    let whole = partial.pop().expect("there is one");
    let tally = *whole.tally();
    let aggregate = whole.finish().expect("clients are in the sum");
    assert_eq!(*aggregate.tally(), tally, "finishing keeps the tally");
    (bits64(aggregate.mean()), tally)
}

/// The mean is that of a sum in `f64`, to within the error that the aggregator states.
fn accuracy<A: Aggregator>(make: &dyn Fn(usize, WeightBounds) -> A) {
    let mut stream = stream(2, 0);
    let mut sum = make(LEN, BOUNDS);
    let mut expected = [0f64; LEN];
    let mut total = 0.0;
    for _ in 0..10 {
        let update = normals(&mut stream, LEN, 0.01);
        let weight = Weight(1 + stream.below(1000));
        let absorbed = sum.absorb(&update, weight).expect("within the plan");
        assert_eq!(absorbed, Absorbed::Summed { saturated: 0 });
        for (expected, &value) in expected.iter_mut().zip(&update) {
            *expected += f64::from(value) * weight.0 as f64;
        }
        total += weight.0 as f64;
    }
    let aggregate = sum.finish().expect("clients are in the sum");
    let error = aggregate.mean_error();
    assert!(error < 1e-6, "the encoding is coarse: {error}");
    for (index, (&mean, expected)) in aggregate.mean().iter().zip(expected).enumerate() {
        let off = (mean - expected / total).abs();
        assert!(
            off <= error + 1e-14,
            "value {index} of the mean is off by {off}"
        );
    }
}

fn empty_and_too_heavy<A: Aggregator>(make: &dyn Fn(usize, WeightBounds) -> A) {
    assert_eq!(
        make(LEN, BOUNDS).finish().err(),
        Some(SumError::Empty),
        "an empty sum has no mean"
    );
    let update = [1.0; LEN];
    let fill = |clients| {
        let mut sum = make(LEN, BOUNDS);
        for _ in 0..clients {
            sum.absorb(&update, BOUNDS.client).expect("within the plan");
        }
        sum
    };
    let mut full = fill(20);
    let before = *full.tally();
    let over = full.absorb(&update, Weight(1));
    assert!(
        matches!(over, Err(SumError::TotalWeight { .. })),
        "more weight than planned is refused, not {over:?}"
    );
    let over = full.merge(&mut fill(1));
    assert!(
        matches!(over, Err(SumError::TotalWeight { .. })),
        "more weight than planned is not merged, but {over:?}"
    );
    assert_eq!(*full.tally(), before, "a refused update changes nothing");
    let mean = full.finish().expect("clients are in the sum");
    assert_eq!(bits64(mean.mean()), bits64(&[1.0; LEN]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::RingPlan;
    use crate::sum::{Aggregate, ExactSum};
    use crate::update::RingVector;

    /// A sum of floats in the order of arrival, as most frameworks have it.
    #[derive(Debug)]
    struct FloatSum {
        exact: ExactSum,
        floats: Vec<f32>,
    }

    impl Aggregator for FloatSum {
        fn absorb(&mut self, update: &[f32], weight: Weight) -> Result<Absorbed, SumError> {
            let absorbed = self.exact.absorb(update, weight)?;
            if let Absorbed::Summed { .. } = absorbed {
                for (sum, value) in self.floats.iter_mut().zip(update) {
                    *sum += weight.0 as f32 * value;
                }
            }
            Ok(absorbed)
        }

        fn absorb_encoded(
            &mut self,
            update: &RingVector,
            weight: Weight,
        ) -> Result<Absorbed, SumError> {
            self.exact.absorb_encoded(update, weight)
        }

        fn merge(&mut self, other: &mut Self) -> Result<(), SumError> {
            self.exact.merge(&mut other.exact)?;
            for (sum, value) in self.floats.iter_mut().zip(&mut other.floats) {
                *sum += core::mem::take(value);
            }
            Ok(())
        }

        fn tally(&self) -> &Tally {
            self.exact.tally()
        }

        fn finish(self) -> Result<Aggregate, SumError> {
            let weight = self.tally().weight.0 as f64;
            let mut aggregate = self.exact.finish()?;
            for (mean, sum) in aggregate.mean_mut().iter_mut().zip(&self.floats) {
                *mean = f64::from(*sum) / weight;
            }
            Ok(aggregate)
        }
    }

    #[test]
    #[should_panic(expected = "groups in another order")]
    fn a_sum_of_floats_is_found() {
        aggregator(&|len, bounds| FloatSum {
            exact: ExactSum::new(RingPlan::for_weights(bounds).unwrap(), len),
            floats: vec![0.0; len],
        });
    }
}
