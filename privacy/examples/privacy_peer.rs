//! The accountants as a process that answers line by line, for `cargo xtask privacy-peers`.
//!
//! - `epsilon ACCOUNTANT SIGMA RATE STEPS DELTA` is answered with epsilon, its lower bound and the
//!   seconds that it took;
//! - `calibrate PARAMETER EPSILON DELTA SIGMA RATE STEPS`, with `noise`, `rate`, `steps` (at most a
//!   million) or `cohort` (of ten thousand) in place of the parameter, whose own number is not read,
//!   with its value, the epsilon that it costs and the seconds; with `nan inf` and the seconds where
//!   nothing meets the target.
//!
//! Anything else ends the process with an error.
#![expect(clippy::print_stdout, reason = "the answers")]

use std::io::BufRead as _;
use std::time::Instant;

use fl_privacy::{
    AccountantKind, Delta, DpEvent, Epsilon, NeighboringRelation, NoiseMultiplier, PrivacyError,
    Target, accountant,
};

type Answer = Result<(f64, f64, f64), Box<dyn std::error::Error>>;

fn sampled(noise: f64, rate: f64) -> Result<DpEvent, PrivacyError> {
    DpEvent::poisson_sampled(rate, DpEvent::gaussian(NoiseMultiplier::new(noise)?))
}

fn epsilon(kind: &str, [sigma, rate, steps, delta]: [&str; 4]) -> Answer {
    let kind: AccountantKind = kind.parse()?;
    let (sigma, rate, steps) = (sigma.parse()?, rate.parse()?, steps.parse()?);
    let delta = Delta::new(delta.parse()?)?;
    #[expect(clippy::disallowed_methods, reason = "the time is what is asked for")]
    let start = Instant::now();
    let mut sum = accountant(kind, NeighboringRelation::AddOrRemoveOne);
    sum.compose(&sampled(sigma, rate)?, steps)?;
    let bounds = sum.epsilon(delta)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((bounds.upper.get(), bounds.lower.get(), seconds))
}

fn calibrate(parameter: &str, [epsilon, delta, sigma, rate, steps]: [&str; 5]) -> Answer {
    const POPULATION: u64 = 10_000;
    let target = Target {
        epsilon: Epsilon::new(epsilon.parse()?)?,
        delta: Delta::new(delta.parse()?)?,
        accountant: AccountantKind::Pld,
        relation: NeighboringRelation::AddOrRemoveOne,
    };
    let (sigma, rate): (f64, f64) = (sigma.parse()?, rate.parse()?);
    let steps: u64 = steps.parse()?;
    #[expect(clippy::disallowed_methods, reason = "the time is what is asked for")]
    let start = Instant::now();
    let found = match parameter {
        "noise" => target
            .noise_multiplier(steps, |noise| sampled(noise.get(), rate))
            .map(|found| (found.value.get(), found.epsilon)),
        "rate" => target
            .sampling_rate(steps, |rate| sampled(sigma, rate))
            .map(|found| (found.value, found.epsilon)),
        "steps" => target
            .steps(&sampled(sigma, rate)?, 1_000_000)
            .map(|found| (found.value as f64, found.epsilon)),
        "cohort" => target
            .cohort(steps, POPULATION, |cohort| {
                sampled(sigma, cohort as f64 / POPULATION as f64)
            })
            .map(|found| (found.value as f64, found.epsilon)),
        other => return Err(format!("no such parameter: {other}").into()),
    };
    let seconds = start.elapsed().as_secs_f64();
    match found {
        Ok((value, epsilon)) => Ok((value, epsilon.upper.get(), seconds)),
        Err(PrivacyError::Unreachable { .. }) => Ok((f64::NAN, f64::INFINITY, seconds)),
        Err(other) => Err(other.into()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (first, second, seconds) = match words.as_slice() {
            ["epsilon", kind, rest @ ..] if rest.len() == 4 => {
                epsilon(kind, [rest[0], rest[1], rest[2], rest[3]])?
            }
            ["calibrate", parameter, rest @ ..] if rest.len() == 5 => {
                calibrate(parameter, [rest[0], rest[1], rest[2], rest[3], rest[4]])?
            }
            _ => return Err(format!("not understood: {line}").into()),
        };
        println!("{first:e} {second:e} {seconds:e}");
    }
    Ok(())
}
