use proptest::prelude::*;

use super::*;
use crate::units::NoiseMultiplier;

const ADD_REMOVE: NeighboringRelation = NeighboringRelation::AddOrRemoveOne;

fn noise(value: f64) -> NoiseMultiplier {
    NoiseMultiplier::new(value).unwrap()
}

fn gaussian(sigma: f64) -> DpEvent {
    DpEvent::gaussian(noise(sigma))
}

fn sampled(rate: f64, inner: DpEvent) -> DpEvent {
    DpEvent::poisson_sampled(rate, inner).unwrap()
}

fn composed(event: &DpEvent, count: u64, relation: NeighboringRelation) -> RdpAccountant {
    let mut accountant = RdpAccountant::new(relation);
    accountant.compose(event, count).unwrap();
    accountant
}

fn epsilon(accountant: &RdpAccountant, delta: f64) -> f64 {
    let bounds = accountant.epsilon(Delta::new(delta).unwrap()).unwrap();
    bounds.upper.get()
}

/// The lines of a fixture after its head: texts by column name.
fn fixture(text: &'static str) -> Vec<Vec<&'static str>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .skip(1)
        .map(|line| line.split(',').collect())
        .collect()
}

fn event_of(mechanism: &str, p: &[f64]) -> (DpEvent, NeighboringRelation) {
    let event = match mechanism {
        "sampled-gaussian" => sampled(p[0], gaussian(p[1])),
        "mixture" => {
            let (weights, amounts) = p[1..].chunks(2).map(|part| (part[0], part[1])).unzip();
            DpEvent::mixture_of_gaussians(noise(p[0]), amounts, weights).unwrap()
        }
        "discrete-laplace" => DpEvent::discrete_laplace(p[0], p[1] as u64).unwrap(),
        "laplace" => DpEvent::laplace(noise(p[0])),
        "response-replace-one" | "response-replace-special" => {
            DpEvent::randomized_response(p[0], p[1] as u64).unwrap()
        }
        "fixed-size" => {
            let (population, size) = (p[0] as u64, p[1] as u64);
            DpEvent::sampled_without_replacement(population, size, gaussian(p[2])).unwrap()
        }
        "select" => DpEvent::repeat_and_select(gaussian(p[0]), p[1], p[2]).unwrap(),
        other => panic!("{other}"),
    };
    let relation = match mechanism {
        "fixed-size" | "response-replace-one" => NeighboringRelation::ReplaceOne,
        "response-replace-special" => NeighboringRelation::ReplaceSpecial,
        _ => ADD_REMOVE,
    };
    (event, relation)
}

#[test]
fn divergences_agree_with_mpmath_and_dp_accounting() {
    let rows = fixture(include_str!("../../../tests/fixtures/renyi.csv"));
    assert!(rows.len() > 150);
    for row in rows {
        let parameters: Vec<f64> = row[1]
            .split(' ')
            .map(|text| text.parse().unwrap())
            .collect();
        let alpha: f64 = row[2].parse().unwrap();
        let expected: f64 = row[4].parse().unwrap();
        let (event, relation) = event_of(row[0], &parameters);
        let found = composed(&event, 1, relation).divergence(alpha).unwrap();
        match row[0] {
            // The same theorems with other choices of their free orders.
            "select" => assert!(
                found < expected * 1.05 && found > 0.4 * expected,
                "{row:?}: {found}"
            ),
            // The same theorem or, where that is smaller, joint convexity.
            "fixed-size" => assert!(
                found < expected * (1.0 + 1e-9) && found > 0.3 * expected,
                "{row:?}: {found}"
            ),
            _ => {
                let error = found / expected - 1.0;
                // Bounded away from below; the reference has about 1e-15 of its own.
                let tolerance = if row[3] == "dpa" { 1e-9 } else { 1e-11 };
                assert!(
                    error > -1e-14 - tolerance * f64::from(u8::from(row[3] == "dpa")),
                    "{row:?}: {found}"
                );
                assert!(error < tolerance, "{row:?}: {found}");
            }
        }
    }
}

