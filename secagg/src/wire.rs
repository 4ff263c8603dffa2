//! Messages as bytes: one way to write each, and everything else refused.
//!
//! ```text
//! offset  bytes  field (integers little-endian)
//!      0      4  "FLSA"
//!      4      2  version, 1
//!      6      1  kind, 1 to 9
//!      7      1  suite, 1 or 2
//!      8     32  session id
//!     40      4  sender: a client's id, or 4294967295 for the server
//!     44      8  length of the body
//!     52      …  body
//!      …     16  checksum: the first half of SHA-256 of everything before
//! ```
//!
//! The checksum finds damage, not forgery, against which packets are sealed, keys and survivors
//! signed, and connections to be encrypted by the caller.
//!
//! | kind | from | body |
//! |---|---|---|
//! | 1 advertise keys | client | advert: packet key 32, mask key 32, commitment to the self mask's seed 32; under `Active` a signature 64 |
//! | 2 roster | server | count 4; for each client, ascending: id 4, advert |
//! | 3 share keys | client | count 4; for each neighbour, ascending: id 4, packet 96 |
//! | 4 forwarded shares | server | count 4; for each neighbour, ascending: id 4, packet 96 |
//! | 5 masked input | client | elements of `b` bits, the first in the lowest bits of the first byte |
//! | 6 survivors | server | bit map of all clients, client 0 in the lowest bit of the first byte |
//! | 7 signed survivors | client | signature 64 (`Active`) |
//! | 8 unmask | server | bit map; count 4; for each signer, ascending: id 4, signature 64 (`Active`) |
//! | 9 unmasking shares | client | count 4; for each owner, ascending: id 4, 1 for the mask key or 2 for the seed, share 40 |

use sha2::{Digest, Sha256};

use crate::error::DecodeError;
use crate::keys::KEY_BYTES;
use crate::operation::{Operation, count};
use crate::packet::{PACKET_BYTES, Packet};
use crate::params::{Params, Threat};
use crate::session::{PROTOCOL_VERSION, SessionId};
use crate::shamir::{SHARE_BYTES, Share};

const MAGIC: [u8; 4] = *b"FLSA";
const HEADER_BYTES: usize = 52;
const CHECKSUM_BYTES: usize = 16;
/// Bytes of a message around its body.
pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;
/// Bytes of a signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;
/// The sender of a server's messages.
pub(crate) const SERVER: u32 = u32::MAX;

/// The kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    AdvertiseKeys = 1,
    Roster = 2,
    ShareKeys = 3,
    ForwardedShares = 4,
    MaskedInput = 5,
    Survivors = 6,
    SignedSurvivors = 7,
    Unmask = 8,
    UnmaskingShares = 9,
}

/// A message being written.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(kind: Kind, params: &Params, session: &SessionId, sender: u32) -> Self {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[kind as u8, params.suite() as u8]);
        bytes.extend_from_slice(&session.0);
        bytes.extend_from_slice(&sender.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A count of things; all counts here are at most the number of clients.
    pub(crate) fn count(&mut self, items: usize) {
        count(Operation::Entry, items);
        self.u32(items as u32);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Where more may be written in place.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let body = (self.bytes.len() - HEADER_BYTES) as u64;
        self.bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&body.to_le_bytes());
        let checksum = checksum(&self.bytes);
        self.bytes.extend_from_slice(&checksum);
        self.bytes
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    count(Operation::Hash, bytes.len() + CHECKSUM_BYTES);
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut half = [0; CHECKSUM_BYTES];
    half.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    half
}

