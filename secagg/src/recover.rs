//! Secrets from shares: each checked against what its owner advertised, so that false shares are
//! noticed, worked around where enough others are left, and named.

use std::collections::BTreeMap;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use crate::error::{BadShare, SessionError};
use crate::shamir::{Combiner, Share, fits};

/// How many sets of holders are tried before a secret is given up.
const ATTEMPTS: usize = 256;

/// A secret to be recovered.
pub(crate) struct Job<'a> {
    pub(crate) owner: u32,
    /// Holders and what they revealed, ascending.
    pub(crate) shares: Vec<(u32, &'a Share)>,
    pub(crate) threshold: usize,
}

impl Job<'_> {
    /// The holders that are tried first: those with the lowest ids, which are the same for many owners.
    pub(crate) fn first_holders(&self) -> Vec<u32> {
        self.shares
            .iter()
            .take(self.threshold)
            .map(|(holder, _)| *holder)
            .collect()
    }

    /// The secret that `genuine` accepts, and the shares that do not belong to it, as far as they were
    /// looked at: none when the first holders' are good.
    pub(crate) fn recover(
        &self,
        combiners: &BTreeMap<Vec<u32>, Combiner>,
        genuine: impl Fn(&[u8; 32]) -> bool,
    ) -> Result<(Zeroizing<[u8; 32]>, Vec<BadShare>), SessionError> {
        let (held, least) = (self.shares.len(), self.threshold);
        if held < least {
            return Err(SessionError::TooFewShares {
                owner: self.owner,
                present: held,
                least,
            });
        }
        if let Some(combiner) = combiners.get(&self.first_holders()) {
            let shares: Vec<&Share> = self.shares[..least]
                .iter()
                .map(|(_, share)| *share)
                .collect();
            if let Ok(secret) = combiner.combine(&shares)
                && genuine(&secret)
            {
                return Ok((secret, Vec::new()));
            }
        }
        let spare = held - least;
        let mut rng = ChaCha20Rng::seed_from_u64(u64::from(self.owner));
        let mut order: Vec<usize> = (0..held).collect();
        for attempt in 0..ATTEMPTS {
            // First runs of the holders that together leave out each of them, for a single liar;
            // then sets at random.
            let chosen: Vec<usize> = if attempt * spare < held {
                (0..least).map(|i| (attempt * spare + i) % held).collect()
            } else {
                for last in (1..held).rev() {
                    order.swap(last, (rng.next_u32() as usize) % (last + 1));
                }
                order[..least].to_vec()
            };
            if let Some(secret) = self.try_holders(&chosen, &genuine) {
                return Ok((secret, self.liars(&chosen)));
            }
            if spare == 0 {
                break;
            }
        }
        Err(SessionError::BadShares {
            owner: self.owner,
            least,
        })
    }

    fn chosen(&self, chosen: &[usize]) -> (Vec<u64>, Vec<&Share>) {
        chosen
            .iter()
            .map(|&index| (place(self.shares[index].0), self.shares[index].1))
            .unzip()
    }

    fn try_holders(
        &self,
        chosen: &[usize],
        genuine: impl Fn(&[u8; 32]) -> bool,
    ) -> Option<Zeroizing<[u8; 32]>> {
        let (places, shares) = self.chosen(chosen);
        let secret = Combiner::new(&places).ok()?.combine(&shares).ok()?;
        genuine(&secret).then_some(secret)
    }

    /// The shares that do not lie on the polynomials of the good ones.
    fn liars(&self, good: &[usize]) -> Vec<BadShare> {
        let (places, shares) = self.chosen(good);
        self.shares
            .iter()
            .filter(|(holder, share)| fits(&places, &shares, place(*holder), share) != Ok(true))
            .map(|(holder, _)| BadShare {
                owner: self.owner,
                holder: *holder,
            })
            .collect()
    }
}

/// A holder's place in the sharing.
pub(crate) fn place(holder: u32) -> u64 {
    u64::from(holder) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shamir::split;

    /// Every pattern of up to three liars among seven holders, of whom three recover.
    #[test]
    fn liars_are_worked_around_and_named() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let holders: Vec<u32> = vec![0, 2, 3, 5, 8, 13, 21];
        let places: Vec<u64> = holders.iter().map(|&holder| place(holder)).collect();
        let secret = [42; 32];
        let good = split(&secret, 3, &places, &mut rng).unwrap();
        let bad = split(&[1; 32], 3, &places, &mut rng).unwrap();
        for pattern in 0u32..1 << 7 {
            let shares = |i: usize| {
                if pattern >> i & 1 == 1 {
                    &bad[i]
                } else {
                    &good[i]
                }
            };
            let job = Job {
                owner: 4,
                shares: (0..7).map(|i| (holders[i], shares(i))).collect(),
                threshold: 3,
            };
            let combiners =
                BTreeMap::from([(job.first_holders(), Combiner::new(&places[..3]).unwrap())]);
            let found = job.recover(&combiners, |found| *found == secret);
            if pattern.count_ones() > 4 {
                assert_eq!(
                    found.unwrap_err(),
                    SessionError::BadShares { owner: 4, least: 3 }
                );
                continue;
            }
            let (found, liars) = found.unwrap();
            assert_eq!(*found, secret);
            if pattern & 7 == 0 {
                assert!(liars.is_empty());
            } else {
                let expected: Vec<BadShare> = (0..7)
                    .filter(|i| pattern >> i & 1 == 1)
                    .map(|i| BadShare {
                        owner: 4,
                        holder: holders[i],
                    })
                    .collect();
                assert_eq!(liars, expected, "{pattern:b}");
            }
        }
        let few = Job {
            owner: 4,
            shares: vec![(0, &good[0]), (2, &good[1])],
            threshold: 3,
        };
        assert_eq!(
            few.recover(&BTreeMap::new(), |_| true).unwrap_err(),
            SessionError::TooFewShares {
                owner: 4,
                present: 2,
                least: 3
            }
        );
    }
}
