use chacha20::ChaCha20Rng;
use curve25519_dalek::Scalar;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};
use vsss_rs::{IdentifierPrimeField, PrimeFieldShare, ReadableShareSet, ValuePrimeField};

use super::*;

/// A field small enough to enumerate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tiny<const P: u64>(u64);

impl<const P: u64> zeroize::DefaultIsZeroes for Tiny<P> {}

impl<const P: u64> Field for Tiny<P> {
    const ZERO: Self = Self(0);
    const ONE: Self = Self(1);
    fn add(self, other: Self) -> Self {
        Self((self.0 + other.0) % P)
    }
    fn sub(self, other: Self) -> Self {
        Self((self.0 + P - other.0) % P)
    }
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0 % P)
    }
    fn invert(self) -> Self {
        (0..P)
            .map(Self)
            .find(|x| self.mul(*x) == Self::ONE)
            .unwrap_or(Self(0))
    }
    fn random(rng: &mut impl CryptoRng) -> Self {
        loop {
            let value = rng.next_u32() >> 28;
            if u64::from(value) < P {
                return Self(u64::from(value));
            }
        }
    }
    fn reduce(place: u64) -> u64 {
        place % P
    }
    fn from_place(place: u64) -> Self {
        Self(place % P)
    }
}

/// The field of vsss-rs in the comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Big(Scalar);

impl Zeroize for Big {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl Field for Big {
    const ZERO: Self = Self(Scalar::ZERO);
    const ONE: Self = Self(Scalar::ONE);
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }
    fn invert(self) -> Self {
        Self(self.0.invert())
    }
    fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 64];
        rng.fill_bytes(&mut bytes);
        Self(Scalar::from_bytes_mod_order_wide(&bytes))
    }
    fn reduce(place: u64) -> u64 {
        place
    }
    fn from_place(place: u64) -> Self {
        Self(Scalar::from(place))
    }
}

/// A generator that plays back given words of the tiny fields.
struct Played(Vec<u64>);

impl rand_core::TryRng for Played {
    type Error = core::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok((self.0.pop().unwrap_or_default() as u32) << 28)
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0.pop().unwrap_or_default())
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        dst.fill(0);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Played {}

fn rng(seed: u64) -> ChaCha20Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    ChaCha20Rng::from_seed(bytes)
}

/// Perfect secrecy, by enumeration: over a field of `P` elements, for all polynomials, any `t - 1`
/// shares take each combination of values equally often whatever the secret; any `t` recover it.
fn secrecy<const P: u64>(threshold: usize) {
    let places: Vec<u64> = (1..P).collect();
    let polynomials = P.pow(threshold as u32 - 1);
    let subsets: Vec<Vec<usize>> = (0u32..1 << places.len())
        .filter(|set| set.count_ones() as usize == threshold - 1)
        .map(|set| (0..places.len()).filter(|i| set >> i & 1 == 1).collect())
        .collect();
    let mut seen = vec![vec![0u64; polynomials as usize]; subsets.len()];
    for secret in 0..P {
        for counts in &mut seen {
            counts.fill(0);
        }
        for polynomial in 0..polynomials {
            let words = (0..threshold as u32 - 1)
                .map(|power| polynomial / P.pow(power) % P)
                .collect();
            let shares =
                split_one(Tiny::<P>(secret), threshold, &places, &mut Played(words)).unwrap();
            for (subset, counts) in subsets.iter().zip(&mut seen) {
                let view = subset.iter().fold(0, |view, &i| view * P + shares[i].0);
                counts[view as usize] += 1;
            }
            let combiner = Combiner::<Tiny<P>>::new(&places[..threshold]).unwrap();
            let found = combiner.value(shares[..threshold].iter().copied()).unwrap();
            assert_eq!(found.0, secret);
        }
        for counts in &seen {
            assert!(counts.iter().all(|&count| count == 1), "secret {secret}");
        }
    }
}

#[test]
fn fewer_shares_than_the_threshold_say_nothing() {
    secrecy::<5>(2);
    secrecy::<5>(3);
    secrecy::<5>(4);
    secrecy::<7>(2);
    secrecy::<7>(3);
    secrecy::<7>(4);
    secrecy::<11>(3);
}

/// The coefficients that `split` draws, recovered from shares, are uniform: chi-square over their
/// top four bits and their low four bits, 15 degrees of freedom, of which 60 is beyond 1e-6.
/// Zero is drawn like all others: in the tiny field it is as frequent as any.
#[test]
fn coefficients_are_uniform() {
    let mut rng = rng(1);
    let draws = 20_000;
    let mut high = [0f64; 16];
    let mut low = [0f64; 16];
    for _ in 0..draws {
        let shares = split_one(F61::ZERO, 2, &[1, 2], &mut rng).unwrap();
        // The only coefficient is the share at 1.
        high[(shares[0].value() >> 57) as usize] += 1.0;
        low[(shares[0].value() & 15) as usize] += 1.0;
    }
    for counts in [high, low] {
        let expected = f64::from(draws) / 16.0;
        let chi: f64 = counts
            .iter()
            .map(|c| (c - expected).powi(2) / expected)
            .sum();
        assert!(chi < 60.0, "{chi}");
    }
    let mut counts = [0f64; 5];
    for _ in 0..draws {
        counts[split_one(Tiny::<5>(0), 2, &[1, 2], &mut rng).unwrap()[0].0 as usize] += 1.0;
    }
    let expected = f64::from(draws) / 5.0;
    let chi: f64 = counts
        .iter()
        .map(|c| (c - expected).powi(2) / expected)
        .sum();
    assert!(chi < 40.0, "{chi}");
}

