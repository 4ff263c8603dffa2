//! What `epsilon` or `delta` follows from the laws of many steps, in one direction.
//!
//! Both questions are answered from the same bounds, so that their answers are inverse to each
//! other. For each decade of `delta` there is a [`Station`]: bounds from above, each a falling
//! function of `epsilon` over all of it and each with its exact inverse, made as tight as may be
//! where `delta` has that size. A station depends on the laws and on its decade alone. With `D_k`
//! the least of the bounds of station `k` and `t_k` the upper end of its decade,
//!
//! - `delta(epsilon)` is `D_k(epsilon)` for the largest `k` with `D_k(epsilon) <= t_k`, but not below
//!   `t_(k + 1)`: as all `D_k` fall, so does it;
//! - `epsilon(delta)` is the first point with `D_k(epsilon) <= delta`, for the `k` that `delta`
//!   belongs to.
//!
//! Hence `delta(epsilon(d)) <= d`, as some station shows it, and `epsilon(delta(e)) <= e`, as the
//! station that `delta(e)` comes from shows it at `e`.
//!
//! One step alone needs no stations. Laws that [`super::contour`] takes need no lattice; for the
//! others [`super::tilt`] chooses tilt and window, and [`super::composite`] composes: a first look on
//! a coarse lattice, then one that is as fine as wanted, where the answer lies. What no lattice
//! shows, [`super::quantile`] bounds.

use std::sync::{Arc, Mutex, PoisonError};

use super::composite::Composite;
use super::contour::{self, Line};
use super::lattice::{Rules, Sketch};
use super::law::Law;
use super::quantile::Quantiles;
use super::single::Single;
use super::tilt::Plan;
use crate::accountant::Fineness;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    /// `delta` for this `epsilon`, finite.
    Delta(f64),
    /// `epsilon` for this `delta`, above 0 and below 1.
    Epsilon(f64),
}

/// For a first look.
const COARSE: Fineness = Fineness {
    absolute: 1e-3,
    relative: 3e-3,
    points: 1 << 13,
};

/// To be as quick as may be.
const COARSEST: Fineness = Fineness {
    absolute: 1e-2,
    relative: 3e-2,
    points: 1 << 10,
};

/// A `delta` that is not larger than what is infinite anyway by this share is not told from it.
const APART: f64 = 1e-13;

/// Stations of some laws that were made before, each by the direction that it is for and its decade:
/// they depend on nothing else.
#[derive(Default)]
pub(crate) struct Stations {
    held: Mutex<Vec<Held>>,
}

struct Held {
    direction: usize,
    decade: i32,
    station: Arc<Station>,
    size: usize,
}

impl Stations {
    /// The station of a direction and decade, made where it is not held.
    fn of(&self, direction: usize, decade: i32, make: impl FnOnce() -> Station) -> Arc<Station> {
        // As numbers; more are not held at once.
        const MOST: usize = 1 << 23;
        let lock = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |held: &Held| held.direction == direction && held.decade == decade;
        if let Some(held) = lock().iter().find(|held| same(held)) {
            return Arc::clone(&held.station);
        }
        let station = Arc::new(make());
        let size = station.size();
        let mut held = lock();
        let mut sum = size + held.iter().map(|held| held.size).sum::<usize>();
        // The oldest goes first.
        while sum > MOST && !held.is_empty() {
            sum -= held.remove(0).size;
        }
        if sum <= MOST {
            held.push(Held {
                direction,
                decade,
                station: Arc::clone(&station),
                size,
            });
        }
        station
    }
}

/// The laws of one direction, each so many times, with the probability that some loss is infinite:
/// that is taken apart, as `delta(epsilon)` is the sum of it and what the finite losses, whose law
/// has the mass that remains, give.
pub(crate) struct Direction<'a> {
    laws: &'a [(Law, u64)],
    stations: &'a Stations,
    /// By which its stations are known.
    which: usize,
    fineness: Fineness,
    rules: &'static Rules,
    /// Probability that some loss is infinite, from below and from above.
    infinite: (f64, f64),
    single: Option<Single<'a>>,
}

impl<'a> Direction<'a> {
    /// `stations` are those of the same laws and fineness, where they are known by `which`.
    pub(crate) fn new(
        laws: &'a [(Law, u64)],
        fineness: Fineness,
        stations: &'a Stations,
        which: usize,
    ) -> Self {
        let rules = Rules::get();
        let none: f64 = laws
            .iter()
            .map(|(law, count)| *count as f64 * libm::log1p(-law.infinite.min(1.0)))
            .sum();
        let infinite = -libm::expm1(none);
        let single = match laws {
            [(law, 1)] => Single::new(law, rules),
            _ => None,
        };
        Self {
            laws,
            stations,
            which,
            fineness,
            rules,
            infinite: (
                infinite / (1.0 + 1e-11),
                (infinite * (1.0 + 1e-11)).min(1.0),
            ),
            single,
        }
    }

