//! Faults of `[strategy]`, `[selection]` and `[evaluation]`.

use super::{Case, fault};

pub(crate) const CASES: &[Case] = &[
    fault(
        "a table left out",
        "[selection]\ncohort = 10\n",
        "",
        &[
            "bad.toml:1:1: `selection`: the table [selection] is missing; add for example [selection] with cohort = 10",
        ],
    ),
    fault(
        "an unknown strategy",
        r#""fedprox""#,
        r#""fedproxx""#,
        &[r#"bad.toml:18:8: `strategy.kind`: "fedproxx" is not known; did you mean `fedprox`?"#],
    ),
    fault(
        "a strategy's key of another kind",
        "mu = 0.1",
        "mu = 0.1\nserver_momentum = 0.9",
        &[
            "bad.toml:20:1: `strategy.server_momentum`: unknown key; expected one of mu, weighting, stragglers",
        ],
    ),
    fault(
        "a strategy's key missing",
        "mu = 0.1\n",
        "",
        &["bad.toml:17:1: `strategy.mu`: missing; add mu = ... (number, at least 0)"],
    ),
    fault(
        "mu below zero",
        "mu = 0.1",
        "mu = -1",
        &["bad.toml:19:6: `strategy.mu`: found -1, expected a finite number of at least 0"],
    ),
    fault(
        "a cohort of nobody",
        "cohort = 10",
        "cohort = 0",
        &[
            "bad.toml:22:10: `selection.cohort`: found 0, expected a whole number of at least 1 and at most 2^40",
        ],
    ),
    fault(
        "a cohort of more than all",
        "cohort = 10",
        "cohort = 1.5",
        &[
            "bad.toml:22:10: `selection.cohort`: found 1.5, expected a whole number of clients, or a share of them above 0.0 and at most 1.0",
        ],
    ),
    fault(
        "no cohort",
        "cohort = 10\n",
        "",
        &[
            "bad.toml:21:1: `selection.cohort`: missing; add for example cohort = 10, or cohort = 0.1 for a tenth of the clients",
        ],
    ),
    fault(
        "selecting fewer than the cohort",
        "cohort = 10",
        "cohort = 10\nover_select = 0.5",
        &[
            "bad.toml:23:15: `selection.over_select`: found 0.5, expected a number of at least 1 and at most 100",
        ],
    ),
    fault(
        "evaluating never",
        "[selection]",
        "[evaluation]\nevery = 0\n[selection]",
        &["bad.toml:22:9: `evaluation.every`: found 0, expected a whole number of at least 1"],
    ),
    fault(
        "yes instead of true",
        "[selection]",
        "[evaluation]\ntrain = \"yes\"\n[selection]",
        &[r#"bad.toml:22:9: `evaluation.train`: found the string "yes", expected true or false"#],
    ),
    fault(
        "a precision of evaluation that is not there",
        "[selection]",
        "[evaluation]\nprecisions = [\"f32\", \"int4\"]\n[selection]",
        &[
            r#"bad.toml:22:22: `evaluation.precisions.1`: "int4" is not known; did you mean `int8`?"#,
        ],
    ),
    fault(
        "evaluation without f32",
        "[selection]",
        "[evaluation]\nprecisions = [\"int8\"]\n[selection]",
        &[
            r#"bad.toml:22:14: `evaluation.precisions`: must hold "f32" once and may hold "int8" once; write ["f32"] or ["f32", "int8"]"#,
        ],
    ),
    fault(
        "a kind of calibration that is not there",
        "[selection]",
        "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"federate\" }\n[selection]",
        &[
            r#"bad.toml:23:24: `evaluation.calibration.kind`: "federate" is not known; did you mean `federated`?"#,
        ],
    ),
    fault(
        "a calibration that is a word",
        "[selection]",
        "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = \"federate\"\n[selection]",
        &[
            r#"bad.toml:23:15: `evaluation.calibration.kind`: "federate" is not known; did you mean `federated`?"#,
        ],
    ),
    fault(
        "a calibration without its kind",
        "[selection]",
        "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { clients = 5 }\n[selection]",
        &[
            r#"bad.toml:23:15: `evaluation.calibration.kind`: missing; add for example kind = "federated""#,
        ],
    ),
    fault(
        "a moving average over clients",
        "[selection]",
        "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"federated\", calibrator = \"moving-average\" }\n[selection]",
        &[
            r#"bad.toml:23:50: `evaluation.calibration.calibrator`: found "moving-average", which depends on an order of batches, and clients have none; choose "min-max", "percentile" or "entropy""#,
        ],
    ),
    fault(
        "keys of a federation and of another calibrator",
        "[selection]",
        "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"central\", clients = 5, levels = 64 }\n[selection]",
        &[
            r#"bad.toml:23:45: `evaluation.calibration.clients`: is used by kind = "federated" alone, and kind is "central"; remove it, or choose that kind"#,
            r#"bad.toml:23:57: `evaluation.calibration.levels`: is used with calibrator = "entropy" alone, and the calibrator is "min-max"; remove it, or choose that calibrator"#,
        ],
    ),
    fault(
        "counts of a federation out of range",
        "[selection]",
        "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"federated\", clients = 0, samples = 2000000, bins_per_octave = 33 }\n[selection]",
        &[
            r#"bad.toml:23:47: `evaluation.calibration.clients`: found 0, expected a whole number from 1 to 1000000"#,
            r#"bad.toml:23:60: `evaluation.calibration.samples`: found 2000000, expected a whole number from 1 to 1000000"#,
            r#"bad.toml:23:87: `evaluation.calibration.bins_per_octave`: found 33, expected a power of two from 1 to 1024, such as 32"#,
        ],
    ),
    fault(
        "numbers of a calibrator out of range",
        "[selection]",
        "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"central\", calibrator = \"entropy\", bins = 64 }\n[selection]",
        &[
            r#"bad.toml:23:15: `evaluation.calibration.levels`: found 128, expected a whole number from 2 to the number of bins, 64"#,
        ],
    ),
    fault(
        "a percentile of nothing",
        "[selection]",
        "[evaluation]\nprecisions = [\"f32\", \"int8\"]\ncalibration = { kind = \"federated\", calibrator = \"percentile\", percentile = 0, bins = 99 }\n[selection]",
        &[
            r#"bad.toml:23:77: `evaluation.calibration.percentile`: found 0, expected a number above 0 and at most 100"#,
            r#"bad.toml:23:87: `evaluation.calibration.bins`: is not used by a federated percentile, which is read from the clients' bins; set bins_per_octave in its place"#,
        ],
    ),
    fault(
        "a test set of nothing",
        "[selection]",
        "[evaluation]\nmax_examples = 0\n[selection]",
        &[
            "bad.toml:22:16: `evaluation.max_examples`: found 0, expected a whole number of at least 1",
        ],
    ),
    fault(
        "patches without int8",
        "[selection]",
        "[evaluation]\npatches = true\n[selection]",
        &[
            r#"bad.toml:22:11: `evaluation.patches`: is about the model served in "int8", which evaluation.precisions does not hold; write precisions = ["f32", "int8"], or remove it"#,
        ],
    ),
    fault(
        "a calibration without int8",
        "[selection]",
        "[evaluation]\ncalibration = \"federated\"\n[selection]",
        &[
            r#"bad.toml:22:15: `evaluation.calibration`: is used for "int8" alone, which evaluation.precisions does not hold; write precisions = ["f32", "int8"], or remove it"#,
        ],
    ),
    fault(
        "a choice that is not there",
        "[selection]",
        "[evaluation]\nper_client = \"always\"\n[selection]",
        &[
            r#"bad.toml:22:14: `evaluation.per_client`: "always" is not known; expected one of never, last, each"#,
        ],
    ),
];
