//! A figure of a given width: heading, one panel, and the names of its series.

use crate::config::plot::{Legend, PlotTable};

use super::axis::{Axis, Panel, dashes};
use super::curves::spread;
use super::font::{self, Anchor};
use super::scene::{Mark, Scene};
use super::style::{
    AXIS, INK, LABEL_SIZE, SOFT, TICK_SIZE, TITLE_SIZE, WHITE, darker, lighter, marker, series,
    shape,
};

/// Room at the left and right edge.
const MARGIN: f64 = 8.0;
/// Room below the panel for ticks and the axis' title.
const FOOT: f64 = 44.0;
/// Rows of names.
const ROW: f64 = 16.0;
/// A sample of a series before its name.
const SAMPLE: f64 = 30.0;
/// Between the panel and names beside it.
const GAP: f64 = 24.0;
/// The narrowest panel that names may leave beside them, as a share of the figure.
const NARROWEST: f64 = 0.52;

/// What is written around a panel. The title is that of the file, too.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x: String,
    pub(crate) y: String,
}

/// How a series is shown, and so its sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    /// A line without markers.
    Line,
    /// A line with markers.
    Marked,
    /// Markers alone.
    Marker,
}

/// The name of a series.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) label: String,
    /// Decides colour, dashes and shape.
    pub(crate) index: usize,
    /// Where it ends in the axes' units, for names at the ends.
    pub(crate) end: Option<(f64, f64)>,
}

/// A figure with its frame drawn.
pub(crate) struct Sheet {
    pub(crate) scene: Scene,
    pub(crate) panel: Panel,
    names: Vec<Name>,
    legend: Legend,
    sample: Sample,
    /// Upper edge of names below.
    below: f64,
}

