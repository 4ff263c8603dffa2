//! Overrides, `--set`, defaults, and the configuration as resolved.

use std::path::Path;

use fl_core::strategy::StrategyConfig;
use fl_core::{BatchSize, LocalWork, Optimizer, Schedule};

use super::*;

const BASE: &str = r#"
name = "x"
rounds = 10
[dataset]
name = "digits"
partition = { kind = "dirichlet", alpha = 0.3, clients = 20, sizes = "unbalanced" }
[model]
kind = "logreg"
[local]
epochs = 2
batch = 10
learning_rate = 0.1
optimizer = { kind = "sgd", momentum = 0.9 }
[selection]
cohort = 0.25
"#;

fn read(more: &str, sets: &[&str]) -> Experiment {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    Experiment::from_text("x.toml", &format!("{BASE}{more}"), &sets).unwrap()
}

fn config(variant: &Variant, path: &str) -> toml::Value {
    let mut value = toml::Value::Table(variant.config.clone());
    for name in path.split('.') {
        value = value[name].clone();
    }
    value
}

#[test]
fn defaults_are_written_out() {
    let experiment = read("", &[]);
    let variant = &experiment.variants[0];
    assert_eq!(experiment.variants.len(), 1);
    assert_eq!(variant.name, "x");
    let expected: &[(&str, toml::Value)] = &[
        ("seed", 1.into()),
        ("strategy.kind", "fedavg".into()),
        ("strategy.stragglers", "drop".into()),
        ("selection.kind", "uniform".into()),
        ("selection.cohort", 0.25.into()),
        ("selection.over_select", 1.0.into()),
        ("local.schedule.kind", "constant".into()),
        ("local.optimizer.momentum", 0.9.into()),
        ("local.optimizer.weight_decay", 0.0.into()),
        ("evaluation.every", 1.into()),
        ("fleet.stragglers", 0.0.into()),
    ];
    for (path, value) in expected {
        assert_eq!(config(variant, path), *value, "{path}");
    }
    assert_eq!(variant.selection.cohort(20), Some(5));
    assert_eq!(variant.selection.cohort(1), Some(1));
    let plan = variant.local.plan();
    assert_eq!(plan.work, LocalWork::Epochs(2.try_into().unwrap()));
    assert_eq!(plan.batch, BatchSize::Examples(10.try_into().unwrap()));
    assert_eq!(
        plan.optimizer,
        Optimizer::Sgd {
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0
        }
    );
}

/// What stands in the file is what the simulator is told, with its defaults written out; what is
/// written out reads back.
#[test]
fn calibration_is_chosen() {
    use fl_edge::quant::federated::Bins;
    use fl_edge::quant::{Calibration, Granularity};
    use fl_sim::{CalibrationConfig, CalibrationSource};

    let federated = |clients, samples, divisions| CalibrationSource::Federated {
        clients,
        samples,
        bins: Bins::new(-16, 16, divisions).unwrap(),
    };
    let cases = [
        ("\"central\"", CalibrationConfig::default(), 4),
        (
            "\"federated\"",
            CalibrationConfig {
                source: federated(100, 32, 5),
                ..CalibrationConfig::default()
            },
            6,
        ),
        (
            "{ kind = \"central\", calibrator = \"moving-average\", constant = 0.5, samples = 7 }",
            CalibrationConfig {
                source: CalibrationSource::Central { samples: 7 },
                calibrator: Calibration::MovingAverage { constant: 0.5 },
                ..CalibrationConfig::default()
            },
            5,
        ),
        (
            "{ kind = \"central\", calibrator = \"percentile\", granularity = \"tensor\" }",
            CalibrationConfig {
                calibrator: Calibration::named("percentile").unwrap(),
                granularity: Granularity::Tensor,
                ..CalibrationConfig::default()
            },
            6,
        ),
        (
            "{ kind = \"federated\", calibrator = \"entropy\", clients = 9, samples = 2, bins_per_octave = 256, levels = 64 }",
            CalibrationConfig {
                source: federated(9, 2, 8),
                calibrator: Calibration::Entropy {
                    bins: 2048,
                    levels: 64,
                },
                ..CalibrationConfig::default()
            },
            8,
        ),
        (
            "{ kind = \"federated\", calibrator = \"percentile\", percentile = 99.5 }",
            CalibrationConfig {
                source: federated(100, 32, 5),
                calibrator: Calibration::Percentile {
                    percentile: 99.5,
                    bins: 2048,
                },
                ..CalibrationConfig::default()
            },
            7,
        ),
    ];
    for (text, expected, keys) in cases {
        let more =
            format!("[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = {text}\n");
        let experiment = read(&more, &[]);
        let variant = &experiment.variants[0];
        assert_eq!(variant.evaluation.config().calibration, expected, "{text}");
        let written = config(variant, "evaluation.calibration");
        assert_eq!(written.as_table().unwrap().len(), keys, "{written}");
        let again = Experiment::from_table("manifest.toml", &variant.config).unwrap();
        assert_eq!(again.evaluation, variant.evaluation);
        assert_eq!(again.config, variant.config);
    }
    let sets = [
        "evaluation.precisions=[\"f32\",\"int8\"]",
        "evaluation.calibration.kind=federated",
        "evaluation.calibration.clients=3",
    ];
    let experiment = read("", &sets);
    let found = experiment.variants[0].evaluation.config().calibration;
    assert_eq!(found.source, federated(3, 32, 5));
    // Without the table nothing is written, as before there was one.
    let plain = read("[evaluation]\nprecisions = [\"f32\", \"int8\"]\n", &[]);
    let evaluation = config(&plain.variants[0], "evaluation");
    assert!(evaluation.get("calibration").is_none());
}

