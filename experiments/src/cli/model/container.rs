//! GGUF files as containers: what stands in one of another program's model.

use std::path::Path;

use fl_edge::gguf::Gguf;
use serde::Serialize;

use super::super::output;
use super::{ModelError, open};
use crate::error::Error;

/// Whether a file is named as GGUF.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// What `model inspect` says of a file whose model this program does not know.
#[derive(Serialize)]
pub(super) struct Report {
    name: String,
    kind: &'static str,
    bytes: usize,
    parameters: u64,
    values: Vec<Named>,
    tensors: Vec<Stored>,
}

#[derive(Serialize)]
struct Named {
    key: String,
    /// Printed; of a long array the first elements.
    value: String,
}

#[derive(Serialize)]
struct Stored {
    name: String,
    shape: Vec<usize>,
    kind: &'static str,
    bytes: usize,
}

/// A report of a GGUF file that holds another program's model; none of any other.
pub(super) fn foreign(name: &str) -> Result<Option<Report>, Error> {
    let path = Path::new(name);
    if !is_gguf(path) || !path.is_file() {
        return Ok(None);
    }
    let map = open(path)?;
    let file = Gguf::parse(map.as_ref()).map_err(|error| ModelError::Gguf {
        path: path.to_owned(),
        source: Box::new(error),
    })?;
    if file.is_model() {
        return Ok(None);
    }
    let tensors = file.tensors().iter();
    Ok(Some(Report {
        name: name.to_owned(),
        kind: "GGUF of another program",
        bytes: map.as_ref().len(),
        parameters: tensors.clone().map(|tensor| tensor.len() as u64).sum(),
        values: (file.entries().iter())
            .map(|(key, value)| Named {
                key: key.clone(),
                value: value.to_string(),
            })
            .collect(),
        tensors: tensors
            .map(|tensor| Stored {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                kind: tensor.kind.name(),
                bytes: tensor.range.len(),
            })
            .collect(),
    }))
}

impl Report {
    pub(super) fn print(&self) -> Result<(), Error> {
        let named = self.values.iter();
        let named = named.map(|named| vec![named.key.clone(), named.value.clone()]);
        let stored = self.tensors.iter().map(|tensor| {
            vec![
                tensor.name.clone(),
                format!("{:?}", tensor.shape),
                tensor.kind.to_owned(),
                output::bytes(tensor.bytes as u64),
            ]
        });
        output::line(&format!(
            "{}: {}, {}, {} parameters\n\n{}\n\n{}",
            self.name,
            self.kind,
            output::bytes(self.bytes as u64),
            output::count(self.parameters),
            output::table(&["key", "value"], &named.collect::<Vec<_>>()),
            output::table(
                &["tensor", "shape", "kind", "size"],
                &stored.collect::<Vec<_>>()
            ),
        ))
    }
}
