//! Who is whose neighbour: everybody, or the nearest on a ring in random order.
//!
//! # Source
//! Bell et al. 2020, section 3 and appendix: a Harary graph on a random permutation of the clients.
//! All places of the cohort are on the ring, whether their clients are there or not, so that absence
//! is dropping out.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::operation::{Operation, count};
use crate::params::{Params, Topology};

/// The neighbour graph of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    clients: u32,
    degree: u32,
    /// The clients in the order of the ring, and each client's place in it; empty when complete.
    ring: Vec<u32>,
    place: Vec<u32>,
}

impl Graph {
    /// The graph that `seed` gives; a complete one does not depend on it.
    pub(crate) fn new(params: &Params, seed: [u8; 32]) -> Self {
        let clients = params.clients();
        let (mut ring, mut place) = (Vec::new(), Vec::new());
        if params.topology() == Topology::Harary {
            count(Operation::Entry, clients as usize);
            let mut rng = ChaCha20Rng::from_seed(seed);
            ring = (0..clients).collect();
            // Fisher-Yates (Durstenfeld 1964).
            for last in (1..clients).rev() {
                ring.swap(last as usize, below(&mut rng, last + 1) as usize);
            }
            place = vec![0; clients as usize];
            for (index, &client) in (0..).zip(&ring) {
                place[client as usize] = index;
            }
        }
        Self {
            clients,
            degree: params.degree(),
            ring,
            place,
        }
    }

    /// Neighbours of a client, ascending, without itself.
    pub(crate) fn neighbours(&self, client: u32) -> Vec<u32> {
        count(Operation::Entry, self.degree as usize);
        if self.ring.is_empty() {
            return (0..self.clients).filter(|&other| other != client).collect();
        }
        let n = self.clients;
        let place = self.place[client as usize];
        let mut neighbours: Vec<u32> = (1..=self.degree / 2)
            .flat_map(|step| [(place + step) % n, (place + n - step) % n])
            .map(|place| self.ring[place as usize])
            .collect();
        neighbours.sort_unstable();
        neighbours
    }

    /// Whether a client holds a share of its own secrets: in a complete graph, where thresholds
    /// count all clients.
    pub(crate) fn holds_own(&self) -> bool {
        self.ring.is_empty()
    }
}

/// A number below `bound` (at least 1), without bias (Lemire 2019, algorithm 5).
fn below(rng: &mut ChaCha20Rng, bound: u32) -> u32 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let wide = u64::from(rng.next_u32()) * u64::from(bound);
        if wide as u32 >= threshold {
            return (wide >> 32) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cohort, Ring, Suite, Threat};

    fn graph(clients: u32, topology: Topology, seed: u8) -> Graph {
        let cohort = Cohort::new(clients, 0.05, 0.1).unwrap();
        let ring = Ring::bounded(clients, 1, 8).unwrap();
        let params =
            Params::new(cohort, Threat::SemiHonest, topology, Suite::Aes128, ring, 1).unwrap();
        Graph::new(&params, [seed; 32])
    }

    #[test]
    fn graphs_are_regular_and_symmetric() {
        for (clients, topology) in [
            (7, Topology::Complete),
            (60, Topology::Harary),
            (101, Topology::Harary),
        ] {
            let graph = graph(clients, topology, 1);
            for client in 0..clients {
                let neighbours = graph.neighbours(client);
                assert_eq!(neighbours.len() as u32, graph.degree);
                assert!(neighbours.is_sorted_by(|a, b| a < b));
                assert!(!neighbours.contains(&client));
                for other in neighbours {
                    assert!(graph.neighbours(other).contains(&client));
                }
            }
        }
        assert_ne!(
            graph(60, Topology::Harary, 1),
            graph(60, Topology::Harary, 2)
        );
        assert_eq!(
            graph(60, Topology::Complete, 1),
            graph(60, Topology::Complete, 2)
        );
    }

    /// Each client is equally often at each place: chi-square over seeds, 59 degrees of freedom,
    /// of which 120 is beyond 5 deviations.
    #[test]
    fn the_order_is_uniform() {
        let mut counts = vec![0f64; 60];
        let seeds = 6000u32;
        for seed in 0..seeds {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&seed.to_le_bytes());
            let mut graph = graph(60, Topology::Harary, 0);
            graph.ring = Vec::new();
            let mut rng = ChaCha20Rng::from_seed(bytes);
            counts[below(&mut rng, 60) as usize] += 1.0;
        }
        let expected = f64::from(seeds) / 60.0;
        let chi: f64 = counts
            .iter()
            .map(|c| (c - expected).powi(2) / expected)
            .sum();
        assert!(chi < 120.0, "{chi}");
    }
}
