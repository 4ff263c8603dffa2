//! Keys: agreement in the group ristretto255, derivation by HKDF-SHA256.
//!
//! # Source
//! RFC 9496 (ristretto255: canonical encodings of a group of prime order, so there are no small
//! subgroups and no two encodings of one key), RFC 5869 (HKDF).

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::operation::{Operation, count};
use crate::session::{SessionId, digest};

/// Bytes of a key, public or secret.
pub(crate) const KEY_BYTES: usize = 32;

/// A secret scalar, never 0.
#[derive(Zeroize, ZeroizeOnDrop)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct SecretKey(Scalar);

impl SecretKey {
    pub(crate) fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 64]);
        loop {
            rng.fill_bytes(&mut *bytes);
            let scalar = Scalar::from_bytes_mod_order_wide(&bytes);
            if scalar != Scalar::ZERO {
                return Self(scalar);
            }
        }
    }

    /// None unless the bytes are those of a reduced scalar.
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        Option::from(Scalar::from_canonical_bytes(*bytes)).map(Self)
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    pub(crate) fn public(&self) -> [u8; KEY_BYTES] {
        count(Operation::PublicKey, 1);
        RistrettoPoint::mul_base(&self.0).compress().to_bytes()
    }

    /// The encoded product with another's public key.
    pub(crate) fn agree(&self, public: &PublicKey) -> Zeroizing<[u8; 32]> {
        count(Operation::Agree, 1);
        Zeroizing::new((self.0 * public.0).compress().to_bytes())
    }
}

/// A valid public key: a canonical encoding of a point other than the identity.
#[derive(Clone, Copy)]
pub(crate) struct PublicKey(RistrettoPoint);

impl PublicKey {
    pub(crate) fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Option<Self> {
        count(Operation::DecodeKey, 1);
        let point = CompressedRistretto(*bytes).decompress()?;
        (!point.is_identity()).then_some(Self(point))
    }
}

