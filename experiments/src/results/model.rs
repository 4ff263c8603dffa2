//! The trained model as a SafeTensors file.

use std::path::Path;
use std::sync::Arc;

use fl_core::{Layout, Parameters};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::atomic::{self, Staged};
use super::error::ResultsError;

/// The file's name within a variant's folder.
pub(crate) const FILE: &str = "model.safetensors";
/// Key of the file's metadata that holds the order of the tensors in the flat vector, which the
/// format itself does not keep.
const ORDER: &str = "fledgling.layout";

/// Writes the parameters beside `path`.
///
/// # Errors
/// [`ResultsError::Write`] or [`ResultsError::Encode`].
pub(crate) fn stage(path: &Path, parameters: &Parameters) -> Result<Staged, ResultsError> {
    let encode = |why: String| ResultsError::Encode {
        path: path.to_owned(),
        what: "the model",
        why,
    };
    let bytes: Vec<u8> = parameters
        .values()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let mut views = Vec::new();
    for tensor in parameters.layout().tensors() {
        let range = tensor.range();
        let data = &bytes[range.start * 4..range.end * 4];
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), data)
            .map_err(|error| encode(error.to_string()))?;
        views.push((tensor.name.as_str(), view));
    }
    let order = serde_json::to_string(parameters.layout().as_ref())
        .map_err(|error| encode(error.to_string()))?;
    // One key only: the order of several would not be the same twice.
    let metadata = [(ORDER.to_owned(), order)].into_iter().collect();
    let file =
        safetensors::serialize(views, Some(metadata)).map_err(|error| encode(error.to_string()))?;
    atomic::stage(path, |writer| writer.write_all(&file))
}

/// Reads the model of a variant, as `model.safetensors` holds it.
///
/// # Errors
/// [`ResultsError::Read`] or [`ResultsError::Damaged`].
pub fn read(path: &Path) -> Result<Parameters, ResultsError> {
    let bytes = std::fs::read(path).map_err(|error| ResultsError::read(path, error))?;
    parse(&bytes).map_err(|what| ResultsError::damaged(path, what))
}

fn parse(bytes: &[u8]) -> Result<Parameters, String> {
    let say = |error: safetensors::SafeTensorError| error.to_string();
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(say)?;
    let order = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(ORDER))
        .ok_or_else(|| format!("its metadata have no `{ORDER}`"))?;
    let layout: Layout = serde_json::from_str(order).map_err(|error| error.to_string())?;
    let file = SafeTensors::deserialize(bytes).map_err(say)?;
    if file.len() != layout.tensors().len() {
        return Err(format!(
            "it holds {} tensors and its layout names {}",
            file.len(),
            layout.tensors().len()
        ));
    }
    let mut values = Vec::new();
    for spec in layout.tensors() {
        let tensor = file.tensor(&spec.name).map_err(say)?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != spec.shape {
            return Err(format!(
                "tensor `{}` is {:?} {:?} where its layout has F32 {:?}",
                spec.name,
                tensor.dtype(),
                tensor.shape(),
                spec.shape
            ));
        }
        let (words, _) = tensor.data().as_chunks::<4>();
        values.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
    }
    Parameters::new(Arc::new(layout), values).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        let layout = Layout::new([
            ("b.weight".to_owned(), vec![3, 2]),
            ("a.bias".to_owned(), vec![2]),
            ("empty".to_owned(), vec![0, 4]),
        ])
        .unwrap();
        let values = vec![1.0, -0.0, f32::NAN, 1e-45, f32::MAX, 0.1, 7.0, 8.0];
        Parameters::new(Arc::new(layout), values).unwrap()
    }

    #[test]
    fn a_model_reads_back_with_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let model = parameters();
        let first = stage(&path, &model).unwrap().publish().unwrap();
        assert_eq!(read(&path).unwrap().digest(), model.digest());
        assert_eq!(stage(&path, &model).unwrap().digest(), &first);
        // Any reader of the format can open it.
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("b.weight").unwrap().shape(), [3, 2]);
    }

    #[test]
    fn no_truncation_panics_or_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        stage(&path, &parameters()).unwrap().publish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
