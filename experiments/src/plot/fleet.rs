//! What a fleet's devices did: accuracy against virtual time, energy and bytes, who took part how
//! often, and who was there at which hour of the day. The course of rounds is in [`timeline`], the time
//! to an accuracy in [`target`].
//!
//! Times and energies are modelled.

mod target;
mod timeline;

use std::collections::BTreeMap;

use crate::results::VariantResults;

use super::axis::{Axis, Panel, number};
use super::curves::{self, Across, Curve, Kind, Quantity};
use super::font::Anchor;
use super::scene::Scene;
use super::style::{AXIS, GRID, INK, LABEL_SIZE, TICK_SIZE};

/// A variant and what it is called.
pub(crate) struct Run<'a> {
    pub(crate) label: &'a str,
    pub(crate) variant: &'a VariantResults,
}

/// Every figure of the runs on devices, with its name.
pub(crate) fn draw(subtitle: &str, runs: &[Run<'_>]) -> Vec<(String, Scene)> {
    if runs.iter().all(|run| run.variant.fleet.is_empty()) {
        return Vec::new();
    }
    let mut figures = Vec::new();
    let mut add = |name: &str, scene: Option<Scene>| {
        figures.extend(scene.map(|scene| (name.to_owned(), scene)));
    };
    for spent in [Spent::Time, Spent::Energy, Spent::Bytes] {
        add(spent.file(), accuracy(subtitle, spent, runs));
    }
    add("time-to-accuracy", target::draw(subtitle, runs));
    add("eligible", eligible(subtitle, runs));
    add("participation", participation(subtitle, runs));
    figures.extend(timeline::draw(runs));
    figures
}

/// A unit, and how many of the base unit it is.
pub(super) type Unit = (&'static str, f64);

pub(super) const TIME: &[Unit] = &[("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)];
pub(super) const ENERGY: &[Unit] = &[
    ("J", 1.0),
    ("kJ", 1e3),
    ("MJ", 1e6),
    ("kWh", 3.6e6),
    ("MWh", 3.6e9),
];
pub(super) const BYTES: &[Unit] = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("PB", 1e15),
];

/// The largest unit of which `most` is at least two; the smallest where there is none. Kilowatt hours
/// come after ten of them, as they are little more than megajoules.
pub(super) fn unit(units: &[Unit], most: f64) -> Unit {
    let fits = |&&(name, size): &&Unit| most >= size * if name == "kWh" { 10.0 } else { 2.0 };
    let found = units.iter().rev().find(fits).or(units.first());
    found.copied().unwrap_or(("", 1.0))
}

/// What accuracy is drawn against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spent {
    Time,
    Energy,
    Bytes,
}

impl Spent {
    fn file(self) -> &'static str {
        match self {
            Self::Time => "accuracy-time",
            Self::Energy => "accuracy-energy",
            Self::Bytes => "accuracy-bytes",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Time => "virtual time",
            Self::Energy => "energy",
            Self::Bytes => "bytes",
        }
    }

    /// The title of the axis, without the unit.
    fn axis(self) -> &'static str {
        match self {
            Self::Time => "Virtual time",
            Self::Energy => "Energy of training on devices, modelled",
            Self::Bytes => "Models and updates sent",
        }
    }

    fn units(self) -> &'static [Unit] {
        match self {
            Self::Time => TIME,
            Self::Energy => ENERGY,
            Self::Bytes => BYTES,
        }
    }

    /// By rounds done, what was spent until then; energy up to the first round whose joules are not
    /// told.
    fn so_far(self, variant: &VariantResults) -> BTreeMap<u64, f64> {
        let mut all = BTreeMap::from([(0, 0.0)]);
        let mut sum = 0.0;
        match self {
            Self::Time => {
                all.extend(
                    variant
                        .fleet
                        .iter()
                        .map(|row| (row.round + 1, row.ended_seconds)),
                );
            }
            Self::Energy => {
                for row in &variant.fleet {
                    let Some(joules) = row.spent_joules() else {
                        break;
                    };
                    sum += joules;
                    all.insert(row.round + 1, sum);
                }
            }
            Self::Bytes => {
                for row in &variant.rounds {
                    sum += row.bytes_down as f64 + row.bytes_up as f64;
                    all.insert(row.round + 1, sum);
                }
            }
        }
        all
    }
}

