//! Checkpoints: a run after a whole number of rounds, on disk.
//!
//! A checkpoint is written beside its final name, synced, renamed and the directory synced; the
//! last two are kept. So whenever the process or the machine dies, the newest file that passes
//! its checksum is a whole round's state, and if the newest was damaged since, the one before it
//! serves. Everything that a run needs besides its configuration is in the file: random streams
//! are addressed by seed, round and client and have no state to save.

mod format;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fl_core::RoundId;
use fl_privacy::PrivacyError;

pub use fl_versions::{Disk, DiskFile, LocalDisk};
pub use format::{Checkpoint, CheckpointFault, Identity, ServedFile};

const PREFIX: &str = "round-";
const SUFFIX: &str = ".checkpoint";
const TEMPORARY: &str = "writing.tmp";

/// A checkpoint file that was passed over, and why.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint `{}` {fault}; an older one was used", path.display())]
pub struct CheckpointWarning {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: CheckpointFault,
}

/// Why a checkpoint could not be written, or a run not be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot {action} `{}`: {source}; {advice}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// There are checkpoints, and none of them is whole.
    #[error(
        "no checkpoint in `{}` is whole: the newest, `{}`, {}; remove the folder to start afresh",
        dir.display(), newest.path.display(), newest.fault
    )]
    NoneWhole {
        /// The folder.
        dir: PathBuf,
        /// The newest file and its fault.
        newest: Box<CheckpointWarning>,
    },
    /// The checkpoint belongs to something else.
    #[error(
        "checkpoint `{}` is of another {what}; resume with the {what} that it was written with, \
         or remove the folder to start afresh", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// The checkpoint was computed with other arithmetic kernels.
    #[error(
        "checkpoint `{}` was computed with the `{found}` kernels and this process uses \
         `{expected}`; resume on a machine with `{found}`, or remove the folder to start afresh",
        path.display()
    )]
    ForeignKernel {
        /// The file.
        path: PathBuf,
        /// Kernels of the checkpoint.
        found: String,
        /// Kernels of this process.
        expected: String,
    },
    /// The run asks for fewer rounds than the checkpoint has done.
    #[error(
        "checkpoint `{}` has done {done} rounds and the run asks for {rounds}; set rounds to at \
         least {done}, or remove the folder to start afresh", path.display()
    )]
    BeyondRounds {
        /// The file.
        path: PathBuf,
        /// Rounds done.
        done: u64,
        /// Rounds asked for.
        rounds: u64,
    },
    /// The privacy plan cannot go on from the checkpoint. Without its ledger nobody knows what was
    /// spent.
    #[error(
        "the privacy ledger in checkpoint `{}` cannot be used: {source}; resume with the plan that \
         wrote it, or remove the folder to start afresh", path.display()
    )]
    Privacy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PrivacyError,
    },
    /// The state in the checkpoint is not a state of this strategy and model.
    #[error(
        "the strategy's state in checkpoint `{}` cannot be used: {reason}; it was written by \
         another version of the program; remove the folder to start afresh", path.display()
    )]
    State {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        reason: String,
    },
}

/// What [`CheckpointStore::newest`] found.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Its contents.
    pub checkpoint: Checkpoint,
    /// Newer files that were damaged.
    pub warnings: Vec<CheckpointWarning>,
}

/// The checkpoints of one run, in one folder.
pub struct CheckpointStore {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// The newest checkpoint.
    last: Option<RoundId>,
    /// The one of the round before it.
    before: Option<RoundId>,
}

