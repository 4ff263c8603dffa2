//! The server: it passes keys and packets on, adds masked inputs as they arrive, and takes the masks
//! off their sum. Of the inputs it keeps their sum only, so that it needs memory for one vector,
//! whatever the number of clients; besides, a hundred bytes for each pair of neighbours until their
//! packets are passed on, and as many for each share that is revealed.

mod aggregate;
mod state;
mod unmask;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Fault, ParamsError, SessionError};
use crate::graph::Graph;
use crate::identity::{Directory, survivors_digest};
use crate::keys::{Binding, PublicKey};
use crate::mask::apply;
use crate::operation::{Operation, count};
use crate::packet::Packet;
use crate::params::{Params, Threat};
use crate::ring::Words;
use crate::session::{Context, SessionId, digest};
use crate::wire::{
    Advert, Kind, Reader, Revealed, SERVER, SIGNATURE_BYTES, Writer, bit_map, read_packets,
    read_shares, read_signature, write_packets, write_roster,
};

pub use aggregate::Aggregate;

/// Elements that one job unmasks.
const JOB_ELEMENTS: usize = 1 << 16;

/// Bytes for some clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Who they are for, ascending.
    pub to: Vec<u32>,
    /// The message.
    pub message: Vec<u8>,
}

/// Who does the work of unmasking. The result does not depend on it.
pub trait Workers {
    /// Calls `work` with each of `jobs` once, in any order, on any threads.
    fn each<T: Send, F: Fn(&mut T) + Sync + Send>(&self, jobs: &mut [T], work: F);
}

/// [`Workers`] that are the caller's own thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneThread;

impl Workers for OneThread {
    fn each<T: Send, F: Fn(&mut T) + Sync + Send>(&self, jobs: &mut [T], work: F) {
        jobs.iter_mut().for_each(work);
    }
}

/// What a session is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Clients' keys.
    AdvertiseKeys,
    /// Their sealed shares.
    ShareKeys,
    /// Their masked inputs.
    MaskedInput,
    /// Their signatures under the survivors ([`Threat::Active`]).
    Consistency,
    /// The shares that unmask the sum.
    Unmask,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::AdvertiseKeys => "advertise keys",
            Self::ShareKeys => "share keys",
            Self::MaskedInput => "masked input",
            Self::Consistency => "consistency check",
            Self::Unmask => "unmask",
        }
    }
}

/// The server's part of one session. The caller owns connections and clock: it passes in what
/// arrives, and closes a stage when all have answered or time is up.
///
/// ```text
/// receive … close ─▶ roster            to all who advertised
/// receive … close ─▶ forwarded shares  to each who shared
/// receive … close ─▶ survivors         to all whose input arrived
/// receive … close ─▶ unmask            to the same, under the active threat only
/// receive … finish ─▶ the sum
/// ```
#[cfg_attr(test, derive(Clone))]
pub struct Server {
    params: Arc<Params>,
    session: SessionId,
    directory: Option<Arc<Directory>>,
    /// None once the session failed.
    stage: Option<Stage>,
    /// Who may answer in this stage and has not yet.
    awaited: BTreeSet<u32>,
    /// Who has answered in this stage.
    answered: BTreeSet<u32>,
    adverts: BTreeMap<u32, Advert>,
    keys_in_use: BTreeSet<[u8; 32]>,
    /// Set with the roster.
    binding: Binding,
    graph: Option<Graph>,
    /// By owner, then by holder.
    packets: BTreeMap<u32, Vec<(u32, Packet)>>,
    /// Who shared keys: U2 of the paper.
    shared: BTreeSet<u32>,
    sum: Words,
    /// Whose input is in the sum: U3.
    survivors: Vec<u32>,
    signatures: BTreeMap<u32, [u8; SIGNATURE_BYTES]>,
    revealed: BTreeMap<u32, Vec<Revealed>>,
}

