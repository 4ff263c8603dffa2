//! Bad input, as a table: what is wrong, and the exact message that says so.
//!
//! Each case changes one place of a valid experiment and runs `fledgling check` on it. The expected
//! lines are everything that is reported, each with file, line, column, key, what was found, and
//! what to do. Exit code 2: the fault is in the experiment; 1: it is in the data's files.

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

/// Faults of the text.
const TEXT: &[Case] = &[
    Case {
        what: "a string without end",
        from: r#"name = "x""#,
        to: r#"name = "x"#,
        files: &[],
        code: 2,
        messages: &[r#"bad.toml:1:10: this is not TOML: invalid basic string, expected `"`"#],
    },
    Case {
        what: "a key given twice",
        from: "rounds = 10",
        to: "rounds = 10\nrounds = 20",
        files: &[],
        code: 2,
        messages: &["bad.toml:4:1: this is not TOML: duplicate key"],
    },
    Case {
        what: "two faults of syntax at once",
        from: "seed = 1\nrounds = 10",
        to: "seed =\nrounds = = 3",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:2:7: this is not TOML: string values must be quoted, expected literal string",
            "bad.toml:3:10: this is not TOML: extra `=`, expected nothing",
            "bad.toml:3:12: this is not TOML: unexpected key or value, expected newline, `#`",
        ],
    },
    Case {
        what: "a number that no integer holds",
        from: "rounds = 10",
        to: "rounds = 99999999999999999999",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:3:10: 99999999999999999999 is too large; whole numbers go from -9223372036854775808 to 9223372036854775807",
        ],
    },
    Case {
        what: "a date where a number is wanted",
        from: "rounds = 10",
        to: "rounds = 2026-01-01",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:3:10: `rounds`: found the date 2026-01-01, which no key takes; put a text in quotes",
        ],
    },
    Case {
        what: "an unknown key at the top",
        from: "seed = 1",
        to: "sed = 1",
        files: &[],
        code: 2,
        messages: &["bad.toml:2:1: `sed`: unknown key; did you mean `seed`?"],
    },
    Case {
        what: "an unknown table",
        from: "[selection]",
        to: "[fleets]\n[selection]",
        files: &[],
        code: 2,
        messages: &["bad.toml:21:2: `fleets`: unknown key; did you mean `fleet`?"],
    },
    Case {
        what: "no name",
        from: "name = \"x\"\n",
        to: "",
        files: &[],
        code: 2,
        messages: &[r#"bad.toml:1:1: `name`: missing; add for example name = "my-experiment""#],
    },
    Case {
        what: "a name that is no folder",
        from: r#"name = "x""#,
        to: r#"name = "../x""#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:1:8: `name`: found "../x", expected a name of 1 to 100 letters, digits, `-`, `_` or `.` that begins with a letter or digit"#,
        ],
    },
    Case {
        what: "rounds in scientific notation, which TOML reads as a decimal",
        from: "rounds = 10",
        to: "rounds = 1e3",
        files: &[],
        code: 2,
        messages: &["bad.toml:3:10: `rounds`: found 1000.0, expected a whole number of at least 0"],
    },
    Case {
        what: "no rounds at all",
        from: "rounds = 10",
        to: "rounds = 0",
        files: &[],
        code: 2,
        messages: &["bad.toml:3:10: `rounds`: found 0, expected a whole number of at least 1"],
    },
    Case {
        what: "a negative seed",
        from: "seed = 1",
        to: "seed = -1",
        files: &[],
        code: 2,
        messages: &["bad.toml:2:8: `seed`: found -1, expected a whole number of at least 0"],
    },
    Case {
        what: "a share above one",
        from: "seed = 1",
        to: "seed = 1\nstop_at_accuracy = 97",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:3:20: `stop_at_accuracy`: found 97, expected a share between 0 and 1",
        ],
    },
    Case {
        what: "a table left out",
        from: "[selection]\ncohort = 10\n",
        to: "",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:1:1: `selection`: the table [selection] is missing; add for example [selection] with cohort = 10",
        ],
    },
    Case {
        what: "a list of models",
        from: "[model]\nkind = \"logreg\"",
        to: "[[model]]\nkind = \"logreg\"",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:9:1: `model`: found a list, expected a model: a table with `kind`, or with [[layer]] tables",
        ],
    },
    Case {
        what: "an unknown data set",
        from: r#"name = "digits""#,
        to: r#"name = "digit""#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:6:8: `dataset.name`: "digit" is not known; did you mean `digits`?"#,
        ],
    },
    Case {
        what: "a key that this data set does not read",
        from: r#"name = "digits""#,
        to: "name = \"digits\"\nalpha = 0.5",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:1: `dataset.alpha`: unknown key; expected one of partition, limit, holdout, normalise, feature_noise",
        ],
    },
    Case {
        what: "a limit of nothing",
        from: r#"name = "digits""#,
        to: "name = \"digits\"\nlimit = 0",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:9: `dataset.limit`: found 0; give at least 1, or leave it out for all",
        ],
    },
    Case {
        what: "a share kept back of all",
        from: r#"name = "digits""#,
        to: "name = \"digits\"\nholdout = 1.0",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:11: `dataset.holdout`: found 1; give a share of at least 0 and below 1, e.g. 0.2",
        ],
    },
    Case {
        what: "no kind of partition",
        from: r#"{ kind = "dirichlet", alpha"#,
        to: "{ alpha",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:7:13: `dataset.partition.kind`: missing; add kind = one of "iid", "dirichlet", "shards", "labels-per-client", "quantity-dirichlet", "quantity-log-normal", "quantity-power-law", "natural""#,
        ],
    },
    Case {
        what: "an unknown kind of partition",
        from: r#""dirichlet""#,
        to: r#""dirichlett""#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:7:22: `dataset.partition.kind`: "dirichlett" is not known; did you mean `dirichlet`?"#,
        ],
    },
    Case {
        what: "a partition's key missing",
        from: "alpha = 0.3, ",
        to: "",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:13: `dataset.partition.alpha`: missing; add alpha = ... (number above 0)",
        ],
    },
    Case {
        what: "a partition's key misspelt",
        from: "alpha = 0.3, ",
        to: "alpha = 0.3, min_example = 3, ",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:48: `dataset.partition.min_example`: unknown key; did you mean `min_examples`?",
        ],
    },
    Case {
        what: "alpha out of range",
        from: "alpha = 0.3",
        to: "alpha = 0",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:43: `dataset.partition.alpha`: found 0, expected a number from 0.000001 to 1000000",
        ],
    },
    Case {
        what: "no clients",
        from: "clients = 20",
        to: "clients = 0",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:58: `dataset.partition.clients`: found 0, expected a whole number of at least 1",
        ],
    },
    Case {
        what: "clients in words",
        from: "clients = 20",
        to: r#"clients = "many""#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:7:58: `dataset.partition.clients`: found the string "many", expected a whole number of at least 0"#,
        ],
    },
    Case {
        what: "an unknown model",
        from: r#"kind = "logreg""#,
        to: r#"kind = "logregg""#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:10:8: `model.kind`: "logregg" is not known; did you mean `logreg`?"#,
        ],
    },
    Case {
        what: "a model without kind or layers",
        from: r#"kind = "logreg""#,
        to: "",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:9:1: `model.kind`: missing; add for example kind = "logreg" (one of layers, logreg, mlp-2nn, cnn-fedavg, cnn-pfl, resnet8-gn, mlp, mobilenet-v2), or [[model.layer]] tables"#,
        ],
    },
    Case {
        what: "a misspelt key of a layer",
        from: r#"kind = "logreg""#,
        to: r#"layer = [{ kind = "dense", unit = 10 }]"#,
        files: &[],
        code: 2,
        messages: &["bad.toml:10:28: `model.layer.0.unit`: unknown key; did you mean `units`?"],
    },
    Case {
        what: "an unknown layer",
        from: r#"kind = "logreg""#,
        to: r#"layer = [{ kind = "dens" }]"#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:10:10: `model.layer.0`: "dens" is not known; did you mean `dense`?"#,
        ],
    },
    Case {
        what: "a model's option of the wrong type",
        from: r#"kind = "logreg""#,
        to: "kind = \"mlp-2nn\"\nhidden = \"big\"",
        files: &[],
        code: 2,
        messages: &[r#"bad.toml:11:10: `model.hidden`: found the string "big", expected a list"#],
    },
    Case {
        what: "epochs in words",
        from: "epochs = 1",
        to: r#"epochs = "one""#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:13:10: `local.epochs`: found the string "one", expected a whole number from 1 to 4294967295"#,
        ],
    },
    Case {
        what: "epochs and steps",
        from: "epochs = 1",
        to: "epochs = 1\nsteps = 5",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:14:9: `local.steps`: epochs and steps are both given; remove one of them",
        ],
    },
    Case {
        what: "neither epochs nor steps",
        from: "epochs = 1\n",
        to: "",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:12:1: `local`: neither epochs nor steps is given; add for example epochs = 1",
        ],
    },
    Case {
        what: "a batch of nothing",
        from: "batch = 10",
        to: "batch = 0",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:14:9: `local.batch`: found 0, expected a whole number of at least 1, a share above 0 and below 1, or "full""#,
        ],
    },
    Case {
        what: "a batch in other words",
        from: "batch = 10",
        to: r#"batch = "all""#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:14:9: `local.batch`: found the string "all", expected a whole number of at least 1, a share above 0 and below 1, or "full""#,
        ],
    },
    Case {
        what: "no batch",
        from: "batch = 10\n",
        to: "",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:12:1: `local.batch`: missing; add for example batch = 10, or batch = "full""#,
        ],
    },
    Case {
        what: "a learning rate below zero",
        from: "learning_rate = 0.1",
        to: "learning_rate = -0.1",
        files: &[],
        code: 2,
        messages: &["bad.toml:15:17: `local.learning_rate`: found -0.1, expected a number above 0"],
    },
    Case {
        what: "a learning rate that is not a number",
        from: "learning_rate = 0.1",
        to: "learning_rate = nan",
        files: &[],
        code: 2,
        messages: &["bad.toml:15:17: `local.learning_rate`: found NaN, expected a number above 0"],
    },
    Case {
        what: "a learning rate too small for 32 bits",
        from: "learning_rate = 0.1",
        to: "learning_rate = 1e-60",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:17: `local.learning_rate`: found 1e-60, expected a number that 32 bits hold, from 1e-38 to 3e38",
        ],
    },
    Case {
        what: "an unknown optimizer",
        from: "batch = 10",
        to: "batch = 10\noptimizer = \"adan\"",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:15:13: `local.optimizer`: "adan" is not known; did you mean `adam`?"#,
        ],
    },
    Case {
        what: "momentum of one",
        from: "batch = 10",
        to: "batch = 10\noptimizer = { kind = \"sgd\", momentum = 1 }",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:40: `local.optimizer.momentum`: found 1, expected a number of at least 0 and below 1",
        ],
    },
    Case {
        what: "nesterov without momentum",
        from: "batch = 10",
        to: "batch = 10\noptimizer = { kind = \"sgd\", nesterov = true }",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:40: `local.optimizer.nesterov`: needs momentum above 0; add for example momentum = 0.9, or remove nesterov",
        ],
    },
    Case {
        what: "an optimizer's key of another kind",
        from: "batch = 10",
        to: "batch = 10\noptimizer = { kind = \"adam\", momentum = 0.9 }",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:30: `local.optimizer.momentum`: unknown key; expected one of beta1, beta2, epsilon, weight_decay",
        ],
    },
    Case {
        what: "a schedule that grows",
        from: "batch = 10",
        to: "batch = 10\nschedule = { kind = \"exponential\", decay = 1.5 }",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:44: `local.schedule.decay`: found 1.5, expected a number above 0 and at most 1",
        ],
    },
    Case {
        what: "a schedule without its length",
        from: "batch = 10",
        to: "batch = 10\nschedule = { kind = \"cosine\" }",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:12: `local.schedule.length`: missing; add for example length = 100",
        ],
    },
    Case {
        what: "a schedule that ends above its start",
        from: "batch = 10",
        to: "batch = 10\nschedule = { kind = \"cosine\", length = 10, minimum = 0.5 }",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:54: `local.schedule.minimum`: 0.5 is above learning_rate = 0.1; lower it",
        ],
    },
    Case {
        what: "an arithmetic that is not there",
        from: "batch = 10",
        to: "batch = 10\nprecision = \"f16\"",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:15:13: `local.precision`: "f16" is not known; expected one of f32, qat-int8"#,
        ],
    },
    Case {
        what: "a share of an observation above 1",
        from: "batch = 10",
        to: "batch = 10\nqat = { momentum = 1.5 }",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:20: `local.qat.momentum`: found 1.5, expected a share above 0 and at most 1",
        ],
    },
    Case {
        what: "a granularity that is not there",
        from: "batch = 10",
        to: "batch = 10\nqat = { granularity = \"row\" }",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:15:23: `local.qat.granularity`: "row" is not known; expected one of tensor, channel"#,
        ],
    },
    Case {
        what: "ranges that stay before they were seen",
        from: "batch = 10",
        to: "batch = 10\nqat = { delay = 5, freeze_ranges = 5 }",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:36: `local.qat.freeze_ranges`: found 5, and quantization starts after delay = 5 rounds; ranges must be seen before they can stay: raise it to 6 or more",
        ],
    },
    Case {
        what: "an unknown key of quantization-aware training",
        from: "batch = 10",
        to: "batch = 10\nqat = { momentun = 0.5 }",
        files: &[],
        code: 2,
        messages: &["bad.toml:15:9: `local.qat.momentun`: unknown key; did you mean `momentum`?"],
    },
    Case {
        what: "a gradient norm of zero",
        from: "batch = 10",
        to: "batch = 10\nmax_gradient_norm = 0",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:15:21: `local.max_gradient_norm`: found 0, expected a number above 0",
        ],
    },
    Case {
        what: "an unknown strategy",
        from: r#""fedprox""#,
        to: r#""fedproxx""#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:18:8: `strategy.kind`: "fedproxx" is not known; did you mean `fedprox`?"#,
        ],
    },
    Case {
        what: "a strategy's key of another kind",
        from: "mu = 0.1",
        to: "mu = 0.1\nserver_momentum = 0.9",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:20:1: `strategy.server_momentum`: unknown key; expected one of mu, weighting, stragglers",
        ],
    },
    Case {
        what: "a strategy's key missing",
        from: "mu = 0.1\n",
        to: "",
        files: &[],
        code: 2,
        messages: &["bad.toml:17:1: `strategy.mu`: missing; add mu = ... (number, at least 0)"],
    },
    Case {
        what: "mu below zero",
        from: "mu = 0.1",
        to: "mu = -1",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:19:6: `strategy.mu`: found -1, expected a finite number of at least 0",
        ],
    },
    Case {
        what: "a cohort of nobody",
        from: "cohort = 10",
        to: "cohort = 0",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:22:10: `selection.cohort`: found 0, expected a whole number of at least 1 and at most 2^40",
        ],
    },
    Case {
        what: "a cohort of more than all",
        from: "cohort = 10",
        to: "cohort = 1.5",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:22:10: `selection.cohort`: found 1.5, expected a whole number of clients, or a share of them above 0.0 and at most 1.0",
        ],
    },
    Case {
        what: "no cohort",
        from: "cohort = 10\n",
        to: "",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:21:1: `selection.cohort`: missing; add for example cohort = 10, or cohort = 0.1 for a tenth of the clients",
        ],
    },
    Case {
        what: "selecting fewer than the cohort",
        from: "cohort = 10",
        to: "cohort = 10\nover_select = 0.5",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:23:15: `selection.over_select`: found 0.5, expected a number of at least 1 and at most 100",
        ],
    },
    Case {
        what: "a share of stragglers above one",
        from: "[selection]",
        to: "[fleet]\nstragglers = 50\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:22:14: `fleet.stragglers`: found 50, expected a share between 0 and 1",
        ],
    },
    Case {
        what: "evaluating never",
        from: "[selection]",
        to: "[evaluation]\nevery = 0\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:22:9: `evaluation.every`: found 0, expected a whole number of at least 1",
        ],
    },
    Case {
        what: "yes instead of true",
        from: "[selection]",
        to: "[evaluation]\ntrain = \"yes\"\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:22:9: `evaluation.train`: found the string "yes", expected true or false"#,
        ],
    },
    Case {
        what: "a precision of evaluation that is not there",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"f32\", \"int4\"]\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:22:22: `evaluation.precisions.1`: "int4" is not known; did you mean `int8`?"#,
        ],
    },
    Case {
        what: "evaluation without f32",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"int8\"]\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:22:14: `evaluation.precisions`: must hold "f32" once and may hold "int8" once; write ["f32"] or ["f32", "int8"]"#,
        ],
    },
    Case {
        what: "a kind of calibration that is not there",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"federate\" }\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:23:24: `evaluation.calibration.kind`: "federate" is not known; did you mean `federated`?"#,
        ],
    },
    Case {
        what: "a calibration that is a word",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = \"federate\"\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:23:15: `evaluation.calibration.kind`: "federate" is not known; did you mean `federated`?"#,
        ],
    },
    Case {
        what: "a calibration without its kind",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { clients = 5 }\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:23:15: `evaluation.calibration.kind`: missing; add for example kind = "federated""#,
        ],
    },
    Case {
        what: "a moving average over clients",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"federated\", calibrator = \"moving-average\" }\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:23:50: `evaluation.calibration.calibrator`: found "moving-average", which depends on an order of batches, and clients have none; choose "min-max", "percentile" or "entropy""#,
        ],
    },
    Case {
        what: "keys of a federation and of another calibrator",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"central\", clients = 5, levels = 64 }\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:23:45: `evaluation.calibration.clients`: is used by kind = "federated" alone, and kind is "central"; remove it, or choose that kind"#,
            r#"bad.toml:23:57: `evaluation.calibration.levels`: is used with calibrator = "entropy" alone, and the calibrator is "min-max"; remove it, or choose that calibrator"#,
        ],
    },
    Case {
        what: "counts of a federation out of range",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"federated\", clients = 0, samples = 2000000, bins_per_octave = 33 }\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:23:47: `evaluation.calibration.clients`: found 0, expected a whole number from 1 to 1000000"#,
            r#"bad.toml:23:60: `evaluation.calibration.samples`: found 2000000, expected a whole number from 1 to 1000000"#,
            r#"bad.toml:23:87: `evaluation.calibration.bins_per_octave`: found 33, expected a power of two from 1 to 1024, such as 32"#,
        ],
    },
    Case {
        what: "numbers of a calibrator out of range",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"central\", calibrator = \"entropy\", bins = 64 }\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:23:15: `evaluation.calibration.levels`: found 128, expected a whole number from 2 to the number of bins, 64"#,
        ],
    },
    Case {
        what: "a percentile of nothing",
        from: "[selection]",
        to: "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"federated\", calibrator = \"percentile\", percentile = 0, bins = 99 }\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:23:77: `evaluation.calibration.percentile`: found 0, expected a number above 0 and at most 100"#,
            r#"bad.toml:23:87: `evaluation.calibration.bins`: is not used by a federated percentile, which is read from the clients' bins; set bins_per_octave in its place"#,
        ],
    },
    Case {
        what: "a calibration without int8",
        from: "[selection]",
        to: "[evaluation]\ncalibration = \"federated\"\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:22:15: `evaluation.calibration`: is used for "int8" alone, which evaluation.precisions does not hold; write precisions = ["f32", "int8"], or remove it"#,
        ],
    },
    Case {
        what: "a choice that is not there",
        from: "[selection]",
        to: "[evaluation]\nper_client = \"always\"\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:22:14: `evaluation.per_client`: "always" is not known; expected one of never, last, each"#,
        ],
    },
    Case {
        what: "a variant with single brackets",
        from: "[selection]",
        to: "[variant]\nname = \"a\"\n[selection]",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:21:1: `variant`: found a table, expected [[variant]] tables with double brackets",
        ],
    },
    Case {
        what: "a variant without name",
        from: "cohort = 10\n",
        to: "cohort = 10\n[[variant]]\nseed = 2\n",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:23:1: `variant.name`: missing; add a name that tells this variant from the others",
        ],
    },
    Case {
        what: "two variants of one name",
        from: "cohort = 10\n",
        to: "cohort = 10\n[[variant]]\nname = \"a\"\n[[variant]]\nname = \"a\"\n",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:26:8: `variant.name`: another variant is named "a"; give each its own name"#,
        ],
    },
    Case {
        what: "a variant's unknown key",
        from: "cohort = 10\n",
        to: "cohort = 10\n[[variant]]\nname = \"a\"\nround = 3\n",
        files: &[],
        code: 2,
        messages: &["bad.toml:25:1: `variant.round`: unknown key; did you mean `rounds`?"],
    },
    Case {
        what: "an override that breaks one variant",
        from: "cohort = 10\n",
        to: "cohort = 10\n[[variant]]\nname = \"a\"\n[[variant]]\nname = \"b\"\nlocal.batch = -1\n",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:27:15: variant `b`: `local.batch`: found -1, expected a whole number of at least 1, a share above 0 and below 1, or "full""#,
        ],
    },
    Case {
        what: "a dotted key in quotes",
        from: "cohort = 10\n",
        to: "cohort = 10\n[[variant]]\nname = \"a\"\n\"strategy.mu\" = 1\n",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:25:1: `variant.strategy.mu`: unknown key; write the dotted key without quotes",
        ],
    },
    Case {
        what: "faults of four tables at once",
        from: "seed = 1\nrounds = 10",
        to: "sed = 1\nrounds = 0\nmodel.kind = \"logistic\"\nfleet.dropouts = 0.1\nevaluation.every = 0.5",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:12:2: this is not TOML: duplicate key",
            "bad.toml:13:1: this is not TOML: duplicate key",
        ],
    },
];

