//! What devices report of a version: the accuracy of its real file on real held-out examples.
//!
//! A device that is asked judges the version that it runs on the examples of one client of the data
//! set, drawn for that release and stage: what it saw meanwhile. The accuracy of every version on
//! every such client is measured once.

use std::sync::Arc;

use fl_core::{ClientId, Evaluation, Examples, Purpose, RoundId, Seed, ServedModel, Stream};
use fl_edge::Served;
use fl_edge::file::ModelFile;

use super::guard::ONE;
use super::registry::{Registry, VersionId};
use super::{RegistryError, out_of_range};
use crate::checkpoint::ServedFile;
use crate::error::SimError;
use crate::evaluate::some;
use crate::population::Population;

/// Examples of the central test set that stand for one client, where clients hold none back.
const PIECE: usize = 20;

/// Accuracies of versions on clients' held-out examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    clients: u64,
    /// In millionths; the clients of the first version, then those of the second.
    values: Vec<u32>,
}

impl Metric {
    /// Accuracies that are known, in millionths: for each version in the registry's order, one for each
    /// client, at least one, and as many for each.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] when some are missing or above 1,000,000.
    pub fn known(versions: &[Vec<u32>]) -> Result<Self, SimError> {
        let clients = versions.first().map_or(0, Vec::len);
        let even = versions.iter().all(|values| values.len() == clients);
        if clients == 0 || !even {
            let range = "as many for each version, at least one";
            return Err(out_of_range("the number of accuracies", &clients, range));
        }
        let values: Vec<u32> = versions.iter().flatten().copied().collect();
        if let Some(value) = values.iter().find(|&&value| value > ONE) {
            let range = "at most 1000000 millionths";
            return Err(out_of_range("an accuracy", value, range));
        }
        Ok(Self {
            clients: clients as u64,
            values,
        })
    }

    /// Measures model files on the held-out examples of up to `max_clients` clients, drawn once; of
    /// clients without such, on pieces of the central test set.
    ///
    /// # Errors
    /// [`SimError`] when a file cannot be served or does not fit the data, or nothing is held out.
    pub fn measure<P: Population>(
        files: &[ServedFile],
        population: &P,
        max_clients: u64,
        seed: Seed,
    ) -> Result<Self, SimError> {
        let stream = Stream::at(Purpose::RolloutGuard, seed, RoundId(0), ClientId(0));
        let clients = some(max_clients, stream, RoundId(0), population.clients())?;
        let mut versions = Vec::new();
        for file in files {
            let model = open(file)?;
            let mut values = own(&model, population, &clients, file.round)?;
            if values.is_empty() {
                values = pieces(&model, population, max_clients, file.round)?;
            }
            if values.is_empty() {
                return Err(SimError::NothingHeldOut);
            }
            versions.push(values);
        }
        Self::known(&versions)
    }

    /// Clients whose examples devices may have.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.clients
    }

    /// The accuracy of a version on the examples of a client, in millionths; 0 of one that is not here.
    #[must_use]
    pub fn value(&self, version: VersionId, client: u64) -> u32 {
        let index = u64::from(version.0) * self.clients + client;
        self.values.get(index as usize).copied().unwrap_or(0)
    }

    /// The mean accuracy of a version over the clients.
    #[must_use]
    pub fn mean(&self, version: VersionId) -> f64 {
        let sum: u64 = (0..self.clients)
            .map(|client| u64::from(self.value(version, client)))
            .sum();
        sum as f64 / self.clients.max(1) as f64 / f64::from(ONE)
    }

    pub(super) fn check(&self, registry: &Registry) -> Result<(), SimError> {
        let versions = self.values.len() as u64 / self.clients.max(1);
        if versions == registry.len() as u64 {
            return Ok(());
        }
        let range = "one for each version of the registry";
        Err(out_of_range(
            "the number of measured versions",
            &versions,
            range,
        ))
    }
}

/// The model of a file, as a device opens it: every byte is checked first.
fn open(file: &ServedFile) -> Result<Served, SimError> {
    let bytes = Arc::clone(&file.bytes);
    let opened = ModelFile::open(bytes).and_then(|file| {
        file.verify()?;
        file.program()
    });
    let program = opened.map_err(|source| SimError::RolloutFile {
        round: file.round,
        reason: source.to_string(),
    })?;
    Ok(Served::new(Arc::new(program)))
}

fn millionths(score: &Evaluation) -> u32 {
    // Correct predictions are counted whole, so this is exact.
    libm::round(score.accuracy() * f64::from(ONE)) as u32
}

/// On the clients' own held-out examples; those without any are left out.
fn own<P: Population>(
    model: &Served,
    population: &P,
    clients: &[ClientId],
    round: u64,
) -> Result<Vec<u32>, SimError> {
    let mut scratch = P::Scratch::default();
    let mut values = Vec::new();
    for &client in clients {
        let Some(data) = population.client_test(client, &mut scratch) else {
            continue;
        };
        if data.is_empty() {
            continue;
        }
        let score = model.evaluate(&data, 0..data.len());
        let score = score.map_err(|source| SimError::EvaluateClient {
            round: RoundId(round),
            client,
            source,
        })?;
        values.push(millionths(&score));
    }
    Ok(values)
}

/// On pieces of the central test set.
fn pieces<P: Population>(
    model: &Served,
    population: &P,
    max_clients: u64,
    round: u64,
) -> Result<Vec<u32>, SimError> {
    let Some(data) = population.test().filter(|data| !data.is_empty()) else {
        return Ok(Vec::new());
    };
    let most = usize::try_from(max_clients).unwrap_or(usize::MAX).max(1);
    let size = data.len().div_ceil(most).max(PIECE);
    let mut values = Vec::new();
    for start in (0..data.len()).step_by(size) {
        let rows = start..(start + size).min(data.len());
        let score = model.evaluate(data, rows);
        let score = score.map_err(|source| SimError::EvaluateTest {
            round: RoundId(round),
            source,
        })?;
        values.push(millionths(&score));
    }
    Ok(values)
}

/// A registry of `files` in their order, with what devices report of them.
///
/// # Errors
/// [`SimError`] when a file cannot be published or measured.
pub fn prepare<P: Population>(
    mut registry: Registry,
    files: Vec<ServedFile>,
    population: &P,
    max_clients: u64,
    seed: Seed,
) -> Result<(Registry, Metric), SimError> {
    let metric = Metric::measure(&files, population, max_clients, seed)?;
    for file in files {
        let published: Result<VersionId, RegistryError> = registry.publish(file);
        published?;
    }
    Ok((registry, metric))
}
