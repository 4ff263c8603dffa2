//! `[fleet]`: how unreliable the clients are, and what devices they have.

use std::collections::BTreeMap;

use fl_core::Seed;
use fl_sim::fleet::mix::DefaultRhythm;
use fl_sim::fleet::{DeviceConfig, Fleet, FleetError, Requirements};
use fl_sim::{FleetConfig, MixConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::de::decode;
use super::diagnostic::Diagnostics;
use super::node::Node;
use super::recording::{RecordingKind, RecordingTable};

/// How unreliable the clients are, and what devices they have. With `devices` a virtual clock runs: a
/// client downloads, trains and sends as long as its device takes by the cost model, goes when it is no
/// longer on its charger, and rounds have hours, joules and bytes. All of that is modelled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FleetTable {
    /// Share of each cohort that is slow and completes only a part of its local work, in [0, 1].
    pub stragglers: f64,
    /// Probability that a client of a cohort vanishes before it reports, in [0, 1].
    pub dropout: f64,
    /// What devices there are: a mix ("phones-2025", "iot", "jetson-lab", "mixed-lab"), a device class
    /// (`fledgling device list`), or a table of classes and their shares, such as
    /// { "mid-20" = 0.7, "flagship-21" = 0.3 }.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<DevicesName>,
    /// Share of the devices whose NPU is there and works, of those whose class has one. 0.5 when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub npu_share: Option<f64>,
    /// Standard deviation of the logarithm of speed within a class, from 0 to 3. When left out, what
    /// the classes of the mix leave of the spread that was measured over all phones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_sigma: Option<f64>,
    /// When devices charge, have WiFi and are idle: "always-on", "diurnal", or recordings, such as
    /// { kind = "fedscale", path = "client_behave_trace" } or { kind = "flash", path =
    /// "state_traces.json" }. As the mix says when left out. A device has one of the recordings, which
    /// keeps its own times of day and repeats after its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability: Option<AvailabilitySource>,
    /// Recorded speeds of devices and links, which take the place of the mix's, such as
    /// { kind = "fedscale", path = "client_device_capacity" }.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacities: Option<RecordingTable>,
    /// The hour of the day, UTC, at which virtual time begins, from 0 to below 24. 0 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_hour: Option<f64>,
    /// Offsets from UTC in hours and the shares of the devices that live by them, such as
    /// [[1.0, 0.5], [5.5, 0.5]]. The mix's when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<(f64, f64)>>,
    /// What a device must have so as to train: any of "charging", "wifi" and "idle". All three when
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require: Option<Vec<SignalName>>,
    /// How full a battery must be, in [0, 1]. 0 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_battery: Option<f64>,
    /// Training examples that a client must have. 1 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_examples: Option<u64>,
    /// Rounds in which a client may train at most. Any number when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_participations: Option<u32>,
}

/// What devices there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DevicesName {
    /// A mix or a class.
    Named(String),
    /// Classes and their shares.
    Shares(BTreeMap<String, f64>),
}

/// What says when devices charge, have WiFi and are idle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AvailabilitySource {
    /// A rule.
    Named(AvailabilityName),
    /// Recordings.
    Recorded(RecordingTable),
}

/// When devices charge, have WiFi and are idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AvailabilityName {
    /// Always.
    AlwaysOn,
    /// As phones do over the day.
    Diurnal,
}

/// What a device may have to have.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SignalName {
    /// Be on a charger.
    Charging,
    /// Have a network that is not metered.
    Wifi,
    /// Not be in use.
    Idle,
}

impl FleetTable {
    /// Reads and checks the table.
    pub(crate) fn read(node: &Node, errors: &Diagnostics) -> Option<Self> {
        if let Some(source) = node.table().and_then(|table| table.get("availability")) {
            // What is neither reads as no variant of the untagged type, which says too little.
            let path = "fleet.availability";
            match source.table() {
                Some(_) => drop(decode::<RecordingTable>(source, path, errors)?),
                None => drop(decode::<AvailabilityName>(source, path, errors)?),
            }
        }
        let table = decode::<Self>(node, "fleet", errors)?;
        let check = Check::new(node, "fleet", errors);
        table.check_recordings(&check);
        check.share("stragglers", table.stragglers);
        check.share("dropout", table.dropout);
        match table.devices() {
            Some(config) => {
                if let Err(error) = Fleet::new(&config, Seed(0)) {
                    table.refuse(&error, &check);
                }
            }
            None => {
                for key in table.given() {
                    check.fault(
                        key,
                        "is about devices, and there are none; add for example devices = \"phones-2025\", or remove it",
                    );
                }
            }
        }
        Some(table)
    }

