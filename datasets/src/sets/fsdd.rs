//! The Free Spoken Digit Dataset as log-mel features, six speakers.
//!
//! # Source
//! Jackson et al. 2018, Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401. Features: 50
//! frames of 20 ms, 40 mel bands, decibels as bytes; takes 0 to 4 of each speaker and digit test,
//! the others train, as its authors split it.

use crate::catalogue::{CatalogueFile, Entry, Origin};
use crate::error::DatasetError;
use crate::sets::mnist::DIGITS;
use crate::sets::{
    Loaded, Material, Owners, Request, Set, catalogued, keys, labelled, normalise, owned,
};

const FEATURES: &str = "logmel-idx3-ubyte.gz";
const LABELS: &str = "labels-idx1-ubyte.gz";
const SPEAKERS: &str = "speakers-idx1-ubyte.gz";
const TAKES: &str = "takes-idx1-ubyte.gz";

/// Takes from this one on train.
const FIRST_TRAINING_TAKE: u32 = 5;

const NAMES: &[&str] = &["george", "jackson", "lucas", "nicolas", "theo", "yweweler"];

const COMPUTED: &str = "the features were computed from the recordings and have no public home";

macro_rules! computed {
    ($name:expr, $bytes:literal, $sha256:literal) => {
        CatalogueFile {
            name: $name,
            bytes: $bytes,
            sha256: $sha256,
            origin: Origin::ImportOnly(COMPUTED),
        }
    };
}

const ENTRY: Entry = Entry {
    name: "fsdd",
    title: "Free Spoken Digit Dataset, log-mel features",
    shape: "2,700 training and 300 test recordings of 50x40, 10 classes, 6 speakers",
    licence: "CC BY-SA 4.0",
    citation: "Jackson et al. 2018, doi:10.5281/zenodo.1342401",
    source: "https://github.com/Jakobovski/free-spoken-digit-dataset",
    embedded: false,
    files: &[
        computed!(
            FEATURES,
            2_407_708,
            "8b217f78ad964214892a880cc97abb88f238f5aa24465d25de27d45c6ddacff1"
        ),
        computed!(
            LABELS,
            74,
            "fad1136be0652f48b74233da6cc631f49b463db03a342fe3bb38ee63dc9f22dd"
        ),
        computed!(
            SPEAKERS,
            54,
            "75c82be79dc5abaf5cc40ff55f80a0902695e05ce12b90e4170eb90cce81cab6"
        ),
        computed!(
            TAKES,
            95,
            "b51fd2491f297af90495ce420941372cc9b367a8bb74fccb85c6e86b62002f72"
        ),
    ],
};

/// `[dataset] name = "fsdd"`.
pub(super) static SET: Set = Set {
    name: "fsdd",
    summary: "Spoken digits as log-mel features, six speakers",
    keys: keys! {
        normalise: "unit (default), centred, standard or raw",
        feature_noise: "noise that grows from client to client",
    },
    entry: Some(ENTRY),
    load,
};

fn load(request: &Request<'_>) -> Result<Loaded, DatasetError> {
    let read = |name| catalogued(&ENTRY, request.root, name);
    let takes = read(TAKES)?.into_labels(TAKES)?;
    let speakers = read(SPEAKERS)?.into_labels(SPEAKERS)?;
    let labels = read(LABELS)?;
    for (file, count) in [(TAKES, takes.len()), (SPEAKERS, speakers.len())] {
        if count != labels.rows() {
            return Err(DatasetError::CountMismatch {
                noun: "recordings",
                first: LABELS.to_owned(),
                first_count: labels.rows() as u64,
                second: file.to_owned(),
                second_count: count as u64,
            });
        }
    }
    let whole = labelled(
        (FEATURES, read(FEATURES)?),
        (LABELS, labels),
        Some(DIGITS.len()),
    )?;
    let of_split = |training: bool| -> Vec<u32> {
        (0u32..)
            .zip(&takes)
            .filter(|&(_, &take)| (take >= FIRST_TRAINING_TAKE) == training)
            .map(|(row, _)| row)
            .collect()
    };
    let (train_rows, test_rows) = (of_split(true), of_split(false));
    let owners =
        |rows: &[u32]| -> Vec<u32> { rows.iter().map(|&row| speakers[row as usize]).collect() };
    let groups = Owners {
        of: owners(&train_rows),
        of_test: Some(owners(&test_rows)),
        names: owned(NAMES),
        noun: "speaker",
    };
    let (mut train, mut test) = (whole.clone(), whole);
    train.reorder(&train_rows);
    test.reorder(&test_rows);
    normalise(request.config, &mut train, Some(&mut test))?;
    Ok(Loaded::Material(Box::new(Material {
        about: SET.about(),
        train,
        test: Some(test),
        groups: Some(groups),
        class_names: Some(owned(DIGITS)),
    })))
}
