//! Label skew by a Dirichlet distribution.

use std::collections::BinaryHeap;

use fl_core::registry::{ConfigError, KeyInfo, Registered};
use fl_core::{Seed, Stream};
use serde::{Deserialize, Serialize};

use super::assign::ByClass;
use super::sample::{self, LogGamma};
use super::{PartitionError, Partitioner, Promise, assign, one};
use crate::index::{ClientIndex, Rows};

/// Classes divided by Dirichlet draws, in one of two [forms](DirichletSizes).
///
/// `balanced` (Hsu et al. 2019, arXiv:1909.06335, section 3): client `k` draws a distribution
/// over classes `q_k ~ Dir(alpha * p)`, with `p` the classes' shares of the data, and takes its
/// examples one by one, class by `q_k`, without replacement. As in the programs that follow the
/// paper, a class that is used up is struck from every `q_k`, and the rest of `q_k` is scaled up.
/// Clients are served in order and have the same size; where the rows do not divide, the first
/// ones have one more. Mind the scale: the `p` add up to one, so programs that draw
/// `Dir(a, ..., a)` over `C` equal classes do with `a` what the paper, and this, does with
/// `alpha = a * C`.
///
/// `unbalanced` (Yurochkin et al. 2019, arXiv:1905.12022): for each class `j` a draw
/// `p_j ~ Dir(alpha, ..., alpha)` over clients says which share of the class each client gets.
/// Deviation: the authors' code gives nothing more to a client once it has its equal share of
/// the data; the paper, and this, does not. A draw that leaves a client below `min_examples` is
/// drawn again, at most 10 times in all and only while at most 8 clients are short (with more,
/// another draw would hardly do); after that, random examples move from whichever client is
/// largest to those that are short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dirichlet {
    /// Number of clients.
    pub clients: u64,
    /// Concentration, from 1e-6 to 1e6; near 0 each client has one class, at infinity all are alike.
    pub alpha: f64,
    /// Whether clients have equal sizes.
    #[serde(default)]
    pub sizes: DirichletSizes,
    /// Examples that every client has at least.
    #[serde(default = "one")]
    pub min_examples: u64,
}

/// The forms of [`Dirichlet`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirichletSizes {
    /// Each client draws its classes; sizes are equal.
    #[default]
    Balanced,
    /// Each class draws its clients; sizes vary.
    Unbalanced,
}

const KIND: &str = "dirichlet";
/// Draws of the unbalanced form before examples are moved.
const ATTEMPTS: usize = 10;
/// Short clients up to which another draw is worth while.
const FEW_SHORT: usize = 8;

impl Dirichlet {
    fn check(&self) -> Result<(), ConfigError> {
        assign::check_clients(self.clients)?;
        assign::check_positive("alpha", self.alpha)
    }
}

impl Registered for Dirichlet {
    type Config = Self;
    const SUMMARY: &'static str =
        "Classes divided by Dirichlet draws (Hsu et al. 2019; Yurochkin et al. 2019).";
    const KEYS: &'static [KeyInfo] = &[
        assign::CLIENTS,
        KeyInfo {
            key: "alpha",
            expects: "number above 0",
            default: None,
            summary: "Concentration; near 0 each client has one class, large makes all alike. With `balanced` all classes together have it, with `unbalanced` each client.",
        },
        KeyInfo {
            key: "sizes",
            expects: "`balanced` or `unbalanced`",
            default: Some("balanced"),
            summary: "`balanced`: each client draws its classes, sizes are equal; `unbalanced`: each class draws its clients.",
        },
        assign::MIN_EXAMPLES,
    ];

    fn from_config(config: Self) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(config)
    }

    fn examples() -> Vec<Self> {
        vec![
            Self {
                clients: 10,
                alpha: 0.3,
                sizes: DirichletSizes::Balanced,
                min_examples: 1,
            },
            Self {
                clients: 10,
                alpha: 0.001,
                sizes: DirichletSizes::Balanced,
                min_examples: 3,
            },
            Self {
                clients: 10,
                alpha: 0.3,
                sizes: DirichletSizes::Unbalanced,
                min_examples: 1,
            },
            Self {
                clients: 20,
                alpha: 0.01,
                sizes: DirichletSizes::Unbalanced,
                min_examples: 10,
            },
        ]
    }
}

impl Partitioner for Dirichlet {
    fn promise(&self) -> Promise {
        Promise::covering(self.clients, self.min_examples)
    }

