//! How the examples of a batch lie to one another: relational knowledge distillation.
//!
//! # Source
//! Park, Kim, Lu & Cho 2019, arXiv:1904.05068, section 3.2: distance-wise (equations 3 to 5) and
//! angle-wise (equations 6 to 8) losses.

use crate::kernel::{Dense, Fused, Kernels};

/// Numbers for each of `rows` examples that [`Relating`] works in.
pub(super) fn scratch_len(rows: usize, inputs: usize, outputs: usize) -> usize {
    2 * rows + 2 * inputs.max(outputs) + 2 * inputs + 1
}

/// A batch of examples as student and teacher see them.
pub(super) struct Relating<'a> {
    pub(super) k: &'static Kernels,
    pub(super) rows: usize,
    /// `[rows, inputs]`
    pub(super) student: &'a [f32],
    pub(super) inputs: usize,
    /// `[rows, outputs]`
    pub(super) teacher: &'a [f32],
    pub(super) outputs: usize,
}

/// The working memory in its parts.
struct Parts<'a> {
    /// `[rows, rows]`: of the student, and of the teacher.
    own: &'a mut [f32],
    other: &'a mut [f32],
    /// `[rows, width]`, and its transpose.
    unit: &'a mut [f32],
    turned: &'a mut [f32],
    /// `[rows, inputs]`: the gradient of `unit`, and the whole gradient.
    dunit: &'a mut [f32],
    total: &'a mut [f32],
    /// Lengths of differences.
    lengths: &'a mut [f32],
}

