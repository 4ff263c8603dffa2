//! Shamir's secret sharing (Communications of the ACM 22, 1979) over a prime field, without tables,
//! without branches on secrets, wiped when dropped.
//!
//! A secret of 32 bytes is five limbs of 52 bits, each shared over `p = 2^61 - 1` (`F61`) by a
//! polynomial of its own; Lagrange coefficients are public, are computed once for a set of holders
//! and serve all limbs of all secrets. The polynomial's coefficients are uniform by rejection, zero
//! included: several published crates left zero out, or reused coefficients, and so leak.
//!
//! A holder is a place, given by whoever shares, never taken from a message.

mod field;

pub(crate) use field::{F61, Field};

use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::ShamirError;
use crate::operation::{Operation, count};

/// Limbs of a secret.
pub(crate) const LIMBS: usize = 5;
/// Bits of a limb.
const LIMB_BITS: usize = 52;
/// Bytes of a share on the wire.
pub(crate) const SHARE_BYTES: usize = 8 * LIMBS;

/// One holder's share of one secret.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Share([F61; LIMBS]);

impl core::fmt::Debug for Share {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Share { .. }")
    }
}

impl Share {
    /// Limbs of 8 bytes, little-endian.
    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; SHARE_BYTES]> {
        let mut bytes = Zeroizing::new([0; SHARE_BYTES]);
        for (place, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.0) {
            *place = limb.value().to_le_bytes();
        }
        bytes
    }

    /// None when a limb is not reduced.
    pub(crate) fn from_bytes(bytes: &[u8; SHARE_BYTES]) -> Option<Self> {
        let mut limbs = [F61::ZERO; LIMBS];
        for (limb, bytes) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = F61::new(u64::from_le_bytes(*bytes))?;
        }
        Some(Self(limbs))
    }
}

/// Shares a secret among holders at `places`, any `threshold` of whom recover it.
///
/// # Errors
/// [`ShamirError`] for a threshold below 2 or above the holders, and for places that are 0 or not
/// distinct modulo `p`.
pub(crate) fn split(
    secret: &[u8; 32],
    threshold: usize,
    places: &[u64],
    rng: &mut impl CryptoRng,
) -> Result<Vec<Share>, ShamirError> {
    let limbs = Zeroizing::new(limbs(secret));
    let mut shares = vec![Share([F61::ZERO; LIMBS]); places.len()];
    for (index, limb) in limbs.iter().enumerate() {
        let values = Zeroizing::new(split_one(*limb, threshold, places, rng)?);
        for (share, value) in shares.iter_mut().zip(values.iter()) {
            share.0[index] = *value;
        }
    }
    Ok(shares)
}

/// Shares one element of a field.
fn split_one<F: Field>(
    secret: F,
    threshold: usize,
    places: &[u64],
    rng: &mut impl CryptoRng,
) -> Result<Vec<F>, ShamirError> {
    if threshold < 2 || threshold > places.len() {
        return Err(ShamirError::Threshold {
            threshold,
            holders: places.len(),
        });
    }
    let places = distinct::<F>(places)?;
    count(Operation::Split, threshold * places.len());
    let mut coefficients = Zeroizing::new(Vec::with_capacity(threshold));
    coefficients.push(secret);
    coefficients.extend((1..threshold).map(|_| F::random(rng)));
    Ok(places
        .iter()
        .map(|&x| {
            coefficients
                .iter()
                .rev()
                .fold(F::ZERO, |value, &coefficient| value.mul(x).add(coefficient))
        })
        .collect())
}

/// Lagrange coefficients at 0 of a set of holders: what recovers any secret of which they hold
/// shares.
#[derive(Clone, Debug)]
pub(crate) struct Combiner<F: Field = F61> {
    coefficients: Vec<F>,
}

impl<F: Field> Combiner<F> {
    /// For holders at `places`, at least the threshold of them.
    ///
    /// # Errors
    /// [`ShamirError`] when places are 0 or not distinct.
    pub(crate) fn new(places: &[u64]) -> Result<Self, ShamirError> {
        Self::at(places, F::ZERO)
    }

    /// The coefficients at another place, with which shares are checked against one another.
    fn at(places: &[u64], point: F) -> Result<Self, ShamirError> {
        count(Operation::Weight, places.len() * places.len());
        let places = distinct::<F>(places)?;
        // prod over j of (point - x_j) / (x_i - x_j), with one inversion for all.
        let mut numerators = vec![F::ONE; places.len()];
        let mut product = F::ONE;
        for (numerator, &x) in numerators.iter_mut().zip(&places) {
            *numerator = product;
            product = product.mul(point.sub(x));
        }
        product = F::ONE;
        for (numerator, &x) in numerators.iter_mut().zip(&places).rev() {
            *numerator = numerator.mul(product);
            product = product.mul(point.sub(x));
        }
        let mut denominators: Vec<F> = (0..places.len())
            .map(|i| {
                let own = places[i];
                let others = places[..i].iter().chain(&places[i + 1..]);
                others.fold(F::ONE, |product, &other| product.mul(own.sub(other)))
            })
            .collect();
        invert_all(&mut denominators);
        Ok(Self {
            coefficients: numerators
                .iter()
                .zip(&denominators)
                .map(|(numerator, denominator)| numerator.mul(*denominator))
                .collect(),
        })
    }

