//! What CI does.
fn main() {}
