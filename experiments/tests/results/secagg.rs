//! Runs with secure aggregation, robust means and fewer bits through the program: what `check`, the
//! tables, the figure and the warning say of them.

use std::collections::BTreeMap;
use std::fs;

use crate::support::World;

const EXPERIMENT: &str = r#"
name = "secure"
seed = 3
rounds = 4

[dataset]
name = "digits"
partition = { kind = "iid", clients = 32 }

[model]
kind = "logreg"

[local]
epochs = 1
batch = 10
learning_rate = 0.1

[selection]
cohort = 30

[evaluation]
every = 4
per_client = "never"

[secagg]
mode = "real"
groups = 10
dropout = 0.2

[[variant]]
name = "real"

[[variant]]
name = "ideal"
secagg = { mode = "ideal" }

[[variant]]
name = "median"
secagg = { robust = "median" }

[[variant]]
name = "median-off"
secagg = { mode = "off", robust = "median" }

[[variant]]
name = "trimmed"
secagg = { mode = "ideal", robust = "trimmed-mean" }

[[variant]]
name = "coarse"
aggregation = { bits = 24, range = 4 }

[[variant]]
name = "qat"
local = { precision = "qat-int8" }
secagg = { mode = "off" }
"#;

#[test]
fn secure_and_robust_runs_through_the_program() {
    let world = World::with("secure.toml", EXPERIMENT);
    let text = world.succeed("check secure.toml");
    for line in [
        "  sums      of 50 bits, for values within ±64; rounding moves the mean by at most ",
        "  sums      of 24 bits, for values within ±4; rounding moves the mean by at most ",
        "  robust    median of the means of 3 groups of up to 10 clients: up to 1 of them may be spoiled; their sums take ",
        "  robust    trimmed mean of the means of 3 groups of up to 10 clients: up to 1 of them may be spoiled; ",
        "  secagg    real: 3 sessions of up to 10 clients in a complete graph, of whom 1 may be corrupt and 2 may leave",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    let output = world.output("run secure.toml --out out");
    let text = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}{told}");
    let models: BTreeMap<&str, String> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            let digest =
                |word: &str| word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
            let model: Vec<&str> = line
                .split_whitespace()
                .skip_while(|word| !digest(word))
                .collect();
            (!model.is_empty()).then(|| (name, model.join(" ")))
        })
        .collect();
    assert_eq!(models.len(), 7, "{text}");
    assert_eq!(models["real"], models["ideal"]);
    assert_eq!(models["median"], models["median-off"]);
    assert_eq!(models["real"].len(), 12);
    for (name, mark) in [
        ("median", " (median)"),
        ("trimmed", " (trimmed-mean)"),
        ("coarse", " (24 bits, ±4)"),
        ("qat", " (qat-int8)"),
    ] {
        assert!(models[name].ends_with(mark), "{models:?}");
        assert_ne!(models[name][..12], models["real"]);
    }

    // Thirty of 32 clients in groups drawn anew: sums are not close. One group of nearly all is.
    assert!(!told.contains("close sums"), "{told}");
    let output = world.output(
        "run secure.toml --out close --variant ideal --variant real --no-plots --set secagg.groups=30 --set fleet.dropout=0.05",
    );
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches("close sums: ").count(), 1, "{told}");
    assert!(
        told.contains(" of real, ") && told.contains(" of ideal)"),
        "{told}"
    );

    let manifest = fs::read_to_string(world.path("out/manifest.toml")).unwrap();
    for table in ["groups.parquet", "secagg.parquet"] {
        assert!(manifest.contains(table), "{table}");
    }
    let figure = fs::read_to_string(world.path("out/plots/secagg.svg")).unwrap();
    for text in [
        "Cost of secure aggregation in a round",
        "Bytes of a client",
        "Seconds of the server",
        "masked inputs",
        "modelled",
    ] {
        assert!(figure.contains(text), "{text}");
    }
    assert!(!figure.contains("median-off"));
    world.succeed("verify out");
    // The tables know nothing of the rows of a variant that is gone.
    world.succeed("run secure.toml --out out --variant real --no-plots");
    world.succeed("verify out --rounds 1");
}
