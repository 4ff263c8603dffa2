//! UCI Adult (census income), embedded.
//!
//! Every example has 108 numbers: the six whole-number columns, less their mean and divided by
//! their standard deviation over the training file, and one number per distinct text of the
//! eight text columns. A missing value (`?`) is a text of its own.
//!
//! # Source
//! Becker & Kohavi 1996, Adult, UCI Machine Learning Repository, doi:10.24432/C5XW20.

use std::collections::BTreeMap;

use crate::catalogue::Entry;
use crate::embedded;
use crate::error::DatasetError;
use crate::read::{self, DAMAGED, malformed, shown};
use crate::sets::{Loaded, Material, Owners, Request, Set, keys};
use crate::store::Normalise;
use crate::table::{Column, Columns, MISSING, Table, TableExamples};

/// Rows of the training file.
const ROWS: u64 = 32_561;

/// A column of the files.
enum Kind {
    /// Whole numbers; their sum and sum of squares over the training file.
    Number {
        sum: u64,
        squares: u64,
    },
    Text,
}

#[rustfmt::skip]
const COLUMNS: [(&str, Kind); 14] = [
    ("age", Kind::Number { sum: 1_256_257, squares: 54_526_623 }),
    ("workclass", Kind::Text),
    ("fnlwgt", Kind::Number { sum: 6_179_373_392, squares: 1_535_455_764_504_374 }),
    ("education", Kind::Text),
    ("education-num", Kind::Number { sum: 328_237, squares: 3_524_363 }),
    ("marital-status", Kind::Text),
    ("occupation", Kind::Text),
    ("relationship", Kind::Text),
    ("race", Kind::Text),
    ("sex", Kind::Text),
    ("capital-gain", Kind::Number { sum: 35_089_324, squares: 1_813_719_045_084 }),
    ("capital-loss", Kind::Number { sum: 2_842_700, squares: 5_535_171_692 }),
    ("hours-per-week", Kind::Number { sum: 1_316_684, squares: 58_207_416 }),
    ("native-country", Kind::Text),
];

/// The target.
const LABEL: &str = "income";

/// `[dataset] name = "adult"`.
pub(super) static SET: Set = Set {
    name: "adult",
    summary: "UCI Adult (census income), in the program",
    keys: keys! {
        normalise: "standard (default), or raw for the numbers as they are",
        feature_noise: "noise that grows from client to client",
        client_column: "the text column whose values are the natural clients; `occupation` when left out",
    },
    entry: Some(Entry {
        name: "adult",
        title: "UCI Adult (census income)",
        shape: "32,561 training and 16,281 test rows of 108 numbers, 2 classes",
        licence: "CC BY 4.0",
        citation: "Becker & Kohavi 1996, UCI Machine Learning Repository, doi:10.24432/C5XW20",
        source: "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/",
        embedded: true,
        files: &[],
    }),
    load,
};

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let cannot = |value: &str| DatasetError::BadValue {
        key: "normalise",
        value: value.to_owned(),
        expected: "give `standard` or `raw`".to_owned(),
    };
    let standard = match request.config.normalise {
        None | Some(Normalise::Standard) => true,
        Some(Normalise::Raw) => false,
        Some(Normalise::Unit) => return Err(cannot("`unit`")),
        Some(Normalise::Centred) => return Err(cannot("`centred`")),
    };
    let client = request
        .config
        .client_column
        .as_deref()
        .unwrap_or("occupation");
    if !COLUMNS
        .iter()
        .any(|(name, kind)| *name == client && matches!(kind, Kind::Text))
    {
        let names: Vec<&str> = (COLUMNS.iter())
            .filter(|(_, kind)| matches!(kind, Kind::Text))
            .map(|(name, _)| *name)
            .collect();
        return Err(DatasetError::BadValue {
            key: "client_column",
            value: format!("`{client}`"),
            expected: format!("give one of {}", names.join(", ")),
        });
    }
    let open = |file, bytes: &[u8]| parse(file, &read::text(file, bytes.to_vec())?, standard);
    let train = open("embedded adult.data", embedded::ADULT_TRAIN)?;
    let test = open("embedded adult.test", embedded::ADULT_TEST)?;
    let columns = Columns {
        label: LABEL.to_owned(),
        classify: true,
        client: request.natural.then(|| client.to_owned()),
        features: Some(COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect()),
    };
    let examples = TableExamples::new(&train, Some(&test), &columns)?;
    let noun = (COLUMNS.iter().find(|(name, _)| *name == client)).map_or("value", |(name, _)| name);
    Ok(Loaded::Material(Box::new(Material {
        about: SET.about(),
        train: examples.train,
        test: examples.test,
        groups: examples.train_groups.map(|of| Owners {
            of,
            of_test: examples.test_groups,
            names: examples.clients,
            noun,
        }),
        class_names: examples.class_names,
    })))
}

