//! Mixes: which device classes a population has, in what shares, and what is around them.
//!
//! A mix is a table of shares over the device classes of [`fl_edge::device::catalogue`], with
//! batteries, links and time zones. The embedded ones are `sim/fleets/*.toml`, in the manner of device
//! profiles: each number is a table `{ value, source }` whose source begins with a key of
//! `[sources]`, and a source says of what kind it is. An experiment names one of them, or a single
//! class, or gives shares of its own; what is around the devices is then taken from `phones-2025`
//! when all of them are phones, and from `mixed-lab` otherwise.

use std::collections::BTreeMap;

use fl_edge::device::profile::{Class, DeviceProfile, Figure, Source};
use fl_edge::device::{Threads, catalogue};
use serde::{Deserialize, Serialize};

use super::error::{FleetError, hint};
use super::network::{Network, Rate};

/// The embedded mixes: their names and texts.
pub const MIXES: &[(&str, &str)] = &[
    ("phones-2025", include_str!("../../fleets/phones-2025.toml")),
    ("iot", include_str!("../../fleets/iot.toml")),
    ("jetson-lab", include_str!("../../fleets/jetson-lab.toml")),
    ("mixed-lab", include_str!("../../fleets/mixed-lab.toml")),
];

/// The mix around phones whose shares are given.
const PHONES: &str = "phones-2025";
/// The mix around other devices whose shares are given.
const OTHERS: &str = "mixed-lab";

/// How far shares may be from adding up to one.
const SLACK: f64 = 1e-6;

/// Which devices a population has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected the name of a mix or device class, or a table of classes and shares"
)]
pub enum MixConfig {
    /// An embedded mix, or a device class that all of them are of.
    Named(String),
    /// Device classes and their shares, which add up to 1.
    Shares(BTreeMap<String, f64>),
}

impl Default for MixConfig {
    fn default() -> Self {
        Self::Named(PHONES.to_owned())
    }
}

/// One device class of a mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The class.
    pub profile: DeviceProfile,
    /// Share of the population, above 0 and at most 1.
    pub share: f64,
}

/// The battery of a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Battery {
    /// Joules that it holds.
    pub joules: f64,
    /// Watts at which it is charged.
    pub charger: f64,
}

/// How days look by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultRhythm {
    /// On the mains and on the net, for ever.
    AlwaysOn,
    /// As a person's phone.
    Diurnal,
}

/// Offsets from UTC and the shares of the population that live by them.
#[derive(Clone, Debug, PartialEq)]
pub struct Zones(Vec<(i32, f64)>);

