//! How fast updates are summed: `cargo bench -p fl-core --bench absorb`.
//!
//! Prints, for a large and a small model, values per second of [`ExactSum::absorb`], beside a plain
//! `f64` sum of `weight * value` over the same memory as a yardstick.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use fl_core::{
    Aggregator, ClientId, ExactSum, Purpose, RingPlan, RoundId, Seed, Stream, Weight, WeightBounds,
};

fn main() {
    println!(
        "{:>12} {:>9} {:>14} {:>14}",
        "parameters", "updates", "exact, G/s", "f64 sum, G/s"
    );
    for (len, updates) in [(610, 10_000), (199_210, 200), (1_663_370, 20)] {
        let bounds = WeightBounds::new(Weight(600), 100_000);
        let plan = RingPlan::for_weights(bounds).expect("small weights fit");
        let mut random = Stream::at(Purpose::Testing, Seed(1), RoundId(0), ClientId(0));
        let mut update = || (0..len).map(|_| random.normal() as f32 / 100.0).collect();
        let pool: Vec<Vec<f32>> = (0..4).map(|_| update()).collect();
        let values = (len * updates) as f64;

        let mut sum = ExactSum::new(plan, len);
        let exact = best_of(7, || {
            sum.reset();
            for update in pool.iter().cycle().take(updates) {
                sum.absorb(black_box(update), Weight(600))
                    .expect("the weights keep to the plan");
            }
            black_box(sum.values());
        });

        let mut plain = vec![0f64; len];
        let float = best_of(7, || {
            plain.fill(0.0);
            for update in pool.iter().cycle().take(updates) {
                for (sum, &value) in plain.iter_mut().zip(black_box(update)) {
                    *sum += 600.0 * f64::from(value);
                }
            }
            black_box(&plain);
        });
        println!(
            "{len:>12} {updates:>9} {:>14.2} {:>14.2}",
            values / exact.as_secs_f64() / 1e9,
            values / float.as_secs_f64() / 1e9,
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures; no simulated decision sees the clock"
)]
fn best_of(times: u32, mut work: impl FnMut()) -> Duration {
    let runs = (0..times).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    runs.min().unwrap_or_default()
}
