//! Axes: ranges, ticks and the panel that curves are drawn into.

use super::font::{self, Anchor};
use super::scene::{Mark, Rgb, Scene};
use super::style::{AXIS, GRID, INK, LABEL_SIZE, TICK_SIZE};

/// The range of an axis and its ticks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) ticks: Vec<f64>,
    logarithmic: bool,
    /// Where what is infinite has its place, beyond all that is finite.
    infinity: Option<f64>,
}

/// The room between the finite part of an axis and the place of infinity, and from there to the end, as
/// shares of the finite part.
const TO_INFINITY: f64 = 0.14;
const BEYOND_INFINITY: f64 = 0.04;

impl Axis {
    /// Round ticks, about `wanted` of them, over at least `low ..= high`. The range ends at ticks.
    pub(crate) fn linear(low: f64, high: f64, wanted: usize) -> Self {
        let step = step(high - low, wanted).max(f64::MIN_POSITIVE);
        let first = (low / step + 1e-9).floor();
        let last = (high / step - 1e-9).ceil().max(first + 1.0);
        let count = (last - first).min(1000.0) as u32;
        let ticks: Vec<f64> = (0..=count)
            .map(|index| round_to((first + f64::from(index)) * step, step))
            .collect();
        Self {
            low: ticks[0],
            high: *ticks.last().unwrap_or(&1.0),
            ticks,
            logarithmic: false,
            infinity: None,
        }
    }

    /// Exactly `low ..= high`, with the round ticks inside.
    pub(crate) fn exact(low: f64, high: f64, wanted: usize) -> Self {
        let around = Self::linear(low, high, wanted);
        let slack = (high - low) * 1e-9;
        Self {
            low,
            high,
            ticks: around
                .ticks
                .into_iter()
                .filter(|&tick| tick >= low - slack && tick <= high + slack)
                .collect(),
            logarithmic: false,
            infinity: None,
        }
    }

    /// Logarithmic, for `0 < low < high`; ticks at 1, 2 and 5 times powers of ten, fewer over many
    /// decades.
    pub(crate) fn logarithmic(low: f64, high: f64) -> Self {
        let decades = (high / low).log10();
        let digits: &[f64] = if decades > 4.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let mut ticks = Vec::new();
        for power in (low.log10().floor() as i32)..=(high.log10().ceil() as i32) {
            for digit in digits {
                ticks.push(digit * 10f64.powi(power));
            }
        }
        let start = ticks.iter().rposition(|&tick| tick <= low * 1.0001);
        let end = ticks.iter().position(|&tick| tick >= high * 0.9999);
        let ticks = ticks[start.unwrap_or(0)..=end.unwrap_or(ticks.len() - 1)].to_vec();
        Self {
            low: ticks[0],
            high: *ticks.last().unwrap_or(&high),
            ticks,
            logarithmic: true,
            infinity: None,
        }
    }

    /// Logarithmic over exactly `low ..= high`, with the round ticks inside.
    pub(crate) fn logarithmic_exact(low: f64, high: f64) -> Self {
        let around = Self::logarithmic(low, high);
        let inside = |tick: &f64| *tick >= low * (1.0 - 1e-9) && *tick <= high * (1.0 + 1e-9);
        Self {
            low,
            high,
            ticks: around.ticks.into_iter().filter(inside).collect(),
            ..around
        }
    }

    /// Whether a value has a place on it, be it beyond an end: nothing at or below zero has one where
    /// the axis is logarithmic.
    pub(crate) fn knows(&self, value: f64) -> bool {
        !self.logarithmic || value > 0.0
    }

    /// With a place for what is infinite at its end.
    pub(crate) fn with_infinity(mut self) -> Self {
        let beyond = |share: f64| match self.logarithmic {
            true => self.high * (self.high / self.low).powf(share),
            false => self.high + (self.high - self.low) * share,
        };
        let place = beyond(TO_INFINITY);
        let end = beyond(TO_INFINITY + BEYOND_INFINITY);
        // The last finite tick would touch the sign for the break.
        self.infinity = Some(place);
        self.ticks.push(place);
        self.high = end;
        self
    }

    /// Where the finite part ends and that of infinity begins, as shares of the axis; none where
    /// infinity has no place.
    pub(crate) fn broken(&self) -> Option<f64> {
        let place = self.infinity?;
        let finite = self.ticks.iter().rev().nth(1).copied()?;
        Some(f64::midpoint(self.share(finite), self.share(place)))
    }

