//! Small values that kernels take beside their slices.

/// What happens to a product's elements before they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fused {
    /// Nothing.
    None,
    /// `max(x, 0)`, and zero for NaN.
    Relu,
    /// `min(max(x, 0), 6)`, and zero for NaN.
    Relu6,
}

impl Fused {
    /// The activation that it is.
    #[must_use]
    pub fn activation(self) -> Option<Activation> {
        match self {
            Self::None => None,
            Self::Relu => Some(Activation::Relu),
            Self::Relu6 => Some(Activation::Relu6),
        }
    }
}

/// What a served product does with its sums: `last(first(sum) + residual)`, or `first(sum)`
/// where there is no residual.
#[derive(Clone, Copy, Debug)]
pub struct After<'a> {
    /// The product's own clamp.
    pub first: Fused,
    /// What is added, lying like the output.
    pub residual: Option<&'a [f32]>,
    /// The clamp after the addition; not used without one.
    pub last: Fused,
}

impl From<Fused> for After<'_> {
    fn from(first: Fused) -> Self {
        Self {
            first,
            residual: None,
            last: Fused::None,
        }
    }
}

/// Packed weights, as they are stored.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// f32.
    Single(&'a [f32]),
    /// The bits of binary16 numbers, each widened when it is used.
    Half(&'a [u16]),
    /// Codes of four bits with a scale for each group of terms.
    Four(Nibbles<'a>),
    /// Codes of eight bits with a scale for each column: convolutions with one filter per channel
    /// alone.
    Eight(Octets<'a>),
}

/// How weights are stored: [`Weights`] without the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKind {
    /// f32.
    Single,
    /// binary16.
    Half,
    /// Codes of four bits.
    Four,
    /// Codes of eight bits.
    Eight,
}

/// Filters of one channel each in eight bits. A weight is `code * scale`, which is exact in `f32`.
#[derive(Clone, Copy, Debug)]
pub struct Octets<'a> {
    /// `[terms, columns]`
    pub codes: &'a [i8],
    /// The bits of binary16 numbers, `[columns]`.
    pub scales: &'a [u16],
}

/// Weights of four bits, in groups of consecutive terms of an output.
///
/// A weight is `(code - zero) * scale`, which is exact in `f32`, or `table[code] * scale`, rounded
/// once. Products with it are those with that `f32` number.
#[derive(Clone, Copy, Debug)]
pub struct Nibbles<'a> {
    /// Two codes in a byte, as [`super::Kernels::pack_dense_four`] lays them out.
    pub codes: &'a [u8],
    /// The bits of binary16 numbers, `[groups, columns]`.
    pub scales: &'a [u16],
    /// What codes stand for.
    pub levels: Levels<'a>,
    /// Terms that share a scale; at least one.
    pub group: usize,
}

/// What codes of four bits stand for, before they are scaled.
#[derive(Clone, Copy, Debug)]
pub enum Levels<'a> {
    /// `code - 8`.
    Middle,
    /// `code - zero`, with a zero point (below 16) for each scale.
    Zeros(&'a [u8]),
    /// An entry of a table.
    Table(&'a [f32; 16]),
}

/// The sixteen numbers of NF4, ascending: quantiles of a normal distribution, scaled to `[-1, 1]`,
/// with an exact zero.
///
/// # Source
/// Dettmers et al. 2023, arXiv:2305.14314, appendix E.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

impl Weights<'_> {
    /// How they are stored.
    #[must_use]
    pub fn kind(&self) -> WeightKind {
        match self {
            Self::Single(_) => WeightKind::Single,
            Self::Half(_) => WeightKind::Half,
            Self::Four(_) => WeightKind::Four,
            Self::Eight(_) => WeightKind::Eight,
        }
    }

    /// Panics unless they are those of a product of `terms` and `columns` in `groups` equal parts of
    /// the columns, of which `len` numbers are stored where each is stored as a float.
    pub(super) fn check(&self, len: usize, terms: usize, columns: usize, groups: usize) {
        let found = match self {
            Self::Single(weight) => weight.len(),
            Self::Half(weight) => weight.len(),
            Self::Four(nibbles) => return nibbles.check(terms, columns, groups),
            Self::Eight(octets) => {
                assert!(octets.scales.len() >= columns, "the scales are too short");
                octets.codes.len()
            }
        };
        assert!(found >= len, "the weight holds {found} numbers of {len}");
    }
}

impl Nibbles<'_> {
    fn check(&self, terms: usize, columns: usize, groups: usize) {
        assert!(self.group > 0, "a group has terms");
        let bytes = groups * super::product::nibbles_len(terms, columns / groups);
        assert!(self.codes.len() >= bytes, "the codes are too short");
        let scales = terms.div_ceil(self.group) * columns;
        assert!(self.scales.len() >= scales, "the scales are too short");
        if let Levels::Zeros(zeros) = self.levels {
            assert!(zeros.len() >= scales, "the zero points are too short");
        }
    }
}

/// Whether a kernel replaces its output or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The old values are lost.
    Store,
    /// The result is added to the old values (after it is complete).
    Add,
}

