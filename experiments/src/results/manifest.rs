//! `manifest.toml`: what was run and what came out, with the checksum of every result file; and
//! `host.toml`: where and how fast.
//!
//! The manifest is a function of the experiment alone. Everything that may differ between two
//! runs of one experiment (threads, kernel, times, the command) is in `host.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::atomic::{self, Staged};
use super::error::ResultsError;

/// The manifest's file name.
pub(crate) const MANIFEST: &str = "manifest.toml";
/// The file name of the facts about the host.
pub(crate) const HOST: &str = "host.toml";
/// The program and its version.
pub(crate) const PROGRAM: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
/// The format of both files; raised when an older program could no longer read them.
pub(crate) const FORMAT: u64 = 1;
/// Begins the last line of both files.
const CHECKSUM: &str = "# sha256 of all lines above: ";

/// Size and checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// What is known of the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetFacts {
    /// The data set's name.
    pub name: String,
    /// Clients of the population.
    pub clients: u64,
    /// Number of classes, for classification.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub classes: Option<u64>,
    /// SHA-256 of data and partition, hexadecimal.
    pub digest: String,
}

/// How far a variant came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// To its end: the last round, or the accuracy at which it was to stop.
    Finished,
    /// Interrupted; `--resume` goes on.
    Stopped,
}

/// One variant of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantManifest {
    /// Unique within the experiment; also the folder of its model.
    pub name: String,
    /// How far it came.
    pub status: Status,
    /// Rounds recorded.
    pub rounds_done: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Number of parameters of the model.
    pub parameters: u64,
    /// [`fl_core::Parameters::digest`] of the final model, hexadecimal; when finished.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model_digest: Option<String>,
    /// The data.
    pub dataset: DatasetFacts,
    /// SHA-256 of the teacher, hexadecimal; where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub teacher: Option<String>,
    /// Everything that decides the result, with all defaults written out.
    pub config: toml::Table,
}

/// What was run and what came out. A function of the experiment alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of the file.
    pub format: u64,
    /// The experiment.
    pub name: String,
    /// The program and its version.
    pub program: String,
    /// Size and checksum of every result file but `timing.parquet` and the plots.
    pub files: BTreeMap<String, FileDigest>,
    /// The variants that were run, in the experiment's order.
    #[serde(rename = "variant")]
    pub variants: Vec<VariantManifest>,
}

/// Where and how a run was made. Nothing in it decides a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    /// The command that wrote the results last.
    pub command: Vec<String>,
    /// The program and its version.
    #[serde(default)]
    pub program: String,
    /// SHA-256 of the lock file that the program was built with, hexadecimal: the versions of all
    /// packages. Empty where it was built without one.
    #[serde(default)]
    pub packages: String,
    /// The compiler that built it.
    #[serde(default)]
    pub compiler: String,
    /// Threads that it trained on.
    pub threads: u64,
    /// The kernel of the edge runtime: `avx512`, `avx2`, `neon` or `portable`.
    pub kernel: String,
    /// Operating system and processor family, as Rust names them.
    pub platform: String,
    /// Largest resident memory of the process in MB (10^6 bytes), where the system tells.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak_rss_mb: Option<u64>,
}

impl HostFacts {
    /// Those of this process, which trains on `threads` threads.
    #[must_use]
    pub fn here(threads: usize) -> Self {
        let lock = include_bytes!(concat!(env!("OUT_DIR"), "/Cargo.lock"));
        Self {
            command: std::env::args_os()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            program: PROGRAM.to_owned(),
            packages: match lock.is_empty() {
                true => String::new(),
                false => atomic::hex(&Sha256::digest(lock)),
            },
            compiler: env!("FLEDGLING_COMPILER").to_owned(),
            threads: threads as u64,
            kernel: fl_edge::kernel::name().to_owned(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            peak_rss_mb: None,
        }
    }
}

/// `host.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub(crate) format: u64,
    pub(crate) host: HostFacts,
    /// `timing.parquet`.
    pub(crate) files: BTreeMap<String, FileDigest>,
}