    /// With as many of its ticks as have room on so many pixels; all where they fit.
    pub(crate) fn fitted(mut self, room: f64) -> Self {
        let fits = |axis: &Self| {
            let half = |tick: f64| font::width(&axis.label(tick), TICK_SIZE) / 2.0;
            axis.ticks.windows(2).all(|pair| {
                let apart = (axis.share(pair[1]) - axis.share(pair[0])) * room;
                apart >= half(pair[0]) + half(pair[1]) + 6.0
            })
        };
        let infinity = self.infinity;
        if !fits(&self) && self.logarithmic {
            let decade = |tick: &f64| {
                let power = tick.log10();
                (power - power.round()).abs() < 1e-6 || Some(*tick) == infinity
            };
            let decades: Vec<f64> = self.ticks.iter().copied().filter(decade).collect();
            if decades.len() > 1 + usize::from(infinity.is_some()) {
                self.ticks = decades;
            }
        }
        while !fits(&self) && self.ticks.len() > 2 {
            let finite = self
                .ticks
                .iter()
                .copied()
                .filter(|&tick| Some(tick) != infinity);
            self.ticks = finite.step_by(2).chain(infinity).collect();
            if self.ticks.len() <= 2 {
                break;
            }
        }
        self
    }

    /// Where `value` lies: 0 at `low`, 1 at `high`.
    pub(crate) fn share(&self, value: f64) -> f64 {
        let value = match self.infinity {
            Some(place) if value.is_infinite() => place,
            _ => value,
        };
        if self.logarithmic {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// The tick as text, with the digits that tell it from its neighbours.
    pub(crate) fn label(&self, tick: f64) -> String {
        if self.infinity == Some(tick) {
            return "∞".to_owned();
        }
        let step = if self.logarithmic {
            tick
        } else {
            self.ticks
                .windows(2)
                .filter(|pair| Some(pair[1]) != self.infinity)
                .map(|pair| pair[1] - pair[0])
                .fold(f64::INFINITY, f64::min)
        };
        // A single tick has no neighbour.
        number(tick, if step.is_finite() { step } else { tick })
    }
}

/// The round step (1, 2, 2.5 or 5 times a power of ten) nearest to a `wanted`-th of `range`.
fn step(range: f64, wanted: usize) -> f64 {
    let rough = if range > 0.0 {
        range / wanted.max(1) as f64
    } else {
        0.1
    };
    let power = 10f64.powi(rough.log10().floor() as i32);
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .min_by(|a, b| {
            let far = |step: f64| (step / rough).ln().abs();
            far(*a).total_cmp(&far(*b))
        })
        .unwrap_or(power)
}

/// Takes away the dust of `k * step`.
fn round_to(value: f64, step: f64) -> f64 {
    let digits = decimals(step);
    let scale = 10f64.powi(digits as i32);
    if scale.is_finite() && (value * scale).abs() < 1e15 {
        (value * scale).round() / scale
    } else {
        value
    }
}

/// Decimal places of a round step.
fn decimals(step: f64) -> usize {
    let mut digits = 0;
    let mut scaled = step.abs();
    while digits < 12 && (scaled - scaled.round()).abs() > 1e-6 * scaled {
        scaled *= 10.0;
        digits += 1;
    }
    digits
}

/// A tick's label: a true minus sign, thousands apart, powers of ten as such.
pub(crate) fn number(value: f64, step: f64) -> String {
    let size = value.abs();
    if size >= 1e6 || (size > 0.0 && size < 1e-4) {
        return format!("{value:e}").replace('-', "−");
    }
    let text = format!("{size:.*}", decimals(step));
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (text.as_str(), String::new()),
    };
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && whole.len() > 4 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{grouped}{fraction}")
}

/// The rectangle of a figure that has axes.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
}