#[test]
fn overrides_lie_over_the_base() {
    let more = r#"
[[variant]]
name = "same"
[[variant]]
name = "deep"
seed = 7
dataset.partition.alpha = 5.0
local.optimizer.momentum = 0.5
[[variant]]
name = "other-kinds"
strategy = { kind = "fedprox", mu = 1 }
dataset.partition = { kind = "iid", clients = 5 }
local.optimizer = "adam"
local.schedule = { kind = "exponential", decay = 0.5, unit = "step" }
[[variant]]
name = "steps"
local.steps = 3
selection = { kind = "poisson", rate = 0.5 }
"#;
    let experiment = read(more, &[]);
    let [same, deep, kinds, steps] = experiment.variants.as_slice() else {
        panic!("four variants");
    };
    assert_eq!(same.config, read("", &[]).variants[0].config);
    assert_eq!(deep.seed.0, 7);
    assert_eq!(config(deep, "dataset.partition.alpha"), 5.0.into());
    assert_eq!(config(deep, "dataset.partition.sizes"), "unbalanced".into());
    assert_eq!(config(deep, "local.optimizer.momentum"), 0.5.into());
    assert!(matches!(&kinds.strategy, StrategyConfig::FedProx(keys) if keys.mu > 0.999));
    assert_eq!(
        config(kinds, "dataset.partition").as_table().unwrap().len(),
        2
    );
    assert_eq!(config(kinds, "local.optimizer.beta1"), 0.9.into());
    assert_eq!(
        kinds.local.plan().learning_rate.schedule,
        Schedule::Exponential { decay: 0.5 }
    );
    assert_eq!(
        steps.local.plan().work,
        LocalWork::Steps(3.try_into().unwrap())
    );
    assert_eq!(steps.selection.cohort(20), None);
    assert!(steps.selection.expected_cohort(20) > 0.0);
}

#[test]
fn arguments_lie_over_every_variant() {
    let more = "[[variant]]\nname = \"a\"\nlocal.batch = 5\n[[variant]]\nname = \"b\"\n";
    let experiment = read(
        more,
        &[
            "local.batch=full",
            "strategy.kind=fedprox",
            "strategy.mu = 0.5",
            "dataset.partition={ kind = \"shards\", clients = 10 }",
            "name=\"y\"",
        ],
    );
    assert_eq!(experiment.name, "y");
    for variant in &experiment.variants {
        assert_eq!(variant.local.plan().batch, BatchSize::Full);
        assert_eq!(config(variant, "strategy.mu"), 0.5.into());
        assert_eq!(config(variant, "dataset.partition.clients"), 10.into());
        assert_eq!(
            config(variant, "dataset.partition.shards_per_client"),
            2.into()
        );
    }
}

#[test]
fn every_shipped_experiment_is_valid_and_reads_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "toml") || path.ends_with("Cargo.toml") {
            continue;
        }
        let experiment = Experiment::from_file(&path, &[]).unwrap();
        assert_eq!(path.file_stem().unwrap(), experiment.name.as_str());
        let cells = match experiment.swept {
            true => SweepExperiment::from_file(&path, &[]).unwrap().cells,
            false => Vec::new(),
        };
        let cells = cells.iter().map(|cell| &cell.variant);
        for variant in experiment.variants.iter().chain(cells) {
            let again = Experiment::from_table("manifest", &variant.config).unwrap();
            assert_eq!(again.config, variant.config, "{}", path.display());
            assert_eq!(again.dataset, variant.dataset);
            assert_eq!(again.model, variant.model);
            assert_eq!(again.local, variant.local);
            assert_eq!(again.strategy, variant.strategy);
            assert_eq!(again.selection, variant.selection);
        }
        seen += 1;
    }
    assert!(seen >= 6, "{seen} experiments");
}

#[test]
fn paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    let text = BASE.replace("name = \"digits\"", "name = \"csv\"\npath = \"t.csv\"");
    std::fs::write(&path, text).unwrap();
    let experiment = Experiment::from_file(&path, &[]).unwrap();
    let variant = &experiment.variants[0];
    let expected = folder.path().join("t.csv");
    assert_eq!(variant.dataset.path.as_ref(), Some(&expected));
    assert_eq!(
        config(variant, "dataset.path"),
        expected.to_str().unwrap().into()
    );
}

#[test]
fn names_are_fit_for_folders() {
    for good in ["x", "mnist-2nn", "alpha-0.1", "A_b.c", "9"] {
        assert!(is_name(good), "{good}");
    }
    let long = "x".repeat(101);
    for bad in [
        "",
        ".",
        "..",
        "-x",
        "a/b",
        "a b",
        "é",
        "a\\b",
        long.as_str(),
    ] {
        assert!(!is_name(bad), "{bad}");
    }
}
