//! A fixed number of labels for each client.

use fl_core::Seed;
use fl_core::registry::{ConfigError, KeyInfo, Registered};
use serde::{Deserialize, Serialize};

use super::assign::ByClass;
use super::{PartitionError, Partitioner, Promise, assign};
use crate::index::{ClientIndex, Rows};

/// Each client holds exactly `labels` classes, and the clients that hold a class share its rows
/// equally (the `#C = k` split of Li et al. 2022, NIID-Bench, arXiv:2102.02079).
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
}

const KIND: &str = "labels-per-client";

impl LabelsPerClient {
    fn check(&self) -> Result<(), ConfigError> {
        assign::check_clients(self.clients)?;
        ConfigError::unless(
            self.labels > 0,
            "labels",
            self.labels,
            "a whole number of at least 1",
        )
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
    ];

    fn from_config(config: Self) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(config)
    }

    fn examples() -> Vec<Self> {
        vec![
            Self {
                clients: 10,
                labels: 2,
            },
            Self {
                clients: 7,
                labels: 10,
            },
            Self {
                clients: 13,
                labels: 3,
            },
        ]
    }
}

impl Partitioner for LabelsPerClient {
    fn promise(&self) -> Promise {
        Promise::covering(self.clients, self.labels)
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
            if members.len() < holders.len() {
                return Err(PartitionError::ClassTooSmall {
                    class,
                    rows: members.len() as u64,
                    clients: holders.len() as u64,
                });
            }
            for (place, &row) in members.iter().enumerate() {
                let share = place as u64 * holders.len() as u64 / members.len() as u64;
                owner[row as usize] = holders[share as usize];
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
