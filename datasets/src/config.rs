//! The keys of an experiment's `[dataset]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::DatasetError;
use crate::partition::PartitionConfig;
use crate::read::folder::FolderLayout;
use crate::store::Normalise;

/// What the target of a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// One of some classes.
    #[default]
    Class,
    /// A real number.
    Real,
}

/// The `[dataset]` table. Every data set reads some of the keys ([`keys`]); a key that it does
/// not read is refused by [`load`](crate::load).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// Which data set: see [`names`](crate::sets::names).
    pub name: String,
    /// How the training examples fall apart into clients. Left out: the natural clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionConfig>,
    /// Use the first so many training examples only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How stored numbers become inputs; `unit` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalise: Option<Normalise>,
    /// Share of each client's examples kept from training, for its own test; in `[0, 1)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<f64>,
    /// Level of the Gaussian noise of the last client's features; grows linearly from client 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_noise: Option<f64>,
    /// File or folder of your own data; relative paths start at the working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// File of test data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_path: Option<PathBuf>,
    /// Column that names a row's client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_column: Option<String>,
    /// Column of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// Columns of the inputs; all others when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_columns: Option<Vec<String>>,
    /// Column of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_column: Option<String>,
    /// What the target is; `class` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetKind>,
    /// How a folder of pictures is laid out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<FolderLayout>,
    /// Files of IDX data in `path`: training inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// Training labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Owner of each training example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// Test inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_inputs: Option<String>,
    /// Test labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_labels: Option<String>,
    /// Characters in a window of text; 80 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// Text: whether every character of a window is to be predicted from those before it, windows
    /// side by side; else the character after the window, from every place on. False when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_position: Option<bool>,
    /// Synthetic: how much the clients' models differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Synthetic: how much the clients' inputs differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Synthetic: number of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// Synthetic: one model and one input distribution for all clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iid: Option<bool>,
    /// Synthetic: the same number of examples on every client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples_per_client: Option<u64>,
}

/// A key of `[dataset]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What it means for this data set.
    pub meaning: &'static str,
}

/// The keys that data set `name` reads, beside `name`.
///
/// # Errors
/// [`DatasetError::UnknownName`].
pub fn keys(name: &str) -> Result<&'static [Key], DatasetError> {
    crate::sets::get(name).map(|set| set.keys)
}

impl DatasetConfig {
    /// Data set `name` with no keys set.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// The same with a partition.
    #[must_use]
    pub fn with_partition(mut self, partition: PartitionConfig) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Names of the keys that are set, beside `name`.
    fn set_keys(&self) -> Vec<&'static str> {
        let keys: [(&'static str, bool); 25] = [
            ("partition", self.partition.is_some()),
            ("limit", self.limit.is_some()),
            ("normalise", self.normalise.is_some()),
            ("holdout", self.holdout.is_some()),
            ("feature_noise", self.feature_noise.is_some()),
            ("path", self.path.is_some()),
            ("test_path", self.test_path.is_some()),
            ("client_column", self.client_column.is_some()),
            ("label_column", self.label_column.is_some()),
            ("feature_columns", self.feature_columns.is_some()),
            ("text_column", self.text_column.is_some()),
            ("target", self.target.is_some()),
            ("layout", self.layout.is_some()),
            ("inputs", self.inputs.is_some()),
            ("labels", self.labels.is_some()),
            ("groups", self.groups.is_some()),
            ("test_inputs", self.test_inputs.is_some()),
            ("test_labels", self.test_labels.is_some()),
            ("window", self.window.is_some()),
            ("every_position", self.every_position.is_some()),
            ("alpha", self.alpha.is_some()),
            ("beta", self.beta.is_some()),
            ("clients", self.clients.is_some()),
            ("iid", self.iid.is_some()),
            ("examples_per_client", self.examples_per_client.is_some()),
        ];
        keys.into_iter()
            .filter(|(_, set)| *set)
            .map(|(key, _)| key)
            .collect()
    }

    /// Checks what can be checked without the data: the name, that every key is one that the
    /// data set reads, and ranges.
    ///
    /// # Errors
    /// [`DatasetError`] naming the key.
    pub fn check(&self) -> Result<(), DatasetError> {
        let set = crate::sets::get(&self.name)?;
        for key in self.set_keys() {
            if !set.keys.iter().any(|known| known.name == key) {
                let names: Vec<&str> = set.keys.iter().map(|key| key.name).collect();
                return Err(DatasetError::UnusedKey {
                    name: self.name.clone(),
                    key,
                    keys: names.join(", "),
                });
            }
        }
        let bad = |key: &'static str, value: String, expected: &str| DatasetError::BadValue {
            key,
            value,
            expected: expected.to_owned(),
        };
        if self.limit == Some(0) {
            return Err(bad(
                "limit",
                "0".into(),
                "give at least 1, or leave it out for all",
            ));
        }
        if let Some(share) = self.holdout
            && !(0.0..1.0).contains(&share)
        {
            return Err(bad(
                "holdout",
                share.to_string(),
                "give a share of at least 0 and below 1, e.g. 0.2",
            ));
        }
        if let Some(noise) = self.feature_noise
            && !(0.0..=1000.0).contains(&noise)
        {
            return Err(bad(
                "feature_noise",
                noise.to_string(),
                "give a level from 0 to 1000",
            ));
        }
        if let Some(window) = self.window
            && !(1..=4096).contains(&window)
        {
            return Err(bad(
                "window",
                window.to_string(),
                "give 1 to 4096 characters",
            ));
        }
        Ok(())
    }

    /// The value of `key`, which the data set needs.
    pub(crate) fn need<'a, T>(
        &self,
        value: Option<&'a T>,
        key: &'static str,
        meaning: &'static str,
    ) -> Result<&'a T, DatasetError> {
        value.ok_or_else(|| DatasetError::MissingKey {
            name: self.name.clone(),
            key,
            meaning,
        })
    }
}
