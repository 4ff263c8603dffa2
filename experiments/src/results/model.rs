//! The trained model as a model file ([`fl_edge::file`]): valid SafeTensors with the model in its
//! metadata.

use std::io;
use std::path::Path;
use std::sync::Arc;

use fl_core::Parameters;
use fl_edge::Model;
use fl_edge::file::{self, FileError, Mapped, ModelFile};

use super::atomic::{self, Staged};
use super::error::ResultsError;

/// The file's name within a variant's folder.
pub(crate) const FILE: &str = "model.safetensors";

/// Writes the parameters beside `path`.
///
/// # Errors
/// [`ResultsError::Write`] or [`ResultsError::Encode`].
pub(crate) fn stage(
    path: &Path,
    model: &Model,
    parameters: &Parameters,
) -> Result<Staged, ResultsError> {
    stage_with(path, |writer| {
        file::write_parameters(model, parameters, writer)
    })
}

/// Writes a model file beside `path`.
///
/// # Errors
/// [`ResultsError::Write`] or [`ResultsError::Encode`].
pub(crate) fn stage_with(
    path: &Path,
    write: impl FnOnce(&mut dyn io::Write) -> Result<(), FileError>,
) -> Result<Staged, ResultsError> {
    let mut refused = None;
    let staged = atomic::stage(path, |writer| {
        write(writer).map_err(|error| match error {
            FileError::Write(error) => error,
            error => {
                refused = Some(error.to_string());
                io::ErrorKind::InvalidInput.into()
            }
        })
    });
    match refused {
        Some(why) => Err(ResultsError::Encode {
            path: path.to_owned(),
            what: "the model",
            why,
        }),
        None => staged,
    }
}

/// A model file, mapped; its header is checked.
///
/// # Errors
/// [`ResultsError::Read`] or [`ResultsError::Damaged`].
pub(crate) fn open(path: &Path) -> Result<ModelFile, ResultsError> {
    let map = Mapped::open(path).map_err(|error| ResultsError::read(path, error))?;
    ModelFile::open(Arc::new(map)).map_err(|error| ResultsError::damaged(path, error.to_string()))
}

/// Reads the model of a variant, as `model.safetensors` holds it.
///
/// # Errors
/// [`ResultsError::Read`] or [`ResultsError::Damaged`].
pub fn read(path: &Path) -> Result<Parameters, ResultsError> {
    open(path)?
        .parameters()
        .map_err(|error| ResultsError::damaged(path, error.to_string()))
}

/// Writes a finished model once more, beside `path`.
///
/// # Errors
/// [`ResultsError`] when it cannot be read or written.
pub(crate) fn stage_copy(path: &Path, of: &Path) -> Result<Staged, ResultsError> {
    let bytes = std::fs::read(of).map_err(|error| ResultsError::read(of, error))?;
    atomic::stage(path, |writer| writer.write_all(&bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use fl_core::{InputSpec, TargetSpec};
    use fl_edge::layer::{DenseDef, LayerDef};
    use fl_edge::{LayersDef, ModelDef};
    use safetensors::{Dtype, SafeTensors};

    use super::*;

    /// A model of eight parameters and some that only their bits describe.
    pub(crate) fn example() -> (Model, Parameters) {
        let def = ModelDef::Layers(LayersDef {
            layer: vec![LayerDef::Dense(DenseDef::output())],
            loss: None,
        });
        let target = TargetSpec::Class { classes: 2 };
        let model = Model::new(&def, &InputSpec::Real(vec![3]), target).unwrap();
        let values = vec![1.0, -0.0, f32::NAN, 1e-45, f32::MAX, 0.1, 7.0, 8.0];
        let parameters = Parameters::new(Arc::clone(model.layout()), values).unwrap();
        (model, parameters)
    }

    #[test]
    fn a_model_reads_back_with_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let (model, parameters) = example();
        let first = stage(&path, &model, &parameters)
            .unwrap()
            .publish()
            .unwrap();
        assert_eq!(read(&path).unwrap().digest(), parameters.digest());
        assert_eq!(stage(&path, &model, &parameters).unwrap().digest(), &first);
        let copy = folder.path().join("copy");
        assert_eq!(stage_copy(&copy, &path).unwrap().digest(), &first);
        let missing = folder.path().join("missing");
        assert!(matches!(read(&missing), Err(ResultsError::Read { .. })));
    }

    /// The reference implementation of the format finds the same tensors.
    #[test]
    fn any_reader_of_the_format_opens_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let (model, parameters) = example();
        stage(&path, &model, &parameters)
            .unwrap()
            .publish()
            .unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), 2);
        for spec in model.layout().tensors() {
            let tensor = file.tensor(&spec.name).unwrap();
            let values = &parameters.values()[spec.range()];
            let expected: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(
                (tensor.dtype(), tensor.shape()),
                (Dtype::F32, &spec.shape[..])
            );
            assert_eq!(tensor.data(), expected);
        }
    }

    #[test]
    fn a_model_of_another_layout_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let (model, _) = example();
        let other = Parameters::zeros(Arc::new(fl_core::Layout::new([]).unwrap()));
        let error = stage(&path, &model, &other).unwrap_err();
        assert!(matches!(error, ResultsError::Encode { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
