//! The population: clients as views over shared data.

use std::sync::{Arc, OnceLock};

use fl_core::{ClientId, Examples, InputSpec, Seed, TargetSpec};
use serde::Serialize;

use crate::config::DatasetConfig;
use crate::error::DatasetError;
use crate::generator::{ClientScratch, Generator};
use crate::heterogeneity::Heterogeneity;
use crate::sets::{About, Material};
use crate::store::{Inputs, Store, Targets};

mod stored;
mod view;

use stored::{ClientTest, Stored};
pub use view::ClientExamples;
use view::View;

/// Clients up to which a generated population pools every held-out example; examples that a
/// larger one pools.
const POOLED: u64 = 10_000;
/// Examples up to which a small population pools all of them.
const POOLED_EXAMPLES: u64 = 1 << 18;

/// A data set and how it falls apart into clients. Cheap to clone; the data are shared.
#[derive(Clone, Debug)]
pub struct FederatedDataset {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    about: About,
    source: Source,
    class_names: Option<Vec<String>>,
    digest: OnceLock<[u8; 32]>,
    heterogeneity: OnceLock<Heterogeneity>,
}

#[derive(Debug)]
enum Source {
    Stored(Box<Stored>),
    Generated {
        generator: Box<dyn Generator>,
        test: OnceLock<Option<Box<Store>>>,
    },
}

/// What a data set is, for people and manifests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatasetSummary {
    /// The name in `[dataset]`.
    pub name: String,
    /// What it is.
    pub title: String,
    /// The licence, where known.
    pub licence: Option<String>,
    /// What to cite, where known.
    pub citation: Option<String>,
    /// Where it comes from, where known.
    pub source: Option<String>,
    /// Population.
    pub clients: u64,
    /// Owners that the data themselves name; zero where they name none.
    pub natural_clients: u64,
    /// Training examples of all clients; none for generated populations too large to add up.
    pub train_examples: Option<u64>,
    /// Examples of the central test set; none where it is not yet computed.
    pub test_examples: Option<u64>,
    /// Shape and kind of an input.
    pub input: InputSpec,
    /// Kind of a target.
    pub target: TargetSpec,
    /// Names of the classes, where known.
    pub class_names: Option<Vec<String>>,
    /// Memory that stored examples take.
    pub memory_bytes: u64,
}

impl FederatedDataset {
    /// Divides stored data as `config` says: `limit`, `partition`, `holdout` and `feature_noise`.
    /// This is also the door for data that no reader of this crate knows.
    ///
    /// # Errors
    /// [`DatasetError`] when the partition is impossible or left out where the data have no
    /// natural clients, or the test examples do not go with the training examples or their owners.
    pub fn divide(
        material: Material,
        config: &DatasetConfig,
        seed: Seed,
    ) -> Result<Self, DatasetError> {
        let Material {
            about,
            train,
            test,
            groups,
            class_names,
        } = material;
        let stored = Stored::divide(train, test, groups, &about.name, config, seed)?;
        Ok(Self::of(
            about,
            Source::Stored(Box::new(stored)),
            class_names,
        ))
    }

    /// A generated population.
    #[must_use]
    pub fn generated(about: About, generator: Box<dyn Generator>) -> Self {
        let test = OnceLock::new();
        Self::of(about, Source::Generated { generator, test }, None)
    }

