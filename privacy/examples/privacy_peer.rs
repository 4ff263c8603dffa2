//! The accountants as a process that answers line by line, for `cargo xtask privacy-peers`.
//!
//! `epsilon ACCOUNTANT SIGMA RATE STEPS DELTA` is answered with epsilon, its lower bound and the
//! seconds that it took. Anything else ends the process with an error.
#![expect(clippy::print_stdout, reason = "the answers")]

use std::io::BufRead as _;
use std::time::Instant;

use fl_privacy::{
    AccountantKind, Delta, DpEvent, NeighboringRelation, NoiseMultiplier, accountant,
};

fn answer(line: &str) -> Result<(f64, f64, f64), Box<dyn std::error::Error>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &["epsilon", kind, sigma, rate, steps, delta] = words.as_slice() else {
        return Err(format!("not understood: {line}").into());
    };
    let kind: AccountantKind = kind.parse()?;
    let noise = NoiseMultiplier::new(sigma.parse()?)?;
    let (rate, steps) = (rate.parse()?, steps.parse()?);
    let delta = Delta::new(delta.parse()?)?;
    #[expect(clippy::disallowed_methods, reason = "the time is what is asked for")]
    let start = Instant::now();
    let event = DpEvent::poisson_sampled(rate, DpEvent::gaussian(noise))?;
    let mut sum = accountant(kind, NeighboringRelation::AddOrRemoveOne);
    sum.compose(&event, steps)?;
    let bounds = sum.epsilon(delta)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((bounds.upper.get(), bounds.lower.get(), seconds))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in std::io::stdin().lock().lines() {
        let (epsilon, lower, seconds) = answer(&line?)?;
        println!("{epsilon:e} {lower:e} {seconds:e}");
    }
    Ok(())
}