/// Faults that show only with the data at hand.
const DATA: &[Case] = &[
    Case {
        what: "more clients than pictures",
        from: r#"kind = "dirichlet", alpha = 0.3, clients = 20"#,
        to: r#"kind = "iid", clients = 1000000"#,
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:39: `dataset.partition.clients`: 1000000 clients cannot share 1437 examples; ask for at most 1437 clients",
        ],
    },
    Case {
        what: "clients larger than the data allow",
        from: "clients = 20",
        to: "clients = 20, min_examples = 1000",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:77: `dataset.partition.min_examples`: 20 clients of at least 1000 examples need 20000 examples and there are 1437; lower `min_examples` to at most 71, or ask for fewer clients",
        ],
    },
    Case {
        what: "more labels than there are",
        from: r#"kind = "dirichlet", alpha = 0.3, clients = 20"#,
        to: r#"kind = "labels-per-client", labels = 11, clients = 20"#,
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:52: `dataset.partition.labels`: a client cannot hold 11 labels: the data have 10; lower `labels`",
        ],
    },
    Case {
        what: "more shards than pictures",
        from: r#"kind = "dirichlet", alpha = 0.3, clients = 20"#,
        to: r#"kind = "shards", shards_per_client = 1000, clients = 20"#,
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:7:68: `dataset.partition.clients`: 20 clients of 1000 shards need 20000 shards and there are 1437 examples; lower `clients` or `shards_per_client`",
        ],
    },
    Case {
        what: "natural clients where there are none",
        from: r#"partition = { kind = "dirichlet", alpha = 0.3, clients = 20 }"#,
        to: r#"partition = "natural""#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:7:13: `dataset.partition`: data set `digits` names no natural clients; choose another `partition`, e.g. { kind = "dirichlet", alpha = 0.3, clients = 100 }"#,
        ],
    },
    Case {
        what: "more groups than clients",
        from: "cohort = 10",
        to: "kind = \"cyclic\"\nperiod = 21",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:23:10: `selection.period`: found 21, and the data set has 20 clients, so some rounds would have nobody; lower period, or divide the data among more clients in dataset.partition",
        ],
    },
    Case {
        what: "clients that rest longer than there are others",
        from: "cohort = 10",
        to: "kind = \"separated\"\ncohort = 0.25\nseparation = 5",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:24:14: `selection.separation`: found 5, and with a cohort of 5 the data set's 20 clients cannot rest that long; expected at most 4",
        ],
    },
    Case {
        what: "groups that take no turns",
        from: "cohort = 10",
        to: "kind = \"cyclic\"",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:21:1: `selection.period`: missing; add period = ... (whole number above 0)",
        ],
    },
    Case {
        what: "a cohort of more than all clients",
        from: "cohort = 10",
        to: "cohort = 21",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:22:10: `selection.cohort`: found 21, and the data set has 20 clients; lower cohort, or divide the data among more clients in dataset.partition",
        ],
    },
    Case {
        what: "a model for pictures where there are none",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }\n\n[model]\nkind = \"logreg\"",
        to: "name = \"adult\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }\n\n[model]\nkind = \"cnn-fedavg\"",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:10:8: `model.kind`: the model `cnn-fedavg` takes images [height, width, channels] and the data hold examples of shape [108]; choose a data set of larger images, or the model `logreg` or `mlp-2nn`",
        ],
    },
    Case {
        what: "a convolution larger than its input",
        from: r#"kind = "logreg""#,
        to: r#"layer = [{ kind = "conv2d", filters = 3, kernel = 9, padding = "valid" }, { kind = "flatten" }, { kind = "dense" }]"#,
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:10:10: `model.layer.0`: layer 1 `conv2d1`: kernel 9x9 does not fit the 8x8 input; use padding = "same" or a smaller kernel"#,
        ],
    },
    Case {
        what: "a model that ends with the wrong size",
        from: r#"kind = "logreg""#,
        to: r#"layer = [{ kind = "flatten" }, { kind = "dense", units = 7 }]"#,
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:10:9: `model.layer`: the model ends with shape [7] and the loss `softmax-cross-entropy` needs 10 numbers; end with a dense layer without `units`, or with units = 10",
        ],
    },
    Case {
        what: "a loss for another target",
        from: r#"kind = "logreg""#,
        to: "layer = [{ kind = \"flatten\" }, { kind = \"dense\" }]\nloss = \"mse\"",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:11:8: `model.loss`: the loss `mse` does not fit a target of classes; use loss = "softmax-cross-entropy""#,
        ],
    },
    Case {
        what: "a file that is not there",
        from: r#"name = "digits""#,
        to: "name = \"csv\"\npath = \"nothing.csv\"\nlabel_column = \"y\"\nclient_column = \"c\"",
        files: &[],
        code: 1,
        messages: &[
            "bad.toml:7:8: `dataset.path`: reading nothing.csv: No such file or directory (os error 2); check the path, its permissions and the space left",
        ],
    },
];

