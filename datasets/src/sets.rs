//! The data sets: one file each in `sets/`, one line each in [`SETS`].

use fl_core::{InputSpec, Seed, TargetSpec};

use crate::catalogue::{self, Entry};
use crate::config::{DatasetConfig, Key};
use crate::dataset::FederatedDataset;
use crate::error::DatasetError;
use crate::partition::PartitionConfig;
use crate::read::idx::Idx;
use crate::read::malformed;
use crate::root::DataRoot;
use crate::store::{ByteRows, Inputs, Normalise, Store, Targets};

mod adult;
mod cifar10;
mod digits;
mod fashion_mnist;
mod fsdd;
mod idx;
mod images;
mod leaf;
mod mnist;
mod shakespeare;
mod synthetic;
mod tables;
mod text;

/// Every data set.
pub static SETS: &[&Set] = &[
    &digits::SET,
    &adult::SET,
    &fashion_mnist::MINI,
    &fashion_mnist::SET,
    &mnist::SET,
    &cifar10::SET,
    &cifar10::SUBSET,
    &shakespeare::SET,
    &fsdd::SET,
    &synthetic::SET,
    &tables::CSV,
    &tables::PARQUET,
    &images::SET,
    &idx::SET,
    &leaf::SET,
    &text::SET,
];

/// A data set that `[dataset]` can name.
#[derive(Debug)]
pub struct Set {
    /// The name.
    pub name: &'static str,
    /// What it is, one line.
    pub summary: &'static str,
    /// The keys that it reads, beside `name`.
    pub keys: &'static [Key],
    /// Its place in the catalogue; none for generators and your own data.
    pub entry: Option<Entry>,
    /// Reads or prepares it.
    pub(crate) load: fn(&Request<'_>) -> Result<Loaded, DatasetError>,
}

/// What a set is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) config: &'a DatasetConfig,
    pub(crate) root: &'a DataRoot,
    pub(crate) seed: Seed,
    /// Whether the natural owners of rows will be used.
    pub(crate) natural: bool,
}

/// What a set gives.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// Stored data, yet to be divided.
    Material(Box<Material>),
    /// A population that is generated.
    Population(FederatedDataset),
}

/// Stored data before they are divided.
#[derive(Debug)]
pub struct Material {
    /// What they are.
    pub about: About,
    /// Training examples.
    pub train: Store,
    /// Test examples, of the same shape and classes.
    pub test: Option<Store>,
    /// The natural owners of the rows.
    pub groups: Option<Owners>,
    /// Names of the classes.
    pub class_names: Option<Vec<String>>,
}

/// The natural owners of rows.
#[derive(Clone, Debug)]
pub struct Owners {
    /// Owner of each training row.
    pub of: Vec<u32>,
    /// Owner of each test row, or [`MISSING`](crate::table::MISSING); none where test rows have
    /// owners of their own or none.
    pub of_test: Option<Vec<u32>>,
    /// Names of the owners.
    pub names: Vec<String>,
    /// What an owner is.
    pub noun: &'static str,
}

/// Name, licence and source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The name in `[dataset]`.
    pub name: String,
    /// What it is.
    pub title: String,
    /// The licence, where known.
    pub licence: Option<String>,
    /// What to cite, where known.
    pub citation: Option<String>,
    /// Where it comes from, where known.
    pub source: Option<String>,
}

impl Set {
    /// Name, licence and source.
    pub(crate) fn about(&self) -> About {
        let text = |of: fn(&Entry) -> &'static str| self.entry.as_ref().map(|e| of(e).to_owned());
        About {
            name: self.name.to_owned(),
            title: text(|entry| entry.title).unwrap_or_else(|| self.summary.to_owned()),
            licence: text(|entry| entry.licence),
            citation: text(|entry| entry.citation),
            source: text(|entry| entry.source),
        }
    }
}

/// The set called `name`.
///
/// # Errors
/// [`DatasetError::UnknownName`] with the nearest name.
pub fn get(name: &str) -> Result<&'static Set, DatasetError> {
    (SETS.iter().find(|set| set.name == name).copied())
        .ok_or_else(|| catalogue::unknown(name, names()))
}

/// The names that `[dataset]` may give.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETS.iter().map(|set| set.name)
}

/// Reads data set `config.name` and divides it among clients.
///
/// # Errors
/// [`DatasetError`] when the configuration asks for what cannot be, or files are missing,
/// damaged or not the recorded ones.
pub fn load(
    config: &DatasetConfig,
    root: &DataRoot,
    seed: Seed,
) -> Result<FederatedDataset, DatasetError> {
    config.check()?;
    let set = get(&config.name)?;
    let natural = matches!(config.partition, None | Some(PartitionConfig::Natural(_)));
    let request = Request {
        config,
        root,
        seed,
        natural,
    };
    match (set.load)(&request)? {
        Loaded::Material(material) => FederatedDataset::divide(*material, config, seed),
        Loaded::Population(population) => Ok(population),
    }
}

