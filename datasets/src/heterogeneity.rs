//! How unlike the clients are: sizes and label distributions.
//!
//! The distance of a client from the whole is the earth mover's distance of Zhao et al. (2018),
//! arXiv:1806.00582: for labels, `sum over classes |p_k(i) - p(i)|`, twice the
//! total-variation distance. Entropies are in nats.

use fl_core::ClientId;
use serde::{Deserialize, Serialize};

use crate::index::ClientIndex;

/// Clients above which a sample is measured.
pub const SAMPLE: u64 = 10_000;

/// How unlike the clients of a population are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heterogeneity {
    /// Population.
    pub clients: u64,
    /// Clients that were measured: all, or [`SAMPLE`] evenly spaced ones of a larger population.
    pub measured: u64,
    /// Training examples of a client.
    pub sizes: SizeSpread,
    /// Labels of a client; none without classes.
    pub labels: Option<LabelSkew>,
}

/// The distribution of client sizes. Quartiles interpolate linearly between ranks
/// (Hyndman & Fan 1996, type 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SizeSpread {
    /// Smallest.
    pub min: u64,
    /// First quartile.
    pub first_quartile: f64,
    /// Median.
    pub median: f64,
    /// Third quartile.
    pub third_quartile: f64,
    /// Largest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
    /// Gini coefficient: 0 when all are equal, towards 1 when one client has everything.
    pub gini: f64,
}

/// The spread of label distributions over the clients that have examples; each client counts
/// once, whatever its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelSkew {
    /// Number of classes.
    pub classes: usize,
    /// Entropy of the labels of all measured clients together, in nats.
    pub global_entropy: f64,
    /// Mean of the clients' entropies, in nats.
    pub mean_entropy: f64,
    /// Smallest of them.
    pub min_entropy: f64,
    /// Mean number of classes that a client has.
    pub mean_classes: f64,
    /// Mean total-variation distance of a client's labels from the global ones, in `[0, 1]`.
    pub mean_total_variation: f64,
    /// Mean earth mover's distance, twice the total variation, in `[0, 2]`.
    pub mean_earth_mover: f64,
    /// Largest earth mover's distance.
    pub max_earth_mover: f64,
}

impl Heterogeneity {
    /// Measures `clients` clients. `client` is asked once for each of those measured, in order:
    /// it adds the client's training examples of each class to the zeroed slice (of `classes`
    /// counts; empty without classes) and returns their number.
    pub fn measure(
        clients: u64,
        classes: usize,
        mut client: impl FnMut(ClientId, &mut [u64]) -> u64,
    ) -> Self {
        let measured = clients.min(SAMPLE);
        let mut sizes = Vec::with_capacity(measured as usize);
        let mut counts = vec![0u64; classes * measured as usize];
        for place in 0..measured {
            // Below 2^64 * 10^4, so in 128 bits.
            let id = (u128::from(place) * u128::from(clients) / u128::from(measured)) as u64;
            let start = place as usize * classes;
            sizes.push(client(ClientId(id), &mut counts[start..start + classes]));
        }
        Self {
            clients,
            measured,
            labels: LabelSkew::of(&counts, classes),
            sizes: SizeSpread::of(sizes),
        }
    }

    /// Measures a partition. `labels` holds the class of every row, each below `classes`.
    #[must_use]
    pub fn of_index(index: &ClientIndex, labels: Option<(&[u32], usize)>) -> Self {
        let classes = labels.map_or(0, |(_, classes)| classes);
        Self::measure(index.clients() as u64, classes, |client, counts| {
            let rows = index.rows_of(client.0);
            if let Some((labels, _)) = labels {
                for &row in rows {
                    if let Some(count) = counts.get_mut(labels[row as usize] as usize) {
                        *count += 1;
                    }
                }
            }
            rows.len() as u64
        })
    }
}

impl SizeSpread {
    /// Of the given sizes; all zero without any.
    #[must_use]
    pub fn of(mut sizes: Vec<u64>) -> Self {
        sizes.sort_unstable();
        let (Some(&min), Some(&max)) = (sizes.first(), sizes.last()) else {
            return Self::default();
        };
        let n = sizes.len() as f64;
        let quantile = |share: f64| {
            let place = share * (n - 1.0);
            let below = place as usize;
            let above = (below + 1).min(sizes.len() - 1);
            let (low, high) = (sizes[below] as f64, sizes[above] as f64);
            low + (high - low) * (place - below as f64)
        };
        let sum = sizes.iter().map(|&size| size as f64).sum::<f64>();
        let ranked: f64 = sizes
            .iter()
            .enumerate()
            .map(|(place, &size)| (2.0 * (place as f64 + 1.0) - n - 1.0) * size as f64)
            .sum();
        Self {
            min,
            first_quartile: quantile(0.25),
            median: quantile(0.5),
            third_quartile: quantile(0.75),
            max,
            mean: sum / n,
            gini: if sum > 0.0 { ranked / (n * sum) } else { 0.0 },
        }
    }
}

