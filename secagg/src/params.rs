//! What a session's parties agree on beforehand, checked once.
//!
//! [`Params`] are made from a [`Cohort`] (how many clients, how many may be corrupt or drop out), a
//! [`Threat`] and a [`Topology`]; degree and threshold follow, and what would be unsafe is refused.

mod finder;
mod hypergeometric;

use crate::error::ParamsError;
use crate::ring::Ring;

/// The most clients of a session. Beyond about ten thousand, groups with sessions of their own are
/// the better way: everybody's keys go to every client.
pub const MAX_CLIENTS: u32 = 1 << 20;

/// The most coordinates of a vector, those that the protocol adds included.
pub const MAX_LENGTH: usize = 1 << 30;

/// Added to a share before it is rounded down, so that 0.3 of 10 is 3.
const ROUNDING: f64 = 1e-14;

/// Against whom a client's input is protected. In all three some clients may work for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Threat {
    /// The server follows the protocol and wants to know.
    SemiHonest,
    /// Moreover it lies about who dropped out, and tells different clients different things.
    SemiMalicious,
    /// Moreover it lies about everything, keys included: clients sign their keys and the set of
    /// survivors, with keys that they know of one another from elsewhere.
    Active,
}

/// Who shares masks with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Everybody with everybody (Bonawitz et al. 2017).
    Complete,
    /// Each with the `k` nearest on a ring in random order, the random Harary graph of Bell et al.
    /// 2020; `k` is computed.
    Harary,
}

/// The cryptographic primitives of a session; the group is always ristretto255 and the hash
/// SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    /// AES-128 in counter mode for masks and AES-128-GCM for packets: fast where there are
    /// instructions for AES.
    Aes128 = 1,
    /// ChaCha20 for masks and ChaCha20-Poly1305 for packets.
    ChaCha20 = 2,
}

/// How many clients a session has, and how many of them are expected to be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cohort {
    pub(crate) clients: u32,
    pub(crate) corrupt: u32,
    pub(crate) dropouts: u32,
}

impl Cohort {
    /// `clients` from 2 to [`MAX_CLIENTS`], of whom a share `corrupt` works for the server and a share
    /// `dropout` leaves before the end, each in `[0, 1)`; both are rounded down to clients.
    ///
    /// # Errors
    /// [`ParamsError::Clients`] and [`ParamsError::Share`].
    pub fn new(clients: u32, corrupt: f64, dropout: f64) -> Result<Self, ParamsError> {
        if !(2..=MAX_CLIENTS).contains(&clients) {
            return Err(ParamsError::Clients { clients });
        }
        let count = |what, share: f64| {
            if (0.0..1.0).contains(&share) {
                Ok(libm::floor((share + ROUNDING) * f64::from(clients)) as u32)
            } else {
                Err(ParamsError::Share { what, share })
            }
        };
        Ok(Self {
            clients,
            corrupt: count("corrupt", corrupt)?,
            dropouts: count("dropout", dropout)?,
        })
    }

    /// Clients.
    #[must_use]
    pub fn clients(&self) -> u32 {
        self.clients
    }

    /// The most that may work for the server.
    #[must_use]
    pub fn corrupt(&self) -> u32 {
        self.corrupt
    }

    /// The most that may drop out.
    #[must_use]
    pub fn dropouts(&self) -> u32 {
        self.dropouts
    }
}

/// The parameters of a session.
///
/// ```
/// use fl_secagg::{Cohort, Params, Ring, Suite, Threat, Topology};
///
/// let cohort = Cohort::new(1000, 0.2, 0.1)?;
/// let ring = Ring::bounded(1000, 1, 16)?;
/// let params = Params::new(cohort, Threat::SemiMalicious, Topology::Harary, Suite::Aes128, ring, 100)?;
/// assert_eq!((params.degree(), params.threshold()), (140, 104));
/// assert_eq!(params.ring().bits(), 26);
/// # Ok::<(), fl_secagg::ParamsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    cohort: Cohort,
    threat: Threat,
    topology: Topology,
    degree: u32,
    threshold: u32,
    min_survivors: u32,
    suite: Suite,
    ring: Ring,
    length: usize,
}

