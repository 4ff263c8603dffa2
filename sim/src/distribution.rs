//! How a new model reaches devices that have an older one.

use std::collections::BTreeMap;
use std::sync::Arc;

use fl_edge::SharedBytes;
use fl_edge::file::{Dtype, FileError, ModelFile, TensorInfo};
use fl_versions::{Patch, PatchError, Region, Width};

use crate::checkpoint::ServedFile;
use crate::record::PatchRecord;

/// The patch that leads from one version to another. Of two model files, each tensor is set against
/// the one of the same name, type and size, number by number; of other files, both ends are laid
/// together.
///
/// # Errors
/// [`PatchError`].
pub fn patch(old: &SharedBytes, new: &SharedBytes) -> Result<Vec<u8>, PatchError> {
    let files = (
        ModelFile::open(Arc::clone(old)),
        ModelFile::open(Arc::clone(new)),
    );
    let (old, new) = ((**old).as_ref(), (**new).as_ref());
    let regions = match files {
        (Ok(old), Ok(new)) => regions(&old, &new),
        _ => vec![Region::ends(old.len(), new.len())],
    };
    Patch::make(old, new, &regions)
}

/// What a device downloads that has the older version, beside the whole newer file. The patch is
/// applied, and gives that file.
///
/// # Errors
/// [`PatchError`].
pub(crate) fn weigh(old: &ServedFile, new: &ServedFile) -> Result<PatchRecord, PatchError> {
    let (before, after): (SharedBytes, SharedBytes) = (old.bytes.clone(), new.bytes.clone());
    let patch = patch(&before, &after)?;
    Patch::open(&patch)?.apply(&old.bytes, &mut std::io::sink())?;
    Ok(PatchRecord {
        from_round: old.round,
        file_bytes: new.bytes.len() as u64,
        patch_bytes: patch.len() as u64,
    })
}

/// Whether a version is a model that this program can open, every byte as it was written: what a
/// device asks before it installs one.
///
/// # Errors
/// [`FileError`].
pub fn check_model(bytes: &[u8]) -> Result<(), FileError> {
    ModelFile::open(Arc::new(bytes.to_vec()))?.verify()
}

/// The tensors that both files have, where they lie in them.
fn regions(old: &ModelFile, new: &ModelFile) -> Vec<Region> {
    fn key(tensor: &TensorInfo) -> (&str, &'static str, usize) {
        (&tensor.name, tensor.dtype.name(), tensor.range.len())
    }
    let places: BTreeMap<_, _> = (old.tensors().iter())
        .map(|tensor| (key(tensor), old.place(tensor)))
        .collect();
    let pair = |tensor: &TensorInfo| {
        Some(Region {
            old: places.get(&key(tensor))?.clone(),
            new: new.place(tensor),
            width: width(tensor.dtype),
        })
    };
    let headers = [old, new].map(|file| 0..file.data_start());
    let [old_header, new_header] = headers;
    // Headers of one length differ in their checksums alone.
    let header = (old_header == new_header).then(|| Region::bytes(old_header, new_header));
    let tensors = new.tensors().iter().filter_map(pair);
    header.into_iter().chain(tensors).collect()
}

fn width(dtype: Dtype) -> Width {
    match dtype.bytes() {
        2 => Width::Half,
        4 => Width::Word,
        // Of eight bytes, too: no model has many of those.
        _ => Width::Byte,
    }
}
