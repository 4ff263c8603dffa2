//! The law of the privacy loss `ln(P(x) / Q(x))` of one step, for `x` drawn from `P`: an exact
//! description that is not yet on any grid.

use core::f64::consts::FRAC_1_SQRT_2;

use crate::special::ln_erfc;

/// `ln(sqrt(2 pi))`.
const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_7;

/// Privacy loss of one step, in one direction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Law {
    /// Point masses.
    pub(crate) atoms: Vec<Atom>,
    /// Mass where `Q` is 0: infinite loss.
    pub(crate) infinite: f64,
    /// Parts with a density, each with its weight.
    pub(crate) smooth: Vec<(f64, Smooth)>,
}

/// A point mass of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Atom {
    /// The loss.
    pub(crate) loss: f64,
    /// Logarithm of its probability under `P`.
    pub(crate) ln_mass: f64,
}

/// A part with a density, as a function of a coordinate in which the loss does not fall.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Smooth {
    /// Mixtures of normal laws.
    Normal(NormalPair),
    /// A part of such a pair.
    Cut(CutPair),
    /// The middle part of Laplace noise.
    Laplace(LaplacePair),
}

/// A pair of normal mixtures, restricted to coordinates from `low` to `high`: the rest is elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CutPair {
    /// The pair.
    pub(crate) pair: NormalPair,
    /// Smallest coordinate; may be infinite.
    pub(crate) low: f64,
    /// Largest; may be infinite.
    pub(crate) high: f64,
}

/// `P` and `Q` are mixtures of normal laws of variance 1 with these weights and means, where every
/// mean of `upper` is at least every mean of `lower`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NormalPair {
    /// The mixture with the larger means: logarithms of the weights, and means.
    pub(crate) upper: Vec<(f64, f64)>,
    /// The other.
    pub(crate) lower: Vec<(f64, f64)>,
    /// Whether `P` is `lower`; the coordinate is then turned round.
    pub(crate) swapped: bool,
}

/// Laplace noise of scale `1 / width` on a value that changes by 1, restricted to between the two
/// values; `P` may be a sample. The coordinate is the loss without sampling, from `-width` to
/// `width`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LaplacePair {
    /// Largest loss without sampling.
    pub(crate) width: f64,
    /// Sampling rate.
    pub(crate) rate: f64,
    /// Whether `P` is the side without the member.
    pub(crate) swapped: bool,
}

/// `ln(exp(a) + exp(b))`.
pub(crate) fn ln_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY {
        high
    } else {
        high + libm::log1p(libm::exp(low - high))
    }
}

/// The loss of a sampled mechanism where that of the mechanism is `loss`:
/// `ln(1 - rate + rate exp(loss))`.
pub(crate) fn sampled_loss(rate: f64, loss: f64) -> f64 {
    if loss < 30.0 {
        libm::log1p(rate * libm::expm1(loss))
    } else {
        // `1 - rate` beside `rate exp(loss)`.
        loss + libm::log(rate) + libm::log1p((1.0 - rate) / rate * libm::exp(-loss))
    }
}

fn ln_mixture(mixture: &[(f64, f64)], x: f64) -> f64 {
    // Relative to the standard normal density at x: ln sum w exp(m x - m^2 / 2).
    match mixture {
        [(weight, mean)] => weight + mean * (x - 0.5 * mean),
        [(w0, m0), (w1, m1)] => ln_add(w0 + m0 * (x - 0.5 * m0), w1 + m1 * (x - 0.5 * m1)),
        _ => mixture.iter().fold(f64::NEG_INFINITY, |sum, (w, m)| {
            ln_add(sum, w + m * (x - 0.5 * m))
        }),
    }
}

/// Posterior mean of the component's mean.
fn posterior(mixture: &[(f64, f64)], x: f64) -> f64 {
    if let [(_, mean)] = mixture {
        return *mean;
    }
    let all = ln_mixture(mixture, x);
    mixture
        .iter()
        .map(|(w, m)| m * libm::exp(w + m * (x - 0.5 * m) - all))
        .sum()
}