    fn value(&self, shares: impl ExactSizeIterator<Item = F>) -> Result<F, ShamirError> {
        if shares.len() != self.coefficients.len() {
            return Err(ShamirError::Count {
                given: shares.len(),
                expected: self.coefficients.len(),
            });
        }
        count(Operation::Combine, self.coefficients.len());
        Ok(self
            .coefficients
            .iter()
            .zip(shares)
            .fold(F::ZERO, |sum, (&coefficient, share)| {
                sum.add(coefficient.mul(share))
            }))
    }
}

impl Combiner {
    /// The secret, from shares in the order of the places.
    ///
    /// # Errors
    /// [`ShamirError::Count`], and [`ShamirError::Secret`] when what comes out is no 32 bytes.
    pub(crate) fn combine(&self, shares: &[&Share]) -> Result<Zeroizing<[u8; 32]>, ShamirError> {
        let mut limbs = Zeroizing::new([F61::ZERO; LIMBS]);
        for (index, limb) in limbs.iter_mut().enumerate() {
            *limb = self.value(shares.iter().map(|share| share.0[index]))?;
        }
        secret(&limbs)
    }
}

/// Whether `share` at `place` fits the polynomials that `shares` at `places` determine.
///
/// # Errors
/// As [`Combiner::new`] and [`Combiner::combine`].
pub(crate) fn fits(
    places: &[u64],
    shares: &[&Share],
    place: u64,
    share: &Share,
) -> Result<bool, ShamirError> {
    let combiner = Combiner::at(places, F61::from_place(place))?;
    let mut all = true;
    for (index, limb) in share.0.iter().enumerate() {
        all &= combiner.value(shares.iter().map(|share| share.0[index]))? == *limb;
    }
    Ok(all)
}

/// Places as elements of the field, none 0 and no two the same.
fn distinct<F: Field>(places: &[u64]) -> Result<Vec<F>, ShamirError> {
    let elements: Vec<F> = places.iter().map(|&place| F::from_place(place)).collect();
    let mut order: Vec<u64> = places.iter().map(|&place| F::reduce(place)).collect();
    if order.contains(&0) {
        return Err(ShamirError::Zero);
    }
    order.sort_unstable();
    match order.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ShamirError::Duplicate(pair[0])),
        None => Ok(elements),
    }
}

/// Inverts elements, none 0, with one inversion (Montgomery 1987, section 10.3.1).
fn invert_all<F: Field>(elements: &mut [F]) {
    let mut before = Vec::with_capacity(elements.len());
    let mut product = F::ONE;
    for &element in elements.iter() {
        before.push(product);
        product = product.mul(element);
    }
    let mut inverse = product.invert();
    for (element, before) in elements.iter_mut().zip(before).rev() {
        let next = inverse.mul(*element);
        *element = inverse.mul(before);
        inverse = next;
    }
}

/// 256 bits as limbs of 52, the lowest first.
fn limbs(secret: &[u8; 32]) -> [F61; LIMBS] {
    let mut limbs = [F61::ZERO; LIMBS];
    for (index, limb) in limbs.iter_mut().enumerate() {
        let first = index * LIMB_BITS;
        let mut window = Zeroizing::new([0; 16]);
        let from = first / 8;
        let to = (from + 8).min(32);
        window[..to - from].copy_from_slice(&secret[from..to]);
        let value = u128::from_le_bytes(*window) >> (first % 8);
        *limb = F61::from_place(value as u64 & ((1 << LIMB_BITS) - 1));
    }
    limbs
}

/// The inverse of [`limbs`].
fn secret(limbs: &[F61; LIMBS]) -> Result<Zeroizing<[u8; 32]>, ShamirError> {
    let mut wide = Zeroizing::new([0u8; 40]);
    for (index, limb) in limbs.iter().enumerate() {
        let first = index * LIMB_BITS;
        let value = limb.value();
        if value >> LIMB_BITS != 0 {
            return Err(ShamirError::Secret);
        }
        let shifted = (u128::from(value) << (first % 8)).to_le_bytes();
        for (byte, part) in wide[first / 8..].iter_mut().zip(&shifted[..8]) {
            *byte |= part;
        }
    }
    if wide[32..].iter().any(|&byte| byte != 0) {
        return Err(ShamirError::Secret);
    }
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(&wide[..32]);
    Ok(secret)
}

#[cfg(test)]
mod tests;
