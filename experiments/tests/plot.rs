//! Figures that are asked for, through the program: by tables, by options, again, and in vain.

use std::path::Path;
use std::process::{Command, Output, Stdio};

const EXPERIMENT: &str = r#"
name = "small"
rounds = 4

[dataset]
name = "digits"
partition = { kind = "iid", clients = 10 }

[model]
kind = "logreg"

[local]
epochs = 1
batch = 20
learning_rate = 0.1

[selection]
cohort = 5

[[variant]]
name = "slow"
local.learning_rate = 0.01

[[variant]]
name = "fast"

[[plot]]
kind = "curves"
y = "loss"
width = "column"

[[plot]]
kind = "dots"
name = "final"

[[plot]]
kind = "curves"
x = "time"
"#;

fn fledgling(folder: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fledgling"))
        .current_dir(folder)
        .args(words.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fails(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[test]
fn tables_choose_what_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("small.toml"), EXPERIMENT).unwrap();
    let run = fledgling(at, "run small.toml --out one");
    assert!(run.status.success());
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    let why = "plot `curves` is left out: no run has a value for `time`; it takes runs on devices (`fleet.devices`)";
    assert!(told.contains(why), "{told}");
    let plots = at.join("one/plots");
    let files = [
        "curves.png",
        "curves.svg",
        "final.png",
        "final.svg",
        "plots.toml",
    ];
    assert_eq!(names(&plots), files);

    // The tables are kept with the plots, so the same are drawn again, to the bit.
    let before = std::fs::read(plots.join("curves.png")).unwrap();
    std::fs::remove_file(plots.join("curves.png")).unwrap();
    stdout(&fledgling(at, "plot one"));
    assert_eq!(std::fs::read(plots.join("curves.png")).unwrap(), before);
    assert_eq!(names(&plots), files);

    // They decide no result: another file, the same results.
    let plain = EXPERIMENT.split("[[plot]]").next().unwrap();
    std::fs::write(at.join("plain.toml"), plain).unwrap();
    stdout(&fledgling(at, "run plain.toml --out two"));
    for file in ["manifest.toml", "evaluation.parquet"] {
        let read = |folder: &str| std::fs::read(at.join(folder).join(file)).unwrap();
        assert_eq!(read("one"), read("two"), "{file}");
    }
    let standard = names(&at.join("two/plots"));
    assert!(
        standard.contains(&"accuracy.svg".to_owned()),
        "{standard:?}"
    );

    // Two seeds in one figure, by options, beside what is there.
    stdout(&fledgling(
        at,
        "run plain.toml --set seed=2 --no-plots --out three",
    ));
    stdout(&fledgling(
        at,
        "plot two three --kind curves --band range --out mine",
    ));
    let told = stdout(&fledgling(
        at,
        "plot two three --kind heat-map --x local.learning_rate --y local.batch --value loss --name grid --out mine --json",
    ));
    let line: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(line["plots"][0], "mine/grid.svg");
    assert_eq!(
        names(&at.join("mine")),
        [
            "curves.png",
            "curves.svg",
            "grid.png",
            "grid.svg",
            "plots.toml"
        ]
    );
    let svg = std::fs::read_to_string(at.join("mine/curves.svg")).unwrap();
    assert!(svg.contains("mean and range over 2 seeds"));

    // The tables of another file.
    stdout(&fledgling(
        at,
        "plot two three --from small.toml --out from",
    ));
    assert!(names(&at.join("from")).contains(&"final.svg".to_owned()));
}

#[test]
fn what_is_asked_for_in_vain_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let plain = EXPERIMENT.split("[[plot]]").next().unwrap();
    std::fs::write(at.join("plain.toml"), plain).unwrap();
    stdout(&fledgling(at, "run plain.toml --no-plots --out one"));
    for (words, expected) in [
        (
            "plot one --kind curve",
            "--kind \"curve\": `plot.kind`: \"curve\" is not known; did you mean `curves`?",
        ),
        (
            "plot one --kind points --x local.learning_rats",
            "figure `points`: no run has the key `local.learning_rats`; did you mean `local.learning_rate`?",
        ),
        (
            "plot one --kind fairness --smoothing 3",
            "--smoothing 3: `plot.smoothing`: kind = \"fairness\" takes no `smoothing` (found 3); remove it (it takes group)",
        ),
        (
            "plot one --kind dots --y joules",
            "figure `dots`: no run has a value for `joules`; it takes runs on devices (`fleet.devices`)",
        ),
        (
            "plot one --from plain.toml",
            "plain.toml has no [[plot]] tables; add some, or describe a figure with --kind",
        ),
        (
            "run plain.toml --set plot.kind=curves",
            "figures cannot be set",
        ),
    ] {
        let told = fails(&fledgling(at, words));
        assert!(told.contains(expected), "{words}: {told}");
    }
    assert!(!at.join("plots").exists());
}
