//! Your own tables: CSV and Parquet.

use std::path::Path;

use crate::config::TargetKind;
use crate::error::DatasetError;
use crate::sets::{Loaded, Material, Owners, Request, Set, keys, normalise};
use crate::table::{Columns, Table, TableExamples};

/// `[dataset] name = "csv"`.
pub(super) static CSV: Set = Set {
    name: "csv",
    summary: "your own table in a CSV file with a header line",
    keys: KEYS,
    entry: None,
    load: |request| load(request, &CSV, csv),
};

/// `[dataset] name = "parquet"`.
pub(super) static PARQUET: Set = Set {
    name: "parquet",
    summary: "your own table in a Parquet file",
    keys: KEYS,
    entry: None,
    load: |request| load(request, &PARQUET, parquet),
};

const KEYS: &[crate::config::Key] = keys! {
    path: "the file",
    test_path: "file of test rows",
    label_column: "column of the target",
    client_column: "column that names a row's client; no natural clients when left out",
    feature_columns: "columns of the inputs; all others when left out",
    target: "class (default) or real",
    normalise: "raw or unit (default: numbers as they are), or standard",
    feature_noise: "noise that grows from client to client",
};

#[cfg(feature = "tabular")]
use crate::read::tabular::{csv, parquet};

#[cfg(not(feature = "tabular"))]
fn csv(_: &Path) -> Result<Table, DatasetError> {
    Err(DatasetError::MissingFeature {
        feature: "tabular",
        what: "CSV files",
    })
}

#[cfg(not(feature = "tabular"))]
fn parquet(_: &Path) -> Result<Table, DatasetError> {
    Err(DatasetError::MissingFeature {
        feature: "tabular",
        what: "Parquet files",
    })
}

fn load(
    request: &Request<'_>,
    set: &Set,
    open: fn(&Path) -> Result<Table, DatasetError>,
) -> Result<Loaded, DatasetError> {
    let config = request.config;
    let path = config.need(config.path.as_ref(), "path", "the file of the table")?;
    let label = config.need(
        config.label_column.as_ref(),
        "label_column",
        "the column of the target",
    )?;
    let train = open(path)?;
    let test = config.test_path.as_deref().map(open).transpose()?;
    let columns = Columns {
        label: label.clone(),
        classify: config.target.unwrap_or_default() == TargetKind::Class,
        client: config.client_column.clone(),
        features: config.feature_columns.clone(),
    };
    let mut examples = TableExamples::new(&train, test.as_ref(), &columns)?;
    normalise(config, &mut examples.train, examples.test.as_mut())?;
    Ok(Loaded::Material(Box::new(Material {
        about: set.about(),
        train: examples.train,
        test: examples.test,
        groups: examples.train_groups.map(|of| Owners {
            of,
            of_test: examples.test_groups,
            names: examples.clients,
            noun: "client",
        }),
        class_names: examples.class_names,
    })))
}
