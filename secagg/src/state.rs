//! A party's state at rest: sealed under a key of the caller's, bound to version, role, session and
//! party. See [`crate::Client::export`] and [`crate::Server::export`].
//!
//! ```text
//! offset  bytes  field (integers little-endian)
//!      0      4  "FLSS"
//!      4      2  version, 1
//!      6      1  role: 1 client, 2 server
//!      7      1  0
//!      8     32  session id
//!     40      4  a client's id, or 4294967295 for the server
//!     44     32  ticket: fresh random bytes, different for every export
//!     76      8  length of the body
//!     84      …  body, sealed with ChaCha20-Poly1305
//!      …     16  tag
//! ```
//! The sealing key is HKDF-SHA256 of the caller's key with the ticket as salt and the bytes before it
//! as info, so it is for this export alone and the nonce is 0; everything before the body is
//! associated data.

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{ClientError, DecodeError, ParamsError};
use crate::session::SessionId;

/// The version of exported states.
pub const STATE_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"FLSS";
const TICKET_AT: usize = 44;
const HEADER_BYTES: usize = 84;
const TAG_BYTES: usize = 16;

/// What tells one export from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub [u8; 32]);

/// Why a state was not exported or imported.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Nothing is left: the party has done its last, or has failed.
    #[error("this party's part is over and has no state; start a new session")]
    Over,
    /// Bytes that are no exported state.
    #[error("the bytes are no exported state: {0}")]
    Foreign(&'static str),
    /// Another version.
    #[error("the state is of version {0}; expected 1")]
    Version(u16),
    /// A client's where a server's is expected, or the reverse.
    #[error("the state is of role {given}; expected {expected} (1 is a client, 2 a server)")]
    Role {
        /// As given.
        given: u8,
        /// Who imports.
        expected: u8,
    },
    /// Another session.
    #[error("the state is of another session; check parameters, round, task, model and directory")]
    Session,
    /// Another client.
    #[error("the state is of party {given}; expected {expected}")]
    Party {
        /// As given; 4294967295 is the server.
        given: u32,
        /// Who imports.
        expected: u32,
    },
    /// The seal does not fit.
    #[error("the state does not open: it was changed, or sealed under another key")]
    Sealed,
    /// The caller says that this export was imported before.
    #[error("this export was imported before; a client that runs twice would betray its input")]
    Claimed,
    /// What was sealed cannot be read: another program wrote it.
    #[error("the opened state cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// A client that cannot be.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A server that cannot be.
    #[error(transparent)]
    Params(#[from] ParamsError),
}

/// Who a state is of.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Role {
    Client = 1,
    Server = 2,
}

fn sealing_key(key: &[u8; 32], header: &[u8; HEADER_BYTES]) -> Zeroizing<[u8; 32]> {
    let (before, ticket) = header.split_at(TICKET_AT);
    let info: [&[u8]; 2] = [b"fledgling-secagg/1 exported state\0", before];
    let mut sealing = Zeroizing::new([0; 32]);
    let expanded =
        Hkdf::<Sha256>::new(Some(&ticket[..32]), key).expand_multi_info(&info, &mut *sealing);
    // RFC 5869 allows up to 255 blocks of 32 bytes; this is one.
    debug_assert!(expanded.is_ok());
    sealing
}

/// Seals a body.
pub(crate) fn seal(
    role: Role,
    session: &SessionId,
    party: u32,
    key: &[u8; 32],
    rng: &mut impl CryptoRng,
    body: &[u8],
) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&STATE_VERSION.to_le_bytes());
    header[6] = role as u8;
    header[8..40].copy_from_slice(&session.0);
    header[40..TICKET_AT].copy_from_slice(&party.to_le_bytes());
    rng.fill_bytes(&mut header[TICKET_AT..TICKET_AT + 32]);
    header[76..].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let mut sealed = Vec::with_capacity(HEADER_BYTES + body.len() + TAG_BYTES);
    sealed.extend_from_slice(&header);
    sealed.extend_from_slice(body);
    let cipher = ChaCha20Poly1305::new((&*sealing_key(key, &header)).into());
    let inside = &mut sealed[HEADER_BYTES..];
    match cipher.encrypt_inout_detached(&[0; 12].into(), &header, (&mut *inside).into()) {
        Ok(tag) => sealed.extend_from_slice(&tag),
        // Only beyond 2^38 bytes; nothing in the clear leaves all the same.
        Err(_) => inside.fill(0),
    }
    sealed
}

/// Opens what [`seal`] made for the same role, session, party and key.
pub(crate) fn open(
    role: Role,
    session: &SessionId,
    party: u32,
    key: &[u8; 32],
    bytes: &[u8],
) -> Result<(Ticket, Zeroizing<Vec<u8>>), StateError> {
    let short = StateError::Foreign("they are too short");
    let (header, rest) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(short.clone())?;
    let (inside, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(short)?;
    if header[..4] != MAGIC {
        return Err(StateError::Foreign("they do not begin with `FLSS`"));
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    if version != STATE_VERSION {
        return Err(StateError::Version(version));
    }
    if header[6] != role as u8 {
        return Err(StateError::Role {
            given: header[6],
            expected: role as u8,
        });
    }
    if header[7] != 0 {
        return Err(StateError::Foreign("byte 7 is not 0"));
    }
    if header[8..40] != session.0 {
        return Err(StateError::Session);
    }
    let given = u32::from_le_bytes([header[40], header[41], header[42], header[43]]);
    if given != party {
        return Err(StateError::Party {
            given,
            expected: party,
        });
    }
    if header[76..] != (inside.len() as u64).to_le_bytes() {
        return Err(StateError::Foreign(
            "they are longer or shorter than they say",
        ));
    }
    let mut ticket = [0; 32];
    ticket.copy_from_slice(&header[TICKET_AT..TICKET_AT + 32]);
    let mut plain = Zeroizing::new(inside.to_vec());
    ChaCha20Poly1305::new((&*sealing_key(key, header)).into())
        .decrypt_inout_detached(
            &[0; 12].into(),
            header,
            (&mut plain[..]).into(),
            &(*tag).into(),
        )
        .map_err(|_| StateError::Sealed)?;
    Ok((Ticket(ticket), plain))
}

/// A body being written. Its room is made beforehand, so that no copy of a secret is left behind when
/// it grows.
pub(crate) struct Body(Zeroizing<Vec<u8>>);

impl Body {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        debug_assert!(self.0.len() + bytes.len() <= self.0.capacity());
        self.0.extend_from_slice(bytes);
    }

    /// The length of a list; at most the number of clients.
    pub(crate) fn count(&mut self, items: usize) {
        self.raw(&(items as u32).to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn flag(&mut self, set: bool) {
        self.raw(&[u8::from(set)]);
    }

    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
