//! The laws of [`Strategy`].

use std::sync::Arc;

use super::{bits, local_plan, normals, stream};
use crate::mask::Mask;
use crate::params::{Layout, Parameters};
use crate::ring::{RingPlan, WeightBounds};
use crate::strategy::{ModelState, RoundInfo, Strategy};
use crate::sum::{Aggregate, Aggregator, ExactSum};
use crate::units::{ClientId, ExampleCount, RoundId};
use crate::update::{Cost, Report, WorkDone};

const LEN: usize = 23;

/// Checks what holds for every strategy: a zero update is a fixed point; permuting or grouping
/// clients changes no bit; the state survives serialisation; applying is a function; weights keep
/// to what was announced; a mean of another length is refused; what is pruned is zero, and stays so
/// while updates have zeros there, whatever moved it before.
///
/// # Panics
/// When a law is broken.
pub fn strategy<S: Strategy>(make: &dyn Fn() -> S) {
    zero_update(make);
    permuted(make);
    serialised(make);
    weights(make);
    wrong_length(make);
    pruned(make);
}

/// Checks a strategy whose first step takes the mean as it is: with one client the new model is
/// that client's local model, to within the error of the encoding.
///
/// # Panics
/// When the law is broken.
pub fn averaging<S: Strategy>(make: &dyn Fn() -> S) {
    let strategy = make();
    let start = model(0);
    let update = normals(&mut stream(4, 0), LEN, 0.1);
    let mean = mean(&strategy, std::slice::from_ref(&update), RoundId(0));
    let error = mean.mean_error();
    let state = strategy
        .apply(strategy.init(start.clone()), &mean, &info(0))
        .expect("a finite mean is applied");
    let moved = state.global().values().iter();
    for (index, ((&new, &old), &update)) in moved.zip(start.values()).zip(&update).enumerate() {
        let local = f64::from(old) + f64::from(update);
        let rounding = local.abs() * f64::from(f32::EPSILON);
        let off = (f64::from(new) - local).abs();
        assert!(
            off <= error + rounding,
            "parameter {index} is {new} where the only client has {local}"
        );
    }
}

fn model(seed: u64) -> Parameters {
    let layout = Layout::new([("a".to_owned(), vec![LEN - 3]), ("b".to_owned(), vec![3])]);
    let layout = Arc::new(layout.expect("a layout"));
    let mut values = normals(&mut stream(3, seed), LEN, 1.0);
    // Both zeros must survive.
    values[0] = 0.0;
    values[1] = -0.0;
    Parameters::new(layout, values).expect("one value per parameter")
}

fn info(round: u64) -> RoundInfo {
    RoundInfo {
        round: RoundId(round),
        population: 100,
    }
}

fn report(client: usize, round: RoundId) -> Report {
    Report {
        client: ClientId(client as u64),
        round,
        examples: ExampleCount(1 + 13 * client as u64 % 17),
        steps: 1 + client as u64,
        work: WorkDone::Full,
        cost: Cost::default(),
    }
}

fn mean<S: Strategy>(strategy: &S, updates: &[Vec<f32>], round: RoundId) -> Aggregate {
    let order: Vec<usize> = (0..updates.len()).collect();
    mean_in_order(strategy, updates, round, &order, 1)
}

fn mean_in_order<S: Strategy>(
    strategy: &S,
    updates: &[Vec<f32>],
    round: RoundId,
    order: &[usize],
    groups: usize,
) -> Aggregate {
    let largest = strategy.largest_weight(ExampleCount(20));
    let bounds = WeightBounds::new(largest, updates.len() as u64);
    let plan = RingPlan::for_weights(bounds).expect("small weights fit");
    let len = updates.first().map_or(0, Vec::len);
    let mut sums: Vec<_> = (0..groups).map(|_| ExactSum::new(plan, len)).collect();
    for (place, &client) in order.iter().enumerate() {
        let weight = strategy.weight(&report(client, round), &info(round.0));
        let absorbed = sums[place % groups].absorb(&updates[client], weight);
        absorbed.expect("the weights keep to what was announced");
    }
    let mut whole = sums.pop().expect("there is a group");
    for mut sum in sums {
        whole.merge(&mut sum).expect("the weights keep to the plan");
    }
    whole.finish().expect("clients are in the sum")
}

