//! The columns of the table of all runs, and of their comparison.

use serde::Serialize;

use super::{Run, spent};
use crate::results::{EvaluationRow, Summary, VariantResults};

/// A column, in a unit of which its largest value is not small, with digits for its least.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Column {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// Behind the title; empty where there is none.
    pub(super) unit: &'static str,
    /// Digits behind the point.
    pub(super) digits: usize,
    pub(super) better: Better,
}

/// Which of two values is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Better {
    More,
    Less,
    /// Neither.
    Either,
}

/// A cell, in the column's unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Value {
    Number(f64),
    /// Beyond all numbers, or a word.
    Text(String),
    Missing(Option<()>),
}

/// The columns that some run has a value for, and the values of every run.
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Value>>,
}

/// What the numbers of a column are, which decides the unit.
#[derive(Clone, Copy)]
enum Scale {
    Percent,
    /// With so many digits.
    Plain(usize),
    Bytes,
    /// Virtual or real.
    Seconds,
    Joules,
}

/// A unit, and how many of the base unit it is.
type Unit = (&'static str, f64);

const BYTES: &[Unit] = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("PB", 1e15),
];
const SECONDS: &[Unit] = &[
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("min", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
];
const JOULES: &[Unit] = &[
    ("J", 1.0),
    ("kJ", 1e3),
    ("MJ", 1e6),
    ("kWh", 3.6e6),
    ("MWh", 3.6e9),
];

/// The most digits behind the point for the sake of a small value.
const MOST_DIGITS: usize = 4;

impl Scale {
    /// Unit, its size, and digits, for a column whose values other than zero lie, by their size, between
    /// `least` and `most`.
    fn of(self, least: f64, most: f64) -> (&'static str, f64, usize) {
        let fitting = |units: &[Unit]| {
            let found = units.iter().rev().find(|unit| most >= 2.0 * unit.1);
            let (name, size) = found.or(units.first()).copied().unwrap_or(("", 1.0));
            let mut digits = if size > 1.0 || most < 2.0 { 2 } else { 1 };
            // Two of the least value's digits are to be seen.
            while digits < MOST_DIGITS && least / size * 10_f64.powi(digits as i32) < 10.0 {
                digits += 1;
            }
            (name, size, if name == "B" { 0 } else { digits })
        };
        match self {
            Self::Percent => ("%", 0.01, 2),
            Self::Plain(digits) => ("", 1.0, digits),
            Self::Bytes => fitting(BYTES),
            Self::Seconds => fitting(SECONDS),
            Self::Joules => fitting(JOULES),
        }
    }
}

/// A run with the figures that sum it up.
struct Facts<'a> {
    variant: &'a VariantResults,
    summary: Summary,
}

