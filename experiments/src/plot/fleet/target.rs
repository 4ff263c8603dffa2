//! How long runs took to the accuracy at which they were to stop (`stop_at_accuracy`), in virtual time.
//!
//! A row for each variant; runs that differ in nothing but the seed are its points, and the bar is
//! their mean with one standard deviation (of the sample, with n - 1) to either side.

use crate::results::VariantResults;

use super::super::axis::{Axis, Panel};
use super::super::curves::heading;
use super::super::font::{self, Anchor};
use super::super::scene::{Mark, Scene};
use super::super::style::{GRID, INK, LABEL_SIZE, SOFT, darker, series};
use super::{Run, Spent, TIME, unit};

const ROW: f64 = 34.0;
const WIDTH: f64 = 420.0;

/// Runs that differ in nothing but the seed.
struct Group<'a> {
    label: &'a str,
    first: &'a VariantResults,
    /// Seconds to the target, of those that reached it.
    seconds: Vec<f64>,
    runs: usize,
}

impl Group<'_> {
    fn mean(&self) -> f64 {
        self.seconds.iter().sum::<f64>() / self.seconds.len() as f64
    }

    /// None of a single run.
    fn deviation(&self) -> Option<f64> {
        let others = (self.seconds.len() > 1).then_some(self.seconds.len() as f64 - 1.0)?;
        let mean = self.mean();
        let squares: f64 = self.seconds.iter().map(|one| (one - mean).powi(2)).sum();
        Some((squares / others).sqrt())
    }

    fn text(&self, (unit, size): super::Unit) -> String {
        let mut text = match self.deviation() {
            Some(deviation) => {
                format!("{:.1} ± {:.1} {unit}", self.mean() / size, deviation / size)
            }
            None => format!("{:.1} {unit}", self.mean() / size),
        };
        if self.runs > 1 || self.seconds.is_empty() {
            let reached = format!("{} of {}", self.seconds.len(), self.runs);
            text = match self.seconds.is_empty() {
                true => reached,
                false => format!("{text}, {reached}"),
            };
        }
        text
    }
}

/// The accuracy at which a run was to stop.
fn target(variant: &VariantResults) -> Option<f64> {
    variant.manifest.config.get("stop_at_accuracy")?.as_float()
}

/// Seconds until the first evaluation that reached the target.
fn seconds(variant: &VariantResults, target: f64) -> Option<f64> {
    let so_far = Spent::Time.so_far(variant);
    let mut evaluations = variant.evaluations.iter();
    let reached = evaluations.find(|row| row.test_accuracy >= Some(target))?;
    so_far.get(&reached.round).copied()
}

/// Whether nothing but the seed differs.
fn same(one: &VariantResults, other: &VariantResults) -> bool {
    let without = |variant: &VariantResults| {
        let mut config = variant.manifest.config.clone();
        config.remove("seed");
        config
    };
    one.manifest.name == other.manifest.name && without(one) == without(other)
}

fn groups<'a>(runs: &[Run<'a>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for run in runs.iter().filter(|run| !run.variant.fleet.is_empty()) {
        let Some(target) = target(run.variant) else {
            continue;
        };
        let known = groups
            .iter()
            .position(|group| same(group.first, run.variant));
        let index = known.unwrap_or_else(|| {
            groups.push(Group {
                label: run.label,
                first: run.variant,
                seconds: Vec::new(),
                runs: 0,
            });
            groups.len() - 1
        });
        groups[index].runs += 1;
        groups[index].seconds.extend(seconds(run.variant, target));
    }
    // Names of variants say enough unless two groups share one.
    let names: Vec<&str> = groups
        .iter()
        .map(|group| group.first.manifest.name.as_str())
        .collect();
    let clash = names
        .iter()
        .enumerate()
        .any(|(index, name)| names[..index].contains(name));
    if !clash {
        for group in &mut groups {
            group.label = &group.first.manifest.name;
        }
    }
    groups
}