fn updates(round: u64) -> Vec<Vec<f32>> {
    let client = |client| normals(&mut stream(5, 100 * round + client), LEN, 0.1);
    (0..9).map(client).collect()
}

fn zero_update<S: Strategy>(make: &dyn Fn() -> S) {
    let strategy = make();
    let start = model(0);
    let mut state = strategy.init(start.clone());
    assert_eq!(
        bits(state.global().values()),
        bits(start.values()),
        "the first model is the one that was given"
    );
    for round in 0..3 {
        let mean = mean(&strategy, &vec![vec![0.0; LEN]; 4], RoundId(round));
        let applied = strategy.apply(state, &mean, &info(round));
        state = applied.expect("a zero update is applied");
        assert_eq!(
            bits(state.global().values()),
            bits(start.values()),
            "zero updates move nothing"
        );
    }
}

fn pruned<S: Strategy>(make: &dyn Fn() -> S) {
    let strategy = make();
    let mut state = strategy.init(model(0));
    let mut mask = Mask::none(LEN);
    (0..LEN).step_by(3).for_each(|index| mask.insert(index));
    for round in 0..4 {
        let mut updates = updates(round);
        if round == 2 {
            let before = bits(state.global().values());
            state.prune(&mask);
            let after = bits(state.global().values());
            for (index, (before, after)) in before.into_iter().zip(after).enumerate() {
                let expected = if mask.contains(index) { 0 } else { before };
                assert_eq!(after, expected, "only what is pruned becomes zero");
            }
        }
        if round >= 2 {
            updates.iter_mut().for_each(|update| mask.apply(update));
        }
        let mean = mean(&strategy, &updates, RoundId(round));
        let applied = strategy.apply(state, &mean, &info(round));
        state = applied.expect("a finite mean is applied");
    }
    for (index, value) in state.global().values().iter().enumerate() {
        assert_eq!(
            *value == 0.0,
            mask.contains(index),
            "pruned weights stay zero"
        );
    }
}

fn permuted<S: Strategy>(make: &dyn Fn() -> S) {
    let mut shuffler = stream(6, 0);
    let mut order: Vec<usize> = (0..9).collect();
    let reference = play(make, &mut |_| (order.clone(), 1), 3);
    for groups in 1..4 {
        let other = play(
            make,
            &mut |_| {
                shuffler.shuffle(&mut order);
                (order.clone(), groups)
            },
            3,
        );
        assert_eq!(
            bits(other.global().values()),
            bits(reference.global().values()),
            "clients in another order and in {groups} groups"
        );
        assert_eq!(other, reference, "the whole state is the same");
    }
    assert_ne!(
        bits(reference.global().values()),
        bits(model(0).values()),
        "updates move the model"
    );
}

fn play<S: Strategy>(
    make: &dyn Fn() -> S,
    order: &mut dyn FnMut(u64) -> (Vec<usize>, usize),
    rounds: u64,
) -> S::State {
    let strategy = make();
    (0..rounds).fold(strategy.init(model(0)), |state, round| {
        let (order, groups) = order(round);
        let mean = mean_in_order(&strategy, &updates(round), RoundId(round), &order, groups);
        let applied = strategy.apply(state, &mean, &info(round));
        applied.expect("finite updates are applied")
    })
}

fn serialised<S: Strategy>(make: &dyn Fn() -> S) {
    let order: Vec<usize> = (0..9).collect();
    let through = play(make, &mut |_| (order.clone(), 1), 4);
    let half = play(make, &mut |_| (order.clone(), 1), 2);
    let text = serde_json::to_string(&half).expect("a state is written");
    let mut state: S::State = serde_json::from_str(&text).expect("a state is read back");
    assert_eq!(state, half, "a state survives serialisation");
    // Another value of the same strategy, as after a restart.
    let strategy = make();
    for round in 2..4 {
        let mean = mean(&strategy, &updates(round), RoundId(round));
        let applied = strategy.apply(state, &mean, &info(round));
        state = applied.expect("finite updates are applied");
    }
    assert_eq!(
        bits(state.global().values()),
        bits(through.global().values()),
        "a resumed run gives the same bits"
    );
    assert_eq!(state, through, "a resumed run ends in the same state");
}

