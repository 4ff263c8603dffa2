//! Faults of `[secagg]`, by itself and with the rest of the experiment.

use super::{Case, fault};

pub(crate) const CASES: &[Case] = &[
    fault(
        "no mode",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nthreat = \"active\"",
        &["bad.toml:24:1: `secagg.mode`: missing; add it"],
    ),
    fault(
        "names that are none",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nmode = \"reel\"\nthreat = \"honest\"",
        &[
            "bad.toml:25:8: `secagg.mode`: \"reel\" is not known; did you mean `real`?",
            "bad.toml:26:10: `secagg.threat`: \"honest\" is not known; expected one of semi-honest, semi-malicious, active",
        ],
    ),
    fault(
        "numbers out of their ranges",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nmode = \"ideal\"\ncorrupt = 1.0\ndropout = -0.1\nmin_survivors = 1\ngroups = 0\nsample = 1",
        &[
            "bad.toml:26:11: `secagg.corrupt`: found 1, expected a share from 0 to below 1",
            "bad.toml:27:11: `secagg.dropout`: found -0.1, expected a share from 0 to below 1",
            "bad.toml:28:17: `secagg.min_survivors`: found 1, expected a whole number of at least 2",
            "bad.toml:29:10: `secagg.groups`: found 0, expected a whole number of at least 2",
            "bad.toml:30:10: `secagg.sample`: found 1, expected a whole number of at least 2",
        ],
    ),
    fault(
        "a threshold that is not safe",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nmode = \"real\"\nthreat = \"active\"\ndropout = 0.5",
        &[
            "bad.toml:27:11: `secagg.dropout`: sessions of 10 clients: no threshold is both safe and reachable for 10 clients with 1 corrupt and 5 dropping out under the active threat in a complete graph; lower the shares or take more clients",
        ],
    ),
    fault(
        "more survivors than clients",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nmode = \"real\"\nmin_survivors = 11",
        &[
            "bad.toml:26:17: `secagg.min_survivors`: sessions of 10 clients: at least 11 survivors are asked for; expected 3 to 10",
        ],
    ),
    fault(
        "a cohort of one",
        "cohort = 10",
        "cohort = 1\n\n[secagg]\nmode = \"ideal\"",
        &[
            "bad.toml:22:10: `selection.cohort`: sessions of 1 clients: a session of 1 clients is impossible; expected 2 to 1048576",
        ],
    ),
    fault(
        "groups of distributed noise",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\n\n[secagg]\nmode = \"ideal\"\ngroups = 5",
        &[
            "bad.toml:33:10: `secagg.groups`: groups with sessions of their own cannot be had with privacy.kind = \"distributed\": the server sees the sum of each group, with the noise of that group alone, and the guarantee is about the sum of all; leave groups out, or use privacy.kind = \"local\"",
        ],
    ),
];