impl Panel {
    pub(crate) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    pub(crate) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (
            self.left + self.x.share(x) * self.width,
            self.bottom() - self.y.share(y) * self.height,
        )
    }

    /// Room that the labels of the vertical axis need to its left, its title included.
    pub(crate) fn left_room(y: &Axis) -> f64 {
        let labels = y
            .ticks
            .iter()
            .map(|&tick| font::width(&y.label(tick), TICK_SIZE))
            .fold(0.0, f64::max);
        labels + 7.0 + 10.0 + LABEL_SIZE + 4.0
    }

    /// Draws grid, axes, ticks and titles.
    pub(crate) fn frame(&self, scene: &mut Scene, x_title: &str, y_title: &str) {
        let (right, bottom) = (self.right(), self.bottom());
        for &tick in &self.y.ticks {
            let (_, y) = self.at(self.x.low, tick);
            scene.line(vec![(self.left, y), (right, y)], 0.7, GRID);
        }
        self.axes(scene, x_title, y_title);
        for &tick in &self.y.ticks {
            let (_, y) = self.at(self.x.low, tick);
            scene.text(
                (self.left - 7.0, y + 0.36 * TICK_SIZE),
                self.y.label(tick),
                TICK_SIZE,
                INK,
                Anchor::End,
            );
        }
        for &tick in &self.x.ticks {
            let (x, _) = self.at(tick, self.y.low);
            scene.line(vec![(x, bottom), (x, bottom + 4.0)], 0.9, AXIS);
            scene.text(
                (x, bottom + 7.0 + TICK_SIZE),
                self.x.label(tick),
                TICK_SIZE,
                INK,
                Anchor::Middle,
            );
        }
    }

    /// Draws the lower axis and the titles only.
    pub(crate) fn axes(&self, scene: &mut Scene, x_title: &str, y_title: &str) {
        let (right, bottom) = (self.right(), self.bottom());
        scene.line(vec![(self.left, bottom), (right, bottom)], 0.9, AXIS);
        scene.text(
            (
                self.left + self.width / 2.0,
                bottom + 14.0 + TICK_SIZE + LABEL_SIZE,
            ),
            x_title,
            LABEL_SIZE,
            INK,
            Anchor::Middle,
        );
        if y_title.is_empty() {
            return;
        }
        scene.marks.push(Mark::Text {
            at: (
                self.left - Self::left_room(&self.y) + LABEL_SIZE,
                self.top + self.height / 2.0,
            ),
            text: y_title.to_owned(),
            size: LABEL_SIZE,
            color: INK,
            anchor: Anchor::Middle,
            upwards: true,
        });
    }

    /// The curve through `points` (in the axes' units), cut at all four edges.
    pub(crate) fn cut(&self, points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
        let turned = |piece: &[(f64, f64)]| -> Vec<(f64, f64)> {
            piece.iter().map(|&(x, y)| (y, x)).collect()
        };
        let mut pieces = Vec::new();
        for piece in self.clip(points) {
            // The same with the coordinates exchanged.
            let across = clip_path(&turned(&piece), self.left, self.right());
            pieces.extend(across.iter().map(|piece| turned(piece)));
        }
        pieces
    }

    /// The part of an area (in the axes' units) that is within the panel.
    pub(crate) fn area(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let placed: Vec<(f64, f64)> = points.iter().map(|&(x, y)| self.at(x, y)).collect();
        let (low, high) = ((self.left, self.top), (self.right(), self.bottom()));
        clip_polygon(&placed, low, high)
    }

    /// Whether a point (in the axes' units) is within the panel.
    pub(crate) fn holds(&self, x: f64, y: f64) -> bool {
        let (x, y) = self.at(x, y);
        let slack = 0.1;
        x >= self.left - slack
            && x <= self.right() + slack
            && y >= self.top - slack
            && y <= self.bottom() + slack
    }

    /// The curve through `points` (in the axes' units), cut at the panel's upper and lower edge.
    pub(crate) fn clip(&self, points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
        let placed: Vec<(f64, f64)> = points.iter().map(|&(x, y)| self.at(x, y)).collect();
        clip_path(&placed, self.top, self.bottom())
    }
}

/// The pieces of a path that lie between `top` and `bottom`.
fn clip_path(points: &[(f64, f64)], top: f64, bottom: f64) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = Vec::new();
    let mut piece: Vec<(f64, f64)> = Vec::new();
    for pair in points.windows(2) {
        let Some((from, to)) = clip_segment(pair[0], pair[1], top, bottom) else {
            pieces.push(core::mem::take(&mut piece));
            continue;
        };
        if piece.last() != Some(&from) {
            pieces.push(core::mem::take(&mut piece));
            piece.push(from);
        }
        piece.push(to);
    }
    pieces.push(piece);
    pieces.retain(|piece| piece.len() > 1);
    pieces
}