/// Logarithm of the magnitude and argument of a mixture at `x + i y`, where `y` times the spread of
/// its means is below pi.
fn continued(mixture: &[(f64, f64)], x: f64, y: f64) -> (f64, f64) {
    if let [(w, m)] = mixture {
        return (w + m * (x - 0.5 * m), m * y);
    }
    let exponent = |(w, m): &(f64, f64)| w + m * (x - 0.5 * m);
    let (mut top, mut base, mut largest) = (f64::NEG_INFINITY, 0.0, 0);
    for (k, part) in mixture.iter().enumerate() {
        let value = exponent(part);
        if value > top {
            (top, base, largest) = (value, part.1, k);
        }
    }
    // The sum relative to its largest term, less 1: so that the logarithm of a sum near 1 keeps its
    // relative precision.
    let (mut re, mut im) = (0.0, 0.0);
    for (k, part) in mixture.iter().enumerate() {
        if k == largest {
            continue;
        }
        let size = libm::exp(exponent(part) - top);
        // All arguments lie within less than pi, so that this is on the right branch.
        let (s, c) = libm::sincos((part.1 - base) * y);
        re += size * c;
        im += size * s;
    }
    let size = if re.abs() + im.abs() < 0.5 {
        0.5 * libm::log1p(re * (2.0 + re) + im * im)
    } else {
        libm::log(libm::hypot(1.0 + re, im))
    };
    (top + size, base * y + libm::atan2(im, 1.0 + re))
}

/// How much larger than a unit in the last place the error of [`continued`] may be: the terms of
/// each exponent, by the share of its component, beside the result itself.
fn rounding(mixture: &[(f64, f64)], x: f64, y: f64) -> f64 {
    let (size, turn) = continued(mixture, x, y);
    let terms: f64 = mixture
        .iter()
        .map(|(w, m)| {
            let share = libm::exp(w + m * (x - 0.5 * m) - size);
            share
                * (w.abs()
                    + m.abs() * (x.abs() + m.abs() + y.abs())
                    + if *m == 0.0 { 0.0 } else { 1.0 })
        })
        .sum();
    terms + size.abs() + turn.abs()
}

/// See [`NormalPair::extent`].
pub(crate) struct Extent {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) slope: f64,
    pub(crate) spread: f64,
    pub(crate) falling: bool,
}

impl Law {
    /// Smallest and largest loss; infinite where there is none.
    pub(crate) fn ends(&self) -> (f64, f64) {
        let atoms = self.atoms.iter().map(|atom| (atom.loss, atom.loss));
        let smooth = self.smooth.iter().map(|(_, smooth)| match smooth {
            // Where the member was not sampled, its absence shows by no more than this.
            Smooth::Normal(pair) => match (&pair.upper[..], &pair.lower[..]) {
                ([(weight, mean), ..], [(_, other)]) if *mean <= 0.0 && *other >= 0.0 => {
                    if pair.swapped {
                        (f64::NEG_INFINITY, -weight)
                    } else {
                        (*weight, f64::INFINITY)
                    }
                }
                _ => (f64::NEG_INFINITY, f64::INFINITY),
            },
            Smooth::Cut(cut) => (
                if cut.low > f64::NEG_INFINITY {
                    smooth.loss(cut.low)
                } else {
                    f64::NEG_INFINITY
                },
                if cut.high < f64::INFINITY {
                    smooth.loss(cut.high)
                } else {
                    f64::INFINITY
                },
            ),
            Smooth::Laplace(pair) => (smooth.loss(-pair.width), smooth.loss(pair.width)),
        });
        let (low, high) = atoms
            .chain(smooth)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |sum, end| {
                (sum.0.min(end.0), sum.1.max(end.1))
            });
        if self.infinite > 0.0 {
            (low, f64::INFINITY)
        } else {
            (low, high)
        }
    }

    /// Largest loss; infinite where there is none.
    pub(crate) fn most(&self) -> f64 {
        self.ends().1
    }
}

