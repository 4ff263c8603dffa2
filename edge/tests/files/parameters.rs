//! Files of parameters.

use std::path::Path;
use std::sync::Arc;

use fl_core::{InputSpec, TargetSpec};
use fl_edge::file::{ALIGNMENT, FileError, Kind, ModelFile, write_parameters};
use fl_edge::layer::{DenseDef, EmbeddingDef, FlattenDef, LayerDef, LeakyReluDef};
use fl_edge::qat::QatOptions;
use fl_edge::{LayersDef, MODELS, Model, ModelDef};

use crate::{Tested, shared, small, start, written};

/// Every model of the zoo for inputs that it takes, and one of tokens with decimals in its keys.
fn models() -> Vec<Model> {
    let image = InputSpec::Real(vec![32, 32, 3]);
    let classes = TargetSpec::Class { classes: 10 };
    let mut models: Vec<Model> = MODELS
        .iter()
        .map(|(kind, _)| {
            let def = ModelDef::named(kind).expect("listed models have a definition");
            let known = match def.example() {
                Some((input @ InputSpec::Tokens { .. }, target)) => (input, target),
                _ => (image.clone(), classes),
            };
            Model::new(&def, &known.0, known.1).expect(kind)
        })
        .collect();
    let embedding: LayerDef = LayerDef::Embedding(EmbeddingDef {
        name: Some("words ☃ \"quoted\"".to_owned()),
        input: None,
        size: 3,
    });
    let leaky = LayerDef::LeakyRelu(LeakyReluDef {
        name: None,
        input: None,
        // Seven digits that only correct rounding brings back.
        slope: f32::from_bits(0x3dcc_cccf),
    });
    let def = ModelDef::Layers(LayersDef {
        layer: vec![
            embedding,
            leaky,
            LayerDef::Flatten(FlattenDef::default()),
            LayerDef::Dense(DenseDef::output()),
        ],
        loss: Some(fl_edge::Loss::Bce),
    });
    let tokens = InputSpec::Tokens {
        length: 5,
        vocabulary: 7,
    };
    let numbers = TargetSpec::Real { width: 2 };
    models.push(Model::new(&def, &tokens, numbers).expect("layers for tokens"));
    models.push(small());
    let qat = QatOptions {
        momentum: 0.3,
        ..QatOptions::default()
    };
    models.push(
        small()
            .with_ranges(qat)
            .expect("no bare batch normalisation"),
    );
    models
}

#[test]
fn every_model_reads_back_bit_for_bit() -> Tested {
    for model in models() {
        let parameters = start(&model);
        let bytes = written(&model, &parameters);
        assert_eq!(bytes, written(&model, &parameters), "the same bytes again");
        let file = ModelFile::open(shared(&bytes))?;
        assert_eq!(file.kind(), Kind::Parameters);
        assert_eq!(file.model().definition(), model.definition());
        assert_eq!(file.model().input(), model.input());
        assert_eq!(file.model().target(), model.target());
        assert_eq!(file.model().loss(), model.loss());
        assert_eq!(file.model().qat_options(), model.qat_options());
        assert_eq!(file.parameters()?.digest(), parameters.digest());
        assert_eq!(file.len(), bytes.len());
        assert_eq!(file.data_len(), 4 * model.parameters());
        assert_eq!((file.len() - file.data_len()) % ALIGNMENT, 0);
    }
    Ok(())
}

#[test]
fn parameters_of_another_model_are_not_written() {
    let (one, other) = (small(), &models()[0]);
    let mut bytes = Vec::new();
    let refused = write_parameters(&one, &start(other), &mut bytes);
    assert!(matches!(refused, Err(FileError::OtherModel)));
    assert!(bytes.is_empty());
}

#[test]
fn a_writer_that_stops_is_an_error() -> Tested {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::StorageFull, "no space left")
            })?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let model = small();
    let parameters = start(&model);
    let whole = written(&model, &parameters).len();
    for room in [0, 100, whole - 1] {
        let error = write_parameters(&model, &parameters, &mut Full(room)).unwrap_err();
        assert_eq!(error.to_string(), "no space left; check the disk");
    }
    write_parameters(&model, &parameters, &mut Full(whole))?;
    Ok(())
}

#[test]
fn a_mapped_file_gives_its_values_without_a_copy() -> Tested {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join("files-model.safetensors");
    let model = small();
    let parameters = start(&model);
    std::fs::write(&path, written(&model, &parameters))?;
    let map = fl_edge::file::Mapped::open(&path)?;
    let file = ModelFile::open(Arc::new(map))?;
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let values = file.values().ok_or("a map begins at a page")?;
    assert_eq!(bits(values), bits(parameters.values()));
    assert_eq!(values.as_ptr() as usize % ALIGNMENT, 0);
    // Replaced by renaming, as files of this project are, the old map stays whole.
    let beside = folder.join("files-new");
    std::fs::write(&beside, b"something else")?;
    std::fs::rename(&beside, &path)?;
    assert_eq!(file.parameters()?.digest(), parameters.digest());
    let other = fl_edge::file::Mapped::open(&path)?;
    assert!(ModelFile::open(Arc::new(other)).is_err());
    assert!(fl_edge::file::Mapped::open(&folder.join("files-none")).is_err());
    std::fs::write(&path, b"")?;
    let empty = fl_edge::file::Mapped::open(&path)?;
    let error = ModelFile::open(Arc::new(empty)).unwrap_err();
    assert!(matches!(
        error,
        FileError::Cut {
            found: 0,
            needed: 8
        }
    ));
    std::fs::remove_file(&path)?;
    Ok(())
}
