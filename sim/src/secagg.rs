//! Secure aggregation in a run: what it asks for, the sessions of a round, and what a round records
//! of them.
//!
//! What is summed are the integers that clients make anyway: weighted updates in the ring of a
//! [`fl_core::RingPlan`], or, with distributed differential privacy, elements of `Z_2^b`. Addition of
//! either is exact, so the model does not depend on who adds; the modes differ in what is really done:
//!
//! * **real**: every client is an [`fl_secagg::Client`], its masked input goes as bytes to an
//!   [`fl_secagg::Server`], and the sum that the round uses is what the protocol gives. Key stages
//!   run before training, inputs are masked by the worker that trained the client and added as they
//!   arrive, so that a session holds one vector;
//! * **sampled**: the same for a few clients of each round, whose sum must be that of their inputs;
//!   all are added in the clear;
//! * **ideal**: nobody masks anything. Stages, failures and bytes are those of the protocol.
//!
//! All three give the model of a run without secure aggregation, but for rounds in which a session
//! fails.
//!
//! # Who vanishes when
//! Everybody who comes to a round is in a session. A client that vanishes does so before its keys,
//! after them or after its shares, see [`crate::fleet`]; one that is too late or not needed any more
//! leaves after its shares, and so does one whose update is not finite. A client whose masked input
//! has come may still vanish before the sum is unmasked, in which its input stays.
//!
//! A stage with too few clients ends its session, and the round with it: it is given up as a private
//! round with too few reports is, and the model stays as it was; where group means are combined
//! ([`crate::aggregation`]), it goes on without that session as long as enough are left. Too few are
//! fewer than the minimum of survivors, or at the end than the threshold; of a Harary graph also fewer
//! at the end than all but the expected drop-outs, beyond which it need not hold together. Within
//! that, a session in a Harary graph still fails with a probability below `2^-20`, which only the real
//! mode shows.
//!
//! # What it is not
//! A client's entropy is drawn from a stream at the run's seed, so that a run can be repeated to the
//! bit: whoever knows the seed knows every mask. A server that aggregates for real people gives
//! clients the operating system's entropy and the same library.

mod differencing;
mod live;
mod plan;
mod round;
mod stages;

use fl_core::RoundId;
use fl_secagg::{ClientError, Fault, InputError, ParamsError, SessionError};
use serde::{Deserialize, Serialize};

use crate::error::SimError;

pub use differencing::ClosePair;
pub(crate) use differencing::Differencing;
/// Bytes of the messages of a round, over all clients and sessions.
pub use fl_secagg::Traffic as SecAggBytes;
pub(crate) use live::{Context, Live};
pub use plan::{SecAggPlan, forecast};
pub(crate) use round::Sessions;
pub(crate) use stages::Leaves;
pub use stages::SecAggStage;

/// What is really done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecAggMode {
    /// All of the protocol.
    Real,
    /// All of it for some clients of each round.
    Sampled,
    /// Its outcome and its cost.
    Ideal,
}

/// Against whom inputs are protected, see [`fl_secagg::Threat`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecAggThreat {
    /// A server that follows the protocol.
    #[default]
    SemiHonest,
    /// One that lies about who dropped out.
    SemiMalicious,
    /// One that lies about everything.
    Active,
}

/// Who shares masks with whom, see [`fl_secagg::Topology`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecAggGraph {
    /// Everybody with everybody.
    Complete,
    /// Each with some neighbours at random.
    Harary,
}

/// The primitives, see [`fl_secagg::Suite`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecAggSuite {
    /// AES-128.
    #[default]
    Aes128,
    /// ChaCha20.
    ChaCha20,
}