/// Never below what is true, and never above the accountants that take their orders from a list.
#[test]
fn the_grid_lies_between_the_truth_and_the_peers() {
    let rows = fixture(include_str!("../../../tests/fixtures/sampled_gaussian.csv"));
    assert_eq!(rows.len(), 420);
    for row in rows {
        let number = |column: usize| row[column].parse::<f64>().ok();
        let (sigma, rate) = (number(0).unwrap(), number(1).unwrap());
        let (steps, delta) = (number(2).unwrap() as u64, number(3).unwrap());
        let accountant = composed(&sampled(rate, gaussian(sigma)), steps, ADD_REMOVE);
        let found = epsilon(&accountant, delta);
        // dp_accounting's and Opacus' Rényi accountants.
        for theirs in [number(7), number(8)].into_iter().flatten() {
            assert!(found <= theirs * (1.0 + 1e-9), "{row:?}: {found}");
        }
        // prv_accountant's lower bound; the exact value.
        for truth in [number(10), number(13)].into_iter().flatten() {
            assert!(found >= truth, "{row:?}: {found}");
        }
    }
}

/// Moments of the sampled Laplace mechanism by brute force: both directions, Simpson's rule.
fn sampled_laplace(rate: f64, scale: f64, alpha: f64) -> f64 {
    let ln_density = |x: f64, center: f64| -(x - center).abs() / scale;
    let integrate = |order: f64| {
        let value = |x: f64| {
            let (base, moved) = (ln_density(x, 0.0), ln_density(x, 1.0));
            let ratio = (1.0 - rate) + rate * (moved - base).exp();
            base.exp() / (2.0 * scale) * ratio.powf(order)
        };
        // Kinks at 0 and 1 are ends of panels.
        let (mut sum, reach) = (0.0, 60.0 * scale);
        for (low, high) in [(-reach, 0.0), (0.0, 1.0), (1.0, 1.0 + reach)] {
            let panels = 20_000;
            let width = (high - low) / f64::from(panels);
            for panel in 0..panels {
                let left = low + f64::from(panel) * width;
                let middle = value(left + 0.5 * width);
                sum += width / 6.0 * (value(left) + 4.0 * middle + value(left + width));
            }
        }
        sum
    };
    integrate(alpha).max(integrate(1.0 - alpha)).ln() / (alpha - 1.0)
}

#[test]
fn the_bound_for_any_sampled_mechanism_holds() {
    for (rate, scale) in [(0.01, 1.0), (0.1, 0.5), (0.5, 2.0), (0.9, 1.0)] {
        let accountant = composed(
            &sampled(rate, DpEvent::laplace(noise(scale))),
            1,
            ADD_REMOVE,
        );
        let inner = composed(&DpEvent::laplace(noise(scale)), 1, ADD_REMOVE);
        for alpha in [1.5, 2.0, 3.0, 6.5, 20.0] {
            let truth = sampled_laplace(rate, scale, alpha);
            let bound = accountant.divergence(alpha).unwrap();
            assert!(
                bound > truth * (1.0 - 1e-9),
                "{rate} {scale} {alpha}: {bound} {truth}"
            );
            assert!(
                bound < inner.divergence(alpha).unwrap(),
                "{rate} {scale} {alpha}"
            );
        }
        // Two whole orders where the theorem is exact but for its factor 3: at 2 it is exact.
        let (truth, bound) = (
            sampled_laplace(rate, scale, 2.0),
            accountant.divergence(2.0).unwrap(),
        );
        assert!(
            (bound / truth - 1.0).abs() < 1e-6,
            "{rate} {scale}: {bound} {truth}"
        );
    }
}

/// Papernot and Steinke (2021), Corollary 4: selection of a purely private mechanism is `2 + shape`
/// times as costly, whatever `delta`; the order that is left finite costs a little.
#[test]
fn selection_keeps_pure_privacy() {
    for (epsilon, shape) in [(0.5, 1.0), (0.1, 0.0), (2.0, 3.0)] {
        let inner = DpEvent::randomized_response(1.0 / (libm::exp(epsilon) / 2.0 + 0.5), 2);
        let event = DpEvent::repeat_and_select(inner.unwrap(), 10.0, shape).unwrap();
        let found = |delta| {
            let accountant = composed(&event, 1, NeighboringRelation::ReplaceOne);
            self::epsilon(&accountant, delta)
        };
        let most = (2.0 + shape) * epsilon;
        let pure = found(1e-300);
        assert!(pure > epsilon && pure <= most * 1.000_001, "{pure} {most}");
        assert!(found(1e-6) <= pure);
    }
}

