//! The client: it advertises keys, shares their secrets, masks its input, and reveals once what
//! unmasks the sum of the survivors.

mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chacha20::ChaCha20Rng;
use rand_core::{CryptoRng, SeedableRng};
use zeroize::Zeroizing;

use crate::error::{ClientError, InputError};
use crate::graph::Graph;
use crate::identity::{Identity, survivors_digest};
use crate::keys::{Binding, KEY_BYTES, Pair, PublicKey, SecretKey, commitment};
use crate::mask::{Mask, Sign, apply_all};
use crate::operation::{Operation, count};
use crate::packet::{Shares, open, seal};
use crate::params::{Params, Threat};
use crate::ring::{Input, Words};
use crate::session::{Context, SessionId, digest};
use crate::shamir;
use crate::wire::{
    Advert, Kind, Reader, SERVER, SIGNATURE_BYTES, Secret, Writer, read_packets, read_roster,
    read_survivors, read_unmask, write_packets, write_shares,
};

/// What to do after a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send these bytes to the server.
    Send(Vec<u8>),
    /// Call [`Client::provide_input`]; it may have been called before.
    AwaitInput,
    /// Nothing: the input is kept until it can be masked.
    Await,
}

/// One client's part of one session.
///
/// ```text
/// start ─▶ advertise keys        handle(roster) ─▶ share keys
/// handle(forwarded shares), provide_input, in any order ─▶ masked input
/// handle(survivors) ─▶ unmasking shares, and it is over; under the active threat:
/// handle(survivors) ─▶ signature        handle(unmask) ─▶ unmasking shares, and it is over
/// ```
///
/// Any error ends it: its secrets are wiped, and every further call is [`ClientError::Over`]. A
/// client never reveals both secrets of another: what it reveals follows from one set of survivors,
/// once.
#[cfg_attr(test, derive(Clone))]
pub struct Client {
    params: Arc<Params>,
    session: SessionId,
    id: u32,
    identity: Option<Identity>,
    state: State,
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id)
            .field("state", &self.state.name())
            .finish_non_exhaustive()
    }
}

#[cfg_attr(test, derive(Clone))]
enum State {
    /// Keys are advertised; the roster is awaited.
    Advertised(Box<Advertised>),
    /// Shares are dealt; those of the others are awaited.
    Dealt(Box<Dealt>),
    /// All is there but the input.
    Ready(Box<Ready>),
    /// The masked input is sent; survivors are awaited.
    Masked(Box<Held>),
    /// Survivors are signed; the others' signatures are awaited.
    Signed(Box<Held>, Vec<u32>),
    /// Done, or failed.
    Over,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Advertised(_) => "advertised",
            Self::Dealt(_) => "dealt",
            Self::Ready(_) => "ready",
            Self::Masked(_) => "masked",
            Self::Signed(..) => "signed",
            Self::Over => "over",
        }
    }
}

#[cfg_attr(test, derive(Clone))]
struct Advertised {
    packet_key: SecretKey,
    mask_key: SecretKey,
    seed: Zeroizing<[u8; 32]>,
    /// Seeds the generator of the sharing's coefficients.
    dealing: Zeroizing<[u8; 32]>,
    advert: Advert,
    input: Option<Zeroizing<Words>>,
}

/// A neighbour that is in the roster.
#[cfg_attr(test, derive(Clone))]
struct Neighbour {
    /// The product of the packet keys.
    secret: Zeroizing<[u8; 32]>,
    packet_key: [u8; KEY_BYTES],
    mask_key: [u8; KEY_BYTES],
    mask_point: PublicKey,
}

#[cfg_attr(test, derive(Clone))]
struct Dealt {
    binding: Binding,
    present: BTreeSet<u32>,
    neighbours: BTreeMap<u32, Neighbour>,
    /// A client's share of its own secrets, where it holds one.
    own: Option<Shares>,
    packet_public: [u8; KEY_BYTES],
    mask_public: [u8; KEY_BYTES],
    mask_key: SecretKey,
    seed: Zeroizing<[u8; 32]>,
    input: Option<Zeroizing<Words>>,
}

#[cfg_attr(test, derive(Clone))]
struct Ready {
    masks: Vec<Mask>,
    held: Held,
}

/// What is left once the input is masked: shares of others.
#[cfg_attr(test, derive(Clone))]
struct Held {
    binding: Binding,
    present: BTreeSet<u32>,
    neighbours: BTreeSet<u32>,
    shares: BTreeMap<u32, Shares>,
}