impl NormalPair {
    fn p(&self) -> &[(f64, f64)] {
        if self.swapped {
            &self.lower
        } else {
            &self.upper
        }
    }

    /// Slope of the loss at a coordinate: the difference of the posterior means.
    pub(crate) fn slope(&self, x: f64) -> f64 {
        let point = self.sign() * x;
        posterior(&self.upper, point) - posterior(&self.lower, point)
    }

    /// Largest and smallest centre of `P` as coordinates, and the largest slope of the loss.
    pub(crate) fn extent(&self) -> Extent {
        let sign = self.sign();
        let means = |mixture: &[(f64, f64)]| {
            mixture
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, m)| {
                    (low.min(*m), high.max(*m))
                })
        };
        let (upper, lower) = (means(&self.upper), means(&self.lower));
        let p = if self.swapped { lower } else { upper };
        Extent {
            low: (sign * p.0).min(sign * p.1),
            high: (sign * p.0).max(sign * p.1),
            slope: upper.1 - lower.0,
            spread: (upper.1 - upper.0).max(lower.1 - lower.0),
            // With `Q` a single law the slope is the posterior mean of `P`, which rises; turned
            // round it falls.
            falling: self.swapped && self.lower.len() == 1,
        }
    }

    /// The loss and the logarithm of the density of `P`, continued to `x + i y`: real and imaginary
    /// part of each. For `y` from 0 on, the loss has an imaginary part of at least 0: the terms of
    /// `upper` turn at least as far as those of `lower`.
    pub(crate) fn continued(&self, x: f64, y: f64) -> [(f64, f64); 2] {
        let sign = self.sign();
        let (upper, upper_turn) = continued(&self.upper, sign * x, sign * y);
        let (lower, lower_turn) = continued(&self.lower, sign * x, sign * y);
        let normal = 0.5 * (y * y - x * x) - LN_SQRT_2PI;
        if self.swapped {
            [
                (lower - upper, lower_turn - upper_turn),
                (lower + normal, lower_turn - x * y),
            ]
        } else {
            [
                (upper - lower, upper_turn - lower_turn),
                (upper + normal, upper_turn - x * y),
            ]
        }
    }

    /// Bound, up to a small factor, of the error of the continued loss in units of the last place.
    pub(crate) fn rounding(&self, x: f64, y: f64) -> f64 {
        let sign = self.sign();
        rounding(&self.upper, sign * x, sign * y) + rounding(&self.lower, sign * x, sign * y)
    }

    /// The coordinate of the centre where `P` and `Q` are single normal laws.
    fn single(&self) -> Option<f64> {
        match (self.p(), self.upper.len() + self.lower.len()) {
            ([(_, mean)], 2) => Some(self.sign() * mean),
            _ => None,
        }
    }

    fn sign(&self) -> f64 {
        if self.swapped { -1.0 } else { 1.0 }
    }

    /// Logarithm of the probability under `P` of coordinates above `at` (below, for `above` false).
    pub(super) fn ln_tail(&self, at: f64, above: bool) -> f64 {
        let sign = self.sign();
        self.p()
            .iter()
            .fold(f64::NEG_INFINITY, |sum, (weight, mean)| {
                let distance = if above {
                    at - sign * mean
                } else {
                    sign * mean - at
                };
                ln_add(
                    sum,
                    weight + ln_erfc(distance * FRAC_1_SQRT_2) - core::f64::consts::LN_2,
                )
            })
    }
}

