//! Seconds and joules of some work on a device. All of it is modelled.

use alloc::vec::Vec;

use serde::Serialize;

use super::delegate::{Assignment, Choice, Coverage};
use super::profile::{Delegate, DelegateKind, DeviceProfile, Figure, Precision, Rates};
use super::work::{Kind, OpWork, Phase, Work};

/// How many threads of the CPU work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Threads {
    /// One, as a program in the background has.
    One,
    /// As many as the profile's figures are for.
    #[default]
    All,
}

/// Zeros among the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sparsity {
    /// None that matter.
    #[default]
    Dense,
    /// Zeros anywhere. No hardware here profits: time is that of a dense model.
    Unstructured,
    /// Two zeros in every four weights: twice the rate where the delegate knows them.
    TwoOfFour,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request<'a> {
    /// The numbers.
    pub precision: Precision,
    /// Examples at once, at least 1.
    pub batch: u32,
    /// Threads of the CPU.
    pub threads: Threads,
    /// Zeros.
    pub sparsity: Sparsity,
    /// Delegates that are missing or failed.
    pub lost: &'a [DelegateKind],
    /// Whether a delegate is left out when the model says that it would be slower than the CPU.
    pub avoid_slower: bool,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            batch: 1,
            threads: Threads::All,
            sparsity: Sparsity::Dense,
            lost: &[],
            avoid_slower: false,
        }
    }
}

/// What an operator waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Bytes.
    Memory,
    /// Being started.
    Launch,
}

/// The cost of one operator, for the batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OpEstimate {
    /// Where it runs.
    pub delegate: DelegateKind,
    /// Bytes that it moves.
    pub bytes: f64,
    /// Seconds.
    pub seconds: f64,
    /// Joules.
    pub joules: f64,
    /// What takes the most of it.
    pub bound: Bound,
}

/// The modelled cost of some work.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// How the graph is run.
    pub choice: Choice,
    /// What the NPU covers, where there is one.
    pub npu: Option<Coverage>,
    /// What the GPU covers, where there is one.
    pub gpu: Option<Coverage>,
    /// Each operator of the work.
    pub ops: Vec<OpEstimate>,
    /// Values that change sides.
    pub borders: usize,
    /// Seconds for them; part of `seconds`.
    pub border_seconds: f64,
    /// Seconds of the work for the batch, on a cool device, without jitter.
    pub seconds: f64,
    /// Joules of the work for the batch, beyond the idle device.
    pub joules: f64,
    /// Seconds once, before the first batch.
    pub start_up_seconds: f64,
}

impl Estimate {
    /// Mean power of the work in watts, beyond the idle device; zero for no work.
    #[must_use]
    pub fn watts(&self) -> f64 {
        match self.seconds > 0.0 {
            true => self.joules / self.seconds,
            false => 0.0,
        }
    }
}

/// Why no cost is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EstimateError {
    /// No rates in this precision.
    #[error(
        "the CPU of `{device}` has no rates in {precision}; known: {known}; choose one of them, or \
         add the rates to the profile with their source"
    )]
    Precision {
        /// The profile.
        device: String,
        /// What was asked for.
        precision: &'static str,
        /// Precisions with rates, printed.
        known: String,
    },
    /// Nothing is asked for.
    #[error("a batch of 0 examples costs nothing; ask for at least 1")]
    EmptyBatch,
}

/// Numbers that Winograd's algorithm reads for each weight: `F(4x4, 3x3)` transforms 9 weights into
/// 36 (Lavin & Gray 2016, arXiv:1509.09308, section 4.3).
const WINOGRAD_WEIGHTS: f64 = 4.0;

