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

/// A small private experiment with a variant of each sort.
const AUDITED: &str = r#"
name = "audited"
rounds = 8

[dataset]
name = "synthetic"
alpha = 1.0
beta = 1.0
clients = 200

[model]
kind = "logreg"

[local]
epochs = 1
batch = 10
learning_rate = 0.01

[strategy]
kind = "fedavg"
weighting = "uniform"

[selection]
kind = "poisson"
rate = 0.5

[privacy]
kind = "central"
max_norm = 0.5
delta = 1e-5

[[variant]]
name = "private"
privacy.epsilon = 4.0

[[variant]]
name = "bare"
privacy.noise_multiplier = 0.0

[[variant]]
name = "open"
privacy.kind = "none"
"#;

fn audited() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("audited.toml");
    std::fs::write(file, AUDITED).expect("the folder can be written");
    folder
}

const AUDIT: &str = "audit audited.toml --canaries 100 --runs 150";

#[test]
fn an_audit_says_what_it_found_and_draws_it() {
    let folder = audited();
    let output = privacy(folder.path(), AUDIT);
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(output.status.code(), Some(0), "{out}{error}");
    for head in [
        "private: 150 runs of 8 rounds with 100 canaries, attacked in",
        "guessed   ",
        "reported  epsilon 3.99998 at delta 0.00001 · pld accountant · add-or-remove-one",
        "found     epsilon at least ",
        "assumed   white-box: the attacker sees every released mean",
        "          it does not see who takes part",
        "          the other clients are absent",
        "verdict   consistent: such guesses have probability up to ",
        "plot      plots/privacy-audit-private.svg",
    ] {
        assert!(
            out.lines().any(|line| line.starts_with(head)),
            "{head}\n{out}"
        );
    }
    for name in ["bare", "open"] {
        let line = format!("{name}: passed over: an audit tries to refute a guarantee");
        assert!(error.contains(&line), "{error}");
    }
    let svg = folder.path().join("plots/privacy-audit-private.svg");
    let svg = std::fs::read_to_string(svg).unwrap();
    for text in ["Scores of canaries", "guessed out", "consistent"] {
        assert!(svg.contains(text), "{text}");
    }
    // The same, for a program; on three threads.
    let words = format!("{AUDIT} --variant private --threads 3 --no-plots --json");
    let output = privacy(folder.path(), &words);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["verdict"], "consistent");
    let (epsilon, lower) = (line["epsilon"].as_f64(), line["lower"].as_f64());
    assert!(lower < epsilon && lower > Some(2.0), "{line}");
    assert!(line["lower_any"].as_f64() < lower, "{line}");
    assert_eq!(line["canaries"], 100);
    assert_eq!(line["guesses"], 15_000);
    assert_eq!(line["assumed"].as_array().unwrap().len(), 5);
    let told = out
        .lines()
        .find(|line| line.starts_with("guessed"))
        .unwrap();
    let correct = line["correct"].as_u64().unwrap();
    let digits: String = told
        .split(" right")
        .next()
        .unwrap()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    assert_eq!(digits, correct.to_string());
}

/// A program that adds half of its noise is caught, and says so by its exit code.
#[test]
fn an_audit_that_refutes_exits_with_three() {
    let folder = audited();
    let words =
        format!("{AUDIT} --variant private --no-plots --confidence 0.999 --fault-noise 0.5");
    let output = privacy(folder.path(), &words);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{out}");
    assert!(
        out.contains("verdict   REFUTED: such guesses have probability below "),
        "{out}"
    );
    let output = privacy(folder.path(), &format!("{words} --json"));
    assert_eq!(output.status.code(), Some(3));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["verdict"], "refuted");
    assert!(line["lower"].as_f64() > line["epsilon"].as_f64(), "{line}");
}

#[test]
fn what_cannot_be_audited_is_refused_with_a_reason() {
    let folder = audited();
    for (words, expected) in [
        (
            "audit audited.toml --variant open",
            "error: audit: an audit tries to refute a guarantee, and this run has none; give it \
             privacy with noise\n",
        ),
        (
            "audit audited.toml --variant bare",
            "error: audit: an audit tries to refute a guarantee, and this run has none; give it \
             privacy with noise\n",
        ),
        (
            "audit audited.toml --variant private --canaries 201",
            "error: audit: 201 canaries were asked for, and there are 200 clients; ask for at most \
             200\n",
        ),
        (
            "audit audited.toml --variant private --confidence 1.5",
            "error: audit: the confidence of an audit is 1.5; expected a number above 0 and below \
             1\n",
        ),
        (
            "audit audited.toml --variant private --set privacy.extrapolated_population=2000 --set \
             privacy.extrapolated_cohort=1000",
            "error: audit: an audit attacks what is run, and this run's guarantee is that of a \
             larger deployment; leave the extrapolation out\n",
        ),
    ] {
        let output = privacy(folder.path(), words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(error, expected, "{words}");
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(output.stdout.is_empty());
    }
    for (words, part) in [
        ("audit audited.toml --runs 0", "0 is not in 1..=1000000"),
        ("audit audited.toml --canaries 0", "0 is not in 1.."),
        (
            "audit audited.toml --others some",
            "[possible values: absent, train]",
        ),
        ("audit audited.toml --variant privat", "no variant `privat`"),
        ("audit nothing.toml", "nothing.toml"),
    ] {
        let output = privacy(folder.path(), words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}: {error}");
        assert!(error.contains(part), "{words}: {error}");
    }
}

const EXAMPLES: &str = r#"name = "examples"
rounds = 3

[dataset]
name = "digits"
partition = { kind = "iid", clients = 5 }

[model]
kind = "logreg"

[local]
epochs = 2
batch = 0.1
learning_rate = 0.5

[selection]
cohort = 5

[privacy]
kind = "example"
max_norm = 1.0
noise_multiplier = 1.1
delta = 1e-5
"#;

/// Three rounds of two passes of ten steps on a tenth of the examples: what a run reports is what
/// the prompt answers for sixty steps.
#[test]
fn a_run_that_protects_examples_reports_what_the_prompt_answers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("examples.toml"), EXAMPLES).unwrap();
    let program = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_fledgling"))
            .current_dir(folder.path())
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {error}");
        (String::from_utf8(output.stdout).unwrap(), error)
    };
    let (told, _) = program(&["check", "examples.toml"]);
    for part in [
        "per example (replace-special) after 3 rounds, in which a client takes part at most 3 times",
        "a time is 20 steps of Gaussian noise with multiplier 1.1000",
        "the server knows no more than everybody",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let (line, told) = program(&["run", "examples.toml", "--json"]);
    let line: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    let answer = json(
        "epsilon --noise-multiplier 1.1 --sampling poisson --sampling-rate 0.1 --steps 60 --delta \
         1e-5 --json",
    );
    assert_eq!(line["epsilon"], answer["epsilon"], "{line}");
    assert_eq!(line["epsilon_unamplified"], answer["epsilon"], "{line}");
    assert!(told.contains("per example (replace-special)"), "{told}");
    assert!(line["final_accuracy"].as_f64().unwrap() > 0.5, "{line}");
}
