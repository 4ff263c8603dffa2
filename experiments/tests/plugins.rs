//! A program with a strategy of its own, as the tutorial makes one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

#[path = "../examples/own_strategy.rs"]
#[expect(dead_code, reason = "the example's `main` is that of a program")]
mod own_strategy;

const EXPERIMENT: &str = r#"
name = "adam"
rounds = 12
[dataset]
name = "digits"
partition = { kind = "dirichlet", alpha = 0.3, clients = 40 }
[model]
kind = "logreg"
[local]
epochs = 1
batch = 10
learning_rate = 0.05
[strategy]
kind = "fedadam"
[selection]
cohort = 10
"#;

/// The example, which `cargo test` builds beside the tests; none when only this test was built.
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn program() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a test is a file");
    let folder = test.parent()?.parent()?.join("examples");
    let path = folder.join(format!("own_strategy{}", std::env::consts::EXE_SUFFIX));
    if path.is_file() {
        return Some(path);
    }
    let message = "the example own_strategy is not built; run `cargo build --examples` with the same profile first";
    assert!(std::env::var_os("CI").is_none(), "{message}");
    eprintln!("skipped: {message}");
    None
}

fn run(program: &Path, folder: &Path, words: &str) -> Output {
    let mut command = Command::new(program);
    command.current_dir(folder).args(words.split_whitespace());
    command.stdin(Stdio::null()).output().expect("it starts")
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_strategy_from_outside_runs_and_is_verified() {
    let Some(own) = program() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let at = temporary.path();
    std::fs::write(at.join("adam.toml"), EXPERIMENT).unwrap();
    let whole = run(&own, at, "run adam.toml --no-plots --json --out whole");
    assert!(whole.status.success(), "{}", told(&whole));
    let digest = |folder: &str| {
        let text = std::fs::read_to_string(at.join(folder).join("manifest.toml")).unwrap();
        let line = text.lines().find(|line| line.starts_with("model_digest"));
        line.unwrap().to_owned()
    };
    let manifest = std::fs::read_to_string(at.join("whole/manifest.toml")).unwrap();
    assert!(manifest.contains("kind = \"fedadam\"") && manifest.contains("beta2 = 0.99"));
    let verified = run(&own, at, "verify whole");
    assert!(verified.status.success(), "{}", told(&verified));
    // With other keys it is another run.
    let other = run(
        &own,
        at,
        "run adam.toml --no-plots --out other --set strategy.beta1=0",
    );
    assert!(other.status.success(), "{}", told(&other));
    assert_ne!(digest("whole"), digest("other"));

    // What the program says of a strategy that it does not have, and of keys that are wrong.
    let plain = Path::new(env!("CARGO_BIN_EXE_fledgling"));
    let refused = run(plain, at, "verify whole");
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        told(&refused).contains("\"fedadam\" is not known"),
        "{}",
        told(&refused)
    );
    for (set, expected) in [
        (
            "strategy.beta3=0.5",
            "`strategy.beta3`: unknown key; did you mean `beta1`?",
        ),
        (
            "strategy.tau=0",
            "`strategy.tau`: found 0, expected a finite number above 0",
        ),
    ] {
        let refused = run(&own, at, &format!("check adam.toml --set {set}"));
        assert_eq!(refused.status.code(), Some(2));
        assert!(told(&refused).contains(expected), "{}", told(&refused));
    }
    let schema = run(&own, at, "schema --markdown");
    assert!(told(&schema).contains("### `fedadam`"));
}
