//! Two runs side by side: how their configurations differ, what came out, and where their records
//! part.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use crate::results::{self, Difference, EvaluationRow, Results, Summary, VariantResults};

/// Two results side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The first results.
    pub a: PathBuf,
    /// The second results.
    pub b: PathBuf,
    /// Variants of the same name, or the only ones of both.
    pub pairs: Vec<Pair>,
    /// Variants that only the first results have.
    pub only_a: Vec<String>,
    /// Variants that only the second results have.
    pub only_b: Vec<String>,
}

/// Two variants side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// The figures of the first.
    pub a: Summary,
    /// The figures of the second.
    pub b: Summary,
    /// Every key of the configuration whose values differ.
    pub config: Vec<KeyDifference>,
    /// Whether data and partition are the same, byte by byte.
    pub same_data: bool,
    /// Whether the final models are the same, bit by bit; none when one is not finished.
    pub same_model: Option<bool>,
    /// Where the records part; none when all that both have is the same.
    pub first_difference: Option<Difference>,
    /// The accuracy for the rounds below.
    pub target_accuracy: Option<f64>,
    /// Rounds until the first evaluation with at least the target accuracy: in the first and in
    /// the second.
    pub rounds_to_target: [Option<u64>; 2],
}

/// A key whose values differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyDifference {
    /// Its path, e.g. `strategy.mu`.
    pub key: String,
    /// Its value in the first configuration, as TOML, where it is there.
    pub a: Option<String>,
    /// Its value in the second configuration, as TOML, where it is there.
    pub b: Option<String>,
}

/// Sets two results side by side. Without `target`, the rounds are those to the accuracy that both
/// reach, to a tenth of a per cent.
#[must_use]
pub fn compare(a: &Results, b: &Results, target: Option<f64>) -> Comparison {
    let paired: Vec<(&VariantResults, &VariantResults)> =
        match (a.variants.as_slice(), b.variants.as_slice()) {
            ([first], [second]) => vec![(first, second)],
            _ => a
                .variants
                .iter()
                .filter_map(|first| Some((first, b.variant(&first.manifest.name)?)))
                .collect(),
        };
    let only = |results: &Results, taken: Vec<&str>| {
        let mut names = results.names();
        names.retain(|name| !taken.contains(&name.as_str()));
        names
    };
    let taken = |pick: fn(&(&VariantResults, &VariantResults)) -> String| {
        paired.iter().map(pick).collect::<Vec<_>>()
    };
    let first = taken(|pair| pair.0.manifest.name.clone());
    let second = taken(|pair| pair.1.manifest.name.clone());
    Comparison {
        a: a.path.clone(),
        b: b.path.clone(),
        only_a: only(a, first.iter().map(String::as_str).collect()),
        only_b: only(b, second.iter().map(String::as_str).collect()),
        pairs: paired
            .into_iter()
            .map(|(a, b)| pair(a, b, target))
            .collect(),
    }
}

fn pair(a: &VariantResults, b: &VariantResults, target: Option<f64>) -> Pair {
    let target_accuracy = target.or_else(|| {
        let both = best_accuracy(a)?.min(best_accuracy(b)?);
        Some((both * 1000.0).floor() / 1000.0)
    });
    let reached = |variant: &VariantResults| {
        let target = target_accuracy?;
        let mut rows = variant.evaluations.iter();
        rows.find(|row| accuracy(row).is_some_and(|accuracy| accuracy >= target))
            .map(|row| row.round)
    };
    let digests = (&a.manifest.model_digest, &b.manifest.model_digest);
    Pair {
        a: a.summary(),
        b: b.summary(),
        config: config_differences(&a.manifest.config, &b.manifest.config),
        same_data: a.manifest.dataset.digest == b.manifest.dataset.digest,
        same_model: match digests {
            (Some(a), Some(b)) => Some(a == b),
            _ => None,
        },
        first_difference: first_difference(a, b),
        target_accuracy,
        rounds_to_target: [reached(a), reached(b)],
    }
}

fn accuracy(row: &EvaluationRow) -> Option<f64> {
    row.test_accuracy.or(row.train_accuracy)
}

fn best_accuracy(variant: &VariantResults) -> Option<f64> {
    variant
        .evaluations
        .iter()
        .filter_map(accuracy)
        .max_by(f64::total_cmp)
}

