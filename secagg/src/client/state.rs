//! A client at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::{Advertised, Client, Dealt, Held, Neighbour, Ready, State};
use crate::error::DecodeError;
use crate::identity::{Directory, Identity};
use crate::keys::{Binding, PublicKey, SecretKey, commitment};
use crate::mask::{Mask, Sign};
use crate::packet::Shares;
use crate::params::{Params, Threat, Topology};
use crate::ring::Words;
use crate::session::{Context, SessionId};
use crate::shamir::{SHARE_BYTES, Share};
use crate::state::{Body, Role, StateError, Ticket, open, seal};
use crate::wire::{Advert, Reader, SIGNATURE_BYTES, bit_map};

const SHARES_BYTES: usize = 2 * SHARE_BYTES;

impl Client {
    /// Ends this client in this process and gives its state, sealed under `key`, to be continued by
    /// [`Client::import`]: for an app that may be killed between stages. Send what the client had to
    /// say before, and export again after every stage. There is nothing to export once it has
    /// answered the request to unmask. `rng` must be a cryptographic generator seeded with entropy.
    ///
    /// # Rollback
    /// Whoever continues from the same state twice can be made to mask two inputs with the same
    /// masks, or to reveal both secrets of another client: each undoes the protection. So the client
    /// is gone from this process when its state leaves; the state carries a [`Ticket`] that no other
    /// has; and [`Client::import`] asks the caller to strike it off. Keep the struck tickets where no
    /// backup or snapshot brings back an older list: only the caller can see to that.
    ///
    /// # Errors
    /// [`StateError::Over`].
    pub fn export(self, key: &[u8; 32], rng: &mut impl CryptoRng) -> Result<Vec<u8>, StateError> {
        let body = self.body()?;
        Ok(seal(
            Role::Client,
            &self.session,
            self.id,
            key,
            rng,
            body.bytes(),
        ))
    }

    /// Continues client `id` of the session with `params` in `context` from an exported state.
    /// `identity` is not in the state: it is asked for as in [`Client::start`]. `claim` is called once,
    /// when the state is known to be genuine; it must record the ticket durably and return false if
    /// it was recorded before (see [`Client::export`] for what is at stake).
    ///
    /// # Errors
    /// [`StateError`]: a state of another version, session or client, one that was changed or sealed
    /// under another key, and one that was claimed before.
    pub fn import(
        params: Arc<Params>,
        context: &Context,
        id: u32,
        identity: Option<Identity>,
        key: &[u8; 32],
        bytes: &[u8],
        claim: impl FnOnce(&Ticket) -> bool,
    ) -> Result<Self, StateError> {
        let directory = Self::check(&params, id, identity.as_ref())?;
        let session = SessionId::new(&params, context, directory);
        let (ticket, body) = open(Role::Client, &session, id, key, bytes)?;
        let client = Self::from_body(params, session, id, identity, &body)?;
        if !claim(&ticket) {
            return Err(StateError::Claimed);
        }
        Ok(client)
    }

    pub(crate) fn body(&self) -> Result<Body, StateError> {
        let params = &*self.params;
        let clients = params.clients() as usize;
        let most = 1024
            + 8 * params.masked_length()
            + 4 * clients
            + (params.degree() as usize + 1) * (200 + SHARES_BYTES);
        let mut body = Body::with_capacity(most);
        match &self.state {
            State::Advertised(state) => {
                body.raw(&[1]);
                body.raw(&*state.packet_key.to_bytes());
                body.raw(&*state.mask_key.to_bytes());
                body.raw(&*state.seed);
                body.raw(&*state.dealing);
                if params.threat() == Threat::Active {
                    body.raw(&state.advert.signature);
                }
                write_input(&mut body, params, state.input.as_deref());
            }
            State::Dealt(state) => {
                body.raw(&[2]);
                body.raw(&state.binding.roster);
                body.raw(&bit_map(params.clients(), state.present.iter().copied()));
                body.count(state.neighbours.len());
                for (id, neighbour) in &state.neighbours {
                    body.u32(*id);
                    body.raw(&*neighbour.secret);
                    body.raw(&neighbour.packet_key);
                    body.raw(&neighbour.mask_key);
                }
                body.flag(state.own.is_some());
                if let Some(own) = &state.own {
                    write_shares(&mut body, own);
                }
                body.raw(&state.packet_public);
                body.raw(&*state.mask_key.to_bytes());
                body.raw(&*state.seed);
                write_input(&mut body, params, state.input.as_deref());
            }
            State::Ready(state) => {
                body.raw(&[3]);
                write_held(&mut body, params, &state.held);
                // The client's own mask first, the others in the order of the shares.
                for mask in &state.masks {
                    body.raw(&*mask.key);
                }
            }
            State::Masked(held) => {
                body.raw(&[4]);
                write_held(&mut body, params, held);
            }
            State::Signed(held, survivors) => {
                body.raw(&[5]);
                write_held(&mut body, params, held);
                body.raw(&bit_map(params.clients(), survivors.iter().copied()));
            }
            State::Over => return Err(StateError::Over),
        }
        Ok(body)
    }

