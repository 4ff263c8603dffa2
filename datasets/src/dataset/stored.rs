//! Data in memory and who owns which row.

use std::collections::BTreeMap;

use fl_core::{ClientId, InputSpec, Purpose, RoundId, Seed, Stream};
use sha2::{Digest as _, Sha256};

use crate::config::DatasetConfig;
use crate::dataset::view::{ClientExamples, RowNoise, RowSet, View};
use crate::error::DatasetError;
use crate::generator::ClientScratch;
use crate::index::{ClientIndex, Groups, Rows};
use crate::partition::{
    AnyPartitioner, FeatureNoise, Natural, PartitionConfig, PartitionError, Partitioner as _,
};
use crate::read::malformed;
use crate::sets::Owners;
use crate::store::{Store, hash_words};
use crate::table::MISSING;

/// Clients whose inputs hold at most so many numbers are decoded once when they are opened, into
/// the scratch (256 KiB), so that a trainer reads rows without copying; larger ones batch by
/// batch.
const DECODED_NUMBERS: usize = 1 << 16;

/// Data in memory and who owns which row.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) train: Store,
    pub(super) index: ClientIndex,
    /// Whether client `c`'s rows are `offsets[c] .. offsets[c + 1]`.
    pub(super) contiguous: bool,
    pub(super) test: Option<Store>,
    pub(super) client_test: Option<ClientTest>,
    pub(super) noise: Option<FeatureNoise>,
    /// Name of each client, where the partition is natural.
    pub(super) client_names: Option<Vec<String>>,
    pub(super) natural_clients: u64,
}

/// Where clients' own held-out examples lie.
#[derive(Debug)]
pub(super) enum ClientTest {
    /// Among the training store's rows.
    InTrain(ClientIndex),
    /// Among the test store's rows.
    InTest(ClientIndex),
}

impl Stored {
    /// Divides stored data as `config` says.
    pub(super) fn divide(
        mut train: Store,
        test: Option<Store>,
        mut groups: Option<Owners>,
        name: &str,
        config: &DatasetConfig,
        seed: Seed,
    ) -> Result<Self, DatasetError> {
        check_test(&train, test.as_ref(), groups.as_ref(), name)?;
        if let Some(limit) = config.limit.and_then(|limit| usize::try_from(limit).ok()) {
            train.truncate(limit);
            if let Some(groups) = &mut groups {
                groups.of.truncate(limit);
            }
        }
        let partition = chosen(config, groups.is_some(), name)?;
        let natural = matches!(partition, PartitionConfig::Natural(_));
        let mut index = assign(partition, &train, groups.as_ref(), seed)?;
        let mut client_test = None;
        let mut client_names = None;
        if let Some(groups) = groups.as_ref().filter(|_| natural) {
            let owners = owners_of_clients(&index, groups);
            let name = |&owner: &u32| groups.names.get(owner as usize).cloned();
            client_names = Some(owners.iter().map(|o| name(o).unwrap_or_default()).collect());
            if let Some(of_test) = groups.of_test.as_deref() {
                let client_of: BTreeMap<u32, u32> = owners.into_iter().zip(0..).collect();
                let owners: Vec<u32> = (of_test.iter())
                    .map(|owner| client_of.get(owner).copied().unwrap_or(MISSING))
                    .collect();
                let index = ClientIndex::from_owners(&owners, index.clients())?;
                client_test = Some(ClientTest::InTest(index));
            }
        }
        if let Some(share) = config.holdout {
            let (kept, held) = hold_out(&index, share, seed, train.rows())?;
            index = kept;
            client_test = Some(ClientTest::InTrain(held));
        }
        let noise = noise(config, &train, index.clients() as u64, name, seed)?;
        let contiguous = train.prefers_order() && noise.is_none();
        let mut stored = Self {
            train,
            index,
            contiguous: false,
            test,
            client_test,
            noise,
            client_names,
            natural_clients: groups.map_or(0, |groups| groups.names.len() as u64),
        };
        if contiguous {
            stored.lay_out()?;
        }
        Ok(stored)
    }

    /// Lays the training rows out client by client, then the rows held out, likewise.
    fn lay_out(&mut self) -> Result<(), DatasetError> {
        let mut order = self.index.rows().to_vec();
        let trained = order.len() as u32;
        if let Some(ClientTest::InTrain(held)) = &self.client_test {
            order.extend_from_slice(held.rows());
        }
        let in_order = |index: &ClientIndex, from: u32| {
            let rows = (from..from + index.assigned() as u32).collect();
            ClientIndex::new(index.offsets().to_vec(), rows, order.len())
        };
        if let Some(ClientTest::InTrain(held)) = &mut self.client_test {
            *held = in_order(held, trained)?;
        }
        self.index = in_order(&self.index, 0)?;
        self.train.reorder(&order);
        self.contiguous = true;
        Ok(())
    }