/// Writes a TOML file with its checksum in the last line, beside its place.
pub(crate) fn stage<T: Serialize>(path: &Path, value: &T) -> Result<Staged, ResultsError> {
    let mut text = toml::to_string(value).map_err(|error| ResultsError::Encode {
        path: path.to_owned(),
        what: "the manifest",
        why: error.to_string(),
    })?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let sum = atomic::hex(&Sha256::digest(text.as_bytes()));
    text.push_str(CHECKSUM);
    text.push_str(&sum);
    text.push('\n');
    atomic::stage(path, |writer| writer.write_all(text.as_bytes()))
}

/// Reads what [`stage`] wrote; `None` where there is no file.
///
/// # Errors
/// [`ResultsError::Read`], [`ResultsError::Damaged`] or [`ResultsError::Format`].
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ResultsError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(ResultsError::damaged(path, "it is not UTF-8 text"));
        }
        Err(error) => return Err(ResultsError::read(path, error)),
    };
    parse(path, &text).map(Some)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ResultsError> {
    let damaged = |what: String| ResultsError::damaged(path, what);
    let (body, sum) = text
        .rsplit_once(CHECKSUM)
        .ok_or_else(|| damaged("its last line, the checksum, is missing".to_owned()))?;
    if sum.strip_suffix('\n') != Some(atomic::hex(&Sha256::digest(body.as_bytes())).as_str()) {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    let table: toml::Table = toml::from_str(body).map_err(|error| damaged(error.to_string()))?;
    match table.get("format").and_then(toml::Value::as_integer) {
        Some(format) if format == FORMAT.cast_signed() => {}
        format => {
            return Err(ResultsError::Format {
                path: path.to_owned(),
                found: format.unwrap_or_default().cast_unsigned(),
                expected: FORMAT,
            });
        }
    }
    T::deserialize(table).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Manifest {
        let config: toml::Table = toml::from_str(
            "name = \"x\"\nseed = 1\n[dataset]\nname = \"digits\"\npartition = { kind = \"iid\" }\n",
        )
        .unwrap();
        Manifest {
            format: FORMAT,
            name: "x".to_owned(),
            program: "fledgling 0.1.0".to_owned(),
            files: [(
                "rounds.parquet".to_owned(),
                FileDigest {
                    bytes: 3,
                    sha256: "ab".to_owned(),
                },
            )]
            .into(),
            variants: vec![VariantManifest {
                name: "fedavg".to_owned(),
                status: Status::Stopped,
                rounds_done: 3,
                seed: 1,
                parameters: 650,
                model_digest: None,
                dataset: DatasetFacts {
                    name: "digits".to_owned(),
                    clients: 10,
                    classes: Some(10),
                    digest: "cd".to_owned(),
                },
                teacher: None,
                config,
            }],
        }
    }

    #[test]
    fn a_manifest_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MANIFEST);
        assert_eq!(read::<Manifest>(&path).unwrap(), None);
        stage(&path, &sample()).unwrap().publish().unwrap();
        assert_eq!(read(&path).unwrap(), Some(sample()));
    }

    #[test]
    fn no_flipped_bit_of_a_manifest_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MANIFEST);
        stage(&path, &sample()).unwrap().publish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // What is no longer text is refused before parsing.
            if let Ok(text) = core::str::from_utf8(&damaged) {
                assert!(
                    matches!(
                        parse::<Manifest>(&path, text),
                        Err(ResultsError::Damaged { .. })
                    ),
                    "bit {bit}"
                );
            }
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MANIFEST);
        let newer = Manifest {
            format: 2,
            ..sample()
        };
        stage(&path, &newer).unwrap().publish().unwrap();
        let error = read::<Manifest>(&path).unwrap_err().to_string();
        assert!(error.contains("has format 2, and this program reads format 1"));
    }
}
