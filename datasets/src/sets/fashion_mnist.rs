//! Fashion-MNIST, whole and as the embedded part of it.
//!
//! # Source
//! Xiao, Rasul, Vollgraf 2017 (arXiv:1708.07747).

use crate::catalogue::{CatalogueFile, Entry, Origin};
use crate::embedded;
use crate::error::DatasetError;
use crate::read::idx::Idx;
use crate::sets::{Loaded, Material, Request, Set, catalogued, keys, labelled, normalise, owned};

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte.gz";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte.gz";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte.gz";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte.gz";

/// Names of the classes.
const CLASSES: &[&str] = &[
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

macro_rules! original {
    ($name:expr, $file:literal, $bytes:literal, $sha256:literal) => {
        CatalogueFile {
            name: $name,
            bytes: $bytes,
            sha256: $sha256,
            origin: Origin::Urls(&[
                concat!(
                    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                    $file
                ),
                concat!(
                    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                    $file
                ),
            ]),
        }
    };
}

const ENTRY: Entry = Entry {
    name: "fashion-mnist",
    title: "Fashion-MNIST, pictures of clothing",
    shape: "60,000 training and 10,000 test images of 28x28, 10 classes",
    licence: "MIT",
    citation: "Xiao, Rasul, Vollgraf 2017 (arXiv:1708.07747)",
    source: "https://github.com/zalandoresearch/fashion-mnist",
    embedded: false,
    files: &[
        original!(
            TRAIN_IMAGES,
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        original!(
            TRAIN_LABELS,
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        original!(
            TEST_IMAGES,
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        original!(
            TEST_LABELS,
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    ],
};

const MINI_ENTRY: Entry = Entry {
    name: "fashion-mini",
    title: "The first 10,000 training and 2,000 test images of Fashion-MNIST",
    shape: "10,000 training and 2,000 test images of 28x28, 10 classes",
    embedded: true,
    files: &[],
    ..ENTRY
};

/// `[dataset] name = "fashion-mnist"`.
pub(super) static SET: Set = Set {
    name: "fashion-mnist",
    summary: "Fashion-MNIST, pictures of clothing",
    keys: keys! {
        normalise: "unit (default), centred, standard or raw",
        feature_noise: "noise that grows from client to client",
    },
    entry: Some(ENTRY),
    load,
};

/// `[dataset] name = "fashion-mini"`.
pub(super) static MINI: Set = Set {
    name: "fashion-mini",
    summary: "A part of Fashion-MNIST that is in the program",
    keys: keys! {
        normalise: "unit (default), centred, standard or raw",
        feature_noise: "noise that grows from client to client",
    },
    entry: Some(MINI_ENTRY),
    load: load_mini,
};

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let read =
        |name| -> Result<_, DatasetError> { Ok((name, catalogued(&ENTRY, request.root, name)?)) };
    build(
        request,
        &SET,
        [
            read(TRAIN_IMAGES)?,
            read(TRAIN_LABELS)?,
            read(TEST_IMAGES)?,
            read(TEST_LABELS)?,
        ],
    )
}

fn load_mini(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let read = |name, bytes| -> Result<_, DatasetError> { Ok((name, Idx::parse(name, bytes)?)) };
    build(
        request,
        &MINI,
        [
            read(
                "embedded fashion-mini training images",
                embedded::FASHION_TRAIN_IMAGES,
            )?,
            read(
                "embedded fashion-mini training labels",
                embedded::FASHION_TRAIN_LABELS,
            )?,
            read(
                "embedded fashion-mini test images",
                embedded::FASHION_TEST_IMAGES,
            )?,
            read(
                "embedded fashion-mini test labels",
                embedded::FASHION_TEST_LABELS,
            )?,
        ],
    )
}

fn build(
    request: &Request<'_>,
    set: &Set,
    [train_images, train_labels, test_images, test_labels]: [(&'static str, Idx); 4],
) -> Result<Loaded, DatasetError> {
    let classes = Some(CLASSES.len());
    let mut train = labelled(train_images, train_labels, classes)?;
    let mut test = labelled(test_images, test_labels, classes)?;
    normalise(request.config, &mut train, Some(&mut test))?;
    Ok(Loaded::Material(Box::new(Material {
        about: set.about(),
        train,
        test: Some(test),
        groups: None,
        class_names: Some(owned(CLASSES)),
    })))
}
