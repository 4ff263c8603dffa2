//! The transform of one step's law by nodes: for normal mixtures on a line above the axis (which
//! line, which spacing, and from which frequency on there is nothing left), for Laplace noise in
//! panels or, unsampled, in closed form, for point masses themselves. The bounds: head of [`super::contour`].

use core::f64::consts::PI;

use super::lattice::Rules;
use super::law::{Atom, LaplacePair, Law, NormalPair, Smooth, ln_add};

/// Logarithm of a neglected part, relative to what is kept.
pub(super) const LN_NEGLECT: f64 = -37.0;
/// The same for frequencies beyond the last, where it is not multiplied by the number of steps.
pub(super) const LN_BEYOND: f64 = -25.0;
/// Distance from a centre, in standard deviations, beyond which nothing is left.
const REACH: f64 = 9.5;
/// Phases are computed anew after so many turns.
pub(super) const FRESH: usize = 64;
/// Rounding of a phase from turning it so often, in units of the last place.
const TURNED: f64 = 2.0 * FRESH as f64 + 4.0;
/// A node with less, relative to all, is left out.
const LEAST: f64 = 1e-24;

/// Distances from the axis that are tried, as shares of the largest.
const SHARES: [f64; 12] = [
    1.0, 0.75, 0.5, 0.35, 0.22, 0.14, 0.08, 0.04, 0.02, 0.01, 0.005, 0.002,
];

/// One law's parts under the tilt.
pub(super) struct Profile<'a> {
    normals: Vec<Normal<'a>>,
    atoms: &'a [Atom],
    /// With the logarithms of their weights.
    laplaces: Vec<(f64, LaplacePair)>,
    many: f64,
    theta: f64,
    /// Logarithm of the tilted mass.
    ln_mass: f64,
    /// The share of it that does not die down.
    flat: f64,
}

/// A normal mixture's tilted density on a coarse grid.
struct Normal<'a> {
    pair: &'a NormalPair,
    /// Logarithm of its weight in the law.
    ln_weight: f64,
    theta: f64,
    low: f64,
    high: f64,
    spacing: f64,
    /// Tilted density, not normalised, relative to `exp(top)`.
    density: Vec<f64>,
    slope: Vec<f64>,
    top: f64,
    mass: f64,
}

impl<'a> Profile<'a> {
    pub(super) fn new(law: &'a Law, many: f64, theta: f64) -> Option<Self> {
        let mut normals = Vec::new();
        let mut laplaces = Vec::new();
        let (mut dying, mut flat) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for atom in &law.atoms {
            flat = ln_add(flat, atom.ln_mass + theta * atom.loss);
        }
        for (weight, smooth) in &law.smooth {
            let ln_weight = libm::log(*weight);
            match smooth {
                Smooth::Normal(pair) => {
                    let normal = Normal::new(pair, ln_weight, theta)?;
                    dying = ln_add(dying, normal.ln_mass());
                    normals.push(normal);
                }
                // The corners where it is cut die down too slowly.
                Smooth::Cut(_) => return None,
                Smooth::Laplace(pair) => {
                    // Roughly: it only says which laws die down.
                    let most = smooth.both(pair.width).1 + theta * smooth.loss(pair.width);
                    flat = ln_add(flat, ln_weight + most + libm::log(2.0 * pair.width));
                    laplaces.push((ln_weight, *pair));
                }
            }
        }
        let ln_mass = ln_add(dying, flat);
        Some(Self {
            normals,
            atoms: &law.atoms,
            laplaces,
            many,
            theta,
            ln_mass,
            flat: libm::exp(flat - ln_mass),
        })
    }

    /// The frequency from which on the law's transform, to its power, is below
    /// `exp(LN_BEYOND - extra)`: where each part is below its share of the root of that.
    pub(super) fn last_frequency(&self, extra: f64) -> f64 {
        let target = libm::exp((LN_BEYOND - extra) / self.many) - 1.01 * self.flat;
        if target <= 0.0 || self.normals.is_empty() {
            return f64::INFINITY;
        }
        let each = target / self.normals.len() as f64;
        self.normals
            .iter()
            .map(|normal| {
                let target = each / libm::exp(normal.ln_mass() - self.ln_mass);
                if target < 1.0 {
                    normal.last_frequency(target)
                } else {
                    0.0
                }
            })
            .fold(0.0, f64::max)
    }
}

