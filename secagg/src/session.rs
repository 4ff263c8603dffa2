//! What a session is about, in 32 bytes.

use sha2::{Digest, Sha256};

use crate::params::Params;

/// The version of the protocol.
pub const PROTOCOL_VERSION: u16 = 1;

/// What the vectors of a session are updates of. Parties that do not agree on it cannot aggregate:
/// their keys differ, so that their masks do not cancel (Pasquini, Francati and Ateniese, "Eluding
/// Secure Aggregation in Federated Learning via Model Inconsistency", CCS 2022, is why the model is
/// here).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// A digest of the task: its name, its owner and its rules.
    pub task: [u8; 32],
    /// The round of the task.
    pub round: u64,
    /// SHA-256 of the global model as the client holds it; a client computes it itself.
    pub model: [u8; 32],
}

/// The identity of a session: a digest of version, parameters, [`Context`] and signing keys. It is in
/// every message and every derived key. Each party computes it for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub(crate) [u8; 32]);

impl SessionId {
    /// The identity of the session with `params` in `context`; `directory` is the digest of the
    /// signing keys under [`crate::Threat::Active`] and 0 otherwise.
    pub(crate) fn new(params: &Params, context: &Context, directory: [u8; 32]) -> Self {
        Self(digest(
            b"session",
            &[
                &PROTOCOL_VERSION.to_le_bytes(),
                &params.to_bytes(),
                &context.task,
                &context.round.to_le_bytes(),
                &context.model,
                &directory,
            ],
        ))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// SHA-256 of a label and of parts whose lengths are fixed by the label, or of which only the last
/// is of variable length.
pub(crate) fn digest(label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"fledgling-secagg/1 ");
    hash.update(label);
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}
