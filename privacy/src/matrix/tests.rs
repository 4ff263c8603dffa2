#![expect(clippy::float_cmp, reason = "equal bits are what is promised")]

use fl_core::testing::stream;
use proptest::prelude::*;

use super::*;

fn participation(n: u64, b: u64, k: u64) -> Participation {
    Participation::new(n, b, k).unwrap()
}

fn factorizations(n: u64) -> Vec<Factorization> {
    let mut all = vec![
        Factorization::Banded(BandedToeplitz::square_root(1).unwrap()),
        Factorization::Banded(BandedToeplitz::square_root(3).unwrap()),
        Factorization::Banded(BandedToeplitz::new(vec![1.0, 0.9, 0.9, 0.1, 0.0]).unwrap()),
        Factorization::Banded(BandedToeplitz::square_root(100).unwrap()),
        Factorization::Blt(Blt::new(vec![0.9, 0.3], vec![0.4, 0.2]).unwrap()),
        Factorization::Blt(Blt::new(vec![0.99, 0.5, 0.0], vec![0.5, 0.4, 0.1]).unwrap()),
    ];
    for restart in [1, 3, 4, 8, n, 100] {
        for estimator in [TreeEstimator::Node, TreeEstimator::Honaker] {
            all.push(Factorization::Tree(
                TreeAggregation::new(restart, estimator).unwrap(),
            ));
        }
    }
    all
}

/// What `C` makes of unit updates, written down from the definitions: `[row][round]`.
fn encoder(factorization: &Factorization, n: usize) -> Vec<Vec<f64>> {
    let toeplitz = |c: &dyn Fn(usize) -> f64| {
        (0..n)
            .map(|t| (0..n).map(|i| t.checked_sub(i).map_or(0.0, c)).collect())
            .collect()
    };
    match factorization {
        Factorization::Banded(matrix) => {
            let c = matrix.coefficients();
            toeplitz(&|k| c.get(k).copied().unwrap_or(0.0))
        }
        Factorization::Blt(matrix) => toeplitz(&|k| {
            let powers = matrix.decays().iter().zip(matrix.scales());
            match k {
                0 => 1.0,
                _ => powers
                    .map(|(theta, omega)| omega * theta.powi(k as i32 - 1))
                    .sum(),
            }
        }),
        Factorization::Tree(tree) => {
            // Nodes in the order of their completion, small ones first.
            let restart = tree.restart() as usize;
            let mut nodes = Vec::new();
            for t in 0..n {
                let (tree_start, leaves) = (t / restart * restart, t % restart + 1);
                for height in 0..=leaves.trailing_zeros() {
                    let first = tree_start + leaves - (1 << height);
                    nodes.push(
                        (0..n)
                            .map(|i| f64::from(u8::from((first..=t).contains(&i))))
                            .collect(),
                    );
                }
            }
            nodes
        }
    }
}

/// `B` as the state machine really computes it: each fresh noise is a unit vector of its own.
fn decoder(factorization: &Factorization, n: usize, draws: usize) -> Vec<Vec<f64>> {
    let mut noise = CorrelatedNoise::new(factorization.clone(), 1.0, draws).unwrap();
    let mut next = 0;
    let mut prefix = vec![0.0; draws];
    let mut out = vec![0.0; draws];
    let rows = (0..n)
        .map(|_| {
            let mut fresh = |unit: &mut [f32]| {
                unit.fill(0.0);
                unit[next] = 1.0;
                next += 1;
            };
            noise.next_with(&mut fresh, &mut out);
            prefix
                .iter_mut()
                .zip(&out)
                .for_each(|(sum, value)| *sum += f64::from(*value));
            prefix.clone()
        })
        .collect();
    assert_eq!(next, draws, "every row of C has its noise");
    rows
}

