//! From a Rényi curve to `(epsilon, delta)`: Canonne, Kamath and Steinke (2020,
//! arXiv:2004.00010), Proposition 12.
//!
//! Every order gives a valid bound, so the best of any set of orders does. The orders are searched
//! over the reals rather than taken from a list: first on a geometric grid of `alpha - 1`, then
//! around each of its valleys. The bound has one valley where `(alpha - 1) D_alpha` is
//! convex, which every exact curve is; for others `delta` looks again where `epsilon` has its best.

/// Grid of `ln(alpha - 1)`.
const FIRST: f64 = -9.0;
const LAST: f64 = 21.0;
const STEP: f64 = 0.25;

/// Raises a result by more than its rounding and what the search of its order misses, so that `delta`
/// at that `epsilon` is not above the one it was asked for.
const UP: f64 = 1.0 + 1e-10;

/// Every other order of the grid, ascending.
pub(super) fn orders() -> impl Iterator<Item = f64> {
    (0..=STEPS)
        .step_by(2)
        .map(|index| 1.0 + libm::exp(FIRST + STEP * index as f64))
}

/// Steps of the grid.
const STEPS: usize = ((LAST - FIRST) / STEP) as usize;
/// Valleys that are looked into, the lowest first.
const VALLEYS: usize = 3;

/// The smallest value of a function of the order that is seen, and the order.
fn best(value: impl Fn(f64) -> f64) -> (f64, f64) {
    let at = |x: f64| {
        let found = value(1.0 + libm::exp(x));
        if found.is_nan() { f64::INFINITY } else { found }
    };
    let place = |index: usize| FIRST + STEP * index as f64;
    let grid: [f64; STEPS + 1] = core::array::from_fn(|index| at(place(index)));
    let is_valley = |index: usize| {
        (index == 0 || grid[index] < grid[index - 1])
            && (index == STEPS || grid[index] <= grid[index + 1])
    };
    let mut looked_into = [usize::MAX; VALLEYS];
    let mut least = (f64::INFINITY, FIRST);
    for turn in 0..VALLEYS {
        let next = (0..=STEPS)
            .filter(|index| is_valley(*index) && !looked_into.contains(index))
            .min_by(|&a, &b| grid[a].total_cmp(&grid[b]));
        let Some(next) = next.filter(|&next| grid[next] < f64::INFINITY) else {
            break;
        };
        looked_into[turn] = next;
        let found = valley(at, (grid[next], place(next)));
        if found.0 < least.0 {
            least = found;
        }
    }
    if least.0 == f64::INFINITY {
        return (least.0, 2.0);
    }
    (least.0, 1.0 + libm::exp(least.1))
}

/// The least value and its place within a step of a point of the grid: by parabolas through the three
/// best places, and golden sections where these do not help (Brent 1973, Chapter 5). At a corner, as
/// curves that are interpolated have at whole orders, more closely.
fn valley(at: impl Fn(f64) -> f64, (mut least, mut place): (f64, f64)) -> (f64, f64) {
    /// The smaller part of the golden section.
    const SHARE: f64 = 0.381_966_011_250_105_1;
    /// Closer than this, the values of a parabola do not differ.
    const CLOSE: f64 = 2e-8;
    /// So many times as far they hardly do, but those of two lines that meet.
    const APART: f64 = 64.0;
    let (mut low, mut high) = (place - STEP, place + STEP);
    // The second best place and the third.
    let (mut second, mut third) = ((least, place), (least, place));
    let (mut stride, mut before) = (0.0_f64, 0.0_f64);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if (place - middle).abs() + 0.5 * (high - low) <= 2.0 * CLOSE {
            break;
        }
        let (r, q) = (
            (place - second.1) * (least - third.0),
            (place - third.1) * (least - second.0),
        );
        let (top, bottom) = (
            (place - third.1) * q - (place - second.1) * r,
            2.0 * (q - r),
        );
        let parabola = -top / bottom;
        let inside = place + parabola > low && place + parabola < high;
        // Each stride less than half of the last but one.
        if before.abs() > CLOSE && inside && parabola.abs() < 0.5 * before.abs() {
            before = stride;
            stride = parabola;
            let next = place + stride;
            if next - low < 2.0 * CLOSE || high - next < 2.0 * CLOSE {
                stride = CLOSE.copysign(middle - place);
            }
        } else {
            before = if place < middle { high } else { low } - place;
            stride = SHARE * before;
        }
        if stride.abs() < CLOSE {
            stride = CLOSE.copysign(stride);
        }
        let next = place + stride;
        let found = at(next);
        if found <= least {
            if next < place {
                high = place;
            } else {
                low = place;
            }
            (third, second) = (second, (least, place));
            (least, place) = (found, next);
        } else {
            if next < place {
                low = next;
            } else {
                high = next;
            }
            let unset = |other: (f64, f64)| other.1.to_bits() == place.to_bits();
            if found <= second.0 || unset(second) {
                (third, second) = (second, (found, next));
            } else if found <= third.0 || unset(third) || third.1.to_bits() == second.1.to_bits() {
                third = (found, next);
            }
        }
    }
    let corner = [-APART * CLOSE, APART * CLOSE]
        .into_iter()
        .any(|off| at(place + off) - least > 1e-11 * (1.0 + least.abs()));
    if corner {
        golden(at, (least, place), 4.0 * CLOSE, 24)
    } else {
        (least, place)
    }
}