/// Accuracy against what was spent; none where nothing was, or nothing is told of it.
fn accuracy(subtitle: &str, spent: Spent, runs: &[Run<'_>]) -> Option<Scene> {
    let mut curves: Vec<Curve> = runs
        .iter()
        .enumerate()
        .filter(|(_, run)| !run.variant.fleet.is_empty())
        .map(|(index, run)| {
            let so_far = spent.so_far(run.variant);
            let evaluations = run.variant.evaluations.iter();
            let points = evaluations.filter_map(|row| {
                let accuracy = row.test_accuracy?;
                Some((*so_far.get(&row.round)?, accuracy * 100.0))
            });
            Curve {
                label: run.label.to_owned(),
                index,
                points: points.collect(),
            }
        })
        .collect();
    // The initial model alone is no curve.
    curves.retain(|curve| curve.points.iter().any(|point| point.0 > 0.0));
    let (name, size) = unit(spent.units(), curves::farthest(&curves));
    for point in curves.iter_mut().flat_map(|curve| &mut curve.points) {
        point.0 /= size;
    }
    let most = curves::farthest(&curves);
    let across = Across {
        title: format!("{} ({name})", spent.axis()),
        axis: Axis::exact(0.0, most, 6),
    };
    let quantity = Quantity {
        title: format!("Test accuracy against {}", spent.title()),
        y_title: "Test accuracy (%)".to_owned(),
        kind: Kind::Percent,
    };
    if most > 0.0 {
        curves::draw_across(&quantity, subtitle, &across, &curves)
    } else {
        None
    }
}

/// Draws the lower axis and its grid, for rows that have no other axis.
pub(super) fn across_axis(scene: &mut Scene, panel: &Panel, title: &str) {
    let (top, bottom) = (panel.top, panel.bottom());
    for &tick in &panel.x.ticks {
        let (x, _) = panel.at(tick, 0.0);
        scene.line(vec![(x, top), (x, bottom)], 0.7, GRID);
        let at = (x, bottom + 7.0 + TICK_SIZE);
        scene.text(at, panel.x.label(tick), TICK_SIZE, INK, Anchor::Middle);
    }
    scene.line(
        vec![(panel.left, bottom), (panel.right(), bottom)],
        0.9,
        AXIS,
    );
    let at = (
        panel.left + panel.width / 2.0,
        bottom + 14.0 + TICK_SIZE + LABEL_SIZE,
    );
    scene.text(at, title, LABEL_SIZE, INK, Anchor::Middle);
}

/// Hours of the day that must have been seen for the figure of the day.
const HOURS_SEEN: usize = 4;

/// The share of those asked that were eligible, by the hour of the virtual day; none of a run that is
/// over in a few hours.
fn eligible(subtitle: &str, runs: &[Run<'_>]) -> Option<Scene> {
    let curves: Vec<Curve> = runs
        .iter()
        .enumerate()
        .map(|(index, run)| Curve {
            label: run.label.to_owned(),
            index,
            points: by_hour(run.variant),
        })
        .filter(|curve| {
            let seen = curve.points.iter().filter(|point| point.1.is_finite());
            seen.count() >= HOURS_SEEN
        })
        .collect();
    let quantity = Quantity {
        title: "Eligible devices over the day".to_owned(),
        y_title: "Eligible, of those asked (%)".to_owned(),
        kind: Kind::FromZero,
    };
    let mut axis = Axis::exact(0.0, 24.0, 8);
    axis.ticks = (0..=8).map(|third| f64::from(third) * 3.0).collect();
    let across = Across {
        title: "Hour of the virtual day (UTC)".to_owned(),
        axis,
    };
    curves::draw_across(&quantity, subtitle, &across, &curves)
}

/// At the middle of each hour, the eligible per cent of those asked in it, on whatever day; not a
/// number where nobody was asked.
fn by_hour(variant: &VariantResults) -> Vec<(f64, f64)> {
    let first = start_hour(variant);
    let mut hours = [(0_u64, 0_u64); 24];
    for row in &variant.fleet {
        let hour = (first + row.started_seconds / 3600.0).rem_euclid(24.0);
        let (asked, eligible) = &mut hours[(hour.floor() as usize).min(23)];
        *asked += row.asked;
        *eligible += row.eligible;
    }
    let share = |(hour, &(asked, eligible)): (usize, &(u64, u64))| {
        let share = match asked {
            0 => f64::NAN,
            _ => 100.0 * eligible as f64 / asked as f64,
        };
        (hour as f64 + 0.5, share)
    };
    hours.iter().enumerate().map(share).collect()
}

/// The hour at which virtual time began.
fn start_hour(variant: &VariantResults) -> f64 {
    let fleet = variant.manifest.config.get("fleet");
    let hour = fleet.and_then(|fleet| fleet.get("start_hour"));
    let number = |value: &toml::Value| value.as_float().or(value.as_integer().map(|n| n as f64));
    hour.and_then(number).unwrap_or(0.0)
}

/// How often each client's update counted, those whose did most often first; none without a timeline.
fn participation(subtitle: &str, runs: &[Run<'_>]) -> Option<Scene> {
    let curves: Vec<Curve> = runs
        .iter()
        .enumerate()
        .filter(|(_, run)| !run.variant.timeline.is_empty())
        .map(|(index, run)| {
            let counts = counted(run.variant);
            let of = run.variant.manifest.dataset.clients as f64;
            Curve {
                label: format!(
                    "{}, {} of {}",
                    run.label,
                    number(counts.len() as f64, 1.0),
                    number(of, 1.0),
                ),
                index,
                points: stairs(&counts),
            }
        })
        .collect();
    let quantity = Quantity {
        title: "How often a client took part".to_owned(),
        y_title: "Updates of a client that counted".to_owned(),
        kind: Kind::FromZero,
    };
    let across = Across {
        title: "Clients that took part, the most frequent first".to_owned(),
        axis: Axis::exact(0.0, curves::farthest(&curves).max(1.0), 6),
    };
    curves::draw_across(&quantity, subtitle, &across, &curves)
}

/// How many updates of each client counted, in falling order.
fn counted(variant: &VariantResults) -> Vec<u64> {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for part in variant.timeline.iter().filter(|part| part.end == "counted") {
        *counts.entry(part.client).or_default() += 1;
    }
    let mut counts: Vec<u64> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

/// A staircase through falling counts.
fn stairs(counts: &[u64]) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut before = 0.0;
    for level in counts.chunk_by(|a, b| a == b) {
        let Some(&count) = level.first() else {
            continue;
        };
        points.push((before, count as f64));
        before += level.len() as f64;
        points.push((before, count as f64));
    }
    points
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::made_up::{self, blank};
    use crate::results::{EvaluationRow, FleetRow, TimelineRow};

    pub(in crate::plot) fn fleet_row(round: u64, started: f64, ended: f64) -> FleetRow {
        FleetRow {
            round,
            started_seconds: started,
            ended_seconds: ended,
            end: "applied".to_owned(),
            called: 3,
            ..blank()
        }
    }

    pub(in crate::plot) fn part(
        round: u64,
        client: u64,
        end: &str,
        from: f64,
        to: f64,
    ) -> TimelineRow {
        TimelineRow {
            round,
            client,
            device: "mid-20".to_owned(),
            started_seconds: from,
            downloaded_seconds: from,
            trained_seconds: to,
            ended_seconds: to,
            end: end.to_owned(),
            ..blank()
        }
    }

    pub(in crate::plot) fn evaluation(round: u64, accuracy: f64) -> EvaluationRow {
        EvaluationRow {
            round,
            test_accuracy: Some(accuracy),
            ..blank()
        }
    }

    /// Without any row, of this configuration.
    pub(in crate::plot) fn variant(config: &str) -> VariantResults {
        made_up::variant("a", config)
    }

    #[test]
    fn units_keep_numbers_short() {
        for (units, most, expected) in [
            (TIME, 0.5, "s"),
            (TIME, 119.0, "s"),
            (TIME, 120.0, "min"),
            (TIME, 7300.0, "h"),
            (TIME, 172_800.0, "d"),
            (ENERGY, 1999.0, "J"),
            (ENERGY, 2e6, "MJ"),
            (ENERGY, 3.5e7, "MJ"),
            (ENERGY, 3.6e7, "kWh"),
            (BYTES, 2.5e9, "GB"),
            (BYTES, 1.9e12, "GB"),
        ] {
            assert_eq!(unit(units, most).0, expected, "{most}");
        }
    }

    #[test]
    fn what_was_spent_adds_up() {
        let mut variant = variant("");
        variant.fleet = vec![
            fleet_row(0, 0.0, 5.0),
            fleet_row(1, 5.0, 5.0),
            fleet_row(2, 600.0, 610.0),
            fleet_row(3, 610.0, 620.0),
        ];
        // Nobody was there in the second round: no energy, and nothing to hide. In the third so few
        // trained that nothing is told.
        variant.fleet[0].joules = Some(2.5);
        variant.fleet[1].called = 0;
        variant.fleet[3].joules = Some(4.0);
        for round in 0..4 {
            variant.rounds.push(crate::results::RoundRow {
                round,
                bytes_down: 10,
                bytes_up: round,
                ..blank()
            });
        }
        let of = |spent: Spent| spent.so_far(&variant).into_iter().collect::<Vec<_>>();
        assert_eq!(
            of(Spent::Time),
            [(0, 0.0), (1, 5.0), (2, 5.0), (3, 610.0), (4, 620.0)]
        );
        assert_eq!(of(Spent::Energy), [(0, 0.0), (1, 2.5), (2, 2.5)]);
        assert_eq!(
            of(Spent::Bytes),
            [(0, 0.0), (1, 10.0), (2, 21.0), (3, 33.0), (4, 46.0)]
        );
    }

    #[test]
    fn hours_of_all_days_are_gathered() {
        let mut variant = variant("fleet.start_hour = 22.5");
        for (hours, asked, eligible) in [(0.0, 10, 4), (0.25, 30, 4), (2.0, 8, 2), (24.1, 10, 2)] {
            let mut row = fleet_row(0, hours * 3600.0, hours * 3600.0);
            (row.asked, row.eligible) = (asked, eligible);
            variant.fleet.push(row);
        }
        let hours = by_hour(&variant);
        assert_eq!(hours[22], (22.5, 20.0));
        assert_eq!(hours[0], (0.5, 25.0));
        assert_eq!(hours.iter().filter(|hour| hour.1.is_finite()).count(), 2);
    }

    #[test]
    fn counts_fall_in_stairs() {
        let mut variant = variant("");
        for (client, times) in [(5, 1), (2, 3), (9, 1)] {
            for round in 0..times {
                let part = part(round, client, "counted", 0.0, 1.0);
                variant.timeline.push(part);
            }
        }
        variant.timeline.push(part(0, 1, "late", 0.0, 1.0));
        let counts = counted(&variant);
        assert_eq!(counts, [3, 1, 1]);
        assert_eq!(
            stairs(&counts),
            [(0.0, 3.0), (1.0, 3.0), (1.0, 1.0), (3.0, 1.0)]
        );
        assert_eq!(stairs(&[]), []);
    }

    #[test]
    fn runs_without_devices_have_no_figure() {
        let mut plain = variant("");
        plain.evaluations.push(evaluation(0, 0.5));
        let run = |variant| Run {
            label: "a",
            variant,
        };
        assert!(draw("", &[run(&plain)]).is_empty());
        let mut timed = plain.clone();
        timed.fleet.push(fleet_row(0, 0.0, 30.0));
        timed.evaluations.push(evaluation(1, 0.75));
        let figures = draw("", &[run(&plain), run(&timed)]);
        let names: Vec<&str> = figures.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["accuracy-time"]);
        assert!(figures[0].1.svg().is_ok());
    }
}
