//! The command-line program `fledgling`.
fn main() {}
