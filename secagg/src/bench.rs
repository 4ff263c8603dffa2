//! What benchmarks measure and fuzz targets read. Not for other use, and not stable.

use std::sync::Arc;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::keys::{PublicKey, SecretKey};
use crate::mask::{Mask, Sign, apply};
use crate::params::{Params, Suite};
use crate::shamir::{Combiner, Share, split};
use crate::{Client, Context, DecodeError, Directory, Identity, Server, StateError};

/// Some masks.
pub struct Masks(Vec<Mask>);

impl core::fmt::Debug for Masks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Masks { .. }")
    }
}

/// As many masks of different keys, both signs in turn.
#[must_use]
pub fn masks(count: usize) -> Masks {
    let mask = |index: usize| Mask {
        key: Zeroizing::new([index as u8; 32]),
        sign: if index.is_multiple_of(2) {
            Sign::Plus
        } else {
            Sign::Minus
        },
    };
    Masks((0..count).map(mask).collect())
}

/// Applies them to words of 32 bits.
pub fn apply_narrow(suite: Suite, masks: &Masks, words: &mut [u32]) {
    apply(suite, &masks.0, 0, words);
}

/// Applies them to words of 64 bits.
pub fn apply_wide(suite: Suite, masks: &Masks, words: &mut [u64]) {
    apply(suite, &masks.0, 0, words);
}

/// What the timing check calls with secrets of two classes.
pub struct Timed {
    places: Vec<u64>,
    combiner: Combiner,
    public: PublicKey,
}

impl core::fmt::Debug for Timed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Timed { .. }")
    }
}

/// Shares of a secret, as they are combined.
pub struct Dealt(Vec<Share>);

impl core::fmt::Debug for Dealt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Dealt { .. }")
    }
}

impl Timed {
    /// For `holders` holders, of whom all but one recover.
    ///
    /// # Errors
    /// A message, for fewer than three holders.
    pub fn new(holders: u64, rng: &mut impl CryptoRng) -> Result<Self, String> {
        let places: Vec<u64> = (1..=holders).collect();
        let some = places.get(1..).unwrap_or_default();
        let public = PublicKey::from_bytes(&SecretKey::random(rng).public());
        Ok(Self {
            combiner: Combiner::new(some).map_err(|error| error.to_string())?,
            public: public.ok_or("no public key")?,
            places,
        })
    }

    /// Shares a secret.
    ///
    /// # Errors
    /// A message, for fewer than three holders.
    pub fn split(&self, secret: &[u8; 32], rng: &mut impl CryptoRng) -> Result<Dealt, String> {
        split(secret, self.places.len() - 1, &self.places, rng)
            .map(Dealt)
            .map_err(|error| error.to_string())
    }

    /// Combines shares; whether they combine.
    #[must_use]
    pub fn combine(&self, dealt: &Dealt) -> bool {
        let shares: Vec<&Share> = dealt.0.iter().skip(1).collect();
        self.combiner.combine(&shares).is_ok()
    }

    /// Agrees on a key with a secret key, where the bytes are one; the first byte of it.
    #[must_use]
    pub fn agree(&self, secret: &[u8; 32]) -> Option<u8> {
        Some(SecretKey::from_bytes(secret)?.agree(&self.public)[0])
    }
}

/// What is sealed in a client's exported state.
///
/// # Errors
/// [`StateError::Over`].
pub fn client_body(client: &Client) -> Result<Vec<u8>, StateError> {
    Ok(client.body()?.bytes().to_vec())
}

/// A client from such a body: what [`Client::import`] does with what it has opened.
///
/// # Errors
/// [`StateError`].
pub fn read_client(
    params: Arc<Params>,
    context: &Context,
    id: u32,
    identity: Option<Identity>,
    body: &[u8],
) -> Result<Client, StateError> {
    let directory = Client::check(&params, id, identity.as_ref())?;
    let session = crate::SessionId::new(&params, context, directory);
    Ok(Client::from_body(params, session, id, identity, body)?)
}

/// What is sealed in a server's exported state.
///
/// # Errors
/// [`StateError::Over`].
pub fn server_body(server: &Server) -> Result<Vec<u8>, StateError> {
    Ok(server.body()?.bytes().to_vec())
}

/// A server from such a body.
///
/// # Errors
/// [`DecodeError`] and [`crate::ParamsError`].
pub fn read_server(
    params: Arc<Params>,
    context: &Context,
    directory: Option<Arc<Directory>>,
    body: &[u8],
) -> Result<Server, StateError> {
    let read: Result<Server, DecodeError> = Server::from_body(params, context, directory, body)?;
    Ok(read?)
}