/// `B C = A`: the noise that comes out is `B z` for the `C` whose sensitivity is accounted; and
/// the stated errors are the row norms of that `B`.
#[test]
fn the_noise_factorizes_prefix_sums() {
    for n in [1usize, 2, 7, 16, 37] {
        for factorization in factorizations(n as u64) {
            let c = encoder(&factorization, n);
            let b = decoder(&factorization, n, c.len());
            for (t, row) in b.iter().enumerate() {
                for i in 0..n {
                    let product: f64 = row.iter().zip(&c).map(|(b, c)| b * c[i]).sum();
                    let expected = f64::from(u8::from(i <= t));
                    assert!(
                        (product - expected).abs() < 1e-5,
                        "{factorization:?} {n} {t} {i}: {product}"
                    );
                }
            }
            let errors = factorization.errors(n as u64);
            for (row, error) in b.iter().zip(&errors) {
                let norm = libm::sqrt(row.iter().map(|b| b * b).sum());
                assert!(
                    (norm / error - 1.0).abs() < 1e-5,
                    "{factorization:?}: {norm} {error}"
                );
            }
            assert!(errors.len() == n);
        }
    }
}

/// Every allowed pattern of participations, up to `k` rounds at least `b` apart.
fn patterns(n: usize, b: usize, k: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    let mut open = vec![Vec::new()];
    for _ in 0..k {
        let mut longer = Vec::new();
        for pattern in &open {
            let first = pattern.last().map_or(0, |last| last + b);
            for round in first..n {
                let mut next: Vec<usize> = pattern.clone();
                next.push(round);
                longer.push(next);
            }
        }
        all.extend(longer.iter().cloned());
        open = longer;
    }
    all
}

/// The largest `|sum_i C[:, i] g_i|`; the columns' products are at least 0, so equal directions
/// are the worst.
fn brute_force(c: &[Vec<f64>], n: usize, b: usize, k: usize) -> f64 {
    patterns(n, b, k)
        .iter()
        .map(|pattern| {
            let squares = c
                .iter()
                .map(|row| pattern.iter().map(|&i| row[i]).sum::<f64>().powi(2));
            libm::sqrt(squares.sum())
        })
        .fold(0.0, f64::max)
}

#[test]
fn sensitivities_are_those_of_brute_force() {
    for n in [1usize, 2, 5, 8, 11, 14] {
        for factorization in factorizations(n as u64) {
            let c = encoder(&factorization, n);
            for (b, k) in [
                (1, 1),
                (1, 2),
                (1, 4),
                (2, 3),
                (3, 2),
                (3, 9),
                (4, 2),
                (5, 3),
                (20, 9),
            ] {
                let brute = brute_force(&c, n, b, k);
                let stated =
                    factorization.sensitivity(&participation(n as u64, b as u64, k as u64));
                assert!(
                    stated >= brute * (1.0 - 1e-12),
                    "{factorization:?} {n} {b} {k}: {stated} < {brute}"
                );
                let exact = match &factorization {
                    Factorization::Tree(_) => k == 1,
                    _ => true,
                };
                if exact {
                    assert!(
                        stated <= brute * (1.0 + 1e-12),
                        "{factorization:?} {n} {b} {k}: {stated} > {brute}"
                    );
                } else {
                    assert!(
                        stated <= brute * 1.45,
                        "{factorization:?} {n} {b} {k}: {stated} {brute}"
                    );
                }
            }
        }
    }
}

/// A run that ends early, against the sensitivity of the shorter run.
#[test]
fn sensitivities_grow_as_those_of_shorter_runs() {
    for n in [1u64, 2, 7, 16, 37] {
        for factorization in factorizations(n) {
            for (b, k) in [(1, 1), (1, 3), (4, 2), (3, 9), (50, 2)] {
                let squares = factorization.squared_sensitivities(&participation(n, b, k));
                assert_eq!(squares.len() as u64, n);
                assert!(squares.is_sorted());
                for (t, square) in (1..).zip(squares) {
                    let shorter = factorization.sensitivity(&participation(t, b, k));
                    assert!(
                        (libm::sqrt(square) / shorter - 1.0).abs() < 1e-12,
                        "{factorization:?} {n} {b} {k} {t}: {square} {shorter}"
                    );
                }
            }
        }
    }
}

