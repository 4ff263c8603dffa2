//! The law of one step's loss on a lattice, from above and from below.
//!
//! **From above**: connect-the-dots (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022, arXiv
//! 2207.04380, Algorithm 1). Between two lattice points the mass of `P` and the mass of `Q` are
//! both kept, split over the two points. Their formula divides differences of nearly equal values;
//! here both shares are integrals of positive terms: of the mass at loss `l` between `a` and `b` the
//! share `(1 - exp(a - l)) / (1 - exp(a - b))` goes to `b` and the rest to `a`, which is the same
//! in exact arithmetic and keeps its relative precision far out in the tails.
//!
//! **From below**: merging outcomes never adds information. A random share of each cell is merged
//! with a share of the next, such that the merged loss is exactly the lattice point between them;
//! what does not balance is moved to the next point below.
//!
//! All masses are tilted: that at loss `l` is multiplied by `exp(theta l - kappa)`.

use std::sync::OnceLock;

use super::law::{Atom, CutPair, Law, Smooth, ln_add};
use crate::special::{BULK, exp_in_bulk, gauss_legendre};

/// Gauss-Legendre rules, made once.
pub(crate) struct Rules {
    three: ([f64; 3], [f64; 3]),
    four: ([f64; 4], [f64; 4]),
    eight: ([f64; 8], [f64; 8]),
}

impl Rules {
    /// The rules.
    pub(crate) fn get() -> &'static Self {
        static RULES: OnceLock<Rules> = OnceLock::new();
        RULES.get_or_init(|| Self {
            three: gauss_legendre(),
            four: gauss_legendre(),
            eight: gauss_legendre(),
        })
    }

    /// Calls `visit(coordinate, weight)` for the eight nodes between `low` and `high`.
    pub(super) fn eight(&self, low: f64, high: f64, mut visit: impl FnMut(f64, f64)) {
        let (half, centre) = (0.5 * (high - low), 0.5 * (high + low));
        for (node, weight) in self.eight.0.iter().zip(self.eight.1) {
            visit(centre + half * node, weight * half);
        }
    }

    /// Calls `visit(coordinate, weight)` for nodes that integrate the part's functions from `low`
    /// to `high` to rounding.
    pub(super) fn nodes(
        &self,
        smooth: &Smooth,
        low: f64,
        high: f64,
        mut visit: impl FnMut(f64, f64),
    ) {
        let mut x = low;
        while x < high {
            let (panel, slope) = smooth.panel(x);
            // What is left is shared evenly, so that no sliver remains.
            let count = libm::ceil((high - x) / panel);
            let end = if count <= 1.0 {
                high
            } else {
                x + (high - x) / count
            };
            let (half, centre) = (0.5 * (end - x), 0.5 * (end + x));
            if half <= 0.0 || end <= x {
                return;
            }
            // The remainder terms of the rules at this width (Abramowitz and Stegun 25.4.30) are
            // below 1e-14 relative to the integrand.
            let width = (end - x) * slope;
            let (nodes, weights): (&[f64], &[f64]) = if width < 0.05 {
                (&self.three.0, &self.three.1)
            } else if width < 0.25 {
                (&self.four.0, &self.four.1)
            } else {
                (&self.eight.0, &self.eight.1)
            };
            for (node, weight) in nodes.iter().zip(weights) {
                visit(centre + half * node, weight * half);
            }
            x = end;
        }
    }
}

/// How far a tilt may move a normal law, in standard deviations.
const WIDE: f64 = 80.0;
/// The logarithm of what is so far out.
const WIDE_TAIL: f64 = -0.5 * WIDE * WIDE;

/// A law as a few hundred weighted points: enough to choose tilt, lattice and window with. Bounds on
/// the lattice do not rest on it; where others use its cumulants, they leave room for its error.
pub(crate) struct Sketch {
    /// Losses and logarithms of masses.
    points: Vec<(f64, f64)>,
    /// Smallest and largest loss of each smooth part.
    ends: Vec<(f64, f64)>,
    /// Largest magnitude of a loss or of a term in its exponents, for rounding errors.
    pub(crate) magnitude: f64,
}

