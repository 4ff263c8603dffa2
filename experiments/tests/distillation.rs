//! Distillation through the program: a teacher of an earlier variant, a teacher's file, results
//! that verify, and what is refused.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn fledgling(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fledgling"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn good(folder: &Path, args: &[&str]) -> Output {
    let output = fledgling(folder, args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    output
}

/// Name and digest of each variant.
fn lines(output: &Output) -> Vec<(String, String)> {
    let line = |line: &str| -> (String, String) {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let of = |key: &str| line[key].as_str().unwrap_or("none").to_owned();
        (of("name"), of("model_digest"))
    };
    text(&output.stdout).lines().map(line).collect()
}

const EXPERIMENT: &str = r#"name = "lesson"
rounds = 3
[dataset]
name = "digits"
partition = { kind = "iid", clients = 10 }
[local]
epochs = 2
batch = 10
learning_rate = 0.1
[selection]
cohort = 5
[evaluation]
precisions = ["f32", "int8"]
[model]
layer = [
  { kind = "flatten" },
  { kind = "dense", name = "fc", units = 12, activation = "relu" },
  { kind = "dense", name = "out" },
]
[[variant]]
name = "teacher"
model.layer = [
  { kind = "flatten" },
  { kind = "dense", name = "fc", units = 40, activation = "relu" },
  { kind = "dense", name = "out" },
]
[[variant]]
name = "response"
local.distillation = { teacher = { variant = "teacher" } }
[[variant]]
name = "everything"
strategy = { kind = "fedprox", mu = 0.1 }
[variant.local.distillation]
teacher = { variant = "teacher" }
temperature = 2.0
alpha = 0.5
features = [{ student = "fc", teacher = "fc" }]
relation = { student = "fc", teacher = "fc", distance = 1.0, angle = 2.0 }
[[variant]]
name = "integers"
local.precision = "qat-int8"
[variant.local.distillation]
teacher = { variant = "teacher" }
features = [{ student = "fc", teacher = "fc", weight = 0.5 }]
"#;

fn experiment(at: &Path) {
    std::fs::write(at.join("lesson.toml"), EXPERIMENT).expect("writes");
}

#[test]
fn a_variant_teaches_the_next_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    experiment(at);
    let check = text(&good(at, &["check", "lesson.toml"]).stdout);
    for part in [
        "teacher   variant teacher (yet to be trained): layers, 3,010 parameters",
        "temperature 2, alpha 0.5, 1 features, a relation; 520 parameters of projections",
    ] {
        assert!(check.contains(part), "{check}");
    }

    // A student alone has no teacher yet.
    let early = fledgling(at, &["run", "lesson.toml", "--variant", "response"]);
    assert_eq!(early.status.code(), Some(2));
    let said = text(&early.stderr);
    assert!(
        said.contains("`local.distillation.teacher`: variant \"teacher\" has not been run"),
        "{said}"
    );

    let one = good(
        at,
        &[
            "run",
            "lesson.toml",
            "--json",
            "--threads",
            "1",
            "--out",
            "one",
        ],
    );
    let two = good(
        at,
        &[
            "run",
            "lesson.toml",
            "--json",
            "--threads",
            "2",
            "--out",
            "two",
        ],
    );
    let (one, two) = (lines(&one), lines(&two));
    assert_eq!(one, two, "the same at any number of threads");
    assert_eq!(one.len(), 4);
    good(at, &["verify", "one"]);

    // What is exported is the student alone.
    let plain = text(
        &good(
            at,
            &["model", "inspect", "one/everything/model.safetensors"],
        )
        .stdout,
    );
    assert!(
        plain.contains("910") && !plain.contains("distill."),
        "{plain}"
    );

    // A student alone, once the teacher is there; its teacher changed, it is another run.
    let again = good(
        at,
        &[
            "run",
            "lesson.toml",
            "--json",
            "--out",
            "two",
            "--variant",
            "everything",
        ],
    );
    assert!(lines(&again).contains(&one[2]));
    let changed = ["--set", "local.learning_rate=0.05"];
    let mut args = vec![
        "run",
        "lesson.toml",
        "--out",
        "two",
        "--variant",
        "response",
    ];
    args.extend(changed);
    let stale = fledgling(at, &args);
    assert_eq!(stale.status.code(), Some(2), "{}", text(&stale.stderr));
}

const STUDENT: &str = r#"name = "student"
rounds = 3
[dataset]
name = "digits"
partition = { kind = "iid", clients = 10 }
[model]
kind = "logreg"
[local]
epochs = 1
batch = 10
learning_rate = 0.1
distillation = { teacher = "teacher.safetensors", temperature = 3.0 }
[selection]
cohort = 5
"#;