/// Lines of at most `room` pixels, broken between words.
pub(crate) fn wrapped(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if font::width(&format!("{line} {word}"), size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The text, without its middle where it is wider than `room`: names begin with what is run and end
/// with how, or with the seed.
pub(crate) fn shortened(text: &str, size: f64, room: f64) -> String {
    if font::width(text, size) <= room {
        return text.to_owned();
    }
    let letters: Vec<char> = text.chars().collect();
    let between = [' ', '·'];
    let mut kept = (0..letters.len()).rev().map(|kept| {
        let (start, end) = (kept.div_ceil(2), letters.len() - kept / 2);
        let start: String = letters[..start].iter().collect();
        let end: String = letters[end..].iter().collect();
        format!(
            "{}…{}",
            start.trim_end_matches(between),
            end.trim_start_matches(between)
        )
    });
    let fits = kept.find(|short| short != "…" && font::width(short, size) <= room);
    fits.unwrap_or_default()
}

/// Writes title and subtitle within the width and returns their lower edge. An empty title of the
/// table leaves both to the caption.
pub(crate) fn heading(scene: &mut Scene, table: &PlotTable, words: &Words, width: f64) -> f64 {
    let room = width - 2.0 * MARGIN;
    let mut y = 8.0;
    if table.title.as_deref() == Some("") {
        return y;
    }
    for line in wrapped(&words.title, TITLE_SIZE, room) {
        y += TITLE_SIZE + 3.0;
        scene.text((MARGIN, y - 3.0), line, TITLE_SIZE, INK, Anchor::Start);
    }
    for line in wrapped(&words.subtitle, TICK_SIZE, room) {
        y += TICK_SIZE + 4.0;
        scene.text((MARGIN, y - 2.0), line, TICK_SIZE, SOFT, Anchor::Start);
    }
    y + 12.0
}

/// The height of the panel that is asked for, or that fits its width.
pub(crate) fn height(table: &PlotTable, width: f64) -> f64 {
    let fits = (width * 0.62).clamp(130.0, 330.0);
    table.height.unwrap_or(fits)
}

impl Sheet {
    /// Draws heading and frame. Names stand beside the panel where there is room for them, and else
    /// below; a single series needs none.
    pub(crate) fn new(
        table: &PlotTable,
        words: &Words,
        (x, y): (Axis, Axis),
        names: Vec<Name>,
        sample: Sample,
    ) -> Self {
        let width = table.width.pixels();
        let named = names.len() > 1;
        let widest = names
            .iter()
            .map(|name| font::width(&name.label, LABEL_SIZE))
            .fold(0.0, f64::max);
        let plain = width - MARGIN - Panel::left_room(&y);
        // A long title stands in lines beside one another.
        let upright = wrapped(&words.y, LABEL_SIZE, height(table, plain) + 12.0);
        let lines = upright.len().max(1) as f64;
        let left = MARGIN + Panel::left_room(&y) + (lines - 1.0) * (LABEL_SIZE + 2.0);
        let beside = GAP + SAMPLE + widest;
        let remains = width - left - beside - MARGIN;
        let fits = remains >= NARROWEST * width;
        let legend = match table.legend {
            _ if !named => Legend::None,
            Some(legend) => legend,
            None if fits => Legend::Right,
            None => Legend::Below,
        };
        let right = match legend {
            Legend::Right => beside.min(width * (1.0 - NARROWEST * 0.75) - left) + MARGIN,
            Legend::Below | Legend::None => {
                // Half of the last tick's label stands beyond the panel.
                let last = x
                    .ticks
                    .last()
                    .map_or(0.0, |&tick| font::width(&x.label(tick), TICK_SIZE) / 2.0);
                MARGIN + last
            }
        };
        let inner = (width - left - right).max(60.0);
        let mut scene = Scene::new(&words.title, width, 0.0);
        let top = heading(&mut scene, table, words, width) + 2.0;
        let mut panel_height = height(table, inner);
        if legend == Legend::Right && table.height.is_none() {
            panel_height = panel_height.max(ROW * names.len() as f64);
        }
        let panel = Panel {
            left,
            top,
            width: inner,
            height: panel_height,
            x: x.fitted(inner),
            y,
        };
        panel.frame(&mut scene, &words.x, "");
        for (place, line) in upright.into_iter().enumerate() {
            let x = MARGIN + LABEL_SIZE + place as f64 * (LABEL_SIZE + 2.0);
            scene.marks.push(Mark::Text {
                at: (x, panel.top + panel.height / 2.0),
                text: line,
                size: LABEL_SIZE,
                color: INK,
                anchor: Anchor::Middle,
                upwards: true,
            });
        }
        if let Some(share) = panel.x.broken() {
            break_axis(&mut scene, (panel.left + share * inner, panel.bottom()));
        }
        let below = panel.bottom() + FOOT;
        let mut sheet = Self {
            scene,
            panel,
            names,
            legend,
            sample,
            below,
        };
        let rows = match legend {
            Legend::Below => sheet.rows().last().map_or(0.0, |place| place.1 + 1.0),
            Legend::Right | Legend::None => 0.0,
        };
        sheet.scene.height =
            (below + rows * ROW + if rows > 0.0 { 6.0 } else { 2.0 }).ceil() as u32;
        sheet
    }

    /// Writes the name of a place under the panel at `x`, within `room`.
    pub(crate) fn name_place(&mut self, x: f64, name: &str, room: f64) {
        let base = self.panel.bottom() + 7.0 + TICK_SIZE;
        let name = shortened(name, TICK_SIZE, room);
        self.scene
            .text((x, base), name, TICK_SIZE, INK, Anchor::Middle);
    }

    /// Left edge and row of each name below the panel.
    fn rows(&self) -> Vec<(f64, f64)> {
        let (left, width) = (self.panel.left, f64::from(self.scene.width) - MARGIN);
        let (mut x, mut row) = (left, 0.0);
        self.names
            .iter()
            .map(|name| {
                let wide = SAMPLE + font::width(&name.label, LABEL_SIZE) + 14.0;
                if x > left && x + wide - 14.0 > width {
                    (x, row) = (left, row + 1.0);
                }
                let at = (x, row);
                x += wide;
                at
            })
            .collect()
    }

    /// Names the series and gives the figure.
    pub(crate) fn finish(mut self) -> Scene {
        match self.legend {
            Legend::None => {}
            Legend::Below => {
                for (name, (x, row)) in self.names.clone().iter().zip(self.rows()) {
                    let middle = self.below + 8.0 + row * ROW;
                    let room = f64::from(self.scene.width) - MARGIN - x - SAMPLE;
                    self.name(name, (x, middle), room);
                }
            }
            Legend::Right => self.names_beside(),
        }
        self.scene
    }

    /// Each name as near to the end of its series as the others allow, and joined to it.
    fn names_beside(&mut self) {
        let (top, bottom) = (self.panel.top, self.panel.bottom());
        let mut names = self.names.clone();
        let end = |name: &Name| name.end.map(|(x, y)| self.panel.at(x, y));
        let level = |name: &Name| end(name).map_or(bottom, |at| at.1.clamp(top, bottom));
        let at_ends = names.iter().all(|name| name.end.is_some());
        if at_ends {
            names.sort_by(|a, b| level(a).total_cmp(&level(b)).then(a.index.cmp(&b.index)));
        }
        let wanted: Vec<f64> = match at_ends {
            true => names.iter().map(level).collect(),
            false => vec![top; names.len()],
        };
        let places = spread(&wanted, ROW, top + 4.0, bottom - 2.0);
        let right = self.panel.right();
        let left = right + GAP;
        let joins: Vec<Option<(f64, f64)>> = names.iter().map(end).collect();
        for ((name, place), join) in names.iter().zip(places).zip(joins) {
            if let Some((x, y)) = join.filter(|_| at_ends) {
                let (color, _) = series(name.index);
                let y = y.clamp(top, bottom);
                let bend = vec![
                    (x + 5.0, y),
                    (right + 6.0, y),
                    (right + 16.0, place),
                    (right + 20.0, place),
                ];
                self.scene.line(bend, 0.9, lighter(color));
            }
            let room = f64::from(self.scene.width) - MARGIN - left - SAMPLE;
            self.name(name, (left, place), room);
        }
    }

    fn name(&mut self, name: &Name, (x, y): (f64, f64), room: f64) {
        let (color, pattern) = series(name.index);
        let scene = &mut self.scene;
        if self.sample != Sample::Marker {
            for dash in dashes(&[(x, y), (x + 24.0, y)], pattern) {
                scene.line(dash, 1.8, color);
            }
        }
        if self.sample != Sample::Line {
            marker(scene, shape(name.index), (x + 12.0, y), 3.2, color);
        }
        scene.text(
            (x + SAMPLE, y + 0.36 * LABEL_SIZE),
            shortened(&name.label, LABEL_SIZE, room),
            LABEL_SIZE,
            darker(color),
            Anchor::Start,
        );
    }
}

/// Two slanted strokes where an axis is broken.
fn break_axis(scene: &mut Scene, (x, y): (f64, f64)) {
    scene.polygon(
        vec![
            (x - 4.0, y + 4.0),
            (x, y - 4.0),
            (x + 4.0, y - 4.0),
            (x, y + 4.0),
        ],
        WHITE,
        1.0,
    );
    for from in [x - 4.0, x] {
        scene.line(vec![(from, y + 4.0), (from + 4.0, y - 4.0)], 0.9, AXIS);
    }
}

/// The axis of values that lie between `low` and `high`: as the table asks, or as the values do.
pub(crate) struct Span {
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// The range may end at round ticks beyond the values.
    pub(crate) rounded: bool,
    /// Zero is on the axis, where it is not logarithmic.
    pub(crate) from_zero: bool,
    /// The values are a share in per cent, which ends at 0 and 100.
    pub(crate) percent: bool,
}

/// Values over more than this factor are drawn on a logarithmic axis, unless the table says otherwise.
const DECADES: f64 = 30.0;

impl Span {
    /// Around values; infinite ones have no say.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        Self {
            low,
            high,
            rounded: true,
            from_zero: false,
            percent: false,
        }
    }

    /// The axis with about `wanted` ticks.
    pub(crate) fn axis(&self, limits: Option<[f64; 2]>, log: Option<bool>, wanted: usize) -> Axis {
        let given = limits.map(|[low, high]| (low, high));
        let (low, high) = given.unwrap_or((self.low, self.high));
        let suits = low > 0.0 && high > DECADES * low && !self.percent && !self.from_zero;
        // Nothing at or below zero has a place on a logarithmic axis.
        if log.unwrap_or(suits) && low > 0.0 {
            return match (given.is_some(), high > low) {
                (true, _) => Axis::logarithmic_exact(low, high),
                (false, false) => Axis::logarithmic(low / 2.0, low * 2.0),
                (false, true) if self.rounded => Axis::logarithmic(low, high),
                (false, true) => Axis::logarithmic_exact(low, high),
            };
        }
        if given.is_some() {
            return Axis::exact(low, high, wanted);
        }
        let low = if self.from_zero { low.min(0.0) } else { low };
        if self.percent {
            // At least two points, so that noise does not look like a trend.
            let middle = f64::midpoint(low, high);
            let (low, high) = (low.min(middle - 1.0), high.max(middle + 1.0));
            let axis = Axis::linear(low.max(0.0), high.min(100.0), wanted);
            return Axis::exact(axis.low.max(0.0), axis.high.min(100.0), wanted);
        }
        match self.rounded || high <= low {
            true => Axis::linear(low, high, wanted),
            false => Axis::exact(low, high, wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_cut_in_the_middle() {
        let lines = wrapped(
            "one two three four",
            10.0,
            font::width("one two", 10.0) + 1.0,
        );
        assert_eq!(lines, ["one two", "three", "four"]);
        assert!(wrapped("", 10.0, 50.0).is_empty());
        // A word that is too long stands alone.
        assert_eq!(wrapped("a incomprehensibility b", 10.0, 20.0).len(), 3);
        assert_eq!(shortened("short", 10.0, 100.0), "short");
        let label = "fedprox-mnist · mu1-90 · learning_rate 0.03 · seed 12";
        for (room, ends) in [
            (250.0, ("fedprox-mnist · mu1-90", "rate 0.03 · seed 12")),
            (120.0, ("fedprox", "seed 12")),
            (30.0, ("f", "2")),
        ] {
            let cut = shortened(label, 10.0, room);
            let (start, end) = cut.split_once('…').unwrap();
            assert!(label.starts_with(start) && label.ends_with(end), "{cut}");
            assert!(start.starts_with(ends.0) && end.ends_with(ends.1), "{cut}");
            assert!(!start.ends_with(' ') && !start.ends_with('·'), "{cut}");
            let width = font::width(&cut, 10.0);
            assert!(width <= room && width > room - 16.0, "{cut}: {width}");
        }
        assert_eq!(shortened("long", 10.0, 1.0), "");
    }

    #[test]
    fn axes_follow_the_values_or_the_table() {
        let percent = |values: &[f64]| Span {
            percent: true,
            ..Span::of(values.iter().copied())
        };
        let axis = percent(&[97.0, 99.9]).axis(None, None, 5);
        assert!(axis.low >= 95.0 && axis.high <= 100.0);
        let axis = percent(&[50.0]).axis(None, None, 5);
        assert!(axis.high - axis.low >= 2.0);
        // Hand-worked: 1 to 50 is more than a factor of 30.
        let span = Span::of([1.0, 50.0, f64::INFINITY, f64::NAN].into_iter());
        assert_eq!(
            span.axis(None, None, 5).ticks,
            [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
        );
        assert_eq!(span.axis(None, Some(false), 5).ticks[..2], [0.0, 10.0]);
        let axis = span.axis(Some([3.0, 30.0]), Some(true), 5);
        assert_eq!((axis.low, axis.high), (3.0, 30.0));
        assert_eq!(axis.ticks, [5.0, 10.0, 20.0]);
        // Values that cannot be on a logarithmic axis.
        let zero = Span::of([0.0, 100.0].into_iter());
        assert_eq!(zero.axis(None, Some(true), 5).ticks[..1], [0.0]);
        let one = Span::of([4.0].into_iter()).axis(None, Some(true), 5);
        assert!(one.low < 4.0 && one.high > 4.0);
        let none = Span::of([f64::NAN].into_iter()).axis(None, None, 5);
        assert!(none.low < none.high);
    }
}