    /// The client's rows of a store.
    pub(super) fn rows<'a>(
        &self,
        index: &'a ClientIndex,
        client: ClientId,
        contiguous: bool,
    ) -> RowSet<'a> {
        let rows = index.rows_of(client.0);
        match (contiguous, rows.first()) {
            (true, Some(&start)) => RowSet::Range {
                start,
                end: start + rows.len() as u32,
            },
            _ => RowSet::Listed(rows),
        }
    }

    /// The view of a client's rows of a store.
    pub(super) fn open<'a>(
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

    /// SHA-256 of data, normalisation and owners.
    pub(super) fn digest(&self) -> [u8; 32] {
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

/// Refuses test examples of another kind than the training ones, and owners of another number of
/// test rows than there are.
fn check_test(
    train: &Store,
    test: Option<&Store>,
    groups: Option<&Owners>,
    name: &str,
) -> Result<(), DatasetError> {
    if let Some(test) = test
        && (test.input() != train.input() || test.target() != train.target())
    {
        return Err(malformed(
            name,
            "test examples",
            format!("{:?}, {:?}", test.input(), test.target()),
            format!("{:?}, {:?}, as in training", train.input(), train.target()),
            "use training and test examples of one data set",
        ));
    }
    let rows = test.map_or(0, Store::rows);
    match groups.and_then(|groups| groups.of_test.as_ref()) {
        Some(owners) if owners.len() != rows => Err(DatasetError::CountMismatch {
            noun: "examples",
            first: format!("{name} (test)"),
            first_count: rows as u64,
            second: format!("{name} (owners of the test examples)"),
            second_count: owners.len() as u64,
        }),
        _ => Ok(()),
    }
}

/// The partition that `config` asks for, or the natural one.
fn chosen(
    config: &DatasetConfig,
    has_owners: bool,
    name: &str,
) -> Result<PartitionConfig, DatasetError> {
    match &config.partition {
        None if has_owners => Ok(PartitionConfig::Natural(Natural::default())),
        None => Err(DatasetError::MissingKey {
            name: name.to_owned(),
            key: "partition",
            meaning: "how the examples fall apart into clients, e.g. { kind = \"iid\", clients = 100 }",
        }),
        Some(PartitionConfig::Natural(_)) if !has_owners => Err(DatasetError::NoNaturalClients {
            name: name.to_owned(),
            instead: "choose another `partition`, e.g. { kind = \"dirichlet\", alpha = 0.3, clients = 100 }",
        }),
        Some(partition) => Ok(partition.clone()),
    }
}

fn assign(
    partition: PartitionConfig,
    train: &Store,
    groups: Option<&Owners>,
    seed: Seed,
) -> Result<ClientIndex, DatasetError> {
    let labels = train.labels();
    let rows = Rows {
        len: train.rows(),
        labels: labels.as_deref(),
        classes: train.classes(),
        groups: groups.map(|groups| Groups {
            of: &groups.of,
            count: groups.names.len(),
            noun: groups.noun,
        }),
    };
    let partitioner = AnyPartitioner::from_config(partition).map_err(PartitionError::from)?;
    Ok(partitioner.assign(&rows, seed)?)
}

/// The owner of each client's rows, for a natural partition; [`MISSING`] for an empty client.
fn owners_of_clients(index: &ClientIndex, groups: &Owners) -> Vec<u32> {
    (0..index.clients() as u64)
        .map(|client| {
            let row = index.rows_of(client).first();
            row.map_or(MISSING, |&row| groups.of[row as usize])
        })
        .collect()
}

fn noise(
    config: &DatasetConfig,
    train: &Store,
    clients: u64,
    name: &str,
    seed: Seed,
) -> Result<Option<FeatureNoise>, DatasetError> {
    let Some(sigma) = config.feature_noise else {
        return Ok(None);
    };
    if !matches!(train.input(), InputSpec::Real(_)) {
        return Err(DatasetError::UnusedKey {
            name: name.to_owned(),
            key: "feature_noise",
            keys: "no noise, for its inputs are text".to_owned(),
        });
    }
    let noise = FeatureNoise::new(sigma, clients, seed).map_err(PartitionError::from)?;
    Ok(Some(noise))
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
