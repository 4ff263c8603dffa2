//! The tables of a run as the page's script gets them: thinned, with what was spent beside.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Figure, SOURCES};
use super::spent::AXES;
use super::thin;
use crate::results::VariantResults;

/// Values of a quantity, one or none for each row of its table.
pub(super) type Column = Vec<Option<f64>>;

/// A thinned table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Table {
    /// Rounds done, at each row.
    round: Vec<u64>,
    /// What was spent by then, by axis; the axes that are known.
    spent: BTreeMap<&'static str, Vec<Number>>,
    /// The values, by quantity; none where the run has none.
    values: BTreeMap<&'static str, Vec<Number>>,
}

/// A number as it is written: six significant digits are more than a plot shows. What is not finite is
/// not there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Number {
    Whole(i64),
    Real(f64),
    Missing(Option<()>),
}

impl From<Option<f64>> for Number {
    fn from(value: Option<f64>) -> Self {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return Self::Missing(None);
        };
        // Text of a finite number reads back.
        let value: f64 = format!("{value:.5e}").parse().unwrap_or(value);
        match value.abs() < 9e15 && value.fract().abs() <= 0.0 {
            true => Self::Whole(value as i64),
            false => Self::Real(value),
        }
    }
}

/// The tables of a run that the figures draw, each thinned to about `limit` rows.
pub(super) fn of(
    variant: &VariantResults,
    figures: &[Figure],
    limit: usize,
) -> BTreeMap<&'static str, Table> {
    let mut tables = BTreeMap::new();
    for source in &SOURCES {
        let rounds = (source.rounds)(variant);
        let drawn = figures.iter().flat_map(|figure| &figure.quantities);
        let (ids, columns): (Vec<&'static str>, Vec<Column>) = drawn
            .filter(|quantity| quantity.table == source.table)
            .map(|quantity| (quantity.id, (quantity.of)(variant)))
            .filter(|(_, column)| column.iter().flatten().any(|value| value.is_finite()))
            .unzip();
        if columns.is_empty() {
            continue;
        }
        let x: Vec<f64> = rounds.iter().map(|&round| round as f64).collect();
        let kept = thin::rows(&x, &columns, limit);
        let pick = |column: &Column| -> Vec<Number> {
            let cells = kept.iter().map(|&row| column.get(row).copied().flatten());
            cells.map(Number::from).collect()
        };
        let mut table = Table {
            round: kept
                .iter()
                .filter_map(|&row| rounds.get(row).copied())
                .collect(),
            ..Table::default()
        };
        for axis in &AXES {
            let so_far = (axis.so_far)(variant);
            if so_far.values().any(|spent| *spent > 0.0) {
                let spent: Column = rounds
                    .iter()
                    .map(|round| so_far.get(round).copied())
                    .collect();
                table.spent.insert(axis.id, pick(&spent));
            }
        }
        for (id, column) in ids.into_iter().zip(&columns) {
            table.values.insert(id, pick(column));
        }
        tables.insert(source.table, table);
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (Some(0.123_456_789), "0.123457"),
            (Some(1_234_567_890.0), "1234570000"),
            (Some(-2.0), "-2"),
            (Some(0.0), "0"),
            (Some(1e300), "1e+300"),
            (Some(1.0 / 3e9), "3.33333e-10"),
            (Some(f64::INFINITY), "null"),
            (Some(f64::NAN), "null"),
            (None, "null"),
        ] {
            assert_eq!(serde_json::to_string(&Number::from(value)).unwrap(), text);
        }
    }
}