/// Keys that every stored data set reads, then its own.
macro_rules! keys {
    ($($name:ident: $meaning:literal),* $(,)?) => {
        &[
            $crate::config::Key {
                name: "partition",
                meaning: "how the examples fall apart into clients; the natural clients when left out",
            },
            $crate::config::Key { name: "limit", meaning: "use the first so many training examples" },
            $crate::config::Key {
                name: "holdout",
                meaning: "share of each client's examples kept for its own test",
            },
            $($crate::config::Key { name: stringify!($name), meaning: $meaning },)*
        ]
    };
}
pub(crate) use keys;

/// Images or other arrays and their labels, from two IDX arrays.
pub(crate) fn labelled(
    inputs: (&str, Idx),
    labels: (&str, Idx),
    classes: Option<usize>,
) -> Result<Store, DatasetError> {
    let (file, array) = inputs;
    let rows = array.rows() as u64;
    let shape = match array.shape[1..] {
        [] => {
            return Err(malformed(
                file,
                "byte 3",
                "1 dimension",
                "2 to 4: examples, then the shape of one",
                "give the file of the inputs",
            ));
        }
        [features] => vec![features],
        [height, width] => vec![height, width, 1],
        ref rest => rest.to_vec(),
    };
    let channels = if shape.len() == 3 { shape[2] } else { 1 };
    let (data, zero, largest) = array.into_bytes(file)?;
    let label_rows = labels.1.rows() as u64;
    if rows != label_rows {
        return Err(DatasetError::CountMismatch {
            noun: "examples",
            first: file.to_owned(),
            first_count: rows,
            second: labels.0.to_owned(),
            second_count: label_rows,
        });
    }
    if data.is_empty() {
        return Err(DatasetError::Empty {
            what: file.to_owned(),
            noun: "examples",
            remedy: "give a file with at least one",
        });
    }
    let (label_file, labels) = (labels.0, labels.1.into_labels(labels.0)?);
    let largest_label = labels.iter().copied().max().unwrap_or(0);
    let classes = classes.unwrap_or(largest_label as usize + 1);
    if classes > MOST_CLASSES {
        return Err(DatasetError::TooLarge {
            what: label_file.to_owned(),
            noun: "classes",
            found: classes as u64,
            limit: MOST_CLASSES as u64,
            remedy: "number the classes from 0 without gaps",
        });
    }
    if largest_label as usize >= classes {
        return Err(malformed(
            label_file,
            "labels",
            format!("label {largest_label}"),
            format!("labels below {classes}"),
            "check that the labels belong to these data",
        ));
    }
    Store::new(
        file,
        InputSpec::Real(shape),
        TargetSpec::Class { classes },
        Inputs::Bytes(ByteRows {
            data,
            channels,
            zero,
            largest,
        }),
        Targets::classes(labels, classes),
    )
}

/// The most classes of labels that are numbers: a wild label must not size a model.
pub(crate) const MOST_CLASSES: usize = 1 << 20;

/// Reads and verifies one IDX file of the catalogue.
pub(crate) fn catalogued(
    entry: &Entry,
    root: &DataRoot,
    name: &'static str,
) -> Result<Idx, DatasetError> {
    Idx::parse(name, &entry.read(root, name)?)
}

/// Applies `normalise` to both stores; tables cannot be centred.
pub(crate) fn normalise(
    config: &DatasetConfig,
    train: &mut Store,
    test: Option<&mut Store>,
) -> Result<(), DatasetError> {
    let normalise = config.normalise.unwrap_or_default();
    if normalise == Normalise::Centred && !train.is_bytes() {
        return Err(DatasetError::BadValue {
            key: "normalise",
            value: "`centred`".to_owned(),
            expected: "it is for images; give `standard` or `raw`".to_owned(),
        });
    }
    train.normalise(normalise, test);
    Ok(())
}

/// Names from a list.
pub(crate) fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The distinct values of `owners`, ascending, and the place of each row's among them.
pub(crate) fn rank(owners: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut distinct = owners.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let ranks = (owners.iter())
        .map(|owner| {
            distinct
                .binary_search(owner)
                .map_or(u32::MAX, |place| place as u32)
        })
        .collect();
    (distinct, ranks)
}

#[cfg(test)]
mod tests;