/// The table of `adult.data` or `adult.test`: 14 fields and the income, separated by commas and
/// blanks; the test file has a comment line first and a full stop after each income.
fn parse(file: &str, text: &str, standard: bool) -> Result<Table, DatasetError> {
    let mut numbers: Vec<Vec<f64>> = vec![Vec::new(); COLUMNS.len()];
    let mut texts: Vec<Vec<&str>> = vec![Vec::new(); COLUMNS.len() + 1];
    let mut rows = 0;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('|') {
            continue;
        }
        let place = || format!("line {}", number + 1);
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [fields @ .., income] = &fields[..] else {
            continue;
        };
        if fields.len() != COLUMNS.len() {
            return Err(malformed(
                file,
                place(),
                format!("{} fields", fields.len() + 1),
                "14 columns and the income",
                DAMAGED,
            ));
        }
        for (at, (&field, (name, kind))) in fields.iter().zip(&COLUMNS).enumerate() {
            match kind {
                Kind::Text => texts[at].push(field),
                Kind::Number { .. } => {
                    let Ok(value) = field.parse::<u32>() else {
                        return Err(malformed(
                            file,
                            format!("{}, column `{name}`", place()),
                            shown(field),
                            "a whole number",
                            DAMAGED,
                        ));
                    };
                    numbers[at].push(f64::from(value));
                }
            }
        }
        let income = income.strip_suffix('.').unwrap_or(income);
        if !matches!(income, "<=50K" | ">50K") {
            return Err(malformed(
                file,
                place(),
                format!("income {}", shown(income)),
                "`<=50K` or `>50K`",
                DAMAGED,
            ));
        }
        texts[COLUMNS.len()].push(income);
        rows += 1;
    }
    let mut columns = Vec::with_capacity(COLUMNS.len() + 1);
    for (at, (name, kind)) in COLUMNS.iter().enumerate() {
        let column = match kind {
            Kind::Text => category(&texts[at]),
            Kind::Number { sum, squares } => {
                let mut values = core::mem::take(&mut numbers[at]);
                if standard {
                    let (mean, deviation) = moments(*sum, *squares);
                    for value in &mut values {
                        *value = (*value - mean) / deviation;
                    }
                }
                Column::Real {
                    values,
                    first_missing: None,
                }
            }
        };
        columns.push(((*name).to_owned(), column));
    }
    columns.push((LABEL.to_owned(), category(&texts[COLUMNS.len()])));
    Ok(Table {
        file: file.to_owned(),
        rows,
        columns,
    })
}

/// Mean and population standard deviation over the training file.
fn moments(sum: u64, squares: u64) -> (f64, f64) {
    let (n, sum, squares) = (u128::from(ROWS), u128::from(sum), u128::from(squares));
    let spread = n * squares - sum * sum;
    (sum as f64 / n as f64, libm::sqrt(spread as f64) / n as f64)
}

fn category(values: &[&str]) -> Column {
    let mut places: BTreeMap<&str, u32> = values.iter().map(|&value| (value, 0)).collect();
    for (rank, place) in (0..).zip(places.values_mut()) {
        *place = rank;
    }
    Column::Category {
        codes: (values.iter())
            .map(|value| places.get(value).copied().unwrap_or(MISSING))
            .collect(),
        values: places.into_keys().map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_sums_are_those_of_the_training_file() {
        let text = read::text("f", embedded::ADULT_TRAIN.to_vec()).unwrap();
        let table = parse("f", &text, false).unwrap();
        assert_eq!(table.rows as u64, ROWS);
        for ((_, kind), (name, column)) in COLUMNS.iter().zip(&table.columns) {
            let (Kind::Number { sum, squares }, Column::Real { values, .. }) = (kind, column)
            else {
                continue;
            };
            let whole = || values.iter().map(|&value| value as u64);
            assert_eq!(whole().sum::<u64>(), *sum, "{name}");
            assert_eq!(
                whole().map(|value| value * value).sum::<u64>(),
                *squares,
                "{name}"
            );
        }
        let (mean, deviation) = moments(1_256_257, 54_526_623);
        assert!((mean - 38.581_646_755).abs() < 1e-9 && (deviation - 13.640_223_092).abs() < 1e-9);
    }

    #[test]
    fn faults_are_named() {
        let row = "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, United-States, <=50K";
        assert_eq!(
            parse("f", &format!("|x\n{row}.\n\n{row}\n"), true)
                .unwrap()
                .rows,
            2
        );
        let message = |text: String| parse("f", &text, true).unwrap_err().to_string();
        assert!(
            message(row.replace("77516", "x"))
                .starts_with("f, line 1, column `fnlwgt`: found `x`, expected a whole number")
        );
        assert!(message(row.replace("<=50K", "50K")).starts_with("f, line 1: found income `50K`"));
        assert!(message(row.replace("13, ", "")).starts_with("f, line 1: found 14 fields"));
    }
}
