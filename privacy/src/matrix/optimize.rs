//! Minimisation without derivatives: the simplex method of Nelder and Mead 1965, restarted once.

/// A point near `start` at which `value` is small, after at most `evaluations` evaluations (and
/// those of the two starting simplices). Points at which it is not finite are the worst.
pub(super) fn minimize(
    start: Vec<f64>,
    evaluations: usize,
    value: &dyn Fn(&[f64]) -> f64,
) -> Vec<f64> {
    let first = descend(start, evaluations / 2, value);
    // A simplex can collapse before it is at a minimum; a fresh one goes on.
    descend(first, evaluations / 2, value)
}

fn descend(start: Vec<f64>, evaluations: usize, value: &dyn Fn(&[f64]) -> f64) -> Vec<f64> {
    let rate = |point: Vec<f64>| {
        let rated = value(&point);
        (
            if rated.is_finite() {
                rated
            } else {
                f64::INFINITY
            },
            point,
        )
    };
    let mut simplex = vec![rate(start.clone())];
    for place in 0..start.len() {
        let mut point = start.clone();
        point[place] += 0.5;
        simplex.push(rate(point));
    }
    let mut spent = 0;
    while spent < evaluations {
        simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
        let worst = simplex.len() - 1;
        let spread = simplex[worst].0 - simplex[0].0;
        if spread <= 1e-12 * simplex[0].0.abs() {
            break;
        }
        // The centre of all but the worst, and points on the line from the worst through it.
        let centre: Vec<f64> = (0..start.len())
            .map(|i| simplex[..worst].iter().map(|(_, p)| p[i]).sum::<f64>() / worst as f64)
            .collect();
        let along = |simplex: &[(f64, Vec<f64>)], factor: f64| -> Vec<f64> {
            let far = &simplex[worst].1;
            centre
                .iter()
                .zip(far)
                .map(|(c, far)| c + factor * (c - far))
                .collect()
        };
        let reflected = rate(along(&simplex, 1.0));
        spent += 1;
        if reflected.0 < simplex[0].0 {
            let expanded = rate(along(&simplex, 2.0));
            spent += 1;
            simplex[worst] = if expanded.0 < reflected.0 {
                expanded
            } else {
                reflected
            };
        } else if reflected.0 < simplex[worst - 1].0 {
            simplex[worst] = reflected;
        } else {
            let outside = reflected.0 < simplex[worst].0;
            let contracted = rate(along(&simplex, if outside { 0.5 } else { -0.5 }));
            spent += 1;
            if contracted.0 < reflected.0.min(simplex[worst].0) {
                simplex[worst] = contracted;
            } else {
                let best = simplex[0].1.clone();
                for vertex in &mut simplex[1..] {
                    let point = vertex.1.iter().zip(&best).map(|(x, best)| 0.5 * (x + best));
                    *vertex = rate(point.collect());
                    spent += 1;
                }
            }
        }
    }
    simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
    simplex.swap_remove(0).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minima_are_found() {
        // Rosenbrock 1960, and a quadratic with a wall.
        let valley = |p: &[f64]| 100.0 * (p[1] - p[0] * p[0]).powi(2) + (1.0 - p[0]).powi(2);
        let found = minimize(vec![-1.2, 1.0], 2000, &valley);
        assert!(
            (found[0] - 1.0).abs() < 1e-4 && (found[1] - 1.0).abs() < 1e-4,
            "{found:?}"
        );
        let wall = |p: &[f64]| {
            if p[0] < 1.0 {
                f64::NAN
            } else {
                p[0] * p[0] + (p[1] - 3.0).powi(2)
            }
        };
        let found = minimize(vec![4.0, 0.0], 2000, &wall);
        assert!(
            (found[0] - 1.0).abs() < 1e-3 && (found[1] - 3.0).abs() < 1e-2,
            "{found:?}"
        );
    }
}
