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
    fault(
        "a robust mean without groups",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nmode = \"off\"\nrobust = \"median\"",
        &[
            "bad.toml:26:10: `secagg.robust`: is a mean of groups, and there are none; give secagg.groups, the most clients of one",
        ],
    ),
    fault(
        "a robust mean that is none",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nmode = \"ideal\"\ngroups = 3\nrobust = \"medain\"",
        &["bad.toml:27:10: `secagg.robust`: \"medain\" is not known; did you mean `median`?"],
    ),
    fault(
        "half of the groups at each end",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nmode = \"ideal\"\ngroups = 3\nrobust = \"trimmed-mean\"\ntrim = 0.5",
        &["bad.toml:28:8: `secagg.trim`: found 0.5, expected a share above 0 and below 0.5"],
    ),
    fault(
        "ends of a median",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nmode = \"ideal\"\ngroups = 3\nrobust = \"median\"\ntrim = 0.1",
        &[
            "bad.toml:28:8: `secagg.trim`: is used with robust = \"trimmed-mean\" alone; remove it, or choose that",
        ],
    ),
    fault(
        "two groups",
        "cohort = 10",
        "cohort = 10\n\n[secagg]\nmode = \"off\"\ngroups = 5\nrobust = \"median\"",
        &[
            "bad.toml:26:10: `secagg.groups`: a round of 10 clients makes 2 groups of up to 5, and a robust mean needs at least 3; lower groups or select more clients",
        ],
    ),
    fault(
        "groups of a cohort that is drawn by a coin",
        "cohort = 10",
        "kind = \"poisson\"\nrate = 0.5\n\n[secagg]\nmode = \"ideal\"\ngroups = 3\nrobust = \"median\"",
        &[
            "bad.toml:27:10: `secagg.groups`: a round of 3 clients (three deviations below the mean) makes 1 groups of up to 3, and a robust mean needs at least 3; lower groups or select more clients",
        ],
    ),
    fault(
        "a robust mean of private updates",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\n\n[secagg]\nmode = \"ideal\"\ngroups = 3\nrobust = \"median\"",
        &[
            "bad.toml:34:10: `secagg.robust`: a robust mean of groups cannot be had with differential privacy of clients: every group's sum is seen, and one client moves the mean of its group further than the mean of all that the noise is made for; leave robust out, or use privacy.kind = \"example\", whose updates are private by themselves",
        ],
    ),
    fault(
        "two shares of clients that work for the server",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\ncolluding_share = 0.2\n\n[secagg]\nmode = \"ideal\"\ncorrupt = 0.1",
        &[
            "bad.toml:34:11: `secagg.corrupt`: a share of corrupt clients below privacy.colluding_share cannot be had with privacy.kind = \"distributed\": both speak of the clients that work for the server, and noise that is made against more of them than the masks are is no promise; raise secagg.corrupt to it, or leave secagg.corrupt out",
        ],
    ),
    fault(
        "bits and a range that are none",
        "cohort = 10",
        "cohort = 10\n\n[aggregation]\nbits = 1\nrange = -1",
        &[
            "bad.toml:25:8: `aggregation.bits`: found 1, expected a whole number from 2 to 64",
            "bad.toml:26:9: `aggregation.range`: found -1, expected a number from 1e-12 to 1e12",
        ],
    ),
    fault(
        "too few bits",
        "cohort = 10",
        "cohort = 10\n\n[aggregation]\nbits = 12",
        &[
            "bad.toml:25:8: `aggregation.bits`: sums of updates of range 64 with weights up to 720 do not fit into 12 bits, of which they need at least 17; lower the range or the weights, or give more bits",
        ],
    ),
    fault(
        "bits of a ring that noise needs",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\n\n[aggregation]\nbits = 20",
        &[
            "bad.toml:32:8: `aggregation.bits`: a range or bits of the sum cannot be had with noise that clients add: the ring has to hold that noise, and the privacy plan says how wide it is; leave them out; with privacy.kind = \"distributed\" choose privacy.bits",
        ],
    ),
];
