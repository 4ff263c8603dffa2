//! Who signs: under [`Threat::Active`] clients know one another's signing keys from elsewhere, a
//! public directory that the server does not make.
//!
//! # Source
//! Ed25519 as in RFC 8032, verified strictly (no small-order keys, no malleable signatures).

use std::sync::Arc;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::error::ParamsError;
use crate::operation::{Operation, count};
use crate::params::{Params, Threat};
use crate::session::{SessionId, digest};
use crate::wire::{Advert, SIGNATURE_BYTES, bit_map};

/// The public signing keys of a session's clients, by their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    keys: Vec<VerifyingKey>,
    digest: [u8; 32],
}

impl Directory {
    /// Ed25519 public keys; key `i` is that of client `i`.
    ///
    /// # Errors
    /// [`ParamsError::Directory`] when a key is invalid or of small order, or when two are the same.
    pub fn new(keys: &[[u8; 32]]) -> Result<Self, ParamsError> {
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(ParamsError::Directory {
                reason: "has a key twice",
            });
        }
        let keys = keys
            .iter()
            .map(|bytes| {
                VerifyingKey::from_bytes(bytes)
                    .ok()
                    .filter(|key| !key.is_weak())
                    .ok_or(ParamsError::Directory {
                        reason: "has an invalid or weak key",
                    })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let digest = digest(
            b"directory",
            &keys
                .iter()
                .map(|key| &key.as_bytes()[..])
                .collect::<Vec<_>>(),
        );
        Ok(Self { keys, digest })
    }

    /// The session's part that stands for the directory: there is one exactly under the active
    /// threat, with a key for each client.
    pub(crate) fn check(
        params: &Params,
        directory: Option<&Self>,
    ) -> Result<[u8; 32], ParamsError> {
        match (params.threat(), directory) {
            (Threat::Active, Some(directory))
                if directory.keys.len() == params.clients() as usize =>
            {
                Ok(directory.digest)
            }
            (Threat::Active, Some(_)) => Err(ParamsError::Directory {
                reason: "has not one key for each client",
            }),
            (Threat::Active, None) => Err(ParamsError::Directory {
                reason: "is missing under the active threat",
            }),
            (Threat::SemiHonest | Threat::SemiMalicious, None) => Ok([0; 32]),
            (Threat::SemiHonest | Threat::SemiMalicious, Some(_)) => Err(ParamsError::Directory {
                reason: "is for the active threat only",
            }),
        }
    }

    fn verify(&self, id: u32, message: &[u8; 32], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        count(Operation::Verify, 1);
        self.keys.get(id as usize).is_some_and(|key| {
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        })
    }

    pub(crate) fn verify_advert(&self, session: &SessionId, id: u32, advert: &Advert) -> bool {
        self.verify(id, &advert_digest(session, id, advert), &advert.signature)
    }

    pub(crate) fn verify_survivors(
        &self,
        id: u32,
        signed: &[u8; 32],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> bool {
        self.verify(id, signed, signature)
    }
}

/// A client's signing key, with the directory.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    directory: Arc<Directory>,
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Identity { .. }")
    }
}

impl Identity {
    /// The Ed25519 secret key (RFC 8032's 32 bytes) of a client whose public key is in the directory.
    #[must_use]
    pub fn new(secret: &[u8; 32], directory: Arc<Directory>) -> Self {
        Self {
            key: SigningKey::from_bytes(secret),
            directory,
        }
    }

    /// The public key of a secret key, for the directory.
    #[must_use]
    pub fn public(secret: &[u8; 32]) -> [u8; 32] {
        SigningKey::from_bytes(secret).verifying_key().to_bytes()
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether the directory has this key for client `id`.
    pub(crate) fn is(&self, id: u32) -> bool {
        self.directory.keys.get(id as usize) == Some(&self.key.verifying_key())
    }

    pub(crate) fn sign_advert(
        &self,
        session: &SessionId,
        id: u32,
        advert: &Advert,
    ) -> [u8; SIGNATURE_BYTES] {
        count(Operation::Sign, 1);
        self.key
            .sign(&advert_digest(session, id, advert))
            .to_bytes()
    }

    pub(crate) fn sign_survivors(&self, signed: &[u8; 32]) -> [u8; SIGNATURE_BYTES] {
        count(Operation::Sign, 1);
        self.key.sign(signed).to_bytes()
    }
}

fn advert_digest(session: &SessionId, id: u32, advert: &Advert) -> [u8; 32] {
    digest(
        b"signed advert",
        &[
            &session.0,
            &id.to_le_bytes(),
            &advert.packet_key,
            &advert.mask_key,
            &advert.commitment,
        ],
    )
}

/// What clients sign of the survivors.
pub(crate) fn survivors_digest(
    session: &SessionId,
    roster: &[u8; 32],
    clients: u32,
    survivors: &[u32],
) -> [u8; 32] {
    let bits = bit_map(clients, survivors.iter().copied());
    digest(b"signed survivors", &[&session.0, roster, &bits])
}