    fn assign(&self, rows: &Rows<'_>, seed: Seed) -> Result<ClientIndex, PartitionError> {
        self.check()?;
        let clients = assign::population(rows, self.clients, self.min_examples)?;
        let mut stream = assign::stream(seed);
        let by_class = ByClass::shuffled(rows, KIND, &mut stream)?;
        let owner = match self.sizes {
            DirichletSizes::Balanced => {
                let sizes = assign::equal_sizes(rows.len, clients);
                balanced(&by_class, &sizes, self.alpha, &mut stream)
            }
            DirichletSizes::Unbalanced => {
                let minimum = self.min_examples as usize;
                unbalanced(&by_class, clients, self.alpha, minimum, &mut stream)?
            }
        };
        assign::index(&owner, clients)
    }
}

/// Owners in the balanced form.
fn balanced(by_class: &ByClass, sizes: &[usize], alpha: f64, stream: &mut Stream) -> Vec<u32> {
    let total = by_class.sorted().len();
    let mut left: Vec<&[u32]> = (0..by_class.classes())
        .map(|class| by_class.of(class))
        .filter(|rows| !rows.is_empty())
        .collect();
    let mut priors: Vec<LogGamma> = left
        .iter()
        .map(|rows| LogGamma::new(alpha * rows.len() as f64 / total as f64))
        .collect();
    let mut owner = vec![0u32; total];
    let mut logs = Vec::with_capacity(left.len());
    let mut ends = Vec::with_capacity(left.len());
    for (client, &size) in sizes.iter().enumerate() {
        // Classes that are used up are gone from `left`: dropping their gamma numbers and
        // scaling the others to one is the same as drawing all and striking those.
        logs.clear();
        logs.extend(priors.iter().map(|prior| prior.draw(stream)));
        cumulate(&logs, &mut ends);
        for _ in 0..size {
            let place = match ends.len() {
                1 => 0,
                last => {
                    let point = stream.uniform() * ends[last - 1];
                    ends.partition_point(|&end| end <= point).min(last - 1)
                }
            };
            if let Some((&row, rest)) = left[place].split_first() {
                owner[row as usize] = client as u32;
                left[place] = rest;
            }
            if left[place].is_empty() {
                left.remove(place);
                priors.remove(place);
                logs.remove(place);
                cumulate(&logs, &mut ends);
            }
        }
    }
    owner
}

/// Cumulative weights from their logarithms.
fn cumulate(logs: &[f64], ends: &mut Vec<f64>) {
    ends.clear();
    ends.extend_from_slice(logs);
    sample::exponentiate(ends);
    let mut sum = 0.0;
    for end in ends {
        sum += *end;
        *end = sum;
    }
}

/// Owners in the unbalanced form.
fn unbalanced(
    by_class: &ByClass,
    clients: usize,
    alpha: f64,
    minimum: usize,
    stream: &mut Stream,
) -> Result<Vec<u32>, PartitionError> {
    let gamma = LogGamma::new(alpha);
    let mut owner = vec![0u32; by_class.sorted().len()];
    let mut sizes = vec![0usize; clients];
    let mut weights = Vec::with_capacity(clients);
    let mut ends = Vec::with_capacity(clients);
    for _ in 0..ATTEMPTS {
        sizes.fill(0);
        for class in 0..by_class.classes() {
            let rows = by_class.of(class);
            if rows.is_empty() {
                continue;
            }
            weights.clear();
            weights.extend((0..clients).map(|_| gamma.draw(stream)));
            sample::exponentiate(&mut weights);
            sample::cut(rows.len(), &weights, &mut ends);
            let mut start = 0;
            for (client, &end) in ends.iter().enumerate() {
                for &row in &rows[start..end] {
                    owner[row as usize] = client as u32;
                }
                sizes[client] += end - start;
                start = end;
            }
        }
        match sizes.iter().filter(|&&size| size < minimum).count() {
            0 => return Ok(owner),
            short if short > FEW_SHORT => break,
            _ => {}
        }
    }
    top_up(&mut owner, &sizes, minimum, stream)?;
    Ok(owner)
}

