//! The edge runtime for an app: a C interface to [`fl_edge`].
//!
//! `include/fledgling.h` is the interface, `examples/device.c` a whole program that loads a model,
//! infers, trains one step and reads the update. `cargo xtask embed-library` builds the library small,
//! tells its size, compiles that program with the C compiler at hand and compares what it prints with
//! what Rust computes.
//!
//! The library starts no thread, opens no file, reads no clock and keeps nothing outside of the
//! objects that it returns. An object may be moved between threads, and be used by one at a time. A
//! model's bytes stay where the app has them, in flash memory or in a map: weights are read there.
//!
//! Built for apps it does without the standard library (no feature `std`; see `README.md` beside this
//! crate, also for its size); tests and Rust programs have it.
//!
//! Whatever is wrong with an argument or a file is an error with a message. What C cannot say is
//! left to the caller: a pointer must lead to as many numbers as its length says.
#![deny(unsafe_code)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[expect(unsafe_code, reason = "pointers from C, and functions with names of C")]
pub mod ffi;
#[cfg(not(any(feature = "std", test)))]
#[expect(unsafe_code, reason = "memory and the end of the process are C's")]
mod host;
#[cfg(feature = "train")]
mod learner;
mod server;

#[cfg(feature = "train")]
pub use learner::{Learner, Plan};
pub use server::Server;

/// Why the library refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// A pointer is null that must not be.
    #[error("{what} is a null pointer")]
    Null {
        /// Which.
        what: &'static str,
    },
    /// The bytes are no model file, or not one of the kind needed.
    #[cfg(feature = "describe")]
    #[error("the model file: {0}")]
    File(#[from] fl_edge::file::FileError),
    /// The bytes are no model file, or one without compiled steps.
    #[cfg(not(feature = "describe"))]
    #[error("the model file: {0}")]
    File(#[from] fl_edge::StepsError),
    /// The model cannot be served.
    #[cfg(feature = "describe")]
    #[error("the model: {0}")]
    Program(#[from] fl_edge::ProgramError),
    /// A number of values that does not fit the model.
    #[error("{what}: {found} values where the model has {expected}")]
    Length {
        /// Of what.
        what: &'static str,
        /// What was given.
        found: usize,
        /// What was expected.
        expected: usize,
    },
    /// The model takes the other kind of inputs.
    #[error("the model takes {takes}, and the other was given; see `fl_model_takes_tokens`")]
    Inputs {
        /// What it takes.
        takes: &'static str,
    },
    /// A token outside the vocabulary.
    #[error("token {token} is outside of the vocabulary of {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// How many there are.
        vocabulary: usize,
    },
    /// A label or token that the model does not know.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Example(#[from] fl_edge::BadExample),
    /// A plan that nothing can be learned by.
    #[cfg(feature = "train")]
    #[error("{key} is {found}; expected {expected}")]
    Plan {
        /// Which number of the plan.
        key: &'static str,
        /// What it is.
        found: f32,
        /// What it may be.
        expected: &'static str,
    },
    /// Something is asked in the wrong order.
    #[cfg(feature = "train")]
    #[error("no training has begun; call `fl_trainer_begin` first")]
    NotBegun,
    /// The model is not trained on classes.
    #[cfg(feature = "train")]
    #[error("the model learns numbers, and labels of classes were given")]
    NoClasses,
}