/// Faults of the data's files.
const FILES: &[Case] = &[
    Case {
        what: "a data set that was never fetched",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"mnist\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        files: &[],
        code: 1,
        messages: &["bad.toml:6:8: `dataset.name`: data/mnist/train-labels-idx1-ubyte.gz of data set `mnist` is not there; run `fledgling data fetch mnist`, or let FLEDGLING_DATA_DIR name the folder that holds mnist/train-labels-idx1-ubyte.gz"],
    },
    Case {
        what: "a file of the wrong checksum",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"mnist\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        files: &[("data/mnist/train-images-idx3-ubyte.gz", b"not the file"), ("data/mnist/train-labels-idx1-ubyte.gz", b"nor this")],
        code: 1,
        messages: &["bad.toml:6:8: `dataset.name`: data/mnist/train-labels-idx1-ubyte.gz has SHA-256 1915f3193682b3d51d5c5bf927771034d37a6788e4f444f70164bc110f8be8a3 (8 bytes) where 3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c (28881 bytes) is expected; delete it and fetch or import it again"],
    },
    Case {
        what: "a table that is not there",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"csv\"\npath = \"t.csv\"\nlabel_column = \"y\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: reading t.csv: No such file or directory (os error 2); check the path, its permissions and the space left"],
    },
    Case {
        what: "a folder where a table is wanted",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"csv\"\npath = \"t.csv\"\nlabel_column = \"y\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("t.csv/x", b"")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: t.csv, CSV: found No such device (os error 19), expected a header line and rows of as many fields; mend the file"],
    },
    Case {
        what: "an empty table",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"csv\"\npath = \"t.csv\"\nlabel_column = \"y\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("t.csv", b"")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: t.csv, CSV: found no data: empty CSV, expected a header line and rows of as many fields; mend the file"],
    },
    Case {
        what: "a table without the label's column",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"csv\"\npath = \"t.csv\"\nlabel_column = \"y\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("t.csv", b"a,b\n1,2\n3,4\n")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: t.csv, columns: found a, b, expected a column `y` (the label); name columns that the file has"],
    },
    Case {
        what: "a table without the client's column",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"csv\"\npath = \"t.csv\"\nlabel_column = \"y\"\nclient_column = \"who\"",
        files: &[("t.csv", b"a,y\n1,2\n3,4\n")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: t.csv, columns: found a, y, expected a column `who` (the client); name columns that the file has"],
    },
    Case {
        what: "a hole in a table",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"csv\"\npath = \"t.csv\"\nlabel_column = \"y\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("t.csv", b"a,y\n1,0\n,1\n")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: t.csv, column `a`, row 1: found no value, expected a value in every row; fill the missing values or drop the rows"],
    },
    Case {
        what: "a line with a value too many",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"csv\"\npath = \"t.csv\"\nlabel_column = \"y\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("t.csv", b"a,y\n1,0\n1,2,3\n")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: t.csv, CSV: found found more fields than defined in 'Schema' Consider setting 'truncate_ragged_lines=true'., expected a header line and rows of as many fields; mend the file"],
    },
    Case {
        what: "no path",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"csv\"\nlabel_column = \"y\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[],
        code: 2,
        messages: &["bad.toml:6:8: `dataset.name`: data set `csv` needs `path`: the file of the table"],
    },
    Case {
        what: "a Parquet file that is none",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"parquet\"\npath = \"t.parquet\"\nlabel_column = \"y\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("t.parquet", b"PAR1 but no more")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: t.parquet, Parquet: found parquet: File out of specification: The file must end with PAR1, expected a whole Parquet file of numbers, truth values and text; get the file again, or convert columns of other types (dates, lists)"],
    },
    Case {
        what: "an IDX file cut short",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"idx\"\npath = \"i\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("i/train-images-idx3-ubyte", b"\x00\x00\x08\x03\x00\x00\x00\x04\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), ("i/train-labels-idx1-ubyte", b"\x00\x00\x08\x01\x00\x00\x00\x04\x00\x01\x00\x01")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: i/train-images-idx3-ubyte, byte 4: found sizes [4, 2, 2], expected at most the 31 bytes that the file can hold; the file is damaged or of another format; get it again"],
    },
    Case {
        what: "an IDX file of another kind",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"idx\"\npath = \"i\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("i/train-images-idx3-ubyte", b"GIF89a.........."), ("i/train-labels-idx1-ubyte", b"\x00\x00\x08\x01\x00\x00\x00\x04\x00\x01\x00\x01")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: i/train-images-idx3-ubyte, byte 0: found 47 49 46 38, expected an IDX magic: 00 00, then type 08, 09 or 0c, then 1 to 8 dimensions; the file is damaged or of another format; get it again"],
    },
    Case {
        what: "more pictures than labels",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"idx\"\npath = \"i\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("i/train-images-idx3-ubyte", b"\x00\x00\x08\x03\x00\x00\x00\x04\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), ("i/train-labels-idx1-ubyte", b"\x00\x00\x08\x01\x00\x00\x00\x03\x00\x01\x00")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: i/train-images-idx3-ubyte holds 4 examples and i/train-labels-idx1-ubyte holds 3; both must hold the same number, so use files of one release"],
    },
    Case {
        what: "JSON that breaks off",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"leaf\"\npath = \"l.json\"",
        files: &[("l.json", b"{\x22users\x22: [\x22a\x22], \x22user_data\x22: {\x22a\x22: {\x22x\x22: [[1")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: l.json, line 1, column 45: found EOF while parsing a list at line 1 column 45, expected LEAF's JSON: `users`, `num_samples`, `user_data`; the file is damaged or of another format; get it again"],
    },
    Case {
        what: "a folder without pictures",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"images\"\npath = \"p\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("p/cats/readme.txt", b"none")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: p/cats/readme.txt, folder layout: found something that is no PNG, expected pictures named *.png; convert the pictures to PNG and keep nothing else in the folder"],
    },
    Case {
        what: "a picture that is none",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"images\"\npath = \"p\"\npartition = { kind = \"iid\", clients = 2 }",
        files: &[("p/cats/a.png", b"none")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: p/cats/a.png, byte 4: found the end of the file, expected the IEND chunk that ends a PNG; the file is damaged or of another format; get it again"],
    },
    Case {
        what: "a text without speakers",
        from: "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }",
        to: "name = \"text\"\npath = \"t.txt\"",
        files: &[("t.txt", b"")],
        code: 1,
        messages: &["bad.toml:7:8: `dataset.path`: t.txt holds no speaker with enough text for one window; choose a smaller `window`"],
    },
];

