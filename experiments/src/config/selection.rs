//! `[selection]`: who takes part in a round, from the registry of `fl-core`.
//!
//! `kind` may be left out and is then `uniform`. A `cohort` with a decimal point is a share of the
//! clients, which becomes a number once the data set is known.

use fl_core::select::{AnySelector, SelectorConfig};

use super::check::Check;
use super::de::{decode_registered, split_kind};
use super::diagnostic::Diagnostics;
use super::node::{Key, Node, Value};
use super::resolved::to_toml;

/// How the cohort of a round is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    config: SelectorConfig,
    share: Option<f64>,
}

impl Selection {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let path = "selection";
        let mut node = node.clone();
        if let Some(table) = node.table_mut()
            && table.get("kind").is_none()
        {
            let place = node.place.clone();
            let key = Key {
                name: "kind".to_owned(),
                place: place.clone(),
            };
            let kind = Node {
                place,
                value: Value::String("uniform".to_owned()),
            };
            if let Some(table) = node.table_mut() {
                table.set(key, kind);
            }
        }
        let mut share = None;
        if let Some(cohort) = node.table_mut().and_then(|table| {
            table
                .entries
                .iter_mut()
                .find(|(key, _)| key.name == "cohort")
        }) && let Value::Float(value) = cohort.1.value
        {
            if !(value > 0.0 && value <= 1.0) {
                Check::new(&node, path, errors).fault(
                    "cohort",
                    format!(
                        "found {value:?}, expected a whole number of clients, or a share of them above 0.0 and at most 1.0"
                    ),
                );
                return None;
            }
            share = Some(value);
            cohort.1.value = Value::Integer(1);
        }
        let kinds: Vec<_> = SelectorConfig::KINDS.iter().map(|info| info.kind).collect();
        let (kind, rest) = split_kind(&node, "kind", path, &kinds, errors)?;
        let config = decode_registered(
            &rest,
            path,
            errors,
            SelectorConfig::KINDS,
            kind,
            |decoder| SelectorConfig::from_kind(kind, decoder),
        )?;
        match AnySelector::from_config(config.clone()) {
            Ok(_) => Some(Self { config, share }),
            Err(error) => {
                Check::new(&node, path, errors).refused(&error);
                None
            }
        }
    }

    /// The selector's keys for a population; a share becomes `round(share * clients)`, at least 1.
    #[must_use]
    pub fn config(&self, clients: u64) -> SelectorConfig {
        let mut config = self.config.clone();
        if let Some(share) = self.share {
            let count = ((share * clients as f64).round() as u64).max(1);
            if let Some(cohort) = cohort_mut(&mut config) {
                *cohort = count;
            }
        }
        config
    }

    /// Clients whose reports complete a round, where that is a fixed number.
    #[must_use]
    pub fn cohort(&self, clients: u64) -> Option<u64> {
        cohort_mut(&mut self.config(clients)).copied()
    }

    /// Clients whose reports complete a round, in the mean where that is not a fixed number.
    #[must_use]
    pub fn expected_cohort(&self, clients: u64) -> f64 {
        match self.config(clients) {
            SelectorConfig::Poisson(keys) => keys.rate * clients as f64,
            SelectorConfig::Cyclic(keys) => keys.rate * clients as f64 / keys.period as f64,
            mut fixed => cohort_mut(&mut fixed).map_or(0.0, |cohort| *cohort as f64),
        }
    }

    /// What a population of `clients` cannot give, with the key that asks for it.
    pub(crate) fn refusal(&self, clients: u64) -> Option<(&'static str, String)> {
        let config = self.config(clients);
        if let Some(cohort) = self.cohort(clients).filter(|&cohort| cohort > clients) {
            return Some((
                "selection.cohort",
                format!(
                    "found {cohort}, and the data set has {clients} clients; lower cohort, or divide the data among more clients in dataset.partition"
                ),
            ));
        }
        match config {
            SelectorConfig::Cyclic(keys) if keys.period > clients => Some((
                "selection.period",
                format!(
                    "found {}, and the data set has {clients} clients, so some rounds would have nobody; lower period, or divide the data among more clients in dataset.partition",
                    keys.period
                ),
            )),
            SelectorConfig::Separated(keys)
                if keys.cohort.saturating_mul(keys.separation) > clients =>
            {
                Some((
                    "selection.separation",
                    format!(
                        "found {}, and with a cohort of {} the data set's {clients} clients cannot rest that long; expected at most {}",
                        keys.separation,
                        keys.cohort,
                        clients / keys.cohort
                    ),
                ))
            }
            _ => None,
        }
    }

    /// The table with all defaults written out.
    pub(crate) fn to_toml(&self) -> Option<toml::Value> {
        let mut value = to_toml(&self.config)?;
        if let (Some(share), Some(table)) = (self.share, value.as_table_mut()) {
            table.insert("cohort".to_owned(), share.into());
        }
        Some(value)
    }
}

fn cohort_mut(config: &mut SelectorConfig) -> Option<&mut u64> {
    match config {
        SelectorConfig::Uniform(keys) => Some(&mut keys.cohort),
        SelectorConfig::Weighted(keys) => Some(&mut keys.cohort),
        SelectorConfig::Separated(keys) => Some(&mut keys.cohort),
        SelectorConfig::Oort(keys) => Some(&mut keys.cohort),
        SelectorConfig::PowerOfChoice(keys) => Some(&mut keys.cohort),
        SelectorConfig::Fair(keys) => Some(&mut keys.cohort),
        SelectorConfig::Poisson(_) | SelectorConfig::Cyclic(_) => None,
    }
}
