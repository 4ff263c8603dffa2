//! Plays random events against every accountant: `random_events CASES [SEED [FIRST [ACCOUNTANT]]]`,
//! where the last leaves out the other accountants.
//!
//! Each case must hold what `tests/random/mod.rs` says; each that does not is printed whole, and the
//! process ends with an error. Panics count as failures, too.
#![expect(clippy::print_stdout, reason = "the report")]

#[path = "../tests/random/mod.rs"]
mod random;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use fl_privacy::AccountantKind;
use fl_privacy::accountant::Fineness;
use random::{Verdict, case, play_all};

/// Of one accountant.
#[derive(Default)]
struct Tally {
    refused: u64,
    finite: u64,
    infinite: u64,
    failed: u64,
    /// Finite ones that return with a relative error above 1e-5.
    inexact: u64,
    /// The largest such error.
    error: f64,
    /// Seconds of each case that was not refused.
    seconds: Vec<f64>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<u64> = words
        .iter()
        .take(3)
        .map(|word| word.parse())
        .collect::<Result<_, _>>()?;
    let cases = arguments.first().copied().unwrap_or(10_000);
    let seed = arguments.get(1).copied().unwrap_or(1);
    let first = arguments.get(2).copied().unwrap_or(0);
    let kinds: Vec<AccountantKind> = match words.get(3) {
        Some(word) => vec![word.parse()?],
        None => AccountantKind::ALL.to_vec(),
    };
    let mut slowest = Vec::new();
    let mut tallies: Vec<Tally> = kinds.iter().map(|_| Tally::default()).collect();
    for number in first..first + cases {
        let case = case(seed, number)?;
        let mut times = Vec::new();
        let verdicts = play_all(&case, &kinds, Fineness::default(), |kind, play| {
            #[expect(clippy::disallowed_methods, reason = "the time is part of the report")]
            let start = Instant::now();
            let verdict = catch_unwind(AssertUnwindSafe(play))
                .unwrap_or_else(|_| Err(format!("{kind}: a panic")));
            times.push((start.elapsed().as_secs_f64(), kind));
            verdict
        });
        for ((verdict, tally), (seconds, kind)) in verdicts.into_iter().zip(&mut tallies).zip(times)
        {
            match verdict {
                Ok(Verdict::Refused) => {
                    tally.refused += 1;
                    continue;
                }
                Ok(Verdict::Finite { error, .. }) => {
                    tally.finite += 1;
                    tally.inexact += u64::from(error > 1e-5);
                    tally.error = tally.error.max(error);
                }
                Ok(Verdict::Infinite) => tally.infinite += 1,
                Err(why) => {
                    tally.failed += 1;
                    println!("case {number} of seed {seed}, {kind}: {why}");
                    println!("    {case:?}");
                }
            }
            tally.seconds.push(seconds);
            slowest.push((seconds, kind, number));
        }
    }
    println!(
        "accountant  finite  infinite  refused  failed  off 1e-5  largest  median s  99 %     worst    total"
    );
    let mut failed = 0;
    for (kind, tally) in kinds.iter().zip(&mut tallies) {
        tally.seconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (share * tally.seconds.len() as f64) as usize;
            let last = tally.seconds.len().saturating_sub(1);
            tally.seconds.get(place.min(last)).copied().unwrap_or(0.0)
        };
        println!(
            "{kind:10}  {:6}  {:8}  {:7}  {:6}  {:8}  {:7.1e}  {:8.5}  {:7.4}  {:7.3}  {:7.2}",
            tally.finite,
            tally.infinite,
            tally.refused,
            tally.failed,
            tally.inexact,
            tally.error,
            at(0.5),
            at(0.99),
            at(1.0),
            tally.seconds.iter().sum::<f64>(),
        );
        failed += tally.failed;
    }
    slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (seconds, kind, number) in slowest.iter().take(5) {
        println!("slow: case {number}, {kind}, {seconds:.3} s");
    }
    if failed > 0 {
        return Err(format!("{failed} of {cases} cases do not hold").into());
    }
    Ok(())
}
