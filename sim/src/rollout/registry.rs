//! The registry of model versions: by the digest of their bytes, with their sizes, the patches that
//! lead to them from older ones, and what became of them.

use std::collections::BTreeMap;

use fl_versions::{Digest, PatchError, Version};

use crate::checkpoint::ServedFile;
use crate::distribution;

/// A version's number in its registry, in the order in which versions were published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(pub u16);

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// Published and not yet released.
    Waiting,
    /// On its way through the stages.
    Candidate,
    /// What every device is to have.
    Current,
    /// Once current; a newer one took its place.
    Replaced,
    /// Found bad, and taken back from whoever had it.
    Withdrawn,
}

impl VersionState {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Candidate => "candidate",
            Self::Current => "current",
            Self::Replaced => "replaced",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// A version and what is known of it.
#[derive(Clone, Debug)]
struct Entry {
    version: Version,
    round: u64,
    state: VersionState,
}

/// Why a version cannot be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The same bytes are there already.
    #[error(
        "the model after round {round} is version {}, byte for byte: {version}; publish each version once", .known.0
    )]
    Known {
        /// Rounds that the model has seen.
        round: u64,
        /// The version that has these bytes.
        known: VersionId,
        /// Its name.
        version: Version,
    },
    /// No patch leads to it from an older version.
    #[error("the patch from version {} to the model after round {round}: {source}", .from.0)]
    Patch {
        /// Rounds that the model has seen.
        round: u64,
        /// The older version.
        from: VersionId,
        /// Why.
        source: PatchError,
    },
    /// There are too many versions.
    #[error("a registry holds {most} versions at most; publish fewer")]
    Full {
        /// How many it holds.
        most: usize,
    },
}

/// Versions in the order in which they were published.
///
/// Downloads are named by the digest of what is loaded, so that whoever has begun one goes on with
/// the same bytes, and a content delivery network may keep them anywhere.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: Vec<Entry>,
    /// Bytes of the patch from the first version to the second.
    patches: BTreeMap<(VersionId, VersionId), u64>,
    /// Files from which patches are made.
    files: BTreeMap<VersionId, ServedFile>,
    /// From how many older versions patches are made to a new one.
    depth: usize,
    /// Size as which every file counts.
    file_bytes: Option<u64>,
}

impl Registry {
    /// Versions in a registry at most.
    pub const MOST: usize = 1 << 12;

    /// An empty registry that keeps patches to each version from the `depth` versions before it; from
    /// none with 0.
    ///
    /// With `file_bytes` every file counts as one of so many bytes, and a patch as the same share of
    /// it that was measured: the fleet of a larger model with the small one's ratio.
    #[must_use]
    pub fn new(depth: usize, file_bytes: Option<u64>) -> Self {
        Self {
            depth,
            file_bytes,
            ..Self::default()
        }
    }

