//! Faults that show with the data: every key is right by itself.

use super::{Case, fault};

pub(crate) const CASES: &[Case] = &[
    fault(
        "more clients than pictures",
        r#"kind = "dirichlet", alpha = 0.3, clients = 20"#,
        r#"kind = "iid", clients = 1000000"#,
        &[
            "bad.toml:7:39: `dataset.partition.clients`: 1000000 clients cannot share 1437 examples; ask for at most 1437 clients",
        ],
    ),
    fault(
        "clients larger than the data allow",
        "clients = 20",
        "clients = 20, min_examples = 1000",
        &[
            "bad.toml:7:77: `dataset.partition.min_examples`: 20 clients of at least 1000 examples need 20000 examples and there are 1437; lower `min_examples` to at most 71, or ask for fewer clients",
        ],
    ),
    fault(
        "more labels than there are",
        r#"kind = "dirichlet", alpha = 0.3, clients = 20"#,
        r#"kind = "labels-per-client", labels = 11, clients = 20"#,
        &[
            "bad.toml:7:52: `dataset.partition.labels`: a client cannot hold 11 labels: the data have 10; lower `labels`",
        ],
    ),
    fault(
        "more shards than pictures",
        r#"kind = "dirichlet", alpha = 0.3, clients = 20"#,
        r#"kind = "shards", shards_per_client = 1000, clients = 20"#,
        &[
            "bad.toml:7:68: `dataset.partition.clients`: 20 clients of 1000 shards need 20000 shards and there are 1437 examples; lower `clients` or `shards_per_client`",
        ],
    ),
    fault(
        "natural clients where there are none",
        r#"partition = { kind = "dirichlet", alpha = 0.3, clients = 20 }"#,
        r#"partition = "natural""#,
        &[
            r#"bad.toml:7:13: `dataset.partition`: data set `digits` names no natural clients; choose another `partition`, e.g. { kind = "dirichlet", alpha = 0.3, clients = 100 }"#,
        ],
    ),
    fault(
        "more groups than clients",
        "cohort = 10",
        "kind = \"cyclic\"\nperiod = 21",
        &[
            "bad.toml:23:10: `selection.period`: found 21, and the data set has 20 clients, so some rounds would have nobody; lower period, or divide the data among more clients in dataset.partition",
        ],
    ),
    fault(
        "clients that rest longer than there are others",
        "cohort = 10",
        "kind = \"separated\"\ncohort = 0.25\nseparation = 5",
        &[
            "bad.toml:24:14: `selection.separation`: found 5, and with a cohort of 5 the data set's 20 clients cannot rest that long; expected at most 4",
        ],
    ),
    fault(
        "groups that take no turns",
        "cohort = 10",
        "kind = \"cyclic\"",
        &["bad.toml:21:1: `selection.period`: missing; add period = ... (whole number above 0)"],
    ),
    fault(
        "a cohort of more than all clients",
        "cohort = 10",
        "cohort = 21",
        &[
            "bad.toml:22:10: `selection.cohort`: found 21, and the data set has 20 clients; lower cohort, or divide the data among more clients in dataset.partition",
        ],
    ),
    fault(
        "a model for pictures where there are none",
        "name = \"digits\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }\n\n[model]\nkind = \"logreg\"",
        "name = \"adult\"\npartition = { kind = \"dirichlet\", alpha = 0.3, clients = 20 }\n\n[model]\nkind = \"cnn-fedavg\"",
        &[
            "bad.toml:10:8: `model.kind`: the model `cnn-fedavg` takes images [height, width, channels] and the data hold examples of shape [108]; choose a data set of larger images, or the model `logreg` or `mlp-2nn`",
        ],
    ),
    fault(
        "a model for text where there are pictures",
        r#"kind = "logreg""#,
        r#"kind = "lstm-shakespeare""#,
        &[
            "bad.toml:10:8: `model.kind`: the model `lstm-shakespeare` takes tokens and the data hold examples of shape [8, 8, 1]; choose a data set of text, or the model `logreg` or `mlp-2nn`",
        ],
    ),
    fault(
        "a recurrent layer over pictures",
        r#"kind = "logreg""#,
        r#"layer = [{ kind = "lstm", units = 8 }, { kind = "last" }, { kind = "dense" }]"#,
        &[
            "bad.toml:10:10: `model.layer.0`: layer 1 `lstm1`: it takes a sequence [length, features] and its input has shape [8, 8, 1]; put it behind an `embedding` layer, or choose a data set of sequences",
        ],
    ),
    fault(
        "a convolution larger than its input",
        r#"kind = "logreg""#,
        r#"layer = [{ kind = "conv2d", filters = 3, kernel = 9, padding = "valid" }, { kind = "flatten" }, { kind = "dense" }]"#,
        &[
            r#"bad.toml:10:10: `model.layer.0`: layer 1 `conv2d1`: kernel 9x9 does not fit the 8x8 input; use padding = "same" or a smaller kernel"#,
        ],
    ),
    fault(
        "a model that ends with the wrong size",
        r#"kind = "logreg""#,
        r#"layer = [{ kind = "flatten" }, { kind = "dense", units = 7 }]"#,
        &[
            "bad.toml:10:9: `model.layer`: the model ends with shape [7] and the loss `softmax-cross-entropy` needs 10 numbers; end with a dense layer without `units`, or with units = 10",
        ],
    ),
    fault(
        "a loss for another target",
        r#"kind = "logreg""#,
        "layer = [{ kind = \"flatten\" }, { kind = \"dense\" }]\nloss = \"mse\"",
        &[
            r#"bad.toml:11:8: `model.loss`: the loss `mse` does not fit a target of classes; use loss = "softmax-cross-entropy""#,
        ],
    ),
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
