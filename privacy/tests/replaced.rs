//! Samples whose members are replaced or push others out, against `dp_accounting`: the fixture's
//! script says what each of its values is.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use fl_privacy::accountant::{Fineness, PldAccountant};
use fl_privacy::{
    Accountant, AccountantKind, Delta, DpEvent, NeighboringRelation, NoiseMultiplier, PrivacyError,
    accountant,
};

fn gaussian(sigma: f64) -> DpEvent {
    DpEvent::gaussian(NoiseMultiplier::new(sigma).unwrap())
}

/// Lower and upper bound.
fn epsilon(
    kind: AccountantKind,
    relation: NeighboringRelation,
    event: &DpEvent,
    steps: u64,
    delta: f64,
) -> (f64, f64) {
    let mut accountant = accountant(kind, relation);
    accountant.compose(event, steps).unwrap();
    let found = accountant.epsilon(Delta::new(delta).unwrap()).unwrap();
    (found.lower.get(), found.upper.get())
}

/// The upper bound on a lattice of up to a million points.
fn finer(relation: NeighboringRelation, event: &DpEvent, steps: u64, delta: f64) -> f64 {
    let fineness = Fineness {
        points: 1 << 20,
        ..Fineness::default()
    };
    let mut accountant = PldAccountant::new(relation).with_fineness(fineness);
    accountant.compose(event, steps).unwrap();
    let found = accountant.epsilon(Delta::new(delta).unwrap()).unwrap();
    found.upper.get()
}

/// The fixture's noise is relative to a norm; here that of a replaced member is relative to two.
fn event(sampling: &str, relation: NeighboringRelation, numbers: &[f64]) -> DpEvent {
    match (sampling, numbers) {
        ("fixed-size", &[population, sample, sigma]) => {
            let inner = gaussian(sigma);
            DpEvent::sampled_without_replacement(population as u64, sample as u64, inner)
        }
        ("poisson", &[rate, sigma]) => {
            let norms = match relation {
                NeighboringRelation::ReplaceOne => 2.0,
                _ => 1.0,
            };
            DpEvent::poisson_sampled(rate, gaussian(sigma / norms))
        }
        ("truncated", &[population, rate, limit, sigma]) => {
            let noise = NoiseMultiplier::new(sigma).unwrap();
            DpEvent::truncated_poisson(population as u64, rate, limit as u64, noise)
        }
        other => panic!("unknown row {other:?}"),
    }
    .unwrap()
}

#[test]
fn never_above_the_peer_nor_below_an_attack() {
    let mut seen = [0; 4];
    for line in include_str!("fixtures/replaced.csv").lines().skip(2) {
        let fields: Vec<&str> = line.split(',').collect();
        let [sampling, relation, numbers, steps, delta, source, expected] = fields[..] else {
            panic!("{line}");
        };
        let relation: NeighboringRelation = relation.parse().unwrap();
        let numbers: Vec<f64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
        let event = event(sampling, relation, &numbers);
        let (steps, delta, expected): (u64, f64, f64) = (
            steps.parse().unwrap(),
            delta.parse().unwrap(),
            expected.parse().unwrap(),
        );
        let (lower, upper) = epsilon(AccountantKind::Pld, relation, &event, steps, delta);
        let name = format!("{line}: {lower} {upper}");
        // Its lattice adds this much at most to the epsilon of the law that it rounds.
        let rough = 1e-3 * expected + 1e-3;
        match source {
            "rdp" => {
                seen[0] += 1;
                assert!(upper <= expected + 1e-6, "{name}");
                let (_, own) = epsilon(AccountantKind::Rdp, relation, &event, steps, delta);
                assert!(upper <= own, "{name} {own}");
            }
            "pld" => {
                seen[1] += 1;
                assert!(upper <= expected + 1e-6, "{name}");
                assert!(lower <= expected + 1e-6, "{name}");
                if sampling == "poisson" {
                    assert!(upper >= expected - rough, "{name}");
                }
            }
            "pair" => {
                seen[2] += 1;
                // Where the default lattice is coarser than the peer's, which takes it minutes, one
                // as fine shows what the pair is worth.
                assert!(upper <= expected * (1.0 + 2e-4) + 1e-6, "{name}");
                if sampling == "fixed-size" && upper > expected + 1e-6 {
                    let upper = finer(relation, &event, steps, delta);
                    assert!(upper <= expected * (1.0 + 1e-6) + 1e-6, "{name}: {upper}");
                }
                assert!(upper >= expected - rough, "{name}");
            }
            "attack" => {
                seen[3] += 1;
                assert!(lower <= expected + 1e-6, "{name}");
                assert!(lower >= expected - rough, "{name}");
                assert!(upper >= lower, "{name}");
            }
            _ => panic!("{line}"),
        }
    }
    assert_eq!(seen, [22, 66, 64, 22]);
}

/// Over a wide grid: never above this accountant's own Rényi bound, nor above no sampling at all.
#[test]
fn fixed_size_samples_cost_at_most_what_other_bounds_say() {
    let relation = NeighboringRelation::ReplaceOne;
    for (sample, sigma, steps) in [
        (1, 0.5, 10),
        (1, 2.0, 1000),
        (10, 0.7, 100),
        (10, 1.0, 10_000),
        (100, 1.0, 100),
        (100, 4.0, 1000),
        (300, 0.4, 3),
        (500, 1.0, 1),
        (500, 2.0, 10),
        (900, 1.0, 30),
        (900, 10.0, 300),
        (999, 2.0, 10),
    ] {
        let event = DpEvent::sampled_without_replacement(1000, sample, gaussian(sigma)).unwrap();
        for delta in [1e-5, 1e-9] {
            let (lower, upper) = epsilon(AccountantKind::Pld, relation, &event, steps, delta);
            let name = format!("{sample} {sigma} {steps} {delta}: {lower} {upper}");
            let (_, renyi) = epsilon(AccountantKind::Rdp, relation, &event, steps, delta);
            let kind = AccountantKind::Gaussian;
            let (_, whole) = epsilon(kind, relation, &gaussian(sigma), steps, delta);
            assert!(upper <= renyi && upper <= whole, "{name} {renyi} {whole}");
            assert!(lower > 0.5 * upper && lower <= upper, "{name}");
            if steps == 1 {
                assert!(upper - lower < 1e-8 * upper, "{name}");
            }
        }
    }
}

/// Fixed-size samples have a guarantee only where a member is replaced.
#[test]
fn a_sample_of_fixed_size_keeps_its_size() {
    let event = DpEvent::sampled_without_replacement(100, 10, gaussian(1.0)).unwrap();
    let mut accountant = accountant(AccountantKind::Pld, NeighboringRelation::AddOrRemoveOne);
    let refused = accountant.compose(&event, 1).unwrap_err();
    assert!(matches!(refused, PrivacyError::Unsupported { .. }));
}
