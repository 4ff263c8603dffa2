//! A run's privacy in words, from what was recorded alone.

use fl_privacy::NeighboringRelation;
use fl_privacy::plan::TrustModel;

use crate::results::{PrivacyRow, VariantResults};

/// What a private run guarantees, to whom, and what not: a sentence for each fact. Empty without
/// privacy.
pub(super) fn statement(variant: &VariantResults) -> Vec<String> {
    let Some(last) = variant.privacy.last() else {
        return Vec::new();
    };
    let config = Table(variant.manifest.config.get("privacy"));
    let selection = Table(variant.manifest.config.get("selection"));
    let kind = config.text("kind").unwrap_or("central");
    if !last.budgeted().is_finite() {
        let what = if kind == "example" {
            "gradients"
        } else {
            "updates"
        };
        return vec![format!(
            "NO differential privacy that can be stated: {what} are clipped, and the noise is none or too small"
        )];
    }
    let unit = config.text("unit").unwrap_or("client");
    let relation = match config.text("relation") {
        Some(relation) => relation.to_owned(),
        None => natural_relation(kind, selection.text("kind")).to_string(),
    };
    let accountant = config.text("accountant");
    let accountant = accountant.map_or_else(String::new, |name| format!("; {name} accountant"));
    let guarantee = |epsilon: f64| {
        let delta = last.delta;
        format!("({epsilon:.4}, {delta:e})-differential privacy per {unit} ({relation})")
    };
    let rounds = variant.privacy.len();
    let lower = match last.epsilon_lower > 0.0 {
        true => format!(", provably not below {:.4}", last.epsilon_lower),
        false => String::new(),
    };
    let mut told = match last.is_servers() {
        true => vec![
            format!(
                "against the server: {} after {rounds} rounds{accountant}",
                guarantee(last.epsilon_unamplified)
            ),
            format!("released models: epsilon {:.4}{lower}", last.epsilon),
        ],
        false => vec![
            format!(
                "{} after {rounds} rounds{accountant}{lower}",
                guarantee(last.epsilon)
            ),
            format!(
                "for whoever sees who takes part: epsilon {:.4}",
                last.epsilon_unamplified
            ),
        ],
    };
    if last.is_hypothetical() {
        let of = |key| {
            config
                .number(key)
                .map_or_else(String::new, |n| format!(" {n}"))
        };
        told.push(format!(
            "HYPOTHETICAL: holds for a deployment of{} clients and cohorts of{}, whose noise was simulated; not for the {} clients of this run",
            of("extrapolated_population"),
            of("extrapolated_cohort"),
            variant.manifest.dataset.clients
        ));
    }
    told.push(noise(last, kind, &config));
    told.push(format!(
        "selection: {}, of {} clients",
        selection.words(),
        variant.manifest.dataset.clients
    ));
    if let Some(epsilon) = config.number("epsilon") {
        told.push(format!("budget: epsilon {epsilon}"));
    }
    let given_up = variant.privacy.iter().filter(|row| row.released == 0);
    match given_up.count() {
        0 => {}
        count => told.push(format!(
            "{count} of the {rounds} rounds released nothing, because too few reported for their noise"
        )),
    }
    let trust = match kind {
        "local" => TrustModel::Local,
        "distributed" => TrustModel::Distributed,
        "example" => TrustModel::Device,
        _ => TrustModel::Central,
    };
    told.push(format!("trust: {}", trust.assumption()));
    told.push(format!("not covered: {}", trust.excluded().join("; ")));
    told
}

fn noise(last: &PrivacyRow, kind: &str, config: &Table<'_>) -> String {
    let (of, clipped) = match kind {
        "example" => ("a step's sum of gradients", "gradients are"),
        _ => ("the sum of updates", "updates are"),
    };
    let law = config.text("mechanism").unwrap_or("gaussian");
    format!(
        "noise ({law}): standard deviation {:.4e} on each value of {of}; {clipped} clipped to norm {} ({})",
        last.noise_std,
        last.max_norm,
        config.text("clipping").unwrap_or("flat")
    )
}

/// The relation of a run that names none: a client's own noise is made for replacing one, or for a
/// single example; central noise for what the selection's size allows, as in
/// [`fl_privacy::plan::natural_relation`].
fn natural_relation(kind: &str, selection: Option<&str>) -> NeighboringRelation {
    match (kind, selection) {
        ("example", _) => NeighboringRelation::ReplaceSpecial,
        ("local" | "distributed", _) => NeighboringRelation::ReplaceOne,
        (_, Some("poisson" | "cyclic")) => NeighboringRelation::AddOrRemoveOne,
        (_, _) => NeighboringRelation::ReplaceOne,
    }
}

/// A table of a configuration.
struct Table<'a>(Option<&'a toml::Value>);

impl<'a> Table<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0?.get(key)?.as_str()
    }

    /// As it is written.
    fn number(&self, key: &str) -> Option<String> {
        let value = self.0?.get(key)?;
        (value.is_float() || value.is_integer()).then(|| value.to_string())
    }

    /// Its kind, then its other keys with their values.
    fn words(&self) -> String {
        let kind = self.text("kind").unwrap_or("uniform").to_owned();
        let table = self.0.and_then(toml::Value::as_table);
        let others = table
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != "kind");
        let others = others.map(|(key, value)| format!("{} {value}", key.replace('_', " ")));
        [kind]
            .into_iter()
            .chain(others)
            .collect::<Vec<_>>()
            .join(", ")
    }
}
