//! Faults of the text, of what stands at the top, and of variants.

use super::{Case, fault};

pub(crate) const CASES: &[Case] = &[
    fault(
        "a string without end",
        r#"name = "x""#,
        r#"name = "x"#,
        &[r#"bad.toml:1:10: this is not TOML: invalid basic string, expected `"`"#],
    ),
    fault(
        "a key given twice",
        "rounds = 10",
        "rounds = 10\nrounds = 20",
        &["bad.toml:4:1: this is not TOML: duplicate key"],
    ),
    fault(
        "two faults of syntax at once",
        "seed = 1\nrounds = 10",
        "seed =\nrounds = = 3",
        &[
            "bad.toml:2:7: this is not TOML: string values must be quoted, expected literal string",
            "bad.toml:3:10: this is not TOML: extra `=`, expected nothing",
            "bad.toml:3:12: this is not TOML: unexpected key or value, expected newline, `#`",
        ],
    ),
    fault(
        "a number that no integer holds",
        "rounds = 10",
        "rounds = 99999999999999999999",
        &[
            "bad.toml:3:10: 99999999999999999999 is too large; whole numbers go from -9223372036854775808 to 9223372036854775807",
        ],
    ),
    fault(
        "a date where a number is wanted",
        "rounds = 10",
        "rounds = 2026-01-01",
        &[
            "bad.toml:3:10: `rounds`: found the date 2026-01-01, which no key takes; put a text in quotes",
        ],
    ),
    fault(
        "an unknown key at the top",
        "seed = 1",
        "sed = 1",
        &["bad.toml:2:1: `sed`: unknown key; did you mean `seed`?"],
    ),
    fault(
        "an unknown table",
        "[selection]",
        "[fleets]\n[selection]",
        &["bad.toml:21:2: `fleets`: unknown key; did you mean `fleet`?"],
    ),
    fault(
        "no name",
        "name = \"x\"\n",
        "",
        &[r#"bad.toml:1:1: `name`: missing; add for example name = "my-experiment""#],
    ),
    fault(
        "a name that is no folder",
        r#"name = "x""#,
        r#"name = "../x""#,
        &[
            r#"bad.toml:1:8: `name`: found "../x", expected a name of 1 to 100 letters, digits, `-`, `_` or `.` that begins with a letter or digit"#,
        ],
    ),
    fault(
        "rounds in scientific notation, which TOML reads as a decimal",
        "rounds = 10",
        "rounds = 1e3",
        &["bad.toml:3:10: `rounds`: found 1000.0, expected a whole number of at least 0"],
    ),
    fault(
        "no rounds at all",
        "rounds = 10",
        "rounds = 0",
        &["bad.toml:3:10: `rounds`: found 0, expected a whole number of at least 1"],
    ),
    fault(
        "a negative seed",
        "seed = 1",
        "seed = -1",
        &["bad.toml:2:8: `seed`: found -1, expected a whole number of at least 0"],
    ),
    fault(
        "a share above one",
        "seed = 1",
        "seed = 1\nstop_at_accuracy = 97",
        &["bad.toml:3:20: `stop_at_accuracy`: found 97, expected a share between 0 and 1"],
    ),
    fault(
        "a variant with single brackets",
        "[selection]",
        "[variant]\nname = \"a\"\n[selection]",
        &[
            "bad.toml:21:1: `variant`: found a table, expected [[variant]] tables with double brackets",
        ],
    ),
    fault(
        "a variant without name",
        "cohort = 10\n",
        "cohort = 10\n[[variant]]\nseed = 2\n",
        &[
            "bad.toml:23:1: `variant.name`: missing; add a name that tells this variant from the others",
        ],
    ),
    fault(
        "two variants of one name",
        "cohort = 10\n",
        "cohort = 10\n[[variant]]\nname = \"a\"\n[[variant]]\nname = \"a\"\n",
        &[r#"bad.toml:26:8: `variant.name`: another variant is named "a"; give each its own name"#],
    ),
    fault(
        "a variant's unknown key",
        "cohort = 10\n",
        "cohort = 10\n[[variant]]\nname = \"a\"\nround = 3\n",
        &["bad.toml:25:1: `variant.round`: unknown key; did you mean `rounds`?"],
    ),
    fault(
        "an override that breaks one variant",
        "cohort = 10\n",
        "cohort = 10\n[[variant]]\nname = \"a\"\n[[variant]]\nname = \"b\"\nlocal.batch = -1\n",
        &[
            r#"bad.toml:27:15: variant `b`: `local.batch`: found -1, expected a whole number of at least 1, a share above 0 and below 1, or "full""#,
        ],
    ),
    fault(
        "a dotted key in quotes",
        "cohort = 10\n",
        "cohort = 10\n[[variant]]\nname = \"a\"\n\"strategy.mu\" = 1\n",
        &["bad.toml:25:1: `variant.strategy.mu`: unknown key; write the dotted key without quotes"],
    ),
    fault(
        "faults of four tables at once",
        "seed = 1\nrounds = 10",
        "sed = 1\nrounds = 0\nmodel.kind = \"logistic\"\nfleet.dropouts = 0.1\nevaluation.every = 0.5",
        &[
            "bad.toml:12:2: this is not TOML: duplicate key",
            "bad.toml:13:1: this is not TOML: duplicate key",
        ],
    ),
];
