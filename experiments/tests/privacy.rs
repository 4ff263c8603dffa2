//! `fledgling privacy` as a person uses it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn privacy(folder: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fledgling"))
        .current_dir(folder)
        .arg("privacy")
        .args(words.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn json(words: &str) -> Value {
    let output = privacy(here(), words);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}: {error}");
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

const RUN: &str = "--sampling poisson --sampling-rate 0.01 --steps 1000 --delta 1e-5";

#[test]
fn epsilon_answers_as_one_line_of_json() {
    // dp_accounting 0.6 has 1.8282 (PLD) and 2.1014 (RDP); see privacy/tests/fixtures.
    for (accountant, least, most) in [
        ("pld", 1.8282, 1.82825),
        ("rdp", 2.0, 2.1014),
        ("zcdp", 100.0, 1000.0),
        ("naive", 10.0, 1000.0),
    ] {
        let line = json(&format!(
            "epsilon --mechanism gaussian --noise-multiplier 1 {RUN} --accountant {accountant} --json"
        ));
        let epsilon = line["epsilon"].as_f64().unwrap();
        let lower = line["lower"].as_f64().unwrap();
        assert!(epsilon > least && epsilon < most, "{line}");
        assert!(
            lower <= epsilon && (lower > least || accountant != "pld"),
            "{line}"
        );
        assert_eq!(line["accountant"], accountant);
        assert_eq!(line["relation"], "add-or-remove-one");
        assert!(line["seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(line.as_object().unwrap().len(), 5);
    }
    let exact = json("epsilon --noise-multiplier 1 --delta 1e-5 --accountant gaussian --json");
    assert!((exact["epsilon"].as_f64().unwrap() - 4.377_178).abs() < 1e-6);
    // Without noise there is no privacy, and JSON has no infinity.
    let none = json("epsilon --noise-multiplier 0 --delta 1e-5 --json");
    assert_eq!(none["epsilon"], "inf");
}

#[test]
fn sampling_decides_the_relation_and_shuffling_earns_nothing() {
    let sized = "--population 1000 --sample 10 --delta 1e-5 --noise-multiplier 1 --accountant rdp";
    let fixed = json(&format!(
        "epsilon --sampling fixed-size --steps 100 {sized} --json"
    ));
    assert_eq!(fixed["relation"], "replace-one");
    let shuffled = json(&format!(
        "epsilon --sampling shuffled --steps 100 {sized} --json"
    ));
    let once = json("epsilon --steps 1 --noise-multiplier 1 --delta 1e-5 --accountant rdp --json");
    // A hundred batches are one pass: every member takes part once.
    assert_eq!(shuffled["epsilon"], once["epsilon"]);
    assert!(fixed["epsilon"].as_f64() < shuffled["epsilon"].as_f64());
}

#[test]
fn calibrate_keeps_the_target() {
    let run = "--sampling poisson --sampling-rate 0.001 --steps 1500 --delta 1e-6";
    let line = json(&format!("calibrate --target-epsilon 2 {run} --json"));
    let noise = line["noise_multiplier"].as_f64().unwrap();
    assert!(noise > 0.6160 && noise < 0.6162, "{line}");
    assert_eq!(line.as_object().unwrap().len(), 2);
    let back = json(&format!("epsilon --noise-multiplier {noise} {run} --json"));
    assert_eq!(back["epsilon"], line["epsilon"]);
    let (epsilon, least) = (back["epsilon"].as_f64().unwrap(), 2.0 - 1e-3);
    assert!(epsilon <= 2.0 && epsilon > least, "{back}");
}

#[test]
fn a_curve_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let words = format!("curve --noise-multiplier 1 {RUN} --accountants rdp,zcdp --points 5");
    let output = privacy(folder.path(), &words);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "plots/privacy-epsilon.svg\nplots/privacy-epsilon.png\n"
    );
    let svg = std::fs::read_to_string(folder.path().join("plots/privacy-epsilon.svg")).unwrap();
    for text in ["Privacy loss", "Epsilon", "Steps", "rdp", "zcdp"] {
        assert!(svg.contains(text), "{text}");
    }
    let output = privacy(folder.path(), &format!("{words} --json"));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    let curve = &line["curves"][0];
    assert_eq!(
        curve["steps"],
        serde_json::json!([200, 400, 600, 800, 1000])
    );
    let last = &curve["epsilon"][4];
    let alone = json(&format!(
        "epsilon --noise-multiplier 1 {RUN} --accountant rdp --json"
    ));
    assert_eq!(*last, alone["epsilon"]);
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let cases = [
        (
            "epsilon --noise-multiplier 1 --delta 1e-5 --sampling poisson",
            "error: --sampling poisson needs --sampling-rate; give it\n",
        ),
        (
            "epsilon --noise-multiplier 1 --delta 1e-5 --sampling-rate 0.1",
            "error: --sampling-rate has no meaning with --sampling none; leave it out, or choose \
             --sampling poisson\n",
        ),
        (
            "epsilon --noise-multiplier 1 --delta 1e-5 --sampling poisson --sampling-rate 1.5",
            "error: sampling_rate is 1.5; expected a probability, from 0 to 1\n",
        ),
        (
            "epsilon --noise-multiplier=-1 --delta 1e-5",
            "error: noise_multiplier is -1; expected a finite number that is at least 0\n",
        ),
        (
            "epsilon --noise-multiplier 1 --delta 2",
            "error: delta is 2; expected a number from 0 to 1\n",
        ),
        (
            "epsilon --noise-multiplier 1 --delta 1e-5 --sampling fixed-size --population 10 \
             --sample 11",
            "error: sample is 11; expected at most the population\n",
        ),
        (
            "epsilon --noise-multiplier 1 --delta 1e-5 --sampling shuffled --population 10 \
             --sample 1 --relation add-or-remove-one",
            "error: shuffled sampling cannot be accounted for under the relation \
             `add-or-remove-one`; one member more changes who else takes part: use `replace-one` \
             or `replace-special`\n",
        ),
        (
            "calibrate --target-epsilon 0 --delta 1e-5",
            "error: the target epsilon is 0; expected a finite number above 0\n",
        ),
    ];
    for (words, expected) in cases {
        let output = privacy(here(), words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected, "{words}");
        assert!(output.stdout.is_empty());
    }
    for (words, part) in [
        (
            "epsilon --noise-multiplier 1 --delta 1e-5 --accountant clt",
            "unknown accountant `clt`",
        ),
        (
            "epsilon --noise-multiplier 1 --delta 1e-5 --relation some",
            "unknown neighbouring relation",
        ),
        ("epsilon --noise-multiplier 1", "--delta"),
        (
            "epsilon --noise-multiplier 1 --delta 1e-5 --sampling poisson --sampling-rate 0.1 \
             --accountant gaussian",
            "use the `pld` accountant",
        ),
    ] {
        let output = privacy(here(), words);
        assert_eq!(output.status.code(), Some(2), "{words}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(part), "{words}: {error}");
    }
}
