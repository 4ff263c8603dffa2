//! `fledgling report` as a person uses it.

use std::path::Path;
use std::process::{Command, Output};

fn fledgling(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fledgling"));
    let output = command.current_dir(folder).args(args).output();
    output.expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the experiment of the browser's test for three rounds, and returns what was told.
fn run(folder: &Path, out: &str, more: &[&str]) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/runs.toml");
    let args = [
        "run",
        file,
        "--set",
        "rounds=3",
        "--out",
        out,
        "--no-plots",
        "--json",
    ];
    let done = fledgling(folder, &[args.as_slice(), more].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    text(&done.stderr)
}

#[test]
fn a_report_is_one_file_that_loads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let told = run(at, "one", &[]);
    run(at, "two", &["--set", "seed=2", "--variant", "fedavg"]);
    let write = |out: &str| {
        let done = fledgling(
            at,
            &[
                "report",
                "one",
                "two",
                "one",
                "--out",
                out,
                "--title",
                "A <title>",
                "--json",
            ],
        );
        assert!(done.status.success(), "{}", text(&done.stderr));
        let line: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(line["runs"], 11);
        assert_eq!(line["stopped"], 0);
        let page = std::fs::read_to_string(at.join(out)).unwrap();
        assert_eq!(line["bytes"], page.len());
        page
    };
    let page = write("report.html");
    assert_eq!(page, write("again.html"));
    assert!(page.contains("<title>A &lt;title&gt;</title>"));
    assert!(page.contains("default-src &#x27;none&#x27;"));
    for outside in [
        "src=",
        "http-equiv=\"refresh\"",
        "@import",
        "url(http",
        "<link",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Addresses are within the page.
    for address in page.split("href=\"").skip(1) {
        assert!(
            address.starts_with('#'),
            "{}",
            &address[..40.min(address.len())]
        );
    }
    // What a private run guarantees is what `run` told.
    for told in told
        .lines()
        .filter(|line| line.contains("-differential privacy per"))
    {
        let guarantee = told.split_once(": ").unwrap().1;
        let guarantee = guarantee
            .strip_prefix("against the server: ")
            .unwrap_or(guarantee);
        let relation = guarantee.find(')').unwrap() + 1;
        let until = relation + guarantee[relation..].find(')').unwrap() + 1;
        assert!(
            page.contains(&guarantee[..until]),
            "{}",
            &guarantee[..until]
        );
    }
    let excluded = told
        .split("not covered: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    assert!(page.contains(&format!("not covered: {excluded}")));
}

#[test]
fn a_sweep_stands_for_its_cells() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for seed in ["1", "2"] {
        let out = format!("sweep/cells/c{seed}");
        let set = format!("seed={seed}");
        run(at, &out, &["--set", &set, "--variant", "fedavg"]);
    }
    std::fs::create_dir_all(at.join("sweep/cells/c3")).unwrap();
    let done = fledgling(at, &["report", "sweep"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(
        text(&done.stdout).contains("runs: 2"),
        "{}",
        text(&done.stdout)
    );
    assert!(
        text(&done.stderr)
            .contains("left out, without results yet: 1 of the cells, such as sweep/cells/c3"),
        "{}",
        text(&done.stderr)
    );
    let page = std::fs::read_to_string(at.join("report.html")).unwrap();
    assert!(page.contains(">seed 1</a>") && page.contains(">seed 2</a>"));
    // A folder stands for whatever results are below it.
    let done = fledgling(at, &["report", "."]);
    let told = text(&done.stdout);
    assert!(told.contains("runs: 2"), "{told}");
    // Without any cell there is nothing to report.
    std::fs::create_dir_all(at.join("empty/cells/c1")).unwrap();
    let done = fledgling(at, &["report", "empty"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("empty holds no results"));
}

/// Two cohorts by two seeds, of each variant.
const SWEEP: &str = r#"
name = "NAME"
seed = 1
rounds = 1

[dataset]
name = "digits"
partition = { kind = "iid", clients = 10 }

[model]
kind = "logreg"

[local]
epochs = 1
batch = 10
learning_rate = 0.1

[sweep]
seeds = 2

[sweep.grid]
selection.cohort = [2, 5]

[[variant]]
name = "fedavg"

[[variant]]
name = "fedprox"
strategy = { kind = "fedprox", mu = 0.1 }
"#;

#[test]
fn runs_of_several_sweeps_are_called_by_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for name in ["one", "two"] {
        let file = format!("{name}.toml");
        std::fs::write(at.join(&file), SWEEP.replace("NAME", name)).unwrap();
        let done = fledgling(at, &["sweep", &file, "--no-plots"]);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    run(at, "plain", &["--variant", "fedavg"]);
    let report = |folders: &[&str]| {
        let done = fledgling(at, &[&["report"], folders].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        std::fs::read_to_string(at.join("report.html")).unwrap()
    };
    let of = |name: &str| -> Vec<String> {
        let mut labels = Vec::new();
        for variant in ["fedavg", "fedprox"] {
            for cohort in [2, 5] {
                let label = format!("{name}{variant} · cohort {cohort}");
                labels.extend([1, 2].map(|seed| format!("{label} · seed {seed}")));
            }
        }
        labels
    };
    // As they stand in the table, in the order of the plan.
    let labels = |page: &str| -> Vec<String> {
        let rows = page.split("<th scope=\"row\"><a href=\"#run-").skip(1);
        let label = |row: &str| {
            let from = row.split_once("\">").unwrap().1;
            from.split_once("</a>").unwrap().0.to_owned()
        };
        rows.map(label).collect()
    };
    let (first, second) = (of("one · "), of("two · "));
    assert_eq!(labels(&report(&["results/one"])), of(""));
    let both = [first.clone(), second.clone()].concat();
    let page = report(&["results/one", "results/two"]);
    assert_eq!(labels(&page), both);
    assert!(page.contains("<title>one, two</title>"));
    assert!(page.contains("16 runs from 2 folders"));
    // A folder that holds both, and a single cell.
    assert_eq!(labels(&report(&["results"])), both);
    let plan = std::fs::read_to_string(at.join("results/one/sweep.toml")).unwrap();
    let id = plan
        .split("id = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let cell = format!("results/one/cells/{id}");
    assert_eq!(labels(&report(&[&cell])), ["fedavg"]);
    // Beside a plain run.
    let beside = labels(&report(&["results/two", "plain"]));
    assert_eq!(beside[..8], second);
    assert!(beside[8].ends_with(" · fedavg"), "{}", beside[8]);
}

#[test]
fn damaged_results_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    run(at, "good", &["--variant", "fedavg"]);
    run(at, "bad", &["--variant", "fedavg"]);
    for file in [
        "rounds.parquet",
        "fedavg/model.safetensors",
        "manifest.toml",
    ] {
        let path = at.join("bad").join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        let done = fledgling(at, &["report", "good", "bad", "--out", "r.html"]);
        assert_eq!(done.status.code(), Some(1), "{file}");
        let told = text(&done.stderr);
        assert!(told.contains(&format!("bad/{file} is damaged")), "{told}");
        assert!(!at.join("r.html").exists());
        std::fs::write(&path, whole).unwrap();
    }
    assert!(
        fledgling(at, &["report", "good", "bad", "--out", "r.html"])
            .status
            .success()
    );
}
