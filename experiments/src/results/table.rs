//! Rows to Parquet and back, through polars.
//!
//! Every table starts with a column `variant`. The bytes of a file are a function of its rows.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use polars_core::prelude::{Column, DataFrame, PolarsError, PolarsResult};
use polars_io::SerReader as _;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::{ParquetCompression, ParquetWriter};

use super::atomic::{self, Staged};
use super::error::ResultsError;
use super::row::{Cell, ColumnKind, Row};

/// Rows of a row group; fixed, so that the bytes do not depend on polars' default.
const ROW_GROUP: usize = 1 << 18;

/// Writes `FOLDER/TABLE.parquet` beside its place; rows of variants in the order given.
///
/// # Errors
/// [`ResultsError::Write`] or [`ResultsError::Encode`].
pub(crate) fn stage<R: Row>(
    folder: &Path,
    variants: &[(&str, &[R])],
) -> Result<Staged, ResultsError> {
    let path = path_of::<R>(folder);
    let mut frame = to_frame(variants).map_err(|error| ResultsError::Encode {
        path: path.clone(),
        what: "the table",
        why: error.to_string(),
    })?;
    stage_frame(&path, &mut frame)
}

/// Writes a frame beside its place.
///
/// # Errors
/// [`ResultsError::Write`].
pub(crate) fn stage_frame(path: &Path, frame: &mut DataFrame) -> Result<Staged, ResultsError> {
    atomic::stage(path, |writer| {
        write(frame, writer).map_err(|error| match error {
            PolarsError::IO { error, .. } => std::io::Error::new(error.kind(), error.to_string()),
            other => std::io::Error::other(other.to_string()),
        })
    })
}

/// Where a table lies.
pub(crate) fn path_of<R: Row>(folder: &Path) -> std::path::PathBuf {
    folder.join(format!("{}.parquet", R::TABLE))
}

fn write(frame: &mut DataFrame, writer: &mut dyn Write) -> PolarsResult<()> {
    ParquetWriter::new(writer)
        .with_compression(ParquetCompression::Zstd(None))
        .with_row_group_size(Some(ROW_GROUP))
        .set_parallel(false)
        .finish(frame)?;
    Ok(())
}

fn to_frame<R: Row>(variants: &[(&str, &[R])]) -> PolarsResult<DataFrame> {
    let names: Vec<&str> = variants
        .iter()
        .flat_map(|(name, rows)| core::iter::repeat_n(*name, rows.len()))
        .collect();
    let height = names.len();
    let cells: Vec<Vec<Cell>> = variants
        .iter()
        .flat_map(|(_, rows)| rows.iter().map(Row::cells))
        .collect();
    let mut columns = vec![Column::new("variant".into(), names)];
    for (index, (name, kind)) in R::COLUMNS.iter().enumerate() {
        let values = cells.iter().map(|row| &row[index]);
        let name = (*name).into();
        columns.push(match kind {
            ColumnKind::Count => {
                let values: Vec<u64> = values
                    .map(|cell| match cell {
                        Cell::Count(value) => *value,
                        _ => 0,
                    })
                    .collect();
                Column::new(name, values)
            }
            ColumnKind::Real | ColumnKind::OptionalReal => {
                let values: Vec<Option<f64>> = values
                    .map(|cell| match cell {
                        Cell::Real(value) => *value,
                        _ => None,
                    })
                    .collect();
                Column::new(name, values)
            }
            ColumnKind::Text => {
                let values: Vec<&str> = values
                    .map(|cell| match cell {
                        Cell::Text(text) => text.as_str(),
                        _ => "",
                    })
                    .collect();
                Column::new(name, values)
            }
        });
    }
    DataFrame::new(height, columns)
}

/// Reads `FOLDER/TABLE.parquet`: the variant and the row, in the order of the file.
///
/// # Errors
/// [`ResultsError::Read`], or [`ResultsError::Damaged`] when it is not such a table.
pub(crate) fn read<R: Row>(folder: &Path) -> Result<Vec<(String, R)>, ResultsError> {
    let path = path_of::<R>(folder);
    let file = File::open(&path).map_err(|error| ResultsError::read(&path, error))?;
    let frame = ParquetReader::new(file)
        .finish()
        .map_err(|error| ResultsError::damaged(&path, error.to_string()))?;
    from_frame(&frame).map_err(|what| ResultsError::damaged(&path, what))
}

