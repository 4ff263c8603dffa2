//! Rows of double precision, for the linear algebra of calibration.

use super::simd::vectorized;

/// Numbers of a row that are held while others are subtracted.
const HELD: usize = 32;

vectorized! {
    /// `y -= coefficients[k] * rows[k]` for ascending `k`, each product and each difference rounded;
    /// row `k` begins at `k * stride`.
    fn subtract_rows(v, coefficients: &[f64], rows: &[f64], stride: usize, y: &mut [f64]) {
        let _ = v;
        let len = y.len();
        let mut at = 0;
        while at + HELD <= len {
            let mut held = [0f64; HELD];
            held.copy_from_slice(&y[at..at + HELD]);
            for (k, &c) in coefficients.iter().enumerate() {
                let row = &rows[k * stride + at..][..HELD];
                for (y, &x) in held.iter_mut().zip(row) {
                    *y -= c * x;
                }
            }
            y[at..at + HELD].copy_from_slice(&held);
            at += HELD;
        }
        if at < len {
            for (k, &c) in coefficients.iter().enumerate() {
                let row = &rows[k * stride + at..][..len - at];
                for (y, &x) in y[at..].iter_mut().zip(row) {
                    *y -= c * x;
                }
            }
        }
    }
}

impl super::Kernels {
    /// `y -= coefficients[k] * rows[k]` for ascending `k`, in `f64`, each product and each
    /// difference rounded on its own; row `k` are the numbers from `k * stride` on.
    pub fn subtract_rows(&self, coefficients: &[f64], rows: &[f64], stride: usize, y: &mut [f64]) {
        if let Some(last) = coefficients.len().checked_sub(1) {
            assert!(rows.len() >= last * stride + y.len(), "rows are missing");
        }
        subtract_rows(self.isa, coefficients, rows, stride, y);
    }
}
