//! Results through the program: resumed, verified, drawn and compared.
#![forbid(unsafe_code)]

mod plot;
mod resume;
mod support;
mod verify;