/// vsss-rs 6 combines what we split, and we combine what it splits, over the curve's scalar field.
#[test]
fn shares_agree_with_vsss() {
    type Theirs = PrimeFieldShare<Scalar>;
    let mut rng = rng(2);
    for (threshold, holders) in [(2usize, 2usize), (2, 5), (3, 5), (7, 10), (20, 31)] {
        let secret = Big::random(&mut rng);
        let places: Vec<u64> = (1..=holders as u64).collect();
        let ours = split_one(secret, threshold, &places, &mut rng).unwrap();
        let theirs: Vec<Theirs> = places
            .iter()
            .zip(&ours)
            .skip(holders - threshold)
            .map(|(&place, value)| Theirs {
                identifier: IdentifierPrimeField(Scalar::from(place)),
                value: ValuePrimeField::from(value.0),
            })
            .collect();
        assert_eq!(theirs.combine().unwrap().0, secret.0);

        let theirs = vsss_rs::shamir::split_secret::<Theirs>(
            threshold,
            holders,
            &ValuePrimeField::from(secret.0),
            &mut rng,
        )
        .unwrap();
        let combiner = Combiner::<Big>::new(&places[..threshold]).unwrap();
        for (place, share) in places.iter().zip(&theirs) {
            assert_eq!(share.identifier.0, Scalar::from(*place));
        }
        let found = combiner
            .value(theirs[..threshold].iter().map(|share| Big(share.value.0)))
            .unwrap();
        assert_eq!(found.0, secret.0);
    }
}

#[test]
fn what_cannot_be_shared_or_combined_is_refused() {
    let mut rng = rng(3);
    for (threshold, places, message) in [
        (
            1,
            vec![1, 2],
            "a threshold of 1 among 2 holders; expected 2 to 2",
        ),
        (
            3,
            vec![1, 2],
            "a threshold of 3 among 2 holders; expected 2 to 2",
        ),
        (
            2,
            vec![1, 0],
            "a holder is at 0, where the secret is; expected 1 and more",
        ),
        (
            2,
            vec![1, (1 << 61) - 1],
            "a holder is at 0, where the secret is; expected 1 and more",
        ),
        (
            2,
            vec![7, 3, 7],
            "two holders are at 7; expected each at its own place",
        ),
        (
            2,
            vec![1, 1 << 61],
            "two holders are at 1; expected each at its own place",
        ),
    ] {
        let error = split(&[1; 32], threshold, &places, &mut rng).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let shares = split(&[1; 32], 2, &[1, 2, 3], &mut rng).unwrap();
    let combiner = Combiner::new(&[1, 2]).unwrap();
    assert_eq!(
        combiner.combine(&[&shares[0]]).unwrap_err(),
        ShamirError::Count {
            given: 1,
            expected: 2
        }
    );
    // Shares at the wrong places are five random elements of 61 bits, hardly ever of 52.
    assert_eq!(
        combiner.combine(&[&shares[0], &shares[2]]).unwrap_err(),
        ShamirError::Secret
    );
    for limb in 0..LIMBS {
        let mut bytes = [0; SHARE_BYTES];
        bytes.copy_from_slice(&*shares[0].to_bytes());
        bytes[8 * limb..8 * limb + 8].copy_from_slice(&((1u64 << 61) - 1).to_le_bytes());
        assert!(Share::from_bytes(&bytes).is_none());
    }
    assert_eq!(format!("{:?}", shares[0]), "Share { .. }");
}

proptest! {
    /// The field against 128-bit remainders.
    #[test]
    fn the_field_is_arithmetic_modulo_the_prime(a in 0..(1u64 << 61) - 1, b in 0..(1u64 << 61) - 1) {
        let p = (1u128 << 61) - 1;
        let (x, y) = (F61::new(a).unwrap(), F61::new(b).unwrap());
        let (a, b) = (u128::from(a), u128::from(b));
        prop_assert_eq!(u128::from(x.add(y).value()), (a + b) % p);
        prop_assert_eq!(u128::from(x.sub(y).value()), (a + p - b) % p);
        prop_assert_eq!(u128::from(x.mul(y).value()), a * b % p);
        if a != 0 {
            prop_assert_eq!(x.mul(x.invert()), F61::ONE);
        }
        prop_assert_eq!(u128::from(x.sub(x).value()), 0);
    }

    /// Any subset of the threshold recovers the secret; the others' shares fit, and changed ones do
    /// not.
    #[test]
    fn any_subset_recovers(
        secret in any::<[u8; 32]>(),
        seed in any::<u64>(),
        threshold in 2usize..8,
        more in 0usize..6,
    ) {
        let mut rng = rng(seed);
        let holders = threshold + more;
        let mut places: Vec<u64> = Vec::new();
        while places.len() < holders {
            let place = 1 + u64::from(rng.next_u32());
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let shares = split(&secret, threshold, &places, &mut rng).unwrap();
        for first in 0..=more {
            let some: Vec<&Share> = shares[first..first + threshold].iter().collect();
            let some_places = &places[first..first + threshold];
            let combiner = Combiner::new(some_places).unwrap();
            prop_assert_eq!(*combiner.combine(&some).unwrap(), secret);
            for (place, share) in places.iter().zip(&shares) {
                if !some_places.contains(place) {
                    prop_assert!(fits(some_places, &some, *place, share).unwrap());
                    let mut changed = [0; SHARE_BYTES];
                    changed.copy_from_slice(&*share.to_bytes());
                    changed[0] ^= 1;
                    let changed = Share::from_bytes(&changed).unwrap();
                    prop_assert!(!fits(some_places, &some, *place, &changed).unwrap());
                }
            }
        }
        for share in &shares {
            let bytes = share.to_bytes();
            prop_assert!(Share::from_bytes(&bytes).as_ref() == Some(share));
        }
    }
}
