//! The population: clients as views over shared data.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use fl_core::{
    ClientId, Examples, InputSpec, InputsMut, Purpose, RoundId, Seed, Stream, TargetSpec,
    TargetsMut,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::config::DatasetConfig;
use crate::error::DatasetError;
use crate::generator::{ClientScratch, GeneratedView, Generator};
use crate::heterogeneity::Heterogeneity;
use crate::index::{ClientIndex, Groups, Rows};
use crate::partition::{AnyPartitioner, FeatureNoise, Natural, PartitionConfig, Partitioner as _};
use crate::sets::{About, Material};
use crate::store::{Inputs, Store, Targets, hash_words};
use crate::table::MISSING;

/// Clients whose inputs hold at most so many numbers are decoded once when they are opened, into
/// the scratch (256 KiB), so that a trainer reads rows without copying; larger ones batch by
/// batch.
const DECODED_NUMBERS: usize = 1 << 16;

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
        test: OnceLock<Option<Store>>,
    },
}

/// Data in memory and who owns which row.
#[derive(Debug)]
struct Stored {
    train: Store,
    index: ClientIndex,
    /// Whether client `c`'s rows are `offsets[c] .. offsets[c + 1]`.
    contiguous: bool,
    test: Option<Store>,
    client_test: Option<ClientTest>,
    noise: Option<FeatureNoise>,
    /// Name of each client, where the partition is natural.
    client_names: Option<Vec<String>>,
    natural_clients: u64,
}

/// Where clients' own held-out examples lie.
#[derive(Debug)]
enum ClientTest {
    /// Among the training store's rows.
    InTrain(ClientIndex),
    /// Among the test store's rows.
    InTest(ClientIndex),
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

/// A client's examples: a view.
#[derive(Debug)]
pub struct ClientExamples<'a> {
    view: View<'a>,
}

#[derive(Debug)]
enum View<'a> {
    /// Rows of a store, decoded as they are read.
    Rows {
        store: &'a Store,
        rows: RowSet<'a>,
        noise: Option<RowNoise<'a>>,
    },
    /// Rows of a store, decoded when the client was opened.
    Decoded {
        store: &'a Store,
        rows: RowSet<'a>,
        inputs: &'a [f32],
    },
    /// Generated.
    Generated {
        examples: GeneratedView<'a>,
        input: &'a InputSpec,
        target: TargetSpec,
    },
}

/// A client's rows of a store.
#[derive(Clone, Copy, Debug)]
enum RowSet<'a> {
    Listed(&'a [u32]),
    Range { start: u32, end: u32 },
}

impl RowSet<'_> {
    fn len(self) -> usize {
        match self {
            Self::Listed(rows) => rows.len(),
            Self::Range { start, end } => (end - start) as usize,
        }
    }

    fn at(self, place: u32) -> u32 {
        match self {
            Self::Listed(rows) => rows[place as usize],
            Self::Range { start, .. } => start + place,
        }
    }
}

/// The noise of one client's rows.
#[derive(Clone, Copy, Debug)]
struct RowNoise<'a> {
    noise: &'a FeatureNoise,
    client: ClientId,
    /// Added to a row's number, so that training and test rows have noise of their own.
    offset: u32,
}

impl RowNoise<'_> {
    fn add(self, row: u32, features: &mut [f32]) {
        self.noise
            .add(self.client, row.wrapping_add(self.offset), features);
    }
}

