//! CIFAR-10 from its binary batches, and a part of it from pictures of batches.
//!
//! # Source
//! Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.

use fl_core::{InputSpec, TargetSpec};

use crate::catalogue::{CatalogueFile, Entry, Origin};
use crate::error::DatasetError;
use crate::read::cifar;
use crate::sets::{Loaded, Material, Request, Set, catalogued, keys, normalise, owned};
use crate::store::{ByteRows, Inputs, Store, Targets};

const CLASSES: &[&str] = &[
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

macro_rules! member {
    ($name:literal, $sha256:literal) => {
        CatalogueFile {
            name: $name,
            bytes: 30_730_000,
            sha256: $sha256,
            origin: Origin::Archive {
                url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                bytes: 170_052_171,
                sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                member: concat!("cifar-10-batches-bin/", $name),
            },
        }
    };
}

const ENTRY: Entry = Entry {
    name: "cifar10",
    title: "CIFAR-10, small colour pictures",
    shape: "50,000 training and 10,000 test images of 32x32x3, 10 classes",
    licence: "no formal licence; cite the report",
    citation: "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    source: "https://www.cs.toronto.edu/~kriz/cifar.html",
    embedded: false,
    files: &[
        member!(
            "data_batch_1.bin",
            "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"
        ),
        member!(
            "data_batch_2.bin",
            "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"
        ),
        member!(
            "data_batch_3.bin",
            "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"
        ),
        member!(
            "data_batch_4.bin",
            "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"
        ),
        member!(
            "data_batch_5.bin",
            "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"
        ),
        member!(
            "test_batch.bin",
            "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"
        ),
    ],
};

const BATCHES: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];

const CONVERTED: &str = "it was converted from a binary batch without loss and has no public home";

macro_rules! converted {
    ($name:literal, $bytes:literal, $sha256:literal) => {
        CatalogueFile {
            name: $name,
            bytes: $bytes,
            sha256: $sha256,
            origin: Origin::ImportOnly(CONVERTED),
        }
    };
}

const SUBSET_ENTRY: Entry = Entry {
    name: "cifar10-subset",
    title: "CIFAR-10: training batches 1 and 2, the first 4,000 test images",
    shape: "20,000 training and 4,000 test images of 32x32x3, 10 classes",
    files: &[
        converted!(
            "data_batch_1.png",
            23_138_647,
            "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc"
        ),
        converted!(
            "data_batch_1-labels-idx1-ubyte.gz",
            5_110,
            "e2ba3f84df0cf40f4a44e0fe74a4c8626cb1047d575dd9f168cdde147d10eed4"
        ),
        converted!(
            "data_batch_2.png",
            23_162_285,
            "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f"
        ),
        converted!(
            "data_batch_2-labels-idx1-ubyte.gz",
            5_094,
            "0e2b0a6c7671f9d7516aae05226e477d915ffff804e57bbc74ce81c8786def55"
        ),
        converted!(
            "test_batch_first4000.png",
            9_240_141,
            "4ee97ab9f42b5729fc46893d3a6afc69df0f54a565886209bc9bc4466c7f9772"
        ),
        converted!(
            "test_batch_first4000-labels-idx1-ubyte.gz",
            2_060,
            "36f592068f9cba774d4049860f96e3065f1bb7720f6638f60561ff5553c443aa"
        ),
    ],
    ..ENTRY
};

/// `[dataset] name = "cifar10"`.
pub(super) static SET: Set = Set {
    name: "cifar10",
    summary: "CIFAR-10, small colour pictures",
    keys: keys! {
        normalise: "unit (default), centred, standard or raw",
        feature_noise: "noise that grows from client to client",
    },
    entry: Some(ENTRY),
    load,
};

/// `[dataset] name = "cifar10-subset"`.
pub(super) static SUBSET: Set = Set {
    name: "cifar10-subset",
    summary: "A part of CIFAR-10, from pictures of its batches",
    keys: keys! {
        normalise: "unit (default), centred, standard or raw",
        feature_noise: "noise that grows from client to client",
    },
    entry: Some(SUBSET_ENTRY),
    load: load_subset,
};

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let read = |name: &'static str, images: &mut Vec<u8>, labels: &mut Vec<u8>| {
        let bytes = ENTRY.read(request.root, name)?;
        cifar::binary(name, &bytes, images, labels)
    };
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for name in BATCHES {
        read(name, &mut images, &mut labels)?;
    }
    let train = store("CIFAR-10 training batches", images, labels)?;
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    read("test_batch.bin", &mut images, &mut labels)?;
    let test = store("test_batch.bin", images, labels)?;
    material(request, &SET, train, test)
}

fn load_subset(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let mut batches = Vec::with_capacity(3);
    for (picture, label_file) in [
        ("data_batch_1.png", "data_batch_1-labels-idx1-ubyte.gz"),
        ("data_batch_2.png", "data_batch_2-labels-idx1-ubyte.gz"),
        (
            "test_batch_first4000.png",
            "test_batch_first4000-labels-idx1-ubyte.gz",
        ),
    ] {
        let images = cifar::sprite(picture, &SUBSET_ENTRY.read(request.root, picture)?)?;
        let labels = catalogued(&SUBSET_ENTRY, request.root, label_file)?;
        let labels = labels.into_labels(label_file)?;
        let count = images.len() / cifar::IMAGE;
        if labels.len() != count {
            return Err(DatasetError::CountMismatch {
                noun: "images",
                first: picture.to_owned(),
                first_count: count as u64,
                second: label_file.to_owned(),
                second_count: labels.len() as u64,
            });
        }
        let labels: Vec<u8> = labels
            .into_iter()
            .map(|label| label.min(255) as u8)
            .collect();
        batches.push((images, labels));
    }
    let (test_images, test_labels) = batches.pop().unwrap_or_default();
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for (batch_images, batch_labels) in batches {
        images.extend(batch_images);
        labels.extend(batch_labels);
    }
    let train = store("CIFAR-10 training pictures", images, labels)?;
    let test = store("CIFAR-10 test pictures", test_images, test_labels)?;
    material(request, &SUBSET, train, test)
}

fn store(what: &str, data: Vec<u8>, labels: Vec<u8>) -> Result<Store, DatasetError> {
    Store::new(
        what,
        InputSpec::Real(vec![32, 32, 3]),
        TargetSpec::Class {
            classes: CLASSES.len(),
        },
        Inputs::Bytes(ByteRows {
            data,
            channels: 3,
            zero: 0,
            largest: 255,
        }),
        Targets::Bytes(labels),
    )
}

fn material(
    request: &Request<'_>,
    set: &Set,
    mut train: Store,
    mut test: Store,
) -> Result<Loaded, DatasetError> {
    normalise(request.config, &mut train, Some(&mut test))?;
    Ok(Loaded::Material(Box::new(Material {
        about: set.about(),
        train,
        test: Some(test),
        groups: None,
        class_names: Some(owned(CLASSES)),
    })))
}
