//! How fast noise is made, beside the generator that it is made from: `cargo bench -p fl-privacy
//! --bench noise`. Least and median times of interleaved runs, one thread.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use fl_core::{ClientId, Purpose, RoundId, Seed, Stream};
use fl_privacy::clip::{Clipper as _, FlatClip};
use fl_privacy::distributed::{DistributedConfig, DistributedDp, DistributedNoise, Rotation};
use fl_privacy::matrix::{
    BandedToeplitz, Blt, CorrelatedNoise, Factorization, Participation, TreeAggregation,
    TreeEstimator,
};
use fl_privacy::mechanism::{
    DiscreteGaussian, ExactDiscreteGaussian, IntegerNoise, Skellam, gaussian, laplace,
};
use rand_core::Rng as _;

const LEN: usize = 1 << 20;
const RUNS: usize = 15;

/// A name and what is timed.
type Case = (&'static str, Box<dyn FnMut(&mut Stream)>);

fn main() {
    let mut floats = vec![0.0f32; LEN];
    let mut bytes = vec![0u8; 4 * LEN];
    let mut integers = vec![0i64; LEN];
    let small = DiscreteGaussian::new(10.0).expect("in range");
    let medium = DiscreteGaussian::new(1000.0).expect("in range");
    let large = DiscreteGaussian::new(100_000.0).expect("in range");
    let exact = ExactDiscreteGaussian::new(1000.0).expect("in range");
    let skellam = Skellam::new(1e6).expect("in range");
    let mut cases: Vec<Case> = vec![
        (
            "the generator, 4 bytes",
            Box::new(move |s| s.fill_bytes(black_box(&mut bytes))),
        ),
        ("Stream::normal", {
            let mut floats = floats.clone();
            Box::new(move |s| {
                black_box(&mut floats)
                    .iter_mut()
                    .for_each(|x| *x = s.normal() as f32)
            })
        }),
        ("laplace::fill", {
            let mut floats = floats.clone();
            Box::new(move |s| laplace::fill(s, 1.0, black_box(&mut floats)))
        }),
        (
            "gaussian::fill",
            Box::new(move |s| gaussian::fill(s, 1.0, black_box(&mut floats))),
        ),
    ];
    let noises: [(&str, Box<dyn IntegerNoise>); 5] = [
        ("DiscreteGaussian 10", Box::new(small)),
        ("DiscreteGaussian 1000", Box::new(medium)),
        ("DiscreteGaussian 100000", Box::new(large)),
        ("Skellam 1000^2", Box::new(skellam)),
        ("ExactDiscreteGaussian 1000", Box::new(exact)),
    ];
    for (name, noise) in noises {
        let mut integers = integers.clone();
        cases.push((
            name,
            Box::new(move |s| noise.add(s, black_box(&mut integers))),
        ));
    }
    integers.clear();
    let flat = FlatClip::new(1.0).expect("in range");
    let update = vec![0.01f32; LEN];
    let mut clipped = update.clone();
    cases.push((
        "clip to an L2 norm",
        Box::new(move |_| {
            clipped.copy_from_slice(&update);
            flat.clip(black_box(&mut clipped));
        }),
    ));
    let rotation = Rotation::new(&mut stream(0), LEN);
    let mut values = vec![1.0f64; LEN];
    cases.push(("rotate", {
        let rotation = rotation.clone();
        Box::new(move |_| rotation.forward(black_box(&mut values)))
    }));
    for (name, noise) in [
        ("encode, Skellam", DistributedNoise::Skellam),
        (
            "encode, discrete Gaussian",
            DistributedNoise::DiscreteGaussian,
        ),
    ] {
        let plan = DistributedDp::new(DistributedConfig {
            dimension: LEN,
            max_norm: 1.0,
            noise_multiplier: 1.0.try_into().expect("in range"),
            noise,
            bits: 20,
            clients: 100,
            threshold: 70,
            rounding_bias: DistributedConfig::DEFAULT_ROUNDING_BIAS,
            wrap_limit: DistributedConfig::DEFAULT_WRAP_LIMIT,
        })
        .expect("in range");
        let rotation = rotation.clone();
        let mut update = vec![0.01f32; LEN];
        let mut out = Vec::new();
        cases.push((
            name,
            Box::new(move |s| {
                let encoded = plan.encode(&mut update, &rotation, &mut stream(1), s, &mut out);
                black_box(encoded.expect("lengths agree"));
            }),
        ));
    }
    for (name, matrix) in [
        ("correlated, 4 buffers", {
            let participation = Participation::once(1000).expect("in range");
            Factorization::Blt(Blt::optimized(4, &participation).expect("in range"))
        }),
        (
            "correlated, 16 bands",
            Factorization::Banded(BandedToeplitz::square_root(16).expect("in range")),
        ),
        (
            "correlated, trees",
            Factorization::Tree(
                TreeAggregation::new(1024, TreeEstimator::Honaker).expect("in range"),
            ),
        ),
    ] {
        let mut noise = CorrelatedNoise::new(matrix, 1.0, LEN).expect("in range");
        let mut out = vec![0.0f32; LEN];
        cases.push((
            name,
            Box::new(move |s| noise.next(s, black_box(&mut out)).expect("lengths agree")),
        ));
    }
    let mut times = vec![Vec::new(); cases.len()];
    for run in 0..RUNS {
        for ((_, case), times) in cases.iter_mut().zip(&mut times) {
            let mut stream =
                Stream::at(Purpose::Testing, Seed(run as u64), RoundId(0), ClientId(0));
            let start = Instant::now();
            case(&mut stream);
            times.push(start.elapsed().as_secs_f64());
        }
    }
    println!("{LEN} values, {RUNS} runs, one thread: least and median");
    for ((name, _), times) in cases.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let [least, median] = [0, RUNS / 2].map(|rank| times[rank] / LEN as f64 * 1e9);
        println!(
            "{name:28} {least:8.2} {median:8.2} ns/value, at best {:7.1} million values/s",
            1e3 / least
        );
    }
}

fn stream(seed: u64) -> Stream {
    Stream::at(Purpose::Testing, Seed(seed), RoundId(0), ClientId(0))
}