/// Moves random rows from the largest clients to those below `minimum`, which is at most the mean
/// size; so there is always a client above it while one is below.
fn top_up(
    owner: &mut [u32],
    sizes: &[usize],
    minimum: usize,
    stream: &mut Stream,
) -> Result<(), PartitionError> {
    let index = assign::index(owner, sizes.len())?;
    let mut held = index.rows().to_vec();
    let mut donors: BinaryHeap<(usize, usize)> = sizes
        .iter()
        .enumerate()
        .filter(|&(_, &size)| size > minimum)
        .map(|(client, &size)| (size, client))
        .collect();
    for (client, &size) in sizes.iter().enumerate() {
        for _ in size..minimum {
            let Some((largest, donor)) = donors.pop() else {
                return Ok(());
            };
            // The donor's remaining rows are the first `largest` of its run.
            let start = index.offsets()[donor] as usize;
            let picked = start + stream.below(largest as u64) as usize;
            owner[held[picked] as usize] = client as u32;
            held.swap(picked, start + largest - 1);
            if largest - 1 > minimum {
                donors.push((largest - 1, donor));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::testing::{counts, labelled};

    /// Mean over clients of the share of the largest class.
    fn concentration(counts: &[Vec<u64>]) -> f64 {
        let shares = counts.iter().map(|client| {
            let sum: u64 = client.iter().sum();
            *client.iter().max().unwrap() as f64 / sum as f64
        });
        shares.sum::<f64>() / counts.len() as f64
    }

    #[test]
    fn alpha_sets_the_skew() {
        let labels = labelled(&[600; 10]);
        for sizes in [DirichletSizes::Balanced, DirichletSizes::Unbalanced] {
            let at = |alpha| {
                let partition = Dirichlet {
                    clients: 20,
                    alpha,
                    sizes,
                    min_examples: 1,
                };
                concentration(&counts(&partition, &labels, 10, 1))
            };
            let shares = [1e-3, 0.1, 1.0, 10.0, 1e5].map(at);
            assert!(
                shares.windows(2).all(|pair| pair[0] > pair[1]),
                "{shares:?}"
            );
            assert!(shares[0] > 0.9 && shares[4] < 0.15, "{shares:?}");
        }
    }

    #[test]
    fn balanced_shares_have_the_dirichlet_variance() {
        // Few clients, much data: no class runs out, so a share is a Dirichlet-multinomial mean:
        // Var = p (1 - p) / (A + 1) * (1 + A / n) with A = alpha and n examples of a client.
        // (Without replacement it is a little less; 500 of 200,000 is negligible.)
        let labels = labelled(&[100_000; 2]);
        let n = 500.0;
        for alpha in [0.5, 4.0] {
            let (mut sum, mut square, mut clients) = (0.0, 0.0, 0.0);
            for seed in 0..40 {
                let partition = Dirichlet {
                    clients: 400,
                    alpha,
                    sizes: DirichletSizes::Balanced,
                    min_examples: 1,
                };
                // The first quarter: before any class can run short.
                for client in &counts(&partition, &labels, 2, seed)[..100] {
                    let share = client[0] as f64 / n;
                    sum += share;
                    square += share * share;
                    clients += 1.0;
                }
            }
            let mean = sum / clients;
            let variance = square / clients - mean * mean;
            let expected = 0.25 / (alpha + 1.0) * (1.0 + alpha / n);
            assert!(
                (mean - 0.5).abs() < 5.0 * (expected / clients).sqrt(),
                "{mean}"
            );
            assert!(
                (variance / expected - 1.0).abs() < 0.08,
                "{variance} {expected}"
            );
        }
    }

    #[test]
    fn unbalanced_shares_have_the_dirichlet_variance() {
        // A client's share of a class: mean 1/K, variance (1/K)(1 - 1/K) / (K alpha + 1).
        let labels = labelled(&[20_000; 3]);
        let (clients, alpha) = (10u64, 0.7);
        let (mut square, mut shares) = (0.0, 0.0);
        for seed in 0..150 {
            let partition = Dirichlet {
                clients,
                alpha,
                sizes: DirichletSizes::Unbalanced,
                min_examples: 0,
            };
            for client in counts(&partition, &labels, 3, seed) {
                for count in client {
                    square += (count as f64 / 20_000.0 - 0.1).powi(2);
                    shares += 1.0;
                }
            }
        }
        let expected = 0.1 * 0.9 / (10.0 * alpha + 1.0);
        assert!(
            (square / shares / expected - 1.0).abs() < 0.08,
            "{}",
            square / shares
        );
    }

    #[test]
    fn short_clients_are_topped_up() {
        let labels = labelled(&[500; 4]);
        for min_examples in [1, 5, 20] {
            let partition = Dirichlet {
                clients: 100,
                alpha: 0.01,
                sizes: DirichletSizes::Unbalanced,
                min_examples,
            };
            let sizes: Vec<u64> = counts(&partition, &labels, 4, 3)
                .iter()
                .map(|client| client.iter().sum())
                .collect();
            assert_eq!(sizes.iter().sum::<u64>(), 2000);
            assert!(sizes.iter().all(|&size| size >= min_examples));
        }
    }
}