fn from_frame<R: Row>(frame: &DataFrame) -> Result<Vec<(String, R)>, String> {
    let mut rows: Vec<Vec<Cell>> = vec![Vec::with_capacity(R::COLUMNS.len()); frame.height()];
    for (name, kind) in R::COLUMNS {
        let column = match (frame.column(name), kind) {
            (Ok(column), _) => column,
            // Results from before there was such a column.
            (Err(_), ColumnKind::OptionalReal) => {
                rows.iter_mut().for_each(|row| row.push(Cell::Real(None)));
                continue;
            }
            (Err(error), _) => return Err(error.to_string()),
        };
        match kind {
            ColumnKind::Count => {
                let values = column.u64().map_err(|error| error.to_string())?;
                for (row, value) in rows.iter_mut().zip(values.iter()) {
                    let value = value.ok_or_else(|| format!("column `{name}` has a gap"))?;
                    row.push(Cell::Count(value));
                }
            }
            ColumnKind::Real | ColumnKind::OptionalReal => {
                let values = column.f64().map_err(|error| error.to_string())?;
                for (row, value) in rows.iter_mut().zip(values.iter()) {
                    row.push(Cell::Real(value));
                }
            }
            ColumnKind::Text => {
                let values = column.str().map_err(|error| error.to_string())?;
                for (row, value) in rows.iter_mut().zip(values.iter()) {
                    row.push(Cell::Text(value.unwrap_or_default().to_owned()));
                }
            }
        }
    }
    let variants = frame
        .column("variant")
        .and_then(|column| column.str())
        .map_err(|error| error.to_string())?;
    rows.iter()
        .zip(variants.iter())
        .map(|(cells, variant)| {
            let row = R::from_cells(cells).ok_or("a value is missing where there must be one")?;
            Ok((variant.unwrap_or_default().to_owned(), row))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::row::{ClientRow, EvaluationRow};
    use super::*;

    fn rows(seed: u64) -> Vec<ClientRow> {
        let special = [0.0, -0.0, f64::NAN, f64::INFINITY, 5e-324, 0.1 + 0.2];
        (0..500)
            .map(|client| ClientRow {
                round: seed,
                client: client * 3,
                split: if client % 2 == 0 { "test" } else { "train" }.to_owned(),
                examples: u64::MAX - client,
                loss: special[client as usize % special.len()],
                accuracy: (client as f64 + seed as f64).sqrt(),
            })
            .collect()
    }

    #[test]
    fn tables_read_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (rows(1), rows(2));
        stage(folder.path(), &[("a", &a), ("b", &b)])
            .unwrap()
            .publish()
            .unwrap();
        let read: Vec<(String, ClientRow)> = read(folder.path()).unwrap();
        let expected: Vec<_> = a
            .iter()
            .map(|row| ("a", row))
            .chain(b.iter().map(|row| ("b", row)))
            .collect();
        assert_eq!(read.len(), expected.len());
        for ((variant, row), (name, wanted)) in read.iter().zip(expected) {
            assert_eq!(variant, name);
            for (cell, wanted) in row.cells().iter().zip(wanted.cells()) {
                assert!(cell.same_bits(&wanted), "{cell} {wanted}");
            }
        }
    }

    #[test]
    fn missing_values_and_empty_tables_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [EvaluationRow {
            round: 0,
            test_loss: None,
            test_accuracy: Some(0.5),
            test_loss_int8: None,
            test_accuracy_int8: None,
            train_loss: None,
            train_accuracy: None,
            train_clients: 0,
        }];
        stage(folder.path(), &[("only", &rows)])
            .unwrap()
            .publish()
            .unwrap();
        let back: Vec<(String, EvaluationRow)> = read(folder.path()).unwrap();
        assert_eq!(back, [("only".to_owned(), rows[0].clone())]);

        stage::<EvaluationRow>(folder.path(), &[])
            .unwrap()
            .publish()
            .unwrap();
        let back: Vec<(String, EvaluationRow)> = read(folder.path()).unwrap();
        assert!(back.is_empty());
    }

    #[test]
    fn the_same_rows_are_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let rows = rows(1);
        let first = stage(folder.path(), &[("a", &rows)]).unwrap();
        let first = first.digest().clone();
        let second = stage(folder.path(), &[("a", &rows)]).unwrap();
        assert_eq!(&first, second.digest());
    }

    #[test]
    fn another_table_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        stage(folder.path(), &[("a", &rows(1))])
            .unwrap()
            .publish()
            .unwrap();
        std::fs::rename(
            folder.path().join("clients.parquet"),
            folder.path().join("evaluation.parquet"),
        )
        .unwrap();
        let error = read::<EvaluationRow>(folder.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("evaluation.parquet is damaged"), "{error}");
        std::fs::write(folder.path().join("evaluation.parquet"), b"PAR1 no").unwrap();
        assert!(read::<EvaluationRow>(folder.path()).is_err());
    }
}
