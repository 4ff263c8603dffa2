//! Which masks are in the sum: every owner's secret recovered, and the masks that follow from it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Server, Workers};
use crate::error::{BadShare, SessionError};
use crate::keys::{Pair, PublicKey, SecretKey, commitment};
use crate::mask::{Mask, Sign};
use crate::operation::{Operation, count};
use crate::recover::{Job, place};
use crate::shamir::{Combiner, Share};
use crate::wire::Secret;

impl Server {
    /// What a holder has to reveal: of each owner whose shares it has, ascending.
    pub(super) fn asked(&self, holder: u32) -> Vec<(u32, Secret)> {
        let mut owners = self.neighbours(holder);
        owners.retain(|id| self.shared.contains(id));
        if self.holds_own() {
            owners.push(holder);
            owners.sort_unstable();
        }
        owners
            .into_iter()
            .map(|owner| match self.survived(owner) {
                true => (owner, Secret::Seed),
                false => (owner, Secret::Key),
            })
            .collect()
    }

    fn survived(&self, id: u32) -> bool {
        self.survivors.binary_search(&id).is_ok()
    }

    /// The masks in the sum, with the signs that take them off.
    pub(super) fn masks(
        &self,
        workers: &impl Workers,
    ) -> Result<(Vec<Mask>, Vec<BadShare>), SessionError> {
        let mut by_owner: BTreeMap<u32, Vec<(u32, &Share)>> = BTreeMap::new();
        for (holder, shares) in &self.revealed {
            count(Operation::Entry, shares.len());
            for (owner, (_, share)) in shares {
                by_owner.entry(*owner).or_default().push((*holder, share));
            }
        }
        // A client that dropped out without surviving neighbours is in nobody's input.
        let jobs: Vec<Job<'_>> = self
            .shared
            .iter()
            .filter(|&&owner| {
                self.survived(owner) || self.neighbours(owner).iter().any(|&id| self.survived(id))
            })
            .map(|&owner| Job {
                owner,
                shares: by_owner.remove(&owner).unwrap_or_default(),
                threshold: self.params.threshold() as usize,
            })
            .collect();
        let sets: BTreeSet<Vec<u32>> = jobs.iter().map(Job::first_holders).collect();
        let mut combiners: Vec<(Vec<u32>, Option<Combiner>)> =
            sets.into_iter().map(|set| (set, None)).collect();
        workers.each(&mut combiners, |(holders, combiner)| {
            let places: Vec<u64> = holders.iter().map(|&holder| place(holder)).collect();
            *combiner = Combiner::new(&places).ok();
        });
        let combiners: BTreeMap<Vec<u32>, Combiner> = combiners
            .into_iter()
            .filter_map(|(set, combiner)| Some((set, combiner?)))
            .collect();
        let mut work: Vec<_> = jobs.into_iter().map(|job| (job, None)).collect();
        workers.each(&mut work, |(job, result)| {
            *result = Some(self.masks_of(job, &combiners));
        });
        let (mut masks, mut bad_shares) = (Vec::new(), Vec::new());
        for (_, result) in work {
            if let Some(result) = result {
                let (more, bad) = result?;
                masks.extend(more);
                bad_shares.extend(bad);
            }
        }
        Ok((masks, bad_shares))
    }

    fn masks_of(
        &self,
        job: &Job<'_>,
        combiners: &BTreeMap<Vec<u32>, Combiner>,
    ) -> Result<(Vec<Mask>, Vec<BadShare>), SessionError> {
        let owner = job.owner;
        let Some(advert) = self.adverts.get(&owner) else {
            return Ok((Vec::new(), Vec::new()));
        };
        if self.survived(owner) {
            let (seed, bad) = job.recover(combiners, |seed| {
                commitment(&self.session, owner, seed) == advert.commitment
            })?;
            let mask = Mask {
                key: self.binding.self_mask_key(&seed, owner),
                sign: Sign::Minus,
            };
            return Ok((vec![mask], bad));
        }
        let genuine = |secret: &[u8; 32]| {
            SecretKey::from_bytes(secret).is_some_and(|key| key.public() == advert.mask_key)
        };
        let (secret, bad) = job.recover(combiners, genuine)?;
        let mut masks = Vec::new();
        if let Some(key) = SecretKey::from_bytes(&secret) {
            for neighbour in self.neighbours(owner) {
                let (true, Some(other)) = (self.survived(neighbour), self.adverts.get(&neighbour))
                else {
                    continue;
                };
                let Some(point) = PublicKey::from_bytes(&other.mask_key) else {
                    continue;
                };
                let pair = Pair {
                    first: (owner, &advert.mask_key),
                    second: (neighbour, &other.mask_key),
                };
                masks.push(Mask {
                    key: self.binding.mask_key(&key.agree(&point), &pair),
                    // The neighbour added it if its id is the lower one.
                    sign: if neighbour < owner {
                        Sign::Minus
                    } else {
                        Sign::Plus
                    },
                });
            }
        }
        Ok((masks, bad))
    }
}
