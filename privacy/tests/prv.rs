//! The default accountant against the privacy random variables of Gopi, Lee and Wutschitz 2021,
//! arXiv 2106.02848, with which it shares no code.
//!
//! The loss of a step is rounded to a mesh and shifted so that its mean is kept (their Algorithm 1),
//! and its law is raised to a power by one Fourier transform (Algorithm 2). As in their Theorem 5.5
//! `|epsilon - found| <= EPS`, but for a probability that is at most the sum of: what Hoeffding's
//! inequality leaves of the sum of the roundings, `2 exp(-2 EPS^2 / (T h^2))`; what of a step is cut
//! off, `T` times; and what of the sum wraps around, by Chernoff's bound. Rounding of the transform is
//! of order 1e-13, and is counted as 1e-11.

#![expect(clippy::unwrap_used, reason = "a test's helpers")]

use core::f64::consts::{FRAC_1_SQRT_2, PI};

use fl_privacy::{
    AccountantKind, Bounds, Delta, DpEvent, Epsilon, NeighboringRelation, NoiseMultiplier,
    accountant,
};

/// Error of epsilon.
const EPS: f64 = 0.01;

/// Which loss of Gaussian noise on a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    /// Of a Poisson sample with the member, against one without.
    Remove,
    /// The reverse.
    Add,
    /// Of a fixed-size sample: gains as in `Remove`, losses as in `Add`, else nothing.
    FixedSize,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    law: Law,
    rate: f64,
    sigma: f64,
}

fn normal_below(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

impl Step {
    /// The outcome, in standard deviations, where the ratio with to without the member is `e^loss`.
    fn outcome(&self, loss: f64) -> f64 {
        let rest = (loss.exp() - (1.0 - self.rate)) / self.rate;
        if rest <= 0.0 {
            f64::NEG_INFINITY
        } else {
            self.sigma * rest.ln() + 0.5 / self.sigma
        }
    }

    fn ratio(&self, x: f64) -> f64 {
        let exponent = (x - 0.5 / self.sigma) / self.sigma;
        (1.0 - self.rate + self.rate * exponent.exp()).ln()
    }

    /// The probability that the loss is at most this.
    fn at_most(&self, loss: f64) -> f64 {
        let with = |x: f64| {
            (1.0 - self.rate) * normal_below(x) + self.rate * normal_below(x - 1.0 / self.sigma)
        };
        match self.law {
            Law::Remove => with(self.outcome(loss)),
            Law::Add => normal_below(-self.outcome(-loss)),
            Law::FixedSize if loss < 0.0 => normal_below(-self.outcome(-loss)),
            Law::FixedSize => {
                // From above, so that small probabilities do not drown.
                let x = self.outcome(loss);
                let above = (1.0 - self.rate) * normal_below(-x)
                    + self.rate * normal_below(1.0 / self.sigma - x);
                1.0 - above
            }
        }
    }

    /// The expectation of a function of the loss where that is at most `most` in magnitude.
    fn mean_of(&self, most: f64, value: impl Fn(f64) -> f64) -> f64 {
        const POINTS: usize = 60_000;
        let (low, high) = (-13.0, 13.0 + 1.0 / self.sigma);
        let width = (high - low) / POINTS as f64;
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
        let half = 0.5 / self.sigma;
        let mut sum = 0.0;
        for k in 0..POINTS {
            let x = low + width * (k as f64 + 0.5);
            let ratio = self.ratio(x);
            if ratio.abs() > most {
                continue;
            }
            let (without, far) = (density(x), density(x - 1.0 / self.sigma));
            let with = (1.0 - self.rate) * without + self.rate * far;
            sum += match self.law {
                Law::Remove => with * value(ratio),
                Law::Add => without * value(-ratio),
                Law::FixedSize if x > half => with * value(ratio) + without * value(-ratio),
                Law::FixedSize => 0.0,
            };
        }
        sum *= width;
        if self.law == Law::FixedSize {
            let rest = (1.0 - self.rate) * (normal_below(half) - normal_below(-half));
            sum += rest * value(0.0);
        }
        sum
    }
}

/// The transform of complex numbers, in place; `sign` 1 is the inverse, without its factor.
fn fourier(values: &mut [(f64, f64)], sign: f64) {
    let n = values.len();
    let bits = n.trailing_zeros();
    for k in 0..n {
        let other = k.reverse_bits() >> (usize::BITS - bits);
        if k < other {
            values.swap(k, other);
        }
    }
    let roots: Vec<(f64, f64)> = (0..n / 2)
        .map(|k| {
            let (s, c) = (2.0 * PI * k as f64 / n as f64).sin_cos();
            (c, sign * s)
        })
        .collect();
    let mut half = 1;
    while half < n {
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                let (c, s) = roots[k * (n / 2 / half)];
                let turned = (b.0 * c - b.1 * s, b.0 * s + b.1 * c);
                *b = (a.0 - turned.0, a.1 - turned.1);
                *a = (a.0 + turned.0, a.1 + turned.1);
            }
        }
        half *= 2;
    }
}

