//! Tables with named columns, turned into examples.
//!
//! Whole and real numbers are features as they are; text columns become one-hot, one feature per
//! distinct value of the training table in sorted order. A missing number is an error; a missing
//! text, and in the test table a value that training did not show, sets none of the column's
//! features.

use std::collections::BTreeMap;

use fl_core::{InputSpec, TargetSpec};

use crate::error::DatasetError;
use crate::read::{malformed, shown};
use crate::store::{Inputs, Store, Targets};

/// The code of a missing value, and the owner of a row that no known client owns.
pub const MISSING: u32 = u32::MAX;

/// The most distinct values of a text column that is a feature.
const MOST_CATEGORIES: usize = 1024;

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Whole numbers and truth values.
    Integer {
        /// The values; 0 where missing.
        values: Vec<i64>,
        /// First row without a value.
        first_missing: Option<usize>,
    },
    /// Real numbers.
    Real {
        /// The values; 0 where missing.
        values: Vec<f64>,
        /// First row without a value.
        first_missing: Option<usize>,
    },
    /// Text.
    Category {
        /// Place of each row's value in `values`, or [`MISSING`].
        codes: Vec<u32>,
        /// The distinct values, ascending.
        values: Vec<String>,
    },
}

impl Column {
    fn first_missing(&self) -> Option<usize> {
        match self {
            Self::Integer { first_missing, .. } | Self::Real { first_missing, .. } => {
                *first_missing
            }
            Self::Category { codes, .. } => codes.iter().position(|&code| code == MISSING),
        }
    }
}

/// Columns of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// For messages.
    pub file: String,
    /// Length of every column.
    pub rows: usize,
    /// Name and contents of each column.
    pub columns: Vec<(String, Column)>,
}

impl Table {
    fn column(&self, name: &str, role: &str) -> Result<&Column, DatasetError> {
        let found = self.columns.iter().find(|(column, _)| column == name);
        found.map(|(_, column)| column).ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
            malformed(
                &self.file,
                "columns",
                names.join(", "),
                format!("a column `{name}` ({role})"),
                "name columns that the file has",
            )
        })
    }

    fn no_missing(&self, name: &str, column: &Column) -> Result<(), DatasetError> {
        match column.first_missing() {
            None => Ok(()),
            Some(row) => Err(malformed(
                &self.file,
                format!("column `{name}`, row {row}"),
                "no value",
                "a value in every row",
                "fill the missing values or drop the rows",
            )),
        }
    }
}

/// What the columns mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    /// The target.
    pub label: String,
    /// Whether the target is one of some classes; else a real number.
    pub classify: bool,
    /// The owner of a row.
    pub client: Option<String>,
    /// The inputs; all other columns when none are named.
    pub features: Option<Vec<String>>,
}

/// Examples made of one table, or of a training and a test table.
#[derive(Clone, Debug)]
pub struct TableExamples {
    /// The training table's rows.
    pub train: Store,
    /// The test table's rows.
    pub test: Option<Store>,
    /// Client of each training row.
    pub train_groups: Option<Vec<u32>>,
    /// Client of each test row, or [`MISSING`] for clients that do not train.
    pub test_groups: Option<Vec<u32>>,
    /// Names of the clients.
    pub clients: Vec<String>,
    /// Names of the classes.
    pub class_names: Option<Vec<String>>,
    /// Name of each number of an input.
    pub feature_names: Vec<String>,
}

/// A key for distinct values: numbers in numeric order, text in byte order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Whole(i64),
    Text(String),
}