    fn of(about: About, source: Source, class_names: Option<Vec<String>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                about,
                source,
                class_names,
                digest: OnceLock::new(),
                heterogeneity: OnceLock::new(),
            }),
        }
    }

    /// The name in `[dataset]`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.about.name
    }

    /// Population.
    #[must_use]
    pub fn clients(&self) -> u64 {
        match &self.inner.source {
            Source::Stored(stored) => stored.index.clients() as u64,
            Source::Generated { generator, .. } => generator.clients(),
        }
    }

    /// Shape and kind of an input.
    #[must_use]
    pub fn input(&self) -> &InputSpec {
        match &self.inner.source {
            Source::Stored(stored) => stored.train.input(),
            Source::Generated { generator, .. } => generator.input(),
        }
    }

    /// Kind of a target.
    #[must_use]
    pub fn target(&self) -> TargetSpec {
        match &self.inner.source {
            Source::Stored(stored) => stored.train.target(),
            Source::Generated { generator, .. } => generator.target(),
        }
    }

    /// Names of the classes, where known.
    #[must_use]
    pub fn class_names(&self) -> Option<&[String]> {
        self.inner.class_names.as_deref()
    }

    /// Name of a client, where the data name their clients and the partition is theirs.
    #[must_use]
    pub fn client_name(&self, client: ClientId) -> Option<&str> {
        let Source::Stored(stored) = &self.inner.source else {
            return None;
        };
        let names = stored.client_names.as_ref()?;
        names
            .get(usize::try_from(client.0).ok()?)
            .map(String::as_str)
    }

    /// Training examples of `client`; zero outside the population. Cheap.
    #[must_use]
    pub fn train_len(&self, client: ClientId) -> u64 {
        match &self.inner.source {
            Source::Stored(stored) => stored.index.len_of(client.0) as u64,
            Source::Generated { generator, .. } => generator.train_len(client),
        }
    }

    /// The client's training examples. Stored data are viewed, generated ones written into
    /// `scratch`, as are small clients' decoded images, so that they can be read without copying;
    /// a client outside the population has none.
    #[must_use]
    pub fn train<'a>(
        &'a self,
        client: ClientId,
        scratch: &'a mut ClientScratch,
    ) -> ClientExamples<'a> {
        match &self.inner.source {
            Source::Stored(stored) => {
                let rows = stored.rows(&stored.index, client, stored.contiguous);
                stored.open(&stored.train, rows, client, 0, scratch)
            }
            Source::Generated { generator, .. } => ClientExamples {
                view: View::Generated {
                    examples: generator.train(client, scratch),
                    input: generator.input(),
                    target: generator.target(),
                },
            },
        }
    }

    /// The client's own held-out examples, where the data set has such.
    #[must_use]
    pub fn client_test<'a>(
        &'a self,
        client: ClientId,
        scratch: &'a mut ClientScratch,
    ) -> Option<ClientExamples<'a>> {
        match &self.inner.source {
            Source::Stored(stored) => match stored.client_test.as_ref()? {
                ClientTest::InTrain(index) => {
                    let rows = stored.rows(index, client, stored.contiguous);
                    Some(stored.open(&stored.train, rows, client, 0, scratch))
                }
                ClientTest::InTest(index) => {
                    let rows = stored.rows(index, client, false);
                    let offset = stored.train.rows() as u32;
                    Some(stored.open(stored.test.as_ref()?, rows, client, offset, scratch))
                }
            },
            Source::Generated { generator, .. } => Some(ClientExamples {
                view: View::Generated {
                    examples: generator.test(client, scratch),
                    input: generator.input(),
                    target: generator.target(),
                },
            }),
        }
    }

    /// Held-out examples of `client`; zero where the set has none. Cheap.
    #[must_use]
    pub fn client_test_len(&self, client: ClientId) -> u64 {
        match &self.inner.source {
            Source::Stored(stored) => match &stored.client_test {
                Some(ClientTest::InTrain(index) | ClientTest::InTest(index)) => {
                    index.len_of(client.0) as u64
                }
                None => 0,
            },
            Source::Generated { generator, .. } => generator.test_len(client),
        }
    }

    /// The central test set, where there is one. A generated population pools held-out examples
    /// on the first call: all of them up to 10,000 clients and 262,144 examples, else the first
    /// 10,000 of clients spaced evenly.
    #[must_use]
    pub fn test(&self) -> Option<&dyn Examples> {
        match &self.inner.source {
            Source::Stored(stored) => stored.test.as_ref().map(|test| test as &dyn Examples),
            Source::Generated { generator, test } => test
                .get_or_init(|| pooled(generator.as_ref()).map(Box::new))
                .as_deref()
                .map(|test| test as &dyn Examples),
        }
    }

    /// How unlike the clients are; computed on the first call.
    #[must_use]
    pub fn heterogeneity(&self) -> Heterogeneity {
        // Labels are measured where the counts of all measured clients fit into 512 MB.
        let measured = self.clients().min(crate::heterogeneity::SAMPLE) as usize;
        let classes = match self.target() {
            TargetSpec::Class { classes } if classes.saturating_mul(measured) <= 1 << 26 => classes,
            TargetSpec::Class { .. } | TargetSpec::Sequence { .. } | TargetSpec::Real { .. } => 0,
        };
        self.inner
            .heterogeneity
            .get_or_init(|| {
                Heterogeneity::measure(self.clients(), classes, |client, counts| {
                    if !counts.is_empty()
                        && let Some(found) = self.label_counts(client)
                    {
                        counts.copy_from_slice(&found);
                    }
                    self.train_len(client)
                })
            })
            .clone()
    }

    /// How many training examples of each class `client` has; none for real targets.
    #[must_use]
    pub fn label_counts(&self, client: ClientId) -> Option<Vec<u64>> {
        let TargetSpec::Class { classes } = self.target() else {
            return None;
        };
        let mut counts = vec![0u64; classes];
        match &self.inner.source {
            Source::Stored(stored) => {
                for &row in stored.index.rows_of(client.0) {
                    counts[stored.train.label(row)? as usize] += 1;
                }
            }
            Source::Generated { generator, .. } => {
                let mut scratch = ClientScratch::default();
                for &class in generator.train(client, &mut scratch).classes {
                    counts[class as usize] += 1;
                }
            }
        }
        Some(counts)
    }

    /// SHA-256 of everything that a run can see: data, their normalisation and who owns which
    /// row; or the generator's parameters. Computed on the first call.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *self.inner.digest.get_or_init(|| match &self.inner.source {
            Source::Stored(stored) => stored.digest(),
            Source::Generated { generator, .. } => generator.digest(),
        })
    }

    /// What the data set is.
    #[must_use]
    pub fn summary(&self) -> DatasetSummary {
        let About {
            name,
            title,
            licence,
            citation,
            source,
        } = self.inner.about.clone();
        let (natural_clients, train_examples, test_examples, memory_bytes) =
            match &self.inner.source {
                Source::Stored(stored) => (
                    stored.natural_clients,
                    Some(stored.index.assigned() as u64),
                    Some(stored.test.as_ref().map_or(0, |test| test.rows() as u64)),
                    stored.train.memory() + stored.test.as_ref().map_or(0, Store::memory),
                ),
                Source::Generated { generator, test } => {
                    let clients = generator.clients();
                    let total = (clients <= 1 << 17)
                        .then(|| (0..clients).map(|c| generator.train_len(ClientId(c))).sum());
                    let test = test
                        .get()
                        .map(|test| test.as_deref().map_or(0, Store::rows) as u64);
                    (clients, total, test, 0)
                }
            };
        DatasetSummary {
            name,
            title,
            licence,
            citation,
            source,
            clients: self.clients(),
            natural_clients,
            train_examples,
            test_examples,
            input: self.input().clone(),
            target: self.target(),
            class_names: self.inner.class_names.clone(),
            memory_bytes,
        }
    }
}