/// The composed law on its mesh: losses, ascending, with probabilities, and the error of `delta`.
struct Composed {
    points: Vec<(f64, f64)>,
    error: f64,
}

impl Composed {
    fn new(step: Step, steps: u64, delta: f64) -> Self {
        let many = steps as f64;
        let error = 1e-3 * delta;
        let mesh = EPS / (0.5 * many * (6.0 / error).ln()).sqrt();
        // Wide enough for Chernoff's bound, either way.
        let mut reach = 0.0_f64;
        for sign in [1.0, -1.0] {
            // Larger exponents would need outcomes beyond those that are summed over.
            let needed = (0..20)
                .map(|k| {
                    let lambda = 6.0 * step.sigma * 0.8_f64.powi(k);
                    let moment = step.mean_of(f64::INFINITY, |loss| (sign * lambda * loss).exp());
                    (many * moment.ln() + (6.0 / error).ln()) / lambda
                })
                .fold(f64::INFINITY, f64::min);
            reach = reach.max(needed);
        }
        let points = (2.0 * (reach + 1.0) / mesh).ceil() as usize;
        let points = points.next_power_of_two();
        let half = (points / 2 - 1) as f64;
        let most = (half + 0.5) * mesh;
        let cut = many * (1.0 - (step.at_most(most) - step.at_most(-most)));
        let mut values = vec![(0.0, 0.0); points];
        let mut below = step.at_most(-most);
        let (mut sum, mut mean) = (0.0, 0.0);
        for (k, value) in values.iter_mut().enumerate().take(points - 1) {
            let place = k as f64 - half;
            let next = step.at_most((place + 0.5) * mesh);
            let mass = next - below;
            below = next;
            sum += mass;
            mean += mass * place * mesh;
            value.0 = mass;
        }
        for value in &mut values {
            value.0 /= sum;
        }
        let kept = step.mean_of(most, |_| 1.0);
        let shift = step.mean_of(most, |loss| loss) / kept - mean / sum;
        // Place 0 to the front, so that the sum's places are those of the transform.
        values.rotate_left(half as usize);
        fourier(&mut values, -1.0);
        for value in &mut values {
            let (size, turn) = (value.0.hypot(value.1), value.1.atan2(value.0));
            let size = size.powf(many);
            let (s, c) = (turn * many).sin_cos();
            *value = (size * c, size * s);
        }
        fourier(&mut values, 1.0);
        values.rotate_right(points / 2);
        let points: Vec<(f64, f64)> = values
            .iter()
            .enumerate()
            .map(|(k, value)| {
                let place = k as f64 - (points / 2) as f64;
                let loss = place * mesh + many * shift;
                (loss, value.0.max(0.0) / points as f64)
            })
            .collect();
        Self {
            points,
            error: 0.5 * error + cut.max(0.0) + 1e-11,
        }
    }

    fn delta(&self, epsilon: f64) -> f64 {
        let above = self.points.partition_point(|(loss, _)| *loss <= epsilon);
        self.points[above..]
            .iter()
            .map(|(loss, mass)| -(epsilon - loss).exp_m1() * mass)
            .sum()
    }

