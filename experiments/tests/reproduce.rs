//! `verify` and `lock` as a reviewer uses them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

const EXPERIMENT: &str = r#"
name = "readings"
rounds = 4
[dataset]
name = "csv"
path = "readings.csv"
client_column = "device"
label_column = "state"
[model]
kind = "logreg"
[local]
epochs = 2
batch = 5
learning_rate = 0.1
[selection]
cohort = 3
[[variant]]
name = "fedavg"
[[variant]]
name = "fedprox"
strategy = { kind = "fedprox", mu = 0.1 }
"#;

fn fledgling(folder: &Path, words: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fledgling"));
    command.current_dir(folder).args(words.split_whitespace());
    let output: Output = command.stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap_or(-1), told)
}

/// Data of five devices, the experiment, and its results in `out`.
fn study() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let mut table = "device,x,y,state\n".to_owned();
    for row in 0..100_u32 {
        let (x, y) = (row * 37 % 101, row * 53 % 89);
        let state = ["low", "high"][usize::from(x > y)];
        table.push_str(&format!("d{},0.{x},0.{y},{state}\n", row % 5));
    }
    std::fs::write(at.join("readings.csv"), table).expect("a file is written");
    std::fs::write(at.join("readings.toml"), EXPERIMENT).expect("a file is written");
    let (code, told) = fledgling(at, "run readings.toml --out out");
    assert_eq!(code, 0, "{told}");
    folder
}

#[test]
fn a_label_that_was_changed_is_found() {
    let study = study();
    let at = study.path();
    let (code, told) = fledgling(at, "verify out");
    assert_eq!((code, told.lines().last()), (0, Some("identical")));
    let data = at.join("readings.csv");
    let text = std::fs::read_to_string(&data).unwrap();
    std::fs::write(&data, text.replacen("high", "low", 1)).unwrap();
    let (code, told) = fledgling(at, "verify out");
    assert_eq!(code, 1);
    assert!(told.contains("fedavg: data, digest: recorded "), "{told}");
}

#[test]
fn many_results_are_verified_at_once() {
    let study = study();
    let at = study.path();
    std::fs::create_dir_all(at.join("results/sweep/cells")).unwrap();
    std::fs::rename(at.join("out"), at.join("results/sweep/cells/one")).unwrap();
    let (code, told) = fledgling(
        at,
        "run readings.toml --set seed=2 --no-plots --out results/two",
    );
    assert_eq!(code, 0, "{told}");
    let (code, told) = fledgling(at, "verify results --rounds 1");
    assert_eq!(code, 0, "{told}");
    let verdicts = [
        "results/sweep/cells/one: identical",
        "results/two: identical",
    ];
    let found: Vec<&str> = told
        .lines()
        .filter(|line| line.ends_with(" identical"))
        .collect();
    assert_eq!(found, verdicts);
    let (code, told) = fledgling(at, "verify results --rounds 1 --json");
    assert_eq!((code, told.lines().count()), (0, 2), "{told}");
    std::fs::remove_file(at.join("results/two/fedavg/model.safetensors")).unwrap();
    let (code, told) = fledgling(at, "verify results --rounds 0");
    assert_eq!(code, 1);
    assert!(told.contains("results/sweep/cells/one: the files are as they were written"));
    assert!(
        told.contains("results/two: results/two/fedavg/model.safetensors"),
        "{told}"
    );
    let (code, told) = fledgling(at, "verify nowhere");
    assert_eq!(code, 1);
    assert!(told.contains("nowhere holds no results"), "{told}");
}

#[test]
fn a_locked_folder_stays_as_it_is() {
    let study = study();
    let at = study.path();
    let (code, told) = fledgling(at, "lock out");
    assert_eq!(code, 0, "{told}");
    let (_, again) = fledgling(at, "lock out");
    assert_eq!(told, again);
    for words in ["run readings.toml --out out", "plot out"] {
        let (code, told) = fledgling(at, words);
        assert_eq!(code, 1);
        assert!(told.contains("out is locked: "), "{told}");
    }
    let (code, told) = fledgling(at, "verify out");
    assert_eq!(code, 0, "{told}");
    // What no manifest lists is found, too.
    std::fs::write(at.join("out/note.txt"), "x").unwrap();
    let (code, told) = fledgling(at, "verify out");
    assert_eq!(code, 1);
    assert!(told.contains("out/note.txt"), "{told}");
    assert_eq!(fledgling(at, "lock out --release").0, 0);
    let (code, told) = fledgling(at, "run readings.toml --out out --no-plots");
    assert_eq!(code, 0, "{told}");
}

/// The same model, whether its values are there to compare or its checksum alone.
#[test]
fn results_without_their_models_are_verified_all_the_same() {
    let study = study();
    let at = study.path();
    let (_, whole) = fledgling(at, "lock out");
    let (code, told) = fledgling(at, "lock out --without-models");
    assert_eq!(code, 0, "{told}");
    let digest = |told: &str| {
        told.split_once("sha256 ")
            .map(|(_, digest)| digest.to_owned())
    };
    assert_eq!(
        digest(&told),
        digest(&whole),
        "what is cited stays the same"
    );
    assert!(told.contains("left out"), "{told}");
    let model = at.join("out/fedavg/model.safetensors");
    assert!(!model.exists() && !at.join("out/checkpoint").exists());
    let (code, told) = fledgling(at, "verify out");
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("the model: every bit the same"), "{told}");
    // Any other file than the one that was left out is not it.
    std::fs::create_dir_all(model.parent().unwrap()).unwrap();
    std::fs::write(&model, "not a model").unwrap();
    let (code, told) = fledgling(at, "verify out --rounds 0");
    assert_eq!(code, 1);
    assert!(told.contains("model.safetensors"), "{told}");
    std::fs::remove_file(&model).unwrap();
    // Without the lock nothing says that it may be missing.
    assert_eq!(fledgling(at, "lock out --release").0, 0);
    let (code, told) = fledgling(at, "verify out --rounds 0");
    assert_eq!(code, 1);
    assert!(told.contains("model.safetensors"), "{told}");
}
