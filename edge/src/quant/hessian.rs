//! Second moments of a product's inputs, and their factors.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::kernel::Kernels;

/// Rows that are added at once.
const BLOCK: usize = 16;

/// A sum of `2 x xᵀ` over inputs `x` of a product: the Hessian of the squared error of an output by
/// its weights. In `f64`; the upper triangle is kept.
#[derive(Clone)]
pub(super) struct Hessian {
    n: usize,
    /// `[n, n]`, of which row `i` is used from column `i` on.
    h: Vec<f64>,
    /// Rows that are not yet added, `-2 x`, transposed when they are.
    pending: Vec<f64>,
}

impl fmt::Debug for Hessian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hessian")
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}

impl Hessian {
    pub(super) fn new(n: usize) -> Self {
        Self {
            n,
            h: vec![0.0; n * n],
            pending: Vec::with_capacity(BLOCK * n),
        }
    }

    /// Adds an input.
    pub(super) fn add(&mut self, x: &mut dyn Iterator<Item = f32>) {
        self.pending.extend(x.map(f64::from));
        if self.pending.len() >= BLOCK * self.n {
            self.flush();
        }
    }

    /// Adds what is pending.
    pub(super) fn flush(&mut self) {
        let n = self.n;
        let rows = self.pending.len() / n;
        for i in 0..n {
            let mut coefficients = [0.0; BLOCK];
            for (row, c) in coefficients[..rows].iter_mut().enumerate() {
                *c = -2.0 * self.pending[row * n + i];
            }
            let coefficients = &coefficients[..rows];
            if coefficients.iter().any(|&c| c != 0.0) {
                let rows = &self.pending[i..];
                let to = &mut self.h[i * n + i..(i + 1) * n];
                Kernels::best().subtract_rows(coefficients, rows, n, to);
            }
        }
        self.pending.clear();
    }

    /// The diagonal.
    pub(super) fn diagonal(&self) -> impl Iterator<Item = f64> {
        (0..self.n).map(|i| self.h[i * self.n + i])
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.h[i.min(j) * self.n + i.max(j)]
    }

    /// The sum over `x` of `(Eᵀ x)²` of each column of `E = error[n, columns]`, row-major.
    pub(super) fn energies(&self, error: &[f64], columns: usize) -> Vec<f64> {
        let n = self.n;
        let mut sums = vec![0.0; columns];
        let mut coefficients = vec![0.0; n];
        let mut row = vec![0.0; columns];
        for i in 0..n {
            let own = &error[i * columns..][..columns];
            if own.iter().all(|&e| e == 0.0) {
                continue;
            }
            for (j, c) in coefficients.iter_mut().enumerate() {
                *c = -self.at(i, j);
            }
            row.fill(0.0);
            Kernels::best().subtract_rows(&coefficients, error, columns, &mut row);
            for (sum, (a, b)) in sums.iter_mut().zip(row.iter().zip(own)) {
                *sum += a * b / 2.0;
            }
        }
        sums
    }

    /// Upper triangular `U` with `Uᵀ U = (P (H + damping) Pᵀ)⁻¹`, where row `i` of `P H Pᵀ` is row
    /// `order[i]` of `H`. To the diagonal are added `damping` times its mean, and one where it is
    /// zero. `None` when what comes out is not positive definite, as with numbers that are not
    /// finite.
    ///
    /// `J H J = Rᵀ R` with the order of rows and columns turned round (`J`) gives
    /// `H = (J Rᵀ J)(J R J)`, whose first factor `M` is upper triangular: `U = M⁻¹`.
    pub(super) fn inverse_factor(&self, order: &[usize], damping: f64) -> Option<Vec<f64>> {
        let n = self.n;
        let kernels = Kernels::best();
        let mean = self.diagonal().sum::<f64>() / n as f64;
        let mut r = vec![0.0; n * n];
        for i in 0..n {
            let from = order[n - 1 - i];
            let row = &mut r[i * n..(i + 1) * n];
            for j in i..n {
                row[j] = self.at(from, order[n - 1 - j]);
            }
            if row[i] == 0.0 {
                row[i] = 1.0;
            }
            row[i] += damping * mean;
        }
        let mut coefficients = vec![0.0; n];
        for i in 0..n {
            let (above, rest) = r.split_at_mut(i * n);
            let row = &mut rest[i..n];
            for (k, c) in coefficients[..i].iter_mut().enumerate() {
                *c = above[k * n + i];
            }
            if i > 0 {
                kernels.subtract_rows(&coefficients[..i], &above[i..], n, row);
            }
            let pivot = row[0];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return None;
            }
            let root = libm::sqrt(pivot);
            for value in row {
                *value /= root;
            }
        }
        let mut m = vec![0.0; n * n];
        for i in 0..n {
            for j in i..n {
                m[i * n + j] = r[(n - 1 - j) * n + (n - 1 - i)];
            }
        }
        // Row `i` of the inverse solves `u M = e_i`.
        let mut u = r;
        for i in 0..n {
            let row = &mut u[i * n..(i + 1) * n];
            row.fill(0.0);
            row[i] = 1.0;
            for k in i..n {
                row[k] /= m[k * n + k];
                let c = [row[k]];
                kernels.subtract_rows(&c, &m[k * n + k + 1..(k + 1) * n], n, &mut row[k + 1..]);
            }
        }
        Some(u)
    }
}

