//! Bad versions on purpose: whole, well-formed files that only a guard on what devices measure can
//! tell from good ones.

use std::sync::Arc;

use fl_edge::file::{ModelFile, write_program};
use fl_edge::{Constants, DType, Program};

use crate::checkpoint::ServedFile;
use crate::error::SimError;

/// The file with the 8-bit weights of every layer in the opposite order: a conversion that took the
/// wrong memory layout. Its checksums are made afterwards, so that it opens, verifies and installs
/// as any other, and predicts nonsense.
///
/// # Errors
/// [`SimError::RolloutFile`] when it is not the file of a program.
pub fn scrambled(file: &ServedFile) -> Result<ServedFile, SimError> {
    let reason = |reason: String| SimError::RolloutFile {
        round: file.round,
        reason,
    };
    let opened = ModelFile::open(Arc::clone(&file.bytes) as _);
    let program = opened.and_then(|file| file.program());
    let program = program.map_err(|source| reason(source.to_string()))?;
    let constants = program.constants();
    let mut bytes = Vec::new();
    let mut sections = constants.sections().to_vec();
    for (index, section) in sections.iter_mut().enumerate() {
        let start = bytes.len();
        let own = constants.bytes(index);
        match section.dtype {
            DType::I8 => bytes.extend(own.iter().rev()),
            _ => bytes.extend_from_slice(own),
        }
        section.range = start..bytes.len();
    }
    let constants = Constants::copied(sections, &bytes);
    let bad = constants.and_then(|constants| {
        let (model, numerics) = (program.model(), program.numerics());
        Program::from_constants(model, constants, numerics, program.passes())
    });
    let bad = bad.map_err(|source| reason(source.to_string()))?;
    let mut bytes = Vec::new();
    write_program(&bad, &mut bytes).map_err(|source| reason(source.to_string()))?;
    Ok(ServedFile {
        round: file.round,
        bytes: Arc::new(bytes),
    })
}
