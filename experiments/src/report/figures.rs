//! The plots of the page: which quantities of which table, and how they are called.

use serde::Serialize;

use super::Run;
use crate::results::{RoundRow, SecAggRow, TimingRow, VariantResults};

/// A plot. Each of its quantities is drawn by itself, one series for each run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    /// The end of its address within the page.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// How it is drawn.
    pub(super) kind: Kind,
    /// What must be known to read it, in a sentence.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) note: &'static str,
    pub(super) quantities: Vec<Quantity>,
}

/// How a figure is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Over rounds, or what was spent.
    Curves,
    /// Final accuracy against epsilon.
    Tradeoff,
    /// Clients by their accuracy.
    Clients,
}

/// What the values of a quantity are, which decides how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Unit {
    /// A share; written in per cent.
    Share,
    /// A plain number.
    Number,
    /// A whole number.
    Count,
    Seconds,
    Bytes,
    Joules,
    Celsius,
}

/// One quantity of a table.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Quantity {
    /// Its column in the page's data.
    pub(super) id: &'static str,
    pub(super) label: &'static str,
    pub(super) unit: Unit,
    /// The table that it is a column of.
    pub(super) table: &'static str,
    /// A value, or none, for each row of the table.
    #[serde(skip)]
    pub(super) of: fn(&VariantResults) -> Vec<Option<f64>>,
}

/// A table of a run: by its name, and the rounds done at each of its rows.
pub(super) struct Source {
    pub(super) table: &'static str,
    pub(super) rounds: fn(&VariantResults) -> Vec<u64>,
}

/// A column by its expression.
macro_rules! each {
    ($rows:ident, $row:ident => $value:expr) => {
        |variant| variant.$rows.iter().map(|$row| $value).collect()
    };
}

/// Every table that is drawn.
pub(super) const SOURCES: [Source; 8] = [
    Source {
        table: "evaluation",
        rounds: each!(evaluations, row => row.round),
    },
    Source {
        table: "rounds",
        rounds: each!(rounds, row => row.round + 1),
    },
    Source {
        table: "privacy",
        rounds: each!(privacy, row => row.round + 1),
    },
    Source {
        table: "fleet",
        rounds: each!(fleet, row => row.round + 1),
    },
    Source {
        table: "secagg",
        rounds: each!(secagg, row => row.round + 1),
    },
    Source {
        table: "pruning",
        rounds: each!(pruning, row => row.round + 1),
    },
    Source {
        table: "patches",
        rounds: each!(patches, row => row.round),
    },
    Source {
        table: "timing",
        rounds: |variant| timed(variant).map(|row| row.round + 1).collect(),
    },
];

fn timed(variant: &VariantResults) -> impl Iterator<Item = &TimingRow> {
    variant.timing.iter().filter(|row| row.what == "round")
}

/// A part of a whole; none of nothing.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

const EVALUATION: &str = "evaluation";
const ROUNDS: &str = "rounds";
const FLEET: &str = "fleet";
const SECAGG: &str = "secagg";

type Row = (
    &'static str,
    &'static str,
    Unit,
    &'static str,
    fn(&VariantResults) -> Vec<Option<f64>>,
);

const ACCURACY: &[Row] = &[
    (
        "test_accuracy",
        "Test accuracy",
        Unit::Share,
        EVALUATION,
        each!(evaluations, row => row.test_accuracy),
    ),
    (
        "test_accuracy_int8",
        "Test accuracy in int8",
        Unit::Share,
        EVALUATION,
        each!(evaluations, row => row.test_accuracy_int8),
    ),
    (
        "train_accuracy",
        "Training accuracy",
        Unit::Share,
        EVALUATION,
        each!(evaluations, row => row.train_accuracy),
    ),
];

const LOSS: &[Row] = &[
    (
        "test_loss",
        "Test loss",
        Unit::Number,
        EVALUATION,
        each!(evaluations, row => row.test_loss),
    ),
    (
        "test_loss_int8",
        "Test loss in int8",
        Unit::Number,
        EVALUATION,
        each!(evaluations, row => row.test_loss_int8),
    ),
    (
        "train_loss",
        "Training loss of the global model",
        Unit::Number,
        EVALUATION,
        each!(evaluations, row => row.train_loss),
    ),
    (
        "cohort_loss",
        "Training loss seen by the cohort",
        Unit::Number,
        ROUNDS,
        each!(rounds, row => row.train_loss),
    ),
    (
        "update_norm",
        "Norm of the update",
        Unit::Number,
        ROUNDS,
        each!(rounds, row => Some(row.update_norm)),
    ),
];

