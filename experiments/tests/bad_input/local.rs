//! Faults of `[local]`.

use super::{Case, fault};

pub(crate) const CASES: &[Case] = &[
    fault(
        "epochs in words",
        "epochs = 1",
        r#"epochs = "one""#,
        &[
            r#"bad.toml:13:10: `local.epochs`: found the string "one", expected a whole number from 1 to 4294967295"#,
        ],
    ),
    fault(
        "epochs and steps",
        "epochs = 1",
        "epochs = 1\nsteps = 5",
        &["bad.toml:14:9: `local.steps`: epochs and steps are both given; remove one of them"],
    ),
    fault(
        "neither epochs nor steps",
        "epochs = 1\n",
        "",
        &["bad.toml:12:1: `local`: neither epochs nor steps is given; add for example epochs = 1"],
    ),
    fault(
        "a batch of nothing",
        "batch = 10",
        "batch = 0",
        &[
            r#"bad.toml:14:9: `local.batch`: found 0, expected a whole number of at least 1, a share above 0 and below 1, or "full""#,
        ],
    ),
    fault(
        "a batch in other words",
        "batch = 10",
        r#"batch = "all""#,
        &[
            r#"bad.toml:14:9: `local.batch`: found the string "all", expected a whole number of at least 1, a share above 0 and below 1, or "full""#,
        ],
    ),
    fault(
        "no batch",
        "batch = 10\n",
        "",
        &[
            r#"bad.toml:12:1: `local.batch`: missing; add for example batch = 10, or batch = "full""#,
        ],
    ),
    fault(
        "a distillation without a teacher",
        "learning_rate = 0.1",
        "learning_rate = 0.1\ndistillation = { temperature = 2 }",
        &[
            r#"bad.toml:16:16: `local.distillation.teacher`: missing; add for example teacher = { variant = "teacher" }, or the path of a model file"#,
        ],
    ),
    fault(
        "a teacher that is a number",
        "learning_rate = 0.1",
        "learning_rate = 0.1\ndistillation = { teacher = 3 }",
        &["bad.toml:16:28: `local.distillation.teacher`: found 3, expected a path in quotes"],
    ),
    fault(
        "a misspelt lesson",
        "learning_rate = 0.1",
        "learning_rate = 0.1\ndistillation = { teacher = \"t\", temprature = 3.0 }",
        &[
            "bad.toml:16:33: `local.distillation.temprature`: unknown key; did you mean `temperature`?",
        ],
    ),
    fault(
        "a share of the labels above 1",
        "learning_rate = 0.1",
        "learning_rate = 0.1\ndistillation = { teacher = \"t\", alpha = 1.5 }",
        &["bad.toml:16:41: `local.distillation.alpha`: `alpha` is 1.5; it must be from 0 to 1"],
    ),
    fault(
        "a feature that weighs nothing",
        "learning_rate = 0.1",
        "learning_rate = 0.1\ndistillation = { teacher = \"t\", features = [{ student = \"a\", teacher = \"b\", weight = 0.0 }] }",
        &[
            "bad.toml:16:86: `local.distillation.features.0.weight`: `features.0.weight` is 0; it must be a number above 0",
        ],
    ),
    fault(
        "a teacher that is no variant",
        "learning_rate = 0.1",
        "learning_rate = 0.1\ndistillation = { teacher = { variant = \"big\" } }",
        &[
            r#"bad.toml:16:40: `local.distillation.teacher.variant`: "big" is no earlier variant, and there is none before this one; put the variant that trains the teacher first, or give the path of a model file"#,
        ],
    ),
    fault(
        "a learning rate below zero",
        "learning_rate = 0.1",
        "learning_rate = -0.1",
        &["bad.toml:15:17: `local.learning_rate`: found -0.1, expected a number above 0"],
    ),
    fault(
        "a learning rate that is not a number",
        "learning_rate = 0.1",
        "learning_rate = nan",
        &["bad.toml:15:17: `local.learning_rate`: found NaN, expected a number above 0"],
    ),
    fault(
        "a learning rate too small for 32 bits",
        "learning_rate = 0.1",
        "learning_rate = 1e-60",
        &[
            "bad.toml:15:17: `local.learning_rate`: found 1e-60, expected a number that 32 bits hold, from 1e-38 to 3e38",
        ],
    ),
    fault(
        "an unknown optimizer",
        "batch = 10",
        "batch = 10\noptimizer = \"adan\"",
        &[r#"bad.toml:15:13: `local.optimizer`: "adan" is not known; did you mean `adam`?"#],
    ),
    fault(
        "momentum of one",
        "batch = 10",
        "batch = 10\noptimizer = { kind = \"sgd\", momentum = 1 }",
        &[
            "bad.toml:15:40: `local.optimizer.momentum`: found 1, expected a number of at least 0 and below 1",
        ],
    ),
    fault(
        "nesterov without momentum",
        "batch = 10",
        "batch = 10\noptimizer = { kind = \"sgd\", nesterov = true }",
        &[
            "bad.toml:15:40: `local.optimizer.nesterov`: needs momentum above 0; add for example momentum = 0.9, or remove nesterov",
        ],
    ),
    fault(
        "an optimizer's key of another kind",
        "batch = 10",
        "batch = 10\noptimizer = { kind = \"adam\", momentum = 0.9 }",
        &[
            "bad.toml:15:30: `local.optimizer.momentum`: unknown key; expected one of beta1, beta2, epsilon, weight_decay",
        ],
    ),
    fault(
        "a schedule that grows",
        "batch = 10",
        "batch = 10\nschedule = { kind = \"exponential\", decay = 1.5 }",
        &[
            "bad.toml:15:44: `local.schedule.decay`: found 1.5, expected a number above 0 and at most 1",
        ],
    ),
    fault(
        "a schedule without its length",
        "batch = 10",
        "batch = 10\nschedule = { kind = \"cosine\" }",
        &["bad.toml:15:12: `local.schedule.length`: missing; add for example length = 100"],
    ),
    fault(
        "a schedule that ends above its start",
        "batch = 10",
        "batch = 10\nschedule = { kind = \"cosine\", length = 10, minimum = 0.5 }",
        &["bad.toml:15:54: `local.schedule.minimum`: 0.5 is above learning_rate = 0.1; lower it"],
    ),
    fault(
        "an arithmetic that is not there",
        "batch = 10",
        "batch = 10\nprecision = \"f16\"",
        &[
            r#"bad.toml:15:13: `local.precision`: "f16" is not known; expected one of f32, qat-int8"#,
        ],
    ),
    fault(
        "a share of an observation above 1",
        "batch = 10",
        "batch = 10\nqat = { momentum = 1.5 }",
        &[
            "bad.toml:15:20: `local.qat.momentum`: found 1.5, expected a share above 0 and at most 1",
        ],
    ),
    fault(
        "a granularity that is not there",
        "batch = 10",
        "batch = 10\nqat = { granularity = \"row\" }",
        &[
            r#"bad.toml:15:23: `local.qat.granularity`: "row" is not known; expected one of tensor, channel"#,
        ],
    ),
    fault(
        "ranges that stay before they were seen",
        "batch = 10",
        "batch = 10\nqat = { delay = 5, freeze_ranges = 5 }",
        &[
            "bad.toml:15:36: `local.qat.freeze_ranges`: found 5, and quantization starts after delay = 5 rounds; ranges must be seen before they can stay: raise it to 6 or more",
        ],
    ),
    fault(
        "an unknown key of quantization-aware training",
        "batch = 10",
        "batch = 10\nqat = { momentun = 0.5 }",
        &["bad.toml:15:9: `local.qat.momentun`: unknown key; did you mean `momentum`?"],
    ),
    fault(
        "a gradient norm of zero",
        "batch = 10",
        "batch = 10\nmax_gradient_norm = 0",
        &["bad.toml:15:21: `local.max_gradient_norm`: found 0, expected a number above 0"],
    ),
];