/// Secure aggregation as a run asks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecAggConfig {
    /// What is really done.
    pub mode: SecAggMode,
    /// Against whom inputs are protected.
    pub threat: SecAggThreat,
    /// Who shares masks with whom. When not given: everybody with everybody in sessions of up to
    /// 100 clients, where that costs little and a session survives whatever leaves the threshold;
    /// a Harary graph in larger ones, where it exists, because its cost hardly grows with the clients.
    pub graph: Option<SecAggGraph>,
    /// The primitives.
    pub suite: SecAggSuite,
    /// The share of clients that may work for the server, in `[0, 1)`; with distributed privacy at
    /// least that of its colluding clients. Where it is more, epsilon is against the fewer.
    pub corrupt: f64,
    /// The share of clients that may leave a session before its end, in `[0, 1)`. When not given, it
    /// follows from the fleet, the selection and the strategy, with a margin of three standard
    /// deviations and one client, or the most below that for which there is a safe threshold, and is
    /// at least 0.05.
    pub dropout: Option<f64>,
    /// The fewest survivors of a session whose sum clients help to reveal; what is safe when not
    /// given.
    pub min_survivors: Option<u32>,
    /// The most clients of a session, at least 2: a larger cohort is divided at random into sessions
    /// of nearly equal size, and the server adds their sums, each of which it sees.
    pub groups: Option<u32>,
    /// Clients of a round that take part in a real session in the sampled mode; at least 2.
    pub sample: u32,
}

impl SecAggConfig {
    /// A mode with all else by default.
    #[must_use]
    pub fn new(mode: SecAggMode) -> Self {
        Self {
            mode,
            threat: SecAggThreat::default(),
            graph: None,
            suite: SecAggSuite::default(),
            corrupt: Self::DEFAULT_CORRUPT,
            dropout: None,
            min_survivors: None,
            groups: None,
            sample: Self::DEFAULT_SAMPLE,
        }
    }

    /// The share of corrupt clients when not given.
    pub const DEFAULT_CORRUPT: f64 = 0.1;
    /// The clients of a sample when not given.
    pub const DEFAULT_SAMPLE: u32 = 20;

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`SimError::OutOfRange`] naming the key.
    pub fn validate(&self) -> Result<(), SimError> {
        let refuse = |key, value: String, range| SimError::OutOfRange { key, value, range };
        for (key, value) in [
            ("secagg.corrupt", Some(self.corrupt)),
            ("secagg.dropout", self.dropout),
        ] {
            if let Some(value) = value.filter(|value| !(0.0..1.0).contains(value)) {
                let range = "a share from 0 to below 1";
                return Err(refuse(key, value.to_string(), range));
            }
        }
        for (key, value) in [
            ("secagg.min_survivors", self.min_survivors),
            ("secagg.groups", self.groups),
            ("secagg.sample", Some(self.sample)),
        ] {
            if let Some(value) = value.filter(|&value| value < 2) {
                let range = "a whole number of at least 2";
                return Err(refuse(key, value.to_string(), range));
            }
        }
        Ok(())
    }
}

/// Why there is no secure aggregation, or why it went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecAggError {
    /// No sessions of that size.
    #[error("sessions of {clients} clients: {source}")]
    Params {
        /// Clients of a session.
        clients: u64,
        /// Why not.
        source: ParamsError,
    },
    /// A setting that does not go together with the rest of the run.
    #[error("{what} cannot be had with {with}: {reason}; {instead}")]
    Refused {
        /// The key that asks for it.
        key: &'static str,
        /// What is asked for.
        what: &'static str,
        /// What it does not go together with.
        with: &'static str,
        /// Why.
        reason: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// An honest client did not accept what an honest server sent.
    #[error("round {round}, client {client}: {source}; please report this")]
    Client {
        /// The round.
        round: RoundId,
        /// The client.
        client: u64,
        /// Its error.
        source: ClientError,
    },
    /// An honest client's input was refused.
    #[error("round {round}, client {client}: {source}; please report this")]
    Input {
        /// The round.
        round: RoundId,
        /// The client.
        client: u64,
        /// Why.
        source: InputError,
    },
    /// An honest server refused what an honest client sent.
    #[error("round {round}, client {client}: {source}; please report this")]
    Server {
        /// The round.
        round: RoundId,
        /// The client.
        client: u64,
        /// Why.
        source: Fault,
    },
    /// A session of honest parties went wrong.
    #[error("round {round}: {source}; please report this")]
    Session {
        /// The round.
        round: RoundId,
        /// Why.
        source: SessionError,
    },
    /// What came out is not what went in.
    #[error(
        "round {round}: the {what} of a session is {session}, and its clients sent {sent}; please \
         report this"
    )]
    Disagrees {
        /// The round.
        round: RoundId,
        /// What differs.
        what: &'static str,
        /// What the session says.
        session: String,
        /// What was sent.
        sent: String,
    },
}