const PRIVACY: &[Row] = &[
    (
        "epsilon",
        "Epsilon that the budget is about",
        Unit::Number,
        "privacy",
        each!(privacy, row => Some(row.budgeted())),
    ),
    (
        "epsilon_unamplified",
        "Epsilon for whoever sees who takes part",
        Unit::Number,
        "privacy",
        each!(privacy, row => Some(row.epsilon_unamplified)),
    ),
    (
        "noise_std",
        "Noise on a value of the sum",
        Unit::Number,
        "privacy",
        each!(privacy, row => Some(row.noise_std)),
    ),
    (
        "max_norm",
        "Clipping norm",
        Unit::Number,
        "privacy",
        each!(privacy, row => Some(row.max_norm)),
    ),
];

const DROPOUTS: &[Row] = &[
    (
        "missing",
        "Cohort that is not in the sum",
        Unit::Share,
        ROUNDS,
        each!(rounds, row => share(row.cohort.saturating_sub(row.reported), row.cohort)),
    ),
    (
        "dropped",
        "Clients that vanished or were too slow",
        Unit::Share,
        ROUNDS,
        each!(rounds, row => share(row.dropped, row.cohort)),
    ),
    (
        "stragglers",
        "Slow clients",
        Unit::Share,
        ROUNDS,
        each!(rounds, row => share(row.stragglers, row.cohort)),
    ),
    (
        "rejected",
        "Refused updates",
        Unit::Share,
        ROUNDS,
        each!(rounds, row => share(row.rejected, row.cohort)),
    ),
    (
        "left",
        "Devices that left",
        Unit::Share,
        FLEET,
        each!(fleet, row => share(row.left_downloading + row.left_training + row.left_uploading, row.called)),
    ),
    (
        "late",
        "Devices still at work at the deadline",
        Unit::Share,
        FLEET,
        each!(fleet, row => share(row.late, row.called)),
    ),
    (
        "surplus",
        "Devices that were not needed",
        Unit::Share,
        FLEET,
        each!(fleet, row => share(row.surplus, row.called)),
    ),
    (
        "lost",
        "Updates lost on the way",
        Unit::Share,
        FLEET,
        each!(fleet, row => share(row.lost, row.called)),
    ),
    (
        "eligible",
        "Eligible, of the devices asked",
        Unit::Share,
        FLEET,
        each!(fleet, row => share(row.eligible, row.asked)),
    ),
    (
        "staleness",
        "Mean staleness, versions",
        Unit::Number,
        FLEET,
        each!(fleet, row => Some(row.staleness_mean)),
    ),
];

const TIMING: &[Row] = &[
    (
        "round_seconds",
        "Virtual duration of a round",
        Unit::Seconds,
        FLEET,
        each!(fleet, row => Some(row.ended_seconds - row.started_seconds)),
    ),
    (
        "seconds_median",
        "Client, median from call to report",
        Unit::Seconds,
        FLEET,
        each!(fleet, row => row.seconds_median),
    ),
    (
        "seconds_p90",
        "Client, 90th percentile",
        Unit::Seconds,
        FLEET,
        each!(fleet, row => row.seconds_p90),
    ),
    (
        "download_seconds",
        "Mean download",
        Unit::Seconds,
        FLEET,
        each!(fleet, row => row.download_seconds),
    ),
    (
        "training_seconds",
        "Mean training",
        Unit::Seconds,
        FLEET,
        each!(fleet, row => row.training_seconds),
    ),
    (
        "upload_seconds",
        "Mean upload",
        Unit::Seconds,
        FLEET,
        each!(fleet, row => row.upload_seconds),
    ),
    (
        "waiting_seconds",
        "Mean wait for the round's end",
        Unit::Seconds,
        FLEET,
        each!(fleet, row => row.waiting_seconds),
    ),
    (
        "celsius_mean",
        "Mean temperature after training",
        Unit::Celsius,
        FLEET,
        each!(fleet, row => row.celsius_mean),
    ),
    (
        "wall_seconds",
        "Wall-clock time of a round",
        Unit::Seconds,
        "timing",
        |variant| timed(variant).map(|row| Some(row.seconds)).collect(),
    ),
];

const COSTS: &[Row] = &[
    (
        "bytes",
        "Bytes of a round, both ways",
        Unit::Bytes,
        ROUNDS,
        each!(rounds, row => Some(both_ways(row))),
    ),
    (
        "bytes_down",
        "Bytes sent to clients",
        Unit::Bytes,
        ROUNDS,
        each!(rounds, row => Some(row.bytes_down as f64)),
    ),
    (
        "bytes_up",
        "Bytes sent by clients",
        Unit::Bytes,
        ROUNDS,
        each!(rounds, row => Some(row.bytes_up as f64)),
    ),
    (
        "bytes_wasted",
        "Bytes moved for nothing",
        Unit::Bytes,
        FLEET,
        each!(fleet, row => Some(row.bytes_wasted as f64)),
    ),
    (
        "joules",
        "Energy of a round on devices",
        Unit::Joules,
        FLEET,
        each!(fleet, row => row.joules),
    ),
    (
        "joules_wasted",
        "Energy for updates that did not count",
        Unit::Joules,
        FLEET,
        each!(fleet, row => row.joules_wasted),
    ),
    (
        "patch_bytes",
        "Patch between int8 models",
        Unit::Bytes,
        "patches",
        each!(patches, row => Some(row.patch_bytes as f64)),
    ),
    (
        "sparsity",
        "Pruned weights",
        Unit::Share,
        "pruning",
        each!(pruning, row => Some(row.sparsity)),
    ),
];

