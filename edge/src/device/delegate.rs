//! Which delegate runs what.
//!
//! Coverage decides: above 95 % of a graph the NPU takes it, from 80 to 95 % the graph is split
//! between NPU and CPU, below that the GPU takes what it covers by the same rule, and the CPU the
//! rest. Coverage is the smaller of the shares by operators and by multiply-accumulates, so
//! neither many small operators nor one large one is overlooked. An operator that the chosen
//! delegate does not cover runs on the CPU: none is ever left unassigned.
//!
//! Delegates are about time only. Every number is computed by this crate's kernels.

use alloc::vec::Vec;

use serde::Serialize;

use super::profile::{Delegate, DelegateKind, DeviceProfile, Precision};
use super::work::Work;

/// Operators and multiply-accumulates of a graph that a delegate covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Operators that it covers.
    pub covered: u64,
    /// All operators.
    pub operators: u64,
    /// Multiply-accumulates of those that it covers.
    pub covered_macs: u64,
    /// All multiply-accumulates.
    pub macs: u64,
}

impl Coverage {
    /// What `delegate` covers of `work` in a precision: nothing when it has no rates in it, or when
    /// the work is training and it cannot train.
    #[must_use]
    pub fn of(work: &Work, delegate: &Delegate, precision: Precision) -> Self {
        let able = delegate.rates(precision).is_some() && (delegate.trains || !work.training);
        let mut found = Self::default();
        for op in &work.ops {
            found.operators += 1;
            found.macs += op.macs;
            if able && delegate.covers(op.operator) {
                found.covered += 1;
                found.covered_macs += op.macs;
            }
        }
        found
    }

    /// The smaller of the two shares, in `[0, 1]`; zero for nothing at all.
    #[must_use]
    pub fn share(self) -> f64 {
        let share = |part: u64, all: u64| match all {
            0 => 1.0,
            _ => part as f64 / all as f64,
        };
        match self.operators {
            0 => 0.0,
            _ => share(self.covered, self.operators).min(share(self.covered_macs, self.macs)),
        }
    }

    /// Whether both shares are above `percent`, exactly.
    fn above(self, percent: u64) -> bool {
        let above = |part: u64, all: u64| {
            u128::from(part) * 100 > u128::from(all) * u128::from(percent) || all == 0
        };
        self.operators > 0
            && above(self.covered, self.operators)
            && above(self.covered_macs, self.macs)
    }

    /// Whether both shares are `percent` or more, exactly.
    fn at_least(self, percent: u64) -> bool {
        let reaches =
            |part: u64, all: u64| u128::from(part) * 100 >= u128::from(all) * u128::from(percent);
        self.operators > 0
            && reaches(self.covered, self.operators)
            && reaches(self.covered_macs, self.macs)
    }
}

/// How a graph is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// One delegate takes it; operators that an NPU or GPU does not cover run on the CPU.
    Whole(DelegateKind),
    /// The CPU takes what the NPU does not cover.
    Split,
}

/// The rule: above 95 % the NPU, 80 to 95 % NPU and CPU, else the GPU above 95 %, else the CPU.
/// None for a delegate that is missing or failed.
#[must_use]
pub fn choose(npu: Option<Coverage>, gpu: Option<Coverage>) -> Choice {
    match (npu, gpu) {
        (Some(npu), _) if npu.above(95) => Choice::Whole(DelegateKind::Npu),
        (Some(npu), _) if npu.at_least(80) => Choice::Split,
        (_, Some(gpu)) if gpu.above(95) => Choice::Whole(DelegateKind::Gpu),
        _ => Choice::Whole(DelegateKind::Cpu),
    }
}

/// Where each operator of some work runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The decision.
    pub choice: Choice,
    /// For each operator of the work its delegate.
    pub delegates: Vec<DelegateKind>,
}

impl Assignment {
    /// Decides for a device, without the delegates that are `lost`. Where the device's own GPU is
    /// slower than its CPU (as on a Snapdragon 765G or a Raspberry Pi 5) the rule still chooses it;
    /// name it in `lost` to leave it out, which is what [`estimate`](super::estimate) does with
    /// [`Request::avoid_slower`](super::Request::avoid_slower).
    #[must_use]
    pub fn decide(
        profile: &DeviceProfile,
        work: &Work,
        precision: Precision,
        lost: &[DelegateKind],
    ) -> Self {
        let coverage = |kind: DelegateKind| {
            let delegate = profile.delegate(kind).filter(|_| !lost.contains(&kind))?;
            Some(Coverage::of(work, delegate, precision))
        };
        let npu = coverage(DelegateKind::Npu);
        // Training has no borders inserted: one delegate, or the CPU.
        let npu = npu.filter(|npu| !work.training || npu.above(95));
        let choice = choose(npu, coverage(DelegateKind::Gpu));
        let kind = match choice {
            Choice::Whole(kind) => kind,
            Choice::Split => DelegateKind::Npu,
        };
        let place = |operator| match profile.delegate(kind) {
            Some(delegate) if delegate.covers(operator) => kind,
            _ => DelegateKind::Cpu,
        };
        let delegates = work.ops.iter().map(|op| place(op.operator)).collect();
        Self { choice, delegates }
    }

    /// Borders: values that go from one delegate to another, with the sides. The graph's input
    /// comes from the CPU and its output goes there.
    pub fn borders<'a>(
        &'a self,
        work: &'a Work,
    ) -> impl Iterator<Item = (DelegateKind, DelegateKind, u64)> + 'a {
        let at = |op: Option<usize>| op.map_or(DelegateKind::Cpu, |op| self.delegates[op]);
        let ends = work
            .edges
            .iter()
            .map(move |edge| (at(edge.from), at(edge.to), edge.values));
        ends.filter(|(from, to, _)| from != to)
    }
}