/// The earlier of the first differences of rounds and evaluations, then that of the
/// clients, then that of privacy.
fn first_difference(a: &VariantResults, b: &VariantResults) -> Option<Difference> {
    let rounds = results::of_tables(&a.rounds, &b.rounds);
    // A round that made a model comes before the evaluation of that model.
    let evaluations = results::of_tables(&a.evaluations, &b.evaluations);
    match (rounds, evaluations) {
        (Some(round), Some(evaluation)) => {
            let made = round.round.map(|round| round + 1);
            Some(if made <= evaluation.round {
                round
            } else {
                evaluation
            })
        }
        (round, evaluation) => round
            .or(evaluation)
            .or_else(|| results::of_tables(&a.clients, &b.clients))
            .or_else(|| results::of_tables(&a.privacy, &b.privacy))
            .or_else(|| results::of_tables(&a.groups, &b.groups))
            .or_else(|| results::of_tables(&a.patches, &b.patches))
            .or_else(|| results::of_tables(&a.pruning, &b.pruning))
            .or_else(|| results::of_tables(&a.fleet, &b.fleet))
            .or_else(|| results::of_tables(&a.timeline, &b.timeline))
            .or_else(|| results::of_tables(&a.secagg, &b.secagg))
            .or_else(|| results::of_tables(&a.regions, &b.regions))
            .or_else(|| results::of_tables(&a.faults, &b.faults))
            .or_else(|| results::of_tables(&a.rollout, &b.rollout)),
    }
}

/// Every key whose values differ, in alphabetical order.
fn config_differences(a: &toml::Table, b: &toml::Table) -> Vec<KeyDifference> {
    let (mut a, mut b) = (flat(a), flat(b));
    let mut keys: Vec<String> = a.keys().chain(b.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| KeyDifference {
            a: a.remove(&key),
            b: b.remove(&key),
            key,
        })
        .filter(|difference| difference.a != difference.b)
        .collect()
}

/// Every key of a configuration by its path, with its value as TOML.
pub(crate) fn flat(config: &toml::Table) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for (key, value) in config {
        flatten(key, value, &mut keys);
    }
    keys
}

fn flatten(path: &str, value: &toml::Value, keys: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                flatten(&format!("{path}.{key}"), value, keys);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{path}.{index}"), item, keys);
            }
        }
        plain => {
            keys.insert(path.to_owned(), plain.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{self, blank};
    use crate::results::RoundRow;

    fn variant(name: &str, config: &str, accuracies: &[f64]) -> VariantResults {
        let mut made = made_up::variant(name, config);
        made.manifest.model_digest = Some(format!("{accuracies:?}"));
        for (round, &accuracy) in (0..).zip(accuracies) {
            made.rounds.push(RoundRow {
                round,
                train_loss: Some(accuracy),
                ..blank()
            });
            made.evaluations.push(EvaluationRow {
                round: round + 1,
                test_accuracy: Some(accuracy),
                ..blank()
            });
        }
        made
    }

    fn results(variants: Vec<VariantResults>) -> Results {
        made_up::results("", "x", variants)
    }

    #[test]
    fn only_variants_of_both_are_compared() {
        let a = results(vec![variant("x", "", &[0.5]), variant("y", "", &[0.5])]);
        let b = results(vec![variant("y", "", &[0.5]), variant("z", "", &[0.5])]);
        let found = compare(&a, &b, None);
        assert_eq!(found.pairs.len(), 1);
        assert_eq!(found.pairs[0].a.name, "y");
        assert_eq!(found.pairs[0].same_model, Some(true));
        assert_eq!(found.pairs[0].first_difference, None);
        assert_eq!(
            (found.only_a, found.only_b),
            (vec!["x".into()], vec!["z".into()])
        );
        // Single variants are compared whatever their names.
        let one = results(vec![variant("x", "", &[0.5])]);
        let other = results(vec![variant("z", "", &[0.5])]);
        assert_eq!(compare(&one, &other, None).pairs.len(), 1);
    }

    #[test]
    fn differences_and_rounds_to_the_target_are_found() {
        let a = variant(
            "x",
            "seed = 1\n[strategy]\nkind = \"fedavg\"\n",
            &[0.2, 0.7, 0.8],
        );
        let b = variant(
            "x",
            "seed = 1\n[strategy]\nkind = \"fedprox\"\nmu = 0.1\n",
            &[0.2, 0.6, 0.7512, 0.9],
        );
        let found = pair(&a, &b, None);
        assert_eq!(found.target_accuracy, Some(0.8));
        assert_eq!(found.rounds_to_target, [Some(3), Some(4)]);
        assert_eq!(pair(&a, &b, Some(0.85)).rounds_to_target, [None, Some(4)]);
        assert_eq!(found.same_model, Some(false));
        let keys: Vec<_> = found
            .config
            .iter()
            .map(|key| (key.key.as_str(), key.a.as_deref(), key.b.as_deref()))
            .collect();
        assert_eq!(
            keys,
            [
                ("strategy.kind", Some("\"fedavg\""), Some("\"fedprox\"")),
                ("strategy.mu", None, Some("0.1")),
            ]
        );
        let difference = found.first_difference.unwrap();
        assert_eq!(
            (
                difference.table.as_str(),
                difference.round,
                difference.column.as_str()
            ),
            ("rounds", Some(1), "train_loss")
        );
    }
}
