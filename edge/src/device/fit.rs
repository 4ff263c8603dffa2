//! Rates from measured times.
//!
//! A delegate's bandwidths, its launch overhead and, for each precision, its rates for convolutions
//! by Winograd's algorithm (where it has them), other convolutions and depthwise convolutions, and
//! what outputs and gathered numbers cost beside (where those are not left out), are chosen so that the sum of
//! `ln(modelled / measured)^2` over the samples is least, with a weak pull towards the start: the
//! rates of a precision may move together for nothing, and apart from one another, or from the
//! start's bandwidth and launch, at a price. So few samples suffice, and what they say nothing about
//! stays where it started. A fully connected layer gets the rate of a convolution, which is the
//! same product. The search is a pattern search (Hooke & Jeeves 1961) in logarithms: no randomness,
//! and the same result everywhere.

use alloc::vec;
use alloc::vec::Vec;

use super::cost::{Sparsity, Threads, operator};
use super::profile::{Delegate, Precision, Rates};
use super::work::Work;

/// A measured time.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// What was computed.
    pub work: &'a Work,
    /// In what numbers.
    pub precision: Precision,
    /// Examples at once.
    pub batch: u32,
    /// Threads.
    pub threads: Threads,
    /// Seconds, above 0.
    pub seconds: f64,
}

/// Price of moving one rate away from the others of its precision, for each squared nat.
const SHAPE: f64 = 0.01;
/// Price of moving bandwidths, launch or setup away from the start, for each squared nat.
const START: f64 = 0.02;
/// Steps of the search in nats: the first, and the last that is tried.
const STEPS: (f64, f64) = (0.5, 1e-4);

/// Seconds of `work` on one delegate alone; none where it has no rates in the precision.
#[must_use]
pub fn seconds(delegate: &Delegate, sample: &Sample<'_>) -> Option<f64> {
    let batch = f64::from(sample.batch);
    let mut sum = 0.0;
    for op in &sample.work.ops {
        let (precision, threads) = (sample.precision, sample.threads);
        sum += operator(op, delegate, precision, batch, threads, Sparsity::Dense)?.0;
    }
    Some(sum)
}

/// The rates in a precision, to be changed.
pub(super) fn rates_mut(delegate: &mut Delegate, precision: Precision) -> Option<&mut Rates> {
    match precision {
        Precision::F32 => delegate.f32.as_mut(),
        Precision::F16 => delegate.f16.as_mut(),
        Precision::Int8 => delegate.int8.as_mut(),
        Precision::Int4 => delegate.int4.as_mut(),
    }
}

/// Moves of a precision: three rates, what an output costs, what a number of a window does, and the
/// rate of what is no product.
const MOVES: usize = 6;

/// Moves that no precision has: bandwidth, the cache's, launch.
const COMMON: usize = 3;

/// The delegate with `moves` applied: [`COMMON`] ones, then [`MOVES`] for each precision.
fn moved(start: &Delegate, precisions: &[Precision], moves: &[f64]) -> Delegate {
    let mut delegate = start.clone();
    delegate.bandwidth.value *= libm::exp(moves[0]);
    delegate.launch.value *= libm::exp(moves[1]);
    if let Some(cache) = &mut delegate.cache {
        cache.bandwidth.value *= libm::exp(moves[2]);
    }
    for (&precision, moves) in precisions.iter().zip(moves[COMMON..].chunks(MOVES)) {
        if let Some(rates) = rates_mut(&mut delegate, precision) {
            if let Some(winograd) = &mut rates.winograd {
                winograd.value *= libm::exp(moves[0]);
            }
            rates.conv.value *= libm::exp(moves[1]);
            rates.depthwise.value *= libm::exp(moves[2]);
            rates.dense.value = rates.conv.value;
            if let Some(setup) = &mut rates.setup {
                setup.value *= libm::exp(moves[3]);
            }
            if let Some(gather) = &mut rates.gather {
                gather.value *= libm::exp(moves[4]);
            }
            if let Some(rate) = &mut rates.elementwise {
                rate.value *= libm::exp(moves[5]);
            }
        }
    }
    delegate
}