/// The figure; none where no run was to stop at an accuracy, or none reached it.
pub(super) fn draw(subtitle: &str, runs: &[Run<'_>]) -> Option<Scene> {
    let groups = groups(runs);
    let highs = groups.iter().flat_map(|group| {
        let spread = group.deviation().unwrap_or(0.0);
        let most = group.seconds.iter().copied().fold(0.0, f64::max);
        (!group.seconds.is_empty()).then(|| most.max(group.mean() + spread))
    });
    let most = highs.fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let mut targets: Vec<String> = groups
        .iter()
        .filter_map(|group| target(group.first))
        .map(|target| format!("{:.3}", target * 100.0))
        .map(|text| text.trim_end_matches('0').trim_end_matches('.').to_owned())
        .collect();
    targets.dedup();
    let title = match targets.as_slice() {
        [one] => format!("Virtual time to a test accuracy of {one} %"),
        _ => "Virtual time to the test accuracy that was asked for".to_owned(),
    };
    let unit = unit(TIME, most);
    let names = groups
        .iter()
        .map(|group| font::width(group.label, LABEL_SIZE));
    let texts: Vec<String> = groups.iter().map(|group| group.text(unit)).collect();
    let room = texts
        .iter()
        .map(|text| font::width(text, LABEL_SIZE))
        .fold(0.0, f64::max);
    let panel = Panel {
        left: names.fold(0.0, f64::max) + 32.0,
        top: 56.0,
        width: WIDTH,
        height: ROW * groups.len() as f64,
        x: Axis::linear(0.0, most / unit.1, 6),
        y: Axis::exact(0.0, 1.0, 1),
    };
    let width = (panel.right() + 24.0 + room).max(24.0 + font::width(&title, 14.0));
    let mut scene = Scene::new(&title, width + 8.0, panel.bottom() + 56.0);
    heading(&mut scene, &title, subtitle);
    super::across_axis(&mut scene, &panel, &format!("Virtual time ({})", unit.0));
    for (index, (group, text)) in groups.iter().zip(texts).enumerate() {
        let y = panel.top + ROW * (index as f64 + 0.5);
        let (color, _) = series(index);
        let base = y + 0.36 * LABEL_SIZE;
        let name = (panel.left - 12.0, base);
        scene.text(name, group.label, LABEL_SIZE, darker(color), Anchor::End);
        let at = (panel.right() + 16.0, base);
        let ink = if group.seconds.is_empty() { SOFT } else { INK };
        scene.text(at, text, LABEL_SIZE, ink, Anchor::Start);
        let x = |seconds: f64| panel.at(seconds / unit.1, 0.0).0;
        scene.line(vec![(panel.left, y), (panel.right(), y)], 0.7, GRID);
        if group.seconds.is_empty() {
            continue;
        }
        if let Some(deviation) = group.deviation() {
            let (low, high) = (group.mean() - deviation, group.mean() + deviation);
            let (low, high) = (x(low.max(0.0)), x(high));
            scene.line(vec![(low, y), (high, y)], 1.8, color);
            for end in [low, high] {
                scene.line(vec![(end, y - 4.0), (end, y + 4.0)], 1.8, color);
            }
        }
        let mean = x(group.mean());
        scene.line(vec![(mean, y - 8.0), (mean, y + 8.0)], 2.4, color);
        for &one in &group.seconds {
            scene.marks.push(Mark::Disc {
                center: (x(one), y),
                radius: 3.0,
                color: darker(color),
                alpha: 0.55,
            });
        }
    }
    Some(scene)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{evaluation, fleet_row, variant};
    use super::*;

    /// A run that reaches 80 % after `rounds` rounds of ten seconds, or never.
    fn run(config: &str, reaches: Option<u64>) -> VariantResults {
        let mut variant = variant(&format!("stop_at_accuracy = 0.8\n{config}"));
        for round in 0..5 {
            let began = 10.0 * round as f64;
            variant.fleet.push(fleet_row(round, began, began + 10.0));
            let accuracy = if reaches == Some(round) { 0.85 } else { 0.5 };
            variant.evaluations.push(evaluation(round, accuracy));
        }
        variant
    }

    #[test]
    fn seeds_are_one_group() {
        let variants = [
            run("seed = 1", Some(2)),
            run("seed = 2", Some(4)),
            run("seed = 3", None),
            run("seed = 1\nrounds = 9", Some(1)),
        ];
        let runs: Vec<Run<'_>> = variants
            .iter()
            .map(|variant| Run {
                label: "long",
                variant,
            })
            .collect();
        let groups = groups(&runs);
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[0].runs, groups[1].runs), (3, 1));
        assert_eq!(groups[0].seconds, [20.0, 40.0]);
        // The deviation of 20 and 40 from 30 is the square root of 200.
        assert!((groups[0].deviation().unwrap_or(0.0) - 200.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(groups[0].text(("s", 1.0)), "30.0 ± 14.1 s, 2 of 3");
        assert_eq!(groups[1].text(("s", 1.0)), "10.0 s");
        assert_eq!(groups[0].label, "long");
        assert!(draw("", &runs).is_some_and(|scene| scene.svg().is_ok()));
        assert!(draw("", &runs[2..3]).is_none());
    }

    #[test]
    fn without_a_target_there_is_no_figure() {
        let mut plain = run("", Some(1));
        plain.manifest.config.remove("stop_at_accuracy");
        let run = Run {
            label: "a",
            variant: &plain,
        };
        assert!(draw("", &[run]).is_none());
    }
}