impl Relating<'_> {
    /// `distance * L_D + angle * L_A`. The gradient by the student's numbers is left in the first
    /// `rows * inputs` numbers of what is returned with it.
    pub(super) fn lose<'s>(
        &self,
        distance: f32,
        angle: f32,
        scratch: &'s mut [f32],
    ) -> (f64, &'s [f32]) {
        let (rows, inputs) = (self.rows, self.inputs);
        let width = inputs.max(self.outputs);
        let (own, rest) = scratch.split_at_mut(rows * rows);
        let (other, rest) = rest.split_at_mut(rows * rows);
        let (unit, rest) = rest.split_at_mut(rows * width);
        let (turned, rest) = rest.split_at_mut(rows * width);
        let (dunit, rest) = rest.split_at_mut(rows * inputs);
        let (total, rest) = rest.split_at_mut(rows * inputs);
        let mut parts = Parts {
            own,
            other,
            unit,
            turned,
            dunit,
            total,
            lengths: &mut rest[..rows],
        };
        parts.total.fill(0.0);
        let mut loss = 0.0;
        if distance > 0.0 {
            loss += f64::from(distance) * self.distances(distance, &mut parts);
        }
        if angle > 0.0 {
            loss += f64::from(angle) * self.angles(angle, &mut parts);
        }
        (loss, parts.total)
    }

    /// `L_D`; adds its gradient times `weight`.
    fn distances(&self, weight: f32, parts: &mut Parts<'_>) -> f64 {
        let (k, rows) = (self.k, self.rows);
        let (student, teacher) = (self.student, self.teacher);
        let mean = distances(k, rows, self.inputs, student, parts.turned, parts.own);
        let mean_other = distances(k, rows, self.outputs, teacher, parts.turned, parts.other);
        let (by, by_other) = (inverse(mean), inverse(mean_other));
        let pairs = (rows * rows) as f64;
        let mut loss = 0.0;
        // `other` becomes the derivative by the normalised distance.
        let mut slope = 0.0;
        let mut count = 0u64;
        for (d, other) in parts.own.iter().zip(&mut *parts.other) {
            let error = d * by - *other * by_other;
            loss += huber(error);
            *other = error.clamp(-1.0, 1.0) / pairs as f32;
            slope += f64::from(*other) * f64::from(*d);
            count += u64::from(*d > 0.0);
        }
        // The mean distance moves with every distance.
        let through_mean = match count {
            0 => 0.0,
            count => (slope * f64::from(by) * f64::from(by) / count as f64) as f32,
        };
        let width = self.inputs;
        for a in 0..rows {
            let to = &mut parts.total[a * width..][..width];
            let from = &student[a * width..][..width];
            for b in 0..rows {
                let d = parts.own[a * rows + b];
                if d > 0.0 {
                    // Twice: the pair counts in both orders.
                    let slope = parts.other[a * rows + b] * by - through_mean;
                    let factor = 2.0 * weight * slope / d;
                    let others = &student[b * width..][..width];
                    for ((to, from), other) in to.iter_mut().zip(from).zip(others) {
                        *to += factor * (from - other);
                    }
                }
            }
        }
        loss / pairs
    }

    /// `L_A`; adds its gradient times `weight`.
    fn angles(&self, weight: f32, parts: &mut Parts<'_>) -> f64 {
        let (k, rows, width) = (self.k, self.rows, self.inputs);
        let triples = (rows * rows * rows) as f64;
        let mut loss = 0.0;
        for a in 0..rows {
            self.cosines(a, self.teacher, self.outputs, parts);
            core::mem::swap(&mut parts.own, &mut parts.other);
            self.cosines(a, self.student, width, parts);
            for (own, other) in parts.own.iter_mut().zip(&*parts.other) {
                let error = *own - other;
                loss += huber(error);
                // Twice: the cosine is of both sides alike.
                *own = 2.0 * weight * error.clamp(-1.0, 1.0) / triples as f32;
            }
            let back = Dense {
                inputs: rows,
                outputs: width,
            };
            let unit = &parts.unit[..rows * width];
            k.dense(&back, rows, parts.own, unit, None, Fused::None, parts.dunit);
            for b in 0..rows {
                let length = parts.lengths[b];
                if length > 0.0 {
                    let e = &unit[b * width..][..width];
                    let de = &mut parts.dunit[b * width..][..width];
                    let mut along = 0.0f32;
                    for (e, de) in e.iter().zip(&*de) {
                        along += e * de;
                    }
                    for (de, e) in de.iter_mut().zip(e) {
                        *de = (*de - e * along) / length;
                    }
                    k.add(de, &mut parts.total[b * width..][..width]);
                    let to = &mut parts.total[a * width..][..width];
                    for (to, de) in to.iter_mut().zip(&*de) {
                        *to -= de;
                    }
                }
            }
        }
        loss / triples
    }

    /// The cosines of all angles at example `a`, into `own`: `unit` becomes the directions to the
    /// others and `lengths` how far they are.
    fn cosines(&self, a: usize, x: &[f32], width: usize, parts: &mut Parts<'_>) {
        let rows = self.rows;
        let from = &x[a * width..][..width];
        for b in 0..rows {
            let to = &mut parts.unit[b * width..][..width];
            let mut squares = 0.0f32;
            for ((to, b), a) in to.iter_mut().zip(&x[b * width..]).zip(from) {
                *to = b - a;
                squares += *to * *to;
            }
            let length = libm::sqrtf(squares);
            parts.lengths[b] = length;
            if length > 0.0 {
                for to in to {
                    *to /= length;
                }
            }
        }
        let unit = &parts.unit[..rows * width];
        self.k.transpose(rows, width, unit, parts.turned);
        let product = Dense {
            inputs: width,
            outputs: rows,
        };
        let turned = &parts.turned[..rows * width];
        (self.k).dense(&product, rows, unit, turned, None, Fused::None, parts.own);
    }
}

fn inverse(mean: f32) -> f32 {
    if mean > 0.0 { 1.0 / mean } else { 0.0 }
}

/// The Huber loss with its corner at 1.
fn huber(error: f32) -> f64 {
    let error = f64::from(error.abs());
    match error < 1.0 {
        true => 0.5 * error * error,
        false => error - 0.5,
    }
}

