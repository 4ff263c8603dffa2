//! What the partitioners share: checks of the data, rows by class, sizes turned into owners.

use fl_core::registry::{ConfigError, KeyInfo};
use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};

use super::{PartitionError, sample};
use crate::index::{ClientIndex, Rows};

/// The owner of a row that no client holds.
pub(super) const NOBODY: u32 = u32::MAX;

/// The stream of a partition.
pub(super) fn stream(seed: Seed) -> Stream {
    Stream::at(Purpose::Partition, seed, RoundId(0), ClientId(0))
}

/// Number of clients, once it is known that each can have `min_examples` rows.
pub(super) fn population(
    rows: &Rows<'_>,
    clients: u64,
    min_examples: u64,
) -> Result<usize, PartitionError> {
    if rows.len == 0 {
        return Err(PartitionError::NoRows);
    }
    if rows.len >= u32::MAX as usize {
        return Err(PartitionError::TooManyRows(rows.len));
    }
    let total = rows.len as u64;
    if clients > total {
        return Err(PartitionError::TooManyClients {
            clients,
            rows: total,
        });
    }
    if clients.saturating_mul(min_examples) > total {
        return Err(PartitionError::MinimumImpossible {
            clients,
            min_examples,
            rows: total,
        });
    }
    Ok(clients as usize)
}

/// `clients`, as every partition but `natural` describes it.
pub(super) const CLIENTS: KeyInfo = KeyInfo {
    key: "clients",
    expects: "whole number, at least 1",
    default: None,
    summary: "Number of clients.",
};

/// `min_examples`, as most partitions describe it.
pub(super) const MIN_EXAMPLES: KeyInfo = KeyInfo {
    key: "min_examples",
    expects: "whole number, at least 0",
    default: Some("1"),
    summary: "Examples that every client has at least.",
};

/// `clients` is at least 1.
pub(super) fn check_clients(clients: u64) -> Result<(), ConfigError> {
    ConfigError::unless(
        clients > 0,
        "clients",
        clients,
        "a whole number of at least 1",
    )
}

/// A positive concentration, within what double precision can carry.
pub(super) fn check_positive(key: &'static str, value: f64) -> Result<(), ConfigError> {
    ConfigError::unless(
        (1e-6..=1e6).contains(&value),
        key,
        value,
        "a number from 0.000001 to 1000000",
    )
}

/// The standard deviation of the logarithm of a size.
pub(super) fn check_sigma(sigma: f64) -> Result<(), ConfigError> {
    ConfigError::unless(
        (0.0..=100.0).contains(&sigma),
        "sigma",
        sigma,
        "a number from 0 to 100",
    )
}

/// Rows grouped by class.
#[derive(Debug)]
pub(super) struct ByClass {
    rows: Vec<u32>,
    offsets: Vec<u32>,
}

impl ByClass {
    /// Rows by class, in random order within each.
    pub(super) fn shuffled(
        rows: &Rows<'_>,
        kind: &'static str,
        stream: &mut Stream,
    ) -> Result<Self, PartitionError> {
        let labels = rows.labels.ok_or(PartitionError::NoLabels { kind })?;
        if labels.len() != rows.len {
            return Err(PartitionError::WrongLength {
                noun: "labels",
                found: labels.len(),
                rows: rows.len,
            });
        }
        let classes = rows.classes;
        let mut offsets = vec![0u32; classes + 1];
        for (row, &label) in labels.iter().enumerate() {
            if label as usize >= classes {
                return Err(PartitionError::LabelOutOfRange {
                    row,
                    label,
                    classes,
                });
            }
            offsets[label as usize + 1] += 1;
        }
        for class in 0..classes {
            offsets[class + 1] += offsets[class];
        }
        let mut next = offsets.clone();
        let mut sorted = vec![0u32; rows.len];
        for (row, &label) in labels.iter().enumerate() {
            sorted[next[label as usize] as usize] = row as u32;
            next[label as usize] += 1;
        }
        let mut by_class = Self {
            rows: sorted,
            offsets,
        };
        for class in 0..classes {
            let range = by_class.range(class);
            stream.shuffle(&mut by_class.rows[range]);
        }
        Ok(by_class)
    }

    pub(super) fn classes(&self) -> usize {
        self.offsets.len() - 1
    }

    fn range(&self, class: usize) -> core::ops::Range<usize> {
        self.offsets[class] as usize..self.offsets[class + 1] as usize
    }

    pub(super) fn of(&self, class: usize) -> &[u32] {
        &self.rows[self.range(class)]
    }

    /// All rows, class after class.
    pub(super) fn sorted(&self) -> &[u32] {
        &self.rows
    }
}

/// Gives `sizes[c]` random rows to client `c`; the sizes add up to all rows.
pub(super) fn deal(sizes: &[usize], stream: &mut Stream) -> Result<ClientIndex, PartitionError> {
    let mut owner = Vec::with_capacity(sizes.iter().sum());
    for (client, &size) in sizes.iter().enumerate() {
        owner.resize(owner.len() + size, client as u32);
    }
    stream.shuffle(&mut owner);
    index(&owner, sizes.len())
}

/// Sizes as equal as possible; the first clients have one more where `rows` does not divide.
pub(super) fn equal_sizes(rows: usize, clients: usize) -> Vec<usize> {
    (0..clients)
        .map(|client| rows / clients + usize::from(client < rows % clients))
        .collect()
}

/// `min_examples` for each client and the rest in proportion to the exponentials of
/// `log_weights`.
pub(super) fn skewed_sizes(
    rows: usize,
    mut log_weights: Vec<f64>,
    min_examples: usize,
) -> Vec<usize> {
    sample::exponentiate(&mut log_weights);
    let mut ends = Vec::with_capacity(log_weights.len());
    sample::cut(
        rows - min_examples * log_weights.len(),
        &log_weights,
        &mut ends,
    );
    let mut start = 0;
    for end in &mut ends {
        let size = *end - start + min_examples;
        start = core::mem::replace(end, size);
    }
    ends
}

/// The index in which row `r` belongs to `owner[r]`, or to [`NOBODY`].
pub(super) fn index(owner: &[u32], clients: usize) -> Result<ClientIndex, PartitionError> {
    Ok(ClientIndex::from_owners(owner, clients)?)
}
