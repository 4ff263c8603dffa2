//! Bad input, as a table: what is wrong, and the exact message that says so.
//!
//! Each case changes one place of a valid experiment and runs `fledgling check` on it. The expected
//! lines are everything that is reported, each with file, line, column, key, what was found, and
//! what to do. Exit code 2: the fault is in the experiment; 1: it is in the data's files.

mod dataset;
mod files;
mod local;
mod model;
mod plot;
mod privacy;
mod pruning;
mod round;
mod secagg;
mod text;
mod with_data;

use std::process::Command;

/// A valid experiment; its lines are counted in the expected messages.
const VALID: &str = r#"name = "x"
seed = 1
rounds = 10

[dataset]
name = "digits"
partition = { kind = "dirichlet", alpha = 0.3, clients = 20 }

[model]
kind = "logreg"

[local]
epochs = 1
batch = 10
learning_rate = 0.1

[strategy]
kind = "fedprox"
mu = 0.1

[selection]
cohort = 10
"#;

struct Case {
    /// What is wrong.
    what: &'static str,
    /// This part of the valid experiment ...
    from: &'static str,
    /// ... is replaced by this.
    to: &'static str,
    /// Files beside the experiment; `data` is the data folder.
    files: &'static [(&'static str, &'static [u8])],
    /// The exit code.
    code: i32,
    /// The first line of every fault that is reported.
    messages: &'static [&'static str],
}

/// A fault of the experiment, whatever the data.
const fn fault(
    what: &'static str,
    from: &'static str,
    to: &'static str,
    messages: &'static [&'static str],
) -> Case {
    Case {
        what,
        from,
        to,
        files: &[],
        code: 2,
        messages,
    }
}

fn check(experiment: &str, files: &[(&str, &[u8])]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        let parent = path.parent().expect("a file in a folder");
        std::fs::create_dir_all(parent).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }
    std::fs::write(folder.path().join("bad.toml"), experiment).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_fledgling"))
        .current_dir(folder.path())
        .env("FLEDGLING_DATA_DIR", "data")
        .args(["check", "bad.toml"])
        .output()
        .expect("the program starts");
    (
        output.status.code(),
        String::from_utf8(output.stderr).expect("messages in UTF-8"),
    )
}

fn run(cases: &[Case]) {
    for case in cases {
        assert!(VALID.contains(case.from), "{}: {}", case.what, case.from);
        let (code, told) = check(&VALID.replacen(case.from, case.to, 1), case.files);
        let messages: Vec<&str> = told
            .strip_prefix("error: ")
            .unwrap_or(&told)
            .lines()
            .filter(|line| line.starts_with("bad.toml:"))
            .collect();
        assert_eq!(messages, case.messages, "{}: {told}", case.what);
        assert_eq!(code, Some(case.code), "{}", case.what);
    }
}

#[test]
fn the_experiment_without_a_fault_is_valid() {
    let (code, told) = check(VALID, &[]);
    assert_eq!((code, told.as_str()), (Some(0), ""));
}

#[test]
fn faults_of_the_text() {
    run(text::CASES);
}

#[test]
fn faults_of_the_dataset() {
    run(dataset::CASES);
}

#[test]
fn faults_of_the_model() {
    run(model::CASES);
}

#[test]
fn faults_of_local_training() {
    run(local::CASES);
}

#[test]
fn faults_of_the_round() {
    run(round::CASES);
}

#[test]
fn faults_of_privacy() {
    run(privacy::CASES);
}

#[test]
fn faults_of_secure_aggregation() {
    run(secagg::CASES);
}

#[test]
fn faults_of_pruning() {
    run(pruning::CASES);
}

#[test]
fn faults_of_plot() {
    run(plot::CASES);
}

#[test]
fn faults_that_show_with_the_data() {
    run(with_data::CASES);
}

#[test]
#[cfg(target_os = "linux")] // The messages hold what the system says.
fn faults_of_the_files() {
    run(files::CASES);
}

#[test]
fn the_place_is_shown() {
    let broken = VALID
        .replacen("learning_rate = 0.1", "learning_rate = \"fast\"", 1)
        .replacen("seed", "sead", 1);
    let (code, told) = check(&broken, &[]);
    assert_eq!(code, Some(2));
    assert_eq!(
        told,
        r#"error: bad.toml:2:1: `sead`: unknown key; did you mean `seed`?
   |
 2 | sead = 1
   | ^^^^

bad.toml:15:17: `local.learning_rate`: found the string "fast", expected a number
    |
 15 | learning_rate = "fast"
    |                 ^^^^^^

2 faults
"#
    );
}
