//! Laws that every answer of the default accountant obeys, over random events.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use fl_privacy::{
    Accountant, AccountantKind, Delta, DpEvent, Epsilon, NeighboringRelation, NoiseMultiplier,
    PrivacyError, accountant,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn pld() -> Box<dyn Accountant> {
    accountant(AccountantKind::Pld, NeighboringRelation::AddOrRemoveOne)
}

fn epsilon(accountant: &dyn Accountant, delta: f64) -> (f64, f64) {
    let found = accountant.epsilon(Delta::new(delta).unwrap()).unwrap();
    (found.lower.get(), found.upper.get())
}

fn noise(value: f64) -> NoiseMultiplier {
    NoiseMultiplier::new(value).unwrap()
}

/// Events of every additive kind, with noise, over many orders of magnitude.
fn simple() -> impl Strategy<Value = DpEvent> {
    let scale = (-1.5..3.0_f64).prop_map(|exponent| 10.0_f64.powf(exponent));
    prop_oneof![
        4 => scale.clone().prop_map(|s| DpEvent::gaussian(noise(s))),
        1 => scale.clone().prop_map(|s| DpEvent::laplace(noise(s))),
        1 => (0.3..50.0_f64, 0..3_u64)
            .prop_map(|(s, d)| DpEvent::discrete_gaussian(s, d).unwrap()),
        1 => (0.01..3.0_f64, 0..5_u64)
            .prop_map(|(a, d)| DpEvent::discrete_laplace(a, d).unwrap()),
        1 => (0.1..1e3_f64).prop_map(|v| DpEvent::skellam(v, 1.0, 1.0).unwrap()),
        1 => (0.0..3.0_f64, 0.0..1e-3_f64).prop_map(|(e, d)| {
            DpEvent::epsilon_delta(Epsilon::new(e).unwrap(), Delta::new(d).unwrap())
        }),
        1 => (scale, 0.01..0.99_f64).prop_map(|(s, p)| {
            let weights = vec![p, 1.0 - p];
            DpEvent::mixture_of_gaussians(noise(s), vec![0.5, 1.0], weights).unwrap()
        }),
    ]
}

fn event() -> impl Strategy<Value = DpEvent> {
    prop_oneof![
        simple(),
        (simple(), -5.0..0.0_f64).prop_map(|(inner, exponent)| {
            DpEvent::poisson_sampled(10.0_f64.powf(exponent), inner).unwrap()
        }),
        (10..100_000_u64, 0.0001..0.2_f64, 1..2000_u64, 0.3..10.0_f64).prop_map(
            |(population, rate, limit, s)| {
                DpEvent::truncated_poisson(population, rate, limit, noise(s)).unwrap()
            }
        ),
    ]
}

