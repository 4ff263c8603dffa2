//! Whether time tells anything of a secret: `cargo bench -p fl-secagg --bench timing`.
//!
//! A smoke test after Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?" (DATE 2017):
//! operations on one fixed secret and on random ones, in random order; the slowest tenth is left out;
//! Welch's t. A large |t| that grows with the samples says that time depends on the secret; a small
//! one proves nothing. The control leaks on purpose, so that one sees that a leak would be seen.
#![expect(
    clippy::print_stdout,
    reason = "a benchmark reports on its standard output"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

#[path = "timing/dudect.rs"]
mod dudect;

use std::error::Error;

const SAMPLES: usize = 40_000;

fn main() -> Result<(), Box<dyn Error>> {
    for (name, times) in dudect::all(SAMPLES)? {
        println!(
            "{name:24} t {:8.2} at {:7} samples, {:8.2} at {SAMPLES:7}",
            dudect::welch(&times[..SAMPLES / 4]),
            SAMPLES / 4,
            dudect::welch(&times),
        );
    }
    Ok(())
}