#[test]
fn a_file_teaches_and_is_part_of_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    experiment(at);
    good(
        at,
        &["run", "lesson.toml", "--variant", "teacher", "--out", "a"],
    );
    good(
        at,
        &[
            "run",
            "lesson.toml",
            "--variant",
            "teacher",
            "--out",
            "b",
            "--set",
            "seed=2",
        ],
    );
    let teacher = at.join("teacher.safetensors");
    let copy = |from: &str| {
        std::fs::copy(at.join(from).join("teacher/model.safetensors"), &teacher).expect("copies");
    };
    std::fs::write(at.join("student.toml"), STUDENT).expect("writes");
    copy("a");
    let check = text(&good(at, &["check", "student.toml"]).stdout);
    assert!(check.contains("teacher   teacher.safetensors ("), "{check}");
    let first = lines(&good(at, &["run", "student.toml", "--json"]));
    good(at, &["verify", "results/student"]);
    let kept = lines(&good(at, &["run", "student.toml", "--json", "--resume"]));
    assert_eq!(kept, first);

    // Another teacher under the same name: the results do not verify, and are not taken for done.
    copy("b");
    let verify = fledgling(at, &["verify", "results/student"]);
    assert_eq!(verify.status.code(), Some(1));
    assert!(
        text(&verify.stdout).contains("teacher"),
        "{}",
        text(&verify.stdout)
    );
    let other = lines(&good(at, &["run", "student.toml", "--json", "--resume"]));
    assert_ne!(other, first);

    // A teacher in integers answers, too.
    let quantize = [
        "model",
        "quantize",
        "b/teacher/model.safetensors",
        "--data",
        "digits",
        "--out",
        "int8.safetensors",
    ];
    good(at, &quantize);
    let set = "local.distillation.teacher=\"int8.safetensors\"";
    let integers = good(
        at,
        &["run", "student.toml", "--json", "--out", "c", "--set", set],
    );
    assert_ne!(lines(&integers), other);
}

#[test]
fn what_is_refused_names_file_line_and_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    experiment(at);
    good(
        at,
        &["run", "lesson.toml", "--variant", "teacher", "--out", "a"],
    );
    std::fs::copy(
        at.join("a/teacher/model.safetensors"),
        at.join("teacher.safetensors"),
    )
    .expect("copies");
    std::fs::write(at.join("student.toml"), STUDENT).expect("writes");
    std::fs::write(at.join("damaged.safetensors"), b"no model").expect("writes");
    let teacher = "student.toml:12:28: `local.distillation.teacher`: ";
    let cases: [(&str, String); 9] = [
        ("", String::new()),
        ("local.distillation.teacher=\"none.safetensors\"", "`local.distillation.teacher`: none.safetensors: No such file or directory".to_owned()),
        ("local.distillation.teacher=\"damaged.safetensors\"", "`local.distillation.teacher`: damaged.safetensors: ".to_owned()),
        (
            "dataset={name=\"fashion-mini\", partition={kind=\"iid\", clients=10}}",
            format!("{teacher}the teacher takes inputs Real([8, 8, 1]) and the student Real([28, 28, 1])"),
        ),
        (
            "local.distillation.features=[{student=\"flat\", teacher=\"fc\"}]",
            "`local.distillation.features.0.student`: `features.0.student` names `flat`, and the student has no such layer".to_owned(),
        ),
        (
            "local.distillation.features=[{student=\"fc\", teacher=\"fd\"}]",
            "the teacher has no such layer".to_owned(),
        ),
        (
            "local.distillation.teacher={variant=\"big\"}",
            "`local.distillation.teacher.variant`: \"big\" is no earlier variant, and there is none before this one".to_owned(),
        ),
        (
            "local.distillation.temperature=0",
            "`local.distillation.temperature`: `temperature` is 0; it must be above 0 and at most 1000".to_owned(),
        ),
        (
            "local.distillation.alpha=1",
            "`local.distillation.alpha`: alpha = 1 leaves the teacher's response out".to_owned(),
        ),
    ];
    for (set, message) in cases {
        let mut args = vec!["check", "student.toml"];
        if !set.is_empty() {
            args.extend(["--set", set]);
        }
        let output = fledgling(at, &args);
        let said = text(&output.stderr);
        let code = if set.is_empty() { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{set}: {said}");
        assert!(said.contains(&message), "{set}: {said}");
    }
    // Single examples have no gradient of a relation.
    let private = "privacy={kind=\"example\", noise_multiplier=1.0, max_norm=1.0, delta=1e-6}";
    let relation = "local.distillation.relation={distance=1.0}";
    let refused = fledgling(
        at,
        &["check", "student.toml", "--set", private, "--set", relation],
    );
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("`local.distillation.relation`: privacy.kind = \"example\" learns"),
        "{said}"
    );
}