impl Sketch {
    pub(crate) fn new(law: &Law, rules: &Rules, ln_tail: f64) -> Self {
        let mut points = Vec::new();
        merge(&law.atoms, &mut points);
        let mut ends = Vec::new();
        let mut magnitude = 1.0_f64;
        for (weight, smooth) in &law.smooth {
            let range = smooth.range(ln_tail);
            let ln_weight = libm::log(*weight);
            ends.push((smooth.loss(range.low), smooth.loss(range.high)));
            let mut x = range.low;
            while x < range.high {
                let end = (x + smooth.panel(x).0).min(range.high);
                rules.nodes(smooth, x, end, |x, weight| {
                    let (loss, ln_density) = smooth.both(x);
                    let ln_mass = ln_weight + ln_density + libm::log(weight);
                    points.push((loss, ln_mass));
                    magnitude = magnitude.max(x * x).max(loss.abs());
                });
                if end <= x {
                    break;
                }
                x = end;
            }
        }
        for atom in &law.atoms {
            magnitude = magnitude.max(atom.loss.abs());
        }
        Self {
            points,
            ends,
            magnitude,
        }
    }

    /// The law with a range of normal mixtures that also holds the tilted law for tilts up to
    /// [`Self::most_tilt`].
    pub(super) fn wide(law: &Law, rules: &Rules) -> Self {
        let mut points = Vec::new();
        merge(&law.atoms, &mut points);
        for (weight, smooth) in &law.smooth {
            let ln_weight = libm::log(*weight);
            match smooth {
                Smooth::Normal(pair) => {
                    let extent = pair.extent();
                    let low = extent.low - 9.5;
                    let high = extent.high + 10.5 + WIDE;
                    let spacing = 0.2 / (1.0 + 0.5 * extent.spread);
                    let count = ((high - low) / spacing) as usize;
                    let ln_weight = ln_weight + libm::log(spacing);
                    points.extend((0..=count).map(|k| {
                        let (loss, ln_density) = smooth.both(low + spacing * k as f64);
                        (loss, ln_weight + ln_density)
                    }));
                }
                Smooth::Cut(_) | Smooth::Laplace(_) => {
                    let range = smooth.range(WIDE_TAIL);
                    rules.nodes(smooth, range.low, range.high, |x, node| {
                        let (loss, ln_density) = smooth.both(x);
                        points.push((loss, ln_weight + ln_density + libm::log(node)));
                    });
                }
            }
        }
        Self {
            points,
            ends: Vec::new(),
            magnitude: 1.0,
        }
    }

    /// See [`Self::wide`].
    pub(super) fn most_tilt(law: &Law) -> f64 {
        law.smooth
            .iter()
            .map(|(_, smooth)| match smooth {
                Smooth::Normal(pair) | Smooth::Cut(CutPair { pair, .. }) => {
                    let extent = pair.extent();
                    let slope = if extent.falling {
                        pair.slope(extent.high + 10.5 + 0.5 * WIDE)
                    } else {
                        extent.slope
                    };
                    0.5 * WIDE / slope
                }
                Smooth::Laplace(_) => f64::INFINITY,
            })
            .fold(1e6, f64::min)
    }

    /// `ln E exp(theta L)` with its first two derivatives.
    pub(crate) fn cumulant(&self, theta: f64) -> [f64; 3] {
        // Masses below this share of the largest are left out.
        const LN_LEAST: f64 = -60.0;
        let exponent = |(loss, ln_mass): (f64, f64)| ln_mass + theta * loss;
        let (mut top, mut centre) = (f64::NEG_INFINITY, 0.0);
        for &point in &self.points {
            if exponent(point) > top {
                (top, centre) = (exponent(point), point.0);
            }
        }
        if top == f64::NEG_INFINITY {
            return [0.0; 3];
        }
        // Around the loss with the largest mass, so that little cancels in the variance.
        let mut lanes = [[0.0; BULK]; 3];
        let mut add = |points: &[(f64, f64); BULK]| {
            let exponents = points.map(|point| exponent(point) - top);
            if !exponents.iter().any(|value| *value > LN_LEAST) {
                return;
            }
            let masses = exp_in_bulk(exponents);
            for lane in 0..BULK {
                let off = points[lane].0 - centre;
                lanes[0][lane] += masses[lane];
                lanes[1][lane] += masses[lane] * off;
                lanes[2][lane] += masses[lane] * off * off;
            }
        };
        let (chunks, rest) = self.points.as_chunks::<BULK>();
        chunks.iter().for_each(&mut add);
        if !rest.is_empty() {
            let mut last = [(centre, f64::NEG_INFINITY); BULK];
            last[..rest.len()].copy_from_slice(rest);
            add(&last);
        }
        let [sum, first, second] = lanes.map(|lanes| lanes.iter().sum::<f64>());
        let off = first / sum;
        [
            top + libm::log(sum),
            centre + off,
            (second / sum - off * off).max(0.0),
        ]
    }