/// The secure aggregation of a round, as it went. Everything but [`measured`](Self::measured) is a
/// function of the configuration and the data alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecAggRecord {
    /// What was really done.
    pub mode: SecAggMode,
    /// Sessions.
    pub sessions: u64,
    /// Clients of all sessions: those that came to the round.
    pub clients: u64,
    /// Neighbours of a client in the largest session.
    pub neighbours: u64,
    /// Shares that reveal a secret there.
    pub threshold: u64,
    /// The fewest survivors there.
    pub min_survivors: u64,
    /// Bits of a coordinate there.
    pub ring_bits: u64,
    /// Clients that left before their keys, after them, after their shares, and after their masked
    /// input.
    pub left: [u64; 4],
    /// Clients whose inputs came; they are in the sum if no session failed.
    pub inputs: u64,
    /// Clients whose inputs went through the protocol for real, to a sum that was unmasked.
    pub masked: u64,
    /// Sessions that failed.
    pub failed: u64,
    /// The first stage in which one failed.
    pub failed_stage: Option<SecAggStage>,
    /// Bytes of all messages, over all clients: counted in the real mode. Otherwise computed, exactly
    /// in complete graphs and in Harary graphs from which nobody leaves before the inputs, and else
    /// for the mean number of neighbours that are left.
    pub bytes: SecAggBytes,
    /// Sums of this and recent rounds that differ by few clients: what [`ClosePair`] says.
    pub close_pairs: u64,
    /// Seconds of computation as the library's cost model of a reference machine has them, of a
    /// client that stays to the end and of the server; over sessions that did not fail, and none
    /// without one.
    pub modelled: Option<SecAggSeconds>,
    /// Seconds that the real sessions of the round took, on this machine.
    #[serde(skip)]
    pub measured: Option<SecAggSeconds>,
}

/// Seconds of computation in the stages of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SecAggSeconds {
    /// Keys are made and checked.
    pub advertise_keys: StageTime,
    /// Secrets are shared.
    pub share_keys: StageTime,
    /// Inputs are masked and added.
    pub masked_input: StageTime,
    /// Survivors are signed, under the active threat.
    pub consistency: StageTime,
    /// The sum is unmasked.
    pub unmask: StageTime,
}

/// Seconds of computation in one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTime {
    /// Of a client that took part in it, in the mean.
    pub client_mean: f64,
    /// Of the client that took longest; modelled, of a client in the costliest session.
    pub client_max: f64,
    /// Of the server, over all sessions. Measured, all workers unmask together; modelled, one does.
    pub server: f64,
}

impl SecAggSeconds {
    /// The stages with their names, in order.
    #[must_use]
    pub fn stages(&self) -> [(SecAggStage, StageTime); 5] {
        [
            (SecAggStage::AdvertiseKeys, self.advertise_keys),
            (SecAggStage::ShareKeys, self.share_keys),
            (SecAggStage::MaskedInput, self.masked_input),
            (SecAggStage::Consistency, self.consistency),
            (SecAggStage::Unmask, self.unmask),
        ]
    }

    pub(crate) fn from_stages(stages: [StageTime; 5]) -> Self {
        let [
            advertise_keys,
            share_keys,
            masked_input,
            consistency,
            unmask,
        ] = stages;
        Self {
            advertise_keys,
            share_keys,
            masked_input,
            consistency,
            unmask,
        }
    }

    /// Of a client, in the mean, over all stages.
    #[must_use]
    pub fn client(&self) -> f64 {
        self.stages().iter().map(|(_, time)| time.client_mean).sum()
    }

    /// Of the server over all stages.
    #[must_use]
    pub fn server(&self) -> f64 {
        self.stages().iter().map(|(_, time)| time.server).sum()
    }
}
