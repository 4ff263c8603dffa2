//! Published and reference values of the default accountant.

#![expect(clippy::unwrap_used, reason = "a test's helper")]

use fl_privacy::{
    AccountantKind, Bounds, Delta, DpEvent, Epsilon, NeighboringRelation, NoiseMultiplier,
    accountant,
};

fn sampled(sigma: f64, rate: f64, steps: u64, delta: f64) -> Bounds<Epsilon> {
    let gaussian = DpEvent::gaussian(NoiseMultiplier::new(sigma).unwrap());
    let event = DpEvent::poisson_sampled(rate, gaussian).unwrap();
    let mut accountant = accountant(AccountantKind::Pld, NeighboringRelation::AddOrRemoveOne);
    accountant.compose(&event, steps).unwrap();
    accountant.epsilon(Delta::new(delta).unwrap()).unwrap()
}

/// Interval for the upper bound: from values printed by `dp_accounting` 0.6 and `prv_accountant`
/// 0.2, and by a closed form in mpmath 1.3 where there is one step.
#[test]
fn sampled_gaussian_at_known_points() {
    for (sigma, rate, steps, delta, low, high) in [
        (1.0, 0.01, 1, 1e-5, 0.199450447795, 0.19946),
        (1.0, 0.01, 1000, 1e-5, 1.8282, 1.8283),
        (0.5, 0.01, 100, 1e-5, 6.473, 6.4765),
        // `dp_accounting` says 0.0482 on its default grid.
        (10.0, 0.001, 10_000, 1e-8, 0.0445, 0.0446),
        (0.6162, 0.001, 1500, 1e-6, 1.99, 2.0),
        (0.6328, 0.001, 3000, 1e-6, 1.99, 2.0),
        (0.8639, 0.005, 2000, 1e-6, 1.999, 2.0),
    ] {
        let found = sampled(sigma, rate, steps, delta);
        let (lower, upper) = (found.lower.get(), found.upper.get());
        let name = format!("sigma {sigma}, q {rate}, T {steps}, delta {delta}: {lower} {upper}");
        assert!(low <= upper && upper <= high, "{name}");
        assert!(lower <= upper && lower >= 0.99 * upper, "{name}");
    }
}

/// The fixture's head says how it was made. Its `dpa_pld` is an upper bound on a lattice of 1e-4.
#[test]
fn sampled_gaussian_over_the_grid() {
    let text = include_str!("fixtures/sampled_gaussian.csv");
    let mut seen = 0;
    for line in text.lines().skip(2) {
        let row: Vec<Option<f64>> = line.split(',').map(|field| field.parse().ok()).collect();
        let number = |column: usize| row[column].unwrap();
        let (sigma, rate, steps, delta) = (number(0), number(1), number(2), number(3));
        seen += 1;
        let found = sampled(sigma, rate, steps as u64, delta);
        let (lower, upper) = (found.lower.get(), found.upper.get());
        let name = format!("{line}: {lower} {upper}");
        let (dpa, rdp, prv, exact) = (row[4], row[7], row[10], row[13]);
        if let Some(exact) = exact {
            assert!(lower <= exact * (1.0 + 1e-14), "{name}");
            assert!(upper >= exact * (1.0 - 1e-14), "{name}");
        }
        if let Some(dpa) = dpa {
            // Where it is below our lower bound, its own rounding has made it too small.
            assert!(upper <= dpa + 1e-6 || lower > dpa, "{name}");
            assert!(lower <= dpa * (1.0 + 1e-6), "{name}");
        }
        if let Some(rdp) = rdp {
            assert!(upper <= rdp, "{name}");
        }
        // Its lower bound is sometimes above the others' upper bounds.
        if let (Some(prv), Some(dpa)) = (prv, dpa) {
            assert!(upper >= prv || prv > dpa, "{name}");
        }
        assert!(lower >= 0.998 * upper, "{name}");
    }
    assert!(seen == 420, "{seen}");
}