fn weights<S: Strategy>(make: &dyn Fn() -> S) {
    let strategy = make();
    for most in [1u64, 2, 17, 1000, 1 << 20] {
        let largest = strategy.largest_weight(ExampleCount(most));
        for examples in [1, most / 2, most] {
            let report = Report {
                examples: ExampleCount(examples.max(1)),
                ..report(1, RoundId(3))
            };
            // As it arrives, and when the server has moved on.
            for now in [3, 4, 8, 1003] {
                let weight = strategy.weight(&report, &info(now));
                assert!(weight.0 > 0, "a client with {examples} examples has weight");
                assert!(
                    weight <= largest,
                    "weight {weight} of {examples} examples is above the {largest} announced for {most}"
                );
            }
        }
    }
    let local = local_plan();
    let state = strategy.init(model(0));
    assert_eq!(
        strategy.plan(&state, &info(3), &local),
        strategy.plan(&state, &info(3), &local),
        "the plan is a function of state and round"
    );
}

fn wrong_length<S: Strategy>(make: &dyn Fn() -> S) {
    let strategy = make();
    for len in [0, LEN - 1, LEN + 1] {
        let mean = mean(&strategy, &[vec![0.5; len]], RoundId(0));
        let applied = strategy.apply(strategy.init(model(0)), &mean, &info(0));
        assert!(
            applied.is_err(),
            "a mean of {len} values for {LEN} parameters"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LocalPlan;
    use crate::strategy::{Stragglers, StrategyError};
    use crate::units::Weight;

    /// How a strategy can be wrong.
    #[derive(Clone, Copy, Debug)]
    enum Fault {
        None,
        Drifts,
        Forgets,
        Overweight,
    }

    /// `w += mean`, with a fault.
    #[derive(Debug)]
    struct Plain(Fault);

    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct State {
        global: Parameters,
        #[serde(skip)]
        applied: u32,
    }

    impl ModelState for State {
        fn global(&self) -> &Parameters {
            &self.global
        }

        fn prune(&mut self, mask: &Mask) {
            mask.apply(self.global.values_mut());
        }
    }

    impl Strategy for Plain {
        type State = State;

        fn init(&self, global: Parameters) -> State {
            State { global, applied: 0 }
        }

        fn plan(
            &self,
            _: &State,
            _: &RoundInfo,
            local: &LocalPlan,
        ) -> Result<LocalPlan, StrategyError> {
            Ok(*local)
        }

        fn stragglers(&self) -> Stragglers {
            Stragglers::Drop
        }

        fn weight(&self, report: &Report, _: &RoundInfo) -> Weight {
            match self.0 {
                // As many steps as one likes, and none announced.
                Fault::Overweight => Weight(report.examples.0 * report.steps),
                _ => Weight(report.examples.0),
            }
        }

        fn apply(
            &self,
            mut state: State,
            mean: &Aggregate,
            _: &RoundInfo,
        ) -> Result<State, StrategyError> {
            let (given, expected) = (mean.mean().len(), state.global.values().len());
            if given != expected {
                return Err(StrategyError::WrongLength { expected, given });
            }
            if let Fault::Forgets = self.0 {
                state.applied += 1;
            }
            let drift = if let Fault::Drifts = self.0 {
                1e-3
            } else {
                0.0
            };
            for (value, &mean) in state.global.values_mut().iter_mut().zip(mean.mean()) {
                let moved = (f64::from(*value) + mean + drift) as f32;
                *value = if mean + drift == 0.0 { *value } else { moved };
            }
            Ok(state)
        }
    }

    #[test]
    fn a_plain_strategy_conforms() {
        strategy(&|| Plain(Fault::None));
        averaging(&|| Plain(Fault::None));
    }

    #[test]
    #[should_panic(expected = "zero updates move nothing")]
    fn a_drift_is_found() {
        strategy(&|| Plain(Fault::Drifts));
    }

    #[test]
    #[should_panic(expected = "a state survives serialisation")]
    fn a_forgotten_field_is_found() {
        strategy(&|| Plain(Fault::Forgets));
    }

    #[test]
    #[should_panic(expected = "announced")]
    fn an_unannounced_weight_is_found() {
        weights(&|| Plain(Fault::Overweight));
    }
}