/// A message's body being read.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks everything around the body.
    pub(crate) fn open(
        bytes: &'a [u8],
        kind: Kind,
        params: &Params,
        session: &SessionId,
        sender: u32,
    ) -> Result<Self, DecodeError> {
        let short = DecodeError::Short { bytes: bytes.len() };
        let (sealed, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(short)?;
        let (header, body) = sealed.split_first_chunk::<HEADER_BYTES>().ok_or(short)?;
        if header[..4] != MAGIC {
            return Err(DecodeError::Magic);
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version != PROTOCOL_VERSION {
            return Err(DecodeError::Version(version));
        }
        if header[6] != kind as u8 {
            return Err(DecodeError::Kind {
                given: header[6],
                expected: kind as u8,
            });
        }
        if header[7] != params.suite() as u8 {
            return Err(DecodeError::Suite {
                given: header[7],
                expected: params.suite() as u8,
            });
        }
        if header[8..40] != session.0 {
            return Err(DecodeError::Session);
        }
        let mut fields = Reader {
            rest: &header[40..],
        };
        let given = fields.u32()?;
        if given != sender {
            return Err(DecodeError::Sender {
                given,
                expected: sender,
            });
        }
        let given = u64::from_le_bytes(*fields.take()?);
        if given != body.len() as u64 {
            return Err(DecodeError::Length {
                given,
                expected: body.len() as u64,
            });
        }
        if checksum(sealed) != *sum {
            return Err(DecodeError::Checksum);
        }
        Ok(Self { rest: body })
    }

    /// What is opened otherwise than a message.
    pub(crate) fn body(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Field("the body ends too soon"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(*self.take()?))
    }

    /// All that is left, which must be `bytes` long.
    pub(crate) fn all(self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        if self.rest.len() != bytes {
            return Err(DecodeError::Length {
                given: self.rest.len() as u64,
                expected: bytes as u64,
            });
        }
        Ok(self.rest)
    }

    /// So many bytes.
    pub(crate) fn some(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(DecodeError::Field("the body ends too soon"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A set of clients.
    pub(crate) fn set(&mut self, clients: u32) -> Result<Vec<u32>, DecodeError> {
        from_bit_map(clients, self.some(clients.div_ceil(8) as usize)?)
    }

    /// A counted list, to the end of the body, of items of `bytes` bytes each that begin with an id:
    /// ids ascend strictly and are below `clients`.
    fn list<T>(
        mut self,
        clients: u32,
        bytes: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<(u32, T)>, DecodeError> {
        let items = self.u32()?;
        if items > clients {
            return Err(DecodeError::Field("more items than there are clients"));
        }
        let expected = items as usize * (4 + bytes);
        if self.rest.len() != expected {
            return Err(DecodeError::Length {
                given: self.rest.len() as u64,
                expected: expected as u64,
            });
        }
        self.items(clients, items, &mut item)
    }

    /// A counted list of items as above, of which the body has no more than it can hold.
    pub(crate) fn part<T>(
        &mut self,
        clients: u32,
        bytes: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<(u32, T)>, DecodeError> {
        let items = self.u32()?;
        if items > clients || self.rest.len() / (4 + bytes) < items as usize {
            return Err(DecodeError::Field("more items than there can be"));
        }
        self.items(clients, items, &mut item)
    }

    fn items<T>(
        &mut self,
        clients: u32,
        items: u32,
        item: &mut impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<(u32, T)>, DecodeError> {
        count(Operation::Entry, items as usize);
        let mut list: Vec<(u32, T)> = Vec::with_capacity(items as usize);
        for _ in 0..items {
            let id = self.u32()?;
            if id >= clients {
                return Err(DecodeError::Field("an id is none of the session's"));
            }
            if list.last().is_some_and(|(before, _)| *before >= id) {
                return Err(DecodeError::Field("ids do not ascend"));
            }
            let item = item(self)?;
            list.push((id, item));
        }
        Ok(list)
    }
}

/// What a client advertises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advert {
    pub(crate) packet_key: [u8; KEY_BYTES],
    pub(crate) mask_key: [u8; KEY_BYTES],
    pub(crate) commitment: [u8; 32],
    /// Zero unless the threat is active.
    pub(crate) signature: [u8; SIGNATURE_BYTES],
}

pub(crate) fn advert_bytes(params: &Params) -> usize {
    match params.threat() {
        Threat::Active => 96 + SIGNATURE_BYTES,
        Threat::SemiHonest | Threat::SemiMalicious => 96,
    }
}

impl Advert {
    pub(crate) fn write(&self, params: &Params, writer: &mut Writer) {
        writer.raw(&self.packet_key);
        writer.raw(&self.mask_key);
        writer.raw(&self.commitment);
        if params.threat() == Threat::Active {
            writer.raw(&self.signature);
        }
    }

    pub(crate) fn read(params: &Params, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            packet_key: *reader.take()?,
            mask_key: *reader.take()?,
            commitment: *reader.take()?,
            signature: match params.threat() {
                Threat::Active => *reader.take()?,
                Threat::SemiHonest | Threat::SemiMalicious => [0; SIGNATURE_BYTES],
            },
        })
    }

    /// The whole body.
    pub(crate) fn decode(params: &Params, mut reader: Reader<'_>) -> Result<Self, DecodeError> {
        let advert = Self::read(params, &mut reader)?;
        reader.all(0)?;
        Ok(advert)
    }
}

/// Everybody who is there, and the digest that stands for it.
pub(crate) fn write_roster(
    params: &Params,
    session: &SessionId,
    roster: impl ExactSizeIterator<Item = (u32, Advert)>,
) -> Vec<u8> {
    let mut writer = Writer::new(Kind::Roster, params, session, SERVER);
    writer.count(roster.len());
    for (id, advert) in roster {
        writer.u32(id);
        advert.write(params, &mut writer);
    }
    writer.finish()
}

pub(crate) fn read_roster(
    params: &Params,
    reader: Reader<'_>,
) -> Result<Vec<(u32, Advert)>, DecodeError> {
    reader.list(params.clients(), advert_bytes(params), |reader| {
        Advert::read(params, reader)
    })
}

/// Packets to or from neighbours.
pub(crate) fn write_packets(
    mut writer: Writer,
    packets: impl ExactSizeIterator<Item = (u32, Packet)>,
) -> Vec<u8> {
    writer.count(packets.len());
    for (id, packet) in packets {
        writer.u32(id);
        writer.raw(&packet);
    }
    writer.finish()
}

pub(crate) fn read_packets(
    params: &Params,
    reader: Reader<'_>,
) -> Result<Vec<(u32, Packet)>, DecodeError> {
    reader.list(params.clients(), PACKET_BYTES, |reader| {
        reader.take().copied()
    })
}

/// A set of clients as bits.
pub(crate) fn bit_map(clients: u32, set: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut bits = vec![0; clients.div_ceil(8) as usize];
    for id in set {
        bits[id as usize / 8] |= 1 << (id % 8);
    }
    bits
}

fn from_bit_map(clients: u32, bits: &[u8]) -> Result<Vec<u32>, DecodeError> {
    let places = (0..).zip(
        bits.iter()
            .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)),
    );
    let mut set = Vec::new();
    for (id, bit) in places {
        if bit == 1 {
            if id >= clients {
                return Err(DecodeError::Field("a bit is set that stands for no client"));
            }
            set.push(id);
        }
    }
    Ok(set)
}

pub(crate) fn read_survivors(params: &Params, reader: Reader<'_>) -> Result<Vec<u32>, DecodeError> {
    let bits = reader.all(params.clients().div_ceil(8) as usize)?;
    from_bit_map(params.clients(), bits)
}

/// A signature, which is the whole body.
pub(crate) fn read_signature(mut reader: Reader<'_>) -> Result<[u8; SIGNATURE_BYTES], DecodeError> {
    let signature = *reader.take()?;
    reader.all(0)?;
    Ok(signature)
}

/// Survivors, and who signed them.
pub(crate) type SignedSurvivors = (Vec<u32>, Vec<(u32, [u8; SIGNATURE_BYTES])>);

pub(crate) fn read_unmask(
    params: &Params,
    mut reader: Reader<'_>,
) -> Result<SignedSurvivors, DecodeError> {
    let survivors = reader.set(params.clients())?;
    let signatures = reader.list(params.clients(), SIGNATURE_BYTES, |reader| {
        reader.take().copied()
    })?;
    Ok((survivors, signatures))
}

/// Which of an owner's secrets a share is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Secret {
    /// The key of its pairwise masks: it dropped out.
    Key = 1,
    /// The seed of its own mask: it survived.
    Seed = 2,
}

/// A share that a holder reveals.
pub(crate) type Revealed = (u32, (Secret, Share));

pub(crate) fn write_shares<'a>(
    mut writer: Writer,
    shares: impl ExactSizeIterator<Item = (u32, Secret, &'a Share)>,
) -> Vec<u8> {
    writer.count(shares.len());
    for (owner, secret, share) in shares {
        writer.u32(owner);
        writer.raw(&[secret as u8]);
        writer.raw(&*share.to_bytes());
    }
    writer.finish()
}

pub(crate) fn read_shares(
    params: &Params,
    reader: Reader<'_>,
) -> Result<Vec<Revealed>, DecodeError> {
    reader.list(params.clients(), 1 + SHARE_BYTES, |reader| {
        read_share(reader)
    })
}

/// A share, and of what.
pub(crate) fn read_share(reader: &mut Reader<'_>) -> Result<(Secret, Share), DecodeError> {
    let secret = match reader.take::<1>()? {
        [1] => Secret::Key,
        [2] => Secret::Seed,
        _ => return Err(DecodeError::Field("a share is of neither secret")),
    };
    let share =
        Share::from_bytes(reader.take()?).ok_or(DecodeError::Field("a share is not reduced"))?;
    Ok((secret, share))
}
