//! Results through the program: resumed, verified, drawn and compared.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod plot;
mod private;
mod pruning;
mod resume;
mod rollout;
mod secagg;
mod support;
mod verify;