    /// Cuts the law at these losses, as [`Layout::low`] and [`Layout::high`] say.
    pub(crate) fn cut(&mut self, low: f64, high: f64) {
        for (loss, ln_mass) in &mut self.points {
            if *loss > high {
                *ln_mass += high - *loss;
                *loss = high;
            }
            *loss = loss.max(low);
        }
        for (least, most) in &mut self.ends {
            *least = least.clamp(low, high);
            *most = most.clamp(low, high);
        }
    }

    /// Where much of the law, under the tilt, lies closer together than `step`, its loss there as one
    /// outcome, less multiples of `step`: with a lattice point there little is moved. Else 0.
    pub(crate) fn offset(&self, theta: f64, step: f64) -> f64 {
        const MUCH: f64 = 0.2;
        let mut points: Vec<(f64, f64, f64)> = self
            .points
            .iter()
            .map(|(loss, ln_mass)| (*loss, *ln_mass, ln_mass + theta * loss))
            .collect();
        let top = points.iter().fold(f64::NEG_INFINITY, |top, p| top.max(p.2));
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let tilted = |point: &(f64, f64, f64)| libm::exp(point.2 - top);
        let all: f64 = points.iter().map(tilted).sum();
        // The half step that holds the most.
        let (mut most, mut held, mut best, mut start) = (0.0, 0.0, 0..0, 0);
        for (k, point) in points.iter().enumerate() {
            held += tilted(point);
            while point.0 - points[start].0 > 0.5 * step {
                held -= tilted(&points[start]);
                start += 1;
            }
            if held > most {
                (most, best) = (held, start..k + 1);
            }
        }
        if best.is_empty() || most < MUCH * all {
            return 0.0;
        }
        let cluster = &points[best];
        let base = cluster[0].0;
        // Relative to its least loss and largest mass.
        let largest = cluster
            .iter()
            .fold(f64::NEG_INFINITY, |most, p| most.max(p.1));
        let (mut p, mut q) = (0.0, 0.0);
        for (loss, ln_mass, _) in cluster {
            let mass = libm::exp(ln_mass - largest);
            p += mass;
            q += mass * libm::exp(base - loss);
        }
        let merged = base + libm::log(p / q);
        merged - libm::floor(merged / step) * step
    }

    /// Logarithm of the mass at losses from this one on.
    pub(crate) fn ln_above(&self, least: f64) -> f64 {
        let mass: f64 = self
            .points
            .iter()
            .filter(|(loss, _)| *loss >= least)
            .map(|(_, ln_mass)| libm::exp(*ln_mass))
            .sum();
        libm::log(mass)
    }

    /// Smallest and largest loss.
    pub(crate) fn span(&self) -> (f64, f64) {
        let ends = self.ends.iter().flat_map(|(least, most)| [*least, *most]);
        self.points
            .iter()
            .map(|(loss, _)| *loss)
            .chain(ends)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| {
                (low.min(loss), high.max(loss))
            })
    }
}

/// Appends the point masses, or where they are very many, masses at fewer points with the same sums
/// and means: their moment generating function is at least that of the point masses, as every
/// exponential lies below its chords.
fn merge(atoms: &[Atom], points: &mut Vec<(f64, f64)>) {
    const MOST: usize = 2048;
    if atoms.len() <= 2 * MOST {
        points.extend(atoms.iter().map(|atom| (atom.loss, atom.ln_mass)));
        return;
    }
    let (low, high) = atoms
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), atom| {
            (low.min(atom.loss), high.max(atom.loss))
        });
    let step = (high - low) / (MOST - 1) as f64;
    let mut ln_masses = vec![f64::NEG_INFINITY; MOST + 1];
    for atom in atoms {
        let place = ((atom.loss - low) / step).clamp(0.0, (MOST - 1) as f64);
        let (index, share) = (place as usize, place - libm::floor(place));
        for (to, share) in [(index, 1.0 - share), (index + 1, share)] {
            ln_masses[to] = ln_add(ln_masses[to], atom.ln_mass + libm::log(share));
        }
    }
    points.extend(
        ln_masses
            .into_iter()
            .enumerate()
            .filter(|(_, ln_mass)| *ln_mass > f64::NEG_INFINITY)
            .map(|(k, ln_mass)| (low + step * k as f64, ln_mass)),
    );
}