impl Params {
    /// Computes degree and threshold for vectors of `length` coordinates.
    ///
    /// # Errors
    /// [`ParamsError`]: when no degree and threshold are both safe and likely to succeed, when the
    /// ring was made for fewer clients, and when the length is 0 or more than [`MAX_LENGTH`].
    pub fn new(
        cohort: Cohort,
        threat: Threat,
        topology: Topology,
        suite: Suite,
        ring: Ring,
        length: usize,
    ) -> Result<Self, ParamsError> {
        if length == 0 || length > MAX_LENGTH - crate::ring::EXTRA {
            return Err(ParamsError::Length { length });
        }
        if ring.clients() < cohort.clients {
            return Err(ParamsError::RingClients {
                ring: ring.clients(),
                clients: cohort.clients,
            });
        }
        let infeasible = ParamsError::Infeasible {
            clients: cohort.clients,
            corrupt: cohort.corrupt,
            dropouts: cohort.dropouts,
            threat,
            topology,
        };
        let (degree, threshold) = match topology {
            Topology::Complete => {
                let range = finder::complete_range(&cohort, threat);
                if range.reached >= range.recovers {
                    return Err(infeasible);
                }
                (cohort.clients - 1, range.reached as u32 + 1)
            }
            Topology::Harary => finder::harary(&cohort, threat).ok_or(infeasible)?,
        };
        Self {
            cohort,
            threat,
            topology,
            degree,
            threshold,
            min_survivors: 0,
            suite,
            ring,
            length,
        }
        .with_least_survivors()
    }

    fn with_least_survivors(mut self) -> Result<Self, ParamsError> {
        let least = self.least_survivors();
        self.min_survivors = least;
        self.with_min_survivors(least)
    }

    /// Another degree and threshold than those computed; the complete graph's degree is its clients
    /// less one.
    ///
    /// # Errors
    /// [`ParamsError::Degree`], [`ParamsError::Disconnected`] and [`ParamsError::Threshold`] where
    /// they would be unsafe or could not succeed.
    pub fn with_threshold(self, degree: u32, threshold: u32) -> Result<Self, ParamsError> {
        let clients = self.cohort.clients;
        let range = match self.topology {
            Topology::Complete => {
                if degree != clients - 1 {
                    return Err(ParamsError::Degree { degree, clients });
                }
                finder::complete_range(&self.cohort, self.threat)
            }
            Topology::Harary => {
                if degree < 2 || !degree.is_multiple_of(2) || degree >= clients - 1 {
                    return Err(ParamsError::Degree { degree, clients });
                }
                finder::harary_range(&self.cohort, self.threat, degree)
                    .ok_or(ParamsError::Disconnected { degree, clients })?
            }
        };
        let given = i64::from(threshold);
        if given <= range.reached || given > range.recovers {
            return Err(ParamsError::Threshold {
                threshold,
                threat: self.threat,
                least: range.reached + 1,
                most: range.recovers,
            });
        }
        Self {
            degree,
            threshold,
            ..self
        }
        .with_least_survivors()
    }

    /// The fewest survivors whose sum a client helps to reveal.
    ///
    /// # Errors
    /// [`ParamsError::Survivors`] when it is more than the clients or fewer than is safe: the
    /// threshold and the corrupt clients plus two in a complete graph; moreover all but the expected
    /// drop-outs in a Harary graph, which more would let fall apart.
    pub fn with_min_survivors(self, min_survivors: u32) -> Result<Self, ParamsError> {
        let least = self.least_survivors();
        if min_survivors < least || min_survivors > self.cohort.clients {
            return Err(ParamsError::Survivors {
                min_survivors,
                least,
                most: self.cohort.clients,
            });
        }
        Ok(Self {
            min_survivors,
            ..self
        })
    }

    fn least_survivors(&self) -> u32 {
        let least = self.threshold.max(self.cohort.corrupt + 2);
        match self.topology {
            Topology::Complete => least,
            Topology::Harary => least.max(self.cohort.clients - self.cohort.dropouts),
        }
    }

    /// The cohort.
    #[must_use]
    pub fn cohort(&self) -> Cohort {
        self.cohort
    }

    /// Clients of the session, `n`.
    #[must_use]
    pub fn clients(&self) -> u32 {
        self.cohort.clients
    }