/// Directions that differ are never worse than equal ones: random unit vectors.
#[test]
fn equal_directions_are_the_worst() {
    let n = 10;
    let mut rng = stream(1, 0);
    for factorization in factorizations(n as u64) {
        let c = encoder(&factorization, n);
        let stated = factorization.sensitivity(&participation(10, 2, 4));
        for pattern in patterns(n, 2, 4) {
            let directions: Vec<[f64; 2]> = pattern
                .iter()
                .map(|_| {
                    let angle = rng.uniform() * core::f64::consts::TAU;
                    [libm::cos(angle), libm::sin(angle)]
                })
                .collect();
            let squares = c.iter().map(|row| {
                let part = |axis: usize| -> f64 {
                    pattern
                        .iter()
                        .zip(&directions)
                        .map(|(&i, d)| row[i] * d[axis])
                        .sum()
                };
                part(0).powi(2) + part(1).powi(2)
            });
            assert!(libm::sqrt(squares.sum()) <= stated * (1.0 + 1e-12));
        }
    }
}

/// Noise from a stream has the stated variance after every round, by Monte Carlo over 4,000
/// coordinates: within five standard deviations of the sample variance.
#[test]
fn the_noise_has_its_variance() {
    let (n, len) = (20, 4000);
    for factorization in factorizations(n) {
        let errors = factorization.errors(n);
        let mut noise = CorrelatedNoise::new(factorization.clone(), 2.0, len).unwrap();
        let mut prefix = vec![0.0f64; len];
        let mut out = vec![0.0; len];
        for (t, error) in errors.iter().enumerate() {
            noise.next(&mut stream(7, t as u64), &mut out).unwrap();
            prefix
                .iter_mut()
                .zip(&out)
                .for_each(|(sum, value)| *sum += f64::from(*value));
            let variance = prefix.iter().map(|x| x * x).sum::<f64>() / len as f64;
            let expected = 4.0 * error * error;
            let deviation = libm::sqrt(2.0 / len as f64);
            assert!(
                (variance / expected - 1.0).abs() < 5.0 * deviation,
                "{factorization:?} {t}: {variance} {expected}"
            );
        }
    }
}

/// A state that was stored goes on as if nothing had happened; one that does not fit is refused.
#[test]
fn state_survives() {
    for factorization in factorizations(12) {
        let mut noise = CorrelatedNoise::new(factorization.clone(), 0.5, 3).unwrap();
        let mut out = [0.0f32; 3];
        for t in 0..30 {
            let text = serde_json::to_string(&noise).unwrap();
            let mut resumed: CorrelatedNoise = serde_json::from_str(&text).unwrap();
            assert_eq!(resumed, noise);
            noise.next(&mut stream(1, t), &mut out).unwrap();
            let mut again = [0.0f32; 3];
            resumed.next(&mut stream(1, t), &mut again).unwrap();
            assert_eq!(out, again);
            assert_eq!(noise.step(), t + 1);
            if t < 29
                && !matches!(factorization, Factorization::Banded(ref m) if m.coefficients().len() == 1)
            {
                let broken = text.replace("\"len\":3", "\"len\":4");
                let empty = noise.rows.is_empty() || text.contains("\"rows\":[]");
                assert!(empty || serde_json::from_str::<CorrelatedNoise>(&broken).is_err());
            }
        }
        assert!(noise.rows.len() <= factorization.rows());
        assert!(noise.next(&mut stream(1, 0), &mut [0.0; 4]).is_err());
    }
    assert!(CorrelatedNoise::new(factorizations(1)[0].clone(), f64::NAN, 3).is_err());
}