/// The polygon's part within the rectangle from `low` to `high` (Sutherland and Hodgman 1974,
/// "Reentrant Polygon Clipping", CACM 17(1)).
fn clip_polygon(points: &[(f64, f64)], low: (f64, f64), high: (f64, f64)) -> Vec<(f64, f64)> {
    // How far inside a point is of each of the four edges.
    type Inside = fn((f64, f64), (f64, f64), (f64, f64)) -> f64;
    let edges: [Inside; 4] = [
        |point, low, _| point.0 - low.0,
        |point, _, high| high.0 - point.0,
        |point, low, _| point.1 - low.1,
        |point, _, high| high.1 - point.1,
    ];
    let mut points = points.to_vec();
    for inside in edges {
        let mut kept = Vec::new();
        let before = points.iter().cycle().skip(points.len().saturating_sub(1));
        for (&from, &to) in before.zip(&points) {
            let (a, b) = (inside(from, low, high), inside(to, low, high));
            if (a < 0.0) != (b < 0.0) {
                let share = a / (a - b);
                kept.push((
                    from.0 + (to.0 - from.0) * share,
                    from.1 + (to.1 - from.1) * share,
                ));
            }
            if b >= 0.0 {
                kept.push(to);
            }
        }
        points = kept;
    }
    points
}

fn clip_segment(
    a: (f64, f64),
    b: (f64, f64),
    top: f64,
    bottom: f64,
) -> Option<((f64, f64), (f64, f64))> {
    if !(a.0 + a.1 + b.0 + b.1).is_finite() || a.1.max(b.1) < top || a.1.min(b.1) > bottom {
        return None;
    }
    let cut = |point: (f64, f64)| {
        let y = point.1.clamp(top, bottom);
        if (y - point.1).abs() < 1e-12 {
            point
        } else {
            (a.0 + (b.0 - a.0) * (y - a.1) / (b.1 - a.1), y)
        }
    };
    Some((cut(a), cut(b)))
}

/// `line` in dashes of the given lengths, `on` and `off` by turns.
pub(crate) fn dashes(line: &[(f64, f64)], pattern: &[f64]) -> Vec<Vec<(f64, f64)>> {
    if pattern.is_empty() {
        return vec![line.to_vec()];
    }
    let mut pieces = Vec::new();
    let (mut turn, mut left) = (0, pattern[0]);
    let mut piece = vec![line[0]];
    for pair in line.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        loop {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            if length <= left {
                left -= length;
                piece.push(to);
                break;
            }
            let share = left / length;
            from = (
                from.0 + (to.0 - from.0) * share,
                from.1 + (to.1 - from.1) * share,
            );
            piece.push(from);
            let done = core::mem::replace(&mut piece, vec![from]);
            if turn % 2 == 0 {
                pieces.push(done);
            }
            turn += 1;
            left = pattern[turn % pattern.len()];
        }
    }
    if turn % 2 == 0 && piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

