//! Recordings of real devices: files that say when they could train, and how fast they were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fl_sim::fleet::trace::{Capacities, Recorded, TraceError, Traces};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;

/// A file of recordings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordingTable {
    /// Whose form the file has: "fedscale" (a pickle of plain data) or "flash" (JSON; availability
    /// alone).
    pub kind: RecordingKind,
    /// The file, relative to the experiment's.
    pub path: PathBuf,
    /// SHA-256 of the file, hexadecimal. Written out by the program; a file that has another is
    /// refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Whose form a file of recordings has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RecordingKind {
    /// FedScale's `client_behave_trace` and `client_device_capacity`.
    Fedscale,
    /// FLASH's `state_traces.json`.
    Flash,
}

/// The recordings of a variant, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recordings {
    /// When devices could train.
    pub traces: Option<Recorded<Traces>>,
    /// How fast they were.
    pub capacities: Option<Recorded<Capacities>>,
}

/// Files that were read for earlier variants, so that each is read and held once.
#[derive(Debug, Default)]
pub(super) struct Files {
    traces: BTreeMap<PathBuf, Recorded<Traces>>,
    capacities: BTreeMap<PathBuf, Recorded<Capacities>>,
}

impl RecordingTable {
    /// Checks what can be told without the file.
    pub(super) fn check(&self, key: &str, check: &Check<'_>) {
        let hexadecimal = |digest: &str| {
            digest.len() == 64
                && (digest.bytes()).all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if let Some(digest) = &self.sha256 {
            check.demand(
                &format!("{key}.sha256"),
                hexadecimal(digest),
                &format!("{digest:?}"),
                "64 digits of 0 to 9 and a to f",
            );
        }
    }

    /// Its availability.
    pub(super) fn traces(&mut self, files: &mut Files) -> Result<Recorded<Traces>, String> {
        let reader = match self.kind {
            RecordingKind::Fedscale => Traces::fedscale,
            RecordingKind::Flash => Traces::flash,
        };
        self.load(&mut files.traces, reader)
    }

    /// Its capacities.
    pub(super) fn capacities(&mut self, files: &mut Files) -> Result<Recorded<Capacities>, String> {
        self.load(&mut files.capacities, Capacities::fedscale)
    }

    /// Reads the file, or finds it among those read, and writes down which it is.
    fn load<T>(
        &mut self,
        files: &mut BTreeMap<PathBuf, Recorded<T>>,
        reader: fn(&str, &[u8]) -> Result<T, TraceError>,
    ) -> Result<Recorded<T>, String> {
        let recorded = match files.get(&self.path) {
            Some(recorded) => recorded.clone(),
            None => {
                let name = self.path.display().to_string();
                let bytes = std::fs::read(&self.path).map_err(|error| {
                    format!(
                        "{name}: {error}; give the path of the file, relative to the experiment's"
                    )
                })?;
                let recorded = Recorded::read(&name, &bytes, reader);
                let recorded = recorded.map_err(|error| error.to_string())?;
                files.insert(self.path.clone(), recorded.clone());
                recorded
            }
        };
        let digest = recorded.digest();
        match &self.sha256 {
            Some(expected) if expected != digest => Err(format!(
                "{}: its SHA-256 is {digest}, expected {expected}: it is another file than the one named; bring that one back, or remove sha256",
                self.path.display()
            )),
            _ => {
                self.sha256 = Some(digest.to_owned());
                Ok(recorded)
            }
        }
    }

    /// From a path relative to the experiment's file to one relative to the working directory.
    pub(super) fn move_path(&mut self, folder: &Path) {
        if self.path.is_relative() {
            self.path = folder.join(&self.path);
        }
    }
}