/// The same cases in every run.
fn check<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng)
        .run(&strategy, |value| {
            test(value);
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_event_has_ordered_finite_bounds_that_return() {
    let strategy = (event(), 0.0..3.0_f64, -12.0..-2.0_f64);
    check(12, strategy, |(event, steps, exponent)| {
        let (steps, delta) = (10.0_f64.powf(steps) as u64, 10.0_f64.powf(exponent));
        let mut accountant = pld();
        accountant.compose(&event, steps).unwrap();
        let (lower, upper) = epsilon(&*accountant, delta);
        let name = format!("{event:?} x {steps}, delta {delta:e}: {lower} {upper}");
        assert!(0.0 <= lower && lower <= upper, "{name}");
        // Only where some outcome gives everything away with more than this probability.
        let leaks = accountant.delta(Epsilon::INFINITY).unwrap().upper.get();
        assert!(
            upper < f64::INFINITY || leaks >= 0.999 * delta,
            "{name} {leaks}"
        );
        if upper < f64::INFINITY {
            let back = accountant.delta(Epsilon::new(upper).unwrap()).unwrap();
            let (low, high) = (back.lower.get(), back.upper.get());
            assert!(low <= delta * (1.0 + 1e-9), "{name}: {low:e} {high:e}");
            // Where `epsilon` is as small as the lattice's error, that shows in `delta`.
            assert!(high <= delta * 3.0, "{name}: {low:e} {high:e}");
        }
    });
}

#[test]
fn the_order_of_composition_changes_no_bit() {
    check(3, (event(), event(), event()), |(a, b, c)| {
        let answer = |events: [&DpEvent; 4]| -> Result<_, PrivacyError> {
            let mut accountant = pld();
            for event in events {
                accountant.compose(event, 3)?;
            }
            let found = accountant.epsilon(Delta::new(1e-6)?)?;
            Ok((found.lower.get().to_bits(), found.upper.get().to_bits()))
        };
        let first = answer([&a, &b, &c, &a]).unwrap();
        assert_eq!(
            first,
            answer([&c, &a, &a, &b]).unwrap(),
            "{a:?} {b:?} {c:?}"
        );
    });
}

#[test]
fn more_noise_fewer_members_fewer_steps_and_larger_delta_cost_less() {
    let strategy = (0.5..4.0_f64, -3.0..-0.3_f64, 1.0..3.3_f64, -9.0..-4.0_f64);
    check(5, strategy, |(sigma, rate, steps, exponent)| {
        let cost = |sigma: f64, rate: f64, steps: f64, delta: f64| {
            let event = DpEvent::poisson_sampled(rate, DpEvent::gaussian(noise(sigma))).unwrap();
            let mut accountant = pld();
            accountant.compose(&event, steps as u64).unwrap();
            epsilon(&*accountant, delta)
        };
        let (rate, steps) = (10.0_f64.powf(rate), 10.0_f64.powf(steps));
        let delta = 10.0_f64.powf(exponent);
        let (_, here) = cost(sigma, rate, steps, delta);
        for (what, (lower, _)) in [
            ("noise", cost(sigma * 1.3, rate, steps, delta)),
            ("rate", cost(sigma, rate * 0.7, steps, delta)),
            ("steps", cost(sigma, rate, steps * 0.7, delta)),
            ("delta", cost(sigma, rate, steps, delta * 3.0)),
        ] {
            assert!(
                lower <= here,
                "{what}: {sigma} {rate} {steps} {delta:e}: {lower} {here}"
            );
        }
    });
}

/// A Gaussian mechanism written as a sum of sampled ones at rate nearly 1, and as a mixture, meets
/// the closed form; down to the smallest `delta`.
#[test]
fn small_deltas_keep_their_precision() {
    for (sigma, steps, delta) in [(10.0, 100, 1e-30), (4.0, 20, 1e-20), (2.0, 3, 1e-25)] {
        let gaussian = DpEvent::gaussian(noise(sigma));
        let mut exact = accountant(
            AccountantKind::Gaussian,
            NeighboringRelation::AddOrRemoveOne,
        );
        exact.compose(&gaussian, steps).unwrap();
        let (expected, _) = epsilon(&*exact, delta);
        let mixture = DpEvent::mixture_of_gaussians(noise(sigma), vec![1.0], vec![1.0]).unwrap();
        let mut found = pld();
        found.compose(&mixture, steps).unwrap();
        let (lower, upper) = epsilon(&*found, delta);
        let name = format!("{sigma} {steps} {delta:e}: {lower} {upper} {expected}");
        assert!(lower <= expected * (1.0 + 1e-12), "{name}");
        assert!(upper >= expected * (1.0 - 1e-12), "{name}");
        assert!(upper <= expected * (1.0 + 2e-6), "{name}");
        let at = Epsilon::new(expected).unwrap();
        let back = found.delta(at).unwrap();
        let (low, high) = (back.lower.get() / delta, back.upper.get() / delta);
        assert!(
            low <= 1.0 + 1e-9 && high >= 1.0 - 1e-9 && high - low < 1e-3,
            "{name}: {low} {high}"
        );
    }
}

/// Randomized response by hand, one step and the two-fold product.
#[test]
fn randomized_response_is_exact() {
    let event = DpEvent::randomized_response(0.5, 2).unwrap();
    let mut accountant = accountant(AccountantKind::Pld, NeighboringRelation::ReplaceOne);
    accountant.compose(&event, 2).unwrap();
    // Probabilities 3/4 and 1/4: both say the truth with 9/16 against 1/16.
    let at = |e: f64| accountant.delta(Epsilon::new(e).unwrap()).unwrap();
    for e in [0.0_f64, 0.5, 1.0, 2.0] {
        let exact = (9.0 / 16.0 - e.exp() / 16.0).max(0.0);
        let found = at(e);
        assert!(found.upper.get() >= exact - 1e-12, "{e}: {found:?} {exact}");
        assert!(found.upper.get() <= exact + 2e-2, "{e}: {found:?} {exact}");
        assert!(found.lower.get() <= exact + 1e-12, "{e}: {found:?} {exact}");
    }
    let pure = accountant.epsilon(Delta::ZERO).unwrap().upper.get();
    assert!((pure - 2.0 * 3.0_f64.ln()).abs() < 1e-12, "{pure}");
    let refused = pld().compose(&event, 1).unwrap_err();
    assert!(matches!(refused, PrivacyError::Unsupported { .. }));
}

#[test]
fn what_has_no_dominating_pair_is_refused_and_changes_nothing() {
    let gaussian = || DpEvent::gaussian(noise(1.0));
    let skellam = DpEvent::skellam(10.0, 3.0, 2.0).unwrap();
    let composed = DpEvent::composed(vec![gaussian(), DpEvent::zcdp(0.1, 0.0).unwrap()]).unwrap();
    for event in [
        DpEvent::zcdp(0.1, 0.0).unwrap(),
        DpEvent::repeat_and_select(gaussian(), 2.0, 1.0).unwrap(),
        DpEvent::sampled_without_replacement(100, 10, gaussian()).unwrap(),
        skellam,
        composed,
    ] {
        let mut accountant = pld();
        assert!(accountant.compose(&event, 1).is_err(), "{event:?}");
        assert!(accountant.ledger().is_empty());
        assert_eq!(epsilon(&*accountant, 1e-6), (0.0, 0.0));
    }
}

/// What an accountant keeps of one question changes no answer to another.
#[test]
fn answers_do_not_depend_on_earlier_questions() {
    let gaussian = DpEvent::poisson_sampled(0.01, DpEvent::gaussian(noise(0.8))).unwrap();
    let laplace = DpEvent::poisson_sampled(0.1, DpEvent::laplace(noise(2.0))).unwrap();
    let fixed =
        DpEvent::sampled_without_replacement(1000, 50, DpEvent::gaussian(noise(1.0))).unwrap();
    let one = NeighboringRelation::AddOrRemoveOne;
    for (relation, events) in [
        (one, vec![(gaussian.clone(), 300)]),
        (one, vec![(laplace, 20)]),
        (NeighboringRelation::ReplaceOne, vec![(fixed, 20)]),
    ] {
        let fresh = |extra: bool| {
            let mut sum = accountant(AccountantKind::Pld, relation);
            for (event, count) in &events {
                sum.compose(event, *count).unwrap();
            }
            if extra {
                sum.compose(&gaussian, 40).unwrap();
            }
            sum
        };
        let mut asked = fresh(false);
        for extra in [false, true] {
            if extra {
                asked.compose(&gaussian, 40).unwrap();
            }
            for delta in [1e-5, 2e-5, 1e-9, 1e-5, 3e-3] {
                let (low, high) = epsilon(&*asked, delta);
                let (least, most) = epsilon(&*fresh(extra), delta);
                assert!(low.to_bits() == least.to_bits() && high.to_bits() == most.to_bits());
                let at = Epsilon::new(0.7 * high).unwrap();
                assert_eq!(asked.delta(at).unwrap(), fresh(extra).delta(at).unwrap());
            }
        }
    }
}