impl Examples for ClientExamples<'_> {
    fn len(&self) -> usize {
        match &self.view {
            View::Rows { rows, .. } | View::Decoded { rows, .. } => rows.len(),
            View::Generated { examples, .. } => examples.classes.len(),
        }
    }

    fn input(&self) -> &InputSpec {
        match &self.view {
            View::Rows { store, .. } | View::Decoded { store, .. } => store.input(),
            View::Generated { input, .. } => input,
        }
    }

    fn target(&self) -> TargetSpec {
        match &self.view {
            View::Rows { store, .. } | View::Decoded { store, .. } => store.target(),
            View::Generated { target, .. } => *target,
        }
    }

    fn fill(&self, rows: &[u32], inputs: InputsMut<'_>, targets: TargetsMut<'_>) {
        match &self.view {
            View::Rows {
                store,
                rows: own,
                noise,
            } => {
                let own_rows = || rows.iter().map(|&place| own.at(place));
                match (noise, inputs) {
                    (Some(noise), InputsMut::Real(out)) => {
                        let width = store.input().len();
                        for (row, out) in own_rows().zip(out.chunks_exact_mut(width)) {
                            store.decode(row, out);
                            noise.add(row, out);
                        }
                    }
                    (_, inputs) => store.fill_inputs(own_rows(), inputs),
                }
                store.fill_targets(own_rows(), targets);
            }
            View::Decoded {
                store,
                rows: own,
                inputs: decoded,
            } => {
                copy_rows(decoded, store.input().len(), rows, inputs);
                store.fill_targets(rows.iter().map(|&place| own.at(place)), targets);
            }
            View::Generated {
                examples, input, ..
            } => {
                copy_rows(examples.inputs, input.len(), rows, inputs);
                if let TargetsMut::Classes(out) = targets {
                    for (out, &row) in out.iter_mut().zip(rows) {
                        *out = examples.classes[row as usize];
                    }
                }
            }
        }
    }

    fn real_rows(&self) -> Option<&[f32]> {
        match &self.view {
            View::Rows {
                store,
                rows: RowSet::Range { start, end },
                noise: None,
            } => store.real_rows(*start as usize..*end as usize),
            View::Rows { .. } => None,
            View::Decoded { inputs, .. } => Some(inputs),
            View::Generated { examples, .. } => Some(examples.inputs),
        }
    }
}

fn copy_rows(from: &[f32], width: usize, rows: &[u32], inputs: InputsMut<'_>) {
    if let InputsMut::Real(out) = inputs {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
            let start = row as usize * width;
            out.copy_from_slice(&from[start..start + width]);
        }
    }
}