/// A tilted law on the lattice of multiples of a step.
pub(crate) struct Lattice {
    /// Lattice index of the first entry.
    pub(crate) first: i64,
    /// Tilted masses, from above.
    pub(crate) above: Vec<f64>,
    /// Tilted masses, from below.
    pub(crate) below: Vec<f64>,
    /// Mass, not tilted, of finite losses that counts as infinite: from above.
    pub(crate) lost_above: f64,
    /// The same from below.
    pub(crate) lost_below: f64,
}

/// Where and how to lay a lattice.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Distance of lattice points.
    pub(crate) step: f64,
    /// The lattice point of index 0.
    pub(crate) offset: f64,
    /// The tilt.
    pub(crate) theta: f64,
    /// Subtracted from all exponents.
    pub(crate) kappa: f64,
    /// Logarithm of the mass that may be cut off on each side.
    pub(crate) ln_tail: f64,
    /// Losses below this lattice loss are raised to it, from above, or left out, from below. Where
    /// this is below what the other steps' largest losses can lift to `epsilon`, it changes nothing.
    pub(crate) low: f64,
    /// Mass above this lattice loss goes to it and to infinity, with the masses of `P` and `Q` both
    /// kept. Where this is above what the other steps' smallest losses can draw below `epsilon`, it
    /// changes nothing: there `1 - exp(epsilon - S)` is linear in what is kept. Elsewhere it is a
    /// bound from above, as it spreads the mass; from below all such outcomes are merged into one.
    pub(crate) high: f64,
    /// Whether `high` changes nothing.
    pub(crate) exact: bool,
}

impl Layout {
    fn loss(&self, index: i64) -> f64 {
        self.offset + index as f64 * self.step
    }
}

/// Outcomes beyond [`Layout::high`], not tilted.
#[derive(Default)]
struct Far {
    /// Their mass under `P`.
    mass: f64,
    /// What of it is kept at `high`: `exp(high)` times their mass under `Q`.
    kept: f64,
    /// The rest.
    lost: f64,
}

impl Far {
    fn add(&mut self, mass: f64, rest: f64) {
        self.mass += mass;
        self.kept += mass * libm::exp(-rest);
        self.lost += mass * -libm::expm1(-rest);
    }
}

impl Lattice {
    /// Puts the law on the lattice.
    pub(crate) fn new(law: &Law, sketch: &Sketch, rules: &Rules, layout: Layout) -> Self {
        let Layout {
            step,
            offset,
            theta,
            kappa,
            ..
        } = layout;
        let (low, high) = sketch.span();
        let (low, high) = (low - offset, high - offset);
        let (first, length) = if low <= high {
            let first = libm::floor(low / step) as i64 - 2;
            // Above a cut there is room for the merged outcomes, as far as it matters.
            let room = libm::ceil(2.0 / (1.0 + theta) / step).min(1e4) as i64;
            let last = libm::ceil(high / step) as i64 + 2 + if layout.exact { 0 } else { room };
            (first, (last - first + 1) as usize)
        } else {
            (0, 1)
        };
        let mut lattice = Self {
            first,
            above: vec![0.0; length],
            below: vec![0.0; length],
            lost_above: 0.0,
            lost_below: 0.0,
        };
        let mut far = Far::default();
        let shrink = -libm::expm1(-step);
        for atom in &law.atoms {
            if atom.loss > layout.high {
                far.add(libm::exp(atom.ln_mass), atom.loss - layout.high);
                continue;
            }
            let loss = atom.loss.max(layout.low) - offset;
            let mut index = libm::floor(loss / step) as i64;
            let mut rest = (loss - index as f64 * step).clamp(0.0, step);
            if rest > step - 16.0 * f64::EPSILON * sketch.magnitude {
                // The next point but for rounding, which is counted anyway.
                (index, rest) = (index + 1, 0.0);
            }
            let place = (index - first) as usize;
            let mass = libm::exp(atom.ln_mass + theta * layout.loss(index) - kappa);
            lattice.above[place] += mass * libm::exp(-rest) * -libm::expm1(rest - step) / shrink;
            lattice.above[place + 1] +=
                mass * libm::exp(theta * step) * -libm::expm1(-rest) / shrink;
            if atom.loss >= layout.low {
                lattice.below[place] += mass;
            }
        }
        for (weight, smooth) in &law.smooth {
            lattice.lay(smooth, *weight, rules, layout, &mut far);
        }
        if far.mass > 0.0 {
            let place = |loss: f64| {
                let place = libm::floor((loss - offset) / step) - first as f64;
                place.clamp(0.0, length as f64 - 1.0) as usize
            };
            let at = libm::round((layout.high - offset) / step) as i64 - first;
            let kept = far.kept * libm::exp(theta * layout.high - kappa);
            lattice.above[at as usize] += kept;
            lattice.lost_above += far.lost;
            if layout.exact {
                lattice.below[at as usize] += kept;
                lattice.lost_below += far.lost;
            } else {
                // Their loss as one outcome is the logarithm of their masses' ratio.
                let merged = layout.high + libm::log(far.mass / far.kept.max(1e-300));
                let at = place((merged - 1e-12 * (1.0 + merged.abs())).min(layout.high + 1e3));
                let loss = layout.loss(first + at as i64);
                lattice.below[at] += far.mass * libm::exp(theta * loss - kappa);
            }
        }
        lattice
    }

