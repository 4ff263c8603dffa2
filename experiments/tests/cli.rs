//! The program as a person uses it: exit codes, files, interruption.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn fledgling(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().expect("the program starts")
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fledgling"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

fn digests(output: &Output) -> Vec<String> {
    lines(output)
        .iter()
        .map(|line| line["model_digest"].as_str().unwrap_or("none").to_owned())
        .collect()
}

#[test]
fn from_new_to_results() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let made = fledgling(at, &["new", "mine"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(
        text(&made.stdout),
        "wrote ./mine.toml; run it with: fledgling run ./mine.toml\n"
    );

    let again = fledgling(at, &["new", "mine"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        text(&again.stderr),
        "error: ./mine.toml: File exists (os error 17); choose another name, or move the file away\n"
    );

    let check = fledgling(at, &["check", "mine.toml", "--json"]);
    assert!(check.status.success(), "{}", text(&check.stderr));
    let explained = lines(&check);
    assert_eq!(explained.len(), 2);
    assert_eq!(explained[0]["clients"], 100);
    assert_eq!(explained[0]["parameters"], 650);
    assert_eq!(explained[0]["cohort"], 10);

    let run = fledgling(
        at,
        &[
            "run",
            "mine.toml",
            "--json",
            "--set",
            "rounds=4",
            "--threads",
            "2",
        ],
    );
    assert!(run.status.success(), "{}", text(&run.stderr));
    let done = lines(&run);
    assert_eq!(done.len(), 2);
    for (line, name) in done.iter().zip(["fedavg", "fedprox"]) {
        assert_eq!(line["name"], name);
        assert_eq!(line["experiment"], "mine");
        assert_eq!(line["rounds"], 4);
        assert_eq!(line["model_digest"].as_str().unwrap().len(), 64);
        for key in [
            "seconds_per_round",
            "examples_per_second",
            "final_loss",
            "final_accuracy",
        ] {
            assert!(line[key].is_number(), "{key}: {line}");
        }
        if cfg!(target_os = "linux") {
            assert!(line["peak_rss_mb"].as_u64().unwrap() > 0);
        }
    }
    assert!(at.join("results/mine/manifest.toml").is_file());
    assert!(at.join("results/mine/rounds.parquet").is_file());
    assert!(at.join("results/mine/fedprox/model.safetensors").is_file());

    // A person sees a table and where the plots are.
    let seen = fledgling(
        at,
        &[
            "run",
            "mine.toml",
            "--set",
            "rounds=4",
            "--variant",
            "fedavg",
        ],
    );
    assert!(seen.status.success(), "{}", text(&seen.stderr));
    let page = text(&seen.stdout);
    assert!(
        page.contains("accuracy") && page.contains("fedavg"),
        "{page}"
    );
    assert!(page.contains("results  results/mine"), "{page}");
    assert!(page.contains(".svg"), "{page}");
}

#[test]
fn a_run_that_was_interrupted_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(fledgling(at, &["new", "mine"]).status.success());
    let common = [
        "run",
        "mine.toml",
        "--json",
        "--set",
        "rounds=400",
        "--no-plots",
    ];
    let with = |more: &[&'static str]| [&common[..], more].concat();
    let whole = fledgling(at, &with(&["--out", "whole"]));
    assert!(whole.status.success(), "{}", text(&whole.stderr));

    let mut child = command(at, &with(&["--out", "cut"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = at.join("cut/checkpoint/fedavg/journal");
    while !started.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let cut = child.wait_with_output().unwrap();
    assert_eq!(cut.status.code(), Some(130), "{}", text(&cut.stderr));
    let told = text(&cut.stderr);
    assert!(
        told.contains(
            "stopped; to go on: fledgling run mine.toml --set rounds=400 --out cut --resume"
        ),
        "{told}"
    );

    let resumed = fledgling(at, &with(&["--out", "cut", "--resume"]));
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    assert_eq!(digests(&resumed), digests(&whole));

    // Nothing is left to do the second time, and the answer is the same.
    let again = fledgling(at, &with(&["--out", "cut", "--resume"]));
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(digests(&again), digests(&whole));
}

#[test]
fn exit_codes_and_messages() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(fledgling(at, &["new", "mine"]).status.success());
    std::fs::write(at.join("latin.toml"), b"name = \"caf\xe9\"").unwrap();
    std::fs::write(at.join("file"), b"").unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--version"], 0, ""),
        (&["run", "--help"], 0, ""),
        (&["rum"], 2, "error: unrecognized subcommand 'rum'"),
        (
            &["run", "mine.toml", "--threads", "0"],
            2,
            "error: invalid value '0' for '--threads <N>': 0 is not in 1..=4096",
        ),
        (
            &["run", "none.toml"],
            2,
            "error: none.toml: No such file or directory (os error 2); give the path of an experiment, for example experiments/quickstart.toml",
        ),
        (
            &["run", "latin.toml"],
            2,
            "error: latin.toml: byte 11 is not UTF-8; save the file as UTF-8 text",
        ),
        (
            &["run", "mine.toml", "--variant", "fedpro"],
            2,
            "error: the experiment has no variant `fedpro`; did you mean `fedprox`?",
        ),
        (
            &["check", "mine.toml", "--set", "local.batch"],
            2,
            "error: --set local.batch: there is no `=`; write --set KEY.PATH=VALUE, for example --set local.batch=20",
        ),
        (
            &["check", "mine.toml", "--set", "local.batches=3"],
            2,
            "error: --set local.batches=3: `local.batches`: unknown key; did you mean `batch`?",
        ),
        (
            &["check", "mine.toml", "--set", "variant.name=x"],
            2,
            "error: --set variant.name=x: `variant`: variants cannot be set one by one; use --variant NAME to run one of them, and --set with the key itself",
        ),
        (
            &["run", "mine.toml", "--out", "file/results"],
            1,
            "error: file/results/checkpoint could not be written: Not a directory (os error 20); a file stands where a folder is needed; move it away or choose another folder with --out",
        ),
        (
            &["new", "two words"],
            2,
            "error: \"two words\" cannot name an experiment; use 1 to 100 letters, digits, `-`, `_` or `.` and begin with a letter or digit",
        ),
        (
            &["new", "other", "--dir", "nowhere"],
            1,
            "error: nowhere/other.toml: No such file or directory (os error 2); create the folder first",
        ),
    ];
    for (args, code, message) in cases {
        let output = fledgling(at, args);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {told}");
        assert_eq!(told.lines().next().unwrap_or(""), *message, "{args:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(fledgling(at, &["new", "mine"]).status.success());
    let program = env!("CARGO_BIN_EXE_fledgling");

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    if let Ok(full) = full {
        let output = command(at, &["check", "mine.toml"])
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            text(&output.stderr),
            "error: standard output: No space left on device (os error 28); check where it goes\n"
        );
    }

    // A limit on the size of files stands for a disk that fills up in the middle of a run.
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec {program} run mine.toml --out small --set rounds=200 --json"
    );
    let output = Command::new("sh")
        .current_dir(at)
        .args(["-c", &script])
        .output()
        .unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("File too large"), "{told}");
    assert!(told.contains("small/checkpoint/fedavg"), "{told}");
}

#[test]
fn the_schema_and_the_reference_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let schema = fledgling(folder.path(), &["schema"]);
    assert!(schema.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema["title"], "Fledgling experiment");
    for (option, begins, file) in [
        (
            "--markdown",
            "# The keys of an experiment\n",
            "reference.md",
        ),
        ("--commands", "# The commands\n", "commands.md"),
    ] {
        let page = text(&fledgling(folder.path(), &["schema", option]).stdout);
        assert!(page.starts_with(begins));
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        assert!(
            page == std::fs::read_to_string(docs.join(file)).unwrap(),
            "docs/{file} is out of date; write it again with \
             `cargo run --release -- schema {option} > docs/{file}`"
        );
    }
}