impl FederatedDataset {
    /// Divides stored data as `config` says: `limit`, `partition`, `holdout` and `feature_noise`.
    /// This is also the door for data that no reader of this crate knows.
    ///
    /// # Errors
    /// [`DatasetError`] when the partition is impossible or left out where the data have no
    /// natural clients.
    pub fn divide(
        mut material: Material,
        config: &DatasetConfig,
        seed: Seed,
    ) -> Result<Self, DatasetError> {
        if let Some(limit) = config.limit.and_then(|limit| usize::try_from(limit).ok()) {
            material.train.truncate(limit);
            if let Some(groups) = &mut material.groups {
                groups.of.truncate(limit);
            }
        }
        let Material {
            about,
            mut train,
            test,
            groups,
            class_names,
        } = material;
        let partition = match (&config.partition, &groups) {
            (Some(partition), _) => partition.clone(),
            (None, Some(_)) => PartitionConfig::Natural(Natural::default()),
            (None, None) => {
                return Err(DatasetError::MissingKey {
                    name: about.name,
                    key: "partition",
                    meaning: "how the examples fall apart into clients, e.g. { kind = \"iid\", clients = 100 }",
                });
            }
        };
        let natural = matches!(partition, PartitionConfig::Natural(_));
        if natural && groups.is_none() {
            return Err(DatasetError::NoNaturalClients {
                name: about.name,
                instead: "choose another `partition`, e.g. { kind = \"dirichlet\", alpha = 0.3, clients = 100 }",
            });
        }
        let labels = train.labels();
        let rows = Rows {
            len: train.rows(),
            labels: labels.as_deref(),
            classes: train.classes(),
            groups: groups.as_ref().map(|groups| Groups {
                of: &groups.of,
                count: groups.names.len(),
                noun: groups.noun,
            }),
        };
        let partitioner = AnyPartitioner::from_config(partition)
            .map_err(crate::partition::PartitionError::from)?;
        let index = partitioner.assign(&rows, seed)?;
        drop(labels);
        let owner_of_client = |client: u64| {
            let groups = groups.as_ref().filter(|_| natural)?;
            let row = *index.rows_of(client).first()?;
            Some(groups.of[row as usize])
        };
        let clients = index.clients() as u64;
        let client_names = groups.as_ref().filter(|_| natural).map(|groups| {
            (0..clients)
                .map(|client| {
                    let owner = owner_of_client(client);
                    owner.map_or_else(String::new, |owner| groups.names[owner as usize].clone())
                })
                .collect()
        });
        let test_owners = groups
            .as_ref()
            .filter(|_| natural)
            .and_then(|groups| groups.of_test.as_deref());
        let mut client_test = match (config.holdout, test_owners) {
            (Some(_), _) | (None, None) => None,
            (None, Some(owners)) => {
                let client_of: BTreeMap<u32, u32> = (0..clients)
                    .filter_map(|client| Some((owner_of_client(client)?, client as u32)))
                    .collect();
                let owners: Vec<u32> = (owners.iter())
                    .map(|owner| client_of.get(owner).copied().unwrap_or(MISSING))
                    .collect();
                Some(ClientTest::InTest(ClientIndex::from_owners(
                    &owners,
                    index.clients(),
                )?))
            }
        };
        let mut index = index;
        if let Some(share) = config.holdout {
            let (kept, held) = hold_out(&index, share, seed, train.rows())?;
            index = kept;
            client_test = Some(ClientTest::InTrain(held));
        }
        let noise = match config.feature_noise {
            None => None,
            Some(sigma) => {
                if !matches!(train.input(), InputSpec::Real(_)) {
                    return Err(DatasetError::UnusedKey {
                        name: about.name,
                        key: "feature_noise",
                        keys: "no noise, for its inputs are text".to_owned(),
                    });
                }
                let noise = FeatureNoise::new(sigma, clients, seed)
                    .map_err(crate::partition::PartitionError::from)?;
                Some(noise)
            }
        };
        let mut contiguous = false;
        if train.prefers_order() && noise.is_none() {
            let mut order = index.rows().to_vec();
            if let Some(ClientTest::InTrain(held)) = &mut client_test {
                let start = order.len() as u32;
                order.extend_from_slice(held.rows());
                *held = ClientIndex::new(
                    held.offsets().to_vec(),
                    (start..order.len() as u32).collect(),
                    order.len(),
                )?;
            }
            train.reorder(&order);
            index = ClientIndex::new(
                index.offsets().to_vec(),
                (0..index.assigned() as u32).collect(),
                order.len(),
            )?;
            contiguous = true;
        }
        let natural_clients = groups.map_or(0, |groups| groups.names.len() as u64);
        Ok(Self::of(
            about,
            Source::Stored(Box::new(Stored {
                train,
                index,
                contiguous,
                test,
                client_test,
                noise,
                client_names,
                natural_clients,
            })),
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
                .get_or_init(|| pooled(generator.as_ref()))
                .as_ref()
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
            TargetSpec::Class { .. } | TargetSpec::Real { .. } => 0,
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
                        .map(|test| test.as_ref().map_or(0, Store::rows) as u64);
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
        TargetSpec::Real { .. } => 0,
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

impl Stored {
    fn rows<'a>(&self, index: &'a ClientIndex, client: ClientId, contiguous: bool) -> RowSet<'a> {
        let rows = index.rows_of(client.0);
        match (contiguous, rows.first()) {
            (true, Some(&start)) => RowSet::Range {
                start,
                end: start + rows.len() as u32,
            },
            _ => RowSet::Listed(rows),
        }
    }

    fn open<'a>(
        &'a self,
        store: &'a Store,
        rows: RowSet<'a>,
        client: ClientId,
        offset: u32,
        scratch: &'a mut ClientScratch,
    ) -> ClientExamples<'a> {
        let width = store.input().len();
        let noise = self.noise.as_ref().map(|noise| RowNoise {
            noise,
            client,
            offset,
        });
        let in_place = noise.is_none()
            && matches!(rows, RowSet::Range { .. })
            && store.real_rows(0..0).is_some();
        let small = matches!(store.input(), InputSpec::Real(_))
            && rows.len().saturating_mul(width) <= DECODED_NUMBERS;
        if in_place || !small {
            return ClientExamples {
                view: View::Rows { store, rows, noise },
            };
        }
        scratch.inputs.clear();
        scratch.inputs.resize(rows.len() * width, 0.0);
        for (place, out) in (0..).zip(scratch.inputs.chunks_exact_mut(width)) {
            let row = rows.at(place);
            store.decode(row, out);
            if let Some(noise) = noise {
                noise.add(row, out);
            }
        }
        ClientExamples {
            view: View::Decoded {
                store,
                rows,
                inputs: &scratch.inputs,
            },
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"fledgling data set, version 1");
        self.train.hash(&mut hash);
        hash_index(&mut hash, &self.index);
        hash.update([u8::from(self.test.is_some())]);
        if let Some(test) = &self.test {
            test.hash(&mut hash);
        }
        match &self.client_test {
            None => hash.update([0]),
            Some(ClientTest::InTrain(index)) => {
                hash.update([1]);
                hash_index(&mut hash, index);
            }
            Some(ClientTest::InTest(index)) => {
                hash.update([2]);
                hash_index(&mut hash, index);
            }
        }
        if let Some(noise) = &self.noise {
            // Two levels and one noisy row tell the level and the seed.
            for client in [ClientId(1), ClientId(self.index.clients() as u64)] {
                let mut row = [0f32; 4];
                noise.add(client, 0, &mut row);
                hash.update(noise.level(client).to_le_bytes());
                hash_words(&mut hash, row.iter().map(|value| value.to_le_bytes()));
            }
        }
        hash.finalize().into()
    }
}