#[test]
fn failures_add_up_beside_the_curve() {
    let event = DpEvent::epsilon_delta(Epsilon::new(0.1).unwrap(), Delta::new(1e-6).unwrap());
    let accountant = composed(&event, 4, ADD_REMOVE);
    let pure = DpEvent::epsilon_delta(Epsilon::new(0.1).unwrap(), Delta::ZERO);
    let without = composed(&pure, 4, ADD_REMOVE);
    assert!(epsilon(&accountant, 3.9e-6).is_infinite());
    // Basic composition at most, and what is left of delta goes to the curve.
    assert!((epsilon(&accountant, 4e-6 * (1.0 + 1e-12)) - 0.4).abs() < 1e-9);
    let (with, without) = (epsilon(&accountant, 0.1 + 4e-6), epsilon(&without, 0.1));
    assert!(
        (with - without).abs() < 1e-9 && with < 0.4,
        "{with} {without}"
    );
}

#[test]
fn what_has_no_bound_is_refused_and_changes_nothing() {
    let cases = [
        (DpEvent::randomized_response(0.5, 2).unwrap(), ADD_REMOVE),
        (
            DpEvent::sampled_without_replacement(10, 1, gaussian(1.0)).unwrap(),
            ADD_REMOVE,
        ),
        (
            DpEvent::truncated_poisson(100, 0.1, 20, noise(1.0)).unwrap(),
            ADD_REMOVE,
        ),
        (
            DpEvent::mixture_of_gaussians(noise(1.0), vec![0.0, 1.0], vec![0.5, 0.5]).unwrap(),
            NeighboringRelation::ReplaceOne,
        ),
    ];
    for (event, relation) in cases {
        let mut accountant = RdpAccountant::new(relation);
        let error = accountant.compose(&event, 1).unwrap_err();
        assert!(
            matches!(
                error,
                PrivacyError::Unsupported {
                    accountant: "rdp",
                    ..
                }
            ),
            "{error}"
        );
        assert!(accountant.ledger().is_empty());
        assert!(epsilon(&accountant, 1e-9) <= 0.0);
    }
    for alpha in [1.0, 0.5, f64::INFINITY, f64::NAN] {
        assert!(RdpAccountant::new(ADD_REMOVE).divergence(alpha).is_err());
    }
}

