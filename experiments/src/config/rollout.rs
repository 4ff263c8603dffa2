//! `[rollout]`: the int8 models of the run reach a fleet of devices, after the last round.

use fl_sim::checkpoint::ServedFile;
use fl_sim::rollout::{Form, Guard, Plan, ServerConfig, fault};
use fl_sim::{EvaluationConfig, SimError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::evaluation::EvaluationTable;
use super::node::Node;

/// The int8 models of the run reach a fleet of devices, after the last round: in stages, under a guard
/// on what devices measure. All devices begin with the oldest of these models; the others are released
/// one after the other. Needs `evaluation.patches`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutTable {
    /// Devices of the fleet.
    #[schemars(range(min = 1, max = 1_000_000_000_000u64))]
    pub devices: u64,
    /// Virtual days.
    #[schemars(range(min = 1))]
    pub days: u64,
    /// Model versions: the newest so many evaluated models of the run, or as many as there are; at
    /// least 2.
    #[schemars(range(min = 2))]
    pub versions: u64,
    /// Hours from one release to the next; one that is due while another is under way waits.
    #[schemars(range(min = 1))]
    pub release_hours: u64,
    /// From how many versions before it there are patches to a version; 0 for whole files only.
    pub patches_from: u64,
    /// Bytes as which every model file counts, patches in proportion: the fleet of a larger model. The
    /// files' own sizes when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub file_bytes: Option<u64>,
    /// What is wrong with the newest version: "scrambled", a conversion that wrote the weights in the
    /// wrong order, in a file that opens and verifies; or "stale", the run's first evaluated model,
    /// as if training had been cut short. Nothing when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultName>,
    /// Hours of a step, a divisor of 24; a device checks in once in a step at most.
    #[schemars(range(min = 1, max = 24))]
    pub step_hours: u64,
    /// Check-ins in a day of a device that is online, in the mean.
    pub check_ins_per_day: f64,
    /// Share of devices that are offline at any time; they go on with what they have.
    pub offline: f64,
    /// Hours that a device is offline, in the mean.
    pub offline_hours: f64,
    /// Share of downloads that break off, and are taken up at the next check-in.
    pub interrupted: f64,
    /// Share of downloads that cannot be installed, and are made anew.
    pub failed: f64,
    /// Shares of the fleet that get a version, stage by stage.
    pub stages: Vec<f64>,
    /// Share of the fleet that keeps the version before until the last stage is passed, to be compared
    /// with. 0 with stages = [1.0] for releases without a guard.
    pub control: f64,
    /// Of fewer devices or reports nothing is told, and nothing concluded; at least 2.
    #[schemars(range(min = 2))]
    pub min_group: u64,
    /// Clients of the data set whose held-out examples devices judge versions on, at most.
    #[schemars(range(min = 1))]
    pub clients: u64,
    /// How the fleet is played: "devices", one by one; "counts", of devices in the same state, at a cost
    /// that does not grow; "auto", the former up to 100,000 devices.
    pub form: FormName,
    /// When a version is withdrawn, and when a stage is passed.
    pub guard: GuardTable,
}

/// When a version is withdrawn, and when a stage is passed: by two one-sided tests of the accuracy that
/// devices of the stages and of the control group report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuardTable {
    /// Probability of an error of either kind over all looks at a release, above 0 and below 0.5.
    pub alpha: f64,
    /// Fall of the accuracy that is not yet called worse.
    pub tolerance: f64,
    /// Fall of the accuracy that must be ruled out before a stage is passed.
    pub max_drop: f64,
    /// Reports that each group needs before a stage is passed.
    pub min_reports: u64,
    /// Hours that a stage lasts at least.
    pub min_hours: u64,
    /// Hours after which a stage that is not decided has failed.
    pub max_hours: u64,
    /// Hours from one look to the next.
    #[schemars(range(min = 1))]
    pub look_hours: u64,
}

/// What is wrong with the newest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultName {
    /// Its weights are in the wrong order.
    Scrambled,
    /// It is the run's first evaluated model.
    Stale,
}

/// How the fleet is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FormName {
    /// Device by device up to 100,000, as counts above.
    Auto,
    /// Device by device.
    Devices,
    /// As counts of devices in the same state.
    Counts,
}

impl Default for RolloutTable {
    fn default() -> Self {
        let Plan {
            devices,
            days,
            step_hours,
            check_ins_per_day,
            offline,
            offline_hours,
            interrupted,
            failed,
            release_hours,
            server,
            form: _,
        } = Plan::default();
        let ServerConfig {
            stages,
            control,
            guard: _,
            min_group,
        } = server;
        Self {
            devices,
            days,
            versions: 2,
            release_hours,
            patches_from: 1,
            file_bytes: None,
            fault: None,
            step_hours,
            check_ins_per_day,
            offline,
            offline_hours,
            interrupted,
            failed,
            stages,
            control,
            min_group,
            clients: 1000,
            form: FormName::Auto,
            guard: GuardTable::default(),
        }
    }
}

