//! `[evaluation]`: how often the global model is measured, and on what.

use fl_sim::{CalibrationConfig, EvaluationConfig, PerClient};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::calibration::{self, CalibrationTable};
use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::{Key, Node, Table, Value};

/// How often the global model is measured, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationTable {
    /// Rounds between two evaluations, at least 1. The last round is always evaluated.
    #[schemars(range(min = 1))]
    pub every: u64,
    /// Whether the initial model is evaluated too.
    pub initial: bool,
    /// Whether the loss over the clients' training examples is measured.
    pub train: bool,
    /// When the model is measured on single clients: "never", "last" (when the run ends) or
    /// "each" (at every evaluation).
    pub per_client: PerClientName,
    /// Of a larger population, a sample of so many clients stands for all of them in `train` and
    /// `per_client`; at least 1.
    #[schemars(range(min = 1))]
    pub max_clients: u64,
    /// Of a larger test set, a sample of so many examples, drawn once for the whole run, stands for
    /// all; at least 1, and all of them when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_examples: Option<u64>,
    /// Arithmetics in which the global model is measured on the test set: "f32" always, and "int8"
    /// for the model as a device serves it. After `local.precision = "qat-int8"` the int8 model
    /// has the ranges that were trained; else it is calibrated, as `calibration` says.
    #[schemars(extend("items" = { "enum": ["f32", "int8"] }))]
    pub precisions: Vec<MeasuredPrecision>,
    /// Whether the file of the int8 model is weighed at each evaluation, and the patch that a device
    /// downloads that has the one evaluated before; with `every = 1` from round to round.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub patches: bool,
    /// How the activation ranges of the int8 model are found where they are not trained: a table
    /// with `kind`, or only the kind as a string, "central" or "federated". Without it: on 256
    /// training examples in one place, by the smallest and the largest values.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "calibration::schema")]
    pub calibration: Option<CalibrationTable>,
}

/// Arithmetic in which a model is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MeasuredPrecision {
    /// 32-bit floating point.
    F32,
    /// 8-bit integers.
    Int8,
}

/// When the model is measured on single clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PerClientName {
    /// Never.
    Never,
    /// When the run ends.
    Last,
    /// At every evaluation.
    Each,
}

impl Default for EvaluationTable {
    fn default() -> Self {
        let EvaluationConfig {
            every,
            initial,
            train,
            per_client,
            max_clients,
            max_examples,
            int8: _,
            patches,
            calibration: _,
        } = EvaluationConfig::default();
        Self {
            every,
            initial,
            train,
            per_client: match per_client {
                PerClient::Never => PerClientName::Never,
                PerClient::Last => PerClientName::Last,
                PerClient::Each => PerClientName::Each,
            },
            max_clients,
            max_examples,
            precisions: vec![MeasuredPrecision::F32],
            patches,
            calibration: None,
        }
    }
}

impl EvaluationTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        let node = &named(node, "calibration");
        let mut table = decode::<Self>(node, "evaluation", errors)?;
        let check = Check::new(node, "evaluation", errors);
        let least = [
            ("every", Some(table.every)),
            ("max_clients", Some(table.max_clients)),
            ("max_examples", table.max_examples),
        ];
        for (key, value) in least {
            let value = value.unwrap_or(1);
            check.demand(key, value >= 1, &value, "a whole number of at least 1");
        }
        let times = |wanted| {
            table
                .precisions
                .iter()
                .filter(|&&one| one == wanted)
                .count()
        };
        let (f32s, int8s) = (
            times(MeasuredPrecision::F32),
            times(MeasuredPrecision::Int8),
        );
        if f32s != 1 || int8s > 1 {
            check.fault(
                "precisions",
                "must hold \"f32\" once and may hold \"int8\" once; write [\"f32\"] or [\"f32\", \"int8\"]",
            );
        }
        if table.patches && int8s == 0 {
            check.fault(
                "patches",
                "is about the model served in \"int8\", which evaluation.precisions does not hold; write precisions = [\"f32\", \"int8\"], or remove it",
            );
        }
        if let Some(calibration) = &mut table.calibration {
            if int8s == 0 {
                check.fault(
                    "calibration",
                    "is used for \"int8\" alone, which evaluation.precisions does not hold; write precisions = [\"f32\", \"int8\"], or remove it",
                );
            }
            calibration.finish(&check);
        }
        Some(table)
    }

    /// For the simulator.
    #[must_use]
    pub fn config(&self) -> EvaluationConfig {
        EvaluationConfig {
            every: self.every,
            initial: self.initial,
            train: self.train,
            per_client: match self.per_client {
                PerClientName::Never => PerClient::Never,
                PerClientName::Last => PerClient::Last,
                PerClientName::Each => PerClient::Each,
            },
            max_clients: self.max_clients,
            max_examples: self.max_examples,
            int8: self.precisions.contains(&MeasuredPrecision::Int8),
            patches: self.patches,
            calibration: match &self.calibration {
                Some(table) => table.config(),
                None => CalibrationConfig::default(),
            },
        }
    }
}

/// The table with the string at `key`, where there is one, as a table of only that `kind`.
fn named(node: &Node, key: &str) -> Node {
    let mut node = node.clone();
    let entries = node.table_mut().map(|table| table.entries.iter_mut());
    let entry = entries.and_then(|mut entries| entries.find(|(name, _)| name.name == key));
    if let Some((_, value)) = entry
        && let Value::String(_) = value.value
    {
        let place = value.place.clone();
        let name = Key {
            name: "kind".to_owned(),
            place: place.clone(),
        };
        let table = Table {
            entries: vec![(name, value.clone())],
        };
        *value = Node {
            place,
            value: Value::Table(table),
        };
    }
    node
}