    /// Lower and upper bound of `epsilon`; zeros where it is surely below `known`.
    pub(crate) fn epsilon(&self, delta: f64, known: f64) -> (f64, f64) {
        if known > 0.0 && self.is_below(known, libm::log(delta) - 0.5) {
            return (0.0, 0.0);
        }
        let (least, most) = self.infinite;
        let (rest, most_rest) = (delta - most, delta - least);
        if rest < APART * delta {
            return if most_rest < 0.0 {
                (f64::INFINITY, f64::INFINITY)
            } else {
                (0.0, f64::INFINITY)
            };
        }
        // Upwards, so that the sum with what was taken off is not above `delta`.
        let rest = rest * (1.0 - 1e-15);
        if let Some(single) = &self.single {
            return (single.lower_epsilon(most_rest), single.upper_epsilon(rest));
        }
        let station = self.station(decade(rest));
        let (lower, upper) = station.epsilons(rest, most_rest);
        (lower.min(upper), upper)
    }

    /// Roughly `epsilon`, in a fraction of the time; no bound. It comes from the cumulants alone.
    pub(crate) fn guess(&self, delta: f64) -> f64 {
        match self.rest(delta) {
            Some(rest) => self.plan(Question::Epsilon(rest)).epsilon.max(0.0),
            None => f64::INFINITY,
        }
    }

    /// The same in more time, more closely where few of the steps matter: the lesser of that and of
    /// what a very coarse lattice shows.
    pub(crate) fn glance(&self, delta: f64) -> f64 {
        let Some(rest) = self.rest(delta) else {
            return f64::INFINITY;
        };
        let mut plan = self.plan(Question::Epsilon(rest));
        let guess = plan.epsilon.max(0.0);
        let composite = Composite::new(self.laws, &mut plan, self.rules, COARSEST);
        guess.min(composite.upper_epsilon(rest))
    }

    /// What of `delta` the finite losses may have, where there is any.
    fn rest(&self, delta: f64) -> Option<f64> {
        let rest = delta - self.infinite.1;
        (rest >= APART * delta).then_some(rest)
    }

    fn plan(&self, question: Question) -> Plan {
        let counts: f64 = self.laws.iter().map(|(_, count)| *count as f64).sum();
        let ln_tail = -60.0 - libm::log(counts.max(1.0));
        Plan::new(self.laws, self.rules, ln_tail, question)
    }

    /// Lower and upper bound of `delta`; zeros where it is surely below `known`.
    pub(crate) fn delta(&self, epsilon: f64, known: f64) -> (f64, f64) {
        if known > 0.0 && self.is_below(epsilon, libm::log(known)) {
            return (0.0, 0.0);
        }
        let (lower, upper) = match &self.single {
            Some(single) => (single.lower(epsilon), single.upper(epsilon)),
            None => self.finite_delta(epsilon),
        };
        let (least, most) = self.infinite;
        // So that the way back finds the finite part again.
        let upper = upper.max(2.0 * APART * most) * (1.0 + 4e-15) + most;
        let upper = (upper * (1.0 + 2.0 * f64::EPSILON)).min(1.0);
        ((lower + least).min(upper), upper)
    }

    /// See the head.
    fn finite_delta(&self, epsilon: f64) -> (f64, f64) {
        const MOST_STATIONS: u32 = 14;
        const GUESSES: u32 = 3;
        let plan = self.plan(Question::Delta(epsilon));
        let mut k = decade(libm::exp(plan.ln_delta.min(0.0)));
        let (mut least, mut any) = (0.0_f64, 1.0_f64);
        let mut held: Option<(i32, f64)> = None;
        // The decades from this one on are surely too small.
        let mut failed = LAST + 1;
        for turn in 0..MOST_STATIONS {
            let station = self.station(k);
            let (lower, upper) = (station.lower(epsilon), station.upper(epsilon));
            least = least.max(lower);
            any = any.min(upper);
            if upper <= top(k) {
                let bottom = if k == LAST { 0.0 } else { top(k + 1) };
                held = Some((k, upper.max(bottom.next_up())));
                if lower > bottom || k + 1 >= failed {
                    break;
                }
                k = decade(upper).clamp(k + 1, failed - 1);
            } else {
                failed = k;
                let next = decade(upper).min(k - 1);
                k = match held {
                    Some((held, _)) if held + 1 >= failed => break,
                    Some((held, _)) => next.max(held + 1),
                    None => next.max(0),
                };
            }
            // Where these guesses are no good, by halves.
            if let Some((held, _)) = held
                && turn >= GUESSES
            {
                k = i32::midpoint(held, failed);
            }
        }
        let upper = held.map_or(any, |(_, upper)| upper);
        (least.min(upper), upper)
    }