/// Known values: the square root's loss for one participation is `sum c_k^2` (its errors and its
/// sensitivity are the same number); four buffers are close to it; and correlation beats both
/// independent noise and trees.
#[test]
fn correlated_noise_is_better() {
    let n = 1000;
    let once = Participation::once(n).unwrap();
    let loss = |f: &Factorization| {
        let most = f.errors(n).into_iter().fold(0.0, f64::max);
        most * f.sensitivity(&once)
    };
    let root = loss(&Factorization::Banded(
        BandedToeplitz::square_root(1000).unwrap(),
    ));
    let squares: f64 = BandedToeplitz::square_root(1000)
        .unwrap()
        .coefficients()
        .iter()
        .map(|c| c * c)
        .sum();
    assert!((root / squares - 1.0).abs() < 1e-10, "{root} {squares}");
    let independent = loss(&Factorization::Banded(
        BandedToeplitz::square_root(1).unwrap(),
    ));
    assert!((independent - libm::sqrt(1000.0)).abs() < 1e-9);
    let tree = |estimator| {
        loss(&Factorization::Tree(
            TreeAggregation::new(1024, estimator).unwrap(),
        ))
    };
    let (node, honaker) = (tree(TreeEstimator::Node), tree(TreeEstimator::Honaker));
    let blt = loss(&Factorization::Blt(Blt::optimized(4, &once).unwrap()));
    // No factorization beats the square root by more than a little, no Toeplitz one at all.
    assert!(
        blt >= root * (1.0 - 1e-9) && blt < root * 1.01,
        "{blt} {root}"
    );
    assert!(
        root < honaker && honaker < node && node < independent,
        "{root} {honaker} {node}"
    );
    // Several participations: fitted to them it is better than fitted to one.
    let often = participation(n, 100, 10);
    let of = |blt: &Blt| {
        let matrix = Factorization::Blt(blt.clone());
        matrix.errors(n)[999] * matrix.sensitivity(&often)
    };
    let fitted = of(&Blt::optimized(3, &often).unwrap());
    assert!(fitted < of(&Blt::optimized(3, &once).unwrap()), "{fitted}");
}

/// Gradient descent against a search without derivatives, on matrices small enough for it; and
/// never worse than the square root that it starts from.
#[test]
fn banded_optima_are_found_twice() {
    for (n, bands, b, k) in [(6, 2, 1, 1), (8, 3, 3, 2), (12, 4, 2, 5), (30, 3, 5, 6)] {
        let participation = participation(n, b, k);
        let loss = |coefficients: Vec<f64>| {
            BandedToeplitz::new(coefficients).map_or(f64::INFINITY, |matrix| {
                Factorization::Banded(matrix).loss(&participation)
            })
        };
        let root = BandedToeplitz::square_root(bands).unwrap();
        let found = BandedToeplitz::optimized(bands, &participation).unwrap();
        let found = loss(found.coefficients().to_vec());
        let start = root.coefficients()[1..].to_vec();
        let best = optimize::minimize(start, 4000, &|point| loss([&[1.0], point].concat()));
        let best = loss([&[1.0], &best[..]].concat());
        assert!(found <= loss(root.coefficients().to_vec()));
        assert!(
            (found / best - 1.0).abs() < 2e-3,
            "{n} {bands} {b} {k}: {found} {best}"
        );
    }
}