impl<'a> Normal<'a> {
    fn new(pair: &'a NormalPair, ln_weight: f64, theta: f64) -> Option<Self> {
        let extent = pair.extent();
        let low = extent.low - REACH;
        let mut high = extent.high + REACH;
        let steepest = if extent.falling {
            pair.slope(high)
        } else {
            extent.slope
        };
        high += theta * steepest;
        let spacing = 0.12 / (1.0 + 0.5 * extent.spread);
        let count = libm::ceil((high - low) / spacing);
        if count.is_nan() || count >= 20_000.0 {
            return None;
        }
        let smooth = Smooth::Normal(pair.clone());
        let mut exponents = Vec::with_capacity(count as usize + 1);
        let mut slope = Vec::with_capacity(count as usize + 1);
        for k in 0..=count as usize {
            let x = low + spacing * k as f64;
            let (loss, ln_density) = smooth.both(x);
            exponents.push(ln_density + theta * loss);
            slope.push(pair.slope(x));
        }
        let top = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let density: Vec<f64> = exponents.iter().map(|e| libm::exp(e - top)).collect();
        let mass = density.iter().sum::<f64>() * spacing;
        Some(Self {
            pair,
            ln_weight,
            theta,
            low,
            high,
            spacing,
            density,
            slope,
            top,
            mass,
        })
    }

    /// Logarithm of its tilted mass.
    fn ln_mass(&self) -> f64 {
        self.ln_weight + self.top + libm::log(self.mass)
    }

    /// The frequency from which on the mixture's transform is below `target`, relative to its mass.
    fn last_frequency(&self, target: f64) -> f64 {
        let most = self.slope.iter().copied().fold(0.0, f64::max);
        let mut best = f64::INFINITY;
        for k in 1..40 {
            let threshold = most * libm::exp(-0.35 * f64::from(k));
            let (mut slow, mut variation, mut before) = (0.0, 0.0, 0.0);
            for (density, slope) in self.density.iter().zip(&self.slope) {
                let value = if *slope >= threshold {
                    density / slope
                } else {
                    slow += density;
                    0.0
                };
                variation += (value - before).abs();
                before = value;
            }
            variation += before;
            // The grid resolves the density to many digits; the factor is for its corners.
            let slow = (slow * self.spacing + 2.0 * self.spacing * 1e-3) / self.mass * 1.01;
            if slow < target {
                best = best.min(1.3 * variation / self.mass / (target - slow));
            }
        }
        for share in SHARES {
            best = self.last_by_shift(self.widest() * share, target, best);
        }
        best
    }

    /// Largest distance from the axis at which a mixture surely has no zero.
    fn widest(&self) -> f64 {
        let spread = self.pair.extent().spread;
        if spread > 0.0 {
            (0.97 * PI / spread).min(8.0)
        } else {
            8.0
        }
    }