/// Faults of `[privacy]`, by itself and with the rest of the experiment.
const PRIVACY: &[Case] = &[
    Case {
        what: "keys of another kind of privacy",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"local\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nclipping = \"adaptive\"\nbits = 20\nextrapolated_population = 9\nextrapolated_cohort = 9",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:29:12: `privacy.clipping`: found "adaptive", and clients that add noise themselves clip to one norm; choose "flat""#,
            r#"bad.toml:30:8: `privacy.bits`: is used with kind = "distributed" alone, and kind is "local"; remove it, or choose that kind"#,
            r#"bad.toml:31:27: `privacy.extrapolated_population`: is used with kind = "central" alone, and kind is "local"; remove it, or choose that kind"#,
            r#"bad.toml:32:23: `privacy.extrapolated_cohort`: is used with kind = "central" alone, and kind is "local"; remove it, or choose that kind"#,
        ],
    },
    Case {
        what: "a key of clients' noise for a server's",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nobserver = \"server\"",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:29:12: `privacy.observer`: is used with kind = "local" or "distributed" alone, and kind is "central"; remove it, or choose that kind"#,
        ],
    },
    Case {
        what: "numbers of a ring out of their ranges",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nbits = 3\nleast_survivors = 0\ncolluding_share = 1\nrounding_bias = 1\nwrap_limit = 0.5\nmost_participations = 0",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:29:8: `privacy.bits`: found 3, expected 4 to 62",
            "bad.toml:30:19: `privacy.least_survivors`: found 0, expected a share above 0 and at most 1",
            "bad.toml:31:19: `privacy.colluding_share`: found 1, expected a share from 0 to below 1",
            "bad.toml:32:17: `privacy.rounding_bias`: found 1, expected a number from 0 to below 1",
            "bad.toml:33:14: `privacy.wrap_limit`: found 0.5, expected a probability above 0 and at most 1e-3",
            "bad.toml:34:23: `privacy.most_participations`: found 0, expected at least 1",
        ],
    },
    Case {
        what: "a ring that is too small",
        from: "mu = 0.1\n\n[selection]\ncohort = 10",
        to: "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nbits = 5",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:30:8: `privacy.bits`: a ring of 5 bits has no room for the sum of 10 clients and the noise that epsilon 8 needs; give it at least 10 bits",
        ],
    },
    Case {
        what: "a client more or less that brings noise",
        from: "mu = 0.1\n\n[selection]\ncohort = 10",
        to: "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nrelation = \"add-or-remove-one\"",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:30:12: `privacy.relation`: adding or removing a client that brings its own noise is not possible under differential privacy, because its noise would come and go with it; use the relation `replace-special` or `replace-one`",
        ],
    },
    Case {
        what: "more colluding clients than must report",
        from: "mu = 0.1\n\n[selection]\ncohort = 10",
        to: "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\ncolluding_share = 0.9",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:30:19: `privacy.colluding_share`: the number of colluding clients of a round is 9; expected fewer than the reports of a round at least; lower colluding_share or raise least_survivors",
        ],
    },
    Case {
        what: "privacy of nothing in particular",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"central\"",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:24:1: `privacy.max_norm`: missing; give the norm that updates are clipped to, such as max_norm = 1.0",
            "bad.toml:24:1: `privacy.delta`: missing; give a probability far below one over the number of clients, such as delta = 1e-5",
            "bad.toml:24:1: `privacy.epsilon`: missing; give the most that may be spent, such as epsilon = 8.0, or noise_multiplier, or both",
        ],
    },
    Case {
        what: "numbers out of their ranges and keys of another clipping",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = -1\nepsilon = 0\ndelta = 1.5\nquantile = 0.5\nextrapolated_cohort = 9",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:26:12: `privacy.max_norm`: found -1, expected a number from 1e-20 to 1e20",
            "bad.toml:27:11: `privacy.epsilon`: found 0, expected a number above 0",
            "bad.toml:28:9: `privacy.delta`: found 1.5, expected a number above 0 and below 1",
            r#"bad.toml:29:12: `privacy.quantile`: is used with clipping = "adaptive" alone, and clipping is "flat"; remove it, or choose that clipping"#,
            "bad.toml:30:23: `privacy.extrapolated_cohort`: is used together with extrapolated_population; give both or neither",
        ],
    },
    Case {
        what: "an unknown key of privacy",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nnoise = 1",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:29:1: `privacy.noise`: unknown key; expected one of kind, unit, clipping, max_norm, mechanism, restart_every, estimator, bands, buffers, epsilon, noise_multiplier, delta, accountant, relation, stability, quantile, norm_learning_rate, count_noise, extrapolated_population, extrapolated_cohort, observer, least_survivors, most_participations, colluding_share, bits, rounding_bias, wrap_limit",
        ],
    },
    Case {
        what: "keys of another mechanism, and out of their ranges",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"blt\"\nbands = 0\nbuffers = 17\nrestart_every = 8\nestimator = \"node\"",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:30:9: `privacy.bands`: found 0, expected a whole number from 1 to 4096",
            r#"bad.toml:30:9: `privacy.bands`: is used with mechanism = "banded-toeplitz" alone, and mechanism is "blt"; remove it, or choose that mechanism"#,
            "bad.toml:31:11: `privacy.buffers`: found 17, expected a whole number from 1 to 16",
            r#"bad.toml:32:17: `privacy.restart_every`: is used with mechanism = "tree" alone, and mechanism is "blt"; remove it, or choose that mechanism"#,
            r#"bad.toml:33:13: `privacy.estimator`: is used with mechanism = "tree" alone, and mechanism is "blt"; remove it, or choose that mechanism"#,
        ],
    },
    Case {
        what: "a mechanism of another kind",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"tree\"",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:29:13: `privacy.mechanism`: found "tree", which is not a mechanism of kind = "distributed"; choose "skellam" or "discrete-gaussian""#,
        ],
    },
    Case {
        what: "correlated noise for cohorts that nothing keeps apart",
        from: "mu = 0.1\n\n[selection]\ncohort = 10",
        to: "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\nkind = \"uniform\"\ncohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"tree\"",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:23:8: `selection.kind`: correlated noise with participants that are drawn anew in every round is not possible under differential privacy, because nothing bounds how often and how close together one of them takes part; use cyclic or separated selection, or independent noise",
        ],
    },
    Case {
        what: "a norm that adapts under noise that is taken back",
        from: "mu = 0.1\n\n[selection]\ncohort = 10",
        to: "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\nkind = \"cyclic\"\nperiod = 2\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"tree\"\nclipping = \"adaptive\"",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:32:12: `privacy.clipping`: an adaptive clipping norm with correlated noise is not possible under differential privacy, because noise that is taken back later must have been of the same norm; clip to a fixed norm",
        ],
    },
    Case {
        what: "more bands than rounds",
        from: "mu = 0.1\n\n[selection]\ncohort = 10",
        to: "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\nkind = \"cyclic\"\nperiod = 2\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"banded-toeplitz\"\nbands = 500",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:32:9: `privacy.bands`: the number of bands is 500; expected from 1 to the number of rounds, and at most 4096",
        ],
    },
    Case {
        what: "examples protected by nothing in particular",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"example\"",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:24:1: `privacy.max_norm`: missing; give the norm that an example's gradient is clipped to, such as max_norm = 1.0",
            "bad.toml:24:1: `privacy.delta`: missing; give a probability far below one over the number of all examples, such as delta = 1e-6",
            "bad.toml:24:1: `privacy.epsilon`: missing; give the most that may be spent, such as epsilon = 8.0, or noise_multiplier, or both",
        ],
    },
    Case {
        what: "keys of other kinds for examples",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"example\"\nunit = \"client\"\nclipping = \"adaptive\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-5\nrelation = \"replace-one\"\nextrapolated_population = 100\nextrapolated_cohort = 20",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:26:8: `privacy.unit`: found "client", and kind = "example" protects single examples; remove it, or choose kind = "central""#,
            r#"bad.toml:27:12: `privacy.clipping`: found "adaptive", which follows updates and not gradients of examples; choose "flat", "per-layer" or "automatic""#,
            r#"bad.toml:31:12: `privacy.relation`: kind = "example" counts the number of a client's examples as public, which is "replace-special"; remove it"#,
            r#"bad.toml:32:27: `privacy.extrapolated_population`: is used with kind = "central" alone, and kind is "example"; remove it, or choose that kind"#,
            "bad.toml:33:23: `privacy.extrapolated_cohort`: is used with kind = \"central\" alone, and kind is \"example\"; remove it, or choose that kind",
        ],
    },
    Case {
        what: "keys of examples for clients",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"central\"\nunit = \"example\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-5\nmost_participations = 3",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:26:8: `privacy.unit`: found "example", which only kind = "example" protects; remove it, or choose that kind"#,
            r#"bad.toml:30:23: `privacy.most_participations`: is used with kind = "local", "distributed" or "example" alone, and kind is "central"; remove it, or choose that kind"#,
        ],
    },
    Case {
        what: "a delta that publishes an example",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:28:9: `privacy.delta`: delta is 0.001, which is not below one over the 1437 protected examples; choose a delta well below 0.0006958942240779402",
        ],
    },
    Case {
        what: "less noise for examples than one round needs",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 1\nnoise_multiplier = 0.1\ndelta = 1e-5",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:28:20: `privacy.noise_multiplier`: event 1 (`self-composed of poisson-sampled of gaussian`) would overspend the privacy budget: spent epsilon 0, with it 309.6187579451941, limit 1 at delta 0.00001; stop here, or start again with fewer rounds or a higher noise multiplier",
        ],
    },
    Case {
        what: "examples by an accountant that cannot count them",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 1\naccountant = \"gaussian\"\ndelta = 1e-5",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:28:14: `privacy.accountant`: the gaussian accountant has no proven bound for the event `poisson-sampled of gaussian` under the relation `replace-special`; it composes only Gaussian noise on all members; use the `pld` accountant",
        ],
    },
    Case {
        what: "examples under quantization-aware training",
        from: "batch = 10\nlearning_rate = 0.1\n\n[strategy]",
        to: "batch = 10\nlearning_rate = 0.1\nprecision = \"qat-int8\"\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-5\n\n[strategy]",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:16:13: `local.precision`: privacy.kind = "example" trains in "f32" alone: the ranges that "qat-int8" observes would be released without noise; choose "f32", or privacy.kind = "central""#,
        ],
    },
    Case {
        what: "examples under batch normalisation",
        from: "kind = \"logreg\"",
        to: "layer = [{ kind = \"flatten\" }, { kind = \"dense\", units = 8 }, { kind = \"batch-norm\" }, { kind = \"dense\" }]\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-5",
        files: &[],
        code: 2,
        messages: &[
            r#"bad.toml:9:1: `model`: privacy.kind = "example" needs gradients of single examples, and batch normalisation has none; choose a model with group normalisation, such as "resnet8-gn""#,
        ],
    },
    Case {
        what: "weights by private counts",
        from: "cohort = 10",
        to: "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:17:1: `strategy`: weighting clients by their number of examples is not possible under differential privacy, because one client can count for any number of others; weigh uniformly or cap the weights",
        ],
    },
    Case {
        what: "a delta that publishes somebody",
        from: "mu = 0.1\n\n[selection]\ncohort = 10",
        to: "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 0.05",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:29:9: `privacy.delta`: delta is 0.05, which is not below one over the 20 protected clients; choose a delta well below 0.05",
        ],
    },
    Case {
        what: "more clients asked than counted",
        from: "mu = 0.1\n\n[selection]\ncohort = 10",
        to: "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\nover_select = 1.5\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3",
        files: &[],
        code: 2,
        messages: &[
            "bad.toml:24:15: `selection.over_select`: asking more clients than are counted is not possible under differential privacy, because whether a client is counted then depends on how fast the others are; leave over_select at 1",
        ],
    },
];

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
    run(TEXT);
}

#[test]
fn faults_of_privacy() {
    run(PRIVACY);
}

#[test]
fn faults_that_show_with_the_data() {
    run(DATA);
}

#[test]
#[cfg(target_os = "linux")] // The messages hold what the system says.
fn faults_of_the_files() {
    run(FILES);
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