#[test]
fn events_say_what_the_accountant_needs() {
    let z = NoiseMultiplier::new(3.0).unwrap();
    let matrix = Factorization::Banded(BandedToeplitz::square_root(4).unwrap());
    let twice = participation(10, 4, 2);
    // 1 + 1/4 + 9/64 + 25/256, and bands at least as far apart as they are wide.
    let column = 1.0 + 0.25 + 9.0 / 64.0 + 25.0 / 256.0;
    for (relation, factor) in [
        (NeighboringRelation::AddOrRemoveOne, 1.0),
        (NeighboringRelation::ReplaceSpecial, 1.0),
        (NeighboringRelation::ReplaceOne, 2.0),
    ] {
        match matrix.event(z, &twice, relation).unwrap() {
            DpEvent::MatrixFactorization {
                noise_multiplier,
                sensitivity,
                ..
            } => {
                assert_eq!(noise_multiplier, z);
                let expected = factor * libm::sqrt(2.0 * column);
                assert!((sensitivity / expected - 1.0).abs() < 1e-12);
                assert!(sensitivity >= expected);
            }
            other => panic!("{other:?}"),
        }
    }
    let tree = TreeAggregation::new(8, TreeEstimator::Node).unwrap();
    assert_eq!(tree.step_counts(20), [8, 8, 4]);
    assert_eq!(tree.step_counts(16), [8, 8]);
    // One leaf of a tree of eight is in four nodes.
    let once = Factorization::Tree(tree).sensitivity(&Participation::once(20).unwrap());
    assert!((once - 2.0).abs() < 1e-12);
}

#[test]
fn matrices_out_of_range_are_refused() {
    for bad in [
        vec![],
        vec![0.5],
        vec![1.0, 1.1],
        vec![1.0, 0.2, 0.3],
        vec![1.0, -0.1],
        vec![1.0, f64::NAN],
    ] {
        assert!(BandedToeplitz::new(bad.clone()).is_err(), "{bad:?}");
        let text = serde_json::json!({ "kind": "banded", "coefficients": bad }).to_string();
        assert!(
            serde_json::from_str::<Factorization>(&text).is_err(),
            "{text}"
        );
    }
    assert!(BandedToeplitz::square_root(0).is_err());
    assert!(BandedToeplitz::square_root(usize::MAX).is_err());
    for (decays, scales) in [
        (vec![], vec![]),
        (vec![0.5], vec![]),
        (vec![1.0], vec![0.5]),
        (vec![-0.1], vec![0.5]),
        (vec![0.5], vec![-0.5]),
        (vec![0.5, 0.6], vec![0.7, 0.7]),
        (vec![f64::NAN], vec![0.5]),
        (vec![0.5], vec![f64::NAN]),
    ] {
        assert!(
            Blt::new(decays.clone(), scales.clone()).is_err(),
            "{decays:?} {scales:?}"
        );
    }
    assert!(Blt::optimized(0, &participation(5, 1, 1)).is_err());
    assert!(TreeAggregation::new(0, TreeEstimator::Node).is_err());
    for (n, b, k) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1 << 21, 1, 1)] {
        assert!(Participation::new(n, b, k).is_err());
    }
    // As many participations as fit.
    assert_eq!(participation(10, 4, 99).max_participations(), 3);
    let error = BandedToeplitz::new(vec![1.0, 2.0]).unwrap_err().to_string();
    assert_eq!(
        error,
        "a coefficient of a Toeplitz matrix is 2; expected 1 for the first, and for the others a \
         number from 0 to the one before"
    );
}

proptest! {
    /// Random matrices: brute force again.
    #[test]
    fn random_matrices_agree_with_brute_force(
        falls in proptest::collection::vec(0.0f64..1.0, 0..12),
        decays in proptest::collection::vec(0.0f64..0.999, 1..4),
        n in 1usize..12, b in 1usize..6, k in 1usize..4,
    ) {
        let mut coefficient = 1.0;
        let mut coefficients = vec![1.0];
        coefficients.extend(falls.iter().map(|fall| { coefficient *= fall; coefficient }));
        let share = 1.0 / decays.len() as f64;
        let scales = decays.iter().map(|_| share * 0.999).collect();
        for factorization in [
            Factorization::Banded(BandedToeplitz::new(coefficients).unwrap()),
            Factorization::Blt(Blt::new(decays, scales).unwrap()),
        ] {
            let brute = brute_force(&encoder(&factorization, n), n, b, k);
            let stated = factorization.sensitivity(&participation(n as u64, b as u64, k as u64));
            prop_assert!((stated / brute - 1.0).abs() < 1e-12, "{} {}", stated, brute);
        }
    }
}