impl Client {
    /// Begins client `id`'s part and gives its first message. `rng` must be a cryptographic generator
    /// seeded with entropy; in a simulation, with what stands for it. `identity` is for
    /// [`Threat::Active`] and only for it.
    ///
    /// # Errors
    /// [`ClientError::Id`], [`ClientError::Identity`].
    pub fn start(
        params: Arc<Params>,
        context: &Context,
        id: u32,
        identity: Option<Identity>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>), ClientError> {
        let directory = Self::check(&params, id, identity.as_ref())?;
        let session = SessionId::new(&params, context, directory);
        let (packet_key, mask_key) = (SecretKey::random(rng), SecretKey::random(rng));
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        let mut dealing = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *dealing);
        let mut advert = Advert {
            packet_key: packet_key.public(),
            mask_key: mask_key.public(),
            commitment: commitment(&session, id, &seed),
            signature: [0; SIGNATURE_BYTES],
        };
        if let Some(identity) = &identity {
            advert.signature = identity.sign_advert(&session, id, &advert);
        }
        let mut writer = Writer::new(Kind::AdvertiseKeys, &params, &session, id);
        advert.write(&params, &mut writer);
        let client = Self {
            params,
            session,
            id,
            identity,
            state: State::Advertised(Box::new(Advertised {
                packet_key,
                mask_key,
                seed,
                dealing,
                advert,
                input: None,
            })),
        };
        Ok((client, writer.finish()))
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether it has done all, or failed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Ends this part and wipes its secrets.
    pub fn abort(&mut self) {
        self.state = State::Over;
    }

    /// Takes the server's next message.
    ///
    /// # Errors
    /// [`ClientError`]; then it is over.
    pub fn handle(&mut self, message: &[u8]) -> Result<Reply, ClientError> {
        match core::mem::replace(&mut self.state, State::Over) {
            State::Advertised(state) => self.deal(*state, message),
            State::Dealt(state) => self.receive_shares(*state, message),
            // Survivors before an input: there is nothing to unmask.
            State::Ready(_) => Err(ClientError::InputNotExpected),
            State::Masked(held) => self.survivors(held, message),
            State::Signed(held, survivors) => self.unmask(&held, &survivors, message),
            State::Over => Err(ClientError::Over),
        }
    }

    /// Takes the input, once, at any time before the masked input is sent.
    ///
    /// # Errors
    /// [`ClientError`]; then it is over.
    pub fn provide_input(&mut self, input: &Input) -> Result<Reply, ClientError> {
        let state = core::mem::replace(&mut self.state, State::Over);
        if input.len() != self.params.length() {
            return Err(InputError::Length {
                given: input.len(),
                expected: self.params.length(),
            }
            .into());
        }
        if !input.is_for(self.params.ring()) {
            return Err(InputError::Kind.into());
        }
        let words = Zeroizing::new(input.words(self.params.ring()));
        match state {
            State::Advertised(mut state) if state.input.is_none() => {
                state.input = Some(words);
                self.state = State::Advertised(state);
                Ok(Reply::Await)
            }
            State::Dealt(mut state) if state.input.is_none() => {
                state.input = Some(words);
                self.state = State::Dealt(state);
                Ok(Reply::Await)
            }
            State::Ready(state) => Ok(self.mask(*state, words)),
            State::Over => Err(ClientError::Over),
            _ => Err(ClientError::InputNotExpected),
        }
    }