/// Identity, title, unit, which is better, and the value.
type Source = (
    &'static str,
    &'static str,
    Scale,
    Better,
    fn(&Facts<'_>) -> Option<f64>,
);

const SOURCES: [Source; 17] = [
    (
        "accuracy",
        "Accuracy",
        Scale::Percent,
        Better::More,
        |run| run.summary.final_accuracy,
    ),
    (
        "best",
        "Best accuracy",
        Scale::Percent,
        Better::More,
        |run| best(run.variant),
    ),
    (
        "int8",
        "Accuracy in int8",
        Scale::Percent,
        Better::More,
        |run| run.summary.final_accuracy_int8,
    ),
    ("loss", "Loss", Scale::Plain(4), Better::Less, |run| {
        run.summary.final_loss
    }),
    ("rounds", "Rounds", Scale::Plain(0), Better::Either, |run| {
        Some(run.summary.rounds as f64)
    }),
    ("epsilon", "Epsilon", Scale::Plain(3), Better::Less, |run| {
        run.summary.epsilon
    }),
    (
        "unamplified",
        "Epsilon if seen who takes part",
        Scale::Plain(3),
        Better::Less,
        |run| run.summary.epsilon_unamplified,
    ),
    ("bytes", "Traffic", Scale::Bytes, Better::Less, |run| {
        last(spent::bytes(run.variant))
    }),
    (
        "virtual",
        "Virtual time",
        Scale::Seconds,
        Better::Less,
        |run| last(spent::virtual_seconds(run.variant)),
    ),
    ("joules", "Energy", Scale::Joules, Better::Less, |run| {
        energy(run.variant)
    }),
    (
        "lost",
        "Cohort not in the sum",
        Scale::Percent,
        Better::Less,
        |run| {
            let rounds = || run.variant.rounds.iter();
            let (cohort, reported): (u64, u64) = (
                rounds().map(|row| row.cohort).sum(),
                rounds().map(|row| row.reported).sum(),
            );
            (cohort > reported).then(|| (cohort - reported) as f64 / cohort as f64)
        },
    ),
    (
        "failed",
        "Failed rounds",
        Scale::Plain(0),
        Better::Less,
        |run| run.summary.failed_rounds.map(|rounds| rounds as f64),
    ),
    ("patch", "Last patch", Scale::Percent, Better::Less, |run| {
        run.summary.patch_share
    }),
    (
        "round-time",
        "Time per round",
        Scale::Seconds,
        Better::Less,
        |run| run.summary.seconds_per_round,
    ),
    ("wall", "Wall time", Scale::Seconds, Better::Less, |run| {
        wall_seconds(run.variant)
    }),
    (
        "parameters",
        "Parameters",
        Scale::Plain(0),
        Better::Either,
        |run| Some(run.variant.manifest.parameters as f64),
    ),
    ("seed", "Seed", Scale::Plain(0), Better::Either, |run| {
        Some(run.variant.manifest.seed as f64)
    }),
];

fn last(so_far: std::collections::BTreeMap<u64, f64>) -> Option<f64> {
    so_far.last_key_value().map(|(_, spent)| *spent)
}

fn accuracy(row: &EvaluationRow) -> Option<f64> {
    row.test_accuracy.or(row.train_accuracy)
}

fn best(variant: &VariantResults) -> Option<f64> {
    let known = variant.evaluations.iter().filter_map(accuracy);
    known.max_by(f64::total_cmp)
}

/// The whole run's joules; none where some round's are not told.
fn energy(variant: &VariantResults) -> Option<f64> {
    let (rounds, joules) = spent::joules(variant).pop_last()?;
    (rounds == variant.manifest.rounds_done).then_some(joules)
}

/// Of rounds and evaluations.
pub(super) fn wall_seconds(variant: &VariantResults) -> Option<f64> {
    let whole = ["round", "evaluation"];
    let rows = variant.timing.iter();
    let seconds = rows.filter(|row| whole.contains(&row.what.as_str()));
    let sum: f64 = seconds.map(|row| row.seconds).sum();
    (!variant.timing.is_empty()).then_some(sum)
}

impl Table {
    pub(super) fn of(runs: &[Run<'_>]) -> Self {
        let facts: Vec<Facts<'_>> = runs
            .iter()
            .map(|run| Facts {
                variant: run.variant,
                summary: run.variant.summary(),
            })
            .collect();
        let mut table = Self {
            columns: Vec::new(),
            rows: vec![Vec::new(); runs.len()],
        };
        for (id, title, scale, better, of) in SOURCES {
            let values: Vec<Option<f64>> = facts.iter().map(of).collect();
            let known = || values.iter().flatten().copied();
            if known().next().is_none() {
                continue;
            }
            let sizes = known().map(f64::abs).filter(|size| size.is_finite());
            let (least, most) = sizes
                .filter(|size| *size > 0.0)
                .fold((f64::INFINITY, 0.0), |(least, most), size| {
                    (size.min(least), size.max(most))
                });
            let (unit, size, digits) = scale.of(least, most);
            table.columns.push(Column {
                id,
                title,
                unit,
                digits,
                better,
            });
            for (row, value) in table.rows.iter_mut().zip(values) {
                row.push(Value::of(value, size));
            }
        }
        table
    }
}

impl Value {
    fn of(value: Option<f64>, size: f64) -> Self {
        match value {
            Some(value) if value.is_finite() => Self::Number(value / size),
            // As JavaScript writes and reads it.
            Some(value) if value > 0.0 => Self::Text("Infinity".to_owned()),
            Some(value) if value < 0.0 => Self::Text("-Infinity".to_owned()),
            Some(_) | None => Self::Missing(None),
        }
    }

    /// As it stands in the table.
    pub(super) fn text(&self, column: &Column) -> String {
        match self {
            Self::Number(value) => format!("{value:.*}", column.digits),
            Self::Text(text) => text.replace("Infinity", "∞"),
            Self::Missing(_) => "–".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_the_largest_value_and_digits_the_least() {
        for (scale, least, most, expected) in [
            (Scale::Bytes, 5.0, 1999.0, ("B", 1.0, 0)),
            (Scale::Bytes, 1e6, 6_653_480.0, ("MB", 1e6, 2)),
            (Scale::Seconds, 0.000_28, 0.000_28, ("µs", 1e-6, 2)),
            (Scale::Seconds, 0.25, 0.25, ("ms", 1e-3, 2)),
            (Scale::Seconds, 10.0, 90.0, ("s", 1.0, 1)),
            (Scale::Seconds, 0.033, 90.0, ("s", 1.0, 3)),
            (Scale::Seconds, 1e-9, 90.0, ("s", 1.0, 4)),
            (Scale::Seconds, 720.0, 7300.0, ("h", 3600.0, 2)),
            (Scale::Joules, f64::INFINITY, 0.0, ("J", 1.0, 2)),
            (Scale::Percent, 0.001, 0.5, ("%", 0.01, 2)),
        ] {
            assert_eq!(scale.of(least, most), expected, "{least} {most}");
        }
    }

    #[test]
    fn cells_are_read_by_people() {
        let column = Column {
            id: "loss",
            title: "Loss",
            unit: "",
            digits: 2,
            better: Better::Less,
        };
        for (value, text) in [
            (Some(0.5), "50.00"),
            (Some(f64::INFINITY), "∞"),
            (Some(f64::NEG_INFINITY), "-∞"),
            (Some(f64::NAN), "–"),
            (None, "–"),
        ] {
            assert_eq!(Value::of(value, 0.01).text(&column), text);
        }
    }
}