    /// Adds a model file. Patches that lead to it from older versions are made, and applied once, so
    /// that a patch that is offered is one that works.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn publish(&mut self, file: ServedFile) -> Result<VersionId, RegistryError> {
        let version = Version::of(&file.bytes);
        let id = self.add(version, file.round)?;
        let mut made = Vec::new();
        for (&from, old) in self.files.iter().rev().take(self.depth) {
            match distribution::weigh(old, &file) {
                Ok(patch) => made.push(((from, id), patch.patch_bytes)),
                Err(source) => {
                    self.entries.pop();
                    return Err(RegistryError::Patch {
                        round: file.round,
                        from,
                        source,
                    });
                }
            }
        }
        self.patches.extend(made);
        self.files.insert(id, file);
        while self.files.len() > self.depth {
            self.files.pop_first();
        }
        Ok(id)
    }

    /// Adds a version of which only the name and the sizes are known: its own, and those of patches
    /// from older versions.
    ///
    /// # Errors
    /// [`RegistryError::Known`] or [`RegistryError::Full`].
    pub fn publish_sizes(
        &mut self,
        version: Version,
        round: u64,
        patches: &[(VersionId, u64)],
    ) -> Result<VersionId, RegistryError> {
        let id = self.add(version, round)?;
        let patches = patches.iter().map(|&(from, bytes)| ((from, id), bytes));
        self.patches.extend(patches);
        Ok(id)
    }

    fn add(&mut self, version: Version, round: u64) -> Result<VersionId, RegistryError> {
        if let Some(known) = self.find(version.digest) {
            return Err(RegistryError::Known {
                round,
                known,
                version,
            });
        }
        if self.entries.len() >= Self::MOST {
            return Err(RegistryError::Full { most: Self::MOST });
        }
        let id = VersionId(self.entries.len() as u16);
        self.entries.push(Entry {
            version,
            round,
            state: VersionState::Waiting,
        });
        Ok(id)
    }

    /// Number of versions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All versions, in order.
    pub fn ids(&self) -> impl Iterator<Item = VersionId> + use<> {
        (0..self.entries.len() as u16).map(VersionId)
    }

    /// The version with this digest.
    #[must_use]
    pub fn find(&self, digest: Digest) -> Option<VersionId> {
        let found = self
            .entries
            .iter()
            .position(|entry| entry.version.digest == digest)?;
        Some(VersionId(found as u16))
    }

    /// Name and true size of a version; none of one that is not here.
    #[must_use]
    pub fn version(&self, id: VersionId) -> Option<Version> {
        Some(self.entries.get(usize::from(id.0))?.version)
    }

    /// Rounds that a version's model has seen; 0 of one that is not here.
    #[must_use]
    pub fn round(&self, id: VersionId) -> u64 {
        let entry = self.entries.get(usize::from(id.0));
        entry.map_or(0, |entry| entry.round)
    }

    /// What became of a version; [`VersionState::Waiting`] of one that is not here.
    #[must_use]
    pub fn state(&self, id: VersionId) -> VersionState {
        let entry = self.entries.get(usize::from(id.0));
        entry.map_or(VersionState::Waiting, |entry| entry.state)
    }

    pub(super) fn mark(&mut self, id: VersionId, state: VersionState) {
        if let Some(entry) = self.entries.get_mut(usize::from(id.0)) {
            entry.state = state;
        }
    }

    /// Bytes of a version's file, as they count.
    #[must_use]
    pub fn file_bytes(&self, id: VersionId) -> u64 {
        let bytes = self.version(id).map_or(0, |version| version.bytes);
        self.file_bytes.unwrap_or(bytes)
    }

    /// Bytes of the patch between two versions, as they count; none where there is no such patch, or
    /// the whole file is no larger.
    #[must_use]
    pub fn patch_bytes(&self, from: VersionId, to: VersionId) -> Option<u64> {
        let &patch = self.patches.get(&(from, to))?;
        let file = self.version(to)?.bytes;
        let counted = match self.file_bytes {
            // Rounded up: a patch is never counted as smaller than its share.
            Some(counted) => {
                let scaled = u128::from(patch) * u128::from(counted);
                scaled.div_ceil(u128::from(file.max(1))) as u64
            }
            None => patch,
        };
        (patch < file).then_some(counted)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn file(round: u64, seed: u64) -> ServedFile {
        let mut bytes: Vec<u8> = (0..20_000u64)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8)
            .collect();
        // Each version differs from the one before it in a few places.
        for step in 0..seed {
            bytes[(step as usize * 97) % 20_000] ^= 1;
        }
        ServedFile {
            round,
            bytes: Arc::new(bytes),
        }
    }

    #[test]
    fn versions_are_found_by_content_and_patched_from_some_before() {
        let mut registry = Registry::new(2, None);
        let ids: Vec<VersionId> = (0..4)
            .map(|n| registry.publish(file(n * 10, n)).unwrap())
            .collect();
        assert_eq!(registry.len(), 4);
        assert_eq!(registry.round(ids[3]), 30);
        for (n, &id) in ids.iter().enumerate() {
            let version = Version::of(&file(0, n as u64).bytes);
            assert_eq!(registry.version(id), Some(version));
            assert_eq!(registry.find(version.digest), Some(id));
            assert_eq!(registry.file_bytes(id), 20_000);
        }
        // What is offered is what the patches really weigh.
        let weighed = distribution::weigh(&file(20, 2), &file(30, 3)).unwrap();
        assert_eq!(
            registry.patch_bytes(ids[2], ids[3]),
            Some(weighed.patch_bytes)
        );
        assert!(registry.patch_bytes(ids[1], ids[3]).is_some());
        assert_eq!(registry.patch_bytes(ids[0], ids[3]), None, "too old");
        assert_eq!(registry.patch_bytes(ids[3], ids[2]), None, "no way back");
        let error = registry.publish(file(50, 1)).unwrap_err();
        assert!(
            matches!(error, RegistryError::Known { known, .. } if known == ids[1]),
            "{error}"
        );
        assert_eq!(registry.len(), 4);
    }

    #[test]
    fn another_size_keeps_the_measured_share() {
        let version = |n: u64| Version {
            digest: Digest([n as u8; 32]),
            bytes: 30_000,
        };
        let mut registry = Registry::new(1, Some(100_000_000));
        let old = registry.publish_sizes(version(1), 1, &[]).unwrap();
        let patches = [(old, 10_000)];
        let new = registry.publish_sizes(version(2), 2, &patches).unwrap();
        assert_eq!(registry.file_bytes(new), 100_000_000);
        assert_eq!(registry.patch_bytes(old, new), Some(33_333_334));
        // A patch that is no smaller than the file is not used.
        let patches = [(new, 30_000)];
        let newest = registry.publish_sizes(version(3), 3, &patches).unwrap();
        assert_eq!(registry.patch_bytes(new, newest), None);
        assert_eq!(registry.version(VersionId(9)), None);
    }
}
