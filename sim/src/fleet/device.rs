//! The device of a client: a pure function of the seed and the client's id.
//!
//! Nothing is stored: a device is drawn when it is asked for, from the stream at (`Device`, seed,
//! client), in a fixed order, so that what a check of eligibility needs comes first. Times of year,
//! wear and replacement are not modelled: a client keeps its device for the whole run.

use std::sync::Arc;

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream, VirtualTime, WorkLimit};
use fl_edge::device::DelegateKind;
use fl_edge::device::profile::{Class, DeviceProfile};
use serde::{Deserialize, Serialize};

use super::availability::{Availability, Life, Signal, Signals};
use super::cost::{Costs, Session, Unfit};
use super::eligibility::Requirements;
use super::error::FleetError;
use super::mix::{Battery, DefaultRhythm, Mix, MixConfig, Zones};
use super::network::Link;
use super::state::FleetState;
use super::trace::{Capacities, Capacity, Recorded, Traces};

/// Speeds beyond so many deviations are not drawn: one phone in 16,000.
const MOST_DEVIATIONS: f64 = 4.0;

/// What population of devices there is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    /// The classes and their shares.
    pub mix: MixConfig,
    /// Share of the devices whose NPU is there and works, of those whose class has one, in `[0, 1]`.
    pub npu_share: f64,
    /// Standard deviation of the logarithm of speed within a class, from 0 to 3; what the mix leaves
    /// of the population's when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_sigma: Option<f64>,
    /// How days look; as the mix says when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rhythm: Option<DefaultRhythm>,
    /// Offsets from UTC in hours and the shares that live by them; the mix's when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<(f64, f64)>>,
    /// The hour of the day, UTC, at which virtual time begins, in `[0, 24)`.
    pub start_hour: f64,
    /// Who may train.
    pub requirements: Requirements,
    /// Recordings that take the place of rhythm, time zones and hour.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub traces: Option<Recorded<Traces>>,
    /// Recorded capacities, which then decide speed and links.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub capacities: Option<Recorded<Capacities>>,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            mix: MixConfig::default(),
            npu_share: 0.5,
            speed_sigma: None,
            rhythm: None,
            zones: None,
            start_hour: 0.0,
            requirements: Requirements::default(),
            traces: None,
            capacities: None,
        }
    }
}

/// The device of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The client.
    pub client: ClientId,
    /// Its class, as an index into [`Mix::members`].
    pub member: usize,
    /// The kind of its class.
    pub class: Class,
    /// Whether it has an NPU that works.
    pub npu: bool,
    /// How many times faster than its class it is, above 0; log-normal of median 1.
    pub speed: f64,
    /// Bytes that one program may take; those of its class, since nobody published how they vary
    /// within one.
    pub memory: u64,
    /// The offset of its clock from UTC, in minutes.
    pub zone: i32,
    /// Whether it ever has WiFi.
    pub wifi: bool,
    /// Whether what it sends without WiFi is metered.
    pub metered: bool,
    /// Its link.
    pub link: Link,
    /// Its battery; none on the mains.
    pub battery: Option<Battery>,
    /// Its recorded capacity, where there are recordings.
    pub capacity: Option<Capacity>,
    /// Which recording is its own, in `[0, 1)`.
    pick: f64,
}

impl Device {
    /// What of it decides its signals.
    #[must_use]
    pub fn life(&self) -> Life {
        Life {
            client: self.client,
            zone: self.zone,
            wifi: self.wifi,
            pick: self.pick,
        }
    }

    /// Delegates that it is without.
    #[must_use]
    pub fn lost(&self) -> &'static [DelegateKind] {
        lost(self.npu)
    }
}

pub(super) fn lost(npu: bool) -> &'static [DelegateKind] {
    match npu {
        true => &[],
        false => &[DelegateKind::Npu],
    }
}

/// What a client is to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The round.
    pub round: RoundId,
    /// When it begins.
    pub at: VirtualTime,
    /// Examples that the client holds.
    pub examples: u64,
    /// How much of the plan's work it does.
    pub limit: WorkLimit,
}

/// The first draws of a device: what a check of eligibility needs.
pub(super) struct Sketch {
    pub(super) member: usize,
    pub(super) life: Life,
    npu: bool,
    metered: bool,
    /// Where the other draws go on.
    stream: Stream,
}

/// A population of devices of any size.
#[derive(Clone, Debug)]
pub struct Fleet {
    seed: Seed,
    mix: Mix,
    npu_share: f64,
    spread: f64,
    requirements: Requirements,
    availability: Availability,
    capacities: Option<Arc<Capacities>>,
}