const SECURE: &[Row] = &[
    (
        "secagg_up",
        "Bytes sent by clients",
        Unit::Bytes,
        SECAGG,
        each!(secagg, row => Some(up(row) as f64)),
    ),
    (
        "secagg_down",
        "Bytes sent to clients",
        Unit::Bytes,
        SECAGG,
        each!(secagg, row => Some(down(row) as f64)),
    ),
    (
        "secagg_lost",
        "Clients that left a session",
        Unit::Share,
        SECAGG,
        each!(secagg, row => share(row.clients.saturating_sub(row.inputs), row.clients)),
    ),
    (
        "secagg_failed",
        "Sessions that failed",
        Unit::Count,
        SECAGG,
        each!(secagg, row => Some(row.failed as f64)),
    ),
    (
        "secagg_client",
        "Modelled time of a client",
        Unit::Seconds,
        SECAGG,
        each!(secagg, row => row.modelled_client_seconds),
    ),
    (
        "secagg_server",
        "Modelled time of the server",
        Unit::Seconds,
        SECAGG,
        each!(secagg, row => row.modelled_server_seconds),
    ),
];

fn both_ways(row: &RoundRow) -> f64 {
    row.bytes_down as f64 + row.bytes_up as f64
}

/// Everything that clients send in a round of secure aggregation.
fn up(row: &SecAggRow) -> u64 {
    row.bytes_advertise_keys
        + row.bytes_share_keys
        + row.bytes_masked_input
        + row.bytes_signed_survivors
        + row.bytes_unmasking_shares
}

/// Everything that the server sends.
fn down(row: &SecAggRow) -> u64 {
    row.bytes_roster + row.bytes_forwarded_shares + row.bytes_survivors + row.bytes_unmask
}

/// Every figure, whether there are data or not. Those without quantities have data of their own.
const FIGURES: [(&str, &str, Kind, &str, &[Row]); 9] = [
    ("accuracy", "Accuracy", Kind::Curves, "", ACCURACY),
    ("loss", "Loss", Kind::Curves, "", LOSS),
    (
        "tradeoff",
        "Accuracy against epsilon",
        Kind::Tradeoff,
        "Runs that differ in epsilon, noise, seed and name alone are one line; points are medians over the seeds, with their range. Level lines are runs without privacy.",
        &[],
    ),
    ("epsilon", "Privacy spent", Kind::Curves, "", PRIVACY),
    (
        "clients",
        "Accuracy over clients",
        Kind::Clients,
        "Clients by the accuracy of the last global model on their own examples, in bins of five per cent.",
        &[],
    ),
    (
        "dropouts",
        "Who took part",
        Kind::Curves,
        "Shares are of the cohort, or of the devices that were called.",
        DROPOUTS,
    ),
    (
        "timing",
        "Time",
        Kind::Curves,
        "Times of devices are modelled.",
        TIMING,
    ),
    (
        "costs",
        "Bytes and energy",
        Kind::Curves,
        "Energy is modelled: of training on devices, beyond the idle device's.",
        COSTS,
    ),
    (
        "secagg",
        "Secure aggregation",
        Kind::Curves,
        "Times are by the cost model of a reference machine.",
        SECURE,
    ),
];

/// The figures, and their quantities, of which some run has something to show.
pub(super) fn with_data(runs: &[Run<'_>]) -> Vec<Figure> {
    let shown = |row: &Row| {
        runs.iter().any(|run| {
            let values = (row.4)(run.variant);
            // Zeros alone, such as of faults that never happened, are nothing to see.
            values.iter().flatten().any(|value| value.abs() > 0.0)
        })
    };
    let mut figures = Vec::new();
    for (id, title, kind, note, rows) in FIGURES {
        let quantities: Vec<Quantity> = rows
            .iter()
            .filter(|row| shown(row))
            .map(|&(id, label, unit, table, of)| Quantity {
                id,
                label,
                unit,
                table,
                of,
            })
            .collect();
        let drawn = match kind {
            Kind::Curves => !quantities.is_empty(),
            Kind::Tradeoff => runs
                .iter()
                .any(|run| super::tradeoff::is_private(run.variant)),
            Kind::Clients => runs.iter().any(|run| !run.variant.clients.is_empty()),
        };
        if drawn {
            figures.push(Figure {
                id,
                title,
                kind,
                note,
                quantities,
            });
        }
    }
    figures
}
