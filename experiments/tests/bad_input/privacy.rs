//! Faults of `[privacy]`, by itself and with the rest of the experiment.

use super::{Case, fault};

pub(crate) const CASES: &[Case] = &[
    fault(
        "keys of another kind of privacy",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"local\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nclipping = \"adaptive\"\nbits = 20\nextrapolated_population = 9\nextrapolated_cohort = 9",
        &[
            r#"bad.toml:29:12: `privacy.clipping`: found "adaptive", and clients that add noise themselves clip to one norm; choose "flat""#,
            r#"bad.toml:30:8: `privacy.bits`: is used with kind = "distributed" alone, and kind is "local"; remove it, or choose that kind"#,
            r#"bad.toml:31:27: `privacy.extrapolated_population`: is used with kind = "central" alone, and kind is "local"; remove it, or choose that kind"#,
            r#"bad.toml:32:23: `privacy.extrapolated_cohort`: is used with kind = "central" alone, and kind is "local"; remove it, or choose that kind"#,
        ],
    ),
    fault(
        "a key of clients' noise for a server's",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nobserver = \"server\"",
        &[
            r#"bad.toml:29:12: `privacy.observer`: is used with kind = "local" or "distributed" alone, and kind is "central"; remove it, or choose that kind"#,
        ],
    ),
    fault(
        "numbers of a ring out of their ranges",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nbits = 3\nleast_survivors = 0\ncolluding_share = 1\nrounding_bias = 1\nwrap_limit = 0.5\nmost_participations = 0",
        &[
            "bad.toml:29:8: `privacy.bits`: found 3, expected 4 to 62",
            "bad.toml:30:19: `privacy.least_survivors`: found 0, expected a share above 0 and at most 1",
            "bad.toml:31:19: `privacy.colluding_share`: found 1, expected a share from 0 to below 1",
            "bad.toml:32:17: `privacy.rounding_bias`: found 1, expected a number from 0 to below 1",
            "bad.toml:33:14: `privacy.wrap_limit`: found 0.5, expected a probability above 0 and at most 1e-3",
            "bad.toml:34:23: `privacy.most_participations`: found 0, expected at least 1",
        ],
    ),
    fault(
        "a ring that is too small",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nbits = 5",
        &[
            "bad.toml:30:8: `privacy.bits`: a ring of 5 bits has no room for the sum of 10 clients and the noise that epsilon 8 needs; give it at least 10 bits",
        ],
    ),
    fault(
        "a client more or less that brings noise",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nrelation = \"add-or-remove-one\"",
        &[
            "bad.toml:30:12: `privacy.relation`: adding or removing a client that brings its own noise is not possible under differential privacy, because its noise would come and go with it; use the relation `replace-special` or `replace-one`",
        ],
    ),
    fault(
        "more colluding clients than must report",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\ncolluding_share = 0.9",
        &[
            "bad.toml:30:19: `privacy.colluding_share`: the number of colluding clients of a round is 9; expected fewer than the reports of a round at least; lower colluding_share or raise least_survivors",
        ],
    ),
    fault(
        "privacy of nothing in particular",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"central\"",
        &[
            "bad.toml:24:1: `privacy.max_norm`: missing; give the norm that updates are clipped to, such as max_norm = 1.0",
            "bad.toml:24:1: `privacy.delta`: missing; give a probability far below one over the number of clients, such as delta = 1e-5",
            "bad.toml:24:1: `privacy.epsilon`: missing; give the most that may be spent, such as epsilon = 8.0, or noise_multiplier, or both",
        ],
    ),
    fault(
        "numbers out of their ranges and keys of another clipping",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = -1\nepsilon = 0\ndelta = 1.5\nquantile = 0.5\nextrapolated_cohort = 9",
        &[
            "bad.toml:26:12: `privacy.max_norm`: found -1, expected a number from 1e-20 to 1e20",
            "bad.toml:27:11: `privacy.epsilon`: found 0, expected a number above 0",
            "bad.toml:28:9: `privacy.delta`: found 1.5, expected a number above 0 and below 1",
            r#"bad.toml:29:12: `privacy.quantile`: is used with clipping = "adaptive" alone, and clipping is "flat"; remove it, or choose that clipping"#,
            "bad.toml:30:23: `privacy.extrapolated_cohort`: is used together with extrapolated_population; give both or neither",
        ],
    ),
    fault(
        "an unknown key of privacy",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nnoise = 1",
        &[
            "bad.toml:29:1: `privacy.noise`: unknown key; expected one of kind, unit, clipping, max_norm, mechanism, restart_every, estimator, bands, buffers, epsilon, noise_multiplier, delta, accountant, relation, stability, quantile, norm_learning_rate, count_noise, extrapolated_population, extrapolated_cohort, observer, least_survivors, most_participations, colluding_share, bits, rounding_bias, wrap_limit",
        ],
    ),
    fault(
        "keys of another mechanism, and out of their ranges",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"blt\"\nbands = 0\nbuffers = 17\nrestart_every = 8\nestimator = \"node\"",
        &[
            "bad.toml:30:9: `privacy.bands`: found 0, expected a whole number from 1 to 4096",
            r#"bad.toml:30:9: `privacy.bands`: is used with mechanism = "banded-toeplitz" alone, and mechanism is "blt"; remove it, or choose that mechanism"#,
            "bad.toml:31:11: `privacy.buffers`: found 17, expected a whole number from 1 to 16",
            r#"bad.toml:32:17: `privacy.restart_every`: is used with mechanism = "tree" alone, and mechanism is "blt"; remove it, or choose that mechanism"#,
            r#"bad.toml:33:13: `privacy.estimator`: is used with mechanism = "tree" alone, and mechanism is "blt"; remove it, or choose that mechanism"#,
        ],
    ),
    fault(
        "a mechanism of another kind",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"distributed\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"tree\"",
        &[
            r#"bad.toml:29:13: `privacy.mechanism`: found "tree", which is not a mechanism of kind = "distributed"; choose "skellam" or "discrete-gaussian""#,
        ],
    ),
    fault(
        "correlated noise for cohorts that nothing keeps apart",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\nkind = \"uniform\"\ncohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"tree\"",
        &[
            "bad.toml:23:8: `selection.kind`: correlated noise with participants that are drawn anew in every round is not possible under differential privacy, because nothing bounds how often and how close together one of them takes part; use cyclic or separated selection, or independent noise",
        ],
    ),
    fault(
        "a norm that adapts under noise that is taken back",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\nkind = \"cyclic\"\nperiod = 2\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"tree\"\nclipping = \"adaptive\"",
        &[
            "bad.toml:32:12: `privacy.clipping`: an adaptive clipping norm with correlated noise is not possible under differential privacy, because noise that is taken back later must have been of the same norm; clip to a fixed norm",
        ],
    ),
    fault(
        "more bands than rounds",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\nkind = \"cyclic\"\nperiod = 2\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3\nmechanism = \"banded-toeplitz\"\nbands = 500",
        &[
            "bad.toml:32:9: `privacy.bands`: the number of bands is 500; expected from 1 to the number of rounds, and at most 4096",
        ],
    ),
    fault(
        "examples protected by nothing in particular",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"example\"",
        &[
            "bad.toml:24:1: `privacy.max_norm`: missing; give the norm that an example's gradient is clipped to, such as max_norm = 1.0",
            "bad.toml:24:1: `privacy.delta`: missing; give a probability far below one over the number of all examples, such as delta = 1e-6",
            "bad.toml:24:1: `privacy.epsilon`: missing; give the most that may be spent, such as epsilon = 8.0, or noise_multiplier, or both",
        ],
    ),
    fault(
        "keys of other kinds for examples",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"example\"\nunit = \"client\"\nclipping = \"adaptive\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-5\nrelation = \"replace-one\"\nextrapolated_population = 100\nextrapolated_cohort = 20",
        &[
            r#"bad.toml:26:8: `privacy.unit`: found "client", and kind = "example" protects single examples; remove it, or choose kind = "central""#,
            r#"bad.toml:27:12: `privacy.clipping`: found "adaptive", which follows updates and not gradients of examples; choose "flat", "per-layer" or "automatic""#,
            r#"bad.toml:31:12: `privacy.relation`: kind = "example" counts the number of a client's examples as public, which is "replace-special"; remove it"#,
            r#"bad.toml:32:27: `privacy.extrapolated_population`: is used with kind = "central" alone, and kind is "example"; remove it, or choose that kind"#,
            "bad.toml:33:23: `privacy.extrapolated_cohort`: is used with kind = \"central\" alone, and kind is \"example\"; remove it, or choose that kind",
        ],
    ),
    fault(
        "keys of examples for clients",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"central\"\nunit = \"example\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-5\nmost_participations = 3",
        &[
            r#"bad.toml:26:8: `privacy.unit`: found "example", which only kind = "example" protects; remove it, or choose that kind"#,
            r#"bad.toml:30:23: `privacy.most_participations`: is used with kind = "local", "distributed" or "example" alone, and kind is "central"; remove it, or choose that kind"#,
        ],
    ),
    fault(
        "a delta that publishes an example",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3",
        &[
            "bad.toml:28:9: `privacy.delta`: delta is 0.001, which is not below one over the 1437 protected examples; choose a delta well below 0.0006958942240779402",
        ],
    ),
    fault(
        "less noise for examples than one round needs",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 1\nnoise_multiplier = 0.1\ndelta = 1e-5",
        &[
            "bad.toml:28:20: `privacy.noise_multiplier`: event 1 (`self-composed of poisson-sampled of gaussian`) would overspend the privacy budget: spent epsilon 0, with it 309.6189, limit 1 at delta 0.00001; stop here, or start again with fewer rounds or a higher noise multiplier",
        ],
    ),
    fault(
        "examples by an accountant that cannot count them",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 1\naccountant = \"gaussian\"\ndelta = 1e-5",
        &[
            "bad.toml:28:14: `privacy.accountant`: the gaussian accountant has no proven bound for the event `poisson-sampled of gaussian` under the relation `replace-special`; it composes only Gaussian noise on all members; use the `pld` accountant",
        ],
    ),
    fault(
        "examples under quantization-aware training",
        "batch = 10\nlearning_rate = 0.1\n\n[strategy]",
        "batch = 10\nlearning_rate = 0.1\nprecision = \"qat-int8\"\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-5\n\n[strategy]",
        &[
            r#"bad.toml:16:13: `local.precision`: privacy.kind = "example" trains in "f32" alone: the ranges that "qat-int8" observes would be released without noise; choose "f32", or privacy.kind = "central""#,
        ],
    ),
    fault(
        "an order of examples that are drawn",
        "batch = 10\nlearning_rate = 0.1\n\n[strategy]",
        "batch = 10\nlearning_rate = 0.1\norder = \"stored\"\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-5\n\n[strategy]",
        &[
            r#"bad.toml:16:9: `local.order`: privacy.kind = "example" draws every batch at random, so that its examples have no order; remove local.order"#,
        ],
    ),
    fault(
        "examples under batch normalisation",
        "kind = \"logreg\"",
        "layer = [{ kind = \"flatten\" }, { kind = \"dense\", units = 8 }, { kind = \"batch-norm\" }, { kind = \"dense\" }]\n\n[privacy]\nkind = \"example\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-5",
        &[
            r#"bad.toml:9:1: `model`: privacy.kind = "example" needs gradients of single examples, and batch normalisation has none; choose a model with group normalisation, such as "resnet8-gn""#,
        ],
    ),
    fault(
        "weights by private counts",
        "cohort = 10",
        "cohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3",
        &[
            "bad.toml:17:1: `strategy`: weighting clients by their number of examples is not possible under differential privacy, because one client can count for any number of others; weigh uniformly or cap the weights",
        ],
    ),
    fault(
        "a delta that publishes somebody",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 0.05",
        &[
            "bad.toml:29:9: `privacy.delta`: delta is 0.05, which is not below one over the 20 protected clients; choose a delta well below 0.05",
        ],
    ),
    fault(
        "more clients asked than counted",
        "mu = 0.1\n\n[selection]\ncohort = 10",
        "mu = 0.1\nweighting = \"uniform\"\n\n[selection]\ncohort = 10\nover_select = 1.5\n\n[privacy]\nkind = \"central\"\nmax_norm = 1\nepsilon = 8\ndelta = 1e-3",
        &[
            "bad.toml:24:15: `selection.over_select`: asking more clients than are counted is not possible under differential privacy, because whether a client is counted then depends on how fast the others are; leave over_select at 1",
        ],
    ),
];
