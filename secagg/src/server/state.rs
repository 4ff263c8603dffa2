//! A server at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_core::CryptoRng;

use super::{Server, Stage};
use crate::error::{DecodeError, ParamsError};
use crate::identity::Directory;
use crate::packet::{PACKET_BYTES, Packet};
use crate::params::{Params, Threat};
use crate::session::Context;
use crate::shamir::SHARE_BYTES;
use crate::state::{Body, Role, StateError, open, seal};
use crate::wire::{
    Advert, Reader, Revealed, SERVER, SIGNATURE_BYTES, advert_bytes, bit_map, read_share,
};

impl Server {
    /// The session so far, sealed under `key`, to be continued by [`Server::import`] after a restart:
    /// as long as the vector's packed sum, and besides the keys, and the packets or shares that are
    /// held in this stage. `rng` must be a cryptographic generator seeded with entropy.
    ///
    /// A server that continues twice from one state can harm availability only: clients answer each
    /// stage once, and what they reveal follows from their own state.
    ///
    /// # Errors
    /// [`StateError::Over`] when the session has failed.
    pub fn export(&self, key: &[u8; 32], rng: &mut impl CryptoRng) -> Result<Vec<u8>, StateError> {
        let body = self.body()?;
        let body = body.bytes();
        Ok(seal(Role::Server, &self.session, SERVER, key, rng, body))
    }

    /// Continues the session with `params` in `context` from an exported state. `directory` as in
    /// [`Server::new`].
    ///
    /// # Errors
    /// [`StateError`]: a state of another version or session, one that was changed, or sealed under
    /// another key.
    pub fn import(
        params: Arc<Params>,
        context: &Context,
        directory: Option<Arc<Directory>>,
        key: &[u8; 32],
        bytes: &[u8],
    ) -> Result<Self, StateError> {
        let fresh = Self::new(params, context, directory)?;
        let (_, body) = open(Role::Server, &fresh.session, SERVER, key, bytes)?;
        Ok(fresh.with_body(&body)?)
    }

    /// A fresh server with what a body says.
    pub(crate) fn from_body(
        params: Arc<Params>,
        context: &Context,
        directory: Option<Arc<Directory>>,
        body: &[u8],
    ) -> Result<Result<Self, DecodeError>, ParamsError> {
        Ok(Self::new(params, context, directory)?.with_body(body))
    }

    pub(crate) fn body(&self) -> Result<Body, StateError> {
        let stage = self.stage.ok_or(StateError::Over)?;
        let params = &*self.params;
        let map = |set: &BTreeSet<u32>| bit_map(params.clients(), set.iter().copied());
        let lists = |lists: usize, items: usize, bytes: usize| 8 * lists + items * (4 + bytes);
        let packets: usize = self.packets.values().map(Vec::len).sum();
        let revealed: usize = self.revealed.values().map(Vec::len).sum();
        let most = 1024
            + params.clients() as usize
            + lists(1, self.adverts.len(), advert_bytes(params))
            + lists(self.packets.len(), packets, PACKET_BYTES)
            + lists(1, self.signatures.len(), SIGNATURE_BYTES)
            + lists(self.revealed.len(), revealed, 1 + SHARE_BYTES)
            + 8 * params.masked_length();
        let mut body = Body::with_capacity(most);
        body.raw(&[stage as u8]);
        body.count(self.adverts.len());
        for (id, advert) in &self.adverts {
            body.u32(*id);
            body.raw(&advert.packet_key);
            body.raw(&advert.mask_key);
            body.raw(&advert.commitment);
            if params.threat() == Threat::Active {
                body.raw(&advert.signature);
            }
        }
        body.raw(&map(&self.awaited));
        body.raw(&map(&self.answered));
        body.raw(&map(&self.shared));
        body.raw(&bit_map(params.clients(), self.survivors.iter().copied()));
        body.count(self.packets.len());
        for (owner, packets) in &self.packets {
            body.u32(*owner);
            body.count(packets.len());
            for (holder, packet) in packets {
                body.u32(*holder);
                body.raw(packet);
            }
        }
        body.count(self.signatures.len());
        for (id, signature) in &self.signatures {
            body.u32(*id);
            body.raw(signature);
        }
        body.count(self.revealed.len());
        for (holder, shares) in &self.revealed {
            body.u32(*holder);
            body.count(shares.len());
            for (owner, (secret, share)) in shares {
                body.u32(*owner);
                body.raw(&[*secret as u8]);
                body.raw(&*share.to_bytes());
            }
        }
        self.sum.pack(params.ring(), body.buffer());
        Ok(body)
    }