/// Where a gradient of parameters goes.
#[derive(Debug)]
pub enum Gradient<'a> {
    /// Into a buffer, whose old values are lost.
    Store(&'a mut [f32]),
    /// Into a buffer: the sum goes on from the old values.
    Accumulate(&'a mut [f32]),
    /// Straight into the parameters, by a plain SGD step; the gradient is never stored.
    Step {
        /// The parameters.
        weights: &'a mut [f32],
        /// The global parameters, for the proximal term; empty when its `mu` is zero.
        anchor: &'a [f32],
        /// The step.
        step: SgdStep,
    },
}

/// One plain SGD step.
///
/// The recipe, for a gradient `g`, a weight `w` and its anchor `a` (terms whose coefficient is
/// zero are left out):
/// ```text
/// g1 = fma(weight_decay, w, g)
/// g2 = fma(proximal_mu, w - a, g1)
/// w' = fma(-rate, g2, w)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub rate: f32,
    /// L2 coefficient, at least 0.
    pub weight_decay: f32,
    /// FedProx's `mu`, at least 0.
    pub proximal_mu: f32,
}

/// Momentum of an SGD step: `v = fma(momentum, v, g2)`, then `w' = fma(-rate, v, w)` or, for
/// Nesterov, `w' = fma(-rate, fma(momentum, v, g2), w)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// In `[0, 1)`.
    pub momentum: f32,
    /// Nesterov's variant.
    pub nesterov: bool,
}

/// One step of Adam or AdamW.
///
/// The recipe (`g1`, `g2` as in [`SgdStep`]; AdamW leaves `g1 = g` and shrinks `w` first,
/// `w1 = fma(-rate * weight_decay, w, w)`):
/// ```text
/// m = fma(beta1, m, (1 - beta1) * g2)
/// s = fma(beta2, s, ((1 - beta2) * g2) * g2)
/// d = sqrt(s) * inverse_root_correction2 + epsilon
/// w' = fma(-rate / correction1, m / d, w1)
/// ```
///
/// # Source
/// Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov & Hutter 2019, arXiv:1711.05101,
/// algorithm 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate, weight decay and proximal term.
    pub step: SgdStep,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// AdamW's decoupled decay.
    pub decoupled: bool,
    /// `rate / (1 - beta1^t)`
    pub(super) corrected_rate: f32,
    /// `1 / sqrt(1 - beta2^t)`
    pub(super) inverse_root_correction2: f32,
}

impl AdamStep {
    /// The step number `t`, counted from 1.
    #[must_use]
    pub fn new(
        step: SgdStep,
        beta1: f32,
        beta2: f32,
        epsilon: f32,
        decoupled: bool,
        t: u64,
    ) -> Self {
        let correction = |beta: f32| 1.0 - libm::pow(f64::from(beta), t as f64);
        Self {
            step,
            beta1,
            beta2,
            epsilon,
            decoupled,
            corrected_rate: (f64::from(step.rate) / correction(beta1)) as f32,
            inverse_root_correction2: (1.0 / libm::sqrt(correction(beta2))) as f32,
        }
    }
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`; zero for NaN. Gradient zero at zero.
    Relu,
    /// `min(max(x, 0), 6)`; zero for NaN. Gradient zero at zero and at six (Krizhevsky 2010,
    /// "Convolutional Deep Belief Networks on CIFAR-10").
    Relu6,
    /// `x` where `x > 0`, else `slope * x`.
    Leaky {
        /// Slope for negative inputs, in `[0, 1)`.
        slope: f32,
    },
    /// `x * Phi(x)` with the exact error function (Hendrycks & Gimpel 2016, arXiv:1606.08415).
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`
    Sigmoid,
}

impl Activation {
    /// Whether the backward pass needs the activation's input; else it needs the output.
    #[must_use]
    pub fn keeps_input(&self) -> bool {
        matches!(self, Self::Gelu)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kernels;
    use super::*;

    #[test]
    fn adam_against_the_algorithm_in_f64() {
        let step = SgdStep {
            rate: 0.01,
            weight_decay: 0.1,
            proximal_mu: 0.0,
        };
        for decoupled in [false, true] {
            let (mut m, mut s, mut w) = ([0.0f32], [0.0f32], [0.7f32]);
            let (mut m64, mut s64, mut w64) = (0.0f64, 0.0f64, 0.7f64);
            for t in 1..=50u64 {
                let gradient = [libm::sin(t as f64) as f32];
                let adam = AdamStep::new(step, 0.9, 0.99, 1e-6, decoupled, t);
                Kernels::best().adam(&adam, &gradient, &[], &mut m, &mut s, &mut w);
                let (b1, b2) = (f64::from(0.9f32), f64::from(0.99f32));
                let (rate, decay) = (f64::from(0.01f32), f64::from(0.1f32));
                let mut g = f64::from(gradient[0]);
                match decoupled {
                    true => w64 -= rate * decay * w64,
                    false => g += decay * w64,
                }
                m64 = b1 * m64 + (1.0 - b1) * g;
                s64 = b2 * s64 + (1.0 - b2) * g * g;
                let hat = m64 / (1.0 - libm::pow(b1, t as f64));
                let root = libm::sqrt(s64 / (1.0 - libm::pow(b2, t as f64)));
                w64 -= rate * hat / (root + f64::from(1e-6f32));
            }
            let error = (f64::from(w[0]) - w64).abs();
            assert!(error < 2e-6, "{} for {w64}", w[0]);
        }
    }
}