    fn station(&self, decade: i32) -> Arc<Station> {
        self.stations.of(self.which, decade, || {
            Station::new(self.laws, decade, self.fineness, self.rules)
        })
    }

    /// Whether Chernoff's bound shows that `delta(epsilon)` is below `exp(ln_delta)`.
    ///
    /// With `n` steps in all and `S'` the sum of their losses cut to the sketches' ranges,
    /// `delta(epsilon) <= n t + E[(1 - exp(epsilon - S'))_+] <= n t + exp(K(theta) - theta epsilon)`,
    /// where `t`, the mass above a range, is `exp(ln_delta - 34) / n`. A sketch's sum is a
    /// Gauss-Legendre quadrature of a positive function, to 1e-13 of it; the mass below a range, as
    /// small as `t`, has a smaller loss than all others, at least half of the whole, and adds less
    /// than `2 t` to the moment generating function, relatively. Of the half nat that is left to
    /// spare, these take less than a tenth for up to `1e10` steps.
    fn is_below(&self, epsilon: f64, ln_delta: f64) -> bool {
        const SPARE: f64 = 0.5;
        let count: f64 = self.laws.iter().map(|(_, count)| *count as f64).sum();
        if self.infinite.1 > 0.0 || count > 1e10 {
            return false;
        }
        let ln_tail = ln_delta - libm::log(count.max(1.0)) - 34.0;
        let sketches: Vec<(Sketch, f64)> = self
            .laws
            .iter()
            .map(|(law, count)| (Sketch::new(law, self.rules, ln_tail), *count as f64))
            .collect();
        (-16..=32).any(|k| {
            let theta = libm::exp(0.4 * f64::from(k));
            let cumulant: f64 = sketches
                .iter()
                .map(|(sketch, count)| count * sketch.cumulant(theta)[0])
                .sum();
            cumulant - theta * epsilon < ln_delta - SPARE
        })
    }
}

/// The last decade; it holds all that is smaller, too.
const LAST: i32 = 300;

/// The lower end of a decade, relative to its middle, roughly.
const LEAST: f64 = 0.3;

/// The upper end of a decade: decade `k` is around `10^-k`, and its lower end is not in it.
fn top(decade: i32) -> f64 {
    if decade <= 0 {
        1.0
    } else {
        libm::pow(10.0, 0.5 - f64::from(decade))
    }
}

/// The decade of a number from 0 to 1.
fn decade(delta: f64) -> i32 {
    if delta <= 0.0 {
        return LAST;
    }
    let guess = libm::floor(0.5 - libm::log10(delta)).clamp(0.0, f64::from(LAST)) as i32;
    let mut decade = guess;
    while decade > 0 && delta > top(decade) {
        decade -= 1;
    }
    while decade < LAST && delta <= top(decade + 1) {
        decade += 1;
    }
    decade
}

/// Bounds for one decade of `delta`; see the head of this module.
struct Station {
    ways: Vec<Way>,
}

/// Bounds from above and from below, each with its inverse.
enum Way {
    Line(Line),
    Lattice {
        composite: Composite,
        /// Between these the bound from below is one.
        exact: (f64, f64),
    },
    Quantiles(Quantiles),
}

impl Way {
    fn upper(&self, epsilon: f64) -> f64 {
        match self {
            Self::Line(line) => line.upper(epsilon),
            Self::Lattice { composite, .. } => composite.upper_delta(epsilon),
            Self::Quantiles(quantiles) => quantiles.delta(epsilon),
        }
    }

    fn lower(&self, epsilon: f64) -> f64 {
        match self {
            Self::Line(line) => line.lower(epsilon),
            Self::Lattice { composite, exact } if epsilon <= exact.1 => {
                composite.lower_delta(epsilon.max(exact.0))
            }
            _ => 0.0,
        }
    }

    fn upper_epsilon(&self, delta: f64) -> f64 {
        match self {
            Self::Line(line) => line.upper_epsilon(delta),
            Self::Lattice { composite, .. } => composite.upper_epsilon(delta),
            Self::Quantiles(quantiles) => quantiles.epsilon(delta),
        }
    }

