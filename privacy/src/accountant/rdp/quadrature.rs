//! Rényi divergences of Gaussian mixtures from a Gaussian, by a sum of positive terms.
//!
//! With `r = P/Q` and `E_Q[r] = 1`,
//!
//! ```text
//! E_Q[r^a] - 1 = E_Q[r^a - 1 - a (r - 1)]
//! ```
//!
//! and the integrand on the right is nowhere negative for `a >= 1` and `a <= 0` (Bernoulli). It is
//! computed without cancellation, so that the moment keeps its relative accuracy when it is tiny
//! (low sampling rates) and when it is huge (high orders), for whole and fractional orders alike;
//! the alternating series of Mironov, Talwar and Zhang (2019, arXiv:1908.10530, section 3.3) does
//! not. The integrand is analytic in a strip around the real line, where the trapezoidal rule
//! converges geometrically (Trefethen and Weideman 2014): the step is chosen so that its error is
//! below 1e-15 of the integral.

/// Terms this much below the largest (in natural logarithms) are left out.
const NEGLIGIBLE: f64 = 46.0;

/// Every sum is raised by this share, which outweighs rounding, the rule's error and what is left
/// out.
const SLACK: f64 = 1e-12;

/// Below this noise multiplier sampling is not credited: hardly any order gains by it.
const LEAST_SIGMA: f64 = 0.02;

/// Most points that a mixture may take: orders that need more are far above any useful one.
const MOST_POINTS: f64 = 20_000.0;

/// `e^x - 1 - x`, which is never negative, with small relative error.
pub(super) fn excess_of_exp(x: f64) -> f64 {
    if x.abs() > 0.5 {
        return libm::expm1(x) - x;
    }
    // x^2/2 (1 + x/3 (1 + x/4 (..))); the last term is below 1e-18 of the first.
    let mut sum = 1.0;
    for k in (3..=18).rev() {
        sum = 1.0 + x / f64::from(k) * sum;
    }
    0.5 * x * x * sum
}

/// `ln(r^a - 1 - a (r - 1))` at `v = ln r`, for `a > 1` or `a < 0`; minus infinity at `v = 0`.
pub(super) fn ln_excess(v: f64, a: f64) -> f64 {
    // With c = a - 1 it is r [(e^(c v) - 1 - c v) + c (e^-v - 1 + v)].
    let c = a - 1.0;
    if c * v > 600.0 {
        return a * v + libm::log1p(c * libm::exp(-a * v));
    }
    if v < -600.0 {
        return libm::log(c);
    }
    v + libm::log(excess_of_exp(c * v) + c * excess_of_exp(-v))
}

/// A sum of terms that are given by their logarithms.
#[derive(Debug)]
pub(super) struct LnSum {
    largest: f64,
    /// The sum over `exp(largest)`.
    sum: f64,
}

impl LnSum {
    pub(super) fn new() -> Self {
        Self {
            largest: f64::NEG_INFINITY,
            sum: 0.0,
        }
    }

    pub(super) fn add(&mut self, term: f64) {
        if term > self.largest {
            self.sum = self.sum * libm::exp(self.largest - term) + 1.0;
            self.largest = term;
        } else if term > self.largest - NEGLIGIBLE {
            self.sum += libm::exp(term - self.largest);
        }
    }

    /// Natural logarithm of the sum.
    pub(super) fn ln(&self) -> f64 {
        self.largest + libm::log(self.sum)
    }
}

/// `ln(1 + e^x)`.
pub(super) fn ln_one_plus_exp(x: f64) -> f64 {
    if x > 0.0 {
        x + libm::log1p(libm::exp(-x))
    } else {
        libm::log1p(libm::exp(x))
    }
}

/// `ln(1 - q + q e^t)`.
fn ln_sampled_ratio(q: f64, t: f64) -> f64 {
    if t > 600.0 {
        return t + libm::log(q) + libm::log1p((1.0 - q) / q * libm::exp(-t));
    }
    let u = q * libm::expm1(t);
    if u > -0.5 {
        libm::log1p(u)
    } else {
        libm::log((1.0 - q) + q * libm::exp(t))
    }
}