    /// The threat model.
    #[must_use]
    pub fn threat(&self) -> Threat {
        self.threat
    }

    /// Who shares masks with whom.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// Neighbours of a client, `k`.
    #[must_use]
    pub fn degree(&self) -> u32 {
        self.degree
    }

    /// Shares that reveal a secret, `t`.
    #[must_use]
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// The fewest survivors whose sum is revealed.
    #[must_use]
    pub fn min_survivors(&self) -> u32 {
        self.min_survivors
    }

    /// How many signatures under one set of survivors make it the only one
    /// ([`Threat::Active`]): any two such sets of signers share more than the corrupt clients.
    #[must_use]
    pub fn quorum(&self) -> u32 {
        let n = u64::from(self.cohort.clients);
        let split = (n + u64::from(self.cohort.corrupt)) / 2;
        split.max(2 * n / 3) as u32 + 1
    }

    /// The primitives.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The ring of the coordinates.
    #[must_use]
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// Coordinates of an input.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Coordinates of a masked vector: the input's, and weight, clipped count and client count.
    #[must_use]
    pub fn masked_length(&self) -> usize {
        self.length + crate::ring::EXTRA
    }

    /// All of it, for the session id: 52 bytes, little-endian, in the order of the fields.
    pub(crate) fn to_bytes(&self) -> [u8; 52] {
        let mut bytes = [0; 52];
        let words = [
            self.cohort.clients,
            self.cohort.corrupt,
            self.cohort.dropouts,
            self.degree,
            self.threshold,
            self.min_survivors,
            self.ring.bits(),
            self.ring.clients(),
        ];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..40].copy_from_slice(&self.ring.max_weight().to_le_bytes());
        bytes[40..48].copy_from_slice(&(self.length as u64).to_le_bytes());
        bytes[48] = self.threat as u8;
        bytes[49] = match self.topology {
            Topology::Complete => 0,
            Topology::Harary => 1,
        };
        bytes[50] = self.suite as u8;
        bytes[51] = self.ring.value_bits() as u8;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(
        clients: u32,
        corrupt: f64,
        dropout: f64,
        threat: Threat,
        topology: Topology,
    ) -> Result<Params, ParamsError> {
        Params::new(
            Cohort::new(clients, corrupt, dropout)?,
            threat,
            topology,
            Suite::Aes128,
            Ring::bounded(clients, 1, 16)?,
            10,
        )
    }

    #[test]
    fn thresholds_of_the_complete_graph_follow_the_theorems() {
        for (clients, corrupt, dropout, threat, threshold) in [
            (100, 0.2, 0.1, Threat::SemiHonest, 21),
            (100, 0.0, 0.1, Threat::SemiHonest, 2),
            (100, 0.2, 0.1, Threat::SemiMalicious, 61),
            (101, 0.2, 0.1, Threat::SemiMalicious, 61),
            (100, 0.2, 0.1, Threat::Active, 67),
            (99, 0.2, 0.1, Threat::Active, 67),
            (100, 0.5, 0.1, Threat::Active, 76),
            (3, 0.0, 0.0, Threat::Active, 3),
            (2, 0.0, 0.0, Threat::SemiMalicious, 2),
        ] {
            let found = params(clients, corrupt, dropout, threat, Topology::Complete).unwrap();
            assert_eq!(found.threshold(), threshold, "{clients} {threat:?}");
            assert_eq!(found.degree(), clients - 1);
            assert!(2 * found.quorum() > clients + found.cohort().corrupt());
        }
    }

