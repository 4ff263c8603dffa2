//! A small experiment, the program, and the files that it leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Two variants on real data; every table of the results has rows.
const EXPERIMENT: &str = r#"
name = "small"
seed = 7
rounds = ROUNDS

[dataset]
name = "digits"
partition = { kind = "dirichlet", alpha = 0.5, clients = 60 }

[model]
kind = "logreg"

[local]
epochs = 2
batch = 10
learning_rate = 0.1

[selection]
cohort = 12

[fleet]
stragglers = 0.5
dropout = 0.1

[evaluation]
every = 7
train = true
per_client = "each"

[[variant]]
name = "fedavg"

[[variant]]
name = "fedprox"
strategy = { kind = "fedprox", mu = 0.1 }
"#;

/// A temporary folder with the experiment in it.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// The experiment with so many rounds.
    pub(crate) fn new(rounds: u32) -> Self {
        let text = EXPERIMENT.replace("ROUNDS", &rounds.to_string());
        Self::with("small.toml", &text)
    }

    /// Another experiment, in `name`.
    pub(crate) fn with(name: &str, text: &str) -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(world.path(name), text).unwrap();
        world
    }

    /// A path within the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, in the folder, with the given arguments (split at spaces).
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fledgling"));
        command
            .current_dir(self.folder.path())
            .args(arguments.split_whitespace());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn output(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program, which must succeed, and returns what it printed.
    pub(crate) fn succeed(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{arguments}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program, which must end with `code`, and returns what it printed.
    pub(crate) fn end_with(&self, code: i32, arguments: &str) -> String {
        let output = self.output(arguments);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{arguments}: {text}");
        text
    }
}

/// Every file below `folder` with its content.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap();
                found.insert(name.replace('\\', "/"), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The files that are a function of the experiment alone.
pub(crate) fn deterministic(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = files(folder);
    for name in ["host.toml", "timing.parquet"] {
        assert!(found.remove(name).is_some(), "{name} is missing");
    }
    found
}

/// Fails with the name of the first file that differs.
pub(crate) fn assert_same(first: &BTreeMap<String, Vec<u8>>, second: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(first), names(second));
    for (name, bytes) in first {
        assert!(*bytes == second[name], "{name} differs");
    }
}