impl core::fmt::Debug for CheckpointStore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CheckpointStore")
            .field("dir", &self.dir)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl CheckpointStore {
    /// The checkpoints in `dir`, which need not exist yet.
    #[must_use]
    pub fn new(dir: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self {
            dir,
            disk,
            last: None,
            before: None,
        }
    }

    /// The newest whole checkpoint; none when there are no checkpoints.
    ///
    /// # Errors
    /// [`CheckpointError::NoneWhole`] when every checkpoint is damaged,
    /// [`CheckpointError::Io`] when the folder cannot be read.
    pub fn newest(&mut self) -> Result<Option<Found>, CheckpointError> {
        let mut rounds = self.rounds()?;
        rounds.sort_unstable();
        let mut warnings = Vec::new();
        while let Some(round) = rounds.pop() {
            let path = self.path(round);
            match self.read(&path) {
                Ok(checkpoint) if checkpoint.round == round => {
                    self.last = Some(round);
                    self.before = rounds.last().copied();
                    return Ok(Some(Found {
                        path,
                        checkpoint,
                        warnings,
                    }));
                }
                Ok(_) => warnings.push(CheckpointWarning {
                    path,
                    fault: CheckpointFault::Value("the round"),
                }),
                Err(fault) => warnings.push(CheckpointWarning { path, fault }),
            }
        }
        match warnings.into_iter().next() {
            None => Ok(None),
            Some(newest) => Err(CheckpointError::NoneWhole {
                dir: self.dir.clone(),
                newest: Box::new(newest),
            }),
        }
    }

    /// Writes a checkpoint; when this returns, it is durable. It replaces one of the same round.
    /// Keeps it and the one of the round before it, and removes all others from the folder.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]; the checkpoints that were there are untouched.
    pub fn write(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        const ADVICE: &str = "free space, or choose a folder that can be written";
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| CheckpointError::Io {
                action,
                path,
                source,
                advice: ADVICE,
            }
        };
        self.create_dir()?;
        let temporary = self.dir.join(TEMPORARY);
        let target = self.path(checkpoint.round);
        let mut file = self
            .disk
            .create(&temporary)
            .map_err(io("create checkpoint file", &temporary))?;
        format::encode(checkpoint, &mut *file).map_err(io("write checkpoint file", &temporary))?;
        file.sync()
            .map_err(io("sync checkpoint file", &temporary))?;
        drop(file);
        self.disk
            .rename(&temporary, &target)
            .map_err(io("rename checkpoint file to", &target))?;
        self.disk
            .sync_dir(&self.dir)
            .map_err(io("sync checkpoint folder", &self.dir))?;
        if self.last != Some(checkpoint.round) {
            self.before = self.last.replace(checkpoint.round);
        }
        self.remove_all_but(&[self.last, self.before])
    }

    /// Creates the folder where it does not exist.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn create_dir(&self) -> Result<(), CheckpointError> {
        self.disk
            .create_dir_all(&self.dir)
            .map_err(|source| CheckpointError::Io {
                action: "create checkpoint folder",
                path: self.dir.clone(),
                source,
                advice: "choose a folder that can be written",
            })
    }

    /// Removes every checkpoint of the folder: for a run that starts afresh.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn remove_all(&mut self) -> Result<(), CheckpointError> {
        (self.last, self.before) = (None, None);
        self.remove_all_but(&[])
    }

    fn remove_all_but(&self, kept: &[Option<RoundId>]) -> Result<(), CheckpointError> {
        for round in self.rounds()? {
            if !kept.contains(&Some(round)) {
                let path = self.path(round);
                self.disk
                    .remove(&path)
                    .map_err(|source| CheckpointError::Io {
                        action: "remove old checkpoint",
                        path,
                        source,
                        advice: "choose a folder that can be written",
                    })?;
            }
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Checkpoint, CheckpointFault> {
        let (length, mut input) = self.disk.open(path)?;
        format::check(length, &mut *input)?;
        let (length, mut input) = self.disk.open(path)?;
        format::decode(length, &mut io::BufReader::new(&mut *input))
    }

    fn rounds(&self) -> Result<Vec<RoundId>, CheckpointError> {
        let names = self
            .disk
            .list(&self.dir)
            .map_err(|source| CheckpointError::Io {
                action: "list checkpoint folder",
                path: self.dir.clone(),
                source,
                advice: "choose a folder that can be read",
            })?;
        Ok(names
            .iter()
            .filter_map(|name| {
                let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
                let round = RoundId(digits.parse().ok()?);
                (file_name(round) == *name).then_some(round)
            })
            .collect())
    }

    fn path(&self, round: RoundId) -> PathBuf {
        self.dir.join(file_name(round))
    }
}

fn file_name(round: RoundId) -> String {
    format!("{PREFIX}{:012}{SUFFIX}", round.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecorderPosition;
    use std::fs;

    fn checkpoint(round: u64) -> Checkpoint {
        Checkpoint {
            identity: Identity {
                config: [1; 32],
                data: [2; 32],
                layout: [3; 32],
                kernel: "portable".to_owned(),
            },
            round: RoundId(round),
            position: RecorderPosition(round * 10),
            evaluated: false,
            accuracy: None,
            state: vec![round as u8; 100],
            privacy: String::new(),
            served: None,
        }
    }

    fn store(dir: &Path) -> CheckpointStore {
        CheckpointStore::new(dir.join("checkpoint"), Arc::new(LocalDisk))
    }

    fn files(dir: &Path) -> Vec<String> {
        let mut names = LocalDisk.list(&dir.join("checkpoint")).unwrap();
        names.sort();
        names
    }

    #[test]
    fn the_last_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = store(dir.path());
        assert!(writer.newest().unwrap().is_none());
        for round in [1, 2, 3, 10] {
            writer.write(&checkpoint(round)).unwrap();
            let found = store(dir.path()).newest().unwrap().unwrap();
            assert_eq!(found.checkpoint, checkpoint(round));
            assert!(found.warnings.is_empty());
        }
        assert_eq!(
            files(dir.path()),
            [
                "round-000000000003.checkpoint",
                "round-000000000010.checkpoint"
            ]
        );
        // The same round again, by this writer or by one that resumed, replaces no other.
        writer.write(&checkpoint(10)).unwrap();
        let mut resumed = store(dir.path());
        resumed.newest().unwrap();
        let evaluated = Checkpoint {
            evaluated: true,
            ..checkpoint(10)
        };
        resumed.write(&evaluated).unwrap();
        assert_eq!(resumed.newest().unwrap().unwrap().checkpoint, evaluated);
        assert_eq!(files(dir.path()).len(), 2);
        writer.remove_all().unwrap();
        assert!(files(dir.path()).is_empty());
    }

    #[test]
    fn a_damaged_newest_falls_back_to_the_one_before_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = store(dir.path());
        writer.write(&checkpoint(1)).unwrap();
        writer.write(&checkpoint(2)).unwrap();
        let newest = dir.path().join("checkpoint/round-000000000002.checkpoint");
        let whole = fs::read(&newest).unwrap();
        for length in [0, 1, 100, whole.len() - 1] {
            fs::write(&newest, &whole[..length]).unwrap();
            let found = store(dir.path()).newest().unwrap().unwrap();
            assert_eq!(found.checkpoint, checkpoint(1));
            assert_eq!(found.warnings.len(), 1);
            assert_eq!(found.warnings[0].path, newest);
        }
        let mut resumed = store(dir.path());
        resumed.newest().unwrap();
        resumed.write(&checkpoint(3)).unwrap();
        assert_eq!(
            files(dir.path()),
            [
                "round-000000000001.checkpoint",
                "round-000000000003.checkpoint"
            ]
        );
    }

    #[test]
    fn a_renamed_checkpoint_is_not_taken_for_another_round() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path()).write(&checkpoint(1)).unwrap();
        let at = dir.path().join("checkpoint");
        fs::rename(
            at.join("round-000000000001.checkpoint"),
            at.join("round-000000000009.checkpoint"),
        )
        .unwrap();
        fs::write(at.join("round-7.checkpoint"), b"not one of ours").unwrap();
        fs::write(at.join("notes.txt"), b"not one of ours").unwrap();
        let message = store(dir.path()).newest().unwrap_err().to_string();
        assert!(
            message.contains("is damaged: the round has an impossible value"),
            "{message}"
        );
        assert!(message.ends_with("remove the folder to start afresh"));
    }
}
