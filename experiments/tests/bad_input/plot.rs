//! Faults of `[[plot]]`.

use super::{Case, fault};

/// The last table of the valid experiment, before the one at fault.
const AFTER: &str = "cohort = 10\n";

pub(crate) const CASES: &[Case] = &[
    fault(
        "single brackets",
        AFTER,
        "cohort = 10\n[plot]\nkind = \"curves\"\n",
        &[r#"bad.toml:23:1: `plot`: found a table, expected [[plot]] tables with double brackets"#],
    ),
    fault(
        "no kind",
        AFTER,
        "cohort = 10\n[[plot]]\nx = \"rounds\"\n",
        &[r#"bad.toml:23:1: `plot.kind`: missing; add it"#],
    ),
    fault(
        "an unknown kind",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"heatmap\"\n",
        &[r#"bad.toml:24:8: `plot.kind`: "heatmap" is not known; did you mean `heat-map`?"#],
    ),
    fault(
        "an unknown key",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"curves\"\nxlimits = [0, 1]\n",
        &[r#"bad.toml:25:1: `plot.xlimits`: unknown key; did you mean `x_limits`?"#],
    ),
    fault(
        "a key of another kind",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"fairness\"\nx = \"rounds\"\n",
        &[
            r#"bad.toml:25:5: `plot.x`: kind = "fairness" takes no `x` (found the string "rounds"); remove it (it takes group)"#,
        ],
    ),
    fault(
        "a misspelt measure",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"curves\"\ny = \"acuracy\"\n",
        &[
            r#"bad.toml:25:5: `plot.y`: found "acuracy", expected a measure; did you mean `accuracy`?"#,
        ],
    ),
    fault(
        "a course of what has none",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"curves\"\nx = \"accuracy\"\ny = \"jain\"\n",
        &[
            r#"bad.toml:25:5: `plot.x`: found "accuracy", expected one of rounds, time, seconds, hours, bytes, joules, epsilon"#,
            r#"bad.toml:26:5: `plot.y`: found "jain", expected one of rounds, time, seconds, hours, bytes, joules, epsilon, accuracy, accuracy-int8, patch, loss, train-accuracy, train-loss"#,
        ],
    ),
    fault(
        "a misspelt key of the configuration",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"points\"\nx = \"local.learning_rates\"\n",
        &[
            r#"bad.toml:25:5: `plot.x`: no variant has the key "local.learning_rates"; did you mean `local.learning_rate`?"#,
        ],
    ),
    fault(
        "a key of no table",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"points\"\nx = \"lokal.batch\"\n",
        &[
            r#"bad.toml:25:5: `plot.x`: "lokal.batch" is no key of an experiment; there is no table [lokal]: did you mean `local`?"#,
        ],
    ),
    fault(
        "a heat map without axes",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"heat-map\"\nx = \"accuracy\"\n",
        &[
            r#"bad.toml:23:1: `plot.y`: missing; add a key of the configuration, e.g. "local.learning_rate""#,
            r#"bad.toml:25:5: `plot.x`: found the measure "accuracy", expected a key of the configuration, e.g. "local.learning_rate""#,
        ],
    ),
    fault(
        "a group that is a measure",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"dots\"\ngroup = [\"strategy.kind\", \"loss\"]\n",
        &[
            r#"bad.toml:25:9: `plot.group`: "loss" is a measure, expected keys of the configuration, e.g. "strategy.kind" or "variant""#,
        ],
    ),
    fault(
        "sizes and limits that cannot be",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"curves\"\nheight = 5\nx_limits = [9, 1]\ny_limits = [0, 1]\nlog_y = true\ntarget = 80\n",
        &[
            r#"bad.toml:25:10: `plot.height`: found 5, expected pixels from 100 to 2000"#,
            r#"bad.toml:26:12: `plot.x_limits`: found [9, 1], expected [LOW, HIGH] with LOW below HIGH"#,
            r#"bad.toml:27:12: `plot.y_limits`: found [0, 1], expected limits above 0, as the axis is logarithmic"#,
            r#"bad.toml:29:10: `plot.target`: found 80, expected a share between 0 and 1"#,
        ],
    ),
    fault(
        "a width that cannot be",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"curves\"\nwidth = \"wide\"\n",
        &[
            r#"bad.toml:25:9: `plot.width`: found "wide", expected "column" (3.5 inches), "page" (7.16 inches) or pixels from 240 to 2000"#,
        ],
    ),
    fault(
        "a name twice",
        AFTER,
        "cohort = 10\n[[plot]]\nkind = \"curves\"\nname = \"a\"\n[[plot]]\nkind = \"dots\"\nname = \"a\"\n",
        &[r#"bad.toml:28:8: `plot.name`: another figure is named "a"; give each its own name"#],
    ),
    fault(
        "a fault beside one of another table",
        "rounds = 10\n",
        "rounds = 0\n[[plot]]\nkind = \"curve\"\n",
        &[
            r#"bad.toml:3:10: `rounds`: found 0, expected a whole number of at least 1"#,
            r#"bad.toml:5:8: `plot.kind`: "curve" is not known; did you mean `curves`?"#,
        ],
    ),
];