/// Where `ln((a + b z) / (a + b / z))`, with `a` and `b` given by their logarithms and
/// `z = exp(mean x)`, reaches the target (minus the target where `swapped`): `x`.
///
/// With `l >= 0` it is `b z^2 - a (exp(l) - 1) z - b exp(l) = 0`, whose positive root is a sum of
/// positive terms; the loss is an odd function of `x`.
fn mirrored(ln_a: f64, ln_b: f64, mean: f64, target: f64, swapped: bool) -> f64 {
    let loss = target.abs();
    // Relative to `exp(l)`: the half of the linear term over `b`, and the constant one.
    let half = libm::exp(ln_a - ln_b) * 0.5 * -libm::expm1(-loss);
    let root = if half < 1e150 {
        let rest = libm::sqrt(half * half + libm::exp(-loss));
        loss + libm::log(half + rest)
    } else {
        // The constant term is nothing beside it.
        loss + ln_a - ln_b + libm::log(-libm::expm1(-loss))
    };
    let x = root / mean;
    if (target < 0.0) == swapped { x } else { -x }
}

impl Smooth {
    /// The loss at a coordinate.
    pub(crate) fn loss(&self, x: f64) -> f64 {
        self.both(x).0
    }

    /// The loss and the logarithm of the density of `P` at a coordinate.
    pub(crate) fn both(&self, x: f64) -> (f64, f64) {
        match self {
            Self::Normal(pair) | Self::Cut(CutPair { pair, .. }) => {
                let point = pair.sign() * x;
                let normal = -0.5 * x * x - LN_SQRT_2PI;
                let upper = ln_mixture(&pair.upper, point);
                let lower = ln_mixture(&pair.lower, point);
                if pair.swapped {
                    (lower - upper, lower + normal)
                } else {
                    (upper - lower, upper + normal)
                }
            }
            Self::Laplace(pair) => {
                // Density of the loss without sampling, under the side without the member.
                let base = |loss: f64| -0.5 * (pair.width + loss) - 2.0 * core::f64::consts::LN_2;
                if pair.swapped {
                    (-sampled_loss(pair.rate, -x), base(-x))
                } else {
                    let loss = sampled_loss(pair.rate, x);
                    (loss, base(x) + loss)
                }
            }
        }
    }

    /// An interval of coordinates that holds all but `exp(ln_tail)` of `P` on each side, with the
    /// logarithms of what is below and above it.
    pub(crate) fn range(&self, ln_tail: f64) -> Range {
        match self {
            Self::Normal(pair) => {
                let sign = pair.sign();
                let means = || pair.p().iter().map(|(_, mean)| sign * mean);
                let reach = libm::sqrt(-2.0 * ln_tail.min(-1.0)) + 1.0;
                let low = means().fold(f64::INFINITY, f64::min) - reach;
                let high = means().fold(f64::NEG_INFINITY, f64::max) + reach;
                Range {
                    low,
                    high,
                    ln_below: pair.ln_tail(low, false),
                    ln_above: pair.ln_tail(high, true),
                }
            }
            Self::Cut(cut) => {
                let whole = Self::Normal(cut.pair.clone()).range(ln_tail);
                // Of a side that is cut off, nothing is left beyond.
                let low = whole.low.max(cut.low).min(cut.high);
                let high = whole.high.min(cut.high).max(low);
                Range {
                    low,
                    high,
                    ln_below: if low > cut.low {
                        cut.pair.ln_tail(low, false)
                    } else {
                        f64::NEG_INFINITY
                    },
                    ln_above: if high < cut.high {
                        cut.pair.ln_tail(high, true)
                    } else {
                        f64::NEG_INFINITY
                    },
                }
            }
            Self::Laplace(pair) => Range {
                low: -pair.width,
                high: pair.width,
                ln_below: f64::NEG_INFINITY,
                ln_above: f64::NEG_INFINITY,
            },
        }
    }

