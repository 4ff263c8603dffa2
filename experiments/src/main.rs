//! The command-line program `fledgling`.
#![forbid(unsafe_code)]
fn main() {}