/// Two parties of a derived key, with their public keys.
pub(crate) struct Pair<'a> {
    pub(crate) first: (u32, &'a [u8; KEY_BYTES]),
    pub(crate) second: (u32, &'a [u8; KEY_BYTES]),
}

/// What all keys of a session depend on once keys are advertised.
#[derive(Clone, Copy)]
pub(crate) struct Binding {
    pub(crate) session: SessionId,
    /// Digest of everybody's advertised keys.
    pub(crate) roster: [u8; 32],
}

impl Binding {
    /// The key of the mask that two clients share; the same for both, whoever is first.
    pub(crate) fn mask_key(&self, secret: &[u8; 32], pair: &Pair<'_>) -> Zeroizing<[u8; 32]> {
        let (low, high) = if pair.first.0 < pair.second.0 {
            (pair.first, pair.second)
        } else {
            (pair.second, pair.first)
        };
        self.derive(b"pairwise mask", secret, low, high)
    }

    /// The key of the packet from the first of a pair to the second: another one than back.
    pub(crate) fn packet_key(&self, secret: &[u8; 32], pair: &Pair<'_>) -> Zeroizing<[u8; 32]> {
        self.derive(b"share packet", secret, pair.first, pair.second)
    }

    /// The key of a client's own mask, from its seed.
    pub(crate) fn self_mask_key(&self, seed: &[u8; 32], client: u32) -> Zeroizing<[u8; 32]> {
        self.expand(b"self mask", seed, &[&client.to_le_bytes()])
    }

    fn derive(
        &self,
        label: &[u8],
        secret: &[u8; 32],
        first: (u32, &[u8; KEY_BYTES]),
        second: (u32, &[u8; KEY_BYTES]),
    ) -> Zeroizing<[u8; 32]> {
        self.expand(
            label,
            secret,
            &[
                &first.0.to_le_bytes(),
                &second.0.to_le_bytes(),
                first.1,
                second.1,
            ],
        )
    }

    /// HKDF with the session id as salt; `info` is version, label, 0, digest of the roster, parts.
    fn expand(&self, label: &[u8], secret: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        count(Operation::Derive, 1);
        let mut info: Vec<&[u8]> = vec![b"fledgling-secagg/1 ", label, &[0], &self.roster];
        info.extend(parts);
        let mut key = Zeroizing::new([0; 32]);
        let expanded =
            Hkdf::<Sha256>::new(Some(&self.session.0), secret).expand_multi_info(&info, &mut *key);
        // RFC 5869 allows up to 255 blocks of 32 bytes; this is one.
        debug_assert!(expanded.is_ok());
        key
    }
}

/// A client's commitment to the seed of its own mask.
pub(crate) fn commitment(session: &SessionId, client: u32, seed: &[u8; 32]) -> [u8; 32] {
    count(Operation::Derive, 1);
    digest(
        b"self-mask commitment",
        &[&session.0, &client.to_le_bytes(), seed],
    )
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// RFC 9496, appendix A.1 (multiples of the generator) and A.2 (invalid encodings).
    #[test]
    fn encodings_are_those_of_the_standard() {
        for (scalar, encoding) in [
            (
                1u64,
                "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76",
            ),
            (
                2,
                "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919",
            ),
            (
                3,
                "94741f5d5d52755ece4f23f044ee27d5d1ea1e2bd196b462166b16152a9d0259",
            ),
        ] {
            let public = SecretKey(Scalar::from(scalar)).public();
            assert_eq!(public.to_vec(), hex(encoding));
            assert!(PublicKey::from_bytes(&public).is_some());
        }
        for bad in [
            // The identity.
            "0000000000000000000000000000000000000000000000000000000000000000",
            // Non-canonical field encodings.
            "00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            // Negative field elements.
            "0100000000000000000000000000000000000000000000000000000000000000",
            "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "ed57ffd8c914fb201471d1c3d245ce3c746fcbe63a3679d51b6a516ebebe0e20",
            // Non-square x^2.
            "26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371",
            "4eac077a713c57b4f4397629a4145982c661f48044dd3f96427d40b147d9742f",
        ] {
            let bytes: [u8; 32] = hex(bad).try_into().unwrap();
            assert!(PublicKey::from_bytes(&bytes).is_none(), "{bad}");
        }
    }

    #[test]
    fn both_sides_agree_and_every_input_matters() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let (a, b) = (SecretKey::random(&mut rng), SecretKey::random(&mut rng));
        let (pa, pb) = (a.public(), b.public());
        let shared = a.agree(&PublicKey::from_bytes(&pb).unwrap());
        assert_eq!(*shared, *b.agree(&PublicKey::from_bytes(&pa).unwrap()));
        let binding = Binding {
            session: SessionId([2; 32]),
            roster: [3; 32],
        };
        let there = Pair {
            first: (4, &pa),
            second: (9, &pb),
        };
        let back = Pair {
            first: (9, &pb),
            second: (4, &pa),
        };
        let mask = binding.mask_key(&shared, &there);
        assert_eq!(*mask, *binding.mask_key(&shared, &back));
        let packet = binding.packet_key(&shared, &there);
        assert_ne!(*packet, *binding.packet_key(&shared, &back));
        let others = [
            packet,
            binding.packet_key(&shared, &back),
            binding.self_mask_key(&shared, 4),
            binding.self_mask_key(&shared, 5),
            binding.mask_key(&[0; 32], &there),
            binding.mask_key(
                &shared,
                &Pair {
                    first: (5, &pa),
                    ..there
                },
            ),
            binding.mask_key(
                &shared,
                &Pair {
                    first: (4, &pb),
                    ..there
                },
            ),
            Binding {
                session: SessionId([0; 32]),
                ..binding
            }
            .mask_key(&shared, &there),
            Binding {
                roster: [0; 32],
                ..binding
            }
            .mask_key(&shared, &there),
            mask,
        ];
        let mut keys: Vec<[u8; 32]> = others.iter().map(|key| **key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), others.len());
    }

    #[test]
    fn scalars_are_read_canonically() {
        let mut rng = ChaCha20Rng::from_seed([5; 32]);
        let key = SecretKey::random(&mut rng);
        let back = SecretKey::from_bytes(&key.to_bytes()).unwrap();
        assert_eq!(back.public(), key.public());
        assert!(SecretKey::from_bytes(&[0xff; 32]).is_none());
        // The group's order itself.
        let order: [u8; 32] =
            hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
                .try_into()
                .unwrap();
        assert!(SecretKey::from_bytes(&order).is_none());
    }
}