    pub(crate) fn from_body(
        params: Arc<Params>,
        session: SessionId,
        id: u32,
        identity: Option<Identity>,
        body: &[u8],
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::body(body);
        let state = match reader.take::<1>()? {
            [1] => read_advertised(&params, &session, id, &mut reader)?,
            [2] => read_dealt(&params, session, id, &mut reader)?,
            [3] => {
                let held = read_held(&params, session, id, &mut reader)?;
                let others = held.shares.keys().copied().filter(|&other| other != id);
                let signs = others.map(|other| if id < other { Sign::Plus } else { Sign::Minus });
                let masks = core::iter::once(Sign::Plus)
                    .chain(signs)
                    .map(|sign| {
                        Ok(Mask {
                            key: Zeroizing::new(*reader.take()?),
                            sign,
                        })
                    })
                    .collect::<Result<_, DecodeError>>()?;
                State::Ready(Box::new(Ready { masks, held }))
            }
            [4] => State::Masked(Box::new(read_held(&params, session, id, &mut reader)?)),
            [5] if params.threat() == Threat::Active => {
                let held = read_held(&params, session, id, &mut reader)?;
                let survivors = reader.set(params.clients())?;
                let known = survivors.iter().all(|id| held.present.contains(id));
                if !known || survivors.binary_search(&id).is_err() {
                    return Err(DecodeError::Field("survivors who cannot be"));
                }
                State::Signed(Box::new(held), survivors)
            }
            _ => return Err(DecodeError::Field("a client is in no such state")),
        };
        reader.all(0)?;
        Ok(Self {
            params,
            session,
            id,
            identity,
            state,
        })
    }

    /// The digest of the directory, if a client `id` with such an identity can be.
    pub(crate) fn check(
        params: &Params,
        id: u32,
        identity: Option<&Identity>,
    ) -> Result<[u8; 32], crate::ClientError> {
        use crate::ClientError;
        if id >= params.clients() {
            return Err(ClientError::Id {
                id,
                clients: params.clients(),
            });
        }
        let directory =
            Directory::check(params, identity.map(Identity::directory)).map_err(|_| {
                ClientError::Identity(
                    "an identity is for the active threat, with a directory of one key for each \
                     client",
                )
            })?;
        if identity.is_some_and(|identity| !identity.is(id)) {
            return Err(ClientError::Identity(
                "the directory has another key for this client",
            ));
        }
        Ok(directory)
    }
}

fn write_input(body: &mut Body, params: &Params, input: Option<&Words>) {
    body.flag(input.is_some());
    if let Some(words) = input {
        words.pack(params.ring(), body.buffer());
    }
}

fn write_shares(body: &mut Body, shares: &Shares) {
    body.raw(&*shares.key.to_bytes());
    body.raw(&*shares.seed.to_bytes());
}

fn write_held(body: &mut Body, params: &Params, held: &Held) {
    body.raw(&held.binding.roster);
    body.raw(&bit_map(params.clients(), held.present.iter().copied()));
    body.raw(&bit_map(params.clients(), held.neighbours.iter().copied()));
    body.count(held.shares.len());
    for (owner, shares) in &held.shares {
        body.u32(*owner);
        write_shares(body, shares);
    }
}

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.take::<1>()? {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(DecodeError::Field("a flag is neither 0 nor 1")),
    }
}

fn read_input(
    params: &Params,
    reader: &mut Reader<'_>,
) -> Result<Option<Zeroizing<Words>>, DecodeError> {
    if !read_flag(reader)? {
        return Ok(None);
    }
    let ring = params.ring();
    let packed = reader.some(ring.packed_bytes(params.masked_length()))?;
    let mut words = Zeroizing::new(ring.zeros(params.masked_length()));
    if !words.add_packed(ring, packed) {
        return Err(DecodeError::Field("an unused bit is set"));
    }
    Ok(Some(words))
}