#[cfg(test)]
mod tests {
    use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};

    use super::*;

    fn inputs(n: usize, rows: usize) -> Vec<Vec<f32>> {
        let mut stream = Stream::at(Purpose::Testing, Seed(n as u64), RoundId(0), ClientId(0));
        let mut draw = || stream.normal() as f32;
        let row = |_| {
            let shared = draw();
            (0..n).map(|_| shared + draw()).collect()
        };
        (0..rows).map(row).collect()
    }

    fn summed(inputs: &[Vec<f32>]) -> Hessian {
        let mut hessian = Hessian::new(inputs[0].len());
        for x in inputs {
            hessian.add(&mut x.iter().copied());
        }
        hessian.flush();
        hessian
    }

    #[test]
    fn moments_and_energies_are_sums() {
        for (n, rows, columns) in [(1, 3, 1), (5, 16, 2), (40, 37, 3)] {
            let inputs = inputs(n, rows);
            let hessian = summed(&inputs);
            for i in 0..n {
                for j in 0..n {
                    let products = inputs.iter().map(|x| f64::from(x[i]) * f64::from(x[j]));
                    let expected = 2.0 * products.sum::<f64>();
                    let off = (hessian.at(i, j) - expected).abs();
                    assert!(off < 1e-9, "{n} {i} {j}: {off}");
                }
            }
            let error: Vec<f64> = (0..n * columns)
                .map(|at| libm::sin(at as f64 + 1.0))
                .collect();
            let mut expected = 0.0;
            for x in &inputs {
                for column in 0..columns {
                    let out: f64 = (0..n)
                        .map(|i| error[i * columns + column] * f64::from(x[i]))
                        .sum();
                    expected += out * out;
                }
            }
            let found: f64 = hessian.energies(&error, columns).iter().sum();
            let off = (found / expected - 1.0).abs();
            assert!(off < 1e-12, "{n}: {off}");
        }
    }

    /// `Uᵀ U` times the permuted and damped matrix is the identity.
    #[test]
    fn the_factor_is_that_of_the_inverse() {
        for n in [1, 2, 7, 33, 70] {
            let mut inputs = inputs(n, 2 * n);
            // An input that is always zero.
            if n > 2 {
                inputs.iter_mut().for_each(|x| x[1] = 0.0);
            }
            let hessian = summed(&inputs);
            let order: Vec<usize> = (0..n).map(|i| (i * 3 + 1) % n).collect();
            let order = match n % 3 {
                0 => (0..n).rev().collect(),
                _ => order,
            };
            let u = hessian.inverse_factor(&order, 0.01).expect("definite");
            let mean = hessian.diagonal().sum::<f64>() / n as f64;
            let damped = |i: usize, j: usize| {
                let value = hessian.at(order[i], order[j]);
                let dead = if value == 0.0 { 1.0 } else { 0.0 };
                value + if i == j { 0.01 * mean + dead } else { 0.0 }
            };
            for i in 0..n {
                for j in 0..n {
                    assert!(j >= i || u[i * n + j] == 0.0, "upper triangular");
                    // (Uᵀ U H)[i][j]
                    let found: f64 = (0..n)
                        .map(|k| {
                            let inverse: f64 = (0..n).map(|l| u[l * n + i] * u[l * n + k]).sum();
                            inverse * damped(k, j)
                        })
                        .sum();
                    let expected = if i == j { 1.0 } else { 0.0 };
                    assert!((found - expected).abs() < 1e-8, "{n} {i} {j}: {found}");
                }
            }
        }
        let mut broken = Hessian::new(2);
        broken.add(&mut [f32::NAN, 1.0].into_iter());
        broken.flush();
        assert!(broken.inverse_factor(&[0, 1], 0.01).is_none());
    }
}
