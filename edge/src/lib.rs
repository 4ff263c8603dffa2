//! Being written.
#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "vector instructions; each block states why it is sound")]
pub mod kernel;