    #[test]
    fn what_is_unsafe_is_refused() {
        use Threat::{Active, SemiHonest, SemiMalicious};
        use Topology::{Complete, Harary};
        let error = |threat, topology, degree, threshold| {
            params(1000, 0.2, 0.1, threat, topology)
                .unwrap()
                .with_threshold(degree, threshold)
                .unwrap_err()
                .to_string()
        };
        for (message, end) in [
            (
                error(SemiHonest, Complete, 999, 200),
                "a threshold of 200 is unsafe or cannot be reached under the semi-honest threat; \
                 expected 201 to 900",
            ),
            (
                error(SemiMalicious, Complete, 999, 600),
                "a threshold of 600 is unsafe or cannot be reached under the semi-malicious \
                 threat; expected 601 to 900",
            ),
            (
                error(Active, Complete, 999, 666),
                "a threshold of 666 is unsafe or cannot be reached under the active threat; \
                 expected 667 to 900",
            ),
            (
                error(SemiHonest, Complete, 999, 901),
                "a threshold of 901 is unsafe or cannot be reached under the semi-honest threat; \
                 expected 201 to 900",
            ),
            (
                error(SemiMalicious, Harary, 140, 103),
                "a threshold of 103 is unsafe or cannot be reached under the semi-malicious \
                 threat; expected 104 to 104",
            ),
            (
                error(SemiHonest, Harary, 10, 5),
                "a ring of 1000 clients with 10 neighbours each may fall apart; raise the degree",
            ),
            (
                error(SemiHonest, Harary, 69, 44),
                "a degree of 69 is impossible among 1000 clients; expected the clients less one in \
                 a complete graph, and an even number from 2 to the clients less two in a Harary \
                 graph",
            ),
        ] {
            assert_eq!(message, end);
        }
        let infeasible = params(10, 0.5, 0.5, SemiMalicious, Complete).unwrap_err();
        assert!(matches!(infeasible, ParamsError::Infeasible { .. }));
        assert!(params(10, 0.3, 0.3, SemiMalicious, Harary).is_err());
        let few = params(100, 0.2, 0.1, SemiHonest, Complete).unwrap();
        assert_eq!(few.min_survivors(), 22);
        for survivors in [21, 101] {
            assert!(matches!(
                few.clone().with_min_survivors(survivors),
                Err(ParamsError::Survivors { least: 22, .. })
            ));
        }
        let ring = params(1000, 0.2, 0.1, SemiHonest, Harary).unwrap();
        assert_eq!(ring.min_survivors(), 900);
        for bad in [
            Cohort::new(1, 0.0, 0.0),
            Cohort::new(MAX_CLIENTS + 1, 0.0, 0.0),
            Cohort::new(10, 1.0, 0.0),
            Cohort::new(10, 0.0, -0.1),
            Cohort::new(10, f64::NAN, 0.0),
        ] {
            assert!(bad.is_err());
        }
        let small = Ring::bounded(9, 1, 16).unwrap();
        let cohort = Cohort::new(10, 0.0, 0.0).unwrap();
        let make =
            |ring, length| Params::new(cohort, SemiHonest, Complete, Suite::Aes128, ring, length);
        assert!(matches!(
            make(small, 10),
            Err(ParamsError::RingClients { .. })
        ));
        let ring = Ring::bounded(10, 1, 16).unwrap();
        for length in [0, MAX_LENGTH] {
            assert!(matches!(
                make(ring, length),
                Err(ParamsError::Length { .. })
            ));
        }
    }

    #[test]
    fn every_parameter_is_in_the_bytes() {
        let base = params(20, 0.1, 0.1, Threat::SemiHonest, Topology::Complete).unwrap();
        let mut others = vec![
            params(21, 0.1, 0.1, Threat::SemiHonest, Topology::Complete).unwrap(),
            params(20, 0.1, 0.05, Threat::SemiHonest, Topology::Complete).unwrap(),
            params(20, 0.05, 0.1, Threat::SemiHonest, Topology::Complete).unwrap(),
            base.clone().with_threshold(19, 9).unwrap(),
            base.clone().with_min_survivors(12).unwrap(),
            params(20, 0.1, 0.1, Threat::SemiMalicious, Topology::Complete).unwrap(),
        ];
        let mut other = base.clone();
        other.suite = Suite::ChaCha20;
        others.push(other);
        for ring in [
            Ring::bounded(20, 2, 16).unwrap(),
            Ring::bounded(20, 1, 15).unwrap(),
            Ring::bounded(30, 1, 16).unwrap(),
            Ring::modular(20, 1, 22).unwrap(),
        ] {
            let mut other = base.clone();
            other.ring = ring;
            others.push(other);
        }
        let mut other = base.clone();
        other.length = 11;
        others.push(other);
        let mut bytes: Vec<_> = others.iter().map(Params::to_bytes).collect();
        bytes.push(base.to_bytes());
        let count = bytes.len();
        bytes.sort_unstable();
        bytes.dedup();
        assert_eq!(bytes.len(), count);
    }
}