impl Default for GuardTable {
    fn default() -> Self {
        let Guard {
            alpha,
            tolerance,
            max_drop,
            min_reports,
            min_hours,
            max_hours,
            look_hours,
        } = Guard::default();
        Self {
            alpha,
            tolerance,
            max_drop,
            min_reports,
            min_hours,
            max_hours,
            look_hours,
        }
    }
}

impl RolloutTable {
    /// Reads and checks the table of a run of so many rounds.
    pub(crate) fn read(
        node: &Node,
        rounds: u64,
        evaluation: Option<&EvaluationTable>,
        errors: &Diagnostics,
    ) -> Option<Self> {
        let table = decode::<Self>(node, "rollout", errors)?;
        let check = Check::new(node, "rollout", errors);
        let least = "a whole number of at least";
        let [versions, clients] = [table.versions, table.clients];
        check.demand("versions", versions >= 2, &versions, &format!("{least} 2"));
        check.demand("clients", clients >= 1, &clients, &format!("{least} 1"));
        if let Some(bytes) = table.file_bytes {
            check.demand("file_bytes", bytes >= 1, &bytes, &format!("{least} 1"));
        }
        if let Err(SimError::OutOfRange { key, value, range }) = table.plan().check() {
            let key = key.strip_prefix("rollout.").unwrap_or(key);
            check.demand(key, false, &value, range);
        }
        if let Some(evaluation) = evaluation {
            table.check_versions(rounds, evaluation, &check);
        }
        Some(table)
    }

    /// Whether the run leaves the models that are rolled out.
    fn check_versions(&self, rounds: u64, evaluation: &EvaluationTable, check: &Check<'_>) {
        let EvaluationConfig {
            every,
            initial,
            patches,
            ..
        } = evaluation.config();
        if !patches {
            check.fault(
                "",
                "rolls out the int8 models of the run, and no evaluation keeps them; add evaluation.precisions = [\"f32\", \"int8\"] and evaluation.patches = true",
            );
        }
        let evaluated = u64::from(initial) + rounds.div_ceil(every.max(1));
        if evaluated < 2 {
            check.fault(
                "versions",
                format!("needs at least 2 evaluated models, and the run has {evaluated}; lower evaluation.every, or set evaluation.initial = true"),
            );
        } else if self.fault == Some(FaultName::Stale) && evaluated <= self.versions {
            check.fault(
                "fault",
                format!("\"stale\" ships a model that is older than the {} versions, and the run evaluates {evaluated}; lower versions or evaluation.every", self.versions),
            );
        }
    }

    /// What the simulator plays.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let guard = &self.guard;
        Plan {
            devices: self.devices,
            days: self.days,
            step_hours: self.step_hours,
            check_ins_per_day: self.check_ins_per_day,
            offline: self.offline,
            offline_hours: self.offline_hours,
            interrupted: self.interrupted,
            failed: self.failed,
            release_hours: self.release_hours,
            server: ServerConfig {
                stages: self.stages.clone(),
                control: self.control,
                min_group: self.min_group,
                guard: Guard {
                    alpha: guard.alpha,
                    tolerance: guard.tolerance,
                    max_drop: guard.max_drop,
                    min_reports: guard.min_reports,
                    min_hours: guard.min_hours,
                    max_hours: guard.max_hours,
                    look_hours: guard.look_hours,
                },
            },
            form: match self.form {
                FormName::Auto => Form::Auto,
                FormName::Devices => Form::Devices,
                FormName::Counts => Form::Counts,
            },
        }
    }

    /// The rollout in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let stages: Vec<String> = self
            .stages
            .iter()
            .map(|share| format!("{}", (share * 1e12).round() / 1e10))
            .collect();
        let guard = match self.control > 0.0 {
            true => format!(
                "stages of {} %, a control group of {} %",
                stages.join(", "),
                (self.control * 1e12).round() / 1e10
            ),
            false => "no guard".to_owned(),
        };
        format!(
            "the newest {} models to {} devices in {} days, {} check-ins a day: {guard}",
            self.versions, self.devices, self.days, self.check_ins_per_day
        )
    }

    /// The files that are rolled out, in their order, of all that the run left. A file that is byte for
    /// byte an earlier one is left out.
    ///
    /// # Errors
    /// [`SimError`] when the newest cannot be made faulty.
    pub(crate) fn choose(&self, files: &[ServedFile]) -> Result<Vec<ServedFile>, SimError> {
        let versions = usize::try_from(self.versions).unwrap_or(usize::MAX);
        let first = files.len().saturating_sub(versions);
        let mut chosen: Vec<ServedFile> = files.get(first..).unwrap_or_default().to_vec();
        if let (Some(fault), Some(newest)) = (self.fault, chosen.last_mut()) {
            *newest = match (fault, files.first()) {
                (FaultName::Scrambled, _) => fault::scrambled(newest)?,
                (FaultName::Stale, Some(oldest)) => oldest.clone(),
                (FaultName::Stale, None) => newest.clone(),
            };
        }
        let mut unique: Vec<ServedFile> = Vec::new();
        for file in chosen {
            if unique.iter().all(|other| other.bytes != file.bytes) {
                unique.push(file);
            }
        }
        Ok(unique)
    }
}