    /// Lower and upper bound, and the error of `delta`.
    fn epsilon(&self, delta: f64) -> (f64, f64) {
        let where_it_falls_to = |target: f64| {
            let (mut low, mut high) = (-1.0, self.points.last().unwrap().0);
            for _ in 0..60 {
                let middle = 0.5 * (low + high);
                if self.delta(middle) > target {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            0.5 * (low + high)
        };
        (
            where_it_falls_to(delta + self.error) - EPS,
            where_it_falls_to(delta - self.error) + EPS,
        )
    }
}

fn ours(event: &DpEvent, relation: NeighboringRelation, steps: u64, delta: f64) -> (f64, f64) {
    let mut accountant = accountant(AccountantKind::Pld, relation);
    accountant.compose(event, steps).unwrap();
    let Bounds::<Epsilon> { upper, lower } =
        accountant.epsilon(Delta::new(delta).unwrap()).unwrap();
    (lower.get(), upper.get())
}

fn gaussian(sigma: f64) -> DpEvent {
    DpEvent::gaussian(NoiseMultiplier::new(sigma).unwrap())
}

/// Within the bracket on both sides; a bracket that is not narrow would prove nothing.
#[test]
fn poisson_samples_are_bracketed() {
    for (sigma, rate, steps, delta) in [
        (1.0, 0.01, 1000, 1e-5),
        (0.5, 0.01, 100, 1e-5),
        (0.7, 0.001, 1000, 1e-5),
        (0.6162, 0.001, 1500, 1e-6),
        (0.6328, 0.001, 3000, 1e-6),
        (0.8639, 0.005, 2000, 1e-6),
        (1.5, 0.1, 100, 1e-5),
        (2.0, 0.1, 1000, 1e-6),
        (4.0, 0.1, 10_000, 1e-5),
        (2.0, 0.01, 10_000, 1e-6),
        (10.0, 0.1, 1000, 1e-5),
        (0.5, 0.1, 10, 1e-6),
        (1.0, 0.1, 1, 1e-5),
    ] {
        let event = DpEvent::poisson_sampled(rate, gaussian(sigma)).unwrap();
        let relation = NeighboringRelation::AddOrRemoveOne;
        let (lower, upper) = ours(&event, relation, steps, delta);
        let (mut least, mut most) = (0.0_f64, 0.0_f64);
        for law in [Law::Remove, Law::Add] {
            let composed = Composed::new(Step { law, rate, sigma }, steps, delta);
            assert!(composed.error < 0.01 * delta, "{}", composed.error);
            let (low, high) = composed.epsilon(delta);
            (least, most) = (least.max(low), most.max(high));
        }
        let name = format!(
            "sigma {sigma}, q {rate}, T {steps}, delta {delta}: {lower} {upper}, {least} {most}"
        );
        assert!(upper >= least && lower <= most, "{name}");
        assert!(most - least < 0.05 + 0.01 * most, "{name}");
        // Tight as well: never more than the bracket above.
        assert!(upper <= most && lower >= least, "{name}");
    }
}

/// The pair that dominates samples of fixed size, and the attack that bounds it from below.
#[test]
fn fixed_size_samples_are_bracketed() {
    for (sigma, population, sample, steps, delta) in [
        (1.0, 1000, 10, 1000, 1e-5),
        (2.0, 400, 80, 10, 1e-5),
        (0.5, 1000, 100, 10, 1e-6),
        (5.0, 1000, 300, 100, 1e-6),
        (2.0, 100, 90, 10, 1e-5),
    ] {
        let event =
            DpEvent::sampled_without_replacement(population, sample, gaussian(sigma)).unwrap();
        let relation = NeighboringRelation::ReplaceOne;
        let (lower, upper) = ours(&event, relation, steps, delta);
        let rate = sample as f64 / population as f64;
        let bracket = |law| Composed::new(Step { law, rate, sigma }, steps, delta).epsilon(delta);
        let (least, most) = bracket(Law::FixedSize);
        let name = format!(
            "sigma {sigma}, {sample} of {population}, T {steps}, delta {delta}: {lower} {upper}, \
             {least} {most}"
        );
        assert!(upper >= least && upper <= most, "{name}");
        let (least, most) = bracket(Law::Remove);
        assert!(lower >= least && lower <= most, "{name}: {least} {most}");
    }
}