    /// From below and from above, for these two.
    fn epsilons(&self, delta: f64, below: f64) -> (f64, f64) {
        match self {
            Self::Line(line) => line.epsilons(delta, below),
            Self::Lattice { composite, exact } => {
                let lower = composite.lower_epsilon(below).min(exact.1);
                (lower, composite.upper_epsilon(delta))
            }
            Self::Quantiles(quantiles) => (0.0, quantiles.epsilon(delta)),
        }
    }
}

impl Station {
    fn new(laws: &[(Law, u64)], decade: i32, fineness: Fineness, rules: &Rules) -> Self {
        let key = if decade == 0 {
            0.5
        } else {
            libm::pow(10.0, -f64::from(decade))
        };
        let lines = contour::lines(laws, key, rules, contour::QUICK, f64::INFINITY);
        let lines = Self {
            ways: lines.into_iter().map(Way::Line).collect(),
        };
        // They must show all of the decade.
        let everywhere = |station: &Self| station.upper_epsilon(LEAST * key) < f64::INFINITY;
        let shown = |way: &Way| match way {
            Way::Line(line) => line.shows(LEAST * key),
            _ => false,
        };
        if lines.ways.iter().any(shown) {
            return lines;
        }
        let mut station = Self::on_lattice(laws, decade, key, fineness, rules);
        station.ways.extend(lines.ways);
        let (lower, upper) = station.epsilons(key, key);
        if upper - lower > 1e-4 * upper + 10.0 * fineness.absolute || !everywhere(&station) {
            let lines = contour::lines(laws, key, rules, contour::THOROUGH, upper);
            station.ways.extend(lines.into_iter().map(Way::Line));
            station.ways.push(Way::Quantiles(Quantiles::new(laws)));
        }
        station
    }

    /// By the lattice alone.
    fn on_lattice(
        laws: &[(Law, u64)],
        decade: i32,
        key: f64,
        fineness: Fineness,
        rules: &Rules,
    ) -> Self {
        // The lattice is laid for all of the decade.
        let (most, least) = (top(decade), LEAST * key);
        // Mass that is cut off counts as infinite loss: it must be small beside `delta`.
        let steps: f64 = laws.iter().map(|(_, count)| *count as f64).sum();
        let ln_tail = libm::log(least) - libm::log(steps.max(1.0)) - 34.0;
        let mut plan = Plan::new(laws, rules, ln_tail, Question::Epsilon(key));
        let guess = plan.epsilon.max(0.0);
        let anywhere = (0.0, f64::INFINITY);
        let mut station = Self { ways: Vec::new() };
        let look = |station: &mut Self, plan: &mut Plan, fineness, exact| {
            let composite = Composite::new(laws, plan, rules, fineness);
            let inside = composite.upper_epsilon(key) < f64::INFINITY;
            station.ways.push(Way::Lattice { composite, exact });
            inside
        };
        // A first look says where the answer is; then the tilt can be the cheapest that still shows
        // it.
        let mut inside = look(&mut station, &mut plan, COARSE, anywhere);
        let mut exact = anywhere;
        let mut shape = Vec::new();
        let mut gap = f64::INFINITY;
        for _ in 0..4 {
            let (low, high) = (station.lower_epsilon(most), station.upper_epsilon(least));
            if high < f64::INFINITY {
                let margin = 1e-3 * (1.0 + high);
                exact = (low - margin, high + margin);
                plan.cut(laws, exact, libm::log(least));
                let (low, high) = (station.lower_epsilon(key), station.upper_epsilon(key));
                let middle = if low > 0.5 * high {
                    0.5 * (low + high)
                } else {
                    guess.clamp(low.min(high), high)
                };
                plan.cheapen(middle, libm::log(key), fineness);
                let before = core::mem::replace(&mut shape, plan.shape());
                let alike = |(a, b): (&f64, &f64)| (0.7..=1.4).contains(&(a / b));
                if !before.is_empty() && before.iter().zip(&shape).all(alike) {
                    break;
                }
            } else if !inside {
                // The answer is outside the window: a larger tilt moves it upwards.
                plan.retilt(plan.theta * 1.5);
            }
            inside = look(&mut station, &mut plan, fineness, exact);
            let upper = station.upper_epsilon(key);
            let before = gap;
            gap = upper - station.lower_epsilon(key);
            let enough = 1e-4 * upper + 10.0 * fineness.absolute;
            if gap <= enough || gap > 0.7 * before {
                break;
            }
        }
        station
    }