    /// The least of `best` and the frequency from which on the transform, along the line at this
    /// distance from the axis, is below `target`.
    ///
    /// There its magnitude is at most the integral of the density's times `exp(-frequency turn)`,
    /// which falls with the frequency as no turn is below 0.
    fn last_by_shift(&self, distance: f64, target: f64, best: f64) -> f64 {
        let (sizes, turns): (Vec<f64>, Vec<f64>) = (0..self.density.len())
            .map(|k| {
                let x = self.low + self.spacing * k as f64;
                let [(loss, turn), (ln_density, _)] = self.pair.continued(x, distance);
                (
                    libm::exp(ln_density + self.theta * loss - self.top),
                    turn.max(0.0),
                )
            })
            .unzip();
        // The sum is the trapezoidal rule for an analytic function, to many digits.
        let scale = self.spacing / self.mass * (1.0 + 1e-6);
        let holds = |frequency: f64| {
            let sum: f64 = sizes
                .iter()
                .zip(&turns)
                .map(|(size, turn)| size * libm::exp(-frequency * turn))
                .sum();
            sum * scale < target
        };
        let (mut low, mut high) = (1e-3, best.min(1e9));
        if !holds(high) {
            return best;
        }
        while high > 1.1 * low {
            let middle = libm::sqrt(low * high);
            if holds(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }

    /// Spacing of nodes, and the distance of their line from the axis, at which the trapezoidal rule
    /// neglects `exp(LN_NEGLECT)` of the mass for frequencies up to `frequency`.
    fn nodes(&self, frequency: f64) -> (f64, f64) {
        let mut best = (0.0_f64, 0.0);
        for share in SHARES {
            let distance = self.widest() * share;
            let (mut sizes, mut grown) = (Vec::new(), Vec::new());
            // Every second point of the grid is enough for a magnitude.
            for k in (0..self.density.len()).step_by(2) {
                let x = self.low + self.spacing * k as f64;
                let [(loss, turn), (ln_density, _)] = self.pair.continued(x, distance);
                let exponent = ln_density + self.theta * loss;
                sizes.push(exponent);
                grown.push(exponent + frequency * turn.abs());
            }
            let ln_magnitude = |exponents: &[f64]| {
                let top = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = exponents.iter().map(|e| libm::exp(e - top)).sum();
                let least = top - self.top + libm::log(8.0 * sum * self.spacing / self.mass);
                least.max(0.0) + 1.0 - LN_NEGLECT
            };
            // Nodes on the axis, with a strip on either side of it.
            let spacing = 2.0 * PI * distance / ln_magnitude(&grown);
            if spacing > best.0 {
                best = (spacing, 0.0);
            }
            // Nodes in the middle of a strip above the axis, where no frequency makes it grow.
            let spacing = PI * distance / ln_magnitude(&sizes);
            if spacing > best.0 {
                best = (spacing, 0.5 * distance);
            }
        }
        best
    }
}

/// Nodes of one law: normalised complex weights and losses.
pub(super) struct Nodes {
    pub(super) many: f64,
    pub(super) count: u64,
    theta: f64,
    pub(super) weights: Vec<(f64, f64)>,
    losses: Vec<(f64, f64)>,
    /// Magnitude of a weight, and what rounding the loss and the density have, in units of the last
    /// place.
    sizes: Vec<[f64; 3]>,
    /// Laplace parts in closed form: [`closed`]'s exponent, and their widths.
    closed: Vec<(f64, f64)>,
    /// `ln E exp(theta L)`.
    pub(super) cumulant: f64,
    pub(super) magnitude: f64,
}

/// `width exp(exponent) (exp(z) - exp(-z)) / z` with `z = (s + 1/2) width`, `s = theta + i t`: the
/// transform of unsampled Laplace noise between its two point masses, for the exponent
/// `-width / 2 - ln 4` and the logarithm of its weight.
fn closed(exponent: f64, width: f64, theta: f64, t: f64) -> (f64, f64) {
    let (a, b) = ((theta + 0.5) * width, t * width);
    let (sine, cosine) = libm::sincos(b);
    // 1 - exp(-2 z), without cancellation as `a` is above 0.
    let fall = libm::exp(-2.0 * a);
    let rest = (
        -libm::expm1(-2.0 * a) + fall * 2.0 * sine * sine,
        fall * 2.0 * sine * cosine,
    );
    let scale = width * libm::exp(exponent + a) / (a * a + b * b);
    // exp(i b) (1 - exp(-2 z)) conj(z)
    let (x, y) = (
        cosine * rest.0 - sine * rest.1,
        cosine * rest.1 + sine * rest.0,
    );
    (scale * (x * a + y * b), scale * (y * a - x * b))
}

impl Nodes {
    /// Exact to rounding for frequencies up to `frequency`; `None` where that takes more than `most`
    /// nodes.
    pub(super) fn new(
        profile: &Profile<'_>,
        count: u64,
        frequency: f64,
        rules: &Rules,
        most: f64,
    ) -> Option<Self> {
        let mut nodes = Self {
            many: profile.many,
            count,
            theta: profile.theta,
            weights: Vec::new(),
            losses: Vec::new(),
            sizes: Vec::new(),
            closed: Vec::new(),
            cumulant: 0.0,
            magnitude: 1.0,
        };
        for normal in &profile.normals {
            nodes.add_normal(normal, frequency, profile.ln_mass, most)?;
        }
        for (ln_weight, pair) in &profile.laplaces {
            if pair.rate >= 1.0 && !pair.swapped {
                let exponent =
                    ln_weight - profile.ln_mass - 0.5 * pair.width - 2.0 * core::f64::consts::LN_2;
                nodes.closed.push((exponent, pair.width));
                nodes.magnitude = nodes.magnitude.max(pair.width);
                continue;
            }
            nodes.add_laplace(pair, *ln_weight - profile.ln_mass, frequency, rules, most)?;
        }
        if profile.atoms.len() as f64 > most {
            return None;
        }
        for atom in profile.atoms {
            let exponent = atom.ln_mass - profile.ln_mass;
            nodes.add_real(atom.loss, exponent, 1.0, 4.0 + atom.ln_mass.abs());
        }
        // The sum is real but for rounding.
        let theta = nodes.theta;
        let sum = nodes.weights.iter().map(|(re, _)| re).sum::<f64>()
            + nodes
                .closed
                .iter()
                .map(|(exponent, width)| closed(*exponent, *width, theta, 0.0).0)
                .sum::<f64>();
        if sum.is_nan() || sum <= 0.0 {
            return None;
        }
        for (weight, size) in nodes.weights.iter_mut().zip(&mut nodes.sizes) {
            *weight = (weight.0 / sum, weight.1 / sum);
            size[0] /= sum;
        }
        for (exponent, _) in &mut nodes.closed {
            *exponent -= libm::log(sum);
        }
        nodes.cumulant = profile.ln_mass + libm::log(sum);
        Some(nodes)
    }

    fn add_normal(
        &mut self,
        normal: &Normal<'_>,
        frequency: f64,
        ln_mass: f64,
        most: f64,
    ) -> Option<()> {
        let (spacing, distance) = normal.nodes(frequency);
        let theta = normal.theta;
        let points = libm::ceil((normal.high - normal.low) / spacing);
        if points.is_nan() || points >= most {
            return None;
        }
        let points = points as usize + 1;
        let terms = normal
            .pair
            .upper
            .iter()
            .chain(&normal.pair.lower)
            .fold(1.0_f64, |most, (weight, mean)| {
                most.max(weight.abs() + mean * mean)
            });
        let least = LEAST * libm::exp(normal.ln_mass() - ln_mass);
        let shift = normal.ln_weight + libm::log(spacing) - ln_mass;
        for k in 0..points {
            let x = normal.low + spacing * k as f64;
            let [loss, density] = normal.pair.continued(x, distance);
            let size = libm::exp(density.0 + theta * loss.0 + shift);
            // What is below the others' rounding is left out.
            if size > least {
                let (s, c) = libm::sincos(density.1 + theta * loss.1);
                self.weights.push((size * c, size * s));
                self.losses.push((loss.0, loss.1.max(0.0)));
                let loss_rounding = normal.pair.rounding(x, distance);
                self.sizes
                    .push([size, loss_rounding, terms + x * x + loss.0.abs()]);
                self.magnitude = self.magnitude.max(x * x).max(loss.0.abs());
            }
        }
        Some(())
    }

    /// Panels in which the loss turns, and the density grows, by no more than eight Gauss-Legendre
    /// nodes integrate to rounding.
    fn add_laplace(
        &mut self,
        pair: &LaplacePair,
        shift: f64,
        frequency: f64,
        rules: &Rules,
        most: f64,
    ) -> Option<()> {
        let panels = libm::ceil(2.0 * pair.width * (2.0 + self.theta + frequency) / 2.0).max(1.0);
        if panels.is_nan() || 8.0 * panels >= most {
            return None;
        }
        let smooth = Smooth::Laplace(*pair);
        let length = 2.0 * pair.width / panels;
        for k in 0..panels as usize {
            let low = -pair.width + length * k as f64;
            rules.eight(low, low + length, |x, weight| {
                let (loss, ln_density) = smooth.both(x);
                self.add_real(loss, ln_density + shift, weight, 4.0 + pair.width);
            });
        }
        Some(())
    }

    /// A real node: its loss, the logarithm of its mass less that of all, a factor, and the rounding
    /// of the logarithm.
    fn add_real(&mut self, loss: f64, exponent: f64, factor: f64, rounding: f64) {
        let size = factor * libm::exp(exponent + self.theta * loss);
        if size > LEAST * 1e-6 {
            self.weights.push((size, 0.0));
            self.losses.push((loss, 0.0));
            let magnitude = loss.abs();
            self.sizes
                .push([size, 4.0 * magnitude, rounding + self.theta * magnitude]);
            self.magnitude = self.magnitude.max(magnitude);
        }
    }

    /// Calls `visit(j, re, im, error)` with the transform at `j step` for `j` up to `last`, and a
    /// bound of the magnitude of its error.
    pub(super) fn transform(
        &self,
        step: f64,
        last: usize,
        mut visit: impl FnMut(usize, f64, f64, f64),
    ) {
        let points = self.weights.len();
        let padded = points.next_multiple_of(4);
        let mut phases = [vec![0.0; padded], vec![0.0; padded]];
        let mut turns = [vec![1.0; padded], vec![0.0; padded]];
        for (k, (loss, turn)) in self.losses.iter().enumerate() {
            let (s, c) = libm::sincos(step * loss);
            let fall = libm::exp(-step * turn);
            turns[0][k] = fall * c;
            turns[1][k] = fall * s;
        }
        let [turn_re, turn_im] = &turns;
        let [re, im] = &mut phases;
        // Those that have not died down.
        let mut alive = 0..padded;
        let mut error = 0.0;
        for j in 0..=last {
            if j.is_multiple_of(FRESH) {
                let t = j as f64 * step;
                let (mut first, mut end) = (points, 0);
                error = 0.0;
                let until = (t + FRESH as f64 * step) + self.theta + 2.0;
                for (k, (weight, (loss, turn))) in self.weights.iter().zip(&self.losses).enumerate()
                {
                    let [size, loss_rounding, terms] = self.sizes[k];
                    let fall = libm::exp(-t * turn);
                    if size * fall > LEAST {
                        first = first.min(k);
                        end = k + 1;
                        let (s, c) = libm::sincos(t * loss);
                        let (s, c) = (fall * s, fall * c);
                        re[k] = weight.0 * c - weight.1 * s;
                        im[k] = weight.0 * s + weight.1 * c;
                        // Rounding of exponents, of sums, and of phases that are turned.
                        let rounding = 8.0 * (until * loss_rounding + terms);
                        error += size * fall * (rounding + points as f64 / 8.0 + TURNED);
                    } else {
                        re[k] = 0.0;
                        im[k] = 0.0;
                    }
                }
                for (exponent, width) in &self.closed {
                    let size = closed(*exponent, *width, self.theta, 0.0).0;
                    error += size * (8.0 * (until * width + exponent.abs()) + 64.0);
                }
                alive = (first / 4 * 4).min(end)..end.next_multiple_of(4);
                error = error * f64::EPSILON + 4.0 * libm::exp(LN_NEGLECT);
            }
            let (mut sums_re, mut sums_im) = ([0.0; 4], [0.0; 4]);
            let blocks = re[alive.clone()]
                .chunks_exact_mut(4)
                .zip(im[alive.clone()].chunks_exact_mut(4))
                .zip(
                    turn_re[alive.clone()]
                        .chunks_exact(4)
                        .zip(turn_im[alive.clone()].chunks_exact(4)),
                );
            for ((re, im), (c, s)) in blocks {
                for lane in 0..4 {
                    let (x, y) = (re[lane], im[lane]);
                    sums_re[lane] += x;
                    sums_im[lane] += y;
                    re[lane] = x * c[lane] - y * s[lane];
                    im[lane] = x * s[lane] + y * c[lane];
                }
            }
            let mut sum = (
                (sums_re[0] + sums_re[1]) + (sums_re[2] + sums_re[3]),
                (sums_im[0] + sums_im[1]) + (sums_im[2] + sums_im[3]),
            );
            for (exponent, width) in &self.closed {
                let part = closed(*exponent, *width, self.theta, j as f64 * step);
                sum = (sum.0 + part.0, sum.1 + part.1);
            }
            visit(j, sum.0, sum.1, error);
        }
    }
}