fn hash_index(hash: &mut Sha256, index: &ClientIndex) {
    hash.update((index.clients() as u64).to_le_bytes());
    hash_words(hash, index.offsets().iter().map(|v| v.to_le_bytes()));
    hash_words(hash, index.rows().iter().map(|v| v.to_le_bytes()));
}

/// Takes `floor(share * n)` of each client's `n` rows from training, but leaves at least one;
/// rows stay in their order.
fn hold_out(
    index: &ClientIndex,
    share: f64,
    seed: Seed,
    total: usize,
) -> Result<(ClientIndex, ClientIndex), DatasetError> {
    let (mut kept_offsets, mut held_offsets) = (vec![0u32], vec![0u32]);
    let (mut kept, mut held) = (Vec::new(), Vec::new());
    let mut places = Vec::new();
    for client in 0..index.clients() as u64 {
        let rows = index.rows_of(client);
        let count = (rows.len() as f64 * share) as usize;
        let count = count.min(rows.len().saturating_sub(1));
        places.clear();
        places.extend(0..rows.len() as u32);
        let mut stream = Stream::at(Purpose::TrainTestSplit, seed, RoundId(0), ClientId(client));
        stream.shuffle(&mut places);
        places[..count].sort_unstable();
        places[count..].sort_unstable();
        held.extend(places[..count].iter().map(|&place| rows[place as usize]));
        kept.extend(places[count..].iter().map(|&place| rows[place as usize]));
        kept_offsets.push(kept.len() as u32);
        held_offsets.push(held.len() as u32);
    }
    Ok((
        ClientIndex::new(kept_offsets, kept, total)?,
        ClientIndex::new(held_offsets, held, total)?,
    ))
}