    /// How many numbers it holds, roughly.
    fn size(&self) -> usize {
        let size = |way: &Way| match way {
            Way::Line(line) => line.size(),
            Way::Lattice { composite, .. } => composite.size(),
            Way::Quantiles(quantiles) => quantiles.size(),
        };
        self.ways.iter().map(size).sum::<usize>() + 64
    }

    fn upper(&self, epsilon: f64) -> f64 {
        let least = |most: f64, way: &Way| most.min(way.upper(epsilon));
        self.ways.iter().fold(1.0, least)
    }

    fn lower(&self, epsilon: f64) -> f64 {
        let most = |least: f64, way: &Way| least.max(way.lower(epsilon));
        self.ways.iter().fold(0.0, most)
    }

    fn upper_epsilon(&self, delta: f64) -> f64 {
        let least = |most: f64, way: &Way| most.min(way.upper_epsilon(delta));
        self.ways.iter().fold(f64::INFINITY, least)
    }

    fn lower_epsilon(&self, delta: f64) -> f64 {
        self.epsilons(delta, delta).0
    }

    /// The best from below, and from above, for these two.
    fn epsilons(&self, delta: f64, below: f64) -> (f64, f64) {
        self.ways
            .iter()
            .fold((0.0, f64::INFINITY), |(most, least), way| {
                let (lower, upper) = way.epsilons(delta, below);
                (most.max(lower), least.min(upper))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pld::law::{NormalPair, Smooth};

    #[test]
    fn decades_are_half_open() {
        for k in 0..LAST {
            assert_eq!(decade(top(k)), k);
            assert_eq!(decade(top(k).next_down()), k);
            assert_eq!(decade(top(k + 1).next_up()), k);
        }
        assert_eq!(decade(1e-5), 5);
        assert_eq!((decade(0.0), decade(5e-324)), (LAST, LAST));
    }

    /// The integral along a line and the lattice share only the law itself.
    #[test]
    fn both_ways_bracket_the_same_answer() {
        let rules = Rules::get();
        let mut seen = 0;
        for (rate, mean, count) in [
            (0.001, 2.0, 1000),
            (0.01, 1.0, 100),
            (0.1, 1.5, 30),
            (0.3, 0.2, 200),
            (0.05, 3.0, 50),
        ] {
            for swapped in [false, true] {
                for both in [false, true] {
                    let parts =
                        |mean: f64| vec![(libm::log1p(-rate), 0.0), (libm::log(rate), mean)];
                    let pair = NormalPair {
                        upper: parts(mean),
                        lower: if both { parts(-mean) } else { vec![(0.0, 0.0)] },
                        swapped,
                    };
                    let law = Law {
                        atoms: Vec::new(),
                        infinite: 0.0,
                        smooth: vec![(1.0, Smooth::Normal(pair))],
                    };
                    let laws = [(law, count)];
                    let lines = contour::lines(&laws, 1e-6, rules, contour::QUICK, f64::INFINITY);
                    if lines.is_empty() {
                        continue;
                    }
                    let lines = Station {
                        ways: lines.into_iter().map(Way::Line).collect(),
                    };
                    let lattice = Station::on_lattice(&laws, 6, 1e-6, COARSE, rules);
                    let name = format!("{rate} {mean} {count} {swapped} {both}");
                    for delta in [5e-7, 1e-6, 2e-6] {
                        seen += 1;
                        let (low, high) = (lines.lower_epsilon(delta), lines.upper_epsilon(delta));
                        let (least, most) =
                            (lattice.lower_epsilon(delta), lattice.upper_epsilon(delta));
                        let name = format!("{name}: {low} {high} {least} {most}");
                        assert!(low <= high && low <= most && least <= high, "{name}");
                        assert!(high - low <= 1e-3 * high, "{name}");
                        for station in [&lines, &lattice] {
                            // So coarse a lattice does not always show the answer.
                            if station.upper_epsilon(delta) == f64::INFINITY {
                                continue;
                            }
                            let back = station.upper(station.upper_epsilon(delta));
                            assert!(back <= delta * (1.0 + 1e-12), "{name}: {back}");
                            assert!(back >= delta * (1.0 - 1e-6), "{name}: {back}");
                        }
                        let (low, high) = (lines.lower(high), lines.upper(high));
                        assert!(low <= delta && high >= delta * (1.0 - 1e-6), "{name}");
                    }
                }
            }
        }
        assert!(seen >= 45, "{seen}");
    }
}