/// `(alpha - 1) D_alpha` of the Poisson-sampled Gaussian under add-or-remove-one, rounded upwards:
/// `ln E_{x ~ N(0, sigma^2)}[(1 - q + q exp((2x - 1) / (2 sigma^2)))^alpha]`.
///
/// Removing is the worse direction at every order (Mironov, Talwar and Zhang 2019, Theorem 5).
/// `q` in (0, 1), `sigma > 0`, `alpha > 1`.
pub(super) fn sampled_gaussian(q: f64, sigma: f64, alpha: f64) -> f64 {
    let unsampled = alpha * (alpha - 1.0) / (2.0 * sigma * sigma) * (1.0 + SLACK);
    if sigma < LEAST_SIGMA {
        return unsampled;
    }
    // Raising the rate raises the divergence; below, logarithms of ratios would leave the range in
    // which the maxima are where `far_mode` looks for them.
    let q = q.max(1e-200);
    let half = 0.5 / (sigma * sigma);
    let ln_ratio = |y: f64| ln_sampled_ratio(q, y / sigma - half);
    // 1 - q + q e^t is zero at t = ln((1-q)/q) + i pi, which is pi sigma away in y.
    let step = (0.45 * sigma).min(0.5);
    let ln_term = |y: f64| -0.5 * y * y + ln_excess(ln_ratio(y), alpha);
    let index = |y: f64| (y / step) as i64;

    let mut sum = LnSum::new();
    // Adds the points from `start` on, towards one side, until they are past `enough` and
    // negligible, or at `end`; returns where it stopped.
    let mut walk = |start: i64, direction: i64, enough: f64, end: i64| {
        let mut place = start;
        while place != end {
            let y = place as f64 * step;
            let term = ln_term(y);
            sum.add(term);
            place += direction;
            // What is not a number here would not be one further out.
            let counts = term >= sum.largest - NEGLIGIBLE && term > f64::NEG_INFINITY;
            if y * direction as f64 > enough && !counts {
                break;
            }
        }
        place
    };
    let mode = far_mode(sigma, alpha, q, &ln_ratio);
    let (enough, end) = if mode > 40.0 {
        // Around the far mode first: what is negligible beside it need not be walked through.
        let start = index(mode);
        walk(start, 1, mode + 10.0, i64::MAX);
        let reached = walk(start - 1, -1, 10.0 - mode, -1);
        (10.0, reached + 1)
    } else {
        (mode + 10.0, i64::MAX)
    };
    walk(0, 1, enough, end);
    walk(-1, -1, 10.0, i64::MIN);
    // What underflows is counted as the smallest normal number.
    (moment(&sum, step, alpha) + f64::MIN_POSITIVE).min(unsampled)
}

/// `ln(1 + step / sqrt(2 pi) sum)`, rounded upwards.
fn moment(sum: &LnSum, step: f64, order: f64) -> f64 {
    /// `1 / sqrt(2 pi)`.
    const DENSITY: f64 = 0.398_942_280_401_432_7;
    // The largest term's exponent is as large as the result, and its rounding is amplified.
    let slack = SLACK + order * 4.0 * f64::EPSILON;
    let ln = sum.ln() + libm::log(step * DENSITY);
    ln_one_plus_exp(ln) * (1.0 + 8.0 * f64::EPSILON) + slack * libm::exp(ln.min(0.0))
}

