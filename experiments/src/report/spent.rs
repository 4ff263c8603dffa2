//! What a run has spent by a round: the other horizontal axes.

use std::collections::BTreeMap;

use crate::results::VariantResults;

/// What plots may be drawn against, beside rounds.
pub(super) const AXES: [Axis; 3] = [
    Axis {
        id: "time",
        so_far: virtual_seconds,
    },
    Axis {
        id: "bytes",
        so_far: bytes,
    },
    Axis {
        id: "joules",
        so_far: joules,
    },
];

/// One of them.
pub(super) struct Axis {
    /// What it is called in the page's data.
    pub(super) id: &'static str,
    /// By rounds done, what was spent until then; empty where it is not known.
    pub(super) so_far: fn(&VariantResults) -> BTreeMap<u64, f64>,
}

/// Virtual seconds; of runs on devices.
pub(super) fn virtual_seconds(variant: &VariantResults) -> BTreeMap<u64, f64> {
    let rows = variant.fleet.iter();
    with_start(rows.map(|row| (row.round + 1, row.ended_seconds)))
}

/// Bytes of models and updates, both ways.
pub(super) fn bytes(variant: &VariantResults) -> BTreeMap<u64, f64> {
    let mut sum = 0.0;
    with_start(variant.rounds.iter().map(|row| {
        sum += row.bytes_down as f64 + row.bytes_up as f64;
        (row.round + 1, sum)
    }))
}

/// Joules of training on devices, up to the first round whose joules are not told.
pub(super) fn joules(variant: &VariantResults) -> BTreeMap<u64, f64> {
    let mut sum = 0.0;
    with_start(variant.fleet.iter().map_while(|row| {
        sum += row.spent_joules()?;
        Some((row.round + 1, sum))
    }))
}

/// Nothing is spent before the first round; where nothing is known ever, not even that.
fn with_start(rows: impl Iterator<Item = (u64, f64)>) -> BTreeMap<u64, f64> {
    let mut all: BTreeMap<u64, f64> = rows.collect();
    if !all.is_empty() {
        all.insert(0, 0.0);
    }
    all
}