/// The multiply-accumulates that a delegate is busy with: channels are padded to its lanes, and each
/// output and each number of a window count for as many more as they take beside.
fn computed(op: &OpWork, lanes: u32, rates: &Rates) -> f64 {
    let lanes = u64::from(lanes.max(1));
    let padded = op.columns.div_ceil(lanes) * lanes;
    let padding = padded as f64 / op.columns.max(1) as f64;
    let cost = |figure: &Option<Figure>| figure.as_ref().map_or(0.0, |figure| figure.value);
    let gathered = cost(&rates.gather) * op.gathered as f64;
    match op.columns {
        // Of what is no product, values are counted.
        0 if op.kind == Kind::Elementwise => op.values as f64,
        0 => op.macs as f64,
        _ => (op.macs as f64 + cost(&rates.setup) * op.outputs as f64) * padding + gathered,
    }
}

/// Seconds, bytes and what bounds one operator on a delegate.
///
/// `seconds = max(computed / rate, bytes / bandwidth) + launch`, with the bandwidth of the cache where all bytes fit there, where what is computed are the
/// multiply-accumulates, those of padded channels and those that an output costs beside. What Winograd's algorithm can compute
/// takes the faster of two ways: by it, with its own rate and its larger weights, or as a matrix
/// product.
#[must_use]
pub fn operator(
    op: &OpWork,
    delegate: &Delegate,
    precision: Precision,
    batch: f64,
    threads: Threads,
    sparsity: Sparsity,
) -> Option<(f64, f64, Bound)> {
    let (rates, share) = delegate.rates(precision)?;
    let one = match (threads, &delegate.one_thread) {
        (Threads::One, Some(one)) => one.value,
        _ => 1.0,
    };
    let repeats = match op.phase {
        Phase::Update => 1.0,
        _ => batch,
    };
    let product = op.kind != Kind::Elementwise;
    let sparse = match sparsity {
        Sparsity::TwoOfFour if delegate.sparse_2_4 && op.kind != Kind::Depthwise => 2.0,
        _ => 1.0,
    };
    let speed = 1e9 * share * one * sparse;
    // Training keeps gradients in 32 bits.
    let values = repeats * op.values as f64 * precision.value_bytes() + op.gradients as f64 * 4.0;
    let weights = op.parameters as f64 * precision.weight_bytes();
    // Few threads also ask for fewer bytes at a time. Converting halves in software slows
    // elementwise operators too.
    let slowed = if product { 1.0 } else { share };
    let streamed = |bytes: f64| {
        let cached = delegate.cache.as_ref();
        let cached = cached.filter(|cache| bytes <= cache.size.value * 1e6);
        let bandwidth = cached.map_or(&delegate.bandwidth, |cache| &cache.bandwidth);
        bytes / (bandwidth.value * 1e9 * one * slowed)
    };
    let macs = computed(op, delegate.lanes, rates);
    let way = |kind: Kind, weights: f64| {
        let rate = rates.of(kind);
        let compute = rate.map_or(0.0, |rate| macs * repeats / (rate * speed));
        (compute, streamed(values + weights), values + weights)
    };
    let busy = |way: (f64, f64, f64)| way.0.max(way.1);
    let (compute, memory, bytes) = match op.kind {
        Kind::Winograd if rates.winograd.is_none() => way(Kind::Conv, weights),
        Kind::Winograd => {
            let (transformed, direct) = (
                way(Kind::Winograd, WINOGRAD_WEIGHTS * weights),
                way(Kind::Conv, weights),
            );
            if busy(transformed) <= busy(direct) {
                transformed
            } else {
                direct
            }
        }
        kind => way(kind, weights),
    };
    let launch = delegate.launch.value * 1e-6;
    let busy = compute.max(memory);
    let bound = match () {
        () if launch > busy => Bound::Launch,
        () if compute >= memory => Bound::Compute,
        () => Bound::Memory,
    };
    Some((busy + launch, bytes, bound))
}