    /// Adds one smooth part, cell by cell.
    fn lay(&mut self, smooth: &Smooth, weight: f64, rules: &Rules, layout: Layout, far: &mut Far) {
        let Layout {
            step,
            theta,
            kappa,
            ln_tail,
            ..
        } = layout;
        let mut range = smooth.range(ln_tail);
        let ln_weight = libm::log(weight);
        self.lost_above += weight * libm::exp(range.ln_above);
        if smooth.loss(range.low) < layout.low {
            let from = smooth.inverse(layout.low, range.low, range.high);
            let mut below = libm::exp(range.ln_below);
            rules.nodes(smooth, range.low, from, |x, weight| {
                below += weight * libm::exp(smooth.both(x).1);
            });
            // A quadrature's rounding, and that of the place of the cut.
            range.ln_below = libm::log(below) + 1e-12;
            range.low = from;
        }
        if smooth.loss(range.high) > layout.high {
            let from = smooth.inverse(layout.high, range.low, range.high);
            rules.nodes(smooth, from, range.high, |x, node| {
                let (loss, ln_density) = smooth.both(x);
                let mass = node * weight * libm::exp(ln_density);
                far.add(mass, (loss - layout.high).max(0.0));
            });
            range.high = from;
        }
        let least = smooth.loss(range.low).max(layout.low);
        let mut left = libm::floor((least - layout.offset) / step) as i64;
        // What is below the range is not above its lowest loss.
        if least <= layout.high {
            let tail = ln_weight + range.ln_below + theta * layout.loss(left + 1) - kappa;
            self.above[(left + 1 - self.first) as usize] += libm::exp(tail);
        } else {
            self.lost_above += weight * libm::exp(range.ln_below);
        }

        let shrink = -libm::expm1(-step);
        let fall = libm::exp(-step);
        // What a mass at a cell's left end is multiplied by at its right end.
        let lift = libm::exp(theta * step);
        let start = (left - self.first) as usize;
        let mut cells = Vec::new();
        let mut x = range.low;
        while x < range.high {
            let base = layout.loss(left);
            let right = left + 1;
            let end = smooth.inverse(layout.loss(right), x, range.high);
            // A cell without an inside, or one that the last ends in.
            let end = if layout.loss(right) >= smooth.loss(range.high) {
                range.high
            } else {
                end
            };
            let shift = ln_weight + theta * base - kappa;
            let (mut down, mut up) = (0.0, 0.0);
            rules.nodes(smooth, x, end, |x, weight| {
                let (loss, ln_density) = smooth.both(x);
                let mass = weight * libm::exp(ln_density + shift);
                let rest = (loss - base).clamp(0.0, step);
                up += mass * -libm::expm1(-rest);
                down += mass * (libm::exp(-rest) - fall);
            });
            down /= shrink;
            up /= shrink;
            self.above[(left - self.first) as usize] += down;
            self.above[(right - self.first) as usize] += up * lift;

            cells.push((down, up));
            left = right;
            x = end;
        }
        self.merge(&cells, start, step, lift);
    }

