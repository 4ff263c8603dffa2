//! A fixed number of labels for each client.

use fl_core::Seed;
use fl_core::registry::{ConfigError, KeyInfo, Registered};
use serde::{Deserialize, Serialize};

use super::assign::ByClass;
use super::{PartitionError, Partitioner, Promise, assign, one};
use crate::index::{ClientIndex, Rows};

/// Each client holds exactly `labels` classes, and the clients that hold a class share its rows:
/// equally (the `#C = k` split of Li et al. 2022, NIID-Bench, arXiv:2102.02079), or with a `sigma`
/// above 0 `min_examples` each and the rest in proportion to `LogNormal(0, sigma)`. FedProx's MNIST
/// (Li et al. 2020, arXiv:1812.06127, section 5.1: a power law) has 1,000 clients of 2 labels, of
/// which its code, `generate_niid.py`, gives them 5 examples each and the rest with a sigma of 2.
///
/// Classes are dealt so that each is held by nearly the same number of clients (they differ by at
/// most one); in the paper's code the first label of client `i` is `i mod classes` and the others
/// are drawn at random. Classes without examples are passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelsPerClient {
    /// Number of clients.
    pub clients: u64,
    /// Classes that each client holds.
    pub labels: u64,
    /// Standard deviation of the logarithm of a share, from 0 (equal shares) to 100.
    #[serde(default)]
    pub sigma: f64,
    /// Examples that every client has at least of each of its classes.
    #[serde(default = "one")]
    pub min_examples: u64,
}

const KIND: &str = "labels-per-client";

impl LabelsPerClient {
    /// `labels` classes for each of `clients`, which share a class equally.
    #[must_use]
    pub const fn equal(clients: u64, labels: u64) -> Self {
        Self {
            clients,
            labels,
            sigma: 0.0,
            min_examples: 1,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        assign::check_clients(self.clients)?;
        ConfigError::unless(
            self.labels > 0,
            "labels",
            self.labels,
            "a whole number of at least 1",
        )?;
        ConfigError::unless(
            self.min_examples > 0,
            "min_examples",
            self.min_examples,
            "a whole number of at least 1",
        )?;
        assign::check_sigma(self.sigma)
    }
}

impl Registered for LabelsPerClient {
    type Config = Self;
    const SUMMARY: &'static str = "A fixed number of labels for each client (Li et al. 2022).";
    const KEYS: &'static [KeyInfo] = &[
        assign::CLIENTS,
        KeyInfo {
            key: "labels",
            expects: "whole number, at least 1",
            default: None,
            summary: "Classes that each client holds.",
        },
        KeyInfo {
            key: "sigma",
            expects: "number, 0 to 100",
            default: Some("0"),
            summary: "Standard deviation of the logarithm of a client's share of a class; 0 for equal shares.",
        },
        KeyInfo {
            key: "min_examples",
            expects: "whole number, at least 1",
            default: Some("1"),
            summary: "Examples that every client has at least of each of its classes.",
        },
    ];

    fn from_config(config: Self) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(config)
    }

    fn examples() -> Vec<Self> {
        vec![
            Self::equal(10, 2),
            Self::equal(7, 10),
            Self {
                sigma: 2.0,
                min_examples: 5,
                ..Self::equal(13, 3)
            },
        ]
    }
}

impl Partitioner for LabelsPerClient {
    fn promise(&self) -> Promise {
        Promise::covering(self.clients, self.labels.saturating_mul(self.min_examples))
    }

    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError> {
        self.check()?;
        let clients = assign::population(rows, self.clients, 1)?;
        let mut stream = assign::stream(seed);
        let by_class = ByClass::shuffled(rows, KIND, &mut stream)?;
        let present: Vec<usize> = (0..by_class.classes())
            .filter(|&class| !by_class.of(class).is_empty())
            .collect();
        if self.labels > present.len() as u64 {
            return Err(PartitionError::TooManyLabels {
                labels: self.labels,
                classes: present.len(),
            });
        }
        if self.clients.saturating_mul(self.labels) < present.len() as u64 {
            return Err(PartitionError::ClassesUncovered {
                clients: self.clients,
                labels: self.labels,
                classes: present.len(),
            });
        }
        let labels = self.labels as usize;
        let holders = deal_classes(&present, by_class.classes(), clients, labels, &mut stream);
        let mut owner = vec![0u32; rows.len];
        for &class in &present {
            let members = by_class.of(class);
            let holders = &holders[class];
            let needed = (holders.len() as u64).saturating_mul(self.min_examples);
            if (members.len() as u64) < needed {
                return Err(PartitionError::ClassTooSmall {
                    class,
                    rows: members.len() as u64,
                    clients: holders.len() as u64,
                    each: self.min_examples,
                });
            }
            if self.sigma == 0.0 {
                for (place, &row) in members.iter().enumerate() {
                    let share = place as u64 * holders.len() as u64 / members.len() as u64;
                    owner[row as usize] = holders[share as usize];
                }
                continue;
            }
            let weights = (holders.iter().map(|_| self.sigma * stream.normal())).collect();
            let least = self.min_examples as usize;
            let mut members = members.iter();
            for (&holder, size) in
                (holders.iter()).zip(assign::skewed_sizes(members.len(), weights, least))
            {
                for &row in members.by_ref().take(size) {
                    owner[row as usize] = holder;
                }
            }
        }
        assign::index(&owner, clients)
    }
}

/// Who holds each class. Clients take the next `labels` cards of endless shuffled decks that hold
/// each class once; a class that a client already holds is put back for the next client.
fn deal_classes(
    present: &[usize],
    classes: usize,
    clients: usize,
    labels: usize,
    stream: &mut fl_core::Stream,
) -> Vec<Vec<u32>> {
    let mut holders = vec![Vec::new(); classes];
    let mut deck: Vec<usize> = Vec::new();
    let mut hand = Vec::with_capacity(labels);
    for client in 0..clients as u32 {
        hand.clear();
        while hand.len() < labels {
            match deck.iter().rposition(|class| !hand.contains(class)) {
                Some(place) => hand.push(deck.remove(place)),
                // A hand from one deck has no repeats, so the old deck is used up here.
                None => {
                    deck.extend_from_slice(present);
                    stream.shuffle(&mut deck);
                }
            }
        }
        for &class in &hand {
            holders[class].push(client);
        }
    }
    holders
}