impl core::fmt::Display for Value {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Whole(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The value of each row of a column of names: clients or classes.
fn values(table: &Table, name: &str, role: &str) -> Result<Vec<Value>, DatasetError> {
    let column = table.column(name, role)?;
    table.no_missing(name, column)?;
    match column {
        Column::Integer { values, .. } => Ok(values.iter().map(|&v| Value::Whole(v)).collect()),
        Column::Category { codes, values } => Ok((codes.iter())
            .map(|&code| Value::Text(values[code as usize].clone()))
            .collect()),
        Column::Real { .. } => Err(malformed(
            &table.file,
            format!("column `{name}` ({role})"),
            "real numbers",
            "whole numbers or text",
            "choose another column, or `target = \"real\"` for a regression",
        )),
    }
}

/// Sorted distinct values, and the place of each row's value among them.
fn encode(rows: Vec<Value>) -> (Vec<Value>, Vec<u32>) {
    let mut distinct = rows.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let places = look_up(rows, &distinct);
    (distinct, places)
}

fn look_up(rows: Vec<Value>, distinct: &[Value]) -> Vec<u32> {
    rows.into_iter()
        .map(|value| distinct.binary_search(&value).map_or(MISSING, |p| p as u32))
        .collect()
}

/// How one column becomes features.
enum Feature {
    Number(String),
    OneHot(String, Vec<String>),
}

impl TableExamples {
    /// Builds the examples.
    ///
    /// # Errors
    /// [`DatasetError`] for a column that is not there, missing or non-finite numbers, labels
    /// that training did not show, or a text column with more than 1,024 distinct values.
    pub fn new(
        train: &Table,
        test: Option<&Table>,
        columns: &Columns,
    ) -> Result<Self, DatasetError> {
        let names: Vec<String> = match &columns.features {
            Some(names) => names.clone(),
            None => (train.columns.iter().map(|(name, _)| name))
                .filter(|&name| *name != columns.label && Some(name) != columns.client.as_ref())
                .cloned()
                .collect(),
        };
        if names.is_empty() || train.rows == 0 {
            return Err(DatasetError::Empty {
                what: train.file.clone(),
                noun: if names.is_empty() {
                    "feature column"
                } else {
                    "row"
                },
                remedy: "give a table with rows and at least one column beside label and client",
            });
        }
        let mut features = Vec::with_capacity(names.len());
        let mut feature_names = Vec::new();
        for name in names {
            match train.column(&name, "a feature")? {
                Column::Category { values, .. } if values.len() > MOST_CATEGORIES => {
                    return Err(DatasetError::TooLarge {
                        what: format!("column `{name}` of {}", train.file),
                        noun: "distinct texts",
                        found: values.len() as u64,
                        limit: MOST_CATEGORIES as u64,
                        remedy: "leave the column out with `feature_columns`",
                    });
                }
                Column::Category { values, .. } => {
                    feature_names.extend(values.iter().map(|value| format!("{name}={value}")));
                    features.push(Feature::OneHot(name, values.clone()));
                }
                Column::Integer { .. } | Column::Real { .. } => {
                    feature_names.push(name.clone());
                    features.push(Feature::Number(name));
                }
            }
        }
        let width = feature_names.len();
        let (target, class_names, train_targets, test_targets) = targets(train, test, columns)?;
        let store = |table: &Table, targets: Targets| {
            Store::new(
                &table.file,
                InputSpec::Real(vec![width]),
                target,
                Inputs::Real(inputs(table, &features, width)?),
                targets,
            )
        };
        let train_store = store(train, train_targets)?;
        let test_store = match (test, test_targets) {
            (Some(test), Some(targets)) => Some(store(test, targets)?),
            _ => None,
        };
        let mut examples = Self {
            train: train_store,
            test: test_store,
            train_groups: None,
            test_groups: None,
            clients: Vec::new(),
            class_names,
            feature_names,
        };
        if let Some(client) = &columns.client {
            let (distinct, groups) = encode(values(train, client, "the client")?);
            examples.train_groups = Some(groups);
            if let Some(test) = test.filter(|test| test.columns.iter().any(|(n, _)| n == client)) {
                let rows = values(test, client, "the client")?;
                examples.test_groups = Some(look_up(rows, &distinct));
            }
            examples.clients = distinct.iter().map(ToString::to_string).collect();
        }
        Ok(examples)
    }
}

type TargetsOfTables = (TargetSpec, Option<Vec<String>>, Targets, Option<Targets>);

fn targets(
    train: &Table,
    test: Option<&Table>,
    columns: &Columns,
) -> Result<TargetsOfTables, DatasetError> {
    let label = &columns.label;
    if !columns.classify {
        let real = |table: &Table| {
            let column = table.column(label, "the label")?;
            table.no_missing(label, column)?;
            let mut out = vec![0.0; table.rows];
            number(table, label, column, 0, 1, &mut out)?;
            Ok::<_, DatasetError>(Targets::Real(out))
        };
        let test = test.map(real).transpose()?;
        return Ok((TargetSpec::Real { width: 1 }, None, real(train)?, test));
    }
    let (distinct, labels) = encode(values(train, label, "the label")?);
    let classes = distinct.len();
    let test = match test {
        None => None,
        Some(table) => {
            let rows = values(table, label, "the label")?;
            let shown_values: Vec<String> = rows.iter().map(ToString::to_string).collect();
            let labels = look_up(rows, &distinct);
            if let Some(row) = labels.iter().position(|&label| label == MISSING) {
                return Err(malformed(
                    &table.file,
                    format!("column `{label}`, row {row}"),
                    format!("label {}", shown(&shown_values[row])),
                    format!("one of the {classes} labels of {}", train.file),
                    "use tables of one data set",
                ));
            }
            Some(Targets::classes(labels, classes))
        }
    };
    let names = distinct.iter().map(ToString::to_string).collect();
    Ok((
        TargetSpec::Class { classes },
        Some(names),
        Targets::classes(labels, classes),
        test,
    ))
}

/// Writes a numeric column into every `stride`-th value of `out`, from `offset` on.
fn number(
    table: &Table,
    name: &str,
    column: &Column,
    offset: usize,
    stride: usize,
    out: &mut [f32],
) -> Result<(), DatasetError> {
    let places = || (offset..).step_by(stride);
    match column {
        Column::Integer { values, .. } => {
            for (at, &value) in places().zip(values) {
                out[at] = value as f32;
            }
        }
        Column::Real { values, .. } => {
            for (row, (at, &value)) in places().zip(values).enumerate() {
                let value = value as f32;
                if !value.is_finite() {
                    return Err(malformed(
                        &table.file,
                        format!("column `{name}`, row {row}"),
                        format!("{value}"),
                        "a finite 32-bit number",
                        "mend or drop the row",
                    ));
                }
                out[at] = value;
            }
        }
        Column::Category { .. } => {
            return Err(malformed(
                &table.file,
                format!("column `{name}`"),
                "text",
                "numbers",
                "convert the column",
            ));
        }
    }
    Ok(())
}

fn inputs(table: &Table, features: &[Feature], width: usize) -> Result<Vec<f32>, DatasetError> {
    let size = table
        .rows
        .checked_mul(width)
        .ok_or_else(|| DatasetError::TooLarge {
            what: table.file.clone(),
            noun: "rows",
            found: table.rows as u64,
            limit: (usize::MAX / width) as u64,
            remedy: "use a part of it",
        })?;
    let mut out = vec![0f32; size];
    let mut offset = 0;
    for feature in features {
        match feature {
            Feature::Number(name) => {
                let column = table.column(name, "a feature")?;
                table.no_missing(name, column)?;
                number(table, name, column, offset, width, &mut out)?;
                offset += 1;
            }
            Feature::OneHot(name, known) => {
                let Column::Category { codes, values } = table.column(name, "a feature")? else {
                    return Err(malformed(
                        &table.file,
                        format!("column `{name}`"),
                        "numbers",
                        "text, as in the training table",
                        "use tables of one data set",
                    ));
                };
                let places: BTreeMap<u32, usize> = (values.iter().enumerate())
                    .filter_map(|(code, value)| {
                        Some((code as u32, known.binary_search(value).ok()?))
                    })
                    .collect();
                for (row, code) in codes.iter().enumerate() {
                    if let Some(place) = places.get(code) {
                        out[row * width + offset + place] = 1.0;
                    }
                }
                offset += known.len();
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integers(values: &[i64]) -> Column {
        Column::Integer {
            values: values.to_vec(),
            first_missing: None,
        }
    }

    fn texts(values: &[&str], codes: &[u32]) -> Column {
        Column::Category {
            codes: codes.to_vec(),
            values: values.iter().map(|&v| v.to_owned()).collect(),
        }
    }

    fn train() -> Table {
        Table {
            file: "train".into(),
            rows: 3,
            columns: vec![
                ("age".into(), integers(&[30, 40, 50])),
                ("job".into(), texts(&["cook", "guard"], &[1, 0, MISSING])),
                ("who".into(), integers(&[70, 7, 70])),
                ("rich".into(), texts(&["no", "yes"], &[0, 1, 0])),
            ],
        }
    }

    fn meaning() -> Columns {
        Columns {
            label: "rich".into(),
            classify: true,
            client: Some("who".into()),
            features: None,
        }
    }

    #[test]
    fn columns_become_examples() {
        let test = Table {
            file: "test".into(),
            rows: 2,
            columns: vec![
                ("rich".into(), texts(&["yes"], &[0, 0])),
                ("job".into(), texts(&["baker", "cook"], &[0, 1])),
                ("age".into(), integers(&[1, 2])),
                ("who".into(), integers(&[70, 8])),
            ],
        };
        let examples = TableExamples::new(&train(), Some(&test), &meaning()).unwrap();
        assert_eq!(examples.feature_names, ["age", "job=cook", "job=guard"]);
        assert_eq!(
            examples.train.real_rows(0..3).unwrap(),
            [30.0, 0.0, 1.0, 40.0, 1.0, 0.0, 50.0, 0.0, 0.0]
        );
        assert_eq!(examples.train.labels(), Some(vec![0, 1, 0]));
        assert_eq!(examples.clients, ["7", "70"]);
        assert_eq!(examples.train_groups, Some(vec![1, 0, 1]));
        let store = examples.test.unwrap();
        assert_eq!(
            store.real_rows(0..2).unwrap(),
            [1.0, 0.0, 0.0, 2.0, 1.0, 0.0]
        );
        assert_eq!(store.labels(), Some(vec![1, 1]));
        assert_eq!(examples.test_groups, Some(vec![1, MISSING]));
    }

    #[test]
    fn faults_are_named() {
        let fault = |table: Table, columns: Columns| {
            TableExamples::new(&table, None, &columns)
                .unwrap_err()
                .to_string()
        };
        let with = |change: fn(&mut Columns)| {
            let mut columns = meaning();
            change(&mut columns);
            columns
        };
        assert_eq!(
            fault(train(), with(|c| c.label = "rish".into())),
            "train, columns: found age, job, who, rich, expected a column `rish` (the label); name columns that the file has"
        );
        assert_eq!(
            fault(train(), with(|c| c.client = Some("job".into()))),
            "train, column `job`, row 2: found no value, expected a value in every row; fill the missing values or drop the rows"
        );
        let mut table = train();
        table.columns[0].1 = Column::Real {
            values: vec![0.0, f64::INFINITY, 0.0],
            first_missing: None,
        };
        assert_eq!(
            fault(table.clone(), meaning()),
            "train, column `age`, row 1: found inf, expected a finite 32-bit number; mend or drop the row"
        );
        assert!(fault(table, with(|c| c.label = "age".into())).contains("found real numbers"));
        let message = fault(train(), with(|c| c.features = Some(vec![])));
        assert!(
            message.starts_with("train holds no feature column"),
            "{message}"
        );
    }

    #[test]
    fn a_real_target_is_kept() {
        let columns = Columns {
            label: "age".into(),
            classify: false,
            client: None,
            features: Some(vec!["who".into()]),
        };
        let examples = TableExamples::new(&train(), None, &columns).unwrap();
        assert_eq!(examples.train.target(), TargetSpec::Real { width: 1 });
        assert_eq!(examples.train.labels(), None);
    }
}
