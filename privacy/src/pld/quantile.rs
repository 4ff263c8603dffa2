//! A bound without any composition, for what no lattice shows.
//!
//! Each loss exceeds its own quantile at a mass `eta` with probability at most `eta`; so `n` losses
//! together exceed the sum of their quantiles with probability at most `n eta`, and
//! `delta(epsilon) <= P(S > epsilon)`. It is tight where nearly all loss is that of bounded steps and
//! `delta` is small: there the sum is nearly the largest one. Finite wherever there is noise.

use super::law::{Law, Smooth};

/// Quantiles of the summed loss by the union bound.
pub(super) struct Quantiles {
    laws: Vec<(Tail, f64)>,
    steps: f64,
}

/// The upper tail of one law's finite losses.
struct Tail {
    /// Losses in descending order, with the mass at or above them, rounded upwards.
    atoms: Vec<(f64, f64)>,
    smooth: Vec<(f64, Smooth)>,
}

impl Tail {
    fn new(law: &Law) -> Self {
        let mut atoms: Vec<(f64, f64)> = law
            .atoms
            .iter()
            .map(|atom| (atom.loss, libm::exp(atom.ln_mass)))
            .collect();
        atoms.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut sum = 0.0;
        for (_, mass) in &mut atoms {
            sum += *mass;
            *mass = sum * (1.0 + 1e-10);
        }
        Self {
            atoms,
            smooth: law.smooth.clone(),
        }
    }

    /// A loss that is exceeded with probability at most `mass`.
    fn quantile(&self, mass: f64) -> f64 {
        // Every part may exceed it with its share.
        let parts = self.smooth.len() + usize::from(!self.atoms.is_empty());
        let share = mass / parts as f64;
        let place = self.atoms.partition_point(|(_, above)| *above <= share);
        let atom = self
            .atoms
            .get(place)
            .map_or(f64::NEG_INFINITY, |(loss, _)| *loss);
        self.smooth
            .iter()
            .filter(|(weight, _)| *weight > share)
            .map(|(weight, smooth)| {
                let range = smooth.range(libm::log(share / weight).max(-700.0));
                smooth.loss(range.high) + 1e-13 * (1.0 + range.high * range.high)
            })
            .fold(atom, f64::max)
    }
}

impl Quantiles {
    pub(super) fn new(laws: &[(Law, u64)]) -> Self {
        Self {
            laws: laws
                .iter()
                .map(|(law, count)| (Tail::new(law), *count as f64))
                .collect(),
            steps: laws.iter().map(|(_, count)| *count as f64).sum(),
        }
    }

    /// How many numbers it holds, roughly.
    pub(super) fn size(&self) -> usize {
        self.laws.iter().map(|(tail, _)| 2 * tail.atoms.len()).sum()
    }

    pub(super) fn epsilon(&self, delta: f64) -> f64 {
        let mass = delta / self.steps;
        if mass < 1e-290 {
            return f64::INFINITY;
        }
        let sum: f64 = self
            .laws
            .iter()
            .map(|(tail, count)| tail.quantile(mass) * count)
            .sum();
        (sum + 1e-12 * sum.abs()).max(0.0)
    }

    /// The smallest `delta`, to a small factor, whose `epsilon` is no larger.
    pub(super) fn delta(&self, epsilon: f64) -> f64 {
        if self.epsilon(1.0) > epsilon {
            return 1.0;
        }
        let (mut low, mut high) = (-650.0, 0.0);
        while high - low > 1e-15 * (1.0 - low) {
            let middle = 0.5 * (low + high);
            if self.epsilon(libm::exp(middle)) <= epsilon {
                high = middle;
            } else {
                low = middle;
            }
        }
        libm::exp(high)
    }
}