    fn with_body(mut self, body: &[u8]) -> Result<Self, DecodeError> {
        let params = Arc::clone(&self.params);
        let clients = params.clients();
        let mut reader = Reader::body(body);
        let stage = match reader.take::<1>()? {
            [0] => Stage::AdvertiseKeys,
            [1] => Stage::ShareKeys,
            [2] => Stage::MaskedInput,
            [3] if self.directory.is_some() => Stage::Consistency,
            [4] => Stage::Unmask,
            _ => return Err(DecodeError::Field("a server is in no such stage")),
        };
        let adverts = reader.part(clients, advert_bytes(&params), |reader| {
            Advert::read(&params, reader)
        })?;
        for (id, advert) in adverts {
            self.advertise(id, advert)
                .map_err(|_| DecodeError::Field("keys that no server takes"))?;
        }
        let mut set = || -> Result<BTreeSet<u32>, DecodeError> {
            Ok(reader.set(clients)?.into_iter().collect())
        };
        (self.awaited, self.answered, self.shared) = (set()?, set()?, set()?);
        self.survivors = set()?.into_iter().collect();
        if stage != Stage::AdvertiseKeys {
            let present: Vec<u32> = self.adverts.keys().copied().collect();
            drop(self.roster(present));
        }
        self.packets = read_nested(&mut reader, clients, |reader| {
            reader.part(clients, PACKET_BYTES, |reader| {
                Ok::<Packet, _>(*reader.take()?)
            })
        })?;
        self.signatures = reader
            .part(clients, SIGNATURE_BYTES, |reader| Ok(*reader.take()?))?
            .into_iter()
            .collect();
        self.revealed = read_nested(&mut reader, clients, |reader| -> Result<Vec<Revealed>, _> {
            reader.part(clients, 1 + SHARE_BYTES, read_share)
        })?;
        let ring = params.ring();
        let packed = reader.all(ring.packed_bytes(params.masked_length()))?;
        if !self.sum.add_packed(ring, packed) {
            return Err(DecodeError::Field("an unused bit is set"));
        }
        self.stage = Some(stage);
        self.consistent(stage)?;
        Ok(self)
    }

    /// Whether clients can have come as far as the sets say.
    fn consistent(&self, stage: Stage) -> Result<(), DecodeError> {
        let present: BTreeSet<u32> = self.adverts.keys().copied().collect();
        let survivors: BTreeSet<u32> = self.survivors.iter().copied().collect();
        let (sharing, here) = (Stage::MaskedInput <= stage, Stage::MaskedInput < stage);
        // Who may be in this stage, and what of it is kept.
        let (expected, kept): (&BTreeSet<u32>, BTreeSet<u32>) = match stage {
            Stage::AdvertiseKeys => (&self.awaited, present.clone()),
            Stage::ShareKeys => (&present, self.packets.keys().copied().collect()),
            Stage::MaskedInput => (&self.shared, self.answered.clone()),
            Stage::Consistency => (&survivors, self.signatures.keys().copied().collect()),
            Stage::Unmask => (&survivors, self.revealed.keys().copied().collect()),
        };
        let first = stage == Stage::AdvertiseKeys;
        let fits = self.awaited.is_disjoint(&self.answered)
            && kept == self.answered
            && (first || self.awaited.is_subset(expected) && self.answered.is_subset(expected))
            && self.shared.is_subset(&present)
            && survivors.is_subset(&self.shared)
            && (sharing || self.shared.is_empty())
            && (here || survivors.is_empty())
            && (stage == Stage::ShareKeys || self.packets.is_empty())
            && (stage == Stage::Unmask || self.revealed.is_empty())
            && self.signatures.keys().all(|id| survivors.contains(id));
        let packets = self.packets.iter().all(|(owner, packets)| {
            packets
                .iter()
                .map(|(id, _)| *id)
                .eq(self.neighbours(*owner))
        });
        let shares = self.revealed.iter().all(|(holder, shares)| {
            let given = shares.iter().map(|(owner, (secret, _))| (*owner, *secret));
            given.eq(self.asked(*holder))
        });
        if !(fits && packets && shares) {
            return Err(DecodeError::Field("clients who cannot have come so far"));
        }
        Ok(())
    }
}

/// A list of lists.
fn read_nested<'a, T>(
    reader: &mut Reader<'a>,
    clients: u32,
    list: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<BTreeMap<u32, T>, DecodeError> {
    Ok(reader.part(clients, 4, list)?.into_iter().collect())
}
