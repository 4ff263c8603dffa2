//! Faults of `[dataset]` and of names of tables.

use super::{Case, fault};

pub(crate) const CASES: &[Case] = &[
    fault(
        "an unknown data set",
        r#"name = "digits""#,
        r#"name = "digit""#,
        &[r#"bad.toml:6:8: `dataset.name`: "digit" is not known; did you mean `digits`?"#],
    ),
    fault(
        "a key that this data set does not read",
        r#"name = "digits""#,
        "name = \"digits\"\nalpha = 0.5",
        &[
            "bad.toml:7:1: `dataset.alpha`: unknown key; expected one of partition, limit, holdout, normalise, feature_noise",
        ],
    ),
    fault(
        "targets at every position of pictures",
        r#"name = "digits""#,
        "name = \"digits\"\nevery_position = true",
        &[
            "bad.toml:7:1: `dataset.every_position`: unknown key; expected one of partition, limit, holdout, normalise, feature_noise",
        ],
    ),
    fault(
        "a limit of nothing",
        r#"name = "digits""#,
        "name = \"digits\"\nlimit = 0",
        &["bad.toml:7:9: `dataset.limit`: found 0; give at least 1, or leave it out for all"],
    ),
    fault(
        "a share kept back of all",
        r#"name = "digits""#,
        "name = \"digits\"\nholdout = 1.0",
        &[
            "bad.toml:7:11: `dataset.holdout`: found 1; give a share of at least 0 and below 1, e.g. 0.2",
        ],
    ),
    fault(
        "no kind of partition",
        r#"{ kind = "dirichlet", alpha"#,
        "{ alpha",
        &[
            r#"bad.toml:7:13: `dataset.partition.kind`: missing; add kind = one of "iid", "dirichlet", "shards", "labels-per-client", "quantity-dirichlet", "quantity-log-normal", "quantity-power-law", "natural""#,
        ],
    ),
    fault(
        "an unknown kind of partition",
        r#""dirichlet""#,
        r#""dirichlett""#,
        &[
            r#"bad.toml:7:22: `dataset.partition.kind`: "dirichlett" is not known; did you mean `dirichlet`?"#,
        ],
    ),
    fault(
        "a partition's key missing",
        "alpha = 0.3, ",
        "",
        &["bad.toml:7:13: `dataset.partition.alpha`: missing; add alpha = ... (number above 0)"],
    ),
    fault(
        "a partition's key misspelt",
        "alpha = 0.3, ",
        "alpha = 0.3, min_example = 3, ",
        &[
            "bad.toml:7:48: `dataset.partition.min_example`: unknown key; did you mean `min_examples`?",
        ],
    ),
    fault(
        "alpha out of range",
        "alpha = 0.3",
        "alpha = 0",
        &[
            "bad.toml:7:43: `dataset.partition.alpha`: found 0, expected a number from 0.000001 to 1000000",
        ],
    ),
    fault(
        "no clients",
        "clients = 20",
        "clients = 0",
        &[
            "bad.toml:7:58: `dataset.partition.clients`: found 0, expected a whole number of at least 1",
        ],
    ),
    fault(
        "clients in words",
        "clients = 20",
        r#"clients = "many""#,
        &[
            r#"bad.toml:7:58: `dataset.partition.clients`: found the string "many", expected a whole number of at least 0"#,
        ],
    ),
    fault(
        "a share of stragglers above one",
        "[selection]",
        "[fleet]\nstragglers = 50\n[selection]",
        &["bad.toml:22:14: `fleet.stragglers`: found 50, expected a share between 0 and 1"],
    ),
];