fn read_shares(reader: &mut Reader<'_>) -> Result<Shares, DecodeError> {
    let mut share =
        || Share::from_bytes(reader.take()?).ok_or(DecodeError::Field("a share is not reduced"));
    Ok(Shares {
        key: share()?,
        seed: share()?,
    })
}

fn read_secret(reader: &mut Reader<'_>) -> Result<SecretKey, DecodeError> {
    SecretKey::from_bytes(reader.take()?).ok_or(DecodeError::Field("a key is not reduced"))
}

fn read_advertised(
    params: &Params,
    session: &SessionId,
    id: u32,
    reader: &mut Reader<'_>,
) -> Result<State, DecodeError> {
    let (packet_key, mask_key) = (read_secret(reader)?, read_secret(reader)?);
    let seed = Zeroizing::new(*reader.take()?);
    let dealing = Zeroizing::new(*reader.take()?);
    let signature = match params.threat() {
        Threat::Active => *reader.take()?,
        Threat::SemiHonest | Threat::SemiMalicious => [0; SIGNATURE_BYTES],
    };
    let advert = Advert {
        packet_key: packet_key.public(),
        mask_key: mask_key.public(),
        commitment: commitment(session, id, &seed),
        signature,
    };
    Ok(State::Advertised(Box::new(Advertised {
        packet_key,
        mask_key,
        seed,
        dealing,
        advert,
        input: read_input(params, reader)?,
    })))
}

/// Who advertised keys; this client is among them.
fn read_present(
    params: &Params,
    id: u32,
    reader: &mut Reader<'_>,
) -> Result<BTreeSet<u32>, DecodeError> {
    let present: BTreeSet<u32> = reader.set(params.clients())?.into_iter().collect();
    if !present.contains(&id) {
        return Err(DecodeError::Field("this client is not in its own roster"));
    }
    Ok(present)
}

const NO_NEIGHBOUR: DecodeError = DecodeError::Field("a neighbour that cannot be one");

fn read_dealt(
    params: &Params,
    session: SessionId,
    id: u32,
    reader: &mut Reader<'_>,
) -> Result<State, DecodeError> {
    let binding = Binding {
        session,
        roster: *reader.take()?,
    };
    let present = read_present(params, id, reader)?;
    let neighbours: BTreeMap<u32, Neighbour> = reader
        .part(params.clients(), 96, |reader| {
            let secret = Zeroizing::new(*reader.take()?);
            let (packet_key, mask_key) = (*reader.take()?, *reader.take()?);
            let point = PublicKey::from_bytes(&mask_key);
            Ok(Neighbour {
                secret,
                packet_key,
                mask_key,
                mask_point: point.ok_or(DecodeError::Field("a key is no point"))?,
            })
        })?
        .into_iter()
        .collect();
    if !neighbours.keys().all(|n| *n != id && present.contains(n)) {
        return Err(NO_NEIGHBOUR);
    }
    let own = read_flag(reader)?
        .then(|| read_shares(reader))
        .transpose()?;
    if own.is_some() != (params.topology() == Topology::Complete) {
        return Err(DecodeError::Field("shares of its own where there are none"));
    }
    let packet_public = *reader.take()?;
    let mask_key = read_secret(reader)?;
    Ok(State::Dealt(Box::new(Dealt {
        binding,
        present,
        neighbours,
        own,
        packet_public,
        mask_public: mask_key.public(),
        mask_key,
        seed: Zeroizing::new(*reader.take()?),
        input: read_input(params, reader)?,
    })))
}

fn read_held(
    params: &Params,
    session: SessionId,
    id: u32,
    reader: &mut Reader<'_>,
) -> Result<Held, DecodeError> {
    let binding = Binding {
        session,
        roster: *reader.take()?,
    };
    let present = read_present(params, id, reader)?;
    let neighbours: BTreeSet<u32> = reader.set(params.clients())?.into_iter().collect();
    if neighbours.contains(&id) || !neighbours.is_subset(&present) {
        return Err(NO_NEIGHBOUR);
    }
    let shares: BTreeMap<u32, Shares> = reader
        .part(params.clients(), SHARES_BYTES, read_shares)?
        .into_iter()
        .collect();
    let holds_own = params.topology() == Topology::Complete;
    let owners = |owner: &u32| neighbours.contains(owner) || holds_own && *owner == id;
    if !shares.keys().all(owners) {
        return Err(DecodeError::Field("shares of who is no neighbour"));
    }
    Ok(Held {
        binding,
        present,
        neighbours,
        shares,
    })
}