    fn read<'a>(&self, kind: Kind, message: &'a [u8]) -> Result<Reader<'a>, ClientError> {
        Ok(Reader::open(
            message,
            kind,
            &self.params,
            &self.session,
            SERVER,
        )?)
    }

    /// Round 1 of Bonawitz et al. 2017: checks the roster, shares both secrets.
    fn deal(&mut self, state: Advertised, message: &[u8]) -> Result<Reply, ClientError> {
        let params = Arc::clone(&self.params);
        let roster = read_roster(&params, self.read(Kind::Roster, message)?)?;
        let own = roster.iter().find(|(id, _)| *id == self.id);
        if own.map(|(_, advert)| advert) != Some(&state.advert) {
            return Err(ClientError::OwnKeys);
        }
        enough(
            "clients in the roster",
            roster.len(),
            params.min_survivors(),
        )?;
        // Two keys and the client itself.
        count(Operation::Entry, 3 * roster.len());
        let mut keys = BTreeSet::new();
        for (id, advert) in &roster {
            for key in [&advert.packet_key, &advert.mask_key] {
                if !keys.insert(key) {
                    return Err(ClientError::DuplicateKey { id: *id });
                }
            }
        }
        count(Operation::Hash, message.len());
        let binding = Binding {
            session: self.session,
            roster: digest(b"roster", &[message]),
        };
        let graph = Graph::new(&params, digest(b"graph", &[&binding.roster]));
        let adverts: BTreeMap<u32, &Advert> =
            roster.iter().map(|(id, advert)| (*id, advert)).collect();
        let mut neighbours = BTreeMap::new();
        for id in graph.neighbours(self.id) {
            let Some(advert) = adverts.get(&id) else {
                continue;
            };
            if let Some(identity) = &self.identity
                && !identity
                    .directory()
                    .verify_advert(&self.session, id, advert)
            {
                return Err(ClientError::Signature { id });
            }
            let key = ClientError::Key { id };
            let point = PublicKey::from_bytes(&advert.packet_key).ok_or(key.clone())?;
            let mask_point = PublicKey::from_bytes(&advert.mask_key).ok_or(key)?;
            neighbours.insert(
                id,
                Neighbour {
                    secret: state.packet_key.agree(&point),
                    packet_key: advert.packet_key,
                    mask_key: advert.mask_key,
                    mask_point,
                },
            );
        }
        let mut holders: Vec<u32> = neighbours.keys().copied().collect();
        if graph.holds_own() {
            holders.push(self.id);
        }
        enough(
            "holders of this client's shares",
            holders.len(),
            params.threshold(),
        )?;
        let places: Vec<u64> = holders.iter().map(|&id| u64::from(id) + 1).collect();
        let threshold = params.threshold() as usize;
        let mut rng = ChaCha20Rng::from_seed(*state.dealing);
        let mut split = |secret: &[u8; 32]| {
            shamir::split(secret, threshold, &places, &mut rng).map_err(|_| ClientError::TooFew {
                present: places.len(),
                what: "holders of this client's shares",
                least: threshold,
            })
        };
        let of_key = split(&state.mask_key.to_bytes())?;
        let of_seed = split(&state.seed)?;
        let mut shares: BTreeMap<u32, Shares> = holders
            .iter()
            .zip(of_key.into_iter().zip(of_seed))
            .map(|(&id, (key, seed))| (id, Shares { key, seed }))
            .collect();
        let own = shares.remove(&self.id);
        let packets: Vec<_> = neighbours
            .iter()
            .zip(shares.values())
            .map(|((&id, neighbour), shares)| {
                let pair = Pair {
                    first: (self.id, &state.advert.packet_key),
                    second: (id, &neighbour.packet_key),
                };
                let key = binding.packet_key(&neighbour.secret, &pair);
                (id, seal(params.suite(), &key, self.id, id, shares))
            })
            .collect();
        let writer = Writer::new(Kind::ShareKeys, &params, &self.session, self.id);
        let message = write_packets(writer, packets.into_iter());
        self.state = State::Dealt(Box::new(Dealt {
            binding,
            present: adverts.keys().copied().collect(),
            neighbours,
            own,
            packet_public: state.advert.packet_key,
            mask_public: state.advert.mask_key,
            mask_key: state.mask_key,
            seed: state.seed,
            input: state.input,
        }));
        Ok(Reply::Send(message))
    }

    /// Round 2: opens the neighbours' packets and derives the masks.
    fn receive_shares(&mut self, state: Dealt, message: &[u8]) -> Result<Reply, ClientError> {
        let params = Arc::clone(&self.params);
        let packets = read_packets(&params, self.read(Kind::ForwardedShares, message)?)?;
        let mut shares = BTreeMap::new();
        let mut masks = vec![Mask {
            key: state.binding.self_mask_key(&state.seed, self.id),
            sign: Sign::Plus,
        }];
        for (from, packet) in packets {
            let Some(neighbour) = state.neighbours.get(&from) else {
                return Err(ClientError::Unexpected {
                    id: from,
                    what: "no neighbour of this client, and shares of it came",
                });
            };
            let there = Pair {
                first: (from, &neighbour.packet_key),
                second: (self.id, &state.packet_public),
            };
            let key = state.binding.packet_key(&neighbour.secret, &there);
            let opened = open(params.suite(), &key, from, self.id, &packet)
                .ok_or(ClientError::Packet { from })?;
            shares.insert(from, opened);
            let secret = state.mask_key.agree(&neighbour.mask_point);
            let pair = Pair {
                first: (self.id, &state.mask_public),
                second: (from, &neighbour.mask_key),
            };
            masks.push(Mask {
                key: state.binding.mask_key(&secret, &pair),
                sign: if self.id < from {
                    Sign::Plus
                } else {
                    Sign::Minus
                },
            });
        }
        if let Some(own) = state.own {
            shares.insert(self.id, own);
        }
        enough(
            "holders of this client's shares are left",
            shares.len(),
            params.threshold(),
        )?;
        let ready = Ready {
            masks,
            held: Held {
                binding: state.binding,
                present: state.present,
                neighbours: state.neighbours.into_keys().collect(),
                shares,
            },
        };
        match state.input {
            Some(words) => Ok(self.mask(ready, words)),
            None => {
                self.state = State::Ready(Box::new(ready));
                Ok(Reply::AwaitInput)
            }
        }
    }

    fn mask(&mut self, state: Ready, mut words: Zeroizing<Words>) -> Reply {
        apply_all(self.params.suite(), &state.masks, &mut words);
        let mut writer = Writer::new(Kind::MaskedInput, &self.params, &self.session, self.id);
        words.pack(self.params.ring(), writer.buffer());
        self.state = State::Masked(Box::new(state.held));
        Reply::Send(writer.finish())
    }

    /// Round 3: checks the survivors; signs them under the active threat and reveals shares otherwise.
    fn survivors(&mut self, held: Box<Held>, message: &[u8]) -> Result<Reply, ClientError> {
        let params = Arc::clone(&self.params);
        let survivors = read_survivors(&params, self.read(Kind::Survivors, message)?)?;
        if !survivors.contains(&self.id) {
            return Err(ClientError::ListedDropped);
        }
        enough("survivors", survivors.len(), params.min_survivors())?;
        for &id in &survivors {
            if !held.present.contains(&id) {
                return Err(ClientError::Unexpected {
                    id,
                    what: "not in the roster, and listed as a survivor",
                });
            }
            if held.neighbours.contains(&id) && !held.shares.contains_key(&id) {
                return Err(ClientError::Unexpected {
                    id,
                    what: "a neighbour whose shares never came, and listed as a survivor",
                });
            }
        }
        match &self.identity {
            Some(identity) if params.threat() == Threat::Active => {
                let signed = survivors_digest(
                    &self.session,
                    &held.binding.roster,
                    params.clients(),
                    &survivors,
                );
                let mut writer =
                    Writer::new(Kind::SignedSurvivors, &params, &self.session, self.id);
                writer.raw(&identity.sign_survivors(&signed));
                self.state = State::Signed(held, survivors);
                Ok(Reply::Send(writer.finish()))
            }
            _ => Ok(self.reveal(&held, &survivors)),
        }
    }

    /// Round 4 under the active threat: checks that a quorum signed the same survivors.
    fn unmask(
        &mut self,
        held: &Held,
        signed: &[u32],
        message: &[u8],
    ) -> Result<Reply, ClientError> {
        let params = Arc::clone(&self.params);
        let (survivors, signatures) = read_unmask(&params, self.read(Kind::Unmask, message)?)?;
        if survivors != signed {
            return Err(ClientError::OtherSurvivors);
        }
        enough("signatures", signatures.len(), params.quorum())?;
        let digest = survivors_digest(
            &self.session,
            &held.binding.roster,
            params.clients(),
            &survivors,
        );
        for (id, signature) in &signatures {
            let known = survivors.binary_search(id).is_ok()
                && self.identity.as_ref().is_some_and(|identity| {
                    identity
                        .directory()
                        .verify_survivors(*id, &digest, signature)
                });
            if !known {
                return Err(ClientError::Signature { id: *id });
            }
        }
        Ok(self.reveal(held, &survivors))
    }

    /// Of each owner one secret's share: the seed of a survivor, the mask key of one that dropped out.
    /// The state is gone by now, so there is no second answer.
    fn reveal(&self, held: &Held, survivors: &[u32]) -> Reply {
        let shares: Vec<_> = held
            .shares
            .iter()
            .map(|(&owner, shares)| {
                if survivors.binary_search(&owner).is_ok() {
                    (owner, Secret::Seed, &shares.seed)
                } else {
                    (owner, Secret::Key, &shares.key)
                }
            })
            .collect();
        let writer = Writer::new(Kind::UnmaskingShares, &self.params, &self.session, self.id);
        Reply::Send(write_shares(writer, shares.into_iter()))
    }
}

fn enough(what: &'static str, present: usize, least: u32) -> Result<(), ClientError> {
    if present < least as usize {
        return Err(ClientError::TooFew {
            present,
            what,
            least: least as usize,
        });
    }
    Ok(())
}