/// The least value and its place up to this far from one, by golden section.
fn golden(
    at: impl Fn(f64) -> f64,
    (mut least, mut place): (f64, f64),
    far: f64,
    turns: u32,
) -> (f64, f64) {
    const SHARE: f64 = 0.618_033_988_749_894_9;
    let (mut low, mut high) = (place - far, place + far);
    let mut left = high - SHARE * (high - low);
    let mut right = low + SHARE * (high - low);
    let (mut at_left, mut at_right) = (at(left), at(right));
    for _ in 0..turns {
        for (x, found) in [(left, at_left), (right, at_right)] {
            if found < least {
                (place, least) = (x, found);
            }
        }
        if at_left <= at_right {
            high = right;
            (right, at_right) = (left, at_left);
            left = high - SHARE * (high - low);
            at_left = at(left);
        } else {
            low = left;
            (left, at_left) = (right, at_right);
            right = low + SHARE * (high - low);
            at_right = at(right);
        }
    }
    (least, place)
}

/// `epsilon` at one order, for `delta` in (0, 1); may be negative.
pub(super) fn epsilon_at(alpha: f64, cgf: f64, ln_delta: f64) -> f64 {
    let c = alpha - 1.0;
    (cgf - ln_delta - libm::log(alpha)) / c + libm::log(c / alpha)
}

/// The smallest `epsilon` of all orders, rounded upwards, at least 0.
pub(super) fn epsilon(delta: f64, cgf: impl Fn(f64) -> f64) -> f64 {
    let ln_delta = libm::log(delta);
    let (least, _) = best(|alpha| epsilon_at(alpha, cgf(alpha), ln_delta));
    (least * UP).max(0.0)
}

/// The smallest `delta` of all orders, rounded upwards, at most 1.
pub(super) fn delta(epsilon: f64, cgf: impl Fn(f64) -> f64) -> f64 {
    let bound = |alpha: f64| {
        let c = alpha - 1.0;
        let ln = cgf(alpha) - c * epsilon + c * libm::log(c / alpha) - libm::log(alpha);
        if ln.is_nan() { f64::INFINITY } else { ln }
    };
    let (mut ln, _) = best(bound);
    // Curves of selection have their best order in a valley so narrow that no grid shows it, but
    // `epsilon` as a function of the order is wide there: its best order for the `delta` found so far
    // is a better one.
    let mut guess = ln.clamp(-700.0, -20.0);
    for _ in 0..16 {
        // From further out, too, where the valley is another one.
        let found = [0.0, 1.0, 4.0].into_iter().find_map(|out| {
            let guess = guess - out;
            let (_, alpha) = best(|alpha| epsilon_at(alpha, cgf(alpha), guess));
            let there = bound(alpha);
            (there < ln - 1e-9).then_some(there)
        });
        let Some(there) = found else { break };
        (ln, guess) = (there, there.clamp(-700.0, 0.0));
    }
    let raised = ln + libm::fabs(ln) * 1e-13 + 1e-12;
    // What underflows is counted as the smallest normal number.
    libm::exp(raised.min(0.0)).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known places of the least value: of smooth valleys, of corners, and beyond one end.
    #[test]
    fn valleys_are_found() {
        type Shape = fn(f64) -> f64;
        let cases: [(&str, Shape, f64, f64); 6] = [
            ("parabola", |x| (x - 0.3) * (x - 0.3) + 2.0, 0.3, 2.0),
            ("hyperbolic", |x| libm::cosh(3.0 * (x - 0.17)), 0.17, 1.0),
            ("steep", |x| 1e6 * libm::expm1(x * x), 0.0, 0.0),
            ("corner", |x| (x - 0.123).max(4.0 * (0.123 - x)), 0.123, 0.0),
            (
                "corner of curves",
                |x| libm::exp(x).max(2.0 - libm::exp(-0.5 * x)),
                f64::NAN,
                f64::NAN,
            ),
            ("edge", |x| -x, 0.25 + STEP, -(0.25 + STEP)),
        ];
        for (name, shape, place, least) in cases {
            let start = if name == "edge" { 0.25 } else { 0.2 };
            let found = valley(shape, (shape(start), start));
            assert!(found.0 <= shape(start), "{name}: {found:?}");
            if least.is_nan() {
                // Against the best of very many places.
                let many = (0..=200_000).map(|k| shape(start - STEP + 2.5e-6 * f64::from(k)));
                let best = many.fold(f64::INFINITY, f64::min);
                assert!(found.0 <= best + 1e-11, "{name}: {found:?} {best}");
            } else {
                assert!(
                    (found.0 - least).abs() < 1e-6 * (1.0 + least.abs()),
                    "{name}: {found:?}"
                );
                assert!((found.1 - place).abs() < 1e-6, "{name}: {found:?}");
            }
            if name.starts_with("corner") && !place.is_nan() {
                assert!((found.1 - place).abs() < 1e-11, "{name}: {found:?}");
            }
        }
    }
}