/// Held-out examples of a generated population as one set.
fn pooled(generator: &dyn Generator) -> Option<Store> {
    let clients = generator.clients();
    let all: Option<u64> = (clients <= POOLED).then(|| {
        (0..clients)
            .map(|client| generator.test_len(ClientId(client)))
            .sum()
    });
    let limit = all.filter(|&all| all <= POOLED_EXAMPLES).unwrap_or(POOLED) as usize;
    let width = generator.input().len();
    let opened = clients.min(limit as u64);
    let mut scratch = ClientScratch::default();
    let (mut inputs, mut classes) = (Vec::new(), Vec::new());
    for place in 0..opened {
        let client = u128::from(place) * u128::from(clients) / u128::from(opened);
        let view = generator.test(ClientId(client as u64), &mut scratch);
        let rows = view.classes.len().min(limit - classes.len());
        inputs.extend_from_slice(&view.inputs[..rows * width]);
        classes.extend_from_slice(&view.classes[..rows]);
        if classes.len() == limit {
            break;
        }
    }
    if classes.is_empty() {
        return None;
    }
    let count = match generator.target() {
        TargetSpec::Class { classes } => classes,
        TargetSpec::Sequence { .. } | TargetSpec::Real { .. } => 0,
    };
    Store::new(
        "generated test examples",
        generator.input().clone(),
        generator.target(),
        Inputs::Real(inputs),
        Targets::classes(classes, count),
    )
    .ok()
}

#[cfg(test)]
mod tests;
