//! Faults of `[model]`.

use super::{Case, fault};

pub(crate) const CASES: &[Case] = &[
    fault(
        "a list of models",
        "[model]\nkind = \"logreg\"",
        "[[model]]\nkind = \"logreg\"",
        &[
            "bad.toml:9:1: `model`: found a list, expected a model: a table with `kind`, or with [[layer]] tables",
        ],
    ),
    fault(
        "an unknown model",
        r#"kind = "logreg""#,
        r#"kind = "logregg""#,
        &[r#"bad.toml:10:8: `model.kind`: "logregg" is not known; did you mean `logreg`?"#],
    ),
    fault(
        "a model without kind or layers",
        r#"kind = "logreg""#,
        "",
        &[
            r#"bad.toml:9:1: `model.kind`: missing; add for example kind = "logreg" (one of layers, logreg, mlp-2nn, cnn-fedavg, cnn-pfl, resnet8-gn, mlp, mobilenet-v2, lstm-shakespeare, transformer), or [[model.layer]] tables"#,
        ],
    ),
    fault(
        "a model of text's option of the wrong type",
        r#"kind = "logreg""#,
        "kind = \"lstm-shakespeare\"\nunits = \"many\"",
        &[r#"bad.toml:11:9: `model.units`: found the string "many", expected a list"#],
    ),
    fault(
        "a misspelt key of a layer",
        r#"kind = "logreg""#,
        r#"layer = [{ kind = "dense", unit = 10 }]"#,
        &["bad.toml:10:28: `model.layer.0.unit`: unknown key; did you mean `units`?"],
    ),
    fault(
        "an unknown layer",
        r#"kind = "logreg""#,
        r#"layer = [{ kind = "dens" }]"#,
        &[r#"bad.toml:10:10: `model.layer.0`: "dens" is not known; did you mean `dense`?"#],
    ),
    fault(
        "a model's option of the wrong type",
        r#"kind = "logreg""#,
        "kind = \"mlp-2nn\"\nhidden = \"big\"",
        &[r#"bad.toml:11:10: `model.hidden`: found the string "big", expected a list"#],
    ),
];
