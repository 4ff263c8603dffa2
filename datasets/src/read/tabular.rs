//! CSV and Parquet through polars, as plain [columns](crate::table::Column).

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use polars_core::error::PolarsResult;
use polars_core::frame::DataFrame;
use polars_core::prelude::{Column as PolarsColumn, DataType};
use polars_io::SerReader as _;
use polars_io::csv::read::CsvReadOptions;
use polars_io::parquet::read::ParquetReader;

use crate::error::DatasetError;
use crate::read::{io, malformed};
use crate::table::{Column, MISSING, Table};

/// Reads a CSV file with a header line. A column's type is inferred from all of its values.
///
/// # Errors
/// [`DatasetError::Io`] or [`DatasetError::Malformed`].
pub fn csv(path: &Path) -> Result<Table, DatasetError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(io("reading", path))?;
    let read = || {
        CsvReadOptions::default()
            .with_has_header(true)
            .with_infer_schema_length(None)
            .into_reader_with_file_handle(file)
            .finish()
    };
    let frame = caught(read).map_err(|found| {
        malformed(
            &name,
            "CSV",
            found,
            "a header line and rows of as many fields",
            "mend the file",
        )
    })?;
    table(&name, &frame)
}

/// Reads a Parquet file.
///
/// # Errors
/// [`DatasetError::Io`] or [`DatasetError::Malformed`].
pub fn parquet(path: &Path) -> Result<Table, DatasetError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(io("reading", path))?;
    let frame = caught(|| ParquetReader::new(file).finish()).map_err(|found| {
        malformed(
            &name,
            "Parquet",
            found,
            "a whole Parquet file of numbers, truth values and text",
            "get the file again, or convert columns of other types (dates, lists)",
        )
    })?;
    table(&name, &frame)
}

/// The result of a polars reader, which panics on some damaged files.
fn caught(read: impl FnOnce() -> PolarsResult<DataFrame>) -> Result<DataFrame, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("damage that the reader gave up on".to_owned()),
    }
}

fn table(file: &str, frame: &DataFrame) -> Result<Table, DatasetError> {
    let mut columns = Vec::with_capacity(frame.width());
    for column in frame.columns() {
        columns.push((column.name().to_string(), convert(file, column)?));
    }
    Ok(Table {
        file: file.to_owned(),
        rows: frame.height(),
        columns,
    })
}

fn convert(file: &str, column: &PolarsColumn) -> Result<Column, DatasetError> {
    let unreadable = |found: String| {
        malformed(
            file,
            format!("column `{}`", column.name()),
            found,
            "whole numbers, real numbers, truth values or text",
            "convert the column",
        )
    };
    let fault = |error: polars_core::error::PolarsError| unreadable(error.to_string());
    let first_missing = || {
        let mask = column.as_materialized_series().is_null();
        mask.iter().position(|missing| missing == Some(true))
    };
    match column.dtype() {
        DataType::String => {
            let series = column.as_materialized_series();
            let strings = series.str().map_err(fault)?;
            let mut places = BTreeMap::new();
            let mut codes = Vec::with_capacity(strings.len());
            for value in strings.iter() {
                codes.push(match value {
                    None => MISSING,
                    Some(text) => {
                        let next = places.len() as u32;
                        *places.entry(text.to_owned()).or_insert(next)
                    }
                });
            }
            // From the order of appearance to the sorted one.
            let mut sorted = vec![0u32; places.len()];
            for (rank, &place) in places.values().enumerate() {
                sorted[place as usize] = rank as u32;
            }
            for code in &mut codes {
                if *code != MISSING {
                    *code = sorted[*code as usize];
                }
            }
            Ok(Column::Category {
                codes,
                values: places.into_keys().collect(),
            })
        }
        dtype if dtype.is_integer() || *dtype == DataType::Boolean => {
            let series = column
                .as_materialized_series()
                .strict_cast(&DataType::Int64)
                .map_err(fault)?;
            let values = series.i64().map_err(fault)?;
            Ok(Column::Integer {
                values: values.iter().map(|value| value.unwrap_or(0)).collect(),
                first_missing: first_missing(),
            })
        }
        dtype if dtype.is_float() => {
            let series = column
                .as_materialized_series()
                .cast(&DataType::Float64)
                .map_err(fault)?;
            let values = series.f64().map_err(fault)?;
            Ok(Column::Real {
                values: values.iter().map(|value| value.unwrap_or(0.0)).collect(),
                first_missing: first_missing(),
            })
        }
        other => Err(unreadable(format!("type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str, contents: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        (folder, path)
    }

    #[test]
    fn csv_columns_have_their_types() {
        let (_folder, path) = write(
            "t.csv",
            b"a,b,c,d\n1,0.5,x,true\n2,1.5,w,false\n3,,x,true\n",
        );
        let table = csv(&path).unwrap();
        assert_eq!(table.rows, 3);
        assert_eq!(
            table.columns[0].1,
            Column::Integer {
                values: vec![1, 2, 3],
                first_missing: None
            }
        );
        assert_eq!(
            table.columns[1].1,
            Column::Real {
                values: vec![0.5, 1.5, 0.0],
                first_missing: Some(2)
            }
        );
        assert_eq!(
            table.columns[2].1,
            Column::Category {
                codes: vec![1, 0, 1],
                values: vec!["w".into(), "x".into()]
            }
        );
        assert!(
            matches!(&table.columns[3].1, Column::Integer { values, .. } if values == &[1, 0, 1])
        );
    }

    #[test]
    fn damage_is_named() {
        let (_folder, path) = write("t.csv", b"a,b\n1,2\n3,4,5\n");
        assert!(
            csv(&path)
                .unwrap_err()
                .to_string()
                .contains("t.csv, CSV: found")
        );
        let (_folder, path) = write("t.parquet", b"PAR1 nothing PAR1");
        assert!(
            parquet(&path)
                .unwrap_err()
                .to_string()
                .contains("t.parquet, Parquet: found")
        );
        let (_folder, path) = write("e.csv", b"");
        assert!(csv(&path).is_err());
    }

    #[test]
    fn damaged_parquet_never_panics() {
        use polars_core::prelude::{IntoColumn as _, NamedFrom as _, Series};
        let columns = vec![
            Series::new("x".into(), [1i8, 2, 3]).into_column(),
            Series::new("y".into(), ["a", "b", "a"]).into_column(),
        ];
        let mut frame = DataFrame::new(3, columns).unwrap();
        let (_folder, path) = write("t.parquet", b"");
        let file = File::create(&path).unwrap();
        polars_io::parquet::write::ParquetWriter::new(file)
            .finish(&mut frame)
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        let right = parquet(&path).unwrap();
        assert_eq!(right.rows, 3);
        for length in (0..whole.len()).step_by(3) {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(parquet(&path).is_err(), "cut at {length}");
        }
        for at in (0..whole.len()).step_by(2) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            let _ = parquet(&path);
        }
    }
}
