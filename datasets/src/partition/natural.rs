//! The clients that the data name: writers, speakers, values of a column.

use fl_core::Seed;
use fl_core::registry::{ConfigError, KeyInfo, Registered};
use serde::{Deserialize, Serialize};

use super::{PartitionError, Partitioner, Promise, assign, one};
use crate::index::{ClientIndex, Rows};

/// One client for each owner that has at least `min_examples` examples, in the data's order of
/// owners. The rows of other owners are left out. With `clients`, so many of these owners are
/// drawn at random and the others left out too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Natural {
    /// How many owners to keep; all of them when left out.
    #[serde(default)]
    pub clients: Option<u64>,
    /// Examples below which an owner is left out.
    #[serde(default = "one")]
    pub min_examples: u64,
}

impl Default for Natural {
    fn default() -> Self {
        Self {
            clients: None,
            min_examples: 1,
        }
    }
}

impl Natural {
    fn check(&self) -> Result<(), ConfigError> {
        self.clients.map_or(Ok(()), assign::check_clients)?;
        ConfigError::unless(
            self.min_examples > 0,
            "min_examples",
            self.min_examples,
            "a whole number of at least 1",
        )
    }
}

impl Registered for Natural {
    type Config = Self;
    const SUMMARY: &'static str =
        "The owners that the data name: writers, speakers, a client column.";
    const KEYS: &'static [KeyInfo] = &[
        KeyInfo {
            key: "clients",
            expects: "whole number, at least 1",
            default: Some("all"),
            summary: "Owners to keep, drawn at random.",
        },
        KeyInfo {
            key: "min_examples",
            expects: "whole number, at least 1",
            default: Some("1"),
            summary: "Examples below which an owner is left out.",
        },
    ];

    fn from_config(config: Self) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(config)
    }

    fn examples() -> Vec<Self> {
        vec![
            Self::default(),
            Self {
                clients: Some(5),
                min_examples: 2,
            },
        ]
    }
}

impl Partitioner for Natural {
    fn promise(&self) -> Promise {
        Promise {
            clients: self.clients,
            covering: false,
            seeded: self.clients.is_some(),
            min_examples: self.min_examples,
        }
    }

    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError> {
        self.check()?;
        assign::population(rows, 1, 1)?;
        let groups = rows.groups.ok_or(PartitionError::NoGroups)?;
        if groups.of.len() != rows.len {
            return Err(PartitionError::WrongLength {
                noun: "owners",
                found: groups.of.len(),
                rows: rows.len,
            });
        }
        let mut sizes = vec![0u64; groups.count];
        for (row, &owner) in groups.of.iter().enumerate() {
            let Some(size) = sizes.get_mut(owner as usize) else {
                return Err(PartitionError::OwnerOutOfRange {
                    row,
                    owner,
                    owners: groups.count,
                });
            };
            *size += 1;
        }
        let mut kept: Vec<u32> = (0..groups.count as u32)
            .filter(|&owner| sizes[owner as usize] >= self.min_examples)
            .collect();
        let wanted = self.clients.unwrap_or(1);
        if (kept.len() as u64) < wanted {
            return Err(PartitionError::TooFewOwners {
                clients: wanted,
                found: kept.len() as u64,
                noun: groups.noun.to_owned(),
                min_examples: self.min_examples,
                largest: sizes.iter().copied().max().unwrap_or(0),
            });
        }
        if let Some(clients) = self.clients {
            assign::stream(seed).shuffle(&mut kept);
            kept.truncate(clients as usize);
            kept.sort_unstable();
        }
        let mut client_of = vec![assign::NOBODY; groups.count];
        for (client, &owner) in kept.iter().enumerate() {
            client_of[owner as usize] = client as u32;
        }
        let owner: Vec<u32> = groups
            .of
            .iter()
            .map(|&owner| client_of[owner as usize])
            .collect();
        assign::index(&owner, kept.len())
    }
}