impl Fleet {
    /// The fleet of a configuration.
    ///
    /// # Errors
    /// [`FleetError`] naming the key or the name that cannot be.
    pub fn new(config: &DeviceConfig, seed: Seed) -> Result<Self, FleetError> {
        if !(0.0..=1.0).contains(&config.npu_share) {
            let range = "a share between 0 and 1";
            return Err(FleetError::range("npu_share", config.npu_share, range));
        }
        if let Some(sigma) = config.speed_sigma
            && !(0.0..=3.0).contains(&sigma)
        {
            return Err(FleetError::range("speed_sigma", sigma, "from 0 to 3"));
        }
        if !(0.0..24.0).contains(&config.start_hour) {
            let range = "at least 0 and below 24";
            return Err(FleetError::range("start_hour", config.start_hour, range));
        }
        config.requirements.validate()?;
        let mut mix = Mix::new(&config.mix)?;
        if let Some(zones) = &config.zones {
            mix.zones = Zones::new(&mix.name, zones)?;
        }
        let availability = match (&config.traces, config.rhythm.unwrap_or(mix.rhythm)) {
            (Some(traces), _) => Availability::Traces(Arc::clone(traces.items())),
            (None, DefaultRhythm::AlwaysOn) => Availability::AlwaysOn,
            (None, DefaultRhythm::Diurnal) => Availability::diurnal(seed, config.start_hour),
        };
        let capacities = config.capacities.as_ref();
        Ok(Self {
            seed,
            npu_share: config.npu_share,
            spread: config.speed_sigma.unwrap_or_else(|| mix.spread_within()),
            mix,
            requirements: config.requirements,
            availability,
            capacities: capacities.map(|recorded| Arc::clone(recorded.items())),
        })
    }

    /// The mix.
    #[must_use]
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// Who may train.
    #[must_use]
    pub fn requirements(&self) -> &Requirements {
        &self.requirements
    }

    /// What decides the signals.
    #[must_use]
    pub fn availability(&self) -> &Availability {
        &self.availability
    }

    /// Standard deviation of the logarithm of speed within a class.
    #[must_use]
    pub fn spread(&self) -> f64 {
        self.spread
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The profile of a device.
    #[must_use]
    pub fn profile(&self, device: &Device) -> &DeviceProfile {
        &self.mix.members[device.member].profile
    }

    /// The draws in their order. Appending one changes no other; inserting one changes every device.
    pub(super) fn sketch(&self, client: ClientId) -> Sketch {
        let mut stream = Stream::at(Purpose::Device, self.seed, RoundId(0), client);
        let member = self.mix.pick(stream.uniform());
        let npu = stream.uniform() < self.npu_share;
        let zone = self.mix.zones.pick(stream.uniform());
        let wifi = stream.uniform() < self.mix.network.wifi;
        let metered = stream.uniform() < self.mix.network.metered;
        let pick = stream.uniform();
        Sketch {
            member,
            life: Life {
                client,
                zone,
                wifi,
                pick,
            },
            npu,
            metered,
            stream,
        }
    }

    /// The device of a client.
    #[must_use]
    pub fn device(&self, client: ClientId) -> Device {
        let Sketch {
            member,
            life,
            npu,
            metered,
            mut stream,
        } = self.sketch(client);
        let profile = &self.mix.members[member].profile;
        let deviations = stream.normal().clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS);
        let own = self.mix.network.link(&mut stream);
        let capacity = stream.uniform();
        let capacity = self.capacities.as_deref().map(|all| *all.of(capacity));
        Device {
            client,
            member,
            class: profile.class,
            npu: npu && profile.npu.is_some(),
            speed: libm::exp(self.spread * deviations),
            memory: profile.memory.usable_bytes(),
            zone: life.zone,
            wifi: life.wifi,
            metered,
            link: capacity.map_or(own, |capacity| own.at_rate(capacity.bytes_a_second())),
            battery: self.mix.battery(profile.class),
            capacity,
            pick: life.pick,
        }
    }

    /// Which signals hold for a client at a moment.
    #[must_use]
    pub fn signals(&self, client: ClientId, at: VirtualTime) -> Signals {
        self.availability.signals(&self.sketch(client).life, at)
    }

    /// The end of the time from `at` on in which all signals that the requirements ask for hold
    /// without a break; see [`Availability::until`].
    ///
    /// # Errors
    /// The first signal that does not hold at `at`.
    pub fn holds_until(&self, client: ClientId, at: VirtualTime) -> Result<VirtualTime, Signal> {
        let required = self.requirements.signals();
        self.availability
            .until(&self.sketch(client).life, at, required)
    }

    /// The stream of a client's transfers in a round: its download first, then its upload.
    #[must_use]
    pub fn transfers(&self, round: RoundId, client: ClientId) -> Stream {
        Stream::at(Purpose::Transfer, self.seed, round, client)
    }

    /// A client's training in a round that it begins at `at`, on its device as it is by then.
    ///
    /// # Errors
    /// [`Unfit`] when the device cannot hold it.
    pub fn session(
        &self,
        costs: &Costs,
        state: &FleetState,
        device: &Device,
        job: Job,
    ) -> Result<Session, Unfit> {
        let heat = state.condition(self, device, job.at).heat();
        let mut stream = Stream::at(Purpose::DeviceSession, self.seed, job.round, device.client);
        costs.session(device, heat, job.examples, job.limit, &mut stream)
    }

    /// The share of the first `clients` clients for whom all required signals hold at a moment, for
    /// reports.
    ///
    /// Cost: a check for each of them, so give a sample of the population.
    #[must_use]
    pub fn available_share(&self, clients: u64, at: VirtualTime) -> f64 {
        let all = (0..clients).map(ClientId);
        let held = all.filter(|&client| self.holds_until(client, at).is_ok());
        held.count() as f64 / clients.max(1) as f64
    }
}
