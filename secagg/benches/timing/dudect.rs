//! Times of operations on secrets of two classes, and Welch's t of them, after Reparaz, Balasch and
//! Verbauwhede, "Dude, is my code constant time?" (DATE 2017).

use std::hint::black_box;
use std::time::Instant;

use chacha20::ChaCha20Rng;
use fl_secagg::bench::Timed;
use rand_core::{Rng, SeedableRng};

/// Welch's t of two classes of times, without the slowest tenth of both together.
pub(crate) fn welch(times: &[(bool, f64)]) -> f64 {
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    let limit = sorted[sorted.len() * 9 / 10];
    let class = |fixed: bool| {
        let kept: Vec<f64> = times
            .iter()
            .filter(|(class, time)| *class == fixed && *time <= limit)
            .map(|(_, time)| *time)
            .collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((a, va), (b, vb)) = (class(true), class(false));
    (a - b) / (va + vb).sqrt()
}

/// Times an operation on secrets of both classes, prepared beforehand: a fixed one, and random ones.
fn times<S>(
    samples: usize,
    rng: &mut ChaCha20Rng,
    mut prepare: impl FnMut(&[u8; 32], &mut ChaCha20Rng) -> S,
    operation: impl Fn(&S),
) -> Times {
    // Both classes are canonical scalars; the fixed one has as few bits as can be.
    let mut fixed = [0; 32];
    fixed[0] = 1;
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        secret[31] &= 0x0f;
        let class = rng.next_u32() & 1 == 0;
        if class {
            secret = fixed;
        }
        let prepared = prepare(&secret, rng);
        let start = Instant::now();
        operation(black_box(&prepared));
        times.push((class, start.elapsed().as_secs_f64()));
    }
    times
}

/// Whether a secret was the fixed one, and seconds.
pub(crate) type Times = Vec<(bool, f64)>;

/// Every operation under test, by name; the last is the control, which leaks on purpose.
pub(crate) fn all(samples: usize) -> Result<Vec<(&'static str, Times)>, String> {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let timed = Timed::new(12, &mut rng)?;
    let split = times(
        samples,
        &mut rng,
        |secret, _| *secret,
        // The same generator for all, so that rejection does not differ.
        |secret| {
            let mut rng = ChaCha20Rng::seed_from_u64(2);
            drop(black_box(timed.split(secret, &mut rng)));
        },
    );
    let combine = times(
        samples,
        &mut rng,
        |secret, rng| timed.split(secret, rng),
        |dealt| {
            if let Ok(dealt) = dealt {
                black_box(timed.combine(dealt));
            }
        },
    );
    let agree = times(
        samples,
        &mut rng,
        |secret, _| *secret,
        |secret| {
            black_box(timed.agree(secret));
        },
    );
    let control = times(
        samples,
        &mut rng,
        |secret, _| *secret,
        |secret| {
            let ones: u32 = secret.iter().map(|byte| byte.count_ones()).sum();
            for round in 0..8 * ones {
                black_box(round);
            }
        },
    );
    Ok(vec![
        ("split", split),
        ("combine", combine),
        ("key agreement", agree),
        ("control, which leaks", control),
    ])
}