impl LabelSkew {
    /// Of counts `[clients, classes]`; none without examples or classes.
    fn of(counts: &[u64], classes: usize) -> Option<Self> {
        if classes == 0 {
            return None;
        }
        let mut global = vec![0u64; classes];
        for client in counts.chunks_exact(classes) {
            for (sum, count) in global.iter_mut().zip(client) {
                *sum += count;
            }
        }
        let total = global.iter().sum::<u64>() as f64;
        let mut skew = Self {
            classes,
            global_entropy: entropy(&global),
            min_entropy: f64::INFINITY,
            ..Self::default()
        };
        let mut clients = 0.0;
        for client in counts.chunks_exact(classes) {
            let size = client.iter().sum::<u64>() as f64;
            if size <= 0.0 {
                continue;
            }
            let own = entropy(client);
            let distance: f64 = client
                .iter()
                .zip(&global)
                .map(|(&count, &all)| (count as f64 / size - all as f64 / total).abs())
                .sum();
            clients += 1.0;
            skew.mean_entropy += own;
            skew.min_entropy = skew.min_entropy.min(own);
            skew.mean_classes += client.iter().filter(|&&count| count > 0).count() as f64;
            skew.mean_earth_mover += distance;
            skew.max_earth_mover = skew.max_earth_mover.max(distance);
        }
        if clients <= 0.0 {
            return None;
        }
        skew.mean_entropy /= clients;
        skew.mean_classes /= clients;
        skew.mean_earth_mover /= clients;
        skew.mean_total_variation = 0.5 * skew.mean_earth_mover;
        Some(skew)
    }
}

/// Entropy of the distribution in proportion to `counts`, in nats.
fn entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = count as f64 / total;
            -share * libm::log(share)
        })
        // From a positive zero, for one class alone gives a negative one.
        .fold(0.0, |sum, term| sum + term)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found}, expected {expected}"
        );
    }

    #[test]
    fn sizes_by_hand() {
        // numpy.percentile([1, 2, 4, 8], [25, 50, 75]) is 1.75, 3, 5; Gini by the double sum
        // |x_i - x_j| / (2 n^2 mean) = 2 (1 + 3 + 7 + 2 + 6 + 4) / (2 * 16 * 3.75) = 46 / 120.
        let spread = SizeSpread::of(vec![8, 1, 4, 2]);
        assert_eq!((spread.min, spread.max), (1, 8));
        close(spread.first_quartile, 1.75);
        close(spread.median, 3.0);
        close(spread.third_quartile, 5.0);
        close(spread.mean, 3.75);
        close(spread.gini, 46.0 / 120.0);
        close(SizeSpread::of(vec![5; 7]).gini, 0.0);
        close(SizeSpread::of(vec![0, 0, 0, 9]).gini, 0.75);
        assert_eq!(SizeSpread::of(Vec::new()), SizeSpread::default());
        assert_eq!(SizeSpread::of(vec![0, 0]).max, 0);
    }

    #[test]
    fn labels_by_hand() {
        // Client 0: one class; client 1: two classes, 1:3; client 2: empty.
        let counts = [[4, 0, 0], [0, 1, 3], [0, 0, 0]];
        let found = Heterogeneity::measure(3, 3, |client, into| {
            into.copy_from_slice(&counts[client.0 as usize]);
            into.iter().sum()
        });
        assert_eq!((found.clients, found.measured, found.sizes.min), (3, 3, 0));
        let skew = found.labels.unwrap();
        let h = |p: f64| -p * p.ln();
        close(skew.global_entropy, h(0.5) + h(0.125) + h(0.375));
        close(skew.mean_entropy, 0.5 * (h(0.25) + h(0.75)));
        assert_eq!(skew.min_entropy.to_bits(), 0);
        close(skew.mean_classes, 1.5);
        // |1 - 1/2| + 1/8 + 3/8 = 1 and |0 - 1/2| + |1/4 - 1/8| + |3/4 - 3/8| = 1.
        close(skew.mean_earth_mover, 1.0);
        close(skew.max_earth_mover, 1.0);
        close(skew.mean_total_variation, 0.5);
    }

    #[test]
    fn data_without_labels_have_sizes_only() {
        let found = Heterogeneity::measure(4, 0, |client, _| client.0);
        assert_eq!(found.labels, None);
        close(found.sizes.mean, 1.5);
    }

    #[test]
    fn large_populations_are_sampled() {
        let mut seen = Vec::new();
        let found = Heterogeneity::measure(u64::MAX, 0, |client, _| {
            seen.push(client.0);
            1
        });
        assert_eq!((found.clients, found.measured), (u64::MAX, SAMPLE));
        assert_eq!(seen.len() as u64, SAMPLE);
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(*seen.last().unwrap() > u64::MAX / 10_000 * 9_998);
    }

    #[test]
    fn an_index_is_measured() {
        let index = ClientIndex::from_owners(&[0, 0, 1, 1], 2).unwrap();
        let apart = Heterogeneity::of_index(&index, Some((&[0, 0, 1, 1], 2)));
        close(apart.labels.unwrap().mean_earth_mover, 1.0);
        let alike = Heterogeneity::of_index(&index, Some((&[0, 1, 0, 1], 2)));
        close(alike.labels.unwrap().mean_earth_mover, 0.0);
        close(alike.labels.unwrap().mean_entropy, core::f64::consts::LN_2);
        assert_eq!(Heterogeneity::of_index(&index, None).labels, None);
    }
}