impl core::fmt::Debug for Server {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Server")
            .field("stage", &self.stage)
            .field("answered", &self.answered.len())
            .field("awaited", &self.awaited.len())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A session that waits for keys. `directory` is for [`Threat::Active`] and only for it.
    ///
    /// # Errors
    /// [`ParamsError::Directory`].
    pub fn new(
        params: Arc<Params>,
        context: &Context,
        directory: Option<Arc<Directory>>,
    ) -> Result<Self, ParamsError> {
        let digest = Directory::check(&params, directory.as_deref())?;
        let session = SessionId::new(&params, context, digest);
        Ok(Self {
            session,
            directory,
            stage: Some(Stage::AdvertiseKeys),
            awaited: (0..params.clients()).collect(),
            answered: BTreeSet::new(),
            adverts: BTreeMap::new(),
            keys_in_use: BTreeSet::new(),
            binding: Binding {
                session,
                roster: [0; 32],
            },
            graph: None,
            packets: BTreeMap::new(),
            shared: BTreeSet::new(),
            sum: params.ring().zeros(params.masked_length()),
            survivors: Vec::new(),
            signatures: BTreeMap::new(),
            revealed: BTreeMap::new(),
            params,
        })
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// What it waits for; none once it failed.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.stage
    }

    /// Who may still answer in this stage, ascending.
    pub fn awaited(&self) -> impl Iterator<Item = u32> + '_ {
        self.awaited.iter().copied()
    }

    /// Who has answered in this stage, ascending.
    pub fn answered(&self) -> impl Iterator<Item = u32> + '_ {
        self.answered.iter().copied()
    }

    /// Takes a message that the transport knows to be from client `from`.
    ///
    /// # Errors
    /// [`Fault`]; then nothing has changed, and the client may answer again.
    pub fn receive(&mut self, from: u32, message: &[u8]) -> Result<(), Fault> {
        let stage = self.stage.ok_or(Fault::Over)?;
        if from >= self.params.clients() {
            return Err(Fault::Unknown {
                id: from,
                clients: self.params.clients(),
            });
        }
        if self.answered.contains(&from) {
            return Err(Fault::Duplicate { id: from });
        }
        if !self.awaited.contains(&from) {
            return Err(Fault::NotExpected { id: from });
        }
        let params = Arc::clone(&self.params);
        let open = |kind| Reader::open(message, kind, &params, &self.session, from);
        match stage {
            Stage::AdvertiseKeys => {
                let advert = Advert::decode(&params, open(Kind::AdvertiseKeys)?)?;
                self.advertise(from, advert)?;
            }
            Stage::ShareKeys => {
                let packets = read_packets(&params, open(Kind::ShareKeys)?)?;
                if !packets.iter().map(|(id, _)| *id).eq(self.neighbours(from)) {
                    return Err(Fault::Shares { id: from });
                }
                self.packets.insert(from, packets);
            }
            Stage::MaskedInput => {
                let ring = params.ring();
                let packed =
                    open(Kind::MaskedInput)?.all(ring.packed_bytes(params.masked_length()))?;
                if !self.sum.add_packed(ring, packed) {
                    return Err(crate::error::DecodeError::Field("an unused bit is set").into());
                }
            }
            Stage::Consistency => {
                let signature = read_signature(open(Kind::SignedSurvivors)?)?;
                let signed = self.signed_digest();
                let fits = self
                    .directory
                    .as_ref()
                    .is_some_and(|directory| directory.verify_survivors(from, &signed, &signature));
                if !fits {
                    return Err(Fault::Signature { id: from });
                }
                self.signatures.insert(from, signature);
            }
            Stage::Unmask => {
                let shares = read_shares(&params, open(Kind::UnmaskingShares)?)?;
                let given = shares.iter().map(|(owner, (secret, _))| (*owner, *secret));
                if !given.eq(self.asked(from)) {
                    return Err(Fault::Shares { id: from });
                }
                self.revealed.insert(from, shares);
            }
        }
        self.awaited.remove(&from);
        self.answered.insert(from);
        Ok(())
    }

    /// Closes a stage and gives what is to be sent. Who has not answered has dropped out.
    ///
    /// # Errors
    /// [`SessionError::TooFew`] when too few answered; then the session has failed.
    /// [`SessionError::Stage`] in the last stage, which [`Server::finish`] closes.
    pub fn close(&mut self) -> Result<Vec<Outgoing>, SessionError> {
        let stage = self.stage.ok_or(SessionError::Stage { stage: "over" })?;
        if stage == Stage::Unmask {
            return Err(SessionError::Stage {
                stage: stage.name(),
            });
        }
        let survivors = self.params.min_survivors().max(self.params.threshold());
        let least = match stage {
            Stage::Consistency => self.params.quorum(),
            _ => survivors,
        };
        if stage == Stage::ShareKeys {
            self.prune();
        }
        if self.answered.len() < least as usize {
            self.stage = None;
            return Err(SessionError::TooFew {
                stage: stage.name(),
                present: self.answered.len(),
                least: least as usize,
            });
        }
        let answered = core::mem::take(&mut self.answered);
        let all: Vec<u32> = answered.iter().copied().collect();
        let (next, outgoing) = match stage {
            Stage::AdvertiseKeys => (Stage::ShareKeys, self.roster(all)),
            Stage::ShareKeys => {
                self.shared.clone_from(&answered);
                (Stage::MaskedInput, self.forward())
            }
            Stage::MaskedInput => {
                self.survivors.clone_from(&all);
                let bits = bit_map(self.params.clients(), all.iter().copied());
                let mut writer = self.writer(Kind::Survivors);
                writer.raw(&bits);
                let next = match self.params.threat() {
                    Threat::Active => Stage::Consistency,
                    Threat::SemiHonest | Threat::SemiMalicious => Stage::Unmask,
                };
                (
                    next,
                    vec![Outgoing {
                        to: all,
                        message: writer.finish(),
                    }],
                )
            }
            Stage::Consistency | Stage::Unmask => {
                let bits = bit_map(self.params.clients(), self.survivors.iter().copied());
                let mut writer = self.writer(Kind::Unmask);
                writer.raw(&bits);
                writer.count(self.signatures.len());
                for (id, signature) in &self.signatures {
                    writer.u32(*id);
                    writer.raw(signature);
                }
                (
                    Stage::Unmask,
                    vec![Outgoing {
                        to: all,
                        message: writer.finish(),
                    }],
                )
            }
        };
        self.awaited = answered;
        self.stage = Some(next);
        Ok(outgoing)
    }

    /// Closes the last stage: recovers the secrets, takes the masks off, gives the sum.
    ///
    /// # Errors
    /// [`SessionError`] when shares are too few or false, or masks do not cancel.
    pub fn finish(mut self, workers: &impl Workers) -> Result<Aggregate, SessionError> {
        match self.stage {
            Some(Stage::Unmask) => {}
            other => {
                return Err(SessionError::Stage {
                    stage: other.map_or("over", Stage::name),
                });
            }
        }
        let least = self.params.threshold() as usize;
        if self.answered.len() < least {
            return Err(SessionError::TooFew {
                stage: Stage::Unmask.name(),
                present: self.answered.len(),
                least,
            });
        }
        let (masks, bad_shares) = self.masks(workers)?;
        let suite = self.params.suite();
        let ring = self.params.ring();
        let mut sum = core::mem::replace(&mut self.sum, ring.zeros(0));
        match &mut sum {
            Words::Narrow(words) => {
                let mut jobs: Vec<_> = words.chunks_mut(JOB_ELEMENTS).enumerate().collect();
                workers.each(&mut jobs, |(index, words)| {
                    apply(suite, &masks, *index * JOB_ELEMENTS, words);
                });
            }
            Words::Wide(words) => {
                let mut jobs: Vec<_> = words.chunks_mut(JOB_ELEMENTS).enumerate().collect();
                workers.each(&mut jobs, |(index, words)| {
                    apply(suite, &masks, *index * JOB_ELEMENTS, words);
                });
            }
        }
        Aggregate::open(&self.params, &sum, self.survivors, bad_shares)
    }

    fn writer(&self, kind: Kind) -> Writer {
        Writer::new(kind, &self.params, &self.session, SERVER)
    }

    fn advertise(&mut self, from: u32, advert: Advert) -> Result<(), Fault> {
        let keys = [advert.packet_key, advert.mask_key];
        if keys[0] == keys[1] || keys.iter().any(|key| self.keys_in_use.contains(key)) {
            return Err(Fault::DuplicateKey { id: from });
        }
        if keys.iter().any(|key| PublicKey::from_bytes(key).is_none()) {
            return Err(Fault::Key { id: from });
        }
        if let Some(directory) = &self.directory
            && !directory.verify_advert(&self.session, from, &advert)
        {
            return Err(Fault::Signature { id: from });
        }
        count(Operation::Entry, 3);
        self.keys_in_use.extend(keys);
        self.adverts.insert(from, advert);
        Ok(())
    }

    fn roster(&mut self, to: Vec<u32>) -> Vec<Outgoing> {
        let roster = self.adverts.iter().map(|(id, advert)| (*id, *advert));
        let message = write_roster(&self.params, &self.session, roster);
        count(Operation::Hash, message.len());
        self.binding.roster = digest(b"roster", &[&message]);
        let seed = digest(b"graph", &[&self.binding.roster]);
        self.graph = Some(Graph::new(&self.params, seed));
        vec![Outgoing { to, message }]
    }

    /// Neighbours of a client that are in the roster, ascending.
    fn neighbours(&self, client: u32) -> Vec<u32> {
        let mut neighbours = self
            .graph
            .as_ref()
            .map(|graph| graph.neighbours(client))
            .unwrap_or_default();
        neighbours.retain(|id| self.adverts.contains_key(id));
        neighbours
    }

    fn holds_own(&self) -> bool {
        self.graph.as_ref().is_some_and(Graph::holds_own)
    }

    /// Who shared but whose secrets too few others could recover counts as dropped out, before
    /// anybody shares a mask with it.
    fn prune(&mut self) {
        loop {
            let own = usize::from(self.holds_own());
            let least = self.params.threshold() as usize;
            let lonely: Vec<u32> = self
                .answered
                .iter()
                .copied()
                .filter(|&id| {
                    let neighbours = self.neighbours(id);
                    let shared = neighbours.iter().filter(|id| self.answered.contains(id));
                    shared.count() + own < least
                })
                .collect();
            if lonely.is_empty() {
                return;
            }
            for id in lonely {
                self.answered.remove(&id);
            }
        }
    }

    fn forward(&mut self) -> Vec<Outgoing> {
        let mut inboxes: BTreeMap<u32, Vec<(u32, Packet)>> =
            self.shared.iter().map(|id| (*id, Vec::new())).collect();
        for (owner, packets) in core::mem::take(&mut self.packets) {
            if !self.shared.contains(&owner) {
                continue;
            }
            for (holder, packet) in packets {
                if let Some(inbox) = inboxes.get_mut(&holder) {
                    inbox.push((owner, packet));
                }
            }
        }
        inboxes
            .into_iter()
            .map(|(id, inbox)| Outgoing {
                to: vec![id],
                message: write_packets(self.writer(Kind::ForwardedShares), inbox.into_iter()),
            })
            .collect()
    }

    fn signed_digest(&self) -> [u8; 32] {
        survivors_digest(
            &self.session,
            &self.binding.roster,
            self.params.clients(),
            &self.survivors,
        )
    }
}
