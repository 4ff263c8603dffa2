//! Your own arrays in IDX files, named as MNIST names them unless keys say otherwise.

use std::path::{Path, PathBuf};

use crate::error::DatasetError;
use crate::read::{self, idx::Idx};
use crate::sets::{Loaded, Material, Owners, Request, Set, keys, labelled, normalise, rank};

/// `[dataset] name = "idx"`.
pub(super) static SET: Set = Set {
    name: "idx",
    summary: "your own arrays in IDX files, plain or gzipped",
    keys: keys! {
        path: "folder of the files",
        inputs: "training inputs; `train-images-idx3-ubyte` or that with `.gz` when left out",
        labels: "training labels; `train-labels-idx1-ubyte` or that with `.gz` when left out",
        groups: "owner of each training example; no natural clients when left out",
        test_inputs: "test inputs; `t10k-images-idx3-ubyte` or that with `.gz`, where there",
        test_labels: "test labels; `t10k-labels-idx1-ubyte` or that with `.gz`",
        normalise: "unit (default), centred, standard or raw",
        feature_noise: "noise that grows from client to client",
    },
    entry: None,
    load,
};

/// The file that `key` names, or the first of its usual names that is there.
fn place(folder: &Path, key: Option<&String>, usual: &str) -> PathBuf {
    if let Some(name) = key {
        return folder.join(name);
    }
    let packed = folder.join(format!("{usual}.gz"));
    if packed.exists() {
        packed
    } else {
        folder.join(usual)
    }
}

fn open(path: &Path) -> Result<(String, Idx), DatasetError> {
    let name = path.display().to_string();
    let array = Idx::parse(&name, &read::file(path)?)?;
    Ok((name, array))
}

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let config = request.config;
    let folder = config.need(config.path.as_ref(), "path", "the folder of the IDX files")?;
    let read_pair = |inputs: &Path, labels: &Path, classes| {
        let (input_name, inputs) = open(inputs)?;
        let (label_name, labels) = open(labels)?;
        labelled((&input_name, inputs), (&label_name, labels), classes)
    };
    let mut train = read_pair(
        &place(folder, config.inputs.as_ref(), "train-images-idx3-ubyte"),
        &place(folder, config.labels.as_ref(), "train-labels-idx1-ubyte"),
        None,
    )?;
    let test_inputs = place(
        folder,
        config.test_inputs.as_ref(),
        "t10k-images-idx3-ubyte",
    );
    let test_labels = place(
        folder,
        config.test_labels.as_ref(),
        "t10k-labels-idx1-ubyte",
    );
    let mut test = if config.test_inputs.is_some() || test_inputs.exists() {
        Some(read_pair(
            &test_inputs,
            &test_labels,
            Some(train.classes()),
        )?)
    } else {
        None
    };
    if let Some(test) = &test
        && test.input() != train.input()
    {
        return Err(read::malformed(
            &test_inputs.display().to_string(),
            "header",
            format!("examples of shape {:?}", test.input()),
            format!("{:?}, as in training", train.input()),
            "use files of one data set",
        ));
    }
    let groups = match &config.groups {
        None => None,
        Some(name) => {
            let (file, owners) = open(&folder.join(name))?;
            let owners = owners.into_labels(&file)?;
            if owners.len() != train.rows() {
                return Err(DatasetError::CountMismatch {
                    noun: "examples",
                    first: "the training inputs".to_owned(),
                    first_count: train.rows() as u64,
                    second: file,
                    second_count: owners.len() as u64,
                });
            }
            let (ids, of) = rank(&owners);
            Some(Owners {
                of,
                of_test: None,
                names: ids.iter().map(ToString::to_string).collect(),
                noun: "group",
            })
        }
    };
    normalise(config, &mut train, test.as_mut())?;
    Ok(Loaded::Material(Box::new(Material {
        about: SET.about(),
        train,
        test,
        groups,
        class_names: None,
    })))
}