fn price(start: &Delegate, precisions: &[Precision], moves: &[f64], samples: &[Sample<'_>]) -> f64 {
    let delegate = moved(start, precisions, moves);
    let mut sum = START * moves[..COMMON].iter().map(|m| m * m).sum::<f64>();
    for (&precision, moves) in precisions.iter().zip(moves[COMMON..].chunks(MOVES)) {
        let has_winograd = delegate
            .rates(precision)
            .is_some_and(|(rates, _)| rates.winograd.is_some());
        let shape = &moves[usize::from(!has_winograd)..3];
        let mean = shape.iter().sum::<f64>() / shape.len() as f64;
        sum += SHAPE * shape.iter().map(|m| (m - mean) * (m - mean)).sum::<f64>();
        sum += START * moves[3..].iter().map(|m| m * m).sum::<f64>();
    }
    for sample in samples {
        if let Some(modelled) = seconds(&delegate, sample) {
            let error = libm::log(modelled / sample.seconds);
            sum += error * error;
        }
    }
    sum
}

/// `start` with the bandwidth, launch overhead and rates that fit the samples, rounded to four
/// digits. Rates in precisions without samples, and figures that times say nothing about, stay.
/// Every figure that was fitted names `source`.
#[must_use]
pub fn fit(start: &Delegate, samples: &[Sample<'_>], source: &str) -> Delegate {
    let sampled = |precision: &Precision| {
        samples
            .iter()
            .any(|sample| sample.precision == *precision && sample.seconds > 0.0)
    };
    let precisions: Vec<Precision> = (Precision::ALL.into_iter())
        .filter(|precision| {
            sampled(precision) && rates_mut(&mut start.clone(), *precision).is_some()
        })
        .collect();
    if precisions.is_empty() {
        return start.clone();
    }
    let count = COMMON + MOVES * precisions.len();
    // Each number alone, and the rates of a precision together.
    let mut directions: Vec<Vec<usize>> = (0..count).map(|at| vec![at]).collect();
    for precision in 0..precisions.len() {
        let first = COMMON + MOVES * precision;
        directions.push(vec![first, first + 1, first + 2]);
    }
    let mut moves = vec![0.0; count];
    let mut best = price(start, &precisions, &moves, samples);
    let mut step = STEPS.0;
    while step >= STEPS.1 {
        let mut better = false;
        for direction in &directions {
            for sign in [1.0, -1.0] {
                let mut tried = moves.clone();
                for &at in direction {
                    tried[at] += sign * step;
                }
                let found = price(start, &precisions, &tried, samples);
                if found < best {
                    (best, moves, better) = (found, tried, true);
                    break;
                }
            }
        }
        if !better {
            step /= 2.0;
        }
    }
    let mut fitted = moved(start, &precisions, &moves);
    let name = |figure: &mut super::profile::Figure| {
        figure.value = rounded(figure.value);
        source.clone_into(&mut figure.source);
    };
    name(&mut fitted.bandwidth);
    name(&mut fitted.launch);
    if let Some(cache) = &mut fitted.cache {
        name(&mut cache.bandwidth);
    }
    for &precision in &precisions {
        if let Some(rates) = rates_mut(&mut fitted, precision) {
            for figure in [&mut rates.conv, &mut rates.depthwise, &mut rates.dense] {
                name(figure);
            }
            rates.winograd.as_mut().map(name);
            for figure in [&mut rates.setup, &mut rates.gather, &mut rates.elementwise] {
                figure.as_mut().map(name);
            }
        }
    }
    fitted
}

/// Four significant digits.
fn rounded(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return value;
    }
    let digits = libm::floor(libm::log10(value)) - 3.0;
    let unit = libm::pow(10.0, digits.abs());
    match digits < 0.0 {
        true => libm::round(value * unit) / unit,
        false => libm::round(value / unit) * unit,
    }
}
