//! Every combination of the axes' settings.

use crate::analysis::AxisValue;
use crate::config::diagnostic::{Diagnostic, Diagnostics};
use crate::config::merge;
use crate::config::node::Node;

use super::condition::{Condition, Verdict};
use super::dimension::{Choice, Dimension, SEED, VARIANT};
use super::value::{is_within, remove, shown};
use super::{MOST, SweepTable};

/// A choice on every axis.
pub(super) struct Combination {
    /// The place of the choice of each dimension.
    chosen: Vec<usize>,
    /// Keys that conditions leave out.
    without: Vec<String>,
}

/// All combinations that the conditions keep; the last axis changes fastest.
pub(super) fn combinations(
    table: &SweepTable,
    node: &Node,
    errors: &Diagnostics,
) -> Option<Vec<Combination>> {
    let total = table
        .dimensions
        .iter()
        .try_fold(1usize, |total, dimension| {
            let total = total.checked_mul(dimension.choices.len())?;
            (total <= MOST).then_some(total)
        });
    let Some(total) = total else {
        errors.add(Diagnostic::new(
            Some(node.place.clone()),
            "sweep",
            format!("the axes have more than {MOST} combinations; shorten them, or draw some with [sweep.random]"),
        ));
        return None;
    };
    let mut found = Vec::new();
    for number in 0..total {
        let mut rest = number;
        let mut chosen: Vec<usize> = table
            .dimensions
            .iter()
            .rev()
            .map(|dimension| {
                let choices = dimension.choices.len();
                let place = rest % choices;
                rest /= choices;
                place
            })
            .collect();
        chosen.reverse();
        let mut combination = Combination {
            chosen,
            without: Vec::new(),
        };
        let value = |key: &str| combination.value(table, key);
        match Condition::judge(&table.conditions, &value) {
            Verdict::Dropped => {}
            Verdict::Kept(without) => {
                combination.without = without;
                found.push(combination);
            }
        }
    }
    if found.is_empty() {
        errors.add(Diagnostic::new(
            Some(node.place.clone()),
            "sweep",
            "the conditions leave no cell; loosen one".to_owned(),
        ));
        return None;
    }
    Some(found)
}

impl Combination {
    fn choices<'a>(
        &'a self,
        table: &'a SweepTable,
    ) -> impl Iterator<Item = (&'a Dimension, &'a Choice)> + Clone {
        let pairs = table.dimensions.iter().zip(&self.chosen);
        pairs.filter_map(|(dimension, &place)| Some((dimension, dimension.choices.get(place)?)))
    }

    /// The value on an axis; whatever the conditions say.
    fn value(&self, table: &SweepTable, key: &str) -> Option<AxisValue> {
        self.choices(table).find_map(|(dimension, choice)| {
            let place = dimension.keys.iter().position(|it| it.name == key)?;
            choice.values.get(place).map(AxisValue::of)
        })
    }

    /// Whether a key that one axis sets is left out by a condition, or taken away by another axis.
    fn is_idle(&self, table: &SweepTable, number: usize, path: &str) -> bool {
        let left_out = self.without.iter().any(|key| is_within(path, key));
        left_out
            || self
                .choices(table)
                .enumerate()
                .any(|(other, (_, choice))| other != number && choice.takes_away(path))
    }

    /// Lays the variant, then the `--set` arguments, then the other axes over an experiment. An axis
    /// that takes something away wins over those that set something in it.
    pub(super) fn apply(&self, table: &SweepTable, tree: &mut Node, sets: &[&Node]) {
        let is_variant =
            |dimension: &Dimension| dimension.keys.first().is_some_and(|it| it.name == VARIANT);
        for (dimension, choice) in self.choices(table) {
            if is_variant(dimension) {
                for set in &choice.sets {
                    merge::overlay(tree, &set.overlay);
                }
            }
        }
        for set in sets {
            merge::overlay(tree, set);
        }
        for (number, (dimension, choice)) in self.choices(table).enumerate() {
            if is_variant(dimension) {
                continue;
            }
            for path in &choice.removes {
                remove(tree, path);
            }
            for set in &choice.sets {
                if !self.is_idle(table, number, &set.path) {
                    merge::overlay(tree, &set.overlay);
                }
            }
        }
    }

    /// The value on each axis but the seed; of keys that are not set, none.
    pub(super) fn values(&self, table: &SweepTable) -> toml::Table {
        let mut values = toml::Table::new();
        for (number, (dimension, choice)) in self.choices(table).enumerate() {
            for (key, value) in dimension.keys.iter().zip(&choice.values) {
                if key.name != SEED && !self.is_idle(table, number, &key.name) {
                    values.insert(key.name.clone(), value.clone());
                }
            }
        }
        values
    }

    /// The values in a line, for messages.
    pub(super) fn label(&self, table: &SweepTable) -> String {
        let parts: Vec<String> = self
            .choices(table)
            .flat_map(|(dimension, choice)| dimension.keys.iter().zip(&choice.values))
            .map(|(key, value)| format!("{}={}", key.name, shown(value)))
            .collect();
        parts.join(", ")
    }
}