/// A mix: device classes with their shares, and what is around them.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// What it is called.
    pub name: String,
    /// Its classes, in the order of their table.
    pub members: Vec<Member>,
    /// Threads of the CPU that train: one on a phone, where training is a program in the background;
    /// all where training is what the device is there for.
    pub threads: Threads,
    /// How days look.
    pub rhythm: DefaultRhythm,
    /// Standard deviation of the logarithm of speed over the whole population.
    pub speed_spread: f64,
    /// Links.
    pub network: Network,
    /// Time zones.
    pub zones: Zones,
    batteries: BTreeMap<Class, Battery>,
    /// Sums of the shares, up to and with each member's.
    cumulative: Vec<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ThreadsName {
    One,
    All,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    title: String,
    threads: ThreadsName,
    rhythm: DefaultRhythm,
    speed_spread: Figure,
    sources: BTreeMap<String, Source>,
    #[serde(default)]
    battery: BTreeMap<Class, BatteryTable>,
    network: NetworkTable,
    zone: Vec<ZoneTable>,
    device: Vec<DeviceTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatteryTable {
    /// Watt-hours.
    capacity: Figure,
    /// Watts.
    charger: Figure,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkTable {
    wifi: Figure,
    metered: Figure,
    /// Milliseconds.
    latency: Figure,
    down: RateTable,
    up: RateTable,
}

/// KB/s, of 1024 bytes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateTable {
    p10: Figure,
    p50: Figure,
    p90: Figure,
    spread: Figure,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneTable {
    utc: f64,
    share: Figure,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceTable {
    profile: String,
    share: Figure,
}

impl Zones {
    /// Offsets from UTC in hours, from -12 to 14, and their shares.
    ///
    /// # Errors
    /// [`FleetError`] when an offset is out of range or the shares do not add up to 1.
    pub fn new(mix: &str, zones: &[(f64, f64)]) -> Result<Self, FleetError> {
        for &(utc, _) in zones {
            if !(-12.0..=14.0).contains(&utc) {
                return Err(FleetError::range("zone.utc", utc, "from -12 to 14 hours"));
            }
        }
        let shares = zones.iter().map(|&(_, share)| share);
        let sums = cumulative(mix, "time zones", shares)?;
        let minutes = zones.iter().map(|&(utc, _)| libm::rint(utc * 60.0) as i32);
        Ok(Self(minutes.zip(sums).collect()))
    }

    /// The offset from UTC in minutes of who draws `uniform` in `[0, 1)`.
    #[must_use]
    pub fn pick(&self, uniform: f64) -> i32 {
        let found = self.0.iter().find(|&&(_, sum)| uniform < sum);
        found.or(self.0.last()).map_or(0, |&(minutes, _)| minutes)
    }
}

/// Running sums of shares, the last of which is 1.
fn cumulative(
    mix: &str,
    what: &'static str,
    shares: impl Iterator<Item = f64>,
) -> Result<Vec<f64>, FleetError> {
    let fail = |sum| FleetError::Shares {
        mix: mix.to_owned(),
        what,
        sum,
    };
    let (mut sum, mut sums) = (0.0, Vec::new());
    for share in shares {
        if !(share > 0.0 && share <= 1.0) {
            return Err(fail(share));
        }
        sum += share;
        sums.push(sum);
    }
    match sums.last_mut() {
        Some(last) if (*last - 1.0).abs() <= SLACK => *last = 1.0,
        _ => return Err(fail(sum)),
    }
    Ok(sums)
}

fn profile(mix: &str, name: &str) -> Result<DeviceProfile, FleetError> {
    match catalogue::named(name) {
        Some(found) => Ok(found?),
        None => Err(FleetError::UnknownProfile {
            mix: mix.to_owned(),
            name: name.to_owned(),
            hint: hint(name, catalogue::PROFILES.iter().map(|(name, _)| *name)),
        }),
    }
}

fn is_phone(class: Class) -> bool {
    matches!(
        class,
        Class::Flagship | Class::UpperMid | Class::Mid | Class::Low
    )
}

impl Mix {
    /// The mix of a configuration.
    ///
    /// # Errors
    /// [`FleetError`] naming what there is not, with the nearest name, or the shares that do not add
    /// up.
    pub fn new(config: &MixConfig) -> Result<Self, FleetError> {
        let shares = match config {
            MixConfig::Named(name) => {
                if let Some((_, text)) = MIXES.iter().find(|(known, _)| known == name) {
                    return Self::parse(name, text);
                }
                if catalogue::named(name).is_none() {
                    let mixes = MIXES.iter().map(|(name, _)| *name);
                    let classes = catalogue::PROFILES.iter().map(|(name, _)| *name);
                    return Err(FleetError::UnknownMix {
                        name: name.clone(),
                        hint: hint(name, mixes.chain(classes)),
                    });
                }
                vec![(name.as_str(), 1.0)]
            }
            MixConfig::Shares(shares) => {
                let shares = shares.iter();
                shares
                    .map(|(name, &share)| (name.as_str(), share))
                    .collect()
            }
        };
        let name = match shares.as_slice() {
            [(name, _)] => (*name).to_owned(),
            _ => "inline".to_owned(),
        };
        let members = shares
            .iter()
            .map(|&(class, share)| {
                let profile = profile(&name, class)?;
                Ok(Member { profile, share })
            })
            .collect::<Result<Vec<_>, FleetError>>()?;
        let phones = members.iter().all(|member| is_phone(member.profile.class));
        let around = if phones { PHONES } else { OTHERS };
        let around = Self::new(&MixConfig::Named(around.to_owned()))?;
        let shares = members.iter().map(|member| member.share);
        let cumulative = cumulative(&name, "device classes", shares)?;
        Ok(Self {
            name,
            members,
            cumulative,
            ..around
        })
    }

    /// Reads a mix table. `name` is what errors call it.
    ///
    /// # Errors
    /// [`FleetError`] with what is wrong there.
    pub fn parse(name: &str, text: &str) -> Result<Self, FleetError> {
        let form = |message: String| FleetError::Form {
            mix: name.to_owned(),
            message,
        };
        let file: File = toml::from_str(text)
            .map_err(|error| form(error.message().trim_end().replace('\n', " ")))?;
        if file.title.is_empty() || file.name != name {
            return Err(form(format!(
                "it is called `{}` inside; name and title must be those of the mix",
                file.name
            )));
        }
        file.check(name)?;
        let figure = |figure: &Figure| figure.value;
        let rate = |table: &RateTable| Rate {
            p10: figure(&table.p10),
            p50: figure(&table.p50),
            p90: figure(&table.p90),
            spread: figure(&table.spread),
        };
        let members = file
            .device
            .iter()
            .map(|device| {
                let profile = profile(name, &device.profile)?;
                let share = device.share.value;
                Ok(Member { profile, share })
            })
            .collect::<Result<Vec<_>, FleetError>>()?;
        let zones = file.zone.iter().map(|zone| (zone.utc, zone.share.value));
        let zones = Zones::new(name, &zones.collect::<Vec<_>>())?;
        let shares = members.iter().map(|member| member.share);
        let cumulative = cumulative(name, "device classes", shares)?;
        let batteries = file.battery.iter().map(|(&class, table)| {
            let battery = Battery {
                joules: 3600.0 * table.capacity.value,
                charger: table.charger.value,
            };
            (class, battery)
        });
        Ok(Self {
            name: file.name,
            threads: match file.threads {
                ThreadsName::One => Threads::One,
                ThreadsName::All => Threads::All,
            },
            rhythm: file.rhythm,
            speed_spread: file.speed_spread.value,
            network: Network {
                down: rate(&file.network.down),
                up: rate(&file.network.up),
                latency: 1e-3 * file.network.latency.value,
                wifi: file.network.wifi.value,
                metered: file.network.metered.value,
            },
            zones,
            batteries: batteries.collect(),
            members,
            cumulative,
        })
    }

    /// The member of who draws `uniform` in `[0, 1)`, as an index into [`members`](Self::members).
    #[must_use]
    pub fn pick(&self, uniform: f64) -> usize {
        let found = self.cumulative.iter().position(|&sum| uniform < sum);
        found.unwrap_or(self.members.len().saturating_sub(1))
    }

    /// The battery of a class; none on the mains, and for classes that the mix says nothing of.
    #[must_use]
    pub fn battery(&self, class: Class) -> Option<Battery> {
        self.batteries.get(&class).copied()
    }

    /// Variance of the logarithm of the rate between the classes, weighted by their shares: of
    /// general convolutions in 32-bit floats on all threads, which is what comes nearest to
    /// AI-Benchmark's score of a CPU.
    ///
    /// Classes without such a rate count with nothing.
    #[must_use]
    pub fn variance_between(&self) -> f64 {
        let rates = self.members.iter().filter_map(|member| {
            let rates = member.profile.cpu.f32.as_ref()?;
            Some((member.share, libm::log(rates.conv.value)))
        });
        let (mut weight, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for (share, log) in rates {
            weight += share;
            sum += share * log;
            squares += share * log * log;
        }
        if weight <= 0.0 {
            return 0.0;
        }
        let mean = sum / weight;
        (squares / weight - mean * mean).max(0.0)
    }

    /// Standard deviation of the logarithm of speed within a class: what the classes leave of the
    /// population's [`speed_spread`](Self::speed_spread).
    #[must_use]
    pub fn spread_within(&self) -> f64 {
        libm::sqrt((self.speed_spread * self.speed_spread - self.variance_between()).max(0.0))
    }
}

impl File {
    /// Checks ranges and sources.
    fn check(&self, mix: &str) -> Result<(), FleetError> {
        const SHARE: (&str, fn(f64) -> bool) =
            ("a share from 0 to 1", |v| (0.0..=1.0).contains(&v));
        const POSITIVE: (&str, fn(f64) -> bool) =
            ("above 0 and at most 1e9", |v| v > 0.0 && v <= 1e9);
        const SPREAD: (&str, fn(f64) -> bool) =
            ("a deviation from 0 to 3", |v| (0.0..=3.0).contains(&v));
        let mut figures = vec![
            ("speed_spread".to_owned(), &self.speed_spread, SPREAD),
            ("network.wifi".to_owned(), &self.network.wifi, SHARE),
            ("network.metered".to_owned(), &self.network.metered, SHARE),
            (
                "network.latency".to_owned(),
                &self.network.latency,
                POSITIVE,
            ),
        ];
        for (name, table) in [("down", &self.network.down), ("up", &self.network.up)] {
            for (key, figure, range) in [
                ("p10", &table.p10, POSITIVE),
                ("p50", &table.p50, POSITIVE),
                ("p90", &table.p90, POSITIVE),
                ("spread", &table.spread, SPREAD),
            ] {
                figures.push((format!("network.{name}.{key}"), figure, range));
            }
            if !(table.p10.value <= table.p50.value && table.p50.value <= table.p90.value) {
                return Err(FleetError::range(
                    &format!("network.{name}.p50"),
                    table.p50.value,
                    "between p10 and p90",
                ));
            }
        }
        for (class, table) in &self.battery {
            let key = |key: &str| format!("battery.{}.{key}", class.name());
            figures.push((key("capacity"), &table.capacity, POSITIVE));
            figures.push((key("charger"), &table.charger, POSITIVE));
        }
        for zone in &self.zone {
            figures.push((format!("zone {}", zone.utc), &zone.share, SHARE));
        }
        for device in &self.device {
            figures.push((format!("device {}", device.profile), &device.share, SHARE));
        }
        for (key, figure, (range, holds)) in figures {
            if !holds(figure.value) {
                return Err(FleetError::range(&key, figure.value, range));
            }
            if !self.sources.contains_key(figure.key()) {
                return Err(FleetError::Source {
                    mix: mix.to_owned(),
                    key,
                    source_key: figure.key().to_owned(),
                });
            }
        }
        Ok(())
    }
}