/// The distances of all pairs of rows; the mean of those that are not zero.
fn distances(
    k: &Kernels,
    rows: usize,
    width: usize,
    x: &[f32],
    turned: &mut [f32],
    to: &mut [f32],
) -> f32 {
    k.transpose(rows, width, x, turned);
    to.fill(0.0);
    for (a, to) in to.chunks_exact_mut(rows).enumerate() {
        for column in turned[..rows * width].chunks_exact(rows) {
            let own = column[a];
            for (to, other) in to.iter_mut().zip(column) {
                let difference = own - other;
                *to += difference * difference;
            }
        }
    }
    let (mut sum, mut count) = (0.0f64, 0u64);
    for to in to {
        *to = libm::sqrtf(*to);
        sum += f64::from(*to);
        count += u64::from(*to > 0.0);
    }
    match count {
        0 => 0.0,
        count => (sum / count as f64) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the formulas, in f64, one pair and one triple after the other.
    fn exact(x: &[Vec<f64>], y: &[Vec<f64>], distance: f64, angle: f64) -> f64 {
        let n = x.len();
        let huber = |e: f64| match e.abs() < 1.0 {
            true => 0.5 * e * e,
            false => e.abs() - 0.5,
        };
        let apart = |x: &[Vec<f64>], a: usize, b: usize| {
            let squares = x[a].iter().zip(&x[b]).map(|(a, b)| (a - b) * (a - b));
            libm::sqrt(squares.sum::<f64>())
        };
        let mean = |x: &[Vec<f64>]| {
            let pairs = (0..n).flat_map(|a| (0..n).map(move |b| (a, b)));
            let all: Vec<f64> = pairs.map(|(a, b)| apart(x, a, b)).collect();
            let some = all.iter().filter(|&&d| d > 0.0);
            all.iter().sum::<f64>() / some.count() as f64
        };
        let (mx, my) = (mean(x), mean(y));
        let cosine = |x: &[Vec<f64>], a: usize, b: usize, c: usize| {
            let (db, dc) = (apart(x, a, b), apart(x, a, c));
            if db * dc == 0.0 {
                return 0.0;
            }
            let terms = (0..x[a].len()).map(|i| (x[b][i] - x[a][i]) * (x[c][i] - x[a][i]));
            terms.sum::<f64>() / (db * dc)
        };
        let (mut pairs, mut triples) = (0.0, 0.0);
        for a in 0..n {
            for b in 0..n {
                pairs += huber(apart(x, a, b) / mx - apart(y, a, b) / my);
                for c in 0..n {
                    triples += huber(cosine(x, a, b, c) - cosine(y, a, b, c));
                }
            }
        }
        let n = n as f64;
        distance * pairs / (n * n) + angle * triples / (n * n * n)
    }

    fn numbers(seed: u64, rows: usize, width: usize) -> Vec<Vec<f64>> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Exact in f32.
            ((state >> 40) as f64) / f64::from(1u32 << 23) - 1.0
        };
        (0..rows)
            .map(|_| (0..width).map(|_| next()).collect())
            .collect()
    }

    /// Against the formulas and their central differences, for widths that differ, one example
    /// and two that are the same.
    #[test]
    fn loss_and_gradient_against_the_formulas() {
        for (rows, inputs, outputs, distance, angle) in [
            (1, 3, 2, 1.0, 1.0),
            (2, 3, 3, 1.0, 2.0),
            (5, 4, 7, 25.0, 0.0),
            (5, 7, 4, 0.0, 50.0),
            (9, 20, 6, 25.0, 50.0),
        ] {
            let mut x = numbers(rows as u64, rows, inputs);
            let y = numbers(99 + rows as u64, rows, outputs);
            if rows == 9 {
                x[4] = x[2].clone();
            }
            let flat =
                |x: &[Vec<f64>]| -> Vec<f32> { x.iter().flatten().map(|&v| v as f32).collect() };
            let relating = Relating {
                k: Kernels::best(),
                rows,
                student: &flat(&x),
                inputs,
                teacher: &flat(&y),
                outputs,
            };
            let mut scratch = vec![f32::NAN; rows * scratch_len(rows, inputs, outputs)];
            let (loss, gradient) = relating.lose(distance, angle, &mut scratch);
            let (distance, angle) = (f64::from(distance), f64::from(angle));
            if rows == 1 {
                assert!(loss == 0.0 && gradient[..inputs].iter().all(|&g| g == 0.0));
                continue;
            }
            let known = exact(&x, &y, distance, angle);
            assert!(
                (loss - known).abs() < 2e-6 * known.max(1.0),
                "{loss} for {known}"
            );
            for row in 0..rows {
                // Where two examples are the same there is a corner; ours is flat there.
                if rows == 9 && (row == 4 || row == 2) {
                    continue;
                }
                for column in 0..inputs {
                    let mut moved = |by: f64| {
                        let before = x[row][column];
                        x[row][column] += by;
                        let loss = exact(&x, &y, distance, angle);
                        x[row][column] = before;
                        loss
                    };
                    let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                    let found = f64::from(gradient[row * inputs + column]);
                    assert!(
                        (found - slope).abs() < 2e-5 * slope.abs().max(1.0),
                        "{found} for {slope}"
                    );
                }
            }
        }
    }
}