    fn check_recordings(&self, check: &Check<'_>) {
        if let Some(AvailabilitySource::Recorded(recording)) = &self.availability {
            recording.check("availability", check);
            for (key, given) in [
                ("start_hour", self.start_hour.is_some()),
                ("zones", self.zones.is_some()),
            ] {
                if given {
                    check.fault(key, "recordings keep their own times of day; remove it");
                }
            }
        }
        if let Some(recording) = &self.capacities {
            recording.check("capacities", check);
            if recording.kind == RecordingKind::Flash {
                check.fault(
                    "capacities.kind",
                    "found \"flash\", whose files hold no capacities; expected \"fedscale\"",
                );
            }
        }
    }

    fn refuse(&self, error: &FleetError, check: &Check<'_>) {
        match error {
            FleetError::Range { key, value, range } => {
                let key = key.rsplit('.').next().unwrap_or(key);
                let key = match key {
                    "utc" => "zones",
                    key => key,
                };
                check.fault(key, format!("found {value}, expected {range}"));
            }
            FleetError::Shares {
                what: "time zones", ..
            } => check.fault("zones", error.to_string()),
            _ => check.fault("devices", error.to_string()),
        }
    }

    /// The keys given that are about devices.
    fn given(&self) -> Vec<&'static str> {
        [
            ("npu_share", self.npu_share.is_some()),
            ("speed_sigma", self.speed_sigma.is_some()),
            ("availability", self.availability.is_some()),
            ("capacities", self.capacities.is_some()),
            ("start_hour", self.start_hour.is_some()),
            ("zones", self.zones.is_some()),
            ("require", self.require.is_some()),
            ("min_battery", self.min_battery.is_some()),
            ("min_examples", self.min_examples.is_some()),
            ("max_participations", self.max_participations.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect()
    }

    /// Who is slow and who vanishes, for the simulator.
    #[must_use]
    pub fn config(&self) -> FleetConfig {
        FleetConfig {
            stragglers: self.stragglers,
            dropout: self.dropout,
        }
    }

    /// The devices, for the simulator, without the recordings; none without devices.
    #[must_use]
    pub fn devices(&self) -> Option<DeviceConfig> {
        let default = DeviceConfig::default();
        let asked = default.requirements;
        let requires = |signal, default| match &self.require {
            Some(all) => all.contains(&signal),
            None => default,
        };
        Some(DeviceConfig {
            mix: match self.devices.clone()? {
                DevicesName::Named(name) => MixConfig::Named(name),
                DevicesName::Shares(shares) => MixConfig::Shares(shares),
            },
            npu_share: self.npu_share.unwrap_or(default.npu_share),
            speed_sigma: self.speed_sigma,
            rhythm: match &self.availability {
                Some(AvailabilitySource::Named(AvailabilityName::AlwaysOn)) => {
                    Some(DefaultRhythm::AlwaysOn)
                }
                Some(AvailabilitySource::Named(AvailabilityName::Diurnal)) => {
                    Some(DefaultRhythm::Diurnal)
                }
                Some(AvailabilitySource::Recorded(_)) | None => None,
            },
            zones: self.zones.clone(),
            start_hour: self.start_hour.unwrap_or(default.start_hour),
            requirements: Requirements {
                charging: requires(SignalName::Charging, asked.charging),
                wifi: requires(SignalName::Wifi, asked.wifi),
                idle: requires(SignalName::Idle, asked.idle),
                min_battery: self.min_battery.unwrap_or(asked.min_battery),
                min_examples: self.min_examples.unwrap_or(asked.min_examples),
                max_participations: self.max_participations,
            },
            ..default
        })
    }

    /// The file that says when devices can train, where it is one.
    pub(super) fn traced(&mut self) -> Option<&mut RecordingTable> {
        match &mut self.availability {
            Some(AvailabilitySource::Recorded(recording)) => Some(recording),
            Some(AvailabilitySource::Named(_)) | None => None,
        }
    }
}
