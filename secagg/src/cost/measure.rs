//! The prices of operations on this machine, by the caller's clock.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::UnitCosts;
use crate::identity::{Directory, Identity};
use crate::keys::{Binding, PublicKey, SecretKey};
use crate::mask::{Mask, Sign, Word, apply};
use crate::packet::{Shares, open, seal};
use crate::params::Suite;
use crate::ring::{Input, Ring};
use crate::session::SessionId;
use crate::shamir::{Combiner, LIMBS, Share, split};

/// Seconds that one measurement lasts at least.
const LEAST_SECONDS: f64 = 3e-3;
/// Measurements of each operation, of which the median counts.
const MEASUREMENTS: usize = 5;
/// Coordinates of the vectors: more than the second-level cache holds, as of a model.
const LENGTH: usize = 1 << 20;
/// Masks of a group, as a session applies them.
const MASKS: usize = 16;
/// Holders of the secret that is shared.
const HOLDERS: usize = 200;
/// Items of the list.
const ITEMS: usize = 1000;

/// A clock and what it is asked.
struct Bench<C> {
    clock: C,
}

impl<C: FnMut() -> f64> Bench<C> {
    /// Seconds of one of the `parts` equal parts of `work`.
    fn price(&mut self, parts: usize, mut work: impl FnMut()) -> f64 {
        let mut found = [0.0; MEASUREMENTS];
        let mut repetitions = 1u32;
        for seconds in &mut found {
            loop {
                let before = (self.clock)();
                for _ in 0..repetitions {
                    work();
                }
                let spent = (self.clock)() - before;
                // A clock that stands still is believed after a million of repetitions.
                if spent >= LEAST_SECONDS || repetitions >= 1 << 20 {
                    *seconds = spent / (f64::from(repetitions) * parts as f64);
                    break;
                }
                repetitions *= 2;
            }
        }
        found.sort_by(f64::total_cmp);
        found[MEASUREMENTS / 2]
    }

    fn masks<W: Word + Default>(&mut self, suite: Suite) -> f64 {
        let masks: Vec<Mask> = (0..MASKS)
            .map(|index| Mask {
                key: Zeroizing::new([index as u8; 32]),
                sign: if index.is_multiple_of(2) {
                    Sign::Plus
                } else {
                    Sign::Minus
                },
            })
            .collect();
        let mut words = vec![W::default(); LENGTH / MASKS];
        self.price(LENGTH, || apply(suite, &masks, 0, black_box(&mut words)))
    }
}

