//! Rows of a rollout.

use fl_sim::rollout::{Day, Notice, Reason, Told};

use super::row::RolloutRow;

impl RolloutRow {
    /// The rows of a rollout to a fleet of so many devices: one for each day and version.
    pub(crate) fn of(fleet: u64, days: &[Day]) -> Vec<Self> {
        let told = |count: Told| count.0.map(|count| count as f64);
        let mut rows = Vec::new();
        for day in days {
            for version in &day.versions {
                let events: Vec<String> = day
                    .notices
                    .iter()
                    .filter_map(|(hour, notice)| event(*hour, notice, version.version.0))
                    .collect();
                rows.push(Self {
                    day: day.day,
                    version: version.version.0.into(),
                    round: version.round,
                    state: version.state.name().to_owned(),
                    release: day.release,
                    stage: day.stage,
                    events: events.join("; "),
                    fleet,
                    devices: told(version.devices),
                    offline: told(version.offline),
                    check_ins: told(version.check_ins),
                    bytes_full: version.bytes_full,
                    bytes_patch: version.bytes_patch,
                    installed: told(version.installed),
                    interrupted: told(version.interrupted),
                    failed: told(version.failed),
                    restored: told(version.restored),
                    reports: told(version.reports),
                    accuracy: version.metric,
                });
            }
        }
        rows
    }
}

/// What happened to a version, in words.
fn event(hour: u64, notice: &Notice, of: u16) -> Option<String> {
    let (version, what) = match *notice {
        Notice::Began { version, stage } => (version, format!("stage {} began", stage + 1)),
        Notice::Completed { version } => (version, "completed".to_owned()),
        Notice::Withdrawn {
            version,
            stage,
            reason,
        } => {
            let why = match reason {
                Reason::Worse => "worse",
                Reason::Undecided => "undecided",
            };
            (version, format!("withdrawn in stage {} ({why})", stage + 1))
        }
    };
    (version.0 == of).then(|| format!("hour {hour}: {what}"))
}