    /// Length of a panel from `x` outwards that eight Gauss-Legendre nodes integrate to rounding,
    /// and the largest relative slope of the density there.
    pub(crate) fn panel(&self, x: f64) -> (f64, f64) {
        match self {
            Self::Normal(pair) | Self::Cut(CutPair { pair, .. }) => {
                let spread = |mixture: &[(f64, f64)]| {
                    let means = || mixture.iter().map(|(_, mean)| *mean);
                    means().fold(f64::NEG_INFINITY, f64::max)
                        - means().fold(f64::INFINITY, f64::min)
                };
                // With less than pi over the spread between imaginary part and axis all terms of a
                // mixture lie in one half-plane, so that their sum has no zero.
                let spread = spread(&pair.upper).max(spread(&pair.lower));
                // A single component is as smooth far out as it is seen from its own centre.
                let slope = match pair.single() {
                    Some(mean) => 1.0 + (x - mean).abs(),
                    None => 1.0 + x.abs() + spread,
                };
                ((1.0 / (1.0 + spread)).min(3.0 / slope), slope)
            }
            Self::Laplace(_) => (0.75, 2.0),
        }
    }

    /// The coordinate in `[low, high]` where the loss reaches `target`.
    pub(crate) fn inverse(&self, target: f64, low: f64, high: f64) -> f64 {
        let guess = match self {
            Self::Normal(pair) | Self::Cut(CutPair { pair, .. }) => {
                match (&pair.upper[..], &pair.lower[..]) {
                    ([(w0, m0), (w1, m1)], [(_, m)]) if *m0 == 0.0 && *m == 0.0 => {
                        // One mean at 0 and one above: closed.
                        let loss = if pair.swapped { -target } else { target };
                        // `ln(exp(loss) - exp(w0))`, minus infinity where there is none.
                        let rest = if loss > *w0 {
                            loss + libm::log(-libm::expm1(w0 - loss))
                        } else {
                            f64::NEG_INFINITY
                        };
                        Some(pair.sign() * ((rest - w1) / m1 + 0.5 * m1))
                    }
                    ([(w0, m0), (w1, m1)], [(v0, n0), (v1, n1)])
                        if *m0 == 0.0
                            && *n0 == 0.0
                            && w0.to_bits() == v0.to_bits()
                            && w1.to_bits() == v1.to_bits()
                            && n1.to_bits() == (-m1).to_bits() =>
                    {
                        Some(
                            pair.sign()
                                * mirrored(*w0, w1 - 0.5 * m1 * m1, *m1, target, pair.swapped),
                        )
                    }
                    ([(w, m1)], [(v, m0)]) => {
                        let loss = if pair.swapped { -target } else { target };
                        Some(pair.sign() * ((loss - w + v) / (m1 - m0) + 0.5 * (m1 + m0)))
                    }
                    _ => None,
                }
            }
            Self::Laplace(pair) => {
                let inner = |loss: f64| {
                    // Inverse of `sampled_loss`.
                    let reached = libm::expm1(loss) / pair.rate;
                    if loss > 30.0 {
                        loss - libm::log(pair.rate)
                    } else if reached > -1.0 {
                        libm::log1p(reached)
                    } else {
                        f64::NEG_INFINITY
                    }
                };
                Some(if pair.swapped {
                    -inner(-target)
                } else {
                    inner(target)
                })
            }
        };
        if let Some(x) = guess {
            return if x.is_nan() { low } else { x.clamp(low, high) };
        }
        // Newton's method, with halving where it leaves the bracket or hardly helps.
        let (Self::Normal(pair) | Self::Cut(CutPair { pair, .. })) = self else {
            return low;
        };
        let (mut low, mut high) = (low, high);
        let mut x = 0.5 * (low + high);
        for turn in 0..200 {
            let miss = self.loss(x) - target;
            if miss < 0.0 {
                low = x;
            } else {
                high = x;
            }
            let newton = x - miss / pair.slope(x);
            let next = if newton > low && newton < high && turn % 4 != 3 {
                newton
            } else {
                0.5 * (low + high)
            };
            if (next - x).abs() <= 2.0 * f64::EPSILON * (1.0 + next.abs()) {
                return next;
            }
            x = next;
        }
        x
    }
}

/// See [`Smooth::range`].
pub(crate) struct Range {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) ln_below: f64,
    pub(crate) ln_above: f64,
}
