//! Faults of `[pruning]`.

use super::{Case, fault};

/// The last table of the valid experiment, before the one at fault.
const AFTER: &str = "cohort = 10\n";

pub(crate) const CASES: &[Case] = &[
    fault(
        "no kind",
        AFTER,
        "cohort = 10\n[pruning]\nsparsity = 0.5\n",
        &[r#"bad.toml:23:1: `pruning.kind`: missing; add it"#],
    ),
    fault(
        "an unknown kind",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitud\"\nsparsity = 0.5\n",
        &[r#"bad.toml:24:8: `pruning.kind`: "magnitud" is not known; did you mean `magnitude`?"#],
    ),
    fault(
        "an unknown key",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitude\"\nsparsiti = 0.5\n",
        &[
            r#"bad.toml:23:1: `pruning`: sparsity is missing, and kind = "magnitude" needs it; add for example sparsity = 0.8"#,
            r#"bad.toml:25:1: `pruning.sparsiti`: unknown key; did you mean `sparsity`?"#,
        ],
    ),
    fault(
        "nothing to be reached",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitude\"\n",
        &[
            r#"bad.toml:23:1: `pruning`: sparsity is missing, and kind = "magnitude" needs it; add for example sparsity = 0.8"#,
        ],
    ),
    fault(
        "everything",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitude\"\nsparsity = 1.0\n",
        &[
            r#"bad.toml:25:12: `pruning.sparsity`: found 1, expected a share of at least 0 and below 1"#,
        ],
    ),
    fault(
        "a first share above the last",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitude\"\nsparsity = 0.5\ninitial = 0.6\nend = 5\n",
        &[
            r#"bad.toml:26:11: `pruning.initial`: 0.6 is above sparsity = 0.5, and pruned weights do not come back; lower it"#,
        ],
    ),
    fault(
        "a first share that is none",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitude\"\nsparsity = 0.5\ninitial = -0.1\nend = 5\n",
        &[
            r#"bad.toml:26:11: `pruning.initial`: found -0.1, expected a share of at least 0 and below 1"#,
        ],
    ),
    fault(
        "keys of a schedule without its end",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitude\"\nsparsity = 0.5\ninitial = 0.1\nevery = 2\n",
        &[
            r#"bad.toml:26:11: `pruning.initial`: is used where weights are pruned little by little, and without `end` they are pruned at once; add for example end = 20, or remove it"#,
            r#"bad.toml:27:9: `pruning.every`: is used where weights are pruned little by little, and without `end` they are pruned at once; add for example end = 20, or remove it"#,
        ],
    ),
    fault(
        "an end before the start",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitude\"\nsparsity = 0.5\nstart = 5\nend = 5\n",
        &[
            r#"bad.toml:27:7: `pruning.end`: found 5, and the first pruning is before round 5; raise it, or remove it to prune at once"#,
        ],
    ),
    fault(
        "an end between two prunings",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitude\"\nsparsity = 0.5\nstart = 2\nend = 9\nevery = 3\n",
        &[
            r#"bad.toml:27:7: `pruning.end`: found 9, and from round 2 on, every 3 rounds, no pruning is before it; write 8"#,
        ],
    ),
    fault(
        "prunings that never come",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"magnitude\"\nsparsity = 0.5\nend = 9\nevery = 0\n",
        &[r#"bad.toml:27:9: `pruning.every`: found 0, expected a whole number of at least 1"#],
    ),
    fault(
        "keys of another kind",
        AFTER,
        "cohort = 10\n[pruning]\nkind = \"two-of-four\"\nsparsity = 0.5\nscope = \"layer\"\n",
        &[
            r#"bad.toml:25:12: `pruning.sparsity`: is not used by kind = "two-of-four", which prunes two of each four weights at once, before round `start`; remove it, or write kind = "magnitude""#,
            r#"bad.toml:26:9: `pruning.scope`: is not used by kind = "two-of-four", which prunes two of each four weights at once, before round `start`; remove it, or write kind = "magnitude""#,
        ],
    ),
];
