//! What a round was on the devices of the fleet.

use fl_core::VirtualTime;
use serde::{Deserialize, Serialize};

use super::journey::{End, Journey};
use crate::fleet::cost::Joules;
use crate::fleet::eligibility::Ineligible;
use crate::schedule::seconds;

/// How a round ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoundEnd {
    /// The model moved.
    #[default]
    Applied,
    /// The model moved, with fewer reports than the first threshold asks for.
    Lowered,
    /// It did not: too few clients could be found.
    TooFewReady,
    /// It did not: too few reported.
    TooFewUpdates,
    /// It did not: the round was given up.
    Aborted,
}

impl RoundEnd {
    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Lowered => "lowered",
            Self::TooFewReady => "too-few-ready",
            Self::TooFewUpdates => "too-few-updates",
            Self::Aborted => "aborted",
        }
    }
}

/// A round on the devices of the fleet. Times, energies and temperatures are **modelled**; times are
/// seconds of the virtual clock.
///
/// What is said of single devices together (times, joules, temperatures) is said only of as many as
/// the [smallest group](crate::TelemetryConfig::minimum_group) has, and is none for fewer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// When the round began.
    pub started: f64,
    /// When it ended.
    pub ended: f64,
    /// How it ended.
    pub end: RoundEnd,
    /// Clients whose eligibility was asked for.
    pub asked: u64,
    /// Those of them that were eligible.
    pub eligible: u64,
    /// Why the others were not.
    pub ineligible: Ineligible,
    /// Clients told to train.
    pub called: u64,
    /// Clients that left while they downloaded the task.
    pub left_downloading: u64,
    /// Clients that left while they trained.
    pub left_training: u64,
    /// Clients that left while they sent their update.
    pub left_uploading: u64,
    /// Clients that were still at work at the deadline.
    pub late: u64,
    /// Clients that were still at work when the round had enough.
    pub surplus: u64,
    /// Clients whose update was lost with their region, or on the way.
    pub lost: u64,
    /// Clients that did a part of their work so as to be in time.
    pub partial: u64,
    /// Mean seconds from the call to the report, of the clients in the sum.
    pub seconds_mean: Option<f64>,
    /// Their median.
    pub seconds_median: Option<f64>,
    /// Their 90th percentile.
    pub seconds_p90: Option<f64>,
    /// Mean seconds of downloading.
    pub download_seconds: Option<f64>,
    /// Mean seconds of training.
    pub training_seconds: Option<f64>,
    /// Mean seconds of sending.
    pub upload_seconds: Option<f64>,
    /// Mean seconds from the report to the end of the round.
    pub waiting_seconds: Option<f64>,
    /// Joules of training of all who began it, beyond what an idle device takes.
    pub joules: Option<f64>,
    /// Joules of it for nothing: of clients whose update did not count.
    pub joules_wasted: Option<f64>,
    /// Joules on CPUs.
    pub joules_cpu: Option<f64>,
    /// Joules on GPUs.
    pub joules_gpu: Option<f64>,
    /// Joules on NPUs.
    pub joules_npu: Option<f64>,
    /// Clients slowed down by heat.
    pub throttled: u64,
    /// The mean of the temperatures to which devices came, in degrees Celsius.
    pub celsius_mean: Option<f64>,
    /// Bytes that reached devices, or left them, for nothing.
    pub bytes_wasted: u64,
    /// Mean number of versions by which the updates in the sum were stale.
    pub staleness_mean: f64,
    /// The largest.
    pub staleness_max: u64,
    /// Clients at work when the round ended, whose updates may count later.
    pub in_flight: u64,
}

/// What became of the clients that were told to train: adds up in the order of the clients.
#[derive(Debug, Default)]
pub(crate) struct Tallied {
    seconds: Vec<f64>,
    downloading: f64,
    training: f64,
    uploading: f64,
    waiting: f64,
    joules: [f64; 3],
    wasted: f64,
    celsius: f64,
    trained: u64,
    pub(crate) bytes_down: u64,
    pub(crate) bytes_up: u64,
}

impl Tallied {
    /// Counts one client's journey, which ended or was ended at `ended`.
    pub(crate) fn count(
        &mut self,
        journey: &Journey,
        end: End,
        ended: VirtualTime,
        record: &mut FleetRecord,
    ) {
        let part = journey.until(end.moment(journey, ended));
        record.called += 1;
        self.bytes_down += part.down;
        self.bytes_up += part.up;
        if part.trained > 0.0 {
            self.trained += 1;
            let session = journey.session_until(end.moment(journey, ended));
            let Joules { cpu, gpu, npu, .. } = session.joules;
            for (sum, joules) in self.joules.iter_mut().zip([cpu, gpu, npu]) {
                *sum += joules;
            }
            self.celsius += session.after.celsius;
            record.throttled += u64::from(session.is_throttled());
            if end != End::Counted {
                self.wasted += cpu + gpu + npu;
            }
        }
        match end {
            End::Counted => {
                self.seconds
                    .push(seconds(journey.reported - journey.started));
                self.downloading += seconds(journey.downloaded - journey.started);
                self.training += seconds(journey.trained - journey.downloaded);
                self.uploading += seconds(journey.reported - journey.trained);
                self.waiting += seconds(ended - journey.reported);
            }
            End::Left if part.up > 0 => record.left_uploading += 1,
            End::Left if part.trained > 0.0 => record.left_training += 1,
            End::Left => record.left_downloading += 1,
            End::Late => record.late += 1,
            End::Surplus => record.surplus += 1,
            End::Lost => record.lost += 1,
            End::Refused => {}
        }
        if end != End::Counted {
            record.bytes_wasted += part.down + part.up;
        }
        record.partial += u64::from(journey.cut && end == End::Counted);
    }

    /// Says of groups of at least `least` what was counted.
    pub(crate) fn finish(mut self, least: u64, record: &mut FleetRecord) {
        let counted = self.seconds.len() as u64;
        if counted > 0 && counted >= least {
            let mean = |sum: f64| Some(sum / counted as f64);
            record.seconds_mean = mean(self.seconds.iter().sum());
            record.download_seconds = mean(self.downloading);
            record.training_seconds = mean(self.training);
            record.upload_seconds = mean(self.uploading);
            record.waiting_seconds = mean(self.waiting);
            self.seconds.sort_unstable_by(f64::total_cmp);
            record.seconds_median = quantile(&self.seconds, 0.5);
            record.seconds_p90 = quantile(&self.seconds, 0.9);
        }
        if self.trained >= least.max(1) {
            let [cpu, gpu, npu] = self.joules;
            record.joules = Some(cpu + gpu + npu);
            record.joules_wasted = Some(self.wasted);
            (record.joules_cpu, record.joules_gpu, record.joules_npu) =
                (Some(cpu), Some(gpu), Some(npu));
            record.celsius_mean = Some(self.celsius / self.trained as f64);
        }
    }
}

/// The value below which a share of the `sorted` values lies: the smallest that at least that share
/// does not exceed.
pub(super) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = libm::ceil(share * sorted.len() as f64) as usize;
    sorted.get(rank.max(1) - 1).copied()
}