/// A swatch of a series, for legends.
pub(crate) fn swatch(scene: &mut Scene, at: (f64, f64), color: Rgb, pattern: &[f64]) {
    for piece in dashes(&[at, (at.0 + 22.0, at.1)], pattern) {
        scene.line(piece, 2.2, color);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        let cases: &[(f64, f64, &[&str])] = &[
            (0.0, 100.0, &["0", "20", "40", "60", "80", "100"]),
            (83.1, 91.7, &["82", "84", "86", "88", "90", "92"]),
            (
                0.12,
                0.61,
                &["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"],
            ),
            (-0.3, 0.2, &["−0.3", "−0.2", "−0.1", "0.0", "0.1", "0.2"]),
            (
                0.0,
                49_000.0,
                &["0", "10,000", "20,000", "30,000", "40,000", "50,000"],
            ),
            (5.0, 5.0, &["5.0", "5.1"]),
        ];
        for (low, high, labels) in cases {
            let axis = Axis::linear(*low, *high, 5);
            let found: Vec<_> = axis.ticks.iter().map(|&tick| axis.label(tick)).collect();
            assert_eq!(&found, labels, "{low} {high}");
            assert!(axis.low <= *low && axis.high >= *high);
        }
    }

    #[test]
    fn logarithmic_ticks_cover_the_range() {
        let axis = Axis::logarithmic(0.03, 12.0);
        let labels: Vec<_> = axis.ticks.iter().map(|&tick| axis.label(tick)).collect();
        assert_eq!(
            labels,
            [
                "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20"
            ]
        );
        assert!((axis.share(axis.low)).abs() < 1e-12);
        assert!((axis.share(axis.high) - 1.0).abs() < 1e-12);
        assert_eq!(Axis::logarithmic(1.0, 1e6).ticks.len(), 7);
    }

    fn panel() -> Panel {
        Panel {
            left: 0.0,
            top: 0.0,
            width: 100.0,
            height: 100.0,
            x: Axis::exact(0.0, 10.0, 5),
            y: Axis::exact(0.0, 10.0, 5),
        }
    }

    #[test]
    fn curves_are_cut_at_the_edges() {
        let pieces = panel().clip(&[(0.0, -5.0), (1.0, 5.0), (2.0, 15.0), (3.0, 5.0)]);
        assert_eq!(
            pieces,
            [
                vec![(5.0, 100.0), (10.0, 50.0), (15.0, 0.0)],
                vec![(25.0, 0.0), (30.0, 50.0)]
            ]
        );
        let outside = panel().clip(&[(0.0, 20.0), (1.0, 30.0)]);
        assert!(outside.is_empty());
        let gap = panel().clip(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0), (3.0, 1.0)]);
        assert_eq!(gap.len(), 1);
    }

    #[test]
    fn areas_and_curves_end_at_the_panel() {
        // A square of side 10 around the corner of the panel: a quarter of it is inside.
        let corner = [(-5.0, -5.0), (5.0, -5.0), (5.0, 5.0), (-5.0, 5.0)];
        let mut inside = panel().area(&corner);
        inside.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        assert_eq!(
            inside,
            [(0.0, 50.0), (0.0, 100.0), (50.0, 50.0), (50.0, 100.0)]
        );
        assert!(
            panel()
                .area(&[(20.0, 1.0), (30.0, 1.0), (30.0, 5.0)])
                .is_empty()
        );
        let pieces = panel().cut(&[(-5.0, 0.0), (5.0, 10.0), (15.0, 0.0)]);
        assert_eq!(pieces, [vec![(0.0, 50.0), (50.0, 0.0), (100.0, 50.0)]]);
    }

    #[test]
    fn infinity_has_a_place_of_its_own() {
        let axis = Axis::linear(0.0, 8.0, 4).with_infinity();
        let labels: Vec<_> = axis.ticks.iter().map(|&tick| axis.label(tick)).collect();
        assert_eq!(labels, ["0", "2", "4", "6", "8", "∞"]);
        // 8, then 0.14 of the 8 to infinity, then 0.04 to the end.
        assert!((axis.share(f64::INFINITY) - 1.14 / 1.18).abs() < 1e-12);
        assert!((axis.share(8.0) - 1.0 / 1.18).abs() < 1e-12);
        assert!((axis.broken().unwrap() - 1.07 / 1.18).abs() < 1e-12);
        let axis = Axis::logarithmic(0.5, 8.0).with_infinity();
        let labels: Vec<_> = axis.ticks.iter().map(|&tick| axis.label(tick)).collect();
        assert_eq!(labels, ["0.5", "1", "2", "5", "10", "∞"]);
        assert!((axis.share(f64::INFINITY) - 1.14 / 1.18).abs() < 1e-12);
        assert_eq!(Axis::linear(0.0, 1.0, 2).broken(), None);
    }

    #[test]
    fn ticks_give_way_where_there_is_no_room() {
        let axis = Axis::logarithmic(1.0, 1000.0).fitted(60.0);
        let labels: Vec<_> = axis.ticks.iter().map(|&tick| axis.label(tick)).collect();
        assert_eq!(labels, ["1", "100"]);
        let wide = Axis::logarithmic(1.0, 1000.0);
        assert_eq!(wide.clone().fitted(900.0), wide);
        let axis = Axis::linear(0.0, 10_000.0, 5).with_infinity().fitted(80.0);
        assert!(axis.ticks.len() <= 3);
        assert_eq!(axis.label(*axis.ticks.last().unwrap()), "∞");
    }

    #[test]
    fn logarithmic_limits_are_kept() {
        let axis = Axis::logarithmic_exact(0.3, 30.0);
        assert_eq!((axis.low, axis.high), (0.3, 30.0));
        assert_eq!(axis.ticks, [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        assert!(axis.knows(0.001) && !axis.knows(0.0));
        assert!(Axis::linear(1.0, 2.0, 3).knows(-5.0));
    }

    #[test]
    fn dashes_have_their_lengths() {
        let pieces = dashes(&[(0.0, 0.0), (10.0, 0.0)], &[4.0, 2.0]);
        assert_eq!(
            pieces,
            [vec![(0.0, 0.0), (4.0, 0.0)], vec![(6.0, 0.0), (10.0, 0.0)]]
        );
        let total: f64 = dashes(&[(0.0, 0.0), (3.0, 4.0), (3.0, 104.0)], &[3.0, 3.0])
            .iter()
            .flat_map(|piece| piece.windows(2))
            .map(|pair| (pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1))
            .sum();
        assert!((total - 54.0).abs() < 1e-9, "{total}");
    }
}