/// The modelled cost of `work` for a batch on a device.
///
/// # Errors
/// [`EstimateError`] when the CPU, which must be able to take every operator, has no rates in the
/// precision, or the batch is empty.
pub fn estimate(
    profile: &DeviceProfile,
    work: &Work,
    request: &Request<'_>,
) -> Result<Estimate, EstimateError> {
    if request.batch == 0 {
        return Err(EstimateError::EmptyBatch);
    }
    if profile.cpu.rates(request.precision).is_none() {
        let known = Precision::ALL.into_iter();
        let known = known.filter(|&it| profile.cpu.rates(it).is_some());
        return Err(EstimateError::Precision {
            device: profile.name.clone(),
            precision: request.precision.name(),
            known: known.map(Precision::name).collect::<Vec<_>>().join(", "),
        });
    }
    let found = with(profile, work, request, request.lost);
    if !request.avoid_slower || found.choice == Choice::Whole(DelegateKind::Cpu) {
        return Ok(found);
    }
    // Without the delegate that the rule took, and so on down to the CPU.
    let mut lost = request.lost.to_vec();
    let (mut best, mut next) = (found.clone(), found);
    while next.choice != Choice::Whole(DelegateKind::Cpu) {
        lost.push(match next.choice {
            Choice::Whole(kind) => kind,
            Choice::Split => DelegateKind::Npu,
        });
        next = with(profile, work, request, &lost);
        if next.seconds < best.seconds {
            best = next.clone();
        }
    }
    Ok(best)
}

fn with(
    profile: &DeviceProfile,
    work: &Work,
    request: &Request<'_>,
    lost: &[DelegateKind],
) -> Estimate {
    let precision = request.precision;
    let assignment = Assignment::decide(profile, work, precision, lost);
    let batch = f64::from(request.batch);
    let (mut seconds, mut joules) = (0.0, 0.0);
    let mut ops = Vec::with_capacity(work.ops.len());
    let mut start_up: f64 = 0.0;
    for (op, &kind) in work.ops.iter().zip(&assignment.delegates) {
        let chosen = profile.delegate(kind).unwrap_or(&profile.cpu);
        let cost = operator(
            op,
            chosen,
            precision,
            batch,
            request.threads,
            request.sparsity,
        );
        // A delegate without rates covers nothing, so this is the CPU's at the least.
        let (time, bytes, bound) = cost.unwrap_or((0.0, 0.0, Bound::Launch));
        let energy = time * chosen.power.value;
        seconds += time;
        joules += energy;
        start_up = start_up.max(chosen.start_up.value * 1e-3);
        ops.push(OpEstimate {
            delegate: kind,
            bytes,
            seconds: time,
            joules: energy,
            bound,
        });
    }
    let (mut borders, mut border_seconds) = (0, 0.0);
    for (from, to, values) in assignment.borders(work) {
        borders += 1;
        let other = if from == DelegateKind::Cpu { to } else { from };
        let Some(other) = profile.delegate(other) else {
            continue;
        };
        let figure =
            |figure: &Option<super::profile::Figure>| figure.as_ref().map_or(0.0, |f| f.value);
        let bytes = batch * values as f64 * precision.value_bytes();
        let mut time = figure(&other.transfer_launch) * 1e-6;
        let speed = figure(&other.transfer) * 1e9;
        if speed > 0.0 {
            time += bytes / speed;
        }
        // Quantizing or converting on the CPU's side reads floats and writes the other's numbers.
        let converted = batch * values as f64 * (4.0 + precision.value_bytes());
        time += converted / (profile.cpu.bandwidth.value * 1e9);
        border_seconds += time;
        joules += time * profile.cpu.power.value;
    }
    seconds += border_seconds;
    let coverage = |kind: DelegateKind| {
        let delegate = profile.delegate(kind)?;
        Some(Coverage::of(work, delegate, precision))
    };
    Estimate {
        choice: assignment.choice,
        npu: coverage(DelegateKind::Npu),
        gpu: coverage(DelegateKind::Gpu),
        ops,
        borders,
        border_seconds,
        seconds,
        joules,
        start_up_seconds: start_up,
    }
}
