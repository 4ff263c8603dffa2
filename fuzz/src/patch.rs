//! Patches between two versions.

use fl_versions::{Digest, Patch, PatchError, Region, Version, Width};

/// Bytes of a version.
const LENGTH: usize = 2000;
/// Of a patch: in front of its versions, and of its checksum.
const FRONT: usize = 12;
const CHECKSUM: usize = 32;

/// The version that all patches lead from.
#[must_use]
pub fn old() -> Vec<u8> {
    (0..LENGTH).map(|i| (i * i / 7 % 251) as u8).collect()
}

/// Patches that lead from it, with their names.
///
/// # Errors
/// [`PatchError`].
pub fn seeds() -> Result<Vec<(&'static str, Vec<u8>)>, PatchError> {
    let old = old();
    let moved: Vec<u8> = old
        .iter()
        .enumerate()
        .map(|(i, &byte)| byte.wrapping_add(u8::from(i % 11 == 0)))
        .collect();
    let longer = [b"a new header", &old[..]].concat();
    let region = |width| Region {
        width,
        ..Region::bytes(0..LENGTH, 0..LENGTH)
    };
    Ok(vec![
        ("same", Patch::make(&old, &old, &[region(Width::Byte)])?),
        ("bytes", Patch::make(&old, &moved, &[region(Width::Byte)])?),
        ("halves", Patch::make(&old, &moved, &[region(Width::Half)])?),
        ("words", Patch::make(&old, &moved, &[region(Width::Word)])?),
        (
            "longer",
            Patch::make(&old, &longer, &[Region::ends(old.len(), longer.len())])?,
        ),
        ("literal", Patch::make(&old, b"all new", &[])?),
    ])
}

/// The same patch as one of [`old`], with its checksum made right: it keeps out no enemy.
#[must_use]
pub fn repaired(patch: &[u8]) -> Option<Vec<u8>> {
    let mut patch = patch.get(..patch.len().checked_sub(CHECKSUM)?)?.to_vec();
    let Version { digest, bytes } = Version::of(&old());
    patch
        .get_mut(FRONT..FRONT + 8)?
        .copy_from_slice(&bytes.to_le_bytes());
    patch
        .get_mut(FRONT + 8..FRONT + 40)?
        .copy_from_slice(&digest.0);
    let checksum = Digest::of(&patch);
    patch.extend(checksum.0);
    Some(patch)
}

/// The target: the bytes as they are, and repaired.
pub(crate) fn run(bytes: &[u8]) {
    let old = old();
    for bytes in [Some(bytes.to_vec()), repaired(bytes)]
        .into_iter()
        .flatten()
    {
        if let Ok(patch) = Patch::open(&bytes) {
            let mut out = Bounded(1 << 22);
            drop(patch.apply(&old, &mut out));
        }
    }
}

/// A disk that is soon full: what a patch announces is for its caller to compare with what there is.
struct Bounded(usize);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
