//! A thousand random events of every kind against every accountant; `--example random_events` plays
//! ten thousand.

#![expect(clippy::unwrap_used, reason = "a test's helper")]

#[path = "random/mod.rs"]
mod random;

use fl_privacy::AccountantKind;
use fl_privacy::accountant::Fineness;
use random::{case, play_all};

/// Cases of one test: tests run side by side.
const CASES: u64 = 250;
fn play(first: u64) {
    for number in first..first + CASES {
        let case = case(3, number).unwrap();
        for verdict in play_all(
            &case,
            AccountantKind::ALL,
            Fineness::default(),
            |_, play| play(),
        ) {
            assert!(verdict.is_ok(), "case {number}: {verdict:?}: {case:?}");
        }
    }
}

#[test]
fn the_first_quarter_holds() {
    play(0);
}

#[test]
fn the_second_quarter_holds() {
    play(CASES);
}

#[test]
fn the_third_quarter_holds() {
    play(2 * CASES);
}

#[test]
fn the_last_quarter_holds() {
    play(3 * CASES);
}