/// The rightmost place where the integrand may have a local maximum.
///
/// Its derivative is zero where `y = s w / sigma`, with `w` the share of the shifted component and
/// `s` the slope of [`ln_excess`]. Iterating from the right comes to rest at the rightmost such
/// place; where it is slow, it stops early on the slope above.
fn far_mode(sigma: f64, alpha: f64, q: f64, ln_ratio: &impl Fn(f64) -> f64) -> f64 {
    let mut y = alpha.max(2.0) / sigma;
    for _ in 0..200 {
        if y < 40.0 {
            break;
        }
        let v = ln_ratio(y);
        let share = 1.0 - (1.0 - q) * libm::exp(-v);
        // d ln_excess / dv = a (1 - e^(-c v)) / (1 - a e^(-c v) + c e^(-a v))
        let c = alpha - 1.0;
        let below = 1.0 - alpha * libm::exp(-c * v) + c * libm::exp(-alpha * v);
        let slope = -alpha * libm::expm1(-c * v) / below;
        let next = slope * share / sigma;
        if !next.is_finite() || next > y - 0.1 {
            break;
        }
        y = next;
    }
    y
}

/// `(alpha - 1) D_alpha`, the larger of both directions, between `sum_i p_i N(s_i, sigma^2)` and
/// `N(0, sigma^2)`, rounded upwards. `sigma > 0`, `alpha > 1`, `s_i >= 0`.
pub(super) fn mixture(parts: &[(f64, f64)], sigma: f64, alpha: f64) -> f64 {
    let most = parts.iter().map(|part| part.1).fold(0.0, f64::max) / sigma;
    // The Gaussian with the largest shift dominates every mixture of smaller ones.
    let unsampled = alpha * (alpha - 1.0) * most * most / 2.0 * (1.0 + SLACK);
    // The real part of the ratio is positive within pi/2 over the largest shift.
    let step = 0.5_f64.min(0.22 / most);
    let reach = alpha.max(2.0) * most + 12.0;
    if most <= 0.0 || 2.0 * reach / step > MOST_POINTS {
        return unsampled;
    }
    let ln_ratio = |y: f64| {
        let exponent = |shift: f64| (y - 0.5 * shift) * shift;
        let far = parts.iter().any(|part| exponent(part.1 / sigma) > 1.0);
        if far {
            let mut sum = LnSum::new();
            for &(p, s) in parts {
                sum.add(libm::log(p) + exponent(s / sigma));
            }
            return sum.ln();
        }
        let less: f64 = parts
            .iter()
            .map(|&(p, s)| p * libm::expm1(exponent(s / sigma)))
            .sum();
        if less > -0.5 {
            return libm::log1p(less);
        }
        let sum: f64 = parts
            .iter()
            .map(|&(p, s)| p * libm::exp(exponent(s / sigma)))
            .sum();
        libm::log(sum)
    };
    let last = (reach / step) as i64;
    let direction = |order: f64| {
        let mut sum = LnSum::new();
        for index in -last..=last {
            let y = index as f64 * step;
            sum.add(-0.5 * y * y + ln_excess(ln_ratio(y), order));
        }
        moment(&sum, step, alpha)
    };
    direction(alpha).max(direction(1.0 - alpha)).min(unsampled)
}

/// `ln E_{x ~ N(0, sigma^2)}[(exp((2x - 1) / (2 sigma^2)) - 1)^order]` for an even order: the
/// moments in Theorem 27 of Wang, Balle and Kasiviswanathan (2019, arXiv:1808.00087). Rounded
/// upwards.
pub(super) fn even_moment(sigma: f64, order: u32) -> f64 {
    let order = f64::from(order);
    let half = 0.5 / (sigma * sigma);
    // Small enough for the cancellation within the power far off the real line.
    let step = 0.2;
    let mut sum = LnSum::new();
    // The power has its mode at order / sigma at the right, and near zero.
    let last = ((order / sigma + 14.0) / step) as i64;
    let first = -((order.sqrt() + 14.0) / step) as i64;
    for index in first..=last {
        let y = index as f64 * step;
        let t = y / sigma - half;
        let ln = if t > 30.0 {
            t
        } else {
            libm::log(libm::fabs(libm::expm1(t)))
        };
        sum.add(-0.5 * y * y + order * ln);
    }
    sum.ln() + libm::log(step * 0.398_942_280_401_432_7) + order * 1e-14 + SLACK
}
