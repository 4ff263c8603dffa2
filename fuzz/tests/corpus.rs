//! Every kept input, and changes of it, through its target.

use std::path::{Path, PathBuf};

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
use fl_fuzz::{TARGETS, mutate, repaired};

/// Changed inputs for each target in a test; more with `FUZZ_CHANGES`.
const CHANGES: u64 = 20_000;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 2, "{target} has a corpus");
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("a file");
        assert!(bytes.len() <= 16 << 10, "{} is small", path.display());
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn kept_inputs_and_changes_of_them_do_no_harm() {
    let changes = std::env::var("FUZZ_CHANGES")
        .ok()
        .and_then(|n| n.parse().ok());
    for target in TARGETS {
        let inputs = corpus(target.name);
        for (_, bytes) in &inputs {
            (target.run)(bytes);
        }
        let mut stream = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
        // Points of a curve take their time.
        let slow = target.name.starts_with("secagg");
        let default = if slow { CHANGES / 10 } else { CHANGES };
        for number in 0..changes.unwrap_or(default) {
            let mut pick = || stream.below(inputs.len() as u64) as usize;
            let (one, other) = (&inputs[pick()], &inputs[pick()]);
            let changed = mutate(&one.1, &other.1, &mut stream);
            let kept = changed.clone();
            let done = std::panic::catch_unwind(move || (target.run)(&changed));
            if done.is_err() {
                let path =
                    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-crash", target.name));
                std::fs::write(&path, kept).unwrap();
                panic!(
                    "change {number} of {}: see {}",
                    one.0.display(),
                    path.display()
                );
            }
        }
    }
}

/// The kept messages and states of secure aggregation are those of a session that ends well, so
/// changes of them reach what lies behind headers and checksums.
#[test]
fn kept_messages_are_taken() {
    let seeds = fl_fuzz::secagg::seeds();
    assert_eq!(seeds.len(), 27);
    let mut taken = 0;
    for (target, name, bytes) in &seeds {
        let kept = corpus(target);
        let found = kept.iter().find(|(path, _)| path.ends_with(name));
        assert_eq!(
            found.map(|(_, bytes)| bytes),
            Some(bytes),
            "{target} {name}"
        );
        taken += usize::from(fl_fuzz::secagg::takes(target, bytes));
    }
    assert_eq!(taken, seeds.len());
}

/// What a repaired file says is what it said, so changes behind checksums are reached.
#[test]
fn an_intact_file_is_repaired_to_itself() {
    let mut intact = 0;
    for (path, bytes) in corpus("model-file") {
        let shared = || std::sync::Arc::new(bytes.clone());
        if let Ok(file) = fl_edge::file::ModelFile::open(shared()) {
            let again = repaired(&bytes).expect("it has a header");
            let repaired = fl_edge::file::ModelFile::open(std::sync::Arc::new(again)).unwrap();
            assert_eq!(repaired.tensors(), file.tensors(), "{}", path.display());
            intact += 1;
        }
    }
    assert!(intact >= 2);
}
