//! The protocol's outcome without the protocol: the same sum, bit for bit, of inputs in the clear, and
//! what the messages would have weighed. For simulations too large to mask for real.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{ClientError, Fault, InputError, SessionError};
use crate::packet::PACKET_BYTES;
use crate::params::{Params, Threat, Topology};
use crate::ring::{Input, Words};
use crate::server::Aggregate;
use crate::shamir::SHARE_BYTES;
use crate::wire::{FRAME_BYTES, SIGNATURE_BYTES, advert_bytes};

/// A sum as a [`crate::Server`] would give it, of inputs that it sees: it protects nothing.
///
/// ```
/// use std::sync::Arc;
/// use fl_secagg::{Cohort, Ideal, Input, Params, Ring, Suite, Threat, Topology};
///
/// let ring = Ring::bounded(3, 1, 8)?;
/// let cohort = Cohort::new(3, 0.0, 0.0)?;
/// let params =
///     Params::new(cohort, Threat::SemiHonest, Topology::Complete, Suite::Aes128, ring, 2)?;
/// let mut ideal = Ideal::new(Arc::new(params));
/// for id in 0..3 {
///     ideal.add(id, &Input::weighted(ring, &[1, -7], 1, 0)?)?;
/// }
/// assert_eq!(ideal.finish()?.integers().collect::<Vec<_>>(), [3, -21]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Ideal {
    params: Arc<Params>,
    sum: Words,
    survivors: BTreeSet<u32>,
}

impl core::fmt::Debug for Ideal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ideal")
            .field("survivors", &self.survivors.len())
            .finish_non_exhaustive()
    }
}

/// Why an input was not added to an [`Ideal`] sum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdealError {
    /// What a server would have refused.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// What a client would have refused.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Ideal {
    /// An empty sum.
    #[must_use]
    pub fn new(params: Arc<Params>) -> Self {
        Self {
            sum: params.ring().zeros(params.masked_length()),
            survivors: BTreeSet::new(),
            params,
        }
    }

    /// Adds the input of client `id`, whose masked input would have arrived.
    ///
    /// # Errors
    /// [`IdealError`] as client and server would have it; then nothing has changed.
    pub fn add(&mut self, id: u32, input: &Input) -> Result<(), IdealError> {
        let clients = self.params.clients();
        if id >= clients {
            return Err(Fault::Unknown { id, clients }.into());
        }
        let ring = self.params.ring();
        if input.len() != self.params.length() {
            let (given, expected) = (input.len(), self.params.length());
            return Err(ClientError::Input(InputError::Length { given, expected }).into());
        }
        if !input.is_for(ring) {
            return Err(ClientError::Input(InputError::Kind).into());
        }
        if !self.survivors.insert(id) {
            return Err(Fault::Duplicate { id }.into());
        }
        self.sum.add(&input.words(ring));
        Ok(())
    }

    /// The sum.
    ///
    /// # Errors
    /// [`SessionError::TooFew`] as in the session's stage of masked inputs. Whether the survivors would
    /// have unmasked it is the caller's to decide.
    pub fn finish(self) -> Result<Aggregate, SessionError> {
        let least = self.params.min_survivors() as usize;
        if self.survivors.len() < least {
            return Err(SessionError::TooFew {
                stage: "masked input",
                present: self.survivors.len(),
                least,
            });
        }
        let survivors = self.survivors.into_iter().collect();
        Aggregate::open(&self.params, &self.sum, survivors, Vec::new())
    }
}

/// Bytes of messages to and from the server: of one client, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Up: its keys.
    pub advertise_keys: u64,
    /// Down: everybody's keys.
    pub roster: u64,
    /// Up: sealed shares for its neighbours.
    pub share_keys: u64,
    /// Down: theirs.
    pub forwarded_shares: u64,
    /// Up: the vector.
    pub masked_input: u64,
    /// Down: who survived.
    pub survivors: u64,
    /// Up, under the active threat and otherwise 0: its signature.
    pub signed_survivors: u64,
    /// Down, under the active threat and otherwise 0: the others' signatures.
    pub unmask: u64,
    /// Up: shares that unmask the sum.
    pub unmasking_shares: u64,
}

impl Traffic {
    /// Of a client that stays to the end, when `present` clients advertise keys, `neighbours` of its
    /// neighbours do and `sharing` of them share keys, and `signers` sign the survivors.
    #[must_use]
    pub fn new(params: &Params, present: u32, neighbours: u32, sharing: u32, signers: u32) -> Self {
        let frame = FRAME_BYTES as u64;
        let list = |count: u32, bytes: usize| frame + 4 + u64::from(count) * (4 + bytes as u64);
        let advert = advert_bytes(params);
        let map = u64::from(params.clients().div_ceil(8));
        let own = u32::from(params.topology() == Topology::Complete);
        let active = params.threat() == Threat::Active;
        let only_active = |bytes: u64| if active { bytes } else { 0 };
        Self {
            advertise_keys: frame + advert as u64,
            roster: list(present, advert),
            share_keys: list(neighbours, PACKET_BYTES),
            forwarded_shares: list(sharing, PACKET_BYTES),
            masked_input: frame + params.ring().packed_bytes(params.masked_length()) as u64,
            survivors: frame + map,
            signed_survivors: only_active(frame + SIGNATURE_BYTES as u64),
            unmask: only_active(list(signers, SIGNATURE_BYTES) + map),
            unmasking_shares: list(sharing + own, 1 + SHARE_BYTES),
        }
    }

    /// All that clients send.
    #[must_use]
    pub fn up(&self) -> u64 {
        self.advertise_keys
            + self.share_keys
            + self.masked_input
            + self.signed_survivors
            + self.unmasking_shares
    }

    /// All that they receive.
    #[must_use]
    pub fn down(&self) -> u64 {
        self.roster + self.forwarded_shares + self.survivors + self.unmask
    }
}

impl core::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.advertise_keys += other.advertise_keys;
        self.roster += other.roster;
        self.share_keys += other.share_keys;
        self.forwarded_shares += other.forwarded_shares;
        self.masked_input += other.masked_input;
        self.survivors += other.survivors;
        self.signed_survivors += other.signed_survivors;
        self.unmask += other.unmask;
        self.unmasking_shares += other.unmasking_shares;
    }
}