    /// From below, for cells of which each goes with these shares to its left and right end, from
    /// the cell at this place on.
    ///
    /// At a lattice point a share of the cell before balances a share of the cell after it. What is
    /// balanced at one end determines the other; errors die out from a cell to a larger one. So this
    /// goes from both ends to the largest, and what is left there is moved down.
    fn merge(&mut self, cells: &[(f64, f64)], start: usize, step: f64, lift: f64) {
        let mass = |k: usize| cells[k].0 + cells[k].1;
        // What a cell has above its left end, and what it lacks at its right one.
        let gain = |k: usize| cells[k].1 * -libm::expm1(-step);
        let lack = |k: usize| cells[k].0 * libm::expm1(step) * lift;
        let Some(last) = cells.len().checked_sub(1) else {
            return;
        };
        let largest = (0..=last).fold(0, |best, k| if mass(k) > mass(best) { k } else { best });
        let ratio = |a: f64, b: f64| if b > 0.0 { (a / b).min(1.0) } else { 1.0 };
        // Shares that are merged at the right ends.
        let mut right = vec![0.0; cells.len()];
        for k in (largest..last).rev() {
            right[k] = ratio((1.0 - right[k + 1]) * gain(k + 1), lack(k));
        }
        let mut left = 0.0;
        for k in 0..=largest {
            if k > 0 {
                left = ratio(right[k - 1] * lack(k - 1), gain(k));
            }
            right[k] = if k < largest {
                1.0 - left
            } else {
                right[k].min(1.0 - left)
            };
        }
        for (k, &share) in right.iter().enumerate() {
            // What the next cell cannot balance stays at the left end.
            let balanced = if k < last {
                let free = if k < largest {
                    gain(k + 1)
                } else {
                    (1.0 - right[k + 1]) * gain(k + 1)
                };
                share * ratio(free, share * lack(k))
            } else {
                0.0
            };
            self.below[start + k] += (1.0 - balanced) * mass(k);
            if balanced > 0.0 {
                self.below[start + k + 1] += balanced * mass(k) * lift;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pld::law::NormalPair;

    /// Connect-the-dots keeps both masses, also where laws are cut; from below nothing is gained.
    #[test]
    fn masses_are_kept() {
        let rules = Rules::get();
        for swapped in [false, true] {
            for (low, high, exact) in [(-1e9, 1e9, true), (-0.5, 0.4, true), (-0.5, 0.4, false)] {
                let pair = NormalPair {
                    upper: vec![(libm::log(0.9), 0.0), (libm::log(0.1), 1.5)],
                    lower: vec![(0.0, 0.0)],
                    swapped,
                };
                let law = Law {
                    atoms: Vec::new(),
                    infinite: 0.0,
                    smooth: vec![(1.0, Smooth::Normal(pair))],
                };
                let mut sketch = Sketch::new(&law, rules, -60.0);
                sketch.cut(low, high);
                let (step, theta) = (1.0 / 128.0, 1.7);
                let kappa = sketch.cumulant(theta)[0];
                let layout = Layout {
                    step,
                    offset: 0.0,
                    theta,
                    kappa,
                    ln_tail: -60.0,
                    low: libm::floor(low / step) * step,
                    high: libm::ceil(high / step) * step,
                    exact,
                };
                let lattice = Lattice::new(&law, &sketch, rules, layout);
                let masses = |side: &[f64]| {
                    let (mut p, mut q) = (0.0, 0.0);
                    for (k, mass) in side.iter().enumerate() {
                        let loss = (lattice.first + k as i64) as f64 * step;
                        let mass = mass * libm::exp(kappa - theta * loss);
                        p += mass;
                        q += mass * libm::exp(-loss);
                    }
                    (p, q)
                };
                let (p, q) = masses(&lattice.above);
                let name = format!("{swapped} {low}: {p} {q} {}", lattice.lost_above);
                assert!((p + lattice.lost_above - 1.0).abs() < 1e-12, "{name}");
                // Raising low losses loses mass of `Q`.
                let raised = low > -1e8 && swapped;
                assert!(raised || (q - 1.0).abs() < 1e-12, "{name}");
                let (p, q) = masses(&lattice.below);
                let name = format!("{swapped} {low}: {p} {q} {}", lattice.lost_below);
                assert!(p + lattice.lost_below < 1.0 + 1e-12, "{name}");
                assert!(q >= 1.0 - 1e-9 || raised, "{name}");
            }
        }
    }
}