impl UnitCosts {
    /// Measures every operation for a few milliseconds (about a second in all), with a clock that
    /// says how many seconds the calling thread has run so far.
    #[must_use]
    pub fn measure(clock: impl FnMut() -> f64) -> Self {
        let mut bench = Bench { clock };
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let secret = SecretKey::random(&mut rng);
        let encoded = secret.public();
        let public = PublicKey::from_bytes(&encoded);
        let session = SessionId([1; 32]);
        let binding = Binding {
            session,
            roster: [2; 32],
        };
        let agree = |bench: &mut Bench<_>| {
            public.map_or(0.0, |public| {
                bench.price(1, || drop(black_box(secret.agree(black_box(&public)))))
            })
        };

        let places: Vec<u64> = (1..=HOLDERS as u64).collect();
        let threshold = HOLDERS / 2;
        let dealt = split(&[3; 32], threshold, &places, &mut rng).unwrap_or_default();
        let some: Vec<&Share> = dealt.iter().take(threshold).collect();
        let combiner = Combiner::new(&places[..threshold]);
        let shares = dealt.first().map(|share| Shares {
            key: share.clone(),
            seed: share.clone(),
        });
        let packets = |bench: &mut Bench<_>, suite| {
            shares.as_ref().map_or((0.0, 0.0), |shares| {
                let packet = seal(suite, &[4; 32], 0, 1, shares);
                (
                    bench.price(1, || {
                        black_box(seal(suite, black_box(&[4; 32]), 0, 1, shares));
                    }),
                    bench.price(1, || {
                        drop(black_box(open(
                            suite,
                            black_box(&[4; 32]),
                            0,
                            1,
                            black_box(&packet),
                        )));
                    }),
                )
            })
        };
        let (seal_aes128, open_aes128) = packets(&mut bench, Suite::Aes128);
        let (seal_chacha20, open_chacha20) = packets(&mut bench, Suite::ChaCha20);
        let (sign, verify) = signatures(&mut bench);
        let (pack, unpack, convert) = vectors(&mut bench);

        let bytes = vec![5u8; 1 << 16];
        let items: Vec<(u32, [u8; 96])> = (0..ITEMS as u32)
            .map(|id| (id, [(id % 251) as u8; 96]))
            .collect();
        Self {
            public_key: bench.price(1, || {
                black_box(black_box(&secret).public());
            }),
            decode_key: bench.price(1, || {
                black_box(PublicKey::from_bytes(black_box(&encoded)));
            }),
            agree: agree(&mut bench),
            derive: bench.price(1, || {
                drop(black_box(binding.self_mask_key(black_box(&[6; 32]), 7)));
            }),
            sign,
            verify,
            seal_aes128,
            seal_chacha20,
            open_aes128,
            open_chacha20,
            hash_byte: bench.price(bytes.len(), || {
                black_box(Sha256::digest(black_box(&bytes)));
            }),
            split_step: bench.price(LIMBS * HOLDERS * threshold, || {
                drop(black_box(split(
                    black_box(&[3; 32]),
                    threshold,
                    &places,
                    &mut rng,
                )));
            }),
            weight_step: bench.price(threshold * threshold, || {
                drop(black_box(Combiner::<crate::shamir::F61>::new(black_box(
                    &places[..threshold],
                ))));
            }),
            combine_step: combiner.map_or(0.0, |combiner| {
                bench.price(LIMBS * threshold, || {
                    drop(black_box(combiner.combine(black_box(&some))));
                })
            }),
            mask_aes128_narrow: bench.masks::<u32>(Suite::Aes128),
            mask_aes128_wide: bench.masks::<u64>(Suite::Aes128),
            mask_chacha20_narrow: bench.masks::<u32>(Suite::ChaCha20),
            mask_chacha20_wide: bench.masks::<u64>(Suite::ChaCha20),
            pack,
            unpack,
            convert,
            entry: bench.price(ITEMS, || {
                let map: BTreeMap<u32, [u8; 96]> = black_box(&items).iter().copied().collect();
                black_box(&map);
            }),
        }
    }
}

fn signatures(bench: &mut Bench<impl FnMut() -> f64>) -> (f64, f64) {
    let Ok(directory) = Directory::new(&[Identity::public(&[1; 32])]) else {
        return (0.0, 0.0);
    };
    let identity = Identity::new(&[1; 32], Arc::new(directory));
    let signature = identity.sign_survivors(&[2; 32]);
    (
        bench.price(1, || {
            black_box(identity.sign_survivors(black_box(&[2; 32])));
        }),
        bench.price(1, || {
            black_box(
                identity
                    .directory()
                    .verify_survivors(0, black_box(&[2; 32]), &signature),
            );
        }),
    )
}

/// Packing, unpacking and conversion, per coordinate of 26 bits.
fn vectors(bench: &mut Bench<impl FnMut() -> f64>) -> (f64, f64, f64) {
    let values: Vec<i64> = (0..LENGTH as i64).map(|place| place % 1000).collect();
    let Ok(ring) = Ring::bounded(1000, 1, 16) else {
        return (0.0, 0.0, 0.0);
    };
    let Ok(input) = Input::weighted(ring, &values, 1, 0) else {
        return (0.0, 0.0, 0.0);
    };
    let words = input.words(ring);
    let mut packed = Vec::new();
    words.pack(ring, &mut packed);
    let mut sum = words.clone();
    let mut out = Vec::new();
    (
        bench.price(LENGTH, || {
            // A fresh one each time, as a message is.
            out = Vec::new();
            words.pack(ring, black_box(&mut out));
        }),
        bench.price(LENGTH, || {
            black_box(sum.add_packed(ring, black_box(&packed)));
        }),
        bench.price(LENGTH, || drop(black_box(black_box(&input).words(ring)))),
    )
}
