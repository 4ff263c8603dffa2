//! MNIST, with the writers that QMNIST gives to its training images.
//!
//! # Source
//! LeCun, Bottou, Bengio, Haffner 1998; Yadav & Bottou 2019 (arXiv:1905.10498), whose extended
//! labels hold, per image: class, HSF series, NIST writer id, and five more columns.

use crate::catalogue::{CatalogueFile, Entry, Origin};
use crate::error::DatasetError;
use crate::read::idx::{Idx, IdxData};
use crate::read::{DAMAGED, malformed};
use crate::sets::{
    Loaded, Material, Owners, Request, Set, catalogued, keys, labelled, normalise, owned, rank,
};

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte.gz";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte.gz";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte.gz";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte.gz";
const WRITERS: &str = "qmnist-train-labels-idx2-int.gz";

/// Columns of QMNIST's extended labels.
const COLUMNS: usize = 8;
const CLASS: usize = 0;
const SERIES: usize = 1;
const WRITER: usize = 2;

/// A file of the classic distribution, from its common mirror or its first home.
macro_rules! classic {
    ($name:expr, $file:literal, $bytes:literal, $sha256:literal) => {
        CatalogueFile {
            name: $name,
            bytes: $bytes,
            sha256: $sha256,
            origin: Origin::Urls(&[
                concat!("https://ossci-datasets.s3.amazonaws.com/mnist/", $file),
                concat!("http://yann.lecun.com/exdb/mnist/", $file),
            ]),
        }
    };
}

const ENTRY: Entry = Entry {
    name: "mnist",
    title: "MNIST handwritten digits",
    shape: "60,000 training and 10,000 test images of 28x28, 10 classes, 539 training writers",
    licence: "CC BY-SA 3.0 as stated by common redistributors; writer ids (QMNIST): BSD style",
    citation: "LeCun, Bottou, Bengio, Haffner 1998; Yadav & Bottou 2019 (arXiv:1905.10498)",
    source: "http://yann.lecun.com/exdb/mnist/",
    embedded: false,
    files: &[
        classic!(
            TRAIN_IMAGES,
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        classic!(
            TRAIN_LABELS,
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        classic!(
            TEST_IMAGES,
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        classic!(
            TEST_LABELS,
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
        CatalogueFile {
            name: WRITERS,
            bytes: 463_024,
            sha256: "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
            origin: Origin::Urls(&[
                "https://raw.githubusercontent.com/facebookresearch/qmnist/master/qmnist-train-labels-idx2-int.gz",
            ]),
        },
    ],
};

/// `[dataset] name = "mnist"`.
pub(super) static SET: Set = Set {
    name: "mnist",
    summary: "MNIST handwritten digits, with 539 writers as natural clients",
    keys: keys! {
        normalise: "unit (default), centred, standard or raw",
        feature_noise: "noise that grows from client to client",
        client_column: "`writer` (default) or `series`, the two populations that wrote",
    },
    entry: Some(ENTRY),
    load,
};

/// Names of the ten digits.
pub(super) const DIGITS: &[&str] = &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let read = |name| catalogued(&ENTRY, request.root, name);
    let train_labels = read(TRAIN_LABELS)?;
    let groups = if request.natural {
        let column = match request.config.client_column.as_deref() {
            None | Some("writer") => (WRITER, "writer"),
            Some("series") => (SERIES, "series"),
            Some(other) => {
                return Err(DatasetError::BadValue {
                    key: "client_column",
                    value: format!("`{other}`"),
                    expected: "give `writer` or `series`".to_owned(),
                });
            }
        };
        Some(owners(read(WRITERS)?, &train_labels, column)?)
    } else {
        None
    };
    let classes = Some(DIGITS.len());
    let mut train = labelled(
        (TRAIN_IMAGES, read(TRAIN_IMAGES)?),
        (TRAIN_LABELS, train_labels),
        classes,
    )?;
    let mut test = labelled(
        (TEST_IMAGES, read(TEST_IMAGES)?),
        (TEST_LABELS, read(TEST_LABELS)?),
        classes,
    )?;
    normalise(request.config, &mut train, Some(&mut test))?;
    Ok(Loaded::Material(Box::new(Material {
        about: SET.about(),
        train,
        test: Some(test),
        groups,
        class_names: Some(owned(DIGITS)),
    })))
}

/// The writers, after a check that the extended labels are those of the images.
fn owners(
    extended: Idx,
    labels: &Idx,
    (column, noun): (usize, &'static str),
) -> Result<Owners, DatasetError> {
    let (IdxData::I32(extended_data), [rows, COLUMNS]) = (&extended.data, &extended.shape[..])
    else {
        return Err(malformed(
            WRITERS,
            "header",
            format!("{} of {:?}", extended.data.type_name(), extended.shape),
            "i32 of 60000 rows and 8 columns",
            DAMAGED,
        ));
    };
    if *rows != labels.rows() {
        return Err(DatasetError::CountMismatch {
            noun: "examples",
            first: WRITERS.to_owned(),
            first_count: *rows as u64,
            second: TRAIN_LABELS.to_owned(),
            second_count: labels.rows() as u64,
        });
    }
    let labels = labels.clone().into_labels(TRAIN_LABELS)?;
    let mut of = Vec::with_capacity(*rows);
    for (row, (record, &label)) in extended_data.chunks_exact(COLUMNS).zip(&labels).enumerate() {
        let owner = u32::try_from(record[column]).ok();
        let (Some(owner), true) = (owner, i64::from(record[CLASS]) == i64::from(label)) else {
            return Err(malformed(
                WRITERS,
                format!("row {row}"),
                format!("class {}, {noun} {}", record[CLASS], record[column]),
                format!("class {label}, as in {TRAIN_LABELS}, and a {noun} from 0 on"),
                "use the labels of these images",
            ));
        };
        of.push(owner);
    }
    let (ids, of) = rank(&of);
    Ok(Owners {
        of,
        of_test: None,
        names: ids.iter().map(ToString::to_string).collect(),
        noun,
    })
}
