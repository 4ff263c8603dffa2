//! Share packets: a client's shares for one neighbour, sealed so that only it can open them, in this
//! session and this direction.
//!
//! The key is for this packet alone (see [`crate::keys::Binding::packet_key`]), so the nonce is 0. The
//! associated data names owner and holder once more.

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::Zeroizing;

use crate::operation::{Operation, count};
use crate::params::Suite;
use crate::shamir::{SHARE_BYTES, Share};

const PLAIN_BYTES: usize = 2 * SHARE_BYTES;
const TAG_BYTES: usize = 16;
/// Bytes of a packet.
pub(crate) const PACKET_BYTES: usize = PLAIN_BYTES + TAG_BYTES;

/// A sealed packet.
pub(crate) type Packet = [u8; PACKET_BYTES];

/// One owner's two shares at one holder.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Shares {
    /// Of the secret key of its pairwise masks.
    pub(crate) key: Share,
    /// Of the seed of its own mask.
    pub(crate) seed: Share,
}

fn associated(owner: u32, holder: u32) -> [u8; 8] {
    let mut data = [0; 8];
    data[..4].copy_from_slice(&owner.to_le_bytes());
    data[4..].copy_from_slice(&holder.to_le_bytes());
    data
}

pub(crate) fn seal(
    suite: Suite,
    key: &[u8; 32],
    owner: u32,
    holder: u32,
    shares: &Shares,
) -> Packet {
    count(Operation::Seal, 1);
    let mut packet = [0; PACKET_BYTES];
    let (plain, tag) = packet.split_at_mut(PLAIN_BYTES);
    plain[..SHARE_BYTES].copy_from_slice(&*shares.key.to_bytes());
    plain[SHARE_BYTES..].copy_from_slice(&*shares.seed.to_bytes());
    let data = associated(owner, holder);
    let nonce = [0; 12].into();
    let sealed = match suite {
        Suite::Aes128 => {
            let mut half = Zeroizing::new([0; 16]);
            half.copy_from_slice(&key[..16]);
            Aes128Gcm::new((&*half).into())
                .encrypt_inout_detached(&nonce, &data, (&mut *plain).into())
                .map(|tag| tag.0)
        }
        Suite::ChaCha20 => ChaCha20Poly1305::new(key.into())
            .encrypt_inout_detached(&nonce, &data, (&mut *plain).into())
            .map(|tag| tag.0),
    };
    match sealed {
        Ok(sealed) => tag.copy_from_slice(&sealed),
        // Only beyond 2^36 bytes; nothing in the clear leaves all the same.
        Err(_) => plain.fill(0),
    }
    packet
}

/// None unless the packet was sealed with this key by `owner` for `holder` and holds two shares.
pub(crate) fn open(
    suite: Suite,
    key: &[u8; 32],
    owner: u32,
    holder: u32,
    packet: &Packet,
) -> Option<Shares> {
    count(Operation::Open, 1);
    let (sealed, tag) = packet.split_first_chunk::<PLAIN_BYTES>()?;
    let tag: [u8; TAG_BYTES] = tag.try_into().ok()?;
    let mut plain = Zeroizing::new(*sealed);
    let data = associated(owner, holder);
    let nonce = [0; 12].into();
    match suite {
        Suite::Aes128 => {
            let mut half = Zeroizing::new([0; 16]);
            half.copy_from_slice(&key[..16]);
            Aes128Gcm::new((&*half).into()).decrypt_inout_detached(
                &nonce,
                &data,
                (&mut plain[..]).into(),
                &tag.into(),
            )
        }
        Suite::ChaCha20 => ChaCha20Poly1305::new(key.into()).decrypt_inout_detached(
            &nonce,
            &data,
            (&mut plain[..]).into(),
            &tag.into(),
        ),
    }
    .ok()?;
    let (key, seed) = plain.split_first_chunk::<SHARE_BYTES>()?;
    Some(Shares {
        key: Share::from_bytes(key)?,
        seed: Share::from_bytes(seed.first_chunk()?)?,
    })
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn packets_open_only_as_they_were_sealed() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut split = |byte| {
            crate::shamir::split(&[byte; 32], 2, &[1, 2], &mut rng)
                .unwrap()
                .remove(0)
        };
        let shares = Shares {
            key: split(1),
            seed: split(2),
        };
        for suite in [Suite::Aes128, Suite::ChaCha20] {
            let packet = seal(suite, &[5; 32], 3, 4, &shares);
            let opened = open(suite, &[5; 32], 3, 4, &packet).unwrap();
            assert!(opened.key == shares.key && opened.seed == shares.seed);
            assert!(open(suite, &[6; 32], 3, 4, &packet).is_none());
            assert!(open(suite, &[5; 32], 4, 3, &packet).is_none());
            assert!(open(suite, &[5; 32], 3, 5, &packet).is_none());
            for bit in 0..8 * PACKET_BYTES {
                let mut flipped = packet;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(open(suite, &[5; 32], 3, 4, &flipped).is_none(), "bit {bit}");
            }
        }
        let aes = seal(Suite::Aes128, &[5; 32], 3, 4, &shares);
        assert!(open(Suite::ChaCha20, &[5; 32], 3, 4, &aes).is_none());
    }
}
