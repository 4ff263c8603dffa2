//! What a run would be on its devices, before anything is trained.

use fl_core::{ClientId, RoundId, VirtualTime, WorkLimit};

use super::{Call, Devices};
use crate::config::SimulationConfig;
use crate::error::SimError;
use crate::faults::ClientFaults;
use crate::fleet::{ClientFate, Vanishes};
use crate::population::Engine;
use crate::schedule::seconds;

/// Clients that stand for the population.
const SAMPLE: u64 = 2000;
/// Microseconds of an hour.
const HOUR: u64 = 3_600_000_000;

/// What a run would be on its devices, by a sample of the clients. All of it is modelled.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceForecast {
    /// The mix.
    pub mix: String,
    /// Device classes.
    pub classes: usize,
    /// Bytes of a task.
    pub task_bytes: u64,
    /// Bytes of an update.
    pub update_bytes: u64,
    /// Bytes of memory that training takes on a device.
    pub memory: u64,
    /// Share of the clients on whose devices that fits.
    pub fits: f64,
    /// Share of the clients that may come: mean over the hours of the first day.
    pub eligible_mean: f64,
    /// The least.
    pub eligible_min: f64,
    /// The largest.
    pub eligible_max: f64,
    /// Seconds from the call to the report of those that fit: 10 %, 50 % and 90 % quantiles.
    pub seconds: [f64; 3],
    /// Seconds of it that are training, the same quantiles.
    pub training_seconds: [f64; 3],
    /// Mean joules of training, beyond the idle device's.
    pub joules: f64,
}

/// What a run of `clients` clients, which have `examples` training examples, would be on its devices;
/// none without.
///
/// # Errors
/// [`SimError::Fleet`] when there is no such fleet, [`SimError::NoCosts`].
pub fn forecast<E: Engine>(
    config: &SimulationConfig,
    engine: &E,
    clients: u64,
    examples: &dyn Fn(ClientId) -> u64,
) -> Result<Option<DeviceForecast>, SimError> {
    let sample = clients.clamp(1, SAMPLE);
    let ids: Vec<ClientId> = (0..sample.min(clients))
        // Below `clients`.
        .map(|index| {
            ClientId((u128::from(index) * u128::from(clients) / u128::from(sample)) as u64)
        })
        .collect();
    let most = ids.iter().map(|&client| examples(client)).max();
    let devices = Devices::of(config, engine, None, None, most.unwrap_or(0))?;
    let Some(devices) = devices else {
        return Ok(None);
    };
    let share = |count: usize| count as f64 / ids.len().max(1) as f64;
    let hours: Vec<f64> = (0..24)
        .map(|hour| {
            let now = VirtualTime(hour * HOUR);
            let come = |client: &&ClientId| {
                let (client, state) = (**client, &devices.state);
                let fleet = &devices.fleet;
                let held = fleet.eligible(client, now, examples(client), &devices.costs, state);
                held.is_ok()
            };
            share(ids.iter().filter(come).count())
        })
        .collect();
    let call = Call {
        seed: config.seed,
        round: RoundId(0),
        start: VirtualTime(0),
        deadline: None,
        partial: false,
    };
    let fate = ClientFate {
        dropped: false,
        straggler: false,
        limit: WorkLimit::Full,
        vanishes: Vanishes::BeforeKeys,
        leaves_late: false,
        moment: 0.0,
    };
    let (mut whole, mut training, mut joules) = (Vec::new(), Vec::new(), 0.0);
    for &client in &ids {
        let examples = examples(client);
        let journey = devices.journey(&call, client, examples, &fate, &ClientFaults::NONE);
        if examples == 0 || devices.costs.fits(journey.device.member).is_err() {
            continue;
        }
        whole.push(seconds(journey.reported - journey.started));
        training.push(seconds(journey.trained - journey.downloaded));
        let session = &journey.session.joules;
        joules += session.cpu + session.gpu + session.npu;
    }
    let fits = ids.iter().filter(|&&client| {
        let member = devices.fleet.device(client).member;
        devices.costs.fits(member).is_ok()
    });
    Ok(Some(DeviceForecast {
        mix: devices.fleet.mix().name.clone(),
        classes: devices.fleet.mix().members.len(),
        task_bytes: devices.task,
        update_bytes: devices.update,
        memory: devices.costs.needs(),
        fits: share(fits.count()),
        eligible_mean: hours.iter().sum::<f64>() / hours.len() as f64,
        eligible_min: hours.iter().copied().fold(1.0, f64::min),
        eligible_max: hours.iter().copied().fold(0.0, f64::max),
        joules: joules / whole.len().max(1) as f64,
        seconds: quantiles(whole),
        training_seconds: quantiles(training),
    }))
}

fn quantiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    [0.1, 0.5, 0.9].map(|share| super::record::quantile(&values, share).unwrap_or(0.0))
}
