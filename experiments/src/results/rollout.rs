//! Rows of a rollout.

use fl_sim::rollout::{Day, Notice, Plan, Reason, Told};

use super::row::RolloutRow;

impl RolloutRow {
    /// The rows of a rollout: one for each day and version.
    pub(crate) fn of(plan: &Plan, days: &[Day]) -> Vec<Self> {
        let stages = &plan.server.stages;
        let told = |count: Told| count.0.map(|count| count as f64);
        let mut rows = Vec::new();
        for day in days {
            for version in &day.versions {
                let events: Vec<String> = day
                    .notices
                    .iter()
                    .filter_map(|(hour, notice)| event(*hour, notice, version.version.0, stages))
                    .collect();
                rows.push(Self {
                    day: day.day,
                    version: version.version.0.into(),
                    round: version.round,
                    state: version.state.name().to_owned(),
                    release: day.release,
                    stage: day.stage,
                    events: events.join("; "),
                    fleet: plan.devices,
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

/// What happened to a version, in words: `hour 24: 10 % began`.
fn event(hour: u64, notice: &Notice, of: u16, stages: &[f64]) -> Option<String> {
    let share = |stage: usize| {
        let share = stages.get(stage).copied().unwrap_or(1.0);
        // Written as given: 0.07 times 100 is not 7.
        let percent = (share * 1e12).round() / 1e10;
        format!("{percent} %")
    };
    let (version, what) = match *notice {
        Notice::Began { version, stage } => (version, format!("{} began", share(stage))),
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
            (version, format!("withdrawn at {} ({why})", share(stage)))
        }
    };
    (version.0 == of).then(|| format!("hour {hour}: {what}"))
}

/// What happened to a version in the course of a rollout, as it stands in `events`: the hour, and what.
pub(crate) fn events(text: &str) -> impl Iterator<Item = (u64, &str)> {
    text.split("; ").filter_map(|event| {
        let (hour, what) = event.strip_prefix("hour ")?.split_once(": ")?;
        Some((hour.parse().ok()?, what))
    })
}

#[cfg(test)]
mod tests {
    use fl_sim::rollout::VersionId;

    use super::*;

    #[test]
    fn events_read_back() {
        let version = VersionId(1);
        let notices = [
            Notice::Began { version, stage: 1 },
            Notice::Completed { version },
            Notice::Withdrawn {
                version,
                stage: 0,
                reason: Reason::Undecided,
            },
        ];
        let of = |version| -> Vec<String> {
            let events = (5..).zip(&notices);
            let events = events.filter_map(|(hour, it)| event(hour, it, version, &[0.005, 0.07]));
            events.collect()
        };
        assert!(of(0).is_empty());
        let text = of(1).join("; ");
        assert_eq!(
            events(&text).collect::<Vec<_>>(),
            [
                (5, "7 % began"),
                (6, "completed"),
                (7, "withdrawn at 0.5 % (undecided)")
            ]
        );
        assert_eq!(events("").count(), 0);
    }
}