#[test]
fn extremes_stay_numbers() {
    for sigma in [1e-300, 1e-3, 0.02, 1.0, 1e8, 1e300] {
        for rate in [5e-324, 1e-300, 1e-12, 0.5, 1.0 - 1e-16] {
            let accountant = composed(&sampled(rate, gaussian(sigma)), u64::MAX, ADD_REMOVE);
            for delta in [0.0, 5e-324, 1e-30, 0.5, 1.0] {
                let found = epsilon(&accountant, delta);
                assert!(found >= 0.0, "{sigma} {rate} {delta}: {found}");
            }
            for epsilon in [0.0, 1.0, 1e300, f64::INFINITY] {
                let bounds = accountant.delta(Epsilon::new(epsilon).unwrap()).unwrap();
                assert!(bounds.upper.get() >= 0.0, "{sigma} {rate} {epsilon}");
            }
        }
    }
    let nothing = composed(&sampled(0.5, gaussian(0.0)), 1, ADD_REMOVE);
    assert!(epsilon(&nothing, 1e-5).is_infinite());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn monotone_and_invertible(
        ln_sigma in -1.0..3.0_f64,
        ln_rate in -9.0..-0.05_f64,
        ln_steps in 0.0..9.0_f64,
        ln_delta in -40.0..-3.0_f64,
    ) {
        let (sigma, rate) = (ln_sigma.exp(), ln_rate.exp());
        let (steps, delta) = (ln_steps.exp() as u64 + 1, ln_delta.exp());
        let at = |sigma: f64, rate: f64, steps: u64, delta: f64| {
            epsilon(&composed(&sampled(rate, gaussian(sigma)), steps, ADD_REMOVE), delta)
        };
        let here = at(sigma, rate, steps, delta);
        prop_assert!(at(sigma * 1.01, rate, steps, delta) <= here * (1.0 + 1e-9));
        prop_assert!(at(sigma, rate * 0.99, steps, delta) <= here * (1.0 + 1e-9));
        prop_assert!(at(sigma, rate, steps + 1, delta) >= here * (1.0 - 1e-9));
        prop_assert!(at(sigma, rate, steps, delta * 0.99) >= here * (1.0 - 1e-9));
        let accountant = composed(&sampled(rate, gaussian(sigma)), steps, ADD_REMOVE);
        if here > 0.0 {
            let back = accountant.delta(Epsilon::new(here).unwrap()).unwrap().upper.get();
            prop_assert!((back / delta - 1.0).abs() < 1e-6, "{back} {delta}");
        }
    }

    #[test]
    fn the_order_of_events_does_not_matter(swap in proptest::bool::ANY, count in 1..50u64) {
        let events = [
            sampled(0.01, gaussian(1.0)),
            DpEvent::laplace(noise(20.0)),
            DpEvent::skellam(100.0, 3.0, 2.0).unwrap(),
            gaussian(30.0),
        ];
        let mut forward = RdpAccountant::new(ADD_REMOVE);
        let mut backward = RdpAccountant::new(ADD_REMOVE);
        for (index, event) in events.iter().enumerate() {
            let other = &events[if swap { events.len() - 1 - index } else { index }];
            forward.compose(event, count).unwrap();
            backward.compose(other, count).unwrap();
        }
        let (one, two) = (epsilon(&forward, 1e-6), epsilon(&backward, 1e-6));
        prop_assert!((one / two - 1.0).abs() < 1e-10);
    }
}

/// Theorem 9 of Wang, Balle and Kasiviswanathan 2019, term by term, for a mechanism that is known by
/// its concentrated bound alone; and where it stands: above what is known of a Gaussian, and below
/// what joint convexity gives.
#[test]
fn any_mechanism_is_amplified_by_samples_of_fixed_size() {
    let (rate, rho) = (0.05, 0.1);
    let inner = DpEvent::zcdp(rho, 0.0).unwrap();
    let any = DpEvent::sampled_without_replacement(2000, 100, inner.clone()).unwrap();
    let sigma = (0.5f64 / rho).sqrt();
    let known = DpEvent::sampled_without_replacement(2000, 100, gaussian(sigma)).unwrap();
    let replace = NeighboringRelation::ReplaceOne;
    for order in [2u32, 3, 8, 20] {
        let alpha = f64::from(order);
        let choose = |k: u32| (1..=k).fold(1.0, |c, i| c * f64::from(order - k + i) / f64::from(i));
        let mut moment = 1.0;
        for j in 2..=order {
            let grown = (f64::from(j - 1) * f64::from(j) * rho).exp();
            let factor = match j {
                2 => (4.0 * (grown - 1.0)).min(2.0 * grown),
                _ => 2.0 * grown,
            };
            moment += rate_power(rate, j) * choose(j) * factor;
        }
        let expected = moment.ln() / (alpha - 1.0);
        let found = composed(&any, 1, replace).divergence(alpha).unwrap();
        let whole = composed(&inner, 1, replace).divergence(alpha).unwrap();
        let convex = ((alpha - 1.0) * whole).exp_m1().mul_add(rate, 1.0).ln() / (alpha - 1.0);
        let bound = expected.min(convex);
        assert!(
            (found / bound - 1.0).abs() < 1e-9,
            "{order}: {found} {bound}"
        );
        let gaussian = composed(&known, 1, replace).divergence(alpha).unwrap();
        assert!(
            gaussian <= found && found <= convex * (1.0 + 1e-9),
            "{order}"
        );
    }
    // Twenty times fewer members in a sample: the loss falls with the square.
    let divergence = composed(&any, 1, replace).divergence(2.0).unwrap();
    let unsampled = composed(&inner, 1, replace).divergence(2.0).unwrap();
    assert!(divergence < 5.0 * rate * rate * unsampled, "{divergence}");
}

fn rate_power(rate: f64, power: u32) -> f64 {
    (0..power).fold(1.0, |product, _| product * rate)
}
